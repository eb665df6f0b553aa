//! Delivery status notifications (RFC 3461 to 3464, 6522, 6533): what became of a message, to its sender. In: facts. Out: a message
//! in three parts, with LF, as any message that comes in.
//!
//! ```text
//! Content-Type: multipart/report; report-type=delivery-status; ...
//!
//! text/plain                  for people: to whom, what, why in plain words, what they can do, what the server does next
//! message/delivery-status     for machines
//! text/rfc822-headers         what came back: see `original`
//! ```
//!
//! | a report      | tells of recipients who          | action                       | status of it                  |
//! |---------------|----------------------------------|------------------------------|-------------------------------|
//! | [`Bounce`](Report::Bounce)   | cannot have it    | failed                       | what was said (4 or 5); 4.4.7 when it waited too long |
//! | [`Delay`](Report::Delay)     | wait long         | delayed                      | what was said last (4)        |
//! | [`Success`](Report::Success) | have it           | delivered, relayed, expanded | what was said (2)             |
//!
//! When an address, or a header that came with SMTPUTF8, has more than ASCII, the parts are `message/global-delivery-status` and
//! `message/global-headers` or `message/global`, and the report needs SMTPUTF8 itself; in any other report all fields are ASCII,
//! and it is of seven bits, but where a whole message of eight is brought back.
//!
//! It goes out with the null sender, so that nothing answers it. Everything in it that strangers chose is made printable and bounded
//! ([`LISTED_MAX`], [`HEADER_BYTES`], 500 characters of a reason; a whole message is as big as who asks for it reads), stands behind a field's name, in angle brackets or behind
//! blanks, and can neither begin a field nor end a part. Equal facts give equal bytes.
//!
//! What it does not do: judge whether anybody is to be told, and deliver.

pub mod original;
pub mod reason;
#[cfg(test)]
mod tests;
mod words;

use std::fmt::Write as _;

pub use original::{HEADER_BYTES, Original};

use super::encoded;
use super::notice::{Notice, fold};
use super::received::date;
use crate::text::printable::visible;
use crate::text::xtext;
use original::{Encoding, Part};
use reason::Reason;

/// So many recipients are named; of the others their number.
pub const LISTED_MAX: usize = 100;
/// A reason is not longer than that, in characters.
const WHY_CHARS: usize = 500;
/// Bytes of an address, or of anything else in a field that is not folded: with its name it fits into a line.
const VALUE_BYTES: usize = 900;
/// Characters of a word in a field that is folded, and of a line that is not: of four bytes each they fit into a line.
const WORD_CHARS: usize = 200;
/// Columns of a line of such a field.
const WIDTH: usize = 76;
/// Characters of a subject that are named.
const SUBJECT_CHARS: usize = 60;

/// What a report tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Report {
    /// Recipients who will not have the message.
    Bounce,
    /// Recipients who wait long.
    Delay,
    /// Recipients who have it.
    Success,
}

impl Report {
    /// All there are.
    pub const ALL: [Report; 3] = [Report::Bounce, Report::Delay, Report::Success];

    /// What it is called: `a bounce`.
    pub fn name(self) -> &'static str {
        match self {
            Report::Bounce => "a bounce",
            Report::Delay => "a warning",
            Report::Success => "a receipt",
        }
    }
}

/// The queue id of a report on message `id`, by the number that the queue gave it: the same whenever it is made, so that a crash
/// between its making and what is noted of it never makes two.
pub fn report_id(id: &str, report: Report, number: u32) -> String {
    let letter = match report {
        Report::Bounce => 'b',
        Report::Delay => 'w',
        Report::Success => 's',
    };
    format!("{id}{letter}{number}")
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// He cannot have it.
    Failed,
    /// He waited too long.
    Expired,
    /// He waits; how long he is tried, in seconds since 1970.
    Delayed(i64),
    /// It is in his mailbox, or a program has it.
    Delivered,
    /// A host has it that will not tell what becomes of it.
    Relayed,
    /// His address led to several others.
    Expanded,
}

impl What {
    /// RFC 3464 §2.3.3.
    fn action(self) -> &'static str {
        match self {
            What::Failed | What::Expired => "failed",
            What::Delayed(_) => "delayed",
            What::Delivered => "delivered",
            What::Relayed => "relayed",
            What::Expanded => "expanded",
        }
    }

    /// The enhanced code, by what was said.
    fn status<'r>(self, reason: &Reason<'r>) -> &'r str {
        let said = |classes: &[u16]| reason.code().is_some_and(|(class, ..)| classes.contains(&class));
        let (classes, otherwise): (&[u16], _) = match self {
            What::Failed => (&[4, 5], "5.0.0"),
            What::Expired => (&[], "4.4.7"),
            What::Delayed(_) => (&[4], "4.0.0"),
            What::Delivered | What::Relayed | What::Expanded => (&[2], "2.0.0"),
        };
        reason.status.filter(|_| said(classes)).unwrap_or(otherwise)
    }
}

