//! The mbox scanner: file bytes in, in any cuts, one [`Extent`] a message out.
//!
//! ```text
//! From ann@example.org Mon Jan  5 10:00:00 2026     the From_ line: from_bytes
//! Subject: tea                                      the text: text_bytes in the file,
//!                                                             octets on the wire
//! At five?
//!                                                   the blank line before the next: trail_bytes
//! From bob ...
//! ```
//!
//! | place    | what a line start means                                                            |
//! |----------|------------------------------------------------------------------------------------|
//! | Preamble | bytes before the first From_ line: kept, shown to nobody                           |
//! | Header   | a blank line ends it; notes (`Status:` ...) are text but not identity              |
//! | Body     | after a blank line, a From_ line with a date ([`is_from_line`]) begins the next one |
//!
//! Extents are in file order and do not overlap: each begins where the last one ended; the last ends at the file's end. The
//! blank line that ends a header belongs to the text even when a From_ line follows at once. Line ends are LF or
//! CRLF, mixed as they come; a bare CR ends no line, a NUL is a byte like any other. No line is gathered whole: what is
//! held back between two feeds never exceeds [`FROM_LINE_BYTES`].

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};
use xxhash_rust::xxh3::xxh3_64;

use super::identity::{TextHash, is_note, may_begin_note};
use ends::Ends;

mod ends;

/// Longest From_ line with its line end; a longer line separates nothing. qpopper stops at 1,023 too, and no address
/// that SMTP can carry comes near.
pub const FROM_LINE_BYTES: usize = 1024;

/// How much of a header line decides what it is: the longest name we know, blanks, and the flags of a `Status:`.
const HEAD_BYTES: usize = 64;

/// Where one message stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Of the From_ line, from the file's start.
    pub offset: u64,
    /// The From_ line with its line end.
    pub from_bytes: u32,
    /// [`from_check`] of that line.
    pub from_check: u32,
    /// Header and body as they stand in the file, without the blank line before the next From_ line.
    pub text_bytes: u64,
    /// That blank line: 0, 1 or 2 bytes.
    pub trail_bytes: u8,
    /// What RETR sends for the text, before dots are doubled and without the last line: line ends as CRLF, a missing
    /// last one added.
    pub octets: u64,
    /// Of the text, as [`identity`](super::identity) says.
    pub hash: u128,
    /// A `Status:` header holds an R.
    pub read: bool,
    /// Every line end is CRLF and the last one is there: octets and file bytes are the same.
    pub verbatim: bool,
    /// A `Status:` line could be put before the text: its header has none, and its first line continues no other.
    pub takes_status: bool,
}

impl Extent {
    /// Where the text begins.
    pub fn text(&self) -> u64 {
        self.offset + u64::from(self.from_bytes)
    }

    /// Where the next message begins.
    pub fn end(&self) -> u64 {
        self.text() + self.text_bytes + u64::from(self.trail_bytes)
    }
}

/// What is remembered of a From_ line, to see later whether it still stands there: 32 bits over the line without its line end.
pub fn from_check(line: &[u8]) -> u32 {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    xxh3_64(line) as u32
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    Header,
    Body,
}

enum Judged {
    /// The line is a From_ line of that many bytes.
    Yes(usize),
    No,
    /// More bytes decide.
    Open,
}

/// Finds the messages of one mbox file. Feed it the file from its start, or from any From_ line, then [`finish`](Scanner::finish).
pub struct Scanner {
    /// Of the window that is being looked at.
    ends: Ends,
    /// Bytes fed but not decided. Never more than `FROM_LINE_BYTES`.
    carry: Vec<u8>,
    /// Where in the file the first undecided byte stands.
    offset: u64,
    place: Place,
    /// The next undecided byte begins a line.
    line_start: bool,
    /// The header being read is a note.
    note: bool,
    hash: TextHash,
    /// The message being read; its sizes count what was decided so far.
    current: Extent,
    /// Something of its body was decided.
    in_body: bool,
    /// LFs without a CR before them.
    bare_ends: u64,
    /// The last three bytes before the undecided ones; a line end stands for the From_ line.
    tail: [u8; 3],
}

impl Scanner {
    /// For bytes that stand `offset` into their file.
    pub fn new(offset: u64) -> Scanner {
        Scanner {
            ends: Ends::default(),
            carry: Vec::new(),
            offset,
            place: Place::Preamble,
            line_start: true,
            note: false,
            hash: TextHash::default(),
            current: Extent {
                offset,
                from_bytes: 0,
                from_check: 0,
                text_bytes: 0,
                trail_bytes: 0,
                octets: 0,
                hash: 0,
                read: false,
                verbatim: false,
                takes_status: false,
            },
            in_body: false,
            bare_ends: 0,
            tail: *b"\0\0\n",
        }
    }

