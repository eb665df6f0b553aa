//! A byte stream from another machine or from another program of this one.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket as Raw, Type};

use super::stream::Socket;
use crate::sys::socket::choose_port_late;

/// Of Linux; std has no kind for it that is stable.
const EINPROGRESS: i32 = 115;

/// One or the other.
pub enum Sock {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Sock {
    /// Begins to connect, from that address of ours where one is given. For [`Stream::connect`](super::stream::Stream::connect).
    pub fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Sock> {
        let raw = Raw::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            choose_port_late(&raw)?;
            raw.bind(&SocketAddr::from((from, 0)).into())?;
        }
        match raw.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Sock::Tcp(TcpStream::from_std(raw.into())))
    }

    /// The same to a unix socket.
    pub fn connect_to(path: &Path) -> io::Result<Sock> {
        UnixStream::connect(path).map(Sock::Unix)
    }

    /// Whether the other end has this machine's address, from which who calls an address of his own comes; `None`: it is not
    /// connected yet.
    pub fn is_to_ourselves(&self) -> Option<bool> {
        match self {
            Sock::Tcp(sock) => {
                let theirs = sock.peer_addr().ok()?;
                Some(sock.local_addr().is_ok_and(|ours| ours.ip().to_canonical() == theirs.ip().to_canonical()))
            }
            Sock::Unix(sock) => sock.peer_addr().ok().map(|_| true),
        }
    }
}

macro_rules! either {
    ($sock:expr, $one:ident => $does:expr) => {
        match $sock {
            Sock::Tcp($one) => $does,
            Sock::Unix($one) => $does,
        }
    };
}

impl Read for Sock {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        either!(self, sock => sock.read(bytes))
    }

    fn read_vectored(&mut self, bytes: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        either!(self, sock => sock.read_vectored(bytes))
    }
}

impl Write for Sock {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, sock => sock.write(bytes))
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, sock => sock.write_vectored(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, sock => sock.flush())
    }
}

impl Socket for Sock {
    fn shut_write(&self) -> io::Result<()> {
        either!(self, sock => sock.shut_write())
    }

    fn is_connected(&self) -> io::Result<bool> {
        either!(self, sock => sock.is_connected())
    }
}

impl AsRawFd for Sock {
    fn as_raw_fd(&self) -> RawFd {
        either!(self, sock => sock.as_raw_fd())
    }
}

impl Source for Sock {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        either!(self, sock => sock.register(registry, token, interests))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        either!(self, sock => sock.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        either!(self, sock => sock.deregister(registry))
    }
}
