//! Mail on its way to other hosts: what the queue wants to have brought to somebody is a [`Consignment`]; where it goes is a
//! [`Place`], by its hop's key; a connection there is a [`Conversation`], an entry of the loop.
//!
//! | file              | what it is                                                                            |
//! |-------------------|---------------------------------------------------------------------------------------|
//! | `place.rs`        | who waits for a place and which connections it has: values and times, no I/O           |
//! | `targets.rs`      | from a hop to addresses                                                               |
//! | `conversation.rs` | one connection: what the client's machine asks, and what it is told                    |
//! | `text.rs`         | the text of a message as it goes over the wire                                        |
//!
//! | a consignment is | what is done                                                              | it leaves by                          |
//! |------------------|---------------------------------------------------------------------------|---------------------------------------|
//! | Offered          | its place is found, or made                                               | Waiting; told: closed, full, paused    |
//! | Waiting          | a connection is made for it, or one that is there is called               | Under way; told: no target, too late   |
//! | Under way        | one transaction                                                           | all its recipients are told; those left, and all when the connection broke in the midst: Waiting, before others |
//!
//! **One outcome each.** A consignment is told of by [`Outcome::Sent`] with its ticket, in parts; each recipient is in exactly one
//! of them. A connection that breaks gives back only those of whom the host has not said anything, and only when the message's
//! end had not been sent; else they are [`Came::Possibly`]. One that broke [`ATTEMPTS`] connections is told [`Came::Later`].
//!
//! **One message in doubt.** When a transaction has outcomes its connection takes no other message before the runner says that they
//! are on disk ([`Outgoing::noted`]), and says nothing, not even QUIT, whatever else happens: a host that hears more knows that
//! its answer was heard, and takes what comes again for another message (`store/repeats.rs`).
//!
//! **Bounds.** Connections: `send_connections` of a place, as its own bound allows, and `send_connections_max` of all, of which a
//! quarter is only for places that have none; of all of them a quarter may lead to hosts of one network that DNS names, or as many as
//! one place may have: who owns domains makes places as he likes, and hosts that stall, but not networks. Consignments that wait: [`place::WAITING`] of a place and [`WAITING`] of all, of which
//! a quarter, again, is for places where nobody waits. Places: [`PLACES`]; those that only remember that they are closed go first.
//! Who finds no room is told [`Came::NotTried`], and comes again soon; nothing of him is kept here. A crowd comes again one after the
//! other, twice as fast as the place has lately been able to take them ([`Crowd`]), so that a million messages for a slow host are not
//! read from the disk every few seconds only to be turned away.

mod conversation;
pub mod place;
mod targets;
mod text;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::lanes::Message;
use super::{Outcome, Shared};
use crate::mail::address::Address;
use crate::net::stream::Turn;
use crate::net::tls::{self, Secure, Trust};
use crate::net::turn::{Id, Ticket};
use crate::protocol::dns::{Answer, Failure, Question};
use crate::protocol::smtp::params::Notify;
use crate::rules::hops::{Hop, Level, To};
use crate::rules::mx::Ourselves;
use crate::settings::Settings;
use crate::store::disk::{Disk, RealDisk};
use crate::store::queue::Envelope;
pub use conversation::Conversation;
use place::{Place, Step, Trouble, Turned};
use targets::{At, Search, Tag, Target};
pub use text::Piece;

/// Consignments that wait, for all places.
pub const WAITING: usize = 400;
/// Places that are known at a time.
pub const PLACES: usize = 4_096;
/// Connections that may break in the midst of a consignment before it waits for its next round.
const ATTEMPTS: u8 = 3;
/// Recipients of one transaction: what every server takes (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS: usize = 100;
/// How soon what was not tried comes again, at least, and, where there is a crowd of it, at most.
const AGAIN_SECS: (u64, u64) = (5, 300);
/// Of a crowd, how many a second come again at least.
const PACE_LEAST: u32 = 100;
/// How long it is counted how many a place can take.
const PACE_WINDOW: Duration = Duration::from_secs(5);
/// The same while sending is paused.
const PAUSED_SECS: u64 = 60;

