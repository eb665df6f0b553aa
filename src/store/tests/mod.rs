//! The maildrop on real files in temporary folders.

mod acts;
mod costs;
mod deferral;
mod delivery;
mod expiry;
mod hostile;
mod intents;
mod layout;
mod locking;
mod queue;
mod repair;
mod repeats;
pub(super) mod sim;
mod status;
mod world;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk::{Disk, RealDisk};
use super::maildrop::*;
use crate::text::bytes::Output;
use crate::text::number::Fraction;

fn from(k: usize) -> String {
    format!("From s{k}@example.org Mon Jan  5 10:00:00 2026\n")
}

fn letter(k: usize) -> String {
    format!("{}Subject: m{k}\n\nbody {k}\n.dot\n\n", from(k))
}

/// A spool that only we may write to, with one drop.
struct Site {
    folder: tempfile::TempDir,
    place: Place,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).unwrap();
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::new(spool.join("ann"), folder.path().join("work"));
        Site { folder, place }
    }

    fn with(letters: usize) -> Site {
        let site = Site::new();
        fs::write(&site.place.drop, (1..=letters).map(letter).collect::<String>()).unwrap();
        site
    }

    fn open(&self) -> Maildrop {
        Maildrop::open(&self.place).unwrap()
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.place.drop.with_file_name(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.place.drop).unwrap()
    }

    fn append(&self, text: &str) {
        fs::OpenOptions::new().append(true).open(&self.place.drop).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn uids(&self) -> Vec<Uid> {
        rows(&self.open()).iter().map(|row| row.uid).collect()
    }

    /// A session that deletes these and commits, without compaction.
    fn delete(&self, numbers: &[u32]) {
        let mut maildrop = self.open();
        numbers.iter().for_each(|&number| maildrop.delete(number).unwrap());
        maildrop.commit().unwrap();
    }

    /// A session that takes out what is dead.
    fn compact(&self) -> Compacted {
        self.open().compact(&mut || true).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.place.drop.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// What RETR sends.
fn retr(maildrop: &Maildrop, number: u32) -> String {
    let mut reader = maildrop.reader(number, None, Reach::Wait).unwrap();
    let mut out = Output::default();
    let mut scratch = vec![0; 4096];
    loop {
        match reader.pull(&mut scratch, &mut out) {
            Ok(Pulled::More) => {}
            Ok(Pulled::Last) => return String::from_utf8(out.bytes().to_vec()).unwrap(),
            Err(Miss::Cold) => {
                let fetched = reader.fetch().run().unwrap();
                reader.supply(fetched);
            }
            Err(miss) => panic!("{miss:?}"),
        }
    }
}

fn refused(site: &Site) -> String {
    match Maildrop::open(&site.place) {
        Err(Refused::Unsafe(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

fn rows<D: super::disk::Disk>(maildrop: &Maildrop<D>) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = maildrop.lookup(rows.len() as u32 + 1).run().unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

#[test]
fn a_session_lists_reads_marks_and_deletes() {
    let site = Site::with(3);
    let mut maildrop = site.open();
    assert_eq!(maildrop.totals().messages, 3);
    assert_eq!(retr(&maildrop, 2), "Subject: m2\r\n\r\nbody 2\r\n..dot\r\n.\r\n");
    let before = rows(&maildrop);
    assert_eq!(before.iter().map(|row| row.octets).sum::<u64>(), maildrop.totals().octets);
    maildrop.delete(2).unwrap();
    assert!(matches!(maildrop.delete(2), Err(NotDeleted::Already)));
    assert!(matches!(maildrop.delete(4), Err(NotDeleted::NoSuch)));
    assert_eq!(maildrop.live_totals().messages, 2);
    let commit = maildrop.commit().unwrap();
    assert_eq!((commit.deleted, commit.octets, commit.wants_compaction), (1, before[1].octets, false));
    let compacted = maildrop.compact(&mut || true).unwrap();
    assert_eq!(compacted.freed_bytes as usize, letter(2).len());
    assert_eq!(site.text(), letter(1) + &letter(3));
    let after = rows(&site.open());
    assert_eq!(after.iter().map(|row| row.uid).collect::<Vec<_>>(), [before[0].uid, before[2].uid]);
}

#[test]
fn an_absent_or_empty_drop_is_an_empty_mailbox_and_nothing_is_made() {
    let site = Site::new();
    assert_eq!(site.open().totals(), Totals::default());
    fs::write(&site.place.drop, "").unwrap();
    let mut maildrop = site.open();
    assert_eq!(maildrop.totals(), Totals::default());
    assert!(maildrop.page(1, Reach::Now).unwrap().is_empty());
    assert!(matches!(maildrop.delete(1), Err(NotDeleted::NoSuch)));
    assert_eq!(maildrop.commit().unwrap(), Commit::default());
    assert_eq!(maildrop.compact(&mut || true).unwrap(), Compacted::default());
    assert_eq!(site.names(), ["ann"]);
    assert!(!site.folder.path().join("work").exists());
    let nowhere = Place::new(site.folder.path().join("no/such/dir/ann"), site.folder.path());
    assert_eq!(Maildrop::open(&nowhere).unwrap().totals(), Totals::default());
}

#[test]
fn a_second_session_on_one_drop_is_refused_until_the_first_ends() {
    let site = Site::with(2);
    let first = site.open();
    assert!(matches!(Maildrop::open(&site.place), Err(Refused::InUse)));
    // A slow client's reader outlives its session and locks nobody out.
    let reader = first.reader(1, None, Reach::Wait).unwrap();
    drop(first);
    assert_eq!(site.open().totals().messages, 2);
    drop(reader);
}

#[test]
fn a_session_that_ends_without_quit_deletes_nothing() {
    let site = Site::with(3);
    let mut maildrop = site.open();
    maildrop.delete(1).unwrap();
    drop(maildrop);
    assert_eq!(site.open().totals().messages, 3);
    let mut maildrop = site.open();
    maildrop.delete(2).unwrap();
    maildrop.undelete_all();
    assert_eq!(maildrop.deletions(), 0);
    assert_eq!(maildrop.commit().unwrap(), Commit::default());
    drop(maildrop);
    assert_eq!(site.open().totals().messages, 3);
}

#[test]
fn mail_that_comes_later_is_not_in_the_snapshot_and_does_not_disturb_a_reader() {
    let site = Site::with(2);
    let maildrop = site.open();
    let mut reader = maildrop.reader(2, None, Reach::Wait).unwrap();
    site.append(&letter(3));
    assert_eq!(maildrop.totals().messages, 2);
    assert!(maildrop.row(3, Reach::Wait).unwrap().is_none());
    let mut out = Output::default();
    while let Pulled::More = reader.pull(&mut [0; 1024], &mut out).unwrap() {}
    assert!(out.bytes().ends_with(b"\r\n.\r\n"));
    drop(maildrop);
    let before = site.uids();
    assert_eq!(before.len(), 3);
    // Found by the tail alone or by a whole scan: the same.
    fs::remove_file(site.beside(".ann.idx")).unwrap();
    assert_eq!(site.uids(), before);
}

#[test]
fn a_drop_that_changes_under_a_reader_ends_it_without_the_final_dot() {
    let long = "all work and no play\n".repeat(1000);
    let text = format!("{}Subject: m\n\n{long}\n{}", from(1), letter(2));
    type Change = fn(&Site);
    let changes: [(&str, Change); 5] = [
        ("truncated", |site| fs::OpenOptions::new().write(true).open(&site.place.drop).unwrap().set_len(5000).unwrap()),
        ("emptied", |site| fs::write(&site.place.drop, "").unwrap()),
        ("replaced", |site| {
            fs::write(site.beside("new"), site.text()).unwrap();
            fs::rename(site.beside("new"), &site.place.drop).unwrap();
        }),
        ("rewritten longer", |site| fs::write(&site.place.drop, format!("{}{}", letter(9), site.text())).unwrap()),
        ("edited in place", |site| {
            let file = fs::OpenOptions::new().write(true).open(&site.place.drop).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"XXXX", 10_000).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let site = Site::new();
        fs::write(&site.place.drop, &text).unwrap();
        let maildrop = site.open();
        let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
        let mut out = Output::default();
        assert_eq!(reader.pull(&mut [0; 1024], &mut out).unwrap(), Pulled::More);
        change(&site);
        // As long as before may be about to grow: that is for a job to find out.
        let miss = reader.pull(&mut [0; 1024], &mut out);
        assert!(matches!(miss, Err(Miss::Changed | Miss::Cold)), "{what}: {miss:?}");
        assert!(matches!(reader.fetch().run(), Err(Miss::Changed)), "{what}");
        assert!(!out.bytes().ends_with(b"\r\n.\r\n"), "{what}");
    }
}

#[test]
fn a_reader_goes_on_beside_an_append_that_begins_and_beside_one_that_is_taken_back() {
    let text = format!("{}Subject: m\n\n{}\n", from(1), "all work and no play\n".repeat(1000));
    let site = Site::new();
    fs::write(&site.place.drop, &text).unwrap();
    let maildrop = site.open();
    let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
    let mut out = Output::default();
    let mut pull = |reader: &mut MessageReader| reader.pull(&mut [0; 1024], &mut out);
    assert_eq!(pull(&mut reader).unwrap(), Pulled::More);
    // The time of an append that begins is there before its first byte.
    let file = fs::OpenOptions::new().append(true).open(&site.place.drop).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert!(matches!(pull(&mut reader), Err(Miss::Cold)));
    let fetched = std::thread::scope(|scope| {
        let fetch = reader.fetch();
        let job = scope.spawn(move || fetch.run());
        site.append(&letter(2));
        job.join().unwrap()
    });
    // On a machine that let us wait for longer than the job looks, the next one sees it at once.
    let fetched = fetched.or_else(|_| reader.fetch().run());
    reader.supply(fetched.expect("it grew"));
    assert_eq!(pull(&mut reader).unwrap(), Pulled::More);
    // There was no room for the rest of it.
    file.set_len(text.len() as u64).unwrap();
    let mut pulled = Ok(Pulled::More);
    while let Ok(Pulled::More) = pulled {
        pulled = pull(&mut reader);
    }
    assert_eq!(pulled.unwrap(), Pulled::Last);
    assert!(out.bytes().ends_with(b"all work and no play\r\n.\r\n"));
}

#[test]
fn the_from_line_is_checked_before_the_first_byte_is_sent() {
    let site = Site::with(9);
    let maildrop = site.open();
    let text = site.text();
    // Grown, its old end and last From_ line in place: but message 1 is not where it was.
    fs::write(&site.place.drop, text.replacen("From s1@example", "Xrom s1@example", 1) + &letter(10)).unwrap();
    let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
    assert!(matches!(reader.pull(&mut [0; 1024], &mut Output::default()), Err(Miss::Changed)));
    assert_eq!(retr(&maildrop, 2), "Subject: m2\r\n\r\nbody 2\r\n..dot\r\n.\r\n");
}

#[test]
fn odd_spools_are_read_as_they_are() {
    let read = |text: &[u8]| {
        let site = Site::new();
        fs::write(&site.place.drop, text).unwrap();
        let maildrop = site.open();
        let all: Vec<String> = (1..=maildrop.totals().messages).map(|number| retr(&maildrop, number)).collect();
        for (row, sent) in rows(&maildrop).iter().zip(&all) {
            let stuffed = sent.matches("\r\n..").count() + usize::from(sent.starts_with(".."));
            assert_eq!(row.octets as usize, sent.len() - 3 - stuffed, "sizes are bytes sent");
        }
        (all, maildrop.remarks())
    };
    let crlf = letter(1).replace('\n', "\r\n") + &letter(2).replace('\n', "\r\n");
    let (all, _) = read(crlf.as_bytes());
    assert_eq!(all, ["Subject: m1\r\n\r\nbody 1\r\n..dot\r\n.\r\n", "Subject: m2\r\n\r\nbody 2\r\n..dot\r\n.\r\n"]);
    let (all, _) = read(letter(1).trim_end().as_bytes());
    assert_eq!(all, ["Subject: m1\r\n\r\nbody 1\r\n..dot\r\n.\r\n"]);
    let (all, _) = read(format!("{}A: b\n\n\0\0bo\0dy\r\0\n\n", from(1)).as_bytes());
    assert_eq!(all, ["A: b\r\n\r\n\0\0bo\0dy\r\0\r\n.\r\n"]);
    let (all, _) = read(format!("junk\n{}", letter(1)).as_bytes());
    assert_eq!(all.len(), 1);
    let (all, remarks) = read(b"\x01\x01\x01\x01\nno mbox at all\n");
    assert_eq!((all.len(), remarks), (0, vec![Remark::NotAnMbox]));
    let (all, _) = read(from(1).as_bytes());
    assert_eq!(all, [".\r\n"]);
}

#[test]
fn a_line_of_100_mb_is_served_in_slices() {
    let site = Site::new();
    let mut file = fs::File::create(&site.place.drop).unwrap();
    file.write_all(format!("{}A: b\n\n", from(1)).as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    (0..100).for_each(|_| file.write_all(&piece).unwrap());
    file.write_all(b"\n\n").unwrap();
    file.write_all(letter(2).as_bytes()).unwrap();
    let maildrop = site.open();
    assert_eq!(maildrop.totals().messages, 2);
    let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
    let mut scratch = vec![0; 64 << 10];
    let mut out = Output::default();
    let mut sent = 0;
    loop {
        let pulled = match reader.pull(&mut scratch, &mut out) {
            Err(Miss::Cold) => {
                let fetched = reader.fetch().run().unwrap();
                reader.supply(fetched);
                continue;
            }
            pulled => pulled.unwrap(),
        };
        sent += out.len() as u64;
        out.clear();
        if pulled == Pulled::Last {
            break;
        }
    }
    assert_eq!(sent, reader.octets() + 3);
    assert!(out.capacity() <= 1 << 20, "memory does not grow with the message: {}", out.capacity());
}

#[test]
fn uids_survive_a_lost_a_torn_and_an_alien_index() {
    let site = Site::with(5);
    let before = site.uids();
    site.delete(&[2]);
    let left: Vec<Uid> = before.iter().copied().filter(|uid| *uid != before[1]).collect();
    let index = site.beside(".ann.idx");
    let good = fs::read(&index).unwrap();
    let other = Site::with(3);
    other.uids();
    let alien = fs::read(other.beside(".ann.idx")).unwrap();
    let mut bad: Vec<Vec<u8>> = vec![Vec::new(), vec![0; good.len()], alien, b"no index".to_vec()];
    bad.extend((0..good.len()).step_by(61).map(|cut| good[..cut].to_vec()));
    bad.extend((0..good.len()).step_by(37).map(|at| {
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        flipped
    }));
    for bytes in bad {
        fs::write(&index, &bytes).unwrap();
        assert_eq!(site.uids(), left);
    }
    fs::remove_file(&index).unwrap();
    assert_eq!(site.uids(), left);
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    let maildrop = site.open();
    assert_eq!(rows(&maildrop).len(), 4);
    assert_eq!(maildrop.remarks(), [Remark::IndexInMemory]);
}

#[test]
fn losing_the_ledger_brings_back_what_was_not_compacted_and_no_more() {
    let site = Site::with(4);
    let before = site.uids();
    site.delete(&[1]);
    site.compact();
    site.delete(&[1]);
    assert_eq!(site.uids(), before[2..]);
    fs::remove_file(site.beside(".ann.bin")).unwrap();
    assert_eq!(site.uids(), before[1..]);
}

#[test]
fn a_damaged_record_costs_what_it_said_and_no_more() {
    let site = Site::with(4);
    let before = site.uids();
    let bin = site.beside(".ann.bin");
    let mut ends = Vec::new();
    for _ in 0..3 {
        site.delete(&[1]);
        ends.push(fs::metadata(&bin).unwrap().len() as usize);
    }
    assert_eq!(site.uids(), before[3..]);
    let good = fs::read(&bin).unwrap();
    let lost = |bytes: &[u8]| {
        fs::write(&bin, bytes).unwrap();
        fs::remove_file(site.beside(".ann.idx")).unwrap();
        let maildrop = site.open();
        let uids: Vec<Uid> = rows(&maildrop).iter().map(|row| row.uid).collect();
        (uids, maildrop.remarks())
    };
    let mut damaged = good.clone();
    damaged[ends[0] + 40] ^= 1;
    let (uids, remarks) = lost(&damaged);
    assert_eq!((uids, remarks), (vec![before[1], before[3]], vec![Remark::DamagedLedger]));
    // A torn tail is cut off, and what is appended later stands on firm ground.
    let (uids, remarks) = lost(&good[..good.len() - 1]);
    assert_eq!((uids, remarks), (before[2..].to_vec(), vec![]));
    assert_eq!(fs::metadata(&bin).unwrap().len() as usize, ends[1]);
    site.delete(&[1]);
    fs::remove_file(site.beside(".ann.idx")).unwrap();
    assert_eq!(site.uids(), before[3..]);
    let (uids, _) = lost(&[&good[..], &[b'D', b'M', b'b', b'1', 0, 0]].concat());
    assert_eq!(uids, before[3..]);
}

#[test]
fn another_drops_ledger_is_set_aside_and_hides_nothing() {
    let site = Site::with(3);
    let other = Site::with(3);
    let elsewhere = other.beside("bob");
    fs::rename(&other.place.drop, &elsewhere).unwrap();
    let bob = Site { place: Place { drop: elsewhere, ..other.place.clone() }, folder: other.folder };
    bob.delete(&[1, 2]);
    fs::copy(bob.beside(".bob.bin"), site.beside(".ann.bin")).unwrap();
    let maildrop = site.open();
    assert_eq!((maildrop.totals().messages, maildrop.remarks()), (3, vec![Remark::AlienLedger]));
    drop(maildrop);
    assert!(site.names().iter().any(|name| name.starts_with(".ann.bin.aside-")));
    assert_eq!(site.open().remarks(), []);
}

#[test]
fn links_strangers_and_what_is_no_file_are_refused_by_name() {
    let site = Site::with(1);
    fs::hard_link(&site.place.drop, site.beside("second")).unwrap();
    assert!(refused(&site).contains("ann: has 2 names"));
    assert_eq!(site.names(), ["ann", "second"]);

    let site = Site::with(1);
    fs::rename(&site.place.drop, site.beside("real")).unwrap();
    std::os::unix::fs::symlink("real", &site.place.drop).unwrap();
    assert!(refused(&site).contains("ann: not a regular file"));

    let site = Site::new();
    fs::create_dir(&site.place.drop).unwrap();
    assert!(refused(&site).contains("not a regular file"));

    let site = Site::new();
    let _socket = std::os::unix::net::UnixListener::bind(&site.place.drop).unwrap();
    assert!(refused(&site).contains("not a regular file"));

    let site = Site::new();
    assert!(std::process::Command::new("mkfifo").arg(&site.place.drop).status().unwrap().success());
    assert!(refused(&site).contains("not a regular file"));
    assert_eq!(site.names(), ["ann"]);

    let mut site = Site::with(1);
    site.place.owner = Some(fs::metadata(&site.place.drop).unwrap().uid() + 1);
    assert!(refused(&site).contains("belongs to uid"));
    assert_eq!(site.names(), ["ann"]);

    for own in [".ann.bin", ".ann.copy"] {
        let site = Site::with(1);
        let target = site.folder.path().join("target");
        fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, site.beside(own)).unwrap();
        assert!(refused(&site).contains("not a regular file"), "{own}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }
    let site = Site::with(1);
    let target = site.folder.path().join("target");
    fs::write(&target, "untouched").unwrap();
    std::os::unix::fs::symlink(&target, site.beside(".ann.idx")).unwrap();
    assert_eq!(site.open().totals().messages, 1);
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

#[test]
fn bins_lie_beside_the_drop_unless_others_may_write_there() {
    let bins = |mode: u32, bin_path: Option<&str>| {
        let mut site = Site::with(1);
        let spool = site.place.drop.parent().unwrap().to_owned();
        fs::set_permissions(&spool, fs::Permissions::from_mode(mode)).unwrap();
        site.place.bin_path = bin_path.map(|name| site.folder.path().join(name));
        site.delete(&[1]);
        let mirror = |base: &str| {
            let mut path = site.folder.path().join(base);
            path.extend(spool.components().skip(1));
            path.join(".ann.bin")
        };
        let places = [site.beside(".ann.bin"), mirror("work/bin"), mirror("bins")];
        let found = places.iter().position(|path| path.exists()).unwrap();
        assert_eq!(fs::metadata(&places[found]).unwrap().mode() & 0o7777, 0o600);
        if found > 0 {
            let dir = places[found].parent().unwrap();
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o7777, 0o700);
            assert_eq!(site.names(), ["ann"], "nothing of ours stays in the spool");
        }
        assert_eq!(site.open().totals().messages, 0);
        found
    };
    assert_eq!(bins(0o755, None), 0);
    assert_eq!(bins(0o775, None), 1);
    assert_eq!(bins(0o1777, None), 1);
    assert_eq!(bins(0o755, Some("bins")), 2);
    assert_eq!(bins(0o1777, Some("bins")), 2);
}

#[test]
fn a_drop_locked_by_another_program_is_tried_again_and_nothing_is_held_meanwhile() {
    let site = Site::with(2);
    let locked = |what: &str| {
        let found = Maildrop::open(&site.place);
        assert!(matches!(found, Err(Refused::Locked)), "{what}: {found:?}");
    };
    let dotlock = site.beside("ann.lock");
    fs::write(&dotlock, "").unwrap();
    locked("procmail's dotlock");
    fs::remove_file(&dotlock).unwrap();

    let file = fs::OpenOptions::new().read(true).write(true).open(&site.place.drop).unwrap();
    assert!(RealDisk::default().try_lock(&file, LockKind::Fcntl).unwrap());
    locked("mutt's fcntl");
    assert!(!dotlock.exists(), "the lock taken first is given up again");
    RealDisk::default().unlock(&file, LockKind::Fcntl).unwrap();
    assert_eq!(site.open().totals().messages, 2);

    let mut flocks = Site::with(2);
    flocks.place.locks = vec![LockKind::Flock];
    let file = fs::File::open(&flocks.place.drop).unwrap();
    file.lock().unwrap();
    assert!(matches!(Maildrop::open(&flocks.place), Err(Refused::Locked)));
    file.unlock().unwrap();
    assert_eq!(flocks.open().totals().messages, 2);
}

#[test]
fn a_drop_locked_at_quit_keeps_its_bytes_and_loses_them_at_the_next() {
    let mut site = Site::with(3);
    site.place.full = Fraction::ALL;
    let mut maildrop = site.open();
    maildrop.delete(1).unwrap();
    maildrop.commit().unwrap();
    fs::write(site.beside("ann.lock"), "").unwrap();
    assert!(matches!(maildrop.compact(&mut || true), Err(Refused::Locked)));
    assert_eq!(site.text(), (1..=3).map(letter).collect::<String>());
    fs::remove_file(site.beside("ann.lock")).unwrap();
    let mut maildrop = site.open();
    assert_eq!(maildrop.totals().messages, 2);
    assert!(maildrop.commit().unwrap().wants_compaction);
    maildrop.compact(&mut || true).unwrap();
    assert_eq!(site.text(), letter(2) + &letter(3));
}

#[test]
fn compaction_keeps_inode_owner_mode_and_times() {
    let site = Site::with(4);
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let times = fs::FileTimes::new().set_modified(long_ago).set_accessed(long_ago);
    fs::File::options().write(true).open(&site.place.drop).unwrap().set_times(times).unwrap();
    fs::set_permissions(&site.place.drop, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&site.place.drop).unwrap();
    site.delete(&[2]);
    let freed = site.compact().freed_bytes;
    let after = fs::metadata(&site.place.drop).unwrap();
    assert_eq!(after.len(), before.len() - freed);
    assert_eq!((after.ino(), after.uid(), after.mode()), (before.ino(), before.uid(), before.mode()));
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    assert_eq!(site.names(), [".ann.bin", ".ann.idx", "ann"]);
}

#[test]
fn everything_dead_is_one_truncate_and_the_same_message_arriving_later_is_alive() {
    let site = Site::with(2);
    let uids = site.uids();
    site.delete(&[1, 2]);
    let compacted = site.compact();
    assert_eq!((compacted.moved_bytes, site.text().len()), (0, 0));
    site.append(&letter(1));
    assert_eq!(site.uids(), uids[..1]);
}

#[test]
fn a_message_that_another_program_expunged_and_delivered_again_is_alive() {
    let site = Site::with(3);
    site.delete(&[2]);
    fs::write(&site.place.drop, letter(1) + &letter(3)).unwrap();
    assert_eq!(site.open().totals().messages, 2);
    site.append(&letter(2));
    assert_eq!(site.open().totals().messages, 3);
}

#[test]
fn equal_messages_have_different_uids_for_ever() {
    let site = Site::new();
    let twin = |k: usize| letter(1).replace("s1@", &format!("s{k}@"));
    fs::write(&site.place.drop, [twin(1), twin(2), letter(9)].concat()).unwrap();
    let uids = site.uids();
    assert_eq!((uids[0].hash, uids[0].occurrence, uids[1].occurrence), (uids[1].hash, 0, 1));
    assert!(uids[1].to_string().ends_with(".1"));
    site.append(&twin(3));
    let uids = site.uids();
    assert_eq!(uids[3].occurrence, 2);
    site.delete(&[1, 4]);
    site.compact();
    fs::remove_file(site.beside(".ann.idx")).unwrap();
    assert_eq!(site.uids(), uids[1..3], "the second stays the second when the first is gone");
    site.append(&twin(4));
    assert_eq!(site.uids()[2].occurrence, 3, "a number is never given twice");
    // Another program expunges the second.
    fs::write(&site.place.drop, letter(9) + &twin(4)).unwrap();
    let left = site.uids();
    assert_eq!((left[0], left[1].occurrence), (uids[2], 3));
}

#[test]
fn deletions_survive_other_programs_edits() {
    let site = Site::with(4);
    let before = site.uids();
    site.delete(&[2]);
    // mutt marks messages as read and writes a new file; python's mailbox module rewrites in place.
    let edited = site.text().replace("Subject", "Status: RO\nSubject");
    fs::write(site.beside("new"), &edited).unwrap();
    fs::rename(site.beside("new"), &site.place.drop).unwrap();
    let left = [before[0], before[2], before[3]];
    assert_eq!(site.uids(), left);
    let maildrop = site.open();
    assert_eq!(maildrop.totals().last_read, 3);
    drop(maildrop);
    fs::write(&site.place.drop, edited.replace("Status: RO", "X-Status: A\nX-Keywords: x").replace('\n', "\r\n"))
        .unwrap();
    assert_eq!(site.uids(), left);
    // A backup of yesterday is put back: what was deleted and is in it again keeps its name, or stays away.
    fs::write(&site.place.drop, (1..=4).map(letter).collect::<String>()).unwrap();
    assert_eq!(site.uids(), left);
}

#[test]
fn a_compaction_that_is_told_to_stop_leaves_the_drop_as_it_was() {
    let site = Site::with(5);
    site.delete(&[1, 3]);
    for calls in 0.. {
        let mut left = calls;
        let compacted = site.open().compact(&mut || {
            left -= 1;
            left >= 0
        });
        match compacted {
            Err(Refused::Locked) => {
                assert_eq!(site.text(), (1..=5).map(letter).collect::<String>());
                assert_eq!(site.names(), [".ann.bin", ".ann.idx", "ann"]);
            }
            Ok(_) => {
                assert!(calls > 1);
                break;
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
    assert_eq!(site.text(), letter(2) + &letter(4) + &letter(5));
}

#[test]
fn the_operators_acts_work_on_real_files_with_bins_of_their_own() {
    let mut site = Site::with(4);
    site.place.bin_path = Some(site.folder.path().join("bins"));
    let before = site.uids();
    site.delete(&[1, 3]);
    assert_eq!(undelete_on(&RealDisk::default(), &site.place).unwrap().messages, 2);
    assert_eq!(site.uids(), before);
    site.delete(&[1, 3]);

    let far = site.folder.path().join("far");
    fs::create_dir(&far).unwrap();
    let bob = Place { drop: far.join("bob"), ..site.place.clone() };
    let (inode, bytes) = (fs::metadata(&site.place.drop).unwrap().ino(), site.text().len() as u64);
    assert_eq!(rename_user_on(&RealDisk::default(), &site.place, &bob).unwrap(), Renamed { bytes });
    assert_eq!(site.names(), Vec::<String>::new());
    assert_eq!(fs::metadata(&bob.drop).unwrap().ino(), inode);
    let maildrop = Maildrop::open(&bob).unwrap();
    assert_eq!(rows(&maildrop).iter().map(|row| row.uid).collect::<Vec<_>>(), [before[1], before[3]]);
    assert!(matches!(erase_on(&RealDisk::default(), &bob), Err(Refused::InUse)));
    drop(maildrop);

    let mut bins = site.folder.path().join("bins");
    bins.extend(far.components().skip(1));
    assert!(bins.join(".bob.bin").exists());
    fs::write(bins.join(".bob.copy.aside-0123456789abcdef"), "mail").unwrap();
    assert_eq!(erase_on(&RealDisk::default(), &bob).unwrap(), Erased { bytes });
    assert_eq!((fs::read_dir(&far).unwrap().count(), fs::read_dir(&bins).unwrap().count()), (0, 0));
    fs::write(&bob.drop, (1..=4).map(letter).collect::<String>()).unwrap();
    assert_eq!(rows(&Maildrop::open(&bob).unwrap()).len(), 4);
}

#[test]
fn top_sends_the_header_and_some_lines() {
    let site = Site::with(1);
    let maildrop = site.open();
    let mut out = Output::default();
    let mut reader = maildrop.reader(1, Some(1), Reach::Wait).unwrap();
    assert_eq!(reader.pull(&mut [0; 1024], &mut out).unwrap(), Pulled::Last);
    assert_eq!(out.bytes(), b"Subject: m1\r\n\r\nbody 1\r\n.\r\n");
}

#[test]
fn pages_cover_every_number_once() {
    let site = Site::with(200);
    let mut maildrop = site.open();
    maildrop.delete(65).unwrap();
    maildrop.delete(200).unwrap();
    for reach in [Reach::Now, Reach::Wait] {
        assert_eq!(
            maildrop.page(64, reach).unwrap().iter().map(|row| row.number).collect::<Vec<_>>(),
            Vec::from_iter(64..128)
        );
        let page = maildrop.page(193, reach).unwrap();
        assert_eq!(page.len(), 8);
        assert!(page[7].deleted && !page[6].deleted);
        assert!(maildrop.page(201, reach).unwrap().is_empty());
        assert!(maildrop.page(0, reach).unwrap().is_empty());
        assert!(maildrop.page(u32::MAX, reach).unwrap().is_empty());
    }
    let rows = rows(&maildrop);
    assert_eq!(rows.len(), 200);
    assert_eq!(rows.iter().filter(|row| row.deleted).map(|row| row.number).collect::<Vec<_>>(), [65, 200]);
    let live = maildrop.live_totals();
    assert_eq!(live.messages, 198);
    assert_eq!(live.octets, rows.iter().filter(|row| !row.deleted).map(|row| row.octets).sum::<u64>());
}

#[test]
fn an_open_maildrop_takes_no_memory_per_message() {
    let site = Site::with(3000);
    let maildrop = site.open();
    assert_eq!(maildrop.totals().messages, 3000);
    let paths = size_of_val(Path::as_os_str(&site.place.drop));
    assert!(maildrop.bytes_for_tests() <= 280 + paths, "{} bytes", maildrop.bytes_for_tests());
}