/// A recipient, and what became of him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Where it was to go.
    pub address: &'a str,
    /// ORCPT, as the queue has it.
    pub orcpt: Option<&'a str>,
    /// What.
    pub what: What,
    /// An enhanced code, and words: see [`reason`].
    pub why: &'a str,
    /// When that was, in seconds since 1970.
    pub tried_secs: i64,
}

/// A report.
#[derive(Clone, Copy, Debug)]
pub struct Dsn<'a> {
    /// Its own queue id, see [`report_id`].
    pub id: &'a str,
    /// Of what it tells.
    pub report: Report,
    /// The name of this host.
    pub host: &'a str,
    /// The message's sender.
    pub sender: &'a str,
    /// When the report is written, in seconds since 1970.
    pub written_secs: i64,
    /// The message's queue id.
    pub origin: &'a str,
    /// When the message came.
    pub received_secs: i64,
    /// The host that it came from, where that is known.
    pub from: Option<&'a str>,
    /// ENVID, as sent.
    pub envid: Option<&'a str>,
    /// The message came with SMTPUTF8.
    pub utf8: bool,
    /// The first of the recipients that this tells of. More than [`LISTED_MAX`] are not named.
    pub told: &'a [Told<'a>],
    /// How many they are in all.
    pub count: usize,
    /// The message.
    pub original: Original<'a>,
}

/// A report as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// All of it.
    pub text: Vec<u8>,
    /// It has octets above 127.
    pub eight_bit: bool,
    /// It needs SMTPUTF8.
    pub utf8: bool,
}

