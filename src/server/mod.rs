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
//! 6. Pools are drained: authenticators, newborn connections, contested maildrops, orders, questions to name servers.
//! 7. What closed is removed, only here.
//!
//! `entry.rs` is the list of what has turns, `start.rs` and `reload.rs` what their names say, `orders.rs` what operators
//! can have done, `views.rs` what they are shown, `journal.rs` the log. `launcher.rs` is another process.

mod entry;
mod journal;
mod launcher;
mod orders;
mod rates;
mod reload;
mod start;
mod views;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
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
use crate::net::watchdog::Watchdog;
use crate::protocol::End;
use crate::protocol::helper::Act;
use crate::rules::flood::Flood;
use crate::rules::places::{Kind as Crowd, Places};
use crate::service::cache::Cache;
use crate::service::deliver::{self, Runner};
use crate::service::dns::{self, Dns, RESOLV_CONF};
use crate::service::guard::Guard;
use crate::service::helpers::{self, Helpers};
use crate::service::launcher::Launcher;
use crate::service::noise::Event;
use crate::service::pickup::Pickup;
use crate::service::{
    Counts, Holder, Newborn, Outcome, Services, Shared, Stamp, control, opener, pop3, relay, send, smtp,
};
use crate::settings::Settings;
use crate::store::bulletins::Board;
use crate::store::disk::RealDisk;
use crate::sys::{memory, network, process};
use crate::text::fault::Fault;
use entry::Entry;
use journal::Journal;
pub use launcher::part;
use rates::Rates;
use start::*;
pub use start::{judged, opens, roles};

/// The file that says a server has this work_path.
pub const RUN_LOCK: &str = "dmail.run";
/// The socket in work_path where programs on this host bring mail, as whoever runs them.
pub const SUBMIT: &str = "submit.sock";
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
/// Descriptors of a connection to another host: its socket, and the message.
const PER_SENDER: usize = 2;
/// Half-received TLS records of all connections together. Beyond it, whoever holds some, came first and has not logged in
/// goes.
const PARTIAL_LIMIT: usize = 4 * 1024 * 1024;
/// How long a client has to log in before it may have to make room for another.
const LOGIN_GRACE: Duration = Duration::from_secs(5);
/// Turns of entries from one look at the house to the next, in a server that nobody uses.
const QUIET_TURNS: u64 = 8;
/// A turn of one entry that took longer is worth a line in the log.
const LONG_TURN: Duration = Duration::from_millis(100);

/// A server.
pub struct Server {
    lp: Loop<Entry>,
    shared: Shared,
    ports: Vec<Id>,
    signals: Id,
    queue: Id,
    senders: Id,
    /// `None`: this server takes no mail.
    pickup: Option<Id>,
    journal: Journal,
    socket: PathBuf,
    /// Where programs on this host bring mail, if they do.
    submit: PathBuf,
    stamps: Vec<Stamp>,
    generation: u32,
    /// Configurations that took their place since the start.
    reloads: u32,
    housekeeping: Instant,
    /// Before that nobody can be made to leave for another.
    crowd_until: Instant,
    stop_by: Option<Instant>,
    reported: Duration,
    most_open: usize,
    /// There was a burst when we last kept house.
    aftermath: bool,
    /// What entries had of turns when we last kept house.
    turns: u64,
    /// Nobody used the server before we last kept house, or memory was trimmed then: what the rest of that touches is let go of.
    resting: bool,
    rates: Rates,
    /// Looks on while we run.
    _watchdog: Watchdog,
    /// Why bulletins could not be looked at, if so.
    board_fault: String,
    /// The limit of descriptors.
    descriptors: u64,
    /// Held while we run.
    _lock: File,
}

