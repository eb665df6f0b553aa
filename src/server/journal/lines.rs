//! A file of lines that is appended to, in a directory held open.
//!
//! Lines are whole or not there: what a full disk cut off is taken back. No link is followed. When the name means another
//! file than ours, because somebody moved ours away or put something in its place, the name is opened again; while that
//! fails, ours is written to, wherever it is now.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::files::{self, Stat};
use crate::text::fault::Fault;

/// The file.
pub struct Lines {
    folder: PathBuf,
    dir: File,
    name: PathBuf,
    file: File,
    /// What ours is, by device and inode.
    itself: (u64, u64),
    /// How large it is.
    size: u64,
    /// It ends within a line that could not be taken back.
    torn: bool,
}

impl Lines {
    /// Opens or makes `name` in the directory `folder`. Refuses what is no regular file.
    pub fn open(folder: &Path, name: &str) -> Result<Lines, Fault> {
        let dir = files::open_dir(folder).map_err(Fault::at("opening", folder))?;
        let name = PathBuf::from(name);
        let opened = open(&dir, &name).map_err(Fault::at("opening", &folder.join(&name)))?;
        let mut lines = Lines {
            folder: folder.to_owned(),
            dir,
            name,
            file: opened.0,
            itself: (opened.1.dev, opened.1.inode),
            size: opened.1.size,
            torn: false,
        };
        lines.torn = lines.size > 0 && !lines.ends_whole();
        Ok(lines)
    }

    /// The directory, as it was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How large the file is, as far as we know.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Looks whether the name still means our file, and opens it again when not. An error says why that cannot be.
    pub fn look(&mut self) -> Result<(), Fault> {
        if let Ok(found) = files::stat_at(&self.dir, &self.name)
            && (found.dev, found.inode) == self.itself
        {
            // Somebody may have cut it.
            self.size = found.size;
            return Ok(());
        }
        let (file, found) = open(&self.dir, &self.name).map_err(Fault::at("opening", &self.path()))?;
        (self.file, self.itself, self.size) = (file, (found.dev, found.inode), found.size);
        self.torn = self.size > 0 && !self.ends_whole();
        Ok(())
    }

    /// Appends whole lines. An error comes with the bytes of those that are in the file all the same.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), (usize, Fault)> {
        if self.torn {
            self.write(b"\n").map_err(|(_, error)| (0, self.fault(error)))?;
            self.torn = false;
        }
        let Err((written, error)) = self.write(lines) else { return Ok(()) };
        let whole = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let cut = (written - whole) as u64;
        if cut > 0 {
            let taken_back = files::stat(&self.file).and_then(|now| self.file.set_len(now.size.saturating_sub(cut)));
            self.torn = taken_back.is_err();
            self.size = self.size.saturating_sub(if self.torn { 0 } else { cut });
        }
        Err((whole, self.fault(error)))
    }

    /// Renames `from` to `to` in the directory; a link that stands there is replaced, not followed. Nothing to rename is no
    /// error.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        match files::rename_at(&self.dir, Path::new(from), Path::new(to)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Fault::new("renaming", &self.folder.join(from), error))
            }
            _ => Ok(()),
        }
    }

    /// Takes away all that is in the file if it was last written before `time`, in seconds since 1970.
    pub fn begin_anew_if_older(&mut self, time: i64) -> Result<(), Fault> {
        let found = files::stat(&self.file).map_err(Fault::at("looking at", &self.path()))?;
        if found.size > 0 && found.mtime / 1_000_000_000 < time {
            self.file.set_len(0).map_err(Fault::at("emptying", &self.path()))?;
            (self.size, self.torn) = (0, false);
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn fault(&self, source: io::Error) -> Fault {
        Fault::new("writing", &self.path(), source)
    }

    /// Gives how much was written before the error.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(some) => {
                    written += some;
                    self.size += some as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Whether the last byte ends a line. Where that cannot be seen, it does.
    fn ends_whole(&self) -> bool {
        let mut last = [b'\n'];
        let read = files::open_at(&self.dir, &self.name, files::How::Read)
            .and_then(|file| std::os::unix::fs::FileExt::read_at(&file, &mut last, self.size - 1));
        read.is_err() || last == [b'\n']
    }
}

/// A regular file to append to, and what it is.
fn open(dir: &File, name: &Path) -> io::Result<(File, Stat)> {
    let file = files::append_at(dir, name)?;
    let found = files::stat(&file)?;
    if found.is_file() { Ok((file, found)) } else { Err(io::Error::other("not a regular file")) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn lines_go_behind_what_is_there_and_a_torn_line_gets_its_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "one\ntw").unwrap();
        let mut lines = Lines::open(folder.path(), "a").unwrap();
        assert_eq!(lines.size(), 6);
        lines.append(b"three\n").unwrap();
        lines.append(b"four\n").unwrap();
        assert_eq!(read(folder.path(), "a"), "one\ntw\nthree\nfour\n");
        assert_eq!(lines.size(), 18);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Lines::open(folder.path(), "a").unwrap();
        lines.append(b"one\n").unwrap();
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        lines.look().unwrap();
        lines.append(b"two\n").unwrap();
        assert_eq!((read(folder.path(), "a"), read(folder.path(), "b")), ("two\n".into(), "one\n".into()));
        // Cut in place, as logrotate's copytruncate does: no hole is left.
        fs::File::options().write(true).open(folder.path().join("a")).unwrap().set_len(0).unwrap();
        lines.look().unwrap();
        assert_eq!(lines.size(), 0);
        lines.append(b"three\n").unwrap();
        assert_eq!(read(folder.path(), "a"), "three\n");
    }

    #[test]
    fn a_link_or_a_pipe_in_its_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other"), "mine\n").unwrap();
        symlink("other", folder.path().join("link")).unwrap();
        assert!(Lines::open(folder.path(), "link").is_err());
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(Lines::open(folder.path(), "folder").is_err());
        let mut lines = Lines::open(folder.path(), "a").unwrap();
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        symlink("other", folder.path().join("a")).unwrap();
        let why = lines.look().unwrap_err().to_string();
        assert!(why.contains("/a: "), "{why}");
        // Ours is written to, wherever it is.
        lines.append(b"one\n").unwrap();
        assert_eq!((read(folder.path(), "other"), read(folder.path(), "b")), ("mine\n".into(), "one\n".into()));
    }

    #[test]
    fn an_old_file_is_begun_anew_and_a_young_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "last year\n").unwrap();
        let mut lines = Lines::open(folder.path(), "a").unwrap();
        let written = files::stat(&lines.file).unwrap().mtime / 1_000_000_000;
        lines.begin_anew_if_older(written).unwrap();
        assert_eq!(read(folder.path(), "a"), "last year\n");
        lines.begin_anew_if_older(written + 1).unwrap();
        assert_eq!((read(folder.path(), "a"), lines.size()), (String::new(), 0));
    }

    #[test]
    fn a_full_disk_leaves_whole_lines_only() {
        // The system's own full disk; it takes nothing at all.
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Lines::open(folder.path(), "a").unwrap();
        lines.append(b"one\n").unwrap();
        let ours = std::mem::replace(&mut lines.file, File::options().write(true).open("/dev/full").unwrap());
        let (whole, why) = lines.append(b"two\n").unwrap_err();
        assert!(whole == 0 && why.to_string().contains("writing") && lines.size() == 4, "{why}");
        lines.file = ours;
        lines.append(b"three\n").unwrap();
        assert_eq!(read(folder.path(), "a"), "one\nthree\n");
    }
}
