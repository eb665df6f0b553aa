//! One connection to another host: what the client's machine wants, given; what it is told, made into outcomes.
//!
//! | the machine asks | what is done                                                                                       |
//! |------------------|----------------------------------------------------------------------------------------------------|
//! | StartTls         | TLS for the host's name                                                                            |
//! | Next             | what was under way is settled; then a login, once; then, when the last outcomes are on disk, who waits for this place: an envelope; nobody: the connection is kept for `send_idle_secs` |
//! | Told             | each recipient's outcome is kept until the transaction is over                                      |
//! | Text             | the message                                                                                        |
//!
//! A transaction is over when the machine asks for the next, or tells that the conversation is. Its outcomes go to the queue at once.
//! 452 for a recipient after another was taken means that the host has enough of them (RFC 5321 §4.5.3.1.10): those, and what is beyond
//! [`RECIPIENTS`] or the host's own limit, have the next transaction.
//!
//! **What a peer says** stands in a reason as `host [address] said: reply`, behind an enhanced code: the peer's own where that has the class of
//! its reply. It has come through [`reply`](crate::protocol::smtp::client::reply), which makes it short and printable.
//!
//! **TLS that is offered and fails** in the handshake: the target is called again, once, and spoken to in clear, for
//! [`CLEAR`](super::place::CLEAR). A password never is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::targets::{At, Target};
use super::text::{self, Letter};
use super::{Birth, Came, Consignment, Next, RECIPIENTS, Shared, Whom};
use crate::net::jobs::Kind;
use crate::net::sock::Sock;
use crate::net::stream::{Done, Host, Readiness, Scratch, Socket, Stream, Turn};
use crate::net::tls::Secure;
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, Token, watch};
use crate::protocol::End;
use crate::protocol::sasl::Login;
use crate::protocol::smtp::client::reply::{Enhanced, Reply};
use crate::protocol::smtp::client::{
    Answer, Ask, Client, Envelope, Extensions, Face, Form, Over, Patience, Recipient, Rules, Sender, State, Tls, Told,
    Unfit, Why,
};
use crate::rules::hops::{Hop, Level, To};
use crate::rules::mx;
use crate::service::Outcome;
use crate::service::send::place::Trouble;
use crate::settings::Settings;
use crate::text::printable::visible;

/// A greeting or an answer to EHLO that will be the same the next time (RFC 7504).
const TAKES_NO_MAIL: u16 = 521;
/// Octets of a text that must leave in a second, beyond `send_session_secs`: else a host that takes just enough not to be thought
/// silent has a connection for days.
const TEXT_RATE: u64 = 1024;
/// How long a conversation that has sent a message's end may wait for the answer when the server stops.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// See the page.
pub struct Conversation<S = Sock> {
    stream: Stream<S, Client, Letter>,
    life: Life,
}

/// What is known of one connection.
struct Life {
    line: u32,
    /// For people: the host and its address.
    host: String,
    hop: Arc<Hop>,
    settings: Arc<Settings>,
    began: Instant,
    /// For STARTTLS.
    secure: Option<Secure>,
    /// To be said, once.
    login: Option<Box<Login>>,
    /// It is this machine, and nobody reads what is said.
    near: bool,
    /// TLS has begun and nothing was said in it: what fails now is the handshake.
    shaking: bool,
    /// Something was.
    secured: bool,
    /// The host is there, and has heard who we are.
    stands: bool,
    /// What the last EHLO offered.
    offers: Extensions,
    /// Since when it has had nothing to do.
    idle: Option<Instant>,
    /// What became of its last message is not on disk: it says nothing.
    owed: bool,
    /// It says QUIT as soon as it may.
    leaves: bool,
    /// It is over at the latest then.
    until: Option<Instant>,
    /// Its text has left by then, or goes no further.
    text_by: Option<Instant>,
    under: Option<Under>,
    /// Why it ended, where that was trouble.
    trouble: Option<Trouble>,
    /// Which job is awaited.
    serial: u32,
    /// It was seen that the other end is not this machine, or may be.
    looked: bool,
    messages: u32,
}

