//! The engine: one thread, one loop of `dmail::net`, and as many clients as there are descriptors.
//!
//! | pace   | when the next task begins                     | its latency counts from | when none can begin         |
//! |--------|-----------------------------------------------|-------------------------|-----------------------------|
//! | Closed | when this client's last one is over           | its connect             | never: there is always room |
//! | Open   | when it was planned, whatever the server does | its planned time        | error `not started`         |
//!
//! | time     | what happens                                                                        |
//! |----------|-------------------------------------------------------------------------------------|
//! | ramp     | clients, or arrivals a second, grow from none to all; nothing is counted but errors |
//! | warm-up  | all of them work; nothing is counted but errors                                     |
//! | duration | what begins now is counted                                                          |
//! | the end  | nothing begins; what is under way has its [`Run::patience`], and is counted         |
//!
//! At the very end who is slow on purpose is cut off, after [`SLOW_PATIENCE`] already where nobody else is left; whoever else is
//! not done is an error, `unfinished`: a server that stalls does not improve its figures by it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dmail::net::signal::{Signal, Signals};
use dmail::net::stream::{Readiness, Scratch, Stream, Turn};
use dmail::net::tls::{self, Secure, Trust};
use dmail::net::turn::{Entry, Id, Loop};
use dmail::net::{Registry, Token, watch};
use dmail::protocol::{pop3, smtp};
use rand::SeedableRng;
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64;

use crate::meter::Meter;
use crate::session::pop::{Pop, Visits};
use crate::session::smtp::Smtp;
use crate::session::wire::Wire;
use crate::session::{self, Cut, Life, Session};
use crate::work::{self, Outcome, Port, Task, Work};

/// A client of a closed loop whose task failed begins the next one so much later: nobody is served by a million refusals.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Connections from one source address: the kernel's usual range of ports has 28,000.
const PER_SOURCE: usize = 20_000;
/// Connects in one turn of the loop: more would make those who are connected wait.
const BEGUN_AT_ONCE: usize = 256;
/// When only those are left who are slow on purpose, they have so long after the end.
const SLOW_PATIENCE: Duration = Duration::from_secs(10);
/// Octets that one long reply may have.
const LONGEST_REPLY: u64 = 8 << 30;

/// The server's doors. A task for a door that has no address is an error of its kind.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub pop: Option<SocketAddr>,
    /// POP3 with TLS from the first octet.
    pub pops: Option<SocketAddr>,
    pub smtp: Option<SocketAddr>,
    pub submission: Option<SocketAddr>,
    /// Submission with TLS from the first octet.
    pub smtps: Option<SocketAddr>,
    pub lmtp: Option<SocketAddr>,
    /// The name TLS asks for. Certificates are not judged: this is a load test.
    pub name: String,
}

impl Target {
    /// The door for this task, or what it is called.
    pub fn door(&self, task: &Task) -> Result<SocketAddr, &'static str> {
        let (door, name) = match (task, task.line().tls) {
            (Task::Pop(_), work::Tls::Tls) => (self.pops, "--pops"),
            (Task::Pop(_), _) => (self.pop, "--pop"),
            (Task::Smtp(task), work::Tls::Tls) if task.port == Port::Submission => (self.smtps, "--smtps"),
            (Task::Smtp(task), _) if task.port == Port::Submission => (self.submission, "--submission"),
            (Task::Smtp(task), _) if task.port == Port::Lmtp => (self.lmtp, "--lmtp"),
            (Task::Smtp(_), _) => (self.smtp, "--smtp"),
        };
        door.ok_or(name)
    }
}

/// When tasks begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many clients, each of which begins its next task when the last one is over.
    Closed { clients: usize },
    /// So many arrivals a second whatever the server does, of which at most so many are under way.
    Open { per_sec: f64, most: usize, spacing: Spacing },
}

impl Pace {
    /// The most connections at a time.
    pub fn most(&self) -> usize {
        match *self {
            Pace::Closed { clients } => clients,
            Pace::Open { most, .. } => most,
        }
    }
}

