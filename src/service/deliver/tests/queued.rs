//! Messages that the queue has.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard};

use super::super::lanes::{PATIENCE, WAIT};
use super::super::runner::{PASS, PAUSE, RUNS};
use super::*;
use crate::control::Told;
use crate::net::jobs::{Kind as JobKind, Lost};
use crate::rules::robot::Verdict;
use crate::rules::route;
use crate::rules::route::{Addressee, Stage, Target};
use crate::rules::traffic::Class;
use crate::settings::{QuotaReply, addressee};
use crate::store::delivery;
use crate::store::queue::{self, Change, Envelope, State, Warned};

const LIFE: u64 = 432_000;

impl World {
    /// A message that found its drop locked for long, and is in the queue now.
    fn locked_out(&mut self, user: &str) -> File {
        let lock = self.lock(user);
        let parcel = self.parcel("Subject: x\n\nhello\n", &[user]);
        let ticket = self.send(parcel);
        for _ in 0..20 {
            self.pass(PATIENCE / 8);
        }
        assert!(matches!(self.answer(ticket), Some(Dispatched::Kept)));
        assert_eq!((self.queue().len(), self.mail_of(user).as_str()), (1, ""));
        lock
    }

    /// Until the first message that waits is due.
    fn wait(&mut self) {
        let table = &self.shared.transit.table;
        let due = table.first_due().into_iter().chain(table.more_secs()).min().expect("something is due");
        let secs = EPOCH + (self.now - self.begun).as_secs() as i64;
        self.pass(Duration::from_secs(u64::try_from(due - secs).unwrap_or(0)));
    }

    fn ordered(&mut self, id: &str, deed: Deed) -> Result<serde_json::Value, String> {
        let ticket = self.ticket();
        self.shared.transit.order(ticket, Order { id: id.into(), deed });
        self.settle();
        let at = self.got.iter().position(|(known, _)| *known == ticket).unwrap();
        match self.got.swap_remove(at).1 {
            Outcome::Told(told) => told_json(told),
            _ => panic!("another answer came"),
        }
    }
}

fn told_json(told: Told) -> Result<serde_json::Value, String> {
    told.map(|report| serde_json::from_str(&report.json()).unwrap()).map_err(|lines| lines.join(" "))
}

#[test]
fn a_message_for_several_is_in_the_queue_before_any_drop_has_it_and_out_of_it_when_all_have() {
    let mut world = World::new();
    let parcel = world.parcel("Subject: tea\n\nAt five.\n", &["bob", "eve", "kim"]);
    let ticket = world.send(parcel);
    while world.queue().iter().all(|name| name.ends_with(".new")) {
        assert!(["bob", "eve", "kim"].iter().all(|user| !world.drop_of(user).exists()));
        world.turn();
    }
    assert!(world.answer(ticket).is_none());
    world.settle();
    assert!(matches!(world.answer(ticket), Some(Dispatched::Kept)));
    for user in ["bob", "eve", "kim"] {
        assert_eq!(world.mail_of(user).matches("At five.").count(), 1, "{user}");
    }
    assert_eq!((world.queue().len(), world.shared.transit.open_intents(), world.shared.transit.held()), (0, 0, 0));
    assert!(world.runner.is_idle());
    let counts = world.shared.transit.counts;
    assert_eq!((counts.accepted, counts.queued, counts.delivered), (1, 1, 3));
}

#[test]
fn who_is_reached_in_two_ways_gets_one_and_the_sender_of_a_list_is_its_owner() {
    let mut world = World::new();
    let body = world.body(b"Subject: x\n\nhello\n");
    let owner = Way { sender: Some(address_of("owner-list@example.test")), ..Way::to(world.mailbox("kim")) };
    let mut list = world.to("list", vec![world.mailbox("bob"), world.mailbox("eve")]);
    list.ways.push(owner);
    let parcel = world.parcel_of(body, vec![world.to("bob", vec![world.mailbox("bob")]), list]);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    for user in ["bob", "eve", "kim"] {
        assert_eq!(world.mail_of(user).matches("hello").count(), 1, "{user}");
    }
    assert!(world.mail_of("kim").starts_with("From owner-list@example.test "));
    assert!(world.mail_of("kim").contains("\nReturn-Path: <owner-list@example.test>\n"));
}

#[test]
fn who_has_had_a_message_does_not_get_it_again_and_keeps_it_from_no_other() {
    let text = "Delivered-To: bob@example.test\nDelivered-To: EVE@Example.test\nSubject: x\n\nhello\n";
    let mut world = World::new();
    for users in [&["bob"][..], &["bob", "eve"]] {
        let parcel = world.parcel(text, users);
        let Some(Dispatched::Refused(reply)) = world.sent(parcel) else { panic!("{users:?}") };
        assert_eq!((reply, world.queue().len()), (reply::AGAIN.clone(), 0));
    }
    let parcel = world.parcel(text, &["bob", "kim"]);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    assert_eq!(world.mail_of("kim").matches("hello").count(), 1);
    assert!(!world.drop_of("bob").exists() && !world.drop_of("eve").exists());
    assert_eq!(world.shared.transit.counts.failed, 1, "the sender is told");
}

