//! Who is brought a message to another host together: whatever happens, the same once more.

use super::*;
use crate::store::delivery;
use crate::store::queue::{self, Change, Kind, State, Warned};

fn far(number: u32) -> queue::Recipient {
    let address = format!("u{number}@far.test");
    queue::Recipient { kind: Kind::Remote, address, with: Vec::new(), notify: None, orcpt: None }
}

fn deferred(next_secs: i64, possibly: bool) -> State {
    State::Deferred { next_secs, tries: 1, why: "4.0.0 no".to_owned(), possibly, warned: Warned::No }
}

#[test]
fn a_page_goes_together_in_its_first_round_as_in_a_later_one() {
    let mut world = World::new();
    world.calls_last = true;
    let body = world.body(b"Subject: x\n\nhello\n");
    let whom = (1..=80).map(|number| Destination::Remote(address_of(&far(number).address)));
    let whom = whom.map(|way| world.to("bob", vec![way])).collect();
    let parcel = world.parcel_of(body, whom);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    let first = world.shared.outgoing.waits();
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [64, 16]);
    // It was killed before anything was known.
    let mut world = world.restart();
    world.calls_last = true;
    world.settle();
    let later = world.shared.outgoing.waits();
    assert_eq!(later, first[..1], "byte for byte what a host may have, and not know that we know");
}

#[test]
fn who_did_not_wait_alike_is_not_brought_it_together() {
    let mut world = World::new();
    let envelope = queue::Envelope { sender: "a@x.test".to_owned(), received_secs: EPOCH, ..Default::default() };
    let body = delivery::Body::Memory(b"Subject: tea\n\nAt five.\n");
    let whom: Vec<queue::Recipient> = (1..=6).map(far).collect();
    world.shared.transit.queue().create("A1", &envelope, &whom, &body).unwrap();
    let states = [deferred(EPOCH + 9, true), deferred(EPOCH + 9, false), deferred(EPOCH + 5, true)];
    for (number, state) in [(1, &states[0]), (2, &states[1]), (3, &states[2]), (4, &states[0]), (6, &states[1])] {
        world.shared.transit.queue().note("A1", EPOCH, &[Change { number, to: state.clone() }]).unwrap();
    }
    world.calls_last = true;
    world.pass(Duration::from_secs(20));
    let of = |numbers: &[u32]| numbers.iter().map(|number| far(*number).address).collect::<Vec<_>>();
    assert_eq!(world.shared.outgoing.waits(), [of(&[1, 4]), of(&[2, 6]), of(&[3]), of(&[5])]);
}
