//! The journal: what is known of each message, one fact a line, appended, and on disk before the step that depends on it.
//!
//! ```text
//! 1767610800.041277 begun 17 ann,bob 1234 sent
//! 1767610800.052113 acked 17 ann 250 2.0.0 Ok: 7K2F9QXB3M
//! 1767610800.090001 opens 4 ann
//! 1767610800.091400 listed 4 ann 00c1a7e05f3b2d11
//! 1767610800.092000 fetched 4 ann 00c1a7e05f3b2d11 17 whole
//! 1767610800.092340 marked 4 ann 00c1a7e05f3b2d11 17
//! 1767610800.094410 deleted 4 ann
//! ```
//!
//! | fact                       | is written                                 | says                                                   |
//! |----------------------------|--------------------------------------------|--------------------------------------------------------|
//! | `begun SEQ TO,.. BYTES WAY` | before the text is sent                    | from here on it may arrive; WAY: sent, foreign     |
//! | `acked SEQ TO REPLY`       | before anything else is said there         | 2xx: from here on it must be somewhere, once           |
//! | `refused SEQ TO REPLY`     | likewise                                   | 4xx, 5xx: it must be nowhere                           |
//! | `unknown SEQ TO WHY`       | when the connection has died               | no answer came: it may be there, once                  |
//! | `opens SESSION TO`         | before a POP3 client connects              | what was deleted before this line must not be seen     |
//! | `listed SESSION TO UID ..` | when UIDL is answered                      | all that this session sees                             |
//! | `fetched SESSION TO UID SEQ HOW` | when a message was received whole    | HOW: whole, torn; SEQ `-`: it is none of ours          |
//! | `marked SESSION TO UID SEQ` | before QUIT is sent                       | from here on it may be gone                            |
//! | `deleted SESSION TO`       | when QUIT is answered +OK                  | what this session marked is gone for good              |
//! | `doubt SESSION TO`         | when it is not                             | all that this session marked is gone, or none of it    |
//! | `final SESSION TO`         | before `opens`                             | this session looks at what has stayed, at the end      |
//! | `closed SESSION TO`        | when the session is over                   | it had nothing to delete, or did not come to QUIT      |
//! | `sunk SEQ TO`              | before the sink says 250                   | it has left the server for another host                |
//! | `settled MILLIS all`       | before the last look                       | nothing was on its way any more                        |
//! | `restless MILLIS all`      | instead of it, after so long               | mail is still on its way                               |
//! | `event WORDS`              | whenever                                   | for people: a kill, a start, a fault                   |
//!
//! TO is the mailbox: login, or the address of another host. UID is the XXH3-64 of what UIDL said. A fact that was not written
//! when the harness itself was killed leaves less certainty, never a wrong one: a message without an answer is unknown, a session
//! without an end is in doubt. A last line without its end is passed over; another line that cannot be read makes the whole
//! journal worthless, and is reported as such.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Its name in the folder of a run.
pub const NAME: &str = "journal";
/// Of a reply or a reason so many bytes are kept.
const WORDS_BYTES: usize = 200;
/// Unsynced facts beyond this are written out, so that a journal nobody syncs does not fill the memory.
const PENDING_BYTES: usize = 1024 * 1024;

