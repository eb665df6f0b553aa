//! Where mail for an address goes. A machine without I/O: [`Route::next`] says what has to be known, and is told it.
//!
//! An address is asked about in this order; each step is told in the trail, when one is kept:
//!
//! | step            | what it looks at                                          | what it makes of the address                          |
//! |-----------------|-----------------------------------------------------------|-------------------------------------------------------|
//! | `forward`       | lines for this address, of any domain                     | their destinations; with `forward_cc` the rest of the way too |
//! | another host's  | it is no address of ours                                  | [`Destination::Remote`]                               |
//! | alias           | the domain's alias file, then the one for all             | its destinations                                      |
//! | postmaster      | `sysadmin` is set                                         | sysadmin                                              |
//! | user            | an authenticator                                          | a user: the steps below; nobody: the steps after them |
//! | `fwd`           | what the authenticator says of him                        | its destinations                                      |
//! | forward file    | `.forward` in his home, or `.fwd` beside his drop         | its destinations                                      |
//! | his mailbox     | how full it is                                            | [`Destination::Mailbox`]                              |
//! | delimiter       | `user+detail`, and there is no such user                  | `user`                                                |
//! | abuse           | `sysadmin` is set                                         | sysadmin                                              |
//! | `catch_all`     | the domain has one                                        | that address                                          |
//! | nobody          |                                                           | refused: [`Failure::Nobody`]                          |
//!
//! Who is named among his own destinations (himself, or `$user`) goes the rest of the way: an alias or `fwd` that names him leads on
//! to his forward file, and a forward file to his mailbox. `\ann` is ann's mailbox, whatever she has forwarded.
//!
//! **Rounds.** An address is asked about once; where it is met again nothing is added, so each destination has one copy, and
//! a way round ends. What leads nowhere but round is [`Failure::Round`]. At most [`DEPTH_MOST`] steps from one address to the
//! next, and [`DESTINATIONS_MOST`] addresses for one recipient.
//!
//! **Trouble.** One of several that cannot have its mail does not keep the others from theirs: it becomes
//! [`Destination::Local`], for the queue, with the step at which it failed. There it is asked about from that step on, and not
//! from the first: what the steps before it led to has its copy already. When nobody is left, the sender hears why.
//!
//! **Programs.** Those of the operator's lists run as he decided. One in a user's own list runs as that user, if `user_robots`
//! allows it and he has a number; else that entry is his own copy, so that no mail is lost by it.

pub mod aliases;
pub mod list;

use std::collections::{HashMap, HashSet};

use super::domains::{Domains, Home, Name};
use aliases::Aliases;
pub use list::{Addressee, Grammar, Target};

/// Steps from one address to the next.
pub const DEPTH_MOST: u8 = 20;
/// Addresses that one recipient may lead to, with those on the way.
pub const DESTINATIONS_MOST: usize = 10_000;
/// Addresses that are looked at before others have their turn.
pub const WALK_MOST: usize = 256;
/// Lines of a trail.
pub const TRAIL_MOST: usize = 64;
/// Remarks about users' own lists.
const REMARKS_MOST: usize = 8;

/// A program that is given mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The command: the program and its arguments.
    pub words: Vec<String>,
    /// The user whose own list says so; `None`: it is the operator's word.
    pub user: Option<u32>,
}

/// A place where a message goes. `A` is what is known of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination<A> {
    /// A user's drop.
    Mailbox(Name, A),
    /// Another host.
    Remote(Addressee),
    /// A program of this machine.
    Program(Program),
    /// An address of ours that cannot have it now, or that nobody has, among others that are good; and from where on it is to be
    /// asked about.
    Local(Addressee, Stage),
}

/// A destination, and who is its sender from here on, if not the message's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way<A> {
    /// Where.
    pub to: Destination<A>,
    /// `owner-LIST`.
    pub sender: Option<Addressee>,
    /// Bytes that a mailbox had room for; `None`: it has no bound, or it is no mailbox.
    pub room: Option<u64>,
}

