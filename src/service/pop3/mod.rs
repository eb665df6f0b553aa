//! One POP3 client's session: the host of a [`Pop3`] conversation.
//!
//! | asked        | answered                                                                                   |
//! |--------------|--------------------------------------------------------------------------------------------|
//! | Login        | from the cache at once, else by an authenticator; both perhaps after a wait                |
//! | Apop         | by an authenticator that can, perhaps after a wait                                         |
//! | Verifier     | the same, with a fresh nonce                                                               |
//! | Proof        | at once                                                                                    |
//! | Open         | by a job; while our own compaction or another program has the drop, tried again for a while |
//! | Stat, Delete | at once                                                                                    |
//! | Row, Rows    | at once when the index's page is in memory, else by a job                                  |
//! | Retrieve     | a body, pulled slice by slice from what is in memory; a job fetches what is not            |
//! | Commit       | by a job: what expires is marked, the ledger is synced. At once when there is nothing to write |
//!
//! After either, dead bytes leave the drop by a job that keeps the session's lock: also those that an earlier one had to
//! leave.
//!
//! `entering.rs` is the way in, `proving.rs` the same without a password, `mailbox.rs` what follows. A login or an open that
//! has to be tried later is *parked*: its time is the conversation's deadline, so it takes no thread and no table, and goes
//! with the conversation.
//!
//! The maildrop is closed, and its lock given back, with the session; a session that ends without a commit deletes nothing.

mod entering;
mod expiry;
mod mailbox;
mod proving;
pub mod shown;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entering::Entering;
use super::noise::Event;
use super::{Channel, Outcome, Shared};
use crate::net::jobs::{Busy, Kind};
use crate::net::stream::{Body, Done, Host, Pull, Readiness, Scratch, Stream, Turn};
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, TcpStream, Token, watch};
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Ask, Link, Pop3};
use crate::protocol::{End, Machine};
use crate::rules::domains::Home;
use crate::settings::Settings;
use crate::store::maildrop::{Maildrop, MessageReader, Miss, Pulled};
use crate::sys::socket::unanswered_probes;
use crate::text::bytes::Output;
use crate::text::fault::Fault;
use crate::text::printable::printable;
use expiry::Fetched;
use shown::Shown;

/// A POP3 client's connection.
pub struct Conversation {
    stream: Stream<TcpStream, Pop3, Message>,
    session: Session,
}

/// Somebody who is logged in, for operators.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'s> {
    /// His name, as everything compares it.
    pub user: &'s str,
    /// Where he is.
    pub address: IpAddr,
    /// How long he has been connected.
    pub age: Duration,
    /// Within TLS.
    pub tls: bool,
    /// Messages that he has and has not marked; nothing while his maildrop is being opened, or closed for good.
    pub messages: Option<u32>,
    /// How long he has been silent.
    pub idle: Duration,
}

/// What the service knows of one client.
struct Session {
    settings: Arc<Settings>,
    peer: SocketAddr,
    /// The domain of users who name none.
    here: Home,
    began: Instant,
    /// Which ask is owed an answer, counted.
    serial: u32,
    /// The name of the client's host, where names are looked up and it has one.
    host: Option<Box<str>>,
    /// The user this counts for while sessions of a user are limited; 0 = none.
    seat: u64,
    /// What is only needed while somebody logs in.
    entering: Option<Box<Entering>>,
    user: Option<Box<str>>,
    maildrop: Option<Box<Maildrop>>,
    /// Bulletins behind its messages.
    shown: Option<Box<Shown>>,
    /// The volume that jobs on it wait for.
    volume: u64,
    wanted: Wanted,
    /// What was sent whole, where that means that it goes.
    fetched: Option<Box<Fetched>>,
    retrieved: u32,
    deleted: u32,
    octets: u64,
    secured: bool,
}

/// What a job was asked to read.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Rows,
    Row(u32),
    Delete(u32),
    Message(u32, Option<u64>),
}

/// A message on its way to the client.
pub struct Message {
    reader: MessageReader,
    whole: bool,
    /// Octets handed on, with their dots.
    sent: u64,
    fault: Option<Miss>,
}

