//! What is read, written and synced, and what others may do meanwhile: on the simulated disk, which counts.

use std::io;
use std::path::{Path, PathBuf};

use super::sim::SimDisk;
use crate::store::locks::STALE_NANOS;
use crate::store::maildrop::*;
use crate::text::bytes::Output;

const DROP: &str = "/spool/ann";
const DAY: i64 = 86_400_000_000_000;

fn letter(k: usize, lines: usize) -> String {
    let body: String = (0..lines).map(|line| format!("{k} {line} all work and no play\n")).collect();
    format!("From s{k}@x Mon Jan  5 10:00:00 2026\nSubject: m{k}\n\n{body}end\n\n")
}

fn site(letters: usize) -> (SimDisk, Place) {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let text: String = (1..=letters).map(|k| letter(k, 20)).collect();
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    disk.world().now += DAY;
    (disk, Place::new(PathBuf::from(DROP), PathBuf::from("/work")))
}

fn open(disk: &SimDisk, place: &Place) -> Maildrop<SimDisk> {
    Maildrop::open_on(disk, place).unwrap()
}

fn drop_bytes_read(disk: &SimDisk) -> u64 {
    let mut world = disk.world();
    let inode = world.inode_of(Path::new(DROP));
    world.read.remove(&inode).unwrap_or(0)
}

/// Writes, syncs, calls so far.
fn counts(disk: &SimDisk) -> (u64, u64, u64) {
    let world = disk.world();
    (world.writes, world.syncs, world.calls)
}

fn texts(disk: &SimDisk) -> Vec<u8> {
    disk.world().bytes(Path::new(DROP))
}

#[test]
fn an_unchanged_drop_is_opened_without_reading_it_and_without_a_write() {
    let (disk, place) = site(500);
    drop(open(&disk, &place));
    assert!(drop_bytes_read(&disk) > 0);
    let (writes, _, calls) = counts(&disk);
    let mut maildrop = open(&disk, &place);
    assert_eq!(maildrop.totals().messages, 500);
    assert_eq!(maildrop.page(1, Reach::Now).unwrap().len(), 64);
    assert_eq!(maildrop.commit().unwrap(), Commit::default());
    drop(maildrop);
    assert_eq!(drop_bytes_read(&disk), 0);
    let (writes_after, _, calls_after) = counts(&disk);
    assert_eq!(writes_after, writes);
    assert!(calls_after - calls < 24, "{} calls", calls_after - calls);
}

#[test]
fn a_grown_drop_is_scanned_from_its_last_from_line() {
    let (disk, place) = site(500);
    drop(open(&disk, &place));
    disk.world().append(Path::new(DROP), letter(501, 20).as_bytes());
    drop_bytes_read(&disk);
    assert_eq!(open(&disk, &place).totals().messages, 501);
    assert!(drop_bytes_read(&disk) < 4096);
}

#[test]
fn a_drop_that_grew_and_changed_before_its_old_end_is_scanned_as_a_whole() {
    let (disk, place) = site(1);
    let text = letter(1, 20) + &letter(2, 0) + &letter(3, 0);
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    disk.world().now += DAY;
    let before = open(&disk, &place).lookup(1).run().unwrap();
    // Same length, the last From_ line where it was, and more behind it.
    let edited = text.replace("m2", "n2") + &letter(4, 0);
    disk.world().put(Path::new(DROP), edited.as_bytes(), false);
    let after = open(&disk, &place).lookup(1).run().unwrap();
    assert_eq!(after.len(), 4);
    assert_eq!((before[0].uid, before[2].uid), (after[0].uid, after[2].uid));
    assert_ne!(before[1].uid, after[1].uid);
}

