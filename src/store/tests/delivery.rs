//! DESIGN's table of promises where mail of ours comes in: `accepted`, `refused`, `whole`, `same`, after every prefix of the
//! calls that deliveries make, by kill, power cut, a failing call, a full disk; others append in between, with locks and
//! without, and behind what a killed process left. `SIM_SEED=n` replays one life.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sim::{SimDisk, World};
use crate::mail::mbox::is_from_line;
use crate::store::delivery::*;
use crate::store::desk::{Place, Refused};
use crate::store::disk::{Disk, How, LockKind};
use crate::store::maildrop::Maildrop;
use crate::text::number::Fraction;

const DROP: &str = "/spool/ann";

fn place() -> Place {
    Place { full: Fraction::ALL, ..Place::new(DROP, "/work") }
}

fn received(k: usize) -> Vec<u8> {
    format!("Received: from mx by host with ESMTP id {k:08}; Mon, 5 Jan 2026 11:00:00 +0000\n").into_bytes()
}

fn letter<'a>(text: &'a [u8], received: &'a [u8], queued: Option<Queued>) -> Letter<'a, SimDisk> {
    let envelope = Envelope { sender: b"s@x", recipient: b"ann@y", received, posted_secs: 1_767_610_800 };
    Letter { envelope, body: Body::Memory(text), queued, marked: None }
}

/// What is in the drop for it, without the blank line behind it.
fn stored(text: &[u8], received: &[u8]) -> Vec<u8> {
    let mut bytes = letter(text, received, None).envelope.head();
    let mut writer = crate::mail::envelope::Text::default();
    writer.feed(text, &mut |piece| bytes.extend_from_slice(piece));
    writer.finish(&mut |piece| bytes.extend_from_slice(piece));
    bytes.pop();
    bytes
}

fn queued(k: usize) -> Queued {
    Queued { id: format!("{k:08}"), recipient: "ann@y".to_owned() }
}

fn intents(disk: &SimDisk) -> Intents<SimDisk> {
    Intents::open_with(disk, Path::new("/work"), 16_384).unwrap()
}

fn bytes(disk: &SimDisk) -> String {
    String::from_utf8(disk.world().bytes(Path::new(DROP))).unwrap()
}

fn foreign(k: usize) -> Vec<u8> {
    format!("From f{k}@z Mon Jan  5 10:00:00 2026\nSubject: f{k}\n\nforeign {k}\n\n").into_bytes()
}

