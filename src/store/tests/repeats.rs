//! A message comes once, whoever dies: a peer sends until it has heard that a message is kept, and the server is killed between any
//! two of its calls, once and again while the next one mends that. And the memory that this takes: its bounds, its file.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::delivery::parse;
use super::sim::SimDisk;
use crate::store::delivery::{self, Body, Failed, Intents, Letter, Outcome, deliver};
use crate::store::desk::Place;
use crate::store::queue::*;
use crate::store::repeats::*;

const NOW: i64 = 1_767_610_800;
const FILE: &str = "/work/repeats";

fn place(user: &str) -> Place {
    Place::new(format!("/spool/{user}"), "/work")
}

fn intents(disk: &SimDisk) -> Intents<SimDisk> {
    Intents::open_with(disk, Path::new("/work"), 16_384).unwrap()
}

/// What a peer sends.
struct Message {
    to: &'static [&'static str],
    text: Vec<u8>,
    /// Its answers are lost so often.
    deaf: u32,
    heard: bool,
}

fn messages(deaf: u32) -> Vec<Message> {
    let message = |k: usize, to, lines| {
        let text = format!("Received: from a by peer id {k}\nSubject: m{k}\n\n{}end {k}\n", "all work\n".repeat(lines));
        Message { to, text: text.into_bytes(), deaf, heard: false }
    };
    // One drop; by the queue; a drop that has mail.
    vec![message(1, &["ann"], 0), message(2, &["ann", "bob"], 600), message(3, &["ann"], 600)]
}

/// A server, as far as the store knows it: it asks what a server has to ask, in that order.
struct Server {
    disk: SimDisk,
    intents: Intents<SimDisk>,
    queue: Queue<SimDisk>,
    due: BTreeSet<String>,
    ids: u64,
}

impl Server {
    fn start(disk: &SimDisk) -> Option<Server> {
        let intents = Intents::open_with(disk, Path::new("/work"), 16_384).ok()?;
        let queue = Queue::open_on(disk, Path::new("/work")).ok()?;
        queue.recover(&intents, &place("ann"), NOW);
        let mut due = BTreeSet::new();
        let mut each = |found: Found| match found {
            Found::Message(message) => {
                let is_new = message.tally.at(Stage::Waiting) == message.recipients;
                if let Some(mark) = message.envelope.mark.filter(|_| is_new) {
                    intents.repeats().keep(&Marked { mark, id: message.id.as_str().into() });
                }
                due.insert(message.id);
            }
            Found::Unread(id, _) => drop(due.insert(id)),
            found => panic!("a crash left {found:?}"),
        };
        queue.each(&mut each).ok()?;
        let ids = disk.world().calls;
        Some(Server { disk: disk.clone(), intents, queue, due, ids })
    }

    /// Takes a message in; whether 250 is said.
    fn accept(&mut self, message: &Message) -> bool {
        let mut marking = self.intents.repeats().marking();
        message.text.chunks(1000).for_each(|piece| marking.feed(piece));
        let mark = marking.finish("s@x", message.to.iter().map(ToString::to_string).collect());
        self.ids += 1;
        let marked = Marked { mark, id: format!("M{}", self.ids).into() };
        match self.intents.repeats().claim(&marked) {
            Claim::New => {}
            Claim::Taken(_) => panic!("there is one peer"),
            Claim::Before(_) => return true,
        }
        let kept = self.keep(message, &marked);
        self.intents.repeats().release(&marked);
        kept
    }

    fn keep(&mut self, message: &Message, marked: &Marked) -> bool {
        let body = Body::Memory(&message.text);
        if let [user] = message.to {
            match self.deliver(user, &body, None, Some(marked.clone())) {
                Ok(delivered) => {
                    return matches!(delivered.outcomes[0], Outcome::Delivered | Outcome::Before(_));
                }
                Err(Failed::Refused(_)) => {}
                Err(Failed::Unknown(_)) => return false,
            }
        }
        let to = |user: &&str| Recipient {
            kind: Kind::Mailbox,
            address: (*user).to_owned(),
            with: Vec::new(),
            notify: None,
            orcpt: None,
        };
        let envelope = Envelope { mark: Some(marked.mark), ..Envelope::default() };
        let recipients: Vec<Recipient> = message.to.iter().map(to).collect();
        if self.queue.create(&marked.id, &envelope, &recipients, &body).is_err() {
            return false;
        }
        self.intents.repeats().keep(marked);
        self.due.insert(marked.id.to_string());
        self.run(&marked.id);
        true
    }

