//! F1: what a message is, over bytes. No file, no socket, no clock, no log.

pub mod address;
pub mod asctime;
pub mod bulletin;
pub mod dots;
pub mod dsn;
pub mod encoded;
pub mod envelope;
pub mod identity;
pub mod mailboxes;
pub mod mbox;
pub mod notice;
pub mod outgoing;
pub mod passed;
pub mod received;
pub mod respond;
pub mod status;
pub mod submitted;
pub mod undots;
