//! The driver from the calling side: our POP3 client against our POP3 server, and every way in which a connection fails.

use std::net::{SocketAddr, TcpListener};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use super::tls::{server, server_in};
use super::*;
use crate::net::tls::{Trust, client as believing};
use crate::net::watch;
use crate::protocol::laws::{self, OPEN};
use crate::protocol::pop3::client::{self, Client, Command};
use crate::protocol::pop3::{self, Pop3};
use crate::text::secret::Secret;

/// A host of a client that gives all of these commands at once, and then has nothing to say.
#[derive(Default)]
struct Caller {
    given: usize,
    commands: Vec<Command>,
    secure: Option<Secure>,
    heard: Vec<String>,
    text: Vec<u8>,
}

impl Host<Client> for Caller {
    type Body = Never;

    fn perform(&mut self, _now: Instant, ask: client::Ask) -> Done<client::Answer, Never> {
        match ask {
            client::Ask::StartTls => {
                Done::StartTls(self.secure.take().expect("TLS was wanted"), client::Answer::TlsStarted)
            }
            client::Ask::Heard(command, reply) => {
                self.heard.push(format!("{command:?}: {reply:?}"));
                self.given += self.commands.len();
                if self.heard.len() > self.given && command != Some(Command::Quit) {
                    return Done::Later;
                }
                Done::Now(client::Answer::Say(std::mem::take(&mut self.commands)))
            }
            client::Ask::Broken(trouble) => panic!("{}", trouble.text()),
        }
    }

    fn data(&mut self, _now: Instant, bytes: &[u8]) -> Flow {
        self.text.extend_from_slice(bytes);
        Flow::More
    }

    fn fetch(&mut self, _now: Instant, body: &mut Never) {
        match *body {}
    }
}

/// The laws' small world.
struct World(Arc<ServerConfig>);

