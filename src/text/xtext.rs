//! xtext: any bytes as one word of printable ASCII (RFC 3461 §4), as parameters of SMTP carry it.

/// What was encoded; `None` where it is not xtext: a blank, a control, `=`, an octet above 126, a `+` without two digits in
/// capitals.
pub fn decode(word: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'+', [high, low, after @ ..]) => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            (b'!'..=b'*' | b','..=b'<' | b'>'..=b'~', after) => {
                bytes.push(*first);
                after
            }
            _ => return None,
        };
    }
    Some(bytes)
}

/// Bytes as one word.
pub fn encode(bytes: &[u8]) -> String {
    let mut word = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'!'..=b'*' | b','..=b'<' | b'>'..=b'~' => word.push(char::from(byte)),
            _ => word += &format!("+{byte:02X}"),
        }
    }
    word
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_xtext_is_decoded_and_what_is_not_is_not_guessed_at() {
        for (word, bytes) in
            [("", &b""[..]), ("ann@x.org", b"ann@x.org"), ("a+2Bb+3Dc", b"a+b=c"), ("+0D+0A+00+FF", b"\r\n\0\xff")]
        {
            assert_eq!(decode(word.as_bytes()).as_deref(), Some(bytes), "{word}");
        }
        for word in ["+", "+2", "+2b", "+G0", "a=b", "a b", "a\tb", "a\x7f", "\u{e9}", "+ 1"] {
            assert_eq!(decode(word.as_bytes()), None, "{word:?}");
        }
    }

    #[test]
    fn what_is_encoded_is_one_word_that_is_decoded_again() {
        let all: Vec<u8> = (0..=255).collect();
        let word = encode(&all);
        assert!(word.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'='));
        assert_eq!(decode(word.as_bytes()).unwrap(), all);
    }
}
