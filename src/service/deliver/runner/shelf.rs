//! What waits in the queue, as the runner knows it: the table has those that are due soonest, jobs look for more, and what the table
//! has no room for is put where it is found when it is due.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::{AGAIN_SECS, Desk, Doing, Finished, Loading, REACH_SECS, RUNS, SPACE_LIFE};
use crate::net::jobs::{Kind, Pulse};
use crate::rules::retry::Place;
use crate::service::deliver::run::Run;
use crate::service::deliver::{Dispatched, Stores, answer_to};
use crate::store::queue::{self, Miss, Soonest};
use crate::store::repeats::Marked;
use crate::text::fault::Fault;

impl Desk<'_> {
    pub(super) fn load(&mut self) {
        self.runner.loading = Loading::Asked;
        let (secs, most) = (self.secs, self.shared.transit.table.most());
        let volume = self.shared.transit.stores.volume;
        let work = move |stores: &Stores, pulse: &Pulse| Finished::Loaded(list(stores, secs, most, pulse));
        if let Err(busy) = self.job(Doing::Load, Kind::Read, volume, work) {
            self.loaded(Err(Fault::new("reading the queue", Path::new(""), io::Error::other(format!("{busy}")))));
        }
    }

    pub(super) fn loaded(&mut self, result: Result<Vec<(String, i64)>, Fault>) {
        self.shared.transit.knows_marks = true;
        match result {
            Ok(messages) => {
                // Those that were filed while we looked.
                let table = self.shared.transit.table.iter().map(|(id, _)| id.to_owned());
                let ours: HashSet<String> =
                    self.runner.runs.iter().map(|(_, run)| run.id().to_owned()).chain(table).collect();
                if !messages.is_empty() {
                    log::info!("{} messages wait in the queue", messages.len());
                }
                for (id, due) in messages.into_iter().filter(|(id, _)| !ours.contains(id)) {
                    self.keep(&id, self.passed_over(&id).map_or(due, |until| due.max(until)));
                }
                self.runner.loading = Loading::Done;
                for at in std::mem::take(&mut self.runner.unfiled) {
                    self.file(at);
                }
                self.shared.transit.ready = true;
                self.count();
            }
            Err(fault) => {
                log::error!("the queue cannot be looked through: {fault}");
                self.runner.loading = Loading::From(self.now + SPACE_LIFE);
                for at in std::mem::take(&mut self.runner.unfiled) {
                    self.answer(at, Dispatched::Refused(answer_to(&fault)));
                }
            }
        }
        for at in std::mem::take(&mut self.runner.unclaimed) {
            self.claim(at);
        }
    }

    /// Until when a message is passed over.
    pub(super) fn passed_over(&self, id: &str) -> Option<i64> {
        let (_, until) = self.runner.passed_over.iter().find(|(known, _)| **known == *id)?;
        Some(self.secs.saturating_add_unsigned(until.saturating_duration_since(self.now).as_secs()))
    }

    pub(super) fn count(&mut self) {
        let work = |stores: &Stores, pulse: &Pulse| {
            let (queue, beat) = (&stores.queue, &mut || pulse.beat());
            let count = queue.count_all(&mut tell_of, beat);
            Finished::Counted(count.and_then(|count| Ok((count, queue.release_forgotten(beat)?))))
        };
        let volume = self.shared.transit.stores.volume;
        if let Err(busy) = self.job(Doing::Count, Kind::Bulk, volume, work) {
            log::warn!("the queue cannot be counted: {busy}");
        }
    }

    pub(super) fn may_seek(&self) -> bool {
        self.runner.loading == Loading::Done && !self.runner.emptied && !self.shared.stopping
    }

    /// Has a job look for more that is due.
    pub(super) fn seek(&mut self) {
        if !self.may_seek() || self.now < self.runner.seek_from || !self.shared.transit.table.is_low(self.secs) {
            return;
        }
        let through = self.runner.horizon.map_or(self.secs, |horizon| horizon.max(self.secs));
        let reach = self.shared.settings.queue_life.max(REACH_SECS);
        let latest = through.saturating_add_unsigned(reach);
        let (most, volume) = (self.shared.transit.table.look(), self.shared.transit.stores.volume);
        let work = move |stores: &Stores, pulse: &Pulse| {
            Finished::Sought(stores.queue.soonest(through, latest, most, &mut || pulse.beat()))
        };
        if let Err(busy) = self.job(Doing::Seek, Kind::Read, volume, work) {
            self.sought(Err(Fault::new("reading the queue", Path::new(""), io::Error::other(format!("{busy}")))));
        }
    }

    pub(super) fn sought(&mut self, result: Result<Soonest, Fault>) {
        match result {
            Ok(mut soonest) => {
                let secs = self.secs;
                let is_through = |horizon: &mut i64| soonest.more_secs.is_none_or(|more| more > *horizon);
                if self.runner.horizon.is_some() {
                    soonest.messages.iter_mut().for_each(|(due, _)| *due = (*due).min(secs));
                }
                self.runner.horizon.take_if(is_through);
                if !self.runner.passed_over.is_empty() {
                    for (due, id) in &mut soonest.messages {
                        *due = self.passed_over(id.as_str()).map_or(*due, |until| until.max(*due));
                    }
                }
                let out = self.shared.transit.table.found(soonest);
                self.put_out(out);
            }
            Err(fault) => {
                log::error!("the queue cannot be looked through: {fault}");
                self.shared.transit.table.look_failed();
                self.runner.seek_from = self.now + SPACE_LIFE;
            }
        }
        self.try_due();
    }

    pub(super) fn put_out(&mut self, out: impl IntoIterator<Item = queue::Id>) {
        self.runner.out.extend(out);
    }

    /// Whom the table has put out is put where he is found, unless he lies there.
    pub(super) fn let_go(&mut self) {
        if self.runner.out.is_empty() || self.runner.out_from.is_none_or(|at| self.now < at) {
            return;
        }
        let out = std::mem::take(&mut self.runner.out);
        let again = out.clone();
        self.runner.out_from = None;
        let volume = self.shared.transit.stores.volume;
        let work = move |stores: &Stores, pulse: &Pulse| Finished::LetGo(let_go(&stores.queue, out, pulse));
        if self.job(Doing::LetGo, Kind::Read, volume, work).is_err() {
            self.runner.out = again;
            self.runner.out_from = Some(self.now + SPACE_LIFE);
        }
    }

    pub(super) fn may_try(&self) -> bool {
        self.runner.loading == Loading::Done && self.runner.tried < RUNS && !self.shared.stopping
    }

    /// Messages of the queue that are due.
    pub(super) fn try_due(&mut self) {
        while self.may_try()
            && let Some(id) = self.shared.transit.table.pop_due(self.secs)
        {
            // Two rounds at once would deliver it twice; when the one ends it comes back into the table by itself.
            if self.runner.runs.iter().any(|(_, run)| run.id() == id) {
                continue;
            }
            self.runner.tried += 1;
            let run = self.runner.runs.insert(Run::counted(id));
            self.read_page(run);
        }
    }

    /// A message of the queue is left alone until it is due, by what its file says, which lies where it is found then; `None`: for ever.
    pub(in crate::service::deliver) fn leave(&mut self, id: &str, next_secs: Option<i64>) {
        let rules = self.shared.settings.retry_rules();
        let bounded = next_secs.map(|secs| rules.bounded(Place::Elsewhere, secs, self.secs));
        let out = match bounded {
            // Its place does not say that.
            Some(due) if bounded != next_secs => self.shared.transit.table.keep(id, due),
            due => self.shared.transit.table.insert(id, due),
        };
        self.put_out(out);
    }

    /// The same until then, whatever its file says and wherever it lies.
    pub(in crate::service::deliver) fn keep(&mut self, id: &str, due_secs: i64) {
        let out = self.shared.transit.table.keep(id, due_secs);
        self.put_out(out);
    }

    /// The same for a while, when its file could not be read or written.
    pub(in crate::service::deliver) fn leave_for_now(&mut self, id: &str) {
        self.keep(id, self.secs + AGAIN_SECS);
    }
}

