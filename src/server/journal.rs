//! The logs and the statistics: files that are appended to by one thread of its own.
//!
//! Whoever logs never waits: lines, sessions and messages go into a queue of [`QUEUE`], and when that is full (the disk hangs) they
//! are dropped and counted; the count is the next line that fits. One event is one line: whatever a line holds, it is made
//! printable here.
//!
//! | file              | what it is                                                          |
//! |-------------------|---------------------------------------------------------------------|
//! | `journal/lines.rs` | a file of lines, in a directory held open                          |
//! | `journal/log.rs`   | a log: its size, the four old ones, lines that got lost            |
//! | `journal/logs.rs`  | the logs there are: which line goes where                          |
//! | `journal/stats.rs` | the statistics: a file a day                                       |

mod lines;
mod log;
mod logs;
mod stats;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, SystemTime};

use ::log::{LevelFilter, Metadata, Record as Said};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::logs::Logs;
use self::stats::Stats;
use crate::rules::logs::LogFile;
use crate::rules::stats::Visit;
use crate::rules::traffic::Record;
use crate::service::Services;
use crate::service::pop3::Left;
use crate::settings::{LogLevel, Settings};
use crate::text::fault::Fault;
use crate::text::printable::visible;

/// Lines, sessions and messages waiting to be written.
const QUEUE: usize = 4096;
/// Bytes of lines that leave in one write when many wait.
const BATCH: usize = 64 * 1024;
/// Sessions, or messages, that leave in one write.
const VISITS: usize = 1024;
/// How long more is waited for when there is something to write: at thousands of lines a second each would be a write of its own,
/// and a wake-up that the loop pays for.
const GATHER: Duration = Duration::from_millis(4);
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
    Line(LogFile, Vec<u8>),
    Visit(Visit),
    Record(Record),
    Follow(Places),
    Flushed(SyncSender<()>),
}

/// What the settings say about our files.
struct Places {
    log: PathBuf,
    limit: u64,
    pop3_is_served: bool,
    stats: Option<PathBuf>,
    traffic: bool,
}

impl Places {
    fn of(settings: &Settings, services: Services) -> Places {
        Places {
            log: settings.log_path.clone(),
            limit: settings.log_max_size.saturating_mul(1024),
            pop3_is_served: serves_pop3(settings, services),
            stats: settings.stats_path.clone(),
            traffic: settings.oneline_stats,
        }
    }
}

/// Whether POP3 has a port: then its log takes what no service says.
fn serves_pop3(settings: &Settings, services: Services) -> bool {
    services != Services::Smtp && (settings.pop_port != 0 || settings.pops_port != 0)
}

/// What found no room in the queue.
#[derive(Default)]
struct Lost {
    visits: AtomicU64,
    records: AtomicU64,
}

/// Not a channel of [`QUEUE`] places: that would be a table of 136 KB, made at start and hardly ever used.
#[derive(Clone)]
struct Queue {
    entries: Sender<Entry>,
    /// Entries that are in no file yet.
    waiting: Arc<AtomicUsize>,
    lost: Arc<Lost>,
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
    pop3_is_served: Arc<AtomicBool>,
    dropped: AtomicU64,
}

