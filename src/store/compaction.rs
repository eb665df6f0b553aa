//! How dead bytes leave the drop: in place, so that inode, owner, mode and every other program's open file stay good.
//!
//! ```text
//! before   | kept .. X | dead | live | dead | live | dead .. N |         X: where the first dead message begins
//! copy     | head | live live |                                          L bytes: .NAME.copy, made durable first
//! after    | kept .. X | live live |                                     X + L
//! ```
//!
//! | step                                              | a crash behind it finds                | and does                          |
//! |---------------------------------------------------|----------------------------------------|-----------------------------------|
//! | 1 copy written as `.copy.new`, synced             | the drop as it was                     | removes what was begun            |
//! | 2 renamed to `.copy`, directory synced            | X+L..N as it was: not yet cut¹         | goes on with step 3               |
//! | 3 live bytes written at X, synced                 | the same                               | goes on with step 3               |
//! | 4 size still N? (else copy anew, with the surplus) | the same                              | goes on with step 3               |
//! | 5 cut to X+L, synced                              | X+L..N gone, X..X+L is what the copy says | goes on with step 6            |
//! | 6 burial in the ledger, synced                    | the same; a second burial says nothing new | goes on with step 6           |
//! | 7 index renewed, copy removed                     | nothing to do                          | nothing                           |
//!
//! ¹ A file system that cuts a file writes zeros to the rest of the block it cuts in, perhaps before the new size is on disk.
//! So the copy also keeps the old bytes of that block, and there a sector may be what it was, or zeros.
//!
//! With `add_status` a message that moves anyway, was retrieved and has no Status line gets one behind its From_ line. It goes
//! into the copy like any other byte, so that recovery knows nothing of it. All such lines together take at most half of what the
//! dead leave: the drop never grows, and from X+L to N there is always enough of the old bytes to tell the states apart. Messages
//! for which that is not enough, and those before X, go on being known by the index alone.
//!
//! Another inode, other bytes before X, or neither of the two states: the drop was changed by others since, and the copy
//! is set aside for the operator. Bytes from X+L to N are never written before the cut, because they are what tells the
//! two states apart; that is why mail that came meanwhile goes into a new copy instead of being moved down.
//! When everything from X on is dead, L is 0 and the steps are the same: a death whose bytes are gone must be buried, or the
//! same message arriving later would be born dead.

use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::delivery;
use super::desk::{Desk, Refused, Remark, Remarks};
use super::disk::{Disk, How, Reach};
use super::index::{Entry, Header, Index, Last, PAGE, Unread, Writer};
use super::ledger::{Ledger, Record};
use super::locks::DropLocks;
use super::refresh::{self, Stale};
use crate::mail::status::{STATUS_OCTETS, stored};
use crate::text::fault::Fault;

const MAGIC: u64 = u64::from_le_bytes(*b"DMcopy\0\x01");
/// Where the live bytes begin in the copy: a page, so that they are copied page by page.
const HEAD_BYTES: u64 = 4096;
const WORDS: usize = 14;
/// The largest block that a file system cuts in.
const BLOCK_BYTES: u64 = 64 * 1024;
/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;
/// How much before X must be as it was.
const BEFORE_BYTES: u64 = 4096;
/// Bytes are moved in pieces of this size, and others are asked after each whether to go on.
const PIECE_BYTES: usize = 1 << 20;
/// A program that keeps appending without locks makes us copy anew so often, and no more.
const ATTEMPTS: u32 = 8;

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Bytes the drop is shorter now; 0: nothing was dead.
    pub freed_bytes: u64,
    /// Bytes that had to be moved.
    pub moved_bytes: u64,
    /// Nothing was done: the copy would leave less free than min_space.
    pub waits_for_space: bool,
}

