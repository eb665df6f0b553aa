//! SMTP, the client's side (RFC 5321, 1870, 2034, 2920, 3030, 3207, 3461, 4954, 6152, 6531, 9422), and LMTP's (RFC 2033). No
//! I/O: see [`Machine`].
//!
//! | state    | what is awaited                                    | leaves by                                        |
//! |----------|----------------------------------------------------|--------------------------------------------------|
//! | Greeting | the greeting                                       | 2xx                                              |
//! | Hello    | the answer to EHLO or LHLO, or to HELO after a 5xx | 2xx                                              |
//! | Tls      | the answer to STARTTLS                             | 220, then TLS, then Hello anew; a refusal        |
//! | Ready    | the host: what next?                               | an envelope, a login, the end                    |
//! | Sasl     | the answers to AUTH                                | Ready                                            |
//! | Envelope | the answers to RSET, MAIL, RCPT, DATA              | 354; nobody was taken; a refusal                 |
//! | Text     | the host: the message                              | its end                                          |
//! | Dotted   | the answer to the message; LMTP: the answers       | Ready                                            |
//! | Vain     | the answer to a dot without a message              | Ready                                            |
//! | Quitting | the answer to QUIT                                 | anything                                         |
//! | Over     |                                                    |                                                  |
//!
//! In every state but Quitting a reply 421, nonsense, silence and the connection's end lead to Over.
//!
//! **What the host hears.** Each recipient of an envelope has exactly one outcome: a bad answer to MAIL, RCPT or DATA, the answer to the
//! message, or [`Over::unsettled`]. The next [`Ask::Next`] says that all of them are told. What the machine sees of the end it
//! tells as [`Told::Over`]; where a connection just breaks, no machine is told so, and whoever removes the stream asks
//! [`Client::lost`]. Between the last octet of a message and the answer to it the message may have been taken though nobody
//! said so: [`Over::possibly`] keeps that apart from every other trouble, because trying it again may bring it twice.
//!
//! **What is written.** With PIPELINING, MAIL, RCPT and DATA follow each other, with no more than [`WINDOW`] replies owed, which fit
//! into the buffers of any socket; so two sides that both only write cannot happen. Without it, one at a time. The outcomes
//! are the same. DATA that was said before all recipients were refused, and answered 354, gets a dot alone whose answer
//! nobody hears (RFC 2920 §3.1). BDAT waits for the recipients' answers: it takes as many turns as DATA, and no text goes to
//! a server that wants it for nobody.
//!
//! **What is refused here**, before MAIL: [`Unfit`]. What cannot be written as it is meant is not written at all; no
//! address or parameter becomes a command.
//!
//! **What is not believed.** A reply is bounded and made printable ([`reply`]); one too many is nonsense where it can be seen:
//! when it is there before anything was asked. All said in clear is forgotten with STARTTLS.

mod commands;
pub mod extensions;
pub mod reply;
mod sasl;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::params::{Notify, Recipient, Ret, Sender};
use crate::protocol::sasl::Login;
use crate::protocol::{End, Line, Lines, Machine, Want, say};
use crate::text::bytes::{Input, Output};
pub use extensions::Extensions;
use reply::{Nonsense, Partly, Reply};
use sasl::Saying;

/// Replies that a server may owe us. With [`reply::LINE_LIMIT`] they fit into the buffers of any socket.
pub const WINDOW: u32 = 100;

/// Octets of commands after which the driver is to send them before there are more.
pub const BURST: usize = 8 * 1024;

/// Which protocol it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// EHLO; one answer to a message.
    Smtp,
    /// LHLO; one answer to a message for each recipient that was taken.
    Lmtp,
}

/// Whether STARTTLS is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// It is not.
    Never,
    /// Where it is offered. If the server then says no, all goes on in clear; if the handshake fails, the connection is
    /// lost, and trying again with `Never` is for the host to decide.
    Offered,
    /// Nothing is said to a server without it.
    Required,
}

