//! The names of clients' hosts: looked up by jobs of a lane of their own, remembered for a while.
//!
//! A lookup begins when a client comes in; its login asks what has come of it. [`PATIENCE`] after it began a host that is
//! still being looked up has no name, and neither has one that name servers would not tell about; but whoever has to say no
//! for want of a name can see that nobody knew. Bounds: [`KNOWN`] answers, oldest out; [`PENDING`] lookups, one more is not begun;
//! [`WAITING`] logins told of one answer, one more finds it when its own patience ends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Outcome, Shared};
use crate::net::jobs::{Kind, NAME_SERVERS};
use crate::net::turn::Ticket;
use crate::sys::network;

/// How long a login waits for a name.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Answers remembered.
pub const KNOWN: usize = 1024;
/// Addresses being looked up.
pub const PENDING: usize = 1024;
/// Logins that wait for one of them.
pub const WAITING: usize = 64;
/// How long a name is good, and how long its absence.
const LIFE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(60));
/// After so long a lookup is taken for lost.
const LOST: Duration = Duration::from_secs(120);

/// What a lookup came to: a name, none, or an error when nobody could tell.
pub type Lookup = io::Result<Option<String>>;

/// What is known about a host.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its name; none when it has none.
    Name(Option<&'a str>),
    /// Nobody could tell, or not in time.
    Unclear,
    /// It is being looked up; until then it is worth waiting.
    Pending(Instant),
    /// Nobody has asked, or it was forgotten.
    Unknown,
}

#[derive(Debug)]
struct Known {
    /// An error when nobody could tell.
    name: Result<Option<Box<str>>, ()>,
    until: Instant,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    waiting: Vec<Ticket>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<IpAddr, Known>,
    /// The addresses of `known`, the oldest first.
    order: VecDeque<IpAddr>,
    pending: HashMap<IpAddr, Pending>,
}

impl Names {
    /// What is known.
    pub fn find(&self, now: Instant, address: IpAddr) -> Found<'_> {
        match (self.known.get(&address).filter(|known| known.until > now), self.pending.get(&address)) {
            (Some(Known { name: Ok(name), .. }), _) => Found::Name(name.as_deref()),
            (Some(_), _) => Found::Unclear,
            (None, Some(pending)) if now < pending.since + PATIENCE => Found::Pending(pending.since + PATIENCE),
            (None, Some(pending)) if now < pending.since + LOST => Found::Unclear,
            (None, _) => Found::Unknown,
        }
    }

    /// Whether a lookup should begin now, and is noted as begun.
    pub fn begin(&mut self, now: Instant, address: IpAddr) -> bool {
        if self.find(now, address) != Found::Unknown {
            return false;
        }
        if self.pending.len() >= PENDING {
            self.pending.retain(|_, pending| now < pending.since + LOST);
            if self.pending.len() >= PENDING {
                return false;
            }
        }
        self.pending.insert(address, Pending { since: now, waiting: Vec::new() });
        true
    }

    /// Whoever has this ticket is told when the lookup ends.
    pub fn wait(&mut self, address: IpAddr, ticket: Ticket) {
        if let Some(pending) = self.pending.get_mut(&address)
            && pending.waiting.len() < WAITING
        {
            pending.waiting.push(ticket);
        }
    }

    /// A lookup has ended, or could not begin. Says who waits for it.
    pub fn learned(&mut self, now: Instant, address: IpAddr, name: Lookup) -> Vec<Ticket> {
        let life = if matches!(name, Ok(Some(_))) { LIFE.0 } else { LIFE.1 };
        let known = Known { name: name.map(|name| name.map(String::into_boxed_str)).map_err(drop), until: now + life };
        if self.known.insert(address, known).is_none() {
            self.order.push_back(address);
            if self.order.len() > KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.pending.remove(&address).map(|pending| pending.waiting).unwrap_or_default()
    }

    /// Forgets all answers, not those that are being waited for; how many that were.
    pub fn clear(&mut self) -> usize {
        self.order = VecDeque::new();
        std::mem::take(&mut self.known).len()
    }

    /// Answers remembered, and lookups going on.
    pub fn len(&self) -> (usize, usize) {
        (self.known.len(), self.pending.len())
    }
}

impl Shared {
    /// Begins to look up a client's host, unless its name is known or being looked up.
    pub fn look_up(&mut self, now: Instant, address: IpAddr) {
        if !self.guard.names.begin(now, address) {
            return;
        }
        let work = move |_: &_| Outcome::Named(address, network::confirmed_name(address));
        if self.jobs.submit(None, Kind::Name, NAME_SERVERS, work).is_err() {
            self.named(now, address, Err(io::ErrorKind::ResourceBusy.into()));
        }
    }

    /// A lookup has ended: those who wait for it go on.
    pub fn named(&mut self, now: Instant, address: IpAddr, name: Lookup) {
        if let Err(error) = &name {
            log::debug!("the name of {address}: {error}");
        }
        for ticket in self.guard.names.learned(now, address, name) {
            self.post.push_back((ticket, Outcome::TryAgain));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_name_is_pending_then_known_then_forgotten() {
        let (mut names, now) = (Names::default(), Instant::now());
        let after = |secs| now + Duration::from_secs(secs);
        assert_eq!(names.find(now, address(1)), Found::Unknown);
        assert!(names.begin(now, address(1)) && !names.begin(now, address(1)), "one lookup for all who ask");
        assert_eq!(names.find(now, address(1)), Found::Pending(after(5)));
        assert_eq!(names.find(after(5), address(1)), Found::Unclear, "patience is bounded");
        assert!(
            !names.begin(after(119), address(1)) && names.begin(after(120), address(1)),
            "a lost one is begun anew"
        );
        names.learned(after(121), address(1), Ok(Some("pc.example".into())));
        assert_eq!(names.find(after(122), address(1)), Found::Name(Some("pc.example")));
        assert_eq!(names.find(after(121 + 600), address(1)), Found::Unknown);
        names.learned(now, address(2), Ok(None));
        assert_eq!(names.find(after(59), address(2)), Found::Name(None));
        assert_eq!(names.find(after(60), address(2)), Found::Unknown, "an absence is asked about sooner");
        names.learned(now, address(3), Err(io::ErrorKind::TimedOut.into()));
        assert_eq!(names.find(after(59), address(3)), Found::Unclear, "and so is what nobody could tell");
        assert_eq!(names.find(after(60), address(3)), Found::Unknown);
        assert_eq!(names.len().1, 0);
    }

    #[test]
    fn both_tables_are_bounded() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..5000 {
            names.learned(now, address(number), Ok(None));
            names.learned(now, address(number), Ok(Some("again".into())));
        }
        assert_eq!((names.len().0, names.order.len()), (KNOWN, KNOWN));
        assert_eq!(names.find(now, address(4999)), Found::Name(Some("again")), "the newest stay");
        let begun = (10_000..15_000).filter(|&number| names.begin(now, address(number))).count();
        assert_eq!((begun, names.len().1), (PENDING, PENDING));
        assert!(names.begin(now + LOST, address(20_000)), "what was lost makes room");
    }
}
