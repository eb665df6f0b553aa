//! The verdict: the journal held against what was found. First all facts in their order ([`Books::fact`]), then everything
//! that was found ([`Books::found`] and its like), then [`Books::close`].
//!
//! A *copy* is one message for one mailbox. Where it may be:
//!
//! | the sender was answered | then the copy is                                                                                  |
//! |-------------------------|---------------------------------------------------------------------------------------------------|
//! | 2xx                     | in exactly one place: its drop, the queue, a sink; or a client has deleted it, and QUIT was answered +OK |
//! | 4xx, 5xx                | nowhere, and was never fetched                                                                     |
//! | nothing                 | in one place, or in none                                                                          |
//!
//! | violation  | what was found                                                                                    |
//! |------------|---------------------------------------------------------------------------------------------------|
//! | lost       | acknowledged, and in no place; or seen by a client, deleted by nobody, and not listed any more     |
//! | double     | in more than one place, or more than once in one                                                  |
//! | undead     | deleted, QUIT was answered, and seen in a later session or at the end                              |
//! | refused    | refused, and it is somewhere or was fetched                                                        |
//! | phantom    | it says that it is of this run, and was never sent to this mailbox                                 |
//! | torn       | its body is not what was sent                                                                     |
//! | halves     | QUIT was not answered, and only some of what that session had marked is gone                       |
//! | uid        | it has another UID than before, or two messages have one                                          |
//! | malformed  | a drop or a queue file is not what it has to be                                                   |
//!
//! It is a proof when there was a *last look* at each mailbox, and the queue had run dry before it. What is missing of that
//! [`Verdict::open`] says, and such a run is not clean. Only where nobody could look any more (the harness was killed too) may a
//! copy be in its drop and still in the queue.
//!
//! With a *last look*, a POP3 session at the end that lists and fetches everything, what it shows is what is in a drop: a
//! server may keep deleted messages in the file for a while. A session whose QUIT was not answered is judged by the next one
//! of that mailbox that lists it.
//!
//! Memory: a copy costs 24 bytes in a table, one that was deleted 24 more; mailboxes their live UIDs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::journal::Fact;
use super::reading::Found;

/// Copies are numbered by mailbox and message in one word.
const SEQ_BITS: u32 = 40;
/// Of each kind so many violations are kept with their words; all are counted.
pub const KEPT: usize = 50;

/// See the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the page says it")]
pub enum Kind {
    Lost,
    Double,
    Undead,
    Refused,
    Phantom,
    Torn,
    Halves,
    Uid,
    Malformed,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 9] = [
        Kind::Lost,
        Kind::Double,
        Kind::Undead,
        Kind::Refused,
        Kind::Phantom,
        Kind::Torn,
        Kind::Halves,
        Kind::Uid,
        Kind::Malformed,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Double => "double",
            Kind::Undead => "undead",
            Kind::Refused => "refused",
            Kind::Phantom => "phantom",
            Kind::Torn => "torn",
            Kind::Halves => "halves",
            Kind::Uid => "uid",
            Kind::Malformed => "malformed",
        }
    }
}

/// A message for a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Copy(u64);

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub copy: Option<Copy>,
    /// The POP3 session that saw it.
    pub session: Option<u64>,
    pub words: String,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Drop,
    Queue,
    Sink,
}

const ACKED: u32 = 1;
const REFUSED: u32 = 1 << 1;
const DELETED: u32 = 1 << 2;
const DOUBT: u32 = 1 << 3;
const FETCHED: u32 = 1 << 4;
const SHOWN: u32 = 1 << 5;
/// How often it was found: three counters of two bits, which stop at their most.
const COUNTERS: u32 = 8;
const MOST: u32 = 3;

impl Place {
    fn shift(self) -> u32 {
        COUNTERS + 2 * self as u32
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    uid: u64,
    bits: u32,
    /// The line of the journal where its deletion was acknowledged.
    gone: u32,
}

impl State {
    fn has(self, bits: u32) -> bool {
        self.bits & bits != 0
    }

