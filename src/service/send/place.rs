//! A place where mail goes, as values: who waits for it, which connections lead there, and what is to be done next. No I/O and no
//! clock; times come in.
//!
//! | a place is | what is done                                                           | it leaves by                              |
//! |------------|------------------------------------------------------------------------|-------------------------------------------|
//! | Unknown    | nothing                                                                | somebody waits: [`Step::Ask`]             |
//! | Asked      | its targets are looked up; whoever comes waits                         | the answer: Known, Closed, or all are lost |
//! | Known      | as many connections as those who wait can use, below its bound          | too old: Unknown; no target is left: Closed |
//! | Closed     | nothing: whoever comes hears why, at once                              | its time is over: Unknown                 |
//!
//! | a line is | means                                                        | it leaves by                                |
//! |-----------|--------------------------------------------------------------|---------------------------------------------|
//! | Calling   | a connection is made and greeted                             | it [`stands`](Place::stands): Idle; its end |
//! | Idle      | it could take a message                                      | Called; its end                             |
//! | Called    | somebody waits, and it was woken                             | [`take`](Place::take): Busy, or Idle        |
//! | Busy      | it has a message                                             | [`settled`](Place::settled): Noting, Idle   |
//! | Leaving   | it says QUIT, and takes nothing                              | its end                                     |
//! | Noting    | what became of that is not on disk yet                       | [`noted`](Place::noted): Idle               |
//! | Gone      | the same, and the connection has ended                       | [`noted`](Place::noted): none               |
//!
//! Lines of every kind count against the bound, so that what a crash leaves in doubt is never more than one message of each. The
//! **bound** begins with [`FIRST`], grows by one with each message that was taken, and halves when the place shows that it has
//! enough: 421, a 4xx to MAIL or to the connection, a connection refused beside others that stand.
//!
//! Targets are tried in their order. One that failed rests for [`REST`]; when all rest and no line stands, the place closes for
//! [`CLOSED`], twice as long each time up to [`CLOSED_MOST`], and those who wait hear the last reason; neither lasts longer than
//! [`resting`](Place::resting) says: a message that comes again when its time is over finds an open door. A target where [`VAIN`] messages
//! in a row broke the connection rests too, though it greets: else a million messages would try that, one by one. Who has waited for [`WAIT`],
//! and for whom no connection is being made, is given back untried: so a slow place holds nobody for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections before a place has taken anything.
pub const FIRST: u16 = 2;
/// How long a target that failed is left alone while there are others.
pub const REST: Duration = Duration::from_secs(300);
/// How long a place is closed at first.
pub const CLOSED: Duration = Duration::from_secs(60);
/// And at most.
pub const CLOSED_MOST: Duration = Duration::from_secs(600);
/// How long somebody waits for a line.
pub const WAIT: Duration = Duration::from_secs(120);
/// How long the bound does not grow after it was halved.
pub const STRAINED: Duration = Duration::from_secs(30);
/// How long a target is spoken to in clear whose handshake failed, before TLS is tried there again.
pub const CLEAR: Duration = Duration::from_secs(3600);
/// Connections that break in the midst of a message, one after the other, before their target rests.
pub const VAIN: u32 = 6;
/// Who may wait at a time.
pub const WAITING: usize = 128;

/// Why nothing goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// An enhanced code, and words.
    pub why: String,
    /// It will not be better later.
    pub never: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Look up its targets; then [`answered`](Place::answered).
    Ask,
    /// Connect to this target, and say so by [`call`](Place::call).
    Call(usize),
    /// Wake this line: somebody waits.
    Wake(u32),
    /// These will not get there now, or ever.
    Lost(Vec<T>, Trouble),
    /// These have waited too long, and were not tried.
    Untried(Vec<T>),
}

/// Why somebody is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// Too many wait: not tried.
    Full,
    /// It is closed: tried in vain.
    Closed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Calling,
    Idle,
    Called,
    Busy,
    Noting,
    Leaving,
    Gone,
}

