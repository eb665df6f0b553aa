//! A maildrop while somebody has it open: numbers from 1 that never move, marks that delete nothing until [`commit`].
//!
//! | call                              | may wait | does                                                            |
//! |-----------------------------------|----------|------------------------------------------------------------------|
//! | [`open`](Maildrop::open)          | yes      | locks the bin for the session, brings the index up to date        |
//! | [`page`], [`row`], [`reader`]     | no¹      | look at the snapshot; mail that came later is not in it           |
//! | [`delete`], [`undelete_all`]      | no       | set and clear marks, in memory                                    |
//! | [`read`]                          | no       | remembers what was retrieved, in memory                           |
//! | [`expire`], [`mark_all`]          | yes      | mark what is old, what was fetched                                |
//! | [`commit`]                        | yes      | one record in the ledger and one sync: all marks or none          |
//! | [`compact`]                       | yes      | takes the dead bytes out; then gives the session lock up          |
//! | dropping it                       | no       | gives the session lock up; marks are forgotten                    |
//!
//! ¹ With [`Reach::Now`]; [`Miss::Cold`] then says that a job must go and look.
//!
//! [`commit`]: Maildrop::commit
//! [`compact`]: Maildrop::compact
//! [`page`]: Maildrop::page
//! [`row`]: Maildrop::row
//! [`reader`]: Maildrop::reader
//! [`delete`]: Maildrop::delete
//! [`read`]: Maildrop::read
//! [`expire`]: Maildrop::expire
//! [`mark_all`]: Maildrop::mark_all
//! [`undelete_all`]: Maildrop::undelete_all
//!
//! The operator's acts need the session lock too: [`undelete_on`], [`erase_on`], [`rename_user_on`].
//!
//! With [`Place::add_status`] a message that has no Status line is sent with one, which says whether an earlier session
//! [read](Maildrop::read) it: all sizes count it, whatever it says. A session that commits puts down in the index what it read,
//! without a sync; compaction carries it into the drop. Otherwise stored bytes are served as they are, and nothing is put down.
//!
//! An absent drop, and an empty one without a bin, is an empty mailbox: nothing is locked and nothing is made, unless
//! [`Place::lone`] asks for a bin. The promises
//! are DESIGN's: what `commit` answered stays deleted, what it did not answer is deleted wholly or not at all, and no
//! message goes that was not marked. Losing the ledger brings deletions back that were not yet compacted, no more.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use super::compaction::Compacted;
pub use super::desk::{Place, Refused, Remark};
pub use super::disk::{LockKind, Reach};
pub use super::erase::{Erased, erase_on};
pub use super::locks::{lock_for_another, unlock_for_another};
pub use super::reader::{Fetch, Fetched, MessageReader, Pulled};
pub use super::rename::{Renamed, rename_user_on};
pub use super::undelete::{Undeleted, undelete_on};
pub use crate::mail::identity::Uid;
use crate::mail::status::{STATUS_OCTETS, sent};
use crate::rules::bulletins::Seen;

use super::compaction;
use super::desk::{Bin, Desk, Remarks, Spot};
use super::disk::{Disk, How, RealDisk};
use super::index::{Entry, Header, Identity, Index, PAGE, Unread};
use super::ledger::{Ledger, Named, Record};
use super::locks::DropLocks;
use super::refresh::{self, Stale, write_ledger};
use crate::text::fault::Fault;
use crate::text::number::Fraction;

/// How often a file may be replaced under our hands before we let others settle it.
pub(super) const ATTEMPTS: u32 = 8;

/// A maildrop, open for one session.
pub struct Maildrop<D: Disk = RealDisk> {
    pub(super) core: Arc<Core<D>>,
    /// Where the ledger ends: the only part of a session that a commit moves.
    ledger: End,
    /// Nothing until the first message is marked.
    marks: Option<Box<Marks>>,
    /// What the ledger remembers of bulletins. Boxed, because most have none.
    bulletins: Option<Box<Seen>>,
    /// What [`commit`](Maildrop::commit) is to remember of them.
    seen: Option<Box<Seen>>,
}

