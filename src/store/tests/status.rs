//! `add_status`: what is sent, who counts as read, and what of that comes into the drop.

use std::path::Path;

use super::deferral::{DROP, delete, letter, letters, open, put, text, uids};
use super::sim::SimDisk;
use crate::store::maildrop::*;
use crate::text::bytes::Output;
use crate::text::number::Fraction;

const IDX: &str = "/spool/.ann.idx";
const HOUR: i64 = 3_600_000_000_000;
const FROM: &str = "From x@x Mon Jan  5 10:00:00 2026\n";

fn site(letters: usize) -> (SimDisk, Place) {
    let (disk, place) = super::deferral::site(letters);
    (disk, Place { add_status: true, ..place })
}

/// What RETR or TOP sends, and whether that is news.
fn pulled(maildrop: &Maildrop<SimDisk>, number: u32, lines: Option<u64>) -> (String, bool) {
    let mut reader = maildrop.reader(number, lines, Reach::Wait).unwrap();
    let (mut out, mut scratch) = (Output::default(), [0; 1024]);
    loop {
        match reader.pull(&mut scratch, &mut out) {
            Ok(Pulled::More) => {}
            Ok(Pulled::Last) => break,
            Err(Miss::Cold) => {
                let fetched = reader.fetch().run().unwrap();
                reader.supply(fetched);
            }
            Err(miss) => panic!("{miss:?}"),
        }
    }
    (String::from_utf8(out.bytes().to_vec()).unwrap(), reader.is_news())
}

/// A session that reads these and commits.
fn read(disk: &SimDisk, place: &Place, numbers: &[u32]) {
    let mut maildrop = open(disk, place);
    numbers.iter().for_each(|&number| maildrop.read(number));
    maildrop.commit().unwrap();
}

/// The first lines of all messages as they are sent. All sizes are seen to be right on the way.
fn seen(disk: &SimDisk, place: &Place) -> Vec<String> {
    let maildrop = open(disk, place);
    let totals = maildrop.totals();
    let mut octets = 0;
    let first = |number| {
        let row = maildrop.row(number, Reach::Wait).unwrap().unwrap();
        let (text, _) = pulled(&maildrop, number, None);
        let text = text.strip_suffix(".\r\n").unwrap().replace("\r\n..", "\r\n.");
        assert_eq!(text.len() as u64, row.octets, "{text:?}");
        octets += row.octets;
        text.split("\r\n").next().unwrap().to_owned()
    };
    let lines = (1..=totals.messages).map(first).collect();
    assert_eq!(totals.octets, octets);
    lines
}

fn rows(disk: &SimDisk, place: &Place) -> Vec<(Uid, u64)> {
    open(disk, place).lookup(1).run().unwrap().iter().map(|row| (row.uid, row.octets)).collect()
}

fn lined(k: usize) -> String {
    letter(k).replace("Subject", "Status: RO\nSubject")
}

const NEW: &str = "Status: UN";
const READ: &str = "Status: RO";

#[test]
fn a_message_without_a_status_is_sent_with_one_of_the_same_length_always() {
    let (disk, place) = site(1);
    put(&disk, &(letter(1) + FROM + "Status: O\n\nx\n\n" + FROM + " folded: x\n\nx\n\n" + FROM + "\n.x\n"));
    let before = rows(&disk, &place);
    assert_eq!(seen(&disk, &place), [NEW, "Status: O", " folded: x", NEW]);
    let maildrop = open(&disk, &place);
    assert_eq!(pulled(&maildrop, 1, Some(1)).0, "Status: UN\r\nSubject: m001\r\n\r\nall work and no play\r\n.\r\n");
    assert_eq!(pulled(&maildrop, 4, None).0, "Status: UN\r\n\r\n..x\r\n.\r\n");
    drop(maildrop);
    read(&disk, &place, &[1, 2, 3, 4]);
    assert_eq!(seen(&disk, &place), [READ, "Status: O", " folded: x", READ]);
    assert_eq!(rows(&disk, &place), before);
    assert_eq!(pulled(&open(&disk, &place), 1, Some(0)).0, "Status: RO\r\nSubject: m001\r\n\r\n.\r\n");

    let off = Place { add_status: false, ..place };
    assert_eq!(seen(&disk, &off), ["Subject: m001", "Status: O", " folded: x", ""]);
    assert_eq!(rows(&disk, &off)[0].1 + 12, before[0].1);
}

