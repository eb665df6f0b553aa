//! POP3, the server's side (RFC 1939, 2449, 2595, 3206, 5034, 5802). No I/O: see [`Machine`].
//!
//! | state       | verbs                                                | leaves by               |
//! |-------------|------------------------------------------------------|-------------------------|
//! | Authorising | USER PASS APOP AUTH CAPA STLS NOOP QUIT              | a good password, QUIT   |
//! | Sasl        | none: a response, or `*`                             | the response            |
//! | Proving     | none: what a proof is judged by is being looked for  | Verifier, a refusal     |
//! | Checking    | none: who it is is being checked                     | Welcome, a refusal      |
//! | Opening     | none: the maildrop is being locked and read          | Opened, a refusal       |
//! | Transaction | STAT LIST UIDL RETR TOP DELE RSET NOOP LAST CAPA QUIT | QUIT                   |
//! | Asking      | none: an answer about a message is owed              | the answer              |
//! | Listing     | none: rows of LIST or UIDL are being written         | the last row            |
//! | Sending     | none: a message is being sent                        | Sent, Changed           |
//! | Updating    | none: deletions are being committed                  | Committed, NotCommitted |
//! | Over        | none                                                 |                         |
//!
//! Deleted messages stay until `Committed`; a lost connection deletes nothing. The verbs are a table in `verbs.rs`;
//! every text we say is in `reply.rs`. Input is taken one line a step and none while an answer is owed, so PIPELINING is
//! a true queue.
//!
//! **What is offered where.** USER, PLAIN and LOGIN send the password: under TLS, or where the administrator allows it in
//! clear. APOP sends an MD5 of it, from which most passwords are found in hours: it is taken where a password in clear would
//! be, and only of a client that was given a stamp. SCRAM sends nothing a listener could use without working through
//! thousands of rounds for each guess: it is offered on every link, also where TLS has not begun.

pub mod client;
pub mod reply;
mod verbs;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mail::identity::Uid;
pub use crate::protocol::sasl::Login;
use crate::protocol::sasl::scram::Verifier;
use crate::protocol::sasl::{Exchange, Mechanism};
use crate::protocol::{End, Line, Lines, Machine, Want};
use crate::text::bytes::{HIGH, Input, Output};
use crate::text::secret::Secret;
use reply::{Refusal, line, say};
use verbs::Next;

/// A command line's octets, CRLF included (RFC 2449 §4).
pub const LINE_LIMIT: usize = 255;
/// A SASL response's octets, CRLF included (RFC 5034 §4 gives 12,288 as what is in use).
pub const SASL_LIMIT: usize = 12_288;
/// Refused passwords, and proofs that were not given, after which a connection is closed.
pub const MAX_DENIED: u8 = 3;
/// Octets that a client may be owed who is not logged in: what is kept for thousands of strangers must be little, and no
/// client needs more replies than this before it reads one.
pub const STRANGERS_MOST: usize = 4096;
/// Rows of LIST and UIDL asked for at a time: one page of the index.
pub const PAGE: u32 = 64;

/// What an administrator decides about POP3 conversations.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a logged-in client may be silent.
    pub idle: Duration,
    /// The time a client has in all until it is logged in.
    pub login: Duration,
    /// Nonsense lines in a row after which a client is closed.
    pub max_errors: u32,
    /// Keep name and version of the program to ourselves.
    pub hide_version: bool,
    /// The least time between two logins of a user, as announced; 0 = none.
    pub login_delay_secs: u64,
    /// Days that mail stays, as announced; `None` = for ever.
    pub expire_days: Option<u32>,
}

/// What this connection is like.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// TLS is on.
    pub tls: bool,
    /// STLS can be offered.
    pub can_tls: bool,
    /// Passwords may be sent in clear on it.
    pub plain_ok: bool,
    /// SCRAM can be offered.
    pub scram: bool,
}

/// What a POP3 conversation asks of its host.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// Begin TLS once the reply has left. Answered `TlsStarted`.
    StartTls,
    /// Do name and password fit? Answered `Welcome` or a refusal.
    Login(Box<Login>),
    /// Do name and digest fit? Answered `Welcome` or a refusal.
    Apop(Box<Apop>),
    /// By what is a proof of this user judged? Answered `Verifier` or a refusal.
    Verifier(Box<[u8]>),
    /// Whether the user last asked about proved his password. Answered `Welcome` if he did, else a refusal.
    Proof(bool),
    /// Lock and read the maildrop of who was welcomed. Answered `Opened` or a refusal.
    Open,
    /// Messages not marked and their octets. Answered `Totals`.
    Stat,
    /// Up to [`PAGE`] rows from this number on. Answered `Rows` (empty: no more) or `Refused`.
    Rows(u32),
    /// One row. Answered `Rows` with one unmarked row, or `Refused`.
    Row(u32),
    /// Mark one message. Answered `Done` or `Refused`.
    Delete(u32),
    /// Forget all marks. Answered `Totals`.
    Undelete,
    /// Send a message: all of it, or its header and so many lines. Answered `Sending`, the body, `Sent`; or `Refused`.
    Retrieve(u32, Option<u64>),
    /// Make the marked deletions durable. Answered `Committed` or `Refused(NotCommitted)`.
    Commit,
}

