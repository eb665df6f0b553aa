//! The entry of the loop that takes what programs have left in the drop directory: [`store::pickup`](crate::store::pickup) says
//! how, here is when.
//!
//! | state   | what is under way                                   | leaves by                                            |
//! |---------|-----------------------------------------------------|------------------------------------------------------|
//! | Resting | nothing                                             | `pickup_secs`; somebody came to `submit.sock`        |
//! | Looking | a job that lists the directory                      | names: Taking; none: Resting                         |
//! | Taking  | a job that brings one message into the queue        | the last one: Resting, or Looking where there are more |
//!
//! It begins when the queue has been looked through, and looks at most once a second however often somebody comes. One job at
//! a time: messages that wait have waited before, and senders who wait come first. A fault of our disks ends a round; what is no
//! message does not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Outcome, Shared, relay};
use crate::mail::received::{From, Received, With};
use crate::net::jobs::Kind;
use crate::net::stream::Turn;
use crate::net::turn::{Id, Ticket};
use crate::rules::traffic::Class;
use crate::settings::Settings;
use crate::store::pickup::{About, BATCH, Bad, Incoming, Slip, Taken, Terms};
use crate::store::queue;
use crate::sys::user;
use crate::text::fault::Fault;
use crate::text::printable::printable;

/// How soon a look may follow another.
const SOON: Duration = Duration::from_secs(1);

/// See the page.
pub struct Pickup {
    incoming: Arc<Incoming>,
    /// The volume of work_path.
    volume: u64,
    /// Tickets so far.
    serial: u32,
    state: State,
    /// When the last look began, if there was one.
    looked: Option<Instant>,
    /// When the next is due.
    next: Instant,
}

enum State {
    Resting,
    Looking,
    /// Those that come after the one under way, and whether there may be more in the directory.
    Taking(std::vec::IntoIter<String>, bool),
}

/// What a job of ours gives back.
pub enum Done {
    /// What lies in the directory.
    Found(Result<Vec<String>, Fault>),
    /// What became of the message of that name.
    Took(String, Took),
}

/// What became of one that lay there.
pub enum Took {
    /// It is in the queue, and only there.
    Taken(Box<Taken>),
    /// It was none any more.
    Gone,
    /// It is no message: why, and where it is now; nowhere: it was removed.
    Aside(String, Result<Option<PathBuf>, Fault>),
    /// The disk or the system failed.
    Failed(Fault),
}

impl Pickup {
    /// Opens the drop directory for these settings, and settles what a crash left half taken, before the queue is tried for the
    /// first time. Waits for the disk: at start. Refuses with a sentence.
    pub fn open(now: Instant, settings: &Settings, group: Option<u32>, queue: &queue::Queue) -> Result<Pickup, String> {
        let incoming = Incoming::open(&settings.work_path, group).map_err(|fault| {
            let remedy = "the user that the server runs as must be a member of submit_group, since it started, or root";
            match group {
                Some(_) => format!("{fault}; {remedy}"),
                None => fault.to_string(),
            }
        })?;
        let settled = incoming.settle(queue).map_err(|fault| fault.to_string())?;
        if settled > 0 {
            log::info!("{settled} messages that the last server had taken from programs are settled");
        }
        let about = |error: io::Error| format!("{}: {error}", settings.work_path.display());
        let volume = fs::metadata(&settings.work_path).map_err(about)?.dev();
        Ok(Pickup { incoming: Arc::new(incoming), volume, serial: 0, state: State::Resting, looked: None, next: now })
    }

    /// The same for one that a fault of ours has ended.
    pub fn again(self, now: Instant) -> Pickup {
        Pickup { state: State::Resting, next: now + SOON, ..self }
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared) -> Turn {
        if std::mem::take(&mut shared.knocked) {
            // Whoever came may have left something a moment ago.
            let soon = self.looked.map_or(now, |looked| looked + SOON);
            self.next = self.next.min(soon);
        }
        if matches!(self.state, State::Resting) && self.next <= now && !shared.stopping {
            self.looked = Some(now);
            self.next = now + Duration::from_secs(shared.settings.pickup_secs);
            if shared.transit.is_ready() {
                self.look(id, shared);
            } else {
                self.next = now + SOON;
            }
        }
        Turn::Idle
    }

    /// When it wants a [`turn`](Pickup::turn).
    pub fn deadline(&self) -> Option<Instant> {
        matches!(self.state, State::Resting).then_some(self.next)
    }