/// The head of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    dev: u64,
    inode: u64,
    /// X: where the live bytes go.
    start: u64,
    /// L: how many they are.
    length: u64,
    /// N: how long the drop is.
    size: u64,
    /// Drawn for this copy: nobody can make bytes that look like those he was not shown.
    seed: u64,
    /// Of the drop's bytes from [`edge`](Plan::edge) to N.
    old_hash: u64,
    /// Of the up to [`BEFORE_BYTES`] before X.
    before_hash: u64,
    /// Of the live bytes.
    live_hash: u64,
    /// Of the old bytes behind them, X+L to the edge.
    edge_hash: u64,
    /// The ledger, and the last record whose deaths leave the drop.
    bin_id: u64,
    through: u32,
}

impl Plan {
    /// X+L, where the drop will end.
    fn end(&self) -> u64 {
        self.start + self.length
    }

    /// The end of the block in which the drop will end, or N.
    fn edge(&self) -> u64 {
        self.end().next_multiple_of(BLOCK_BYTES).min(self.size)
    }

    fn encode(&self) -> Vec<u8> {
        let words: [u64; WORDS - 1] = [
            MAGIC,
            self.dev,
            self.inode,
            self.start,
            self.length,
            self.size,
            self.seed,
            self.old_hash,
            self.before_hash,
            self.live_hash,
            self.bin_id,
            u64::from(self.through),
            self.edge_hash,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let check = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; WORDS * 8]) -> Option<Plan> {
        let word = |index: usize| u64::from_le_bytes(bytes[8 * index..][..8].try_into().expect("eight bytes"));
        let check = xxhash_rust::xxh3::xxh3_64(&bytes[..8 * (WORDS - 1)]);
        (word(0) == MAGIC && word(WORDS - 1) == check).then(|| Plan {
            dev: word(1),
            inode: word(2),
            start: word(3),
            length: word(4),
            size: word(5),
            seed: word(6),
            old_hash: word(7),
            before_hash: word(8),
            live_hash: word(9),
            bin_id: word(10),
            through: word(11) as u32,
            edge_hash: word(12),
        })
    }
}

/// Takes out what is dead. `drop` is open and locked; the session lock on `bin` is ours until the caller gives it up.
/// `keep_going` is asked every megabyte; when it says no before the drop was touched, the answer is [`Refused::Locked`].
pub(super) fn compact<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    bin: &D::File,
    locks: &mut DropLocks<'d, D>,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Compacted, Stale> {
    let fresh = refresh::refresh_locked(desk, drop, bin, locks)?;
    // Where a delivery of ours may have to be judged again its bytes do not move.
    if delivery::is_open(desk)? {
        return Err(Refused::Locked.into());
    }
    let header = fresh.header;
    let bin = fresh.bin.as_ref().unwrap_or(bin);
    if header.preamble + header.live_bytes == header.drop.size {
        return Ok(Compacted::default());
    }
    let mut ledger = refresh::load(desk, bin, &mut Remarks::default())?;
    let times = desk.disk.stat(drop).map_err(desk.fault("looking at"))?;
    let cut = Cut::find(desk, &fresh.index, &header)?;
    let pieces = cut.pieces(desk, drop, &fresh.index, &header)?;
    let length: u64 = pieces.iter().map(Piece::bytes).sum();
    // Where everything from X on is dead the copy is next to nothing, and this is what makes room.
    if length > 0 && desk.lacks(HEAD_BYTES + length + BLOCK_BYTES).map_err(Refused::Fault)? {
        return Ok(Compacted { waits_for_space: true, ..Compacted::default() });
    }
    cut.verify(desk, drop, &fresh.index, &header, &ledger, locks, keep_going)?;

    let plan = write_copy(desk, drop, cut.start, &pieces, header.drop.size, &ledger, locks, keep_going)?;
    let plan = apply(desk, drop, plan, locks)?;
    bury(desk, bin, &mut ledger, &plan)?;
    let renewed = refresh::shortened(desk, &mut ledger)?;

    // From here on nothing can be lost: what fails only makes the next session scan.
    let surplus = plan.size != header.drop.size;
    let ledger_file = renewed.as_ref().unwrap_or(bin);
    if surplus || desk.short || cut.renew(desk, drop, fresh.index, header, times, ledger_file, &ledger).is_err() {
        desk.remove_own(".idx")?;
    }
    // A ledger written anew stays locked until here.
    finish(desk)?;
    let freed_bytes = plan.size - plan.start - plan.length;
    Ok(Compacted { freed_bytes, moved_bytes: plan.length, waits_for_space: false })
}

