//! What a POP3 client asks and checks.
//!
//! | what comes | what it is compared with                                                                  |
//! |------------|-------------------------------------------------------------------------------------------|
//! | LIST       | numbers from 1 on without a gap; as many and as many octets as STAT said                   |
//! | UIDL       | as many as STAT said, each once; the same, in the same order, as at the account's last visit |
//! | a message  | octets: those of LIST, and those its first line announced; bytes: its own stamp            |
//! | a stamp    | once in a drop; in a made spool, in its own drop                                           |
//!
//! What is known of an account between visits is a count and one hash ([`Visits`]): mail is only appended, and whoever
//! deletes here says so, so all that was there before must stand at the front again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::Instant;

use dmail::net::stream::{Done, Flow, Never};
use dmail::net::tls::Secure;
use dmail::protocol::pop3::client::{self, Answer, Ask, Client, Command, Reply};
use dmail::text::secret::Secret;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Doing, Life, Talk};
use crate::letter::{Check, Stamp, Verdict};
use crate::run::Shared;
use crate::work::{Acts, Event, PopTask, Seen, Task};

/// Messages of a drop that a client makes room for; a server that says more is not believed.
const MOST: u32 = 4_000_000;
/// A client that leaves mail on the server has seen, at its first visit here, all but so many.
const NEWS: usize = 10;

/// What is remembered of the accounts that left mail on the server.
#[derive(Debug, Default)]
pub struct Visits(HashMap<u64, Visit>);

#[derive(Debug, Clone, Copy)]
struct Visit {
    count: u32,
    /// Of the hashes of so many unique-ids, in order.
    digest: u64,
}

impl Visits {
    /// Compares an account's unique-ids with those of the last visit, and remembers them: how many of them are known, or
    /// what is wrong.
    fn compare(&mut self, account: u64, uids: &[u64]) -> Result<Option<usize>, String> {
        let digest = |uids: &[u64]| {
            let mut hash = Xxh3::new();
            uids.iter().for_each(|uid| hash.update(&uid.to_le_bytes()));
            hash.digest()
        };
        let visit = Visit { count: uids.len() as u32, digest: digest(uids) };
        let Some(last) = self.0.insert(account, visit) else { return Ok(None) };
        let known = last.count as usize;
        match uids.get(..known) {
            None => Err(format!("{} unique-ids where there were {known}, and nobody deleted", uids.len())),
            Some(old) if digest(old) != last.digest => {
                Err(format!("the first {known} unique-ids are not those of the last visit"))
            }
            Some(_) => Ok(Some(known)),
        }
    }

    /// Something was deleted, or may have been.
    fn forget(&mut self, account: u64) {
        self.0.remove(&account);
    }
}

/// A POP3 client.
pub struct Pop {
    task: PopTask,
    /// For STLS.
    secure: Option<Secure>,
    /// LIST: octets by message.
    sizes: Vec<u64>,
    /// UIDL: hashes by message.
    uids: Vec<u64>,
    /// What is wrong with the listing under way.
    wrong: Option<String>,
    /// What is still to be said.
    todo: VecDeque<Command>,
    /// Said, and not answered.
    owed: usize,
    /// What has been asked: how bytes that come are to be read.
    receiving: Receiving,
    check: Check,
    /// Letters of this drop, and which messages they are.
    stamps: HashMap<Stamp, u32>,
    deleted: Vec<Seen>,
    /// QUIT was said with marks set, and what became of it is not known.
    quitting: bool,
}

/// What long replies are on their way, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Sizes,
    Uids,
    Message,
}

impl Pop {
    pub fn new(task: PopTask, secure: Option<Secure>) -> Pop {
        Pop {
            task,
            secure,
            sizes: Vec::new(),
            uids: Vec::new(),
            wrong: None,
            todo: VecDeque::new(),
            owed: 0,
            receiving: Receiving::Message,
            check: Check::default(),
            stamps: HashMap::new(),
            deleted: Vec::new(),
            quitting: false,
        }
    }

    fn say(&mut self, command: Command) -> Doing<Pop> {
        self.owed += 1;
        Done::Now(Answer::Say(vec![command]))
    }

    /// The first words to the server, once the line is as it should be.
    fn log_in(&mut self) -> Doing<Pop> {
        self.say(Command::User(self.task.account.login.as_bytes().into()))
    }

