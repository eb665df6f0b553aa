//! How a message's text arrives: the twin of [`dots`](super::dots). The text as it is stored, and where it ends.
//!
//! | on the wire                            | in the stored text                                          |
//! |----------------------------------------|-------------------------------------------------------------|
//! | CRLF                                   | LF                                                          |
//! | CRLF . CRLF, or . CRLF at the beginning | the end: nothing else is one                               |
//! | a dot after CRLF, other than that      | left out                                                    |
//! | a CR or LF that is no CRLF             | LF, or the message stops there ([`Bare::Reject`])           |
//! | a dot after such a CR or LF            | stays: it begins no line of the wire                        |
//! | NUL                                    | left out, or the message stops there ([`Bare::Reject`])     |
//!
//! So the stored text holds no CR and no NUL, and what one server takes for the end of a message and another does not (SMTP
//! smuggling) is for us always the latter. The text may come in any cuts: what cannot be judged yet, three bytes at most, is
//! left for the next time. The work is done in place, because text never grows on its way in.

use memchr::memchr3;

/// What becomes of line ends that are none, and of NULs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    /// A lone CR or LF is stored as a line end, a NUL is left out.
    Normalize,
    /// The message is not taken.
    Reject,
}

/// Why decoding went no further than it did, when it was not for want of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The message is whole.
    End,
    /// A CR or LF alone, under [`Bare::Reject`]. It is not taken.
    Bare,
    /// A NUL, under [`Bare::Reject`]. It is not taken.
    Nul,
}

/// What one call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// So many bytes of what was given are understood; the rest is to be given again, with more.
    pub taken: usize,
    /// So many bytes, at the front of what was given, are the text to be stored.
    pub kept: usize,
    /// Why there is no more.
    pub stop: Option<Stop>,
}

/// What has been counted of a message: all of it as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Its bytes.
    pub bytes: u64,
    /// Its lines.
    pub lines: u64,
    /// Those of its header, without the blank line.
    pub header_bytes: u64,
    /// Lines of its header.
    pub header_lines: u64,
    /// `Received:` lines of its header: the servers it has passed.
    pub hops: u64,
    /// The longest line, without its line end.
    pub longest_line: u64,
    /// Lone CRs and LFs that became line ends.
    pub bare: u64,
    /// NULs that were left out.
    pub nuls: u64,
}

impl Tally {
    /// Its size as RFC 1870 counts it: with CRLF line ends, without doubled dots.
    pub fn octets(&self) -> u64 {
        self.bytes + self.lines
    }
}

/// Decodes one message.
#[derive(Debug)]
pub struct DotDecoder {
    bare: Bare,
    /// The next byte is the first after CRLF: a dot is not text.
    line_start: bool,
    /// The blank line that ends the header has not come.
    header: bool,
    /// Bytes of the stored line so far.
    line: u64,
    /// How many of them are the beginning of [`HOP`].
    hop: usize,
    tally: Tally,
}

const HOP: &[u8] = b"received:";

impl DotDecoder {
    /// For one message.
    pub fn new(bare: Bare) -> DotDecoder {
        DotDecoder { bare, line_start: true, header: true, line: 0, hop: 0, tally: Tally::default() }
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        Tally { longest_line: self.tally.longest_line.max(self.line), ..self.tally }
    }

    /// Decodes in place what of `bytes` can be judged. Not to be called again once it has stopped.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Decoded {
        let (mut taken, mut kept) = (0, 0);
        let stop = loop {
            if self.line_start {
                match &bytes[taken..] {
                    [b'.', b'\r', b'\n', ..] => {
                        taken += 3;
                        break Some(Stop::End);
                    }
                    [] | [b'.'] | [b'.', b'\r'] => break None,
                    // RFC 5321 §4.5.2: the first of them is not text.
                    [b'.', ..] => taken += 1,
                    _ => {}
                }
                self.line_start = false;
            }
            let plain = memchr3(b'\r', b'\n', 0, &bytes[taken..]).unwrap_or(bytes.len() - taken);
            if taken != kept {
                bytes.copy_within(taken..taken + plain, kept);
            }
            self.count(&bytes[kept..kept + plain]);
            taken += plain;
            kept += plain;
            match &bytes[taken..] {
                [] | [b'\r'] => break None,
                [b'\r', b'\n', ..] => {
                    taken += 2;
                    self.line_start = true;
                }
                [0, ..] => {
                    if self.bare == Bare::Reject {
                        break Some(Stop::Nul);
                    }
                    self.tally.nuls += 1;
                    taken += 1;
                    continue;
                }
                _ => {
                    if self.bare == Bare::Reject {
                        break Some(Stop::Bare);
                    }
                    self.tally.bare += 1;
                    taken += 1;
                }
            }
            bytes[kept] = b'\n';
            kept += 1;
            self.count_line_end();
        };
        Decoded { taken, kept, stop }
    }

    /// Counts text within a line.
    fn count(&mut self, text: &[u8]) {
        if self.header && self.line == self.hop as u64 {
            let same = text.iter().zip(&HOP[self.hop..]).take_while(|(byte, hop)| byte.eq_ignore_ascii_case(hop));
            self.hop += same.count();
        }
        self.line += text.len() as u64;
        self.tally.bytes += text.len() as u64;
        if self.header {
            self.tally.header_bytes += text.len() as u64;
        }
    }

    fn count_line_end(&mut self) {
        self.tally.bytes += 1;
        self.tally.lines += 1;
        self.tally.longest_line = self.tally.longest_line.max(self.line);
        self.header &= self.line > 0;
        if self.header {
            self.tally.header_bytes += 1;
            self.tally.header_lines += 1;
            self.tally.hops += u64::from(self.hop == HOP.len());
        }
        self.line = 0;
        self.hop = 0;
    }
}

#[cfg(test)]
mod tests;
