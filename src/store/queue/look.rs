//! All messages of the queue, or those that are due first, without holding more of them than was asked for.

use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::places::{HOUR_SECS, Place, begin_of, hour_of};
use super::{Found, Id, Miss, Queue};
use crate::store::desk::there;
use crate::store::disk::{Disk, How};
use crate::text::fault::Fault;

/// Names between two beats of a job's pulse.
const BEAT: u64 = 1024;
/// So often they are counted anew because some came or went meanwhile.
const COUNTS: usize = 3;
/// So many that were released and lie with those that are held are put right at a start.
const FORGOTTEN_MAX: usize = 4096;
const NANOS: i64 = 1_000_000_000;

/// Those that are due first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Soonest {
    /// When each is due, as far as its place tells; the first first.
    pub messages: Vec<(i64, Id)>,
    /// From when on there are more; `None`: there are none.
    pub more_secs: Option<i64>,
}

/// The soonest of those that come by.
struct Heap {
    heap: BinaryHeap<(i64, Id)>,
    most: usize,
    more_secs: Option<i64>,
}

impl Heap {
    fn more(&mut self, secs: i64) {
        self.more_secs = Some(self.more_secs.map_or(secs, |known| known.min(secs)));
    }

    fn add(&mut self, secs: i64, id: Id) {
        self.heap.push((secs, id));
        if self.heap.len() > self.most
            && let Some((secs, _)) = self.heap.pop()
        {
            self.more(secs);
        }
    }
}

impl<D: Disk> Queue<D> {
    /// The `most` messages that are due first, of the hours that have begun at `now_secs`. Not those in `queue` itself: they are
    /// somebody's, who [puts](Queue::put) them into an hour when he lets go of them. What waits for a time behind `latest_secs`, which nobody
    /// can have meant, was noted before the clock was put back: it is due at once. Of an hour that is over all are due, and come as they
    /// stand. Empty hours of the past are removed. `beat` is called every now and then.
    pub fn soonest(
        &self,
        now_secs: i64,
        latest_secs: i64,
        most: usize,
        beat: &mut dyn FnMut(),
    ) -> Result<Soonest, Fault> {
        self.places.look_for_hours(&mut |_| {})?;
        let mut soonest = Heap { heap: BinaryHeap::new(), most, more_secs: None };
        let (this, last) = (hour_of(now_secs), hour_of(latest_secs));
        for hour in self.places.all_hours() {
            if (this + 1..=last).contains(&hour) {
                soonest.more(begin_of(hour));
                continue;
            }
            let begin = begin_of(hour).min(now_secs);
            let (mut is_empty, mut seen) = (true, 0);
            self.each_name(Place::Due(hour), &mut |dir, name| {
                (is_empty, seen) = (false, seen + 1);
                if seen % BEAT == 0 {
                    beat();
                }
                let Some(id) = name.to_str().and_then(Id::new) else { return true };
                if hour == this {
                    // What its time says is a hint: which hour it is its place tells.
                    let mtime =
                        self.disk.look(dir, Path::new(&name)).map_or(begin, |seen| seen.mtime.div_euclid(NANOS));
                    soonest.add(mtime.clamp(begin, begin_of(hour) + HOUR_SECS - 1), id);
                } else if soonest.heap.len() < most {
                    soonest.add(begin, id);
                } else {
                    soonest.more(begin);
                    return false;
                }
                true
            })?;
            if is_empty && hour < this {
                self.places.remove_hour(hour);
            }
        }
        Ok(Soonest { messages: soonest.heap.into_sorted_vec(), more_secs: soonest.more_secs })
    }

