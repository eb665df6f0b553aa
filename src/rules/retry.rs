//! When a message of the queue is tried again, when its sender is told that it waits, and when that is given up.
//!
//! | setting          | is                                                                              | default             |
//! |------------------|---------------------------------------------------------------------------------|---------------------|
//! | `retry_schedule` | seconds between one try and the next, with commas; the last one repeats          | 300,600,1200,2400,4800,9600,14400 |
//! | `queue_life`     | seconds that a message may wait                                                  | 432000 (five days)  |
//! | `bounce_life`    | seconds that one from the null sender may wait, if that is less                  | 86400 (a day)       |
//! | `possibly_secs`  | the least wait where a message may have been delivered though nobody said so     | 14400               |
//! | `delay_warning`  | seconds after which its sender is told that it waits; 0 = never                  | 14400               |
//!
//! [`Schedule::parse`] reads the first, its `Display` shows it again as it would be read: what a row's kind and field need. The
//! others are plain numbers. [`Rules`] has all that decides together.
//!
//! **Users of ours** are not kept waiting as other hosts are: a full disk or a silent authenticator is ours, is soon well
//! again, and asking costs nobody anything. For them no step is longer than the same one of [`LOCAL`].
//!
//! Each wait is longer or shorter by up to a tenth, as a random number has it, so that what failed together does not come
//! back together for ever. A message is given up at the first try that fails behind its life, never without one: a host that
//! slept, or a clock that leapt ahead, costs nobody a message that could be delivered now. A clock that leaps back makes nobody
//! wait longer than the longest step: see [`Rules::bounded`].

use std::fmt;

use crate::text::number::decimal;

/// Steps of a schedule.
pub const STEPS_MAX: usize = 32;
/// The shortest and the longest wait between two tries.
pub const STEP_SECS: std::ops::RangeInclusive<u64> = 1..=7 * 86_400;
/// The longest steps for users of ours; the last one repeats.
const LOCAL: [u64; 5] = [10, 60, 300, 900, 3600];
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
        Schedule { steps: vec![300, 600, 1200, 2400, 4800, 9600, 14_400] }
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
    pub fn wait_secs(&self, place: Place, tries: u32, random: u64) -> u64 {
        let at = tries.max(1) as usize - 1;
        let step = self.steps[at.min(self.steps.len() - 1)];
        jittered(if place == Place::Here { step.min(LOCAL[at.min(LOCAL.len() - 1)]) } else { step }, random)
    }

    fn longest(&self) -> u64 {
        self.steps.iter().max().copied().unwrap_or(0)
    }
}

/// A tenth more or less of `step`.
fn jittered(step: u64, random: u64) -> u64 {
    let span = step / JITTER_PART;
    step - span + random % (2 * span + 1)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Where a recipient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A user, or a program, of ours.
    Here,
    /// Another host's.
    Elsewhere,
}

/// All that decides, out of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'s> {
    /// How long to wait behind each try.
    pub schedule: &'s Schedule,
    /// How long a message may wait.
    pub life_secs: u64,
    /// How long one from the null sender may, if that is less.
    pub bounce_life_secs: u64,
    /// The least wait where a message may have been delivered.
    pub possibly_secs: u64,
}

/// A try that failed.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Where its recipient is.
    pub place: Place,
    /// The message comes from the null sender.
    pub from_nobody: bool,
    /// It may have been delivered, though nobody said so.
    pub possibly: bool,
    /// When the message came, in seconds since 1970.
    pub received_secs: i64,
    /// When the try failed.
    pub now_secs: i64,
    /// Which try it was, from 1.
    pub tries: u32,
    /// Any number.
    pub random: u64,
}

/// What a failed try comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again at this time, in seconds since 1970.
    Again(i64),
    /// It has waited long enough.
    Expired,
}

