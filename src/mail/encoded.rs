//! Texts of people in header fields, which are ASCII: encoded words (RFC 2047) where that is needed, and one line each.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

/// No encoded word is longer; RFC 2047 has 75. A header of beginnings without an end would be searched through for each of them.
const WORD_BYTES: usize = 998;

/// The name that stands before an address: a quoted string, or encoded words.
pub fn phrase(name: &str) -> String {
    let name = one_line(name);
    if name.is_ascii() {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{quoted}\"");
    }
    encoded(&name)
}

/// A text for a header field: as it is while it is ASCII, else in encoded words (RFC 2047), none longer than 75 characters.
pub fn encoded(text: &str) -> String {
    let text = one_line(text);
    if text.is_ascii() {
        return text;
    }
    let mut words: Vec<String> = Vec::new();
    let mut part = String::new();
    for c in text.chars() {
        if part.len() + c.len_utf8() > 45 {
            words.push(std::mem::take(&mut part));
        }
        part.push(c);
    }
    words.push(part);
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word))).collect();
    words.join("\n ")
}

/// Without controls, which would end the field, and no longer than a line may be (RFC 5322 §2.1.1).
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

/// What a header field says to people: encoded words of UTF-8, ASCII and Latin 1 are read, what is anything else stays as it is.
/// Words side by side are one text, also where they cut a character in two.
pub fn decoded(field: &[u8]) -> String {
    let (mut text, mut rest) = (String::new(), field);
    // Bytes of words side by side, of one charset.
    let mut open: Option<(Charset, Vec<u8>)> = None;
    while !rest.is_empty() {
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let (word, behind) = match word(&rest[blanks..]) {
            Some((charset, bytes, length)) if open.is_some() || blanks == 0 => {
                rest = &rest[blanks + length..];
                match &mut open {
                    Some((other, so_far)) if *other == charset => so_far.extend_from_slice(&bytes),
                    other => {
                        text += &other.replace((charset, bytes)).map_or(String::new(), said);
                    }
                }
                continue;
            }
            // Up to the next place where a word may begin.
            _ if blanks > 0 => rest.split_at(blanks),
            _ => rest.split_at(
                rest.iter().skip(1).position(|byte| matches!(byte, b' ' | b'\t')).map_or(rest.len(), |at| at + 1),
            ),
        };
        text += &open.take().map_or(String::new(), said);
        text += &String::from_utf8_lossy(word);
        rest = behind;
    }
    text + &open.map_or(String::new(), said)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Utf8,
    Latin1,
}

fn said((charset, bytes): (Charset, Vec<u8>)) -> String {
    match charset {
        Charset::Utf8 => String::from_utf8_lossy(&bytes).into_owned(),
        Charset::Latin1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// An encoded word at the beginning, that a blank or the end follows: its charset, its bytes, its length as written.
fn word(text: &[u8]) -> Option<(Charset, Vec<u8>, usize)> {
    let inside = text.strip_prefix(b"=?")?;
    let inside = &inside[..inside.len().min(WORD_BYTES)];
    let mut marks = inside.iter().enumerate().filter(|(_, byte)| **byte == b'?').map(|(at, _)| at);
    let (first, second) = (marks.next()?, marks.next()?);
    let end = inside[second + 1..].windows(2).position(|two| two == b"?=")? + second + 1;
    let length = 2 + end + 2;
    if !matches!(text.get(length), None | Some(b' ' | b'\t')) {
        return None;
    }
    // RFC 2231: a language may follow the charset.
    let charset = inside[..first].split(|&byte| byte == b'*').next()?.to_ascii_lowercase();
    let charset = match charset.as_slice() {
        b"utf-8" | b"us-ascii" => Charset::Utf8,
        b"iso-8859-1" => Charset::Latin1,
        _ => return None,
    };
    let encoded = &inside[second + 1..end];
    let bytes = match &inside[first + 1..second] {
        b"B" | b"b" => BASE64.decode(encoded).ok()?,
        b"Q" | b"q" => quoted(encoded)?,
        _ => return None,
    };
    Some((charset, bytes, length))
}

/// The bytes of a text in the Q encoding.
fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match first {
            b'_' => b' ',
            b'=' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_or_encoded_and_never_more_than_its_field() {
        assert_eq!(phrase("Cron Daemon"), "\"Cron Daemon\"");
        assert_eq!(phrase("a \"b\" \\"), "\"a \\\"b\\\" \\\\\"");
        assert_eq!(phrase("x\r\nBcc: y"), "\"x  Bcc: y\"");
        assert_eq!(phrase("Jürgen\nBcc: y"), "=?utf-8?B?SsO8cmdlbiBCY2M6IHk=?=");
        for line in encoded(&"ü".repeat(1000)).split('\n') {
            assert!(line.len() <= 76 && line.is_ascii(), "{line}");
        }
    }

    #[test]
    fn encoded_words_are_read_and_what_is_none_stays() {
        for (field, text) in [
            ("tea at five", "tea at five"),
            ("", ""),
            ("=?utf-8?B?Q2Fmw6k=?=", "Caf\u{e9}"),
            ("=?UTF-8?q?Caf=C3=A9_au_lait?= now", "Caf\u{e9} au lait now"),
            ("=?iso-8859-1?Q?Caf=E9?=", "Caf\u{e9}"),
            ("=?utf-8*fr?Q?Caf=C3=A9?=", "Caf\u{e9}"),
            // Side by side they are one, with blanks between other words they are not.
            ("=?utf-8?Q?a=C3?= =?utf-8?Q?=A9b?=", "a\u{e9}b"),
            ("=?utf-8?Q?a?=  =?iso-8859-1?Q?=E9?= c", "a\u{e9} c"),
            ("a =?utf-8?Q?b?= c", "a b c"),
            ("=?gb2312?B?1tDOxA==?= x", "=?gb2312?B?1tDOxA==?= x"),
            ("=?utf-8?B?!?=", "=?utf-8?B?!?="),
            ("=?utf-8?Q?=4?=", "=?utf-8?Q?=4?="),
            ("=?utf-8?Q?a?=b", "=?utf-8?Q?a?=b"),
            ("=?utf-8?X?a?= =?", "=?utf-8?X?a?= =?"),
            ("=?=?=?= ??= =?a?", "=?=?=?= ??= =?a?"),
        ] {
            assert_eq!(decoded(field.as_bytes()), text, "{field}");
        }
        assert_eq!(decoded(b"a\xffb"), "a\u{fffd}b");
        let long = "\u{f6}".repeat(100);
        assert_eq!(decoded(encoded(&long).replace('\n', "").as_bytes()), long);
    }

    proptest::proptest! {
        #[test]
        fn any_field_is_read(field in "[=?utf8QBb_ A-]{0,40}") {
            let _ = decoded(field.as_bytes());
        }
    }
}
