//! The statistics files: how a session's line is written and read, and what many lines come to for each user.
//!
//! A file a day, `dpopmmmdd.stats`: `dpopjan01.stats` is the first of January. A line a session, six fields, parted by
//! single blanks:
//!
//! ```text
//! 978307205 978307209 ann 192.0.2.7 41210 3
//! ```
//!
//! | field             | what it is                                                             |
//! |-------------------|------------------------------------------------------------------------|
//! | start, end        | seconds since 1970                                                     |
//! | user              | who logged in; what is no printable ASCII, blanks and `%` are `%XX`    |
//! | from              | the client's name, where it is known, else its address                 |
//! | bytes             | of messages and parts of messages sent, as the client gets them        |
//! | messages          | sent whole                                                             |
//!
//! Files of other programs are read too: there the name of the client may be missing, or have blanks in it. So the first
//! three fields are taken from the front of a line and the last two from its end. A line that is not like this counts as
//! bad, nothing else; so does a last line without its line end, for a number that was cut off is worse than none.
//!
//! [`Tally`] needs 56 bytes and the name for each user, and up to 16 for finding him; nothing for a line.

use std::cmp::{Ordering, Reverse};
use std::hint::black_box;

use memchr::{memchr, memrchr};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::text::number::decimal;
use crate::text::percent;

/// A file that was last written this many seconds before is last year's, and is begun anew.
pub const STALE_SECS: i64 = 300 * 86_400;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The name of the file of a day; `month` and `day` begin at 1.
pub fn file_name(month: u8, day: u8) -> String {
    let month = MONTHS[usize::from(month.clamp(1, 12)) - 1];
    format!("dpop{month}{day:02}.stats")
}

/// Whether a file of some day has this name.
pub fn is_file_name(name: &str) -> bool {
    let day = name.strip_prefix("dpop").and_then(|rest| rest.strip_suffix(".stats"));
    day.and_then(|day| day.split_at_checked(3)).is_some_and(|(month, day)| {
        let number = decimal(day.as_bytes());
        MONTHS.contains(&month) && day.len() == 2 && number.is_some_and(|day| (1..=31).contains(&day))
    })
}

/// A session that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When it began, in seconds since 1970.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Whose it was.
    pub user: String,
    /// Where the client was.
    pub from: String,
    /// Octets of messages sent.
    pub bytes: u64,
    /// Messages sent whole.
    pub messages: u32,
}

impl Visit {
    /// Appends its line. Whatever the names hold, the line has six fields.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut word = |text: &str, end: u8| {
            // An empty field would be none to whoever splits at runs of blanks.
            let text = if text.is_empty() { "-" } else { text };
            out.extend(percent::encode(text.as_bytes()));
            out.push(end);
        };
        word(&self.start.to_string(), b' ');
        word(&self.end.to_string(), b' ');
        word(&self.user, b' ');
        word(&self.from, b' ');
        word(&self.bytes.to_string(), b' ');
        word(&self.messages.to_string(), b'\n');
    }
}

/// A line, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'l> {
    start: u64,
    end: u64,
    user: &'l [u8],
    bytes: u64,
    messages: u64,
}

/// The digits that `text` begins with, and what follows behind the blank after them.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let blank = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let rest = text[blank..].strip_prefix(b" ")?;
    Some((decimal(&text[..blank])?, rest))
}

/// What stands behind the last blank, as a number, and what before it.
fn last_number(text: &[u8]) -> Option<(u64, &[u8])> {
    // Shorter than a search for the blank: it is a few bytes away.
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = text.split_at(text.len() - digits);
    Some((decimal(digits)?, before.strip_suffix(b" ")?))
}

impl Line<'_> {
    fn read(text: &[u8]) -> Option<Line<'_>> {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let (start, rest) = number(text)?;
        let (end, rest) = number(rest)?;
        let (user, rest) = rest.split_at(memchr(b' ', rest)?);
        let (messages, rest) = last_number(rest)?;
        let (bytes, _from) = last_number(rest)?;
        let user = if user.is_empty() { b"-" } else { user };
        if user.len() > NAME_BYTES {
            return None;
        }
        Some(Line { start, end, user, bytes, messages })
    }
}

