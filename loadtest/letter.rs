//! Letters that can be judged one by one, wherever they are found.
//!
//! ```text
//! Return-Path: <...>                            stored letters only, as a server would have put them there
//! Received: ...
//! X-Loadtest: 8000000000000007 3 0000001874 5d1f0c4fb2a86e93
//! Message-ID: ...                               run and sequence, length of the body, hash of the body
//!
//! some lines that begin with dots, some with >From, some 8-bit, none over 998 bytes
//! ```
//!
//! Whoever has a letter needs nothing else to know whether it is whole: [`verify`], or a [`Check`] that is fed as it arrives and
//! holds no text. What a mail server may do on the way does not count: header lines that it adds, further `>` before a
//! `>From ` at the start of a line, line ends behind the last line. Everything else is damage: a byte changed, cut off or
//! added anywhere in the body, or a stamp that names another letter, since run and sequence seed the hash.
//!
//! The same [`Letter`] makes the same bytes, on every machine. Its [`Text`] is a few lines of its own and a range of one of two
//! blocks of prepared text, so making one costs its header and one pass of the hash; one of 50 MB takes no memory.
//!
//! Nothing is encoded for the wire: bytes have LF ends here.

use std::sync::OnceLock;

use memchr::{memchr, memmem};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use dmail::mail::asctime;

/// The name of the header line that says which letter it is.
const FIELD: &[u8] = b"X-Loadtest: ";
/// What follows it: the run in 16 digits, up to 20 of the sequence, 10 of the length, 16 of the hash, and blanks.
const STAMP_MOST: usize = 16 + 1 + 20 + 1 + 10 + 1 + 16;
/// Bodies at least as large as this are one attachment with a few words before it.
pub const ATTACHMENT_BYTES: u64 = 32 * 1024;
/// The smallest body.
pub const LEAST: u64 = 64;
/// The largest body: its length has to fit into ten digits.
pub const MOST: u64 = 4 << 30;
/// So many recipients are named in the header.
const TO_MOST: usize = 5;
/// So much prepared text of each kind: longer letters repeat it.
const TEXT_BLOCK: usize = 256 * 1024;
const BASE64_BLOCK: usize = 77 * 1024;
/// RFC 5322 has 998 bytes and the line end.
const LINE_MOST: usize = 990;
/// Runs with this bit are accounts of a made spool, those without it are what a run gives to what it sends.
const IN_SPOOL: u64 = 1 << 63;
const FROM: &[u8] = b"From ";
const QUOTES: [u8; 64] = [b'>'; 64];

/// Which letter this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// What the maker calls the run or the batch.
    pub run: u64,
    /// Which one of it.
    pub seq: u64,
}

impl Id {
    /// Letter `number`, counted from 1, of account `index` of a made spool.
    pub fn in_spool(index: u64, number: u64) -> Id {
        Id { run: IN_SPOOL | index, seq: number }
    }

    /// The account whose made drop this letter was in; `None` for a letter that was sent.
    pub fn account(&self) -> Option<u64> {
        (self.run & IN_SPOOL != 0).then_some(self.run & !IN_SPOOL)
    }

    /// With what the body is hashed, so that a damaged stamp shows.
    fn seed(&self) -> u64 {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&self.run.to_le_bytes());
        both[8..].copy_from_slice(&self.seq.to_le_bytes());
        xxh3_64(&both)
    }
}

/// A letter, not written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which it is.
    pub id: Id,
    /// Whose: a whole address.
    pub from: String,
    /// To whom: whole addresses.
    pub to: Vec<String>,
    /// Bytes of the body, LF line ends; the header comes on top. Between [`LEAST`] and [`MOST`] are made.
    pub bytes: u64,
    /// When it was written: seconds since 1970.
    pub date: i64,
}

/// Whether a letter has already been through a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As a mail program sends it.
    Sent,
    /// As it lies in a drop: with Return-Path and Received lines, and From_ lines quoted.
    Stored,
}