    /// The next bytes of the file. `found` hears of every message that is complete.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Extent)) {
        while !self.carry.is_empty() && !bytes.is_empty() {
            // What is undecided is at most FROM_LINE_BYTES: with that much more it is decided.
            let mut window = std::mem::take(&mut self.carry);
            let held = window.len();
            let some = bytes.len().min(FROM_LINE_BYTES);
            window.extend_from_slice(&bytes[..some]);
            let taken = self.advance(&window, false, found);
            if taken >= held {
                bytes = &bytes[taken - held..];
            } else {
                window.drain(..taken);
                self.carry = window;
                bytes = &bytes[some..];
            }
        }
        if !bytes.is_empty() {
            let taken = self.advance(bytes, false, found);
            self.carry.extend_from_slice(&bytes[taken..]);
        }
        debug_assert!(self.carry.len() <= FROM_LINE_BYTES, "the scanner holds back {} bytes", self.carry.len());
    }

    /// The file ends here. `found` hears of the last message.
    pub fn finish(mut self, found: &mut impl FnMut(Extent)) {
        let rest = std::mem::take(&mut self.carry);
        let taken = self.advance(&rest, true, found);
        debug_assert_eq!(taken, rest.len(), "at the end everything is decided");
        self.close(&[], 0..0, found);
    }

    /// Decides as much of `window` as can be, and says how much that was. With `last` that is all of it.
    fn advance(&mut self, window: &[u8], last: bool, found: &mut impl FnMut(Extent)) -> usize {
        self.ends.find(window);
        // Bytes from `run` to `at` are decided, alike in being a note or not, and not yet absorbed: a whole message at once
        // costs little more than its bytes.
        let (mut run, mut at) = (0, 0);
        while at < window.len() {
            if self.place == Place::Header {
                let (next, decided) = self.header(window, &mut run, at, last);
                at = next;
                if !decided {
                    break;
                }
                continue;
            }
            if self.line_start && (self.place == Place::Preamble || blank_bytes(self.tail_of(&window[run..at])) > 0) {
                match judge(&window[at..], last) {
                    Judged::Open => break,
                    Judged::No => {}
                    Judged::Yes(length) => {
                        self.close(window, run..at, found);
                        self.begin(&window[at..at + length]);
                        at += length;
                        run = at;
                        continue;
                    }
                }
            }
            let end = match self.next_from(window, at) {
                Some(from) => from,
                None if last => window.len(),
                None => decided(window, at),
            };
            if end == at {
                break;
            }
            if self.place == Place::Body {
                self.in_body = true;
            } else {
                self.offset += (end - at) as u64;
                run = end;
            }
            self.line_start = window[end - 1] == b'\n';
            at = end;
        }
        self.absorb(window, run..at);
        at
    }

    /// Behind `at`, the start of a line that begins like a From_ line; one that is no From_ line wherever it stands is not worth
    /// mentioning.
    fn next_from(&self, window: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let end = match self.place {
                Place::Body => self.ends.next_pair(at, [self.tail[1], self.tail[2]])?,
                _ => self.ends.next(at)?,
            };
            at = end + 1;
            if window[at..].starts_with(b"From ") {
                return Some(at);
            }
        }
    }

    /// Goes on in a header at `at`: where it stopped, and whether everything up to there was decided because the header or
    /// the window ended (else the caller must come back with more).
    fn header(&mut self, window: &[u8], run: &mut usize, mut at: usize, last: bool) -> (usize, bool) {
        while at < window.len() {
            let rest = &window[at..];
            let line_end = self.ends.next(at).map(|end| end - at);
            // Nearly every line: no note, no fold, not blank.
            if let Some(end) = line_end
                && self.line_start
                && !self.note
                && !may_begin_note(rest[0])
                && !matches!(rest[0], b' ' | b'\t' | b'\r' | b'\n')
            {
                at += end + 1;
                continue;
            }
            if self.line_start {
                if line_end.is_none() && rest.len() < HEAD_BYTES && !last {
                    return (at, false);
                }
                let head = &rest[..line_end.unwrap_or(rest.len()).min(HEAD_BYTES)];
                let folded = matches!(head.first(), Some(b' ' | b'\t'));
                let note = if folded { self.note } else { is_note(head) };
                if note != self.note {
                    self.absorb(window, *run..at);
                    *run = at;
                    self.note = note;
                }
                if note && head.len() > 6 && head[..6].eq_ignore_ascii_case(b"status") {
                    self.current.read |= head[6..].contains(&b'R');
                    self.current.takes_status = false;
                }
                if folded && *run == at && self.current.text_bytes == 0 {
                    self.current.takes_status = false;
                }
                if line_end.is_some() && (head.is_empty() || head == b"\r") {
                    self.place = Place::Body;
                    return (at + head.len() + 1, true);
                }
            }
            match line_end {
                Some(end) => {
                    at += end + 1;
                    self.line_start = true;
                }
                None => {
                    at = window.len();
                    // A CR that may yet turn out to be half of a line end waits for the next feed.
                    if !last && rest.ends_with(b"\r") {
                        at -= 1;
                    }
                    self.line_start = false;
                    return (at, at == window.len());
                }
            }
        }
        (at, true)
    }

    /// The last three bytes before the undecided ones, when `run` is not absorbed yet.
    fn tail_of(&self, run: &[u8]) -> [u8; 3] {
        run.last_chunk()
            .copied()
            .unwrap_or_else(|| run.iter().fold(self.tail, |[_, second, third], &byte| [second, third, byte]))
    }

    /// This part of the window is text of the current message, and of its identity unless it is a note. It never ends between
    /// a CR and its LF.
    fn absorb(&mut self, window: &[u8], part: Range<usize>) {
        let (named, run) = (!self.note, &window[part.clone()]);
        let (mut from, mut pairs) = (0, 0);
        if self.ends.may_have_cr(part.start, part.end) {
            for at in memchr_iter(b'\r', run) {
                if run.get(at + 1) == Some(&b'\n') {
                    pairs += 1;
                    if named {
                        self.hash.feed(&run[from..at]);
                    }
                    from = at + 1;
                }
            }
        }
        if named {
            self.hash.feed(&run[from..]);
        }
        self.pass(window, part, pairs);
    }

    /// This part of the window is behind us: `pairs` of its line ends are CRLF.
    fn pass(&mut self, window: &[u8], part: Range<usize>, pairs: u64) {
        self.tail = self.tail_of(&window[part.clone()]);
        self.offset += part.len() as u64;
        self.current.text_bytes += part.len() as u64;
        self.bare_ends += u64::from(self.ends.count(part.start, part.end)) - pairs;
    }

    fn begin(&mut self, line: &[u8]) {
        self.current = Extent {
            offset: self.offset,
            from_bytes: line.len() as u32,
            from_check: from_check(line),
            text_bytes: 0,
            ..self.current
        };
        self.current.read = false;
        self.current.takes_status = true;
        self.offset += line.len() as u64;
        self.place = Place::Header;
        self.line_start = true;
        self.note = false;
        self.in_body = false;
        self.bare_ends = 0;
        self.tail = *b"\0\0\n";
    }

    /// The current message ends with this part of the window.
    fn close(&mut self, window: &[u8], part: Range<usize>, found: &mut impl FnMut(Extent)) {
        if self.place == Place::Preamble {
            return;
        }
        let hash = if !self.note && self.hash.is_empty() && !self.ends.may_have_cr(part.start, part.end) {
            self.pass(window, part.clone(), 0);
            TextHash::of(&window[part])
        } else {
            self.absorb(window, part);
            self.hash.finish()
        };
        let mut extent = self.current;
        extent.octets = extent.text_bytes + self.bare_ends;
        extent.trail_bytes = if self.in_body { blank_bytes(self.tail) } else { 0 };
        if extent.trail_bytes > 0 {
            extent.text_bytes -= u64::from(extent.trail_bytes);
            extent.octets -= 2;
        } else if extent.text_bytes > 0 && self.tail[2] != b'\n' {
            extent.octets += 2;
        }
        extent.verbatim = extent.octets == extent.text_bytes;
        extent.hash = hash;
        found(extent);
    }
}

