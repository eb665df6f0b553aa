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
//! The maildrop is closed, and its lock given back, with the session; a session that ends without a commit deletes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::cache::Key;
use super::{LOCK_PATIENCE, LOCK_RETRY, Outcome, Shared, account};
use crate::net::jobs::Kind;
use crate::net::stream::{Body, Done, Host, Pull, Readiness, Scratch, Stream, Turn};
use crate::net::tls::Tls;
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, TcpStream, Token, watch};
use crate::protocol::End;
use crate::protocol::helper::{Account, Question, Verdict};
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Ask, Link, Login, Pop3, Row, Totals};
use crate::settings::Settings;
use crate::store::disk::RealDisk;
use crate::store::maildrop::{self, Maildrop, MessageReader, Miss, Pulled, Reach, Refused};
use crate::text::bytes::Output;
use crate::text::fault::Fault;
use crate::text::printable::{printable, visible};

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
    began: Instant,
    /// Which ask is owed an answer, counted.
    serial: u32,
    /// Until when an open is tried again.
    patience: Option<Instant>,
    /// What is only needed while somebody logs in.
    entering: Option<Box<Entering>>,
    user: Option<Box<str>>,
    maildrop: Option<Box<Maildrop>>,
    /// The volume that jobs on it wait for.
    volume: u64,
    wanted: Wanted,
    retrieved: u32,
    deleted: u32,
    octets: u64,
    secured: bool,
}

struct Entering {
    user: String,
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
    fault: Option<Miss>,
}