impl Letter {
    /// Writes it. The body is exactly as long as was asked for.
    pub fn text(&self, state: State) -> Text {
        let seed = self.id.seed();
        let bytes = self.bytes.clamp(LEAST, MOST);
        let is_large = bytes >= ATTACHMENT_BYTES;
        let (mut head, stamp_at) = self.header(seed, is_large, state);
        let body_at = head.len();
        let (block, foot) = match is_large {
            true => {
                head.extend_from_slice(OPENING);
                (&blocks().base64[..], CLOSING)
            }
            false => (&blocks().text[..], LAST_LINE),
        };
        let around = (head.len() - body_at + foot.len()) as u64;
        let mut text = Text { head, block, from: line_start(block, seed), block_bytes: bytes - around, foot };
        let mut body = Body::new(seed, bytes);
        body.feed(&text.head[body_at..]);
        text.each_part(|part| body.feed(part));
        body.settle();
        let hash = format!("{bytes:010} {:016x}", body.hash.digest());
        text.head[stamp_at..stamp_at + hash.len()].copy_from_slice(hash.as_bytes());
        text
    }

    /// The header with its blank line, and where in it length and hash have to be written.
    fn header(&self, seed: u64, is_large: bool, state: State) -> (Vec<u8>, usize) {
        use std::io::Write;
        let Letter { id: Id { run, seq }, from, to, date, .. } = self;
        let mut head = Vec::with_capacity(1024);
        let mut put = |text: std::fmt::Arguments<'_>| head.write_fmt(text).expect("a Vec takes all that is written");
        let domain = from.rsplit('@').next().unwrap_or_default();
        if state == State::Stored {
            let first = to.first().map_or("", String::as_str);
            let arrived = rfc5322(date.saturating_add((seed % 90) as i64));
            put(format_args!(
                "Return-Path: <{from}>\nDelivered-To: {first}\nReceived: from mx.{domain} (mx.{domain} [192.0.2.{}])\n\tby \
                 mail.example.com with ESMTPS id {:012x}\n\tfor <{first}>; {arrived}\n",
                seed & 127,
                seed >> 16
            ));
        }
        put(format_args!("X-Loadtest: {run:016x} {seq} "));
        let stamp_at = head.len();
        let mut put = |text: std::fmt::Arguments<'_>| head.write_fmt(text).expect("a Vec takes all that is written");
        let subject = SUBJECTS[(seed >> 32) as usize % SUBJECTS.len()];
        let (name, kind) = match is_large {
            true => ("=?utf-8?Q?Bj=C3=B8rn?=", "multipart/mixed; boundary=\"=_edge_\""),
            false => ("Ann", "text/plain; charset=utf-8"),
        };
        let to = to.iter().take(TO_MOST).map(|to| format!("<{to}>")).collect::<Vec<_>>().join(",\n\t");
        put(format_args!(
            "{:010} {:016x}\nMessage-ID: <{run:x}.{seq}.{seed:x}@{domain}>\nDate: {}\nMIME-Version: 1.0\nUser-Agent: \
             loadtest\nFrom: {name} <{from}>\nTo: {to}\nSubject: {subject}\nContent-Type: {kind}\nContent-Transfer-Encoding: \
             8bit\n\n",
            0,
            0,
            rfc5322(*date)
        ));
        (head, stamp_at)
    }
}

/// What is written in a letter.
#[derive(Debug)]
pub struct Text {
    /// The header, the blank line, and what comes before the block.
    head: Vec<u8>,
    block: &'static [u8],
    /// Where in the block it begins; it goes round.
    from: usize,
    block_bytes: u64,
    foot: &'static [u8],
}

impl Text {
    /// How long it is, with LF ends.
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.foot.len()) as u64 + self.block_bytes
    }

    /// How long it is on the wire, with CRLF ends and before dots are doubled.
    pub fn octets(&self) -> u64 {
        let ends = |part: &[u8]| memchr::memchr_iter(b'\n', part).count() as u64;
        let mut octets = self.bytes() + ends(&self.head);
        self.each_part(|part| octets += ends(part));
        octets
    }

    /// Appends the whole of it.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        self.each_part(|part| out.extend_from_slice(part));
    }

    /// Copies what stands `at` into the letter, as much as there is and fits; 0 at its end.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> usize {
        let (mut at, mut filled) = (at, 0);
        while filled < into.len() {
            let part = self.part_at(at);
            if part.is_empty() {
                break;
            }
            let length = part.len().min(into.len() - filled);
            into[filled..filled + length].copy_from_slice(&part[..length]);
            filled += length;
            at += length as u64;
        }
        filled
    }

    /// What stands at `at`, up to a seam.
    fn part_at(&self, at: u64) -> &[u8] {
        let head = self.head.len() as u64;
        if at < head {
            return &self.head[at as usize..];
        }
        if at < head + self.block_bytes {
            let left = self.block_bytes - (at - head);
            let from = ((self.from as u64 + (at - head)) % self.block.len() as u64) as usize;
            let part = &self.block[from..];
            return &part[..part.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        }
        self.foot.get((at - head - self.block_bytes) as usize..).unwrap_or_default()
    }

    /// Everything behind the head, in order.
    fn each_part(&self, mut each: impl FnMut(&[u8])) {
        let mut at = self.head.len() as u64;
        loop {
            let part = self.part_at(at);
            if part.is_empty() {
                return;
            }
            each(part);
            at += part.len() as u64;
        }
    }
}

