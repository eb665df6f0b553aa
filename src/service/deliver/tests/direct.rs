//! Messages with one drop to go to.

use super::super::lanes::{BATCH, PATIENCE};
use super::*;
use crate::service::LOCK_RETRY;

#[test]
fn a_message_for_one_drop_is_in_it_when_it_is_answered_and_nowhere_else() {
    let mut world = World::new();
    for (count, text) in
        [(1, "Subject: tea\n\nAt five.\n".to_owned()), (2, format!("Subject: long\n\n{}", "x\n".repeat(200_000)))]
    {
        let parcel = world.parcel(&text, &["bob"]);
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        let mail = world.mail_of("bob");
        assert!(mail.contains(&text) && mail.contains("\nDelivered-To: bob@example.test\n"), "{mail}");
        assert!(mail.starts_with("From ann@sender.test ") && mail.contains("\nReceived: from x by y with ESMTP id "));
        assert_eq!(world.shared.transit.counts.delivered, count);
    }
    assert_eq!(world.shared.transit.held(), 0);
    assert_eq!(world.shared.transit.open_intents(), 0);
    assert!(world.queue().is_empty());
    assert!(world.runner.is_idle());
}

#[test]
fn letters_for_one_drop_share_a_lock_and_a_sync() {
    let mut world = World::new();
    let tickets: Vec<Ticket> = (0..BATCH * 2)
        .map(|number| {
            let parcel = world.parcel(&format!("Subject: {number}\n\nhello\n"), &["bob"]);
            world.send(parcel)
        })
        .collect();
    world.settle();
    for ticket in tickets {
        assert!(matches!(world.answer(ticket), Some(Dispatched::Kept)));
    }
    assert_eq!(world.mail_of("bob").matches("\n\nhello\n").count(), BATCH * 2);
    assert_eq!(world.shared.transit.counts.syncs, 2, "as many as came before a turn go together");
}

#[test]
fn a_message_whose_recipients_throw_it_away_is_kept_for_nobody() {
    let mut world = World::new();
    let body = world.body(b"Subject: x\n\n");
    let to = vec![world.to("devnull", Vec::new())];
    let parcel = world.parcel_of(body, to);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    assert_eq!(world.shared.transit.counts.accepted, 1);
}

#[test]
fn a_drop_that_is_locked_for_a_moment_is_tried_again() {
    let mut world = World::new();
    let lock = world.lock("bob");
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    let ticket = world.send(parcel);
    world.settle();
    assert_eq!(world.runner.deadline().map(|at| at - world.now), Some(LOCK_RETRY));
    world.pass(LOCK_RETRY);
    assert!(world.answer(ticket).is_none());
    drop(lock);
    world.pass(PATIENCE - 2 * LOCK_RETRY);
    assert!(matches!(world.answer(ticket), Some(Dispatched::Kept)));
    assert!(world.mail_of("bob").contains("hello"));
    assert_eq!(world.shared.transit.counts.queued, 0);
}

#[test]
fn who_is_gone_when_his_message_is_whole_has_sent_it() {
    let mut world = World::new();
    let parcel = world.parcel("Subject: x\n\nhello\n", &["bob"]);
    world.send(parcel);
    world.client = world.lp.insert(Nobody).unwrap();
    world.settle();
    assert!(world.mail_of("bob").contains("hello"));
}
