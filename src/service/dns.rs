//! Questions to name servers: asked by whoever has turns, answered as [`Outcome::Resolved`] with the same ticket.
//!
//! The resolver (`protocol/dns`) says whom to ask what; here are the entries of its sockets and where its servers come from:
//! `dns_host`, or else [`RESOLV_CONF`], which is read with the configuration, and looked at again, while there are questions,
//! when the house is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::{Outcome, Shared, Stamp};
use crate::net::datagram::{DATAGRAM, Exchange};
use crate::net::stream::{Readiness, Turn};
use crate::net::turn::{self, Id, Loop, Ticket};
use crate::net::{Registry, Token};
use crate::protocol::dns::{Act, IN_FLIGHT, Question, Resolver, Rules, STREAMS, Socket, name_servers};
use crate::settings::Settings;

/// Where the system says which name servers to ask.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Bytes of that file that are read.
const CONF_LIMIT: u64 = 64 * 1024;
/// Sockets that questions have at most.
pub const DESCRIPTORS: usize = IN_FLIGHT + STREAMS;
/// Datagrams, or parts of a stream, that one socket is read in one turn.
const BATCH: usize = 16;

/// The name servers that the system names, and what the file looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    stamp: Stamp,
    servers: Vec<SocketAddr>,
}

impl System {
    /// What that file says. One that cannot be read says nothing.
    pub fn read(path: &Path) -> System {
        let stamp = stamp(path);
        let mut text = Vec::new();
        if let Ok(file) = File::open(path) {
            // What was read before an error counts.
            let _ = file.take(CONF_LIMIT).read_to_end(&mut text);
        }
        System { stamp, servers: name_servers(&String::from_utf8_lossy(&text)) }
    }

    /// What it says now, if the file looks different.
    pub fn read_again(&self, path: &Path) -> Option<System> {
        (stamp(path) != self.stamp).then(|| System::read(path))
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = path.metadata().ok()?;
    Some((meta.ino(), meta.size(), meta.modified().ok()?))
}

/// Name servers, what is asked of them, and the sockets of that.
pub struct Dns {
    /// Who is asked what.
    pub resolver: Resolver<Ticket>,
    /// Where each of its sockets has its turns.
    sockets: HashMap<Socket, Id>,
    system: System,
    /// Questions when the system's file was last looked at.
    looked: u64,
}

impl Dns {
    /// As settings, or else the system, name the servers.
    pub fn new(settings: &Settings, system: System) -> Dns {
        let resolver = Resolver::new(&rules(settings, &system), Box::new(random));
        Dns { resolver, sockets: HashMap::new(), system, looked: 0 }
    }

    /// Other settings are in force, or the system names other servers.
    pub fn follow(&mut self, now: Instant, settings: &Settings, system: System) {
        self.resolver.set(now, &rules(settings, &system));
        self.system = system;
    }

    /// What the system said, if it is worth looking again: it counts, and somebody has asked since the last look.
    pub fn worth_a_look(&mut self, settings: &Settings) -> Option<System> {
        let questions = self.resolver.health().questions;
        let asked = std::mem::replace(&mut self.looked, questions) != questions;
        (asked && settings.dns_host.is_empty()).then(|| self.system.clone())
    }
}

fn rules(settings: &Settings, system: &System) -> Rules {
    let servers = if settings.dns_host.is_empty() { &system.servers } else { &settings.dns_host };
    Rules { servers: servers.clone(), timeout: Duration::from_secs(settings.dns_timeout) }
}

/// A number that nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // A system that gives no random bytes: keys of hash maps were drawn when it did.
        Err(_) => std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0),
    }
}

impl Shared {
    /// Asks a name server, or the memory of what one said. The answer comes as `Outcome::Resolved`, in the next turn or later.
    pub fn resolve(&mut self, now: Instant, ticket: Ticket, question: Question) {
        self.dns.resolver.ask(now, ticket, question);
    }