/// What one place is to be brought: one message, from one sender, for some of its recipients.
pub struct Consignment {
    /// With which its outcomes come.
    pub(super) ticket: Ticket,
    pub(super) message: Arc<Message>,
    pub(super) envelope: Arc<Envelope>,
    /// From whom; `None`: nobody.
    pub(super) sender: Option<Address>,
    pub(super) recipients: Vec<Whom>,
    pub(super) hop: Arc<Hop>,
    /// Connections that broke in its midst.
    pub(super) attempts: u8,
}

/// A recipient of a consignment.
pub struct Whom {
    /// Whatever the sender of the consignment calls it.
    pub(super) part: usize,
    pub(super) address: Address,
    pub(super) notify: Option<Notify>,
    pub(super) orcpt: Option<Box<str>>,
}

/// What came of a try for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// The host has it.
    Taken {
        /// Who said what, in one line.
        said: String,
        /// The host will report by itself where that was asked for.
        dsn: bool,
        /// It was LMTP: the message is in the mailbox.
        lmtp: bool,
    },
    /// Not now: an enhanced code, and words. So for the next.
    Later(String),
    /// It never will.
    Never(String),
    /// The host may have it.
    Possibly(String),
    /// It waits there until somebody asks for it.
    Parked,
    /// Nothing was tried; how soon to come again, in seconds.
    NotTried(u64),
}

/// What came of some recipients of a consignment.
pub struct Sent {
    /// Each by its part.
    pub(super) fates: Vec<(usize, Came)>,
    /// To be told when this is on disk: [`Outgoing::noted`].
    pub(super) line: Option<u32>,
}

/// What happened since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were begun.
    pub connections: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// Messages that a host took; for each connection it was brought on one.
    pub messages: u64,
    /// Recipients for whom a host took one.
    pub taken: u64,
    /// Recipients whose message a host may have.
    pub possibly: u64,
    /// Consignments for which there was no room.
    pub not_tried: u64,
}

/// A connection that is to be made.
pub struct Birth {
    line: u32,
    target: Target,
    hop: Arc<Hop>,
    /// Without TLS: a handshake has failed there.
    clear: bool,
}

impl Birth {
    /// What its line is called.
    pub fn line(&self) -> u32 {
        self.line
    }
}

/// What a conversation is to do next.
enum Next {
    Take(Box<Consignment>),
    Wait,
    /// Nothing may be said before something is on disk.
    Hold,
    Leave,
}

struct Known {
    hop: Arc<Hop>,
    place: Place<Consignment, Target>,
    search: Option<Search>,
    /// It stands among those that are looked at next.
    listed: bool,
    /// When it is looked at without any other reason.
    armed: Option<Instant>,
    crowd: Crowd,
    /// Recipients for whom it took none, not yet; and those for whom it took one.
    deferred: u64,
    taken: u64,
}

/// Those who found no room at a place: when the next of them is to come again.
struct Crowd {
    next: Instant,
    /// Consignments that came to an end there since then, and how many a second did before.
    ended: u32,
    since: Instant,
    pace: u32,
}

impl Crowd {
    fn new(now: Instant) -> Crowd {
        Crowd { next: now, ended: 0, since: now, pace: 0 }
    }

    /// In how many seconds one more is to come again.
    fn turn(&mut self, now: Instant) -> u64 {
        let past = now.saturating_duration_since(self.since);
        if past >= PACE_WINDOW {
            self.pace = (f64::from(std::mem::take(&mut self.ended)) / past.as_secs_f64()) as u32;
            self.since = now;
        }
        let (least, most) = AGAIN_SECS;
        let gap = Duration::from_secs(1) / self.pace.saturating_mul(2).max(PACE_LEAST);
        let at = self.next.max(now + Duration::from_secs(least)).min(now + Duration::from_secs(most));
        self.next = at + gap;
        (at - now).as_secs()
    }
}

