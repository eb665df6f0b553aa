//! Whose turn it is, seen from outside: a loop that hangs cannot say in what, so a thread looks on and does.
//!
//! The loop leaves three numbers behind at each step: plain stores, nothing to wait for. Every [`LOOK`] the thread reads
//! them; the same step twice in a row means that it lasts, and is logged once, and once more when it is over. What is read
//! while the loop goes on to another step belongs to neither, and is nothing: a loop that has rested for long and begins to
//! work in that moment does not hang.

use std::sync::atomic::{AtomicU64, Ordering, fence};
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
    /// Counted before and after the others are stored: odd while they are, and the same only as long as they are.
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

    /// The serial of the step that the loop is in, and the step as the log names it, none while the loop waits for events;
    /// nothing when it goes on to another just now.
    pub fn step(&self) -> Option<(u64, Option<String>)> {
        let serial = self.serial.load(Ordering::Acquire);
        let (whose, kind) = (self.whose.load(Ordering::Relaxed), self.kind.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let whole = serial.is_multiple_of(2) && self.serial.load(Ordering::Relaxed) == serial;
        let named = match whose {
            RESTING => None,
            NOBODY => Some(unpacked(kind)),
            id => Some(format!("{} {}", unpacked(kind), Id::unpacked(id))),
        };
        whole.then_some((serial, named))
    }

    fn store(&self, kind: u64, whose: u64) {
        // Only one thread counts, so that this needs no locked addition.
        let serial = self.serial.load(Ordering::Relaxed);
        self.serial.store(serial.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.kind.store(kind, Ordering::Relaxed);
        self.whose.store(whose, Ordering::Relaxed);
        self.serial.store(serial.wrapping_add(2), Ordering::Release);
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
        let (serial, step) = watch.step().unzip();
        let step = step.flatten().filter(|_| self.serial == serial);
        self.serial = serial;
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
    fn what_is_read_while_the_loop_goes_on_is_of_one_step_or_nothing() {
        let watch = Arc::new(Watch::default());
        let (seen, steps) = (watch.clone(), 4_000_000);
        let looking = std::thread::spawn(move || {
            let mut last = 0;
            while last < 2 * steps {
                // Every second step is a rest.
                if let Some((serial, step)) = seen.step() {
                    last = serial;
                    assert_eq!(step.is_none(), serial / 2 % 2 == 0, "{serial} {step:?}");
                }
            }
        });
        for _ in 0..steps / 2 {
            watch.enter("events", None);
            watch.rest();
        }
        looking.join().unwrap();
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
