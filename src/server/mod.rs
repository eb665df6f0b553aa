//! F6: where everything meets: the turn, start, reload, stop.
//!
//! The order of a turn, always this ([`Server::turn`]):
//!
//! 1. Poll, but not past the next deadline; then read the clock, once.
//! 2. Events set readiness and wake their entry.
//! 3. Deadlines that are due wake theirs.
//! 4. Finished jobs are collected. Answers that came from authenticators, jobs and clocks go to their conversations, if they
//!    still live *and* still owe that ticket; otherwise they are dropped and counted.
//! 5. Each entry that could run when the turn began runs, with its budget.
//! 6. Pools are drained: authenticators, newborn connections, orders.
//! 7. What closed is removed, only here.
//!
//! `entry.rs` is the list of what has turns, `orders.rs` what operators can have done, `journal.rs` the log.

mod entry;
mod journal;
mod orders;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::control::SOCKET;
use crate::net::child::{self, Child};
use crate::net::jobs::{self, Kind};
use crate::net::listen::{self, Listener};
use crate::net::signal::{Signal, Signals};
use crate::net::tls;
use crate::net::turn::{Id, Loop, Ticket};
use crate::protocol::End;
use crate::protocol::helper::Act;
use crate::service::cache::Cache;
use crate::service::helpers::{self, Helpers};
use crate::service::{Configuration, Counts, Newborn, Outcome, Shared, Stamp, control, pop3};
use crate::settings::{self, Complaint, Level, Settings};
use crate::sys::process;
use entry::{Entry, Port};
use journal::Journal;

/// The file that says a server has this work_path.
pub const RUN_LOCK: &str = "dmail.run";
/// How long conversations and jobs may take to end when we stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a start waits for what a killed server has left behind.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How often certificates are looked at and memory is given back.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Descriptors kept for authenticators, control, log and the drops' locks.
const RESERVE: usize = 64;
/// Descriptors of one conversation: its socket, bin, index and drop.
const PER_CONVERSATION: usize = 4;
/// Half-received TLS records of all connections together. Beyond it, whoever holds some, came first and has not logged in
/// goes.
const PARTIAL_LIMIT: usize = 4 * 1024 * 1024;
/// A turn of one entry that took longer is worth a line in the log.
const LONG_TURN: Duration = Duration::from_millis(100);

/// A server.
pub struct Server {
    lp: Loop<Entry>,
    shared: Shared,
    ports: Vec<Id>,
    signals: Id,
    journal: Journal,
    socket: PathBuf,
    stamps: Vec<Stamp>,
    generation: u32,
    housekeeping: Instant,
    stop_by: Option<Instant>,
    reported: Duration,
    most_open: usize,
    /// The limit of descriptors.
    descriptors: u64,
    /// Held while we run.
    _lock: File,
}

impl Server {
    /// Takes the work_path, binds every port, opens the log. Refuses with one sentence that names what is wrong, and what
    /// to do; then nothing has been changed.
    pub fn start(settings: Settings) -> Result<Server, String> {
        process::private_umask();
        process::one_arena();
        let tls = tls::load(&tls_files(&settings))?;
        let lock = run_lock(&settings)?;
        let limit = process::raise_descriptor_limit().map_err(|error| format!("the descriptor limit: {error}"))?;
        let mut listeners = Vec::new();
        for port in ports(&settings, tls.is_some()) {
            listeners.push((bind(port)?, port));
        }
        if listeners.is_empty() {
            let file = settings.file.display();
            return Err(format!("{file}: no port to serve: set pop_port, or pops_port with tls_cert and tls_key"));
        }
        let socket = settings.work_path.join(SOCKET);
        remove_stale(&socket)?;
        let orders = listen::unix(&socket).map_err(|error| {
            format!("{}: cannot listen here: {error}; work_path must be writable and short", socket.display())
        })?;
        let journal = Journal::open(&settings.log_path.join("dpop.log"), settings.log_level);
        let journal = journal.map_err(|fault| format!("{fault}; set log_path to a directory we can write to"))?;
        let trouble = |error: io::Error| format!("the event loop cannot be set up: {error}");
        let mut lp = Loop::new().map_err(trouble)?;
        let waker = lp.waker().map_err(trouble)?;
        let cap = cap(&settings, limit);
        let shared = Shared {
            pop3: Shared::pop3_rules(&settings),
            tls,
            helpers: vec![Helpers::new(0, &settings)],
            cache: Cache::new(cache_limit(&settings), cache_life(&settings)),
            jobs: jobs::Pool::new(waker),
            post: VecDeque::new(),
            volumes: volumes(&settings),
            newborn: Vec::new(),
            parked: VecDeque::new(),
            compacting: HashSet::new(),
            orders: VecDeque::new(),
            counts: Counts::default(),
            open: 0,
            cap,
            controls: 0,
            stopping: false,
            started: SystemTime::now(),
            settings: Arc::new(settings),
        };
        let mut ids = Vec::new();
        for (socket, port) in listeners {
            ids.push(lp.insert(Entry::Port(Box::new((Listener::new(socket), port)))).map_err(trouble)?);
        }
        lp.insert(Entry::Orders(Box::new(Listener::new(orders)))).map_err(trouble)?;
        let signals = Signals::catch().map_err(trouble)?;
        let signals = lp.insert(Entry::Signals(Box::new((signals, Vec::new())))).map_err(trouble)?;
        let housekeeping = lp.now() + HOUSEKEEPING;
        let stamps = stamps(&tls_files(&shared.settings));
        let server = Server {
            lp,
            shared,
            ports: ids,
            signals,
            journal,
            socket,
            stamps,
            generation: 0,
            housekeeping,
            stop_by: None,
            reported: LONG_TURN,
            most_open: 0,
            descriptors: limit,
            _lock: lock,
        };
        log::info!("dmail {} started: {}", env!("CARGO_PKG_VERSION"), server.serving());
        // Reading the configuration left holes behind.
        process::trim_memory();
        Ok(server)
    }

