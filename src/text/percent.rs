//! Percent-escapes: bytes as one word of printable characters (version 2 of the authenticator protocol).

/// `bytes` with everything outside 0x21..=0x7e, and `%` itself, written as `%XX`.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    encode_where(bytes, |byte| !byte.is_ascii_graphic())
}

/// `bytes` with `%` and whatever `special` picks written as `%XX`.
pub fn encode_where(bytes: &[u8], special: impl Fn(u8) -> bool) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut word = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b'%' || special(byte) {
            word.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            word.push(byte);
        }
    }
    word
}

/// What was encoded; `None` where a `%` is not followed by two hexadecimal digits.
pub fn decode(word: &[u8]) -> Option<Vec<u8>> {
    // Reserved at once: what is decoded may be a password, and a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        if word[at] == b'%' {
            bytes.push(digit(word.get(at + 1))? << 4 | digit(word.get(at + 2))?);
            at += 3;
        } else {
            bytes.push(word[at]);
            at += 1;
        }
    }
    Some(bytes)
}

/// The same, for files people edit: a `%` that begins no escape stands for itself.
pub fn decode_leniently(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        match (word[at], digit(word.get(at + 1)), digit(word.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_undoes_encode_for_every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        let word = encode(&all);
        assert!(word.iter().all(u8::is_ascii_graphic));
        assert_eq!(decode(&word).unwrap(), all);
        assert_eq!(decode_leniently(&word), all);
        assert_eq!(encode(b"p a%s"), b"p%20a%25s");
    }

    #[test]
    fn a_broken_escape_is_refused_or_left_alone() {
        for word in ["%", "%4", "%zz", "a%4g", "%%41"] {
            assert_eq!(decode(word.as_bytes()), None, "{word}");
        }
        assert_eq!(decode_leniently(b"50%off%"), b"50%off%");
        assert_eq!(decode_leniently(b"%3a%3A"), b"::");
    }
}
