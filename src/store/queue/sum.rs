//! A file whose states have become long is written anew, with what counts of them: one line for all who came to the same by the same
//! line, and nothing of what they were before but whose senders were warned. Numbers of reports stay, and so does which way each goes by hand.
//!
//! The new file is written as `ID.new`, synced, given the name over the old one, and the directory is synced; before that the old one
//! is brought back to `queue`, so that nothing is ever written beside the names of an hour. Until the directory is synced nothing more is
//! noted, by whatever process: a power cut leaves the one or the other, and both say the same. Two renames of one name reach the disk in
//! their order, as on every file system that has a journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::file::{self, Opened, Slot, Told, Unread};
use super::places::Place;
use super::state::{self, Stage, State, Warned};
use super::{Miss, NEW, PIECE_BYTES, Queue, RUNS_MAX, STATES_BYTES};
use crate::store::desk::there;
use crate::store::disk::{Disk, How};
use crate::text::fault::Fault;

/// Octets of a reason that are kept in a file whose states are long though each of them counts: of thousands of recipients who all have
/// another one.
const WHY_BYTES: usize = 80;

/// So many lines are few: they may say their reasons in full.
const FEW: usize = 500;

/// What a reason may have, in a file with states of so many bytes.
pub(super) fn why_bytes(states: u64) -> usize {
    if states >= STATES_BYTES { WHY_BYTES } else { state::WHY_BYTES }
}

/// Whether they are long, and at least half of their lines say nothing any more.
pub(super) fn is_worth_it(states: u64, told: &Told) -> bool {
    if states < STATES_BYTES {
        return false;
    }
    let mut lines: Vec<u32> = told.slots.iter().flat_map(|slot| [slot.line_at, slot.via_at]).flatten().collect();
    lines.sort_unstable();
    lines.dedup();
    lines.len() * 2 <= told.lines
}

impl<D: Disk> Queue<D> {
    /// Writes a message's file anew, and opens it. Whoever calls has its lock.
    pub(super) fn sum_up(&self, opened: &Opened<D>, told: &Told, id: &str, at_secs: i64) -> Result<Opened<D>, Miss> {
        let (disk, new) = (&self.disk, PathBuf::from(format!("{id}{NEW}")));
        let path = self.places.path(Place::New).join(&new);
        let fault = |doing: &'static str| move |error: io::Error| Miss::Fault(Fault::new(doing, &path.clone(), error));
        let dir = self.places.of_new();
        there(disk.remove(dir, &new)).map_err(fault.clone()("removing"))?;
        let file = disk.open(dir, &new, How::CreateNew).map_err(fault.clone()("making"))?;
        let written = self.write_sum(opened, told, id, at_secs, &file).map_err(fault.clone()("writing"));
        let written = written.and_then(|()| disk.sync(&file).map_err(fault.clone()("syncing")));
        let named = written.and_then(|()| {
            if opened.place != Place::New {
                self.places.carry(id, opened.place, Place::New, Path::new(id)).map_err(fault.clone()("moving"))?;
            }
            disk.rename(dir, &new, Path::new(id)).map_err(fault.clone()("renaming"))
        });
        if let Err(miss) = named {
            // If that fails the next start does it: nobody takes it for a message.
            drop(disk.remove(dir, &new));
            return Err(miss);
        }
        if let Err(fault) = self.sync_names() {
            self.unsure.fetch_add(1, Ordering::SeqCst);
            return Err(Miss::Fault(fault));
        }
        self.opened(id, How::Write)
    }

    /// Names that were given to summed-up files are on disk when this returns.
    pub(super) fn make_sure(&self) -> Result<(), Miss> {
        let unsure = self.unsure.load(Ordering::SeqCst);
        if unsure > 0 {
            self.sync_names().map_err(Miss::Fault)?;
            // Another one that failed meanwhile stays.
            let _ = self.unsure.compare_exchange(unsure, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        Ok(())
    }

    fn write_sum(&self, opened: &Opened<D>, told: &Told, id: &str, at_secs: i64, file: &D::File) -> io::Result<()> {
        let (mut piece, mut at) = (Vec::new(), 0);
        while at < opened.states.start {
            piece.resize((opened.states.start - at).min(PIECE_BYTES as u64) as usize, 0);
            if file::read(&self.disk, &opened.file, &mut piece, at)? < piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.disk.write(file, &piece, at)?;
            at += piece.len() as u64;
        }
        let mut lines = self.before(opened, told, id, at_secs)?;
        let mut said = by_number(told, |slot| slot.line_at);
        said.sort_unstable();
        let by_line = || said.chunk_by(|one, other| one.0 == other.0);
        let why_bytes = if by_line().count() > FEW { WHY_BYTES } else { state::WHY_BYTES };
        for same in by_line() {
            let line = opened.line_at(same[0].0)?;
            for runs in runs(same).chunks(RUNS_MAX) {
                let again = state::said_again(id, &line, runs, why_bytes);
                lines.extend(again.ok_or(io::Error::new(io::ErrorKind::InvalidData, "its states change"))?);
            }
            if lines.len() > PIECE_BYTES {
                self.disk.write(file, &lines, at)?;
                at += lines.len() as u64;
                lines.clear();
            }
        }
        if lines.is_empty() { Ok(()) } else { self.disk.write(file, &lines, at) }
    }

    /// What is to be said first, so that the lines which count take recipients from where they are then: which way they go, while all
    /// wait; that some were deferred, and whose senders were warned then; that some failed.
    fn before(&self, opened: &Opened<D>, told: &Told, id: &str, at_secs: i64) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        let mut add = |said: &[(u32, u32)], state: &State, via: Option<&str>| {
            for runs in runs(said).chunks(RUNS_MAX) {
                lines.extend(state::encode(id, runs, at_secs, state, via));
            }
        };
        let mut ways = by_number(told, |slot| slot.via_at);
        ways.sort_unstable();
        for same in ways.chunk_by(|one, other| one.0 == other.0) {
            let said = opened.said_at(same[0].0).map_err(|unread| match unread {
                Unread::Error(error) => error,
                Unread::Damaged(why) => io::Error::new(io::ErrorKind::InvalidData, why),
            })?;
            add(same, &State::Waiting, said.via.as_deref());
        }
        for (is_warned, warned) in [(false, Warned::No), (true, Warned::Yes)] {
            let deferred = State::Deferred { next_secs: 0, tries: 0, why: String::new(), possibly: false, warned };
            let is_meant = |slot: &Slot| slot.warned == is_warned && (is_warned || slot.stage == Stage::Waiting);
            add(&by_number(told, |slot| slot.line_at.filter(|_| is_meant(slot))), &deferred, None);
        }
        let is_meant = |slot: &Slot| !Stage::Waiting.may_become(slot.stage) && slot.stage != Stage::Waiting;
        let failed = State::Failed { why: String::new(), bounce: 0 };
        add(&by_number(told, |slot| slot.line_at.filter(|_| is_meant(slot))), &failed, None);
        Ok(lines)
    }
}

/// Lines, and the numbers of those of whom this says that they matter, by number.
fn by_number(told: &Told, line_of: impl Fn(&Slot) -> Option<u32>) -> Vec<(u32, u32)> {
    let lines = (1..).zip(&told.slots);
    lines.filter_map(|(number, slot)| Some((line_of(slot)?, number))).collect()
}

/// Their numbers, neighbours together.
fn runs(said: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &(_, number) in said {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}
