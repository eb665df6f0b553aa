//! Orders that come in over the control socket. Root and whoever the server runs as may give them.

use std::io;
use std::time::Instant;

use super::Shared;
use crate::net::stream::{Body, Done, Host, Pull, Readiness, Scratch, Stream, Turn};
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, Token, UnixStream, watch};
use crate::protocol::End;
use crate::protocol::control::{Answer, Ask, Control};
use crate::sys::process;
use crate::text::bytes::Output;

/// Control connections at a time. They have their own bound, so that they work when everything else is full.
pub const MOST: usize = 16;

/// Reports are short: there is no long reply.
pub enum Never {}

impl Body for Never {
    fn pull(&mut self, _scratch: &mut [u8], _out: &mut Output) -> Pull {
        match *self {}
    }
}

/// Somebody who gives orders.
pub struct Conversation {
    stream: Stream<UnixStream, Control, Never>,
    allowed: bool,
    serial: u32,
}

impl Conversation {
    /// Somebody who has just come in.
    pub fn new(now: Instant, sock: UnixStream) -> io::Result<Conversation> {
        let uid = process::peer_uid(&sock)?;
        let allowed = uid == 0 || uid == process::own_uid();
        Ok(Conversation { stream: Stream::open(now, sock, Control::new(now), None)?, allowed, serial: 0 })
    }

    /// Registers the socket.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        watch(registry, self.stream.sock_mut(), token)
    }

    /// Takes it away again. An error means that it is gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.stream.sock_mut());
    }

    /// The kernel says something about the socket.
    pub fn mark(&mut self, ready: Readiness) {
        self.stream.mark(ready);
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        let mut host = Service { allowed: self.allowed, serial: &mut self.serial, shared, id };
        self.stream.turn(now, scratch, &mut host)
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.stream.deadline()
    }

    /// Silence.
    pub fn expire(&mut self, now: Instant) {
        self.stream.expire(now);
    }

    /// Ends it, for a reason of ours; an order that was given is still reported on.
    pub fn end(&mut self, why: End) {
        self.stream.end(why);
    }

    /// What came of an order.
    pub fn report(&mut self, ticket: Ticket, done: bool, text: String) {
        if ticket.serial == self.serial {
            self.stream.answer(Done::Now(Answer { done, text }));
        }
    }
}

struct Service<'a> {
    allowed: bool,
    serial: &'a mut u32,
    shared: &'a mut Shared,
    id: Id,
}

impl Host<Control> for Service<'_> {
    type Body = Never;

    fn perform(&mut self, _now: Instant, Ask(words): Ask) -> Done<Answer, Never> {
        if !self.allowed {
            let text = "only root and the user that the server runs as may give orders\n".to_owned();
            return Done::Now(Answer { done: false, text });
        }
        *self.serial += 1;
        self.shared.orders.push_back((Ticket { id: self.id, serial: *self.serial }, words));
        Done::Later
    }

    fn fetch(&mut self, _now: Instant, body: &mut Never) {
        match *body {}
    }
}