/// `Mon, 05 Jan 2026 10:00:00 +0000`.
fn rfc5322(secs: i64) -> String {
    // `Mon Jan  5 10:00:00 2026`
    let when = asctime::written(secs);
    let day = when[8..10].trim_start();
    format!("{}, {day:0>2} {} {} {} +0000", &when[..3], &when[4..7], &when[20..], &when[11..19])
}

const SUBJECTS: &[&str] = &[
    "Lunch?",
    "Re: Your order",
    "Minutes of the meeting",
    "Fwd: pictures",
    "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
    "[announce] A new release",
    "Invoice",
    "Re: Re: tomorrow",
];

/// What an attachment begins with.
const OPENING: &[u8] = b"This is a message of several parts.\n--=_edge_\nContent-Type: text/plain; charset=utf-8\n\nWhat you \
asked for is below.\n\n--=_edge_\nContent-Type: application/octet-stream; name=\"plan.bin\"\nContent-Disposition: attachment\n\
Content-Transfer-Encoding: base64\n\n";
const CLOSING: &[u8] = b"\n--=_edge_--\n";
/// The text before it is cut anywhere, even within a character: this makes a last line of it.
const LAST_LINE: &[u8] = b" --\n";

// ---- the blocks ---------------------------------------------------------------------------------------------------------

/// Prepared text. Each begins at a line start and ends with a line end.
struct Blocks {
    text: Vec<u8>,
    base64: Vec<u8>,
}

fn blocks() -> &'static Blocks {
    static BLOCKS: OnceLock<Blocks> = OnceLock::new();
    BLOCKS.get_or_init(|| Blocks { text: text_block(), base64: base64_block() })
}

/// Where in `block` the line begins that `seed` chooses.
fn line_start(block: &[u8], seed: u64) -> usize {
    let at = (seed % block.len() as u64) as usize;
    memchr(b'\n', &block[at..]).map_or(0, |end| (at + end + 1) % block.len())
}

/// Numbers without end from a first one (SplitMix64): the blocks must never change, whatever becomes of a crate.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }
}

fn text_block() -> Vec<u8> {
    const WORDS: &[&str] = &[
        "the",
        "and",
        "of",
        "to",
        "mail",
        "we",
        "you",
        "From",
        "is",
        "it",
        "that",
        "for",
        "on",
        "with",
        "Wetter",
        "heute",
        "gr\u{fc}n",
        "stra\u{df}e",
        "caf\u{e9}",
        "\u{20ac}40",
        "tea",
        "server",
        "box",
        "=20",
        "...",
        "--",
        "a",
        "letter",
        "tomorrow",
        "which",
        "answer",
        "somebody",
        "spool",
        "train",
        "house",
        "water",
        "morning",
        "nothing",
        "question",
    ];
    let mut numbers = Numbers(1996);
    let mut text = Vec::with_capacity(TEXT_BLOCK + LINE_MOST + 1);
    while text.len() < TEXT_BLOCK {
        let begins = text.len();
        let most = match numbers.below(80) {
            // Long lines, up to what is allowed.
            0 => 79 + numbers.below(LINE_MOST - 100),
            // Between paragraphs.
            1..=9 => 0,
            _ => 40 + numbers.below(36),
        };
        match numbers.below(60) {
            0 => text.extend_from_slice(b"."),
            1 => text.extend_from_slice(b".."),
            2 => text.extend_from_slice(b">From here on "),
            3 => text.extend_from_slice(b"> "),
            _ => {}
        }
        while text.len() - begins < most {
            // The first word of a line is never a From that a drop would have to quote.
            let word = WORDS[numbers.below(WORDS.len())];
            let word = if text.len() == begins && word == "From" { "from" } else { word };
            text.extend_from_slice(word.as_bytes());
            text.push(b' ');
        }
        text.truncate(text.trim_ascii_end().len().max(begins));
        text.push(b'\n');
    }
    text
}

