//! SMTP, the client's side (RFC 5321, 1870, 2034, 2920, 3030, 3207, 3461, 4954, 6152, 6531, 9422), and LMTP's (RFC 2033). No
//! I/O: see [`Machine`](crate::protocol::Machine).
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

#![allow(dead_code)]

pub mod extensions;
pub mod reply;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::params::{Notify, Recipient, Ret, Sender};
use crate::protocol::End;
use crate::protocol::sasl::Login;
pub use extensions::Extensions;
use reply::{Nonsense, Reply};

/// Replies that a server may owe us. With [`reply::LINE_LIMIT`] they fit into the buffers of any socket.
pub const WINDOW: u32 = 100;

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

/// The client's side of one SMTP conversation.
#[derive(Debug)]
pub struct Client {
    state: State,
    rules: Arc<Rules>,
    /// TLS is on.
    tls: bool,
    deadline: Instant,
}

impl Client {
    /// A conversation on a connection that is being made; `tls` if that begins with its first octet.
    pub fn new(now: Instant, rules: Arc<Rules>, tls: bool) -> Client {
        let deadline = now + rules.patience.greeting;
        Client { state: State::Greeting, rules, tls, deadline }
    }

    /// What the host has not been told, because the connection ended and no machine is told so: asked by whoever removes
    /// its stream. `None` where [`Told::Over`] was told, or the host's QUIT was on its way.
    pub fn lost(&self) -> Option<Over> {
        let lost = Over { why: Why::Lost, state: self.state, unsettled: Vec::new(), possibly: false };
        (!matches!(self.state, State::Over | State::Quitting)).then_some(lost)
    }
}
