//! An envelope as commands. [`check`] says no before the first of them is written; afterwards each is one line, whatever the
//! envelope's fields hold: its addresses are read back and its parameters pass the server's own checks.

use super::{Envelope, Extensions, Form, Notify, Recipient, Ret, Unfit};
use crate::mail::address::{self, Address, NoPath, Place};
use crate::protocol::smtp::params;
use crate::text::bytes::Output;

/// Whether it can be brought to a server that offers this and has had so many messages on the connection.
pub(super) fn check(envelope: &Envelope, offers: &Extensions, mails: u32) -> Result<(), Unfit> {
    let Envelope { sender, recipients, form } = envelope;
    if recipients.is_empty() {
        return Err(Unfit::Nobody);
    }
    if offers.mail_max > 0 && mails >= offers.mail_max {
        return Err(Unfit::Spent);
    }
    if offers.rcpt_max > 0 && recipients.len() > offers.rcpt_max as usize {
        return Err(Unfit::Full(offers.rcpt_max));
    }
    if offers.size_max > 0 && sender.size.is_some_and(|size| size > offers.size_max) {
        return Err(Unfit::TooBig(offers.size_max));
    }
    // Before 8-bit text, which such a message has too: its sender can write it otherwise, the text not.
    if sender.utf8 && !offers.utf8 {
        return Err(Unfit::Utf8);
    }
    if sender.eight_bit && !offers.eight_bit {
        return Err(Unfit::EightBit);
    }
    if *form != Form::Lines && !offers.chunking {
        return Err(Unfit::NoChunks);
    }
    if let Some(path) = &sender.path {
        check_path(path, sender.utf8, Unfit::BadSender)?;
    }
    // RFC 5321 §4.1.1.3: a name without a domain is for RCPT.
    let here = sender.path.as_ref().is_some_and(|path| path.place == Place::Here);
    let envid = sender.envid.as_ref().is_some_and(|envid| params::envid(envid.as_bytes()).is_none());
    let auth = sender.auth.as_ref().is_some_and(|auth| params::submitter(auth.as_bytes()).is_none());
    if here || envid || auth {
        return Err(Unfit::BadSender);
    }
    for (recipient, at) in recipients.iter().zip(0..) {
        check_path(&recipient.path, sender.utf8, Unfit::BadRecipient(at))?;
        let orcpt = recipient.orcpt.as_ref();
        if orcpt.is_some_and(|orcpt| params::orcpt(orcpt.as_bytes(), sender.utf8).is_none()) {
            return Err(Unfit::BadRecipient(at));
        }
    }
    Ok(())
}

/// An address is fit to be written if what is written is that address.
fn check_path(path: &Address, utf8: bool, otherwise: Unfit) -> Result<(), Unfit> {
    match address::path(format!("<{path}>").as_bytes(), utf8) {
        Ok((Some(read), b"")) if read == *path => Ok(()),
        Err(NoPath::NotAscii) => Err(Unfit::Utf8),
        _ => Err(otherwise),
    }
}

pub(super) fn mail(envelope: &Envelope, offers: &Extensions, out: &mut Output) {
    use std::fmt::Write as _;

    let sender = &envelope.sender;
    // Writing into memory cannot fail.
    let _ = match &sender.path {
        Some(path) => write!(out, "MAIL FROM:<{path}>"),
        None => write!(out, "MAIL FROM:<>"),
    };
    if let Some(size) = sender.size.filter(|_| offers.size) {
        let _ = write!(out, " SIZE={size}");
    }
    if sender.eight_bit {
        out.push(b" BODY=8BITMIME");
    }
    if sender.utf8 {
        out.push(b" SMTPUTF8");
    }
    if offers.dsn {
        out.push(match sender.ret {
            Some(Ret::Full) => b" RET=FULL",
            Some(Ret::Headers) => b" RET=HDRS",
            None => b"",
        });
        if let Some(envid) = &sender.envid {
            let _ = write!(out, " ENVID={envid}");
        }
    }
    if let Some(auth) = sender.auth.as_ref().filter(|_| offers.auth) {
        let _ = write!(out, " AUTH={auth}");
    }
    out.push(b"\r\n");
}

pub(super) fn rcpt(recipient: &Recipient, offers: &Extensions, out: &mut Output) {
    use std::fmt::Write as _;

    // Writing into memory cannot fail.
    let _ = write!(out, "RCPT TO:<{}>", recipient.path);
    if offers.dsn {
        if let Some(Notify { success, failure, delay }) = recipient.notify {
            let words = [("SUCCESS", success), ("FAILURE", failure), ("DELAY", delay)];
            let mut lead = " NOTIFY=";
            for (word, _) in words.into_iter().filter(|(_, wanted)| *wanted) {
                let _ = write!(out, "{lead}{word}");
                lead = ",";
            }
            if !(success || failure || delay) {
                out.push(b" NOTIFY=NEVER");
            }
        }
        if let Some(orcpt) = &recipient.orcpt {
            let _ = write!(out, " ORCPT={orcpt}");
        }
    }
    out.push(b"\r\n");
}
