//! What came of the tries of a round: the new states of its recipients, and their way into the file.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::telling::{arrived, tell, warning};
use super::{Came, DOUBT_SECS, LEAST_SECS, NOTE_AGAIN, Part};
use crate::net::jobs::Kind as JobKind;
use crate::rules::retry;
use crate::rules::traffic::Class;
use crate::service::Outcome;
use crate::service::deliver::lanes::Stand;
use crate::service::deliver::runner::{Desk, Doing, Finished};
use crate::service::deliver::{Counts, Dispatched, Stores, ways};
use crate::settings::Settings;
use crate::store::queue::{Change, Envelope, How, Kind, Miss, Queue, State, Tally};
use crate::text::fault::Fault;
use crate::text::printable::{printable, visible};

/// Why nothing is tried for who is parked.
const PARKED: &str = "4.4.0 it is parked: a route says that it waits until somebody asks for it";

/// What is to be written down, and leaves as that is done: what is not can be done again without anything being tried again.
pub(in crate::service::deliver) struct Noting {
    /// Those who have one sender in each.
    changes: Vec<Vec<Change>>,
    stands: Vec<Arc<Stand>>,
    /// Bounces that were made.
    bounces: Vec<String>,
}

/// What came of noting.
pub(in crate::service::deliver) struct Wound {
    next_secs: Option<i64>,
    /// Senders are to be told of something when the round ends.
    owes: bool,
    /// It has left the queue.
    gone: bool,
}

