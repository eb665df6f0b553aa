//! The loop's parts: slots, readiness, deadlines, and the queue of who can run.
//!
//! The order of a turn is written where everything meets, in `server`: poll; the clock, read once; readiness; deadlines;
//! late answers; what can run; pools; and only then the removal of what closed. This file has the pieces, and these
//! promises:
//!
//! * A slot is used again at once, so nothing that outlives a turn names a slot alone: an [`Id`] is slot and birth, a
//!   [`Ticket`] also says which ask. What finds no such birth is dropped and counted.
//! * An entry stands in the run queue at most once, and runs at most once a turn.
//! * One deadline an entry, moved by assignment: the heap holds the earliest it ever had, and when that is due the entry
//!   is asked for the one it has now.
//! * A panic while one entry runs ends that entry, is counted, and leaves the others alone. What entries share is only
//!   changed by calls that do not panic half-way: small assignments and pushes; a panic anywhere else ends the process.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token};
use slab::Slab;

use super::profile::Profile;
use super::stream::{Readiness, Scratch, Turn};
use super::watchdog::Watch;

/// Events fetched in one poll. Bounds the batch, not the connections.
const EVENTS: usize = 256;
/// An entry may have up to four event sources: the token's low bits say which.
const LANES: usize = 4;

/// Whose turn it is: slot and birth. Never used twice within 2^30 births of one slot's neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    slot: u32,
    birth: u32,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{:x}", self.slot, self.birth)
    }
}

impl Id {
    fn token(self, lane: usize) -> Token {
        Token(((self.birth as usize) << 34) | ((self.slot as usize) << 2) | lane)
    }

    /// Both in one number.
    pub(super) fn packed(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.birth)
    }

    /// What was [`packed`](Id::packed).
    pub(super) fn unpacked(number: u64) -> Id {
        Id { slot: (number >> 32) as u32, birth: number as u32 }
    }

    fn of(token: Token) -> (Id, usize) {
        let bits = token.0;
        (Id { slot: (bits >> 2) as u32, birth: (bits >> 34) as u32 }, bits & (LANES - 1))
    }
}

/// Which ask of which conversation an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The conversation.
    pub id: Id,
    /// Its ask.
    pub serial: u32,
}

/// Something that has turns.
pub trait Entry {
    /// What all entries share.
    type Shared;

    /// Registers its sources: `token(lane)` gives the token for each.
    fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()>;
    /// Takes its sources away again: always before they are dropped.
    fn deregister(&mut self, registry: &Registry);
    /// The kernel says something about one of its sources.
    fn mark(&mut self, lane: usize, ready: Readiness);
    /// Does what can be done now.
    fn turn(&mut self, id: Id, now: Instant, shared: &mut Self::Shared, scratch: &mut Scratch) -> Turn;
    /// When it wants [`expire`](Entry::expire) to be called.
    fn deadline(&self) -> Option<Instant>;
    /// Its deadline is over. It runs next.
    fn expire(&mut self, now: Instant);
    /// What it is, for the log and the statistics of the longest turn.
    fn kind(&self) -> &'static str;
}

struct Slot<E> {
    birth: u32,
    queued: bool,
    /// When it is asked for its deadline next.
    armed: Tick,
    entry: E,
}

/// A time in half the room: nanoseconds since the loop was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

impl Tick {
    /// No time at all, after every other.
    const NEVER: Tick = Tick(u64::MAX);

    fn of(at: Instant, begun: Instant) -> Tick {
        Tick(u64::try_from(at.saturating_duration_since(begun).as_nanos()).unwrap_or(u64::MAX - 1))
    }

    fn instant(self, begun: Instant) -> Instant {
        begun + Duration::from_nanos(self.0)
    }
}

/// The loop's parts.
pub struct Loop<E> {
    poll: Poll,
    events: Events,
    slots: Slab<Slot<E>>,
    births: u32,
    runnable: VecDeque<Id>,
    deadlines: BinaryHeap<Reverse<(Tick, Id)>>,
    closed: Vec<Id>,
    scratch: Scratch,
    /// What ticks are counted from.
    begun: Instant,
    now: Instant,
    profile: Profile,
    turns: u64,
    panics: u64,
    watch: Arc<Watch>,
}

