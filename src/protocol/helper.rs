//! The pool of external authenticators: who is asked what, until when, and what becomes of the answer. No I/O and no
//! processes in here: calls in carry `now`; what is to be done comes out of [`Pool::poll`], drained to `None`.
//!
//! | a copy is | it gets here by                       | it leaves by                                              |
//! |-----------|---------------------------------------|-----------------------------------------------------------|
//! | Down      | start, its end                        | its back-off is over: `Act::Spawn`                        |
//! | Starting  | `Spawn`                               | `spawned`, or its end                                     |
//! | Greeting  | `spawned` of a copy that is asked for its version | the answer, or [`VERSION_PATIENCE`]          |
//! | Idle      | `spawned`, an answer                  | a request: `Act::Write`                                   |
//! | Busy      | a request                             | its answer; or silence, garbage, death                    |
//! | Leaving   | it was told to exit                   | its end; [`EXIT_PATIENCE`] is over                        |
//! | Dying     | `Act::Kill`                           | its end                                                   |
//!
//! Promises: every ticket is answered exactly once, within twice the time-out: a copy is found within one, for a second
//! try too, and has one to answer. A copy that was silent past its deadline, spoke unasked or answered garbage is killed, so that a late answer can never reach the next request. A request whose copy
//! died or babbled is tried once more with another copy, if there is time. Silence, death, garbage and `-DEAD` are all
//! *unavailable*, never *refused*. A copy that ends without a single good answer is started again after a back-off that
//! doubles; while all copies are held back so, requests are answered at once.
//!
//! The line protocol is the manual's: `check user password ip`, `lookup user`; `+OK user path|config [uid [info]]`,
//! `-ERR reason`, `-DEAD reason`. Its words cannot hold blanks, so such a request is refused here, before the pipe. A
//! helper that answers `version` with `version 2` gets words percent-escaped instead and may be sent anything. The
//! first copy is asked once; a helper that does not know the word (or says nothing) is started anew and left alone.
//!
//! Words after `version 2` are abilities, and others are passed over: `+OK version 2 scram apop nwauth 0.1.0`. Who names none
//! has none, and what the copy last asked named is what all of them can.
//!
//! | ability | request                     | answer                                                                 |
//! |---------|-----------------------------|-------------------------------------------------------------------------|
//! | `scram` | `scram user ip`             | as to `check`, and before the info `scram=ITERATIONS,SALT,STOREDKEY,SERVERKEY` |
//! | `apop`  | `apop user stamp digest ip` | as to `check`: the helper compares MD5(stamp, password) with the digest |
//!
//! Salt and keys are in base64 ([`Verifier`]). About a user who is not there a helper answers `scram` with a verifier that it
//! makes up and nobody's password fits, the same one each time: `-ERR` would tell that he is not there before anything was
//! proved. The rules of deadline, second try and escapes are the same for all requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::sasl::scram::Verifier;
use crate::text::percent;
use crate::text::printable::printable;
use crate::text::secret::Secret;

/// Longest answer, line end included. Longer is garbage.
pub const ANSWER_LIMIT: usize = 4096;
/// Longest request: one write of at most this is atomic on a pipe (pipe(7)).
pub const REQUEST_LIMIT: usize = 4096;
/// Requests waiting for a free copy; one more is answered `Unavailable` at once.
pub const QUEUE_LIMIT: usize = 4096;
/// How long the first copy may take to say which version it speaks. Passed once in the life of a server.
pub const VERSION_PATIENCE: Duration = Duration::from_secs(2);
/// How long a copy that was told to exit may take to.
pub const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// Back-off of a copy that ended without a good answer: the first, and the longest.
pub const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What an administrator decides about helpers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many copies run.
    pub copies: usize,
    /// How long a request may wait for a copy, and a copy take for its answer.
    pub timeout: Duration,
}

