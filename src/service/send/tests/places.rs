//! A place by itself.

use std::time::{Duration, Instant};

use crate::service::send::place::{
    CLEAR, CLOSED, CLOSED_MOST, FIRST, Place, REST, STRAINED, Step, Trouble, Turned, WAIT, WAITING,
};

type Here = Place<u32, &'static str>;

fn trouble(why: &str) -> Trouble {
    Trouble { why: why.to_owned(), never: false }
}

/// All that is to be done, as words; calls are made, with line numbers that go on.
fn steps(place: &mut Here, now: Instant, number: &mut u32) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(step) = place.step(now, |_| true) {
        match step {
            Step::Call(target) => {
                *number += 1;
                place.call(*number, target);
                done.push(format!("call {target}"));
            }
            Step::Ask => done.push("ask".to_owned()),
            Step::Wake(line) => done.push(format!("wake {line}")),
            Step::Lost(items, Trouble { why, never }) => done.push(format!("lost {items:?} {why} {never}")),
            Step::Untried(items) => done.push(format!("untried {items:?}")),
        }
    }
    done
}

fn known(most: u16, targets: &[&'static str], now: Instant) -> Here {
    let mut place = Here::new(most);
    place.offer(now, 0).unwrap();
    assert_eq!(place.step(now, |_| true), Some(Step::Ask));
    assert_eq!(place.step(now, |_| true), None, "it is asked once");
    assert_eq!(place.answered(now, Ok((targets.to_vec(), now + 1000 * REST))), None);
    place
}

#[test]
fn connections_are_made_for_those_who_wait_and_no_more_than_the_bound_allows() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = known(4, &["a"], now);
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"], "one waits");
    (1..10).for_each(|item| place.offer(now, item).unwrap());
    assert_eq!(
        (steps(&mut place, now, &mut number).len(), place.lines()),
        (usize::from(FIRST) - 1, usize::from(FIRST))
    );
    place.stands(1);
    assert_eq!(place.take(1), Some(0));
    assert_eq!(place.take(1), None, "it has one");
    place.good(now);
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"], "it may have one more");
    (0..10).for_each(|_| place.good(now));
    assert_eq!((steps(&mut place, now, &mut number).len(), place.bound()), (1, 4));
    place.settled(1, true);
    assert_eq!((place.take(1), steps(&mut place, now, &mut number).len()), (None, 0), "it is not noted");
    assert!(place.noted(1));
    assert_eq!(steps(&mut place, now, &mut number), ["wake 1"]);
    assert_eq!(place.take(1), Some(1));
}

#[test]
fn the_bound_halves_when_the_place_has_enough_and_grows_again_after_a_while() {
    let now = Instant::now();
    let mut place = known(16, &["a"], now);
    (0..20).for_each(|_| place.good(now));
    assert_eq!(place.bound(), 16);
    place.strain(now);
    place.strain(now);
    assert_eq!(place.bound(), 8, "what is said at once is said once");
    place.good(now);
    assert_eq!(place.bound(), 8);
    place.strain(now + STRAINED);
    assert_eq!(place.bound(), 4);
    for _ in 0..10 {
        let later = now + 10 * STRAINED;
        place.strain(later + 2 * STRAINED * u32::from(place.bound()));
    }
    assert!(place.bound() >= 1);
    place.good(now + 1000 * STRAINED);
    assert!(place.bound() >= 2);
}

