//! DESIGN's table of promises where mail comes in as the server takes it: to one drop directly, to everything else by the
//! queue. After every prefix of the calls that makes, by kill, power cut, a failing call, four of them, a full disk, and
//! again while that is mended, a ledger of what was answered is held against what lies in drops and queue when all is done.
//! `SIM_SEED=n` replays one life.
//!
//! The server in it is a plain one: one thread, and what is due is always now. What it asks of the store, and in which order, is
//! what a server has to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::delivery::parse;
use super::sim::SimDisk;
use crate::mail::dsn::{Report, report_id};
use crate::mail::envelope;
use crate::protocol::smtp::params::Notify;
use crate::store::delivery::{self, Body, Failed, Intents, Letter, Outcome, deliver};
use crate::store::desk::Place;
use crate::store::disk::{self, Disk};
use crate::store::maildrop::Maildrop;
use crate::store::queue::*;
use crate::text::number::Fraction;

const NOW: i64 = 1_767_610_800;
/// Who sends everything, and hears of what failed.
const SENDER: &str = "bob@y";
const LOCK: &str = "/spool/ann.lock";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    None,
    Kill(u64),
    PowerCut(u64),
    Error(u64),
    /// From that call on nothing can be written.
    Full(u64),
    /// Four calls in a row fail.
    Dead(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Accepted,
    Refused,
    Unanswered,
}

/// A message that was sent to us.
struct Sent {
    to: Vec<&'static str>,
    text: Vec<u8>,
    fate: Fate,
}

fn place(user: &str) -> Place {
    Place { full: Fraction::ALL, ..Place::new(format!("/spool/{user}"), "/work") }
}

/// The drop of an address; what is not here has none.
fn user(address: &str) -> Option<&'static str> {
    ["ann", "bob"].into_iter().find(|user| address == format!("{user}@y"))
}

fn received(id: &str) -> Vec<u8> {
    format!("Received: from mx by host with ESMTP id {id}; Mon, 5 Jan 2026 11:00:00 +0000\n").into_bytes()
}

fn recipient(address: &str) -> Recipient {
    let kind = if address.ends_with("@z") { Kind::Remote } else { Kind::Mailbox };
    // The sender wants to hear when ann has it.
    let notify = (address == "ann@y").then_some(Notify { success: true, failure: true, delay: true });
    Recipient { kind, address: address.to_owned(), with: Vec::new(), notify, orcpt: None }
}

/// The server, as far as the store knows it.
struct Server {
    disk: SimDisk,
    intents: Intents<SimDisk>,
    queue: Queue<SimDisk>,
    /// What waits.
    due: BTreeSet<String>,
}