/// A consignment under way.
struct Under {
    consignment: Consignment,
    /// Recipients of the transaction: the first so many.
    count: usize,
    fates: Vec<Option<Came>>,
    begun: Instant,
    /// Somebody was taken at RCPT.
    taken: bool,
    /// These have another transaction.
    again: Vec<usize>,
    /// The connection has carried as many messages as the host wants.
    spent: bool,
}

impl Conversation {
    /// Begins to connect. Refuses with why nothing can be sent there now.
    pub fn call(now: Instant, birth: Birth, shared: &mut Shared) -> Result<Conversation, String> {
        let sock = match &birth.target.at {
            At::Tcp(address) => Sock::connect(*address, shared.settings.sends_from(address.ip())),
            At::Unix(path) => Sock::connect_to(path),
        };
        let sock = sock.map_err(|error| format!("4.4.1 {}: {error}", birth.target.shown()))?;
        Conversation::over(now, sock, birth, shared)
    }

    /// Registers the socket, once, for both directions.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        watch(registry, self.stream.sock_mut(), token)
    }

    /// Takes it away again. An error means that it is gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.stream.sock_mut());
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        if !self.life.looked
            && let Some(is_to_ourselves) = self.stream.sock().is_to_ourselves()
        {
            self.life.looked = true;
            // Who names a socket of this machine means this machine.
            if is_to_ourselves && !self.life.hop.inside && !matches!(self.life.hop.to, To::Socket(_)) {
                let why =
                    format!("5.4.6 {}: that is this machine, and no route says that mail goes there", self.life.host);
                self.life.trouble = Some(Trouble { why, never: true });
                return Turn::Closed;
            }
        }
        self.go(id, now, shared, scratch)
    }
}

impl<S: Socket> Conversation<S> {
    /// A conversation over a socket that is connecting.
    pub(super) fn over(now: Instant, sock: S, birth: Birth, shared: &mut Shared) -> Result<Conversation<S>, String> {
        let Birth { line, target, hop, clear } = birth;
        let life = Life::new(now, line, &target, hop, clear, shared)?;
        let (machine, first) = life.machine(now, clear);
        let stream = Stream::connect(now, sock, machine, first);
        let mut stream = stream.map_err(|error| format!("4.4.1 {}: {error}", target.shown()))?;
        let (command, block) = (shared.settings.send_command_secs, shared.settings.send_block_secs);
        stream.hurry(Duration::from_secs(command), Duration::from_secs(block));
        Ok(Conversation { stream, life })
    }

    /// The kernel says something about the socket.
    pub fn mark(&mut self, ready: Readiness) {
        self.stream.mark(ready);
    }

    /// The same over any socket.
    pub(super) fn go(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        let mut service = Service { life: &mut self.life, shared, id, now };
        if service.life.idle.is_some() && self.stream.is_owed() {
            match service.seek() {
                Done::Later => {}
                done => self.stream.answer(done),
            }
        }
        let mut host = Service { life: &mut self.life, shared, id, now };
        self.stream.turn(now, scratch, &mut host)
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let life = &self.life;
        let connect = life.began + Duration::from_secs(life.settings.send_connect_secs);
        let due = match life.idle {
            Some(_) if life.owed && self.stream.is_owed() => None,
            Some(since) if self.stream.is_owed() => Some(since + Duration::from_secs(life.settings.send_idle_secs)),
            _ if self.stream.is_connecting() => Some(connect),
            _ => self.stream.deadline(),
        };
        let text = life.text_by.filter(|_| self.stream.machine().state() == State::Text);
        [due, life.until, text].into_iter().flatten().min()
    }

    /// The peer was silent too long, or too slow; or nobody has come for whom it was kept, which the next turn sees.
    pub fn expire(&mut self, now: Instant) {
        let drips = self.life.text_by.is_some_and(|by| by <= now) && self.stream.machine().state() == State::Text;
        if drips || self.life.until.is_some_and(|until| until <= now) {
            self.stream.abort();
        } else if self.stream.is_connecting() || !self.stream.is_owed() {
            self.stream.expire(now);
        }
    }

    /// The server stops: what was begun has some time to come to its end.
    pub fn end(&mut self, now: Instant) {
        self.life.until = Some(now + LAST_WORDS);
        if !self.life.stands {
            self.stream.abort();
        }
    }

