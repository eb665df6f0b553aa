//! DMail: one small program that is a whole mail system.
//!
//! The house, floor by floor. A room imports only from floors below it; `tests/floors.rs` enforces it.
//!
//! ```text
//! program/   F7  one file a program: options in, exit code out
//! server/    F6  the slab of entries, the turn, reload, stop
//! service/   F5  where files meet sockets; each answers one machine's asks
//! settings/  F4  dmail.conf: rows, parser, snapshot, diff
//! control/   F4  the verbs of operation: one row each gives parsing, help, rights
//! net/       F3  the loop and its drivers; the only place that names mio; never opens a mail file
//! store/     F3  files: the maildrop, delivery, the queue, users; never a socket
//! protocol/  F2  conversations without I/O: pop3, smtp, control, the helper pool
//! mail/      F1  what a message is, over bytes: mbox scanner, dots, addresses, bounces
//! rules/     F1  decisions as functions: access, relaying, routes; values in, verdict out
//! text/      F0  buffers, numbers, patterns, faults
//! sys/       F0  every libc call, all the unsafe
//! ```

pub mod control;
pub mod mail;
pub mod net;
pub mod program;
pub mod protocol;
pub mod rules;
pub mod server;
pub mod service;
pub mod settings;
pub mod store;
pub mod sys;
pub mod text;