/// How arrivals of an open loop follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spacing {
    /// At random, independent of each other.
    #[default]
    Poisson,
    Even,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    pub target: Target,
    pub pace: Pace,
    /// Over how long clients or arrivals grow from none to all.
    pub ramp: Duration,
    /// After the ramp: not counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub duration: Duration,
    /// A client's patience with one reply, and everybody's after the end.
    pub patience: Duration,
    /// Announced sizes are not held against a server: some of them count bytes of the file.
    pub loose_sizes: bool,
    /// A message without a stamp is an error.
    pub only_ours: bool,
    /// The accounts are those of a made spool, by number: a letter in somebody else's drop is an error.
    pub own_spools: bool,
    /// Loopback addresses to come from; 0: as many as the number of connections needs.
    pub sources: usize,
    pub seed: u64,
}

impl Default for Run {
    /// One client for half a minute, and no server yet.
    fn default() -> Run {
        Run {
            target: Target::default(),
            pace: Pace::Closed { clients: 1 },
            ramp: Duration::ZERO,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            loose_sizes: false,
            only_ours: false,
            own_spools: false,
            sources: 0,
            seed: 1,
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over, or its work was done.
    Planned,
    /// SIGINT or SIGTERM.
    Stopped,
}

/// What all clients of a run share.
pub struct Shared<'w> {
    pub work: &'w mut dyn Work,
    pub meter: &'w mut Meter,
    pub visits: Visits,
    pub loose_sizes: bool,
    pub only_ours: bool,
    pub own_spools: bool,
    /// Nothing begins any more, and nobody pauses.
    pub over: bool,
    stopped: bool,
    /// Clients that stand still until the work has settled.
    held: Vec<Id>,
}

/// Does it. `tick` is called once a second with the time since the run began. Ctrl-C ends it early, with what was measured
/// so far.
pub fn run(
    run: &Run,
    work: &mut dyn Work,
    meter: &mut Meter,
    tick: &mut dyn FnMut(&Meter, Duration),
) -> io::Result<Ended> {
    let signals = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    let signals = signals.map_or_else(Signals::catch, Ok)?;
    let mut engine = Engine::new(run)?;
    let shared = Shared {
        work,
        meter,
        visits: Visits::default(),
        loose_sizes: run.loose_sizes,
        only_ours: run.only_ours,
        own_spools: run.own_spools,
        over: false,
        stopped: false,
        held: Vec::new(),
    };
    let (ended, signals) = engine.run(shared, signals, tick)?;
    *SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = signals;
    Ok(ended)
}

/// Kept from run to run: they are caught once in a process.
static SIGNALS: Mutex<Option<Signals>> = Mutex::new(None);

/// One thing in the loop.
enum Client<'w> {
    Pop(Box<Session<Pop>>),
    Smtp(Box<Session<Smtp>>),
    Signals(Box<Signals>, std::marker::PhantomData<&'w ()>),
}

/// Does the same with either session; signals have the last word.
macro_rules! either {
    ($client:expr, $session:ident => $does:expr, $signals:pat => $else:expr) => {
        match $client {
            Client::Pop($session) => $does,
            Client::Smtp($session) => $does,
            Client::Signals($signals, _) => $else,
        }
    };
}

impl<'w> Entry for Client<'w> {
    type Shared = Shared<'w>;

    fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
        either!(self, session => watch(registry, session.wire().tcp(), token(0)),
                signals => signals.register(registry, token(0)))
    }

    fn deregister(&mut self, registry: &Registry) {
        // An error means that it is gone already.
        either!(self, session => drop(registry.deregister(session.wire().tcp())), signals => signals.deregister(registry));
    }

    fn mark(&mut self, _lane: usize, ready: Readiness) {
        either!(self, session => session.mark(ready), _ => {});
    }

    fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared<'w>, scratch: &mut Scratch) -> Turn {
        either!(self, session => {
            let turn = session.turn(now, shared, scratch);
            if session.is_held() {
                shared.held.push(id);
            }
            turn
        }, signals => {
            shared.stopped |= signals.take().contains(&Signal::Stop);
            Turn::Idle
        })
    }

    fn deadline(&self) -> Option<Instant> {
        either!(self, session => session.deadline(), _ => None)
    }

    fn expire(&mut self, now: Instant) {
        either!(self, session => session.expire(now), _ => {});
    }

    fn kind(&self) -> &'static str {
        match self {
            Client::Pop(_) => "pop",
            Client::Smtp(_) => "smtp",
            Client::Signals(..) => "signals",
        }
    }
}

