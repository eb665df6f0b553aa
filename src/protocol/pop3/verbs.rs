//! The verbs of POP3: a table of name, where it may be said, and what it does. There is no other list of verbs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::reply::{Refusal, line, say};
use super::{Ask, Asked, Mechanism, Pop3, Rowed, State};
use crate::text::bytes::Output;
use crate::text::number::decimal;
use crate::text::secret::Secret;

/// What a verb comes to.
pub(super) enum Next {
    /// It has been answered.
    Said,
    /// It is refused.
    Refuse(Refusal),
    /// Somebody has to do something first.
    Ask(Ask),
    /// The conversation is over.
    Close,
}

struct Verb {
    name: &'static str,
    where_: Where,
    run: fn(&mut Pop3, &[u8], &mut Output) -> Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Before,
    After,
    Both,
}

const VERBS: &[Verb] = &[
    Verb { name: "AUTH", where_: Where::Before, run: Pop3::auth },
    Verb { name: "CAPA", where_: Where::Both, run: Pop3::capa },
    Verb { name: "DELE", where_: Where::After, run: Pop3::dele },
    Verb { name: "LAST", where_: Where::After, run: Pop3::last_read },
    Verb { name: "LIST", where_: Where::After, run: Pop3::list },
    Verb { name: "NOOP", where_: Where::Both, run: Pop3::noop },
    Verb { name: "PASS", where_: Where::Before, run: Pop3::pass },
    Verb { name: "QUIT", where_: Where::Both, run: Pop3::quit },
    Verb { name: "RETR", where_: Where::After, run: Pop3::retr },
    Verb { name: "RSET", where_: Where::After, run: Pop3::rset },
    Verb { name: "STAT", where_: Where::After, run: Pop3::stat },
    Verb { name: "STLS", where_: Where::Before, run: Pop3::stls },
    Verb { name: "TOP", where_: Where::After, run: Pop3::top },
    Verb { name: "UIDL", where_: Where::After, run: Pop3::uidl },
    Verb { name: "USER", where_: Where::Before, run: Pop3::user },
];

