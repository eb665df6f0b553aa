//! ETRN (RFC 1985): a host asks for the mail that waits for a domain.
//!
//! | a recipient of that domain is       | then                                                                            |
//! |--------------------------------------|---------------------------------------------------------------------------------|
//! | parked (the settings say `park`)     | it goes by MX from now on, and is tried at once; what fails waits as other mail does |
//! | deferred                             | it is tried at once, the way that it goes                                        |
//! | waiting, held, done with             | nothing is done about it                                                         |
//!
//! What comes in later is parked again. So an ETRN is for what is there when it is said, and nothing is asked of the network that
//! the client is in: mail goes where DNS says that the domain's mail goes.
//!
//! A job walks through the queue as it does for an operator (`waiting.rs`). Nobody waits for it longer than [`PATIENCE`]: then the
//! client hears that it has begun. At most [`AT_A_TIME`] of these jobs run, and one for a domain.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::deliver::{self, Bulk};
use super::{Outcome, Shared};
use crate::net::jobs::{Kind as JobKind, Pulse};
use crate::net::turn::Ticket;
use crate::protocol::smtp::Node;
use crate::rules::hops::To;
use crate::settings::Settings;
use crate::store::queue::{Kind, Message, Miss, Queue, Row, Stage, State};

/// How long a client waits to hear how many messages there are.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Domains that are looked for at a time.
const AT_A_TIME: usize = 4;
/// The way of what was parked, as an operator would say it.
const BY_MX: &str = "mx";
/// Recipients that are read at a time.
const PAGE: u32 = 256;

/// Domains that are being looked for.
#[derive(Debug, Default)]
pub struct Summons(Arc<Mutex<HashSet<String>>>);

/// Its domain is being looked for until it is dropped.
struct Looking {
    all: Arc<Mutex<HashSet<String>>>,
    domain: String,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.domain);
    }
}

/// What a client is told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// `Outcome::Summoned` comes with the ticket.
    Asked,
    /// Another has begun with the same.
    Already,
    /// That domain's mail is delivered here.
    Ours,
    /// Not just now.
    Busy,
}

impl Summons {
    fn begin(&self, node: &Node) -> Result<Looking, Begun> {
        let domain = format!("{}{}", if node.below { "@" } else { "" }, node.domain);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&domain) {
            return Err(Begun::Already);
        }
        if all.len() >= AT_A_TIME {
            return Err(Begun::Busy);
        }
        all.insert(domain.clone());
        Ok(Looking { all: self.0.clone(), domain })
    }
}

/// Begins to look for what waits for these domains.
pub fn begin(node: Node, now_secs: i64, ticket: Ticket, shared: &Shared) -> Begun {
    if shared.settings.domains.has(&node.domain) && !node.below {
        return Begun::Ours;
    }
    let looking = match shared.transit.summons.begin(&node) {
        Ok(looking) => looking,
        Err(begun) => return begun,
    };
    let (queue, bulk, settings) = (shared.transit.queue(), shared.transit.bulk(), shared.settings.clone());
    let work = move |pulse: &Pulse| {
        let _looking = looking;
        Outcome::Summoned(summon(&queue, &bulk, &settings, &node, now_secs, pulse))
    };
    match shared.jobs.submit(Some(ticket), JobKind::Bulk, shared.transit.volume(), work) {
        Ok(()) => Begun::Asked,
        Err(_) => Begun::Busy,
    }
}

/// How many messages are tried because of it; `None`: the queue cannot be walked through. In a job.
fn summon(queue: &Queue, bulk: &Bulk, settings: &Settings, node: &Node, now_secs: i64, pulse: &Pulse) -> Option<u64> {
    let mut summoned = 0;
    let walked = queue.walk(&mut |id| {
        pulse.beat();
        match one(queue, settings, node, id, now_secs) {
            Ok(Some(obeyed)) => {
                summoned += 1;
                bulk.tell(id, obeyed);
            }
            Ok(None) => {}
            Err(why) => log::warn!("the queue: looking for the mail of {}: {why}", node.domain),
        }
        !bulk.is_stopped()
    });
    match walked {
        Ok(()) => Some(summoned),
        Err(fault) => {
            log::error!("the queue: looking for the mail of {}: {fault}", node.domain);
            None
        }
    }
}

