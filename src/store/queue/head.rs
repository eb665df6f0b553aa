//! The envelope at a queue file's beginning: what is known of a message besides its text, one fact a line, then one line a
//! recipient, then a blank one.
//!
//! ```text
//! DMail-Queue: 1
//! Id: 7K2F9QXB3M
//! At: 1767610800 Mon Jan  5 11:00:00 2026
//! Sender: ann@example.org
//! Came: ESMTPSA%20from%20mx.example.org%20[192.0.2.1]
//! Ret: headers
//! Envid: QQ314159
//! Body: 8bit
//! Utf8: yes
//! Bounce-Of: 3F00D4U 2
//! Mark: 0f1e2d3c4b5a69788796a5b4c3d2e1f0
//! Received-Bytes: 131
//! Text-Bytes: 5123
//! Recipients: 2
//! To: 1 local bob@example.com notify=failure,delay orcpt=rfc822;bob@example.com
//! To: 2 program kim@example.com with=kim with=/usr/bin/procmail
//! ```
//!
//! What strangers chose stands as one word, blanks, controls and `%` as `%XX`. What follows the words that are known, in a line
//! or as a line, is passed over, so that a later version may say more; what is said twice, or missing where it must be, makes
//! the file a damaged one.

use crate::mail::asctime;
use crate::protocol::smtp::params::{Notify, Ret};
use crate::store::repeats::Mark;
use crate::text::number::decimal;
use crate::text::percent;

use super::state::word;

/// Recipients of one message.
pub const RECIPIENTS_MAX: u32 = 65_536;
/// Octets of one line of a queue file before and behind the text. A draft that needs a longer one is refused, an envelope that
/// has one is damaged.
pub const LINE_BYTES: usize = 16 * 1024;
/// Octets of the Received field.
pub const RECEIVED_BYTES: usize = 16 * 1024;
/// Octets of a message's id.
pub const ID_BYTES: usize = 40;

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

impl Kind {
    const ALL: [(Kind, &str); 4] =
        [(Kind::Local, "local"), (Kind::Mailbox, "mailbox"), (Kind::Remote, "remote"), (Kind::Program, "program")];

    /// Its word.
    pub fn word(self) -> &'static str {
        Kind::ALL[self as usize].1
    }
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
    /// What it is known by if its sender sends it again.
    pub mark: Option<Mark>,
}

/// Names that no message has: of the directories that lie among them.
pub(super) const DIRECTORIES: [&str; 2] = ["due", "held"];

/// Whether `id` can name a message: letters and digits, at most [`ID_BYTES`], and none of our directories.
pub fn is_id(id: &[u8]) -> bool {
    let is_ours = DIRECTORIES.iter().any(|name| name.as_bytes() == id);
    (1..=ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_alphanumeric) && !is_ours
}

/// The lines before those of the recipients.
pub(super) fn encode(id: &str, envelope: &Envelope, text_bytes: u64, recipients: usize) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut say = |name: &str, value: &[u8]| {
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.push(b'\n');
    };
    say(FIRST, VERSION);
    say("Id", id.as_bytes());
    let at = envelope.received_secs.max(0);
    say("At", format!("{at} {}", asctime::written(at)).as_bytes());
    say("Sender", &word(envelope.sender.as_bytes()));
    say("Came", &word(envelope.came.as_bytes()));
    match envelope.ret {
        Some(Ret::Full) => say("Ret", b"full"),
        Some(Ret::Headers) => say("Ret", b"headers"),
        None => {}
    }
    if let Some(envid) = &envelope.envid {
        say("Envid", &word(envid.as_bytes()));
    }
    if envelope.eight_bit {
        say("Body", b"8bit");
    }
    if envelope.utf8 {
        say("Utf8", b"yes");
    }
    if let Some((origin, number)) = &envelope.bounce_of {
        say("Bounce-Of", format!("{origin} {number}").as_bytes());
    }
    if let Some(mark) = &envelope.mark {
        say("Mark", mark.written().as_bytes());
    }
    say("Received-Bytes", envelope.received.len().to_string().as_bytes());
    say("Text-Bytes", text_bytes.to_string().as_bytes());
    say("Recipients", recipients.to_string().as_bytes());
    lines
}

const FIRST: &str = "DMail-Queue";
const VERSION: &[u8] = b"1";

/// What the lines before those of the recipients say.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) envelope: Envelope,
    pub(super) received_bytes: u64,
    pub(super) text_bytes: u64,
    pub(super) recipients: u32,
}

/// Those lines, one after the other.
#[derive(Debug, Default)]
pub(super) struct Reading {
    facts: Facts,
    /// One bit for each name that was said.
    seen: u32,
}

const NAMES: [&str; 14] = [
    FIRST,
    "Id",
    "At",
    "Sender",
    "Came",
    "Received-Bytes",
    "Text-Bytes",
    "Recipients",
    "Ret",
    "Envid",
    "Body",
    "Utf8",
    "Bounce-Of",
    "Mark",
];
/// So many of them must be said.
const NEEDED: u32 = 8;