    /// What is served where, in one line.
    pub fn serving(&self) -> String {
        let tls = self.shared.tls.is_some();
        let ports = ports(&self.shared.settings, tls).into_iter();
        let named: Vec<String> =
            ports.map(|port| format!("POP3{} on {}", if port.tls { " over TLS" } else { "" }, port.address)).collect();
        named.join(", ")
    }

    /// Serves until told to stop.
    pub fn run(mut self) -> Result<(), String> {
        while self.turn().map_err(|error| format!("the event loop: {error}"))? {}
        log::info!("dmail stopped");
        // The next server removes what we could not.
        let _ = fs::remove_file(&self.socket);
        self.journal.flush();
        Ok(())
    }

    /// One turn; false when all is over.
    fn turn(&mut self) -> io::Result<bool> {
        let shared_due = self.shared.deadline();
        let until = [Some(self.housekeeping), shared_due, self.stop_by].into_iter().flatten().min();
        let until = if self.shared.post.is_empty() { until } else { Some(self.lp.now()) };
        let now = self.lp.poll(until)?;
        self.shared.unpark(now);
        // A job that ends later wakes the next poll.
        self.collect(now);
        for (ticket, outcome) in std::mem::take(&mut self.shared.post) {
            self.deliver(now, ticket, outcome);
        }
        self.lp.run(&mut self.shared);
        self.drain_helpers(now);
        self.take_signals();
        self.settle_newborn(now);
        self.carry_out_orders();
        self.shed();
        if now >= self.housekeeping {
            self.keep_house(now);
        }
        self.sweep(now);
        Ok(!self.is_over(now))
    }

    fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) {
        let delivered = match self.lp.get_mut(ticket.id) {
            Some(Entry::Pop3(conversation)) => conversation.deliver(now, ticket, outcome, &mut self.shared),
            // The configuration was being read, and that panicked.
            Some(Entry::Control(conversation)) => {
                conversation.report(ticket, false, "a fault of ours ended this order\n".to_owned());
                true
            }
            _ => false,
        };
        if delivered {
            self.lp.wake(ticket.id);
        } else {
            self.shared.counts.late += 1;
        }
    }

    /// Jobs that are done.
    fn collect(&mut self, now: Instant) {
        for (ticket, outcome) in self.shared.jobs.collect() {
            match outcome {
                Outcome::Spawned(generation, copy, started) => self.spawned(now, generation, copy, started),
                Outcome::Certificates(stamps, read) => self.certificates(stamps, read),
                Outcome::Configuration(read, json) => self.reloaded(ticket, read, json),
                outcome => self.shared.collected(ticket, outcome),
            }
        }
    }

    fn spawned(&mut self, now: Instant, generation: u32, copy: usize, started: io::Result<child::Started>) {
        let helpers = self.shared.helpers.iter_mut().find(|helpers| helpers.generation == generation);
        // Meanwhile a reload may have retired the pool: then the process is an entry until it is reaped, and nobody's.
        let helpers = helpers.filter(|helpers| helpers.pool.awaits(copy));
        let made = started.and_then(Child::new);
        let made =
            made.and_then(|child| self.lp.insert(Entry::Helper(Box::new(helpers::Copy::new(generation, copy, child)))));
        let Some(helpers) = helpers else { return };
        match made {
            Ok(id) => {
                helpers.copies[copy] = Some(id);
                helpers.pool.spawned(now, copy);
            }
            Err(error) => {
                log::error!("starting the authenticator {}: {error}", helpers.program.path.display());
                helpers.pool.ended(now, copy);
            }
        }
    }

    /// Does what the pools of authenticators want done.
    fn drain_helpers(&mut self, now: Instant) {
        let Server { lp, shared, .. } = self;
        for helpers in &mut shared.helpers {
            helpers.pool.expire(now);
            while let Some(act) = helpers.pool.poll(now) {
                let entry =
                    |lp: &mut Loop<Entry>, copy: usize| helpers.copies[copy].map(|id| (id, lp.get_mut(id).is_some()));
                match act {
                    Act::Spawn(copy) => {
                        let (generation, program) = (helpers.generation, helpers.program.clone());
                        let work = move |_: &jobs::Pulse| Outcome::Spawned(generation, copy, child::start(&program));
                        if shared.jobs.submit(None, Kind::Read, 0, work).is_err() {
                            helpers.pool.ended(now, copy);
                        }
                    }
                    Act::Write(copy, line) => {
                        let sent = match entry(lp, copy) {
                            Some((id, true)) => match lp.get_mut(id) {
                                Some(Entry::Helper(process)) => process.send(line.reveal()).is_ok(),
                                _ => false,
                            },
                            _ => false,
                        };
                        // It does not read, or is gone: killed, and noticed by its end.
                        if !sent
                            && let Some((id, true)) = entry(lp, copy)
                            && let Some(Entry::Helper(process)) = lp.get_mut(id)
                        {
                            process.kill();
                        }
                    }
                    Act::Kill(copy) => match entry(lp, copy) {
                        Some((id, true)) => {
                            if let Some(Entry::Helper(process)) = lp.get_mut(id) {
                                process.kill();
                            }
                        }
                        _ => helpers.pool.ended(now, copy),
                    },
                    Act::Done(ticket, verdict) => shared.post.push_back((ticket, Outcome::Verdict(verdict))),
                    Act::Note(text) => log::warn!("{text}"),
                }
            }
        }
        if shared.helpers.len() > 1 {
            let last = shared.helpers.len() - 1;
            let mut index = 0;
            shared.helpers.retain(|helpers| {
                index += 1;
                index > last || !helpers.pool.is_down()
            });
        }
    }

    fn take_signals(&mut self) {
        let Some(Entry::Signals(signals)) = self.lp.get_mut(self.signals) else { return };
        let came = &mut signals.1;
        for signal in std::mem::take(came) {
            match signal {
                Signal::Stop => self.stop(),
                Signal::Reload => self.reload(None, false),
                Signal::Child => {
                    let helpers = self.lp.iter_mut().filter(|(_, entry)| matches!(entry, Entry::Helper(_)));
                    let ids: Vec<Id> = helpers.map(|(id, _)| id).collect();
                    for id in ids {
                        self.lp.wake(id);
                    }
                }
            }
        }
    }

    /// Connections that were accepted become entries.
    fn settle_newborn(&mut self, now: Instant) {
        for newborn in std::mem::take(&mut self.shared.newborn) {
            let entry = match newborn {
                Newborn::Pop3 { stream, peer, tls } => {
                    let made = pop3::Conversation::new(now, stream, peer, tls, &self.shared);
                    made.map(|mut conversation| {
                        // Accepted in the very turn in which the server was told to stop.
                        if self.shared.stopping {
                            conversation.end(End::Shutdown);
                        }
                        Entry::Pop3(Box::new(conversation))
                    })
                }
                Newborn::Control(stream) => {
                    control::Conversation::new(now, stream).map(|conversation| Entry::Control(Box::new(conversation)))
                }
            };
            let pop3 = matches!(entry, Ok(Entry::Pop3(_)));
            if let Err(error) = entry.and_then(|entry| self.lp.insert(entry)) {
                log::warn!("a connection could not be taken: {error}");
                if pop3 {
                    self.shared.open -= 1;
                } else {
                    self.shared.controls -= 1;
                }
            }
        }
        self.most_open = self.most_open.max(self.shared.open);
    }

    /// Over the bound of half-received TLS records, the oldest connection ends that holds some and is not logged in.
    fn shed(&mut self) {
        if self.lp.partial_bytes() <= PARTIAL_LIMIT {
            return;
        }
        let oldest = self.lp.iter_mut().filter_map(|(id, entry)| match entry {
            Entry::Pop3(conversation) => conversation.partial_since().map(|since| (since, id)),
            _ => None,
        });
        if let Some((_, id)) = oldest.min()
            && let Some(Entry::Pop3(conversation)) = self.lp.get_mut(id)
        {
            conversation.abort();
            self.lp.wake(id);
        }
    }

    fn keep_house(&mut self, now: Instant) {
        self.housekeeping = now + HOUSEKEEPING;
        let longest = self.lp.longest();
        if longest.time > self.reported {
            log::warn!("a turn of {} took {} ms", longest.kind, longest.time.as_millis());
            self.reported = longest.time;
        }
        // After a burst; with nothing going on it would find nothing.
        if self.most_open > self.shared.open * 2 + 16 {
            self.lp.trim();
            process::trim_memory();
            self.most_open = self.shared.open;
        }
        let (files, old) = (tls_files(&self.shared.settings), self.stamps.clone());
        if files.is_empty() {
            return;
        }
        let work = move |_: &jobs::Pulse| {
            let new = stamps(&files);
            let read = (new != old).then(|| tls::load(&files));
            Outcome::Certificates(new, read)
        };
        // No room now: the next time will do.
        let _ = self.shared.jobs.submit(None, Kind::Read, 0, work);
    }

    fn certificates(&mut self, stamps: Vec<Stamp>, read: Option<Result<Option<tls::Tls>, String>>) {
        let Some(read) = read else { return };
        self.stamps = stamps;
        match read {
            Ok(tls) => {
                self.shared.tls = tls;
                log::info!("certificates were read again");
            }
            Err(why) => log::error!("certificates have changed and cannot be used, the old ones stay: {why}"),
        }
    }

    fn sweep(&mut self, now: Instant) {
        let mut left = 0;
        while let Some((id, entry)) = self.lp.sweep() {
            match entry {
                Entry::Pop3(conversation) => {
                    self.shared.open -= 1;
                    left += 1;
                    conversation.farewell(id, now);
                }
                Entry::Control(_) => self.shared.controls -= 1,
                _ => {}
            }
        }
        if left > 0 && self.shared.open + left >= self.shared.cap {
            self.resume_ports();
        }
    }

    fn resume_ports(&mut self) {
        for &id in &self.ports {
            if let Some(Entry::Port(port)) = self.lp.get_mut(id) {
                port.0.resume();
                self.lp.wake(id);
            }
        }
    }

    /// Begins to read the configuration again: by a job, because it looks at files.
    fn reload(&mut self, ticket: Option<Ticket>, json: bool) {
        let file = self.shared.settings.file.clone();
        let work = move |_: &jobs::Pulse| Outcome::Configuration(configuration(&file).map(Box::new), json);
        if let Err(busy) = self.shared.jobs.submit(ticket, Kind::Read, 0, work) {
            self.reloaded(ticket, Err(vec![format!("no room for the job: {busy:?}")]), json);
        }
    }

    /// The configuration has been read: all of it takes its place, or none. Says which rows changed.
    fn reloaded(&mut self, ticket: Option<Ticket>, read: Result<Box<Configuration>, Vec<String>>, json: bool) {
        let result = read.and_then(|new| {
            let stopping = || vec!["the server is stopping".to_owned()];
            if self.shared.stopping { Err(stopping()) } else { self.replace(*new) }
        });
        match &result {
            Ok(changes) if changes.is_empty() => log::info!("reload: nothing has changed"),
            Ok(changes) => log::info!("reload: {}", changes.join("; ")),
            Err(complaints) => log::error!("reload refused, nothing has changed: {}", complaints.join("; ")),
        }
        if let Some(ticket) = ticket {
            let (done, text) = orders::reload_report(result, json);
            self.report(ticket, done, text);
        }
    }

    fn replace(&mut self, new: Configuration) -> Result<Vec<String>, Vec<String>> {
        let Configuration { settings: new, tls, stamps, volumes } = new;
        // What can fail comes first ...
        let wanted = ports(&new, tls.is_some());
        let have: Vec<(Id, Port)> = (self.lp.iter_mut())
            .filter_map(|(id, entry)| if let Entry::Port(port) = entry { Some((id, port.1)) } else { None })
            .collect();
        let mut fresh = Vec::new();
        for &port in wanted.iter().filter(|port| !have.iter().any(|(_, other)| other == *port)) {
            fresh.push((bind(port).map_err(|why| vec![why])?, port));
        }
        for (socket, port) in fresh {
            let inserted = self.lp.insert(Entry::Port(Box::new((Listener::new(socket), port))));
            self.ports.push(inserted.map_err(|error| vec![format!("port {}: {error}", port.address)])?);
        }
        // ... and this cannot.
        for (id, port) in have {
            if !wanted.contains(&port) {
                self.ports.retain(|other| *other != id);
                self.lp.close(id);
            }
        }
        let old = std::mem::replace(&mut self.shared.settings, Arc::new(new));
        let new = self.shared.settings.clone();
        self.stamps = stamps;
        self.shared.tls = tls;
        self.shared.volumes = volumes;
        self.shared.pop3 = Shared::pop3_rules(&new);
        self.shared.cap = cap(&new, self.descriptors);
        log::set_max_level(journal::filter(new.log_level));
        if Helpers::program(&old) != Helpers::program(&new) || Helpers::rules(&old) != Helpers::rules(&new) {
            self.replace_helpers(&new);
        } else if cache_limit(&old) != cache_limit(&new) || cache_life(&old) != cache_life(&new) {
            self.shared.cache.reset(cache_limit(&new), cache_life(&new));
        }
        self.resume_ports();
        Ok(settings::diff(&old, &new).iter().map(ToString::to_string).collect())
    }

    /// A new generation of authenticators takes over what waits; the old one finishes what it was asked.
    fn replace_helpers(&mut self, settings: &Settings) {
        self.generation += 1;
        let mut fresh = Helpers::new(self.generation, settings);
        if let Some(old) = self.shared.helpers.last_mut() {
            fresh.pool.adopt(self.lp.now(), &mut old.pool);
            old.pool.retire(self.lp.now());
        }
        self.shared.helpers.push(fresh);
        self.shared.cache.reset(cache_limit(settings), cache_life(settings));
    }

    /// Begins to stop: no new connections, clients are told, what was begun is finished.
    fn stop(&mut self) {
        if self.shared.stopping {
            return;
        }
        log::info!("stopping");
        self.shared.stopping = true;
        self.stop_by = Some(self.lp.now() + STOP_PATIENCE);
        for id in std::mem::take(&mut self.ports) {
            self.lp.close(id);
        }
        let clients: Vec<Id> = (self.lp.iter_mut())
            .filter_map(|(id, entry)| match entry {
                Entry::Pop3(conversation) => {
                    conversation.end(End::Shutdown);
                    Some(id)
                }
                Entry::Control(conversation) => {
                    conversation.end(End::Shutdown);
                    Some(id)
                }
                _ => None,
            })
            .collect();
        for id in clients {
            self.lp.wake(id);
        }
        for helpers in &mut self.shared.helpers {
            helpers.pool.stop(self.lp.now());
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let quiet = self.shared.open == 0 && self.shared.controls == 0 && self.shared.jobs.is_idle();
        if quiet || now >= stop_by {
            if !quiet {
                log::warn!("stopping with {} sessions and {:?}", self.shared.open, self.shared.jobs.load());
            }
            return true;
        }
        // Jobs end without an event of their own once the last one has been collected.
        false
    }
}