#[test]
fn an_index_older_than_the_ledger_lets_nobody_rise() {
    let (disk, place) = site(3);
    drop(open(&disk, &place));
    let old = disk.world().bytes(Path::new("/spool/.ann.idx"));
    disk.world().append(Path::new(DROP), (letter(4, 20) + &letter(5, 20)).as_bytes());
    let mut maildrop = open(&disk, &place);
    maildrop.delete(2).unwrap();
    maildrop.delete(4).unwrap();
    maildrop.commit().unwrap();
    let left: Vec<Uid> = maildrop
        .lookup(1)
        .run()
        .unwrap()
        .iter()
        .filter(|row| ![2, 4].contains(&row.number))
        .map(|row| row.uid)
        .collect();
    drop(maildrop);
    // The power went, and the index is what it was before: whole, and of another day.
    disk.world().put(Path::new("/spool/.ann.idx"), &old, false);
    let maildrop = open(&disk, &place);
    assert_eq!(maildrop.lookup(1).run().unwrap().iter().map(|row| row.uid).collect::<Vec<_>>(), left);
}

#[test]
fn totals_are_the_sum_of_the_rows_whenever_an_open_was_interrupted() {
    for n in 1.. {
        let (disk, place) = site(3);
        drop(open(&disk, &place));
        // The last message grows by blank lines, which its name does not notice.
        disk.world().append(Path::new(DROP), ("\n\n\n".to_owned() + &letter(4, 20)).as_bytes());
        disk.world().now += DAY;
        let calls = disk.world().calls;
        disk.world().stop_at = Some(calls + n);
        let ended = Maildrop::open_on(&disk, &place).is_ok();
        disk.world().kill();
        disk.world().now += DAY;
        let disk = disk.again();
        let maildrop = open(&disk, &place);
        let rows = maildrop.lookup(1).run().unwrap();
        assert_eq!(rows.iter().map(|row| row.octets).sum::<u64>(), maildrop.totals().octets, "stopped before call {n}");
        assert_eq!(rows.len(), 4);
        if ended {
            break;
        }
    }
}

#[test]
fn a_session_holds_the_ledger_that_has_the_name() {
    let (disk, place) = site(3);
    drop(open(&disk, &place));
    let mut once = true;
    disk.world().actor = Some(Box::new(move |world, what| {
        // Another session wrote the ledger anew between our opening and our locking it.
        if what.starts_with("try_lock") && std::mem::take(&mut once) {
            let bytes = world.bytes(Path::new("/spool/.ann.bin"));
            world.put(Path::new("/spool/.ann.bin"), &bytes, true);
        }
    }));
    let first = open(&disk, &place);
    disk.world().actor = None;
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::InUse)));
    drop(first);
}

#[test]
fn a_drop_replaced_while_it_is_being_opened_is_opened_again() {
    let (disk, place) = site(3);
    let mut once = true;
    disk.world().actor = Some(Box::new(move |world, what| {
        if what == "open CreateNew .ann.lock.new" && std::mem::take(&mut once) {
            world.put(Path::new(DROP), (letter(7, 1) + &letter(8, 1)).as_bytes(), true);
        }
    }));
    let maildrop = open(&disk, &place);
    disk.world().actor = None;
    assert_eq!(maildrop.totals().messages, 2);
    drop(maildrop);
    disk.world().now += DAY;
    assert_eq!(open(&disk, &place).totals().messages, 2);
}

#[test]
fn nothing_is_destroyed_that_is_not_what_index_and_ledger_say() {
    let (disk, place) = site(6);
    let mut maildrop = open(&disk, &place);
    maildrop.delete(2).unwrap();
    maildrop.delete(5).unwrap();
    maildrop.commit().unwrap();
    // Bytes rot or are changed so that no time and no size tells.
    let rotten = String::from_utf8(texts(&disk)).unwrap().replace("m5", "n5");
    disk.world().file(Path::new(DROP)).unwrap().data = rotten.clone().into_bytes();
    assert!(matches!(maildrop.compact(&mut || true), Err(Refused::Fault(fault)) if fault.doing == "compacting"));
    assert!(texts(&disk) == rotten.as_bytes());
    // What was deleted is not in the drop any more, and what is there was never deleted.
    assert_eq!(open(&disk, &place).totals().messages, 5);
}

