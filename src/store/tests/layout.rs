//! Where bins lie, what becomes of them when that changes, and what is done without space for them.

use std::fs;
use std::path::{Path, PathBuf};

use super::sim::SimDisk;
use super::{Site, letter, rows};
use crate::rules::bulletins::Seen;
use crate::store::disk::Disk;
use crate::store::erase::erase_on;
use crate::store::maildrop::*;
use crate::store::rename::rename_user_on;

const DAY: i64 = 86_400_000_000_000;
const DROP: &str = "/spool/ann";
const INDEX: &str = "/spool/.ann.idx";

/// Where the bins of this site's drop lie below `bins`, with the two letters before or without.
fn bins(site: &Site, hashed: bool) -> PathBuf {
    let mut path = site.folder.path().join("bins");
    if hashed {
        let letters = crate::store::path::letters(site.place.drop.as_os_str().as_encoded_bytes());
        letters.iter().for_each(|letter| path.push((*letter as char).to_string()));
    }
    path.extend(site.place.drop.parent().unwrap().components().skip(1));
    path
}

fn site(hash_bindir: bool) -> Site {
    let mut site = Site::with(4);
    site.place.bin_path = Some(site.folder.path().join("bins"));
    site.place.hash_bindir = hash_bindir;
    site
}

#[test]
fn a_hashed_bin_lies_below_two_letters_and_the_whole_path() {
    let site = site(true);
    site.delete(&[1]);
    assert!(bins(&site, true).join(".ann.bin").exists());
    assert!(!bins(&site, false).exists());
    assert_eq!(site.open().totals().messages, 3);
}

#[test]
fn two_drops_never_share_a_bin_whatever_their_letters() {
    for hash_bindir in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let bin_path = folder.path().join("bins");
        // Enough that several pairs have the same two letters.
        let places: Vec<Place> = (0..120)
            .map(|k| {
                let dir = folder.path().join(format!("domain{k}"));
                fs::create_dir(&dir).unwrap();
                fs::write(dir.join("ann"), (1..=2).map(letter).collect::<String>()).unwrap();
                let place = Place::new(dir.join("ann"), folder.path().join("work"));
                Place { bin_path: Some(bin_path.clone()), hash_bindir, ..place }
            })
            .collect();
        for place in places.iter().step_by(2) {
            let mut maildrop = Maildrop::open(place).unwrap();
            maildrop.delete(1).unwrap();
            maildrop.commit().unwrap();
        }
        for (k, place) in places.iter().enumerate() {
            let maildrop = Maildrop::open(place).unwrap();
            assert_eq!((maildrop.totals().messages, maildrop.remarks()), (1 + (k % 2) as u32, vec![]), "{k}");
        }
    }
}

#[test]
fn a_changed_hash_bindir_takes_the_ledger_along_both_ways() {
    for first in [false, true] {
        let mut site = site(first);
        let before = site.uids();
        site.delete(&[2]);
        for (way, hashed) in [!first, first, !first].into_iter().enumerate() {
            site.place.hash_bindir = hashed;
            let maildrop = site.open();
            let left: Vec<Uid> = rows(&maildrop).iter().map(|row| row.uid).collect();
            assert_eq!(left, [before[0], before[2], before[3]], "{way}");
            assert_eq!(maildrop.remarks(), [Remark::BinMoved]);
            drop(maildrop);
            assert!(bins(&site, hashed).join(".ann.bin").exists());
            assert_eq!(fs::read_dir(bins(&site, !hashed)).unwrap().count(), 0, "nothing stays behind");
            assert_eq!(site.open().remarks(), []);
        }
    }
}

#[test]
fn a_bin_that_a_session_holds_at_its_old_place_is_in_use() {
    let mut site = site(false);
    let old = site.open();
    site.place.hash_bindir = true;
    assert!(matches!(Maildrop::open(&site.place), Err(Refused::InUse)));
    drop(old);
    assert_eq!(site.open().totals().messages, 4);
}

#[test]
fn a_link_or_a_second_name_at_the_old_place_is_not_taken_over() {
    for hard in [false, true] {
        let mut site = site(false);
        let target = site.folder.path().join("target");
        fs::write(&target, "untouched").unwrap();
        fs::create_dir_all(bins(&site, false)).unwrap();
        let planted = bins(&site, false).join(".ann.bin");
        if hard {
            fs::hard_link(&target, &planted).unwrap();
        } else {
            std::os::unix::fs::symlink(&target, &planted).unwrap();
        }
        site.place.hash_bindir = true;
        assert!(matches!(Maildrop::open(&site.place), Err(Refused::Unsafe(_))));
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }
}

