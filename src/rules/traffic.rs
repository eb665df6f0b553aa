//! The statistics of messages: how what became of a message is written and read, and what many lines come to.
//!
//! A file a day, `dmDDMM.log`: `dm3112.log` is the last of December. A line says one thing about one message and some of
//! its recipients; six fields, parted by single blanks:
//!
//! ```text
//! 1767258000 sent k3J9x0Qw2b 18230 ann@example.com bob@example.com,eve@other.test
//! ```
//!
//! | field      | what it is                                                                             |
//! |------------|----------------------------------------------------------------------------------------|
//! | second     | since 1970, when it happened                                                           |
//! | class      | a [`Class`]: what happened                                                             |
//! | id         | the message's id, as the log has it                                                    |
//! | bytes      | of the message                                                                         |
//! | sender     | of the envelope; `-` = nobody: a bounce                                                |
//! | recipients | those whom it is about, after aliases and forward lines, commas between them           |
//!
//! | class   | what happened                                       | counts for the sender | counts for each recipient |
//! |---------|-----------------------------------------------------|-----------------------|---------------------------|
//! | `sent`  | the message was accepted                            | one message           | one message               |
//! | `sent+` | the same message, recipients the line had no room for | nothing             | one message               |
//! | `recv`  | it was put into the drops of these recipients, or given to their programs | one message a recipient | one message |
//! | `delv`  | it was transferred: another server took it for these recipients | one message a recipient | one message |
//! | `fail`  | it was given up for these recipients                | one message a recipient | one message             |
//!
//! In a name, what is no printable ASCII, blanks, commas and `%` are `%XX`. A line has at most [`LINE_BYTES`]. One that is
//! not like this counts as bad, nothing else; so does a last line without its line end.
//!
//! Reading takes two passes. The first ([`Ranking`]) finds who comes first and keeps, of each name, the name and one number;
//! the second ([`Traffic`]) counts everything for those few, and for all together. Who wants all names counted has 270 bytes
//! of each.

use std::cmp::Reverse;
use std::fmt;

use memchr::{memchr, memchr_iter, memrchr};

use super::interner::Interner;
use crate::text::number::decimal;
use crate::text::percent;

pub mod frame;

/// A line's bytes, with its end. More recipients than fit are in lines of their own.
pub const LINE_BYTES: usize = 8 * 1024;
/// A name that is longer is cut where it is written: no address is.
const NAME_BYTES: usize = 512;

/// The name of the file of a day; both begin at 1.
pub fn file_name(month: u8, day: u8) -> String {
    format!("dm{day:02}{month:02}.log")
}

/// What is counted of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Accepted.
    Sent,
    /// Put into a drop here.
    Received,
    /// Transferred: another server has it.
    Transferred,
    /// Given up.
    Failed,
}

impl Class {
    /// All, with their names in files and options.
    pub const ALL: [(&'static str, Class); 4] =
        [("sent", Class::Sent), ("recv", Class::Received), ("delv", Class::Transferred), ("fail", Class::Failed)];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Class::ALL[*self as usize].0)
    }
}

/// Something that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in seconds since 1970.
    pub second: u64,
    /// What.
    pub class: Class,
    /// Which message.
    pub id: String,
    /// How large it is.
    pub bytes: u64,
    /// Its sender; empty = nobody.
    pub from: String,
    /// Whom it is about.
    pub to: Vec<String>,
}

impl Record {
    /// Appends its line, or lines.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut rest = &self.to[..];
        let mut first = true;
        while first || !rest.is_empty() {
            let begin = out.len();
            let more = if self.class == Class::Sent && !first { "+" } else { "" };
            out.extend(format!("{} {}{more} ", self.second, self.class).bytes());
            word(&self.id, out);
            out.extend(format!(" {} ", self.bytes).bytes());
            word(&self.from, out);
            let mut parted = b' ';
            loop {
                out.push(parted);
                parted = b',';
                match rest.split_first() {
                    Some((name, others)) => {
                        word(name, out);
                        rest = others;
                    }
                    None => word("", out),
                }
                // A name has at most three bytes for each of its own.
                let room = LINE_BYTES - (out.len() - begin).min(LINE_BYTES);
                if rest.is_empty() || room < 2 + 3 * NAME_BYTES {
                    break;
                }
            }
            out.push(b'\n');
            first = false;
        }
    }
}

