//! The one other place where work happens: a small pool of threads for what may wait on a disk.
//!
//! A job has a kind and a volume (st_dev), and each has a bound, so that one hung mount or one long rewrite cannot take
//! all threads: of [`THREADS`], at most [`per_kind`] run one kind and [`PER_VOLUME`] wait for one volume. A job that has
//! not shown life for [`STUCK`] marks its volume stuck: new jobs for it are refused until it moves. Threads are started
//! when needed and leave after [`LINGER`] without work, so an idle server has none.
//!
//! Names of hosts are looked up here too, by [`NAMES`] threads more: they wait for name servers that may hang, and neither
//! take a thread from the disks nor keep a server from stopping. So are programs that are given mail (robots): as many
//! threads more as [`Pool::allow_robots`] says, at most [`ROBOTS`].
//!
//! A job owns what it works on and gives back a value; the loop collects values with [`Pool::collect`] after the waker
//! has ended its poll. Effects belong to the files, answers to tickets: a value nobody waits for is still collected.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::turn::Ticket;
use crate::sys::memory::release_stack;
use crate::sys::process;

/// Threads that work on files, at most.
pub const THREADS: usize = 16;
/// Threads beside them that look up names, at most.
pub const NAMES: usize = 4;
/// What lookups of names wait for, in place of a volume.
pub const NAME_SERVERS: u64 = u64::MAX;
/// Programs that may be given mail at a time, at most; each has a thread that waits for it.
pub const ROBOTS: usize = PER_VOLUME;
/// What they wait for, in place of a volume.
pub const PROGRAMS: u64 = u64::MAX - 1;
/// Jobs that may wait for one volume at a time. Fewer than may be of one kind, or a hung volume would take a whole kind of
/// work from the others.
pub const PER_VOLUME: usize = 10;
const _: () = assert!(PER_VOLUME < per_kind(Kind::Read) && PER_VOLUME < per_kind(Kind::Sync));
/// Jobs that may be queued; one more is refused.
pub const QUEUE: usize = 16 * 1024;
/// Without a sign of life for so long, a job's volume is stuck.
pub const STUCK: Duration = Duration::from_secs(10);
/// How long a thread waits for more work before it ends.
pub const LINGER: Duration = Duration::from_secs(5);
/// Enough for a scan's locals and the standard library, whose jobs do not recurse, and for what the system's resolver keeps
/// on the stack. Only what is touched is memory.
const STACK: usize = 256 * 1024;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Makes something durable: somebody waits for an answer.
    Sync,
    /// Reads or opens: somebody waits for an answer.
    Read,
    /// A long rewrite that nobody waits for.
    Bulk,
    /// Asks name servers about a host.
    Name,
    /// Gives a program a message and waits for its end.
    Robot,
}

impl Kind {
    /// Works on files: the threads for that are its own, and a server that stops waits for it.
    fn is_on_files(self) -> bool {
        !matches!(self, Kind::Name | Kind::Robot)
    }
}

