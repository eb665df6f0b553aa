//! The ledger, `.NAME.bin`: what must not be forgotten. Append-only; every record carries its own check, so that damage in one
//! place costs what stood there and no more. The session lock is on this file.
//!
//! A record is a head of 32 bytes and a payload, numbers little-endian:
//!
//! | bytes | what                                                      |
//! |-------|-----------------------------------------------------------|
//! | 0-3   | `DMb1`                                                    |
//! | 4     | kind, see below; 5-7 zero                                 |
//! | 8-11  | payload's length                                          |
//! | 12-15 | serial, one more than the record's before                 |
//! | 16-23 | the ledger's number, drawn when it was begun              |
//! | 24-31 | XXH3-64 of bytes 0-23 and the payload                     |
//!
//! | kind | record     | payload                                     | says                                                 |
//! |------|------------|---------------------------------------------|------------------------------------------------------|
//! | 1    | Opening    | the drop's file name                        | whose ledger this is                                 |
//! | 2    | Deaths     | (hash 16, occurrence 4, From_ check 4) each | one QUIT deleted these: all or none                  |
//! | 3    | Repetition | (hash 16, occurrence 4, From_ check 4) each | these are equal: which is which                      |
//! | 4    | Burial     | serial 4                                    | the bytes of all deaths up to that record are gone   |
//! | 5    | Gone       | (hash 16, occurrence 4) each                | these are no longer in the drop, whoever removed them |
//! | 6    | Frozen     | (hash 16, occurrence 4, text)               | reserved: imported UIDs                              |
//! | 7    | Foreign    | seconds since 1970, 8                       | then somebody else than a deliverer wrote to the drop |
//! | 8    | Revived    | (hash 16, occurrence 4) each                | the operator called these back: they are not dead    |
//! | 16   | Bulletins  | epoch 8, through 4, zero 4, beyond 8; then as Deaths | these bulletins are gone, with the messages of the same QUIT |
//!
//! Kinds we do not know are passed over. A death whose bytes are gone is forgotten, so that the same message arriving again
//! is new; that a number was given to a repeated message is never forgotten.

use std::collections::{HashMap, HashSet};
use std::io;

use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

use crate::mail::identity::Uid;
use crate::rules::bulletins::Seen;

const MAGIC: &[u8; 4] = b"DMb1";
const HEAD_BYTES: usize = 32;
/// More in one record is damage: 24 bytes for each of four billion messages do not fit anyway, 100 million do.
const PAYLOAD_BYTES: usize = 2_400_000_000;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Opening(Vec<u8>),
    Deaths(Vec<Named>),
    Repetition(Vec<Named>),
    Burial { through: u32 },
    Gone(Vec<Uid>),
    Foreign { at_secs: u64 },
    Revived(Vec<Uid>),
    Bulletins { seen: Seen, deaths: Vec<Named> },
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Named {
    pub(super) uid: Uid,
    /// Of its From_ line: the same text under another From_ line is another message.
    pub(super) from_check: u32,
}

/// What the ledger says, all of it read.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Drawn when the ledger was begun; 0: it is empty.
    pub(super) id: u64,
    /// The last record's.
    pub(super) serial: u32,
    /// Where the next record goes: behind the last that checks.
    pub(super) end: u64,
    /// The drop it was begun for.
    pub(super) name: Option<Vec<u8>>,
    /// Deleted, and as far as we know still in the drop: From_ check, serial of the record.
    pub(super) deaths: HashMap<Uid, (u32, u32)>,
    /// Hashes that more than one message had: the next free occurrence.
    pub(super) next: HashMap<u128, u32>,
    /// The From_ checks of those messages, by which they are told apart when the drop is scanned anew.
    pub(super) lines: HashMap<Uid, u32>,
    /// Of those hashes: occurrences that are no longer in the drop.
    pub(super) gone: HashSet<Uid>,
    /// When others were last seen to have changed the drop, in seconds since 1970; 0: never.
    pub(super) foreign_secs: u64,
    /// The last record that called the dead back: an index that does not know it lacks them.
    pub(super) revived: Option<u32>,
    /// Bulletins that are gone for this user.
    pub(super) bulletins: Option<Seen>,
    /// Something in the middle could not be read.
    pub(super) damaged: bool,
}