impl Rules<'_> {
    /// When the life of a message ends that came then, in seconds since 1970.
    pub fn end_secs(&self, from_nobody: bool, received_secs: i64) -> i64 {
        let life = if from_nobody { self.life_secs.min(self.bounce_life_secs) } else { self.life_secs };
        received_secs.saturating_add_unsigned(life)
    }

    /// What a try that failed comes to.
    pub fn verdict(&self, tried: Tried) -> Verdict {
        let end = self.end_secs(tried.from_nobody, tried.received_secs);
        if tried.now_secs >= end {
            return Verdict::Expired;
        }
        let mut wait = self.schedule.wait_secs(tried.place, tried.tries, tried.random);
        if tried.possibly {
            wait = wait.max(jittered(self.possibly_secs, tried.random));
        }
        // The last try comes when its life ends, not up to a step later.
        Verdict::Again(tried.now_secs.saturating_add_unsigned(wait).min(end))
    }

    /// `next_secs` as it was noted, unless that is further ahead than any wait of these rules can be for a recipient in that
    /// place: then the clock was put back, or the schedule was shortened, and it is due after the longest wait there is.
    pub fn bounded(&self, place: Place, next_secs: i64, now_secs: i64) -> i64 {
        let longest = match place {
            Place::Here => self.schedule.longest().min(LOCAL[LOCAL.len() - 1]),
            Place::Elsewhere => self.schedule.longest().max(self.possibly_secs),
        };
        next_secs.min(now_secs.saturating_add_unsigned(longest + longest / JITTER_PART))
    }
}

