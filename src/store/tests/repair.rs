//! What `dmail repair` finds and does, with damage of each kind.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Site, letter, rows};
use crate::store::disk::{Disk, RealDisk};
use crate::store::maildrop::*;
use crate::store::repair::{Report, Wish, repair_on};

const LOOK: Wish = Wish { look_only: true, compact: false };
const MEND: Wish = Wish { look_only: false, compact: false };
const COMPACT: Wish = Wish { look_only: false, compact: true };

fn repair(place: &Place, wish: Wish) -> Result<Report, Refused> {
    repair_on(&RealDisk::default(), place, wish)
}

/// Everything in the spool, name and bytes.
fn everything(site: &Site) -> Vec<(String, Vec<u8>)> {
    site.names().into_iter().map(|name| (name.clone(), fs::read(site.beside(&name)).unwrap_or_default())).collect()
}

/// Looks (which changes nothing, and finds something or not), then mends (which leaves nothing), then finds all in order.
fn mended(site: &Site, finds: bool) -> Report {
    let before = everything(site);
    let looked = repair(&site.place, LOOK).unwrap();
    assert_eq!(everything(site), before, "looking changes nothing: {looked:?}");
    assert_eq!(looked.in_order, !finds, "{looked:?}");
    let mended = repair(&site.place, MEND).unwrap();
    assert!(mended.in_order, "{mended:?}");
    let again = repair(&site.place, LOOK).unwrap();
    assert!(again.in_order, "{again:?}");
    mended
}

fn says(report: &Report, what: &str) {
    assert!(report.lines.iter().any(|line| line.contains(what)), "{what:?} is not in {:#?}", report.lines);
}

/// Three of five messages, two deleted, not compacted.
fn used() -> (Site, Vec<Uid>) {
    let site = Site::with(5);
    let before = site.uids();
    site.delete(&[2]);
    site.delete(&[3]);
    let left = [before[0], before[2], before[4]];
    assert_eq!(site.uids(), left);
    (site, left.to_vec())
}

#[test]
fn a_ledger_whose_opening_is_damaged_stays_its_drops_when_it_is_written_anew() {
    let (site, left) = used();
    let path = site.beside(".ann.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20..28].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let report = mended(&site, true);
    assert_eq!(site.uids(), left, "deletions that can still be read count: {report:?}");
}

#[test]
fn a_maildrop_in_order_is_described_and_left_as_it_is() {
    let (site, left) = used();
    let report = mended(&site, false);
    says(&report, "the ledger names 2 deleted messages");
    // Written a moment ago, it might miss what another program wrote in the same moment.
    says(&report, "the index was brought up to date: messages: 3");
    let dead = letter(2).len() + letter(4).len();
    let live = site.text().len() - dead;
    says(&report, &format!("messages: 3 live ({live} bytes), 2 dead ({dead} bytes, which"));
    assert_eq!(report.lines.len(), 3);
    let compacted = repair(&site.place, COMPACT).unwrap();
    assert!(compacted.in_order);
    says(&compacted, &format!("compacted: {dead} bytes left the drop"));
    assert_eq!(site.text(), letter(1) + &letter(3) + &letter(5));
    assert_eq!(site.uids(), left);
    says(&repair(&site.place, COMPACT).unwrap(), "compacted: 0 bytes");
}

#[test]
fn an_absent_and_a_damaged_index_are_written_anew() {
    let (site, left) = used();
    let index = site.beside(".ann.idx");
    let good = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    says(&mended(&site, true), "there was no index: it was written, messages: 3");
    for at in [0, 20, 255, 256, 300, 447] {
        let mut bad = fs::read(&index).unwrap();
        bad[at] ^= 1;
        fs::write(&index, &bad).unwrap();
        says(&mended(&site, true), "the index was damaged and was written anew: messages: 3");
        assert_eq!(site.uids(), left);
    }
    fs::write(&index, &good[..440]).unwrap();
    says(&mended(&site, true), "the index was damaged");
    fs::write(&index, "").unwrap();
    says(&mended(&site, true), "the index was damaged");
    assert_eq!(site.uids(), left);
}

#[test]
fn an_index_of_another_day_is_brought_up_to_date() {
    let (site, left) = used();
    site.append(&letter(6));
    says(&mended(&site, false), "the index was brought up to date: messages: 4");
    assert_eq!(site.uids()[..3], left);
}

#[test]
fn a_torn_ledger_is_cut_and_a_damaged_one_written_anew() {
    let (site, left) = used();
    let bin = site.beside(".ann.bin");
    let good = fs::read(&bin).unwrap();
    fs::write(&bin, [&good[..], b"DMb1\x02\0"].concat()).unwrap();
    says(&mended(&site, true), "the ledger's last 6 bytes were no record and are cut off");
    assert_eq!(fs::read(&bin).unwrap(), good);
    assert_eq!(site.uids(), left);

    // The first death's record.
    let mut bad = good.clone();
    let first = good.windows(4).skip(1).position(|bytes| bytes == b"DMb1").unwrap() + 1;
    bad[first + 40] ^= 1;
    fs::write(&bin, &bad).unwrap();
    let report = mended(&site, true);
    says(&report, "the ledger has damage inside");
    says(&report, "kept in a file .bin.aside-");
    says(&report, "messages: 4 live");
    let aside: Vec<String> = site.names().into_iter().filter(|name| name.starts_with(".ann.bin.aside-")).collect();
    assert_eq!(fs::read(site.beside(&aside[0])).unwrap(), bad);
    let maildrop = site.open();
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (4, vec![]), "and is never heard of again");
}

