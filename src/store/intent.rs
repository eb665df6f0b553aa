//! The intent log, `intents` in work_path: where bytes of ours are about to stand in drops. It is written and synced before the
//! first of them is, so that after a crash [`delivery`](super::delivery) knows what is ours without having the messages.
//!
//! A record is a head of 32 bytes and a payload, numbers little-endian:
//!
//! | bytes | what                                                    |
//! |-------|---------------------------------------------------------|
//! | 0-3   | `DMi1`                                                  |
//! | 4     | kind, see below; 5-7 zero                               |
//! | 8-11  | payload's length                                        |
//! | 12-15 | its generation, see below                               |
//! | 16-23 | the intent's number                                     |
//! | 24-31 | XXH3-64 of bytes 0-23 and the payload                   |
//!
//! | kind | record | says                                                                                    | synced |
//! |------|--------|-----------------------------------------------------------------------------------------|--------|
//! | 1    | Begun  | one append: drop, inode, old length, bytes of blank line, and of each message its length, hash, head, its place in the queue if it came from there, and its mark if it has one ([`repeats`](super::repeats)) | before the append |
//! | 2    | Void   | it was answered 4xx and its bytes may still be there: they are refused, whole or not     | before that answer |
//! | 3    | Found  | of these messages, by index, recovery knows that they are whole and on disk              | before other bytes of the append move |
//! | 4    | Closed | nothing is to be known of it any more                                                   | no: with whatever comes next |
//!
//! A Closed that a power cut takes back is harmless: what it was about is judged once more, with the same verdict, because its
//! drop is not compacted before the Closed is on disk ([`standing`]). Records that do not check are passed over, wherever they
//! stand: an unsynced one has no bytes in any drop.
//!
//! **In place.** The file has two halves of the same size, filled with zeros and synced once: what is written then changes bytes and no
//! size, so that its sync writes these bytes and nothing of the file system's own. A half is written from its start to its end, then
//! the other one, over what was there:
//!
//! | kind | record  | says                                                                                     | synced              |
//! |------|---------|------------------------------------------------------------------------------------------|---------------------|
//! | 5    | Start   | first in a half: how long the records of what was open then are, and their hash; they follow | with whatever comes next |
//! | 6    | Settled | its half's Start was on disk when it was written, with what it describes and the file's name | no               |
//!
//! Each half has a generation, one more than that of the half before it, and so has each record: one of another generation is of the
//! past. What counts is the half of the highest generation whose Start and what it describes check; as long as that is
//! not on disk the other half is not touched. A reader that has no part in the writing looks at both Starts again when he has read: where they have
//! changed he reads anew. So that each Closed has room, a half keeps some for all that are open.
//!
//! Jobs that begin side by side share a sync: whoever comes first syncs for all who wrote until then, the others wait for it
//! and, if they were late, for one more. A failed sync is never retried and believed: the intents that waited for it have
//! failed, and the file is renewed: zeros, and the open ones, are written to `intents.new`, synced, renamed, the directory synced. The
//! same is done when what is open leaves too little room in a half, which is then made larger, and when a server starts. When nothing is open and there is
//! something to drop, a half is begun, synced, and the other one filled with zeros. At most
//! [`OPEN_MAX`] intents are open; more are refused, which their senders hear as a temporary failure. A server that starts on a
//! full disk begins no append until the file can be renewed.
//!
//! One server has a log: it is locked while it is open.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

use super::desk::{Refused, refuse, there};
use super::disk::{Disk, How, LockKind, Reach, RealDisk};
use super::locks::Spares;
use super::queue::is_id;
use super::repeats::{Mark, Marked, Repeats};
use crate::text::fault::Fault;

