//! Letters on their way to drops. Those for one drop share a lane: while a job appends some of them the others wait, and go
//! together as the next batch, under one lock and one sync.
//!
//! | a lane is | it leaves by                                                                              |
//! |-----------|---------------------------------------------------------------------------------------------|
//! | Ready     | a place among the jobs of its volume: Out; [`WAIT`]: its letters are deferred               |
//! | Out       | the job's end: gone, Ready when others came meanwhile, Parked when the drop was locked. Letters that wait behind it for [`WAIT`] are deferred |
//! | Parked    | [`LOCK_RETRY`]: Ready. Letters that found it locked for [`PATIENCE`] are deferred           |
//!
//! A batch has at most [`BATCH`] letters, and a job the batches of at most [`DROPS`] drops, which share syncs too. Of one volume at most
//! [`JOBS`] are out, or as many as may run where there is a whole job's work for each: what waits waits here, where it is put
//! together, and other work does not queue behind it. Large messages go with few others, so that these need not wait for
//! them. There are no more lanes than letters, and of those one for each message in flight and each recipient that is being
//! tried.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::body::Text;
use crate::mail::passed::Passed;
use crate::net::jobs::PER_VOLUME;
use crate::service::{LOCK_RETRY, account};
use crate::store::delivery::{self, Delivered, Envelope, Failed, IntentId, Intents, Queued, deliver_all};
use crate::store::disk::RealDisk;
use crate::store::maildrop::{Place, Refused};
use crate::store::queue::{Kind, Recipient};
use crate::store::quota;
use crate::store::repeats::{Mark, Marked};
use crate::text::fault::Fault;

/// How long a letter waits for a drop that another program has locked, before it goes to the queue.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// And for its turn, where jobs do not end.
pub const WAIT: Duration = Duration::from_secs(30);
/// Letters of one batch: what a lock is held for, and an intent can describe.
pub const BATCH: usize = 32;

/// Drops of one job.
pub const DROPS: usize = 16;
/// Jobs of one volume while there is not more to do than this many can take.
const JOBS: usize = 4;
/// Bytes of text after which a job takes no further drop.
const JOB_BYTES: u64 = 256 * 1024;

/// What all letters of a message have in common.
pub(in crate::service) struct Message {
    pub(in crate::service) id: Box<str>,
    pub(super) sender: Box<str>,
    pub(in crate::service) received: Box<[u8]>,
    pub(super) posted_secs: i64,
    pub(in crate::service) text: Text,
    /// Who has had it already.
    pub(super) passed: Passed,
    /// What it is known by if its sender sends it again.
    pub(super) mark: Option<Mark>,
}

/// A message in memory.
#[cfg(test)]
pub(in crate::service) fn message_for_tests(transit: &super::Transit, id: &str, received: &str, text: &str) -> Message {
    let body = super::Body::of(transit.budget.clone(), text.as_bytes());
    let super::body::Closed::Whole(text) = body.close() else { panic!("it is whole") };
    let (sender, received) = ("ann@example.test".into(), received.as_bytes().into());
    Message { id: id.into(), sender, received, posted_secs: 0, text, passed: Passed::default(), mark: None }
}

impl Message {
    /// The same with its id.
    pub(super) fn marked(&self) -> Option<Marked> {
        self.mark.map(|mark| Marked { mark, id: self.id.clone() })
    }

    /// Whether it has been in this drop or with this program, and goes round.
    pub(super) fn has_passed(&self, recipient: &Recipient) -> bool {
        matches!(recipient.kind, Kind::Mailbox | Kind::Program) && self.passed.has(&recipient.address)
    }

    /// Bytes that it takes in a mailbox, but for what a drop adds to it.
    pub(in crate::service) fn octets(&self) -> u64 {
        self.text.bytes() + self.received.len() as u64
    }
}

/// A message for a drop.
pub(super) struct Letter {
    /// Who wants to hear of it.
    pub(super) key: Key,
    pub(super) message: Arc<Message>,
    /// From whom, if not from the message's sender.
    pub(super) sender: Option<Box<str>>,
    /// Whose drop it is, as an address.
    pub(super) recipient: Box<str>,
    pub(super) queued: Option<Queued>,
}

/// Whom a letter is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A message that is nowhere else.
    Direct(usize),
    /// A recipient of one that the queue has.
    Queued { run: usize, part: usize },
}

/// A drop, and what is needed to write to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: Place,
    /// Who must own it, as the authenticator has it.
    pub(super) uid: Option<Box<[u8]>>,
    pub(super) volume: u64,
    /// Bytes of mail that there may be; 0: no bound.
    pub(super) limit: u64,
}

