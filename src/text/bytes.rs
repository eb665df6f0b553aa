//! The two buffers that every conversation shares: [`Input`], what the peer sent, and [`Output`], what it is owed.
//!
//! There is one of each in the whole loop. A connection's turn begins by loading what it had left over from the last one
//! and ends by saving what is left over now; an idle connection owns no buffer at all.

/// An `Output` at or above this asks for no more: the driver stops stepping the machine and pulling the body.
pub const HIGH: usize = 64 * 1024;
/// Most that `Input` holds: one TLS record and a half-read unit before it.
pub const INPUT_ROOM: usize = 32 * 1024;

/// Bytes received and not yet understood.
pub struct Input {
    bytes: Box<[u8]>,
    /// Bytes before this are understood. Never past `end`.
    start: usize,
    /// Bytes from here on are free room. Never past `bytes.len()`.
    end: usize,
}

impl Default for Input {
    fn default() -> Input {
        Input { bytes: vec![0; INPUT_ROOM].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Input {
    /// What has been received and not yet consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, for a decoder that works in place and then consumes what it has understood.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How much that is.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes are understood; they are gone at the next call that takes `&mut self`.
    pub fn consume(&mut self, count: usize) -> &[u8] {
        assert!(count <= self.len(), "consumed more than was received");
        let from = self.start;
        self.start += count;
        &self.bytes[from..from + count]
    }

    /// Forgets everything received so far.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Free room, at the end. Report what was filled with [`filled`](Input::filled).
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were written at the front of [`room`](Input::room).
    pub fn filled(&mut self, count: usize) {
        assert!(self.end + count <= self.bytes.len(), "filled more than there was room for");
        self.end += count;
    }

    /// Appends as much of `bytes` as there is room for, and says how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// Begins a turn with what the last one left over; `left` is empty and without allocation afterwards.
    pub fn load(&mut self, left: &mut Vec<u8>) {
        self.clear();
        if !left.is_empty() {
            let taken = self.push(left);
            debug_assert_eq!(taken, left.len(), "a connection keeps no more input than fits");
            *left = Vec::new();
        }
    }

    /// Ends a turn: what is not understood yet goes to the connection.
    pub fn save(&mut self, left: &mut Vec<u8>) {
        if !self.is_empty() {
            *left = self.bytes().to_vec();
        }
        self.clear();
    }
}

/// Bytes to be sent.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Bytes before this are sent. Never past `bytes.len()`.
    sent: usize,
}

impl Output {
    /// What is still to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// How much that is.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nobody should add to it until the peer has taken some.
    pub fn is_high(&self) -> bool {
        self.len() >= HIGH
    }

    /// What it holds on to, sent or not. Tests bound this, not the length.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds bytes to be sent.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reclaim(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The vector itself, for encoders that append; only appending is allowed.
    pub fn tail(&mut self, expected: usize) -> &mut Vec<u8> {
        self.reclaim(expected);
        &mut self.bytes
    }

    /// The first `count` bytes were taken by the socket.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.len(), "sent more than there was");
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// Begins a turn with what the last one could not send; `left` is empty and without allocation afterwards.
    pub fn load(&mut self, left: &mut Vec<u8>) {
        self.clear();
        if !left.is_empty() {
            self.bytes.extend_from_slice(left);
            *left = Vec::new();
        }
    }

    /// Ends a turn: what the socket would not take goes to the connection. Gives back what a long reply made it grow to.
    pub fn save(&mut self, left: &mut Vec<u8>) {
        if !self.is_empty() {
            *left = self.bytes().to_vec();
        }
        self.clear();
        self.bytes.shrink_to(4 * HIGH);
    }

    /// Moves the unsent part to the front when that makes room without growing: a vector whose sent prefix is never
    /// reclaimed grows by everything that passes through it.
    fn reclaim(&mut self, coming: usize) {
        if self.sent > 0 && self.bytes.len() + coming > self.bytes.capacity() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl std::fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_gives_back_room_and_keeps_order() {
        let mut input = Input::default();
        let mut left = b"abc".to_vec();
        input.load(&mut left);
        assert_eq!(left.capacity(), 0);
        assert_eq!(input.consume(2), b"ab");
        assert_eq!(input.push(&vec![b'x'; INPUT_ROOM]), INPUT_ROOM - 1);
        assert_eq!(input.bytes()[0], b'c');
        input.save(&mut left);
        assert_eq!(left.len(), INPUT_ROOM);
        assert!(input.is_empty());
    }

    #[test]
    fn output_capacity_stays_bounded_however_much_passes_through() {
        let mut output = Output::default();
        let mut total = 0;
        while total < 16 << 20 {
            while !output.is_high() {
                output.push(&[7; 1500]);
                total += 1500;
            }
            output.sent(output.len().min(4096));
        }
        assert!(output.capacity() <= 4 * HIGH, "grew to {}", output.capacity());
    }
}