impl Dsn<'_> {
    /// The whole message.
    pub fn written(&self) -> Written {
        let header = self.original.header();
        let is_wide = |told: &Told<'_>| {
            !told.address.is_ascii() || original_recipient(told.orcpt).is_some_and(|(_, address)| !address.is_ascii())
        };
        let utf8 = !self.sender.is_ascii()
            || self.listed().iter().any(is_wide)
            || self.utf8 && !header.is_ascii() && std::str::from_utf8(&header).is_ok();
        let message_id = original::message_id(&header);
        let people = self.for_people(&header).into_bytes();
        let (encoding, people) = match (people.is_ascii(), utf8) {
            (true, _) => (Encoding::SevenBit, people),
            (false, true) => (Encoding::EightBit, people),
            (false, false) => (Encoding::Quoted, original::quoted(&people)),
        };
        let fields = self.for_machines(utf8).into_bytes();
        let machines = Part {
            kind: if utf8 { "message/global-delivery-status" } else { "message/delivery-status" },
            encoding: if fields.is_ascii() { Encoding::SevenBit } else { Encoding::EightBit },
            body: fields,
        };
        let parts = [
            Part { kind: "text/plain; charset=utf-8", encoding, body: people },
            machines,
            self.original.part(header, utf8),
        ];
        let eight_bit = parts.iter().any(|part| part.encoding == Encoding::EightBit);
        let text = self.assembled(&parts, eight_bit, message_id.as_deref());
        Written { eight_bit: eight_bit || !text.is_ascii(), text, utf8 }
    }

    fn listed(&self) -> &[Told<'_>] {
        &self.told[..self.told.len().min(LISTED_MAX)]
    }

    fn assembled(&self, parts: &[Part], eight_bit: bool, message_id: Option<&str>) -> Vec<u8> {
        let boundary = self.boundary(parts);
        let subject = match self.report {
            Report::Bounce => "Your message could not be delivered",
            Report::Delay => "Your message is delayed",
            Report::Success if self.told.iter().all(|told| told.what == What::Delivered) => {
                "Your message was delivered"
            }
            Report::Success => "Your message was passed on",
        };
        let notice = Notice { host: self.host, to: self.sender, subject, id: self.id, posted_secs: self.written_secs };
        let mut text = notice.fields("auto-replied");
        if let Some(id) = message_id {
            let _ = write!(text, "In-Reply-To: {id}\nReferences: {id}\n");
        }
        let encoding = if eight_bit { Encoding::EightBit } else { Encoding::SevenBit };
        let _ = write!(
            text,
            "Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"{boundary}\"\n\
             Content-Transfer-Encoding: {}\n\nThis is a report of a mail server, in three parts.\n",
            encoding.word()
        );
        let mut text = text.into_bytes();
        for Part { kind, encoding, body } in parts {
            let head =
                format!("\n--{boundary}\nContent-Type: {kind}\nContent-Transfer-Encoding: {}\n\n", encoding.word());
            text.extend_from_slice(head.as_bytes());
            text.extend_from_slice(body);
        }
        text.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        text
    }

    /// What separates the parts: in none of them.
    fn boundary(&self, parts: &[Part]) -> String {
        let id: String = self.id.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let mut number = 0_u32;
        loop {
            let boundary = format!("=_{id}_{number}");
            if parts.iter().all(|part| memchr::memmem::find(&part.body, boundary.as_bytes()).is_none()) {
                return boundary;
            }
            // Each takes room in parts that are bounded.
            number += 1;
        }
    }

    /// The first part.
    fn for_people(&self, header: &[u8]) -> String {
        let mut text = format!("This is the mail server at {}.\n\n", visible(self.host));
        let subject = original::field(header, "subject").map(|field| encoded::decoded(&field)).unwrap_or_default();
        let about =
            if subject.is_empty() { String::new() } else { format!(" about \"{}\"", cut(&subject, SUBJECT_CHARS)) };
        let message = format!("our message of {}{about}", date(self.received_secs));
        let begin = match self.report {
            Report::Bounce => format!("Y{message} could not be delivered to:"),
            Report::Delay => format!("Y{message} has not been delivered yet to:"),
            Report::Success => format!("You asked to be told what becomes of y{message}:"),
        };
        fold("", &begin, &mut text);
        let listed = self.listed();
        for (index, told) in listed.iter().enumerate() {
            let same = |other: &Told<'_>| (other.what, other.why) == (told.what, told.why);
            if index == 0 || !same(&listed[index - 1]) {
                text.push('\n');
            }
            let _ = writeln!(text, "<{}>", bounded(&visible(&named(told.address, told.orcpt))));
            if listed.get(index + 1).is_none_or(|next| !same(next)) {
                explain(told, &mut text);
            }
        }
        let more = self.count.saturating_sub(listed.len());
        if more > 0 {
            let _ = writeln!(text, "\nAnd {more} more.");
        }
        text.push('\n');
        let next = match (self.report, listed.first().map(|told| told.what)) {
            (Report::Bounce, _) => "It is not tried again for them.".to_owned(),
            (Report::Delay, Some(What::Delayed(until))) => format!(
                "The server goes on trying until {}. You need not send it again. If it cannot be delivered by then, you \
                 are told.",
                date(until)
            ),
            (Report::Delay, _) => "The server goes on trying.".to_owned(),
            (Report::Success, _) => "Nothing is left to be done here.".to_owned(),
        };
        fold("", &next, &mut text);
        let asked = format!(
            "Questions? Ask postmaster@{}, and name this number: {}.",
            visible(self.host),
            visible(self.origin)
        );
        fold("", &asked, &mut text);
        text
    }

    /// The second part: fields of the message, then of each recipient.
    fn for_machines(&self, utf8: bool) -> String {
        let mut fields = Fields { text: String::new(), utf8 };
        if let Some(envid) = self.envid.and_then(|envid| xtext::decode(envid.as_bytes()))
            && let Ok(envid) = std::str::from_utf8(&envid)
            && !envid.trim().is_empty()
        {
            fields.add("Original-Envelope-Id", envid);
        }
        fields.add("Reporting-MTA", &format!("dns; {}", self.host));
        if let Some(from) = self.from.filter(|from| reason::is_host(from)) {
            fields.add("Received-From-MTA", &format!("dns; {from}"));
        }
        fields.add("Arrival-Date", &date(self.received_secs));
        fields.add("X-DMail-Queue-Id", self.origin);
        for told in self.listed() {
            fields.text.push('\n');
            let reason = Reason::of(told.why);
            if let Some((kind, address)) = original_recipient(told.orcpt) {
                fields.add("Original-Recipient", &format!("{kind};{address}"));
            }
            let kind = if told.address.is_ascii() { "rfc822" } else { "utf-8" };
            fields.add("Final-Recipient", &format!("{kind};{}", told.address));
            fields.add("Action", told.what.action());
            fields.add("Status", told.what.status(&reason));
            if let Some(host) = reason.host {
                fields.add("Remote-MTA", &format!("dns; {host}"));
            }
            let words = cut(reason.words.trim(), WHY_CHARS);
            match (&*words, reason.host) {
                ("", _) => {}
                (words, Some(_)) => fields.fold("Diagnostic-Code", &format!("smtp; {words}")),
                (words, None) => fields.fold("Diagnostic-Code", &format!("x-dmail; {words}")),
            }
            fields.add("Last-Attempt-Date", &date(told.tried_secs));
            if let What::Delayed(until) = told.what {
                fields.add("Will-Retry-Until", &date(until));
            }
        }
        fields.text
    }
}

