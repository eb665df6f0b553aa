//! The log: a file that is appended to by a thread of its own.
//!
//! Whoever logs never waits: lines go into a queue of [`QUEUE`], and when that is full (the disk hangs) they are dropped
//! and counted; the count is the next line that fits. One event is one line; what strangers sent has been made printable
//! by whoever logs it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use log::LevelFilter;

use crate::settings::LogLevel;
use crate::sys::nofollow::NOFOLLOW;
use crate::text::fault::Fault;

/// Lines waiting to be written.
const QUEUE: usize = 4096;
/// Bytes of lines that leave in one write when many wait.
const BATCH: usize = 64 * 1024;
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

/// Not a channel of [`QUEUE`] places: that would be a table of 136 KB, made at start and hardly ever used.
struct Writer {
    queue: Sender<Entry>,
    /// Lines that are not in the file yet.
    waiting: Arc<AtomicUsize>,
    dropped: u64,
}

impl Writer {
    /// Whether there was room for it.
    fn submit(&self, line: Vec<u8>) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        // The thread is gone when the process ends: then nobody is left to read the line.
        let _ = self.queue.send(Entry::Line(line));
        true
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let line = format!("({} lines were dropped: the log could not keep up)\n", self.dropped);
            if self.submit(line.into_bytes()) {
                self.dropped = 0;
            }
        }
        if !self.submit(bytes.to_vec()) {
            self.dropped += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of a server.
pub struct Journal(Sender<Entry>);

impl Journal {
    /// Opens `file` for appending and sends the program's log there. Once in the life of a process.
    pub fn open(file: &Path, level: LogLevel) -> Result<Journal, Fault> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(NOFOLLOW).open(file);
        let log = opened.map_err(Fault::at("opening the log", file))?;
        let (queue, lines) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = waiting.clone();
        let spawned = std::thread::Builder::new().name("log".into()).stack_size(STACK);
        spawned
            .spawn(move || write(log, &lines, &written))
            .map_err(Fault::at("starting the thread that writes", file))?;
        let writer = Writer { queue: queue.clone(), waiting, dropped: 0 };
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
        if self.0.send(Entry::Flushed(done)).is_ok() {
            // Silence means that the disk hangs: then the lines are lost.
            let _ = flushed.recv_timeout(Duration::from_secs(2));
        }
    }
}

fn write(mut log: File, lines: &Receiver<Entry>, waiting: &AtomicUsize) {
    let mut batch = Vec::new();
    while let Ok(first) = lines.recv() {
        let (mut next, mut count, mut flushed) = (Some(first), 0, None);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => {
                    batch.extend_from_slice(&line);
                    count += 1;
                }
                Entry::Flushed(done) => flushed = Some(done),
            }
            next = if batch.len() < BATCH && flushed.is_none() { lines.try_recv().ok() } else { None };
        }
        // There is nobody to tell that the log cannot be written.
        let _ = log.write_all(&batch);
        waiting.fetch_sub(count, Ordering::Relaxed);
        if let Some(done) = flushed {
            let _ = done.send(());
        }
        batch.clear();
        batch.shrink_to(BATCH / 16);
    }
}