/// What some lines come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Lines.
    pub connections: u64,
    /// Messages sent whole.
    pub messages: u64,
    /// Bytes of messages sent.
    pub bytes: u64,
    /// Seconds of all connections together.
    pub secs: u64,
    /// The first start.
    pub first: u64,
    /// The last start.
    pub last: u64,
}

impl Sum {
    /// Seconds from one start to the next, on the average; `None` when there was only one.
    pub fn between_secs(&self) -> Option<u64> {
        (self.connections > 1).then(|| (self.last - self.first) / (self.connections - 1))
    }

    fn add(&mut self, other: &Sum) {
        if self.connections == 0 {
            *self = *other;
            return;
        }
        // Sums of numbers from files nobody vouches for: they stop at the top.
        self.connections = self.connections.saturating_add(other.connections);
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.secs = self.secs.saturating_add(other.secs);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// In which order users are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By name.
    User,
    /// Most connections first.
    Connections,
    /// Most messages first.
    Messages,
    /// Most bytes first.
    Bytes,
    /// Longest connected first.
    Secs,
    /// Shortest time between connections first, those with only one connection last.
    Between,
}

impl Key {
    /// All there are, by their names.
    pub const ALL: [(&str, Key); 6] = [
        ("user", Key::User),
        ("connections", Key::Connections),
        ("messages", Key::Messages),
        ("bytes", Key::Bytes),
        ("secs", Key::Secs),
        ("between", Key::Between),
    ];
}

struct User {
    sum: Sum,
    /// Where in `names` his name begins, behind its length in two bytes.
    name: u32,
}

/// Where a user may be found: half of his name's hash, and his index plus one; 0 in an empty place.
type Place = (u32, u32);

/// Lines that are added together.
const BATCH: usize = 64;
/// Names that are longer make a bad line.
const NAME_BYTES: usize = 4096;

/// The sums of all users.
#[derive(Default)]
pub struct Tally {
    users: Vec<User>,
    /// Each name behind its length in two bytes.
    names: Vec<u8>,
    /// A power of two of them, at most three quarters taken; a user stands at or behind the place that his hash says.
    places: Vec<Place>,
    seed: u64,
    read: u64,
    bad: u64,
    first_bad: Option<u64>,
}

impl Tally {
    /// Nothing counted yet. Nobody who chooses names should be able to guess `seed`.
    pub fn new(seed: u64) -> Tally {
        Tally { seed, ..Tally::default() }
    }

    /// Lines read, also bad ones.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Bad lines.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Which of the lines read was the first bad one; the first line is 1.
    pub fn first_bad(&self) -> Option<u64> {
        self.first_bad
    }

    /// How many users there are; their indexes are below it.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// A user's name as it stands in the files, and what his lines come to.
    pub fn user(&self, index: usize) -> (&[u8], Sum) {
        let user = &self.users[index];
        (self.name(user), user.sum)
    }

    /// What all lines come to.
    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.users.iter().for_each(|user| total.add(&user.sum));
        total
    }