    fn deliver(
        &self,
        user: &str,
        body: &Body<'_, SimDisk>,
        queued: Option<delivery::Queued>,
        marked: Option<Marked>,
    ) -> Result<delivery::Delivered, Failed> {
        let envelope =
            delivery::Envelope { sender: b"s@x", recipient: user.as_bytes(), received: b"", posted_secs: NOW };
        deliver(&self.intents, &place(user), &[Letter { envelope, body: body.clone(), queued, marked }])
    }

    fn run(&mut self, id: &str) {
        if matches!(self.round(id), Ok(true) | Err(Miss::Gone)) {
            self.due.remove(id);
        }
    }

    fn round(&mut self, id: &str) -> Result<bool, Miss> {
        for row in self.queue.page(id, 1, 10)? {
            if !self.queue.settle(&self.intents, &place("ann"), id, row.number, NOW)? {
                continue;
            }
            let text = self.queue.text(id)?;
            let whose = queued(id, row.number);
            if let Ok(delivered) = self.deliver(&row.recipient.address, &text.body(), Some(whose), None)
                && matches!(delivered.outcomes[0], Outcome::Delivered)
            {
                self.queue.note(id, NOW, &[Change { number: row.number, to: State::Delivered }])?;
                delivered.intent.into_iter().for_each(|intent| self.intents.close(intent));
            }
        }
        self.queue.remove(id)
    }

    fn run_all(&mut self) {
        self.due.clone().iter().for_each(|id| self.run(id));
    }
}

/// The peer sends each message that it has not heard of, and hears what comes of it while the server lives.
fn send(server: &mut Server, messages: &mut [Message]) {
    for message in messages.iter_mut().filter(|message| !message.heard) {
        let kept = server.accept(message);
        if server.disk.world().stopped {
            return;
        }
        if !kept {
            continue;
        }
        if message.deaf > 0 {
            message.deaf -= 1;
            continue;
        }
        message.heard = true;
        let mut marking = server.intents.repeats().marking();
        marking.feed(&message.text);
        let mark = marking.finish("s@x", message.to.iter().map(ToString::to_string).collect());
        server.intents.repeats().heard(&mark);
    }
}

/// Kills come before the calls that `kills` has, counted from each start; then a server works until nothing is left. Says how many
/// calls the one made that was to be killed last, or the first.
fn live(deaf: u32, kills: &[u64], fails: Option<u64>) -> u64 {
    let mut disk = SimDisk::new(7, &["/spool", "/work"]);
    let mut messages = messages(deaf);
    let mut calls = 0;
    for &kill in kills {
        let before = disk.world().calls;
        disk.world().stop_at = Some(before + kill);
        if let Some(mut server) = Server::start(&disk) {
            for _ in 0..=deaf {
                send(&mut server, &mut messages);
            }
        }
        calls = disk.world().calls - before;
        disk.world().kill();
        disk = disk.again();
        // What it had locked is anybody's by then.
        disk.world().now += 1_100_000_000_000;
    }
    disk.world().fail_at = fails.map(|n| (n, io::ErrorKind::Other));
    if let Some(mut server) = Server::start(&disk) {
        for _ in 0..=deaf {
            send(&mut server, &mut messages);
        }
    }
    disk.world().kill();
    let disk = disk.again();
    disk.world().now += 1_100_000_000_000;
    let mut server = Server::start(&disk).expect("it starts after a crash");
    for _ in 0..=deaf + 1 {
        send(&mut server, &mut messages);
    }
    server.run_all();
    assert!(messages.iter().all(|message| message.heard) && server.intents.is_empty() && server.due.is_empty());
    for user in ["ann", "bob"] {
        let bytes = disk.world().bytes(Path::new("/spool").join(user).as_path());
        let there = parse(&bytes);
        let wanted = messages.iter().filter(|message| message.to.contains(&user));
        for Message { text, .. } in wanted.clone() {
            let count = there.iter().filter(|found| found.ends_with(&[text, &b"\n"[..]].concat())).count();
            let head = String::from_utf8_lossy(text).chars().take(40).collect::<String>();
            assert_eq!(count, 1, "{user} has {head:?}, killed before {kills:?}, failing at {fails:?}, deaf {deaf}");
        }
        assert_eq!(there.len(), wanted.count(), "and nothing else");
    }
    calls
}

