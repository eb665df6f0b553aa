//! DESIGN's table of promises, after every prefix of the calls a session makes: `deleted`, `whole`, `same`.
//!
//! A life may also be one of a mailbox to which everything is done that is done to mailboxes as a whole: erased, renamed, put in
//! order, its old mail expired, bulletins remembered, its bin moved to and fro with `hash_bindir`, space scarce for a while.
//!
//! A seed plays a life: other programs deliver, edit and expunge; sessions mark, commit and compact, when the life's threshold
//! says so and now and then when it does not; the operator calls the dead back; indexes are lost. The same life is then ended before its n-th call, by a killed process or by a power cut, for every n; what is found afterwards
//! is held against what was promised. Every other life has `add_status` on: then clients read, and what they
//! read may get a line in the drop.
//! `SIM_SEED=n` replays one life, `SIM_SEEDS=n` plays so many.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::sim::{SimDisk, World};
use crate::rules::bulletins::Seen;
use crate::store::erase::erase_on;
use crate::store::maildrop::{Maildrop, Miss, Place, Pulled, Reach, Refused};
use crate::store::rename::rename_user_on;
use crate::store::repair::{Wish, repair_on};
use crate::store::undelete::undelete_on;
use crate::text::bytes::Output;
use crate::text::number::Fraction;

const NAMES: [&str; 2] = ["/spool/ann", "/spool/bob"];
/// Who watches for space wants so much.
const MIN_SPACE: u64 = 1 << 20;

/// One message, as other programs wrote it: From_ line and text, without the blank line behind it.
#[derive(Clone, Debug)]
struct Letter {
    text: Vec<u8>,
    uid: Option<String>,
    read: Read,
    /// On the wire.
    octets: Option<usize>,
}

/// Whether a session that was committed retrieved it: whoever did not answer, or lost his index, may not know.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    No,
    Perhaps,
    Yes,
}

impl Letter {
    fn new(text: Vec<u8>) -> Letter {
        Letter { text, uid: None, read: Read::No, octets: None }
    }

    fn with(&self, line: &str) -> Vec<u8> {
        [line.as_bytes(), &self.text].concat()
    }

    fn takes_status(&self) -> bool {
        !self.text.starts_with(b"Status:")
    }

    /// Whether it may stand so in the drop: as others wrote it, or with our line before it.
    fn is_stored_as(&self, text: &[u8]) -> bool {
        self.text == text || self.read != Read::No && self.takes_status() && self.with("Status: RO\n") == text
    }

    /// Whether it may be sent so.
    fn is_sent_as(&self, text: &[u8], add_status: bool) -> bool {
        if !add_status || !self.takes_status() {
            return self.text == text;
        }
        self.read != Read::No && self.with("Status: RO\n") == text
            || self.read != Read::Yes && self.with("Status: UN\n") == text
    }

    /// What the index knew may be lost.
    fn doubt(&mut self) {
        if self.read == Read::Yes {
            self.read = Read::Perhaps;
        }
    }
}

/// What must be true. Messages are known by their From_ lines, each of which is written once.
#[derive(Default)]
struct Model {
    live: BTreeMap<String, Letter>,
    dead: BTreeMap<String, Letter>,
    /// Marked by a commit that was not answered: all gone or none.
    doubtful: BTreeSet<String>,
    /// The dead were called back, and no answer came: all of them live whose bytes are still there, or none.
    called: bool,
    /// An erasure or a renaming that was not answered.
    pending: Option<Act>,
    /// What was remembered of bulletins, and what a commit that was not answered was to remember.
    bulletins: Option<Seen>,
    doubtful_bulletins: Option<Seen>,
    /// The drop's path.
    drop: PathBuf,
    made: usize,
    add_status: bool,
    /// Nothing fails in this life: what was read stays read while the index lives.
    calm: bool,
}

/// What is done to a mailbox as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Erase,
    Rename,
}

fn separator(line: &[u8]) -> bool {
    crate::mail::mbox::is_from_line(line)
}

/// Reads an mbox as any program would, sharing nothing with the scanner but what a From_ line looks like.
fn independent(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let mut blank = true;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if blank && line.ends_with(b"\n") && separator(&line[..line.len() - 1]) {
            found.push((String::from_utf8(line.to_vec()).unwrap(), Vec::new()));
            blank = false;
            continue;
        }
        match found.last_mut() {
            Some((_, text)) => text.extend_from_slice(line),
            None => panic!("the drop does not begin with a From_ line: {:?}", line.escape_ascii().to_string()),
        }
        blank = line == b"\n";
    }
    for (from, text) in &mut found {
        assert!(text.ends_with(b"\n\n"), "{from} has no blank line behind it: {:?}", text.escape_ascii().to_string());
        text.pop();
    }
    found
}