fn configuration(path: &Path) -> Result<Configuration, Vec<String>> {
    let settings = usable(path)?;
    let files = tls_files(&settings);
    let tls = tls::load(&files).map_err(|why| vec![why])?;
    let (stamps, volumes) = (stamps(&files), volumes(&settings));
    Ok(Configuration { settings, tls, stamps, volumes })
}

/// A configuration that a server can run with, or what is wrong with it, a sentence each.
pub fn usable(path: &Path) -> Result<Settings, Vec<String>> {
    let (settings, complaints) = judged(path);
    let errors: Vec<String> =
        complaints.iter().filter(|complaint| complaint.level == Level::Error).map(ToString::to_string).collect();
    match settings {
        Some(settings) if errors.is_empty() => Ok(settings),
        _ => Err(errors),
    }
}

/// A configuration, and all there is to say about it and about what it names.
pub fn judged(path: &Path) -> (Option<Settings>, Vec<Complaint>) {
    let settings::Loaded { settings, mut complaints } = settings::load(path);
    if let Some(settings) = &settings {
        complaints.extend(settings::judge(settings));
        let readable = complaints.iter().all(|complaint| complaint.level != Level::Error);
        if readable && let Err(why) = tls::load(&tls_files(settings)) {
            complaints.push(Complaint { level: Level::Error, place: settings.place("tls_cert"), text: why });
        }
    }
    (settings, complaints)
}

