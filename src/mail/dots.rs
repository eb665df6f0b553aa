//! How stored text leaves: line ends as CRLF, a dot at a line start doubled, and the dot that ends it all.
//!
//! The bytes may come in any cuts. Taking the doubled dots out again gives exactly the octets that the index promised.
//! A CR that stands before an LF in the file is not doubled; a bare CR passes as it is and ends no line.

use memchr::{memchr_iter, memmem};

/// Encodes one message. Made once, fed until [`is_full`](DotEncoder::is_full) or the text is over, finished once.
pub struct DotEncoder {
    /// The next byte begins a line.
    line_start: bool,
    /// The last byte was a CR.
    after_cr: bool,
    /// The text is known to hold only CRLF line ends.
    verbatim: bool,
    top: Option<Top>,
}

/// How much of it TOP wants.
struct Top {
    /// The blank line that ends the header has not come.
    header: bool,
    /// Body lines still wanted.
    lines: u64,
    /// Bytes of the current line so far, in the file.
    line_bytes: u64,
}

impl DotEncoder {
    /// For the whole text. `verbatim` promises that every line end in it is CRLF, which makes it a copy with a search.
    pub fn whole(verbatim: bool) -> DotEncoder {
        // RFC 1939 §3: a line starting with the termination octet is stuffed. We start at a line start, so that a
        // message whose first byte is a dot, and an empty message, come out right.
        DotEncoder { line_start: true, after_cr: false, verbatim, top: None }
    }

    /// For the header, the blank line, and `lines` lines of the body.
    pub fn top(lines: u64) -> DotEncoder {
        DotEncoder { top: Some(Top { header: true, lines, line_bytes: 0 }), ..DotEncoder::whole(false) }
    }

    /// Appends what `bytes`, the next of the text, are on the wire. Bytes beyond what TOP wants are left out.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let wanted = match &mut self.top {
            Some(top) => top.take(bytes, self.after_cr),
            None => bytes.len(),
        };
        let bytes = &bytes[..wanted];
        let Some(&last) = bytes.last() else { return };
        if self.verbatim {
            self.copy(bytes, out);
        } else {
            self.convert(bytes, out);
        }
        self.line_start = last == b'\n';
        self.after_cr = last == b'\r';
    }

    /// Whether nothing more of the text is wanted.
    pub fn is_full(&self) -> bool {
        self.top.as_ref().is_some_and(|top| !top.header && top.lines == 0)
    }

    /// The text is over: a missing line end, the blank line that TOP owes after a header without one, the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        self.end_line(out);
        out.extend_from_slice(b".\r\n");
    }

    /// The same without the dot, where somebody else says it.
    pub fn end_line(self, out: &mut Vec<u8>) {
        if !self.line_start {
            out.extend_from_slice(b"\r\n");
        }
        if self.top.is_some_and(|top| top.header) {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn convert(&self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() + bytes.len() / 16 + 64);
        let mut line_start = self.line_start;
        let mut after_cr = self.after_cr;
        let mut from = 0;
        for end in memchr_iter(b'\n', bytes) {
            if line_start && bytes[from] == b'.' {
                out.push(b'.');
            }
            out.extend_from_slice(&bytes[from..end]);
            let crlf = if end > from { bytes[end - 1] == b'\r' } else { after_cr };
            out.extend_from_slice(if crlf { b"\n" } else { b"\r\n" });
            line_start = true;
            after_cr = false;
            from = end + 1;
        }
        if from < bytes.len() {
            if line_start && bytes[from] == b'.' {
                out.push(b'.');
            }
            out.extend_from_slice(&bytes[from..]);
        }
    }

    fn copy(&self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() + 64);
        if self.line_start && bytes[0] == b'.' {
            out.push(b'.');
        }
        let mut from = 0;
        for hit in memmem::find_iter(bytes, b"\n.") {
            out.extend_from_slice(&bytes[from..hit + 1]);
            out.push(b'.');
            from = hit + 1;
        }
        out.extend_from_slice(&bytes[from..]);
    }
}

impl Top {
    /// How many of the next bytes are wanted.
    fn take(&mut self, bytes: &[u8], after_cr: bool) -> usize {
        if !self.header && self.lines == 0 {
            return 0;
        }
        let mut from = 0;
        for end in memchr_iter(b'\n', bytes) {
            let length = self.line_bytes + (end - from) as u64;
            let cr = if end > 0 { bytes[end - 1] == b'\r' } else { after_cr };
            self.line_bytes = 0;
            from = end + 1;
            if !self.header {
                self.lines -= 1;
            } else if length == 0 || length == 1 && cr {
                self.header = false;
            }
            if !self.header && self.lines == 0 {
                return from;
            }
        }
        self.line_bytes += (bytes.len() - from) as u64;
        bytes.len()
    }
}

#[cfg(test)]
mod tests;
