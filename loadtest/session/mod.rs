//! One client: a protocol machine, its socket, and what it checks.
//!
//! | file      | what it is                                                   |
//! |-----------|--------------------------------------------------------------|
//! | `mod.rs`  | what every client has: its line, its fate, its times, its end |
//! | `wire.rs` | the socket: modems, source addresses, resets                  |
//! | `pop.rs`  | what a POP3 client asks and checks                            |
//! | `smtp.rs` | what an SMTP client brings and is told                        |
//!
//! A client's fate is due when so much message text has passed, or at the latest before its QUIT. From then on whatever
//! happens on its connection is what was meant to happen: no error, and counted as injected.

pub mod pop;
pub mod smtp;
pub mod wire;

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use dmail::net::stream::{Body, Done, Flow, Host, Readiness, Scratch, Stream, Turn};
use dmail::protocol::Machine;

use crate::run::Shared;
use crate::work::{Fate, Outcome, Task};
use wire::Wire;

/// How long a half-open client reads on at most.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// What every client has.
pub struct Life {
    pub kind: &'static str,
    /// Its place among the clients of a closed loop.
    pub client: usize,
    /// From when its latency counts.
    pub planned: Instant,
    /// When the last step ended.
    since: Instant,
    fate: Fate,
    /// Message text that passed so far.
    text: u64,
    /// Its fate is to be done at the end of this turn.
    due: bool,
    /// Its fate is done: the name it is counted by.
    injected: Option<&'static str>,
    /// When it wakes: from silence on purpose, or from a pause.
    wake: Option<Instant>,
    /// All that it wanted was done and said.
    pub complete: bool,
    /// Messages retrieved or acknowledged.
    pub messages: u64,
    pub stat: Option<(u32, u64)>,
    trouble: Option<(&'static str, String)>,
}

impl Life {
    pub fn new(task: &Task, client: usize, planned: Instant, now: Instant) -> Life {
        Life {
            kind: task.kind(),
            client,
            planned,
            since: now,
            fate: task.line().fate,
            text: 0,
            due: false,
            injected: None,
            wake: None,
            complete: false,
            messages: 0,
            stat: None,
            trouble: None,
        }
    }

    /// A step is over that began when the last one ended.
    pub fn step(&mut self, shared: &mut Shared<'_>, name: &'static str, now: Instant) {
        shared.meter.step(self.kind, self.planned, name, now.saturating_duration_since(self.since));
        self.since = now;
    }

    /// What follows counts from now.
    pub fn restart(&mut self, now: Instant) {
        self.since = now;
    }

    /// Something is wrong. It is counted, unless this client's end was meant to be a bad one and has begun.
    pub fn error(&mut self, shared: &mut Shared<'_>, what: &'static str, text: &str) {
        if self.injected.is_some() || self.due {
            return;
        }
        shared.meter.error(self.kind, what, text);
        if self.trouble.is_none() {
            self.trouble = Some((what, text.to_owned()));
        }
    }

    /// So much message text has passed; true: its fate is due.
    pub fn passed(&mut self, octets: usize) -> bool {
        self.text += octets as u64;
        match self.after() {
            Some(after) if self.text >= after => self.meet_fate(),
            _ => false,
        }
    }

    /// So much text may pass before its fate is due.
    pub fn after(&self) -> Option<u64> {
        match self.fate {
            Fate::Lives => None,
            Fate::Vanishes { after, .. } | Fate::HalfOpen { after } | Fate::Resets { after } => Some(u64::from(after)),
        }
    }

    /// Its fate, if it has one that has not come yet, is due now.
    pub fn meet_fate(&mut self) -> bool {
        self.due |= self.fate != Fate::Lives && self.injected.is_none();
        self.due
    }

    /// Nothing is said until then; [`Talk::woken`] goes on.
    pub fn pause(&mut self, until: Instant) {
        self.wake = Some(until);
    }

