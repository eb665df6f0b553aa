//! SMTP, the server's side (RFC 5321, 1870, 1985, 2034, 2920, 3207, 3461, 4954, 6152, 6531), and LMTP's (RFC 2033). No I/O: see
//! [`Machine`].
//!
//! | state     | what is taken                                              | leaves by                          |
//! |-----------|------------------------------------------------------------|------------------------------------|
//! | Held      | nothing: the greeting is held back                          | Go; who speaks meanwhile is closed |
//! | Command   | a command, see below                                        | most of them                       |
//! | Sasl      | a response, or `*`                                          | the response                       |
//! | Asking    | nothing: an answer is owed                                  | the answer                         |
//! | Taking    | text of a message, handed on decoded                        | CRLF.CRLF; trouble                 |
//! | Doomed    | text of a message that will be refused, handed to nobody    | CRLF.CRLF; its bound               |
//! | Reporting | nothing: replies after the dot are being written            | the last of them                   |
//! | Over      | nothing                                                     |                                    |
//!
//! | stage | it begins with          | commands beside those of every stage |
//! |-------|-------------------------|--------------------------------------|
//! | Fresh | the greeting, TLS       | none                                 |
//! | Ready | EHLO, HELO, LHLO; RSET; the end of a message | AUTH MAIL       |
//! | Mail  | a sender                | RCPT                                 |
//! | Rcpt  | a recipient             | RCPT DATA                            |
//!
//! In every stage: EHLO HELO (LHLO for [`Face::Lmtp`]) STARTTLS RSET NOOP VRFY HELP QUIT. ETRN (RFC 1985) in Ready alone, and only
//! for whom [`Link::etrn`] lets say it: to others there is no such verb. The verbs are a table in
//! `verbs.rs`; every text we say is in `reply.rs`; what MAIL and RCPT say is read in `params.rs`.
//!
//! **What is held.** Of a message, nothing: its text is decoded in place (`mail/undots.rs`) and handed on. Of an envelope, how
//! many recipients there are: sender and recipients are the host's from the moment they are asked about. So the machine
//! tells it when to forget them ([`Ask::Reset`], [`Ask::Hello`], [`Ask::StartTls`]), and it forgets them by itself after
//! each answer to [`Ask::Commit`].
//!
//! **What is refused while it comes** (size, header, hops, long lines) is read to its end and answered there, so that a
//! client that pipelines stays in step; past [`Rules::swallow`] it is answered at once and closed. Input is taken one
//! line a step and none while an answer is owed, so PIPELINING is a true queue. A client that sends a message before it is
//! told to go on is read as any other: what depends on where packets are cut is no rule. A command may end in LF alone; a
//! message may not.

pub mod client;
pub mod params;
pub mod reply;
mod verbs;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mail::undots::{Bare, DotDecoder, Stop, Tally};
use crate::protocol::sasl::scram::Verifier;
use crate::protocol::sasl::{Exchange, Login, Mechanism};
use crate::protocol::{End, Line, Lines, Machine, Want, say};
use crate::text::bytes::{Input, Output};
use params::{Recipient, Sender};
use reply::Reply;
use verbs::Next;

/// A command line's octets, CRLF included: 512 (RFC 5321 §4.5.3.1.4) and what the extensions add to MAIL and RCPT.
pub const LINE_LIMIT: usize = 2_048;
/// A SASL response's octets, CRLF included (RFC 4954 §4).
pub const SASL_LIMIT: usize = 12_288;
/// Refused passwords after which a connection is closed.
pub const MAX_DENIED: u8 = 3;
/// Octets of text that move the deadline: less than that in [`Rules::data`] is silence.
pub const BLOCK: usize = 4_096;
/// Domains that one connection may ask for with ETRN.
pub const ETRN_MOST: u8 = 20;
/// Replies after the dot that are written in one step.
pub const PAGE: usize = 64;

/// Which of its three the machine shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// To other servers: no AUTH.
    Mx,
    /// To users' own programs: no mail without AUTH.
    Submission,
    /// To a server in front of this one: LHLO, and one reply after the dot for each recipient. No AUTH.
    Lmtp,
}

