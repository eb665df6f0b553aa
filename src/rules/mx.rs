//! Which hosts take the mail of a domain, and which addresses may be connected to.
//!
//! | DNS says of the domain                         | comes to                                                             |
//! |------------------------------------------------|----------------------------------------------------------------------|
//! | mail hosts                                     | these by preference, equal ones in an order that chance has          |
//! | one mail host, the root (null MX, RFC 7505)    | never: 5.1.10                                                         |
//! | the root among others                          | the others                                                           |
//! | mail hosts that are no names (`192.0.2.1`)     | those are left out; when nothing is left, never: 5.1.2               |
//! | mail hosts, this one among them                | those that are preferred to it (RFC 5321 §5.1); none: never, 5.4.6  |
//! | nothing about mail                             | the domain is its own mail host                                      |
//! | there is no such domain                        | never: 5.1.2                                                         |
//! | nothing that could be used, now                | later: 4.4.3                                                         |
//!
//! At most [`HOSTS_MOST`] hosts are tried, whatever is said. A host that is this one under another name is known by its addresses
//! alone: whoever has them asks [`Ourselves::is_at`], and [`preferred_to`] for what remains.
//!
//! | address                                                          | connected to                                        |
//! |------------------------------------------------------------------|-----------------------------------------------------|
//! | `0.0.0.0/8`, `::`, `127.0.0.0/8`, `::1`                          | with `inside`                                       |
//! | an address of this machine and a port of this server             | with `inside`                                       |
//! | multicast, `255.255.255.255`, link-local (`169.254/16`, `fe80::/10`) | with `inside`                                   |
//! | private ones (`10/8`, `172.16/12`, `192.168/16`, `fc00::/7`)      | yes                                                 |
//! | any of these written as IPv6 (`::ffff:`, `::`, `64:ff9b::`, `2002:`)  | as the address of IPv4 that is meant            |
//!
//! Private addresses are connected to when DNS names them, for inside a network whose DNS says so that is how mail goes; what a
//! stranger gains by naming one is a conversation in SMTP, on the one port of SMTP. They are refused where a recipient is
//! written with one (`ann@[10.0.0.1]`: [`hops`](super::hops)), for nobody's DNS stands behind that.

use std::net::{IpAddr, Ipv4Addr};

use super::hops::host_name;

/// Hosts of a domain that are tried.
pub const HOSTS_MOST: usize = 20;

/// What DNS said about the mail hosts of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// These: preference and host. The host of a null MX is empty or `.`.
    Hosts(Vec<(u16, &'a str)>),
    /// The domain exists, and has no such record.
    NoData,
    /// There is no such domain.
    NoName,
    /// It could not be found out now, and why.
    Failed(&'a str),
}

/// A mail host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Lower ones come first.
    pub preference: u16,
    /// Its name, as it is looked up.
    pub name: Box<str>,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These, in this order. Not empty.
    Hosts(Vec<Host>),
    /// The domain itself is its mail host.
    Itself,
    /// Nothing, ever.
    Never {
        /// The enhanced status code.
        status: &'static str,
        /// Why, in words.
        why: String,
    },
    /// Nothing now.
    Later {
        /// The enhanced status code.
        status: &'static str,
        /// Why, in words.
        why: String,
    },
}

/// The mail hosts of `domain`, out of what DNS said. `random`: any numbers.
pub fn choose(domain: &str, found: Found<'_>, ourselves: &Ourselves, mut random: impl FnMut() -> u64) -> Choice {
    let never = |status, why: &str| Choice::Never { status, why: format!("{domain}: {why}") };
    let found = match found {
        Found::Hosts(found) => found,
        Found::NoData => return Choice::Itself,
        Found::NoName => return never("5.1.2", "there is no such domain"),
        Found::Failed(why) => {
            return Choice::Later {
                status: "4.4.3",
                why: format!("{domain}: its mail hosts cannot be looked up now: {why}"),
            };
        }
    };
    let is_root = |host: &str| host.is_empty() || host == ".";
    if !found.is_empty() && found.iter().all(|(_, host)| is_root(host)) {
        return never("5.1.10", "the domain takes no mail");
    }
    let mut hosts: Vec<(u16, u64, Box<str>)> = Vec::new();
    for (preference, host) in found {
        if let Ok(name) = host_name(host)
            && !hosts.iter().any(|(_, _, other)| *other == name)
        {
            hosts.push((preference, random(), name));
        }
    }
    if hosts.is_empty() {
        return never("5.1.2", "what DNS names as its mail hosts are no hosts");
    }
    hosts.sort_unstable();
    let ours = hosts.iter().find(|(_, _, name)| ourselves.names.contains(name)).map(|(preference, ..)| *preference);
    let hosts = hosts.into_iter().map(|(preference, _, name)| Host { preference, name }).collect();
    let mut hosts = match ours {
        Some(preference) => preferred_to(preference, hosts),
        None => hosts,
    };
    if hosts.is_empty() {
        return looped(domain);
    }
    hosts.truncate(HOSTS_MOST);
    Choice::Hosts(hosts)
}

/// What remains of a domain's mail hosts when one of this preference turns out to be this server (RFC 5321 §5.1): mail never goes
/// back from a host to one that is asked after it.
pub fn preferred_to(preference: u16, mut hosts: Vec<Host>) -> Vec<Host> {
    hosts.retain(|host| host.preference < preference);
    hosts
}

/// What it comes to when nothing remains.
pub fn looped(domain: &str) -> Choice {
    Choice::Never {
        status: "5.4.6",
        why: format!("{domain}: mail loops back to this host, which is its best mail host"),
    }
}

/// Who we are, to whom nothing is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ourselves {
    /// Names of this host, in lower case.
    pub names: Vec<Box<str>>,
    /// Addresses of this host.
    pub addresses: Vec<IpAddr>,
    /// Ports at which this server takes mail.
    pub ports: Vec<u16>,
}

impl Ourselves {
    /// Whether that is this server.
    pub fn is_at(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(&port) && self.addresses.iter().any(|own| meant(*own) == meant(address))
    }
}

/// Whether mail may be brought to that address and port, or why not. `inside`: a route says that it may be this machine.
pub fn may_be(address: IpAddr, port: u16, inside: bool, ourselves: &Ourselves) -> Result<(), &'static str> {
    if inside {
        return Ok(());
    }
    if is_own(address) {
        return Err("that is this machine, and no route says that mail goes there");
    }
    if is_nobody(address) {
        return Err("that is no address of a host in the world");
    }
    if ourselves.is_at(address, port) {
        return Err("that is this server itself");
    }
    Ok(())
}

/// The address of IPv4 that is meant by one of IPv6, where that holds one: mapped, compatible, NAT64, 6to4.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let low = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => v6.into(),
        [0, 0, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => low(a, b),
        _ => v6.into(),
    }
}

/// Whether it is this machine, or no machine.
pub fn is_own(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
    }
}

/// Whether it is nobody's in particular, or means something on one cable alone.
fn is_nobody(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// Whether it lies inside some network, not in the world.
pub fn is_inside(address: IpAddr) -> bool {
    let private = match meant(address) {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    private || is_own(address) || is_nobody(address)
}
