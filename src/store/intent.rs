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
//! | 12-15 | zero                                                    |
//! | 16-23 | the intent's number                                     |
//! | 24-31 | XXH3-64 of bytes 0-23 and the payload                   |
//!
//! | kind | record | says                                                                                    | synced |
//! |------|--------|-----------------------------------------------------------------------------------------|--------|
//! | 1    | Begun  | one append: drop, inode, old length, bytes of blank line, and of each message its length, hash, head, and its place in the queue if it came from there | before the append |
//! | 2    | Void   | it was answered 4xx and its bytes may still be there: they are refused, whole or not     | before that answer |
//! | 3    | Found  | of these messages, by index, recovery knows that they are whole and on disk              | before other bytes of the append move |
//! | 4    | Closed | nothing is to be known of it any more                                                   | no: with whatever comes next |
//!
//! A Closed that a power cut takes back is harmless: what it was about is judged once more, with the same verdict, because its
//! drop is not compacted before the Closed is on disk ([`standing`]). Records that do not check are passed over, wherever they
//! stand: an unsynced one has no bytes in any drop.
//!
//! Jobs that begin side by side share a sync: whoever comes first syncs for all who wrote until then, the others wait for it
//! and, if they were late, for one more. A failed sync is never retried and believed: the intents that waited for it have
//! failed, and the file is renewed: the open ones are written to `intents.new`, synced, renamed, the directory synced. The
//! same is done when nothing is open and there is something to drop, or when more than [`PAST_BYTES`] are past. At most
//! [`OPEN_MAX`] intents are open; more are refused, which their senders hear as a temporary failure. A server that starts on a
//! full disk begins no append until the file can be renewed.
//!
//! One server has a log: it is locked while it is open.

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
use crate::text::fault::Fault;

/// Its name in work_path.
const NAME: &str = "intents";
/// What the next one is written as.
const NEW: &str = "intents.new";
const MAGIC: &[u8; 4] = b"DMi1";
const HEAD_BYTES: usize = 32;
/// More than that of closed intents is not kept.
const PAST_BYTES: u64 = 256 * 1024;
/// So many are open at once. Each is an append in a job of the pool, or waits for the queue to note it.
const OPEN_MAX: usize = 4096;
/// No more of a log is read: what [`OPEN_MAX`] appends of a few messages each can come to.
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
            run(&[part.bytes.to_le_bytes(), part.hash.to_le_bytes()].concat());
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
            let mut sizes = run(bytes)?;
            let (length, hash, head) = (number(&mut sizes)?, number(&mut sizes)?, run(bytes)?.to_vec());
            let (id, recipient) =
                (String::from_utf8(run(bytes)?.to_vec()).ok()?, String::from_utf8(run(bytes)?.to_vec()).ok()?);
            let queued = (!id.is_empty()).then_some(Queued { id, recipient });
            parts.push(Part { bytes: length, hash, head, queued });
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
}

fn encode(id: u64, record: &Record) -> Vec<u8> {
    let (kind, payload) = match record {
        Record::Begun(intent) => (1, intent.encode()),
        Record::Void => (2, Vec::new()),
        Record::Found(parts) => (3, parts.iter().flat_map(|part| part.to_le_bytes()).collect()),
        Record::Closed => (4, Vec::new()),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
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

/// The record at the start of `bytes`, if one checks there: its intent, what it says, its length.
fn decode(bytes: &[u8]) -> Option<(u64, Option<Record>, usize)> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = u32::from_le_bytes(head[8..12].try_into().expect("four bytes")) as usize;
    let payload = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(length)?)?;
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
        _ => None,
    };
    Some((word(16), record, HEAD_BYTES + length))
}

/// What a log says: what is open, and which drops it names at all.
#[derive(Default)]
struct Read {
    open: BTreeMap<u64, Intent>,
    named: HashSet<PathBuf>,
    highest: u64,
}

fn parse(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut closed = HashSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((id, record, length)) = decode(&bytes[at..]) else {
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
            None => {}
        }
    }
    read.open.retain(|id, _| !closed.contains(id));
    read
}

