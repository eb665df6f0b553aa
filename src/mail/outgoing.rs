//! A message as a program of this machine hands it over (cron, PHP, a mail reader), and what is done to it before it is sent.
//!
//! | handed over                                   | sent                                                         |
//! |-----------------------------------------------|--------------------------------------------------------------|
//! | LF, CRLF, or a lone CR                        | LF                                                           |
//! | NUL                                           | left out, as the server would                                |
//! | a line that is nothing but a dot              | the end, unless dots are text; after a lone CR it is text     |
//! | `From ann ...` as the very first line         | left out: an mbox file put it there                           |
//! | header without a blank line behind it, or none at all | one is put there; the text begins with the first line that is no field |
//! | `Bcc`, `Resent-Bcc`                           | left out                                                     |
//! | no `From`, `Date` or `Message-ID`             | they are added; `Resent-` ones where the message is sent on   |
//! | `root` for `root@example.com` in a list of mailboxes | completed                                             |
//!
//! Everything else stays as it is, byte for byte. The header is held, up to [`HEADER_LIMIT`]; the text behind it is handed on as
//! it comes.

use super::mailboxes::{Mailbox, NoList, mailboxes};

/// Bytes of a header. Fields with thousands of recipients fit.
pub const HEADER_LIMIT: usize = 1 << 20;
/// Bytes of a line in which a field's name has ended, as lines may be (RFC 5322 §2.1.1).
const NAME_LIMIT: usize = 998;

/// Fields that hold lists of mailboxes, where a domain may be missing.
const LISTS: &[&str] =
    &["From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"];

/// A message that is being handed over.
#[derive(Debug)]
pub struct Intake {
    /// A lone dot ends it.
    dots: bool,
    place: Place,
    /// The last byte was a CR that may be half of a CRLF.
    after_cr: bool,
    /// In the header: the line so far. In the text: a dot at a line's start, or nothing.
    held: Vec<u8>,
    /// The line that is being read began after a true line end, not after a lone CR.
    honest: bool,
    /// In the text: the next byte begins a line.
    line_start: bool,
    first_line: bool,
    taken: Handed,
    too_big: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Text,
    Ended,
}

/// A message that was handed over, without its text.
#[derive(Debug, Default)]
pub struct Handed {
    /// Its header.
    pub header: Header,
    /// Bytes of its text, with LF line ends.
    pub text_bytes: u64,
    /// Lines of its text.
    pub text_lines: u64,
    /// Something beyond ASCII is in it, header or text.
    pub eight_bit: bool,
}

/// The fields of a message, in their order.
#[derive(Debug, Default, Clone)]
pub struct Header {
    /// Each with its name, its continuation lines and its last LF.
    fields: Vec<Vec<u8>>,
    bytes: usize,
}

/// The header is larger than [`HEADER_LIMIT`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooBig;

/// What is put into a message that lacks it.
#[derive(Debug, Clone, Copy)]
pub struct Lacking<'a> {
    /// Who sends it, as a `From` field has it.
    pub from: &'a str,
    /// Now, as a `Date` field has it.
    pub date: &'a str,
    /// An id, with its angle brackets.
    pub id: &'a str,
    /// The domain of names that have none.
    pub domain: &'a str,
}

impl Intake {
    /// Before the first byte. `dots`: a line that is a dot ends the message.
    pub fn new(dots: bool) -> Intake {
        Intake {
            dots,
            place: Place::Header,
            after_cr: false,
            held: Vec::new(),
            honest: true,
            line_start: true,
            first_line: true,
            taken: Handed::default(),
            too_big: false,
        }
    }