    /// Puts a message where it is found in time: by `due_secs`, when one of its recipients may be tried again or its sender is to be told;
    /// `None`: when none may. To be called behind the last [`note`](Queue::note) of a round or of an order. It is a hint that no crash
    /// keeps: what counts is in the file.
    pub fn put(&self, id: &str, due_secs: Option<i64>) -> Result<(), Miss> {
        let _lock = self.lock(id);
        let fault = |place, error| Miss::Fault(self.fault_at("moving", place, id, error));
        let (from, file) = match self.places.open_file(id, How::Read) {
            Ok(found) => found.ok_or(Miss::Gone)?,
            Err((place, error)) => return Err(fault(place, error)),
        };
        let to = Place::of(due_secs);
        let nanos = due_secs.unwrap_or(0).saturating_mul(NANOS);
        // It only orders those of one hour.
        drop(self.disk.set_times(&file, nanos, nanos));
        if to == from {
            return Ok(());
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.places.carry(id, from, to, Path::new(id)).map_err(|error| fault(from, error))
    }

    /// Puts a message among those that are due if it lies in `queue` itself: for who had it in his care, and forgets it.
    pub fn let_go(&self, id: &str) -> Result<(), Miss> {
        match self.places.whereabouts(id) {
            Ok(Some(Place::New)) => self.put(id, Some(0)),
            Ok(_) => Ok(()),
            Err((place, error)) => Err(Miss::Fault(self.fault_at("looking at", place, id, error))),
        }
    }

    /// Says the id of each message, whatever is in its file, until `each` wants no more, and holds none of them. One that comes, goes or
    /// is put elsewhere meanwhile is said perhaps, or twice.
    pub fn walk(&self, each: &mut dyn FnMut(&str) -> bool) -> Result<(), Fault> {
        self.walk_with(each, &mut |_| {})
    }

    fn walk_with(&self, each: &mut dyn FnMut(&str) -> bool, others: &mut dyn FnMut(Found)) -> Result<(), Fault> {
        self.places.look_for_hours(&mut |path| others(Found::Strange(path)))?;
        let hours = self.places.all_hours().into_iter().map(Place::Due);
        let mut goes_on = true;
        // In the order in which messages move: then few are missed.
        for place in std::iter::once(Place::New).chain(hours).chain([Place::Held]) {
            self.each_name(place, &mut |dir, name| {
                // There its makers know what is new, and start has said what else there is.
                if place == Place::New {
                    goes_on = name.to_str().and_then(Id::new).is_none_or(|id| each(id.as_str()));
                } else {
                    match self.judge_name(place, dir, &name) {
                        Ok(id) => goes_on = each(id),
                        Err(found) => found.into_iter().for_each(&mut *others),
                    }
                }
                goes_on
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Looks through those that are held for some that a crash has left there though they were released, and puts them where they are
    /// found. Says whether there were any. `beat` is called every now and then.
    pub fn release_forgotten(&self, beat: &mut dyn FnMut()) -> Result<bool, Fault> {
        let mut forgotten = Vec::new();
        self.each_name(Place::Held, &mut |_, name| {
            beat();
            if let Some(id) = name.to_str().and_then(Id::new)
                && let Ok(message) = self.read(id.as_str())
                && message.tally.due_secs().is_some()
            {
                forgotten.push((id, message.tally.due_secs()));
            }
            forgotten.len() < FORGOTTEN_MAX
        })?;
        let is_put = |(id, due_secs): &(Id, Option<i64>)| self.put(id.as_str(), *due_secs).is_ok();
        Ok(forgotten.iter().filter(|found| is_put(found)).count() > 0)
    }

    /// The names of a directory, if there is one.
    fn each_name(&self, place: Place, each: &mut dyn FnMut(&D::Dir, OsString) -> bool) -> Result<(), Fault> {
        let path = self.places.path(place);
        let read = |error: io::Error| Fault::new("reading", &path, error);
        let Some(dir) = self.places.dir(place).map_err(read)? else { return Ok(()) };
        // It may go meanwhile.
        there(self.disk.names(&dir, &mut |name| each(&dir, name))).map_err(read).map(drop)
    }

    /// How many messages there are; `None`: nobody has [counted](Queue::count_all) them.
    pub fn count(&self) -> Option<u64> {
        self.counted().map(|count| u64::try_from(count).unwrap_or(0))
    }

    /// Counts them; from then on it is known. When many come and go meanwhile it may be a few less or more. `others`: what lies among
    /// them and is none. `beat` is called every now and then.
    pub fn count_all(&self, others: &mut dyn FnMut(Found), beat: &mut dyn FnMut()) -> Result<u64, Fault> {
        let mut count: u64 = 0;
        for round in 0..COUNTS {
            count = 0;
            let before = self.changes.load(Ordering::SeqCst);
            let mut each = |_: &str| {
                count += 1;
                if count.is_multiple_of(BEAT) {
                    beat();
                }
                true
            };
            match round {
                0 => self.walk_with(&mut each, others)?,
                _ => self.walk(&mut each)?,
            }
            let mut counted = self.counted();
            *counted = Some(i64::try_from(count).unwrap_or(i64::MAX));
            if self.changes.load(Ordering::SeqCst) == before {
                break;
            }
        }
        Ok(count)
    }

    fn counted(&self) -> MutexGuard<'_, Option<i64>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many came, or went.
    pub(super) fn count_more(&self, more: i64) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(count) = &mut *self.counted() {
            *count = count.saturating_add(more);
        }
    }
}