/// Its name in work_path.
const NAME: &str = "intents";
/// What the next one is written as.
const NEW: &str = "intents.new";
const MAGIC: &[u8; 4] = b"DMi1";
const HEAD_BYTES: usize = 32;
/// The length of a half, as long as what is open leaves room in it: some hundred intents.
const HALF_BYTES: u64 = 256 * 1024;
/// What a half is a multiple of: pages are what a disk loses or keeps.
const PAGE_BYTES: u64 = 4096;
/// How much of a half is read first: as a rule there is no more.
const FIRST_BYTES: u64 = 16 * 1024;
/// How often a reader begins anew because the log has gone on meanwhile.
const READS: usize = 16;
/// So many are open at once. Each is an append in a job of the pool, or waits for the queue to note it.
const OPEN_MAX: usize = 4096;
/// No log is larger: what [`OPEN_MAX`] appends of a few messages each can come to, with room. An intent that would need more is refused.
const LOG_BYTES: u64 = 256 << 20;
/// What is kept of a message's head at most: From_ line, Return-Path, Delivered-To and Received fit, whatever a client says.
pub(super) const KEPT_BYTES: usize = 4096;

/// A recipient of a message in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queued {
    /// The message there.
    pub id: String,
    /// Whose delivery this was.
    pub recipient: String,
}

/// One message of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bytes: u64,
    /// XXH3-64 of them, with the intent's seed.
    pub(super) hash: u64,
    /// How they begin: up to [`KEPT_BYTES`].
    pub(super) head: Vec<u8>,
    pub(super) queued: Option<Queued>,
    /// Where it is for its own sender, and he may send it again.
    pub(super) marked: Option<Marked>,
}

/// One append to one drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) drop: PathBuf,
    pub(super) inode: u64,
    /// How long the drop was.
    pub(super) start: u64,
    /// What was missing of a blank line at its end; written first.
    pub(super) pad: u8,
    /// Drawn for this append: nobody can make bytes that look like those he was not shown.
    pub(super) seed: u64,
    pub(super) parts: Vec<Part>,
    pub(super) void: bool,
    /// Indexes of parts.
    pub(super) found: Vec<u32>,
}

impl Intent {
    /// Whether it has a message of this recipient's.
    pub(super) fn concerns(&self, queued: &Queued) -> bool {
        self.parts.iter().any(|part| part.queued.as_ref() == Some(queued))
    }

    /// Where the append ends.
    pub(super) fn end(&self) -> u64 {
        self.parts.iter().fold(self.start + u64::from(self.pad), |end, part| end.saturating_add(part.bytes))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut run = |run: &[u8]| {
            bytes.extend_from_slice(&(run.len() as u32).to_le_bytes());
            bytes.extend_from_slice(run);
        };
        run(self.drop.as_os_str().as_encoded_bytes());
        for part in &self.parts {
            let mut facts = [part.bytes.to_le_bytes(), part.hash.to_le_bytes()].concat();
            // A server that knows no marks passes over what follows the two numbers.
            if let Some(Marked { mark, id }) = &part.marked {
                facts.extend_from_slice(mark.bytes());
                facts.extend_from_slice(id.as_bytes());
            }
            run(&facts);
            run(&part.head);
            let queued = part.queued.as_ref();
            run(queued.map_or(b"", |queued| queued.id.as_bytes()));
            run(queued.map_or(b"", |queued| queued.recipient.as_bytes()));
        }
        let numbers = [self.inode, self.start, self.seed, u64::from(self.pad)];
        numbers.iter().flat_map(|number| number.to_le_bytes()).chain(bytes).collect()
    }

