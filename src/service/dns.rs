//! Questions to name servers: asked by whoever has turns, answered as [`Outcome::Resolved`] with the same ticket.

use std::time::Instant;

use super::{Outcome, Shared};
use crate::net::turn::Ticket;
use crate::protocol::dns::{Act, Question};

impl Shared {
    /// Asks a name server, or the memory of what one said. The answer comes as [`Outcome::Resolved`].
    pub fn resolve(&mut self, now: Instant, ticket: Ticket, question: Question) {
        self.dns.ask(now, ticket, question);
        while let Some(Act::Done(ticket, answer)) = self.dns.poll(now) {
            self.post.push_back((ticket, Outcome::Resolved(answer)));
        }
    }
}