impl Ledger {
    /// Reads what checks in `bytes`, the whole file.
    pub(super) fn parse(bytes: &[u8]) -> Ledger {
        let mut ledger = Ledger::default();
        let mut at = 0;
        while at < bytes.len() {
            if let Some((record, serial, id, length)) = decode(&bytes[at..]) {
                // Records of another ledger were never written here by us.
                if ledger.id == 0 || ledger.id == id {
                    ledger.damaged |= ledger.id != 0 && serial != ledger.serial.wrapping_add(1);
                    ledger.damaged |= ledger.id == 0 && at != 0;
                    (ledger.id, ledger.serial) = (id, serial);
                    if let Some(record) = record {
                        ledger.apply(&record, serial);
                    }
                } else {
                    ledger.damaged = true;
                }
                at += length;
                ledger.end = at as u64;
            } else {
                // The next that looks like a record; behind the last good one this is the torn tail.
                at += 1 + memmem::find(&bytes[at + 1..], MAGIC).unwrap_or(bytes.len() - at - 1);
                if at < bytes.len() && decode(&bytes[at..]).is_some() {
                    ledger.damaged = true;
                }
            }
        }
        ledger
    }

    fn apply(&mut self, record: &Record, serial: u32) {
        match record {
            Record::Opening(name) => self.name = Some(name.clone()),
            Record::Deaths(deaths) => self.die(deaths, serial),
            Record::Bulletins { seen, deaths } => {
                self.bulletins = Some(*seen);
                self.die(deaths, serial);
            }
            Record::Repetition(equal) => {
                for Named { uid, from_check } in equal {
                    self.taken(uid);
                    self.lines.insert(*uid, *from_check);
                }
            }
            Record::Burial { through } => {
                let buried = |(_, serial): &(u32, u32)| !is_after(*serial, *through);
                let buried: Vec<Uid> =
                    self.deaths.iter().filter(|(_, death)| buried(death)).map(|(uid, _)| *uid).collect();
                buried.iter().for_each(|uid| self.bury(uid));
            }
            Record::Gone(uids) => {
                uids.iter().for_each(|uid| self.bury(uid));
            }
            Record::Foreign { at_secs } => self.foreign_secs = *at_secs,
            Record::Revived(uids) => {
                for uid in uids {
                    if let Some((from_check, _)) = self.deaths.remove(uid)
                        && self.next.contains_key(&uid.hash)
                    {
                        // It has a namesake, from which only this told it apart.
                        self.lines.insert(*uid, from_check);
                    }
                }
                self.revived = Some(serial);
            }
        }
    }

    fn die(&mut self, deaths: &[Named], serial: u32) {
        for Named { uid, from_check } in deaths {
            self.deaths.insert(*uid, (*from_check, serial));
            self.taken(uid);
        }
    }

    /// Whoever was the second of its hash says that there were two, also when the record that said so was lost.
    fn taken(&mut self, uid: &Uid) {
        if uid.occurrence > 0 {
            let next = self.next.entry(uid.hash).or_default();
            *next = (*next).max(uid.occurrence.saturating_add(1));
        }
    }

    fn bury(&mut self, uid: &Uid) {
        self.deaths.remove(uid);
        self.lines.remove(uid);
        self.taken(uid);
        if self.next.contains_key(&uid.hash) {
            self.gone.insert(*uid);
        }
    }

    /// The bytes that say `records` at the ledger's end, and what it says then. An empty ledger is begun with `id` for the
    /// drop `name`.
    pub(super) fn append(&mut self, records: &[Record], name: &[u8], id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.id == 0 {
            self.id = id.max(1);
            self.serial = 0;
            encode(&Record::Opening(name.to_vec()), 0, self.id, &mut bytes);
            self.name = Some(name.to_vec());
        }
        for record in records {
            self.serial = self.serial.wrapping_add(1);
            encode(record, self.serial, self.id, &mut bytes);
            let serial = self.serial;
            self.apply(record, serial);
        }
        self.end += bytes.len() as u64;
        bytes
    }

