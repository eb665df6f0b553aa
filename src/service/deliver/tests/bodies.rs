//! Text on its way in: `body.rs`.

use std::os::unix::fs::FileExt;

use super::super::body::{Closed, PIECE, Text};
use super::*;
use crate::store::delivery;
use crate::text::bytes::INPUT_ROOM;

fn whole(world: &mut World, mut body: Body) -> Text {
    loop {
        match body.close() {
            Closed::Whole(text) => return text,
            Closed::Failed(fault) => panic!("{fault}"),
            Closed::Open(mut open) => {
                let ticket = world.ticket();
                open.flush(ticket, &world.shared).unwrap();
                world.progress(ticket, &mut open);
                body = open;
            }
        }
    }
}

fn bytes(text: &Text) -> Vec<u8> {
    match text.body() {
        delivery::Body::Memory(bytes) => bytes.to_vec(),
        delivery::Body::File(file, range) => {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start).unwrap();
            bytes
        }
    }
}

fn letters(count: usize) -> Vec<u8> {
    (0..count).map(|at| b'a' + (at / 7 % 26) as u8).collect()
}

#[test]
fn a_small_text_stays_in_memory_and_a_large_one_goes_to_a_file_without_a_name() {
    let mut world = World::new();
    for (size, in_file) in
        [(0, false), (10, false), (PIECE - 1, false), (PIECE, true), (PIECE + 1, true), (300_000, true)]
    {
        let text = letters(size);
        let body = world.body(&text);
        assert_eq!(body.bytes(), size as u64);
        let whole = whole(&mut world, body);
        assert_eq!(matches!(whole, Text::File(..)), in_file, "{size}");
        assert_eq!((whole.bytes(), bytes(&whole)), (size as u64, text));
        assert_eq!(world.shared.transit.held(), if in_file { 0 } else { size });
        assert_eq!(fs::read_dir(world.shared.settings.work_path.join("bodies")).unwrap().count(), 0);
        drop(whole);
        assert_eq!(world.shared.transit.held(), 0, "what it had is given back with it");
    }
}

#[test]
fn senders_that_say_little_and_fall_silent_hold_nobody_up() {
    let mut world = World::with(|settings| settings.body_memory = 512);
    let most = 512 * 1024;
    // As many as there may be, each of them in the midst of a message that does not go on.
    let mut silent: Vec<Body> = (0..200).map(|_| world.shared.transit.body()).collect();
    for body in &mut silent {
        world.give(body, &letters(5000));
    }
    assert!(world.shared.transit.budget.resting.room() < PIECE, "the test is to begin with nothing left");
    // Others are served as if they were not there, but through files.
    let text = letters(1 << 20);
    let mut bodies: Vec<Body> = (0..8).map(|_| world.shared.transit.body()).collect();
    for piece in text.chunks(INPUT_ROOM) {
        for body in &mut bodies {
            world.give(body, piece);
            assert!(world.shared.transit.held() <= most + PIECE, "{}", world.shared.transit.held());
        }
    }
    for body in bodies {
        let whole = whole(&mut world, body);
        assert!(bytes(&whole) == text);
    }
    drop(silent);
    assert_eq!(world.shared.transit.held(), 0);
}

#[test]
fn a_bound_that_is_full_of_writing_makes_senders_wait_and_calls_them_in_their_order() {
    let mut world = World::with(|settings| settings.body_memory = 512);
    let piece = letters(INPUT_ROOM);
    let mut bodies: Vec<Body> = (0..64).map(|_| world.shared.transit.body()).collect();
    let mut waiting = Vec::new();
    // Nobody collects what the jobs have done, so all that moves stays.
    for (at, body) in bodies.iter_mut().enumerate() {
        let ticket = world.ticket();
        match body.wait(ticket, &mut world.shared) {
            Flow::Hold => waiting.push((ticket, at)),
            Flow::More => {
                let _ = body.take(&piece, ticket, &mut world.shared);
            }
        }
    }
    assert!(!waiting.is_empty() && waiting.len() < 60, "{} wait, {} held", waiting.len(), world.shared.transit.held());
    assert!(world.shared.transit.held() <= 512 * 1024 + PIECE);
    assert!(world.shared.transit.deadline().is_none(), "nobody can go on");
    let mut called = Vec::new();
    while called.last() != waiting.last().map(|(ticket, _)| ticket) {
        world.settle();
        let got = std::mem::take(&mut world.got);
        assert!(!got.is_empty(), "{} of {} were called", called.len(), waiting.len());
        let room = got.into_iter().filter(|(_, outcome)| matches!(outcome, Outcome::Body(Progress::Room)));
        called.extend(room.map(|(ticket, _)| ticket));
    }
    assert!(called.is_sorted_by_key(|ticket| ticket.serial), "first come, first served");
    assert!(waiting.iter().all(|(ticket, _)| called.contains(ticket)));
}

#[test]
fn a_conversation_that_dies_while_a_piece_is_written_leaves_nothing() {
    let mut world = World::new();
    let mut body = world.shared.transit.body();
    let ticket = world.ticket();
    assert_eq!(body.take(&letters(PIECE), ticket, &mut world.shared), Flow::Hold);
    drop(body);
    assert!(world.shared.transit.held() > 0, "the job has it");
    world.settle();
    world.got.clear();
    assert_eq!(world.shared.transit.held(), 0);
}

#[test]
fn a_fault_is_kept_until_the_commit_and_answered_there() {
    let mut world = World::new();
    fs::remove_dir(world.shared.settings.work_path.join("bodies")).unwrap();
    let body = world.body(&letters(1 << 20));
    assert!(body.fault().is_some());
    assert_eq!(world.shared.transit.held(), 0, "nothing is kept of what nobody will have");
    let recipients = vec![world.to("bob", vec![world.mailbox("bob")])];
    let parcel = world.parcel_of(body, recipients);
    let Some(Dispatched::Refused(reply)) = world.sent(parcel) else { panic!() };
    assert_eq!(reply, reply::UNAVAILABLE);
    assert!(!world.drop_of("bob").exists());
    let full = Fault::new("writing", &PathBuf::new(), std::io::ErrorKind::StorageFull.into());
    assert_eq!(answer_to(&full), reply::NO_SPACE);
    assert_eq!(world.shared.transit.counts.refused, 1);
}

#[test]
fn what_a_killed_server_left_of_texts_goes_at_the_next_start() {
    let world = World::new();
    let stray = world.shared.settings.work_path.join("bodies/7");
    fs::write(&stray, "x").unwrap();
    let world = world.restart();
    assert!(!stray.exists());
    drop(world);
}