/// What the loop's own parts hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Places for entries, used or not, without what the entries have in boxes.
    pub slots: usize,
    /// Deadlines and who can run.
    pub tables: usize,
    /// Buffers that all connections share.
    pub buffers: usize,
    /// Of the above: what one more entry takes.
    pub entry: usize,
}

impl<E: Entry> Loop<E> {
    /// An empty loop.
    pub fn new() -> io::Result<Loop<E>> {
        let begun = Instant::now();
        Ok(Loop {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            slots: Slab::new(),
            births: 0,
            runnable: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            closed: Vec::new(),
            scratch: Scratch::default(),
            begun,
            now: begun,
            profile: Profile::default(),
            turns: 0,
            panics: 0,
            watch: Arc::default(),
        })
    }

    /// A waker that other threads can end a poll with.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        // No entry is ever born under this token: births stop one short of it.
        mio::Waker::new(self.poll.registry(), Token(usize::MAX))
    }

    /// When this turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A new entry: registered, and in the run queue.
    pub fn insert(&mut self, mut entry: E) -> io::Result<Id> {
        let vacant = self.slots.vacant_entry();
        self.births = (self.births + 1) % ((1 << 30) - 1);
        let id = Id { slot: vacant.key() as u32, birth: self.births };
        entry.register(self.poll.registry(), &|lane| id.token(lane))?;
        vacant.insert(Slot { birth: id.birth, queued: false, armed: Tick::NEVER, entry });
        self.wake(id);
        Ok(id)
    }

    /// The entry, if it still lives.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut E> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.birth == id.birth).map(|slot| &mut slot.entry)
    }

    /// All entries.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut E)> {
        let id = |slot: usize, birth| Id { slot: slot as u32, birth };
        self.slots.iter_mut().map(move |(key, slot)| (id(key, slot.birth), &mut slot.entry))
    }

    /// Does something with an entry, if it still lives. A panic in it ends that entry alone, as one in its turn would.
    pub fn guard<T>(&mut self, id: Id, work: impl FnOnce(&mut E) -> T) -> Option<T> {
        let entry = self.get_mut(id)?;
        let kind = entry.kind();
        let done = catch_unwind(AssertUnwindSafe(|| work(entry)));
        if done.is_err() {
            self.panicked(id, kind);
        }
        done.ok()
    }

    fn panicked(&mut self, id: Id, kind: &str) {
        self.panics += 1;
        self.scratch.clear();
        log::error!("{kind} {id}: a fault of ours ended this conversation; please report it");
        self.closed.push(id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts an entry into the run queue, once.
    pub fn wake(&mut self, id: Id) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize)
            && slot.birth == id.birth
            && !slot.queued
        {
            slot.queued = true;
            self.runnable.push_back(id);
        }
    }

    /// Waits until something happens, but not past `until` and not while somebody can run. Then reads the clock, marks
    /// readiness and wakes who is ready or due.
    pub fn poll(&mut self, until: Option<Instant>) -> io::Result<Instant> {
        let timeout = if self.runnable.is_empty() {
            let due = self.deadlines.peek().map(|Reverse((at, _))| at.instant(self.begun));
            let next = [due, until].into_iter().flatten().min();
            // mio rounds up to the kernel's millisecond, so the last fraction of one is not spun away; what is due now
            // stays zero.
            next.map(|at| at.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        self.watch.rest();
        let polled = self.poll.poll(&mut self.events, timeout);
        self.watch.enter("events", None);
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        self.now = Instant::now();
        for event in &self.events {
            let (id, lane) = Id::of(event.token());
            let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.birth == id.birth) else {
                continue;
            };
            slot.entry.mark(
                lane,
                Readiness {
                    read: event.is_readable(),
                    write: event.is_writable(),
                    ends: event.is_read_closed(),
                    dead: event.is_error() || event.is_read_closed() && event.is_write_closed(),
                },
            );
            if !slot.queued {
                slot.queued = true;
                self.runnable.push_back(id);
            }
        }
        self.expire();
        Ok(self.now)
    }

    fn expire(&mut self) {
        while let Some(Reverse((at, id))) = self.deadlines.peek().copied() {
            if at > Tick::of(self.now, self.begun) {
                return;
            }
            self.deadlines.pop();
            let now = self.now;
            let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.birth == id.birth) else {
                continue;
            };
            if slot.armed != at {
                continue;
            }
            slot.armed = Tick::NEVER;
            match slot.entry.deadline() {
                Some(deadline) if deadline <= now => {
                    slot.entry.expire(now);
                    self.wake(id);
                }
                _ => self.arm(id),
            }
        }
    }

    /// Runs everybody who could run when this began. New entries, and those with more to do, have their turn in the
    /// next one.
    pub fn run(&mut self, shared: &mut E::Shared) {
        for _ in 0..self.runnable.len() {
            let id = self.runnable.pop_front().expect("counted above");
            let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.birth == id.birth) else {
                continue;
            };
            slot.queued = false;
            self.turns += 1;
            self.watch.enter(slot.entry.kind(), Some(id));
            let begun = Instant::now();
            let (entry, scratch, now) = (&mut slot.entry, &mut self.scratch, self.now);
            let turn = catch_unwind(AssertUnwindSafe(|| entry.turn(id, now, shared, scratch)));
            self.profile.note(slot.entry.kind(), begun.elapsed());
            match turn {
                Ok(Turn::Idle) => self.arm(id),
                Ok(Turn::Again) => {
                    self.arm(id);
                    self.wake(id);
                }
                Ok(Turn::Closed) => self.closed.push(id),
                Err(_) => {
                    let kind = slot.entry.kind();
                    self.panicked(id, kind);
                }
            }
        }
    }

    fn arm(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else { return };
        let Some(deadline) = slot.entry.deadline() else { return };
        let at = Tick::of(deadline, self.begun);
        if at < slot.armed {
            slot.armed = at;
            self.deadlines.push(Reverse((at, id)));
        }
        // Those who left leave theirs behind until it is due: at thousands of short connections a second that is a million.
        if self.deadlines.len() > 64 + 4 * self.slots.len() {
            self.forget_stale_deadlines();
        }
    }

    fn forget_stale_deadlines(&mut self) {
        let slots = &self.slots;
        self.deadlines.retain(|Reverse((at, id))| {
            slots.get(id.slot as usize).is_some_and(|slot| slot.birth == id.birth && slot.armed == *at)
        });
    }

    /// Removes what closed since the last call, and hands it over.
    pub fn sweep(&mut self) -> Option<(Id, E)> {
        while let Some(id) = self.closed.pop() {
            let known = self.slots.get(id.slot as usize).is_some_and(|slot| slot.birth == id.birth);
            if known {
                let mut entry = self.slots.remove(id.slot as usize).entry;
                entry.deregister(self.poll.registry());
                return Some((id, entry));
            }
        }
        if self.slots.is_empty() && self.slots.capacity() > 1024 {
            self.slots.shrink_to_fit();
        }
        None
    }

    /// Closes an entry without asking it.
    pub fn close(&mut self, id: Id) {
        self.closed.push(id);
    }

    /// Gives back what a burst made the tables grow to.
    pub fn trim(&mut self) {
        self.slots.shrink_to_fit();
        self.runnable.shrink_to(64);
        self.forget_stale_deadlines();
        self.deadlines.shrink_to_fit();
        self.scratch.trim();
    }

    /// What the loop is doing, for a watchdog.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// What its parts hold.
    pub fn holding(&self) -> Holding {
        let (slot, deadline) = (size_of::<Slot<E>>(), size_of::<Reverse<(Tick, Id)>>());
        Holding {
            // The slab keeps one word with each place.
            slots: self.slots.capacity() * (slot + size_of::<usize>()),
            tables: self.deadlines.capacity() * deadline
                + self.runnable.capacity() * size_of::<Id>()
                + EVENTS * size_of::<mio::event::Event>(),
            buffers: self.scratch.held(),
            entry: slot + size_of::<usize>() + deadline,
        }
    }

    /// How long turns took.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// How many turns entries have had.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Conversations that a fault of ours ended.
    pub fn panics(&self) -> u64 {
        self.panics
    }

    /// Bytes of half-received TLS records held by all connections.
    pub fn partial_bytes(&self) -> usize {
        self.scratch.partial_bytes()
    }
}

#[cfg(test)]
mod tests;
