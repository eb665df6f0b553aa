//! Logs as a tool reads them: in pieces, a line at a time, in the order in which they were written, through every renaming.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr};

use crate::rules::logs::{LogFile, OLD};

/// Bytes read at a time. A line that does not fit is cut there.
const PIECE: usize = 64 * 1024;

/// The files there are of a log, the oldest first.
pub fn files(folder: &Path, which: LogFile) -> Vec<PathBuf> {
    let names = (1..=OLD).rev().map(|number| which.old_name(number)).chain([which.name()]);
    names.map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// A file that is read on and on.
struct Reader {
    file: File,
    held: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> Reader {
        Reader { file, held: Vec::new() }
    }

    /// Hands over the whole lines that there are by now, without their ends.
    fn lines(&mut self, line: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let got = match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.held.extend_from_slice(&piece[..got]);
            let whole = match memrchr(b'\n', &self.held) {
                Some(at) => at + 1,
                None if self.held.len() >= PIECE => self.held.len(),
                None => continue,
            };
            let mut rest = &self.held[..whole];
            while !rest.is_empty() {
                let end = memchr(b'\n', rest).unwrap_or(rest.len());
                line(&rest[..end])?;
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            self.held.drain(..whole);
        }
    }
}

/// Hands over all lines of a file, the last one also without its end.
pub fn lines(path: &Path, line: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut reader = Reader::new(File::open(path)?);
    reader.lines(line)?;
    if reader.held.is_empty() { Ok(()) } else { line(&reader.held) }
}

/// A log that is followed.
pub struct Follower {
    folder: PathBuf,
    which: LogFile,
    reader: Reader,
}

/// What a file is, by device and inode.
fn itself(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

impl Follower {
    /// From the end of what there is now.
    pub fn open(folder: &Path, which: LogFile) -> io::Result<Follower> {
        let mut file = File::open(folder.join(which.name()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Follower { folder: folder.to_owned(), which, reader: Reader::new(file) })
    }

    /// Hands over what was written since. True: files that were begun and renamed meanwhile are gone, and lines with them.
    pub fn lines(&mut self, line: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let mut missing = false;
        loop {
            self.reader.lines(line)?;
            let about = self.reader.file.metadata()?;
            let ours = Some((about.dev(), about.ino()));
            let name = self.folder.join(self.which.name());
            let now = itself(&name);
            if now.is_none() || now == ours {
                // Somebody may have cut it.
                if about.len() < self.reader.file.stream_position()? {
                    self.reader.file.seek(SeekFrom::Start(0))?;
                    missing = true;
                }
                return Ok(missing);
            }
            // It was renamed: there may be lines from just before.
            self.reader.lines(line)?;
            let files = files(&self.folder, self.which);
            let next = match files.iter().position(|path| itself(path) == ours) {
                Some(at) => files.get(at + 1).cloned(),
                None => {
                    missing = true;
                    Some(name)
                }
            };
            let Some(next) = next else { return Ok(missing) };
            match File::open(&next) {
                Ok(file) => self.reader = Reader::new(file),
                // Renamed once more: the next call sees to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(missing),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn write(&self, text: &str) {
            let path = self.0.path().join("dsmtp.log");
            File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self) {
            for number in (1..OLD).rev() {
                let (from, to) = (LogFile::Smtp.old_name(number), LogFile::Smtp.old_name(number + 1));
                let _ = fs::rename(self.0.path().join(from), self.0.path().join(to));
            }
            fs::rename(self.0.path().join("dsmtp.log"), self.0.path().join("dsmtp1.log")).unwrap();
        }
    }

    fn more(follower: &mut Follower) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let missing = follower.lines(&mut |line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        });
        (lines, missing.unwrap())
    }

    #[test]
    fn a_log_is_followed_through_renamings_and_no_line_is_missed_while_its_file_is_kept() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("before\n");
        let mut follower = Follower::open(log.0.path(), LogFile::Smtp).unwrap();
        assert_eq!(more(&mut follower), (vec![], false));
        log.write("one\ntw");
        assert_eq!(more(&mut follower), (vec!["one".to_owned()], false));
        log.write("o\n");
        for number in 3..=5 {
            log.rotate();
            log.write(&format!("line {number}\n"));
        }
        let wanted = ["two", "line 3", "line 4", "line 5"].map(str::to_owned).to_vec();
        assert_eq!(more(&mut follower), (wanted, false));
        log.rotate();
        assert_eq!(more(&mut follower), (vec![], false), "no new file yet");
        log.write("six\n");
        assert_eq!(more(&mut follower), (vec!["six".to_owned()], false));
        for number in 7..=12 {
            log.rotate();
            log.write(&format!("line {number}\n"));
        }
        let (lines, missing) = more(&mut follower);
        assert!(missing && lines == ["line 12"], "{lines:?}");
    }

    #[test]
    fn a_log_that_was_emptied_is_read_from_its_beginning() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("a long line before\n");
        let mut follower = Follower::open(log.0.path(), LogFile::Smtp).unwrap();
        fs::write(log.0.path().join("dsmtp.log"), "new\n").unwrap();
        assert!(more(&mut follower).1);
        assert_eq!(more(&mut follower), (vec!["new".to_owned()], false));
    }

    #[test]
    fn all_files_are_read_the_oldest_first_and_long_lines_are_cut() {
        let log = Log(tempfile::tempdir().unwrap());
        log.write("1\n");
        log.rotate();
        log.write(&format!("{}\nend", "x".repeat(3 * PIECE)));
        let mut lines = Vec::new();
        for path in files(log.0.path(), LogFile::Smtp) {
            super::lines(&path, &mut |line| {
                lines.push(line.len());
                Ok(())
            })
            .unwrap();
        }
        assert_eq!((lines[0], lines.last(), lines.iter().sum::<usize>()), (1, Some(&3), 1 + 3 * PIECE + 3));
        assert!(lines.iter().all(|length| *length <= PIECE));
    }
}
