//! What becomes of a message between DATA and its drops: the promise of a 250, kept.
//!
//! | file        | what it is                                                                              |
//! |-------------|-----------------------------------------------------------------------------------------|
//! | `body.rs`   | the text of a message in flight: memory under one bound, beyond it files                |
//! | `lanes.rs`  | letters on their way to drops: one job, one lock, one sync for those that wait together |
//! | `runner.rs` | the entry of the loop that has all this done, and waits with what cannot be done now    |
//! | `runner/shelf.rs` | what waits in the queue: which of it the table has, and how more is found               |
//! | `run.rs`    | one round of tries for a message of the queue                                           |
//! | `table.rs`  | when which message of the queue is due                                                  |
//! | `ways.rs`   | where a message goes, as the queue's files have it                                       |
//! | `orders.rs` | what operators can have done with messages of the queue                                 |
//!
//! | a message is | what is done                                                            | it leaves by                               |
//! |--------------|-------------------------------------------------------------------------|--------------------------------------------|
//! | Coming       | its text is taken: [`Body`]                                             | [`Transit::dispatch`]; its sender is gone  |
//! | Direct       | exactly one drop is to have it, for its own sender: a letter for that drop | in the drop: `Kept`; locked for long or failing: Filing; nobody knows: `Unknown` |
//! | Filing       | its queue file is written and synced                                    | Queued; it cannot be: `Refused`            |
//! | Queued       | each recipient who is due is tried, and his state written to the file   | none is left: the file goes                |
//!
//! A message in Direct or Filing does not notice that its sender is gone: what was begun has its effect, and nobody hears of
//! it. One in Queued is `Kept` when its first round of tries has ended, or [`ROUND`] after its file was synced; at once when it
//! comes from Direct, where the only try there is has just failed, and when it is to be held.
//!
//! **The promise.** `Kept` is said when the text is in a drop or in a queue file, synced; `Refused` when nothing of it is, or
//! ever will be; `Unknown`, whereupon the connection is closed without an answer, when that is not known. What goes to a drop on behalf of
//! the queue says so in its intent, so that after a crash who has his message is found and noted, and gets it once.
//!
//! **Repetitions.** What another server sends again because it did not hear our answer is known by its mark, and answered as it was
//! ([`repeats`](crate::store::repeats)): 250, and nothing is kept; 451 while the first is on its way to the disk. What has a mark waits
//! until the queue has been looked through once: it may have been on its way there when the last server was killed.
//!
//! **Circles.** Who has had a message by its `Delivered-To:` lines ([`passed`](crate::mail::passed)) does not get it again: if that
//! is all of its recipients it is `Refused`, else he fails.
//!
//! **Bounces.** Who cannot be delivered to, or not in time, is told to the sender by a message from nobody through the same
//! queue. What comes from nobody itself, or was sent with NOTIFY=NEVER, is dropped with a line in the log that has the id: mail
//! that bounces twice is answered to strangers' forgeries nearly always, and a postmaster who gets it all reads none of it.
//!
//! **Bounds.** Text in memory: `body_memory`, for the whole process. Messages in flight: one a connection, so the cap of
//! connections bounds them and the envelopes that they have; each has a job at a time, as any conversation has. Messages of the
//! queue that are tried at a time: [`RUNS`](runner::RUNS), with at most a page of recipients each in memory. Messages
//! that wait: about 80 bytes each for the first [`MOST`](table::MOST), nothing for the others.

pub mod body;
pub(super) mod lanes;
mod orders;
mod run;
pub mod runner;
mod table;
mod ways;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::{Destination, Stage, Way};
use super::summon::Summons;
use super::{Outcome, Shared, account};
use crate::mail::address::Address;
use crate::net::turn::Ticket;
use crate::protocol::smtp::params::{Recipient, Sender};
use crate::protocol::smtp::reply::{self, Reply};
use crate::rules::paused::Paused;
use crate::settings::Settings;
use crate::store::delivery::Intents;
use crate::store::disk::{Disk, RealDisk};
use crate::store::maildrop::Refused;
use crate::store::paused;
use crate::store::queue::Queue;
use crate::store::repeats::{Mark, Marking};
use crate::text::fault::Fault;
pub use body::{Body, Progress};
use body::{Budget, Waiting};
pub use orders::{Bulk, Deed, Obeyed, Order, change};
pub use runner::{Done, Runner};
pub use table::Table;
pub use ways::{hop as hop_of, sender as sender_of};

