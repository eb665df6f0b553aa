//! A message as a user's program submits it, and what is done to it as it passes (RFC 6409 §8).
//!
//! | submitted                                     | kept                                                         |
//! |-----------------------------------------------|--------------------------------------------------------------|
//! | `Bcc`, `Resent-Bcc`, with their folded lines  | left out                                                     |
//! | no `Date`, no `Message-ID`                    | they are put at the end of the header                        |
//! | a header without a blank line behind it, or none at all | where one is needed for what is added, it is put there |
//!
//! Everything else stays as it is, byte for byte. Lines end in LF. What is held between two pieces is the beginning of a line, until
//! it is known which field it is: never more than [`NAME_BYTES`].

/// The longest name of a field that we look for, and its colon; blanks before the colon count.
const NAME_BYTES: usize = 64;
/// What the recipients named in these fields are not to be seen by the others.
const BLIND: [&[u8]; 2] = [b"bcc", b"resent-bcc"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the beginning of a line of the header, some of which is held.
    Start,
    /// Within a field, or its folded lines.
    Field {
        kept: bool,
    },
    /// Behind a line end within a field: a blank goes on with it.
    Folding {
        kept: bool,
    },
    Body,
}

/// The text on its way. [`feed`](Submitted::feed) it in any pieces, then [`finish`](Submitted::finish).
#[derive(Debug)]
pub struct Submitted {
    place: Place,
    held: Vec<u8>,
    /// The field to be added, if there is none.
    date: Option<Box<str>>,
    id: Option<Box<str>>,
}

impl Submitted {
    /// `date` and `id` are what the fields say if there are none: a date, and an id with its angle brackets.
    pub fn new(date: &str, id: &str) -> Submitted {
        Submitted { place: Place::Start, held: Vec::new(), date: Some(date.into()), id: Some(id.into()) }
    }