struct Line {
    key: Arc<str>,
    /// Where it leads, if DNS says so.
    network: Option<IpAddr>,
    id: Option<Id>,
    /// The connection is there.
    open: bool,
    /// Its place is needed.
    leaves: bool,
    /// Nobody hears what comes of it: it says nothing more.
    orphan: bool,
}

/// A place, for operators.
pub struct Shown<'o> {
    /// Its hop's key.
    pub key: &'o str,
    /// Consignments that wait.
    pub waiting: usize,
    /// Connections, and most that there may be now.
    pub connections: (usize, u16),
    /// Recipients for whom it took a message, and deferred ones.
    pub counts: (u64, u64),
    /// How long it is closed yet, and why.
    pub closed: Option<(Duration, &'o str)>,
}

/// See the page.
pub struct Outgoing {
    places: HashMap<Arc<str>, Known>,
    lines: HashMap<u32, Line>,
    /// Lines so far.
    number: u32,
    /// Questions so far.
    serial: u32,
    asked: HashMap<u32, (Arc<str>, Tag)>,
    /// Places to be looked at.
    listed: VecDeque<Arc<str>>,
    /// Places that would have a connection if there were room.
    hungry: VecDeque<Arc<str>>,
    /// When places are to be looked at.
    timers: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    waiting: usize,
    open: usize,
    /// Connections, and consignments that wait, that there are descriptors for.
    most: (usize, usize),
    /// What is to be asked of name servers.
    pub(super) questions: Vec<(Ticket, Question)>,
    born: Vec<Birth>,
    woken: Vec<Id>,
    /// Addresses of this machine.
    own: Vec<IpAddr>,
    /// Nothing is sent until an operator says so.
    paused: bool,
    anybody: Option<tls::Calling>,
    roots: Option<tls::Calling>,
    /// What happened.
    pub counts: Counts,
}

/// The entry of the loop that looks at places.
#[derive(Default)]
pub struct Office {
    due: Option<Instant>,
}

impl Office {
    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared) -> Turn {
        let turn = shared.send_mail(now, id);
        shared.ask_for_places(now);
        self.due = shared.outgoing.timers.peek().map(|Reverse((at, _))| *at);
        turn
    }

    /// What name servers said. False: nobody waits for it.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        let awaited = shared.looked_up(now, ticket, outcome);
        shared.ask_for_places(now);
        awaited
    }

    /// When it wants a [`turn`](Office::turn).
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing {
            places: HashMap::new(),
            lines: HashMap::new(),
            number: 0,
            serial: 0,
            asked: HashMap::new(),
            listed: VecDeque::new(),
            hungry: VecDeque::new(),
            timers: BinaryHeap::new(),
            waiting: 0,
            open: 0,
            most: (usize::MAX, WAITING),
            questions: Vec::new(),
            born: Vec::new(),
            woken: Vec::new(),
            own: Vec::new(),
            paused: false,
            anybody: None,
            roots: None,
            counts: Counts::default(),
        }
    }
}

impl Outgoing {
    /// Whether somebody has to look at places now: see [`Office::turn`].
    pub fn calls(&self) -> bool {
        !self.listed.is_empty()
    }

    /// There are descriptors for so many connections, and for so many consignments that wait.
    pub fn bound(&mut self, connections: usize, waiting: usize) {
        self.most = (connections, waiting);
    }

    /// This machine has these addresses: where the server listens at all of them, they are its own.
    pub fn lives_at(&mut self, own: Vec<IpAddr>) {
        self.own = own;
    }

