//! Orders that come in over the control socket: understood, judged by who gives them, and carried out.
//!
//! | an order that                        | is carried out by                                                  |
//! |--------------------------------------|--------------------------------------------------------------------|
//! | looks at, or changes, the whole server | `server`, between turns, when nothing is borrowed                |
//! | is about one user's mail             | an [`Errand`] of the conversation: an authenticator, then a job    |
//! | is about messages that wait          | a job, or delivery for a single one: see `waiting.rs`              |
//! | looks at files                       | a job, whose [`Outcome::Told`] is the report                       |
//!
//! One conversation is one order, so orders of different people do not wait for each other. What comes for somebody who
//! has gone is dropped.

use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::errand::Errand;
use super::waiting;
use super::why::{self, Explanation, Message, Next};
use super::{Outcome, Shared};
use crate::control::queue::Ask as QueueAsk;
use crate::control::{self, Caller, Order, Rights, Teller, Told};
use crate::net::stream::{Done, Host, Never, Readiness, Scratch, Stream, Turn};
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, Token, UnixStream, watch};
use crate::protocol::End;
use crate::protocol::control::{Answer, Ask, Control};
use crate::sys::{group, process};
use crate::text::printable::visible;

/// Control connections at a time. They have their own bound, so that they work when everything else is full.
pub const MOST: usize = 16;

/// Somebody who gives orders.
pub struct Conversation {
    stream: Stream<UnixStream, Control, Never>,
    session: Session,
}

/// What the service knows of him.
struct Session {
    uid: u32,
    caller: Caller,
    /// Which ask is owed an answer, counted.
    serial: u32,
    /// The report is wanted as JSON.
    json: bool,
    errand: Option<Box<Errand>>,
    /// A message that is being explained.
    explanation: Option<Box<Explanation>>,
    /// When the errand is tried again, and for which order.
    parked: Option<(Instant, Ticket)>,
}

impl Conversation {
    /// Somebody who has just come in.
    pub fn new(now: Instant, sock: UnixStream, shared: &Shared) -> io::Result<Conversation> {
        let peer = group::peer(&sock)?;
        let caller = Caller::of(peer.uid, &peer.groups, process::own_uid(), shared.control_gid);
        Ok(Conversation {
            stream: Stream::open(now, sock, Control::new(now), None)?,
            session: Session {
                uid: peer.uid,
                caller,
                serial: 0,
                json: false,
                errand: None,
                explanation: None,
                parked: None,
            },
        })
    }

