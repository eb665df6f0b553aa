//! The entry of the loop that has messages brought to their drops: it takes what was dispatched, has jobs work on files, tries
//! what the queue says is due, and tells conversations what came of theirs.
//!
//! | a ticket is about | it was given to                                         | and then                          |
//! |-------------------|---------------------------------------------------------|-----------------------------------|
//! | Load              | a job that looks through what is new in the queue       | messages wait in the table        |
//! | Seek              | a job that looks through the hours that have begun      | more of them wait there           |
//! | Count             | a job that counts all messages                          | their number is known             |
//! | LetGo             | a job that puts into an hour whom the table has put out | nothing                           |
//! | Flush             | a job that writes the end of a text                     | the message goes on               |
//! | Carry             | a job that brings batches of letters into their drops   | each letter's sender is told      |
//! | File              | a job that writes a queue file                          | `run.rs`: its first round         |
//! | Read, Route, Robot, Send, HandOn, Note | see `run.rs`                 |                                   |
//! | Obey              | a job that does what an operator wants                  | he is told, the table follows     |
//! | Look              | a job that asks how much is free on a volume            | new messages begin, or do not     |
//! | Tidy              | a job that empties the log of intents                   | nothing                           |
//!
//! Nothing is written into the queue, and nothing of it tried, before what is new there has been looked through: what a killed server was
//! writing goes then. The hours that have begun are looked through behind that, and again whenever the table runs low: see `table.rs`. Messages that need the queue wait for that, or are refused when it fails; others do not. Should a
//! fault of ours end this entry, the server makes another, which loads the queue again: what was under way then had its
//! effect or has it with the next try, and who waited for an answer gets none. A message that brings every runner down must
//! not keep the others from their drops: those that were being tried are passed over for [`PASS`], and each end that follows soon
//! upon the last doubles the time before the queue is tried again, up to [`PAUSE_MOST`].

mod shelf;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::body::{Body, Closed, Text};
use super::lanes::{Carried, Ended, Fate, Filled, Key, Lanes, Letter, Message, Spot};
use super::orders::Obeyed;
use super::run::{Came, Found, Part, Run, Wound};
use super::{Dispatched, Parcel, Progress, SPACE_LIFE, Stores, To, answer_to, ways};
use crate::control::Report;
use crate::mail::address;
use crate::mail::notice::{Filling, Notice};
use crate::mail::passed::Passed;
use crate::net::Slab;
use crate::net::jobs::{Busy, Kind, Pulse};
use crate::net::stream::Turn;
use crate::net::turn::{Id, Ticket};
use crate::protocol::helper::Account;
use crate::protocol::smtp::reply;
use crate::rules::domains::Name;
use crate::rules::retry::Place;
use crate::rules::traffic::Class;
use crate::service::route::{self, Destination, Routing, Stage, Way};
use crate::service::{Outcome, Shared, account};
use crate::store::delivery::Failed;
use crate::store::disk::{Disk, RealDisk};
use crate::store::maildrop::Refused;
use crate::store::queue::{self, Change, Envelope, Made, Miss, Recipient, Soonest, State};
use crate::store::repeats::Claim;
use crate::text::fault::Fault;
use crate::text::printable::printable;

/// Messages of the queue that are tried at a time. Each has one job at a time beside those of its letters.
pub const RUNS: usize = 16;
/// How long what failed by a fault of our own disks waits, apart from the schedule.
const AGAIN_SECS: i64 = 60;
/// How long messages of the queue are left alone that were being tried when a fault of ours ended the runner.
pub(super) const PASS: Duration = Duration::from_secs(600);
/// How long the queue waits after the first such end, and at most after the next.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(64);
/// Nobody waits longer than that, or than queue_life: who seems to was noted before the clock was put back.
const REACH_SECS: u64 = 8 * 86_400;
/// A clock that was put back by less than that is only being set right.
const CLOCK_SECS: i64 = 10;
/// How long the log of intents may grow before it is emptied in a quiet moment.
const TIDY: Duration = Duration::from_secs(10);

/// What a ticket of ours is about.
pub(super) enum Doing {
    Load,
    Seek,
    Count,
    LetGo,
    Flush(usize),
    /// These drops, of that volume.
    Carry(u64, Vec<PathBuf>),
    File(usize),
    Read(usize),
    Route(usize, usize, Box<Routing>),
    Robot(usize, usize),
    /// So many recipients that senders have.
    Send(usize, usize),
    /// The message that goes on in its place.
    HandOn(usize, usize, String),
    Note(usize),
    Obey(Ticket, Box<str>),
    Look,
    Tidy,
}

/// What a job of ours gives back.
pub struct Done(pub(super) Finished);

/// See [`Doing`].
pub(super) enum Finished {
    Loaded(Result<Vec<(String, i64)>, Fault>),
    Sought(Result<Soonest, Fault>),
    /// How many there are, and whether some were found that had been forgotten.
    Counted(Result<(u64, bool), Fault>),
    /// Those of whom that failed.
    LetGo(Vec<queue::Id>),
    Carried(Vec<Carried>),
    Filed(Result<Made, Failed>),
    Read(Vec<String>, Result<Box<Found>, Miss>),
    Noted(Result<Wound, Miss>),
    Obeyed(Result<Obeyed, String>),
    Looked(u64, bool),
    Tidied(Result<(), Fault>),
}

