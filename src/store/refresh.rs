//! How the index is brought up to date, under the session lock.
//!
//! | what is found                                          | what is done                                              |
//! |--------------------------------------------------------|-----------------------------------------------------------|
//! | drop and ledger as they were ([`Header::is_fresh`])     | nothing: one small read                                    |
//! | a copy of an interrupted compaction                     | the compaction is completed first                          |
//! | only deaths the index does not know                     | its entries are written anew without them                  |
//! | an append of ours that is not whole                     | it is taken out first: [`delivery`]                        |
//! | a longer drop, its old end and last From_ line in place | what follows is scanned, from the last From_ line on        |
//! | anything else                                           | all of it is scanned, messages are known again by UID       |
//!
//! All but the first and the third under the drop's own locks, which are given up at once if one is held. A ledger that is
//! mostly past is then written anew.
//!
//! **Others.** When bytes before the end we knew are not what they were, somebody else than a delivering program wrote to the
//! drop: a shell user's mailer, another server. He sees what we call dead until it is taken out, so the ledger remembers when it
//! was, to the day. A longer drop, other times of reading, and what an index of an earlier boot says are no evidence.
//!
//! **Seating.** When all is scanned, occurrences are given out again in file order. A message that has a namesake of equal text
//! is the one with the same From_ line, dead or alive; else it takes the lowest occurrence that is neither dead nor
//! gone; else one never used. What then sits nowhere was removed by somebody else, and its death is buried with it.
//!
//! **Seen.** Who was retrieved is known to the index alone ([`Entry::seen`]). It goes on with every entry that is kept, and by UID and From_ line from
//! an index that is made anew because the drop changed; from one that is lost nothing comes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use xxhash_rust::xxh3::xxh3_64;

use super::compaction;
use super::delivery;
use super::desk::{Desk, Refused, Remark, Remarks, refuse};
use super::disk::{Disk, How, LockKind, Stat};
use super::index::{self, Entry, Header, Identity, Index, Last, Unread, Writer, tail_bytes};
use super::ledger::{self, Ledger, Named, Record, is_after};
use super::locks::DropLocks;
use crate::mail::identity::Uid;
use crate::mail::mbox::{Extent, Scanner, from_check};
use crate::text::fault::Fault;

/// A drop is read in pieces of this size: small enough to be still in the processor's cache when they are looked at, and to need
/// no fresh pages from the kernel.
const PIECE_BYTES: usize = 64 * 1024;
/// So many NULs in a row are no mail, not even what a power cut leaves of it: a sparse file, made so that we read for hours.
const NUL_BYTES: u64 = 1 << 30;

/// The day within which one sighting of others is remembered for all.
const DAY_SECS: u64 = 86_400;
/// How long a drop counts as one that others work on.
const FOREIGN_SECS: u64 = 30 * DAY_SECS;

/// So many seats at most, and one for each hash, that only the number of a later one tells of: a damaged or made-up ledger
/// must not fill the memory.
const NAMELESS: usize = 1 << 20;

/// Room is made at once for so many messages, if the drop may hold as many.
const MANY: u64 = 4096;

/// An index that knows all there is.
pub(super) struct Fresh<D: Disk> {
    pub(super) index: Index<D>,
    pub(super) header: Header,
    pub(super) remarks: Remarks,
    /// The ledger, if it was written anew: with the session lock on it.
    pub(super) bin: Option<D::File>,
}

impl<D: Disk> Fresh<D> {
    fn as_it_was(index: Index<D>, header: Header, remarks: Remarks) -> Fresh<D> {
        Fresh { index, header, remarks, bin: None }
    }
}

/// Why an index could not be brought up to date.
pub(super) enum Stale {
    Refused(Refused),
    /// Another file has the drop's name now: open that.
    Replaced,
    /// The ledger is another drop's: set it aside and begin again.
    Alien,
}

impl From<Refused> for Stale {
    fn from(refused: Refused) -> Stale {
        Stale::Refused(refused)
    }
}

impl From<Fault> for Stale {
    fn from(fault: Fault) -> Stale {
        Stale::Refused(fault.into())
    }
}

/// Brings the index up to date with `drop`, which was opened and looked at under the session lock on `bin`.
pub(super) fn refresh<D: Disk>(desk: &Desk<D>, drop: &D::File, seen: Stat, bin: &D::File) -> Result<Fresh<D>, Stale> {
    let copied = desk.has_own(".copy")?;
    if !copied
        && let Some((file, header)) = index::open(desk)
        && header.is_fresh(&seen.into())
    {
        let ledger = desk.disk.stat(bin).map_err(Fault::at("looking at", &desk.own_path(".bin")))?;
        if (header.bin_inode, header.bin_bytes) == (ledger.inode, ledger.size) {
            return Ok(Fresh::as_it_was(Index::File(file), header, Remarks::default()));
        }
        if let Some(fresh) = thin(desk, bin, ledger.inode, &Index::File(file), header)? {
            return Ok(fresh);
        }
    }
    let mut locks = DropLocks::take(desk, drop)?;
    refresh_locked(desk, drop, bin, &mut locks)
}

