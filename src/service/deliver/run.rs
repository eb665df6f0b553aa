//! One round of tries for a message of the queue: the first, with its text and its recipients still at hand, or a later one,
//! which reads them from its file, [`PAGE`] recipients at a time.
//!
//! | a run is | what is done                                                                                  | it leaves by                     |
//! |----------|-----------------------------------------------------------------------------------------------|----------------------------------|
//! | Reading  | a job reads envelope and text once, and a page of recipients                                   | a page: Trying; no further: over |
//! | Trying   | who is due is brought to his drop; where that is an authenticator is asked anew, but in the first round | all have their fate: Noting |
//! | Noting   | a job writes the new states into the file, synced; then closes the intents of those delivered, has the sender told of those who failed, and removes a file that is done with | Reading, over |
//!
//! | a recipient is | he becomes                                                                                  |
//! |----------------|---------------------------------------------------------------------------------------------|
//! | delivered      | delivered                                                                                   |
//! | not, just now  | deferred until `retry_schedule` says; behind `queue_life` expired                           |
//! | perhaps        | deferred, never expired: the next try for him finds the letter if it is there               |
//! | never to be    | failed: his sender is told                                                                  |
//! | another host's | deferred until he expires: nothing sends mail to other hosts yet                            |
//!
//! What failed or expired with nobody to tell is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::body::Text;
use super::lanes::{Fate, Key, Letter, Message, Spot, Stand};
use super::runner::{Desk, Doing, Finished, spot};
use super::{Dispatched, Stores, ways};
use crate::mail::address::{self, Address};
use crate::mail::bounce::{BODY_BYTES, Bounce, Failure, HEADER_BYTES, LISTED_MAX, bounce_id};
use crate::mail::envelope::Envelope as Stored;
use crate::net::jobs::Kind as JobKind;
use crate::net::turn::Ticket;
use crate::protocol::smtp::params::Recipient as Named;
use crate::protocol::smtp::reply::Reply;
use crate::rules::retry;
use crate::rules::robot::{self as robots, Facts, Why};
use crate::rules::route::Program;
use crate::rules::traffic::Class;
use crate::service::robot::{self, Robot};
use crate::service::route::{self, Destination, Routing, Step, Way};
use crate::service::{Outcome, account};
use crate::settings::Settings;
use crate::store::delivery::{Body, Failed};
use crate::store::disk::{Disk, RealDisk};
use crate::store::maildrop::Refused;
use crate::store::queue::{
    Change, Envelope, ID_BYTES, Kind, Made, Miss, Queue, RECIPIENTS_MAX, Recipient, Row, Stage, State, Tally, queued,
};
use crate::text::fault::Fault;
use crate::text::printable::printable;

/// Recipients in memory at a time, in a later round.
pub const PAGE: u32 = 64;

/// How long one waits of whom it is not known whether he has it, where the schedule does not say.
const DOUBT_SECS: i64 = 300;

/// The same, when only somebody else has his drop.
const LOCKED_SECS: i64 = 10;

/// The least time between two rounds.
const LEAST_SECS: i64 = 5;

/// A recipient who is tried.
pub(super) struct Part {
    /// In the queue's file, from 1.
    pub(super) number: u32,
    pub(super) recipient: Recipient,
    /// How often he was tried before.
    pub(super) tries: u32,
    /// Where he is, in the first round.
    pub(super) to: Option<Way>,
}

impl Part {
    fn sender<'a>(&'a self, envelope: &'a Envelope) -> &'a str {
        ways::sender(&self.recipient, envelope)
    }
}

/// See the page.
pub(super) struct Run {
    id: Box<str>,
    /// Read by the first job of a later round.
    known: Option<(Arc<Message>, Arc<Envelope>)>,
    parts: Vec<Part>,
    /// Parts without a fate.
    out: usize,
    changes: Vec<Change>,
    stands: Vec<Arc<Stand>>,
    /// Who waits for the first round's end.
    answer: Option<Ticket>,
    is_first: bool,
    /// From which number the next page is read; 0: all were at hand.
    next: u32,
}

/// What was read of a message.
pub(super) struct Found {
    known: Option<(Message, Envelope)>,
    rows: Vec<Row>,
    next_secs: Option<i64>,
    /// It has left the queue.
    gone: bool,
    /// Those that its queue has now besides it.
    bounces: Vec<String>,
}

