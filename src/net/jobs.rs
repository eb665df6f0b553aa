//! The one other place where work happens: a small pool of threads for what may wait on a disk.
//!
//! A job has a kind and a volume (st_dev), and each has a bound, so that one hung mount or one long rewrite cannot take
//! all threads: of [`THREADS`], at most [`per_kind`] run one kind and [`PER_VOLUME`] wait for one volume. A job that has
//! not shown life for [`STUCK`] marks its volume stuck: new jobs for it are refused until it moves. Threads are started
//! when needed and leave after [`LINGER`] without work, so an idle server has none.
//!
//! A job owns what it works on and gives back a value; the loop collects values with [`Pool::collect`] after the waker
//! has ended its poll. Effects belong to the files, answers to tickets: a value nobody waits for is still collected.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::turn::Ticket;

/// Threads at most.
pub const THREADS: usize = 16;
/// Jobs that may wait for one volume at a time.
pub const PER_VOLUME: usize = 12;
/// Jobs that may be queued; one more is refused.
pub const QUEUE: usize = 16 * 1024;
/// Without a sign of life for so long, a job's volume is stuck.
pub const STUCK: Duration = Duration::from_secs(10);
/// How long a thread waits for more work before it ends.
pub const LINGER: Duration = Duration::from_secs(5);
/// Enough for a scan's locals and the standard library; our jobs do not recurse.
const STACK: usize = 128 * 1024;

/// What a job does with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Makes something durable: somebody waits for an answer.
    Sync,
    /// Reads or opens: somebody waits for an answer.
    Read,
    /// A long rewrite that nobody waits for.
    Bulk,
}

/// Threads that may run this kind at a time.
pub fn per_kind(kind: Kind) -> usize {
    match kind {
        Kind::Sync => THREADS - 2,
        Kind::Read => THREADS - 4,
        Kind::Bulk => 2,
    }
}

/// A job's sign of life.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<AtomicU64>, Instant);

impl Pulse {
    /// Still moving. Called every few megabytes by what runs long.
    pub fn beat(&self) {
        self.0.store(self.1.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.1.elapsed().saturating_sub(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

type Work<R> = Box<dyn FnOnce(&Pulse) -> R + Send>;

struct Job<R> {
    ticket: Option<Ticket>,
    kind: Kind,
    volume: u64,
    work: Work<R>,
}

struct Running {
    kind: Kind,
    volume: u64,
    pulse: Pulse,
    serial: u64,
}

struct State<R> {
    queue: VecDeque<Job<R>>,
    running: Vec<Running>,
    done: Vec<(Option<Ticket>, R)>,
    threads: usize,
    idle: usize,
    serial: u64,
    stopping: bool,
}

struct Common<R> {
    state: Mutex<State<R>>,
    work: Condvar,
    waker: mio::Waker,
    epoch: Instant,
}

/// The pool. `R` is what jobs give back.
pub struct Pool<R>(Arc<Common<R>>);

/// A value for a job that panicked.
pub trait Lost {
    /// "We failed, and nothing was promised."
    fn lost() -> Self;
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Too many are waiting.
    Full,
    /// Its volume does not answer.
    Stuck,
}

/// How the pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Threads that exist.
    pub threads: usize,
    /// Jobs being worked on.
    pub running: usize,
    /// Jobs waiting.
    pub waiting: usize,
    /// Jobs that have not shown life for [`STUCK`].
    pub stuck: usize,
}

fn lock<R>(common: &Common<R>) -> MutexGuard<'_, State<R>> {
    // A job's panic is caught before it could poison anything; nothing else here panics.
    common.state.lock().expect("no panic while the pool's state is held")
}

impl<R: Lost + Send + 'static> Pool<R> {
    /// A pool without threads that ends the loop's poll through `waker`.
    pub fn new(waker: mio::Waker) -> Pool<R> {
        Pool(Arc::new(Common {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                running: Vec::new(),
                done: Vec::new(),
                threads: 0,
                idle: 0,
                serial: 0,
                stopping: false,
            }),
            work: Condvar::new(),
            waker,
            epoch: Instant::now(),
        }))
    }

    /// Takes a job. What it returns comes out of [`collect`](Pool::collect); should it panic, what
    /// [`Lost::lost`] says does, and unwinding has given back its locks.
    pub fn submit(
        &self,
        ticket: Option<Ticket>,
        kind: Kind,
        volume: u64,
        work: impl FnOnce(&Pulse) -> R + Send + 'static,
    ) -> Result<(), Busy> {
        let mut state = lock(&self.0);
        if state.queue.len() >= QUEUE {
            return Err(Busy::Full);
        }
        if state.running.iter().any(|job| job.volume == volume && job.pulse.age() > STUCK) {
            return Err(Busy::Stuck);
        }
        state.queue.push_back(Job { ticket, kind, volume, work: Box::new(work) });
        if state.queue.len() > state.idle && state.threads < THREADS {
            state.threads += 1;
            let common = self.0.clone();
            let started = std::thread::Builder::new().name("job".into()).stack_size(STACK).spawn(move || run(&common));
            if started.is_err() {
                state.threads -= 1;
                if state.threads == 0 {
                    state.queue.pop_back();
                    return Err(Busy::Full);
                }
            }
        }
        let asleep = state.idle > 0;
        drop(state);
        if asleep {
            self.0.work.notify_one();
        }
        Ok(())
    }

    /// What has been done since the last call, with who waits for it.
    pub fn collect(&self) -> Vec<(Option<Ticket>, R)> {
        std::mem::take(&mut lock(&self.0).done)
    }

    /// How it is doing.
    pub fn load(&self) -> Load {
        let state = lock(&self.0);
        let stuck = state.running.iter().filter(|job| job.pulse.age() > STUCK).count();
        Load { threads: state.threads, running: state.running.len(), waiting: state.queue.len(), stuck }
    }

    /// Nothing is queued and nothing runs.
    pub fn is_idle(&self) -> bool {
        let state = lock(&self.0);
        state.queue.is_empty() && state.running.is_empty() && state.done.is_empty()
    }
}