/// When only the ledger says more, the drop is not looked at, and nobody need be kept from it. `None`: there is more to do.
fn thin<D: Disk>(
    desk: &Desk<D>,
    bin: &D::File,
    bin_inode: u64,
    index: &Index<D>,
    header: Header,
) -> Result<Option<Fresh<D>>, Stale> {
    let mut remarks = Remarks::default();
    let ledger = load(desk, bin, &mut remarks)?;
    if !is_of(&header, bin_inode, &ledger) {
        return Ok(None);
    }
    match without_dead(desk, &ledger, index, header) {
        Ok(thinned) => close(desk, bin, ledger, thinned.writer, thinned.header, remarks).map(Some),
        Err(Trouble::Refused(refused)) => Err(refused.into()),
        Err(Trouble::Doubtful) => Ok(None),
    }
}

/// Whether an index was made with this ledger, and lacks nobody whom the ledger called back.
fn is_of(header: &Header, bin_inode: u64, ledger: &Ledger) -> bool {
    header.bin_inode == bin_inode
        && header.bin_bytes <= ledger.end
        && (header.bin_id == ledger.id || header.bin_bytes == 0)
        && ledger.revived.is_none_or(|serial| header.bin_bytes > 0 && !is_after(serial, header.bin_serial))
}

/// Whether others were seen at the drop so lately that it is treated as theirs too.
pub(super) fn is_shared(foreign_secs: u64, now: i64) -> bool {
    is_within(foreign_secs, now, FOREIGN_SECS)
}

/// Whether that was less than `secs` ago. A clock that was wrong then may have been a day ahead, no more.
fn is_within(at_secs: u64, now: i64, secs: u64) -> bool {
    let now = seconds(now);
    at_secs > 0 && at_secs.saturating_add(secs) > now && at_secs <= now.saturating_add(DAY_SECS)
}

fn seconds(nanos: i64) -> u64 {
    nanos.max(0).cast_unsigned() / 1_000_000_000
}

/// The same under the drop's locks.
pub(super) fn refresh_locked<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    bin: &D::File,
    locks: &mut DropLocks<'d, D>,
) -> Result<Fresh<D>, Stale> {
    let disk = &desk.disk;
    if !desk.is_named(drop)? {
        return Err(Stale::Replaced);
    }
    let mut remarks = locks.remarks;
    let mut ledger = load(desk, bin, &mut remarks)?;
    // Mail may have come since it was begun, and made another compaction not due for long. What is not ours under that name is
    // left for a compaction to refuse.
    if desk.has_own(".copy.new")? && desk.open_own(".copy.new", How::Read).is_ok() {
        let _ = desk.remove_own(".copy.new");
    }
    if desk.has_own(".copy")? {
        compaction::recover(desk, drop, bin, &mut ledger, locks, &mut remarks)?;
    }
    // Behind the copy, which may be of the same: see there.
    delivery::settle(desk, drop, locks)?;
    let mut work = Work {
        desk,
        drop,
        bin_inode: disk.stat(bin).map_err(Fault::at("looking at", &desk.own_path(".bin")))?.inode,
        ledger,
        locks,
        seen_at: disk.now(),
        seen: disk.stat(drop).map_err(desk.fault("looking at"))?.into(),
        records: Vec::new(),
        foreign: false,
    };
    let (mut writer, mut header) = match work.bring()? {
        Brought::Unchanged(index, header) => return Ok(Fresh::as_it_was(index, header, remarks)),
        Brought::Written(writer, header) => (writer, header),
    };
    if work.foreign && !is_within(work.ledger.foreign_secs, work.seen_at, DAY_SECS) {
        work.records.push(Record::Foreign { at_secs: seconds(work.seen_at) });
    }
    let after = disk.stat(drop).map_err(desk.fault("looking at"))?;
    // Somebody who knows no locks wrote while we read: what we have is good for this session, whose readers look again, and
    // for no other.
    header.seen_at = if Identity::from(after) == work.seen { work.seen_at } else { 0 };
    header.settled = false;
    header.drop = work.seen;
    header.tail_hash = tail_hash(desk, drop, work.seen.size)?;
    if header.last.from_bytes == 0 && header.preamble > 0 {
        remarks.add(Remark::NotAnMbox);
    }
    let records = std::mem::take(&mut work.records);
    if !records.is_empty()
        && let Err(fault) = append(desk, bin, &mut work.ledger, &records)
    {
        // A name that could not be written down must not be shown: it might be another's tomorrow.
        if records.iter().any(|record| matches!(record, Record::Repetition(_))) {
            return Err(fault.into());
        }
        // And what could not be written to the ledger must not be believed by the next session.
        writer.keep_in_memory().map_err(|unread| self::fault(desk, unread))?;
        work.ledger = load(desk, bin, &mut remarks)?;
    }
    close(desk, bin, work.ledger, writer, header, remarks)
}

