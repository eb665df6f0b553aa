//! Settings of mail that goes out: routes, the gateway, their logins, DNS servers.
//!
//! A login file holds one line: a user, a blank, and the password, which is the rest of the line as it is, but for blanks at its
//! ends. Lines above it that are empty or begin with `#` are comments. It is read by [`Settings::read_logins`] alone, and what it says
//! is never shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Settings;
use super::complaint::{Complaint, Level, Place};
use super::kind::{Field, Value};

use crate::protocol::sasl::Login;
use crate::rules::hops::{Reach, Route, SenderRoute, Table, Way, host_name};
use crate::rules::{mx, retry};
use crate::sys::files::Opener;
use crate::text::number::decimal;
use crate::text::pattern::PatternList;
use crate::text::secret::{Secret, wipe};
use crate::text::words::{Trouble, quote};

/// Octets of a login file: more is something else.
const LOGIN_BYTES: usize = 4 * 1024;
/// The port of DNS.
const DNS_PORT: u16 = 53;

/// The name of a host, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub Box<str>);

/// What the files of logins say.
pub type Logins = BTreeMap<PathBuf, Login>;

impl Settings {
    /// The name that we greet other hosts by.
    pub fn greets_as(&self) -> &str {
        self.send_name.as_ref().map_or(self.main_domain(), |name| &name.0)
    }

    /// The address from which a host is connected to whose address is of the same kind as `to`; `None` = whichever the system
    /// takes.
    pub fn sends_from(&self, to: IpAddr) -> Option<IpAddr> {
        let own = self.send_address.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        own.copied().filter(|own| !own.is_unspecified())
    }

    /// Reads the files that logins of routes are in, as whoever `open`s them may. Errors for those that cannot be used.
    pub fn read_logins(&mut self, open: &Opener<'_>) -> Vec<Complaint> {
        let (mut logins, mut complaints, mut seen) = (Logins::new(), Vec::new(), BTreeSet::new());
        for (name, index, way) in self.ways() {
            let Some(path) = way.login().filter(|path| seen.insert(path.to_owned())) else { continue };
            let (level, text) = match read_login(path, open) {
                Ok((login, exposed)) => {
                    logins.insert(path.to_owned(), login);
                    if !exposed {
                        continue;
                    }
                    (Level::Warning, format!("everybody can get at {0}: `chmod o= {0}`", path.display()))
                }
                Err(why) => (Level::Error, format!("the login {} {why}", path.display())),
            };
            complaints.push(Complaint { level, place: self.place_of(name, index), text: format!("{name}: {text}") });
        }
        self.logins = logins;
        complaints
    }

    /// The files that logins of routes are in.
    pub fn login_files(&self) -> impl Iterator<Item = &Path> {
        self.ways().filter_map(|(.., way)| way.login())
    }

    /// What decides when a message is tried again.
    pub fn retry_rules(&self) -> retry::Rules<'_> {
        retry::Rules {
            schedule: &self.retry_schedule,
            life_secs: self.queue_life,
            bounce_life_secs: self.bounce_life,
            possibly_secs: self.possibly_secs,
        }
    }

    /// All ways that are written, with the name of the setting and which line of it.
    pub(super) fn ways(&self) -> impl Iterator<Item = (&'static str, usize, &Way)> {
        let routes = self.route.iter().enumerate().map(|(at, line)| ("route", at, &line.way));
        let senders = self.sender_route.iter().enumerate().map(|(at, line)| ("sender_route", at, &line.way));
        routes.chain(senders).chain(self.gateway.iter().map(|way| ("gateway", 0, way)))
    }
}

/// What a login file says, and whether everybody can read or write it.
fn read_login(path: &Path, open: &Opener<'_>) -> Result<(Login, bool), String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}; name a file this user can read");
    let file = open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err("is not a regular file: name a file".to_owned());
    }
    // Room from the start, so that the bytes are at one place, which is wiped.
    let mut bytes = Vec::with_capacity(LOGIN_BYTES + 1);
    let read = file.take(LOGIN_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot);
    let login = read.and_then(|_| {
        if bytes.len() > LOGIN_BYTES {
            Err(format!("has more than {LOGIN_BYTES} bytes: is it a login?"))
        } else {
            login(&bytes)
        }
    });
    wipe(&mut bytes);
    Ok((login?, about.permissions().mode() & 0o007 != 0))
}

fn login(bytes: &[u8]) -> Result<Login, String> {
    let wanted = "holds no login: write one line, the user, a blank and the password";
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.by_ref().filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(wanted.to_owned()) };
    let Some(blank) = line.iter().position(u8::is_ascii_whitespace) else { return Err(wanted.to_owned()) };
    let (user, password) = (&line[..blank], line[blank..].trim_ascii());
    if line.contains(&0) {
        return Err("has a NUL in it, which no login can have".to_owned());
    }
    Ok(Login { user: user.to_vec(), password: Secret::from(password) })
}

/// The table of where mail goes.
pub(super) fn hops(settings: &Settings) -> Table {
    Table::new(
        &settings.route,
        &settings.sender_route,
        settings.gateway.as_ref(),
        settings.smtp_out_port,
        settings.send_connections,
        settings.folder(),
    )
}

/// A way, out of the words from `at` on.
fn way(value: &Value<'_>, at: usize) -> Result<Way, Trouble> {
    let Some(words) = value.words.get(at..).filter(|words| !words.is_empty()) else { return Err(value.missing()) };
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    Way::parse(&texts, value.base).or_else(|wrong| value.refuse(&words[wrong.word], &wrong.why))
}

impl Field for Option<Way> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        *self = Some(way(value, 0)?);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(Way::to_string).collect()
    }
}