/// What became of a letter.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is in the drop, on disk.
    Delivered(Vec<Arc<Stand>>),
    /// It came before, with this id, and is.
    Before(Box<str>),
    /// Nothing of it is, nor will be.
    Deferred(String),
    /// Nobody knows.
    Unknown,
}

/// An append that stays open in the log of intents until the queue has noted it.
#[derive(Debug)]
pub(super) struct Stand {
    id: IntentId,
    /// Its recipients who are to be noted yet.
    left: AtomicUsize,
    /// All of them, when it was found and not made.
    pub(super) found: Vec<Queued>,
}

impl Stand {
    /// One of its recipients has been noted, on disk; or all, when it was found. For a job.
    pub(super) fn noted(&self, intents: &Intents) {
        if !self.found.is_empty() || self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            intents.close(self.id);
        }
    }
}

struct Waiting {
    letter: Letter,
    since: Instant,
    /// When it found the drop locked for the first time.
    locked: Option<Instant>,
}

struct Lane {
    spot: Spot,
    waiting: VecDeque<Waiting>,
    /// What a job has.
    out: Vec<Key>,
}

/// Lanes of one volume.
#[derive(Default)]
struct Yard {
    /// Jobs.
    out: usize,
    ready: VecDeque<PathBuf>,
}

impl Yard {
    fn may_go(&self) -> bool {
        let most = if self.ready.len() < DROPS { JOBS } else { PER_VOLUME };
        self.out < most && !self.ready.is_empty()
    }
}

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<PathBuf, Lane>,
    yards: HashMap<u64, Yard>,
    parked: BinaryHeap<Reverse<(Instant, PathBuf)>>,
}

/// What a job takes.
pub(super) struct Load {
    min_uid: u32,
    batches: Vec<Batch>,
}

/// Letters for one drop.
struct Batch {
    spot: Spot,
    letters: Vec<Waiting>,
}

/// A user whose mailbox has filled just now as far as he is to be told of.
pub(super) struct Filled {
    /// As an address.
    pub(super) user: Box<str>,
    /// Bytes of mail that there may be.
    pub(super) limit: u64,
}

/// What came of a batch.
pub(super) struct Carried {
    letters: Vec<Waiting>,
    result: Result<Delivered, Failed>,
    pub(super) filled: Option<Filled>,
}

/// How a job ended.
pub(super) enum Ended {
    /// In the order of its drops.
    Carried(Vec<Carried>),
    /// It was not begun.
    Refused,
    Lost,
}

impl Lanes {
    /// Takes a letter for the drop there.
    pub(super) fn add(&mut self, now: Instant, spot: Spot, letter: Letter) {
        let drop = spot.place.drop.clone();
        let waiting = Waiting { letter, since: now, locked: None };
        match self.lanes.get_mut(&drop) {
            Some(lane) => lane.waiting.push_back(waiting),
            None => {
                self.yards.entry(spot.volume).or_default().ready.push_back(drop.clone());
                let waiting = VecDeque::from([waiting]);
                self.lanes.insert(drop, Lane { spot, waiting, out: Vec::new() });
            }
        }
    }

