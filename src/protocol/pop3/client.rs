//! POP3, the client's side (RFC 1939, 2449, 2595, 5034). No I/O: see [`Machine`].
//!
//! The host says what to say: one [`Command`] after the other, or many at once, which then leave together. It is told of
//! each reply in the order in which it gave the commands ([`Ask::Heard`]), and says more whenever it is.
//!
//! | state     | what is expected                            | leaves by                                     |
//! |-----------|---------------------------------------------|-----------------------------------------------|
//! | Greeting  | the greeting                                | it                                            |
//! | Talking   | a reply to the first command in the queue   | a reply of one line, the first of many, `+ `  |
//! | Receiving | lines of a long reply, up to the dot        | the dot                                       |
//! | Securing  | none: TLS is being begun                    | `TlsStarted`                                  |
//! | Telling   | none: the host is to be told of a reply     | at once                                       |
//! | Over      | none                                        |                                               |
//!
//! **What is believed.** Nothing: numbers, octets and unique-ids are checked by RFC 1939's grammar, a reply about one message
//! has to name the message that was asked about, lines and replies have bounds. A server that breaks one of these gets no
//! further command; the host is told why ([`Ask::Broken`]).
//!
//! **Long replies** are handed on as [`Want::Data`]: dots undone, with LF for CRLF, and nothing else changed. Those of CAPA,
//! LIST and UIDL come in whole lines, for [`Capabilities::note`], [`scan`] and [`unique`]; a message comes as it arrives.
//! Whether that was all of it is for the host to see: [`Text`] has what the server announced and what there was.
//!
//! **What waits.** Behind STLS, an AUTH and QUIT no command is sent before the reply is there.
//!
//! It does not say QUIT by itself: that would make deletions final that the host may not have meant. Whether the server hung
//! up is known to `net` alone.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};
use memchr::{memchr, memmem};

use super::{LINE_LIMIT, Login};
use crate::protocol::sasl::Mechanism;
use crate::protocol::{End, Line, Lines, Machine, Want};
use crate::text::bytes::{Input, Output};
use crate::text::number::decimal;
use crate::text::secret::Secret;

/// Longest reply line, CRLF included. RFC 2449 §4 has 512; some servers' refusals are chatty.
pub const REPLY_LIMIT: usize = 1024;
/// Longest unique-id (RFC 1939 §7).
pub const UNIQUE_MOST: usize = 70;
/// Octets of commands written at a time; the rest follows when these are in the socket.
pub const SAID_MOST: usize = 4096;

/// What the host has patience for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Until the greeting is there, connecting included.
    pub greeting: Duration,
    /// Until a reply is there, or a long one has begun.
    pub reply: Duration,
    /// Until the reply to a password is there: somebody may have to open a large maildrop first.
    pub login: Duration,
    /// Silence within a long reply.
    pub text: Duration,
    /// Until the reply to QUIT is there: somebody may have to rewrite a large maildrop first.
    pub quit: Duration,
    /// Octets on the wire that a long reply may have.
    pub most: u64,
}

/// What can be said to a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// What it can do: told in lines for [`Capabilities::note`].
    Capa,
    /// TLS from here on. Everything said before is forgotten by the server (RFC 2595 §4).
    Stls,
    /// A name; PASS is to follow.
    User(Box<[u8]>),
    /// A password, as it is.
    Pass(Secret),
    /// Name, and the digest of password and the greeting's stamp.
    Apop(Box<Login>),
    /// Name and password, in one message.
    Plain(Box<Login>),
    /// How many messages, and their octets.
    Stat,
    /// Numbers and octets: of one message, or lines for [`scan`].
    List(Option<u32>),
    /// Numbers and unique-ids: of one message, or lines for [`unique`].
    Uidl(Option<u32>),
    /// A message.
    Retr(u32),
    /// A message's header and so many lines.
    Top(u32, u32),
    /// Marks a message as deleted.
    Dele(u32),
    /// Takes all marks away.
    Rset,
    /// Nothing.
    Noop,
    /// Makes the deletions final, and ends the conversation.
    Quit,
}

