use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::protocol::smtp::params::{Notify, Ret};
use crate::store::repeats::Mark;
use crate::store::tests::sim::SimDisk;

const NOW: i64 = 1_767_610_800;

fn envelope() -> Envelope {
    Envelope {
        sender: "ann b@example.org".to_owned(),
        received_secs: NOW,
        came: "ESMTPSA from mx.example.org [192.0.2.1]".to_owned(),
        received: b"Received: from mx\n\tby host with ESMTPS id 7K2F; Mon, 5 Jan 2026 11:00:00 +0000\n".to_vec(),
        ..Envelope::default()
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient { kind: Kind::Local, address: address.to_owned(), with: Vec::new(), notify: None, orcpt: None }
}

fn recipients(count: usize) -> Vec<Recipient> {
    (1..=count).map(|k| recipient(&format!("u{k}@example.com"))).collect()
}

fn deferred(next_secs: i64) -> State {
    waits(next_secs, "4.2.0 mailbox is locked".to_owned())
}

fn waits(next_secs: i64, why: String) -> State {
    State::Deferred { next_secs, tries: 1, why, possibly: false, warned: Warned::No }
}

fn change(number: u32, to: State) -> Change {
    Change { number, to }
}

fn sim(seed: u64) -> (SimDisk, Queue<SimDisk>) {
    let disk = SimDisk::new(seed, &["/work"]);
    let queue = Queue::open_on(&disk, Path::new("/work")).unwrap();
    (disk, queue)
}

fn again(disk: &SimDisk) -> Queue<SimDisk> {
    Queue::open_on(&disk.again(), Path::new("/work")).unwrap()
}

fn make(queue: &Queue<SimDisk>, id: &str, count: usize) {
    queue.create(id, &envelope(), &recipients(count), &Body::Memory(b"Subject: tea\n\nAt five.\n")).unwrap();
}

fn file(id: &str) -> PathBuf {
    Path::new("/work/queue").join(id)
}

/// All that is found at start, in short.
fn found(queue: &Queue<impl Disk>) -> BTreeMap<String, Option<Message>> {
    let mut seen = BTreeMap::new();
    let mut each = |found: Found| {
        let (name, message) = match found {
            Found::Message(message) => (message.id.clone(), Some(*message)),
            Found::SetAside(path, _) => (format!("set aside {}", path.display()), None),
            Found::Aside(path) => (format!("aside {}", path.display()), None),
            Found::Unread(id, fault) => (format!("unread {id}: {fault}"), None),
            Found::Strange(path) => (format!("strange {}", path.display()), None),
        };
        seen.insert(name, message);
    };
    queue.each(&mut each).unwrap();
    seen
}

fn stage(queue: &Queue<impl Disk>, id: &str, number: u32) -> Stage {
    queue.page(id, number, 1).unwrap()[0].state.stage()
}

#[test]
fn a_message_is_one_readable_file_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).unwrap();
    let notify = Some(Notify { success: false, failure: true, delay: true });
    let envelope = Envelope {
        ret: Some(Ret::Headers),
        envid: Some("QQ+31".to_owned()),
        eight_bit: true,
        utf8: true,
        bounce_of: Some(("3F00D4U".to_owned(), 2)),
        mark: Mark::read("0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ..envelope()
    };
    let to = [
        Recipient { notify, orcpt: Some("rfc822;bob@example.com".to_owned()), ..recipient("bob@example.com") },
        Recipient {
            kind: Kind::Program,
            with: ["kim", "/usr/bin/a b", ""].map(str::to_owned).to_vec(),
            notify: Some(Notify::default()),
            ..recipient("\"k\n\u{fc}m%\"@example.com")
        },
    ];
    assert_eq!(queue.create("7K2F", &envelope, &to, &Body::Memory(b"Subject: tea\n\nAt five.")).unwrap(), Made::New);
    let why = "4.2.0 mailbox is locked\n".to_owned();
    queue.note("7K2F", NOW + 12, &[change(1, waits(NOW + 22, why))]).unwrap();
    let path = folder.path().join("queue/7K2F");
    let text = fs::read_to_string(&path).unwrap();
    let (shown, sum) = text.rsplit_once(" sum=").unwrap();
    assert_eq!(
        shown,
        "DMail-Queue: 1\nId: 7K2F\nAt: 1767610800 Mon Jan  5 11:00:00 2026\nSender: ann%20b@example.org\n\
         Came: ESMTPSA%20from%20mx.example.org%20[192.0.2.1]\nRet: headers\nEnvid: QQ+31\nBody: 8bit\nUtf8: yes\n\
         Bounce-Of: 3F00D4U 2\nMark: 0f1e2d3c4b5a69788796a5b4c3d2e1f0\nReceived-Bytes: 79\nText-Bytes: 22\nRecipients: 2\n\
         To: 1 local bob@example.com notify=failure,delay orcpt=rfc822;bob@example.com\n\
         To: 2 program \"k%0A\u{fc}m%25\"@example.com notify=never with=kim with=/usr/bin/a%20b with=\n\n\
         Received: from mx\n\tby host with ESMTPS id 7K2F; Mon, 5 Jan 2026 11:00:00 +0000\n\
         Subject: tea\n\nAt five.\nStates of 7K2F:\n\
         State: 1 deferred at=1767610812 next=1767610822 tries=1 why=4.2.0%20mailbox%20is%20locked%0A"
    );
    assert_eq!(sum.len(), 17);
    let message = queue.read("7K2F").unwrap();
    assert_eq!((message.envelope, message.text_bytes, message.recipients), (envelope, 22, 2));
    assert_eq!(message.tally.at(Stage::Deferred) + message.tally.at(Stage::Waiting), 2);
    assert_eq!(message.tally.next_secs, Some(0));
    let rows = queue.page("7K2F", 1, 10).unwrap();
    assert_eq!(rows.iter().map(|row| row.recipient.clone()).collect::<Vec<_>>(), to);
    assert_eq!((rows[0].state.why(), &rows[1].state), ("4.2.0 mailbox is locked\n", &State::Waiting));
    assert_eq!(queue.beginning("7K2F", 100).unwrap(), b"Subject: tea\n\nAt five.");
    assert_eq!(queue.beginning("7K2F", 7).unwrap(), b"Subject");
    let text = queue.text("7K2F").unwrap();
    assert_eq!(queue.create("7K2G", &Envelope::default(), &to, &text.body()).unwrap(), Made::New);
    assert_eq!(queue.beginning("7K2G", 100).unwrap(), b"Subject: tea\n\nAt five.");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

/// The page's table.
const TABLE: [(Stage, &[Stage]); 10] = {
    use Stage::*;
    [
        (Waiting, &[Deferred, Held, Succeeded, Delivered, Failed, Expired, Dropped, Deleted]),
        (Deferred, &[Waiting, Deferred, Held, Succeeded, Delivered, Failed, Expired, Dropped, Deleted]),
        (Held, &[Waiting, Succeeded, Delivered, Deleted]),
        (Failed, &[Bounced]),
        (Expired, &[Bounced]),
        (Succeeded, &[Delivered]),
        (Delivered, &[]),
        (Bounced, &[]),
        (Dropped, &[]),
        (Deleted, &[]),
    ]
};

fn state_of(stage: Stage) -> State {
    let why = "because".to_owned();
    match stage {
        Stage::Waiting => State::Waiting,
        Stage::Deferred => deferred(NOW + 60),
        Stage::Held => State::Held { why },
        Stage::Failed => State::Failed { why, bounce: 1 },
        Stage::Expired => State::Expired { why, bounce: 1 },
        Stage::Succeeded => State::Succeeded { how: How::Relayed, why, bounce: 1 },
        Stage::Delivered => State::Delivered,
        Stage::Bounced => State::Bounced,
        Stage::Dropped => State::Dropped { why },
        Stage::Deleted => State::Deleted,
    }
}

/// A way from waiting to there.
fn way(stage: Stage) -> Vec<Stage> {
    match stage {
        Stage::Waiting => vec![Stage::Deferred, Stage::Waiting],
        Stage::Bounced => vec![Stage::Failed, Stage::Bounced],
        other => vec![other],
    }
}

#[test]
fn a_recipient_becomes_what_the_table_says_and_nothing_else() {
    let page = include_str!("state.rs");
    for (from, nexts) in TABLE {
        let row = page.lines().find(|line| line.starts_with(&format!("//! | {:<9} |", from.word()))).unwrap();
        let words: Vec<&str> = row.split('|').nth(3).unwrap().split_whitespace().collect();
        assert_eq!(words, nexts.iter().map(|next| next.word()).collect::<Vec<_>>(), "the page's row of {from:?}");
        assert_eq!(from.is_final(), nexts.is_empty());
        for to in Stage::ALL {
            assert_eq!(from.may_become(to), nexts.contains(&to), "{from:?} to {to:?}");
            let (disk, queue) = sim(1);
            make(&queue, "A1", 1);
            for step in way(from) {
                assert_eq!(queue.note("A1", NOW, &[change(1, state_of(step))]).unwrap().refused, [], "{step:?}");
            }
            let before = disk.world().bytes(&file("A1"));
            let noted = queue.note("A1", NOW, &[change(1, state_of(to))]).unwrap();
            let is_known = from == to;
            let is_taken = nexts.contains(&to);
            assert_eq!(noted.refused.is_empty(), is_taken || is_known, "{from:?} to {to:?}");
            assert_eq!(disk.world().bytes(&file("A1")) == before, !is_taken, "{from:?} to {to:?}");
            let stands = if is_taken { to } else { from };
            assert_eq!(stage(&queue, "A1", 1), stands);
            assert_eq!((noted.tally.at(stands), noted.tally.is_ended()), (1, stands.is_final()));
            assert_eq!(queue.read("A1").unwrap().tally, noted.tally);
        }
    }
}

#[test]
fn changes_of_many_recipients_are_one_sync_and_few_lines() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 1000);
    let syncs = disk.world().syncs;
    let size = disk.world().bytes(&file("A1")).len();
    let all: Vec<Change> = (1..=1000).map(|k| change(k, deferred(NOW + i64::from(k % 2)))).collect();
    let noted = queue.note("A1", NOW, &all).unwrap();
    assert_eq!(disk.world().syncs, syncs + 1);
    assert_eq!((noted.tally.at(Stage::Deferred), noted.tally.next_secs), (1000, Some(NOW)));
    let lines = String::from_utf8(disk.world().bytes(&file("A1"))[size..].to_vec()).unwrap();
    assert_eq!(lines.lines().count(), 2);
    let all: Vec<Change> = (1..=1000).map(|k| change(k, deferred(NOW + 9))).collect();
    queue.note("A1", NOW, &all).unwrap();
    let text = String::from_utf8(disk.world().bytes(&file("A1"))).unwrap();
    assert!(text.lines().last().unwrap().starts_with("State: 1-1000 deferred at="), "{text}");
    let mut rows = Vec::new();
    while let page = queue.page("A1", rows.len() as u32 + 1, 300).unwrap()
        && !page.is_empty()
    {
        rows.extend(page);
    }
    assert_eq!(rows.len(), 1000);
    for (k, row) in (1..).zip(&rows) {
        assert_eq!((row.number, &row.state), (k, &deferred(NOW + 9)));
        assert_eq!(row.recipient.address, format!("u{k}@example.com"));
    }
    // Every other one fails: no line is longer than a line may be.
    let all: Vec<Change> = (1..=1000).step_by(2).chain([1, 7, 1001, 0]).map(|k| change(k, State::Delivered)).collect();
    let noted = queue.note("A1", NOW, &all).unwrap();
    assert_eq!(noted.refused, [(1001, None), (0, None)]);
    assert_eq!((noted.tally.at(Stage::Delivered), queue.read("A1").unwrap().tally), (500, noted.tally));
}

