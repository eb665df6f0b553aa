//! Messages that came and whose senders may not have heard that: `repeats` in work_path. A server that gets no answer to its dot,
//! because it is killed, or we are, or the line breaks, sends the message again, and its reader would have two (RFC 1047). What
//! is sent again is known here by its *mark*.
//!
//! A mark is a keyed XXH3 of 128 bits over the envelope's sender, its recipients in the order of letters, and the whole text as it
//! came. Only what another server brings has one, and only where its header has a `Received` field: that says when that server
//! had it, and by which number of its own, so that two sendings are never alike while a repetition is the same byte for
//! byte. A user may send the same twice, and has sent two.
//!
//! | a mark is | because                                                              | it leaves by                                        |
//! |-----------|----------------------------------------------------------------------|-----------------------------------------------------|
//! | New       | no message with it is known                                          | [`claim`](Repeats::claim): Taken                    |
//! | Taken     | its text is whole, and on its way to the disk                        | [`keep`](Repeats::keep): Kept; [`release`](Repeats::release), where it came to nothing: New |
//! | Kept      | its message is on disk, in a drop or in the queue                    | [`heard`](Repeats::heard), [`LIFE_SECS`], or [`MARKS_MOST`] younger ones: New |
//!
//! What comes with a mark that is Taken is to be refused for now; with one that is Kept it is to be answered as that was, and
//! goes no further. Its sender has heard an answer when he says something more that he cannot have said before it:
//! `service/smtp` sees to that. So there are marks of messages under way, and of answers that are lost, or may be.
//!
//! **A kill at any moment.** A mark is Kept after a restart exactly if its message is kept:
//!
//! | the message goes to | and its mark is on the way in                                  | until                                             |
//! |---------------------|----------------------------------------------------------------|---------------------------------------------------|
//! | one drop            | the intent, synced before the append: [`intent`](mod@super::intent). Whoever finds the append whole keeps it | it stands in the file here; then the intent is closed |
//! | the queue           | the head of its file, synced before it has a name. Who looks through the queue at start keeps the marks of those messages that nobody has tried | it stands in the file here; then the message is tried |
//!
//! The file is a head and a slot of 32 bytes for each mark, written over in place and not synced: what is written survives the
//! process. Numbers are little-endian:
//!
//! | bytes | head               | slot                                        |
//! |-------|--------------------|---------------------------------------------|
//! | 0-7   | `DMr1`, zeros      | the mark                                    |
//! | 8-15  | the key            | and its end                                 |
//! | 16-27 | zeros              | the message's id, zeros behind it           |
//! | 28-31 | zeros              | when it was kept, in seconds since 1970      |
//!
//! A slot of a mark that was heard is written over when it is needed, so a restart may know some marks too many: they are
//! those of messages that came, and match nothing but the same bytes once more. A slot that is damaged matches nothing.
//!
//! What it does not do. A power cut may take slots back, and the message comes twice if its answer was lost just then; so it may where
//! the file cannot be made or written, which is said once. Who is answered, says more, and is killed before he has written
//! down what he heard, is not known again: a client of ours must write down first. Nor is one whose
//! recipients, when he sends again, are not the same, because one of them was refused for a moment. Nobody asks from which address it comes
//! again, since large sites try from many: who knows every byte of a message before its sender sends it can be the one who
//! brings it, and changes nothing of it. The key is secret, so that nobody can make two texts with one mark.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::desk::there;
use super::disk::{Disk, How, Reach, RealDisk};
use super::queue::is_id;
use crate::text::fault::Fault;

/// Its name in work_path.
const NAME: &str = "repeats";
/// What it is written as before it is one.
const NEW: &str = "repeats.new";
const MAGIC: &[u8; 8] = b"DMr1\0\0\0\0";
const SLOT_BYTES: usize = 32;
/// Letters of an id that a slot has room for: all of one that a message gets when it comes over the network.
const ID_BYTES: usize = 12;
/// Marks that are kept: about 100 bytes of memory each. A client that says QUIT together with its dot leaves one for each message.
pub const MARKS_MOST: usize = 8192;
/// How long one is: as long as servers try (RFC 5321 §4.5.4.1).
pub const LIFE_SECS: i64 = 5 * 86_400;

