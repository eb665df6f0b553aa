//! Files of statistics: a line, or a few, for each thing that is over, in the file of the day on which that was, local time.
//!
//! | of       | files                    | where        | format              |
//! |----------|--------------------------|--------------|---------------------|
//! | sessions | dpopmmmdd.stats          | stats_path   | `rules/stats.rs`    |
//! | messages | dmDDMM.log               | log_path     | `rules/traffic.rs`  |
//!
//! Who logged in has a line; who did not has no name and none. A file of the same name from last year, which is one that was
//! not written for [`STALE_SECS`], is begun anew.
//!
//! What cannot be recorded is counted: the first is an error in the log, and when it works again their number is.

use std::marker::PhantomData;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::lines::Lines;
use super::own;
use crate::rules::stats::{STALE_SECS, Visit};
use crate::rules::traffic::Record;
use crate::rules::{stats, traffic};
use crate::text::fault::Fault;

/// Something that has lines in the file of its day.
pub trait Dated {
    /// What it is, many of it.
    const WHAT: &str;
    /// The settings that say whether and where it is written.
    const SETTINGS: &str;
    /// The name of the file of a day; both begin at 1.
    fn file_name(month: u8, day: u8) -> String;
    /// When it was, in seconds since 1970.
    fn second(&self) -> u64;
    /// Appends its lines.
    fn write(&self, out: &mut Vec<u8>);
}

impl Dated for Visit {
    const WHAT: &str = "sessions";
    const SETTINGS: &str = "stats_path";

    fn file_name(month: u8, day: u8) -> String {
        stats::file_name(month, day)
    }

    fn second(&self) -> u64 {
        self.end
    }

    fn write(&self, out: &mut Vec<u8>) {
        Visit::write(self, out);
    }
}

impl Dated for Record {
    const WHAT: &str = "messages";
    const SETTINGS: &str = "log_path and oneline_stats";

    fn file_name(month: u8, day: u8) -> String {
        traffic::file_name(month, day)
    }

    fn second(&self) -> u64 {
        self.second
    }

    fn write(&self, out: &mut Vec<u8>) {
        Record::write(self, out);
    }
}

/// The files.
pub struct Stats<T> {
    folder: PathBuf,
    /// The file of a day, by its name.
    today: Option<(String, Lines)>,
    lost: u64,
    failing: bool,
    of: PhantomData<T>,
}

impl<T: Dated> Stats<T> {
    /// Files in `folder`; none is opened before there is something to write.
    pub fn new(folder: PathBuf) -> Stats<T> {
        Stats { folder, today: None, lost: 0, failing: false, of: PhantomData }
    }

    /// The same, in `folder`: what was lost elsewhere is still told.
    pub fn moved_to(self, folder: PathBuf) -> Stats<T> {
        Stats { folder, today: None, ..self }
    }

    /// These, too, could not be recorded.
    pub fn lose(&mut self, things: u64) {
        self.lost += things;
    }

    /// Writes their lines, and what there is to say to the operator into `log`.
    pub fn write(&mut self, things: &[T], zone: &TimeZone, log: &mut Vec<u8>) {
        let mut rest = things;
        while let [first, ..] = rest {
            let name = name::<T>(first.second(), zone);
            let same = rest.iter().take_while(|thing| self::name::<T>(thing.second(), zone) == name).count();
            let (these, others) = rest.split_at(same);
            rest = others;
            match self.append(&name, these) {
                Ok(()) => {
                    if self.lost > 0 {
                        let text = format!("{} missing in the statistics: {}", T::WHAT, self.lost);
                        log.extend_from_slice(own("ERROR", &text).as_bytes());
                    }
                    (self.lost, self.failing) = (0, false);
                }
                Err((lost, fault)) => {
                    self.lost += lost as u64;
                    if !self.failing {
                        let (what, settings) = (T::WHAT, T::SETTINGS);
                        let text = format!("the statistics cannot be written, of {what}: {fault}; see {settings}");
                        log.extend_from_slice(own("ERROR", &text).as_bytes());
                    }
                    self.failing = true;
                }
            }
        }
    }

    /// The error is how many of them are not in the file, and why.
    fn append(&mut self, name: &str, things: &[T]) -> Result<(), (usize, Fault)> {
        let all = |fault| (things.len(), fault);
        if self.today.as_ref().is_none_or(|(today, _)| today != name) {
            let mut lines = Lines::open(&self.folder, name).map_err(all)?;
            lines.begin_anew_if_older(things[0].second() as i64 - STALE_SECS).map_err(all)?;
            self.today = Some((name.to_owned(), lines));
        }
        let Some((_, lines)) = &mut self.today else { unreachable!("it was opened above") };
        lines.look().map_err(all)?;
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(things.len()));
        for thing in things {
            thing.write(&mut text);
            ends.push(text.len());
        }
        lines.append(&text).map_err(|(whole, fault)| (ends.iter().filter(|end| **end > whole).count(), fault))
    }
}