    /// Whether its fate is due, or done.
    pub fn is_fated(&self) -> bool {
        self.due || self.injected.is_some()
    }
}

/// What a client of one protocol says and hears.
pub trait Talk: Sized {
    type Machine: Machine;
    type Body: Body;

    fn perform(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant, ask: Ask<Self>) -> Doing<Self>;
    /// Message text. Gives whether more is wanted.
    fn data(&mut self, life: &mut Life, bytes: &[u8]) -> Flow;
    /// The pause is over.
    fn woken(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Option<Doing<Self>>;
    /// The connection is gone; `machine` knows what is unsettled, `fault` why, where that was nobody's wish.
    fn ended(&mut self, life: &mut Life, shared: &mut Shared<'_>, machine: &Self::Machine, fault: Option<&io::Error>);
    fn task(self) -> Task;
}

/// What a talk's machine asks.
pub type Ask<T> = <<T as Talk>::Machine as Machine>::Ask;
/// What it is answered.
pub type Doing<T> = Done<<<T as Talk>::Machine as Machine>::Answer, <T as Talk>::Body>;

/// One client.
pub struct Session<T: Talk> {
    stream: Stream<Wire, T::Machine, T::Body>,
    talk: T,
    life: Life,
    /// Its pause is over and has not been answered.
    woke: bool,
    /// What it will do when the work has settled what it was told.
    held: Option<Doing<T>>,
}

/// A talk for the time of one turn.
struct Hosted<'a, 'w, T: Talk> {
    talk: &'a mut T,
    life: &'a mut Life,
    shared: &'a mut Shared<'w>,
    held: &'a mut Option<Doing<T>>,
}

impl<T: Talk> Host<T::Machine> for Hosted<'_, '_, T> {
    type Body = T::Body;

    fn perform(&mut self, now: Instant, ask: Ask<T>) -> Doing<T> {
        let before = self.shared.work.unsettled();
        let doing = self.talk.perform(self.life, self.shared, now, ask);
        if self.shared.work.unsettled() == before || matches!(doing, Done::Later) {
            return doing;
        }
        *self.held = Some(doing);
        Done::Later
    }

    fn data(&mut self, _now: Instant, bytes: &[u8]) -> Flow {
        self.talk.data(self.life, bytes)
    }

    fn fetch(&mut self, _now: Instant, _body: &mut T::Body) {
        // A body that stops in the midst has come to where its client's fate is.
        self.life.meet_fate();
    }
}

impl<T: Talk> Session<T> {
    pub fn new(stream: Stream<Wire, T::Machine, T::Body>, talk: T, life: Life) -> Session<T> {
        Session { stream, talk, life, woke: false, held: None }
    }

    pub fn wire(&mut self) -> &mut Wire {
        self.stream.sock_mut()
    }

    pub fn mark(&mut self, ready: Readiness) {
        self.stream.mark(ready);
    }

    pub fn turn(&mut self, now: Instant, shared: &mut Shared<'_>, scratch: &mut Scratch) -> Turn {
        if std::mem::take(&mut self.woke)
            && let Some(done) = self.talk.woken(&mut self.life, shared, now)
        {
            self.stream.answer(done);
        }
        let mut host = Hosted { talk: &mut self.talk, life: &mut self.life, shared, held: &mut self.held };
        let turn = self.stream.turn(now, scratch, &mut host);
        if turn != Turn::Closed && std::mem::take(&mut self.life.due) {
            self.do_fate(now);
            return Turn::Again;
        }
        turn
    }

    /// Whether it waits for the work to settle.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The work has settled.
    pub fn release(&mut self) {
        if let Some(done) = self.held.take() {
            self.stream.answer(done);
        }
    }

    fn do_fate(&mut self, now: Instant) {
        match self.life.fate {
            Fate::Lives => {}
            Fate::Vanishes { silent, .. } => {
                self.life.injected = Some("vanished");
                self.life.wake = Some(now + silent);
                self.stream.hold();
            }
            Fate::HalfOpen { .. } => {
                self.life.injected = Some("half open");
                self.life.wake = Some(now + HALF_OPEN);
                self.stream.release();
                // An error means that the server was quicker.
                let _ = self.stream.sock_mut().tcp().shutdown(Shutdown::Write);
            }
            Fate::Resets { .. } => {
                self.life.injected = Some("reset");
                self.stream.sock().reset_on_close();
                self.stream.abort();
            }
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        [self.stream.deadline(), self.life.wake, self.stream.sock().resume()].into_iter().flatten().min()
    }

    pub fn expire(&mut self, now: Instant) {
        if self.stream.sock().resume().is_some_and(|at| at <= now) {
            self.stream.sock_mut().resumed();
            self.stream.mark(Readiness { read: true, write: true, ..Readiness::default() });
        }
        if self.life.wake.is_some_and(|at| at <= now) {
            self.life.wake = None;
            match self.life.injected {
                Some(_) => self.stream.abort(),
                None => self.woke = true,
            }
        }
        if self.stream.deadline().is_some_and(|at| at <= now) {
            self.stream.expire(now);
        }
    }

    /// The run is over: pauses are too.
    pub fn hurry(&mut self, now: Instant) {
        if self.life.wake.is_some() {
            self.life.wake = Some(now);
        }
    }

    /// Whether it is slow on purpose.
    pub fn is_slow(&self) -> bool {
        self.stream.sock().is_modem()
    }

    pub fn life(&self) -> &Life {
        &self.life
    }

    /// It is over, or given up: counts what came of it, tells the work, and says whether anything was wrong. `cut`: why it
    /// is given up.
    pub fn finish(mut self, now: Instant, shared: &mut Shared<'_>, cut: Cut) -> bool {
        let fault = self.stream.fault().map(|error| io::Error::new(error.kind(), error.to_string()));
        if cut == Cut::AtEnd {
            self.life.injected.get_or_insert("cut at the end");
        }
        self.talk.ended(&mut self.life, shared, self.stream.machine(), fault.as_ref());
        let Life { kind, client: _, planned, injected, complete, messages, .. } = self.life;
        let (mut trouble, took) = (self.life.trouble.take(), now.saturating_duration_since(planned));
        if trouble.is_none() && !complete && injected.is_none() {
            let (what, text) = match cut {
                Cut::Unfinished => ("unfinished", format!("not over {took:?} after it began, and the run is")),
                _ => why(fault.as_ref()),
            };
            shared.meter.error(kind, what, &text);
            trouble = Some((what, text));
        }
        let sock = self.stream.sock();
        shared.meter.octets(kind, planned, sock.octets_in, sock.octets_out);
        match (&trouble, injected) {
            (None, None) => shared.meter.done(kind, planned, took, messages),
            (None, Some(fault)) => shared.meter.injected(kind, planned, fault),
            _ => {}
        }
        let task = self.talk.task();
        let is_wrong = trouble.is_some();
        shared.work.done(&task, &Outcome { trouble, injected, ended: now });
        is_wrong
    }
}

/// Why a client is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is not: it ended.
    No,
    /// The run is over, and it was slow on purpose.
    AtEnd,
    /// The run is over, and it should have been done by now.
    Unfinished,
}

/// Kind and text of a connection's end that nobody wished.
pub fn why(fault: Option<&io::Error>) -> (&'static str, String) {
    use io::ErrorKind::*;
    let Some(error) = fault else {
        return ("closed early", "the server ended the conversation before its time".to_owned());
    };
    let what = match error.kind() {
        ConnectionRefused => "refused",
        ConnectionReset | BrokenPipe | ConnectionAborted | NotConnected => "reset",
        TimedOut => "timed out",
        InvalidData => "tls",
        UnexpectedEof => "closed early",
        AddrNotAvailable | AddrInUse => "no port",
        _ => "connection",
    };
    (what, error.to_string())
}