    fn decode(mut bytes: &[u8]) -> Option<Intent> {
        let bytes = &mut bytes;
        let [inode, start, seed, pad] = [number(bytes)?, number(bytes)?, number(bytes)?, number(bytes)?];
        let drop = PathBuf::from(OsStr::from_bytes(run(bytes)?));
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let mut facts = run(bytes)?;
            let (length, hash, head) = (number(&mut facts)?, number(&mut facts)?, run(bytes)?.to_vec());
            let marked = facts.split_first_chunk().and_then(|(mark, id)| {
                let id = str::from_utf8(id).ok().filter(|id| is_id(id.as_bytes()))?;
                Some(Marked { mark: Mark::from_bytes(*mark), id: id.into() })
            });
            let (id, recipient) =
                (String::from_utf8(run(bytes)?.to_vec()).ok()?, String::from_utf8(run(bytes)?.to_vec()).ok()?);
            let queued = (!id.is_empty()).then_some(Queued { id, recipient });
            parts.push(Part { bytes: length, hash, head, queued, marked });
        }
        let pad = u8::try_from(pad).ok().filter(|&pad| pad <= 2)?;
        start.checked_add(u64::from(pad))?;
        Some(Intent { drop, inode, start, pad, seed, parts, void: false, found: Vec::new() })
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn run<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (run, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(run)
}

enum Record {
    Begun(Intent),
    Void,
    Found(Vec<u32>),
    Closed,
    /// How many bytes of records belong to it, and their XXH3-64.
    Start(u64, u64),
    Settled,
}

/// A Start's length.
const START_BYTES: usize = HEAD_BYTES + 16;
/// How far a half is written that has no intent: a Start and a Settled.
const EMPTY_BYTES: u64 = (START_BYTES + HEAD_BYTES) as u64;

fn encode(generation: u32, id: u64, record: &Record) -> Vec<u8> {
    let (kind, payload) = match record {
        Record::Begun(intent) => (1, intent.encode()),
        Record::Void => (2, Vec::new()),
        Record::Found(parts) => (3, parts.iter().flat_map(|part| part.to_le_bytes()).collect()),
        Record::Closed => (4, Vec::new()),
        Record::Start(length, hash) => (5, [length.to_le_bytes(), hash.to_le_bytes()].concat()),
        Record::Settled => (6, Vec::new()),
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    let check = check(&bytes, &payload);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

fn check(head: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(payload);
    hash.digest()
}

/// A record as it stands in a log.
struct Standing {
    generation: u32,
    id: u64,
    /// `None`: of a kind that is not known.
    record: Option<Record>,
    bytes: usize,
}

/// The record at the start of `bytes`, if one checks there.
fn decode(bytes: &[u8]) -> Option<Standing> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let payload = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(half(8) as usize)?)?;
    if &head[..4] != MAGIC || word(24) != check(&head[..24], payload) {
        return None;
    }
    let record = match head[4] {
        1 => Intent::decode(payload).map(Record::Begun),
        2 => Some(Record::Void),
        3 => Some(Record::Found(
            payload.chunks_exact(4).map(|part| u32::from_le_bytes(part.try_into().expect("four bytes"))).collect(),
        )),
        4 => Some(Record::Closed),
        5 => {
            let mut rest = payload;
            number(&mut rest).zip(number(&mut rest)).map(|(length, hash)| Record::Start(length, hash))
        }
        6 => Some(Record::Settled),
        _ => None,
    };
    Some(Standing { generation: half(12), id: word(16), record, bytes: HEAD_BYTES + payload.len() })
}

/// What a log says: what is open, and which drops it names at all.
#[derive(Default)]
struct Read {
    open: BTreeMap<u64, Intent>,
    named: HashSet<PathBuf>,
    highest: u64,
    /// What is not here is not open on disk either.
    settled: bool,
    /// There was nothing behind the last record.
    ended: bool,
}

/// What records of one generation say.
fn parse(bytes: &[u8], generation: u32) -> Read {
    let mut read = Read::default();
    let mut closed = HashSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let standing = decode(&bytes[at..]).filter(|standing| standing.generation == generation);
        let Some(Standing { id, record, bytes: length, .. }) = standing else {
            // Records are written one behind the other: what stands behind a gap was not synced.
            if bytes[at..].get(..HEAD_BYTES).is_some_and(|head| head.iter().all(|&byte| byte == 0)) {
                read.ended = true;
                break;
            }
            at += 1 + memmem::find(&bytes[at + 1..], MAGIC).unwrap_or(bytes.len() - at - 1);
            continue;
        };
        at += length;
        read.highest = read.highest.max(id);
        match record {
            Some(Record::Begun(intent)) => {
                read.named.insert(intent.drop.clone());
                read.open.insert(id, intent);
            }
            Some(Record::Void) => drop(read.open.get_mut(&id).map(|intent| intent.void = true)),
            Some(Record::Found(parts)) => drop(read.open.get_mut(&id).map(|intent| intent.found = parts)),
            Some(Record::Closed) => drop(closed.insert(id)),
            Some(Record::Settled) => read.settled = true,
            Some(Record::Start(..)) | None => {}
        }
    }
    read.open.retain(|id, _| !closed.contains(id));
    read
}