/// How long after its queue file was synced a sender waits, at the latest, for the first round of tries to end.
pub const ROUND: Duration = Duration::from_secs(5);
/// How long what was learned of free space is believed.
const SPACE_LIFE: Duration = Duration::from_secs(5);
/// Letters of an id: 60 random bits.
const ID_LETTERS: usize = 12;
/// Of which it is made: no two look alike.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A message whose text is whole.
pub struct Parcel {
    /// Its id in the queue and in every log line: [`Transit::new_id`], drawn when the message began.
    pub id: Box<str>,
    /// Who sent it.
    pub sender: Sender,
    /// Who is to have it: as the client named them, and what that came to.
    pub recipients: Vec<To>,
    /// Our whole Received field, folded lines with it, ended by LF.
    pub received: Box<[u8]>,
    /// How it came, for people: `ESMTPSA from mx.example.org [192.0.2.1] as ann`.
    pub came: Box<str>,
    /// When it came, in seconds since 1970.
    pub posted_secs: i64,
    /// It waits until an operator releases it: why, for people.
    pub hold: Option<Box<str>>,
    /// What it is known by if its sender sends it again; none: he may, and means it.
    pub mark: Option<Mark>,
    /// Its text.
    pub body: Body,
}

/// A recipient that was taken at RCPT.
pub struct To {
    /// As the client named it.
    pub recipient: Recipient,
    /// Where that leads; nowhere: it is thrown away.
    pub ways: Vec<Way>,
}

/// What becomes of a parcel, for whoever waits for it.
#[derive(Debug)]
pub enum Dispatched {
    /// It is kept for all its recipients: 250.
    Kept,
    /// It was kept when it came before, with this id, and is not kept again: 250.
    Before(Box<str>),
    /// Nothing of it is, nor will be: this for all of them.
    Refused(Reply),
    /// It is not known: the connection is to be closed without an answer.
    Unknown,
}

/// What has happened to messages since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were kept.
    pub accepted: u64,
    /// Messages of which nothing was.
    pub refused: u64,
    /// Messages of which nobody knows.
    pub unknown: u64,
    /// Messages that were kept when they came before.
    pub repeated: u64,
    /// Messages that got a queue file, bounces with them.
    pub queued: u64,
    /// Recipients who have theirs.
    pub delivered: u64,
    /// Tries on behalf of the queue that came to nothing yet.
    pub deferred: u64,
    /// Recipients who never will have theirs, and whose senders are told.
    pub failed: u64,
    /// Recipients who never will have theirs, and nobody is told.
    pub dropped: u64,
    /// Bytes of text of the accepted.
    pub bytes: u64,
    /// Jobs that synced: batches of letters, queue files, notes in these.
    pub syncs: u64,
}

/// Files that jobs need.
pub(super) struct Stores {
    intents: Intents,
    queue: Queue,
    /// The volume of work_path.
    volume: u64,
}

/// The way of messages to their drops, as conversations see it.
pub struct Transit {
    inbox: VecDeque<(Option<Ticket>, Parcel)>,
    orders: VecDeque<(Ticket, Order)>,
    /// Messages that have come into the queue in another way.
    arrived: VecDeque<String>,
    /// The queue has been looked through: what is in it is known.
    ready: bool,
    /// It was, or could not be, once: the marks in it are known.
    knows_marks: bool,
    /// Senders that wait for room.
    waiting: Waiting,
    budget: Arc<Budget>,
    stores: Arc<Stores>,
    /// When which message of the queue is due.
    table: Table,
    space: Space,
    /// Which sending an operator has paused.
    paused: Paused,
    /// How often that was changed, and who writes it down.
    pauses: u64,
    pen: Arc<paused::Pen>,
    /// What jobs that change many messages have to tell.
    bulk: Arc<Bulk>,
    /// Domains whose mail is being looked for.
    pub summons: Summons,
    /// What happened.
    pub counts: Counts,
    /// A moment in the past.
    begun: Instant,
}

/// What is known of free space.
#[derive(Default)]
struct Space {
    /// Volumes with less than `delivery_min_space`.
    short: Vec<u64>,
    /// When they were looked at.
    looked: Option<Instant>,
    /// Somebody asked since.
    asked: bool,
}

