//! Bulletins: files `NUMBER.txt` in a directory of the operator's, stored once, shown to everybody.
//!
//! What is there is made into one mbox file below work_path, named by its content, and that is opened like any maildrop: so
//! bulletins are listed, read slice by slice and watched for changes by the same code as mail. A board that took an older one's
//! place leaves it to the sessions that read it: all that are still read, and all that are younger than a day.
//!
//! | file in `work_path/bulletins` | what                                                                          |
//! |-------------------------------|-------------------------------------------------------------------------------|
//! | `HASH.mbox`, its bin and index | the bulletins as messages, numbers ascending                                  |
//! | `state`                       | `EPOCH NEWEST`: the highest number ever seen since there were none            |
//!
//! Bounds: a text longer than [`TEXT_BYTES`] and bulletins beyond the newest [`MOST`] are left out, and said.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::maildrop::{Maildrop, Place, Refused};
use crate::mail::bulletin::{self, About};
use crate::rules::bulletins::number;
use crate::sys::nofollow::NOFOLLOW;
use crate::text::fault::Fault;

/// The longest text.
pub const TEXT_BYTES: u64 = 1 << 20;
/// The most bulletins.
pub const MOST: usize = 1000;

/// How long older boards are left to those who read them.
const LEFT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Where bulletins come from, and what is said in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The operator's directory; `None`: there are no bulletins.
    pub path: Option<PathBuf>,
    /// The server's own directory.
    pub work_path: PathBuf,
    /// From whom they are.
    pub from: String,
    /// The main domain.
    pub domain: String,
}

/// The bulletins there are.
#[derive(Debug, Default)]
pub struct Board {
    /// Numbers of other epochs mean other bulletins. 0: there never were any.
    pub epoch: u64,
    /// The highest number of this epoch, also when that bulletin is gone.
    pub newest: u32,
    /// Their numbers, ascending: the first is message 1 of `mail`.
    pub numbers: Box<[u32]>,
    /// The messages; `None` while there are none.
    pub mail: Option<Arc<Maildrop>>,
    /// What could not be shown, a sentence each.
    pub remarks: Vec<String>,
    stamp: u64,
    hash: u64,
    /// Boards before this one that somebody still reads: their files are open and locked.
    read: Vec<(u64, Weak<Maildrop>)>,
}

