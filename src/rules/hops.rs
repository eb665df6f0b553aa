//! Where mail for other hosts goes. Asked in this order, and the first that has an answer decides:
//!
//! | asked          | says                                                                                           |
//! |----------------|------------------------------------------------------------------------------------------------|
//! | `sender_route` | lines in their order: the first whose SENDERS match the sender (`<>` is nobody)                |
//! | `route`        | the most specific DOMAIN: its name, then the longest `*.` that it lies below, then `*`; of two equal ones the first line |
//! | `gateway`      | everything else                                                                                |
//! | (nothing)      | the hosts that DNS names for the domain                                                        |
//!
//! **What a line says** is a [`Way`], as written, out of which comes a [`Hop`] for one recipient:
//!
//! | TARGET                 | leads to                                                                                |
//! |------------------------|-----------------------------------------------------------------------------------------|
//! | `mx`, `mx:NAME`        | the mail hosts of the recipient's domain, or of NAME                                    |
//! | `HOST`, `HOST:PORT`    | that host, whatever DNS says of mail; several with commas, tried in their order          |
//! | `[IP]`, `[IP]:PORT`    | the same by its number                                                                   |
//! | `lmtp:HOST:PORT`       | the same, and LMTP is spoken                                                             |
//! | `lmtp:/PATH`           | a socket of this machine                                                                 |
//! | `park`                 | nowhere: it waits until somebody asks for it                                             |
//!
//! | option                 | means                                                                                    |
//! |------------------------|------------------------------------------------------------------------------------------|
//! | `tls=never`            | STARTTLS is not said                                                                     |
//! | `tls=offered`          | where it is offered, and in clear where it fails; what is not written is this            |
//! | `tls=required`         | nothing is said without it; any certificate will do                                      |
//! | `tls=verified`         | and the certificate must be good and in the host's name                                  |
//! | `wrapped`              | TLS from the first octet on; the port is 465 unless one is written                       |
//! | `login=FILE`           | a login, by the user and the password in that file; never said in clear                  |
//! | `inside`               | this machine and this server itself may be what it leads to                              |
//! | `connections=N`        | most connections at a time                                                               |
//!
//! Domains are compared without case. What is beyond ASCII in a recipient's domain is looked for, and looked up, as A-labels.
//! A recipient at an address (`ann@[192.0.2.1]`) for whom no line says anything is brought to that address, unless it is inside
//! ([`mx::is_inside`]): who writes such an address must not reach around what guards the network.
//!
//! `Display` of a [`Way`] is what [`Way::parse`] reads again.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::mx;
use crate::text::nearest::nearest;
use crate::text::number::decimal;
use crate::text::pattern::{PatternList, matches};
use crate::text::punycode::ascii_label;
use crate::text::words::{Manner, quote, words};

/// Hosts that one line may name.
pub const HOSTS_MOST: usize = 20;
/// Most connections that a line may ask for.
pub const CONNECTIONS_MOST: u64 = 1_000;
/// The port of SMTP within TLS.
const WRAPPED_PORT: u16 = 465;
/// Bytes of a name that is looked at, before it is made ASCII.
const NAME_BYTES: usize = 1_024;
/// Bytes of the path of a socket, as the system bounds them.
const SOCKET_BYTES: usize = 107;
/// How the null sender is written.
const NOBODY: &str = "<>";

/// Where the mail of one recipient goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What it is called, and told apart by: `mx example.org`, `relay.example.net:587 tls=required`, `lmtp /run/lmtp`.
    pub key: Box<str>,
    /// Where.
    pub to: To,
    /// LMTP is spoken, not SMTP.
    pub lmtp: bool,
    /// How much of TLS.
    pub tls: Level,
    /// TLS begins with the first octet.
    pub from_first_octet: bool,
    /// The file of the login: the settings have what is in it.
    pub login: Option<PathBuf>,
    /// This machine, and this server itself, may be where it leads.
    pub inside: bool,
    /// Most connections at a time.
    pub connections: u16,
}

/// Where a hop leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// The mail hosts of this domain: ASCII, in lower case. Their port is `smtp_out_port`.
    Mx(Box<str>),
    /// These hosts, names or addresses, in their order. Not empty.
    Hosts(Vec<(Box<str>, u16)>),
    /// A socket of this machine.
    Socket(PathBuf),
    /// Nowhere until somebody asks.
    Parked,
    /// Nowhere, ever.
    Never {
        /// The enhanced status code.
        status: &'static str,
        /// Why, in words.
        why: String,
    },
}