impl Body for Message {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        if self.fault.is_some() {
            return Pull::Broken;
        }
        match self.reader.pull(scratch, out) {
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
        Ok(Conversation {
            stream: Stream::open(now, sock, machine, at_once)?,
            session: Session {
                settings: shared.settings.clone(),
                tls: shared.tls.clone(),
                peer,
                began: now,
                serial: 0,
                patience: None,
                entering: None,
                user: None,
                maildrop: None,
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
        let mut host = Service { session: &mut self.session, shared, id };
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
        let mut service = Service { session: &mut self.session, shared, id: ticket.id };
        match service.delivered(now, outcome) {
            Done::Later => {}
            done => self.stream.answer(done),
        }
        true
    }

    /// It is over: the line for the log.
    pub fn farewell(self, id: Id, now: Instant) {
        let Session { user, peer, began, retrieved, octets, deleted, secured, .. } = self.session;
        let who = user.as_deref().map_or("-".into(), |user| printable(user.as_bytes()));
        let seconds = now.saturating_duration_since(began).as_secs();
        let how = if secured { "tls" } else { "plain" };
        log::info!(
            "pop3 {id} {who} {} {how}: {retrieved} messages ({octets} octets) retrieved, {deleted} deleted, {seconds} s",
            peer.ip().to_canonical()
        );
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
        if whole && body.whole {
            self.session.retrieved += 1;
            self.session.octets += body.reader.octets();
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
            log::warn!("pop3 {}: no room for a job: {busy:?}", self.id);
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

    /// The maildrop of a logged-in session. The machine asks about messages in no other state.
    fn maildrop(&mut self) -> &mut Maildrop {
        self.session.maildrop.as_mut().expect("the machine asks about messages only between Opened and Commit")
    }

    fn totals(&mut self) -> Totals {
        let maildrop = self.maildrop();
        let (totals, live) = (maildrop.totals(), maildrop.live_totals());
        Totals { messages: live.messages, octets: live.octets, last_read: totals.last_read }
    }

    fn job(&mut self, kind: Kind, volume: u64, work: impl FnOnce() -> Outcome + Send + 'static) -> Said {
        let ticket = self.ticket();
        match self.shared.jobs.submit(Some(ticket), kind, volume, move |_| work()) {
            Ok(()) => Done::Later,
            Err(busy) => {
                log::warn!("pop3 {}: no room for a job: {busy:?}", self.id);
                refused(Refusal::Unavailable)
            }
        }
    }

    fn login(&mut self, now: Instant, login: Login) -> Said {
        let Some(name) = account::name(&login.user, &self.session.settings) else {
            return self.denied(&login.user);
        };
        let key = self.shared.cache.key("pop3", &name.asked, &login.password);
        let account = self.shared.cache.get(now, &key, &name.asked);
        let known = account.is_some();
        self.session.entering = Some(Box::new(Entering { user: name.user, key, account }));
        if known {
            return Done::Now(Answer::Welcome);
        }
        let ticket = self.ticket();
        let from = self.session.peer.ip().to_canonical();
        let question = Question::Check { user: name.asked, password: login.password, from };
        match self.shared.helpers.last_mut() {
            Some(helpers) => helpers.pool.submit(now, ticket, question),
            None => return self.unavailable(),
        }
        Done::Later
    }

    fn denied(&mut self, user: &[u8]) -> Said {
        self.shared.counts.denied += 1;
        log::info!("pop3 {} {} {}: login refused", self.id, printable(user), self.session.peer.ip().to_canonical());
        refused(Refusal::Denied)
    }

    fn unavailable(&mut self) -> Said {
        self.shared.counts.unavailable += 1;
        refused(Refusal::Unavailable)
    }

    /// An answer that was owed has come.
    fn delivered(&mut self, now: Instant, outcome: Outcome) -> Said {
        match outcome {
            Outcome::Verdict(verdict) => self.judged(now, verdict),
            Outcome::Opened(opened) => self.opened(now, opened),
            Outcome::TryAgain => self.open(),
            Outcome::Rows(Ok(rows)) => self.found(rows),
            Outcome::Reader(Ok(reader)) => self.send(*reader),
            Outcome::Rows(Err(miss)) | Outcome::Reader(Err(miss)) => self.missed(&miss),
            Outcome::Committed(_, Ok(commit)) => {
                self.session.deleted = commit.deleted;
                self.shared.counts.deleted += u64::from(commit.deleted);
                Done::Now(Answer::Committed { deleted: commit.deleted })
            }
            Outcome::Committed(_, Err(fault)) => {
                self.report(&fault);
                refused(Refusal::NotCommitted)
            }
            _ => refused(Refusal::Unavailable),
        }
    }

    fn judged(&mut self, now: Instant, verdict: Verdict) -> Said {
        let Some(mut entering) = self.session.entering.take() else { return self.unavailable() };
        match verdict {
            Verdict::Accepted(account) => {
                self.shared.cache.put(now, entering.key, account.clone());
                entering.account = Some(account);
                self.session.entering = Some(entering);
                Done::Now(Answer::Welcome)
            }
            Verdict::Refused => self.denied(entering.user.as_bytes()),
            Verdict::Unavailable => {
                log::warn!("pop3 {} {}: no authenticator could tell", self.id, printable(entering.user.as_bytes()));
                self.unavailable()
            }
        }
    }

    /// Opens the maildrop of who was welcomed.
    fn open(&mut self) -> Said {
        let settings = self.session.settings.clone();
        let Some(Entering { user, account: Some(account), .. }) = self.session.entering.as_deref() else {
            return self.unavailable();
        };
        let mut place = match account::place(user, account, &settings) {
            Ok(place) => place,
            Err(why) => return self.misconfigured(&why),
        };
        let uid = account.uid.clone();
        let volume = self.shared.volume_of(&place.drop);
        self.session.volume = volume;
        let disk = RealDisk { hand: self.shared.launcher.clone().map(|launcher| launcher as _) };
        self.job(Kind::Read, volume, move || {
            if let Some(uid) = uid {
                match account::owner(&uid, settings.min_uid) {
                    Ok(owner) => place.owner = Some(owner),
                    Err(why) => {
                        let error = io::Error::new(io::ErrorKind::PermissionDenied, why);
                        return Outcome::Opened(Err(Refused::Unsafe(Fault::new("opening", &place.drop, error))));
                    }
                }
            }
            Outcome::Opened(Maildrop::open_on(&disk, &place).map(Box::new))
        })
    }

    fn opened(&mut self, now: Instant, opened: Result<Box<Maildrop>, Refused>) -> Said {
        match opened {
            Ok(maildrop) => {
                for remark in maildrop.remarks() {
                    log::warn!("pop3 {} {}: {}: {remark}", self.id, self.who(), maildrop.path().display());
                }
                let totals = maildrop.totals();
                self.session.maildrop = Some(maildrop);
                self.session.user = self.session.entering.take().map(|entering| entering.user.into());
                self.shared.counts.logins += 1;
                Done::Now(Answer::Opened(Totals {
                    messages: totals.messages,
                    octets: totals.octets,
                    last_read: totals.last_read,
                }))
            }
            Err(refusal @ (Refused::InUse | Refused::Locked)) => {
                let ours = || self.place_is_compacting();
                if self.session.patience.is_some_and(|until| now < until && !self.shared.stopping)
                    && (matches!(refusal, Refused::Locked) || ours())
                {
                    let ticket = self.ticket();
                    self.shared.parked.push_back((now + LOCK_RETRY, ticket));
                    return Done::Later;
                }
                self.session.entering = None;
                refused(Refusal::InUse)
            }
            Err(Refused::Unsafe(fault)) => self.misconfigured(&fault.to_string()),
            Err(Refused::Fault(fault)) => {
                self.report(&fault);
                self.session.entering = None;
                self.unavailable()
            }
        }
    }

    fn place_is_compacting(&self) -> bool {
        let Some(Entering { user, account: Some(account), .. }) = self.session.entering.as_deref() else {
            return false;
        };
        let place = account::place(user, account, &self.session.settings);
        place.is_ok_and(|place| self.shared.compacting.contains(&place.drop))
    }

    fn misconfigured(&mut self, why: &str) -> Said {
        log::error!("pop3 {} {}: {}", self.id, self.who(), visible(why));
        self.session.entering = None;
        refused(Refusal::Misconfigured)
    }

    fn report(&self, fault: &Fault) {
        log::error!("pop3 {} {}: {fault}", self.id, self.who());
    }

    fn who(&self) -> String {
        let entering = self.session.entering.as_deref().map(|entering| entering.user.as_str());
        printable(self.session.user.as_deref().or(entering).unwrap_or("-").as_bytes())
    }

    fn rows(&mut self, from: u32, wanted: Wanted) -> Said {
        // One row is one small read, not a page.
        let rows = match wanted {
            Wanted::Rows => self.maildrop().page(from, Reach::Now),
            _ => self.maildrop().row(from, Reach::Now).map(|row| row.into_iter().collect()),
        };
        match rows {
            Ok(rows) => {
                self.session.wanted = wanted;
                self.found(rows)
            }
            Err(Miss::Cold) => {
                self.session.wanted = wanted;
                let lookup = self.maildrop().lookup(from);
                self.job(Kind::Read, self.session.volume, move || Outcome::Rows(lookup.run()))
            }
            Err(miss) => self.missed(&miss),
        }
    }

    fn found(&mut self, rows: Vec<maildrop::Row>) -> Said {
        let row =
            |row: maildrop::Row| Row { number: row.number, octets: row.octets, uid: row.uid, deleted: row.deleted };
        match self.session.wanted {
            Wanted::Rows => Done::Now(Answer::Rows(rows.into_iter().map(row).collect())),
            Wanted::Delete(number) => match rows.iter().find(|row| row.number == number) {
                Some(row) => {
                    self.maildrop().mark(row);
                    Done::Now(Answer::Done)
                }
                None => refused(Refusal::NoSuchMessage),
            },
            Wanted::Row(number) | Wanted::Message(number, _) => {
                let found = rows.into_iter().find(|row| row.number == number && !row.deleted);
                match found {
                    Some(found) => Done::Now(Answer::Rows(vec![row(found)])),
                    None => refused(Refusal::NoSuchMessage),
                }
            }
        }
    }

    fn exists(&mut self, number: u32) -> Result<(), Refusal> {
        let maildrop = self.maildrop();
        if number == 0 || number > maildrop.totals().messages {
            Err(Refusal::NoSuchMessage)
        } else if maildrop.is_deleted(number) {
            Err(Refusal::AlreadyDeleted)
        } else {
            Ok(())
        }
    }

    fn delete(&mut self, number: u32) -> Said {
        if let Err(refusal) = self.exists(number) {
            return refused(refusal);
        }
        self.rows(number, Wanted::Delete(number))
    }

    fn retrieve(&mut self, number: u32, lines: Option<u64>) -> Said {
        if self.exists(number).is_err() {
            return refused(Refusal::NoSuchMessage);
        }
        self.session.wanted = Wanted::Message(number, lines);
        match self.maildrop().reader(number, lines, Reach::Now) {
            Ok(reader) => self.send(reader),
            Err(Miss::Cold) => {
                let volume = self.session.volume;
                let lookup = self.maildrop().lookup(number);
                self.job(Kind::Read, volume, move || Outcome::Reader(lookup.reader(lines).map(Box::new)))
            }
            Err(miss) => self.missed(&miss),
        }
    }

    fn send(&mut self, reader: MessageReader) -> Said {
        let Wanted::Message(_, lines) = self.session.wanted else { return refused(Refusal::Unavailable) };
        let octets = reader.octets();
        let body = Message { reader, whole: lines.is_none(), fault: None };
        Done::Send(Answer::Sending(octets), Box::new(body), Answer::Sent)
    }

    /// Something could not be read: for the log, and for the client.
    fn missed(&mut self, miss: &Miss) -> Said {
        match miss {
            Miss::Cold => refused(Refusal::Unavailable),
            Miss::Changed => {
                self.shared.counts.changed += 1;
                log::warn!("pop3 {} {}: the drop was changed by another program", self.id, self.who());
                refused(Refusal::Changed)
            }
            Miss::Fault(fault) => {
                self.report(fault);
                refused(Refusal::Unavailable)
            }
        }
    }

    fn commit(&mut self) -> Said {
        let Some(mut maildrop) = self.session.maildrop.take() else { return refused(Refusal::NotCommitted) };
        let volume = self.session.volume;
        if maildrop.deletions() == 0 {
            // What an earlier session deleted may still have to leave the drop.
            if maildrop.wants_compaction() {
                self.shared.compact(maildrop, volume);
            }
            return Done::Now(Answer::Committed { deleted: 0 });
        }
        let said = self.job(Kind::Sync, volume, move || {
            let result = maildrop.commit();
            Outcome::Committed(Some((maildrop, volume)), result)
        });
        match said {
            Done::Later => Done::Later,
            _ => refused(Refusal::NotCommitted),
        }
    }
}
