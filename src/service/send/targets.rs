//! From a hop to what can be called: its mail hosts, their addresses, in the order in which they are tried.
//!
//! | step  | what is asked                          | what follows                                                    |
//! |-------|----------------------------------------|-----------------------------------------------------------------|
//! | mx    | the mail hosts of a domain, if it is one | [`mx::choose`]: hosts in their order, or never, or later       |
//! | hosts | A and AAAA of each, all at once        | for each host its addresses, IPv6 and IPv4 in turn               |
//!
//! What [`mx::may_be`] does not allow is left out, so that nobody's DNS leads us to ourselves. Bounds: [`HOSTS`] hosts, [`EACH`]
//! addresses of a kind of each, [`TARGETS`] in all. What was found is kept for [`KEPT`]: the resolver remembers longer, by each record's own
//! time to live, so that asking it again costs no question to anybody.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::place::Trouble;
use crate::protocol::dns::{Answer, Failure, Kind, Question, Record};
use crate::rules::hops::{Hop, To};
use crate::rules::mx::{self, Choice, Found, Host, Ourselves};

/// Hosts that are looked up.
const HOSTS: usize = 10;
/// Addresses of one kind of one host that are tried.
const EACH: usize = 4;
/// Addresses that are tried.
const TARGETS: usize = 20;
/// How long what was found is used without asking again.
pub const KEPT: Duration = Duration::from_secs(60);

/// What can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is called: a host's name, or its address, or the path of a socket.
    pub host: Box<str>,
    /// Where it is.
    pub at: At,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket of this machine.
    Unix(PathBuf),
}

impl Target {
    /// For people: `mx.example.org [192.0.2.1]:25`.
    pub fn shown(&self) -> String {
        match &self.at {
            At::Tcp(address) if address.ip().to_string() == *self.host => {
                format!("[{}]:{}", address.ip(), address.port())
            }
            At::Tcp(address) => format!("{} [{}]:{}", self.host, address.ip(), address.port()),
            At::Unix(_) => self.host.to_string(),
        }
    }
}

/// A host whose addresses are looked up.
#[derive(Debug)]
struct Wanted {
    name: Box<str>,
    port: u16,
    /// Of a mail host.
    preference: Option<u16>,
    /// Of IPv6, of IPv4.
    found: [Vec<IpAddr>; 2],
    /// Why some could not be found out.
    failed: Option<&'static str>,
}

/// A search for the targets of a hop.
#[derive(Debug)]
pub struct Search {
    hop: Arc<Hop>,
    ourselves: Arc<Ourselves>,
    port: u16,
    wanted: Vec<Wanted>,
    /// Questions without an answer.
    open: usize,
    done: Option<Result<Vec<Target>, Trouble>>,
}

/// What an answer belongs to: 0 is the mail hosts.
pub type Tag = usize;

impl Search {
    /// A search, and what is to be asked first. `port`: where mail hosts listen.
    pub fn begin(hop: Arc<Hop>, ourselves: Arc<Ourselves>, port: u16) -> (Search, Vec<(Tag, Question)>) {
        let mut search = Search { hop: hop.clone(), ourselves, port, wanted: Vec::new(), open: 0, done: None };
        let questions = match &hop.to {
            To::Mx(domain) => {
                search.open = 1;
                vec![(0, Question { name: domain.clone(), kind: Kind::Mx })]
            }
            To::Hosts(hosts) => {
                let hosts = hosts.iter().map(|(name, port)| (name.clone(), *port, None)).collect();
                search.look_up(hosts)
            }
            To::Socket(path) => {
                let host = path.display().to_string().into();
                search.done = Some(Ok(vec![Target { host, at: At::Unix(path.clone()) }]));
                Vec::new()
            }
            To::Parked | To::Never { .. } => {
                search.done = Some(Err(later("4.4.0", "nothing is sent there")));
                Vec::new()
            }
        };
        if search.open == 0 {
            search.finish();
        }
        (search, questions)
    }

    /// What came of one question, and what is to be asked then.
    pub fn told(&mut self, tag: Tag, answer: Answer, random: impl FnMut() -> u64) -> Vec<(Tag, Question)> {
        self.open = self.open.saturating_sub(1);
        let mut questions = Vec::new();
        match tag.checked_sub(1) {
            None => questions = self.mail_hosts(&answer, random),
            Some(at) => {
                let Some(wanted) = self.wanted.get_mut(at / 2) else { return Vec::new() };
                match answer {
                    Answer::Records(records) => {
                        let addresses = records.iter().filter_map(|record| match record {
                            Record::Address(address) => Some(*address),
                            _ => None,
                        });
                        wanted.found[at % 2] = addresses.take(EACH).collect();
                    }
                    Answer::Failed(failure) => wanted.failed = Some(words(failure)),
                    Answer::NoData | Answer::NoName => {}
                }
            }
        }
        if self.open == 0 {
            self.finish();
        }
        questions
    }

    /// What was found, once it is.
    pub fn take(&mut self) -> Option<Result<Vec<Target>, Trouble>> {
        self.done.take()
    }