    /// Connections to be made.
    pub fn born(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.born)
    }

    /// Connections that have something to do.
    pub fn woken(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.woken)
    }

    /// Nothing is sent from now on, or all is again. What is under way comes to its end.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.list_all();
    }

    /// Whether an operator has stopped sending.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Connections that are there or being made.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Consignments that wait for one.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The recipients of each consignment that waits.
    #[cfg(test)]
    pub(super) fn waits(&self) -> Vec<Vec<String>> {
        let waits = self.places.values().flat_map(|known| known.place.who_waits());
        waits.map(|one| one.recipients.iter().map(|whom| whom.address.to_string()).collect()).collect()
    }

    /// All places.
    pub fn places(&self, now: Instant) -> impl Iterator<Item = Shown<'_>> {
        self.places.iter().map(move |(key, known)| {
            let closed = known.place.closed(now).map(|(until, why)| (until - now, why));
            let connections = (known.place.lines(), known.place.bound());
            let counts = (known.taken, known.deferred);
            Shown { key, waiting: known.place.waiting(), connections, counts, closed }
        })
    }

    /// A place, or all of them, are tried at once when somebody comes, whatever happened there.
    pub fn reopen(&mut self, key: Option<&str>) {
        let places = self.places.iter_mut().filter(|(known, _)| key.is_none_or(|key| ***known == *key));
        places.for_each(|(_, known)| known.place.reopen());
        self.list_all();
    }

    /// Nobody waits any more for what is here, or for what is under way: another will bring all of it again. So connections
    /// take nothing more and say nothing more; whoever has them ends them.
    pub fn forget(&mut self) {
        for known in self.places.values_mut() {
            known.place.all();
        }
        self.waiting = 0;
        for line in self.lines.values_mut() {
            line.orphan = true;
        }
        // Nobody will say that anything is on disk.
        for line in self.lines.keys().copied().collect::<Vec<_>>() {
            self.noted(line);
        }
    }

    /// What came of some recipients of a consignment for this place.
    fn tally(&mut self, key: &str, fates: &[(usize, Came)]) {
        let Some(known) = self.places.get_mut(key) else { return };
        let count = |is: fn(&Came) -> bool| fates.iter().filter(|(_, came)| is(came)).count();
        known.taken += count(|came| matches!(came, Came::Taken { .. })) as u64;
        known.deferred += count(|came| matches!(came, Came::Later(_) | Came::Possibly(_))) as u64;
        known.crowd.ended += u32::from(count(|came| !matches!(came, Came::NotTried(_))) > 0);
    }

    fn is_orphan(&self, line: u32) -> bool {
        self.lines.get(&line).is_some_and(|line| line.orphan)
    }

    /// Whoever asked name servers is gone: places that wait for them ask again.
    pub fn begin_again(&mut self) {
        self.asked.clear();
        for known in self.places.values_mut() {
            known.search = None;
            known.place.ask_again();
        }
        self.list_all();
    }

    /// What became of the message of that line is on disk.
    pub fn noted(&mut self, line: u32) {
        let Some(Line { key, id, open, .. }) = self.lines.get(&line) else { return };
        let (key, id, open) = (key.clone(), *id, *open);
        let Some(known) = self.places.get_mut(&key) else { return };
        if known.place.noted(line) {
            // It asks by itself, for the next message or for leave to go.
            self.woken.extend(id);
        } else if !open {
            self.lines.remove(&line);
        }
        self.list(&key);
    }

    /// The entry of a line, or why there is none.
    pub fn began(&mut self, now: Instant, line: u32, id: Result<Id, String>) {
        match id {
            Ok(id) => {
                if let Some(line) = self.lines.get_mut(&line) {
                    line.id = Some(id);
                }
            }
            Err(why) => self.ended(now, line, Some(Trouble { why, never: false })),
        }
    }

    fn list(&mut self, key: &Arc<str>) {
        if let Some(known) = self.places.get_mut(key)
            && !std::mem::replace(&mut known.listed, true)
        {
            self.listed.push_back(key.clone());
        }
    }

    /// Every place is looked at.
    pub fn list_all(&mut self) {
        let keys: Vec<Arc<str>> = self.places.keys().cloned().collect();
        keys.iter().for_each(|key| self.list(key));
    }

    /// Something is done with the place of a line, which is then looked at.
    fn at<R>(&mut self, line: u32, work: impl FnOnce(&mut Place<Consignment, Target>) -> R) -> Option<R> {
        let key = self.lines.get(&line)?.key.clone();
        let known = self.places.get_mut(&key)?;
        let before = known.place.waiting();
        let done = work(&mut known.place);
        self.waiting = self.waiting + known.place.waiting() - before;
        self.list(&key);
        Some(done)
    }

    /// `more`: the connection would take a message.
    fn next(&mut self, line: u32, more: bool) -> Next {
        let Some(Line { key, leaves, orphan, .. }) = self.lines.get(&line) else { return Next::Leave };
        let Some(Known { place, .. }) = self.places.get_mut(key) else { return Next::Leave };
        if *orphan || place.is_owed(line) {
            return Next::Hold;
        }
        if !more || *leaves || self.paused {
            return Next::Leave;
        }
        match place.take(line) {
            Some(consignment) => {
                self.waiting -= 1;
                Next::Take(Box::new(consignment))
            }
            None => Next::Wait,
        }
    }

    /// Its connection has ended; by this trouble, if by one.
    fn ended(&mut self, now: Instant, line: u32, trouble: Option<Trouble>) {
        self.counts.failed += u64::from(trouble.is_some());
        self.at(line, |place| place.ended(now, line, trouble));
        let Some(known) = self.lines.get_mut(&line) else { return };
        if std::mem::replace(&mut known.open, false) {
            self.open -= 1;
        }
        let key = known.key.clone();
        let is_owed = self.places.get(&key).is_some_and(|known| known.place.has(line));
        if !is_owed {
            self.lines.remove(&line);
        }
        // There is room now.
        for hungry in std::mem::take(&mut self.hungry) {
            self.list(&hungry);
        }
    }

    fn may_call(&self, lines: usize, most: usize) -> bool {
        self.open < if lines == 0 { most } else { (most - most / 4).max(1) }
    }

    /// A line of another place that has nothing to do is asked to make room.
    fn make_room(&mut self) {
        let idle = self.lines.iter_mut().find(|(number, line)| {
            let place = self.places.get(&line.key).map(|known| &known.place);
            line.open && !line.leaves && place.is_some_and(|place| place.waiting() == 0 && place.is_idle(**number))
        });
        if let Some((_, line)) = idle {
            line.leaves = true;
            self.woken.extend(line.id);
        }
    }

    /// Room for one more place.
    fn forget_some(&mut self, now: Instant) -> bool {
        if self.places.len() < PLACES {
            return true;
        }
        self.places.retain(|_, known| known.listed || !known.place.is_forgotten(now));
        if self.places.len() >= PLACES {
            let rests = self.places.iter().filter(|(_, known)| !known.listed && known.place.is_at_rest());
            let first = rests.min_by_key(|(_, known)| known.place.closed(now).map(|(until, _)| until));
            let first = first.map(|(key, _)| key.clone());
            first.map(|key| self.places.remove(&key));
        }
        self.places.len() < PLACES
    }

    /// What TLS to a host needs.
    fn secure(&mut self, hop: &Hop, host: &str) -> Result<Secure, String> {
        let (kept, trust) = match hop.tls {
            Level::Verified => (&mut self.roots, Trust::Roots),
            _ => (&mut self.anybody, Trust::Anybody),
        };
        let config = match kept {
            Some(config) => config.clone(),
            None => kept.insert(tls::client(trust)?).clone(),
        };
        Secure::to(config, host)
    }
}