/// A name, and the digest of stamp and password (RFC 1939 §7).
#[derive(Debug, PartialEq, Eq)]
pub struct Apop {
    /// As the client sent it.
    pub user: Vec<u8>,
    /// The greeting's.
    pub stamp: Box<str>,
    /// MD5, 32 hexadecimal digits in small letters.
    pub digest: Secret,
}

/// What a host answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// TLS has begun.
    TlsStarted,
    /// Name and password fit.
    Welcome,
    /// What a proof is judged by, and a nonce: printable, without commas, never used before.
    Verifier(Box<(Verifier, Vec<u8>)>),
    /// The maildrop is open and locked.
    Opened(Totals),
    /// Messages and octets.
    Totals(Totals),
    /// Rows in the order of their numbers, marked ones too.
    Rows(Vec<Row>),
    /// It is done.
    Done,
    /// A body of so many octets follows.
    Sending(u64),
    /// The body has been sent.
    Sent,
    /// So many messages are gone for good; so many remain.
    Committed {
        /// Messages deleted by this session.
        deleted: u32,
    },
    /// It cannot be done.
    Refused(Refusal),
}

/// Messages not marked as deleted, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many.
    pub messages: u32,
    /// Their octets.
    pub octets: u64,
    /// The highest number that an earlier session had read (the reply to LAST).
    pub last_read: u32,
}

/// One message as LIST and UIDL show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1.
    pub number: u32,
    /// What RETR would send, before dot-stuffing.
    pub octets: u64,
    /// Its unique id.
    pub uid: Uid,
    /// Whether it is marked.
    pub deleted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rowed {
    List,
    Uidl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Authorising,
    Sasl,
    Proving,
    Checking,
    Opening,
    Transaction,
    /// Asking about one message or about totals: what to say when the answer comes.
    Asking(Asked),
    Listing {
        what: Rowed,
        next: u32,
    },
    Sending(u32),
    Updating,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stat,
    Row(Rowed),
    ListHeading,
    Delete(u32),
    Undelete,
    Tls,
}

/// What is needed by few, and only until they are logged in.
#[derive(Debug, Default)]
struct Gate {
    /// What the greeting said, and an APOP digest is made with.
    stamp: Option<Box<str>>,
    exchange: Option<Exchange>,
}

/// The server's side of one POP3 conversation.
#[derive(Debug)]
pub struct Pop3 {
    state: State,
    rules: Arc<Rules>,
    link: Link,
    lines: Lines,
    denied: u8,
    nonsense: u32,
    /// The name given by USER, AUTH LOGIN or, once welcomed, the one logged in with. Boxed: most of the time it is short.
    user: Option<Box<[u8]>>,
    gate: Option<Box<Gate>>,
    /// The reply to LAST: the highest number retrieved, by this session or an earlier one.
    last: u32,
    /// LAST as RSET restores it.
    last_at_login: u32,
    deadline: Instant,
}

impl Pop3 {
    /// A conversation on a connection of this kind. `now` starts the time to log in.
    pub fn new(now: Instant, rules: Arc<Rules>, link: Link) -> Pop3 {
        let deadline = now + rules.login;
        Pop3 {
            state: State::Authorising,
            rules,
            link,
            lines: Lines::default(),
            denied: 0,
            nonsense: 0,
            user: None,
            gate: None,
            last: 0,
            last_at_login: 0,
            deadline,
        }
    }

    /// Offers APOP with this stamp: `<UNIQUE@HOST>`, which nobody can foresee and which was never used before.
    pub fn with_stamp(mut self, stamp: Box<str>) -> Pop3 {
        self.gate.get_or_insert_default().stamp = Some(stamp);
        self
    }

    /// Whether somebody is logged in, or was until now: then silence is measured, not the time to log in.
    fn is_logged_in(&self) -> bool {
        use State::*;
        !matches!(self.state, Authorising | Sasl | Proving | Checking | Asking(Asked::Tls))
    }