/// The text without the header that mutt changes.
fn plain(text: &[u8]) -> Vec<u8> {
    text.split_inclusive(|&b| b == b'\n').filter(|line| !line.starts_with(b"Status:")).flatten().copied().collect()
}

impl Model {
    /// A new message. Now and then its text is that of one there was before.
    fn write(&mut self, world: &mut World) -> (String, Vec<u8>) {
        self.made += 1;
        let from = format!("From s{}@x Mon Jan  5 10:00:00 2026\n", self.made);
        let again = if world.below(4) == 0 {
            let known: Vec<_> = self.live.values().chain(self.dead.values()).collect();
            let index = if known.is_empty() { 0 } else { world.below(known.len() as u64) as usize };
            known.get(index).map(|letter| plain(&letter.text))
        } else {
            None
        };
        let text = again.unwrap_or_else(|| {
            let lines = match world.below(4) {
                0 => 0,
                1 => world.below(200),
                _ => world.below(10),
            };
            let mut text = format!("Subject: m{}\n\n", self.made);
            (0..lines).for_each(|line| text += &format!("{line} all work and no play makes Jack a dull boy\n"));
            text.push_str("end\n");
            text.into_bytes()
        });
        (from, text)
    }

    /// All the dead live again, but those that are not in the drop any more. How many came.
    fn revive(&mut self, drop: &[u8]) -> usize {
        let there: BTreeSet<String> = independent(drop).into_iter().map(|(from, _)| from).collect();
        let before = self.live.len();
        let dead = std::mem::take(&mut self.dead).into_iter();
        self.live.extend(dead.filter(|(from, _)| there.contains(from)));
        self.live.len() - before
    }

    /// The same mailbox with nothing in it.
    fn anew(&self) -> Model {
        let (drop, made, add_status, calm) = (self.drop.clone(), self.made, self.add_status, self.calm);
        Model { drop, made, add_status, calm, ..Model::default() }
    }

    /// The index may be gone.
    fn doubt(&mut self) {
        self.live.values_mut().chain(self.dead.values_mut()).for_each(Letter::doubt);
    }

    /// Another program's delivery.
    fn deliver(&mut self, world: &mut World) {
        let (from, text) = self.write(world);
        world.append(&self.drop, &[from.as_bytes(), &text, b"\n"].concat());
        self.live.insert(from, Letter::new(text));
    }

    /// Another program's session, mutt's or Python's: flags change, messages go, in place or under a new inode.
    fn edit(&mut self, world: &mut World) {
        let drop = self.drop.clone();
        let mut bytes = Vec::new();
        for (from, text) in independent(&world.bytes(&drop)) {
            let mut text = plain(&text);
            if world.below(6) == 0 {
                // What the other program expunges is gone, whether we call it dead or not.
                self.live.remove(&from);
                self.dead.remove(&from);
                continue;
            }
            if world.below(2) == 0 {
                let status = if world.below(2) == 0 { "Status: RO\n" } else { "Status: O\n" };
                text = [status.as_bytes(), &text].concat();
            }
            for letters in [&mut self.live, &mut self.dead] {
                letters.entry(from.clone()).and_modify(|letter| {
                    letter.text = text.clone();
                    letter.octets = None;
                    letter.doubt();
                });
            }
            bytes.extend_from_slice(&[from.as_bytes(), &text, b"\n"].concat());
        }
        let new_inode = world.below(2) == 0;
        world.put(&drop, &bytes, new_inode);
    }
}

type Open = Maildrop<SimDisk>;

/// Number, From_ line, UID, text.
type Shown = (u32, String, String, Vec<u8>);