    /// Whether no letter waits or is with a job.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// When [`next`](Lanes::next) or [`overdue`](Lanes::overdue) has something that it has not now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parked = self.parked.peek().map(|Reverse((at, _))| *at);
        let first = |yard: &Yard| self.lanes.get(yard.ready.front()?)?.waiting.front().map(|first| first.since + WAIT);
        let behind = self.lanes.values().filter(|lane| !lane.out.is_empty());
        let behind = behind.filter_map(|lane| lane.waiting.front().map(|first| first.since + WAIT));
        parked.into_iter().chain(self.yards.values().filter_map(first)).chain(behind).min()
    }

    /// What the next job can have, with its drops and their volume.
    pub(super) fn next(&mut self, now: Instant, min_uid: u32) -> Option<(Vec<PathBuf>, u64, Load)> {
        while let Some(Reverse((at, _))) = self.parked.peek()
            && *at <= now
        {
            let Some(Reverse((_, drop))) = self.parked.pop() else { break };
            if let Some(lane) = self.lanes.get(&drop) {
                self.yards.entry(lane.spot.volume).or_default().ready.push_back(drop);
            }
        }
        let (&volume, yard) = self.yards.iter_mut().find(|(_, yard)| yard.may_go())?;
        let (mut drops, mut batches, mut bytes) = (Vec::new(), Vec::new(), 0);
        while drops.len() < DROPS
            && bytes < JOB_BYTES
            && let Some(drop) = yard.ready.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&drop) else { continue };
            let letters: Vec<Waiting> = lane.waiting.drain(..lane.waiting.len().min(BATCH)).collect();
            lane.out = letters.iter().map(|waiting| waiting.letter.key).collect();
            bytes += letters.iter().map(|waiting| waiting.letter.message.text.bytes()).sum::<u64>();
            batches.push(Batch { spot: lane.spot.clone(), letters });
            drops.push(drop);
        }
        yard.out += 1;
        Some((drops, volume, Load { min_uid, batches }))
    }

    /// Letters that have waited too long for their turn.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Key> {
        let mut keys = Vec::new();
        // Those behind a job that does not end. What the job has is not known.
        for lane in self.lanes.values_mut().filter(|lane| !lane.out.is_empty()) {
            while lane.waiting.front().is_some_and(|first| first.since + WAIT <= now) {
                keys.extend(lane.waiting.pop_front().map(|waiting| waiting.letter.key));
            }
        }
        for yard in self.yards.values_mut() {
            while let Some(drop) = yard.ready.front()
                && let Some(lane) = self.lanes.get_mut(drop)
                && lane.waiting.front().is_none_or(|first| first.since + WAIT <= now)
            {
                keys.extend(lane.waiting.drain(..).map(|waiting| waiting.letter.key));
                self.lanes.remove(drop);
                yard.ready.pop_front();
            }
        }
        keys
    }

    /// A job has ended, or was lost, or not even begun: what became of its letters.
    pub(super) fn told(&mut self, now: Instant, volume: u64, drops: Vec<PathBuf>, ended: Ended) -> Vec<(Key, Fate)> {
        let yard = self.yards.entry(volume).or_default();
        yard.out = yard.out.saturating_sub(1);
        let mut fates = Vec::new();
        let deferred = || Fate::Deferred("4.3.0 the disks are too busy".to_owned());
        match ended {
            Ended::Carried(carried) => {
                for (drop, carried) in drops.into_iter().zip(carried) {
                    self.told_of(now, drop, carried, &mut fates);
                }
            }
            Ended::Lost => drops.into_iter().for_each(|drop| self.lost(drop, || Fate::Unknown, &mut fates)),
            Ended::Refused => drops.into_iter().for_each(|drop| self.lost(drop, deferred, &mut fates)),
        }
        self.yards.retain(|_, yard| yard.out > 0 || !yard.ready.is_empty());
        fates
    }

    /// A batch did not come back.
    fn lost(&mut self, drop: PathBuf, fate: impl Fn() -> Fate, fates: &mut Vec<(Key, Fate)>) {
        let Some(lane) = self.lanes.get_mut(&drop) else { return };
        fates.extend(std::mem::take(&mut lane.out).into_iter().map(|key| (key, fate())));
        self.rest(drop);
    }

    /// A batch came back.
    fn told_of(&mut self, now: Instant, drop: PathBuf, carried: Carried, fates: &mut Vec<(Key, Fate)>) {
        let Some(lane) = self.lanes.get_mut(&drop) else { return };
        lane.out.clear();
        let mut parked = false;
        let deferred = |why: &str| Fate::Deferred(why.to_owned());
        let Carried { letters, result, .. } = carried;
        match result {
            Ok(delivered) => fates.extend(delivered_to(letters, delivered)),
            Err(Failed::Unknown(fault)) => {
                log::error!("{fault}: it is not known whether {} messages are in the drop", letters.len());
                fates.extend(letters.into_iter().map(|waiting| (waiting.letter.key, Fate::Unknown)));
            }
            Err(Failed::Refused(Refused::Locked | Refused::InUse)) => {
                for waiting in letters.into_iter().rev() {
                    let locked = waiting.locked.unwrap_or(now);
                    if now.saturating_duration_since(locked) >= PATIENCE {
                        fates.push((waiting.letter.key, deferred("4.2.0 the mailbox is locked")));
                    } else {
                        lane.waiting.push_front(Waiting { locked: Some(locked), ..waiting });
                        parked = true;
                    }
                }
            }
            Err(Failed::Refused(Refused::Unsafe(fault) | Refused::Fault(fault))) => {
                log::error!("delivery: {fault}");
                let why = why(&fault);
                fates.extend(letters.into_iter().map(|waiting| (waiting.letter.key, Fate::Deferred(why.clone()))));
            }
        }
        match parked {
            true => self.parked.push(Reverse((now + LOCK_RETRY, drop))),
            false => self.rest(drop),
        }
    }

    /// No job has it any more: what came meanwhile is ready.
    fn rest(&mut self, drop: PathBuf) {
        let Some(lane) = self.lanes.get(&drop) else { return };
        if lane.waiting.is_empty() {
            self.lanes.remove(&drop);
        } else {
            self.yards.entry(lane.spot.volume).or_default().ready.push_back(drop);
        }
    }
}

/// What a sender may hear of a fault: no path of ours.
fn why(fault: &Fault) -> String {
    match fault.source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "4.2.2 no space for the mailbox".to_owned(),
        _ => "4.2.0 the mailbox cannot be written to".to_owned(),
    }
}

