//! (f) Mail of 2 KB that is taken: acknowledged, by the second; and then in the drops. Every acknowledged letter is looked for in
//! the spool by its stamp, by code that knows no server: one that is missing a minute later is lost, one that is there twice is doubled, and the
//! peer has failed. The bound reads, appends to its recipient's file, and syncs that, a thread a client.
//!
//! OpenSMTPD acknowledges before it has synced its queue: its figures are not for the same promise.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memchr::memmem;

use super::Ground;
use crate::letter::Stamp;
use crate::versus::load::{Sending, Sent, send};
use crate::versus::peers::Server;
use crate::versus::site::{DOMAIN, Order, Passwords};
use crate::versus::table::{Better, Figure};

/// How long acknowledged mail may be on its way to the drops.
const DELIVERED: Duration = Duration::from_secs(60);
/// Between looks for it.
const LOOKS: Duration = Duration::from_millis(20);
const BYTES: u64 = 2048;

const FIGURES: &[Figure] = &[
    Figure { id: "acked", what: "acknowledged", unit: "messages/s", better: Better::More },
    Figure { id: "delivered", what: "until all was in the drops", unit: "messages/s", better: Better::More },
];

pub fn measure(ground: &mut Ground) {
    let recipients = ground.either(100, 1000);
    let time = ground.either(Duration::from_secs(1), Duration::from_secs(3));
    for connections in [1, 10, 100] {
        for each in [1, 10] {
            let title = format!(
                "mail of 2 KB to {recipients} recipients in turn; connections: {connections} at a time, messages on each: {each}"
            );
            let mut lanes = ground.lanes('f', title, FIGURES);
            let peers = ground.who("keeping", |peer| peer.smtp);
            ground.start(
                &mut lanes,
                &peers,
                Order { accounts: recipients, passwords: Passwords::Cheap, beyond: None },
                |_| Ok(()),
            );
            let mut id = 0;
            let mut spools: HashMap<&str, Spool> = HashMap::new();
            let mut go = |server: &mut Server, time: Duration| {
                id += 1;
                let spool = spools.entry(server.peer.name).or_insert_with(|| Spool::new(server.site.spool()));
                let sending = Sending { connections, each, recipients, domain: DOMAIN, bytes: BYTES, time };
                let begun = Instant::now();
                let sent = send(server, id, sending)?;
                let acked = sent.acked.len() as f64 / sent.took.as_secs_f64();
                // The bound keeps octets as they come, with the dots of the wire.
                if server.peer.bound {
                    return Ok(vec![Some(acked), None]);
                }
                spool.wait_for(server, &sent)?;
                Ok(vec![Some(acked), Some(sent.acked.len() as f64 / begun.elapsed().as_secs_f64())])
            };
            // Processes are there, and most drops.
            ground.each(&mut lanes, |server| go(server, time / 2).map(drop));
            ground.rounds(&mut lanes, ground.rounds, |server, _| go(server, time));
            ground.end(lanes);
        }
    }
}

/// Drops that grow, read up to where they were read before.
pub struct Spool {
    folder: PathBuf,
    /// How far each was read: whole lines only.
    read: HashMap<PathBuf, u64>,
    /// How often each letter was seen.
    pub seen: HashMap<Stamp, u32>,
}

impl Spool {
    pub fn new(folder: PathBuf) -> Spool {
        Spool { folder, read: HashMap::new(), seen: HashMap::new() }
    }

    /// Reads what is new.
    pub fn look(&mut self) -> Result<(), String> {
        let told = |error: std::io::Error| format!("{}: {error}", self.folder.display());
        for entry in fs::read_dir(&self.folder).map_err(told)? {
            let entry = entry.map_err(told)?;
            // Locks and servers' own files come and go.
            let Ok(facts) = entry.metadata() else { continue };
            let (path, before) = (entry.path(), self.read.get(&entry.path()).copied().unwrap_or(0));
            if !facts.is_file() || facts.len() <= before || entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let Some(text) = read_from(&path, before) else { continue };
            let whole = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
            stamps(&text[..whole]).for_each(|stamp| *self.seen.entry(stamp).or_default() += 1);
            self.read.insert(path, before + whole as u64);
        }
        Ok(())
    }

    /// Until every acknowledged letter is there. Fails when one never comes, or is there twice.
    fn wait_for(&mut self, server: &mut Server, sent: &Sent) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            self.look()?;
            let missing = sent.acked.iter().filter(|stamp| !self.seen.contains_key(stamp)).count();
            let twice = sent.acked.iter().filter(|stamp| self.seen.get(stamp).is_some_and(|&times| times > 1)).count();
            if twice > 0 {
                return Err(format!("{twice} of {} acknowledged messages are there twice", sent.acked.len()));
            }
            if missing == 0 {
                return Ok(());
            }
            if begun.elapsed() > DELIVERED {
                let how = if server.queued() { "still queued or lost" } else { "LOST" };
                let after = DELIVERED.as_secs();
                return Err(format!("{missing} of {} acknowledged messages {how} after {after} s", sent.acked.len()));
            }
            std::thread::sleep(LOOKS);
        }
    }
}

fn read_from(path: &Path, from: u64) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let more = file.metadata().ok()?.len().checked_sub(from)?;
    let mut text = vec![0; usize::try_from(more).ok()?];
    file.read_exact_at(&mut text, from).ok()?;
    Some(text)
}

/// Letters whose header stands in this text, by the two numbers that their stamp begins with.
fn stamps(text: &[u8]) -> impl Iterator<Item = Stamp> {
    const NAME: &[u8] = b"\nX-Loadtest: ";
    memmem::find_iter(text, NAME).filter_map(|at| {
        let line = &text[at + NAME.len()..];
        let line = std::str::from_utf8(&line[..line.len().min(40)]).ok()?;
        let mut words = line.split(' ');
        Some(Stamp { id: u64::from_str_radix(words.next()?, 16).ok()?, seq: words.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::versus::site;

    #[test]
    fn letters_are_counted_as_a_drop_grows_by_any_piece() {
        let folder = tempfile::tempdir().unwrap();
        let whole = site::mail(3, 4, 1500);
        let mut spool = Spool::new(folder.path().to_owned());
        let mut file = File::create(folder.path().join("u000003")).unwrap();
        for piece in whole.chunks(777) {
            file.write_all(piece).unwrap();
            spool.look().unwrap();
        }
        let expected: HashMap<_, _> = (1..=4).map(|seq| (Stamp::in_spool(3, seq), 1)).collect();
        assert_eq!(spool.seen, expected);
    }

    #[test]
    fn a_letter_in_two_drops_is_seen_twice_and_locks_are_no_drops() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", ".a.bin"] {
            fs::write(folder.path().join(name), site::mail(1, 1, 800)).unwrap();
        }
        let mut spool = Spool::new(folder.path().to_owned());
        spool.look().unwrap();
        assert_eq!(spool.seen, HashMap::from([(Stamp::in_spool(1, 1), 2)]));
    }
}