impl Server {
    /// Starts; `None`: it could not.
    fn start(disk: &SimDisk) -> Option<Server> {
        let intents = Intents::open_with(disk, Path::new("/work"), 16_384).ok()?;
        let queue = Queue::open_on(disk, Path::new("/work")).ok()?;
        queue.recover(&intents, &place("ann"), NOW);
        let mut due = BTreeSet::new();
        let mut each = |found: Found| match found {
            Found::Message(message) => drop(due.insert(message.id)),
            Found::Unread(id, _) => drop(due.insert(id)),
            found => panic!("a crash left {found:?}"),
        };
        queue.each(&mut each).ok()?;
        // A plain server waits for no hour.
        let mut walked = Vec::new();
        queue.walk(&mut |id| (walked.push(id.to_owned()), true).1).ok()?;
        let mut sorted = walked.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), walked.len(), "each lies in one place: {walked:?}");
        due.extend(walked);
        Some(Server { disk: disk.clone(), intents, queue, due })
    }

    /// Takes a message in.
    fn accept(&mut self, id: &str, to: &[&str], text: &Body<'_, SimDisk>) -> Fate {
        let head = received(id);
        if let [address] = to
            && let Some(user) = user(address)
        {
            let envelope = delivery::Envelope {
                sender: SENDER.as_bytes(),
                recipient: address.as_bytes(),
                received: &head,
                posted_secs: NOW,
            };
            let letter = Letter { envelope, body: text.clone(), queued: None, marked: None };
            match deliver(&self.intents, &place(user), &[letter]) {
                Ok(delivered) => {
                    if let Outcome::Delivered = delivered.outcomes[0] {
                        return Fate::Accepted;
                    }
                }
                Err(Failed::Refused(_)) => {}
                Err(Failed::Unknown(_)) => return Fate::Unanswered,
            }
        }
        let envelope =
            Envelope { sender: SENDER.to_owned(), received_secs: NOW, received: head, ..Envelope::default() };
        let recipients: Vec<Recipient> = to.iter().map(|address| recipient(address)).collect();
        match self.queue.create(id, &envelope, &recipients, text) {
            Ok(made) => {
                assert_eq!(made, Made::New);
                self.due.insert(id.to_owned());
                self.run(id);
                Fate::Accepted
            }
            Err(Failed::Refused(_)) => Fate::Refused,
            Err(Failed::Unknown(_)) => Fate::Unanswered,
        }
    }

    /// One round of a message of the queue. Whatever fails waits for the next.
    fn run(&mut self, id: &str) {
        match self.round(id) {
            Ok(true) => drop(self.due.remove(id)),
            Ok(false) => {}
            Err(Miss::Gone) => drop(self.due.remove(id)),
            Err(Miss::Fault(_)) => {}
            Err(Miss::Damaged(fault)) => panic!("{fault}"),
        }
    }

    /// Says whether it has left.
    fn round(&mut self, id: &str) -> Result<bool, Miss> {
        // Of a bounce, its origin says first that it is made.
        self.queue.told(id, NOW)?;
        let message = self.queue.read(id)?;
        let mut changes = Vec::new();
        for row in self.queue.page(id, 1, 10)? {
            if !self.queue.settle(&self.intents, &place("ann"), id, row.number, NOW)? {
                continue;
            }
            let change = self.attempt(id, &message, &row)?;
            changes.extend(change.map(|to| Change { number: row.number, to }));
        }
        let noted = self.queue.note(id, NOW, &changes)?;
        if noted.tally.untold > 0 {
            self.tell(id)?;
        }
        let gone = self.queue.remove(id)?;
        if !gone {
            // It goes to another hour with each round, or to those that are held.
            let hour = self.disk.world().below(4) as i64;
            self.queue.put(id, (hour > 0).then_some(NOW + hour * 3600))?;
        }
        Ok(gone)
    }

    /// `None`: it is noted already, or not known.
    fn attempt(&self, id: &str, message: &Message, row: &Row) -> Result<Option<State>, Miss> {
        let address = &row.recipient.address;
        let deferred = Some(State::Deferred {
            next_secs: NOW,
            tries: 1,
            why: "4.2.0 not now".to_owned(),
            possibly: false,
            warned: match (address.ends_with("@z"), row.warned) {
                (true, false) => Warned::Owed(0),
                (_, true) => Warned::Yes,
                (false, false) => Warned::No,
            },
        });
        let Some(user) = user(address) else {
            let why = "5.1.1 no such user".to_owned();
            return Ok(if address == "nobody@y" { Some(State::Failed { why, bounce: 0 }) } else { deferred });
        };
        let text = self.queue.text(id)?;
        let envelope = delivery::Envelope {
            sender: message.envelope.sender.as_bytes(),
            recipient: address.as_bytes(),
            received: &message.envelope.received,
            posted_secs: message.envelope.received_secs,
        };
        let letter = Letter { envelope, body: text.body(), queued: Some(queued(id, row.number)), marked: None };
        match deliver(&self.intents, &place(user), &[letter]) {
            Ok(delivered) => {
                let Outcome::Delivered = delivered.outcomes[0] else { return Ok(deferred) };
                let succeeded = State::Succeeded { how: How::Delivered, why: String::new(), bounce: 0 };
                let to = if row.recipient.notify.is_some() { succeeded } else { State::Delivered };
                self.queue.note(id, NOW, &[Change { number: row.number, to }])?;
                self.intents.close(delivered.intent.expect("it was on behalf of the queue"));
                Ok(None)
            }
            Err(Failed::Refused(_)) => Ok(deferred),
            Err(Failed::Unknown(_)) => Ok(None),
        }
    }

    /// Tells the sender of who failed, waits long, or has it.
    fn tell(&mut self, id: &str) -> Result<(), Miss> {
        let rows = self.queue.page(id, 1, 10)?;
        let reports: BTreeSet<(Report, u32)> =
            rows.iter().filter_map(|row| Some((row.state.told_by()?, row.state.report()?))).collect();
        for (report, number) in reports {
            let bounce = report_id(id, report, number);
            let envelope = Envelope {
                received_secs: NOW,
                received: received(&bounce),
                bounce_of: Some((id.to_owned(), number)),
                ..Envelope::default()
            };
            let text = report_text(report, id);
            match self.queue.create(&bounce, &envelope, &[recipient(SENDER)], &Body::Memory(&text)) {
                Ok(_) => {
                    self.queue.told(&bounce, NOW)?;
                    self.due.insert(bounce);
                }
                // It is made again at the next round.
                Err(Failed::Refused(_) | Failed::Unknown(_)) => {}
            }
        }
        Ok(())
    }

    fn run_all(&mut self) {
        // Bounces come before their origins here: whatever order a server has.
        for id in self.due.clone().into_iter().rev() {
            self.run(&id);
        }
    }
}