    fn count(self, place: Place) -> u32 {
        self.bits >> place.shift() & MOST
    }

    fn add(&mut self, place: Place) {
        if self.count(place) < MOST {
            self.bits += 1 << place.shift();
        }
    }
}

/// A POP3 session.
#[derive(Default)]
struct Session {
    opened: u32,
    listed: Vec<u64>,
    marked: Vec<(u64, Option<Copy>)>,
    /// QUIT was not answered.
    doubt: bool,
    is_last: bool,
}

/// A message that a mailbox has, by its UID.
struct Live {
    copy: Option<Copy>,
    /// The line where it was listed first.
    since: u32,
}

#[derive(Default)]
struct Mailbox {
    live: HashMap<u64, Live>,
    sessions: HashMap<u64, Session>,
    /// Not listed any more, and deleted by nobody; perhaps its UID has changed.
    vanished: HashMap<u64, (Option<Copy>, u64)>,
    /// There was a last look, and it saw everything.
    tried: bool,
    looked: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the report says it")]
pub struct Counts {
    pub messages: u64,
    pub bytes: u64,
    pub copies: u64,
    pub acked: u64,
    pub in_drops: u64,
    pub queued: u64,
    pub sunk: u64,
    pub deleted: u64,
    pub doubtful: u64,
    pub refused: u64,
    pub unknown: u64,
    pub unknown_there: u64,
    pub sessions: u64,
    pub fetched: u64,
    pub quits: u64,
    pub cut_quits: u64,
    pub cut_undone: u64,
    pub dead: u64,
    pub unlooked: u64,
    pub unsettled: u64,
    pub strangers: u64,
}

/// The whole account.
pub struct Books {
    run: u64,
    keeps_dead: bool,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    boxes: Vec<Mailbox>,
    copies: HashMap<Copy, State>,
    /// UIDs whose deletion was acknowledged, with the line of that.
    gone: HashMap<(u32, u64), u32>,
    /// Nothing was on its way when the last look began, so that what it did not show is not coming.
    settled: bool,
    /// Mail had time to arrive, and some had not.
    restless: Option<u64>,
    counts: Counts,
    violations: Vec<Violation>,
    by_kind: [u64; Kind::ALL.len()],
}

impl Books {
    /// For the run whose messages bear that number. `keeps_dead`: the server leaves deleted messages in the file for a while.
    pub fn new(run: u64, keeps_dead: bool) -> Books {
        Books {
            run,
            keeps_dead,
            names: Vec::new(),
            numbers: HashMap::new(),
            boxes: Vec::new(),
            copies: HashMap::new(),
            gone: HashMap::new(),
            settled: false,
            restless: None,
            counts: Counts::default(),
            violations: Vec::new(),
            by_kind: [0; Kind::ALL.len()],
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("fewer mailboxes than 2^32");
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        self.boxes.push(Mailbox::default());
        number
    }

    fn copy(&mut self, seq: u64, name: &str) -> Copy {
        let number = self.number(name);
        Copy(u64::from(number) << SEQ_BITS | seq & ((1 << SEQ_BITS) - 1))
    }

    /// The message's number, and the mailbox.
    pub fn of(&self, copy: Copy) -> (u64, &str) {
        (copy.0 & ((1 << SEQ_BITS) - 1), &self.names[(copy.0 >> SEQ_BITS) as usize])
    }

    /// All mailboxes that the journal names.
    pub fn mailboxes(&self) -> BTreeSet<String> {
        self.names.iter().cloned().collect()
    }

    fn violation(&mut self, kind: Kind, copy: Option<Copy>, session: Option<u64>, words: impl fmt::Display) {
        let count = &mut self.by_kind[kind as usize];
        *count += 1;
        if *count <= KEPT as u64 {
            let words = match copy.map(|copy| self.of(copy)) {
                Some((seq, name)) => format!("message {seq} for {name}: {words}"),
                None => words.to_string(),
            };
            self.violations.push(Violation { kind, copy, session, words });
        }
    }

    /// The next fact of the journal, which stands in that line.
    pub fn fact(&mut self, line: u64, fact: &Fact<'_>) {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        match fact {
            Fact::Begun { seq, to, bytes, .. } => {
                self.counts.messages += 1;
                self.counts.bytes += bytes;
                for name in to {
                    let copy = self.copy(*seq, name);
                    self.copies.entry(copy).or_default();
                }
            }
            Fact::Acked { seq, to, .. } => self.answered(*seq, to, ACKED),
            Fact::Refused { seq, to, .. } => self.answered(*seq, to, REFUSED),
            Fact::Unknown { seq, to, .. } => self.answered(*seq, to, 0),
            Fact::Final { session, to } => {
                self.session(*session, to).is_last = true;
                let number = self.number(to);
                self.boxes[number as usize].tried = true;
            }
            Fact::Opens { session, to } => {
                self.counts.sessions += 1;
                self.session(*session, to).opened = line;
            }
            Fact::Listed { session, to, uids } => self.listed(line, *session, to, uids),
            Fact::Fetched { session, to, uid, seq, whole } => self.fetched(*session, to, *uid, *seq, *whole),
            Fact::Marked { session, to, uid, seq } => {
                let copy = seq.map(|seq| self.copy(seq, to));
                self.session(*session, to).marked.push((*uid, copy));
            }
            Fact::Deleted { session, to } => {
                self.counts.quits += 1;
                let number = self.number(to);
                if let Some(session) = self.boxes[number as usize].sessions.remove(session) {
                    self.bury(number, line, &session.marked);
                }
            }
            Fact::Doubt { session, to } => {
                let session = self.session(*session, to);
                session.listed = Vec::new();
                session.doubt = !session.marked.is_empty();
                self.counts.cut_quits += u64::from(session.doubt);
            }
            Fact::Closed { session, to } => {
                let number = self.number(to);
                self.boxes[number as usize].sessions.remove(session);
            }
            Fact::Sunk { seq, to } => {
                let copy = self.copy(*seq, to);
                match self.copies.get_mut(&copy) {
                    Some(state) => state.add(Place::Sink),
                    None => {
                        self.violation(Kind::Phantom, Some(copy), None, "the sink was given it, and it was never sent")
                    }
                }
            }
            Fact::Settled { .. } => self.settled = true,
            Fact::Restless { millis } => self.restless = Some(*millis),
            Fact::Event { .. } => {}
        }
    }

