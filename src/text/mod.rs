//! F0: bytes and text. No file, no socket, no clock, no log.

pub mod bytes;
pub mod fault;
pub mod nearest;
pub mod number;
pub mod pattern;
pub mod percent;
pub mod printable;
pub mod punycode;
pub mod secret;
pub mod words;
pub mod xtext;