    /// The same, said as shortly as can be, in a ledger of the same number.
    pub(super) fn rewritten(&self) -> (Ledger, Vec<u8>) {
        let mut short = Ledger { id: self.id, serial: self.serial, ..Ledger::default() };
        let named = |(&uid, &from_check): (&Uid, &u32)| Named { uid, from_check };
        let mut records = Vec::new();
        if !self.lines.is_empty() {
            records.push(Record::Repetition(self.lines.iter().map(named).collect()));
        }
        if !self.gone.is_empty() {
            records.push(Record::Gone(self.gone.iter().copied().collect()));
        }
        if !self.deaths.is_empty() {
            let deaths = self.deaths.iter().map(|(uid, (from_check, _))| named((uid, from_check)));
            records.push(Record::Deaths(deaths.collect()));
        }
        if self.foreign_secs > 0 {
            records.push(Record::Foreign { at_secs: self.foreign_secs });
        }
        if let Some(seen) = self.bulletins {
            records.push(Record::Bulletins { seen, deaths: Vec::new() });
        }
        let name = self.name.clone().unwrap_or_default();
        let mut bytes = Vec::new();
        encode(&Record::Opening(name.clone()), short.serial, short.id, &mut bytes);
        short.name = Some(name);
        short.end = bytes.len() as u64;
        let more = short.append(&records, b"", short.id);
        bytes.extend_from_slice(&more);
        (short, bytes)
    }

    /// The same for a drop of another name.
    pub(super) fn renamed(&self, name: &[u8]) -> Vec<u8> {
        let (mut short, _) = self.rewritten();
        short.name = Some(name.to_owned());
        short.rewritten().1
    }

    /// Whether the live content is so little of the file that it is worth writing anew.
    pub(super) fn is_mostly_past(&self) -> bool {
        const WORTH_BYTES: u64 = 64 * 1024;
        let live = 24 * (self.deaths.len() + self.gone.len() + self.lines.len());
        self.end > WORTH_BYTES && (live as u64) < self.end / 2
    }

    /// An occurrence of `hash` that no message ever had, given that `known` says whether one has it now.
    pub(super) fn free(&self, hash: u128, known: bool) -> u32 {
        self.next.get(&hash).copied().unwrap_or(u32::from(known))
    }
}

/// Whether a record came after another.
pub(super) fn is_after(serial: u32, other: u32) -> bool {
    serial.wrapping_sub(other).cast_signed() > 0
}

/// The bytes that add `record`, number `serial`, to ledger `id`.
pub(super) fn encode(record: &Record, serial: u32, id: u64, bytes: &mut Vec<u8>) {
    let mut payload = Vec::new();
    let kind = match record {
        Record::Opening(name) => {
            payload.extend_from_slice(name);
            1
        }
        Record::Deaths(named) | Record::Repetition(named) => {
            self::named(named, &mut payload);
            if matches!(record, Record::Deaths(_)) { 2 } else { 3 }
        }
        Record::Bulletins { seen, deaths } => {
            payload.extend_from_slice(&seen.epoch.to_le_bytes());
            payload.extend_from_slice(&u64::from(seen.through).to_le_bytes());
            payload.extend_from_slice(&seen.beyond.to_le_bytes());
            self::named(deaths, &mut payload);
            16
        }
        Record::Burial { through } => {
            payload.extend_from_slice(&through.to_le_bytes());
            4
        }
        Record::Gone(uids) | Record::Revived(uids) => {
            uids.iter().for_each(|one| uid(one, &mut payload));
            if matches!(record, Record::Gone(_)) { 5 } else { 8 }
        }
        Record::Foreign { at_secs } => {
            payload.extend_from_slice(&at_secs.to_le_bytes());
            7
        }
    };
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[4] = kind;
    head[8..12].copy_from_slice(&u32::try_from(payload.len()).expect("a record's payload is bounded").to_le_bytes());
    head[12..16].copy_from_slice(&serial.to_le_bytes());
    head[16..24].copy_from_slice(&id.to_le_bytes());
    let check = check(&head, &payload);
    head[24..].copy_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&payload);
}