/// Takes `outs`, runs of the drop's bytes in order, out of it by the same steps, with nothing in the ledger: bytes that are no
/// message. `drop` is locked, and the session lock is the caller's, so that nobody else has a copy here.
pub(super) fn excise<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    outs: &[(u64, u64)],
    locks: &mut DropLocks<'d, D>,
) -> Result<(), Refused> {
    let Some(&(start, _)) = outs.first() else { return Ok(()) };
    let size = desk.disk.stat(drop).map_err(desk.fault("looking at"))?.size;
    let ends = outs.iter().skip(1).map(|(from, _)| *from).chain([size]);
    let runs = outs.iter().zip(ends).map(|(&(_, to), end)| (to, end)).filter(|(from, to)| from < to);
    let runs: Vec<Piece<'_, D>> = runs.map(|(from, to)| Piece::Run(drop, from, to)).collect();
    desk.remove_own(".idx")?;
    let plan = write_copy(desk, drop, start, &runs, size, &Ledger::default(), locks, &mut || true)?;
    apply(desk, drop, plan, locks)?;
    finish(desk)
}

/// Completes a compaction that was interrupted, under all locks.
pub(super) fn recover<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    bin: &D::File,
    ledger: &mut Ledger,
    locks: &mut DropLocks<'_, D>,
    remarks: &mut Remarks,
) -> Result<(), Stale> {
    // Whatever happened, the index is not to be believed.
    desk.remove_own(".idx")?;
    let Some((copy, _)) = desk.open_own(".copy", How::Read)? else { return Ok(()) };
    let seen = desk.disk.stat(drop).map_err(desk.fault("looking at"))?;
    let plan = read_plan(desk, &copy, locks).filter(|plan| (plan.dev, plan.inode) == (seen.dev, seen.inode));
    let Some(plan) = plan else { return set_aside(desk, remarks) };
    let mut hash = |from: u64, to: u64| hash_range(desk, drop, plan.seed, from, to, locks);
    if seen.size < plan.start || hash(plan.start.saturating_sub(BEFORE_BYTES), plan.start)? != plan.before_hash {
        return set_aside(desk, remarks);
    }
    let whole = seen.size >= plan.size && hash(plan.edge(), plan.size)? == plan.old_hash;
    let plan = if whole && is_old_edge(desk, drop, &copy, &plan)? {
        apply(desk, drop, plan, locks)?
    } else if seen.size >= plan.end() && hash(plan.start, plan.end())? == plan.live_hash {
        plan
    } else {
        return set_aside(desk, remarks);
    };
    bury(desk, bin, ledger, &plan)?;
    finish(desk)?;
    remarks.add(Remark::Recovered);
    Ok(())
}

/// Whether each sector of X+L..edge is what it was, or zeros.
fn is_old_edge<D: Disk>(desk: &Desk<D>, drop: &D::File, copy: &D::File, plan: &Plan) -> Result<bool, Fault> {
    let mut old = vec![0; (plan.edge() - plan.end()) as usize];
    let mut now = old.clone();
    desk.read_full(copy, &mut old, HEAD_BYTES + plan.length).map_err(desk.fault("reading the copy of"))?;
    desk.read_full(drop, &mut now, plan.end()).map_err(desk.fault("reading"))?;
    let mut at = 0;
    while at < old.len() {
        let sector = SECTOR_BYTES - (plan.end() + at as u64) % SECTOR_BYTES;
        let next = old.len().min(at + sector as usize);
        if now[at..next] != old[at..next] && now[at..next].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at = next;
    }
    Ok(true)
}

fn set_aside<D: Disk>(desk: &Desk<D>, remarks: &mut Remarks) -> Result<(), Stale> {
    desk.set_aside(".copy")?;
    remarks.add(Remark::CopySetAside);
    Ok(())
}

