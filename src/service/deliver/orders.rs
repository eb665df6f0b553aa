//! What operators, and hosts that fetch their mail, can have done with messages of the queue: a job changes the states in the file,
//! then the table follows.
//!
//! | deed    | recipients that are     | become                          | then the message is due          |
//! |---------|-------------------------|---------------------------------|-----------------------------------|
//! | Hold    | waiting, deferred       | held                            | never                             |
//! | Release | held                    | waiting                         | at once                           |
//! | Retry   | deferred                | waiting                         | at once                           |
//! | Route   | waiting, deferred       | waiting, and go another way     | at once                           |
//! | Route   | held                    | held, and go another way then   | never                             |
//! | Delete  | waiting, deferred, held | deleted                         | never: its file goes              |
//!
//! A delivery that is under way comes to its end.
//!
//! **Many at once.** A job that changes thousands tells the table of at most [`HEARD`] of them; of more it says no more than that
//! there are more, and the table is filled from the files again. Nothing depends on it but how soon those are tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::queue::{Change, Miss, Queue, Row, Stage, State, Tally};
use crate::text::printable::visible;

/// Recipients whose states are read at a time.
const PAGE: u32 = 256;
/// Changed messages that the table is told of one by one.
const HEARD: usize = 4096;

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Nobody tries it until it is released. Why, for people.
    Hold(String),
    /// It is tried again like any other.
    Release,
    /// It is tried now.
    Retry,
    /// It goes this way from now on, and is tried now; empty: the way that the settings say.
    Route(Box<str>),
    /// It is taken away, and nobody is told.
    Delete,
}

/// A deed for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub id: Box<str>,
    /// What.
    pub deed: Deed,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obeyed {
    /// Recipients whose state has changed.
    pub changed: usize,
    /// When the message is due, if any of them may be tried.
    pub next_secs: Option<i64>,
    /// It has left the queue.
    pub gone: bool,
}

impl Obeyed {
    /// Whether something was changed that is to be tried now.
    pub(super) fn is_due(&self, now_secs: i64) -> bool {
        self.changed > 0 && self.next_secs.is_some_and(|next| next <= now_secs)
    }
}

impl Deed {
    /// Whether it changes a recipient in this stage.
    pub fn changes(&self, stage: Stage) -> bool {
        match self {
            Deed::Hold(_) => stage.is_open(),
            Deed::Release => stage == Stage::Held,
            Deed::Retry => stage == Stage::Deferred,
            Deed::Route(_) | Deed::Delete => stage.may_be_routed(),
        }
    }

    /// What a recipient is to become, if it changes it.
    pub fn change(&self, row: &Row) -> Option<State> {
        if !self.changes(row.state.stage()) {
            return None;
        }
        match self {
            Deed::Hold(why) => Some(State::Held { why: why.clone() }),
            Deed::Route(via) if row.via.as_deref().unwrap_or_default() == &**via => None,
            Deed::Route(_) if row.state.stage() == Stage::Held => Some(row.state.clone()),
            Deed::Release | Deed::Retry | Deed::Route(_) => Some(State::Waiting),
            Deed::Delete => Some(State::Deleted),
        }
    }

    /// What it has done, for the log.
    pub fn done(&self) -> &'static str {
        match self {
            Deed::Hold(_) => "held",
            Deed::Release => "released",
            Deed::Retry => "called to be tried now",
            Deed::Route(_) => "sent another way",
            Deed::Delete => "deleted",
        }
    }
}

impl Order {
    /// Does it. In a job. Refuses with a sentence.
    pub(super) fn obey(&self, queue: &Queue, now_secs: i64) -> Result<Obeyed, String> {
        let obeyed = self.deed.done_to(queue, &self.id, now_secs, &|_| true)?;
        if obeyed.changed > 0 {
            log::info!("delivery {}: {} recipients {} by an operator", self.id, obeyed.changed, self.deed.done());
        }
        Ok(obeyed)
    }
}

impl Deed {
    /// Does it to those recipients of a message that are meant. In a job. Refuses with a sentence.
    pub fn done_to(
        &self,
        queue: &Queue,
        id: &str,
        now_secs: i64,
        is_meant: &dyn Fn(&Row) -> bool,
    ) -> Result<Obeyed, String> {
        let via = match self {
            Deed::Route(via) => Some(&**via),
            _ => None,
        };
        change(queue, id, now_secs, &|row| Some((self.change(row).filter(|_| is_meant(row))?, via)))
    }
}

/// What a recipient is to become, and which way it is to go from then on, if that is said; `None`: nothing.
pub type Changed<'v> = dyn Fn(&Row) -> Option<(State, Option<&'v str>)> + 'v;

/// Changes the recipients of a message. In a job. Refuses with a sentence.
pub fn change(queue: &Queue, id: &str, now_secs: i64, to: &Changed<'_>) -> Result<Obeyed, String> {
    let sentence = |miss: Miss| match miss {
        Miss::Gone => format!("{}: no such message is in the queue", visible(id)),
        Miss::Damaged(fault) | Miss::Fault(fault) => visible(&fault.to_string()),
    };
    let (mut from, mut changed) = (1, 0);
    let mut tally: Option<Tally> = None;
    loop {
        let rows = queue.page(id, from, PAGE).map_err(sentence)?;
        let Some(last) = rows.last() else { break };
        from = last.number + 1;
        let mut groups: Vec<(Option<&str>, Vec<Change>)> = Vec::new();
        for row in &rows {
            let Some((to, via)) = to(row) else { continue };
            let change = Change { number: row.number, to };
            match groups.iter_mut().find(|(known, _)| *known == via) {
                Some((_, group)) => group.push(change),
                None => groups.push((via, vec![change])),
            }
        }
        for (via, changes) in groups {
            let noted = match via {
                Some(via) => queue.route(id, now_secs, &changes, via),
                None => queue.note(id, now_secs, &changes),
            };
            let noted = noted.map_err(sentence)?;
            changed += changes.len() - noted.refused.len();
            tally = Some(noted.tally);
        }
    }
    let tally = match tally {
        Some(tally) => tally,
        None => queue.read(id).map_err(sentence)?.tally,
    };
    let gone = tally.is_ended() && queue.remove(id).map_err(sentence)?;
    if changed > 0 && !gone {
        queue.put(id, tally.due_secs()).map_err(sentence)?;
    }
    Ok(Obeyed { changed, next_secs: tally.due_secs(), gone })
}

/// What a job that changes many has to tell the table, and is told.
#[derive(Debug, Default)]
pub struct Bulk {
    heard: Mutex<Heard>,
    /// The server stops: what is not done yet is left.
    stop: AtomicBool,
}

/// Messages that were changed.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Each, and when it is due.
    pub(super) some: Vec<(Box<str>, Obeyed)>,
    /// There are others.
    pub(super) more: bool,
}

impl Bulk {
    /// This one was changed.
    pub fn tell(&self, id: &str, obeyed: Obeyed) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.some.len() < HEARD {
            heard.some.push((id.into(), obeyed));
        } else {
            heard.more = true;
        }
    }

    /// Whether a job that goes on for long is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_news(&self) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.more || !heard.some.is_empty()
    }
}
