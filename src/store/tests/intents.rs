//! The log of intents: what it says is what was begun and not ended, after every prefix of its calls, by kill and by power cut,
//! over many turns from one half to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::sim::SimDisk;
use crate::store::delivery::{IntentId, Intents, Queued};
use crate::store::intent::{Intent, Part, standing};

/// Small enough to be full after a few intents.
const HALF: u64 = 4096;
const DROPS: u64 = 3;

fn drop_of(number: u64) -> PathBuf {
    PathBuf::from(format!("/spool/user{number}"))
}

fn intent(number: u64, head: usize) -> Intent {
    let queued = Queued { id: format!("{number:08}"), recipient: "ann@y".to_owned() };
    let part = Part { bytes: 100 + number, hash: number, head: vec![b'h'; head], queued: Some(queued), marked: None };
    Intent {
        drop: drop_of(number % DROPS),
        inode: 7,
        start: number,
        pad: 1,
        seed: number,
        parts: vec![part],
        void: false,
        found: Vec::new(),
    }
}

fn open(disk: &SimDisk) -> Intents<SimDisk> {
    Intents::open_with(disk, Path::new("/work"), HALF).unwrap()
}

/// What a log is known to have been told, by the intents' own numbers.
#[derive(Default)]
struct Told {
    begun: BTreeMap<u64, IntentId>,
    void: BTreeSet<u64>,
    found: BTreeSet<u64>,
    /// Perhaps: they may come back, or what was said of them may be there.
    closed: BTreeSet<u64>,
    doubted: BTreeSet<u64>,
    /// Of these drops it was said that nothing is open, on disk.
    free: BTreeMap<u64, u64>,
}

impl Told {
    fn check(&self, disk: &SimDisk) {
        let log = open(disk);
        let found: BTreeMap<u64, Intent> = log.open_ones().into_iter().map(|(_, open)| (open.seed, open)).collect();
        for (number, open) in &found {
            let known =
                self.begun.contains_key(number) || self.doubted.contains(number) || self.closed.contains(number);
            assert!(known, "{number} was never begun");
            let said = self.free.get(&(number % DROPS)).copied().unwrap_or(0);
            assert!(*number >= said, "it was on disk that {number} is over");
            let wanted =
                Intent { void: open.void, found: open.found.clone(), ..intent(*number, open.parts[0].head.len()) };
            assert_eq!(*open, wanted);
        }
        for number in self.begun.keys() {
            let open = found.get(number).unwrap_or_else(|| panic!("{number} is not known any more"));
            let doubt = self.doubted.contains(number);
            assert!(doubt || open.void == self.void.contains(number), "{number}: void is {}", open.void);
            assert!(doubt || (open.found == [0]) == self.found.contains(number), "{number}: found {:?}", open.found);
        }
    }

    /// Plays until the process ends, or all is done.
    fn play(&mut self, disk: &SimDisk, seed: u64) {
        let Ok(log) = Intents::open_with(disk, Path::new("/work"), HALF) else { return };
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut next = 1;
        for _ in 0..40 {
            let ours: Vec<u64> = self.begun.keys().copied().collect();
            let one = ours.get(below(ours.len() as u64 + 1) as usize).copied();
            match (below(8), one) {
                (0..=2, _) | (_, None) => {
                    let count = 1 + below(3);
                    let numbers: Vec<u64> = (next..next + count).collect();
                    next += count;
                    // Now and then one that needs a larger half.
                    let head = if below(16) == 0 { 3000 } else { 300 };
                    let begun = log.begin_all(numbers.iter().map(|&number| intent(number, head)).collect());
                    match begun {
                        Ok(ids) => self.begun.extend(numbers.into_iter().zip(ids)),
                        Err(_) => self.doubted.extend(numbers),
                    }
                }
                (3, Some(number)) => match log.void(self.begun[&number]) {
                    Ok(()) => drop(self.void.insert(number)),
                    Err(_) => drop(self.doubted.insert(number)),
                },
                (4, Some(number)) => match log.found(self.begun[&number], vec![0]) {
                    Ok(()) => drop(self.found.insert(number)),
                    Err(_) => drop(self.doubted.insert(number)),
                },
                (5, Some(_)) => drop(log.tidy()),
                (6, Some(_)) if below(4) == 0 => {
                    ours.iter().for_each(|number| log.close(self.begun.remove(number).unwrap()));
                    self.closed.extend(ours);
                }
                (_, Some(number)) => {
                    log.close(self.begun.remove(&number).unwrap());
                    self.closed.insert(number);
                }
            }
            if disk.world().stopped {
                return;
            }
            let drop = below(DROPS);
            if let Ok(seen) = standing(disk, Path::new("/work"), &drop_of(drop)) {
                let seen: BTreeSet<u64> = seen.into_iter().map(|open| open.seed).collect();
                let here = |number: &&u64| **number % DROPS == drop;
                assert!(self.begun.keys().filter(here).all(|number| seen.contains(number)), "one does not stand");
                if seen.is_empty() {
                    self.free.insert(drop, next);
                }
            }
            if disk.world().stopped {
                return;
            }
        }
    }
}