/// What a session and its readers and jobs share; nothing in it changes but `seen`.
pub(super) struct Core<D: Disk> {
    pub(super) disk: D,
    pub(super) spot: Spot,
    /// Locked for the session. `None`: an empty mailbox for which nothing was opened.
    bin: Option<D::File>,
    /// `None`: there is no drop.
    pub(super) files: Option<Files<D>>,
    generation: u64,
    /// With the Status lines that are added.
    totals: Totals,
    /// What of the drop is not dead.
    kept_bytes: u64,
    /// The drop's size when the snapshot was taken.
    pub(super) size: u64,
    /// Where the From_ line of its last message begins, how long it is, and its check.
    pub(super) last_from: (u64, u32, u32),
    pub(super) tail_hash: u64,
    /// The drop as it was when it was found to be the one we know.
    seen: Mutex<Times>,
    remarks: Remarks,
}

pub(super) struct Files<D: Disk> {
    pub(super) drop: D::File,
    index: Index<D>,
}

/// Of an [`Identity`] what can change of a file that is open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) size: u64,
    pub(super) mtime: i64,
    ctime: i64,
}

impl Times {
    pub(super) fn of(seen: &Identity) -> Times {
        Times { size: seen.size, mtime: seen.mtime, ctime: seen.ctime }
    }
}

#[derive(Clone, Copy, Default)]
struct End {
    bytes: u64,
    serial: u32,
    /// This session made it: nobody was here before.
    is_new: bool,
    id: u64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages.
    pub messages: u32,
    /// Their size on the wire, before dots are doubled.
    pub octets: u64,
    /// The highest number that was read, 0 if none: what LAST says.
    pub last_read: u32,
}

/// One message, as LIST and UIDL show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// From 1.
    pub number: u32,
    /// What RETR sends, before dots are doubled, without the final line.
    pub octets: u64,
    /// What UIDL sends.
    pub uid: Uid,
    /// Marked in this session.
    pub deleted: bool,
}

/// Why something is not there to be had.
#[derive(Debug)]
pub enum Miss {
    /// Not in memory: let a job fetch it.
    Cold,
    /// The drop, or its index, is not what it was when the session began: it must end.
    Changed,
    /// The disk failed.
    Fault(Fault),
}

/// Why a message was not marked.
#[derive(Debug)]
pub enum NotDeleted {
    /// There is none with that number.
    NoSuch,
    /// It is marked already.
    Already,
    /// Its size could not be had; after [`Miss::Cold`], run [`Maildrop::lookup`] of it in a job and
    /// [`mark`](Maildrop::mark) what it finds.
    Missed(Miss),
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Commit {
    /// Messages deleted.
    pub deleted: u32,
    /// Their size on the wire.
    pub octets: u64,
    /// So much of the drop is dead that it is time for [`Maildrop::compact`].
    pub wants_compaction: bool,
}

/// What a session did to messages, one bit each, number 1 in the lowest of the first word. No words: to none.
#[derive(Default)]
struct Marks {
    deleted: Vec<u64>,
    count: u32,
    octets: u64,
    /// Read, and not before.
    read: Vec<u64>,
}

/// Where the bit of a message is.
fn bit(number: u32) -> (usize, u64) {
    let index = number as usize - 1;
    (index / 64, 1 << (index % 64))
}

impl Marks {
    fn has(&self, number: u32) -> bool {
        let (word, bit) = bit(number);
        self.deleted.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn set(bits: &mut Vec<u64>, messages: u32, number: u32) {
        let (word, bit) = bit(number);
        bits.resize((messages as usize).div_ceil(64), 0);
        bits[word] |= bit;
    }
}

impl Maildrop {
    /// Opens the maildrop at `place` for one session. Refuses as [`Refused`] says. Waits for the disk: only in a job.
    pub fn open(place: &Place) -> Result<Maildrop, Refused> {
        Maildrop::open_on(&RealDisk::default(), place)
    }
}

impl<D: Disk> Maildrop<D> {
    /// [`open`](Maildrop::open) on a disk of the caller's.
    pub fn open_on(disk: &D, place: &Place) -> Result<Maildrop<D>, Refused> {
        let (mut remarks, mut made) = (Remarks::default(), false);
        for _ in 0..ATTEMPTS {
            if let Some(mut maildrop) = Maildrop::attempt(disk, place, &mut remarks, &mut made)? {
                maildrop.ledger.is_new = made;
                return Ok(maildrop);
            }
        }
        Err(Refused::Locked)
    }

