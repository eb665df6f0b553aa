//! When which message of the queue is due: of those that are due first. The others are known to their files alone.
//!
//! | a message                    | is                                                                                             |
//! |------------------------------|------------------------------------------------------------------------------------------------|
//! | due before the *mark*        | here                                                                                           |
//! | due behind it                | in the directory of its hour; here too if somebody wants it kept who cannot count on that       |
//! | being tried                  | here, under another heading, until it comes back or has gone                                   |
//! | not to be tried              | not here                                                                                       |
//!
//! At most [`MOST`] wait here. What comes when it is full puts out who is due last, and the mark goes there. When fewer than
//! a quarter are left and the hour of the mark has begun, somebody looks for more ([`is_low`](Table::is_low)): whoever comes meanwhile is
//! kept, for he may not have been found.

use std::collections::{BTreeSet, HashSet};

use crate::store::queue::{Id, Soonest};

/// Messages that wait here, at most: 56 bytes each beside the tree's own.
pub const MOST: usize = 16_384;
/// The mark when nothing waits elsewhere.
const NOWHERE: i64 = i64::MAX;
const HOUR_SECS: i64 = 3600;

/// See the page.
pub struct Table {
    /// Those that wait, in seconds since 1970.
    by_due: BTreeSet<(i64, Id)>,
    /// Those that are being tried just now: each comes back, or has gone.
    tried: BTreeSet<Id>,
    /// Whoever is due before it is here.
    mark: i64,
    /// Whoever was put out since somebody looks for more is due then, or later.
    looking: Option<i64>,
    /// How many may wait.
    most: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table::with(MOST)
    }
}

impl Table {
    /// With so many at most; nothing is known yet of what waits elsewhere.
    pub(super) fn with(most: usize) -> Table {
        Table { by_due: BTreeSet::new(), tried: BTreeSet::new(), mark: i64::MIN, looking: None, most }
    }

    /// How many may wait.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A message waits until then; `None`: until an operator has done something about it. Its file lies where it is found when that is
    /// due. Gives who is put out for it.
    pub(super) fn insert(&mut self, id: &str, due_secs: Option<i64>) -> Option<Id> {
        match due_secs {
            Some(due) if due < self.mark || self.looking.is_some() => self.keep(id, due),
            _ => {
                self.end(id);
                None
            }
        }
    }

    /// A message waits until then, wherever its file lies. Gives who is put out for it, if it is not it itself.
    pub(super) fn keep(&mut self, id: &str, due_secs: i64) -> Option<Id> {
        let Some(id) = Id::new(id) else {
            // The queue has given it none of these.
            log::error!("the queue: {}: an id that is none is not tried", id.len());
            return None;
        };
        self.tried.remove(&id);
        self.by_due.insert((due_secs, id));
        if self.by_due.len() <= self.most {
            return None;
        }
        let (due, out) = self.by_due.pop_last()?;
        self.mark = self.mark.min(due);
        self.looking = self.looking.map(|least| least.min(due));
        Some(out)
    }

    /// A message that has not waited is being tried.
    pub(super) fn begin(&mut self, id: &str) {
        self.tried.extend(Id::new(id));
    }

    /// A message that was being tried has left the queue, or waits elsewhere.
    pub(super) fn end(&mut self, id: &str) {
        Id::new(id).inspect(|id| _ = self.tried.remove(id));
    }

    /// Whether it is being tried.
    pub(super) fn is_tried(&self, id: &str) -> bool {
        Id::new(id).is_some_and(|id| self.tried.contains(&id))
    }