impl Shared {
    /// Takes a consignment. What becomes of its recipients comes with its ticket.
    pub(super) fn offer(&mut self, now: Instant, consignment: Consignment) {
        let came = match (&consignment.hop.to, self.settings.send_connections_max) {
            (To::Parked, _) => Came::Parked,
            (To::Never { status, why }, _) => Came::Never(format!("{status} {why}")),
            _ if self.is_paused(&consignment.hop.key) => Came::NotTried(PAUSED_SECS),
            _ if self.stopping => Came::NotTried(AGAIN_SECS.0),
            // Chance makes a wait up to a tenth shorter.
            _ => match self.outgoing.admit(now, self.settings.retry_schedule.first() * 3 / 4, consignment) {
                Ok(()) => return,
                Err((consignment, came)) => return self.tell_all(*consignment, &came),
            },
        };
        self.tell_all(consignment, &came);
    }

    /// Whether an operator wants nothing sent there.
    fn is_paused(&self, key: &str) -> bool {
        self.outgoing.paused || self.transit.paused().has(key)
    }

    /// All its recipients have this outcome.
    fn tell_all(&mut self, consignment: Consignment, came: &Came) {
        let fates: Vec<_> = consignment.recipients.iter().map(|whom| (whom.part, came.clone())).collect();
        self.outgoing.counts.not_tried += u64::from(matches!(came, Came::NotTried(_)));
        self.outgoing.tally(&consignment.hop.key, &fates);
        self.sent(consignment.ticket, fates, None);
    }

