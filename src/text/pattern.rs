//! Wildcards, and lists of them: of names ([`PatternList`]) and of addresses ([`AddressList`]).
//!
//! | written             | matches                                                                     |
//! |---------------------|-----------------------------------------------------------------------------|
//! | `*`                 | any run of characters, also none; alone in a list: everything               |
//! | `?`                 | one character                                                               |
//! | `a,b`               | what one of them matches; blanks around an entry do not count               |
//! | `!a`                | nothing: what `a` matches is left out, wherever in the list it stands       |
//! | `10.0.0.0/8`        | addresses: a network, of IPv4 or IPv6                                       |
//! | `10.0.0.1-10.0.0.9` | addresses: a range, ends included; `10.0.0.1-9` is the same                 |
//! | `1.2.3.*`           | addresses: what begins so; also `2001:db8:*`, by whole groups               |
//! | `1.2.3.4`           | addresses: itself, also when it comes as `::ffff:1.2.3.4`                   |
//!
//! An exclusion always wins. So the order of a list means nothing, and no entry added at the end can open what an earlier one
//! shut. A list of exclusions alone would match nothing and is refused; the house style is `*,!10.0.0.*`.
//!
//! Case is ignored for ASCII letters. Matching takes at most (length of pattern) x (length of text) steps and no memory.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::text::number::decimal;