/// Ends an index: what the ledger is goes into its header. A ledger that is mostly past is written anew before that.
fn close<D: Disk>(
    desk: &Desk<D>,
    bin: &D::File,
    mut ledger: Ledger,
    writer: Writer<'_, D>,
    mut header: Header,
    mut remarks: Remarks,
) -> Result<Fresh<D>, Stale> {
    let renewed = shortened(desk, &mut ledger)?;
    let seen = desk.disk.stat(renewed.as_ref().unwrap_or(bin));
    header.bin_inode = seen.map_err(Fault::at("looking at", &desk.own_path(".bin")))?.inode;
    header.bin_bytes = ledger.end;
    header.bin_id = ledger.id;
    header.bin_serial = ledger.serial;
    header.foreign_secs = ledger.foreign_secs;
    header.bulletins = ledger.bulletins.unwrap_or_default();
    let index = writer.finish(&mut header).map_err(|unread| fault(desk, unread))?;
    if matches!(index, Index::Memory(_)) && !desk.short {
        remarks.add(Remark::IndexInMemory);
    }
    Ok(Fresh { index, header, remarks, bin: renewed })
}

/// What is known while an index is brought up to date.
struct Work<'w, 'd, D: Disk> {
    desk: &'d Desk<D>,
    drop: &'w D::File,
    bin_inode: u64,
    ledger: Ledger,
    locks: &'w mut DropLocks<'d, D>,
    seen: Identity,
    seen_at: i64,
    /// What the ledger must hear before the index is believed.
    records: Vec<Record>,
    /// Somebody else than a delivering program wrote to the drop.
    foreign: bool,
}

enum Brought<'d, D: Disk> {
    Unchanged(Index<D>, Header),
    Written(Writer<'d, D>, Header),
}

