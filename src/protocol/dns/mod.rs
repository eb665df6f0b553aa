//! The resolver: who is asked what, until when, and what becomes of the answer. No I/O: calls in carry `now`, what is to be done
//! comes out of [`Resolver::poll`], drained to `None`.
//!
//! `wire.rs` writes and reads messages and says what is believed; `cache.rs` remembers; `conf.rs` reads resolv.conf. A question
//! that is not remembered becomes a *lookup*, one for all who ask the same meanwhile:
//!
//! | a lookup is | it gets here by                               | it leaves by                                          |
//! |-------------|-----------------------------------------------|-------------------------------------------------------|
//! | Queued      | a question, [`IN_FLIGHT`] others are on their way | a place: the first server is asked                |
//! | Asked       | `Act::Ask` of a fresh socket, `Act::Connect`  | an answer; failure of the socket; `timeout`           |
//! | Cut         | a truncated answer, [`STREAMS`] are open      | a place: `Act::Connect` to the same server; `timeout` |
//! | Resting     | every server was asked, none said anything, and one could not be reached | [`REST`]                   |
//! | Put off     | it had a place for [`HASTE`], its server has answered something within [`HELD`], and new questions wait | a place that no new question wants; `timeout`s |
//!
//! * **Servers** are asked one after the other, each once a round, rounds until [`TRIES`] times `timeout` are over. One that
//!   refuses, talks nonsense or cannot be reached by a stream is not asked again by that lookup; when none is left, or all others
//!   cannot be reached, it has failed.
//!   A server that let [`SILENT`] tries in a row pass comes after the others for [`HELD`].
//! * **Belief**: each try has a socket, an id and a mixture of cases of its own; what does not fit is passed over and counted.
//!   A truncated answer is asked for again over a stream.
//! * **Aliases** (CNAME) are followed, within an answer and from one to the next, [`HOPS`] in all; a circle ends there.
//! * **Names that are slow** hold up no others: who owns a domain can make its servers take their time, for as many names as he
//!   likes. So a lookup gives its place to a new one before its time is over, and a lookup that was put off gives way when
//!   [`OWED`] is reached. Where nobody else waits it has all its time.
//! * **Bounds**: [`OWED`] tickets, one more gets `Busy`; [`IN_FLIGHT`] lookups with a socket each; [`STREAMS`] streams of at most
//!   64 KB; [`KEPT`] records of an answer; the cache has its own.
//!
//! Promises: every ticket is answered exactly once, [`TRIES`] times `timeout` behind its question at the latest. `NoName` and
//! `NoData` are said by servers, never guessed; what nobody can tell is `Failed`, unless records are remembered that were good
//! within the last day: then those are the answer.

mod cache;
mod conf;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache::Cache;
pub use conf::{PORT, name_servers};
pub use wire::KEPT;
use wire::{Said, Sent};

/// Lookups on their way at a time; others wait.
pub const IN_FLIGHT: usize = 256;
/// Tickets that are owed an answer; one more gets `Busy` at once.
pub const OWED: usize = 4096;
/// Streams open at a time.
pub const STREAMS: usize = 32;
/// A lookup has so many times the time of one try.
pub const TRIES: u32 = 4;
/// Aliases followed for one question.
pub const HOPS: usize = 8;
/// Servers used, the first of those that are named.
pub const SERVERS: usize = 16;
/// How long a lookup rests when all servers were asked and one could not be reached: it may be starting again.
pub const REST: Duration = Duration::from_secs(1);
/// Tries that a server may let pass in a row until others are asked before it ...
pub const SILENT: u32 = 8;
/// ... for so long.
pub const HELD: Duration = Duration::from_secs(30);
/// How long a lookup keeps its place when others wait for one and its server answers them.
pub const HASTE: Duration = Duration::from_secs(1);
/// The longest message of a stream, with the two octets that say how long it is.
const STREAM_LIMIT: usize = 2 + u16::MAX as usize;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// In ASCII and lower case, without a dot at the end.
    pub name: Box<str>,
    /// Which records of it.
    pub kind: Kind,
}

/// Which records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where mail for a domain goes.
    Mx,
    /// Text.
    Txt,
    /// The name that belongs to an address.
    Ptr,
    /// Certificates of a service.
    Tlsa,
    /// Those of this number.
    Other(u16),
}