impl Message {
    /// What the client got of it: of the whole message as LIST counts it.
    fn octets(&self, handed_over: bool) -> u64 {
        let octets = self.reader.octets();
        if handed_over && self.whole { octets } else { self.sent.min(octets) }
    }
}

impl Body for Message {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        if self.fault.is_some() {
            return Pull::Broken;
        }
        let before = out.len();
        let pulled = self.reader.pull(scratch, out);
        self.sent += (out.len() - before) as u64;
        match pulled {
            Ok(Pulled::More) => Pull::More,
            Ok(Pulled::Last) => Pull::Last,
            Err(Miss::Cold) => Pull::Cold,
            Err(miss) => {
                self.fault = Some(miss);
                Pull::Broken
            }
        }
    }
}

impl Conversation {
    /// A client that has just come in.
    pub fn new(now: Instant, sock: TcpStream, peer: SocketAddr, tls: bool, shared: &Shared) -> io::Result<Self> {
        let plain_ok = shared.plain_ok(peer);
        let abilities = shared.helpers.last().map(|helpers| helpers.pool.abilities()).unwrap_or_default();
        let link = Link { tls, can_tls: shared.tls.is_some(), plain_ok, scram: abilities.scram };
        let mut machine = Pop3::new(now, shared.pop3.clone(), link);
        if shared.settings.apop_enable
            && abilities.apop
            && (tls || plain_ok)
            && let Some(stamp) = proving::stamp(shared.settings.main_domain())
        {
            machine = machine.with_stamp(stamp);
        }
        let at_once = match (tls, &shared.tls) {
            (true, None) => return Err(io::Error::other("a reload has just taken TLS away")),
            (true, Some(tls)) => Some(tls.clone().into()),
            (false, _) => None,
        };
        // The address costs a system call: it is asked for only where it tells domains apart.
        let here = match shared.settings.domains.look_at_addresses() {
            true => shared.settings.domains.home_at(sock.local_addr()?.ip()),
            false => Home::default(),
        };
        Ok(Conversation {
            stream: Stream::open(now, sock, machine, at_once)?,
            session: Session {
                settings: shared.settings.clone(),
                peer,
                here,
                began: now,
                serial: 0,
                host: None,
                seat: 0,
                entering: None,
                user: None,
                maildrop: None,
                shown: None,
                volume: 0,
                wanted: Wanted::Rows,
                fetched: None,
                retrieved: 0,
                deleted: 0,
                octets: 0,
                secured: tls,
            },
        })
    }