#[test]
fn a_text_of_crlf_lines_and_one_of_none_get_the_line_too() {
    let (disk, place) = site(0);
    put(&disk, &((FROM.to_owned() + "Subject: x\n\n.x\n\n").replace('\n', "\r\n") + FROM));
    assert_eq!(seen(&disk, &place), [NEW, NEW]);
    let maildrop = open(&disk, &place);
    assert_eq!(pulled(&maildrop, 1, None).0, "Status: UN\r\nSubject: x\r\n\r\n..x\r\n.\r\n");
    assert_eq!(pulled(&maildrop, 2, None).0, "Status: UN\r\n.\r\n");
    assert_eq!(pulled(&maildrop, 2, Some(0)).0, "Status: UN\r\n\r\n.\r\n");
}

#[test]
fn a_line_is_sent_once_also_when_a_job_has_to_fetch_the_message() {
    let (disk, place) = site(2);
    let maildrop = open(&disk, &place);
    disk.world().cold = true;
    let mut reader = maildrop.reader(2, None, Reach::Wait).unwrap();
    let (mut out, mut scratch) = (Output::default(), [0; 1024]);
    assert!(matches!(reader.pull(&mut scratch, &mut out), Err(Miss::Cold)));
    assert!(out.bytes().is_empty());
    let fetched = reader.fetch().run().unwrap();
    reader.supply(fetched);
    assert_eq!(reader.pull(&mut scratch, &mut out).unwrap(), Pulled::Last);
    assert_eq!((out.bytes().len() - 3) as u64, reader.octets());
    assert!(out.bytes().starts_with(b"Status: UN\r\nSubject: m002\r\n"));
}

#[test]
fn who_was_retrieved_is_read_when_the_session_is_committed_and_not_before() {
    let (disk, place) = site(4);
    let mut maildrop = open(&disk, &place);
    assert!(pulled(&maildrop, 2, None).1, "it is news");
    maildrop.read(2);
    maildrop.undelete_all();
    assert!(!maildrop.has_news(), "RSET forgets it");
    maildrop.commit().unwrap();
    drop(maildrop);
    let mut maildrop = open(&disk, &place);
    maildrop.read(2);
    drop(maildrop);
    assert_eq!(seen(&disk, &place), [NEW; 4], "a session that broke off read nothing");
    let mut maildrop = open(&disk, &place);
    [0, 2, 3, 5, u32::MAX].into_iter().for_each(|number| maildrop.read(number));
    assert_eq!(pulled(&maildrop, 2, None).0.split("\r\n").next(), Some(NEW), "in the same session all is as it was");
    maildrop.commit().unwrap();
    drop(maildrop);
    assert_eq!(seen(&disk, &place), [NEW, READ, READ, NEW]);
    let maildrop = open(&disk, &place);
    assert_eq!(maildrop.totals().last_read, 3);
    assert!(!pulled(&maildrop, 2, None).1 && pulled(&maildrop, 1, None).1);
    drop(maildrop);
    // An index that is lost knows nothing, and all is as long as it was.
    let before = rows(&disk, &place);
    disk.world().take_away(Path::new(IDX));
    assert_eq!((seen(&disk, &place), rows(&disk, &place)), (vec![NEW.to_owned(); 4], before));
}

