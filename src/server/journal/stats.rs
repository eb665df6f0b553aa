//! The statistics files below stats_path: a line a session, in the file of the day on which it ended, local time.
//!
//! Whoever logged in has a line; who did not has no name and none. A file of the same name from last year, which is one
//! that was not written for [`STALE_SECS`], is begun anew. The format is `rules/stats.rs`'s.
//!
//! Sessions that cannot be recorded are counted: the first is an error in the log, and when it works again their number is.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::lines::Lines;
use super::own;
use crate::rules::stats::{STALE_SECS, Visit, file_name};
use crate::text::fault::Fault;

/// The files.
pub struct Stats {
    folder: PathBuf,
    /// The file of a day, by its name.
    today: Option<(String, Lines)>,
    lost: u64,
    failing: bool,
}

impl Stats {
    /// Files in `folder`; none is opened before there is something to write.
    pub fn new(folder: PathBuf) -> Stats {
        Stats { folder, today: None, lost: 0, failing: false }
    }

    /// The same, in `folder`: what was lost elsewhere is still told.
    pub fn moved_to(self, folder: PathBuf) -> Stats {
        Stats { folder, today: None, ..self }
    }

    /// These, too, could not be recorded.
    pub fn lose(&mut self, visits: u64) {
        self.lost += visits;
    }

    /// Writes the lines of these sessions, and what there is to say to the operator into `log`.
    pub fn write(&mut self, visits: &[Visit], zone: &TimeZone, log: &mut Vec<u8>) {
        let mut rest = visits;
        while let [first, ..] = rest {
            let name = name(first.end, zone);
            let same = rest.iter().take_while(|visit| self::name(visit.end, zone) == name).count();
            let (these, others) = rest.split_at(same);
            rest = others;
            match self.append(&name, these) {
                Ok(()) => {
                    if self.lost > 0 {
                        let text = format!("sessions missing in the statistics: {}", self.lost);
                        log.extend_from_slice(own("ERROR", &text).as_bytes());
                    }
                    (self.lost, self.failing) = (0, false);
                }
                Err((lost, fault)) => {
                    self.lost += lost as u64;
                    if !self.failing {
                        let text = format!("the statistics cannot be written: {fault}; see stats_path");
                        log.extend_from_slice(own("ERROR", &text).as_bytes());
                    }
                    self.failing = true;
                }
            }
        }
    }

    /// The error is how many of them are not in the file, and why.
    fn append(&mut self, name: &str, visits: &[Visit]) -> Result<(), (usize, Fault)> {
        let all = |fault| (visits.len(), fault);
        if self.today.as_ref().is_none_or(|(today, _)| today != name) {
            let mut lines = Lines::open(&self.folder, name).map_err(all)?;
            lines.begin_anew_if_older(visits[0].end as i64 - STALE_SECS).map_err(all)?;
            self.today = Some((name.to_owned(), lines));
        }
        let Some((_, lines)) = &mut self.today else { unreachable!("it was opened above") };
        lines.look().map_err(all)?;
        let mut text = Vec::new();
        visits.iter().for_each(|visit| visit.write(&mut text));
        let result = lines.append(&text);
        result.map_err(|(whole, fault)| (super::log::count(&text[whole..]), fault))
    }
}

/// The name of the file for what ended at `end`.
fn name(end: u64, zone: &TimeZone) -> String {
    let end = i64::try_from(end).ok().and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(Timestamp::MAX);
    let date = zone.to_datetime(end).date();
    file_name(date.month() as u8, date.day() as u8)
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

    fn wrote(stats: &mut Stats, visits: &[Visit], zone: &TimeZone) -> String {
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
            said.lines().count() == 1 && said.contains(" ERROR the statistics cannot be written: opening "),
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
        assert_eq!(name(u64::MAX, &TimeZone::UTC), "dpopdec30.stats");
    }
}