#[test]
fn what_cannot_be_filed_is_refused_and_nobody_has_it() {
    let mut world = World::new();
    fs::remove_dir_all(world.shared.settings.work_path.join("queue")).unwrap();
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob", "eve"]);
    let Some(Dispatched::Refused(reply)) = world.sent(parcel) else { panic!() };
    assert_eq!(reply, reply::UNAVAILABLE);
    assert!(!world.drop_of("bob").exists() && !world.drop_of("eve").exists());
}

#[test]
fn a_drop_that_stays_locked_gets_its_mail_from_the_queue_once() {
    let mut world = World::new();
    let lock = world.locked_out("bob");
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").as_str()), (1, ""));
    for _ in 0..20 {
        world.pass(PATIENCE / 8);
    }
    assert!(world.shared.transit.counts.deferred > 0);
    drop(lock);
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
    assert!(world.mail_of("bob").starts_with("From ann@sender.test "), "its envelope is kept");
    assert_eq!(world.shared.transit.open_intents(), 0);
}

#[test]
fn a_new_server_goes_on_where_the_last_one_was() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    let mut world = world.restart();
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn what_a_killed_server_had_delivered_and_not_noted_is_not_delivered_again() {
    for users in [&["bob", "eve"][..], &["bob", "eve", "kim"]] {
        let mut world = World::new();
        let parcel = world.parcel("Subject: x\n\nhello\n", users);
        world.send(parcel);
        // The drops have it; nobody has heard of that yet.
        while !users.iter().all(|user| world.mail_of(user).contains("hello\n\n")) {
            if world.runner.lanes.is_empty() {
                world.turn();
            }
        }
        while world.shared.jobs.load().running > 0 {
            std::thread::yield_now();
        }
        assert_eq!(world.queue().len(), 1);
        let mut world = world.restart();
        assert_eq!(world.shared.transit.open_intents(), 0, "that is settled before anything is served");
        world.settle();
        for user in users {
            assert_eq!(world.mail_of(user).matches("hello").count(), 1, "{user}");
        }
        assert_eq!((world.queue().len(), world.shared.transit.open_intents()), (0, 0));
    }
}

