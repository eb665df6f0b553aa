//! What a client is asked to do, and what came of it. Commands say it through [`Work`]; the engine does it.
//!
//! A [`Task`] is one connection from connect to close. Work is asked for the next one whenever a client is free or an
//! arrival is due, hears of things at the moment they are certain ([`Event`]), and of the whole when it is over
//! ([`Outcome`]).

use std::time::{Duration, Instant};

use crate::letter::Stamp;

/// Whom a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its place among the accounts, from 0.
    pub number: u64,
    pub login: String,
    pub password: String,
}

/// One connection.
#[derive(Debug, Clone)]
pub enum Task {
    Pop(PopTask),
    Smtp(SmtpTask),
}

impl Task {
    /// The row of the table it is counted in.
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Pop(task) => task.kind,
            Task::Smtp(task) => task.kind,
        }
    }

    pub fn line(&self) -> Line {
        match self {
            Task::Pop(task) => task.line,
            Task::Smtp(task) => task.line,
        }
    }
}

/// A POP3 session.
#[derive(Debug, Clone)]
pub struct PopTask {
    pub kind: &'static str,
    pub account: Account,
    /// The password is wrong on purpose: a refusal is what is expected, and being let in an error.
    pub wrong_password: bool,
    pub acts: Acts,
    /// A drop with more messages is somebody's archive: FetchDelete becomes Leave.
    pub leave_above: u32,
    /// RETR and DELE commands under way at a time; one: each waits for the reply to the last.
    pub pipeline: u32,
    pub line: Line,
}

impl PopTask {
    /// Everything as usual: the right password, one command at a time, a line like any other.
    pub fn new(kind: &'static str, account: Account, acts: Acts) -> PopTask {
        let line = Line::default();
        PopTask { kind, account, wrong_password: false, acts, leave_above: u32::MAX, pipeline: 1, line }
    }
}

/// What it does between logging in and QUIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// STAT.
    Poll,
    /// STAT, LIST, RETR and DELE of everything.
    FetchDelete,
    /// STAT, LIST, UIDL, RETR of what this account's client has not seen yet.
    Leave,
    /// STAT, LIST, then so many RETRs, from the first message on and round again.
    Retrieve(u32),
    /// STAT, LIST, DELE of every second message.
    DeleteHalf,
    /// STAT, then silence for so long; QUIT.
    Hold(Duration),
    /// STAT, LIST, UIDL, RETR of everything, and DELE of so many in a hundred of it, chosen by unique-id and account number.
    Audit { deletes: u8 },
}

/// A message to be sent: one MAIL transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What it can be found by afterwards.
    pub stamp: Stamp,
    /// Whole addresses.
    pub from: String,
    pub to: Vec<String>,
    /// How long the letter is, with LF ends.
    pub bytes: u64,
    /// Its date, in seconds since 1970.
    pub written_secs: i64,
}

/// An SMTP session.
#[derive(Debug, Clone)]
pub struct SmtpTask {
    pub kind: &'static str,
    pub port: Port,
    pub auth: Option<Account>,
    pub mails: Vec<Mail>,
    pub line: Line,
}

/// Which of the server's doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Smtp,
    Submission,
    /// LMTP: each recipient is answered for by itself.
    Lmtp,
}

/// How the line to the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Line {
    pub tls: Tls,
    /// Octets per second it can receive, or send: a modem. None: as fast as it goes.
    pub speed: Option<u32>,
    pub fate: Fate,
}

/// When encryption begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::enum_variant_names, reason = "these are their names")]
pub enum Tls {
    #[default]
    Plain,
    /// STLS or STARTTLS.
    StartTls,
    /// From the first octet.
    Tls,
}

/// What becomes of the peer. Octets are those of message text, received or sent, after which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    #[default]
    Lives,
    /// It stops taking and giving, and closes after so long: the server sees silence.
    Vanishes { after: u32, silent: Duration },
    /// It shuts its sending half and goes on reading.
    HalfOpen { after: u32 },
    /// It resets the connection.
    Resets { after: u32 },
}

/// Something that is certain now.
#[derive(Debug)]
pub enum Event<'a> {
    /// The text of this mail is about to be sent: from here on it may arrive.
    Sending { mail: &'a Mail },
    /// The server has answered for it, or will not any more.
    Told { mail: &'a Mail, verdict: &'a Verdict },
    /// UIDL was answered: XXH3 of each unique-id, in order. Only for [`Acts::Audit`].
    Listed { account: &'a Account, uids: &'a [u64] },
    /// A message was received to its end and checked.
    Retrieved { account: &'a Account, seen: &'a Seen },
    /// QUIT is about to be sent with these messages marked: from here on they may be gone.
    Quitting { account: &'a Account, deleted: &'a [Seen] },
    /// QUIT was answered +OK: they are gone.
    Committed { account: &'a Account, deleted: &'a [Seen] },
}

/// What a server said of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For each of its recipients: its reply code; 0 when there was none.
    pub recipients: Vec<u16>,
    pub end: End,
    /// What it said last, if anything.
    pub words: String,
}

/// What became of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Acknowledged, for the recipients with a 2xx code.
    Acked,
    /// Refused with this code.
    Refused(u16),
    /// Sent, or partly, and no answer came: it may or may not arrive.
    Unknown,
    /// Not sent.
    Unsent,
}

/// A message as a POP3 client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// XXH3 of its UIDL; 0 when that was not asked for.
    pub uid: u64,
    /// As LIST says.
    pub octets: u64,
    /// Which letter it is; None: not retrieved, or not one of ours.
    pub stamp: Option<Stamp>,
    /// It says that it is that letter, and is not, or not all of it.
    pub damaged: bool,
}

/// What came of a task.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Why it failed: kind and text. None: everything was as it should be.
    pub trouble: Option<(&'static str, String)>,
    /// The fault that was injected, by the name it is counted by: then it ended as it was meant to.
    pub injected: Option<&'static str>,
    /// Messages retrieved, or acknowledged.
    pub messages: u64,
    /// Of STAT; None when it did not come that far.
    pub stat: Option<(u32, u64)>,
    /// From connect, or from the planned time in an open loop.
    pub took: Duration,
    /// When it was over.
    pub ended: Instant,
}

impl Outcome {
    /// What became of a task that was never begun.
    pub fn unbegun(what: &'static str, text: String, now: Instant) -> Outcome {
        Outcome {
            trouble: Some((what, text)),
            injected: None,
            messages: 0,
            stat: None,
            took: Duration::ZERO,
            ended: now,
        }
    }

    /// Whether the server said goodbye: nothing of the session is left there.
    pub fn is_clean(&self) -> bool {
        self.trouble.is_none() && self.injected.is_none()
    }
}

/// Who says what is to be done. One thread calls it.
pub trait Work {
    /// The next task for this client; None: it has none any more. In an open loop `client` is 0.
    fn next(&mut self, client: usize, now: Instant) -> Option<Task>;

    /// Something is certain now.
    fn told(&mut self, _event: &Event<'_>) {}

    /// A task is over.
    fn done(&mut self, _task: &Task, _outcome: &Outcome) {}

    /// How much of what it was told must be settled before anybody acts on it. A client during whose step this has grown
    /// stands still until [`settle`](Work::settle).
    fn unsettled(&self) -> u64 {
        0
    }

    /// Once a turn of the loop, before those who stand still go on.
    fn settle(&mut self) {}
}