    /// Registers the socket, once, for both directions.
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
        if self.parked().is_some_and(|at| at <= now || shared.stopping) {
            let mut service = Service { session: &mut self.session, shared, id, now };
            match service.delivered(now, Outcome::TryAgain) {
                Done::Later => {}
                done => self.stream.answer(done),
            }
        }
        let mut host = Service { session: &mut self.session, shared, id, now };
        self.stream.turn(now, scratch, &mut host)
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.parked().or_else(|| self.stream.deadline())?;
        Some(self.login_deadline().map_or(due, |login| due.min(login)))
    }

    /// When the time to log in is over, while that is what is waited for. It is not lengthened by being slow: who does not
    /// take what he is owed has the longer patience of the floor once he is logged in.
    fn login_deadline(&self) -> Option<Instant> {
        let waiting = !self.stream.is_owed() && !self.stream.is_ending() && self.session.user().is_none();
        waiting.then(|| self.stream.machine().deadline())
    }

    /// When what is owed is tried again.
    fn parked(&self) -> Option<Instant> {
        let entering = self.session.entering.as_deref().filter(|_| self.stream.is_owed());
        entering.and_then(|entering| entering.parked)
    }

    /// The peer was silent too long, or too slow; or it is time to try again, which the next turn does.
    pub fn expire(&mut self, now: Instant) {
        if self.login_deadline().is_some_and(|login| login <= now) && self.stream.is_behind() {
            self.stream.abort();
        } else if !self.stream.is_owed() {
            self.stream.expire(now);
        }
    }

    /// Ends it, for a reason of ours.
    pub fn end(&mut self, why: End) {
        self.stream.end(why);
    }

    /// Ends it without a word, because something ran short.
    pub fn abort(&mut self) {
        self.stream.abort();
    }

    /// When it began, if it holds half a TLS record and nobody is logged in on it: the first of these is the cheapest to
    /// lose.
    pub fn partial_since(&self) -> Option<Instant> {
        let losable = self.stream.partial_bytes() > 0 && self.session.user().is_none();
        losable.then_some(self.session.began)
    }

    /// How cheap it is to lose when all connections are taken, cheapest first, and since when it has been there; none when
    /// somebody is logged in. Who waits for an authenticator of ours goes last; who has said goodbye, and does not read the
    /// answer, goes like any other.
    pub fn losable(&self) -> Option<(bool, Instant)> {
        let asked = self.stream.is_owed() && self.parked().is_none();
        self.session.user().is_none().then_some((asked, self.session.began))
    }

    /// It is over: what it counted for is given back.
    pub fn give_back(&mut self, shared: &mut Shared) {
        shared.guard.leave(&self.session.settings, self.session.peer.ip());
        self.session.stand_up(shared);
    }

    /// Whether this session has the maildrop of that drop.
    pub fn holds(&self, drop: &Path) -> bool {
        self.session.maildrop.as_ref().is_some_and(|maildrop| maildrop.path() == drop)
    }

    /// Whether its peer leaves keep-alive probes unanswered: it will be given up soon, or has been.
    pub fn is_fading(&mut self) -> bool {
        unanswered_probes(self.stream.sock_mut()).is_ok_and(|probes| probes > 0)
    }

    /// What somebody did for this conversation. False: it came too late, and nobody waits for it.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        if ticket.serial != self.session.serial {
            return false;
        }
        if let Some(body) = self.stream.body() {
            match outcome {
                Outcome::Fetched(Ok(fetched)) => body.reader.supply(fetched),
                Outcome::Fetched(Err(miss)) => body.fault = Some(miss),
                // Nobody fetched it: the next pull finds that out, and the conversation ends without the final dot.
                _ => body.fault = Some(Miss::Cold),
            }
            self.stream.release();
            return true;
        }
        if !self.stream.is_owed() {
            return false;
        }
        let mut service = Service { session: &mut self.session, shared, id: ticket.id, now };
        match service.delivered(now, outcome) {
            Done::Later => {}
            done => self.stream.answer(done),
        }
        true
    }

    /// Who is logged in on it, or just being let in.
    pub fn visitor(&self, now: Instant) -> Option<Visitor<'_>> {
        let Session { peer, began, maildrop, .. } = &self.session;
        Some(Visitor {
            user: self.session.user()?,
            address: peer.ip().to_canonical(),
            age: now.saturating_duration_since(*began),
            tls: self.stream.is_tls(),
            messages: maildrop.as_deref().map(|maildrop| maildrop.live_totals().messages),
            idle: self.stream.machine().silence(now).unwrap_or_default(),
        })
    }

    /// What there is to say of it as a connection.
    pub fn channel(&self, now: Instant) -> Channel {
        let Session { peer, began, retrieved, octets, user, .. } = &self.session;
        Channel {
            service: "pop3",
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
            user: user.as_deref().map(|user| printable(user.as_bytes())),
            state: self.stream.activity(),
            tls: self.stream.is_tls(),
            age: now.saturating_duration_since(*began),
            messages: *retrieved,
            octets: *octets,
        }
    }

    /// Whether this user is logged in on it, or just being let in.
    pub fn is_visited_by(&self, user: &str) -> bool {
        self.session.user() == Some(user)
    }

    /// Whether this user is logged in on it, or somebody tries to be him: that may be anybody.
    pub fn is_of(&self, user: &str) -> bool {
        let entering = self.session.entering.as_deref().map(Entering::user);
        self.session.user.as_deref().or(entering) == Some(user)
    }

    /// Whether it is about to be over.
    pub fn is_ending(&self) -> bool {
        self.stream.is_ending()
    }

    /// Bytes of memory that it holds, but for what rustls keeps for TLS.
    pub fn held(&self) -> usize {
        let Session { user, maildrop, entering, shown, .. } = &self.session;
        size_of::<Self>()
            + shown.as_ref().map_or(0, |_| size_of::<Shown>())
            + self.stream.buffered()
            + user.as_ref().map_or(0, |user| user.len())
            + entering.as_deref().map_or(0, |entering| size_of::<Entering>() + entering.user().len())
            + maildrop.as_ref().map_or(0, |maildrop| maildrop.held())
    }

    /// Whether it is within TLS.
    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// It is over: the line for the log, and, if somebody had logged in, the statistics.
    pub fn farewell(mut self, id: Id, now: Instant, shared: &mut Shared) -> Option<Left> {
        // It ended in the midst of a message.
        self.session.octets += self.stream.body().map_or(0, |body| body.octets(false));
        let Session { user, peer, host, began, retrieved, octets, deleted, secured, .. } = self.session;
        let who = user.as_deref().map_or("-".into(), |user| printable(user.as_bytes()));
        let secs = now.saturating_duration_since(began).as_secs();
        let how = if secured { "tls" } else { "plain" };
        let from = peer.ip().to_canonical();
        let named = host.as_deref().map_or_else(String::new, |host| format!(" ({host})"));
        if user.is_some() || shared.has_line(now, Event::Stranger, Some(from)) {
            log::info!(
                "pop3 {id} {who} {from}{named} {how}: {retrieved} messages ({octets} octets) retrieved, {deleted} deleted, {secs} s"
            );
        }
        let left = |user: Box<str>| Left {
            user: user.into(),
            from: host.map_or_else(|| from.to_string(), String::from),
            secs,
            bytes: octets,
            messages: retrieved,
        };
        user.map(left)
    }
}