/// Something to ask a helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Do name and password fit? With the client's address.
    Check {
        /// The name, `@domain` included where that is wanted.
        user: Vec<u8>,
        /// As the client sent it.
        password: Secret,
        /// Where the client is.
        from: std::net::IpAddr,
    },
    /// Where is this user's mail?
    Lookup {
        /// The name, `@domain` included where that is wanted.
        user: Vec<u8>,
    },
    /// By what is a proof of this user's password judged? With the client's address.
    Scram {
        /// The name, `@domain` included where that is wanted.
        user: Vec<u8>,
        /// Where the client is.
        from: std::net::IpAddr,
    },
    /// Is this the digest of stamp and password? With the client's address.
    Apop {
        /// The name, `@domain` included where that is wanted.
        user: Vec<u8>,
        /// The greeting's.
        stamp: Box<str>,
        /// 32 hexadecimal digits.
        digest: Secret,
        /// Where the client is.
        from: std::net::IpAddr,
    },
}

/// What a helper can do beyond the manual's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// It answers [`Question::Scram`].
    pub scram: bool,
    /// It answers [`Question::Apop`].
    pub apop: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Name and password fit, or the user exists.
    Accepted(Account),
    /// What a proof is judged by. Nothing is proved yet, not even that there is such a user.
    Verifier(Account, Box<Verifier>),
    /// They do not, or he does not.
    Refused,
    /// Nobody can tell just now. Never to be taken for a wrong password.
    Unavailable,
}

/// What a helper says about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name as the helper has it.
    pub user: Vec<u8>,
    /// The drop file's full path; `None` for `config`: the path follows from the settings.
    pub path: Option<Vec<u8>>,
    /// Who owns the drop file: a number or a name; `None` for nothing, blank or 0.
    pub uid: Option<Vec<u8>>,
    /// The rest of the line: a bare forward address, or `name="value"` pairs.
    pub info: Vec<u8>,
}

impl Account {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let parts = [Some(&self.user), self.path.as_ref(), self.uid.as_ref(), Some(&self.info)];
        size_of::<Account>() + parts.into_iter().flatten().map(Vec::capacity).sum::<usize>()
    }
}

/// What the owner of the processes has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Act<T> {
    /// Start this copy; say [`spawned`](Pool::spawned) or [`ended`](Pool::ended).
    Spawn(usize),
    /// Write these bytes to this copy in one go; say [`ended`](Pool::ended) when that fails.
    Write(usize, Secret),
    /// Kill this copy; say [`ended`](Pool::ended) when it is gone.
    Kill(usize),
    /// This ticket's answer.
    Done(T, Verdict),
    /// For the operator's log.
    Note(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The first copy has not been asked yet, or not answered.
    Unknown,
    One,
    Two,
}

#[derive(Debug)]
enum State<T> {
    Down { until: Option<Instant> },
    Starting,
    Greeting { until: Instant },
    Idle,
    Busy { request: Request<T>, until: Instant },
    Leaving { until: Instant },
    Dying,
}

#[derive(Debug)]
struct Copy<T> {
    state: State<T>,
    line: Vec<u8>,
    /// Ends in a row without a good answer in between.
    failures: u32,
}

#[derive(Debug)]
struct Request<T> {
    ticket: T,
    question: Question,
    until: Instant,
    retried: bool,
}

/// How the pool is doing, for `tellpop status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Copies that can be asked.
    pub alive: usize,
    /// Of those, copies that are working on an answer.
    pub busy: usize,
    /// Requests waiting for a copy.
    pub waiting: usize,
    /// Answers so far.
    pub answered: u64,
    /// Requests that nobody could answer so far.
    pub unavailable: u64,
    /// Times a copy ended or was killed.
    pub ended: u64,
}

/// The pool. `T` says whose question it is.
#[derive(Debug)]
pub struct Pool<T> {
    rules: Rules,
    copies: Vec<Copy<T>>,
    queue: VecDeque<Request<T>>,
    acts: VecDeque<Act<T>>,
    version: Version,
    abilities: Abilities,
    stopping: bool,
    health: Health,
}

