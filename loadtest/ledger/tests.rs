//! The verifier against folders made by hand: one fault each, told as that and nothing else.

use std::fs;
use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::journal;
use super::verdict::Kind;
use super::verify::{self, Whereabouts};

const RUN: u64 = 0xaa;

/// A run's folder with one of everything that is as it should be:
///
/// | message | for      | is                                                     |
/// |---------|----------|--------------------------------------------------------|
/// | 1       | ann      | in the drop                                            |
/// | 2       | ann, bob | in both drops                                          |
/// | 3       | ann      | fetched, deleted, gone                                 |
/// | 4       | bob      | refused                                                |
/// | 5       | bob      | unknown, and in the drop                               |
/// | 6       | bob      | unknown, and nowhere                                   |
/// | 7       | k@far    | in the queue                                           |
/// | 8       | k@far    | in the sink                                            |
/// | 9, 10   | ann      | marked by a session whose QUIT was not answered; gone  |
struct Made {
    dir: tempfile::TempDir,
    lines: Vec<String>,
}

fn letter(seq: u64) -> String {
    let body = format!("message {seq}\n\n.\nthe end\n");
    let which = [RUN.to_le_bytes(), seq.to_le_bytes()].concat();
    let hash = xxh3_64_with_seed(body.as_bytes(), xxh3_64(&which));
    format!("Received: x\nX-Loadtest: {RUN:016x} {seq} {} {hash:016x}\nSubject: s\n\n{body}", body.len())
}

fn entry(seq: u64) -> String {
    format!("From a@b.test Mon Jan  5 10:00:00 2026\n{}\n", letter(seq))
}

fn uid(seq: u64) -> String {
    format!("{:016x}", 0x1000 + seq)
}

