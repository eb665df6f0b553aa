//! The driver: runs any machine over any byte stream, and keeps every bound while it does.
//!
//! One call of [`Stream::turn`] tries every act that is possible and stops when none is (`Idle`), when it has moved
//! [`BUDGET`] bytes (`Again`: to the back of the queue) or when the conversation is over (`Closed`). `Idle` is returned
//! only when nothing can move, so under edge triggering no readiness is lost.
//!
//! | it is    | what moves                                                       | it leaves by                        |
//! |----------|-------------------------------------------------------------------|-------------------------------------|
//! | Free     | output to the socket, input to the machine                         | an ask, a close                     |
//! | Owed     | output                                                             | `answer`; a dead peer ends it       |
//! | Answered | the answer to the machine                                          | at once                             |
//! | Body     | the body to the output, slice by slice                             | its end, its fault                  |
//! | Upgrade  | output, until all is in the socket; then input is forgotten        | TLS begins                          |
//! | Closing  | output, then close_notify, then our half is shut                   | all flushed, or no progress         |
//! | Draining | input, to be dropped, so that our last words are not lost to a reset | end of file, [`DRAIN`], its bound |
//!
//! A stream that [connects](Stream::connect) does nothing before the kernel says that the connection stands. Where a stream
//! ends and its machine did not wish it, [`fault`](Stream::fault) says why; a client is told by it that the server hung up.
//!
//! In any of them the host may *hold* the stream: then nothing is read and no machine is called until
//! [`release`](Stream::release). A peer that takes less than [`FLOOR_OCTETS`] in [`FLOOR_TIME`] of what it is owed is closed.
//! How little it may give, and in what time, is for its machine to say, whose deadline does not move for less.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::tls::Secure;
use super::wire::{Cipher, Got, Wire};
use crate::protocol::{End, Machine, Want};
use crate::sys::memory::forget;
use crate::text::bytes::{INPUT_ROOM, Input, Output};

/// Bytes moved in one turn before others have theirs.
pub const BUDGET: usize = 64 * 1024;
/// A slice of a body.
pub const SLICE: usize = 32 * 1024;
/// What a peer must at least take of what it is owed ...
pub const FLOOR_OCTETS: u32 = 4096;
/// ... in this time.
pub const FLOOR_TIME: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long we read, and how much, after our last words.
pub const DRAIN: (Duration, usize) = (Duration::from_secs(2), 256 * 1024);

/// A byte stream that can be half closed.
pub trait Socket: Read + Write {
    /// We have said all we will.
    fn shut_write(&self) -> io::Result<()>;
    /// Whether the connection stands. An error: it does not, and never will.
    fn is_connected(&self) -> io::Result<bool>;
}

macro_rules! socket {
    ($socket:ty) => {
        impl Socket for $socket {
            fn shut_write(&self) -> io::Result<()> {
                self.shutdown(std::net::Shutdown::Write)
            }

            fn is_connected(&self) -> io::Result<bool> {
                if let Some(error) = self.take_error()? {
                    return Err(error);
                }
                match self.peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                    peer => peer.map(|_| true),
                }
            }
        }
    };
}

socket!(mio::net::TcpStream);
socket!(mio::net::UnixStream);

/// The buffers of the whole loop. A connection that has nothing half-done owns none of its own.
pub struct Scratch {
    input: Input,
    output: Output,
    slice: Box<[u8]>,
    cipher: Cipher,
    partial: usize,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            input: Input::default(),
            output: Output::default(),
            slice: vec![0; SLICE].into_boxed_slice(),
            cipher: Cipher::default(),
            partial: 0,
        }
    }
}

impl Scratch {
    /// Bytes of half-received TLS records held by all connections together.
    pub fn partial_bytes(&self) -> usize {
        self.partial
    }

    /// What its output holds on to.
    pub fn capacity(&self) -> usize {
        self.output.capacity()
    }

    /// What all its buffers hold on to.
    pub fn held(&self) -> usize {
        INPUT_ROOM + self.output.capacity() + self.slice.len() + self.cipher.held()
    }

    /// Between turns, when nothing is in them: gives back what a burst made them grow to, and the pages they have.
    pub(super) fn trim(&mut self) {
        self.clear();
        self.output = Output::default();
        forget(self.input.room());
        forget(&mut self.slice);
        self.cipher.trim();
    }

    /// After a panic: nothing of the conversation that caused it may reach the next one.
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.output.clear();
        self.cipher.clear();
    }
}