    /// It is over, and removed: whoever has heard nothing does now.
    pub fn farewell(&mut self, now: Instant, shared: &mut Shared) {
        let fault = self.stream.fault().map(ToString::to_string);
        let lost = self.stream.machine().lost();
        if let Some(over) = lost.filter(|_| self.life.trouble.is_none()) {
            self.life.over(&over, fault.as_deref(), now, shared);
        }
        self.life.conclude(now, false, shared);
        let trouble = self.life.trouble.take();
        if let Some(trouble) = &trouble {
            log::info!("send {}: a connection has ended: {}", visible(&self.life.hop.key), visible(&trouble.why));
        }
        shared.outgoing.ended(now, self.life.line, trouble);
    }

    /// What a job of ours came to. False: nobody waits for it.
    pub fn deliver(&mut self, ticket: Ticket, outcome: Outcome) -> bool {
        if ticket.serial != self.life.serial {
            return false;
        }
        let Some(body) = self.stream.body() else { return false };
        match outcome {
            Outcome::Piece(piece) => body.supply(piece),
            _ => body.lose(),
        }
        self.stream.release();
        true
    }

    /// What it goes over.
    #[cfg(test)]
    pub(super) fn sock(&self) -> &S {
        self.stream.sock()
    }

    /// For operators: host, what it is about, whether within TLS, how long it has been there, messages.
    pub fn shown(&self, now: Instant) -> (&str, &'static str, bool, Duration, u32) {
        let state = if self.life.idle.is_some() && self.stream.is_owed() { "idle" } else { self.stream.activity() };
        let age = now.saturating_duration_since(self.life.began);
        (&self.life.host, state, self.stream.is_tls(), age, self.life.messages)
    }
}

impl Life {
    fn new(
        now: Instant,
        line: u32,
        target: &Target,
        hop: Arc<Hop>,
        clear: bool,
        shared: &mut Shared,
    ) -> Result<Life, String> {
        let wants = hop.from_first_octet || hop.tls != Level::Never && !clear;
        let secure = match wants.then(|| shared.outgoing.secure(&hop, &target.host)) {
            None => None,
            Some(Ok(secure)) => Some(secure),
            // To a socket, or a host without a name that a certificate could have.
            Some(Err(_)) if !hop.from_first_octet && hop.tls == Level::Offered => None,
            Some(Err(why)) => return Err(format!("4.7.5 {}: {why}", target.shown())),
        };
        let login = match &hop.login {
            None => None,
            Some(path) => {
                let known = shared.settings.logins.get(path);
                let known = known.ok_or_else(|| format!("4.7.8 {}: its login file was not read", target.shown()))?;
                let user = known.user.clone();
                Some(Box::new(Login { user, password: known.password.clone() }))
            }
        };
        Ok(Life {
            line,
            host: target.shown(),
            settings: shared.settings.clone(),
            began: now,
            secure,
            login,
            near: match &target.at {
                At::Tcp(address) => mx::is_own(address.ip()),
                At::Unix(_) => true,
            },
            shaking: hop.from_first_octet,
            hop,
            secured: false,
            stands: false,
            offers: Extensions::default(),
            idle: None,
            owed: false,
            leaves: false,
            until: None,
            text_by: None,
            under: None,
            trouble: None,
            serial: 0,
            looked: false,
            messages: 0,
        })
    }

    /// The machine for it, and what TLS from the first octet needs.
    fn machine(&self, now: Instant, clear: bool) -> (Client, Option<Secure>) {
        let settings = &self.settings;
        let secs = Duration::from_secs;
        let rules = Rules {
            name: settings.greets_as().into(),
            face: if self.hop.lmtp { Face::Lmtp } else { Face::Smtp },
            tls: match self.hop.tls {
                _ if self.hop.from_first_octet => Tls::Never,
                Level::Required | Level::Verified => Tls::Required,
                Level::Offered if self.secure.is_some() && !clear => Tls::Offered,
                Level::Offered | Level::Never => Tls::Never,
            },
            // Nobody listens there. `inside` says that a host may be this machine, not that it is.
            plain_ok: matches!(self.hop.to, To::Socket(_)) || self.hop.inside && self.near,
            patience: Patience {
                greeting: secs(settings.send_greeting_secs),
                command: secs(settings.send_command_secs),
                mail: secs(settings.send_mail_secs),
                rcpt: secs(settings.send_rcpt_secs),
                data: secs(settings.send_data_secs),
                block: secs(settings.send_block_secs),
                dot: secs(settings.send_dot_secs),
                quit: secs(settings.send_quit_secs),
                envelope: secs(settings.send_session_secs),
            },
        };
        let first = self.secure.clone().filter(|_| self.hop.from_first_octet);
        (Client::new(now, Arc::new(rules), first.is_some()), first)
    }