impl Board {
    /// Reads what is there. `None`: it is what `old` shows already. At the start of a server an empty directory begins a new
    /// epoch. Waits for the disk: only in a job.
    pub fn read(source: &Source, old: Option<&Board>, starting: bool) -> Result<Option<Board>, Fault> {
        let Some(path) = &source.path else {
            return Ok(old.is_none_or(|old| old.mail.is_some()).then(Board::default));
        };
        let (found, stamp) = list(path)?;
        let stamp = stamp ^ xxhash_rust::xxh3::xxh3_64(format!("{source:?}").as_bytes());
        if old.is_some_and(|old| old.stamp == stamp && old.epoch != 0) {
            return Ok(None);
        }
        let mut board = Board { stamp, ..Board::default() };
        let folder = source.work_path.join("bulletins");
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Fault::new("making", &folder, error));
            }
            _ => {}
        }
        let fresh = folder.join("new");
        let numbers = board.compile(source, path, &found, &fresh)?;
        board.numbers = numbers.into();
        board.settle(&folder, starting)?;
        if let Some(old) = old {
            let last = old.mail.iter().map(|mail| (old.hash, Arc::downgrade(mail)));
            board.read = last.chain(old.read.iter().cloned()).filter(|(_, mail)| mail.strong_count() > 0).collect();
        }
        let known = board.read.iter().find(|(hash, _)| *hash == board.hash);
        if board.numbers.is_empty() {
            let _ = fs::remove_file(&fresh);
        } else if let Some(mail) = known.and_then(|(_, mail)| mail.upgrade()) {
            // It is shown already, or was: a bulletin was taken back while the board without it is still read.
            board.mail = Some(mail);
            let _ = fs::remove_file(&fresh);
        } else {
            board.open(source, &folder, &fresh)?;
        }
        Ok(Some(board))
    }

    /// Writes the messages to `fresh`; gives their numbers.
    fn compile(
        &mut self,
        source: &Source,
        path: &Path,
        found: &[(u32, PathBuf)],
        fresh: &Path,
    ) -> Result<Vec<u32>, Fault> {
        let _ = fs::remove_file(fresh);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(NOFOLLOW).open(fresh);
        let mut out = BufWriter::new(file.map_err(Fault::at("making", fresh))?);
        let (mut hash, mut numbers) = (Xxh3::new(), Vec::new());
        if found.len() > MOST {
            self.remarks.push(format!("{}: only the newest {MOST} bulletins are shown", path.display()));
        }
        for (number, name) in &found[found.len().saturating_sub(MOST)..] {
            let file = path.join(name);
            match text(&file) {
                Ok((text, written_secs)) => {
                    let about = About { number: *number, written_secs, from: &source.from, domain: &source.domain };
                    let message = bulletin::message(&about, &text);
                    hash.update(&message);
                    out.write_all(&message).map_err(Fault::at("writing", fresh))?;
                    numbers.push(*number);
                }
                Err(error) => self.remarks.push(format!("{}: this bulletin is not shown: {error}", file.display())),
            }
        }
        out.into_inner().map_err(|error| Fault::new("writing", fresh, error.into_error()))?;
        self.hash = hash.digest();
        Ok(numbers)
    }

    /// Takes epoch and newest number from the state file, and writes them there when they changed.
    fn settle(&mut self, folder: &Path, starting: bool) -> Result<(), Fault> {
        let path = folder.join("state");
        let known = fs::read_to_string(&path).unwrap_or_default();
        let known = parse_state(&known);
        let anew = || (std::hash::RandomState::new().build_hasher().finish().max(1), 0);
        let (epoch, newest) = match known {
            Some((_, newest)) if starting && self.numbers.is_empty() && newest > 0 => anew(),
            Some(known) => known,
            None => anew(),
        };
        self.epoch = epoch;
        self.newest = newest.max(self.numbers.last().copied().unwrap_or(0));
        if known != Some((self.epoch, self.newest)) {
            let new = folder.join("state.new");
            let written = File::create(&new).and_then(|mut file| {
                writeln!(file, "{} {}", self.epoch, self.newest)?;
                file.sync_all()
            });
            written.and_then(|()| fs::rename(&new, &path)).map_err(Fault::at("writing", &path))?;
        }
        Ok(())
    }

    fn open(&mut self, source: &Source, folder: &Path, fresh: &Path) -> Result<(), Fault> {
        let name = format!("{:016x}.mbox", self.hash);
        let path = folder.join(&name);
        fs::rename(fresh, &path).map_err(Fault::at("renaming", fresh))?;
        let place = Place { locks: Vec::new(), ..Place::new(&path, &source.work_path) };
        let mail = Maildrop::open(&place).map_err(|refused| match refused {
            Refused::Fault(fault) | Refused::Unsafe(fault) => fault,
            Refused::InUse | Refused::Locked => {
                Fault::new("opening", &path, io::Error::new(io::ErrorKind::WouldBlock, "another server has it open"))
            }
        })?;
        if mail.totals().messages as usize != self.numbers.len() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "not the messages that were written");
            return Err(Fault::new("reading", &path, error));
        }
        self.mail = Some(Arc::new(mail));
        let kept: Vec<String> = self.read.iter().map(|(hash, _)| format!("{hash:016x}.mbox")).collect();
        for entry in fs::read_dir(folder).map_err(Fault::at("listing", folder))?.flatten() {
            let other = entry.file_name();
            let other = other.to_string_lossy();
            let read = |name: &String| other.trim_start_matches('.').starts_with(name.as_str());
            let young = || {
                entry
                    .metadata()
                    .and_then(|seen| seen.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LEFT_FOR))
            };
            if other.contains(".mbox") && !read(&name) && !kept.iter().any(read) && !young() {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Puts a text on the board under a number that is higher than any before; gives the number. Whole or not at all: it has no
/// name before it is on disk, and takes nobody else's. The server shows it when it next looks.
pub fn post(path: &Path, work_path: &Path, text: &[u8]) -> Result<u32, Fault> {
    if text.len() as u64 > TEXT_BYTES {
        let error = io::Error::other(format!("longer than {TEXT_BYTES} bytes"));
        return Err(Fault::new("posting a bulletin in", path, error));
    }
    let mut next = next(path, work_path)?;
    let (fresh, file) = (0..MOST)
        .find_map(|attempt| {
            let fresh = path.join(format!(".new.{}.{attempt}", std::process::id()));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(NOFOLLOW).open(&fresh);
            match file {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                file => Some(file.map_err(Fault::at("writing", &fresh)).map(|file| (fresh, file))),
            }
        })
        .unwrap_or_else(|| Err(Fault::new("writing", path, io::ErrorKind::AlreadyExists.into())))?;
    let placed = (|| {
        (&file).write_all(text).and_then(|()| file.sync_all()).map_err(Fault::at("writing", &fresh))?;
        loop {
            match fs::hard_link(&fresh, path.join(format!("{next}.txt"))) {
                // Somebody posts at the same time.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && next < u32::MAX - 1 => next += 1,
                linked => return linked.map(|()| next).map_err(Fault::at("naming a bulletin in", path)),
            }
        }
    })();
    let _ = fs::remove_file(&fresh);
    placed
}

/// The number that the next bulletin gets.
pub fn next(path: &Path, work_path: &Path) -> Result<u32, Fault> {
    let (found, _) = list(path)?;
    let state = work_path.join("bulletins/state");
    let known = match fs::read_to_string(&state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        known => known.map_err(Fault::at("reading", &state))?,
    };
    let (_, newest) = parse_state(&known).unwrap_or((0, 0));
    Ok(newest.max(found.last().map_or(0, |(number, _)| *number)).saturating_add(1))
}

fn parse_state(text: &str) -> Option<(u64, u32)> {
    let mut words = text.split_whitespace();
    let (epoch, newest) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (epoch != 0).then_some((epoch, newest))
}

/// The bulletins in a directory, numbers ascending, and something that changes when they do.
fn list(path: &Path) -> Result<(Vec<(u32, PathBuf)>, u64), Fault> {
    let mut found: Vec<(u32, PathBuf, [u64; 3])> = Vec::new();
    for entry in fs::read_dir(path).map_err(Fault::at("listing", path))? {
        let entry = entry.map_err(Fault::at("listing", path))?;
        let name = entry.file_name();
        let Some(number) = number(name.as_bytes()) else { continue };
        // Gone since it was listed: it is no bulletin.
        let Ok(seen) = entry.metadata() else { continue };
        found.push((
            number,
            name.into(),
            [seen.ino(), seen.size(), seen.mtime_nsec().cast_unsigned() ^ seen.mtime().cast_unsigned() << 30],
        ));
    }
    found.sort();
    found.dedup_by_key(|(number, ..)| *number);
    let mut stamp = Xxh3::new();
    for (number, _, seen) in &found {
        stamp.update(&number.to_le_bytes());
        seen.iter().for_each(|word| stamp.update(&word.to_le_bytes()));
    }
    Ok((found.into_iter().map(|(number, name, _)| (number, name)).collect(), stamp.digest()))
}

/// A bulletin's text and when it was written.
fn text(path: &Path) -> io::Result<(Vec<u8>, i64)> {
    let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path)?;
    let seen = file.metadata()?;
    if !seen.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(TEXT_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_BYTES {
        return Err(io::Error::other(format!("longer than {TEXT_BYTES} bytes")));
    }
    Ok((text, seen.mtime()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::maildrop::Reach;

    fn source(dir: &Path) -> Source {
        for name in ["board", "work"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        Source {
            path: Some(dir.join("board")),
            work_path: dir.join("work"),
            from: "Operator".into(),
            domain: "example.com".into(),
        }
    }

    fn read(source: &Source, old: Option<&Board>, starting: bool) -> Option<Board> {
        Board::read(source, old, starting).unwrap()
    }

    #[test]
    fn bulletins_are_messages_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let put = |name: &str, text: &str| fs::write(dir.path().join("board").join(name), text).unwrap();
        let none = read(&source, None, true).unwrap();
        assert!(none.numbers.is_empty() && none.mail.is_none() && none.epoch != 0);
        put("10.txt", "ten\n");
        put("9.txt", "nine\n\nFrom x@y Mon Jan  5 10:00:00 2026\nno message\n");
        put("readme", "no\n");
        let board = read(&source, Some(&none), false).unwrap();
        assert_eq!((&*board.numbers, board.newest, board.epoch), (&[9, 10][..], 10, none.epoch));
        let mail = board.mail.as_ref().unwrap();
        assert_eq!(mail.page(1, Reach::Wait).unwrap().len(), 2);
        // Unchanged: nothing to do. Another server's start: the same messages, the same ids.
        assert!(read(&source, Some(&board), false).is_none());
        let ids = |board: &Board| board.mail.as_ref().unwrap().page(1, Reach::Wait).unwrap();
        let before = ids(&board);
        drop(board);
        let board = read(&source, None, true).unwrap();
        assert_eq!((ids(&board), board.epoch), (before, none.epoch));
        // One goes: the newest number stays, and a session that has the old board reads on.
        fs::remove_file(dir.path().join("board/10.txt")).unwrap();
        let shorter = read(&source, Some(&board), false).unwrap();
        assert_eq!((&*shorter.numbers, shorter.newest), (&[9][..], 10));
        assert_eq!(ids(&board).len(), 2);
        // Older boards go, but for those that are read, when they are a day old.
        drop(board);
        let folder = dir.path().join("work/bulletins");
        let left = || {
            let names = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
            names.filter(|path| path.extension().is_some_and(|ending| ending == "mbox")).collect::<Vec<_>>()
        };
        assert_eq!(left().len(), 2);
        for path in left() {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * LEFT_FOR).unwrap();
        }
        put("11.txt", "eleven\n");
        read(&source, Some(&shorter), false).unwrap();
        assert_eq!(left().len(), 2, "the new one and the one before");
    }

    #[test]
    fn an_empty_directory_at_a_start_begins_a_new_epoch_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        fs::write(dir.path().join("board/5.txt"), "five").unwrap();
        let board = read(&source, None, true).unwrap();
        fs::remove_file(dir.path().join("board/5.txt")).unwrap();
        let empty = read(&source, Some(&board), false).unwrap();
        assert_eq!((empty.epoch, empty.newest), (board.epoch, 5));
        drop((board, empty));
        let first = read(&source, None, true).unwrap();
        assert_eq!(first.newest, 0);
        let second = read(&source, None, true).unwrap();
        assert_eq!(first.epoch, second.epoch, "a board that was never used is not begun again");
    }

    #[test]
    fn a_posted_text_gets_a_number_that_was_never_used() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let board = source.path.clone().unwrap();
        assert_eq!(post(&board, &source.work_path, b"one").unwrap(), 1);
        let shown = read(&source, None, true).unwrap();
        fs::remove_file(board.join("1.txt")).unwrap();
        let shown = read(&source, Some(&shown), false).unwrap();
        assert_eq!(shown.newest, 1);
        assert_eq!(post(&board, &source.work_path, b"two").unwrap(), 2);
        let posting = || post(&board, &source.work_path, b"many").unwrap();
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(posting)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (3..11).collect::<Vec<_>>());
        assert!(post(&board, &source.work_path, &vec![0; TEXT_BYTES as usize + 1]).is_err());
        let names: Vec<_> = fs::read_dir(&board).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 9, "{names:?}");
    }

    #[test]
    fn what_cannot_be_a_bulletin_is_said_and_the_others_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let put = |name: &str| dir.path().join("board").join(name);
        fs::write(put("1.txt"), "one").unwrap();
        fs::write(put("2.txt"), vec![b'x'; TEXT_BYTES as usize + 1]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", put("3.txt")).unwrap();
        fs::create_dir(put("4.txt")).unwrap();
        let board = read(&source, None, true).unwrap();
        assert_eq!((&*board.numbers, board.remarks.len()), (&[1][..], 3), "{:?}", board.remarks);
        let nowhere = Source { path: Some("/nowhere".into()), ..source };
        assert!(Board::read(&nowhere, None, true).is_err());
        assert!(read(&Source { path: None, ..nowhere }, None, true).unwrap().mail.is_none());
    }

    #[test]
    fn a_bulletin_that_is_taken_back_while_the_board_before_is_read_brings_that_board_back() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let put = |name: &str| fs::write(dir.path().join("board").join(name), format!("{name}\n")).unwrap();
        put("1.txt");
        let first = read(&source, None, true).unwrap();
        put("2.txt");
        let second = read(&source, Some(&first), false).unwrap();
        put("3.txt");
        let third = read(&source, Some(&second), false).unwrap();
        drop(second);
        fs::remove_file(dir.path().join("board/2.txt")).unwrap();
        fs::remove_file(dir.path().join("board/3.txt")).unwrap();
        let again = read(&source, Some(&third), false).unwrap();
        assert_eq!(&*again.numbers, &[1]);
        for board in [first, again] {
            let mut reader = board.mail.as_ref().unwrap().reader(1, None, Reach::Wait).unwrap();
            let mut out = crate::text::bytes::Output::default();
            assert!(reader.pull(&mut [0; 4096], &mut out).is_ok(), "who reads the first board reads on");
        }
    }
}