impl Writer {
    fn write(&self, which: LogFile, line: String) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let said = own("ERROR", &format!("lines dropped here, for the log could not keep up: {dropped}"));
            if !self.queue.submit(Entry::Line(which, said.into_bytes())) {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if !self.queue.submit(Entry::Line(which, line.into_bytes())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ::log::Log for Writer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The level in force is the log crate's own.
        metadata.level() <= LevelFilter::Debug
    }

    fn log(&self, said: &Said<'_>) {
        if self.enabled(said.metadata()) {
            let which = LogFile::of(said.target(), self.pop3_is_served.load(Ordering::Relaxed));
            self.write(which, own(said.level().as_str(), &said.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// The log and the statistics of a server.
pub struct Journal {
    queue: Queue,
    /// Whether sessions are recorded.
    counting: bool,
    /// Whether messages are.
    traffic: bool,
    pop3_is_served: Arc<AtomicBool>,
}

impl Journal {
    /// Opens the log for appending and sends the program's log there. Once in the life of a process.
    pub fn open(settings: &Settings, services: Services) -> Result<Journal, Fault> {
        let places = Places::of(settings, services);
        let logs = Logs::open(&places.log, places.limit, places.pop3_is_served)?;
        let (entries, received) = channel();
        let queue = Queue { entries, waiting: Arc::default(), lost: Arc::default() };
        // Not its sender: that would keep the channel open for ever.
        let (waiting, lost) = (queue.waiting.clone(), queue.lost.clone());
        let (counting, traffic) = (places.stats.is_some(), places.traffic);
        let pop3_is_served = Arc::new(AtomicBool::new(places.pop3_is_served));
        let mut scribe = Scribe::new(logs, places);
        let spawned = std::thread::Builder::new().name("log".into()).stack_size(STACK);
        spawned
            .spawn(move || scribe.run(&received, &waiting, &lost))
            .map_err(Fault::at("starting the thread that writes", &settings.log_path))?;
        let logger =
            Writer { queue: queue.clone(), pop3_is_served: pop3_is_served.clone(), dropped: AtomicU64::new(0) };
        // A second server in one process (a test) keeps the first one's log.
        let _ = ::log::set_boxed_logger(Box::new(logger));
        ::log::set_max_level(filter(settings.log_level));
        Ok(Journal { queue, counting, traffic, pop3_is_served })
    }

    /// Goes on as these settings say; what was logged before is written to where it belonged.
    pub fn follow(&mut self, settings: &Settings, services: Services) {
        self.counting = settings.stats_path.is_some();
        self.traffic = settings.oneline_stats;
        self.pop3_is_served.store(serves_pop3(settings, services), Ordering::Relaxed);
        ::log::set_max_level(filter(settings.log_level));
        // Without a place in the queue: it must not get lost.
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.entries.send(Entry::Follow(Places::of(settings, services)));
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
            self.queue.lost.visits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records what has just become of a message.
    pub fn note(&self, record: Record) {
        if self.traffic && !self.queue.submit(Entry::Record(record)) {
            self.queue.lost.records.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was logged is in the file, or does not get there in time.
    fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.entries.send(Entry::Flushed(done)).is_ok() {
            // Silence means that the disk hangs: then the lines are lost.
            let _ = flushed.recv_timeout(Duration::from_secs(2));
        }
    }
}

/// However a server ends, by a fault or by a panic too: what it said last is what its operator looks for.
impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A line that the thread that writes the log has to say itself, as all others look.
fn own(level: &str, text: &str) -> String {
    format!("{:.3} {level:<5} {}\n", Timestamp::now(), visible(text))
}

/// What the thread has.
struct Scribe {
    logs: Logs,
    stats: Option<Stats<Visit>>,
    traffic: Option<Stats<Record>>,
    pop: Vec<u8>,
    smtp: Vec<u8>,
    visits: Vec<Visit>,
    records: Vec<Record>,
}

impl Scribe {
    fn new(logs: Logs, places: Places) -> Scribe {
        Scribe {
            logs,
            stats: places.stats.map(Stats::new),
            traffic: places.traffic.then(|| Stats::new(places.log)),
            pop: Vec::new(),
            smtp: Vec::new(),
            visits: Vec::new(),
            records: Vec::new(),
        }
    }

    fn run(&mut self, entries: &Receiver<Entry>, waiting: &AtomicUsize, lost: &Lost) {
        while let Ok(first) = entries.recv() {
            if !matches!(first, Entry::Follow(_) | Entry::Flushed(_)) {
                std::thread::sleep(GATHER);
            }
            let (mut next, mut count, mut last) = (Some(first), 0, None);
            while let Some(entry) = next {
                count += 1;
                match entry {
                    Entry::Line(LogFile::Pop, line) => self.pop.extend_from_slice(&line),
                    Entry::Line(LogFile::Smtp, line) => self.smtp.extend_from_slice(&line),
                    Entry::Visit(visit) => self.visits.push(visit),
                    Entry::Record(record) => self.records.push(record),
                    // What came before it is written first.
                    entry => last = Some(entry),
                }
                let lines = self.pop.len().max(self.smtp.len());
                let room = lines < BATCH && self.visits.len().max(self.records.len()) < VISITS;
                next = if room && last.is_none() { entries.try_recv().ok() } else { None };
            }
            self.write(lost);
            waiting.fetch_sub(count, Ordering::Relaxed);
            match last {
                Some(Entry::Follow(places)) => self.follow(places),
                Some(Entry::Flushed(done)) => drop(done.send(())),
                _ => {}
            }
        }
    }

    fn write(&mut self, lost: &Lost) {
        // Without statistics there may be some that ended before these were switched off.
        record(&mut self.stats, &mut self.visits, &lost.visits, &mut self.pop);
        record(&mut self.traffic, &mut self.records, &lost.records, &mut self.smtp);
        for (which, lines) in [(LogFile::Pop, &mut self.pop), (LogFile::Smtp, &mut self.smtp)] {
            if !lines.is_empty() {
                self.logs.write(which, lines);
            }
            lines.clear();
            lines.shrink_to(BATCH / 16);
        }
    }

    fn follow(&mut self, places: Places) {
        self.logs.follow(&places.log, places.limit, places.pop3_is_served);
        follow(&mut self.stats, places.stats);
        follow(&mut self.traffic, places.traffic.then_some(places.log));
    }
}

/// Writes these to the statistics, where there are any, and what there is to say of it into `log`.
fn record<T: stats::Dated>(stats: &mut Option<Stats<T>>, things: &mut Vec<T>, lost: &AtomicU64, log: &mut Vec<u8>) {
    let lost = lost.swap(0, Ordering::Relaxed);
    if let Some(stats) = stats {
        stats.lose(lost);
        if !things.is_empty() {
            stats.write(things, &TimeZone::system(), log);
        }
    }
    things.clear();
    things.shrink_to(VISITS / 64);
}

fn follow<T: stats::Dated>(stats: &mut Option<Stats<T>>, folder: Option<PathBuf>) {
    let old = stats.take();
    *stats = folder.map(|folder| match old {
        Some(stats) => stats.moved_to(folder),
        None => Stats::new(folder),
    });
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::rules::traffic::Class;

    /// A thread's work on these entries.
    fn work(folder: &Path, stats: Option<&Path>, entries: Vec<Entry>) -> (usize, Vec<String>) {
        let (sender, receiver) = channel();
        let waiting = AtomicUsize::new(entries.len());
        let lost = Lost { visits: AtomicU64::new(3), records: AtomicU64::new(0) };
        entries.into_iter().for_each(|entry| sender.send(entry).unwrap());
        drop(sender);
        let places = places(folder, stats);
        let mut scribe = Scribe::new(Logs::open(folder, 0, true).unwrap(), places);
        scribe.run(&receiver, &waiting, &lost);
        let log = fs::read_to_string(folder.join("dpop.log")).unwrap();
        (waiting.into_inner(), log.lines().map(str::to_owned).collect())
    }

    fn places(log: &Path, stats: Option<&Path>) -> Places {
        let stats = stats.map(Path::to_owned);
        Places { log: log.to_owned(), limit: 0, pop3_is_served: true, traffic: stats.is_some(), stats }
    }

    fn line(text: &str) -> Entry {
        Entry::Line(LogFile::Pop, format!("{text}\n").into_bytes())
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
        let follow = |log: &Path, stats: Option<&Path>| Entry::Follow(places(log, stats));
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
        assert_eq!(fs::read_to_string(two.join("dpop.log")).unwrap(), "b\n");
        let files: Vec<_> = fs::read_dir(&counts).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "1767268800 1767268801 ann 192.0.2.7 1 1\n");
    }

    fn message() -> Record {
        let (id, from, to) = ("k3J9x0Qw2b".to_owned(), "ann@a.test".to_owned(), vec!["bob@b.test".to_owned()]);
        Record { second: 1_767_268_801, class: Class::Sent, id, bytes: 5, from, to }
    }

    #[test]
    fn each_line_is_in_the_log_of_its_service_and_messages_are_in_the_file_of_their_day() {
        let folder = tempfile::tempdir().unwrap();
        let smtp = |text: &str| Entry::Line(LogFile::Smtp, format!("{text}\n").into_bytes());
        let entries = vec![line("a"), smtp("b"), Entry::Record(message()), line("c"), smtp("d")];
        let (_, pop) = work(folder.path(), Some(folder.path()), entries);
        assert_eq!(pop, ["a", "c"]);
        assert_eq!(fs::read_to_string(folder.path().join("dsmtp.log")).unwrap(), "b\nd\n");
        let wanted = "1767268801 sent k3J9x0Qw2b 5 ann@a.test bob@b.test\n";
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let name = names.into_iter().find(|name| name.starts_with("dm")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), wanted);
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
        let served = Arc::new(AtomicBool::new(true));
        let writer = Writer { queue: queue.clone(), pop3_is_served: served.clone(), dropped: AtomicU64::new(0) };
        for _ in 0..QUEUE + 10 {
            writer.write(LogFile::Pop, "line\n".into());
        }
        let journal = Journal { queue: queue.clone(), counting: true, traffic: true, pop3_is_served: served };
        let left = Left { user: "ann".into(), from: String::new(), secs: 1, bytes: 1, messages: 1 };
        journal.record(left);
        journal.note(message());
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((received.try_iter().count(), of(&writer.dropped)), (QUEUE, 10));
        assert_eq!((of(&queue.lost.visits), of(&queue.lost.records)), (1, 1));
        queue.waiting.store(0, Ordering::Relaxed);
        writer.write(LogFile::Pop, "line\n".into());
        let Ok(Entry::Line(_, said)) = received.try_recv() else { panic!("nothing is said") };
        assert!(
            String::from_utf8(said)
                .unwrap()
                .ends_with(" ERROR lines dropped here, for the log could not keep up: 10\n")
        );
        assert_eq!(received.try_iter().count(), 1);
        // Nobody takes what the journal says at its end.
        drop(received);
    }

    #[test]
    fn what_a_server_said_last_is_in_the_file_when_it_ends_by_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let (entries, received) = channel();
        let queue = Queue { entries, waiting: Arc::default(), lost: Arc::default() };
        let (waiting, lost) = (queue.waiting.clone(), queue.lost.clone());
        let mut scribe = Scribe::new(Logs::open(folder.path(), 0, true).unwrap(), places(folder.path(), None));
        std::thread::spawn(move || scribe.run(&received, &waiting, &lost));
        let served = Arc::new(AtomicBool::new(true));
        let journal = Journal { queue, counting: false, traffic: false, pop3_is_served: served };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(journal.queue.submit(line("last words")));
            let _journal = journal;
            std::panic::resume_unwind(Box::new("the end"));
        }));
        assert!(ended.is_err());
        assert_eq!(fs::read_to_string(folder.path().join("dpop.log")).unwrap(), "last words\n");
    }

    #[test]
    fn a_line_of_our_own_looks_like_all_others() {
        let line = own("WARN", "a\nb");
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!((time.len(), rest), ("2026-11-22T17:38:55.123Z".len(), "WARN  a?b\n"));
        assert!(time.ends_with('Z') && time.as_bytes()[19] == b'.');
    }
}
