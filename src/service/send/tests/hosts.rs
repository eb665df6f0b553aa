//! Hosts that do what a test says, behind sockets that are none.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::rc::Rc;

use crate::net::stream::Socket;

/// When a host does something else than what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Greeting,
    Ehlo,
    Mail,
    /// The recipient of this place in each envelope.
    Rcpt(usize),
    Data,
    Dot,
    Quit,
}

/// What it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Stalls,
    Closes,
    Resets,
    Says(&'static str),
    SaysAndCloses(&'static str),
}

/// A message that it took.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    pub to: Vec<String>,
    pub text: String,
}

#[derive(Default)]
struct Seen {
    mails: Vec<Mail>,
    lines: Vec<String>,
    greeted: usize,
}

/// See the page. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    deeds: Vec<(When, Does)>,
    pub pipelining: bool,
    /// Recipients that it takes of one message.
    pub most: usize,
    /// More lines of its answer to EHLO.
    pub offers: &'static str,
    /// Octets of texts that it still takes.
    pub room: Rc<Cell<usize>>,
    seen: Rc<RefCell<Seen>>,
}

impl Host {
    pub fn new(deeds: &[(When, Does)]) -> Host {
        let seen = Rc::default();
        Host {
            deeds: deeds.to_vec(),
            pipelining: true,
            most: usize::MAX,
            offers: "",
            room: Rc::new(Cell::new(usize::MAX)),
            seen,
        }
    }

    pub fn connected(&self) -> Pipe {
        let mut pipe = Pipe::refused();
        pipe.host = Some(self.clone());
        self.seen.borrow_mut().greeted += 1;
        pipe.does(When::Greeting, "220 host.test\r\n");
        pipe
    }

    /// What it took.
    pub fn mails(&self) -> Vec<Mail> {
        self.seen.borrow().mails.clone()
    }

    /// How many connections it had.
    pub fn greeted(&self) -> usize {
        self.seen.borrow().greeted
    }

    /// Whether it was told something that begins so.
    pub fn heard(&self, word: &str) -> bool {
        self.seen.borrow().lines.iter().any(|said| said.starts_with(word))
    }

    /// How often it was told this.
    pub fn said(&self, line: &str) -> usize {
        self.seen.borrow().lines.iter().filter(|said| *said == line).count()
    }
}

/// The other end of a connection to it.
pub struct Pipe {
    host: Option<Host>,
    /// From it.
    answers: Vec<u8>,
    /// To it, not understood yet.
    asked: Vec<u8>,
    stalled: bool,
    closed: bool,
    reset: bool,
    /// The recipients of the envelope; RCPTs that it heard.
    to: Vec<String>,
    heard: usize,
    /// MAIL was taken.
    begun: bool,
    text: Option<Vec<u8>>,
    moved: u64,
}

impl Pipe {
    /// One to nobody.
    pub fn refused() -> Pipe {
        Pipe {
            host: None,
            answers: Vec::new(),
            asked: Vec::new(),
            stalled: false,
            closed: false,
            reset: false,
            to: Vec::new(),
            heard: 0,
            begun: false,
            text: None,
            moved: 0,
        }
    }

    /// Octets that went through it.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    fn does(&mut self, step: When, usual: &str) -> bool {
        let deed = self.host.as_ref().and_then(|host| host.deeds.iter().find(|(at, _)| *at == step).copied());
        match deed {
            None => self.answers.extend_from_slice(usual.as_bytes()),
            Some((_, Does::Says(other))) => self.answers.extend_from_slice(other.as_bytes()),
            Some((_, Does::SaysAndCloses(other))) => {
                self.answers.extend_from_slice(other.as_bytes());
                self.closed = true;
            }
            Some((_, Does::Stalls)) => self.stalled = true,
            Some((_, Does::Closes)) => self.closed = true,
            Some((_, Does::Resets)) => self.reset = true,
        }
        match deed {
            None => true,
            Some((_, Does::Says(other) | Does::SaysAndCloses(other))) => other.starts_with(&usual[..1]),
            Some(_) => false,
        }
    }

    fn hear(&mut self) {
        while !self.stalled && !self.closed && !self.reset {
            let Some(end) = self.asked.iter().position(|byte| *byte == b'\n') else { return };
            let line: Vec<u8> = self.asked.drain(..=end).collect();
            if let Some(text) = &mut self.text {
                text.extend_from_slice(&line);
                if line == b".\r\n" {
                    let text = String::from_utf8(self.text.take().unwrap()).unwrap();
                    let to = std::mem::take(&mut self.to);
                    if !to.is_empty() && self.does(When::Dot, "250 2.0.0 taken\r\n") {
                        self.host.as_ref().unwrap().seen.borrow_mut().mails.push(Mail { to, text });
                    } else if to.is_empty() && text == ".\r\n" {
                        self.answers.extend_from_slice(b"554 5.5.1 nobody\r\n");
                    }
                }
                continue;
            }
            let line = String::from_utf8(line).unwrap();
            let line = line.trim_end().to_owned();
            let host = self.host.clone().unwrap();
            host.seen.borrow_mut().lines.push(line.clone());
            if line.starts_with("EHLO") {
                let more = if host.pipelining { "250-PIPELINING\r\n" } else { "" };
                self.does(When::Ehlo, &format!("250-host.test\r\n{more}{}250 8BITMIME\r\n", host.offers));
            } else if line.starts_with("HELO") || line == "RSET" {
                self.to.clear();
                self.answers.extend_from_slice(b"250 ok\r\n");
            } else if line.starts_with("MAIL") {
                self.heard = 0;
                self.to.clear();
                self.begun = self.does(When::Mail, "250 2.1.0 ok\r\n");
            } else if line.starts_with("RCPT") && !self.begun {
                self.answers.extend_from_slice(b"503 5.5.1 MAIL first\r\n");
            } else if let Some(to) = line.strip_prefix("RCPT TO:<") {
                let step = When::Rcpt(self.heard);
                self.heard += 1;
                if self.to.len() >= host.most {
                    self.answers.extend_from_slice(b"452 4.5.3 too many recipients\r\n");
                } else if self.does(step, "250 2.1.5 ok\r\n") {
                    self.to.push(to.split('>').next().unwrap().to_owned());
                }
            } else if line == "DATA" {
                if self.to.is_empty() {
                    self.answers.extend_from_slice(b"503 5.5.1 nobody\r\n");
                } else if self.does(When::Data, "354 go\r\n") {
                    self.text = Some(Vec::new());
                }
            } else if line == "QUIT" {
                self.closed = self.does(When::Quit, "221 bye\r\n");
            } else {
                self.answers.extend_from_slice(format!("500 5.5.2 what is {line}\r\n").as_bytes());
            }
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.answers.is_empty() {
            return if self.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        // In small pieces, as a network may.
        let count = bytes.len().min(self.answers.len()).min(7);
        bytes[..count].copy_from_slice(&self.answers[..count]);
        self.answers.drain(..count);
        self.moved += count as u64;
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut count = bytes.len().min(11);
        if let (Some(_), Some(host)) = (&self.text, &self.host) {
            count = count.min(host.room.get());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            host.room.set(host.room.get() - count);
        }
        self.asked.extend_from_slice(&bytes[..count]);
        self.moved += count as u64;
        self.hear();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Pipe {
    fn shut_write(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_connected(&self) -> io::Result<bool> {
        match self.host {
            Some(_) => Ok(true),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}