/// As if it had waited very long.
fn grow(disk: &SimDisk, id: &str) {
    let line = format!("State: 1 deferred at=0 why={} sum=0\n", "x".repeat(900));
    disk.world().append(&file(id), &line.repeat(STATES_BYTES as usize / line.len() + 1).into_bytes());
}

fn rows(queue: &Queue<impl Disk>, id: &str) -> Vec<Row> {
    queue.page(id, 1, 100).unwrap()
}

#[test]
fn a_file_whose_states_have_become_long_is_written_anew_and_says_the_same() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 2 * Stage::ALL.len());
    // Each comes to its stage by a line for two, and one of those goes on.
    for step in 0..3 {
        for (number, (stage, _)) in (1..).step_by(2).zip(TABLE) {
            let Some(to) = way(stage).get(step).copied() else { continue };
            let both = [change(number, state_of(to)), change(number + 1, state_of(to))];
            queue.note("A1", NOW, &both[..if step == 0 { 2 } else { 1 }]).unwrap();
        }
    }
    let (before, text) = (rows(&queue, "A1"), queue.beginning("A1", 100).unwrap());
    let message = queue.read("A1").unwrap();
    grow(&disk, "A1");
    queue.note("A1", NOW, &[]).unwrap();
    assert!(disk.world().bytes(&file("A1")).len() < 8000);
    assert_eq!((rows(&queue, "A1"), queue.beginning("A1", 100).unwrap()), (before, text));
    assert_eq!(queue.read("A1").unwrap(), message);
    assert_eq!(disk.world().names(Path::new("/work/queue")), ["A1"]);
    // Where each of many lines counts they are kept, and only their reasons are shortened.
    let why = |k: u32| format!("{k} {}", "because ".repeat(60));
    make(&queue, "B1", 4000);
    for k in (1..=4000).step_by(200) {
        let to = |k| waits(NOW, why(k));
        queue.note("B1", NOW, &(k..k + 200).map(|k| change(k, to(k))).collect::<Vec<_>>()).unwrap();
    }
    assert!(disk.world().bytes(&file("B1")).len() as u64 > STATES_BYTES);
    let whys: Vec<usize> = [1, 4000].map(|k| queue.page("B1", k, 1).unwrap()[0].state.why().len()).to_vec();
    assert_eq!(whys, [why(1).trim_end().len() + 1, 80]);
    for next_secs in [NOW + 1, NOW + 2, NOW + 3] {
        let all: Vec<Change> = (1..=4000).map(|k| change(k, deferred(next_secs))).collect();
        queue.note("B1", NOW, &all).unwrap();
    }
    assert!(disk.world().bytes(&file("B1")).len() < 500_000);
    assert_eq!(queue.read("B1").unwrap().tally.next_secs, Some(NOW + 3));
}