/// What a host decides for all conversations of a kind.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Our name, as EHLO says it: a domain, or an address in brackets.
    pub name: Box<str>,
    /// SMTP or LMTP.
    pub face: Face,
    /// Whether STARTTLS is said.
    pub tls: Tls,
    /// Passwords may be said without TLS.
    pub plain_ok: bool,
    /// How long a server may take.
    pub patience: Patience,
}

/// How long a server may take. By default as RFC 5321 §4.5.3.2 wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the greeting.
    pub greeting: Duration,
    /// For the answer to EHLO, STARTTLS, AUTH and RSET; the RFC says nothing of them.
    pub command: Duration,
    /// For the answer to MAIL.
    pub mail: Duration,
    /// For the answer to one RCPT.
    pub rcpt: Duration,
    /// For the answer to DATA.
    pub data: Duration,
    /// For a block of text to be taken. Over a socket its driver is stricter.
    pub block: Duration,
    /// For the answer to the message, or for one of them.
    pub dot: Duration,
    /// For the answer to QUIT.
    pub quit: Duration,
    /// For all of an envelope before its text, however many recipients it has and whatever each may take.
    pub envelope: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Patience {
            greeting: minutes(5),
            command: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            dot: minutes(10),
            quit: minutes(1),
            envelope: minutes(60),
        }
    }
}

/// A message, but for its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who sends, and how. `eight_bit` and `utf8` say what the message needs; `size` is told where the server wants it;
    /// `ret`, `envid` and `auth` where it knows them.
    pub sender: Sender,
    /// Who is to have it: told of by their place here, from 0. NOTIFY and ORCPT are said where the server knows them.
    pub recipients: Vec<Recipient>,
    /// How its text goes.
    pub form: Form,
}

/// How a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// DATA. The body is dots doubled, lines ended by CRLF, the last one too; the dot that ends it is the machine's.
    Lines,
    /// BDAT, as one chunk of exactly so many octets. The body is the message as it is, its lines ended by CRLF.
    Chunk(u64),
}

/// What a conversation asks of its host.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// TLS begins. Answered `Go` once it has (`Done::StartTls`), or `Failed`, which ends the conversation.
    StartTls,
    /// The server is there and this is what it offers; what was begun is settled. Answered `Login`, `Envelope` or `Quit`.
    Next(Extensions),
    /// What came of something. Answered `Go`.
    Told(Told),
    /// The text of the envelope. Answered by a body between `Text` and `Sent`; or `Failed`, which ends the
    /// conversation: nobody has got anything.
    Text,
}

/// What a host answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or heard.
    Go,
    /// Say who we are.
    Login(Box<Login>),
    /// Bring this message.
    Envelope(Box<Envelope>),
    /// It was the last.
    Quit,
    /// Here comes the text.
    Text,
    /// That was the text, all of it.
    Sent,
    /// It cannot be done.
    Failed,
}

/// What came of something.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The server's answer to our login: good or bad.
    Login(Reply),
    /// We did not even ask. The envelope, or the login, goes no further.
    Unfit(Unfit),
    /// The answer to MAIL. If it is bad, it is the outcome of every recipient.
    Sender(Reply),
    /// The answer to the RCPT of that recipient. If it is bad, it is the outcome of that one.
    Recipient(u32, Reply),
    /// DATA was refused: the outcome of every recipient that was taken.
    Refused(Reply),
    /// The answer to the message, good or bad: the outcome of every recipient that was taken.
    Message(Reply),
    /// LMTP's answer to the message, good or bad: the outcome of that recipient.
    Delivered(u32, Reply),
    /// The conversation is over, and this is why. Nothing is asked after it.
    Over(Box<Over>),
}