fn report_text(report: Report, id: &str) -> Vec<u8> {
    format!("Subject: {} of {id}\n\nNobody.\n", report.name()).into_bytes()
}

/// What is in a drop for a message, without the blank line behind it.
fn stored(sender: &str, address: &str, id: &str, text: &[u8]) -> Vec<u8> {
    let received = received(id);
    let envelope = envelope::Envelope {
        sender: sender.as_bytes(),
        recipient: address.as_bytes(),
        received: &received,
        posted_secs: NOW,
    };
    let mut bytes = envelope.head();
    let mut writer = envelope::Text::default();
    writer.feed(text, &mut |piece| bytes.extend_from_slice(piece));
    writer.finish(&mut |piece| bytes.extend_from_slice(piece));
    bytes.pop();
    bytes
}

struct Life {
    disk: SimDisk,
    sent: BTreeMap<String, Sent>,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life { disk: SimDisk::new(seed, &["/spool", "/work"]), sent: BTreeMap::new() }
    }

    fn below(&self, bound: u64) -> u64 {
        self.disk.world().below(bound)
    }

    fn play(&mut self, accident: Accident) {
        set(&self.disk, accident);
        let Some(mut server) = Server::start(&self.disk) else { return };
        for k in 0..3 {
            // Another program has a drop for a while.
            let is_locked = self.below(3) == 0;
            if is_locked {
                self.disk.world().put(Path::new(LOCK), b"elsewhere 1 1\n", true);
            }
            self.take_one(&mut server, k);
            if self.disk.world().stopped {
                return;
            }
            if is_locked {
                self.disk.world().take_away(Path::new(LOCK));
            }
            if self.below(2) == 0 {
                server.run_all();
            }
            if self.disk.world().stopped {
                return;
            }
        }
        server.run_all();
    }

    fn take_one(&mut self, server: &mut Server, k: usize) {
        const WAYS: [&[&str]; 7] = [
            &["ann@y"],
            &["ann@y"],
            &["ann@y", "bob@y"],
            &["ann@y", "nobody@y"],
            &["nobody@y", "bob@y", "nobody@y"],
            &["far@z", "ann@y"],
            &["nobody@y"],
        ];
        let to = WAYS[self.below(WAYS.len() as u64) as usize].to_vec();
        let lines = [0, 20, 400][self.below(3) as usize];
        let end = if self.below(2) == 0 { "\n" } else { "" };
        let text = format!("Subject: m{k}\n\n{}end {k}{end}", "From all work and no play\n".repeat(lines)).into_bytes();
        let id = format!("M{k}");
        self.sent.insert(id.clone(), Sent { to: to.clone(), text: text.clone(), fate: Fate::Unanswered });
        let fate = if self.below(3) == 0 {
            self.disk.world().put(Path::new("/work/body"), &[b"head", &text[..], b"tail"].concat(), true);
            let file = self.disk.open_dir(Path::new("/work"));
            let file = file.and_then(|dir| self.disk.open(&dir, Path::new("body"), disk::How::Read));
            let Ok(file) = file else {
                // Its text could not be kept.
                self.sent.remove(&id);
                return;
            };
            server.accept(&id, &to, &Body::File(&file, 4..4 + text.len() as u64))
        } else {
            server.accept(&id, &to, &Body::Memory(&text))
        };
        // Nobody hears what is answered by one that is gone.
        if !self.disk.world().stopped {
            self.sent.get_mut(&id).unwrap().fate = fate;
        }
    }

    /// A new server comes, perhaps to die once more, and another one; and works until nothing is left to do.
    fn judge(&mut self, accident: Accident, behind: bool) {
        let cuts = behind || matches!(accident, Accident::PowerCut(_));
        self.end(cuts);
        let disk = self.disk.again();
        if behind {
            let calls = self.disk.world().calls;
            let n = calls + 1 + self.below(80);
            set(&disk, Accident::Kill(n));
            if let Some(mut server) = Server::start(&disk) {
                server.run_all();
                server.run_all();
            }
            let cuts = disk.world().below(2) == 0;
            self.end(cuts);
        }
        let disk = self.disk.again();
        let mut server = Server::start(&disk).expect("it starts after a crash");
        for _ in 0..5 {
            server.run_all();
        }
        self.check(&server);
    }

    fn end(&self, cuts: bool) {
        if cuts {
            self.disk.world().cut_power();
        } else {
            self.disk.world().kill();
        }
        let mut world = self.disk.world();
        world.full = false;
        if world.inode_of(Path::new(LOCK)) != 0 {
            world.take_away(Path::new(LOCK));
        }
        // A dotlock whose line the disk lost is anybody's: judged by its age.
        world.now += 1_100_000_000_000;
    }

    fn check(&self, server: &Server) {
        let mut left: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
        for user in ["ann", "bob"] {
            drop(Maildrop::open_on(&server.disk, &place(user)).unwrap());
            let bytes = server.disk.world().bytes(Path::new(&format!("/spool/{user}")));
            assert!(!bytes.contains(&0), "whole: NULs are left");
            left.insert(user, parse(&bytes).into_iter().map(<[u8]>::to_vec).collect());
        }
        let mut take = |address: &str, wanted: &[u8]| {
            let drop = left.get_mut(user(address).unwrap()).unwrap();
            let before = drop.len();
            drop.retain(|message| message.strip_suffix(b"\n") != Some(wanted));
            before - drop.len()
        };
        let waiting: BTreeSet<String> = server.due.clone();
        for (id, Sent { to, text, fate }) in &self.sent {
            let mut counts = Vec::new();
            let far = to.contains(&"far@z");
            for address in to.iter().filter(|address| user(address).is_some()) {
                counts.push((*address, take(address, &stored(SENDER, address, id, text))));
            }
            for (report, whose) in [(Report::Bounce, "nobody@y"), (Report::Delay, "far@z"), (Report::Success, "ann@y")]
            {
                let ids = (1..=to.len() as u32).map(|number| report_id(id, report, number));
                let told = ids.map(|id_of| take(SENDER, &stored("", SENDER, &id_of, &report_text(report, id)))).sum();
                // What went straight to a drop was never in the queue.
                let is_direct = to.len() == 1 && report == Report::Success;
                match to.contains(&whose) {
                    true if is_direct => assert!(told <= 1, "never twice: {} of {id}", report.name()),
                    true => counts.push((report.name(), told)),
                    false => assert_eq!(told, 0, "{} of {id}", report.name()),
                }
            }
            if far {
                counts.push(("far@z", usize::from(waiting.contains(id))));
            }
            for (whose, count) in counts {
                match fate {
                    Fate::Accepted => assert_eq!(count, 1, "accepted: {id} of {to:?}, {whose}: {count} times"),
                    Fate::Refused => assert_eq!(count, 0, "refused: {id} of {to:?}, {whose}: {count} times"),
                    Fate::Unanswered => assert!(count <= 1, "never twice: {id} of {to:?}, {whose}: {count} times"),
                }
            }
        }
        let strange: Vec<String> = left.values().flatten().map(|message| message.escape_ascii().to_string()).collect();
        assert!(strange.is_empty(), "whole: nobody wrote {strange:?}");
        for id in &waiting {
            let is_far = self.sent.get(id).is_some_and(|sent| sent.to.contains(&"far@z"));
            assert!(is_far, "{id} waits for nothing");
        }
        assert!(server.intents.is_empty(), "everything is settled");
        let paths = server.disk.world().paths();
        let mut names: Vec<String> = (paths.iter().filter(|path| path.starts_with("/work/queue")))
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        assert_eq!(names, waiting.into_iter().collect::<Vec<_>>(), "and nothing is left behind, or lies in two places");
    }
}