impl<R> Drop for Pool<R> {
    fn drop(&mut self) {
        lock(&self.0).stopping = true;
        self.0.work.notify_all();
    }
}

/// The first job that its bounds let run.
fn next<R>(state: &mut State<R>) -> Option<Job<R>> {
    let running = &state.running;
    let allowed = |job: &Job<R>| {
        running.iter().filter(|other| other.kind == job.kind).count() < per_kind(job.kind)
            && running.iter().filter(|other| other.volume == job.volume).count() < PER_VOLUME
    };
    let at = state.queue.iter().take(256).position(allowed)?;
    state.queue.remove(at)
}

fn run<R: Lost + Send + 'static>(common: &Common<R>) {
    let mut state = lock(common);
    loop {
        if let Some(job) = next(&mut state) {
            state.serial += 1;
            let serial = state.serial;
            let pulse = Pulse(Arc::new(AtomicU64::new(0)), common.epoch);
            pulse.beat();
            state.running.push(Running { kind: job.kind, volume: job.volume, pulse: pulse.clone(), serial });
            drop(state);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.work)(&pulse)));
            state = lock(common);
            state.running.retain(|job| job.serial != serial);
            if done.is_err() {
                log::error!("a fault of ours ended a job; please report it");
            }
            // What was not collected yet has ended the loop's poll already, or is about to.
            if state.done.is_empty() {
                wake(common);
            }
            state.done.push((job.ticket, done.unwrap_or_else(|_| R::lost())));
            // A bound may have become free for a job that another thread passed over.
            if state.idle > 0 && !state.queue.is_empty() {
                common.work.notify_one();
            }
            continue;
        }
        if state.stopping {
            break;
        }
        state.idle += 1;
        let (guard, timeout) = common.work.wait_timeout(state, LINGER).expect("no panic while the state is held");
        state = guard;
        state.idle -= 1;
        if timeout.timed_out() && state.queue.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

fn wake<R>(common: &Common<R>) {
    let woken: io::Result<()> = common.waker.wake();
    if let Err(error) = woken {
        log::error!("waking the loop: {error}");
    }
}
