//! What MAIL and RCPT say: a path, and parameters (RFC 1870, 3461, 4954, 6152, 6531). All that is known is checked here and
//! kept; what is not known is refused, and so is what is said twice.
//!
//! Encoded values (`ENVID`, `ORCPT`, `AUTH`) are kept as they were sent: words of printable characters, whatever they
//! decode to. That holds no control character either, so that no line of a queue file or of a report can be made of them.

use super::reply::{self, Reply};
use crate::mail::address::{self, Address, NoPath};
use crate::text::number::decimal;
use crate::text::xtext;

/// Octets of an envelope's id as it was before encoding (RFC 3461 §4.4), and of one as it is sent.
pub const ENVID_LIMIT: usize = 100;
/// Octets of an original recipient, and of who submitted it, as sent (RFC 3461 §4.2, RFC 4954 §5).
pub const WORD_LIMIT: usize = 500;

/// Who sends, and how (MAIL).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// Where bounces go; `None` = nowhere.
    pub path: Option<Address>,
    /// SIZE: octets as the client counts them. Nothing to be relied on.
    pub size: Option<u64>,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// SMTPUTF8: paths and headers may hold more than ASCII.
    pub utf8: bool,
    /// AUTH: who submitted it, as a client in between says; `<>` if it does not know.
    pub auth: Option<Box<str>>,
    /// RET: what a report is to bring back.
    pub ret: Option<Ret>,
    /// ENVID, as sent.
    pub envid: Option<Box<str>>,
}

/// What of the message a report brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

/// Who is to have it, and what its sender wants to hear about that (RCPT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whose mail it is.
    pub path: Address,
    /// NOTIFY; `None` = not said.
    pub notify: Option<Notify>,
    /// ORCPT, as sent: the type in letters as they came, a semicolon, the address encoded.
    pub orcpt: Option<Box<str>>,
}

/// When a report is wanted. None of them: NEVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// When it was delivered.
    pub success: bool,
    /// When it cannot be.
    pub failure: bool,
    /// When it takes long.
    pub delay: bool,
}

/// What follows `MAIL`. `params`: the client said EHLO and may give parameters.
pub fn sender(text: &[u8], params: bool) -> Result<Sender, &'static Reply> {
    let text = argument(text, "FROM:").ok_or(&reply::BAD_ARGUMENT)?;
    let (path, rest) = address::path(text, true).map_err(|why| refused(why, &reply::BAD_SENDER))?;
    let mut sender = Sender { path, size: None, eight_bit: false, utf8: false, auth: None, ret: None, envid: None };
    let mut seen = Seen::default();
    for param in each(rest, params)? {
        let (name, value) = param?;
        let known = seen.first(name, &["SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"])?;
        match (known, value) {
            ("SIZE", Some(value)) => sender.size = Some(decimal(value).ok_or(&reply::BAD_PARAMETER)?),
            ("BODY", Some(value)) if is(value, "8BITMIME") => sender.eight_bit = true,
            ("BODY", Some(value)) if is(value, "7BIT") => {}
            ("SMTPUTF8", None) => sender.utf8 = true,
            ("AUTH", Some(value)) => sender.auth = Some(submitter(value).ok_or(&reply::BAD_PARAMETER)?),
            ("RET", Some(value)) if is(value, "FULL") => sender.ret = Some(Ret::Full),
            ("RET", Some(value)) if is(value, "HDRS") => sender.ret = Some(Ret::Headers),
            ("ENVID", Some(value)) => sender.envid = Some(envid(value).ok_or(&reply::BAD_PARAMETER)?),
            _ => return Err(&reply::BAD_PARAMETER),
        }
    }
    if !sender.utf8 && !text[..text.len() - rest.len()].is_ascii() {
        return Err(&reply::NEEDS_UTF8);
    }
    // RFC 5321 §4.1.1.3: a name without a domain is for RCPT.
    if sender.path.as_ref().is_some_and(|path| path.place == address::Place::Here) {
        return Err(&reply::BAD_SENDER);
    }
    Ok(sender)
}