impl Field for Vec<Route> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [names, ..] = value.words else { return Err(value.missing()) };
        let mut domains = Vec::new();
        for name in names.text.split(',').map(str::trim) {
            domains.push(Reach::parse(name).or_else(|why| value.refuse(names, &why))?);
        }
        self.push(Route { domains, way: way(value, 1)? });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let show = |line: &Route| {
            let domains: Vec<String> = line.domains.iter().map(Reach::to_string).collect();
            format!("{} {}", domains.join(","), line.way)
        };
        self.iter().map(show).collect()
    }
}

impl Field for Vec<SenderRoute> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [names, ..] = value.words else { return Err(value.missing()) };
        let senders = PatternList::parse(&names.text).or_else(|why| value.refuse(names, &why))?;
        if senders.is_empty() {
            return Err(value.missing());
        }
        self.push(SenderRoute { senders, way: way(value, 1)? });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|line| format!("{} {}", quote(&line.senders.to_string()), line.way)).collect()
    }
}

impl Field for Option<HostName> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        *self = Some(HostName(host_name(&word.text).or_else(|why| value.refuse(word, &why))?));
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|name| name.0.to_string()).collect()
    }
}

impl Field for Vec<SocketAddr> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        for (word, entry) in value.entries()? {
            let Some(server) = server(entry) else {
                return value.refuse(
                    word,
                    "it takes addresses as 192.0.2.53, 192.0.2.53:5353, 2001:db8::53, [2001:db8::53]:5353",
                );
            };
            if self.contains(&server) {
                return value.refuse(word, "it is named twice; once is enough");
            }
            self.push(server);
        }
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let show = |server: &SocketAddr| {
            if server.port() == DNS_PORT { server.ip().to_string() } else { server.to_string() }
        };
        self.iter().map(show).collect()
    }
}

/// `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]`, `[2001:db8::53]:5353`.
fn server(text: &str) -> Option<SocketAddr> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']')?;
            let host = IpAddr::V6(host.parse::<Ipv6Addr>().ok()?);
            (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) })
        }
        None => match text.parse::<IpAddr>() {
            Ok(host) => (host, None),
            Err(_) => {
                let (host, port) = text.split_once(':')?;
                (host.parse().ok()?, Some(port))
            }
        },
    };
    let port = match port {
        Some(port) => decimal(port.as_bytes()).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)?,
        None => DNS_PORT,
    };
    (!host.is_unspecified()).then_some(SocketAddr::new(host, port))
}

/// What must agree among these settings, and what leads nowhere or means nothing.
pub(super) fn agree(settings: &Settings, complaints: &mut Vec<Complaint>) {
    let mut say = |level, place: Place, text: String| complaints.push(Complaint { level, place, text });
    for kind in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if settings.send_address.iter().filter(|address| kind(address)).count() > 1 {
            let text = "send_address takes one address of IPv4 and one of IPv6: take the others out".to_owned();
            say(Level::Error, settings.place("send_address"), text);
        }
    }
    for (name, index, way) in settings.ways() {
        let place = settings.place_of(name, index);
        for (host, port) in
            way.hosts(settings.smtp_out_port).iter().filter(|(host, port)| is_ourselves(settings, host, *port))
        {
            let text = format!(
                "{name}: {host}, port {port}, is this server itself: what goes there comes back to it; name another host"
            );
            say(Level::Warning, place.clone(), text);
        }
        if way.login_is_in_doubt() {
            let text = format!(
                "{name}: a password is never said in clear, so without tls=required or wrapped there is no login where TLS is not \
                 offered: add tls=required"
            );
            say(Level::Warning, place, text);
        }
    }
    let mut seen: HashMap<&Reach, usize> = HashMap::new();
    for (index, line) in settings.route.iter().enumerate() {
        let place = settings.place_of("route", index);
        for reach in &line.domains {
            if let Reach::Exactly(name) = reach
                && settings.domains.canonical(name).is_some()
            {
                let text =
                    format!("route: {name} is a domain of ours, whose mail stays here: the route means nothing for it");
                say(Level::Warning, place.clone(), text);
            }
            match seen.get(reach) {
                Some(first) => {
                    let first = settings.place_of("route", *first).seen_from(&place);
                    say(
                        Level::Warning,
                        place.clone(),
                        format!("route: {reach} has a route already ({first}), which counts: keep one"),
                    );
                }
                None => drop(seen.insert(reach, index)),
            }
        }
    }
    if let Some(HostName(name)) = &settings.send_name
        && !name.contains('.')
    {
        let text = format!(
            "send_name: {name} is no whole name, and many hosts take no mail from who has none: write it with its domain"
        );
        say(Level::Warning, settings.place("send_name"), text);
    }
    if usize::from(settings.send_connections) > settings.send_connections_max {
        let text = format!(
            "send_connections is {}, and all destinations together have {}: change one of them",
            settings.send_connections, settings.send_connections_max
        );
        say(Level::Warning, settings.place("send_connections"), text);
    }
}

/// Whether mail for that host and port would come back to this server, as far as names and addresses tell.
fn is_ourselves(settings: &Settings, host: &str, port: u16) -> bool {
    let ports = [settings.smtp_port, settings.submission_port, settings.smtps_port, settings.lmtp_port];
    if !ports.contains(&port) {
        return false;
    }
    let bound = |address: &IpAddr| settings.bind_address.contains(address);
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let all = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            bound(&address) || mx::is_own(address) && bound(&all)
        }
        Err(_) => {
            host == settings.greets_as()
                || host == "localhost" && settings.bind_address.iter().any(|own| mx::is_own(*own))
        }
    }
}