#[test]
fn a_change_within_the_clocks_step_is_not_missed() {
    let (disk, place) = site(3);
    let now = disk.world().now;
    let text = texts(&disk);
    disk.world().put(Path::new(DROP), &text, false);
    let before = open(&disk, &place).lookup(1).run().unwrap();
    // The same size and the same times, to the nanosecond.
    let edited = String::from_utf8(texts(&disk)).unwrap().replace("m2", "n2");
    disk.world().put(Path::new(DROP), edited.as_bytes(), false);
    assert_eq!(disk.world().now, now);
    let after = open(&disk, &place).lookup(1).run().unwrap();
    assert_ne!(before[1].uid, after[1].uid);
    assert_eq!((before[0].uid, before[2].uid), (after[0].uid, after[2].uid));
}

#[test]
fn compaction_leaves_an_index_that_the_next_session_believes() {
    let (disk, place) = site(50);
    let mut maildrop = open(&disk, &place);
    [3, 4, 50].into_iter().for_each(|number| maildrop.delete(number).unwrap());
    let rows = maildrop.lookup(1).run().unwrap();
    maildrop.commit().unwrap();
    maildrop.compact(&mut || true).unwrap();
    drop_bytes_read(&disk);
    let maildrop = open(&disk, &place);
    assert_eq!(drop_bytes_read(&disk), 0);
    let left: Vec<Uid> = rows.iter().filter(|row| ![3, 4, 50].contains(&row.number)).map(|row| row.uid).collect();
    assert_eq!(maildrop.lookup(1).run().unwrap().iter().map(|row| row.uid).collect::<Vec<_>>(), left);
    drop(maildrop);
    disk.world().append(Path::new(DROP), letter(51, 1).as_bytes());
    assert_eq!(open(&disk, &place).totals().messages, 48);
}

#[test]
fn quit_with_deletions_is_one_append_and_one_sync() {
    let (disk, place) = site(100);
    let text = texts(&disk);
    for round in 0..3 {
        let mut maildrop = open(&disk, &place);
        (1..=10).for_each(|number| maildrop.delete(number).unwrap());
        let (writes, syncs, _) = counts(&disk);
        let commit = maildrop.commit().unwrap();
        assert!(!commit.wants_compaction && texts(&disk) == text, "the drop is not written");
        assert_eq!(disk.world().writes - writes, 1);
        // The first record's file is new, and so is its name.
        assert_eq!(disk.world().syncs - syncs, if round == 0 { 2 } else { 1 });
    }
}

#[test]
fn many_deferred_deletions_cost_an_opening_nothing_of_the_drop() {
    let (disk, place) = site(500);
    drop(open(&disk, &place));
    drop_bytes_read(&disk);
    for round in 1..=20 {
        disk.world().now += DAY;
        let mut maildrop = open(&disk, &place);
        let rows = maildrop.lookup(1).run().unwrap();
        assert_eq!(
            (rows[0].octets, maildrop.totals().messages),
            (maildrop.row(1, Reach::Wait).unwrap().unwrap().octets, 510 - 10 * round)
        );
        (1..=10).for_each(|number| maildrop.delete(number).unwrap());
        assert!(!maildrop.commit().unwrap().wants_compaction, "round {round}");
        // Others have the drop: who only looks into the index need not care.
        disk.world().put(Path::new("/spool/ann.lock"), b"", true);
        let trace = disk.world().trace.len();
        drop(maildrop);
        let maildrop = open(&disk, &place);
        assert_eq!(maildrop.totals().messages, 500 - 10 * round);
        assert!(!disk.world().trace[trace..].iter().any(|call| call.contains("ann.lock")));
        disk.world().take_away(Path::new("/spool/ann.lock"));
        let (writes, _, calls) = counts(&disk);
        drop(maildrop);
        drop(open(&disk, &place));
        let (writes_after, _, calls_after) = counts(&disk);
        assert!(writes_after == writes && calls_after - calls < 24, "{} calls", calls_after - calls);
    }
    assert_eq!(drop_bytes_read(&disk), 0);
}

