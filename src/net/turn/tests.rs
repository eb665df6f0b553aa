//! The loop's promises: nobody is forgotten, nobody is mistaken for another, a panic stays where it is.

use std::io::{Read, Write};

use mio::net::UnixStream;

use super::*;
use crate::net::watch;

/// An entry over one end of a socket pair that does as its script says.
struct Toy {
    end: UnixStream,
    marks: usize,
    deadline: Option<Instant>,
    expired: usize,
    script: fn(&mut Toy, &mut Vec<u32>) -> Turn,
    number: u32,
}

impl Entry for Toy {
    type Shared = Vec<u32>;

    fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
        watch(registry, &mut self.end, token(0))
    }

    fn deregister(&mut self, registry: &Registry) {
        registry.deregister(&mut self.end).unwrap();
    }

    fn mark(&mut self, lane: usize, ready: Readiness) {
        assert_eq!(lane, 0);
        self.marks += usize::from(ready.read);
    }

    fn turn(&mut self, _id: Id, _now: Instant, shared: &mut Vec<u32>, _scratch: &mut Scratch) -> Turn {
        (self.script)(self, shared)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self, _now: Instant) {
        self.expired += 1;
        self.deadline = None;
    }

    fn kind(&self) -> &'static str {
        "toy"
    }
}

fn toy(number: u32, script: fn(&mut Toy, &mut Vec<u32>) -> Turn) -> (Toy, UnixStream) {
    let (end, far) = UnixStream::pair().unwrap();
    (Toy { end, marks: 0, deadline: None, expired: 0, script, number }, far)
}

fn note(toy: &mut Toy, shared: &mut Vec<u32>) -> Turn {
    shared.push(toy.number);
    Turn::Idle
}

#[test]
fn each_runs_once_a_turn_and_who_has_more_goes_to_the_back() {
    let mut lp = Loop::new().unwrap();
    let mut fars = Vec::new();
    for number in 0..3 {
        let (toy, far) = toy(number, |toy, shared| {
            shared.push(toy.number);
            if toy.number == 1 { Turn::Again } else { Turn::Idle }
        });
        let id = lp.insert(toy).unwrap();
        lp.wake(id);
        lp.wake(id);
        fars.push(far);
    }
    let mut order = Vec::new();
    lp.run(&mut order);
    assert_eq!(order, [0, 1, 2]);
    lp.run(&mut order);
    assert_eq!(order, [0, 1, 2, 1]);
}

#[test]
fn an_event_wakes_its_entry_and_no_later_one_in_the_same_slot() {
    let mut lp = Loop::new().unwrap();
    let (first, mut far) = toy(1, note);
    let old = lp.insert(first).unwrap();
    lp.run(&mut Vec::new());
    lp.poll(Some(lp.now())).unwrap();
    lp.run(&mut Vec::new());
    far.write_all(b"x").unwrap();
    lp.poll(None).unwrap();
    let mut order = Vec::new();
    lp.run(&mut order);
    assert_eq!(order, [1]);
    assert!(lp.get_mut(old).unwrap().marks > 0);

    lp.close(old);
    assert_eq!(lp.sweep().unwrap().0, old);
    assert!(lp.get_mut(old).is_none());
    let (second, _far) = toy(2, note);
    let new = lp.insert(second).unwrap();
    assert_eq!((new.slot, new.birth == old.birth), (old.slot, false), "the slot is used again, the birth is not");
    // What was meant for the one that is gone finds nobody.
    lp.wake(old);
    lp.close(old);
    assert!(lp.sweep().is_none(), "a stale close closes nobody");
    assert!(lp.get_mut(old).is_none() && lp.get_mut(new).is_some());
}

#[test]
fn connections_that_came_and_went_leave_nothing_in_the_heap_of_deadlines() {
    let mut lp = Loop::new().unwrap();
    for _ in 0..1000 {
        let (mut toy, _far) = toy(0, |_, _| Turn::Idle);
        toy.deadline = Some(lp.now() + Duration::from_secs(180));
        let id = lp.insert(toy).unwrap();
        lp.run(&mut Vec::new());
        lp.close(id);
        assert!(lp.sweep().is_some());
    }
    assert!(lp.deadlines.len() <= 64 + 4, "{} deadlines for nobody", lp.deadlines.len());
}

#[test]
fn what_is_due_now_is_not_waited_for() {
    let mut lp = Loop::<Toy>::new().unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        lp.poll(Some(lp.now())).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
}

#[test]
fn tokens_carry_slot_birth_and_lane() {
    for id in [Id { slot: 0, birth: 1 }, Id { slot: u32::MAX, birth: (1 << 30) - 2 }, Id { slot: 77, birth: 12345 }] {
        for lane in 0..LANES {
            assert_eq!(Id::of(id.token(lane)), (id, lane));
            assert_ne!(id.token(lane), Token(usize::MAX), "that one is the waker's");
        }
    }
}