/// Why something is not asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The message holds octets above 127, and the server takes none.
    EightBit,
    /// An address or the header is beyond ASCII, and the server takes none such; or the envelope does not say so.
    Utf8,
    /// It is larger than this, which the server takes.
    TooBig(u64),
    /// It has more recipients than this, which the server takes; it may be split.
    Full(u32),
    /// The connection has carried as many messages as the server wants on one.
    Spent,
    /// BDAT, and the server has none.
    NoChunks,
    /// There is no recipient.
    Nobody,
    /// The sender or its parameters cannot be written.
    BadSender,
    /// This recipient or its parameters cannot be written.
    BadRecipient(u32),
    /// The server offers no login that we know.
    NoLogin,
    /// A password would go in clear.
    LoginInClear,
    /// Name or password holds a NUL, or they are too long to be said.
    BadLogin,
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Why.
    pub why: Why,
    /// In which state it was.
    pub state: State,
    /// Recipients of the envelope under way that have no outcome, in their order.
    pub unsettled: Vec<u32>,
    /// They may have got the message all the same: all of it was sent, and the answer is missing.
    pub possibly: bool,
}

/// Why a conversation ended without the host's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The server does not want us: its greeting, or its answer to EHLO, STARTTLS (where TLS is required) or RSET.
    Refused(Reply),
    /// The server closes (421).
    Closing(Reply),
    /// What it says makes no sense.
    Nonsense(Nonsense),
    /// TLS is required, and the server offers none, or the host has none.
    NoTls,
    /// The host had no text to send, and only the connection's end can say so.
    NoText,
    /// The host, or the server's silence.
    Ended(End),
    /// The connection broke.
    Lost,
}

/// See the table of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The greeting is awaited.
    Greeting,
    /// The answer to EHLO, LHLO or HELO.
    Hello,
    /// The answer to STARTTLS, or the handshake.
    Tls,
    /// What the host wants next.
    Ready,
    /// An answer to AUTH.
    Sasl,
    /// Answers to RSET, MAIL, RCPT, DATA.
    Envelope,
    /// The text.
    Text,
    /// The answer to the text.
    Dotted,
    /// The answer to a dot for nobody.
    Vain,
    /// The answer to QUIT.
    Quitting,
    /// Nothing.
    Over,
}

/// What the host was asked and has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    StartTls,
    Next,
    Told,
    Text,
    /// The body is on its way.
    Sent,
}

/// How a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Nothing has been said about it.
    Open,
    /// The server would have the message for it.
    Taken,
    /// It has its outcome.
    Settled,
}

/// An envelope under way. Its commands have places: 0 is RSET, 1 is MAIL, then one RCPT each, then DATA.
#[derive(Debug)]
struct Running {
    envelope: Envelope,
    stands: Box<[Stand]>,
    /// The place of the next command to be written.
    written: u32,
    /// The place of the command to which the next reply belongs. Never past `written`.
    heard: u32,
    /// Recipients that are [`Stand::Taken`].
    taken: u32,
    /// MAIL was refused.
    refused: bool,
    /// When all of it has to be said and answered.
    until: Instant,
}

const RSET: u32 = 0;
const MAIL: u32 = 1;
const FIRST_RCPT: u32 = 2;

impl Running {
    /// The place of DATA.
    fn data(&self) -> u32 {
        FIRST_RCPT + self.stands.len() as u32
    }

    fn owed(&self) -> u32 {
        self.written - self.heard
    }

    /// The first recipient that is taken and has no outcome.
    fn next_taken(&self) -> Option<u32> {
        self.stands.iter().position(|stand| *stand == Stand::Taken).map(|at| at as u32)
    }

    /// A reply is the outcome of all that were taken.
    fn settle_taken(&mut self) {
        self.stands.iter_mut().filter(|stand| **stand == Stand::Taken).for_each(|stand| *stand = Stand::Settled);
        self.taken = 0;
    }
}

/// The client's side of one SMTP conversation.
#[derive(Debug)]
pub struct Client {
    state: State,
    asked: Option<Asked>,
    /// What this state begins with is still to be said or asked.
    due: bool,
    /// TLS is on.
    tls: bool,
    /// The server does not know EHLO.
    plain: bool,
    /// The server holds an envelope that it got no message for.
    dirty: bool,
    lines: Lines,
    /// Messages begun on this connection.
    mails: u32,
    rules: Arc<Rules>,
    offers: Extensions,
    /// The reply that is being received.
    partly: Option<Box<Partly>>,
    login: Option<Box<Saying>>,
    running: Option<Box<Running>>,
    /// What is told next.
    unfit: Option<Unfit>,
    /// What is told after that, or, once the state is Over, was not told.
    over: Option<Box<Over>>,
    deadline: Instant,
}