    fn sent(&mut self, ticket: Ticket, fates: Vec<(usize, Came)>, line: Option<u32>) {
        self.post.push_back((ticket, Outcome::Sent(Box::new(Sent { fates, line }))));
    }

    /// A consignment comes back from a connection: it waits anew, or has broken enough of them.
    fn put_back(&mut self, now: Instant, line: u32, mut consignment: Consignment, trouble: Option<&Trouble>) {
        if self.outgoing.is_orphan(line) {
            return;
        }
        if let Some(trouble) = trouble {
            consignment.attempts += 1;
            if consignment.attempts >= ATTEMPTS {
                let came = Came::Later(trouble.why.clone());
                return self.tell_all(consignment, &came);
            }
        }
        if self.is_paused(&consignment.hop.key) || self.stopping {
            return self.tell_all(consignment, &Came::NotTried(AGAIN_SECS.0));
        }
        let mut back = Some(consignment);
        self.outgoing.at(line, |place| back.take().map(|back| place.put_back(now, back)));
        if let Some(lost) = back {
            self.tell_all(lost, &Came::NotTried(AGAIN_SECS.0));
        }
    }

    /// Looks at places where something has happened, or is due. `office`: to whom name servers' answers go.
    pub(super) fn send_mail(&mut self, now: Instant, office: Id) -> Turn {
        while let Some(Reverse((at, _))) = self.outgoing.timers.peek()
            && *at <= now
        {
            let Some(Reverse((at, key))) = self.outgoing.timers.pop() else { break };
            if let Some(known) = self.outgoing.places.get_mut(&key)
                && known.armed == Some(at)
            {
                known.armed = None;
                self.outgoing.list(&key);
            }
        }
        for _ in 0..self.outgoing.listed.len() {
            let Some(key) = self.outgoing.listed.pop_front() else { break };
            self.look_at(now, office, &key);
        }
        Turn::Idle
    }

