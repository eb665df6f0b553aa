//! What happened lately: the counts as they were now and then, to be subtracted from what they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::service::Counts;

/// The spans that are shown.
pub(super) const WINDOWS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// Less than this between two memories is not worth one.
const STEP: Duration = Duration::from_secs(9);
/// Memories kept: those of the longest span, and the one before it.
const KEPT: usize = (WINDOWS[1].as_secs() / STEP.as_secs()) as usize + 2;

/// The counts of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Rates(VecDeque<(Instant, Counts)>);

impl Rates {
    /// Remembers the counts. Called every ten seconds or so.
    pub(super) fn note(&mut self, now: Instant, counts: Counts) {
        if self.0.back().is_some_and(|(last, _)| now.saturating_duration_since(*last) < STEP) {
            return;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        // As much as there will be, and not the next power of two.
        self.0.reserve_exact(KEPT - self.0.len());
        self.0.push_back((now, counts));
    }

    /// The counts as they were this long ago, or a few seconds earlier; none yet where that was before the start.
    pub(super) fn before(&self, now: Instant, window: Duration) -> Counts {
        let old = self.0.iter().rev().find(|(at, _)| now.saturating_duration_since(*at) >= window);
        old.map_or_else(Counts::default, |(_, counts)| *counts)
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.0.capacity() * size_of::<(Instant, Counts)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minutes_are_remembered_and_no_more() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let counts = |logins: u64| Counts { logins, ..Counts::default() };
        assert_eq!(rates.before(at(0), WINDOWS[0]).logins, 0);
        for step in 0..1000 {
            rates.note(at(step * 10), counts(step));
            rates.note(at(step * 10 + 1), counts(9999));
        }
        let now = at(9995);
        assert_eq!(rates.before(now, WINDOWS[0]).logins, 993);
        assert_eq!(rates.before(now, WINDOWS[1]).logins, 969);
        assert!(rates.0.len() <= KEPT && rates.held() < 16 * 1024);
    }
}
