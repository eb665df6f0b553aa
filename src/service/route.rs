//! From a recipient to the places where its mail goes: the machine of `rules/route.rs`, and who answers it.
//!
//! | it wants    | who answers                                                                                          |
//! |-------------|------------------------------------------------------------------------------------------------------|
//! | a user      | what is remembered of lookups; else an authenticator, and the answer is remembered                   |
//! | a mailbox   | a job, which reads the user's forward file and looks how full his mailbox is                          |
//! | a pause     | we, when all others had their turn: a list has as many members as it likes                           |
//!
//! One [`Routing`] is one recipient. It lives in an SMTP session or in the queue; it asks for one thing at a time, and takes
//! the settings and tables that are in force when it begins. `files.rs` draws the table: alias files, forward lines.
//!
//! An authenticator that cannot tell, and a disk that does not answer, are temporary (4xx), and never remembered. What a user's
//! own list says and cannot be used costs himself nothing: he has a copy, and the log a line.

mod files;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::noise::Event;
use super::{Outcome, Shared, account};
use crate::mail::address::{self, Address};
use crate::net::jobs::Kind;
use crate::net::turn::Ticket;
use crate::protocol::helper::{Account, Question, Verdict};
use crate::protocol::smtp::reply::Reply;
use crate::rules::domains::Name;
use crate::rules::info;
use crate::rules::route::list::{Reader, Voice};
use crate::rules::route::{self, Addressee, Applied, Failure, Look, Route, Table, Target, User, Want, What};
pub use crate::rules::route::{Program, Stage};
use crate::service::launcher::Launcher;
use crate::settings::{Method, QuotaReply, Settings, addressee};
use crate::store::disk::RealDisk;
use crate::store::forward::{self, Found, Wanted};
use crate::store::maildrop::{Place, Refused};
use crate::store::quota;
use crate::text::printable::{printable, visible};
use crate::text::secret::Secret;
pub use files::draw;

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
    /// in the queue, which asks from that step on where it leads when it is tried, and tells the sender what it hears.
    Local(Address, Stage),
}

/// A destination, and who hears of it when it cannot be reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where.
    pub to: Destination,
    /// Who is its sender from here on, in place of the message's, unless that is the null sender: `owner-LIST`.
    pub sender: Option<Address>,
    /// Bytes that a mailbox had room for when it was looked at; `None`: it has no bound, or it is no mailbox.
    pub room: Option<u64>,
}

impl Way {
    /// A way there for the message's own sender.
    pub fn to(to: Destination) -> Way {
        Way { to, sender: None, room: None }
    }

    /// Whether so many bytes do not fit there. Messages that come at the same time are judged one by one, so that a mailbox may
    /// have too much in the end by as many of them.
    pub fn lacks_room_for(&self, bytes: u64) -> bool {
        self.room.is_some_and(|room| bytes > room)
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// An outcome comes with that ticket: give it to [`Routing::told`].
    Asked,
    /// It is known: where it goes, nowhere when it is thrown away; or what the client hears.
    Settled(Result<Vec<Way>, Reply>),
}

/// What a look at a mailbox came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What the forward file says.
    forward: Option<String>,
    /// Why one that is there is not believed.
    ignored: Option<String>,
    /// Bytes that there is room for; `None`: there is no bound.
    room: Option<u64>,
    /// There is no room for the message.
    full: bool,
}

/// One recipient, on its way to its destinations.
pub struct Routing {
    route: Route<Arc<Account>>,
    table: Arc<Table>,
    settings: Arc<Settings>,
    /// Octets of the message, as far as they are known.
    octets: u64,
    /// Whom the outcome is about that was asked for.
    asked: Option<Name>,
}

type Wanting = Want<Arc<Account>>;

impl Routing {
    /// A recipient, asked about from that step on. `octets`: the message's size, as its sender has announced it or as it is, 0
    /// when nobody knows. `explain`: keep what was applied.
    pub fn begin(recipient: &Address, stage: Stage, octets: u64, explain: bool, shared: &Shared) -> Routing {
        let (settings, table) = (shared.settings.clone(), shared.routes.clone());
        let whole = whole(recipient, settings.main_domain());
        Routing { route: Route::new(whole, stage, explain), table, settings, octets, asked: None }
    }

    /// Goes on as far as it can; what it has to ask is asked with this ticket.
    pub fn go_on(&mut self, now: Instant, ticket: Ticket, shared: &mut Shared) -> Step {
        let want = self.route.next(&self.table, &self.settings.domains);
        self.drive(want, now, ticket, shared)
    }

