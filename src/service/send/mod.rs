//! Mail on its way to other hosts: what the queue wants to have brought to somebody is a [`Consignment`]; where it goes is a
//! [`Place`], by its hop's key; a connection there is a [`Conversation`], an entry of the loop.
//!
//! | file              | what it is                                                                            |
//! |-------------------|---------------------------------------------------------------------------------------|
//! | `place.rs`        | who waits for a place and which connections it has: values and times, no I/O           |
//! | `targets.rs`      | from a hop to addresses                                                               |
//! | `conversation.rs` | one connection: what the client's machine asks, and what it is told                    |
//! | `text.rs`         | the text of a message as it goes over the wire                                        |
//!
//! | a consignment is | what is done                                                              | it leaves by                          |
//! |------------------|---------------------------------------------------------------------------|---------------------------------------|
//! | Offered          | its place is found, or made                                               | Waiting; told: closed, full, paused    |
//! | Waiting          | a connection is made for it, or one that is there is called               | Under way; told: no target, too late   |
//! | Under way        | one transaction                                                           | all its recipients are told; those left, and all when the connection broke in the midst: Waiting, before others |
//!
//! **One outcome each.** A consignment is told of by [`Outcome::Sent`] with its ticket, in parts; each recipient is in exactly one
//! of them. A connection that breaks gives back only those of whom the host has not said anything, and only when the message's
//! end had not been sent; else they are [`Came::Possibly`]. One that broke [`ATTEMPTS`] connections is told [`Came::Later`].
//!
//! **One message in doubt.** When a transaction has outcomes its connection takes no other message before the runner says that they
//! are on disk ([`Outgoing::noted`]).
//!
//! **Bounds.** Connections: `send_connections` of a place, as its own bound allows, and `send_connections_max` of all, of which a
//! quarter is only for places that have none. Consignments that wait: [`place::WAITING`] of a place and [`WAITING`] of all, of which
//! a quarter, again, is for places where nobody waits. Places: [`PLACES`]; those that only remember that they are closed go first.
//! Who finds no room is told [`Came::NotTried`], and comes again soon; nothing of him is kept here.

mod conversation;
pub mod place;
mod targets;
mod text;

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::lanes::Message;
use super::{Outcome, Shared};
use crate::mail::address::Address;
use crate::net::stream::Turn;
use crate::net::tls::{self, Secure, Trust};
use crate::net::turn::{Id, Ticket};
use crate::protocol::smtp::params::Notify;
use crate::rules::hops::{Hop, Level, To};
use crate::rules::mx::Ourselves;
use crate::settings::Settings;
use crate::store::disk::{Disk, RealDisk};
use crate::store::queue::Envelope;
pub use conversation::Conversation;
use place::{Place, Step, Trouble, Turned};
use targets::{Search, Tag, Target};
pub use text::Piece;

/// Consignments that wait, for all places.
pub const WAITING: usize = 400;
/// Places that are known at a time.
pub const PLACES: usize = 4_096;
/// Connections that may break in the midst of a consignment before it waits for its next round.
const ATTEMPTS: u8 = 3;
/// Recipients of one transaction: what every server takes (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS: usize = 100;
/// How soon what was not tried comes again, at least, and how much later at most.
const AGAIN_SECS: (u64, u64) = (5, 10);
/// The same while sending is paused.
const PAUSED_SECS: u64 = 60;

/// What one place is to be brought: one message, from one sender, for some of its recipients.
pub struct Consignment {
    /// With which its outcomes come.
    pub(super) ticket: Ticket,
    pub(super) message: Arc<Message>,
    pub(super) envelope: Arc<Envelope>,
    /// From whom; `None`: nobody.
    pub(super) sender: Option<Address>,
    pub(super) recipients: Vec<To_>,
    pub(super) hop: Arc<Hop>,
    /// Connections that broke in its midst.
    pub(super) attempts: u8,
}

/// A recipient of a consignment.
pub struct To_ {
    /// Whatever the sender of the consignment calls it.
    pub(super) part: usize,
    pub(super) address: Address,
    pub(super) notify: Option<Notify>,
    pub(super) orcpt: Option<Box<str>>,
}

/// What came of a try for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// The host has it.
    Taken {
        /// Who said what, in one line.
        said: String,
        /// The host will report by itself where that was asked for.
        dsn: bool,
    },
    /// Not now: an enhanced code, and words. So for the next.
    Later(String),
    /// It never will.
    Never(String),
    /// The host may have it.
    Possibly(String),
    /// It waits there until somebody asks for it.
    Parked,
    /// Nothing was tried; how soon to come again, in seconds.
    NotTried(u64),
}

/// What came of some recipients of a consignment.
pub struct Sent {
    /// Each by its part.
    pub(super) fates: Vec<(usize, Came)>,
    /// To be told when this is on disk: [`Outgoing::noted`].
    pub(super) line: Option<u32>,
}

/// What happened since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were begun.
    pub connections: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// Messages that a host took; for each connection it was brought on one.
    pub messages: u64,
    /// Recipients for whom a host took one.
    pub taken: u64,
    /// Recipients whose message a host may have.
    pub possibly: u64,
    /// Consignments for which there was no room.
    pub not_tried: u64,
}

/// A connection that is to be made.
pub struct Birth {
    line: u32,
    target: Target,
    hop: Arc<Hop>,
    /// Without TLS: a handshake has failed there.
    clear: bool,
}

/// What a conversation is to do next.
enum Next {
    Take(Box<Consignment>),
    Wait,
    Leave,
}

struct Known {
    hop: Arc<Hop>,
    place: Place<Consignment, Target>,
    search: Option<Search>,
    /// It stands among those that are looked at next.
    listed: bool,
    deferred: u64,
    taken: u64,
}

struct Line {
    key: Arc<str>,
    id: Option<Id>,
    /// The connection is there.
    open: bool,
    /// Its place is needed.
    leaves: bool,
}

/// A place, for operators.
pub struct Shown<'o> {
    /// Its hop's key.
    pub key: &'o str,
    /// Consignments that wait.
    pub waiting: usize,
    /// Connections, and most that there may be now.
    pub connections: (usize, u16),
    /// Recipients for whom it took a message, and deferred ones.
    pub counts: (u64, u64),
    /// How long it is closed yet, and why.
    pub closed: Option<(Duration, &'o str)>,
}

/// See the page.
pub struct Outgoing {
    places: HashMap<Arc<str>, Known>,
    lines: HashMap<u32, Line>,
    /// Lines so far.
    number: u32,
    /// Questions so far.
    serial: u32,
    asked: HashMap<u32, (Arc<str>, Tag)>,
    /// Places to be looked at.
    listed: VecDeque<Arc<str>>,
    /// Places that would have a connection if there were room.
    hungry: VecDeque<Arc<str>>,
    /// When places are to be looked at.
    timers: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    waiting: usize,
    open: usize,
    born: Vec<Birth>,
    woken: Vec<Id>,
    /// Nothing is sent until an operator says so.
    paused: bool,
    anybody: Option<Arc<rustls_config::Config>>,
    roots: Option<Arc<rustls_config::Config>>,
    /// What happened.
    pub counts: Counts,
}
