//! Which bulletins a user still has: they are stored once for everybody, and each user's ledger says which are gone for him.
//!
//! A bulletin is the file `NUMBER.txt`. [`Seen`] is a mark below which all are gone, and a bit for each of the 64 above it: a
//! user who keeps one bulletin while he deletes many later ones loses the kept one when it would need more.
//!
//! When the server starts and there are no bulletins at all, a new *epoch* begins: numbers may start at 1 again, and what a
//! user has seen in an earlier epoch counts no more.

/// What is gone for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// In which epoch he saw them.
    pub epoch: u64,
    /// All up to this number are gone.
    pub through: u32,
    /// Bit `n`: `through + 1 + n` is gone.
    pub beyond: u64,
}

impl Seen {
    /// What a user's ledger says, put into terms of `epoch`. Who never saw any has all or, where old ones are hidden from
    /// newcomers, none of those that are there already.
    pub fn now(known: Option<Seen>, epoch: u64, newest: u32, hide_old: bool) -> Seen {
        match known {
            Some(seen) if seen.epoch == epoch => seen,
            None if hide_old => Seen { epoch, through: newest, beyond: 0 },
            _ => Seen { epoch, through: 0, beyond: 0 },
        }
    }

    /// Whether this bulletin is gone.
    pub fn is_gone(&self, number: u32) -> bool {
        match number.checked_sub(self.through) {
            None | Some(0) => true,
            Some(above) => above <= 64 && self.beyond >> (above - 1) & 1 != 0,
        }
    }

    /// Takes one away. `there` are all bulletins there are, in ascending order: numbers that none of them has need no bit.
    pub fn bury(&mut self, number: u32, there: &[u32]) {
        if self.is_gone(number) {
            return;
        }
        // Out of the bits' reach: the mark rises until it is in it.
        self.rise((number - self.through).saturating_sub(64));
        self.beyond |= 1 << (number - self.through - 1);
        // As far as nothing is left, the mark rises at no cost.
        let first_left = there.iter().copied().find(|&other| other > self.through && !self.is_gone(other));
        let last = there.last().copied().unwrap_or(number).max(number);
        let target = first_left.map_or(last, |left| left - 1);
        self.rise(target.saturating_sub(self.through));
    }

    fn rise(&mut self, by: u32) {
        self.through += by;
        self.beyond = self.beyond.checked_shr(by).unwrap_or(0);
    }
}

/// The number of the bulletin in a file of this name; `None` when it is none.
pub fn number(file_name: &[u8]) -> Option<u32> {
    let digits = file_name.strip_suffix(b".txt")?;
    let number = crate::text::number::decimal(digits)?;
    u32::try_from(number).ok().filter(|&number| number > 0 && number < u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn left(seen: &Seen, there: &[u32]) -> Vec<u32> {
        there.iter().copied().filter(|&number| !seen.is_gone(number)).collect()
    }

    #[test]
    fn everybody_has_what_he_did_not_delete() {
        let there = [3, 4, 7, 100];
        let mut seen = Seen::now(None, 9, 100, false);
        assert_eq!(left(&seen, &there), there);
        seen.bury(4, &there);
        assert_eq!(left(&seen, &there), [3, 7, 100]);
        seen.bury(3, &there);
        assert_eq!((seen.through, left(&seen, &there)), (6, vec![7, 100]));
        seen.bury(7, &there);
        seen.bury(100, &there);
        assert_eq!((seen.through, seen.beyond), (100, 0));
    }

    #[test]
    fn newcomers_may_be_spared_the_old_ones_and_an_epoch_begins_anew() {
        let newcomer = Seen::now(None, 1, 7, true);
        assert_eq!(left(&newcomer, &[5, 7, 8]), [8]);
        let old = Seen { epoch: 1, through: 7, beyond: 1 };
        assert_eq!(Seen::now(Some(old), 1, 7, true), old);
        assert_eq!(left(&Seen::now(Some(old), 2, 7, true), &[1, 2]), [1, 2]);
    }

    #[test]
    fn who_keeps_one_and_deletes_far_ones_loses_the_kept_one_and_no_bit_is_lost() {
        let there: Vec<u32> = (1..=80).collect();
        let mut seen = Seen::now(None, 1, 80, false);
        for number in 2..=64 {
            seen.bury(number, &there);
        }
        assert_eq!(left(&seen, &there)[..2], [1, 65]);
        seen.bury(65, &there);
        assert_eq!(left(&seen, &there)[0], 66);
        seen.bury(4_000_000_000, &there);
        assert!(seen.is_gone(4_000_000_000) && seen.is_gone(80));
    }

    #[test]
    fn only_plain_numbers_are_bulletins() {
        for (name, expected) in [("1.txt", Some(1)), ("007.txt", Some(7)), ("0.txt", None), ("a.txt", None)] {
            assert_eq!(number(name.as_bytes()), expected, "{name}");
        }
        for name in ["1.txt~", ".1.txt", "1.TXT", "-1.txt", "99999999999.txt", "4294967295.txt", ".txt", "1"] {
            assert_eq!(number(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn within_reach_it_is_a_set(there in proptest::collection::btree_set(1u32..64, 1..20),
                                    picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..30)) {
            let there: Vec<u32> = there.into_iter().collect();
            let (mut seen, mut gone) = (Seen::now(None, 1, 64, false), BTreeSet::new());
            for pick in picks {
                let number = *pick.get(&there);
                seen.bury(number, &there);
                gone.insert(number);
                let expected: Vec<u32> = there.iter().copied().filter(|number| !gone.contains(number)).collect();
                prop_assert_eq!(left(&seen, &there), expected);
            }
        }
    }
}
