//! What a server says to its client, read as the work of an enemy: every bound has a name, and what is kept can be put into a
//! log line, a report or a terminal as it is.

use std::fmt;

/// Octets of a line of a reply, CRLF included. RFC 5321 §4.5.3.1.5 allows 512; who says more is out there.
pub const LINE_LIMIT: usize = 2_048;
/// Lines of one reply.
pub const LINES_LIMIT: u8 = 128;
/// Octets of its text that are kept.
pub const TEXT_LIMIT: usize = 500;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Box<str>,
}

/// An enhanced code (RFC 3463); its class is the first digit of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    /// What it is about.
    pub subject: u16,
    /// What exactly.
    pub detail: u16,
}

/// What a reply is no reply by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonsense {
    /// A line without three digits from 200 to 599 and a blank, a hyphen or nothing behind them.
    NoCode,
    /// A line longer than [`LINE_LIMIT`].
    LongLine,
    /// More than [`LINES_LIMIT`] lines.
    ManyLines,
    /// The lines have different codes.
    MixedCodes,
    /// Its code cannot be said to what was asked.
    OutOfPlace,
    /// Nothing was asked.
    Unasked,
}

impl Reply {
    /// The three digits, from 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether it says yes.
    pub fn is_good(&self) -> bool {
        self.code < 300
    }

    /// Whether it says no, for now or for good.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Whether it says no, for good.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The enhanced code, where there is one of the code's own class.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// What follows the codes, its lines with a blank between them: at most [`TEXT_LIMIT`] octets of printable ASCII, in which
    /// a `?` stands for each octet that is not.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Reply {
    /// As one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(Enhanced { subject, detail }) = self.enhanced {
            write!(f, " {}.{subject}.{detail}", self.code / 100)?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

impl fmt::Display for Nonsense {
    /// What is wrong, as the end of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Nonsense::NoCode => "a line of its reply has no code",
            Nonsense::LongLine => "a line of its reply is too long",
            Nonsense::ManyLines => "its reply has too many lines",
            Nonsense::MixedCodes => "the lines of its reply have different codes",
            Nonsense::OutOfPlace => "its reply does not belong to what it was asked",
            Nonsense::Unasked => "it said something that nobody asked for",
        })
    }
}

/// A reply that is being received.
#[derive(Debug)]
pub(super) struct Partly {
    code: u16,
    enhanced: Option<Enhanced>,
    lines: u8,
    text: String,
}

impl Partly {
    /// Takes a line. Gives what followed the code, and whether that was the reply's last line; `so_far` is what the lines
    /// before it made.
    pub(super) fn line<'l>(so_far: &mut Option<Box<Partly>>, line: &'l [u8]) -> Result<(&'l [u8], bool), Nonsense> {
        let (code, rest) = line.split_at_checked(3).ok_or(Nonsense::NoCode)?;
        if !matches!(code[0], b'2'..=b'5') || !code.iter().all(u8::is_ascii_digit) {
            return Err(Nonsense::NoCode);
        }
        let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(Nonsense::NoCode),
        };
        let (enhanced, words) = enhanced(code, text);
        match so_far {
            None => {
                let text = String::new();
                *so_far = Some(Box::new(Partly { code, enhanced, lines: 0, text }));
            }
            Some(partly) if partly.code != code => return Err(Nonsense::MixedCodes),
            Some(_) => {}
        }
        let partly = so_far.as_mut().expect("it was put there above");
        partly.lines += 1;
        if partly.lines > LINES_LIMIT {
            return Err(Nonsense::ManyLines);
        }
        // A further line's enhanced code is said once; another one is part of the text.
        partly.add(if enhanced == partly.enhanced { words } else { text });
        Ok((text, last))
    }

    /// It is whole.
    pub(super) fn finish(self) -> Reply {
        Reply { code: self.code, enhanced: self.enhanced, text: self.text.into() }
    }

    fn add(&mut self, words: &[u8]) {
        let room = TEXT_LIMIT - self.text.len();
        let blank = (!self.text.is_empty()).then_some(b' ');
        let shown = |byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
        self.text.extend(blank.into_iter().chain(words.iter().copied()).take(room).map(shown));
    }
}

/// The enhanced code that `text` begins with, and what follows it; all of `text` where it is none, or of another class.
fn enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let number = |part: Option<&[u8]>| {
        part.filter(|part| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit))
            .map(|part| part.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
    };
    let mut parts = text[..end].split(|&byte| byte == b'.');
    let (class, subject, detail) = (number(parts.next()), number(parts.next()), number(parts.next()));
    match (class, subject, detail, parts.next()) {
        (Some(class), Some(subject), Some(detail), None) if class == code / 100 => {
            (Some(Enhanced { subject, detail }), text[end..].strip_prefix(b" ").unwrap_or(&[]))
        }
        _ => (None, text),
    }
}
