//! What has become of a recipient, and the lines that say so in a queue file.
//!
//! | stage     | means                                                         | may become                                     |
//! |-----------|---------------------------------------------------------------|------------------------------------------------|
//! | waiting   | to be tried at once: new, or released, or called by hand      | deferred held succeeded delivered failed expired dropped deleted |
//! | deferred  | tried in vain; when it is tried next, and why                 | waiting deferred held succeeded delivered failed expired dropped deleted |
//! | held      | nobody tries it until it is released; why                     | waiting succeeded delivered deleted            |
//! | failed    | it never can be delivered; its sender is not told yet         | bounced                                        |
//! | expired   | it waited too long; its sender is not told yet                | bounced                                        |
//! | succeeded | it is where it belongs; its sender wants to hear it, and has not yet | delivered                               |
//! | delivered | it is where it belongs, on disk                               |                                                |
//! | bounced   | its sender has been told: the bounce is in the queue          |                                                |
//! | dropped   | it cannot be delivered, and nobody wants to hear of it        |                                                |
//! | deleted   | by the operator; nobody is told                               |                                                |
//!
//! Those that may become nothing are final. The same stage again with other words is a change only for `deferred`; for all
//! others it is what was known, and is as good. A delivery that was under way when its recipient was held may come to its end.
//!
//! **Reports.** Who is failed, expired or succeeded has the number of the report that will tell of it, and so has who is deferred
//! and is to be told that it takes long (`warn=`, and `warned=1` when that is done). A later line may say another number of the
//! same stage, so that several are told of together. That somebody was warned is known of him whatever becomes of him then.
//!
//! **By another way.** An operator may say which way a recipient goes: `via=` and a target as the settings have it, or nothing for
//! what these say. It holds from that line on, whatever further lines say of his stage, until another says it anew; a line may say it
//! with the stage that he is at already. Of who is not waiting, deferred or held it says nothing.
//!
//! A line says one stage of one or more recipients:
//!
//! ```text
//! State: 1,4-7 deferred at=1767610812 next=1767611112 tries=2 warned=1 why=4.2.0%20mailbox%20is%20locked sum=0123456789abcdef
//! ```
//!
//! `sum` is an XXH3-64 of what stands before its blank, with the message's id as seed: a line that does not check, or that says
//! what is no state, says nothing. Words that are not known are passed over.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::mail::dsn::Report;
use crate::text::number::decimal;
use crate::text::percent;

/// Octets of a reason that are kept.
pub const WHY_BYTES: usize = 500;

/// Octets of a target.
pub const VIA_BYTES: usize = 255;

/// Where a recipient stands: see the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the page says it")]
pub enum Stage {
    Waiting,
    Deferred,
    Held,
    Failed,
    Expired,
    Succeeded,
    Delivered,
    Bounced,
    Dropped,
    Deleted,
}

impl Stage {
    /// All there are, in the page's order.
    pub const ALL: [Stage; 10] = [
        Stage::Waiting,
        Stage::Deferred,
        Stage::Held,
        Stage::Failed,
        Stage::Expired,
        Stage::Succeeded,
        Stage::Delivered,
        Stage::Bounced,
        Stage::Dropped,
        Stage::Deleted,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Waiting => "waiting",
            Stage::Deferred => "deferred",
            Stage::Held => "held",
            Stage::Failed => "failed",
            Stage::Expired => "expired",
            Stage::Succeeded => "succeeded",
            Stage::Delivered => "delivered",
            Stage::Bounced => "bounced",
            Stage::Dropped => "dropped",
            Stage::Deleted => "deleted",
        }
    }

    /// Whether it is the end.
    pub fn is_final(self) -> bool {
        matches!(self, Stage::Delivered | Stage::Bounced | Stage::Dropped | Stage::Deleted)
    }

    /// Whether its sender is to be told and has not been.
    pub fn is_untold(self) -> bool {
        matches!(self, Stage::Failed | Stage::Expired | Stage::Succeeded)
    }

    /// Whether a delivery may be tried.
    pub fn is_open(self) -> bool {
        matches!(self, Stage::Waiting | Stage::Deferred)
    }

    /// Whether an operator may say which way it goes.
    pub fn may_be_routed(self) -> bool {
        self.is_open() || self == Stage::Held
    }

    /// Whether the page allows it.
    pub fn may_become(self, next: Stage) -> bool {
        match self {
            Stage::Waiting => !matches!(next, Stage::Waiting | Stage::Bounced),
            Stage::Deferred => next != Stage::Bounced,
            Stage::Held => matches!(next, Stage::Waiting | Stage::Succeeded | Stage::Delivered | Stage::Deleted),
            Stage::Failed | Stage::Expired => next == Stage::Bounced,
            Stage::Succeeded => next == Stage::Delivered,
            Stage::Delivered | Stage::Bounced | Stage::Dropped | Stage::Deleted => false,
        }
    }
}