    /// How long the client has been silent; nothing until it is logged in.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let heard = self.deadline.checked_sub(self.rules.idle)?;
        self.is_logged_in().then(|| now.saturating_duration_since(heard))
    }

    fn may_send_password(&self) -> bool {
        self.link.tls || self.link.plain_ok
    }

    fn may_use(&self, mechanism: Mechanism) -> bool {
        if mechanism.sends_password() { self.may_send_password() } else { self.link.scram }
    }

    fn stamp(&self) -> Option<&str> {
        self.gate.as_ref()?.stamp.as_deref()
    }

    /// The exchange, if one is under way: whoever takes it out and does not put it back has ended it.
    fn take_exchange(&mut self) -> Option<Exchange> {
        self.gate.as_mut()?.exchange.take()
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Output) {
        line(out, refusal.text());
        if refusal.is_nonsense() {
            self.nonsense += 1;
        }
    }

    fn ask(&mut self, state: State, ask: Ask) -> Next {
        self.state = state;
        Next::Ask(ask)
    }

    fn login(&mut self, user: Vec<u8>, password: Secret) -> Next {
        self.ask(State::Checking, Ask::Login(Box::new(Login { user, password })))
    }

    /// A refused login leaves the client where it was, without its name.
    fn not_welcome(&mut self, refusal: Refusal, out: &mut Output) {
        line(out, refusal.text());
        self.user = None;
        self.take_exchange();
        self.denied();
    }

    /// An authenticator was asked, and it led to nothing: also where the client went no further once it had a challenge.
    fn denied(&mut self) {
        self.denied += 1;
        self.state = if self.denied >= MAX_DENIED { State::Over } else { State::Authorising };
    }

    /// Writes rows until the page is used up; the next step asks for the next page.
    fn rows(&mut self, what: Rowed, mut next: u32, rows: &[Row], out: &mut Output) {
        if rows.is_empty() {
            out.push(b".\r\n");
            self.state = State::Transaction;
            return;
        }
        for row in rows {
            next = row.number + 1;
            if !row.deleted {
                match what {
                    Rowed::List => say!(out, "{} {}", row.number, row.octets),
                    Rowed::Uidl => say!(out, "{} {}", row.number, row.uid),
                }
            }
        }
        self.state = State::Listing { what, next };
    }

    fn asked(&mut self, asked: Asked, answer: Answer, out: &mut Output) {
        self.state = if asked == Asked::Tls { State::Authorising } else { State::Transaction };
        match (asked, answer) {
            (Asked::Tls, Answer::TlsStarted) => {
                // RFC 2595 §4: everything said before TLS is forgotten.
                self.link.tls = true;
                self.user = None;
                self.lines = Lines::default();
            }
            (Asked::Stat, Answer::Totals(totals)) => say!(out, "+OK {} {}", totals.messages, totals.octets),
            (Asked::ListHeading, Answer::Totals(totals)) => {
                say!(out, "+OK {} messages ({} octets)", totals.messages, totals.octets);
                self.state = State::Listing { what: Rowed::List, next: 1 };
            }
            (Asked::Undelete, Answer::Totals(totals)) => {
                self.last = self.last_at_login;
                say!(out, "+OK {} messages ({} octets)", totals.messages, totals.octets);
            }
            (Asked::Row(what), Answer::Rows(rows)) => match (what, rows.first()) {
                (_, None) => self.refuse(Refusal::NoSuchMessage, out),
                (Rowed::List, Some(row)) => say!(out, "+OK {} {}", row.number, row.octets),
                (Rowed::Uidl, Some(row)) => say!(out, "+OK {} {}", row.number, row.uid),
            },
            (Asked::Delete(number), Answer::Done) => {
                self.last = self.last.max(number);
                line(out, "+OK Marked");
            }
            (_, Answer::Refused(refusal)) => self.refused(refusal, out),
            (asked, answer) => unreachable!("{answer:?} is no answer to {asked:?}"),
        }
    }

    /// A refusal where the state is set already; one that means we cannot vouch for the numbers any more ends the session.
    fn refused(&mut self, refusal: Refusal, out: &mut Output) {
        self.refuse(refusal, out);
        if refusal == Refusal::Changed {
            self.state = State::Over;
        }
    }
}

impl Machine for Pop3 {
    type Ask = Ask;
    type Answer = Answer;

