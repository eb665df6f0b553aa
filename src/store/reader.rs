//! One message on its way out: read a slice at a time, encoded for the wire, never waiting for a disk.
//!
//! A Status line that is added comes before the first byte of the text.
//!
//! The From_ line is checked first, and behind every slice the file's identity. A drop that only grew (its old end, its last
//! From_ line and this message's From_ line still in place) is read on; anything else is [`Miss::Changed`], and the
//! conversation must end without the final dot, so that no client keeps a message that is not one. A drop that is as long as
//! it was and has another mtime is in doubt for a moment: write(2) moves the time before it moves the size, so an append looks
//! like that while it begins. A job looks again until it has grown, and gives up after [`LOOKS`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, Reach, RealDisk};
use super::index::{Entry, Identity, tail_bytes};
use super::maildrop::{Core, Miss};
use crate::mail::dots::DotEncoder;
use crate::mail::mbox::{FROM_LINE_BYTES, from_check};
use crate::text::bytes::Output;
use crate::text::fault::Fault;

/// How much a job reads ahead when the memory had nothing.
const FETCH_BYTES: u64 = 64 * 1024;

/// How often a job looks again at a drop that may be about to grow ...
const LOOKS: u32 = 20;
/// ... and how long it waits in between. An append that takes longer to show its first byte costs a client one retry.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Whether a message goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// There is more to pull.
    More,
    /// The final dot line was appended.
    Last,
}

/// One message, or its top. Keeps the drop open, also after its session ended.
pub struct MessageReader<D: Disk = RealDisk> {
    core: Arc<Core<D>>,
    entry: Entry,
    /// The next byte of the drop to be encoded; the From_ line's first until that was checked.
    at: u64,
    /// `None` after the last line.
    encoder: Option<DotEncoder>,
    /// Bytes from `at` on that a job brought.
    supplied: Vec<u8>,
}

impl<D: Disk> MessageReader<D> {
    pub(super) fn new(core: Arc<Core<D>>, entry: Entry, body_lines: Option<u64>) -> MessageReader<D> {
        let encoder = match body_lines {
            Some(lines) => DotEncoder::top(lines),
            None => DotEncoder::whole(entry.extent.verbatim),
        };
        MessageReader { core, at: entry.extent.offset, entry, encoder: Some(encoder), supplied: Vec::new() }
    }

    /// The size of the whole message as LIST gives it, also when only its top is read.
    pub fn octets(&self) -> u64 {
        self.core.octets(&self.entry)
    }

    /// Whether nobody is known to have read it: [`Maildrop::read`](super::maildrop::Maildrop::read) is to hear of it.
    pub fn is_news(&self) -> bool {
        self.core.spot.add_status && !self.entry.is_read()
    }

    /// Appends the next slice to `out`: at most `scratch.len()` bytes of the drop, encoded. `scratch` has room for at least
    /// 1,024 bytes. Must not be called again after [`Pulled::Last`]. After [`Miss::Cold`] nothing was appended:
    /// [`fetch`](MessageReader::fetch) in a job, [`supply`](MessageReader::supply), pull again. Any other miss ends the message.
    pub fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Result<Pulled, Miss> {
        assert!(scratch.len() >= FROM_LINE_BYTES, "a slice has room for a From_ line");
        let encoder = self.encoder.as_mut().expect("nothing is pulled behind the last line");
        let end = self.entry.extent.text() + self.entry.extent.text_bytes;
        let most = (end - self.at).min(scratch.len() as u64) as usize;
        let read = if !self.supplied.is_empty() {
            let some = most.min(self.supplied.len());
            scratch[..some].copy_from_slice(&self.supplied[..some]);
            self.supplied.drain(..some);
            some
        } else if most > 0 {
            let some = self.core.read_drop(&mut scratch[..most], self.at, Reach::Now)?;
            if self.at == self.entry.extent.offset {
                // The front of a page may be in memory and its rest not.
                if some < self.entry.extent.from_bytes as usize {
                    return Err(Miss::Cold);
                }
                self.core.check_from(&self.entry, &scratch[..some])?;
            }
            self.core.verify(&self.entry, Reach::Now)?;
            some
        } else {
            0
        };
        // The From_ line is read in one go, and first of all.
        if self.at == self.entry.extent.offset
            && let Some(line) = self.core.status(&self.entry)
        {
            encoder.push(line, out.tail(line.len()));
        }
        let skip = self.entry.extent.text().saturating_sub(self.at).min(read as u64) as usize;
        self.at += read as u64;
        encoder.push(&scratch[skip..read], out.tail(read + read / 16 + 64));
        if self.at < end && !encoder.is_full() {
            return Ok(Pulled::More);
        }
        let encoder = self.encoder.take().expect("it was there");
        encoder.finish(out.tail(8));
        self.supplied = Vec::new();
        Ok(Pulled::Last)
    }

