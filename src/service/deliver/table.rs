//! When which message of the queue is due: of each its id and a time, 56 bytes beside the tree's own, whatever is in its file.

use std::collections::BTreeSet;

/// The longest id that there is room for: a message's, and a few times a letter and a number behind it.
const ID_BYTES: usize = 40;
/// When a message is due of which no recipient may be tried.
const NEVER: i64 = i64::MAX;

/// An id without a box of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    bytes: [u8; ID_BYTES],
    length: u8,
}

impl Id {
    fn new(id: &str) -> Option<Id> {
        let mut bytes = [0; ID_BYTES];
        bytes.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        Some(Id { bytes, length: id.len() as u8 })
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("it was one")
    }
}

/// The messages of the queue.
#[derive(Default)]
pub struct Table {
    /// Those that wait, in seconds since 1970.
    by_due: BTreeSet<(i64, Id)>,
    /// Those that are being tried just now: each comes back, or has gone.
    tried: BTreeSet<Id>,
}

impl Table {
    /// A message waits until then; `None`: until an operator has done something about it.
    pub(super) fn insert(&mut self, id: &str, due_secs: Option<i64>) {
        match Id::new(id) {
            Some(id) => {
                self.tried.remove(&id);
                self.by_due.insert((due_secs.unwrap_or(NEVER), id));
            }
            // None of ours is so long, and the queue's files are read again at the next start.
            None => log::error!("the queue: {id}: an id of more than {ID_BYTES} bytes is not tried"),
        }
    }

    /// A message that has not waited is being tried.
    pub(super) fn begin(&mut self, id: &str) {
        self.tried.extend(Id::new(id));
    }

    /// A message that was being tried has left the queue.
    pub(super) fn end(&mut self, id: &str) {
        Id::new(id).inspect(|id| _ = self.tried.remove(id));
    }

    /// Takes a message out that waits, wherever it stands; whether it was there.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let found = self.by_due.iter().find(|(_, known)| known.as_str() == id).copied();
        found.is_some_and(|found| self.by_due.remove(&found))
    }

    /// The message that has been due for longest: it is being tried now.
    pub(super) fn pop_due(&mut self, now_secs: i64) -> Option<String> {
        let (due, id) = *self.by_due.first()?;
        if due > now_secs {
            return None;
        }
        self.by_due.pop_first();
        self.tried.insert(id);
        Some(id.as_str().to_owned())
    }

    /// Each due time becomes what this says.
    pub(super) fn put_back(&mut self, due: impl Fn(i64) -> i64) {
        let due = |(secs, id): (i64, Id)| (if secs == NEVER { NEVER } else { due(secs) }, id);
        self.by_due = std::mem::take(&mut self.by_due).into_iter().map(due).collect();
    }

    /// When the first is due.
    pub(super) fn first_secs(&self) -> Option<i64> {
        self.by_due.first().map(|(due, _)| *due).filter(|&due| due != NEVER)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_due.len() + self.tried.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each, with when it is due, in seconds since 1970; `None`: none of its recipients may be tried. First those that are being
    /// tried, due long ago, then who is due first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<i64>)> {
        let tried = self.tried.iter().map(|id| (id.as_str(), Some(0)));
        tried.chain(self.by_due.iter().map(|(due, id)| (id.as_str(), Some(*due).filter(|&due| due != NEVER))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_what_never_is_does_not_come() {
        let mut table = Table::default();
        for (id, due) in [("b", Some(20)), ("c", None), ("a", Some(10)), ("d", Some(20))] {
            table.insert(id, due);
        }
        assert_eq!(table.iter().collect::<Vec<_>>(), [("a", Some(10)), ("b", Some(20)), ("d", Some(20)), ("c", None)]);
        assert_eq!((table.pop_due(9), table.first_secs()), (None, Some(10)));
        assert_eq!(table.pop_due(10).as_deref(), Some("a"));
        assert!(table.remove("d") && !table.remove("d"));
        assert_eq!(table.pop_due(i64::MAX - 1).as_deref(), Some("b"));
        assert_eq!((table.pop_due(i64::MAX - 1), table.first_secs(), table.len()), (None, None, 3));
        table.insert(&"x".repeat(ID_BYTES + 1), Some(1));
        assert_eq!(table.len(), 3);
        assert_eq!(size_of::<(i64, Id)>(), 56);
    }

    #[test]
    fn what_is_being_tried_is_still_in_the_queue_until_it_has_gone() {
        let mut table = Table::default();
        table.insert("a", Some(10));
        table.begin("b");
        assert_eq!(table.pop_due(10).as_deref(), Some("a"));
        assert_eq!(table.iter().collect::<Vec<_>>(), [("a", Some(0)), ("b", Some(0))]);
        assert!(!table.remove("a"), "it comes back by itself");
        table.insert("a", Some(20));
        table.end("b");
        assert_eq!((table.iter().collect::<Vec<_>>(), table.len()), (vec![("a", Some(20))], 1));
        assert_eq!(table.pop_due(20).as_deref(), Some("a"));
        table.end("a");
        assert!(table.is_empty());
    }
}