#[test]
fn what_is_open_is_found_after_every_prefix_of_calls_whichever_half_it_stands_in() {
    let mut turns = 0;
    for seed in 1..=3 {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        Told::default().play(&disk, seed);
        let calls = disk.world().calls;
        let trace = disk.world().trace.clone();
        turns += trace.iter().filter(|call| *call == "write").count();
        for n in 1..=calls {
            for (power, failure) in [(false, false), (true, false), (true, true)] {
                let disk = SimDisk::new(seed, &["/spool", "/work"]);
                match failure {
                    true => disk.world().fail_at = Some((n, io::ErrorKind::Other)),
                    false => disk.world().stop_at = Some(n),
                }
                let mut told = Told::default();
                told.play(&disk, seed);
                match power {
                    true => disk.world().cut_power(),
                    false => disk.world().kill(),
                }
                let disk = disk.again();
                let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    told.check(&disk);
                    // And what the new server finds it keeps.
                    disk.world().cut_power();
                    told.check(&disk.again());
                }));
                assert!(found.is_ok(), "seed {seed}, call {n} of {calls}, power {power}, failure {failure}");
            }
        }
    }
    assert!(turns > 100, "{turns} writes are too few to go round");
}

#[test]
fn a_log_is_written_in_place_and_a_sync_finds_no_other_size() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = open(&disk);
    let seen = |disk: &SimDisk| {
        let world = disk.world();
        let at = Path::new("/work/intents");
        (world.bytes(at).len() as u64, world.inode_of(at), world.syncs)
    };
    let (size, inode, syncs) = seen(&disk);
    assert_eq!(size, 2 * HALF);
    let dirs = disk.world().trace.len();
    for number in 1..=100 {
        let id = log.begin(intent(number, 300)).unwrap();
        log.close(id);
    }
    assert_eq!(seen(&disk), (size, inode, syncs + 100), "one sync each, also where the half ends");
    assert!(!disk.world().trace[dirs..].iter().any(|call| call.starts_with("open") || call == "sync_dir"));
}

#[test]
fn a_half_grows_with_what_is_open_and_is_as_it_was_when_that_is_over() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = open(&disk);
    let ids: Vec<IntentId> = (1..=100).map(|number| log.begin(intent(number, 300)).unwrap()).collect();
    assert!(disk.world().bytes(Path::new("/work/intents")).len() as u64 > 4 * HALF);
    drop(log);
    disk.world().cut_power();
    let disk = disk.again();
    let log = open(&disk);
    assert_eq!(log.len(), 100);
    ids.into_iter().for_each(|id| log.close(id));
    log.tidy().unwrap();
    assert_eq!(disk.world().bytes(Path::new("/work/intents")).len() as u64, 2 * HALF);
    assert!(standing(&disk, Path::new("/work"), &drop_of(1)).unwrap().is_empty());
}

#[test]
fn a_tidied_log_names_no_drop_and_a_quiet_one_is_not_written_again() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = open(&disk);
    // Round and round, so that both halves have something of the past.
    (1..=60).for_each(|number| log.close(log.begin(intent(number, 300)).unwrap()));
    let named = |disk: &SimDisk| {
        let bytes = disk.world().bytes(Path::new("/work/intents"));
        memchr::memmem::find(&bytes, b"/spool/").is_some()
    };
    assert!(named(&disk));
    log.tidy().unwrap();
    assert!(!named(&disk));
    let writes = disk.world().writes;
    log.tidy().unwrap();
    assert_eq!(disk.world().writes, writes);
    let syncs = disk.world().syncs;
    assert!(standing(&disk, Path::new("/work"), &drop_of(1)).unwrap().is_empty());
    assert_eq!(disk.world().syncs, syncs, "who asks about a drop that nobody wrote to waits for no disk");
}