    fn answered(&mut self, seq: u64, name: &str, bit: u32) {
        let copy = self.copy(seq, name);
        self.copies.entry(copy).or_default().bits |= bit;
    }

    fn session(&mut self, session: u64, name: &str) -> &mut Session {
        let number = self.number(name);
        self.boxes[number as usize].sessions.entry(session).or_default()
    }

    /// Those are gone for good.
    fn bury(&mut self, number: u32, line: u32, marked: &[(u64, Option<Copy>)]) {
        for (uid, copy) in marked {
            self.gone.insert((number, *uid), line);
            self.boxes[number as usize].live.remove(uid);
            if let Some(state) = copy.and_then(|copy| self.copies.get_mut(&copy)) {
                state.bits |= DELETED;
                state.gone = line;
            }
        }
    }

    fn listed(&mut self, line: u32, id: u64, name: &str, uids: &[u64]) {
        let number = self.number(name);
        let opened = self.session(id, name).opened;
        let seen: HashSet<u64> = uids.iter().copied().collect();
        if seen.len() < uids.len() {
            self.violation(Kind::Uid, None, Some(id), format_args!("{name} lists two messages with one UID"));
        }
        for &uid in &seen {
            let buried = self.gone.get(&(number, uid)).is_some_and(|&line| line < opened);
            if buried {
                self.gone.remove(&(number, uid));
                let is_it =
                    |(copy, state): &(&Copy, &State)| copy.0 >> SEQ_BITS == u64::from(number) && state.uid == uid;
                // The way through all copies is taken only for those that are shown.
                let few = self.by_kind[Kind::Undead as usize] < KEPT as u64;
                let copy = if few { self.copies.iter().find(is_it).map(|(copy, _)| *copy) } else { None };
                self.violation(
                    Kind::Undead,
                    copy,
                    Some(id),
                    format_args!("{name} deleted UID {uid:016x}, and it is listed again"),
                );
            }
        }
        // Sessions that ended in doubt before this listing: a mailbox is open to one at a time, so this one came behind them.
        let sessions = &self.boxes[number as usize].sessions;
        let mut doubtful: Vec<u64> = sessions.iter().filter(|(_, session)| session.doubt).map(|(id, _)| *id).collect();
        doubtful.sort_unstable();
        for earlier in doubtful {
            let session = self.boxes[number as usize].sessions.remove(&earlier).expect("it was listed");
            let (there, gone): (Vec<_>, Vec<_>) =
                session.marked.iter().copied().partition(|(uid, _)| seen.contains(uid));
            if gone.is_empty() {
                self.counts.cut_undone += 1;
            } else if !there.is_empty() {
                let words = format!(
                    "the QUIT of session {earlier} of {name} was not answered, and {} of the {} messages it had marked are gone",
                    gone.len(),
                    session.marked.len()
                );
                self.violation(Kind::Halves, gone[0].1, Some(earlier), words);
            }
            self.bury(number, line, &gone);
        }
        let mailbox = &mut self.boxes[number as usize];
        // What other sessions are about to delete may be there or not.
        let limbo: HashSet<u64> =
            mailbox.sessions.values().flat_map(|s| s.marked.iter().map(|(uid, _)| *uid)).collect();
        let vanished =
            mailbox.live.extract_if(|uid, live| live.since < opened && !seen.contains(uid) && !limbo.contains(uid));
        for (uid, live) in vanished {
            mailbox.vanished.insert(uid, (live.copy, id));
        }
        for &uid in &seen {
            mailbox.live.entry(uid).or_insert(Live { copy: None, since: line });
        }
        let session = self.session(id, name);
        session.listed = uids.to_vec();
        if session.is_last {
            self.boxes[number as usize].looked = true;
        }
    }

