//! What has turns in this server: the list of what we serve is code.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Instant;

use crate::net::listen::{Accepted, BATCH, Listener};
use crate::net::signal::{Signal, Signals};
use crate::net::stream::{Readiness, Scratch, Turn};
use crate::net::turn::{self, Id};
use crate::net::{Registry, TcpListener, TcpStream, Token, UnixListener, watch};
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::smtp::reply as smtp_reply;
use crate::service::{
    Channel, Newborn, Port, Shared, Speaks, control, deliver, dns, helpers, pickup, pop3, send, smtp,
};

/// One thing in the loop. Small, because every slot of the table has room for the largest.
pub enum Entry {
    /// A port.
    Port(Box<(Listener<TcpListener>, Port)>),
    /// The control socket.
    Orders(Box<Listener<UnixListener>>),
    /// The socket of programs on this host that bring mail.
    Programs(Box<Listener<UnixListener>>),
    /// A POP3 client.
    Pop3(Box<pop3::Conversation>),
    /// A client that brings mail.
    Smtp(Box<smtp::Conversation>),
    /// Somebody with orders.
    Control(Box<control::Conversation>),
    /// What brings messages to their drops.
    Queue(Box<deliver::Runner>),
    /// What looks at the places where mail goes.
    Senders(Box<send::Office>),
    /// A connection to another host, for mail.
    Sender(Box<send::Conversation>),
    /// What takes messages that programs left.
    Pickup(Box<pickup::Pickup>),
    /// A question to a name server.
    Query(Box<dns::Query>),
    /// A copy of an authenticator.
    Helper(Box<helpers::Copy>),
    /// Signals, and what came.
    Signals(Box<(Signals, Vec<Signal>)>),
}

impl turn::Entry for Entry {
    type Shared = Shared;

    fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
        match self {
            Entry::Port(port) => watch(registry, &mut port.0.socket, token(0)),
            Entry::Orders(listener) | Entry::Programs(listener) => watch(registry, &mut listener.socket, token(0)),
            Entry::Smtp(conversation) => conversation.register(registry, token(0)),
            Entry::Pop3(conversation) => conversation.register(registry, token(0)),
            Entry::Control(conversation) => conversation.register(registry, token(0)),
            // It has none.
            Entry::Queue(_) | Entry::Senders(_) | Entry::Pickup(_) => Ok(()),
            Entry::Sender(conversation) => conversation.register(registry, token(0)),
            Entry::Query(query) => query.register(registry, token(0)),
            Entry::Helper(copy) => copy.register(registry, token),
            Entry::Signals(signals) => signals.0.register(registry, token(0)),
        }
    }

    fn deregister(&mut self, registry: &Registry) {
        match self {
            // An error means that it is gone already.
            Entry::Port(port) => drop(registry.deregister(&mut port.0.socket)),
            Entry::Orders(listener) | Entry::Programs(listener) => drop(registry.deregister(&mut listener.socket)),
            Entry::Smtp(conversation) => conversation.deregister(registry),
            Entry::Pop3(conversation) => conversation.deregister(registry),
            Entry::Control(conversation) => conversation.deregister(registry),
            Entry::Queue(_) | Entry::Senders(_) | Entry::Pickup(_) => {}
            Entry::Sender(conversation) => conversation.deregister(registry),
            Entry::Query(query) => query.deregister(registry),
            Entry::Helper(copy) => copy.deregister(registry),
            Entry::Signals(signals) => signals.0.deregister(registry),
        }
    }

    fn mark(&mut self, lane: usize, ready: Readiness) {
        match self {
            Entry::Port(port) => port.0.mark(),
            Entry::Orders(listener) | Entry::Programs(listener) => listener.mark(),
            Entry::Smtp(conversation) => conversation.mark(ready),
            Entry::Pop3(conversation) => conversation.mark(ready),
            Entry::Control(conversation) => conversation.mark(ready),
            Entry::Query(query) => query.mark(ready),
            Entry::Helper(copy) => copy.mark(lane, ready),
            Entry::Sender(conversation) => conversation.mark(ready),
            Entry::Queue(_) | Entry::Senders(_) | Entry::Pickup(_) | Entry::Signals(..) => {}
        }
    }

    fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        match self {
            Entry::Port(port) => {
                let (listener, port) = &mut **port;
                accept(listener, *port, now, shared)
            }
            Entry::Orders(listener) => orders(listener, now, shared),
            Entry::Programs(listener) => programs(listener, now, shared),
            Entry::Smtp(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Pop3(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Control(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Queue(runner) => runner.turn(id, now, shared),
            Entry::Senders(office) => office.turn(id, now, shared),
            Entry::Sender(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Pickup(pickup) => pickup.turn(id, now, shared),
            Entry::Query(query) => query.turn(now, shared),
            Entry::Helper(copy) => copy.turn(id, now, shared),
            Entry::Signals(signals) => {
                let (signals, came) = &mut **signals;
                came.extend(signals.take());
                Turn::Idle
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Entry::Port(port) => port.0.deadline(),
            Entry::Orders(listener) | Entry::Programs(listener) => listener.deadline(),
            Entry::Smtp(conversation) => conversation.deadline(),
            Entry::Pop3(conversation) => conversation.deadline(),
            Entry::Control(conversation) => conversation.deadline(),
            Entry::Queue(runner) => runner.deadline(),
            Entry::Senders(office) => office.deadline(),
            Entry::Sender(conversation) => conversation.deadline(),
            Entry::Pickup(pickup) => pickup.deadline(),
            // The resolver has the times of all.
            Entry::Query(_) | Entry::Helper(_) | Entry::Signals(..) => None,
        }
    }

    fn expire(&mut self, now: Instant) {
        match self {
            Entry::Port(port) => port.0.resume(),
            Entry::Orders(listener) | Entry::Programs(listener) => listener.resume(),
            Entry::Smtp(conversation) => conversation.expire(now),
            Entry::Pop3(conversation) => conversation.expire(now),
            Entry::Control(conversation) => conversation.expire(now),
            // The turn that follows does what is due.
            Entry::Sender(conversation) => conversation.expire(now),
            Entry::Queue(_) | Entry::Senders(_) | Entry::Pickup(_) | Entry::Query(_) => {}
            Entry::Helper(_) | Entry::Signals(..) => {}
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Entry::Port(..) => "port",
            Entry::Orders(_) => "orders",
            Entry::Programs(_) => "programs",
            Entry::Smtp(_) => "smtp",
            Entry::Pop3(_) => "pop3",
            Entry::Control(_) => "control",
            Entry::Queue(_) => "queue",
            Entry::Senders(_) => "senders",
            Entry::Sender(_) => "sender",
            Entry::Pickup(_) => "pickup",
            Entry::Query(_) => "query",
            Entry::Helper(_) => "helper",
            Entry::Signals(..) => "signals",
        }
    }
}

impl Entry {
    /// What there is to say of it as a connection, if it is a client's.
    pub fn channel(&self, now: Instant) -> Option<Channel> {
        match self {
            Entry::Pop3(conversation) => Some(conversation.channel(now)),
            Entry::Smtp(conversation) => Some(conversation.channel(now)),
            _ => None,
        }
    }
}

fn accept(listener: &mut Listener<TcpListener>, port: Port, now: Instant, shared: &mut Shared) -> Turn {
    for _ in 0..BATCH {
        if !listener.can_accept() {
            return Turn::Idle;
        }
        // Without room the rest wait in the kernel's queue until somebody leaves, or has to.
        if shared.stopping || !shared.places.has_room(port.kind()) {
            if !shared.stopping && listener.is_waited_for() {
                shared.crowded = Some(port.kind());
            }
            listener.rest(now);
            return Turn::Idle;
        }
        match listener.accept(now) {
            Accepted::Stream((stream, peer)) => {
                let settings = shared.settings.clone();
                if !shared.guard.enter(&settings, peer.ip()) {
                    shared.counts.access.over_prefix += 1;
                    let mut stream = stream;
                    match port.speaks {
                        Speaks::Pop3 => turn_away(&mut stream, port.tls, &Refusal::TooManyConnections.text()),
                        Speaks::Smtp(_) => turn_away(&mut stream, port.tls, &smtp_reply::TOO_MANY_CONNECTIONS),
                    }
                    continue;
                }
                shared.places.enter(port.kind());
                shared.counts.connections += 1;
                shared.newborn.push(match port.speaks {
                    Speaks::Pop3 => Newborn::Pop3 { stream, peer, tls: port.tls },
                    Speaks::Smtp(face) => {
                        shared.counts.smtp.connections += 1;
                        Newborn::Smtp { stream, peer, face, tls: port.tls }
                    }
                });
            }
            Accepted::Empty => return Turn::Idle,
            Accepted::Short => {
                shared.counts.short += 1;
                return Turn::Idle;
            }
        }
    }
    Turn::Again
}

/// One line where it can be read, and the end.
pub(super) fn turn_away(stream: &mut TcpStream, tls: bool, line: &dyn Display) {
    if !tls {
        // A socket this new has room for a line; a peer that is gone already needs none.
        let _ = stream.write_all(format!("{line}\r\n").as_bytes());
    }
}

fn orders(listener: &mut Listener<UnixListener>, now: Instant, shared: &mut Shared) -> Turn {
    while listener.can_accept() {
        if shared.controls >= control::MOST {
            listener.rest(now);
            break;
        }
        match listener.accept(now) {
            Accepted::Stream(stream) => {
                shared.controls += 1;
                shared.newborn.push(Newborn::Control(stream));
            }
            Accepted::Empty | Accepted::Short => break,
        }
    }
    Turn::Idle
}

fn programs(listener: &mut Listener<UnixListener>, now: Instant, shared: &mut Shared) -> Turn {
    while listener.can_accept() {
        if shared.programs >= smtp::MOST_PROGRAMS || shared.stopping {
            listener.rest(now);
            break;
        }
        match listener.accept(now) {
            Accepted::Stream(stream) => {
                shared.programs += 1;
                shared.knocked = true;
                shared.counts.smtp.connections += 1;
                shared.newborn.push(Newborn::Program(stream));
            }
            Accepted::Empty | Accepted::Short => break,
        }
    }
    Turn::Idle
}