impl Made {
    fn new() -> Made {
        let dir = tempfile::tempdir().unwrap();
        for name in ["spool", "queue", "sink"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let at = Whereabouts {
            run: RUN,
            seed: 1,
            domain: "example.test".into(),
            spool: Some("spool".into()),
            hash_spool: 0,
            keeps_dead: false,
            queue: Some("queue".into()),
            sink: Some("sink".into()),
        };
        at.write(dir.path()).unwrap();
        let mut lines = Vec::new();
        for (seq, to) in [
            (1, "ann"),
            (2, "ann,bob"),
            (3, "ann"),
            (4, "bob"),
            (5, "bob"),
            (6, "bob"),
            (7, "k@far.test"),
            (8, "k@far.test"),
            (9, "ann"),
            (10, "ann"),
        ] {
            lines.push(format!("begun {seq} {to} 25 smtp"));
            for to in to.split(',') {
                lines.push(match seq {
                    4 => format!("refused {seq} {to} 452 4.3.1 no room"),
                    5 | 6 => format!("unknown {seq} {to} reset"),
                    _ => format!("acked {seq} {to} 250 2.0.0 Ok"),
                });
            }
        }
        let mut made = Made { dir, lines };
        made.session(1, &[1, 2, 3, 9, 10], &[3], "deleted");
        made.session(2, &[1, 2, 9, 10], &[9, 10], "doubt");
        made.session(3, &[1, 2], &[], "deleted");
        made.put("spool/ann", &format!("{}{}", entry(1), entry(2)));
        made.put("spool/bob", &format!("{}{}", entry(2), entry(5)));
        made.put("sink/8.eml", &format!("Delivered-To: k@far.test\n{}", letter(8)));
        let said = "State: 1 deferred at=1 next=2";
        let sum = xxh3_64_with_seed(said.as_bytes(), xxh3_64(b"7K"));
        let file = format!(
            "DMail-Queue: 1\nId: 7K\nReceived-Bytes: 0\nText-Bytes: {}\nRecipients: 1\nTo: 1 remote k@far.test\n\n{}\nStates of 7K:\n{said} sum={sum:016x}\n",
            letter(7).len(),
            letter(7)
        );
        made.put("queue/7K", &file);
        made
    }

    fn session(&mut self, id: u64, sees: &[u64], marks: &[u64], end: &str) {
        self.lines.push(format!("opens {id} ann"));
        self.lines.push(format!("listed {id} ann {}", sees.iter().map(|&seq| uid(seq)).collect::<Vec<_>>().join(" ")));
        sees.iter().for_each(|&seq| self.lines.push(format!("fetched {id} ann {} {seq} whole", uid(seq))));
        marks.iter().for_each(|&seq| self.lines.push(format!("marked {id} ann {} {seq}", uid(seq))));
        self.lines.push(format!("{end} {id} ann"));
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// The kinds of violation, each with its count.
    fn kinds(&self) -> Vec<(Kind, u64)> {
        let judged = self.judged();
        let text = judged.table();
        assert_eq!(judged.verdict.is_clean(), text.ends_with("one place\n"), "{text}");
        assert_eq!(judged.verdict.is_faultless(), !text.contains("NOT CLEAN"), "{text}");
        Kind::ALL.into_iter().zip(judged.verdict.by_kind).filter(|(_, count)| *count > 0).collect()
    }

    fn judged(&self) -> verify::Judged {
        let lines: String = self.lines.iter().map(|line| format!("1767610800.000001 {line}\n")).collect();
        self.put(journal::NAME, &lines);
        verify::judge(self.path()).unwrap()
    }
}

#[test]
fn a_run_without_fault_is_clean_and_counted() {
    let made = Made::new();
    assert_eq!(made.kinds(), []);
    let judged = made.judged();
    let c = judged.verdict.counts;
    assert_eq!((c.messages, c.copies, c.acked), (10, 11, 8));
    assert_eq!((c.in_drops, c.queued, c.sunk, c.deleted), (3, 1, 1, 3));
    assert_eq!((c.refused, c.unknown, c.unknown_there), (1, 2, 1));
    assert_eq!((c.sessions, c.quits, c.cut_quits, c.cut_undone), (3, 2, 1, 0));
    assert_eq!((judged.extent.drops, judged.extent.queue_files, judged.extent.sink_files), (2, 1, 1));
}

#[test]
fn a_lost_message_is_told_with_its_lines() {
    let made = Made::new();
    made.put("spool/ann", &entry(2));
    assert_eq!(made.kinds(), [(Kind::Lost, 1)]);
    let text = made.judged().table();
    assert!(text.contains("lost: message 1 for ann: acknowledged, and it is nowhere"), "{text}");
    assert!(text.contains("acked 1 ann 250 2.0.0 Ok") && text.contains("deleted 3 ann"), "{text}");
    assert!(text.contains("NOT CLEAN: 1 lost"), "{text}");
}

#[test]
fn losses_from_queue_and_sink_are_told() {
    let made = Made::new();
    fs::remove_file(made.path().join("queue/7K")).unwrap();
    fs::remove_file(made.path().join("sink/8.eml")).unwrap();
    assert_eq!(made.kinds(), [(Kind::Lost, 2)]);
}

#[test]
fn a_double_message_is_told_with_both_places() {
    let made = Made::new();
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(1)));
    assert_eq!(made.kinds(), [(Kind::Double, 1)]);
    let text = made.judged().table();
    assert!(text.contains("spool/ann:0\n") && text.contains(&format!("spool/ann:{}\n", 2 * entry(1).len())), "{text}");
}

#[test]
fn an_unacknowledged_message_may_be_absent_and_may_not_be_double() {
    let made = Made::new();
    made.put("spool/bob", &entry(2));
    assert_eq!(made.kinds(), []);
    made.put("spool/bob", &format!("{}{}{}", entry(2), entry(5), entry(5)));
    assert_eq!(made.kinds(), [(Kind::Double, 1)]);
}

#[test]
fn a_message_in_the_drop_and_in_the_sink_is_double() {
    let made = Made::new();
    made.put("sink/1.eml", &format!("Delivered-To: ann@example.test\n{}", letter(1)));
    assert_eq!(made.kinds(), [(Kind::Double, 1)]);
}

#[test]
fn a_torn_message_is_told_with_its_place() {
    let made = Made::new();
    made.put("spool/ann", &format!("{}{}", entry(1).replace("the end\n", "the e\n"), entry(2)));
    assert_eq!(made.kinds(), [(Kind::Torn, 1)]);
    let text = made.judged().table();
    assert!(text.contains("spool/ann:0: its body has"), "{text}");
}

#[test]
fn an_undead_message_is_told_from_the_file() {
    let made = Made::new();
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(3)));
    assert_eq!(made.kinds(), [(Kind::Undead, 1)]);
}

#[test]
fn where_the_dead_stay_in_the_file_a_run_that_was_cut_short_says_nothing_of_them() {
    let made = Made::new();
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(3)));
    let at = Whereabouts { keeps_dead: true, ..Whereabouts::read(made.path()).unwrap() };
    at.write(made.path()).unwrap();
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.dead, 1);
}