/// A log that is read, by whomever.
struct Reading<'r, D: Disk> {
    disk: &'r D,
    file: &'r D::File,
    path: &'r Path,
    half: u64,
}

impl<'r, D: Disk> Reading<'r, D> {
    fn of(disk: &'r D, file: &'r D::File, path: &'r Path) -> Result<Reading<'r, D>, Fault> {
        let size = disk.stat(file).map_err(Fault::at("looking at", path))?.size.min(LOG_BYTES);
        Ok(Reading { disk, file, path, half: size / 2 })
    }

    fn bytes(&self, from: u64, length: u64) -> Result<Vec<u8>, Fault> {
        let (mut bytes, mut at) = (vec![0; length as usize], 0);
        while at < bytes.len() {
            let read = self.disk.read(self.file, &mut bytes[at..], from + at as u64, Reach::Wait);
            match read.map_err(Fault::at("reading", self.path))? {
                0 => break,
                some => at += some,
            }
        }
        bytes.truncate(at);
        Ok(bytes)
    }

    /// The generations of the two halves, as far as their Starts check.
    fn starts(&self) -> Result<[Option<u32>; 2], Fault> {
        let start = |from: u64| {
            let standing = decode(&self.bytes(from, START_BYTES as u64)?);
            let start = standing.filter(|standing| matches!(standing.record, Some(Record::Start(..))));
            Ok(start.map(|start| start.generation))
        };
        Ok([start(0)?, start(self.half)?])
    }

    /// What a half says. `None`: it does not count.
    fn half(&self, which: usize, generation: u32) -> Result<Option<Read>, Fault> {
        let mut length = FIRST_BYTES;
        loop {
            length = length.min(self.half);
            let bytes = self.bytes(which as u64 * self.half, length)?;
            let Some(Standing { record: Some(Record::Start(open, hash)), .. }) =
                decode(&bytes).filter(|start| start.generation == generation)
            else {
                return Ok(None);
            };
            let open =
                usize::try_from(open).ok().and_then(|open| bytes.get(START_BYTES..START_BYTES.checked_add(open)?));
            let read = match open {
                Some(open) if check(&[], open) != hash => return Ok(None),
                Some(_) => Some(parse(&bytes[START_BYTES..], generation)),
                None => None,
            };
            if read.as_ref().is_some_and(|read| read.ended) || length == self.half {
                return Ok(read);
            }
            length *= 4;
        }
    }

    fn all(&self) -> Result<Read, Fault> {
        for _ in 0..READS {
            let starts = self.starts()?;
            let mut halves = [0, 1];
            halves.sort_by_key(|&which| Reverse(starts[which]));
            let mut found = None;
            for which in halves {
                if let (None, Some(generation)) = (&found, starts[which]) {
                    found = self.half(which, generation)?;
                }
            }
            if self.starts()? == starts {
                // Without a half: empty, or of a server from before there were halves.
                return found.map_or_else(
                    || Ok(Read { settled: true, ..parse(&self.bytes(0, LOG_BYTES.min(self.half * 2 + 1))?, 0) }),
                    Ok,
                );
            }
        }
        Err(Fault::new("reading", self.path, io::Error::other("it changes faster than it can be read")))
    }
}

/// The open intents of a drop, for whoever has the drop's locks and is about to scan or change it. That none is open is
/// on disk when this returns.
pub(super) fn standing<D: Disk>(disk: &D, work_path: &Path, drop: &Path) -> Result<Vec<Intent>, Fault> {
    let path = work_path.join(NAME);
    let Some(dir) = there(disk.open_dir(work_path)).map_err(Fault::at("opening", work_path))? else {
        return Ok(Vec::new());
    };
    let Some(file) = there(disk.open(&dir, Path::new(NAME), How::Read)).map_err(Fault::at("opening", &path))? else {
        return Ok(Vec::new());
    };
    let read = Reading::of(disk, &file, &path)?.all()?;
    let open: Vec<Intent> = read.open.into_values().filter(|intent| intent.drop == drop).collect();
    if open.is_empty() && (read.named.contains(drop) || !read.settled) {
        disk.sync(&file).map_err(Fault::at("syncing", &path))?;
        if !read.settled {
            // Perhaps it has just been renewed.
            disk.sync_dir(&dir).map_err(Fault::at("syncing", work_path))?;
        }
    }
    Ok(open)
}

/// An open intent's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentId(u64);

/// The log of this server, shared by its jobs.
pub struct Intents<D: Disk = RealDisk> {
    pub(super) disk: D,
    work_path: PathBuf,
    /// Halves are no shorter.
    least: u64,
    /// Files for dotlocks, for who delivers.
    pub(super) spares: Spares<D>,
    repeats: Repeats<D>,
    state: Mutex<State<D>>,
    /// A sync has ended.
    ended: Condvar,
}

struct State<D: Disk> {
    file: Arc<D::File>,
    /// The length of each half, and which is written to.
    half: u64,
    which: usize,
    generation: u32,
    /// Where the next record goes, from that half's start.
    end: u64,
    /// How far there may be anything but zeros in each half.
    used: [u64; 2],
    highest: u64,
    open: BTreeMap<u64, Intent>,
    /// This half was begun, and that is not known to be on disk.
    fresh: bool,
    /// Records written, and how many of them are on disk, or will never be known to be.
    written: u64,
    durable: u64,
    lost: u64,
    syncing: bool,
    /// A write or a sync failed: the file is not to be written to any more.
    broken: bool,
}

impl Intents {
    /// Opens the log in `work_path`, which is made when it is not there. What is open in it waits for
    /// [`recover`](super::delivery::recover). Refuses while another server has it. Waits for the disk: only in a job.
    pub fn open(work_path: &Path) -> Result<Intents, Refused> {
        Intents::open_on(&RealDisk::default(), work_path)
    }
}

impl<D: Disk> Intents<D> {
    /// [`open`](Intents::open) on a disk of the caller's.
    pub fn open_on(disk: &D, work_path: &Path) -> Result<Intents<D>, Refused> {
        Intents::open_with(disk, work_path, HALF_BYTES)
    }

