//! The operator's acts: the dead called back, a mailbox erased, a mailbox renamed; each ended before each of its calls.

use std::path::{Path, PathBuf};

use super::deferral::{BIN, DROP, delete, letter, letters, open, put, site, text, uids};
use super::sim::SimDisk;
use crate::store::erase::{Erased, erase_on};
use crate::store::maildrop::*;
use crate::store::rename::{Renamed, rename_user_on};
use crate::store::undelete::{Undeleted, undelete_on};
use crate::text::number::Fraction;

const DAY: i64 = 86_400_000_000_000;
const BOB: &str = "/far/bob";

fn names(disk: &SimDisk) -> Vec<String> {
    disk.world().names(Path::new("/spool"))
}

/// Plays `act` ended before its n-th call, killed or without power, for every n; `judge` sees what is left, and whether `act` had
/// come to its end.
fn interrupted(
    site: impl Fn() -> (SimDisk, Place),
    act: impl Fn(&SimDisk, &Place) -> bool,
    judge: impl Fn(&SimDisk, &Place, bool, u64),
) {
    for (power, seed) in [(false, 1_u64), (true, 1), (true, 2), (true, 3), (true, 4)] {
        for n in 1.. {
            let (disk, place) = site();
            let calls = disk.world().calls;
            disk.world().random = (n + 1000 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            disk.world().stop_at = Some(calls + n);
            let ended = act(&disk, &place);
            if power {
                disk.world().cut_power()
            } else {
                disk.world().kill()
            }
            let disk = disk.again();
            disk.world().now += 1_100_000_000_000;
            judge(&disk, &place, ended, n);
            if ended {
                assert!(n > 10);
                break;
            }
        }
    }
}

#[test]
fn undelete_brings_back_what_is_still_in_the_drop_under_its_uids() {
    let (disk, place) = site(10);
    let before = uids(&disk, &place);
    assert_eq!(undelete_on(&disk, &place).unwrap(), Undeleted::default());
    delete(&disk, &place, &[1, 2]);
    open(&disk, &place).compact(&mut || true).unwrap();
    let octets: u64 = open(&disk, &place).lookup(1).run().unwrap()[..3].iter().map(|row| row.octets).sum();
    delete(&disk, &place, &[1, 2]);
    delete(&disk, &place, &[1]);
    let session = open(&disk, &place);
    assert!(matches!(undelete_on(&disk, &place), Err(Refused::InUse)));
    drop(session);
    disk.world().now += DAY;
    assert_eq!(undelete_on(&disk, &place).unwrap(), Undeleted { messages: 3, octets });
    disk.world().read.clear();
    assert_eq!(uids(&disk, &place), before[2..]);
    let inode = disk.world().inode_of(Path::new(DROP));
    assert!(!disk.world().read.contains_key(&inode), "the index knows them already");
    assert_eq!(undelete_on(&disk, &place).unwrap(), Undeleted::default());
    // And who is deleted once more is dead once more.
    delete(&disk, &place, &[1]);
    disk.world().take_away(Path::new("/spool/.ann.idx"));
    assert_eq!(uids(&disk, &place), before[3..]);
}

#[test]
fn undelete_of_repeated_messages_gives_each_its_own_uid() {
    let twin = |k: usize| letter(1).replace("s001", &format!("t{k:03}"));
    let (disk, place) = site(0);
    put(&disk, &(twin(1) + &twin(2) + &letter(9)));
    delete(&disk, &place, &[]);
    let before = uids(&disk, &place);
    delete(&disk, &place, &[1]);
    disk.world().append(Path::new(DROP), (twin(3) + &twin(1)).as_bytes());
    delete(&disk, &place, &[1, 3]);
    assert_eq!(uids(&disk, &place).len(), 2);
    assert_eq!(undelete_on(&disk, &place).unwrap().messages, 3);
    let after = uids(&disk, &place);
    assert_eq!(after[..3], before);
    assert_eq!((after[3].occurrence, after[4].occurrence), (2, 3));
    for _ in 0..2 {
        disk.world().take_away(Path::new("/spool/.ann.idx"));
        assert_eq!(uids(&disk, &place), after);
    }
}

#[test]
fn undelete_leaves_a_locked_drop_alone_and_other_mailboxes_too() {
    let (disk, place) = site(4);
    delete(&disk, &place, &[1]);
    disk.world().put(Path::new("/spool/ann.lock"), b"", true);
    assert!(matches!(undelete_on(&disk, &place), Err(Refused::Locked)));
    disk.world().take_away(Path::new("/spool/ann.lock"));
    assert_eq!(uids(&disk, &place).len(), 3);
    for drop in ["/spool/nobody", "/nowhere/ann"] {
        assert_eq!(undelete_on(&disk, &Place { drop: drop.into(), ..place.clone() }).unwrap(), Undeleted::default());
    }
    assert_eq!(names(&disk), [".ann.bin", ".ann.idx", "ann"]);
}

#[test]
fn an_undelete_that_is_interrupted_brings_back_all_or_none() {
    let site = || {
        let (disk, place) = site(6);
        delete(&disk, &place, &[2, 4]);
        (disk, place)
    };
    interrupted(
        site,
        |disk, place| undelete_on(disk, place).is_ok(),
        |disk, place, ended, n| {
            let left = uids(disk, place).len();
            assert!(left == 6 || !ended && left == 4, "{left} messages, stopped before call {n}");
            open(disk, place).compact(&mut || true).unwrap();
            assert_eq!(uids(disk, place).len(), left);
        },
    );
}

#[test]
fn an_erased_mailbox_leaves_nothing_and_its_mail_arriving_again_is_alive() {
    let (disk, place) = site(6);
    delete(&disk, &place, &[2, 4]);
    for other in [
        ".ann.copy",
        ".ann.copy.new",
        ".ann.bin.new",
        ".ann.copy.aside-0123456789abcdef",
        ".ann.bin.aside-fedcba9876543210",
    ] {
        disk.world().put(&Path::new("/spool").join(other), b"x", true);
    }
    let others = [".ann.bin.aside-mine", ".anna.bin", "anna"];
    for other in others {
        disk.world().put(&Path::new("/spool").join(other), b"x", true);
    }
    let session = open(&disk, &place);
    assert!(matches!(erase_on(&disk, &place), Err(Refused::InUse)));
    drop(session);
    disk.world().take_away(Path::new("/spool/ann.lock"));
    disk.world().put(Path::new("/spool/ann.lock"), b"", true);
    assert!(matches!(erase_on(&disk, &place), Err(Refused::Locked)));
    disk.world().take_away(Path::new("/spool/ann.lock"));
    let bytes = text(&disk).len() as u64;
    assert_eq!(erase_on(&disk, &place).unwrap(), Erased { bytes });
    assert_eq!(names(&disk), others);
    disk.world().cut_power();
    let disk = disk.again();
    assert_eq!(names(&disk), others);
    put(&disk, &letters(1..=6));
    assert_eq!(uids(&disk, &place).len(), 6);
    for drop in ["/spool/nobody", "/nowhere/ann"] {
        assert_eq!(erase_on(&disk, &Place { drop: drop.into(), ..place.clone() }).unwrap(), Erased::default());
    }
    assert!(!names(&disk).contains(&".nobody.bin".to_owned()));
}

#[test]
fn a_drop_in_a_directory_that_lets_us_take_nothing_away_is_emptied() {
    let (disk, place) = site(6);
    let place = Place { bin_path: Some("/bins".into()), locks: vec![LockKind::Fcntl], ..place };
    delete(&disk, &place, &[2]);
    disk.world().set_mode(Path::new("/spool"), 0o555);
    assert!(erase_on(&disk, &place).unwrap().bytes > 0);
    assert_eq!((names(&disk), text(&disk).as_str()), (vec!["ann".to_owned()], ""));
    assert!(disk.world().names(Path::new("/bins/spool")).is_empty());
}

#[test]
fn mail_from_a_program_without_locks_is_not_erased_with_what_was_there_before() {
    let (disk, place) = site(3);
    disk.world().actor = Some(Box::new(|world, what| {
        if what == "sync" && world.bytes(Path::new(DROP)).is_empty() {
            world.append(Path::new(DROP), letter(9).as_bytes());
        }
    }));
    erase_on(&disk, &place).unwrap();
    disk.world().actor = None;
    assert_eq!(text(&disk), letter(9));
}

#[test]
fn an_erasure_that_is_interrupted_brings_nothing_back_and_is_completed_by_the_next() {
    let site = || {
        let (disk, place) = site(6);
        delete(&disk, &place, &[2, 4]);
        (disk, place)
    };
    interrupted(
        site,
        |disk, place| erase_on(disk, place).is_ok(),
        |disk, place, ended, n| {
            let left = uids(disk, place).len();
            assert!(left == 0 || !ended && left == 4, "{left} messages, stopped before call {n}");
            erase_on(disk, place).unwrap();
            assert!(names(disk).is_empty(), "{:?}, stopped before call {n}", names(disk));
            put(disk, &letters(1..=6));
            assert_eq!(uids(disk, place).len(), 6);
        },
    );
}

fn bob(place: &Place) -> Place {
    Place { drop: PathBuf::from(BOB), ..place.clone() }
}

/// Ten messages, a repeated one among them, two dead; a directory to move to.
fn two_dirs() -> (SimDisk, Place) {
    two_dirs_with(None)
}

fn two_dirs_with(bins: Option<&str>) -> (SimDisk, Place) {
    let disk = SimDisk::new(7, &["/spool", "/work", "/far"]);
    put(&disk, &(letters(1..=9) + &letter(1).replace("s001", "s010")));
    disk.world().now += DAY;
    let place = Place { bin_path: bins.map(PathBuf::from), ..Place::new(PathBuf::from(DROP), PathBuf::from("/work")) };
    delete(&disk, &place, &[2, 4]);
    (disk, place)
}

#[test]
fn a_renamed_mailbox_keeps_its_uids_and_its_dead() {
    for to in [BOB, "/spool/bob"] {
        let (disk, place) = two_dirs();
        let bob = Place { drop: to.into(), ..place.clone() };
        let before = uids(&disk, &place);
        assert_eq!(before[7].occurrence, 1);
        for held in [&place, &bob] {
            if held.drop == bob.drop {
                // An empty mailbox was there before, and somebody looks into it.
                disk.world().put(&bob.drop, letter(1).as_bytes(), true);
            }
            let session = open(&disk, held);
            assert!(matches!(rename_user_on(&disk, &place, &bob), Err(Refused::InUse)));
            drop(session);
        }
        let refused = rename_user_on(&disk, &place, &bob);
        assert!(
            matches!(&refused, Err(Refused::Unsafe(fault)) if fault.to_string().contains("mail already")),
            "{refused:?}"
        );
        delete(&disk, &bob, &[1]);
        open(&disk, &bob).compact(&mut || true).unwrap();
        let bytes = text(&disk).len() as u64;
        assert_eq!(rename_user_on(&disk, &place, &bob).unwrap(), Renamed { bytes });
        assert!(!names(&disk).iter().any(|name| name.contains("ann")), "{:?}", names(&disk));
        assert_eq!(uids(&disk, &bob), before);
        assert_eq!(open(&disk, &bob).remarks(), []);
        // Who comes to the old name begins an empty mailbox.
        put(&disk, &letter(2));
        assert_eq!(uids(&disk, &place).len(), 1);
        assert_eq!(undelete_on(&disk, &bob).unwrap().messages, 2);
        assert_eq!(uids(&disk, &bob).len(), 10);
    }
}

#[test]
fn a_mailbox_that_nobody_opened_is_renamed_with_a_ledger_that_can_be_written_on() {
    let (disk, place) = site(3);
    assert!(rename_user_on(&disk, &place, &Place { drop: "/spool/bob".into(), ..place.clone() }).is_ok());
    let bob = Place { drop: "/spool/bob".into(), ..place };
    let number = disk.world().bytes(Path::new("/spool/.bob.bin"))[16..24].to_vec();
    assert!(number[2..] != [0; 6], "its number was drawn, and is no other's");
    delete(&disk, &bob, &[2]);
    disk.world().take_away(Path::new("/spool/.bob.idx"));
    let maildrop = open(&disk, &bob);
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (2, vec![]));
}

