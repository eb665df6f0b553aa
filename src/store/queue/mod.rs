//! The queue: messages that could not be brought to all their recipients at once, each in one readable file below
//! `work_path/queue`, named by its id.
//!
//! | file                | is                                                                                              |
//! |---------------------|-------------------------------------------------------------------------------------------------|
//! | `queue/ID`          | new, or in its first round                                                                      |
//! | `queue/due/HOUR/ID` | waits until a second of that hour: seconds since 1970 / 3600, decimal                           |
//! | `queue/held/ID`     | of it no recipient may be tried                                                                 |
//! | `queue/ID.new`      | about to be one, or written anew                                                                |
//! | `queue/ID.damaged`  | set aside                                                                                       |
//!
//! ```text
//! DMail-Queue: 1                                    the envelope: see `head`
//! Id: 7K2F9QXB3M
//! ...
//! To: 1 local bob@example.com notify=failure
//! To: 2 remote kim@example.net
//!
//! Received: from ... with ESMTPS id 7K2F9QXB3M ...  our Received field, and the text as it came
//! Subject: tea
//!
//! At five.
//!
//! States of 7K2F9QXB3M:                             one line a change, appended: see `state`
//! State: 1 deferred at=1767610812 next=1767610822 tries=1 why=... sum=...
//! State: 1 delivered at=1767610823 sum=...
//! ```
//!
//! **Why the states stand behind the text, and in the same file.** What is appended never touches the bytes of the message; the
//! envelope says how long the text is, so nothing in a text can be taken for a state; a message has one name, so that making and
//! removing it is one name's matter, and its states are on disk after one sync of a file that is there. A file of states beside
//! it would cost every message that is tried a second name, made, synced and removed, and a crash between the two removals
//! would leave states without a message, or a message that nobody remembers to have delivered.
//!
//! **Making.** The file is written as `ID.new`, synced, given its name over nothing, and the directory is synced: makers that
//! come while one sync of the directory runs share the next one. The text's end is marked, so that a file which is not whole is
//! seen to be damaged, whoever shortened it. If the name cannot be synced it is taken away again; if that cannot be synced it is
//! not known what a power cut leaves: [`Failed::Unknown`].
//!
//! **Ending.** A new message for whose recipients nothing is left to do is not written into any more: its name is taken away and the
//! directory synced, which says the same of all of them, once, and is shared as in making ([`Queue::finish`]).
//!
//! **Changing.** A line with a checksum, appended and synced before anything depends on it. Lines that do not check are passed
//! over: a power cut leaves NULs and halves. The next line begins on a new one. Nothing is ever cut off or moved. All states that
//! are there are written once more, byte for byte where they stand, before a sync counts for them: an earlier sync of theirs may
//! have failed, in this process or in one before it, and a second one says nothing about the same pages. A file whose
//! states come to [`STATES_BYTES`], half of which say nothing any more, is written anew first: see `sum`.
//!
//! **Putting.** When a round or an order has ended, the file is renamed to where it is found when it is due ([`Queue::put`]), under its
//! lock, over nothing. That is not synced: what counts are the states, and the place is a hint that may have it looked at too
//! early, or at most an hour late; whoever looks at a message too early puts it right. Within an hour its time of last writing says in which
//! second: it is set with the rename, so that who looks for those that are due first ([`Queue::soonest`]) reads names and
//! times, and opens no file: of a million texts not a page is read. It is a hint too; a backup that does not keep it costs a look too
//! early or, again, an hour. `places` says how a file is found.
//!
//! | what a crash leaves                          | what start does                                                       |
//! |----------------------------------------------|-----------------------------------------------------------------------|
//! | `ID.new`                                     | removes it: nobody was answered                                       |
//! | a message whose maker did not answer         | keeps it: it is whole, and appears once                               |
//! | a file where it was, though put elsewhere    | nothing: it is looked at too early, and put there again               |
//! | one among the held that was released         | a job looks through those, and puts it among those that are due       |
//! | one that waits, in `queue` itself, where a server before this one had all | puts it into its hour                    |
//! | an hour's directory, empty                   | nothing: it goes when its hour is over                                |
//! | a last line torn, or lost                    | what it said has not happened; the intent log knows of deliveries     |
//! | all recipients final                         | removes it                                                            |
//! | some are to be told of and are not           | the bounce is made (again), which has the same id: [`Made::Already`]  |
//! | a file that is none of ours, or damaged      | reports it; what has a message's name becomes `ID.damaged`            |
//!
//! **Never twice.** A delivery on behalf of the queue names id and recipient in its intent ([`queued`]). When it has succeeded
//! the recipient is noted as delivered, and only when that is on disk the intent is closed. Whatever comes between, a crash, a
//! failed sync of the drop or of this, leaves the intent open: [`Queue::recover`] at start and [`Queue::settle`] before each
//! try look into the drop, note what is found whole there, and close it. Who failed or expired is written
//! down first, with the number of the bounce that will tell of it; then the bounce is made, with the id that follows from that number; then
//! [`Queue::told`] notes it, before the bounce is tried.
//!
//! Modes are 0600 and 0700; nothing is opened through a link, or that is not a file of ours. What a hand wrote into a file is
//! read like what a stranger sent. Start reads `queue` itself and the names of hours, however much waits in those. Nothing here holds
//! all names: [`Queue::walk`] says them one after the other, [`Queue::soonest`] gives as many as were asked for.
//!
//! What it does not do: say when something is due or what failed for good, deliver, write bounces. The intent log's lock keeps a
//! second server out.