/// Three drops, one of them new, get a letter each in one go; what came of each, if the log could be opened.
fn bring_to_three(disk: &SimDisk) -> Option<Vec<Result<Delivered, Failed>>> {
    let heads = [1, 2, 3].map(received);
    let letters = heads.each_ref().map(|head| [letter(b"a: b\n\nhello\n", head, None)]);
    let places = three();
    let batches: Vec<(&Place, &[Letter<'_, SimDisk>])> =
        places.iter().zip(&letters).map(|(place, letters)| (place, &letters[..])).collect();
    Some(deliver_all(&Intents::open_with(disk, Path::new("/work"), 16_384).ok()?, &batches))
}

fn three() -> [Place; 3] {
    ["/spool/ann", "/spool/bob", "/spool/eve"].map(|drop| Place { full: Fraction::ALL, ..Place::new(drop, "/work") })
}

fn three_drops() -> SimDisk {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    ["/spool/ann", "/spool/bob"].iter().for_each(|drop| disk.world().put(Path::new(drop), &foreign(0), true));
    disk
}

#[test]
fn drops_that_go_together_share_the_sync_of_the_log() {
    let disk = three_drops();
    disk.world().put(Path::new("/spool/eve"), &foreign(0), true);
    drop(intents(&disk));
    let before = disk.world().syncs;
    assert!(bring_to_three(&disk).unwrap().iter().all(Result::is_ok));
    let opening = {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        drop(intents(&disk));
        let before = disk.world().syncs;
        drop(intents(&disk));
        disk.world().syncs - before
    };
    assert_eq!(disk.world().syncs - before - opening, 4, "the intents once, each drop once");
}

#[test]
fn drops_that_go_together_keep_their_promises_each() {
    let calls = {
        let disk = three_drops();
        assert!(bring_to_three(&disk).unwrap().iter().all(Result::is_ok));
        disk.world().calls
    };
    let mut unlike = 0;
    for n in 1..=calls {
        for accident in [Accident::Kill(n), Accident::PowerCut(n), Accident::Error(n)] {
            let disk = three_drops();
            match accident {
                Accident::Error(_) => disk.world().fail_at = Some((n, io::ErrorKind::Other)),
                _ => disk.world().stop_at = Some(n),
            }
            let results = bring_to_three(&disk);
            let stopped = disk.world().stopped;
            match accident {
                Accident::Kill(_) => disk.world().kill(),
                _ => disk.world().cut_power(),
            }
            let disk = disk.again();
            disk.world().now += 1_100_000_000_000;
            let recovered = recover(&intents(&disk), &place());
            assert!(recovered.waiting.is_empty(), "{n}: {:?}", recovered.waiting);
            let results = results.unwrap_or_default();
            if !stopped {
                unlike += usize::from(results.iter().any(Result::is_ok) && !results.iter().all(Result::is_ok));
            }
            for (at, place) in three().iter().enumerate() {
                let (mut there, mine) =
                    (disk.world().bytes(&place.drop), stored(b"a: b\n\nhello\n", &received(at + 1)));
                if at < 2 {
                    assert!(there.starts_with(&foreign(0)), "{n}: another's mail stays");
                    there.drain(..foreign(0).len());
                }
                let whole = [&mine[..], b"\n"].concat();
                assert!(there.is_empty() || there == whole, "{n}: {:?}", String::from_utf8_lossy(&there));
                match results.get(at) {
                    _ if stopped => {}
                    Some(Ok(_)) => assert_eq!(there, whole, "{n}: what is accepted is there"),
                    Some(Err(Failed::Refused(_))) => assert!(there.is_empty(), "{n}: what is refused is not"),
                    Some(Err(Failed::Unknown(_))) | None => {}
                }
            }
        }
    }
    assert!(unlike > 0, "what fails at one drop is no other's trouble");
}

#[test]
fn a_batch_comes_into_a_new_drop_with_one_lock_and_one_sync() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = intents(&disk);
    let place = Place { owner: Some(1000), ..place() };
    let before = disk.world().syncs;
    let (one, two) = (received(1), received(2));
    let batch = [letter(b"a: b\n\nFrom me\n", &one, None), letter(b"a: c\n", &two, None)];
    let delivered = deliver(&log, &place, &batch).unwrap();
    assert!(matches!(delivered.outcomes[..], [Outcome::Delivered, Outcome::Delivered]) && delivered.intent.is_none());
    // The intent, the drop, its name.
    assert_eq!(disk.world().syncs - before, 3);
    let expected = [stored(b"a: b\n\nFrom me\n", &received(1)), stored(b"a: c\n", &received(2))];
    assert_eq!(bytes(&disk).into_bytes(), [&expected[0][..], b"\n", &expected[1], b"\n"].concat());
    assert!(bytes(&disk).contains("\n>From me\n"));
    let world = &mut disk.world();
    let file = world.file(Path::new(DROP)).unwrap();
    assert_eq!((file.uid, file.mode), (1000, 0o600));
    assert_eq!(world.names(Path::new("/spool")), ["ann"]);
}

#[test]
fn what_is_missing_of_a_blank_line_is_written_first_and_not_more() {
    for (tail, pad) in [("", ""), ("x\n\n", ""), ("x\r\n\r\n", ""), ("x\n", "\n"), ("x", "\n\n"), ("x\r\n", "\n")] {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        let text = if tail.is_empty() { String::new() } else { format!("From a Mon Jan  5 10:00:00 2026\n\n{tail}") };
        disk.world().put(Path::new(DROP), text.as_bytes(), true);
        deliver(&intents(&disk), &place(), &[letter(b"a: b\n\n", &received(1), None)]).unwrap();
        let ours = String::from_utf8(stored(b"a: b\n\n", &received(1))).unwrap();
        assert_eq!(bytes(&disk), format!("{text}{pad}{ours}\n"), "{tail:?}");
    }
}

#[test]
fn a_locked_drop_a_link_a_strangers_drop_and_a_text_that_cannot_be_read_are_answers() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = intents(&disk);
    disk.world().put(Path::new(DROP), &foreign(1), true);
    let dir = disk.open_dir(Path::new("/spool")).unwrap();
    let file = disk.open(&dir, Path::new("ann"), How::Write).unwrap();
    assert!(disk.try_lock(&file, LockKind::Fcntl).unwrap());
    let (one, two) = (received(1), received(2));
    let batch = [letter(b"a: b\n\n", &one, None)];
    assert!(matches!(deliver(&log, &place(), &batch), Err(Failed::Refused(Refused::Locked))));
    drop(file);
    let strange = Place { owner: Some(7), ..place() };
    assert!(matches!(deliver(&log, &strange, &batch), Err(Failed::Refused(Refused::Unsafe(_)))));
    let file = disk.open(&dir, Path::new("ann"), How::Read).unwrap();
    let short = Letter { body: Body::File(&file, 0..100_000), ..letter(b"", &two, None) };
    let delivered = deliver(&log, &place(), &[short, letter(b"a: b\n\n", &one, None)]).unwrap();
    assert!(matches!(delivered.outcomes[..], [Outcome::Unread(_), Outcome::Delivered]));
    let whole = String::from_utf8([foreign(1), stored(b"a: b\n\n", &one), b"\n".to_vec()].concat()).unwrap();
    assert_eq!(bytes(&disk), whole);
    assert!(log.is_empty());
}

#[test]
fn a_large_text_comes_from_its_file_in_pieces_that_end_where_pages_do() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let text = format!("a: b\n\n{}", "From the beginning to the end of all of it\n".repeat(30_000)).into_bytes();
    disk.world().put(Path::new("/work/body"), &text, true);
    let dir = disk.open_dir(Path::new("/work")).unwrap();
    let file = disk.open(&dir, Path::new("body"), How::Read).unwrap();
    let head = received(1);
    let large = Letter { body: Body::File(&file, 0..text.len() as u64), ..letter(b"", &head, None) };
    deliver(&intents(&disk), &place(), &[large]).unwrap();
    assert_eq!(bytes(&disk).into_bytes(), [&stored(&text, &head)[..], b"\n"].concat());
}