/// What came of one message, if there is something in it for these domains.
fn one(
    queue: &Queue,
    settings: &Settings,
    node: &Node,
    id: &str,
    now_secs: i64,
) -> Result<Option<deliver::Obeyed>, String> {
    let message = match queue.read(id) {
        Ok(message) if message.tally.at(Stage::Deferred) > 0 => message,
        Ok(_) | Err(Miss::Gone) => return Ok(None),
        Err(Miss::Damaged(fault) | Miss::Fault(fault)) => return Err(fault.to_string()),
    };
    let to = |row: &Row| to(settings, node, &message, row, now_secs);
    if !has(queue, id, &|row| to(row).is_some()).map_err(|fault| fault.to_string())? {
        return Ok(None);
    }
    deliver::change(queue, id, now_secs, &to).map(|obeyed| Some(obeyed).filter(|obeyed| obeyed.changed > 0))
}

fn has(queue: &Queue, id: &str, is_meant: &dyn Fn(&Row) -> bool) -> Result<bool, crate::text::fault::Fault> {
    let mut from = 1;
    loop {
        let rows = match queue.page(id, from, PAGE) {
            Ok(rows) => rows,
            Err(Miss::Gone) => return Ok(false),
            Err(Miss::Damaged(fault) | Miss::Fault(fault)) => return Err(fault),
        };
        let Some(last) = rows.last() else { return Ok(false) };
        if rows.iter().any(is_meant) {
            return Ok(true);
        }
        from = last.number + 1;
    }
}

/// What becomes of a recipient: see the page.
fn to(
    settings: &Settings,
    node: &Node,
    message: &Message,
    row: &Row,
    now_secs: i64,
) -> Option<(State, Option<&'static str>)> {
    let Row { recipient, state, via, at_secs, .. } = row;
    // One that was tried meanwhile is not tried again.
    if at_secs.is_some_and(|at_secs| at_secs > now_secs) {
        return None;
    }
    if recipient.kind != Kind::Remote || state.stage() != Stage::Deferred || !is_of(node, &recipient.address) {
        return None;
    }
    let sender = deliver::sender_of(recipient, &message.envelope);
    let hop = deliver::hop_of(settings, sender, recipient, via.as_deref());
    Some((State::Waiting, (hop.to == To::Parked).then_some(BY_MX)))
}

/// Whether an address is of a domain that is asked for.
fn is_of(node: &Node, address: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
    match domain.strip_suffix(&*node.domain) {
        Some("") => true,
        Some(rest) => node.below && rest.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_asked_for_alone_or_with_all_below_it() {
        let node = |below| Node { domain: "a.test".into(), below };
        for (address, alone, below) in [
            ("x@a.test", true, true),
            ("x@A.Test.", true, true),
            ("x@b.a.test", false, true),
            ("x@ba.test", false, false),
            ("x@a.test.org", false, false),
            ("\"@a.test\"@b.test", false, false),
            ("a.test", false, false),
        ] {
            assert_eq!((is_of(&node(false), address), is_of(&node(true), address)), (alone, below), "{address}");
        }
    }

    #[test]
    fn few_domains_are_looked_for_at_a_time_and_each_once() {
        let summons = Summons::default();
        let node = |at: usize, below| Node { domain: format!("d{at}.test").into(), below };
        let mut looking = vec![summons.begin(&node(0, false)).ok().unwrap()];
        assert_eq!(summons.begin(&node(0, false)).err(), Some(Begun::Already));
        looking.push(summons.begin(&node(0, true)).ok().unwrap());
        looking.extend((2..AT_A_TIME).map(|at| summons.begin(&node(at, false)).ok().unwrap()));
        assert_eq!(summons.begin(&node(9, false)).err(), Some(Begun::Busy));
        looking.pop();
        assert!(summons.begin(&node(9, false)).is_ok());
    }
}
