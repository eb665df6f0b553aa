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
use crate::protocol::dns::{Act, Question, Resolver, Rules, Socket, name_servers};
use crate::settings::Settings;

/// Where the system says which name servers to ask.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Bytes of that file that are read.
const CONF_LIMIT: u64 = 64 * 1024;
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
                Act::Note(text) => {
                    log::warn!("{text}");
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
