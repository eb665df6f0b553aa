//! What the clients of a run do, and the journal of it.
//!
//! | clients       | each                                                                                           |
//! |---------------|------------------------------------------------------------------------------------------------|
//! | SMTP senders  | a connection with one to six messages, from 300 bytes to a megabyte, for one or more mailboxes  |
//! | LMTP senders  | the same, where there is such a door                                                           |
//! | POP3 clients  | any mailbox: everything is listed and fetched, and of it some six in ten deleted                |
//!
//! Sessions have their number where the engine has an account's: it compares nothing between sessions then, and the journal
//! does that. Facts on which a next step depends are settled, synced, once a turn of the engine's loop; who told them stands
//! still until then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use rand_pcg::Pcg64;

use super::journal::{Fact, Journal};
use super::server::Gate;
use crate::letter::Stamp;
use crate::work::{Account, Acts, End, Event, Fate, Line, Mail, Outcome, PopTask, Port, SmtpTask, Task, Work};

/// Sizes of messages; the last two are drawn more seldom.
const SIZES: [u64; 8] = [300, 300, 2_000, 2_000, 10_000, 40_000, 200_000, 1_000_000];
/// Messages on one connection.
const MAILS: usize = 6;
/// In a hundred: what a POP3 session deletes.
const DELETES: u8 = 60;
/// A mailbox that cannot be opened is tried again for so long at the last look; the engine pauses after each failure.
const PATIENCE: Duration = Duration::from_secs(40);

/// Which faults clients make.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    pub resets: bool,
    pub half_open: bool,
}

/// Whom clients are, and how many.
pub struct Crew {
    /// Logins and passwords.
    pub accounts: Vec<(String, String)>,
    pub domain: String,
    /// A domain of another host that the server relays to.
    pub remote: Option<String>,
    pub smtp: usize,
    pub lmtp: usize,
    pub pop: usize,
    pub manners: Manners,
    /// Of the run: the id in all stamps.
    pub run: u64,
    pub written_secs: i64,
}

/// Numbers of messages; foreign writers have theirs from it too.
pub type Numbers = Arc<std::sync::atomic::AtomicU64>;

/// The work of a run.
pub struct Clerk {
    crew: Crew,
    journal: Arc<Journal>,
    gate: Arc<Gate>,
    random: Pcg64,
    numbers: Numbers,
    sessions: u64,
    /// POP3 sessions under way: how far.
    open: HashMap<u64, Stage>,
    /// Messages whose text is under way.
    begun: HashSet<u64>,
    unsettled: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Quitting,
    Committed,
}

/// The mailbox of an address: see the journal's page.
fn mailbox<'a>(address: &'a str, domain: &str) -> &'a str {
    address.strip_suffix(domain).and_then(|rest| rest.strip_suffix('@')).unwrap_or(address)
}

impl Clerk {
    /// A clerk with a new journal.
    pub fn new(crew: Crew, journal: Arc<Journal>, gate: Arc<Gate>, random: Pcg64, numbers: Numbers) -> Clerk {
        let (open, begun) = (HashMap::new(), HashSet::new());
        Clerk { crew, journal, gate, random, numbers, sessions: 0, open, begun, unsettled: 0 }
    }

    /// All its clients.
    pub fn clients(&self) -> usize {
        self.crew.smtp + self.crew.lmtp + self.crew.pop
    }

    fn line(&mut self) -> Line {
        let Manners { resets, half_open } = self.crew.manners;
        let after = self.random.random_range(0..60_000);
        let fate = match self.random.random_range(0..20) {
            0 if resets => Fate::Resets { after },
            1 if half_open => Fate::HalfOpen { after },
            2 if half_open => Fate::Vanishes { after, silent: Duration::from_millis(u64::from(after) / 20) },
            _ => Fate::Lives,
        };
        Line { fate, ..Line::default() }
    }

    fn send(&mut self, port: Port) -> Task {
        let mails = (0..self.random.random_range(1..=MAILS)).map(|_| self.mail()).collect();
        let kind = if port == Port::Lmtp { "lmtp" } else { "smtp" };
        Task::Smtp(SmtpTask { kind, port, auth: None, mails, line: self.line() })
    }

