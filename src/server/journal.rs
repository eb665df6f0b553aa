//! The log: a file that is appended to by a thread of its own.
//!
//! Whoever logs never waits: lines go into a queue of [`QUEUE`], and when that is full (the disk hangs) they are dropped
//! and counted; the count is the next line that fits. One event is one line; what strangers sent has been made printable
//! by whoever logs it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use log::LevelFilter;

use crate::settings::LogLevel;
use crate::sys::nofollow::NOFOLLOW;
use crate::text::fault::Fault;

/// Lines waiting to be written.
const QUEUE: usize = 4096;
/// Enough to write a line.
const STACK: usize = 64 * 1024;

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
    Flushed(SyncSender<()>),
}

struct Writer {
    queue: SyncSender<Entry>,
    dropped: u64,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let line = format!("({} lines were dropped: the log could not keep up)\n", self.dropped);
            if self.queue.try_send(Entry::Line(line.into_bytes())).is_ok() {
                self.dropped = 0;
            }
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(bytes.to_vec())) {
            self.dropped += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of a server.
pub struct Journal(SyncSender<Entry>);

impl Journal {
    /// Opens `file` for appending and sends the program's log there. Once in the life of a process.
    pub fn open(file: &Path, level: LogLevel) -> Result<Journal, Fault> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(NOFOLLOW).open(file);
        let log = opened.map_err(Fault::at("opening the log", file))?;
        let (queue, lines) = sync_channel(QUEUE);
        let spawned = std::thread::Builder::new().name("log".into()).stack_size(STACK);
        spawned.spawn(move || write(log, &lines)).map_err(Fault::at("starting the thread that writes", file))?;
        let writer = Writer { queue: queue.clone(), dropped: 0 };
        let logger = env_logger::Builder::new()
            .filter_level(LevelFilter::Debug)
            .target(env_logger::Target::Pipe(Box::new(writer)))
            .format(|out, record| {
                let (time, level) = (out.timestamp_millis(), record.level());
                writeln!(out, "{time} {level:<5} {}", record.args())
            })
            .build();
        // A second server in one process (a test) keeps the first one's log.
        let _ = log::set_boxed_logger(Box::new(logger));
        log::set_max_level(filter(level));
        Ok(Journal(queue))
    }

    /// Waits until what was logged is in the file, or does not get there in time.
    pub fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.0.try_send(Entry::Flushed(done)).is_ok() {
            // Silence means that the disk hangs: then the lines are lost.
            let _ = flushed.recv_timeout(Duration::from_secs(2));
        }
    }
}

fn write(mut log: File, lines: &Receiver<Entry>) {
    while let Ok(entry) = lines.recv() {
        match entry {
            // There is nobody to tell that the log cannot be written.
            Entry::Line(line) => drop(log.write_all(&line)),
            Entry::Flushed(done) => drop(done.send(())),
        }
    }
}