fn base64_block() -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut numbers = Numbers(1982);
    let of_line = |at: usize| at % 77;
    (0..BASE64_BLOCK).map(|at| if of_line(at) == 76 { b'\n' } else { DIGITS[numbers.below(64)] }).collect()
}

// ---- the check ----------------------------------------------------------------------------------------------------------

/// What an X-Loadtest line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which letter.
    pub id: Id,
    /// How long its body is.
    pub bytes: u64,
    /// What that body hashes to.
    pub hash: u64,
}

/// What a letter turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// That letter, every byte of it.
    Whole(Mark),
    /// It says that it is that letter, and is not, or not all of it.
    Damaged(Mark, Damage),
    /// No letter of ours: it has no stamp, or none that can be read.
    Foreign,
}

/// What is wrong with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// So many bytes of its body are missing at the end, or it has so many fewer.
    Short(u64),
    /// Something follows its last line that is not a line end.
    Long,
    /// It has the right length and other bytes, or another letter's stamp.
    Changed,
}

/// Judges one whole message: header and body with LF ends, without a From_ line.
pub fn verify(message: &[u8]) -> Verdict {
    let mut check = Check::default();
    check.feed(message);
    check.finish()
}

/// The same for a message that comes in pieces. Memory does not depend on the message.
#[derive(Default)]
pub struct Check {
    line: Line,
    body: Option<(Mark, Box<Body>)>,
    mark: Option<Mark>,
    is_foreign: bool,
}

/// The beginning of a header line.
struct Line {
    bytes: [u8; FIELD.len() + STAMP_MOST],
    /// How long the line is so far, which may be more than is kept.
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; FIELD.len() + STAMP_MOST], length: 0 }
    }
}

impl Check {
    /// The next bytes of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.body.is_none() && !self.is_foreign {
            let end = memchr(b'\n', bytes);
            self.line.push(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
            self.header_line();
        }
        if let Some((_, body)) = &mut self.body {
            body.feed(bytes);
        }
    }

    /// The message is over.
    pub fn finish(mut self) -> Verdict {
        if self.body.is_none() {
            // It ended within its header: of its body nothing is there.
            self.header_line();
            return match self.mark {
                Some(mark) if !self.is_foreign => Verdict::Damaged(mark, Damage::Short(mark.bytes)),
                _ => Verdict::Foreign,
            };
        }
        let Some((mark, mut body)) = self.body else { return Verdict::Foreign };
        body.settle();
        let damage = match () {
            () if body.fed < mark.bytes => Some(Damage::Short(mark.bytes - body.fed)),
            () if body.hash.digest() != mark.hash => Some(Damage::Changed),
            () if body.has_more => Some(Damage::Long),
            () => None,
        };
        damage.map_or(Verdict::Whole(mark), |damage| Verdict::Damaged(mark, damage))
    }

    fn header_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.length == 0 {
            match self.mark {
                Some(mark) => self.body = Some((mark, Box::new(Body::new(mark.id.seed(), mark.bytes)))),
                None => self.is_foreign = true,
            }
        } else if line.kept().starts_with(FIELD) && line.length <= line.bytes.len() && self.mark.is_none() {
            self.mark = Mark::parse(&line.kept()[FIELD.len()..]);
            self.is_foreign = self.mark.is_none();
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.len().saturating_sub(self.length);
        let kept = bytes.len().min(room);
        if kept > 0 {
            self.bytes[self.length..self.length + kept].copy_from_slice(&bytes[..kept]);
        }
        self.length += bytes.len();
    }

    fn kept(&self) -> &[u8] {
        &self.bytes[..self.length.min(self.bytes.len())]
    }
}

impl Mark {
    fn parse(text: &[u8]) -> Option<Mark> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let run = u64::from_str_radix(words.next()?, 16).ok()?;
        let seq = words.next()?.parse().ok()?;
        let bytes = words.next()?.parse().ok()?;
        let hash = u64::from_str_radix(words.next()?, 16).ok()?;
        words.next().is_none().then_some(Mark { id: Id { run, seq }, bytes, hash })
    }
}