#[test]
fn a_file_that_is_written_anew_keeps_ways_said_by_hand_who_was_warned_and_the_numbers_of_reports() {
    let (disk, queue) = sim(1);
    let stages = [Stage::Waiting, Stage::Deferred, Stage::Held, Stage::Failed, Stage::Expired, Stage::Succeeded];
    let stages: Vec<Stage> = stages.into_iter().chain([Stage::Delivered, Stage::Bounced, Stage::Dropped]).collect();
    let count = 4 * stages.len() as u32;
    make(&queue, "A1", count as usize + 4);
    let note = |number: u32, to: State| queue.note("A1", NOW + i64::from(number), &[change(number, to)]).unwrap();
    let warned =
        |warned| State::Deferred { next_secs: NOW + 9, tries: 3, why: "why".to_owned(), possibly: true, warned };
    // By fours: as he is, warned, by another way, both.
    for number in 1..=count {
        if number % 2 == 0 {
            note(number, warned(Warned::Owed(0)));
            let report = report_id("A1", Report::Delay, number);
            let of = Envelope { bounce_of: Some(("A1".to_owned(), number)), ..envelope() };
            queue.create(&report, &of, &recipients(1), &Body::Memory(b"x")).unwrap();
            queue.told(&report, NOW).unwrap();
        }
        if number % 4 == 3 || number % 4 == 0 {
            let stage = queue.page("A1", number, 1).unwrap().remove(0).state;
            let via = if number % 8 < 4 { "relay.example:2525" } else { "park" };
            queue.route("A1", NOW, &[change(number, stage)], via).unwrap();
        }
        for step in way(stages[(number as usize - 1) / 4]) {
            note(number, state_of(step));
        }
    }
    // Another way was taken back, one holds for who was never tried, a warning is owed, and two are told of by one report.
    for via in ["mx", ""] {
        queue.route("A1", NOW, &[change(count + 1, State::Waiting)], via).unwrap();
    }
    queue.route("A1", NOW, &[change(count + 2, State::Waiting)], "lmtp:/run/lmtp").unwrap();
    note(count + 3, warned(Warned::Owed(0)));
    note(count + 4, state_of(Stage::Failed));
    queue.tell_together("A1", Report::Bounce, NOW, &[13, count + 4]).unwrap();
    let (before, message) = (rows(&queue, "A1"), queue.read("A1").unwrap());
    let ways = before.iter().filter(|row| row.via.is_some()).count() as u32;
    let warnings = before.iter().filter(|row| row.warned).count() as u32;
    assert_eq!((ways, warnings, before.len() as u32), (count / 2 + 1, count / 2, count + 4));
    assert_eq!(before[count as usize + 3].state.report(), Some(13));
    for round in 0..2 {
        grow(&disk, "A1");
        match round {
            0 => drop(queue.note("A1", NOW, &[]).unwrap()),
            _ => queue.hush("A1", Report::Success, NOW, &[0]).unwrap(),
        }
        assert!(disk.world().bytes(&file("A1")).len() < 16_000);
        let kept = rows(&queue, "A1");
        for (row, was) in kept.iter().zip(&before) {
            assert_eq!((row, &queue.page("A1", row.number, 1).unwrap()[0]), (was, was), "round {round}");
        }
        assert_eq!((kept.len(), queue.read("A1").unwrap()), (before.len(), message.clone()));
    }
    let Row { via, .. } = queue.page("A1", count + 1, 1).unwrap().remove(0);
    assert_eq!(via, None);
    grow(&disk, "A1");
    queue.route("A1", NOW, &[change(count + 1, State::Waiting)], "park").unwrap();
    assert!(disk.world().bytes(&file("A1")).len() < 16_000);
    assert_eq!(queue.page("A1", count + 1, 1).unwrap()[0].via.as_deref(), Some("park"));
}

#[test]
fn a_file_that_is_written_anew_says_what_was_noted_whenever_the_server_ends() {
    let begin = |seed| {
        let (disk, queue) = sim(seed);
        make(&queue, "A1", 2);
        queue.note("A1", NOW, &[change(1, State::Delivered)]).unwrap();
        queue.put("A1", Some(NOW + 7200)).unwrap();
        queue.put("A1", Some(NOW)).unwrap();
        let path = disk.world().paths().into_iter().find(|path| path.ends_with("A1")).unwrap();
        let line = [&[b'x'; 9999][..], b"\n"].concat();
        disk.world().append(&path, &line.repeat(STATES_BYTES as usize / line.len() + 1));
        (disk, queue)
    };
    let (disk, queue) = begin(1);
    let calls = disk.world().calls;
    let second = |queue: &Queue<SimDisk>| queue.note("A1", NOW, &[change(2, State::Delivered)]);
    second(&queue).unwrap();
    let all = disk.world().calls;
    assert!(disk.world().trace.iter().any(|call| call == "rename A1.new A1"));
    for at in calls + 1..=all + 1 {
        for (seed, fails) in (1..4).zip([false, true].into_iter().cycle()) {
            let (disk, queue) = begin(seed);
            if fails {
                disk.world().fail_at = Some((at, io::ErrorKind::Other));
            } else {
                disk.world().stop_at = Some(at);
            }
            let noted = second(&queue).is_ok() || fails && second(&queue).is_ok();
            if noted {
                drop(queue.put("A1", Some(NOW + 7200)));
            } else {
                // A new server goes on, and then the power goes.
                disk.world().kill();
                let queue = again(&disk);
                drop(found(&queue));
                drop(second(&queue));
            }
            disk.world().cut_power();
            let queue = again(&disk);
            drop(found(&queue));
            let mut walked = Vec::new();
            queue.walk(&mut |id| (walked.push(id.to_owned()), true).1).unwrap();
            if walked.is_empty() {
                // The start found it done with.
                continue;
            }
            assert_eq!((walked.len(), stage(&queue, "A1", 1)), (1, Stage::Delivered), "call {at}, seed {seed}");
            assert_eq!(stage(&queue, "A1", 2), Stage::Delivered, "call {at}, seed {seed}");
        }
    }
}

/// Where a message lies below `queue`.
fn place(disk: &SimDisk, id: &str) -> String {
    let paths = disk.world().paths();
    let found: Vec<&PathBuf> = paths.iter().filter(|path| path.ends_with(id)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].parent().unwrap().strip_prefix("/work/queue").unwrap().to_str().unwrap().to_owned()
}

/// All that is due by `now_secs`, or more.
fn due(queue: &Queue<impl Disk>, now_secs: i64, most: usize) -> (Vec<(String, i64)>, Option<i64>) {
    let soonest = queue.soonest(now_secs, now_secs + 864_000, most, &mut || {}).unwrap();
    (soonest.messages.into_iter().map(|(secs, id)| (id.as_str().to_owned(), secs)).collect(), soonest.more_secs)
}

#[test]
fn a_message_is_found_wherever_it_lies() {
    let (disk, _) = sim(1);
    let hour = NOW / 3600;
    for (due_secs, lies) in [
        (Some(NOW + 3600), format!("due/{}", hour + 1)),
        (Some(NOW + 3601), format!("due/{}", hour + 1)),
        (None, "held".to_owned()),
        (Some(0), "due/0".to_owned()),
        (Some(-1), "due/0".to_owned()),
        (Some(i64::MAX), "due/70389527".to_owned()),
        (Some(NOW), format!("due/{hour}")),
    ] {
        disk.world().kill();
        let mut queue = again(&disk);
        if queue.read("A1").is_err() {
            make(&queue, "A1", 2);
        }
        queue.put("A1", due_secs).unwrap();
        assert_eq!(place(&disk, "A1"), lies);
        // Those who saw it move, and those who did not.
        for _ in 0..2 {
            assert_eq!(queue.read("A1").unwrap().recipients, 2);
            assert_eq!((rows(&queue, "A1").len(), queue.beginning("A1", 7).unwrap()), (2, b"Subject".to_vec()));
            queue.text("A1").unwrap();
            queue.note("A1", NOW, &[change(1, deferred(NOW + 7))]).unwrap();
            assert_eq!(queue.create("A1", &envelope(), &recipients(2), &Body::Memory(b"x")).unwrap(), Made::Already);
            assert_eq!(place(&disk, "A1"), lies);
            queue = again(&disk);
        }
        let mut walked = Vec::new();
        queue.walk(&mut |id| (walked.push(id.to_owned()), true).1).unwrap();
        assert_eq!((walked, queue.count()), (vec!["A1".to_owned()], None));
        assert_eq!(queue.count_all(&mut |_| {}, &mut || {}).unwrap(), 1);
        if lies == format!("due/{hour}") {
            // One who counted knows of those that come and go.
            make(&queue, "B1", 1);
            assert_eq!(queue.count(), Some(2));
            queue.note("A1", NOW, &[change(1, State::Deleted), change(2, State::Deleted)]).unwrap();
            assert!(queue.remove("A1").unwrap() && matches!(queue.read("A1"), Err(Miss::Gone)));
            assert_eq!((queue.count(), place(&disk, "B1")), (Some(1), String::new()));
            queue.let_go("B1").unwrap();
            assert_eq!(place(&disk, "B1"), "due/0");
            queue.put("B1", Some(NOW)).unwrap();
            queue.let_go("B1").unwrap();
            assert_eq!(place(&disk, "B1"), lies, "it lay among those that are found");
        }
    }
    assert!(matches!(again(&disk).put("A1", Some(0)), Err(Miss::Gone)));
}