/// The name of the file for what was at `second`.
fn name<T: Dated>(second: u64, zone: &TimeZone) -> String {
    let second = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    let date = zone.to_datetime(second.unwrap_or(Timestamp::MAX)).date();
    T::file_name(date.month() as u8, date.day() as u8)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// The first second of 2026, UTC.
    const YEAR: u64 = 1_767_225_600;

    fn visit(end: u64, user: &str) -> Visit {
        Visit { start: end - 5, end, user: user.into(), from: "192.0.2.7".into(), bytes: 10, messages: 1 }
    }

    fn wrote(stats: &mut Stats<Visit>, visits: &[Visit], zone: &TimeZone) -> String {
        let mut log = Vec::new();
        stats.write(visits, zone, &mut log);
        String::from_utf8(log).unwrap()
    }

    #[test]
    fn a_session_is_in_the_file_of_the_local_day_on_which_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut stats = Stats::new(folder.path().to_owned());
        let east = TimeZone::fixed(jiff::tz::offset(1));
        let visits = [
            visit(YEAR - 3601, "ann"),
            visit(YEAR - 3600, "bob"),
            visit(YEAR + 82_799, "eve"),
            visit(YEAR + 82_800, "ann"),
        ];
        assert_eq!(wrote(&mut stats, &visits, &east), "");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("dpopdec31.stats"), format!("{} {} ann 192.0.2.7 10 1\n", YEAR - 3606, YEAR - 3601));
        assert_eq!(read("dpopjan01.stats").lines().count(), 2);
        assert_eq!(read("dpopjan02.stats").lines().count(), 1);
        wrote(&mut stats, &visits[2..3], &TimeZone::UTC);
        assert_eq!(read("dpopjan01.stats").lines().count(), 3);
    }

    #[test]
    fn last_years_file_of_the_same_name_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpopjan01.stats");
        for (days, kept) in [(299, true), (301, false)] {
            fs::write(&path, "old\n").unwrap();
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR - days * 86_400);
            fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
            let mut stats = Stats::new(folder.path().to_owned());
            wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC);
            wrote(&mut stats, &[visit(YEAR, "bob")], &TimeZone::UTC);
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!((text.starts_with("old\n"), text.lines().count()), (kept, 2 + usize::from(kept)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_recorded_is_told_once_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("stats");
        let mut stats = Stats::new(place.clone());
        let said = wrote(&mut stats, &[visit(YEAR, "ann"), visit(YEAR + 86_400, "ann")], &TimeZone::UTC);
        assert!(
            said.lines().count() == 1
                && said.contains(" ERROR the statistics cannot be written, of sessions: opening "),
            "{said}"
        );
        assert_eq!(wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC), "");
        stats.lose(4);
        fs::create_dir(&place).unwrap();
        let said = wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC);
        assert!(said.lines().count() == 1 && said.contains(" ERROR sessions missing in the statistics: 7"), "{said}");
        assert_eq!(wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC), "");
        assert_eq!(fs::read_to_string(place.join("dpopjan01.stats")).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_link_is_not_followed_and_a_file_that_was_fetched_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpopjan01.stats");
        fs::write(folder.path().join("other"), "mine\n").unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        let mut stats = Stats::new(folder.path().to_owned());
        assert!(wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC).contains("cannot be written"));
        assert_eq!(fs::read_to_string(folder.path().join("other")).unwrap(), "mine\n");
        fs::remove_file(&path).unwrap();
        assert!(
            wrote(&mut stats, &[visit(YEAR, "ann")], &TimeZone::UTC).contains("sessions missing in the statistics: 1")
        );
        fs::rename(&path, folder.path().join("fetched")).unwrap();
        wrote(&mut stats, &[visit(YEAR, "bob")], &TimeZone::UTC);
        assert!(fs::read_to_string(&path).unwrap().contains(" bob "));
    }

    #[test]
    fn a_clock_beyond_all_days_names_a_day() {
        assert_eq!(name::<Visit>(u64::MAX, &TimeZone::UTC), "dpopdec30.stats");
        assert_eq!(name::<Record>(u64::MAX, &TimeZone::UTC), "dm3012.log");
    }
}