/// One record. Names are those of hosts ([`is_host`]), so that they can stand in a command or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Of A and AAAA.
    Address(IpAddr),
    /// Of MX.
    Mx {
        /// The lowest is tried first.
        preference: u16,
        /// In lower case; empty for the root, which says that the domain takes no mail (RFC 7505).
        host: Box<str>,
    },
    /// Of TXT, its strings put together: any bytes.
    Text(Box<[u8]>),
    /// Of PTR, in lower case.
    Name(Box<str>),
    /// Of all others, as it came.
    Other(Box<[u8]>),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These, and never none.
    Records(Arc<[Record]>),
    /// The name exists, but not with such records.
    NoData,
    /// There is no such name.
    NoName,
    /// Nobody could tell. Always temporary.
    Failed(Failure),
}

/// Why nobody could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No server answered in time.
    Silence,
    /// They answered that they cannot or will not tell: SERVFAIL, REFUSED.
    Refused,
    /// What they answered cannot be used: garbage, a circle of aliases, no host's name where one must be.
    Nonsense,
    /// Too much is being asked already.
    Busy,
}

/// What an administrator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whom to ask, in this order.
    pub servers: Vec<SocketAddr>,
    /// How long a server may take.
    pub timeout: Duration,
}

/// A socket of one try. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Socket(u64);

/// What the owner of the sockets has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Act<T> {
    /// Make a datagram socket, with a port of its own and connected to this server, and send these bytes. Say
    /// [`received`](Resolver::received) for each datagram that comes, [`failed`](Resolver::failed) when none can come.
    Ask(Socket, SocketAddr, Box<[u8]>),
    /// Make a stream to this server and write these bytes. Say [`received`](Resolver::received) as bytes come,
    /// [`failed`](Resolver::failed) when it cannot be made or ends.
    Connect(Socket, SocketAddr, Box<[u8]>),
    /// Nothing from this socket is of use any more.
    Close(Socket),
    /// This ticket's answer.
    Done(T, Answer),
    /// For the operator's log: this server has not answered for a while.
    Silent(SocketAddr),
    /// For the operator's log: it answers again.
    Back(SocketAddr),
}

/// How it is doing, for `tellsmtp status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Questions so far.
    pub questions: u64,
    /// Of those, answered from memory.
    pub remembered: u64,
    /// Of those, answered with records that were not good any more, because nobody could tell.
    pub stale: u64,
    /// Of those, that nobody could answer.
    pub failed: u64,
    /// Messages to servers.
    pub sent: u64,
    /// Of those, over streams.
    pub streams: u64,
    /// What came and was no answer.
    pub foreign: u64,
    /// Lookups on their way.
    pub asking: usize,
    /// Tickets that are owed an answer.
    pub owed: usize,
    /// Answers remembered.
    pub known: usize,
    /// Bytes that they and the lookups hold.
    pub bytes: usize,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Tries in a row that it let pass.
    silences: u32,
    /// Others come first until then.
    held: Option<Instant>,
    /// When it answered last.
    heard: Option<Instant>,
}

#[derive(Debug)]
struct Lookup<T> {
    question: Question,
    tickets: Vec<T>,
    /// Whom the aliases so far lead to.
    name: Box<str>,
    hops: usize,
    /// The least that anything found so far is good for, in seconds.
    ttl: u32,
    /// By then there is an answer.
    until: Instant,
    /// When time passes for its state: it stands in `timers` with this.
    due: Instant,
    state: State,
    /// Its number among those that have a place, and since when it has it.
    flight: (u64, Instant),
    /// Bits of servers that are not asked again.
    out: u32,
    /// Bits of servers that were asked in this round.
    tried: u32,
    /// In this round a server failed at once.
    hurried: bool,
    /// With EDNS.
    extended: bool,
    /// Without the mixture of cases.
    plain: bool,
    /// Why the last server could not tell.
    failure: Failure,
}

#[derive(Debug)]
enum State {
    Queued,
    Asked(Try),
    Cut { server: usize },
    Resting,
}

#[derive(Debug)]
struct Try {
    socket: Socket,
    server: usize,
    sent: Sent,
    /// What came of a stream.
    stream: Option<Vec<u8>>,
}

