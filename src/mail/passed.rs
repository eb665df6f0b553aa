//! Who has had a message already: its `Delivered-To:` fields, which each final delivery writes. Whoever is to have it once more
//! is in a circle, that `Received:` fields would end much later.
//!
//! It is told the text from its first byte, in any cuts, and listens to the header alone. Of each field it keeps a hash of the
//! address, without case; of at most [`MOST`] fields. An address on a folded line is not found: no server writes one so.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use memchr::memchr;

/// Fields that are kept: no message takes so many hops.
const MOST: usize = 128;
/// How much of a line is looked at: the name and the longest address.
const LINE_BYTES: usize = 512;
const NAME: &[u8] = b"delivered-to";

/// See the page.
#[derive(Debug, Default)]
pub struct Passed {
    /// The line that has not ended, as far as it is looked at.
    line: Vec<u8>,
    /// The header has ended.
    over: bool,
    found: Vec<u64>,
}

impl Passed {
    /// What a text says that begins so.
    pub fn of(text: &[u8]) -> Passed {
        let mut passed = Passed::default();
        passed.feed(text);
        passed
    }

    /// The next bytes of the text, lines of which end in LF.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !self.over && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            self.line.extend_from_slice(&piece[..piece.len().min(LINE_BYTES - self.line.len())]);
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
            self.line_ends();
        }
    }

    fn line_ends(&mut self) {
        self.over = self.line.is_empty();
        if self.over {
            self.line = Vec::new();
            return;
        }
        if let Some(colon) = memchr(b':', &self.line)
            && self.line[..colon].trim_ascii_end().eq_ignore_ascii_case(NAME)
            && self.found.len() < MOST
        {
            self.found.push(hash(&self.line[colon + 1..]));
        }
        self.line.clear();
    }

    /// Whether this address has had it.
    pub fn has(&self, address: &str) -> bool {
        !self.found.is_empty() && self.found.contains(&hash(address.as_bytes()))
    }
}

/// Of an address, perhaps in angle brackets.
fn hash(address: &[u8]) -> u64 {
    let address = address.trim_ascii();
    let bare = address.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).unwrap_or(address);
    let mut hasher = DefaultHasher::new();
    bare.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Received: from a\n\tby b\nDelivered-To: ann@example.com\nX-Delivered-To: eve@example.com\n\
                        delivered-TO :<Bob@Example.com> \nSubject: x\n\nDelivered-To: kim@example.com\n";

    #[test]
    fn who_had_a_message_is_known_however_it_is_cut_and_written() {
        for cut in 0..TEXT.len() {
            let mut passed = Passed::default();
            passed.feed(&TEXT.as_bytes()[..cut]);
            passed.feed(&TEXT.as_bytes()[cut..]);
            for (address, has) in [
                ("ann@example.com", true),
                ("ANN@example.com", true),
                ("bob@example.com", true),
                ("eve@example.com", false),
                ("kim@example.com", false),
                ("", false),
            ] {
                assert_eq!(passed.has(address), has, "{address}, cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_comes() {
        let mut passed = Passed::of(&b"Delivered-To: a@b\n".repeat(10 * MOST));
        passed.feed(&vec![b'x'; 1 << 20]);
        assert_eq!((passed.found.len(), passed.line.len()), (MOST, LINE_BYTES));
        passed.feed(b"\nDelivered-To: c@d\n\n");
        assert!(passed.has("a@b") && !passed.has("c@d"));
        assert_eq!(passed.line.capacity(), 0, "behind the header nothing is held");
    }
}