/// How much of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// None.
    Never,
    /// Where it is offered; where it fails, without.
    Offered,
    /// Not without it.
    Required,
    /// And with a certificate that is good and in the host's name.
    Verified,
}

impl Level {
    const ALL: [(Level, &str); 4] = [
        (Level::Never, "never"),
        (Level::Offered, "offered"),
        (Level::Required, "required"),
        (Level::Verified, "verified"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Level::ALL[self as usize].1
    }
}

/// A target and its options, as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    aim: Aim,
    lmtp: bool,
    tls: Level,
    wrapped: bool,
    login: Option<PathBuf>,
    inside: bool,
    connections: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Aim {
    /// The mail hosts of the recipient's domain.
    Mx,
    MxOf(Box<str>),
    Hosts(Vec<(Host, Option<u16>)>),
    Socket(PathBuf),
    Park,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(Box<str>),
    Address(IpAddr),
}

/// What is wrong with the words of a way: which of them, counted from 0, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The word.
    pub word: usize,
    /// Why, for behind `cannot be`.
    pub why: String,
}

impl Way {
    /// A target and its options. Relative files start from `base`.
    pub fn parse(words: &[&str], base: &Path) -> Result<Way, Wrong> {
        let wrong = |word: usize| move |why: String| Wrong { word, why };
        let [target, options @ ..] = words else { return Err(wrong(0)("a target is missing".to_owned())) };
        let (aim, lmtp) = aim(target).map_err(wrong(0))?;
        let mut way =
            Way { aim, lmtp, tls: Level::Offered, wrapped: false, login: None, inside: false, connections: None };
        let mut seen: Vec<&str> = Vec::new();
        for (index, option) in options.iter().enumerate() {
            let name = option.split_once('=').map_or(*option, |(name, _)| name).to_ascii_lowercase();
            way.option(option, base).map_err(wrong(index + 1))?;
            let known = OPTIONS.iter().find(|known| **known == name).expect("an option that was taken is known");
            if seen.contains(known) {
                return Err(wrong(index + 1)(format!("{known} is there twice")));
            }
            seen.push(known);
        }
        way.agree().map_err(|(option, why)| {
            let at = options.iter().position(|word| {
                let name = word.split_once('=').map_or(*word, |(name, _)| name);
                name.eq_ignore_ascii_case(option)
            });
            Wrong { word: at.map_or(0, |at| at + 1), why: why.to_owned() }
        })?;
        Ok(way)
    }