#[test]
fn a_message_that_is_sent_until_it_is_heard_comes_once_wherever_the_server_is_killed() {
    for deaf in [0, 1] {
        let calls = live(deaf, &[u64::MAX / 2], None);
        assert!(calls > 60);
        for first in 1..=calls {
            let mends = live(deaf, &[first, u64::MAX / 2], None);
            // And again while that is mended, somewhere else each time.
            for second in (1 + first * 5 % 23..=mends).step_by(23) {
                live(deaf, &[first, second], None);
            }
        }
    }
}

#[test]
fn a_message_that_is_sent_until_it_is_heard_comes_once_whatever_call_fails() {
    let calls = live(0, &[u64::MAX / 2], None);
    for n in 1..=calls {
        live(0, &[], Some(n));
    }
}

fn mark(repeats: &Repeats<SimDisk>, text: &str) -> Mark {
    let mut marking = repeats.marking();
    marking.feed(text.as_bytes());
    marking.finish("s@x", vec!["ann@y".to_owned()])
}

fn marked(repeats: &Repeats<SimDisk>, text: &str, id: &str) -> Marked {
    Marked { mark: mark(repeats, text), id: id.into() }
}

#[test]
fn a_mark_is_of_sender_recipients_in_any_order_and_text_in_any_pieces() {
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    let of = |pieces: &[&str], sender: &str, to: &[&str]| {
        let mut marking = log.repeats().marking();
        pieces.iter().for_each(|piece| marking.feed(piece.as_bytes()));
        marking.finish(sender, to.iter().map(ToString::to_string).collect())
    };
    let one = of(&["Received: x\n\n", "hello\n"], "s@x", &["ann@y", "bob@y"]);
    assert_eq!(one, of(&["Received: x", "\n\nhello\n"], "s@x", &["bob@y", "ann@y"]));
    for other in [
        of(&["Received: x\n\nhello"], "s@x", &["ann@y", "bob@y"]),
        of(&["Received: x\n\nhello\n"], "", &["ann@y", "bob@y"]),
        of(&["Received: x\n\nhello\n"], "s@x", &["ann@y"]),
        of(&["Received: x\n\nhello\n"], "s@x", &["ann@ybob@y"]),
        of(&["Received: x\n\nhello\n"], "s@xann@y", &["bob@y"]),
    ] {
        assert_ne!(one, other);
    }
    assert_eq!(Mark::read(&one.written()), Some(one));
    assert_eq!(Mark::read("+f1e2d3c4b5a69788796a5b4c3d2e1f0"), None);
    let (other, strange) = (SimDisk::new(2, &["/work"]), "Received: x\n\nhello\n");
    assert_ne!(mark(log.repeats(), strange), mark(intents(&other).repeats(), strange), "each server has its key");
}

/// The page's table.
#[test]
fn a_mark_is_new_taken_or_kept() {
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    let repeats = log.repeats();
    let (one, again) = (marked(repeats, "a", "ONE"), marked(repeats, "a", "AGAIN"));
    assert_eq!(repeats.claim(&one), Claim::New);
    assert_eq!(repeats.claim(&again), Claim::Taken("ONE".into()));
    repeats.release(&again);
    assert_eq!(repeats.claim(&again), Claim::Taken("ONE".into()), "it was not his");
    repeats.heard(&one.mark);
    assert_eq!(repeats.claim(&again), Claim::Taken("ONE".into()), "nobody was told anything");
    repeats.release(&one);
    assert_eq!(repeats.claim(&one), Claim::New);
    assert_eq!((repeats.kept(&one.mark), repeats.len()), (None, 0));
    repeats.keep(&one);
    repeats.keep(&one);
    repeats.release(&one);
    repeats.release_all();
    assert_eq!(repeats.claim(&again), Claim::Before("ONE".into()));
    assert_eq!((repeats.kept(&one.mark), repeats.len()), (Some("ONE".into()), 1));
    repeats.heard(&one.mark);
    assert!(repeats.is_empty());
    assert_eq!(repeats.claim(&again), Claim::New);
    repeats.release_all();
    assert_eq!(repeats.claim(&one), Claim::New);
    disk.world().now += (LIFE_SECS + 1) * 1_000_000_000;
    assert_eq!(repeats.claim(&again), Claim::Taken("ONE".into()), "what is under way has no age");
    repeats.keep(&one);
    disk.world().now += LIFE_SECS * 1_000_000_000;
    assert_eq!(repeats.claim(&again), Claim::Before("ONE".into()));
    disk.world().now += 1_000_000_000;
    assert_eq!(repeats.claim(&again), Claim::New, "nobody tries for longer");
}

