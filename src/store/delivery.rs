//! How a message comes to be in a drop for good: the store's side of it, in one job. `service/deliver/lanes.rs` says which
//! letters a job is given.
//!
//! | step                                                       | a crash behind it finds                  | and does                       |
//! |------------------------------------------------------------|------------------------------------------|--------------------------------|
//! | 1 the drop made, if there is none; its locks; its open intents settled | the drop as it was           | nothing                        |
//! | 2 the intent written and synced: [`intent`](mod@super::intent) | nothing of ours behind the old end       | closes the intent              |
//! | 3 what is missing of a blank line, and all messages of the batch, appended | some or all of it, or NULs | takes out what is not whole |
//! | 4 drop synced; its directory too when it was empty         | all of it                                | that stays                     |
//! | 5 the marks of messages that their senders may send again kept ([`repeats`](super::repeats)); the intent closed; with recipients of the queue only when the queue has noted them | the same       | says that they are delivered   |
//!
//! A letter on behalf of the queue whose recipient has it already, by an intent that is still open, is not appended again:
//! [`Delivered::found`]. One that has a mark which is kept is not appended either: [`Outcome::Before`]. [`deliver`] answers `Ok` behind step 4. Several drops go through each step together ([`deliver_all`]), and jobs
//! that run side by side share the syncs of step 2.
//!
//! **Recovery.** Under the drop's locks, at start for every open intent ([`recover`]), and whenever a drop is appended to,
//! scanned or compacted. Of each message, at its recorded place in the same inode:
//!
//! | what stands there                                                  | verdict                                              |
//! |--------------------------------------------------------------------|------------------------------------------------------|
//! | its length, and its hash                                           | whole: it stays, and its mark is kept, unless it was answered 4xx |
//! | sector by sector its head, or NULs, as far as the file goes        | torn: out, to its end or the next separator           |
//! | anything else, another inode, no drop                              | another program's: it stays                           |
//!
//! A separator is a From_ line at a line's start, where a message of ours has none but its first ([`envelope`]), or at a page's
//! start, where a killed write ends and the next program begins, with the line ends by which it ended our line. What is torn at the end of the file is cut off, with the
//! blank line that was written for it. Torn bytes with other mail behind leave by the steps of [`compaction`], under the
//! session lock; a copy that stands there is therefore completed before intents are judged, and before anything is appended,
//! and a drop with open intents is not compacted. What is whole is written once more before it counts as on disk: a sync may
//! have failed before, and a second sync of the same pages says nothing.
//!
//! **Failure.** Whatever fails in step 3 or 4, no sync is tried again. What was written is taken out as recovery would do it,
//! as if it had been answered 4xx, and so it may be: [`Failed::Refused`]. If that cannot be done or be synced, the log notes that
//! those bytes are refused; they go before anybody of us scans the drop or appends to it. If that fails too, it is not known what
//! will be found: [`Failed::Unknown`], and the caller leaves his peer without an answer.
//!
//! **Others.** Bytes are appended where the file ends, wherever another program has left the end meanwhile, and never written
//! over anything. When a program that knows no locks wrote in between, ours are taken back and the answer is
//! [`Refused::Locked`]. Only with such a program can bytes of ours be out of recovery's sight: when it writes before
//! and behind a later piece of a large message while we do, or before one just when we are killed; and only bytes that it writes between our last
//! look at the file's end and a cut there can be lost, as in a compaction.
//!
//! What it does not do: read quotas, watch free space, judge a user or a path. A drop whose inode another program changes
//! between step 3 and a crash (mutt, writing the mailbox anew) is not searched for what was delivered on behalf of the
//! queue: the queue delivers that again.
//!
//! [`envelope`]: crate::mail::envelope
//! [`compaction`]: super::compaction

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

pub use super::intent::{IntentId, Intents, Queued};
pub use crate::mail::envelope::Envelope;

use super::compaction;
use super::desk::{Bin, Desk, Place, Refused, Remarks, there};
use super::disk::{Disk, How, Reach, RealDisk};
use super::intent::{self, Intent, KEPT_BYTES, Part};
use super::locks::DropLocks;
use super::maildrop::ATTEMPTS;
use super::refresh::{self, Stale};
use super::repeats::Marked;
use crate::mail::envelope::Text;
use crate::mail::mbox::{FROM_LINE_BYTES, is_from_line};
use crate::text::fault::Fault;

/// Bytes are read, hashed and appended in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;
/// Where a write that is killed ends, and a piece of ours: another program's bytes may begin there.
const PAGE_BYTES: u64 = 4096;
/// What a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;