fn finish<D: Disk>(desk: &Desk<D>) -> Result<(), Refused> {
    desk.remove_own(".copy")?;
    desk.sync_bins()?;
    Ok(())
}

/// The deaths of this compaction have no bytes any more.
fn bury<D: Disk>(desk: &Desk<D>, bin: &D::File, ledger: &mut Ledger, plan: &Plan) -> Result<(), Fault> {
    if ledger.id != plan.bin_id || ledger.id == 0 {
        return Ok(());
    }
    refresh::append(desk, bin, ledger, &[Record::Burial { through: plan.through }])
}

/// What the live bytes of a copy are made of.
enum Piece<'f, D: Disk> {
    /// A file's bytes, from here to there.
    Run(&'f D::File, u64, u64),
    /// A line that is put in.
    Line(&'static [u8]),
}

impl<D: Disk> Piece<'_, D> {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Run(_, from, to) => to - from,
            Piece::Line(line) => line.len() as u64,
        }
    }
}

/// The Status lines that one compaction puts in. Asked about the same entries in the same order, it says the same.
struct Lines {
    /// What they may still take.
    bytes: u64,
}

impl Lines {
    fn of<D: Disk>(desk: &Desk<D>, header: &Header) -> Lines {
        let dead = header.drop.size - header.preamble - header.live_bytes;
        Lines { bytes: if desk.spot.add_status { dead / 2 } else { 0 } }
    }

    /// The line that this message gets.
    fn next(&mut self, entry: &Entry) -> Option<&'static [u8]> {
        let line = stored(entry.extent.verbatim);
        let bytes = line.len() as u64;
        if !entry.seen || !entry.extent.takes_status || bytes > self.bytes {
            return None;
        }
        self.bytes -= bytes;
        Some(line)
    }
}

/// Where the first dead message begins.
struct Cut {
    start: u64,
    /// Entries before it.
    kept: u32,
}

impl Cut {
    fn find<D: Disk>(desk: &Desk<D>, index: &Index<D>, header: &Header) -> Result<Cut, Refused> {
        let mut cut = Cut { start: header.preamble, kept: 0 };
        let mut found = false;
        each(desk, index, header, 0, |entry| {
            found |= entry.extent.offset != cut.start;
            if !found {
                cut.start = entry.extent.end();
                cut.kept += 1;
            }
        })?;
        Ok(cut)
    }

