//! A byte stream from another machine or from another program of this one.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::stream::Socket;

/// One or the other.
pub enum Sock {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
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
