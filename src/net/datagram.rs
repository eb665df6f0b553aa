//! Sockets for questions to name servers: a datagram socket for one of them, or a stream for an answer that no datagram takes.
//!
//! | socket   | to begin with                                                        | what comes                       | fails by                          |
//! |----------|----------------------------------------------------------------------|----------------------------------|-----------------------------------|
//! | datagram | a port that the kernel draws, connected to the server, the question sent | datagrams of that server alone | a message that nobody is there    |
//! | stream   | connects; the question is written once it is connected               | bytes, as they come              | its end, whoever ends it; an error |
//!
//! Each serves one question, so that nobody can know its port beforehand.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use mio::{Registry, Token};

use super::stream::Readiness;
use super::watch;

/// Most that is taken of a datagram; no server was told that it may send as much.
pub const DATAGRAM: usize = 4096;

/// A question on its way.
#[derive(Debug)]
pub struct Exchange {
    plug: Plug,
    /// There may be something to read, or an error.
    ready: bool,
}

#[derive(Debug)]
enum Plug {
    Datagram(UdpSocket),
    Stream {
        socket: TcpStream,
        /// Bytes of the question that are not written yet.
        unsent: Box<[u8]>,
    },
}

impl Exchange {
    /// Sends this as one datagram, from a port of its own.
    pub fn datagram(server: SocketAddr, question: &[u8]) -> io::Result<Exchange> {
        let any = match server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(server)?;
        // A datagram goes whole or not at all.
        socket.send(question)?;
        Ok(Exchange { plug: Plug::Datagram(socket), ready: true })
    }

    /// Writes this as soon as there is a connection.
    pub fn stream(server: SocketAddr, question: Box<[u8]>) -> io::Result<Exchange> {
        let socket = TcpStream::connect(server)?;
        Ok(Exchange { plug: Plug::Stream { socket, unsent: question }, ready: false })
    }

    /// Registers the socket.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.plug {
            Plug::Datagram(socket) => watch(registry, socket, token),
            Plug::Stream { socket, .. } => watch(registry, socket, token),
        }
    }

    /// Takes it away again. An error means that it is gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = match &mut self.plug {
            Plug::Datagram(socket) => registry.deregister(socket),
            Plug::Stream { socket, .. } => registry.deregister(socket),
        };
    }

    /// The kernel says something about it.
    pub fn mark(&mut self, _ready: Readiness) {
        self.ready = true;
    }

    /// What came, a datagram or the next part of a stream: so many bytes of `room`; `None` when there is nothing now. Refuses
    /// when nothing will come any more.
    pub fn receive(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.ready {
            return Ok(None);
        }
        let received = match &mut self.plug {
            Plug::Datagram(socket) => socket.recv(room),
            Plug::Stream { socket, unsent } => speak(socket, unsent).and_then(|()| match socket.read(room) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            }),
        };
        match received {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = false;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }
}

/// Writes what is not written yet. `WouldBlock` while there is no connection or no room.
fn speak(socket: &mut TcpStream, unsent: &mut Box<[u8]>) -> io::Result<()> {
    if unsent.is_empty() {
        return Ok(());
    }
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let count = match socket.write(unsent) {
        // Linux says so of a connection that is still being made, when it was begun without waiting.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Err(io::ErrorKind::WouldBlock.into()),
        written => written?,
    };
    *unsent = unsent[count..].into();
    if unsent.is_empty() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// What comes next, or how it failed.
    fn next(poll: &mut Poll, exchange: &mut Exchange) -> io::Result<Vec<u8>> {
        let mut room = [0; DATAGRAM];
        loop {
            if let Some(count) = exchange.receive(&mut room)? {
                return Ok(room[..count].to_vec());
            }
            let mut events = Events::with_capacity(4);
            poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing came");
            exchange.ready = true;
        }
    }

    fn watched(mut exchange: Exchange) -> (Poll, Exchange) {
        let poll = Poll::new().unwrap();
        exchange.register(poll.registry(), Token(1)).unwrap();
        (poll, exchange)
    }

    #[test]
    fn a_datagram_goes_out_and_only_its_server_is_heard() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(server) = UdpSocket::bind(any) else { continue };
            let exchange = Exchange::datagram(server.local_addr().unwrap(), b"question").unwrap();
            let mut room = [0; 64];
            let (count, from) = server.recv_from(&mut room).unwrap();
            assert_eq!(&room[..count], b"question");
            UdpSocket::bind(any).unwrap().send_to(b"forged", from).unwrap();
            server.send_to(b"", from).unwrap();
            server.send_to(b"answer", from).unwrap();
            let (mut poll, mut exchange) = watched(exchange);
            assert_eq!(next(&mut poll, &mut exchange).unwrap(), b"", "an empty one is one too");
            assert_eq!(next(&mut poll, &mut exchange).unwrap(), b"answer");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_noticed() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failed = match Exchange::datagram(gone, b"question") {
            Ok(exchange) => {
                let (mut poll, mut exchange) = watched(exchange);
                next(&mut poll, &mut exchange).unwrap_err()
            }
            Err(error) => error,
        };
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_stream_writes_its_question_when_it_is_connected_and_tells_its_end() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let exchange = Exchange::stream(server.local_addr().unwrap(), (*b"question").into()).unwrap();
        let (mut poll, mut exchange) = watched(exchange);
        assert_eq!(exchange.receive(&mut [0; 8]).unwrap(), None, "nobody said that it is connected");
        let peer = std::thread::spawn(move || {
            let (mut peer, _) = server.accept().unwrap();
            let mut question = [0; 8];
            peer.read_exact(&mut question).unwrap();
            peer.write_all(b"answer").unwrap();
            question
        });
        let mut came = Vec::new();
        while came.len() < 6 {
            came.extend(next(&mut poll, &mut exchange).unwrap());
        }
        assert_eq!((came.as_slice(), &peer.join().unwrap()), (&b"answer"[..], b"question"));
        assert_eq!(next(&mut poll, &mut exchange).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_stream_that_cannot_be_made_is_noticed() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Ok(exchange) = Exchange::stream(gone, (*b"question").into()) else { return };
        let (mut poll, mut exchange) = watched(exchange);
        assert_eq!(next(&mut poll, &mut exchange).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