    /// The next bytes; what of them is text is appended to `out`. Says whether more is wanted.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in bytes {
            if self.place == Place::Ended {
                break;
            }
            if std::mem::take(&mut self.after_cr) {
                self.line_end(byte == b'\n', out);
                if byte == b'\n' || self.place == Place::Ended {
                    continue;
                }
            }
            match byte {
                b'\r' => self.after_cr = true,
                b'\n' => self.line_end(true, out),
                0 => {}
                _ => self.put(byte, out),
            }
        }
        self.place != Place::Ended && !self.too_big
    }

    /// The message is over.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Handed, TooBig> {
        let open = match self.place {
            Place::Header => !self.held.is_empty(),
            Place::Text => !self.line_start || !self.held.is_empty(),
            Place::Ended => false,
        };
        if self.after_cr || open {
            self.line_end(true, out);
        }
        if self.too_big { Err(TooBig) } else { Ok(self.taken) }
    }

    fn put(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.taken.eight_bit |= !byte.is_ascii();
        match self.place {
            Place::Header if self.held.len() + self.taken.header.bytes >= HEADER_LIMIT => self.too_big = true,
            Place::Header => {
                self.held.push(byte);
                // Text without a header before it may be one line without end.
                if self.held.len() == NAME_LIMIT && !is_field(&self.held) && !is_folded(&self.held) {
                    self.begin_text(out);
                }
            }
            Place::Text => {
                if std::mem::take(&mut self.line_start) && byte == b'.' && self.honest && self.dots {
                    self.held.push(byte);
                    return;
                }
                self.release(out);
                self.taken.text_bytes += 1;
                out.push(byte);
            }
            Place::Ended => {}
        }
    }

    fn line_end(&mut self, honest: bool, out: &mut Vec<u8>) {
        let ends = self.dots && self.held == b"." && self.honest && honest;
        self.honest = honest;
        if ends {
            self.held.clear();
            self.place = Place::Ended;
        } else if self.place == Place::Header {
            self.header_line(out);
        } else {
            self.text_line_end(out);
        }
    }

    fn text_line_end(&mut self, out: &mut Vec<u8>) {
        self.release(out);
        out.push(b'\n');
        self.taken.text_bytes += 1;
        self.taken.text_lines += 1;
        self.line_start = true;
    }

    /// A dot that was held back ends nothing.
    fn release(&mut self, out: &mut Vec<u8>) {
        self.taken.text_bytes += self.held.len() as u64;
        out.append(&mut self.held);
    }

    fn header_line(&mut self, out: &mut Vec<u8>) {
        let first = std::mem::take(&mut self.first_line);
        let header = &mut self.taken.header;
        if self.held.is_empty() {
            self.place = Place::Text;
        } else if first && self.held.starts_with(b"From ") {
            self.held.clear();
        } else if is_folded(&self.held) && !header.fields.is_empty() {
            self.held.push(b'\n');
            header.bytes += self.held.len();
            header.fields.last_mut().expect("looked at above").append(&mut self.held);
        } else if is_field(&self.held) {
            self.held.push(b'\n');
            header.bytes += self.held.len();
            header.fields.push(std::mem::take(&mut self.held));
        } else {
            self.begin_text(out);
            self.text_line_end(out);
        }
    }

    /// The line so far is no field: the text begins with it.
    fn begin_text(&mut self, out: &mut Vec<u8>) {
        self.place = Place::Text;
        self.line_start = false;
        self.release(out);
    }
}

/// Whether a line begins as a field does: a name, perhaps a blank, a colon (RFC 5322 §4.5).
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().position(|&byte| byte == b':').map_or(&[][..], |colon| &line[..colon]);
    let name = name.trim_ascii_end();
    !name.is_empty() && name.iter().all(|byte| matches!(byte, b'!'..=b'~'))
}

fn is_folded(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

/// What is behind the colon of a field, and where that begins.
fn body_of<'f>(field: &'f [u8], name: &str) -> Option<(usize, &'f [u8])> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    let is_it = field[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes());
    is_it.then(|| (colon + 1, &field[colon + 1..]))
}

