//! What a server sends again because it did not hear our answer.

use super::super::lanes::PATIENCE;
use super::*;
use crate::store::queue::{Envelope, Kind, Recipient as QueueRecipient};
use crate::store::repeats::{Mark, Marked};

const TEXT: &str = "Received: by sender.test id 1\nSubject: tea\n\nAt five.\n";

/// A message that another server brings.
fn brought(world: &mut World, text: &str, users: &[&str]) -> Parcel {
    let mut marking = world.shared.transit.marking();
    marking.feed(text.as_bytes());
    let mark = marking.finish("ann@sender.test", users.iter().map(ToString::to_string).collect());
    Parcel { mark: Some(mark), ..world.parcel(text, users) }
}

fn id_of(dispatched: Option<Dispatched>) -> Box<str> {
    match dispatched {
        Some(Dispatched::Before(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_comes_again_is_answered_and_not_kept_until_its_sender_has_heard() {
    for users in [&["bob"][..], &["bob", "eve"]] {
        let mut world = World::new();
        let parcel = brought(&mut world, TEXT, users);
        let (id, mark) = (parcel.id.clone(), parcel.mark.unwrap());
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        for count in 1..3 {
            let parcel = brought(&mut world, TEXT, users);
            assert_eq!(id_of(world.sent(parcel)), id);
            assert_eq!(world.shared.transit.counts.repeated, count);
        }
        assert_eq!(world.shared.transit.counts.accepted, 1);
        assert_eq!((world.shared.transit.held(), world.queue().len()), (0, 0));
        let other = brought(&mut world, &TEXT.replace("id 1", "id 2"), users);
        assert!(matches!(world.sent(other), Some(Dispatched::Kept)));
        // What has no mark is what it is.
        let own = world.parcel(TEXT, users);
        assert!(matches!(world.sent(own), Some(Dispatched::Kept)));
        assert_eq!(world.shared.transit.unheard(), 2);
        world.shared.transit.heard(&mark);
        let parcel = brought(&mut world, TEXT, users);
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        users.iter().for_each(|user| assert_eq!(world.mail_of(user).matches("At five.").count(), 4));
    }
}

#[test]
fn what_comes_again_while_the_first_is_under_way_is_refused_for_now() {
    let mut world = World::new();
    let lock = world.lock("bob");
    let parcel = brought(&mut world, TEXT, &["bob"]);
    let id = parcel.id.clone();
    let first = world.send(parcel);
    world.settle();
    let parcel = brought(&mut world, TEXT, &["bob"]);
    let Some(Dispatched::Refused(why)) = world.sent(parcel) else { panic!("it was not refused") };
    assert_eq!(why, reply::UNDER_WAY.clone());
    assert!(world.answer(first).is_none());
    // It goes to the queue, and is known there too.
    world.pass(PATIENCE);
    world.pass(PATIENCE);
    assert!(matches!(world.answer(first), Some(Dispatched::Kept)));
    assert_eq!(world.queue(), [id.to_string()]);
    drop(lock);
    let parcel = brought(&mut world, TEXT, &["bob"]);
    assert_eq!(id_of(world.sent(parcel)), id);
    world.pass(Duration::from_secs(3600));
    assert_eq!((world.mail_of("bob").matches("At five.").count(), world.queue().len()), (1, 0));
}

#[test]
fn what_was_refused_may_come_again() {
    let mut world = World::new();
    world.settle();
    fs::remove_dir_all(world.shared.settings.work_path.join("queue")).unwrap();
    for _ in 0..2 {
        let parcel = brought(&mut world, TEXT, &["bob", "eve"]);
        let Some(Dispatched::Refused(why)) = world.sent(parcel) else { panic!("it was not refused") };
        assert_eq!(why, reply::UNAVAILABLE);
    }
    assert_eq!((world.shared.transit.counts.repeated, world.shared.transit.unheard()), (0, 0));
}

#[test]
fn a_new_server_knows_what_the_last_one_kept_and_what_it_was_filing_when_it_was_killed() {
    let mut world = World::new();
    let direct = brought(&mut world, TEXT, &["bob"]);
    let id = direct.id.clone();
    assert!(matches!(world.sent(direct), Some(Dispatched::Kept)));
    // Killed when a queue file had its name, and before anything else: it is tried now, and known when it comes again at once.
    let filed = brought(&mut world, TEXT, &["bob", "eve"]);
    let envelope = Envelope { mark: filed.mark, ..Envelope::default() };
    let to = |user: &str| QueueRecipient {
        kind: Kind::Local,
        address: format!("{user}@example.test"),
        with: Vec::new(),
        notify: None,
        orcpt: None,
    };
    let text = crate::store::delivery::Body::Memory(TEXT.as_bytes());
    world.shared.transit.queue().create("FILED", &envelope, &[to("bob"), to("eve")], &text).unwrap();
    drop(filed);
    let mut world = world.restart();
    let again = brought(&mut world, TEXT, &["bob", "eve"]);
    let ticket = world.send(again);
    world.turn();
    assert!(world.answer(ticket).is_none(), "the queue has not been looked through");
    world.settle();
    assert_eq!(&*id_of(world.answer(ticket)), "FILED");
    let again = brought(&mut world, TEXT, &["bob"]);
    assert_eq!(id_of(world.sent(again)), id);
    let tried = ["bob", "eve"].map(|user| world.mail_of(user).matches("At five.").count());
    assert_eq!(tried, [2, 1]);
}

#[test]
fn what_waits_in_the_queue_and_was_tried_takes_no_place_among_the_marks() {
    let mut world = World::new();
    let lock = world.lock("bob");
    let parcel = brought(&mut world, TEXT, &["bob", "eve"]);
    let mark: Mark = parcel.mark.unwrap();
    let ticket = world.send(parcel);
    world.settle();
    world.pass(PATIENCE);
    world.pass(PATIENCE);
    assert!(matches!(world.answer(ticket), Some(Dispatched::Kept)));
    world.shared.transit.heard(&mark);
    // Its slot in the file is another's by now.
    let other = Marked { mark: Mark::read("0f1e2d3c4b5a69788796a5b4c3d2e1f0").unwrap(), id: "OTHER".into() };
    world.shared.transit.stores.intents.repeats().keep(&other);
    let mut world = world.restart();
    world.settle();
    assert_eq!((world.queue().len(), world.shared.transit.unheard()), (1, 1));
    drop(lock);
}