impl Client {
    /// A conversation on a connection that is being made; `tls` if that begins with its first octet.
    pub fn new(now: Instant, rules: Arc<Rules>, tls: bool) -> Client {
        assert!(rules.name.bytes().all(|byte| byte.is_ascii_graphic()), "a name that can be said in EHLO");
        let deadline = now + rules.patience.greeting;
        Client {
            state: State::Greeting,
            asked: None,
            due: false,
            tls,
            plain: false,
            dirty: false,
            lines: Lines::default(),
            mails: 0,
            rules,
            offers: Extensions::default(),
            partly: None,
            login: None,
            running: None,
            unfit: None,
            over: None,
            deadline,
        }
    }

    /// What the host has not been told, because the connection ended and no machine is told so: asked by whoever removes
    /// its stream. `None` where [`Told::Over`] was told, or the host's QUIT was on its way.
    pub fn lost(&self) -> Option<Over> {
        match (&self.over, self.state) {
            (Some(over), _) => Some((**over).clone()),
            (None, State::Over | State::Quitting) => None,
            (None, _) => Some(self.ended(Why::Lost)),
        }
    }

    /// In which state it is.
    pub fn state(&self) -> State {
        self.state
    }

    fn ended(&self, why: Why) -> Over {
        let stands = self.running.as_ref().map_or(&[][..], |running| &running.stands);
        let open = stands.iter().zip(0..).filter(|(stand, _)| **stand != Stand::Settled);
        let unsettled: Vec<u32> = open.map(|(_, at)| at).collect();
        let possibly = self.state == State::Dotted && !unsettled.is_empty();
        Over { why, state: self.state, unsettled, possibly }
    }

    /// The conversation ends; the host is told at the next step.
    fn end_with(&mut self, why: Why) {
        if self.state == State::Quitting {
            // It was over already, and nothing can be said to QUIT that matters.
            self.state = State::Over;
            return;
        }
        self.over = Some(Box::new(self.ended(why)));
        self.running = None;
        self.login = None;
    }

    /// The same, with a word to a server that listens.
    fn part(&mut self, why: Why, out: &mut Output) {
        out.push(b"QUIT\r\n");
        self.end_with(why);
    }

    fn tell<'i>(&mut self, told: Told) -> Want<'i, Ask> {
        self.asked = Some(Asked::Told);
        Want::Ask(Ask::Told(told))
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.due = true;
    }

    /// All there was to be said of an envelope, or of a login.
    fn settled(&mut self) {
        self.running = None;
        self.login = None;
        self.begin(State::Ready);
    }

    /// Says, or asks, what the state begins with.
    fn act<'i>(&mut self, out: &mut Output) -> Want<'i, Ask> {
        self.due = false;
        match self.state {
            State::Hello => {
                let verb = match self.rules.face {
                    Face::Lmtp => "LHLO",
                    Face::Smtp if self.plain => "HELO",
                    Face::Smtp => "EHLO",
                };
                self.offers = Extensions::default();
                say!(out, "{verb} {}", self.rules.name);
            }
            State::Tls => out.push(b"STARTTLS\r\n"),
            State::Ready => {
                self.asked = Some(Asked::Next);
                return Want::Ask(Ask::Next(self.offers));
            }
            State::Sasl => self.login.as_mut().expect("it is there while this state lasts").say(out),
            State::Envelope => self.write(out),
            State::Text => {
                self.asked = Some(Asked::Text);
                return Want::Ask(Ask::Text);
            }
            State::Vain => out.push(b".\r\n"),
            State::Quitting => out.push(b"QUIT\r\n"),
            State::Greeting | State::Dotted | State::Over => unreachable!("{:?} begins with nothing", self.state),
        }
        Want::Again
    }

    /// Takes a line of a reply; the reply once it is whole.
    fn hear(&mut self, line: &[u8]) -> Result<Option<Reply>, Nonsense> {
        let first = self.partly.is_none();
        let (text, last) = Partly::line(&mut self.partly, line)?;
        if self.state == State::Hello && !self.plain && !first {
            self.offers.line(text);
        }
        Ok(if last { self.partly.take().map(|partly| partly.finish()) } else { None })
    }