    /// What was asked has been answered: goes on with a new ticket.
    pub fn told(&mut self, now: Instant, outcome: Outcome, ticket: Ticket, shared: &mut Shared) -> Step {
        let Some(name) = self.asked.take() else { return self.go_on(now, ticket, shared) };
        let want = match outcome {
            Outcome::Verdict(Verdict::Accepted(account)) => {
                let key = key(shared, &name);
                shared.cache.put_found(now, key, name.shown(), Some(account.clone()));
                self.found(now, &name, Some(account), shared)
            }
            Outcome::Verdict(Verdict::Refused) => {
                let key = key(shared, &name);
                shared.cache.put_found(now, key, name.shown(), None);
                self.found(now, &name, None, shared)
            }
            Outcome::Verdict(_) => self.unclear(),
            Outcome::Mailbox(Ok(looked)) => self.looked(now, &name, looked, shared),
            Outcome::Mailbox(Err(why)) => {
                complain(now, shared, name.shown(), &why);
                self.route.looked_at(Err(Failure::Misconfigured), &self.table, &self.settings.domains)
            }
            // Whatever was to answer it has failed.
            _ => self.lost(),
        };
        self.drive(want, now, ticket, shared)
    }

    /// What was applied, a line each: setting or file and line, the address, and what was made of it.
    pub fn trail(&self) -> Vec<String> {
        self.route.trail().iter().map(|applied| told(applied, &self.settings)).collect()
    }

    /// Whom an outcome is owed about; empty: nobody.
    #[cfg(test)]
    pub fn asked_about(&self) -> String {
        self.asked.as_ref().map_or_else(String::new, |name| name.shown().to_owned())
    }

    /// Asks until somebody has to be waited for.
    fn drive(&mut self, mut want: Wanting, now: Instant, ticket: Ticket, shared: &mut Shared) -> Step {
        loop {
            want = match want {
                Want::Nothing => return Step::Settled(self.settled(now, shared)),
                Want::Pause => {
                    shared.post.push_back((ticket, Outcome::TryAgain));
                    return Step::Asked;
                }
                Want::User(name) => {
                    let key = key(shared, &name);
                    match shared.cache.find(now, &key, &name.asked) {
                        Some(account) => self.found(now, &name, account, shared),
                        None => {
                            let Some(helpers) = shared.helpers.last_mut() else {
                                want = self.unclear();
                                continue;
                            };
                            helpers.pool.submit(now, ticket, Question::Lookup { user: name.asked.clone() });
                            self.asked = Some(name);
                            return Step::Asked;
                        }
                    }
                }
                Want::Mailbox(name, account, follow) => match self.look(now, &name, &account, follow, ticket, shared) {
                    Some(look) => self.route.looked_at(look, &self.table, &self.settings.domains),
                    None => {
                        self.asked = Some(name);
                        return Step::Asked;
                    }
                },
            };
        }
    }

    /// Has a job look at a mailbox; unless there is nothing to look for, or nobody can: then what is known.
    fn look(
        &self,
        now: Instant,
        name: &Name,
        account: &Account,
        follow: bool,
        ticket: Ticket,
        shared: &mut Shared,
    ) -> Option<Result<Look, Failure>> {
        let settings = self.settings.clone();
        let place = match account::place(name, account, &settings) {
            Ok(place) => place,
            Err(why) => {
                complain(now, shared, name.shown(), &why);
                return Some(Err(Failure::Misconfigured));
            }
        };
        let limit = account::limit(account, &settings);
        if !follow && limit == 0 {
            return Some(Ok(Look { forward: None, room: None, full: false }));
        }
        let (octets, uid) = (self.octets, account.uid.clone());
        let (disk, launcher, volume) = (shared.disk(), shared.launcher.clone(), shared.volume_of(&place.drop));
        let work = move |_: &_| {
            let looking = Looking { place, uid, follow, limit, octets, settings: &settings };
            Outcome::Mailbox(looking.look(&disk, launcher.as_deref()))
        };
        match shared.jobs.submit(Some(ticket), Kind::Read, volume, work) {
            Ok(()) => None,
            Err(_) => Some(Err(Failure::Stuck)),
        }
    }

