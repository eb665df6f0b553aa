//! Settings of mail that goes out: routes, the gateway, their logins, DNS servers.
//!
//! A login file holds a user and a password: two words of one line, or two lines; `#` begins a comment line, quotes keep blanks.
//! Only [`Settings::read_logins`] reads it, for a server; what it says is never shown.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::Settings;
use super::complaint::{Complaint, Level};
use super::kind::{Field, Value};

use crate::rules::hops::{Reach, Route, SenderRoute, Table, Way, host_name};
use crate::text::number::decimal;
use crate::text::pattern::PatternList;
use crate::text::secret::Secret;
use crate::text::words::{Trouble, quote};

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// The name of a host, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub Box<str>);

/// Who we are to a host that wants a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: Box<str>,
    /// His password.
    pub password: Secret,
}

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

    /// All ways that are written, with the name of the setting and which line of it.
    pub(super) fn ways(&self) -> impl Iterator<Item = (&'static str, usize, &Way)> {
        let routes = self.route.iter().enumerate().map(|(at, line)| ("route", at, &line.way));
        let senders = self.sender_route.iter().enumerate().map(|(at, line)| ("sender_route", at, &line.way));
        routes.chain(senders).chain(self.gateway.iter().map(|way| ("gateway", 0, way)))
    }
}

/// The table of where mail goes.
pub(super) fn draw(settings: &mut Settings) {
    settings.hops = Table::new(
        &settings.route,
        &settings.sender_route,
        settings.gateway.as_ref(),
        settings.smtp_out_port,
        settings.send_connections,
        settings.folder(),
    );
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

/// What must agree among these settings.
pub(super) fn agree(settings: &Settings, complaints: &mut Vec<Complaint>) {
    for kind in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if settings.send_address.iter().filter(|address| kind(address)).count() > 1 {
            let text = "send_address takes one address of IPv4 and one of IPv6: take the others out".to_owned();
            complaints.push(Complaint { level: Level::Error, place: settings.place("send_address"), text });
        }
    }
    for (name, index, way) in settings.ways() {
        if way.login_is_in_doubt() {
            let text = format!(
                "{name}: a password is never said in clear: without tls=required or wrapped there is no login where TLS is not \
                 offered"
            );
            complaints.push(Complaint { level: Level::Warning, place: settings.place_of(name, index), text });
        }
    }
}