#[test]
fn who_has_his_message_by_an_append_that_is_not_noted_yet_gets_it_no_second_time() {
    for killed in [false, true] {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        let mut log = intents(&disk);
        let (one, two) = (received(1), received(2));
        deliver(&log, &place(), &[letter(b"a: b\n\n", &one, Some(queued(1)))]).unwrap();
        let disk = if killed {
            disk.world().kill();
            let disk = disk.again();
            disk.world().now += 1_100_000_000_000;
            log = intents(&disk);
            disk
        } else {
            disk
        };
        // One of them has it, and one does not.
        let batch = [letter(b"a: b\n\n", &one, Some(queued(1))), letter(b"c: d\n\n", &two, Some(queued(2)))];
        let delivered = deliver(&log, &place(), &batch).unwrap();
        assert!(matches!(delivered.outcomes[..], [Outcome::Delivered, Outcome::Delivered]));
        let [(earlier, recipients)] = &delivered.found[..] else { panic!("{:?}", delivered.found) };
        assert_eq!(recipients, &[queued(1)]);
        let whole = [stored(b"a: b\n\n", &one), b"\n".to_vec(), stored(b"c: d\n\n", &two), b"\n".to_vec()].concat();
        assert_eq!(bytes(&disk), String::from_utf8(whole).unwrap(), "killed: {killed}");
        log.close(*earlier);
        log.close(delivered.intent.unwrap());
        assert!(log.is_empty());
        // What is noted is forgotten: from here on the queue's file tells.
        deliver(&log, &place(), &[letter(b"a: b\n\n", &one, Some(queued(1)))]).unwrap();
        assert_eq!(bytes(&disk).matches("a: b").count(), 2);
    }
}

#[test]
fn a_drop_with_an_open_intent_is_not_compacted_until_the_queue_has_noted_it() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = intents(&disk);
    disk.world().put(Path::new(DROP), &foreign(1), true);
    let delivered = deliver(&log, &place(), &[letter(b"a: b\n\nx\n", &received(1), Some(queued(1)))]).unwrap();
    let id = delivered.intent.expect("open until it is noted");
    let compact = || {
        let mut maildrop = Maildrop::open_on(&disk, &place()).unwrap();
        assert_eq!(maildrop.totals().messages, if bytes(&disk).contains("foreign") { 2 } else { 1 });
        maildrop.delete(1).unwrap();
        maildrop.commit().unwrap();
        maildrop.compact(&mut || true)
    };
    assert!(matches!(compact(), Err(Refused::Locked)));
    log.close(id);
    let mut maildrop = Maildrop::open_on(&disk, &place()).unwrap();
    assert!(maildrop.commit().unwrap().wants_compaction);
    let syncs = disk.world().syncs;
    assert!(maildrop.compact(&mut || true).unwrap().freed_bytes > 0);
    assert!(disk.world().syncs > syncs);
    disk.world().cut_power();
    let disk = disk.again();
    let log = intents(&disk);
    assert!(log.is_empty(), "that it was closed was on disk before the drop was compacted");
}

#[test]
fn jobs_side_by_side_share_syncs_and_a_log_does_not_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let log = Intents::open(&folder.path().join("work")).unwrap();
    assert!(matches!(Intents::open(&folder.path().join("work")), Err(Refused::InUse)));
    std::thread::scope(|scope| {
        for user in 0..4 {
            let (log, spool) = (&log, &spool);
            let place = Place::new(spool.join(format!("user{user}")), folder.path().join("work"));
            scope.spawn(move || {
                for k in 0..8 {
                    let received = received(k);
                    let envelope =
                        Envelope { sender: b"s@x", recipient: b"ann@y", received: &received, posted_secs: 0 };
                    let letter =
                        Letter { envelope, body: Body::Memory(b"a: b\n\nhello\n"), queued: None, marked: None };
                    deliver(log, &place, &[letter]).unwrap();
                }
            });
        }
    });
    assert!(log.is_empty());
    for user in 0..4 {
        let text = std::fs::read_to_string(spool.join(format!("user{user}"))).unwrap();
        assert_eq!(text.matches("\nhello\n\n").count(), 8);
    }
    log.tidy().unwrap();
    let bytes = std::fs::read(folder.path().join("work/intents")).unwrap();
    assert!(memchr::memmem::find(&bytes, b"user").is_none(), "a tidied log names no drop");
}

