//! The time that statistics are asked about, as people write it.
//!
//! | written                                      | means                                                              |
//! |----------------------------------------------|--------------------------------------------------------------------|
//! | `hour`, `day`, `week`                        | the last 60 minutes, 24 hours, 7 times 24 hours                      |
//! | `month`                                      | since this time of this day of the month before                     |
//! | `so_far_today`; nothing                      | since midnight                                                       |
//! | `[MM/dd] [hh.mm.ss] to [MM/dd] [hh.mm.ss]`   | from the first to the second; the second does not belong to it       |
//!
//! Without a time midnight is meant, at which the day begins: `1/15 to 1/20` ends with the 19th. Without a date the first
//! is of today, the second of the first's day. The first lies in the past, less than a year ago; the second behind the first.
//! All is local time.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

/// Nothing lasts longer, so no more files are looked for.
const MOST_DAYS: usize = 368;

/// A time, and the days whose files have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The first second.
    pub from: u64,
    /// The first second behind it.
    pub to: u64,
    /// Month and day, the first of them first. One more at each end: whoever wrote may have had another clock.
    pub days: Vec<(u8, u8)>,
}

/// The time that these words mean, seen from `now`. Refuses with a sentence.
pub fn parse(words: &[String], now: &Zoned) -> Result<Frame, String> {
    let back = |span: Span| now.checked_sub(span).map_err(|_| "no time is that long ago".to_owned());
    let word = |text: &str| text.to_ascii_lowercase().replace('_', "");
    let (from, to) = match words {
        [] => (now.start_of_day().map_err(|error| error.to_string())?, now.clone()),
        [one] => match &word(one)[..] {
            "hour" => (back(Span::new().hours(1))?, now.clone()),
            "day" => (back(Span::new().hours(24))?, now.clone()),
            "week" => (back(Span::new().hours(7 * 24))?, now.clone()),
            "month" => (back(Span::new().months(1))?, now.clone()),
            "sofartoday" => (now.start_of_day().map_err(|error| error.to_string())?, now.clone()),
            _ => return Err(unclear(one)),
        },
        words => {
            let Some(at) = words.iter().position(|one| word(one) == "to") else {
                return Err(unclear(&words.join(" ")));
            };
            between(&words[..at], &words[at + 1..], now)?
        }
    };
    Ok(frame(&from, &to))
}

fn unclear(text: &str) -> String {
    format!(
        "`{}` is no time: hour, day, week, month, so_far_today, or [MM/dd] [hh.mm.ss] to [MM/dd] [hh.mm.ss]",
        text.escape_debug()
    )
}

fn between(from: &[String], to: &[String], now: &Zoned) -> Result<(Zoned, Zoned), String> {
    let ((from_day, from_time), (to_day, to_time)) = (moment(from)?, moment(to)?);
    let zone = now.time_zone();
    let today = now.date();
    let begin = match from_day {
        None => at(today, from_time, zone)?,
        Some(day) => latest(day, today.year(), |date| Ok(at(date, from_time, zone)? <= *now))
            .and_then(|date| at(date, from_time, zone))?,
    };
    let end = match to_day {
        None => at(begin.date(), to_time, zone)?,
        Some(day) => {
            let this = date(day, begin.year()).ok().map(|date| at(date, to_time, zone)).transpose()?;
            match this.filter(|end| *end > begin) {
                Some(end) => end,
                None => at(date(day, begin.year() + 1)?, to_time, zone)?,
            }
        }
    };
    if end <= begin {
        return Err(format!("{} is not behind {}", end.datetime(), begin.datetime()));
    }
    Ok((begin, end))
}

/// Month and day where they are written, and the time.
type Moment = (Option<(i8, i8)>, Time);

fn moment(words: &[String]) -> Result<Moment, String> {
    let refuse = || unclear(&words.join(" "));
    let numbers = |text: &str, parting: char| -> Option<Vec<i8>> {
        text.split(parting).map(|part| part.parse().ok().filter(|_| part.len() <= 2)).collect()
    };
    let day = |text: &str| match numbers(text, '/').as_deref() {
        Some(&[month, day]) => Some((month, day)),
        _ => None,
    };
    let time = |text: &str| match numbers(text, '.').as_deref() {
        Some(&[hour, minute, second]) => Time::new(hour, minute, second, 0).ok(),
        _ => None,
    };
    match words {
        [one] => match (day(one), time(one)) {
            (Some(day), _) => Ok((Some(day), Time::midnight())),
            (None, Some(time)) => Ok((None, time)),
            (None, None) => Err(refuse()),
        },
        [one, two] => Ok((Some(day(one).ok_or_else(refuse)?), time(two).ok_or_else(refuse)?)),
        _ => Err(refuse()),
    }
}