fn uid(uid: &Uid, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&uid.hash.to_le_bytes());
    payload.extend_from_slice(&uid.occurrence.to_le_bytes());
}

fn named(named: &[Named], payload: &mut Vec<u8>) {
    for named in named {
        uid(&named.uid, payload);
        payload.extend_from_slice(&named.from_check.to_le_bytes());
    }
}

fn check(head: &[u8; HEAD_BYTES], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&head[..24]);
    hash.update(payload);
    hash.digest()
}

/// The record at the start of `bytes` (`None` inside: of a kind we do not know), its serial, its ledger, its length.
fn decode(bytes: &[u8]) -> Option<(Option<Record>, u32, u64, usize)> {
    let head: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
    let u32_at = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let length = u32_at(head, 8)? as usize;
    if head[..4] != *MAGIC || length > PAYLOAD_BYTES {
        return None;
    }
    let payload = bytes.get(HEAD_BYTES..HEAD_BYTES + length)?;
    if check(head, payload) != u64_at(head, 24)? {
        return None;
    }
    let uid = |bytes: &[u8]| {
        Some(Uid { hash: u128::from_le_bytes(bytes.get(..16)?.try_into().ok()?), occurrence: u32_at(bytes, 16)? })
    };
    let named = |bytes: &[u8]| {
        let named = bytes.chunks(24).map(|part| Some(Named { uid: uid(part)?, from_check: u32_at(part, 20)? }));
        named.collect::<Option<Vec<_>>>()
    };
    let record = match head[4] {
        1 => Some(Record::Opening(payload.to_vec())),
        2 => named(payload).map(Record::Deaths),
        3 => named(payload).map(Record::Repetition),
        4 => u32_at(payload, 0).map(|through| Record::Burial { through }),
        kind @ (5 | 8) => {
            let uids = payload.chunks(20).map(uid).collect::<Option<Vec<_>>>();
            uids.map(if kind == 5 { Record::Gone } else { Record::Revived })
        }
        7 => u64_at(payload, 0).map(|at_secs| Record::Foreign { at_secs }),
        16 => payload.split_first_chunk::<24>().and_then(|(head, deaths)| {
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
            let seen = Seen { epoch: word(0), through: u32::try_from(word(8)).ok()?, beyond: word(16) };
            Some(Record::Bulletins { seen, deaths: named(deaths)? })
        }),
        _ => None,
    };
    Some((record, u32_at(head, 12)?, u64_at(head, 16)?, HEAD_BYTES + length))
}

