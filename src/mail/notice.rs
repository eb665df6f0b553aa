//! A message of ours to whoever runs this server: one thing that he should know, in plain words.
//!
//! It says that a program wrote it (RFC 3834), so that no program answers it. It comes from nobody: should it not arrive, nobody
//! is told of that but the log. Lines end in LF, as all stored text.

use super::received::date;

/// Octets of a line of text after which it is broken at a blank.
const WIDTH: usize = 76;

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
    /// What it says: paragraphs.
    pub text: &'a [&'a str],
}

impl Notice<'_> {
    /// The whole message. What cannot stand in a line of mail becomes `?`.
    pub fn written(&self) -> Vec<u8> {
        let Notice { host, to, subject, id, posted_secs, text } = *self;
        let header = [
            format!("From: DMail <postmaster@{}>", plain(host)),
            format!("To: {}", plain(to)),
            format!("Subject: {}", plain(subject)),
            format!("Date: {}", date(posted_secs)),
            format!("Message-ID: <{}@{}>", plain(id), plain(host)),
            "Auto-Submitted: auto-generated".to_owned(),
        ];
        let mut written = header.join("\n") + "\n";
        for paragraph in text {
            written.push('\n');
            let mut used = 0;
            for word in plain(paragraph).split(' ').filter(|word| !word.is_empty()) {
                if used > 0 {
                    let fits = used + 1 + word.len() <= WIDTH;
                    written.push(if fits { ' ' } else { '\n' });
                    used = if fits { used + 1 } else { 0 };
                }
                written.push_str(word);
                used += word.len();
            }
            written.push('\n');
        }
        written.into_bytes()
    }
}

/// Printable ASCII, whatever it was: names come from authenticators.
fn plain(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_a_message_that_no_program_answers_and_no_name_can_add_a_line_to() {
        let long = "word ".repeat(40);
        let notice = Notice {
            host: "example.com",
            to: "postmaster@example.com",
            subject: "ann\nBcc: all@example.com",
            id: "7k2f9qm3x0ab",
            posted_secs: 0,
            text: &["It is\r\n.\r\nso \u{fc}.", &long],
        };
        let written = String::from_utf8(notice.written()).unwrap();
        let (header, text) = written.split_once("\n\n").unwrap();
        assert_eq!(
            header.lines().collect::<Vec<_>>(),
            [
                "From: DMail <postmaster@example.com>",
                "To: postmaster@example.com",
                "Subject: ann?Bcc: all@example.com",
                "Date: Thu, 1 Jan 1970 00:00:00 +0000",
                "Message-ID: <7k2f9qm3x0ab@example.com>",
                "Auto-Submitted: auto-generated",
            ]
        );
        assert!(text.starts_with("It is??.??so ?.\n\nword word"), "{text}");
        assert!(text.lines().all(|line| line.len() <= WIDTH) && text.lines().count() == 5, "{text}");
        assert!(written.ends_with("word\n"));
    }
}