    fn option(&mut self, option: &str, base: &Path) -> Result<(), String> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("tls", Some(value)) => {
                let level = Level::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(value));
                let Some((level, _)) = level else {
                    return Err("tls is never, offered, required or verified".to_owned());
                };
                self.tls = *level;
            }
            ("wrapped", None) => self.wrapped = true,
            ("inside", None) => self.inside = true,
            ("login", Some(file)) if file.starts_with('~') => {
                return Err("nothing is expanded here, write the whole path".to_owned());
            }
            ("login", Some(file)) if !file.is_empty() => self.login = Some(base.join(file)),
            ("connections", Some(number)) => match decimal(number.as_bytes()) {
                Some(number @ 1..=CONNECTIONS_MOST) => self.connections = Some(number as u16),
                _ => return Err(format!("connections is a number from 1 to {CONNECTIONS_MOST}")),
            },
            (name, _) => {
                let hint = match nearest(name, OPTIONS.iter().copied()) {
                    Some(meant) => format!(" (did you mean {meant}?)"),
                    None => String::new(),
                };
                return Err(format!("the options are {OPTIONS_FORM}{hint}"));
            }
        }
        Ok(())
    }

    /// What cannot be together: the option, and why.
    fn agree(&self) -> Result<(), (&'static str, &'static str)> {
        let in_clear = matches!(self.aim, Aim::Socket(_) | Aim::Park);
        if in_clear {
            let why = "it means nothing there: no network is between";
            for (has, option) in [
                (self.tls != Level::Offered, "tls"),
                (self.wrapped, "wrapped"),
                (self.login.is_some(), "login"),
                (self.inside, "inside"),
            ] {
                if has {
                    return Err((option, why));
                }
            }
        }
        if matches!(self.aim, Aim::Park) && self.connections.is_some() {
            return Err(("connections", "it means nothing there: no connection is made"));
        }
        if self.wrapped && self.tls == Level::Never {
            return Err(("wrapped", "tls=never beside it says the opposite"));
        }
        if matches!(self.aim, Aim::Mx | Aim::MxOf(_)) {
            if self.wrapped {
                return Err(("wrapped", "mail hosts that DNS names begin in clear: name the host itself"));
            }
            if self.login.is_some() {
                return Err(("login", "a password is for a host that you know: name the host itself"));
            }
        }
        if let Aim::Hosts(hosts) = &self.aim
            && !self.inside
            && hosts.iter().any(|(host, _)| matches!(host, Host::Address(address) if mx::is_own(*address)))
        {
            return Err(("", "that is this machine: add `inside` when mail is to go there"));
        }
        Ok(())
    }

    /// The words that [`parse`](Way::parse) reads again.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.target()];
        if self.tls != Level::Offered {
            words.push(format!("tls={}", self.tls.name()));
        }
        if self.wrapped {
            words.push("wrapped".to_owned());
        }
        if let Some(file) = &self.login {
            words.push(format!("login={}", file.to_string_lossy()));
        }
        if self.inside {
            words.push("inside".to_owned());
        }
        if let Some(number) = self.connections {
            words.push(format!("connections={number}"));
        }
        words
    }

    fn target(&self) -> String {
        let lmtp = if self.lmtp { "lmtp:" } else { "" };
        match &self.aim {
            Aim::Mx => "mx".to_owned(),
            Aim::MxOf(name) => format!("mx:{name}"),
            Aim::Hosts(hosts) => {
                let one = |(host, port): &(Host, Option<u16>)| match port {
                    Some(port) => format!("{lmtp}{host}:{port}"),
                    None => format!("{lmtp}{host}"),
                };
                hosts.iter().map(one).collect::<Vec<_>>().join(",")
            }
            Aim::Socket(path) => format!("lmtp:{}", path.to_string_lossy()),
            Aim::Park => "park".to_owned(),
        }
    }

    /// The login, if it has one.
    pub fn login(&self) -> Option<&Path> {
        self.login.as_deref()
    }

    /// Whether a login could never be said, or only where the other side wants TLS: nothing makes sure of it.
    pub fn login_is_in_doubt(&self) -> bool {
        self.login.is_some() && !self.wrapped && matches!(self.tls, Level::Never | Level::Offered)
    }

    /// The hosts that it names, and their ports; `port` where none is written.
    pub fn hosts(&self, port: u16) -> Vec<(Box<str>, u16)> {
        let Aim::Hosts(hosts) = &self.aim else { return Vec::new() };
        let port = if self.wrapped { WRAPPED_PORT } else { port };
        let one = |(host, own): &(Host, Option<u16>)| {
            let name = match host {
                Host::Name(name) => name.clone(),
                Host::Address(address) => address.to_string().into(),
            };
            (name, own.unwrap_or(port))
        };
        hosts.iter().map(one).collect()
    }

    /// The hop for a recipient in `domain`.
    fn hop(&self, domain: &Domain, table: &Table) -> Hop {
        let to = match &self.aim {
            Aim::Mx => match domain {
                Domain::Name(name) => To::Mx(name.clone()),
                Domain::Literal(address) => To::Hosts(vec![(address.to_string().into(), table.port)]),
                Domain::None(why) => To::Never { status: "5.1.2", why: (*why).to_owned() },
            },
            Aim::MxOf(name) => To::Mx(name.clone()),
            Aim::Hosts(_) => To::Hosts(self.hosts(table.port)),
            Aim::Socket(path) => To::Socket(path.clone()),
            Aim::Park => To::Parked,
        };
        let mut key = match &to {
            To::Mx(name) => format!("mx {name}"),
            To::Hosts(hosts) => {
                let one = |(host, port): &(Box<str>, u16)| {
                    if host.parse::<IpAddr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
                };
                let hosts: Vec<String> = hosts.iter().map(one).collect();
                format!("{}{}", if self.lmtp { "lmtp " } else { "" }, hosts.join(","))
            }
            To::Socket(path) => format!("lmtp {}", path.display()),
            To::Parked => format!("park {domain}"),
            To::Never { .. } => format!("nowhere {domain}"),
        };
        // What differs in these is another place: a login is not said on another's connection.
        for word in self.words().iter().skip(1) {
            key.push(' ');
            key.push_str(word);
        }
        Hop {
            key: key.into(),
            to,
            lmtp: self.lmtp,
            tls: if matches!(self.aim, Aim::Socket(_)) { Level::Never } else { self.tls },
            from_first_octet: self.wrapped,
            login: self.login.clone(),
            inside: self.inside,
            connections: self.connections.unwrap_or(table.connections),
        }
    }
}