#[derive(Debug)]
struct Line {
    number: u32,
    target: usize,
    stand: Stand,
}

/// A host's address, and how it does.
#[derive(Debug)]
pub struct Aim<A> {
    /// What is called.
    pub target: A,
    /// A handshake failed there: it is spoken to in clear until then.
    clear: Option<Instant>,
    /// Why it rests, and until when.
    bad: Option<(Instant, Trouble)>,
}

impl<A> Aim<A> {
    /// Whether it is spoken to in clear, because a handshake failed there.
    pub fn is_clear(&self, now: Instant) -> bool {
        self.clear.is_some_and(|until| until > now)
    }
}

#[derive(Debug)]
enum Aims<A> {
    Unknown,
    /// With what was known before.
    Asked(Vec<Aim<A>>),
    Known(Vec<Aim<A>>, Instant),
}

/// See the page. `T` waits; `A` is what can be called.
#[derive(Debug)]
pub struct Place<T, A> {
    most: u16,
    bound: u16,
    /// It does not grow before that.
    strained: Option<Instant>,
    waiting: VecDeque<(Instant, T)>,
    lines: Vec<Line>,
    /// Connections that broke in the midst of a message since the host last said what became of one.
    vain: u32,
    aims: Aims<A>,
    closed: Option<(Instant, String)>,
    /// How long it is closed next.
    pause: Duration,
    /// It is closed no longer than this, and no target rests longer.
    longest: Duration,
}

impl<T, A: PartialEq> Place<T, A> {
    /// A place of which nothing is known, with so many connections at most.
    pub fn new(most: u16) -> Place<T, A> {
        let most = most.max(1);
        Place {
            most,
            bound: FIRST.min(most),
            strained: None,
            waiting: VecDeque::new(),
            lines: Vec::new(),
            vain: 0,
            aims: Aims::Unknown,
            closed: None,
            pause: CLOSED,
            longest: CLOSED_MOST,
        }
    }

    /// It is closed no longer than this, and no target rests longer.
    pub fn resting(self, longest: Duration) -> Place<T, A> {
        Place { longest, ..self }
    }

    /// So many connections at most from now on.
    pub fn limit(&mut self, most: u16) {
        self.most = most.max(1);
        self.bound = self.bound.min(self.most);
    }

    /// Somebody comes. Given back where he cannot wait.
    pub fn offer(&mut self, now: Instant, item: T) -> Result<(), (T, Turned)> {
        if let Some((until, why)) = &self.closed
            && *until > now
        {
            return Err((item, Turned::Closed(why.clone())));
        }
        if self.waiting.len() >= WAITING {
            return Err((item, Turned::Full));
        }
        self.waiting.push_back((now, item));
        Ok(())
    }

    /// Somebody whose line ended comes again, before all others.
    pub fn put_back(&mut self, now: Instant, item: T) {
        self.waiting.push_front((now, item));
    }

