//! What of a message a report on it brings back, and what is read in its header. All of it may be anything.
//!
//! | brought back | when                                                                                         | as                                       |
//! |--------------|-----------------------------------------------------------------------------------------------|------------------------------------------|
//! | its header   | as a rule; [`HEADER_BYTES`] of it, cut at a line's end                                         | text/rfc822-headers, message/global-headers |
//! | all of it    | it is wanted, all of it is at hand, and it has nothing that no message may have               | message/rfc822, message/global           |
//!
//! A header with more than ASCII in it goes as quoted-printable, so that a report can go where 8BITMIME is unknown; in a report
//! that is for SMTPUTF8 anyway it stays as it is. A whole message cannot be encoded, and goes as it is.

use std::borrow::Cow;

/// So much of the message's header is brought back.
pub const HEADER_BYTES: usize = 8 * 1024;
/// Bytes of a line of a message, its end not counted (RFC 5322 §2.1.1).
const LINE_BYTES: usize = 998;
/// Bytes of a line that is quoted-printable (RFC 2045 §6.7).
const QUOTED_BYTES: usize = 76;
/// Bytes of an id that an answer names.
const MESSAGE_ID_BYTES: usize = 250;

/// The message that a report is on.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// How it begins: [`HEADER_BYTES`] of it suffice, where it is not to come back whole.
    pub bytes: &'a [u8],
    /// That is all of it.
    pub is_complete: bool,
    /// All of it is wanted.
    pub whole: bool,
}

/// A part of a report.
pub(super) struct Part {
    pub(super) kind: &'static str,
    pub(super) encoding: Encoding,
    pub(super) body: Vec<u8>,
}

/// How a part is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    Quoted,
}

impl Encoding {
    pub(super) fn word(self) -> &'static str {
        match self {
            Encoding::SevenBit => "7bit",
            Encoding::EightBit => "8bit",
            Encoding::Quoted => "quoted-printable",
        }
    }
}

impl Original<'_> {
    /// Its header as it is brought back.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        for line in lines(self.bytes) {
            let ended = line.strip_suffix(b"\n").unwrap_or(line);
            let bare = ended.strip_suffix(b"\r").unwrap_or(ended);
            if bare.is_empty() || header.len() + bare.len() >= HEADER_BYTES {
                break;
            }
            header.extend_from_slice(bare);
            header.push(b'\n');
        }
        header
    }

    /// What comes back. `header`: [`header`](Original::header); `utf8`: the report is for SMTPUTF8.
    pub(super) fn part(&self, header: Vec<u8>, utf8: bool) -> Part {
        let is_wide = utf8 && !header.is_ascii() && std::str::from_utf8(&header).is_ok();
        if self.whole && self.is_complete {
            let body = unix(self.bytes);
            if fits(&body) {
                let encoding = if body.is_ascii() { Encoding::SevenBit } else { Encoding::EightBit };
                return Part { kind: if is_wide { "message/global" } else { "message/rfc822" }, encoding, body };
            }
        }
        if is_wide && fits(&header) {
            return Part { kind: "message/global-headers", encoding: Encoding::EightBit, body: header };
        }
        let kind = "text/rfc822-headers";
        if header.is_ascii() && fits(&header) {
            return Part { kind, encoding: Encoding::SevenBit, body: header };
        }
        Part { kind, encoding: Encoding::Quoted, body: quoted(&header) }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n')
}

/// With LF, ended by one.
fn unix(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    for line in lines(bytes) {
        let ended = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(ended.strip_suffix(b"\r").unwrap_or(ended));
        out.push(b'\n');
    }
    out
}

/// Whether it holds only what a part may have that is not encoded (RFC 2045 §2.8).
fn fits(body: &[u8]) -> bool {
    !body.iter().any(|byte| matches!(byte, 0 | b'\r')) && lines(body).all(|line| line.len() <= LINE_BYTES + 1)
}

/// Text as quoted-printable (RFC 2045 §6.7).
pub(super) fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for line in lines(text) {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let mut used = 0;
        for (index, &byte) in bare.iter().enumerate() {
            let is_last = index + 1 == bare.len();
            let is_plain = matches!(byte, b'!'..=b'<' | b'>'..=b'~') || !is_last && matches!(byte, b' ' | b'\t');
            let needed = if is_plain { 1 } else { 3 };
            // Room for the sign that the line goes on.
            if used + needed > QUOTED_BYTES - usize::from(!is_last) {
                out.extend_from_slice(b"=\n");
                used = 0;
            }
            if is_plain {
                out.push(byte);
            } else {
                out.extend_from_slice(format!("={byte:02X}").as_bytes());
            }
            used += needed;
        }
        if line.len() > bare.len() {
            out.push(b'\n');
        }
    }
    out
}

/// The first field of that name in a header with LF, unfolded and without blanks around it.
pub(super) fn field<'h>(header: &'h [u8], name: &str) -> Option<Cow<'h, [u8]>> {
    let mut found: Option<Cow<'h, [u8]>> = None;
    for line in lines(header) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match &mut found {
            Some(value) if matches!(line.first(), Some(b' ' | b'\t')) => {
                value.to_mut().push(b' ');
                value.to_mut().extend_from_slice(line.trim_ascii());
            }
            Some(_) => break,
            None => {
                let (start, rest) = line.split_at_checked(name.len()).unwrap_or((line, b""));
                if start.eq_ignore_ascii_case(name.as_bytes())
                    && let Some(value) = rest.trim_ascii_start().strip_prefix(b":")
                {
                    found = Some(Cow::Borrowed(value.trim_ascii()));
                }
            }
        }
    }
    found
}