#[test]
fn a_sender_does_not_wait_longer_than_a_round_for_drops_that_do_not_answer() {
    let mut world = World::new();
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob", "eve"]);
    let ticket = world.send(parcel);
    while world.runner.runs.is_empty() {
        world.turn();
    }
    // What the jobs have done is not collected.
    world.now += ROUND;
    world.runner.turn(world.office, world.now, &mut world.shared);
    let told = world.shared.post.pop_back();
    assert!(matches!(told, Some((known, Outcome::Dispatched(Dispatched::Kept))) if known == ticket));
    world.settle();
    assert!(world.answer(ticket).is_none(), "he was answered once");
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn a_job_that_is_lost_gets_a_sender_no_answer_and_a_recipient_of_the_queue_another_try() {
    let mut world = World::new();
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    let ticket = world.send(parcel);
    world.turn();
    lose_letters(&mut world);
    world.settle();
    assert!(matches!(world.answer(ticket), Some(Dispatched::Unknown)));
    assert_eq!(world.queue().len(), 0);
    let parcel = world.parcel("Subject: x\n\nhallo\n", &["bob", "eve"]);
    world.send(parcel);
    while world.runner.lanes.is_empty() {
        world.turn();
    }
    lose_letters(&mut world);
    world.settle();
    assert_eq!(world.queue().len(), 1);
    world.wait();
    for user in ["bob", "eve"] {
        assert_eq!(world.mail_of(user).matches("hallo").count(), 1, "{user}: the letter was there, as it turned out");
    }
    assert_eq!((world.queue().len(), world.shared.transit.open_intents()), (0, 0));
}

/// What the jobs did with letters is not heard.
fn lose_letters(world: &mut World) {
    let carried = world.runner.doing.iter().filter(|(_, doing)| matches!(doing, Doing::Carry(..)));
    for serial in carried.map(|(serial, _)| *serial).collect::<Vec<_>>() {
        while world.shared.jobs.load().running > 0 {
            std::thread::yield_now();
        }
        let ticket = Ticket { id: world.office, serial };
        world.runner.deliver(world.now, ticket, Outcome::lost(), &mut world.shared);
    }
}

#[test]
fn who_cannot_be_delivered_to_is_told_to_the_sender_in_a_message_from_nobody() {
    let mut world = World::new();
    let lock = world.lock("eve");
    let mut parcel = world.parcel("Subject: tea\n\nAt five.\n", &["eve"]);
    parcel.sender.path = Some(address_of("bob@example.test"));
    world.send(parcel);
    for _ in 0..20 {
        world.pass(PATIENCE / 8);
    }
    drop(lock);
    world.users = Some(vec!["bob"]);
    world.wait();
    world.pass(Duration::from_secs(10));
    let told = world.mail_of("bob");
    assert!(told.starts_with("From MAILER-DAEMON ") && told.contains("\nReturn-Path: <>\n"), "{told}");
    for said in [
        "\n<eve@example.test>\n    There is no mailbox of that name.",
        "\n    Here it says: 5.1.1 No such user here\n",
        "\nFinal-Recipient: rfc822;eve@example.test\nAction: failed\nStatus: 5.1.1\n",
        "\nSubject: tea\n",
    ] {
        assert!(told.contains(said), "{told}");
    }
    assert!(!told.contains("At five."), "bounce_body is off");
    assert_eq!((world.queue().len(), world.shared.transit.counts.failed), (0, 1));
}

#[test]
fn what_nobody_sent_has_no_owner_either_when_a_list_passes_it_on() {
    let mut world = World::new();
    let owner = Some(address_of("bob@example.test"));
    let gone = Destination::Local(address_of("gone@example.test"), Stage::Whole);
    let mut list = world.to("list", vec![world.mailbox("eve"), gone]);
    list.ways.iter_mut().for_each(|way| way.sender.clone_from(&owner));
    let body = world.body(b"Subject: a bounce\n\nhello\n");
    let mut parcel = world.parcel_of(body, vec![list]);
    parcel.sender.path = None;
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    world.pass(Duration::from_secs(10));
    assert!(world.mail_of("eve").contains("\nReturn-Path: <>\n"), "{}", world.mail_of("eve"));
    let counts = world.shared.transit.counts;
    assert_eq!(
        (counts.dropped, counts.failed, world.mail_of("bob").as_str()),
        (1, 0, ""),
        "the owner hears of no bounce"
    );
}

#[test]
fn mail_for_other_hosts_waits_and_expires_and_what_nobody_sent_is_dropped_then() {
    let mut world = World::new();
    for sender in [Some("bob@example.test"), None] {
        let body = world.body(b"Subject: x\n\nhello\n");
        let far = world.to("bob", vec![Destination::Remote(address_of("kim@far.test"))]);
        let mut parcel = world.parcel_of(body, vec![far]);
        parcel.sender.path = sender.map(address_of);
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    }
    assert_eq!(world.queue().len(), 2);
    let counts = world.shared.transit.counts;
    assert_eq!((counts.deferred, counts.accepted), (2, 2), "nobody is there");
    while world.queue().len() > 1 {
        world.wait();
    }
    assert_eq!(world.shared.transit.counts.dropped, 1, "who sent nothing waits a day");
    assert!(world.now - world.begun < Duration::from_secs(LIFE / 4));
    while world.shared.transit.counts.failed == 0 {
        world.wait();
    }
    assert!(world.now - world.begun >= Duration::from_secs(LIFE));
    world.pass(Duration::from_secs(10));
    assert!(world.mail_of("bob").contains("It waited too long."), "{}", world.mail_of("bob"));
    assert!(world.queue().is_empty());
}

#[test]
fn what_senders_do_not_try_is_not_noted_and_comes_again_soon() {
    let mut world = World::new();
    world.shared.outgoing.pause(true);
    let body = world.body(b"Subject: x\n\nhello\n");
    let far = world.to("bob", vec![Destination::Remote(address_of("kim@far.test"))]);
    let parcel = world.parcel_of(body, vec![far]);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    assert!(world.runner.is_idle());
    let id = world.queue()[0].clone();
    let state = |world: &World| world.shared.transit.queue().page(&id, 1, 1).unwrap()[0].state.clone();
    assert_eq!((state(&world), world.shared.transit.counts.deferred), (State::Waiting, 0));
    let due = world.shared.transit.table.first_due().unwrap() - EPOCH;
    assert!((60..120).contains(&due), "{due}");
    world.shared.outgoing.pause(false);
    world.wait();
    assert!(matches!(state(&world), State::Deferred { tries: 1, .. }), "{:?}", state(&world));
}

#[test]
fn messages_that_wait_for_senders_alone_keep_no_other_from_being_tried() {
    let mut world = World::new();
    for _ in 0..2 * RUNS {
        let body = world.body(b"Subject: x\n\nhello\n");
        let far = world.to("bob", vec![Destination::Remote(address_of("kim@far.test"))]);
        let parcel = world.parcel_of(body, vec![far]);
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    }
    world.calls_last = true;
    world.pass(Duration::from_secs(400));
    assert_eq!((world.runner.runs.len(), world.runner.tried), (2 * RUNS, 0));
    // Nothing is forgotten when that takes too long.
    world.shared.outgoing.pause(true);
    world.settle();
    assert_eq!((world.runner.is_idle(), world.queue().len()), (true, 2 * RUNS));
}

#[test]
fn a_bounce_is_made_once_whatever_happens_meanwhile() {
    let mut world = World::new();
    let body = world.body(b"Subject: x\n\nhello\n");
    let far = world.to("bob", vec![Destination::Remote(address_of("kim@far.test"))]);
    let mut parcel = world.parcel_of(body, vec![far]);
    parcel.sender.path = Some(address_of("bob@example.test"));
    world.sent(parcel);
    let id = world.queue()[0].clone();
    // A server that was killed when it had noted that it failed, before anything was made of that.
    let change = Change { number: 1, to: State::Failed { why: "5.0.0 no".to_owned(), bounce: 0 } };
    world.shared.transit.queue().note(&id, EPOCH, &[change]).unwrap();
    // What is tried lies in an hour that has begun.
    world.shared.transit.queue().put(&id, Some(EPOCH)).unwrap();
    for _ in 0..3 {
        world = world.restart();
        world.settle();
        world.pass(Duration::from_secs(10));
        assert_eq!(world.mail_of("bob").matches("\nSubject: Your message").count(), 1);
        assert!(world.queue().is_empty());
    }
}

#[test]
fn an_authenticator_that_cannot_tell_costs_nobody_his_mail() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    world.users = None;
    world.wait();
    assert_eq!((world.queue().len(), world.shared.transit.counts.failed), (1, 0));
    world.users = Some(vec!["bob"]);
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn no_more_messages_than_so_many_are_tried_at_a_time() {
    let mut world = World::new();
    let lock = world.lock("bob");
    for _ in 0..2 * RUNS + 3 {
        let parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
        world.send(parcel);
    }
    for _ in 0..20 {
        world.pass(PATIENCE / 8);
    }
    assert_eq!(world.queue().len(), 2 * RUNS + 3);
    drop(lock);
    world.now += Duration::from_secs(3600);
    let mut most = 0;
    while !world.queue().is_empty() {
        world.turn();
        most = most.max(world.runner.runs.len());
        world.lp.poll(Some(Instant::now() + Duration::from_millis(1))).unwrap();
    }
    assert_eq!(most, RUNS);
    world.settle();
    assert_eq!(world.mail_of("bob").matches("hello").count(), 2 * RUNS + 3);
}

#[test]
fn an_operator_holds_releases_hastens_and_deletes() {
    let mut world = World::new();
    let lock = world.locked_out("bob");
    let id = world.queue()[0].clone();
    let done = world.ordered(&id, Deed::Hold("to be looked at".to_owned())).unwrap();
    assert_eq!((&done["recipients"], &done["left_queue"]), (&1.into(), &false.into()));
    assert_eq!((world.place_of(&id), world.shared.transit.table().len()), ("held".to_owned(), 0));
    drop(lock);
    world.pass(Duration::from_secs(3600));
    assert_eq!((world.queue().len(), world.mail_of("bob").as_str()), (1, ""));
    assert_eq!(world.ordered(&id, Deed::Retry).unwrap()["recipients"], 0, "who is held is not hastened");
    assert_eq!(world.ordered(&id, Deed::Release).unwrap()["recipients"], 1);
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
    assert!(world.ordered(&id, Deed::Retry).unwrap_err().contains("no such message"));
    let lock = world.locked_out_again("bob");
    let id = world.queue()[0].clone();
    let done = world.ordered(&id, Deed::Delete).unwrap();
    assert_eq!((&done["recipients"], &done["left_queue"]), (&1.into(), &true.into()));
    drop(lock);
    assert!(world.queue().is_empty() && world.shared.transit.table().is_empty());
}

impl World {
    fn locked_out_again(&mut self, user: &str) -> File {
        fs::remove_file(self.drop_of(user)).unwrap();
        self.locked_out(user)
    }
}

#[test]
fn what_is_to_be_held_is_taken_and_tried_by_nobody_until_it_is_released() {
    let mut world = World::new();
    let mut parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    parcel.hold = Some("too much from ann".into());
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    world.pass(Duration::from_secs(3600));
    let mut world = world.restart();
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").as_str()), (1, ""));
    let id = world.queue()[0].clone();
    world.ordered(&id, Deed::Release).unwrap();
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn a_disk_that_runs_short_is_noticed_by_those_who_ask() {
    let mut world = World::with(|settings| settings.delivery_min_space = 1_000_000_000);
    assert!(!world.shared.transit.is_short(), "nobody has looked");
    world.settle();
    assert!(world.shared.transit.is_short());
    Arc::make_mut(&mut world.shared.settings).delivery_min_space = 1;
    world.settle();
    assert!(world.shared.transit.is_short(), "it is not looked at all the time");
    world.pass(SPACE_LIFE);
    assert!(!world.shared.transit.is_short());
}

#[test]
fn a_message_that_turns_out_too_large_is_judged_by_the_room_that_was_seen_when_its_recipient_was_taken() {
    for (quota_reply, code, class) in [(QuotaReply::Temporary, 452, 4), (QuotaReply::Permanent, 552, 5)] {
        let mut world = World::with(|settings| settings.quota_reply = quota_reply);
        let mut parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
        let octets = parcel.received.len() as u64 + 18;
        parcel.recipients[0].ways[0].room = Some(octets - 1);
        let Some(Dispatched::Refused(reply)) = world.sent(parcel) else { panic!("one has no room") };
        assert_eq!((reply.code(), &reply.said()[..6]), (code, &*format!("{class}.2.2 ")));
        let mut parcel = world.parcel("Subject: x\n\nhello\n", &["bob", "eve"]);
        parcel.recipients[0].ways[0].room = Some(octets);
        parcel.recipients[1].ways[0].room = Some(octets - 1);
        parcel.sender.path = Some(address_of("kim@example.test"));
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        assert_eq!((world.mail_of("bob").matches("hello").count(), world.mail_of("eve")), (1, String::new()));
        let failed = usize::from(class == 5);
        world.pass(Duration::from_secs(10));
        assert_eq!(world.mail_of("kim").matches("5.2.2 The mailbox is full").count(), failed);
        let counts = &world.shared.transit.counts;
        assert_eq!((counts.failed as usize, counts.deferred as usize), (failed, 1 - failed));
    }
}

#[test]
fn who_has_no_room_is_judged_anew_when_the_queue_tries_him() {
    let mut world = World::new();
    let lock = world.locked_out("bob");
    fs::write(world.drop_of("bob"), format!("From a@b Thu Jan  1 00:00:00 1970\n\n{}\n", "x".repeat(1000))).unwrap();
    drop(lock);
    Arc::make_mut(&mut world.shared.settings).drop_max = 1;
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (1, 0));
    Arc::make_mut(&mut world.shared.settings).drop_max = 2;
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn who_has_a_mailbox_that_fills_is_told_once_and_nobody_waits_for_that() {
    let mut world = World::with(|settings| settings.drop_max = 100);
    let told = |world: &World| world.mail_of("bob").matches("\nSubject: Your mailbox is almost full\n").count();
    for (bytes, times) in [(50_000, 0), (43_000, 1), (500, 1)] {
        let parcel = world.parcel(&format!("Subject: x\n\n{}\n", "x".repeat(bytes)), &["bob"]);
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        assert_eq!((told(&world), world.queue().len()), (times, 0), "{bytes}");
    }
    let text = world.mail_of("bob");
    assert!(text.contains("From MAILER-DAEMON ") && text.contains("\nReturn-Path: <>\n"), "{text}");
    assert!(text.contains("it may hold 100 kB.\n"), "{text}");
    assert!(world.got.is_empty(), "nobody is told what became of it");
}

#[test]
fn who_cannot_have_it_is_tried_alone_and_the_others_have_one_copy() {
    let mut world = World::new();
    let table = Arc::make_mut(&mut world.shared.routes);
    let domains = &world.shared.settings.domains;
    // A list with two members of whom nobody has heard, both of whose addresses have copies sent to the list.
    for (from, to) in [("team", "bob, ann, tom"), ("ann", "team"), ("tom", "team")] {
        let whole = |name: &str| addressee(&format!("{name}@example.test")).unwrap();
        let targets = to.split(", ").map(|name| Target::Address(whole(name))).collect();
        table.forward(domains, &whole(from), targets, from != "team", ("forward_cc", 0));
    }
    let body = world.body(b"Subject: x\n\nhello\n");
    let to = Destination::Local(address_of("team@example.test"), Stage::Whole);
    let parcel = world.parcel_of(body, vec![world.to("team", vec![to])]);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.mail_of("bob").matches("\nhello").count(), 1);
    let counts = world.shared.transit.counts;
    // The message, what it goes on as, and one bounce.
    assert_eq!((counts.failed, counts.queued), (2, 3), "{counts:?} {:?}", world.queue());
}

/// `team@example.test` leads to all of them, in a message for it that is in the queue.
fn message_for_a_team(world: &mut World) {
    know_the_team(world);
    let body = world.body(b"Subject: x\n\nhello\n");
    let team = world.to("team", vec![Destination::Local(address_of("team@example.test"), Stage::Whole)]);
    let parcel = world.parcel_of(body, vec![team]);
    world.send(parcel);
}

fn know_the_team(world: &mut World) {
    let domains = &world.shared.settings.domains;
    let mut table = route::Table::default();
    let address = |user: &str| route::Addressee::new(user.to_owned(), "example.test".to_owned());
    let targets = ["bob", "eve"].map(|user| route::Target::Exact(address(user))).to_vec();
    table.forward(domains, &address("team"), targets, false, ("forward", 0));
    world.shared.routes = Arc::new(table);
    // Whoever is asked about, it is for this address.
    world.users = Some(vec!["bob", "eve", "team"]);
}

/// Turns until what was made in the team's place is on disk, and nobody has heard of that.
fn until_handed_on(world: &mut World) {
    while !world.queue().iter().any(|name| name.ends_with("r1")) {
        world.turn();
    }
    rest(world);
}

/// All jobs come to their end, and nobody hears of that.
fn rest(world: &World) {
    let is_at_work = || {
        let load = world.shared.jobs.load();
        load.running + load.waiting > 0
    };
    while is_at_work() {
        std::thread::yield_now();
    }
}

/// As many jobs as may wait, until the guard goes.
fn fill_the_pool<'g>(world: &World, gate: &'g Arc<Mutex<()>>) -> MutexGuard<'g, ()> {
    let guard = gate.lock().unwrap();
    loop {
        let gate = gate.clone();
        let work = move |_: &_| {
            drop(gate.lock());
            Outcome::lost()
        };
        if world.shared.jobs.submit(None, JobKind::Read, 7, work).is_err() {
            return guard;
        }
    }
}

