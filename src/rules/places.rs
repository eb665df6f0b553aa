//! Who gets the places among connections that there are: each kind some for certain, all kinds the rest.
//!
//! Servers of the world that bring mail, users who send theirs and users who fetch it come to one process. A flood of one
//! kind must not shut the others out, and a kind that nobody floods should not lie idle with places. So each kind that is
//! served has [`SHARE`] of all places kept for it; it may take more as long as what is kept for the others stays free.

/// A kind of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Users who fetch mail.
    Readers,
    /// Servers that bring mail.
    Servers,
    /// Users who send mail.
    Senders,
}

/// All there are.
pub const KINDS: [Kind; 3] = [Kind::Readers, Kind::Servers, Kind::Senders];
/// Of so many places one is kept for each kind.
pub const SHARE: usize = 8;

/// The places, and who has them.
#[derive(Debug, Clone, Default)]
pub struct Places {
    most: usize,
    /// By kind. A kind that is not served has none.
    kept: [usize; KINDS.len()],
    taken: [usize; KINDS.len()],
}

impl Places {
    /// So many places from now on, for these kinds. Who is there stays.
    pub fn set(&mut self, most: usize, served: &[Kind]) {
        self.most = most;
        // Where only one kind is served there is nobody to keep places from.
        let share = if served.len() > 1 { most / SHARE } else { 0 };
        self.kept = KINDS.map(|kind| if served.contains(&kind) { share } else { 0 });
    }

    /// All places.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.taken.iter().sum()
    }

    /// Those of one kind.
    pub fn taken_by(&self, kind: Kind) -> usize {
        self.taken[kind as usize]
    }

    /// Whether one more of this kind may come.
    pub fn has_room(&self, kind: Kind) -> bool {
        let free = self.most.saturating_sub(self.taken());
        let owed = |other: Kind| self.kept[other as usize].saturating_sub(self.taken_by(other));
        let others: usize = KINDS.into_iter().filter(|other| *other != kind).map(owed).sum();
        free > others || free > 0 && owed(kind) > 0
    }

    /// Whether it would make room for `kind` if one of `other` left.
    pub fn makes_room(&self, kind: Kind, other: Kind) -> bool {
        kind == other || self.taken_by(other) > self.kept[other as usize]
    }

    /// One more. Whoever lets somebody in has asked whether there is room.
    pub fn enter(&mut self, kind: Kind) {
        self.taken[kind as usize] += 1;
    }

    /// One less.
    pub fn leave(&mut self, kind: Kind) {
        debug_assert!(self.taken_by(kind) > 0, "somebody leaves who never entered");
        self.taken[kind as usize] = self.taken_by(kind).saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::*;
    use super::*;

    fn places(most: usize, served: &[Kind]) -> Places {
        let mut places = Places::default();
        places.set(most, served);
        places
    }

    fn fill(places: &mut Places, kind: Kind) -> usize {
        let before = places.taken();
        while places.has_room(kind) {
            places.enter(kind);
        }
        places.taken() - before
    }

    #[test]
    fn no_kind_takes_what_is_kept_for_another() {
        for kind in KINDS {
            let mut places = places(80, &KINDS);
            assert_eq!(fill(&mut places, kind), 60, "{kind:?}: all but what is kept for two others");
            for other in KINDS.into_iter().filter(|other| *other != kind) {
                assert_eq!(fill(&mut places, other), 10, "{other:?} after {kind:?}");
            }
            assert_eq!(places.taken(), 80);
        }
    }

    #[test]
    fn who_is_alone_has_all_places_and_few_places_are_shared_as_they_come() {
        assert_eq!(fill(&mut places(80, &[Readers]), Readers), 80);
        assert_eq!(fill(&mut places(4, &KINDS), Servers), 4, "an eighth of them is none");
        assert_eq!(fill(&mut places(0, &KINDS), Servers), 0);
    }

    #[test]
    fn room_is_made_where_it_can_be_used() {
        let mut places = places(80, &KINDS);
        fill(&mut places, Servers);
        fill(&mut places, Senders);
        assert!(places.has_room(Readers) && !places.has_room(Servers));
        fill(&mut places, Readers);
        assert!(places.makes_room(Readers, Servers), "they have more than is kept for them");
        assert!(!places.makes_room(Servers, Senders), "their place would be kept for another of them");
        assert!(places.makes_room(Senders, Senders));
        for (kind, other) in [(Readers, Servers), (Senders, Senders)] {
            let mut places = places.clone();
            places.leave(other);
            assert!(places.has_room(kind), "{kind:?} when one of {other:?} has left");
        }
        places.leave(Senders);
        assert!(!places.has_room(Servers));
    }

    #[test]
    fn fewer_places_than_are_taken_let_nobody_in_until_enough_have_left() {
        let mut places = places(80, &KINDS);
        fill(&mut places, Readers);
        places.set(40, &KINDS);
        assert!(KINDS.into_iter().all(|kind| !places.has_room(kind)));
        for _ in 0..21 {
            places.leave(Readers);
        }
        assert!(places.has_room(Servers) && !places.has_room(Readers));
    }
}