#[test]
fn what_is_kept_is_known_to_the_next_server_and_slots_that_were_heard_are_used_again() {
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    let repeats = log.repeats();
    let kept = marked(repeats, "kept", "KEPT");
    repeats.keep(&kept);
    for k in 0..50 {
        let passing = marked(repeats, &format!("passing {k}"), "PASSING");
        repeats.keep(&passing);
        repeats.heard(&passing.mark);
    }
    let last = marked(repeats, "last", "ABCDEFGHJKMNPQ");
    repeats.keep(&last);
    assert_eq!(disk.world().bytes(Path::new(FILE)).len(), 3 * 32, "a head, and two at a time");
    disk.world().kill();
    let disk = disk.again();
    let log = intents(&disk);
    assert_eq!(log.repeats().claim(&kept), Claim::Before("KEPT".into()));
    assert_eq!(log.repeats().kept(&last.mark), Some("ABCDEFGHJKMN".into()), "as much of its id as there is room for");
    assert_eq!(log.repeats().len(), 2);
    disk.world().now += (LIFE_SECS + 1) * 1_000_000_000;
    drop(log);
    disk.world().kill();
    let disk = disk.again();
    let log = intents(&disk);
    assert!(log.repeats().is_empty(), "too old");
    log.repeats().keep(&marked(log.repeats(), "new", "NEW"));
    assert_eq!(disk.world().bytes(Path::new(FILE)).len(), 3 * 32);
}

#[test]
fn the_oldest_mark_gives_way_and_no_file_is_longer_than_it_may_be() {
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    let repeats = log.repeats();
    let of = |k: usize| marked(repeats, &format!("m{k}"), &format!("M{k}"));
    for k in 0..MARKS_MOST {
        repeats.keep(&of(k));
    }
    // One that was heard makes room for another.
    repeats.heard(&of(5).mark);
    repeats.keep(&of(MARKS_MOST));
    assert!(repeats.kept(&of(0).mark).is_some());
    repeats.keep(&of(MARKS_MOST + 1));
    repeats.keep(&of(MARKS_MOST + 2));
    assert_eq!(repeats.len(), MARKS_MOST);
    let gone: Vec<usize> = (0..MARKS_MOST + 3).filter(|&k| repeats.kept(&of(k).mark).is_none()).collect();
    assert_eq!(gone, [0, 1, 5]);
    assert_eq!(disk.world().bytes(Path::new(FILE)).len(), 32 * (MARKS_MOST + 1));
    let marks: Vec<Mark> = (0..MARKS_MOST + 3).map(|k| of(k).mark).collect();
    drop(log);
    // A hand made it longer.
    disk.world().append(Path::new(FILE), &[b'A'; 320]);
    disk.world().kill();
    let log = intents(&disk.again());
    assert_eq!(log.repeats().len(), MARKS_MOST);
    assert_eq!((0..MARKS_MOST + 3).filter(|&k| log.repeats().kept(&marks[k]).is_none()).collect::<Vec<_>>(), [0, 1, 5]);
}

