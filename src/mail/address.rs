//! Addresses as SMTP carries them (RFC 5321 §4.1.2, RFC 6531): the paths of MAIL and RCPT.
//!
//! | written                      | is                                                              |
//! |------------------------------|-----------------------------------------------------------------|
//! | `<ann@x.org>`                | `ann` at a name                                                 |
//! | `<"ann b"@x.org>`            | `ann b`: quotes are how it is written, not part of it           |
//! | `<ann@[192.0.2.1]>`, `<ann@[IPv6:2001:db8::1]>` | `ann` at an address                          |
//! | `<@a.org,@b.org:ann@x.org>`  | `ann` at x.org: the route is checked and forgotten (RFC 5321 F.2) |
//! | `<postmaster>`               | the postmaster here: the only name without a domain              |
//! | `<>`                         | nobody: bounces come from there                                  |
//! | `<ünn@bücher.example>`       | as it stands, where SMTPUTF8 was asked for                       |
//!
//! What a name means (`%`, `+`, `!`, case, A-labels and U-labels of the same domain) is not judged here. No control
//! character, no blank outside quotes and nothing that turns the direction of text comes through; every length has a bound.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a local part, as it is written (RFC 5321 §4.5.3.1.1).
pub const LOCAL_LIMIT: usize = 64;
/// Octets of a domain.
pub const DOMAIN_LIMIT: usize = 255;
/// Octets of a path without a route, angle brackets included.
pub const PATH_LIMIT: usize = 256;
/// Octets of a label of a domain in ASCII.
pub const LABEL_LIMIT: usize = 63;

/// Whose mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Before the `@`, without quotes, in the case it was written in. Not empty.
    pub local: Box<str>,
    /// After it.
    pub place: Place,
}

/// Where an address is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A domain, in the case it was written in.
    Domain(Box<str>),
    /// A host by its address.
    Literal(IpAddr),
    /// Not said: the postmaster of this host.
    Here,
}

/// Why something is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPath {
    /// It is not written as a path is.
    Malformed,
    /// A part of it is longer than may be.
    TooLong,
    /// It is not ASCII, and nobody asked for SMTPUTF8.
    NotAscii,
}

/// A path at the beginning of `text`, and what follows it: an address, or nobody. `utf8`: SMTPUTF8 was asked for.
pub fn path(text: &[u8], utf8: bool) -> Result<(Option<Address>, &[u8]), NoPath> {
    // Only where it ends: a character cut in two by that would be an error of its own anyway.
    let end = path_end(text)?;
    let (path, after) = (&text[1..end - 1], &text[end..]);
    if !path.is_ascii() && !utf8 {
        return Err(NoPath::NotAscii);
    }
    let path = std::str::from_utf8(path).map_err(|_| NoPath::Malformed)?;
    if path.is_empty() {
        return Ok((None, after));
    }
    let mailbox = match path.strip_prefix('@') {
        Some(_) => unrouted(path)?,
        None => path,
    };
    if mailbox.len() + 2 > PATH_LIMIT {
        return Err(NoPath::TooLong);
    }
    mailbox_of(mailbox).map(|address| (Some(address), after))
}

/// Where the `>` is that ends the path which `text` begins with: one within quotes does not.
fn path_end(text: &[u8]) -> Result<usize, NoPath> {
    if text.first() != Some(&b'<') {
        return Err(NoPath::Malformed);
    }
    let (mut quoted, mut at) = (false, 1);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok(at + 1),
            _ => {}
        }
        at += 1;
    }
    Err(NoPath::Malformed)
}

/// What follows the route that `path` begins with.
fn unrouted(path: &str) -> Result<&str, NoPath> {
    let (route, mailbox) = path.split_once(':').ok_or(NoPath::Malformed)?;
    for hop in route.split(',') {
        check_domain(hop.strip_prefix('@').ok_or(NoPath::Malformed)?)?;
    }
    Ok(mailbox)
}

fn mailbox_of(mailbox: &str) -> Result<Address, NoPath> {
    let (local, written) = if mailbox.starts_with('"') { quoted(mailbox)? } else { dotted(mailbox)? };
    if written > LOCAL_LIMIT {
        return Err(NoPath::TooLong);
    }
    let place = match mailbox[written..].strip_prefix('@') {
        Some(place) => place_of(place)?,
        None if written == mailbox.len() && local.eq_ignore_ascii_case("postmaster") => Place::Here,
        None => return Err(NoPath::Malformed),
    };
    Ok(Address { local, place })
}