/// The resolver. `T` says whose question it is.
pub struct Resolver<T> {
    servers: Vec<Server>,
    timeout: Duration,
    random: Box<dyn FnMut() -> u64 + Send>,
    lookups: HashMap<u64, Lookup<T>>,
    /// The lookup for each question that is asked.
    asking: HashMap<Question, u64>,
    /// The lookup of each socket.
    sockets: HashMap<Socket, u64>,
    /// Lookups that wait for a place. Those that are gone are passed over.
    queue: VecDeque<u64>,
    /// The same of those that were put off.
    put_off: VecDeque<u64>,
    /// Lookups that have a place, by the number they had when they took it.
    flights: BTreeMap<u64, u64>,
    /// Those that wait for a stream.
    cut: VecDeque<u64>,
    /// Every lookup, with its `due`.
    timers: BTreeSet<(Instant, u64)>,
    acts: VecDeque<Act<T>>,
    /// Streams open.
    streams: usize,
    /// The last number given to a lookup or a socket.
    serial: u64,
    cache: Cache,
    health: Health,
}

impl<T> Resolver<T> {
    /// A resolver that has asked nothing yet. `random` makes ids and cases: nobody must be able to guess its numbers.
    pub fn new(rules: &Rules, random: Box<dyn FnMut() -> u64 + Send>) -> Resolver<T> {
        Resolver {
            servers: servers(rules),
            timeout: rules.timeout,
            random,
            lookups: HashMap::new(),
            asking: HashMap::new(),
            sockets: HashMap::new(),
            queue: VecDeque::new(),
            put_off: VecDeque::new(),
            flights: BTreeMap::new(),
            cut: VecDeque::new(),
            timers: BTreeSet::new(),
            acts: VecDeque::new(),
            streams: 0,
            serial: 0,
            cache: Cache::default(),
            health: Health::default(),
        }
    }

    /// Asks. The answer comes out of [`poll`](Resolver::poll) as `Done`, at once or later. A name that can be no host's is no
    /// name, and `localhost` is this host.
    pub fn ask(&mut self, now: Instant, ticket: T, question: Question) {
        self.health.questions += 1;
        if !is_host(&question.name) {
            return self.acts.push_back(Act::Done(ticket, Answer::NoName));
        }
        if let Some(answer) = here(&question) {
            return self.acts.push_back(Act::Done(ticket, answer));
        }
        if let Some(answer) = self.cache.find(now, &question) {
            self.health.remembered += 1;
            return self.acts.push_back(Act::Done(ticket, answer));
        }
        if self.health.owed >= OWED {
            self.give_up_one(now);
        }
        if self.health.owed >= OWED {
            let answer = self.failing(now, &question, Failure::Busy, 1);
            return self.acts.push_back(Act::Done(ticket, answer));
        }
        self.health.owed += 1;
        if let Some(lookup) = self.asking.get(&question).and_then(|key| self.lookups.get_mut(key)) {
            return lookup.tickets.push(ticket);
        }
        let (key, until) = (self.number(), now + self.timeout * TRIES);
        self.asking.insert(question.clone(), key);
        self.timers.insert((until, key));
        self.queue.push_back(key);
        let lookup = Lookup {
            name: question.name.clone(),
            question,
            tickets: vec![ticket],
            hops: 0,
            ttl: u32::MAX,
            until,
            due: until,
            state: State::Queued,
            flight: (0, now),
            out: 0,
            tried: 0,
            hurried: false,
            extended: true,
            plain: false,
            failure: Failure::Busy,
        };
        self.lookups.insert(key, lookup);
    }

    /// Bytes came: a datagram, or the next part of a stream.
    pub fn received(&mut self, now: Instant, socket: Socket, bytes: &[u8]) {
        let Some(&key) = self.sockets.get(&socket) else { return };
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        let State::Asked(asked) = &mut lookup.state else { return };
        let server = asked.server;
        let said = match &mut asked.stream {
            None => wire::read(bytes, &asked.sent),
            Some(stream) => {
                stream.extend_from_slice(&bytes[..bytes.len().min(STREAM_LIMIT - stream.len())]);
                let Some((length, message)) = stream.split_first_chunk() else { return };
                let Some(message) = message.get(..u16::from_be_bytes(*length).into()) else { return };
                match wire::read(message, &asked.sent) {
                    // Nobody else can write there.
                    Said::Foreign | Said::Truncated => Said::Nonsense,
                    said => said,
                }
            }
        };
        if said == Said::Foreign {
            self.health.foreign += 1;
            return;
        }
        self.alive(now, server);
        self.release(key);
        self.said(now, key, server, said);
    }

    /// This socket could not be made or used, or has ended.
    pub fn failed(&mut self, now: Instant, socket: Socket) {
        let Some(&key) = self.sockets.get(&socket) else { return };
        let Some(tried) = self.release(key) else { return };
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        lookup.failure = Failure::Silence;
        lookup.hurried = true;
        if tried.stream.is_some() {
            lookup.out |= 1 << tried.server;
        }
        self.next(now, key);
    }