/// What a session of somebody who had logged in comes to.
pub struct Left {
    /// Who it was.
    pub user: String,
    /// The client's host by name, where that is known; else its address.
    pub from: String,
    /// How long it took.
    pub secs: u64,
    /// Octets of messages that were sent, also of parts of messages.
    pub bytes: u64,
    /// Messages that were sent whole.
    pub messages: u32,
}

impl Session {
    /// Who is logged in, or just being let in: who only says that he is somebody is nobody yet.
    fn user(&self) -> Option<&str> {
        let entering = self.entering.as_deref().filter(|entering| entering.is_welcome());
        self.user.as_deref().or(entering.map(Entering::user))
    }

    /// The session of a user ends, or never began.
    fn stand_up(&mut self, shared: &mut Shared) {
        let seat = std::mem::take(&mut self.seat);
        if seat != 0 {
            shared.guard.users.leave(&seat);
        }
    }
}

type Said = Done<Answer, Message>;

fn refused(refusal: Refusal) -> Said {
    Done::Now(Answer::Refused(refusal))
}

/// The service for one client: its session, and what all share.
struct Service<'a> {
    session: &'a mut Session,
    shared: &'a mut Shared,
    id: Id,
    now: Instant,
}

impl Host<Pop3> for Service<'_> {
    type Body = Message;

    fn perform(&mut self, now: Instant, ask: Ask) -> Said {
        match ask {
            Ask::StartTls => match self.shared.tls.clone() {
                Some(tls) => {
                    self.session.secured = true;
                    Done::StartTls(tls.into(), Answer::TlsStarted)
                }
                None => refused(Refusal::NoTls),
            },
            Ask::Login(login) => self.login(now, *login),
            Ask::Apop(apop) => self.apop(now, *apop),
            Ask::Verifier(user) => self.verifier(now, &user),
            Ask::Proof(good) => self.proof(now, good),
            Ask::Open => self.begin_to_open(now),
            Ask::Stat => Done::Now(Answer::Totals(self.totals())),
            Ask::Rows(from) => self.rows(from, Wanted::Rows),
            Ask::Row(number) => self.rows(number, Wanted::Row(number)),
            Ask::Delete(number) => self.delete(number),
            Ask::Undelete => {
                self.maildrop().undelete_all();
                if let Some(shown) = &mut self.session.shown {
                    shown.undelete_all();
                }
                Done::Now(Answer::Totals(self.totals()))
            }
            Ask::Retrieve(number, lines) => self.retrieve(number, lines),
            Ask::Commit => self.commit(),
        }
    }

    fn over(&mut self, body: &Message, whole: bool) {
        if let Some(miss) = &body.fault {
            let _ = self.missed(miss);
        }
        self.session.octets += body.octets(whole);
        if whole && body.whole {
            self.session.retrieved += 1;
            if let (Wanted::Message(number, _), true) = (self.session.wanted, body.reader.is_news()) {
                self.maildrop().read(number);
            }
            // RFC 2449 §6.7: only where mail may not be left here.
            if let (Some(0), Wanted::Message(number, _)) = (self.session.settings.expire_days, self.session.wanted) {
                self.session.fetched.get_or_insert_default().add(number);
            }
            self.shared.counts.retrieved += 1;
            self.shared.counts.octets += body.reader.octets();
        }
    }

    fn fetch(&mut self, _now: Instant, body: &mut Message) {
        let fetch = body.reader.fetch();
        let volume = self.session.volume;
        let ticket = self.ticket();
        let taken = self.shared.jobs.submit(Some(ticket), Kind::Read, volume, move |_| Outcome::Fetched(fetch.run()));
        if let Err(busy) = taken {
            self.busy(&busy);
            self.shared.post.push_back((ticket, Outcome::Lost));
        }
    }
}

