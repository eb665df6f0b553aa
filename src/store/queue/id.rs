//! An id without a box of its own.

use std::fmt;

use super::head::{ID_BYTES, is_id};

/// A message's id: 41 bytes, for tables of many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; ID_BYTES],
    length: u8,
}

impl Id {
    /// `None`: this can be no message's.
    pub fn new(id: &str) -> Option<Id> {
        if !is_id(id.as_bytes()) {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        bytes[..id.len()].copy_from_slice(id.as_bytes());
        Some(Id { bytes, length: id.len() as u8 })
    }

    /// What it is.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("letters and digits are UTF-8")
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