impl<'d, D: Disk> Work<'_, 'd, D> {
    fn bring(&mut self) -> Result<Brought<'d, D>, Refused> {
        let Some((file, header)) = index::open(self.desk) else { return self.rescan(None, &HashSet::new()) };
        let same_ledger = is_of(&header, self.bin_inode, &self.ledger);
        let same_drop = header.is_fresh(&self.seen);
        let grown = !same_drop && self.is_grown(&header)?;
        self.foreign = !same_drop && !grown && self.is_changed(&header);
        if !same_ledger || !same_drop && !grown {
            let (file, seen) = seen(self.desk, file, &header);
            return self.rescan(file, &seen);
        }
        let news = header.bin_bytes != self.ledger.end;
        let index = Index::File(file);
        let brought = match (news, grown) {
            (false, false) => Ok(Brought::Unchanged(index, header)),
            (true, false) => without_dead(self.desk, &self.ledger, &index, header)
                .map(|thinned| Brought::Written(thinned.writer, thinned.header)),
            (false, true) => self.grow(index, header, &HashSet::new()),
            (true, true) => match without_dead(self.desk, &self.ledger, &index, header) {
                Ok(Thinned { writer, mut header, dead }) => match writer.finish(&mut header) {
                    Ok(index) => self.grow(index, header, &dead),
                    Err(unread) => Err(unread.into()),
                },
                Err(trouble) => Err(trouble),
            },
        };
        match brought {
            Ok(brought) => Ok(brought),
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(Trouble::Doubtful) => self.rescan(None, &HashSet::new()),
        }
    }

    /// Whether the drop only grew since.
    fn is_grown(&self, header: &Header) -> Result<bool, Refused> {
        let (then, now) = (&header.drop, &self.seen);
        if (then.dev, then.inode) != (now.dev, now.inode)
            || now.size <= then.size
            || header.seen_at == 0
            || header.last.from_bytes == 0
        {
            return Ok(false);
        }
        Ok(tail_hash(self.desk, self.drop, then.size)? == header.tail_hash
            && has_from(self.desk, self.drop, &header.last)?)
    }

    /// Whether a drop that did not only grow is evidence of others: not when nothing was in it, nor when what we knew may be
    /// older than what we did.
    fn is_changed(&self, header: &Header) -> bool {
        let (then, now) = (&header.drop, &self.seen);
        let is_known = header.seen_at > 0 && header.last.from_bytes > 0 && header.boot == self.desk.disk.boot();
        let is_same = (then.dev, then.inode, then.size, then.mtime) == (now.dev, now.inode, now.size, now.mtime);
        is_known && !is_same
    }

    /// Everything anew, but for who was seen.
    fn rescan(&mut self, old: Option<D::File>, seen: &HashSet<(Uid, u32)>) -> Result<Brought<'d, D>, Refused> {
        let mut writer = Writer::anew(self.desk, old);
        let mut seats = Seats::new(&self.ledger);
        seats.plain.reserve((self.seen.size / 1024).min(MANY) as usize);
        let mut header = Header { preamble: self.seen.size, ..Header::default() };
        let mut unread = None;
        scan(self.desk, self.drop, 0..self.seen.size, self.locks, &mut || true, |extent| {
            if header.last.from_bytes == 0 {
                header.preamble = extent.offset;
            }
            let (occurrence, dead) = seats.seat(&extent);
            header.last = last(&extent, occurrence, dead);
            if !dead && unread.is_none() {
                let mut entry = Entry { extent, occurrence, seen: false };
                entry.seen = !seen.is_empty() && seen.contains(&(entry.uid(), entry.extent.from_check));
                unread = push(&mut writer, &mut header, entry).err();
            }
            true
        })?;
        if let Some(unread) = unread {
            return Err(fault(self.desk, unread).into());
        }
        self.records = seats.records();
        Ok(Brought::Written(writer, header))
    }

    /// What was appended, and the last message before it, whose end may have changed.
    /// `dead` are those that were just taken out of the index.
    fn grow(&mut self, index: Index<D>, header: Header, dead: &HashSet<Uid>) -> Result<Brought<'d, D>, Trouble> {
        // So much that counting it in memory is no bargain.
        if self.seen.size - header.drop.size > header.drop.size.max(64 << 20) {
            return Err(Trouble::Doubtful);
        }
        let mut found = Vec::new();
        scan(self.desk, self.drop, header.last.offset..self.seen.size, self.locks, &mut || true, |extent| {
            found.push(extent);
            true
        })
        .map_err(Trouble::Refused)?;
        let first = *found.first().filter(|first| first.offset == header.last.offset).ok_or(Trouble::Doubtful)?;
        let was = Uid { hash: header.last.hash, occurrence: header.last.occurrence };
        let same = first.hash == was.hash;
        let kept =
            if header.last.dead { header.count } else { header.count.checked_sub(1).ok_or(Trouble::Doubtful)? };
        let mut anew = Header { count: kept, ..header };

        // Who sits already? Also a grown drop may hold messages that the ledger knows better than this index, which may be
        // older than it: it was not synced.
        let news: HashSet<u128> = found[usize::from(same)..].iter().map(|extent| extent.hash).collect();
        let mut seats = Seats::new(&self.ledger);
        // The dead whose place is known lie further up: what follows is another message, be it equal to the byte.
        for (uid, (_, serial)) in &self.ledger.deaths {
            if dead.contains(uid) || !is_after(*serial, header.bin_serial) {
                seats.leave(uid);
            }
        }
        if same {
            seats.occupy(was, first.from_check);
        }
        let mut last_entry = None;
        anew.last_read = 0;
        let mut number = 0;
        index.read(&self.desk.disk, header.generation, 0..header.count, super::disk::Reach::Wait, |entry| {
            number += 1;
            if number > kept {
                last_entry = Some(entry);
                return;
            }
            if entry.is_read() {
                anew.last_read = number;
            }
            if news.contains(&entry.extent.hash) {
                seats.occupy(entry.uid(), entry.extent.from_check);
            }
        })?;
        if let Some(entry) = last_entry {
            if entry.extent.offset != first.offset || entry.uid() != was {
                return Err(Trouble::Doubtful);
            }
            anew.octets -= entry.extent.octets;
            anew.takers -= u32::from(entry.extent.takes_status);
            anew.live_bytes -= entry.extent.end() - entry.extent.offset;
        }

        let mut writer = Writer::behind(self.desk, index, header.generation, kept)?;
        for (position, extent) in found.into_iter().enumerate() {
            let (occurrence, dead) =
                if position == 0 && same { (was.occurrence, header.last.dead) } else { seats.seat(&extent) };
            anew.last = last(&extent, occurrence, dead);
            if !dead {
                let seen = position == 0 && same && last_entry.is_some_and(|entry| entry.seen);
                push(&mut writer, &mut anew, Entry { extent, occurrence, seen })?;
            }
        }
        // Seats that stay free are those of the dead further up, which nobody looked at.
        self.records.extend(seats.named());
        if !same && (header.last.dead || self.ledger.next.contains_key(&was.hash)) {
            self.records.push(Record::Gone(vec![was]));
        }
        Ok(Brought::Written(writer, anew))
    }
}

/// Who was seen, by UID and From_ line, as far as an old index can be read: an equal message that takes the name of one that others
/// removed was not.
fn seen<D: Disk>(desk: &Desk<D>, old: D::File, header: &Header) -> (Option<D::File>, HashSet<(Uid, u32)>) {
    let (old, mut seen) = (Index::<D>::File(old), HashSet::new());
    // What cannot be read was not seen: no more is lost than with the whole index.
    let _ = old.read(&desk.disk, header.generation, 0..header.count, super::disk::Reach::Wait, |entry| {
        if entry.seen {
            seen.insert((entry.uid(), entry.extent.from_check));
        }
    });
    let Index::File(file) = old else { return (None, seen) };
    (Some(file), seen)
}

/// An index about to be ended without those who died since.
struct Thinned<'d, D: Disk> {
    writer: Writer<'d, D>,
    header: Header,
    dead: HashSet<Uid>,
}