/// Lets `accident` come.
fn set(disk: &SimDisk, accident: Accident) {
    let mut world = disk.world();
    match accident {
        Accident::None => {}
        Accident::Kill(n) | Accident::PowerCut(n) => world.stop_at = Some(n),
        Accident::Error(n) => world.fail_at = Some((n, io::ErrorKind::Other)),
        Accident::Full(n) => {
            world.actor = Some(Box::new(move |world, _| world.full |= world.calls + 1 >= n));
        }
        Accident::Dead(n) => {
            world.actor = Some(Box::new(move |world, _| {
                if (n..n + 4).contains(&(world.calls + 1)) {
                    world.fail_at = Some((world.calls + 1, io::ErrorKind::Other));
                }
            }));
        }
    }
}

/// Says which life it was when a test fails inside it.
struct Context(u64, Accident, bool, SimDisk);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let world = self.3.world();
            let (Accident::Kill(n)
            | Accident::PowerCut(n)
            | Accident::Error(n)
            | Accident::Full(n)
            | Accident::Dead(n)) = self.1
            else {
                return;
            };
            let n = n as usize;
            let around = &world.trace[n.saturating_sub(12).min(world.trace.len())..world.trace.len().min(n + 3)];
            eprintln!("SIM_SEED={} {:?} behind {}, after and before {around:#?}", self.0, self.1, self.2);
        }
    }
}

fn play(seed: u64) -> u64 {
    let mut life = Life::new(seed);
    life.play(Accident::None);
    let calls = life.disk.world().calls;
    assert!(life.sent.values().all(|sent| sent.fate == Fate::Accepted), "nothing fails by itself");
    life.judge(Accident::None, false);
    for n in 1..=calls {
        let kinds =
            [Accident::Kill(n), Accident::PowerCut(n), Accident::Error(n), Accident::Full(n), Accident::Dead(n)];
        for accident in kinds {
            for behind in [false, true] {
                let mut life = Life::new(seed);
                let _context = Context(seed, accident, behind, life.disk.clone());
                life.play(accident);
                life.judge(accident, behind);
            }
        }
    }
    calls
}

#[test]
fn promises_hold_after_every_prefix_of_calls_of_a_server_that_takes_mail_in() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(1)).collect(),
    };
    let calls: u64 = seeds.into_iter().map(play).sum();
    println!("{calls} calls in all");
}