#[test]
fn one_that_a_crash_has_left_with_those_that_are_held_is_found_again() {
    let (disk, queue) = sim(1);
    for id in ["A1", "B1"] {
        make(&queue, id, 1);
        queue.note(id, NOW, &[change(1, State::Held { why: "why".to_owned() })]).unwrap();
        queue.put(id, None).unwrap();
    }
    assert!(!queue.release_forgotten(&mut || {}).unwrap());
    queue.note("A1", NOW, &[change(1, State::Waiting)]).unwrap();
    disk.world().kill();
    let queue = again(&disk);
    assert!(queue.release_forgotten(&mut || {}).unwrap());
    assert_eq!((place(&disk, "A1"), place(&disk, "B1")), ("due/0".to_owned(), "held".to_owned()));
    assert_eq!(due(&queue, NOW, 9), (vec![("A1".to_owned(), 0)], None));
}

#[test]
fn those_that_are_due_first_come_in_order_and_no_more_of_them_than_were_asked_for() {
    let (disk, queue) = sim(1);
    let hour = |hours: i64| (NOW / 3600 + hours) * 3600;
    // Into hours in turn, the last of each first.
    let times: Vec<i64> = (0..40).rev().flat_map(|k| [-2, 0, 1].map(|hours| hour(hours) + k * 60)).collect();
    for (k, due_secs) in times.iter().enumerate() {
        make(&queue, &format!("A{k}"), 1);
        queue.put(&format!("A{k}"), Some(*due_secs)).unwrap();
    }
    make(&queue, "NEW", 1);
    make(&queue, "HELD", 1);
    queue.put("HELD", None).unwrap();
    let (all, more) = due(&queue, NOW, 1000);
    assert_eq!((all.len(), more), (80, Some(hour(1))), "the next hour has not begun");
    let id_of = |secs: i64| format!("A{}", times.iter().position(|time| *time == secs).unwrap());
    // Of the one that is over all are due; of the one that has begun each has its time.
    assert!(
        all[..40].iter().all(|(id, secs)| *secs == hour(-2) && times[id[1..].parse::<usize>().unwrap()] < hour(-1))
    );
    let expected: Vec<(String, i64)> = (0..40).map(|k| (id_of(hour(0) + k * 60), hour(0) + k * 60)).collect();
    assert_eq!(all[40..], expected);
    let (some, more) = due(&queue, NOW, 50);
    assert_eq!((some[40..].to_vec(), more), (expected[..10].to_vec(), Some(hour(0) + 600)));
    let (some, more) = due(&queue, NOW, 10);
    assert_eq!((some.len(), more), (10, Some(hour(-2))), "those that are over come first");
    let (all, more) = due(&queue, hour(1), 1000);
    assert_eq!((all.len(), more), (120, None));
    // What nobody can have meant is due at once; what is no message is passed over; what is empty goes.
    queue.put("NEW", Some(NOW + 9_000_000)).unwrap();
    disk.world().put(&file(&format!("due/{}/notes.txt", NOW / 3600)), b"x", true);
    for (k, due_secs) in times.iter().enumerate().filter(|(_, due_secs)| **due_secs < hour(0)) {
        queue.put(&format!("A{k}"), Some(due_secs + 7200)).unwrap();
    }
    let (all, more) = due(&queue, NOW, 1000);
    assert_eq!((all.len(), more), (81, Some(hour(1))));
    assert!(all.contains(&("NEW".to_owned(), NOW)));
    assert!(!disk.world().paths().iter().any(|path| path.starts_with(file(&format!("due/{}", hour(-2) / 3600)))));
    assert!(
        disk.open_dir(&file(&format!("due/{}", hour(-2) / 3600))).is_err(),
        "an hour of the past goes when it is empty"
    );
    let mut strange = Vec::new();
    queue.count_all(&mut |found| strange.push(format!("{found:?}")), &mut || {}).unwrap();
    assert!(strange.len() == 1 && strange[0].contains("notes.txt"), "{strange:?}");
}

#[test]
fn whoever_looks_for_a_message_while_it_is_moved_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).unwrap();
    queue.create("A1", &envelope(), &recipients(1), &Body::Memory(b"x")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(queue.read("A1").unwrap().recipients, 1);
                }
            });
        }
        for k in 0..300 {
            // Backwards, so that who goes through the hours comes too late; and they are removed and made again.
            queue.put("A1", if k % 7 == 0 { None } else { Some((300 - k) * 3600) }).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_message_that_was_moved_is_in_one_place_whenever_the_power_goes() {
    let moves = |queue: &Queue<SimDisk>| {
        for due_secs in [Some(NOW), Some(NOW + 3600), None, Some(NOW + 7200), Some(NOW)] {
            drop(queue.put("A1", due_secs));
            drop(queue.create("B1", &envelope(), &recipients(1), &Body::Memory(b"x")));
        }
    };
    let (disk, queue) = sim(1);
    make(&queue, "A1", 1);
    let calls = disk.world().calls;
    moves(&queue);
    let all = disk.world().calls;
    let mut places = std::collections::BTreeSet::new();
    for at in calls + 1..=all {
        for seed in 1..6 {
            let (disk, queue) = sim(seed);
            make(&queue, "A1", 1);
            disk.world().stop_at = Some(at);
            moves(&queue);
            disk.world().cut_power();
            places.insert(place(&disk, "A1"));
            let queue = again(&disk);
            drop(found(&queue));
            assert_eq!(stage(&queue, "A1", 1), Stage::Waiting);
        }
    }
    assert_eq!(places.len(), 5, "it was in each of them: {places:?}");
}

#[test]
fn those_who_fail_together_have_one_bounce_and_it_is_told_of_once() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 6);
    let failed = |bounce| State::Failed { why: "5.1.1 no such user".to_owned(), bounce };
    let expired = |bounce| State::Expired { why: "4.2.0 locked".to_owned(), bounce };
    let noted = queue.note("A1", NOW, &[change(5, failed(99)), change(3, expired(0)), change(4, State::Delivered)]);
    assert_eq!(noted.unwrap().tally.untold, 2);
    // One who had failed before does not lend his number to another bounce.
    queue.note("A1", NOW, &[change(3, failed(0)), change(6, failed(0)), change(5, failed(0))]).unwrap();
    let states: Vec<State> = queue.page("A1", 1, 9).unwrap().into_iter().map(|row| row.state).collect();
    assert_eq!(states[2..], [expired(3), State::Delivered, failed(3), failed(6)]);
    let bounce = Envelope { bounce_of: Some(("A1".to_owned(), 3)), ..Envelope::default() };
    for made in [Made::New, Made::Already] {
        let text = if made == Made::New { &b"one"[..] } else { b"two" };
        assert_eq!(queue.create("A1b3", &bounce, &recipients(1), &Body::Memory(text)).unwrap(), made);
    }
    assert_eq!(queue.beginning("A1b3", 9).unwrap(), b"one");
    assert!(!disk.world().names(Path::new("/work/queue")).contains(&"A1b3.new".to_owned()));
    for _ in 0..2 {
        queue.told("A1b3", NOW).unwrap();
        let stages: Vec<Stage> = queue.page("A1", 3, 9).unwrap().iter().map(|row| row.state.stage()).collect();
        assert_eq!(stages, [Stage::Bounced, Stage::Delivered, Stage::Bounced, Stage::Failed]);
    }
    queue.told("A1", NOW).unwrap();
    disk.world().take_away(&file("A1"));
    queue.told("A1b3", NOW).unwrap();
    assert!(matches!(queue.told("A1b6", NOW), Err(Miss::Gone)));
}

