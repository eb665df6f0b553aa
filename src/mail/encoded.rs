//! Texts of people in header fields, which are ASCII: encoded words (RFC 2047) where that is needed, and one line each.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

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
}