/// The entries that the ledger does not call dead, in a generation of their own.
fn without_dead<'d, D: Disk>(
    desk: &'d Desk<D>,
    ledger: &Ledger,
    old: &Index<D>,
    header: Header,
) -> Result<Thinned<'d, D>, Trouble> {
    let mut writer = Writer::anew(desk, None);
    let mut anew = Header { count: 0, octets: 0, last_read: 0, takers: 0, live_bytes: 0, ..header };
    let mut dead = HashSet::new();
    let mut unread = Ok(());
    old.read(&desk.disk, header.generation, 0..header.count, super::disk::Reach::Wait, |entry| {
        if is_dead(ledger, &entry.uid(), entry.extent.from_check) {
            dead.insert(entry.uid());
        } else if unread.is_ok() {
            unread = push(&mut writer, &mut anew, entry);
        }
    })?;
    unread?;
    let uid = Uid { hash: header.last.hash, occurrence: header.last.occurrence };
    anew.last.dead |= is_dead(ledger, &uid, header.last.from_check);
    Ok(Thinned { writer, header: anew, dead })
}

/// Why a short cut was not taken.
enum Trouble {
    Refused(Refused),
    /// The index is not what it should be.
    Doubtful,
}

impl From<Unread> for Trouble {
    fn from(_: Unread) -> Trouble {
        Trouble::Doubtful
    }
}

fn push<D: Disk>(writer: &mut Writer<'_, D>, header: &mut Header, entry: Entry) -> Result<(), Unread> {
    writer.push(&entry)?;
    header.count += 1;
    header.octets += entry.extent.octets;
    header.takers += u32::from(entry.extent.takes_status);
    header.live_bytes += entry.extent.end() - entry.extent.offset;
    if entry.is_read() {
        header.last_read = header.count;
    }
    Ok(())
}

fn last(extent: &Extent, occurrence: u32, dead: bool) -> Last {
    Last {
        offset: extent.offset,
        from_bytes: extent.from_bytes,
        from_check: extent.from_check,
        hash: extent.hash,
        occurrence,
        dead,
    }
}

/// Whether the ledger calls this message dead.
pub(super) fn is_dead(ledger: &Ledger, uid: &Uid, from_check: u32) -> bool {
    ledger.deaths.get(uid).is_some_and(|(check, _)| *check == from_check)
}

/// A fault of the index.
pub(super) fn fault<D: Disk>(desk: &Desk<D>, unread: Unread) -> Fault {
    let error = match unread {
        Unread::Failed(error) => error,
        Unread::Doubtful => io::Error::new(io::ErrorKind::InvalidData, "not what was written"),
    };
    Fault::new("reading", &index::path(desk), error)
}

/// Those whom the ledger calls dead and whose bytes are in the drop, and their size on the wire.
pub(super) fn dead_in<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    size: u64,
    ledger: &Ledger,
    locks: &mut DropLocks<'_, D>,
) -> Result<(Vec<Uid>, u64), Refused> {
    let mut seats = Seats::new(ledger);
    let (mut uids, mut octets) = (Vec::new(), 0);
    scan(desk, drop, 0..size, locks, &mut || true, |extent| {
        let (occurrence, dead) = seats.seat(&extent);
        if dead {
            uids.push(Uid { hash: extent.hash, occurrence });
            octets += extent.octets;
        }
        true
    })?;
    Ok((uids, octets))
}

/// Who sits where: see the module's page.
struct Seats<'l> {
    ledger: &'l Ledger,
    /// Hashes met once that the ledger does not know, with the From_ check of the message.
    plain: HashMap<u128, u32, Spread>,
    /// Hashes that the ledger knows or that came twice.
    special: HashMap<u128, Row>,
    next: HashMap<u128, u32>,
}

/// How a table finds what is a good hash already: one multiplication with a key that nobody knows, so that who makes messages with
/// hashes of his choice cannot choose where they land.
struct Spread([u64; 2]);

impl Spread {
    fn new() -> Spread {
        let random = RandomState::new();
        Spread([random.hash_one(0), random.hash_one(1)])
    }
}

impl BuildHasher for Spread {
    type Hasher = Landing;

    fn build_hasher(&self) -> Landing {
        Landing { key: self.0, place: 0 }
    }
}

struct Landing {
    key: [u64; 2],
    place: u64,
}

impl Hasher for Landing {
    fn write_u128(&mut self, hash: u128) {
        let [low, high] = [hash as u64 ^ self.key[0], (hash >> 64) as u64 ^ self.key[1]];
        let product = u128::from(low) * u128::from(high);
        self.place = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of messages are looked for");
    }

    fn finish(&self) -> u64 {
        self.place
    }
}

/// The seats of one hash. A drop may be full of equal messages, so that nobody looks along a long row for each of them.
#[derive(Default)]
struct Row {
    seats: Vec<Seat>,
    /// Seats before this are the ledger's, by occurrence; all behind are taken.
    known: usize,
    /// Where those seats are that have a From_ line, the lowest last; only of a row that is long.
    lines: HashMap<u32, Vec<usize>>,
    /// Seats before this are taken or dead.
    lowest: usize,
}

