//! One message as it is written into a recipient's drop: bytes in, in any cuts, bytes out.
//!
//! ```text
//! From ann@example.org Mon Jan  5 11:00:00 2026     [`Envelope::head`]: separator, time in UTC
//! Return-Path: <ann@example.org>                      MAILER-DAEMON above and <> here for the null sender
//! Delivered-To: bob@example.com
//! Received: from ... with ESMTPS id 7K2F9Q ...        as the caller gives it
//! Subject: tea                                      [`Text`]: the message as it came
//! X-Original-Status: RO                               fields that are the mailbox's own are renamed
//!
//! >From now on at five.                               `>*From ` at a line's start gets one more `>`
//!                                                     (in a header, to no more than 59 of them)
//!                                                     what is missing of a line end, and one blank line
//! ```
//!
//! The renamed fields are those of [`is_note`], which no UID sees, and Return-Path, which only a final delivery writes: by them a
//! sender could set flags, choose UIDs, or make programs that believe Content-Length see other messages than we. A name
//! counts also with blanks before its colon; a field's folded lines keep their bytes.
//!
//! Of what comes nothing else is changed: blank lines at its end, NULs and CRs stay. So no line of a message but its first
//! begins with `From `, neither in header nor body: whoever looks for a torn message's end relies on that. A header that
//! never ends gets its blank line too. What is held back between two pieces never exceeds [`HELD_BYTES`].

use memchr::{memchr, memmem};

use super::asctime;
use super::identity::is_note;

/// The longest sender that is written into a From_ line: SMTP's paths have 256 bytes, and a separator may have 1,024.
const SENDER_BYTES: usize = 512;
/// How much of a line's start decides what the line is. No name we rename comes near.
const HELD_BYTES: usize = 64;
/// What a renamed field begins with.
const ORIGINAL: &[u8] = b"X-Original-";

/// What is known of a message besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The return path; empty: the null sender.
    pub sender: &'a [u8],
    /// Whose drop it is, as an address.
    pub recipient: &'a [u8],
    /// Our whole Received field, folded lines with it.
    pub received: &'a [u8],
    /// When it came, in seconds since 1970.
    pub posted_secs: i64,
}

impl Envelope<'_> {
    /// Everything before the text. Each field is one line whatever the addresses hold, and the first is a From_ line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(128 + 2 * self.sender.len() + self.recipient.len() + self.received.len());
        head.extend_from_slice(b"From ");
        match self.sender {
            [] => head.extend_from_slice(b"MAILER-DAEMON"),
            // A blank in it would begin another word, perhaps a date.
            sender => {
                let one_word = |&byte: &u8| if byte <= b' ' || byte == 0x7f { b'-' } else { byte };
                head.extend(sender[..sender.len().min(SENDER_BYTES)].iter().map(one_word));
            }
        }
        head.push(b' ');
        head.extend_from_slice(asctime::written(self.posted_secs).as_bytes());
        head.push(b'\n');
        self.fields_into(&mut head);
        head
    }

    /// The same without the separator: what stands above the text for a program that is given the message.
    pub fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        self.fields_into(&mut fields);
        fields
    }

    fn fields_into(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(b"Return-Path: <");
        one_line(self.sender, head);
        head.extend_from_slice(b">\nDelivered-To: ");
        one_line(self.recipient, head);
        head.push(b'\n');
        // Ours, but made with names that a client chose: a line of it that is not folded would be another field.
        for line in self.received.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                let folded =
                    head.ends_with(b"\n") && self.received.starts_with(line) || matches!(line[0], b' ' | b'\t');
                if !folded {
                    head.push(b'\t');
                }
                one_line(line, head);
                head.push(b'\n');
            }
        }
    }
}