/// For callers that read the file: how much memory a ledger may take.
pub(super) fn bounded(size: u64) -> io::Result<usize> {
    usize::try_from(size)
        .ok()
        .filter(|&size| size <= 2 * PAYLOAD_BYTES)
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hash: u128, occurrence: u32) -> Named {
        Named { uid: Uid { hash, occurrence }, from_check: hash as u32 }
    }

    const SEEN: Seen = Seen { epoch: 0x0123_4567_89ab_cdef, through: 7, beyond: 1 << 63 | 5 };

    /// A ledger file with a record of each kind.
    fn sample() -> (Vec<Record>, Vec<u8>, Vec<usize>) {
        let records = vec![
            Record::Deaths(vec![named(1, 0), named(2, 0)]),
            Record::Repetition(vec![named(3, 0), named(3, 1)]),
            Record::Deaths(vec![named(3, 0)]),
            Record::Burial { through: 1 },
            Record::Gone(vec![named(4, 2).uid]),
            Record::Foreign { at_secs: 1_700_000_000 },
            Record::Deaths(vec![named(5, 0), named(4, 0)]),
            Record::Revived(vec![named(5, 0).uid, named(4, 0).uid]),
            Record::Bulletins { seen: SEEN, deaths: vec![named(5, 0)] },
        ];
        let mut ledger = Ledger::default();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for record in &records {
            bytes.extend(ledger.append(std::slice::from_ref(record), b"ann", 77));
            ends.push(bytes.len());
        }
        assert_eq!(ledger.end as usize, bytes.len());
        (records, bytes, ends)
    }

    #[test]
    fn what_was_appended_is_what_is_read() {
        let (_, bytes, _) = sample();
        let ledger = Ledger::parse(&bytes);
        assert_eq!((ledger.id, ledger.serial, ledger.damaged), (77, 9, false));
        assert_eq!(ledger.name.as_deref(), Some(&b"ann"[..]));
        assert!([3, 5].iter().all(|&hash| ledger.deaths.contains_key(&named(hash, 0).uid)) && ledger.deaths.len() == 2);
        assert_eq!(ledger.bulletins, Some(SEEN));
        assert_eq!(
            (ledger.free(3, true), ledger.free(4, true), ledger.free(5, true), ledger.free(5, false)),
            (2, 3, 1, 0)
        );
        assert!(ledger.gone.contains(&named(4, 2).uid));
        assert_eq!((ledger.foreign_secs, ledger.revived), (1_700_000_000, Some(8)));
        assert_eq!(ledger.lines.get(&named(4, 0).uid), Some(&4), "who was called back is still told from his namesake");
    }

    #[test]
    fn a_ledger_written_anew_says_the_same() {
        let (_, bytes, _) = sample();
        let long = Ledger::parse(&bytes);
        let (short, bytes) = long.rewritten();
        let read = Ledger::parse(&bytes);
        for ledger in [short, read] {
            assert!(ledger.deaths.keys().all(|uid| long.deaths.contains_key(uid)));
            assert_eq!((ledger.deaths.len(), ledger.bulletins), (long.deaths.len(), long.bulletins));
            assert_eq!((&ledger.next, &ledger.lines, &ledger.gone), (&long.next, &long.lines, &long.gone));
            assert_eq!(ledger.foreign_secs, long.foreign_secs);
            assert_eq!((ledger.id, ledger.end as usize, ledger.damaged), (long.id, bytes.len(), false));
        }
    }

    #[test]
    fn a_ledger_of_another_name_says_the_same_of_its_messages() {
        let (_, bytes, _) = sample();
        let long = Ledger::parse(&bytes);
        let other = Ledger::parse(&long.renamed(b"bob"));
        assert_eq!((other.name.as_deref(), other.id, other.bulletins), (Some(&b"bob"[..]), long.id, long.bulletins));
        assert_eq!((other.deaths.len(), other.lines, other.gone), (long.deaths.len(), long.lines, long.gone));
    }

    #[test]
    fn a_torn_tail_is_no_record_wherever_it_is_torn() {
        let (_, bytes, ends) = sample();
        for cut in 0..bytes.len() {
            let ledger = Ledger::parse(&bytes[..cut]);
            let whole = ends.iter().rev().find(|&&end| end <= cut).copied().unwrap_or(0);
            // The opening stands before the first record.
            assert!(ledger.end as usize == whole || whole == 0 && ledger.serial == 0, "cut at {cut}");
            assert!(!ledger.damaged, "cut at {cut}");
        }
    }

    #[test]
    fn damage_costs_one_record_and_is_said() {
        let (_, bytes, ends) = sample();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let ledger = Ledger::parse(&damaged);
            let hit = ends.iter().position(|&end| at < end).unwrap();
            assert_eq!(ledger.damaged, hit < ends.len() - 1, "flipped {at}");
            if hit != 2 && hit != 1 {
                assert!(ledger.deaths.contains_key(&named(3, 0).uid), "flipped {at}: another record is lost");
            }
            if hit == 0 && at >= 35 {
                assert!(!ledger.deaths.contains_key(&named(1, 0).uid), "all or none of one QUIT");
                assert!(!ledger.deaths.contains_key(&named(2, 0).uid), "all or none of one QUIT");
            }
        }
    }
}
