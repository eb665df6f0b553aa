//! The text of a message on its way to another host: our Received field, then the text as it came, its lines ended by CRLF and its
//! dots doubled. Read without waiting; what is not in memory is fetched by a job.
//!
//! The queue's texts end their lines with LF. Where a hand, or an older program, left a CR or a NUL in one: a CR, alone or before
//! an LF, is a line's end, and a NUL is left out. So nothing leaves that one server takes for the end of a message and another
//! does not.
//!
//! It always goes by DATA: the next host answers to the message the same either way, BDAT would need the exact number of octets,
//! which is only known when the whole text has been read, and every server has DATA.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memchr::{memchr_iter, memchr2};

use crate::mail::dots::DotEncoder;
use crate::net::stream::{Body, Pull};
use crate::service::deliver::body::Source;
use crate::service::deliver::lanes::Message;
use crate::sys::files;
use crate::text::bytes::Output;

/// How much a job reads when memory had nothing, and how much of a text is looked at to see whether it is 8-bit.
const FETCH_BYTES: u64 = 64 * 1024;

/// See the page.
pub struct Letter {
    message: Arc<Message>,
    /// Bytes that were given: first of the Received field, then of the text.
    at: u64,
    /// `None` after the last line.
    dots: Option<DotEncoder>,
    /// The last byte was a CR.
    after_cr: bool,
    /// What a job brought from `at` on.
    supplied: Vec<u8>,
    fault: Option<io::Error>,
}

/// What a job brought, and from where on.
pub struct Piece(u64, io::Result<Vec<u8>>);

impl Letter {
    /// A text from its beginning.
    pub(super) fn new(message: Arc<Message>) -> Letter {
        let dots = Some(DotEncoder::whole(false));
        Letter { message, at: 0, dots, after_cr: false, supplied: Vec::new(), fault: None }
    }

    /// What a job is to read next.
    pub(super) fn fetch(&self) -> impl FnOnce() -> Piece + Send + 'static {
        let (message, at) = (self.message.clone(), self.at);
        move || {
            let offset = at.saturating_sub(message.received.len() as u64);
            Piece(at, read(&message, offset))
        }
    }

    /// What it read.
    pub(super) fn supply(&mut self, piece: Piece) {
        match piece {
            Piece(at, Ok(bytes)) if at == self.at => self.supplied = bytes,
            Piece(_, Ok(_)) => {}
            Piece(_, Err(error)) => self.fault = Some(error),
        }
    }

    /// It could not be read.
    pub(super) fn lose(&mut self) {
        self.fault.get_or_insert_with(|| io::Error::other("a fault of ours ended the job"));
    }

    /// Why it broke, if it did.
    pub(super) fn fault(&self) -> Option<&io::Error> {
        self.fault.as_ref()
    }

    /// Appends the next bytes as they go over the wire.
    fn push(&mut self, bytes: &[u8], out: &mut Output) {
        let Some(dots) = &mut self.dots else { return };
        let room = out.tail(bytes.len() + bytes.len() / 16 + 64);
        if !self.after_cr && memchr2(b'\r', 0, bytes).is_none() {
            return dots.push(bytes, room);
        }
        let mut clean = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\r' => clean.push(b'\n'),
                0 => continue,
                byte => clean.push(byte),
            }
            self.after_cr = byte == b'\r';
        }
        dots.push(&clean, room);
    }
}

impl Body for Letter {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        if self.fault.is_some() {
            return Pull::Broken;
        }
        let message = self.message.clone();
        let head = message.received.len() as u64;
        if self.at < head {
            self.push(&message.received, out);
            self.at = head;
            return Pull::More;
        }
        let offset = self.at - head;
        let read = match message.text.source() {
            Source::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let piece = &bytes[from..(from + scratch.len()).min(bytes.len())];
                self.push(piece, out);
                piece.len()
            }
            Source::File(..) if !self.supplied.is_empty() => {
                let supplied = std::mem::take(&mut self.supplied);
                self.push(&supplied, out);
                supplied.len()
            }
            Source::File(file, range) => {
                let most = (range.end - range.start).saturating_sub(offset).min(scratch.len() as u64) as usize;
                match files::read_now(file, &mut scratch[..most], range.start + offset) {
                    Ok(0) if most > 0 => {
                        self.fault = Some(io::ErrorKind::UnexpectedEof.into());
                        return Pull::Broken;
                    }
                    Ok(read) => {
                        self.push(&scratch[..read], out);
                        read
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pull::Cold,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(error) => {
                        self.fault = Some(error);
                        return Pull::Broken;
                    }
                }
            }
        };
        self.at += read as u64;
        if self.at < head + message.text.bytes() {
            return Pull::More;
        }
        if let Some(dots) = self.dots.take() {
            dots.end_line(out.tail(4));
        }
        Pull::Last
    }
}

/// A piece of the text, however long the disk takes. In a job.
fn read(message: &Message, offset: u64) -> io::Result<Vec<u8>> {
    match message.text.source() {
        Source::Memory(bytes) => Ok(bytes[usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())..].to_vec()),
        Source::File(file, range) => {
            let bytes = (range.end - range.start).saturating_sub(offset).min(FETCH_BYTES);
            let mut piece = vec![0; bytes as usize];
            file.read_exact_at(&mut piece, range.start + offset)?;
            Ok(piece)
        }
    }
}

