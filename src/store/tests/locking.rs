//! The drop's own locks: which are stale, what happens when two judge one at the same time, and every order of taking them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::sim::SimDisk;
use super::{Site, letter};
use crate::store::desk::Desk;
use crate::store::disk::{Disk, Holder, RealDisk};
use crate::store::locks::{self, DropLocks, STALE_NANOS, Spares, Standing};
use crate::store::maildrop::*;

const DROP: &str = "/spool/ann";
const STALE_SECS: i64 = STALE_NANOS / 1_000_000_000;

/// A simulated spool with one drop, nobody's index.
fn simulated(letters: usize) -> (SimDisk, Place) {
    let disk = SimDisk::new(7, &["/spool", "/work"]);
    let text: String = (1..=letters).map(letter).collect();
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    disk.world().now += 86_400_000_000_000;
    (disk, Place::new(PathBuf::from(DROP), PathBuf::from("/work")))
}

fn dead_line() -> String {
    let me = RealDisk::default().holder();
    format!("dmail {} {} {}\n", u32::MAX, 7, me.world)
}

/// What follows is not about the index.
fn without_index(site: &Site) {
    fs::remove_file(site.beside(".ann.idx")).ok();
}

#[test]
fn a_stale_dotlock_is_removed_and_a_living_one_is_not() {
    let site = Site::with(1);
    let dotlock = site.beside("ann.lock");
    let me = RealDisk::default().holder();
    let ours = |pid: u32, started: u64, world: &str| format!("dmail {pid} {started} {world}\n");
    let words: Vec<&str> = me.world.split(' ').collect();
    let (other_host, other_boot, other_space) = (
        format!("elsewhere {} {}", words[1], words[2]),
        format!("{} 0-0-0 {}", words[0], words[2]),
        format!("{} {} pid:[1]", words[0], words[1]),
    );
    let age = |seconds: i64| {
        let now = SystemTime::now();
        let size = Duration::from_secs(seconds.unsigned_abs());
        let when = if seconds < 0 { now + size } else { now - size };
        fs::OpenOptions::new().write(true).open(&dotlock).unwrap().set_modified(when).unwrap();
    };
    // Whose process certainly is no more.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let gone = child.id();
    child.wait().unwrap();
    let old = STALE_SECS + 1;
    const { assert!(STALE_SECS >= 600, "others may be silent for ten minutes") };
    for (what, line, seconds, removed) in [
        ("ours, alive", ours(me.pid, me.started, &me.world), 0, false),
        ("ours, alive, forgotten", ours(me.pid, me.started, &me.world), old, true),
        ("ours, another process has the number", ours(me.pid, me.started + 1, &me.world), 0, true),
        ("ours, init has the number", ours(1, u64::MAX, &me.world), 0, true),
        ("ours, no such process", ours(gone, 7, &me.world), 0, true),
        ("ours, no such number", ours(u32::MAX, 7, &me.world), 0, true),
        ("ours, dead, from tomorrow", ours(gone, 7, &me.world), -86_400, true),
        ("another machine's", ours(gone, 7, &other_host), 0, false),
        ("another machine's, old", ours(gone, 7, &other_host), old, true),
        ("an earlier boot's", ours(gone, 7, &other_boot), STALE_SECS - 60, false),
        ("an earlier boot's, old", ours(gone, 7, &other_boot), old, true),
        ("another container's", ours(gone, 7, &other_space), STALE_SECS - 60, false),
        ("another container's, old", ours(gone, 7, &other_space), old, true),
        ("ours, torn", ours(gone, 7, &me.world).trim_end().to_owned(), 0, false),
        ("ours, without a time", format!("dmail {gone} {}\n", me.world), 0, false),
        ("a dead process's number", format!("{gone}\n"), 0, false),
        ("a dead process's number, ten minutes", format!("{gone}\n"), 600, false),
        ("a dead process's number, old", format!("{gone}\n"), old, true),
        ("a live process's number, old", format!("{}\n", me.pid), old, true),
        ("a name and a number", format!("mx1:{gone}\n"), 600, false),
        ("empty", String::new(), STALE_SECS - 60, false),
        ("empty, old", String::new(), old, true),
        ("a long one", "x".repeat(10_000), 0, false),
        ("from tomorrow", String::new(), -86_400, false),
    ] {
        fs::write(&dotlock, &line).unwrap();
        age(seconds);
        without_index(&site);
        match Maildrop::open(&site.place) {
            Ok(_) => assert!(removed && !dotlock.exists(), "{what}"),
            Err(Refused::Locked) => assert!(!removed && fs::read_to_string(&dotlock).unwrap() == line, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(site.names().iter().all(|name| !name.contains(".lock.")), "{:?}", site.names());
}

#[test]
fn who_lives_is_known_by_number_and_start() {
    let me = RealDisk::default().holder();
    assert!(RealDisk::default().is_alive(&me));
    assert!(!RealDisk::default().is_alive(&Holder { started: me.started + 1, ..me.clone() }));
    assert!(!RealDisk::default().is_alive(&Holder { pid: u32::MAX, ..me }));
}

#[test]
fn a_lock_whose_holder_lives_is_never_stale_however_long_he_is_silent() {
    let site = Site::with(1);
    let desk = Desk::at(&RealDisk::default(), &site.place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    let locks = DropLocks::take(&desk, &file).unwrap();
    let dotlock = fs::File::options().write(true).open(site.beside("ann.lock")).unwrap();
    dotlock.set_modified(SystemTime::now() - Duration::from_secs(10 * STALE_SECS.unsigned_abs())).unwrap();
    drop(dotlock);
    assert!(matches!(Maildrop::open(&site.place), Err(Refused::Locked)));
    drop(locks);
    assert_eq!(site.open().totals().messages, 1);
}

#[test]
fn a_lock_that_we_may_only_read_or_only_see_is_judged_all_the_same() {
    // The open for writing fails, then also the one for reading: another user's lock, of a mode that keeps us out.
    for failures in [1, 2] {
        for (age, free) in [(STALE_NANOS - 1, false), (STALE_NANOS, true)] {
            let (disk, place) = simulated(1);
            disk.world().put(Path::new("/spool/ann.lock"), b"4711\n", true);
            disk.world().now += age;
            let denied = AtomicU32::new(0);
            let guarded = disk.clone();
            disk.world().actor = Some(Box::new(move |world, what| {
                let opens = what.starts_with("open Write ann.lock") || what.starts_with("open Read ann.lock");
                if opens && denied.fetch_add(1, Ordering::Relaxed) < failures {
                    world.fail_at = Some((world.calls + 1, std::io::ErrorKind::PermissionDenied));
                }
            }));
            let opened = Maildrop::open_on(&guarded, &place);
            disk.world().actor = None;
            assert_eq!(opened.is_ok(), free, "{failures} {age}: {opened:?}");
            assert_eq!(disk.world().names(Path::new("/spool")).contains(&"ann.lock".to_owned()), !free);
        }
    }
}

#[test]
fn a_lock_that_another_program_took_while_we_removed_the_stale_one_gets_its_name_back() {
    let (disk, place) = simulated(1);
    disk.world().put(Path::new("/spool/ann.lock"), b"4711\n", true);
    disk.world().now += STALE_NANOS;
    disk.world().actor = Some(Box::new(|world, what| {
        if what.starts_with("rename ann.lock ") {
            world.put(Path::new("/spool/ann.lock"), b"procmail's", true);
        }
    }));
    assert!(matches!(Maildrop::open_on(&disk, &place), Err(Refused::Locked)));
    let mut world = disk.world();
    assert!(world.trace.iter().any(|call| call.starts_with("rename ann.lock ")), "it was judged stale");
    assert_eq!(world.file(Path::new("/spool/ann.lock")).unwrap().data, b"procmail's");
    assert_eq!(world.names(Path::new("/spool")), [".ann.bin", "ann", "ann.lock"]);
}

#[test]
fn two_removers_never_remove_each_others_fresh_lock() {
    let site = Site::with(1);
    let place = Place { locks: vec![LockKind::Dotlock], ..site.place.clone() };
    let dotlock = site.beside("ann.lock");
    let inside = AtomicU32::new(0);
    let (taken, rounds) = (AtomicU32::new(0), 400);
    let work = site.folder.path().join("work");
    fs::create_dir_all(&work).unwrap();
    let spares = Spares::open(&RealDisk::default(), &work).unwrap();
    std::thread::scope(|scope| {
        let (inside, taken, spares, place, site, dotlock) = (&inside, &taken, &spares, &place, &site, &dotlock);
        for number in 0..4 {
            scope.spawn(move || {
                let desk = Desk::at(&RealDisk::default(), place, true).unwrap().unwrap();
                let (file, _) = desk.open_drop().unwrap().unwrap();
                while taken.load(Ordering::SeqCst) < rounds {
                    let locks = match number {
                        0 | 1 => DropLocks::take(&desk, &file),
                        _ => DropLocks::borrow(&desk, &file, spares),
                    };
                    match locks {
                        Ok(locks) => {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(locks);
                            taken.fetch_add(1, Ordering::SeqCst);
                            // Somebody is killed and leaves his lock; a shared judgement of it would be the others' undoing.
                            let left = site.beside(&format!("left-{:?}", std::thread::current().id()));
                            fs::write(&left, dead_line()).unwrap();
                            fs::hard_link(&left, dotlock).ok();
                            fs::remove_file(&left).unwrap();
                        }
                        Err(Refused::Locked) => std::thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    fs::remove_file(&dotlock).ok();
    assert_eq!(site.names(), ["ann"]);
}

/// The drop's inode, with a lock on it that was lent, and what was called meanwhile.
fn borrowed(disk: &SimDisk, place: &Place, spares: &Spares<SimDisk>) -> Option<(u64, Vec<String>)> {
    let desk = Desk::at(disk, place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    disk.world().trace.clear();
    let locks = DropLocks::borrow(&desk, &file, spares).ok()?;
    let inode = disk.world().inode_of(Path::new("/spool/ann.lock"));
    assert_ne!(inode, 0);
    let trace = disk.world().trace.clone();
    drop(locks);
    Some((inode, trace))
}

#[test]
fn a_lent_lock_file_serves_one_lock_after_the_other_and_is_fresh_whenever_it_is_seen() {
    let (disk, place) = simulated(1);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    let (first, _) = borrowed(&disk, &place, &spares).unwrap();
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
    for _ in 0..3 {
        disk.world().now += STALE_NANOS;
        let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
        let (file, _) = desk.open_drop().unwrap().unwrap();
        let _locks = DropLocks::borrow(&desk, &file, &spares).unwrap();
        let world = &mut disk.world();
        let now = world.now;
        let lock = world.file(Path::new("/spool/ann.lock")).unwrap();
        assert!(lock.data.starts_with(b"dmail ") && now - lock.mtime <= 30_000_000_000);
    }
    let (again, trace) = borrowed(&disk, &place, &spares).unwrap();
    assert_eq!(again, first);
    assert!(!trace.iter().any(|call| call.starts_with("open") || call == "write"), "{trace:?}");
    drop(spares);
    assert!(disk.world().names(Path::new("/work")).is_empty());
}

#[test]
fn a_lent_lock_file_is_no_way_past_a_lock_that_another_has() {
    let (disk, place) = simulated(1);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    disk.world().put(Path::new("/spool/ann.lock"), b"4711\n", true);
    assert!(borrowed_is_refused(&disk, &place, &spares));
    assert_eq!(disk.world().bytes(Path::new("/spool/ann.lock")), b"4711\n");
    disk.world().now += STALE_NANOS;
    assert!(borrowed(&disk, &place, &spares).is_some(), "a stale one is taken away all the same");
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
}

fn borrowed_is_refused(disk: &SimDisk, place: &Place, spares: &Spares<SimDisk>) -> bool {
    let desk = Desk::at(disk, place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    let refused = matches!(DropLocks::borrow(&desk, &file, spares), Err(Refused::Locked));
    refused
}

#[test]
fn who_borrowed_gives_way_to_one_who_may_be_judging_the_lock_that_stood_there() {
    let (disk, place) = simulated(1);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    let (lent, _) = borrowed(&disk, &place, &spares).unwrap();
    disk.world().put(Path::new("/spool/.ann.lock.new"), b"", true);
    let dir = disk.open_dir(Path::new("/spool")).unwrap();
    let judge = disk.open(&dir, Path::new(".ann.lock.new"), crate::store::disk::How::Write).unwrap();
    assert!(disk.try_lock(&judge, LockKind::Fcntl).unwrap());
    assert!(borrowed_is_refused(&disk, &place, &spares));
    assert_eq!(disk.world().names(Path::new("/spool")), [".ann.lock.new", "ann"]);
    drop(judge);
    // He was killed: his file goes, and the lock is had with the first name.
    let (inode, _) = borrowed(&disk, &place, &spares).unwrap();
    assert_ne!(inode, lent);
    assert_eq!(borrowed(&disk, &place, &spares).unwrap().0, lent);
}

#[test]
fn a_lent_file_whose_name_went_astray_is_not_lent_again() {
    let (disk, place) = simulated(1);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    let (lent, _) = borrowed(&disk, &place, &spares).unwrap();
    // Another program finds it stale, whyever, and takes the lock for itself; and it may give ours its name back.
    disk.world().actor = Some(Box::new(|world, what| {
        if what == "unlock Fcntl" {
            world.put(Path::new("/spool/ann.lock"), b"procmail's", true);
        }
    }));
    borrowed(&disk, &place, &spares).unwrap();
    disk.world().actor = None;
    assert_eq!(disk.world().bytes(Path::new("/spool/ann.lock")), b"procmail's");
    disk.world().take_away(Path::new("/spool/ann.lock"));
    assert_ne!(borrowed(&disk, &place, &spares).unwrap().0, lent);
}

#[test]
fn a_lock_that_a_killed_borrower_left_is_stale_at_once_and_his_files_go() {
    let (disk, place) = simulated(1);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    let locks = DropLocks::borrow(&desk, &file, &spares).unwrap();
    disk.world().kill();
    drop(locks);
    assert!(disk.world().names(Path::new("/spool")).contains(&"ann.lock".to_owned()));
    let disk = disk.again();
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    assert!(disk.world().names(Path::new("/work")).is_empty());
    assert!(borrowed(&disk, &place, &spares).is_some());
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
}

#[test]
fn where_the_drop_is_on_another_volume_each_lock_is_a_file_of_its_own() {
    let (disk, place) = simulated(1);
    disk.world().set_volume(Path::new("/work"), 2);
    let spares = Spares::open(&disk, Path::new("/work")).unwrap();
    let (_, trace) = borrowed(&disk, &place, &spares).unwrap();
    assert!(trace.contains(&"link .ann.lock.new ann.lock".to_owned()), "{trace:?}");
    assert_eq!(disk.world().names(Path::new("/work")), ["lock.1"]);
}

#[test]
fn a_lock_that_was_left_on_a_full_disk_is_stale_at_once_although_it_says_nothing() {
    let (disk, place) = simulated(1);
    let take = |disk: &SimDisk| {
        let desk = Desk::at(disk, &place, true).unwrap().unwrap();
        let (file, _) = desk.open_drop().unwrap().unwrap();
        DropLocks::take(&desk, &file).map(drop)
    };
    disk.world().full = true;
    let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    let locks = DropLocks::take(&desk, &file).unwrap();
    assert_eq!(disk.world().bytes(Path::new("/spool/ann.lock")), b"");
    assert!(matches!(take(&disk), Err(Refused::Locked)), "its holder lives");
    disk.world().kill();
    drop(locks);
    assert!(disk.world().names(Path::new("/spool")).contains(&"ann.lock".to_owned()));
    let disk = disk.again();
    disk.world().full = false;
    let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
    assert!(matches!(locks::standing(&desk), Standing::Stale(..)));
    drop(desk);
    take(&disk).unwrap();
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
    // And who lives takes both names away.
    disk.world().full = true;
    take(&disk).unwrap();
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann"]);
}

#[test]
fn what_was_left_under_the_first_name_says_nothing_of_a_lock_that_is_another_file() {
    let (disk, place) = simulated(1);
    disk.world().put(Path::new("/spool/.ann.lock.new"), b"", true);
    disk.world().put(Path::new("/spool/ann.lock"), b"", true);
    let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
    let (file, _) = desk.open_drop().unwrap().unwrap();
    assert!(matches!(DropLocks::take(&desk, &file), Err(Refused::Locked)));
    assert_eq!(disk.world().names(Path::new("/spool")), ["ann", "ann.lock"]);
}

#[test]
fn what_a_killed_locker_left_under_the_first_name_is_tidied_away() {
    let site = Site::with(1);
    let target = site.folder.path().join("target");
    fs::write(&target, "untouched").unwrap();
    let first = site.beside(".ann.lock.new");
    fs::write(&first, "dmail 1").unwrap();
    assert_eq!(site.open().totals().messages, 1);
    assert!(!first.exists());
    without_index(&site);
    symlink(&target, &first).unwrap();
    assert_eq!(site.open().totals().messages, 1);
    assert!(fs::symlink_metadata(&first).is_err());
    // Somebody has it: he is judging the lock at this moment.
    without_index(&site);
    let judge = fs::File::options().read(true).write(true).create(true).truncate(false).open(&first).unwrap();
    assert!(RealDisk::default().try_lock(&judge, LockKind::Fcntl).unwrap());
    assert!(matches!(Maildrop::open(&site.place), Err(Refused::Locked)));
    assert!(first.exists());
    drop(judge);
    assert_eq!(site.open().totals().messages, 1);
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

#[test]
fn another_users_drop_is_never_taken_for_a_lock_of_ours() {
    let site = Site::with(1);
    let neighbour = site.beside("ann.lock.new");
    fs::write(&neighbour, letter(1)).unwrap();
    site.open();
    assert_eq!(fs::read_to_string(neighbour).unwrap(), letter(1));
}

#[test]
fn what_is_no_file_holds_the_lock_for_ever_and_is_not_touched() {
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 4] = [
        ("link", |lock, target| symlink(target, lock).unwrap()),
        ("dangling link", |lock, _| symlink("nowhere", lock).unwrap()),
        ("directory", |lock, _| fs::create_dir(lock).unwrap()),
        ("pipe", |lock, _| {
            assert!(std::process::Command::new("mkfifo").arg(lock).status().unwrap().success());
        }),
    ];
    for (what, plant) in plants {
        let site = Site::with(1);
        let (lock, target) = (site.beside("ann.lock"), site.folder.path().join("target"));
        fs::write(&target, dead_line()).unwrap();
        plant(&lock, &target);
        assert!(matches!(Maildrop::open(&site.place), Err(Refused::Locked)), "{what}");
        assert_eq!(fs::read_to_string(&target).unwrap(), dead_line(), "{what}");
        assert!(fs::symlink_metadata(&lock).is_ok_and(|found| !found.is_file()), "{what}");
    }
}

/// Every way to write `lock_method`.
fn orders() -> Vec<Vec<LockKind>> {
    const KINDS: [LockKind; 3] = [LockKind::Dotlock, LockKind::Fcntl, LockKind::Flock];
    let mut orders: Vec<Vec<LockKind>> = vec![vec![]];
    let mut longest = 0;
    while longest < orders.len() {
        let order = orders[longest].clone();
        orders.extend(KINDS.iter().filter(|kind| !order.contains(kind)).map(|&kind| [&order[..], &[kind]].concat()));
        longest += 1;
    }
    assert_eq!(orders.len(), 1 + 3 + 6 + 6);
    orders
}

#[test]
fn every_order_of_every_lock_works_and_meets_every_other_holder() {
    for order in orders() {
        let mut site = Site::with(2);
        site.place.locks = order.clone();
        let dotlock = site.beside("ann.lock");
        let other = fs::OpenOptions::new().read(true).write(true).open(&site.place.drop).unwrap();
        for kind in [LockKind::Dotlock, LockKind::Fcntl, LockKind::Flock] {
            match kind {
                LockKind::Dotlock => fs::write(&dotlock, "4711\n").unwrap(),
                _ => assert!(RealDisk::default().try_lock(&other, kind).unwrap()),
            }
            without_index(&site);
            // That this returns is that nothing is waited for: nobody gives the lock up meanwhile.
            match Maildrop::open(&site.place) {
                Ok(_) => assert!(!order.contains(&kind), "{order:?} does not see {kind:?}"),
                Err(Refused::Locked) => assert!(order.contains(&kind), "{order:?} is stopped by {kind:?}"),
                found => panic!("{order:?} {kind:?}: {found:?}"),
            }
            match kind {
                LockKind::Dotlock => fs::remove_file(&dotlock).unwrap(),
                _ => RealDisk::default().unlock(&other, kind).unwrap(),
            }
            // And whatever was taken before it was given up.
            assert!(!dotlock.exists(), "{order:?} {kind:?}");
            for kind in [LockKind::Fcntl, LockKind::Flock] {
                assert!(RealDisk::default().try_lock(&other, kind).unwrap(), "{order:?} keeps {kind:?}");
                RealDisk::default().unlock(&other, kind).unwrap();
            }
        }
        drop(other);
        site.delete(&[1]);
        assert!(site.compact().freed_bytes > 0, "{order:?}");
        assert_eq!(site.text(), letter(2), "{order:?}");
        assert_eq!(site.names(), [".ann.bin", ".ann.idx", "ann"]);
    }
}

#[test]
fn locks_are_taken_in_their_order_and_given_up_in_reverse_also_when_one_cannot_be_had() {
    for order in orders() {
        for refused in 0..=order.len() {
            let (disk, mut place) = simulated(1);
            place.locks = order.clone();
            let holder = disk.open_dir(Path::new("/spool")).unwrap();
            let file = disk.open(&holder, Path::new("ann"), crate::store::disk::How::Write).unwrap();
            match order.get(refused) {
                Some(LockKind::Dotlock) => disk.world().put(Path::new("/spool/ann.lock"), b"", true),
                Some(kind) => assert!(disk.try_lock(&file, *kind).unwrap()),
                None => {}
            }
            let desk = Desk::at(&disk, &place, true).unwrap().unwrap();
            let (drop_file, _) = desk.open_drop().unwrap().unwrap();
            disk.world().trace.clear();
            let taken = DropLocks::take(&desk, &drop_file);
            assert_eq!(taken.is_ok(), refused == order.len(), "{order:?} {refused}");
            drop(taken);
            let trace = disk.world().trace.clone();
            let step = |call: &String| match call.as_str() {
                "link .ann.lock.new ann.lock" => Some((true, LockKind::Dotlock)),
                "remove ann.lock" => Some((false, LockKind::Dotlock)),
                "try_lock Flock" => Some((true, LockKind::Flock)),
                "unlock Fcntl" => Some((false, LockKind::Fcntl)),
                "unlock Flock" => Some((false, LockKind::Flock)),
                _ => None,
            };
            let ups: Vec<LockKind> =
                trace.iter().filter_map(step).filter(|(up, _)| !up).map(|(_, kind)| kind).collect();
            let mut wanted = order[..refused].to_vec();
            wanted.reverse();
            assert_eq!(ups, wanted, "{order:?} refused at {refused}: {trace:?}");
            // The kernel's lock on our dotlock's first name is a try_lock too: look at the others' order.
            let downs: Vec<LockKind> =
                trace.iter().filter_map(step).filter(|(up, _)| *up).map(|(_, kind)| kind).collect();
            let tried = &order[..order.len().min(refused + 1)];
            let seen: Vec<LockKind> = tried.iter().copied().filter(|kind| *kind != LockKind::Fcntl).collect();
            let dotlock_tries = downs.iter().filter(|kind| **kind == LockKind::Dotlock).count();
            assert!(downs.ends_with(&seen[seen.len().saturating_sub(1)..]), "{order:?}: {downs:?}");
            assert_eq!(dotlock_tries, usize::from(tried.contains(&LockKind::Dotlock)), "{order:?}: {trace:?}");
        }
    }
}

#[test]
fn a_dotlock_that_may_not_be_made_is_done_without_only_where_there_is_another_lock() {
    for (order, serves) in [
        (vec![LockKind::Dotlock, LockKind::Fcntl], true),
        (vec![LockKind::Flock, LockKind::Dotlock], true),
        (vec![LockKind::Dotlock], false),
    ] {
        let (disk, mut place) = simulated(1);
        place.locks = order.clone();
        disk.world().actor = Some(Box::new(|world, what| {
            if what.starts_with("open CreateNew .ann.lock.new") {
                world.fail_at = Some((world.calls + 1, std::io::ErrorKind::PermissionDenied));
            }
        }));
        match Maildrop::open_on(&disk, &place) {
            Ok(maildrop) => assert!(serves && maildrop.remarks() == [Remark::NoDotlock], "{order:?}"),
            Err(Refused::Fault(fault)) => assert!(!serves && fault.to_string().contains("/spool/ann.lock"), "{fault}"),
            Err(refused) => panic!("{order:?}: {refused:?}"),
        }
    }
}

#[test]
fn a_dotlock_held_long_is_touched_every_thirty_seconds_whatever_we_do_meanwhile() {
    let (disk, place) = simulated(1);
    // Pieces enough that each part of the work takes minutes.
    let body = "all work and no play makes Jack a dull boy\n".repeat(470_000);
    let text: String = (1..=2).map(|k| format!("From s{k}@x Mon Jan  5 10:00:00 2026\nA: {k}\n\n{body}\n")).collect();
    disk.world().put(Path::new(DROP), text.as_bytes(), false);
    let slow = |disk: &SimDisk| {
        disk.world().actor = Some(Box::new(|world, what| {
            if matches!(what, "read" | "write" | "cut" | "sync") {
                world.now += 10_000_000_000;
            }
            let now = world.now;
            if let Some(lock) = world.file(Path::new("/spool/ann.lock")) {
                let silent = (now - lock.mtime) / 1_000_000_000;
                // Thirty, and what a few calls take that are not repeated: others wait ten minutes at least.
                assert!(silent <= 150, "silent for {silent} s before {what}");
            }
        }));
    };
    slow(&disk);
    let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
    maildrop.delete(1).unwrap();
    maildrop.commit().unwrap();
    assert!(maildrop.compact(&mut || true).unwrap().moved_bytes > 8 << 20);
    // And while an interrupted one is completed.
    for cut in ["write", "cut"] {
        let (disk, place) = simulated(1);
        disk.world().put(Path::new(DROP), text.as_bytes(), false);
        let mut maildrop = Maildrop::open_on(&disk, &place).unwrap();
        maildrop.delete(1).unwrap();
        maildrop.commit().unwrap();
        let renamed = AtomicU32::new(0);
        disk.world().actor = Some(Box::new(move |world, what| {
            if what.starts_with("rename .ann.copy.new") {
                renamed.store(1, Ordering::Relaxed);
            } else if renamed.load(Ordering::Relaxed) == 1 && what == cut {
                world.stop_at = Some(world.calls + 1);
            }
        }));
        assert!(maildrop.compact(&mut || true).is_err());
        disk.world().kill();
        let disk = disk.again();
        slow(&disk);
        assert_eq!(Maildrop::open_on(&disk, &place).unwrap().remarks(), [Remark::Recovered]);
    }
}
