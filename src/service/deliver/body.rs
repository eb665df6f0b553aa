//! The text of a message in flight: in memory as long as it is small and there is room, else in a file.
//!
//! | it is   | what moves                                                      | it leaves by                          |
//! |---------|-----------------------------------------------------------------|---------------------------------------|
//! | Resting | pieces are taken into memory                                    | [`PIECE`], or no room to rest: Writing |
//! | Writing | a job writes what rested to the file; the sender is held        | the job's end: Resting                |
//! | Waiting | nothing: the sender is held until there is room                 | room: Resting                         |
//! | Failed  | pieces are taken and forgotten                                  | the commit, which answers the fault   |
//!
//! What is whole and was never written stays in memory until it is in its drops. Files have no names and lie in `bodies` of
//! work_path; nothing depends on them after a crash.
//!
//! **One bound for all**, [`Budget`], in two parts. Bytes that *rest* (of texts that come, and of whole ones that wait for their
//! drops) may be three quarters of it. Bytes that *move* are with a job that writes them, so they leave by themselves. A text
//! that may not rest moves at once, whatever little it is; while what moves is at its bound too, senders wait, each before its
//! turn and not after it, so that the bound is passed by what one sender gives in one step at most: a [`PIECE`]. Nobody waits for
//! what rests, so no sender waits for another's peer: what moves always ends, be it by a fault, and then somebody goes on.
//!
//! **A conversation** calls [`wait`](Body::wait) before each of its turns in which text may be taken, and holds its stream when
//! that says so; [`take`](Body::take) for each `Want::Data`. When `Outcome::Body` comes with a ticket that was given to one of
//! these it hands it to [`told`](Body::told) and releases the stream. Should the conversation end, all it had is given back with
//! the body, and what a job still writes is forgotten with it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::mail::passed::Passed;
use crate::net::jobs::{Busy, Kind, Pulse};
use crate::net::stream::Flow;
use crate::net::turn::Ticket;
use crate::service::{Outcome, Shared};
use crate::store::{delivery, queue};
use crate::sys::files;
use crate::text::bytes::INPUT_ROOM;
use crate::text::fault::Fault;

/// So much of a text is written at a time, and what is smaller when it is whole is never written.
pub const PIECE: usize = 64 * 1024;
/// Where the files are, in work_path.
const DIR: &str = "bodies";

/// The memory that all texts may take.
pub struct Budget {
    pub(super) resting: Load,
    moving: Load,
    dir: PathBuf,
    /// The volume that is on.
    volume: u64,
    /// Files made so far: each has a name for a moment where there are no files without.
    made: AtomicUsize,
}

/// One part of a budget.
pub(super) struct Load {
    bytes: AtomicUsize,
    most: usize,
}

impl Load {
    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most
    }

    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }
}

impl Budget {
    /// For `most` bytes. Its directory is made, and what was killed in it is removed.
    pub(super) fn open(work_path: &Path, volume: u64, most: usize) -> Result<Budget, Fault> {
        let dir = work_path.join(DIR);
        files_of(&dir)?;
        let moving = (most / 4).max(PIECE);
        let load = |most| Load { bytes: AtomicUsize::new(0), most };
        let resting = load(most.saturating_sub(moving));
        Ok(Budget { resting, moving: load(moving), dir, volume, made: AtomicUsize::new(0) })
    }

    /// Whether what a sender gives in one step can rest, or move.
    fn may_go_on(&self) -> bool {
        self.resting.room() >= PIECE || self.moving.room() > 0
    }

    /// Bytes that texts take now.
    pub fn held(&self) -> usize {
        self.resting.bytes.load(Ordering::Relaxed) + self.moving.bytes.load(Ordering::Relaxed)
    }

    fn new_file(&self) -> io::Result<File> {
        let dir = files::open_dir(&self.dir)?;
        files::nameless_at(&dir, Path::new(&self.made.fetch_add(1, Ordering::Relaxed).to_string()))
    }
}

/// An empty directory of files.
fn files_of(dir: &Path) -> Result<(), Fault> {
    fs::create_dir_all(dir).map_err(Fault::at("making", dir))?;
    for entry in fs::read_dir(dir).map_err(Fault::at("reading", dir))? {
        let path = entry.map_err(Fault::at("reading", dir))?.path();
        fs::remove_file(&path).map_err(Fault::at("removing", &path))?;
    }
    Ok(())
}

/// Bytes in memory, counted for as long as they are there.
pub(in crate::service) struct Held {
    bytes: Vec<u8>,
    counted: usize,
    moves: bool,
    budget: Arc<Budget>,
}