impl<T> Pool<T> {
    /// A pool whose copies are started by the first [`poll`](Pool::poll).
    pub fn new(rules: Rules) -> Pool<T> {
        let mut pool = Pool {
            rules,
            copies: Vec::new(),
            queue: VecDeque::new(),
            acts: VecDeque::new(),
            version: Version::Unknown,
            abilities: Abilities::default(),
            stopping: false,
            health: Health::default(),
        };
        pool.copies.resize_with(rules.copies.max(1), Copy::default);
        pool
    }

    /// Asks. The answer comes out of [`poll`](Pool::poll) as `Done`, at once or later.
    pub fn submit(&mut self, now: Instant, ticket: T, question: Question) {
        if self.queue.len() >= QUEUE_LIMIT || self.stopping || self.is_held_back(now) {
            return self.done(ticket, Verdict::Unavailable);
        }
        let until = now + self.rules.timeout;
        self.queue.push_back(Request { ticket, question, until, retried: false });
    }

    /// Whether this copy is to be started still. While that was done the pool may have been stopped.
    pub fn awaits(&self, copy: usize) -> bool {
        matches!(self.copies[copy].state, State::Starting)
    }

    /// The copy was started.
    pub fn spawned(&mut self, now: Instant, copy: usize) {
        if !self.awaits(copy) {
            return;
        }
        self.copies[copy].line.clear();
        if self.version == Version::One {
            self.copies[copy].state = State::Idle;
        } else {
            self.copies[copy].state = State::Greeting { until: now + VERSION_PATIENCE };
            self.acts.push_back(Act::Write(copy, Secret::new(b"version\n".to_vec())));
        }
    }