    /// `None`: something was replaced under our hands, begin again.
    fn attempt(
        disk: &D,
        place: &Place,
        remarks: &mut Remarks,
        made: &mut bool,
    ) -> Result<Option<Maildrop<D>>, Refused> {
        let Some(desk) = Desk::of(disk, place)? else { return Ok(Some(Maildrop::empty(disk, place))) };
        let mut bin = desk.lock_bin(How::Write)?;
        if matches!(bin, Bin::Absent) {
            if !place.lone && desk.open_drop()?.is_none_or(|(_, seen)| seen.size == 0) {
                return Ok(Some(Maildrop::empty(disk, place)));
            }
            *made = true;
            bin = desk.lock_bin(How::Create)?;
        }
        if matches!(bin, Bin::Moved) {
            remarks.add(Remark::BinMoved);
            *made = false;
        }
        let Bin::Held(bin) = bin else { return Ok(None) };
        if desk.short {
            remarks.add(Remark::ShortOfSpace);
        }
        let found = match desk.open_drop()? {
            Some((drop, seen)) => refresh::refresh(&desk, &drop, seen, &bin).map(|fresh| {
                let files = Files { drop, index: fresh.index };
                (fresh.bin.unwrap_or(bin), Some(files), fresh.header, fresh.remarks)
            }),
            None if place.lone => refresh::load(&desk, &bin, remarks).map(|ledger| {
                let known = Header {
                    bin_bytes: ledger.end,
                    bin_serial: ledger.serial,
                    bin_id: ledger.id,
                    bulletins: ledger.bulletins.unwrap_or_default(),
                    ..Header::default()
                };
                (bin, None, known, Remarks::default())
            }),
            None => return Ok(Some(Maildrop::empty(disk, place))),
        };
        match found {
            Ok((bin, files, header, mut heard)) => {
                heard.join(*remarks);
                Ok(Some(Maildrop::over(disk, desk.spot, Some(bin), files, &header, heard)))
            }
            Err(Stale::Replaced) => Ok(None),
            Err(Stale::Alien) => {
                desk.set_aside(".bin")?;
                remarks.add(Remark::AlienLedger);
                Ok(None)
            }
            Err(Stale::Refused(refused)) => Err(refused),
        }
    }

    fn empty(disk: &D, place: &Place) -> Maildrop<D> {
        Maildrop::over(disk, Spot::of(place), None, None, &Header::default(), Remarks::default())
    }

    fn over(
        disk: &D,
        mut spot: Spot,
        bin: Option<D::File>,
        files: Option<Files<D>>,
        header: &Header,
        remarks: Remarks,
    ) -> Maildrop<D> {
        if refresh::is_shared(header.foreign_secs, disk.now()) {
            spot.full = Fraction::ALL;
        }
        let added = if spot.add_status { u64::from(header.takers) * STATUS_OCTETS } else { 0 };
        let core = Core {
            disk: disk.clone(),
            spot,
            bin,
            files,
            generation: header.generation,
            totals: Totals { messages: header.count, octets: header.octets + added, last_read: header.last_read },
            kept_bytes: header.preamble + header.live_bytes,
            size: header.drop.size,
            last_from: (header.last.offset, header.last.from_bytes, header.last.from_check),
            tail_hash: header.tail_hash,
            seen: Mutex::new(Times::of(&header.drop)),
            remarks,
        };
        let ledger = End { bytes: header.bin_bytes, serial: header.bin_serial, is_new: false, id: header.bin_id };
        let bulletins = Some(header.bulletins).filter(|seen| seen.epoch != 0).map(Box::new);
        Maildrop { core: Arc::new(core), ledger, marks: None, bulletins, seen: None }
    }