fn word(text: &str, out: &mut Vec<u8>) {
    let bytes = &text.as_bytes()[..text.len().min(NAME_BYTES)];
    if bytes.is_empty() {
        // An empty field would be none to whoever splits at runs of blanks.
        out.push(b'-');
    }
    out.extend(percent::encode_where(bytes, |byte| !byte.is_ascii_graphic() || byte == b','));
}

/// A line, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'l> {
    second: u64,
    class: Class,
    /// Messages that it counts for its sender.
    messages: u32,
    bytes: u64,
    from: &'l [u8],
    to: &'l [u8],
}

impl Line<'_> {
    fn read(text: &[u8]) -> Option<Line<'_>> {
        if text.len() >= LINE_BYTES {
            return None;
        }
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let (second, rest) = field(text)?;
        let (kind, rest) = field(rest)?;
        let (_id, rest) = field(rest)?;
        let (bytes, rest) = field(rest)?;
        let (from, to) = field(rest)?;
        if from.is_empty() || to.is_empty() || memchr(b' ', to).is_some() {
            return None;
        }
        let (kind, goes_on) = kind.strip_suffix(b"+").map_or((kind, false), |kind| (kind, true));
        let (_, class) = Class::ALL.into_iter().find(|(name, _)| name.as_bytes() == kind)?;
        let messages = match (class, goes_on) {
            (Class::Sent, false) => 1,
            (Class::Sent, true) => 0,
            (_, true) => return None,
            (_, false) => 1 + u32::try_from(memchr_iter(b',', to).count()).ok()?,
        };
        Some(Line { second: decimal(second)?, class, messages, bytes: decimal(bytes)?, from, to })
    }
}

/// What stands before the first blank, and what behind it.
fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (field, rest) = text.split_at(memchr(b' ', text)?);
    Some((field, &rest[1..]))
}

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Domains.
    Domain,
    /// Addresses.
    User,
}

/// Whose domain or address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The sender's.
    Sender,
    /// A recipient's.
    Receiver,
}

/// A number that names are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Of what happened.
    pub class: Class,
    /// Its bytes, not its messages.
    pub bytes: bool,
}

impl Key {
    /// The key of this name: a class, or one behind a `b`.
    pub fn named(name: &str) -> Option<Key> {
        let class = |name: &str| Class::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, class)| class);
        let bytes = |name: &str| Some(Key { class: class(name.strip_prefix('b')?)?, bytes: true });
        class(name).map(|class| Key { class, bytes: false }).or_else(|| bytes(name))
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What is told apart.
    pub by: By,
    /// Whose.
    pub role: Role,
    /// The first second that counts.
    pub from: u64,
    /// The first that does not any more.
    pub to: u64,
    /// Seconds of a window for peaks; not 0.
    pub window: u64,
    /// What names are ordered by.
    pub key: Key,
}

impl Question {
    /// The line, if it is one and of the time that is asked about; an error for a bad one.
    fn line<'l>(&self, text: &'l [u8]) -> Result<Option<Line<'l>>, ()> {
        let line = Line::read(text).ok_or(())?;
        Ok(Some(line).filter(|line| (self.from..self.to).contains(&line.second)))
    }

    /// Calls for each name that a line counts for, with how many messages.
    fn names<'l>(&self, line: &Line<'l>, low: &mut Vec<u8>, mut count: impl FnMut(&[u8], u32)) {
        let mut one = |name: &'l [u8], messages: u32| {
            if messages > 0 {
                low.clear();
                low.extend_from_slice(self.part(name));
                low.make_ascii_lowercase();
                count(low, messages);
            }
        };
        match self.role {
            Role::Sender => one(line.from, line.messages),
            Role::Receiver => line.to.split(|&byte| byte == b',').for_each(|name| one(name, 1)),
        }
    }

    /// The domain of an address, or the address; what has no domain is its own.
    fn part<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        match (self.by, memrchr(b'@', name)) {
            (By::Domain, Some(at)) if at + 1 < name.len() => &name[at + 1..],
            _ => name,
        }
    }
}