struct Seat {
    occurrence: u32,
    /// Of the message that sits here, as far as it is known.
    from_check: Option<u32>,
    dead: bool,
    taken: bool,
    /// The ledger does not know it so.
    new: bool,
}

impl Seat {
    /// Somebody of whom the ledger does not know sits here.
    fn new(occurrence: u32, from_check: u32) -> Seat {
        Seat { occurrence, from_check: Some(from_check), dead: false, taken: true, new: true }
    }
}

impl Row {
    /// Rows no longer than this are looked along.
    const SHORT: usize = 16;

    /// After the ledger's seats were pushed.
    fn settle(&mut self) {
        self.seats.sort_unstable_by_key(|seat| seat.occurrence);
        self.known = self.seats.len();
        if self.known > Row::SHORT {
            for (index, seat) in self.seats.iter().enumerate().rev() {
                if let Some(from_check) = seat.from_check {
                    self.lines.entry(from_check).or_default().push(index);
                }
            }
        }
    }

    fn find(&mut self, occurrence: u32) -> Option<&mut Seat> {
        let (known, others) = self.seats.split_at_mut(self.known);
        match known.binary_search_by_key(&occurrence, |seat| seat.occurrence) {
            Ok(index) => Some(&mut known[index]),
            Err(_) => others.iter_mut().find(|seat| seat.occurrence == occurrence),
        }
    }

    /// The seat for a message with that From_ line, if one is free.
    fn free(&mut self, from_check: u32) -> Option<&mut Seat> {
        let seats = &self.seats;
        let same = if self.known <= Row::SHORT {
            seats[..self.known].iter().position(|seat| !seat.taken && seat.from_check == Some(from_check))
        } else if let Some(places) = self.lines.get_mut(&from_check) {
            while places.last().is_some_and(|&index| seats[index].taken) {
                places.pop();
            }
            places.last().copied()
        } else {
            None
        };
        while self.lowest < self.known && (seats[self.lowest].taken || seats[self.lowest].dead) {
            self.lowest += 1;
        }
        let index = same.unwrap_or(self.lowest);
        self.seats[..self.known].get_mut(index)
    }
}

impl<'l> Seats<'l> {
    fn new(ledger: &'l Ledger) -> Seats<'l> {
        let mut special: HashMap<u128, Row> = HashMap::new();
        let dead = ledger.deaths.iter().map(|(uid, (from_check, _))| (uid, *from_check, true));
        let alive = ledger.lines.iter().map(|(uid, from_check)| (uid, *from_check, false));
        let alive = alive.filter(|(uid, ..)| !ledger.deaths.contains_key(uid));
        for (uid, from_check, dead) in dead.chain(alive).filter(|(uid, ..)| !ledger.gone.contains(uid)) {
            let seat = Seat { dead, taken: false, new: false, ..Seat::new(uid.occurrence, from_check) };
            special.entry(uid.hash).or_default().seats.push(seat);
        }
        let mut nameless = NAMELESS;
        for (&hash, &next) in &ledger.next {
            let row = special.entry(hash).or_default();
            let named: HashSet<u32> = row.seats.iter().map(|seat| seat.occurrence).collect();
            let is_nameless = |occurrence: &u32| {
                !named.contains(occurrence) && !ledger.gone.contains(&Uid { hash, occurrence: *occurrence })
            };
            let before = row.seats.len();
            row.seats.extend((0..next).filter(is_nameless).take(nameless.max(1)).map(|occurrence| Seat {
                occurrence,
                from_check: None,
                dead: false,
                taken: false,
                new: false,
            }));
            nameless = nameless.saturating_sub(row.seats.len() - before);
        }
        special.values_mut().for_each(Row::settle);
        Seats { ledger, plain: HashMap::with_hasher(Spread::new()), special, next: HashMap::new() }
    }

    /// The occurrence of the next message, and whether it is dead.
    fn seat(&mut self, extent: &Extent) -> (u32, bool) {
        let (hash, from_check) = (extent.hash, extent.from_check);
        if !self.special.contains_key(&hash) {
            let Some(first) = self.plain.insert(hash, from_check) else { return (0, false) };
            self.special.entry(hash).or_default().seats.push(Seat::new(0, first));
        }
        let row = self.special.get_mut(&hash).expect("it was just put there");
        if let Some(seat) = row.free(from_check) {
            seat.taken = true;
            seat.new |= seat.from_check != Some(from_check);
            seat.from_check = Some(from_check);
            return (seat.occurrence, seat.dead);
        }
        let next = self.next.entry(hash).or_insert_with(|| self.ledger.free(hash, true));
        let occurrence = *next;
        *next = next.saturating_add(1);
        row.seats.push(Seat::new(occurrence, from_check));
        (occurrence, false)
    }

    /// That message sits where it sat.
    fn occupy(&mut self, uid: Uid, from_check: u32) {
        if uid.occurrence == 0 && !self.special.contains_key(&uid.hash) {
            self.plain.insert(uid.hash, from_check);
            return;
        }
        let row = self.special.entry(uid.hash).or_default();
        match row.find(uid.occurrence) {
            Some(seat) => (seat.taken, seat.from_check) = (true, Some(from_check)),
            None => row.seats.push(Seat::new(uid.occurrence, from_check)),
        }
    }

    /// Who is dead and lies elsewhere keeps his seat.
    fn leave(&mut self, uid: &Uid) {
        if let Some(seat) = self.special.get_mut(&uid.hash).and_then(|row| row.find(uid.occurrence)) {
            seat.taken = true;
        }
    }

    fn all(&self) -> impl Iterator<Item = (Uid, &Seat)> {
        self.special.iter().flat_map(|(&hash, row)| {
            row.seats.iter().map(move |seat| (Uid { hash, occurrence: seat.occurrence }, seat))
        })
    }

    /// Which is which of the repeated messages, as far as the ledger does not know.
    fn named(&self) -> Option<Record> {
        // One that has no namesakes needs no telling apart.
        let repeated = |uid: &Uid| self.next.contains_key(&uid.hash) || self.ledger.next.contains_key(&uid.hash);
        let named: Vec<Named> = self
            .all()
            .filter(|(uid, seat)| seat.new && seat.taken && repeated(uid))
            .filter_map(|(uid, seat)| Some(Named { uid, from_check: seat.from_check? }))
            .collect();
        (!named.is_empty()).then_some(Record::Repetition(named))
    }

    /// What the ledger must hear after everything was scanned: repetitions first, so that it keeps what is gone of them.
    fn records(self) -> Vec<Record> {
        let gone: Vec<Uid> = self.all().filter(|(_, seat)| !seat.taken).map(|(uid, _)| uid).collect();
        let gone = (!gone.is_empty()).then_some(Record::Gone(gone));
        self.named().into_iter().chain(gone).collect()
    }
}

/// What a drop holds, all of it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) live: u32,
    pub(super) live_bytes: u64,
    pub(super) dead: u32,
    pub(super) dead_bytes: u64,
    pub(super) preamble_bytes: u64,
}