/// `forward` and `forward_cc` lines for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Forward {
    targets: Vec<Target>,
    /// The address has it, too.
    copy: bool,
    /// Where the first of them stands: the setting, and which line of it.
    cited: (&'static str, usize),
}

/// What the operator says about addresses, besides who the users are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    forwards: HashMap<Addressee, Forward>,
    catch_all: HashMap<Box<str>, (Addressee, usize)>,
    /// Alias files.
    pub aliases: Aliases,
    /// What parts a user from a detail.
    pub delimiter: Option<char>,
    /// Who is postmaster.
    pub sysadmin: Option<Addressee>,
    /// Whether users' own lists may name programs.
    pub user_robots: bool,
}

impl Table {
    /// Adds a line of `setting`, the `index`th of it: `forward`, or `forward_cc` with `copy`.
    pub fn forward(
        &mut self,
        domains: &Domains,
        from: &Addressee,
        targets: Vec<Target>,
        copy: bool,
        cited: (&'static str, usize),
    ) {
        let entry =
            self.forwards.entry(known_as(from, domains)).or_insert_with(|| Forward { cited, ..Forward::default() });
        entry.targets.extend(targets);
        entry.copy |= copy;
    }

    /// Adds the `index`th `catch_all` line. False: the domain has one already, which stays.
    pub fn catch_all(&mut self, domains: &Domains, domain: &str, to: Addressee, index: usize) -> bool {
        let domain = domains.canonical(domain).map_or(domain, |(first, _)| first);
        let is_first = !self.catch_all.contains_key(domain);
        if is_first {
            self.catch_all.insert(domain.into(), (to, index));
        }
        is_first
    }
}

/// Why an address cannot have its mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody is called so.
    Nobody,
    /// It leads to itself alone.
    Round,
    /// It leads to more than may be.
    TooMany,
    /// The mailbox is full, or the message does not fit.
    Full,
    /// Nobody can tell just now.
    Unclear,
    /// The disk of the mailbox does not answer.
    Stuck,
    /// What an authenticator said of the user cannot be used.
    Misconfigured,
}

impl Failure {
    /// Whether it is worth asking again.
    pub fn passes(self) -> bool {
        matches!(self, Failure::Unclear | Failure::Stuck | Failure::Misconfigured)
    }
}

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// To which address.
    pub to: String,
    /// What.
    pub what: What,
    /// What that made of it.
    pub made: String,
}

/// What can be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// That line of that setting.
    Setting(&'static str, usize),
    /// A line of an alias file.
    Alias(String, usize),
    /// What is said here in words.
    Words(&'static str),
}

/// What has to be known to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want<A> {
    /// Who that is: then [`Route::looked_up`].
    User(Name),
    /// What the user's forward file says, unless it is not to be looked at, and whether his mailbox has room: then
    /// [`Route::looked_at`].
    Mailbox(Name, A, bool),
    /// Time for others: then [`Route::next`].
    Pause,
    /// Nothing: [`Route::finish`].
    Nothing,
}

/// An authenticator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User<A> {
    /// What is known of him.
    pub account: A,
    /// His number, where it was said as one: whom his programs run as.
    pub uid: Option<u32>,
    /// What he has forwarded his mail to; empty: nothing.
    pub forward: Vec<Target>,
}

/// What a look at a mailbox came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What the forward file says; `None`: there is none.
    pub forward: Option<Vec<Target>>,
    /// Bytes that his mailbox has room for; `None`: it has no bound.
    pub room: Option<u64>,
    /// The message would not fit into it.
    pub full: bool,
}

/// From which step on an address is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// All steps.
    Whole,
    /// From the user on: `forward` and aliases have been followed.
    User,
    /// The user's forward file and his mailbox: `fwd` has been followed too.
    File,
    /// His mailbox alone.
    Exact,
}

impl Stage {
    const ALL: [(Stage, &str); 4] =
        [(Stage::Whole, ""), (Stage::User, "user"), (Stage::File, "file"), (Stage::Exact, "mailbox")];