/// A long reply, pulled by the driver whenever there is room.
pub trait Body {
    /// Appends its next part, made of at most `scratch.len()` bytes of its source.
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull;
}

/// The body of a host whose replies are all short.
pub enum Never {}

impl Body for Never {
    fn pull(&mut self, _scratch: &mut [u8], _out: &mut Output) -> Pull {
        match *self {}
    }
}

/// What came of pulling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// There is more.
    More,
    /// That was the last of it.
    Last,
    /// It would have had to wait for the disk: the host is asked to fetch, and releases the stream when it has.
    Cold,
    /// It cannot go on; what was sent must not look whole, so the connection ends here.
    Broken,
}

/// A service, seen from one conversation. Its fields are its rights.
pub trait Host<M: Machine> {
    /// What long replies are made of.
    type Body: Body;

    /// Does what the machine asks, or begins to.
    fn perform(&mut self, now: Instant, ask: M::Ask) -> Done<M::Answer, Self::Body>;

    /// Takes bytes of a message. A fault is kept and becomes the answer of the commit; it is never a hang-up.
    fn data(&mut self, _now: Instant, _bytes: &[u8]) -> Flow {
        Flow::More
    }

    /// A body was handed over whole, or broke. Not told when the conversation itself ends in the midst of one.
    fn over(&mut self, _body: &Self::Body, _whole: bool) {}

    /// The body said `Cold`: fetch what it needs, supply it and release the stream.
    fn fetch(&mut self, now: Instant, body: &mut Self::Body);
}

/// What a host says to an ask.
pub enum Done<A, B> {
    /// Here is the answer.
    Now(A),
    /// It will come through [`Stream::answer`].
    Later,
    /// A long reply: an answer to begin with, the body, an answer when it has been handed over whole.
    Send(A, Box<B>, A),
    /// TLS begins once everything said so far is in the socket; then this answer.
    StartTls(Secure, A),
}

/// What a host says to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// No more until [`Stream::release`].
    Hold,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing can move until something happens.
    Idle,
    /// There is more to do, and others come first.
    Again,
    /// It is over: remove it.
    Closed,
}

enum Doing<A, B> {
    Free,
    Owed,
    Answered(Box<Done<A, B>>),
    /// With what is answered when it has been handed over.
    Body(Box<(Box<B>, A)>),
    Upgrade(Box<(Secure, A)>),
    Closing,
    Draining(u32),
    /// It is over, and this is why.
    Over(io::Error),
}

#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    read: bool,
    write: bool,
    /// The peer has shut its half: there is an end of file to be read, whatever a short read seems to say.
    ends: bool,
    /// Both directions are gone: an error or a full hang-up.
    dead: bool,
}

/// What the kernel says about a socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readiness {
    /// There may be something to read.
    pub read: bool,
    /// There may be room to write.
    pub write: bool,
    /// The peer has shut its half.
    pub ends: bool,
    /// An error or a full hang-up.
    pub dead: bool,
}

/// What a turn could not be done with.
#[derive(Default)]
struct Left {
    /// Received and not understood.
    input: Vec<u8>,
    /// Owed to the peer.
    output: Vec<u8>,
}

impl Left {
    /// Nothing has no place.
    fn kept(self) -> Option<Box<Left>> {
        (!self.input.is_empty() || !self.output.is_empty()).then(|| Box::new(self))
    }
}

/// One conversation over one byte stream.
pub struct Stream<S, M: Machine, B> {
    sock: S,
    machine: M,
    wire: Wire,
    doing: Doing<M::Answer, B>,
    /// What is left over between turns: nothing, mostly.
    left: Option<Box<Left>>,
    ready: Ready,
    /// The kernel has not said yet that the connection stands.
    connecting: bool,
    eof: bool,
    held: bool,
    /// The peer sends data.
    giving: bool,
    ending: Option<End>,
    /// Its place is needed: what the socket takes of the last words is said, and nobody waits for the peer.
    brisk: bool,
    /// No progress, or no right to any: over without a word.
    aborted: bool,
    /// What ended it, where no system call failed.
    cut: Option<io::ErrorKind>,
    /// Octets moved since `since`, for the floor; what is more than that has room is that.
    moved: u16,
    since: Instant,
    /// Seconds, at most [`HANDSHAKE`] and [`FLOOR_TIME`], that a handshake and the floor's octets may take.
    patience: (u8, u8),
}