    /// Does what the resolver wants done: once a turn, behind everybody who may ask. `entry` makes one of a question.
    pub fn ask_name_servers<E>(&mut self, now: Instant, lp: &mut Loop<E>, entry: fn(Box<Query>) -> E)
    where
        E: turn::Entry,
    {
        let Dns { resolver, sockets, .. } = &mut self.dns;
        resolver.expire(now);
        while let Some(act) = resolver.poll(now) {
            let (socket, made) = match act {
                Act::Ask(socket, server, question) => (socket, Exchange::datagram(server, &question)),
                Act::Connect(socket, server, question) => (socket, Exchange::stream(server, question)),
                Act::Close(socket) => {
                    if let Some(id) = sockets.remove(&socket) {
                        lp.close(id);
                    }
                    continue;
                }
                Act::Done(ticket, answer) => {
                    self.post.push_back((ticket, Outcome::Resolved(answer)));
                    continue;
                }
                Act::Silent(server) => {
                    log::warn!("name server {server} does not answer");
                    continue;
                }
                Act::Back(server) => {
                    log::info!("name server {server} answers again");
                    continue;
                }
            };
            let made = made.and_then(|exchange| lp.insert(entry(Box::new(Query { socket, exchange }))));
            match made {
                Ok(id) => drop(sockets.insert(socket, id)),
                Err(error) => {
                    log::debug!("a name server: {error}");
                    resolver.failed(now, socket);
                }
            }
        }
    }
}

/// A socket of the resolver's, as something that has turns.
pub struct Query {
    socket: Socket,
    exchange: Exchange,
}