/// Whether the sender of a message that still waits is to be told so now. `after_secs`: the setting, 0 = never; `warned`: he was
/// told already.
pub fn warning_is_due(after_secs: u64, received_secs: i64, now_secs: i64, warned: bool) -> bool {
    after_secs > 0 && !warned && now_secs >= received_secs.saturating_add_unsigned(after_secs)
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
        let spread = |place, tries| {
            let waits: Vec<u64> = (0..10_000).map(|random| schedule.wait_secs(place, tries, random)).collect();
            (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
        };
        for (tries, step) in [(0, 10), (1, 10), (2, 100), (3, 1000), (4, 1000), (u32::MAX, 1000)] {
            assert_eq!(spread(Place::Elsewhere, tries), (step - step / 10, step + step / 10), "{tries}");
        }
        assert_eq!(Schedule::parse("1").unwrap().wait_secs(Place::Elsewhere, 1, u64::MAX), 1);
    }

    #[test]
    fn users_of_ours_wait_as_long_as_the_schedule_says_but_no_step_longer_than_theirs() {
        let steps = |schedule: &Schedule, place| {
            // Random numbers whose jitter is nothing: the middle of the span.
            (1..=8)
                .map(|tries| (0..4000).map(|r| schedule.wait_secs(place, tries, r)).max().unwrap())
                .collect::<Vec<_>>()
        };
        let usual = Schedule::default();
        assert_eq!(steps(&usual, Place::Here), [11, 66, 330, 990, 3960, 3960, 3960, 3960]);
        assert_eq!(steps(&usual, Place::Elsewhere), [330, 660, 1320, 2640, 5280, 10_560, 15_840, 15_840]);
        // A schedule that is shorter holds for both.
        let short = Schedule::parse("5,10000,7").unwrap();
        assert_eq!(steps(&short, Place::Here), [5, 66, 7, 7, 7, 7, 7, 7]);
    }

    fn rules(schedule: &Schedule) -> Rules<'_> {
        Rules { schedule, life_secs: 200_000, bounce_life_secs: 86_400, possibly_secs: 500 }
    }

    const TRIED: Tried = Tried {
        place: Place::Elsewhere,
        from_nobody: false,
        possibly: false,
        received_secs: 1000,
        now_secs: 1000,
        tries: 1,
        random: 10,
    };

    #[test]
    fn a_message_is_given_up_at_the_first_failure_behind_its_life_and_not_before() {
        let schedule = Schedule::parse("100").unwrap();
        let rules = rules(&schedule);
        let say = |from_nobody, now_secs| rules.verdict(Tried { from_nobody, now_secs, ..TRIED });
        assert_eq!(say(false, 1000), Verdict::Again(1100));
        assert_eq!(say(false, 200_999), Verdict::Again(201_000));
        assert_eq!(say(false, 201_000), Verdict::Expired);
        assert_eq!(say(true, 1000 + 86_399), Verdict::Again(1000 + 86_400));
        assert_eq!(say(true, 1000 + 86_400), Verdict::Expired);
        // A bounce lives no longer than other messages.
        let brief = Rules { life_secs: 300, ..rules };
        assert_eq!(brief.verdict(Tried { from_nobody: true, now_secs: 1300, ..TRIED }), Verdict::Expired);
        // A clock that was put back waits, and one at either end of time upsets nothing.
        assert_eq!(say(false, -5000), Verdict::Again(-4900));
        let endless = Rules { life_secs: u64::MAX, ..rules };
        let tried = Tried { received_secs: i64::MAX, now_secs: i64::MIN, ..TRIED };
        assert_eq!(endless.verdict(tried), Verdict::Again(i64::MIN + 100));
    }

    #[test]
    fn what_may_have_been_delivered_waits_longer_and_ends_with_its_life_too() {
        let schedule = Schedule::parse("100,10000").unwrap();
        let rules = rules(&schedule);
        let tried = Tried { possibly: true, random: 50, ..TRIED };
        assert_eq!(rules.verdict(tried), Verdict::Again(1000 + 500));
        // Where the schedule says more, that counts.
        assert_eq!(rules.verdict(Tried { tries: 2, random: 1000, ..tried }), Verdict::Again(1000 + 10_000));
        assert_eq!(rules.verdict(Tried { now_secs: 200_900, ..tried }), Verdict::Again(201_000));
        assert_eq!(rules.verdict(Tried { now_secs: 201_000, ..tried }), Verdict::Expired);
    }

    #[test]
    fn a_clock_put_back_makes_nobody_wait_longer_than_the_longest_step() {
        let schedule = Schedule::parse("10,1000,100").unwrap();
        let rules = rules(&schedule);
        assert_eq!(rules.bounded(Place::Elsewhere, 5000, 4000), 5000);
        assert_eq!(rules.bounded(Place::Elsewhere, 5_000_000, 4000), 4000 + 1100);
        assert_eq!(
            Rules { schedule: &Schedule::default(), ..rules }.bounded(Place::Here, 5_000_000, 4000),
            4000 + 3960
        );
        assert_eq!(rules.bounded(Place::Elsewhere, 3000, 4000), 3000);
        assert_eq!(rules.bounded(Place::Elsewhere, i64::MAX, i64::MAX), i64::MAX);
        // No wait that is due goes beyond it, the one of a doubt among them.
        let doubtful = Rules { possibly_secs: 5000, ..rules };
        assert_eq!(doubtful.bounded(Place::Elsewhere, 5_000_000, 4000), 4000 + 5500);
        for random in 0..2000 {
            let tried = Tried { possibly: true, now_secs: 4000, random, ..TRIED };
            let Verdict::Again(next) = doubtful.verdict(tried) else { panic!("its life is not over") };
            assert_eq!(doubtful.bounded(Place::Elsewhere, next, 4000), next);
        }
    }

    #[test]
    fn a_sender_is_told_once_that_his_message_waits() {
        for (after, received, now, warned, due) in [
            (100, 1000, 1099, false, false),
            (100, 1000, 1100, false, true),
            (100, 1000, i64::MAX, false, true),
            (100, 1000, 1100, true, false),
            (0, 1000, i64::MAX, false, false),
            (100, 1000, 0, false, false),
            (u64::MAX, i64::MAX, 0, false, false),
        ] {
            assert_eq!(warning_is_due(after, received, now, warned), due, "{after} {received} {now} {warned}");
        }
    }
}