    /// Time passed: call when [`deadline`](Resolver::deadline) is over.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.timers.first()
            && due <= now
        {
            let Some(lookup) = self.lookups.get_mut(&key) else {
                self.timers.pop_first();
                continue;
            };
            let until = lookup.until;
            match lookup.state {
                State::Asked(_) => {
                    lookup.failure = Failure::Silence;
                    if let Some(tried) = self.release(key) {
                        self.silent(now, tried.server);
                    }
                }
                State::Cut { .. } => lookup.failure = Failure::Busy,
                State::Queued | State::Resting => {}
            }
            if until <= now { self.fail(now, key) } else { self.next(now, key) }
        }
    }

    /// What is to be done now; `None` when there is nothing (more) to do.
    pub fn poll(&mut self, now: Instant) -> Option<Act<T>> {
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            if self.streams < STREAMS
                && let Some(key) = self.cut.pop_front()
            {
                if let Some(&Lookup { state: State::Cut { server }, .. }) = self.lookups.get(&key) {
                    self.send(now, key, server, true);
                }
            } else if self.flights.len() < IN_FLIGHT {
                let key = self.queue.pop_front().or_else(|| self.put_off.pop_front())?;
                let number = self.number();
                if let Some(lookup) = self.lookups.get_mut(&key) {
                    lookup.flight = (number, now);
                    self.flights.insert(number, key);
                    self.next(now, key);
                }
            } else {
                while self.queue.front().is_some_and(|key| !self.lookups.contains_key(key)) {
                    self.queue.pop_front();
                }
                let (key, _) = self.slow().filter(|(_, due)| *due <= now)?;
                self.put_off(key);
            }
        }
    }

    /// When [`expire`](Resolver::expire) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.timers.first().map(|&(due, _)| due);
        let slow = self.slow().map(|(_, due)| due);
        due.into_iter().chain(slow).min()
    }

    /// Other rules are in force. Other servers may tell other things: what the old ones said is forgotten, and what they are
    /// being asked the new ones are asked anew.
    pub fn set(&mut self, now: Instant, rules: &Rules) {
        self.timeout = rules.timeout;
        let new = servers(rules);
        if new.iter().map(|server| server.address).eq(self.servers.iter().map(|server| server.address)) {
            return;
        }
        self.servers = new;
        self.cache.clear();
        let flying = self.lookups.iter().filter(|(_, lookup)| !matches!(lookup.state, State::Queued));
        let keys: Vec<u64> = flying.map(|(&key, _)| key).collect();
        for key in keys {
            self.release(key);
            if let Some(lookup) = self.lookups.get_mut(&key) {
                (lookup.out, lookup.tried, lookup.hurried) = (0, 0, false);
            }
            self.next(now, key);
        }
    }

    /// Whom it asks.
    pub fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().map(|server| server.address)
    }

    /// Forgets all answers; how many that were.
    pub fn forget(&mut self) -> usize {
        self.cache.clear()
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        let lookups = self.lookups.capacity() * size_of::<(u64, Lookup<T>)>();
        Health {
            asking: self.flights.len(),
            known: self.cache.len(),
            bytes: self.cache.bytes() + lookups,
            ..self.health
        }
    }

    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The first that is to give its place to one that waits, and when; `None`: nobody waits, or nobody is to.
    fn slow(&self) -> Option<(u64, Instant)> {
        if self.queue.is_empty() || self.flights.len() < IN_FLIGHT {
            return None;
        }
        self.flights.values().find_map(|key| {
            let lookup = self.lookups.get(key)?;
            let State::Asked(asked) = &lookup.state else { return None };
            let due = lookup.flight.1 + HASTE;
            // One that answers nobody is found out by the time that it takes.
            let answers = self.servers.get(asked.server)?.heard.is_some_and(|heard| due < heard + HELD);
            answers.then_some((*key, due))
        })
    }

    /// Another has its place, and it waits again.
    fn put_off(&mut self, key: u64) {
        self.release(key);
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        lookup.state = State::Queued;
        self.flights.remove(&lookup.flight.0);
        self.put_off.push_back(key);
        let until = lookup.until;
        self.time(key, until);
    }

    /// Of those that were put off the first is not asked for any more.
    fn give_up_one(&mut self, now: Instant) {
        while let Some(key) = self.put_off.pop_front() {
            if self.lookups.contains_key(&key) {
                return self.fail(now, key);
            }
        }
    }

    /// A server has answered.
    fn alive(&mut self, now: Instant, server: usize) {
        let Some(server) = self.servers.get_mut(server) else { return };
        (server.silences, server.heard) = (0, Some(now));
        if server.held.take().is_some() {
            self.acts.push_back(Act::Back(server.address));
        }
    }

    /// A server has let a try pass.
    fn silent(&mut self, now: Instant, server: usize) {
        let Some(server) = self.servers.get_mut(server) else { return };
        server.silences += 1;
        if server.silences < SILENT {
            return;
        }
        if server.held.replace(now + HELD).is_none() {
            self.acts.push_back(Act::Silent(server.address));
        }
    }

    /// The socket of a lookup, if it has one, is done with.
    fn release(&mut self, key: u64) -> Option<Try> {
        let lookup = self.lookups.get_mut(&key)?;
        let State::Asked(_) = lookup.state else { return None };
        let State::Asked(tried) = std::mem::replace(&mut lookup.state, State::Resting) else { return None };
        self.sockets.remove(&tried.socket);
        self.streams -= usize::from(tried.stream.is_some());
        self.acts.push_back(Act::Close(tried.socket));
        Some(tried)
    }

    /// A server has answered a lookup that has no socket now.
    fn said(&mut self, now: Instant, key: u64, server: usize, said: Said) {
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        let mut out = |failure| {
            lookup.failure = failure;
            lookup.out |= 1 << server;
        };
        match said {
            Said::Foreign => {}
            Said::OtherCase => {
                lookup.plain = true;
                return self.send(now, key, server, false);
            }
            Said::Truncated => {
                lookup.state = State::Cut { server };
                self.cut.push_back(key);
                return self.time(key, now + self.timeout);
            }
            Said::Misunderstood if lookup.extended => {
                lookup.extended = false;
                return self.send(now, key, server, false);
            }
            Said::Misunderstood | Said::Refused => out(Failure::Refused),
            Said::Nonsense => out(Failure::Nonsense),
            Said::Records { records, hops, ttl } => {
                if lookup.hops + hops <= HOPS {
                    let ttl = ttl.min(lookup.ttl);
                    return self.finish(now, key, Answer::Records(records.into()), ttl);
                }
                lookup.failure = Failure::Nonsense;
                return self.fail(now, key);
            }
            Said::Alias { target, hops, ttl } => {
                lookup.hops += hops;
                lookup.ttl = lookup.ttl.min(ttl);
                if lookup.hops > HOPS {
                    lookup.failure = Failure::Nonsense;
                    return self.fail(now, key);
                }
                lookup.name = target;
                (lookup.out, lookup.tried, lookup.hurried) = (0, 0, false);
                (lookup.extended, lookup.plain) = (true, false);
            }
            Said::NoData { ttl } => {
                let ttl = ttl.min(lookup.ttl);
                return self.finish(now, key, Answer::NoData, ttl);
            }
            Said::NoName { ttl } => {
                let ttl = ttl.min(lookup.ttl);
                return self.finish(now, key, Answer::NoName, ttl);
            }
        }
        self.next(now, key);
    }

    /// Asks the next server, or rests first, or gives up.
    fn next(&mut self, now: Instant, key: u64) {
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        let left = |done: u32| (0..self.servers.len()).filter(move |server| done & (1 << server) == 0);
        if lookup.until <= now || left(lookup.out).next().is_none() {
            return self.fail(now, key);
        }
        if left(lookup.out | lookup.tried).next().is_none() {
            lookup.tried = 0;
            if std::mem::take(&mut lookup.hurried) {
                if lookup.out != 0 {
                    return self.fail(now, key);
                }
                lookup.state = State::Resting;
                return self.time(key, now + REST);
            }
        }
        let held = |&server: &usize| self.servers[server].held.is_some_and(|until| now < until);
        // The first of those that are not held, or else of those that are.
        let Some(server) = left(lookup.out | lookup.tried).min_by_key(held) else { return };
        self.send(now, key, server, false);
    }

    /// Asks this server.
    fn send(&mut self, now: Instant, key: u64, server: usize, stream: bool) {
        let socket = Socket(self.number());
        let id = (self.random)() as u16;
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        let name = if lookup.plain { lookup.name.clone() } else { mixed(&lookup.name, &mut self.random) };
        let sent = Sent { id, name, kind: lookup.question.kind, plain: lookup.plain };
        let Some(query) = wire::query(&sent, lookup.extended) else {
            // Only names that can be asked about get here.
            lookup.failure = Failure::Nonsense;
            return self.fail(now, key);
        };
        let (query, address) = (query.as_ref(), self.servers[server].address);
        lookup.tried |= 1 << server;
        lookup.state = State::Asked(Try { socket, server, sent, stream: stream.then(Vec::new) });
        self.sockets.insert(socket, key);
        self.health.sent += 1;
        self.acts.push_back(if stream {
            self.streams += 1;
            self.health.streams += 1;
            let length = u16::try_from(query.len()).expect("a question is at most 512 octets");
            Act::Connect(socket, address, [&length.to_be_bytes(), query].concat().into())
        } else {
            Act::Ask(socket, address, query.into())
        });
        self.time(key, now + self.timeout);
    }

    /// Time passes for this lookup then, or when its own is over.
    fn time(&mut self, key: u64, due: Instant) {
        let Some(lookup) = self.lookups.get_mut(&key) else { return };
        self.timers.remove(&(lookup.due, key));
        lookup.due = due.min(lookup.until);
        self.timers.insert((lookup.due, key));
    }

    /// Nobody could tell.
    fn fail(&mut self, now: Instant, key: u64) {
        let Some(lookup) = self.remove(key) else { return };
        let answer = self.failing(now, &lookup.question, lookup.failure, lookup.tickets.len());
        self.tell(lookup.tickets, &answer);
    }

    /// There is an answer, good for so many seconds.
    fn finish(&mut self, now: Instant, key: u64, answer: Answer, ttl: u32) {
        let Some(lookup) = self.remove(key) else { return };
        self.cache.put(now, &lookup.question, &answer, ttl);
        self.tell(lookup.tickets, &answer);
    }

    fn remove(&mut self, key: u64) -> Option<Lookup<T>> {
        self.release(key);
        let lookup = self.lookups.remove(&key)?;
        self.timers.remove(&(lookup.due, key));
        self.asking.remove(&lookup.question);
        self.flights.remove(&lookup.flight.0);
        if self.lookups.is_empty() && self.lookups.capacity() > 2 * IN_FLIGHT {
            // What a burst made them grow to, a megabyte at most, is given back.
            self.lookups = HashMap::new();
            self.asking = HashMap::new();
            self.queue = VecDeque::new();
        }
        Some(lookup)
    }

    fn tell(&mut self, tickets: Vec<T>, answer: &Answer) {
        self.health.owed -= tickets.len();
        self.acts.extend(tickets.into_iter().map(|ticket| Act::Done(ticket, answer.clone())));
    }

    /// What so many tickets are told when nobody can tell.
    fn failing(&mut self, now: Instant, question: &Question, failure: Failure, tickets: usize) -> Answer {
        let stale = self.cache.stale(now, question);
        *(if stale.is_some() { &mut self.health.stale } else { &mut self.health.failed }) += tickets as u64;
        stale.unwrap_or(Answer::Failed(failure))
    }
}

