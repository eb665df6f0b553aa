//! How long turns take, for each kind of entry: a count in one of a fixed number of boxes, so that it costs a few additions
//! a turn and never more memory.
//!
//! A box holds times up to a quarter longer than its shortest: below 4 microseconds one each, then four to each doubling, the
//! last for all beyond. What is told of a quantile is the longest time of its box, and never more than the longest turn.

use std::time::Duration;

/// Boxes: the last but one ends at 117 s.
const BOXES: usize = 4 * 26;
/// Kinds that are told apart: more than there are kinds. What has no row counts for the last.
const KINDS: usize = 24;

/// The turns of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Whose.
    pub kind: &'static str,
    /// How many turns.
    pub count: u64,
    /// How long all of them took.
    pub total: Duration,
    /// How long the longest took.
    pub longest: Duration,
    boxes: [u32; BOXES],
}

/// The box of so many microseconds.
fn place(micros: u64) -> usize {
    if micros < 4 {
        return micros as usize;
    }
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    ((doubling as usize - 1) * 4 + quarter as usize).min(BOXES - 1)
}

/// The first number of microseconds behind a box.
fn end(place: usize) -> u64 {
    if place < 4 {
        return place as u64 + 1;
    }
    let (doubling, quarter) = (place as u64 / 4 + 1, place as u64 % 4);
    (5 + quarter) << (doubling - 2)
}

impl Times {
    fn new(kind: &'static str) -> Times {
        Times { kind, count: 0, total: Duration::ZERO, longest: Duration::ZERO, boxes: [0; BOXES] }
    }

    fn note(&mut self, time: Duration) {
        self.count += 1;
        self.total += time;
        self.longest = self.longest.max(time);
        // A box that is full stays full: in years.
        let full = &mut self.boxes[place(time.as_micros() as u64)];
        *full = full.saturating_add(1);
    }

    /// A time that so many of a thousand turns do not exceed.
    pub fn quantile(&self, of_thousand: u64) -> Duration {
        let all: u64 = self.boxes.iter().map(|&count| u64::from(count)).sum();
        let wanted = (all * of_thousand).div_ceil(1000);
        let mut seen = 0;
        let found = self.boxes.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        });
        found.map_or(self.longest, |place| Duration::from_micros(end(place)).min(self.longest))
    }
}

/// The turns of all kinds.
#[derive(Debug, Default)]
pub struct Profile {
    rows: Vec<Times>,
}

impl Profile {
    /// An entry of this kind had a turn.
    pub fn note(&mut self, kind: &'static str, time: Duration) {
        let index = self.rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
            if self.rows.len() < KINDS {
                self.rows.push(Times::new(kind));
            }
            self.rows.len() - 1
        });
        self.rows[index].note(time);
    }

    /// A row a kind, in the order in which they had their first turn.
    pub fn rows(&self) -> &[Times] {
        &self.rows
    }

    /// The longest turn of all, and whose.
    pub fn longest(&self) -> (Duration, &'static str) {
        self.rows.iter().map(|row| (row.longest, row.kind)).max().unwrap_or_default()
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.rows.capacity() * size_of::<Times>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_follow_each_other_and_are_a_quarter_wide_at_most() {
        for index in 0..BOXES - 1 {
            let (first, last) = (if index == 0 { 0 } else { end(index - 1) }, end(index) - 1);
            assert_eq!((place(first), place(last)), (index, index), "{index}: {first} to {last}");
            assert!(first < 4 || (last + 1 - first) * 4 <= first, "{index}: {first} to {last}");
        }
        assert_eq!((place(u64::MAX), place(end(BOXES - 2))), (BOXES - 1, BOXES - 1));
        assert!(end(BOXES - 2) > 60_000_000, "a minute has a box of its own");
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list_but_for_a_quarter() {
        let mut profile = Profile::default();
        let mut times: Vec<u64> = (0..1000u64).map(|n| n * n * n % 50_000 + n % 3).collect();
        times.iter().for_each(|micros| profile.note("pop3", Duration::from_micros(*micros)));
        times.sort_unstable();
        let row = profile.rows()[0];
        assert_eq!((row.count, row.longest.as_micros() as u64), (1000, times[999]));
        assert_eq!(row.total.as_micros() as u64, times.iter().sum::<u64>());
        for of_thousand in [1, 500, 990, 1000] {
            let (exact, told) = (times[of_thousand - 1], row.quantile(of_thousand as u64).as_micros() as u64);
            assert!(told >= exact && told <= exact + exact / 4 + 1, "{of_thousand}: {told} for {exact}");
        }
    }

    #[test]
    fn kinds_are_told_apart_up_to_a_bound() {
        let mut profile = Profile::default();
        profile.note("pop3", Duration::from_micros(5));
        profile.note("smtp", Duration::from_micros(9));
        profile.note("pop3", Duration::from_micros(7));
        assert_eq!(
            profile.rows().iter().map(|row| (row.kind, row.count)).collect::<Vec<_>>(),
            [("pop3", 2), ("smtp", 1)]
        );
        assert_eq!(profile.longest(), (Duration::from_micros(9), "smtp"));
        for n in 0..KINDS * 2 {
            profile.note(Box::leak(n.to_string().into_boxed_str()), Duration::ZERO);
        }
        assert_eq!(profile.rows().len(), KINDS);
        assert!(profile.held() < 32 * 1024);
        assert_eq!(Profile::default().longest(), (Duration::ZERO, ""));
    }
}