    /// The same, with halves of that many bytes at least.
    pub(super) fn open_with(disk: &D, work_path: &Path, least: u64) -> Result<Intents<D>, Refused> {
        disk.make_dirs(work_path).map_err(Fault::at("making", work_path))?;
        let path = work_path.join(NAME);
        let dir = disk.open_dir(work_path).map_err(Fault::at("opening", work_path))?;
        let file = disk.open(&dir, Path::new(NAME), How::Create).map_err(Fault::at("opening", &path))?;
        let seen = disk.stat(&file).map_err(Fault::at("looking at", &path))?;
        if !seen.is_file() || seen.uid != disk.uid() {
            return Err(refuse("opening", &path, "not a regular file of ours"));
        }
        if !disk.try_lock(&file, LockKind::Fcntl).map_err(Fault::at("locking", &path))? {
            return Err(Refused::InUse);
        }
        // Another server may have renewed it before we had the lock.
        if !disk.look(&dir, Path::new(NAME)).is_ok_and(|named| named.inode == seen.inode) {
            return Err(Refused::InUse);
        }
        let spares = Spares::open(disk, work_path)?;
        let repeats = Repeats::open(disk, work_path);
        let read = Reading::of(disk, &file, &path)?.all()?;
        let state = State {
            file: Arc::new(file),
            half: least,
            which: 0,
            generation: 0,
            end: 0,
            used: [0; 2],
            highest: read.highest,
            open: read.open,
            fresh: false,
            written: 0,
            durable: 0,
            lost: 0,
            syncing: false,
            broken: false,
        };
        let intents = Intents {
            disk: disk.clone(),
            work_path: work_path.to_owned(),
            least,
            spares,
            repeats,
            state: Mutex::new(state),
            ended: Condvar::new(),
        };
        // Behind a torn record nothing is written; and the name is on disk before anything counts on it.
        let renewed = intents.renew(&mut intents.state(), 0);
        match renewed {
            Err(fault) if is_short_of_room(&fault) => {
                // Users are served from what is there. Whoever would begin renews it first, or is refused.
                disk.sync_dir(&dir).map_err(Fault::at("syncing", work_path))?;
                intents.state().broken = true;
            }
            renewed => renewed?,
        }
        Ok(intents)
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.work_path.join(NAME)
    }

