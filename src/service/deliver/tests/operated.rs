//! What operators see of the queue and change in it, and what hosts fetch with ETRN.

use serde_json::Value;

use super::*;
use crate::control::queue;
use crate::protocol::smtp::Node;
use crate::rules::hops::Table as Hops;
use crate::service::{summon, waiting};
use crate::store::delivery::Body as Bytes;
use crate::store::queue::{Change, Envelope, Kind, Recipient as Row, State, Warned};

/// When what is deferred here is due.
const DUE: i64 = EPOCH + 3000;

fn deferred(why: &str, possibly: bool) -> State {
    State::Deferred { next_secs: DUE, tries: 2, why: why.to_owned(), possibly, warned: Warned::No }
}

impl World {
    /// A message of the queue whose recipients, at other hosts, stand so.
    fn waits(&self, id: &str, sender: &str, who: &[(&str, State)]) {
        let queue = self.shared.transit.queue();
        let envelope = Envelope { sender: sender.to_owned(), received_secs: EPOCH - 100, ..Envelope::default() };
        let recipient = |address: &str| Row {
            kind: Kind::Remote,
            address: address.to_owned(),
            with: Vec::new(),
            notify: None,
            orcpt: None,
        };
        let recipients: Vec<Row> = who.iter().map(|(address, _)| recipient(address)).collect();
        queue.create(id, &envelope, &recipients, &Bytes::Memory(b"Subject: x\n\nx\n")).unwrap();
        let changes: Vec<Change> = (1..).zip(who).map(|(number, (_, to))| Change { number, to: to.clone() }).collect();
        let noted = queue.note(id, EPOCH, &changes).unwrap();
        queue.put(id, noted.tally.due_secs()).unwrap();
    }

    /// What an order about the queue comes to: the report as programs have it, or why not.
    fn told(&mut self, words: &[&str]) -> Result<Value, String> {
        let (json, _) = self.reported(words)?;
        Ok(serde_json::from_str(&json).unwrap())
    }

