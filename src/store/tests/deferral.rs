//! When the dead leave the drop, who is noticed there, and that one more equal message is not one of the dead.

use std::path::{Path, PathBuf};

use super::sim::SimDisk;
use crate::store::maildrop::*;
use crate::store::undelete::undelete_on;
use crate::text::number::Fraction;

pub(super) const DROP: &str = "/spool/ann";
pub(super) const BIN: &str = "/spool/.ann.bin";
const DAY: i64 = 86_400_000_000_000;

pub(super) fn letter(k: usize) -> String {
    format!(
        "From s{k:03}@x Mon Jan  5 10:00:00 2026\nSubject: m{k:03}\n\n{}end\n\n",
        "all work and no play\n".repeat(20)
    )
}

pub(super) fn letters(range: std::ops::RangeInclusive<usize>) -> String {
    range.map(letter).collect()
}

pub(super) fn site(letters: usize) -> (SimDisk, Place) {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    put(&disk, &self::letters(1..=letters));
    disk.world().now += DAY;
    (disk, Place::new(PathBuf::from(DROP), PathBuf::from("/work")))
}

pub(super) fn put(disk: &SimDisk, text: &str) {
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
}

pub(super) fn text(disk: &SimDisk) -> String {
    String::from_utf8(disk.world().bytes(Path::new(DROP))).unwrap()
}

pub(super) fn open(disk: &SimDisk, place: &Place) -> Maildrop<SimDisk> {
    Maildrop::open_on(disk, place).unwrap()
}

pub(super) fn uids(disk: &SimDisk, place: &Place) -> Vec<Uid> {
    let maildrop = open(disk, place);
    (0..)
        .map(|page| maildrop.lookup(1 + 64 * page).run().unwrap())
        .take_while(|rows| !rows.is_empty())
        .flatten()
        .map(|row| row.uid)
        .collect()
}

/// A session that deletes these, and whether a compaction is due then.
pub(super) fn delete(disk: &SimDisk, place: &Place, numbers: &[u32]) -> bool {
    let mut maildrop = open(disk, place);
    numbers.iter().for_each(|&number| maildrop.delete(number).unwrap());
    let due = maildrop.commit().unwrap().wants_compaction;
    drop(maildrop);
    assert_eq!(open(disk, place).wants_compaction(), due, "the next session finds it so too");
    due
}

#[test]
fn a_drop_is_compacted_when_too_little_of_it_lives_or_nothing() {
    let full = |text: &str| Fraction::parse(text).unwrap();
    // Ten equally long messages: how many are deleted, and from which threshold on a compaction is due.
    for (deleted, share, due) in [
        (1, "1", true),
        (1, "0.95", true),
        (1, "0.9", false),
        (5, "0.500001", true),
        (5, "0.5", false),
        (6, "0.5", true),
        (9, "0.1", false),
        (9, "0", false),
        (10, "0", true),
        (10, "0.5", true),
    ] {
        let (disk, place) = site(10);
        let place = Place { full: full(share), ..place };
        assert_eq!(delete(&disk, &place, &Vec::from_iter(1..=deleted)), due, "{deleted} of 10 dead, bin_pfull {share}");
    }
    let (disk, place) = site(10);
    let place = Place { full: Fraction::ALL, ..place };
    assert!(!delete(&disk, &place, &[]), "nothing is dead");
}

#[test]
fn shares_add_up_over_sessions_and_start_anew_with_a_compaction() {
    let (disk, place) = site(10);
    let dues: Vec<bool> = (0..6).map(|_| delete(&disk, &place, &[1])).collect();
    assert_eq!(dues, [false, false, false, false, false, true]);
    assert_eq!(text(&disk), letters(1..=10));
    open(&disk, &place).compact(&mut || true).unwrap();
    assert_eq!(text(&disk), letters(7..=10));
    assert!(!delete(&disk, &place, &[1, 2]));
    // New mail makes the dead a smaller part.
    disk.world().append(Path::new(DROP), letters(11..=20).as_bytes());
    assert!(!delete(&disk, &place, &[1, 2, 3]));
    assert_eq!(uids(&disk, &place).len(), 9);
}

