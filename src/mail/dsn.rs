//! That a message could not be delivered, to its sender. In: facts. Out: a [`Notice`], with LF, as any message that comes in. Its
//! text:
//!
//! ```text
//! This is the mail server at mail.example.com. ...
//!
//! <bob@example.com>
//!     5.1.1 no such user
//!
//! It began so:
//!
//! > Subject: tea
//! ```
//!
//! Such a message goes out with the null sender, so that nothing answers it. Everything in it that strangers chose is made
//! printable, bounded ([`LISTED_MAX`], [`HEADER_BYTES`], [`BODY_BYTES`]), and behind `> ` or blanks, so that no line of it is
//! taken for a field, a separator or a sentence of ours. Equal facts give equal bytes.
//!
//! What it does not do: judge whether anybody is to be told, and speak the form that machines read (RFC 3464).

use std::fmt::Write as _;

use super::notice::Notice;
use super::received::date;
use crate::text::printable::visible;

/// So many recipients are named; of the others their number.
pub const LISTED_MAX: usize = 100;
/// So much of the message's header is brought back.
pub const HEADER_BYTES: usize = 8 * 1024;
/// So much of the message is, header with it, when all of it is wanted.
pub const BODY_BYTES: usize = 64 * 1024;
/// A reason is not longer than that, in characters.
const WHY_CHARS: usize = 500;
/// Reasons, and lines that are brought back, are broken there, in characters: with what stands before them, and each of four bytes, they are no
/// longer than a line of a message may be.
const LINE_CHARS: usize = 240;

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

/// One recipient that there is no more to be done for.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Whom the sender had named.
    pub address: &'a str,
    /// An enhanced code, and words.
    pub why: &'a str,
    /// It was not refused: it waited too long.
    pub expired: bool,
}

/// That a message could not be delivered to some of its recipients.
#[derive(Clone, Copy, Debug)]
pub struct Bounce<'a> {
    /// Its own queue id, see [`report_id`].
    pub id: &'a str,
    /// The name of this host.
    pub host: &'a str,
    /// The message's sender.
    pub sender: &'a str,
    /// When the bounce is written, in seconds since 1970.
    pub written_secs: i64,
    /// The message's queue id.
    pub origin: &'a str,
    /// When the message came.
    pub received_secs: i64,
    /// The first of the recipients that this tells of. More than [`LISTED_MAX`] are not named.
    pub failures: &'a [Failure<'a>],
    /// How many they are in all.
    pub count: usize,
    /// How the message begins: [`HEADER_BYTES`] of it suffice, or [`BODY_BYTES`] with `whole`.
    pub original: &'a [u8],
    /// Its body comes back too.
    pub whole: bool,
}

impl Bounce<'_> {
    /// The whole message.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Notice {
            host: self.host,
            to: self.sender,
            subject: "Your message could not be delivered",
            id: self.id,
            posted_secs: self.written_secs,
        }
        .head("auto-replied");
        let host = visible(self.host);
        let _ = write!(
            text,
            "This is the mail server at {host}.\n\nYour message of {} (here it is {}) could not be delivered to everybody. \
             It is not tried\nagain for:\n",
            date(self.received_secs),
            visible(self.origin),
        );
        for failure in self.failures.iter().take(LISTED_MAX) {
            let _ = write!(text, "\n<{}>\n", visible(failure.address));
            if failure.expired {
                text += "    It waited too long. The last try ended with:\n";
            }
            let why: String = visible(failure.why).chars().take(WHY_CHARS).collect();
            let why = if why.is_empty() { "No reason is known." } else { &why };
            behind("    ", why, &mut text);
        }
        let more = self.count.saturating_sub(self.failures.len().min(LISTED_MAX));
        if more > 0 {
            let _ = writeln!(text, "\nAnd {more} more.");
        }
        let (limit, what) = if self.whole { (BODY_BYTES, "") } else { (HEADER_BYTES, ", without its body") };
        let _ = write!(text, "\nThe message{what}:\n\n");
        let cut = quote(self.original, limit, self.whole, &mut text);
        if cut {
            text += "\nIt goes on.\n";
        }
        text.into_bytes()
    }
}

/// Lines of a message behind `> `, at most `limit` bytes of it, and without `whole` only its header; says whether more follows that
/// was wanted.
fn quote(original: &[u8], limit: usize, whole: bool, text: &mut String) -> bool {
    let mut at = 0;
    for line in original.split_inclusive(|&byte| byte == b'\n') {
        let end = (at + line.len()).min(limit);
        let shown = String::from_utf8_lossy(&original[at..end]);
        let shown = shown.trim_end_matches(['\n', '\r']);
        if shown.is_empty() && !whole {
            return false;
        }
        // Tabs begin folded lines, and are no harm.
        match visible(&shown.replace('\t', " ")) {
            shown if shown.is_empty() => text.push_str(">\n"),
            shown => behind("> ", &shown, text),
        }
        at += line.len();
        if at >= limit {
            break;
        }
    }
    at >= limit
}