impl<S: Socket, M: Machine, B: Body> Stream<S, M, B> {
    /// A conversation that begins now; `tls` from the first byte where given. Its first turn writes the greeting.
    pub fn open(now: Instant, sock: S, machine: M, tls: Option<Secure>) -> io::Result<Self> {
        Stream::new(now, sock, machine, tls, false)
    }

    /// The same over a socket that is still connecting. Until it is connected the machine's deadline runs; a handshake has
    /// its own time after that.
    pub fn connect(now: Instant, sock: S, machine: M, tls: Option<Secure>) -> io::Result<Self> {
        Stream::new(now, sock, machine, tls, true)
    }

    /// A handshake, and [`FLOOR_OCTETS`], may take no longer than this either.
    pub fn hurry(&mut self, handshake: Duration, floor: Duration) {
        self.patience = (HANDSHAKE.min(handshake).as_secs() as u8, FLOOR_TIME.min(floor).as_secs() as u8);
    }

    fn new(now: Instant, sock: S, mut machine: M, tls: Option<Secure>, connecting: bool) -> io::Result<Self> {
        let wire = match tls {
            Some(secure) => Wire::tls(secure)?,
            None => Wire::Plain,
        };
        let mut greeting = Output::default();
        machine.open(now, &mut greeting);
        Ok(Stream {
            sock,
            machine,
            wire,
            doing: Doing::Free,
            left: Left { input: Vec::new(), output: greeting.bytes().to_vec() }.kept(),
            // The socket is new: nothing is known, so both are tried, if it can be used at all.
            ready: Ready { read: !connecting, write: !connecting, ..Ready::default() },
            connecting,
            eof: false,
            held: false,
            giving: false,
            ending: None,
            brisk: false,
            aborted: false,
            cut: None,
            moved: 0,
            since: now,
            patience: (HANDSHAKE.as_secs() as u8, FLOOR_TIME.as_secs() as u8),
        })
    }

    /// The kernel says something new about the socket.
    pub fn mark(&mut self, ready: Readiness) {
        self.ready.read |= ready.read || ready.ends;
        self.ready.write |= ready.write;
        self.ready.ends |= ready.ends;
        self.ready.dead |= ready.dead;
    }

    /// Why it is over, if neither its machine nor its host wished it: refused, reset, timed out, a TLS failure (`InvalidData`),
    /// or that the peer hung up while the machine waited (`UnexpectedEof`), which for a server is how most clients leave.
    pub fn fault(&self) -> Option<&io::Error> {
        match &self.doing {
            Doing::Over(error) => Some(error),
            _ => None,
        }
    }

    /// Ends the conversation at its next turn, without a word.
    pub fn abort(&mut self) {
        self.aborted = true;
    }

    /// What became of the ask that was answered `Later`. Whoever keeps tickets makes sure that it is owed; if it is not,
    /// nothing happens.
    pub fn answer(&mut self, done: Done<M::Answer, B>) {
        if matches!(self.doing, Doing::Owed) {
            self.doing = Doing::Answered(Box::new(done));
        }
    }

    /// Whether an answer is owed.
    pub fn is_owed(&self) -> bool {
        matches!(self.doing, Doing::Owed)
    }

    /// The body being sent, for the host to supply.
    pub fn body(&mut self) -> Option<&mut B> {
        match &mut self.doing {
            Doing::Body(sending) => Some(&mut sending.0),
            _ => None,
        }
    }

    /// Holds it until [`release`](Stream::release): nothing is read and no machine is called.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Ends a hold.
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Ends the conversation at its next turn.
    pub fn end(&mut self, why: End) {
        self.ending.get_or_insert(why);
    }

    /// Whether it is about to be over: nothing more is asked on its behalf.
    pub fn is_ending(&self) -> bool {
        self.aborted
            || self.ending.is_some()
            || matches!(self.doing, Doing::Closing | Doing::Draining(_) | Doing::Over(_))
    }

    /// Whether the kernel has not said yet that the connection stands.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Bytes of half-received TLS records that it holds.
    pub fn partial_bytes(&self) -> usize {
        self.wire.partial_bytes()
    }

    /// Bytes of what was received and not understood, or is owed to a slow peer: nothing, between turns, for most.
    pub fn buffered(&self) -> usize {
        let left = |left: &Left| size_of::<Left>() + left.input.capacity() + left.output.capacity();
        self.left.as_deref().map_or(0, left) + self.wire.buffered()
    }