impl Header {
    /// How many fields have this name.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|field| body_of(field, name).is_some()).count()
    }

    /// Where the first field is that says the message is sent on by somebody (RFC 5322 §3.6.6).
    fn resent(&self) -> Option<usize> {
        self.fields.iter().position(|field| field.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"resent-")))
    }

    /// Whom the message itself names: `To`, `Cc` and `Bcc`; where it is sent on, the `Resent-` ones alone. `Err` names the field
    /// that is no list.
    pub fn recipients(&self) -> Result<Vec<Mailbox>, String> {
        let names =
            if self.resent().is_some() { ["Resent-To", "Resent-Cc", "Resent-Bcc"] } else { ["To", "Cc", "Bcc"] };
        let mut found = Vec::new();
        for field in &self.fields {
            for name in names {
                if let Some((_, body)) = body_of(field, name) {
                    found.extend(mailboxes(body).map_err(|NoList(_)| name.to_owned())?);
                }
            }
        }
        Ok(found)
    }

    /// Takes out what nobody shall see, puts in what is missing.
    pub fn complete(&mut self, lacking: &Lacking<'_>) {
        self.fields.retain(|field| body_of(field, "Bcc").is_none() && body_of(field, "Resent-Bcc").is_none());
        for field in &mut self.fields {
            if let Some((from, body)) = LISTS.iter().find_map(|name| body_of(field, name)) {
                let bare = |mailbox: &Mailbox| mailbox.domain.is_none() && !mailbox.local.is_empty();
                let ends =
                    mailboxes(body).unwrap_or_default().into_iter().filter(bare).map(|mailbox| mailbox.local_end);
                let mut ends: Vec<usize> = ends.collect();
                // Built anew in one go: a list may have thousands.
                let Some(last) = ends.pop() else { continue };
                let mut whole = field[..from].to_vec();
                let mut begun = 0;
                for end in ends.into_iter().chain([last]) {
                    whole.extend_from_slice(&body[begun..end]);
                    whole.push(b'@');
                    whole.extend_from_slice(lacking.domain.as_bytes());
                    begun = end;
                }
                whole.extend_from_slice(&body[begun..]);
                *field = whole;
            }
        }
        let Lacking { from, date, id, .. } = *lacking;
        if let Some(mut at) = self.resent() {
            for (name, value) in [("Resent-From", from), ("Resent-Date", date), ("Resent-Message-ID", id)] {
                if self.count(name) == 0 {
                    self.fields.insert(at, format!("{name}: {value}\n").into_bytes());
                    at += 1;
                }
            }
        }
        for (name, value) in [("From", from), ("Date", date), ("Message-ID", id)] {
            if self.count(name) == 0 {
                self.fields.push(format!("{name}: {value}\n").into_bytes());
            }
        }
    }

    /// All of it, and the blank line.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.fields.concat();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LACKING: Lacking<'static> =
        Lacking { from: "\"Ann\" <ann@h>", date: "Mon, 05 Jan 2026 10:00:00 +0000", id: "<1@h>", domain: "h" };

    fn taken(input: &[u8], dots: bool, cut: usize) -> (Handed, String) {
        let mut intake = Intake::new(dots);
        let mut text = Vec::new();
        for piece in input.chunks(cut.max(1)) {
            intake.feed(piece, &mut text);
        }
        let handed = intake.finish(&mut text).unwrap();
        assert_eq!(handed.text_bytes, text.len() as u64);
        assert_eq!(handed.text_lines, text.iter().filter(|&&byte| byte == b'\n').count() as u64);
        (handed, String::from_utf8(text).unwrap())
    }

    fn split(input: &str, dots: bool) -> (String, String) {
        let (handed, text) = taken(input.as_bytes(), dots, 4096);
        for cut in 1..input.len() {
            let (again, same) = taken(input.as_bytes(), dots, cut);
            assert_eq!(
                (again.header.bytes(), again.eight_bit, same),
                (handed.header.bytes(), handed.eight_bit, text.clone())
            );
        }
        (String::from_utf8(handed.header.bytes()).unwrap(), text)
    }

    #[test]
    fn header_and_text_are_told_apart() {
        for (input, header, text) in [
            ("", "\n", ""),
            ("hello", "\n", "hello\n"),
            ("hello\nthere: x\n", "\n", "hello\nthere: x\n"),
            ("\nhello\n", "\n", "hello\n"),
            ("A: b\n\nhello\n", "A: b\n\n", "hello\n"),
            ("A: b\r\n\r\nhello\r\n", "A: b\n\n", "hello\n"),
            ("A: b\nhello\n", "A: b\n\n", "hello\n"),
            ("A: b\n c\n\td\nE : f\n\n", "A: b\n c\n\td\nE : f\n\n", ""),
            (" a\nB: c\n", "\n", " a\nB: c\n"),
            ("From ann Mon Jan  5 10:00:00 2026\nA: b\n\nFrom x\n", "A: b\n\n", "From x\n"),
            ("A: b\nFrom ann Mon\n", "A: b\n\n", "From ann Mon\n"),
            ("A: b\n\na\rb\0c\n", "A: b\n\n", "a\nbc\n"),
            ("A: b\n\n\r\r\n", "A: b\n\n", "\n\n"),
            ("A: b", "A: b\n\n", ""),
            ("A: b\n\nx\r", "A: b\n\n", "x\n"),
            (": x\n", "\n", ": x\n"),
            ("a b: x\n", "\n", "a b: x\n"),
            ("http://x\n", "http://x\n\n", ""),
        ] {
            assert_eq!(split(input, true), (header.to_owned(), text.to_owned()), "{input:?}");
        }
    }

    #[test]
    fn a_lone_dot_ends_a_message_only_where_it_is_told_to() {
        for (input, with, without) in [
            ("A: b\n\nx\n.\ny\n", "x\n", "x\n.\ny\n"),
            ("A: b\n\nx\r\n.\r\ny\n", "x\n", "x\n.\ny\n"),
            ("A: b\n\nx\n..\n. \n.y\n", "x\n..\n. \n.y\n", "x\n..\n. \n.y\n"),
            ("A: b\n\nx\n.", "x\n", "x\n.\n"),
            ("A: b\n\n.\nx", "", ".\nx\n"),
            ("A: b\n\nx\r.\ny\n", "x\n.\ny\n", "x\n.\ny\n"),
            ("A: b\n\nx\n.\ry\n", "x\n.\ny\n", "x\n.\ny\n"),
            ("A: b\n\nx.\ny\n", "x.\ny\n", "x.\ny\n"),
        ] {
            assert_eq!(split(input, true).1, with, "{input:?}");
            assert_eq!(split(input, false).1, without, "{input:?}");
        }
        assert_eq!(split("A: b\n.\nC: d\n", true), ("A: b\n\n".to_owned(), String::new()));
        assert_eq!(split("A: b\n.\nC: d\n", false), ("A: b\n\n".to_owned(), ".\nC: d\n".to_owned()));
    }

    fn completed(header: &str) -> String {
        let (mut handed, _) = taken(header.as_bytes(), true, 4096);
        handed.header.complete(&LACKING);
        String::from_utf8(handed.header.bytes()).unwrap()
    }

    #[test]
    fn what_is_missing_is_put_in_and_what_is_private_taken_out() {
        assert_eq!(
            completed("Subject: x\nBCC: carl\nTo: bob\n"),
            "Subject: x\nTo: bob@h\nFrom: \"Ann\" <ann@h>\nDate: Mon, 05 Jan 2026 10:00:00 +0000\nMessage-ID: <1@h>\n\n"
        );
        let whole = "From: root@h (Cron)\nDate: today\nmessage-id: <2@h>\nTo: a@b,\n c@d\n\n";
        assert_eq!(completed(whole), whole);
        assert_eq!(
            completed(
                "From: root (Cron Daemon)\nDate: d\nMessage-ID: <2>\nTo: a, B <b>,\n c@d, e\nCc: no list at all\n"
            ),
            "From: root@h (Cron Daemon)\nDate: d\nMessage-ID: <2>\nTo: a@h, B <b@h>,\n c@d, e@h\nCc: no list at all\n\n"
        );
        assert_eq!(
            completed("Received: x\nResent-To: bob\nResent-Bcc: carl\nFrom: z@z\nDate: d\nMessage-ID: <2>\n"),
            "Received: x\nResent-From: \"Ann\" <ann@h>\nResent-Date: Mon, 05 Jan 2026 10:00:00 +0000\n\
             Resent-Message-ID: <1@h>\nResent-To: bob@h\nFrom: z@z\nDate: d\nMessage-ID: <2>\n\n"
        );
    }

    #[test]
    fn the_message_names_its_recipients() {
        let names = |header: &str| {
            let (handed, _) = taken(header.as_bytes(), true, 4096);
            let list = handed.header.recipients()?;
            Ok(list.into_iter().map(|one| String::from_utf8(one.local).unwrap()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("To: a@x, b\nbcc: C <c@x>\nCc: G: d@x;\n\nTo: e\n"), Ok("a b c d".to_owned()));
        assert_eq!(names("To: a\nResent-To: b\nResent-Bcc: c\nTo: d\n"), Ok("b c".to_owned()));
        assert_eq!(names("Subject: a\n"), Ok(String::new()));
        assert_eq!(names("Cc: a b c\n"), Err("Cc".to_owned()));
    }

    #[test]
    fn a_header_has_a_bound_and_a_text_without_one_has_none() {
        let big = |line: &[u8]| {
            let mut intake = Intake::new(true);
            let mut text = Vec::new();
            let mut more = true;
            while more && text.len() < 2 * HEADER_LIMIT {
                more = intake.feed(line, &mut text);
            }
            (intake.finish(&mut text).err(), text.len() > HEADER_LIMIT)
        };
        assert_eq!(big(b"A: b\n"), (Some(TooBig), false));
        assert_eq!(big(b"A:b"), (Some(TooBig), false));
        assert_eq!(big(b"x"), (None, true));
        assert_eq!(big(b"hello\n"), (None, true));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_and_no_text_is_lost(
            words in proptest::collection::vec("\r|\n|\r\n|\\.|\n\\.\n|A: b\n|To: x\n| |From |ab|\0|ü", 0..24), dots: bool, cut in 1usize..9,
        ) {
            let input = words.concat();
            let (whole, text) = taken(input.as_bytes(), dots, 4096);
            let (pieces, same) = taken(input.as_bytes(), dots, cut);
            prop_assert_eq!(&text, &same);
            prop_assert_eq!(whole.header.bytes(), pieces.header.bytes());
            prop_assert!(text.is_empty() || text.ends_with('\n'));
            if !dots {
                // Blank lines and the first From_ line aside, every letter is somewhere.
                let letters = |text: &str| text.chars().filter(|c| !"\r\n\0".contains(*c)).collect::<String>();
                let mut all = String::from_utf8(whole.header.bytes()).unwrap() + &text;
                let first = input.split(['\r', '\n']).next().unwrap_or_default().replace('\0', "");
                if first.starts_with("From ") {
                    all.insert_str(0, &first);
                }
                prop_assert_eq!(letters(&all), letters(&input));
            }
        }
    }
}
