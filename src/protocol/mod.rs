//! F2: conversations without I/O. Bytes and times in; bytes, and one wish at a time, out.
//!
//! A [`Machine`] is one side of one conversation. It knows no socket, file, clock or log: `net` drives it over a byte
//! stream and a `service` does what it asks for. Whatever may be slow is an `Ask`, so a password that takes three
//! seconds, a drop of 400 MB to be scanned and a sync to disk look the same from in here.

pub mod control;
pub mod dns;
pub mod helper;
pub mod launcher;
pub mod pop3;
pub mod sasl;
pub mod smtp;

#[cfg(test)]
pub(crate) mod laws;

use std::time::Instant;

use crate::text::bytes::{HIGH, Input, Output};

/// Writes a formatted line.
macro_rules! say {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        // Writing into memory cannot fail.
        let _ = write!($out, $($arg)*);
        $out.push(b"\r\n");
    }};
}
pub(crate) use say;

/// One side of one conversation. Same bytes and same times in, same bytes out.
///
/// The driver's promise: after any call it goes on calling [`step`](Machine::step) until it gets `Input`, `Ask` or
/// `Close`; after `Ask` it calls [`answer`](Machine::answer) exactly once before the next `step` (twice where the host
/// sends a body: before it and after it); it calls nothing while `Output` has [`most_owed`](Machine::most_owed) or the host
/// holds. That is the whole of backpressure.
pub trait Machine {
    /// What it needs somebody to do: check a password, open a maildrop.
    type Ask;
    /// What it can be told back. Every ask can be answered with some failure.
    type Answer;

    /// The conversation begins: the greeting, or nothing.
    fn open(&mut self, now: Instant, out: &mut Output);
    /// Takes at most one unit from `input` and says what it wants next.
    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Self::Ask>;
    /// The answer to the last ask.
    fn answer(&mut self, now: Instant, answer: Self::Answer, out: &mut Output);
    /// It is over, and not by the peer's wish: a last line, or nothing.
    fn end(&mut self, now: Instant, why: End, out: &mut Output);
    /// Until when the peer may be silent. Moved only when a whole unit was understood.
    fn deadline(&self) -> Instant;
    /// Octets that the peer may be owed before it has to take some: nothing more is understood until then. At most [`HIGH`].
    fn most_owed(&self) -> usize {
        HIGH
    }
}

/// What a machine wants next.
#[must_use]
#[derive(Debug)]
pub enum Want<'i, A> {
    /// Every complete unit is consumed; more bytes, please.
    Input,
    /// One unit done, perhaps more; the driver looks at the output's level in between.
    Again,
    /// Do this for me; I stand still until `answer`.
    Ask(A),
    /// Message bytes to be stored, borrowed from the input.
    Data(&'i [u8]),
    /// Send what I wrote, then end politely.
    Close,
}

/// Why a conversation ends without the peer's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer was silent past the deadline.
    Silence,
    /// The same user came in anew and this peer was found dead.
    Replaced,
    /// An operator ended it.
    Kicked,
    /// The server stops.
    Shutdown,
    /// The server is short of something and this one was the cheapest to lose.
    Overload,
}

/// One line of a line protocol, cut off `input` with its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'i> {
    /// A whole line, without CRLF or LF.
    Whole(&'i [u8]),
    /// The line is longer than allowed. Said once a line; the rest of it is skipped.
    TooLong,
    /// No whole line yet.
    Partial,
}

/// Takes lines off an [`Input`], none longer than it is told, whatever the cuts.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line being received was too long and has been reported; drop its bytes up to the line end.
    skipping: bool,
}

impl Lines {
    /// The next line of at most `limit` octets, line end included.
    pub fn next<'i>(&mut self, input: &'i mut Input, limit: usize) -> Line<'i> {
        debug_assert!(limit < crate::text::bytes::INPUT_ROOM / 2, "a line must fit beside a TLS record");
        loop {
            let bytes = input.bytes();
            let end = memchr::memchr(b'\n', &bytes[..bytes.len().min(limit)]);
            match end {
                Some(at) if self.skipping => {
                    self.skipping = false;
                    input.consume(at + 1);
                }
                Some(at) => {
                    let line = &input.consume(at + 1)[..at];
                    return Line::Whole(line.strip_suffix(b"\r").unwrap_or(line));
                }
                None if bytes.len() < limit => {
                    if self.skipping {
                        input.clear();
                    }
                    return Line::Partial;
                }
                None => {
                    input.consume(limit);
                    if !self.skipping {
                        self.skipping = true;
                        return Line::TooLong;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    pub(crate) mod script;

    use super::*;

    fn lines(text: &[u8], cut: usize, limit: usize) -> Vec<String> {
        let (mut found, mut lines, mut input) = (Vec::new(), Lines::default(), Input::default());
        for part in [&text[..cut], &text[cut..]] {
            input.push(part);
            loop {
                match lines.next(&mut input, limit) {
                    Line::Whole(line) => found.push(String::from_utf8_lossy(line).into_owned()),
                    Line::TooLong => found.push("!".into()),
                    Line::Partial => break,
                }
            }
        }
        found
    }

    #[test]
    fn lines_are_the_same_at_every_cut_and_a_long_one_is_reported_once() {
        let text = b"a\r\n\nbb\ncccc\r\n123456789012345678901234567890\r\nd\r\r\nlast";
        for cut in 0..=text.len() {
            assert_eq!(lines(text, cut, 8), ["a", "", "bb", "cccc", "!", "d\r"], "cut at {cut}");
        }
    }
}
