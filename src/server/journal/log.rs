//! A log, `dpop.log` or `dsmtp.log`, and the four before it.
//!
//! One that would grow beyond its limit is renamed, `dpop.log` to `dpop1.log` and so on up to `dpop4.log`, the oldest:
//! the one that was `dpop4.log` is gone. No log is longer than the limit but by one line that is longer than it itself.
//! When the names cannot be moved on, the log goes on growing and the next try is a limit further.
//!
//! Lines that cannot be written are counted; how many there were is the next line that can be.

use std::path::Path;

use memchr::memrchr;

use super::lines::Lines;
use super::own;
use crate::rules::logs::{LogFile, OLD};
use crate::text::fault::Fault;

/// The log.
pub struct Log {
    which: LogFile,
    lines: Lines,
    /// Bytes; 0 = no limit.
    limit: u64,
    /// Beyond this it is renamed.
    rename_at: u64,
    lost: usize,
    /// The name cannot be opened again, and that was said.
    astray: bool,
}

impl Log {
    /// Opens the log in `folder`.
    pub fn open(folder: &Path, which: LogFile, limit: u64) -> Result<Log, Fault> {
        let lines = Lines::open(folder, &which.name())?;
        Ok(Log { which, lines, limit, rename_at: limit, lost: 0, astray: false })
    }

    /// Goes on in `folder`, with another limit; opens it anew, for under the same name there may be another directory now.
    /// When it cannot be used, the log stays where it is and a line in it says why.
    pub fn follow(&mut self, folder: &Path, limit: u64) {
        (self.limit, self.rename_at) = (limit, limit);
        match Log::open(folder, self.which, limit) {
            Ok(log) => *self = Log { lost: self.lost, ..log },
            Err(fault) => {
                let text = format!("the log stays in {}: {fault}", self.lines.folder().display());
                self.write(own("ERROR", &text).as_bytes());
            }
        }
    }

    /// Appends whole lines.
    pub fn write(&mut self, lines: &[u8]) {
        let mut said = String::new();
        let look = self.lines.look();
        if let (Err(fault), false) = (&look, self.astray) {
            let name = self.which.name();
            said += &own("ERROR", &format!("this log is not {name} any more, and no new one can be made: {fault}"));
        }
        self.astray = look.is_err();
        if self.lost > 0 {
            said += &own("ERROR", &format!("lines missing here, for the log could not be written: {}", self.lost));
        }
        let result = if said.is_empty() { self.spread(lines) } else { self.spread(&[said.as_bytes(), lines].concat()) };
        let missing = result.err().unwrap_or(0);
        if missing <= lines.len() {
            // What we had to say is in the log.
            self.lost = 0;
        }
        self.lost += count(&lines[lines.len() - missing.min(lines.len())..]);
    }