/// Threads that may run this kind at a time.
pub const fn per_kind(kind: Kind) -> usize {
    match kind {
        Kind::Sync => THREADS - 2,
        Kind::Read => THREADS - 4,
        Kind::Bulk => 2,
        Kind::Name => NAMES,
        Kind::Robot => ROBOTS,
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

    /// One that nobody looks at.
    #[cfg(test)]
    pub(crate) fn unseen() -> Pulse {
        Pulse(Arc::new(AtomicU64::new(0)), Instant::now())
    }

    fn age(&self) -> Duration {
        self.1.elapsed().saturating_sub(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

type Work<R> = Box<dyn FnOnce(&Pulse) -> R + Send>;

struct Job<R> {
    ticket: Option<Ticket>,
    arrival: u64,
    work: Work<R>,
}

/// What waits for one volume with work of one kind: its bounds hold for all of it, so only its first job is ever looked at.
struct Lane<R> {
    kind: Kind,
    volume: u64,
    /// Never empty: a lane goes with its last job.
    jobs: VecDeque<Job<R>>,
}

struct Running {
    kind: Kind,
    volume: u64,
    pulse: Pulse,
    serial: u64,
}

struct State<R> {
    lanes: Vec<Lane<R>>,
    /// Jobs in all lanes.
    waiting: usize,
    running: Vec<Running>,
    done: Vec<(Option<Ticket>, R)>,
    threads: usize,
    idle: usize,
    /// One of the idle was called and has not come yet. Whoever comes calls the next one when there is work for him, so that the
    /// loop, which may submit many jobs in one turn, calls once.
    called: bool,
    serial: u64,
    /// Robots that may run at a time. From 1 to [`ROBOTS`].
    robots: usize,
    stopping: bool,
}

impl<R> State<R> {
    /// Whether a thread is to be called now, which is then done.
    fn calls(&mut self) -> bool {
        let call = self.waiting > 0 && self.idle > 0 && !self.called;
        self.called |= call;
        call
    }
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

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Busy::Full => "too many wait",
            Busy::Stuck => "its disk does not answer",
        })
    }
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

/// What the pool does for one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Which: its st_dev.
    pub volume: u64,
    /// Jobs being worked on.
    pub running: usize,
    /// Jobs waiting.
    pub waiting: usize,
    /// It does not answer: new jobs for it are refused.
    pub stuck: bool,
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
                lanes: Vec::new(),
                waiting: 0,
                running: Vec::new(),
                done: Vec::new(),
                threads: 0,
                idle: 0,
                called: false,
                serial: 0,
                robots: 1,
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
        if state.waiting >= QUEUE {
            return Err(Busy::Full);
        }
        if state.running.iter().any(|job| job.volume == volume && job.pulse.age() > STUCK) {
            return Err(Busy::Stuck);
        }
        state.serial += 1;
        let job = Job { ticket, arrival: state.serial, work: Box::new(work) };
        push(&mut state, kind, volume, job);
        if state.waiting > state.idle && state.threads < most_threads(&state) {
            state.threads += 1;
            let common = self.0.clone();
            let started = std::thread::Builder::new().name("job".into()).stack_size(STACK).spawn(move || run(&common));
            if started.is_err() {
                state.threads -= 1;
                if state.threads == 0 {
                    // Without a thread nothing else waits either.
                    state.lanes.clear();
                    state.waiting = 0;
                    return Err(Busy::Full);
                }
            }
        }
        let call = state.calls();
        drop(state);
        if call {
            self.0.work.notify_one();
        }
        Ok(())
    }

    /// From now on so many robots may run at a time; at least one, and at most [`ROBOTS`].
    pub fn allow_robots(&self, most: usize) {
        lock(&self.0).robots = most.clamp(1, ROBOTS);
    }

    /// What has been done since the last call, with who waits for it.
    pub fn collect(&self) -> Vec<(Option<Ticket>, R)> {
        std::mem::take(&mut lock(&self.0).done)
    }

    /// How it is doing.
    pub fn load(&self) -> Load {
        let state = lock(&self.0);
        let stuck = state.running.iter().filter(|job| job.pulse.age() > STUCK).count();
        Load { threads: state.threads, running: state.running.len(), waiting: state.waiting, stuck }
    }

    /// Jobs that run or wait for each volume, and whether one of them has not shown life for [`STUCK`].
    pub fn volumes(&self) -> Vec<Volume> {
        let state = lock(&self.0);
        let mut volumes: Vec<Volume> = Vec::new();
        let mut of = |volume: u64| match volumes.iter().position(|known| known.volume == volume) {
            Some(at) => at,
            None => {
                volumes.push(Volume { volume, running: 0, waiting: 0, stuck: false });
                volumes.len() - 1
            }
        };
        let running: Vec<(usize, bool)> =
            state.running.iter().map(|job| (of(job.volume), job.pulse.age() > STUCK)).collect();
        let waiting: Vec<(usize, usize)> = state.lanes.iter().map(|lane| (of(lane.volume), lane.jobs.len())).collect();
        for (at, stuck) in running {
            volumes[at].running += 1;
            volumes[at].stuck |= stuck;
        }
        for (at, jobs) in waiting {
            volumes[at].waiting += jobs;
        }
        volumes
    }

    /// Nothing is queued and nothing runs, names and robots apart: nobody needs those when a server stops, and a message
    /// that a robot had is still in the queue.
    pub fn is_idle(&self) -> bool {
        let state = lock(&self.0);
        let nobody_waits = !state.lanes.iter().any(|lane| lane.kind.is_on_files());
        nobody_waits && !state.running.iter().any(|job| job.kind.is_on_files()) && state.done.is_empty()
    }
}