impl Reading {
    /// The next line, without its end; `None`: a queue file has no such line there.
    pub(super) fn take(&mut self, id: &str, line: &[u8]) -> Option<()> {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let value = line[colon + 1..].strip_prefix(b" ")?;
        let known = NAMES.iter().position(|name| name.as_bytes() == &line[..colon]);
        if self.seen == 0 && known != Some(0) {
            return None;
        }
        let Some(known) = known else { return Some(()) };
        if self.seen & 1 << known != 0 {
            return None;
        }
        self.seen |= 1 << known;
        let first = value.split(|&byte| byte == b' ').next().unwrap_or_default();
        let (facts, number) = (&mut self.facts, || decimal(first));
        let envelope = &mut facts.envelope;
        match NAMES[known] {
            FIRST if first == VERSION => {}
            "Id" if first == id.as_bytes() => {}
            "At" => envelope.received_secs = i64::try_from(number()?).ok()?,
            "Sender" => envelope.sender = said(first)?,
            "Came" => envelope.came = said(first)?,
            "Received-Bytes" => facts.received_bytes = number().filter(|&bytes| bytes <= RECEIVED_BYTES as u64)?,
            "Text-Bytes" => facts.text_bytes = number()?,
            "Recipients" => {
                let number = u32::try_from(number()?).ok()?;
                facts.recipients = Some(number).filter(|number| (1..=RECIPIENTS_MAX).contains(number))?;
            }
            "Ret" if first == b"full" => envelope.ret = Some(Ret::Full),
            "Ret" if first == b"headers" => envelope.ret = Some(Ret::Headers),
            "Envid" => envelope.envid = Some(said(first)?),
            "Body" if first == b"8bit" => envelope.eight_bit = true,
            "Utf8" if first == b"yes" => envelope.utf8 = true,
            "Bounce-Of" => {
                let number = value.split(|&byte| byte == b' ').nth(1).and_then(decimal)?;
                let origin = Some(first).filter(|origin| is_id(origin))?;
                envelope.bounce_of = Some((said(origin)?, u32::try_from(number).ok()?));
            }
            "Mark" => envelope.mark = Some(Mark::read(str::from_utf8(first).ok()?)?),
            _ => return None,
        }
        Some(())
    }

    /// What they said; `None` when something is missing.
    pub(super) fn finish(self) -> Option<Facts> {
        let needed = (1 << NEEDED) - 1;
        (self.seen & needed == needed).then_some(self.facts)
    }
}

fn said(word: &[u8]) -> Option<String> {
    String::from_utf8(percent::decode(word)?).ok()
}

/// What the line of a recipient begins with.
pub(super) const TO: &[u8] = b"To: ";

/// The line of recipient `number`, with its end.
pub(super) fn encode_recipient(number: u32, recipient: &Recipient) -> Vec<u8> {
    let mut line = TO.to_vec();
    line.extend_from_slice(format!("{number} {} ", recipient.kind.word()).as_bytes());
    line.extend(word(recipient.address.as_bytes()));
    if let Some(Notify { success, failure, delay }) = recipient.notify {
        let wanted = [(success, "success"), (failure, "failure"), (delay, "delay")];
        let words: Vec<&str> = wanted.iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, word)| *word).collect();
        let words = if words.is_empty() { "never".to_owned() } else { words.join(",") };
        line.extend_from_slice(format!(" notify={words}").as_bytes());
    }
    if let Some(orcpt) = &recipient.orcpt {
        line.extend_from_slice(b" orcpt=");
        line.extend(word(orcpt.as_bytes()));
    }
    for with in &recipient.with {
        line.extend_from_slice(b" with=");
        line.extend(word(with.as_bytes()));
    }
    line.push(b'\n');
    line
}

/// What it says without its end, if it is the line of recipient `number`.
pub(super) fn decode_recipient(number: u32, line: &[u8]) -> Option<Recipient> {
    let mut words = line.strip_prefix(TO)?.split(|&byte| byte == b' ');
    if decimal(words.next()?)? != u64::from(number) {
        return None;
    }
    let kind = words.next()?;
    let (kind, _) = *Kind::ALL.iter().find(|(_, word)| word.as_bytes() == kind)?;
    let address = said(words.next()?)?;
    let mut recipient = Recipient { kind, address, with: Vec::new(), notify: None, orcpt: None };
    for param in words {
        if let Some(value) = param.strip_prefix(b"notify=") {
            let mut notify = Notify::default();
            for word in value.split(|&byte| byte == b',') {
                match word {
                    b"success" => notify.success = true,
                    b"failure" => notify.failure = true,
                    b"delay" => notify.delay = true,
                    b"never" => {}
                    _ => return None,
                }
            }
            recipient.notify = Some(notify);
        } else if let Some(value) = param.strip_prefix(b"orcpt=") {
            recipient.orcpt = Some(said(value)?);
        } else if let Some(value) = param.strip_prefix(b"with=") {
            recipient.with.push(said(value)?);
        }
    }
    Some(recipient)
}