/// Something that is known: see the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    Begun { seq: u64, to: Vec<&'a str>, bytes: u64, way: &'a str },
    Acked { seq: u64, to: &'a str, reply: &'a str },
    Refused { seq: u64, to: &'a str, reply: &'a str },
    Unknown { seq: u64, to: &'a str, why: &'a str },
    Opens { session: u64, to: &'a str },
    Final { session: u64, to: &'a str },
    Listed { session: u64, to: &'a str, uids: Vec<u64> },
    Fetched { session: u64, to: &'a str, uid: u64, seq: Option<u64>, whole: bool },
    Marked { session: u64, to: &'a str, uid: u64, seq: Option<u64> },
    Deleted { session: u64, to: &'a str },
    Doubt { session: u64, to: &'a str },
    Closed { session: u64, to: &'a str },
    Sunk { seq: u64, to: &'a str },
    Settled { millis: u64 },
    Restless { millis: u64 },
    Event { words: &'a str },
}

/// What strangers say, on one line, and not too much of it.
struct Words<'a>(&'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = WORDS_BYTES;
        for letter in self.0.chars() {
            let Some(less) = left.checked_sub(letter.len_utf8()) else { break };
            left = less;
            write!(f, "{}", if letter.is_control() { '?' } else { letter })?;
        }
        Ok(())
    }
}

/// A message's number, or that it has none.
struct Seq(Option<u64>);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seq) => write!(f, "{seq}"),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Fact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Begun { seq, to, bytes, way } => write!(f, "begun {seq} {} {bytes} {way}", to.join(",")),
            Fact::Acked { seq, to, reply } => write!(f, "acked {seq} {to} {}", Words(reply)),
            Fact::Refused { seq, to, reply } => write!(f, "refused {seq} {to} {}", Words(reply)),
            Fact::Unknown { seq, to, why } => write!(f, "unknown {seq} {to} {}", Words(why)),
            Fact::Opens { session, to } => write!(f, "opens {session} {to}"),
            Fact::Final { session, to } => write!(f, "final {session} {to}"),
            Fact::Listed { session, to, uids } => {
                write!(f, "listed {session} {to}")?;
                uids.iter().try_for_each(|uid| write!(f, " {uid:016x}"))
            }
            Fact::Fetched { session, to, uid, seq, whole } => {
                write!(f, "fetched {session} {to} {uid:016x} {} {}", Seq(*seq), if *whole { "whole" } else { "torn" })
            }
            Fact::Marked { session, to, uid, seq } => write!(f, "marked {session} {to} {uid:016x} {}", Seq(*seq)),
            Fact::Deleted { session, to } => write!(f, "deleted {session} {to}"),
            Fact::Doubt { session, to } => write!(f, "doubt {session} {to}"),
            Fact::Closed { session, to } => write!(f, "closed {session} {to}"),
            Fact::Sunk { seq, to } => write!(f, "sunk {seq} {to}"),
            Fact::Settled { millis } => write!(f, "settled {millis} all"),
            Fact::Restless { millis } => write!(f, "restless {millis} all"),
            Fact::Event { words } => write!(f, "event {}", Words(words)),
        }
    }
}

/// A line's fact; `None`: it says none.
pub fn parse(line: &str) -> Option<Fact<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let (secs, micros) = time.split_once('.')?;
    secs.parse::<u64>().ok()?;
    micros.parse::<u32>().ok().filter(|_| micros.len() == 6)?;
    let (kind, rest) = rest.split_once(' ')?;
    if kind == "event" {
        return Some(Fact::Event { words: rest });
    }
    let mut words = rest.splitn(3, ' ');
    let number: u64 = words.next()?.parse().ok()?;
    let to = words.next().filter(|to| !to.is_empty())?;
    let rest = words.next();
    let none = || rest.is_none().then_some(());
    let uid = |word: &str| u64::from_str_radix(word, 16).ok().filter(|_| word.len() == 16);
    let seq = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
    Some(match kind {
        "begun" => {
            let mut words = rest?.split(' ');
            let to: Vec<&str> = to.split(',').collect();
            let fact = Fact::Begun { seq: number, to, bytes: words.next()?.parse().ok()?, way: words.next()? };
            words.next().is_none().then_some(fact)?
        }
        "acked" => Fact::Acked { seq: number, to, reply: rest? },
        "refused" => Fact::Refused { seq: number, to, reply: rest? },
        "unknown" => Fact::Unknown { seq: number, to, why: rest? },
        "opens" => none().map(|()| Fact::Opens { session: number, to })?,
        "final" => none().map(|()| Fact::Final { session: number, to })?,
        "deleted" => none().map(|()| Fact::Deleted { session: number, to })?,
        "doubt" => none().map(|()| Fact::Doubt { session: number, to })?,
        "closed" => none().map(|()| Fact::Closed { session: number, to })?,
        "settled" => none().map(|()| Fact::Settled { millis: number })?,
        "restless" => none().map(|()| Fact::Restless { millis: number })?,
        "sunk" => none().map(|()| Fact::Sunk { seq: number, to })?,
        "listed" => {
            let uids = rest.map_or(Some(Vec::new()), |rest| rest.split(' ').map(uid).collect())?;
            Fact::Listed { session: number, to, uids }
        }
        "fetched" => {
            let mut words = rest?.split(' ');
            let (uid, seq) = (uid(words.next()?)?, seq(words.next()?)?);
            let whole = match (words.next()?, words.next()) {
                ("whole", None) => true,
                ("torn", None) => false,
                _ => return None,
            };
            Fact::Fetched { session: number, to, uid, seq, whole }
        }
        "marked" => {
            let (uid_word, seq_word) = rest?.split_once(' ')?;
            Fact::Marked { session: number, to, uid: uid(uid_word)?, seq: seq(seq_word)? }
        }
        _ => return None,
    })
}

/// The journal of a run under way. Threads share it.
pub struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    pending: Vec<u8>,
    /// Written, and not yet synced.
    dirty: bool,
    facts: u64,
    syncs: u64,
    /// It could not be written: nothing that is known from here on can be kept.
    lost: Option<String>,
}

impl Journal {
    /// A new one in that folder; refused when there is one already.
    pub fn create(dir: &Path) -> io::Result<Journal> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        File::open(dir)?.sync_all()?;
        let inner = Inner { file, pending: Vec::new(), dirty: false, facts: 0, syncs: 0, lost: None };
        Ok(Journal { path, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more fact. It counts for nothing before [`sync`](Journal::sync).
    pub fn note(&self, fact: &Fact<'_>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut inner = self.inner();
        // Writing into memory cannot fail.
        let _ = writeln!(inner.pending, "{}.{:06} {fact}", since.as_secs(), since.subsec_micros());
        inner.facts += 1;
        if inner.pending.len() > PENDING_BYTES {
            inner.write(&self.path);
        }
    }

    /// All facts are on disk now. When that cannot be, none will be any more: see [`trouble`](Journal::trouble).
    pub fn sync(&self) -> bool {
        let mut inner = self.inner();
        inner.write(&self.path);
        if inner.dirty && inner.lost.is_none() {
            if let Err(error) = inner.file.sync_data() {
                inner.lost = Some(format!("{}: {error}; keep the journal on a disk that works", self.path.display()));
            }
            inner.syncs += 1;
            inner.dirty = false;
        }
        inner.lost.is_none()
    }

    /// Why it cannot be written.
    pub fn trouble(&self) -> Option<String> {
        self.inner().lost.clone()
    }

    /// Facts, and syncs.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.facts, inner.syncs)
    }
}

impl Inner {
    fn write(&mut self, path: &Path) {
        if self.pending.is_empty() || self.lost.is_some() {
            return;
        }
        if let Err(error) = self.file.write_all(&self.pending) {
            self.lost = Some(format!("{}: {error}; give the journal a disk with room", path.display()));
        }
        self.pending.clear();
        self.dirty = true;
    }
}

/// Why a journal is not read.
#[derive(Debug)]
pub enum Unread {
    Error(io::Error),
    /// That line says no fact.
    Line {
        number: u64,
        text: String,
    },
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Error(error) => error.fmt(f),
            Unread::Line { number, text } => write!(f, "line {number} says no fact: {text}"),
        }
    }
}

