//! What somebody who may write to a drop or its directory can put there: links, second names, pipes, strangers' files, a
//! terabyte of nothing; and what he can do while we are at work.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sim::SimDisk;
use super::{Site, from, letter, refused, retr, rows};
use crate::store::maildrop::*;
use crate::text::bytes::Output;

/// Everything of ours beside a drop.
const OURS: [&str; 5] = [".ann.bin", ".ann.idx", ".ann.copy", ".ann.copy.new", ".ann.bin.new"];

/// A site that has been used, and a file elsewhere that must stay as it is.
fn site() -> (Site, std::path::PathBuf) {
    let site = Site::with(4);
    site.uids();
    let target = site.folder.path().join("target");
    fs::write(&target, "untouched").unwrap();
    (site, target)
}

/// A whole session: look, read, delete, commit, compact.
fn session(site: &Site) -> Result<(), Refused> {
    let mut maildrop = Maildrop::open(&site.place)?;
    assert_eq!(rows(&maildrop).len() as u32, maildrop.totals().messages);
    let _ = maildrop.delete(1);
    maildrop.commit()?;
    maildrop.compact(&mut || true).map(drop)
}

#[test]
fn nothing_is_ever_written_through_a_link_or_to_a_second_name() {
    for name in OURS {
        for hard in [false, true] {
            let (site, target) = site();
            let planted = site.beside(name);
            fs::remove_file(&planted).ok();
            if hard {
                fs::hard_link(&target, &planted).unwrap();
            } else {
                symlink(&target, &planted).unwrap();
            }
            let text = site.text();
            match session(&site) {
                // An index that cannot be had is done without; a ledger is written anew only when it is long.
                Ok(()) => assert!([".ann.idx", ".ann.bin.new"].contains(&name), "{name} {hard}"),
                Err(Refused::Unsafe(_)) => assert_eq!(site.text(), text, "{name} {hard}"),
                Err(other) => panic!("{name} {hard}: {other:?}"),
            }
            let seen = fs::metadata(&target).unwrap();
            assert_eq!((fs::read_to_string(&target).unwrap().as_str(), seen.len()), ("untouched", 9), "{name} {hard}");
        }
    }
}

#[test]
fn pipes_and_directories_stop_nobody_and_are_not_waited_for() {
    for name in OURS {
        for pipe in [false, true] {
            let (site, _) = site();
            let planted = site.beside(name);
            fs::remove_file(&planted).ok();
            if pipe {
                assert!(std::process::Command::new("mkfifo").arg(&planted).status().unwrap().success());
            } else {
                fs::create_dir(&planted).unwrap();
            }
            match session(&site) {
                Ok(()) => assert!([".ann.idx", ".ann.bin.new"].contains(&name), "{name} {pipe}"),
                Err(Refused::Unsafe(fault)) => assert!(fault.to_string().contains(name), "{fault}"),
                Err(other) => panic!("{name} {pipe}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    if crate::sys::files::effective_uid() != 0 {
        return; // Only root can give a file away.
    }
    for name in [".ann.bin", ".ann.copy", ".ann.copy.new"] {
        let (mut site, _) = site();
        let planted = site.beside(name);
        if !planted.exists() {
            fs::write(&planted, "").unwrap();
        }
        chown(&planted, Some(4711), None).unwrap();
        let text = site.text();
        assert!(matches!(session(&site), Err(Refused::Unsafe(_))), "{name}");
        assert_eq!(site.text(), text);
        // Of the drop's own owner it is as good as ours.
        site.place.owner = Some(4711);
        chown(&site.place.drop, Some(4711), None).unwrap();
        session(&site).unwrap();
        assert_eq!(fs::metadata(&site.place.drop).unwrap().uid(), 4711, "the owner is kept");
    }
    let (mut site, _) = site();
    chown(&site.place.drop, Some(4712), None).unwrap();
    site.place.owner = Some(4711);
    assert!(refused(&site).contains("belongs to uid 4712, not 4711"));
}

#[test]
fn a_drop_that_was_a_directory_for_a_moment_is_one_to_come_back_for() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    disk.world().put(Path::new("/spool/ann"), letter(1).as_bytes(), true);
    let place = Place::new("/spool/ann", "/work");
    let world = disk.clone();
    let swap = move |what: &str| {
        if what == "open Write ann" {
            let mut world = world.world();
            world.fail_at = Some((world.calls + 1, io::ErrorKind::IsADirectory));
        }
    };
    disk.world().gate = Some(Arc::new(swap));
    let refused = Maildrop::open_on(&disk, &place).unwrap_err();
    assert!(matches!(refused, Refused::Locked), "{refused:?}");
    disk.world().gate = None;
    assert_eq!(Maildrop::open_on(&disk, &place).unwrap().totals().messages, 1);
}

/// Says that it is over, also when that is by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_drop_swapped_for_a_link_and_back_while_we_work_leads_nowhere() {
    let (site, target) = site();
    // Something worth having: mail of another user.
    let secret = letter(99);
    fs::write(&target, &secret).unwrap();
    let (drop_path, away, link) = (&site.place.drop, site.beside("away"), site.beside("link"));
    let done = AtomicBool::new(false);
    let mut served = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                symlink(&target, &link).unwrap();
                fs::rename(drop_path, &away).unwrap();
                fs::rename(&link, drop_path).unwrap();
                fs::rename(&away, drop_path).unwrap();
            }
        });
        let _over = Over(&done);
        for attempt in 0..40_000 {
            // On a busy machine the link may be met many times before the drop is.
            if attempt >= 400 && served > 0 {
                break;
            }
            match Maildrop::open(&site.place) {
                Ok(mut maildrop) => {
                    served += 1;
                    let messages = maildrop.totals().messages;
                    assert!(messages == 0 || rows(&maildrop).len() as u32 == messages);
                    for number in 1..=messages {
                        assert!(!retr(&maildrop, number).contains("m99"));
                    }
                    let _ = maildrop.delete(messages);
                    if maildrop.commit().is_ok() {
                        let _ = maildrop.compact(&mut || true);
                    }
                }
                Err(Refused::Unsafe(_) | Refused::Locked) => {}
                Err(other) => panic!("{other:?}"),
            }
            if fs::symlink_metadata(&away).is_err() && fs::metadata(drop_path).is_ok_and(|found| found.len() == 0) {
                break;
            }
        }
    });
    assert!(served > 0);
    assert_eq!(fs::read_to_string(&target).unwrap(), secret);
    let left = site.text();
    assert!((0..=4).any(|kept| left == (1..=kept).map(letter).collect::<String>()), "{left}");
}