/// What it tells its host, and what it needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// A reply, to this command; `None`: it was the greeting. What next? Answered `Say` or `Leave`.
    Heard(Option<Command>, Reply),
    /// Begin TLS: the server is ready. Answered `TlsStarted` or `Leave`.
    StartTls,
    /// The conversation cannot go on. Answered in any way.
    Broken(Trouble),
}

/// What the host answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// These, behind what was given before. With nothing to say and no reply owed there would be nothing to wait for: a host
    /// that has nothing to say yet answers later.
    Say(Vec<Command>),
    /// TLS has begun.
    TlsStarted,
    /// End now, without QUIT: nothing is deleted.
    Leave,
}

/// What the server replied.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The greeting.
    Ready {
        /// It has the stamp that APOP is made with.
        apop: bool,
    },
    /// `+OK`, where no more is to be known.
    Done,
    /// To STAT.
    Totals {
        /// How many.
        messages: u32,
        /// Their octets.
        octets: u64,
    },
    /// To LIST of one message: its octets.
    Octets(u64),
    /// To UIDL of one message: its unique-id, 1 to 70 printable characters.
    Unique(Box<str>),
    /// A long reply is over, and was handed on.
    Text(Text),
    /// `-ERR`: what it said, without that word.
    Refused(Box<str>),
}

impl Reply {
    /// Whether it is `-ERR`.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Reply::Refused(_))
    }

    /// The code of a refusal, without its brackets (RFC 2449 §8): `IN-USE`, `AUTH`, `SYS/TEMP`.
    pub fn code(&self) -> Option<&str> {
        let Reply::Refused(text) = self else { return None };
        Some(text.strip_prefix('[')?.split_once(']')?.0)
    }
}

/// A long reply's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Text {
    /// What the first line announced, where it did: `+OK 120 octets`.
    pub announced: Option<u64>,
    /// What it should be compared with: octets with CRLF line ends, without doubled dots and the last line.
    pub octets: u64,
    /// All its octets on the wire, behind the first line.
    pub wire: u64,
}

/// Why the conversation cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A line is too long.
    LongLine,
    /// A long reply is longer than the host has patience for.
    LongReply,
    /// A line is none of `+OK`, `-ERR` and, where it may be, `+ `.
    Strange,
    /// A reply is not what RFC 1939 has in that place, or is about another message.
    Malformed,
    /// The host wants to say what no line can hold: a control character, too many octets.
    Unsayable,
    /// The host wants APOP, and the greeting had no stamp.
    NoStamp,
}

impl Trouble {
    /// In one sentence.
    pub fn text(self) -> &'static str {
        match self {
            Trouble::LongLine => "the server sent a line that is too long",
            Trouble::LongReply => "the server sent a longer reply than is taken",
            Trouble::Strange => "the server sent what is no POP3 reply",
            Trouble::Malformed => "the server's reply is not what POP3 has in that place",
            Trouble::Unsayable => "a name or a password cannot be said in POP3",
            Trouble::NoStamp => "the server does not offer APOP",
        }
    }
}

/// What a server says it can do: what CAPA's lines say that a client may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// STLS.
    pub stls: bool,
    /// USER and PASS, on this connection.
    pub user: bool,
    /// AUTH PLAIN, on this connection.
    pub plain: bool,
    /// AUTH SCRAM-SHA-256.
    pub scram: bool,
    /// TOP.
    pub top: bool,
    /// UIDL.
    pub uidl: bool,
    /// Many commands at once.
    pub pipelining: bool,
}

impl Capabilities {
    /// Takes notice of these lines. What is not known is passed over.
    pub fn note(&mut self, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n') {
            let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            match &words.next().unwrap_or_default().to_ascii_uppercase()[..] {
                b"STLS" => self.stls = true,
                b"USER" => self.user = true,
                b"TOP" => self.top = true,
                b"UIDL" => self.uidl = true,
                b"PIPELINING" => self.pipelining = true,
                b"SASL" => {
                    for mechanism in words.filter_map(Mechanism::find) {
                        self.plain |= mechanism == Mechanism::Plain;
                        self.scram |= mechanism == Mechanism::ScramSha256;
                    }
                }
                _ => {}
            }
        }
    }
}