mod file;
mod head;
mod id;
mod look;
mod places;
mod state;
mod sum;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub use head::{Envelope, ID_BYTES, Kind, LINE_BYTES, RECEIVED_BYTES, RECIPIENTS_MAX, Recipient, is_id};
pub use id::Id;
pub use look::Soonest;
pub use state::{How, Stage, State, VIA_BYTES, WHY_BYTES, Warned};

use super::delivery::{self, Body, Failed, Intents, Queued, Recovered};
use super::desk::{Place, Refused, there};
use super::disk::{self, Disk, Reach, RealDisk};
use crate::mail::dsn::{Report, report_id};
use crate::text::fault::Fault;
use crate::text::number::decimal;
use file::{Opened, Slot, Told, Unread};
use places::{Place as Lies, Places, lock_of};

/// Its directory in work_path.
const NAME: &str = "queue";
/// What a message is written as before it is one: `ID.new`.
const NEW: &str = ".new";
/// What one that is damaged is called: `ID.damaged`, and more if that is taken.
const DAMAGED: &str = ".damaged";
/// Bytes are copied in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;
/// The file of a message whose states have come to this is written anew when half of them say nothing any more.
pub const STATES_BYTES: u64 = 1024 * 1024;
/// Runs of recipients in one line.
const RUNS_MAX: usize = 500;
/// Recipients that are read at a time to say something else of them.
const RESTATED: u32 = 512;
/// Messages are changed by one at a time of so many kinds.
const LOCKS: usize = 64;
/// So many that are done with are remembered as such until they are removed.
const ENDED_MAX: usize = 1024;

/// The queue of this server, shared by its jobs. Every call waits for the disk: only in a job. Only whoever has the intent log
/// open may have it.
pub struct Queue<D: Disk = RealDisk> {
    disk: D,
    path: PathBuf,
    places: Places<D>,
    /// Whoever changes a message holds one of them, by its id.
    locks: [Mutex<()>; LOCKS],
    names: Mutex<Names>,
    /// A sync of the directory has ended.
    synced: Condvar,
    /// Messages all of whose recipients are final, on disk, by a sync of this process.
    ended: Mutex<HashSet<String>>,
    /// How many messages there are, once they were counted.
    counted: Mutex<Option<i64>>,
    /// Messages that came, went or were moved.
    changes: AtomicU64,
    /// Files that were written anew, and of which it is not known to be on disk.
    unsure: AtomicU64,
}

/// How many names were given and taken, and how many of those are on disk or will never be known to be.
#[derive(Default)]
struct Names {
    written: u64,
    durable: u64,
    lost: u64,
    syncing: bool,
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
    /// Those whose senders are to be told of something and have not been: they failed, expired, succeeded, or wait long.
    pub untold: u32,
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
    /// When he came to that, in seconds since 1970; `None`: he has not been tried.
    pub at_secs: Option<i64>,
    /// His sender has once heard that he waits long, whatever has become of him since.
    pub warned: bool,
    /// The way that an operator has said: a target as the settings have it.
    pub via: Option<String>,
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
    /// These are not as the caller believed: their stage may not become what was said, or was said already, and nothing was
    /// written about them; `None`: there is no such recipient.
    pub refused: Vec<(u32, Option<Stage>)>,
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
    /// One that was set aside before, and waits for somebody to look at it.
    Aside(PathBuf),
    /// It could not be read now; it stays where it is.
    Unread(String, Fault),
    /// Something that is none of ours.
    Strange(PathBuf),
}

impl Tally {
    /// How many recipients stand at `stage`.
    pub fn at(&self, stage: Stage) -> u32 {
        self.by_stage[stage as usize]
    }

    /// Whether there is nothing left to do for any of them.
    pub fn is_ended(&self) -> bool {
        Stage::ALL.iter().all(|&stage| stage.is_final() || self.at(stage) == 0)
    }

    /// When it is to be looked at: see [`Queue::put`]. Whose sender is still to be told is due for that.
    pub fn due_secs(&self) -> Option<i64> {
        if self.untold > 0 { Some(0) } else { self.next_secs }
    }
}

/// A message's text, to be read for delivery. The Received field is not in it: see [`Envelope::received`].
pub struct Text<D: Disk = RealDisk> {
    file: D::File,
    range: Range<u64>,
}

