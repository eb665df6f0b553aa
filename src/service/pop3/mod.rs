//! One POP3 client's session: the host of a [`Pop3`] conversation.
//!
//! | asked        | answered                                                                                   |
//! |--------------|--------------------------------------------------------------------------------------------|
//! | Login        | from the cache at once, else by an authenticator                                           |
//! | Open         | by a job; while our own compaction or another program has the drop, tried again for a while |
//! | Stat, Delete | at once                                                                                    |
//! | Row, Rows    | at once when the index's page is in memory, else by a job                                  |
//! | Retrieve     | a body, pulled slice by slice from what is in memory; a job fetches what is not            |
//! | Commit       | by a job: the ledger is synced. At once when nothing is marked                             |
//!
//! After either, dead bytes leave the drop by a job that keeps the session's lock: also those that an earlier one had to
//! leave.
//!
//! `entering.rs` is the way in, `mailbox.rs` what follows it.
//!
//! The maildrop is closed, and its lock given back, with the session; a session that ends without a commit deletes nothing.

mod entering;
mod mailbox;
pub mod shown;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::cache::Key;
use super::noise::Event;
use super::{LOCK_PATIENCE, Outcome, Shared};
use crate::net::jobs::{Busy, Kind};
use crate::net::stream::{Body, Done, Host, Pull, Readiness, Scratch, Stream, Turn};
use crate::net::tls::Tls;
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, TcpStream, Token, watch};
use crate::protocol::End;
use crate::protocol::helper::Account;
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Ask, Link, Pop3};
use crate::rules::domains::{Home, Name};
use crate::settings::Settings;
use crate::store::maildrop::{Maildrop, MessageReader, Miss, Pulled};
use crate::sys::socket::unanswered_probes;
use crate::text::bytes::Output;
use crate::text::fault::Fault;
use crate::text::printable::printable;
use shown::Shown;

/// A POP3 client's connection.
pub struct Conversation {
    stream: Stream<TcpStream, Pop3, Message>,
    session: Session,
}

/// What the service knows of one client.
struct Session {
    settings: Arc<Settings>,
    tls: Option<Tls>,
    peer: SocketAddr,
    /// The domain of users who name none.
    here: Home,
    began: Instant,
    /// Which ask is owed an answer, counted.
    serial: u32,
    /// Until when an open is tried again.
    patience: Option<Instant>,
    /// What is only needed while somebody logs in.
    entering: Option<Box<Entering>>,
    user: Option<Box<str>>,
    maildrop: Option<Box<Maildrop>>,
    /// Bulletins behind its messages.
    shown: Option<Box<Shown>>,
    /// The volume that jobs on it wait for.
    volume: u64,
    wanted: Wanted,
    retrieved: u32,
    deleted: u32,
    octets: u64,
    secured: bool,
}

struct Entering {
    name: Name,
    key: Key,
    account: Option<Account>,
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
        let link = Link { tls, can_tls: shared.tls.is_some(), plain_ok: shared.plain_ok(peer) };
        let machine = Pop3::new(now, shared.pop3.clone(), link);
        let at_once = match (tls, &shared.tls) {
            (true, None) => return Err(io::Error::other("a reload has just taken TLS away")),
            (true, Some(tls)) => Some(tls.clone()),
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
                tls: shared.tls.clone(),
                peer,
                here,
                began: now,
                serial: 0,
                patience: None,
                entering: None,
                user: None,
                maildrop: None,
                shown: None,
                volume: 0,
                wanted: Wanted::Rows,
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
        let mut host = Service { session: &mut self.session, shared, id, now };
        self.stream.turn(now, scratch, &mut host)
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.stream.deadline()
    }

    /// The peer was silent too long, or too slow.
    pub fn expire(&mut self, now: Instant) {
        self.stream.expire(now);
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
        let losable = self.stream.partial_bytes() > 0 && !self.stream.machine().is_logged_in();
        losable.then_some(self.session.began)
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

    /// It is over: the line for the log, and, if somebody had logged in, the statistics.
    pub fn farewell(mut self, id: Id, now: Instant, shared: &mut Shared) -> Option<Left> {
        // It ended in the midst of a message.
        self.session.octets += self.stream.body().map_or(0, |body| body.octets(false));
        let Session { user, peer, began, retrieved, octets, deleted, secured, .. } = self.session;
        let who = user.as_deref().map_or("-".into(), |user| printable(user.as_bytes()));
        let secs = now.saturating_duration_since(began).as_secs();
        let how = if secured { "tls" } else { "plain" };
        let from = peer.ip().to_canonical();
        if user.is_some() || shared.has_line(now, Event::Stranger, Some(from)) {
            log::info!(
                "pop3 {id} {who} {from} {how}: {retrieved} messages ({octets} octets) retrieved, {deleted} deleted, {secs} s"
            );
        }
        let left = |user: Box<str>| Left {
            user: user.into(),
            from: from.to_string(),
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
    /// The client's address.
    pub from: String,
    /// How long it took.
    pub secs: u64,
    /// Octets of messages that were sent, also of parts of messages.
    pub bytes: u64,
    /// Messages that were sent whole.
    pub messages: u32,
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
            Ask::StartTls => match self.session.tls.clone() {
                Some(tls) => {
                    self.session.secured = true;
                    Done::StartTls(tls, Answer::TlsStarted)
                }
                None => refused(Refusal::NoTls),
            },
            Ask::Login(login) => self.login(now, *login),
            Ask::Open => {
                self.session.patience = Some(now + LOCK_PATIENCE);
                self.open()
            }
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
            Outcome::TryAgain => self.open(),
            Outcome::Held(fading) => self.held(now, fading),
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
            log::warn!("pop3 {}: no room for a job: {busy:?}", self.id);
        }
    }

    fn has_line(&mut self, event: Event) -> bool {
        self.shared.has_line(self.now, event, Some(self.session.peer.ip()))
    }

    fn who(&self) -> String {
        let entering = self.session.entering.as_deref().map(|entering| entering.name.shown());
        printable(self.session.user.as_deref().or(entering).unwrap_or("-").as_bytes())
    }
}