fn date((month, day): (i8, i8), year: i16) -> Result<Date, String> {
    Date::new(year, month, day).map_err(|_| format!("{month}/{day} is no day of {year}: it is month/day"))
}

/// The last day of that name that is `wanted`, this year or before; a leap day is not in every year.
fn latest(day: (i8, i8), year: i16, wanted: impl Fn(Date) -> Result<bool, String>) -> Result<Date, String> {
    let years = if day == (2, 29) { 8 } else { 1 };
    let mut refused = None;
    for year in (year - years..=year).rev() {
        match date(day, year) {
            Ok(date) if wanted(date)? => return Ok(date),
            Ok(_) => {}
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    Err(refused.unwrap_or_else(|| format!("{}/{} was not yet", day.0, day.1)))
}

fn at(date: Date, time: Time, zone: &TimeZone) -> Result<Zoned, String> {
    date.to_datetime(time).to_zoned(zone.clone()).map_err(|error| error.to_string())
}

fn frame(from: &Zoned, to: &Zoned) -> Frame {
    let second = |at: &Zoned| u64::try_from(at.timestamp().as_second()).unwrap_or(0);
    let mut days = Vec::new();
    let mut date = from.date().yesterday().unwrap_or(from.date());
    let last = to.date().tomorrow().unwrap_or(to.date());
    while date <= last && days.len() < MOST_DAYS {
        let day = (date.month() as u8, date.day() as u8);
        // A name stands for one day a year: the last one.
        days.retain(|known| *known != day);
        days.push(day);
        let Ok(next) = date.tomorrow() else { break };
        date = next;
    }
    Frame { from: second(from), to: second(to), days }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// The frame, as local times in UTC.
    fn read(text: &str) -> Result<(String, String, usize), String> {
        let now = date(2026, 3, 10).at(14, 30, 15, 0).to_zoned(TimeZone::UTC).unwrap();
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let frame = parse(&words, &now)?;
        let shown = |second: u64| jiff::Timestamp::from_second(second as i64).unwrap().to_string();
        Ok((shown(frame.from), shown(frame.to), frame.days.len()))
    }

    #[test]
    fn times_mean_what_the_manual_says() {
        for (text, from, to, days) in [
            ("hour", "2026-03-10T13:30:15Z", "2026-03-10T14:30:15Z", 3),
            ("Day", "2026-03-09T14:30:15Z", "2026-03-10T14:30:15Z", 4),
            ("week", "2026-03-03T14:30:15Z", "2026-03-10T14:30:15Z", 10),
            ("month", "2026-02-10T14:30:15Z", "2026-03-10T14:30:15Z", 31),
            ("so_far_today", "2026-03-10T00:00:00Z", "2026-03-10T14:30:15Z", 3),
            ("", "2026-03-10T00:00:00Z", "2026-03-10T14:30:15Z", 3),
            ("1/15 to 1/20", "2026-01-15T00:00:00Z", "2026-01-20T00:00:00Z", 8),
            ("01/15 08.00.00 to 10.30.05", "2026-01-15T08:00:00Z", "2026-01-15T10:30:05Z", 3),
            ("08.00.00 to 3/11", "2026-03-10T08:00:00Z", "2026-03-11T00:00:00Z", 4),
            ("9.5.0 TO 9.5.1", "2026-03-10T09:05:00Z", "2026-03-10T09:05:01Z", 3),
            // The future is last year's.
            ("12/20 to 1/5", "2025-12-20T00:00:00Z", "2026-01-05T00:00:00Z", 19),
            ("3/11 to 3/10", "2025-03-11T00:00:00Z", "2026-03-10T00:00:00Z", 365),
            ("2/29 to 3/1", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z", 4),
        ] {
            assert_eq!(read(text), Ok((from.into(), to.into(), days)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "year",
            "to",
            "1/15",
            "1/15 to",
            "to 1/15",
            "13/1 to 13/2",
            "2/30 to 3/1",
            "1/15 1/16 to 1/17",
            "10.00 to 11.00",
            "25.00.00 to 26.00.00",
            "10.00.00 to 09.00.00",
            "1/15 to 1/16 10.00.00 extra",
            "-1/5 to 1/6",
            "001/5 to 1/6",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_the_local_ones() {
        let east = TimeZone::fixed(jiff::tz::offset(10));
        let now = date(2026, 3, 10).at(4, 0, 0, 0).to_zoned(east).unwrap();
        let frame = parse(&["so_far_today".to_owned()], &now).unwrap();
        assert_eq!(frame.days, [(3, 9), (3, 10), (3, 11)]);
        assert_eq!(frame.to - frame.from, 4 * 3600);
    }
}
