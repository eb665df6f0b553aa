//! Lines, both ways; and what they come to, beside a reader that does it the plain way.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn record(second: u64, class: Class, bytes: u64, from: &str, to: &[&str]) -> Record {
    let to = to.iter().map(|name| (*name).to_owned()).collect();
    Record { second, class, id: "k3J9x0Qw2b".into(), bytes, from: from.into(), to }
}

fn written(record: &Record) -> String {
    let mut text = Vec::new();
    record.write(&mut text);
    String::from_utf8(text).unwrap()
}

const USUAL: Question = Question {
    by: By::User,
    role: Role::Sender,
    from: 0,
    to: u64::MAX,
    window: 60,
    key: Key { class: Class::Sent, bytes: false },
};

/// What all of `text` comes to, in two passes.
fn counted(text: &[u8], question: Question, most: usize) -> (Vec<(String, Sums)>, Sums) {
    let mut ranking = Ranking::new(question, 1);
    ranking.feed(text);
    let names = ranking.first(most);
    let mut traffic = Traffic::new(question, 2, &names);
    traffic.feed(text);
    let (named, total) = traffic.finish();
    (named.into_iter().map(|(name, sums)| (String::from_utf8(name).unwrap(), sums)).collect(), total)
}

#[test]
fn a_file_has_the_name_of_its_day() {
    assert_eq!((file_name(12, 31), file_name(1, 2)), ("dm3112.log".into(), "dm0201.log".into()));
}

#[test]
fn a_line_has_six_fields_whatever_the_names_hold() {
    let line = written(&record(9, Class::Sent, 5, "ann@a.test", &["bob@b.test", "a b,c@d"]));
    assert_eq!(line, "9 sent k3J9x0Qw2b 5 ann@a.test bob@b.test,a%20b%2Cc@d\n");
    assert_eq!(written(&record(9, Class::Failed, 5, "", &[])), "9 fail k3J9x0Qw2b 5 - -\n");
    let long = "\u{e4}".repeat(10_000);
    let line = written(&Record { id: long.clone(), ..record(9, Class::Received, 5, &long, &[&*long; 6]) });
    assert!(line.lines().count() > 1 && line.lines().all(|line| line.len() < LINE_BYTES), "{}", line.len());
}