    /// What is to be done now; asked until there is nothing. `room`: one more connection may be made to this target.
    pub fn step(&mut self, now: Instant, mut room: impl FnMut(&A) -> bool) -> Option<Step<T>> {
        if self.waiting.is_empty() {
            return None;
        }
        if let Some((until, why)) = &self.closed {
            if *until > now {
                let trouble = Trouble { why: why.clone(), never: false };
                return Some(Step::Lost(self.all(), trouble));
            }
            self.closed = None;
        }
        let alive = self.count(|stand| !matches!(stand, Stand::Gone | Stand::Leaving)) > 0;
        let is_good = |aim: &Aim<A>| aim.bad.as_ref().is_none_or(|(until, _)| *until <= now);
        if let Aims::Known(aims, _) = &mut self.aims
            && !alive
            && !aims.iter().any(is_good)
        {
            let troubles = aims.iter_mut().filter_map(|aim| aim.bad.take()).map(|(_, trouble)| trouble);
            let troubles: Vec<Trouble> = troubles.collect();
            let trouble = troubles.iter().rev().find(|trouble| !trouble.never).or(troubles.last()).cloned();
            let none = || Trouble { why: "4.4.0 there is no host to send to".to_owned(), never: false };
            return Some(self.close(now, trouble.unwrap_or_else(none)));
        }
        // For the first of them connections are being made, whose own patience counts.
        let calling = self.count(|stand| stand == Stand::Calling).min(self.waiting.len());
        if self.waiting.range(calling..).any(|(since, _)| *since + WAIT <= now) {
            let behind = self.waiting.split_off(calling);
            let (late, rest): (Vec<_>, Vec<_>) = behind.into_iter().partition(|(since, _)| *since + WAIT <= now);
            self.waiting.extend(rest);
            return Some(Step::Untried(late.into_iter().map(|(_, item)| item).collect()));
        }
        let coming = self.count(|stand| matches!(stand, Stand::Calling | Stand::Called));
        if coming >= self.waiting.len() {
            return None;
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.stand == Stand::Idle) {
            line.stand = Stand::Called;
            return Some(Step::Wake(line.number));
        }
        match &mut self.aims {
            Aims::Asked(_) => return None,
            Aims::Known(_, until) if *until > now => {}
            _ if self.lines.len() >= usize::from(self.bound) => return None,
            aims => {
                let known = match std::mem::replace(aims, Aims::Unknown) {
                    Aims::Known(known, _) | Aims::Asked(known) => known,
                    Aims::Unknown => Vec::new(),
                };
                *aims = Aims::Asked(known);
                return Some(Step::Ask);
            }
        }
        let Aims::Known(aims, _) = &self.aims else { return None };
        if self.lines.len() >= usize::from(self.bound) {
            return None;
        }
        aims.iter().position(|aim| is_good(aim) && room(&aim.target)).map(Step::Call)
    }

    /// Whether a step would make a connection if there were room for one.
    pub fn is_hungry(&self) -> bool {
        let coming = self.count(|stand| matches!(stand, Stand::Calling | Stand::Called | Stand::Idle));
        coming < self.waiting.len() && self.lines.len() < usize::from(self.bound)
    }

    /// What name servers said, and how long that is believed.
    pub fn answered(&mut self, now: Instant, answer: Result<(Vec<A>, Instant), Trouble>) -> Option<Step<T>> {
        match answer {
            Ok((targets, until)) => {
                let known = match std::mem::replace(&mut self.aims, Aims::Unknown) {
                    Aims::Known(known, _) | Aims::Asked(known) => known,
                    Aims::Unknown => Vec::new(),
                };
                let places: Vec<Option<usize>> =
                    known.iter().map(|aim| targets.iter().position(|target| *target == aim.target)).collect();
                for line in &mut self.lines {
                    // One that is not among them any more is no target.
                    line.target = places.get(line.target).copied().flatten().unwrap_or(usize::MAX);
                }
                let mut aims: Vec<Aim<A>> =
                    targets.into_iter().map(|target| Aim { target, clear: None, bad: None }).collect();
                for (aim, place) in known.into_iter().zip(places) {
                    if let Some(place) = place {
                        aims[place] = aim;
                    }
                }
                self.aims = Aims::Known(aims, until);
                None
            }
            Err(trouble) => {
                self.aims = Aims::Unknown;
                Some(self.close(now, trouble))
            }
        }
    }

    /// Whoever was asked for its targets will not answer.
    pub fn ask_again(&mut self) {
        if matches!(self.aims, Aims::Asked(_)) {
            self.aims = Aims::Unknown;
        }
    }

    fn close(&mut self, now: Instant, trouble: Trouble) -> Step<T> {
        if !trouble.never {
            self.closed = Some((now + self.pause.min(self.longest), trouble.why.clone()));
            self.pause = (self.pause * 2).min(CLOSED_MOST);
            self.aims = Aims::Unknown;
        }
        Step::Lost(self.all(), trouble)
    }

