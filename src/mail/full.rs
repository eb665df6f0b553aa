//! What we write to users of our own accord: that a mailbox fills.

use super::encoded::one_line;
use super::received::date;

/// A warning that a mailbox is almost full.
#[derive(Debug, Clone, Copy)]
pub struct Full<'a> {
    /// Whose mailbox, as an address.
    pub user: &'a str,
    /// The administrator, as an address: who can help.
    pub sysadmin: &'a str,
    /// Our main domain.
    pub domain: &'a str,
    /// The bound, in bytes.
    pub limit: u64,
    /// What part of it is full, in percent.
    pub percent: u8,
    /// When, in seconds since 1970.
    pub at_secs: i64,
    /// Makes its id one of a kind.
    pub id: &'a str,
}

impl Full<'_> {
    /// The message, with LF line ends.
    pub fn message(&self) -> Vec<u8> {
        let Full { user, sysadmin, domain, percent, id, .. } = *self;
        let (user, sysadmin, size) = (one_line(user), one_line(sysadmin), shown(self.limit));
        let date = date(self.at_secs);
        format!(
            "From: Mail System <{sysadmin}>\n\
             To: <{user}>\n\
             Subject: Your mailbox is almost full\n\
             Date: {date}\n\
             Message-ID: <{id}.full@{domain}>\n\
             Auto-Submitted: auto-generated\n\
             MIME-Version: 1.0\n\
             Content-Type: text/plain; charset=us-ascii\n\
             \n\
             More than {percent} percent of your mailbox is full: it may hold {size}.\n\
             \n\
             When it is full, new mail for you is not taken any more. Please delete\n\
             what you do not need on the server: a mail program that leaves messages\n\
             there has a setting for that.\n\
             \n\
             This is said once. For more room, ask {sysadmin}.\n"
        )
        .into_bytes()
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

    #[test]
    fn a_warning_is_a_message_that_no_program_answers() {
        let full = Full {
            user: "ann@example.com",
            sysadmin: "root@example.com\nBcc: x@y",
            domain: "example.com",
            limit: 100 << 20,
            percent: 90,
            at_secs: 1_767_610_800,
            id: "ABC",
        };
        let text = String::from_utf8(full.message()).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap();
        for line in [
            "To: <ann@example.com>",
            "Date: Mon, 5 Jan 2026 11:00:00 +0000",
            "Message-ID: <ABC.full@example.com>",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(head.lines().any(|other| other == line), "{line}: {head}");
        }
        assert_eq!(head.lines().count(), 8, "nobody adds a field: {head}");
        assert!(body.contains("90 percent") && body.contains("100 MB"));
        assert!(text.lines().all(|line| line.len() < 100));
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, size) in
            [(1, "1 kB"), (102_400, "100 kB"), (5 << 20, "5120 kB"), (5 << 30, "5120 MB"), (20 << 30, "20 GB")]
        {
            assert_eq!(shown(bytes), size);
        }
    }
}
