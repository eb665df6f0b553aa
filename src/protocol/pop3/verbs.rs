//! The verbs of POP3: a table of name, where it may be said, and what it does. There is no other list of verbs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::reply::{Refusal, line, say};
use super::{Apop, Ask, Asked, Pop3, Rowed, State};
use crate::protocol::sasl::scram::Verifier;
use crate::protocol::sasl::{Exchange, Mechanism, Step};
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
    Verb { name: "APOP", where_: Where::Before, run: Pop3::apop },
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
            (before && self.link.can_tls && !self.link.tls, "STLS"),
        ] {
            if there {
                line(out, text);
            }
        }
        let mut mechanisms = Mechanism::ALL.into_iter().filter(|mechanism| before && self.may_use(*mechanism));
        if let Some(first) = mechanisms.next() {
            out.push(b"SASL ");
            out.push(first.name().as_bytes());
            for mechanism in mechanisms {
                out.push(b" ");
                out.push(mechanism.name().as_bytes());
            }
            out.push(b"\r\n");
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
        self.gate.get_or_insert_default().user = Some(rest.into());
        line(out, "+OK Password, please");
        Next::Said
    }

    // RFC 1939 §7: the argument is all that follows the blank, blanks in it are part of the password.
    fn pass(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if !self.may_send_password() {
            return Next::Refuse(Refusal::NeedsTls);
        }
        match self.take_user() {
            Some(user) => self.login(user.into_vec(), Secret::new(rest.to_vec())),
            None => Next::Refuse(Refusal::NeedsUser),
        }
    }

    // Without a stamp in the greeting there is no such command.
    fn apop(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        let Some(stamp) = self.stamp().map(Box::from) else { return Next::Refuse(Refusal::UnknownCommand) };
        let (user, digest) = split(rest);
        if user.is_empty() || digest.len() != 32 || !digest.iter().all(u8::is_ascii_hexdigit) {
            return Next::Refuse(Refusal::BadArgument);
        }
        self.take_user();
        let digest = Secret::new(digest.to_ascii_lowercase());
        self.ask(State::Checking, Ask::Apop(Box::new(Apop { user: user.to_vec(), stamp, digest })))
    }

    fn auth(&mut self, rest: &[u8], out: &mut Output) -> Next {
        let offered = || Mechanism::ALL.into_iter().filter(|mechanism| self.may_use(*mechanism));
        if offered().next().is_none() {
            return Next::Refuse(Refusal::NeedsTls);
        }
        let (name, initial) = split(rest);
        // What clients of before RFC 5034 say to learn the mechanisms.
        if name.is_empty() {
            line(out, "+OK");
            offered().for_each(|mechanism| line(out, mechanism.name()));
            line(out, ".");
            return Next::Said;
        }
        let mechanism = match Mechanism::find(name) {
            Some(mechanism) if self.may_use(mechanism) => mechanism,
            Some(mechanism) if mechanism.sends_password() => return Next::Refuse(Refusal::NeedsTls),
            _ => return Next::Refuse(Refusal::UnknownMechanism),
        };
        self.take_user();
        let (exchange, step) = Exchange::begin(mechanism, (!initial.is_empty()).then_some(initial));
        self.sasl(exchange, step, out)
    }

    /// A response in a SASL exchange, still in base64.
    pub(super) fn response(&mut self, text: &[u8], out: &mut Output) -> Next {
        let mut exchange = self.take_exchange().expect("it was put there when this state began");
        let challenged = exchange.is_challenged();
        let step = exchange.take(text);
        let next = self.sasl(exchange, step, out);
        if challenged && matches!(next, Next::Refuse(_)) {
            self.denied();
        }
        next
    }

    /// What an exchange has come to. It is kept while it goes on.
    fn sasl(&mut self, exchange: Exchange, step: Step, out: &mut Output) -> Next {
        self.state = State::Authorising;
        match step {
            Step::Challenge(text) => {
                self.go_on(exchange, &text, out);
                Next::Said
            }
            Step::Verifier(user) => {
                self.gate.get_or_insert_default().exchange = Some(exchange);
                self.ask(State::Proving, Ask::Verifier(user.into()))
            }
            Step::Login(user, password) => self.login(user, password),
            Step::Proof(good) => self.ask(State::Checking, Ask::Proof(good)),
            Step::Cancelled => Next::Refuse(Refusal::Cancelled),
            Step::Malformed => Next::Refuse(Refusal::BadResponse),
        }
    }

    /// The verifier has been found: the client is challenged.
    pub(super) fn challenge(&mut self, (verifier, nonce): (Verifier, Vec<u8>), out: &mut Output) {
        let mut exchange = self.take_exchange().expect("it asked for this");
        let text = exchange.challenge(verifier, &nonce);
        self.go_on(exchange, &text, out);
    }

    fn go_on(&mut self, exchange: Exchange, challenge: &[u8], out: &mut Output) {
        self.gate.get_or_insert_default().exchange = Some(exchange);
        self.state = State::Sasl;
        out.push(b"+ ");
        line(out, &BASE64.encode(challenge));
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