/// What came of noting.
pub(super) struct Wound {
    next_secs: Option<i64>,
    /// It has left the queue.
    gone: bool,
    /// Those that were made of it.
    bounces: Vec<String>,
}

impl Run {
    /// The first round of a message that has just been filed.
    pub(super) fn first(
        message: Arc<Message>,
        envelope: Arc<Envelope>,
        parts: Vec<Part>,
        answer: Option<Ticket>,
    ) -> Run {
        let id = message.id.clone();
        Run { parts, answer, is_first: true, known: Some((message, envelope)), next: 0, ..Run::of(id.into()) }
    }

    /// A later one.
    pub(super) fn of(id: String) -> Run {
        Run {
            id: id.into(),
            known: None,
            parts: Vec::new(),
            out: 0,
            changes: Vec::new(),
            stands: Vec::new(),
            answer: None,
            is_first: false,
            next: 1,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// What came of one try for one recipient.
pub(super) enum Came {
    /// It is where it belongs.
    Delivered(Vec<Arc<Stand>>),
    /// Not now.
    Later(String),
    /// It never will be.
    Never(String),
    /// Nobody knows.
    Perhaps,
    /// Nothing was tried, and nothing will be.
    Elsewhere,
}

impl From<&Reply> for Came {
    fn from(reply: &Reply) -> Came {
        let why = reply.said();
        if reply.code() >= 500 { Came::Never(why) } else { Came::Later(why) }
    }
}

impl From<Fate> for Came {
    fn from(fate: Fate) -> Came {
        match fate {
            Fate::Delivered(stands) => Came::Delivered(stands),
            Fate::Deferred(why) => Came::Later(why),
            Fate::Unknown => Came::Perhaps,
        }
    }
}

impl Desk<'_> {
    /// Reads what is to be known for the next tries.
    pub(super) fn read_page(&mut self, at: usize) {
        let run = &self.runner.runs[at];
        let (id, from, all, secs) = (run.id.clone(), run.next, run.known.is_none(), self.secs);
        let settings = self.shared.settings.clone();
        let volume = self.shared.transit.stores.volume;
        let work =
            move |stores: &Stores, _: &_| Finished::Read(read(stores, &settings, &id, from, all, secs).map(Box::new));
        if self.job(Doing::Read(at), JobKind::Read, volume, work).is_err() {
            self.over(at, Next::Soon);
        }
    }

    pub(super) fn read(&mut self, at: usize, result: Result<Box<Found>, Miss>) {
        let found = match result {
            Ok(found) => *found,
            Err(miss) => return self.missed(at, miss),
        };
        let Found { known, rows, next_secs, gone, bounces } = found;
        self.begin_bounces(&bounces);
        if gone {
            return self.over(at, Next::Gone);
        }
        let run = &mut self.runner.runs[at];
        if let Some((message, envelope)) = known {
            run.known = Some((Arc::new(message), Arc::new(envelope)));
        }
        run.next = rows.last().filter(|_| rows.len() == PAGE as usize).map_or(0, |last| last.number + 1);
        let due = rows.into_iter().filter_map(|Row { number, recipient, state }| {
            let tries = match state {
                State::Waiting => 0,
                State::Deferred { next_secs, tries, .. } if next_secs <= self.secs => tries,
                _ => return None,
            };
            Some(Part { number, recipient, tries, to: None })
        });
        run.parts = due.collect();
        match (run.parts.is_empty(), run.next) {
            (false, _) => self.try_parts(at),
            (true, 0) => self.over(at, Next::At(next_secs)),
            (true, _) => self.read_page(at),
        }
    }

    /// Tries for all its parts.
    pub(super) fn try_parts(&mut self, at: usize) {
        let run = &mut self.runner.runs[at];
        run.out = run.parts.len();
        for part in 0..run.out {
            self.try_part(at, part);
        }
    }

    fn try_part(&mut self, at: usize, part: usize) {
        let run = &mut self.runner.runs[at];
        let octets = run.known.as_ref().map_or(0, |(message, _)| message.octets());
        let Part { recipient, to, .. } = &mut run.parts[part];
        match (recipient.kind, to.take()) {
            (Kind::Mailbox, Some(way)) if way.lacks_room_for(octets) => {
                let reply = route::full(&self.shared.settings);
                self.settle(at, part, &reply);
            }
            (Kind::Mailbox, Some(Way { to: Destination::Mailbox(name, account), .. })) => {
                let spot = spot(&name, &account, self.shared);
                self.send(at, part, spot);
            }
            (Kind::Mailbox | Kind::Local, _) => self.route(at, part),
            (Kind::Program, _) => self.attend(at, part),
            (Kind::Remote, _) => self.settle(at, part, Came::Elsewhere),
        }
    }

    fn send(&mut self, at: usize, part: usize, spot: Result<Spot, String>) {
        let run = &self.runner.runs[at];
        let Some((message, _)) = &run.known else { return };
        match spot {
            Ok(spot) => {
                let Part { number, recipient, .. } = &run.parts[part];
                let sender = recipient.with.first().filter(|sender| !sender.is_empty());
                let letter = Letter {
                    key: Key::Queued { run: at, part },
                    message: message.clone(),
                    sender: sender.map(|sender| sender.as_str().into()),
                    recipient: recipient.address.as_str().into(),
                    queued: Some(queued(&run.id, *number)),
                };
                self.runner.lanes.add(self.now, spot, letter);
            }
            Err(why) => {
                log::error!("delivery {}: {why}", run.id);
                self.settle(at, part, Came::Later("4.3.0 the mailbox cannot be found".to_owned()));
            }
        }
    }

    /// Asks where an address of ours leads now, or a user's mailbox is, and whether there is room.
    fn route(&mut self, at: usize, part: usize) {
        let run = &self.runner.runs[at];
        let recipient = &run.parts[part].recipient;
        let Some(address) = address_of(&recipient.address) else {
            return self.settle(at, part, Came::Never("5.1.3 this is no address".to_owned()));
        };
        let stage = ways::stage(recipient);
        let octets = run.known.as_ref().map_or(0, |(message, _)| message.octets());
        let mut routing = Box::new(Routing::begin(&address, stage, octets, false, self.shared));
        let ticket = self.ticket_for_routing();
        let step = routing.go_on(self.now, ticket, self.shared);
        self.stepped(at, part, routing, ticket, step);
    }

    pub(super) fn routed(&mut self, at: usize, part: usize, mut routing: Box<Routing>, outcome: Outcome) {
        let ticket = self.ticket_for_routing();
        let step = routing.told(self.now, outcome, ticket, self.shared);
        self.stepped(at, part, routing, ticket, step);
    }

    fn stepped(&mut self, at: usize, part: usize, routing: Box<Routing>, ticket: Ticket, step: Step) {
        let ways = match step {
            Step::Asked => return self.expect(ticket, Doing::Route(at, part, routing)),
            Step::Settled(Ok(ways)) => ways,
            Step::Settled(Err(reply)) => return self.settle(at, part, &reply),
        };
        match &ways[..] {
            // Thrown away.
            [] => self.settle(at, part, Came::Delivered(Vec::new())),
            [Way { to: Destination::Mailbox(name, account), sender: None, .. }] => {
                let spot = spot(name, account, self.shared);
                self.send(at, part, spot);
            }
            _ => self.hand_on(at, part, &ways),
        }
    }

    /// An address that leads to several, or to others, becomes a message of its own, made once, whatever happens meanwhile.
    fn hand_on(&mut self, at: usize, part: usize, ways: &[Way]) {
        let run = &self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        let Part { number, recipient, .. } = &run.parts[part];
        let id = format!("{}r{number}", run.id);
        // There must be room for the id of its bounces, too.
        let fits = bounce_id(&id, RECIPIENTS_MAX).len() <= ID_BYTES;
        let Some(path) = address_of(&recipient.address).filter(|_| fits) else {
            return self.settle(at, part, Came::Never("5.4.6 it is going round in circles".to_owned()));
        };
        let named = Named { path, notify: recipient.notify, orcpt: recipient.orcpt.as_deref().map(Into::into) };
        let sender = ways::sender(recipient, &envelope).to_owned();
        let recipients: Vec<Recipient> =
            ways.iter().map(|way| ways::recipient(way, &sender, &named, &self.shared.settings)).collect();
        let envelope = Envelope { sender, bounce_of: None, ..(*envelope).clone() };
        let volume = self.shared.transit.stores.volume;
        let doing = Doing::HandOn(at, part, id.clone());
        let taken = self.job(doing, JobKind::Sync, volume, move |stores, _| {
            Finished::Filed(stores.queue.create(&id, &envelope, &recipients, &message.text.body()))
        });
        if taken.is_err() {
            self.settle(at, part, Came::Later("4.3.0 the disks are too busy".to_owned()));
        }
    }

    pub(super) fn handed_on(&mut self, at: usize, part: usize, id: &str, result: Result<Made, Failed>) {
        match result {
            Ok(made) => {
                if made == Made::New {
                    self.shared.transit.counts.queued += 1;
                    self.shared.transit.table.insert(id, Some(self.secs));
                }
                log::info!("delivery {}: goes on as {id}", self.runner.runs[at].id);
                self.settle(at, part, Came::Delivered(Vec::new()));
            }
            Err(Failed::Refused(refused)) => {
                log::error!("delivery {id}: {refused:?}");
                self.settle(at, part, Came::Later("4.3.0 the queue cannot be written to".to_owned()));
            }
            Err(Failed::Unknown(fault)) => {
                log::error!("delivery {id}: {fault}");
                self.settle(at, part, Came::Later("4.3.0 the queue cannot be written to".to_owned()));
            }
        }
    }

    /// Gives it to a program.
    fn attend(&mut self, at: usize, part: usize) {
        let run = &self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        let recipient = &run.parts[part].recipient;
        let Some(Program { words, user }) = ways::program(recipient) else {
            return self.settle(at, part, Came::Never("5.3.5 this is no program".to_owned()));
        };
        let sender = ways::sender(recipient, &envelope).to_owned();
        let head = Stored {
            sender: sender.as_bytes(),
            recipient: recipient.address.as_bytes(),
            received: &message.received,
            posted_secs: message.posted_secs,
        };
        let head = head.fields();
        let delimiter = self.shared.settings.recipient_delimiter;
        let facts = Facts::of(&sender, &recipient.address, delimiter, &run.id, &envelope.came);
        let text = Box::new(move |file: &mut File| message.text.write_to(file));
        let ticket = self.ticket(Doing::Robot(at, part));
        if robot::start(Robot { words, user, facts, head, text }, ticket, self.shared).is_err() {
            self.forget(ticket);
            self.settle(at, part, Came::Later("4.3.0 too many programs are running".to_owned()));
        }
    }

    pub(super) fn attended(&mut self, at: usize, part: usize, verdict: robots::Verdict) {
        let sentence = |why: Why| [vec![format!("{} {}", why.status, why.text)], why.said].concat().join("; ");
        let came = match verdict {
            robots::Verdict::Taken => Came::Delivered(Vec::new()),
            robots::Verdict::Later(why) => Came::Later(sentence(why)),
            robots::Verdict::Never(why) => Came::Never(sentence(why)),
        };
        self.settle(at, part, came);
    }

    /// What came of the try for one of its parts.
    pub(super) fn settle(&mut self, at: usize, part: usize, came: impl Into<Came>) {
        let now_secs = self.secs;
        let run = &mut self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        let Part { number, recipient, tries, .. } = &run.parts[part];
        let (number, tries) = (*number, tries + 1);
        let is_null = ways::sender(recipient, &envelope).is_empty();
        let settings = &self.shared.settings;
        let verdict = |tries| {
            let random = RealDisk::default().random();
            let (schedule, life) = (&settings.retry_schedule, settings.queue_life);
            retry::verdict(schedule, life, is_null, envelope.received_secs, now_secs, tries, random)
        };
        let silent = is_null || recipient.notify.is_some_and(|notify| !notify.failure);
        let shown = format!("delivery {}: {}", run.id, printable(recipient.address.as_bytes()));
        let super::Counts { deferred, failed, dropped, delivered, .. } = &mut self.shared.transit.counts;
        let mut lost = |why: String, expired: bool| {
            if silent {
                *dropped += 1;
                log::warn!("{shown}: dropped, nobody is told: {why}");
                return State::Dropped { why };
            }
            *failed += 1;
            log::warn!("{shown}: its sender is told: {why}");
            // A recipient is lost once: his number is one that no other bounce has.
            if expired { State::Expired { why, bounce: 0 } } else { State::Failed { why, bounce: 0 } }
        };
        let mut later = |next_secs, why: String| {
            *deferred += 1;
            log::info!("{shown}: deferred: {why}");
            State::Deferred { next_secs, tries, why }
        };
        let to = match (came.into(), verdict(tries)) {
            (Came::Delivered(stands), _) => {
                log::info!("{shown}: delivered ({} bytes)", message.text.bytes());
                *delivered += 1;
                run.stands.extend(stands);
                State::Delivered
            }
            (Came::Never(why), _) => lost(why, false),
            (Came::Later(why), retry::Verdict::Expired) => lost(why, true),
            (Came::Elsewhere, retry::Verdict::Expired) => lost("4.4.0 no mail is sent to other hosts".to_owned(), true),
            (Came::Later(why), retry::Verdict::Again(next_secs)) => later(next_secs, why),
            (Came::Elsewhere, retry::Verdict::Again(_)) => {
                let life = if is_null { settings.queue_life.min(retry::BOUNCE_LIFE_SECS) } else { settings.queue_life };
                later(
                    envelope.received_secs.saturating_add_unsigned(life),
                    "4.4.0 no mail is sent to other hosts yet".to_owned(),
                )
            }
            (Came::Perhaps, verdict) => {
                let next_secs = match verdict {
                    retry::Verdict::Again(next_secs) => next_secs,
                    retry::Verdict::Expired => now_secs + DOUBT_SECS,
                };
                later(next_secs, "4.3.0 it is not known whether it is in the mailbox".to_owned())
            }
        };
        let class = match (&to, recipient.kind) {
            (State::Delivered, Kind::Remote) => Some(Class::Transferred),
            (State::Delivered, _) => Some(Class::Received),
            (State::Failed { .. } | State::Expired { .. } | State::Dropped { .. }, _) => Some(Class::Failed),
            _ => None,
        };
        if let Some(class) = class {
            let address = std::iter::once(recipient.address.as_str());
            self.shared.note(class, &run.id, message.text.bytes(), &message.sender, address);
        }
        run.changes.push(Change { number, to });
        run.out -= 1;
        if run.out == 0 {
            self.note(at);
        }
    }

    /// Writes down what became of them.
    fn note(&mut self, at: usize) {
        let run = &mut self.runner.runs[at];
        let Some((_, envelope)) = run.known.clone() else { return };
        let (id, secs, settings) = (run.id.clone(), self.secs, self.shared.settings.clone());
        let (mut changes, stands) = (std::mem::take(&mut run.changes), std::mem::take(&mut run.stands));
        let parts = std::mem::take(&mut run.parts);
        // Those who are lost at once are told of in one bounce: by sender, where forward lines have changed it.
        let sender =
            |change: &Change| parts.iter().find(|part| part.number == change.number).map(|part| part.sender(&envelope));
        changes.sort_by(|one, other| sender(one).cmp(&sender(other)));
        let changes: Vec<Vec<Change>> =
            changes.chunk_by(|one, other| sender(one) == sender(other)).map(<[Change]>::to_vec).collect();
        self.shared.transit.counts.syncs += 1;
        let volume = self.shared.transit.stores.volume;
        let work = move |stores: &Stores, _: &_| {
            Finished::Noted(wind_up(stores, &settings, &id, &envelope, secs, &changes, &stands))
        };
        if self.job(Doing::Note(at), JobKind::Sync, volume, work).is_err() {
            self.over(at, Next::Soon);
        }
    }

    pub(super) fn noted(&mut self, at: usize, result: Result<Wound, Miss>) {
        match result {
            Ok(Wound { next_secs, gone, bounces }) => {
                self.begin_bounces(&bounces);
                match self.runner.runs[at].next {
                    _ if gone => self.over(at, Next::Gone),
                    0 => self.over(at, Next::At(next_secs)),
                    _ => self.read_page(at),
                }
            }
            Err(miss) => self.missed(at, miss),
        }
    }

    fn missed(&mut self, at: usize, miss: Miss) {
        let next = match miss {
            Miss::Gone => Next::Gone,
            Miss::Fault(fault) => {
                log::error!("the queue: {fault}");
                Next::Soon
            }
            Miss::Damaged(fault) => {
                log::error!("the queue: {fault}");
                Next::Gone
            }
        };
        self.over(at, next);
    }

    /// Bounces that the queue has now.
    fn begin_bounces(&mut self, bounces: &[String]) {
        for id in bounces {
            self.shared.transit.counts.queued += 1;
            self.shared.transit.table.insert(id, Some(self.secs));
        }
    }

    /// The end of a round.
    fn over(&mut self, at: usize, next: Next) {
        let run = self.runner.runs.remove(at);
        if !run.is_first {
            self.runner.tried -= 1;
        }
        if let Some(ticket) = run.answer {
            self.shared.post.push_back((ticket, Outcome::Dispatched(Dispatched::Kept)));
        }
        match next {
            Next::Gone => {}
            // What is due already, and was not tried, waits for something.
            Next::At(next_secs) => self.leave(&run.id, next_secs.map(|secs| secs.max(self.secs + LEAST_SECS))),
            Next::Soon => self.leave_for_now(&run.id),
        }
    }

    /// Those whose first round takes long are answered.
    pub(super) fn answer_round(&mut self) {
        while let Some(&(at, run, ticket)) = self.runner.answers.front()
            && at <= self.now
        {
            self.runner.answers.pop_front();
            if let Some(run) = self.runner.runs.get_mut(run)
                && run.answer == Some(ticket)
            {
                run.answer = None;
                self.shared.post.push_back((ticket, Outcome::Dispatched(Dispatched::Kept)));
            }
        }
    }
}

/// When a message is looked at again.
enum Next {
    /// By what its file says.
    At(Option<i64>),
    /// Its file could not be read or written.
    Soon,
    /// It has left the queue.
    Gone,
}

/// An address of the queue's.
pub(super) fn address_of(text: &str) -> Option<Address> {
    address::path(format!("<{text}>").as_bytes(), true).ok()?.0
}

/// What a round needs to know. In a job.
fn read(stores: &Stores, settings: &Settings, id: &str, from: u32, all: bool, secs: i64) -> Result<Found, Miss> {
    let queue = &stores.queue;
    let mut found = queue.read(id)?;
    if all && found.envelope.bounce_of.is_some() {
        queue.told(id, secs)?;
    }
    let bounces = if all { tell(queue, settings, id, &found.envelope, secs)? } else { Vec::new() };
    let mut rows = queue.page(id, from, PAGE)?;
    let (mut doubt, like) = (None, account::place_of(PathBuf::new(), settings));
    // Who may have his message already by a try whose end is not known is not tried before that is.
    for row in rows.iter_mut().filter(|row| stores.intents.holds(&queued(id, row.number))) {
        match queue.settle(&stores.intents, &like, id, row.number, secs) {
            Ok(true) => {}
            Ok(false) => row.state = State::Delivered,
            Err(miss) => {
                row.state = State::Held { why: String::new() };
                let (Miss::Fault(fault) | Miss::Damaged(fault)) = miss else { continue };
                log::warn!("the queue: {id}: it is not known whether recipient {} has it: {fault}", row.number);
                let is_locked = fault.source.kind() == io::ErrorKind::WouldBlock;
                let wait = if is_locked { LOCKED_SECS } else { DOUBT_SECS };
                doubt = Some(doubt.map_or(wait, |least: i64| least.min(wait)));
            }
        }
    }
    let text = if all { Some(queue.text(id)?) } else { None };
    // By now some may have become delivered or bounced.
    found.tally = queue.read(id)?.tally;
    let gone = found.tally.is_ended() && queue.remove(id)?;
    let next_secs = doubt.map_or(found.tally.next_secs, |wait| Some(secs + wait));
    let known = text.map(|text| {
        let message = Message {
            id: id.into(),
            sender: found.envelope.sender.as_str().into(),
            received: found.envelope.received.as_slice().into(),
            posted_secs: found.envelope.received_secs,
            text: Text::Queued(text),
        };
        (message, found.envelope)
    });
    Ok(Found { known, rows, next_secs, gone, bounces })
}

fn set_aside(queue: &Queue, id: &str, miss: &Miss) {
    if let Miss::Damaged(_) = miss {
        match queue.set_aside(id) {
            Ok(path) => log::error!("the queue: {id} is {} now, for somebody to look at", path.display()),
            Err(_) => log::error!("the queue: {id} is damaged, and cannot be set aside"),
        }
    }
}

/// Writes down what became of recipients, and does what follows from it. In a job.
fn wind_up(
    stores: &Stores,
    settings: &Settings,
    id: &str,
    envelope: &Envelope,
    secs: i64,
    changes: &[Vec<Change>],
    stands: &[Arc<Stand>],
) -> Result<Wound, Miss> {
    let queue = &stores.queue;
    let mut tally = Tally::default();
    for changes in changes {
        tally = queue.note(id, secs, changes).inspect_err(|miss| set_aside(queue, id, miss))?.tally;
    }
    for stand in stands {
        if !stand.found.is_empty()
            && let Err(fault) = queue.note_found(secs, &stand.found)
        {
            // It stays open: the next try for one of them finds it again.
            log::error!("the queue: {fault}");
            continue;
        }
        stand.noted(&stores.intents);
    }
    let bounces = tell(queue, settings, id, envelope, secs)?;
    if !bounces.is_empty() || stands.iter().any(|stand| !stand.found.is_empty()) {
        tally = queue.read(id)?.tally;
    }
    let gone = tally.is_ended() && queue.remove(id)?;
    Ok(Wound { next_secs: tally.next_secs, gone, bounces })
}

/// Makes the bounces that tell of those who are lost, and notes that they are told of: the ids of those bounces.
fn tell(queue: &Queue, settings: &Settings, id: &str, envelope: &Envelope, secs: i64) -> Result<Vec<String>, Miss> {
    if queue.read(id)?.tally.untold() == 0 {
        return Ok(Vec::new());
    }
    let mut losses: BTreeMap<u32, Loss> = BTreeMap::new();
    let mut from = 1;
    loop {
        let rows = queue.page(id, from, PAGE)?;
        let Some(last) = rows.last() else { break };
        from = last.number + 1;
        for row in &rows {
            let (State::Failed { why, bounce } | State::Expired { why, bounce }) = &row.state else { continue };
            let loss = losses.entry(*bounce).or_default();
            loss.count += 1;
            if loss.sender.is_empty() {
                loss.sender = ways::sender(&row.recipient, envelope).to_owned();
            }
            if loss.failures.len() < LISTED_MAX {
                let expired = row.state.stage() == Stage::Expired;
                loss.failures.push((ways::named(&row.recipient), why.clone(), expired));
            }
        }
    }
    let limit = if settings.bounce_body { BODY_BYTES } else { HEADER_BYTES };
    let original = queue.beginning(id, limit + 1)?;
    let mut bounces = Vec::new();
    for (number, loss) in losses {
        let bounce = bounce_id(id, number);
        let Some(sender) = address_of(&loss.sender).filter(|_| bounce.len() <= ID_BYTES) else {
            // Such a sender is taken from nobody; somebody has written into the file.
            return Err(Miss::Damaged(Fault::new(
                "reading the sender of",
                Path::new(id),
                io::ErrorKind::InvalidData.into(),
            )));
        };
        let failures: Vec<Failure<'_>> =
            loss.failures.iter().map(|(address, why, expired)| Failure { address, why, expired: *expired }).collect();
        let text = Bounce {
            id: &bounce,
            host: settings.main_domain(),
            sender: &loss.sender,
            written_secs: secs,
            origin: id,
            received_secs: envelope.received_secs,
            failures: &failures,
            count: loss.count,
            original: &original,
            whole: settings.bounce_body,
        };
        let about = Envelope {
            received_secs: secs,
            came: format!("a bounce of {id}"),
            eight_bit: true,
            utf8: envelope.utf8,
            bounce_of: Some((id.to_owned(), number)),
            ..Envelope::default()
        };
        let to = [ways::anywhere(&sender, settings)];
        let text = text.text();
        let made = match queue.create(&bounce, &about, &to, &Body::Memory(&text)) {
            Ok(made) => made,
            Err(Failed::Refused(Refused::Fault(fault) | Refused::Unsafe(fault)) | Failed::Unknown(fault)) => {
                return Err(Miss::Fault(fault));
            }
            Err(Failed::Refused(Refused::Locked | Refused::InUse)) => return Err(Miss::Gone),
        };
        queue.told(&bounce, secs)?;
        log::info!("delivery {id}: {} is told by {bounce}", printable(loss.sender.as_bytes()));
        if made == Made::New {
            bounces.push(bounce);
        }
    }
    Ok(bounces)
}

/// Those of whom one bounce tells.
#[derive(Default)]
struct Loss {
    sender: String,
    count: usize,
    /// Whom the sender had named, why, and whether it only took too long.
    failures: Vec<(String, String, bool)>,
}