    /// The drop file.
    pub fn path(&self) -> &Path {
        &self.core.spot.drop
    }

    /// Whether so much of the drop was dead when the session began that it is time for [`compact`](Maildrop::compact).
    pub fn wants_compaction(&self) -> bool {
        self.core.is_due(0, 0)
    }

    /// Bytes of memory that it holds.
    pub fn held(&self) -> usize {
        let spot = &self.core.spot;
        let paths = [Some(&spot.drop), spot.bins.as_ref()].into_iter().flatten();
        let marks = self.marks.as_ref().map_or(0, |marks| {
            size_of::<Marks>() + (marks.deleted.capacity() + marks.read.capacity()) * size_of::<u64>()
        });
        // What is shared has two counts before it.
        size_of::<Self>()
            + size_of::<Core<D>>()
            + 2 * size_of::<usize>()
            + paths.map(|path| path.as_os_str().len()).sum::<usize>()
            + marks
    }

    /// What was there when the session began.
    pub fn totals(&self) -> Totals {
        self.core.totals
    }

    /// The same without what is marked.
    pub fn live_totals(&self) -> Totals {
        let totals = self.totals();
        let (count, octets) = self.marks.as_ref().map_or((0, 0), |marks| (marks.count, marks.octets));
        Totals { messages: totals.messages - count, octets: totals.octets - octets, ..totals }
    }

    /// What the operator should hear about this maildrop.
    pub fn remarks(&self) -> Vec<Remark> {
        self.core.remarks.list()
    }

    /// Whether less than min_space was free for its bin; `None` for an empty mailbox, which has none.
    pub fn is_short(&self) -> Option<bool> {
        self.core.bin.as_ref().map(|_| self.remarks().contains(&Remark::ShortOfSpace))
    }

    /// Up to 64 messages from number `from` on, marked ones too; none when there are no more.
    pub fn page(&self, from: u32, reach: Reach) -> Result<Vec<Row>, Miss> {
        let rows = self.core.entries(from, PAGE as u32, reach)?;
        Ok(rows.into_iter().map(|(number, entry)| self.core.row(number, &entry, self.is_deleted(number))).collect())
    }

    /// The message with that number, marked or not; `None` when there is none.
    pub fn row(&self, number: u32, reach: Reach) -> Result<Option<Row>, Miss> {
        let rows = self.core.entries(number, 1, reach)?;
        Ok(rows.first().map(|(number, entry)| self.core.row(*number, entry, self.is_deleted(*number))))
    }

    /// [`page`](Maildrop::page) for a job, as the marks are now.
    pub fn lookup(&self, from: u32) -> Lookup<D> {
        let deleted = (0..PAGE as u32).filter(|&index| self.is_deleted(from.saturating_add(index)));
        let deleted = deleted.fold(0, |bits, index| bits | 1 << index);
        Lookup { core: Arc::clone(&self.core), from, deleted }
    }

    /// Marks a message; it goes when [`commit`](Maildrop::commit) is answered.
    pub fn delete(&mut self, number: u32) -> Result<(), NotDeleted> {
        if self.is_deleted(number) {
            return Err(NotDeleted::Already);
        }
        let row = self.row(number, Reach::Now).map_err(NotDeleted::Missed)?.ok_or(NotDeleted::NoSuch)?;
        self.mark(&row);
        Ok(())
    }

    /// Marks the message that a [`Lookup`] of this maildrop found, unless it is marked already.
    pub fn mark(&mut self, row: &Row) {
        if self.is_deleted(row.number) {
            return;
        }
        let marks = self.marks.get_or_insert_default();
        Marks::set(&mut marks.deleted, self.core.totals.messages, row.number);
        marks.count += 1;
        marks.octets += row.octets;
    }

    /// The message was sent whole: it is read when [`commit`](Maildrop::commit) is answered. To be said of one that
    /// [is news](MessageReader::is_news).
    pub fn read(&mut self, number: u32) {
        let messages = self.core.totals.messages;
        if self.core.spot.add_status && (1..=messages).contains(&number) {
            Marks::set(&mut self.marks.get_or_insert_default().read, messages, number);
        }
    }