/// What another program does to the drop, and whether it is noticed as more than a delivery.
type Act = fn(&SimDisk);

#[test]
fn whoever_rewrites_the_drop_has_it_compacted_at_every_quit_for_30_days() {
    let acts: [(&str, bool, Act); 10] = [
        ("nobody came", false, |_| ()),
        ("mail was delivered", false, |disk| disk.world().append(Path::new(DROP), letter(21).as_bytes())),
        ("it was read", false, |disk| {
            let mut world = disk.world();
            let now = world.now;
            world.file(Path::new(DROP)).unwrap().atime = now;
        }),
        ("times of reading were set, or its mode", false, |disk| {
            let mut world = disk.world();
            let now = world.now;
            let file = world.file(Path::new(DROP)).unwrap();
            (file.atime, file.ctime) = (now, now);
        }),
        ("the index was lost", false, |disk| disk.world().take_away(Path::new("/spool/.ann.idx"))),
        ("the machine was started anew, the drop written by whoever", false, |disk| {
            put(disk, &text(disk).replace("Subject: m003", "Status: RO\nSubject: m003"));
            disk.world().cut_power();
        }),
        ("a message was marked as read", true, |disk| {
            put(disk, &text(disk).replace("Subject: m003", "Status: RO\nSubject: m003"))
        }),
        ("a letter was changed in place", true, |disk| {
            put(disk, &text(disk).replace("Subject: m003", "Subject: M003"))
        }),
        ("a message was expunged", true, |disk| put(disk, &text(disk).replace(&letter(3), ""))),
        ("it was replaced", true, |disk| {
            let text = text(disk);
            disk.world().put(Path::new(DROP), text.as_bytes(), true);
        }),
    ];
    for (what, noticed, act) in acts {
        let (disk, place) = site(20);
        assert!(!delete(&disk, &place, &[1]), "{what}");
        disk.world().now += DAY;
        act(&disk);
        let disk = disk.again();
        disk.world().now += DAY;
        assert_eq!(delete(&disk, &place, &[1]), noticed, "{what}");
        if noticed {
            open(&disk, &place).compact(&mut || true).unwrap();
            assert!(!text(&disk).contains("m001") && !text(&disk).contains("m002"), "{what}");
        }
        // Also a shell user who sits there all day is written down once a day.
        disk.world().now += 29 * DAY;
        assert_eq!(delete(&disk, &place, &[1]), noticed, "{what}, after 29 days");
        disk.world().now += DAY;
        assert!(!delete(&disk, &place, &[]), "{what}, after 30 days");
        assert!(!delete(&disk, &place, &[1]), "{what}, after 30 days");
    }
}

#[test]
fn a_sighting_is_written_down_once_a_day() {
    let (disk, place) = site(20);
    drop(open(&disk, &place));
    let mut written = 0;
    for hour in 0..72 {
        let flag = if hour % 2 == 0 { "O" } else { "R" };
        put(
            &disk,
            &text(&disk).replacen("Status: O\n", "", 1).replacen("Status: R\n", "", 1).replacen(
                "Subject",
                &format!("Status: {flag}\nSubject"),
                1,
            ),
        );
        disk.world().now += DAY / 24;
        let bytes = disk.world().bytes(Path::new(BIN)).len();
        drop(open(&disk, &place));
        written += usize::from(disk.world().bytes(Path::new(BIN)).len() > bytes);
    }
    assert!((3..=4).contains(&written), "{written} records in 72 hours");
}

