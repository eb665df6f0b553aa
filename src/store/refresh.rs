//! How the index is brought up to date, under the session lock.
//!
//! | what is found                                          | what is done                                              |
//! |--------------------------------------------------------|-----------------------------------------------------------|
//! | drop and ledger as they were ([`Header::is_fresh`])     | nothing: one small read                                    |
//! | a copy of an interrupted compaction                     | the compaction is completed first                          |
//! | deaths the index does not know                          | its entries are written anew without them                  |
//! | a longer drop, its old end and last From_ line in place | what follows is scanned, from the last From_ line on        |
//! | anything else                                           | all of it is scanned, messages are known again by UID       |
//!
//! All but the first under the drop's own locks, which are given up at once if one is held.
//!
//! **Seating.** When all is scanned, occurrences are given out again in file order. A message that has a namesake of equal text
//! is the one with the same From_ line, dead or alive; else it takes the lowest occurrence that is neither dead nor
//! gone; else one never used. What then sits nowhere was removed by somebody else, and its death is buried with it.

use std::collections::{HashMap, HashSet};
use std::io;

use xxhash_rust::xxh3::xxh3_64;

use super::compaction;
use super::desk::{Desk, Refused, Remark, Remarks};
use super::disk::{Disk, Stat};
use super::index::{self, Entry, Header, Identity, Index, Last, Unread, Writer, tail_bytes};
use super::ledger::{self, Ledger, Named, Record};
use super::locks::DropLocks;
use crate::mail::identity::Uid;
use crate::mail::mbox::{Extent, Scanner, from_check};
use crate::text::fault::Fault;

/// A drop is read in pieces of this size: larger ones are no faster.
const PIECE_BYTES: usize = 256 * 1024;

/// An index that knows all there is.
pub(super) struct Fresh<D: Disk> {
    pub(super) index: Index<D>,
    pub(super) header: Header,
    pub(super) remarks: Remarks,
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
    let known = index::open(desk);
    if !copied
        && let Some((_, header)) = &known
        && header.is_fresh(&seen.into())
    {
        let ledger = desk.disk.stat(bin).map_err(Fault::at("looking at", &desk.own_path(".bin")))?;
        if (header.bin_inode, header.bin_bytes) == (ledger.inode, ledger.size) {
            let (file, header) = known.expect("it was just looked at");
            return Ok(Fresh { index: Index::File(file), header, remarks: Remarks::default() });
        }
    }
    std::mem::drop(known);
    let mut locks = DropLocks::take(desk, drop)?;
    refresh_locked(desk, drop, bin, &mut locks)
}

/// The same under the drop's locks.
pub(super) fn refresh_locked<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    bin: &D::File,
    locks: &mut DropLocks<'d, D>,
) -> Result<Fresh<D>, Stale> {
    let disk = &desk.disk;
    let named = super::desk::there(disk.look(&desk.dir, desk.name())).map_err(desk.fault("looking at"))?;
    let seen = disk.stat(drop).map_err(desk.fault("looking at"))?;
    if named.is_none_or(|named| (named.dev, named.inode) != (seen.dev, seen.inode)) {
        return Err(Stale::Replaced);
    }
    let mut remarks = locks.remarks;
    let mut ledger = load(desk, bin, &mut remarks)?;
    if desk.has_own(".copy")? {
        compaction::recover(desk, drop, bin, &mut ledger, locks, &mut remarks)?;
    }
    let mut work = Work {
        desk,
        drop,
        bin_inode: disk.stat(bin).map_err(Fault::at("looking at", &desk.own_path(".bin")))?.inode,
        ledger,
        locks,
        seen_at: disk.now(),
        seen: disk.stat(drop).map_err(desk.fault("looking at"))?.into(),
        records: Vec::new(),
    };
    let (mut writer, mut header) = match work.bring()? {
        Brought::Unchanged(index, header) => return Ok(Fresh { index, header, remarks }),
        Brought::Written(writer, header) => (writer, header),
    };
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
    header.bin_inode = work.bin_inode;
    header.bin_bytes = work.ledger.end;
    header.bin_id = work.ledger.id;
    header.bin_serial = work.ledger.serial;
    header.bulletins = work.ledger.bulletins.unwrap_or_default();
    let index = writer.finish(&mut header).map_err(|unread| fault(desk, unread))?;
    if matches!(index, Index::Memory(_)) {
        remarks.add(Remark::IndexInMemory);
    }
    Ok(Fresh { index, header, remarks })
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
}