impl Transit {
    /// Opens what deliveries need, and puts in order what the last server left, before anything is served: what is torn
    /// leaves the drops, and the queue hears who has his message. Waits for the disk: at start. Refuses with a sentence.
    pub fn open(now: Instant, settings: &Settings, disk: &RealDisk) -> Result<Transit, String> {
        let work_path = &settings.work_path;
        let sentence = |refused: Refused| match refused {
            Refused::InUse | Refused::Locked => format!("{}: another server delivers from here", work_path.display()),
            Refused::Unsafe(fault) | Refused::Fault(fault) => format!("{fault}; work_path must be ours to write to"),
        };
        let intents = Intents::open_on(disk, work_path).map_err(sentence)?;
        if let Err(fault) = intents.tidy() {
            log::error!("{fault}: no mail is delivered before there is space");
        }
        let queue = Queue::open_on(disk, work_path).map_err(sentence)?;
        let volume = fs::metadata(work_path).map_err(|error| format!("{}: {error}", work_path.display()))?.dev();
        let most = usize::try_from(settings.body_memory * 1024).unwrap_or(usize::MAX);
        let budget = Budget::open(work_path, volume, most).map_err(|fault| sentence(fault.into()))?;
        heal(&intents, &queue, settings, disk);
        let (paused, fault) = paused::read(disk, work_path);
        if let Some(fault) = fault {
            log::error!("{fault}: all sending is paused until `tellsmtp resume`");
        } else if !paused.is_nothing() {
            log::warn!(
                "sending is paused, by an operator: `tellsmtp showsend` says which, `tellsmtp resume` takes it back"
            );
        }
        let transit = Transit {
            inbox: VecDeque::new(),
            orders: VecDeque::new(),
            arrived: VecDeque::new(),
            ready: false,
            knows_marks: false,
            waiting: Waiting::default(),
            budget: Arc::new(budget),
            stores: Arc::new(Stores { intents, queue, volume }),
            table: Table::default(),
            space: Space::default(),
            paused,
            pauses: 0,
            pen: Arc::default(),
            bulk: Arc::default(),
            summons: Summons::default(),
            counts: Counts::default(),
            begun: now,
        };
        transit.tell_of_marks();
        Ok(transit)
    }

    /// An empty text, for a message that begins.
    pub fn body(&self) -> Body {
        Body::new(self.budget.clone())
    }

    /// An id for a message that begins: letters and digits that nobody can guess and that do not come twice.
    pub fn new_id(&self) -> Box<str> {
        let random = RealDisk::default().random();
        (0..ID_LETTERS).map(|at| LETTERS[(random >> (5 * at)) as usize % 32] as char).collect()
    }

    /// A mark in the making, for a text that begins.
    pub fn marking(&self) -> Marking {
        self.stores.intents.repeats().marking()
    }

    /// The sender of the message with this mark knows that it is kept.
    pub fn heard(&self, mark: &Mark) {
        self.stores.intents.repeats().heard(mark);
    }

    /// Messages whose senders may not know that they are kept.
    pub fn unheard(&self) -> usize {
        self.stores.intents.repeats().len()
    }

    /// Takes a message over. What becomes of it comes as `Outcome::Dispatched` with this ticket.
    pub fn dispatch(&mut self, ticket: Ticket, parcel: Parcel) {
        self.inbox.push_back((Some(ticket), parcel));
    }

    /// Sends a text of ours, of a few lines, from nobody. Nobody waits for what becomes of it.
    pub fn tell(&mut self, id: Box<str>, to: Address, text: &[u8], posted_secs: i64) {
        let recipient = Recipient { path: to.clone(), notify: None, orcpt: None };
        let parcel = Parcel {
            id,
            sender: Sender::default(),
            recipients: vec![To { recipient, ways: vec![Way::to(Destination::Local(to, Stage::Whole))] }],
            received: Box::default(),
            came: "from this server".into(),
            posted_secs,
            hold: None,
            mark: None,
            body: Body::of(self.budget.clone(), text),
        };
        self.inbox.push_back((None, parcel));
    }

    /// Has something done with a message of the queue. What came of it comes as `Outcome::Told` with this ticket.
    pub fn order(&mut self, ticket: Ticket, order: Order) {
        self.orders.push_back((ticket, order));
    }

    /// Whom a job tells that changes many messages.
    pub fn bulk(&self) -> Arc<Bulk> {
        self.bulk.clone()
    }