#[test]
fn a_sparse_terabyte_is_refused_before_it_is_read() {
    let site = Site::with(2);
    let text = site.text();
    fs::File::options().write(true).open(&site.place.drop).unwrap().set_len(1 << 40).unwrap();
    assert!(refused(&site).contains("a gigabyte of NULs"));
    fs::File::options().write(true).open(&site.place.drop).unwrap().set_len(text.len() as u64).unwrap();
    assert_eq!(site.open().totals().messages, 2);
    // What a power cut leaves is mail with NULs in it, and served.
    fs::File::options().write(true).open(&site.place.drop).unwrap().set_len(text.len() as u64 + (8 << 20)).unwrap();
    site.append(&format!("\n\n{}", letter(3)));
    assert_eq!(site.open().totals().messages, 3);
}

#[test]
fn a_message_that_is_cut_replaced_or_overwritten_at_any_slice_never_ends_with_the_dot() {
    type Change = fn(&Site);
    let changes: [(&str, Change); 4] = [
        ("cut in it", |site| {
            fs::File::options().write(true).open(&site.place.drop).unwrap().set_len(6_000).unwrap();
        }),
        ("cut before it", |site| {
            fs::File::options().write(true).open(&site.place.drop).unwrap().set_len(10).unwrap();
        }),
        ("replaced by another", |site| {
            fs::write(site.beside("new"), letter(7).repeat(1000)).unwrap();
            fs::rename(site.beside("new"), &site.place.drop).unwrap();
        }),
        ("overwritten with as many bytes", |site| {
            let file = fs::File::options().write(true).open(&site.place.drop).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9)).unwrap();
            file.write_all_at(&vec![b'x'; length as usize], 0).unwrap();
        }),
    ];
    let body = "all work and no play\n".repeat(500);
    let text = format!("{}Subject: m\n\n{body}\n{}", from(1), letter(2));
    let whole = format!("Subject: m\n\n{body}").replace('\n', "\r\n");
    for (what, change) in changes {
        for slices in 0..10 {
            let site = Site::new();
            fs::write(&site.place.drop, &text).unwrap();
            let maildrop = site.open();
            let mut reader = maildrop.reader(1, None, Reach::Wait).unwrap();
            let mut out = Output::default();
            for _ in 0..slices {
                assert_eq!(reader.pull(&mut [0; 1024], &mut out).unwrap(), Pulled::More);
            }
            change(&site);
            // Too little to tell is for a job to judge.
            let miss = reader.pull(&mut [0; 1024], &mut out);
            assert!(matches!(miss, Err(Miss::Changed | Miss::Cold)), "{what} after {slices}");
            assert!(matches!(reader.fetch().run(), Err(Miss::Changed)), "{what} after {slices}");
            assert!(
                whole.as_bytes().starts_with(out.bytes()),
                "{what} after {slices}: bytes that are not the message's"
            );
            drop(maildrop);
            // And the next session serves what is there, under a name of its own.
            Maildrop::open(&site.place).unwrap();
        }
    }
}

#[test]
fn a_drop_full_of_equal_messages_is_read_in_no_time_and_each_keeps_its_uid() {
    const COUNT: u32 = 50_000;
    let site = Site::with(0);
    let put = |order: &mut dyn Iterator<Item = u32>| {
        let letters = order.map(|n| format!("From a{n} Mon Jan  5 10:00:00 2026\n\nequal\n\n"));
        fs::write(&site.place.drop, letters.collect::<String>()).unwrap();
    };
    put(&mut (0..COUNT));
    let first = site.uids();
    // Backwards: the worst for who looks along a row. With every message compared to every other this takes minutes.
    put(&mut (0..COUNT).rev());
    assert!(first.iter().rev().eq(&site.uids()));
    assert_eq!(first.len(), COUNT as usize);
}

#[test]
fn a_ledger_that_tells_of_four_billion_equal_messages_fills_no_memory() {
    use crate::store::ledger::{Ledger, Named, Record};

    let site = Site::with(2);
    let before = site.uids();
    let (mut ledger, mut bytes) = (Ledger::default(), Vec::new());
    for uid in &before {
        let named = |occurrence| Named { uid: Uid { occurrence, ..*uid }, from_check: 1 };
        let records = [Record::Repetition(vec![named(u32::MAX), named(u32::MAX - 1)])];
        bytes.extend(ledger.append(&records, b"ann", 77));
    }
    fs::write(site.beside(".ann.bin"), bytes).unwrap();
    assert_eq!(site.uids(), before);
}
