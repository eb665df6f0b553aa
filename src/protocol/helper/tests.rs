//! The pool by hand, with a clock of our own: every ticket is answered exactly once, by its deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn check(user: &str, password: &str) -> Question {
    Question::Check { user: user.into(), password: Secret::from(password.as_bytes()), from: FROM }
}

fn accepted(user: &str, path: Option<&str>, uid: Option<&str>, info: &str) -> Verdict {
    Verdict::Accepted(Account {
        user: user.into(),
        path: path.map(|path| path.into()),
        uid: uid.map(|uid| uid.into()),
        info: info.into(),
    })
}

/// A pool, its clock, and what it wants done.
struct Bench {
    pool: Pool<u32>,
    now: Instant,
    acts: Vec<Act<u32>>,
}

impl Bench {
    fn new(copies: usize) -> Bench {
        let mut bench =
            Bench { pool: Pool::new(Rules { copies, timeout: TIMEOUT }), now: Instant::now(), acts: Vec::new() };
        bench.poll();
        bench
    }

    /// A pool whose copies run and speak version 1.
    fn ready(copies: usize) -> Bench {
        let mut bench = Bench::new(copies);
        assert_eq!(bench.take(), [Act::Spawn(0)]);
        bench.spawned(0);
        assert_eq!(bench.take(), [write(0, "version\n")]);
        bench.said(0, "-ERR unknown command\n");
        assert!(bench.take_one(&Act::Kill(0)));
        bench.ended(0);
        for copy in 0..copies {
            assert!(bench.take_one(&Act::Spawn(copy)), "copy {copy} is started");
            bench.spawned(copy);
        }
        bench.acts.clear();
        bench
    }

    fn poll(&mut self) {
        while let Some(act) = self.pool.poll(self.now) {
            self.acts.push(act);
        }
    }

    fn take(&mut self) -> Vec<Act<u32>> {
        std::mem::take(&mut self.acts)
    }

    fn take_one(&mut self, act: &Act<u32>) -> bool {
        let found = self.acts.iter().position(|other| other == act);
        found.map(|at| self.acts.remove(at)).is_some()
    }

    fn submit(&mut self, ticket: u32, question: Question) {
        self.pool.submit(self.now, ticket, question);
        self.poll();
    }

    fn spawned(&mut self, copy: usize) {
        self.pool.spawned(self.now, copy);
        self.poll();
    }

    fn said(&mut self, copy: usize, text: &str) {
        self.pool.output(self.now, copy, text.as_bytes());
        self.poll();
    }

    fn ended(&mut self, copy: usize) {
        self.pool.ended(self.now, copy);
        self.poll();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pool.expire(self.now);
        self.poll();
    }

    /// The verdicts among the acts; the rest is forgotten.
    fn verdicts(&mut self) -> Vec<(u32, Verdict)> {
        let done = self.take().into_iter();
        done.filter_map(|act| if let Act::Done(ticket, verdict) = act { Some((ticket, verdict)) } else { None })
            .collect()
    }
}

fn write(copy: usize, line: &str) -> Act<u32> {
    Act::Write(copy, Secret::from(line.as_bytes()))
}

#[test]
fn the_manuals_own_lines_go_out_and_come_back() {
    let mut bench = Bench::ready(1);
    for (answer, verdict) in [
        ("+OK fred config 0", accepted("fred", None, None, "")),
        ("+OK fred /mail/f/fred", accepted("fred", Some("/mail/f/fred"), None, "")),
        ("+OK fred /mail/f/fred 1001", accepted("fred", Some("/mail/f/fred"), Some("1001"), "")),
        ("+OK fred config fred fred@far.example", accepted("fred", None, Some("fred"), "fred@far.example")),
        ("+OK FRED CONFIG 0 fwd=\"a@b\" quota=\"100k\"\r", accepted("FRED", None, None, "fwd=\"a@b\" quota=\"100k\"")),
        ("+OK fred@example.test config", accepted("fred@example.test", None, None, "")),
        ("-ERR no such user, or so", Verdict::Refused),
        ("-ERR", Verdict::Refused),
        ("-DEAD the database is down", Verdict::Unavailable),
    ] {
        bench.submit(7, check("fred", "pa$$\\w\"rd"));
        assert_eq!(bench.take(), [write(0, "check fred pa$$\\w\"rd 127.0.0.1\n")]);
        bench.said(0, &format!("{answer}\n"));
        assert_eq!(bench.verdicts(), [(7, verdict)], "{answer}");
    }
    bench.submit(8, Question::Lookup { user: b"fred".into() });
    assert_eq!(bench.take(), [write(0, "lookup fred\n")]);
}

