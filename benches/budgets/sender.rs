//! SMTP clients: many in one loop, each sending one message after the other; and ones that stay in the midst of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::client::PATIENCE;

/// Messages that a client sends before it connects anew.
const EACH: usize = 10;

/// What came of many messages.
pub struct Sent {
    /// Messages that were answered 250 after the dot.
    pub count: usize,
    /// From the first connect to the last answer.
    pub took: Duration,
}

impl Sent {
    /// How many a second.
    pub fn per_sec(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

/// A message of about that size as it goes over the wire, dot and all.
pub fn message(bytes: usize) -> Vec<u8> {
    let mut text = b"From: ann@bench.test\r\nTo: bob@bench.test\r\nSubject: one of many\r\n\r\n".to_vec();
    while text.len() < bytes {
        text.extend_from_slice(b"the quick brown fox jumps over the lazy dog, and again it jumps.\r\n");
    }
    text.extend_from_slice(b".\r\n");
    text
}

/// One client on its way.
struct Going {
    socket: mio::net::TcpStream,
    /// Final reply lines that are still to come before it says more.
    owed: usize,
    /// What it said last: nothing, EHLO, an envelope, a text.
    said: usize,
    sent: usize,
    heard: Vec<u8>,
}

/// So many clients for so long, each connection with [`EACH`] messages, one recipient each: `recipients` in turn. One thread, and
/// MAIL, RCPT and DATA in one go, the least a client could do.
pub fn flat_out(address: SocketAddr, clients: usize, recipients: &[String], text: &[u8], time: Duration) -> Sent {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(256);
    let begun = Instant::now();
    let start = |poll: &Poll, slot: usize| {
        let mut socket = mio::net::TcpStream::connect(address).expect("the server listens");
        poll.registry().register(&mut socket, Token(slot), Interest::READABLE).expect("a socket");
        Going { socket, owed: 1, said: 0, sent: 0, heard: Vec::new() }
    };
    let mut going: Vec<Option<Going>> = (0..clients).map(|slot| Some(start(&poll, slot))).collect();
    let (mut open, mut count, mut next) = (clients, 0, 0);
    let mut buffer = [0; 1024];
    while open > 0 {
        poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "the server is silent");
        for event in &events {
            let slot = event.token().0;
            let Some(one) = &mut going[slot] else { continue };
            let some = match one.socket.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                read => read.expect("the server answers"),
            };
            assert!(some > 0, "the server closed after {:?}", String::from_utf8_lossy(&one.heard));
            one.heard.extend_from_slice(&buffer[..some]);
            while let Some(end) = memchr::memchr(b'\n', &one.heard) {
                let line: Vec<u8> = one.heard.drain(..=end).collect();
                assert!(matches!(line[0], b'2' | b'3'), "{:?}", String::from_utf8_lossy(&line));
                one.owed -= usize::from(line[3] == b' ');
            }
            if one.owed > 0 {
                continue;
            }
            let envelope = |next: &mut usize| {
                *next += 1;
                let recipient = &recipients[*next % recipients.len()];
                format!("MAIL FROM:<ann@bench.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n").into_bytes()
            };
            (one.said, one.owed) = match one.said {
                0 => (1, 1),
                1 => (2, 3),
                2 => (3, 1),
                _ => {
                    count += 1;
                    one.sent += 1;
                    if one.sent < EACH && begun.elapsed() < time {
                        (2, 3)
                    } else {
                        going[slot] = None;
                        match begun.elapsed() < time {
                            true => going[slot] = Some(start(&poll, slot)),
                            false => open -= 1,
                        }
                        continue;
                    }
                }
            };
            let words = match one.said {
                1 => b"EHLO bench.test\r\n".to_vec(),
                2 => envelope(&mut next),
                _ => text.to_vec(),
            };
            let sent = one.socket.write(&words).expect("the server listens");
            assert_eq!(sent, words.len(), "a message fits");
        }
    }
    Sent { count, took: begun.elapsed() }
}

/// A client that blocks.
pub struct Sender {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Sender {
    /// One that was greeted and has said EHLO.
    pub fn connect(address: SocketAddr) -> Sender {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_nodelay(true)).expect("a socket");
        let lines = BufReader::with_capacity(512, socket.try_clone().expect("a descriptor"));
        let mut sender = Sender { socket, lines };
        sender.hear();
        sender.ask("EHLO bench.test");
        sender
    }

    fn hear(&mut self) {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("the server answers");
            assert!(line.starts_with(['2', '3']), "{line:?}");
            if line.as_bytes()[3] == b' ' {
                return;
            }
        }
    }

    /// Says it, and hears a good answer.
    pub fn ask(&mut self, words: &str) {
        self.say(format!("{words}\r\n").as_bytes());
        self.hear();
    }

    /// Says it.
    pub fn say(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server listens");
    }

    /// An envelope, up to the go-ahead for its text.
    pub fn begin(&mut self, recipients: &[String]) {
        self.ask("MAIL FROM:<ann@bench.test>");
        for recipient in recipients {
            self.ask(&format!("RCPT TO:<{recipient}>"));
        }
        self.ask("DATA");
    }

    /// The text, with its dot, to the answer.
    pub fn end(&mut self, text: &[u8]) {
        self.say(text);
        self.hear();
    }
}
