//! The resolver: what is asked of name servers. No I/O.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// In ASCII and lower case, without a dot at the end.
    pub name: Box<str>,
    /// Which records of it.
    pub kind: Kind,
}

/// Which records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where mail for a domain goes.
    Mx,
    /// Text.
    Txt,
    /// The name that belongs to an address.
    Ptr,
    /// Certificates of a service.
    Tlsa,
    /// Those of this number.
    Other(u16),
}

/// One record. Names are those of hosts ([`is_host`]), so that they can stand in a command or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Of A and AAAA.
    Address(IpAddr),
    /// Of MX.
    Mx {
        /// The lowest is tried first.
        preference: u16,
        /// In lower case; empty for the root, which says that the domain takes no mail (RFC 7505).
        host: Box<str>,
    },
    /// Of TXT, its strings put together: any bytes.
    Text(Box<[u8]>),
    /// Of PTR, in lower case.
    Name(Box<str>),
    /// Of all others, as it came.
    Other(Box<[u8]>),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These, and never none.
    Records(Arc<[Record]>),
    /// The name exists, but not with such records.
    NoData,
    /// There is no such name.
    NoName,
    /// Nobody could tell. Always temporary.
    Failed(Failure),
}

/// Why nobody could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No server answered in time.
    Silence,
    /// They answered that they cannot or will not tell: SERVFAIL, REFUSED.
    Refused,
    /// What they answered cannot be used: garbage, a circle of aliases, no host's name where one must be.
    Nonsense,
    /// Too much is being asked already.
    Busy,
}

/// What the owner of the sockets has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Act<T> {
    /// This ticket's answer.
    Done(T, Answer),
}

/// Who is asked what, until when. `T` says whose question it is.
#[derive(Debug)]
pub struct Resolver<T> {
    acts: VecDeque<Act<T>>,
}

impl<T> Default for Resolver<T> {
    fn default() -> Resolver<T> {
        Resolver { acts: VecDeque::new() }
    }
}

impl<T> Resolver<T> {
    /// Asks. The answer comes out of [`poll`](Resolver::poll) as `Done`, at once or later.
    pub fn ask(&mut self, _now: Instant, ticket: T, question: Question) {
        let answer = if is_host(&question.name) { Answer::Failed(Failure::Silence) } else { Answer::NoName };
        self.acts.push_back(Act::Done(ticket, answer));
    }

    /// What is to be done now.
    pub fn poll(&mut self, _now: Instant) -> Option<Act<T>> {
        self.acts.pop_front()
    }
}

/// Whether this can be the name of a host, or of something below one: letters, digits, hyphens and underscores in labels
/// of 1 to 63, 253 in all. Such a name can stand in a command, a header or the log as it is.
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}
