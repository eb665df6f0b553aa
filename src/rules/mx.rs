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
//! alone: whoever has them asks [`Ourselves::is_at`], keeps what is
//! preferred to it, and says [`looped`] where that is nothing.
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
fn preferred_to(preference: u16, mut hosts: Vec<Host>) -> Vec<Host> {
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

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn us() -> Ourselves {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).to_vec();
        Ourselves { names: vec!["mail.us.example".into()], addresses, ports: vec![25, 587] }
    }

    /// What it comes to, in words: hosts with their preferences; or status and why.
    fn chosen(found: Found<'_>) -> String {
        let mut numbers = 0;
        let random = || {
            numbers += 1;
            numbers
        };
        match choose("x.example", found, &us(), random) {
            Choice::Hosts(hosts) => {
                let hosts: Vec<String> =
                    hosts.iter().map(|host| format!("{} {}", host.preference, host.name)).collect();
                hosts.join(", ")
            }
            Choice::Itself => "itself".to_owned(),
            Choice::Never { status, why } => format!("never {status} {why}"),
            Choice::Later { status, why } => format!("later {status} {why}"),
        }
    }

    #[test]
    fn what_dns_says_leads_where_the_table_says() {
        let table: &[(&[(u16, &str)], &str)] = &[
            (&[(10, "a.example")], "10 a.example"),
            (&[(20, "b.example"), (10, "a.example")], "10 a.example, 20 b.example"),
            (&[(0, "A.Example."), (65535, "b.example")], "0 a.example, 65535 b.example"),
            // Random numbers that count up leave equal ones in the order they came in.
            (&[(10, "c.example"), (10, "a.example"), (10, "b.example")], "10 c.example, 10 a.example, 10 b.example"),
            // One host once, at the preference it came with first.
            (&[(10, "a.example"), (20, "a.example")], "10 a.example"),
            (&[(0, "")], "never 5.1.10 x.example: the domain takes no mail"),
            (&[(0, ".")], "never 5.1.10 x.example: the domain takes no mail"),
            (&[(10, "."), (20, "")], "never 5.1.10 x.example: the domain takes no mail"),
            (&[(0, "."), (10, "a.example")], "10 a.example"),
            // No names.
            (&[(10, "192.0.2.7"), (20, "a.example")], "20 a.example"),
            (&[(10, "[192.0.2.7]"), (20, "a b.example"), (20, "2001:db8::7"), (30, "a.example")], "30 a.example"),
            (&[(10, "192.0.2.7")], "never 5.1.2 x.example: what DNS names as its mail hosts are no hosts"),
            (&[], "never 5.1.2 x.example: what DNS names as its mail hosts are no hosts"),
            (&[(0, "."), (10, "192.0.2.7")], "never 5.1.2 x.example: what DNS names as its mail hosts are no hosts"),
            // Ourselves.
            (&[(10, "a.example"), (20, "mail.us.example"), (20, "b.example"), (30, "c.example")], "10 a.example"),
            (
                &[(10, "Mail.US.example"), (20, "b.example")],
                "never 5.4.6 x.example: mail loops back to this host, which is its best mail host",
            ),
            (
                &[(10, "b.example"), (10, "mail.us.example")],
                "never 5.4.6 x.example: mail loops back to this host, which is its best mail host",
            ),
        ];
        for (records, said) in table {
            assert_eq!(chosen(Found::Hosts(records.to_vec())), *said, "{records:?}");
        }
        assert_eq!(chosen(Found::NoData), "itself");
        assert_eq!(chosen(Found::NoName), "never 5.1.2 x.example: there is no such domain");
        assert_eq!(
            chosen(Found::Failed("SERVFAIL")),
            "later 4.4.3 x.example: its mail hosts cannot be looked up now: SERVFAIL"
        );
    }

    #[test]
    fn hosts_of_one_preference_take_turns_and_five_thousand_come_to_twenty() {
        let names: Vec<String> = (0..5000).map(|number| format!("mx{number}.example")).collect();
        let found = || Found::Hosts(names.iter().map(|name| (10, name.as_str())).collect());
        let mut first = std::collections::HashSet::new();
        for seed in 1..=20_u64 {
            // Weyl's sequence: numbers that are spread and never the same.
            let mut state = seed;
            let random = || {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15).rotate_left(23);
                state
            };
            let Choice::Hosts(hosts) = choose("x.example", found(), &us(), random) else { panic!("hosts") };
            assert_eq!(hosts.len(), HOSTS_MOST);
            first.insert(hosts[0].name.clone());
        }
        assert!(first.len() > 10, "{first:?}");
    }

    #[test]
    fn only_hosts_before_us_remain() {
        let hosts = |preferences: &[u16]| -> Vec<Host> {
            preferences.iter().map(|&preference| Host { preference, name: "x".into() }).collect()
        };
        assert_eq!(preferred_to(20, hosts(&[10, 10, 20, 30])), hosts(&[10, 10]));
        assert_eq!(preferred_to(0, hosts(&[0, 10])), []);
    }

    #[test]
    fn an_address_may_be_connected_to_or_not_as_the_table_says() {
        let (own, nobody, server) = (
            Err("that is this machine, and no route says that mail goes there"),
            Err("that is no address of a host in the world"),
            Err("that is this server itself"),
        );
        for (address, port, expected) in [
            ("198.51.100.1", 25, Ok(())),
            ("2001:db8::25", 25, Ok(())),
            ("10.0.0.1", 25, Ok(())),
            ("192.168.1.1", 25, Ok(())),
            ("fd00::1", 25, Ok(())),
            ("0.0.0.0", 25, own),
            ("0.1.2.3", 25, own),
            ("127.0.0.1", 25, own),
            ("127.255.255.254", 2525, own),
            ("::", 25, own),
            ("::1", 25, own),
            ("::ffff:127.0.0.1", 25, own),
            ("::ffff:0.0.0.0", 25, own),
            ("::127.0.0.1", 25, own),
            ("64:ff9b::7f00:1", 25, own),
            ("2002:7f00:1::1", 25, own),
            ("224.0.0.1", 25, nobody),
            ("239.1.2.3", 25, nobody),
            ("255.255.255.255", 25, nobody),
            ("169.254.169.254", 25, nobody),
            ("::ffff:169.254.169.254", 25, nobody),
            ("fe80::1", 25, nobody),
            ("ff02::1", 25, nobody),
            ("192.0.2.1", 25, server),
            ("::ffff:192.0.2.1", 587, server),
            ("2001:db8::1", 25, server),
            ("192.0.2.1", 2525, Ok(())),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(may_be(parsed, port, false, &us()), expected, "{address}:{port}");
            assert_eq!(may_be(parsed, port, true, &us()), Ok(()), "{address}:{port} inside");
        }
        for (address, inside) in [
            ("198.51.100.1", false),
            ("2001:db8::25", false),
            ("10.0.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("127.0.0.1", true),
            ("169.254.0.1", true),
        ] {
            assert_eq!(is_inside(address.parse().unwrap()), inside, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_more_hosts_than_may_be_nor_names_us_nor_leaves_the_order(
            records in prop::collection::vec((0u16..4, "[a-c.]{0,4}|mail\\.us\\.example|[0-9.:]{0,9}|\\PC{0,5}"), 0..60),
            seed: u64
        ) {
            let found = records.iter().map(|(preference, host)| (*preference, host.as_str())).collect();
            let mut state = seed;
            let random = || { state = state.wrapping_mul(6364136223846793005).wrapping_add(1); state };
            let ours = records.iter().filter(|(_, host)| host == "mail.us.example").map(|(first, _)| *first).next();
            if let Choice::Hosts(hosts) = choose("x", Found::Hosts(found), &us(), random) {
                prop_assert!(!hosts.is_empty() && hosts.len() <= HOSTS_MOST);
                prop_assert!(hosts.is_sorted_by_key(|host| host.preference));
                for host in &hosts {
                    prop_assert!(host_name(&host.name).is_ok_and(|name| name == host.name), "{}", host.name);
                    prop_assert!(host.name.parse::<IpAddr>().is_err() && &*host.name != "mail.us.example");
                    prop_assert!(ours.is_none_or(|ours| host.preference < ours));
                }
            }
        }

        #[test]
        fn no_address_that_is_let_through_is_this_machine_however_it_is_written(bits: u32, form in 0u8..4, port: u16) {
            // Half of them are forbidden ones.
            let bits = if bits & 1 == 0 { bits } else { [0x7f00_0000, 0, 0xe000_0000, 0xa9fe_0000][(bits >> 1) as usize % 4] | bits & 0xffff };
            let v4 = Ipv4Addr::from(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let address: IpAddr = match form {
                0 => v4.into(),
                1 => v4.to_ipv6_mapped().into(),
                2 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b).into(),
                _ => Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1).into(),
            };
            let forbidden = v4.is_loopback() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_link_local()
                || v4.is_broadcast() || us().is_at(v4.into(), port);
            prop_assert_eq!(may_be(address, port, false, &us()).is_err(), forbidden, "{}", address);
        }
    }
}
