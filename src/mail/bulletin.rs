//! A bulletin as a message: an operator's text file in, one message of an mbox file out.
//!
//! The file is the text. It may begin with `Subject:` and `From:` lines of its own, a blank line behind them. Whatever it holds,
//! the message is one message: lines that would begin another are quoted, as other mbox programs do it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::encoded::{encoded, one_line, phrase};

/// What is known of a bulletin besides its text.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Its number.
    pub number: u32,
    /// When it was written, in seconds since 1970.
    pub written_secs: i64,
    /// From whom: a name, or a whole address.
    pub from: &'a str,
    /// The main domain.
    pub domain: &'a str,
}

/// One message of an mbox file: From_ line, header, text, blank line.
pub fn message(about: &About<'_>, file: &[u8]) -> Vec<u8> {
    let own = Own::of(file);
    let text = String::from_utf8_lossy;
    let subject = own.subject.map_or_else(|| format!("Bulletin {}", about.number), |subject| text(subject).into());
    let from = own.from.map_or_else(|| about.from.to_owned(), |from| text(from).into());
    let date = Timestamp::from_second(about.written_secs).unwrap_or_default().to_zoned(TimeZone::UTC);
    let header = format!(
        "From bulletin {}\nFrom: {}\nDate: {}\nSubject: {}\nMessage-ID: <bulletin.{}.{}@{}>\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nPrecedence: bulk\n\
         Auto-Submitted: auto-generated\n\n",
        date.strftime("%a %b %e %H:%M:%S %Y"),
        sender(&from, about.domain),
        date.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        encoded(&subject),
        about.number,
        about.written_secs,
        about.domain,
    );
    let mut message = header.into_bytes();
    for line in own.text.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().position(|&byte| byte != b'>').is_some_and(|at| line[at..].starts_with(b"From ")) {
            message.push(b'>');
        }
        message.extend_from_slice(line);
        message.push(b'\n');
    }
    message.push(b'\n');
    message
}

/// What a file says for itself.
#[derive(Debug, PartialEq, Eq)]
struct Own<'f> {
    subject: Option<&'f [u8]>,
    from: Option<&'f [u8]>,
    text: &'f [u8],
}

impl<'f> Own<'f> {
    /// Header lines count only when a blank line ends them: a text may begin with any word.
    fn of(file: &'f [u8]) -> Own<'f> {
        let all = Own { subject: None, from: None, text: file };
        let (mut own, mut rest) = (Own { ..all }, file);
        loop {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(end);
            let line = line.trim_ascii_end();
            let value = |name: &str| {
                let begins = line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
                begins.then(|| line[name.len()..].trim_ascii_start())
            };
            if let Some(subject) = value("subject:") {
                own.subject = Some(subject);
            } else if let Some(from) = value("from:") {
                own.from = Some(from);
            } else if end > 0 && line.is_empty() && (own.subject.is_some() || own.from.is_some()) {
                return Own { text: behind, ..own };
            } else {
                return all;
            }
            rest = behind;
        }
    }
}

/// The value of a From field: an address as it is, else a name and the postmaster's address.
fn sender(from: &str, domain: &str) -> String {
    if from.contains('@') {
        return one_line(from);
    }
    format!("{} <postmaster@{domain}>", phrase(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mbox::Scanner;

    const ABOUT: About<'_> =
        About { number: 7, written_secs: 1_768_471_200, from: "Email System Administrator", domain: "example.com" };

    fn shown(file: &str) -> String {
        String::from_utf8(message(&ABOUT, file.as_bytes())).unwrap()
    }

    #[test]
    fn a_text_becomes_a_message() {
        assert_eq!(
            shown("The machine rests on Sunday.\r\nFrom noon on.\n>From six."),
            "From bulletin Thu Jan 15 10:00:00 2026\n\
             From: \"Email System Administrator\" <postmaster@example.com>\n\
             Date: Thu, 15 Jan 2026 10:00:00 +0000\n\
             Subject: Bulletin 7\n\
             Message-ID: <bulletin.7.1768471200@example.com>\n\
             MIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: 8bit\n\
             Precedence: bulk\n\
             Auto-Submitted: auto-generated\n\n\
             The machine rests on Sunday.\n>From noon on.\n>>From six.\n\n"
        );
    }

    #[test]
    fn a_file_may_name_its_subject_and_sender() {
        let message = shown("subject: Caf\u{e9}\nFrom: ops@example.com\n\nHello\n");
        assert!(message.contains("\nSubject: =?utf-8?B?Q2Fmw6k=?=\n"), "{message}");
        assert!(message.contains("\nFrom: ops@example.com\n"), "{message}");
        assert!(message.ends_with("\n\nHello\n\n"), "{message}");
        // A text that only begins like a header is a text.
        for text in ["Subject: tea\nAt five?\n", "Dear all,\n\nhello\n", "Subject: tea", ""] {
            let message = shown(text);
            assert!(message.contains("\nSubject: Bulletin 7\n"), "{message}");
            assert!(message.contains(text.trim_end()), "{message}");
        }
    }

    #[test]
    fn names_cannot_break_the_header() {
        assert_eq!(sender("A \"B\" \\\r\nBcc: all", "x.test"), "\"A \\\"B\\\" \\\\  Bcc: all\" <postmaster@x.test>");
        assert_eq!(sender("J\u{f6}rg", "x.test"), "=?utf-8?B?SsO2cmc=?= <postmaster@x.test>");
        let long = encoded(&"\u{f6}".repeat(100));
        assert!(long.lines().all(|line| line.len() <= 76), "{long}");
    }

    #[test]
    fn whatever_a_file_holds_it_is_one_message() {
        for text in
            ["", "\n\nFrom ann@example.org Mon Jan  5 10:00:00 2026\nSubject: no\n\nno\n", "\r\n\0\n\nFrom \n", "x"]
        {
            let message = message(&ABOUT, text.as_bytes());
            let mut found = 0;
            let mut scanner = Scanner::new(0);
            scanner.feed(&message, &mut |_| found += 1);
            scanner.finish(&mut |_| found += 1);
            assert_eq!(found, 1, "{text:?}");
        }
    }
}