    /// Whether [`commit`](Maildrop::commit) has anything to write.
    pub fn has_news(&self) -> bool {
        self.marks.is_some() || self.seen.is_some()
    }

    /// Whether a message is marked; `false` for numbers that are none.
    pub fn is_deleted(&self, number: u32) -> bool {
        let exists = (1..=self.core.totals.messages).contains(&number);
        exists && self.marks.as_ref().is_some_and(|marks| marks.has(number))
    }

    /// Forgets all marks, and what was read.
    pub fn undelete_all(&mut self) {
        self.marks = None;
    }

    /// How many are marked.
    pub fn deletions(&self) -> u32 {
        self.marks.as_ref().map_or(0, |marks| marks.count)
    }

    /// A reader of the message with that number, or of its top with so many body lines. There must be such a message:
    /// [`Miss::Changed`] says there is none.
    pub fn reader(&self, number: u32, body_lines: Option<u64>, reach: Reach) -> Result<MessageReader<D>, Miss> {
        let (_, entry) = self.core.entries(number, 1, reach)?.pop().ok_or(Miss::Changed)?;
        Ok(MessageReader::new(Arc::clone(&self.core), entry, body_lines))
    }

    /// What the ledger remembers of bulletins; `None` when nothing.
    pub fn bulletins(&self) -> Option<Seen> {
        self.bulletins.as_deref().copied()
    }

    /// Whether nobody had a bin here before this session.
    pub fn is_new(&self) -> bool {
        self.ledger.is_new
    }

    /// Whether there is a ledger in which something could be remembered of bulletins. There is none where nothing was opened.
    pub fn remembers(&self) -> bool {
        self.core.bin.is_some()
    }

    /// The next [`commit`](Maildrop::commit) is to remember this of bulletins, with what it deletes; `None`: nothing.
    pub fn remember(&mut self, seen: Option<Seen>) {
        self.seen = seen.map(Box::new);
    }

    /// Makes the marks good: one record in the ledger, synced; then what was read, in the index. Without marks nothing is
    /// written. Waits for the disk: only in a job. After a fault the marked messages are deleted all or not at all, and the
    /// session must end.
    pub fn commit(&mut self) -> Result<Commit, Fault> {
        let marks = self.marks.take();
        let commit = self.commit_deletions(marks.as_deref().filter(|marks| marks.count > 0))?;
        if let (Some(mut marks), Some(files)) = (marks, &self.core.files) {
            let Marks { read, deleted, .. } = &mut *marks;
            read.iter_mut().zip(deleted).for_each(|(read, deleted)| *read &= !*deleted);
            // What cannot be put down is unread once more: no harm is done, and none worth a word.
            let _ = files.index.put_seen(&self.core.disk, self.core.generation, self.core.totals.messages, read);
        }
        Ok(commit)
    }

