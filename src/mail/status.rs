//! The `Status:` line that `add_status` adds to a message which has none.
//!
//! | line         | means                           | to mutt, mailx, c-client | where                                |
//! |--------------|---------------------------------|--------------------------|--------------------------------------|
//! | `Status: UN` | not retrieved before            | new: no R, no O          | on the wire only                     |
//! | `Status: RO` | retrieved in an earlier session | read                     | on the wire; in the drop once moved  |
//!
//! Both are as long, so that no size ever changes with the flag; and a stored line has the line ends of its message, so
//! that it is as long on the wire as the one that was added there before. It is the first line of the message. A message whose
//! first line continues another ([`Extent::takes_status`](super::mbox::Extent)) gets none: ours would take that line over.
//! Status is no part of a message's [`identity`](super::identity).

/// What the line adds to a message on the wire.
pub const STATUS_OCTETS: u64 = 12;

/// The line as it is sent.
pub fn sent(read: bool) -> &'static [u8] {
    if read { b"Status: RO\r\n" } else { b"Status: UN\r\n" }
}

/// The line of a message that was read as it is stored, in a message whose line ends are CRLF or are not.
pub fn stored(crlf: bool) -> &'static [u8] {
    if crlf { b"Status: RO\r\n" } else { b"Status: RO\n" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mbox::{Extent, Scanner};

    fn scan(text: &[u8]) -> Extent {
        let mut found = Vec::new();
        let mut scanner = Scanner::new(0);
        scanner.feed(b"From ann@x Mon Jan  5 10:00:00 2026\n", &mut |extent| found.push(extent));
        scanner.feed(text, &mut |extent| found.push(extent));
        scanner.finish(&mut |extent| found.push(extent));
        assert_eq!(found.len(), 1, "{}", text.escape_ascii());
        found[0]
    }

    #[test]
    fn both_lines_are_as_long_on_the_wire_and_only_one_says_read() {
        for read in [false, true] {
            assert_eq!(sent(read).len() as u64, STATUS_OCTETS);
            let extent = scan(sent(read));
            assert_eq!((extent.read, extent.octets, extent.takes_status), (read, STATUS_OCTETS, false));
        }
        assert_eq!(sent(true), stored(true));
    }

    #[test]
    fn a_stored_line_changes_nothing_of_its_message_but_its_size_and_its_status() {
        for text in [
            "Subject: tea\n\nAt five?\n\n",
            "Subject: tea\r\n\r\nAt five?\r\n\r\n",
            "Subject: tea\n\r\nAt five?",
            "\nno header\n\n",
            "\r\nno header\r\n",
            "\n",
            "",
            "no colon\nand: no end",
        ] {
            let before = scan(text.as_bytes());
            assert!(before.takes_status && !before.read, "{text:?}");
            let line = stored(before.verbatim);
            let after = scan(&[line, text.as_bytes()].concat());
            let expected = Extent {
                text_bytes: before.text_bytes + line.len() as u64,
                octets: before.octets + STATUS_OCTETS,
                read: true,
                takes_status: false,
                ..before
            };
            assert_eq!(after, expected, "{text:?}");
        }
    }
}