    fn mail_hosts(&mut self, answer: &Answer, random: impl FnMut() -> u64) -> Vec<(Tag, Question)> {
        let To::Mx(domain) = &self.hop.to else { return Vec::new() };
        let domain = domain.clone();
        let found = match answer {
            Answer::Records(records) => {
                let hosts = records.iter().filter_map(|record| match record {
                    Record::Mx { preference, host } => Some((*preference, &**host)),
                    _ => None,
                });
                Found::Hosts(hosts.collect())
            }
            Answer::NoData => Found::NoData,
            Answer::NoName => Found::NoName,
            Answer::Failed(failure) => Found::Failed(words(*failure)),
        };
        let hosts = match mx::choose(&domain, found, &self.ourselves, random) {
            Choice::Hosts(hosts) => hosts,
            Choice::Itself => vec![Host { preference: 0, name: domain }],
            Choice::Never { status, why } => {
                self.done = Some(Err(Trouble { why: format!("{status} {why}"), never: true }));
                return Vec::new();
            }
            Choice::Later { status, why } => {
                self.done = Some(Err(later(status, &why)));
                return Vec::new();
            }
        };
        let port = self.port;
        let hosts = hosts.into_iter().map(|host| (host.name, port, Some(host.preference))).collect();
        self.look_up(hosts)
    }

    /// Asks for the addresses of hosts that are no addresses themselves.
    fn look_up(&mut self, hosts: Vec<(Box<str>, u16, Option<u16>)>) -> Vec<(Tag, Question)> {
        let mut questions = Vec::new();
        for (name, port, preference) in hosts.into_iter().take(HOSTS) {
            let mut found = [Vec::new(), Vec::new()];
            match name.parse::<IpAddr>() {
                Ok(address) => found[usize::from(address.is_ipv4())].push(address),
                Err(_) => {
                    for (at, kind) in [Kind::Aaaa, Kind::A].into_iter().enumerate() {
                        let tag = 1 + 2 * self.wanted.len() + at;
                        questions.push((tag, Question { name: name.clone(), kind }));
                    }
                }
            }
            self.wanted.push(Wanted { name, port, preference, found, failed: None });
        }
        self.open += questions.len();
        questions
    }

    fn finish(&mut self) {
        if self.done.is_some() {
            return;
        }
        let is_ours = |wanted: &Wanted| {
            let mut all = wanted.found.iter().flatten();
            !self.hop.inside && all.any(|address| self.ourselves.is_at(*address, wanted.port))
        };
        // RFC 5321 §5.1: mail never goes to a host that is asked after us.
        let ours = self.wanted.iter().filter(|wanted| is_ours(wanted)).filter_map(|wanted| wanted.preference).min();
        if let Some(preference) = ours {
            self.wanted.retain(|wanted| wanted.preference.is_none_or(|other| other < preference));
            if self.wanted.is_empty()
                && let To::Mx(domain) = &self.hop.to
                && let Choice::Never { status, why } = mx::looped(domain)
            {
                self.done = Some(Err(Trouble { why: format!("{status} {why}"), never: true }));
                return;
            }
        }
        let (mut targets, mut refused, mut failed) = (Vec::new(), None, None);
        for Wanted { name, port, found, failed: why, .. } in &self.wanted {
            failed = failed.or(why.map(|why| format!("{name}: its addresses cannot be looked up now: {why}")));
            let most = found[0].len().max(found[1].len());
            for address in (0..most).flat_map(|at| found.iter().filter_map(move |kind| kind.get(at))) {
                match mx::may_be(*address, *port, self.hop.inside, &self.ourselves) {
                    Ok(()) => {
                        let at = At::Tcp(SocketAddr::new(*address, *port));
                        targets.push(Target { host: name.clone(), at });
                    }
                    Err(why) => refused = Some(format!("{name} [{address}]: {why}")),
                }
            }
        }
        targets.truncate(TARGETS);
        self.done = Some(match (targets.is_empty(), failed, refused) {
            (false, ..) => Ok(targets),
            (true, Some(why), _) => Err(later("4.4.3", &why)),
            (true, None, Some(why)) => Err(Trouble { why: format!("5.4.6 {why}"), never: true }),
            (true, None, None) => Err(match &self.hop.to {
                To::Mx(domain) => {
                    let why = format!("5.4.4 {domain}: its mail hosts have no address");
                    Trouble { why, never: true }
                }
                // An operator wrote these.
                _ => later("4.4.4", "the hosts that it is to go to have no address"),
            }),
        });
    }
}

fn later(status: &str, why: &str) -> Trouble {
    Trouble { why: format!("{status} {why}"), never: false }
}

fn words(failure: Failure) -> &'static str {
    match failure {
        Failure::Silence => "no DNS server answers",
        Failure::Refused => "the DNS servers say that they cannot tell",
        Failure::Nonsense => "what the DNS servers say cannot be used",
        Failure::Busy => "too much is being looked up",
    }
}