    /// The outcome of all recipients of the transaction who have none.
    fn all(&mut self, came: &Came) {
        let Some(under) = &mut self.under else { return };
        let open = under.fates[..under.count].iter_mut().enumerate();
        open.filter(|(at, fate)| fate.is_none() && !under.again.contains(at))
            .for_each(|(_, fate)| *fate = Some(came.clone()));
    }

    fn one(&mut self, at: u32, came: Came) {
        if let Some(fate) = self.under.as_mut().and_then(|under| under.fates.get_mut(at as usize)) {
            fate.get_or_insert(came);
        }
    }

    /// A refusal as an outcome.
    fn refused(&self, reply: &Reply) -> Came {
        let why = self.said(reply);
        if reply.is_permanent() { Came::Never(why) } else { Came::Later(why) }
    }

    /// A reply as a reason.
    fn said(&self, reply: &Reply) -> String {
        let Enhanced { subject, detail } = reply.enhanced().unwrap_or(Enhanced { subject: 0, detail: 0 });
        format!("{}.{subject}.{detail} {} said: {reply}", reply.code() / 100, self.host)
    }

    /// What was said to our login. Who does not understand a command likes to repeat it, and this goes into the log and to the
    /// message's sender.
    fn without_login(&self, reply: &Reply) -> String {
        let login = self.hop.login.as_ref().and_then(|path| self.settings.logins.get(path));
        let said = reply.to_string();
        match login.is_some_and(|login| login.is_repeated_in(&said)) {
            true => format!("{} (and repeats it)", reply.code()),
            false => said,
        }
    }

    fn taken(&self, reply: &Reply, now: Instant) -> Came {
        let took = self.under.as_ref().map_or(Duration::ZERO, |under| now.saturating_duration_since(under.begun));
        let said = format!("{}{}, {:.1} s: {reply}", self.host, self.within(), took.as_secs_f64());
        Came::Taken { said, dsn: self.offers.dsn, lmtp: self.hop.lmtp }
    }

