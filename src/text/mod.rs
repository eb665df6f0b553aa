//! F0: bytes and text. No file, no socket, no clock, no log.

pub mod bytes;
pub mod fault;
pub mod number;
pub mod percent;
pub mod secret;