#[test]
fn a_sync_that_fails_is_a_fault_and_is_not_tried_again() {
    let (disk, place) = site(4);
    let mut maildrop = open(&disk, &place);
    maildrop.delete(1).unwrap();
    maildrop.delete(3).unwrap();
    let calls = disk.world().calls;
    // Read of the index, write, sync.
    disk.world().fail_at = Some((calls + 3, io::ErrorKind::Other));
    let fault = maildrop.commit().unwrap_err();
    assert_eq!(fault.doing, "syncing");
    assert_eq!(disk.world().syncs, 0);
    drop(maildrop);
    let left = open(&disk, &place).totals().messages;
    assert!(left == 2 || left == 4, "all or none: {left}");
}

#[test]
fn a_full_disk_stops_no_reader() {
    let (disk, place) = site(70);
    let before = open(&disk, &place).lookup(1).run().unwrap();
    disk.world().append(Path::new(DROP), letter(71, 3).as_bytes());
    disk.world().full = true;
    let mut maildrop = open(&disk, &place);
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (71, vec![Remark::IndexInMemory]));
    assert_eq!(maildrop.lookup(1).run().unwrap(), before);
    let names = disk.world().names(Path::new("/spool"));
    assert!(!names.contains(&".ann.idx".to_owned()), "an index that could not be renewed is not left behind");
    maildrop.delete(71).unwrap();
    assert_eq!(maildrop.commit().unwrap_err().source.kind(), io::ErrorKind::StorageFull);
    drop(maildrop);
    // A second message of one text needs a name that is written down before anybody sees it.
    disk.world().append(Path::new(DROP), letter(5, 20).replace("s5@", "s72@").as_bytes());
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Fault(fault)) if fault.doing == "writing"));
    disk.world().full = false;
    let maildrop = open(&disk, &place);
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (72, vec![]));
}

#[test]
fn what_is_not_in_memory_is_left_to_a_job() {
    let (disk, place) = site(3);
    let mut maildrop = open(&disk, &place);
    disk.world().cold = true;
    assert!(matches!(maildrop.page(1, Reach::Now), Err(Miss::Cold)));
    assert!(matches!(maildrop.row(1, Reach::Now), Err(Miss::Cold)));
    assert!(matches!(maildrop.reader(1, None, Reach::Now), Err(Miss::Cold)));
    assert!(matches!(maildrop.delete(1), Err(NotDeleted::Missed(Miss::Cold))));
    assert_eq!(maildrop.lookup(2).run().unwrap().len(), 2);
    let mut reader = maildrop.reader(2, None, Reach::Wait).unwrap();
    let mut out = Output::default();
    let mut fetched = 0;
    loop {
        match reader.pull(&mut [0; 1024], &mut out) {
            Ok(Pulled::Last) => break,
            Ok(Pulled::More) => {}
            Err(Miss::Cold) => {
                let job = reader.fetch();
                reader.supply(std::thread::spawn(move || job.run()).join().unwrap().unwrap());
                fetched += 1;
            }
            Err(miss) => panic!("{miss:?}"),
        }
    }
    assert_eq!((fetched, out.len() as u64 - 3), (1, reader.octets()));
}

#[test]
fn an_error_in_the_middle_of_a_message_is_a_fault() {
    let (disk, place) = site(1);
    disk.world().put(Path::new(DROP), letter(1, 200).as_bytes(), false);
    let maildrop = open(&disk, &place);
    let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
    let mut out = Output::default();
    assert_eq!(reader.pull(&mut [0; 1024], &mut out).unwrap(), Pulled::More);
    let calls = disk.world().calls;
    disk.world().fail_at = Some((calls + 1, io::ErrorKind::Other));
    assert!(matches!(reader.pull(&mut [0; 1024], &mut out), Err(Miss::Fault(fault)) if fault.doing == "reading"));
}