impl Query {
    /// Registers its socket.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.exchange.register(registry, token)
    }

    /// Takes it away again.
    pub fn deregister(&mut self, registry: &Registry) {
        self.exchange.deregister(registry);
    }

    /// The kernel says something about it.
    pub fn mark(&mut self, ready: Readiness) {
        self.exchange.mark(ready);
    }

    /// Hands on what came. The resolver says when this socket is to be closed.
    pub fn turn(&mut self, now: Instant, shared: &mut Shared) -> Turn {
        let mut room = [0; DATAGRAM];
        for _ in 0..BATCH {
            match self.exchange.receive(&mut room) {
                Ok(Some(count)) => shared.dns.resolver.received(now, self.socket, &room[..count]),
                Ok(None) => return Turn::Idle,
                Err(error) => {
                    log::debug!("a name server: {error}");
                    shared.dns.resolver.failed(now, self.socket);
                    return Turn::Idle;
                }
            }
        }
        Turn::Again
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::thread;

    use super::*;
    use crate::net::stream::Scratch;
    use crate::protocol::dns::tests::{record, reply, wire_name};
    use crate::protocol::dns::{Answer, Failure, Kind, Record};

    /// Whoever asks, and what is asked.
    enum Entry {
        Asker,
        Query(Box<Query>),
    }

    impl turn::Entry for Entry {
        type Shared = Shared;

        fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
            match self {
                Entry::Asker => Ok(()),
                Entry::Query(query) => query.register(registry, token(0)),
            }
        }
        fn deregister(&mut self, registry: &Registry) {
            if let Entry::Query(query) = self {
                query.deregister(registry);
            }
        }
        fn mark(&mut self, _: usize, ready: Readiness) {
            if let Entry::Query(query) = self {
                query.mark(ready);
            }
        }
        fn turn(&mut self, _: Id, now: Instant, shared: &mut Shared, _: &mut Scratch) -> Turn {
            match self {
                Entry::Asker => Turn::Idle,
                Entry::Query(query) => query.turn(now, shared),
            }
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn expire(&mut self, _: Instant) {}
        fn kind(&self) -> &'static str {
            "test"
        }
    }

    struct World {
        lp: Loop<Entry>,
        shared: Shared,
        asker: Id,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new(servers: Vec<SocketAddr>) -> World {
            let dir = tempfile::tempdir().unwrap();
            let mut lp = Loop::new().unwrap();
            let mut shared = Shared::for_tests(dir.path(), &lp);
            let mut settings = Settings::for_tests(dir.path());
            settings.dns_host = servers;
            shared.dns = Dns::new(&settings, System::read(Path::new("/dev/null")));
            let asker = lp.insert(Entry::Asker).unwrap();
            World { lp, shared, asker, _dir: dir }
        }

        /// Asks, and turns the loop until there is an answer.
        fn ask(&mut self, name: &str, kind: Kind) -> Answer {
            let ticket = Ticket { id: self.asker, serial: 7 };
            self.shared.resolve(self.lp.now(), ticket, Question { name: name.into(), kind });
            loop {
                let now = self.lp.now();
                self.shared.ask_name_servers(now, &mut self.lp, Entry::Query);
                while self.lp.sweep().is_some() {}
                if let Some((to, Outcome::Resolved(answer))) = self.shared.post.pop_front() {
                    assert_eq!(to, ticket);
                    return answer;
                }
                self.lp.poll(self.shared.deadline()).unwrap();
                self.lp.run(&mut self.shared);
            }
        }
    }

    fn text(length: usize) -> Vec<u8> {
        [&[255u8][..], &[b'x'; 255]].concat().repeat(length)
    }

    #[test]
    fn a_question_goes_out_and_its_answer_comes_back_as_datagram_and_as_stream() {
        let streams = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = streams.local_addr().unwrap();
        // Another process may have the same port for datagrams: that is no reason to fail.
        let Ok(datagrams) = UdpSocket::bind(address) else { return };
        let server = thread::spawn(move || {
            let mut room = [0; 4096];
            for _ in 0..2 {
                let (count, from) = datagrams.recv_from(&mut room).unwrap();
                let mut said = reply(&room[..count], 0, &[], &[]);
                if room[..count].windows(4).any(|part| part.eq_ignore_ascii_case(b"much")) {
                    said[2] |= 2;
                } else {
                    let mx = [&10u16.to_be_bytes()[..], &wire_name("mx.example.net")].concat();
                    said = reply(&room[..count], 0, &[record("example.org", 15, 60, &mx)], &[]);
                }
                datagrams.send_to(&said, from).unwrap();
            }
            let (mut peer, _) = streams.accept().unwrap();
            let mut length = [0; 2];
            peer.read_exact(&mut length).unwrap();
            let query = &mut room[..u16::from_be_bytes(length).into()];
            peer.read_exact(query).unwrap();
            let said = reply(query, 0, &[record("much.example.org", 16, 60, &text(200))], &[]);
            io::Write::write_all(&mut peer, &[&(said.len() as u16).to_be_bytes()[..], &said].concat()).unwrap();
        });
        let mut world = World::new(vec![address]);
        let host = Record::Mx { preference: 10, host: "mx.example.net".into() };
        assert_eq!(world.ask("example.org", Kind::Mx), Answer::Records([host.clone()].into()));
        assert_eq!(
            world.ask("much.example.org", Kind::Txt),
            Answer::Records([Record::Text([b'x'; 51_000].into())].into())
        );
        server.join().unwrap();
        assert_eq!(world.ask("example.org", Kind::Mx), Answer::Records([host].into()), "nobody is asked for it again");
        assert_eq!((world.lp.len(), world.shared.dns.sockets.len()), (1, 0), "every socket is closed");
    }

    #[test]
    fn a_server_that_is_not_there_is_passed_over() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut world = World::new(vec![gone, there.local_addr().unwrap()]);
        let server = thread::spawn(move || {
            let mut room = [0; 4096];
            let (count, from) = there.recv_from(&mut room).unwrap();
            there.send_to(&reply(&room[..count], 2, &[], &[]), from).unwrap();
        });
        let failed = world.ask("example.org", Kind::Mx);
        assert_eq!(failed, Answer::Failed(Failure::Refused));
        assert_eq!((world.lp.len(), world.shared.dns.sockets.len()), (1, 0));
        server.join().unwrap();
    }

    #[test]
    fn servers_are_those_of_the_settings_or_else_those_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("resolv.conf");
        let system = System::read(&conf);
        let servers = |dns: &Dns| dns.resolver.servers().map(|server| server.to_string()).collect::<Vec<_>>();
        let mut settings = Settings::for_tests(dir.path());
        let mut dns = Dns::new(&settings, system.clone());
        assert_eq!(servers(&dns), ["127.0.0.1:53"], "there is no such file");
        assert_eq!(system.read_again(&conf), None);
        std::fs::write(&conf, "nameserver 192.0.2.7\n").unwrap();
        assert_eq!(dns.worth_a_look(&settings), None, "nobody has asked");
        let mut lp: Loop<Entry> = Loop::new().unwrap();
        let ticket = Ticket { id: lp.insert(Entry::Asker).unwrap(), serial: 1 };
        dns.resolver.ask(lp.now(), ticket, Question { name: "a.test".into(), kind: Kind::A });
        let system = dns.worth_a_look(&settings).and_then(|system| system.read_again(&conf)).expect("it has changed");
        assert_eq!(dns.worth_a_look(&settings), None, "nobody has asked since");
        dns.follow(lp.now(), &settings, system.clone());
        assert_eq!(servers(&dns), ["192.0.2.7:53"]);
        settings.dns_host = vec!["[2001:db8::1]:5353".parse().unwrap()];
        dns.follow(lp.now(), &settings, system);
        assert_eq!(servers(&dns), ["[2001:db8::1]:5353"]);
        dns.resolver.ask(lp.now(), ticket, Question { name: "b.test".into(), kind: Kind::A });
        assert_eq!(dns.worth_a_look(&settings), None, "the system's do not count");
    }
}
