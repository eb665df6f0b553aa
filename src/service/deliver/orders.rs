//! What operators can have done with messages of the queue: a job changes the states in the file, then the table follows.
//!
//! | deed    | recipients that are | become  | then the message is due          |
//! |---------|---------------------|---------|-----------------------------------|
//! | Hold    | waiting, deferred   | held    | never                             |
//! | Release | held                | waiting | at once                           |
//! | Retry   | deferred            | waiting | at once                           |
//! | Delete  | waiting, deferred, held | deleted | never: its file goes           |
//!
//! A delivery that is under way comes to its end.

use crate::store::queue::{Change, Miss, Queue, Stage, State};
use crate::text::printable::visible;

/// Recipients whose states are read at a time.
const PAGE: u32 = 256;

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Nobody tries it until it is released. Why, for people.
    Hold(String),
    /// It is tried again like any other.
    Release,
    /// It is tried now.
    Retry,
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
pub(super) struct Obeyed {
    /// Recipients whose state has changed.
    pub(super) changed: usize,
    /// When the message is due, if any of them may be tried.
    pub(super) next_secs: Option<i64>,
    /// It has left the queue.
    pub(super) gone: bool,
}

impl Deed {
    /// Whether it changes a recipient in this stage.
    pub fn changes(&self, stage: Stage) -> bool {
        self.change(stage).is_some()
    }

    fn change(&self, stage: Stage) -> Option<State> {
        match self {
            Deed::Hold(why) if stage.is_open() => Some(State::Held { why: why.clone() }),
            Deed::Release if stage == Stage::Held => Some(State::Waiting),
            Deed::Retry if stage == Stage::Deferred => Some(State::Waiting),
            Deed::Delete if stage.is_open() || stage == Stage::Held => Some(State::Deleted),
            _ => None,
        }
    }
}

impl Order {
    /// Does it. In a job.
    pub(super) fn obey(&self, queue: &Queue, now_secs: i64) -> Result<Obeyed, String> {
        let sentence = |miss: Miss| match miss {
            Miss::Gone => format!("{}: no such message is in the queue", visible(&self.id)),
            Miss::Damaged(fault) | Miss::Fault(fault) => visible(&fault.to_string()),
        };
        let (mut from, mut changed) = (1, 0);
        let mut tally = queue.read(&self.id).map_err(sentence)?.tally;
        loop {
            let rows = queue.page(&self.id, from, PAGE).map_err(sentence)?;
            let Some(last) = rows.last() else { break };
            from = last.number + 1;
            let changes: Vec<Change> = (rows.iter())
                .filter_map(|row| Some(Change { number: row.number, to: self.deed.change(row.state.stage())? }))
                .collect();
            if !changes.is_empty() {
                let noted = queue.note(&self.id, now_secs, &changes).map_err(sentence)?;
                changed += changes.len() - noted.refused.len();
                tally = noted.tally;
            }
        }
        let gone = tally.is_ended() && queue.remove(&self.id).map_err(sentence)?;
        if changed > 0 && !gone {
            queue.put(&self.id, tally.due_secs()).map_err(sentence)?;
        }
        Ok(Obeyed { changed, next_secs: tally.next_secs, gone })
    }
}