    /// Nobody can tell who that is.
    fn unclear(&mut self) -> Wanting {
        self.route.looked_up(Err(Failure::Unclear), &self.table, &self.settings.domains)
    }

    /// An answer that was owed will not come.
    fn lost(&mut self) -> Wanting {
        let (table, domains) = (&self.table, &self.settings.domains);
        if self.route.is_at_mailbox() {
            self.route.looked_at(Err(Failure::Unclear), table, domains)
        } else {
            self.route.looked_up(Err(Failure::Unclear), table, domains)
        }
    }

    /// An authenticator, or what is remembered of it, has spoken.
    fn found(&mut self, now: Instant, name: &Name, account: Option<Account>, shared: &mut Shared) -> Wanting {
        let user = account.map(|account| {
            let text = String::from_utf8_lossy(info::forward(&account.info)).into_owned();
            let (forward, wrong) = self.own_list(name, &text);
            for (_, why) in wrong {
                complain(
                    now,
                    shared,
                    name.shown(),
                    &format!("what the authenticator says of him: fwd: {why}; he has a copy himself"),
                );
            }
            let uid = account.uid.as_deref().and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok());
            let uid = uid.filter(|uid| *uid >= self.settings.min_uid);
            User { account: Arc::new(account), uid, forward }
        });
        self.route.looked_up(Ok(user), &self.table, &self.settings.domains)
    }

    fn looked(&mut self, now: Instant, name: &Name, looked: Looked, shared: &mut Shared) -> Wanting {
        if let Some(why) = looked.ignored {
            complain(now, shared, name.shown(), &format!("his forward file is ignored: {why}"));
        }
        let forward = looked.forward.map(|text| {
            let (targets, wrong) = self.own_list(name, &text);
            for (line, why) in wrong {
                complain(
                    now,
                    shared,
                    name.shown(),
                    &format!("his forward file, line {line}: {why}; he has a copy himself"),
                );
            }
            targets
        });
        // A file that says nothing is none.
        let forward = forward.filter(|targets| !targets.is_empty());
        self.route.looked_at(
            Ok(Look { forward, room: looked.room, full: looked.full }),
            &self.table,
            &self.settings.domains,
        )
    }

    /// A user's own list, with himself in it where an entry cannot be used; and the lines that cannot, with why. What he
    /// wrote is not repeated: the log is not his to write in, and not everybody's to read.
    fn own_list(&self, name: &Name, text: &str) -> (Vec<Target>, Vec<(usize, String)>) {
        let domain = self.settings.domains.domain_of(name);
        let (mut targets, wrong) = Reader { domain, voice: Voice::User, grammar: addressee }.file(text);
        if !wrong.is_empty() {
            targets.push(Target::Own);
        }
        let few = wrong.into_iter().take(3).map(|(line, _)| (line, "it is no destination that he may have".to_owned()));
        (targets, few.collect())
    }

    fn settled(&mut self, now: Instant, shared: &mut Shared) -> Result<Vec<Way>, Reply> {
        for remark in self.route.remarks() {
            complain(now, shared, "a user's list", &remark);
        }
        match self.route.finish() {
            Ok(ways) => Ok(ways.into_iter().filter_map(way).collect()),
            Err(failure) => Err(reply(failure, &self.settings)),
        }
    }
}

/// What is looked for at a mailbox.
struct Looking<'s> {
    place: Place,
    uid: Option<Vec<u8>>,
    follow: bool,
    limit: u64,
    octets: u64,
    settings: &'s Settings,
}

impl Looking<'_> {
    /// In a job.
    fn look(mut self, disk: &RealDisk, launcher: Option<&Launcher>) -> Result<Looked, String> {
        let uid = self.uid.as_deref().map(|uid| account::owner(uid, self.settings.min_uid)).transpose()?;
        self.place.owner = uid;
        let mut looked = Looked { forward: None, ignored: None, room: None, full: false };
        if self.follow {
            let in_home = self.settings.authent_method == Method::UnixUser && !self.settings.no_dotforward;
            let ask = |uid: u32, drop: Option<&Path>| match launcher {
                Some(launcher) => launcher.forward(uid, drop),
                None => Err(io::ErrorKind::PermissionDenied.into()),
            };
            let drop = (!in_home).then_some(&*self.place.drop);
            let wanted = Wanted { drop, uid, hand: launcher.is_some().then_some(&ask) };
            match forward::read(&wanted).map_err(|fault| fault.to_string())? {
                Found::Nothing => {}
                Found::File(text) => looked.forward = Some(text),
                Found::Ignored(why) => looked.ignored = Some(why),
            }
        }
        if self.limit > 0 {
            // A message may become larger than its sender has said.
            let most = self.settings.smtp_max_size.checked_mul(1024).filter(|most| *most > 0).unwrap_or(u64::MAX);
            match quota::room(disk, &self.place, self.limit, most.max(self.octets)) {
                Ok(room) => {
                    looked.full = room.is_none_or(|room| self.octets > room);
                    looked.room = Some(room.unwrap_or(0));
                }
                Err(Refused::Unsafe(fault) | Refused::Fault(fault)) => return Err(fault.to_string()),
                // Nobody's lock is asked for.
                Err(Refused::InUse | Refused::Locked) => {}
            }
        }
        Ok(looked)
    }
}