const OPTIONS: [&str; 5] = ["tls", "wrapped", "login", "inside", "connections"];
/// How they are written.
const OPTIONS_FORM: &str = "tls=never|offered|required|verified, wrapped, login=FILE, inside, connections=N";

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.words().iter().map(|word| quote(word)).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => write!(f, "[{address}]"),
        }
    }
}

/// What a target says, and whether LMTP is spoken there.
fn aim(target: &str) -> Result<(Aim, bool), String> {
    if let Some(path) = without(target, "lmtp:").filter(|path| path.starts_with('/')) {
        if path.len() > SOCKET_BYTES {
            return Err(format!("the path of a socket has at most {SOCKET_BYTES} bytes"));
        }
        return Ok((Aim::Socket(path.into()), true));
    }
    let parts: Vec<&str> = target.split(',').map(str::trim).collect();
    if let [only] = parts[..] {
        if only.eq_ignore_ascii_case("mx") {
            return Ok((Aim::Mx, false));
        }
        if only.eq_ignore_ascii_case("park") {
            return Ok((Aim::Park, false));
        }
        if let Some(name) = without(only, "mx:") {
            return Ok((Aim::MxOf(host_name(name)?), false));
        }
    }
    let mut hosts = Vec::new();
    let mut lmtp = None;
    for part in parts {
        if part.eq_ignore_ascii_case("mx") || part.eq_ignore_ascii_case("park") || without(part, "mx:").is_some() {
            return Err(format!("`{}` stands alone, without a comma", short(part)));
        }
        let (is_lmtp, host) = without(part, "lmtp:").map_or((false, part), |host| (true, host));
        if lmtp.is_some_and(|before| before != is_lmtp) {
            return Err("SMTP and LMTP are not spoken by the hosts of one line: write lmtp: before each".to_owned());
        }
        lmtp = Some(is_lmtp);
        let (host, port) = host_and_port(host)?;
        if is_lmtp && port.is_none() {
            return Err("LMTP has no port of its own: write lmtp:HOST:PORT, or lmtp:/PATH for a socket".to_owned());
        }
        hosts.push((host, port));
    }
    if hosts.len() > HOSTS_MOST {
        return Err(format!("it names more than {HOSTS_MOST} hosts"));
    }
    Ok((Aim::Hosts(hosts), lmtp == Some(true)))
}

fn host_and_port(text: &str) -> Result<(Host, Option<u16>), String> {
    if text.is_empty() {
        return Err(
            "a host is missing: write HOST, HOST:PORT, [IP]:PORT, mx, mx:NAME, lmtp:HOST:PORT or park".to_owned()
        );
    }
    let port = |text: &str| match decimal(text.as_bytes()) {
        Some(port @ 1..=65_535) => Ok(port as u16),
        _ => Err(format!("`{}` is no port: a port is a number from 1 to 65535", short(text))),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let address = rest.split_once(']').and_then(|(within, rest)| Some((literal(within)?, rest)));
        return match address {
            Some((address, "")) => Ok((Host::Address(address), None)),
            Some((address, rest)) if rest.starts_with(':') => Ok((Host::Address(address), Some(port(&rest[1..])?))),
            _ => Err(format!("`{}` is no address: write [192.0.2.1], [2001:db8::1], and :PORT behind it", short(text))),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an address of IPv6 stands in brackets: [{text}]"));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, number)) => (host, Some(port(number)?)),
        None => (text, None),
    };
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok((Host::Address(address.into()), port)),
        Err(_) => match &*host_name(host)? {
            // These mean something else where they stand alone.
            word @ ("mx" | "park") => Err(format!("a host that is called {word} is written with its domain")),
            name => Ok((Host::Name(name.into()), port)),
        },
    }
}