/// A message that was dispatched and is nowhere but here.
struct Pending {
    /// Who waits for what becomes of it.
    ticket: Option<Ticket>,
    id: Box<str>,
    envelope: Arc<Envelope>,
    recipients: Vec<Recipient>,
    to: Vec<Way>,
    hold: Option<Box<str>>,
    /// While its end is being written.
    body: Option<Body>,
    /// Until it is whole: who has had it already.
    passed: Passed,
    /// Once it is whole.
    message: Option<Arc<Message>>,
    /// Why its only drop did not take it.
    why: Option<String>,
}

/// What the time is, in seconds since 1970.
enum Clock {
    Wall,
    #[cfg(test)]
    Test(Instant, i64),
}

impl Clock {
    fn secs(&self, _now: Instant) -> i64 {
        match self {
            Clock::Wall => {
                let past = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                past.map_or(0, |past| i64::try_from(past.as_secs()).unwrap_or(i64::MAX))
            }
            #[cfg(test)]
            Clock::Test(then, secs) => secs + _now.saturating_duration_since(*then).as_secs() as i64,
        }
    }
}

/// See the page.
pub struct Runner {
    clock: Clock,
    /// Tickets so far.
    serial: u32,
    pub(super) doing: HashMap<u32, Doing>,
    pending: Slab<Pending>,
    pub(super) runs: Slab<Run>,
    /// How many of them the table gave us.
    pub(super) tried: usize,
    pub(super) lanes: Lanes,
    /// Those whose senders wait, the first first.
    pub(super) answers: VecDeque<(Instant, usize, Ticket)>,
    /// Runs of which something could not be written down, the first first, and when that is tried again.
    pub(super) owed: VecDeque<(Instant, usize)>,
    loading: Loading,
    /// Messages that need the queue, before it has been looked through.
    unfiled: Vec<usize>,
    /// Messages that may have come before, before that has been done once.
    unclaimed: Vec<usize>,
    tidy: Option<Instant>,
    due: Option<Instant>,
    begun: Instant,
    /// The pause before it, if a fault of ours ended another before this one.
    pause: Option<Duration>,
    /// Messages of the queue that are passed over until then.
    passed_over: Vec<(Box<str>, Instant)>,
    /// More of the queue is not looked for before that.
    seek_from: Instant,
    /// The clock was put back: what waits until then is due as soon as somebody looks for more.
    horizon: Option<i64>,
    /// Whom the table has put out. Who of them is new is to be put into an hour, or nobody finds him.
    out: Vec<queue::Id>,
    /// When that is done; `None`: it is being done.
    out_from: Option<Instant>,
    /// All of the table are among them: before they lie where they are found nobody looks for more.
    emptied: bool,
    /// What the clock said last.
    told_secs: i64,
}

#[derive(PartialEq, Eq)]
enum Loading {
    /// Not before that.
    From(Instant),
    Asked,
    Done,
}

impl Runner {
    /// A runner that knows of no message yet.
    pub fn new(now: Instant) -> Runner {
        Runner::with(now, Clock::Wall)
    }

    /// One whose clock says `secs` now, and goes with the instants that it is given.
    #[cfg(test)]
    pub(super) fn at(now: Instant, secs: i64) -> Runner {
        Runner::with(now, Clock::Test(now, secs))
    }

    /// Its clock is set.
    #[cfg(test)]
    pub(super) fn set(&mut self, now: Instant, secs: i64) {
        self.clock = Clock::Test(now, secs);
    }

    /// Whom an authenticator is asked about.
    #[cfg(test)]
    pub(super) fn user_of(&self, doing: &Doing) -> String {
        let Doing::Route(_, _, routing) = doing else { return String::new() };
        routing.asked_about()
    }

    fn with(now: Instant, clock: Clock) -> Runner {
        Runner {
            clock,
            serial: 0,
            doing: HashMap::new(),
            pending: Slab::new(),
            runs: Slab::new(),
            tried: 0,
            lanes: Lanes::default(),
            answers: VecDeque::new(),
            owed: VecDeque::new(),
            loading: Loading::From(now),
            unfiled: Vec::new(),
            unclaimed: Vec::new(),
            tidy: None,
            due: None,
            begun: now,
            pause: None,
            passed_over: Vec::new(),
            seek_from: now,
            horizon: None,
            out: Vec::new(),
            out_from: Some(now),
            emptied: false,
            told_secs: i64::MIN,
        }
    }