/// Whether the sender has heard that somebody waits long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Warned {
    /// He has not.
    #[default]
    No,
    /// He is to, by the report of this number: the first recipient of whom that was said in the same
    /// [`note`](super::Queue::note), whatever a caller says here.
    Owed(u32),
    /// He has: the report is in the queue.
    Yes,
}

/// How a message came to be where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// It is in its mailbox, or a program or an LMTP server has it.
    Delivered,
    /// A host has it that sends no reports of success.
    Relayed,
    /// The address led to several others, each of whom is tried for himself.
    Expanded,
}

impl How {
    const ALL: [(How, &str); 3] =
        [(How::Delivered, "delivered"), (How::Relayed, "relayed"), (How::Expanded, "expanded")];

    /// Its word, as reports have it (RFC 3464 §2.3.3).
    pub fn word(self) -> &'static str {
        How::ALL[self as usize].1
    }
}

/// A stage and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// See [`Stage`]; so for all.
    Waiting,
    /// Tried in vain.
    Deferred {
        /// When it is due, in seconds since 1970.
        next_secs: i64,
        /// How often it was tried.
        tries: u32,
        /// Why it could not be delivered: an enhanced code, and words.
        why: String,
        /// A host was given all of it and did not answer: it may have it.
        possibly: bool,
        /// Whether the sender has heard that it takes long.
        warned: Warned,
    },
    /// Not to be tried.
    Held {
        /// Who held it, or what for.
        why: String,
    },
    /// Not deliverable.
    Failed {
        /// Why.
        why: String,
        /// Which report tells of it: the first recipient that came to what one report tells of in the same
        /// [`note`](super::Queue::note), whatever a caller says here. It makes the report's id, see [`report_id`](crate::mail::dsn::report_id).
        bounce: u32,
    },
    /// Not delivered in time.
    Expired {
        /// Why it could not be delivered the last time.
        why: String,
        /// As in `Failed`.
        bounce: u32,
    },
    /// As `Delivered`, and the sender is to hear it.
    Succeeded {
        /// How.
        how: How,
        /// What was said to that, where something was.
        why: String,
        /// As in `Failed`.
        bounce: u32,
    },
    /// In its drop, or taken by a program or another host.
    Delivered,
    /// Its sender knows.
    Bounced,
    /// Lost, and nobody to tell.
    Dropped {
        /// Why.
        why: String,
    },
    /// Taken away by hand.
    Deleted,
}

impl State {
    /// Its stage.
    pub fn stage(&self) -> Stage {
        match self {
            State::Waiting => Stage::Waiting,
            State::Deferred { .. } => Stage::Deferred,
            State::Held { .. } => Stage::Held,
            State::Failed { .. } => Stage::Failed,
            State::Expired { .. } => Stage::Expired,
            State::Succeeded { .. } => Stage::Succeeded,
            State::Delivered => Stage::Delivered,
            State::Bounced => Stage::Bounced,
            State::Dropped { .. } => Stage::Dropped,
            State::Deleted => Stage::Deleted,
        }
    }

    /// Of a reason only so many octets are kept.
    pub(super) fn shorten(&mut self, why_bytes: usize) {
        if let State::Deferred { why, .. }
        | State::Held { why }
        | State::Failed { why, .. }
        | State::Expired { why, .. }
        | State::Succeeded { why, .. }
        | State::Dropped { why } = self
            && why.len() > why_bytes
        {
            let end = (0..=why_bytes).rev().find(|&end| why.is_char_boundary(end)).unwrap_or(0);
            why.truncate(end);
        }
    }