#[test]
fn what_cannot_be_one_word_is_refused_before_the_pipe() {
    let mut bench = Bench::ready(1);
    let long = "x".repeat(5000);
    for (user, password) in [
        ("fred", ""),
        ("", "x"),
        ("fred", "two words"),
        ("fred", "tab\t"),
        ("fred", "line\nlookup root"),
        ("fred", "cr\r"),
        ("fred", "nul\0"),
        ("fr ed", "x"),
        ("fred\nexit", "x"),
        ("fred", "\x7f"),
        ("fred", &long),
    ] {
        bench.submit(1, check(user, password));
        assert_eq!(bench.take(), [Act::Done(1, Verdict::Refused)], "{user:?} {password:?}");
    }
    bench.submit(2, check("zo\u{eb}", "\u{fc}ber"));
    assert_eq!(bench.take(), [write(0, "check zo\u{eb} \u{fc}ber 127.0.0.1\n")]);
}

#[test]
fn version_two_carries_anything() {
    let mut bench = Bench::new(2);
    bench.take();
    bench.spawned(0);
    bench.take();
    bench.said(0, "+OK version 2 nwauth 0.1\n");
    assert_eq!(bench.take(), [Act::Spawn(1)]);
    bench.submit(1, check("fred", "two words\n%"));
    assert_eq!(bench.take(), [write(0, "check fred two%20words%0A%25 127.0.0.1\n")]);
    bench.said(0, "+OK fred /mail/two%20words/fred 0\n");
    assert_eq!(bench.verdicts(), [(1, accepted("fred", Some("/mail/two words/fred"), None, ""))]);
    // Each copy is asked, and one that does not know any more is not asked anything else.
    bench.spawned(1);
    assert_eq!(bench.take(), [write(1, "version\n")]);
    bench.said(1, "-ERR what?\n");
    assert!(bench.take().contains(&Act::Kill(1)));
    // Nothing that would break a path or a log gets through unescaping.
    bench.submit(2, check("fred", "x"));
    bench.said(0, "+OK fred /mail/a%0Ab 0\n");
    assert!(bench.take().contains(&Act::Kill(0)));
}

const NOBODY: &str =
    "scram=4096,AAAA,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn scram(user: &str) -> Question {
    Question::Scram { user: user.into(), from: FROM }
}

fn apop(user: &str) -> Question {
    Question::Apop { user: user.into(), stamp: "<1.2@x>".into(), digest: Secret::from(&b"00ff"[..]), from: FROM }
}

/// A pool whose one copy greets so.
fn greeted(greeting: &str) -> Bench {
    let mut bench = Bench::new(1);
    bench.take();
    bench.spawned(0);
    bench.take();
    bench.said(0, &format!("{greeting}\n"));
    bench.take();
    bench
}

#[test]
fn abilities_are_the_words_after_version_two() {
    let all = Abilities { scram: true, apop: true };
    for (greeting, abilities) in [
        ("+OK version 2", Abilities::default()),
        ("+OK version 2 nwauth 0.1.0", Abilities::default()),
        ("+OK version 2 scram", Abilities { apop: false, ..all }),
        ("+OK version 2 apop", Abilities { scram: false, ..all }),
        ("version 2 apop later scram 1.0\r", all),
        ("+OK version 2 SCRAM scrammed scram=1", Abilities::default()),
    ] {
        let bench = greeted(greeting);
        assert_eq!((bench.pool.version, bench.pool.abilities()), (Version::Two, abilities), "{greeting}");
    }
    for greeting in ["+OK version 20 scram", "+OK version 1 scram", "+OK scram apop", "version", "-ERR version 2 scram"]
    {
        let bench = greeted(greeting);
        assert_eq!((bench.pool.version, bench.pool.abilities()), (Version::One, Abilities::default()), "{greeting}");
    }
    assert_eq!(Bench::new(1).pool.abilities(), Abilities::default(), "nobody has said anything yet");
    assert_eq!(Bench::ready(1).pool.abilities(), Abilities::default());
}