#[test]
fn a_reader_begins_anew_when_the_log_goes_on_while_he_reads() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = std::sync::Arc::new(open(&disk));
    let id = log.begin(intent(0, 300)).unwrap();
    // Another drop's traffic takes the log through both halves between two of the reader's reads.
    let (busy, turns) = (log.clone(), std::sync::atomic::AtomicU64::new(0));
    disk.world().gate = Some(std::sync::Arc::new(move |what: &str| {
        let turn = turns.fetch_add(u64::from(what == "read"), std::sync::atomic::Ordering::SeqCst);
        if what == "read" && turn < 6 {
            for number in 0..40 {
                busy.close(busy.begin(intent(1 + DROPS * (40 * turn + number), 300)).unwrap());
            }
        }
    }));
    let seen = standing(&disk, Path::new("/work"), &drop_of(0)).unwrap();
    disk.world().gate = None;
    assert_eq!(seen, [intent(0, 300)]);
    log.close(id);
}

#[test]
fn who_reads_a_log_that_is_being_renewed_waits_for_its_name_too() {
    for seed in 1..=40 {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        let log = open(&disk);
        let of = |number: u64| intent(number * DROPS, 300);
        let ids: Vec<IntentId> = (1..=30).map(|number| log.begin(of(number)).unwrap()).collect();
        ids.into_iter().for_each(|id| log.close(id));
        // The larger file is given up: its successor has the name, and that is not on disk yet.
        let (reader, asked) = (disk.clone(), std::sync::atomic::AtomicBool::new(false));
        let first_ask = move |what: &str| {
            let is_first = || !asked.swap(true, std::sync::atomic::Ordering::SeqCst);
            if what == "sync_dir" && is_first() {
                assert!(standing(&reader, Path::new("/work"), &drop_of(0)).unwrap().is_empty());
                reader.world().stopped = true;
            }
        };
        disk.world().gate = Some(std::sync::Arc::new(first_ask));
        assert!(log.tidy().is_err(), "it is renewed, and the power fails in that");
        disk.world().gate = None;
        disk.world().cut_power();
        assert_eq!(open(&disk.again()).open_ones().len(), 0, "seed {seed}: it was said that none is open");
    }
}

#[test]
fn a_log_that_cannot_be_renewed_on_a_full_disk_leaves_nothing_of_the_new_one() {
    for written in ["write", "sync"] {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        drop(open(&disk));
        let (full, turn) = (disk.clone(), std::sync::atomic::AtomicU64::new(0));
        // The first is the log's beginning, the second all its zeros.
        let second = move |what: &str| {
            let turns = if what == written { turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) } else { 0 };
            if what == written && (written == "sync" || turns == 1) {
                let mut world = full.world();
                world.fail_at = Some((world.calls + 1, io::ErrorKind::StorageFull));
            }
        };
        disk.world().gate = Some(std::sync::Arc::new(second));
        let log = open(&disk);
        disk.world().gate = None;
        assert_eq!(disk.world().names(Path::new("/work")), ["intents", "repeats"], "{written}");
        disk.world().fail_at = None;
        log.begin(intent(1, 300)).unwrap();
        assert_eq!(standing(&disk, Path::new("/work"), &drop_of(1)).unwrap().len(), 1);
    }
}

#[test]
fn a_log_that_a_server_wrote_before_there_were_halves_is_read() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = open(&disk);
    log.begin(intent(5, 300)).unwrap();
    let bytes = disk.world().bytes(Path::new("/work/intents"));
    drop(log);
    // Its records had generation nought, and stood one behind the other from the file's start.
    let at = memchr::memmem::find_iter(&bytes, b"DMi1").nth(2).unwrap();
    let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let mut record = bytes[at..at + 32 + length].to_vec();
    assert_eq!(record[4], 1);
    record[12..16].fill(0);
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&record[..24]);
    hash.update(&record[32..]);
    record[24..32].copy_from_slice(&hash.digest().to_le_bytes());
    disk.world().kill();
    disk.world().put(Path::new("/work/intents"), &[&b"torn"[..], &record].concat(), true);
    let disk = disk.again();
    assert_eq!(standing(&disk, Path::new("/work"), &drop_of(2)).unwrap().len(), 1);
    let log = open(&disk);
    assert_eq!(log.open_ones().into_iter().map(|(_, open)| open).collect::<Vec<_>>(), [intent(5, 300)]);
    assert_eq!(disk.world().bytes(Path::new("/work/intents")).len() as u64, 2 * HALF);
}