/// How many bytes the blank line has that ended last; 0 when it was not blank.
fn blank_bytes(tail: [u8; 3]) -> u8 {
    match tail {
        [_, b'\n', b'\n'] => 1,
        [b'\n', b'\r', b'\n'] => 2,
        _ => 0,
    }
}

/// Up to where a body without a From_ line in sight can be taken: not a CR that may be half of a line end, not what may
/// become the start of a From_ line.
fn decided(window: &[u8], at: usize) -> usize {
    let length = window.len();
    let look = at.max(length.saturating_sub(5));
    if let Some(hit) = memrchr(b'\n', &window[look..])
        && b"From ".starts_with(&window[look + hit + 1..])
    {
        return look + hit + 1;
    }
    if window[length - 1] == b'\r' { length - 1 } else { length }
}

/// Whether the line at the start of `bytes` is a From_ line.
fn judge(bytes: &[u8], last: bool) -> Judged {
    if bytes.len() < 5 {
        return if b"From ".starts_with(bytes) && !last { Judged::Open } else { Judged::No };
    }
    if !bytes.starts_with(b"From ") {
        return Judged::No;
    }
    let bounded = &bytes[..bytes.len().min(FROM_LINE_BYTES)];
    let (line, length) = match memchr(b'\n', bounded) {
        Some(end) => (&bounded[..end], end + 1),
        None if bytes.len() >= FROM_LINE_BYTES => return Judged::No,
        None if last => (bounded, bounded.len()),
        None => return Judged::Open,
    };
    if is_from_line(line) { Judged::Yes(length) } else { Judged::No }
}