#[test]
fn a_mailbox_is_not_renamed_to_itself_to_nowhere_or_to_another_volume() {
    let (disk, place) = two_dirs();
    disk.world().set_volume(Path::new("/far"), 2);
    for (to, why) in [(DROP, "has that name"), ("/nowhere/bob", "directory is not there"), (BOB, "another volume")] {
        let refused = rename_user_on(&disk, &place, &Place { drop: to.into(), ..place.clone() });
        assert!(matches!(&refused, Err(Refused::Unsafe(fault)) if fault.to_string().contains(why)), "{refused:?}");
    }
    assert_eq!(uids(&disk, &place).len(), 8);
    let nobody = Place { drop: "/spool/nobody".into(), ..place.clone() };
    assert_eq!(rename_user_on(&disk, &nobody, &place).unwrap(), Renamed::default());
    assert_eq!(uids(&disk, &place).len(), 8);
}

#[test]
fn mail_that_comes_for_the_new_name_meanwhile_is_not_lost() {
    let (disk, place) = two_dirs();
    disk.world().actor = Some(Box::new(|world, what| {
        if what.starts_with("carry") && world.bytes(Path::new(BOB)).is_empty() {
            world.put(Path::new(BOB), letter(50).as_bytes(), true);
        }
    }));
    let refused = rename_user_on(&disk, &place, &bob(&place));
    disk.world().actor = None;
    assert!(
        matches!(&refused, Err(Refused::Unsafe(fault)) if fault.to_string().contains("mail already")),
        "{refused:?}"
    );
    assert_eq!((uids(&disk, &place).len(), uids(&disk, &bob(&place)).len()), (8, 1));
}