    /// What came of a job. False: it came too late.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        if ticket.serial != self.serial {
            return false;
        }
        match (std::mem::replace(&mut self.state, State::Resting), outcome) {
            (State::Looking, Outcome::Pickup(done)) => match *done {
                Done::Found(Ok(names)) => {
                    let more = names.len() >= BATCH;
                    self.take_next(ticket.id, now, names.into_iter(), more, shared);
                }
                Done::Found(Err(fault)) => log::error!("messages of programs: {fault}"),
                Done::Took(..) => {}
            },
            (State::Taking(names, more), Outcome::Pickup(done)) => {
                let Done::Took(name, took) = *done else { return true };
                if note(&name, took, shared) {
                    self.take_next(ticket.id, now, names, more, shared);
                }
            }
            // A fault of ours in a job: the next round tries again.
            _ => {}
        }
        true
    }

    fn look(&mut self, id: Id, shared: &mut Shared) {
        let incoming = self.incoming.clone();
        let ticket = self.ticket(id);
        let work = move |_: &_| Outcome::Pickup(Box::new(Done::Found(incoming.names())));
        if shared.jobs.submit(Some(ticket), Kind::Read, self.volume, work).is_ok() {
            self.state = State::Looking;
        }
    }

    fn take_next(
        &mut self,
        id: Id,
        now: Instant,
        mut names: std::vec::IntoIter<String>,
        more: bool,
        shared: &mut Shared,
    ) {
        let Some(name) = names.next().filter(|_| !shared.stopping) else {
            if more {
                self.next = now;
            }
            return;
        };
        let (incoming, queue, settings) = (self.incoming.clone(), shared.transit.queue(), shared.settings.clone());
        let ticket = self.ticket(id);
        let work = move |_: &_| {
            let took = take(&incoming, &name, &queue, &settings);
            Outcome::Pickup(Box::new(Done::Took(name, took)))
        };
        if shared.jobs.submit(Some(ticket), Kind::Sync, self.volume, work).is_ok() {
            self.state = State::Taking(names, more);
        }
    }

    fn ticket(&mut self, id: Id) -> Ticket {
        self.serial = self.serial.wrapping_add(1);
        Ticket { id, serial: self.serial }
    }
}

/// One message, in a job.
fn take(incoming: &Incoming, name: &str, queue: &queue::Queue, settings: &Settings) -> Took {
    let hops = usize::try_from(settings.smtp_max_hops).unwrap_or(usize::MAX);
    let terms = Terms { size: settings.smtp_max_size.saturating_mul(1024), hops };
    match incoming.take(name, &terms, queue, &|slip| about(slip, settings)) {
        Ok(taken) => Took::Taken(Box::new(taken)),
        Err(Bad::Gone) => Took::Gone,
        Err(Bad::Strange(why)) => Took::Aside(why, incoming.set_aside(name)),
        Err(Bad::Fault(fault)) => Took::Failed(fault),
    }
}

fn about(slip: &Slip, settings: &Settings) -> About {
    let user = user::name_of(slip.uid).ok().flatten();
    let from = From::Program { user: user.as_deref(), uid: slip.uid };
    let with = With { lmtp: false, extended: true, tls: false, login: false, utf8: slip.sender.utf8 };
    let recipient = match &slip.recipients[..] {
        [only] => Some(only.path.to_string()),
        _ => None,
    };
    let received = Received {
        from,
        by: settings.main_domain(),
        with,
        id: &slip.name,
        recipient: recipient.as_deref(),
        posted_secs: slip.left_secs,
    };
    let kind = |ours| if ours { queue::Kind::Local } else { queue::Kind::Remote };
    About {
        received: received.written(),
        came: format!("left by uid {}", slip.uid),
        kinds: slip.recipients.iter().map(|recipient| kind(relay::is_ours(settings, &recipient.path))).collect(),
    }
}

/// Says what became of one; whether the round goes on.
fn note(name: &str, took: Took, shared: &mut Shared) -> bool {
    match took {
        Took::Taken(taken) => {
            let Taken { id, uid, sender, recipients, octets, again } = &*taken;
            shared.transit.arrive(id);
            if !again {
                let (from, count) = (printable(sender.as_bytes()), recipients.len());
                log::info!("smtp {id} uid {uid}: taken over from <{from}> for {count} recipients, {octets} octets");
                shared.counts.smtp.accepted += 1;
                shared.counts.smtp.recipients += count as u64;
                shared.counts.smtp.octets += octets;
                shared.note(Class::Sent, id, *octets, sender, recipients.iter().map(String::as_str));
            }
            true
        }
        Took::Gone => true,
        Took::Aside(why, Ok(Some(path))) => {
            log::warn!("smtp {name}: no message of a program: {why}; it is {} now", path.display());
            true
        }
        Took::Aside(why, Ok(None)) => {
            log::warn!("smtp {name}: no message of a program: {why}; it was removed, as incoming.bad is full");
            true
        }
        Took::Aside(why, Err(fault)) => {
            log::warn!("smtp {name}: no message of a program: {why}; it stays there: {fault}");
            true
        }
        Took::Failed(fault) => {
            log::error!("smtp {name}: a program's message waits: {fault}");
            false
        }
    }
}