/// A run that runs.
struct Engine<'r, 'w> {
    run: &'r Run,
    turns: Loop<Client<'w>>,
    began: Instant,
    /// Clients of a closed loop that are free, and from when on.
    free: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When the next arrival of an open loop is planned.
    arrival: Instant,
    random: Pcg64,
    in_flight: usize,
    /// Connections begun: whose turn it is among the source addresses.
    connects: usize,
    sources: usize,
    rules: Rules,
}

/// What clients of the protocols share.
struct Rules {
    pop: Arc<pop3::client::Rules>,
    smtp: Arc<smtp::client::Rules>,
    smtp_starttls: Arc<smtp::client::Rules>,
    lmtp: Arc<smtp::client::Rules>,
    secure: Secure,
}

impl Rules {
    fn new(run: &Run) -> io::Result<Rules> {
        let patience = run.patience;
        let pop = pop3::client::Rules {
            greeting: patience,
            reply: patience,
            login: patience,
            text: patience,
            quit: patience,
            most: LONGEST_REPLY,
        };
        let smtp = |tls, face| {
            Arc::new(smtp::client::Rules {
                name: "loadtest.example".into(),
                face,
                tls,
                plain_ok: true,
                patience: smtp::client::Patience {
                    greeting: patience,
                    command: patience,
                    mail: patience,
                    rcpt: patience,
                    data: patience,
                    block: patience,
                    dot: patience,
                    quit: patience,
                    ..smtp::client::Patience::default()
                },
            })
        };
        let name = if run.target.name.is_empty() { "localhost" } else { &run.target.name };
        let secure = tls::client(Trust::Anybody).and_then(|config| Secure::to(config, name));
        Ok(Rules {
            pop: Arc::new(pop),
            smtp: smtp(smtp::client::Tls::Never, smtp::client::Face::Smtp),
            smtp_starttls: smtp(smtp::client::Tls::Required, smtp::client::Face::Smtp),
            lmtp: smtp(smtp::client::Tls::Never, smtp::client::Face::Lmtp),
            secure: secure.map_err(io::Error::other)?,
        })
    }
}

impl<'r, 'w> Engine<'r, 'w> {
    fn new(run: &'r Run) -> io::Result<Self> {
        let turns = Loop::new()?;
        let began = turns.now();
        let mut engine = Engine {
            run,
            turns,
            began,
            free: BinaryHeap::new(),
            arrival: began,
            random: Pcg64::seed_from_u64(run.seed),
            in_flight: 0,
            connects: 0,
            sources: if run.sources > 0 { run.sources } else { run.pace.most().div_ceil(PER_SOURCE) },
            rules: Rules::new(run)?,
        };
        match run.pace {
            Pace::Closed { clients } => {
                let begins = |client: usize| began + run.ramp.mul_f64(client as f64 / clients.max(1) as f64);
                engine.free.extend((0..clients).map(|client| Reverse((begins(client), client))));
            }
            Pace::Open { .. } => engine.plan_arrival(),
        }
        Ok(engine)
    }