    fn mail(&mut self) -> Mail {
        let accounts = self.crew.accounts.len();
        let most = match self.random.random_range(0..10) {
            0..=5 => 1,
            6..=8 => 3,
            _ => accounts,
        };
        let wanted = self.random.random_range(1..=most.min(accounts));
        let mut to = Vec::new();
        let first = self.random.random_range(0..accounts);
        for step in 0..wanted {
            to.push(format!("{}@{}", self.crew.accounts[(first + step) % accounts].0, self.crew.domain));
        }
        if let Some(remote) = &self.crew.remote
            && self.random.random_range(0..5) == 0
        {
            to.push(format!("kim@{remote}"));
        }
        let size = SIZES[(self.random.random_range(0..SIZES.len())).min(self.random.random_range(0..SIZES.len()))];
        let seq = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Mail {
            stamp: Stamp { id: self.crew.run, seq },
            from: format!("ledger@{}", self.crew.domain),
            to,
            bytes: size + self.random.next_u64() % (size / 2),
            written_secs: self.crew.written_secs,
        }
    }

    fn visit(&mut self, place: usize, deletes: u8, line: Line) -> Task {
        self.sessions += 1;
        let (login, password) = self.crew.accounts[place].clone();
        self.open.insert(self.sessions, Stage::Open);
        self.journal.note(&Fact::Opens { session: self.sessions, to: &login });
        let account = Account { number: self.sessions, login, password };
        let pipeline = if self.random.random_range(0..2) == 0 { 1 } else { 8 };
        Task::Pop(PopTask { pipeline, line, ..PopTask::new("pop", account, Acts::Audit { deletes }) })
    }

    fn answered(&mut self, mail: &Mail, verdict: &crate::work::Verdict) {
        let seq = mail.stamp.seq;
        if !self.begun.remove(&seq) {
            // No text was sent: there is nothing to be found, and nothing to be lost.
            return;
        }
        for (address, &code) in mail.to.iter().zip(&verdict.recipients) {
            let to = mailbox(address, &self.crew.domain);
            let words = if verdict.words.is_empty() { "no words" } else { &verdict.words };
            let said;
            let fact = match (verdict.end, code) {
                // Whatever came of the others, this one was refused before the text, or after it by itself.
                (_, 400..) => {
                    said = format!("{code} {words}");
                    Fact::Refused { seq, to, reply: &said }
                }
                (End::Acked, 200..300) => Fact::Acked { seq, to, reply: words },
                (End::Refused(_), 200..300) => Fact::Refused { seq, to, reply: words },
                (End::Unsent, _) => Fact::Refused { seq, to, reply: "the text was never ended" },
                (End::Unknown | End::Acked | End::Refused(_), _) => Fact::Unknown { seq, to, why: words },
            };
            self.journal.note(&fact);
        }
        self.unsettled += 1;
    }

    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Sending { mail } => {
                let to = mail.to.iter().map(|to| mailbox(to, &self.crew.domain)).collect();
                self.journal.note(&Fact::Begun { seq: mail.stamp.seq, to, bytes: mail.bytes, way: "sent" });
                self.begun.insert(mail.stamp.seq);
                self.unsettled += 1;
            }
            Event::Told { mail, verdict } => self.answered(mail, verdict),
            Event::Listed { account, uids } => {
                self.journal.note(&Fact::Listed { session: account.number, to: &account.login, uids: uids.to_vec() });
            }
            Event::Retrieved { account, seen } => {
                let seq = seen.stamp.filter(|stamp| stamp.id == self.crew.run).map(|stamp| stamp.seq);
                let (session, to) = (account.number, &account.login[..]);
                self.journal.note(&Fact::Fetched { session, to, uid: seen.uid, seq, whole: !seen.damaged });
            }
            Event::Quitting { account, deleted } => {
                for seen in *deleted {
                    let seq = seen.stamp.filter(|stamp| stamp.id == self.crew.run).map(|stamp| stamp.seq);
                    self.journal.note(&Fact::Marked {
                        session: account.number,
                        to: &account.login,
                        uid: seen.uid,
                        seq,
                    });
                }
                self.open.insert(account.number, Stage::Quitting);
                self.unsettled += 1;
            }
            Event::Committed { account, .. } => {
                self.journal.note(&Fact::Deleted { session: account.number, to: &account.login });
                self.open.insert(account.number, Stage::Committed);
                self.unsettled += 1;
            }
        }
    }

    fn over(&mut self, task: &Task) {
        let Task::Pop(task) = task else { return };
        let (session, to) = (task.account.number, &task.account.login[..]);
        match self.open.remove(&session) {
            Some(Stage::Quitting) => self.journal.note(&Fact::Doubt { session, to }),
            Some(Stage::Open) => self.journal.note(&Fact::Closed { session, to }),
            Some(Stage::Committed) | None => {}
        }
    }

    fn sync(&mut self) {
        // What cannot be kept is known to nobody: then there is no use in going on.
        if !self.journal.sync() {
            self.gate.close();
        }
        self.unsettled = 0;
    }

    /// The same clerk, for the last look.
    pub fn last_look(self) -> LastLook {
        let waiting = (0..self.crew.accounts.len()).collect();
        LastLook { clerk: self, waiting, under: HashMap::new(), until: None, closed: HashMap::new() }
    }
}