    /// What lives behind the cut, with the lines that are put in.
    fn pieces<'f, D: Disk>(
        &self,
        desk: &Desk<D>,
        drop: &'f D::File,
        index: &Index<D>,
        header: &Header,
    ) -> Result<Vec<Piece<'f, D>>, Refused> {
        let mut pieces: Vec<Piece<'f, D>> = Vec::new();
        let mut lines = Lines::of(desk, header);
        each(desk, index, header, self.kept, |entry| {
            let (from, to) = (entry.extent.offset, entry.extent.end());
            let line = lines.next(&entry);
            let stop = if line.is_some() { entry.extent.text() } else { to };
            match pieces.last_mut() {
                Some(Piece::Run(_, _, end)) if *end == from => *end = stop,
                _ => pieces.push(Piece::Run(drop, from, stop)),
            }
            if let Some(line) = line {
                pieces.extend([Piece::Line(line), Piece::Run(drop, stop, to)]);
            }
        })?;
        Ok(pieces)
    }

    /// Before a byte is destroyed: every message behind the cut either is what the index says, or the ledger calls it dead.
    #[allow(clippy::too_many_arguments)]
    fn verify<D: Disk>(
        &self,
        desk: &Desk<D>,
        drop: &D::File,
        index: &Index<D>,
        header: &Header,
        ledger: &Ledger,
        locks: &mut DropLocks<'_, D>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<(), Refused> {
        let dead: std::collections::HashSet<(u128, u32)> =
            ledger.deaths.iter().map(|(uid, (check, _))| (uid.hash, *check)).collect();
        let mut page: std::collections::VecDeque<Entry> = std::collections::VecDeque::new();
        let mut next = self.kept;
        let mut doubt = false;
        refresh::scan(desk, drop, self.start..header.drop.size, locks, keep_going, |extent| {
            if page.is_empty() && next < header.count {
                let end = header.count.min(next + PAGE as u32);
                let read =
                    index.read(&desk.disk, header.generation, next..end, Reach::Wait, |entry| page.push_back(entry));
                doubt |= read.is_err();
                next = end;
            }
            match page.front() {
                Some(entry) if entry.extent == extent => drop_front(&mut page),
                _ => doubt |= !dead.contains(&(extent.hash, extent.from_check)),
            }
            !doubt
        })?;
        if doubt || !page.is_empty() || next < header.count {
            desk.remove_own(".idx")?;
            let error = io::Error::new(io::ErrorKind::InvalidData, "index and ledger do not agree with the drop");
            return Err(Fault::new("compacting", &desk.spot.drop, error).into());
        }
        Ok(())
    }

    /// The index after the cut.
    #[allow(clippy::too_many_arguments)]
    fn renew<D: Disk>(
        &self,
        desk: &Desk<D>,
        drop: &D::File,
        index: Index<D>,
        header: Header,
        times: super::disk::Stat,
        bin: &D::File,
        ledger: &Ledger,
    ) -> Result<(), Unread> {
        let disk = &desk.disk;
        // The entries are read from one handle and written, some way behind, through another.
        let source = match &index {
            Index::Memory(entries) => Index::Memory(entries.clone()),
            Index::File(_) => match desk.open_own(".idx", How::Read) {
                Ok(Some((file, _))) => Index::File(file),
                _ => return Err(Unread::Doubtful),
            },
        };
        let mut anew = Header { last: Last::default(), ..header };
        let mut place = self.start;
        let mut last_kept = None;
        if self.kept > 0 {
            source.read(disk, header.generation, self.kept - 1..self.kept, Reach::Wait, |entry| {
                last_kept = Some(entry)
            })?;
        }
        let mut writer = Writer::behind(desk, index, header.generation, self.kept)?;
        let mut failed = Ok(());
        let mut lines = Lines::of(desk, &header);
        source.read(disk, header.generation, self.kept..header.count, Reach::Wait, |mut entry| {
            if let Some(line) = lines.next(&entry) {
                entry.extent.text_bytes += line.len() as u64;
                entry.extent.octets += STATUS_OCTETS;
                (entry.extent.read, entry.extent.takes_status) = (true, false);
                // From now on the drop says it, and whoever changes it there.
                entry.seen = false;
                anew.octets += STATUS_OCTETS;
                anew.live_bytes += line.len() as u64;
                anew.takers -= 1;
            }
            let bytes = entry.extent.end() - entry.extent.offset;
            entry.extent.offset = place;
            place += bytes;
            last_kept = Some(entry);
            if failed.is_ok() {
                failed = writer.push(&entry);
            }
        })?;
        failed?;
        if let Some(Entry { extent, occurrence, .. }) = last_kept {
            anew.last = Last {
                offset: extent.offset,
                from_bytes: extent.from_bytes,
                from_check: extent.from_check,
                hash: extent.hash,
                occurrence,
                dead: false,
            };
        }
        anew.settled = disk.set_times(drop, times.atime, times.mtime).is_ok();
        anew.seen_at = disk.now();
        anew.drop = disk.stat(drop).map_err(Unread::Failed)?.into();
        anew.tail_hash =
            refresh::tail_hash(desk, drop, anew.drop.size).map_err(|fault| Unread::Failed(fault.source))?;
        let seen = disk.stat(bin).map_err(Unread::Failed)?;
        (anew.bin_inode, anew.bin_bytes) = (seen.inode, ledger.end);
        (anew.bin_id, anew.bin_serial) = (ledger.id, ledger.serial);
        if anew.drop.size != place {
            return Err(Unread::Doubtful);
        }
        writer.finish(&mut anew).map(std::mem::drop)
    }
}