    /// Why it is so, where that is said.
    pub fn why(&self) -> &str {
        match self {
            State::Deferred { why, .. }
            | State::Held { why }
            | State::Failed { why, .. }
            | State::Expired { why, .. }
            | State::Succeeded { why, .. }
            | State::Dropped { why } => why,
            State::Waiting | State::Delivered | State::Bounced | State::Deleted => "",
        }
    }

    /// The number of the report that is to tell of it, if one is.
    pub fn report(&self) -> Option<u32> {
        match self {
            State::Failed { bounce, .. }
            | State::Expired { bounce, .. }
            | State::Succeeded { bounce, .. }
            | State::Deferred { warned: Warned::Owed(bounce), .. } => Some(*bounce),
            _ => None,
        }
    }

    /// The kind of report that is to tell of it, if one is.
    pub fn told_by(&self) -> Option<Report> {
        self.report().map(|_| match self.stage() {
            Stage::Succeeded => Report::Success,
            Stage::Deferred => Report::Delay,
            _ => Report::Bounce,
        })
    }

    /// The same with that number, where there is one.
    pub(super) fn reported_by(mut self, number: u32) -> State {
        match &mut self {
            State::Failed { bounce, .. }
            | State::Expired { bounce, .. }
            | State::Succeeded { bounce, .. }
            | State::Deferred { warned: Warned::Owed(bounce), .. } => *bounce = number,
            _ => {}
        }
        self
    }