/// What follows `RCPT`. `utf8`: MAIL had SMTPUTF8.
pub fn recipient(text: &[u8], params: bool, utf8: bool) -> Result<Recipient, &'static Reply> {
    let text = argument(text, "TO:").ok_or(&reply::BAD_ARGUMENT)?;
    let (path, rest) = address::path(text, utf8).map_err(|why| refused(why, &reply::BAD_RECIPIENT))?;
    let path = path.ok_or(&reply::BAD_RECIPIENT)?;
    let mut recipient = Recipient { path, notify: None, orcpt: None };
    let mut seen = Seen::default();
    for param in each(rest, params)? {
        let (name, value) = param?;
        match (seen.first(name, &["NOTIFY", "ORCPT"])?, value) {
            ("NOTIFY", Some(value)) => recipient.notify = Some(notify(value).ok_or(&reply::BAD_PARAMETER)?),
            ("ORCPT", Some(value)) => recipient.orcpt = Some(orcpt(value, utf8).ok_or(&reply::BAD_PARAMETER)?),
            _ => return Err(&reply::BAD_PARAMETER),
        }
    }
    Ok(recipient)
}

fn refused(why: NoPath, otherwise: &'static Reply) -> &'static Reply {
    match why {
        NoPath::NotAscii => &reply::NEEDS_UTF8,
        NoPath::Malformed | NoPath::TooLong => otherwise,
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// What follows `FROM:` or `TO:`. Blanks after the colon are no part of the grammar, and half the world sends them.
fn argument<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let (word, rest) = text.split_at_checked(name.len())?;
    is(word, name).then(|| rest.trim_ascii_start())
}

type Param<'t> = (&'t [u8], Option<&'t [u8]>);

/// `KEYWORD` and `KEYWORD=value`, one blank or more before each.
fn each(rest: &[u8], may: bool) -> Result<impl Iterator<Item = Result<Param<'_>, &'static Reply>>, &'static Reply> {
    if rest.first().is_some_and(|&byte| byte != b' ') {
        return Err(&reply::BAD_ARGUMENT);
    }
    let words = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    Ok(words.map(move |word| {
        if !may {
            return Err(&reply::UNKNOWN_PARAMETER);
        }
        Ok(match memchr::memchr(b'=', word) {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        })
    }))
}

/// Which parameters have been given, by their place in the list of those that there are.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    /// The parameter of that name, at its first time.
    fn first(&mut self, name: &[u8], all: &[&'static str]) -> Result<&'static str, &'static Reply> {
        let at = all.iter().position(|known| is(name, known)).ok_or(&reply::UNKNOWN_PARAMETER)?;
        if self.0 & 1 << at != 0 {
            return Err(&reply::BAD_PARAMETER);
        }
        self.0 |= 1 << at;
        Ok(all[at])
    }
}

/// RFC 4954 §5: `<>`, or a mailbox in xtext.
pub(super) fn submitter(value: &[u8]) -> Option<Box<str>> {
    if value.len() > WORD_LIMIT {
        return None;
    }
    if value != b"<>" {
        let mailbox = xtext::decode(value)?;
        let written = [b"<", &mailbox[..], b">"].concat();
        // Not the empty one a second time, and nothing after it.
        let (Some(_), b"") = address::path(&written, true).ok()? else { return None };
    }
    kept(value)
}

/// RFC 3461 §4.4: printable characters and blanks, in xtext.
pub(super) fn envid(value: &[u8]) -> Option<Box<str>> {
    let id = xtext::decode(value)?;
    let fits = (1..=ENVID_LIMIT).contains(&value.len()) && id.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if fits { kept(value) } else { None }
}

/// RFC 3461 §4.1: a list, or NEVER alone.
fn notify(value: &[u8]) -> Option<Notify> {
    if is(value, "NEVER") {
        return Some(Notify::default());
    }
    let mut notify = Notify::default();
    for word in value.split(|&byte| byte == b',') {
        let flag = match word {
            _ if is(word, "SUCCESS") => &mut notify.success,
            _ if is(word, "FAILURE") => &mut notify.failure,
            _ if is(word, "DELAY") => &mut notify.delay,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(notify)
}

/// What ORCPT would have said of a recipient without it (RFC 3461 §4.2, RFC 6533 §3).
pub fn original(path: &Address) -> String {
    let address = path.to_string();
    if address.is_ascii() {
        format!("rfc822;{}", xtext::encode(address.as_bytes()))
    } else {
        format!("utf-8;{address}")
    }
}

/// RFC 3461 §4.2 and RFC 6533 §3: `type;address`, the address in xtext or, for `utf-8`, as it is where UTF-8 may be.
pub(super) fn orcpt(value: &[u8], utf8: bool) -> Option<Box<str>> {
    let (kind, address) = value.split_at(memchr::memchr(b';', value)?);
    let address = &address[1..];
    let atom = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    if value.len() > WORD_LIMIT || kind.is_empty() || !kind.iter().all(atom) || address.is_empty() {
        return None;
    }
    let text = match std::str::from_utf8(address).ok()? {
        text if text.is_ascii() => String::from_utf8(xtext::decode(address)?).ok()?,
        text if utf8 && is(kind, "utf-8") => text.to_owned(),
        _ => return None,
    };
    let plain = |c: char| matches!(c, ' '..='~') || address::is_letter_beyond_ascii(c);
    if text.chars().all(plain) { kept(value) } else { None }
}

fn kept(value: &[u8]) -> Option<Box<str>> {
    std::str::from_utf8(value).ok().map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Sender, &'static Reply> {
        sender(text.as_bytes(), true)
    }

    #[test]
    fn what_mail_says_is_kept() {
        let all = from("from:<a@x> SIZE=1000 body=8bitmime SMTPUTF8 AUTH=a+2Bb@x RET=HDRS ENVID=QQ+20314").unwrap();
        let (path, _) = address::path(b"<a@x>", false).unwrap();
        let expected = Sender {
            path,
            size: Some(1000),
            eight_bit: true,
            utf8: true,
            auth: Some("a+2Bb@x".into()),
            ret: Some(Ret::Headers),
            envid: Some("QQ+20314".into()),
        };
        assert_eq!(all, expected);
        assert_eq!(from("FROM: <>  BODY=7BIT RET=full AUTH=<>").unwrap().ret, Some(Ret::Full));
        assert_eq!(from("FROM:<>").unwrap().path, None);
        assert!(from("FROM:<ü@x> SMTPUTF8").is_ok());
        assert_eq!(from("FROM:<ü@x>").unwrap_err(), &reply::NEEDS_UTF8);
    }

    #[test]
    fn what_rcpt_says_is_kept() {
        let to = |text: &str, utf8| recipient(text.as_bytes(), true, utf8);
        let all = to("TO:<a@x> NOTIFY=success,DELAY ORCPT=rfc822;b+2Bc@y", false).unwrap();
        assert_eq!(all.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(all.orcpt.as_deref(), Some("rfc822;b+2Bc@y"));
        assert_eq!(to("TO:<a@x> NOTIFY=NEVER", false).unwrap().notify, Some(Notify::default()));
        assert!(to("TO:<postmaster>", false).is_ok());
        assert!(to("TO:<a@x> ORCPT=utf-8;ü@x", true).is_ok());
        assert_eq!(to("TO:<ü@x>", false).unwrap_err(), &reply::NEEDS_UTF8);
        for (text, why) in [
            ("", &reply::BAD_ARGUMENT),
            ("TO", &reply::BAD_ARGUMENT),
            ("FROM:<a@x>", &reply::BAD_ARGUMENT),
            ("TO:", &reply::BAD_RECIPIENT),
            ("TO:<>", &reply::BAD_RECIPIENT),
            ("TO:<ann>", &reply::BAD_RECIPIENT),
            ("TO:<a@x>NOTIFY=NEVER", &reply::BAD_ARGUMENT),
            ("TO:<a@x> SIZE=1", &reply::UNKNOWN_PARAMETER),
            ("TO:<a@x> NOTIFY", &reply::BAD_PARAMETER),
            ("TO:<a@x> NOTIFY=", &reply::BAD_PARAMETER),
            ("TO:<a@x> NOTIFY=NEVER,SUCCESS", &reply::BAD_PARAMETER),
            ("TO:<a@x> NOTIFY=SUCCESS,SUCCESS", &reply::BAD_PARAMETER),
            ("TO:<a@x> NOTIFY=NEVER NOTIFY=NEVER", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=rfc822", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=;a", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=rfc822;", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=rfc822;a+0AX", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=rfc822;a+2", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=rf c;a", &reply::BAD_PARAMETER),
            ("TO:<a@x> ORCPT=utf-8;ü@x", &reply::BAD_PARAMETER),
        ] {
            assert_eq!(to(text, false).unwrap_err(), why, "{text}");
        }
        for text in ["TO:<a@x> ORCPT=rfc822;ü@x", "TO:<a@x> ORCPT=utf-8;a\u{2028}b", "TO:<a@x> ORCPT=utf-8;+E2+80+A8"]
        {
            assert_eq!(to(text, true).unwrap_err(), &reply::BAD_PARAMETER, "{text}");
        }
        let long = format!("TO:<a@x> ORCPT=rfc822;{}", "x".repeat(WORD_LIMIT - 6));
        assert_eq!(to(&long, false).unwrap_err(), &reply::BAD_PARAMETER);
        assert!(to(&long[..long.len() - 1], false).is_ok());
    }

    #[test]
    fn what_mail_cannot_say_is_refused() {
        for (text, why) in [
            ("", &reply::BAD_ARGUMENT),
            ("<a@x>", &reply::BAD_ARGUMENT),
            ("FROM:a@x", &reply::BAD_SENDER),
            ("FROM:<postmaster>", &reply::BAD_SENDER),
            ("FROM:<a@b>AUTH=x", &reply::BAD_ARGUMENT),
            ("FROM:<a@b> AUTH=x+0Ay", &reply::BAD_PARAMETER),
            ("FROM:<a@b> AUTH=a@x+0Ay", &reply::BAD_PARAMETER),
            ("FROM:<a@b> AUTH=", &reply::BAD_PARAMETER),
            ("FROM:<a@b> AUTH=a@x+3E+3Cb@x", &reply::BAD_PARAMETER),
            ("FROM:<a@b> ENVID=+0D+0A", &reply::BAD_PARAMETER),
            ("FROM:<a@b> ENVID=", &reply::BAD_PARAMETER),
            ("FROM:<a@b> ENVID=ü SMTPUTF8", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SIZE", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SIZE=", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SIZE=-1", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SIZE=99999999999999999999", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SIZE=1 size=1", &reply::BAD_PARAMETER),
            ("FROM:<a@b> BODY=BINARYMIME", &reply::BAD_PARAMETER),
            ("FROM:<a@b> SMTPUTF8=yes", &reply::BAD_PARAMETER),
            ("FROM:<a@b> RET=ALL", &reply::BAD_PARAMETER),
            ("FROM:<a@b> NOTIFY=NEVER", &reply::UNKNOWN_PARAMETER),
            ("FROM:<a@b> =", &reply::UNKNOWN_PARAMETER),
            ("FROM:<a@b> FROB", &reply::UNKNOWN_PARAMETER),
        ] {
            assert_eq!(from(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(sender(b"FROM:<a@b> SIZE=1", false).unwrap_err(), &reply::UNKNOWN_PARAMETER);
        let id = |length: usize| from(&format!("FROM:<> ENVID={}", "x".repeat(length)));
        assert!(id(ENVID_LIMIT).is_ok() && id(ENVID_LIMIT + 1).is_err());
    }
}