    /// The copy said something.
    pub fn output(&mut self, now: Instant, copy: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Nobody listens to one that is on its way out.
            if matches!(self.copies[copy].state, State::Leaving { .. } | State::Dying | State::Down { .. }) {
                return;
            }
            let line = &mut self.copies[copy].line;
            let end = memchr::memchr(b'\n', bytes);
            let part = &bytes[..end.map_or(bytes.len(), |at| at + 1)];
            bytes = &bytes[part.len()..];
            if line.len() + part.len() > ANSWER_LIMIT {
                return self.give_up(now, copy, "answered with more than 4096 bytes");
            }
            line.extend_from_slice(part);
            if end.is_some() {
                let line = std::mem::take(line);
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                self.answered(now, copy, text.strip_suffix(b"\r").unwrap_or(text));
            }
        }
    }

    /// The copy is gone, or could not be started.
    pub fn ended(&mut self, now: Instant, copy: usize) {
        let version = self.version;
        let state = std::mem::replace(&mut self.copies[copy].state, State::Down { until: None });
        self.copies[copy].line.clear();
        if self.stopping {
            if let State::Busy { request, .. } = state {
                self.done(request.ticket, Verdict::Unavailable);
            }
            return;
        }
        let expected = matches!(state, State::Dying | State::Down { .. });
        if matches!(state, State::Greeting { .. }) && version == Version::Unknown {
            // It ended because it did not know the word: an answer, in its way.
            self.version = Version::One;
            return;
        }
        if !expected {
            self.health.ended += 1;
            self.copies[copy].failures += 1;
            self.acts.push_back(Act::Note(format!("authenticator {copy} ended")));
        }
        if self.copies[copy].failures > 0 {
            let wait = BACK_OFF.0.saturating_mul(1 << (self.copies[copy].failures - 1).min(16)).min(BACK_OFF.1);
            self.copies[copy].state = State::Down { until: Some(now + wait) };
        }
        if let State::Busy { request, .. } = state {
            self.again(now, request);
        }
    }

    /// Time passed: call when [`deadline`](Pool::deadline) is over.
    pub fn expire(&mut self, now: Instant) {
        for copy in 0..self.copies.len() {
            match self.copies[copy].state {
                State::Greeting { until } if until <= now => {
                    if self.version == Version::Unknown {
                        self.version = Version::One;
                        self.kill(copy);
                    } else {
                        self.give_up(now, copy, "did not say its version");
                    }
                }
                State::Busy { until, .. } if until <= now => {
                    self.give_up(now, copy, "gave no answer in time");
                }
                State::Leaving { until } if until <= now => self.kill(copy),
                _ => {}
            }
        }
        while self.queue.front().is_some_and(|request| request.until <= now) {
            let request = self.queue.pop_front().expect("the line above saw it");
            self.done(request.ticket, Verdict::Unavailable);
        }
    }

    /// When [`expire`](Pool::expire) or [`poll`](Pool::poll) will next have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let of_copies = self.copies.iter().filter_map(|copy| match copy.state {
            State::Down { until } => until,
            State::Greeting { until } | State::Busy { until, .. } | State::Leaving { until } => Some(until),
            State::Starting | State::Idle | State::Dying => None,
        });
        of_copies.chain(self.queue.front().map(|request| request.until)).min()
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Act<T>> {
        if let Some(act) = self.acts.pop_front() {
            return Some(act);
        }
        if self.stopping {
            return None;
        }
        for copy in 0..self.startable() {
            if let State::Down { until } = self.copies[copy].state
                && until.is_none_or(|until| until <= now)
            {
                self.copies[copy].state = State::Starting;
                return Some(Act::Spawn(copy));
            }
        }
        if !self.queue.is_empty()
            && let Some(copy) = self.copies.iter().position(|copy| matches!(copy.state, State::Idle))
        {
            let request = self.queue.pop_front().expect("not empty, says the line above");
            if !self.can(&request.question) {
                return Some(self.judged(request.ticket, Verdict::Unavailable));
            }
            let Some(line) = encode(&request.question, self.version == Version::Two) else {
                return Some(self.judged(request.ticket, Verdict::Refused));
            };
            self.copies[copy].state = State::Busy { request, until: now + self.rules.timeout };
            return Some(Act::Write(copy, line));
        }
        None
    }

    /// Nothing is started or asked any more; who is owed an answer gets `Unavailable` now, and idle copies are told to exit.
    pub fn stop(&mut self, now: Instant) {
        self.retire(now);
        for copy in 0..self.copies.len() {
            if matches!(self.copies[copy].state, State::Busy { .. })
                && let State::Busy { request, .. } = std::mem::replace(&mut self.copies[copy].state, State::Dying)
            {
                self.done(request.ticket, Verdict::Unavailable);
                self.acts.push_back(Act::Kill(copy));
            }
        }
    }

    /// Nothing is started or asked any more; what waits gets `Unavailable`; idle copies are told to exit, and busy ones
    /// when they have answered.
    pub fn retire(&mut self, now: Instant) {
        self.stopping = true;
        for copy in 0..self.copies.len() {
            match self.copies[copy].state {
                State::Idle => self.dismiss(now, copy),
                State::Greeting { .. } | State::Starting => self.kill(copy),
                State::Down { .. } => self.copies[copy].state = State::Down { until: None },
                State::Busy { .. } | State::Leaving { .. } | State::Dying => {}
            }
        }
        for request in std::mem::take(&mut self.queue) {
            self.done(request.ticket, Verdict::Unavailable);
        }
    }

    /// Takes over requests that wait in another pool: the old one's, at a reload.
    pub fn adopt(&mut self, now: Instant, old: &mut Pool<T>) {
        for request in std::mem::take(&mut old.queue) {
            self.submit(now, request.ticket, request.question);
        }
    }

    /// Whether every copy is gone.
    pub fn is_down(&self) -> bool {
        self.copies.iter().all(|copy| matches!(copy.state, State::Down { .. }))
    }

    /// What can be asked beyond name and password. Nothing, as long as no copy has said so.
    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        let busy = self.copies.iter().filter(|copy| matches!(copy.state, State::Busy { .. })).count();
        let idle = self.copies.iter().filter(|copy| matches!(copy.state, State::Idle)).count();
        Health { alive: busy + idle, busy, waiting: self.queue.len(), ..self.health }
    }

    /// Until the first copy has told which version it speaks, it is the only one.
    fn startable(&self) -> usize {
        if self.version == Version::Unknown { 1 } else { self.copies.len() }
    }

    fn can(&self, question: &Question) -> bool {
        match question {
            Question::Check { .. } | Question::Lookup { .. } => true,
            Question::Scram { .. } => self.abilities.scram,
            Question::Apop { .. } => self.abilities.apop,
        }
    }

    /// All copies are waiting out a back-off, so nobody will answer soon.
    fn is_held_back(&self, now: Instant) -> bool {
        self.copies[..self.startable()]
            .iter()
            .all(|copy| copy.failures > 2 && matches!(copy.state, State::Down { until: Some(until) } if until > now))
    }

    fn judged(&mut self, ticket: T, verdict: Verdict) -> Act<T> {
        match verdict {
            Verdict::Unavailable => self.health.unavailable += 1,
            _ => self.health.answered += 1,
        }
        Act::Done(ticket, verdict)
    }

    fn done(&mut self, ticket: T, verdict: Verdict) {
        let act = self.judged(ticket, verdict);
        self.acts.push_back(act);
    }

    fn kill(&mut self, copy: usize) {
        self.copies[copy].state = State::Dying;
        self.acts.push_back(Act::Kill(copy));
    }

    /// Asks a copy to go; if it does not, it is killed.
    fn dismiss(&mut self, now: Instant, copy: usize) {
        self.copies[copy].state = State::Leaving { until: now + EXIT_PATIENCE };
        self.acts.push_back(Act::Write(copy, Secret::new(b"exit\n".to_vec())));
    }

    /// A copy that cannot be trusted any more goes; what it was asked is asked elsewhere, if there is time.
    fn give_up(&mut self, now: Instant, copy: usize, why: &str) {
        self.health.ended += 1;
        self.acts.push_back(Act::Note(format!("authenticator {copy} {why}; killed")));
        self.copies[copy].line.clear();
        self.copies[copy].failures += 1;
        let state = std::mem::replace(&mut self.copies[copy].state, State::Dying);
        self.acts.push_back(Act::Kill(copy));
        if let State::Busy { request, .. } = state {
            self.again(now, request);
        }
    }

    fn again(&mut self, now: Instant, mut request: Request<T>) {
        if request.retried || request.until <= now || self.stopping || self.is_held_back(now) {
            return self.done(request.ticket, Verdict::Unavailable);
        }
        request.retried = true;
        self.queue.push_front(request);
    }

    fn answered(&mut self, now: Instant, copy: usize, line: &[u8]) {
        match std::mem::replace(&mut self.copies[copy].state, State::Idle) {
            State::Greeting { until } => {
                if let Some(abilities) = second_version(line) {
                    self.version = Version::Two;
                    self.abilities = abilities;
                } else if self.version == Version::Unknown {
                    // Whatever that word made it do, it does not do it twice: version 1 copies start clean.
                    self.version = Version::One;
                    self.kill(copy);
                } else {
                    self.copies[copy].state = State::Greeting { until };
                    self.give_up(now, copy, "does not speak version 2 any more");
                }
            }
            State::Busy { request, until } => match decode(line, &request.question, self.version == Version::Two) {
                Ok(verdict) => {
                    self.copies[copy].failures = 0;
                    if verdict == Verdict::Unavailable {
                        self.acts.push_back(Act::Note(format!("authenticator {copy}: {}", printable(line))));
                    }
                    self.done(request.ticket, verdict);
                    if self.stopping {
                        self.dismiss(now, copy);
                    }
                }
                Err(why) => {
                    self.copies[copy].state = State::Busy { request, until };
                    self.give_up(now, copy, why);
                }
            },
            State::Idle => self.give_up(now, copy, "spoke unasked"),
            state => self.copies[copy].state = state,
        }
    }
}