/// `bytes` without what ends a line or a C string.
fn one_line(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().map(|&byte| if matches!(byte, b'\n' | b'\r' | 0) { b'?' } else { byte }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Body,
}

/// The text on its way into the drop. [`feed`](Text::feed) it in any pieces, then [`finish`](Text::finish).
#[derive(Debug)]
pub struct Text {
    place: Place,
    /// Undecided bytes of a line's start. Never more than [`HELD_BYTES`].
    held: Vec<u8>,
    /// The next byte, held ones aside, begins a line, or only `>` came since one began.
    line_start: bool,
    /// The last byte that was fed; a line end before the first.
    last: u8,
}

impl Default for Text {
    fn default() -> Text {
        Text { place: Place::Header, held: Vec::new(), line_start: true, last: b'\n' }
    }
}

impl Text {
    /// The next bytes of the message; `out` hears what is to be written.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        let Some(&last) = bytes.last() else { return };
        self.last = last;
        while !self.held.is_empty() && !bytes.is_empty() {
            let mut window = std::mem::take(&mut self.held);
            let held = window.len();
            let some = bytes.len().min(HELD_BYTES);
            window.extend_from_slice(&bytes[..some]);
            let taken = self.advance(&window, false, out);
            if taken >= held {
                bytes = &bytes[taken - held..];
            } else {
                window.drain(..taken);
                self.held = window;
                bytes = &bytes[some..];
            }
        }
        let taken = self.advance(bytes, false, out);
        self.held.extend_from_slice(&bytes[taken..]);
        debug_assert!(self.held.len() <= HELD_BYTES, "{} bytes are held back", self.held.len());
    }

    /// The message ends here.
    pub fn finish(mut self, out: &mut impl FnMut(&[u8])) {
        let rest = std::mem::take(&mut self.held);
        let taken = self.advance(&rest, true, out);
        debug_assert_eq!(taken, rest.len(), "at the end everything is decided");
        if self.last != b'\n' {
            out(b"\n");
        }
        if self.place == Place::Header {
            out(b"\n");
        }
        out(b"\n");
    }

    /// Writes as much of `window` as is decided, and says how much that was. With `end` that is all of it.
    fn advance(&mut self, window: &[u8], end: bool, out: &mut impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        while at < window.len() {
            let next = match self.place {
                Place::Header => self.header(window, at, end, out),
                Place::Body => self.body(window, at, end, out),
            };
            if next == at {
                break;
            }
            at = next;
        }
        at
    }

    /// One line of the header, or what there is of it: up to where it was written.
    fn header(&mut self, window: &[u8], at: usize, end: bool, out: &mut impl FnMut(&[u8])) -> usize {
        let rest = &window[at..];
        let line_end = memchr(b'\n', rest);
        if self.line_start {
            let head = &rest[..line_end.unwrap_or(rest.len()).min(HELD_BYTES)];
            if line_end.is_none() && rest.len() < HELD_BYTES && !end {
                return at;
            }
            if line_end.is_some() && (head.is_empty() || head == b"\r") {
                self.place = Place::Body;
            } else if is_separator(head) {
                out(b">");
            } else if is_renamed(head) {
                out(ORIGINAL);
            }
        }
        let length = line_end.map_or(rest.len(), |end| end + 1);
        out(&rest[..length]);
        self.line_start = line_end.is_some();
        at + length
    }

    /// Body up to the next line that is quoted, or to what may yet become one.
    fn body(&mut self, window: &[u8], at: usize, end: bool, out: &mut impl FnMut(&[u8])) -> usize {
        let rest = &window[at..];
        // A `>` may be put anywhere into a run of them: before `From ` it needs nothing held back but that word.
        for hit in memmem::find_iter(rest, b"From ") {
            if self.starts_line(&rest[..hit]) {
                out(&rest[..hit]);
                out(b">From ");
                self.line_start = false;
                return at + hit + 5;
            }
        }
        let held = (1..5.min(rest.len() + 1)).rev().find(|&held| {
            let from = rest.len() - held;
            !end && b"From ".starts_with(&rest[from..]) && self.starts_line(&rest[..from])
        });
        let length = rest.len() - held.unwrap_or(0);
        if length > 0 {
            self.line_start = self.starts_line(&rest[..length]);
            out(&rest[..length]);
        }
        at + length
    }

    /// Whether what follows `before` begins a line, or only `>` do.
    fn starts_line(&self, before: &[u8]) -> bool {
        match before.iter().rposition(|&byte| byte != b'>') {
            Some(at) => before[at] == b'\n',
            None => self.line_start,
        }
    }
}

