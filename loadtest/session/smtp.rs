//! What an SMTP client brings and is told.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use dmail::mail::address::{self, Address};
use dmail::mail::dots::DotEncoder;
use dmail::net::stream::{Body, Done, Flow, Pull};
use dmail::net::tls::Secure;
use dmail::protocol::sasl::Login;
use dmail::protocol::smtp::client::reply::Reply;
use dmail::protocol::smtp::client::{
    Answer, Ask, Client, Envelope, Form, Over, Recipient, Sender, Told, Why,
};
use dmail::text::bytes::Output;
use dmail::text::secret::Secret;

use super::{Doing, Life, Talk};
use crate::letter::{Heading, Letter, State};
use crate::run::Shared;
use crate::work::{End, Event, Mail, SmtpTask, Task, Verdict};

/// The text of a message on its way: made as it goes.
pub struct Text {
    letter: Letter,
    at: u64,
    /// None: the last of it has been made.
    dots: Option<DotEncoder>,
    /// Where its client's fate comes.
    until: Option<u64>,
}

impl Body for Text {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        let most = self.until.map_or(scratch.len() as u64, |until| until.saturating_sub(self.at));
        let most = scratch.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if most == 0 {
            return Pull::Cold;
        }
        let count = self.letter.read_at(self.at, &mut scratch[..most]);
        let Some(dots) = self.dots.as_mut().filter(|_| count > 0) else { return Pull::Last };
        dots.push(&scratch[..count], out.tail(count + count / 8));
        self.at += count as u64;
        Pull::More
    }
}