#[test]
fn mail_that_a_program_without_locks_appends_during_compaction_moves_down_too() {
    // At every call of a compaction but the cut itself, behind whose last look nothing can be done.
    for at in 1.. {
        let (disk, place) = site(6);
        let mut maildrop = open(&disk, &place);
        maildrop.delete(2).unwrap();
        maildrop.delete(5).unwrap();
        maildrop.commit().unwrap();
        let mut calls = 0;
        let came = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = std::sync::Arc::clone(&came);
        disk.world().actor = Some(Box::new(move |world, what| {
            calls += 1;
            if calls == at && what != "cut" {
                world.append(Path::new(DROP), letter(7, 400).as_bytes());
                flag.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }));
        maildrop.compact(&mut || true).unwrap();
        let over = disk.world().actor.take();
        drop(over);
        let came = came.load(std::sync::atomic::Ordering::Relaxed);
        let mut expected: String = [1, 3, 4, 6].iter().map(|&k| letter(k, 20)).collect();
        if came {
            expected += &letter(7, 400);
        }
        assert!(texts(&disk) == expected.as_bytes(), "mail came at call {at}");
        let maildrop = open(&disk, &place);
        assert_eq!(maildrop.totals().messages, 4 + u32::from(came), "mail came at call {at}");
        assert!(!disk.world().names(Path::new("/spool")).contains(&".ann.copy".to_owned()));
        if !came && at > 20 {
            let calls = disk.world().trace.len();
            if at > calls {
                break;
            }
        }
    }
}

/// A compaction ended before its n-th call, counted from the first.
fn interrupted(n: u64) -> (SimDisk, Place, bool) {
    let (disk, place) = site(8);
    let mut maildrop = open(&disk, &place);
    [2, 3, 6].into_iter().for_each(|number| maildrop.delete(number).unwrap());
    maildrop.commit().unwrap();
    let calls = disk.world().calls;
    disk.world().stop_at = Some(calls + n);
    let ended = maildrop.compact(&mut || true).is_ok();
    disk.world().kill();
    (disk.again(), place, ended)
}

#[test]
fn a_copy_is_set_aside_when_others_changed_the_drop_since() {
    let mut aside = 0;
    for n in 1.. {
        let (disk, place, ended) = interrupted(n);
        if ended {
            break;
        }
        if !disk.world().names(Path::new("/spool")).contains(&".ann.copy".to_owned()) {
            continue;
        }
        // Somebody took the first message out, and with it everything moved; or changed a flag in it, and nothing did; or put
        // another file in its place.
        let rest = match n % 3 {
            0 => texts(&disk)[letter(1, 20).len()..].to_vec(),
            1 => String::from_utf8(texts(&disk)).unwrap().replacen("m1", "n1", 1).into_bytes(),
            _ => texts(&disk),
        };
        disk.world().put(Path::new(DROP), &rest, n % 3 == 2);
        disk.world().now += 400_000_000_000;
        let maildrop = open(&disk, &place);
        assert!(maildrop.remarks().contains(&Remark::CopySetAside), "stopped before call {n}");
        assert_eq!(texts(&disk), rest, "the drop is left as it is");
        assert!(disk.world().names(Path::new("/spool")).iter().any(|name| name.starts_with(".ann.copy.aside-")));
        aside += 1;
    }
    assert!(aside > 3);
}

#[test]
fn an_interrupted_compaction_is_completed_before_the_drop_is_served() {
    let (mut recovered, mut begun) = (0, 0);
    for n in 1.. {
        let (disk, place, ended) = interrupted(n);
        if ended {
            break;
        }
        let has = |name: &str| disk.world().names(Path::new("/spool")).contains(&name.to_owned());
        let copy = has(".ann.copy");
        begun += u32::from(has(".ann.copy.new"));
        disk.world().append(Path::new(DROP), letter(9, 20).as_bytes());
        disk.world().now += 400_000_000_000;
        let maildrop = open(&disk, &place);
        // With the mail that came it may not be due any more: nobody else would take the beginnings away.
        assert!(!has(".ann.copy.new"), "stopped before call {n}");
        assert_eq!(maildrop.totals().messages, 6, "stopped before call {n}");
        assert_eq!(maildrop.remarks().contains(&Remark::Recovered), copy, "stopped before call {n}");
        if copy {
            let expected: String = [1, 4, 5, 7, 8, 9].iter().map(|&k| letter(k, 20)).collect();
            assert!(texts(&disk) == expected.as_bytes(), "stopped before call {n}");
            recovered += 1;
        }
    }
    assert!(recovered > 5 && begun > 3);
}

#[test]
fn a_burial_is_never_lost_between_the_cut_and_the_ledger() {
    // Everything is dead; the very same message comes again after the crash.
    for n in 1.. {
        let (disk, place) = site(1);
        let mut maildrop = open(&disk, &place);
        maildrop.delete(1).unwrap();
        maildrop.commit().unwrap();
        let calls = disk.world().calls;
        disk.world().stop_at = Some(calls + n);
        let ended = maildrop.compact(&mut || true).is_ok();
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 400_000_000_000;
        let empty = texts(&disk).is_empty();
        let again = letter(1, 20).replace("s1@x", "s2@x");
        disk.world().append(Path::new(DROP), again.as_bytes());
        let maildrop = open(&disk, &place);
        assert_eq!(maildrop.totals().messages, 1, "stopped before call {n}, cut: {empty}");
        if ended {
            break;
        }
    }
}

#[test]
fn a_long_ledger_is_written_anew_and_says_the_same() {
    let (disk, place) = site(1);
    let mut longest = 0;
    for round in 0..12u64 {
        let text: String = (0..400).map(|k| letter(1000 * round as usize + k, 1)).collect();
        disk.world().append(Path::new(DROP), text.as_bytes());
        disk.world().now += DAY;
        let mut maildrop = open(&disk, &place);
        let count = maildrop.totals().messages;
        (2..=count).for_each(|number| maildrop.delete(number).unwrap());
        maildrop.commit().unwrap();
        longest = longest.max(disk.world().bytes(Path::new("/spool/.ann.bin")).len());
        maildrop.compact(&mut || true).unwrap();
        assert_eq!(open(&disk, &place).totals().messages, 1);
    }
    assert!(longest > 50_000 && disk.world().bytes(Path::new("/spool/.ann.bin")).len() < longest);
    drop_bytes_read(&disk);
    drop(open(&disk, &place));
    assert_eq!(drop_bytes_read(&disk), 0, "the index knows the new ledger");
    assert!(!disk.world().names(Path::new("/spool")).contains(&".ann.bin.new".to_owned()));
}

#[test]
fn a_long_scan_shows_that_it_lives() {
    let (disk, place) = site(1);
    disk.world().put(Path::new(DROP), letter(1, 300_000).as_bytes(), false);
    let mut touched = 0;
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&seen);
    disk.world().actor = Some(Box::new(move |world, what| {
        world.now += 3_000_000_000;
        touched += u32::from(what == "set_times");
        count.store(touched, std::sync::atomic::Ordering::Relaxed);
        if let Some(lock) = world.file(Path::new("/spool/ann.lock")) {
            let age = lock.mtime;
            assert!(world.now - age < 120_000_000_000, "others would find our lock stale");
        }
    }));
    drop(open(&disk, &place));
    disk.world().actor = None;
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed) > 1);
}