#[test]
fn what_was_read_stays_so_whatever_else_happens_to_the_drop() {
    let (disk, place) = site(4);
    read(&disk, &place, &[1, 4]);
    // It grows behind a message that was read; and by nothing but a blank line there.
    for more in [letter(5), "\n\n".to_owned(), letter(6)] {
        disk.world().now += HOUR;
        disk.world().append(Path::new(DROP), more.as_bytes());
        let seen = seen(&disk, &place);
        assert_eq!(seen[..4], [READ, NEW, NEW, READ]);
        assert_eq!(seen[4..], vec![NEW; seen.len() - 4]);
    }
    assert_eq!(open(&disk, &place).totals().last_read, 4);
    delete(&disk, &place, &[2]);
    assert_eq!(seen(&disk, &place), [READ, NEW, READ, NEW, NEW]);
    assert_eq!(open(&disk, &place).totals().last_read, 3);
    // Another program takes the first away and writes the rest anew.
    let before = uids(&disk, &place);
    disk.world().put(Path::new(DROP), letters(3..=6).as_bytes(), true);
    assert_eq!(seen(&disk, &place), [NEW, READ, NEW, NEW]);
    assert_eq!(uids(&disk, &place), before[1..]);
    // An equal message that is delivered in the place of one that others took away was read by nobody.
    disk.world().now += HOUR;
    put(&disk, &(letter(3) + &letter(4).replace("s004", "t004")));
    assert_eq!(uids(&disk, &place), before[1..3]);
    assert_eq!(seen(&disk, &place), [NEW, NEW]);
}

#[test]
fn what_a_shell_user_reads_and_does_not_is_what_is_sent() {
    let (disk, place) = site(3);
    let before = rows(&disk, &place);
    read(&disk, &place, &[1]);
    let edited = lined(1) + &lined(2) + &letter(3).replace("\n\nall", "\nStatus: O\n\nall");
    disk.world().put(Path::new(DROP), edited.as_bytes(), true);
    assert_eq!(seen(&disk, &place), [READ, READ, "Subject: m003"]);
    let after = rows(&disk, &place);
    assert_eq!(before.iter().map(|row| row.0).collect::<Vec<_>>(), after.iter().map(|row| row.0).collect::<Vec<_>>());
    assert_eq!(open(&disk, &place).totals().last_read, 2);
    assert!(!pulled(&open(&disk, &place), 2, None).1, "who was read there is no news");
}

#[test]
fn compaction_writes_the_line_into_those_it_moves_and_nothing_else() {
    let (disk, place) = site(0);
    let own = FROM.to_owned() + "Status: O\nSubject: own\n\nx\n\n";
    let folded = FROM.to_owned() + " folded\n\nx\n\n";
    let crlf = (FROM.to_owned() + "Subject: crlf\n\nx\n").replace('\n', "\r\n");
    put(&disk, &(letters(1..=5) + &own + &folded + &crlf + "\r\n" + &letter(9)));
    disk.world().now += HOUR;
    read(&disk, &place, &[1, 2, 4, 6, 7, 8]);
    delete(&disk, &place, &[3]);
    let (lines, before) = (seen(&disk, &place), rows(&disk, &place));
    let last = open(&disk, &place).totals().last_read;
    let compacted = open(&disk, &place).compact(&mut || true).unwrap();
    let crlf = crlf.replace("Subject", "Status: RO\r\nSubject") + "\r\n";
    assert_eq!(text(&disk), letters(1..=2) + &lined(4) + &letter(5) + &own + &folded + &crlf + &letter(9));
    assert_eq!(compacted.freed_bytes as usize, letter(3).len() - "Status: RO\n".len() - "Status: RO\r\n".len());
    // With the index as the compaction left it, and with one made anew.
    disk.world().read.clear();
    let inode = disk.world().inode_of(Path::new(DROP));
    assert_eq!(rows(&disk, &place), before);
    assert!(!disk.world().read.contains_key(&inode), "the index is believed");
    assert_eq!((seen(&disk, &place), open(&disk, &place).totals().last_read), (lines.clone(), last));
    disk.world().take_away(Path::new(IDX));
    assert_eq!(rows(&disk, &place), before);
    assert_eq!(seen(&disk, &place)[2..], lines[2..], "what was moved is read for good");
    assert_eq!(seen(&disk, &place)[..2], [NEW; 2], "what was not moved was known to the index alone");
}

#[test]
fn what_the_drop_says_counts_once_the_line_is_there() {
    let (disk, place) = site(3);
    read(&disk, &place, &[2, 3]);
    delete(&disk, &place, &[1]);
    open(&disk, &place).compact(&mut || true).unwrap();
    assert_eq!(text(&disk), lined(2) + &lined(3));
    disk.world().now += HOUR;
    // A shell user marks one as new.
    put(&disk, &(letter(2) + &lined(3)));
    assert_eq!(seen(&disk, &place), [NEW, READ]);
}

