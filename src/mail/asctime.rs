//! When a message came, as its From_ line says: `From ann@example.org Mon Jan  5 10:00:00 2026`, the date as asctime(3)
//! writes it, with a zone or without.
//!
//! Whoever asks wants to throw old mail away, so every doubt makes a message younger: without a zone that we know, the date is
//! taken as that of the last place on earth to have it, twelve hours west of UTC; of several dates in one line (a sender may be
//! `"Mon Jan 5 10:00:00 1970"@example.org`) the latest counts; what is no date of the calendar is none.

use jiff::civil::Date;
use jiff::tz::Offset;

use super::mbox::{DAYS, MONTHS};
use crate::text::number::decimal;

/// Where a date without a zone is taken to be.
const WESTERNMOST_SECS: i32 = -12 * 3600;
/// Zones by name: those of RFC 822, in seconds east of UTC.
const ZONES: &[(&[u8], i32)] = &[
    (b"GMT", 0),
    (b"UT", 0),
    (b"UTC", 0),
    (b"Z", 0),
    (b"EST", -5 * 3600),
    (b"EDT", -4 * 3600),
    (b"CST", -6 * 3600),
    (b"CDT", -5 * 3600),
    (b"MST", -7 * 3600),
    (b"MDT", -6 * 3600),
    (b"PST", -8 * 3600),
    (b"PDT", -7 * 3600),
];

/// The latest moment at which a From_ line may say that its message came, in seconds since 1970 UTC; `None` when it has no
/// date.
pub fn posted(line: &[u8]) -> Option<i64> {
    let rest = line.strip_prefix(b"From ")?;
    let words: Vec<&[u8]> =
        rest.split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).filter(|word| !word.is_empty()).collect();
    (0..words.len()).filter_map(|at| date(&words[at..])).max()
}

/// The same moment as a From_ line has it: asctime(3)'s words, in UTC. A time that no calendar has is written as 1970's first.
pub fn written(posted_secs: i64) -> String {
    let when = jiff::Timestamp::from_second(posted_secs).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let when = Offset::UTC.to_datetime(when);
    let name = |names: &[&[u8; 3]], index: i8| String::from_utf8_lossy(names[index as usize]).into_owned();
    let (day, month) = (name(DAYS, when.weekday().to_sunday_zero_offset()), name(MONTHS, when.month() - 1));
    let (hour, minute, second) = (when.hour(), when.minute(), when.second());
    format!("{day} {month} {:2} {hour:02}:{minute:02}:{second:02} {:04}", when.day(), when.year())
}

/// The moment that begins `words`: weekday, month, day, time, up to two words of zone, year, and perhaps a zone.
fn date(words: &[&[u8]]) -> Option<i64> {
    let [day_name, month, day, time, rest @ ..] = words else { return None };
    named(DAYS, day_name.strip_suffix(b",").unwrap_or(day_name))?;
    let month = named(MONTHS, month)? + 1;
    let day = number(day.strip_suffix(b",").unwrap_or(day), 2)?;
    let year_at = rest.iter().take(3).position(|word| word.len() == 4 && number(word, 4) >= Some(1970))?;
    let year = number(rest[year_at], 4)?;
    let mut clock = time.split(|&b| b == b':').map(|part| number(part, 2));
    let (hour, minute) = (clock.next()??, clock.next()??);
    // A leap second is the one before it, by our count.
    let second = clock.next().unwrap_or(Some(0))?.min(59);
    if clock.next().is_some() {
        return None;
    }
    let date = Date::new(i16::try_from(year).ok()?, month as i8, day as i8).ok()?;
    let local = (hour < 24 && minute < 60).then(|| date.at(hour as i8, minute as i8, second as i8, 0))?;
    let behind = rest.get(year_at + 1).into_iter();
    let east = rest[..year_at].iter().chain(behind).filter_map(|word| zone(word)).min().unwrap_or(WESTERNMOST_SECS);
    Some(Offset::from_seconds(east).ok()?.to_timestamp(local).ok()?.as_second())
}

fn named(names: &[&[u8; 3]], word: &[u8]) -> Option<usize> {
    names.iter().position(|name| name.eq_ignore_ascii_case(word))
}

/// A number of one to `digits` digits.
fn number(word: &[u8], digits: usize) -> Option<u64> {
    decimal(word).filter(|_| word.len() <= digits)
}