/// The text of a message as it came: header, blank line, body, with LF or CRLF.
pub enum Body<'a, D: Disk = RealDisk> {
    /// A small one.
    Memory(&'a [u8]),
    /// A large one: a file of the caller's and which bytes of it.
    File(&'a D::File, Range<u64>),
}

impl<D: Disk> Clone for Body<'_, D> {
    fn clone(&self) -> Self {
        match self {
            Body::Memory(bytes) => Self::Memory(bytes),
            Body::File(file, range) => Self::File(file, range.clone()),
        }
    }
}

/// One message for one drop.
pub struct Letter<'a, D: Disk = RealDisk> {
    /// What is written above the text.
    pub envelope: Envelope<'a>,
    /// The text.
    pub body: Body<'a, D>,
    /// Whose delivery this is, when the message waits in the queue.
    pub queued: Option<Queued>,
    /// What it is known by if its sender sends it again; not of a message of the queue, whose own file says that.
    pub marked: Option<Marked>,
}

/// What became of one message of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the drop, on disk.
    Delivered,
    /// It came before, with this id, and is where it belongs: nothing was appended.
    Before(Box<str>),
    /// It could not be read, and nothing of it is in the drop.
    Unread(Fault),
}

/// A batch that is in the drop.
#[derive(Debug)]
pub struct Delivered {
    /// In the batch's order.
    pub outcomes: Vec<Outcome>,
    /// Recipients of the queue were among them: when their files say so, on disk, give this to [`Intents::close`].
    pub intent: Option<IntentId>,
    /// Earlier appends by which some of the batch have their message already, so that nothing was appended for them: all
    /// recipients of the queue who are in these, to be noted and closed in the same way.
    pub found: Vec<(IntentId, Vec<Queued>)>,
}

/// Why nothing of a batch counts as delivered.
#[derive(Debug)]
pub enum Failed {
    /// Nothing of it is in the drop, or will be: a temporary failure for whoever sent it.
    Refused(Refused),
    /// It may be found in the drop later, once and whole, or not: nobody is to be answered.
    Unknown(Fault),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        Failed::Refused(refused)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed::Refused(fault.into())
    }
}