/// Counts what is live and what the ledger calls dead; writes nothing.
pub(super) fn survey<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    ledger: &Ledger,
    locks: &mut DropLocks<'_, D>,
) -> Result<Survey, Refused> {
    let size = desk.disk.stat(drop).map_err(desk.fault("looking at"))?.size;
    let mut found = Survey { preamble_bytes: size, ..Survey::default() };
    let mut seats = Seats::new(ledger);
    scan(desk, drop, 0..size, locks, &mut || true, |extent| {
        let bytes = extent.end() - extent.offset;
        found.preamble_bytes = found.preamble_bytes.min(extent.offset);
        match seats.seat(&extent) {
            (_, false) => (found.live, found.live_bytes) = (found.live + 1, found.live_bytes + bytes),
            (_, true) => (found.dead, found.dead_bytes) = (found.dead + 1, found.dead_bytes + bytes),
        }
        true
    })?;
    Ok(found)
}

/// Hands the messages of the drop's `bytes` to `each` until it says no. `keep_going` is asked between pieces; when it says no the
/// answer is [`Refused::Locked`]: come again later.
pub(super) fn scan<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    bytes: std::ops::Range<u64>,
    locks: &mut DropLocks<'_, D>,
    keep_going: &mut dyn FnMut() -> bool,
    mut each: impl FnMut(Extent) -> bool,
) -> Result<(), Refused> {
    let mut scanner = Scanner::new(bytes.start);
    let mut piece = vec![0; PIECE_BYTES.min((bytes.end - bytes.start) as usize)];
    let mut at = bytes.start;
    let mut nuls = 0;
    let mut wanted = true;
    let mut found = |extent| wanted = wanted && each(extent);
    while at < bytes.end {
        let some = piece.len().min((bytes.end - at) as usize);
        desk.read_full(drop, &mut piece[..some], at).map_err(desk.fault("reading"))?;
        nuls = if is_nul(&piece[..some]) { nuls + some as u64 } else { 0 };
        if nuls >= NUL_BYTES {
            return Err(refuse("reading", &desk.spot.drop, "a gigabyte of NULs: a sparse file, or a damaged one"));
        }
        scanner.feed(&piece[..some], &mut found);
        at += some as u64;
        locks.touch();
        if !keep_going() {
            return Err(Refused::Locked);
        }
    }
    scanner.finish(&mut found);
    Ok(())
}

fn is_nul(piece: &[u8]) -> bool {
    // Equal to itself one byte on.
    piece.first().is_none_or(|&byte| byte == 0 && piece[1..] == piece[..piece.len() - 1])
}

/// The hash of what stands before `size` in the drop.
pub(super) fn tail_hash<D: Disk>(desk: &Desk<D>, drop: &D::File, size: u64) -> Result<u64, Fault> {
    let mut tail = [0; 256];
    let tail = &mut tail[..tail_bytes(size)];
    desk.read_full(drop, tail, size - tail.len() as u64).map_err(desk.fault("reading"))?;
    Ok(xxh3_64(tail))
}

