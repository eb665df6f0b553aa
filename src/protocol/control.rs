//! The control socket, the server's side. No I/O: see [`Machine`].
//!
//! One command line in, one report out, and the conversation is over:
//!
//! ```text
//! C: status --json
//! S: +OK 412            (or -ERR 412: the report says what is wrong)
//! S: 412 octets of report
//! ```
//!
//! The command is words parted by blanks; a word may be quoted with `"` and a quote or backslash in it escaped by a
//! backslash. The report is text for a person, or JSON where `--json` was among the words.

use std::time::{Duration, Instant};

use crate::protocol::{End, Line, Lines, Machine, Want};
use crate::text::bytes::{Input, Output};

/// A command line's octets.
pub const LINE_LIMIT: usize = 4096;
/// How long somebody who connects may take to send a command. A command itself takes as long as whoever carries it out says.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A command to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask(pub Vec<String>);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was done.
    pub done: bool,
    /// The report.
    pub text: String,
}

/// The server's side of one control conversation.
#[derive(Debug)]
pub struct Control {
    lines: Lines,
    over: bool,
    deadline: Instant,
}

impl Control {
    /// A conversation that begins now.
    pub fn new(now: Instant) -> Control {
        Control { lines: Lines::default(), over: false, deadline: now + PATIENCE }
    }

    fn report(&mut self, done: bool, text: &str, out: &mut Output) {
        let verdict = if done { "+OK" } else { "-ERR" };
        out.push(format!("{verdict} {}\n", text.len()).as_bytes());
        out.push(text.as_bytes());
        self.over = true;
    }
}

impl Machine for Control {
    type Ask = Ask;
    type Answer = Answer;

    fn open(&mut self, _now: Instant, _out: &mut Output) {}

    fn step<'i>(&mut self, _now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        if self.over {
            return Want::Close;
        }
        match self.lines.next(input, LINE_LIMIT) {
            Line::Partial => Want::Input,
            Line::TooLong => {
                self.report(false, "command too long\n", out);
                Want::Again
            }
            Line::Whole(line) => match std::str::from_utf8(line).ok().and_then(words) {
                Some(words) if !words.is_empty() => Want::Ask(Ask(words)),
                _ => {
                    self.report(false, "not a command line\n", out);
                    Want::Again
                }
            },
        }
    }

    fn answer(&mut self, _now: Instant, answer: Answer, out: &mut Output) {
        self.report(answer.done, &answer.text, out);
    }

    fn end(&mut self, _now: Instant, why: End, out: &mut Output) {
        if why == End::Shutdown && !self.over {
            self.report(false, "the server is stopping\n", out);
        }
        self.over = true;
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The words of a command line, or `None` when a quote is left open.
pub fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            '\\' if quoted => word.push(chars.next()?),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    (!quoted).then_some(words)
}

/// A command line of these words: the other direction of [`words`], without its line end.
pub fn line<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quote = |word: &str| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The client's side of the heading: whether the command was done, and the octets of the report.
pub fn heading(line: &[u8]) -> Option<(bool, usize)> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (verdict, octets) = text.split_once(' ')?;
    let done = match verdict {
        "+OK" => true,
        "-ERR" => false,
        _ => return None,
    };
    Some((done, octets.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_line() {
        for case in [vec!["status"], vec!["a b", "", "q\"q", "b\\s", "é"], vec!["--json", "stats"]] {
            let line = line(case.iter().copied());
            assert_eq!(words(&line).unwrap(), case, "{line}");
        }
        assert_eq!(words("status  --json ").unwrap(), ["status", "--json"]);
        assert_eq!(words("\"open"), None);
    }
}