impl<T> Default for Copy<T> {
    fn default() -> Copy<T> {
        Copy { state: State::Down { until: None }, line: Vec::new(), failures: 0 }
    }
}

/// What a helper says it can do, if it speaks version 2.
fn second_version(line: &[u8]) -> Option<Abilities> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).peekable();
    words.next_if_eq(&&b"+OK"[..]);
    if words.next()? != b"version" || words.next()? != b"2" {
        return None;
    }
    let mut abilities = Abilities::default();
    for word in words {
        match word {
            b"scram" => abilities.scram = true,
            b"apop" => abilities.apop = true,
            _ => {}
        }
    }
    Some(abilities)
}

/// The request line, or `None` when it cannot be sent as the words of a line.
fn encode(question: &Question, escaped: bool) -> Option<Secret> {
    let address;
    let (verb, words): (&str, Vec<&[u8]>) = match question {
        Question::Check { user, password, from } => {
            address = from.to_string();
            ("check", vec![user, password.reveal(), address.as_bytes()])
        }
        Question::Lookup { user } => ("lookup", vec![user]),
        Question::Scram { user, from } => {
            address = from.to_string();
            ("scram", vec![user, address.as_bytes()])
        }
        Question::Apop { user, stamp, digest, from } => {
            address = from.to_string();
            ("apop", vec![user, stamp.as_bytes(), digest.reveal(), address.as_bytes()])
        }
    };
    // Made at its full size, so that no growing leaves copies of a password behind.
    let mut line = Vec::with_capacity(REQUEST_LIMIT);
    line.extend_from_slice(verb.as_bytes());
    for word in words {
        line.push(b' ');
        if escaped {
            if word.len() * 3 > REQUEST_LIMIT - line.len() - 1 {
                return None;
            }
            line.extend_from_slice(&percent::encode(word));
        } else {
            let sendable = word.iter().all(|&byte| byte > b' ' && byte != 0x7f) && !word.is_empty();
            if !sendable || word.len() > REQUEST_LIMIT - line.len() - 1 {
                return None;
            }
            line.extend_from_slice(word);
        }
    }
    line.push(b'\n');
    Some(Secret::new(line))
}