    /// Registers the socket.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        watch(registry, self.stream.sock_mut(), token)
    }

    /// Takes it away again. An error means that it is gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.stream.sock_mut());
    }

    /// The kernel says something about the socket.
    pub fn mark(&mut self, ready: Readiness) {
        self.stream.mark(ready);
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        // A server that stops lets nobody wait.
        if let Some((_, ticket)) = self.session.parked.take_if(|(at, _)| *at <= now || shared.stopping) {
            self.deliver(now, ticket, Outcome::TryAgain, shared);
        }
        let mut host = Service { session: &mut self.session, shared, id };
        self.stream.turn(now, scratch, &mut host)
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.session.parked.map(|(at, _)| at).or_else(|| self.stream.deadline())
    }

    /// Silence; or it is time to try again, which the next turn does.
    pub fn expire(&mut self, now: Instant) {
        if self.session.parked.is_none() {
            self.stream.expire(now);
        }
    }

    /// Ends it, for a reason of ours; an order that was given is still reported on.
    pub fn end(&mut self, why: End) {
        self.stream.end(why);
    }

    /// What came of an order.
    pub fn report(&mut self, ticket: Ticket, told: &Told) {
        if ticket.serial == self.session.serial {
            self.stream.answer(Done::Now(self.session.answer(told)));
        }
    }

    /// Begins what this conversation sees through itself. The ticket is the order's.
    pub fn begin(&mut self, now: Instant, ticket: Ticket, errand: Errand, shared: &mut Shared) {
        match errand.ask(now, ticket, shared) {
            Ok(()) => self.session.errand = Some(Box::new(errand)),
            Err(why) => self.report(ticket, &Err(vec![why])),
        }
    }

    /// Begins an order about messages that wait. The ticket is the order's.
    pub fn begin_queue(&mut self, now: Instant, ticket: Ticket, ask: QueueAsk, shared: &mut Shared) {
        let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now_secs = i64::try_from(now_secs).unwrap_or(i64::MAX);
        if let Err(why) = waiting::begin(ask, now, now_secs, ticket, shared) {
            self.report(ticket, &Err(vec![why]));
        }
    }

    /// Begins to explain what would become of a message. The ticket is the order's.
    pub fn begin_why(&mut self, now: Instant, ticket: Ticket, message: &Message, shared: &mut Shared) {
        let next = why::begin(now, message, ticket, shared);
        self.explained(next, ticket);
    }

    fn explained(&mut self, next: Next, ticket: Ticket) {
        match next {
            Next::Asked(explanation) => self.session.explanation = Some(explanation),
            Next::Told(report) => self.report(ticket, &Ok(report)),
        }
    }

    /// What somebody did for this conversation. False: it came too late, and nobody waits for it.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        if ticket.serial != self.session.serial || !self.stream.is_owed() {
            return false;
        }
        if let Some(explanation) = self.session.explanation.take() {
            self.explained(explanation.told(now, outcome, ticket, shared), ticket);
            return true;
        }
        let told = match (outcome, self.session.errand.take()) {
            (Outcome::Told(told), _) => told,
            (Outcome::Verdict(verdict), Some(errand)) => match errand.go_on(now, verdict, ticket, shared) {
                Ok(waits) => {
                    self.session.errand = waits;
                    return true;
                }
                Err(why) => Err(vec![why]),
            },
            (Outcome::InUse(errand, why), _) => match errand.again(now, shared) {
                Some(at) => {
                    self.session.errand = Some(errand);
                    self.session.parked = Some((at, ticket));
                    return true;
                }
                None => Err(vec![why]),
            },
            (Outcome::TryAgain, Some(errand)) => match errand.work(now, ticket, shared) {
                Ok(()) => return true,
                Err(why) => Err(vec![why]),
            },
            _ => Err(vec!["a fault of ours ended this order".to_owned()]),
        };
        self.report(ticket, &told);
        true
    }
}

impl Session {
    fn answer(&self, told: &Told) -> Answer {
        let (done, text) = control::render(told, self.json);
        Answer { done, text }
    }
}

struct Service<'a> {
    session: &'a mut Session,
    shared: &'a mut Shared,
    id: Id,
}

impl Host<Control> for Service<'_> {
    type Body = Never;

    fn perform(&mut self, _now: Instant, Ask(words): Ask) -> Done<Answer, Never> {
        let refused = |session: &Session, why: String| Done::Now(session.answer(&Err(vec![why])));
        let session = &mut *self.session;
        session.json = words.iter().any(|word| word == "--json");
        // Who may give no orders learns nothing of them.
        if session.caller == Caller::Stranger {
            log::warn!("control {}: uid {} may not give orders", self.id, session.uid);
            return refused(session, control::STRANGER.to_owned());
        }
        let (teller, words) = Teller::of(&words);
        let parsed = match control::parse(teller, words) {
            Ok(parsed) => parsed,
            Err(why) => return refused(session, visible(&why)),
        };
        let said = match &parsed.order {
            // It may be a password.
            Order::ByTool(_) => parsed.verb.name.to_owned(),
            _ => visible(&words.join(" ")),
        };
        if !session.caller.may(parsed.rights) {
            log::warn!("control {}: uid {} may not: {said}", self.id, session.uid);
            return refused(session, session.caller.refusal(parsed.verb));
        }
        let level = if parsed.rights == Rights::Read { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "control {}: uid {}: {said}", self.id, session.uid);
        session.serial += 1;
        self.shared.orders.push_back((Ticket { id: self.id, serial: session.serial }, parsed.order));
        Done::Later
    }

    fn fetch(&mut self, _now: Instant, body: &mut Never) {
        match *body {}
    }
}
