//! Listening sockets.
//!
//! Made with socket2: mio's own bind asks for a backlog of 128, and a full backlog costs each client a second. At most
//! [`BATCH`] connections are accepted a turn. When accepting fails for want of descriptors, or the cap of connections is
//! reached, a listener stops until somebody leaves or [`PAUSE`] is over: the queue of the kernel waits, nothing spins.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::sys::network;

/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 4096;
/// Connections accepted in one turn.
pub const BATCH: usize = 64;
/// How long a listener rests after an accept that failed.
pub const PAUSE: Duration = Duration::from_millis(100);
/// A peer that vanished is noticed after 60 s + 3 x 10 s.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);
/// What the kernel may hold unsent for a slow peer, so that a long reply does not pile up there.
const UNSENT: u32 = 128 * 1024;

/// Binds and listens. Refuses with what the system said.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    Ok(adopt(bind(address)?))
}

/// A socket that [`bind`] made, here or in another process, as one that the loop can watch.
pub fn adopt(socket: OwnedFd) -> TcpListener {
    TcpListener::from_std(socket.into())
}

/// The same as [`tcp`], before anybody watches it: to be handed over.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 is bound beside it.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Connections inherit these, which spares each of them five calls.
    let (idle, interval, probes) = KEEPALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listens at a path, with nobody else allowed to connect.
pub fn unix(path: &std::path::Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(64)?;
    let listener: std::os::unix::net::UnixListener = socket.into();
    Ok(UnixListener::from_std(listener))
}

/// A listening socket that knows when to rest.
#[derive(Debug)]
pub struct Listener<L> {
    /// The socket itself.
    pub socket: L,
    ready: bool,
    until: Option<Instant>,
}

/// Something that connections come from.
pub trait Accept {
    /// What comes.
    type Stream;
    /// The next one.
    fn accept_one(&self) -> io::Result<Self::Stream>;
}

impl Accept for TcpListener {
    type Stream = (TcpStream, SocketAddr);

    fn accept_one(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    fn accept_one(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

/// What came of accepting.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted<S> {
    /// A connection.
    Stream(S),
    /// None left: an event will tell of the next.
    Empty,
    /// No descriptor for it; resting.
    Short,
}

impl<L: Accept> Listener<L> {
    /// A listener that has not looked yet.
    pub fn new(socket: L) -> Listener<L> {
        Listener { socket, ready: true, until: None }
    }

    /// There may be connections.
    pub fn mark(&mut self) {
        self.ready = true;
    }

    /// Stops until [`resume`](Listener::resume), or until the pause is over. Readiness is remembered.
    pub fn rest(&mut self, now: Instant) {
        self.until = Some(now + PAUSE);
    }

    /// Somebody left: there may be room.
    pub fn resume(&mut self) {
        self.until = None;
    }

    /// When a rest is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.until.filter(|_| self.ready)
    }

    /// Whether it makes sense to call [`accept`](Listener::accept).
    pub fn can_accept(&self) -> bool {
        self.ready && self.until.is_none()
    }

    /// The next connection.
    pub fn accept(&mut self, now: Instant) -> Accepted<L::Stream> {
        loop {
            match self.socket.accept_one() {
                Ok(stream) => return Accepted::Stream(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready = false;
                    return Accepted::Empty;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                // EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays queued and no new edge will come for it.
                Err(_) => {
                    self.rest(now);
                    return Accepted::Short;
                }
            }
        }
    }
}

impl<L: AsRawFd> Listener<L> {
    /// Whether somebody waits to be accepted, asked of the kernel: readiness alone may be that of an empty queue.
    pub fn is_waited_for(&self) -> bool {
        self.ready && network::is_readable(&self.socket)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use socket2::SockRef;

    use super::*;

    /// A queue of connections that says what it is told to.
    struct Queue {
        says: RefCell<Vec<io::ErrorKind>>,
        asked: Rc<Cell<usize>>,
    }

    impl Accept for Queue {
        type Stream = ();

        fn accept_one(&self) -> io::Result<()> {
            self.asked.set(self.asked.get() + 1);
            self.says.borrow_mut().pop().map_or(Ok(()), |kind| Err(kind.into()))
        }
    }

    fn listener(says: &[io::ErrorKind]) -> (Listener<Queue>, Rc<Cell<usize>>) {
        let asked = Rc::new(Cell::new(0));
        let says = RefCell::new(says.iter().rev().copied().collect());
        (Listener::new(Queue { says, asked: asked.clone() }), asked)
    }

    #[test]
    fn a_lack_of_descriptors_does_not_spin() {
        // EMFILE has no kind of its own; it is none of those that are tried again.
        let (mut listener, asked) = listener(&[io::ErrorKind::OutOfMemory]);
        let now = Instant::now();
        assert_eq!(listener.accept(now), Accepted::Short);
        assert!(!listener.can_accept(), "it rests, though the queue is not empty");
        assert_eq!(listener.deadline(), Some(now + PAUSE), "and nobody else would wake it");
        assert_eq!(asked.get(), 1);
        listener.resume();
        assert!(listener.can_accept(), "readiness was remembered: no new event would come");
        assert_eq!(listener.accept(now), Accepted::Stream(()));
    }

    #[test]
    fn a_connection_that_vanished_in_the_queue_is_passed_over() {
        use io::ErrorKind::*;
        let (mut listener, _) = listener(&[ConnectionAborted, Interrupted]);
        assert_eq!(listener.accept(Instant::now()), Accepted::Stream(()));
    }

    #[test]
    fn an_empty_queue_waits_for_an_event() {
        let (mut listener, _) = listener(&[io::ErrorKind::WouldBlock]);
        let now = Instant::now();
        assert_eq!(listener.accept(now), Accepted::Empty);
        assert!(!listener.can_accept());
        listener.rest(now);
        assert_eq!(listener.deadline(), None, "there is nothing to wake up for");
        listener.resume();
        listener.mark();
        assert_eq!(listener.accept(now), Accepted::Stream(()));
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let first = tcp("[::1]:0".parse().unwrap()).unwrap();
        let port = first.local_addr().unwrap().port();
        // Somebody else may have that port on IPv4; then there is nothing to be seen here.
        if let Ok(second) = tcp(SocketAddr::from(([127, 0, 0, 1], port))) {
            assert_eq!(second.local_addr().unwrap().port(), port);
        }
        let taken = tcp(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_inherit_what_the_listener_is_set_to() {
        let listener = tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept_one().unwrap();
        let sock = SockRef::from(&stream);
        assert!(sock.tcp_nodelay().unwrap() && sock.keepalive().unwrap());
        assert_eq!(sock.tcp_keepalive_time().unwrap(), KEEPALIVE.0);
        assert_eq!(sock.tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