/// By what a message is known when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; 16]);

impl Mark {
    /// As the head of a queue file has it.
    pub fn written(&self) -> String {
        format!("{:032x}", u128::from_le_bytes(self.0))
    }

    /// What [`written`](Mark::written) gave.
    pub fn read(text: &str) -> Option<Mark> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Mark(number.to_le_bytes()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Mark {
        Mark(bytes)
    }
}

/// A message that has a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Which.
    pub mark: Mark,
    /// The id that the message got.
    pub id: Box<str>,
}

/// A mark in the making, while a text comes.
pub struct Marking {
    hash: Xxh3,
    bytes: u64,
}

impl Marking {
    fn new(key: u64) -> Marking {
        Marking { hash: Xxh3::with_seed(key), bytes: 0 }
    }

    /// Takes the next bytes of the text.
    pub fn feed(&mut self, text: &[u8]) {
        self.hash.update(text);
        self.bytes += text.len() as u64;
    }

    /// The text was whole, and this was its envelope.
    pub fn finish(mut self, sender: &str, mut recipients: Vec<String>) -> Mark {
        recipients.sort_unstable();
        // How long each is: no two envelopes give the same bytes.
        self.hash.update(&self.bytes.to_le_bytes());
        for word in std::iter::once(sender).chain(recipients.iter().map(String::as_str)) {
            self.hash.update(&(word.len() as u64).to_le_bytes());
            self.hash.update(word.as_bytes());
        }
        Mark(self.hash.digest128().to_le_bytes())
    }
}

/// What a message is whose text is whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and now its mark is Taken.
    New,
    /// The same is on its way to the disk, with this id.
    Taken(Box<str>),
    /// The same is on disk, with this id.
    Before(Box<str>),
}

type Id = [u8; ID_BYTES];

#[derive(Clone, Copy)]
enum Known {
    Taken(Id),
    /// Its age: the younger, the higher.
    Kept(u64),
}

#[derive(Clone, Copy)]
struct Slot {
    mark: Mark,
    id: Id,
    secs: u32,
}

#[derive(Default)]
struct State {
    known: HashMap<Mark, Known>,
    /// The slots of the Kept by age, the oldest first.
    order: BTreeMap<u64, u32>,
    slots: Vec<Slot>,
    /// Slots that were given back: the last is taken first, so that the file has no more of them than were ever needed at once.
    free: Vec<u32>,
    age: u64,
    /// What went wrong with the file, until somebody has said it.
    fault: Option<Fault>,
    /// Something did before.
    faulty: bool,
}

/// The memory of this server, shared by its jobs and its loop. Only whoever has the intent log may have it.
pub struct Repeats<D: Disk = RealDisk> {
    disk: D,
    path: PathBuf,
    /// `None`: it could not be made.
    file: Option<D::File>,
    key: u64,
    state: Mutex<State>,
    /// Who keeps does so alone: slots are written in the order in which they are given.
    keeping: Mutex<()>,
}

impl<D: Disk> Repeats<D> {
    /// Opens what there is in `work_path`, or makes it. It never fails: without a file it is a memory of this process, and
    /// [`fault`](Repeats::fault) says why. Waits for the disk.
    pub(super) fn open(disk: &D, work_path: &Path) -> Repeats<D> {
        let mut state = State::default();
        let (file, key) = match Repeats::file_of(disk, work_path, &mut state) {
            Ok((file, key)) => (Some(file), key),
            Err(fault) => {
                state.faulty = true;
                state.fault = Some(fault);
                (None, disk.random())
            }
        };
        let (path, state) = (work_path.join(NAME), Mutex::new(state));
        Repeats { disk: disk.clone(), path, file, key, state, keeping: Mutex::default() }
    }