    /// Its word; the first step has none.
    pub fn word(self) -> &'static str {
        Stage::ALL[self as usize].1
    }

    /// The one with this word.
    pub fn of(word: &str) -> Option<Stage> {
        Stage::ALL.iter().find(|(_, known)| *known == word).map(|(stage, _)| *stage)
    }
}

#[derive(Debug, Clone)]
struct Item {
    whole: Addressee,
    stage: Stage,
    depth: u8,
    sender: Option<Addressee>,
}

#[derive(Debug)]
struct Asked<A> {
    item: Item,
    name: Name,
    /// What is known of him, once it is.
    user: Option<(A, Option<u32>)>,
}

/// One recipient on its way.
#[derive(Debug)]
pub struct Route<A> {
    todo: Vec<Item>,
    met: HashSet<(Addressee, bool)>,
    /// Whom we wait to hear about.
    asked: Option<Asked<A>>,
    ways: Vec<Way<A>>,
    /// The users whose mailboxes are among `ways`: two addresses can be one user's.
    boxes: HashSet<Box<str>>,
    /// With the step at which each failed.
    failures: Vec<(Item, Failure)>,
    discarded: bool,
    overflown: bool,
    /// Addresses that were looked at since the last pause.
    walked: usize,
    trail: Option<Vec<Applied>>,
    remarks: Vec<String>,
}

/// An address as it is compared: with the first name of a domain of ours, and there in lower case.
fn known_as(whole: &Addressee, domains: &Domains) -> Addressee {
    match domains.canonical(&whole.domain) {
        Some((domain, _)) => Addressee::new(whole.local.to_lowercase(), domain),
        None => Addressee::new(whole.local.clone(), whole.domain.to_ascii_lowercase()),
    }
}

impl<A: Clone> Route<A> {
    /// A recipient, asked about from that step on. `explain`: a trail is kept.
    pub fn new(recipient: Addressee, stage: Stage, explain: bool) -> Route<A> {
        let first = Item { whole: recipient, stage, depth: 0, sender: None };
        Route {
            todo: vec![first],
            met: HashSet::new(),
            asked: None,
            ways: Vec::new(),
            boxes: HashSet::new(),
            failures: Vec::new(),
            discarded: false,
            overflown: false,
            walked: 0,
            trail: explain.then(Vec::new),
            remarks: Vec::new(),
        }
    }