impl Work for Clerk {
    fn next(&mut self, client: usize, _now: Instant) -> Option<Task> {
        self.sync();
        self.gate.wait();
        if self.gate.is_over() {
            return None;
        }
        Some(if client < self.crew.smtp {
            self.send(Port::Smtp)
        } else if client < self.crew.smtp + self.crew.lmtp {
            self.send(Port::Lmtp)
        } else {
            let place = self.random.random_range(0..self.crew.accounts.len());
            let line = self.line();
            self.visit(place, DELETES, line)
        })
    }

    fn told(&mut self, event: &Event<'_>) {
        self.tell(event);
    }

    fn done(&mut self, task: &Task, _outcome: &Outcome) {
        self.over(task);
    }

    fn unsettled(&self) -> u64 {
        self.unsettled
    }

    fn settle(&mut self) {
        if self.unsettled > 0 {
            self.sync();
        }
    }
}

/// Each mailbox is opened once more, at the end, and everything in it is listed and fetched.
pub struct LastLook {
    clerk: Clerk,
    /// Mailboxes to be opened.
    waiting: VecDeque<usize>,
    /// Sessions: of which mailbox.
    under: HashMap<u64, usize>,
    /// Nobody tries again after this.
    until: Option<Instant>,
    /// Mailboxes whose last try failed, and why.
    closed: HashMap<usize, String>,
}

impl LastLook {
    /// Whom nobody could look at: mailbox and reason.
    pub fn closed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.closed.iter().map(|(&place, why)| (&self.clerk.crew.accounts[place].0[..], &why[..]))
    }
}

impl Work for LastLook {
    fn next(&mut self, _client: usize, now: Instant) -> Option<Task> {
        self.until.get_or_insert(now + PATIENCE);
        let place = self.waiting.pop_front()?;
        let login = self.clerk.crew.accounts[place].0.clone();
        self.clerk.journal.note(&Fact::Final { session: self.clerk.sessions + 1, to: &login });
        let task = self.clerk.visit(place, 0, Line::default());
        self.under.insert(self.clerk.sessions, place);
        Some(task)
    }

    fn told(&mut self, event: &Event<'_>) {
        self.clerk.tell(event);
    }

    fn done(&mut self, task: &Task, outcome: &Outcome) {
        self.clerk.over(task);
        let Task::Pop(pop) = task else { return };
        let Some(place) = self.under.remove(&pop.account.number) else { return };
        self.closed.remove(&place);
        // Wrong bytes are a finding, not a reason to look again.
        if let Some((_, why)) = outcome.trouble.as_ref().filter(|(what, _)| !what.starts_with("wrong")) {
            self.closed.insert(place, why.clone());
            if self.until.is_some_and(|until| Instant::now() < until) {
                self.waiting.push_back(place);
            }
        }
    }

    fn unsettled(&self) -> u64 {
        self.clerk.unsettled
    }

    fn settle(&mut self) {
        self.clerk.settle();
    }
}