/// Appends a batch of messages to the drop at `place`, all of them under one lock and one sync. Waits for the disk, never for a
/// lock: only in a job.
pub fn deliver<D: Disk>(intents: &Intents<D>, place: &Place, batch: &[Letter<'_, D>]) -> Result<Delivered, Failed> {
    deliver_all(intents, &[(place, batch)]).pop().unwrap_or_else(|| Err(Refused::Locked.into()))
}

/// The same for several drops: each has what became of its batch, in their order, and is not touched by what fails at another.
/// They share the sync of the log, and the disk writes out one drop while another is waited for: where a journal is written for
/// every sync, one is enough for nearly all of them.
pub fn deliver_all<D: Disk>(
    intents: &Intents<D>,
    batches: &[(&Place, &[Letter<'_, D>])],
) -> Vec<Result<Delivered, Failed>> {
    let mut results: Vec<Option<Result<Delivered, Failed>>> = batches.iter().map(|_| None).collect();
    for _ in 0..ATTEMPTS {
        if results.iter().all(Option::is_some) {
            break;
        }
        attempt(intents, batches, &mut results);
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(Refused::Locked.into()))).collect()
}

/// The directories of `place`, made where they are missing.
fn hold<D: Disk>(disk: &D, place: &Place) -> Result<Desk<D>, Refused> {
    if let Some(desk) = Desk::at(disk, place, true)? {
        return Ok(desk);
    }
    let parent = place.drop.parent().unwrap_or(&place.drop);
    let mut missing = Vec::new();
    let mut path = Some(parent);
    while let Some(dir) = path {
        let found = there(disk.open_dir(dir)).map_err(Fault::at("opening", dir))?;
        missing.push(dir);
        if found.is_some() {
            break;
        }
        path = dir.parent();
    }
    disk.make_dirs(parent).map_err(Fault::at("making", parent))?;
    for dir in missing {
        let held = disk.open_dir(dir).map_err(Fault::at("opening", dir))?;
        disk.sync_dir(&held).map_err(Fault::at("syncing", dir))?;
    }
    match Desk::at(disk, place, true)? {
        Some(desk) => Ok(desk),
        None => Err(Fault::new("opening", parent, io::ErrorKind::NotFound.into()).into()),
    }
}

/// An append that can be made as soon as its intent is on disk.
struct Ready<'d, 'b, D: Disk> {
    desk: &'d Desk<D>,
    drop: &'d D::File,
    locks: DropLocks<'d, D>,
    intent: Intent,
    /// What is appended, of the batch.
    good: Vec<&'b Letter<'b, D>>,
    outcomes: Vec<Outcome>,
    found: Vec<(IntentId, Vec<Queued>)>,
}

/// What came of the steps before the intent.
enum Begun<'d, 'b, D: Disk> {
    Ready(Ready<'d, 'b, D>),
    /// Nothing is to be appended.
    Done(Delivered),
    /// Something was replaced: begin again.
    Again,
}

/// Steps 1 to 5 for all batches that have no result yet; where something was made or replaced they have none afterwards either.
fn attempt<D: Disk>(
    intents: &Intents<D>,
    batches: &[(&Place, &[Letter<'_, D>])],
    results: &mut [Option<Result<Delivered, Failed>>],
) {
    let mut held = Vec::new();
    for (at, (place, _)) in batches.iter().enumerate() {
        if results[at].is_none() {
            match open(&intents.disk, place) {
                Ok(Some((desk, drop))) => held.push((at, desk, drop)),
                Ok(None) => {}
                Err(refused) => results[at] = Some(Err(refused.into())),
            }
        }
    }
    let mut ready = Vec::new();
    for (at, desk, drop) in &held {
        match begin(intents, desk, drop, batches[*at].1) {
            Ok(Begun::Ready(append)) => ready.push((*at, append)),
            Ok(Begun::Done(delivered)) => results[*at] = Some(Ok(delivered)),
            Ok(Begun::Again) => {}
            Err(failed) => results[*at] = Some(Err(failed)),
        }
    }
    let ids = match intents.begin_all(ready.iter().map(|(_, append)| append.intent.clone()).collect()) {
        Ok(ids) => ids,
        Err(fault) => {
            for (at, _) in ready {
                let source = io::Error::new(fault.source.kind(), fault.source.to_string());
                results[at] = Some(Err(Fault::new(fault.doing, &fault.path, source).into()));
            }
            return;
        }
    };
    let mut written = Vec::new();
    for ((at, mut append), id) in ready.into_iter().zip(ids) {
        match write(append.desk, append.drop, &append.intent, &append.good, &mut append.locks) {
            Ok(()) => written.push((at, append, id)),
            Err(trouble) => results[at] = Some(Err(append.taken_back(intents, id, trouble))),
        }
    }
    if written.len() > 1 {
        written.iter().for_each(|(_, append, _)| intents.disk.begin_sync(append.drop));
    }
    let mut past = Vec::new();
    for (at, append, id) in written {
        if let Err(fault) = sync(append.desk, append.drop, &append.intent) {
            results[at] = Some(Err(append.taken_back(intents, id, fault.into())));
            continue;
        }
        // Before it is closed: until then the intent says so.
        append
            .intent
            .parts
            .iter()
            .filter_map(|part| part.marked.as_ref())
            .for_each(|marked| intents.repeats().keep(marked));
        let is_queued = append.intent.parts.iter().any(|part| part.queued.is_some());
        if is_queued {
            intents.stands(id);
        } else {
            past.push(id);
        }
        let Ready { outcomes, found, .. } = append;
        results[at] = Some(Ok(Delivered { outcomes, intent: is_queued.then_some(id), found }));
    }
    intents.close_all(&past);
}

/// A drop, and its directories.
type Opened<D> = (Desk<D>, <D as Disk>::File);

/// The drop at `place` and its directories. `None`: it had to be made, begin again.
fn open<D: Disk>(disk: &D, place: &Place) -> Result<Option<Opened<D>>, Refused> {
    let desk = hold(disk, place)?;
    match desk.open_drop()? {
        Some((drop, _)) => Ok(Some((desk, drop))),
        None => desk.make_drop().map(|()| None),
    }
}

/// Step 1, and what step 2 writes.
fn begin<'d, 'b, D: Disk>(
    intents: &'d Intents<D>,
    desk: &'d Desk<D>,
    drop: &'d D::File,
    batch: &'b [Letter<'b, D>],
) -> Result<Begun<'d, 'b, D>, Failed> {
    let disk = &desk.disk;
    let mut locks = DropLocks::borrow(desk, drop, &intents.spares)?;
    if !desk.is_named(drop)? {
        return Ok(Begun::Again);
    }
    complete_copy(desk, drop, &mut locks)?;
    let mut found = Vec::new();
    for (id, intent) in intents.of(&desk.spot.drop) {
        let known = own(intents, desk, drop, id, &intent, &mut locks)?;
        let queued = queued_of(&intent, &known);
        if batch.iter().any(|letter| letter.queued.as_ref().is_some_and(|mine| queued.contains(mine))) {
            found.push((id, queued));
        }
    }
    let seen = disk.stat(drop).map_err(desk.fault("looking at"))?;
    let pad = missing(desk, drop, seen.size)?;
    let seed = disk.random();
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut parts = Vec::with_capacity(batch.len());
    let mut good = Vec::with_capacity(batch.len());
    for letter in batch {
        let has_it = |mine: &Queued| found.iter().any(|(_, queued)| queued.contains(mine));
        if letter.queued.as_ref().is_some_and(has_it) {
            outcomes.push(Outcome::Delivered);
            continue;
        }
        // Perhaps by an append that a killed server made, and that was settled just now.
        if let Some(id) = letter.marked.as_ref().and_then(|marked| intents.repeats().kept(&marked.mark)) {
            outcomes.push(Outcome::Before(id));
            continue;
        }
        match measure(disk, letter, seed) {
            Ok(part) => {
                parts.push(part);
                good.push(letter);
                outcomes.push(Outcome::Delivered);
            }
            Err(fault) => outcomes.push(Outcome::Unread(fault)),
        }
    }
    if good.is_empty() {
        return Ok(Begun::Done(Delivered { outcomes, intent: None, found }));
    }
    let intent = Intent {
        drop: desk.spot.drop.clone().into(),
        inode: seen.inode,
        start: seen.size,
        pad,
        seed,
        parts,
        void: false,
        found: Vec::new(),
    };
    Ok(Begun::Ready(Ready { desk, drop, locks, intent, good, outcomes, found }))
}

impl<D: Disk> Ready<'_, '_, D> {
    fn taken_back(mut self, intents: &Intents<D>, id: IntentId, trouble: Trouble) -> Failed {
        take_back(intents, self.desk, self.drop, id, self.intent, trouble, &mut self.locks)
    }
}

/// A compaction that was interrupted knows the drop without what we append.
fn complete_copy<'d, D: Disk>(desk: &'d Desk<D>, drop: &D::File, locks: &mut DropLocks<'d, D>) -> Result<(), Refused> {
    if !desk.has_own(".copy")? {
        return Ok(());
    }
    let bin = lock_bin(desk)?;
    let mut remarks = Remarks::default();
    let recovered = refresh::load(desk, &bin, &mut remarks)
        .and_then(|mut ledger| compaction::recover(desk, drop, &bin, &mut ledger, locks, &mut remarks));
    recovered.map_err(|stale| match stale {
        Stale::Refused(refused) => refused,
        // The next session sees to it.
        Stale::Replaced | Stale::Alien => Refused::Locked,
    })
}

fn lock_bin<D: Disk>(desk: &Desk<D>) -> Result<D::File, Refused> {
    match desk.lock_bin(How::Create) {
        Ok(Bin::Held(bin)) => Ok(bin),
        Ok(_) | Err(Refused::InUse) => Err(Refused::Locked),
        Err(refused) => Err(refused),
    }
}

/// How many line ends the drop's end lacks of a blank line.
fn missing<D: Disk>(desk: &Desk<D>, drop: &D::File, size: u64) -> Result<u8, Fault> {
    let mut tail = vec![0; size.min(3) as usize];
    let from = size - tail.len() as u64;
    desk.read_full(drop, &mut tail, from).map_err(desk.fault("reading"))?;
    Ok(match &tail[..] {
        [] | [.., b'\n', b'\n'] | [b'\n', b'\r', b'\n'] => 0,
        [.., b'\n'] => 1,
        _ => 2,
    })
}

/// All bytes of a message as they stand in a drop, in pieces.
fn pieces<D: Disk>(
    disk: &D,
    letter: &Letter<'_, D>,
    mut out: impl FnMut(&[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    out(&letter.envelope.head())?;
    let (mut text, result) = (Text::default(), RefCell::new(Ok(())));
    let mut put = |bytes: &[u8]| {
        let mut result = result.borrow_mut();
        if result.is_ok() {
            *result = out(bytes);
        }
    };
    match &letter.body {
        Body::Memory(bytes) => text.feed(bytes, &mut put),
        Body::File(file, range) => {
            let (size, mut at) = (range.end.saturating_sub(range.start), range.start);
            let mut buffer = vec![0; size.min(PIECE_BYTES as u64) as usize];
            while at < range.end && result.borrow().is_ok() {
                let most = buffer.len().min((range.end - at) as usize);
                let read = match disk.read(file, &mut buffer[..most], at, Reach::Wait) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    read => read,
                };
                let read = read.map_err(|error| Fault::new("reading a message's file", &PathBuf::new(), error))?;
                text.feed(&buffer[..read], &mut put);
                at += read as u64;
            }
        }
    }
    text.finish(&mut put);
    result.into_inner()
}

fn measure<D: Disk>(disk: &D, letter: &Letter<'_, D>, seed: u64) -> Result<Part, Fault> {
    let (mut hash, mut bytes) = (Xxh3::with_seed(seed), 0);
    let measured = pieces(disk, letter, |piece| {
        hash.update(piece);
        bytes += piece.len() as u64;
        Ok(())
    });
    match measured {
        Ok(()) => {
            let mut head = letter.envelope.head();
            head.truncate(KEPT_BYTES);
            Ok(Part { bytes, hash: hash.digest(), head, queued: letter.queued.clone(), marked: letter.marked.clone() })
        }
        Err(Trouble::Fault(fault)) => Err(fault),
        Err(Trouble::Stray { .. }) => unreachable!("nothing is written here"),
    }
}

/// Why an append did not come to its end.
enum Trouble {
    Fault(Fault),
    /// A program that knows no locks wrote behind what we had written: this piece of ours stands elsewhere.
    Stray {
        offset: u64,
        bytes: u64,
        is_first: bool,
    },
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

/// Step 3.
fn write<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    intent: &Intent,
    letters: &[&Letter<'_, D>],
    locks: &mut DropLocks<'_, D>,
) -> Result<(), Trouble> {
    let disk = &desk.disk;
    let mut waiting = vec![b'\n'; usize::from(intent.pad)];
    let mut at = intent.start;
    let mut flush = |waiting: &mut Vec<u8>, last: bool| -> Result<(), Trouble> {
        // Pieces end where pages do, see PAGE_BYTES.
        let over = if last { 0 } else { (at + waiting.len() as u64) % PAGE_BYTES };
        let mut piece = &waiting[..waiting.len() - over as usize];
        while !piece.is_empty() {
            let (offset, some) = disk.append(drop, piece).map_err(desk.fault("writing"))?;
            if offset != at {
                return Err(Trouble::Stray { offset, bytes: some as u64, is_first: at == intent.start });
            }
            at += some as u64;
            piece = &piece[some..];
            locks.touch();
        }
        waiting.drain(..waiting.len() - over as usize);
        Ok(())
    };
    for letter in letters {
        pieces(disk, letter, |piece| {
            waiting.extend_from_slice(piece);
            if waiting.len() >= PIECE_BYTES { flush(&mut waiting, false) } else { Ok(()) }
        })?;
    }
    flush(&mut waiting, true)?;
    if at != intent.end() || disk.stat(drop).map_err(desk.fault("looking at"))?.size < at {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it is not as long as what was written");
        return Err(desk.fault("appending to")(error).into());
    }
    Ok(())
}

/// Step 4.
fn sync<D: Disk>(desk: &Desk<D>, drop: &D::File, intent: &Intent) -> Result<(), Fault> {
    let disk = &desk.disk;
    disk.sync(drop).map_err(desk.fault("syncing"))?;
    if intent.start == 0 {
        // Its name may be as new as its first message.
        disk.sync_dir(&desk.dir).map_err(desk.fault("syncing the directory of"))?;
    }
    Ok(())
}

/// What was written of a failed append is taken out, or refused for good, or its fate is unknown.
fn take_back<'d, D: Disk>(
    intents: &Intents<D>,
    desk: &'d Desk<D>,
    drop: &D::File,
    id: IntentId,
    intent: Intent,
    trouble: Trouble,
    locks: &mut DropLocks<'d, D>,
) -> Failed {
    let (mut id, mut void) = (id, Intent { void: true, ..intent });
    let refused = match trouble {
        Trouble::Fault(fault) => Refused::Fault(fault),
        Trouble::Stray { offset, bytes, is_first } => {
            if let Err(fault) = cut(desk, drop, offset + bytes, offset) {
                // No intent knows that place: one must. What is only the rest of a message cannot be described.
                void.start = offset;
                if !is_first {
                    return Failed::Unknown(fault);
                }
                let Ok(moved) = intents.begin(void.clone()) else { return Failed::Unknown(fault) };
                intents.close(id);
                id = moved;
            }
            Refused::Locked
        }
    };
    let out = judge(desk, drop, &void, locks).and_then(|verdict| match verdict.cut {
        Some(to) => cut(desk, drop, verdict.size, to).map(|()| true),
        None => Ok(verdict.outs.is_empty()),
    });
    if let Ok(true) = out {
        intents.close(id);
        return Failed::Refused(refused);
    }
    match intents.void(id) {
        Ok(()) => Failed::Refused(refused),
        Err(fault) => Failed::Unknown(fault),
    }
}

/// Cuts the drop to `to`, unless another program made it other than `size` in spite of our locks.
fn cut<D: Disk>(desk: &Desk<D>, drop: &D::File, size: u64, to: u64) -> Result<(), Fault> {
    if desk.disk.stat(drop).map_err(desk.fault("looking at"))?.size != size {
        let error = io::Error::other("another program writes to it in spite of our locks");
        return Err(desk.fault("appending to")(error));
    }
    desk.disk.cut(drop, to).map_err(desk.fault("cutting"))?;
    desk.disk.sync(drop).map_err(desk.fault("syncing"))
}

/// What stands where an append was to stand.
#[derive(Debug, Default)]
struct Verdict {
    /// Indexes of the messages that are there.
    whole: Vec<u32>,
    /// Runs of bytes that are ours and not to stay, in order and apart.
    outs: Vec<(u64, u64)>,
    /// They are all at the file's end, from here on.
    cut: Option<u64>,
    /// The blank line before the first message was lost, and is needed.
    unpadded: bool,
    /// The file's size when it was judged.
    size: u64,
}

fn judge<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    intent: &Intent,
    locks: &mut DropLocks<'_, D>,
) -> Result<Verdict, Fault> {
    let seen = desk.disk.stat(drop).map_err(desk.fault("looking at"))?;
    let mut verdict = Verdict { size: seen.size, ..Verdict::default() };
    if seen.inode != intent.inode || seen.size <= intent.start {
        return Ok(verdict);
    }
    let first = intent.start + u64::from(intent.pad);
    let mut pad = vec![0; (first.min(seen.size) - intent.start) as usize];
    desk.read_full(drop, &mut pad, intent.start).map_err(desk.fault("reading"))?;
    if seen.size <= first {
        if pad.iter().all(|byte| matches!(byte, b'\n' | 0)) {
            (verdict.outs, verdict.cut) = (vec![(intent.start, seen.size)], Some(intent.start));
        }
        return Ok(verdict);
    }
    let (mut at, mut others) = (first, false);
    for (index, part) in (0..).zip(&intent.parts) {
        let end = at.saturating_add(part.bytes);
        let there = seen.size >= end && hash_of(desk, drop, intent.seed, at..end, locks)? == part.hash;
        let limit = seen.size.min(end);
        let out = match there {
            true if !intent.void => {
                verdict.whole.push(index);
                None
            }
            true => Some(end),
            // Behind another program's bytes there are none of this append.
            false if others || limit <= at => None,
            false => torn(desk, drop, &part.head, at..limit, locks)?,
        };
        if let Some(to) = out {
            others |= to < limit;
            match verdict.outs.last_mut() {
                Some((_, end)) if *end == at => *end = to,
                _ => verdict.outs.push((at, to)),
            }
        }
        at = end;
    }
    if let [(from, to)] = verdict.outs[..]
        && to == seen.size
    {
        verdict.cut = Some(if from == first { intent.start } else { from });
    }
    let was_ours = !verdict.whole.is_empty() || !verdict.outs.is_empty();
    verdict.unpadded = was_ours && verdict.cut != Some(intent.start) && pad.contains(&0);
    Ok(verdict)
}

/// Where bytes of ours end that begin at `range`'s start and are not all there; `None`: they are not ours.
fn torn<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    head: &[u8],
    range: Range<u64>,
    locks: &mut DropLocks<'_, D>,
) -> Result<Option<u64>, Fault> {
    let mut shown = vec![0; head.len().min((range.end - range.start) as usize)];
    desk.read_full(drop, &mut shown, range.start).map_err(desk.fault("reading"))?;
    let (mut at, mut begun) = (0, false);
    while at < shown.len() {
        let sector = SECTOR_BYTES - (range.start + at as u64) % SECTOR_BYTES;
        let next = shown.len().min(at + sector as usize);
        let run = &shown[at..next];
        if *run != head[at..next] && run.iter().any(|&byte| byte != 0) {
            // Another program may begin where a killed write ended, and end our line first.
            let place = range.start + at as u64;
            let found = separator(desk, drop, place..range.end.min(place + 5), locks)?;
            let between = found.map_or(0, |found| (found - place) as usize);
            let only_ends = shown[at..].iter().take(between).all(|byte| matches!(byte, b'\r' | b'\n'));
            return Ok(found.filter(|_| begun && only_ends));
        }
        begun = true;
        at = next;
    }
    Ok(Some(separator(desk, drop, range.start + 1..range.end, locks)?.unwrap_or(range.end)))
}

/// Where in `range` the first From_ line begins that is not ours.
fn separator<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    range: Range<u64>,
    locks: &mut DropLocks<'_, D>,
) -> Result<Option<u64>, Fault> {
    let size = desk.disk.stat(drop).map_err(desk.fault("looking at"))?.size;
    let mut at = range.start;
    let mut piece = Vec::new();
    while at < range.end {
        // With the byte before it, and as much behind it as a From_ line can have.
        let from = at.saturating_sub(1);
        let here = (range.end - at).min(PIECE_BYTES as u64);
        piece.resize((size.min(at + here + FROM_LINE_BYTES as u64) - from) as usize, 0);
        desk.read_full(drop, &mut piece, from).map_err(desk.fault("reading"))?;
        for hit in memmem::find_iter(&piece, b"From ") {
            let place = from + hit as u64;
            let starts = hit > 0 && piece[hit - 1] == b'\n' || place.is_multiple_of(PAGE_BYTES);
            let line = piece[hit..].split(|&byte| byte == b'\n').next().unwrap_or_default();
            if (at..at + here).contains(&place) && starts && line.len() < FROM_LINE_BYTES && is_from_line(line) {
                return Ok(Some(place));
            }
        }
        at += here;
        locks.touch();
    }
    Ok(None)
}

fn hash_of<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    seed: u64,
    range: Range<u64>,
    locks: &mut DropLocks<'_, D>,
) -> Result<u64, Fault> {
    let (mut hash, mut piece, mut at) = (Xxh3::with_seed(seed), Vec::new(), range.start);
    while at < range.end {
        piece.resize(PIECE_BYTES.min((range.end - at) as usize), 0);
        desk.read_full(drop, &mut piece, at).map_err(desk.fault("reading"))?;
        hash.update(&piece);
        at += piece.len() as u64;
        locks.touch();
    }
    Ok(hash.digest())
}

/// Carries a verdict out, whoever does it; `found` is told what is whole before anything behind it moves, and may refuse.
/// `bin`: the session lock is the caller's already.
fn mend<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    intent: &Intent,
    verdict: &Verdict,
    has_bin: bool,
    locks: &mut DropLocks<'d, D>,
    found: impl FnOnce(&[u32]) -> Result<(), Refused>,
) -> Result<(), Refused> {
    if verdict.unpadded {
        let pad = vec![b'\n'; usize::from(intent.pad)];
        desk.disk.write(drop, &pad, intent.start).map_err(desk.fault("writing"))?;
        desk.disk.sync(drop).map_err(desk.fault("syncing"))?;
    }
    if let Some(to) = verdict.cut {
        cut(desk, drop, verdict.size, to)?;
    } else if !verdict.outs.is_empty() {
        let bin = if has_bin { None } else { Some(lock_bin(desk)?) };
        found(&verdict.whole)?;
        compaction::excise(desk, drop, &verdict.outs, locks)?;
        std::mem::drop(bin);
    }
    Ok(())
}