#[test]
fn targets_are_tried_in_their_order_and_then_the_place_closes_longer_each_time() {
    let mut now = Instant::now();
    let mut number = 0;
    let mut place = known(4, &["a", "b"], now);
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"]);
    place.ended(now, 1, Some(trouble("4.4.1 a")));
    assert_eq!(steps(&mut place, now, &mut number), ["call 1"]);
    place.ended(now, 2, Some(trouble("4.4.1 b")));
    assert_eq!(steps(&mut place, now, &mut number), ["lost [0] 4.4.1 b false"]);
    assert_eq!(place.offer(now, 1), Err((1, Turned::Closed("4.4.1 b".to_owned()))));
    let mut pause = CLOSED;
    for _ in 0..6 {
        assert_eq!(place.closed(now).map(|(until, _)| until), Some(now + pause));
        now += pause;
        place.offer(now, 2).unwrap();
        assert_eq!(steps(&mut place, now, &mut number), ["ask"]);
        let Some(Step::Lost(lost, _)) = place.answered(now, Err(trouble("4.4.3 c"))) else { panic!("it is closed") };
        assert_eq!(lost, [2]);
        pause = (pause * 2).min(CLOSED_MOST);
    }
    assert_eq!(pause, CLOSED_MOST);
    place.reopen();
    assert!(place.offer(now, 3).is_ok());
}

#[test]
fn a_target_that_was_left_is_tried_again_when_it_has_rested() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = known(4, &["a", "b"], now);
    steps(&mut place, now, &mut number);
    place.ended(now, 1, Some(trouble("4.4.1 a")));
    assert_eq!(steps(&mut place, now, &mut number), ["call 1"]);
    place.stands(2);
    assert_eq!(place.take(2), Some(0));
    let later = now + REST;
    place.offer(later, 1).unwrap();
    assert_eq!(steps(&mut place, later, &mut number), ["call 0"]);
}

#[test]
fn who_has_waited_for_long_goes_untried_and_there_are_never_too_many() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = known(1, &["a"], now);
    steps(&mut place, now, &mut number);
    for item in 1..WAITING as u32 {
        place.offer(now, item).unwrap();
    }
    assert_eq!(place.offer(now, 999), Err((999, Turned::Full)));
    assert_eq!(place.deadline(), Some(now + WAIT));
    assert_eq!(steps(&mut place, now + WAIT, &mut number).len(), 1);
    assert_eq!(place.waiting(), 1, "for one a connection is being made");
}

#[test]
fn what_is_known_of_a_target_outlives_another_look_at_names() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = Here::new(4);
    place.offer(now, 0).unwrap();
    assert_eq!(place.step(now, |_| true), Some(Step::Ask));
    place.answered(now, Ok((vec!["a", "b"], now + WAIT / 2)));
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"]);
    place.speak_clear(now, 1);
    place.ended(now, 1, Some(trouble("4.4.1 a")));
    place.offer(now, 1).unwrap();
    let later = now + WAIT / 2;
    assert_eq!(steps(&mut place, later, &mut number), ["ask"]);
    place.answered(later, Ok((vec!["c", "a"], later + WAIT)));
    assert_eq!(place.aim(1).map(|aim| aim.is_clear(now)), Some(true));
    assert_eq!(
        place.aim(1).map(|aim| aim.is_clear(now + CLEAR)),
        Some(false),
        "a handshake that failed once is no reason for ever"
    );
    assert_eq!(steps(&mut place, later, &mut number), ["call 0", "call 0"]);
}

#[test]
fn a_refusal_beside_connections_that_stand_makes_the_bound_smaller_and_no_target_bad() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = known(8, &["a"], now);
    (0..8).for_each(|_| place.good(now));
    place.offer(now, 1).unwrap();
    assert_eq!(steps(&mut place, now, &mut number), ["call 0", "call 0"]);
    place.stands(1);
    assert_eq!(place.take(1), Some(0));
    place.ended(now, 2, Some(trouble("4.3.2 too many")));
    assert_eq!(place.bound(), 4);
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"]);
    assert!(place.closed(now + Duration::from_secs(1)).is_none());
}

#[test]
fn what_never_will_be_better_is_said_and_not_remembered() {
    let now = Instant::now();
    let mut number = 0;
    let mut place = known(8, &["a"], now);
    steps(&mut place, now, &mut number);
    place.ended(now, 1, Some(Trouble { why: "5.3.2 no mail".to_owned(), never: true }));
    assert_eq!(steps(&mut place, now, &mut number), ["lost [0] 5.3.2 no mail true"]);
    place.offer(now, 1).unwrap();
    assert_eq!(steps(&mut place, now, &mut number), ["call 0"]);
}