#[test]
fn who_does_not_have_an_ability_is_not_asked() {
    let mut bench = Bench::ready(1);
    bench.submit(1, scram("fred"));
    bench.submit(2, apop("fred"));
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable), (2, Verdict::Unavailable)]);
    let mut bench = greeted("+OK version 2 scram");
    bench.submit(1, apop("fred"));
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
    bench.submit(2, scram("two words"));
    assert_eq!(bench.take(), [write(0, "scram two%20words 127.0.0.1\n")]);
}

#[test]
fn a_digest_is_judged_by_the_helper_and_a_verifier_is_handed_on() {
    let mut bench = greeted("+OK version 2 scram apop");
    for (answer, verdict) in [
        ("+OK fr%25d /m/fred 7 fwd=\"a\"", accepted("fr%d", Some("/m/fred"), Some("7"), "fwd=\"a\"")),
        ("-ERR no", Verdict::Refused),
        ("-DEAD no", Verdict::Unavailable),
    ] {
        bench.submit(1, apop("fr%d"));
        assert_eq!(bench.take(), [write(0, "apop fr%25d <1.2@x> 00ff 127.0.0.1\n")]);
        bench.said(0, &format!("{answer}\n"));
        assert_eq!(bench.verdicts(), [(1, verdict)]);
    }
    let verifier = Verifier::parse(NOBODY.strip_prefix("scram=").unwrap().as_bytes()).unwrap();
    for (answer, verdict) in [
        (format!("+OK fred config 0 {NOBODY}"), accepted("fred", None, None, "")),
        (format!("+OK FRED /m/fred 7 {NOBODY} a=\"b\" c"), accepted("FRED", Some("/m/fred"), Some("7"), "a=\"b\" c")),
        ("-ERR no".into(), Verdict::Refused),
        ("-DEAD no".into(), Verdict::Unavailable),
    ] {
        bench.submit(2, scram("fred"));
        bench.take();
        bench.said(0, &format!("{answer}\n"));
        let expected = match verdict {
            Verdict::Accepted(account) => Verdict::Verifier(account, Box::new(verifier.clone())),
            other => other,
        };
        assert_eq!(bench.verdicts(), [(2, expected)], "{answer}");
    }
}

#[test]
fn an_answer_without_a_verifier_is_garbage_and_silence_is_none() {
    for answer in [
        "+OK fred config 0",
        "+OK fred config scram=x",
        &format!("+OK bob config 0 {NOBODY}"),
        &format!("+OK fred config {NOBODY}"),
        &format!("+OK fred config 0 {}", NOBODY.replace("4096", "1")),
        &format!("+OK fred config 0 {}", NOBODY.to_uppercase()),
        &format!("+OK fred config 0 {NOBODY}%zz"),
    ] {
        let mut bench = greeted("+OK version 2 scram");
        bench.submit(1, scram("fred"));
        bench.take();
        bench.said(0, &format!("{answer}\n"));
        assert!(bench.take_one(&Act::Kill(0)), "{answer}");
    }
    let mut bench = greeted("+OK version 2 scram");
    bench.submit(1, scram("fred"));
    bench.take();
    bench.pass(TIMEOUT);
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
}

#[test]
fn a_copy_that_can_less_than_the_last_one_counts() {
    let mut bench = greeted("+OK version 2 scram apop");
    bench.ended(0);
    bench.pass(BACK_OFF.0);
    bench.take();
    bench.spawned(0);
    bench.submit(1, scram("fred"));
    bench.said(0, "+OK version 2\n");
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
    assert_eq!(bench.pool.abilities(), Abilities::default());
}

