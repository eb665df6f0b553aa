//! The socket of the server on this machine, the client's side: a message to its recipients, a transaction or as many as its
//! limit of recipients makes necessary. The server knows from the system who we are; nobody logs in.
//!
//! | the server says                                    | and that recipient is                                     |
//! |----------------------------------------------------|-----------------------------------------------------------|
//! | 2xx to the text                                     | done                                                      |
//! | 5xx to sender, recipient or text                    | refused                                                   |
//! | 4xx to a recipient after others were taken           | in the next transaction                                   |
//! | 4xx otherwise, nothing for [`PATIENCE`], or it ends   | left: to be handed over in another way                    |
//!
//! A server that ends between the text and its answer may have taken the message: what is left then may come twice, as it may
//! from any client of SMTP; that is better than not at all.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::spool::Spool;
use crate::mail::dots::DotEncoder;
use crate::mail::outgoing::Handed;

/// How long the server may take for an answer, or to read on. It is on this machine; what it delays on purpose is shorter.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take for the answer to a text: it syncs, and waits for locks.
pub const COMMIT_PATIENCE: Duration = Duration::from_secs(660);
/// How long it may take to let us in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Recipients that are named before their answers are read. They fit into a socket's buffers, both ways.
const BATCH: usize = 50;
/// Octets of a line of the server's.
const LINE_LIMIT: u64 = 2_048;
/// Lines of one reply.
const LINES_LIMIT: usize = 64;
/// Octets that are written at a time.
const BLOCK: usize = 32 * 1024;

/// A message that is ready to go.
pub struct Letter {
    /// What follows `MAIL`, but for SIZE: `FROM:<ann@x.org> BODY=8BITMIME`.
    pub mail: String,
    /// Who is to have it.
    pub recipients: Vec<Recipient>,
    /// What was counted of it, and its header.
    pub handed: Handed,
    /// Its text.
    pub text: Spool,
}

/// Somebody who is to have a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// In angle brackets.
    pub path: String,
    /// What follows `RCPT`: `TO:<bob@y.org> NOTIFY=NEVER`.
    pub rcpt: String,
}

/// What the server says: three digits, and the words of its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The three digits.
    pub code: u16,
    /// The line, digits and all.
    pub line: String,
}

/// What came of a letter.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Who will not have it, and why.
    pub refused: Vec<(Recipient, Said)>,
    /// Who could not be brought to have it now.
    pub left: Vec<Recipient>,
    /// Why somebody is left.
    pub why: String,
    /// Somebody was at the socket, and answered.
    pub heard: bool,
}

/// The server's socket, by its path, or the reason why nobody is there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    // A server that hangs lets nobody in, and this call has no patience of its own.
    let (sender, receiver) = mpsc::sync_channel(1);
    let socket: PathBuf = path.to_owned();
    thread::spawn(move || {
        let _ = sender.send(UnixStream::connect(socket));
    });
    let connected = receiver.recv_timeout(CONNECT_PATIENCE).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    connected.set_read_timeout(Some(PATIENCE))?;
    connected.set_write_timeout(Some(PATIENCE))?;
    Ok(connected)
}

/// Brings `letter` to the server that listens at `path`. `show` hears each line of the conversation, with who said it.
pub fn submit(path: &Path, letter: &mut Letter, show: &mut dyn FnMut(&str, &str)) -> Outcome {
    let mut outcome = Outcome { left: letter.recipients.clone(), ..Outcome::default() };
    let done = connect(path).and_then(|socket| {
        let mut talk = Talk { server: BufReader::new(socket), show };
        talk.hello()?;
        outcome.heard = true;
        while !outcome.left.is_empty() {
            let before = outcome.left.len();
            talk.transaction(letter, &mut outcome)?;
            if outcome.left.len() == before {
                return Ok(());
            }
        }
        talk.say("QUIT")
    });
    if let Err(error) = done
        && !outcome.left.is_empty()
    {
        outcome.why = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "no server is running".to_owned(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the server ended the conversation".to_owned()
            }
            _ => error.to_string(),
        };
    }
    outcome
}

/// How a recipient stands within a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Nothing was said for good.
    Left,
    /// The server will have the text for it.
    Taken,
    /// It has the message, or will not.
    Over,
}

struct Talk<'s> {
    server: BufReader<UnixStream>,
    show: &'s mut dyn FnMut(&str, &str),
}