    /// The open intents, oldest first.
    pub(super) fn open_ones(&self) -> Vec<(IntentId, Intent)> {
        self.state().open.iter().map(|(&id, intent)| (IntentId(id), intent.clone())).collect()
    }

    /// Those of one drop.
    pub(super) fn of(&self, drop: &Path) -> Vec<(IntentId, Intent)> {
        let state = self.state();
        let ours = state.open.iter().filter(|(_, intent)| intent.drop == drop);
        ours.map(|(&id, intent)| (IntentId(id), intent.clone())).collect()
    }

    /// Whether an append is open that this recipient's message is part of: it may be in the drop, and is not to be delivered again
    /// before that is known.
    pub fn holds(&self, queued: &Queued) -> bool {
        self.state().open.values().any(|intent| intent.concerns(queued))
    }

    /// The messages that came and whose senders may not have heard that.
    pub fn repeats(&self) -> &Repeats<D> {
        &self.repeats
    }

    /// How many appends are open: under way, or waiting for the queue or for recovery.
    pub fn len(&self) -> usize {
        self.state().open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes an intent down; it is on disk when this returns. Refuses when too many are open.
    pub(super) fn begin(&self, intent: Intent) -> Result<IntentId, Fault> {
        self.begin_all(vec![intent]).map(|ids| ids[0])
    }

    /// The same for several, in their order, with one sync: all of them or none.
    pub(super) fn begin_all(&self, intents: Vec<Intent>) -> Result<Vec<IntentId>, Fault> {
        if intents.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state();
        if state.open.len() + intents.len() > OPEN_MAX {
            let error = io::Error::other(format!("{OPEN_MAX} deliveries are open already"));
            return Err(Fault::new("writing", &self.path(), error));
        }
        let (mut ids, mut records) = (Vec::with_capacity(intents.len()), Vec::with_capacity(intents.len()));
        for intent in intents {
            state.highest += 1;
            let id = state.highest;
            records.push((id, Record::Begun(intent.clone())));
            // Open from now on: nobody renews the log without it.
            state.open.insert(id, intent);
            ids.push(IntentId(id));
        }
        let (mut state, result) = self.durably(state, &records);
        if result.is_err() {
            ids.iter().for_each(|id| drop(state.open.remove(&id.0)));
        }
        result.map(|()| ids)
    }

    /// All its messages are whole and on disk: this process saw to it, and need not look again.
    pub(super) fn stands(&self, id: IntentId) {
        if let Some(intent) = self.state().open.get_mut(&id.0) {
            intent.found = (0..intent.parts.len() as u32).collect();
        }
    }

    /// The append was answered 4xx, or will be when this has returned: its bytes are not to stay, whole or not.
    pub(super) fn void(&self, id: IntentId) -> Result<(), Fault> {
        let (mut state, result) = self.durably(self.state(), &[(id.0, Record::Void)]);
        if result.is_ok()
            && let Some(intent) = state.open.get_mut(&id.0)
        {
            intent.void = true;
        }
        result
    }

    /// These messages of it, by index, are whole and on disk.
    pub(super) fn found(&self, id: IntentId, parts: Vec<u32>) -> Result<(), Fault> {
        let (mut state, result) = self.durably(self.state(), &[(id.0, Record::Found(parts.clone()))]);
        if result.is_ok()
            && let Some(intent) = state.open.get_mut(&id.0)
        {
            intent.found = parts;
        }
        result
    }

    /// Nothing is to be known of this append any more: for one on behalf of the queue, its file says so, on disk.
    pub fn close(&self, id: IntentId) {
        self.close_all(&[id]);
    }

    /// The same of several.
    pub(super) fn close_all(&self, ids: &[IntentId]) {
        let mut state = self.state();
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            if state.open.remove(&id.0).is_some() {
                records.push((id.0, Record::Closed));
            }
        }
        // Where it is not written the log says that they are open, until it is renewed.
        if !records.is_empty() && !state.broken {
            let bytes = encode_all(state.generation, &records);
            state.broken = self.put(&mut state, &bytes).is_err();
        }
    }