fn tls_files(settings: &Settings) -> Vec<tls::Files> {
    let files = settings.tls_pairs().into_iter().map(|pair| tls::Files {
        cert: pair.cert.to_owned(),
        key: pair.key.to_owned(),
        domain: pair.domain.map(str::to_owned),
    });
    files.collect()
}

fn stamps(files: &[tls::Files]) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.ino(), meta.size(), meta.modified().ok()?))
    };
    files.iter().flat_map(|files| [stamp(&files.cert), stamp(&files.key)]).collect()
}

/// The ports that these settings ask for.
fn ports(settings: &Settings, tls: bool) -> Vec<Port> {
    let mut ports = Vec::new();
    for &ip in &settings.bind_address {
        for (number, implicit) in [(settings.pop_port, false), (settings.pops_port, true)] {
            if number != 0 && (tls || !implicit) {
                ports.push(Port { address: SocketAddr::new(ip, number), tls: implicit });
            }
        }
    }
    ports
}

fn bind(port: Port) -> Result<crate::net::TcpListener, String> {
    listen::tcp(port.address).map_err(|error| {
        let row = if port.tls { "pops_port" } else { "pop_port" };
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => format!("another program has it: stop that, or set {row}"),
            io::ErrorKind::PermissionDenied => format!("ports below 1024 need root: start as root, or set {row}"),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: set bind_address".to_owned(),
            _ => format!("set bind_address or {row}"),
        };
        format!("port {}: {error}; {remedy}", port.address)
    })
}