    /// The users' indexes, in this order; those that are equal by name.
    pub fn sorted(&self, key: Key) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.users.len() as u32).collect();
        let user = |index: u32| &self.users[index as usize];
        let measure = |index: u32| {
            let sum = &user(index).sum;
            Reverse(match key {
                Key::User => 0,
                Key::Connections => sum.connections,
                Key::Messages => sum.messages,
                Key::Bytes => sum.bytes,
                Key::Secs => sum.secs,
                Key::Between => sum.between_secs().map_or(0, |secs| u64::MAX - secs),
            })
        };
        let by_name = |a: u32, b: u32| self.name(user(a)).cmp(self.name(user(b)));
        order.sort_unstable_by(|&a, &b| match measure(a).cmp(&measure(b)) {
            Ordering::Equal => by_name(a, b),
            unequal => unequal,
        });
        order
    }

    /// Counts the whole lines that `bytes` begin with; gives how many bytes they are.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let whole = memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        let mut rest = &bytes[..whole];
        let mut lines = Vec::with_capacity(BATCH);
        while let Some(end) = memchr(b'\n', rest) {
            match Line::read(&rest[..end]) {
                Some(line) => {
                    self.read += 1;
                    lines.push((line, xxh3_64_with_seed(line.user, self.seed) as u32));
                }
                None => self.reject(),
            }
            if lines.len() == BATCH {
                self.add(&lines);
                lines.clear();
            }
            rest = &rest[end + 1..];
        }
        self.add(&lines);
        whole
    }

    /// A line that cannot be counted: too long, or without its end.
    pub fn reject(&mut self) {
        self.read += 1;
        self.bad += 1;
        self.first_bad.get_or_insert(self.read);
    }

    /// Adds lines that were read. Each needs three places in memory that are seldom in the processor's caches: they are
    /// asked for together, which takes a third of the time.
    fn add(&mut self, lines: &[(Line<'_>, u32)]) {
        if lines.is_empty() {
            return;
        }
        while (self.users.len() + lines.len()) * 4 > self.places.len() * 3 {
            self.grow();
        }
        let mask = self.places.len() - 1;
        let mut likely = [0; BATCH];
        for ((_, hash), index) in lines.iter().zip(&mut likely) {
            *index = self.places[*hash as usize & mask].1 as usize;
        }
        let mut begins = [0; BATCH];
        for (index, begin) in likely.iter().zip(&mut begins).filter(|(index, _)| **index > 0) {
            *begin = self.users[*index - 1].name as usize;
        }
        black_box(begins.iter().fold(0, |all, begin| all ^ self.names.get(*begin).copied().unwrap_or(0)));
        for (line, hash) in lines {
            let Some(index) = self.find(line.user, *hash) else {
                self.read -= 1;
                self.reject();
                continue;
            };
            self.users[index].sum.add(&Sum {
                connections: 1,
                messages: line.messages,
                bytes: line.bytes,
                secs: line.end.saturating_sub(line.start),
                first: line.start,
                last: line.start,
            });
        }
    }

    fn name(&self, user: &User) -> &[u8] {
        let at = user.name as usize;
        let length = usize::from(u16::from_le_bytes([self.names[at], self.names[at + 1]]));
        &self.names[at + 2..at + 2 + length]
    }

    /// The index of a user, who may be new and has a place then. None: all names together are too long.
    fn find(&mut self, name: &[u8], hash: u32) -> Option<usize> {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.places[at] {
                (_, 0) => break,
                (other, index) if other == hash => {
                    let index = index as usize - 1;
                    if self.name(&self.users[index]) == name {
                        return Some(index);
                    }
                }
                _ => {}
            }
            at = (at + 1) & mask;
        }
        let begin = u32::try_from(self.names.len()).ok()?;
        let length = u16::try_from(name.len()).ok()?;
        let index = self.users.len();
        self.places[at] = (hash, u32::try_from(index + 1).ok()?);
        self.names.extend(length.to_le_bytes());
        self.names.extend(name);
        self.users.push(User { sum: Sum::default(), name: begin });
        Some(index)
    }

    fn grow(&mut self) {
        let places = (self.places.len() * 2).max(64);
        let old = std::mem::replace(&mut self.places, vec![(0, 0); places]);
        for place in old.into_iter().filter(|(_, index)| *index > 0) {
            let mut at = place.0 as usize & (places - 1);
            while self.places[at].1 > 0 {
                at = (at + 1) & (places - 1);
            }
            self.places[at] = place;
        }
    }
}