fn owed(why: &str) -> State {
    State::Deferred { next_secs: NOW + 9, tries: 3, why: why.to_owned(), possibly: true, warned: Warned::Owed(0) }
}

#[test]
fn who_waits_long_or_has_his_message_is_told_of_once_and_nobody_else_is_meant() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 7);
    let succeeded = |how| State::Succeeded { how, why: "2.0.0 it is there".to_owned(), bounce: 0 };
    let failed = State::Failed { why: "5.1.1 no such user".to_owned(), bounce: 0 };
    let noted = queue.note(
        "A1",
        NOW,
        &[
            change(6, owed("4.4.1 no answer")),
            change(2, owed("4.2.0 locked")),
            change(3, succeeded(How::Relayed)),
            change(4, succeeded(How::Expanded)),
            change(5, failed),
        ],
    );
    assert_eq!(noted.unwrap().tally.untold, 5);
    assert_eq!(queue.read("A1").unwrap().tally.untold, 5);
    let states = || queue.page("A1", 1, 9).unwrap().into_iter().map(|row| row.state).collect::<Vec<State>>();
    // Each kind of report counts for itself.
    let numbers: Vec<Option<u32>> = states().iter().map(State::report).collect();
    assert_eq!(numbers, [None, Some(2), Some(3), Some(3), Some(5), Some(2), None]);
    let about = |number| Envelope { bounce_of: Some(("A1".to_owned(), number)), ..Envelope::default() };
    queue.create("A1w2", &about(2), &recipients(1), &Body::Memory(b"w")).unwrap();
    queue.create("A1s3", &about(3), &recipients(1), &Body::Memory(b"s")).unwrap();
    // However much was written about it before: else it would be told of again and again.
    disk.world().append(&file("A1"), &b"State: 1 deferred at=0 sum=0\n".repeat(STATES_BYTES as usize / 29));
    for untold in [3, 3] {
        queue.told("A1w2", NOW).unwrap();
        assert_eq!(queue.read("A1").unwrap().tally.untold, untold);
    }
    let warned = |why: &str| State::Deferred {
        next_secs: NOW + 9,
        tries: 3,
        why: why.to_owned(),
        possibly: true,
        warned: Warned::Yes,
    };
    assert_eq!((&states()[1], &states()[5]), (&warned("4.2.0 locked"), &warned("4.4.1 no answer")));
    assert_eq!((stage(&queue, "A1", 3), stage(&queue, "A1", 5)), (Stage::Succeeded, Stage::Failed));
    queue.told("A1s3", NOW).unwrap();
    assert_eq!(states()[2..4], [State::Delivered, State::Delivered]);
    assert_eq!(queue.read("A1").unwrap().tally.untold, 1);
    // That he was warned is known also when he was called by hand, and by the next server.
    queue.note("A1", NOW, &[change(2, State::Waiting), change(7, State::Held { why: String::new() })]).unwrap();
    let rows: Vec<bool> = again(&disk).page("A1", 1, 9).unwrap().into_iter().map(|row| row.warned).collect();
    assert_eq!(rows, [false, true, false, false, false, true, false]);
}

#[test]
fn those_of_whom_one_report_can_tell_are_put_together_and_stay_so() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 1200);
    let (why, why_too) = ("5.1.1 no such user".to_owned(), "4.4.1 no answer".to_owned());
    queue.note("A1", NOW, &[change(9, State::Failed { why: why.clone(), bounce: 0 })]).unwrap();
    queue.note("A1", NOW, &[change(3, State::Expired { why: why_too.clone(), bounce: 0 })]).unwrap();
    queue.note("A1", NOW, &[change(1200, State::Failed { why: why.clone(), bounce: 0 })]).unwrap();
    queue.note("A1", NOW, &[change(5, State::Failed { why: why.clone(), bounce: 0 })]).unwrap();
    queue.tell_together("A1", Report::Bounce, NOW, &[]).unwrap();
    queue.tell_together("A1", Report::Delay, NOW, &[3, 9, 1200]).unwrap();
    queue.tell_together("A1", Report::Bounce, NOW, &[3, 9, 1200]).unwrap();
    let state = |number| again(&disk).page("A1", number, 1).unwrap().remove(0).state;
    assert_eq!(state(3), State::Expired { why: why_too, bounce: 3 });
    assert_eq!((state(9), state(1200)), (State::Failed { why: why.clone(), bounce: 3 }, state(9)));
    assert_eq!(state(5), State::Failed { why, bounce: 5 });
    assert_eq!(queue.read("A1").unwrap().tally.untold, 4);
}

#[test]
fn who_is_found_to_have_his_message_is_told_of_where_that_is_wanted() {
    let (_, queue) = sim(1);
    let wants =
        Recipient { notify: Some(Notify { success: true, ..Notify::default() }), ..recipient("ann@example.com") };
    queue.create("A1", &envelope(), &[recipient("bob@example.com"), wants], &Body::Memory(b"x")).unwrap();
    let found = [queued("A1", 1), queued("A1", 2), queued("A1", 3), queued("gone", 1)];
    queue.note_found(NOW, &found).unwrap();
    assert_eq!((stage(&queue, "A1", 1), stage(&queue, "A1", 2)), (Stage::Delivered, Stage::Succeeded));
}

#[test]
fn the_way_that_an_operator_says_holds_whatever_becomes_of_a_recipient_until_another_is_said() {
    let (disk, queue) = sim(7);
    make(&queue, "A1", 5);
    let vias = |queue: &Queue<SimDisk>| -> Vec<Option<String>> {
        queue.page("A1", 1, 9).unwrap().into_iter().map(|row| row.via).collect()
    };
    let held = State::Held { why: "x".to_owned() };
    queue
        .note("A1", NOW, &[change(2, deferred(NOW + 9)), change(3, held.clone()), change(4, State::Delivered)])
        .unwrap();
    let all = [(1, State::Waiting), (2, State::Waiting), (3, held.clone()), (4, State::Waiting), (9, State::Waiting)];
    let noted =
        queue.route("A1", NOW, &all.map(|(number, to)| change(number, to)), "relay.test:587 tls=required").unwrap();
    assert_eq!(noted.refused, [(4, Some(Stage::Delivered)), (9, None)]);
    let relay = || Some("relay.test:587 tls=required".to_owned());
    assert_eq!(vias(&queue), [relay(), relay(), relay(), None, None]);
    assert_eq!([1, 2, 3].map(|number| stage(&queue, "A1", number)), [Stage::Waiting, Stage::Waiting, Stage::Held]);
    assert_eq!(queue.page("A1", 3, 1).unwrap()[0].state, held);
    // A later state without a word of it changes nothing, and it is on disk.
    queue.note("A1", NOW, &[change(1, deferred(NOW + 9)), change(3, State::Waiting)]).unwrap();
    assert_eq!(vias(&again(&disk)), [relay(), relay(), relay(), None, None]);
    queue.route("A1", NOW, &[change(1, State::Waiting), change(3, State::Waiting)], "").unwrap();
    assert_eq!(vias(&queue), [None, relay(), None, None, None]);
    queue.note("A1", NOW, &[change(2, State::Delivered)]).unwrap();
    assert_eq!(queue.route("A1", NOW, &[change(2, State::Waiting)], "mx").unwrap().refused.len(), 1);
    assert!(matches!(
        queue.route("A1", NOW, &[change(1, State::Waiting)], &"x".repeat(VIA_BYTES + 1)),
        Err(Miss::Fault(_))
    ));
}