#[test]
fn a_renaming_that_is_interrupted_loses_nothing_and_is_completed_by_the_next() {
    for (dir, bins) in [("/far", None), ("/spool", None), ("/far", Some("/bins")), ("/spool", Some("/bins"))] {
        let two_dirs = || two_dirs_with(bins);
        let (disk, place) = two_dirs();
        let before = uids(&disk, &place);
        let bob = |place: &Place| Place { drop: Path::new(dir).join("bob"), ..place.clone() };
        let act = |disk: &SimDisk, place: &Place| rename_user_on(disk, place, &bob(place)).is_ok();
        interrupted(two_dirs, act, |disk, place, ended, n| {
            let (old, new) = (uids(disk, place), uids(disk, &bob(place)));
            let whole = if old.is_empty() { &new } else { &old };
            assert_eq!(whole, &before, "stopped before call {n}");
            assert!(old.is_empty() != new.is_empty() && !(ended && new.is_empty()), "stopped before call {n}");
            rename_user_on(disk, place, &bob(place)).unwrap();
            assert_eq!(
                (uids(disk, place).len(), uids(disk, &bob(place))),
                (0, before.clone()),
                "stopped before call {n}"
            );
            // Our own dotlock may be left: the next who comes sees that we are dead.
            let mut left = names(disk);
            left.extend(bins.map(|bins| disk.world().names(&Path::new(bins).join("spool"))).into_iter().flatten());
            left.retain(|name| name.contains("ann") && name != "ann.lock");
            assert!(left.is_empty(), "{left:?}, stopped before call {n}");
            assert_eq!(undelete_on(disk, &bob(place)).unwrap().messages, 2, "the dead came along");
        });
    }
}

#[test]
fn an_interrupted_compaction_is_completed_before_a_mailbox_is_renamed() {
    for n in 1.. {
        let (disk, place) = two_dirs();
        let before = uids(&disk, &place);
        let maildrop = open(&disk, &place);
        let calls = disk.world().calls;
        disk.world().stop_at = Some(calls + n);
        let ended = maildrop.compact(&mut || true).is_ok();
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        rename_user_on(&disk, &place, &bob(&place)).unwrap();
        assert_eq!(uids(&disk, &bob(&place)), before, "stopped before call {n}");
        assert!(!names(&disk).contains(&".ann.copy".to_owned()));
        if ended {
            break;
        }
    }
}

#[test]
fn a_threshold_of_none_keeps_what_undelete_may_want_back() {
    let (disk, place) = site(10);
    let place = Place { full: Fraction::NONE, ..place };
    for _ in 0..9 {
        assert!(!delete(&disk, &place, &[1]));
    }
    assert_eq!(undelete_on(&disk, &place).unwrap().messages, 9);
    assert_eq!(uids(&disk, &place).len(), 10);
    assert!(disk.world().bytes(Path::new(BIN)).len() < 2048);
}