enum Brought<'d, D: Disk> {
    Unchanged(Index<D>, Header),
    Written(Writer<'d, D>, Header),
}

impl<'d, D: Disk> Work<'_, 'd, D> {
    fn bring(&mut self) -> Result<Brought<'d, D>, Refused> {
        let Some((file, header)) = index::open(self.desk) else { return self.rescan(None) };
        let same_ledger = header.bin_inode == self.bin_inode
            && header.bin_bytes <= self.ledger.end
            && (header.bin_id == self.ledger.id || header.bin_bytes == 0);
        let same_drop = header.is_fresh(&self.seen);
        let grown = !same_drop && self.is_grown(&header)?;
        if !same_ledger || !same_drop && !grown {
            return self.rescan(Some(file));
        }
        let news = header.bin_bytes != self.ledger.end;
        let index = Index::File(file);
        let brought = match (news, grown) {
            (false, false) => Ok(Brought::Unchanged(index, header)),
            (true, false) => self.without_dead(&index, header).map(|(writer, header)| Brought::Written(writer, header)),
            (false, true) => self.grow(index, header),
            (true, true) => match self.without_dead(&index, header) {
                Ok((writer, mut header)) => match writer.finish(&mut header) {
                    Ok(index) => self.grow(index, header),
                    Err(unread) => Err(unread.into()),
                },
                Err(trouble) => Err(trouble),
            },
        };
        match brought {
            Ok(brought) => Ok(brought),
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(Trouble::Doubtful) => self.rescan(None),
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

    /// Everything anew.
    fn rescan(&mut self, old: Option<D::File>) -> Result<Brought<'d, D>, Refused> {
        let mut writer = Writer::anew(self.desk, old);
        let mut seats = Seats::new(&self.ledger);
        let mut header = Header { preamble: self.seen.size, ..Header::default() };
        let mut unread = None;
        scan(self.desk, self.drop, 0..self.seen.size, self.locks, &mut || true, |extent| {
            if header.last.from_bytes == 0 {
                header.preamble = extent.offset;
            }
            let (occurrence, dead) = seats.seat(&extent);
            header.last = last(&extent, occurrence, dead);
            if !dead && unread.is_none() {
                unread = push(&mut writer, &mut header, Entry { extent, occurrence }).err();
            }
            true
        })?;
        if let Some(unread) = unread {
            return Err(fault(self.desk, unread).into());
        }
        self.records = seats.records();
        Ok(Brought::Written(writer, header))
    }

    /// The entries that the ledger does not call dead, in a generation of their own.
    fn without_dead(&mut self, old: &Index<D>, header: Header) -> Result<(Writer<'d, D>, Header), Trouble> {
        let mut writer = Writer::anew(self.desk, None);
        let mut anew = Header { count: 0, octets: 0, last_read: 0, live_bytes: 0, ..header };
        let mut unread = Ok(());
        old.read(&self.desk.disk, header.generation, 0..header.count, super::disk::Reach::Wait, |entry| {
            let dead = is_dead(&self.ledger, &entry.uid(), entry.extent.from_check);
            if !dead && unread.is_ok() {
                unread = push(&mut writer, &mut anew, entry);
            }
        })?;
        unread?;
        let uid = Uid { hash: header.last.hash, occurrence: header.last.occurrence };
        anew.last.dead |= is_dead(&self.ledger, &uid, header.last.from_check);
        Ok((writer, anew))
    }

    /// What was appended, and the last message before it, whose end may have changed.
    fn grow(&mut self, index: Index<D>, header: Header) -> Result<Brought<'d, D>, Trouble> {
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
            if entry.extent.read {
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
            anew.live_bytes -= entry.extent.end() - entry.extent.offset;
        }

        let mut writer = Writer::behind(self.desk, index, header.generation, kept)?;
        for (position, extent) in found.into_iter().enumerate() {
            let (occurrence, dead) =
                if position == 0 && same { (was.occurrence, header.last.dead) } else { seats.seat(&extent) };
            anew.last = last(&extent, occurrence, dead);
            if !dead {
                push(&mut writer, &mut anew, Entry { extent, occurrence })?;
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
    header.live_bytes += entry.extent.end() - entry.extent.offset;
    if entry.extent.read {
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

/// Who sits where: see the module's page.
struct Seats<'l> {
    ledger: &'l Ledger,
    /// Hashes met once that the ledger does not know, with the From_ check of the message.
    plain: HashMap<u128, u32>,
    /// Hashes that the ledger knows or that came twice.
    special: HashMap<u128, Vec<Seat>>,
    next: HashMap<u128, u32>,
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

impl<'l> Seats<'l> {
    fn new(ledger: &'l Ledger) -> Seats<'l> {
        let mut special: HashMap<u128, Vec<Seat>> = HashMap::new();
        for hash in ledger.next.keys().chain(ledger.deaths.keys().map(|uid| &uid.hash)) {
            special.entry(*hash).or_insert_with(|| {
                let seat = |uid: Uid| {
                    let death = ledger.deaths.get(&uid).map(|(from_check, _)| *from_check);
                    Seat {
                        occurrence: uid.occurrence,
                        from_check: death.or_else(|| ledger.lines.get(&uid).copied()),
                        dead: death.is_some(),
                        taken: false,
                        new: false,
                    }
                };
                let uids = (0..ledger.free(*hash, true)).map(|occurrence| Uid { hash: *hash, occurrence });
                uids.filter(|uid| !ledger.gone.contains(uid)).map(seat).collect()
            });
        }
        Seats { ledger, plain: HashMap::new(), special, next: HashMap::new() }
    }

    /// The occurrence of the next message, and whether it is dead.
    fn seat(&mut self, extent: &Extent) -> (u32, bool) {
        let (hash, from_check) = (extent.hash, Some(extent.from_check));
        if !self.special.contains_key(&hash) {
            let Some(first) = self.plain.insert(hash, extent.from_check) else { return (0, false) };
            let first = Seat { occurrence: 0, from_check: Some(first), dead: false, taken: true, new: true };
            self.special.insert(hash, vec![first]);
        }
        let seats = self.special.get_mut(&hash).expect("it was just put there");
        let free = seats
            .iter()
            .position(|seat| !seat.taken && seat.from_check == from_check)
            .or_else(|| seats.iter().position(|seat| !seat.taken && !seat.dead));
        if let Some(index) = free {
            let seat = &mut seats[index];
            seat.taken = true;
            seat.new |= seat.from_check != from_check;
            seat.from_check = from_check;
            return (seat.occurrence, seat.dead);
        }
        let next = self.next.entry(hash).or_insert_with(|| self.ledger.free(hash, true));
        let occurrence = *next;
        *next += 1;
        seats.push(Seat { occurrence, from_check, dead: false, taken: true, new: true });
        (occurrence, false)
    }

    /// That message sits where it sat.
    fn occupy(&mut self, uid: Uid, from_check: u32) {
        let Some(seats) = self.special.get_mut(&uid.hash) else {
            if uid.occurrence == 0 {
                self.plain.insert(uid.hash, from_check);
                return;
            }
            let seat =
                Seat { occurrence: uid.occurrence, from_check: Some(from_check), dead: false, taken: true, new: true };
            self.special.insert(uid.hash, vec![seat]);
            return;
        };
        match seats.iter_mut().find(|seat| seat.occurrence == uid.occurrence) {
            Some(seat) => (seat.taken, seat.from_check) = (true, Some(from_check)),
            None => seats.push(Seat {
                occurrence: uid.occurrence,
                from_check: Some(from_check),
                dead: false,
                taken: true,
                new: true,
            }),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Uid, &Seat)> {
        self.special
            .iter()
            .flat_map(|(&hash, seats)| seats.iter().map(move |seat| (Uid { hash, occurrence: seat.occurrence }, seat)))
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
    let mut wanted = true;
    let mut found = |extent| wanted = wanted && each(extent);
    while at < bytes.end {
        let some = piece.len().min((bytes.end - at) as usize);
        desk.read_full(drop, &mut piece[..some], at).map_err(desk.fault("reading"))?;
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
    let ledger = Ledger::parse(&bytes);
    if ledger.name.as_ref().is_some_and(|name| name != desk.name().as_os_str().as_encoded_bytes()) {
        return Err(Stale::Alien);
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
        desk.disk.sync_dir(&desk.bins).map_err(Fault::at("syncing the directory of", &path))?;
    }
    Ok(())
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