/// A spool of root's, a drop of user 9's in it, and we are user 7.
fn foreign(letters: usize) -> (SimDisk, Place) {
    let (disk, mut place) = site(letters);
    disk.world().file(Path::new(DROP)).unwrap().uid = 9;
    disk.world().hand = Some(Vec::new());
    place.owner = Some(9);
    (disk, place)
}

fn asked(disk: &SimDisk) -> Vec<&'static str> {
    disk.world().hand.replace(Vec::new()).unwrap()
}

#[test]
fn another_users_drop_is_opened_locked_and_emptied_by_the_hand_and_its_bin_is_ours() {
    let (disk, place) = foreign(3);
    let mut maildrop = open(&disk, &place);
    // The first time it is looked at before a bin is made.
    assert_eq!(asked(&disk), ["open", "open", "lock", "unlock"]);
    maildrop.delete(2).unwrap();
    maildrop.commit().unwrap();
    maildrop.compact(&mut || true).unwrap();
    assert_eq!(asked(&disk), ["open", "lock", "unlock"]);
    assert_eq!(texts(&disk), (letter(1, 20) + &letter(3, 20)).into_bytes());
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
    assert_eq!(disk.world().names(Path::new("/work/bin/spool")), [".ann.bin", ".ann.idx"]);
}