#[test]
fn past_records_are_dropped_and_open_ones_kept() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    let log = intents(&disk);
    let head = received(1);
    let id = deliver(&log, &place(), &[letter(b"a: b\n\nx\n", &head, Some(queued(1)))]).unwrap().intent.unwrap();
    for _ in 0..1200 {
        let other = Place::new("/spool/bob", "/work");
        deliver(&log, &other, &[letter(b"a: b\n\nx\n", &head, None)]).unwrap();
    }
    assert!(disk.world().bytes(Path::new("/work/intents")).len() < 64 * 1024);
    drop(log);
    disk.world().kill();
    let disk = disk.again();
    let log = intents(&disk);
    let recovered = recover(&log, &place());
    assert_eq!(recovered.delivered, [(id, vec![queued(1)])]);
    log.close(id);
    log.tidy().unwrap();
    assert!(memchr::memmem::find(&disk.world().bytes(Path::new("/work/intents")), b"/spool/").is_none());
}

/// The number of the call that an undisturbed delivery makes `behind` calls after its append.
fn call_after_append(text: &[u8], behind: u64) -> u64 {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    disk.world().put(Path::new(DROP), &foreign(1), true);
    deliver(&intents(&disk), &place(), &[letter(text, &received(1), Some(queued(1)))]).unwrap();
    let world = disk.world();
    world.trace.iter().position(|call| call == "append").unwrap() as u64 + 1 + behind
}

#[test]
fn what_recovery_finds_whole_is_on_disk_before_the_queue_hears_of_it() {
    let text = b"a: b\n\nhello\n";
    let sync = call_after_append(text, 2);
    for fails in [false, true] {
        for seed in 1..20 {
            let disk = SimDisk::new(seed, &["/spool", "/work"]);
            disk.world().put(Path::new(DROP), &foreign(1), true);
            let log = intents(&disk);
            if fails {
                // The sync fails, and the process ends before it can do anything about it: the pages count as written.
                disk.world().fail_at = Some((sync, io::ErrorKind::Other));
                disk.world().stop_at = Some(sync + 1);
            } else {
                disk.world().stop_at = Some(sync);
            }
            assert!(deliver(&log, &place(), &[letter(text, &received(1), Some(queued(1)))]).is_err());
            assert_eq!(disk.world().trace[sync as usize - 1], "sync");
            disk.world().kill();
            let disk = disk.again();
            disk.world().now += 1_100_000_000_000;
            assert_eq!(recover(&intents(&disk), &place()).delivered.len(), 1);
            disk.world().cut_power();
            let whole = [foreign(1), stored(text, &received(1)), b"\n".to_vec()].concat();
            assert_eq!(bytes(&disk.again()).into_bytes(), whole, "seed {seed}, failed {fails}");
        }
    }
}

#[test]
fn a_drop_is_not_shown_before_what_is_torn_has_left_it() {
    let text = format!("a: b\n\n{}", "all work and no play\n".repeat(2000)).into_bytes();
    let append = call_after_append(&text, 0);
    let mut torn = 0;
    for seed in 1..20 {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        disk.world().put(Path::new(DROP), &foreign(1), true);
        disk.world().stop_at = Some(append);
        assert!(deliver(&intents(&disk), &place(), &[letter(&text, &received(1), None)]).is_err());
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        torn += usize::from(bytes(&disk).len() > foreign(1).len());
        assert_eq!(Maildrop::open_on(&disk, &place()).unwrap().totals().messages, 1);
        assert_eq!(bytes(&disk).into_bytes(), foreign(1));
    }
    assert!(torn > 3, "the test tore {torn} appends");
}

#[test]
fn a_server_starts_on_a_full_disk_and_delivers_when_there_is_space() {
    let text = format!("a: b\n\n{}", "all work and no play\n".repeat(200)).into_bytes();
    let append = call_after_append(&text, 0);
    for seed in 1..20 {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        disk.world().put(Path::new(DROP), &foreign(1), true);
        disk.world().stop_at = Some(append);
        assert!(deliver(&intents(&disk), &place(), &[letter(&text, &received(1), None)]).is_err());
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        disk.world().full = true;
        let log = intents(&disk);
        assert_eq!(log.len(), 1, "what was begun is known");
        recover(&log, &place());
        let one = received(2);
        let batch = [letter(b"a: c\n", &one, None)];
        assert!(matches!(deliver(&log, &place(), &batch), Err(Failed::Refused(_))));
        disk.world().full = false;
        deliver(&log, &place(), &batch).unwrap();
        let left = bytes(&disk);
        let rest = left.strip_prefix(std::str::from_utf8(&foreign(1)).unwrap()).unwrap();
        // The torn one has left, or is whole: that was for the disk to say.
        let last = String::from_utf8([&stored(b"a: c\n", &one)[..], b"\n"].concat()).unwrap();
        let first = String::from_utf8([&stored(&text, &received(1))[..], b"\n"].concat()).unwrap();
        assert!(rest == last || rest == format!("{first}{last}"), "{rest}");
    }
}