    /// The file, and its key. What it says is in `state`.
    fn file_of(disk: &D, work_path: &Path, state: &mut State) -> Result<(D::File, u64), Fault> {
        let path = work_path.join(NAME);
        let dir = disk.open_dir(work_path).map_err(Fault::at("opening", work_path))?;
        let found = there(disk.open(&dir, Path::new(NAME), How::Write)).map_err(Fault::at("opening", &path))?;
        if let Some(file) = found {
            let seen = disk.stat(&file).map_err(Fault::at("looking at", &path))?;
            if !seen.is_file() || seen.uid != disk.uid() {
                let error = io::Error::other("it is not a regular file of ours");
                return Err(Fault::new("opening", &path, error));
            }
            let most = (SLOT_BYTES * (MARKS_MOST + 1)) as u64;
            let mut bytes = vec![0; seen.size.min(most) as usize];
            let mut at = 0;
            while at < bytes.len() {
                match disk.read(&file, &mut bytes[at..], at as u64, Reach::Wait).map_err(Fault::at("reading", &path))? {
                    0 => break,
                    some => at += some,
                }
            }
            let (slots, _) = bytes[..at].as_chunks::<SLOT_BYTES>();
            if let Some((head, slots)) = slots.split_first()
                && head.starts_with(MAGIC)
            {
                state.load(slots, disk.now() / 1_000_000_000);
                return Ok((file, u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"))));
            }
        }
        let (new, key) = (work_path.join(NEW), disk.random());
        there(disk.remove(&dir, Path::new(NEW))).map_err(Fault::at("removing", &new))?;
        let file = disk.open(&dir, Path::new(NEW), How::CreateNew).map_err(Fault::at("making", &new))?;
        let mut head = [0; SLOT_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&key.to_le_bytes());
        let written = disk.write(&file, &head, 0).map_err(Fault::at("writing", &new));
        let synced = written.and_then(|()| disk.sync(&file).map_err(Fault::at("syncing", &new)));
        let rename = || disk.rename(&dir, Path::new(NEW), Path::new(NAME)).map_err(Fault::at("renaming", &new));
        // Its name is on disk with that of the log, which is renewed now.
        synced.and_then(|()| rename()).inspect_err(|_| drop(disk.remove(&dir, Path::new(NEW))))?;
        Ok((file, key))
    }

    /// For a text that begins.
    pub fn marking(&self) -> Marking {
        Marking::new(self.key)
    }

    /// Whether this message came before. If not its mark is Taken.
    pub fn claim(&self, marked: &Marked) -> Claim {
        let now_secs = self.now_secs();
        let mut state = self.state();
        match state.of(&marked.mark, now_secs) {
            Some((Known::Taken(_), id)) => Claim::Taken(id),
            Some((Known::Kept(_), id)) => Claim::Before(id),
            None => {
                state.known.insert(marked.mark, Known::Taken(short(&marked.id)));
                Claim::New
            }
        }
    }

    /// It was Taken by this message, of which nothing was kept. What is Kept stays.
    pub fn release(&self, marked: &Marked) {
        let mut state = self.state();
        if matches!(state.known.get(&marked.mark), Some(Known::Taken(id)) if *id == short(&marked.id)) {
            state.known.remove(&marked.mark);
        }
    }

    /// Nothing that was Taken is known of any more.
    pub fn release_all(&self) {
        self.state().known.retain(|_, known| matches!(known, Known::Kept(_)));
    }

    /// Its message is on disk, and nobody was told so. From now on a kill forgets no mark of it. For a job.
    pub fn keep(&self, marked: &Marked) {
        let _alone = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let secs = u32::try_from(self.now_secs()).unwrap_or(0);
        let slot = Slot { mark: marked.mark, id: short(&marked.id), secs };
        let Some(at) = self.state().keep(slot) else { return };
        let Some(file) = &self.file else { return };
        if let Err(error) = self.disk.write(file, &slot.encode(), (SLOT_BYTES * (at as usize + 1)) as u64) {
            let mut state = self.state();
            if !std::mem::replace(&mut state.faulty, true) {
                state.fault = Some(Fault::new("writing", &self.path, error));
            }
        }
    }

    /// The id of the message with this mark, if it is Kept.
    pub fn kept(&self, mark: &Mark) -> Option<Box<str>> {
        let found = self.state().of(mark, self.now_secs());
        found.and_then(|(known, id)| matches!(known, Known::Kept(_)).then_some(id))
    }

    /// Its sender knows that it is kept.
    pub fn heard(&self, mark: &Mark) {
        self.state().forget(mark);
    }

    /// How many marks are Kept.
    pub fn len(&self) -> usize {
        self.state().order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is wrong with the file, said once.
    pub fn fault(&self) -> Option<Fault> {
        self.state().fault.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_secs(&self) -> i64 {
        self.disk.now() / 1_000_000_000
    }
}

impl State {
    /// What a file says.
    fn load(&mut self, slots: &[[u8; SLOT_BYTES]], now_secs: i64) {
        self.slots = slots.iter().map(Slot::decode).collect();
        let mut by_time: Vec<(u32, u32)> = (0..).zip(&self.slots).map(|(at, slot)| (slot.secs, at)).collect();
        by_time.sort_unstable();
        for (_, at) in by_time {
            let slot = self.slots[at as usize];
            if slot.is_one() && !slot.is_past(now_secs) && !self.known.contains_key(&slot.mark) {
                self.put(at, slot);
            } else {
                self.free.push(at);
            }
        }
    }

    /// What is known of this mark, and its message's id.
    fn of(&mut self, mark: &Mark, now_secs: i64) -> Option<(Known, Box<str>)> {
        let known = *self.known.get(mark)?;
        let id = match known {
            Known::Taken(id) => id,
            Known::Kept(age) => {
                let slot = self.slots[self.order[&age] as usize];
                if slot.is_past(now_secs) {
                    self.forget(mark);
                    return None;
                }
                slot.id
            }
        };
        Some((known, long(&id)))
    }

    /// Where it is to be written; `None`: it was.
    fn keep(&mut self, slot: Slot) -> Option<u32> {
        if let Some(Known::Kept(_)) = self.known.get(&slot.mark) {
            return None;
        }
        if self.free.is_empty()
            && self.order.len() == MARKS_MOST
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            let mark = self.slots[oldest as usize].mark;
            self.forget(&mark);
        }
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        self.put(at, slot);
        Some(at)
    }

    fn put(&mut self, at: u32, slot: Slot) {
        self.age += 1;
        self.known.insert(slot.mark, Known::Kept(self.age));
        self.order.insert(self.age, at);
        match self.slots.get_mut(at as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }

    fn forget(&mut self, mark: &Mark) {
        if let Some(Known::Kept(age)) = self.known.get(mark)
            && let Some(at) = self.order.remove(age)
        {
            self.known.remove(mark);
            self.free.push(at);
        }
    }
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..16].copy_from_slice(&self.mark.0);
        bytes[16..28].copy_from_slice(&self.id);
        bytes[28..].copy_from_slice(&self.secs.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SLOT_BYTES]) -> Slot {
        let (mark, rest) = bytes.split_first_chunk::<16>().expect("there are 32");
        let (id, secs) = rest.split_first_chunk::<ID_BYTES>().expect("there are 16");
        Slot { mark: Mark(*mark), id: *id, secs: u32::from_le_bytes(secs.try_into().expect("there are four")) }
    }

    /// Whether a message can be meant by it.
    fn is_one(&self) -> bool {
        is_id(long(&self.id).as_bytes())
    }

    fn is_past(&self, now_secs: i64) -> bool {
        i64::from(self.secs) + LIFE_SECS < now_secs
    }
}

fn short(id: &str) -> Id {
    let mut bytes = [0; ID_BYTES];
    bytes.iter_mut().zip(id.bytes()).for_each(|(place, byte)| *place = byte);
    bytes
}

fn long(id: &Id) -> Box<str> {
    String::from_utf8_lossy(id).trim_end_matches('\0').into()
}
