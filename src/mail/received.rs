//! The Received field that this server writes (RFC 5321 §4.4), and how a protocol is called in it (RFC 3848, 6531).
//!
//! ```text
//! Received: from mail.example.org (mx1.example.org [192.0.2.7])
//!     by mail.example.com with ESMTPS id 7k2f9qm3x0
//!     for <bob@example.com>; Mon, 5 Jan 2026 11:00:00 +0000
//! ```
//!
//! The recipient is named only when there is one: else each would learn of all others. A name that a client or a name
//! server chose never becomes more than a word: what could end a comment or a line is written as `?`.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Who brought a message.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// A client: how it calls itself, the name of its host, and its address.
    Client {
        /// What EHLO said.
        hello: &'a str,
        /// What name servers say.
        name: Option<&'a str>,
        /// Where it is.
        address: IpAddr,
    },
    /// A program on this machine: its user.
    Program {
        /// His name, where he has one.
        user: Option<&'a str>,
        /// His number.
        uid: u32,
    },
}

/// How it was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct With {
    /// LMTP, not SMTP.
    pub lmtp: bool,
    /// The client said EHLO.
    pub extended: bool,
    /// Within TLS.
    pub tls: bool,
    /// Somebody had logged in.
    pub login: bool,
    /// MAIL had SMTPUTF8.
    pub utf8: bool,
}

impl With {
    /// The registered keyword: `ESMTPSA`.
    pub fn keyword(self) -> String {
        let base = match (self.lmtp, self.utf8) {
            (true, true) => "UTF8LMTP",
            (true, false) => "LMTP",
            (false, true) => "UTF8SMTP",
            (false, false) if self.extended || self.tls || self.login => "ESMTP",
            (false, false) => "SMTP",
        };
        format!("{base}{}{}", if self.tls { "S" } else { "" }, if self.login { "A" } else { "" })
    }
}

/// What the field says.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who brought it.
    pub from: From<'a>,
    /// Who we are.
    pub by: &'a str,
    /// How.
    pub with: With,
    /// Its id in the queue.
    pub id: &'a str,
    /// The recipient, when there is only one; as it is written, without angle brackets.
    pub recipient: Option<&'a str>,
    /// When, in seconds since 1970.
    pub posted_secs: i64,
}

impl Received<'_> {
    /// The whole field, folded, with its line end.
    pub fn written(&self) -> Vec<u8> {
        let mut text = String::from("Received: from ");
        // Writing into memory cannot fail.
        let _ = match self.from {
            From::Client { hello, name: Some(name), address } => {
                write!(text, "{} ({} {})", word(hello), word(name), literal(address))
            }
            From::Client { hello, name: None, address } => write!(text, "{} ({})", word(hello), literal(address)),
            From::Program { user: Some(user), uid } => write!(text, "localhost (user {}, uid {uid})", word(user)),
            From::Program { user: None, uid } => write!(text, "localhost (uid {uid})"),
        };
        let _ = write!(text, "\n\tby {} with {} id {}", self.by, self.with.keyword(), self.id);
        if let Some(recipient) = self.recipient {
            let _ = write!(text, "\n\tfor <{recipient}>");
        }
        let _ = writeln!(text, "; {}", date(self.posted_secs));
        text.into_bytes()
    }
}

/// A second as RFC 5322 writes it, in UTC.
pub fn date(posted_secs: i64) -> String {
    let second = Timestamp::from_second(posted_secs).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    second.strftime("%a, %-d %b %Y %H:%M:%S +0000").to_string()
}

fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

fn word(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]+@".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: With = With { lmtp: false, extended: true, tls: true, login: false, utf8: false };

    fn field<'a>() -> Received<'a> {
        Received {
            from: From::Client { hello: "mail.example.org", name: None, address: [192, 0, 2, 7].into() },
            by: "mail.example.com",
            with: HOW,
            id: "7k2f9qm3x0",
            recipient: None,
            posted_secs: 1_767_610_800,
        }
    }

    fn written(field: &Received<'_>) -> String {
        String::from_utf8(field.written()).unwrap()
    }

    #[test]
    fn the_field_says_who_brought_it_how_and_for_whom() {
        assert_eq!(
            written(&field()),
            "Received: from mail.example.org ([192.0.2.7])\n\tby mail.example.com with ESMTPS id 7k2f9qm3x0; \
             Mon, 5 Jan 2026 11:00:00 +0000\n"
        );
        let from = From::Client {
            hello: "[10.0.0.1]",
            name: Some("mx1.example.org"),
            address: "2001:db8::7".parse().unwrap(),
        };
        assert_eq!(
            written(&Received { from, recipient: Some("bob@example.com"), ..field() }),
            "Received: from [10.0.0.1] (mx1.example.org [IPv6:2001:db8::7])\n\tby mail.example.com with ESMTPS id \
             7k2f9qm3x0\n\tfor <bob@example.com>; Mon, 5 Jan 2026 11:00:00 +0000\n"
        );
        let program = From::Program { user: Some("ann"), uid: 1000 };
        assert!(written(&Received { from: program, ..field() }).contains("from localhost (user ann, uid 1000)\n"));
        let nobody = From::Program { user: None, uid: 4711 };
        assert!(written(&Received { from: nobody, ..field() }).contains("from localhost (uid 4711)\n"));
    }

    #[test]
    fn what_others_chose_stays_one_word() {
        let from = From::Client {
            hello: "a) (b\r\nTo: x",
            name: Some("evil)\n(x\u{202e}"),
            address: "::ffff:192.0.2.7".parse().unwrap(),
        };
        let field = written(&Received { from, ..field() });
        assert!(field.starts_with("Received: from a???b??To:?x (evil???x? [192.0.2.7])\n\tby "), "{field}");
    }

    #[test]
    fn protocols_are_called_as_they_are_registered() {
        let with = |lmtp, extended, tls, login, utf8| With { lmtp, extended, tls, login, utf8 }.keyword();
        assert_eq!(with(false, false, false, false, false), "SMTP");
        assert_eq!(with(false, true, false, false, false), "ESMTP");
        assert_eq!(with(false, true, true, true, false), "ESMTPSA");
        assert_eq!(with(false, false, true, false, false), "ESMTPS", "there is no SMTPS");
        assert_eq!(with(true, true, false, false, false), "LMTP");
        assert_eq!(with(true, true, true, false, true), "UTF8LMTPS");
        assert_eq!(with(false, true, false, true, true), "UTF8SMTPA");
    }

    #[test]
    fn a_second_that_no_calendar_has_is_written_as_the_first_one() {
        assert_eq!(date(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(date(i64::MAX), date(0));
    }
}