#[test]
fn a_program_that_has_a_message_is_not_given_it_again_while_that_cannot_be_written_down() {
    let mut world = World::new();
    let body = world.body(b"Subject: x\n\nhello\n");
    let words = vec!["/nowhere".to_owned()];
    let program = world.to("bob", vec![Destination::Program(route::Program { words, user: None })]);
    let parcel = world.parcel_of(body, vec![program]);
    world.send(parcel);
    let robot = |world: &World| {
        let found = world.runner.doing.iter().find(|(_, doing)| matches!(doing, Doing::Robot(..)));
        found.map(|(serial, _)| *serial)
    };
    while robot(&world).is_none() {
        world.turn();
    }
    rest(&world);
    let gate = Arc::new(Mutex::new(()));
    let full = fill_the_pool(&world, &gate);
    // Whatever the real one says comes too late.
    let ticket = Ticket { id: world.office, serial: robot(&world).unwrap() };
    world.runner.deliver(world.now, ticket, Outcome::Robot(Verdict::Taken), &mut world.shared);
    assert_eq!(world.queue().len(), 1);
    drop(full);
    for _ in 0..20 {
        world.pass(Duration::from_secs(10));
    }
    assert_eq!((world.queue(), world.shared.transit.counts.failed), (Vec::<String>::new(), 0));
}

