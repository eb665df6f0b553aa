//! The text of a message in flight.
//!
//! | it is   | what moves                                            | it leaves by                        |
//! |---------|-------------------------------------------------------|-------------------------------------|
//! | Resting | pieces are taken into memory                          | a full piece, a full bound: Writing |
//! | Writing | a job writes what rests to its file; its sender is held | the job's end                     |
//! | Waiting | its sender is held until there is room                | room                                |
//! | Failed  | pieces are taken and forgotten                        | the commit, which answers the fault |
//!
//! What is whole and was never written stays in memory. Files have no name, in `bodies` of work_path.
//!
//! For its conversation: [`wait`](Body::wait) before each turn while text is taken, and hold the stream if it says so;
//! [`take`](Body::take) for each `Want::Data`; [`told`](Body::told) for each `Outcome::Body` that comes with a ticket given to
//! one of these, then release the stream.

use std::sync::Arc;

use crate::net::stream::Flow;
use crate::net::turn::Ticket;
use crate::service::Shared;
use crate::text::fault::Fault;

/// Memory of all texts.
#[derive(Default)]
pub struct Budget {}

/// The text of one message.
pub struct Body {
    _budget: Arc<Budget>,
    pub(super) text: Vec<u8>,
    fault: Option<Fault>,
}

/// What a held sender waited for.
pub enum Progress {
    /// A piece was written, or not.
    Wrote,
    /// There may be room now.
    Room,
}

impl Body {
    pub(super) fn new(budget: Arc<Budget>) -> Body {
        Body { _budget: budget, text: Vec::new(), fault: None }
    }

    /// Whether its sender may go on: if not, `Outcome::Body` comes with this ticket when he may.
    pub fn wait(&mut self, _ticket: Ticket, _shared: &mut Shared) -> Flow {
        Flow::More
    }

    /// Takes the next bytes, all of them. On `Hold`, `Outcome::Body` comes with this ticket when the sender may go on.
    pub fn take(&mut self, bytes: &[u8], _ticket: Ticket, _shared: &mut Shared) -> Flow {
        self.text.extend_from_slice(bytes);
        Flow::More
    }

    /// What its sender was held for.
    pub fn told(&mut self, _progress: Progress) {}

    /// Bytes that were taken.
    pub fn bytes(&self) -> u64 {
        self.text.len() as u64
    }

    /// Why it will be refused, if it will.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}