#[test]
fn more_recipients_than_a_line_has_room_for_are_counted_all_and_the_message_once() {
    let names: Vec<String> = (0..1000).map(|n| format!("user{n}@somewhere.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = written(&record(9, Class::Sent, 5, "ann@a.test", &names));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 2 && lines.iter().all(|line| line.len() < LINE_BYTES));
    assert!(lines[0].starts_with("9 sent k") && lines[1..].iter().all(|line| line.starts_with("9 sent+ k")));
    let (by_sender, _) = counted(text.as_bytes(), USUAL, 10);
    assert_eq!((by_sender.len(), by_sender[0].1.classes[0].total), (1, Amount { messages: 1, bytes: 5 }));
    let receivers = Question { role: Role::Receiver, ..USUAL };
    let (by_receiver, total) = counted(text.as_bytes(), receivers, 5000);
    assert_eq!((by_receiver.len(), total.classes[0].total), (1000, Amount { messages: 1000, bytes: 5000 }));
    let copies = written(&record(9, Class::Received, 5, "ann@a.test", &names));
    assert_eq!(counted(copies.as_bytes(), USUAL, 1).1.classes[1].total.messages, 1000);
}

#[test]
fn nonsense_is_no_line() {
    for text in [
        "",
        " ",
        "9",
        "9 sent",
        "9 sent i",
        "9 sent i 5",
        "9 sent i 5 a",
        "9 sent i 5 a ",
        "9 sent i 5  b",
        "9 lost i 5 a b",
        "9 recv+ i 5 a b",
        "x sent i 5 a b",
        "9 sent i x a b",
        "9 sent i 5 a b c",
        "99999999999999999999 sent i 5 a b",
        " 9 sent i 5 a b",
    ] {
        assert_eq!(Line::read(text.as_bytes()), None, "{text:?}");
    }
    assert!(Line::read(b"9 sent i 5 a b\r").is_some() && Line::read(b"9 sent+ i 5 a b,c").is_some());
    let long = format!("9 sent i 5 a {}", "b".repeat(LINE_BYTES));
    assert_eq!(Line::read(long.as_bytes()), None);
}

#[test]
fn domains_and_users_senders_and_receivers_are_told_apart() {
    let text = b"10 sent i 100 Ann@A.test bob@b.test,eve@B.TEST\n10 recv i 100 ann@a.test bob@b.test\n\
                 11 delv i 100 ann@a.test eve@B.test\n70 sent j 7 - ann@a.test\n71 fail j 7 - ann@a.test\nnonsense\n";
    let ask = |by, role, class: &str| {
        let question = Question { by, role, key: Key::named(class).unwrap(), ..USUAL };
        let (named, _) = counted(text, question, 10);
        let line = |(name, sums): (String, Sums)| (name, sums.classes.map(|sum| sum.total.messages));
        named.into_iter().map(line).collect::<Vec<_>>()
    };
    let named = |name: &str, messages| (name.to_owned(), messages);
    assert_eq!(ask(By::User, Role::Sender, "sent"), [named("-", [1, 0, 0, 1]), named("ann@a.test", [1, 1, 1, 0])]);
    assert_eq!(ask(By::Domain, Role::Sender, "bsent"), [named("a.test", [1, 1, 1, 0]), named("-", [1, 0, 0, 1])]);
    assert_eq!(ask(By::Domain, Role::Receiver, "fail"), [named("a.test", [1, 0, 0, 1]), named("b.test", [2, 1, 1, 0])]);
    assert_eq!(
        ask(By::User, Role::Receiver, "delv"),
        [named("eve@b.test", [1, 0, 1, 0]), named("ann@a.test", [1, 0, 0, 1]), named("bob@b.test", [1, 1, 0, 0])]
    );
}

#[test]
fn peaks_are_of_windows_and_named_by_their_first_second() {
    let mut text = String::new();
    for (second, bytes) in [(59, 1000), (60, 1), (61, 1), (119, 1), (120, 500), (400, 1)] {
        text += &format!("{second} sent i {bytes} ann@a b@b\n");
    }
    let (named, total) = counted(text.as_bytes(), USUAL, 1);
    let sum = named[0].1.classes[0];
    assert_eq!((sum.messages, sum.bytes), (Peak { most: 3, from: 60 }, Peak { most: 1000, from: 0 }));
    assert_eq!(sum.total, Amount { messages: 6, bytes: 1504 });
    assert_eq!(total.classes[0], sum);
    assert_eq!(total.classes[3], Sum::default());
    // Without names the total is the same.
    assert_eq!(counted(text.as_bytes(), USUAL, 0).1.classes, total.classes);
    let part = Question { from: 60, to: 120, ..USUAL };
    assert_eq!(counted(text.as_bytes(), part, 1).1.classes[0].total.messages, 3);
}

#[test]
fn keys_are_named_as_in_the_manual() {
    for (name, class, bytes) in [
        ("recv", Class::Received, false),
        ("sent", Class::Sent, false),
        ("delv", Class::Transferred, false),
        ("fail", Class::Failed, false),
        ("brecv", Class::Received, true),
        ("bsent", Class::Sent, true),
        ("bdelv", Class::Transferred, true),
        ("bfail", Class::Failed, true),
    ] {
        assert_eq!(Key::named(name), Some(Key { class, bytes }));
    }
    assert!(["", "b", "bb", "lost", "bbsent"].iter().all(|name| Key::named(name).is_none()));
}

#[test]
fn numbers_at_their_most_stop_there_and_a_name_costs_what_is_said() {
    let text = format!("1 sent i {0} a b\n1 sent i {0} a b\n", u64::MAX);
    assert_eq!(counted(text.as_bytes(), USUAL, 1).1.classes[0].total, Amount { messages: 2, bytes: u64::MAX });
    assert_eq!((size_of::<Sums>(), size_of::<(u32, u64)>()), (264, 16));
}

/// What the plain way comes to: all lines of a class, window by window.
fn naive(text: &str, question: &Question) -> BTreeMap<String, [(u64, u64, u64, u64); 4]> {
    let mut windows: BTreeMap<(String, usize, u64), (u64, u64)> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let second: u64 = fields[0].parse().unwrap();
        if second < question.from || second >= question.to {
            continue;
        }
        let class =
            ["sent", "recv", "delv", "fail"].iter().position(|name| *name == fields[1].trim_end_matches('+')).unwrap();
        let bytes: u64 = fields[3].parse().unwrap();
        let to: Vec<&str> = fields[5].split(',').collect();
        let counts: Vec<(&str, u64)> = match (question.role, fields[1]) {
            (Role::Sender, "sent") => vec![(fields[4], 1)],
            (Role::Sender, "sent+") => vec![],
            (Role::Sender, _) => vec![(fields[4], to.len() as u64)],
            (Role::Receiver, _) => to.iter().map(|name| (*name, 1)).collect(),
        };
        for (name, messages) in counts {
            let name = match question.by {
                By::User => name,
                By::Domain => name.rsplit('@').next().filter(|domain| !domain.is_empty()).unwrap_or(name),
            };
            found.entry(name.to_lowercase()).or_insert([(0, 0, 0, 0); 4]);
            let window = windows.entry((name.to_lowercase(), class, second / question.window)).or_default();
            window.0 += messages;
            window.1 += messages * bytes;
        }
    }
    for ((name, class, _), (messages, bytes)) in windows {
        let sum = &mut found.get_mut(&name).unwrap()[class];
        *sum = (sum.0 + messages, sum.1 + bytes, sum.2.max(messages), sum.3.max(bytes));
    }
    found
}

proptest! {
    #[test]
    fn what_is_written_is_counted_as_a_naive_reader_would(
        records in prop::collection::vec(
            (0..400u64, 0..4usize, any::<u16>(), "[ab ,%]{0,2}(@[Cc\u{e4}]{0,2})?", prop::collection::vec("[abA]{1,2}@[cd]{0,1}", 0..5)), 0..60),
        by in 0..2, role in 0..2, most in 0..6usize, cut in 1..300usize, from in 0..100u64,
    ) {
        let question = Question {
            by: [By::Domain, By::User][by as usize],
            role: [Role::Sender, Role::Receiver][role as usize],
            from, to: 350,
            window: 50,
            key: Key { class: Class::Received, bytes: true },
        };
        let mut text = Vec::new();
        let mut records = records;
        records.sort_by_key(|(second, ..)| *second);
        for (second, class, bytes, from, to) in &records {
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            record(*second, Class::ALL[*class].1, u64::from(*bytes), from, &to).write(&mut text);
        }
        let wanted = naive(std::str::from_utf8(&text).unwrap(), &question);
        let (mut ranking, mut held) = (Ranking::new(question, 3), Vec::new());
        for piece in text.chunks(cut) {
            held.extend_from_slice(piece);
            let used = ranking.feed(&held);
            held.drain(..used);
        }
        prop_assert!(held.is_empty() && ranking.lines.bad == 0);
        prop_assert_eq!(ranking.names(), wanted.len());
        let mut order: Vec<_> = wanted.iter().map(|(name, sums)| (Reverse(sums[1].1), name.clone())).collect();
        order.sort();
        order.truncate(most);
        let (named, _) = counted(&text, question, most);
        let shown = |sum: Sum| (sum.total.messages, sum.total.bytes, sum.messages.most, sum.bytes.most);
        let got: Vec<_> = named.into_iter().map(|(name, sums)| (name, sums.classes.map(shown))).collect();
        let wanted: Vec<_> = order.into_iter().map(|(_, name)| { let sums = wanted[&name]; (name, sums) }).collect();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut ranking = Ranking::new(USUAL, 0);
        ranking.feed(&bytes);
        prop_assert_eq!(ranking.lines.read, memchr::memchr_iter(b'\n', &bytes).count() as u64);
    }
}