    /// A whole reply has come.
    fn replied<'i>(&mut self, reply: Reply, out: &mut Output) -> Want<'i, Ask> {
        match self.state {
            State::Quitting => {
                self.state = State::Over;
                return Want::Again;
            }
            // Over is only told once the message has its outcome: no, for now.
            State::Dotted => return self.delivered(reply),
            _ if reply.code() == 421 => self.end_with(Why::Closing(reply)),
            _ if self.due => self.end_with(Why::Nonsense(Nonsense::Unasked)),
            State::Envelope => return self.envelope_replied(reply),
            State::Sasl => return self.login_replied(reply),
            State::Vain => self.settled(),
            // Of what is left, only STARTTLS has one good answer.
            State::Tls if reply.code() == 220 => {
                self.asked = Some(Asked::StartTls);
                return Want::Ask(Ask::StartTls);
            }
            State::Tls if reply.code() < 400 => self.end_with(Why::Nonsense(Nonsense::OutOfPlace)),
            State::Tls if self.rules.tls == Tls::Offered => self.begin(State::Ready),
            _ if (300..400).contains(&reply.code()) => self.end_with(Why::Nonsense(Nonsense::OutOfPlace)),
            State::Greeting if reply.is_good() => self.begin(State::Hello),
            State::Hello if reply.is_good() => self.introduced(out),
            // RFC 5321 §3.2: who does not know EHLO may know HELO.
            State::Hello if reply.is_permanent() && !self.plain && self.rules.face == Face::Smtp => {
                self.plain = true;
                self.begin(State::Hello);
            }
            State::Greeting | State::Hello | State::Tls => self.part(Why::Refused(reply), out),
            State::Ready | State::Text | State::Over => {
                unreachable!("{:?} reads only while something is due", self.state)
            }
        }
        Want::Again
    }

    /// EHLO was answered.
    fn introduced(&mut self, out: &mut Output) {
        match self.rules.tls {
            _ if self.tls => self.begin(State::Ready),
            Tls::Offered | Tls::Required if self.offers.starttls => self.begin(State::Tls),
            Tls::Required => self.part(Why::NoTls, out),
            Tls::Never | Tls::Offered => self.begin(State::Ready),
        }
    }

    fn login_replied<'i>(&mut self, reply: Reply) -> Want<'i, Ask> {
        let login = self.login.as_mut().expect("it is there while this state lasts");
        if reply.code() < 400 && !login.goes_on(reply.is_good()) {
            self.end_with(Why::Nonsense(Nonsense::OutOfPlace));
            return Want::Again;
        }
        if !reply.is_good() && !reply.is_refusal() {
            self.due = true;
            return Want::Again;
        }
        self.settled();
        self.tell(Told::Login(reply))
    }

    /// Writes what may be written of an envelope; or it is over, or its text is next.
    fn write(&mut self, out: &mut Output) {
        let running = self.running.as_mut().expect("it is there while this state lasts");
        let window = if self.offers.pipelining { WINDOW } else { 1 };
        let data = running.data();
        while out.len() < BURST && running.owed() < window && !running.refused {
            match running.written {
                RSET => out.push(b"RSET\r\n"),
                MAIL => {
                    self.mails += 1;
                    commands::mail(&running.envelope, &self.offers, out);
                }
                place if place < data => {
                    commands::rcpt(&running.envelope.recipients[(place - FIRST_RCPT) as usize], &self.offers, out);
                }
                // Not again; not for nobody, once that is known; not where the text follows BDAT.
                place if place > data || running.heard == data && running.taken == 0 => break,
                _ if running.envelope.form != Form::Lines => break,
                _ => out.push(b"DATA\r\n"),
            }
            running.written += 1;
        }
        match running.owed() {
            0 if running.refused || running.taken == 0 => self.settled(),
            0 => self.begin(State::Text),
            _ => {}
        }
    }