    fn look_at(&mut self, now: Instant, office: Id, key: &Arc<str>) {
        let (most, paused) = (self.settings.send_connections_max.min(self.outgoing.most.0), self.is_paused(key));
        if let Some(known) = self.outgoing.places.get_mut(key) {
            known.listed = false;
        }
        loop {
            let Some(known) = self.outgoing.places.get(key) else { return };
            let room = self.outgoing.may_call(known.place.lines(), most);
            let crowd = usize::from(known.hop.connections).max(most / 4);
            let Some(known) = self.outgoing.places.get_mut(key) else { return };
            if paused || self.stopping {
                let all = known.place.all();
                self.outgoing.waiting -= all.len();
                let secs = if paused { PAUSED_SECS } else { AGAIN_SECS.0 };
                all.into_iter().for_each(|one| self.tell_all(one, &Came::NotTried(secs)));
                break;
            }
            let before = known.place.waiting();
            let (lines, hop, mut crowded) = (&self.outgoing.lines, &known.hop, false);
            let step = known.place.step(now, |target| {
                let network = network(hop, target);
                let is_theirs = |line: &&Line| line.open && line.network == network;
                let is_crowded = room && network.is_some() && lines.values().filter(is_theirs).count() >= crowd;
                crowded |= is_crowded;
                room && !is_crowded
            });
            self.outgoing.waiting = self.outgoing.waiting + known.place.waiting() - before;
            match step {
                None => {
                    if (crowded || !room) && known.place.is_hungry() {
                        self.outgoing.hungry.push_back(key.clone());
                        self.outgoing.make_room();
                    }
                    break;
                }
                Some(Step::Ask) => self.search(now, office, key),
                Some(Step::Call(target)) => self.outgoing.call(now, key, target),
                Some(Step::Wake(line)) => {
                    let id = self.outgoing.lines.get(&line).and_then(|line| line.id);
                    self.outgoing.woken.extend(id);
                }
                Some(step) => self.step(step),
            }
        }
        if let Some(known) = self.outgoing.places.get_mut(key)
            && let Some(at) = known.place.deadline()
            && known.armed.is_none_or(|armed| at < armed)
        {
            known.armed = Some(at);
            self.outgoing.timers.push(Reverse((at, key.clone())));
        }
    }

    fn step(&mut self, step: Step<Consignment>) {
        match step {
            Step::Lost(lost, Trouble { why, never }) => {
                let came = if never { Came::Never(why) } else { Came::Later(why) };
                lost.into_iter().for_each(|one| self.tell_all(one, &came));
            }
            Step::Untried(late) => late.into_iter().for_each(|one| self.tell_all(one, &Came::NotTried(AGAIN_SECS.0))),
            Step::Ask | Step::Call(_) | Step::Wake(_) => {}
        }
    }

    fn search(&mut self, now: Instant, office: Id, key: &Arc<str>) {
        let Some(known) = self.outgoing.places.get_mut(key) else { return };
        let ourselves = ourselves(&self.settings, &self.outgoing.own);
        let (search, questions) = Search::begin(known.hop.clone(), Arc::new(ourselves), self.settings.smtp_out_port);
        known.search = Some(search);
        self.outgoing.ask(office, key, questions);
        self.found(now, key);
    }

    /// Asks name servers what is to be asked.
    fn ask_for_places(&mut self, now: Instant) {
        for (ticket, question) in std::mem::take(&mut self.outgoing.questions) {
            self.resolve(now, ticket, question);
        }
    }

    /// What name servers said. False: nobody waits for it.
    pub(super) fn looked_up(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) -> bool {
        let Some((key, tag)) = self.outgoing.asked.remove(&ticket.serial) else { return false };
        let answer = match outcome {
            Outcome::Resolved(answer) => answer,
            // Whoever asked for it had a fault: without an answer the place would wait for it for ever.
            _ => Answer::Failed(Failure::Silence),
        };
        let Some(search) = self.outgoing.places.get_mut(&key).and_then(|known| known.search.as_mut()) else {
            return false;
        };
        let questions = search.told(tag, answer, || RealDisk::default().random());
        self.outgoing.ask(ticket.id, &key, questions);
        self.found(now, &key);
        true
    }

    fn found(&mut self, now: Instant, key: &Arc<str>) {
        let Some(known) = self.outgoing.places.get_mut(key) else { return };
        let Some(found) = known.search.as_mut().and_then(Search::take) else { return };
        known.search = None;
        let before = known.place.waiting();
        let step = known.place.answered(now, found.map(|targets| (targets, now + targets::KEPT)));
        self.outgoing.waiting = self.outgoing.waiting + known.place.waiting() - before;
        self.outgoing.list(key);
        if let Some(step) = step {
            self.step(step);
        }
    }
}