/// The running hash of a body, as if one `>` stood where several stand before a `From ` at the start of a line.
struct Body {
    hash: Xxh3,
    finder: memmem::Finder<'static>,
    /// So much of it was hashed.
    fed: u64,
    /// So long it should be.
    length: u64,
    /// Something but line ends came behind that.
    has_more: bool,
    /// The next byte begins a line, or continues the `>` and the part of `From ` that one began with.
    at_start: bool,
    held_quotes: u64,
    held_from: usize,
}

impl Body {
    fn new(seed: u64, length: u64) -> Body {
        Body {
            hash: Xxh3::with_seed(seed),
            finder: memmem::Finder::new(b"\n>"),
            fed: 0,
            length,
            has_more: false,
            at_start: true,
            held_quotes: 0,
            held_from: 0,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.at_start {
                at += self.line_start(&bytes[at..]);
                continue;
            }
            let rest = &bytes[at..];
            let length = match self.finder.find(rest) {
                Some(found) => found + 1,
                None => rest.len(),
            };
            self.take(&rest[..length]);
            self.at_start = rest[length - 1] == b'\n';
            at += length;
        }
    }

    /// Takes what may be `>>From `; gives how many bytes that was.
    fn line_start(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'>' && self.held_from == 0 {
                self.held_quotes += 1;
            } else if byte == FROM[self.held_from] {
                self.held_from += 1;
                if self.held_from == FROM.len() {
                    self.held_quotes = self.held_quotes.min(1);
                    self.settle();
                    return at + 1;
                }
            } else {
                self.settle();
                return at;
            }
        }
        bytes.len()
    }

    /// What was held back is text like any other.
    fn settle(&mut self) {
        let (mut quotes, from) = (self.held_quotes, self.held_from);
        (self.held_quotes, self.held_from, self.at_start) = (0, 0, false);
        while quotes > 0 {
            let some = quotes.min(QUOTES.len() as u64);
            self.take(&QUOTES[..some as usize]);
            quotes -= some;
        }
        self.take(&FROM[..from]);
    }

    fn take(&mut self, bytes: &[u8]) {
        let wanted = usize::try_from(self.length - self.fed).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.hash.update(&bytes[..wanted]);
        self.fed += wanted as u64;
        self.has_more |= bytes[wanted..].iter().any(|&byte| byte != b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: Id, bytes: u64) -> Letter {
        let to = vec!["bob@example.com".to_owned()];
        Letter { id, from: "ann@example.org".to_owned(), to, bytes, date: 1_767_610_800 }
    }

    fn whole(id: Id, bytes: u64, state: State) -> Vec<u8> {
        let mut text = Vec::new();
        letter(id, bytes).text(state).push_to(&mut text);
        text
    }

    fn judged(text: &[u8]) -> (Option<Id>, Option<Damage>) {
        match verify(text) {
            Verdict::Whole(mark) => (Some(mark.id), None),
            Verdict::Damaged(mark, damage) => (Some(mark.id), Some(damage)),
            Verdict::Foreign => (None, None),
        }
    }

    #[test]
    fn a_body_is_as_long_as_it_was_asked_for_and_whole() {
        for bytes in [LEAST, 1_000, 1_001, 1_777, 5_000, 32_767, 32_768, 300_000, 1_000_003] {
            for seq in 0..20 {
                let id = Id::in_spool(7, seq);
                assert_eq!(id.account(), Some(7));
                for state in [State::Sent, State::Stored] {
                    let text = whole(id, bytes, state);
                    let body = memmem::find(&text, b"\n\n").unwrap() + 2;
                    assert_eq!((text.len() - body) as u64, bytes);
                    let Verdict::Whole(mark) = verify(&text) else { panic!("{bytes} {seq}: {:?}", verify(&text)) };
                    assert_eq!((mark.id, mark.bytes), (id, bytes));
                }
            }
        }
    }

    #[test]
    fn the_same_letter_makes_the_same_bytes_for_ever() {
        let mut hash = Xxh3::new();
        for (seq, bytes) in [(1, 0), (2, 1_100), (3, 40_000)] {
            hash.update(&whole(Id::in_spool(5, seq), bytes, State::Stored));
        }
        assert_eq!(hash.digest(), GOLDEN, "made spools are compared by their bytes: {:#x}", hash.digest());
    }
    const GOLDEN: u64 = 0x28a2_1508_c067_efdd;

    #[test]
    fn lines_are_what_the_rules_allow_and_what_servers_stumble_over() {
        let text = whole(Id { run: 1, seq: 1 }, 30_000, State::Sent);
        let all = [&text[..], &blocks().text].concat();
        let lines: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
        assert!(lines.iter().all(|line| line.len() <= 998 && !line.starts_with(FROM) && !line.contains(&b'\r')));
        assert!(lines.iter().any(|line| line.starts_with(b".")));
        assert!(lines.iter().any(|line| line.starts_with(b">From ")));
        assert!(lines.iter().any(|line| line.len() > 800));
        assert!(!all.is_ascii() && all.iter().all(|&byte| byte != 0));
    }

    #[test]
    fn what_a_server_may_do_is_no_damage() {
        let id = Id { run: 9, seq: 4 };
        let text = whole(id, 30_000, State::Sent);
        let quoted = replaced(&text, b"\n>From ", b"\n>>>From ");
        assert_ne!(quoted, text);
        let ended = [&text[..], b"\n\n"].concat();
        let received = [b"Received: from a by b;\n\tMon\n", &text[..]].concat();
        for text in [&quoted, &ended, &received] {
            assert_eq!(judged(text), (Some(id), None));
        }
    }

    fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for found in memmem::find_iter(text, from) {
            out.extend_from_slice(&text[at..found]);
            out.extend_from_slice(to);
            at = found + from.len();
        }
        out.extend_from_slice(&text[at..]);
        out
    }

    #[test]
    fn any_other_change_is_damage() {
        let id = Id { run: 0xbee, seq: 17 };
        let text = whole(id, 1_500, State::Sent);
        let body = memmem::find(&text, b"\n\n").unwrap() + 2;
        for at in body..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 0x20;
            assert!(matches!(judged(&changed), (Some(found), Some(_)) if found == id), "{at}");
            let gone = (text.len() - at) as u64;
            assert_eq!(judged(&text[..at]), (Some(id), Some(Damage::Short(gone))));
        }
        let long = [&text[..], b"x\n"].concat();
        assert_eq!(judged(&long), (Some(id), Some(Damage::Long)));
        let unquoted = whole(id, 30_000, State::Sent);
        let unquoted = replaced(&unquoted, b"\n>From ", b"\nFrom ");
        assert!(matches!(judged(&unquoted), (Some(_), Some(Damage::Short(_)))));
        let other = replaced(&text, b"bee 17", b"bee 18");
        assert_eq!(judged(&other), (Some(Id { seq: 18, ..id }), Some(Damage::Changed)));
    }

    #[test]
    fn what_has_no_stamp_is_foreign() {
        for text in [
            "",
            "\n",
            "Subject: a\n\nb\n",
            "Subject: a",
            "X-Loadtest: 1 2\n\n",
            "X-Loadtest: 1 2 3 z\n\nx\n",
            "Subject: a\n\nX-Loadtest: 0000000000000001 1 0000000000 0000000000000000\n\n",
            &format!("X-Loadtest: {}\n\nx", "1".repeat(3000)),
        ] {
            assert_eq!(verify(text.as_bytes()), Verdict::Foreign, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_cut_gives_the_same_verdict(cuts in proptest::collection::vec(1_usize..400, 1..40), harm in 0_usize..9_000) {
            let mut text = whole(Id { run: 3, seq: 1 }, 6_000, State::Sent);
            if let Some(byte) = text.get_mut(harm) {
                *byte = b'>';
            }
            let mut check = Check::default();
            let mut rest = &text[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                check.feed(piece);
                rest = behind;
            }
            proptest::prop_assert_eq!(check.finish(), verify(&text));
        }

        #[test]
        fn it_can_be_read_from_anywhere(at in 0_u64..120_000, length in 0_usize..100_000, bytes in 0_u64..120_000) {
            let letter = letter(Id { run: 3, seq: 1 }, bytes).text(State::Stored);
            let mut text = Vec::new();
            letter.push_to(&mut text);
            proptest::prop_assert_eq!(letter.bytes(), text.len() as u64);
            let ends = text.iter().filter(|&&byte| byte == b'\n').count() as u64;
            proptest::prop_assert_eq!(letter.octets(), text.len() as u64 + ends);
            let mut part = vec![0; length];
            let filled = letter.read_at(at, &mut part);
            let from = (at as usize).min(text.len());
            proptest::prop_assert_eq!(&part[..filled], &text[from..(from + length).min(text.len())]);
        }
    }
}