    /// The time for what is awaited begins.
    fn wait(&mut self, now: Instant) {
        let patience = &self.rules.patience;
        let each = match (self.state, &self.running) {
            (State::Greeting, _) => patience.greeting,
            (State::Envelope, Some(running)) => {
                let each = match running.heard {
                    RSET => patience.command,
                    MAIL => patience.mail,
                    place if place < running.data() => patience.rcpt,
                    _ => patience.data,
                };
                each.min(running.until.saturating_duration_since(now))
            }
            (State::Text, _) => patience.block,
            (State::Dotted | State::Vain, _) => patience.dot,
            (State::Quitting, _) => patience.quit,
            _ => patience.command,
        };
        self.deadline = now + each;
    }

    fn envelope_replied<'i>(&mut self, reply: Reply) -> Want<'i, Ask> {
        let running = self.running.as_mut().expect("it is there while this state lasts");
        let place = running.heard;
        let data = running.data();
        let fits = match reply.code() / 100 {
            2 => place != data,
            3 => place == data,
            _ => true,
        };
        if !fits {
            self.end_with(Why::Nonsense(Nonsense::OutOfPlace));
            return Want::Again;
        }
        running.heard += 1;
        self.due = running.owed() == 0;
        let told = match place {
            RSET if reply.is_good() => {
                self.dirty = false;
                None
            }
            RSET => {
                self.end_with(Why::Refused(reply));
                return Want::Again;
            }
            MAIL => {
                self.dirty |= reply.is_good();
                running.refused = !reply.is_good();
                if running.refused {
                    running.stands.fill(Stand::Settled);
                }
                Some(Told::Sender(reply))
            }
            // After a refused MAIL these speak of nothing but that.
            place if place < data && running.refused => None,
            place if place < data => {
                let at = place - FIRST_RCPT;
                let stand = if reply.is_good() { Stand::Taken } else { Stand::Settled };
                running.taken += u32::from(reply.is_good());
                running.stands[at as usize] = stand;
                Some(Told::Recipient(at, reply))
            }
            _ if reply.is_refusal() && running.taken > 0 => {
                self.settled();
                return self.tell(Told::Refused(reply));
            }
            _ if reply.is_refusal() => {
                self.settled();
                None
            }
            _ if running.taken > 0 => {
                self.begin(State::Text);
                None
            }
            // RFC 2920 §3.1: the server waits for a message that nobody would get.
            _ => {
                self.begin(State::Vain);
                None
            }
        };
        told.map_or(Want::Again, |told| self.tell(told))
    }

    /// An answer to the message.
    fn delivered<'i>(&mut self, reply: Reply) -> Want<'i, Ask> {
        if !reply.is_good() && !reply.is_refusal() {
            self.end_with(Why::Nonsense(Nonsense::OutOfPlace));
            return Want::Again;
        }
        let running = self.running.as_mut().expect("it is there while this state lasts");
        let closing = (reply.code() == 421).then(|| reply.clone());
        let told = match self.rules.face {
            Face::Smtp => {
                running.settle_taken();
                Told::Message(reply)
            }
            Face::Lmtp => {
                let at = running.next_taken().expect("somebody was taken, and an answer is owed for each");
                running.stands[at as usize] = Stand::Settled;
                running.taken -= 1;
                Told::Delivered(at, reply)
            }
        };
        let last = running.taken == 0;
        if let Some(reply) = closing {
            self.end_with(Why::Closing(reply));
        } else if last {
            self.dirty = false;
            self.settled();
        }
        self.tell(told)
    }

