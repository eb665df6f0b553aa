//! What the kernel knows of a connection, and is told of one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Keep-alive and zero-window probes that the peer has left unanswered (`tcpi_probes` of tcp(7)). One may be on its way.
pub fn unanswered_probes(socket: &impl AsFd) -> io::Result<u8> {
    // SAFETY: a plain structure of numbers, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `fd` is open through the call; the kernel writes at most `length` bytes, and says how many.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.tcpi_probes) }
}

/// For a socket that is bound to an address and port 0, and connects: the kernel chooses the port only then, when it knows the
/// other end (`IP_BIND_ADDRESS_NO_PORT` of ip(7)). So each of our addresses has all ports towards each of theirs.
pub fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `fd` is open through the call; the kernel reads `length` bytes of `on`, which lives through it.
    let result = unsafe {
        libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const on).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_peer_that_lives_leaves_no_probe_unanswered_and_other_sockets_have_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(unanswered_probes(&client).unwrap(), 0);
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(unanswered_probes(&one).is_err());
    }

    #[test]
    fn a_bound_socket_has_no_port_before_it_connects() {
        let late = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        choose_port_late(&late).unwrap();
        late.bind(&std::net::SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
        let port = || late.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(port(), 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        late.connect(&listener.local_addr().unwrap().into()).unwrap();
        assert_ne!(port(), 0);
    }
}
