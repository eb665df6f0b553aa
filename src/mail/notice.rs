//! What we write of our own accord: a message with a header that says so, and plain words. Whoever runs this server hears of
//! what he should know, a user that his mailbox fills ([`Filling`]), a sender that his message was lost ([`dsn`](super::dsn)).
//!
//! ```text
//! From: Mail Delivery System <MAILER-DAEMON@mail.example.com>
//! To: <ann@example.org>
//! Subject: Your mailbox is almost full
//! Date: Mon, 5 Jan 2026 11:00:00 +0000
//! Message-ID: <7K2F@mail.example.com>
//! Auto-Submitted: auto-generated
//! MIME-Version: 1.0
//! Content-Type: text/plain; charset=utf-8
//! Content-Transfer-Encoding: 8bit
//! ```
//!
//! It says that a program wrote it (RFC 3834), so that no program answers it. It comes from nobody: should it not arrive, nobody
//! is told of that but the log. Lines end in LF, as all stored text; what cannot be seen in one becomes `?`, so that no name begins
//! another. Equal facts give equal bytes.

use super::received::date;
use crate::text::printable::visible;

/// Characters of a line of text after which it is broken at a blank.
const WIDTH: usize = 76;
/// Characters of a word, which is broken there: of four bytes each they are no longer than a line of a message may be.
const WORD_CHARS: usize = 240;

/// See the page.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// This server's name.
    pub host: &'a str,
    /// Whom it is for.
    pub to: &'a str,
    /// What it is about, in one line.
    pub subject: &'a str,
    /// Its id in the queue.
    pub id: &'a str,
    /// When it is written, in seconds since 1970.
    pub posted_secs: i64,
}

impl Notice<'_> {
    /// The whole message, with these paragraphs.
    pub fn written<T: AsRef<str>>(&self, paragraphs: &[T]) -> Vec<u8> {
        let mut written = self.head("auto-generated");
        for (index, paragraph) in paragraphs.iter().enumerate() {
            if index > 0 {
                written.push('\n');
            }
            fold("", paragraph.as_ref(), &mut written);
        }
        written.into_bytes()
    }

    /// Its header, and the blank line. `submitted`: `auto-generated`, or `auto-replied` when it answers a message.
    fn head(&self, submitted: &str) -> String {
        self.fields(submitted) + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    }

    /// The same without what kind of text follows, and without the blank line.
    pub(super) fn fields(&self, submitted: &str) -> String {
        let (id, host, to, subject) = (visible(self.id), visible(self.host), visible(self.to), visible(self.subject));
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\nTo: <{to}>\nSubject: {subject}\nDate: {}\n\
             Message-ID: <{id}@{host}>\nAuto-Submitted: {submitted}\nMIME-Version: 1.0\n",
            date(self.posted_secs)
        )
    }
}

/// A paragraph of text, its lines broken at blanks, each behind `prefix`.
pub(super) fn fold(prefix: &str, paragraph: &str, out: &mut String) {
    let mut used = 0;
    let paragraph: Vec<char> = visible(paragraph).chars().collect();
    let words = paragraph.split(|c| *c == ' ').flat_map(|word| word.chunks(WORD_CHARS));
    out.push_str(prefix);
    for word in words {
        if used > 0 {
            if prefix.len() + used + 1 + word.len() <= WIDTH {
                out.push(' ');
                used += 1;
            } else {
                out.push('\n');
                out.push_str(prefix);
                used = 0;
            }
        }
        out.extend(word);
        used += word.len();
    }
    out.push('\n');
}

/// What a user is told whose mailbox is almost full.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    /// Bytes of mail that it may have.
    pub limit: u64,
    /// What part of that it has, at least, in percent.
    pub percent: u8,
}

impl Filling {
    /// What it is about.
    pub const SUBJECT: &'static str = "Your mailbox is almost full";

    /// What it says: paragraphs.
    pub fn text(&self) -> [String; 3] {
        [
            format!("More than {} percent of your mailbox is full: it may hold {}.", self.percent, shown(self.limit)),
            "When it is full, new mail for you is not taken any more. Please delete what you do not need on the server: a mail \
             program that leaves messages there has a setting for that."
                .to_owned(),
            "This is said once. For more room, ask your postmaster.".to_owned(),
        ]
    }
}

/// A size, for people.
fn shown(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 10 << 30 => format!("{} GB", bytes >> 30),
        bytes if bytes >= 10 << 20 => format!("{} MB", bytes >> 20),
        bytes => format!("{} kB", bytes.div_ceil(1 << 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: Notice<'static> = Notice {
        host: "example.com",
        to: "postmaster@example.com",
        subject: "ann\nBcc: all@example.com",
        id: "7k2f9qm3x0ab",
        posted_secs: 0,
    };

    #[test]
    fn a_notice_is_a_message_that_no_program_answers_and_no_name_can_add_a_line_to() {
        let (long, longer) = ("word ".repeat(40), "x".repeat(WORD_CHARS + 1));
        let written = String::from_utf8(NOTICE.written(&["It is\r\n.\r\nso \u{fc}.", &long, &longer])).unwrap();
        let (header, text) = written.split_once("\n\n").unwrap();
        assert_eq!(
            header.lines().collect::<Vec<_>>(),
            [
                "From: Mail Delivery System <MAILER-DAEMON@example.com>",
                "To: <postmaster@example.com>",
                "Subject: ann?Bcc: all@example.com",
                "Date: Thu, 1 Jan 1970 00:00:00 +0000",
                "Message-ID: <7k2f9qm3x0ab@example.com>",
                "Auto-Submitted: auto-generated",
                "MIME-Version: 1.0",
                "Content-Type: text/plain; charset=utf-8",
                "Content-Transfer-Encoding: 8bit",
            ]
        );
        assert!(text.starts_with("It is??.??so \u{fc}.\n\nword word"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH || line == &longer[1..]), "{text}");
        assert!(text.contains("word\n\nxx") && text.ends_with("\nx\n") && !text.contains(" \n"), "{text}");
    }

    #[test]
    fn who_has_a_mailbox_that_fills_is_told_how_much_it_may_hold() {
        let text = NOTICE.written(&Filling { limit: 100 << 20, percent: 90 }.text());
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("\n\nMore than 90 percent of your mailbox is full: it may hold 100 MB.\n\nWhen"),
            "{text}"
        );
        for (bytes, size) in
            [(1, "1 kB"), (102_400, "100 kB"), (5 << 20, "5120 kB"), (5 << 30, "5120 MB"), (20 << 30, "20 GB")]
        {
            assert_eq!(shown(bytes), size);
        }
    }
}
