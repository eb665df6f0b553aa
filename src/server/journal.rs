//! The log and the statistics: files that are appended to by one thread of its own.
//!
//! Whoever logs never waits: lines and sessions go into a queue of [`QUEUE`], and when that is full (the disk hangs) they
//! are dropped and counted; the count is the next line that fits. One event is one line: whatever a line holds, it is made
//! printable here.
//!
//! | file              | what it is                                                          |
//! |-------------------|---------------------------------------------------------------------|
//! | `journal/lines.rs` | a file of lines, in a directory held open                          |
//! | `journal/log.rs`   | dpop.log: its size, the four old ones, lines that got lost         |
//! | `journal/stats.rs` | the statistics: a file a day                                       |

mod lines;
mod log;
mod stats;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, SystemTime};

use ::log::LevelFilter;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::log::Log;
use self::stats::Stats;
use crate::rules::stats::Visit;
use crate::service::pop3::Left;
use crate::settings::{LogLevel, Settings};
use crate::text::fault::Fault;
use crate::text::printable::visible;

/// Lines and sessions waiting to be written.
const QUEUE: usize = 4096;
/// Bytes of lines that leave in one write when many wait.
const BATCH: usize = 64 * 1024;
/// Sessions that leave in one write.
const VISITS: usize = 1024;
/// Enough to write a line, and to read a time zone.
const STACK: usize = 256 * 1024;

/// What `log_level` means to the log crate.
pub fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    }
}

enum Entry {
    Line(Vec<u8>),
    Visit(Visit),
    Follow(Places),
    Flushed(SyncSender<()>),
}

/// What the settings say about our files.
struct Places {
    log: PathBuf,
    limit: u64,
    stats: Option<PathBuf>,
}

impl Places {
    fn of(settings: &Settings) -> Places {
        Places {
            log: settings.log_path.clone(),
            limit: settings.log_max_size.saturating_mul(1024),
            stats: settings.stats_path.clone(),
        }
    }
}

/// Not a channel of [`QUEUE`] places: that would be a table of 136 KB, made at start and hardly ever used.
#[derive(Clone)]
struct Queue {
    entries: Sender<Entry>,
    /// Entries that are in no file yet.
    waiting: Arc<AtomicUsize>,
    /// Sessions there was no room for.
    lost: Arc<AtomicU64>,
}

impl Queue {
    /// Whether there was room for it.
    fn submit(&self, entry: Entry) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        // The thread is gone when the process ends: then nobody is left to read the line.
        let _ = self.entries.send(entry);
        true
    }
}