#[test]
fn a_helper_that_knows_no_version_or_says_nothing_starts_clean() {
    for silent in [false, true] {
        let mut bench = Bench::new(1);
        bench.take();
        bench.spawned(0);
        bench.take();
        bench.submit(1, check("fred", "x"));
        assert_eq!(bench.take(), [], "nobody is asked while it is not known how");
        if silent {
            bench.pass(VERSION_PATIENCE);
        } else {
            bench.said(0, "+OK fred config 0\n");
        }
        assert_eq!(bench.take(), [Act::Kill(0)]);
        bench.ended(0);
        assert_eq!(bench.take(), [Act::Spawn(0)], "at once: it did nothing wrong");
        bench.spawned(0);
        assert_eq!(bench.take(), [write(0, "check fred x 127.0.0.1\n")]);
    }
}

#[test]
fn garbage_is_no_verdict_and_its_speaker_is_killed() {
    let huge = "x".repeat(5000);
    for answer in [
        "hello",
        "",
        "+OK",
        "+OK fred",
        "+OKfred config",
        "+OK bob config 0",
        "+OK bob@example.test config 0",
        "+DATA fred",
        "ok fred config",
        "+OK fred /mail/a\tb 0",
        &huge,
    ] {
        let mut bench = Bench::ready(2);
        bench.submit(1, check("fred", "x"));
        assert_eq!(bench.take(), [write(0, "check fred x 127.0.0.1\n")]);
        bench.said(0, &format!("{answer}\n"));
        assert!(bench.take_one(&Act::Kill(0)), "{answer:.20}");
        assert!(bench.take_one(&write(1, "check fred x 127.0.0.1\n")), "{answer:.20} is tried elsewhere");
        bench.said(1, &format!("{answer}\n"));
        assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)], "{answer:.20}: twice is enough");
    }
}

#[test]
fn a_late_answer_never_reaches_the_next_request() {
    let mut bench = Bench::ready(1);
    bench.submit(1, check("ann", "x"));
    bench.take();
    bench.pass(TIMEOUT);
    assert!(bench.take_one(&Act::Kill(0)));
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
    bench.submit(2, check("bob", "y"));
    bench.said(0, "+OK ann config 0\n");
    assert_eq!(bench.verdicts(), [], "what a dying copy says is not heard");
    bench.ended(0);
    bench.pass(BACK_OFF.0);
    assert!(bench.take_one(&Act::Spawn(0)));
    bench.said(0, "+OK ann config 0\n");
    bench.spawned(0);
    assert_eq!(bench.take(), [write(0, "check bob y 127.0.0.1\n")]);
    bench.said(0, "+OK bob config 0\n");
    assert_eq!(bench.verdicts(), [(2, accepted("bob", None, None, ""))]);
}

#[test]
fn who_speaks_unasked_or_twice_is_killed() {
    let mut bench = Bench::ready(1);
    bench.submit(1, check("ann", "x"));
    bench.said(0, "-ERR no\n+OK bob config 0\n");
    let acts = bench.take();
    assert!(acts.contains(&Act::Done(1, Verdict::Refused)) && acts.contains(&Act::Kill(0)), "{acts:?}");
}

#[test]
fn a_death_is_tried_once_more_and_backed_off() {
    let mut bench = Bench::ready(2);
    bench.submit(1, check("ann", "x"));
    bench.take();
    bench.ended(0);
    assert!(bench.take_one(&write(1, "check ann x 127.0.0.1\n")));
    bench.said(1, "-ERR no\n");
    assert_eq!(bench.verdicts(), [(1, Verdict::Refused)]);
    // A copy that dies again and again is started less and less often.
    let mut starts = 0;
    let begun = bench.now;
    while bench.now < begun + Duration::from_secs(300) {
        if bench.take_one(&Act::Spawn(0)) {
            starts += 1;
            bench.ended(0);
        }
        bench.pass(Duration::from_millis(50));
        bench.acts.retain(|act| *act == Act::Spawn(0));
    }
    assert!((10..25).contains(&starts), "{starts} starts in five minutes");
}