fn read_all<D: Disk>(disk: &D, file: &D::File, path: &Path) -> Result<Vec<u8>, Fault> {
    let size = disk.stat(file).map_err(Fault::at("looking at", path))?.size.min(LOG_BYTES) as usize;
    let (mut bytes, mut at) = (vec![0; size], 0);
    while at < size {
        match disk.read(file, &mut bytes[at..], at as u64, Reach::Wait).map_err(Fault::at("reading", path))? {
            0 => break,
            some => at += some,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
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
    let read = parse(&read_all(disk, &file, &path)?);
    let open: Vec<Intent> = read.open.into_values().filter(|intent| intent.drop == drop).collect();
    if open.is_empty() && read.named.contains(drop) {
        disk.sync(&file).map_err(Fault::at("syncing", &path))?;
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
    /// Files for dotlocks, for who delivers.
    pub(super) spares: Spares<D>,
    state: Mutex<State<D>>,
    /// A sync has ended.
    ended: Condvar,
}

struct State<D: Disk> {
    file: Arc<D::File>,
    end: u64,
    highest: u64,
    open: BTreeMap<u64, Intent>,
    /// Bytes of the open ones.
    open_bytes: u64,
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
        let read = parse(&read_all(disk, &file, &path)?);
        let state = State {
            file: Arc::new(file),
            end: seen.size,
            highest: read.highest,
            open: read.open,
            open_bytes: 0,
            written: 0,
            durable: 0,
            lost: 0,
            syncing: false,
            broken: false,
        };
        let intents = Intents {
            disk: disk.clone(),
            work_path: work_path.to_owned(),
            spares,
            state: Mutex::new(state),
            ended: Condvar::new(),
        };
        // Behind a torn record nothing is written; and the name is on disk before anything counts on it.
        let renewed = intents.renew(&mut intents.state());
        match renewed {
            Err(fault) if matches!(fault.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
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
        let (mut ids, mut records) = (Vec::with_capacity(intents.len()), Vec::new());
        for intent in intents {
            state.highest += 1;
            let id = state.highest;
            records.extend(encode(id, &Record::Begun(intent.clone())));
            // Open from now on: nobody renews the log without it.
            state.open.insert(id, intent);
            ids.push(IntentId(id));
        }
        state.open_bytes += records.len() as u64;
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
        let (mut state, result) = self.durably(self.state(), &encode(id.0, &Record::Void));
        if result.is_ok()
            && let Some(intent) = state.open.get_mut(&id.0)
        {
            intent.void = true;
        }
        result
    }

    /// These messages of it, by index, are whole and on disk.
    pub(super) fn found(&self, id: IntentId, parts: Vec<u32>) -> Result<(), Fault> {
        let (mut state, result) = self.durably(self.state(), &encode(id.0, &Record::Found(parts.clone())));
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
        let mut records = Vec::new();
        for id in ids {
            let Some(intent) = state.open.remove(&id.0) else { continue };
            let past = (HEAD_BYTES + intent.encode().len()) as u64;
            state.open_bytes = state.open_bytes.saturating_sub(past);
            records.extend(encode(id.0, &Record::Closed));
        }
        if records.is_empty() {
            return;
        }
        match self.disk.write(&state.file, &records, state.end) {
            Ok(()) => state.end += records.len() as u64,
            // The log says it is open until it is renewed.
            Err(_) => state.broken = true,
        }
    }

    /// Empties the log when nothing is open: for quiet moments, and for recovery's end.
    pub fn tidy(&self) -> Result<(), Fault> {
        let mut state = self.state();
        let is_past = state.open.is_empty() && state.end > 0 || state.broken;
        if is_past && !state.syncing && state.settled() { self.renew(&mut state) } else { Ok(()) }
    }

    /// Writes `record` and waits until it is on disk, by a sync of ours or of another's.
    fn durably<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<D>>,
        record: &[u8],
    ) -> (MutexGuard<'s, State<D>>, Result<(), Fault>) {
        // Whoever comes while the file is to be renewed lets those before him end first.
        while (state.syncing || !state.settled()) && state.wants_renewal() {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.wants_renewal()
            && let Err(fault) = self.renew(&mut state)
        {
            return (state, Err(fault));
        }
        let path = self.path();
        if let Err(error) = self.disk.write(&state.file, record, state.end) {
            state.broken = true;
            return (state, Err(Fault::new("writing", &path, error)));
        }
        state.end += record.len() as u64;
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
                Ok(()) => state.durable = through,
                Err(error) => {
                    (state.lost, state.broken) = (state.written, true);
                    return (state, Err(Fault::new("syncing", &path, error)));
                }
            }
        }
    }

    /// A new file with what is open, in place of the old one.
    fn renew(&self, state: &mut State<D>) -> Result<(), Fault> {
        let (disk, path) = (&self.disk, self.work_path.join(NEW));
        let dir = disk.open_dir(&self.work_path).map_err(Fault::at("opening", &self.work_path))?;
        there(disk.remove(&dir, Path::new(NEW))).map_err(Fault::at("removing", &path))?;
        let file = disk.open(&dir, Path::new(NEW), How::CreateNew).map_err(Fault::at("making", &path))?;
        if !disk.try_lock(&file, LockKind::Fcntl).map_err(Fault::at("locking", &path))? {
            return Err(Fault::new("locking", &path, io::ErrorKind::WouldBlock.into()));
        }
        let mut bytes = Vec::new();
        for (&id, intent) in &state.open {
            bytes.extend(encode(id, &Record::Begun(intent.clone())));
            if intent.void {
                bytes.extend(encode(id, &Record::Void));
            }
            if !intent.found.is_empty() {
                bytes.extend(encode(id, &Record::Found(intent.found.clone())));
            }
        }
        disk.write(&file, &bytes, 0).map_err(Fault::at("writing", &path))?;
        disk.sync(&file).map_err(Fault::at("syncing", &path))?;
        disk.rename(&dir, Path::new(NEW), Path::new(NAME)).map_err(Fault::at("renaming", &path))?;
        // From here on the old file has no name: whatever fails, it is not written to again.
        state.file = Arc::new(file);
        state.end = bytes.len() as u64;
        state.open_bytes = state.end;
        state.broken = true;
        disk.sync_dir(&dir).map_err(Fault::at("syncing", &self.work_path))?;
        state.broken = false;
        Ok(())
    }
}

impl<D: Disk> State<D> {
    fn settled(&self) -> bool {
        self.durable.max(self.lost) == self.written
    }

    fn wants_renewal(&self) -> bool {
        self.broken || self.end > self.open_bytes.saturating_add(PAST_BYTES)
    }
}
