//! resolv.conf(5): the name servers of this host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where name servers listen.
pub const PORT: u16 = 53;
/// How many of them are taken from there, as the system does.
const MOST: usize = 3;

/// The servers that this text names; the one on this host when it names none. Addresses with a zone (`fe80::1%eth0`) are
/// passed over.
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
            && servers.len() < MOST
        {
            servers.push(SocketAddr::new(address, PORT));
        }
    }
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_name_servers_count_and_without_one_this_host() {
        let local = vec!["127.0.0.1:53".parse::<SocketAddr>().unwrap()];
        assert_eq!(name_servers(""), local);
        assert_eq!(name_servers("search example.org\n# nameserver 192.0.2.1\n;nameserver 192.0.2.2\n"), local);
        assert_eq!(
            name_servers("nameserver\nnameserver fe80::1%eth0\nnameserver localhost\nnameservers 1.2.3.4"),
            local
        );
        let four =
            "nameserver 192.0.2.1\n\tnameserver\t2001:db8::1 # ours\nnameserver 192.0.2.3\r\nnameserver 192.0.2.4";
        let three = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"];
        assert_eq!(name_servers(four), three.map(|server| server.parse().unwrap()));
    }
}
