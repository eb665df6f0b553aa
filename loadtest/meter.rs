//! What was measured: latencies by kind and by step, counts, errors with their first texts, and a row for each second.
//!
//! Histograms have fixed bounds, [`LOWEST_US`] to [`HIGHEST_US`], and do not grow: what is longer counts as the highest.
//! Of a task that was begun or due before [`Meter::start`] nothing is recorded but its errors, so a warm-up leaves no trace but
//! in [`Meter::warm`]; a task that began in time counts whole, whenever it ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The shortest time that is told from none.
pub const LOWEST_US: u64 = 1;
/// An hour: whatever takes longer took an hour.
pub const HIGHEST_US: u64 = 3_600_000_000;
/// Texts kept of each kind of error.
const TEXTS: usize = 3;
/// A text longer than this is cut.
const TEXT: usize = 200;
/// Rows of the series: a day. What comes after it is counted in the totals alone.
const SECONDS: usize = 86_400;

/// Times of one thing.
pub type Times = Histogram<u64>;

fn times(digits: u8) -> Times {
    Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, digits).expect("bounds and digits are constants that fit")
}

/// Everything measured in one run.
pub struct Meter {
    /// When it began to count.
    began: Option<Instant>,
    /// How long it counted, once that is over.
    took: Duration,
    kinds: BTreeMap<&'static str, Kind>,
    series: Vec<Second>,
    /// Of the second that runs.
    current: Times,
    /// Tasks that were over before counting began.
    warm: u64,
    /// Connections open now.
    pub in_flight: usize,
    /// The most that there were.
    pub most_in_flight: usize,
}

/// One kind of task.
pub struct Kind {
    /// Whole tasks that came out right: from connect, or from the planned time in an open loop, to the end.
    pub whole: Times,
    /// Single steps: connect, greeting, login, stat, retr ...
    pub steps: BTreeMap<&'static str, Times>,
    /// Tasks that came out right.
    pub count: u64,
    /// Messages retrieved or acknowledged.
    pub messages: u64,
    pub octets_in: u64,
    pub octets_out: u64,
    /// By what went wrong.
    pub errors: BTreeMap<&'static str, Errors>,
    /// Faults that were injected, by name: expected, and no errors.
    pub injected: BTreeMap<&'static str, u64>,
}

/// Errors of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors {
    pub count: u64,
    /// The first texts, each once.
    pub first: Vec<String>,
}

/// One second of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Second {
    /// Tasks that ended well.
    pub done: u64,
    pub errors: u64,
    pub messages: u64,
    pub octets_in: u64,
    pub octets_out: u64,
    /// Connections open at its end.
    pub in_flight: usize,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter {
            began: None,
            took: Duration::ZERO,
            kinds: BTreeMap::new(),
            series: Vec::new(),
            current: times(2),
            warm: 0,
            in_flight: 0,
            most_in_flight: 0,
        }
    }
}

impl Meter {
    /// The warm-up is over: counting begins.
    pub fn start(&mut self, now: Instant) {
        self.began = Some(now);
        self.series = vec![Second::default()];
    }

    /// When counting began.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// How many seconds it counted.
    pub fn seconds(&self) -> f64 {
        self.took.as_secs_f64()
    }

    /// Tasks that ended before counting began.
    pub fn warm(&self) -> u64 {
        self.warm
    }