    /// Whether it is within TLS.
    pub fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    /// What it is about, for operators.
    pub fn activity(&self) -> &'static str {
        match &self.doing {
            _ if self.is_ending() => "ending",
            _ if self.connecting => "connecting",
            Doing::Owed | Doing::Answered(_) => "working",
            Doing::Body(..) => "sending",
            _ if self.held => "held",
            _ if self.giving => "receiving",
            _ if self.is_behind() => "sending",
            _ => "waiting",
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The socket.
    pub fn sock(&self) -> &S {
        &self.sock
    }

    /// The socket, to deregister it.
    pub fn sock_mut(&mut self) -> &mut S {
        &mut self.sock
    }

    /// When [`expire`](Stream::expire) has to be called. Nothing is due while an answer is owed: then the patience of
    /// whoever owes it runs, with its own name and number.
    pub fn deadline(&self) -> Option<Instant> {
        match self.doing {
            Doing::Draining(_) => Some(self.since + DRAIN.0),
            _ if self.connecting => Some(self.machine.deadline()),
            _ if self.wire.is_shaking_hands() => Some(self.since + Duration::from_secs(self.patience.0.into())),
            Doing::Owed | Doing::Answered(_) => None,
            _ if self.held => None,
            _ if self.is_behind() => Some(self.since + Duration::from_secs(self.patience.1.into())),
            _ => Some(self.machine.deadline()),
        }
    }

    /// The deadline is over: the conversation is too, unless the peer kept above the floor.
    pub fn expire(&mut self, now: Instant) {
        let draining = matches!(self.doing, Doing::Draining(_));
        let begun = !self.connecting && !self.wire.is_shaking_hands();
        let floor = self.is_behind() && begun;
        if floor && !draining && u32::from(self.moved) >= FLOOR_OCTETS {
            self.moved = 0;
            self.since = now;
            return;
        }
        if !draining {
            self.cut.get_or_insert(io::ErrorKind::TimedOut);
        }
        let polite = matches!(self.doing, Doing::Free) && !floor && begun;
        if polite { self.end(End::Silence) } else { self.abort() }
    }

    /// Whether the peer is owed something that it does not take.
    pub fn is_behind(&self) -> bool {
        self.left.as_deref().is_some_and(|left| !left.output.is_empty())
            || self.wire.has_unsent()
            || matches!(self.doing, Doing::Body(..) | Doing::Closing | Doing::Upgrade(..))
    }

    /// Does what can be done now.
    pub fn turn<H>(&mut self, now: Instant, scratch: &mut Scratch, host: &mut H) -> Turn
    where
        H: Host<M, Body = B>,
    {
        // Taken out now and put back below: should this turn panic, nothing of this connection stays in the sum.
        scratch.partial = scratch.partial.saturating_sub(self.wire.partial_bytes());
        let was_behind = self.is_behind();
        let mut left = self.left.take().map_or_else(Left::default, |left| *left);
        scratch.input.load(&mut left.input);
        scratch.output.load(&mut left.output);
        let turn = self.run(now, scratch, host).unwrap_or_else(|error| {
            // The peer's end of the line is broken: nothing of ours to log, nothing left to say.
            self.wire.last_words(&mut self.sock);
            // After our last words it makes no difference.
            if !matches!(self.doing, Doing::Draining(_)) {
                self.doing = Doing::Over(error);
            }
            Turn::Closed
        });
        if turn == Turn::Closed {
            if let Some(kind) = self.cut
                && self.fault().is_none()
            {
                self.doing = Doing::Over(kind.into());
            }
            scratch.input.clear();
            scratch.output.clear();
            self.wire = Wire::Plain;
        }
        scratch.input.save(&mut left.input);
        scratch.output.save(&mut left.output);
        self.left = left.kept();
        scratch.partial += self.wire.partial_bytes();
        if !was_behind && self.is_behind() {
            self.since = now;
            self.moved = 0;
        }
        turn
    }

    fn run<H>(&mut self, now: Instant, scratch: &mut Scratch, host: &mut H) -> io::Result<Turn>
    where
        H: Host<M, Body = B>,
    {
        let mut budget = BUDGET as isize;
        if self.connecting && !self.is_ending() && !self.arrives(now)? {
            return Ok(Turn::Idle);
        }
        loop {
            // There is nobody yet to whom anything could be said.
            if self.aborted || self.connecting {
                return Ok(Turn::Closed);
            }
            // A dead peer is noticed by reading, and ends what does not read.
            if self.ready.dead && (self.held || !matches!(self.doing, Doing::Free | Doing::Closing)) {
                if !matches!(self.doing, Doing::Draining(_)) {
                    self.sock.is_connected()?;
                    self.cut.get_or_insert(io::ErrorKind::ConnectionReset);
                }
                return Ok(Turn::Closed);
            }
            let mut moved = false;
            // A server that stops lets every answer come that is owed: a client that said QUIT learns whether it held.
            let owed = matches!(self.doing, Doing::Owed | Doing::Answered(_));
            if let Some(why) = self.ending.take_if(|why| *why != End::Shutdown || !owed) {
                self.finish(now, why, &mut scratch.output);
                moved = true;
            }
            let high = scratch.output.len() >= self.machine.most_owed();
            let may = !self.held && !high;
            match &mut self.doing {
                Doing::Free if may => moved |= self.step(now, scratch, host, &mut budget)?,
                Doing::Answered(_) if may => {
                    let Doing::Answered(done) = self.take() else { unreachable!("matched above") };
                    self.settle(now, *done, &mut scratch.output);
                    moved = true;
                }
                // Only for a socket that can take it: what is pulled for one that cannot would be held for it.
                Doing::Body(sending) if may && self.ready.write => {
                    let body = &mut sending.0;
                    let before = scratch.output.len();
                    let pulled = body.pull(&mut scratch.slice, &mut scratch.output);
                    budget -= (scratch.output.len() - before) as isize;
                    moved = true;
                    match pulled {
                        Pull::More => {}
                        Pull::Last => {
                            host.over(body, true);
                            let Doing::Body(sending) = self.take() else { unreachable!("matched above") };
                            self.machine.answer(now, sending.1, &mut scratch.output);
                        }
                        Pull::Cold => {
                            self.held = true;
                            host.fetch(now, body);
                        }
                        Pull::Broken => {
                            host.over(body, false);
                            self.doing = Doing::Closing;
                            self.wire.close();
                        }
                    }
                }
                Doing::Upgrade(..) if self.wire.is_flushed(&scratch.output) => {
                    let Doing::Upgrade(upgrade) = self.take() else { unreachable!("matched above") };
                    let (secure, after) = *upgrade;
                    // What came before the handshake was not protected: it is forgotten, not obeyed.
                    scratch.input.clear();
                    self.wire = Wire::tls(secure)?;
                    self.since = now;
                    self.machine.answer(now, after, &mut scratch.output);
                    moved = true;
                }
                // Before the handshake is done nothing can be said, not even goodbye.
                Doing::Closing if self.wire.is_shaking_hands() => return Ok(Turn::Closed),
                Doing::Closing if self.brisk && self.wire.is_flushed(&scratch.output) => return Ok(Turn::Closed),
                Doing::Closing if self.wire.is_flushed(&scratch.output) => {
                    self.doing = Doing::Draining(0);
                    self.since = now;
                    self.sock.shut_write()?;
                    moved = true;
                }
                Doing::Draining(_) if self.eof => return Ok(Turn::Closed),
                Doing::Draining(dropped) if self.ready.read => {
                    let room = scratch.slice.len();
                    match self.sock.read(&mut scratch.slice[..room]) {
                        Ok(0) => return Ok(Turn::Closed),
                        Ok(count) => {
                            *dropped += count as u32;
                            if *dropped as usize > DRAIN.1 {
                                return Ok(Turn::Closed);
                            }
                            budget -= count as isize;
                            moved = true;
                        }
                        Err(error) => moved |= self.stalled(error, |ready| &mut ready.read)?,
                    }
                }
                _ => {}
            }
            // Replies leave together: when nothing else can move, or when they have become many.
            if !moved || scratch.output.len() >= self.machine.most_owed() {
                moved |= self.write(scratch, &mut budget)?;
            }
            if !moved {
                return Ok(if self.brisk { Turn::Closed } else { Turn::Idle });
            }
            if budget <= 0 {
                return Ok(Turn::Again);
            }
        }
    }

    /// Whether the connection stands now. What the kernel says before it does is a hint, and asked about.
    fn arrives(&mut self, now: Instant) -> io::Result<bool> {
        if !self.ready.write && !self.ready.dead || !self.sock.is_connected()? {
            if self.ready.dead {
                return Err(io::ErrorKind::NotConnected.into());
            }
            self.ready.write = false;
            return Ok(false);
        }
        self.connecting = false;
        self.ready.read = true;
        self.ready.write = true;
        self.since = now;
        Ok(true)
    }

    /// One step of the machine.
    fn step<H>(&mut self, now: Instant, scratch: &mut Scratch, host: &mut H, budget: &mut isize) -> io::Result<bool>
    where
        H: Host<M, Body = B>,
    {
        let want = self.machine.step(now, &mut scratch.input, &mut scratch.output);
        // Wanting more input does not end the giving: it is what a machine says between two pieces of data.
        self.giving &= matches!(want, Want::Input);
        match want {
            Want::Again => {}
            Want::Close => {
                self.doing = Doing::Closing;
                self.wire.close();
            }
            Want::Data(bytes) => {
                self.giving = true;
                *budget -= bytes.len() as isize;
                self.held = host.data(now, bytes) == Flow::Hold;
            }
            Want::Ask(ask) => {
                let done = host.perform(now, ask);
                self.settle(now, done, &mut scratch.output);
            }
            // Half closed: it got its replies, and will say nothing more.
            Want::Input if self.eof => {
                self.cut.get_or_insert(io::ErrorKind::UnexpectedEof);
                self.doing = Doing::Closing;
                self.wire.close();
            }
            // What is owed goes first: the peer may be waiting for it.
            Want::Input if self.ready.write && self.wire.has_to_write(&scratch.output) => return Ok(false),
            Want::Input if self.ready.read => {
                match self.wire.read(&mut self.sock, &mut scratch.input, &mut scratch.output, &mut scratch.cipher) {
                    Ok(Got::Eof) => self.eof = true,
                    Ok(Got::Bytes(count)) => *budget -= count as isize,
                    // epoll(7): on a stream, a read that got less than it asked for has emptied it; what comes later
                    // is a new edge. Not so the end of file, which may have come with the same one.
                    Ok(Got::Drained(count)) => {
                        *budget -= count as isize;
                        self.ready.read = self.ready.ends;
                    }
                    Err(error) => return self.stalled(error, |ready| &mut ready.read),
                }
            }
            Want::Input => return Ok(false),
        }
        Ok(true)
    }

    /// What the host says to an ask, at once or later.
    fn settle(&mut self, now: Instant, done: Done<M::Answer, B>, out: &mut Output) {
        match done {
            Done::Now(answer) => self.machine.answer(now, answer, out),
            Done::Later => self.doing = Doing::Owed,
            Done::Send(begin, body, end) => {
                self.machine.answer(now, begin, out);
                self.doing = Doing::Body(Box::new((body, end)));
            }
            Done::StartTls(secure, after) => self.doing = Doing::Upgrade(Box::new((secure, after))),
        }
    }

    fn write(&mut self, scratch: &mut Scratch, budget: &mut isize) -> io::Result<bool> {
        if !self.ready.write || !self.wire.has_to_write(&scratch.output) {
            return Ok(false);
        }
        match self.wire.write(&mut self.sock, &mut scratch.input, &mut scratch.output, &mut scratch.cipher) {
            Ok(count) => {
                *budget -= count as isize;
                self.moved = self.moved.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
                Ok(count > 0)
            }
            Err(error) => self.stalled(error, |ready| &mut ready.write),
        }
    }

    /// An error of the socket: `WouldBlock` clears the readiness, an interruption is tried again, the rest is the end.
    fn stalled(&mut self, error: io::Error, which: fn(&mut Ready) -> &mut bool) -> io::Result<bool> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                *which(&mut self.ready) = false;
                Ok(false)
            }
            io::ErrorKind::Interrupted => Ok(true),
            _ => Err(error),
        }
    }

    fn take(&mut self) -> Doing<M::Answer, B> {
        std::mem::replace(&mut self.doing, Doing::Free)
    }

    /// Not the peer's wish: a last line if one fits where we are, then the polite way out.
    fn finish(&mut self, now: Instant, why: End, out: &mut Output) {
        self.brisk |= why == End::Overload;
        if matches!(self.doing, Doing::Closing | Doing::Draining(_) | Doing::Over(_)) {
            return;
        }
        // In the midst of a message a line of ours would be taken for a line of it.
        if matches!(self.doing, Doing::Free | Doing::Owed | Doing::Answered(_)) {
            self.machine.end(now, why, out);
        }
        self.held = false;
        self.doing = Doing::Closing;
        self.wire.close();
    }
}

#[cfg(test)]
mod tests;