/// What an administrator decides about SMTP conversations.
#[derive(Debug, Clone)]
pub struct Rules {
    /// This server's name, as the greeting and the answer to EHLO begin.
    pub host: Box<str>,
    /// Keep name and version of the program to ourselves.
    pub hide_version: bool,
    /// Do not offer AUTH; who asks for it has it all the same.
    pub hide_auth: bool,
    /// How long the greeting is held back, to catch who does not wait for it; zero = not at all.
    pub hold: Duration,
    /// How long a client may wait with its first command.
    pub greeting: Duration,
    /// And with each further one (RFC 5321 §4.5.3.2.7).
    pub command: Duration,
    /// How long [`BLOCK`] octets of a message may take (§4.5.3.2.5).
    pub data: Duration,
    /// How long the host may take over a message; then the client would give up (§4.5.3.2.6).
    pub after_dot: Duration,
    /// Octets of a message, as RFC 1870 counts them; `None` = no bound.
    pub size: Option<u64>,
    /// Octets read beyond twice that size, to answer a message too big at its end.
    pub swallow: u64,
    /// Recipients of a message.
    pub recipients: u16,
    /// Lines of a header.
    pub header_lines: u64,
    /// Bytes of a header.
    pub header_bytes: u64,
    /// `Received:` lines of a header.
    pub hops: u64,
    /// Bytes of a line of text, without its line end.
    pub text_line: u64,
    /// What becomes of lone CRs and LFs, and of NULs.
    pub bare_newline: Bare,
    /// Errors after which a client is closed; an accepted message makes up for them.
    pub max_errors: u16,
    /// Unknown commands after which it is closed, whatever it sends besides.
    pub max_unknown: u16,
    /// Commands that lead nowhere (NOOP, RSET, VRFY, HELP, EHLO) after which it is closed; an accepted message makes up for them.
    pub max_idle: u16,
}

/// What this connection is like.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// TLS is on.
    pub tls: bool,
    /// STARTTLS can be offered.
    pub can_tls: bool,
    /// AUTH can be offered in clear: the client is on this host, or the administrator wants it so.
    pub plain_ok: bool,
    /// SCRAM can be offered.
    pub scram: bool,
    /// Nobody asks for AUTH: a program on this host, whose user the system has told; or a client whose address a login for reading
    /// has opened.
    pub known: bool,
    /// Mail that waits for a domain may be asked for, with ETRN.
    pub etrn: bool,
}

/// What an SMTP conversation asks of its host. Each can be answered `Failed`: temporarily not.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// Let so much time pass before the greeting. Answered `Go`; `Spoke` if something waits in the socket by then; a bad
    /// `Reply`, which ends the conversation.
    Hold(Duration),
    /// Begin TLS once the reply has left, and forget name, login and transaction. Answered `Go`.
    StartTls,
    /// Do name and password fit? Answered `Go`, `Denied` or a `Reply`.
    Login(Box<Login>),
    /// By what is a proof of this user judged? Answered `Verifier`, `Denied` or a `Reply`.
    Verifier(Box<[u8]>),
    /// Whether the user last asked about proved his password. Answered as `Login`; never `Go` to `false`.
    Proof(bool),
    /// The client says its name, and whatever was begun is to be forgotten. Answered `Go` or a `Reply`.
    Hello(Box<Hello>),
    /// A message begins. Answered `Go` or a `Reply`: a good one takes the sender.
    Sender(Box<Sender>),
    /// It has this recipient too. Answered `Go` or a `Reply`: a good one takes the recipient.
    Recipient(Box<Recipient>),
    /// Mail that waits for these is asked for. Answered by a `Reply`.
    Etrn(Box<Node>),
    /// Forget sender, recipients and text. Answered `Go`.
    Reset,
    /// Its text comes next, as [`Want::Data`]. Answered `Go` or a `Reply`; if that is bad, the envelope stays as it was.
    Begin,
    /// The text is whole, and this was counted. Answered `Go`, a `Reply` for all, or `Each`. Then all of it is the host's.
    Commit(Tally),
}

/// Whose mail is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// A domain, in small letters.
    pub domain: Box<str>,
    /// And all domains below it.
    pub below: bool,
}

/// How a client calls itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Hello {
    /// A domain, or an address in brackets. Nothing that was checked but its letters.
    pub name: Box<str>,
    /// EHLO or LHLO, not HELO.
    pub extended: bool,
}