    fn heard(
        &mut self,
        life: &mut Life,
        shared: &mut Shared<'_>,
        now: Instant,
        command: Option<Command>,
        reply: Reply,
    ) -> Doing<Pop> {
        self.owed = self.owed.saturating_sub(usize::from(command.is_some()));
        let Some(command) = command else {
            life.step(shared, "greeting", now);
            if let Reply::Refused(text) = &reply {
                life.error(shared, class(&reply), text);
                return Done::Now(Answer::Leave);
            }
            return if self.secure.is_some() { self.say(Command::Stls) } else { self.log_in() };
        };
        if let Reply::Refused(text) = &reply {
            return self.refused(life, shared, now, &command, class(&reply), text);
        }
        match (command, reply) {
            (Command::Stls, _) => {
                life.step(shared, "stls", now);
                self.log_in()
            }
            (Command::User(_), _) => {
                let password = Secret::new(self.task.account.password.clone().into_bytes());
                self.say(Command::Pass(password))
            }
            (Command::Pass(_), _) => {
                if self.task.wrong_password {
                    life.error(shared, "let in", "a wrong password was good enough");
                    return self.quit(life, shared, now);
                }
                life.step(shared, "login", now);
                self.say(Command::Stat)
            }
            (Command::Stat, Reply::Totals { messages, octets }) => {
                life.step(shared, "stat", now);
                life.stat = Some((messages, octets));
                self.after_stat(life, shared, now)
            }
            (Command::List(None), _) => {
                life.step(shared, "list", now);
                self.judge_list(life, shared);
                if matches!(self.task.acts, Acts::Leave | Acts::Audit { .. }) {
                    self.receiving = Receiving::Uids;
                    return self.say(Command::Uidl(None));
                }
                self.plan(None);
                self.go_on(life, shared, now)
            }
            (Command::Uidl(None), _) => {
                life.step(shared, "uidl", now);
                let known = self.judge_uids(life, shared);
                if matches!(self.task.acts, Acts::Audit { .. }) {
                    shared.work.told(&Event::Listed { account: &self.task.account, uids: &self.uids });
                }
                self.plan(Some(known));
                self.go_on(life, shared, now)
            }
            (Command::Retr(number), Reply::Text(text)) => {
                life.step(shared, "retr", now);
                self.judge_message(life, shared, number, text);
                self.go_on(life, shared, now)
            }
            (Command::Dele(_), _) => {
                life.step(shared, "dele", now);
                self.go_on(life, shared, now)
            }
            (Command::Quit, _) => {
                life.step(shared, "quit", now);
                life.complete = true;
                if std::mem::take(&mut self.quitting) {
                    shared.work.told(&Event::Committed { account: &self.task.account });
                }
                Done::Now(Answer::Leave)
            }
            (command, reply) => {
                life.error(shared, "nonsense", &format!("{command:?} was answered {reply:?}"));
                Done::Now(Answer::Leave)
            }
        }
    }

    fn refused(
        &mut self,
        life: &mut Life,
        shared: &mut Shared<'_>,
        now: Instant,
        command: &Command,
        what: &'static str,
        text: &str,
    ) -> Doing<Pop> {
        if self.task.wrong_password && matches!(command, Command::User(_) | Command::Pass(_)) {
            life.step(shared, "refusal", now);
            return self.say(Command::Quit);
        }
        let verb = match command {
            // Neither name nor password is for a report.
            Command::User(_) => "USER",
            Command::Pass(_) => "PASS",
            Command::Stls => "STLS",
            Command::Stat => "STAT",
            Command::List(_) => "LIST",
            Command::Uidl(_) => "UIDL",
            Command::Retr(_) => "RETR",
            Command::Dele(_) => "DELE",
            Command::Quit => "QUIT",
            _ => "a command",
        };
        life.error(shared, what, &format!("{verb}: -ERR {text}"));
        // No QUIT: nothing of what was marked is to be deleted.
        Done::Now(Answer::Leave)
    }