/// One line, broken where it is too long.
fn behind(prefix: &str, line: &str, text: &mut String) {
    let line: Vec<char> = line.chars().collect();
    for part in line.chunks(LINE_CHARS) {
        text.push_str(prefix);
        text.extend(part);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILURES: &[Failure<'static>] = &[
        Failure { address: "bob@example.com", why: "5.1.1 no such user", expired: false },
        Failure { address: "kim@example.net", why: "4.4.1 no answer", expired: true },
        Failure { address: "lee@example.net", why: "", expired: false },
    ];

    fn bounce() -> Bounce<'static> {
        Bounce {
            id: "7K2Fb1",
            host: "mail.example.com",
            sender: "ann@example.org",
            written_secs: 1_767_610_800,
            origin: "7K2F",
            received_secs: 1_767_610_000,
            failures: FAILURES,
            count: 3,
            original: b"Subject: tea\r\n\tand cake\r\nX: \x1b[2J\xff\r\n\r\nFrom now on at five.\n",
            whole: false,
        }
    }

    #[test]
    fn a_bounce_says_who_did_not_get_what_and_why() {
        let text = String::from_utf8(bounce().text()).unwrap();
        assert_eq!(
            text,
            "From: Mail Delivery System <MAILER-DAEMON@mail.example.com>\nTo: <ann@example.org>\n\
             Subject: Your message could not be delivered\nDate: Mon, 5 Jan 2026 11:00:00 +0000\n\
             Message-ID: <7K2Fb1@mail.example.com>\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
             This is the mail server at mail.example.com.\n\n\
             Your message of Mon, 5 Jan 2026 10:46:40 +0000 (here it is 7K2F) could not be delivered to everybody. \
             It is not tried\nagain for:\n\n\
             <bob@example.com>\n    5.1.1 no such user\n\n\
             <kim@example.net>\n    It waited too long. The last try ended with:\n    4.4.1 no answer\n\n\
             <lee@example.net>\n    No reason is known.\n\n\
             The message, without its body:\n\n\
             > Subject: tea\n>  and cake\n> X: ?[2J\u{fffd}\n"
        );
        let whole = String::from_utf8(Bounce { whole: true, ..bounce() }.text()).unwrap();
        assert!(whole.ends_with(
            "\nThe message:\n\n> Subject: tea\n>  and cake\n> X: ?[2J\u{fffd}\n>\n> From now on at five.\n"
        ));
        assert_eq!(report_id("7K2F", Report::Bounce, 1), "7K2Fb1");
    }

    #[test]
    fn what_is_too_much_is_counted_or_said_to_go_on() {
        let many = vec![FAILURES[0]; LISTED_MAX + 1];
        let text = String::from_utf8(Bounce { failures: &many, count: 5000, ..bounce() }.text()).unwrap();
        assert_eq!(text.matches("<bob@").count(), LISTED_MAX);
        assert!(text.contains("\nAnd 4900 more.\n"));
        let long = format!("Subject: {}\n\nbody\n", "x".repeat(2 * BODY_BYTES));
        for (whole, limit) in [(false, HEADER_BYTES), (true, BODY_BYTES)] {
            for given in [limit, long.len()] {
                let original = &long.as_bytes()[..given];
                let text = String::from_utf8(Bounce { original, whole, ..bounce() }.text()).unwrap();
                assert!(text.ends_with("\nIt goes on.\n"), "{given} of {limit}");
                assert!((limit..limit + 2000).contains(&text.len()) || text.len() < 2 * limit, "{}", text.len());
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_strangers_chose_begins_no_line_and_makes_none_too_long(
            original in proptest::collection::vec("From x|Subject: y\n|\r|\n|\0|[\\PC]{0,300}", 0..20),
            sender in "\\PC{0,20}|a\r\nBcc: x\n\n",
            why in "[\\PC\n]{0,40}|x\nFrom y|\\PC{0,600}",
            whole: bool,
        ) {
            let original = original.concat().into_bytes();
            let failures = [Failure { address: &sender, why: &why, expired: whole }];
            let bounce =
                Bounce { sender: &sender, failures: &failures, count: 1, original: &original, whole, ..bounce() };
            let text = String::from_utf8(bounce.text()).unwrap();
            let (head, body) = text.split_once("\n\n").unwrap();
            prop_assert_eq!(head.lines().count(), 9);
            let (_, quoted) = body.split_once("The message").unwrap();
            for line in quoted.split('\n').skip(2) {
                prop_assert!(line.is_empty() || line.starts_with('>') || line == "It goes on.", "{}", line);
            }
            for line in text.split('\n') {
                prop_assert!(!line.starts_with("From ") && line.len() <= 998 && !line.contains('\r'));
            }
        }
    }
}