#[test]
fn what_was_found_whole_is_known_when_what_stood_before_it_has_left() {
    // Two messages were appended, the first is torn, another program's stands behind: what is torn leaves, and the second one moves.
    let text = format!("a: b\n\n{}", "all work and no play\n".repeat(200)).into_bytes();
    let (one, two) = (received(1), received(2));
    let scene = |stop: Option<u64>| {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        disk.world().put(Path::new(DROP), &foreign(1), true);
        let log = intents(&disk);
        let batch = [letter(&text, &one, None), letter(b"a: c\n\nhello\n", &two, Some(queued(2)))];
        deliver(&log, &place(), &batch).unwrap();
        disk.world().kill();
        let disk = disk.again();
        // The power went before its sync, and these sectors with it.
        disk.world().file(Path::new(DROP)).unwrap().data[2048..2560].fill(0);
        disk.world().append(Path::new(DROP), &foreign(2));
        let before = disk.world().calls;
        disk.world().stop_at = stop.map(|n| before + n);
        let log = Intents::open_with(&disk, Path::new("/work"), 16_384);
        let recovered = log.map(|log| recover(&log, &place()));
        let calls = disk.world().calls - before;
        (disk, recovered, calls)
    };
    let (_, recovered, calls) = scene(None);
    assert_eq!(recovered.unwrap().delivered.len(), 1);
    for n in 1..=calls + 1 {
        let (disk, ..) = scene(Some(n));
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        let recovered = recover(&intents(&disk), &place());
        let found: Vec<_> = recovered.delivered.iter().flat_map(|(_, queued)| queued).collect();
        assert_eq!(found, [&queued(2)], "killed before call {n} of {calls}");
        let second = [&stored(b"a: c\n\nhello\n", &two)[..], b"\n"].concat();
        let whole = [&foreign(1)[..], &second, &foreign(2)].concat();
        assert_eq!(bytes(&disk), String::from_utf8(whole).unwrap(), "killed before call {n} of {calls}");
    }
}

#[test]
fn a_compaction_that_was_interrupted_is_finished_before_anything_is_appended() {
    // Else what is appended moves when it is finished, and recovery does not find it where the log says.
    let scene = |stop: Option<u64>| {
        let disk = SimDisk::new(1, &["/spool", "/work"]);
        disk.world().put(Path::new(DROP), &[foreign(1), foreign(2), foreign(3)].concat(), true);
        let mut maildrop = Maildrop::open_on(&disk, &place()).unwrap();
        maildrop.delete(1).unwrap();
        maildrop.commit().unwrap();
        let before = disk.world().calls;
        disk.world().stop_at = stop.map(|n| before + n);
        drop(maildrop.compact(&mut || true));
        let calls = disk.world().calls - before;
        (disk, calls)
    };
    let (_, calls) = scene(None);
    let mut copies = 0;
    for n in 1..=calls {
        let (disk, _) = scene(Some(n));
        disk.world().kill();
        let disk = disk.again();
        disk.world().now += 1_100_000_000_000;
        copies += usize::from(disk.world().names(Path::new("/spool")).contains(&".ann.copy".to_owned()));
        let head = received(1);
        deliver(&intents(&disk), &place(), &[letter(b"a: b\n\nhello\n", &head, Some(queued(1)))]).unwrap();
        disk.world().kill();
        let disk = disk.again();
        let recovered = recover(&intents(&disk), &place());
        let found: Vec<_> = recovered.delivered.iter().flat_map(|(_, queued)| queued).collect();
        assert_eq!(found, [&queued(1)], "killed before call {n} of {calls}");
        assert_eq!(bytes(&disk).matches("\nhello\n").count(), 1);
    }
    assert!(copies > 2, "only {copies} of {calls} left a copy");
}

#[test]
fn where_our_rights_end_a_drop_is_made_by_the_hand_and_is_its_owners() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    disk.world().hand = Some(Vec::new());
    let place = Place { owner: Some(1000), ..place() };
    for k in 1..3 {
        let head = received(k);
        deliver(&intents(&disk), &place, &[letter(b"a: b\n\nhello\n", &head, None)]).unwrap();
    }
    assert_eq!(bytes(&disk).matches("\nhello\n\n").count(), 2);
    let world = &mut disk.world();
    assert_eq!(world.file(Path::new(DROP)).unwrap().uid, 1000);
    assert_eq!(world.names(Path::new("/spool")), ["ann"]);
    assert_eq!(world.hand.as_ref().unwrap()[0], "open");
}

#[test]
fn where_we_may_make_files_and_not_give_them_away_a_drop_is_made_by_the_hand() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    disk.world().hand = Some(Vec::new());
    disk.world().sticky = true;
    let (place, head) = (Place { owner: Some(1000), ..place() }, received(1));
    deliver(&intents(&disk), &place, &[letter(b"a: b\n\nhello\n", &head, None)]).unwrap();
    let world = &mut disk.world();
    assert_eq!(world.file(Path::new(DROP)).unwrap().uid, 1000);
    assert_eq!(world.names(Path::new("/spool")), ["ann"]);
}