    /// The next, when a fault of ours has ended this one.
    pub fn again(self, now: Instant) -> Runner {
        let soon = now.saturating_duration_since(self.begun) < PASS;
        let pause = self.pause.filter(|_| soon).map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MOST));
        let mut passed_over = self.passed_over;
        passed_over.retain(|(_, until)| *until > now);
        for (_, run) in &self.runs {
            log::warn!("delivery {}: passed over for {} s, for a fault of ours", run.id(), PASS.as_secs());
            passed_over.push((run.id().into(), now + PASS));
        }
        let loading = Loading::From(now + pause);
        Runner { loading, due: Some(now + pause), pause: Some(pause), passed_over, ..Runner::with(now, self.clock) }
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared) -> Turn {
        self.desk(id, now, shared).turn();
        Turn::Idle
    }

    /// What came of something. False: it came too late, and nobody waits for it.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        let Some(doing) = self.doing.remove(&ticket.serial) else { return false };
        self.desk(ticket.id, now, shared).told(ticket, doing, outcome);
        true
    }

    /// When it wants a [`turn`](Runner::turn).
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether nothing is under way that a stop should wait for.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.runs.is_empty()
    }

    fn desk<'a>(&'a mut self, id: Id, now: Instant, shared: &'a mut Shared) -> Desk<'a> {
        let secs = self.clock.secs(now);
        Desk { runner: self, shared, id, now, secs }
    }
}

/// The runner at work.
pub(super) struct Desk<'a> {
    pub(super) runner: &'a mut Runner,
    pub(super) shared: &'a mut Shared,
    id: Id,
    pub(super) now: Instant,
    /// The same in seconds since 1970.
    pub(super) secs: i64,
}