impl Server {
    /// Takes the work_path, binds every port, opens the log. Refuses with one sentence that names what is wrong, and what
    /// to do; then nothing has been changed.
    pub fn start(settings: Settings, services: Services, launcher: Option<Launcher>) -> Result<Server, String> {
        process::private_umask();
        memory::one_arena();
        let launcher = launcher.map(Arc::new);
        let read = opener(launcher.as_deref());
        let tls = tls::load(&tls_files(&settings), &read)?;
        let stamps = stamps(&tls_files(&settings), &read);
        let routes = routes(&settings, &read).map_err(|wrong| wrong.join("; "))?;
        drop(read);
        let lock = run_lock(&settings)?;
        let disk = RealDisk { hand: launcher.clone().map(|launcher| launcher as _) };
        let limit = process::raise_descriptor_limit().map_err(|error| format!("the descriptor limit: {error}"))?;
        let mut listeners = Vec::new();
        for port in ports(&settings, services, tls.is_some()) {
            listeners.push((bind(port, launcher.as_deref())?, port));
        }
        if listeners.is_empty() {
            return Err(no_port(&settings, services));
        }
        // Behind everything that another server here could keep us from: this changes what lies in work_path and in drops.
        let transit = deliver::Transit::open(Instant::now(), &settings, &disk)?;
        let pickup = match services {
            Services::All | Services::Smtp => {
                let group = submit_gid(&settings)?;
                Some(Pickup::open(Instant::now(), &settings, group, &transit.queue())?)
            }
            Services::Pop3 => None,
        };
        let socket = settings.work_path.join(SOCKET);
        remove_stale(&socket)?;
        let orders = listen::unix(&socket).map_err(|error| {
            format!("{}: cannot listen here: {error}; work_path must be writable and short", socket.display())
        })?;
        let control_gid = control_gid(&settings)?;
        open_to(&socket, control_gid).inspect_err(|_| drop(remove_stale(&socket)))?;
        let submit = settings.work_path.join(SUBMIT);
        let programs = match services {
            Services::All | Services::Smtp => Some(open_to_programs(&submit)?),
            Services::Pop3 => None,
        };
        let journal = Journal::open(&settings, services);
        let journal = journal.map_err(|fault| format!("{fault}; set log_path to a directory we can write to"))?;
        let trouble = |error: io::Error| format!("the event loop cannot be set up: {error}");
        let mut lp = Loop::new().map_err(trouble)?;
        let waker = lp.waker().map_err(trouble)?;
        let mut places = Places::default();
        places.set(cap(&settings, limit), &kinds(&settings, services, tls.is_some()));
        let board = Board::read(&Shared::bulletin_source(&settings), None, true);
        let mut outgoing = send::Outgoing::default();
        outgoing.pause(transit.paused().is_all());
        outgoing.bound(start::senders(&settings, limit), start::waiting(limit));
        own_addresses(&mut outgoing);
        let shared = Shared {
            pop3: Shared::pop3_rules(&settings),
            routes,
            smtp: Shared::smtp_rules(&settings),
            services,
            tls,
            board: Arc::new(Board::default()),
            helpers: vec![Helpers::new(0, &settings)],
            cache: Cache::new(cache_limit(&settings), cache_life(&settings)),
            dns: Dns::new(&settings, dns::System::read(Path::new(RESOLV_CONF))),
            launcher,
            jobs: jobs::Pool::new(waker),
            post: VecDeque::new(),
            volumes: volumes(&settings),
            newborn: Vec::new(),
            guard: Guard::new(lp.now()),
            crowded: None,
            contested: Vec::new(),
            short: HashSet::new(),
            transit,
            outgoing,
            traffic: Vec::new(),
            orders: VecDeque::new(),
            counts: Counts::default(),
            flood: Flood::new(),
            places,
            programs: 0,
            knocked: false,
            control_gid,
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
        if let Some(programs) = programs {
            lp.insert(Entry::Programs(Box::new(Listener::new(programs)))).map_err(trouble)?;
        }
        let signals = Signals::catch().map_err(trouble)?;
        let signals = lp.insert(Entry::Signals(Box::new((signals, Vec::new())))).map_err(trouble)?;
        let begun = lp.now();
        let queue = lp.insert(Entry::Queue(Box::new(Runner::new(begun)))).map_err(trouble)?;
        let senders = lp.insert(Entry::Senders(Box::default())).map_err(trouble)?;
        let pickup = pickup.map(|pickup| lp.insert(Entry::Pickup(Box::new(pickup)))).transpose().map_err(trouble)?;
        let housekeeping = begun + HOUSEKEEPING;
        let watchdog = Watchdog::start(lp.watch().clone()).map_err(trouble)?;
        let mut server = Server {
            lp,
            shared,
            ports: ids,
            signals,
            queue,
            senders,
            pickup,
            journal,
            socket,
            submit,
            stamps,
            generation: 0,
            reloads: 0,
            housekeeping,
            crowd_until: begun,
            stop_by: None,
            reported: LONG_TURN,
            // The start counts as a burst: it needed much that will not be needed again.
            most_open: usize::MAX,
            aftermath: false,
            turns: 0,
            resting: false,
            rates: Rates::default(),
            _watchdog: watchdog,
            board_fault: String::new(),
            descriptors: limit,
            _lock: lock,
        };
        log::info!("dmail {} started: {}", env!("CARGO_PKG_VERSION"), server.serving());
        server.pin_up(board);
        // Reading the configuration left holes behind.
        memory::trim();
        Ok(server)
    }

    /// What is served where, in one line.
    pub fn serving(&self) -> String {
        let tls = self.shared.tls.is_some();
        let ports = ports(&self.shared.settings, self.shared.services, tls);
        ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Serves until told to stop.
    pub fn run(mut self) -> Result<(), String> {
        while self.turn().map_err(|error| format!("the event loop: {error}"))? {}
        self.shared.tell(self.lp.now());
        log::info!("dmail stopped");
        // The next server removes what we could not.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.submit);
        Ok(())
    }

    /// One turn; false when all is over.
    fn turn(&mut self) -> io::Result<bool> {
        let shared_due = self.shared.deadline();
        let until = [Some(self.housekeeping), shared_due, self.stop_by].into_iter().flatten().min();
        let until = if self.shared.post.is_empty() { until } else { Some(self.lp.now()) };
        let now = self.lp.poll(until)?;
        // A job that ends later wakes the next poll.
        self.collect(now);
        for (ticket, outcome) in std::mem::take(&mut self.shared.post) {
            self.deliver(now, ticket, outcome);
        }
        self.lp.run(&mut self.shared);
        self.lp.watch().enter("helpers", None);
        self.drain_helpers(now);
        self.take_signals();
        self.settle_newborn(now);
        self.settle_contested();
        self.run_queue(now);
        self.run_senders(now);
        for record in std::mem::take(&mut self.shared.traffic) {
            self.journal.note(record);
        }
        self.lp.watch().enter("orders", None);
        self.carry_out_orders();
        self.lp.watch().enter("dns", None);
        self.shared.ask_name_servers(now, &mut self.lp, Entry::Query);
        self.lp.watch().enter("house", None);
        self.shed();
        self.make_room(now);
        if now >= self.housekeeping {
            self.keep_house(now);
        }
        self.sweep(now);
        Ok(!self.is_over(now))
    }

    fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome) {
        let shared = &mut self.shared;
        let delivered = self.lp.guard(ticket.id, |entry| match entry {
            Entry::Pop3(conversation) => conversation.deliver(now, ticket, outcome, shared),
            Entry::Smtp(conversation) => conversation.deliver(now, ticket, outcome, shared),
            Entry::Control(conversation) => conversation.deliver(now, ticket, outcome, shared),
            Entry::Queue(runner) => runner.deliver(now, ticket, outcome, shared),
            Entry::Senders(office) => office.deliver(now, ticket, outcome, shared),
            Entry::Sender(conversation) => conversation.deliver(ticket, outcome),
            Entry::Pickup(pickup) => pickup.deliver(now, ticket, outcome, shared),
            _ => false,
        });
        if delivered == Some(true) {
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
                // Read for a configuration that is still in force.
                Outcome::Certificates(reloads, stamps, read) if reloads == self.reloads => {
                    self.certificates(stamps, read);
                    self.rest();
                }
                Outcome::Board(reloads, read) if reloads == self.reloads => self.pin_up(read),
                Outcome::NameServers(reloads, Some(system)) if reloads == self.reloads => {
                    let settings = self.shared.settings.clone();
                    self.shared.dns.follow(now, &settings, system);
                }
                Outcome::Certificates(..) | Outcome::Board(..) | Outcome::NameServers(..) => {}
                Outcome::Named(address, name) => self.shared.named(now, address, name),
                Outcome::Configuration(read) => self.reloaded(ticket, read),
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
                match act {
                    Act::Spawn(copy) => {
                        let (generation, program) = (helpers.generation, helpers.program.clone());
                        let launcher = shared.launcher.clone();
                        let work = move |_: &jobs::Pulse| {
                            let started = match launcher {
                                Some(launcher) => launcher.start(&program),
                                None => child::start(&program, None),
                            };
                            Outcome::Spawned(generation, copy, started)
                        };
                        if shared.jobs.submit(None, Kind::Read, 0, work).is_err() {
                            helpers.pool.ended(now, copy);
                        }
                    }
                    Act::Write(copy, line) => {
                        // One that does not read is killed, and noticed by its end.
                        if let Some(process) = process(lp, helpers, copy)
                            && process.send(line.reveal()).is_err()
                        {
                            process.kill();
                        }
                    }
                    Act::Kill(copy) => match process(lp, helpers, copy) {
                        Some(process) => process.kill(),
                        None => helpers.pool.ended(now, copy),
                    },
                    Act::Done(ticket, verdict) => shared.post.push_back((ticket, Outcome::Verdict(verdict))),
                    Act::Note(text) if shared.flood.admit(now, Event::Undecided, None) => log::warn!("{text}"),
                    Act::Note(_) => {}
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
                Signal::Reload => self.reload(None),
                Signal::Child => {
                    if let Some(launcher) = &self.shared.launcher {
                        launcher.notice_end();
                    }
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
            let (address, kind) = match &newborn {
                Newborn::Pop3 { peer, .. } => (Some(peer.ip()), Some(Crowd::Readers)),
                Newborn::Smtp { peer, face, .. } => (Some(peer.ip()), Some(smtp::kind(*face))),
                Newborn::Program(_) | Newborn::Control(_) => (None, None),
            };
            let is_program = matches!(newborn, Newborn::Program(_));
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
                Newborn::Smtp { mut stream, peer, face, tls } => {
                    let settings = self.shared.settings.clone();
                    if let Err(denied) = relay::client(&mut self.shared, &settings, peer.ip()) {
                        let address = peer.ip().to_canonical();
                        if self.shared.has_line(now, Event::Unwanted, Some(address)) {
                            log::info!("smtp {address}: not served: {}", denied.trail);
                        }
                        entry::turn_away(&mut stream, tls, &denied.reply);
                        self.shared.guard.leave(&settings, peer.ip());
                        self.shared.places.leave(smtp::kind(face));
                        continue;
                    }
                    let made = smtp::Conversation::new(now, stream, peer, face, tls, &self.shared);
                    made.map(|conversation| self.welcome(conversation))
                }
                Newborn::Program(stream) => {
                    let made = smtp::Conversation::local(now, stream, &self.shared);
                    made.map(|conversation| self.welcome(conversation))
                }
                Newborn::Control(stream) => {
                    let made = control::Conversation::new(now, stream, &self.shared);
                    made.map(|conversation| Entry::Control(Box::new(conversation)))
                }
            };
            let settings = &self.shared.settings;
            match (entry.and_then(|entry| self.lp.insert(entry)), address) {
                (Ok(_), Some(address)) if settings.lookup_names => self.shared.look_up(now, address.to_canonical()),
                (Ok(_), _) => {}
                (Err(error), address) => {
                    log::warn!("a connection could not be taken: {error}");
                    match (address, kind) {
                        (Some(address), Some(kind)) => {
                            self.shared.guard.leave(settings, address);
                            self.shared.places.leave(kind);
                        }
                        _ if is_program => self.shared.programs -= 1,
                        _ => self.shared.controls -= 1,
                    }
                }
            }
        }
        self.most_open = self.most_open.max(self.shared.places.taken());
    }

    fn welcome(&self, mut conversation: smtp::Conversation) -> Entry {
        // Accepted in the very turn in which the server was told to stop.
        if self.shared.stopping {
            conversation.end(End::Shutdown);
        }
        Entry::Smtp(Box::new(conversation))
    }

    /// Who found a maildrop in use is told whether the session that has it may be about to end.
    fn settle_contested(&mut self) {
        for (drop, ticket) in std::mem::take(&mut self.shared.contested) {
            let holder = self.lp.iter_mut().find_map(|(id, entry)| match entry {
                Entry::Pop3(other) if id != ticket.id && other.holds(&drop) => {
                    Some(if other.is_fading() { Holder::Fading } else { Holder::Session })
                }
                _ => None,
            });
            self.shared.post.push_back((ticket, Outcome::Held(holder.unwrap_or(Holder::Nobody))));
        }
    }

    /// Senders that were held for room go on, and what was dispatched is taken.
    fn run_queue(&mut self, now: Instant) {
        self.shared.call_senders();
        if self.shared.transit.calls(now) {
            self.lp.wake(self.queue);
        }
        if let Some(pickup) = self.pickup.filter(|_| self.shared.knocked) {
            self.lp.wake(pickup);
        }
    }

    /// Connections to other hosts are made, and those that have something to do are called.
    fn run_senders(&mut self, now: Instant) {
        for birth in self.shared.outgoing.born() {
            let line = birth.line();
            let made = send::Conversation::call(now, birth, &mut self.shared);
            let id = made.and_then(|conversation| {
                self.lp.insert(Entry::Sender(Box::new(conversation))).map_err(|error| format!("4.3.0 {error}"))
            });
            self.shared.outgoing.began(now, line, id);
        }
        for id in self.shared.outgoing.woken() {
            self.lp.wake(id);
        }
        if self.shared.outgoing.calls() {
            self.lp.wake(self.senders);
        }
    }

    /// Over the bound of half-received TLS records, the oldest connection ends that holds some and is not logged in.
    fn shed(&mut self) {
        if self.lp.partial_bytes() <= PARTIAL_LIMIT {
            return;
        }
        let oldest = self.lp.iter_mut().filter_map(|(id, entry)| match entry {
            Entry::Pop3(conversation) => conversation.partial_since().map(|since| (since, id)),
            Entry::Smtp(conversation) => conversation.partial_since().map(|since| (since, id)),
            _ => None,
        });
        let Some((_, id)) = oldest.min() else { return };
        match self.lp.get_mut(id) {
            Some(Entry::Pop3(conversation)) => conversation.abort(),
            Some(Entry::Smtp(conversation)) => conversation.abort(),
            _ => return,
        }
        self.lp.wake(id);
    }

    /// When all connections are taken and somebody waits, the oldest goes that had time to log in, or to begin a message, and
    /// did not; if its place is one that who waits may have.
    fn make_room(&mut self, now: Instant) {
        let Some(kind) = self.shared.crowded.take().filter(|_| now >= self.crowd_until) else { return };
        let places = &self.shared.places;
        let losable = self.lp.iter_mut().filter_map(|(id, entry)| {
            let (other, losable) = match entry {
                Entry::Pop3(conversation) => (Crowd::Readers, conversation.losable()),
                Entry::Smtp(conversation) => (conversation.kind()?, conversation.losable()),
                _ => return None,
            };
            let (asked, since) = losable.filter(|_| places.makes_room(kind, other))?;
            Some((asked, since, id))
        });
        let (old, young): (Vec<_>, Vec<_>) = losable.partition(|(_, since, _)| now >= *since + LOGIN_GRACE);
        match old.into_iter().min() {
            Some((_, _, id)) => {
                self.end(id, End::Overload);
                self.shared.counts.access.crowded_out += 1;
            }
            // Until the first of these is old enough, or one that logs out or loses its peer makes room.
            None => {
                let first = young.into_iter().map(|(_, since, _)| since + LOGIN_GRACE).min();
                self.crowd_until = first.unwrap_or(now + LOGIN_GRACE);
            }
        }
    }

    fn keep_house(&mut self, now: Instant) {
        self.housekeeping = now + HOUSEKEEPING;
        self.rates.note(now, self.shared.counts);
        self.shared.tell(now);
        let (longest, kind) = self.lp.profile().longest();
        if longest > self.reported {
            log::warn!("a turn of {kind} took {} ms", longest.as_millis());
            self.reported = longest;
        }
        // After a burst; with nothing going on it would find nothing.
        let open = self.shared.places.taken();
        let burst = self.most_open > open * 2 + 16;
        if burst || self.aftermath {
            self.lp.trim();
            memory::trim();
            memory::release_stack();
            self.most_open = open;
        }
        let turns = self.lp.turns();
        self.resting = burst || self.aftermath || turns - self.turns <= QUIET_TURNS;
        self.turns = turns;
        // The burst's threads may have been there still, and have ended when we come again.
        self.aftermath = burst;
        self.look_at_bulletins();
        self.look_for_name_servers();
        own_addresses(&mut self.shared.outgoing);
        let (files, old, reloads) = (tls_files(&self.shared.settings), self.stamps.clone(), self.reloads);
        if files.is_empty() {
            return self.rest();
        }
        let launcher = self.shared.launcher.clone();
        let work = move |_: &jobs::Pulse| {
            let open = opener(launcher.as_deref());
            let new = stamps(&files, &open);
            let read = (new != old).then(|| tls::load(&files, &open));
            Outcome::Certificates(reloads, new, read)
        };
        // No room now: the next time will do.
        let _ = self.shared.jobs.submit(None, Kind::Read, 0, work);
    }

    /// The house is kept. In a server that nobody uses, what that needed of the executable is not needed for ten seconds.
    fn rest(&mut self) {
        if std::mem::take(&mut self.resting) {
            memory::unmap_idle_code();
        }
    }

    /// Begins to look whether there are other bulletins: by a job, because it looks at files.
    fn look_at_bulletins(&mut self) {
        if self.shared.settings.bulletin_path.is_none() && self.shared.board.mail.is_none() {
            return;
        }
        let (source, old) = (Shared::bulletin_source(&self.shared.settings), self.shared.board.clone());
        let reloads = self.reloads;
        let work = move |_: &jobs::Pulse| Outcome::Board(reloads, Board::read(&source, Some(&old), false));
        // No room now: the next time will do.
        let _ = self.shared.jobs.submit(None, Kind::Read, 0, work);
    }

    /// Begins to look whether the system names other name servers: by a job, because it looks at a file.
    fn look_for_name_servers(&mut self) {
        let Some(old) = self.shared.dns.worth_a_look(&self.shared.settings) else { return };
        let reloads = self.reloads;
        let work = move |_: &jobs::Pulse| Outcome::NameServers(reloads, old.read_again(Path::new(RESOLV_CONF)));
        // No room now: the next time will do.
        let _ = self.shared.jobs.submit(None, Kind::Read, 0, work);
    }

    /// Shows these bulletins from now on; sessions that read the old ones go on reading them.
    fn pin_up(&mut self, read: Result<Option<Board>, Fault>) {
        match read {
            Ok(Some(board)) => {
                for remark in &board.remarks {
                    log::warn!("{remark}");
                }
                if !board.numbers.is_empty() || self.shared.board.mail.is_some() {
                    log::info!("{} bulletins are shown, the newest is {}", board.numbers.len(), board.newest);
                }
                self.shared.board = Arc::new(board);
                self.board_fault.clear();
            }
            Ok(None) => self.board_fault.clear(),
            // Said once, not at every look.
            Err(fault) => {
                let fault = fault.to_string();
                if self.board_fault != fault {
                    log::error!("bulletins stay as they were: {fault}");
                    self.board_fault = fault;
                }
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let (mut left, mut queue_ended, mut senders_ended, mut pickup_ended) = (0, None, false, None);
        while let Some((id, entry)) = self.lp.sweep() {
            match entry {
                Entry::Pop3(mut conversation) => {
                    conversation.give_back(&mut self.shared);
                    self.shared.places.leave(Crowd::Readers);
                    left += 1;
                    if let Some(left) = conversation.farewell(id, now, &mut self.shared) {
                        self.journal.record(left);
                    }
                }
                Entry::Smtp(mut conversation) => {
                    conversation.give_back(&mut self.shared);
                    match conversation.kind() {
                        Some(kind) => {
                            self.shared.places.leave(kind);
                            left += 1;
                        }
                        None => self.shared.programs -= 1,
                    }
                    conversation.farewell(id, now, &mut self.shared);
                }
                Entry::Control(_) => self.shared.controls -= 1,
                Entry::Queue(runner) => queue_ended = Some(runner),
                Entry::Sender(mut conversation) => conversation.farewell(now, &mut self.shared),
                Entry::Senders(_) => senders_ended = true,
                Entry::Pickup(pickup) => pickup_ended = Some(pickup),
                _ => {}
            }
        }
        if let Some(pickup) = pickup_ended {
            self.pickup = self.lp.insert(Entry::Pickup(Box::new(pickup.again(now)))).ok();
        }
        if let Some(runner) = queue_ended {
            // A fault of ours ended it. Without sources there is nothing that could fail to be registered.
            self.shared.transit.forget();
            self.shared.outgoing.forget();
            for id in self.end_senders(now) {
                self.lp.wake(id);
            }
            if let Ok(id) = self.lp.insert(Entry::Queue(Box::new(runner.again(now)))) {
                self.queue = id;
            }
        }
        if senders_ended && let Ok(id) = self.lp.insert(Entry::Senders(Box::default())) {
            self.shared.outgoing.begin_again();
            self.senders = id;
        }
        // What is kept for one kind may have stopped another's port well below the bound.
        if left > 0 && (self.shared.places.taken() + left) * 2 >= self.shared.places.most() {
            self.resume_ports();
        }
    }

    /// Connections to other hosts have a little time.
    fn end_senders(&mut self, now: Instant) -> Vec<Id> {
        let ended = self.lp.iter_mut().filter_map(|(id, entry)| match entry {
            Entry::Sender(conversation) => {
                conversation.end(now);
                Some(id)
            }
            _ => None,
        });
        ended.collect()
    }

    fn resume_ports(&mut self) {
        for &id in &self.ports {
            if let Some(Entry::Port(port)) = self.lp.get_mut(id) {
                port.0.resume();
                self.lp.wake(id);
            }
        }
    }

    /// Begins to stop: no new connections, clients are told, what was begun is finished.
    fn stop(&mut self) {
        if self.shared.stopping {
            return;
        }
        log::info!("stopping");
        self.shared.stopping = true;
        self.shared.transit.stop();
        self.stop_by = Some(self.lp.now() + STOP_PATIENCE);
        for id in std::mem::take(&mut self.ports) {
            self.lp.close(id);
        }
        let now = self.lp.now();
        self.shared.outgoing.list_all();
        let clients: Vec<Id> = (self.lp.iter_mut())
            .filter_map(|(id, entry)| match entry {
                Entry::Pop3(conversation) => {
                    conversation.end(End::Shutdown);
                    Some(id)
                }
                Entry::Smtp(conversation) => {
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
        let senders = self.end_senders(now);
        for id in clients.into_iter().chain(senders) {
            self.lp.wake(id);
        }
        for helpers in &mut self.shared.helpers {
            helpers.pool.stop(self.lp.now());
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let clients = self.shared.places.taken() + self.shared.programs;
        let at_rest = matches!(self.lp.get_mut(self.queue), Some(Entry::Queue(runner)) if runner.is_idle());
        let quiet = clients == 0 && self.shared.controls == 0 && self.shared.jobs.is_idle() && at_rest;
        let quiet = quiet && self.shared.outgoing.open() == 0;
        if quiet || now >= stop_by {
            if !quiet {
                log::warn!("stopping with {clients} sessions and {:?}", self.shared.jobs.load());
            }
            return true;
        }
        // Jobs end without an event of their own once the last one has been collected.
        false
    }
}

/// Says which addresses are this machine's. Where the system does not tell, those that it told before are.
fn own_addresses(outgoing: &mut send::Outgoing) {
    match network::own_addresses() {
        Ok(own) => outgoing.lives_at(own),
        Err(error) => log::debug!("addresses of this machine: {error}"),
    }
}

/// The process that is this copy of an authenticator, while it lives.
fn process<'l>(lp: &'l mut Loop<Entry>, helpers: &Helpers, copy: usize) -> Option<&'l mut helpers::Copy> {
    match lp.get_mut(helpers.copies[copy]?) {
        Some(Entry::Helper(process)) => Some(process),
        _ => None,
    }
}