#[test]
fn what_goes_on_in_place_of_an_address_goes_on_once_though_the_server_is_killed_before_it_wrote_that_down() {
    for turns in 0..12 {
        let mut world = World::new();
        message_for_a_team(&mut world);
        until_handed_on(&mut world);
        // What went on goes its way; its origin is not heard of any more.
        let origin = |doing: &Doing| matches!(doing, Doing::HandOn(..));
        let serials = world.runner.doing.iter().filter(|(_, doing)| origin(doing)).map(|(serial, _)| *serial);
        let serials: Vec<u32> = serials.collect();
        let id = world.queue().into_iter().find(|name| name.ends_with("r1")).unwrap();
        for _ in 0..turns {
            for serial in &serials {
                world.runner.doing.remove(serial);
            }
            world.shared.transit.arrive(&id);
            world.turn();
            rest(&world);
        }
        let mut world = world.restart();
        know_the_team(&mut world);
        world.settle();
        world.pass(Duration::from_secs(10));
        for user in ["bob", "eve"] {
            assert_eq!(world.mail_of(user).matches("hello").count(), 1, "{user}, killed after {turns} turns");
        }
        assert!(world.queue().is_empty());
    }
}

#[test]
fn who_was_to_wait_until_a_time_that_is_far_off_is_tried_when_the_clock_was_put_back() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    let id = world.queue()[0].clone();
    let next_secs = EPOCH + 365 * 86_400;
    let change = Change {
        number: 1,
        to: State::Deferred { next_secs, tries: 1, why: "4.2.0 no".to_owned(), possibly: false, warned: Warned::No },
    };
    world.shared.transit.queue().note(&id, next_secs - 10, &[change]).unwrap();
    let mut world = world.restart();
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn a_message_that_is_being_tried_is_not_tried_beside_that() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    let id = world.queue()[0].clone();
    for _ in 0..3 {
        world.now += Duration::from_secs(1);
        world.shared.transit.arrive(&id);
        world.runner.turn(world.office, world.now, &mut world.shared);
    }
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn a_message_is_noted_once_as_sent_and_each_who_has_it_once_whatever_way_it_took() {
    let mut world = World::with(|settings| settings.oneline_stats = true);
    let (domains, whole) = (world.shared.settings.domains.clone(), |local: &str| Addressee::new(local, "example.test"));
    let team = ["bob", "eve"].map(|user| Target::Address(whole(user))).to_vec();
    Arc::make_mut(&mut world.shared.routes).forward(&domains, &whole("team"), team, false, ("forward", 0));
    let direct = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    world.sent(direct);
    let body = world.body(b"Subject: x\n\nhello\n");
    let list = world.to("team", vec![Destination::Local(address_of("team@example.test"), Stage::Whole)]);
    let several = vec![world.to("kim", vec![world.mailbox("kim")]), list];
    let several = world.parcel_of(body, several);
    world.users = Some(vec!["bob", "eve", "lee"]);
    world.sent(several);
    world.pass(Duration::from_secs(10));
    drop(world.locked_out("lee"));
    world.wait();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.queue().len(), 0);
    let of = |class: Class| world.shared.traffic.iter().filter(move |record| record.class == class);
    let mut received: Vec<&str> = of(Class::Received).flat_map(|record| record.to.iter().map(String::as_str)).collect();
    received.sort_unstable();
    let whole = |user: &str| format!("{user}@example.test");
    assert_eq!(received, ["bob", "bob", "eve", "kim", "lee"].map(whole));
    assert_eq!((of(Class::Sent).count(), of(Class::Failed).count()), (3, 0));
    assert_eq!(world.shared.transit.counts.accepted, 3);
}