    fn after_stat(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Doing<Pop> {
        if life.stat.is_some_and(|(messages, _)| messages > self.task.leave_above)
            && self.task.acts == Acts::FetchDelete
        {
            self.task.acts = Acts::Leave;
        }
        match self.task.acts {
            Acts::Poll => self.quit(life, shared, now),
            Acts::Hold(_) if shared.over => self.quit(life, shared, now),
            Acts::Hold(long) => {
                life.pause(now + long);
                Done::Later
            }
            Acts::FetchDelete | Acts::Leave | Acts::Retrieve(_) | Acts::DeleteHalf | Acts::Audit { .. } => {
                self.receiving = Receiving::Sizes;
                self.say(Command::List(None))
            }
        }
    }

    fn judge_list(&mut self, life: &mut Life, shared: &mut Shared<'_>) {
        let (messages, octets) = life.stat.unwrap_or_default();
        // A hostile server can say more than a sum can hold.
        let sum = self.sizes.iter().fold(0_u64, |sum, octets| sum.saturating_add(*octets));
        if let Some(wrong) = self.wrong.take() {
            life.error(shared, "wrong list", &wrong);
        } else if self.sizes.len() as u64 != u64::from(messages) || sum != octets && !shared.loose_sizes {
            let text = format!("LIST: {} messages of {sum} octets; STAT: {messages} of {octets}", self.sizes.len());
            life.error(shared, "wrong list", &text);
        }
    }

    /// How many of the messages this client has seen at earlier visits.
    fn judge_uids(&mut self, life: &mut Life, shared: &mut Shared<'_>) -> usize {
        let (messages, _) = life.stat.unwrap_or_default();
        let mut each = HashSet::with_capacity(self.uids.len());
        let account = self.task.account.number;
        if let Some(wrong) = self.wrong.take() {
            life.error(shared, "wrong uid", &wrong);
        } else if self.uids.len() as u64 != u64::from(messages) {
            life.error(shared, "wrong uid", &format!("UIDL: {} messages; STAT: {messages}", self.uids.len()));
        } else if !self.uids.iter().all(|uid| each.insert(uid)) {
            life.error(shared, "wrong uid", "the same unique-id twice in one drop");
        } else if matches!(self.task.acts, Acts::Leave) {
            match shared.visits.compare(account, &self.uids) {
                Ok(Some(known)) => return known,
                Ok(None) => {}
                Err(wrong) => life.error(shared, "wrong uid", &wrong),
            }
        }
        self.uids.len().saturating_sub(NEWS)
    }

    /// What is to be said to the messages there are. `known`: how many of them were seen before.
    fn plan(&mut self, known: Option<usize>) {
        let count = self.sizes.len() as u32;
        self.receiving = Receiving::Message;
        match self.task.acts {
            Acts::Poll | Acts::Hold(_) => {}
            Acts::FetchDelete => {
                self.todo.extend((1..=count).flat_map(|number| [Command::Retr(number), Command::Dele(number)]));
            }
            Acts::Leave => {
                let first = known.unwrap_or_default() as u32 + 1;
                self.todo.extend((first..=count).map(Command::Retr));
            }
            Acts::Retrieve(times) if count > 0 => {
                self.todo.extend((0..times).map(|at| Command::Retr(at % count + 1)));
            }
            Acts::Retrieve(_) => {}
            Acts::Audit { .. } => {
                for number in 1..=count {
                    self.todo.push_back(Command::Retr(number));
                    if self.is_chosen(number) {
                        self.todo.push_back(Command::Dele(number));
                    }
                }
            }
            Acts::DeleteHalf => {
                let octets = |number: u32| self.sizes[number as usize - 1];
                let seen = |number| Seen { uid: 0, octets: octets(number), stamp: None, damaged: false };
                self.deleted = (2..=count).step_by(2).map(seen).collect();
                self.todo.extend((2..=count).step_by(2).map(Command::Dele));
            }
        }
    }

    /// Whether an audit deletes it.
    fn is_chosen(&self, number: u32) -> bool {
        let Acts::Audit { deletes } = self.task.acts else { return false };
        let uid = self.uids.get(number as usize - 1).copied().unwrap_or_default();
        (uid ^ xxh3_64(&self.task.account.number.to_le_bytes())) % 100 < u64::from(deletes)
    }

    /// Says as much of the plan as may be under way; QUIT when nothing is left of it.
    fn go_on(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Doing<Pop> {
        let room = (self.task.pipeline.max(1) as usize).saturating_sub(self.owed);
        let commands: Vec<Command> = self.todo.drain(..room.min(self.todo.len())).collect();
        self.owed += commands.len();
        if self.owed == 0 {
            return self.quit(life, shared, now);
        }
        Done::Now(Answer::Say(commands))
    }

    fn quit(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Doing<Pop> {
        // Whoever was to die in the midst of a message, and got none so long, dies here.
        if life.meet_fate() {
            return Done::Later;
        }
        life.restart(now);
        if !self.deleted.is_empty() {
            self.quitting = true;
            shared.visits.forget(self.task.account.number);
            shared.work.told(&Event::Quitting { account: &self.task.account, deleted: &self.deleted });
        }
        self.say(Command::Quit)
    }

    fn judge_message(&mut self, life: &mut Life, shared: &mut Shared<'_>, number: u32, text: client::Text) {
        let at = number as usize - 1;
        let listed = self.sizes.get(at).copied().unwrap_or_default();
        let verdict = std::mem::take(&mut self.check).finish();
        let account = &self.task.account;
        let login = &account.login;
        if !shared.loose_sizes && (text.octets != listed || text.announced.is_some_and(|said| said != text.octets)) {
            let said = text.announced.map(|said| format!(", RETR {said}")).unwrap_or_default();
            let text = format!("{login}: message {number}: LIST {listed}{said}, received {}", text.octets);
            life.error(shared, "wrong size", &text);
        }
        let (stamp, damaged) = match verdict {
            Verdict::Whole(stamp) => (Some(stamp), false),
            Verdict::Damaged(stamp, _) => (Some(stamp), true),
            Verdict::Foreign => (None, false),
        };
        let is_strange = |stamp: &Stamp| stamp.account().is_some_and(|owner| owner != account.number);
        if damaged || verdict == Verdict::Foreign && shared.only_ours {
            life.error(shared, "wrong bytes", &format!("{login}: message {number}: {verdict:?}"));
        } else if shared.own_spools && stamp.as_ref().is_some_and(is_strange) {
            life.error(shared, "wrong mail", &format!("{login}: message {number} is in the wrong drop: {stamp:?}"));
        }
        if let Some(stamp) = stamp
            && let Some(other) = self.stamps.insert(stamp, number).filter(|&other| other != number)
        {
            life.error(shared, "doubled", &format!("{login}: messages {other} and {number} are both {stamp:?}"));
        }
        let uid = self.uids.get(at).copied().unwrap_or_default();
        let seen = Seen { uid, octets: text.octets, stamp, damaged };
        if !life.is_fated() {
            life.messages += 1;
        }
        shared.work.told(&Event::Retrieved { account: &self.task.account, seen: &seen });
        if self.task.acts == Acts::FetchDelete || self.is_chosen(number) {
            self.deleted.push(seen);
        }
    }

    fn size_line(&mut self, line: &[u8]) {
        let expected = self.sizes.len() as u32 + 1;
        match client::scan(line) {
            Some((number, octets)) if number == expected && number <= MOST => self.sizes.push(octets),
            _ => self.strange("LIST", expected, line),
        }
    }

    fn uid_line(&mut self, line: &[u8]) {
        let expected = self.uids.len() as u32 + 1;
        match client::unique(line) {
            Some((number, uid)) if number == expected && number <= MOST => self.uids.push(xxh3_64(uid.as_bytes())),
            _ => self.strange("UIDL", expected, line),
        }
    }

    fn strange(&mut self, verb: &str, expected: u32, line: &[u8]) {
        self.wrong.get_or_insert_with(|| {
            format!("{verb}: {:?} where message {expected} belongs", String::from_utf8_lossy(line))
        });
    }
}

impl Talk for Pop {
    type Machine = Client;
    type Body = Never;

    fn perform(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant, ask: Ask) -> Doing<Pop> {
        match ask {
            Ask::StartTls => match self.secure.take() {
                Some(secure) => Done::StartTls(secure, Answer::TlsStarted),
                None => Done::Now(Answer::Leave),
            },
            Ask::Heard(command, reply) => self.heard(life, shared, now, command, reply),
            Ask::Broken(trouble) => {
                life.error(shared, "nonsense", trouble.text());
                Done::Now(Answer::Leave)
            }
        }
    }

    fn data(&mut self, life: &mut Life, bytes: &[u8]) -> Flow {
        let lines = || bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        match self.receiving {
            Receiving::Sizes => lines().for_each(|line| self.size_line(line)),
            Receiving::Uids => lines().for_each(|line| self.uid_line(line)),
            Receiving::Message => {
                self.check.feed(bytes);
                if life.passed(bytes.len()) {
                    return Flow::Hold;
                }
            }
        }
        Flow::More
    }

    fn woken(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Option<Doing<Pop>> {
        Some(self.quit(life, shared, now))
    }

    fn ended(&mut self, _life: &mut Life, shared: &mut Shared<'_>, _machine: &Client, _fault: Option<&io::Error>) {
        if self.quitting {
            shared.visits.forget(self.task.account.number);
        }
    }

    fn task(self) -> Task {
        Task::Pop(self.task)
    }
}

/// What kind of error a refusal is.
fn class(reply: &Reply) -> &'static str {
    match reply.code() {
        Some("IN-USE") => "-ERR [IN-USE]",
        Some("AUTH") => "-ERR [AUTH]",
        Some("LOGIN-DELAY") => "-ERR [LOGIN-DELAY]",
        Some("SYS/TEMP") => "-ERR [SYS/TEMP]",
        Some("SYS/PERM") => "-ERR [SYS/PERM]",
        _ => "-ERR",
    }
}