    fn fetched(&mut self, id: u64, name: &str, uid: u64, seq: Option<u64>, whole: bool) {
        self.counts.fetched += 1;
        let number = self.number(name);
        let Some(seq) = seq else {
            self.counts.strangers += 1;
            return;
        };
        let copy = self.copy(seq, name);
        if !whole {
            self.violation(Kind::Torn, Some(copy), Some(id), "a POP3 client was given another body than was sent");
        }
        let session = self.session(id, name);
        let (opened, is_last) = (session.opened, session.is_last);
        let Some(state) = self.copies.get_mut(&copy) else {
            self.violation(
                Kind::Phantom,
                Some(copy),
                Some(id),
                "a POP3 client was given it, and it was never sent to this mailbox",
            );
            return;
        };
        state.bits |= FETCHED | if is_last { SHOWN } else { 0 };
        let (before, gone) = (state.uid, if state.has(DELETED) { state.gone } else { 0 });
        state.uid = uid;
        // Under its own UID that was said when it was listed.
        if gone != 0 && gone < opened && (before != uid || self.gone.remove(&(number, uid)).is_some()) {
            self.violation(Kind::Undead, Some(copy), Some(id), "it was deleted, and is fetched again");
        } else if before != 0 && before != uid {
            if self.session(id, name).listed.contains(&before) {
                self.violation(Kind::Double, Some(copy), Some(id), "one session shows it under two UIDs");
            } else {
                self.boxes[number as usize].vanished.remove(&before);
                self.violation(
                    Kind::Uid,
                    Some(copy),
                    Some(id),
                    format_args!("its UID was {before:016x} and is {uid:016x}"),
                );
            }
        }
        let live = self.boxes[number as usize].live.get_mut(&uid);
        if let Some(other) = live.and_then(|live| live.copy.replace(copy)).filter(|&other| other != copy) {
            let (seq, _) = self.of(other);
            let words = format!("it has the UID {uid:016x}, which message {seq} had");
            self.violation(Kind::Uid, Some(copy), Some(id), words);
        }
    }