    /// What it becomes when its sender has been told.
    pub(super) fn told(self) -> State {
        match self {
            State::Failed { .. } | State::Expired { .. } => State::Bounced,
            State::Succeeded { .. } => State::Delivered,
            State::Deferred { next_secs, tries, why, possibly, .. } => {
                State::Deferred { next_secs, tries, why, possibly, warned: Warned::Yes }
            }
            other => other,
        }
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Runs of recipients, both ends with them.
    pub(super) who: Vec<(u32, u32)>,
    /// When that was, in seconds since 1970.
    pub(super) at_secs: i64,
    pub(super) state: State,
    /// Which way they go from here on; empty: as the settings say.
    pub(super) via: Option<String>,
}

/// The line, with its end. `via`: at most [`VIA_BYTES`].
pub(super) fn encode(id: &str, who: &[(u32, u32)], at_secs: i64, state: &State, via: Option<&str>) -> Vec<u8> {
    let runs: Vec<String> = who.iter().map(|&(from, to)| run_of(from, to)).collect();
    let mut line = format!("State: {} {} at={}", runs.join(","), state.stage().word(), at_secs.max(0));
    match state {
        State::Deferred { next_secs, tries, possibly, warned, .. } => {
            line += &format!(" next={next_secs} tries={tries}");
            line += if *possibly { " possibly=1" } else { "" };
            match warned {
                Warned::No => {}
                Warned::Owed(number) => line += &format!(" warn={number}"),
                Warned::Yes => line += " warned=1",
            }
        }
        State::Failed { bounce, .. } | State::Expired { bounce, .. } => line += &format!(" bounce={bounce}"),
        State::Succeeded { how, bounce, .. } => line += &format!(" how={} bounce={bounce}", how.word()),
        _ => {}
    }
    let mut line = line.into_bytes();
    if let Some(via) = via {
        line.extend_from_slice(b" via=");
        line.extend(word(via.as_bytes()));
    }
    if !state.why().is_empty() {
        line.extend_from_slice(b" why=");
        line.extend(word(&state.why().as_bytes()[..state.why().len().min(WHY_BYTES)]));
    }
    let sum = sum(id, &line);
    line.extend_from_slice(format!(" sum={sum:016x}\n").as_bytes());
    line
}

/// The line once more, with its end, for these recipients of its own, but for the way that it says; of a reason only so many octets.
pub(super) fn said_again(id: &str, line: &[u8], who: &[(u32, u32)], why_bytes: usize) -> Option<Vec<u8>> {
    let said = &line[..line.len().checked_sub(" sum=".len() + 16)?];
    let words = said.strip_prefix(b"State: ")?.split(|&byte| byte == b' ').skip(1).map(<[u8]>::to_vec);
    let runs: Vec<String> = who.iter().map(|&(from, to)| run_of(from, to)).collect();
    let mut line = format!("State: {}", runs.join(",")).into_bytes();
    for mut text in words.filter(|text| !text.starts_with(b"via=")) {
        if let Some(why) = text.strip_prefix(b"why=") {
            let mut why = percent::decode(why)?;
            why.truncate(why_bytes);
            text = [b"why=", &word(&why)[..]].concat();
        }
        line.push(b' ');
        line.extend(text);
    }
    let sum = sum(id, &line);
    line.extend_from_slice(format!(" sum={sum:016x}\n").as_bytes());
    Some(line)
}

fn run_of(from: u32, to: u32) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

/// Bytes as one word that people can read: only blanks, controls and `%` are escaped.
pub(super) fn word(bytes: &[u8]) -> Vec<u8> {
    percent::encode_where(bytes, |byte| byte <= b' ' || byte == 0x7f)
}

fn sum(id: &str, line: &[u8]) -> u64 {
    xxh3_64_with_seed(line, xxh3_64(id.as_bytes()))
}

/// What a line without its end says, if it checks.
pub(super) fn decode(id: &str, line: &[u8]) -> Option<Line> {
    let at = line.len().checked_sub(" sum=".len() + 16)?;
    let (said, tail) = line.split_at(at);
    let written = std::str::from_utf8(tail.strip_prefix(b" sum=")?).ok()?;
    if u64::from_str_radix(written, 16).ok()? != sum(id, said) {
        return None;
    }
    let mut words = said.strip_prefix(b"State: ")?.split(|&byte| byte == b' ');
    let who = words.next()?.split(|&byte| byte == b',').map(run).collect::<Option<Vec<_>>>()?;
    let stage = words.next()?;
    let (mut at_secs, mut next_secs, mut tries, mut bounce, mut why) = (0, 0, 0, 0, String::new());
    let (mut possibly, mut warned, mut how, mut via) = (false, Warned::No, How::Delivered, None);
    for param in words {
        if let Some(value) = param.strip_prefix(b"at=") {
            at_secs = i64::try_from(decimal(value)?).ok()?;
        } else if let Some(value) = param.strip_prefix(b"next=") {
            next_secs = i64::try_from(decimal(value)?).ok()?;
        } else if let Some(value) = param.strip_prefix(b"tries=") {
            tries = u32::try_from(decimal(value)?).ok()?;
        } else if let Some(value) = param.strip_prefix(b"bounce=") {
            bounce = u32::try_from(decimal(value)?).ok()?;
        } else if let Some(value) = param.strip_prefix(b"warn=") {
            warned = Warned::Owed(u32::try_from(decimal(value)?).ok()?);
        } else if let Some(value) = param.strip_prefix(b"how=") {
            (how, _) = *How::ALL.iter().find(|(_, word)| word.as_bytes() == value)?;
        } else if param == b"warned=1" {
            warned = Warned::Yes;
        } else if param == b"possibly=1" {
            possibly = true;
        } else if let Some(value) = param.strip_prefix(b"via=") {
            via = Some(String::from_utf8(percent::decode(value)?).ok().filter(|via| via.len() <= VIA_BYTES)?);
        } else if let Some(value) = param.strip_prefix(b"why=") {
            why = String::from_utf8_lossy(&percent::decode(value)?).into_owned();
        }
    }
    let stage = Stage::ALL.into_iter().find(|known| known.word().as_bytes() == stage)?;
    let state = match stage {
        Stage::Waiting => State::Waiting,
        Stage::Deferred => State::Deferred { next_secs, tries, why, possibly, warned },
        Stage::Held => State::Held { why },
        Stage::Failed => State::Failed { why, bounce },
        Stage::Expired => State::Expired { why, bounce },
        Stage::Succeeded => State::Succeeded { how, why, bounce },
        Stage::Delivered => State::Delivered,
        Stage::Bounced => State::Bounced,
        Stage::Dropped => State::Dropped { why },
        Stage::Deleted => State::Deleted,
    };
    Some(Line { who, at_secs, state, via })
}

fn run(word: &[u8]) -> Option<(u32, u32)> {
    let number = |word: &[u8]| decimal(word).and_then(|number| u32::try_from(number).ok());
    match word.iter().position(|&byte| byte == b'-') {
        Some(dash) => Some((number(&word[..dash])?, number(&word[dash + 1..])?)),
        None => number(word).map(|number| (number, number)),
    }
}