    fn commit_deletions(&mut self, marked: Option<&Marks>) -> Result<Commit, Fault> {
        let seen = self.seen.take();
        let core = &self.core;
        let Some(bin) = core.bin.as_ref().filter(|_| marked.is_some() || seen.is_some()) else {
            return Ok(Commit { wants_compaction: self.wants_compaction(), ..Commit::default() });
        };
        let (mut deaths, mut dead_bytes) = (Vec::new(), 0);
        if let (Some(files), Some(marks)) = (&core.files, marked) {
            let mut number = 0;
            let read = files.index.read(&core.disk, core.generation, 0..core.totals.messages, Reach::Wait, |entry| {
                number += 1;
                if marks.has(number) {
                    dead_bytes += entry.extent.end() - entry.extent.offset;
                    deaths.push(Named { uid: entry.uid(), from_check: entry.extent.from_check });
                }
            });
            read.map_err(|unread| core.index_fault(unread))?;
        }
        // One record, so that it is all or none of them.
        let record = match &seen {
            Some(seen) => Record::Bulletins { seen: **seen, deaths },
            None => Record::Deaths(deaths),
        };
        let mut ledger =
            Ledger { id: self.ledger.id, serial: self.ledger.serial, end: self.ledger.bytes, ..Ledger::default() };
        let name = core.spot.drop.file_name().unwrap_or_default().as_encoded_bytes();
        let bytes = ledger.append(&[record], name, core.disk.random());
        write_ledger(&core.disk, bin, &bytes, self.ledger.bytes)
            .map_err(|(doing, error)| Fault::new(doing, &core.ledger_path(), error))?;
        if self.ledger.bytes == 0 {
            // The file may be as new as its first record.
            let parent = core.ledger_path();
            let parent = parent.parent().unwrap_or(&parent);
            let synced = core.disk.open_dir(parent).and_then(|dir| core.disk.sync_dir(&dir));
            synced.map_err(Fault::at("syncing", parent))?;
        }
        if let Some(seen) = seen {
            self.bulletins = Some(seen);
        }
        self.ledger = End { bytes: ledger.end, serial: ledger.serial, id: ledger.id, ..self.ledger };
        let (deleted, octets) = marked.map_or((0, 0), |marks| (marks.count, marks.octets));
        Ok(Commit { deleted, octets, wants_compaction: core.is_due(deleted, dead_bytes) })
    }

    /// Takes dead bytes out of the drop, then gives the session lock up. Long: only in a job for bulk work. `keep_going` is
    /// asked every megabyte; a no before the drop was touched answers [`Refused::Locked`], as does a drop that another program has
    /// locked: nothing is lost by that, the next session tries again.
    pub fn compact(self, keep_going: &mut dyn FnMut() -> bool) -> Result<Compacted, Refused> {
        let (Some(bin), Some(_)) = (&self.core.bin, &self.core.files) else { return Ok(Compacted::default()) };
        for _ in 0..ATTEMPTS {
            let Some(desk) = Desk::again(&self.core.disk, &self.core.spot)? else { break };
            let Some((drop, _)) = desk.open_drop()? else { break };
            let mut locks = DropLocks::take(&desk, &drop)?;
            match compaction::compact(&desk, &drop, bin, &mut locks, keep_going) {
                Ok(compacted) => return Ok(compacted),
                Err(Stale::Replaced) => {}
                Err(Stale::Refused(refused)) => return Err(refused),
                Err(Stale::Alien) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "the ledger became another drop's");
                    return Err(Fault::new("compacting", &desk.own_path(".bin"), error).into());
                }
            }
        }
        Ok(Compacted::default())
    }
}

impl<D: Disk> Drop for Maildrop<D> {
    fn drop(&mut self) {
        if let Some(bin) = &self.core.bin {
            // Readers and jobs may live on with the files; the session does not.
            drop(self.core.disk.unlock(bin, LockKind::Fcntl));
        }
    }
}

impl<D: Disk> fmt::Debug for Maildrop<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maildrop").field("drop", &self.core.spot.drop).field("totals", &self.core.totals).finish()
    }
}

/// A page of messages, to be looked up in a job.
pub struct Lookup<D: Disk = RealDisk> {
    core: Arc<Core<D>>,
    from: u32,
    /// Which of them are marked, the first in the lowest bit.
    deleted: u64,
}

impl<D: Disk> Lookup<D> {
    /// Up to 64 messages. Never [`Miss::Cold`].
    pub fn run(self) -> Result<Vec<Row>, Miss> {
        let rows = self.core.entries(self.from, PAGE as u32, Reach::Wait)?;
        let deleted = |number: u32| self.deleted >> (number - self.from) & 1 != 0;
        Ok(rows.into_iter().map(|(number, entry)| self.core.row(number, &entry, deleted(number))).collect())
    }

    /// Instead of rows, a reader of the first of these messages: [`Maildrop::reader`] for a job.
    pub fn reader(self, body_lines: Option<u64>) -> Result<MessageReader<D>, Miss> {
        let (_, entry) = self.core.entries(self.from, 1, Reach::Wait)?.pop().ok_or(Miss::Changed)?;
        Ok(MessageReader::new(self.core, entry, body_lines))
    }
}