#[test]
fn what_the_hand_refuses_is_refused_for_good_and_without_an_owner_it_is_not_asked() {
    let (disk, mut place) = foreign(3);
    place.owner = Some(8);
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Unsafe(_))));
    assert_eq!(asked(&disk), ["open"]);
    place.owner = None;
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Fault(_))));
    assert_eq!(asked(&disk), [""; 0]);
}

#[test]
fn a_lock_that_we_may_not_read_is_judged_by_its_age() {
    let (disk, place) = foreign(3);
    disk.world().put(Path::new("/spool/ann.lock"), b"4711", false);
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Locked)));
    assert_eq!(asked(&disk), ["open", "open", "lock"]);
    disk.world().now += STALE_NANOS;
    assert_eq!(open(&disk, &place).totals().messages, 3);
    // The hand judges, as we would.
    assert_eq!(asked(&disk), ["open", "lock", "unlock"]);
    // One of ours, left by a server that died.
    disk.world().put(Path::new("/spool/ann.lock"), b"dmail 77 77 sim\n", false);
    disk.world().file(Path::new("/spool/ann.lock")).unwrap().uid = 7;
    disk.world().put(Path::new("/work/bin/spool/.ann.idx"), b"", false);
    assert_eq!(open(&disk, &place).totals().messages, 3);
    assert_eq!(asked(&disk), ["open", "lock", "unlock"]);
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
}

#[test]
fn where_each_removes_his_own_the_hand_removes_what_others_left() {
    let (disk, place) = foreign(3);
    disk.world().sticky = true;
    assert_eq!(open(&disk, &place).totals().messages, 3);
    assert_eq!(asked(&disk), ["open", "open"], "we make the lock, and take it away");
    disk.world().put(Path::new("/spool/ann.lock"), b"4711", false);
    disk.world().put(Path::new("/work/bin/spool/.ann.idx"), b"", false);
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Locked)));
    assert_eq!(asked(&disk), ["open"], "it is not stale");
    disk.world().now += STALE_NANOS;
    assert_eq!(open(&disk, &place).totals().messages, 3);
    assert_eq!(asked(&disk), ["open", "unlock"]);
    // The first name of somebody who was killed, and was not us.
    disk.world().put(Path::new("/spool/.ann.lock.new"), b"", false);
    disk.world().put(Path::new("/work/bin/spool/.ann.idx"), b"", false);
    disk.world().now += STALE_NANOS;
    assert_eq!(open(&disk, &place).totals().messages, 3);
    assert_eq!(asked(&disk), ["open", "lock"]);
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
}

#[test]
fn erasing_and_calling_back_work_by_the_hand_and_renaming_says_what_it_needs() {
    let (disk, place) = foreign(3);
    let mut maildrop = open(&disk, &place);
    maildrop.delete(2).unwrap();
    maildrop.commit().unwrap();
    drop(maildrop);
    assert_eq!(undelete_on(&disk, &place).unwrap().messages, 1);
    let bob = Place { drop: "/spool/bob".into(), ..place.clone() };
    asked(&disk);
    let Err(Refused::Unsafe(fault)) = rename_user_on(&disk, &place, &bob) else { panic!("nobody may rename there") };
    assert!(fault.to_string().contains("let it write to the directory"), "{fault}");
    let other = Place { owner: Some(10), ..bob };
    let Err(Refused::Unsafe(fault)) = rename_user_on(&disk, &place, &other) else { panic!("it is uid 9's") };
    assert!(fault.to_string().contains("must be uid 10's"), "{fault}");
    assert_eq!(open(&disk, &place).totals().messages, 3, "all is as it was");
    assert!(erase_on(&disk, &place).unwrap().bytes > 0);
    assert_eq!(disk.world().bytes(Path::new("/spool/ann")), b"", "empty, where nobody may remove it");
    assert_eq!(open(&disk, &place).totals().messages, 0);
}