#[test]
fn after_a_fault_of_ours_the_queue_waits_longer_each_time_and_passes_over_what_was_being_tried() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    let fall = |world: &mut World| {
        let runner = std::mem::replace(&mut world.runner, Runner::at(world.now, 0));
        world.shared.transit.forget();
        world.office = world.lp.insert(Nobody).unwrap();
        world.runner = runner.again(world.now);
    };
    let secs = EPOCH + (world.now - world.begun).as_secs() as i64;
    let due = world.shared.transit.table.first_due().unwrap();
    world.now += Duration::from_secs(u64::try_from(due - secs).unwrap());
    world.turn();
    assert_eq!(world.runner.runs.len(), 1, "it is being tried");
    for times in [1, 2, 4] {
        fall(&mut world);
        assert_eq!(world.runner.deadline(), Some(world.now + PAUSE * times));
        world.pass(PAUSE * times);
        assert_eq!((world.queue().len(), world.mail_of("bob").as_str()), (1, ""));
    }
    let other = world.parcel("Subject: x\n\nhello\n", &["eve", "kim"]);
    assert!(matches!(world.sent(other), Some(Dispatched::Kept)));
    assert!(world.mail_of("eve").contains("hello"), "the others have theirs");
    world.pass(PASS);
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
    fall(&mut world);
    assert_eq!(world.runner.deadline(), Some(world.now + PAUSE), "it had run for long");
}