    /// Appends to as many files as it takes. The error is how many bytes at the end are in none.
    fn spread(&mut self, lines: &[u8]) -> Result<(), usize> {
        let mut rest = lines;
        while !rest.is_empty() {
            let room = self.rename_at.saturating_sub(self.lines.size()).min(rest.len() as u64) as usize;
            let mut fits = rest.len();
            // While the name is not ours, there is nothing to rename.
            if self.limit > 0 && !self.astray && room < rest.len() {
                fits = memrchr(b'\n', &rest[..room]).map_or(0, |at| at + 1);
                if fits == 0 && self.lines.size() > 0 {
                    match self.rotate() {
                        Ok(()) => self.rename_at = self.limit,
                        Err(fault) => {
                            self.rename_at = self.lines.size() + self.limit;
                            let text = format!("the log cannot be renamed, it goes on growing: {fault}");
                            // That it cannot be written either is noticed at once.
                            let _ = self.lines.append(own("ERROR", &text).as_bytes());
                        }
                    }
                    continue;
                }
                if fits == 0 {
                    fits = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                }
            }
            self.lines.append(&rest[..fits]).map_err(|(whole, _)| rest.len() - whole)?;
            rest = &rest[fits..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Fault> {
        for number in (1..OLD).rev() {
            self.lines.rename(&self.which.old_name(number), &self.which.old_name(number + 1))?;
        }
        self.lines.rename(&self.which.name(), &self.which.old_name(1))?;
        let opened = self.lines.look();
        self.astray = opened.is_err();
        opened
    }
}

/// How many lines these are.
pub fn count(lines: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', lines).count()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const NAME: &str = "dpop.log";

    fn old(number: usize) -> String {
        LogFile::Pop.old_name(number)
    }

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap_or_default()
    }

    /// What is in the oldest file first.
    fn all(folder: &Path) -> String {
        let names = (1..=OLD).rev().map(old).chain([NAME.to_owned()]);
        names.map(|name| read(folder, &name)).collect()
    }

    #[test]
    fn four_old_logs_are_kept_and_no_line_is_cut_or_lost_between_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), LogFile::Pop, 20).unwrap();
        let mut written = String::new();
        // One write spreads over several files.
        for batch in
            ["line 1\nline 2\n", "line 3\nline 4\nline 5\nline 6\n", "a line that is longer than the limit\n", "8\n"]
        {
            log.write(batch.as_bytes());
            written += batch;
        }
        assert_eq!(all(folder.path()), written);
        assert_eq!(read(folder.path(), NAME), "8\n");
        assert_eq!(read(folder.path(), "dpop1.log"), "a line that is longer than the limit\n");
        assert_eq!(read(folder.path(), "dpop4.log"), "line 1\nline 2\n");
        log.write(b"line 9, of 20 bytes\n");
        assert_eq!(read(folder.path(), "dpop4.log"), "line 3\nline 4\n", "the oldest is gone");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + OLD);
    }

    #[test]
    fn without_a_limit_nothing_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), LogFile::Pop, 0).unwrap();
        for _ in 0..1000 {
            log.write(b"line\n");
        }
        assert_eq!(read(folder.path(), NAME).len(), 5000);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        log.follow(folder.path(), 5000);
        log.write(b"line\n");
        assert_eq!(read(folder.path(), NAME), "line\n");
    }

    #[test]
    fn a_link_at_the_next_name_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other"), "mine\n").unwrap();
        for number in 1..=OLD {
            symlink("other", folder.path().join(old(number))).unwrap();
        }
        let mut log = Log::open(folder.path(), LogFile::Pop, 10).unwrap();
        for _ in 0..OLD + 1 {
            log.write(b"a line\n");
        }
        assert_eq!(read(folder.path(), "other"), "mine\n");
        assert_eq!(all(folder.path()), "a line\n".repeat(OLD + 1));
    }

    #[test]
    fn what_cannot_be_renamed_goes_on_and_is_tried_again_later() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dpop3.log"), "").unwrap();
        fs::create_dir(folder.path().join("dpop4.log")).unwrap();
        let mut log = Log::open(folder.path(), LogFile::Pop, 1000).unwrap();
        for _ in 0..300 {
            log.write(b"a line\n");
        }
        let text = read(folder.path(), NAME);
        assert_eq!(text.matches("a line\n").count(), 300);
        let complaints = text.matches("the log cannot be renamed, it goes on growing: renaming ").count();
        assert!((1..=3).contains(&complaints), "{text}");
        fs::remove_dir(folder.path().join("dpop4.log")).unwrap();
        for _ in 0..300 {
            log.write(b"a line\n");
        }
        assert!(read(folder.path(), NAME).len() <= 1000);
    }

    #[test]
    fn a_log_that_was_moved_away_is_made_again_and_a_link_in_its_place_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), LogFile::Pop, 1000).unwrap();
        log.write(b"one\n");
        fs::rename(folder.path().join(NAME), folder.path().join("moved")).unwrap();
        log.write(b"two\n");
        assert_eq!((read(folder.path(), "moved"), read(folder.path(), NAME)), ("one\n".into(), "two\n".into()));
        fs::rename(folder.path().join(NAME), folder.path().join("again")).unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        symlink("other", folder.path().join(NAME)).unwrap();
        log.write(b"three\n");
        log.write(b"four\n");
        let text = read(folder.path(), "again");
        assert!(text.starts_with("two\n") && text.ends_with("three\nfour\n"), "{text}");
        assert_eq!((text.matches("is not dpop.log any more").count(), count(text.as_bytes())), (1, 4), "{text}");
        assert_eq!(read(folder.path(), "other"), "");
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), LogFile::Pop, 1000).unwrap();
        log.lost = 7;
        log.write(b"one\n");
        log.write(b"two\n");
        let text = read(folder.path(), NAME);
        assert!(text.contains(" ERROR lines missing here, for the log could not be written: 7\none\ntwo\n"), "{text}");
        assert_eq!(count(text.as_bytes()), 3);
    }

    #[test]
    fn a_log_moves_to_where_the_configuration_says_or_stays_and_says_why() {
        let (folder, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut log = Log::open(folder.path(), LogFile::Pop, 1000).unwrap();
        log.follow(&folder.path().join("nowhere"), 1000);
        log.write(b"one\n");
        let text = read(folder.path(), NAME);
        assert!(text.contains("the log stays in ") && text.contains("nowhere") && text.ends_with("one\n"), "{text}");
        log.follow(next.path(), 1000);
        log.write(b"two\n");
        assert_eq!((read(folder.path(), NAME), read(next.path(), NAME)), (text, "two\n".into()));
        // Another directory of the same name.
        let aside = folder.path().join("aside");
        fs::rename(next.path(), &aside).unwrap();
        fs::create_dir(next.path()).unwrap();
        log.follow(next.path(), 1000);
        log.write(b"three\n");
        assert_eq!((read(&aside, NAME), read(next.path(), NAME)), ("two\n".into(), "three\n".into()));
    }
}
