//! One user, one line: parsing and writing what the page of [`users`](super) lays down.

use std::cmp::Ordering;

use crate::text::percent;
use crate::text::secret::Secret;

/// Longest line of a user file that is understood; longer than any record that `set` can write. A longer one is a fault.
pub const LINE_MOST: usize = 16 * 1024;

/// What the files know about one user.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// As it was first spelled. Compared case-blind.
    pub name: Vec<u8>,
    /// The password field: a crypt(3) hash, `{PLAIN}` and a password, or something that locks the account.
    pub stored: Secret,
    /// Owner of the drop file, a number or a name; empty for none.
    pub uid: Vec<u8>,
    /// Full path of the drop file; empty for the one that dmail.conf describes.
    pub path: Vec<u8>,
    /// Two fields kept as they are; what we put there ourselves is in `proofs.rs`.
    pub reserved: [Vec<u8>; 2],
    /// `label="value"` pairs, blank separated, as they go into a reply.
    pub info: Vec<u8>,
}

/// What one line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A comment, a blank line, or nothing that could be a user: kept, not understood.
    Other,
    /// A user; this is the name as it stands there.
    User(&'a [u8]),
    /// The user of this name is deleted, whatever stands above.
    Gone(&'a [u8]),
}

/// What `line`, without its line end, is.
pub fn classify(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    let end = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
    let (gone, name) = match line[..end].trim_ascii_end() {
        [] | [b'#', ..] => return Line::Other,
        [b'-', name @ ..] => (true, name),
        name => (false, name),
    };
    if name.is_empty() || name.iter().any(u8::is_ascii_control) {
        return Line::Other;
    }
    if gone { Line::Gone(name) } else { Line::User(name) }
}

/// The order of the sorted file: written names byte by byte, capital letters as small ones.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

/// How `name` is written in a line, and therefore what it is looked for by.
pub fn key(name: &[u8]) -> Vec<u8> {
    escape(name).to_ascii_lowercase()
}

impl Record {
    /// The record of a [`Line::User`]; fields that are not there are empty.
    pub fn parse(line: &[u8]) -> Record {
        let line = line.trim_ascii();
        let mut fields = line.splitn(7, |&byte| byte == b':');
        let mut raw = || fields.next().unwrap_or_default();
        Record {
            name: percent::decode_leniently(raw().trim_ascii_end()),
            stored: Secret::new(percent::decode_leniently(raw())),
            uid: percent::decode_leniently(raw()),
            path: percent::decode_leniently(raw()),
            reserved: [raw().to_vec(), raw().to_vec()],
            info: raw().to_vec(),
        }
    }

    /// The line, without its line end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = escape(&self.name);
        for field in [self.stored.reveal(), &self.uid, &self.path] {
            line.push(b':');
            line.extend(escape(field));
        }
        for field in [&self.reserved[0], &self.reserved[1], &self.info] {
            line.push(b':');
            line.extend_from_slice(field);
        }
        line
    }
}

/// The line that says `name` is deleted.
pub fn tombstone(name: &[u8]) -> Vec<u8> {
    [b"-", &escape(name)[..]].concat()
}

fn escape(field: &[u8]) -> Vec<u8> {
    percent::encode_where(field, |byte| byte == b':' || byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_the_table_says() {
        for (line, is) in [
            ("fred:$1$x", Line::User(b"fred")),
            ("  Fred@Here :x", Line::User(b"Fred@Here")),
            ("fred", Line::User(b"fred")),
            ("fred:x\r", Line::User(b"fred")),
            ("-fred", Line::Gone(b"fred")),
            ("-fred:x", Line::Gone(b"fred")),
            ("", Line::Other),
            (" \t\r", Line::Other),
            ("# fred:x", Line::Other),
            (":::", Line::Other),
            ("-", Line::Other),
            ("fr\0ed:x", Line::Other),
        ] {
            assert_eq!(classify(line.as_bytes()), is, "{line:?}");
        }
    }

    #[test]
    fn a_record_survives_its_line() {
        let record = Record {
            name: b"50%:odd@x".to_vec(),
            stored: Secret::from(&b"{PLAIN}a:b%c\n"[..]),
            uid: b"12".to_vec(),
            path: b"/var/mail/a:b".to_vec(),
            reserved: [b"r1".to_vec(), b"r2".to_vec()],
            info: b"fwd=\"x:y@z\" note=\"100%\"".to_vec(),
        };
        let line = record.line();
        assert_eq!(classify(&line), Line::User(b"50%25%3Aodd@x"));
        let again = Record::parse(&line);
        assert_eq!(again.line(), line);
        assert_eq!((again.name, again.path, again.info), (record.name, record.path, record.info));
        assert!(again.stored.matches(record.stored.reveal()));
    }

    #[test]
    fn missing_fields_are_empty_and_info_keeps_its_colons() {
        let short = Record::parse(b"fred:$1$a$b");
        assert!(short.uid.is_empty() && short.path.is_empty() && short.info.is_empty());
        assert_eq!(Record::parse(b"fred:h:1:/p:::fwd=\"a:b\"\r").info, b"fwd=\"a:b\"");
    }
}