/// Whether the last From_ line stands where it stood.
fn has_from<D: Disk>(desk: &Desk<D>, drop: &D::File, last: &Last) -> Result<bool, Fault> {
    let mut line = vec![0; last.from_bytes as usize];
    desk.read_full(drop, &mut line, last.offset).map_err(desk.fault("reading"))?;
    Ok(from_check(&line) == last.from_check)
}

/// Reads the ledger, and cuts a torn tail off so that what is appended later stands on firm ground.
pub(super) fn load<D: Disk>(desk: &Desk<D>, bin: &D::File, remarks: &mut Remarks) -> Result<Ledger, Stale> {
    let path = desk.own_path(".bin");
    let size = desk.disk.stat(bin).map_err(Fault::at("looking at", &path))?.size;
    let mut bytes = vec![0; ledger::bounded(size).map_err(Fault::at("reading", &path))?];
    desk.read_full(bin, &mut bytes, 0).map_err(Fault::at("reading", &path))?;
    let mut ledger = Ledger::parse(&bytes);
    let name = desk.name().as_os_str().as_encoded_bytes();
    if ledger.name.as_ref().is_some_and(|known| known != name) {
        return Err(Stale::Alien);
    }
    if ledger.id != 0 && ledger.name.is_none() {
        // Its opening is damaged. Written anew, it says again whose it is.
        ledger.name = Some(name.to_owned());
    }
    if ledger.damaged {
        remarks.add(Remark::DamagedLedger);
    }
    if ledger.end < size {
        desk.disk.cut(bin, ledger.end).map_err(Fault::at("cutting", &path))?;
    }
    Ok(ledger)
}

/// Adds records to the ledger and syncs it. After a fault what `ledger` says is not what the file says.
pub(super) fn append<D: Disk>(
    desk: &Desk<D>,
    bin: &D::File,
    ledger: &mut Ledger,
    records: &[Record],
) -> Result<(), Fault> {
    let (at, first) = (ledger.end, ledger.id == 0);
    let name = desk.name().as_os_str().as_encoded_bytes().to_owned();
    let bytes = ledger.append(records, &name, desk.disk.random());
    let path = desk.own_path(".bin");
    write_ledger(&desk.disk, bin, &bytes, at).map_err(|(doing, error)| Fault::new(doing, &path, error))?;
    if first {
        desk.sync_bins()?;
    }
    Ok(())
}

/// Writes a ledger that is mostly past anew. What comes back is the new file, locked before it had the name.
pub(super) fn shortened<D: Disk>(desk: &Desk<D>, ledger: &mut Ledger) -> Result<Option<D::File>, Refused> {
    if !ledger.is_mostly_past() {
        return Ok(None);
    }
    let (short, bytes) = ledger.rewritten();
    // When it cannot be written the long one serves as well.
    let Ok(file) = write_bin(desk, &bytes) else { return Ok(None) };
    name_bin(desk)?;
    *ledger = short;
    Ok(Some(file))
}

/// Writes a whole ledger beside the one there is, synced and with the session lock on it.
pub(super) fn write_bin<D: Disk>(desk: &Desk<D>, bytes: &[u8]) -> Result<D::File, Refused> {
    let disk = &desk.disk;
    let path = desk.own_path(".bin.new");
    let Some((file, _)) = desk.open_own(".bin.new", How::Create)? else {
        return Err(Fault::new("making", &path, io::ErrorKind::NotFound.into()).into());
    };
    let written = disk
        .cut(&file, 0)
        .and_then(|()| disk.write(&file, bytes, 0))
        .and_then(|()| disk.sync(&file))
        .and_then(|()| disk.try_lock(&file, LockKind::Fcntl));
    match written {
        Ok(true) => Ok(file),
        Ok(false) => Err(Refused::InUse),
        Err(error) => {
            desk.remove_own(".bin.new")?;
            Err(Fault::new("writing", &path, error).into())
        }
    }
}

/// Gives what [`write_bin`] wrote the name that counts.
pub(super) fn name_bin<D: Disk>(desk: &Desk<D>) -> Result<(), Fault> {
    let path = desk.own_path(".bin.new");
    let renamed = desk.disk.rename(&desk.bins, &desk.own(".bin.new"), &desk.own(".bin"));
    renamed.map_err(Fault::at("renaming", &path))?;
    desk.sync_bins()
}

/// Writes and syncs; what could not be is taken out again if that can be done, and never tried again.
pub(super) fn write_ledger<D: Disk>(
    disk: &D,
    bin: &D::File,
    bytes: &[u8],
    at: u64,
) -> Result<(), (&'static str, io::Error)> {
    let written = disk.write(bin, bytes, at).map_err(|error| ("writing", error));
    let synced = written.and_then(|()| disk.sync(bin).map_err(|error| ("syncing", error)));
    if synced.is_err() {
        std::mem::drop(disk.cut(bin, at));
    }
    synced
}