#[test]
fn an_undead_message_is_told_from_a_later_session() {
    let mut made = Made::new();
    made.session(4, &[1, 2, 3], &[], "deleted");
    assert_eq!(made.kinds(), [(Kind::Undead, 1)]);
}

#[test]
fn a_refused_message_that_is_there_is_told() {
    let made = Made::new();
    made.put("spool/bob", &format!("{}{}{}", entry(2), entry(4), entry(5)));
    assert_eq!(made.kinds(), [(Kind::Refused, 1)]);
}

#[test]
fn what_was_never_sent_to_a_mailbox_is_a_phantom_there() {
    let made = Made::new();
    made.put("spool/bob", &format!("{}{}{}", entry(2), entry(1), entry(5)));
    assert_eq!(made.kinds(), [(Kind::Phantom, 1)]);
}

#[test]
fn mail_of_others_is_counted_and_judged_by_nobody() {
    let made = Made::new();
    let other = entry(1).replace(&format!("{RUN:016x}"), "00000000000000bb");
    made.put(
        "spool/bob",
        &format!("{}{other}From b Mon Jan  5 10:00:00 2026\nSubject: x\n\nx\n\n{}", entry(2), entry(5)),
    );
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.strangers, 2);
}

#[test]
fn half_a_deletion_is_told() {
    let mut made = Made::new();
    made.lines.truncate(made.lines.len() - 5);
    made.session(3, &[1, 2, 10], &[], "deleted");
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(10)));
    assert_eq!(made.kinds(), [(Kind::Halves, 1)]);
}

#[test]
fn a_deletion_in_doubt_may_be_undone_as_a_whole() {
    let mut made = Made::new();
    made.lines.truncate(made.lines.len() - 5);
    made.session(3, &[1, 2, 9, 10], &[], "deleted");
    made.put("spool/ann", &format!("{}{}{}{}", entry(1), entry(2), entry(9), entry(10)));
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.cut_undone, 1);
    // And from then on they are there.
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(9)));
    assert_eq!(made.kinds(), [(Kind::Lost, 1)]);
}

#[test]
fn a_doubt_ends_with_the_next_listing_and_not_with_what_is_deleted_after_it() {
    let mut made = Made::new();
    made.lines.truncate(made.lines.len() - 5);
    // It connects while the doubtful one is still there, and is let in behind it.
    let at = made.lines.iter().position(|line| line == "doubt 2 ann").unwrap();
    made.lines.insert(at, "opens 3 ann".into());
    made.session(3, &[1, 2, 9, 10], &[9], "deleted");
    let again = made.lines.iter().rposition(|line| line == "opens 3 ann").unwrap();
    made.lines.remove(again);
    made.session(4, &[1, 2, 10], &[], "deleted");
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(10)));
    assert_eq!(made.kinds(), []);
}

#[test]
fn a_copy_in_the_drop_that_the_queue_still_holds_is_double_unless_nobody_could_wait_for_the_queue() {
    let mut made = Made::new();
    let file = fs::read_to_string(made.path().join("queue/7K")).unwrap();
    made.put(
        "queue/7K",
        &file
            .replace("remote k@far.test", "mailbox ann@example.test")
            .replace(&letter(7), &letter(1))
            .replace(&format!("Text-Bytes: {}", letter(7).len()), &format!("Text-Bytes: {}", letter(1).len())),
    );
    made.lines.retain(|line| !line.contains(" 7 k@far"));
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.unsettled, 1);
    for waited in ["settled 1 all", "restless 90000 all"] {
        made.lines.push(waited.into());
        assert_eq!(made.kinds(), [(Kind::Double, 1)], "{waited}");
        made.lines.pop();
    }
}

#[test]
fn a_run_is_a_proof_when_the_queue_ran_dry_and_each_mailbox_was_opened_at_the_end() {
    let open = |lines: &[&str], looks: bool| {
        let mut made = Made::new();
        made.lines.extend(lines.iter().map(|&line| line.to_owned()));
        if looks {
            made.session(4, &[1, 2], &[], "deleted");
        }
        let judged = made.judged();
        assert!(judged.verdict.is_faultless(), "{}", judged.table());
        assert_eq!(judged.verdict.is_clean(), judged.verdict.open.is_empty());
        assert_eq!(judged.table().matches("no proof: ").count(), judged.verdict.open.len());
        judged.verdict.open
    };
    assert_eq!(open(&["settled 1 all", "final 4 ann"], true), [] as [String; 0]);
    let restless = open(&["restless 90000 all", "final 4 ann"], true);
    assert_eq!(restless, ["after 90 s mail was still on its way: see what it waits for"]);
    let closed = open(&["settled 1 all", "final 4 ann", "opens 4 ann", "closed 4 ann"], false);
    assert_eq!(closed, ["at the end nobody could open ann: see what the server says of it"]);
    let cut = open(&["settled 1 all"], false);
    assert_eq!(cut, ["it was cut short, and nobody looked into the mailboxes at its end: run it anew"]);
}