/// Where the log crate writes to.
struct Writer {
    queue: Queue,
    dropped: u64,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let line = own("ERROR", &format!("lines dropped here, for the log could not keep up: {}", self.dropped));
            if self.queue.submit(Entry::Line(line.into_bytes())) {
                self.dropped = 0;
            }
        }
        if !self.queue.submit(Entry::Line(bytes.to_vec())) {
            self.dropped += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log and the statistics of a server.
pub struct Journal {
    queue: Queue,
    /// Whether there are statistics.
    counting: bool,
}

impl Journal {
    /// Opens the log for appending and sends the program's log there. Once in the life of a process.
    pub fn open(settings: &Settings) -> Result<Journal, Fault> {
        let places = Places::of(settings);
        let log = Log::open(&places.log, places.limit)?;
        let (entries, received) = channel();
        let queue = Queue { entries, waiting: Arc::default(), lost: Arc::default() };
        // Not its sender: that would keep the channel open for ever.
        let (waiting, lost, counting) = (queue.waiting.clone(), queue.lost.clone(), places.stats.is_some());
        let mut scribe = Scribe { log, stats: places.stats.map(Stats::new), visits: Vec::new(), lines: Vec::new() };
        let spawned = std::thread::Builder::new().name("log".into()).stack_size(STACK);
        spawned
            .spawn(move || scribe.run(&received, &waiting, &lost))
            .map_err(Fault::at("starting the thread that writes", &settings.log_path))?;
        let writer = Writer { queue: queue.clone(), dropped: 0 };
        let logger = env_logger::Builder::new()
            .filter_level(LevelFilter::Debug)
            .target(env_logger::Target::Pipe(Box::new(writer)))
            .format(|out, record| {
                let (time, level) = (out.timestamp_millis(), record.level());
                writeln!(out, "{time} {level:<5} {}", visible(&record.args().to_string()))
            })
            .build();
        // A second server in one process (a test) keeps the first one's log.
        let _ = ::log::set_boxed_logger(Box::new(logger));
        ::log::set_max_level(filter(settings.log_level));
        Ok(Journal { queue, counting })
    }

    /// Goes on as these settings say; what was logged before is written to where it belonged.
    pub fn follow(&mut self, settings: &Settings) {
        self.counting = settings.stats_path.is_some();
        ::log::set_max_level(filter(settings.log_level));
        // Without a place in the queue: it must not get lost.
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.entries.send(Entry::Follow(Places::of(settings)));
    }

    /// Records a session that has just ended.
    pub fn record(&self, left: Left) {
        if !self.counting {
            return;
        }
        let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let Left { user, from, secs, bytes, messages } = left;
        let visit = Visit { start: end.saturating_sub(secs), end, user, from, bytes, messages };
        if !self.queue.submit(Entry::Visit(visit)) {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was logged is in the file, or does not get there in time.
    pub fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.entries.send(Entry::Flushed(done)).is_ok() {
            // Silence means that the disk hangs: then the lines are lost.
            let _ = flushed.recv_timeout(Duration::from_secs(2));
        }
    }
}

/// A line that the thread that writes the log has to say itself, as all others look.
fn own(level: &str, text: &str) -> String {
    format!("{:.3} {level:<5} {}\n", Timestamp::now(), visible(text))
}

/// What the thread has.
struct Scribe {
    log: Log,
    stats: Option<Stats>,
    lines: Vec<u8>,
    visits: Vec<Visit>,
}

impl Scribe {
    fn run(&mut self, entries: &Receiver<Entry>, waiting: &AtomicUsize, lost: &AtomicU64) {
        while let Ok(first) = entries.recv() {
            let (mut next, mut count, mut last) = (Some(first), 0, None);
            while let Some(entry) = next {
                count += 1;
                match entry {
                    Entry::Line(line) => self.lines.extend_from_slice(&line),
                    Entry::Visit(visit) => self.visits.push(visit),
                    // What came before it is written first.
                    entry => last = Some(entry),
                }
                let room = self.lines.len() < BATCH && self.visits.len() < VISITS;
                next = if room && last.is_none() { entries.try_recv().ok() } else { None };
            }
            self.write(lost.swap(0, Ordering::Relaxed));
            waiting.fetch_sub(count, Ordering::Relaxed);
            match last {
                Some(Entry::Follow(places)) => self.follow(places),
                Some(Entry::Flushed(done)) => drop(done.send(())),
                _ => {}
            }
        }
    }

    fn write(&mut self, lost: u64) {
        // Without statistics there may be some that ended before these were switched off.
        if let Some(stats) = &mut self.stats {
            stats.lose(lost);
            if !self.visits.is_empty() {
                stats.write(&self.visits, &TimeZone::system(), &mut self.lines);
            }
        }
        self.visits.clear();
        self.visits.shrink_to(VISITS / 64);
        if !self.lines.is_empty() {
            self.log.write(&self.lines);
        }
        self.lines.clear();
        self.lines.shrink_to(BATCH / 16);
    }

    fn follow(&mut self, places: Places) {
        self.log.follow(&places.log, places.limit);
        let old = self.stats.take();
        self.stats = places.stats.map(|folder| match old {
            Some(stats) => stats.moved_to(folder),
            None => Stats::new(folder),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A thread's work on these entries.
    fn work(folder: &Path, stats: Option<&Path>, entries: Vec<Entry>) -> (usize, Vec<String>) {
        let (sender, receiver) = channel();
        let (waiting, lost) = (AtomicUsize::new(entries.len()), AtomicU64::new(3));
        entries.into_iter().for_each(|entry| sender.send(entry).unwrap());
        drop(sender);
        let stats = stats.map(|folder| Stats::new(folder.to_owned()));
        let mut scribe = Scribe { log: Log::open(folder, 0).unwrap(), stats, lines: Vec::new(), visits: Vec::new() };
        scribe.run(&receiver, &waiting, &lost);
        let log = fs::read_to_string(folder.join(log::NAME)).unwrap();
        (waiting.into_inner(), log.lines().map(str::to_owned).collect())
    }

    fn line(text: &str) -> Entry {
        Entry::Line(format!("{text}\n").into_bytes())
    }

    fn visit(user: &str) -> Entry {
        let from = "192.0.2.7".to_owned();
        Entry::Visit(Visit { start: 1_767_268_800, end: 1_767_268_801, user: user.into(), from, bytes: 1, messages: 1 })
    }

    #[test]
    fn entries_are_written_in_their_order_to_where_the_settings_of_their_time_say() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (one, two, counts) = (place("one"), place("two"), place("counts"));
        let follow = |log: &Path, stats: Option<&Path>| {
            Entry::Follow(Places { log: log.to_owned(), limit: 0, stats: stats.map(Path::to_owned) })
        };
        let entries = vec![
            line("a"),
            visit("before"),
            follow(&two, Some(&counts)),
            line("b"),
            visit("ann"),
            follow(&one, None),
            visit("after"),
            line("c"),
        ];
        let (waiting, log) = work(&one, None, entries);
        assert_eq!((waiting, log), (0, vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(fs::read_to_string(two.join(log::NAME)).unwrap(), "b\n");
        let files: Vec<_> = fs::read_dir(&counts).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "1767268800 1767268801 ann 192.0.2.7 1 1\n");
    }

    #[test]
    fn sessions_that_found_no_room_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (_, log) = work(folder.path(), Some(folder.path()), vec![visit("ann")]);
        assert!(log.len() == 1 && log[0].ends_with(" ERROR sessions missing in the statistics: 3"), "{log:?}");
    }

    #[test]
    fn a_full_queue_drops_and_says_how_much() {
        let (entries, received) = channel();
        let queue = Queue { entries, waiting: Arc::default(), lost: Arc::default() };
        let mut writer = Writer { queue: queue.clone(), dropped: 0 };
        for _ in 0..QUEUE + 10 {
            writer.write_all(b"line\n").unwrap();
        }
        let journal = Journal { queue: queue.clone(), counting: true };
        let left = Left { user: "ann".into(), from: String::new(), secs: 1, bytes: 1, messages: 1 };
        journal.record(left);
        assert_eq!((received.try_iter().count(), writer.dropped, queue.lost.load(Ordering::Relaxed)), (QUEUE, 10, 1));
        queue.waiting.store(0, Ordering::Relaxed);
        writer.write_all(b"line\n").unwrap();
        let Ok(Entry::Line(said)) = received.try_recv() else { panic!("nothing is said") };
        assert!(
            String::from_utf8(said)
                .unwrap()
                .ends_with(" ERROR lines dropped here, for the log could not keep up: 10\n")
        );
        assert_eq!(received.try_iter().count(), 1);
    }

    #[test]
    fn a_line_of_our_own_looks_like_all_others() {
        let line = own("WARN", "a\nb");
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!((time.len(), rest), ("2026-11-22T17:38:55.123Z".len(), "WARN  a?b\n"));
        assert!(time.ends_with('Z') && time.as_bytes()[19] == b'.');
    }
}