#[test]
fn an_alien_ledger_is_set_aside() {
    let (site, _) = used();
    let other = Site::with(3);
    let bob = Site { place: Place { drop: other.beside("bob"), ..other.place.clone() }, folder: other.folder };
    fs::write(&bob.place.drop, (1..=3).map(letter).collect::<String>()).unwrap();
    bob.delete(&[1]);
    fs::copy(bob.beside(".bob.bin"), site.beside(".ann.bin")).unwrap();
    let report = mended(&site, true);
    says(&report, "its ledger was another drop's and was set aside");
    says(&report, "messages: 5 live");
    assert!(site.names().iter().any(|name| name.starts_with(".ann.bin.aside-")));
}

#[test]
fn what_was_left_behind_is_removed() {
    let (site, left) = used();
    for name in [".ann.copy.new", ".ann.bin.new", ".ann.lock.new", ".ann.lock.0123456789abcdef"] {
        fs::write(site.beside(name), "left").unwrap();
    }
    // Not ours, whatever they look like.
    let strangers =
        [".ann.lock.0123456789abcdeg", ".ann.lock.1", ".annabel.lock.new", "ann.lock.new", ".ann.copy.newer"];
    strangers.iter().for_each(|name| fs::write(site.beside(name), "other").unwrap());
    let report = mended(&site, true);
    assert_eq!(
        report.lines.iter().filter(|line| line.starts_with("removed a temporary file")).count(),
        4,
        "{report:?}"
    );
    let mut names = [&[".ann.bin", ".ann.idx", "ann"], &strangers[..]].concat();
    names.sort_unstable();
    assert_eq!(site.names(), names);
    assert_eq!(site.uids(), left);
}

#[test]
fn a_stale_dotlock_is_removed_and_a_held_one_refuses() {
    let (site, left) = used();
    let lock = site.beside("ann.lock");
    fs::write(&lock, "4711\n").unwrap();
    for wish in [LOOK, MEND, COMPACT] {
        assert!(matches!(repair(&site.place, wish), Err(Refused::Locked)));
    }
    let old = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
    says(&mended(&site, true), "a stale dotlock was removed");
    assert!(!lock.exists());
    // Who does not use dotlocks does not mind them.
    fs::write(&lock, "4711\n").unwrap();
    let place = Place { locks: vec![LockKind::Fcntl], ..site.place.clone() };
    assert!(repair(&place, MEND).unwrap().in_order);
    assert_eq!(fs::read_to_string(&lock).unwrap(), "4711\n");
    fs::remove_file(&lock).unwrap();
    assert_eq!(site.uids(), left);
}

#[test]
fn a_drop_that_a_session_or_another_program_has_is_refused() {
    let (site, _) = used();
    let session = site.open();
    for wish in [LOOK, MEND, COMPACT] {
        assert!(matches!(repair(&site.place, wish), Err(Refused::InUse)));
    }
    drop(session);
    let other = fs::File::options().read(true).write(true).open(&site.place.drop).unwrap();
    assert!(RealDisk::default().try_lock(&other, LockKind::Fcntl).unwrap());
    for wish in [LOOK, MEND, COMPACT] {
        assert!(matches!(repair(&site.place, wish), Err(Refused::Locked)));
    }
    drop(other);
    assert!(repair(&site.place, LOOK).unwrap().in_order);
}