#[test]
fn a_deadline_that_was_moved_is_asked_for_and_one_that_is_due_expires_once() {
    let mut lp = Loop::new().unwrap();
    let (mut entry, _far) = toy(1, note);
    let soon = lp.now();
    entry.deadline = Some(soon);
    let id = lp.insert(entry).unwrap();
    lp.run(&mut Vec::new());
    // Moved later by assignment: the heap still has the old one, and nothing happens when that is due.
    lp.get_mut(id).unwrap().deadline = Some(soon + Duration::from_secs(1000));
    lp.poll(Some(soon)).unwrap();
    assert_eq!(lp.get_mut(id).unwrap().expired, 0);
    lp.get_mut(id).unwrap().deadline = Some(soon);
    lp.wake(id);
    lp.run(&mut Vec::new());
    let mut order = Vec::new();
    for _ in 0..3 {
        lp.poll(Some(soon)).unwrap();
        lp.run(&mut order);
    }
    assert_eq!(lp.get_mut(id).unwrap().expired, 1);
    assert!(order.contains(&1), "who expired runs");
}

#[test]
fn a_panic_in_one_conversation_leaves_the_others_alone() {
    let mut lp = Loop::new().unwrap();
    let mut fars = Vec::new();
    for number in 0..5 {
        let (entry, far) = toy(number, |toy, shared| {
            shared.push(toy.number);
            assert_ne!(toy.number, 2, "this panic is meant");
            Turn::Idle
        });
        lp.insert(entry).unwrap();
        fars.push(far);
    }
    let mut order = Vec::new();
    lp.run(&mut order);
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert_eq!(lp.panics(), 1);
    assert_eq!(lp.sweep().unwrap().1.number, 2);
    assert!(lp.sweep().is_none());
    assert_eq!(lp.len(), 4);
    // Its socket is closed, and theirs are not.
    let mut byte = [0];
    assert_eq!(fars[2].read(&mut byte).unwrap(), 0);
    assert_eq!(fars[1].read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_panic_while_an_answer_is_delivered_ends_only_who_it_was_for() {
    let mut lp = Loop::new().unwrap();
    let (first, _far) = toy(1, note);
    let (second, _other) = toy(2, note);
    let (first, second) = (lp.insert(first).unwrap(), lp.insert(second).unwrap());
    assert_eq!(lp.guard(first, |toy| toy.number), Some(1));
    assert_eq!(lp.guard(first, |_| -> u32 { panic!("this panic is meant") }), None);
    assert_eq!((lp.sweep().unwrap().0, lp.panics()), (first, 1));
    assert_eq!(lp.guard(first, |toy| toy.number), None, "gone");
    assert_eq!(lp.guard(second, |toy| toy.number), Some(2));
}

#[test]
fn a_watchdog_can_tell_whose_turn_it_is() {
    let mut lp = Loop::new().unwrap();
    let (entry, _far) = toy(1, note);
    let id = lp.insert(entry).unwrap();
    assert_eq!(lp.watch().step().unwrap().1, None, "it waits for events before the first poll");
    lp.poll(None).unwrap();
    assert_eq!(lp.watch().step().unwrap().1.as_deref(), Some("events"));
    lp.run(&mut Vec::new());
    assert_eq!(lp.watch().step().unwrap().1, Some(format!("toy {id}")));
}

#[test]
fn what_the_loop_holds_grows_with_its_entries() {
    let mut lp = Loop::new().unwrap();
    let before = lp.holding();
    let mut fars = Vec::new();
    for number in 0..100 {
        let (mut entry, far) = toy(number, note);
        entry.deadline = Some(lp.now() + Duration::from_secs(600));
        lp.insert(entry).unwrap();
        fars.push(far);
    }
    lp.run(&mut Vec::new());
    let after = lp.holding();
    assert!(after.slots + after.tables >= before.slots + before.tables + 100 * after.entry);
    assert!(after.buffers > 64 * 1024);
}

#[test]
fn another_thread_ends_a_poll() {
    let mut lp: Loop<Toy> = Loop::new().unwrap();
    // A waker that is dropped takes its wake-up with it.
    let waker = std::sync::Arc::new(lp.waker().unwrap());
    let other = waker.clone();
    let thread = std::thread::spawn(move || other.wake().unwrap());
    lp.poll(None).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_burst_leaves_no_tables_behind() {
    let mut lp = Loop::new().unwrap();
    let mut fars = Vec::new();
    for number in 0..200 {
        let (mut entry, far) = toy(number, |_, _| Turn::Closed);
        entry.deadline = Some(lp.now() + Duration::from_secs(600));
        lp.insert(entry).unwrap();
        fars.push(far);
    }
    lp.run(&mut Vec::new());
    while lp.sweep().is_some() {}
    lp.trim();
    assert!(lp.is_empty() && lp.deadlines.is_empty());
    assert!(lp.slots.capacity() < 200 && lp.runnable.capacity() <= 128);
}