fn delivered_to(letters: Vec<Waiting>, delivered: Delivered) -> Vec<(Key, Fate)> {
    let Delivered { outcomes, intent, found } = delivered;
    let found: Vec<Arc<Stand>> =
        found.into_iter().map(|(id, found)| Arc::new(Stand { id, left: AtomicUsize::new(0), found })).collect();
    let earlier = |letter: &Letter| {
        let mine = letter.queued.as_ref()?;
        found.iter().find(|stand| stand.found.contains(mine)).cloned()
    };
    let mut fates: Vec<(Key, Fate)> = Vec::with_capacity(letters.len());
    let mut ours = Vec::new();
    for (waiting, outcome) in letters.into_iter().zip(outcomes) {
        let letter = waiting.letter;
        match outcome {
            delivery::Outcome::Delivered => {
                let earlier = earlier(&letter);
                if letter.queued.is_some() && earlier.is_none() {
                    ours.push(fates.len());
                }
                fates.push((letter.key, Fate::Delivered(earlier.into_iter().collect())));
            }
            delivery::Outcome::Before(id) => fates.push((letter.key, Fate::Before(id))),
            delivery::Outcome::Unread(fault) => {
                log::error!("delivery of {}: {fault}", letter.message.id);
                fates.push((letter.key, Fate::Deferred("4.3.0 its text cannot be read".to_owned())));
            }
        }
    }
    if let Some(id) = intent {
        let stand = Arc::new(Stand { id, left: AtomicUsize::new(ours.len()), found: Vec::new() });
        for at in ours {
            if let (_, Fate::Delivered(stands)) = &mut fates[at] {
                stands.push(stand.clone());
            }
        }
    }
    fates
}

impl Load {
    /// Brings them into their drops. Says, too, whose user is to be told that his mailbox fills `percent`. In a job.
    pub(super) fn carry(mut self, intents: &Intents, disk: &RealDisk, percent: u8) -> Vec<Carried> {
        let mut odd: Vec<Option<Failed>> = Vec::with_capacity(self.batches.len());
        for Batch { spot, .. } in &mut self.batches {
            let owner = spot.uid.as_deref().map(|uid| account::owner(uid, self.min_uid)).transpose();
            odd.push(match owner {
                Ok(owner) => {
                    spot.place.owner = owner;
                    None
                }
                Err(why) => Some(Fault::new("writing to", &spot.place.drop, io::Error::other(why)).into()),
            });
        }
        let good = || self.batches.iter().zip(&odd).filter(|(_, odd)| odd.is_none()).map(|(batch, _)| batch);
        let stored: Vec<Vec<delivery::Letter<'_>>> =
            good().map(|batch| batch.letters.iter().map(|waiting| waiting.letter.stored()).collect()).collect();
        let batches: Vec<(&Place, &[delivery::Letter<'_>])> =
            good().zip(&stored).map(|(batch, letters)| (&batch.spot.place, &letters[..])).collect();
        let mut results = deliver_all(intents, &batches).into_iter();
        // As many as are good came in, and as many go out.
        let mut next = || results.next().unwrap_or_else(|| Err(Refused::Locked.into()));
        let results: Vec<Result<Delivered, Failed>> =
            odd.into_iter().map(|odd| odd.map_or_else(&mut next, Err)).collect();
        let carried = self.batches.into_iter().zip(results).map(|(batch, result)| {
            let filled = result.is_ok() && batch.fills(disk, percent);
            let filled = batch.letters.first().filter(|_| filled).map(|first| {
                let user = first.letter.recipient.clone();
                Filled { user, limit: batch.spot.limit }
            });
            Carried { letters: batch.letters, result, filled }
        });
        carried.collect()
    }
}

impl Batch {
    /// What cannot be told is no reason to call a delivery failed.
    fn fills(&self, disk: &RealDisk, percent: u8) -> bool {
        let Spot { place, limit, .. } = &self.spot;
        quota::newly_passed(disk, place, *limit, percent).unwrap_or_else(|refused| {
            log::warn!("{}: it cannot be told how full this mailbox is: {refused}", place.drop.display());
            false
        })
    }
}

impl Letter {
    fn stored(&self) -> delivery::Letter<'_> {
        let Message { sender, received, posted_secs, text, .. } = &*self.message;
        let (recipient, posted_secs) = (self.recipient.as_bytes(), *posted_secs);
        let sender = self.sender.as_ref().unwrap_or(sender).as_bytes();
        let envelope = Envelope { sender, recipient, received, posted_secs };
        // One of the queue has it in its file.
        let marked = if self.queued.is_none() { self.message.marked() } else { None };
        delivery::Letter { envelope, body: text.body(), queued: self.queued.clone(), marked }
    }
}
