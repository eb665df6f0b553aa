//! Clients that wait for each answer, for what the engine is not made for: sessions that are held open by thousands, single steps
//! that are timed one by one, and messages whose bytes are only counted, so that the client costs next to nothing beside
//! a server that sends two gigabytes a second. One thread each; every read has a limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use memchr::memmem;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use dmail::net::tls::{self, Trust};

use super::site::{PASSWORD, user};

/// A server that is silent for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Commands that are sent before their answers are read.
const DEEP: usize = 50;
/// What a client that reads slowly takes at once.
const SIP: usize = 64 * 1024;

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

/// One connection.
pub struct Client(BufReader<Wire>);

impl Client {
    /// Connects and hears the greeting. `buffer`: octets read at once.
    pub fn connect(address: SocketAddr, tls: bool, buffer: usize) -> Result<Client, String> {
        let socket = TcpStream::connect(address).map_err(|error| format!("connecting: {error}"))?;
        let set = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_nodelay(true));
        set.and_then(|()| socket.set_write_timeout(Some(PATIENCE))).map_err(|error| error.to_string())?;
        let wire = match tls {
            false => Wire::Plain(socket),
            true => {
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = ClientConnection::new(configuration()?, name).map_err(|error| error.to_string())?;
                Wire::Tls(Box::new(StreamOwned::new(tls, socket)))
            }
        };
        let mut client = Client(BufReader::with_capacity(buffer, wire));
        client.answer("the greeting")?;
        Ok(client)
    }

    /// Says a line and hears a good answer to it, whose last line it gives.
    pub fn ask(&mut self, line: &str) -> Result<String, String> {
        self.say(format!("{line}\r\n").as_bytes())?;
        self.answer(line)
    }

    /// Says all these lines, [`DEEP`] at a time, and hears an answer to each.
    pub fn all(&mut self, lines: &[String]) -> Result<(), String> {
        for lines in lines.chunks(DEEP) {
            self.say(lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().as_bytes())?;
            for line in lines {
                self.answer(line)?;
            }
        }
        Ok(())
    }

    /// Writes these octets.
    pub fn say(&mut self, octets: &[u8]) -> Result<(), String> {
        let wire = self.0.get_mut();
        wire.write_all(octets).and_then(|()| wire.flush()).map_err(|error| format!("sending: {error}"))
    }

    /// A reply of POP3 or SMTP, which must be a good one.
    pub fn answer(&mut self, asked: &str) -> Result<String, String> {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).map_err(|error| format!("{asked}: {error}"))?;
            if read == 0 {
                return Err(format!("{asked}: the server closed the connection"));
            }
            match line.as_bytes() {
                [b'+', ..] | [b'2' | b'3', _, _, b' ' | b'\r' | b'\n', ..] => return Ok(line),
                [b'2' | b'3', _, _, b'-', ..] => {}
                _ => return Err(format!("{asked}: {}", line.trim_end())),
            }
        }
    }

    /// Logs in as that account.
    pub fn login(&mut self, number: usize) -> Result<(), String> {
        self.ask(&format!("USER {}", user(number)))?;
        self.ask(&format!("PASS {PASSWORD}")).map(drop)
    }

    /// Messages in the maildrop.
    pub fn stat(&mut self) -> Result<usize, String> {
        let answer = self.ask("STAT")?;
        let count = answer.split(' ').nth(1).and_then(|word| word.trim_end().parse().ok());
        count.ok_or_else(|| format!("STAT: {}", answer.trim_end()))
    }

    /// Retrieves these, [`DEEP`] asked for at a time; gives the octets of their texts.
    pub fn retrieve(&mut self, numbers: &[usize]) -> Result<u64, String> {
        let mut octets = 0;
        for numbers in numbers.chunks(DEEP) {
            self.say(numbers.iter().map(|number| format!("RETR {number}\r\n")).collect::<String>().as_bytes())?;
            for _ in numbers {
                self.answer("RETR")?;
                octets += self.text(None, &mut || false)?;
            }
        }
        Ok(octets)
    }

    /// Retrieves message 1 over and over, at so many octets a second at most, until `over` says so; gives octets a second.
    /// It leaves in the midst of a message.
    pub fn keep_retrieving(mut self, speed: Option<u64>, over: &mut dyn FnMut() -> bool) -> Result<f64, String> {
        let (begun, mut octets) = (Instant::now(), 0);
        while !over() {
            self.ask("RETR 1")?;
            octets += self.text(speed, over)?;
        }
        Ok(octets as f64 / begun.elapsed().as_secs_f64())
    }

    /// A text up to its dot; nothing is looked at but its end.
    fn text(&mut self, speed: Option<u64>, over: &mut dyn FnMut() -> bool) -> Result<u64, String> {
        let (begun, mut octets, mut end) = (Instant::now(), 0_u64, End::default());
        loop {
            let bytes = self.0.fill_buf().map_err(|error| format!("RETR: {error}"))?;
            if bytes.is_empty() {
                return Err("RETR: the server closed in the middle of a message".into());
            }
            let bytes = &bytes[..bytes.len().min(if speed.is_some() { SIP } else { usize::MAX })];
            let (used, found) = end.look(bytes);
            self.0.consume(used);
            octets += used as u64;
            if found {
                return Ok(octets);
            }
            if let Some(speed) = speed {
                if over() {
                    return Ok(octets);
                }
                let due = Duration::from_secs_f64(octets as f64 / speed as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
    }
}

/// Looks for the dot that ends a text, in pieces of any size.
struct End {
    /// The last octets before the next piece, at most four.
    before: Vec<u8>,
}

impl Default for End {
    fn default() -> End {
        // A text begins at the start of a line, and may be its dot alone.
        End { before: b"\r\n".to_vec() }
    }
}

impl End {
    const MARK: &[u8] = b"\r\n.\r\n";

    /// How much of `bytes` belongs to the text, its dot with it, and whether that is all of it.
    fn look(&mut self, bytes: &[u8]) -> (usize, bool) {
        let before = self.before.len();
        self.before.extend_from_slice(&bytes[..bytes.len().min(Self::MARK.len() - 1)]);
        if let Some(at) = memmem::find(&self.before, Self::MARK) {
            return (at + Self::MARK.len() - before, true);
        }
        if let Some(at) = memmem::find(bytes, Self::MARK) {
            return (at + Self::MARK.len(), true);
        }
        if bytes.len() >= Self::MARK.len() {
            self.before = bytes[bytes.len() - (Self::MARK.len() - 1)..].to_vec();
        } else {
            self.before.drain(..self.before.len().saturating_sub(Self::MARK.len() - 1));
        }
        (bytes.len(), false)
    }
}

/// Whether something greets there as a mail server does.
pub fn greeting(socket: &TcpStream) -> Result<(), String> {
    let mut first = [0; 1];
    let heard = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| (&*socket).read(&mut first));
    match heard {
        Ok(1) if matches!(first, [b'+' | b'2']) => Ok(()),
        Ok(_) => Err("no greeting".into()),
        Err(error) => Err(format!("no greeting: {error}")),
    }
}

/// Logs these accounts in and sees their drops, with several threads, until `limit`; all stay connected. `Err` with how many
/// came that far, and why no more did.
pub fn hold(
    address: SocketAddr,
    tls: bool,
    numbers: std::ops::Range<usize>,
    limit: Instant,
) -> Result<Vec<Client>, (usize, String)> {
    /// Enough to keep a server busy that starts a process for each.
    const THREADS: usize = 16;
    /// Octets read at once: thousands of these stay.
    const SMALL: usize = 512;
    let one = |number: usize| {
        if Instant::now() > limit {
            return Err("its time was over".to_owned());
        }
        let mut client = Client::connect(address, tls, SMALL)?;
        client.login(number)?;
        client.stat()?;
        Ok(client)
    };
    let (first, count) = (numbers.start, numbers.len());
    let results: Vec<Result<Vec<Client>, (usize, String)>> = std::thread::scope(|threads| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                threads.spawn(move || {
                    let mut held = Vec::new();
                    for number in (thread..count).step_by(THREADS) {
                        match one(first + number) {
                            Ok(client) => held.push(client),
                            Err(why) => return Err((held.len(), why)),
                        }
                    }
                    Ok(held)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let reached = |result: &Result<Vec<Client>, (usize, String)>| match result {
        Ok(held) => held.len(),
        Err((held, _)) => *held,
    };
    let reached = results.iter().map(reached).sum();
    let mut all = Vec::new();
    for result in results {
        all.extend(result.map_err(|(_, why)| (reached, why))?);
    }
    Ok(all)
}

fn configuration() -> Result<Arc<ClientConfig>, String> {
    static MADE: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    MADE.get_or_init(|| tls::client(Trust::Anybody)).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_found_at_every_cut() {
        let whole = b"one\r\n..two\r\n.\r\n+OK";
        let expected = whole.len() - 3;
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let (mut end, mut at) = (End::default(), 0);
                let mut found = false;
                for piece in [&whole[..first], &whole[first..second], &whole[second..]] {
                    if !found {
                        let (used, is_end) = end.look(piece);
                        (at, found) = (at + used, is_end);
                    }
                }
                assert!(found && at == expected, "cut at {first} and {second}: {at}");
            }
        }
    }

    #[test]
    fn an_empty_text_is_its_dot_and_a_dot_within_a_line_is_none() {
        assert_eq!(End::default().look(b".\r\n+OK"), (3, true));
        assert_eq!(End::default().look(b"a.\r\nb"), (5, false));
        assert_eq!(End::default().look(b""), (0, false));
    }
}