/// Everything a client sees: From_ line, UID, text as sent.
fn seen(disk: &SimDisk, maildrop: &Open) -> Result<Vec<Shown>, Miss> {
    let mut found = Vec::new();
    for number in 1..=maildrop.totals().messages {
        let row = maildrop.lookup(number).run()?[0];
        let mut reader = maildrop.reader(number, None, Reach::Wait)?;
        let from = maildrop.offset_for_tests(number)?;
        let bytes = disk.world().bytes(maildrop.path());
        let line = bytes[from as usize..].split_inclusive(|&b| b == b'\n').next().unwrap().to_vec();
        let mut out = Output::default();
        let mut scratch = vec![0; 2048];
        loop {
            match reader.pull(&mut scratch, &mut out) {
                Ok(Pulled::More) => {}
                Ok(Pulled::Last) => break,
                Err(Miss::Cold) => {
                    let fetched = reader.fetch().run()?;
                    reader.supply(fetched);
                }
                Err(miss) => return Err(miss),
            }
        }
        let wire = out.bytes().strip_suffix(b".\r\n").unwrap().to_vec();
        assert_eq!(wire.len() as u64, row.octets, "sizes are bytes really sent");
        let text = String::from_utf8(wire).unwrap().replace("\r\n", "\n").into_bytes();
        found.push((number, String::from_utf8(line).unwrap(), row.uid.to_string(), text));
    }
    Ok(found)
}

/// What a client sees must be what was promised. `drop` is what lies there.
fn check_seen(model: &mut Model, found: &[Shown], drop: &[u8]) {
    if std::mem::take(&mut model.called) {
        let came = found.iter().any(|(_, line, ..)| model.dead.contains_key(line));
        if came {
            model.revive(drop);
        }
    }
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    let mut uids = BTreeSet::new();
    // A commit that was not answered: all or none.
    let doubtful: Vec<bool> =
        model.doubtful.iter().map(|from| found.iter().any(|(_, line, ..)| line == from)).collect();
    if !doubtful.is_empty() {
        assert!(doubtful.iter().all(|&there| there == doubtful[0]), "deleted: half of an unanswered commit was done");
        let came = doubtful[0];
        for from in std::mem::take(&mut model.doubtful) {
            if !came && let Some(letter) = model.live.remove(&from) {
                model.dead.insert(from, letter);
            }
        }
    }
    for (number, from, uid, text) in found {
        assert!(!model.dead.contains_key(from), "deleted: {from} came back as number {number}");
        let letter = model.live.get_mut(from).unwrap_or_else(|| panic!("number {number} was never delivered: {from}"));
        assert!(shown.insert(from), "{from} is shown twice");
        assert!(uids.insert(uid.clone()), "same: two messages have UID {uid}");
        let sent = || text.escape_ascii().to_string();
        assert!(
            letter.is_sent_as(text, model.add_status),
            "whole: {from} reads differently: {}, {:?}",
            sent(),
            letter.read
        );
        let octets = *letter.octets.get_or_insert(text.len());
        assert_eq!(octets, text.len(), "same: the size of {from} changed");
        let known = letter.uid.get_or_insert_with(|| uid.clone());
        assert_eq!(known, uid, "same: the UID of {from} changed");
    }
    for from in model.live.keys() {
        assert!(shown.contains(from.as_str()), "an unmarked message is gone: {from}");
    }
}

/// What is remembered of bulletins must be what the last commit said, or one that was not answered.
fn check_bulletins(model: &mut Model, maildrop: &Open) {
    let (found, doubtful) = (maildrop.bulletins(), model.doubtful_bulletins.take());
    if !maildrop.remembers() {
        return;
    }
    assert!(found == model.bulletins || doubtful.is_some() && found == doubtful, "bulletins: {found:?}");
    model.bulletins = found;
}

/// The index, wherever it lies.
fn index_of(world: &World) -> Option<PathBuf> {
    world.paths().into_iter().find(|path| path.to_string_lossy().ends_with(".idx"))
}

/// What lies in the drop must be what other programs wrote.
fn check_drop(model: &Model, world: &World) {
    let stored = independent(&world.bytes(&model.drop));
    let mut left: BTreeSet<&str> = model.live.keys().map(String::as_str).collect();
    for (from, text) in &stored {
        let letter = model.live.get(from).or_else(|| model.dead.get(from));
        let letter = letter.unwrap_or_else(|| panic!("whole: nobody wrote {from}"));
        assert!(letter.is_stored_as(text), "whole: {from} is not byte for byte what was written");
        left.remove(from.as_str());
    }
    assert!(left.is_empty(), "whole: the drop lacks {left:?}");
    assert_eq!(stored.len(), stored.iter().map(|(from, _)| from).collect::<BTreeSet<_>>().len(), "whole: doubled");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    None,
    Kill(u64),
    PowerCut(u64),
    Error(u64, std::io::ErrorKind),
}

