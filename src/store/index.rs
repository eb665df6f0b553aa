//! The index, `.NAME.idx`: where the live messages of a drop stand. It may vanish at any time, is written without sync,
//! read by position, and believed only as far as its checks and the drop's identity go.
//!
//! A header of 256 bytes, then 64 bytes for each live message, number 1 first; dead ones are not in it, so that what lies
//! between two entries is what compaction takes out. Each entry's check covers its position and the header's
//! generation, drawn anew whenever entries move: an old entry can never pass for a new one. While entries are being moved
//! the header is void. Written under an earlier boot, all entries are checked before the first is believed.
//! When the file cannot be written (a full disk), or less is free than `min_space`, the entries stay in memory until the
//! session ends.

use std::io;
use std::path::PathBuf;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::desk::Desk;
use super::disk::{Disk, How, Reach, Stat};
use crate::mail::identity::Uid;
use crate::mail::mbox::Extent;
use crate::rules::bulletins::Seen;

const MAGIC: u64 = u64::from_le_bytes(*b"DMidx\0\0\x02");
pub(super) const HEADER_BYTES: usize = 256;
pub(super) const ENTRY_BYTES: usize = 64;
/// Entries in one read: what a page of LIST or UIDL takes.
pub(super) const PAGE: usize = 64;
/// Entries are gathered into writes of this size.
const BATCH_BYTES: usize = 64 * 1024;

/// How old a time must be to be sure that a later change has another: file systems count in steps of up to two seconds.
const SETTLED_NANOS: i64 = 2 * 1_000_000_000;

/// What changes when a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

impl From<Stat> for Identity {
    fn from(seen: Stat) -> Identity {
        Identity { dev: seen.dev, inode: seen.inode, size: seen.size, mtime: seen.mtime, ctime: seen.ctime }
    }
}

/// What an index says about its drop as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) generation: u64,
    /// The drop, when it was read.
    pub(super) drop: Identity,
    /// When that was, by the wall clock; 0: something changed while we read.
    pub(super) seen_at: i64,
    /// `drop` was taken under the drop's locks after our own write, and its mtime put back: any later write by others moves
    /// mtime, so that mtime need be old, not ctime.
    pub(super) settled: bool,
    pub(super) boot: u64,
    pub(super) count: u32,
    pub(super) octets: u64,
    pub(super) last_read: u32,
    /// How many of the messages take a Status line.
    pub(super) takers: u32,
    /// Bytes before the first From_ line.
    pub(super) preamble: u64,
    /// Bytes of live messages, From_ lines and blank lines included.
    pub(super) live_bytes: u64,
    /// The ledger that was applied, and how much of it.
    pub(super) bin_inode: u64,
    pub(super) bin_bytes: u64,
    pub(super) bin_id: u64,
    pub(super) bin_serial: u32,
    /// When others were last seen to have changed the drop, as the ledger says.
    pub(super) foreign_secs: u64,
    /// The last message of the drop, dead or alive.
    pub(super) last: Last,
    /// [`tail_bytes`] before the drop's end.
    pub(super) tail_hash: u64,
    /// What the ledger says of bulletins; epoch 0: nothing.
    pub(super) bulletins: Seen,
}

/// The last message of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Last {
    pub(super) offset: u64,
    /// 0: there is none.
    pub(super) from_bytes: u32,
    pub(super) from_check: u32,
    pub(super) hash: u128,
    pub(super) occurrence: u32,
    pub(super) dead: bool,
}

/// How many bytes before the end of a drop of `size` vouch for it.
pub(super) fn tail_bytes(size: u64) -> usize {
    size.min(256) as usize
}

