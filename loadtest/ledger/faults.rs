//! Faults made from outside while the work goes on: the table says what each does and what must still hold. Each is a
//! thread with dice of its own, from the run's seed; it undoes what it has done before it ends.
//!
//! What is not made here: kill -9 (`--kill-every`), resets and half-open peers (the clients' own, see `work`), slow and dying
//! authenticators (`helper`, which the server starts).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dmail::mail::asctime;
use dmail::sys::files::{try_lock_ofd, unlock_ofd};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64;

use super::journal::{Fact, Journal};
use super::server::{Gate, Server};
use super::verify::Whereabouts;
use super::work::Numbers;
use crate::letter::{Heading, Letter, Stamp, State};

/// A fault, as the user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    FullDisk,
    SlowHelper,
    DyingHelper,
    HeldLocks,
    Resets,
    HalfOpen,
    Foreign,
    StopCont,
}

/// Its row.
pub struct Row {
    pub fault: Fault,
    /// Its option.
    pub name: &'static str,
    pub does: &'static str,
    pub holds: &'static str,
    pub needs_root: bool,
}

/// All of them.
pub const ROWS: [Row; 8] = [
    Row {
        fault: Fault::FullDisk,
        name: "full-disk",
        does: "spool and queue on a small file system of their own, filled to the last byte and freed at random",
        holds: "no 2xx without a whole message on disk; drops whole; reading goes on; mail comes again by itself",
        needs_root: true,
    },
    Row {
        fault: Fault::SlowHelper,
        name: "slow-helper",
        does: "the authenticator answers up to 3 seconds late now and then",
        holds: "logins and recipients wait or are put off (4xx), never refused for good; nothing else waits",
        needs_root: false,
    },
    Row {
        fault: Fault::DyingHelper,
        name: "dying-helper",
        does: "the authenticator dies in mid-request or answers garbage now and then",
        holds: "it is started again; no wrong login is let in, no right one refused for good",
        needs_root: false,
    },
    Row {
        fault: Fault::HeldLocks,
        name: "held-locks",
        does: "another program holds the dotlock or the fcntl lock of random drops for up to 3 seconds",
        holds: "deliveries wait in the queue, logins are told [IN-USE]; nothing is written beside the lock",
        needs_root: false,
    },
    Row {
        fault: Fault::Resets,
        name: "resets",
        does: "clients reset the connection after a random number of octets",
        holds: "a text without its end is no message; QUIT without answer deletes all or none",
        needs_root: false,
    },
    Row {
        fault: Fault::HalfOpen,
        name: "half-open",
        does: "clients shut one direction, or fall silent and vanish, after a random number of octets",
        holds: "the same; the session does not keep the mailbox closed for others",
        needs_root: false,
    },
    Row {
        fault: Fault::Foreign,
        name: "foreign",
        does: "another program appends messages to the drops, with dotlock and fcntl lock",
        holds: "its mail is there, whole, once, also when the server rewrites the drop",
        needs_root: false,
    },
    Row {
        fault: Fault::StopCont,
        name: "stop-cont",
        does: "the server stands still (SIGSTOP) for up to 2 seconds and goes on",
        holds: "nothing but time is lost",
        needs_root: false,
    },
];

/// For people.
pub fn table() -> String {
    let mut text = String::from("Faults, each with what it does and what must still hold:\n");
    for Row { name, does, holds, needs_root, .. } in ROWS {
        let root = if needs_root { " (needs root)" } else { "" };
        text += &format!("\n  --{name}{root}\n      {does}\n      holds: {holds}\n");
    }
    text
}

/// What all threads of a run have in common.
#[derive(Clone)]
pub struct Scene {
    pub journal: Arc<Journal>,
    pub gate: Arc<Gate>,
    pub at: Arc<Whereabouts>,
    pub logins: Arc<Vec<String>>,
    pub numbers: Numbers,
    pub seed: u64,
    pub written_secs: i64,
}

