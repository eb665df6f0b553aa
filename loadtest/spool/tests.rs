use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use dmail::mail::mbox::Scanner;
use xxhash_rust::xxh3::Xxh3;

use super::*;
use crate::letter::{Stamp, Verdict, verify};

fn order(dir: &Path, options: &str) -> Order {
    let mut args = vec![dir.display().to_string()];
    args.extend(options.split_whitespace().map(str::to_owned));
    match order::read(&args) {
        Ok(Asked::Order(order)) => *order,
        Ok(Asked::Help) => panic!("nobody asked for help"),
        Err(why) => panic!("{why}"),
    }
}

fn made(dir: &Path, options: &str) -> Manifest {
    let order = order(dir, options);
    make(&order, &Plan::of(&order.manifest), Path::new("/usr/bin/dmail")).unwrap();
    Manifest::read(dir).unwrap()
}

/// All files whose bytes the order decides, by their names.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(within) = dirs.pop() {
        for entry in fs::read_dir(within).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match path.is_dir() {
                true => dirs.push(path),
                false if ["cert.pem", "key.pem", furnish::CONF].contains(&&*name) => {}
                false => drop(found.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    found
}

const SMALL: &str = "-a 300 --law large_share=0.02 --law attachment_median=20000 --law large_most=60";

#[test]
fn the_same_order_makes_the_same_bytes_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, other] = ["one", "two", "other"].map(|name| dir.path().join(name));
    made(&one, &format!("{SMALL} --threads 1 --shape drop3000"));
    made(&two, &format!("{SMALL} --threads 5 --shape drop3000"));
    made(&other, &format!("{SMALL} --threads 1 --shape drop3000 --seed 2"));
    assert_eq!(files(&one), files(&two));
    assert_ne!(files(&one), files(&other));
    let mut hash = Xxh3::new();
    for (name, bytes) in files(&one) {
        hash.update(name.as_bytes());
        hash.update(&bytes);
    }
    assert_eq!(hash.digest(), GOLDEN, "a seed means other mail now: raise manifest::VERSION. {:#x}", hash.digest());
}
const GOLDEN: u64 = 0x3fee_bc78_8ec5_f6c5;

#[test]
fn every_drop_holds_what_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    for method in 0..=3 {
        let dir = dir.path().join(method.to_string());
        let manifest = made(&dir, &format!("{SMALL} --hash-spool {method}"));
        let order = order(&dir, &format!("{SMALL} --hash-spool {method}"));
        let mut totals = Plan::of(&order.manifest).totals;
        totals.octets = manifest.totals.octets;
        assert_eq!(manifest, Manifest { totals, ..order.manifest });
        let drops = fs::read_to_string(dir.join("drops")).unwrap();
        let mut lines = drops.lines().skip(1);
        let (mut messages, mut bytes, mut octets) = (0, 0, 0);
        for index in 0..manifest.count() {
            let login = manifest.login(index);
            let text = fs::read(manifest.drop_path(&dir, &login)).unwrap();
            let mut found = Vec::new();
            let mut scanner = Scanner::new(0);
            scanner.feed(&text, &mut |extent| found.push(extent));
            scanner.finish(&mut |extent| found.push(extent));
            assert_eq!(found.len(), manifest.mailbox(index).messages.len(), "{login}");
            for (extent, number) in found.iter().zip(1..) {
                let text = &text[extent.text() as usize..][..extent.text_bytes as usize];
                assert_eq!(verify(text), Verdict::Whole(Stamp::in_spool(index, number)));
            }
            let sum: u64 = found.iter().map(|extent| extent.octets).sum();
            assert_eq!(lines.next().unwrap(), format!("{login} {} {} {sum}", found.len(), text.len()));
            messages += found.len() as u64;
            bytes += text.len() as u64;
            octets += sum;
        }
        assert_eq!((messages, bytes, octets), (totals.messages, totals.bytes, totals.octets));
        assert_eq!((totals.empty + totals.small + totals.large, lines.next()), (300, None));
    }
}

#[test]
fn what_is_told_before_is_what_the_disk_has_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let within = dir.path().join("within");
    let order = order(&within, SMALL);
    let plan = Plan::of(&order.manifest);
    made(&within, SMALL);
    let (mut bytes, mut inodes) = (0, 1);
    let mut dirs = vec![within];
    while let Some(within) = dirs.pop() {
        for entry in fs::read_dir(within).unwrap() {
            let path = entry.unwrap().path();
            let about = path.metadata().unwrap();
            inodes += 1;
            bytes += about.size().next_multiple_of(4_096);
            if path.is_dir() {
                dirs.push(path);
            }
        }
    }
    assert!(inodes <= plan.inodes && plan.inodes < 2 * inodes + 600, "{} {inodes}", plan.inodes);
    assert!(bytes <= plan.disk_bytes && plan.disk_bytes < bytes * 3 / 2 + (2 << 20), "{} {bytes}", plan.disk_bytes);
}

#[test]
fn a_drop_that_was_changed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let within = dir.path().join("within");
    let manifest = made(&within, "-a 40 --law empty_share=0.2");
    assert_eq!(write::compare(&within, &manifest, 2), Ok(40));
    let full = (0..40).find(|index| manifest.mailbox(*index).messages.len() > 1).unwrap();
    let path = manifest.drop_path(&within, &manifest.login(full));
    let text = fs::read(&path).unwrap();
    let changed = |at: usize| {
        let mut text = text.clone();
        text[at] ^= 1;
        text
    };
    for wrong in [changed(0), changed(text.len() - 1), text[1..].to_vec(), [&text[..], b"\n"].concat(), Vec::new()] {
        fs::write(&path, wrong).unwrap();
        let why = write::compare(&within, &manifest, 2).unwrap_err();
        assert!(why.contains(&path.display().to_string()), "{why}");
    }
    fs::write(&path, text).unwrap();
    assert_eq!(write::compare(&within, &manifest, 1), Ok(40));
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(is_free(dir.path()), Ok(()));
    assert_eq!(is_free(&dir.path().join("new")), Ok(()));
    fs::write(dir.path().join("a"), "").unwrap();
    assert!(
        is_free(dir.path())
            .unwrap_err()
            .ends_with("is not empty: name a folder that is empty, or that is not there yet")
    );
    fs::create_dir(dir.path().join(SPOOL)).unwrap();
    assert!(is_free(dir.path()).unwrap_err().contains("may be a spool half made: remove it (rm -r "));
    fs::write(dir.path().join(FILE), "").unwrap();
    assert!(is_free(dir.path()).unwrap_err().contains("has a made spool in it already"));
    assert!(is_free(&dir.path().join("a")).is_err());
}

#[test]
fn passwords_are_kept_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, _) in order::HASHES {
        let within = dir.path().join(kind);
        made(&within, &format!("-a 3 --hash {kind} --password word"));
        let text = fs::read_to_string(within.join("users/nwauth.txt")).unwrap();
        let line = text.lines().nth(2).unwrap();
        let stored = line.strip_prefix("bob1:").unwrap();
        match kind {
            "plain" => assert_eq!(stored, "{PLAIN}word"),
            _ => {
                let again = dmail::sys::crypt::Crypt::load().unwrap().hash(b"word", stored.as_bytes());
                assert_eq!(again.as_deref(), Some(stored.as_bytes()));
            }
        }
    }
}