impl Held {
    fn new(budget: Arc<Budget>) -> Held {
        Held { bytes: Vec::new(), counted: 0, moves: false, budget }
    }

    fn load(&self) -> &Load {
        if self.moves { &self.budget.moving } else { &self.budget.resting }
    }

    /// What it takes is its capacity.
    fn count(&mut self) {
        let bytes = self.bytes.capacity();
        self.load().bytes.fetch_add(bytes, Ordering::Relaxed);
        self.load().bytes.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = bytes;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.count();
    }

    /// From now on it moves.
    fn moving(mut self) -> Held {
        self.load().bytes.fetch_sub(self.counted, Ordering::Relaxed);
        self.moves = true;
        self.load().bytes.fetch_add(self.counted, Ordering::Relaxed);
        self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load().bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// The text of one message, while it comes.
pub struct Body {
    rest: Held,
    file: Option<Arc<File>>,
    /// Bytes in the file.
    written: u64,
    fault: Option<Fault>,
    passed: Passed,
}

/// What a held sender waited for.
pub enum Progress {
    /// A piece was written, or not.
    Wrote(Wrote),
    /// There may be room now.
    Room,
}

/// What came of writing a piece.
pub struct Wrote {
    file: Result<Arc<File>, Fault>,
    bytes: u64,
    /// Counted until the loop knows that it is over.
    piece: Held,
}

impl Body {
    pub(super) fn new(budget: Arc<Budget>) -> Body {
        Body { rest: Held::new(budget), file: None, written: 0, fault: None, passed: Passed::default() }
    }

    /// Whether its sender may go on: if not, `Outcome::Body` comes with this ticket when he may.
    pub fn wait(&mut self, ticket: Ticket, shared: &mut Shared) -> Flow {
        if self.fault.is_some() || self.rest.budget.may_go_on() {
            return Flow::More;
        }
        shared.transit.waiting.push_back(ticket);
        Flow::Hold
    }

    /// A text of ours, of a few lines, that is whole.
    pub(super) fn of(budget: Arc<Budget>, text: &[u8]) -> Body {
        let mut body = Body::new(budget);
        body.rest.push(text);
        body
    }

    /// Takes the next bytes, all of them. On `Hold`, `Outcome::Body` comes with this ticket when the sender may go on.
    pub fn take(&mut self, bytes: &[u8], ticket: Ticket, shared: &mut Shared) -> Flow {
        if self.fault.is_some() {
            return Flow::More;
        }
        self.passed.feed(bytes);
        self.rest.push(bytes);
        if self.rest.bytes.len() < PIECE && !self.rest.budget.resting.is_over() {
            return self.wait(ticket, shared);
        }
        let write = self.write();
        let budget = self.rest.budget.clone();
        match shared.jobs.submit(Some(ticket), Kind::Sync, budget.volume, write) {
            Ok(()) => Flow::Hold,
            Err(busy) => {
                self.fail(no_room(&budget.dir, busy));
                Flow::More
            }
        }
    }

    /// Writes what rests behind what is written; for a job.
    fn write(&mut self) -> impl FnOnce(&Pulse) -> Outcome + Send + 'static {
        let budget = self.rest.budget.clone();
        let piece = std::mem::replace(&mut self.rest, Held::new(budget.clone())).moving();
        let (file, at) = (self.file.clone(), self.written);
        move |_| {
            let file = file.map_or_else(|| budget.new_file().map(Arc::new), Ok);
            let file = file.and_then(|file| file.write_all_at(&piece.bytes, at).map(|()| file));
            let bytes = piece.bytes.len() as u64;
            let file = file.map_err(Fault::at("writing a message to", &budget.dir));
            Outcome::Body(Progress::Wrote(Wrote { file, bytes, piece }))
        }
    }

    /// What its sender was held for.
    pub fn told(&mut self, progress: Progress) {
        match progress {
            Progress::Room => {}
            Progress::Wrote(Wrote { file: Ok(file), bytes, piece }) => {
                self.file = Some(file);
                self.written += bytes;
                drop(piece);
            }
            Progress::Wrote(Wrote { file: Err(fault), .. }) => self.fail(fault),
        }
    }

    /// The same, when something else came with that ticket: the job was lost.
    pub fn lost(&mut self) {
        let lost = io::Error::other("a fault of ours ended the job");
        self.fail(Fault::new("writing a message to", &self.rest.budget.dir.clone(), lost));
    }

    fn fail(&mut self, fault: Fault) {
        // What it holds would be of no use any more.
        self.rest = Held::new(self.rest.budget.clone());
        self.file = None;
        self.fault = Some(fault);
    }

    /// Bytes that were taken; of no account when it has failed.
    pub fn bytes(&self) -> u64 {
        self.written + self.rest.bytes.len() as u64
    }

    /// Why it will be refused, if it will.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Who has had it already, by what has come of it.
    pub(super) fn take_passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// It is whole.
    pub(super) fn close(mut self) -> Closed {
        if let Some(fault) = self.fault {
            return Closed::Failed(fault);
        }
        match self.file.take() {
            None => {
                self.rest.bytes.shrink_to_fit();
                self.rest.count();
                Closed::Whole(Text::Memory(self.rest))
            }
            Some(file) if self.rest.bytes.is_empty() => Closed::Whole(Text::File(file, self.written)),
            // Its end has to follow the rest.
            Some(file) => {
                self.file = Some(file);
                Closed::Open(self)
            }
        }
    }

    /// Writes what rests, with this ticket, after which it can be closed; or has failed.
    pub(super) fn flush(&mut self, ticket: Ticket, shared: &Shared) -> Result<(), Busy> {
        let write = self.write();
        shared.jobs.submit(Some(ticket), Kind::Sync, self.rest.budget.volume, write)
    }
}

fn no_room(dir: &Path, busy: Busy) -> Fault {
    let error = match busy {
        Busy::Full => "too much waits for the disks",
        Busy::Stuck => "its volume does not answer",
    };
    Fault::new("writing a message to", dir, io::Error::other(error))
}

/// A text that is to be whole.
pub(super) enum Closed {
    /// It is.
    Whole(Text),
    /// Once what rests has been [`flush`](Body::flush)ed.
    Open(Body),
    /// It cannot be.
    Failed(Fault),
}

/// Where a whole text is, for whoever reads it piece by piece.
pub(in crate::service) enum Source<'t> {
    Memory(&'t [u8]),
    File(&'t File, std::ops::Range<u64>),
}

/// The text of a message, whole. It goes with its last owner.
pub(in crate::service) enum Text {
    Memory(Held),
    File(Arc<File>, u64),
    /// In the queue.
    Queued(queue::Text),
}

impl Text {
    /// As a drop takes it.
    pub(super) fn body(&self) -> delivery::Body<'_> {
        match self {
            Text::Memory(held) => delivery::Body::Memory(&held.bytes),
            Text::File(file, bytes) => delivery::Body::File(&**file, 0..*bytes),
            Text::Queued(text) => text.body(),
        }
    }

    /// Where it is.
    pub(in crate::service) fn source(&self) -> Source<'_> {
        match self {
            Text::Memory(held) => Source::Memory(&held.bytes),
            Text::File(file, bytes) => Source::File(file, 0..*bytes),
            Text::Queued(text) => {
                let (file, range) = text.parts();
                Source::File(file, range)
            }
        }
    }