#[test]
fn a_walk_meets_each_message_once_and_ends_when_that_is_enough() {
    let (_, queue) = sim(8);
    for id in ["A1", "A2", "A3"] {
        make(&queue, id, 1);
    }
    let mut met = Vec::new();
    queue
        .walk(&mut |id| {
            met.push(id.to_owned());
            true
        })
        .unwrap();
    met.sort();
    assert_eq!(met, ["A1", "A2", "A3"]);
    let mut few = 0;
    queue
        .walk(&mut |_| {
            few += 1;
            few < 2
        })
        .unwrap();
    assert_eq!(few, 2);
}

#[test]
fn a_message_leaves_when_all_its_recipients_are_final_and_not_before() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 2);
    queue.note("A1", NOW, &[change(1, State::Delivered)]).unwrap();
    assert!(!queue.remove("A1").unwrap());
    queue.note("A1", NOW, &[change(2, State::Deleted)]).unwrap();
    let syncs = disk.world().syncs;
    assert!(queue.remove("A1").unwrap());
    assert_eq!(disk.world().syncs, syncs, "what it came to was on disk already");
    assert!(matches!(queue.remove("A1"), Err(Miss::Gone)));
    assert!(matches!(queue.note("A1", NOW, &[]), Err(Miss::Gone)));
    assert!(disk.world().names(Path::new("/work/queue")).is_empty());
    let gone = [queued("A1", 1), queued("../A1", 1)];
    queue.note_found(NOW, &gone).unwrap();
}

#[test]
fn what_cannot_be_a_message_is_refused_and_leaves_nothing() {
    let (disk, queue) = sim(1);
    let body = Body::Memory(b"x");
    let long = recipient(&"x".repeat(LINE_BYTES));
    let fat = Envelope { received: vec![b'x'; RECEIVED_BYTES + 1], ..envelope() };
    let short = {
        disk.world().put(Path::new("/work/body"), b"0123456789", true);
        let dir = disk.open_dir(Path::new("/work")).unwrap();
        disk.open(&dir, Path::new("body"), disk::How::Read).unwrap()
    };
    for (id, envelope, recipients, body) in [
        ("", envelope(), recipients(1), &body),
        ("a/b", envelope(), recipients(1), &body),
        ("held", envelope(), recipients(1), &body),
        ("due", envelope(), recipients(1), &body),
        ("A1", envelope(), Vec::new(), &body),
        ("A1", envelope(), recipients(RECIPIENTS_MAX as usize + 1), &body),
        ("A1", envelope(), vec![long], &body),
        ("A1", fat, recipients(1), &body),
        ("A1", envelope(), recipients(1), &Body::File(&short, 3..11)),
    ] {
        let failed = queue.create(id, &envelope, &recipients, body);
        assert!(matches!(failed, Err(Failed::Refused(_))), "{failed:?}");
        assert!(disk.world().names(Path::new("/work/queue")).is_empty());
    }
    queue.create("A1", &envelope(), &recipients(1), &Body::File(&short, 3..7)).unwrap();
    assert_eq!(queue.beginning("A1", 9).unwrap(), b"3456");
}

#[test]
fn makers_that_come_while_the_directory_is_synced_share_the_next_sync() {
    const MAKERS: u64 = 6;
    let (disk, queue) = sim(1);
    let queue = Arc::new(queue);
    let syncs = Arc::new(AtomicU64::new(0));
    let (seen, waits) = (Arc::clone(&syncs), Arc::clone(&queue));
    disk.world().gate = Some(Arc::new(move |what: &str| {
        if what == "sync_dir" && seen.fetch_add(1, Ordering::SeqCst) == 0 {
            // The first sync lasts until all others wait for one.
            while waits.names.lock().unwrap().written < MAKERS {
                std::thread::yield_now();
            }
        }
    }));
    std::thread::scope(|scope| {
        for k in 0..MAKERS {
            let queue = &queue;
            scope.spawn(move || make(queue, &format!("A{k}"), 1));
        }
    });
    disk.world().gate = None;
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    disk.world().cut_power();
    assert_eq!(found(&again(&disk)).len() as u64, MAKERS);
}

#[test]
fn a_failed_sync_of_the_directory_refuses_all_who_waited_for_it_and_none_of_them_appears() {
    for seed in 1..20 {
        let (disk, queue) = sim(seed);
        let calls = {
            let (disk, queue) = sim(seed);
            make(&queue, "A1", 1);
            disk.world().calls
        };
        disk.world().fail_at = Some((calls, io::ErrorKind::Other));
        let failed = queue.create("A1", &envelope(), &recipients(1), &Body::Memory(b"x"));
        assert!(matches!(failed, Err(Failed::Refused(_))), "{failed:?}");
        disk.world().cut_power();
        assert!(found(&again(&disk)).is_empty());
    }
}

#[test]
fn it_is_not_known_what_appears_when_a_name_can_neither_be_synced_nor_taken_away_for_good() {
    let mut appeared = 0;
    for seed in 1..30 {
        let (disk, queue) = sim(seed);
        disk.world().actor = Some(Box::new(|world, what| {
            if what == "sync_dir" {
                world.fail_at = Some((world.calls + 1, io::ErrorKind::Other));
            }
        }));
        let failed = queue.create("A1", &envelope(), &recipients(1), &Body::Memory(b"x"));
        assert!(matches!(failed, Err(Failed::Unknown(_))), "{failed:?}");
        disk.world().cut_power();
        appeared += found(&again(&disk)).len();
    }
    assert!(appeared > 0, "the answer is no idle one");
}

#[test]
fn a_bounce_that_was_there_already_is_on_disk_when_that_is_said() {
    for seed in 1..10 {
        let (disk, queue) = sim(seed);
        make(&queue, "A1", 1);
        let calls = disk.world().calls;
        let (disk, queue) = sim(seed);
        // Its last call syncs its name.
        disk.world().stop_at = Some(calls);
        let failed = queue.create("A1", &envelope(), &recipients(1), &Body::Memory(b"x"));
        assert!(failed.is_err() && disk.world().trace.last().unwrap() == "sync_dir");
        disk.world().kill();
        let made = again(&disk).create("A1", &envelope(), &recipients(1), &Body::Memory(b"x"));
        assert_eq!(made.unwrap(), Made::Already);
        disk.world().cut_power();
        assert_eq!(found(&again(&disk)).len(), 1);
    }
}