/// A simulated spool in which others may write, so that bins lie below /work.
fn simulated() -> (SimDisk, Place) {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let text: String = (1..=4).map(letter).collect();
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    disk.world().now += DAY;
    let place = Place::new(PathBuf::from(DROP), PathBuf::from("/work"));
    (disk, Place { bin_path: Some("/bins".into()), ..place })
}

#[test]
fn a_move_that_is_interrupted_anywhere_loses_neither_ledger_nor_copy() {
    interrupted_move(false);
}

#[test]
fn nor_does_one_that_is_thought_better_of() {
    interrupted_move(true);
}

/// A bin with the copy of an interrupted compaction is moved, the move interrupted; then, `back`, the setting is as before.
fn interrupted_move(back: bool) {
    for n in 1.. {
        let (disk, mut place) = simulated();
        let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
        maildrop.delete(2).unwrap();
        maildrop.commit().unwrap();
        // Compaction is interrupted when the copy has its name, and the drop is half written.
        let mut copied = false;
        disk.world().actor = Some(Box::new(move |world, what| {
            copied |= what.starts_with("rename .ann.copy.new");
            if copied && what == "cut" {
                world.stop_at = Some(world.calls + 1);
            }
        }));
        assert!(maildrop.compact(&mut || true).is_err());
        disk.world().kill();
        let disk = disk.again();
        place.hash_bindir = true;
        let calls = disk.world().calls;
        disk.world().stop_at = Some(calls + n);
        let ended = Maildrop::open_on(&disk, &place).is_ok();
        disk.world().kill();
        let disk = disk.again();
        place.hash_bindir ^= back;
        let maildrop = Maildrop::open_on(&disk, &place).unwrap();
        assert_eq!(maildrop.totals().messages, 3, "stopped before call {n}");
        assert_eq!(disk.world().bytes(Path::new(DROP)), (letter(1) + &letter(3) + &letter(4)).as_bytes());
        if ended {
            assert!(n > 20);
            break;
        }
    }
}

#[test]
fn a_bin_made_under_the_other_setting_at_the_same_time_is_found() {
    let (disk, place) = simulated();
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    maildrop.delete(2).unwrap();
    maildrop.commit().unwrap();
    drop(maildrop);
    let ledger = disk.world().bytes(Path::new("/bins/spool/.ann.bin"));
    assert!(!ledger.is_empty());

    let (disk, place) = simulated();
    let [one, two] = crate::store::path::letters(DROP.as_bytes()).map(char::from);
    let elsewhere = PathBuf::from(format!("/bins/{one}/{two}/spool"));
    disk.make_dirs(&elsewhere).unwrap();
    let theirs = elsewhere.join(".ann.bin");
    let mut once = true;
    disk.world().actor = Some(Box::new(move |world, what| {
        // We looked for it there, and found none.
        if what == "open Create .ann.bin" && std::mem::take(&mut once) {
            world.put(&theirs, &ledger, true);
        }
    }));
    let maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (3, vec![Remark::BinMoved]));
}

fn letters_on(disk: &SimDisk, letters: usize) -> Place {
    let text: String = (1..=letters).map(letter).collect();
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    disk.world().now += DAY;
    Place { min_space_bytes: 1 << 20, ..Place::new(PathBuf::from(DROP), PathBuf::from("/work")) }
}

#[test]
fn below_min_space_no_index_is_written_and_reading_and_deleting_go_on() {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let place = letters_on(&disk, 5);
    disk.world().free = (1 << 20) - 1;
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (5, vec![Remark::ShortOfSpace]));
    assert_eq!(maildrop.is_short(), Some(true));
    assert!(disk.world().file(Path::new(INDEX)).is_none());
    assert_eq!(rows(&maildrop).len(), 5);
    maildrop.delete(2).unwrap();
    assert_eq!(maildrop.commit().unwrap().deleted, 1);
    let compacted = maildrop.compact(&mut || true).unwrap();
    assert_eq!(compacted, Compacted { waits_for_space: true, ..Compacted::default() });
    assert_eq!(disk.world().names(Path::new("/spool")), [".ann.bin", "ann"]);
    let maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert_eq!(maildrop.totals().messages, 4, "the deletion is in the ledger");
    drop(maildrop);
    // Exactly as much as is asked for is enough, for the index: not for the copy.
    disk.world().free = 1 << 20;
    let maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert_eq!((maildrop.remarks(), maildrop.is_short()), (vec![], Some(false)));
    assert!(disk.world().file(Path::new(INDEX)).is_some());
    assert!(maildrop.compact(&mut || true).unwrap().waits_for_space);
    disk.world().free = 2 << 20;
    let maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert!(maildrop.compact(&mut || true).unwrap().freed_bytes > 0);
    assert_eq!(Maildrop::open_on(&disk, &place).unwrap().totals().messages, 4);
}