impl Header {
    /// Whether a drop that looks like `now` was not touched since.
    pub(super) fn is_fresh(&self, now: &Identity) -> bool {
        let old = |time: i64| self.seen_at.saturating_sub(time) >= SETTLED_NANOS;
        self.drop == *now && self.seen_at > 0 && (old(now.ctime) || self.settled && old(now.mtime))
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let words = [
            MAGIC,
            self.generation,
            self.drop.dev,
            self.drop.inode,
            self.drop.size,
            self.drop.mtime.cast_unsigned(),
            self.drop.ctime.cast_unsigned(),
            self.seen_at.cast_unsigned(),
            u64::from(self.settled),
            self.boot,
            u64::from(self.count),
            self.octets,
            u64::from(self.last_read),
            self.preamble,
            self.live_bytes,
            self.bin_inode,
            self.bin_bytes,
            self.bin_id,
            u64::from(self.bin_serial),
            self.last.offset,
            u64::from(self.last.from_bytes) << 32 | u64::from(self.last.from_check),
            self.last.hash as u64,
            (self.last.hash >> 64) as u64,
            u64::from(self.last.dead) << 32 | u64::from(self.last.occurrence),
            self.tail_hash,
            self.bulletins.epoch,
            u64::from(self.bulletins.through),
            self.bulletins.beyond,
            self.foreign_secs,
            u64::from(self.takers),
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (word, place) in words.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let check = xxh3_64(&bytes[..HEADER_BYTES - 8]);
        bytes[HEADER_BYTES - 8..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let word = |index: usize| u64::from_le_bytes(bytes[8 * index..][..8].try_into().expect("eight bytes"));
        if word(0) != MAGIC || word(31) != xxh3_64(&bytes[..HEADER_BYTES - 8]) {
            return None;
        }
        Some(Header {
            generation: word(1),
            drop: Identity {
                dev: word(2),
                inode: word(3),
                size: word(4),
                mtime: word(5).cast_signed(),
                ctime: word(6).cast_signed(),
            },
            seen_at: word(7).cast_signed(),
            settled: word(8) == 1,
            boot: word(9),
            count: u32::try_from(word(10)).ok()?,
            octets: word(11),
            last_read: word(12) as u32,
            preamble: word(13),
            live_bytes: word(14),
            bin_inode: word(15),
            bin_bytes: word(16),
            bin_id: word(17),
            bin_serial: word(18) as u32,
            last: Last {
                offset: word(19),
                from_bytes: (word(20) >> 32) as u32,
                from_check: word(20) as u32,
                hash: u128::from(word(22)) << 64 | u128::from(word(21)),
                occurrence: word(23) as u32,
                dead: word(23) >> 32 == 1,
            },
            tail_hash: word(24),
            bulletins: Seen { epoch: word(25), through: word(26) as u32, beyond: word(27) },
            foreign_secs: word(28),
            takers: word(29) as u32,
        })
    }
}

/// One live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) extent: Extent,
    pub(super) occurrence: u32,
    /// It was retrieved in an earlier session. Known nowhere else.
    pub(super) seen: bool,
}

impl Entry {
    pub(super) fn uid(&self) -> Uid {
        Uid { hash: self.extent.hash, occurrence: self.occurrence }
    }

    /// Whether somebody read it, there or here.
    pub(super) fn is_read(&self) -> bool {
        self.seen || self.extent.read
    }

    fn encode(&self, generation: u64, position: u64) -> [u8; ENTRY_BYTES] {
        let extent = &self.extent;
        let flags = u64::from(extent.read)
            | u64::from(extent.verbatim) << 1
            | u64::from(extent.takes_status) << 2
            | u64::from(self.seen) << 3;
        let words = [
            extent.offset,
            extent.text_bytes,
            extent.octets,
            extent.hash as u64,
            (extent.hash >> 64) as u64,
            u64::from(extent.from_check) << 32 | u64::from(self.occurrence),
            u64::from(extent.from_bytes) << 32 | u64::from(extent.trail_bytes) << 8 | flags,
        ];
        let mut bytes = [0; ENTRY_BYTES];
        for (word, place) in words.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let check = xxh3_64_with_seed(&bytes[..56], generation.wrapping_add(position));
        bytes[56..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], generation: u64, position: u64) -> Option<Entry> {
        let word = |index: usize| u64::from_le_bytes(bytes[8 * index..][..8].try_into().expect("eight bytes"));
        if word(7) != xxh3_64_with_seed(&bytes[..56], generation.wrapping_add(position)) {
            return None;
        }
        Some(Entry {
            extent: Extent {
                offset: word(0),
                text_bytes: word(1),
                octets: word(2),
                hash: u128::from(word(4)) << 64 | u128::from(word(3)),
                from_check: (word(5) >> 32) as u32,
                from_bytes: (word(6) >> 32) as u32,
                trail_bytes: (word(6) >> 8) as u8,
                read: word(6) & 1 != 0,
                verbatim: word(6) & 2 != 0,
                takes_status: word(6) & 4 != 0,
            },
            occurrence: word(5) as u32,
            seen: word(6) & 8 != 0,
        })
    }
}

/// Where the entries are.
pub(super) enum Index<D: Disk> {
    File(D::File),
    /// Entries as in the file, from number 1 on.
    Memory(Vec<u8>),
}

/// Why an entry could not be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what was written: the index must be made anew.
    Doubtful,
    Failed(io::Error),
}

