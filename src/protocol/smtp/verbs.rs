//! The verbs of SMTP: a table of name, where it may be said, and what it does. There is no other list of verbs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::reply::{self, Reply};
use super::{Ask, Asked, ETRN_MOST, Face, Hello, Node, Smtp, Stage, State, params};
use crate::protocol::sasl::scram::Verifier;
use crate::protocol::sasl::{Exchange, Login, Mechanism, Step};
use crate::protocol::say;
use crate::rules::hops::host_name;
use crate::text::bytes::Output;

/// Octets of the name in EHLO: a domain's.
const HELLO_LIMIT: usize = 255;

/// What a command comes to.
pub(super) enum Next {
    /// It has been answered.
    Said,
    /// It is refused.
    Refuse(&'static Reply),
    /// Somebody has to do something first.
    Ask(Ask),
    /// The conversation is over, with these words.
    Close(&'static Reply),
}

struct Verb {
    name: &'static str,
    faces: &'static [Face],
    /// It leads nowhere by itself: who says nothing else is closed some day.
    idle: bool,
    run: fn(&mut Smtp, &[u8], &mut Output) -> Next,
}

const SMTP: &[Face] = &[Face::Mx, Face::Submission];
const LMTP: &[Face] = &[Face::Lmtp];
const ALL: &[Face] = &[Face::Mx, Face::Submission, Face::Lmtp];

const VERBS: &[Verb] = &[
    Verb { name: "AUTH", faces: ALL, idle: false, run: Smtp::auth },
    Verb { name: "BDAT", faces: ALL, idle: false, run: Smtp::bdat },
    Verb { name: "DATA", faces: ALL, idle: false, run: Smtp::data },
    Verb { name: "EHLO", faces: SMTP, idle: true, run: Smtp::ehlo },
    Verb { name: "ETRN", faces: &[Face::Mx], idle: true, run: Smtp::etrn },
    Verb { name: "EXPN", faces: ALL, idle: false, run: Smtp::expn },
    Verb { name: "HELO", faces: SMTP, idle: true, run: Smtp::helo },
    Verb { name: "HELP", faces: ALL, idle: true, run: Smtp::help },
    Verb { name: "LHLO", faces: LMTP, idle: true, run: Smtp::ehlo },
    Verb { name: "MAIL", faces: ALL, idle: false, run: Smtp::mail },
    Verb { name: "NOOP", faces: ALL, idle: true, run: Smtp::noop },
    Verb { name: "QUIT", faces: ALL, idle: false, run: Smtp::quit },
    Verb { name: "RCPT", faces: ALL, idle: false, run: Smtp::rcpt },
    Verb { name: "RSET", faces: ALL, idle: true, run: Smtp::rset },
    Verb { name: "STARTTLS", faces: ALL, idle: false, run: Smtp::starttls },
    Verb { name: "VRFY", faces: ALL, idle: true, run: Smtp::vrfy },
];

/// Verbs of another protocol: a browser or a cross-protocol attack (ALPACA). Nothing it says next is worth reading.
const FOREIGN: &[&str] = &["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI"];

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

impl Smtp {
    /// One command line.
    pub(super) fn verb(&mut self, text: &[u8], out: &mut Output) -> Next {
        // RFC 5321 §4.1.1: white space at the end is to be tolerated; a CR is none.
        let text = match text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')) {
            Some(last) => &text[..=last],
            None => b"",
        };
        let (word, rest) = split(text);
        if FOREIGN.iter().any(|name| is(word, name)) {
            return Next::Close(&reply::FOREIGN);
        }
        if text.iter().any(u8::is_ascii_control) {
            return Next::Refuse(&reply::NOT_TEXT);
        }
        let known = VERBS.iter().find(|verb| is(word, verb.name) && self.has(verb));
        let Some(verb) = known else {
            self.unknown = self.unknown.saturating_add(1);
            return Next::Refuse(&reply::UNKNOWN_COMMAND);
        };
        if verb.idle {
            self.idle = self.idle.saturating_add(1);
        }
        (verb.run)(self, rest, out)
    }

    fn has(&self, verb: &Verb) -> bool {
        verb.faces.contains(&self.face) && (verb.name != "ETRN" || self.link.etrn)
    }

    /// An answer, for a verb that wants no argument.
    fn bare(rest: &[u8], said: &'static Reply, out: &mut Output) -> Next {
        if !rest.is_empty() {
            return Next::Refuse(&reply::BAD_ARGUMENT);
        }
        said.write(out);
        Next::Said
    }

    fn ehlo(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        self.hello(rest, true)
    }

    fn helo(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        self.hello(rest, false)
    }

    // Half the world's clients give names that are no domains; what cannot stand in a header line or a log is refused.
    fn hello(&mut self, rest: &[u8], extended: bool) -> Next {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
        match std::str::from_utf8(rest) {
            Ok(name) if (1..=HELLO_LIMIT).contains(&name.len()) && rest.iter().all(fits) => {
                let hello = Hello { name: name.into(), extended };
                self.ask(Asked::Hello { extended }, Ask::Hello(Box::new(hello)))
            }
            _ => Next::Refuse(&reply::BAD_HELLO),
        }
    }

    /// The answer to EHLO, with what is offered here and now; or to HELO.
    pub(super) fn introduce(&self, out: &mut Output) {
        let host = &self.rules.host;
        if !self.extended {
            say!(out, "250 {host}");
            return;
        }
        say!(out, "250-{host}");
        say!(out, "250-PIPELINING");
        // RFC 1870 §4: 0 = no bound.
        say!(out, "250-SIZE {}", self.rules.size.unwrap_or(0));
        if self.link.can_tls && !self.link.tls {
            say!(out, "250-STARTTLS");
        }
        let mut mechanisms = Mechanism::ALL.into_iter().filter(|mechanism| self.may_use(*mechanism)).peekable();
        if !self.authenticated && !self.rules.hide_auth && mechanisms.peek().is_some() {
            out.push(b"250-AUTH");
            for mechanism in mechanisms {
                out.push(b" ");
                out.push(mechanism.name().as_bytes());
            }
            out.push(b"\r\n");
        }
        if self.link.etrn && self.face == Face::Mx {
            say!(out, "250-ETRN");
        }
        say!(out, "250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES");
    }

    fn starttls(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if self.link.tls {
            return Next::Refuse(&reply::TLS_AGAIN);
        }
        if !self.link.can_tls {
            return Next::Refuse(&reply::NO_TLS);
        }
        match Smtp::bare(rest, &reply::BEGIN_TLS, out) {
            Next::Said => self.ask(Asked::Tls, Ask::StartTls),
            next => next,
        }
    }

    fn auth(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if self.face != Face::Submission {
            return Next::Refuse(&reply::NO_AUTH);
        }
        match self.stage {
            Stage::Fresh => return Next::Refuse(&reply::HELLO_FIRST),
            Stage::Ready if self.authenticated => return Next::Refuse(&reply::AUTH_AGAIN),
            Stage::Ready => {}
            Stage::Mail | Stage::Rcpt => return Next::Refuse(&reply::IN_TRANSACTION),
        }
        if !self.may_authenticate() {
            return Next::Refuse(&reply::AUTH_NEEDS_TLS);
        }
        let (name, initial) = split(rest);
        if name.is_empty() {
            return Next::Refuse(&reply::BAD_ARGUMENT);
        }
        match Mechanism::find(name) {
            Some(mechanism) if self.may_use(mechanism) => {
                let (exchange, step) = Exchange::begin(mechanism, (!initial.is_empty()).then_some(initial));
                self.sasl(Box::new(exchange), step, out)
            }
            _ => Next::Refuse(&reply::UNKNOWN_MECHANISM),
        }
    }

    /// A response in a SASL exchange, still in base64.
    pub(super) fn response(&mut self, text: &[u8], out: &mut Output) -> Next {
        let mut exchange = self.exchange.take().expect("it was put there when this state began");
        let step = exchange.take(text);
        self.sasl(exchange, step, out)
    }

    /// What an exchange has come to. It is kept while it goes on.
    fn sasl(&mut self, exchange: Box<Exchange>, step: Step, out: &mut Output) -> Next {
        self.state = State::Command;
        match step {
            Step::Challenge(text) => {
                self.go_on(exchange, &text, out);
                Next::Said
            }
            Step::Verifier(user) => {
                self.exchange = Some(exchange);
                self.ask(Asked::Verifier, Ask::Verifier(user.into()))
            }
            Step::Login(user, password) => self.ask(Asked::Who, Ask::Login(Box::new(Login { user, password }))),
            Step::Proof(good) => self.ask(Asked::Who, Ask::Proof(good)),
            Step::Cancelled => Next::Refuse(&reply::CANCELLED),
            Step::Malformed => Next::Refuse(&reply::BAD_RESPONSE),
        }
    }

    /// The verifier has been found: the client is challenged.
    pub(super) fn challenge(&mut self, (verifier, nonce): (Verifier, Vec<u8>), out: &mut Output) {
        let mut exchange = self.exchange.take().expect("it asked for this");
        let text = exchange.challenge(verifier, &nonce);
        self.go_on(exchange, &text, out);
    }

    fn go_on(&mut self, exchange: Box<Exchange>, challenge: &[u8], out: &mut Output) {
        self.exchange = Some(exchange);
        self.state = State::Sasl;
        say!(out, "334 {}", BASE64.encode(challenge));
    }

    fn mail(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match self.stage {
            Stage::Fresh => return Next::Refuse(&reply::HELLO_FIRST),
            Stage::Ready => {}
            Stage::Mail | Stage::Rcpt => return Next::Refuse(&reply::SENDER_AGAIN),
        }
        if self.face == Face::Submission && !self.authenticated {
            let first = if self.may_authenticate() { &reply::AUTH_FIRST } else { &reply::TLS_FIRST };
            return Next::Refuse(first);
        }
        match params::sender(rest, self.extended) {
            Err(why) => Next::Refuse(why),
            Ok(sender) => match (sender.size, self.rules.size) {
                (Some(size), Some(bound)) if size > bound => Next::Refuse(&reply::TOO_BIG),
                _ => self.ask(Asked::Sender { utf8: sender.utf8 }, Ask::Sender(Box::new(sender))),
            },
        }
    }

    fn rcpt(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match self.stage {
            Stage::Fresh => return Next::Refuse(&reply::HELLO_FIRST),
            Stage::Ready => return Next::Refuse(&reply::SENDER_FIRST),
            Stage::Mail | Stage::Rcpt => {}
        }
        if self.recipients >= self.rules.recipients {
            return Next::Refuse(&reply::TOO_MANY_RECIPIENTS);
        }
        match params::recipient(rest, self.extended, self.utf8) {
            Err(why) => Next::Refuse(why),
            Ok(recipient) => self.ask(Asked::Recipient, Ask::Recipient(Box::new(recipient))),
        }
    }

    fn data(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match self.stage {
            Stage::Fresh => Next::Refuse(&reply::HELLO_FIRST),
            Stage::Ready => Next::Refuse(&reply::SENDER_FIRST),
            Stage::Mail => Next::Refuse(&reply::NO_RECIPIENTS),
            Stage::Rcpt if !rest.is_empty() => Next::Refuse(&reply::BAD_ARGUMENT),
            Stage::Rcpt => self.ask(Asked::Begin, Ask::Begin),
        }
    }

    // What follows it is a piece of a message, which must not be run as commands.
    fn bdat(&mut self, _rest: &[u8], _out: &mut Output) -> Next {
        Next::Close(&reply::NO_CHUNKS)
    }

    fn rset(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if matches!(self.stage, Stage::Mail | Stage::Rcpt) && rest.is_empty() {
            return self.ask(Asked::Reset, Ask::Reset);
        }
        Smtp::bare(rest, &reply::OK, out)
    }

    // RFC 5321 §4.1.1.9: an argument is allowed, and ignored.
    fn noop(&mut self, _rest: &[u8], out: &mut Output) -> Next {
        Smtp::bare(b"", &reply::OK, out)
    }

    fn vrfy(&mut self, rest: &[u8], out: &mut Output) -> Next {
        if rest.is_empty() {
            return Next::Refuse(&reply::BAD_ARGUMENT);
        }
        Smtp::bare(b"", &reply::NOT_VERIFIED, out)
    }

    fn expn(&mut self, _rest: &[u8], _out: &mut Output) -> Next {
        Next::Refuse(&reply::NOT_IMPLEMENTED)
    }

    /// RFC 1985: a domain, `@` and a domain with all below it, or `#` and the name of a queue, of which there are none here.
    fn etrn(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        match self.stage {
            Stage::Fresh => return Next::Refuse(&reply::HELLO_FIRST),
            Stage::Ready => {}
            Stage::Mail | Stage::Rcpt => return Next::Refuse(&reply::IN_TRANSACTION),
        }
        if self.etrns >= ETRN_MOST {
            return Next::Refuse(&reply::ETRN_TOO_MANY);
        }
        if rest.starts_with(b"#") {
            return Next::Refuse(&reply::ETRN_NO_QUEUE);
        }
        let (below, name) = match rest.strip_prefix(b"@") {
            Some(name) => (true, name),
            None => (false, rest),
        };
        // What is longer than any domain is none.
        match std::str::from_utf8(name).ok().and_then(|name| host_name(name).ok()) {
            Some(domain) => {
                self.etrns += 1;
                self.ask(Asked::Etrn, Ask::Etrn(Box::new(Node { domain, below })))
            }
            None => Next::Refuse(&reply::BAD_ARGUMENT),
        }
    }

    fn help(&mut self, _rest: &[u8], out: &mut Output) -> Next {
        out.push(b"214 2.0.0");
        let had = |verb: &&Verb| match verb.name {
            "BDAT" | "EXPN" => false,
            "AUTH" => self.face == Face::Submission,
            _ => self.has(verb),
        };
        for verb in VERBS.iter().filter(had) {
            out.push(b" ");
            out.push(verb.name.as_bytes());
        }
        out.push(b"\r\n");
        Next::Said
    }

    fn quit(&mut self, rest: &[u8], _out: &mut Output) -> Next {
        if rest.is_empty() { Next::Close(&reply::BYE) } else { Next::Refuse(&reply::BAD_ARGUMENT) }
    }
}