/// What is known without asking anybody: where this host is (RFC 6761 section 6.3).
fn here(question: &Question) -> Option<Answer> {
    if question.name.rsplit('.').next() != Some("localhost") {
        return None;
    }
    Some(match question.kind {
        Kind::A => Answer::Records([Record::Address(Ipv4Addr::LOCALHOST.into())].into()),
        Kind::Aaaa => Answer::Records([Record::Address(Ipv6Addr::LOCALHOST.into())].into()),
        _ => Answer::NoData,
    })
}

fn servers(rules: &Rules) -> Vec<Server> {
    let servers = rules.servers.iter().take(SERVERS);
    servers.map(|&address| Server { address, silences: 0, held: None, heard: None }).collect()
}

/// The name with each letter in a case that nobody can guess: what answers it without having seen it must guess that too.
fn mixed(name: &str, random: &mut dyn FnMut() -> u64) -> Box<str> {
    let (mut bits, mut left) = (0, 0);
    let mixed = name.chars().map(|letter| {
        if left == 0 {
            (bits, left) = (random(), u64::BITS);
        }
        (bits, left) = (bits >> 1, left - 1);
        if bits & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
    });
    mixed.collect::<String>().into()
}

/// Whether this can be the name of a host, or of something below one: letters, digits, hyphens and underscores in labels
/// of 1 to 63, 253 in all. Such a name can stand in a command, a header or the log as it is.
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
pub(crate) mod tests;