impl Desk<'_> {
    fn turn(&mut self) {
        if self.secs.saturating_add(CLOCK_SECS) < self.runner.told_secs {
            log::warn!("the clock was put back: what waits in the queue waits no longer than retry_schedule says");
            let (rules, secs, told) = (self.shared.settings.retry_rules(), self.secs, self.runner.told_secs);
            self.shared.transit.table.put_back(|due| rules.bounded(Place::Here, due, secs));
            let latest = [Place::Here, Place::Elsewhere].map(|place| rules.bounded(place, i64::MAX, told));
            self.runner.horizon = self.runner.horizon.max(latest.into_iter().max());
        }
        self.runner.told_secs = self.secs;
        if matches!(self.runner.loading, Loading::From(at) if at <= self.now) {
            self.load();
        }
        while let Some((ticket, parcel)) = self.shared.transit.inbox.pop_front() {
            self.begin(ticket, parcel);
        }
        while let Some(id) = self.shared.transit.arrived.pop_front() {
            self.keep(&id, self.secs);
        }
        while let Some((ticket, order)) = self.shared.transit.orders.pop_front() {
            self.obey(ticket, order);
        }
        self.hear_changes();
        for key in self.runner.lanes.overdue(self.now) {
            self.fate(key, Fate::Deferred("4.3.0 the disks are too busy".to_owned()));
        }
        self.answer_round();
        self.write_owed();
        self.try_due();
        self.seek();
        self.let_go();
        self.carry();
        self.look();
        self.tidy();
        self.runner.due = self.due();
    }

    fn due(&self) -> Option<Instant> {
        let load = match self.runner.loading {
            Loading::From(at) => Some(at),
            _ => None,
        };
        let transit = &self.shared.transit;
        let at = |secs: i64| self.now + Duration::from_secs(u64::try_from(secs.saturating_sub(self.secs)).unwrap_or(0));
        let next = transit.table.first_due().filter(|_| self.may_try()).map(at);
        let more = transit.table.more_secs().filter(|_| self.may_seek()).map(at);
        let more = more.map(|more| more.max(self.runner.seek_from));
        let out = self.runner.out_from.filter(|_| !self.runner.out.is_empty());
        let look = transit.space.looked.filter(|_| transit.space.asked).map(|looked| looked + SPACE_LIFE);
        let answer = self.runner.answers.front().map(|(at, ..)| *at);
        let owed = self.runner.owed.front().map(|(at, _)| *at);
        [load, next, more, out, look, answer, owed, self.runner.lanes.deadline(), self.runner.tidy]
            .into_iter()
            .flatten()
            .min()
    }

    /// A ticket for what is asked elsewhere.
    pub(super) fn ticket(&mut self, doing: Doing) -> Ticket {
        let ticket = self.ticket_for_routing();
        self.expect(ticket, doing);
        ticket
    }

    /// A ticket whose purpose is not known yet: see [`expect`](Desk::expect).
    pub(super) fn ticket_for_routing(&mut self) -> Ticket {
        self.runner.serial = self.runner.serial.wrapping_add(1);
        Ticket { id: self.id, serial: self.runner.serial }
    }

    pub(super) fn expect(&mut self, ticket: Ticket, doing: Doing) {
        self.runner.doing.insert(ticket.serial, doing);
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.runner.doing.remove(&ticket.serial);
    }

    /// Has a job do something.
    pub(super) fn job(
        &mut self,
        doing: Doing,
        kind: Kind,
        volume: u64,
        work: impl FnOnce(&Stores, &Pulse) -> Finished + Send + 'static,
    ) -> Result<(), Busy> {
        let ticket = self.ticket(doing);
        let stores = self.shared.transit.stores.clone();
        let work = move |pulse: &Pulse| Outcome::Transit(Box::new(Done(work(&stores, pulse))));
        let taken = self.shared.jobs.submit(Some(ticket), kind, volume, work);
        if taken.is_err() {
            self.runner.doing.remove(&ticket.serial);
        }
        taken
    }

    fn told(&mut self, ticket: Ticket, doing: Doing, outcome: Outcome) {
        let (doing, finished) = match (doing, outcome) {
            (Doing::Send(run, left), Outcome::Sent(sent)) => return self.sent(ticket, run, left, *sent),
            (Doing::Route(run, part, routing), outcome) => return self.routed(run, part, routing, outcome),
            (Doing::Robot(run, part), Outcome::Robot(verdict)) => return self.attended(run, part, verdict),
            (Doing::Flush(pending), Outcome::Body(progress)) => return self.flushed(pending, Some(progress)),
            (doing, Outcome::Transit(done)) => (doing, Some(done.0)),
            (doing, _) => (doing, None),
        };
        match (doing, finished) {
            (Doing::Load, Some(Finished::Loaded(result))) => self.loaded(result),
            (Doing::Load, _) => self.loaded(Err(lost("reading the queue"))),
            (Doing::Seek, Some(Finished::Sought(result))) => self.sought(result),
            (Doing::Seek, _) => self.sought(Err(lost("reading the queue"))),
            (Doing::Count, Some(Finished::Counted(Ok((count, are_forgotten))))) => {
                log::debug!("{count} messages are in the queue");
                if are_forgotten {
                    self.shared.transit.table.look_again();
                }
            }
            (Doing::Count, Some(Finished::Counted(Err(fault)))) => log::error!("the queue cannot be counted: {fault}"),
            (Doing::LetGo, Some(Finished::LetGo(failed))) => {
                self.runner.out_from = Some(if failed.is_empty() { self.now } else { self.now + SPACE_LIFE });
                self.runner.emptied &= !self.runner.out.is_empty();
                self.runner.out.extend(failed);
            }
            (Doing::LetGo, _) => self.runner.out_from = Some(self.now),
            (Doing::Flush(pending), _) => self.flushed(pending, None),
            (Doing::Carry(volume, drops), Some(Finished::Carried(carried))) => {
                self.carried(volume, drops, Ended::Carried(carried));
            }
            (Doing::Carry(volume, drops), _) => self.carried(volume, drops, Ended::Lost),
            (Doing::File(pending), Some(Finished::Filed(result))) => self.filed(pending, result),
            (Doing::File(pending), _) => self.filed(pending, Err(Failed::Unknown(lost("writing the queue")))),
            (Doing::Read(run), Some(Finished::Read(bounces, result))) => self.read(run, &bounces, result),
            (Doing::Read(run), _) => self.read(run, &[], Err(Miss::Fault(lost("reading the queue")))),
            (Doing::Note(run), Some(Finished::Noted(result))) => self.noted(run, result),
            (Doing::Note(run), _) => self.noted(run, Err(Miss::Fault(lost("writing the queue")))),
            // It takes any outcome: see above.
            (Doing::Route(..), _) => {}
            // It is told nothing else.
            (Doing::Send(..), _) => {}
            (Doing::Robot(run, part), _) => {
                self.settle(run, part, Came::Later("4.3.0 the program was lost".to_owned()))
            }
            (Doing::HandOn(run, part, id), Some(Finished::Filed(result))) => self.handed_on(run, part, &id, result),
            (Doing::HandOn(run, part, id), _) => {
                self.handed_on(run, part, &id, Err(Failed::Unknown(lost("writing the queue"))));
            }
            (Doing::Obey(ticket, id), Some(Finished::Obeyed(result))) => self.obeyed(ticket, &id, result),
            (Doing::Obey(ticket, _), _) => self.shared.post.push_back((ticket, Outcome::Lost)),
            (Doing::Look, Some(Finished::Looked(volume, is_short))) => self.looked(volume, is_short),
            (Doing::Tidy, Some(Finished::Tidied(Err(fault)))) => log::warn!("delivery: {fault}"),
            (Doing::Look | Doing::Tidy | Doing::Count, _) => {}
        }
    }

    /// A message comes.
    fn begin(&mut self, ticket: Option<Ticket>, parcel: Parcel) {
        let settings = self.shared.settings.clone();
        let Parcel { id, sender, recipients, received, came, posted_secs, hold, mark, mut body } = parcel;
        let from = sender.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let (mut flat, mut to, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for To { recipient: named, mut ways } in recipients {
            // That it was expanded is a success of its own: the queue does that, step by step.
            let is_told = settings.success_reports && named.notify.is_some_and(|notify| notify.success);
            if is_told && !from.is_empty() && ways::expand(&ways) && named.path.place != address::Place::Here {
                ways = vec![Way::to(Destination::Local(named.path.clone(), Stage::Whole))];
            }
            for way in ways {
                let recipient = ways::recipient(&way, &from, &named, &settings);
                // Who is reached in two ways gets one.
                if seen.insert((recipient.kind, recipient.address.clone(), recipient.with.clone())) {
                    flat.push(recipient);
                    to.push(way);
                }
            }
        }
        let envelope = Envelope {
            sender: from,
            received_secs: posted_secs,
            came: came.into(),
            received: received.into(),
            ret: sender.ret,
            envid: sender.envid.map(Into::into),
            eight_bit: sender.eight_bit,
            utf8: sender.utf8,
            bounce_of: None,
            mark,
        };
        let envelope = Arc::new(envelope);
        let passed = body.take_passed();
        let pending =
            Pending { ticket, id, envelope, recipients: flat, to, hold, passed, body: None, message: None, why: None };
        let pending = self.runner.pending.insert(pending);
        self.close(pending, body);
    }

    /// Its text is whole, or will be.
    fn close(&mut self, at: usize, body: Body) {
        match body.close() {
            Closed::Whole(text) => self.go(at, text),
            Closed::Open(mut body) => {
                let ticket = self.ticket(Doing::Flush(at));
                match body.flush(ticket, self.shared) {
                    Ok(()) => self.runner.pending[at].body = Some(body),
                    Err(_) => {
                        self.runner.doing.remove(&ticket.serial);
                        self.answer(at, Dispatched::Refused(reply::UNAVAILABLE.clone()));
                    }
                }
            }
            Closed::Failed(fault) => self.refuse(at, &fault),
        }
    }

    fn flushed(&mut self, at: usize, progress: Option<Progress>) {
        if let Some(mut body) = self.runner.pending.get_mut(at).and_then(|pending| pending.body.take()) {
            match progress {
                Some(progress) => body.told(progress),
                None => body.lost(),
            }
            self.close(at, body);
        }
    }

    /// The first step of a message whose text is whole.
    fn go(&mut self, at: usize, text: Text) {
        let pending = &mut self.runner.pending[at];
        let message = Arc::new(Message {
            id: pending.id.clone(),
            sender: pending.envelope.sender.as_str().into(),
            received: pending.envelope.received.as_slice().into(),
            posted_secs: pending.envelope.received_secs,
            text,
            passed: std::mem::take(&mut pending.passed),
            mark: pending.envelope.mark,
        });
        pending.message = Some(message);
        match pending.envelope.mark {
            Some(_) if !self.shared.transit.knows_marks => self.runner.unclaimed.push(at),
            Some(_) => self.claim(at),
            None => self.set_out(at),
        }
    }

    /// It goes on unless it came before.
    fn claim(&mut self, at: usize) {
        let marked = self.runner.pending[at].message.as_ref().and_then(|message| message.marked());
        let Some(marked) = marked else { return };
        match self.shared.transit.stores.intents.repeats().claim(&marked) {
            Claim::New => self.set_out(at),
            Claim::Taken(id) => {
                log::info!("delivery {}: the same is just being taken, as {id}", marked.id);
                self.answer(at, Dispatched::Refused(reply::UNDER_WAY.clone()));
            }
            Claim::Before(id) => self.came_before(at, id),
        }
    }

    /// Its sender did not hear that it was kept, and hears it now.
    fn came_before(&mut self, at: usize, id: Box<str>) {
        log::info!("delivery {}: it came before, as {id}, whose sender did not hear that", self.runner.pending[at].id);
        self.answer(at, Dispatched::Before(id));
    }

    /// It is on its way.
    fn set_out(&mut self, at: usize) {
        let pending = &mut self.runner.pending[at];
        let Some(message) = pending.message.clone() else { return };
        if !pending.to.is_empty() && pending.recipients.iter().all(|recipient| message.has_passed(recipient)) {
            return self.answer(at, Dispatched::Refused(reply::AGAIN.clone()));
        }
        let pending = &mut self.runner.pending[at];
        match (&pending.to[..], &pending.hold) {
            // All its recipients threw it away.
            ([], _) => self.answer(at, Dispatched::Kept),
            ([way @ Way { to: Destination::Mailbox(..), .. }], _) if way.lacks_room_for(message.octets()) => {
                let full = route::full(&self.shared.settings);
                self.answer(at, Dispatched::Refused(full));
            }
            ([Way { to: Destination::Mailbox(name, account), .. }], None)
                if !ways::wants_receipt(&pending.recipients[0], &pending.envelope, &self.shared.settings) =>
            {
                let to = &pending.recipients[0];
                let (sender, recipient) =
                    (to.with.first().map(|sender| sender.as_str().into()), to.address.as_str().into());
                match spot(name, account, self.shared) {
                    Ok(spot) => {
                        let letter = Letter { key: Key::Direct(at), message, sender, recipient, queued: None };
                        self.runner.lanes.add(self.now, spot, letter);
                    }
                    Err(why) => {
                        log::error!("delivery {}: {why}", message.id);
                        pending.why = Some("4.3.0 the mailbox cannot be found".to_owned());
                        self.file(at);
                    }
                }
            }
            _ => self.file(at),
        }
    }

    /// Writes its queue file.
    fn file(&mut self, at: usize) {
        if self.runner.loading != Loading::Done {
            return self.runner.unfiled.push(at);
        }
        let pending = &mut self.runner.pending[at];
        let Some(message) = pending.message.clone() else { return };
        let (envelope, recipients, hold) = (pending.envelope.clone(), pending.recipients.clone(), pending.hold.clone());
        let (volume, secs) = (self.shared.transit.stores.volume, self.secs);
        let taken = self.job(Doing::File(at), Kind::Sync, volume, move |stores, _| {
            let made = stores.queue.create(&message.id, &envelope, &recipients, &message.text.body());
            // Before it is tried: from then on nobody looks for it in the file.
            if let (Ok(Made::New), Some(marked)) = (&made, message.marked()) {
                stores.intents.repeats().keep(&marked);
            }
            Finished::Filed(match (made, hold) {
                (Ok(Made::New), Some(why)) => hold_back(&stores.queue, &message.id, recipients.len(), &why, secs),
                (made, _) => made,
            })
        });
        if let Err(busy) = taken {
            log::error!("delivery {}: no room for a job: {busy}", self.runner.pending[at].id);
            self.answer(at, Dispatched::Refused(reply::UNAVAILABLE.clone()));
        }
    }

    fn filed(&mut self, at: usize, result: Result<Made, Failed>) {
        self.shared.transit.counts.syncs += 1;
        match result {
            Ok(Made::New) => self.enqueue(at),
            // Sixty random bits came twice.
            Ok(Made::Already) => self.answer(at, Dispatched::Refused(reply::UNAVAILABLE.clone())),
            Err(Failed::Refused(Refused::Fault(fault) | Refused::Unsafe(fault))) => self.refuse(at, &fault),
            Err(Failed::Refused(Refused::Locked | Refused::InUse)) => {
                self.answer(at, Dispatched::Refused(reply::UNAVAILABLE.clone()));
            }
            Err(Failed::Unknown(fault)) => {
                log::error!("delivery {}: {fault}", self.runner.pending[at].id);
                self.answer(at, Dispatched::Unknown);
            }
        }
    }

    /// The queue has it, on disk.
    fn enqueue(&mut self, at: usize) {
        self.shared.transit.counts.queued += 1;
        if let Some(why) = &self.runner.pending[at].hold {
            let id = self.runner.pending[at].id.clone();
            log::warn!("delivery {id}: held in the queue: {why}");
            return self.answer(at, Dispatched::Kept);
        }
        if let Some(why) = self.runner.pending[at].why.take() {
            // Its one recipient has just been tried.
            let id = self.runner.pending[at].id.clone();
            log::info!("delivery {id}: waits in the queue: {why}");
            let wait = self.shared.settings.retry_schedule.wait_secs(Place::Here, 1, RealDisk::default().random());
            self.keep(&id, self.secs.saturating_add_unsigned(wait));
            return self.answer(at, Dispatched::Kept);
        }
        let pending = self.runner.pending.remove(at);
        let Some(message) = pending.message else { return };
        if pending.ticket.is_some() {
            self.note_kept(&message, &pending.recipients);
        }
        let parts = pending.recipients.into_iter().zip(pending.to).zip(1..);
        let parts: Vec<Part> = parts
            .map(|((recipient, to), number)| Part {
                number,
                recipient,
                tries: 0,
                warned: false,
                expands: false,
                to: Some(to),
                via: None,
                waited: None,
            })
            .collect();
        self.shared.transit.table.begin(&message.id);
        // Who waits for other hosts alone does not wait for them here.
        let is_local = |part: &Part| part.recipient.kind != queue::Kind::Remote;
        let answer = pending.ticket.filter(|_| parts.iter().any(is_local));
        if let (Some(ticket), None) = (pending.ticket, answer) {
            self.shared.post.push_back((ticket, Outcome::Dispatched(Dispatched::Kept)));
        }
        let run = self.runner.runs.insert(Run::first(message, pending.envelope, parts, answer));
        if let Some(ticket) = answer {
            self.runner.answers.push_back((self.now + super::ROUND, run, ticket));
        }
        self.try_parts(run);
    }

    /// What became of a letter.
    pub(super) fn fate(&mut self, key: Key, fate: Fate) {
        let at = match key {
            Key::Queued { run, part } => return self.settle(run, part, fate),
            Key::Direct(at) => at,
        };
        let pending = &mut self.runner.pending[at];
        match fate {
            Fate::Delivered(_) => {
                let bytes = pending.message.as_ref().map_or(0, |message| message.text.bytes());
                let recipient = printable(pending.recipients[0].address.as_bytes());
                log::info!("delivery {}: {recipient}: delivered ({bytes} bytes)", pending.id);
                self.shared.transit.counts.delivered += 1;
                let to = std::iter::once(pending.recipients[0].address.as_str());
                self.shared.note(Class::Received, &pending.id, bytes, &pending.envelope.sender, to);
                self.answer(at, Dispatched::Kept);
            }
            Fate::Before(id) => self.came_before(at, id),
            Fate::Deferred(why) => {
                pending.why = Some(why);
                self.file(at);
            }
            Fate::Unknown => self.answer(at, Dispatched::Unknown),
        }
    }

    fn refuse(&mut self, at: usize, fault: &Fault) {
        log::error!("delivery {}: {fault}", self.runner.pending[at].id);
        self.answer(at, Dispatched::Refused(answer_to(fault)));
    }

    fn note_kept(&mut self, message: &Message, recipients: &[Recipient]) {
        let bytes = message.text.bytes();
        self.shared.transit.counts.accepted += 1;
        self.shared.transit.counts.bytes += bytes;
        let to = recipients.iter().map(|recipient| recipient.address.as_str());
        self.shared.note(Class::Sent, &message.id, bytes, &message.sender, to);
    }

    /// The end of a message that is nowhere but here.
    fn answer(&mut self, at: usize, dispatched: Dispatched) {
        let pending = self.runner.pending.remove(at);
        if let Some(marked) = pending.message.as_ref().and_then(|message| message.marked()) {
            // Of what is kept nothing is forgotten by that.
            self.shared.transit.stores.intents.repeats().release(&marked);
        }
        let counts = &mut self.shared.transit.counts;
        match (&dispatched, &pending.message) {
            // What is of our own making was accepted from nobody.
            _ if pending.ticket.is_none() => {}
            (Dispatched::Kept, Some(message)) => self.note_kept(message, &pending.recipients),
            (Dispatched::Kept, None) => counts.accepted += 1,
            (Dispatched::Before(_), _) => counts.repeated += 1,
            (Dispatched::Refused(_), _) => counts.refused += 1,
            (Dispatched::Unknown, _) => counts.unknown += 1,
        }
        match (pending.ticket, dispatched) {
            (Some(ticket), dispatched) => self.shared.post.push_back((ticket, Outcome::Dispatched(dispatched))),
            (None, Dispatched::Kept | Dispatched::Before(_)) => {}
            (None, Dispatched::Refused(_) | Dispatched::Unknown) => {
                log::warn!("delivery {}: a message of ours could not be kept", pending.id);
            }
        }
    }

    /// Letters become jobs.
    fn carry(&mut self) {
        while let Some((drops, volume, load)) = self.runner.lanes.next(self.now, self.shared.settings.min_uid) {
            let doing = Doing::Carry(volume, drops.clone());
            let (disk, percent) = (self.shared.disk(), self.shared.settings.quota_warn);
            let work = move |stores: &Stores, _: &Pulse| Finished::Carried(load.carry(&stores.intents, &disk, percent));
            if let Err(busy) = self.job(doing, Kind::Sync, volume, work) {
                log::error!("no room for a delivery to {} mailboxes: {busy}", drops.len());
                self.carried(volume, drops, Ended::Refused);
            }
        }
    }

    fn carried(&mut self, volume: u64, drops: Vec<PathBuf>, ended: Ended) {
        self.shared.transit.counts.syncs += 1;
        self.runner.tidy.get_or_insert(self.now + TIDY);
        if let Ended::Carried(carried) = &ended {
            carried.iter().filter_map(|carried| carried.filled.as_ref()).for_each(|filled| self.warn(filled));
        }
        for (key, fate) in self.runner.lanes.told(self.now, volume, drops, ended) {
            self.fate(key, fate);
        }
    }

    /// A user is told that his mailbox fills. The mark that he was is made first: after a crash in between he is not.
    fn warn(&mut self, filled: &Filled) {
        let Some(to) = super::run::address_of(&filled.user) else { return };
        let settings = self.shared.settings.clone();
        let (host, id) = (settings.main_domain(), self.shared.transit.new_id());
        let filling = Filling { limit: filled.limit, percent: settings.quota_warn };
        let user = to.to_string();
        let notice = Notice { host, to: &user, subject: Filling::SUBJECT, id: &id, posted_secs: self.secs };
        log::info!("delivery {id}: {} is told that the mailbox fills", printable(user.as_bytes()));
        self.shared.transit.tell(id.clone(), to, &notice.written(&filling.text()), self.secs);
    }

    fn obey(&mut self, ticket: Ticket, order: super::Order) {
        let (secs, volume) = (self.secs, self.shared.transit.stores.volume);
        let doing = Doing::Obey(ticket, order.id.clone());
        let work = move |stores: &Stores, _: &Pulse| Finished::Obeyed(order.obey(&stores.queue, secs));
        if self.job(doing, Kind::Sync, volume, work).is_err() {
            let why = "too much waits for the disks: try again later".to_owned();
            self.shared.post.push_back((ticket, Outcome::Told(Err(vec![why]))));
        }
    }

    /// What a job has changed is in the files; the table follows.
    fn hear_changes(&mut self) {
        let heard = self.shared.transit.bulk.take();
        self.changed(&heard.some);
        if heard.more || heard.some.iter().any(|(_, obeyed)| obeyed.is_due(self.secs)) {
            self.shared.outgoing.reopen(None);
        }
        if heard.more {
            let out = self.shared.transit.table.look_for_all();
            self.runner.emptied |= !out.is_empty();
            self.put_out(out);
        }
    }

    fn changed(&mut self, some: &[(Box<str>, Obeyed)]) {
        self.shared.transit.table.remove_all(some.iter().map(|(id, _)| &**id));
        for (id, obeyed) in some.iter().filter(|(_, obeyed)| !obeyed.gone) {
            // One that is being tried, or is about to be, comes back into the table by itself.
            let is_new = self.runner.pending.iter().any(|(_, pending)| pending.id == *id);
            if is_new || self.shared.transit.table.is_tried(id) {
                continue;
            }
            match obeyed.next_secs {
                // It was in no table, perhaps, and is not to wait for those that are.
                Some(secs) if secs <= self.secs => self.keep(id, secs),
                secs => self.leave(id, secs),
            }
        }
    }

    fn obeyed(&mut self, ticket: Ticket, id: &str, result: Result<Obeyed, String>) {
        let told = result.map_err(|why| vec![why]).map(|obeyed| {
            let is_due = obeyed.is_due(self.secs);
            let mut report = Report::default();
            report.add("id", id);
            report.add("recipients", obeyed.changed as u64);
            report.add("left_queue", obeyed.gone);
            self.changed(&[(id.into(), obeyed)]);
            if is_due {
                // Who wants it tried now does not want to wait for its place.
                self.shared.outgoing.reopen(None);
            }
            report
        });
        self.shared.post.push_back((ticket, Outcome::Told(told)));
    }

    /// Asks how much is free, at most every [`SPACE_LIFE`] and only when somebody wants to know.
    fn look(&mut self) {
        let (space, least) = (&mut self.shared.transit.space, self.shared.settings.delivery_min_space << 20);
        if !space.is_due(self.now) {
            return;
        }
        space.asked = false;
        space.looked = Some(self.now);
        if least == 0 {
            return space.short.clear();
        }
        let mut places = vec![(self.shared.settings.work_path.clone(), self.shared.transit.stores.volume)];
        for (root, volume) in &self.shared.volumes {
            if places.iter().all(|(_, known)| known != volume) {
                places.push((root.clone(), *volume));
            }
        }
        // A volume that does not answer says nothing, and another's job does not wait for it.
        for (path, volume) in places {
            let work = move |_: &Stores, _: &Pulse| Finished::Looked(volume, is_short(&path, least));
            let _ = self.job(Doing::Look, Kind::Read, volume, work);
        }
    }

    fn looked(&mut self, volume: u64, is_short: bool) {
        let short = &mut self.shared.transit.space.short;
        if is_short && !short.contains(&volume) {
            short.push(volume);
            log::error!("less than delivery_min_space is free: no new mail is taken; reading and deleting go on");
        } else if !is_short && short.contains(&volume) {
            short.retain(|known| *known != volume);
            log::info!("there is space again for new mail");
        }
    }

    /// In a quiet moment the log of intents is emptied.
    fn tidy(&mut self) {
        if self.runner.tidy.is_none_or(|at| self.now < at) {
            return;
        }
        self.shared.transit.tell_of_marks();
        let quiet = self.runner.lanes.is_empty() && self.shared.transit.stores.intents.is_empty();
        self.runner.tidy = (!quiet).then_some(self.now + TIDY);
        let volume = self.shared.transit.stores.volume;
        if quiet {
            // No room now: the next delivery asks again.
            let work = |stores: &Stores, _: &Pulse| Finished::Tidied(stores.intents.tidy());
            let _ = self.job(Doing::Tidy, Kind::Bulk, volume, work);
        }
    }
}