/// A line of LIST, without its line end: number and octets.
pub fn scan(line: &[u8]) -> Option<(u32, u64)> {
    let mut words = line.split(|&byte| byte == b' ');
    // RFC 1939 §5: something may follow, though nobody should send it.
    Some((number(words.next()?)?, decimal(words.next()?)?))
}

/// A line of UIDL, without its line end: number and unique-id.
pub fn unique(line: &[u8]) -> Option<(u32, &str)> {
    let at = memchr(b' ', line)?;
    let id = std::str::from_utf8(&line[at + 1..]).ok()?;
    let fits = (1..=UNIQUE_MOST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    Some((number(&line[..at])?, id)).filter(|_| fits)
}

/// A message's number: from 1.
fn number(digits: &[u8]) -> Option<u32> {
    u32::try_from(decimal(digits)?).ok().filter(|&number| number > 0)
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Talking,
    Receiving(Box<Receiving>),
    Securing,
    Telling(Reply),
    Broken(Trouble),
    Over,
}

/// The client's side of one POP3 conversation.
#[derive(Debug)]
pub struct Client {
    state: State,
    lines: Lines,
    /// Of the queue: so many have been written.
    said: u32,
    /// What the host gave and no reply is there to. The first is the one that a reply would be to.
    queue: VecDeque<Command>,
    rules: Arc<Rules>,
    /// What APOP is made with.
    stamp: Option<Box<[u8]>>,
    deadline: Instant,
}

impl Client {
    /// A conversation that begins now.
    pub fn new(now: Instant, rules: Arc<Rules>) -> Client {
        let deadline = now + rules.greeting;
        let (lines, queue) = Default::default();
        Client { state: State::Greeting, lines, said: 0, queue, rules, stamp: None, deadline }
    }

    /// How many replies are owed. After an end that the machine did not wish: how many never came.
    pub fn owed(&self) -> usize {
        self.queue.len() + usize::from(self.state == State::Greeting)
    }

    /// What the next reply would be to.
    pub fn next(&self) -> Option<&Command> {
        self.queue.front()
    }

    fn patience(&self) -> Duration {
        match (&self.state, self.queue.front()) {
            (State::Greeting, _) => self.rules.greeting,
            (State::Receiving(_), _) => self.rules.text,
            (_, Some(Command::Pass(_) | Command::Apop(_) | Command::Plain(_))) => self.rules.login,
            (_, Some(Command::Quit)) => self.rules.quit,
            _ => self.rules.reply,
        }
    }

    /// Writes as many commands as may be sent now.
    fn say(&mut self, out: &mut Output) {
        while self.may_say() && out.len() < SAID_MOST {
            let command = &self.queue[self.said as usize];
            if let Err(trouble) = command.write(self.stamp.as_deref(), out) {
                self.state = State::Broken(trouble);
                return;
            }
            self.said += 1;
        }
    }

    /// Whether there is something to say, and nothing on its way that has to be answered first.
    fn may_say(&self) -> bool {
        let said = self.said as usize;
        let last = said.checked_sub(1).map(|last| &self.queue[last]);
        said < self.queue.len() && !last.is_some_and(Command::is_waited_for)
    }

    /// The line that the server sent where a reply is expected.
    fn reply(&mut self, line: &[u8], out: &mut Output) -> Result<State, Trouble> {
        let (good, text) = match line {
            [b'+', b'O', b'K', rest @ ..] => (true, rest),
            [b'-', b'E', b'R', b'R', rest @ ..] => (false, rest),
            [b'+'] | [b'+', b' ', ..] => {
                let Some(Command::Plain(login)) = self.queue.front() else { return Err(Trouble::Strange) };
                out.push(login.message().as_bytes());
                out.push(b"\r\n");
                return Ok(State::Talking);
            }
            _ => return Err(Trouble::Strange),
        };
        let text = match text {
            [] => text,
            [b' ', text @ ..] => text,
            _ => return Err(Trouble::Strange),
        };
        if !good {
            return Ok(State::Telling(Reply::Refused(String::from_utf8_lossy(text).into())));
        }
        if self.state == State::Greeting {
            self.stamp = stamp(text).map(Into::into);
            return Ok(State::Telling(Reply::Ready { apop: self.stamp.is_some() }));
        }
        let about = |asked: u32, told: u32| if asked == told { Ok(()) } else { Err(Trouble::Malformed) };
        let reply = match self.queue.front() {
            Some(Command::Stls) => return Ok(State::Securing),
            Some(Command::Stat) => {
                let mut words = text.split(|&byte| byte == b' ');
                let mut number = || words.next().and_then(decimal).ok_or(Trouble::Malformed);
                let (messages, octets) = (number()?, number()?);
                Reply::Totals { messages: u32::try_from(messages).map_err(|_| Trouble::Malformed)?, octets }
            }
            Some(&Command::List(Some(asked))) => {
                let (told, octets) = scan(text).ok_or(Trouble::Malformed)?;
                about(asked, told)?;
                Reply::Octets(octets)
            }
            Some(&Command::Uidl(Some(asked))) => {
                let (told, id) = unique(text).ok_or(Trouble::Malformed)?;
                about(asked, told)?;
                Reply::Unique(id.into())
            }
            Some(command) if command.is_answered_long() => {
                let whole_lines = !matches!(command, Command::Retr(_) | Command::Top(..));
                return Ok(State::Receiving(Box::new(Receiving::new(announced(text), whole_lines))));
            }
            _ => Reply::Done,
        };
        Ok(State::Telling(reply))
    }
}

impl Machine for Client {
    type Ask = Ask;
    type Answer = Answer;

    fn open(&mut self, _now: Instant, _out: &mut Output) {}

    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Ask> {
        if matches!(self.state, State::Talking | State::Receiving(_)) {
            self.say(out);
        }
        match &mut self.state {
            State::Greeting | State::Talking => {
                let begun = self.said > 0 || self.state == State::Greeting;
                let read = match self.lines.next(input, REPLY_LIMIT) {
                    Line::Partial => return Want::Input,
                    // A reply to what has not been said.
                    _ if !begun => Err(Trouble::Strange),
                    Line::TooLong => Err(Trouble::LongLine),
                    Line::Whole(line) => self.reply(line, out),
                };
                self.state = read.unwrap_or_else(State::Broken);
                self.deadline = now + self.patience();
                Want::Again
            }
            State::Receiving(receiving) => {
                let received = receiving.take(input.bytes_mut());
                let over = receiving.text.wire > self.rules.most;
                let text = receiving.text;
                match received.stop {
                    _ if over => self.state = State::Broken(Trouble::LongReply),
                    Some(Err(trouble)) => self.state = State::Broken(trouble),
                    Some(Ok(())) => self.state = State::Telling(Reply::Text(text)),
                    None if received.taken == 0 => return Want::Input,
                    None => {}
                }
                self.deadline = now + self.patience();
                match received.kept {
                    _ if over => Want::Again,
                    0 => {
                        input.consume(received.taken);
                        Want::Again
                    }
                    kept => Want::Data(&input.consume(received.taken)[..kept]),
                }
            }
            State::Securing => Want::Ask(Ask::StartTls),
            State::Telling(_) => {
                let State::Telling(reply) = std::mem::replace(&mut self.state, State::Talking) else {
                    unreachable!("matched above")
                };
                let command = self.queue.pop_front();
                if matches!(command, Some(Command::Pass(_) | Command::Apop(_) | Command::Plain(_)))
                    && !reply.is_refusal()
                {
                    self.stamp = None;
                }
                self.said = self.said.saturating_sub(1);
                if self.queue.is_empty() {
                    // An idle client keeps no room for commands.
                    self.queue = VecDeque::new();
                }
                if command.as_ref().map_or(reply.is_refusal(), |command| *command == Command::Quit) {
                    self.state = State::Over;
                }
                Want::Ask(Ask::Heard(command, reply))
            }
            &mut State::Broken(trouble) => {
                self.state = State::Over;
                Want::Ask(Ask::Broken(trouble))
            }
            State::Over => Want::Close,
        }
    }

    fn answer(&mut self, now: Instant, answer: Answer, out: &mut Output) {
        match answer {
            _ if self.state == State::Over => {}
            Answer::Leave => self.state = State::Over,
            Answer::TlsStarted => {
                assert_eq!(self.state, State::Securing, "TLS begins when it was asked for");
                self.lines = Lines::default();
                self.state = State::Telling(Reply::Done);
            }
            Answer::Say(commands) => {
                assert_eq!(self.state, State::Talking, "TLS was asked for, and not what to say");
                if self.queue.is_empty() {
                    self.queue = commands.into();
                    self.said = 0;
                } else {
                    self.queue.extend(commands);
                }
                assert!(!self.queue.is_empty(), "nothing is owed to either side, and nobody will say anything");
                self.say(out);
            }
        }
        self.deadline = now + self.patience();
    }

    fn end(&mut self, _now: Instant, _why: End, _out: &mut Output) {
        self.state = State::Over;
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Command {
    /// Whether nothing may be sent behind it before it is answered.
    fn is_waited_for(&self) -> bool {
        matches!(self, Command::Stls | Command::Plain(_) | Command::Quit)
    }

    /// Whether a good reply has many lines.
    fn is_answered_long(&self) -> bool {
        use Command::*;
        matches!(self, Capa | List(None) | Uidl(None) | Retr(_) | Top(..))
    }

    /// Its line. What cannot be said is not begun.
    fn write(&self, stamp: Option<&[u8]>, out: &mut Output) -> Result<(), Trouble> {
        use std::fmt::Write as _;
        let numbered = |out: &mut Output, verb: &str, number: &Option<u32>| match number {
            Some(number) => write!(out, "{verb} {number}"),
            None => out.write_str(verb),
        };
        // Writing into memory cannot fail.
        let _ = match self {
            Command::Capa => out.write_str("CAPA"),
            Command::Stls => out.write_str("STLS"),
            Command::User(name) => return line(&[b"USER ", sayable(name)?], out),
            Command::Pass(password) => return line(&[b"PASS ", sayable(password.reveal())?], out),
            Command::Apop(login) => {
                let stamp = stamp.ok_or(Trouble::NoStamp)?;
                let digest = Md5::new().chain_update(stamp).chain_update(login.password.reveal()).finalize();
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                let user = sayable(&login.user)?;
                if user.contains(&b' ') {
                    return Err(Trouble::Unsayable);
                }
                return line(&[b"APOP ", user, b" ", digest.as_bytes()], out);
            }
            Command::Plain(login) => {
                if login.user.contains(&0) || login.password.reveal().contains(&0) {
                    return Err(Trouble::Unsayable);
                }
                // RFC 5034 §4: a response that the line has no room for is sent when it is asked for.
                let message = login.message();
                return line(&[b"AUTH PLAIN ", message.as_bytes()], out).or_else(|_| line(&[b"AUTH PLAIN"], out));
            }
            Command::Stat => out.write_str("STAT"),
            Command::List(number) => numbered(out, "LIST", number),
            Command::Uidl(number) => numbered(out, "UIDL", number),
            Command::Retr(number) => write!(out, "RETR {number}"),
            Command::Top(number, lines) => write!(out, "TOP {number} {lines}"),
            Command::Dele(number) => write!(out, "DELE {number}"),
            Command::Rset => out.write_str("RSET"),
            Command::Noop => out.write_str("NOOP"),
            Command::Quit => out.write_str("QUIT"),
        };
        out.push(b"\r\n");
        Ok(())
    }
}

impl Login {
    /// As AUTH PLAIN has it (RFC 4616), in base64.
    fn message(&self) -> String {
        BASE64.encode([b"\0", &self.user[..], b"\0", self.password.reveal()].concat())
    }
}

/// What a line can hold.
fn sayable(text: &[u8]) -> Result<&[u8], Trouble> {
    let fits = !text.is_empty() && !text.iter().any(u8::is_ascii_control);
    if fits { Ok(text) } else { Err(Trouble::Unsayable) }
}

fn line(parts: &[&[u8]], out: &mut Output) -> Result<(), Trouble> {
    if parts.iter().map(|part| part.len()).sum::<usize>() + 2 > LINE_LIMIT {
        return Err(Trouble::Unsayable);
    }
    parts.iter().for_each(|part| out.push(part));
    out.push(b"\r\n");
    Ok(())
}

/// The stamp of a greeting (RFC 1939 §7): `<UNIQUE@HOST>`.
fn stamp(greeting: &[u8]) -> Option<&[u8]> {
    let begin = memchr(b'<', greeting)?;
    let end = begin + memchr(b'>', &greeting[begin..])?;
    let stamp = &greeting[begin..=end];
    (stamp.contains(&b'@') && stamp.iter().all(u8::is_ascii_graphic)).then_some(stamp)
}

/// `120 octets`: how long the message is said to be.
fn announced(text: &[u8]) -> Option<u64> {
    let mut words = text.split(|&byte| byte == b' ');
    let octets = decimal(words.next()?)?;
    (words.next()? == b"octets").then_some(octets)
}

/// A long reply that is arriving.
#[derive(Debug, PartialEq, Eq)]
struct Receiving {
    text: Text,
    /// The next byte is the first of a line: a dot is not text.
    line_start: bool,
    /// Only whole lines are handed on, none longer than [`REPLY_LIMIT`].
    whole_lines: bool,
}

/// What became of some bytes.
struct Received {
    /// So many are done with.
    taken: usize,
    /// So many, at the front, are text.
    kept: usize,
    /// So many lines ended.
    lines: usize,
    /// The end, or why there will be none.
    stop: Option<Result<(), Trouble>>,
}

impl Receiving {
    fn new(announced: Option<u64>, whole_lines: bool) -> Receiving {
        Receiving { text: Text { announced, ..Text::default() }, line_start: true, whole_lines }
    }

    /// Decodes in place: text never grows on its way in. Only CRLF ends a line: what else looks like an end is text, and no
    /// text can end the reply before its time.
    fn take(&mut self, bytes: &mut [u8]) -> Received {
        let received = if self.whole_lines { Receiving::take_lines(bytes) } else { self.take_text(bytes) };
        self.text.wire += received.taken as u64;
        self.text.octets += (received.kept + received.lines) as u64;
        received
    }

    fn take_lines(bytes: &mut [u8]) -> Received {
        let (mut taken, mut kept, mut lines) = (0, 0, 0);
        let stop = loop {
            let rest = &bytes[taken..];
            let Some(length) = memmem::find(&rest[..rest.len().min(REPLY_LIMIT)], b"\r\n") else {
                break (rest.len() >= REPLY_LIMIT).then_some(Err(Trouble::LongLine));
            };
            let dots = usize::from(rest.first() == Some(&b'.'));
            let text = taken + dots..taken + length;
            taken += length + 2;
            if dots == 1 && text.is_empty() {
                break Some(Ok(()));
            }
            bytes.copy_within(text.clone(), kept);
            kept += text.len();
            bytes[kept] = b'\n';
            kept += 1;
            lines += 1;
        };
        Received { taken, kept, lines, stop }
    }

    fn take_text(&mut self, bytes: &mut [u8]) -> Received {
        let (mut taken, mut kept, mut lines) = (0, 0, 0);
        let stop = loop {
            if self.line_start {
                match &bytes[taken..] {
                    [b'.', b'\r', b'\n', ..] => {
                        taken += 3;
                        break Some(Ok(()));
                    }
                    [] | [b'.'] | [b'.', b'\r'] => break None,
                    // RFC 1939 §3: the first of them is not text.
                    [b'.', ..] => taken += 1,
                    _ => {}
                }
                self.line_start = false;
            }
            let mut text = memchr(b'\r', &bytes[taken..]).unwrap_or(bytes.len() - taken);
            let follows = match &bytes[taken + text..] {
                [] | [b'\r'] => Follows::Unknown,
                [_, b'\n', ..] => Follows::LineEnd,
                _ => Follows::Text,
            };
            // A CR alone is text, and the line goes on behind it.
            text += usize::from(follows == Follows::Text);
            if taken != kept {
                bytes.copy_within(taken..taken + text, kept);
            }
            taken += text;
            kept += text;
            match follows {
                Follows::Unknown => break None,
                Follows::Text => {}
                Follows::LineEnd => {
                    taken += 2;
                    bytes[kept] = b'\n';
                    kept += 1;
                    lines += 1;
                    self.line_start = true;
                }
            }
        };
        Received { taken, kept, lines, stop }
    }
}

/// What stands behind some text.
#[derive(PartialEq, Eq)]
enum Follows {
    Unknown,
    LineEnd,
    Text,
}