/// What is new in the queue, and when it is due: `most` of that. The rest, and what an older server left there to wait, is put where it
/// is found when it is due. The marks of those that nobody has tried are kept.
fn list(stores: &Stores, now_secs: i64, most: usize, pulse: &Pulse) -> Result<Vec<(String, i64)>, Fault> {
    let queue = &stores.queue;
    let mut messages = Vec::new();
    queue.each(&mut |found| {
        pulse.beat();
        let (id, due) = match found {
            queue::Found::Message(message) => {
                // One that nobody has tried: its maker may have been killed before its mark was kept.
                let is_new = message.tally.at(queue::Stage::Waiting) == message.recipients;
                if let Some(mark) = message.envelope.mark.filter(|_| is_new) {
                    stores.intents.repeats().keep(&Marked { mark, id: message.id.as_str().into() });
                }
                let due = message.tally.due_secs();
                (message.id, due)
            }
            queue::Found::Unread(id, fault) => {
                log::error!("the queue: {fault}");
                (id, Some(0))
            }
            other => return tell_of(other),
        };
        let waits = due.is_none_or(|due| due > now_secs) || messages.len() >= most;
        match waits.then(|| queue.put(&id, due)) {
            Some(Ok(()) | Err(Miss::Gone)) => {}
            Some(Err(Miss::Damaged(fault) | Miss::Fault(fault))) => {
                log::error!("the queue: {fault}");
                messages.extend(due.map(|due| (id, due)));
            }
            None => messages.extend(due.map(|due| (id, due))),
        }
    })?;
    Ok(messages)
}

/// What is no message.
fn tell_of(found: queue::Found) {
    match found {
        queue::Found::Aside(path) => {
            log::warn!("{}: a damaged message of the queue waits for somebody to look at it", path.display());
        }
        queue::Found::SetAside(path, fault) => log::error!("the queue: {fault}; it is {} now", path.display()),
        queue::Found::Strange(path) => log::warn!("{}: this is not of the queue", path.display()),
        queue::Found::Unread(_, fault) => log::error!("the queue: {fault}"),
        queue::Found::Message(_) => {}
    }
}

/// Those of whom it failed are to be let go once more.
fn let_go(queue: &queue::Queue, ids: Vec<queue::Id>, pulse: &Pulse) -> Vec<queue::Id> {
    let mut failed = ids;
    failed.retain(|id| {
        pulse.beat();
        match queue.let_go(id.as_str()) {
            Ok(()) | Err(Miss::Gone) => false,
            Err(Miss::Damaged(fault) | Miss::Fault(fault)) => {
                log::error!("the queue: {fault}");
                true
            }
        }
    });
    failed
}