impl<R> Drop for Pool<R> {
    fn drop(&mut self) {
        lock(&self.0).stopping = true;
        self.0.work.notify_all();
    }
}

/// Threads there may be now: those for names and for robots only while there are such jobs.
fn most_threads<R>(state: &State<R>) -> usize {
    let jobs = |kind: Kind| {
        let running = state.running.iter().filter(|job| job.kind == kind).count();
        running + state.lanes.iter().filter(|lane| lane.kind == kind).map(|lane| lane.jobs.len()).sum::<usize>()
    };
    THREADS + jobs(Kind::Name).min(NAMES) + jobs(Kind::Robot).min(state.robots)
}

fn push<R>(state: &mut State<R>, kind: Kind, volume: u64, job: Job<R>) {
    state.waiting += 1;
    match state.lanes.iter_mut().find(|lane| lane.kind == kind && lane.volume == volume) {
        Some(lane) => lane.jobs.push_back(job),
        None => state.lanes.push(Lane { kind, volume, jobs: VecDeque::from([job]) }),
    }
}

/// The first job that came, of those that their bounds let run; and its kind and volume.
fn next<R>(state: &mut State<R>) -> Option<(Kind, u64, Job<R>)> {
    let running = &state.running;
    let on_files = running.iter().filter(|job| job.kind.is_on_files()).count();
    let most = |kind: Kind| if kind == Kind::Robot { state.robots } else { per_kind(kind) };
    let allowed = |lane: &Lane<R>| {
        (!lane.kind.is_on_files() || on_files < THREADS)
            && running.iter().filter(|job| job.kind == lane.kind).count() < most(lane.kind)
            && running.iter().filter(|job| job.volume == lane.volume).count() < PER_VOLUME
    };
    let first = |(_, lane): &(usize, &Lane<R>)| lane.jobs.front().map(|job| job.arrival);
    let (at, _) = state.lanes.iter().enumerate().filter(|(_, lane)| allowed(lane)).min_by_key(first)?;
    let Lane { kind, volume, ref mut jobs } = state.lanes[at];
    let job = jobs.pop_front()?;
    if jobs.is_empty() {
        state.lanes.swap_remove(at);
    }
    state.waiting -= 1;
    Some((kind, volume, job))
}