/// How many lines were read, and how many were bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All.
    pub read: u64,
    /// Bad ones.
    pub bad: u64,
    /// Which was the first bad one; the first line is 1.
    pub first_bad: Option<u64>,
}

impl Lines {
    /// A line that cannot be counted.
    pub fn reject(&mut self) {
        self.read += 1;
        self.bad += 1;
        self.first_bad.get_or_insert(self.read);
    }

    /// Hands on the lines that `bytes` begin with; gives how many bytes they are.
    fn feed(&mut self, bytes: &[u8], question: &Question, mut work: impl FnMut(Line<'_>)) -> usize {
        let whole = memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        let mut rest = &bytes[..whole];
        while let Some(end) = memchr(b'\n', rest) {
            match question.line(&rest[..end]) {
                Ok(line) => {
                    self.read += 1;
                    line.into_iter().for_each(&mut work);
                }
                Err(()) => self.reject(),
            }
            rest = &rest[end + 1..];
        }
        whole
    }
}

/// The first pass: who comes first.
pub struct Ranking {
    question: Question,
    interner: Interner,
    /// Of each name: where it stands, and the number that names are ordered by.
    names: Vec<(u32, u64)>,
    /// What was read.
    pub lines: Lines,
    low: Vec<u8>,
}

impl Ranking {
    /// Nothing read yet. Nobody who chooses names should be able to guess `seed`.
    pub fn new(question: Question, seed: u64) -> Ranking {
        let interner = Interner::new(seed);
        Ranking { question, interner, names: Vec::new(), lines: Lines::default(), low: Vec::new() }
    }

    /// Counts the whole lines that `bytes` begin with; gives how many bytes they are.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let Ranking { question, interner, names, lines, low } = self;
        let question = *question;
        lines.feed(bytes, &question, |line| {
            // Who only has lines of other classes is a name too.
            let counts = line.class == question.key.class;
            question.names(&line, low, |name, messages| {
                let value = match (counts, question.key.bytes) {
                    (false, _) => 0,
                    (true, false) => u64::from(messages),
                    (true, true) => line.bytes.saturating_mul(u64::from(messages)),
                };
                if let Some(index) = interner.index(name, names.len(), |index| names[index].0) {
                    if let Err(begin) = index {
                        names.push((begin, 0));
                    }
                    let index = index.unwrap_or(names.len() - 1);
                    names[index].1 = names[index].1.saturating_add(value);
                }
            });
        })
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// The first of them, in their order; those that are equal by name.
    pub fn first(self, most: usize) -> Vec<Vec<u8>> {
        let Ranking { interner, mut names, .. } = self;
        let place = |&(begin, value): &(u32, u64)| (Reverse(value), interner.name(begin).to_vec());
        if most == 0 {
            return Vec::new();
        }
        if most < names.len() {
            names.select_nth_unstable_by(most - 1, |a, b| place(a).cmp(&place(b)));
            names.truncate(most);
        }
        names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| interner.name(a.0).cmp(interner.name(b.0))));
        names.into_iter().map(|(begin, _)| interner.name(begin).to_vec()).collect()
    }
}

/// Messages, and bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The most in one window, and the window's first second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Messages, or bytes.
    pub most: u64,
    /// When that was; 0 when nothing was.
    pub from: u64,
}