    fn run(
        &mut self,
        mut shared: Shared<'w>,
        signals: Signals,
        tick: &mut dyn FnMut(&Meter, Duration),
    ) -> io::Result<(Ended, Option<Signals>)> {
        let listening = self.turns.insert(Client::Signals(Box::new(signals), std::marker::PhantomData))?;
        let counts_from = self.began + self.run.ramp + self.run.warm_up;
        let end = counts_from + self.run.duration;
        let mut next_tick = self.began + Duration::from_secs(1);
        let (mut over, mut given_up) = (None, None);
        loop {
            let mut until = next_tick;
            if over.is_none() {
                until = until.min(end).min(self.next_begin().unwrap_or(until));
                if shared.meter.began().is_none() {
                    until = until.min(counts_from);
                }
            }
            let now = self.turns.poll(Some(until))?;
            if shared.meter.began().is_none() && now >= counts_from {
                shared.meter.start(now);
            }
            self.turns.run(&mut shared);
            self.bury(now, &mut shared, Cut::No);
            shared.work.settle();
            for id in std::mem::take(&mut shared.held) {
                if let Some(client) = self.turns.get_mut(id) {
                    either!(client, session => session.release(), _ => {});
                    self.turns.wake(id);
                }
            }
            if over.is_none() {
                self.begin(now.min(end), &mut shared);
                // However late we are: whatever was planned is begun, or counted.
                while now >= end && self.is_open() && self.next_begin().is_some_and(|at| at <= end) {
                    self.begin(end, &mut shared);
                }
                let worked_out = self.in_flight == 0 && self.next_begin().is_none();
                if now >= end || shared.stopped || worked_out {
                    over = Some(now);
                    shared.over = true;
                    given_up = Some(now + if shared.stopped { Duration::ZERO } else { self.run.patience });
                    self.hurry(now);
                }
            }
            shared.meter.in_flight = self.in_flight;
            shared.meter.most_in_flight = shared.meter.most_in_flight.max(self.in_flight);
            shared.meter.tick(now);
            if now >= next_tick {
                tick(shared.meter, now - self.began);
                next_tick = now + Duration::from_secs(1);
                if let Some(at) = over
                    && now >= at + SLOW_PATIENCE
                    && self.only_slow_are_left()
                {
                    given_up = Some(now);
                }
            }
            if over.is_some() && (self.in_flight == 0 || given_up.is_some_and(|at| now >= at) || shared.stopped) {
                self.give_up(now, &mut shared);
                break;
            }
        }
        let now = self.turns.now();
        shared.meter.finish(over.unwrap_or(now).max(counts_from));
        self.turns.close(listening);
        let mut signals = None;
        while let Some((_, client)) = self.turns.sweep() {
            if let Client::Signals(kept, _) = client {
                signals = Some(*kept);
            }
        }
        Ok((if shared.stopped { Ended::Stopped } else { Ended::Planned }, signals))
    }

    fn is_open(&self) -> bool {
        matches!(self.run.pace, Pace::Open { .. })
    }

    /// When the next task wants to begin.
    fn next_begin(&self) -> Option<Instant> {
        match self.run.pace {
            Pace::Closed { .. } => self.free.peek().map(|Reverse((at, _))| *at),
            Pace::Open { .. } => Some(self.arrival),
        }
    }

    /// Begins what is due.
    fn begin(&mut self, now: Instant, shared: &mut Shared<'w>) {
        for _ in 0..BEGUN_AT_ONCE {
            if self.next_begin().is_none_or(|at| at > now) {
                return;
            }
            match self.run.pace {
                Pace::Closed { .. } => {
                    let Some(Reverse((_, client))) = self.free.pop() else { return };
                    let Some(task) = shared.work.next(client, now) else { continue };
                    self.connect(task, client, now, now, shared);
                }
                Pace::Open { most, .. } => {
                    let planned = self.arrival;
                    self.plan_arrival();
                    let text = || format!("{most} are under way already: raise --most, or this is what it cannot do");
                    match shared.work.next(0, now) {
                        Some(task) if self.in_flight >= most => {
                            self.not_begun(task, "not started", text(), 0, now, shared);
                        }
                        Some(task) => {
                            // What is ours of the latency: the loop was busy, or slept to the kernel's next millisecond.
                            shared.meter.step(task.kind(), planned, "late", now.saturating_duration_since(planned));
                            self.connect(task, 0, planned, now, shared);
                        }
                        // All accounts are taken by those who are under way.
                        None if self.in_flight >= most => shared.meter.error("any", "not started", &text()),
                        None => {}
                    }
                }
            }
        }
    }

    /// During the ramp the rate grows from none: the n-th arrival of an even one then comes at the root of n.
    fn plan_arrival(&mut self) {
        let Pace::Open { per_sec, spacing, .. } = self.run.pace else { return };
        let gap = match spacing {
            Spacing::Even => 1.0,
            Spacing::Poisson => Exp::new(1.0).expect("one is more than none").sample(&mut self.random),
        };
        let (at, ramp) = ((self.arrival - self.began).as_secs_f64(), self.run.ramp.as_secs_f64());
        // Arrivals up to a time: of the ramp, its square; behind it, its straight line.
        let arrived = if at < ramp { at * at / ramp / 2.0 } else { at - ramp / 2.0 } * per_sec;
        let wanted = (arrived + gap) / per_sec;
        let next = if wanted < ramp / 2.0 { (wanted * 2.0 * ramp).sqrt() } else { wanted + ramp / 2.0 };
        self.arrival = self.began + Duration::from_secs_f64(next);
    }

