//! POP3 clients: [`Client`] waits for each answer, plain or TLS; [`flat_out`] runs many polls in one loop; [`steady`] makes so
//! many a second.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dmail::net::tls;
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::{Samples, bed};

/// A server that is silent for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Polls a second, where they come at a steady pace.
const STEADY: u32 = 200;

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

/// A client that waits for each answer.
pub struct Client(BufReader<Wire>);

impl Client {
    /// Connects and hears the greeting.
    pub fn connect(address: SocketAddr) -> Client {
        Client::greeted(Wire::Plain(socket(address)))
    }

    /// The same, in TLS from the first byte. Any certificate will do.
    pub fn connect_tls(address: SocketAddr) -> Client {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(config(), name).expect("a client");
        Client::greeted(Wire::Tls(Box::new(StreamOwned::new(tls, socket(address)))))
    }

    fn greeted(wire: Wire) -> Client {
        let mut client = Client(BufReader::with_capacity(256 * 1024, wire));
        client.answer("the greeting");
        client
    }

    /// Says a line and hears a line, which must be `+OK`.
    pub fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the server listens");
        self.answer(line)
    }

    /// Says all these lines at once, and hears an answer to each.
    pub fn all(&mut self, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.collect();
        self.0.get_mut().write_all(lines.concat().as_bytes()).expect("the server listens");
        lines.iter().for_each(|line| drop(self.answer(line)));
    }

    fn answer(&mut self, asked: &str) -> String {
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("the server answers");
        assert!(answer.starts_with("+OK"), "{} was answered {answer:?}", asked.trim_end());
        answer
    }

    /// Logs in as the user of that number.
    pub fn login(&mut self, user: usize) {
        self.ask(&format!("USER {}", bed::login(user)));
        self.ask("PASS test");
    }

    /// Retrieves a message and looks at nothing but its end; gives its octets on the wire.
    pub fn retrieve(&mut self, number: u32) -> u64 {
        self.ask(&format!("RETR {number}"));
        let (mut octets, mut end) = (0, [0; 5]);
        loop {
            let bytes = self.0.fill_buf().expect("the server sends");
            assert!(!bytes.is_empty(), "the server closed in the middle of a message");
            let tail = &bytes[bytes.len().saturating_sub(5)..];
            end.rotate_left(tail.len());
            end[5 - tail.len()..].copy_from_slice(tail);
            let count = bytes.len();
            self.0.consume(count);
            octets += count as u64;
            if end == *b"\r\n.\r\n" {
                return octets;
            }
        }
    }
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_nodelay(true)).expect("a socket");
    socket
}

fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    // Who serves is known, what is measured is the cost.
    CONFIG.get_or_init(|| tls::client(tls::Trust::Anybody).expect("a client")).clone()
}

/// How long [`flat_out`] goes on.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each user once.
    Each,
    /// New polls begin until then.
    For(Duration),
}

/// What came of many polls.
pub struct Polls {
    /// How long each took, in seconds, from connect to the answer to QUIT.
    times: Samples,
    /// From the first to the last of them.
    took: Duration,
}

impl Polls {
    /// How many.
    pub fn count(&self) -> usize {
        self.times.0.len()
    }

    /// How many a second.
    pub fn per_sec(&self) -> f64 {
        self.count() as f64 / self.took.as_secs_f64()
    }

    /// How long this share of them took at most, in seconds.
    pub fn quantile(&self, share: f64) -> f64 {
        self.times.quantile(share)
    }
}

/// One poll on its way.
struct Going {
    socket: mio::net::TcpStream,
    begun: Instant,
    user: usize,
    said: usize,
}

/// So many clients, each polling one of its own users (from number `first` on) after the other: one thread, the least a
/// client could do.
pub fn flat_out(address: SocketAddr, clients: usize, users: usize, pace: Pace, first: usize) -> Polls {
    let lines: Vec<String> = (0..users).map(|user| format!("USER {}\r\n", bed::login(user))).collect();
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(256);
    let (mut times, begun) = (Vec::new(), Instant::now());
    let start = |poll: &Poll, slot: usize, user: usize| {
        let begun = Instant::now();
        let mut socket = mio::net::TcpStream::connect(address).expect("the server listens");
        poll.registry().register(&mut socket, Token(slot), Interest::READABLE).expect("a socket");
        Going { socket, begun, user, said: 0 }
    };
    // Nobody shares a user: a maildrop is for one session at a time.
    let clients = clients.min(users - first);
    let mut going: Vec<Option<Going>> = (0..clients).map(|slot| Some(start(&poll, slot, first + slot))).collect();
    let mut open = clients;
    let mut buffer = [0; 512];
    while open > 0 {
        poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "the server is silent");
        for event in &events {
            let slot = event.token().0;
            let Some(one) = &mut going[slot] else { continue };
            let count = match one.socket.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                read => read.expect("the server answers"),
            };
            let answer = &buffer[..count];
            assert!(answer.starts_with(b"+OK") && answer.ends_with(b"\n"), "{:?}", String::from_utf8_lossy(answer));
            let next: &[u8] = match one.said {
                0 => lines[one.user].as_bytes(),
                1 => b"PASS test\r\n",
                2 => b"STAT\r\n",
                3 => b"QUIT\r\n",
                _ => {
                    times.push(one.begun.elapsed().as_secs_f64());
                    let next = one.user + clients;
                    let user = match pace {
                        Pace::Each => Some(next).filter(|&user| user < users),
                        Pace::For(time) if begun.elapsed() >= time => None,
                        Pace::For(_) => Some(if next < users { next } else { first + slot }),
                    };
                    going[slot] = None;
                    match user {
                        Some(user) => going[slot] = Some(start(&poll, slot, user)),
                        None => open -= 1,
                    }
                    continue;
                }
            };
            one.said += 1;
            let sent = one.socket.write(next).expect("the server listens");
            assert_eq!(sent, next.len(), "a line fits");
        }
    }
    Polls { times: Samples(times), took: begun.elapsed() }
}

/// Polls at a steady pace, one user after the other: how long each took from the moment it was due, in seconds.
pub fn steady(address: SocketAddr, users: usize, time: Duration) -> Samples {
    let begun = Instant::now();
    let mut times = Samples::new();
    for number in 0.. {
        let due = begun + Duration::from_secs(1) * number / STEADY;
        if due > begun + time {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut client = Client::connect(address);
        client.login(number as usize % users);
        client.ask("STAT");
        client.ask("QUIT");
        times.push(due.elapsed().as_secs_f64());
    }
    times
}

/// Does `work` while `big` retrieves message 1 over and over; gives what came of it, and the octets a second of that.
pub fn beside<T>(mut big: Client, work: impl FnOnce() -> T) -> (T, f64) {
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let retrieving = std::thread::spawn(move || {
        let (begun, mut octets) = (Instant::now(), 0);
        while !ends.load(Ordering::Relaxed) {
            octets += big.retrieve(1);
        }
        let rate = octets as f64 / begun.elapsed().as_secs_f64();
        big.ask("QUIT");
        rate
    });
    let result = work();
    over.store(true, Ordering::Relaxed);
    (result, retrieving.join().expect("it retrieves"))
}