impl<D: Disk> Index<D> {
    /// Entries from `position` on, as many as `buffer` has room for and there are below `count`, handed to `each`.
    pub(super) fn read(
        &self,
        disk: &D,
        generation: u64,
        positions: std::ops::Range<u32>,
        reach: Reach,
        mut each: impl FnMut(Entry),
    ) -> Result<(), Unread> {
        let mut buffer = [0; PAGE * ENTRY_BYTES];
        let mut position = u64::from(positions.start);
        let end = u64::from(positions.end);
        while position < end {
            let wanted = (end - position).min(PAGE as u64) as usize * ENTRY_BYTES;
            let from = position * ENTRY_BYTES as u64;
            match self {
                Index::Memory(entries) => {
                    let entries = entries.get(from as usize..).unwrap_or_default();
                    let page = entries.get(..wanted).ok_or(Unread::Doubtful)?;
                    buffer[..wanted].copy_from_slice(page);
                }
                Index::File(file) => {
                    let mut read = 0;
                    while read < wanted {
                        let at = HEADER_BYTES as u64 + from + read as u64;
                        match disk.read(file, &mut buffer[read..wanted], at, reach).map_err(Unread::Failed)? {
                            0 => return Err(Unread::Doubtful),
                            some => read += some,
                        }
                    }
                }
            }
            for entry in buffer[..wanted].chunks_exact(ENTRY_BYTES) {
                each(Entry::decode(entry, generation, position).ok_or(Unread::Doubtful)?);
                position += 1;
            }
        }
        Ok(())
    }

    /// Puts down who was seen: `seen` has one bit a message, number 1 in the lowest of the first word. Not synced, and only in
    /// a file that still is the index of that generation; what cannot be put down is unseen once more.
    pub(super) fn put_seen(&self, disk: &D, generation: u64, count: u32, seen: &[u64]) -> Result<(), Unread> {
        const { assert!(PAGE == u64::BITS as usize, "a word of bits is a page") };
        let Index::File(file) = self else { return Ok(()) };
        let mut last = 0;
        for (word, &bits) in seen.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            let start = (word * PAGE) as u32;
            let (mut bytes, mut position) = (Vec::with_capacity(PAGE * ENTRY_BYTES), u64::from(start));
            self.read(disk, generation, start..count.min(start + PAGE as u32), Reach::Wait, |mut entry| {
                entry.seen |= bits >> (position - u64::from(start)) & 1 != 0;
                bytes.extend_from_slice(&entry.encode(generation, position));
                position += 1;
            })?;
            let at = HEADER_BYTES as u64 + u64::from(start) * ENTRY_BYTES as u64;
            disk.write(file, &bytes, at).map_err(Unread::Failed)?;
            last = start + 64 - bits.leading_zeros();
        }
        if last == 0 {
            return Ok(());
        }
        let mut bytes = [0; HEADER_BYTES];
        if disk.read(file, &mut bytes, 0, Reach::Wait).map_err(Unread::Failed)? < HEADER_BYTES {
            return Err(Unread::Doubtful);
        }
        let header = Header::decode(&bytes).filter(|header| header.generation == generation).ok_or(Unread::Doubtful)?;
        if header.last_read < last {
            disk.write(file, &Header { last_read: last, ..header }.encode(), 0).map_err(Unread::Failed)?;
        }
        Ok(())
    }
}

/// Opens the index and reads its header, if both can be had and believed.
pub(super) fn open<D: Disk>(desk: &Desk<D>) -> Option<(D::File, Header)> {
    let (file, _) = desk.open_own(".idx", How::Write).ok()??;
    let mut bytes = [0; HEADER_BYTES];
    desk.read_full(&file, &mut bytes, 0).ok()?;
    let header = Header::decode(&bytes)?;
    if header.boot != desk.disk.boot() {
        // What was not synced before the last boot may be lost, page by page.
        let index = Index::<D>::File(file);
        index.read(&desk.disk, header.generation, 0..header.count, Reach::Wait, |_| ()).ok()?;
        let Index::File(file) = index else { return None };
        return Some((file, header));
    }
    Some((file, header))
}

/// Writes entries, and at last the header. What cannot be written is kept in memory.
pub(super) struct Writer<'d, D: Disk> {
    desk: &'d Desk<D>,
    index: Index<D>,
    generation: u64,
    batch: Vec<u8>,
    /// Entries before this are in `index`, not in `batch`.
    written: u32,
}

