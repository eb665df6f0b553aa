//! Requests: lines from a pipe that may hold passwords.

use std::io::{self, Read};

use crate::text::secret::{Secret, wipe};

/// Lines from a pipe, in a buffer that is ours to wipe.
pub(in crate::program) struct Requests<R> {
    pub(in crate::program) input: R,
    /// As long as the longest line.
    pub(in crate::program) buffer: Vec<u8>,
    /// Bytes before this were read and not yet taken.
    pub(in crate::program) filled: usize,
    /// Inside a line that was too long and has been answered.
    pub(in crate::program) skipping: bool,
}

pub(in crate::program) enum Request {
    /// Without its line end.
    Line(Secret),
    TooLong,
    End,
}

impl<R: Read> Requests<R> {
    pub(in crate::program) fn next(&mut self) -> io::Result<Request> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                let line = self.buffer[..end].strip_suffix(b"\r").unwrap_or(&self.buffer[..end]);
                let line = Secret::from(line);
                self.forget(end + 1);
                if !std::mem::take(&mut self.skipping) {
                    return Ok(Request::Line(line));
                }
                continue;
            }
            if self.filled == self.buffer.len() {
                self.forget(self.filled);
                if !std::mem::replace(&mut self.skipping, true) {
                    return Ok(Request::TooLong);
                }
            }
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(Request::End),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn forget(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        wipe(&mut self.buffer[self.filled - count..self.filled]);
        self.filled -= count;
    }
}

impl<R> Drop for Requests<R> {
    fn drop(&mut self) {
        wipe(&mut self.buffer);
    }
}

// ---- the command line --------------------------------------------------------------------------------------------------