    /// The next bytes of the message; what is kept of them is appended to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            match self.place {
                Place::Body => {
                    out.extend_from_slice(rest);
                    return;
                }
                Place::Folding { kept } if matches!(byte, b' ' | b'\t') => self.place = Place::Field { kept },
                Place::Folding { .. } => self.place = Place::Start,
                Place::Field { kept } => {
                    let end = memchr::memchr(b'\n', rest);
                    let (line, behind) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
                    if kept {
                        out.extend_from_slice(line);
                    }
                    if end.is_some() {
                        self.place = Place::Folding { kept };
                    }
                    rest = behind;
                }
                Place::Start => {
                    self.held.push(byte);
                    rest = &rest[1..];
                    match byte {
                        b'\n' if self.held.len() == 1 => self.end_header(out),
                        b':' => self.field(out),
                        // What no name is: no field, so this is the text.
                        b'\n' => self.no_field(out),
                        0..=8 | 10..=31 | 127.. => self.no_field(out),
                        _ if self.held.len() >= NAME_BYTES => self.long(out),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The message is whole.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        match self.place {
            Place::Body => {}
            Place::Start if !self.held.is_empty() => self.no_field(out),
            Place::Start | Place::Folding { .. } => _ = self.add(out),
            // Its last line has no end.
            Place::Field { kept } => {
                if kept {
                    out.push(b'\n');
                }
                _ = self.add(out);
            }
        }
    }

    /// The name of a field has come, with its colon.
    fn field(&mut self, out: &mut Vec<u8>) {
        let name = self.held[..self.held.len() - 1].trim_ascii_end();
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return self.no_field(out);
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let kept = !BLIND.into_iter().any(is);
        if is(b"date") {
            self.date = None;
        } else if is(b"message-id") {
            self.id = None;
        }
        if kept {
            out.append(&mut self.held);
        }
        self.held.clear();
        self.place = Place::Field { kept };
    }

    /// A line that begins with more than any name we look for: a field of a longer name, or no field. It stays as it is.
    fn long(&mut self, out: &mut Vec<u8>) {
        if self.held.iter().any(u8::is_ascii_whitespace) {
            return self.no_field(out);
        }
        out.append(&mut self.held);
        self.place = Place::Field { kept: true };
    }

    /// The blank line behind the header.
    fn end_header(&mut self, out: &mut Vec<u8>) {
        self.held.clear();
        _ = self.add(out);
        out.push(b'\n');
        self.place = Place::Body;
    }

    /// A line that is none of a header: the text begins here.
    fn no_field(&mut self, out: &mut Vec<u8>) {
        if self.add(out) {
            out.push(b'\n');
        }
        out.append(&mut self.held);
        self.place = Place::Body;
    }

    /// Adds what is missing; whether anything was.
    fn add(&mut self, out: &mut Vec<u8>) -> bool {
        let (date, id) = (self.date.take(), self.id.take());
        for (name, text) in [("Date", &date), ("Message-ID", &id)] {
            if let Some(text) = text {
                out.extend_from_slice(format!("{name}: {text}\n").as_bytes());
            }
        }
        date.is_some() || id.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Date: D\n";
    const ID: &str = "Message-ID: <i>\n";

    fn kept(pieces: &[&[u8]]) -> String {
        let (mut submitted, mut out) = (Submitted::new("D", "<i>"), Vec::new());
        pieces.iter().for_each(|piece| submitted.feed(piece, &mut out));
        submitted.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn blind_copies_go_and_what_is_missing_comes_whatever_the_cuts() {
        let both = format!("{DATE}{ID}");
        let long = format!("{}: x\n", "X".repeat(200));
        for (text, expected) in [
            ("Subject: x\n\nhi\n", format!("Subject: x\n{both}\nhi\n")),
            ("date: y\nMESSAGE-ID : <a@b>\n\nhi\n", "date: y\nMESSAGE-ID : <a@b>\n\nhi\n".into()),
            ("To: a\nBcc: b,\n\tc\n d\nCc: e\n f\n\nBcc: text\n", format!("To: a\nCc: e\n f\n{both}\nBcc: text\n")),
            ("bCC : b\nResent-Bcc: c\nBccs: d\n\n", format!("Bccs: d\n{both}\n")),
            ("To: a\nBcc: b", format!("To: a\n{both}")),
            ("To: a\nBcc: b\n c", format!("To: a\n{both}")),
            ("To: a", format!("To: a\n{both}")),
            ("To: a\n", format!("To: a\n{both}")),
            ("", both.clone()),
            ("\nhi\n", format!("{both}\nhi\n")),
            ("just text\nBcc: b\n", format!("{both}\njust text\nBcc: b\n")),
            ("words then: a colon\n", format!("{both}\nwords then: a colon\n")),
            ("To: a\nno field here\n", format!("To: a\n{both}\nno field here\n")),
            ("Date: y\nMessage-ID: <z>\nno field\n", "Date: y\nMessage-ID: <z>\nno field\n".into()),
            (&*format!("{long}Bcc: b\n\nhi"), format!("{long}{both}\nhi")),
            (&*format!("{}\n", "word ".repeat(40)), format!("{both}\n{}\n", "word ".repeat(40))),
            ("T\u{fc}: a\nBcc: b\n\n", format!("{both}\nT\u{fc}: a\nBcc: b\n\n")),
        ] {
            for cut in 0..=text.len() {
                assert_eq!(
                    kept(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]),
                    expected,
                    "{text:?} cut at {cut}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_and_little_is_held(text in "(Bcc|Date|To|x| |\t|:|\n|[a-z]{1,80}){0,40}", at in any::<prop::sample::Index>()) {
            let bytes = text.as_bytes();
            let cut = at.index(bytes.len() + 1);
            let whole = kept(&[bytes]);
            prop_assert_eq!(&kept(&[&bytes[..cut], &bytes[cut..]]), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&kept(&single), &whole);
            let (mut submitted, mut out) = (Submitted::new("D", "<i>"), Vec::new());
            for byte in bytes.chunks(1) {
                submitted.feed(byte, &mut out);
                prop_assert!(submitted.held.len() <= NAME_BYTES);
            }
        }
    }
}