/// What a host answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, in our words.
    Go,
    /// Yes or no, as its code says, in the host's words. 421 ends the conversation.
    Reply(Box<Reply>),
    /// For each recipient that was taken, in their order; where the face gives one reply, the first. What is missing is
    /// answered as `Failed`.
    Each(Vec<Reply>),
    /// What a proof is judged by, and a nonce: printable, without commas, never used before.
    Verifier(Box<(Verifier, Vec<u8>)>),
    /// Name and password do not fit.
    Denied,
    /// The client spoke before the greeting.
    Spoke,
    /// It cannot be done just now.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Command,
    Sasl,
    Asking(Asked),
    Taking,
    Doomed,
    Reporting,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Hold,
    Tls,
    /// Login or Proof.
    Who,
    Verifier,
    Hello {
        extended: bool,
    },
    Sender {
        utf8: bool,
    },
    Recipient,
    Etrn,
    Reset,
    Begin,
    /// Reset too, in the midst of a message.
    Doom,
    Commit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Ready,
    Mail,
    Rcpt,
}

/// A message that is being taken.
#[derive(Debug)]
struct Taking {
    decoder: DotDecoder,
    /// Octets that may still be read of it.
    left: u64,
    /// Octets read since the deadline moved.
    block: usize,
    ended: bool,
}

/// Replies after the dot.
#[derive(Debug)]
struct Report {
    each: std::vec::IntoIter<Reply>,
    /// What those hear for whom there is none.
    others: Cow<'static, Reply>,
    left: u16,
    /// Nothing further is read.
    last: bool,
}

/// The server's side of one SMTP conversation.
#[derive(Debug)]
pub struct Smtp {
    state: State,
    stage: Stage,
    face: Face,
    rules: Arc<Rules>,
    link: Link,
    lines: Lines,
    /// EHLO or LHLO was said: parameters may be.
    extended: bool,
    authenticated: bool,
    /// The last MAIL that was taken had SMTPUTF8.
    utf8: bool,
    denied: u8,
    errors: u16,
    unknown: u16,
    idle: u16,
    recipients: u16,
    /// ETRNs so far.
    etrns: u8,
    exchange: Option<Box<Exchange>>,
    taking: Option<Box<Taking>>,
    report: Option<Box<Report>>,
    /// Why we ended it, where it was we.
    parting: Option<&'static Reply>,
    deadline: Instant,
}

impl Smtp {
    /// A conversation on a connection of this kind. `now` starts the time to the first command.
    pub fn new(now: Instant, rules: Arc<Rules>, face: Face, link: Link) -> Smtp {
        let deadline = now + rules.greeting;
        Smtp {
            state: if rules.hold.is_zero() { State::Command } else { State::Held },
            stage: Stage::Fresh,
            face,
            rules,
            link,
            lines: Lines::default(),
            extended: false,
            authenticated: link.known,
            utf8: false,
            denied: 0,
            errors: 0,
            unknown: 0,
            idle: 0,
            recipients: 0,
            etrns: 0,
            exchange: None,
            taking: None,
            report: None,
            parting: None,
            deadline,
        }
    }

    /// Which of its three it shows.
    pub fn face(&self) -> Face {
        self.face
    }