/// What stands between the brackets of an address, in mail's manner or without its tag.
fn literal(text: &str) -> Option<IpAddr> {
    without(text, "IPv6:").map_or_else(|| text.parse().ok(), |v6| v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// The name of a host or domain as it is looked up: in ASCII, in lower case, without a last dot.
pub fn host_name(text: &str) -> Result<Box<str>, String> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let odd =
        |c: char| !c.is_ascii() && (c.is_control() || c.is_whitespace() || "\u{3002}\u{ff0e}\u{ff61}".contains(c));
    let labels: Option<Vec<String>> = bare.split('.').map(ascii_label).collect();
    let Some(bare) = labels.filter(|_| text.len() <= NAME_BYTES && !text.contains(odd)).map(|labels| labels.join("."))
    else {
        return Err(format!("`{}` is no name of a host", short(text)));
    };
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    if bare.len() > 253 || !bare.split('.').all(label) {
        return Err(format!("`{}` is no name of a host", short(text)));
    }
    // A name that ends in a number would be taken for an address by some, and leads nowhere.
    if bare.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("`{}` is neither a name nor an address", short(text)));
    }
    Ok(bare.into())
}

/// `text` behind `word`, in any case.
fn without<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

/// As much of a text as a sentence needs.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A `route` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For which domains: `example.com`, `*.example.com`, `*`, `[192.0.2.1]`. Not empty.
    pub domains: Vec<Reach>,
    /// Where their mail goes.
    pub way: Way,
}

/// What a `route` line is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// One domain.
    Exactly(Box<str>),
    /// All that lie below one, and not that one.
    Below(Box<str>),
    /// Recipients at this address.
    Literal(IpAddr),
    /// All.
    All,
}

impl Reach {
    /// One entry of a list of domains.
    pub fn parse(text: &str) -> Result<Reach, String> {
        if text == "*" {
            return Ok(Reach::All);
        }
        if let Some(within) = text.strip_prefix('[') {
            let address = within.strip_suffix(']').and_then(literal);
            return address.map(Reach::Literal).ok_or_else(|| format!("`{}` is no address in brackets", short(text)));
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        if name.contains(['*', '?']) {
            return Err(format!("`{}`: a star stands alone, or before a dot: *.example.com", short(text)));
        }
        let name = host_name(name)?;
        Ok(if below { Reach::Below(name) } else { Reach::Exactly(name) })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Exactly(name) => f.write_str(name),
            Reach::Below(name) => write!(f, "*.{name}"),
            Reach::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Reach::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
            Reach::All => f.write_str("*"),
        }
    }
}

/// A `sender_route` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRoute {
    /// Whose mail: compared with the whole sender, and with its domain.
    pub senders: PatternList,
    /// Where it goes.
    pub way: Way,
}

/// All that is said about where mail goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    senders: Vec<SenderRoute>,
    ways: Vec<Way>,
    /// Places in `ways`.
    exactly: HashMap<Box<str>, usize>,
    below: HashMap<Box<str>, usize>,
    literals: HashMap<IpAddr, usize>,
    all: Option<usize>,
    gateway: Option<Way>,
    port: u16,
    connections: u16,
    /// Where relative files of ways start that are written by hand.
    folder: PathBuf,
    /// The login files that lines name.
    logins: Vec<PathBuf>,
}

impl Default for Table {
    fn default() -> Table {
        Table::new(&[], &[], None, 25, 10, Path::new("/"))
    }
}

/// A recipient's domain.
enum Domain {
    Name(Box<str>),
    Literal(IpAddr),
    /// None that anything could be looked up for, and why.
    None(&'static str),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Name(name) => f.write_str(name),
            Domain::Literal(address) => write!(f, "[{address}]"),
            Domain::None(_) => f.write_str("?"),
        }
    }
}

impl Domain {
    /// The domain of an address.
    fn of(address: &str) -> Domain {
        let Some((_, domain)) = address.rsplit_once('@') else { return Domain::None("the address has no domain") };
        if let Some(within) = domain.strip_prefix('[') {
            let address = within.strip_suffix(']').and_then(literal);
            return address.map_or(Domain::None("the address in brackets is none"), Domain::Literal);
        }
        host_name(domain).map_or(Domain::None("the domain is no name that could be looked up"), Domain::Name)
    }
}