impl Talk<'_> {
    fn hello(&mut self) -> io::Result<()> {
        for greeting in [false, true] {
            if greeting {
                self.say("EHLO localhost")?;
            }
            let said = self.hear()?;
            if said.code / 100 != 2 {
                return Err(io::Error::other(said.line));
            }
        }
        Ok(())
    }

    /// One transaction: whom it brought the message to, or who was refused it, is not left any more.
    fn transaction(&mut self, letter: &mut Letter, outcome: &mut Outcome) -> io::Result<()> {
        let all = std::mem::take(&mut outcome.left);
        let mut stand = vec![Stand::Left; all.len()];
        let result = self.all_of(letter, &all, &mut stand, outcome);
        // Whatever broke off: nobody is forgotten.
        let each = all.into_iter().zip(stand);
        outcome.left = each.filter(|(_, stand)| *stand != Stand::Over).map(|(recipient, _)| recipient).collect();
        result
    }

    fn all_of(
        &mut self,
        letter: &mut Letter,
        all: &[Recipient],
        stand: &mut [Stand],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let head = letter.handed.header.bytes();
        let lines = head.iter().filter(|&&byte| byte == b'\n').count() as u64 + letter.handed.text_lines;
        let octets = head.len() as u64 + letter.handed.text_bytes + lines;
        self.say(&format!("MAIL {} SIZE={octets}", letter.mail))?;
        let said = self.hear()?;
        if said.code / 100 != 2 {
            outcome.judge(said, all, stand);
            return Ok(());
        }
        for (batch, stand) in all.chunks(BATCH).zip(stand.chunks_mut(BATCH)) {
            let commands: String = batch.iter().map(|recipient| format!("RCPT {}\r\n", recipient.rcpt)).collect();
            for command in commands.lines() {
                (self.show)(">>>", command);
            }
            self.server.get_mut().write_all(commands.as_bytes())?;
            for (recipient, stand) in batch.iter().zip(stand) {
                let said = self.hear()?;
                match said.code / 100 {
                    2 => *stand = Stand::Taken,
                    _ => outcome.judge(said, std::slice::from_ref(recipient), std::slice::from_mut(stand)),
                }
            }
        }
        if !stand.contains(&Stand::Taken) {
            self.say("RSET")?;
            self.hear()?;
            return Ok(());
        }
        self.say("DATA")?;
        let said = self.hear()?;
        if said.code / 100 != 3 {
            return Err(io::Error::other(said.line));
        }
        let said = self.text(&head, &mut letter.text)?;
        for (recipient, stand) in all.iter().zip(stand).filter(|(_, stand)| **stand == Stand::Taken) {
            match said.code / 100 {
                2 => *stand = Stand::Over,
                _ => outcome.judge(said.clone(), std::slice::from_ref(recipient), std::slice::from_mut(stand)),
            }
        }
        Ok(())
    }

    /// The message, up to the answer to it.
    fn text(&mut self, head: &[u8], text: &mut Spool) -> io::Result<Said> {
        let mut encoder = DotEncoder::whole(false);
        let mut block = Vec::with_capacity(BLOCK);
        let socket = self.server.get_mut();
        encoder.push(head, &mut block);
        text.each(&mut |bytes| {
            encoder.push(bytes, &mut block);
            if block.len() >= BLOCK {
                socket.write_all(&block)?;
                block.clear();
            }
            Ok(())
        })?;
        encoder.finish(&mut block);
        socket.write_all(&block)?;
        socket.set_read_timeout(Some(COMMIT_PATIENCE))?;
        let said = self.hear();
        self.server.get_mut().set_read_timeout(Some(PATIENCE))?;
        said
    }

    fn say(&mut self, command: &str) -> io::Result<()> {
        (self.show)(">>>", command);
        self.server.get_mut().write_all(format!("{command}\r\n").as_bytes())
    }

    /// One reply, however many lines it has.
    fn hear(&mut self) -> io::Result<Said> {
        for _ in 0..LINES_LIMIT {
            let mut line = Vec::new();
            self.server.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            (self.show)("<<<", &line);
            let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
            let code = code.and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
            let Some(code) = code else { return Err(strange()) };
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                None | Some(b' ') => return Ok(Said { code, line }),
                Some(_) => return Err(strange()),
            }
        }
        Err(strange())
    }
}

impl Outcome {
    /// What the server says to these, which is no yes.
    fn judge(&mut self, said: Said, recipients: &[Recipient], stand: &mut [Stand]) {
        if said.code / 100 == 5 {
            stand.fill(Stand::Over);
            self.refused.extend(recipients.iter().map(|recipient| (recipient.clone(), said.clone())));
        } else {
            self.why = said.line;
        }
    }
}

fn strange() -> io::Error {
    io::Error::other("whoever answers there is not our server")
}