    fn within(&self) -> &'static str {
        if self.secured { ", TLS" } else { "" }
    }

    /// What the machine tells.
    fn hear(&mut self, told: Told, now: Instant, shared: &mut Shared) {
        match told {
            Told::Login(reply) => {
                if !reply.is_good() {
                    let why = format!("4.7.8 {} does not take our login: {}", self.host, self.without_login(&reply));
                    log::error!("send {}: nothing is sent there: {why}", visible(&self.hop.key));
                    self.trouble = Some(Trouble { why, never: false });
                }
            }
            Told::Unfit(unfit) => self.unfit(unfit),
            Told::Sender(reply) if reply.is_good() => {}
            Told::Sender(reply) | Told::Refused(reply) => {
                if !reply.is_permanent() {
                    let line = self.line;
                    shared.outgoing.at(line, |place| place.strain(now));
                }
                let came = self.refused(&reply);
                self.all(&came);
            }
            Told::Recipient(at, reply) => {
                let enough = matches!(reply.code(), 452 | 552);
                match &mut self.under {
                    Some(under) if reply.is_good() => under.taken = true,
                    Some(under) if enough && under.taken => under.again.push(at as usize),
                    _ => {
                        let came = self.refused(&reply);
                        self.one(at, came);
                    }
                }
            }
            Told::Message(reply) => {
                let came = match reply.is_good() {
                    true => self.taken(&reply, now),
                    false => self.refused(&reply),
                };
                if reply.is_good() {
                    self.messages += 1;
                    shared.outgoing.counts.messages += 1;
                    let line = self.line;
                    shared.outgoing.at(line, |place| place.good(now));
                }
                self.all(&came);
            }
            Told::Delivered(at, reply) => {
                let came = match reply.is_good() {
                    true => self.taken(&reply, now),
                    false => self.refused(&reply),
                };
                if reply.is_good() {
                    let line = self.line;
                    shared.outgoing.at(line, |place| place.good(now));
                }
                self.one(at, came);
            }
            Told::Over(over) => self.over(&over, None, now, shared),
        }
    }

    fn unfit(&mut self, unfit: Unfit) {
        let host = &self.host;
        let came = match unfit {
            Unfit::EightBit => Came::Never(format!("5.6.3 {host} takes no 8-bit text")),
            Unfit::Utf8 => Came::Never(format!("5.6.7 {host} takes no addresses or headers beyond ASCII")),
            Unfit::TooBig(most) => Came::Never(format!("5.3.4 {host} takes messages of at most {most} octets")),
            Unfit::BadSender => Came::Never("5.1.7 the sender's address cannot be said to another host".to_owned()),
            Unfit::BadRecipient(at) => {
                let why = "5.1.3 the address cannot be said to another host".to_owned();
                // The others have another transaction.
                return self.one(at, Came::Never(why));
            }
            // Both are asked for in time; what is left has another transaction, or connection.
            Unfit::Full(_) => return,
            Unfit::Spent => {
                if let Some(under) = &mut self.under {
                    under.spent = true;
                }
                return;
            }
            Unfit::NoChunks | Unfit::Nobody => Came::Later("4.3.0 the message could not be begun".to_owned()),
            Unfit::NoLogin | Unfit::LoginInClear | Unfit::BadLogin => {
                let why = match unfit {
                    Unfit::NoLogin => format!("4.7.4 {host} offers no login that we know"),
                    Unfit::LoginInClear => format!("4.7.11 {host} offers no TLS, and a password is not said in clear"),
                    _ => "4.7.8 the login cannot be said: it holds a NUL, or is too long".to_owned(),
                };
                log::error!("send {}: nothing is sent there: {why}", visible(&self.hop.key));
                self.trouble = Some(Trouble { why, never: false });
                return;
            }
        };
        self.all(&came);
    }

    /// The conversation is over, and not by our wish.
    fn over(&mut self, over: &Over, fault: Option<&str>, now: Instant, shared: &mut Shared) {
        if self.stands && self.under.is_none() {
            // It was kept for a next message, and the host did not keep it as long.
            return;
        }
        let (host, line, handshake) = (&self.host, self.line, self.shaking);
        let (why, strains) = match &over.why {
            Why::Refused(reply) if reply.code() == TAKES_NO_MAIL => (format!("5.3.2 {host} said: {reply}"), false),
            Why::Refused(reply) => (format!("4.3.2 {host} said: {reply}"), !reply.is_permanent()),
            Why::Closing(reply) => (format!("4.3.2 {host} said: {reply}"), true),
            Why::Nonsense(nonsense) => (format!("4.5.0 {host}: {nonsense}"), false),
            Why::NoTls => (format!("4.7.11 {host} offers no TLS, which is required here"), false),
            Why::NoText => ("4.3.0 the message's text cannot be read".to_owned(), false),
            Why::Ended(End::Silence) => (format!("4.4.2 {host} does not answer ({})", awaited(over.state)), false),
            Why::Ended(_) => (format!("4.3.2 {host}: the connection was ended here ({})", awaited(over.state)), false),
            Why::Lost if handshake => {
                (format!("4.7.5 {host}: TLS failed: {}", fault.unwrap_or("the host hung up")), false)
            }
            Why::Lost if !self.looked => (format!("4.4.1 {host}: {}", fault.unwrap_or("no connection")), false),
            Why::Lost => {
                let fault = fault.unwrap_or("the host hung up");
                (format!("4.4.2 {host}: {fault} ({})", awaited(over.state)), false)
            }
        };
        if strains {
            shared.outgoing.at(line, |place| place.strain(now));
        }
        if handshake
            && matches!(over.why, Why::Lost)
            && self.hop.tls == Level::Offered
            && !self.hop.from_first_octet
            && shared.outgoing.at(line, |place| place.speak_clear(now, line)) == Some(true)
        {
            log::info!("send {}: {why}; it is spoken to in clear", visible(&self.hop.key));
            return;
        }
        let never = matches!(&over.why, Why::Refused(reply) if reply.code() == TAKES_NO_MAIL);
        if over.possibly
            && let Some(under) = &mut self.under
        {
            for at in &over.unsettled {
                if let Some(fate) = under.fates.get_mut(*at as usize) {
                    let why = format!("{why}; it may have the message all the same");
                    fate.get_or_insert(Came::Possibly(why));
                }
            }
        }
        self.trouble = Some(Trouble { why, never });
    }

    /// A transaction is over: outcomes are told, and who has none has another. `goes_on`: the conversation does.
    fn conclude(&mut self, now: Instant, goes_on: bool, shared: &mut Shared) {
        let Some(under) = self.under.take() else { return };
        let Under { mut consignment, fates, spent, .. } = under;
        let (mut told, mut left) = (Vec::new(), Vec::new());
        for (whom, fate) in consignment.recipients.drain(..).zip(fates) {
            match fate {
                Some(came) => told.push((whom.part, came)),
                None => left.push(whom),
            }
        }
        for (_, came) in &told {
            match came {
                Came::Taken { .. } => shared.outgoing.counts.taken += 1,
                Came::Possibly(_) => shared.outgoing.counts.possibly += 1,
                _ => {}
            }
        }
        shared.outgoing.tally(&consignment.hop.key, &told);
        let (line, owed) = (self.line, !told.is_empty() && !shared.outgoing.is_orphan(self.line));
        if owed || goes_on {
            shared.outgoing.at(line, |place| place.settled(line, owed));
        }
        if owed && goes_on {
            shared.outgoing.at(line, |place| place.answers());
        }
        if owed {
            shared.sent(consignment.ticket, told, Some(line));
        }
        if left.is_empty() {
            return;
        }
        consignment.recipients = left;
        // A connection that was kept may have ended meanwhile, whatever it is that it should have carried.
        let stale = !goes_on && self.messages > 0;
        let none = || Trouble { why: format!("4.3.0 {}: nothing came of it", self.host), never: false };
        let trouble = self.trouble.clone().or_else(|| (!goes_on || !spent && !owed).then(none));
        if let Some(trouble) = &trouble {
            let id = &consignment.message.id;
            log::info!("delivery {id}: {}: {} recipients go on", visible(&trouble.why), consignment.recipients.len());
        }
        shared.put_back(now, line, consignment, trouble.filter(|_| !owed && !stale).as_ref());
    }
}