struct Static(&'static [u8]);

impl Body for Static {
    fn pull(&mut self, _scratch: &mut [u8], out: &mut Output) -> Pull {
        out.push(self.0);
        Pull::Last
    }
}

impl Host<Pop3> for World {
    type Body = Static;

    fn perform(&mut self, _now: Instant, ask: pop3::Ask) -> Done<pop3::Answer, Static> {
        match ask {
            pop3::Ask::StartTls => Done::StartTls(self.0.clone().into(), pop3::Answer::TlsStarted),
            ask => match laws::pop3_host(ask) {
                laws::Reply::Answer(answer) => Done::Now(answer),
                laws::Reply::Body(begin, body, end) => Done::Send(begin, Box::new(Static(body)), end),
            },
        }
    }

    fn fetch(&mut self, _now: Instant, _body: &mut Static) {
        unreachable!("it is never cold")
    }
}

fn machine(now: Instant) -> Client {
    Client::new(now, Arc::new(laws::client_rules()))
}

fn session() -> Vec<Command> {
    let user = Command::User(b"ann"[..].into());
    vec![user, Command::Pass(Secret::from(&b"secret"[..])), Command::Stat, Command::Retr(1), Command::Quit]
}

/// A client and a server, each with a stream of its own, and a wire between them.
struct Both {
    near: Fake,
    far: Fake,
    client: Stream<Fake, Client, Never>,
    server: Stream<Fake, Pop3, Static>,
    caller: Caller,
    world: World,
    scratch: Scratch,
    now: Instant,
}

impl Both {
    /// `at_once`: in TLS from the first byte.
    fn new(config: Arc<ServerConfig>, at_once: Option<Secure>, caller: Caller) -> Both {
        let (near, far, now) = (Fake::default(), Fake::default(), Instant::now());
        let here = at_once.is_some().then(|| config.clone().into());
        Both {
            client: Stream::connect(now, near.clone(), machine(now), at_once).unwrap(),
            server: Stream::open(now, far.clone(), laws::pop3(OPEN), here).unwrap(),
            near,
            far,
            caller,
            world: World(config),
            scratch: Scratch::default(),
            now,
        }
    }

    /// Carries bytes in pieces until both are over or nothing moves; gives both last turns.
    fn carry(&mut self, piece: usize) -> (Turn, Turn) {
        let mut turns = (Turn::Idle, Turn::Idle);
        let mut idle = 0;
        while idle < 5 {
            idle += 1;
            for fake in [&self.near, &self.far] {
                fake.0.borrow_mut().window = piece;
            }
            let ready = Readiness { read: true, write: true, ..Readiness::default() };
            if turns.0 != Turn::Closed {
                self.client.mark(ready);
                turns.0 = self.client.turn(self.now, &mut self.scratch, &mut self.caller);
            }
            if turns.1 != Turn::Closed {
                self.server.mark(ready);
                turns.1 = self.server.turn(self.now, &mut self.scratch, &mut self.world);
            }
            for (from, to, over) in
                [(&self.near, &self.far, turns.0 == Turn::Closed), (&self.far, &self.near, turns.1 == Turn::Closed)]
            {
                let (mut from, mut to) = (from.0.borrow_mut(), to.0.borrow_mut());
                if !from.got.is_empty() {
                    idle = 0;
                }
                to.sends.extend(from.got.drain(..));
                to.ended |= from.shut || over;
            }
        }
        turns
    }
}

#[test]
fn client_and_server_meet_in_clear_in_tls_and_by_stls_whatever_the_pieces() {
    let config = server();
    let secure = || Secure::to(believing(Trust::Anybody).unwrap(), "localhost").unwrap();
    let mut expected = None;
    for piece in [1, 7, 1000, 100_000] {
        for (at_once, by_stls) in [(false, false), (true, false), (false, true)] {
            let mut caller = Caller { commands: session(), ..Caller::default() };
            if by_stls {
                caller.commands.insert(0, Command::Stls);
                caller.secure = Some(secure());
            }
            let mut both = Both::new(config.clone(), at_once.then(secure), caller);
            assert_eq!(both.carry(piece), (Turn::Closed, Turn::Closed), "pieces of {piece}, STLS {by_stls}");
            assert!(both.client.fault().is_none(), "{:?}", both.client.fault());
            let mut heard = both.caller.heard;
            if by_stls {
                assert_eq!(heard.remove(1), "Some(Stls): Done");
            }
            assert_eq!(both.caller.text, b"h: 1\n\n.\n");
            assert_eq!(heard.len(), 6);
            assert_eq!(&heard, expected.get_or_insert_with(|| heard.clone()), "pieces of {piece}, STLS {by_stls}");
        }
    }
}

#[test]
fn an_idle_client_in_tls_owns_no_buffer() {
    let secure = Secure::to(believing(Trust::Anybody).unwrap(), "localhost").unwrap();
    let mut commands = session();
    commands.pop();
    let mut both = Both::new(server(), Some(secure), Caller { commands, ..Caller::default() });
    assert_eq!(both.carry(100_000), (Turn::Idle, Turn::Idle));
    assert_eq!(both.caller.heard.len(), 5);
    assert!(both.client.is_tls() && both.client.is_owed());
    assert_eq!(both.client.deadline(), None, "the host takes its time");
    assert_eq!((both.client.buffered(), both.client.partial_bytes()), (0, 0));
}

#[test]
fn a_certificate_is_judged_by_who_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let config = server_in(dir.path());
    let known = || Trust::File(dir.path().join("cert.pem"));
    for (trust, name, good) in [
        (Trust::Anybody, "localhost", true),
        (Trust::Anybody, "127.0.0.1", true),
        (known(), "localhost", true),
        (known(), "elsewhere.example", false),
        (Trust::Roots, "localhost", false),
    ] {
        let secure = Secure::to(believing(trust.clone()).unwrap(), name).unwrap();
        let caller = Caller { commands: session(), ..Caller::default() };
        let mut both = Both::new(config.clone(), Some(secure), caller);
        assert_eq!(both.carry(100_000), (Turn::Closed, Turn::Closed));
        assert_eq!(
            both.client.fault().map(io::Error::kind),
            (!good).then_some(io::ErrorKind::InvalidData),
            "{trust:?}"
        );
        assert_eq!(both.caller.heard.len(), if good { 6 } else { 0 });
        if !good {
            let why = both.client.fault().unwrap().to_string();
            assert!(why.contains("certificate"), "{why}");
            // The server was told why: an alert.
            assert_eq!(both.server.fault().map(io::Error::kind), Some(io::ErrorKind::InvalidData));
        }
    }
    assert!(Secure::to(believing(Trust::Anybody).unwrap(), "not a name").unwrap_err().contains("give a domain"));
    let missing = believing(Trust::File(dir.path().join("none.pem"))).unwrap_err();
    assert!(missing.contains("none.pem") && missing.contains("cannot be read"), "{missing}");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert!(believing(Trust::File(empty)).unwrap_err().contains("holds no certificate"));
}