    /// With which words we ended the conversation, where that was not the client's wish and the words are ours.
    pub fn parting(&self) -> Option<&'static Reply> {
        self.parting
    }

    /// Whether something would be lost with it: a message under way, or a login. The others are to lose when something runs
    /// short.
    pub fn is_engaged(&self) -> bool {
        self.authenticated || matches!(self.stage, Stage::Mail | Stage::Rcpt)
    }

    fn may_authenticate(&self) -> bool {
        self.face == Face::Submission && (self.link.tls || self.link.plain_ok)
    }

    fn may_use(&self, mechanism: Mechanism) -> bool {
        self.may_authenticate() && (mechanism.sends_password() || self.link.scram)
    }

    fn greet(&self, out: &mut Output) {
        let protocol = if self.face == Face::Lmtp { "LMTP" } else { "ESMTP" };
        let host = &self.rules.host;
        if self.rules.hide_version {
            say!(out, "220 {host} {protocol}");
        } else {
            say!(out, "220 {host} {protocol} DSMTP Version {}", env!("CARGO_PKG_VERSION"));
        }
    }

    fn ask(&mut self, asked: Asked, ask: Ask) -> Next {
        self.state = State::Asking(asked);
        Next::Ask(ask)
    }

    /// A refusal, counted. 421 is the end of the conversation, whoever says it (RFC 5321 §4.2.3).
    fn refuse(&mut self, reply: &Reply, out: &mut Output) {
        reply.write(out);
        if reply.code() == 421 {
            self.state = State::Over;
        } else if reply.code() >= 500 {
            self.errors = self.errors.saturating_add(1);
        }
    }

    fn last_words(&mut self, reply: &'static Reply, out: &mut Output) {
        reply.write(out);
        self.parting = Some(reply).filter(|reply| !reply.is_good());
        self.state = State::Over;
    }

    /// Who has made too many errors is told so once more, and closed.
    fn judge(&mut self, out: &mut Output) {
        let rules = &self.rules;
        let over = self.errors >= rules.max_errors || self.unknown >= rules.max_unknown || self.idle >= rules.max_idle;
        if over && matches!(self.state, State::Command | State::Sasl) {
            self.last_words(&reply::TOO_MANY_ERRORS, out);
        }
    }

    /// The envelope is gone.
    fn forget(&mut self) {
        if self.stage != Stage::Fresh {
            self.stage = Stage::Ready;
        }
        self.recipients = 0;
    }

    /// A refused login leaves the client where it was.
    fn not_welcome(&mut self, reply: &Reply, out: &mut Output) {
        self.exchange = None;
        self.state = State::Command;
        self.refuse(reply, out);
        self.denied += 1;
        if self.state != State::Over && self.denied >= MAX_DENIED {
            self.last_words(&reply::TOO_MANY_DENIED, out);
        }
    }

    fn begin(&mut self, now: Instant, out: &mut Output) {
        out.push(b"354 Go on; end with a dot on a line of its own\r\n");
        let size = self.rules.size.unwrap_or(u64::MAX);
        let left = size.saturating_mul(2).saturating_add(self.rules.swallow);
        let decoder = DotDecoder::new(self.rules.bare_newline);
        self.taking = Some(Box::new(Taking { decoder, left, block: 0, ended: false }));
        self.state = State::Taking;
        self.deadline = now + self.rules.data;
    }

    /// What is wrong with a message of which this has been counted.
    fn trouble(&self, tally: &Tally) -> Option<&'static Reply> {
        let rules = &self.rules;
        if rules.size.is_some_and(|size| tally.octets() > size) {
            Some(&reply::TOO_BIG)
        } else if tally.header_lines > rules.header_lines || tally.header_bytes > rules.header_bytes {
            Some(&reply::HEADER_TOO_BIG)
        } else if tally.hops > rules.hops {
            Some(&reply::LOOPING)
        } else if tally.longest_line > rules.text_line {
            Some(&reply::TEXT_LINE_TOO_LONG)
        } else {
            None
        }
    }

    /// Takes text of a message: what can be decoded of what has come.
    fn take<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        let taking = self.taking.as_mut().expect("it was put there when this state began");
        if taking.ended {
            return self.dot(now);
        }
        let window = input.len().min(usize::try_from(taking.left).unwrap_or(usize::MAX));
        let more = window < input.len();
        let decoded = taking.decoder.decode(&mut input.bytes_mut()[..window]);
        taking.left -= decoded.taken as u64;
        taking.ended = decoded.stop == Some(Stop::End);
        taking.block += decoded.taken;
        if taking.block >= BLOCK {
            taking.block = 0;
            self.deadline = now + self.rules.data;
        }
        match decoded.stop {
            Some(Stop::Bare) => return self.close(&reply::BARE_NEWLINE, out),
            Some(Stop::Nul) => return self.close(&reply::NUL_IN_TEXT, out),
            Some(Stop::End) => {}
            None if decoded.taken > 0 => {}
            // No size is left to be read, and the end has not come.
            None if more => return self.close(&reply::TOO_BIG, out),
            None => return Want::Input,
        }
        let tally = taking.decoder.tally();
        let text = &input.consume(decoded.taken)[..decoded.kept];
        match self.state {
            State::Doomed => Want::Again,
            _ if self.trouble(&tally).is_some() => {
                self.state = State::Asking(Asked::Doom);
                Want::Ask(Ask::Reset)
            }
            _ if text.is_empty() => Want::Again,
            _ => Want::Data(text),
        }
    }

    /// The message is whole. What is wrong with it depends on all of it, not on how it came.
    fn dot<'i>(&mut self, now: Instant) -> Want<'i, Ask> {
        let tally = self.taking.take().expect("its end was just seen").decoder.tally();
        if self.state == State::Doomed {
            let trouble = self.trouble(&tally).expect("what is counted only grows");
            self.errors = self.errors.saturating_add(1);
            self.report(Vec::new(), Cow::Borrowed(trouble), false);
            return Want::Again;
        }
        self.state = State::Asking(Asked::Commit);
        self.deadline = now + self.rules.after_dot;
        Want::Ask(Ask::Commit(tally))
    }

    /// A message is refused before its end: nothing that follows can be told from it.
    fn close<'i>(&mut self, reply: &'static Reply, out: &mut Output) -> Want<'i, Ask> {
        self.taking = None;
        self.last_words(reply, out);
        Want::Close
    }

    /// Replies after the dot are to be written, and the envelope is gone: one, or one for each recipient.
    fn report(&mut self, each: Vec<Reply>, others: Cow<'static, Reply>, last: bool) {
        let left = if self.face == Face::Lmtp { self.recipients } else { 1 };
        self.report = Some(Box::new(Report { each: each.into_iter(), others, left, last }));
        self.state = State::Reporting;
        self.forget();
    }

    fn write_report(&mut self, out: &mut Output) {
        let report = self.report.as_mut().expect("it was put there when this state began");
        for _ in 0..report.left.min(PAGE as u16) {
            match report.each.next() {
                Some(reply) => reply.write(out),
                None => report.others.write(out),
            }
            report.left -= 1;
        }
        if report.left == 0 {
            self.state = if report.last { State::Over } else { State::Command };
            self.report = None;
            self.judge(out);
        }
    }

    fn committed(&mut self, answer: Answer) {
        let (each, others) = match answer {
            Answer::Go => (Vec::new(), Cow::Borrowed(&reply::ACCEPTED)),
            Answer::Reply(reply) => (Vec::new(), Cow::Owned(*reply)),
            Answer::Each(each) => (each, Cow::Borrowed(&reply::UNAVAILABLE)),
            Answer::Failed => (Vec::new(), Cow::Borrowed(&reply::UNAVAILABLE)),
            answer => unreachable!("{answer:?} is no answer to a message"),
        };
        let mut all = each.iter().chain(each.is_empty().then_some(&*others));
        if all.clone().any(Reply::is_good) {
            self.errors = 0;
            self.idle = 0;
        } else {
            self.errors = self.errors.saturating_add(1);
        }
        let last = all.any(|reply| reply.code() == 421);
        self.report(each, others, last);
    }

    /// What was asked, and is now known: what to say, and where that leaves us.
    fn answered(&mut self, now: Instant, asked: Asked, answer: Answer, out: &mut Output) {
        self.state = State::Command;
        let denied =
            if matches!(asked, Asked::Who | Asked::Verifier) { &reply::AUTH_UNAVAILABLE } else { &reply::UNAVAILABLE };
        let failed = answer == Answer::Failed;
        let (words, good) = match answer {
            Answer::Go => (None, true),
            Answer::Reply(reply) => {
                let good = reply.is_good();
                (Some(Cow::Owned(*reply)), good)
            }
            Answer::Denied => (Some(Cow::Borrowed(&reply::DENIED)), false),
            Answer::Failed => (Some(Cow::Borrowed(denied)), false),
            answer => unreachable!("{answer:?} is no answer to {asked:?}"),
        };
        match asked {
            Asked::Who if good => {
                self.authenticated = true;
                self.exchange = None;
                words.as_deref().unwrap_or(&reply::AUTHENTICATED).write(out);
            }
            Asked::Who | Asked::Verifier => self.not_welcome(words.as_deref().unwrap_or(&reply::DENIED), out),
            Asked::Hello { extended } => {
                self.forget();
                match words {
                    Some(words) if !good => self.refuse(&words, out),
                    _ => {
                        self.stage = Stage::Ready;
                        self.extended = extended;
                        self.introduce(out);
                    }
                }
            }
            Asked::Sender { utf8 } if good => {
                self.stage = Stage::Mail;
                self.utf8 = utf8;
                words.as_deref().unwrap_or(&reply::SENDER_OK).write(out);
            }
            Asked::Recipient if good => {
                self.stage = Stage::Rcpt;
                self.recipients += 1;
                words.as_deref().unwrap_or(&reply::RECIPIENT_OK).write(out);
            }
            Asked::Begin if good => self.begin(now, out),
            Asked::Etrn => {
                let said = match &words {
                    _ if failed => &reply::ETRN_UNAVAILABLE,
                    Some(words) => &**words,
                    None => &reply::ETRN_STARTED,
                };
                self.refuse(said, out);
            }
            // Whatever the host could or could not do about it: the envelope is gone.
            Asked::Reset => {
                self.forget();
                match words {
                    Some(words) if !good => self.refuse(&words, out),
                    _ => reply::OK.write(out),
                }
            }
            Asked::Sender { .. } | Asked::Recipient | Asked::Begin => {
                let words = words.expect("what is not good comes with words");
                self.refuse(&words, out);
            }
            Asked::Hold | Asked::Tls | Asked::Doom | Asked::Commit => {
                unreachable!("{asked:?} has an answer of its own")
            }
        }
    }
}

