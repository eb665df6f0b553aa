//! Letters that can be checked one by one, wherever they are found.
//!
//! ```text
//! Return-Path: <...>                            stored letters only, as a server would have put them there
//! Received: ...
//! X-Loadtest: 8000000000000007 3 0000001874 5d1f0c4fb2a86e93
//! From: ...                                     id, sequence, length of the body, hash of the body
//!
//! some lines that begin with dots, some with >From, some 8-bit, none over 998 bytes
//! ```
//!
//! Whoever has a letter needs nothing else to know whether it is whole: a [`Check`] is fed as it arrives and holds no
//! text. What a mail server may do on the way does not count: header lines that it adds, `>` that it puts before
//! `From ` at the start of a line, line ends behind the last line. Everything else is damage: a byte changed, cut off or added
//! anywhere in the body, or a stamp that names another letter, since id and sequence seed the hash.
//!
//! The same arguments make the same bytes, on every machine. A letter is a few lines of its own and ranges of two blocks of
//! prepared text, so making one costs its header and one pass of the hash; one of 50 MB takes no memory.
//!
//! It does not encode for the wire: bytes have LF ends here.

use std::sync::OnceLock;

use memchr::{memchr, memmem};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use dmail::mail::asctime;

/// The name of the header line.
const NAME: &[u8] = b"X-Loadtest: ";
/// What follows it: the id in 16 digits, up to 20 of the sequence, 10 of the length, 16 of the hash, and blanks.
const STAMP_MOST: usize = 16 + 1 + 20 + 1 + 10 + 1 + 16;
/// Letters at least as large as this are one attachment with a few words before it.
pub const ATTACHMENT_BYTES: u64 = 32 * 1024;
/// The smallest body: a line.
const BODY_LEAST: u64 = 64;
/// The longest letter; its length has to fit into ten digits.
pub const LETTER_MOST: u64 = 4 << 30;
/// So much prepared text of each kind: longer letters repeat it.
const TEXT_BLOCK: usize = 256 * 1024;
const BASE64_BLOCK: usize = 77 * 1024;
/// RFC 5322 has 998 bytes and the line end.
const LINE_MOST: usize = 990;
/// Ids of letters that lie in a made spool have this bit, ids that a run gives to what it sends have not.
const IN_SPOOL: u64 = 1 << 63;
const FROM: &[u8] = b"From ";
const QUOTES: [u8; 64] = [b'>'; 64];

/// Which letter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// What the maker calls it.
    pub id: u64,
    /// Which one of several with that id.
    pub seq: u64,
}

impl Stamp {
    /// Letter `number`, counted from 1, of account `index` of a made spool.
    pub fn in_spool(index: u64, number: u64) -> Stamp {
        Stamp { id: IN_SPOOL | index, seq: number }
    }

    /// The account whose made drop this letter was in; `None` for a letter that was sent.
    pub fn account(&self) -> Option<u64> {
        (self.id & IN_SPOOL != 0).then_some(self.id & !IN_SPOOL)
    }

    /// With what the body is hashed, so that a damaged stamp shows.
    fn seed(&self) -> u64 {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&self.id.to_le_bytes());
        both[8..].copy_from_slice(&self.seq.to_le_bytes());
        xxh3_64(&both)
    }
}

/// Whether a letter has already been through a mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As a mail program sends it.
    Sent,
    /// As it lies in a drop: with Return-Path and Received lines, and From_ lines quoted.
    Stored,
}

/// What stands in the header.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// Whose letter it is: a whole address.
    pub from: &'a str,
    /// To whom: a whole address.
    pub to: &'a str,
    /// When it was written, in seconds since 1970.
    pub written_secs: i64,
    /// Where it is found.
    pub state: State,
}

/// One letter.
#[derive(Debug)]
pub struct Letter {
    /// The header, the blank line, and what comes before the block.
    head: Vec<u8>,
    block: &'static [u8],
    /// Where in the block it begins; it goes round.
    from: usize,
    block_bytes: u64,
    foot: &'static [u8],
}

