//! What goes at QUIT though the client did not say so: EXPIRE of RFC 2449, as it was announced.
//!
//! | `expire_days` | at QUIT, with what the client deleted and in the same record                      |
//! |---------------|------------------------------------------------------------------------------------|
//! | never         | nothing                                                                            |
//! | 0             | what was sent whole by RETR in this session; TOP leaves a message where it is      |
//! | n             | what came n days ago or earlier, by the date of its From_ line; none without one   |
//!
//! Bulletins stay: they are not in the drop. What cannot be found out does not go, and the client's own deletions do not
//! depend on it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::maildrop::{Maildrop, Miss};

const DAY_SECS: i64 = 86_400;

/// Numbers of the messages that were sent whole: a bit each, as many words as the highest needs.
#[derive(Debug, Default)]
pub(super) struct Fetched(Vec<u64>);

impl Fetched {
    /// This one was.
    pub(super) fn add(&mut self, number: u32) {
        let word = number as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        let set = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word as u32 * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(set)
    }
}

/// What one session's QUIT takes along.
#[derive(Debug)]
pub(super) enum Expiry {
    /// What was sent whole.
    Fetched(Fetched),
    /// What came before that many days.
    Days(u32),
}

impl Expiry {
    /// What the setting means for a session that fetched these; none when nothing can go.
    pub(super) fn of(expire_days: Option<u32>, fetched: Option<Box<Fetched>>) -> Option<Expiry> {
        match expire_days? {
            0 => fetched.map(|fetched| Expiry::Fetched(*fetched)),
            days => Some(Expiry::Days(days)),
        }
    }

    /// Marks what goes. Waits for the disk: only in a job, before the commit.
    pub(super) fn mark(&self, maildrop: &mut Maildrop) -> Result<u32, Miss> {
        match self {
            Expiry::Fetched(fetched) => maildrop.mark_all(fetched.numbers()),
            Expiry::Days(days) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
                maildrop.expire(now - i64::from(*days) * DAY_SECS, &mut |_| true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_is_remembered_once_and_in_order() {
        let mut fetched = Fetched::default();
        for number in [64, 1, 200, 63, 1, 65] {
            fetched.add(number);
        }
        assert_eq!(fetched.numbers().collect::<Vec<_>>(), [1, 63, 64, 65, 200]);
    }

    #[test]
    fn nothing_goes_that_was_not_announced() {
        let fetched = || {
            let mut fetched = Box::<Fetched>::default();
            fetched.add(1);
            Some(fetched)
        };
        assert!(Expiry::of(None, fetched()).is_none());
        assert!(Expiry::of(Some(0), None).is_none());
        assert!(matches!(Expiry::of(Some(0), fetched()), Some(Expiry::Fetched(_))));
        assert!(matches!(Expiry::of(Some(30), fetched()), Some(Expiry::Days(30))));
    }
}