/// Writes once more what is whole, and syncs: only then it is known to be on disk, whatever failed before.
fn affirm<D: Disk>(
    desk: &Desk<D>,
    drop: &D::File,
    intent: &Intent,
    whole: &[u32],
    locks: &mut DropLocks<'_, D>,
) -> Result<(), Fault> {
    let mut at = intent.start + u64::from(intent.pad);
    let mut piece = Vec::new();
    for (index, part) in (0..).zip(&intent.parts) {
        let end = at + part.bytes;
        while whole.contains(&index) && at < end {
            piece.resize(PIECE_BYTES.min((end - at) as usize), 0);
            desk.read_full(drop, &mut piece, at).map_err(desk.fault("reading"))?;
            desk.disk.write(drop, &piece, at).map_err(desk.fault("writing"))?;
            at += piece.len() as u64;
            locks.touch();
        }
        at = end;
    }
    desk.disk.sync(drop).map_err(desk.fault("syncing"))?;
    desk.disk.sync_dir(&desk.dir).map_err(desk.fault("syncing the directory of"))
}

/// Settles one open intent, for who has the log: closed, unless recipients of the queue are whole in it. Those, by index.
fn own<'d, D: Disk>(
    intents: &Intents<D>,
    desk: &'d Desk<D>,
    drop: &D::File,
    id: IntentId,
    intent: &Intent,
    locks: &mut DropLocks<'d, D>,
) -> Result<Vec<u32>, Refused> {
    let mut known = intent.found.clone();
    if known.len() < intent.parts.len() {
        let verdict = judge(desk, drop, intent, locks)?;
        if !verdict.whole.is_empty() {
            affirm(desk, drop, intent, &verdict.whole, locks)?;
        }
        known.extend(verdict.whole.iter().filter(|index| !intent.found.contains(index)));
        let say = |_: &[u32]| Ok(intents.found(id, known.clone())?);
        mend(desk, drop, intent, &verdict, false, locks, say)?;
    }
    Ok(end(intents, id, intent, known))
}