impl Table {
    /// What these lines say. `port`, `connections`: where a line says nothing of them. Relative files of ways that are written by
    /// hand start from `folder`.
    pub fn new(
        routes: &[Route],
        senders: &[SenderRoute],
        gateway: Option<&Way>,
        port: u16,
        connections: u16,
        folder: &Path,
    ) -> Table {
        let (mut exactly, mut below, mut literals) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut all = None;
        for (index, route) in routes.iter().enumerate() {
            for reach in &route.domains {
                match reach {
                    Reach::Exactly(name) => drop(exactly.entry(name.clone()).or_insert(index)),
                    Reach::Below(name) => drop(below.entry(name.clone()).or_insert(index)),
                    Reach::Literal(address) => drop(literals.entry(*address).or_insert(index)),
                    Reach::All => drop(all.get_or_insert(index)),
                }
            }
        }
        let all_ways = routes.iter().map(|line| &line.way).chain(senders.iter().map(|line| &line.way)).chain(gateway);
        let logins = all_ways.filter_map(|way| way.login.clone()).collect();
        let ways = routes.iter().map(|route| route.way.clone()).collect();
        let (senders, gateway, folder) = (senders.to_vec(), gateway.cloned(), folder.to_owned());
        Table { senders, ways, exactly, below, literals, all, gateway, port, connections, folder, logins }
    }

    /// Where mail of `sender` (empty: nobody) for `recipient` goes. Both are whole addresses, quoted or not.
    pub fn hop(&self, sender: &str, recipient: &str) -> Hop {
        let domain = Domain::of(recipient);
        let way = self.by_sender(sender).or_else(|| self.by_domain(&domain)).or(self.gateway.as_ref());
        if let Some(way) = way {
            return way.hop(&domain, self);
        }
        let plain = Way {
            aim: Aim::Mx,
            lmtp: false,
            tls: Level::Offered,
            wrapped: false,
            login: None,
            inside: false,
            connections: None,
        };
        let mut hop = plain.hop(&domain, self);
        if let Domain::Literal(address) = domain
            && mx::is_inside(address)
        {
            hop.to = To::Never {
                status: "5.7.1",
                why: format!("mail to hosts inside a network by number, as [{address}], is not sent"),
            };
        }
        hop
    }

    fn by_sender(&self, sender: &str) -> Option<&Way> {
        let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
        let whole = if sender.is_empty() { NOBODY } else { sender };
        let covers = |entry: &str| matches(entry, whole) || !domain.is_empty() && matches(entry, domain);
        let line = self.senders.iter().find(|line| line.senders.decides(covers).is_some_and(|hit| !hit.excludes));
        line.map(|line| &line.way)
    }

    fn by_domain(&self, domain: &Domain) -> Option<&Way> {
        let named = match domain {
            Domain::Name(name) => self.exactly.get(name).or_else(|| {
                let dots = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
                dots.into_iter().find_map(|parent| self.below.get(parent))
            }),
            Domain::Literal(address) => self.literals.get(address),
            Domain::None(_) => None,
        };
        named.copied().or(self.all).map(|index| &self.ways[index])
    }

    /// Where mail for `recipient` goes when somebody says by hand where: `text` is a target and its options as a line has them.
    pub fn parse_via(&self, text: &str, recipient: &str) -> Result<Hop, String> {
        Ok(self.way_by_hand(text)?.hop(&Domain::of(recipient), self))
    }

    /// What `text`, a target and its options, says: its `Display` is what to keep of it.
    pub fn way_by_hand(&self, text: &str) -> Result<Way, String> {
        let words = words(text, 1, Manner::Plain).map_err(|trouble| trouble.text)?;
        let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let way = Way::parse(&words, &self.folder).map_err(|wrong| match words.get(wrong.word) {
            Some(word) => format!("`{}`: {}", short(word), wrong.why),
            None => wrong.why,
        })?;
        // What is said over a socket opens no file.
        match way.login() {
            Some(file) if !self.logins.iter().any(|known| known == file) => {
                Err(format!("`login={}`: no route of dmail.conf has that login", file.display()))
            }
            _ => Ok(way),
        }
    }
}

#[cfg(test)]
mod tests;