/// What an answer line means, or why it is garbage.
fn decode(line: &[u8], question: &Question, escaped: bool) -> Result<Verdict, &'static str> {
    let (verdict, rest) = match memchr::memchr(b' ', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &b""[..]),
    };
    match verdict {
        b"-ERR" => return Ok(Verdict::Refused),
        b"-DEAD" => return Ok(Verdict::Unavailable),
        b"+OK" => {}
        _ => return Err("answered neither +OK, -ERR nor -DEAD"),
    }
    let mut rest = rest.trim_ascii();
    let mut word = || -> Result<Vec<u8>, &'static str> {
        let at = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (word, after) = rest.split_at(at);
        rest = after.trim_ascii_start();
        if escaped { percent::decode(word).ok_or("answered with a bad escape") } else { Ok(word.to_vec()) }
    };
    let (user, path, uid) = (word()?, word()?, word()?);
    let (asked, verifier) = match question {
        Question::Scram { user, .. } => {
            let word = Secret::new(word()?);
            let verifier = word.reveal().strip_prefix(b"scram=").and_then(Verifier::parse);
            (user, Some(verifier.ok_or("answered without a verifier")?))
        }
        Question::Check { user, .. } | Question::Lookup { user } | Question::Apop { user, .. } => (user, None),
    };
    let info = rest.to_vec();
    if !same_user(&user, asked) {
        return Err("answered for another user");
    }
    if path.is_empty() {
        return Err("answered +OK without a drop file");
    }
    if user.iter().chain(&path).chain(&uid).any(|byte| byte.is_ascii_control()) {
        return Err("answered with control characters");
    }
    let account = Account {
        user,
        path: (!path.eq_ignore_ascii_case(b"config")).then_some(path),
        uid: (!uid.is_empty() && uid != b"0").then_some(uid),
        info,
    };
    Ok(match verifier {
        Some(verifier) => Verdict::Verifier(account, Box::new(verifier)),
        None => Verdict::Accepted(account),
    })
}

/// Names are compared case-blind, and a helper may leave the domain away or add it.
fn same_user(answered: &[u8], asked: &[u8]) -> bool {
    fn local(name: &[u8]) -> &[u8] {
        &name[..memchr::memrchr(b'@', name).unwrap_or(name.len())]
    }
    let both = answered.contains(&b'@') && asked.contains(&b'@');
    if both { answered.eq_ignore_ascii_case(asked) } else { local(answered).eq_ignore_ascii_case(local(asked)) }
}

#[cfg(test)]
mod tests;