/// The recipients of the queue among these messages of an append.
fn queued_of(intent: &Intent, known: &[u32]) -> Vec<Queued> {
    known.iter().filter_map(|index| intent.parts[*index as usize].queued.clone()).collect()
}

/// Keeps the marks of these messages of a judged intent, and closes it, unless recipients of the queue have their message by it.
/// Those, by index.
fn end<D: Disk>(intents: &Intents<D>, id: IntentId, intent: &Intent, mut known: Vec<u32>) -> Vec<u32> {
    let marked = known.iter().filter_map(|index| intent.parts.get(*index as usize)?.marked.as_ref());
    marked.for_each(|marked| intents.repeats().keep(marked));
    known.retain(|index| intent.parts.get(*index as usize).is_some_and(|part| part.queued.is_some()));
    if known.is_empty() {
        intents.close(id);
    }
    known
}

/// Takes out of a drop that is about to be scanned what is not whole or was refused. The session lock is the caller's, and
/// `drop` is locked; the log is another's.
pub(super) fn settle<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    locks: &mut DropLocks<'d, D>,
) -> Result<(), Refused> {
    for intent in intent::standing(&desk.disk, &desk.spot.work, &desk.spot.drop)? {
        let verdict = judge(desk, drop, &intent, locks)?;
        let is_queued = |index: &u32| intent.parts[*index as usize].queued.is_some();
        // What moves would not be found again: whoever has the log notes it first.
        let hold = |whole: &[u32]| if whole.iter().any(is_queued) { Err(Refused::Locked) } else { Ok(()) };
        mend(desk, drop, &intent, &verdict, true, locks, hold)?;
    }
    Ok(())
}