/// Whether a line of the header that starts so would be taken for a separator: `>*From `.
fn is_separator(head: &[u8]) -> bool {
    let quotes = head.iter().take_while(|&&byte| byte == b'>').count();
    head[quotes..].starts_with(b"From ")
}

fn is_renamed(head: &[u8]) -> bool {
    let name = memchr(b':', head).map(|colon| head[..colon].trim_ascii_end());
    is_note(head) || name.is_some_and(|name| name.eq_ignore_ascii_case(b"return-path"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mbox::{Scanner, is_from_line};
    use proptest::prelude::*;

    const ENVELOPE: Envelope<'static> = Envelope {
        sender: b"ann@example.org",
        recipient: b"bob@example.com",
        received:
            b"Received: from mx (mx [192.0.2.1])\n\tby host with ESMTPS id 7K2F;\n\tMon, 5 Jan 2026 11:00:00 +0000\n",
        posted_secs: 1_767_610_800,
    };

    fn stored(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut out, mut text) = (Vec::new(), Text::default());
        for piece in pieces {
            text.feed(piece, &mut |bytes| out.extend_from_slice(bytes));
            assert!(text.held.len() <= HELD_BYTES);
        }
        text.finish(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    /// The same, line by line and with no thought of speed.
    fn naive(text: &[u8]) -> Vec<u8> {
        let (mut out, mut in_header) = (Vec::new(), true);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let word: Vec<u8> = line.iter().copied().skip_while(|&byte| byte == b'>').collect();
            let bare = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            if word.starts_with(b"From ") && (!in_header || line.len() - word.len() < HELD_BYTES - 4) {
                out.push(b'>');
            } else if in_header {
                let head = &line[..line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len()).min(HELD_BYTES)];
                let name = String::from_utf8_lossy(head.split(|&byte| byte == b':').next().unwrap()).to_lowercase();
                let named = head.contains(&b':') && name.trim_ascii_end() == "return-path";
                if is_note(head) || named {
                    out.extend_from_slice(b"X-Original-");
                }
            }
            out.extend_from_slice(line);
            in_header &= bare != Some(b"");
        }
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        if in_header {
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    #[test]
    fn the_head_is_four_fields_whatever_the_addresses_hold() {
        let head = String::from_utf8(ENVELOPE.head()).unwrap();
        assert_eq!(
            head,
            "From ann@example.org Mon Jan  5 11:00:00 2026\nReturn-Path: <ann@example.org>\n\
             Delivered-To: bob@example.com\nReceived: from mx (mx [192.0.2.1])\n\tby host with ESMTPS id 7K2F;\n\
             \tMon, 5 Jan 2026 11:00:00 +0000\n"
        );
        assert_eq!(ENVELOPE.fields(), head.split_once('\n').unwrap().1.as_bytes());
        let null = String::from_utf8(Envelope { sender: b"", ..ENVELOPE }.head()).unwrap();
        assert!(null.starts_with("From MAILER-DAEMON Mon Jan  5 11:00:00 2026\nReturn-Path: <>\n"));
        let (long, hostile) = ([b'a'; 5000], b"\"x Mon Jan  5 1970\"\n\nFrom y\r\0@z");
        for sender in [&long[..], hostile] {
            let envelope = Envelope {
                sender,
                recipient: hostile,
                received: b"Received: a\r\nStatus: R\n\n\nFrom x\0",
                ..ENVELOPE
            };
            let head = envelope.head();
            let lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').collect();
            assert!(is_from_line(lines[0]) && lines[0].len() < 1000, "{:?}", lines[0].escape_ascii().to_string());
            assert_eq!(asctime::posted(lines[0]), Some(ENVELOPE.posted_secs + 12 * 3600));
            assert!(lines[1].starts_with(b"Return-Path: <") && lines[2].starts_with(b"Delivered-To: "));
            assert_eq!(&lines[3..], [&b"Received: a"[..], b"\tStatus: R", b"\tFrom x?", b""]);
        }
    }

    #[test]
    fn the_mailboxs_own_fields_are_renamed_and_separators_quoted() {
        for (text, wanted) in [
            ("", "\n\n"),
            ("a: b", "a: b\n\n\n"),
            ("a: b\n", "a: b\n\n\n"),
            ("a: b\n\n", "a: b\n\n\n"),
            ("a: b\n\nhello", "a: b\n\nhello\n\n"),
            ("a: b\n\nhello\n\n\n", "a: b\n\nhello\n\n\n\n"),
            (
                "Status: RO\nX-UIDL: 1\nx-imapbase : 2\n\nStatus: in body\n",
                "X-Original-Status: RO\nX-Original-X-UIDL: 1\nX-Original-x-imapbase : 2\n\nStatus: in body\n\n",
            ),
            ("CONTENT-LENGTH: 9\n\nx\n", "X-Original-CONTENT-LENGTH: 9\n\nx\n\n"),
            ("Return-Path: <a>\n\nx\n", "X-Original-Return-Path: <a>\n\nx\n\n"),
            ("X-Statuses: RO\na: b\n Status: folded\n\n", "X-Statuses: RO\na: b\n Status: folded\n\n\n"),
            (
                "From x\n>From y\n\nFrom z\n>>From q\n From r\nFromage\n",
                ">From x\n>>From y\n\n>From z\n>>>From q\n From r\nFromage\n\n",
            ),
            ("\r\nFrom a\r\nb\r\n", "\r\n>From a\r\nb\r\n\n"),
            ("a:\n\nb From c\nFrom", "a:\n\nb From c\nFrom\n\n"),
        ] {
            assert_eq!(String::from_utf8(stored(&[text.as_bytes()])).unwrap(), wanted, "{text:?}");
            assert_eq!(String::from_utf8(naive(text.as_bytes())).unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let text =
            b"Subject: x\nStatus: RO\n folded\nX-Uid : 7\nFrom f\n\n>>From a\nFrom b\n>\n>>>x\nFroFrom \n\nFrom From c";
        let whole = stored(&[text]);
        assert_eq!(whole, naive(text));
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert_eq!(stored(&[&text[..first], &text[first..second], &text[second..]]), whole, "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(stored(&bytes), whole);
    }

    proptest! {
        #[test]
        fn it_is_what_the_naive_one_gives_and_one_message_to_the_scanner(
            words in proptest::collection::vec(
                "From |>|\n|\n\n|\r\n|F|x: y|Status:|X-UIDL :|X-IMAP|Return-Path: |a{1,70}|Mon Jan  5 11:00:00 2026|\0", 0..40),
            cut in 1usize..40,
        ) {
            let text = words.concat().into_bytes();
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            let out = stored(&pieces);
            prop_assert_eq!(out.escape_ascii().to_string(), naive(&text).escape_ascii().to_string());
            let file = [ENVELOPE.head(), out].concat();
            let mut found = Vec::new();
            let mut scanner = Scanner::new(0);
            scanner.feed(&[&file[..], &file].concat(), &mut |extent| found.push(extent));
            scanner.finish(&mut |extent| found.push(extent));
            prop_assert_eq!(found.len(), 2);
            prop_assert_eq!((found[0].trail_bytes, found[0].end(), found[0].read), (1, file.len() as u64, false));
            prop_assert_eq!(found[0].hash, found[1].hash);
        }
    }
}
