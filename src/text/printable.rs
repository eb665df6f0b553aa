//! What strangers sent, made fit for a log line or a terminal.

/// Characters shown; what is longer ends in `...`.
pub const SHOWN: usize = 100;

/// At most [`SHOWN`] bytes of it: no controls, nothing that changes the direction of the text around it.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = visible(&String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]));
    if bytes.len() > SHOWN {
        shown.push_str("...");
    }
    shown
}

/// All of it, in the same way: for sentences of ours that name what strangers chose.
pub fn visible(text: &str) -> String {
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if invisible(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_stays_one_line_and_reads_left_to_right() {
        assert_eq!(printable(b"ann"), "ann");
        assert_eq!(printable(b"a\r\nb\x1b[2J\0%n"), "a??b?[2J?%n");
        assert_eq!(printable("a\u{202e}b\u{2028}".as_bytes()), "a?b?");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
        assert_eq!(printable(&[b'x'; 200]).len(), SHOWN + 3);
    }
}