/// A client over a wire that nobody is at the other end of.
fn alone(connected: bool, secure: Option<Secure>) -> (Fake, Stream<Fake, Client, Never>, Instant) {
    let (near, now) = (Fake::default(), Instant::now());
    near.0.borrow_mut().far_away = !connected;
    near.0.borrow_mut().window = usize::MAX;
    let stream = Stream::connect(now, near.clone(), machine(now), secure).unwrap();
    (near, stream, now)
}

const READ: Readiness = Readiness { read: true, write: false, ends: false, dead: false };
const WRITE: Readiness = Readiness { read: false, write: true, ends: false, dead: false };

#[test]
fn nothing_is_tried_before_the_connection_stands_and_the_machines_patience_runs() {
    let secure = || Secure::to(believing(Trust::Anybody).unwrap(), "localhost").unwrap();
    for tls in [None, Some(secure())] {
        let is_tls = tls.is_some();
        let (near, mut stream, now) = alone(false, tls);
        let (mut scratch, mut caller) = (Scratch::default(), Caller::default());
        // Not even where the kernel hints that it might: it is asked.
        for ready in [Readiness::default(), READ, WRITE] {
            stream.mark(ready);
            assert_eq!(stream.turn(now, &mut scratch, &mut caller), Turn::Idle);
            assert_eq!((near.0.borrow().reads, near.0.borrow().writes), (0, 0));
            assert_eq!(stream.deadline(), Some(now + laws::client_rules().greeting));
            assert_eq!(stream.activity(), "connecting");
        }
        near.0.borrow_mut().far_away = false;
        stream.mark(WRITE);
        let later = now + Duration::from_secs(1);
        assert_eq!(stream.turn(later, &mut scratch, &mut caller), Turn::Idle);
        let patience = if is_tls { later + HANDSHAKE } else { now + laws::client_rules().greeting };
        assert_eq!(stream.deadline(), Some(patience));
        assert_eq!(near.0.borrow().got.first(), is_tls.then_some(&22), "a client begins with its hello");

        stream.expire(patience);
        while stream.turn(patience, &mut scratch, &mut caller) != Turn::Closed {
            assert_eq!(stream.deadline(), Some(patience + DRAIN.0));
            stream.expire(patience + DRAIN.0);
        }
        assert_eq!(stream.fault().unwrap().kind(), io::ErrorKind::TimedOut);
    }
}

#[test]
fn who_never_arrives_is_too_slow_and_who_is_sent_away_before_says_nothing() {
    let (mut scratch, mut caller) = (Scratch::default(), Caller::default());
    let (near, mut stream, _) = alone(false, None);
    let deadline = stream.deadline().unwrap();
    stream.expire(deadline);
    assert_eq!(stream.turn(deadline, &mut scratch, &mut caller), Turn::Closed);
    assert_eq!(stream.fault().unwrap().kind(), io::ErrorKind::TimedOut);
    assert_eq!(near.0.borrow().writes, 0);

    for aborts in [true, false] {
        let (near, mut stream, now) = alone(false, None);
        if aborts {
            stream.abort()
        } else {
            stream.end(End::Shutdown)
        }
        assert_eq!(stream.turn(now, &mut scratch, &mut caller), Turn::Closed);
        assert!(stream.fault().is_none(), "it was our wish");
        assert_eq!(near.0.borrow().writes, 0);
    }
}

