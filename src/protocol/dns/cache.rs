//! What name servers said, for as long as they said, in bounded room: what was not asked for longest goes first.
//!
//! | answer        | good for                                          | when nobody can tell, good for            |
//! |---------------|---------------------------------------------------|-------------------------------------------|
//! | records       | the least of its records' times, at most [`LIFE`] | [`STALE`] more                            |
//! | no such name, no such records | the SOA's time, at most [`ABSENCE`]; without one not at all | no longer       |
//!
//! An answer stands under its question and teaches nothing about other names.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::{Answer, Question, Record};

/// Answers kept.
pub const ENTRIES: usize = 2000;
/// Bytes that they hold.
pub const BYTES: usize = 256 * 1024;
/// Bytes of one answer; what is larger is not kept.
const LARGEST: usize = BYTES / 8;
/// How long records are good at most.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long it is good at most that there are none.
const ABSENCE: Duration = Duration::from_secs(3600);
/// For how long records serve that are not good any more, while nobody can tell better ones.
const STALE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
struct Entry {
    answer: Answer,
    until: Instant,
    /// Its place in the order.
    place: u64,
    bytes: usize,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Question, Entry>,
    /// The same questions, those first that were not asked for longest.
    order: BTreeMap<u64, Question>,
    place: u64,
    /// Of all entries.
    bytes: usize,
}

impl Cache {
    /// An answer that is still good.
    pub fn find(&mut self, now: Instant, question: &Question) -> Option<Answer> {
        let entry = self.entries.get_mut(question).filter(|entry| now < entry.until)?;
        self.place += 1;
        if let Some(question) = self.order.remove(&entry.place) {
            self.order.insert(self.place, question);
        }
        entry.place = self.place;
        Some(entry.answer.clone())
    }

    /// Records that were good not too long ago.
    pub fn stale(&self, now: Instant, question: &Question) -> Option<Answer> {
        let entry = self.entries.get(question)?;
        let serves = matches!(entry.answer, Answer::Records(_)) && now < entry.until + STALE;
        serves.then(|| entry.answer.clone())
    }

    /// Keeps an answer in place of the one before.
    pub fn put(&mut self, now: Instant, question: &Question, answer: &Answer, ttl: u32) {
        if let Some(old) = self.entries.remove(question) {
            self.order.remove(&old.place);
            self.bytes -= old.bytes;
        }
        let most = if matches!(answer, Answer::Records(_)) { LIFE } else { ABSENCE };
        let bytes = held(question, answer);
        if bytes > LARGEST {
            return;
        }
        let until = now + Duration::from_secs(ttl.into()).min(most);
        self.place += 1;
        self.bytes += bytes;
        self.order.insert(self.place, question.clone());
        self.entries.insert(question.clone(), Entry { answer: answer.clone(), until, place: self.place, bytes });
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }

    /// Forgets everything; how much that was.
    pub fn clear(&mut self) -> usize {
        let count = self.entries.len();
        *self = Cache::default();
        count
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that they hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes that an answer and its question, which stands in both tables, hold.
fn held(question: &Question, answer: &Answer) -> usize {
    let records = match answer {
        Answer::Records(records) => records.iter().map(|record| size_of::<Record>() + behind(record)).sum(),
        Answer::NoData | Answer::NoName | Answer::Failed(_) => 0,
    };
    size_of::<Entry>() + 2 * (size_of::<Question>() + question.name.len()) + size_of::<u64>() + records
}

fn behind(record: &Record) -> usize {
    match record {
        Record::Address(_) => 0,
        Record::Mx { host: name, .. } | Record::Name(name) => name.len(),
        Record::Text(bytes) | Record::Other(bytes) => bytes.len(),
    }
}
