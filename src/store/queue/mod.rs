//! The queue: messages that could not be brought to all their recipients at once, each in one readable file in
//! `work_path/queue`.

mod head;
mod state;

use std::path::{Path, PathBuf};

pub use head::{Envelope, Kind, LINE_BYTES, RECEIVED_BYTES, RECIPIENTS_MAX, Recipient};
pub use state::{Stage, State, WHY_BYTES};

use super::delivery::{Body, Failed, Queued};
use super::desk::Refused;
use super::disk::{Disk, RealDisk};
use crate::text::fault::Fault;

/// The queue of this server, shared by its jobs. Every call waits for the disk: only in a job. Only whoever has the intent log
/// open may have it.
pub struct Queue<D: Disk = RealDisk> {
    disk: D,
    path: PathBuf,
    dir: D::Dir,
}

/// Whether a message is new in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is in the queue, on disk.
    New,
    /// One with this id was there already, is on disk, and stays as it is: for ids that are derived, of bounces.
    Already,
}

/// Why a message's file says nothing.
#[derive(Debug)]
pub enum Miss {
    /// There is none: it has left the queue.
    Gone,
    /// It is not what a queue file is. [`Queue::set_aside`] puts it out of the way.
    Damaged(Fault),
    /// The disk or the system failed.
    Fault(Fault),
}

/// How many recipients stand where.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// By [`Stage`] as number.
    pub by_stage: [u32; Stage::ALL.len()],
    /// When the first of those that may be tried is due, in seconds since 1970; 0: at once; `None`: none may.
    pub next_secs: Option<i64>,
}

/// A message of the queue, without its recipients and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: String,
    /// What is known of it.
    pub envelope: Envelope,
    /// Bytes of its text, the Received field not counted.
    pub text_bytes: u64,
    /// Recipients, whatever has become of them. Their numbers start at 1.
    pub recipients: u32,
    /// What has become of them.
    pub tally: Tally,
}

/// A recipient and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// From 1.
    pub number: u32,
    /// Who it is.
    pub recipient: Recipient,
    /// What has become of it.
    pub state: State,
}

/// One recipient's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub number: u32,
    /// To what.
    pub to: State,
}

/// What came of changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Noted {
    /// These are not as the caller believed: their stage may not become what was said, and nothing was written about them.
    pub refused: Vec<(u32, Stage)>,
    /// How all recipients stand now.
    pub tally: Tally,
}

/// What lies in the queue's directory.
#[derive(Debug)]
pub enum Found {
    /// A message.
    Message(Box<Message>),
    /// A damaged file: it has this name now.
    SetAside(PathBuf, Fault),
    /// It could not be read now; it stays where it is.
    Unread(String, Fault),
    /// Something that is none of ours.
    Strange(PathBuf),
}

/// A message's text, to be read for delivery. The Received field is not in it: see [`Envelope::received`].
pub struct Text<D: Disk = RealDisk> {
    file: D::File,
    range: std::ops::Range<u64>,
}

impl<D: Disk> Text<D> {
    /// For a [`Letter`](super::delivery::Letter), or for another file of the queue.
    pub fn body(&self) -> Body<'_, D> {
        Body::File(&self.file, self.range.clone())
    }

    /// The file, and where in it the text stands.
    pub fn parts(&self) -> (&D::File, std::ops::Range<u64>) {
        (&self.file, self.range.clone())
    }
}

impl Queue {
    /// Opens the queue in `work_path`; its directory is made when it is not there.
    pub fn open(work_path: &Path) -> Result<Queue, Refused> {
        Queue::open_on(&RealDisk::default(), work_path)
    }
}

impl<D: Disk> Queue<D> {
    /// [`open`](Queue::open) on a disk of the caller's.
    pub fn open_on(disk: &D, work_path: &Path) -> Result<Queue<D>, Refused> {
        let path = work_path.join("queue");
        disk.make_dirs(&path).map_err(Fault::at("making", &path))?;
        let dir = disk.open_dir(&path).map_err(Fault::at("opening", &path))?;
        Ok(Queue { disk: disk.clone(), path, dir })
    }

    /// What lies there, one after the other: for start. Temporary files of a server that was killed are taken away, damaged
    /// ones set aside, messages that were done with removed.
    pub fn each(&self, found: &mut dyn FnMut(Found)) -> Result<(), Fault> {
        let _ = found;
        Err(self.fault())
    }

    /// A message with all its recipients waiting. It is on disk when this returns `Ok`, and will never appear when
    /// this returns `Refused`.
    pub fn create(
        &self,
        id: &str,
        envelope: &Envelope,
        recipients: &[Recipient],
        text: &Body<'_, D>,
    ) -> Result<Made, Failed> {
        let _ = (id, envelope, recipients, text);
        Err(self.fault().into())
    }

    /// A message, without its recipients and its text.
    pub fn read(&self, id: &str) -> Result<Message, Miss> {
        let _ = id;
        Err(Miss::Fault(self.fault()))
    }

    /// At most `limit` recipients and their states, from number `from` on; no more: there are none.
    pub fn page(&self, id: &str, from: u32, limit: u32) -> Result<Vec<Row>, Miss> {
        let _ = (id, from, limit);
        Err(Miss::Fault(self.fault()))
    }

    /// Its text.
    pub fn text(&self, id: &str) -> Result<Text<D>, Miss> {
        let _ = id;
        Err(Miss::Fault(self.fault()))
    }

    /// Writes down what became of some recipients; it is on disk when this returns. `at_secs`: the time it is.
    pub fn note(&self, id: &str, at_secs: i64, changes: &[Change]) -> Result<Noted, Miss> {
        let _ = (id, at_secs, changes);
        Err(Miss::Fault(self.fault()))
    }

    /// Those whom the intent log found to have their messages have become delivered: for start, behind
    /// [`recover`](super::delivery::recover). Then the intent may be closed.
    pub fn note_found(&self, at_secs: i64, queued: &[Queued]) -> Result<(), Miss> {
        let _ = (at_secs, queued);
        Err(Miss::Fault(self.fault()))
    }

    /// The recipients of its origin that this bounce tells of have become bounced, on disk. To be called before the bounce is
    /// tried for the first time, also after a restart: then nobody is told twice.
    pub fn told(&self, bounce: &str, at_secs: i64) -> Result<(), Miss> {
        let _ = (bounce, at_secs);
        Err(Miss::Fault(self.fault()))
    }

    /// Takes a message out of the queue whose recipients are all final; says whether they are.
    pub fn remove(&self, id: &str) -> Result<bool, Miss> {
        let _ = id;
        Err(Miss::Fault(self.fault()))
    }

    /// Gives a file a name under which nobody tries it, for the operator to find: that name.
    pub fn set_aside(&self, id: &str) -> Result<PathBuf, Miss> {
        let _ = id;
        Err(Miss::Fault(self.fault()))
    }

    fn fault(&self) -> Fault {
        let _ = (&self.disk, &self.dir);
        Fault::new("opening", &self.path, std::io::ErrorKind::Unsupported.into())
    }
}

/// Whose delivery a letter of the queue is, for [`Letter::queued`](super::delivery::Letter::queued).
pub fn queued(id: &str, number: u32) -> Queued {
    Queued { id: id.to_owned(), recipient: number.to_string() }
}