    fn connect(&mut self, task: Task, client: usize, planned: Instant, now: Instant, shared: &mut Shared<'w>) {
        let door = match self.run.target.door(&task) {
            Ok(door) => door,
            Err(name) => {
                let text = format!("no address is given for it: say {name} HOST:PORT");
                return self.not_begun(task, "no door", text, client, now, shared);
            }
        };
        let source = if self.sources > 1 { 2 + self.connects % self.sources } else { 0 };
        self.connects += 1;
        let line = task.line();
        let session = Wire::connect(now, door, line.speed, source).and_then(|wire| {
            let first = (line.tls == work::Tls::Tls).then(|| self.rules.secure.clone());
            let later = (line.tls == work::Tls::StartTls).then(|| self.rules.secure.clone());
            let life = Life::new(&task, client, planned, now);
            Ok(match task.clone() {
                Task::Pop(task) => {
                    let machine = pop3::client::Client::new(now, self.rules.pop.clone());
                    let stream = Stream::connect(now, wire, machine, first)?;
                    Client::Pop(Box::new(Session::new(stream, Pop::new(task, later), life)))
                }
                Task::Smtp(task) => {
                    let rules = match task.port {
                        Port::Lmtp => &self.rules.lmtp,
                        _ if later.is_some() => &self.rules.smtp_starttls,
                        _ => &self.rules.smtp,
                    };
                    let machine = smtp::client::Client::new(now, rules.clone(), first.is_some());
                    let stream = Stream::connect(now, wire, machine, first)?;
                    Client::Smtp(Box::new(Session::new(stream, Smtp::new(task, later), life)))
                }
            })
        });
        match session.and_then(|session| self.turns.insert(session)) {
            Ok(_) => self.in_flight += 1,
            Err(error) => {
                let (what, text) = session::why(Some(&error));
                self.not_begun(task, what, text, client, now, shared);
            }
        }
    }

    fn not_begun(
        &mut self,
        task: Task,
        what: &'static str,
        text: String,
        client: usize,
        now: Instant,
        shared: &mut Shared<'w>,
    ) {
        shared.meter.error(task.kind(), what, &text);
        shared.work.done(&task, &Outcome::unbegun(what, text, now));
        self.freed(client, now + AFTER_FAILURE);
    }

    fn freed(&mut self, client: usize, from: Instant) {
        if matches!(self.run.pace, Pace::Closed { .. }) {
            self.free.push(Reverse((from, client)));
        }
    }

    /// Whoever is over is counted, and free for more.
    fn bury(&mut self, now: Instant, shared: &mut Shared<'w>, cut: Cut) {
        while let Some((_, client)) = self.turns.sweep() {
            let (place, troubled) = match client {
                Client::Pop(session) => (session.life().client, session.finish(now, shared, cut)),
                Client::Smtp(session) => (session.life().client, session.finish(now, shared, cut)),
                Client::Signals(..) => continue,
            };
            self.in_flight -= 1;
            self.freed(place, if troubled { now + AFTER_FAILURE } else { now });
        }
    }

    /// The end has come: who holds a session only to hold it goes now.
    fn hurry(&mut self, now: Instant) {
        let all: Vec<Id> = self.turns.iter_mut().map(|(id, _)| id).collect();
        for id in all {
            if let Some(client) = self.turns.get_mut(id) {
                either!(client, session => session.hurry(now), _ => {});
            }
            self.turns.wake(id);
        }
    }

    /// Whether nobody is under way but modems.
    fn only_slow_are_left(&mut self) -> bool {
        self.turns.iter_mut().all(|(_, client)| either!(client, session => session.is_slow(), _ => true))
    }

    /// Nobody waits any longer.
    fn give_up(&mut self, now: Instant, shared: &mut Shared<'w>) {
        let stopped = shared.stopped;
        let mut left = Vec::new();
        for (id, client) in self.turns.iter_mut() {
            match client {
                Client::Pop(session) => left.push((id, session.is_slow())),
                Client::Smtp(session) => left.push((id, session.is_slow())),
                Client::Signals(..) => {}
            }
        }
        for (id, slow) in left {
            self.turns.close(id);
            self.bury(now, shared, if slow || stopped { Cut::AtEnd } else { Cut::Unfinished });
        }
    }
}

#[cfg(test)]
mod tests;