#[test]
fn a_server_that_hangs_up_in_the_midst_is_told_from_one_that_was_left() {
    for said in ["", "+OK\r\n", "+OK\r\n+OK 2 3", "+OK\r\n+OK 2 320\r\n+OK 3 octets\r\na\r\n"] {
        let (near, mut stream, now) = alone(true, None);
        let commands = vec![Command::Stat, Command::Retr(1)];
        let (mut scratch, mut caller) = (Scratch::default(), Caller { commands, ..Caller::default() });
        near.0.borrow_mut().sends.extend(said.as_bytes());
        near.0.borrow_mut().ended = true;
        stream.mark(Readiness { write: true, ends: true, ..Readiness::default() });
        assert_eq!(stream.turn(now, &mut scratch, &mut caller), Turn::Closed, "{said:?}");
        assert_eq!(stream.fault().unwrap().kind(), io::ErrorKind::UnexpectedEof, "{said:?}");
        assert!(stream.machine().owed() > 0, "{said:?}");
    }
    let (near, mut stream, now) = alone(true, None);
    let (mut scratch, mut caller) = (Scratch::default(), Caller { commands: vec![Command::Quit], ..Caller::default() });
    near.0.borrow_mut().sends.extend(b"+OK\r\n+OK bye\r\n");
    near.0.borrow_mut().ended = true;
    stream.mark(Readiness { write: true, ends: true, ..Readiness::default() });
    assert_eq!(stream.turn(now, &mut scratch, &mut caller), Turn::Closed);
    assert!(stream.fault().is_none());
}

/// Runs a client against a real address until it is over; gives why it was.
fn call(address: SocketAddr, mut meanwhile: impl FnMut(usize)) -> Option<io::Error> {
    let now = Instant::now();
    // The loopback may refuse at once.
    let sock = match TcpStream::connect(address) {
        Ok(sock) => sock,
        Err(error) => return Some(error),
    };
    let mut stream: Stream<_, _, Never> = Stream::connect(now, sock, machine(now), None).unwrap();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    watch(poll.registry(), stream.sock_mut(), Token(0)).unwrap();
    let (mut scratch, mut caller) = (Scratch::default(), Caller::default());
    caller.commands = vec![Command::Stat];
    loop {
        match stream.turn(now, &mut scratch, &mut caller) {
            Turn::Closed => break,
            Turn::Again => {}
            Turn::Idle => {
                meanwhile(caller.heard.len());
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "nothing happens");
                for event in &events {
                    stream.mark(Readiness {
                        read: event.is_readable(),
                        write: event.is_writable(),
                        ends: event.is_read_closed(),
                        dead: event.is_error() || event.is_read_closed() && event.is_write_closed(),
                    });
                }
            }
        }
    }
    stream.fault().map(|error| error.kind().into())
}

#[test]
fn refused_reset_and_hung_up_are_told_apart_over_a_real_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for (resets, kind) in [(true, io::ErrorKind::ConnectionReset), (false, io::ErrorKind::UnexpectedEof)] {
        let mut peer = None;
        let fault = call(address, |heard| {
            if peer.is_none() && heard == 0 {
                let (mut sock, _) = listener.accept().unwrap();
                sock.write_all(b"+OK\r\n").unwrap();
                peer = Some(sock);
            } else if heard == 1
                && let Some(mut sock) = peer.take()
            {
                // What was sent is read, so that a close is no reset by itself.
                assert_eq!(sock.read(&mut [0; 100]).unwrap(), 6);
                if resets {
                    socket2::SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        });
        assert_eq!(fault.unwrap().kind(), kind);
    }
    drop(listener);
    assert_eq!(call(address, |_| {}).unwrap().kind(), io::ErrorKind::ConnectionRefused);
}