/// Why a session ended early.
enum Trouble {
    Changed,
    Failed,
}

struct Life {
    disk: SimDisk,
    place: Place,
    acts: bool,
    model: std::sync::Arc<std::sync::Mutex<Model>>,
}

impl Life {
    /// With `acts`, of a mailbox with its bin elsewhere, and of everything that may be done to it.
    fn new(seed: u64, acts: bool) -> Life {
        let disk = SimDisk::new(seed, &["/spool", "/work"]);
        let mut model = Model { drop: NAMES[0].into(), ..Model::default() };
        {
            let mut world = disk.world();
            for _ in 0..1 + world.below(6) {
                model.deliver(&mut world);
            }
            world.now += world.random as i64 & 0xffff_ffff;
        }
        let full = [Fraction::HALF, Fraction::ALL, Fraction::NONE][(seed % 3) as usize];
        let add_status = seed % 2 == 1;
        model.add_status = add_status;
        let mut place = Place { full, add_status, ..Place::new(PathBuf::from(NAMES[0]), PathBuf::from("/work")) };
        if acts {
            place.bin_path = (!seed.is_multiple_of(4)).then(|| "/bins".into());
            place.lone = seed.is_multiple_of(2);
            place.min_space_bytes = MIN_SPACE;
        }
        Life { disk, place, acts, model: std::sync::Arc::new(std::sync::Mutex::new(model)) }
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Programs that know locks deliver while we work.
    fn let_others_deliver(&self) {
        let (model, drop) = (std::sync::Arc::clone(&self.model), self.place.drop.clone());
        self.disk.world().actor = Some(Box::new(move |world, _| {
            if world.below(12) == 0 && !world.is_locked(&drop) {
                let mut model = model.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                model.deliver(world);
            }
        }));
    }

    /// One session: look, mark, perhaps commit, perhaps compact.
    fn session(&self) -> Result<(), ()> {
        self.session_once().or_else(|trouble| match trouble {
            // An entry of the index was damaged: that ended the session, and the next one makes it anew.
            Trouble::Changed => {
                self.model().doubt();
                self.session_once().map_err(drop)
            }
            Trouble::Failed => Err(()),
        })
    }

    fn session_once(&self) -> Result<(), Trouble> {
        self.let_others_deliver();
        let opened = Maildrop::open_on(&self.disk, &self.place);
        self.disk.world().actor = None;
        let mut maildrop = match opened {
            Ok(maildrop) => maildrop,
            // Locked: the accident was that our own dotlock could not be taken away.
            Err(Refused::Fault(_) | Refused::Locked) => return Err(Trouble::Failed),
            Err(refused) => panic!("{refused:?}"),
        };
        // Delivered after the snapshot, not in it: looked at again by the next session.
        let found = seen(&self.disk, &maildrop).map_err(|miss| match miss {
            Miss::Changed => Trouble::Changed,
            _ => Trouble::Failed,
        })?;
        {
            let mut model = self.model();
            let late: Vec<_> =
                model.live.keys().filter(|from| found.iter().all(|(_, line, ..)| line != *from)).cloned().collect();
            let snapshot: u64 = maildrop.size_for_tests();
            let bytes = self.disk.world().bytes(&self.place.drop);
            let later = String::from_utf8_lossy(&bytes[snapshot as usize..]).into_owned();
            let mut set_apart = Vec::new();
            for from in late.into_iter().filter(|from| later.contains(from.as_str())) {
                set_apart.push(model.live.remove_entry(&from).unwrap());
            }
            check_seen(&mut model, &found, &bytes);
            check_bulletins(&mut model, &maildrop);
            model.live.extend(set_apart);
        }
        let mut marked = BTreeSet::new();
        let way = self.disk.world().below(8);
        for (number, from, ..) in &found {
            let mark = match way {
                0 => false,
                1 => true,
                _ => self.disk.world().below(2) == 0,
            };
            if mark && maildrop.delete(*number).is_ok() {
                marked.insert(from.clone());
            }
        }
        if self.acts && self.disk.world().below(4) == 0 {
            let disk = self.disk.clone();
            let expired = maildrop.expire(i64::MAX, &mut |_| disk.world().below(2) == 0);
            expired.map_err(|_| Trouble::Failed)?;
            marked.extend(
                found.iter().filter(|(number, ..)| maildrop.is_deleted(*number)).map(|(_, from, ..)| from.clone()),
            );
        }
        let mut remembered = None;
        if self.acts && maildrop.remembers() && self.disk.world().below(3) == 0 {
            let through = self.disk.world().below(1000) as u32;
            remembered = Some(Seen { epoch: 1, through, beyond: 0 });
            maildrop.remember(remembered);
        }
        let mut read = BTreeSet::new();
        for (number, from, ..) in &found {
            let news = maildrop.reader(*number, None, Reach::Wait).is_ok_and(|reader| reader.is_news());
            if news && self.disk.world().below(2) == 0 {
                maildrop.read(*number);
                read.insert(from.clone());
            }
        }
        if self.disk.world().below(8) == 0 {
            // The line breaks.
            return Ok(());
        }
        let writes = self.disk.world().writes;
        let empty = marked.is_empty() && read.is_empty() && remembered.is_none();
        assert_eq!(maildrop.has_news(), !empty);
        {
            let mut model = self.model();
            model.doubtful = marked.clone();
            model.doubtful_bulletins = remembered;
            read.iter().for_each(|from| model.live.get_mut(from).unwrap().read = Read::Perhaps);
        }
        self.let_others_deliver();
        let commit = maildrop.commit();
        self.disk.world().actor = None;
        let Ok(commit) = commit else { return Err(Trouble::Failed) };
        assert!(!empty || self.disk.world().writes == writes, "QUIT without deletions and news writes nothing");
        {
            let mut model = self.model();
            model.doubtful.clear();
            model.doubtful_bulletins = None;
            model.bulletins = remembered.or(model.bulletins);
            if model.calm {
                read.difference(&marked).for_each(|from| model.live.get_mut(from).unwrap().read = Read::Yes);
            }
            for from in marked {
                let letter = model.live.remove(&from).unwrap();
                model.dead.insert(from, letter);
            }
        }
        let whim = self.disk.world().below(8);
        if if commit.wants_compaction { whim == 0 } else { whim != 1 } {
            return Ok(());
        }
        self.let_others_deliver();
        let compacted = maildrop.compact(&mut || true);
        self.disk.world().actor = None;
        match compacted {
            Ok(compacted) => {
                if compacted.freed_bytes > 0 {
                    let bytes = self.disk.world().bytes(&self.place.drop);
                    let mut model = self.model();
                    let gone: Vec<_> = model.dead.keys().cloned().collect();
                    for from in gone {
                        let there = independent(&bytes).iter().any(|(line, _)| *line == from);
                        assert!(!there, "{from} was compacted away and is still there");
                        model.dead.remove(&from);
                    }
                }
                Ok(())
            }
            Err(Refused::Locked) => Ok(()),
            Err(Refused::Fault(_)) => Err(Trouble::Failed),
            Err(refused) => panic!("{refused:?}"),
        }
    }

    /// The operator calls the dead back.
    fn undelete(&self) -> Result<(), ()> {
        self.model().called = true;
        self.let_others_deliver();
        let undeleted = undelete_on(&self.disk, &self.place);
        self.disk.world().actor = None;
        match undeleted {
            Ok(undeleted) => {
                let bytes = self.disk.world().bytes(&self.place.drop);
                let mut model = self.model();
                model.called = false;
                assert_eq!(model.revive(&bytes), undeleted.messages as usize, "all come back whose bytes are there");
                Ok(())
            }
            Err(Refused::Fault(_) | Refused::Locked) => Err(()),
            Err(refused) => panic!("{refused:?}"),
        }
    }

    /// The operator takes the mailbox away.
    fn erase(&self) -> Result<(), ()> {
        self.model().pending = Some(Act::Erase);
        erase_on(&self.disk, &self.place).map_err(drop)?;
        let mut model = self.model();
        *model = model.anew();
        Ok(())
    }

    /// The operator gives it its other name, at a time when the other setting of hash_bindir may hold.
    fn rename(&mut self) -> Result<(), ()> {
        self.model().pending = Some(Act::Rename);
        let new = self.other_name();
        rename_user_on(&self.disk, &self.place, &new).map_err(drop)?;
        self.place = new;
        let mut model = self.model();
        (model.pending, model.drop) = (None, self.place.drop.clone());
        Ok(())
    }

    fn other_name(&self) -> Place {
        let drop = NAMES.iter().map(PathBuf::from).find(|name| *name != self.place.drop).unwrap();
        Place { drop, ..self.place.clone() }
    }

    /// The operator has it put in order, perhaps compacted.
    fn put_in_order(&self) -> Result<(), ()> {
        let compact = self.disk.world().below(2) == 0;
        repair_on(&self.disk, &self.place, Wish { look_only: false, compact }).map_err(drop)?;
        let left = independent(&self.disk.world().bytes(&self.place.drop));
        self.model().dead.retain(|from, _| left.iter().any(|(line, _)| line == from));
        Ok(())
    }

    fn act(&mut self) -> Result<(), ()> {
        let what = self.disk.world().below(9);
        match what {
            0 => self.undelete(),
            1 => self.erase(),
            2 | 3 => self.rename(),
            4 => self.put_in_order(),
            5 | 6 => {
                self.place.hash_bindir ^= true;
                Ok(())
            }
            7 => {
                let mut world = self.disk.world();
                world.free = if world.free == u64::MAX { MIN_SPACE - 1 } else { u64::MAX };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whoever crashed in an act does it again, or looks what came of it.
    fn decide(&mut self, again: bool) {
        let pending = self.model().pending.take();
        let there = |life: &Life, place: &Place| life.disk.world().file(&place.drop).is_some();
        match pending {
            Some(Act::Erase) if again => self.erase().expect("an erasure is completed by the next"),
            Some(Act::Erase) => {
                let mut model = self.model();
                let bulletins = Maildrop::open_on(&self.disk, &self.place).unwrap().bulletins();
                if self.disk.world().bytes(&self.place.drop).is_empty() {
                    *model = model.anew();
                    model.bulletins = bulletins;
                }
            }
            Some(Act::Rename) if again || !there(self, &self.place) && !there(self, &self.other_name()) => {
                self.rename().expect("a renaming is completed by the next");
            }
            Some(Act::Rename) if there(self, &self.other_name()) => {
                self.place = self.other_name();
                self.model().drop = self.place.drop.clone();
            }
            Some(Act::Rename) | None => {}
        }
    }

    /// What others do between sessions.
    fn others(&self) {
        let mut world = self.disk.world();
        let mut model = self.model();
        match world.below(8) {
            0 | 1 => model.deliver(&mut world),
            2 => model.edit(&mut world),
            3 => {
                if let Some(index) = index_of(&world) {
                    world.take_away(&index);
                    model.doubt();
                }
            }
            4 => {
                let at = world.random() as usize;
                let bits = 1 << world.below(8);
                if let Some(path) = index_of(&world)
                    && let Some(index) = world.file(&path)
                    && !index.data.is_empty()
                {
                    let at = at % index.data.len();
                    index.data[at] ^= bits;
                    model.doubt();
                }
            }
            5 => world.now += 1_000_000,
            _ => world.now += 100_000_000_000,
        }
        world.cold = world.below(2) == 0;
    }

    fn play(&mut self, steps: u64, accident: Accident) -> bool {
        self.model().calm = accident == Accident::None && !self.acts;
        match accident {
            Accident::None => {}
            Accident::Kill(n) | Accident::PowerCut(n) => self.disk.world().stop_at = Some(n),
            Accident::Error(n, kind) => self.disk.world().fail_at = Some((n, kind)),
        }
        for _ in 0..steps {
            let undeletes = self.disk.world().below(5) == 0;
            if self.session().is_err() || undeletes && self.undelete().is_err() || self.acts && self.act().is_err() {
                return false;
            }
            self.others();
        }
        true
    }

    /// A new process finds the spool.
    fn recover(self, accident: Accident) -> Life {
        match accident {
            Accident::PowerCut(_) => self.disk.world().cut_power(),
            _ => self.disk.world().kill(),
        }
        self.model().doubt();
        let disk = self.disk.again();
        disk.world().cold = false;
        disk.world().free = u64::MAX;
        let lost = NAMES.iter().any(|name| {
            let lock = PathBuf::from(format!("{name}.lock"));
            disk.world().file(&lock).is_some_and(|lock| !lock.data.ends_with(b" sim\n"))
        });
        if lost && !matches!(accident, Accident::Kill(_)) {
            // A dotlock whose line the disk lost is anybody's: judged by its age. A kill alone never leaves one.
            disk.world().now += 1_100_000_000_000;
        }
        Life { disk, ..self }
    }

    /// Somebody runs `dmail repair` before the server comes up again.
    fn repair(&self) {
        repair_on(&self.disk, &self.place, Wish::default()).expect("a drop can be repaired after a crash");
        let looked = repair_on(&self.disk, &self.place, Wish { look_only: true, compact: false }).unwrap();
        assert!(looked.in_order, "left after repair: {looked:?}");
    }

    /// Opens until it works, looks, and sees that the promises hold; then deletes and compacts once more.
    fn judge(&self) {
        for last in [false, true] {
            let mut maildrop = Maildrop::open_on(&self.disk, &self.place).expect("a drop can be opened after a crash");
            let found = seen(&self.disk, &maildrop).expect("and read");
            let bytes = self.disk.world().bytes(&self.place.drop);
            check_seen(&mut self.model(), &found, &bytes);
            check_bulletins(&mut self.model(), &maildrop);
            check_drop(&self.model(), &self.disk.world());
            if last {
                break;
            }
            if let Some((number, from, ..)) = found.last() {
                maildrop.delete(*number).unwrap();
                let mut model = self.model();
                let letter = model.live.remove(from).unwrap();
                model.dead.insert(from.clone(), letter);
            }
            maildrop.commit().unwrap();
            maildrop.compact(&mut || true).unwrap();
            check_drop(&self.model(), &self.disk.world());
            let left = independent(&self.disk.world().bytes(&self.place.drop)).len();
            assert_eq!(left, self.model().live.len(), "the dead are gone from the drop");
        }
        if self.disk.world().bytes(&self.place.drop).is_empty() {
            // Nobody looks for a bin at its other place before there is mail.
            return;
        }
        let paths = self.disk.world().paths();
        // What a renaming that was given up left at the other name is swept when somebody comes to have that.
        let name = self.place.drop.file_name().unwrap().to_string_lossy().into_owned();
        let ours = [name.clone(), format!(".{name}.bin"), format!(".{name}.idx")];
        let is_left = |path: &&PathBuf| {
            let found = path.file_name().unwrap().to_string_lossy().into_owned();
            found.contains(&name) && !ours.contains(&found)
        };
        let left: Vec<_> = paths.iter().filter(is_left).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Plays `seed` undisturbed, then with an accident at every call.
fn play(seed: u64, acts: bool) -> u64 {
    let steps = if acts { 4 } else { 3 };
    let mut life = Life::new(seed, acts);
    assert!(life.play(steps, Accident::None), "nothing fails by itself");
    let calls = life.disk.world().calls;
    life.recover(Accident::None).judge();
    for n in 1..=calls {
        let kinds = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other];
        let error = Accident::Error(n, kinds[(n % 2) as usize]);
        for accident in [Accident::Kill(n), Accident::PowerCut(n), error] {
            let mut life = Life::new(seed, acts);
            let context = Context { seed, accident, disk: life.disk.clone() };
            life.play(steps, accident);
            let mut life = life.recover(accident);
            // The operator thinks better of it.
            life.place.hash_bindir ^= acts && n % 3 == 0;
            life.decide(n % 4 < 2);
            if n % 2 == 0 {
                life.repair();
            }
            life.judge();
            context.passed();
        }
    }
    calls
}

/// Says which life it was when a test fails inside it.
struct Context {
    seed: u64,
    accident: Accident,
    disk: SimDisk,
}

impl Context {
    fn passed(mut self) {
        self.accident = Accident::None;
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.accident != Accident::None {
            let world = self.disk.world();
            let (Accident::Kill(n) | Accident::PowerCut(n) | Accident::Error(n, _)) = self.accident else { return };
            let n = n as usize;
            let around = &world.trace[n.saturating_sub(12)..world.trace.len().min(n + 2)];
            eprintln!("SIM_SEED={} {:?}, after and before {around:#?}", self.seed, self.accident);
        }
    }
}

fn play_all(acts: bool, seeds: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let verbose = number("SIM_SEEDS").is_some();
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(seeds)).collect(),
    };
    let calls: u64 = seeds
        .iter()
        .map(|&seed| {
            if verbose {
                println!("SIM_SEED={seed}");
            }
            play(seed, acts)
        })
        .sum();
    println!("{} lives, each ended before each of its calls, {calls} calls in all", seeds.len());
}

#[test]
fn promises_hold_after_every_prefix_of_calls() {
    play_all(false, 8);
}

#[test]
fn promises_hold_whatever_is_done_to_the_mailbox_as_a_whole() {
    play_all(true, 4);
}
