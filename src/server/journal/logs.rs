//! The logs there are, and which line goes where: the rule is `rules/logs.rs`'s.
//!
//! The common log is opened at the start, so that a server that cannot log does not start; another one when there is a line
//! for it. While it cannot be opened, its lines are in the common one, and the first of them is the reason.

use std::path::{Path, PathBuf};

use super::log::Log;
use super::own;
use crate::rules::logs::LogFile;
use crate::text::fault::Fault;

/// The logs.
pub struct Logs {
    folder: PathBuf,
    limit: u64,
    common: (LogFile, Log),
    other: Option<Log>,
    /// The other cannot be opened, and that was said.
    astray: bool,
}

/// The log that takes what no service says.
fn common(pop3_is_served: bool) -> LogFile {
    LogFile::of("", pop3_is_served)
}

impl Logs {
    /// Opens the common log in `folder`.
    pub fn open(folder: &Path, limit: u64, pop3_is_served: bool) -> Result<Logs, Fault> {
        let which = common(pop3_is_served);
        let log = Log::open(folder, which, limit)?;
        Ok(Logs { folder: folder.to_owned(), limit, common: (which, log), other: None, astray: false })
    }

    /// Goes on in `folder`, with another limit, and maybe another log as the common one. What cannot be opened there stays
    /// where it is, and a line in it says why.
    pub fn follow(&mut self, folder: &Path, limit: u64, pop3_is_served: bool) {
        (self.folder, self.limit, self.astray) = (folder.to_owned(), limit, false);
        let which = common(pop3_is_served);
        if which != self.common.0
            && let Some(other) = self.other.take().or_else(|| Log::open(folder, which, limit).ok())
        {
            let (_, old) = std::mem::replace(&mut self.common, (which, other));
            self.other = Some(old);
        }
        self.common.1.follow(folder, limit);
        if let Some(other) = &mut self.other {
            other.follow(folder, limit);
        }
    }

    /// Appends whole lines to one of them.
    pub fn write(&mut self, which: LogFile, lines: &[u8]) {
        if which == self.common.0 {
            return self.common.1.write(lines);
        }
        if self.other.is_none() {
            match Log::open(&self.folder, which, self.limit) {
                Ok(log) => self.other = Some(log),
                Err(fault) if !self.astray => {
                    self.astray = true;
                    let text = format!("{} cannot be opened, its lines are here: {fault}", which.name());
                    self.common.1.write(own("ERROR", &text).as_bytes());
                }
                Err(_) => {}
            }
        }
        self.other.as_mut().unwrap_or(&mut self.common.1).write(lines);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_is_made_when_there_is_a_line_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let mut logs = Logs::open(folder.path(), 0, false).unwrap();
        logs.write(LogFile::Smtp, b"a\n");
        assert_eq!((read("dsmtp.log"), read("dpop.log")), (Some("a\n".into()), None));
        logs.write(LogFile::Pop, b"b\n");
        assert_eq!((read("dsmtp.log"), read("dpop.log")), (Some("a\n".into()), Some("b\n".into())));
        // POP3 is served from now on: nothing moves but what is common.
        logs.follow(folder.path(), 0, true);
        logs.write(LogFile::Pop, b"c\n");
        logs.write(LogFile::Smtp, b"d\n");
        assert_eq!((read("dsmtp.log"), read("dpop.log")), (Some("a\nd\n".into()), Some("b\nc\n".into())));
        assert_eq!(logs.common.0, LogFile::Pop);
    }

    #[test]
    fn a_log_that_cannot_be_opened_has_its_lines_in_the_common_one_which_says_so_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dsmtp.log")).unwrap();
        let mut logs = Logs::open(folder.path(), 0, true).unwrap();
        logs.write(LogFile::Smtp, b"a\n");
        logs.write(LogFile::Smtp, b"b\n");
        let text = fs::read_to_string(folder.path().join("dpop.log")).unwrap();
        assert!(
            text.contains(" ERROR dsmtp.log cannot be opened, its lines are here: opening ")
                && text.ends_with("a\nb\n")
        );
        assert_eq!(text.lines().count(), 3);
        fs::remove_dir(folder.path().join("dsmtp.log")).unwrap();
        logs.write(LogFile::Smtp, b"c\n");
        assert_eq!(fs::read_to_string(folder.path().join("dsmtp.log")).unwrap(), "c\n");
    }
}