/// A quoted string at the beginning: what it says, and how long it is as written.
fn quoted(mailbox: &str) -> Result<(Box<str>, usize), NoPath> {
    let mut local = String::new();
    let mut chars = mailbox.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' if local.is_empty() => break,
            '"' => return Ok((local.into(), at + 1)),
            '\\' => match chars.next() {
                Some((_, char @ ' '..='~')) => local.push(char),
                _ => break,
            },
            ' '..='~' => local.push(char),
            _ if is_letter_beyond_ascii(char) => local.push(char),
            _ => break,
        }
    }
    Err(NoPath::Malformed)
}

/// Words with single dots between them at the beginning, and their length.
fn dotted(mailbox: &str) -> Result<(Box<str>, usize), NoPath> {
    let local = mailbox.split_once('@').map_or(mailbox, |(local, _)| local);
    let word = |word: &str| !word.is_empty() && word.chars().all(is_atom);
    if local.split('.').all(word) { Ok((local.into(), local.len())) } else { Err(NoPath::Malformed) }
}

fn place_of(text: &str) -> Result<Place, NoPath> {
    if let Some(literal) = text.strip_prefix('[') {
        return literal.strip_suffix(']').and_then(literal_of).map(Place::Literal).ok_or(NoPath::Malformed);
    }
    check_domain(text)?;
    Ok(Place::Domain(text.into()))
}

/// What stands between the brackets of an address literal. The kinds that RFC 5321 leaves to the future are none.
fn literal_of(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Labels of letters, digits, `-` and, because it is out there, `_`; a hyphen neither begins one nor ends it.
fn check_domain(domain: &str) -> Result<(), NoPath> {
    if domain.len() > DOMAIN_LIMIT {
        return Err(NoPath::TooLong);
    }
    for label in domain.split('.') {
        if label.len() > LABEL_LIMIT && label.is_ascii() {
            return Err(NoPath::TooLong);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || is_letter_beyond_ascii(c);
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') || !label.chars().all(fits) {
            return Err(NoPath::Malformed);
        }
    }
    Ok(())
}

/// RFC 5321's `atext`, with what RFC 6531 adds.
fn is_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_letter_beyond_ascii(c)
}

/// Whether it may stand in an address beyond ASCII: no control, no blank, nothing invisible that changes the text around
/// it, and none of the dots that some programs take for the one between labels.
pub fn is_letter_beyond_ascii(c: char) -> bool {
    !c.is_ascii()
        && !c.is_control()
        && !c.is_whitespace()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3002}' | '\u{ff0e}' | '\u{ff61}' | '\u{ff20}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}')
}