    /// The copy that was found, if it is one of this run; what is not whole is a violation. `place` says for people where.
    pub fn found(&mut self, name: &str, place: Place, found: &Found, at: impl fmt::Display) -> Option<Copy> {
        let Some(mark) = found.mark.filter(|mark| mark.run == self.run) else {
            self.counts.strangers += 1;
            return None;
        };
        let copy = self.copy(mark.seq, name);
        if let Some(why) = &found.torn {
            self.violation(Kind::Torn, Some(copy), None, format_args!("{at}: {why}"));
        }
        match self.copies.get_mut(&copy) {
            Some(state) => state.add(place),
            None => {
                self.violation(Kind::Phantom, Some(copy), None, format_args!("{at}: it was never sent to this mailbox"))
            }
        }
        Some(copy)
    }

    /// A file is not as it has to be.
    pub fn malformed(&mut self, words: impl fmt::Display) {
        self.violation(Kind::Malformed, None, None, words);
    }

    /// The end. `has_drops`: the drop files were read; without them what the last look showed is all that is known.
    pub fn close(mut self, has_drops: bool) -> Verdict {
        for number in 0..self.boxes.len() {
            let mailbox = std::mem::take(&mut self.boxes[number]);
            for (copy, session) in mailbox.vanished.values() {
                let name = &self.names[number];
                let words = match copy {
                    Some(_) => String::from("a client has seen it, nobody deleted it, and it is not listed any more"),
                    None => format!("{name} has seen a message that nobody deleted, and it is not listed any more"),
                };
                self.violation(Kind::Lost, *copy, Some(*session), words);
            }
            // Whose end nobody wrote down was cut off too, by our own end.
            for (_, copy) in mailbox.sessions.values().flat_map(|session| &session.marked) {
                if let Some(state) = copy.and_then(|copy| self.copies.get_mut(&copy)) {
                    state.bits |= DOUBT;
                }
            }
            (self.boxes[number].tried, self.boxes[number].looked) = (mailbox.tried, mailbox.looked);
        }
        self.counts.unlooked = self.boxes.iter().filter(|mailbox| mailbox.tried && !mailbox.looked).count() as u64;
        let mut copies: Vec<Copy> = self.copies.keys().copied().collect();
        copies.sort_unstable();
        for copy in copies {
            self.judge(copy, self.copies[&copy], has_drops);
        }
        let mut violations = std::mem::take(&mut self.violations);
        violations.sort_by_key(|violation| violation.kind);
        let open = self.open();
        Verdict { counts: self.counts, violations, by_kind: self.by_kind, open, books: self }
    }

    /// What is missing of a proof.
    fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        if let Some(millis) = self.restless.filter(|_| !self.settled) {
            open.push(format!("after {} s mail was still on its way: see what it waits for", millis / 1000));
        }
        let mut closed: Vec<&str> = Vec::new();
        for (mailbox, name) in self.boxes.iter().zip(&self.names) {
            if mailbox.tried && !mailbox.looked {
                closed.push(name);
            }
        }
        if !closed.is_empty() {
            closed.sort_unstable();
            open.push(format!("at the end nobody could open {}: see what the server says of it", closed.join(", ")));
        }
        if !self.boxes.iter().any(|mailbox| mailbox.tried) {
            open.push("it was cut short, and nobody looked into the mailboxes at its end: run it anew".to_owned());
        }
        open
    }

    /// Nobody waited for the queue.
    fn is_cut_short(&self) -> bool {
        !self.settled && self.restless.is_none()
    }