pub(super) const DAYS: &[&[u8; 3]] = &[b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
pub(super) const MONTHS: &[&[u8; 3]] =
    &[b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Whether `line` (without its LF) is `From`, a sender or none, and a date as `ctime` writes it: weekday, month, day, hour and
/// minute, seconds or none, up to two words of zone before the year, anything after it.
pub fn is_from_line(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    if line.last_chunk().is_some_and(is_ctime) {
        return true;
    }
    let among = |word: &[u8], names: &[&[u8; 3]]| names.iter().any(|name| name.eq_ignore_ascii_case(word));
    let words = || rest.split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty());
    let mut from = words();
    loop {
        let mut next = from.clone();
        let Some(word) = from.next() else { return false };
        next.next();
        let day = word.strip_suffix(b",").unwrap_or(word);
        if among(day, DAYS)
            && next.next().is_some_and(|word| among(word, MONTHS))
            && next.next().is_some_and(is_day)
            && next.next().is_some_and(is_time)
            && next.take(3).any(is_year)
        {
            return true;
        }
    }
}

/// Whether it is ` Www Mmm dd hh:mm:ss yyyy`, with which nearly every From_ line ends: a short cut past [`is_from_line`]'s words,
/// and narrower than those.
fn is_ctime(tail: &[u8; 25]) -> bool {
    let name = |at: usize| [tail[at], tail[at + 1], tail[at + 2]];
    // Of a blank and a digit it is the digit.
    let two = |at: usize| (tail[at] & 15) * 10 + (tail[at + 1] & 15);
    let eight = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().expect("eight bytes"));
    const { Shape::of(b"d dd:dd:") }.fits(eight(10))
        && const { Shape::of(b":dd dddd") }.fits(eight(17))
        && (tail[0], tail[4], tail[8]) == (b' ', b' ', b' ')
        && (tail[9] == b' ' || tail[9].is_ascii_digit())
        && DAYS.iter().any(|day| **day == name(1))
        && MONTHS.iter().any(|month| **month == name(5))
        && matches!(two(9), 1..=31)
        && two(12) <= 23
        && two(15) <= 59
        && two(18) <= 61
        && (two(21), two(23)) >= (19, 70)
}

/// Eight bytes that are digits, or certain others.
struct Shape {
    /// The bits that are looked at, and what they have to be.
    mask: u64,
    wanted: u64,
    /// Added to a digit this leaves those bits as they are; not to what follows `9`.
    room: u64,
}

impl Shape {
    /// `d` stands for a digit.
    const fn of(model: &[u8; 8]) -> Shape {
        let (mut mask, mut wanted, mut room) = ([0xff; 8], *model, [0; 8]);
        let mut at = 0;
        while at < 8 {
            if model[at] == b'd' {
                (mask[at], wanted[at], room[at]) = (0xf0, 0x30, 6);
            }
            at += 1;
        }
        Shape { mask: u64::from_le_bytes(mask), wanted: u64::from_le_bytes(wanted), room: u64::from_le_bytes(room) }
    }

    fn fits(&self, bytes: u64) -> bool {
        // Only the first is asked of bytes that might carry into their neighbour.
        bytes & self.mask == self.wanted && (bytes + self.room) & self.mask == self.wanted
    }
}

fn is_day(word: &[u8]) -> bool {
    let word = word.strip_suffix(b",").unwrap_or(word);
    matches!(crate::text::number::decimal(word), Some(1..=31)) && word.len() <= 2
}

fn is_time(word: &[u8]) -> bool {
    let mut parts = word.split(|&b| b == b':');
    let mut part = |most: u64| {
        parts.next().map(|part| part.len() <= 2 && crate::text::number::decimal(part).is_some_and(|n| n <= most))
    };
    let clock = part(23) == Some(true) && part(59) == Some(true) && part(61) != Some(false);
    clock && parts.next().is_none()
}

fn is_year(word: &[u8]) -> bool {
    word.len() == 4 && matches!(crate::text::number::decimal(word), Some(1970..))
}

#[cfg(test)]
mod tests;