#[test]
fn what_needs_next_to_no_copy_makes_room_also_below_min_space() {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let place = letters_on(&disk, 5);
    drop(Maildrop::open_on(&disk, &place).unwrap());
    disk.world().free = 0;
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    (3..=5).for_each(|number| maildrop.delete(number).unwrap());
    maildrop.commit().unwrap();
    assert!(maildrop.compact(&mut || true).unwrap().freed_bytes > 0);
    assert_eq!(disk.world().bytes(Path::new(DROP)), (letter(1) + &letter(2)).as_bytes());
    // What the index knew is of another day.
    assert!(disk.world().file(Path::new(INDEX)).is_none());
    assert_eq!(Maildrop::open_on(&disk, &place).unwrap().totals().messages, 2);
}

#[test]
fn below_min_space_the_old_index_stays_and_only_what_is_new_is_read() {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let place = letters_on(&disk, 200);
    drop(Maildrop::open_on(&disk, &place).unwrap());
    let index = disk.world().bytes(Path::new(INDEX));
    disk.world().free = 0;
    for round in 1..=3 {
        disk.world().append(Path::new(DROP), letter(200 + round).as_bytes());
        disk.world().now += DAY;
        let inode = disk.world().inode_of(Path::new(DROP));
        disk.world().read.remove(&inode);
        let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
        assert_eq!(rows(&maildrop).len(), 201);
        assert!(disk.world().read[&inode] < 4096);
        maildrop.delete(round as u32).unwrap();
        maildrop.commit().unwrap();
        assert_eq!(disk.world().bytes(Path::new(INDEX)), index);
    }
    disk.world().free = u64::MAX;
    let maildrop = Maildrop::open_on(&disk, &place).unwrap();
    assert_eq!(rows(&maildrop).len(), 200);
    drop(maildrop);
    assert_ne!(disk.world().bytes(Path::new(INDEX)), index);
}

#[test]
fn space_is_not_asked_for_when_nobody_watches_it() {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let place = Place { min_space_bytes: 0, ..letters_on(&disk, 2) };
    disk.world().free = 0;
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    maildrop.delete(1).unwrap();
    maildrop.commit().unwrap();
    assert!(maildrop.compact(&mut || true).unwrap().freed_bytes > 0);
    assert!(disk.world().trace.iter().all(|call| call != "free_bytes"));
}

/// Mail with one message deleted, its bin at the other place than `place` says.
fn elsewhere() -> (SimDisk, Place) {
    let (disk, place) = simulated();
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    maildrop.delete(2).unwrap();
    maildrop.commit().unwrap();
    drop(maildrop);
    (disk, Place { hash_bindir: true, ..place })
}

#[test]
fn a_mailbox_whose_bin_lies_at_the_other_place_is_erased_with_it() {
    let (disk, place) = elsewhere();
    assert!(erase_on(&disk, &place).unwrap().bytes > 0);
    assert_eq!(disk.world().names(Path::new("/spool")), Vec::<String>::new());
    assert_eq!(disk.world().names(Path::new("/bins/spool")), Vec::<String>::new());
}

#[test]
fn an_erasure_that_a_session_at_the_other_place_forbids_or_that_is_interrupted_forgets_no_deletion() {
    let (disk, place) = elsewhere();
    let session = Maildrop::open_on(&disk, &Place { hash_bindir: false, ..place.clone() }).unwrap();
    assert!(matches!(erase_on(&disk, &place), Err(Refused::InUse)));
    drop(session);
    for n in 1.. {
        let (disk, place) = elsewhere();
        let calls = disk.world().calls;
        disk.world().stop_at = Some(calls + n);
        let ended = erase_on(&disk, &place).is_ok();
        disk.world().kill();
        let left = Maildrop::open_on(&disk.again(), &place).unwrap().totals().messages;
        assert!([0, 3].contains(&left), "stopped before call {n}: {left}");
        if ended {
            break;
        }
    }
}

#[test]
fn a_mailbox_is_renamed_to_a_name_whose_bin_lies_at_the_other_place() {
    let (disk, place) = elsewhere();
    let new = Place { drop: "/spool/bob".into(), ..place.clone() };
    let lone = Place { hash_bindir: false, lone: true, ..new.clone() };
    let mut maildrop = Maildrop::open_on(&disk, &lone).unwrap();
    maildrop.remember(Some(Seen { epoch: 1, through: 1, beyond: 0 }));
    maildrop.commit().unwrap();
    drop(maildrop);
    assert!(rename_user_on(&disk, &place, &new).unwrap().bytes > 0);
    let maildrop = Maildrop::open_on(&disk, &new).unwrap();
    assert_eq!((maildrop.totals().messages, maildrop.bulletins()), (3, None));
    assert_eq!(disk.world().names(Path::new("/bins/spool")), Vec::<String>::new());
}