impl Machine for Smtp {
    type Ask = Ask;
    type Answer = Answer;

    fn open(&mut self, _now: Instant, out: &mut Output) {
        if self.state == State::Command {
            self.greet(out);
        }
    }

    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        match self.state {
            State::Over => return Want::Close,
            State::Held if input.is_empty() => {
                self.state = State::Asking(Asked::Hold);
                return Want::Ask(Ask::Hold(self.rules.hold));
            }
            State::Held => return self.close(&reply::EARLY_TALK, out),
            State::Taking | State::Doomed => return self.take(now, input, out),
            State::Reporting => {
                self.write_report(out);
                return Want::Again;
            }
            State::Command | State::Sasl | State::Asking(_) => {}
        }
        let limit = if self.state == State::Sasl { SASL_LIMIT } else { LINE_LIMIT };
        let next = match self.lines.next(input, limit) {
            Line::Partial => return Want::Input,
            Line::TooLong if self.state == State::Sasl => {
                self.state = State::Command;
                self.exchange = None;
                Next::Refuse(&reply::RESPONSE_TOO_LONG)
            }
            Line::TooLong => Next::Refuse(&reply::LINE_TOO_LONG),
            Line::Whole(text) if self.state == State::Sasl => self.response(text, out),
            Line::Whole(text) => self.verb(text, out),
        };
        self.deadline = now + self.rules.command;
        match next {
            Next::Said => self.judge(out),
            Next::Refuse(reply) => {
                self.refuse(reply, out);
                self.judge(out);
            }
            Next::Ask(ask) => return Want::Ask(ask),
            Next::Close(reply) => {
                self.last_words(reply, out);
                return Want::Close;
            }
        }
        Want::Again
    }

    fn answer(&mut self, now: Instant, answer: Answer, out: &mut Output) {
        let State::Asking(asked) = self.state else { unreachable!("nobody asked for {answer:?}") };
        self.deadline = now + self.rules.command;
        match (asked, answer) {
            (Asked::Hold, Answer::Go) => {
                self.state = State::Command;
                self.deadline = now + self.rules.greeting;
                self.greet(out);
            }
            (Asked::Hold, Answer::Spoke) => self.last_words(&reply::EARLY_TALK, out),
            (Asked::Hold, Answer::Reply(reply)) => {
                reply.write(out);
                self.state = State::Over;
            }
            (Asked::Hold, _) => self.last_words(&reply::NO_SERVICE, out),
            (Asked::Tls, Answer::Go) => {
                // RFC 3207 §4.2: everything said before TLS is forgotten.
                self.link.tls = true;
                self.lines = Lines::default();
                self.forget();
                self.stage = Stage::Fresh;
                self.extended = false;
                self.authenticated = self.link.known;
                self.state = State::Command;
            }
            // The client has been told to begin: nothing said in clear would be understood.
            (Asked::Tls, _) => self.state = State::Over,
            (Asked::Verifier, Answer::Verifier(found)) => self.challenge(*found, out),
            (Asked::Doom, _) => {
                self.state = State::Doomed;
                self.deadline = now + self.rules.data;
            }
            (Asked::Commit, answer) => self.committed(answer),
            (asked, answer) => self.answered(now, asked, answer, out),
        }
        self.judge(out);
    }

    fn end(&mut self, _now: Instant, why: End, out: &mut Output) {
        match std::mem::replace(&mut self.state, State::Over) {
            // The last word has been said; or it would be taken for a recipient's reply; or for no, where it may become yes.
            State::Over | State::Reporting | State::Asking(Asked::Commit) => return,
            _ => {}
        }
        let words = match why {
            End::Silence => &reply::SILENCE,
            End::Replaced | End::Kicked => &reply::ENDED,
            End::Shutdown => &reply::STOPPING,
            End::Overload => &reply::CROWDED,
        };
        self.last_words(words, out);
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}
