//! Messages that can be verified by themselves: whoever has one of them knows whether it is whole, and which it is.
//!
//! ```text
//! X-Loadtest: ID SEQ LEN HASH
//! ```
//! `ID` is the work's number for the run or the batch (hexadecimal, 16 digits), `SEQ` the message's number within it
//! (decimal), `LEN` the bytes of the body with LF line ends (decimal), `HASH` XXH3-64 of that body (hexadecimal, 16 digits).
//! The body is made from (ID, SEQ, LEN) alone: lines of text from one fixed pool, some of which begin with a dot, none with
//! `From `, all shorter than 80 octets; the first line names the message. It ends with a line end.
//!
//! A body made twice is the same: that is how a text of 50 MB is sent without being held.

use xxhash_rust::xxh3::Xxh3;

/// Which message this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub run: u64,
    pub seq: u64,
}

/// A message to be sent, or to be put into a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub id: Id,
    pub from: String,
    pub to: Vec<String>,
    /// Bytes of the body, LF line ends; the header comes on top. At least [`LEAST`] are made.
    pub bytes: u64,
    /// When it was written: seconds since 1970.
    pub date: i64,
}

/// What an X-Loadtest header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub id: Id,
    pub bytes: u64,
    pub hash: u64,
}

/// The shortest body: its first line.
pub const LEAST: u64 = 48;
/// Lines of the pool.
const LINES: usize = 2048;

/// The header's name.
pub const NAME: &str = "X-Loadtest";