impl Scene {
    fn dice(&self, which: u64) -> Pcg64 {
        Pcg64::seed_from_u64(self.seed ^ which.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn tell(&self, words: &str) {
        self.journal.note(&Fact::Event { words });
    }

    fn drop_of(&self, dice: &mut Pcg64) -> Option<(String, PathBuf)> {
        let login = &self.logins[dice.random_range(0..self.logins.len())];
        Some((login.clone(), self.at.drop_of(login)?))
    }

    /// Holds locks of drops.
    pub fn hold_locks(&self) {
        let mut dice = self.dice(1);
        while !self.gate.sleep(about(&mut dice, 0.3)) {
            let Some((login, path)) = self.drop_of(&mut dice) else { return };
            let long = Duration::from_secs_f64(dice.random_range(0.05..3.0));
            if dice.random_range(0..2) == 0 {
                let Ok(lock) = Dotlock::make(&path) else { continue };
                self.tell(&format!("the dotlock of {login} is held for {long:?}"));
                self.gate.sleep(long);
                drop(lock);
            } else if let Ok(file) = OpenOptions::new().read(true).write(true).open(&path)
                && try_lock_ofd(&file).unwrap_or(false)
            {
                self.tell(&format!("the fcntl lock of {login} is held for {long:?}"));
                self.gate.sleep(long);
            }
        }
    }

    /// Appends mail, as another delivery agent does.
    pub fn append(&self) {
        let mut dice = self.dice(2);
        while !self.gate.sleep(about(&mut dice, 0.1)) {
            let Some((login, path)) = self.drop_of(&mut dice) else { return };
            if !path.exists() {
                continue;
            }
            let seq = self.numbers.fetch_add(1, Ordering::Relaxed);
            let bytes = [500, 3_000, 60_000][dice.random_range(0..3)];
            let (from, to) = (format!("foreign@{}", self.at.domain), format!("{login}@{}", self.at.domain));
            let heading = Heading { from: &from, to: &to, written_secs: self.written_secs, state: State::Stored };
            let mut text = format!("From {from} {}\n", asctime::written(self.written_secs)).into_bytes();
            Letter::new(Stamp { id: self.at.run, seq }, bytes, &heading).push_to(&mut text);
            text.push(b'\n');
            self.journal.note(&Fact::Begun { seq, to: vec![&login], bytes, way: "foreign" });
            self.journal.sync();
            match append(&path, &text) {
                Ok(()) => self.journal.note(&Fact::Acked { seq, to: &login, reply: "appended" }),
                Err(error) => self.journal.note(&Fact::Refused { seq, to: &login, reply: &error.to_string() }),
            }
            self.journal.sync();
        }
    }

    /// Lets the server stand still.
    pub fn freeze(&self, server: &Server) {
        let mut dice = self.dice(3);
        while !self.gate.sleep(about(&mut dice, 3.0)) {
            let long = Duration::from_secs_f64(dice.random_range(0.05..2.0));
            self.tell(&format!("the server stands still for {long:?}"));
            server.freeze(long);
        }
    }

    /// Fills a file system and frees it again.
    pub fn fill(&self, disk: &Path) {
        let mut dice = self.dice(4);
        let filler = disk.join("filler");
        while !self.gate.sleep(about(&mut dice, 3.0)) {
            let filled = File::create(&filler).map(|mut file| fill(&mut file));
            let long = Duration::from_secs_f64(dice.random_range(0.1..1.5));
            self.tell(&format!("the disk is full for {long:?} ({filled:?} bytes of filler)"));
            self.gate.sleep(long);
            // An error shows when the next filler finds no room.
            let _ = fs::remove_file(&filler);
        }
    }

    /// kill -9 at random moments, and a new start each time; gives the times to serve again. `most`: end after so many.
    pub fn kill(&self, server: &Server, every_secs: f64, most: Option<u64>) -> Result<Killed, String> {
        let mut dice = self.dice(5);
        let mut killed = Killed::default();
        while most.is_none_or(|most| (killed.times.len() as u64) < most)
            && !self.gate.sleep(about(&mut dice, every_secs))
        {
            if let Some(words) = server.ended() {
                return Err(words);
            }
            let began = std::time::Instant::now();
            server.kill();
            self.tell(&format!("kill {}", killed.times.len() + 1));
            let starts = server.start()?;
            let took = began.elapsed();
            self.tell(&format!("it serves again after {took:?}, at start {starts}"));
            killed.times.push(took);
            killed.failed_starts += u64::from(starts - 1);
        }
        // What it has taken up since the last kill is looked at too.
        self.gate.sleep(about(&mut dice, every_secs));
        Ok(killed)
    }
}

/// What came of killing.
#[derive(Clone, Debug, Default)]
pub struct Killed {
    /// From each kill until it served again.
    pub times: Vec<Duration>,
    pub failed_starts: u64,
}

/// A time that is so long on average, and never ten times that.
fn about(dice: &mut Pcg64, secs: f64) -> Duration {
    let drawn: f64 = Exp::new(1.0).expect("one is more than none").sample(dice);
    Duration::from_secs_f64(secs * drawn.min(10.0))
}

/// Writes until there is no room; gives how much that was.
fn fill(file: &mut File) -> u64 {
    let (piece, mut bytes) = (vec![b'x'; 256 * 1024], 0);
    let mut size = piece.len();
    while size > 0 {
        match file.write(&piece[..size]) {
            Ok(written) if written > 0 => bytes += written as u64,
            // The last bytes too.
            _ => size /= 2,
        }
    }
    bytes
}

/// `DROP.lock`, with our process's number in it.
struct Dotlock(PathBuf);

impl Dotlock {
    fn make(drop: &Path) -> io::Result<Dotlock> {
        let mut name = drop.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
        let lock = Dotlock(path);
        writeln!(file, "{}", std::process::id())?;
        Ok(lock)
    }
}

impl Drop for Dotlock {
    fn drop(&mut self) {
        // Somebody who thought it stale may have been quicker.
        let _ = fs::remove_file(&self.0);
    }
}

/// Appends under both locks, or leaves the drop as it was.
fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    /// A lock is waited for so long.
    const TRIES: u32 = 500;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..TRIES {
        let lock = match Dotlock::make(path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if !try_lock_ofd(&file)? {
            drop(lock);
            std::thread::sleep(PAUSE);
            continue;
        }
        let end = file.metadata()?.len();
        let done = file.write_all_at(text, end).and_then(|()| file.sync_data());
        if done.is_err() {
            file.set_len(end)?;
        }
        // Before the dotlock goes.
        let _ = unlock_ofd(&file);
        return done;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the drop's locks were not to be had"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_one_row() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(!row.does.is_empty() && !row.holds.is_empty());
            assert!(ROWS[at + 1..].iter().all(|other| other.name != row.name && other.fault != row.fault));
            assert!(table().contains(row.name));
        }
    }

    #[test]
    fn what_is_appended_stands_behind_the_rest_and_leaves_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann");
        fs::write(&path, "one").unwrap();
        append(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"onetwo");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dotlock_of_another_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann");
        let first = Dotlock::make(&path).unwrap();
        assert_eq!(Dotlock::make(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert!(dir.path().join("ann.lock").exists());
        drop(first);
        assert!(!dir.path().join("ann.lock").exists());
    }
}