impl Outgoing {
    /// `rest`: less than a message waits when it was tried in vain.
    fn admit(
        &mut self,
        now: Instant,
        rest: Duration,
        consignment: Consignment,
    ) -> Result<(), (Box<Consignment>, Came)> {
        let key: Arc<str> = (&*consignment.hop.key).into();
        let again = Came::NotTried(AGAIN_SECS.0);
        if !self.places.contains_key(&key) {
            if !self.forget_some(now) {
                return Err((Box::new(consignment), again));
            }
            let place = Place::new(consignment.hop.connections).resting(rest);
            let hop = consignment.hop.clone();
            let crowd = Crowd::new(now);
            let known = Known { hop, place, search: None, listed: false, armed: None, crowd, deferred: 0, taken: 0 };
            self.places.insert(key.clone(), known);
        }
        let Some(known) = self.places.get_mut(&key) else { return Err((Box::new(consignment), again)) };
        let (_, all) = self.most;
        let most = if known.place.waiting() == 0 { all } else { all - all / 4 };
        if self.waiting >= most {
            let again = Came::NotTried(known.crowd.turn(now));
            return Err((Box::new(consignment), again));
        }
        // A reload may say something else of it.
        if known.hop != consignment.hop {
            known.hop = consignment.hop.clone();
            known.place.limit(consignment.hop.connections);
        }
        match known.place.offer(now, consignment) {
            Ok(()) => {
                self.waiting += 1;
                self.list(&key);
                Ok(())
            }
            Err((consignment, Turned::Full)) => Err((Box::new(consignment), Came::NotTried(known.crowd.turn(now)))),
            Err((consignment, Turned::Closed(why))) => Err((Box::new(consignment), Came::Later(why))),
        }
    }

    fn ask(&mut self, office: Id, key: &Arc<str>, questions: Vec<(Tag, Question)>) {
        for (tag, question) in questions {
            self.serial = self.serial.wrapping_add(1);
            self.asked.insert(self.serial, (key.clone(), tag));
            self.questions.push((Ticket { id: office, serial: self.serial }, question));
        }
    }

    fn call(&mut self, now: Instant, key: &Arc<str>, target: usize) {
        self.number = self.number.wrapping_add(1);
        let line = self.number;
        let Some(known) = self.places.get_mut(key) else { return };
        let Some(aim) = known.place.aim(target) else { return };
        let network = network(&known.hop, &aim.target);
        let birth = Birth { line, target: aim.target.clone(), hop: known.hop.clone(), clear: aim.is_clear(now) };
        known.place.call(line, target);
        self.lines.insert(line, Line { key: key.clone(), network, id: None, open: true, leaves: false, orphan: false });
        self.open += 1;
        self.counts.connections += 1;
        self.born.push(birth);
    }
}

/// The network that a target lies in, of one size for all; `None`: an operator has named the target.
fn network(hop: &Hop, target: &Target) -> Option<IpAddr> {
    let (To::Mx(_), At::Tcp(address)) = (&hop.to, &target.at) else { return None };
    Some(match address.ip().to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 80 << 80).into()),
    })
}

/// Who we are, to whom nothing is sent. `machine`: the addresses of this machine.
fn ourselves(settings: &Settings, machine: &[IpAddr]) -> Ourselves {
    let names = [settings.greets_as(), settings.main_domain()].map(|name| name.to_ascii_lowercase().into());
    let ports = [settings.smtp_port, settings.submission_port, settings.smtps_port, settings.lmtp_port];
    let bound = settings.bind_address.iter();
    let all = |kind: &IpAddr| machine.iter().filter(|own| own.is_ipv4() == kind.is_ipv4()).copied().collect();
    let addresses = bound.flat_map(|at| if at.is_unspecified() { all(at) } else { vec![*at] }).collect();
    Ourselves { names: names.to_vec(), addresses, ports: ports.into_iter().filter(|port| *port > 0).collect() }
}

#[cfg(test)]
mod tests;