impl<'d, D: Disk> Writer<'d, D> {
    /// Begins at number 1, with a generation of its own. `old`: the file there was, if one.
    pub(super) fn anew(desk: &'d Desk<D>, old: Option<D::File>) -> Writer<'d, D> {
        let generation = desk.disk.random();
        if desk.short {
            // The one there is stays: it is true of its day, and spares the next session a scan when it is believed again.
            return Writer { desk, index: Index::Memory(Vec::new()), generation, batch: Vec::new(), written: 0 };
        }
        let file = match old {
            Some(file) => Some(file),
            // An index that is not ours, a link, a directory: it stays, and we do without.
            None => desk.open_own(".idx", How::Create).ok().flatten().map(|(file, _)| file),
        };
        let index = match file {
            Some(file) if void(desk, &file).is_ok() => Index::File(file),
            _ => {
                // What cannot be written may still be there from an earlier day.
                drop(desk.remove_own(".idx"));
                Index::Memory(Vec::new())
            }
        };
        Writer { desk, index, generation, batch: Vec::new(), written: 0 }
    }

    /// Goes on behind the first `kept` entries of an index that was read with `generation`.
    pub(super) fn behind(desk: &'d Desk<D>, index: Index<D>, generation: u64, kept: u32) -> Result<Self, Unread> {
        let mut writer = Writer { desk, index, generation, batch: Vec::new(), written: kept };
        match &mut writer.index {
            Index::Memory(entries) => entries.truncate(kept as usize * ENTRY_BYTES),
            Index::File(_) if desk.short => writer.index = Index::Memory(writer.read_back()?),
            Index::File(file) => {
                if void(desk, file).is_err() {
                    writer.retreat()?;
                }
            }
        }
        Ok(writer)
    }

    /// The number of the next entry, less one.
    pub(super) fn position(&self) -> u32 {
        self.written + (self.batch.len() / ENTRY_BYTES) as u32
    }

    /// The next live message.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), Unread> {
        let position = u64::from(self.position());
        self.batch.extend_from_slice(&entry.encode(self.generation, position));
        if self.batch.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Unread> {
        let at = self.written as usize * ENTRY_BYTES;
        if let Index::File(file) = &self.index
            && self.desk.disk.write(file, &self.batch, (HEADER_BYTES + at) as u64).is_err()
        {
            self.retreat()?;
        }
        if let Index::Memory(entries) = &mut self.index {
            debug_assert_eq!(entries.len(), at, "entries are contiguous");
            entries.extend_from_slice(&self.batch);
        }
        self.written += (self.batch.len() / ENTRY_BYTES) as u32;
        self.batch.clear();
        Ok(())
    }

    /// From file to memory: what was written so far is read back.
    fn retreat(&mut self) -> Result<(), Unread> {
        if let Index::File(_) = &self.index {
            let entries = self.read_back()?;
            drop(self.desk.remove_own(".idx"));
            self.index = Index::Memory(entries);
        }
        Ok(())
    }

    fn read_back(&self) -> Result<Vec<u8>, Unread> {
        let mut entries = vec![0; self.written as usize * ENTRY_BYTES];
        if let Index::File(file) = &self.index {
            self.desk.read_full(file, &mut entries, HEADER_BYTES as u64).map_err(Unread::Failed)?;
        }
        Ok(entries)
    }

    /// From here on the entries are this session's only.
    pub(super) fn keep_in_memory(&mut self) -> Result<(), Unread> {
        self.flush()?;
        self.retreat()
    }

    /// Ends with `header`, whose generation and boot are filled in here.
    pub(super) fn finish(mut self, header: &mut Header) -> Result<Index<D>, Unread> {
        self.flush()?;
        header.generation = self.generation;
        header.boot = self.desk.disk.boot();
        debug_assert_eq!(header.count, self.written, "the header counts the entries");
        if let Index::File(file) = &self.index
            && self.desk.disk.write(file, &header.encode(), 0).is_err()
        {
            self.retreat()?;
        }
        Ok(self.index)
    }
}

fn void<D: Disk>(desk: &Desk<D>, file: &D::File) -> io::Result<()> {
    desk.disk.write(file, &[0; 8], 0)
}

/// For faults: where the index is.
pub(super) fn path<D: Disk>(desk: &Desk<D>) -> PathBuf {
    desk.own_path(".idx")
}