/// What was awaited, for people.
fn awaited(state: State) -> &'static str {
    match state {
        State::Greeting => "its greeting was awaited",
        State::Hello => "the answer to EHLO was awaited",
        State::Tls => "STARTTLS",
        State::Ready | State::Quitting | State::Over => "nothing was under way",
        State::Sasl => "the answer to AUTH was awaited",
        State::Envelope => "the answer to the envelope was awaited",
        State::Text => "in the midst of the text",
        State::Dotted | State::Vain => "the answer to the message was awaited",
    }
}

/// A life for the time of one turn.
struct Service<'a> {
    life: &'a mut Life,
    shared: &'a mut Shared,
    id: Id,
    now: Instant,
}

impl Service<'_> {
    /// The host wants to hear what is next.
    fn next(&mut self, offers: Extensions) -> Done<Answer, Letter> {
        let (life, now) = (&mut *self.life, self.now);
        life.offers = offers;
        let spent = life.under.as_ref().is_some_and(|under| under.spent);
        life.conclude(now, true, self.shared);
        life.secured |= std::mem::take(&mut life.shaking);
        life.leaves |= life.trouble.is_some() || spent;
        if !life.leaves
            && let Some(login) = life.login.take()
        {
            return Done::Now(Answer::Login(login));
        }
        if !life.stands && !life.leaves {
            life.stands = true;
            let line = life.line;
            self.shared.outgoing.at(line, |place| place.stands(line));
        }
        life.idle = Some(now);
        self.seek()
    }

    /// Looks for somebody to send something for.
    fn seek(&mut self) -> Done<Answer, Letter> {
        let (life, now) = (&mut *self.life, self.now);
        let secs = Duration::from_secs;
        let old = life.began + secs(life.settings.send_session_secs) <= now;
        let kept = life.idle.is_none_or(|since| now < since + secs(life.settings.send_idle_secs));
        let was_owed = std::mem::take(&mut life.owed);
        if was_owed {
            life.idle = Some(now);
        }
        match self.shared.outgoing.next(life.line, !old && !self.shared.stopping && !life.leaves) {
            Next::Hold => {
                life.owed = true;
                Done::Later
            }
            Next::Take(consignment) => {
                life.idle = None;
                let envelope = life.begin(*consignment, now);
                Done::Now(Answer::Envelope(Box::new(envelope)))
            }
            Next::Wait if kept || was_owed => Done::Later,
            Next::Wait | Next::Leave => {
                let line = life.line;
                self.shared.outgoing.at(line, |place| place.leaves(line));
                Done::Now(Answer::Quit)
            }
        }
    }
}