#[test]
fn our_own_compaction_is_no_sighting() {
    let (disk, place) = site(20);
    for _ in 0..3 {
        delete(&disk, &place, &[1, 3]);
        open(&disk, &place).compact(&mut || true).unwrap();
        disk.world().now += DAY;
    }
    delete(&disk, &place, &Vec::from_iter(1..=14));
    open(&disk, &place).compact(&mut || true).unwrap();
    assert_eq!(text(&disk), "");
    // Who delivers may take an empty drop away, and make another.
    disk.world().put(Path::new(DROP), letters(1..=9).as_bytes(), true);
    assert!(!delete(&disk, &place, &[2]));
}

#[test]
fn a_sighting_survives_a_lost_index_and_a_clock_that_was_wrong() {
    let (disk, place) = site(20);
    drop(open(&disk, &place));
    put(&disk, &text(&disk).replace("m003", "M003"));
    disk.world().now += DAY;
    assert!(delete(&disk, &place, &[1]));
    disk.world().take_away(Path::new("/spool/.ann.idx"));
    assert!(open(&disk, &place).wants_compaction());
    let day = disk.world().now;
    disk.world().now = day - 400 * DAY;
    assert!(!open(&disk, &place).wants_compaction(), "what was seen in the future was not seen");
    disk.world().now = day - DAY / 2;
    assert!(open(&disk, &place).wants_compaction());
}

#[test]
fn a_message_equal_to_a_dead_one_to_the_last_byte_is_alive() {
    for lost_index in [false, true] {
        for visited in [false, true] {
            let (disk, place) = site(5);
            let before = uids(&disk, &place);
            let mut maildrop = open(&disk, &place);
            maildrop.delete(2).unwrap();
            maildrop.commit().unwrap();
            drop(maildrop);
            if visited {
                drop(open(&disk, &place));
            }
            disk.world().append(Path::new(DROP), letter(2).as_bytes());
            if lost_index {
                disk.world().take_away(Path::new("/spool/.ann.idx"));
            }
            let after = uids(&disk, &place);
            assert_eq!(after.len(), 5, "lost index: {lost_index}, visited: {visited}");
            assert_eq!((after[4].hash, after[4].occurrence), (before[1].hash, 1));
            open(&disk, &place).compact(&mut || true).unwrap();
            assert_eq!(uids(&disk, &place), after);
            assert_eq!(text(&disk), letter(1) + &letters(3..=5) + &letter(2));
        }
    }
}

#[test]
fn a_ledger_stays_short_although_nothing_is_compacted() {
    let (disk, place) = site(1);
    let (mut longest, mut anew) = (0, 0);
    let mut kept = uids(&disk, &place)[0];
    for round in 0..30 {
        let mail: String = (0..200).map(|k| letter(1000 + 200 * round + k)).collect();
        disk.world().append(Path::new(DROP), mail.as_bytes());
        for _ in 0..20 {
            delete(&disk, &place, &Vec::from_iter(2..=11));
        }
        // Another program takes out what we call dead.
        put(&disk, &letter(1));
        let bin = disk.world().inode_of(Path::new(BIN));
        let mut maildrop = open(&disk, &place);
        if disk.world().inode_of(Path::new(BIN)) != bin {
            anew += 1;
            assert!(
                matches!(Maildrop::open_on(&disk, &place), Err(Refused::InUse)),
                "the session has the ledger there is"
            );
            maildrop.delete(1).unwrap();
            maildrop.commit().unwrap();
            drop(maildrop);
            assert_eq!(open(&disk, &place).totals().messages, 0);
            assert_eq!(undelete_on(&disk, &place).unwrap().messages, 1);
        } else {
            drop(maildrop);
        }
        let left = uids(&disk, &place);
        assert_eq!((left.len(), left[0]), (1, std::mem::replace(&mut kept, left[0])));
        longest = longest.max(disk.world().bytes(Path::new(BIN)).len());
    }
    assert!(anew > 1);
    assert!((32 << 10..80 << 10).contains(&longest), "{longest} bytes");
    assert!(!disk.world().names(Path::new("/spool")).contains(&".ann.bin.new".to_owned()));
}