impl Desk<'_> {
    /// What came of the try for one of its parts.
    pub(in crate::service::deliver) fn settle(&mut self, at: usize, part: usize, came: impl Into<Came>) {
        let (now_secs, came) = (self.secs, came.into());
        let settings = &self.shared.settings;
        let run = &mut self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        if let Came::NotTried(secs) = came {
            let secs = secs + run.random % (secs + 5).min(30);
            let at_secs = now_secs.saturating_add_unsigned(secs);
            run.again_secs = Some(run.again_secs.map_or(at_secs, |other| other.min(at_secs)));
            run.out -= 1;
            return self.note_when_all(at);
        }
        let Part { number, recipient, tries, expands, .. } = &run.parts[part];
        let place = if recipient.kind == Kind::Remote { retry::Place::Elsewhere } else { retry::Place::Here };
        let (number, tries) = (*number, tries + 1);
        let warned = warning(&run.parts[part], &envelope, settings, now_secs);
        let is_null = ways::sender(recipient, &envelope).is_empty();
        let random = run.random;
        let possibly = matches!(came, Came::Possibly(_));
        let verdict = |tries| {
            let (from_nobody, received_secs) = (is_null, envelope.received_secs);
            let tried = retry::Tried { place, from_nobody, possibly, received_secs, now_secs, tries, random };
            settings.retry_rules().verdict(tried)
        };
        let silent = is_null || recipient.notify.is_some_and(|notify| !notify.failure);
        let shown = format!("delivery {}: {}", run.id, printable(recipient.address.as_bytes()));
        let Counts { deferred, failed, dropped, delivered, .. } = &mut self.shared.transit.counts;
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
            State::Deferred { next_secs, tries, why, possibly, warned }
        };
        // Each of those it goes on to is counted when he has it.
        let counts = !matches!(came, Came::HandedOn);
        let to = match (came, verdict(tries)) {
            (Came::HandedOn, _) if *expands => arrived(recipient, &envelope, settings, How::Expanded, String::new()),
            (Came::HandedOn, _) => State::Delivered,
            (Came::Delivered(stands), _) => {
                log::info!("{shown}: delivered ({} bytes)", message.text.bytes());
                *delivered += 1;
                run.stands.extend(stands);
                arrived(recipient, &envelope, settings, How::Delivered, String::new())
            }
            (Came::Never(why), _) => lost(why, false),
            (Came::Later(why) | Came::Possibly(why), retry::Verdict::Expired) => lost(why, true),
            (Came::Sent { said, dsn, lmtp }, _) => {
                log::info!("{shown}: sent ({} bytes) to {}", message.text.bytes(), visible(&said));
                *delivered += 1;
                // Who reports by himself was told that this is wanted.
                let how = if lmtp { How::Delivered } else { How::Relayed };
                if dsn { State::Delivered } else { arrived(recipient, &envelope, settings, how, said) }
            }
            // It was not tried, and is not noted: see above.
            (Came::NotTried(_), _) => State::Waiting,
            (Came::Parked, retry::Verdict::Expired) => lost(PARKED.to_owned(), true),
            (Came::Later(why) | Came::Possibly(why), retry::Verdict::Again(next_secs)) => later(next_secs, why),
            (Came::Parked, retry::Verdict::Again(_)) => {
                later(settings.retry_rules().end_secs(is_null, envelope.received_secs), PARKED.to_owned())
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
            (State::Delivered | State::Succeeded { .. }, Kind::Remote) => Some(Class::Transferred),
            (State::Delivered | State::Succeeded { .. }, _) => Some(Class::Received),
            (State::Failed { .. } | State::Expired { .. } | State::Dropped { .. }, _) => Some(Class::Failed),
            _ => None,
        };
        if let Some(class) = class.filter(|_| counts) {
            let address = std::iter::once(recipient.address.as_str());
            self.shared.note(class, &run.id, message.text.bytes(), &message.sender, address);
        }
        run.changes.push(Change { number, to });
        run.out -= 1;
        self.note_when_all(at);
    }

    /// Writes down what is known once nothing more can come of the page.
    fn note_when_all(&mut self, at: usize) {
        let run = &self.runner.runs[at];
        if run.out > 0 || run.noting.is_some() {
            return self.is_away(at);
        }
        if run.changes.is_empty() && run.stands.is_empty() {
            return self.page_is_over(at, None);
        }
        self.note(at);
    }

    /// Writes down what is known although more will come: somebody waits for that.
    pub(super) fn note_soon(&mut self, at: usize) {
        if let Some(run) = self.runner.runs.get(at)
            && run.noting.is_none()
            && !run.lines.is_empty()
        {
            self.note(at);
        }
    }

    /// All parts have their fate, and it is noted. `next_secs`: when the first is due by what the file says, where that was read.
    fn page_is_over(&mut self, at: usize, next_secs: Option<Option<i64>>) {
        let run = &mut self.runner.runs[at];
        if let Some(ends) = run.ends.take() {
            return self.over(at, ends);
        }
        if run.next > 0 {
            return self.read_page(at);
        }
        if std::mem::take(&mut run.owes) {
            return self.note(at);
        }
        let next = match (run.again_secs, next_secs) {
            (Some(again), Some(Some(next))) => Next::At(Some(if next <= self.secs { again } else { next.min(again) })),
            (Some(again), _) => Next::At(Some(again)),
            (None, Some(next)) => Next::At(next),
            // Nobody was tried, and nobody noted.
            (None, None) => Next::Soon,
        };
        self.over(at, next);
    }

    /// Writes down what became of them.
    pub(super) fn note(&mut self, at: usize) {
        let run = &mut self.runner.runs[at];
        let Some((_, envelope)) = run.known.clone() else { return };
        run.tells = run.out == 0 && run.next == 0;
        let (mut changes, stands) = (std::mem::take(&mut run.changes), std::mem::take(&mut run.stands));
        run.noted_lines = std::mem::take(&mut run.lines);
        let parts = &run.parts;
        // Those who are lost at once are told of in one bounce: by sender, where forward lines have changed it.
        let senders: HashMap<u32, &str> = parts.iter().map(|part| (part.number, part.sender(&envelope))).collect();
        let sender = |change: &Change| senders.get(&change.number).copied();
        changes.sort_by_key(|change| (sender(change), change.number));
        let changes: Vec<Vec<Change>> =
            changes.chunk_by(|one, other| sender(one) == sender(other)).map(<[Change]>::to_vec).collect();
        run.noting = Some(Arc::new(Mutex::new(Noting { changes, stands, bounces: Vec::new() })));
        self.write_down(at);
    }

    /// Has a job do that. What a program or another message has already would be given to it once more if this were forgotten, so the
    /// run stays until it is done: while the disk is full, that is what holds the queue up.
    pub(in crate::service::deliver) fn write_down(&mut self, at: usize) {
        let Some(run) = self.runner.runs.get(at) else { return };
        let (Some((_, envelope)), Some(noting)) = (run.known.clone(), run.noting.clone()) else { return };
        let (id, secs, settings, is_last) = (run.id.clone(), self.secs, self.shared.settings.clone(), run.tells);
        self.shared.transit.counts.syncs += 1;
        let volume = self.shared.transit.stores.volume;
        let work = move |stores: &Stores, _: &_| {
            let mut noting = noting.lock().unwrap_or_else(PoisonError::into_inner);
            Finished::Noted(wind_up(stores, &settings, &id, &envelope, secs, is_last, &mut noting))
        };
        if let Err(busy) = self.job(Doing::Note(at), JobKind::Sync, volume, work) {
            let error = io::Error::other(format!("no room for a job: {busy:?}"));
            self.noted(at, Err(Miss::Fault(Fault::new("writing the queue", Path::new(""), error))));
        }
    }

    pub(in crate::service::deliver) fn noted(&mut self, at: usize, result: Result<Wound, Miss>) {
        let run = &mut self.runner.runs[at];
        let noting = run.noting.clone();
        let mut noting = noting.as_ref().map(|noting| noting.lock().unwrap_or_else(PoisonError::into_inner));
        let bounces = noting.as_mut().map(|noting| std::mem::take(&mut noting.bounces)).unwrap_or_default();
        let is_owed = noting.is_some_and(|noting| !noting.changes.is_empty());
        self.begin_bounces(&bounces);
        if let Err(Miss::Fault(fault)) = &result
            && is_owed
        {
            log::error!("the queue: {fault}");
            return self.runner.owed.push_back((self.now + NOTE_AGAIN, at));
        }
        let run = &mut self.runner.runs[at];
        run.noting = None;
        for line in std::mem::take(&mut run.noted_lines) {
            self.shared.outgoing.noted(line);
        }
        let next_secs = match result {
            Ok(Wound { gone: true, .. }) => {
                run.ends = Some(Next::Gone);
                None
            }
            Ok(Wound { next_secs, owes, .. }) => {
                run.owes = owes && !run.tells;
                Some(next_secs)
            }
            Err(miss) => {
                run.ends = Some(missed(miss));
                None
            }
        };
        if run.out == 0 && run.changes.is_empty() && run.stands.is_empty() {
            return self.page_is_over(at, next_secs);
        }
        self.note_when_all(at);
        self.note_soon(at);
    }

    /// What could not be written down is once more.
    pub(in crate::service::deliver) fn write_owed(&mut self) {
        while let Some(&(at, run)) = self.runner.owed.front()
            && at <= self.now
        {
            self.runner.owed.pop_front();
            self.write_down(run);
        }
    }

    pub(super) fn missed(&mut self, at: usize, miss: Miss) {
        self.over(at, missed(miss));
    }

    /// Bounces that the queue has now.
    pub(super) fn begin_bounces(&mut self, bounces: &[String]) {
        for id in bounces {
            self.shared.transit.counts.queued += 1;
            self.shared.transit.table.remove(id);
            self.keep(id, self.secs);
        }
    }

    /// The end of a round.
    pub(super) fn over(&mut self, at: usize, next: Next) {
        let run = self.runner.runs.remove(at);
        if run.is_counted {
            self.runner.tried -= 1;
        }
        if let Some(ticket) = run.answer {
            self.shared.post.push_back((ticket, Outcome::Dispatched(Dispatched::Kept)));
        }
        match next {
            Next::Gone => self.shared.transit.table.end(&run.id),
            // What is due already, and was not tried, waits for something.
            Next::At(next_secs) => self.leave(&run.id, next_secs.map(|secs| secs.max(self.secs + LEAST_SECS))),
            Next::Soon => self.leave_for_now(&run.id),
        }
    }

    /// Those whose first round takes long are answered.
    pub(in crate::service::deliver) fn answer_round(&mut self) {
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

/// What a file that could not be used comes to.
fn missed(miss: Miss) -> Next {
    match miss {
        Miss::Gone => Next::Gone,
        Miss::Fault(fault) => {
            log::error!("the queue: {fault}");
            Next::Soon
        }
        Miss::Damaged(fault) => {
            log::error!("the queue: {fault}");
            Next::Gone
        }
    }
}

/// When a message is looked at again.
pub(super) enum Next {
    /// By what its file says.
    At(Option<i64>),
    /// Its file could not be read or written.
    Soon,
    /// It has left the queue.
    Gone,
}

pub(super) fn set_aside(queue: &Queue, id: &str, miss: &Miss) {
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
    is_last: bool,
    noting: &mut Noting,
) -> Result<Wound, Miss> {
    let queue = &stores.queue;
    if noting.stands.iter().all(|stand| stand.found.is_empty()) && !noting.changes.is_empty() {
        match queue.finish(id, &noting.changes.concat()) {
            Ok(true) => {
                noting.changes.clear();
                noting.stands.drain(..).for_each(|stand| stand.noted(&stores.intents));
                return Ok(Wound { next_secs: None, owes: false, gone: true });
            }
            Err(Miss::Fault(fault)) => return Err(Miss::Fault(fault)),
            // What is wrong with it is found out below.
            Ok(false) | Err(Miss::Gone | Miss::Damaged(_)) => {}
        }
    }
    let noted = write_changes(queue, id, secs, &mut noting.changes);
    if let Err(Miss::Fault(fault)) = noted {
        return Err(Miss::Fault(fault));
    }
    // Also of a message that an operator has taken out meanwhile: else its appends stay open, and their drops are not compacted.
    let has_found = noting.stands.iter().any(|stand| !stand.found.is_empty());
    for stand in noting.stands.drain(..) {
        if !stand.found.is_empty()
            && let Err(fault) = queue.note_found(secs, &stand.found)
        {
            // It stays open: the next try for one of them finds it again.
            log::error!("the queue: {fault}");
            continue;
        }
        stand.noted(&stores.intents);
    }
    let mut tally = noted?;
    let before = noting.bounces.len();
    // What all pages of a round came to is told of together; mostly it is nothing, and its file is not asked.
    if is_last && (has_found || tally.as_ref().is_none_or(|tally| tally.untold > 0)) {
        tell(queue, settings, id, envelope, secs, &mut noting.bounces)?;
    }
    if noting.bounces.len() > before || has_found || tally.as_ref().is_none_or(|tally| is_last && tally.untold > 0) {
        tally = Some(queue.read(id)?.tally);
    }
    let tally = tally.unwrap_or_default();
    let gone = tally.is_ended() && queue.remove(id)?;
    if !gone {
        queue.put(id, tally.due_secs())?;
    }
    Ok(Wound { next_secs: tally.next_secs, owes: tally.untold > 0, gone })
}

/// How its recipients stand then; `None`: nothing was left to be written.
fn write_changes(queue: &Queue, id: &str, secs: i64, changes: &mut Vec<Vec<Change>>) -> Result<Option<Tally>, Miss> {
    let mut tally = None;
    while let Some(some) = changes.last() {
        match queue.note(id, secs, some) {
            Ok(noted) => tally = Some(noted.tally),
            Err(Miss::Fault(fault)) => return Err(Miss::Fault(fault)),
            Err(miss) => {
                changes.clear();
                set_aside(queue, id, &miss);
                return Err(miss);
            }
        }
        changes.pop();
    }
    Ok(tally)
}