    /// Writes it into a file. In a job.
    pub(super) fn write_to(&self, out: &mut File) -> io::Result<()> {
        let (file, range) = match self {
            Text::Memory(held) => return out.write_all(&held.bytes),
            Text::File(file, bytes) => (&**file, 0..*bytes),
            Text::Queued(text) => text.parts(),
        };
        let mut piece = vec![0; PIECE];
        let mut at = range.start;
        while at < range.end {
            let most = piece.len().min((range.end - at) as usize);
            match file.read_at(&mut piece[..most], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => {
                    out.write_all(&piece[..some])?;
                    at += some as u64;
                }
            }
        }
        Ok(())
    }

    pub(in crate::service) fn bytes(&self) -> u64 {
        match self {
            Text::Memory(held) => held.bytes.len() as u64,
            Text::File(_, bytes) => *bytes,
            Text::Queued(text) => text.parts().1.count() as u64,
        }
    }
}

/// Senders that wait for room, first come first.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Ticket>);

impl Waiting {
    fn push_back(&mut self, ticket: Ticket) {
        self.0.push_back(ticket);
    }

    /// Whether somebody could go on.
    pub(super) fn is_due(&self, budget: &Budget) -> bool {
        !self.0.is_empty() && budget.may_go_on()
    }

    /// Those who may go on now: as many as there is room for, each giving as much as it can in one step.
    pub(super) fn call(&mut self, budget: &Budget) -> impl Iterator<Item = Ticket> {
        let room = (budget.resting.room() + budget.moving.room()).div_ceil(INPUT_ROOM);
        self.0.drain(..room.min(self.0.len()))
    }
}