    /// Empties the log when nothing is open: for quiet moments, and for recovery's end.
    pub fn tidy(&self) -> Result<(), Fault> {
        let mut state = self.state();
        let is_past = state.open.is_empty() && state.end > EMPTY_BYTES || state.broken;
        if !is_past || state.syncing || !state.settled() {
            return Ok(());
        }
        if state.broken || state.half > self.least {
            return self.renew(&mut state, 0);
        }
        let emptied = self.begin_half(&mut state).and_then(|()| self.disk.sync(&state.file)).and_then(|()| {
            self.settle(&mut state);
            self.blank(&mut state)
        });
        emptied.map_err(|error| {
            state.broken = true;
            Fault::new("writing", &self.path(), error)
        })
    }

    /// Fills with zeros what does not count any more: the other half's start is of the past, on disk.
    fn blank(&self, state: &mut State<D>) -> io::Result<()> {
        for which in [0, 1] {
            let from = if which == state.which { state.end } else { 0 };
            let used = std::mem::replace(&mut state.used[which], from);
            let start = which as u64 * state.half;
            self.disk.fill(&state.file, start + from, start + used)?;
        }
        self.disk.sync(&state.file)
    }

    /// Writes `bytes` where the half that is written to has come to.
    fn put(&self, state: &mut State<D>, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if state.end + length > state.half {
            return Err(io::Error::other("it has no room left"));
        }
        self.disk.write(&state.file, bytes, state.which as u64 * state.half + state.end)?;
        state.end += length;
        let which = state.which;
        state.used[which] = state.used[which].max(state.end);
        Ok(())
    }

    /// Goes over to the other half. Only when all that was written is on disk, or in `open`.
    fn begin_half(&self, state: &mut State<D>) -> io::Result<()> {
        state.generation += 1;
        (state.which, state.end, state.fresh) = (1 - state.which, 0, true);
        let start = state.start();
        self.put(state, &start)
    }

    /// The half's start is on disk.
    fn settle(&self, state: &mut State<D>) {
        let settled = encode(state.generation, 0, &Record::Settled);
        // Unwritten, readers sync once more than they need.
        state.fresh = self.put(state, &settled).is_err();
    }