#[test]
fn what_was_delivered_for_the_queue_by_the_hand_is_found_where_the_drops_owner_is_known() {
    let disk = SimDisk::new(1, &["/spool", "/work"]);
    disk.world().hand = Some(Vec::new());
    let place = Place { owner: Some(1000), ..place() };
    let head = received(1);
    deliver(&intents(&disk), &place, &[letter(b"a: b\n\nhello\n", &head, Some(queued(1)))]).unwrap();
    disk.world().kill();
    let disk = disk.again();
    let log = intents(&disk);
    // At start nobody knows whose it is.
    let recovered = recover(&log, &Place::new("/", "/work"));
    assert!(recovered.delivered.is_empty() && recovered.waiting.len() == 1, "{recovered:?}");
    assert!(log.holds(&queued(1)) && !log.holds(&queued(2)));
    assert!(recover_for(&log, &place, &queued(2)).delivered.is_empty());
    let recovered = recover_for(&log, &place, &queued(1));
    assert_eq!(recovered.delivered.len(), 1, "{recovered:?}");
    log.close(recovered.delivered[0].0);
    assert!(!log.holds(&queued(1)));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    None,
    Kill(u64),
    PowerCut(u64),
    Error(u64),
    /// From that call on nothing can be written.
    Full(u64),
    /// Four calls in a row fail.
    Dead(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Accepted,
    Refused,
    Unanswered,
}

/// Number, text, Received line, whether for the queue.
type Written = (usize, Vec<u8>, Vec<u8>, Option<Queued>);

#[derive(Default)]
struct Model {
    /// Text, Received line, what was answered, whether the queue waits to hear of it.
    ours: BTreeMap<usize, (Vec<u8>, Vec<u8>, Fate, bool)>,
    foreign: usize,
    deleted: BTreeSet<usize>,
}

struct Life {
    disk: SimDisk,
    seed: u64,
    tail: &'static [u8],
    model: Arc<Mutex<Model>>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        let tails: [&'static [u8]; 4] = [
            b"",
            b"From t@z Mon Jan  5 10:00:00 2026\nSubject: t\n\ntorn",
            b"From t@z Mon Jan  5 10:00:00 2026\nSubject: t\n\ntorn\n",
            b"From t@z Mon Jan  5 10:00:00 2026\n\ntorn\n\n",
        ];
        let tail = tails[(seed % 4) as usize];
        if !seed.is_multiple_of(8) {
            disk.world().put(Path::new(DROP), tail, true);
        }
        Life { disk, seed, tail, model: Arc::default() }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(model: &mut Model, world: &mut World) {
        // Into a file whose name is not on disk yet nothing can be delivered for good, by whomever.
        if world.is_name_durable(Path::new(DROP)) {
            model.foreign += 1;
            let mut text = foreign(model.foreign);
            // Careful programs look how the file ends.
            let there = world.bytes(Path::new(DROP));
            if !there.is_empty() && !there.ends_with(b"\n\n") {
                text = [if there.ends_with(b"\n") { &b"\n"[..] } else { b"\n\n" }, &text].concat();
            }
            world.append(Path::new(DROP), &text);
        }
    }

    /// A program that knows no locks is there too; not where we are killed right behind its write: see the page.
    fn has_lockless(&self, accident: Accident) -> bool {
        self.seed % 3 == 2 && matches!(accident, Accident::None | Accident::Error(_) | Accident::Full(_))
    }

    /// Others deliver while we work: those that know locks, and in some lives one that knows none.
    fn others(&self, accident: Accident) {
        let (model, lockless) = (Arc::clone(&self.model), self.has_lockless(accident));
        self.disk.world().actor = Some(Box::new(move |world, what| {
            // Between a look at a file's end and its cut there is nothing that helps: see the page.
            let free = !world.is_locked(Path::new(DROP)) || lockless && what != "cut";
            if world.below(12) == 0 && free {
                Life::append(&mut model.lock().unwrap_or_else(PoisonError::into_inner), world);
            }
        }));
    }

    fn play(&self, accident: Accident) {
        match accident {
            Accident::None => {}
            Accident::Kill(n) | Accident::PowerCut(n) => self.disk.world().stop_at = Some(n),
            Accident::Error(n) | Accident::Dead(n) => self.disk.world().fail_at = Some((n, io::ErrorKind::Other)),
            Accident::Full(_) => {}
        }
        self.others(accident);
        if let Accident::Full(n) | Accident::Dead(n) = accident {
            let mut world = self.disk.world();
            let mut inner = world.actor.take().unwrap();
            world.actor = Some(Box::new(move |world, what| {
                world.full |= matches!(accident, Accident::Full(_)) && world.calls + 1 >= n;
                if matches!(accident, Accident::Dead(_)) && (n..n + 3).contains(&world.calls) {
                    world.fail_at = Some((world.calls + 1, io::ErrorKind::Other));
                }
                if !world.full {
                    inner(world, what);
                }
            }));
        }
        // Every other life goes from one half of the log to the other, or to a larger one.
        let least = if self.seed.is_multiple_of(2) { 4096 } else { 16_384 };
        let Ok(log) = Intents::open_with(&self.disk, Path::new("/work"), least) else { return };
        let mut made = 0;
        for _ in 0..3 {
            let count = 1 + self.disk.world().below(3) as usize;
            let texts: Vec<Written> = (0..count)
                .map(|_| {
                    made += 1;
                    let lines = match self.disk.world().below(4) {
                        0 => 0,
                        1 => 400,
                        _ => 20,
                    };
                    let text =
                        format!("Subject: o{made}\n\n{}end {made}\n", "From all work and no play\n".repeat(lines));
                    let queued = (self.disk.world().below(3) == 0).then(|| queued(made));
                    (made, text.into_bytes(), received(made), queued)
                })
                .collect();
            for (k, text, received, queued) in &texts {
                let row = (text.clone(), received.clone(), Fate::Unanswered, queued.is_some());
                self.model().ours.insert(*k, row);
            }
            let batch: Vec<Letter<'_, SimDisk>> =
                texts.iter().map(|(_, text, received, queued)| letter(text, received, queued.clone())).collect();
            let result = deliver(&log, &place(), &batch);
            if self.disk.world().stopped {
                return;
            }
            let fate = match &result {
                Ok(_) => Fate::Accepted,
                Err(Failed::Refused(_)) => Fate::Refused,
                Err(Failed::Unknown(_)) => Fate::Unanswered,
            };
            texts.iter().for_each(|(k, ..)| self.model().ours.get_mut(k).unwrap().2 = fate);
            if let Ok(Delivered { intent: Some(id), .. }) = result
                && self.disk.world().below(2) == 0
            {
                texts.iter().for_each(|(k, ..)| self.model().ours.get_mut(k).unwrap().3 = false);
                log.close(id);
            }
            if self.disk.world().below(3) == 0 {
                self.session();
            }
            if self.disk.world().stopped {
                return;
            }
        }
    }

    /// One of our clients looks, and deletes the first message if it is another program's, and has the drop compacted.
    fn session(&self) {
        let Ok(mut maildrop) = Maildrop::open_on(&self.disk, &place()) else { return };
        let first = String::from_utf8_lossy(&self.disk.world().bytes(Path::new(DROP))).into_owned();
        let known = first.strip_prefix("From f").and_then(|rest| rest.split('@').next()?.parse::<usize>().ok());
        // One that was deleted before and could not be compacted yet is not shown: the first one is another's then.
        if let Some(k) = known
            && !self.model().deleted.contains(&k)
            && maildrop.delete(1).is_ok()
        {
            self.model().deleted.insert(k);
        }
        if maildrop.commit().is_ok() {
            drop(maildrop.compact(&mut || true));
        }
    }

    fn judge(&self, accident: Accident, behind: bool) {
        match accident {
            Accident::PowerCut(_) => self.disk.world().cut_power(),
            // What was answered after a failure must be on disk all the same.
            Accident::Error(_) | Accident::Dead(_) | Accident::Full(_) if behind => self.disk.world().cut_power(),
            _ => self.disk.world().kill(),
        }
        self.disk.world().full = false;
        let disk = self.disk.again();
        // A dotlock whose line the disk lost is anybody's: judged by its age.
        disk.world().now += 1_100_000_000_000;
        if behind && disk.world().inode_of(Path::new(DROP)) != 0 {
            // Right behind whatever is there, by a program that does not look how the file ends.
            let mut model = self.model();
            let there = disk.world().bytes(Path::new(DROP));
            if there.is_empty() || there.len().is_multiple_of(4096) || there.ends_with(b"\n\n") {
                model.foreign += 1;
                let text = foreign(model.foreign);
                disk.world().append(Path::new(DROP), &text);
            }
        }
        let log = intents(&disk);
        let recovered = recover(&log, &place());
        assert!(recovered.waiting.is_empty(), "{:?}", recovered.waiting);
        let again = recover(&log, &place());
        assert_eq!(again.delivered, recovered.delivered, "judged twice, the same is found");
        // A compaction that was interrupted is completed by whoever opens the drop.
        drop(Maildrop::open_on(&disk, &place()).unwrap());
        let drop_bytes = disk.world().bytes(Path::new(DROP));
        self.check(&drop_bytes, &recovered, self.has_lockless(accident));
        // Mail goes on coming, and is read.
        recovered.delivered.iter().for_each(|(id, _)| log.close(*id));
        let last = received(99);
        deliver(&log, &place(), &[letter(b"Subject: last\n\nlast\n", &last, None)]).unwrap();
        let drop_bytes = disk.world().bytes(Path::new(DROP));
        assert!(drop_bytes.ends_with(&[&stored(b"Subject: last\n\nlast\n", &last)[..], b"\n"].concat()));
        let parsed = parse(&drop_bytes);
        assert!(log.is_empty());
        let maildrop = Maildrop::open_on(&disk, &place()).unwrap();
        let dead = self.model().deleted.len();
        let shown = maildrop.totals().messages as usize;
        assert!((parsed.len() - dead.min(parsed.len())..=parsed.len()).contains(&shown), "{shown} of {}", parsed.len());
        let names = disk.world().names(Path::new("/work"));
        let known = |name: &String| ["intents", "intents.new", "lock.1", "repeats"].contains(&name.as_str());
        assert!(names.iter().all(known), "left behind: {names:?}");
    }

    fn check(&self, drop: &[u8], recovered: &Recovered, lockless: bool) {
        let model = self.model();
        let found = parse(drop);
        assert!(!drop.contains(&0), "whole: NULs are left");
        let noted: BTreeSet<String> =
            recovered.delivered.iter().flat_map(|(_, queued)| queued).map(|queued| queued.id.clone()).collect();
        let mut left: Vec<&[u8]> = found.clone();
        for (k, (text, received, fate, queued)) in &model.ours {
            let text = stored(text, received);
            let before = left.len();
            left.retain(|&message| message.strip_suffix(b"\n") != Some(&text));
            let count = before - left.len();
            match fate {
                Fate::Accepted => assert_eq!(count, 1, "accepted: message {k} is there {count} times"),
                Fate::Refused => assert_eq!(count, 0, "refused: message {k} is there"),
                Fate::Unanswered => assert!(count <= 1, "message {k} is there {count} times"),
            }
            let id = format!("{k:08}");
            if *queued && !(lockless && *fate == Fate::Unanswered) {
                assert_eq!(
                    noted.contains(&id),
                    count == 1,
                    "the queue hears of message {k}, which is there {count} times"
                );
            }
        }
        for k in 1..=model.foreign {
            let text = foreign(k);
            let before = left.len();
            left.retain(|&message| message != text);
            let count = before - left.len();
            let dead = model.deleted.contains(&k);
            assert!(count == 1 || dead && count == 0, "whole: another program's message {k} is there {count} times");
        }
        for message in left {
            let torn = !self.tail.is_empty() && message.trim_ascii_end() == self.tail.trim_ascii_end();
            assert!(torn, "whole: nobody wrote {:?}", message.escape_ascii().to_string());
        }
    }
}

/// Reads an mbox as any program would.
pub(super) fn parse(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut start, mut at, mut blank) = (Vec::new(), 0, 0, true);
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if blank && is_from_line(line.strip_suffix(b"\n").unwrap_or(line)) {
            if at > 0 {
                found.push(&bytes[start..at]);
            }
            start = at;
        }
        at += line.len();
        blank = line == b"\n";
    }
    if at > 0 {
        found.push(&bytes[start..at]);
    }
    found
}

