//! Whose turn it is, seen from outside: a loop that hangs cannot say in what, so a thread looks on and does.
//!
//! The loop leaves three numbers behind at each step: relaxed stores, nothing to wait for. Every [`LOOK`] the thread reads
//! them; the same step twice in a row means that it lasts, and is logged once, and once more when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::turn::Id;

/// How often the thread looks; a step that lasts longer is noticed within twice as long.
pub const LOOK: Duration = Duration::from_secs(5);
/// Enough to format a line for the log.
const STACK: usize = 64 * 1024;
/// The loop waits for events.
const RESTING: u64 = u64::MAX;
/// A step that is not an entry's.
const NOBODY: u64 = u64::MAX - 1;

/// What the loop is doing. Written by the loop, read by whoever looks.
#[derive(Debug)]
pub struct Watch {
    /// Steps so far; the last to be stored, so that one serial means one step.
    serial: AtomicU64,
    /// Whose step, packed; or [`RESTING`] or [`NOBODY`].
    whose: AtomicU64,
    /// The first eight bytes of what it is called.
    kind: AtomicU64,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { serial: AtomicU64::new(0), whose: AtomicU64::new(RESTING), kind: AtomicU64::new(0) }
    }
}

impl Watch {
    /// A step begins: an entry's turn, or a part of the loop's own work. One thread calls this.
    pub fn enter(&self, kind: &'static str, id: Option<Id>) {
        self.store(packed(kind), id.map_or(NOBODY, Id::packed));
    }

    /// The loop begins to wait for events.
    pub fn rest(&self) {
        self.store(0, RESTING);
    }

    /// The step that the loop is in, as the log names it; none while it waits for events.
    pub fn step(&self) -> Option<String> {
        let (whose, kind) = (self.whose.load(Ordering::Relaxed), self.kind.load(Ordering::Relaxed));
        match whose {
            RESTING => None,
            NOBODY => Some(unpacked(kind)),
            id => Some(format!("{} {}", unpacked(kind), Id::unpacked(id))),
        }
    }

    fn store(&self, kind: u64, whose: u64) {
        self.kind.store(kind, Ordering::Relaxed);
        self.whose.store(whose, Ordering::Relaxed);
        // Only one thread counts, so that this needs no locked addition.
        self.serial.store(self.serial.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

/// The first eight bytes of a name, in one number.
fn packed(kind: &str) -> u64 {
    let mut bytes = [0; 8];
    let length = kind.len().min(8);
    bytes[..length].copy_from_slice(&kind.as_bytes()[..length]);
    u64::from_le_bytes(bytes)
}

fn unpacked(kind: u64) -> String {
    let bytes = kind.to_le_bytes();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// What somebody who looks now and then has seen.
#[derive(Debug, Default)]
struct Seen {
    serial: Option<u64>,
    /// The step that lasts, as it was named, and since when that is known.
    lasting: Option<(String, Instant)>,
}

impl Seen {
    /// Looks once; what there is to be said about it.
    fn look(&mut self, watch: &Watch, now: Instant) -> Option<String> {
        let serial = watch.serial.load(Ordering::Acquire);
        let step = watch.step().filter(|_| self.serial == Some(serial));
        self.serial = Some(serial);
        match (step, &self.lasting) {
            (Some(what), None) => {
                let said =
                    format!("the loop has been in {what} for {} s: nobody else is served meanwhile", LOOK.as_secs());
                self.lasting = Some((what, now));
                Some(said)
            }
            (None, Some((what, since))) => {
                let secs = (now.saturating_duration_since(*since) + LOOK).as_secs();
                let said = format!("the loop is out of {what} again, after about {secs} s");
                self.lasting = None;
                Some(said)
            }
            _ => None,
        }
    }
}

/// The thread that looks. It ends when this is dropped.
pub struct Watchdog {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Begins to look. Refuses when there is no thread to be had.
    pub fn start(watch: Arc<Watch>) -> std::io::Result<Watchdog> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let look = move || {
            let mut seen = Seen::default();
            let (stop, bell) = &*stopped;
            let mut over = stop.lock().expect("nobody panics while holding a flag");
            while !*over {
                let waited = bell.wait_timeout(over, LOOK).expect("nobody panics while holding a flag");
                over = waited.0;
                // Woken for no reason it would look too soon.
                if waited.1.timed_out()
                    && let Some(said) = seen.look(&watch, Instant::now())
                {
                    log::error!("{said}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).stack_size(STACK).spawn(look)?;
        Ok(Watchdog { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.0.lock().expect("nobody panics while holding a flag") = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only fails when the thread panicked, and then there is nobody left to look.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_lasts_is_named_once_and_its_end_too() {
        let (watch, mut seen, now) = (Watch::default(), Seen::default(), Instant::now());
        let id = Id::unpacked(0x7f << 32 | 2);
        assert_eq!(seen.look(&watch, now), None, "at rest");
        assert_eq!(seen.look(&watch, now), None, "still at rest");
        watch.enter("pop3", Some(id));
        assert_eq!(seen.look(&watch, now), None, "it has only begun");
        watch.enter("pop3", Some(id));
        assert_eq!(seen.look(&watch, now), None, "another one");
        let said = seen.look(&watch, now).unwrap();
        assert!(said.contains(&format!("in pop3 {id} for 5 s")), "{said}");
        assert_eq!(seen.look(&watch, now), None, "said once");
        watch.rest();
        let said = seen.look(&watch, now + LOOK).unwrap();
        assert!(said.contains("10 s"), "{said}");
        assert_eq!(seen.look(&watch, now), None);
    }

    #[test]
    fn the_loops_own_work_has_a_name_too_and_long_names_are_cut() {
        let (watch, mut seen, now) = (Watch::default(), Seen::default(), Instant::now());
        watch.enter("authenticators", None);
        assert_eq!(seen.look(&watch, now), None);
        let said = seen.look(&watch, now).unwrap();
        assert!(said.contains("in authenti for"), "{said}");
    }

    #[test]
    fn the_thread_ends_when_it_is_dropped() {
        drop(Watchdog::start(Arc::new(Watch::default())).unwrap());
    }
}