    /// A job that reads and checks the next slice, however long the disk takes.
    pub fn fetch(&self) -> Fetch<D> {
        Fetch { core: Arc::clone(&self.core), entry: self.entry, at: self.at }
    }

    /// What that job brought. Bytes for another place are ignored.
    pub fn supply(&mut self, fetched: Fetched) {
        if fetched.at == self.at {
            self.supplied = fetched.bytes;
        }
    }
}

/// The next slice of a message, to be read in a job.
pub struct Fetch<D: Disk = RealDisk> {
    core: Arc<Core<D>>,
    entry: Entry,
    at: u64,
}

/// A slice of a message.
pub struct Fetched {
    at: u64,
    bytes: Vec<u8>,
}

impl<D: Disk> Fetch<D> {
    /// Reads up to 64 KiB, and checks what [`MessageReader::pull`] would have checked. Never [`Miss::Cold`].
    pub fn run(self) -> Result<Fetched, Miss> {
        let end = self.entry.extent.text() + self.entry.extent.text_bytes;
        let mut bytes = vec![0; (end - self.at).min(FETCH_BYTES) as usize];
        let mut read = 0;
        while read < bytes.len() {
            read += self.core.read_drop(&mut bytes[read..], self.at + read as u64, Reach::Wait)?;
        }
        if self.at == self.entry.extent.offset {
            self.core.check_from(&self.entry, &bytes)?;
        }
        self.core.verify(&self.entry, Reach::Wait)?;
        Ok(Fetched { at: self.at, bytes })
    }
}

impl<D: Disk> Core<D> {
    /// At least one byte of the drop.
    fn read_drop(&self, buffer: &mut [u8], offset: u64, reach: Reach) -> Result<usize, Miss> {
        let Some(files) = &self.files else { return Err(Miss::Changed) };
        match self.disk.read(&files.drop, buffer, offset, reach) {
            // It was longer when we looked.
            Ok(0) => Err(Miss::Changed),
            Ok(some) => Ok(some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && reach == Reach::Now => Err(Miss::Cold),
            Err(error) => Err(Miss::Fault(Fault::new("reading", &self.spot.drop, error))),
        }
    }

    /// The message's From_ line, if it is where it was.
    pub(super) fn read_from_line(&self, entry: &Entry) -> Result<Vec<u8>, Miss> {
        let mut line = vec![0; entry.extent.from_bytes as usize];
        let mut read = 0;
        while read < line.len() {
            read += self.read_drop(&mut line[read..], entry.extent.offset + read as u64, Reach::Wait)?;
        }
        self.check_from(entry, &line)?;
        Ok(line)
    }

    /// Whether `bytes`, read at the message's offset, begin with its From_ line.
    fn check_from(&self, entry: &Entry, bytes: &[u8]) -> Result<(), Miss> {
        let line = bytes.get(..entry.extent.from_bytes as usize).ok_or(Miss::Changed)?;
        if from_check(line) == entry.extent.from_check { Ok(()) } else { Err(Miss::Changed) }
    }

    /// Whether what was just read belongs to the drop that was scanned.
    fn verify(&self, entry: &Entry, reach: Reach) -> Result<(), Miss> {
        let Some(files) = &self.files else { return Err(Miss::Changed) };
        let was = *self.seen();
        let mut looks = 0;
        let identity = loop {
            let now = self.disk.stat(&files.drop);
            let now = now.map_err(|error| Miss::Fault(Fault::new("looking at", &self.spot.drop, error)))?;
            let identity = Identity::from(now);
            if now.links == 0 || identity.size < self.size {
                return Err(Miss::Changed);
            }
            if identity == was {
                return Ok(());
            }
            // Longer; or touched; or longer before, and an append that failed was taken back.
            if identity.size != was.size || identity.mtime == was.mtime {
                break identity;
            }
            match reach {
                Reach::Now => return Err(Miss::Cold),
                Reach::Wait if looks == LOOKS => return Err(Miss::Changed),
                Reach::Wait => std::thread::sleep(BETWEEN_LOOKS),
            }
            looks += 1;
        };
        let mut bytes = [0; FROM_LINE_BYTES];
        let mut exact = |offset: u64, length: usize| -> Result<[u8; FROM_LINE_BYTES], Miss> {
            let mut read = 0;
            while read < length {
                read += self.read_drop(&mut bytes[read..length], offset + read as u64, reach)?;
            }
            Ok(bytes)
        };
        let tail = tail_bytes(self.size);
        let old = exact(self.size - tail as u64, tail)?;
        let last = exact(self.last.offset, self.last.from_bytes as usize)?;
        if xxhash_rust::xxh3::xxh3_64(&old[..tail]) != self.tail_hash
            || from_check(&last[..self.last.from_bytes as usize]) != self.last.from_check
        {
            return Err(Miss::Changed);
        }
        let own = exact(entry.extent.offset, entry.extent.from_bytes as usize)?;
        self.check_from(entry, &own)?;
        *self.seen() = identity;
        Ok(())
    }
}
