//! `tellsmtp sendlog`: dsmtp.log on the terminal, line by line while it is written, until interrupted.
//!
//! The tool reads the file, so the server does nothing for it: a terminal that stands still delays nobody, and misses nothing
//! while the old files are kept. Who may read the log may do it. What is missing all the same is said where it is missing.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::logs::Follower;
use crate::program::options::{DONE, FAILED};
use crate::program::stats::configured;
use crate::rules::logs::LogFile;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the verb; gives its exit code when nobody reads on.
pub fn run(config: &Path, json: bool) -> u8 {
    let folder = match configured(config) {
        Ok(settings) => settings.log_path,
        Err(why) => {
            eprintln!("tellsmtp: {why}");
            return FAILED;
        }
    };
    let path = folder.join(LogFile::Smtp.name());
    let mut follower = None;
    let mut said = false;
    loop {
        if follower.is_none() {
            match Follower::open(&folder, LogFile::Smtp) {
                Ok(opened) => follower = Some(opened),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !said {
                        eprintln!("tellsmtp: {}: there is no log yet: waiting for one", path.display());
                    }
                    said = true;
                }
                Err(error) => {
                    eprintln!("tellsmtp: {}: {error}", path.display());
                    return FAILED;
                }
            }
        }
        if let Some(follower) = &mut follower
            && let Err(error) = show(follower, json, &mut io::stdout().lock())
        {
            // That nobody reads on is no failure.
            if error.kind() == io::ErrorKind::BrokenPipe {
                return DONE;
            }
            eprintln!("tellsmtp: {}: {error}", path.display());
            return FAILED;
        }
        std::thread::sleep(LOOK);
    }
}

fn show(follower: &mut Follower, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let missing = follower.lines(&mut |line| match json {
        true => writeln!(out, "{}", parsed(line)),
        false => out.write_all(line).and_then(|()| out.write_all(b"\n")),
    })?;
    if missing {
        match json {
            true => writeln!(out, "{}", json!({ "missing": true }))?,
            false => writeln!(out, "... lines before this one are in no file any more")?,
        }
    }
    out.flush()
}

/// A line of the log in its parts: `TIME LEVEL text`.
pub fn parsed(line: &[u8]) -> serde_json::Value {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(2, ' ');
    let time = words.next().unwrap_or_default();
    let rest = words.next().unwrap_or_default();
    let (level, text) = rest.split_once(' ').unwrap_or((rest, ""));
    json!({ "time": time, "level": level.to_ascii_lowercase(), "text": text.trim_start() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_parts_of_a_line() {
        let line = b"2026-11-22T17:38:55.123Z WARN  smtp 7f.2: text with blanks";
        assert_eq!(
            parsed(line),
            json!({ "time": "2026-11-22T17:38:55.123Z", "level": "warn", "text": "smtp 7f.2: text with blanks" })
        );
        assert_eq!(parsed(b"odd"), json!({ "time": "odd", "level": "", "text": "" }));
    }

    #[test]
    fn new_lines_are_shown_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dsmtp.log");
        std::fs::write(&path, "an old line, long enough\n").unwrap();
        let mut follower = Follower::open(folder.path(), LogFile::Smtp).unwrap();
        let mut out = Vec::new();
        std::fs::write(&path, "T INFO new\n").unwrap();
        show(&mut follower, false, &mut out).unwrap();
        show(&mut follower, true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted =
            "... lines before this one are in no file any more\n{\"level\":\"info\",\"text\":\"new\",\"time\":\"T\"}\n";
        assert_eq!(text, wanted);
    }
}