/// Whether the one pattern `pattern` (no list) matches the whole of `text`.
pub fn matches(pattern: &str, text: impl AsRef<[u8]>) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_ref());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: just behind the last `*`, which then swallows one byte more. Earlier stars never need
    // to be tried again: whatever they could swallow, the last one can too. That is what keeps hostile texts cheap.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            Some(b'?') => {
                p += 1;
                t += 1;
                while t < text.len() && text[t] & 0xC0 == 0x80 {
                    t += 1; // the rest of one UTF-8 character
                }
                continue;
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        let Some((behind_star, swallowed)) = retry else { return false };
        p = behind_star;
        t = swallowed + 1;
        retry = Some((p, t));
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A list of wildcards for names: `ann,bob*,!bob2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternList {
    entries: Vec<Entry<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<T> {
    excludes: bool,
    what: T,
    /// In which of the parts it stands that were put together; see `append`.
    part: u16,
}

/// The entry that decides about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'l> {
    /// It leaves out what it matches.
    pub excludes: bool,
    /// In which of the parts that were put together it stands, from 0.
    pub part: usize,
    entry: Shown<'l>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown<'l> {
    Pattern(&'l str),
    Span(&'l Span),
}

/// The entry as it is written in a list.
impl fmt::Display for Hit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.excludes { "!" } else { "" };
        match self.entry {
            Shown::Pattern(pattern) => write!(f, "{not}{pattern}"),
            Shown::Span(span) => write!(f, "{not}{span}"),
        }
    }
}

impl PatternList {
    /// Reads a list; refuses an entry without a pattern and a list that only excludes.
    pub fn parse(text: &str) -> Result<PatternList, String> {
        Ok(PatternList { entries: entries(text, |entry| Ok(entry.to_owned()))? })
    }

    /// Puts another list behind this one. Both are one list from then on.
    pub fn append(&mut self, other: PatternList) {
        append(&mut self.entries, other.entries);
    }

    /// The entry that decides, of those for which `covers` holds: one that excludes, else the first.
    pub fn decides(&self, covers: impl Fn(&str) -> bool) -> Option<Hit<'_>> {
        let entry = deciding(&self.entries, |pattern| covers(pattern))?;
        Some(Hit { excludes: entry.excludes, part: entry.part.into(), entry: Shown::Pattern(&entry.what) })
    }

    /// Whether some entry includes `text` and none excludes it. An empty list matches nothing.
    pub fn matches(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        self.decides(|pattern| matches(pattern, text)).is_some_and(|hit| !hit.excludes)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it is `*` alone: then nothing needs to be known to say that it matches.
    pub fn is_everything(&self) -> bool {
        matches!(&self.entries[..], [Entry { excludes: false, what, .. }] if what == "*")
    }
}

impl fmt::Display for PatternList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.entries, f)
    }
}

/// A list of addresses: `192.168.*,10.0.0.0/8,!10.0.0.13,2001:db8::/32`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    entries: Vec<Entry<Span>>,
}

/// What one entry of an address list covers. Ends are included, and the first is never above the last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Span {
    All,
    V4(u32, u32),
    V6(u128, u128),
    /// A wildcard that is no range: compared with the address as it is printed.
    Text(String),
}

impl AddressList {
    /// Reads a list; refuses what is no address, network, range or wildcard, and a list that only excludes.
    pub fn parse(text: &str) -> Result<AddressList, String> {
        Ok(AddressList { entries: entries(text, span)? })
    }

    /// Puts another list behind this one. Both are one list from then on.
    pub fn append(&mut self, other: AddressList) {
        append(&mut self.entries, other.entries);
    }

    /// Whether some entry includes `address` and none excludes it. An empty list contains nothing.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.decides(address).is_some_and(|hit| !hit.excludes)
    }

    /// The entry that decides about `address`: one that excludes it, else the first that includes it.
    pub fn decides(&self, address: IpAddr) -> Option<Hit<'_>> {
        let address = address.to_canonical();
        let entry = deciding(&self.entries, |span| span.covers(address))?;
        Some(Hit { excludes: entry.excludes, part: entry.part.into(), entry: Shown::Span(&entry.what) })
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether every entry is an address, a network or a range: no wildcard that must be compared with the printed address.
    pub fn is_ranges(&self) -> bool {
        self.entries.iter().all(|entry| !matches!(entry.what, Span::Text(_)))
    }

    /// The addresses at which a run of this list can begin. Two lists of ranges share an address if and only if they share
    /// a corner of one of them.
    pub fn corners(&self) -> Vec<IpAddr> {
        let v4 = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
        let v6 = |bits| IpAddr::from(Ipv6Addr::from_bits(bits));
        let corner = |entry: &Entry<Span>| match (&entry.what, entry.excludes) {
            (Span::All, false) => vec![v4(0), v6(0)],
            (Span::V4(first, _), false) => vec![v4(*first)],
            (Span::V6(first, _), false) => vec![v6(*first)],
            (Span::V4(_, last), true) => last.checked_add(1).into_iter().map(v4).collect(),
            (Span::V6(_, last), true) => last.checked_add(1).into_iter().map(v6).collect(),
            (Span::All, true) | (Span::Text(_), _) => Vec::new(),
        };
        self.entries.iter().flat_map(corner).collect()
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.entries, f)
    }
}

impl Span {
    fn covers(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Span::All, _) => true,
            (Span::V4(first, last), IpAddr::V4(address)) => (*first..=*last).contains(&address.to_bits()),
            (Span::V6(first, last), IpAddr::V6(address)) => (*first..=*last).contains(&address.to_bits()),
            (Span::Text(pattern), IpAddr::V4(address)) => matches(pattern, Printed::new(address)),
            _ => false,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::All => f.write_str("*"),
            Span::Text(pattern) => f.write_str(pattern),
            Span::V4(first, last) => {
                let shown = |bits: &u32| Ipv4Addr::from_bits(*bits);
                match network(u128::from(*first), u128::from(*last)) {
                    Some(0) => write!(f, "{}", shown(first)),
                    Some(free) => write!(f, "{}/{}", shown(first), 32 - free),
                    None => write!(f, "{}-{}", shown(first), shown(last)),
                }
            }
            Span::V6(first, last) => {
                let shown = |bits: &u128| Ipv6Addr::from_bits(*bits);
                match network(*first, *last) {
                    Some(0) => write!(f, "{}", shown(first)),
                    Some(free) => write!(f, "{}/{}", shown(first), 128 - free),
                    None => write!(f, "{}-{}", shown(first), shown(last)),
                }
            }
        }
    }
}

/// How many low bits are free when `first..=last` is a whole network.
fn network(first: u128, last: u128) -> Option<u32> {
    let free = (first ^ last).count_ones();
    (first ^ last == low_bits(free) && first & low_bits(free) == 0).then_some(free)
}

fn low_bits(count: u32) -> u128 {
    1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1)
}

/// An IPv4 address as printed, without allocation.
struct Printed {
    bytes: [u8; 15],
    len: usize,
}

impl Printed {
    fn new(address: Ipv4Addr) -> Printed {
        let mut printed = Printed { bytes: [0; 15], len: 0 };
        write!(printed, "{address}").expect("an IPv4 address has at most fifteen characters");
        printed
    }
}

impl Write for Printed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl AsRef<[u8]> for Printed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The entry that excludes what `covers` speaks of, else the first that includes it.
fn deciding<T>(entries: &[Entry<T>], covers: impl Fn(&T) -> bool) -> Option<&Entry<T>> {
    let mut included = None;
    for entry in entries {
        // What was included already need not be looked for again; what excludes must be.
        if (entry.excludes || included.is_none()) && covers(&entry.what) {
            if entry.excludes {
                return Some(entry);
            }
            included = Some(entry);
        }
    }
    included
}

fn append<T>(entries: &mut Vec<Entry<T>>, more: Vec<Entry<T>>) {
    let part = entries.last().map_or(0, |entry| entry.part.saturating_add(1));
    entries.extend(more.into_iter().map(|entry| Entry { part, ..entry }));
}

fn entries<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<Entry<T>>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (excludes, bare) = part.strip_prefix('!').map_or((false, part), |rest| (true, rest.trim_start()));
        if bare.is_empty() {
            return Err(format!("`{text}` has an empty entry between its commas"));
        }
        entries.push(Entry { excludes, what: read(bare)?, part: 0 });
    }
    if entries.iter().all(|entry| entry.excludes) {
        return Err(format!("`{text}` only excludes, so it matches nothing: write `*,{text}` for all but these"));
    }
    Ok(entries)
}

fn show<T: fmt::Display>(entries: &[Entry<T>], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, entry) in entries.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let not = if entry.excludes { "!" } else { "" };
        write!(f, "{comma}{not}{}", entry.what)?;
    }
    Ok(())
}

fn span(text: &str) -> Result<Span, String> {
    let bad = |why: &str| Err(format!("`{text}` {why}"));
    if text == "*" {
        return Ok(Span::All);
    }
    if let Some((base, bits)) = text.split_once('/') {
        let (Ok(base), Some(bits)) = (base.parse::<IpAddr>(), decimal(bits.as_bytes())) else {
            return bad("is no network: write it as 10.0.0.0/8 or 2001:db8::/32");
        };
        return match base {
            IpAddr::V4(base) if bits <= 32 => {
                let free = low_bits(32 - bits as u32) as u32;
                Ok(Span::V4(base.to_bits() & !free, base.to_bits() | free))
            }
            IpAddr::V6(base) if bits <= 128 => {
                let free = low_bits(128 - bits as u32);
                let (first, last) = (base.to_bits() & !free, base.to_bits() | free);
                Ok(mapped(first, last).unwrap_or(Span::V6(first, last)))
            }
            IpAddr::V4(_) => bad("has more than 32 bits after the slash"),
            IpAddr::V6(_) => bad("has more than 128 bits after the slash"),
        };
    }
    if let Some((first, last)) = text.split_once('-') {
        let Ok(first) = first.trim().parse::<IpAddr>() else { return bad("does not begin with an address") };
        let last = last.trim();
        let last = match (first, decimal(last.as_bytes())) {
            (IpAddr::V4(first), Some(octet @ 0..=255)) => {
                let [a, b, c, _] = first.octets();
                IpAddr::V4(Ipv4Addr::new(a, b, c, octet as u8))
            }
            _ => match last.parse() {
                Ok(last) => last,
                Err(_) => return bad("does not end with an address"),
            },
        };
        return match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Ok(Span::V4(first.to_bits(), last.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => Ok(Span::V6(first.to_bits(), last.to_bits())),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => bad("ends before it begins"),
            _ => bad("mixes IPv4 and IPv6"),
        };
    }
    if text.contains(['*', '?']) {
        return if text.contains(':') { groups(text) } else { octets(text) };
    }
    match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => Ok(Span::V4(address.to_bits(), address.to_bits())),
        Ok(IpAddr::V6(address)) => Ok(Span::V6(address.to_bits(), address.to_bits())),
        Err(_) => bad("is no address, network (10.0.0.0/8), range (10.0.0.1-10.0.0.9) or wildcard (10.0.*)"),
    }
}

/// A span of IPv6 that lies in `::ffff:0:0/96` speaks of IPv4.
fn mapped(first: u128, last: u128) -> Option<Span> {
    let high = 0xFFFF;
    (first >> 32 == high && last >> 32 == high).then_some(Span::V4(first as u32, last as u32))
}

/// `1.2.*` and `1.2.3.*` are ranges; any other wildcard of digits and dots is compared with the printed address.
fn octets(text: &str) -> Result<Span, String> {
    let bad = |why: &str| Err(format!("`{text}` {why}"));
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b".*?".contains(&byte)) {
        return bad("is no wildcard for addresses");
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return bad("has more than four parts");
    }
    let mut first = 0u32;
    let mut known = 0;
    for part in &parts {
        if part.is_empty() {
            return bad("has an empty part");
        }
        if part.contains(['*', '?']) {
            continue;
        }
        match decimal(part.as_bytes()) {
            Some(octet @ 0..=255) if part.len() == octet.to_string().len() => first = first << 8 | octet as u32,
            _ => return bad("has a part that is not 0 to 255"),
        }
        known += 1;
    }
    let whole_tail = parts[known..].iter().all(|part| *part == "*");
    if known > 0 && known < 4 && whole_tail {
        let free = 32 - 8 * known as u32;
        let first = first << free;
        return Ok(Span::V4(first, first | low_bits(free) as u32));
    }
    Ok(Span::Text(text.to_owned()))
}

/// `2001:db8:*`: whole groups, then a star.
fn groups(text: &str) -> Result<Span, String> {
    let refuse = || {
        Err(format!("`{text}` is no wildcard for IPv6: write whole groups and a star, or a network (2001:db8::/32)"))
    };
    let Some(head) = text.strip_suffix(":*") else { return refuse() };
    let mut first = 0u128;
    let mut known = 0;
    for group in head.split(':') {
        let short = (1..=4).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u16::from_str_radix(group, 16) {
            Ok(bits) if short && known < 7 => first = first << 16 | u128::from(bits),
            _ => return refuse(),
        }
        known += 1;
    }
    let free = 128 - 16 * known;
    let first = first << free;
    Ok(Span::V6(first, first | low_bits(free)))
}

#[cfg(test)]
mod tests;