#[test]
fn where_there_is_no_mail_nothing_is_made() {
    let site = Site::new();
    for wish in [LOOK, MEND, COMPACT] {
        assert!(repair(&site.place, wish).unwrap().in_order);
        assert!(site.names().is_empty());
    }
    fs::write(&site.place.drop, "").unwrap();
    assert!(repair(&site.place, MEND).unwrap().in_order);
    assert_eq!(site.names(), ["ann"]);
    // Mail that nobody has opened: looking makes nothing.
    let site = Site::with(2);
    says(&repair(&site.place, LOOK).unwrap(), "messages: 2 live");
    assert_eq!(site.names(), ["ann"]);
    let nowhere = Place::new("/nowhere/at/all/ann", "/nowhere/work");
    assert!(repair(&nowhere, MEND).unwrap().in_order);
    // Nor where the bins' directory is not there.
    let mut site = Site::with(2);
    site.place.bin_path = Some(site.folder.path().join("bins"));
    assert!(repair(&site.place, LOOK).unwrap().in_order);
    assert!(!site.folder.path().join("bins").exists());
    assert!(repair(&site.place, MEND).unwrap().in_order);
    assert_eq!(rows(&site.open()).len(), 2);
}

#[test]
fn links_at_the_places_of_our_files_are_refused_and_not_followed() {
    for name in ["ann", ".ann.bin", ".ann.copy"] {
        let (site, _) = used();
        let target = site.folder.path().join("target");
        fs::write(&target, "untouched").unwrap();
        fs::remove_file(site.beside(name)).ok();
        std::os::unix::fs::symlink(&target, site.beside(name)).unwrap();
        for wish in [LOOK, COMPACT] {
            let found = repair(&site.place, wish);
            let looked_past = wish == LOOK && name == ".ann.copy";
            assert!(looked_past || matches!(found, Err(Refused::Unsafe(_))), "{name} {wish:?}: {found:?}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched", "{name}");
    }
}

#[test]
fn an_interrupted_compaction_is_completed_or_its_copy_kept() {
    use super::sim::SimDisk;
    use crate::store::repair::repair_on;
    let drop_path = Path::new("/spool/ann");
    for (changed, text) in [(false, letter(1) + &letter(3)), (true, letter(8))] {
        let disk = SimDisk::new(7, &["/spool", "/work"]);
        disk.world().put(drop_path, (1..=3).map(letter).collect::<String>().as_bytes(), false);
        let place = Place::new(drop_path, "/work");
        let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
        maildrop.delete(2).unwrap();
        maildrop.commit().unwrap();
        disk.world().actor = Some(Box::new(|world, what| {
            if what.starts_with("rename .ann.copy.new") {
                world.stop_at = Some(world.calls + 2);
            }
        }));
        assert!(maildrop.compact(&mut || true).is_err());
        disk.world().kill();
        let disk = disk.again();
        if changed {
            disk.world().put(drop_path, letter(8).as_bytes(), true);
        }
        let writes = disk.world().writes;
        let looked = repair_on(&disk, &place, LOOK).unwrap();
        assert!(!looked.in_order);
        says(&looked, "a compaction was interrupted");
        assert_eq!(disk.world().writes, writes);
        let mended = repair_on(&disk, &place, MEND).unwrap();
        assert_eq!(mended.in_order, !changed, "{mended:?}");
        says(
            &mended,
            if changed { "is kept in a file .copy.aside-" } else { "an interrupted compaction was completed" },
        );
        assert_eq!(disk.world().bytes(drop_path), text.as_bytes());
        assert!(repair_on(&disk, &place, LOOK).unwrap().in_order);
    }
}

#[test]
fn what_is_no_mbox_is_said() {
    let site = Site::new();
    fs::write(&site.place.drop, "no mbox at all\n").unwrap();
    let report = repair(&site.place, MEND).unwrap();
    assert!(!report.in_order);
    says(&report, "is it an mbox file?");
}