impl Letter {
    /// A letter of exactly `bytes`, LF ends; of a few hundred where that is too few for its header and a line, and of
    /// [`LETTER_MOST`] where it is more.
    pub fn new(stamp: Stamp, bytes: u64, heading: &Heading<'_>) -> Letter {
        let seed = stamp.seed();
        let is_large = bytes >= ATTACHMENT_BYTES;
        let (mut head, stamp_at) = header(stamp, seed, is_large, heading);
        let body_at = head.len();
        let (block, foot) = match is_large {
            true => {
                head.extend_from_slice(OPENING);
                (&blocks().base64[..], CLOSING)
            }
            false => (&blocks().text[..], LAST_LINE),
        };
        let from = line_start(block, seed);
        let around = (head.len() + foot.len()) as u64;
        let block_bytes = bytes.min(LETTER_MOST).saturating_sub(around).max(BODY_LEAST);
        let mut letter = Letter { head, block, from, block_bytes, foot };
        let mut body = Body::new(seed, u64::MAX);
        body.feed(&letter.head[body_at..]);
        letter.each_part(|part| body.feed(part));
        body.settle();
        let (length, hash) = (body.fed, body.hash.digest());
        let text = format!("{length:010} {hash:016x}");
        letter.head[stamp_at..stamp_at + text.len()].copy_from_slice(text.as_bytes());
        letter
    }

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

    /// Gives the whole of it, in pieces of up to some hundred kilobytes.
    pub fn each(&self, mut each: impl FnMut(&[u8])) {
        each(&self.head);
        self.each_part(each);
    }

    /// Appends the whole of it.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        self.each(|part| out.extend_from_slice(part));
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

/// The header with its blank line, and where in it length and hash have to be written.
fn header(stamp: Stamp, seed: u64, is_large: bool, heading: &Heading<'_>) -> (Vec<u8>, usize) {
    use std::io::Write;
    let Heading { from, to, written_secs, state } = *heading;
    let mut head = Vec::with_capacity(1024);
    let mut put = |text: std::fmt::Arguments<'_>| head.write_fmt(text).expect("a Vec takes all that is written");
    let date = rfc5322(written_secs);
    let domain = from.rsplit('@').next().unwrap_or_default();
    if state == State::Stored {
        let arrived = rfc5322(written_secs + (seed % 90) as i64);
        put(format_args!(
            "Return-Path: <{from}>\nDelivered-To: {to}\nReceived: from mx.{domain} (mx.{domain} [192.0.2.{}])\n\tby \
             mail.example.com with ESMTPS id {:012x}\n\tfor <{to}>; {arrived}\n",
            seed & 127,
            seed >> 16
        ));
    }
    put(format_args!("X-Loadtest: {:016x} {} ", stamp.id, stamp.seq));
    let stamp_at = head.len();
    let mut put = |text: std::fmt::Arguments<'_>| head.write_fmt(text).expect("a Vec takes all that is written");
    put(format_args!("{:010} {:016x}\n", 0, 0));
    let subject = SUBJECTS[(seed >> 32) as usize % SUBJECTS.len()];
    let (name, kind, encoding) = match is_large {
        true => ("=?utf-8?Q?Bj=C3=B8rn?=", "multipart/mixed; boundary=\"=_edge_\"", "8bit"),
        false => ("Ann", "text/plain; charset=utf-8; format=flowed", "8bit"),
    };
    put(format_args!(
        "Message-ID: <{:x}.{}.{seed:x}@{domain}>\nDate: {date}\nMIME-Version: 1.0\nUser-Agent: loadtest\nFrom: {name} \
         <{from}>\nTo: <{to}>\nSubject: {subject}\nContent-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n",
        stamp.id, stamp.seq
    ));
    (head, stamp_at)
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

/// What a letter turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// That letter, every byte of it.
    Whole(Stamp),
    /// It says that it is that letter, and is not, or not all of it.
    Damaged(Stamp, Damage),
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

/// Judges one whole message, as tests have them: header and body with LF ends, without a From_ line.
#[cfg(test)]
pub fn verify(message: &[u8]) -> Verdict {
    let mut check = Check::default();
    check.feed(message);
    check.finish()
}

/// Judges a message that comes in pieces: header and body with LF ends, without a From_ line. Memory does not depend on the message.
#[derive(Default)]
pub struct Check {
    line: Line,
    body: Option<(Claim, Box<Body>)>,
    claim: Option<Claim>,
    is_foreign: bool,
}

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    stamp: Stamp,
    length: u64,
    hash: u64,
}

/// The beginning of a header line.
struct Line {
    bytes: [u8; NAME.len() + STAMP_MOST],
    /// How long the line is so far, which may be more than is kept.
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; NAME.len() + STAMP_MOST], length: 0 }
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
            return match self.claim {
                Some(claim) if !self.is_foreign => Verdict::Damaged(claim.stamp, Damage::Short(claim.length)),
                _ => Verdict::Foreign,
            };
        }
        let Some((claim, mut body)) = self.body else { return Verdict::Foreign };
        body.settle();
        let damage = match () {
            () if body.fed < claim.length => Some(Damage::Short(claim.length - body.fed)),
            () if body.hash.digest() != claim.hash => Some(Damage::Changed),
            () if body.has_more => Some(Damage::Long),
            () => None,
        };
        damage.map_or(Verdict::Whole(claim.stamp), |damage| Verdict::Damaged(claim.stamp, damage))
    }

    fn header_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.length == 0 {
            match self.claim {
                Some(claim) => self.body = Some((claim, Box::new(Body::new(claim.stamp.seed(), claim.length)))),
                None => self.is_foreign = true,
            }
        } else if line.kept().starts_with(NAME) && line.length <= line.bytes.len() && self.claim.is_none() {
            self.claim = Claim::parse(&line.kept()[NAME.len()..]);
            self.is_foreign = self.claim.is_none();
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

impl Claim {
    fn parse(text: &[u8]) -> Option<Claim> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let id = u64::from_str_radix(words.next()?, 16).ok()?;
        let seq = words.next()?.parse().ok()?;
        let length = words.next()?.parse().ok()?;
        let hash = u64::from_str_radix(words.next()?, 16).ok()?;
        words.next().is_none().then_some(Claim { stamp: Stamp { id, seq }, length, hash })
    }
}