impl<D: Disk> Core<D> {
    pub(super) fn row(&self, number: u32, entry: &Entry, deleted: bool) -> Row {
        Row { number, octets: self.octets(entry), uid: entry.uid(), deleted }
    }

    /// What RETR sends, with the Status line that is added.
    pub(super) fn octets(&self, entry: &Entry) -> u64 {
        entry.extent.octets + self.status(entry).map_or(0, |_| STATUS_OCTETS)
    }

    /// The Status line that is added.
    pub(super) fn status(&self, entry: &Entry) -> Option<&'static [u8]> {
        (self.spot.add_status && entry.extent.takes_status).then(|| sent(entry.seen))
    }

    /// Up to `most` entries from number `from` on, with their numbers.
    pub(super) fn entries(&self, from: u32, most: u32, reach: Reach) -> Result<Vec<(u32, Entry)>, Miss> {
        let count = self.totals.messages;
        let Some(files) = self.files.as_ref().filter(|_| (1..=count).contains(&from)) else { return Ok(Vec::new()) };
        let end = count.min((from - 1).saturating_add(most));
        let mut found = Vec::with_capacity((end + 1 - from) as usize);
        let mut number = from;
        let read = files.index.read(&self.disk, self.generation, from - 1..end, reach, |entry| {
            found.push((number, entry));
            number += 1;
        });
        match read {
            Ok(()) => Ok(found),
            Err(Unread::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock && reach == Reach::Now => {
                Err(Miss::Cold)
            }
            // The job that comes will find out what is wrong.
            Err(Unread::Doubtful) if reach == Reach::Now => Err(Miss::Cold),
            Err(Unread::Doubtful) => {
                if let Index::File(file) = &files.index {
                    // Void, so that the next session makes it anew.
                    drop(self.disk.write(file, &[0; 8], 0));
                }
                Err(Miss::Changed)
            }
            Err(unread) => Err(Miss::Fault(self.index_fault(unread))),
        }
    }

    /// Whether it is time for a compaction when `count` messages of `bytes` are dead besides: nothing is left, which is one
    /// truncate, or less than the place wants.
    fn is_due(&self, count: u32, bytes: u64) -> bool {
        let kept = self.kept_bytes.saturating_sub(bytes);
        kept < self.size && (self.totals.messages == count || self.spot.full.is_more_than(kept, self.size))
    }

    /// The drop as it was when it was last found to be the one we know.
    pub(super) fn seen(&self) -> MutexGuard<'_, Times> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_path(&self, ending: &str) -> std::path::PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.spot.drop.file_name().unwrap_or_default());
        name.push(ending);
        let beside = self.spot.drop.parent().unwrap_or(&self.spot.drop);
        self.spot.bins.as_deref().unwrap_or(beside).join(name)
    }

    fn ledger_path(&self) -> std::path::PathBuf {
        self.own_path(".bin")
    }

    fn index_fault(&self, unread: Unread) -> Fault {
        let error = match unread {
            Unread::Failed(error) => error,
            Unread::Doubtful => io::Error::new(io::ErrorKind::InvalidData, "not what was written"),
        };
        Fault::new("reading", &self.own_path(".idx"), error)
    }
}

#[cfg(test)]
impl<D: Disk> Maildrop<D> {
    /// Where in the drop a message stands.
    pub(super) fn offset_for_tests(&self, number: u32) -> Result<u64, Miss> {
        Ok(self.core.entries(number, 1, Reach::Wait)?[0].1.extent.offset)
    }

    /// What the session takes on the heap, but for its marks and its path.
    pub(super) fn bytes_for_tests(&self) -> usize {
        let entries = match self.core.files.as_ref().map(|files| &files.index) {
            Some(Index::Memory(entries)) => entries.capacity(),
            _ => 0,
        };
        size_of::<Core<D>>() + size_of::<Maildrop<D>>() + entries
    }

    /// The drop's size when the snapshot was taken.
    pub(super) fn size_for_tests(&self) -> u64 {
        self.core.size
    }
}