fn key(shared: &Shared, name: &Name) -> super::cache::Key {
    shared.cache.key("lookup", &name.remembered_by(), &Secret::new(Vec::new()))
}

fn complain(now: Instant, shared: &mut Shared, who: &str, why: &str) {
    if shared.has_line(now, Event::Trouble, None) {
        log::warn!("smtp {}: {}", printable(who.as_bytes()), visible(why));
    }
}

/// A recipient as a whole address: who says no domain means our main one.
pub(super) fn whole(recipient: &Address, main: &str) -> Addressee {
    let domain = match &recipient.place {
        address::Place::Domain(domain) => domain.clone(),
        address::Place::Literal(std::net::IpAddr::V4(ip)) => format!("[{ip}]").into(),
        address::Place::Literal(std::net::IpAddr::V6(ip)) => format!("[IPv6:{ip}]").into(),
        address::Place::Here => main.into(),
    };
    Addressee { local: recipient.local.clone(), domain }
}

/// The same as an address of the envelope. What was read as one is one.
fn address(whole: Addressee) -> Option<Address> {
    let Addressee { local, domain } = whole;
    let literal = domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']'));
    let place = match literal {
        Some(ip) => {
            let ip = ip.strip_prefix("IPv6:").unwrap_or(ip);
            address::Place::Literal(ip.parse().ok()?)
        }
        None => address::Place::Domain(domain),
    };
    Some(Address { local, place })
}

fn way(way: route::Way<Arc<Account>>) -> Option<Way> {
    let to = match way.to {
        route::Destination::Mailbox(name, account) => Destination::Mailbox(name, account),
        route::Destination::Remote(whole) => Destination::Remote(address(whole)?),
        route::Destination::Program(program) => Destination::Program(program),
        route::Destination::Local(whole, stage) => Destination::Local(address(whole)?, stage),
    };
    Some(Way { to, sender: way.sender.and_then(address), room: way.room })
}

/// What a client hears whose message does not fit.
pub fn full(settings: &Settings) -> Reply {
    reply(Failure::Full, settings)
}

/// What a client hears.
fn reply(failure: Failure, settings: &Settings) -> Reply {
    match (failure, settings.quota_reply) {
        (Failure::Nobody, _) => Reply::new(550, 1, 1, "No such user here"),
        (Failure::Round, _) => Reply::new(554, 4, 6, "This address leads round in circles"),
        (Failure::TooMany, _) => Reply::new(554, 4, 6, "This address leads on and on"),
        (Failure::Full, QuotaReply::Temporary) => Reply::new(452, 2, 2, "The mailbox is full; try again later"),
        (Failure::Full, QuotaReply::Permanent) => Reply::new(552, 2, 2, "The mailbox is full"),
        (Failure::Unclear, _) => Reply::new(451, 3, 0, "Who that is cannot be found out just now; try again later"),
        (Failure::Stuck, _) => Reply::new(451, 2, 0, "The mailbox cannot be looked at just now; try again later"),
        (Failure::Misconfigured, _) => Reply::new(451, 3, 5, "The mailbox cannot be used just now; try again later"),
    }
}

/// A line of an explanation.
fn told(applied: &Applied, settings: &Settings) -> String {
    let Applied { to, what, made } = applied;
    let what = match what {
        What::Setting(name, index) => format!("{}: {name}", settings.place_of(name, *index)),
        What::Alias(file, line) => format!("{file}:{line}: alias"),
        What::Words(words) => (*words).to_owned(),
    };
    visible(&format!("{what}: {to} -> {made}"))
}

#[cfg(test)]
mod tests;