/// Says which life it was when a test fails inside it.
struct Context(u64, Accident, bool, SimDisk);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let world = self.3.world();
            let (Accident::Kill(n)
            | Accident::PowerCut(n)
            | Accident::Error(n)
            | Accident::Full(n)
            | Accident::Dead(n)) = self.1
            else {
                return;
            };
            let n = n as usize;
            let around = &world.trace[n.saturating_sub(12).min(world.trace.len())..world.trace.len().min(n + 3)];
            eprintln!("SIM_SEED={} {:?} behind {}, after and before {around:#?}", self.0, self.1, self.2);
        }
    }
}

fn play(seed: u64) -> u64 {
    let life = Life::new(seed);
    life.play(Accident::None);
    let calls = life.disk.world().calls;
    life.judge(Accident::None, false);
    for n in 1..=calls {
        let kinds =
            [Accident::Kill(n), Accident::PowerCut(n), Accident::Error(n), Accident::Full(n), Accident::Dead(n)];
        for accident in kinds {
            for behind in [false, true] {
                let life = Life::new(seed);
                let _context = Context(seed, accident, behind, life.disk.clone());
                life.play(accident);
                life.judge(accident, behind);
            }
        }
    }
    calls
}

#[test]
fn promises_hold_after_every_prefix_of_calls_of_a_delivery() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(3)).collect(),
    };
    let calls: u64 = seeds.into_iter().map(play).sum();
    println!("{calls} calls in all");
}