#[test]
fn when_all_are_held_back_the_answer_comes_at_once() {
    let mut bench = Bench::ready(1);
    for _ in 0..4 {
        bench.ended(0);
        bench.pass(BACK_OFF.1);
        bench.take();
        bench.spawned(0);
    }
    bench.ended(0);
    bench.take();
    bench.submit(1, check("ann", "x"));
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
    bench.pass(BACK_OFF.1);
    bench.take();
    bench.spawned(0);
    bench.submit(2, check("ann", "x"));
    bench.said(0, "-ERR no\n");
    assert_eq!(bench.verdicts(), [(2, Verdict::Refused)], "and by itself it is well again");
}

#[test]
fn a_full_queue_answers_at_once() {
    let mut bench = Bench::ready(1);
    for ticket in 0..=QUEUE_LIMIT as u32 {
        bench.submit(ticket, check("ann", "x"));
    }
    bench.take();
    bench.submit(99_999, check("ann", "x"));
    assert_eq!(bench.verdicts(), [(99_999, Verdict::Unavailable)]);
}

#[test]
fn a_program_that_cannot_be_started_is_known_to_be_held_back_however_many_copies_there_are() {
    let mut bench = Bench::new(4);
    for _ in 0..3 {
        assert!(bench.take_one(&Act::Spawn(0)));
        bench.ended(0);
        if bench.acts.is_empty() || !bench.acts.contains(&Act::Spawn(0)) {
            bench.acts.clear();
            bench.pass(BACK_OFF.0 * 2);
        }
    }
    bench.acts.clear();
    bench.pool.copies[0].state = State::Down { until: Some(bench.now + BACK_OFF.1) };
    bench.submit(1, check("fred", "x"));
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
}

#[test]
fn one_burst_of_garbage_is_one_failure() {
    let mut bench = Bench::ready(1);
    bench.submit(1, check("fred", "x"));
    bench.acts.clear();
    bench.said(0, &"x".repeat(60_000));
    bench.said(0, "and\nmore\n");
    assert_eq!(bench.pool.copies[0].failures, 1);
    assert_eq!(bench.take().iter().filter(|act| matches!(act, Act::Kill(0))).count(), 1);
}

#[test]
fn a_retired_pool_finishes_what_it_asked_and_who_does_not_exit_is_killed() {
    let mut bench = Bench::ready(2);
    bench.submit(1, check("fred", "x"));
    bench.acts.clear();
    bench.pool.retire(bench.now);
    bench.poll();
    assert_eq!(bench.take(), [write(1, "exit\n")]);
    bench.said(0, "+OK fred config\n");
    assert_eq!(bench.take(), [Act::Done(1, accepted("fred", None, None, "")), write(0, "exit\n")]);
    assert_eq!(bench.pool.deadline(), Some(bench.now + EXIT_PATIENCE));
    bench.ended(0);
    bench.pass(EXIT_PATIENCE);
    assert_eq!(bench.take(), [Act::Kill(1)]);
    assert!(!bench.pool.is_down());
    bench.ended(1);
    assert!(bench.pool.is_down());
}

#[test]
fn a_retired_copy_that_dies_busy_still_has_its_request_answered() {
    let mut bench = Bench::ready(1);
    bench.submit(1, check("fred", "x"));
    bench.acts.clear();
    bench.pool.retire(bench.now);
    bench.ended(0);
    assert_eq!(bench.verdicts(), [(1, Verdict::Unavailable)]);
}