    /// Whether it is a look at a mailbox that is owed.
    pub fn is_at_mailbox(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.user.is_some())
    }

    /// What has to be known next.
    pub fn next(&mut self, table: &Table, domains: &Domains) -> Want<A> {
        debug_assert!(self.asked.is_none(), "an answer is owed");
        while !self.todo.is_empty() {
            if self.walked >= WALK_MOST {
                self.walked = 0;
                return Want::Pause;
            }
            self.walked += 1;
            let Some(item) = self.todo.pop() else { break };
            let want = match item.stage {
                Stage::Whole => self.whole(item, table, domains),
                Stage::User | Stage::File | Stage::Exact => self.rest(item, table, domains),
            };
            if let Some(name) = want {
                return Want::User(name);
            }
        }
        Want::Nothing
    }

    /// An authenticator has spoken about the user of [`Want::User`]: a failure when nobody can tell, `None` when there is no such
    /// user. What has to be known next.
    pub fn looked_up(&mut self, user: Result<Option<User<A>>, Failure>, table: &Table, domains: &Domains) -> Want<A> {
        let Some(Asked { item, name, .. }) = self.asked.take() else { return self.next(table, domains) };
        match user {
            Err(failure) => {
                self.note(&item.whole, What::Words("user"), || "nobody can tell just now".to_owned());
                self.fail(item, Stage::User, failure);
            }
            Ok(None) => self.stranger(item, table, domains),
            Ok(Some(user)) => {
                self.note(&item.whole, What::Words("user"), || format!("the user {}", name.shown()));
                let mut own = true;
                if item.stage <= Stage::User && !user.forward.is_empty() {
                    self.note(&item.whole, What::Words("fwd"), || shown(&user.forward));
                    let targets = self.allowed(user.forward, user.uid, &item.whole, table);
                    own = self.lead(&item, targets, user.uid, domains);
                }
                if own {
                    let follow = item.stage != Stage::Exact;
                    let want = Want::Mailbox(name.clone(), user.account.clone(), follow);
                    self.asked = Some(Asked { item, name, user: Some((user.account, user.uid)) });
                    return want;
                }
            }
        }
        self.next(table, domains)
    }

    /// The mailbox of [`Want::Mailbox`] was looked at, or could not be. What has to be known next.
    pub fn looked_at(&mut self, look: Result<Look, Failure>, table: &Table, domains: &Domains) -> Want<A> {
        let Some(Asked { item, name, user: Some((account, uid)) }) = self.asked.take() else {
            return self.next(table, domains);
        };
        let look = match look {
            Ok(look) => look,
            Err(failure) => {
                self.note(&item.whole, What::Words("mailbox"), || "it cannot be looked at just now".to_owned());
                self.fail(item, Stage::File, failure);
                return self.next(table, domains);
            }
        };
        let own = match look.forward {
            Some(targets) if item.stage != Stage::Exact => {
                self.note(&item.whole, What::Words("forward file"), || shown(&targets));
                let targets = self.allowed(targets, uid, &item.whole, table);
                self.lead(&item, targets, uid, domains)
            }
            _ => true,
        };
        if own && look.full {
            self.note(&item.whole, What::Words("mailbox"), || "it is full".to_owned());
            self.fail(item, Stage::Exact, Failure::Full);
        } else if own && self.boxes.insert(name.shown().into()) {
            self.note(&item.whole, What::Words("mailbox"), || format!("delivered to {}", name.shown()));
            let to = Destination::Mailbox(name, account);
            self.ways.push(Way { to, sender: item.sender, room: look.room });
        }
        self.next(table, domains)
    }

    /// What it came to: where the mail goes, nowhere when it is thrown away; or why nobody can have it.
    pub fn finish(&mut self) -> Result<Vec<Way<A>>, Failure> {
        let (mut ways, failures) = (std::mem::take(&mut self.ways), std::mem::take(&mut self.failures));
        if self.overflown {
            return Err(Failure::TooMany);
        }
        if ways.is_empty() && !self.discarded {
            let first = failures.iter().find(|(_, failure)| failure.passes()).or(failures.first());
            return Err(first.map_or(Failure::Round, |(_, failure)| *failure));
        }
        let lacking = failures.into_iter().map(|(item, _)| (Destination::Local(item.whole, item.stage), item.sender));
        ways.extend(lacking.map(|(to, sender)| Way { to, sender, room: None }));
        Ok(ways)
    }

    /// What was applied, if that was asked for.
    pub fn trail(&self) -> &[Applied] {
        self.trail.as_deref().unwrap_or_default()
    }

    /// What the operator should hear about users' own lists: an address, and what is wrong.
    pub fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// All steps up to the user. `Some`: he has to be known.
    fn whole(&mut self, item: Item, table: &Table, domains: &Domains) -> Option<Name> {
        let key = known_as(&item.whole, domains);
        if item.depth > DEPTH_MOST || self.met.len() >= DESTINATIONS_MOST {
            self.overflown = true;
            self.todo.clear();
            return None;
        }
        if !self.met.insert((key.clone(), false)) {
            self.note(&item.whole, What::Words("met before"), || "one copy is enough".to_owned());
            return None;
        }
        if let Some(Forward { targets, copy, cited }) = table.forwards.get(&key) {
            self.note(&item.whole, What::Setting(cited.0, cited.1), || shown(targets));
            let own = self.lead(&item, targets.iter().cloned(), None, domains);
            if !own && !copy {
                return None;
            }
        }
        let Some((domain, is_main)) = domains.canonical(&item.whole.domain) else {
            self.note(&item.whole, What::Words("another host"), || "sent there".to_owned());
            self.add(Destination::Remote(item.whole), item.sender);
            return None;
        };
        let mut item = item;
        if let Some(found) = table.aliases.find(&key.local, domain, is_main) {
            let (file, line) = found.place();
            let targets: Vec<Target> = found.targets().collect();
            self.note(&item.whole, What::Alias(file.to_owned(), line), || shown(&targets));
            if let Some(owner) = found.owner(&key.local, is_main) {
                self.note(&item.whole, What::Words("owner"), || format!("bounces go to {owner}"));
                item.sender = Some(owner);
            }
            if !self.lead(&item, targets, None, domains) {
                return None;
            }
        } else if key.local.as_ref() == "postmaster" && self.lead_to_sysadmin(&item, &key, table, domains) {
            return None;
        }
        self.ask(item, table, domains)
    }

    /// Asks who that is, if anybody can be called so.
    fn ask(&mut self, item: Item, table: &Table, domains: &Domains) -> Option<Name> {
        let login = format!("{}@{}", item.whole.local, item.whole.domain);
        // The main domain's own user when the domain was only another name of it.
        match domains.resolve(login.as_bytes(), Home::default()) {
            Some(name) => {
                self.asked = Some(Asked { item, name: name.clone(), user: None });
                Some(name)
            }
            None => {
                self.stranger(item, table, domains);
                None
            }
        }
    }

    /// What follows `forward` and aliases.
    fn rest(&mut self, item: Item, table: &Table, domains: &Domains) -> Option<Name> {
        if self.met.len() >= DESTINATIONS_MOST {
            self.overflown = true;
            return None;
        }
        let key = known_as(&item.whole, domains);
        if !self.met.insert((key, item.stage == Stage::Exact)) {
            return None;
        }
        self.ask(item, table, domains)
    }

    /// There is no such user.
    fn stranger(&mut self, item: Item, table: &Table, domains: &Domains) {
        self.note(&item.whole, What::Words("user"), || "there is none".to_owned());
        let key = known_as(&item.whole, domains);
        if item.stage <= Stage::User {
            if let Some((user, _)) = table.delimiter.and_then(|sign| item.whole.local.split_once(sign))
                && !user.is_empty()
            {
                let whole = Addressee::new(user, item.whole.domain.clone());
                self.note(&item.whole, What::Setting("recipient_delimiter", 0), || whole.to_string());
                self.push(&item, whole, Stage::Whole);
                return;
            }
            let reserved = matches!(&*key.local, "abuse" | "postmaster");
            if reserved && self.lead_to_sysadmin(&item, &key, table, domains) {
                return;
            }
            if let Some((to, index)) = table.catch_all.get(&key.domain)
                && known_as(to, domains) != key
            {
                self.note(&item.whole, What::Setting("catch_all", *index), || to.to_string());
                self.push(&item, to.clone(), Stage::Whole);
                return;
            }
        }
        self.fail(item, Stage::User, Failure::Nobody);
    }

    /// Leads on to sysadmin, unless there is none, or he is that address himself.
    fn lead_to_sysadmin(&mut self, item: &Item, key: &Addressee, table: &Table, domains: &Domains) -> bool {
        let Some(sysadmin) = table.sysadmin.as_ref().filter(|sysadmin| known_as(sysadmin, domains) != *key) else {
            return false;
        };
        self.note(&item.whole, What::Setting("sysadmin", 0), || sysadmin.to_string());
        self.push(item, sysadmin.clone(), Stage::Whole);
        true
    }

    /// A user's own list without the programs that he may not run; they become his own copy.
    fn allowed(&mut self, targets: Vec<Target>, uid: Option<u32>, whole: &Addressee, table: &Table) -> Vec<Target> {
        let may = table.user_robots && uid.is_some();
        let why = if table.user_robots { "he has no user number" } else { "user_robots is false" };
        let allowed = |target: Target| match target {
            Target::Program(words) if !may => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                self.remark(format!(
                    "{whole}: his list names the program {program}, which is not run, for {why}; he has a copy himself"
                ));
                Target::Own
            }
            target => target,
        };
        targets.into_iter().map(allowed).collect()
    }

    /// Goes where a list leads. Whether its own address is among that.
    fn lead(
        &mut self,
        item: &Item,
        targets: impl IntoIterator<Item = Target>,
        user: Option<u32>,
        domains: &Domains,
    ) -> bool {
        let key = known_as(&item.whole, domains);
        let mut own = false;
        let before = self.todo.len();
        for target in targets {
            match target {
                Target::Own => own = true,
                Target::Address(whole) | Target::Exact(whole) if known_as(&whole, domains) == key => own = true,
                Target::Address(whole) => self.push(item, whole, Stage::Whole),
                Target::Exact(whole) => self.push(item, whole, Stage::Exact),
                Target::Discard => self.discarded = true,
                Target::Program(words) => {
                    let program = Program { words, user };
                    if !self.ways.iter().any(|way| matches!(&way.to, Destination::Program(other) if *other == program))
                    {
                        self.add(Destination::Program(program), item.sender.clone());
                    }
                }
                // They stand in its place where files may be included.
                Target::Include(_) => {}
            }
        }
        // In the order in which they are written.
        self.todo[before..].reverse();
        own
    }

    fn push(&mut self, from: &Item, whole: Addressee, stage: Stage) {
        if self.todo.len() >= DESTINATIONS_MOST {
            self.overflown = true;
            return;
        }
        self.todo.push(Item { whole, stage, depth: from.depth + 1, sender: from.sender.clone() });
    }

    fn add(&mut self, to: Destination<A>, sender: Option<Addressee>) {
        self.ways.push(Way { to, sender, room: None });
    }

    /// It failed at that step, unless it was to begin behind it.
    fn fail(&mut self, mut item: Item, at: Stage, failure: Failure) {
        item.stage = item.stage.max(at);
        self.failures.push((item, failure));
    }

    fn remark(&mut self, remark: String) {
        if self.remarks.len() < REMARKS_MOST {
            self.remarks.push(remark);
        }
    }

    fn note(&mut self, to: &Addressee, what: What, made: impl FnOnce() -> String) {
        if let Some(trail) = self.trail.as_mut().filter(|trail| trail.len() < TRAIL_MOST) {
            trail.push(Applied { to: to.to_string(), what, made: made() });
        }
    }
}