#[test]
fn a_last_line_cut_anywhere_or_gone_to_nuls_says_nothing_and_the_next_one_counts() {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 3);
    queue.note("A1", NOW, &[change(1, deferred(NOW + 60))]).unwrap();
    let whole = disk.world().bytes(&file("A1"));
    queue.note("A1", NOW, &[change(1, State::Delivered), change(2, State::Deleted)]).unwrap();
    let all = disk.world().bytes(&file("A1"));
    for size in whole.len()..all.len() {
        for filler in [None, Some(0), Some(b'\n'), Some(b'9')] {
            let mut bytes = all[..size].to_vec();
            bytes.extend(std::iter::repeat_n(filler, all.len() - size).flatten());
            disk.world().put(&file("A1"), &bytes, false);
            let first = all[whole.len()..].iter().position(|&byte| byte == b'\n').unwrap() + 1;
            let is_ended = size >= whole.len() + first;
            let told = is_ended || size + 1 == whole.len() + first && matches!(filler, None | Some(b'\n'));
            let stands = if told { Stage::Delivered } else { Stage::Deferred };
            assert_eq!(stage(&queue, "A1", 1), stands, "{size} {filler:?}");
            queue.note("A1", NOW, &[change(3, State::Delivered)]).unwrap();
            assert_eq!(
                (stage(&queue, "A1", 1), stage(&queue, "A1", 3)),
                (stands, Stage::Delivered),
                "{size} {filler:?}"
            );
        }
    }
}