    /// The server stops: jobs that would go on for long end.
    pub fn stop(&self) {
        self.bulk.stop();
    }

    /// A message has come into the queue in another way, and may be tried from now on.
    pub fn arrive(&mut self, id: &str) {
        self.arrived.push_back(id.to_owned());
    }

    /// Whether the queue has been looked through. What comes into it before that may be found there, and tried at once.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Messages of the queue: when each is due.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How many messages the queue has; before they were counted, how many of them are known.
    pub fn waiting(&self) -> u64 {
        self.stores.queue.count().unwrap_or(self.table.len() as u64)
    }

    /// The queue's files, to be read by jobs.
    pub fn queue(&self) -> impl std::ops::Deref<Target = Queue> + Send + use<> {
        QueueOf(self.stores.clone())
    }

    /// The volume that the queue lies on.
    pub fn volume(&self) -> u64 {
        self.stores.volume
    }

    /// Bytes of text in memory.
    pub fn held(&self) -> usize {
        self.budget.held()
    }

    /// Appends that are not settled in the log of intents.
    pub fn open_intents(&self) -> usize {
        self.stores.intents.len()
    }

    /// Less than `delivery_min_space` is free where drops or work files lie, as far as that was looked at within
    /// the last seconds in which somebody asked: no new message is to begin (452 4.3.1).
    pub fn is_short(&mut self) -> bool {
        self.space.asked = true;
        !self.space.short.is_empty()
    }

    /// Which sending an operator has paused.
    pub fn paused(&self) -> &Paused {
        &self.paused
    }

    /// It is changed: what writes that down, in a job.
    pub fn set_paused(
        &mut self,
        paused: Paused,
        settings: &Settings,
    ) -> impl FnOnce() -> Result<(), Fault> + Send + use<> {
        self.paused = paused.clone();
        self.pauses += 1;
        let (pen, number, work_path) = (self.pen.clone(), self.pauses, settings.work_path.clone());
        move || pen.write(&RealDisk::default(), &work_path, number, &paused)
    }

    /// Somebody should look after the file of marks.
    fn tell_of_marks(&self) {
        if let Some(fault) = self.stores.intents.repeats().fault() {
            log::warn!("{fault}: after a crash a message whose sender did not hear an answer may come twice");
        }
    }

    /// A new runner loads the queue anew.
    pub fn forget(&mut self) {
        self.table = Table::with(self.table.most());
        self.ready = false;
        self.stores.intents.repeats().release_all();
    }

    /// Whether the runner has something to do.
    pub fn calls(&self, now: Instant) -> bool {
        let has_orders = !self.orders.is_empty() || self.bulk.has_news();
        !self.inbox.is_empty() || !self.arrived.is_empty() || has_orders || self.space.is_due(now)
    }

    /// When somebody can go on who waits: at once, or nobody.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.is_due(&self.budget).then_some(self.begun)
    }
}

impl Space {
    fn is_due(&self, now: Instant) -> bool {
        self.asked && self.looked.is_none_or(|looked| looked + SPACE_LIFE <= now)
    }
}

impl Shared {
    /// Senders of text that were held for want of room go on when there is some.
    pub fn call_senders(&mut self) {
        let Transit { waiting, budget, .. } = &mut self.transit;
        if waiting.is_due(budget) {
            self.post.extend(waiting.call(budget).map(|ticket| (ticket, Outcome::Body(Progress::Room))));
        }
    }
}

struct QueueOf(Arc<Stores>);

impl std::ops::Deref for QueueOf {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0.queue
    }
}

/// What the last server left.
fn heal(intents: &Intents, queue: &Queue, settings: &Settings, disk: &RealDisk) {
    let recovered = queue.recover(intents, &account::place_of(PathBuf::new(), settings), disk.now() / 1_000_000_000);
    if recovered.settled > 0 {
        log::info!("{} deliveries that the last server had begun are settled", recovered.settled);
    }
    for (path, refused) in recovered.waiting {
        log::warn!("{}: a delivery that the last server had begun waits to be settled: {refused}", path.display());
    }
}

/// What a sender hears of a fault of our disks.
fn answer_to(fault: &Fault) -> Reply {
    match fault.source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => reply::NO_SPACE.clone(),
        _ => reply::UNAVAILABLE.clone(),
    }
}

#[cfg(test)]
mod tests;