#[test]
fn stopping_answers_everybody() {
    let mut bench = Bench::ready(2);
    for ticket in 0..5 {
        bench.submit(ticket, check("ann", "x"));
    }
    bench.take();
    bench.pool.stop(bench.now);
    bench.poll();
    let acts = bench.take();
    assert_eq!(acts.iter().filter(|act| matches!(act, Act::Done(_, Verdict::Unavailable))).count(), 5);
    bench.submit(6, check("ann", "x"));
    assert_eq!(bench.verdicts(), [(6, Verdict::Unavailable)]);
    bench.ended(0);
    bench.ended(1);
    assert!(bench.pool.is_down() && bench.take().is_empty());
}

/// Copies that answer, dawdle, die, babble and hang as a seed has it.
#[test]
fn in_any_weather_every_ticket_is_answered_once_by_its_deadline_and_with_its_own_answer() {
    for seed in 1..=60u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        let mut bench = Bench::new(1 + (seed % 4) as usize);
        // What each living copy was asked and has not answered.
        let mut asked: BTreeMap<usize, Option<String>> = BTreeMap::new();
        let mut waiting: BTreeMap<u32, Instant> = BTreeMap::new();
        let mut answered = BTreeSet::new();
        for round in 0..3000u32 {
            for act in bench.take() {
                match act {
                    Act::Spawn(copy) if next(10) == 0 => bench.pool.ended(bench.now, copy),
                    Act::Spawn(copy) => {
                        asked.insert(copy, None);
                        bench.pool.spawned(bench.now, copy);
                    }
                    Act::Write(copy, line) => {
                        let text = String::from_utf8(line.reveal().to_vec()).unwrap();
                        let before = asked.insert(copy, Some(text));
                        assert_eq!(before, Some(None), "seed {seed}: asked while it was busy, or dead");
                    }
                    Act::Kill(copy) => {
                        if next(2) == 0 {
                            bench.pool.output(bench.now, copy, b"+OK u0 config 0\n");
                        }
                        asked.remove(&copy);
                        bench.pool.ended(bench.now, copy);
                    }
                    Act::Done(ticket, verdict) => {
                        let until = waiting.remove(&ticket);
                        assert!(until.is_some_and(|until| bench.now <= until), "seed {seed}: {ticket} late or twice");
                        if let Verdict::Accepted(account) = verdict {
                            assert_eq!(account.user, format!("u{ticket}").into_bytes(), "seed {seed}");
                        }
                        answered.insert(ticket);
                    }
                    Act::Note(_) => {}
                }
            }
            if round < 2000 && next(3) == 0 {
                bench.pool.submit(bench.now, round, check(&format!("u{round}"), "x"));
                // A step of the clock may be 700 ms long.
                waiting.insert(round, bench.now + 2 * TIMEOUT + Duration::from_millis(700));
            }
            let copies: Vec<usize> = asked.keys().copied().collect();
            for copy in copies {
                let Some(Some(question)) = asked.get(&copy).cloned() else { continue };
                let user = question.split(' ').nth(1).unwrap_or("").trim().to_owned();
                match next(40) {
                    0..=14 => {
                        asked.insert(copy, None);
                        bench.pool.output(bench.now, copy, format!("+OK {user} config 0\n").as_bytes());
                    }
                    15..=17 => {
                        asked.insert(copy, None);
                        bench.pool.output(bench.now, copy, b"-ERR no\n");
                    }
                    18 => {
                        asked.remove(&copy);
                        bench.pool.ended(bench.now, copy);
                    }
                    19 => bench.pool.output(bench.now, copy, b"gibberish\n"),
                    _ => {}
                }
            }
            bench.pass(Duration::from_millis(next(700)));
        }
        for _ in 0..100 {
            bench.pass(Duration::from_secs(1));
            for act in bench.take() {
                match act {
                    Act::Done(ticket, _) => assert!(waiting.remove(&ticket).is_some(), "seed {seed}: {ticket} twice"),
                    Act::Kill(copy) => bench.pool.ended(bench.now, copy),
                    Act::Spawn(copy) => bench.pool.spawned(bench.now, copy),
                    _ => {}
                }
            }
        }
        assert!(waiting.is_empty(), "seed {seed}: never answered: {waiting:?}");
        assert!(answered.len() > 300, "seed {seed}: only {} answers", answered.len());
    }
}
