//! What has turns in this server: the list of what we serve is code.

use std::io::{self, Write};
use std::time::Instant;

use crate::net::listen::{Accepted, BATCH, Listener};
use crate::net::signal::{Signal, Signals};
use crate::net::stream::{Readiness, Scratch, Turn};
use crate::net::turn::{self, Id};
use crate::net::{Registry, TcpListener, TcpStream, Token, UnixListener, watch};
use crate::protocol::pop3::reply::Refusal;
use crate::service::{Newborn, Port, Shared, control, deliver, helpers, pop3};

/// One thing in the loop. Small, because every slot of the table has room for the largest.
pub enum Entry {
    /// A POP3 port.
    Port(Box<(Listener<TcpListener>, Port)>),
    /// The control socket.
    Orders(Box<Listener<UnixListener>>),
    /// A POP3 client.
    Pop3(Box<pop3::Conversation>),
    /// Somebody with orders.
    Control(Box<control::Conversation>),
    /// What brings messages to their drops.
    Queue(Box<deliver::Runner>),
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
            Entry::Orders(listener) => watch(registry, &mut listener.socket, token(0)),
            Entry::Pop3(conversation) => conversation.register(registry, token(0)),
            Entry::Control(conversation) => conversation.register(registry, token(0)),
            // It has none.
            Entry::Queue(_) => Ok(()),
            Entry::Helper(copy) => copy.register(registry, token),
            Entry::Signals(signals) => signals.0.register(registry, token(0)),
        }
    }

    fn deregister(&mut self, registry: &Registry) {
        match self {
            // An error means that it is gone already.
            Entry::Port(port) => drop(registry.deregister(&mut port.0.socket)),
            Entry::Orders(listener) => drop(registry.deregister(&mut listener.socket)),
            Entry::Pop3(conversation) => conversation.deregister(registry),
            Entry::Control(conversation) => conversation.deregister(registry),
            Entry::Queue(_) => {}
            Entry::Helper(copy) => copy.deregister(registry),
            Entry::Signals(signals) => signals.0.deregister(registry),
        }
    }

    fn mark(&mut self, lane: usize, ready: Readiness) {
        match self {
            Entry::Port(port) => port.0.mark(),
            Entry::Orders(listener) => listener.mark(),
            Entry::Pop3(conversation) => conversation.mark(ready),
            Entry::Control(conversation) => conversation.mark(ready),
            Entry::Helper(copy) => copy.mark(lane, ready),
            Entry::Queue(_) | Entry::Signals(..) => {}
        }
    }

    fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        match self {
            Entry::Port(port) => {
                let (listener, port) = &mut **port;
                accept(listener, *port, now, shared)
            }
            Entry::Orders(listener) => orders(listener, now, shared),
            Entry::Pop3(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Control(conversation) => conversation.turn(id, now, shared, scratch),
            Entry::Queue(runner) => runner.turn(id, now, shared),
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
            Entry::Orders(listener) => listener.deadline(),
            Entry::Pop3(conversation) => conversation.deadline(),
            Entry::Control(conversation) => conversation.deadline(),
            Entry::Queue(runner) => runner.deadline(),
            Entry::Helper(_) | Entry::Signals(..) => None,
        }
    }

    fn expire(&mut self, now: Instant) {
        match self {
            Entry::Port(port) => port.0.resume(),
            Entry::Orders(listener) => listener.resume(),
            Entry::Pop3(conversation) => conversation.expire(now),
            Entry::Control(conversation) => conversation.expire(now),
            // The turn that follows does what is due.
            Entry::Queue(_) | Entry::Helper(_) | Entry::Signals(..) => {}
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Entry::Port(..) => "port",
            Entry::Orders(_) => "orders",
            Entry::Pop3(_) => "pop3",
            Entry::Control(_) => "control",
            Entry::Queue(_) => "queue",
            Entry::Helper(_) => "helper",
            Entry::Signals(..) => "signals",
        }
    }
}

fn accept(listener: &mut Listener<TcpListener>, port: Port, now: Instant, shared: &mut Shared) -> Turn {
    for _ in 0..BATCH {
        if !listener.can_accept() {
            return Turn::Idle;
        }
        // At the cap the rest wait in the kernel's queue until somebody leaves, or has to.
        if shared.open >= shared.cap || shared.stopping {
            shared.crowded |= !shared.stopping && listener.is_waited_for();
            listener.rest(now);
            return Turn::Idle;
        }
        match listener.accept(now) {
            Accepted::Stream((stream, peer)) => {
                let settings = shared.settings.clone();
                if !shared.guard.enter(&settings, peer.ip()) {
                    shared.counts.access.over_prefix += 1;
                    turn_away(stream, port);
                    continue;
                }
                shared.open += 1;
                shared.counts.connections += 1;
                shared.newborn.push(Newborn::Pop3 { stream, peer, tls: port.tls });
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
fn turn_away(mut stream: TcpStream, port: Port) {
    if !port.tls {
        // A socket this new has room for a line; a peer that is gone already needs none.
        let _ = stream.write_all(format!("{}\r\n", Refusal::TooManyConnections.text()).as_bytes());
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