/// Seconds east of UTC.
fn zone(word: &[u8]) -> Option<i32> {
    let (sign, digits) = match word {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return ZONES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, east)| *east),
    };
    let (hours, minutes) = (digits.get(..2)?, digits.get(2..)?);
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2).filter(|minutes| *minutes < 60)?);
    (digits.len() == 4 && hours <= 14).then(|| sign * (hours * 3600 + minutes * 60) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mbox::is_from_line;

    const NOON: i64 = 1_767_610_800; // 2026-01-05 11:00 UTC
    const HOUR: i64 = 3600;

    #[test]
    fn dates_are_read_with_and_without_a_zone() {
        for (line, posted_at) in [
            ("From ann@example.org Mon Jan  5 11:00:00 2026", Some(NOON + 12 * HOUR)),
            ("From ann@example.org Mon Jan  5 11:00:00 2026\n", Some(NOON + 12 * HOUR)),
            ("From ann@example.org Mon Jan  5 11:00:00 2026\r\n", Some(NOON + 12 * HOUR)),
            ("From Mon Jan 5 11:00:00 2026", Some(NOON + 12 * HOUR)),
            ("From ann Mon Jan  5 11:00 2026", Some(NOON + 12 * HOUR)),
            ("From ann mon, jan 05, 11:00:00 2026", Some(NOON + 12 * HOUR)),
            ("From ann Mon Jan  5 11:00:00 GMT 2026", Some(NOON)),
            ("From ann Mon Jan  5 11:00:00 2026 UTC", Some(NOON)),
            ("From ann Mon Jan  5 12:00:00 2026 +0100", Some(NOON)),
            ("From ann Mon Jan  5 12:00:00 +0100 2026", Some(NOON)),
            ("From ann Mon Jan  5 05:30:00 2026 -0530", Some(NOON)),
            ("From ann Mon Jan  5 06:00:00 EST 2026", Some(NOON)),
            ("From ann Mon Jan  5 11:00:00 MET DST 2026", Some(NOON + 12 * HOUR)),
            ("From ann Mon Jan  5 11:00:00 2026 remote from mx", Some(NOON + 12 * HOUR)),
            ("From ann Mon Jan  5 11:00:00 2026 +9999", Some(NOON + 12 * HOUR)),
            ("From ann Mon Jan  5 11:00:00 2026 +01", Some(NOON + 12 * HOUR)),
            // The weekday is not held against the date: whoever wrote it wrote the date too.
            ("From ann Fri Jan  5 11:00:00 2026 GMT", Some(NOON)),
            ("From ann Sat Dec 31 23:59:60 2016 GMT", Some(1_483_228_799)),
            ("From ann Thu Jan  1 00:00:00 1970 GMT", Some(0)),
            ("From ann Tue Feb 29 00:00:00 2028 GMT", Some(1_835_395_200)),
            ("From ann Fri Dec 31 23:59:59 9999 GMT", None),
            ("From ann Mon Feb 29 00:00:00 2026", None),
            ("From ann Mon Jan  0 11:00:00 2026", None),
            ("From ann Mon Jan 32 11:00:00 2026", None),
            ("From ann Mon Jan  5 24:00:00 2026", None),
            ("From ann Mon Jan  5 11:60:00 2026", None),
            ("From ann Mon Jan  5 11:00:00:00 2026", None),
            ("From ann Mon Jan  5 11 2026", None),
            ("From ann Mon Jan  5 11:00:00 1969", None),
            ("From ann Mon Jan  5 11:00:00 26", None),
            ("From ann Mon Jan  5 11:00:00", None),
            ("From ann yesterday", None),
            ("From ", None),
            ("From", None),
            ("", None),
            ("Date: Mon Jan  5 11:00:00 2026", None),
        ] {
            assert_eq!(posted(line.as_bytes()), posted_at, "{line:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(written(NOON), "Mon Jan  5 11:00:00 2026");
        assert_eq!(written(i64::MAX), written(0));
        for secs in [0, 1, 951_782_400, NOON, 4_102_444_799] {
            assert_eq!(posted(format!("From ann {} +0000", written(secs)).as_bytes()), Some(secs));
        }
    }

    #[test]
    fn a_sender_cannot_make_his_message_old() {
        let old = "\"x Mon Jan 5 11:00:00 1970 GMT\"@example.org";
        assert_eq!(posted(format!("From {old} Mon Jan  5 11:00:00 2026 GMT").as_bytes()), Some(NOON));
        assert_eq!(posted(format!("From ann Mon Jan  5 11:00:00 2026 GMT {old}").as_bytes()), Some(NOON));
        assert_eq!(posted(b"From a +0000 Mon Jan 5 11:00:00 2026 +1400 x"), Some(NOON - 14 * HOUR));
    }

    #[test]
    fn what_separates_messages_and_is_in_the_calendar_has_a_date() {
        for line in [
            "From ann Mon Jan  5 11:00:00 2026",
            "From ann Mon Jan  5 11:00 MET DST 2026",
            "From Mon, Jan 5, 11:00:00 2026 x y z",
            "From a b c Sun Sep 30 00:00:00 2001 remote from mx",
            "From ann Mon Jan  5 11:00:00 a b c 2026",
            "From ann Mon Foo  5 11:00:00 2026",
            "From nobody",
        ] {
            assert_eq!(is_from_line(line.as_bytes()), posted(line.as_bytes()).is_some(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_upsets_it(words in proptest::collection::vec("Mon|Jan|[0-9:+-]{1,8}|2026|[ -~]{0,12}", 0..12)) {
            let _ = posted(format!("From {}", words.join(" ")).as_bytes());
        }
    }
}