#[test]
fn a_drop_is_never_compacted_for_a_line_alone() {
    let (disk, place) = site(3);
    let place = Place { full: Fraction::ALL, ..place };
    let before = text(&disk);
    let mut maildrop = open(&disk, &place);
    maildrop.read(2);
    assert!(!maildrop.commit().unwrap().wants_compaction);
    maildrop.compact(&mut || true).unwrap();
    assert_eq!(text(&disk), before);
}

#[test]
fn lines_take_at_most_half_of_what_the_dead_leave() {
    let (disk, place) = site(0);
    let short = |k: usize| format!("From s{k}@x Mon Jan  5 10:00:00 2026\nA: {k}\n\n\n");
    let all: String = (1..=9).map(short).collect();
    put(&disk, &all);
    disk.world().now += HOUR;
    read(&disk, &place, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    delete(&disk, &place, &[1]);
    let (before, lines) = (rows(&disk, &place), seen(&disk, &place));
    assert_eq!(lines, [READ; 8]);
    let freed = open(&disk, &place).compact(&mut || true).unwrap().freed_bytes as usize;
    assert_eq!(text(&disk).matches(READ).count(), short(1).len() / 2 / 11);
    assert!(freed >= short(1).len() / 2 && freed < short(1).len());
    assert_eq!((rows(&disk, &place), seen(&disk, &place)), (before, lines), "the rest goes on being known");
    let plain = text(&disk).replace("Status: RO\n", "");
    assert_eq!(plain, (2..=9).map(short).collect::<String>());
}

#[test]
fn without_add_status_nothing_is_put_down_and_nothing_comes_into_the_drop() {
    let (disk, place) = site(4);
    read(&disk, &place, &[2, 3, 4]);
    delete(&disk, &place, &[1]);
    let place = Place { add_status: false, ..place };
    let mut maildrop = open(&disk, &place);
    assert!(!pulled(&maildrop, 1, None).1);
    maildrop.read(1);
    assert!(!maildrop.has_news());
    maildrop.compact(&mut || true).unwrap();
    assert_eq!(text(&disk), letters(2..=4));
}

#[test]
fn what_was_read_is_put_down_in_a_write_or_two_and_only_once() {
    let (disk, place) = site(200);
    let counts = || {
        let world = disk.world();
        (world.writes, world.syncs)
    };
    let mut maildrop = open(&disk, &place);
    (1..=64).for_each(|number| maildrop.read(number));
    maildrop.read(200);
    let (writes, syncs) = counts();
    maildrop.commit().unwrap();
    assert_eq!(counts(), (writes + 3, syncs), "a page of 64, the page of the last, the header");
    drop(maildrop);
    let mut maildrop = open(&disk, &place);
    assert_eq!(maildrop.totals().last_read, 200);
    let (writes, syncs) = counts();
    maildrop.commit().unwrap();
    assert_eq!(counts(), (writes, syncs));
    // What is deleted in the same session need not be known as read.
    maildrop.read(100);
    maildrop.delete(100).unwrap();
    maildrop.commit().unwrap();
    assert_eq!(counts().0, writes + 1);
    // A disk that is full stops nobody.
    maildrop.read(101);
    disk.world().full = true;
    maildrop.commit().unwrap();
}

#[test]
fn reading_that_was_interrupted_while_it_was_put_down_harms_nobody() {
    for power in [false, true] {
        for n in 1.. {
            let (disk, place) = site(70);
            let mut maildrop = open(&disk, &place);
            let before = maildrop.totals().octets;
            (1..=70).for_each(|number| maildrop.read(number));
            let calls = disk.world().calls;
            disk.world().stop_at = Some(calls + n);
            drop(maildrop.commit());
            let ended = !disk.world().stopped;
            drop(maildrop);
            if power {
                disk.world().cut_power()
            } else {
                disk.world().kill()
            }
            let disk = disk.again();
            disk.world().now += HOUR;
            let lines = seen(&disk, &place);
            assert_eq!((lines.len(), open(&disk, &place).totals().octets), (70, before));
            assert!(power || !ended || lines.iter().all(|line| line == READ));
            if ended {
                assert!(n > 4);
                break;
            }
        }
    }
}
