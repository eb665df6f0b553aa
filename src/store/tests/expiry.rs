//! What goes with a commit because it is old, or was fetched.

use std::fs;
use std::path::{Path, PathBuf};

use super::sim::SimDisk;
use super::{Site, letter, rows};
use crate::store::maildrop::*;

/// Noon of that day in January 2026, UTC.
fn noon(day: i64) -> i64 {
    1_767_225_600 + (day - 1) * 86_400 + 43_200
}

fn dated(k: usize, date: &str) -> String {
    letter(k).replacen("Mon Jan  5 10:00:00 2026", date, 1)
}

/// Days 3, 7, none in the calendar, 2, 9.
fn spool() -> String {
    [
        "Sat Jan  3 12:00:00 2026 GMT",
        "Wed Jan  7 12:00:00 2026 +0000",
        "Wed Feb 31 12:00:00 2024",
        "Fri Jan  2 12:00:00 2026",
        "Fri Jan  9 12:00:00 2026 GMT",
    ]
    .iter()
    .enumerate()
    .map(|(k, date)| dated(k + 1, date))
    .collect()
}

fn site() -> Site {
    let site = Site::new();
    fs::write(&site.place.drop, spool()).unwrap();
    site
}

fn marked(maildrop: &Maildrop) -> Vec<u32> {
    rows(maildrop).iter().filter(|row| row.deleted).map(|row| row.number).collect()
}

#[test]
fn what_is_older_goes_with_the_commit_and_what_has_no_date_stays() {
    let site = site();
    let uids = site.uids();
    for (before, old) in [
        (noon(2), vec![]),
        // Without a zone the fourth may be of half a day later.
        (noon(2) + 43_200, vec![]),
        (noon(3), vec![4]),
        (noon(3) + 1, vec![1, 4]),
        (noon(7) + 1, vec![1, 2, 4]),
        (i64::MAX, vec![1, 2, 4, 5]),
        (i64::MIN, vec![]),
    ] {
        let mut maildrop = site.open();
        assert_eq!(maildrop.expire(before, &mut |_| true).unwrap() as usize, old.len());
        assert_eq!(marked(&maildrop), old, "{before}");
        assert_eq!(maildrop.live_totals().messages as usize, 5 - old.len());
    }
    let mut maildrop = site.open();
    maildrop.delete(5).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let allows = &mut |number| {
        asked.borrow_mut().push(number);
        number != 4
    };
    assert_eq!(maildrop.expire(noon(8), allows).unwrap(), 2);
    assert_eq!(*asked.borrow(), [1, 2, 3, 4], "who is marked is not asked about");
    let commit = maildrop.commit().unwrap();
    assert_eq!(commit.deleted, 3);
    drop(maildrop);
    assert_eq!(site.uids(), uids[2..4]);
    site.compact();
    assert_eq!(site.uids(), uids[2..4]);
}

#[test]
fn what_was_fetched_goes_with_the_commit() {
    let site = site();
    let mut maildrop = site.open();
    maildrop.delete(1).unwrap();
    assert_eq!(maildrop.mark_all([2, 2, 1, 5, 6, 0, u32::MAX]).unwrap(), 2);
    assert_eq!(marked(&maildrop), [1, 2, 5]);
    let all = rows(&maildrop);
    assert_eq!(maildrop.live_totals().octets, all[2].octets + all[3].octets);
    assert_eq!(maildrop.commit().unwrap().deleted, 3);
    assert_eq!(maildrop.mark_all([]).unwrap(), 0);
}

#[test]
fn an_empty_mailbox_has_nothing_old() {
    let site = Site::new();
    assert_eq!(site.open().expire(i64::MAX, &mut |_| true).unwrap(), 0);
    assert_eq!(site.open().mark_all([1, 2]).unwrap(), 0);
}

#[test]
fn a_drop_that_was_changed_marks_nothing() {
    let site = site();
    let mut maildrop = site.open();
    fs::write(&site.place.drop, format!("{}{}", letter(9), site.text())).unwrap();
    assert!(matches!(maildrop.expire(i64::MAX, &mut |_| true), Err(Miss::Changed)));
    fs::write(&site.place.drop, "").unwrap();
    assert!(matches!(maildrop.expire(i64::MAX, &mut |_| true), Err(Miss::Changed)));
    assert_eq!(maildrop.deletions(), 0);
}

#[test]
fn only_from_lines_are_read() {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let body = "all work and no play\n".repeat(1000);
    let text: String = (1..=150).map(|k| format!("From s{k}@x Mon Jan  5 10:00:00 2026\nA: b\n\n{body}\n")).collect();
    let drop = Path::new("/spool/ann");
    disk.world().put(drop, text.as_bytes(), false);
    let place = Place::new(PathBuf::from(drop), PathBuf::from("/work"));
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    let inode = disk.world().inode_of(drop);
    disk.world().read.remove(&inode);
    assert_eq!(maildrop.expire(noon(9), &mut |_| true).unwrap(), 150);
    let read = disk.world().read[&inode];
    assert!(read < 150 * 64, "{read} bytes");
}