impl fmt::Display for Address {
    /// As it is written, without angle brackets: quoted where it has to be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if dotted(&self.local).is_ok_and(|(_, length)| length == self.local.len()) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for c in self.local.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        match &self.place {
            Place::Domain(name) => write!(f, "@{name}"),
            Place::Literal(IpAddr::V4(address)) => write!(f, "@[{address}]"),
            Place::Literal(IpAddr::V6(address)) => write!(f, "@[IPv6:{address}]"),
            Place::Here => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, utf8: bool) -> Result<Option<String>, NoPath> {
        path(text.as_bytes(), utf8).map(|(address, after)| {
            assert_eq!(after, b"", "{text}");
            address.map(|address| address.to_string())
        })
    }

    #[test]
    fn paths_are_what_the_grammar_says() {
        for (text, address) in [
            ("<ann@x.org>", "ann@x.org"),
            ("<Ann.B+tag@X.Org>", "Ann.B+tag@X.Org"),
            ("<a%b!c@x_y.org>", "a%b!c@x_y.org"),
            ("<-x@x>", "-x@x"),
            ("<\"ann b\"@x.org>", "\"ann b\"@x.org"),
            ("<\"ann\"@x.org>", "ann@x.org"),
            ("<\"a\\n\\\"n\\\\>@\"@x.org>", "\"an\\\"n\\\\>@\"@x.org"),
            ("<\"a..b\"@x.org>", "\"a..b\"@x.org"),
            ("<ann@[192.0.2.1]>", "ann@[192.0.2.1]"),
            ("<ann@[IPv6:2001:DB8::1]>", "ann@[IPv6:2001:db8::1]"),
            ("<ann@[ipv6:::1]>", "ann@[IPv6:::1]"),
            ("<@a.org,@b.org:ann@x.org>", "ann@x.org"),
            ("<PostMaster>", "PostMaster"),
        ] {
            assert_eq!(read(text, false), Ok(Some(address.into())), "{text}");
            assert_eq!(read(text, true), Ok(Some(address.into())), "{text}");
        }
        assert_eq!(read("<>", false), Ok(None));
        let (address, after) = path(b"<ann@x.org> SIZE=1", false).unwrap();
        assert_eq!((address.unwrap().local.as_ref(), after), ("ann", &b" SIZE=1"[..]));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            "<",
            ">",
            "ann@x.org",
            "<ann@x.org",
            "<ann>",
            "<@x.org>",
            "<ann@>",
            "<.ann@x>",
            "<ann.@x>",
            "<a..b@x>",
            "<ann@x.>",
            "<ann@.x>",
            "<ann@x..y>",
            "<ann@-x>",
            "<ann@x->",
            "<ann@x y>",
            "<a b@x>",
            "<a@b@x>",
            "< ann@x>",
            "<ann@x >",
            "<\"\"@x>",
            "<\"a@x>",
            "<\"a\"b@x>",
            "<a\"b\"@x>",
            "<\"a\\\"@x>",
            "<\"a\tb\"@x>",
            "<ann@[1.2.3]>",
            "<ann@[1.2.3.4>",
            "<ann@1.2.3.4]>",
            "<ann@[::1]>",
            "<ann@[IPv6:1.2.3.4]>",
            "<ann@[x-tag:y]>",
            "<@a.org>",
            "<@a.org:>",
            "<a.org:ann@x>",
            "<@a.org,b.org:ann@x>",
            "<@a..b:ann@x>",
            "<<<>>>",
            "<(c)ann@x>",
            "<ann@x\0>",
            "<an\rn@x>",
            "<an\nn@x>",
            "<ann@x;id>",
            "<a,b@x>",
            "<\"postmaster\"x>",
        ] {
            assert_eq!(read(text, true), Err(NoPath::Malformed), "{text:?}");
        }
    }

    #[test]
    fn letters_beyond_ascii_are_taken_where_they_were_asked_for_and_the_treacherous_never() {
        for text in ["<ünn@bücher.example>", "<\"ü n\"@x>", "<测试@例子.测试>", "<उदाहरण@उदाहरण.परीक्षा>"]
        {
            assert_eq!(read(text, false), Err(NoPath::NotAscii), "{text}");
            assert_eq!(read(text, true).unwrap().unwrap(), text[1..text.len() - 1], "{text}");
        }
        for c in ['\u{85}', '\u{a0}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{3002}', '\u{fffd}'] {
            for text in [format!("<a{c}b@x>"), format!("<\"a{c}b\"@x>"), format!("<a@x{c}y>")] {
                assert_eq!(read(&text, true), Err(NoPath::Malformed), "{text:?}");
            }
        }
        assert_eq!(path(b"<a\xff@x>", true), Err(NoPath::Malformed));
        assert_eq!(path(b"<a\xff@x>", false), Err(NoPath::NotAscii));
    }

    #[test]
    fn every_length_has_its_bound() {
        let label = "x".repeat(LABEL_LIMIT);
        let domain = format!("{label}.{label}.{label}");
        let name = |count: usize| "n".repeat(count);
        let longest = PATH_LIMIT - 2 - 1 - domain.len();
        assert!(longest <= LOCAL_LIMIT);
        assert!(read(&format!("<{}@{domain}>", name(longest)), false).is_ok());
        for text in [
            format!("<{}@{domain}>", name(longest + 1)),
            format!("<{}@x>", name(LOCAL_LIMIT + 1)),
            format!("<\"{}\"@x>", name(LOCAL_LIMIT - 1)),
            format!("<a@{label}x>"),
            format!("<@{domain}.{label}.x:a@x>"),
        ] {
            assert_eq!(read(&text, false), Err(NoPath::TooLong), "{text}");
        }
        assert!(read(&format!("<{}@x>", name(LOCAL_LIMIT)), false).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_and_read_again(
            text in "[<]([@]a[,:]?)?[\"a. \\\\\\\\>@+ü\r\n\0]{0,8}[\"]?[@]([a-c.-]{0,6}|\\[[IPv6:0-9.]{0,12}\\])[>]"
        ) {
            if let Ok((Some(address), _)) = path(text.as_bytes(), true) {
                let written = format!("<{address}>");
                prop_assert!(!written.contains(['\r', '\n', '\0']));
                prop_assert_eq!(path(written.as_bytes(), true), Ok((Some(address), &b""[..])), "{}", written);
            }
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..80), utf8: bool) {
            let _ = path(&text, utf8);
            let _ = path(&[b"<\"", &text[..], b"\"@x>"].concat(), utf8);
        }
    }
}