fn drop_front(page: &mut std::collections::VecDeque<Entry>) {
    page.pop_front();
}

fn each<D: Disk>(
    desk: &Desk<D>,
    index: &Index<D>,
    header: &Header,
    from: u32,
    each: impl FnMut(Entry),
) -> Result<(), Refused> {
    index
        .read(&desk.disk, header.generation, from..header.count, Reach::Wait, each)
        .map_err(|unread| Refused::Fault(refresh::fault(desk, unread)))
}

/// Steps 1 and 2: what lives in the drop made durable beside it.
#[allow(clippy::too_many_arguments)]
fn write_copy<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    start: u64,
    pieces: &[Piece<'_, D>],
    size: u64,
    ledger: &Ledger,
    locks: &mut DropLocks<'_, D>,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Plan, Refused> {
    let seen = desk.disk.stat(drop).map_err(desk.fault("looking at"))?;
    let seed = desk.disk.random();
    let length: u64 = pieces.iter().map(Piece::bytes).sum();
    let plan = Plan {
        dev: seen.dev,
        inode: seen.inode,
        start,
        length,
        size,
        seed,
        old_hash: 0,
        before_hash: hash_range(desk, drop, seed, start.saturating_sub(BEFORE_BYTES), start, locks)?,
        live_hash: 0,
        edge_hash: 0,
        bin_id: ledger.id,
        through: ledger.serial,
    };
    publish(desk, drop, plan, pieces, locks, keep_going)
}

/// Writes the copy that says `plan`, its live bytes made of `pieces`, under a new name; syncs; gives it the name that counts.
fn publish<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    mut plan: Plan,
    pieces: &[Piece<'_, D>],
    locks: &mut DropLocks<'_, D>,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Plan, Refused> {
    let disk = &desk.disk;
    let path = desk.own_path(".copy.new");
    let Some((copy, _)) = desk.open_own(".copy.new", How::Create)? else {
        return Err(Fault::new("making", &path, io::ErrorKind::NotFound.into()).into());
    };
    let mut write = || -> Result<(), Refused> {
        disk.cut(&copy, 0).map_err(Fault::at("cutting", &path))?;
        let mut hash = Xxh3::with_seed(plan.seed);
        let mut piece = Vec::new();
        let mut place = HEAD_BYTES;
        for part in pieces {
            let (file, from, to) = match part {
                Piece::Run(file, from, to) => (file, *from, *to),
                Piece::Line(line) => {
                    hash.update(line);
                    disk.write(&copy, line, place).map_err(Fault::at("writing", &path))?;
                    place += line.len() as u64;
                    continue;
                }
            };
            let mut at = from;
            while at < to {
                piece.resize(PIECE_BYTES.min((to - at) as usize), 0);
                desk.read_full(file, &mut piece, at).map_err(desk.fault("reading"))?;
                hash.update(&piece);
                disk.write(&copy, &piece, place).map_err(Fault::at("writing", &path))?;
                place += piece.len() as u64;
                at += piece.len() as u64;
                locks.touch();
                if !keep_going() {
                    return Err(Refused::Locked);
                }
            }
        }
        plan.live_hash = hash.digest();
        plan.old_hash = hash_range(desk, drop, plan.seed, plan.edge(), plan.size, locks)?;
        plan.edge_hash = hash_range(desk, drop, plan.seed, plan.end(), plan.edge(), locks)?;
        piece.resize((plan.edge() - plan.end()) as usize, 0);
        desk.read_full(drop, &mut piece, plan.end()).map_err(desk.fault("reading"))?;
        disk.write(&copy, &piece, place).map_err(Fault::at("writing", &path))?;
        disk.write(&copy, &plan.encode(), 0).map_err(Fault::at("writing", &path))?;
        locks.touch();
        disk.sync(&copy).map_err(Fault::at("syncing", &path))?;
        Ok(())
    };
    if let Err(refused) = write() {
        let _ = desk.remove_own(".copy.new");
        return Err(refused);
    }
    disk.rename(&desk.bins, &desk.own(".copy.new"), &desk.own(".copy")).map_err(Fault::at("renaming", &path))?;
    desk.sync_bins()?;
    Ok(plan)
}