fn run<R: Lost + Send + 'static>(common: &Common<R>) {
    // While the loop sends something long, and its peer takes it, the processors are busy: a job that takes 30 us is not to wait
    // for milliseconds until one is free. Where that cannot be had, it waits.
    let _ = process::brief_turns();
    let mut state = lock(common);
    loop {
        if let Some((kind, volume, job)) = next(&mut state) {
            state.serial += 1;
            let serial = state.serial;
            let pulse = Pulse(Arc::new(AtomicU64::new(0)), common.epoch);
            pulse.beat();
            state.running.push(Running { kind, volume, pulse: pulse.clone(), serial });
            let call = state.calls();
            drop(state);
            if call {
                common.work.notify_one();
            }
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
            if state.calls() {
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
        // Who was called, or one who came in his place.
        state.called = false;
        if timeout.timed_out() && state.waiting == 0 {
            break;
        }
    }
    state.threads -= 1;
    drop(state);
    release_stack();
}

fn wake<R>(common: &Common<R>) {
    let woken: io::Result<()> = common.waker.wake();
    if let Err(error) = woken {
        log::error!("waking the loop: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    impl Lost for u32 {
        fn lost() -> u32 {
            u32::MAX
        }
    }

    fn pool() -> (mio::Poll, Pool<u32>) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Pool::new(waker))
    }

    /// Waits for this many values.
    fn collect(poll: &mut mio::Poll, pool: &Pool<u32>, count: usize) -> Vec<u32> {
        let mut events = mio::Events::with_capacity(4);
        let mut values = Vec::new();
        while values.len() < count {
            values.extend(pool.collect().into_iter().map(|(_, value)| value));
            if values.len() < count {
                poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            }
        }
        values
    }

    /// A job that runs until its gate is opened.
    fn gated(pool: &Pool<u32>, kind: Kind, volume: u64, begun: &Sender<u32>, value: u32) -> Sender<()> {
        let (open, gate) = channel();
        let begun = begun.clone();
        let work = move |_: &Pulse| {
            begun.send(value).unwrap();
            // An opener that is gone has opened it.
            let _ = gate.recv();
            value
        };
        pool.submit(None, kind, volume, work).unwrap();
        open
    }

    #[test]
    fn values_come_back_and_a_panic_comes_back_as_a_loss() {
        let (mut poll, pool) = pool();
        for value in 0..100 {
            let work = move |_: &Pulse| {
                assert_ne!(value, 50, "this panic is meant");
                value
            };
            pool.submit(None, Kind::Read, 1, work).unwrap();
        }
        let mut values = collect(&mut poll, &pool, 100);
        values.sort_unstable();
        let expected: Vec<u32> = (0..100).filter(|&value| value != 50).chain([u32::MAX]).collect();
        assert_eq!(values, expected);
        assert!(pool.load().threads <= THREADS);
    }

    #[test]
    fn a_hung_volume_leaves_threads_for_the_others() {
        let (mut poll, pool) = pool();
        let (begun, seen) = channel();
        let mut gates: Vec<_> = (0..40).map(|value| gated(&pool, Kind::Read, 7, &begun, value)).collect();
        for _ in 0..PER_VOLUME.min(per_kind(Kind::Read)) {
            seen.recv().unwrap();
        }
        let load = pool.load();
        assert_eq!((load.running, load.waiting), (PER_VOLUME, 40 - PER_VOLUME));
        pool.submit(None, Kind::Sync, 8, |_| 1000).unwrap();
        assert_eq!(collect(&mut poll, &pool, 1), [1000], "another volume is served");
        gates.clear();
        assert_eq!(collect(&mut poll, &pool, 40).len(), 40);
    }

    #[test]
    fn a_hung_volume_leaves_every_kind_of_work_to_the_others_however_much_waits_for_it() {
        for kind in [Kind::Read, Kind::Sync] {
            let (mut poll, pool) = pool();
            let (begun, seen) = channel();
            let gates: Vec<_> = (0..1000).map(|value| gated(&pool, kind, 7, &begun, value)).collect();
            for _ in 0..PER_VOLUME {
                seen.recv().unwrap();
            }
            pool.submit(None, kind, 8, |_| 5000).unwrap();
            assert_eq!(collect(&mut poll, &pool, 1), [5000], "{kind:?} on another volume");
            drop(gates);
            collect(&mut poll, &pool, 1000);
        }
    }

    #[test]
    fn bulk_never_takes_the_threads_of_those_who_wait() {
        let (mut poll, pool) = pool();
        let (begun, seen) = channel();
        let gates: Vec<_> = (0..10).map(|value| gated(&pool, Kind::Bulk, u64::from(value), &begun, value)).collect();
        for _ in 0..per_kind(Kind::Bulk) {
            seen.recv().unwrap();
        }
        assert_eq!(pool.load().running, per_kind(Kind::Bulk));
        pool.submit(None, Kind::Sync, 3, |_| 1000).unwrap();
        assert_eq!(collect(&mut poll, &pool, 1), [1000]);
        drop(gates);
        collect(&mut poll, &pool, 10);
        assert!(pool.is_idle());
    }

    #[test]
    fn a_job_without_a_sign_of_life_marks_its_volume_stuck_and_a_beat_unmarks_it() {
        let pulse = Pulse(Arc::new(AtomicU64::new(0)), Instant::now() - STUCK * 2);
        assert!(pulse.age() > STUCK);
        pulse.beat();
        assert!(pulse.age() < STUCK);

        let (_poll, pool) = pool();
        let old = Pulse(Arc::new(AtomicU64::new(0)), Instant::now() - STUCK * 2);
        let stuck = Running { kind: Kind::Read, volume: 7, pulse: old.clone(), serial: 0 };
        lock(&pool.0).running.push(stuck);
        assert_eq!(pool.submit(None, Kind::Read, 7, |_| 1), Err(Busy::Stuck));
        assert_eq!(pool.submit(None, Kind::Read, 8, |_| 1), Ok(()), "only there");
        assert_eq!(pool.load().stuck, 1);
        let of = |volume| pool.volumes().into_iter().find(|known| known.volume == volume);
        assert_eq!(of(7), Some(Volume { volume: 7, running: 1, waiting: 0, stuck: true }));
        assert!(of(8).is_none_or(|volume| !volume.stuck));
        old.beat();
        assert_eq!(pool.submit(None, Kind::Read, 7, |_| 1), Ok(()));
    }

    #[test]
    fn name_servers_that_hang_take_no_thread_from_the_disks_and_stop_no_server() {
        let (mut poll, pool) = pool();
        let (begun, seen) = channel();
        let names: Vec<_> = (0..10).map(|value| gated(&pool, Kind::Name, NAME_SERVERS, &begun, value)).collect();
        for _ in 0..NAMES {
            seen.recv().unwrap();
        }
        assert!(pool.is_idle(), "nobody waits for names");
        // All threads that files may have, of several kinds and volumes.
        let reads = per_kind(Kind::Read) as u32;
        let mut files: Vec<_> =
            (0..reads).map(|value| gated(&pool, Kind::Read, u64::from(value), &begun, 100)).collect();
        files.extend((0..THREADS as u32 - reads).map(|n| gated(&pool, Kind::Sync, 50 + u64::from(n), &begun, 200)));
        for _ in 0..THREADS {
            seen.recv().unwrap();
        }
        let load = pool.load();
        assert_eq!((load.running, load.threads), (THREADS + NAMES, THREADS + NAMES));
        assert!(!pool.is_idle());
        drop(files);
        assert_eq!(collect(&mut poll, &pool, THREADS).len(), THREADS);
        drop(names);
        collect(&mut poll, &pool, 10);
    }

    #[test]
    fn robots_run_so_many_at_a_time_beside_the_disks_and_stop_no_server() {
        let (mut poll, pool) = pool();
        let (begun, seen) = channel();
        pool.allow_robots(3);
        let robots: Vec<_> = (0..8).map(|value| gated(&pool, Kind::Robot, PROGRAMS, &begun, value)).collect();
        for _ in 0..3 {
            seen.recv().unwrap();
        }
        let load = pool.load();
        assert_eq!((load.running, load.waiting), (3, 5));
        assert!(pool.is_idle(), "nobody waits for robots");
        let reads = per_kind(Kind::Read) as u32;
        let files: Vec<_> = (0..reads).map(|value| gated(&pool, Kind::Read, value.into(), &begun, 100)).collect();
        for _ in 0..reads {
            seen.recv().unwrap();
        }
        assert!(!pool.is_idle());
        drop(files);
        assert_eq!(collect(&mut poll, &pool, reads as usize).len(), reads as usize);
        drop(robots);
        assert_eq!(collect(&mut poll, &pool, 8).len(), 8);
        pool.allow_robots(0);
        pool.submit(None, Kind::Robot, PROGRAMS, |_| 9).unwrap();
        assert_eq!(collect(&mut poll, &pool, 1), [9], "one may always run");
    }

    #[test]
    fn a_full_queue_refuses() {
        let (_poll, pool) = pool();
        let (begun, _seen) = channel();
        let _gates: Vec<_> = (0..THREADS as u32).map(|value| gated(&pool, Kind::Bulk, 1, &begun, value)).collect();
        let mut refused = 0;
        for _ in 0..QUEUE + 10 {
            refused += usize::from(pool.submit(None, Kind::Bulk, 1, |_| 0) == Err(Busy::Full));
        }
        assert!(refused >= 10, "{refused}");
    }
}
