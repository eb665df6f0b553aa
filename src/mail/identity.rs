//! What a message is called, for ever: a hash of what other programs leave alone.
//!
//! A [`Uid`] is XXH3-128 (unkeyed, frozen: see the golden vectors) over header and body, with
//!
//! * line ends as LF, however the file writes them;
//! * no From_ line, and none of the headers that mail programs keep their notes in ([`is_note`]), with their
//!   continuation lines;
//! * no line ends at the very end: neither the blank line before the next From_ line, nor a final newline that was
//!   forgotten and added later, nor blank lines that a careful program put in before appending, change the name.
//!
//! Two equal messages in one drop differ by their occurrence. It is an identity, not a proof: whoever can choose both
//! texts can make two that share a hash, and gets two messages with two occurrences.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The name of a message in its drop. As text: 26 letters and digits, then `.N` when it is the N-th repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid {
    /// Of the message's text, see the module's page.
    pub hash: u128,
    /// 0 for the first message with that hash, a number never used before in that drop for any other.
    pub occurrence: u32,
}

/// Digits and small letters without `i l o u`, which people misread.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 26];
        for (index, letter) in text.iter_mut().rev().enumerate() {
            *letter = LETTERS[(self.hash >> (5 * index)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))?;
        if self.occurrence > 0 {
            write!(f, ".{}", self.occurrence)?;
        }
        Ok(())
    }
}

/// Headers in which mail programs keep notes about a message; `X-IMAP` stands for everything that begins so.
const NOTES: &[&[u8]] =
    &[b"status", b"x-status", b"x-keywords", b"x-uid", b"x-uidl", b"x-imap", b"content-length", b"lines"];

/// Whether a note may begin with that byte.
#[inline]
pub fn may_begin_note(byte: u8) -> bool {
    matches!(byte | 0x20, b's' | b'x' | b'c' | b'l')
}

/// Whether the header line that begins with `head` is a note, not text. `head` is at least the name and its colon, if
/// there is one.
pub fn is_note(head: &[u8]) -> bool {
    // Nearly every header fails here, so that the rest need not be quick.
    if !head.first().is_some_and(|&byte| may_begin_note(byte)) {
        return false;
    }
    let Some(colon) = head.iter().position(|&b| b == b':') else { return false };
    let name = head[..colon].trim_ascii_end();
    NOTES.iter().any(|note| name.eq_ignore_ascii_case(note))
        || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"x-imap"))
}

/// The running hash of one message's text. Feed it LF line ends, in any cuts.
pub struct TextHash {
    hash: Xxh3,
    /// Something was hashed.
    begun: bool,
    /// Line ends seen last and not hashed: they count only when something follows.
    held: u64,
}

impl Default for TextHash {
    fn default() -> TextHash {
        TextHash { hash: Xxh3::new(), begun: false, held: 0 }
    }
}

impl TextHash {
    /// Of a whole text with LF line ends: much quicker than feeding it.
    pub fn of(text: &[u8]) -> u128 {
        xxh3_128(&text[..text.iter().rposition(|&b| b != b'\n').map_or(0, |last| last + 1)])
    }

    /// Nothing was fed.
    pub fn is_empty(&self) -> bool {
        !self.begun && self.held == 0
    }

    /// The next bytes of the text.
    #[inline]
    pub fn feed(&mut self, text: &[u8]) {
        let Some(last) = text.iter().rposition(|&b| b != b'\n') else {
            self.held += text.len() as u64;
            return;
        };
        self.begun = true;
        while self.held > 0 {
            let some = self.held.min(64) as usize;
            self.hash.update(&[b'\n'; 64][..some]);
            self.held -= some as u64;
        }
        self.hash.update(&text[..=last]);
        self.held = (text.len() - last - 1) as u64;
    }

    /// The hash of what was fed; begins anew.
    pub fn finish(&mut self) -> u128 {
        let hash = self.hash.digest128();
        if self.begun {
            self.hash.reset();
        }
        (self.begun, self.held) = (false, 0);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_plain_text_a_client_can_keep() {
        for (hash, occurrence, text) in [
            (0, 0, "00000000000000000000000000"),
            (u128::MAX, 0, "7zzzzzzzzzzzzzzzzzzzzzzzzz"),
            (u128::MAX, u32::MAX, "7zzzzzzzzzzzzzzzzzzzzzzzzz.4294967295"),
            (33, 2, "00000000000000000000000011.2"),
        ] {
            let shown = Uid { hash, occurrence }.to_string();
            assert_eq!(shown, text);
            assert!(shown.len() <= 70 && shown.bytes().all(|b| (0x21..=0x7e).contains(&b)));
        }
    }

    #[test]
    fn notes_are_known_by_name_whatever_their_case() {
        for (line, note) in [
            ("Status: RO", true),
            ("STATUS:", true),
            ("status : O", true),
            ("X-Status: A", true),
            ("X-Keywords: x", true),
            ("X-UID: 7", true),
            ("X-UIDL: abc", true),
            ("X-IMAP: 1 2", true),
            ("X-IMAPbase: 1 2", true),
            ("x-imap-whatever: 1", true),
            ("Content-Length: 12", true),
            ("Lines: 3", true),
            ("X-UIDX: 3", false),
            ("Statuses: 3", false),
            ("Status", false),
            ("Subject: Status: RO", false),
            ("Content-Type: text/plain", false),
            ("List-Id: x", false),
            ("", false),
        ] {
            assert_eq!(is_note(line.as_bytes()), note, "{line}");
        }
    }

    #[test]
    fn trailing_line_ends_do_not_count_and_inner_ones_do() {
        let of = |pieces: &[&[u8]]| {
            let mut hash = TextHash::default();
            pieces.iter().for_each(|piece| hash.feed(piece));
            hash.finish()
        };
        let long = [b'\n'; 200];
        assert_eq!(of(&[b"a\nb"]), of(&[b"a", b"\n", b"b\n", b"\n\n"]));
        assert_eq!(of(&[b"a", &long, b"b"]), of(&[b"a\n", &long[1..], b"b", &long]));
        assert_ne!(of(&[b"a\nb"]), of(&[b"a\n\nb"]));
        assert_eq!(of(&[]), of(&[&long]));
        for text in [&b"a\nb"[..], b"a\n\nb\n\n", b"", &long] {
            assert_eq!(TextHash::of(text), of(&[text]));
        }
    }
}
