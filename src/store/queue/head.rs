//! The envelope at a queue file's beginning: what is known of a message besides its text, one fact a line.

use crate::protocol::smtp::params::{Notify, Ret};

/// Recipients of one message.
pub const RECIPIENTS_MAX: u32 = 65_536;
/// Octets of one line of the envelope. A draft that needs a longer one is refused, a file that has one is damaged.
pub const LINE_BYTES: usize = 16 * 1024;
/// Octets of the Received field.
pub const RECEIVED_BYTES: usize = 16 * 1024;

/// How a recipient is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An address of ours: where it leads is asked whenever it is tried.
    Local,
    /// The mailbox of a user of ours: where aliases and forward lines ended.
    Mailbox,
    /// An address of another host.
    Remote,
    /// A program, see [`Recipient::with`].
    Program,
}

/// Who is to have a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// How it is reached.
    pub kind: Kind,
    /// Its address.
    pub address: String,
    /// What else is needed to reach it: a program's user, its words. In an order that means something to who wrote it.
    pub with: Vec<String>,
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT, as sent.
    pub orcpt: Option<String>,
}

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Where bounces go; empty: nowhere.
    pub sender: String,
    /// When it came, in seconds since 1970.
    pub received_secs: i64,
    /// How it came, for people: `ESMTPSA from mx.example.org [192.0.2.1] as ann`.
    pub came: String,
    /// Our own Received field, with its folded lines and its last line end.
    pub received: Vec<u8>,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, as sent.
    pub envid: Option<String>,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// SMTPUTF8.
    pub utf8: bool,
    /// It is a bounce: of this message, by the number its failed recipients have in common.
    pub bounce_of: Option<(String, u32)>,
}
