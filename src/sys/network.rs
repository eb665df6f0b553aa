//! What sockets and the system's resolver say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::os::fd::AsRawFd;

/// Longest name of a host (RFC 1035 §2.3.4).
const NAME: usize = 253;

/// Whether a read, or an accept, would not wait (poll(2)).
pub fn is_readable(socket: &impl AsRawFd) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry of our own, initialised; a time-out of zero never waits.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0 && poll.revents & libc::POLLIN != 0
}

/// The addresses that this machine's interfaces have now (getifaddrs(3)).
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the kernel's list is written to `first`, which lives through the call.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut found, mut next) = (Vec::new(), first);
    while !next.is_null() {
        // SAFETY: an entry of the list, which is not freed yet; its address is null, or one of the kind that it says.
        unsafe {
            let address = (*next).ifa_addr;
            match (!address.is_null()).then(|| libc::c_int::from((*address).sa_family)) {
                Some(libc::AF_INET) => {
                    let address = (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                    found.push(Ipv4Addr::from_bits(u32::from_be(address)).into());
                }
                Some(libc::AF_INET6) => {
                    let address = (*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                    found.push(Ipv6Addr::from(address).into());
                }
                _ => {}
            }
            next = (*next).ifa_next;
        }
    }
    // SAFETY: the list as it came, of which nothing is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The name of a host, in lower case: what its address leads to, if that leads back to the address; `None` when there is no
/// such name, an error when name servers did not say. Whoever has the reverse zone of an address can write any name there, but
/// not make another's name lead back. May wait for name servers for a long time: for a job.
pub fn confirmed_name(address: IpAddr) -> io::Result<Option<String>> {
    let address = address.to_canonical();
    let Some(name) = reverse(address)? else { return Ok(None) };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if !is_host_name(&name) {
        return Ok(None);
    }
    let mut leads_to = (name.as_str(), 0).to_socket_addrs()?;
    Ok(leads_to.any(|found| found.ip().to_canonical() == address).then_some(name))
}

/// Whether this is a name that can be compared and printed: letters, digits, `-`, `_` and dots, and no address in any of the
/// spellings that would lead back to itself.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME && name.split('.').all(label) && last.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// What an address leads to (getnameinfo(3)); `None` when it has no name.
fn reverse(address: IpAddr) -> io::Result<Option<String>> {
    let mut name = [0u8; 1025];
    let (host, room) = (name.as_mut_ptr().cast::<libc::c_char>(), name.len() as libc::socklen_t);
    let (nothing, none) = (std::ptr::null_mut::<libc::c_char>(), 0);
    let result = match address {
        IpAddr::V4(address) => {
            // SAFETY: all zeros is a valid sockaddr_in.
            let mut from: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            from.sin_family = libc::AF_INET as libc::sa_family_t;
            from.sin_addr.s_addr = address.to_bits().to_be();
            let length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: the address is our own struct with its own length; the buffer lives through the call, with its length.
            unsafe { libc::getnameinfo((&raw const from).cast(), length, host, room, nothing, none, libc::NI_NAMEREQD) }
        }
        IpAddr::V6(address) => {
            // SAFETY: all zeros is a valid sockaddr_in6.
            let mut from: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            from.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            from.sin6_addr.s6_addr = address.octets();
            let length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: as above.
            unsafe { libc::getnameinfo((&raw const from).cast(), length, host, room, nothing, none, libc::NI_NAMEREQD) }
        }
    };
    match result {
        0 => {
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            Ok(std::str::from_utf8(&name[..end]).ok().map(str::to_owned))
        }
        libc::EAI_NONAME => Ok(None),
        libc::EAI_SYSTEM => Err(io::Error::last_os_error()),
        other => Err(io::Error::other(format!("getnameinfo: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reverse_zones_hold_is_a_name_or_nothing() {
        for name in ["localhost", "pc.example.com", "x-1_2.example", "10-0-0-1.dsl.example", "xn--bcher-kva.example"] {
            assert!(is_host_name(name), "{name}");
        }
        let long = format!("{}.example", "a.".repeat(130));
        for name in
            ["", ".", "a..b", "10.0.0.1", "0x7f.1", "127.1", "a b", "a\nb", "*", "a,b", "\u{fc}.example", "::1", &long]
        {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn the_loopback_has_a_name_that_leads_back_or_none() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let found = confirmed_name(address.parse().unwrap()).unwrap_or_default();
            assert!(found.as_deref().is_none_or(is_host_name), "{found:?}");
        }
    }

    #[test]
    fn this_machine_has_the_addresses_that_can_be_bound_to() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
        for address in own.iter().filter(|address| !address.is_unspecified()) {
            let is_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            assert!(is_local || std::net::UdpSocket::bind((*address, 0)).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_socket_is_readable_when_somebody_waits() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_readable(&listener));
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_readable(&listener));
        listener.accept().unwrap();
        assert!(!is_readable(&listener));
    }
}
