//! From a recipient to the places where its mail goes.

use std::sync::Arc;
use std::time::Instant;

use super::{Outcome, Shared};
use crate::mail::address::Address;
use crate::net::turn::Ticket;
use crate::protocol::helper::Account;
use crate::protocol::smtp::reply::Reply;
use crate::rules::domains::Name;
pub use crate::rules::route::Program;

/// A place where a message goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A user's drop.
    Mailbox(Name, Arc<Account>),
    /// Another host.
    Remote(Address),
    /// A program of this machine.
    Program(Program),
    /// An address of ours, one of several that an address stands for, that cannot have it now, or that nobody has: it is kept
    /// in the queue, which asks where it leads when it is tried, and tells the sender what it hears.
    Local(Address),
}

/// A destination, and who hears of it when it cannot be reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where.
    pub to: Destination,
    /// Who is its sender from here on, in place of the message's: `owner-LIST`.
    pub sender: Option<Address>,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// An outcome comes with that ticket: give it to [`Routing::told`].
    Asked,
    /// It is known: where it goes, nowhere when it is thrown away; or what the client hears.
    Settled(Result<Vec<Way>, Reply>),
}

/// One recipient, on its way to its destinations.
pub struct Routing {}

impl Routing {
    /// A recipient whose mail is for us to route ([`is_ours`](super::relay::is_ours)), or another host's. `octets`: the
    /// message's size as its sender has announced it, 0 when he has not. `explain`: keep what was applied.
    pub fn begin(recipient: &Address, octets: u64, explain: bool, shared: &Shared) -> Routing {
        let _ = (recipient, octets, explain, shared);
        todo!("skeleton")
    }

    /// Goes on as far as it can; what it has to ask is asked with this ticket.
    pub fn go_on(&mut self, now: Instant, ticket: Ticket, shared: &mut Shared) -> Step {
        let _ = (now, ticket, shared);
        todo!("skeleton")
    }

    /// What was asked has been answered: goes on with a new ticket.
    pub fn told(&mut self, now: Instant, outcome: Outcome, ticket: Ticket, shared: &mut Shared) -> Step {
        let _ = (now, outcome, ticket, shared);
        todo!("skeleton")
    }

    /// What was applied, a line each: setting or file and line, and what it made of the address.
    pub fn trail(&self) -> Vec<String> {
        todo!("skeleton")
    }
}