fn run_lock(settings: &Settings) -> Result<File, String> {
    let path = settings.work_path.join(RUN_LOCK);
    let trouble =
        |error: io::Error| format!("{}: {error}; work_path must be a directory that we can write to", path.display());
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(trouble)?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(trouble(error)),
        }
        io::Seek::rewind(&mut lock).map_err(trouble)?;
        let pid = io::read_to_string(&lock).unwrap_or_default();
        let pid = pid.trim();
        // A server that was killed while it started an authenticator has left the lock to that one, until its exec.
        let dead = !pid.is_empty() && !Path::new("/proc").join(pid).exists();
        if !dead || begun.elapsed() > LOCK_PATIENCE {
            return Err(format!(
                "{}: a server (pid {pid}) has this work_path already; `dmail serve` runs all services in one process, so \
                 stop that one first or give this one a work_path of its own",
                path.display(),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    lock.set_len(0).and_then(|()| io::Seek::rewind(&mut lock)).map_err(trouble)?;
    io::Write::write_all(&mut lock, format!("{}\n", std::process::id()).as_bytes()).map_err(trouble)?;
    Ok(lock)
}

/// A socket that a server left behind; we have the run lock, so nobody listens there.
fn remove_stale(socket: &Path) -> Result<(), String> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", socket.display())),
        _ => Ok(()),
    }
}

/// Where drops lie, and the volume of each such place; the longest path first.
fn volumes(settings: &Settings) -> Vec<(PathBuf, u64)> {
    let roots = settings.drop_root.iter().chain([&settings.drop_path]);
    let mut volumes: Vec<(PathBuf, u64)> =
        roots.map(|root| (root.clone(), fs::metadata(root).map_or(0, |meta| meta.dev()))).collect();
    volumes.sort_by_key(|(root, _)| std::cmp::Reverse(root.as_os_str().len()));
    volumes
}

fn cap(settings: &Settings, limit: u64) -> usize {
    let helpers = 2 * 3 * settings.authent_number;
    let room = (limit as usize).saturating_sub(RESERVE + helpers) / PER_CONVERSATION;
    let asked = if settings.max_connections == 0 { usize::MAX } else { settings.max_connections };
    asked.min(room).max(1)
}

fn cache_limit(settings: &Settings) -> usize {
    if settings.auth_nocache { 0 } else { settings.authent_cache }
}

fn cache_life(settings: &Settings) -> Duration {
    Duration::from_secs(settings.authent_cache_hours * 3600)
}