    fn judge(&mut self, copy: Copy, state: State, has_drops: bool) {
        let Mailbox { looked, tried, .. } = self.boxes[(copy.0 >> SEQ_BITS) as usize];
        let (filed, queued, sunk) = (state.count(Place::Drop), state.count(Place::Queue), state.count(Place::Sink));
        let (shown, deleted) = (state.has(SHOWN), state.has(DELETED));
        let live = match (has_drops, looked) {
            (true, true) if deleted && !shown => 0,
            // Whether the server would show it nobody could ask.
            (true, false) if deleted && (tried || self.keeps_dead) => 0,
            (true, _) => filed,
            (false, _) => u32::from(shown),
        };
        self.counts.dead += u64::from(filed > 0 && live == 0);
        let places = live + queued + sunk;
        let c = &mut self.counts;
        c.copies += 1;
        if state.has(ACKED) {
            c.acked += 1;
            c.in_drops += u64::from(live > 0);
            c.queued += u64::from(queued > 0);
            c.sunk += u64::from(sunk > 0);
            c.deleted += u64::from(deleted && places == 0);
            c.doubtful += u64::from(state.has(DOUBT) && !deleted && places == 0);
        } else if state.has(REFUSED) {
            c.refused += 1;
        } else {
            c.unknown += 1;
            c.unknown_there += u64::from(places > 0 || deleted || state.has(FETCHED));
        }
        let words = || format!("{live} times in the drop, {queued} in the queue, {sunk} in the sink");
        if state.has(REFUSED) && (places > 0 || state.has(FETCHED)) {
            let fetched = if state.has(FETCHED) { ", and a client has fetched it" } else { "" };
            self.violation(Kind::Refused, Some(copy), None, format_args!("refused, and found {}{fetched}", words()));
        } else if filed == 1 && queued == 1 && sunk == 0 && !deleted && self.is_cut_short() {
            // Before the queue's next try its server would look into the drop.
            self.counts.unsettled += 1;
        } else if filed > 1 || !deleted && places > 1 {
            self.violation(
                Kind::Double,
                Some(copy),
                None,
                format_args!("found {}, {filed} times in the file", words()),
            );
        } else if deleted && live > 0 {
            self.violation(
                Kind::Undead,
                Some(copy),
                None,
                format_args!("deleted, QUIT was answered +OK, and found {}", words()),
            );
        } else if deleted && places > 0 {
            self.violation(Kind::Double, Some(copy), None, format_args!("fetched and deleted, and found {}", words()));
        } else if state.has(ACKED) && !deleted && places == 0 && !state.has(DOUBT) {
            let unseen = if has_drops || looked { "" } else { " in what could be read" };
            self.violation(Kind::Lost, Some(copy), None, format_args!("acknowledged, and it is nowhere{unseen}"));
        } else if has_drops && looked && self.settled && live > 0 && !shown {
            self.violation(Kind::Lost, Some(copy), None, "it is in the drop file, and its user was not shown it");
        } else if has_drops && shown && filed == 0 && self.settled {
            self.violation(
                Kind::Lost,
                Some(copy),
                None,
                "its user was shown it at the end, and it is not in the drop file",
            );
        }
    }
}

/// What came of it all.
pub struct Verdict {
    pub counts: Counts,
    /// At most [`KEPT`] of each kind, by kind.
    pub violations: Vec<Violation>,
    /// How many there are of each kind.
    pub by_kind: [u64; Kind::ALL.len()],
    /// Why it is no proof, though nothing may be wrong: a sentence each.
    pub open: Vec<String>,
    /// For the names of copies.
    books: Books,
}

impl Verdict {
    /// Nothing that was found is wrong.
    pub fn is_faultless(&self) -> bool {
        self.by_kind.iter().all(|&count| count == 0)
    }

    /// And all has been looked at.
    pub fn is_clean(&self) -> bool {
        self.is_faultless() && self.open.is_empty()
    }

    /// The message's number, and the mailbox.
    pub fn of(&self, copy: Copy) -> (u64, &str) {
        self.books.of(copy)
    }
}