/// What the message is called, if that is a name an answer can name: `<`, printable ASCII around one `@`, `>`.
pub(super) fn message_id(header: &[u8]) -> Option<String> {
    let value = field(header, "message-id")?;
    let id = std::str::from_utf8(value.trim_ascii()).ok()?;
    let inner = id.strip_prefix('<')?.strip_suffix('>')?;
    let (left, right) = inner.split_once('@')?;
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>@()\",;\\".contains(&byte))
    };
    (id.len() <= MESSAGE_ID_BYTES && fits(left) && fits(right)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &[u8], is_complete: bool, whole: bool, utf8: bool) -> (&'static str, &'static str, String) {
        let original = Original { bytes: text, is_complete, whole };
        let Part { kind, encoding, body } = original.part(original.header(), utf8);
        (kind, encoding.word(), String::from_utf8(body).unwrap())
    }

    #[test]
    fn what_comes_back_is_the_header_or_all_of_it() {
        let plain = b"Subject: tea\r\n\tand cake\n\nAt five.";
        let wide = "Subject: t\u{e9}\n\nAt \u{e9}.\n".as_bytes();
        let strange = b"Subject: \xff\n\nx\0\n";
        let header = |text: &str| text.to_owned();
        for (text, complete, whole, utf8, wanted) in [
            (&plain[..], true, false, false, ("text/rfc822-headers", "7bit", header("Subject: tea\n\tand cake\n"))),
            (plain, true, false, true, ("text/rfc822-headers", "7bit", header("Subject: tea\n\tand cake\n"))),
            (plain, false, true, false, ("text/rfc822-headers", "7bit", header("Subject: tea\n\tand cake\n"))),
            (plain, true, true, false, ("message/rfc822", "7bit", header("Subject: tea\n\tand cake\n\nAt five.\n"))),
            (wide, true, false, false, ("text/rfc822-headers", "quoted-printable", header("Subject: t=C3=A9\n"))),
            (wide, true, false, true, ("message/global-headers", "8bit", header("Subject: t\u{e9}\n"))),
            (wide, true, true, false, ("message/rfc822", "8bit", header("Subject: t\u{e9}\n\nAt \u{e9}.\n"))),
            (wide, true, true, true, ("message/global", "8bit", header("Subject: t\u{e9}\n\nAt \u{e9}.\n"))),
            (strange, true, true, true, ("text/rfc822-headers", "quoted-printable", header("Subject: =FF\n"))),
            (b"", true, true, false, ("message/rfc822", "7bit", header(""))),
            (b"\n", true, false, false, ("text/rfc822-headers", "7bit", header(""))),
        ] {
            assert_eq!(part(text, complete, whole, utf8), wanted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_line_or_comes_back_without_its_body() {
        let many = "X-Line: 34567890\n".repeat(1000);
        let (kind, _, body) = part(many.as_bytes(), true, false, false);
        assert_eq!((kind, body.len() % 17), ("text/rfc822-headers", 0));
        assert!(body.len() < HEADER_BYTES && body.len() > HEADER_BYTES - 20);
        let long = format!("X: {}\n\nbody\n", "x".repeat(2000));
        let (kind, encoding, body) = part(long.as_bytes(), true, true, false);
        assert_eq!((kind, encoding), ("text/rfc822-headers", "quoted-printable"));
        assert_eq!(body.replace("=\n", ""), long.split_once("\n\n").unwrap().0.to_owned() + "\n");
        assert!(body.lines().all(|line| line.len() <= QUOTED_BYTES));
        assert_eq!(part(format!("X: {}", "x".repeat(HEADER_BYTES)).as_bytes(), true, false, false).2, "");
    }

    #[test]
    fn fields_are_found_unfolded_and_only_a_clean_id_is_one() {
        let header = b"X-Subject: a\nSUBJECT : b\n\tc\n  d \nSubject: e\n";
        assert_eq!(field(header, "subject").as_deref(), Some(&b"b c d"[..]));
        assert_eq!(field(header, "to"), None);
        for (value, is_one) in [
            ("<a.b+c@x.test>", true),
            ("\n <a@[192.0.2.1]>", true),
            ("a@x", false),
            ("<a@x> <b@x>", false),
            ("<a@b@c>", false),
            ("<a b@x>", false),
            ("<@x>", false),
            ("<a\u{e9}@x>", false),
            ("<a@x>\nX: y", true),
            ("<a@x\r>", false),
        ] {
            let found = message_id(format!("Message-ID: {value}\n").as_bytes());
            assert_eq!(found.is_some(), is_one, "{value:?}: {found:?}");
        }
        assert_eq!(message_id(format!("Message-ID: <{}@x>\n", "a".repeat(250)).as_bytes()), None);
    }

    #[test]
    fn quoted_text_has_short_lines_and_no_blank_at_an_end() {
        for (text, wanted) in
            [("a=b\n", "a=3Db\n"), ("a \n\t\nb", "a=20\n=09\nb"), ("\r\n", "=0D\n"), ("\u{e9}\n", "=C3=A9\n"), ("", "")]
        {
            assert_eq!(String::from_utf8(quoted(text.as_bytes())).unwrap(), wanted, "{text:?}");
        }
        for length in 70..160 {
            for letter in ["x", "=", " ", "\u{e9}"] {
                let text = format!("{}\nend\n", letter.repeat(length));
                let out = String::from_utf8(quoted(text.as_bytes())).unwrap();
                assert!(out.lines().all(|line| line.len() <= QUOTED_BYTES && !line.ends_with(' ')), "{out}");
            }
        }
    }
}