impl Service<'_> {
    /// A new ask that will be answered later.
    fn ticket(&mut self) -> Ticket {
        self.session.serial = self.session.serial.wrapping_add(1);
        Ticket { id: self.id, serial: self.session.serial }
    }

    fn job(&mut self, kind: Kind, volume: u64, work: impl FnOnce() -> Outcome + Send + 'static) -> Said {
        let ticket = self.ticket();
        match self.shared.jobs.submit(Some(ticket), kind, volume, move |_| work()) {
            Ok(()) => Done::Later,
            Err(busy) => {
                self.busy(&busy);
                refused(Refusal::Unavailable)
            }
        }
    }

    /// An answer that was owed has come.
    fn delivered(&mut self, now: Instant, outcome: Outcome) -> Said {
        match outcome {
            Outcome::Verdict(verdict) => self.judged(now, verdict),
            Outcome::Opened(opened) => self.opened(now, opened),
            Outcome::NoDrop => self.no_drop(),
            Outcome::TryAgain => self.again(now),
            Outcome::Held(holder) => self.held(now, holder),
            Outcome::Rows(Ok(rows)) => self.found(rows),
            Outcome::Reader(Ok(reader)) => self.send(*reader),
            Outcome::Rows(Err(miss)) | Outcome::Reader(Err(miss)) => self.missed(&miss),
            Outcome::Committed(_, Ok(commit)) => {
                let bulletins =
                    self.session.shown.as_ref().and_then(|shown| shown.commit()).map_or(0, |(_, count)| count);
                self.session.deleted = commit.deleted + bulletins;
                self.shared.counts.deleted += u64::from(commit.deleted);
                Done::Now(Answer::Committed { deleted: self.session.deleted })
            }
            Outcome::Committed(_, Err(fault)) => {
                self.report(&fault);
                refused(Refusal::NotCommitted)
            }
            _ => refused(Refusal::Unavailable),
        }
    }

    fn report(&mut self, fault: &Fault) {
        if self.has_line(Event::Trouble) {
            log::error!("pop3 {} {}: {fault}", self.id, self.who());
        }
    }

    fn busy(&mut self, busy: &Busy) {
        if self.has_line(Event::Busy) {
            log::warn!("pop3 {}: no room for a job: {busy}", self.id);
        }
    }

    fn has_line(&mut self, event: Event) -> bool {
        self.shared.has_line(self.now, event, Some(self.session.peer.ip()))
    }

    fn who(&self) -> String {
        let entering = self.session.entering.as_deref().map(Entering::user);
        printable(self.session.user.as_deref().or(entering).unwrap_or("-").as_bytes())
    }
}