    /// What the host wants next.
    fn next(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Quit => self.begin(State::Quitting),
            Answer::Login(login) => match self.may_log_in(&login) {
                Ok(saying) => {
                    self.login = Some(Box::new(saying));
                    self.begin(State::Sasl);
                }
                Err(unfit) => self.refuse(unfit),
            },
            Answer::Envelope(envelope) => match commands::check(&envelope, &self.offers, self.mails) {
                Ok(()) => {
                    let start = if self.dirty { RSET } else { MAIL };
                    self.running = Some(Box::new(Running {
                        stands: vec![Stand::Open; envelope.recipients.len()].into(),
                        envelope: *envelope,
                        written: start,
                        heard: start,
                        taken: 0,
                        refused: false,
                        until: now + self.rules.patience.envelope,
                    }));
                    self.begin(State::Envelope);
                }
                Err(unfit) => self.refuse(unfit),
            },
            answer => unreachable!("{answer:?} is nothing that can come next"),
        }
    }

    fn refuse(&mut self, unfit: Unfit) {
        self.unfit = Some(unfit);
        self.begin(State::Ready);
    }

    fn may_log_in(&self, login: &Login) -> Result<Saying, Unfit> {
        if !self.tls && !self.rules.plain_ok {
            return Err(Unfit::LoginInClear);
        }
        Saying::new(login, &self.offers)
    }
}

impl Machine for Client {
    type Ask = Ask;
    type Answer = Answer;

    fn open(&mut self, _now: Instant, _out: &mut Output) {}

    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        if self.state == State::Over {
            return Want::Close;
        }
        if let Some(unfit) = self.unfit.take() {
            return self.tell(Told::Unfit(unfit));
        }
        if let Some(over) = self.over.take() {
            self.state = State::Over;
            return self.tell(Told::Over(over));
        }
        if self.due && (input.is_empty() || self.state == State::Quitting) {
            let want = self.act(out);
            self.wait(now);
            return want;
        }
        if self.state == State::Envelope && !self.due {
            let before = out.len();
            self.write(out);
            if out.len() > before {
                return Want::Again;
            }
        }
        let heard = match self.lines.next(input, reply::LINE_LIMIT) {
            Line::Partial => return Want::Input,
            Line::TooLong => Err(Nonsense::LongLine),
            Line::Whole(line) => self.hear(line),
        };
        let want = match heard {
            Ok(None) => Want::Again,
            Ok(Some(reply)) => {
                let want = self.replied(reply, out);
                self.wait(now);
                want
            }
            Err(nonsense) => {
                self.end_with(Why::Nonsense(nonsense));
                Want::Again
            }
        };
        if self.asked == Some(Asked::StartTls) {
            // What came before the handshake was not protected: it is forgotten, not obeyed.
            input.clear();
        }
        want
    }

    fn answer(&mut self, now: Instant, answer: Answer, out: &mut Output) {
        let asked = self.asked.take();
        match (asked, answer) {
            (Some(Asked::Told), Answer::Go) => {}
            (Some(Asked::Next), answer) => self.next(now, answer),
            (Some(Asked::StartTls), Answer::Go) => {
                // RFC 3207 §4.2: everything learnt before TLS is forgotten.
                self.tls = true;
                self.plain = false;
                self.lines = Lines::default();
                self.begin(State::Hello);
            }
            // The server has been told to begin: nothing said in clear would be understood.
            (Some(Asked::StartTls), Answer::Failed) => self.end_with(Why::NoTls),
            (Some(Asked::Text), Answer::Text) => {
                self.asked = Some(Asked::Sent);
                let running = self.running.as_ref().expect("it is there while this state lasts");
                if let Form::Chunk(octets) = running.envelope.form {
                    say!(out, "BDAT {octets} LAST");
                }
            }
            (Some(Asked::Sent), Answer::Sent) => {
                let running = self.running.as_ref().expect("it is there while this state lasts");
                if running.envelope.form == Form::Lines {
                    out.push(b".\r\n");
                }
                self.state = State::Dotted;
            }
            // A dot now would be a message; only the connection's end says that there is none.
            (Some(Asked::Text), Answer::Failed) => self.end_with(Why::NoText),
            (asked, answer) => unreachable!("{answer:?} is no answer to {asked:?}"),
        }
        self.wait(now);
    }

    fn end(&mut self, _now: Instant, why: End, out: &mut Output) {
        let quits = self.state == State::Ready && why != End::Silence;
        if self.over.is_none() && !matches!(self.state, State::Over | State::Quitting) {
            self.end_with(Why::Ended(why));
        }
        if quits {
            out.push(b"QUIT\r\n");
        }
        self.state = State::Over;
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}