/// Where a user's mail goes.
pub(super) fn spot(name: &Name, account: &Account, shared: &Shared) -> Result<Spot, String> {
    let place = account::place(name, account, &shared.settings)?;
    let volume = shared.volume_of(&place.drop);
    let limit = account::limit(account, &shared.settings);
    Ok(Spot { place, uid: account.uid.as_deref().map(Into::into), volume, limit })
}

/// Nobody tries a message that has just been filed.
fn hold_back(queue: &queue::Queue, id: &str, recipients: usize, why: &str, secs: i64) -> Result<Made, Failed> {
    let to = State::Held { why: why.to_owned() };
    let changes: Vec<Change> = (1..).take(recipients).map(|number| Change { number, to: to.clone() }).collect();
    match queue.note(id, secs, &changes) {
        Ok(_) => {
            // Where it lies the next start finds it too.
            drop(queue.put(id, None));
            Ok(Made::New)
        }
        // It is in the queue, not held, and nobody may be told that it is not there.
        Err(Miss::Gone) => Err(Failed::Unknown(lost("holding"))),
        Err(Miss::Damaged(fault) | Miss::Fault(fault)) => Err(Failed::Unknown(fault)),
    }
}

fn is_short(path: &Path, least: u64) -> bool {
    let disk = RealDisk::default();
    // What cannot be asked is found out by writing.
    disk.open_dir(path).and_then(|dir| disk.free_bytes(&dir)).is_ok_and(|free| free < least)
}

fn lost(doing: &'static str) -> Fault {
    Fault::new(doing, Path::new(""), io::Error::other("a fault of ours ended the job"))
}