/// Steps 3 to 5. Comes back with what was really done, when mail came meanwhile.
fn apply<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    mut plan: Plan,
    locks: &mut DropLocks<'_, D>,
) -> Result<Plan, Refused> {
    let disk = &desk.disk;
    for _ in 0..ATTEMPTS {
        let path = desk.own_path(".copy");
        let Some((copy, _)) = desk.open_own(".copy", How::Read)? else {
            return Err(Fault::new("opening", &path, io::ErrorKind::NotFound.into()).into());
        };
        let mut size = disk.stat(drop).map_err(desk.fault("looking at"))?.size;
        if size == plan.size {
            let mut done = 0;
            let mut piece = Vec::new();
            while done < plan.length {
                piece.resize(PIECE_BYTES.min((plan.length - done) as usize), 0);
                desk.read_full(&copy, &mut piece, HEAD_BYTES + done).map_err(Fault::at("reading", &path))?;
                disk.write(drop, &piece, plan.start + done).map_err(desk.fault("writing"))?;
                done += piece.len() as u64;
                locks.touch();
            }
            if plan.length > 0 {
                disk.sync(drop).map_err(desk.fault("syncing"))?;
            }
            size = disk.stat(drop).map_err(desk.fault("looking at"))?.size;
        }
        if size == plan.size {
            disk.cut(drop, plan.end()).map_err(desk.fault("cutting"))?;
            disk.sync(drop).map_err(desk.fault("syncing"))?;
            return Ok(plan);
        }
        if size < plan.size {
            let error = io::Error::new(io::ErrorKind::InvalidData, "another program cut it in spite of our locks");
            return Err(Fault::new("compacting", &desk.spot.drop, error).into());
        }
        // Mail came from a program that knows no locks. It joins the live bytes, in a new copy.
        let surplus = size - plan.size;
        let pieces = [Piece::Run(&copy, HEAD_BYTES, HEAD_BYTES + plan.length), Piece::Run(drop, plan.size, size)];
        let longer = Plan { length: plan.length + surplus, size, ..plan };
        plan = publish(desk, drop, longer, &pieces, locks, &mut || true)?;
    }
    Err(Refused::Locked)
}

/// The head of a copy whose live bytes are all there.
fn read_plan<D: Disk>(desk: &Desk<D>, copy: &D::File, locks: &mut DropLocks<'_, D>) -> Option<Plan> {
    let mut head = [0; WORDS * 8];
    desk.read_full(copy, &mut head, 0).ok()?;
    let plan = Plan::decode(&head)?;
    if plan.start.checked_add(plan.length)? > plan.size {
        return None;
    }
    let behind = HEAD_BYTES.checked_add(plan.length)?;
    let live = hash_range(desk, copy, plan.seed, HEAD_BYTES, behind, locks).ok()?;
    let edge_end = behind.checked_add(plan.edge() - plan.end())?;
    let edge = hash_range(desk, copy, plan.seed, behind, edge_end, locks).ok()?;
    (live == plan.live_hash && edge == plan.edge_hash).then_some(plan)
}

fn hash_range<D: Disk>(
    desk: &Desk<D>,
    file: &D::File,
    seed: u64,
    from: u64,
    to: u64,
    locks: &mut DropLocks<'_, D>,
) -> Result<u64, Fault> {
    let mut hash = Xxh3::with_seed(seed);
    let mut piece = Vec::new();
    let mut at = from;
    while at < to {
        piece.resize(PIECE_BYTES.min((to - at) as usize), 0);
        desk.read_full(file, &mut piece, at).map_err(desk.fault("reading"))?;
        hash.update(&piece);
        at += piece.len() as u64;
        locks.touch();
    }
    Ok(hash.digest())
}