/// Goes through the lines that are whole, in order, with their numbers from 1.
pub fn lines(path: &Path, mut take: impl FnMut(u64, &str)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        file.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            // The end, or what was being written when the harness was killed.
            return Ok(());
        }
        number += 1;
        take(number, &String::from_utf8_lossy(&line));
    }
}

/// Goes through the facts in order, with the numbers of their lines.
pub fn read(path: &Path, mut take: impl FnMut(u64, Fact<'_>)) -> Result<u64, Unread> {
    let (mut facts, mut bad) = (0, None);
    lines(path, |number, line| match parse(line) {
        Some(fact) => {
            facts += 1;
            take(number, fact);
        }
        None if bad.is_none() => bad = Some(Unread::Line { number, text: line.chars().take(WORDS_BYTES).collect() }),
        None => {}
    })
    .map_err(Unread::Error)?;
    bad.map_or(Ok(facts), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Fact<'static>> {
        vec![
            Fact::Begun { seq: 17, to: vec!["ann", "x@far.test"], bytes: 12, way: "smtp" },
            Fact::Acked { seq: 17, to: "ann", reply: "250 2.0.0 Ok" },
            Fact::Refused { seq: 17, to: "x@far.test", reply: "550 no" },
            Fact::Unknown { seq: 18, to: "ann", why: "reset" },
            Fact::Final { session: 3, to: "ann" },
            Fact::Opens { session: 3, to: "ann" },
            Fact::Listed { session: 3, to: "ann", uids: vec![] },
            Fact::Listed { session: 3, to: "ann", uids: vec![1, u64::MAX] },
            Fact::Fetched { session: 3, to: "ann", uid: 1, seq: Some(17), whole: true },
            Fact::Fetched { session: 3, to: "ann", uid: 2, seq: None, whole: false },
            Fact::Marked { session: 3, to: "ann", uid: 1, seq: Some(17) },
            Fact::Deleted { session: 3, to: "ann" },
            Fact::Doubt { session: 3, to: "ann" },
            Fact::Closed { session: 3, to: "ann" },
            Fact::Sunk { seq: 17, to: "x@far.test" },
            Fact::Settled { millis: 12 },
            Fact::Restless { millis: 90_000 },
            Fact::Event { words: "kill 3" },
        ]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path()).unwrap();
        all().iter().for_each(|fact| journal.note(fact));
        assert!(journal.sync());
        assert_eq!(journal.counts(), (all().len() as u64, 1));
        let mut read_back = Vec::new();
        let count = read(&dir.path().join(NAME), |number, fact| read_back.push((number, format!("{fact:?}")))).unwrap();
        assert_eq!(count, all().len() as u64);
        let wanted: Vec<_> = all().iter().enumerate().map(|(at, fact)| (at as u64 + 1, format!("{fact:?}"))).collect();
        assert_eq!(read_back, wanted);
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, "1.000001 opens 1 ann\n1.000002 dele").unwrap();
        assert_eq!(read(&path, |_, _| {}).unwrap(), 1);
        std::fs::write(&path, "1.000001 opens 1 ann\n\0\0\0\n1.000003 deleted 1 ann\n").unwrap();
        assert!(matches!(read(&path, |_, _| {}), Err(Unread::Line { number: 2, .. })));
    }

    #[test]
    fn a_reply_cannot_add_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path()).unwrap();
        let reply = format!("250 ok\r\n1.000001 acked 2 ann 250 {}", "x".repeat(1000));
        journal.note(&Fact::Acked { seq: 1, to: "ann", reply: &reply });
        journal.sync();
        assert_eq!(read(&dir.path().join(NAME), |_, _| {}).unwrap(), 1);
    }

    #[test]
    fn a_second_run_does_not_write_into_the_journal_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Journal::create(dir.path()).unwrap();
        assert_eq!(Journal::create(dir.path()).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    }
}