impl Life {
    /// What a consignment is to this host.
    fn begin(&mut self, consignment: Consignment, now: Instant) -> Envelope {
        let most = match self.offers.rcpt_max {
            0 => RECIPIENTS,
            most => RECIPIENTS.min(most as usize),
        };
        let count = consignment.recipients.len().min(most);
        let recipient =
            |whom: &Whom| Recipient { path: whom.address.clone(), notify: whom.notify, orcpt: whom.orcpt.clone() };
        let (message, envelope) = (&consignment.message, &consignment.envelope);
        let sender = Sender {
            path: consignment.sender.clone(),
            size: Some(text::octets(message)),
            eight_bit: text::is_eight_bit(message, envelope.eight_bit),
            utf8: envelope.utf8,
            auth: None,
            ret: envelope.ret,
            envid: envelope.envid.as_deref().map(Into::into),
        };
        let recipients = consignment.recipients[..count].iter().map(recipient).collect();
        let fates = consignment.recipients.iter().map(|_| None).collect();
        let under = Under { consignment, count, fates, begun: now, taken: false, again: Vec::new(), spent: false };
        self.under = Some(under);
        Envelope { sender, recipients, form: Form::Lines }
    }
}

impl Host<Client> for Service<'_> {
    type Body = Letter;

    fn perform(&mut self, now: Instant, ask: Ask) -> Done<Answer, Letter> {
        match ask {
            Ask::StartTls => match self.life.secure.take() {
                Some(secure) => {
                    self.life.shaking = true;
                    Done::StartTls(secure, Answer::Go)
                }
                None => Done::Now(Answer::Failed),
            },
            Ask::Next(offers) => self.next(offers),
            Ask::Told(told) => {
                self.life.hear(told, now, self.shared);
                Done::Now(Answer::Go)
            }
            Ask::Text => match &self.life.under {
                Some(under) => {
                    let letter = Letter::new(under.consignment.message.clone());
                    let secs = self.life.settings.send_session_secs + under.consignment.message.octets() / TEXT_RATE;
                    self.life.text_by = Some(now + Duration::from_secs(secs));
                    Done::Send(Answer::Text, Box::new(letter), Answer::Sent)
                }
                None => Done::Now(Answer::Failed),
            },
        }
    }

    fn over(&mut self, body: &Letter, whole: bool) {
        if let Some(error) = body.fault().filter(|_| !whole) {
            let message = self.life.under.as_ref().map_or("", |under| &under.consignment.message.id);
            log::error!("delivery {message}: its text cannot be read: {error}");
            self.life.trouble =
                Some(Trouble { why: "4.3.0 the message's text cannot be read".to_owned(), never: false });
        }
    }

    fn fetch(&mut self, _now: Instant, body: &mut Letter) {
        self.life.serial = self.life.serial.wrapping_add(1);
        let ticket = Ticket { id: self.id, serial: self.life.serial };
        let fetch = body.fetch();
        let volume = self.shared.transit.volume();
        let work = move |_: &_| Outcome::Piece(fetch());
        if self.shared.jobs.submit(Some(ticket), Kind::Read, volume, work).is_err() {
            self.shared.post.push_back((ticket, Outcome::Lost));
        }
    }
}
