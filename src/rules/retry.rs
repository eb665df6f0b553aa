//! When a message of the queue is tried again, and when that is given up.
//!
//! | setting          | is                                                                              | default             |
//! |------------------|---------------------------------------------------------------------------------|---------------------|
//! | `retry_schedule` | seconds between one try and the next, with commas; the last one repeats          | 10,60,300,900,3600  |
//! | `queue_life`     | seconds that a message may wait; one from the null sender at most a day of them  | 432000 (five days)  |
//!
//! [`Schedule::parse`] reads the first, its `Display` shows it again as it would be read: what a row's kind and field need. The
//! second is a plain number.
//!
//! Each wait is longer or shorter by up to a tenth, as a random number has it, so that what failed together does not come
//! back together for ever. A message is given up at the first try that fails behind its life, never without one: a host that
//! slept, or a clock that leapt ahead, costs nobody a message that could be delivered now. A clock that leaps back makes nobody
//! wait longer than the longest step: see [`Schedule::bounded`].

use std::fmt;

use crate::text::number::decimal;

/// Steps of a schedule.
pub const STEPS_MAX: usize = 32;
/// The shortest and the longest wait between two tries.
pub const STEP_SECS: std::ops::RangeInclusive<u64> = 1..=7 * 86_400;
/// What a bounce may wait at most: nobody misses it as he would miss a message.
pub const BOUNCE_LIFE_SECS: u64 = 86_400;
/// A wait is longer or shorter by this part of it at most.
const JITTER_PART: u64 = 10;

/// How long to wait behind each try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// In seconds, all within [`STEP_SECS`]. Not empty.
    steps: Vec<u64>,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { steps: vec![10, 60, 300, 900, 3600] }
    }
}

impl Schedule {
    /// The value of `10,60,300`; words of blanks around commas are no harm. Why not, for people.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let mut steps = Vec::new();
        for word in text.split(',').map(str::trim) {
            let step = decimal(word.as_bytes()).filter(|step| STEP_SECS.contains(step));
            let (least, most) = (STEP_SECS.start(), STEP_SECS.end());
            steps.push(step.ok_or_else(|| format!("`{word}` is not a number of seconds from {least} to {most}"))?);
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("it has more than {STEPS_MAX} steps"));
        }
        Ok(Schedule { steps })
    }

    /// How long to wait behind try number `tries` (from 1), in seconds. `random`: any number.
    pub fn wait_secs(&self, tries: u32, random: u64) -> u64 {
        let at = (tries.max(1) as usize - 1).min(self.steps.len() - 1);
        let step = self.steps[at];
        let span = step / JITTER_PART;
        step - span + random % (2 * span + 1)
    }

    /// `next_secs` as it was noted, unless that is further ahead than any wait of this schedule can be: then the clock was put
    /// back, or the schedule was shortened, and the message is due after its longest step.
    pub fn bounded(&self, next_secs: i64, now_secs: i64) -> i64 {
        let longest = self.steps.iter().max().copied().unwrap_or(0);
        let latest = now_secs.saturating_add_unsigned(longest + longest / JITTER_PART);
        next_secs.min(latest)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What a failed try comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again at this time, in seconds since 1970.
    Again(i64),
    /// It has waited long enough.
    Expired,
}

/// What try number `tries` (from 1) that failed at `now_secs` comes to, for a message of `received_secs`. `life_secs`: the setting;
/// `is_bounce`: it comes from the null sender.
pub fn verdict(
    schedule: &Schedule,
    life_secs: u64,
    is_bounce: bool,
    received_secs: i64,
    now_secs: i64,
    tries: u32,
    random: u64,
) -> Verdict {
    let life = if is_bounce { life_secs.min(BOUNCE_LIFE_SECS) } else { life_secs };
    let end = received_secs.saturating_add_unsigned(life);
    if now_secs >= end {
        return Verdict::Expired;
    }
    // The last try comes when its life ends, not up to a step later.
    Verdict::Again(now_secs.saturating_add_unsigned(schedule.wait_secs(tries, random)).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_and_shown_as_it_is_read() {
        for (text, shown) in
            [("10", "10"), ("10,60,300,900,3600", "10,60,300,900,3600"), (" 5 , 6", "5,6"), ("604800", "604800")]
        {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!(schedule.to_string(), shown);
            assert_eq!(Schedule::parse(shown), Ok(schedule));
        }
        assert_eq!(Schedule::parse(&Schedule::default().to_string()), Ok(Schedule::default()));
        for text in ["", ",", "10,", "0", "604801", "-1", "1h", "10 60", "10,,60", "99999999999999999999"] {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
        assert!(Schedule::parse(&["9"; STEPS_MAX].join(",")).is_ok());
        assert!(Schedule::parse(&["9"; STEPS_MAX + 1].join(",")).is_err());
    }

    #[test]
    fn each_step_is_waited_once_and_the_last_for_ever_by_a_tenth_more_or_less() {
        let schedule = Schedule::parse("10,100,1000").unwrap();
        for (tries, step) in [(0, 10), (1, 10), (2, 100), (3, 1000), (4, 1000), (u32::MAX, 1000)] {
            let waits: Vec<u64> = (0..1000).map(|random| schedule.wait_secs(tries, random)).collect();
            assert_eq!(*waits.iter().min().unwrap(), step - step / 10);
            assert_eq!(*waits.iter().max().unwrap(), step + step / 10);
        }
        assert_eq!(Schedule::parse("1").unwrap().wait_secs(1, u64::MAX), 1);
    }

    #[test]
    fn a_message_is_given_up_at_the_first_failure_behind_its_life_and_not_before() {
        let schedule = Schedule::parse("100").unwrap();
        let say = |is_bounce, now| verdict(&schedule, 200_000, is_bounce, 1000, now, 1, 10);
        assert_eq!(say(false, 1000), Verdict::Again(1100));
        assert_eq!(say(false, 200_999), Verdict::Again(201_000));
        assert_eq!(say(false, 201_000), Verdict::Expired);
        assert_eq!(say(true, 1000 + 86_399), Verdict::Again(1000 + 86_400));
        assert_eq!(say(true, 1000 + 86_400), Verdict::Expired);
        // A clock that was put back waits, and one at either end of time upsets nothing.
        assert_eq!(say(false, -5000), Verdict::Again(-4900));
        assert_eq!(verdict(&schedule, u64::MAX, false, i64::MAX, i64::MIN, 1, 10), Verdict::Again(i64::MIN + 100));
    }

    #[test]
    fn a_clock_put_back_makes_nobody_wait_longer_than_the_longest_step() {
        let schedule = Schedule::parse("10,1000,100").unwrap();
        assert_eq!(schedule.bounded(5000, 4000), 5000);
        assert_eq!(schedule.bounded(5_000_000, 4000), 4000 + 1100);
        assert_eq!(schedule.bounded(3000, 4000), 3000);
        assert_eq!(schedule.bounded(i64::MAX, i64::MAX), i64::MAX);
    }
}