    /// Takes a message out that waits, wherever it stands; whether it was there.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let found = self.by_due.iter().find(|(_, known)| known.as_str() == id).copied();
        found.is_some_and(|found| self.by_due.remove(&found))
    }

    /// Takes these out, as far as they wait here.
    pub(super) fn remove_all<'i>(&mut self, ids: impl Iterator<Item = &'i str>) {
        let ids: HashSet<Id> = ids.filter_map(Id::new).collect();
        if !ids.is_empty() {
            self.by_due.retain(|(_, id)| !ids.contains(id));
        }
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
        self.by_due = std::mem::take(&mut self.by_due).into_iter().map(|(secs, id)| (due(secs), id)).collect();
        if self.mark != NOWHERE {
            self.mark = due(self.mark);
        }
    }

    /// Whether more of what waits elsewhere is to be looked for now.
    pub(super) fn is_low(&self, now_secs: i64) -> bool {
        self.more_secs().is_some_and(|secs| secs <= now_secs)
    }

    /// Somebody looks for more: for so many.
    pub(super) fn look(&mut self) -> usize {
        self.looking = Some(NOWHERE);
        self.most + self.tried.len()
    }

    /// He has found nothing out.
    pub(super) fn look_failed(&mut self) {
        self.mark = self.mark.min(self.looking.take().unwrap_or(NOWHERE));
    }

    /// Somebody may wait elsewhere from any time on.
    pub(super) fn look_again(&mut self) {
        self.mark = i64::MIN;
        self.looking = self.looking.map(|_| i64::MIN);
    }

    /// Many wait for other times than are known here: nobody waits here any more, and all are to be looked for. Gives them, since
    /// some may lie where they are not found.
    pub(super) fn look_for_all(&mut self) -> Vec<Id> {
        self.look_again();
        std::mem::take(&mut self.by_due).into_iter().map(|(_, id)| id).collect()
    }

    /// These were found, and more wait elsewhere from then on. Whoever is here already, or is being tried, stays as he is. Gives who is
    /// put out for them.
    pub(super) fn found(&mut self, soonest: Soonest) -> Vec<Id> {
        let Soonest { messages, more_secs } = soonest;
        let here: HashSet<Id> = self.by_due.iter().map(|(_, id)| *id).collect();
        let is_new = |id: &Id| !here.contains(id) && !self.tried.contains(id);
        // From what is in order already a tree is made at once, and without gaps.
        let mut fresh: BTreeSet<(i64, Id)> = messages.into_iter().filter(|(_, id)| is_new(id)).collect();
        self.by_due.append(&mut fresh);
        self.mark = more_secs.unwrap_or(NOWHERE).min(self.looking.take().unwrap_or(NOWHERE));
        let mut out = Vec::new();
        while self.by_due.len() > self.most
            && let Some((due, id)) = self.by_due.pop_last()
        {
            self.mark = self.mark.min(due);
            out.extend(here.contains(&id).then_some(id));
        }
        out
    }

    /// When the first that is here is due.
    pub(super) fn first_due(&self) -> Option<i64> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// When more is to be looked for, if nothing else happens.
    pub(super) fn more_secs(&self) -> Option<i64> {
        let waits = self.looking.is_none() && self.has_room() && self.mark != NOWHERE;
        waits.then(|| begin_of_hour(self.mark))
    }

    fn has_room(&self) -> bool {
        self.by_due.len() < self.most.div_ceil(4)
    }

    /// How many there are here.
    pub fn len(&self) -> usize {
        self.by_due.len() + self.tried.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each that is here, with when it is due, in seconds since 1970. First those that are being tried, due long ago, then who is due first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let tried = self.tried.iter().map(|id| (id.as_str(), 0));
        tried.chain(self.by_due.iter().map(|(due, id)| (id.as_str(), *due)))
    }
}