#[test]
fn a_state_whose_sync_failed_is_on_disk_when_it_was_noted_again() {
    for kind in [State::Delivered, deferred(NOW + 60)] {
        for seed in 1..20 {
            for (is_killed, is_alone) in [(false, false), (false, true), (true, false), (true, true)] {
                let (disk, queue) = sim(seed);
                make(&queue, "A1", 2);
                let sync = disk.world().calls + {
                    let (disk, queue) = sim(seed);
                    make(&queue, "A1", 2);
                    let before = disk.world().calls;
                    queue.note("A1", NOW, &[change(1, kind.clone())]).unwrap();
                    assert_eq!(disk.world().trace.last().unwrap(), "sync");
                    disk.world().calls - before
                };
                disk.world().fail_at = Some((sync, io::ErrorKind::Other));
                assert!(matches!(queue.note("A1", NOW, &[change(1, kind.clone())]), Err(Miss::Fault(_))));
                let queue = if is_killed {
                    disk.world().kill();
                    again(&disk)
                } else {
                    queue
                };
                // It is seen, and is not on disk: nothing may count on it before it was written once more.
                assert_eq!(stage(&queue, "A1", 1), kind.stage());
                let mut changes = vec![change(1, kind.clone()), change(2, State::Deleted)];
                changes.truncate(if is_alone { 1 } else { 2 });
                assert_eq!(queue.note("A1", NOW, &changes).unwrap().refused, []);
                disk.world().cut_power();
                let queue = again(&disk);
                assert_eq!(stage(&queue, "A1", 1), kind.stage(), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_message_that_was_done_with_does_not_come_back_to_be_tried() {
    let mut back = 0;
    for seed in 1..30 {
        let (disk, queue) = sim(seed);
        make(&queue, "A1", 1);
        let calls = disk.world().calls;
        drop(queue.note("A1", NOW, &[change(1, State::Delivered)]));
        let sync = disk.world().calls;
        assert!(sync > calls);
        let (disk, queue) = sim(seed);
        make(&queue, "A1", 1);
        disk.world().fail_at = Some((sync, io::ErrorKind::Other));
        queue.note("A1", NOW, &[change(1, State::Delivered)]).unwrap_err();
        disk.world().kill();
        // The start finds it done with, and takes it away; and then the power goes.
        assert!(found(&again(&disk)).is_empty());
        disk.world().cut_power();
        back += usize::from(!disk.world().names(Path::new("/work/queue")).is_empty());
        assert!(found(&again(&disk)).is_empty());
    }
    assert!(back > 0, "in none of these its name came back");
}

#[test]
fn what_is_no_message_is_reported_and_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).unwrap();
    let dir = folder.path().join("queue");
    let body = Body::Memory(b"Subject: tea\n\nAt five.\n");
    for id in ["A1", "B1", "C1"] {
        queue.create(id, &envelope(), &recipients(2), &body).unwrap();
    }
    fs::write(folder.path().join("target"), "not yours").unwrap();
    std::os::unix::fs::symlink(folder.path().join("target"), dir.join("D1")).unwrap();
    fs::create_dir(dir.join("E1")).unwrap();
    fs::write(dir.join("F1"), "").unwrap();
    fs::write(dir.join("G1.new"), "half").unwrap();
    fs::write(dir.join("notes.txt"), "of the operator").unwrap();
    let bytes = fs::read(dir.join("B1")).unwrap();
    fs::write(dir.join("B1"), &bytes[..bytes.len() - 1]).unwrap();
    fs::write(dir.join("B1.damaged"), "of another day").unwrap();
    for id in ["D1", "E1", "F1"] {
        assert!(matches!(queue.note(id, NOW, &[]), Err(Miss::Damaged(_))), "{id}");
    }
    let seen = found(&queue);
    let names: Vec<&str> =
        seen.keys().map(|name| name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name)).collect();
    assert_eq!(names[..2], ["A1", "C1"]);
    let count = |what: &str| seen.keys().filter(|name| name.starts_with(what)).count();
    assert_eq!((count("set aside "), count("strange "), count("unread ")), (4, 1, 0), "{names:?}");
    assert_eq!(fs::read_to_string(folder.path().join("target")).unwrap(), "not yours");
    assert_eq!(fs::read_to_string(dir.join("B1.damaged")).unwrap(), "of another day");
    assert!(!dir.join("G1.new").exists() && dir.join("E1.damaged").is_dir());
    let seen = found(&queue);
    let count = |what: &str| seen.keys().filter(|name| name.starts_with(what)).count();
    assert_eq!((count("set aside "), count("aside "), count("strange ")), (0, 5, 1), "it is told at each start");
}

#[test]
fn a_directory_or_a_file_of_others_is_not_used() {
    let disk = SimDisk::new(1, &["/work", "/work/queue"]);
    disk.world().set_mode(Path::new("/work/queue"), 0o777);
    assert!(matches!(Queue::open_on(&disk, Path::new("/work")), Err(Refused::Unsafe(_))));
    let (disk, queue) = sim(1);
    make(&queue, "A1", 1);
    disk.world().file(&file("A1")).unwrap().uid = 1000;
    assert!(matches!(queue.read("A1"), Err(Miss::Damaged(_))));
}

/// A file that a hand may have changed.
fn whole() -> Vec<u8> {
    let (disk, queue) = sim(1);
    make(&queue, "A1", 3);
    queue.note("A1", NOW, &[change(1, deferred(NOW + 60)), change(3, State::Delivered)]).unwrap();
    disk.world().bytes(&file("A1"))
}

/// Everything that can be asked of a file: answers, no panic.
fn ask_all(disk: &SimDisk) {
    let queue = again(disk);
    let read = queue.read("A1");
    let page = queue.page("A1", 1, 10);
    assert_eq!(read.is_ok(), page.is_ok(), "{read:?} {page:?}");
    drop(queue.text("A1"));
    drop(queue.beginning("A1", 100));
    drop(queue.told("A1", NOW));
    let noted = queue.note("A1", NOW, &[change(2, State::Delivered), change(u32::MAX, State::Waiting)]);
    assert_eq!(noted.is_ok(), read.is_ok(), "{noted:?}");
    if let Ok(message) = read {
        assert!(stage(&queue, "A1", 2).is_final() || message.recipients < 2);
    }
    drop(found(&queue));
}

#[test]
fn a_file_cut_anywhere_is_damaged_or_says_less() {
    let whole = whole();
    let states = memchr::memmem::find(&whole, b"States of A1:\n").unwrap() + 14;
    for size in 0..whole.len() {
        let (disk, queue) = sim(1);
        disk.world().put(&file("A1"), &whole[..size], true);
        assert_eq!(queue.read("A1").is_ok(), size >= states, "cut to {size}");
        ask_all(&disk);
    }
}

#[test]
fn every_line_of_the_envelope_that_is_wrong_twice_or_missing_makes_it_a_damaged_one() {
    let text = String::from_utf8(whole()).unwrap();
    let (head, rest) = text.split_once("\n\n").unwrap();
    let lines: Vec<&str> = head.lines().collect();
    let is_read = |lines: &[&str]| {
        let (disk, queue) = sim(1);
        disk.world().put(&file("A1"), format!("{}\n\n{rest}", lines.join("\n")).as_bytes(), true);
        ask_all(&disk);
        queue.read("A1").is_ok()
    };
    assert!(is_read(&lines));
    for (at, line) in lines.iter().enumerate() {
        let without = [&lines[..at], &lines[at + 1..]].concat();
        let twice = [&lines[..=at], &lines[at..]].concat();
        let name = line.split_once(": ").unwrap().0;
        let empty = format!("{name}:");
        let strange = format!("{name}: \u{e9} x%zz");
        let with = |line: &str| is_read(&[&lines[..at], &[line], &lines[at + 1..]].concat());
        // Only where it says how it came, and from whom, any word will do.
        assert!(!is_read(&without) && !is_read(&twice) && !with(&empty), "{line}");
        assert!(!with(&strange) || matches!(name, "Came" | "Sender"), "{line}");
    }
    // What a later version says is passed over.
    assert!(is_read(&[&lines[..2], &["Later: x"], &lines[2..]].concat()));
    assert!(!is_read(&[&["Later: x"], &lines[..]].concat()));
}

proptest! {
    #[test]
    fn a_state_is_written_and_read_again(
        which in 0..Stage::ALL.len(),
        why in "\\PC{0,40}",
        next_secs in 0..i64::MAX,
        tries: u32,
        bounce: u32,
        possibly: bool,
        warned in prop_oneof![Just(Warned::No), Just(Warned::Yes), any::<u32>().prop_map(Warned::Owed)],
        how in prop_oneof![Just(How::Delivered), Just(How::Relayed), Just(How::Expanded)],
        who in proptest::collection::vec((1..70_000u32, 1..70_000u32), 1..5),
        via in proptest::option::of(".{0,60}"),
        flip in 0..400usize,
    ) {
        let state = match state_of(Stage::ALL[which]) {
            State::Deferred { .. } => State::Deferred { next_secs, tries, why, possibly, warned },
            State::Held { .. } => State::Held { why },
            State::Failed { .. } => State::Failed { why, bounce },
            State::Expired { .. } => State::Expired { why, bounce },
            State::Succeeded { .. } => State::Succeeded { how, why, bounce },
            State::Dropped { .. } => State::Dropped { why },
            other => other,
        };
        let line = state::encode("A1", &who, NOW, &state, via.as_deref());
        let bare = line.strip_suffix(b"\n").unwrap();
        prop_assert!(!bare.contains(&b'\n'));
        let said = state::decode("A1", bare).unwrap();
        prop_assert_eq!((said.who, said.at_secs, said.state, said.via), (who, NOW, state, via));
        prop_assert!(state::decode("A2", bare).is_none(), "another message's");
        let mut other = bare.to_vec();
        let at = flip % other.len();
        other[at] ^= 1;
        prop_assert!(state::decode("A1", &other).is_none());
    }

    #[test]
    fn a_file_edited_by_hand_is_answered(edits in proptest::collection::vec((0..2000usize, 0..40usize, ".{0,30}|\0{1,9}|[\n ]{1,3}|[0-9]{1,20}"), 1..5)) {
        let mut bytes = whole();
        for (at, gone, new) in edits {
            let from = at % bytes.len();
            let to = bytes.len().min(from + gone);
            bytes.splice(from..to, new.into_bytes());
        }
        let disk = SimDisk::new(1, &["/work", "/work/queue"]);
        disk.world().put(&file("A1"), &bytes, true);
        ask_all(&disk);
    }
}

/// `cargo test --lib -- --ignored --nocapture messages_made_a_second`, with TMPDIR on the disk that is meant.
#[test]
#[ignore = "a measurement, and no verdict"]
fn messages_made_a_second() {
    const EACH: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).unwrap();
    let to = recipients(2);
    let text = b"Subject: x\n\nall work and no play\n".repeat(60);
    let mut round = 0;
    for others in [0, 10_000, 100_000] {
        for k in 0..others {
            fs::write(folder.path().join(format!("queue/{others}X{k}.old")), "").unwrap();
        }
        for makers in [1, 4, 16] {
            round += 1;
            let begun = std::time::Instant::now();
            std::thread::scope(|scope| {
                for maker in 0..makers {
                    let (queue, to, text) = (&queue, &to, &text);
                    scope.spawn(move || {
                        for k in 0..EACH / makers {
                            let id = format!("R{round}M{maker}K{k}");
                            queue.create(&id, &envelope(), to, &Body::Memory(text)).unwrap();
                            queue.note(&id, NOW, &[change(1, State::Delivered), change(2, State::Delivered)]).unwrap();
                            assert!(queue.remove(&id).unwrap());
                        }
                    });
                }
            });
            let rate = EACH as f64 / begun.elapsed().as_secs_f64();
            println!("beside {others} more names, {makers} side by side: {rate:.0} made, noted and removed a second");
        }
    }
}

#[test]
fn a_new_message_that_comes_to_its_end_goes_at_once_and_for_good() {
    let both = [change(1, State::Delivered), change(2, State::Dropped { why: "5.1.1".to_owned() })];
    let begin = |seed| {
        let (disk, queue) = sim(seed);
        make(&queue, "A1", 2);
        (disk, queue)
    };
    let (disk, queue) = begin(1);
    let size = disk.world().bytes(&file("A1")).len();
    // What leaves somebody, or his sender, with something to be done is noted in the usual way, and so is what does not fit.
    for changes in [
        vec![change(1, State::Delivered)],
        vec![change(1, State::Delivered), change(2, State::Failed { why: String::new(), bounce: 0 })],
        vec![change(1, State::Delivered), change(2, deferred(NOW))],
        vec![change(1, State::Delivered), change(2, State::Delivered), change(3, State::Delivered)],
        vec![change(1, State::Bounced), change(2, State::Delivered)],
    ] {
        assert!(!queue.finish("A1", &changes).unwrap(), "{changes:?}");
        assert_eq!(disk.world().bytes(&file("A1")).len(), size);
    }
    let first = disk.world().calls;
    assert!(queue.finish("A1", &both).unwrap());
    assert!(matches!(queue.finish("A1", &both), Err(Miss::Gone)));
    let all = disk.world().calls - first;
    assert!(all > 1);
    for at in 1..=all + 1 {
        for (seed, fails) in (1..6).zip([false, true].into_iter().cycle()) {
            let (disk, queue) = begin(seed);
            let at = disk.world().calls + at;
            if fails {
                disk.world().fail_at = Some((at, io::ErrorKind::Other));
            } else {
                disk.world().stop_at = Some(at);
            }
            let finished = matches!(queue.finish("A1", &both), Ok(true));
            disk.world().cut_power();
            let left = found(&again(&disk));
            match left.get("A1") {
                None => assert!(left.is_empty(), "{left:?}"),
                Some(message) => {
                    assert!(!finished, "call {at}, seed {seed}: it is there again");
                    assert_eq!(message.as_ref().map(|message| message.tally.at(Stage::Waiting)), Some(2));
                }
            }
        }
    }
    // One that has waited is noted: where it lies is not synced.
    let (_, queue) = begin(1);
    queue.put("A1", Some(NOW + 7200)).unwrap();
    assert!(!queue.finish("A1", &both).unwrap());
}