/// The running hash of a body, as if no `>` stood before a `From ` that begins a line.
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
                    self.held_quotes = 0;
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

    const HEADING: Heading<'static> =
        Heading { from: "ann@example.org", to: "bob@example.com", written_secs: 1_767_610_800, state: State::Stored };

    fn whole(stamp: Stamp, bytes: u64, state: State) -> Vec<u8> {
        let mut text = Vec::new();
        Letter::new(stamp, bytes, &Heading { state, ..HEADING }).push_to(&mut text);
        text
    }

    #[test]
    fn a_letter_is_as_long_as_it_was_asked_for_and_whole() {
        for bytes in [1_000, 1_001, 1_777, 5_000, 32_767, 32_768, 300_000, 1_000_003] {
            for seq in 0..20 {
                let stamp = Stamp::in_spool(7, seq);
                for state in [State::Sent, State::Stored] {
                    let text = whole(stamp, bytes, state);
                    assert_eq!(text.len() as u64, bytes);
                    assert_eq!(verify(&text), Verdict::Whole(stamp), "{bytes} {seq}");
                }
            }
        }
    }

    #[test]
    fn the_same_arguments_make_the_same_bytes_for_ever() {
        let mut hash = Xxh3::new();
        for (seq, bytes) in [(1, 0), (2, 1_100), (3, 40_000)] {
            hash.update(&whole(Stamp::in_spool(5, seq), bytes, State::Stored));
        }
        assert_eq!(hash.digest(), GOLDEN, "made spools are compared by their bytes: {:#x}", hash.digest());
    }
    const GOLDEN: u64 = 0x4aa4_92f9_ffd5_21b4;

    #[test]
    fn lines_are_what_the_rules_allow_and_what_servers_stumble_over() {
        let text = whole(Stamp { id: 1, seq: 1 }, 30_000, State::Sent);
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
        let stamp = Stamp { id: 9, seq: 4 };
        let text = whole(stamp, 60_000 - 32_000, State::Sent);
        let quoted = String::from_utf8_lossy(&text).replace("\n>From ", "\n>>>From ");
        let bare = String::from_utf8_lossy(&text).replace("\n>From ", "\nFrom ");
        assert_ne!(quoted, bare);
        let ended = [&text[..], b"\n\n"].concat();
        let received = [b"Received: from a by b;\n\tMon\n", &text[..]].concat();
        for text in [quoted.as_bytes(), bare.as_bytes(), &ended, &received] {
            assert_eq!(verify(text), Verdict::Whole(stamp));
        }
    }

    #[test]
    fn any_other_change_is_damage() {
        let stamp = Stamp { id: 0xbee, seq: 17 };
        let text = whole(stamp, 1_500, State::Sent);
        let body = memmem::find(&text, b"\n\n").unwrap() + 2;
        for at in body..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 0x20;
            assert!(matches!(verify(&changed), Verdict::Damaged(s, _) if s == stamp), "{at}");
            let gone = (text.len() - at) as u64;
            assert_eq!(verify(&text[..at]), Verdict::Damaged(stamp, Damage::Short(gone)));
        }
        let long = [&text[..], b"x\n"].concat();
        assert_eq!(verify(&long), Verdict::Damaged(stamp, Damage::Long));
        let other = String::from_utf8_lossy(&text).replace("bee 17", "bee 18");
        assert_eq!(verify(other.as_bytes()), Verdict::Damaged(Stamp { seq: 18, ..stamp }, Damage::Changed));
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
            let mut text = whole(Stamp { id: 3, seq: 1 }, 6_000, State::Sent);
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
            let letter = Letter::new(Stamp { id: 3, seq: 1 }, bytes, &HEADING);
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