    fn open(&mut self, _now: Instant, out: &mut Output) {
        // RFC 1939 §7: a stamp in the greeting is how APOP is offered.
        let (blank, stamp) = self.stamp().map_or(("", ""), |stamp| (" ", stamp));
        if self.rules.hide_version {
            say!(out, "+OK DPOP ready{blank}{stamp}");
        } else {
            say!(out, "+OK DPOP Version {} ready{blank}{stamp}", env!("CARGO_PKG_VERSION"));
        }
    }

    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        match self.state {
            State::Over => return Want::Close,
            State::Listing { next, .. } => return Want::Ask(Ask::Rows(next)),
            State::Opening => return Want::Ask(Ask::Open),
            _ => {}
        }
        let limit = if self.state == State::Sasl { SASL_LIMIT } else { LINE_LIMIT };
        let before = self.nonsense;
        let next = match self.lines.next(input, limit) {
            Line::Partial => return Want::Input,
            Line::TooLong => {
                if self.state == State::Sasl {
                    self.state = State::Authorising;
                    if self.take_exchange().is_some_and(|exchange| exchange.is_challenged()) {
                        self.denied();
                    }
                }
                Next::Refuse(Refusal::LineTooLong)
            }
            Line::Whole(text) => match self.state {
                State::Sasl => self.response(text, out),
                _ => self.verb(text, out),
            },
        };
        if self.is_logged_in() {
            self.deadline = now + self.rules.idle;
        }
        if let Next::Refuse(refusal) = next {
            self.refuse(refusal, out);
        }
        if self.nonsense == before {
            self.nonsense = 0;
        } else if self.nonsense >= self.rules.max_errors {
            self.state = State::Over;
        }
        match next {
            Next::Said | Next::Refuse(_) => Want::Again,
            Next::Ask(ask) => Want::Ask(ask),
            Next::Close => {
                self.state = State::Over;
                Want::Close
            }
        }
    }

    fn answer(&mut self, now: Instant, answer: Answer, out: &mut Output) {
        match (self.state, answer) {
            // The next step asks to open; the time to log in is over with that.
            (State::Checking, Answer::Welcome) => self.state = State::Opening,
            (State::Proving, Answer::Verifier(found)) => self.challenge(*found, out),
            (State::Checking | State::Proving, Answer::Refused(refusal)) => self.not_welcome(refusal, out),
            (State::Opening, Answer::Opened(totals)) => {
                self.last = totals.last_read;
                self.last_at_login = totals.last_read;
                self.user = None;
                self.gate = None;
                say!(out, "+OK {} messages ({} octets)", totals.messages, totals.octets);
                self.state = State::Transaction;
            }
            // RFC 1939 §4: a server may stay open after a lock it could not get; the client may try again.
            (State::Opening, Answer::Refused(refusal)) => self.not_welcome(refusal, out),
            (State::Asking(asked), answer) => self.asked(asked, answer, out),
            (State::Listing { what, next }, Answer::Rows(rows)) => self.rows(what, next, &rows, out),
            // The heading has been said, so an -ERR would be taken for a row: end without the final dot.
            (State::Listing { .. }, Answer::Refused(_)) => self.state = State::Over,
            (State::Sending(_), Answer::Sending(octets)) => say!(out, "+OK {octets} octets"),
            (State::Sending(number), Answer::Sent) => {
                self.last = self.last.max(number);
                self.state = State::Transaction;
            }
            (State::Sending(_), Answer::Refused(refusal)) => {
                self.state = State::Transaction;
                self.refused(refusal, out);
            }
            (State::Updating, Answer::Committed { deleted: 0 }) => self.farewell("+OK Bye", out),
            (State::Updating, Answer::Committed { deleted }) => {
                say!(out, "+OK Bye, {deleted} deleted");
                self.state = State::Over;
            }
            (State::Updating, Answer::Refused(refusal)) => self.farewell(refusal.text(), out),
            (state, answer) => unreachable!("{answer:?} is no answer in {state:?}"),
        }
        if self.is_logged_in() {
            self.deadline = now + self.rules.idle;
        }
    }

    fn end(&mut self, _now: Instant, why: End, out: &mut Output) {
        let before = std::mem::replace(&mut self.state, State::Over);
        // The last word has been said, or the heading has, and an -ERR would be taken for a row.
        if matches!(before, State::Over | State::Listing { .. }) {
            return;
        }
        match why {
            // RFC 1939 §3: an autologout sends nothing and removes nothing.
            End::Silence => {}
            End::Replaced | End::Kicked => line(out, Refusal::Ended.text()),
            End::Shutdown => line(out, Refusal::Stopping.text()),
            End::Overload => line(out, Refusal::Crowded.text()),
        }
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn most_owed(&self) -> usize {
        if self.is_logged_in() { HIGH } else { STRANGERS_MOST }
    }
}

impl Pop3 {
    fn farewell(&mut self, text: &str, out: &mut Output) {
        line(out, text);
        self.state = State::Over;
    }
}