/// A name from a file, fit for a terminal and a table: what is no printable ASCII, and blanks, are `%XX`. Names from our
/// own files are such already and stay what they are.
pub fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_graphic() {
            shown.push(char::from(byte));
        } else {
            shown += &format!("%{byte:02X}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn visit(user: &str, from: &str) -> Visit {
        Visit { start: 100, end: 107, user: user.into(), from: from.into(), bytes: 41_210, messages: 3 }
    }

    fn written(visit: &Visit) -> String {
        let mut line = Vec::new();
        visit.write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_file_has_the_name_of_its_day() {
        assert_eq!(file_name(1, 1), "dpopjan01.stats");
        assert_eq!(file_name(12, 31), "dpopdec31.stats");
        for month in 1..=12 {
            assert!((1..=31).all(|day| is_file_name(&file_name(month, day))));
        }
        for name in
            ["dpopjan1.stats", "dpopjan00.stats", "dpopjan32.stats", "dpopJan01.stats", "jan01.stats", "dpop.log"]
        {
            assert!(!is_file_name(name), "{name}");
        }
        assert!(
            !is_file_name("dpopj\u{e4}n01.stats")
                && !is_file_name("dpopjan01.stats.gz")
                && !is_file_name("dpop\u{e4}.stats")
        );
    }

    #[test]
    fn a_line_has_six_fields_whatever_the_names_hold() {
        assert_eq!(written(&visit("ann", "192.0.2.7")), "100 107 ann 192.0.2.7 41210 3\n");
        assert_eq!(written(&visit("a b", "::1")), "100 107 a%20b ::1 41210 3\n");
        assert_eq!(
            written(&visit("zo\u{eb}@x.test", "host\n1 2 eve")),
            "100 107 zo%C3%AB@x.test host%0A1%202%20eve 41210 3\n"
        );
        assert_eq!(written(&visit("", "")), "100 107 - - 41210 3\n");
    }

    #[test]
    fn lines_of_ours_and_of_others_are_read_and_nonsense_is_not() {
        let line = Line { start: 1, end: 2, user: b"ann", bytes: 5, messages: 6 };
        for text in ["1 2 ann host 5 6", "1 2 ann  5 6", "1 2 ann 5 6", "1 2 ann my own host 5 6", "1 2 ann host 5 6\r"]
        {
            assert_eq!(Line::read(text.as_bytes()), Some(line), "{text:?}");
        }
        assert_eq!(Line::read(b"1 2  host 5 6").unwrap().user, b"-");
        for text in [
            "",
            " ",
            "1",
            "1 2",
            "1 2 ann",
            "1 2 ann host",
            "1 2 ann host 5",
            "1 2 ann host 5 ",
            "1 2 ann host 5 6 ",
            "1 2 ann host 5 -6",
            "1 2 ann host 5  6",
            " 1 2 ann host 5 6",
            "x 2 ann host 5 6",
            "1 x ann host 5 6",
            "1 2 ann host 5 99999999999999999999",
            "99999999999999999999 2 ann host 5 6",
            "1 2 5 6",
        ] {
            assert_eq!(Line::read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn sums_are_told_for_each_user_in_the_order_asked_for() {
        let mut tally = Tally::new(7);
        let text = b"100 105 bob h 10 1\n50 60 ann h 5 5\n400 401 bob h 10 1\nnonsense\n1000 1000 bob h 1 0\n60 50 eve h 100 2\n9 9";
        assert_eq!(tally.feed(text), text.len() - 3);
        assert_eq!((tally.read(), tally.bad(), tally.first_bad(), tally.users()), (6, 1, Some(4), 3));
        tally.reject();
        assert_eq!((tally.read(), tally.bad(), tally.first_bad()), (7, 2, Some(4)));
        let bob = Sum { connections: 3, messages: 2, bytes: 21, secs: 6, first: 100, last: 1000 };
        assert_eq!(tally.user(0), (&b"bob"[..], bob));
        assert_eq!(bob.between_secs(), Some(450));
        assert_eq!(tally.user(1).1.between_secs(), None);
        // A clock that was set back makes no connection shorter than nothing.
        assert_eq!(tally.user(2).1.secs, 0);
        assert_eq!(tally.total(), Sum { connections: 5, messages: 9, bytes: 126, secs: 16, first: 50, last: 1000 });
        let order =
            |key| -> Vec<&[u8]> { tally.sorted(key).into_iter().map(|index| tally.user(index as usize).0).collect() };
        assert_eq!(order(Key::User), [&b"ann"[..], b"bob", b"eve"]);
        assert_eq!(order(Key::Connections), [&b"bob"[..], b"ann", b"eve"]);
        assert_eq!(order(Key::Messages), [&b"ann"[..], b"bob", b"eve"]);
        assert_eq!(order(Key::Bytes), [&b"eve"[..], b"bob", b"ann"]);
        assert_eq!(order(Key::Secs), [&b"ann"[..], b"bob", b"eve"]);
        assert_eq!(order(Key::Between), [&b"bob"[..], b"ann", b"eve"]);
    }

    #[test]
    fn numbers_at_their_most_stop_there() {
        let mut tally = Tally::new(0);
        let line = format!("0 {0} ann h {0} {0}\n", u64::MAX);
        tally.feed(line.repeat(3).as_bytes());
        let sum = tally.user(0).1;
        assert_eq!((sum.bytes, sum.messages, sum.secs, sum.connections), (u64::MAX, u64::MAX, u64::MAX, 3));
    }

    #[test]
    fn a_name_that_is_too_long_is_a_bad_line() {
        let mut tally = Tally::new(0);
        tally.feed(format!("1 2 {} h 3 4\n", "x".repeat(NAME_BYTES)).as_bytes());
        tally.feed(format!("1 2 {} h 3 4\n1 2 x h 3 4\n", "x".repeat(NAME_BYTES + 1)).as_bytes());
        assert_eq!((tally.users(), tally.bad(), tally.first_bad()), (2, 1, Some(2)));
    }

    #[test]
    fn a_user_costs_little() {
        assert!(size_of::<User>() <= 56);
        let mut tally = Tally::new(1);
        for user in 0..10_000 {
            tally.feed(format!("1 2 user{user} h 3 4\n").as_bytes());
        }
        assert!(tally.places.len() * 3 >= tally.users() * 4 && tally.places.len() <= tally.users() * 8 / 3 + 64);
        assert_eq!(tally.names.len(), (0..10_000).map(|user| format!("user{user}").len() + 2).sum::<usize>());
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        assert_eq!(shown(b"ann%20b"), "ann%20b");
        assert_eq!(shown(b"\x1b[2J z\xc3\xab"), "%1B[2J%20z%C3%AB");
    }

    proptest! {
        #[test]
        fn what_is_written_is_counted_as_a_naive_reader_would(
            visits in prop::collection::vec(("\\PC{0,6}", "\\PC{0,6}", 0..1_000_000u64, 0..5_000u64, any::<u32>(), 0..200u32), 0..80),
            cut in 1..200usize
        ) {
            let (mut text, mut naive) = (Vec::new(), BTreeMap::<String, (u64, u64, u64)>::new());
            for (user, from, start, secs, bytes, messages) in &visits {
                let visit = Visit {
                    start: *start, end: start + secs, user: user.clone(), from: from.clone(),
                    bytes: u64::from(*bytes), messages: *messages,
                };
                visit.write(&mut text);
            }
            for line in String::from_utf8(text.clone()).unwrap().lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                prop_assert_eq!(fields.len(), 6);
                prop_assert!(fields.iter().all(|field| !field.is_empty()));
                let sum = naive.entry(fields[2].to_owned()).or_default();
                sum.0 += 1;
                sum.1 += fields[4].parse::<u64>().unwrap();
                sum.2 += fields[1].parse::<u64>().unwrap() - fields[0].parse::<u64>().unwrap();
            }
            // In pieces, as a file is read.
            let mut tally = Tally::new(3);
            let mut held = Vec::new();
            for piece in text.chunks(cut) {
                held.extend_from_slice(piece);
                let used = tally.feed(&held);
                held.drain(..used);
            }
            prop_assert!(held.is_empty() && tally.bad() == 0);
            let counted: Vec<(String, (u64, u64, u64))> = tally.sorted(Key::User).into_iter().map(|index| {
                let (name, sum) = tally.user(index as usize);
                (String::from_utf8(name.to_vec()).unwrap(), (sum.connections, sum.bytes, sum.secs))
            }).collect();
            prop_assert_eq!(counted, naive.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut tally = Tally::new(0);
            tally.feed(&bytes);
            prop_assert_eq!(tally.read(), memchr::memchr_iter(b'\n', &bytes).count() as u64);
        }
    }
}