/// Whether mail for an address comes to the user who is canonically called `login`, by what the operator says: alias files and
/// lines of the settings. Nobody is asked: whoever can be a user is taken for one, but for those with a detail, who lead on to
/// the user before it. So what `catch_all` gathers is nobody's, and what users have forwarded changes nothing.
pub fn leads_to(from: Addressee, login: &str, table: &Table, domains: &Domains) -> bool {
    let mut route = Route::new(from, Stage::Whole, false);
    let mut want = route.next(table, domains);
    loop {
        want = match want {
            Want::Nothing => return false,
            Want::Pause => route.next(table, domains),
            Want::User(name) if name.shown() == login => return true,
            Want::User(name) => {
                let has_detail = table.delimiter.is_some_and(|sign| name.shown().contains(sign));
                let user = User { account: (), uid: None, forward: Vec::new() };
                route.looked_up(Ok((!has_detail).then_some(user)), table, domains)
            }
            Want::Mailbox(..) => route.looked_at(Ok(Look { forward: None, room: None, full: false }), table, domains),
        };
    }
}

/// The first of a list, for a trail.
fn shown(targets: &[Target]) -> String {
    const SHOWN: usize = 5;
    let mut shown = targets.iter().take(SHOWN).map(Target::to_string).collect::<Vec<_>>().join(", ");
    if targets.len() > SHOWN {
        shown.push_str(&format!(" and {} more", targets.len() - SHOWN));
    }
    shown
}

#[cfg(test)]
mod tests;