    /// All who wait.
    pub fn all(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|(_, item)| item).collect()
    }

    /// What was asked to be called.
    pub fn aim(&self, target: usize) -> Option<&Aim<A>> {
        match &self.aims {
            Aims::Known(aims, _) => aims.get(target),
            _ => None,
        }
    }

    /// A connection to this target is being made.
    pub fn call(&mut self, line: u32, target: usize) {
        self.lines.push(Line { number: line, target, stand: Stand::Calling });
    }

    /// The other side is there, and wants to hear more.
    pub fn stands(&mut self, line: u32) {
        let Some(line) = self.lines.iter_mut().find(|known| known.number == line) else { return };
        if line.stand == Stand::Calling {
            line.stand = Stand::Idle;
            let target = line.target;
            // One that only greets is not well again.
            if self.vain < VAIN {
                self.pause = CLOSED;
            }
            if let Aims::Known(aims, _) = &mut self.aims
                && let Some(aim) = aims.get_mut(target)
            {
                aim.bad = None;
            }
        }
    }

    /// What a line that can take a message takes.
    pub fn take(&mut self, line: u32) -> Option<T> {
        let line = self.lines.iter_mut().find(|known| known.number == line)?;
        if !matches!(line.stand, Stand::Idle | Stand::Called) {
            return None;
        }
        let taken = self.waiting.pop_front().map(|(_, item)| item);
        line.stand = if taken.is_some() { Stand::Busy } else { Stand::Idle };
        taken
    }

    /// Whether it has nothing to do and nothing to wait for.
    pub fn is_idle(&self, line: u32) -> bool {
        self.lines.iter().any(|known| known.number == line && matches!(known.stand, Stand::Idle | Stand::Called))
    }

    /// It says QUIT: nobody hopes for it any more.
    pub fn leaves(&mut self, line: u32) {
        if let Some(line) = self.lines.iter_mut().find(|known| known.number == line)
            && matches!(line.stand, Stand::Idle | Stand::Called)
        {
            line.stand = Stand::Leaving;
        }
    }

    /// Whether what became of its message is not on disk yet.
    pub fn is_owed(&self, line: u32) -> bool {
        self.lines.iter().any(|known| known.number == line && known.stand == Stand::Noting)
    }

    /// The host has said what became of a message, whatever it was.
    pub fn answers(&mut self) {
        self.vain = 0;
    }

    /// Whether there is such a line.
    pub fn has(&self, line: u32) -> bool {
        self.lines.iter().any(|known| known.number == line)
    }

    /// A line is done with its message. `owed`: somebody is to write down what became of it, and will say so.
    pub fn settled(&mut self, line: u32, owed: bool) {
        if let Some(line) = self.lines.iter_mut().find(|known| known.number == line)
            && line.stand == Stand::Busy
        {
            line.stand = if owed { Stand::Noting } else { Stand::Idle };
        }
    }

    /// That is on disk. True: the line can take another.
    pub fn noted(&mut self, line: u32) -> bool {
        let Some(at) = self.lines.iter().position(|known| known.number == line) else { return false };
        match self.lines[at].stand {
            Stand::Noting => self.lines[at].stand = Stand::Idle,
            Stand::Gone => {
                self.lines.swap_remove(at);
                return false;
            }
            _ => return false,
        }
        true
    }

    /// A message was taken: one connection more may be made than before.
    pub fn good(&mut self, now: Instant) {
        self.answers();
        if self.strained.is_none_or(|until| until <= now) {
            self.strained = None;
            self.bound = (self.bound + 1).min(self.most);
        }
    }

    /// It has enough of us.
    pub fn strain(&mut self, now: Instant) {
        // What several connections say together is said once.
        if self.strained.is_none_or(|until| until <= now + STRAINED / 2) {
            self.bound = (self.bound / 2).max(1);
        }
        self.strained = Some(now + STRAINED);
    }

    /// The connection of a line has ended; by this trouble, if by one.
    pub fn ended(&mut self, now: Instant, line: u32, trouble: Option<Trouble>) {
        let Some(at) = self.lines.iter().position(|known| known.number == line) else { return };
        let Line { target, stand, .. } = self.lines[at];
        match stand {
            Stand::Noting => self.lines[at].stand = Stand::Gone,
            Stand::Gone => return,
            _ => drop(self.lines.swap_remove(at)),
        }
        let Some(trouble) = trouble else { return };
        let stands = |line: &Line| !matches!(line.stand, Stand::Calling | Stand::Gone) && line.target == target;
        let others_stand = self.lines.iter().any(stands);
        let rest = REST.min(self.longest);
        let Aims::Known(aims, _) = &mut self.aims else { return };
        let is_good = |aim: &Aim<A>| aim.bad.as_ref().is_none_or(|(until, _)| *until <= now);
        let others = aims.iter().enumerate().any(|(other, aim)| other != target && is_good(aim));
        let Some(aim) = aims.get_mut(target) else { return };
        match stand {
            // It has enough, and is there.
            Stand::Calling if others_stand => self.strain(now),
            Stand::Calling => {
                aim.bad = Some((now + rest, trouble));
                // It has the same time for another.
                if let Some((since, _)) = self.waiting.front_mut() {
                    *since = now;
                }
            }
            // One that breaks in the midst is left for another, where there is one; and if it does nothing else, for a while.
            Stand::Busy | Stand::Noting => {
                self.vain = self.vain.saturating_add(1);
                if stand == Stand::Busy && others && !others_stand || self.vain >= VAIN {
                    aim.bad = Some((now + rest, trouble));
                }
            }
            _ => {}
        }
    }

    /// The handshake with the target of this line failed: for [`CLEAR`] it is spoken to in clear. False: it was.
    pub fn speak_clear(&mut self, now: Instant, line: u32) -> bool {
        let target = self.lines.iter().find(|known| known.number == line).map(|line| line.target);
        let Aims::Known(aims, _) = &mut self.aims else { return false };
        let Some(aim) = target.and_then(|target| aims.get_mut(target)) else { return false };
        let was = aim.is_clear(now);
        aim.clear = Some(now + CLEAR);
        !was
    }

    /// It is tried again at once, whatever happened.
    pub fn reopen(&mut self) {
        self.closed = None;
        self.vain = 0;
        self.pause = CLOSED;
        if let Aims::Known(aims, _) = &mut self.aims {
            aims.iter_mut().for_each(|aim| aim.bad = None);
        }
    }

    /// When a [`step`](Place::step) will do something that it does not now, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let calling = self.count(|stand| stand == Stand::Calling).min(self.waiting.len());
        let first = self.waiting.range(calling..).map(|(since, _)| *since + WAIT).min()?;
        let rested = match &self.aims {
            Aims::Known(aims, _) => aims.iter().filter_map(|aim| aim.bad.as_ref().map(|(until, _)| *until)).min(),
            _ => None,
        };
        Some(rested.map_or(first, |rested| first.min(rested)))
    }

    /// Whether nothing is to be remembered of it.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        let closed = self.closed.as_ref().is_some_and(|(until, _)| *until > now);
        let asked = matches!(self.aims, Aims::Asked(_));
        self.waiting.is_empty() && self.lines.is_empty() && !closed && !asked
    }

    /// Whether nobody waits and nothing is open or asked: what is lost with it is what it has learnt.
    pub fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.lines.is_empty() && !matches!(self.aims, Aims::Asked(_))
    }

    /// Those who wait, in their order.
    #[cfg(test)]
    pub(super) fn who_waits(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, item)| item)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Connections, and those whose last message is not noted.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Until when it is closed, and why.
    pub fn closed(&self, now: Instant) -> Option<(Instant, &str)> {
        self.closed.as_ref().filter(|(until, _)| *until > now).map(|(until, why)| (*until, &**why))
    }

    /// How many connections there may be now.
    pub fn bound(&self) -> u16 {
        self.bound
    }

    fn count(&self, is: impl Fn(Stand) -> bool) -> usize {
        self.lines.iter().filter(|line| is(line.stand)).count()
    }
}