    /// All kinds, by name.
    pub fn kinds(&self) -> &BTreeMap<&'static str, Kind> {
        &self.kinds
    }

    /// The seconds so far; the last one still runs.
    pub fn series(&self) -> &[Second] {
        &self.series
    }

    /// Errors of all kinds together.
    pub fn errors(&self) -> u64 {
        self.kinds.values().flat_map(|kind| kind.errors.values()).map(|errors| errors.count).sum()
    }

    /// Tasks of all kinds that came out right.
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|kind| kind.count).sum()
    }

    /// A task came out right. Those that were begun, or due, before counting began are not counted.
    pub fn done(&mut self, kind: &'static str, planned: Instant, took: Duration, messages: u64) {
        if !self.counts(planned) {
            self.warm += 1;
            return;
        }
        let micros = micros(took);
        let kind = self.kind(kind);
        kind.whole.saturating_record(micros);
        kind.count += 1;
        kind.messages += messages;
        self.current.saturating_record(micros);
        self.second(|second| {
            second.done += 1;
            second.messages += messages;
        });
    }

    /// Whether a task counts that was begun, or due, at that time.
    fn counts(&self, planned: Instant) -> bool {
        self.began.is_some_and(|began| planned >= began)
    }

    /// One step of a task; `planned` as in [`Meter::done`].
    pub fn step(&mut self, kind: &'static str, planned: Instant, step: &'static str, took: Duration) {
        if self.counts(planned) {
            let steps = &mut self.kind(kind).steps;
            steps.entry(step).or_insert_with(|| times(2)).saturating_record(micros(took));
        }
    }

    /// Octets of a task's whole connection.
    pub fn octets(&mut self, kind: &'static str, planned: Instant, received: u64, sent: u64) {
        if self.counts(planned) {
            let kind = self.kind(kind);
            kind.octets_in += received;
            kind.octets_out += sent;
            self.second(|second| {
                second.octets_in += received;
                second.octets_out += sent;
            });
        }
    }

    /// Something went wrong. Errors count from the beginning, also those of the warm-up: a wrong byte is one at any time.
    pub fn error(&mut self, kind: &'static str, what: &'static str, text: &str) {
        let errors = self.kind(kind).errors.entry(what).or_default();
        errors.count += 1;
        if errors.first.len() < TEXTS {
            let text: String = text.chars().take(TEXT).collect();
            if !errors.first.contains(&text) {
                errors.first.push(text);
            }
        }
        self.second(|second| second.errors += 1);
    }

    /// A fault that was meant to be.
    pub fn injected(&mut self, kind: &'static str, planned: Instant, fault: &'static str) {
        if self.counts(planned) {
            *self.kind(kind).injected.entry(fault).or_default() += 1;
        }
    }

    /// The clock: ends the seconds that are over. Called at least once a second.
    pub fn tick(&mut self, now: Instant) {
        let Some(began) = self.began else { return };
        let second = now.saturating_duration_since(began).as_secs() as usize;
        while self.series.len() <= second.min(SECONDS - 1) {
            self.close_second();
            self.series.push(Second::default());
        }
    }

    /// The run is over: the last second, though not whole, is closed.
    pub fn finish(&mut self, now: Instant) {
        self.tick(now);
        self.close_second();
        self.took = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
    }

    fn close_second(&mut self) {
        let (in_flight, current) = (self.in_flight, &self.current);
        if let Some(last) = self.series.last_mut() {
            last.in_flight = in_flight;
            if !current.is_empty() {
                last.p50_us = current.value_at_quantile(0.5);
                last.p99_us = current.value_at_quantile(0.99);
                last.max_us = current.max();
            }
        }
        self.current.reset();
    }

    fn kind(&mut self, name: &'static str) -> &mut Kind {
        self.kinds.entry(name).or_insert_with(|| Kind {
            whole: times(3),
            steps: BTreeMap::new(),
            count: 0,
            messages: 0,
            octets_in: 0,
            octets_out: 0,
            errors: BTreeMap::new(),
            injected: BTreeMap::new(),
        })
    }

    fn second(&mut self, note: impl FnOnce(&mut Second)) {
        if let Some(second) = self.series.last_mut() {
            note(second);
        }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(HIGHEST_US).max(LOWEST_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_warm_up_is_counted_apart_but_its_errors_are_errors() {
        let mut meter = Meter::default();
        let before = Instant::now();
        meter.done("poll", before, MS, 0);
        meter.step("poll", before, "login", MS);
        meter.error("poll", "reset", "connection reset");
        assert_eq!((meter.warm(), meter.count(), meter.errors()), (1, 0, 1));
        let start = before + MS;
        meter.start(start);
        meter.done("poll", start, MS, 2);
        meter.done("poll", before, 2 * MS, 2);
        // The rest of a task that began in the warm-up is none of what is counted.
        meter.step("poll", before, "quit", MS);
        meter.octets("poll", before, 50_000_000, 10);
        meter.injected("poll", before, "reset");
        assert_eq!((meter.warm(), meter.count()), (2, 1));
        let poll = &meter.kinds()["poll"];
        assert!(poll.steps.is_empty() && poll.injected.is_empty());
        assert_eq!((poll.octets_in, poll.octets_out), (0, 0));
    }

    #[test]
    fn each_second_has_its_own_row_and_an_idle_one_is_a_row_of_zeroes() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.start(start);
        meter.done("poll", start, MS, 0);
        meter.tick(start + 2500 * MS);
        meter.done("poll", start, 7 * MS, 0);
        meter.error("poll", "4xx", "421 busy");
        meter.finish(start + 2900 * MS);
        let rows: Vec<_> = meter.series().iter().map(|row| (row.done, row.errors, row.max_us / 1000)).collect();
        assert_eq!(rows, [(1, 0, 1), (0, 0, 0), (1, 1, 7)]);
    }

    #[test]
    fn the_first_three_texts_of_an_error_are_kept_each_once() {
        let mut meter = Meter::default();
        for text in ["a", "a", "b", "c", "d"] {
            meter.error("poll", "-ERR", text);
        }
        let errors = &meter.kinds()["poll"].errors["-ERR"];
        assert_eq!((errors.count, errors.first.join(" ")), (5, "a b c".to_owned()));
    }

    #[test]
    fn what_takes_longer_than_the_highest_counts_as_the_highest() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.start(start);
        meter.done("poll", start, Duration::from_secs(10_000), 0);
        let whole = &meter.kinds()["poll"].whole;
        assert_eq!(whole.len(), 1);
        assert!(whole.max() >= HIGHEST_US && whole.max() < HIGHEST_US + HIGHEST_US / 100);
    }
}