/// Verbs of another protocol: a browser or a cross-protocol attack (ALPACA). Nothing it says next is worth reading.
const FOREIGN: &[&str] = &["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "EHLO", "HELO"];

/// The word before the first blank, and what follows that blank.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// A message number: decimal, and small enough to be one. Zero is a number that no message has.
fn number(text: &[u8]) -> Option<u32> {
    decimal(text).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

impl Pop3 {
    /// One command line.
    pub(super) fn verb(&mut self, text: &[u8], out: &mut Output) -> Next {
        let (word, rest) = split(text);
        let Some(verb) = VERBS.iter().find(|verb| is(word, verb.name)) else {
            if FOREIGN.iter().any(|name| is(word, name)) {
                line(out, Refusal::UnknownCommand.text());
                return Next::Close;
            }
            return Next::Refuse(Refusal::UnknownCommand);
        };
        let here = if self.state == State::Transaction { Where::After } else { Where::Before };
        if verb.where_ != Where::Both && verb.where_ != here {
            return Next::Refuse(Refusal::WrongState);
        }
        (verb.run)(self, rest, out)
    }

    fn capa(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        line(out, "+OK Capabilities follow");
        let before = self.state != State::Transaction;
        let passwords = before && self.may_send_password();
        let expire = self.rules.expire_days.map_or("EXPIRE NEVER".to_owned(), |days| format!("EXPIRE {days}"));
        for (there, text) in [
            (true, "TOP"),
            (true, "UIDL"),
            (true, "RESP-CODES"),
            (true, "AUTH-RESP-CODE"),
            (true, "PIPELINING"),
            (true, expire.as_str()),
            (passwords, "USER"),
            (passwords, "SASL PLAIN LOGIN"),
            (before && self.link.can_tls && !self.link.tls, "STLS"),
        ] {
            if there {
                line(out, text);
            }
        }
        if self.rules.login_delay_secs > 0 {
            say!(out, "LOGIN-DELAY {}", self.rules.login_delay_secs);
        }
        if !self.rules.hide_version {
            say!(out, "IMPLEMENTATION DMail-{}", env!("CARGO_PKG_VERSION"));
        }
        out.push(b".\r\n");
        Next::Said
    }

    fn noop(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        line(out, "+OK");
        Next::Said
    }

    fn quit(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        if self.state == State::Transaction {
            return self.ask(State::Updating, Ask::Commit);
        }
        line(out, "+OK Bye");
        Next::Close
    }

    fn stls(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        if self.link.tls || !self.link.can_tls {
            return Next::Refuse(Refusal::NoTls);
        }
        line(out, "+OK Begin TLS");
        self.ask(State::Asking(Asked::Tls), Ask::StartTls)
    }

    // A user's existence is not told by USER: every name is taken, and judged with its password.
    fn user(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !self.may_send_password() {
            return Next::Refuse(Refusal::NeedsTls);
        }
        if rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        self.user = Some(rest.into());
        line(out, "+OK Password, please");
        Next::Said
    }

    // RFC 1939 §7: the argument is all that follows the blank, blanks in it are part of the password.
    fn pass(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if !self.may_send_password() {
            return Next::Refuse(Refusal::NeedsTls);
        }
        match self.user.take() {
            Some(user) => self.login(user.into_vec(), Secret::new(rest.to_vec())),
            None => Next::Refuse(Refusal::NeedsUser),
        }
    }

    fn auth(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !self.may_send_password() {
            return Next::Refuse(Refusal::NeedsTls);
        }
        let (name, initial) = split(rest);
        let mechanism = match name {
            // What clients of before RFC 5034 say to learn the mechanisms.
            b"" => {
                out.push(b"+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n");
                return Next::Said;
            }
            name if is(name, "PLAIN") => Mechanism::Plain,
            name if is(name, "LOGIN") => Mechanism::LoginName,
            _ => return Next::Refuse(Refusal::UnknownMechanism),
        };
        self.user = None;
        match initial {
            b"" => self.prompt(mechanism, out),
            // RFC 5034 §4: a single equals sign is an empty initial response.
            b"=" => self.sasl(mechanism, b"", out),
            initial => self.sasl(mechanism, initial, out),
        }
    }

    fn prompt(&mut self, mechanism: Mechanism, out: &mut Output) -> Next {
        self.state = State::Sasl(mechanism);
        line(
            out,
            match mechanism {
                Mechanism::Plain => "+ ",
                Mechanism::LoginName => "+ VXNlcm5hbWU6",
                Mechanism::LoginPassword => "+ UGFzc3dvcmQ6",
            },
        );
        Next::Said
    }

    /// A response in a SASL exchange, still in base64.
    pub(super) fn sasl(&mut self, mechanism: Mechanism, response: &[u8], out: &mut Output) -> Next {
        self.state = State::Authorising;
        if response == b"*" {
            self.user = None;
            return Next::Refuse(Refusal::Cancelled);
        }
        let Ok(decoded) = BASE64.decode(response).map(Secret::new) else {
            self.user = None;
            return Next::Refuse(Refusal::BadResponse);
        };
        match mechanism {
            Mechanism::Plain => match plain(decoded.reveal()) {
                Some((user, password)) => self.login(user.to_vec(), Secret::new(password.to_vec())),
                None => Next::Refuse(Refusal::BadResponse),
            },
            Mechanism::LoginName => {
                self.user = Some(decoded.reveal().into());
                self.prompt(Mechanism::LoginPassword, out)
            }
            Mechanism::LoginPassword => {
                let user = self.user.take().unwrap_or_default();
                self.login(user.into_vec(), decoded)
            }
        }
    }

    fn stat(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        self.ask(State::Asking(Asked::Stat), Ask::Stat)
    }

    fn list(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if rest.is_empty() {
            return self.ask(State::Asking(Asked::ListHeading), Ask::Stat);
        }
        self.row(Rowed::List, rest)
    }

    fn uidl(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if rest.is_empty() {
            line(out, "+OK Unique ids follow");
            self.state = State::Listing { what: Rowed::Uidl, next: 1 };
            return Next::Said;
        }
        self.row(Rowed::Uidl, rest)
    }

    fn row(&mut self, what: Rowed, rest: &[u8]) -> Next {
        match number(rest) {
            Some(number) => self.ask(State::Asking(Asked::Row(what)), Ask::Row(number)),
            None => Next::Refuse(Refusal::BadArgument),
        }
    }

    fn retr(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match number(rest) {
            Some(number) => self.ask(State::Sending(number), Ask::Retrieve(number, None)),
            None => Next::Refuse(Refusal::BadArgument),
        }
    }

    fn top(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        let (first, second) = split(rest);
        match (number(first), decimal(second)) {
            // Not "read" for LAST: number 0 never raises it.
            (Some(number), Some(lines)) => self.ask(State::Sending(0), Ask::Retrieve(number, Some(lines))),
            _ => Next::Refuse(Refusal::BadArgument),
        }
    }

    fn dele(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match number(rest) {
            Some(number) => self.ask(State::Asking(Asked::Delete(number)), Ask::Delete(number)),
            None => Next::Refuse(Refusal::BadArgument),
        }
    }

    fn rset(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        self.ask(State::Asking(Asked::Undelete), Ask::Undelete)
    }

    fn last_read(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(Refusal::BadArgument);
        }
        say!(out, "+OK {}", self.last);
        Next::Said
    }
}

/// RFC 4616: authorisation NUL authentication NUL password. Acting for somebody else is not offered.
fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|&byte| byte == 0);
    let (acting, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && !user.is_empty() && (acting.is_empty() || acting == user);
    whole.then_some((user, password))
}
