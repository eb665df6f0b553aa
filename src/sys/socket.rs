//! What the kernel knows of a connection's other side.

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
}