/// Whether something of ours about this drop is not settled for good. Who has the drop's locks may compact it if not.
pub(super) fn is_open<D: Disk>(desk: &Desk<D>) -> Result<bool, Fault> {
    Ok(!intent::standing(&desk.disk, &desk.spot.work, &desk.spot.drop)?.is_empty())
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Appends that are settled.
    pub settled: usize,
    /// Recipients of the queue who have their message: to be noted there, then closed.
    pub delivered: Vec<(IntentId, Vec<Queued>)>,
    /// Drops that are locked or cannot be read now. They are settled when they are next delivered to or opened; another
    /// [`recover`] may come sooner.
    pub waiting: Vec<(PathBuf, Refused)>,
}

/// Settles what was open when the last server ended, before anything is served. `like` says how drops are locked and
/// where bins are; each intent knows its drop. Waits for the disk: only in a job, or at start.
pub fn recover<D: Disk>(intents: &Intents<D>, like: &Place) -> Recovered {
    let recovered = recover_where(intents, like, |_| true);
    // Nothing depends on it.
    drop(intents.tidy());
    recovered
}

/// The same, at any time, for the appends that a message of this recipient of the queue is part of: for whoever
/// [`holds`](Intents::holds) him back. `like`: his drop, if it is known, for only then another user's can be opened where our own
/// rights do not suffice. An append that is under way counts as locked.
pub fn recover_for<D: Disk>(intents: &Intents<D>, like: &Place, queued: &Queued) -> Recovered {
    recover_where(intents, like, |intent| intent.concerns(queued))
}