/// Whom the sender had named.
fn named(address: &str, orcpt: Option<&str>) -> String {
    let original = original_recipient(orcpt)
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("rfc822") || kind.eq_ignore_ascii_case("utf-8"));
    original.map_or_else(|| address.to_owned(), |(_, address)| address)
}

/// ORCPT as it was before encoding, if nothing is strange about it: the kind of address, and the address.
fn original_recipient(orcpt: Option<&str>) -> Option<(&str, String)> {
    let (kind, address) = orcpt?.split_once(';')?;
    let is_atom =
        (1..=20).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let address = match address.is_ascii() {
        true => String::from_utf8(xtext::decode(address.as_bytes())?).ok()?,
        false => address.to_owned(),
    };
    let fits = !address.trim().is_empty() && visible(&address) == address;
    let is_known = address.is_ascii() || kind.eq_ignore_ascii_case("utf-8");
    (is_atom && fits && is_known).then_some((kind, address))
}

/// What came of one recipient, or of several who came to the same.
fn explain(told: &Told<'_>, text: &mut String) {
    const BEHIND: &str = "    ";
    let reason = Reason::of(told.why);
    let words = match reason.code() {
        Some((_, subject, detail)) => words::words(subject, detail),
        None if reason.words.is_empty() => words::Words { what: "No reason is known.", help: "Ask the postmaster." },
        None => words::unknown(),
    };
    match told.what {
        What::Failed => fold(BEHIND, &format!("{} {}", words.what, words.help), text),
        What::Expired => {
            fold(BEHIND, &format!("It waited too long. At the last try: {} {}", words.what, words.help), text);
        }
        What::Delayed(_) => fold(BEHIND, &format!("{} It is tried again.", words.what), text),
        What::Delivered => fold(BEHIND, "It has been delivered.", text),
        What::Relayed => fold(
            BEHIND,
            "The next mail server has it. That one does not report what becomes of it: you hear no more, unless it fails.",
            text,
        ),
        What::Expanded => fold(
            BEHIND,
            "The address stands for several others. It is on its way to them; you hear of those only who cannot have it.",
            text,
        ),
    }
    let said = cut(told.why.trim(), WHY_CHARS);
    match reason.host {
        Some(host) => {
            fold(BEHIND, &format!("The server {host} said:"), text);
            verbatim("        ", &cut(reason.words, WHY_CHARS), text);
        }
        None if said.is_empty() => {}
        None => verbatim(BEHIND, &format!("Here it says: {said}"), text),
    }
}

/// What somebody may look for word by word: in as few lines as may be.
fn verbatim(prefix: &str, said: &str, text: &mut String) {
    let said: Vec<char> = said.chars().collect();
    for part in said.chunks(WORD_CHARS) {
        text.push_str(prefix);
        text.extend(part);
        text.push('\n');
    }
}

/// So many characters of it.
fn cut(text: &str, most: usize) -> String {
    let mut shown: String = visible(text).chars().take(most).collect();
    if text.chars().count() > most {
        shown += "...";
    }
    shown
}

/// So much of it that a line can have it.
fn bounded(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_BYTES)]
}

/// The fields that machines read.
struct Fields {
    text: String,
    utf8: bool,
}

impl Fields {
    /// One line.
    fn add(&mut self, name: &str, value: &str) {
        let value = self.clean(value);
        let _ = writeln!(self.text, "{name}: {}", bounded(value.trim()));
    }

    /// As many lines as it needs.
    fn fold(&mut self, name: &str, value: &str) {
        let value: Vec<char> = self.clean(value).chars().collect();
        let _ = write!(self.text, "{name}:");
        let mut used = name.len() + 1;
        let words = value.split(|c| *c == ' ').flat_map(|word| word.chunks(WORD_CHARS));
        for (index, word) in words.enumerate() {
            if index > 0 && used + 1 + word.len() > WIDTH {
                self.text.push('\n');
                used = 0;
            }
            self.text.push(' ');
            self.text.extend(word);
            used += 1 + word.len();
        }
        self.text.push('\n');
    }

    /// Printable, and of the letters that this report may have.
    fn clean(&self, value: &str) -> String {
        visible(value).chars().map(|c| if self.utf8 || c.is_ascii() { c } else { '?' }).collect()
    }
}