#[test]
fn what_waits_when_the_clock_is_put_back_waits_no_longer_than_the_longest_step() {
    let mut world = World::new();
    drop(world.locked_out("bob"));
    world.runner.set(world.now, EPOCH - 365 * 86_400);
    world.settle();
    world.pass(Duration::from_secs(3600 + 360));
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 1));
}

#[test]
fn who_waits_behind_a_job_that_does_not_end_is_kept_in_the_queue() {
    let mut world = World::new();
    world.settle();
    let first = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    let second = world.parcel("Subject: x\n\nhallo\n", &["bob"]);
    world.send(first);
    world.runner.turn(world.office, world.now, &mut world.shared);
    let ticket = world.send(second);
    world.runner.turn(world.office, world.now, &mut world.shared);
    world.now += WAIT;
    assert!(world.runner.deadline().is_some_and(|at| at <= world.now));
    world.runner.turn(world.office, world.now, &mut world.shared);
    world.settle();
    assert!(matches!(world.answer(ticket), Some(Dispatched::Kept)));
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hallo").count()), (1, 0));
    world.wait();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hallo").count()), (0, 1));
    assert_eq!(world.mail_of("bob").matches("hello").count(), 1);
}

#[test]
fn nothing_is_kept_for_a_locked_drop_whose_queue_file_cannot_be_made() {
    let mut world = World::new();
    world.settle();
    let _lock = world.lock("bob");
    // What is held open of it takes no names any more.
    fs::remove_dir_all(world.shared.settings.work_path.join("queue")).unwrap();
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    let ticket = world.send(parcel);
    for _ in 0..20 {
        world.pass(PATIENCE / 8);
    }
    let Some(Dispatched::Refused(reply)) = world.answer(ticket) else { panic!("nobody has it") };
    assert_eq!((reply.code(), world.mail_of("bob").as_str()), (451, ""));
}

/// Puts `count` messages for bob into the queue as another server left them: deferred until a time of these, `flat` as servers before this
/// one had them, or in their hours. Gives when each is due.
fn many(world: &World, count: usize, flat: bool, due: impl Fn(usize) -> i64) -> BTreeMap<String, i64> {
    let queue = world.shared.transit.queue();
    let envelope = Envelope { sender: "ann@sender.test".to_owned(), received_secs: EPOCH, ..Envelope::default() };
    let to = queue::Recipient {
        kind: queue::Kind::Mailbox,
        address: "bob@example.test".to_owned(),
        with: Vec::new(),
        notify: None,
        orcpt: None,
    };
    queue
        .create("FIRST", &envelope, std::slice::from_ref(&to), &delivery::Body::Memory(b"Subject: x\n\nhello\n"))
        .unwrap();
    let dir = world.shared.settings.work_path.join("queue");
    let whole = fs::read_to_string(dir.join("FIRST")).unwrap().replace("FIRST", "\0");
    fs::remove_file(dir.join("FIRST")).unwrap();
    let mut times = BTreeMap::new();
    for k in 0..count {
        let (id, next_secs) = (format!("M{k}"), due(k));
        let path = dir.join(&id);
        fs::write(&path, whole.replace('\0', &id)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let to =
            State::Deferred { next_secs, tries: 1, why: "4.2.0 no".to_owned(), possibly: false, warned: Warned::No };
        queue.note(&id, EPOCH, &[Change { number: 1, to }]).unwrap();
        if !flat {
            queue.put(&id, Some(next_secs)).unwrap();
        }
        times.insert(id, next_secs);
    }
    times
}

/// Lets time go on until `count` of these were tried, and gives them as they came.
fn tried_in_order(world: &mut World, times: &BTreeMap<String, i64>, count: usize) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    while order.len() < count {
        world.turn();
        for (_, run) in &world.runner.runs {
            if times.contains_key(run.id()) && !order.iter().rev().take(4 * RUNS).any(|known| known == run.id()) {
                order.push(run.id().to_owned());
            }
        }
        assert!(world.shared.transit.table.len() <= world.shared.transit.table.most() + RUNS);
        if !world.shared.jobs.is_idle() {
            world.lp.poll(Some(Instant::now() + Duration::from_millis(5))).unwrap();
        } else if world.shared.post.is_empty() && world.runner.runs.is_empty() {
            let table = &world.shared.transit.table;
            let due = table.first_due().into_iter().chain(table.more_secs()).min().expect("something is due");
            let secs = EPOCH + (world.now - world.begun).as_secs() as i64;
            world.now += Duration::from_secs(u64::try_from(due - secs).unwrap_or(0).max(1));
        }
    }
    order
}

