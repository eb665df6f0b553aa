//! What becomes of a message between DATA and its drops: the promise of a 250, kept.
//!
//! | file        | what it is                                                                              |
//! |-------------|-----------------------------------------------------------------------------------------|
//! | `body.rs`   | the text of a message in flight: memory under one bound, beyond it files                |
//! | `runner.rs` | the entry of the loop that has messages delivered, and waits with those that cannot be  |
//!
//! | a message is | what is done                                                            | it leaves by                               |
//! |--------------|-------------------------------------------------------------------------|--------------------------------------------|
//! | Coming       | its text is taken: [`Body`]                                             | [`Transit::dispatch`]; its sender is gone  |
//! | Direct       | one drop has it to come: a letter for that drop                         | in the drop: 250; locked for long, failing: Queueing; nobody knows: no answer |
//! | Queueing     | its queue file is written and synced                                    | Queued; cannot be: 451 or 452              |
//! | Queued       | each recipient that is due is tried, and its state written to the file  | none is left: the file goes                |
//!
//! A message in Direct or Queueing does not notice that its sender is gone: what was begun has its effect, and nobody hears of
//! it. One in Queued was answered when its first round of tries had ended, or [`ROUND`] after its file was synced.
//!
//! **The promise.** `Kept` is said when the text is in a drop or in a queue file, synced; `Refused` when nothing of it is, or
//! ever will be; and nothing at all, the connection being closed, when that is not known.
//!
//! **Bounds.** Text in memory: `body_memory`, for the whole process. Messages in flight: one a connection, so the cap of
//! connections bounds them.

pub mod body;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::address::Address;
use crate::net::jobs::Kind;
use crate::net::turn::Ticket;
use crate::protocol::helper::Account;
use crate::protocol::smtp::params::{Recipient, Sender};
use crate::protocol::smtp::reply::Reply;
use crate::rules::domains::Name;
use crate::service::{Outcome, Shared, account};
use crate::settings::Settings;
use crate::store::delivery::{self, Envelope, Failed, Intents, Letter};
use crate::store::disk::RealDisk;
pub use body::{Body, Progress};

/// How long after its queue file was synced a sender waits, at the latest, for the first round of tries to end.
pub const ROUND: Duration = Duration::from_secs(5);

/// A message whose text is whole.
pub struct Parcel {
    /// Its id in the queue and in every log line: [`Transit::new_id`], drawn when the message began.
    pub id: Box<str>,
    /// Who sent it.
    pub sender: Sender,
    /// Who is to have it: as the client named them, and what that came to.
    pub recipients: Vec<To>,
    /// Our whole Received field, folded lines with it.
    pub received: Box<[u8]>,
    /// When it came, in seconds since 1970.
    pub posted_secs: i64,
    /// It was submitted by a user or a program of ours.
    pub is_ours: bool,
    /// Its text.
    pub body: Body,
}

/// A recipient that was taken at RCPT.
pub struct To {
    /// As the client named it.
    pub recipient: Recipient,
    /// Where that leads; nowhere: it is thrown away.
    pub destinations: Vec<Destination>,
}

/// A place where a message goes.
#[derive(Clone)]
pub enum Destination {
    /// A user's drop.
    Mailbox(Name, Arc<Account>),
    /// Another host.
    Remote(Address),
}

/// What becomes of a parcel, for whoever waits for it.
#[derive(Debug)]
pub enum Dispatched {
    /// It is kept for all its recipients: 250.
    Kept,
    /// Nothing of it is, nor will be: this for all of them.
    Refused(Reply),
    /// It is not known: the connection is to be closed without an answer.
    Unknown,
}

/// The way of messages to their drops, as conversations see it.
#[derive(Default)]
pub struct Transit {
    inbox: VecDeque<(Ticket, Parcel)>,
    budget: Arc<body::Budget>,
    is_short: bool,
}

impl Transit {
    /// An empty text, for a message that begins.
    pub fn body(&self) -> Body {
        Body::new(self.budget.clone())
    }

    /// An id for a message that begins: letters and digits that nobody can guess and that do not come twice.
    pub fn new_id(&self) -> Box<str> {
        let alphabet = b"0123456789abcdefghjkmnpqrstvwxyz";
        let random = crate::service::entering::random().unwrap_or_default();
        random.iter().take(12).map(|byte| char::from(alphabet[usize::from(byte % 32)])).collect::<String>().into()
    }

    /// Takes a message over. What becomes of it comes as `Outcome::Dispatched` with this ticket.
    pub fn dispatch(&mut self, ticket: Ticket, parcel: Parcel) {
        self.inbox.push_back((ticket, parcel));
    }

    /// Delivers what waits: each recipient's drop in turn, by one job a message.
    pub fn carry(shared: &mut Shared) {
        for (ticket, parcel) in std::mem::take(&mut shared.transit.inbox) {
            let (settings, disk) = (shared.settings.clone(), shared.disk());
            let work = move |_: &_| Outcome::Dispatched(carried(&parcel, &settings, &disk));
            if shared.jobs.submit(Some(ticket), Kind::Sync, 0, work).is_err() {
                shared.post.push_back((ticket, Outcome::Lost));
            }
        }
    }

    /// Less than `delivery_min_space` is free where drops or work files lie: no new message is to begin (452 4.3.1).
    pub fn is_short(&self) -> bool {
        self.is_short
    }
}

fn carried(parcel: &Parcel, settings: &Settings, disk: &RealDisk) -> Dispatched {
    let refused = |why: &str| {
        log::debug!("smtp {}: {why}", parcel.id);
        Dispatched::Refused(Reply::new(451, 3, 0, "Not possible just now; try again later"))
    };
    let [To { recipient, destinations }] = &parcel.recipients[..] else { return refused("one recipient at a time") };
    let [Destination::Mailbox(name, known)] = &destinations[..] else { return refused("one drop at a time") };
    let mut place = match account::place(name, known, settings) {
        Ok(place) => place,
        Err(why) => return refused(&why),
    };
    match known.uid.as_ref().map(|uid| account::owner(uid, settings.min_uid)).transpose() {
        Ok(owner) => place.owner = owner,
        Err(why) => return refused(&why),
    }
    let intents = match Intents::open_on(disk, &settings.work_path) {
        Ok(intents) => intents,
        Err(_) => return refused("the intent log is in use"),
    };
    let sender = parcel.sender.path.as_ref().map_or_else(String::new, ToString::to_string);
    let whose = recipient.path.to_string();
    let envelope = Envelope {
        sender: sender.as_bytes(),
        recipient: whose.as_bytes(),
        received: &parcel.received,
        posted_secs: parcel.posted_secs,
    };
    let letter = Letter { envelope, body: delivery::Body::Memory(&parcel.body.text), queued: None };
    match delivery::deliver(&intents, &place, &[letter]) {
        Ok(_) => Dispatched::Kept,
        Err(Failed::Refused(why)) => refused(&format!("{why:?}")),
        Err(Failed::Unknown(_)) => Dispatched::Unknown,
    }
}