    /// The same, and as people have it.
    fn reported(&mut self, words: &[&str]) -> Result<(String, String), String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let ticket = self.ticket();
        waiting::begin(queue::parse(&words)?, self.now, EPOCH, ticket, &mut self.shared)?;
        self.settle();
        let at = self.got.iter().position(|(known, _)| *known == ticket).expect("it is answered");
        match self.got.swap_remove(at).1 {
            Outcome::Told(Ok(report)) => Ok((report.json(), report.text())),
            Outcome::Told(Err(whys)) => Err(whys.join(" ")),
            _ => panic!("another answer came"),
        }
    }

    fn ids(&mut self, words: &[&str]) -> Vec<String> {
        let list = self.told(words).unwrap();
        let mut ids: Vec<String> =
            list["queue"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    fn states(&self, id: &str) -> Vec<(&'static str, Option<String>)> {
        let rows = self.shared.transit.queue().page(id, 1, 9).unwrap();
        rows.into_iter().map(|row| (row.state.stage().word(), row.via)).collect()
    }
}

/// Three messages: for a dead host and a slow one, for a mailbox that is full, and one that may have arrived.
fn three() -> World {
    let mut world = World::new();
    // Each domain is a place of its own.
    let settings = Arc::make_mut(&mut world.shared.settings);
    settings.hops = Hops::new(&[], &[], None, 25, 10, Path::new("/"));
    let dead = || deferred("4.4.1 connecting: refused", false);
    world.waits("A1", "ann@x.test", &[("bob@dead.test", dead()), ("eve@slow.test", deferred("4.4.2 too slow", false))]);
    world.waits("A2", "", &[("kim@dead.test", dead())]);
    world.waits("A3", "ann@x.test", &[("lee@c.test", State::Delivered), ("joe@c.test", deferred("4.4.2 cut", true))]);
    world.settle();
    world
}

#[test]
fn each_entry_says_when_it_is_tried_where_it_goes_why_it_waits_and_what_helps() {
    let mut world = three();
    let (json, text) = world.reported(&[]).unwrap();
    let list: Value = serde_json::from_str(&json).unwrap();
    let entry = list["queue"].as_array().unwrap().iter().find(|row| row["id"] == "A1").unwrap();
    for (name, wanted) in [
        ("to", Value::from("bob@dead.test")),
        ("recipients", 2.into()),
        ("state", "2 deferred".into()),
        ("tries", 2.into()),
        ("next_secs", 3000.into()),
        ("next", "2026-01-05T11:50:00Z".into()),
        ("place", "mx dead.test".into()),
        ("possibly", false.into()),
        ("why", "4.4.1 connecting: refused".into()),
        ("reason", "the other server does not answer (4.4.1 connecting: refused)".into()),
        ("unblock", "it is tried again in 50m; `tellsmtp queue retry A1` tries it now".into()),
    ] {
        assert_eq!(entry[name], wanted, "{name}");
    }
    for line in [
        "A1  from ann@x.test to bob@dead.test and 1 more\n",
        "    next try: 2026-01-05T11:50:00Z, in 50m00s\n",
        "    goes to: mx dead.test\n",
        "    possibly delivered: all of it was sent, and no answer came\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let shown = world.told(&["show", "a3"]).unwrap();
    let who = shown["who"].as_array().unwrap();
    assert_eq!((&who[0]["unblock"], &who[1]["possibly"]), (&Value::Null, &true.into()));
    assert!(who[1]["unblock"].as_str().unwrap().starts_with("it may have arrived"), "{shown}");
    assert!(world.told(&["show", "A9"]).unwrap_err().contains("no such message"));
    let mut paused = world.shared.transit.paused().clone();
    paused.pause(Some("mx dead.test")).unwrap();
    let settings = world.shared.settings.clone();
    world.shared.transit.set_paused(paused, &settings)().unwrap();
    let unblock = world.told(&["show", "A2"]).unwrap()["who"][0]["unblock"].clone();
    assert_eq!(unblock, "sending to mx dead.test is paused: `tellsmtp resume mx dead.test`");
}

#[test]
fn filters_pass_messages_by_what_one_of_their_waiting_recipients_is() {
    let mut world = three();
    for (words, wanted) in [
        (&["domain=dead.test"][..], &["A1", "A2"][..]),
        (&["domain=*.test,!dead.test"], &["A1", "A3"]),
        (&["place=mx slow.test"], &["A1"]),
        (&["reason=4.4.1*"], &["A1", "A2"]),
        (&["reason=*refused", "from=<>"], &["A2"]),
        (&["reason=*refused", "domain=slow.test"], &[]),
        (&["state=possibly"], &["A3"]),
        (&["state=deferred"], &["A1", "A2", "A3"]),
        (&["to=lee@*"], &[]),
        (&["size=14"], &["A1", "A2", "A3"]),
        (&["larger=15"], &[]),
        (&["older=100"], &["A1", "A2", "A3"]),
    ] {
        assert_eq!(world.ids(words), wanted, "{words:?}");
    }
    assert_eq!(
        world.told(&["domain=dead.test"]).unwrap()["queue"][0]["to"].as_str().unwrap().split('@').nth(1),
        Some("dead.test")
    );
}

#[test]
fn a_change_of_many_is_counted_first_and_is_of_those_recipients_whom_its_filter_names() {
    let mut world = three();
    let hold = |world: &mut World, more: &[&str]| world.told(&[&["hold", "domain=dead.test"], more].concat());
    assert_eq!(hold(&mut world, &[]).unwrap()["would_change"], 2);
    assert!(hold(&mut world, &["3"]).unwrap_err().contains("2 messages are meant by this now, not 3"));
    assert_eq!(world.states("A1"), [("deferred", None), ("deferred", None)]);
    let done = hold(&mut world, &["2"]).unwrap();
    assert_eq!((&done["changed"], &done["recipients"], &done["left_queue"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(world.states("A1"), [("held", None), ("deferred", None)]);
    assert_eq!(hold(&mut world, &[]).unwrap()["would_change"], 0);
    assert_eq!(world.told(&["delete", "state=held", "--yes"]).unwrap()["left_queue"], 1);
    assert_eq!(world.states("A1"), [("deleted", None), ("deferred", None)]);
    assert_eq!(world.ids(&[]), ["A1", "A3"]);
    assert_eq!(world.told(&["retry", "state=possibly", "--yes"]).unwrap()["recipients"], 1);
    world.shared.transit.stop();
    let stopped = world.told(&["delete", "from=*", "--yes"]).unwrap();
    assert_eq!((&stopped["stopped"], &stopped["found"]), (&true.into(), &0.into()));
}

#[test]
fn who_is_routed_by_hand_goes_that_way_until_it_is_taken_back() {
    let mut world = three();
    for wrong in ["via=", "via=a b c", "via=lmtp:", "via=relay.test:0", "via=x,"] {
        assert!(world.told(&["route", "domain=dead.test", wrong]).is_err(), "{wrong}");
    }
    let route = |world: &mut World, via: &str| world.told(&["route", "domain=dead.test", via, "--yes"]).unwrap();
    assert_eq!(route(&mut world, "via=relay.test:587 tls=required")["recipients"], 2);
    let relay = Some("relay.test:587 tls=required".to_owned());
    assert_eq!((world.states("A1")[0].1.clone(), world.states("A1")[1].1.clone()), (relay.clone(), None));
    let shown = world.told(&["show", "A1"]).unwrap();
    assert_eq!(shown["who"][0]["via"].as_str(), relay.as_deref());
    assert!(shown["who"][0]["place"].as_str().unwrap().starts_with("relay.test:587"), "{shown}");
    assert_eq!(shown["who"][1]["place"], "mx slow.test");
    assert_eq!(route(&mut world, "via=relay.test:587 tls=required")["found"], 0, "it is so already");
    assert_eq!(world.ids(&["place=relay.test:587*"]), ["A1", "A2"]);
    assert_eq!(route(&mut world, "via=normal")["recipients"], 2);
    assert_eq!(world.states("A2")[0].1, None);
    let one = world.told(&["route", "A3", "via=park"]);
    assert!(one.is_ok(), "{one:?}");
    assert_eq!(world.states("A3")[1].1.as_deref(), Some("park"));
}

#[test]
fn what_is_parked_goes_by_mx_when_its_host_asks_and_nothing_else_is_touched() {
    let mut world = three();
    world.told(&["route", "domain=dead.test", "via=park", "--yes"]).unwrap();
    let queue = world.shared.transit.queue();
    let wait = |id: &str| queue.note(id, EPOCH, &[Change { number: 1, to: deferred("4.4.0 parked", false) }]).unwrap();
    for id in ["A1", "A2"] {
        wait(id);
    }
    let unblock = world.told(&["show", "A2"]).unwrap()["who"][0]["unblock"].clone();
    assert!(unblock.as_str().unwrap().starts_with("parked: its host fetches it with ETRN"), "{unblock}");
    let mut summoned = |domain: &str| {
        let ticket = world.ticket();
        let node = Node { domain: domain.into(), below: false };
        match summon::begin(node, EPOCH, ticket, &world.shared) {
            summon::Begun::Asked => {}
            begun => return Err(begun),
        }
        world.settle();
        let at = world.got.iter().position(|(known, _)| *known == ticket).expect("it is answered");
        match world.got.swap_remove(at).1 {
            Outcome::Summoned(found) => Ok(found),
            _ => panic!("another answer came"),
        }
    };
    assert_eq!(summoned("nobody.test"), Ok(Some(0)));
    assert_eq!(summoned("example.test"), Err(summon::Begun::Ours));
    assert_eq!(summoned("dead.test"), Ok(Some(2)));
    for id in ["A1", "A2"] {
        assert_eq!(world.states(id)[0].1.as_deref(), Some("mx"), "{id}");
    }
    assert_eq!(world.states("A1")[1], ("deferred", None), "another domain's");
}

#[test]
fn a_job_that_changes_more_than_the_table_is_told_of_has_it_filled_anew() {
    let mut world = three();
    let bulk = world.shared.transit.bulk();
    for _ in 0..5000 {
        bulk.tell("A9", Obeyed { changed: 1, next_secs: Some(EPOCH), gone: false });
    }
    assert!(world.shared.transit.calls(world.now));
    world.settle();
    assert!(!world.shared.transit.calls(world.now));
    assert_eq!(world.shared.transit.table.first_due(), Some(DUE));
    world.shared.transit.queue().note("A2", EPOCH, &[Change { number: 1, to: State::Deleted }]).unwrap();
    bulk.tell("A2", Obeyed { changed: 1, next_secs: None, gone: true });
    world.settle();
    assert!(world.shared.transit.table.iter().all(|(id, _)| id != "A2"));
}