/// `cargo test --release --lib -- --ignored --nocapture appends_a_second`, with TMPDIR on the disk that is meant.
#[test]
#[ignore = "a measurement, and no verdict"]
fn appends_a_second() {
    const DROPS: usize = 32;
    const EACH: usize = 40;
    let text = format!("Subject: x\n\n{}", "all work and no play makes Jack a dull boy\n".repeat(90)).into_bytes();
    let head = received(1);
    let folder = tempfile::tempdir().unwrap();
    let rate = |name: &str, threads: usize, work: &(dyn Fn(usize) + Sync)| {
        let begun = std::time::Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || (thread..DROPS).step_by(threads).for_each(work));
            }
        });
        let rate = (DROPS * EACH) as f64 / begun.elapsed().as_secs_f64();
        println!("{name}, {threads} side by side: {rate:.0} a second");
        rate
    };
    let plain = |drop: usize| {
        let path = folder.path().join(format!("plain{drop}"));
        for _ in 0..EACH {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
            io::Write::write_all(&mut file, &stored(&text, &head)).unwrap();
            file.sync_data().unwrap();
        }
    };
    let plain_rate = rate("append and sync", 1, &plain);
    for threads in [1, 4, 16] {
        let work = folder.path().join(format!("work{threads}"));
        let log = Intents::open(&work).unwrap();
        let ours = |drop: usize| {
            let place = Place::new(folder.path().join(format!("ours{threads}-{drop}")), &work);
            let envelope = Envelope { sender: b"s@x", recipient: b"ann@y", received: &head, posted_secs: 0 };
            for _ in 0..EACH {
                let letter = Letter { envelope, body: Body::Memory(&text), queued: None, marked: None };
                deliver(&log, &place, &[letter]).unwrap();
            }
        };
        let ratio = rate("delivery with intents", threads, &ours) / plain_rate;
        println!("  {ratio:.2} of the plain loop");
    }
}