/// Octets that it has at least on its way: all of them, when it is in memory.
pub(super) fn octets(message: &Message) -> u64 {
    let lines = |bytes: &[u8]| memchr_iter(b'\n', bytes).count() as u64;
    let more = match message.text.source() {
        Source::Memory(bytes) => lines(bytes),
        Source::File(..) => 0,
    };
    message.octets() + lines(&message.received) + more
}

/// Whether it has octets above 127, where that can be seen without waiting; else what its sender said.
pub(super) fn is_eight_bit(message: &Message, said: bool) -> bool {
    if !message.received.is_ascii() {
        return true;
    }
    match message.text.source() {
        Source::Memory(bytes) => !bytes.is_ascii(),
        Source::File(file, range) if range.end - range.start <= FETCH_BYTES => {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            match files::read_now(file, &mut bytes, range.start) {
                Ok(read) if read == bytes.len() => !bytes.is_ascii(),
                _ => said,
            }
        }
        Source::File(..) => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::undots::{Bare, DotDecoder, Stop};
    use crate::net::turn::{Entry, Id, Loop};
    use crate::net::{Registry, Token};
    use crate::service::Shared;
    use crate::service::deliver::lanes::message_for_tests;

    enum Nobody {}

    impl Entry for Nobody {
        type Shared = ();

        fn register(&mut self, _: &Registry, _: &dyn Fn(usize) -> Token) -> io::Result<()> {
            match *self {}
        }
        fn deregister(&mut self, _: &Registry) {}
        fn mark(&mut self, _: usize, _: crate::net::stream::Readiness) {}
        fn turn(
            &mut self,
            _: Id,
            _: std::time::Instant,
            (): &mut (),
            _: &mut crate::net::stream::Scratch,
        ) -> crate::net::stream::Turn {
            match *self {}
        }
        fn deadline(&self) -> Option<std::time::Instant> {
            match *self {}
        }
        fn expire(&mut self, _: std::time::Instant) {}
        fn kind(&self) -> &'static str {
            "nobody"
        }
    }

    /// What the text means, said in another way than the code does it.
    fn meant(text: &str) -> String {
        let mut meant = text.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n");
        if !meant.is_empty() && !meant.ends_with('\n') {
            meant.push('\n');
        }
        meant
    }

    /// What a server that refuses every strange line end makes of it, when its dot and another message's beginning follow.
    fn taken(wire: &[u8]) -> String {
        const BEHIND: &[u8] = b"MAIL FROM:<evil@x.test>\r\n";
        let mut bytes = [wire, b".\r\n", BEHIND].concat();
        let decoded = DotDecoder::new(Bare::Reject).decode(&mut bytes);
        assert_eq!(decoded.stop, Some(Stop::End), "{}", wire.escape_ascii());
        assert_eq!(decoded.taken, wire.len() + 3, "{}: it ends elsewhere", wire.escape_ascii());
        String::from_utf8(bytes[..decoded.kept].to_vec()).unwrap()
    }

    /// All texts of up to six of these letters, in all cuts.
    #[test]
    fn whatever_a_text_holds_and_however_it_is_cut_one_message_leaves_and_means_the_same() {
        const LETTERS: [char; 5] = ['\r', '\n', '.', '\0', 'x'];
        let dir = tempfile::tempdir().unwrap();
        let lp = Loop::<Nobody>::new().unwrap();
        let shared = Shared::for_tests(dir.path(), &lp);
        let mut texts = vec![String::new()];
        let mut from = 0;
        for _ in 0..6 {
            let to = texts.len();
            for at in from..to {
                for letter in LETTERS {
                    texts.push(format!("{}{letter}", texts[at]));
                }
            }
            from = to;
        }
        assert_eq!(texts.len(), 19_531);
        let received = "Received: x\n";
        for text in &texts {
            let message = Arc::new(message_for_tests(&shared.transit, "M1", received, text));
            let meant = format!("{received}{}", meant(text));
            let mut wires = Vec::new();
            for cuts in 0..1_u32 << text.len().saturating_sub(1) {
                let (mut letter, mut out) = (Letter::new(message.clone()), Output::default());
                letter.push(received.as_bytes(), &mut out);
                let mut piece = 0;
                for end in 1..=text.len() {
                    if end == text.len() || cuts >> (end - 1) & 1 == 1 {
                        letter.push(&text.as_bytes()[piece..end], &mut out);
                        piece = end;
                    }
                }
                letter.dots.take().unwrap().end_line(out.tail(4));
                wires.push(out.bytes().to_vec());
            }
            wires.dedup();
            assert_eq!(wires.len(), 1, "{text:?}: its cuts make a difference");
            assert_eq!(taken(&wires[0]), meant, "{text:?}");
            let (mut letter, mut out) = (Letter::new(message), Output::default());
            while let Pull::More = letter.pull(&mut [0; 2], &mut out) {}
            assert_eq!(out.bytes(), wires[0], "{text:?}");
        }
    }
}