fn begin_of_hour(secs: i64) -> i64 {
    secs.div_euclid(HOUR_SECS).saturating_mul(HOUR_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What waits here, in order.
    fn shown(table: &Table) -> Vec<(&str, i64)> {
        table.iter().collect()
    }

    fn soonest(messages: &[(i64, &str)], more_secs: Option<i64>) -> Soonest {
        let messages = messages.iter().map(|(due, id)| (*due, Id::new(id).unwrap())).collect();
        Soonest { messages, more_secs }
    }

    /// One that knows that nothing waits elsewhere.
    fn table(most: usize) -> Table {
        let mut table = Table::with(most);
        assert!(table.is_low(0));
        table.look();
        assert_eq!(table.found(Soonest::default()), []);
        table
    }

    #[test]
    fn what_is_due_first_comes_first_and_what_never_is_does_not_come() {
        let mut table = table(100);
        for (id, due) in [("b", Some(20)), ("c", None), ("a", Some(10)), ("d", Some(20))] {
            assert_eq!(table.insert(id, due), None);
        }
        assert_eq!(shown(&table), [("a", 10), ("b", 20), ("d", 20)]);
        assert_eq!((table.pop_due(9), table.first_due(), table.more_secs()), (None, Some(10), None));
        assert_eq!(table.pop_due(10).as_deref(), Some("a"));
        assert!(table.remove("d") && !table.remove("d"));
        assert_eq!(table.pop_due(i64::MAX).as_deref(), Some("b"));
        assert_eq!((table.pop_due(i64::MAX), table.first_due(), table.len()), (None, None, 2));
        table.keep("no id", 1);
        assert_eq!(table.len(), 2);
        assert_eq!(size_of::<(i64, Id)>(), 56);
    }

    #[test]
    fn what_is_being_tried_is_still_in_the_queue_until_it_has_gone() {
        let mut table = table(100);
        table.insert("a", Some(10));
        table.begin("b");
        assert_eq!(table.pop_due(10).as_deref(), Some("a"));
        assert_eq!(shown(&table), [("a", 0), ("b", 0)]);
        assert!(!table.remove("a") && table.is_tried("a"), "it comes back by itself");
        table.insert("a", Some(20));
        table.end("b");
        assert_eq!((shown(&table), table.len()), (vec![("a", 20)], 1));
        assert_eq!(table.pop_due(20).as_deref(), Some("a"));
        table.end("a");
        assert!(table.is_empty());
    }

    #[test]
    fn so_many_wait_here_and_the_others_are_looked_for_when_few_are_left() {
        let mut table = table(4);
        for k in 0..4 {
            assert_eq!(table.insert(&format!("a{k}"), Some(10 + k)), None);
        }
        assert_eq!(table.insert("b", Some(12)), Id::new("a3"), "who is due last is put out");
        assert_eq!(table.insert("c", Some(13)), None, "who is due then or later waits elsewhere");
        assert_eq!(table.keep("d", 13), Id::new("d"), "who cannot count on that is put out himself");
        assert_eq!((table.len(), table.more_secs()), (4, None), "there are enough");
        for _ in 0..4 {
            assert!(!table.is_low(100));
            table.pop_due(100).unwrap();
        }
        assert!(table.is_low(0), "the hour has begun");
        assert_eq!(table.look(), 8, "those that are being tried are found too");
        assert!(!table.is_low(100) && table.more_secs().is_none(), "somebody looks already");
        assert_eq!(table.insert("e", Some(7200)), None);
        assert!(shown(&table).contains(&("e", 7200)), "it may have come too late to be found");
        assert_eq!(table.found(soonest(&[(13, "c"), (13, "d"), (13, "a3"), (14, "a1"), (15, "e")], Some(3600))), []);
        assert_eq!(shown(&table)[4..], [("a3", 13), ("c", 13), ("d", 13), ("e", 7200)]);
        (0..3).for_each(|_| drop(table.pop_due(100)));
        assert_eq!(table.more_secs(), None, "one is left of four");
        table.remove("e");
        assert_eq!((table.more_secs(), table.is_low(3599), table.is_low(3600)), (Some(3600), false, true));
        table.look();
        table.keep("f", 5000);
        for k in 0..4 {
            table.keep(&format!("g{k}"), 4000);
        }
        table.look_failed();
        assert!(table.insert("h", Some(5000)).is_none() && !shown(&table).contains(&("h", 5000)));
    }

    #[test]
    fn whom_somebody_wants_kept_is_told_of_when_he_is_put_out() {
        let mut table = table(2);
        table.look();
        table.keep("a", 50);
        table.keep("b", 60);
        assert_eq!(
            table.found(soonest(&[(10, "c"), (20, "d"), (30, "e")], None)),
            [Id::new("b"), Id::new("a")].map(Option::unwrap)
        );
        assert_eq!(shown(&table), [("c", 10), ("d", 20)]);
        table.put_back(|due| due.min(15));
        assert_eq!(table.insert("f", Some(15)), None);
        assert_eq!(table.more_secs(), None);
        (0..2).for_each(|_| drop(table.pop_due(100)));
        table.look();
        table.look_again();
        table.found(Soonest::default());
        assert!(table.is_low(0), "what was found may have been found too early");
        assert_eq!(table.by_due.len(), 0);
    }

    #[test]
    fn when_many_have_changed_nobody_waits_here_and_all_are_looked_for() {
        let mut table = table(100);
        for (id, due) in [("a", 50), ("b", 60), ("c", 70), ("d", 80)] {
            table.insert(id, Some(due));
        }
        table.remove_all(["b", "d", "x", "no id"].into_iter());
        assert_eq!(shown(&table), [("a", 50), ("c", 70)]);
        table.begin("t");
        assert_eq!(table.look_for_all(), [Id::new("a"), Id::new("c")].map(Option::unwrap));
        assert!(shown(&table) == [("t", 0)] && table.is_low(0));
        table.look();
        table.found(soonest(&[(0, "a"), (0, "t"), (70, "c")], None));
        assert_eq!(shown(&table), [("t", 0), ("a", 0), ("c", 70)]);
    }
}