#[test]
fn a_session_without_an_end_is_in_doubt() {
    let mut made = Made::new();
    made.lines.truncate(made.lines.len() - 6);
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.doubtful, 2);
}

#[test]
fn a_changed_uid_is_told() {
    let mut made = Made::new();
    let last = made.lines.len();
    for line in &mut made.lines[last - 4..] {
        *line = line.replace(&uid(2), &uid(77));
    }
    assert_eq!(made.kinds(), [(Kind::Uid, 1)]);
}

#[test]
fn a_message_that_is_not_listed_any_more_is_lost_though_its_file_has_it() {
    let mut made = Made::new();
    made.session(4, &[2], &[], "deleted");
    assert_eq!(made.kinds(), [(Kind::Lost, 1)]);
}

#[test]
fn with_a_last_look_the_dead_may_stay_in_the_file_and_the_living_must_be_shown() {
    let mut made = Made::new();
    made.lines.push("settled 1 all".into());
    made.lines.push("final 4 ann".into());
    made.session(4, &[1, 2], &[], "deleted");
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(3), entry(2)));
    assert_eq!(made.kinds(), []);
    assert_eq!(made.judged().verdict.counts.dead, 1);
    // Message 1 was never fetched before: nobody can say that it was listed.
    let mut made = Made::new();
    made.lines.extend([
        "begun 11 ann 25 smtp".into(),
        "acked 11 ann 250 Ok".into(),
        "settled 1 all".into(),
        "final 4 ann".into(),
    ]);
    made.session(4, &[1, 2], &[], "deleted");
    made.put("spool/ann", &format!("{}{}{}", entry(1), entry(2), entry(11)));
    assert_eq!(made.kinds(), [(Kind::Lost, 1)]);
}

#[test]
fn a_drop_and_a_queue_file_that_are_none_are_told() {
    let made = Made::new();
    made.put("spool/ann", &format!("{}{}", entry(1).trim_end_matches('\n'), "\n").replace("From a@b", "Fro a@b"));
    made.put("queue/7K.damaged", "x");
    let kinds = made.kinds();
    assert!(kinds.contains(&(Kind::Malformed, 2)), "{kinds:?}");
}

/// One fact of the journal changed: each must be seen.
#[test]
fn a_journal_with_one_fact_flipped_is_not_clean() {
    let flips: [(&str, &str); 8] = [
        ("acked 1 ann 250 2.0.0 Ok", "refused 1 ann 550 5.1.1 no"),
        ("refused 4 bob 452 4.3.1 no room", "acked 4 bob 250 2.0.0 Ok"),
        ("unknown 6 bob reset", "acked 6 bob 250 2.0.0 Ok"),
        ("unknown 5 bob reset", "refused 5 bob 450 4.2.0 later"),
        ("deleted 3 ann", "fetched 3 ann 0000000000001003 3 whole"),
        ("listed 3 ann 0000000000001001 0000000000001002", "listed 3 ann 0000000000001001"),
        ("fetched 1 ann 0000000000001001 1 whole", "fetched 1 ann 0000000000001001 1 torn"),
        ("marked 2 ann 0000000000001009 9", "marked 2 ann 0000000000001001 1"),
    ];
    for (from, to) in flips {
        let mut made = Made::new();
        let at = made.lines.iter().position(|line| line == from).unwrap();
        made.lines[at] = to.to_owned();
        assert_ne!(made.kinds(), [], "{from} -> {to}");
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_no_verdict() {
    let mut made = Made::new();
    made.lines[3] = "acked".into();
    let lines: String = made.lines.iter().map(|line| format!("1767610800.000001 {line}\n")).collect();
    made.put(journal::NAME, &lines);
    let why = verify::judge(made.path()).err().unwrap();
    assert!(why.contains("line 4 says no fact"), "{why}");
}