impl<D: Disk> Text<D> {
    /// For a [`Letter`](super::delivery::Letter), or for another file of the queue.
    pub fn body(&self) -> Body<'_, D> {
        Body::File(&self.file, self.range.clone())
    }

    /// The file, and where in it the text stands.
    pub fn parts(&self) -> (&D::File, Range<u64>) {
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
        let places = Places::open(disk, work_path)?;
        Ok(Queue {
            disk: disk.clone(),
            path: work_path.join(NAME),
            places,
            locks: std::array::from_fn(|_| Mutex::default()),
            names: Mutex::default(),
            synced: Condvar::new(),
            ended: Mutex::default(),
            counted: Mutex::default(),
            changes: AtomicU64::new(0),
            unsure: AtomicU64::new(0),
        })
    }

    /// What lies in `queue` itself, one after the other: for start, before anything else is done with the queue. Temporary files of a
    /// server that was killed are taken away, damaged ones set aside, messages that were done with removed.
    pub fn each(&self, found: &mut dyn FnMut(Found)) -> Result<(), Fault> {
        let mut each = |name: OsString| {
            if let Some(what) = self.judge(&name) {
                found(what);
            }
            true
        };
        self.disk.names(self.places.of_new(), &mut each).map_err(Fault::at("reading", &self.path))
    }

    /// What one name is; `None`: nothing any more.
    fn judge(&self, name: &OsStr) -> Option<Found> {
        if Places::<D>::is_ours(name.as_bytes()) {
            return None;
        }
        let id = match self.judge_name(Lies::New, self.places.of_new(), name) {
            Ok(id) => id,
            Err(found) => return found,
        };
        match self.read(id) {
            Ok(message) if message.tally.is_ended() => match self.remove(id) {
                Ok(_) | Err(Miss::Gone) => None,
                Err(Miss::Damaged(fault) | Miss::Fault(fault)) => Some(Found::Unread(id.to_owned(), fault)),
            },
            Ok(message) => Some(Found::Message(Box::new(message))),
            Err(Miss::Gone) => None,
            Err(Miss::Fault(fault)) => Some(Found::Unread(id.to_owned(), fault)),
            Err(Miss::Damaged(fault)) => match self.set_aside(id) {
                Ok(path) => Some(Found::SetAside(path, fault)),
                Err(_) => Some(Found::Unread(id.to_owned(), fault)),
            },
        }
    }

    /// The id that a name in one of our directories is, or what else that is; a temporary file goes.
    fn judge_name<'n>(&self, place: Lies, dir: &D::Dir, name: &'n OsStr) -> Result<&'n str, Option<Found>> {
        let bytes = name.as_bytes();
        if bytes.strip_suffix(NEW.as_bytes()).is_some_and(is_id) {
            // That it stays does no harm.
            drop(self.disk.remove(dir, Path::new(name)));
            return Err(None);
        }
        if let Some(id) = name.to_str().filter(|_| is_id(bytes)) {
            return Ok(id);
        }
        let path = self.places.path(place).join(name);
        let id = bytes.split(|&byte| byte == b'.').next().filter(|id| is_id(id));
        let is_aside = id.is_some_and(|id| bytes[id.len()..].starts_with(DAMAGED.as_bytes()));
        Err(Some(if is_aside { Found::Aside(path) } else { Found::Strange(path) }))
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
        let path = self.path.join(id);
        let unfit = |why: &str| Fault::new("making", &path, io::Error::new(io::ErrorKind::InvalidInput, why));
        if !is_id(id.as_bytes()) {
            return Err(unfit("not a message's id").into());
        }
        if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX as usize {
            return Err(unfit(&format!("{} recipients are not from 1 to {RECIPIENTS_MAX}", recipients.len())).into());
        }
        if envelope.received.len() > RECEIVED_BYTES {
            return Err(unfit("its Received field is too long").into());
        }
        let made = {
            let _lock = self.lock(id);
            self.write(id, envelope, recipients, text)?
        };
        match self.sync_names() {
            Ok(()) => {
                self.count_more(i64::from(made == Made::New));
                Ok(made)
            }
            Err(fault) if made == Made::Already => Err(fault.into()),
            Err(fault) => Err(self.take_back(id, fault)),
        }
    }

    /// Makes the file and gives it its name.
    fn write(
        &self,
        id: &str,
        envelope: &Envelope,
        recipients: &[Recipient],
        text: &Body<'_, D>,
    ) -> Result<Made, Fault> {
        let (disk, dir, new) = (&self.disk, self.places.of_new(), PathBuf::from(format!("{id}{NEW}")));
        let path = self.path.join(&new);
        let known = self.places.whereabouts(id);
        if known.map_err(|(place, error)| self.fault_at("looking at", place, id, error))?.is_some() {
            return Ok(Made::Already);
        }
        let open = || disk.open(dir, &new, disk::How::CreateNew);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Of one of us who could not take it away.
                there(disk.remove(dir, &new)).map_err(Fault::at("removing", &path))?;
                open()
            }
            opened => opened,
        };
        let file = file.map_err(Fault::at("making", &path))?;
        let written = self.fill(&path, &file, id, envelope, recipients, text);
        let named = written.and_then(|()| {
            disk.sync(&file).map_err(Fault::at("syncing", &path))?;
            match disk.carry(dir, &new, dir, Path::new(id)) {
                Ok(()) => Ok(Made::New),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Already),
                Err(error) => Err(Fault::new("renaming", &path, error)),
            }
        });
        if !matches!(named, Ok(Made::New)) {
            // If that fails the next start does it: nobody takes it for a message.
            drop(disk.remove(dir, &new));
        }
        named
    }

    /// All bytes of a message.
    fn fill(
        &self,
        path: &Path,
        file: &D::File,
        id: &str,
        envelope: &Envelope,
        recipients: &[Recipient],
        text: &Body<'_, D>,
    ) -> Result<(), Fault> {
        let text_bytes = match text {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File(_, range) => range.end.saturating_sub(range.start),
        };
        let state = RefCell::new((Vec::new(), 0));
        let flush = |least: usize| {
            let (waiting, at) = &mut *state.borrow_mut();
            if waiting.len() > least {
                self.disk.write(file, waiting, *at).map_err(Fault::at("writing", path))?;
                *at += waiting.len() as u64;
                waiting.clear();
            }
            Ok(())
        };
        let put = |bytes: &[u8]| {
            state.borrow_mut().0.extend_from_slice(bytes);
            flush(PIECE_BYTES)
        };
        let line = |bytes: &[u8]| {
            if bytes.split(|&byte| byte == b'\n').any(|line| line.len() > LINE_BYTES) {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "a line of its envelope is too long");
                return Err(Fault::new("making", path, error));
            }
            put(bytes)
        };
        line(&head::encode(id, envelope, text_bytes, recipients.len()))?;
        for (number, recipient) in (1..).zip(recipients) {
            line(&head::encode_recipient(number, recipient))?;
        }
        put(b"\n")?;
        put(&envelope.received)?;
        match text {
            Body::Memory(bytes) => put(bytes)?,
            Body::File(body, range) => {
                let mut at = range.start;
                let mut piece = vec![0; text_bytes.min(PIECE_BYTES as u64) as usize];
                while at < range.end {
                    let most = piece.len().min((range.end - at) as usize);
                    let read = match self.disk.read(body, &mut piece[..most], at, Reach::Wait) {
                        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                        read => read,
                    };
                    let read = read.map_err(Fault::at("reading a message's file for", path))?;
                    put(&piece[..read])?;
                    at += read as u64;
                }
            }
        }
        put(&file::mark(id))?;
        flush(0)
    }

    /// A name that may not be on disk, because of `fault`, is taken away again.
    fn take_back(&self, id: &str, fault: Fault) -> Failed {
        let _lock = self.lock(id);
        match self.remove_name(id).and_then(|_| self.sync_names()) {
            Ok(()) => fault.into(),
            Err(_) => Failed::Unknown(fault),
        }
    }

    /// Returns when the names that the caller gave or took are on disk, by a sync of ours or of another's.
    fn sync_names(&self) -> Result<(), Fault> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.written += 1;
        let mine = names.written;
        loop {
            // First, for later syncs say nothing about this one.
            if names.lost >= mine {
                let error = io::Error::other("the sync it waited for failed");
                return Err(Fault::new("syncing", &self.path, error));
            }
            if names.durable >= mine {
                return Ok(());
            }
            if names.syncing {
                names = self.synced.wait(names).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let through = names.written;
            names.syncing = true;
            drop(names);
            let synced = self.disk.sync_dir(self.places.of_new());
            names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.syncing = false;
            self.synced.notify_all();
            match synced {
                Ok(()) => names.durable = through,
                Err(error) => {
                    names.lost = names.written;
                    return Err(Fault::new("syncing", &self.path, error));
                }
            }
        }
    }

    /// A message, without its recipients and its text.
    pub fn read(&self, id: &str) -> Result<Message, Miss> {
        let opened = self.opened(id, disk::How::Read)?;
        let slots = opened.told().map_err(|error| self.miss(id, error.into()))?.slots;
        let text = opened.text();
        Ok(Message {
            id: id.to_owned(),
            text_bytes: text.end - text.start,
            recipients: opened.facts.recipients,
            tally: file::tally(&slots),
            envelope: opened.facts.envelope,
        })
    }

    /// At most `limit` recipients and their states, from number `from` on; none: there are no more.
    pub fn page(&self, id: &str, from: u32, limit: u32) -> Result<Vec<Row>, Miss> {
        self.opened(id, disk::How::Read)?.rows(from, limit).map_err(|unread| self.miss(id, unread))
    }

    /// Its text.
    pub fn text(&self, id: &str) -> Result<Text<D>, Miss> {
        let opened = self.opened(id, disk::How::Read)?;
        Ok(Text { range: opened.text(), file: opened.file })
    }

    /// How its text begins, our Received field aside: at most `limit` bytes.
    pub fn beginning(&self, id: &str, limit: usize) -> Result<Vec<u8>, Miss> {
        let opened = self.opened(id, disk::How::Read)?;
        let range = opened.text();
        let mut bytes = vec![0; (range.end - range.start).min(limit as u64) as usize];
        let read = file::read(&self.disk, &opened.file, &mut bytes, range.start);
        bytes.truncate(read.map_err(|error| self.miss(id, error.into()))?);
        Ok(bytes)
    }

    /// A file that something is to be said in, and what it says. Whoever calls has its lock.
    fn open_to_note(&self, id: &str, at_secs: i64) -> Result<(Opened<D>, Told), Miss> {
        let opened = self.opened(id, disk::How::Write)?;
        self.make_sure()?;
        let told_by = |opened: &Opened<D>| opened.told().map_err(|error| self.miss(id, error.into()));
        let told = told_by(&opened)?;
        if !sum::is_worth_it(opened.states_bytes(), &told) {
            return Ok((opened, told));
        }
        let opened = self.sum_up(&opened, &told, id, at_secs)?;
        let told = told_by(&opened)?;
        Ok((opened, told))
    }

    /// Writes down what became of some recipients; it is on disk when this returns `Ok`, also where it was known. `at_secs`: the
    /// time it is. Recipients who come in one call to what their senders are told
    /// are told of by one report of each kind.
    pub fn note(&self, id: &str, at_secs: i64, changes: &[Change]) -> Result<Noted, Miss> {
        let _lock = self.lock(id);
        let (opened, Told { mut slots, ended, .. }) = self.open_to_note(id, at_secs)?;
        let why_bytes = sum::why_bytes(opened.states_bytes());
        let slot_of = |slots: &[Slot], number: u32| slots.get((number as usize).wrapping_sub(1)).copied();
        let mut noted = Noted::default();
        // Reports of different kinds have numbers of their own.
        let first = Report::ALL.map(|report| {
            let tells = |change: &&Change| {
                let slot = slot_of(&slots, change.number);
                change.to.told_by() == Some(report) && slot.is_some_and(|slot| slot.stage.may_become(change.to.stage()))
            };
            changes.iter().filter(tells).map(|change| change.number).min().unwrap_or(0)
        });
        let (mut said, mut known, mut touched) = (Said::default(), false, HashSet::new());
        for change in changes {
            let mut to = match change.to.told_by() {
                Some(report) => change.to.clone().reported_by(first[report as usize]),
                None => change.to.clone(),
            };
            let Some(slot) = slot_of(&slots, change.number) else {
                noted.refused.push((change.number, None));
                continue;
            };
            if !touched.insert(change.number) || !slot.stage.may_become(to.stage()) {
                if slot.stage == to.stage() {
                    known = true;
                } else {
                    noted.refused.push((change.number, Some(slot.stage)));
                }
                continue;
            }
            slots[change.number as usize - 1] = Slot::of(&to);
            to.shorten(why_bytes);
            said.add(change.number, to);
        }
        let lines = said.lines(id, at_secs, ended, None);
        if !lines.is_empty() || known {
            self.append(&opened, id, &lines).map_err(Miss::Fault)?;
        }
        noted.tally = file::tally(&slots);
        self.remember_ended(id, &noted.tally);
        Ok(noted)
    }

    /// As [`note`](Queue::note), and the recipients go this way from now on, or as the settings say when it is empty. Their
    /// states may be those that they have. Who is neither waiting nor deferred nor held is refused.
    pub fn route(&self, id: &str, at_secs: i64, changes: &[Change], via: &str) -> Result<Noted, Miss> {
        if via.len() > VIA_BYTES {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a target is too long");
            return Err(Miss::Fault(Fault::new("writing", &self.path.join(id), error)));
        }
        let _lock = self.lock(id);
        let (opened, Told { mut slots, ended, .. }) = self.open_to_note(id, at_secs)?;
        let why_bytes = sum::why_bytes(opened.states_bytes());
        let (mut said, mut noted) = (Said::default(), Noted::default());
        for change in changes {
            let slot = slots.get_mut((change.number as usize).wrapping_sub(1));
            let (stage, next) = (slot.as_ref().map(|slot| slot.stage), change.to.stage());
            match (slot, stage) {
                (Some(slot), Some(stage)) if stage.may_be_routed() && (stage == next || stage.may_become(next)) => {
                    let mut to = change.to.clone();
                    *slot = Slot::of(&to);
                    to.shorten(why_bytes);
                    said.add(change.number, to);
                }
                _ => noted.refused.push((change.number, stage)),
            }
        }
        let lines = said.lines(id, at_secs, ended, Some(via));
        if !lines.is_empty() {
            self.append(&opened, id, &lines).map_err(Miss::Fault)?;
        }
        noted.tally = file::tally(&slots);
        Ok(noted)
    }

    fn remember_ended(&self, id: &str, tally: &Tally) {
        if tally.is_ended() {
            let mut ended = self.ended();
            if ended.len() < ENDED_MAX {
                ended.insert(id.to_owned());
            }
        }
    }

    /// Puts lines behind the states that are there, and all of them on disk.
    fn append(&self, opened: &Opened<D>, id: &str, lines: &[u8]) -> Result<(), Fault> {
        let (disk, path) = (&self.disk, self.places.path(opened.place).join(id));
        let mut at = opened.states.start;
        let mut piece = Vec::new();
        while at < opened.states.end {
            piece.resize((opened.states.end - at).min(PIECE_BYTES as u64) as usize, 0);
            let read = file::read(disk, &opened.file, &mut piece, at).map_err(Fault::at("reading", &path))?;
            if read < piece.len() {
                return Err(Fault::new("reading", &path, io::ErrorKind::UnexpectedEof.into()));
            }
            disk.write(&opened.file, &piece, at).map_err(Fault::at("writing", &path))?;
            at += piece.len() as u64;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let (offset, some) = disk.append(&opened.file, rest).map_err(Fault::at("writing", &path))?;
            if offset != at {
                let error = io::Error::other("another program writes to it");
                return Err(Fault::new("writing", &path, error));
            }
            at += some as u64;
            rest = &rest[some..];
        }
        disk.sync(&opened.file).map_err(Fault::at("syncing", &path))
    }

    /// For start, before [`each`](Queue::each) and before anything is served: settles the appends that were open when the last
    /// server ended, see [`delivery::recover`], and notes who was found to have his message, before their intents are closed. What
    /// cannot be noted now stays open and is in `waiting`.
    pub fn recover(&self, intents: &Intents<D>, like: &Place, at_secs: i64) -> Recovered {
        self.note_recovered(intents, at_secs, delivery::recover(intents, like))
    }

    /// Whether this recipient may be tried now. If an earlier try left its message in doubt, that is settled first: then it may
    /// turn out to be delivered, and is noted so. A fault: it is still in doubt, and is not to be tried yet. `place`: its drop, if it
    /// has one, see [`delivery::recover_for`].
    pub fn settle(
        &self,
        intents: &Intents<D>,
        place: &Place,
        id: &str,
        number: u32,
        at_secs: i64,
    ) -> Result<bool, Miss> {
        let queued = queued(id, number);
        if intents.holds(&queued) {
            let recovered = self.note_recovered(intents, at_secs, delivery::recover_for(intents, place, &queued));
            if intents.holds(&queued) {
                let doubt = match recovered.waiting.into_iter().next() {
                    Some((_, Refused::Fault(fault) | Refused::Unsafe(fault))) => fault,
                    Some((path, Refused::Locked | Refused::InUse)) => {
                        Fault::new("locking", &path, io::ErrorKind::WouldBlock.into())
                    }
                    None => Fault::new("settling", &self.places.path_of(id), io::ErrorKind::WouldBlock.into()),
                };
                return Err(Miss::Fault(doubt));
            }
        }
        let opened = self.opened(id, disk::How::Read)?;
        let slots = opened.told().map_err(|error| self.miss(id, error.into()))?.slots;
        Ok(slots.get((number as usize).wrapping_sub(1)).is_some_and(|slot| slot.stage.is_open()))
    }

    fn note_recovered(&self, intents: &Intents<D>, at_secs: i64, mut recovered: Recovered) -> Recovered {
        let found = std::mem::take(&mut recovered.delivered);
        for (intent, queued) in found {
            match self.note_found(at_secs, &queued) {
                Ok(()) => {
                    intents.close(intent);
                    recovered.delivered.push((intent, queued));
                }
                Err(fault) => recovered.waiting.push((fault.path.clone(), fault.into())),
            }
        }
        recovered
    }

    /// Those whom the intent log found to have their message have become delivered, on disk; then the intent may be closed. A
    /// message that has left the queue has nobody waiting.
    pub fn note_found(&self, at_secs: i64, found: &[Queued]) -> Result<(), Fault> {
        let mut rest: Vec<&Queued> = found.iter().collect();
        while let Some(first) = rest.first() {
            let id = first.id.clone();
            let (these, others): (Vec<&Queued>, Vec<&Queued>) = rest.into_iter().partition(|queued| queued.id == id);
            rest = others;
            let number = |queued: &&Queued| u32::try_from(decimal(queued.recipient.as_bytes())?).ok();
            let changes = match self.in_drops(&id, &these.iter().filter_map(number).collect::<Vec<u32>>()) {
                Ok(changes) => changes,
                Err(Miss::Gone | Miss::Damaged(_)) => continue,
                Err(Miss::Fault(fault)) => return Err(fault),
            };
            match self.note(&id, at_secs, &changes) {
                Ok(_) | Err(Miss::Gone) => {}
                // The operator has it, and nobody else.
                Err(Miss::Damaged(_)) => {}
                Err(Miss::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// What those become who have their message in their drops.
    fn in_drops(&self, id: &str, numbers: &[u32]) -> Result<Vec<Change>, Miss> {
        let (Some(&first), Some(&last)) = (numbers.iter().min(), numbers.iter().max()) else { return Ok(Vec::new()) };
        let rows = self.page(id, first, (last - first).saturating_add(1))?;
        let change = |row: Row| {
            let wanted = row.recipient.notify.is_some_and(|notify| notify.success);
            let succeeded = State::Succeeded { how: How::Delivered, why: String::new(), bounce: 0 };
            Change { number: row.number, to: if wanted { succeeded } else { State::Delivered } }
        };
        Ok(rows.into_iter().filter(|row| numbers.contains(&row.number)).map(change).collect())
    }

    /// The recipients of its origin that this report tells of are noted as told of, on disk: they have become bounced or delivered,
    /// or are warned of. To be called before the report is tried for the first time, also after a restart: then nobody is told
    /// twice. For what is no report, or one whose origin has left the queue, it is nothing.
    pub fn told(&self, report: &str, at_secs: i64) -> Result<(), Miss> {
        let Some((origin, number)) = self.opened(report, disk::How::Read)?.facts.envelope.bounce_of else {
            return Ok(());
        };
        let is_called = |kind: &Report| report_id(&origin, *kind, number) == report;
        let kind = Report::ALL.into_iter().find(is_called).unwrap_or(Report::Bounce);
        match self.restate(&origin, kind, at_secs, &[number], State::told) {
            Ok(()) | Err(Miss::Gone | Miss::Damaged(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Nobody is to be told of those who are to be told of by reports of these numbers: on disk, they are as if that had been done.
    pub fn hush(&self, id: &str, kind: Report, at_secs: i64, numbers: &[u32]) -> Result<(), Miss> {
        self.restate(id, kind, at_secs, numbers, State::told)
    }

    /// Those who are to be told of by reports of these numbers are told of by the one that has the first of them: on disk.
    pub fn tell_together(&self, id: &str, kind: Report, at_secs: i64, numbers: &[u32]) -> Result<(), Miss> {
        let [first, others @ ..] = numbers else { return Ok(()) };
        self.restate(id, kind, at_secs, others, |state| state.reported_by(*first))
    }

    /// Says something else of those who wait for a report of such a number.
    fn restate(
        &self,
        id: &str,
        kind: Report,
        at_secs: i64,
        numbers: &[u32],
        restated: impl Fn(State) -> State,
    ) -> Result<(), Miss> {
        let _lock = self.lock(id);
        let (opened, Told { mut slots, ended, .. }) = self.open_to_note(id, at_secs)?;
        let why_bytes = sum::why_bytes(opened.states_bytes());
        let is_meant = |slot: &Slot| slot.report() == Some(kind) && numbers.contains(&slot.bounce);
        let (mut said, mut from) = (Said::default(), 1);
        while let Some(skipped) = slots.get(from as usize - 1..).and_then(|rest| rest.iter().position(is_meant)) {
            let first = from + skipped as u32;
            let rows = opened.rows(first, RESTATED).map_err(|unread| self.miss(id, unread))?;
            from = first + RESTATED;
            for row in rows {
                let slot = &mut slots[row.number as usize - 1];
                if is_meant(slot) {
                    let mut state = restated(row.state);
                    *slot = Slot::of(&state);
                    state.shorten(why_bytes);
                    said.add(row.number, state);
                }
            }
        }
        // Also when there is nothing to be said: what was read here may not be on disk yet.
        self.append(&opened, id, &said.lines(id, at_secs, ended, None)).map_err(Miss::Fault)?;
        self.remember_ended(id, &file::tally(&slots));
        Ok(())
    }

    /// Takes a new message out of the queue if these changes leave nothing to be done for anybody, and says whether they do: then its
    /// name is gone, on disk; else nothing was written. One sync of the directory does for all who come and go meanwhile, where a
    /// [`note`](Queue::note) is a sync of its own, of a file that is removed next.
    pub fn finish(&self, id: &str, changes: &[Change]) -> Result<bool, Miss> {
        {
            let _lock = self.lock(id);
            let opened = self.opened(id, disk::How::Read)?;
            if opened.place != Lies::New {
                return Ok(false);
            }
            let mut slots = opened.told().map_err(|error| self.miss(id, error.into()))?.slots;
            for Change { number, to } in changes {
                match slots.get_mut((*number as usize).wrapping_sub(1)) {
                    Some(slot) if slot.stage.may_become(to.stage()) => *slot = Slot::of(to),
                    _ => return Ok(false),
                }
            }
            if !file::tally(&slots).is_ended() {
                return Ok(false);
            }
            let was_there = self.remove_name(id).map_err(Miss::Fault)?;
            self.count_more(-i64::from(was_there));
            self.ended().remove(id);
        }
        self.sync_names().map_err(Miss::Fault)?;
        Ok(true)
    }

    /// Takes a message out of the queue if all its recipients are final, and says whether they are.
    pub fn remove(&self, id: &str) -> Result<bool, Miss> {
        let _lock = self.lock(id);
        let opened = self.opened(id, disk::How::Write)?;
        let slots = opened.told().map_err(|error| self.miss(id, error.into()))?.slots;
        if !file::tally(&slots).is_ended() {
            return Ok(false);
        }
        if !self.ended().remove(id) {
            // A power cut may bring the name back, and must bring the states with it.
            self.append(&opened, id, &[]).map_err(Miss::Fault)?;
        }
        let was_there = self.remove_name(id).map_err(Miss::Fault)?;
        self.count_more(-i64::from(was_there));
        Ok(true)
    }

    /// Gives a file a name under which nobody tries it, for the operator to find: that name.
    pub fn set_aside(&self, id: &str) -> Result<PathBuf, Miss> {
        let _lock = self.lock(id);
        if !is_id(id.as_bytes()) {
            return Err(Miss::Gone);
        }
        let place = match self.places.whereabouts(id) {
            Ok(place) => place.ok_or(Miss::Gone)?,
            Err((place, error)) => return Err(Miss::Fault(self.fault_at("setting aside", place, id, error))),
        };
        let mut aside = PathBuf::from(format!("{id}{DAMAGED}"));
        loop {
            match self.places.carry(id, place, Lies::New, &aside) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    aside = PathBuf::from(format!("{id}{DAMAGED}-{:016x}", self.disk.random()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Miss::Gone),
                Err(error) => return Err(Miss::Fault(self.fault_at("setting aside", place, id, error))),
            }
        }
        self.count_more(-1);
        self.sync_names().map_err(Miss::Fault)?;
        Ok(self.path.join(aside))
    }

    /// Takes a message's name away; says whether there was one.
    fn remove_name(&self, id: &str) -> Result<bool, Fault> {
        let fault = |place, error| self.fault_at("removing", place, id, error);
        let Some(place) = self.places.whereabouts(id).map_err(|(place, error)| fault(place, error))? else {
            return Ok(false);
        };
        let removed = self.places.dir(place).and_then(|dir| match dir {
            Some(dir) => there(self.disk.remove(&dir, Path::new(id))),
            None => Ok(None),
        });
        Ok(removed.map_err(|error| fault(place, error))?.is_some())
    }

    fn fault_at(&self, doing: &'static str, place: Lies, id: &str, error: io::Error) -> Fault {
        Fault::new(doing, &self.places.path(place).join(id), error)
    }

    fn opened(&self, id: &str, how: disk::How) -> Result<Opened<D>, Miss> {
        if !is_id(id.as_bytes()) {
            return Err(Miss::Gone);
        }
        let damaged = |why: &'static str| self.miss(id, Unread::Damaged(why));
        let (place, file) = match self.places.open_file(id, how) {
            Ok(found) => found.ok_or(Miss::Gone)?,
            Err((place, error)) => {
                // Links, directories and sockets refuse to be opened, each in its own words.
                let seen = self.places.dir(place).ok().flatten();
                return Err(match seen.map(|dir| self.disk.look(&dir, Path::new(id))) {
                    Some(Ok(seen)) if !seen.is_file() => damaged("it is not a regular file"),
                    _ => Miss::Fault(self.fault_at("opening", place, id, error)),
                });
            }
        };
        let seen = self.disk.stat(&file).map_err(|error| self.miss(id, error.into()))?;
        if !seen.is_file() {
            return Err(damaged("it is not a regular file"));
        }
        if seen.uid != self.disk.uid() {
            return Err(damaged("it belongs to another user"));
        }
        Opened::new(&self.disk, (place, file), id, seen.size).map_err(|unread| self.miss(id, unread))
    }

    fn miss(&self, id: &str, unread: Unread) -> Miss {
        let path = self.places.path_of(id);
        match unread {
            Unread::Damaged(why) => {
                Miss::Damaged(Fault::new("reading", &path, io::Error::new(io::ErrorKind::InvalidData, why)))
            }
            Unread::Error(error) => Miss::Fault(Fault::new("reading", &path, error)),
        }
    }

    fn lock(&self, id: &str) -> MutexGuard<'_, ()> {
        let lock = &self.locks[lock_of(id)];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, HashSet<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of many is said once.
#[derive(Default)]
struct Said(Vec<(State, Vec<(u32, u32)>)>);

impl Said {
    fn add(&mut self, number: u32, state: State) {
        let Said(said) = self;
        let group = match said.iter().position(|(known, _)| *known == state) {
            Some(at) => at,
            None => {
                said.push((state, Vec::new()));
                said.len() - 1
            }
        };
        match said[group].1.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => said[group].1.push((number, number)),
        }
    }

    /// The lines, to be put behind states that end with a line's end, or do not.
    fn lines(&self, id: &str, at_secs: i64, ended: bool, via: Option<&str>) -> Vec<u8> {
        let mut lines = Vec::new();
        for (state, who) in &self.0 {
            for who in who.chunks(RUNS_MAX) {
                lines.extend(state::encode(id, who, at_secs, state, via));
            }
        }
        if !lines.is_empty() && !ended {
            lines.insert(0, b'\n');
        }
        lines
    }
}

/// Whose delivery a letter of the queue is, for [`Letter::queued`](super::delivery::Letter::queued).
pub fn queued(id: &str, number: u32) -> Queued {
    Queued { id: id.to_owned(), recipient: number.to_string() }
}