#[test]
fn more_messages_than_a_table_holds_come_when_they_are_due_and_each_once_and_a_new_server_goes_on_with_them() {
    const COUNT: usize = 200;
    let mut world = World::new();
    world.shared.transit.table = Table::with(20);
    // Ten hours, scattered.
    let times = many(&world, COUNT, false, |k| EPOCH + (k * 7919 % 36_000) as i64);
    let mut order = tried_in_order(&mut world, &times, COUNT / 2);
    world.settle();
    let last = times[order.last().unwrap()];
    let mut world = world.restart();
    world.shared.transit.table = Table::with(20);
    world.begun -= Duration::from_secs(last.abs_diff(EPOCH));
    world.runner.set(world.begun, EPOCH);
    order.extend(tried_in_order(&mut world, &times, COUNT - order.len()));
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, COUNT));
    let late = order.windows(2).map(|pair| times[&pair[0]] - times[&pair[1]]).max().unwrap();
    // So many are tried at a time, and whoever looks on does not see who of them came first.
    assert!(late <= (36_000 / COUNT * 2 * RUNS) as i64, "{late} s");
    assert_eq!(order.iter().collect::<std::collections::HashSet<_>>().len(), COUNT, "each came once");
}

#[test]
fn twenty_thousand_messages_come_out_of_a_table_of_few_in_order_and_each_once() {
    const COUNT: usize = 20_000;
    let world = World::new();
    let queue = world.shared.transit.queue();
    let dir = world.shared.settings.work_path.join("queue/due");
    let due = |k: usize| EPOCH - EPOCH % 3600 + (k * 7919 % 36_000) as i64;
    for k in 0..COUNT {
        let hour = dir.join((due(k) / 3600).to_string());
        if !hour.exists() {
            fs::create_dir(&hour).unwrap();
            fs::set_permissions(&hour, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let file = File::create(hour.join(format!("M{k}"))).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(due(k) as u64)).unwrap();
    }
    let (mut table, mut now, mut looks, mut order) = (Table::with(500), due(0), 0, Vec::new());
    while order.len() < COUNT {
        if table.is_low(now) {
            looks += 1;
            let most = table.look();
            table.found(queue.soonest(now, now + 864_000, most, &mut || {}).unwrap());
        }
        assert!(table.len() <= 500);
        let Some(id) = table.pop_due(now) else {
            now = table.first_due().into_iter().chain(table.more_secs()).min().unwrap();
            continue;
        };
        let k: usize = id[1..].parse().unwrap();
        fs::remove_file(dir.join((due(k) / 3600).to_string()).join(&id)).unwrap();
        table.end(&id);
        order.push(due(k));
    }
    assert!(order.is_sorted());
    assert!(looks < 2 * COUNT / 375, "{looks} looks");
}

#[test]
fn what_an_older_server_left_in_one_directory_is_taken_over() {
    let mut world = World::new();
    let times = many(&world, 60, true, |k| EPOCH + if k % 3 == 0 { -1 } else { 5000 * k as i64 });
    world.shared.transit.table = Table::with(10);
    world.settle();
    // Who is due was tried; the others lie where they are found.
    assert!(
        world.places().iter().all(|(id, place)| times[id] > EPOCH && *place == format!("due/{}", times[id] / 3600))
    );
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (40, 20));
    assert_eq!(world.shared.transit.waiting(), 40);
    for _ in 0..100 {
        world.pass(Duration::from_secs(3600));
    }
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 60));
    assert_eq!(world.shared.transit.waiting(), 0);
}

#[test]
fn an_operator_hastens_holds_and_deletes_what_is_in_no_table() {
    let mut world = World::new();
    many(&world, 4, false, |_| EPOCH + 100_000);
    world.settle();
    assert_eq!((world.shared.transit.table().len(), world.shared.transit.waiting()), (0, 4));
    assert_eq!(world.ordered("M1", Deed::Retry).unwrap()["recipients"], 1);
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (3, 1));
    assert_eq!(world.ordered("M2", Deed::Hold("why".to_owned())).unwrap()["recipients"], 1);
    assert_eq!(world.place_of("M2"), "held");
    assert_eq!(world.ordered("M3", Deed::Delete).unwrap()["left_queue"], true);
    assert_eq!((world.queue().len(), world.shared.transit.waiting()), (2, 2));
    let mut world = world.restart();
    world.settle();
    assert_eq!(world.ordered("M2", Deed::Release).unwrap()["recipients"], 1);
    assert_eq!((world.queue(), world.mail_of("bob").matches("hello").count()), (vec!["M0".to_owned()], 2));
    world.runner.set(world.now, EPOCH + 100_000);
    world.settle();
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 3));
}

#[test]
fn what_waits_in_hours_when_the_clock_is_put_back_waits_no_longer_than_the_longest_step() {
    let mut world = World::new();
    many(&world, 30, false, |k| EPOCH + 600 + 100 * k as i64);
    world.shared.transit.table = Table::with(10);
    world.settle();
    world.runner.set(world.now, EPOCH - 5 * 86_400);
    world.settle();
    assert_eq!(world.queue().len(), 30);
    world.pass(Duration::from_secs(3600 + 360));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.queue().len(), world.mail_of("bob").matches("hello").count()), (0, 30));
}