/// What one class comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// In all.
    pub total: Amount,
    now: Amount,
    /// Most messages in a window.
    pub messages: Peak,
    /// Most bytes in a window.
    pub bytes: Peak,
}

impl Sum {
    fn add(&mut self, messages: u32, bytes: u64) {
        // Sums of numbers from files nobody vouches for: they stop at the top.
        let bytes = bytes.saturating_mul(u64::from(messages));
        for amount in [&mut self.total, &mut self.now] {
            amount.messages = amount.messages.saturating_add(u64::from(messages));
            amount.bytes = amount.bytes.saturating_add(bytes);
        }
    }

    /// The window that began at `from` is over.
    fn close(&mut self, from: u64) {
        let now = std::mem::take(&mut self.now);
        for (peak, most) in [(&mut self.messages, now.messages), (&mut self.bytes, now.bytes)] {
            if most > peak.most {
                *peak = Peak { most, from };
            }
        }
    }
}

/// What somebody's lines come to: of each class, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// A sum a class.
    pub classes: [Sum; 4],
    /// Which window is being counted.
    window: u64,
}

impl Sums {
    /// Lines of one file are in the order of their time but for the few seconds that a clock was set back: those count for
    /// a window of their own.
    fn add(&mut self, line: &Line<'_>, messages: u32, question: &Question) {
        let window = line.second / question.window;
        if window != self.window {
            self.close(question);
            self.window = window;
        }
        self.classes[line.class as usize].add(messages, line.bytes);
    }

    fn close(&mut self, question: &Question) {
        let from = self.window.saturating_mul(question.window);
        self.classes.iter_mut().for_each(|sum| sum.close(from));
    }
}

/// The second pass: everything about those who come first, and about all together.
pub struct Traffic {
    question: Question,
    interner: Interner,
    begins: Vec<u32>,
    sums: Vec<Sums>,
    total: Sums,
    /// What was read.
    pub lines: Lines,
    low: Vec<u8>,
}

impl Traffic {
    /// Nothing read yet; `names` are those that are told apart.
    pub fn new(question: Question, seed: u64, names: &[Vec<u8>]) -> Traffic {
        let mut interner = Interner::new(seed);
        let mut begins: Vec<u32> = Vec::with_capacity(names.len());
        for name in names {
            if let Some(Err(begin)) = interner.index(name, begins.len(), |index| begins[index]) {
                begins.push(begin);
            }
        }
        let sums = vec![Sums::default(); begins.len()];
        let (total, lines) = (Sums::default(), Lines::default());
        Traffic { question, interner, begins, sums, total, lines, low: Vec::new() }
    }

    /// Counts the whole lines that `bytes` begin with; gives how many bytes they are.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let Traffic { question, interner, begins, sums, total, lines, low } = self;
        let question = *question;
        lines.feed(bytes, &question, |line| {
            if begins.is_empty() {
                // Nobody is told apart: then no name is looked at.
                let messages = match question.role {
                    Role::Sender => line.messages,
                    Role::Receiver => memchr_iter(b',', line.to).count() as u32 + 1,
                };
                total.add(&line, messages, &question);
                return;
            }
            let mut all = 0u32;
            question.names(&line, low, |name, messages| {
                all = all.saturating_add(messages);
                if let Some(index) = interner.find(name, |index| begins[index]) {
                    sums[index].add(&line, messages, &question);
                }
            });
            total.add(&line, all, &question);
        })
    }

    /// What was counted, for each name in the order in which they were given, and for all together.
    pub fn finish(mut self) -> (Vec<(Vec<u8>, Sums)>, Sums) {
        let question = self.question;
        self.sums.iter_mut().chain([&mut self.total]).for_each(|sums| sums.close(&question));
        let named = self.begins.iter().map(|&begin| self.interner.name(begin).to_vec());
        (named.zip(self.sums).collect(), self.total)
    }
}

#[cfg(test)]
mod tests;