    /// Writes `records` and waits until they are on disk, by a sync of ours or of another's.
    fn durably<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<D>>,
        records: &[(u64, Record)],
    ) -> (MutexGuard<'s, State<D>>, Result<(), Fault>) {
        let path = self.path();
        let (mut bytes, generation) = (encode_all(state.generation, records), state.generation);
        // Whoever comes while the file is to be renewed, or the half is full, lets those before him end first.
        while (state.syncing || !state.settled()) && (state.broken || state.lacks(bytes.len())) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.broken && state.lacks(bytes.len()) {
            let begun = match state.with_all(bytes.len()) <= state.half / 2 {
                true => self.begin_half(&mut state),
                false => Err(io::ErrorKind::StorageFull.into()),
            };
            state.broken = begun.is_err();
        }
        if state.broken
            && let Err(fault) = self.renew(&mut state, bytes.len())
        {
            return (state, Err(fault));
        }
        if state.generation != generation {
            bytes = encode_all(state.generation, records);
        }
        if let Err(error) = self.put(&mut state, &bytes) {
            state.broken = true;
            return (state, Err(Fault::new("writing", &path, error)));
        }
        state.written += 1;
        let mine = state.written;
        loop {
            // First, for later syncs say nothing about this one.
            if state.lost >= mine {
                return (state, Err(Fault::new("syncing", &path, io::Error::other("the sync it waited for failed"))));
            }
            if state.durable >= mine {
                return (state, Ok(()));
            }
            if state.syncing {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (file, through) = (Arc::clone(&state.file), state.written);
            state.syncing = true;
            drop(state);
            let synced = self.disk.sync(&file);
            state = self.state();
            state.syncing = false;
            self.ended.notify_all();
            match synced {
                Ok(()) => {
                    state.durable = through;
                    if state.fresh {
                        self.settle(&mut state);
                    }
                }
                Err(error) => {
                    (state.lost, state.broken) = (state.written, true);
                    return (state, Err(Fault::new("syncing", &path, error)));
                }
            }
        }
    }

    /// A new file with what is open, in place of the old one, with room for so many bytes more.
    fn renew(&self, state: &mut State<D>, room: usize) -> Result<(), Fault> {
        let (disk, path) = (&self.disk, self.work_path.join(NEW));
        let dir = disk.open_dir(&self.work_path).map_err(Fault::at("opening", &self.work_path))?;
        there(disk.remove(&dir, Path::new(NEW))).map_err(Fault::at("removing", &path))?;
        let file = disk.open(&dir, Path::new(NEW), How::CreateNew).map_err(Fault::at("making", &path))?;
        if !disk.try_lock(&file, LockKind::Fcntl).map_err(Fault::at("locking", &path))? {
            return Err(Fault::new("locking", &path, io::ErrorKind::WouldBlock.into()));
        }
        let generation = std::mem::replace(&mut state.generation, 1);
        let bytes = state.start();
        state.generation = generation;
        let (end, all) = (bytes.len() as u64, state.with_all(room));
        let half = if all <= self.least / 2 { self.least } else { (4 * all).next_multiple_of(PAGE_BYTES) };
        if 2 * half > LOG_BYTES {
            let error = io::Error::other(format!("{} deliveries that are open are too large", state.open.len()));
            return Err(Fault::new("writing", &path, error));
        }
        let written = disk.write(&file, &bytes, 0).and_then(|()| disk.fill(&file, end, 2 * half));
        let synced = written.map_err(Fault::at("writing", &path));
        synced.and_then(|()| disk.sync(&file).map_err(Fault::at("syncing", &path))).inspect_err(|_| {
            // What there was of it would keep a full disk fuller.
            drop(disk.remove(&dir, Path::new(NEW)));
        })?;
        disk.rename(&dir, Path::new(NEW), Path::new(NAME)).map_err(Fault::at("renaming", &path))?;
        // From here on the old file has no name: whatever fails, it is not written to again.
        state.file = Arc::new(file);
        (state.half, state.which, state.generation, state.end, state.fresh) = (half, 0, 1, end, false);
        state.used = [end, 0];
        state.broken = true;
        disk.sync_dir(&dir).map_err(Fault::at("syncing", &self.work_path))?;
        state.broken = false;
        // Not before: until its name is on disk the old file may come back, and what was closed there.
        self.settle(state);
        Ok(())
    }
}

/// No room is left to us: on the disk, of our share of it, or by the limit on how large a file of ours may be (setrlimit(2)).
fn is_short_of_room(fault: &Fault) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(fault.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn encode_all(generation: u32, records: &[(u64, Record)]) -> Vec<u8> {
    records.iter().flat_map(|(id, record)| encode(generation, *id, record)).collect()
}

impl<D: Disk> State<D> {
    fn settled(&self) -> bool {
        self.durable.max(self.lost) == self.written
    }

    /// Whether the half has no room for so many bytes, and for the end of all that is open.
    fn lacks(&self, bytes: usize) -> bool {
        self.end + bytes as u64 + self.spare() > self.half
    }

    /// What is kept free: a Closed for each, and a Settled.
    fn spare(&self) -> u64 {
        (HEAD_BYTES * (self.open.len() + 1)) as u64
    }

    /// How much of a half what is open takes, and so many bytes more, and what is kept free.
    fn with_all(&self, bytes: usize) -> u64 {
        (self.start().len() + bytes) as u64 + self.spare()
    }

    /// A half's beginning: what is open.
    fn start(&self) -> Vec<u8> {
        let generation = self.generation;
        let mut open = Vec::new();
        for (&id, intent) in &self.open {
            open.extend(encode(generation, id, &Record::Begun(intent.clone())));
            if intent.void {
                open.extend(encode(generation, id, &Record::Void));
            }
            if !intent.found.is_empty() {
                open.extend(encode(generation, id, &Record::Found(intent.found.clone())));
            }
        }
        let start = Record::Start(open.len() as u64, check(&[], &open));
        [encode(generation, 0, &start), open].concat()
    }
}