fn recover_where<D: Disk>(intents: &Intents<D>, like: &Place, which: impl Fn(&Intent) -> bool) -> Recovered {
    let mut recovered = Recovered::default();
    for (id, intent) in intents.open_ones().into_iter().filter(|(_, intent)| which(intent)) {
        let owner = like.owner.filter(|_| like.drop == intent.drop);
        let place = Place { drop: intent.drop.clone(), owner, ..like.clone() };
        match recover_one(intents, &place, id, &intent) {
            Ok(found) => {
                recovered.settled += 1;
                let queued = queued_of(&intent, &found);
                if !queued.is_empty() {
                    recovered.delivered.push((id, queued));
                }
            }
            Err(refused) => recovered.waiting.push((place.drop, refused)),
        }
    }
    recovered
}

fn recover_one<D: Disk>(
    intents: &Intents<D>,
    place: &Place,
    id: IntentId,
    intent: &Intent,
) -> Result<Vec<u32>, Refused> {
    let desk = Desk::at(&intents.disk, place, true)?;
    let found = match &desk {
        Some(desk) => desk.open_drop()?,
        None => None,
    };
    let (Some(desk), Some((drop, _))) = (&desk, found) else {
        return Ok(end(intents, id, intent, intent.found.clone()));
    };
    let mut locks = DropLocks::take(desk, &drop)?;
    if !desk.is_named(&drop)? {
        return Err(Refused::Locked);
    }
    complete_copy(desk, &drop, &mut locks)?;
    own(intents, desk, &drop, id, intent, &mut locks)
}