#[test]
fn a_file_that_is_none_is_made_anew_and_a_damaged_slot_is_nobodys() {
    for (bytes, known) in [(&b""[..], false), (b"DMr1", false), (&[0; 96], false), (&[b'x'; 4000], false)] {
        let disk = SimDisk::new(1, &["/work"]);
        disk.world().put(Path::new(FILE), bytes, true);
        let log = intents(&disk);
        assert_eq!(!log.repeats().is_empty(), known);
        assert!(disk.world().bytes(Path::new(FILE)).starts_with(b"DMr1\0\0\0\0"));
        assert!(log.repeats().fault().is_none());
    }
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    let all = ["a", "b", "c"].map(|text| marked(log.repeats(), text, "ID"));
    all.iter().for_each(|marked| log.repeats().keep(marked));
    drop(log);
    let mut bytes = disk.world().bytes(Path::new(FILE));
    bytes[64 + 16] = b'/';
    bytes.truncate(3 * 32 + 10);
    disk.world().put(Path::new(FILE), &bytes, false);
    disk.world().kill();
    let log = intents(&disk.again());
    let kept = all.each_ref().map(|marked| log.repeats().kept(&marked.mark).is_some());
    assert_eq!(kept, [true, false, false], "one is no id, one was cut");
}

#[test]
fn without_a_file_it_is_a_memory_of_one_process_and_says_so_once() {
    // It cannot be made, for whatever reason: whoever asks is served all the same.
    let opening = {
        let disk = SimDisk::new(1, &["/work"]);
        drop(intents(&disk));
        disk.world().calls
    };
    let mut said = 0;
    for n in 1..=opening {
        let disk = SimDisk::new(1, &["/work"]);
        disk.world().fail_at = Some((n, io::ErrorKind::StorageFull));
        let Ok(log) = Intents::open_with(&disk, Path::new("/work"), 16_384) else { continue };
        let is_said = log.repeats().fault().is_some();
        said += usize::from(is_said);
        assert!(log.repeats().fault().is_none());
        let one = marked(log.repeats(), "a", "ONE");
        log.repeats().keep(&one);
        assert_eq!(log.repeats().claim(&one), Claim::Before("ONE".into()));
        let names = disk.world().names(Path::new("/work"));
        assert!(!names.contains(&"repeats.new".to_owned()), "{names:?}");
        assert!(is_said || names.contains(&"repeats".to_owned()));
    }
    assert!(said >= 4, "{said}");
    // And one that cannot be written.
    let disk = SimDisk::new(1, &["/work"]);
    let log = intents(&disk);
    disk.world().full = true;
    for text in ["a", "b"] {
        log.repeats().keep(&marked(log.repeats(), text, "ONE"));
    }
    assert!(log.repeats().fault().is_some() && log.repeats().fault().is_none());
    assert_eq!(log.repeats().len(), 2);
}

#[test]
fn what_was_found_whole_only_when_it_came_again_is_not_appended_again() {
    let text = b"Received: x\n\nhello\n";
    let of = |log: &Intents<SimDisk>, id: &str| marked(log.repeats(), "hello", id);
    let bring = |log: &Intents<SimDisk>, id: &str| {
        let envelope = delivery::Envelope { sender: b"s@x", recipient: b"ann", received: b"", posted_secs: NOW };
        let letter = Letter { envelope, body: Body::Memory(text), queued: None, marked: Some(of(log, id)) };
        deliver(log, &place("ann"), &[letter])
    };
    let calls = {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        assert!(bring(&intents(&disk), "ONE").is_ok());
        disk.world().calls
    };
    let mut found = 0;
    for n in 1..=calls {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        disk.world().stop_at = Some(n);
        if let Ok(log) = Intents::open_with(&disk, Path::new("/work"), 16_384) {
            drop(bring(&log, "ONE"));
        }
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        // At start another program has the drop.
        disk.world().put(Path::new("/spool/ann.lock"), b"elsewhere 1 1\n", true);
        let log = intents(&disk);
        let waiting = delivery::recover(&log, &place("ann")).waiting.len();
        disk.world().take_away(Path::new("/spool/ann.lock"));
        let was_known = log.repeats().kept(&of(&log, "TWO").mark).is_some();
        let delivered = bring(&log, "TWO").unwrap();
        if waiting > 0 && !was_known && matches!(&delivered.outcomes[0], Outcome::Before(id) if **id == *"ONE") {
            found += 1;
        }
        assert_eq!(parse(&disk.world().bytes(Path::new("/spool/ann"))).len(), 1, "killed before call {n}");
        assert!(log.is_empty());
    }
    assert!(found >= 2, "{found}");
}
