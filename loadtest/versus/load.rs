//! Many clients at once, by the engine: polls flat out or at a pace, and mail that is sent. What is measured of a server is
//! measured by the same client as `loadtest pop` and `loadtest smtp` have.
//!
//! Nobody shares an account at one time: a maildrop is for one session. A run with a single error has failed, and says which:
//! a server that turns one in a hundred away is fast for the wrong reason.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::peers::Server;
use super::site::{account, user};
use crate::letter::Stamp;
use crate::meter::Meter;
use crate::run::{Ended, Pace, Run, Spacing, Target, run};
use crate::work::{Acts, End, Event, Line, Mail, PopTask, Port, SmtpTask, Task, Work};

/// A client's patience with one reply.
const PATIENCE: Duration = Duration::from_secs(30);
/// Not counted, when polls go flat out.
const WARM_UP: Duration = Duration::from_millis(300);
/// Polls that may be under way at a pace: more, and the server cannot keep it.
const UNDER_WAY: usize = 2000;
/// The date of what is sent.
const WRITTEN_SECS: i64 = 1_767_607_200;

/// Somebody wants it to end.
pub static STOPPED: AtomicBool = AtomicBool::new(false);

/// What came of polls.
#[derive(Debug, Clone, Copy)]
pub struct Polled {
    pub per_sec: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Which accounts are polled.
#[derive(Debug, Clone, Copy)]
pub struct Accounts {
    pub first: usize,
    pub count: usize,
    /// How far one is from the next.
    pub stride: usize,
}

impl Accounts {
    /// These, one after the other.
    pub fn first(count: usize) -> Accounts {
        Accounts { first: 0, count, stride: 1 }
    }

    fn nth(&self, n: usize) -> usize {
        self.first + n * self.stride
    }
}

struct Polls {
    accounts: Accounts,
    /// Each client has accounts of its own: every so many-th.
    clients: usize,
    /// How often each client has come.
    turns: Vec<usize>,
    /// Whether each account is polled once only.
    once: bool,
    /// In an open loop there is one client, that is everybody.
    arrivals: bool,
}

impl Work for Polls {
    fn next(&mut self, client: usize, _: Instant) -> Option<Task> {
        let turn = self.turns.get_mut(client)?;
        let number = if self.arrivals { *turn } else { *turn * self.clients + client };
        *turn += 1;
        if self.once && number >= self.accounts.count {
            return None;
        }
        // Round and round, and within one client's own.
        let whole = if self.arrivals { self.accounts.count } else { self.accounts.count / self.clients * self.clients };
        let number = if self.once { number } else { number % whole.max(1) };
        Some(Task::Pop(PopTask::new("poll", account(self.accounts.nth(number)), Acts::Poll)))
    }
}

/// Polls by so many clients, each of which begins its next one when the last is over, for that long.
pub fn polls(server: &Server, clients: usize, accounts: Accounts, time: Duration) -> Result<Polled, String> {
    polled(server, Pace::Closed { clients }, accounts, false, WARM_UP, time)
}

/// Each account once, by so many clients: what warms a server, or shows it cold. Fails when it takes longer than `limit`.
pub fn each_once(server: &Server, clients: usize, accounts: Accounts, limit: Duration) -> Result<Polled, String> {
    let begun = Instant::now();
    let polled = polled(server, Pace::Closed { clients }, accounts, true, Duration::ZERO, limit)?;
    let took = begun.elapsed();
    match took < limit {
        true => Ok(Polled { per_sec: accounts.count as f64 / took.as_secs_f64(), ..polled }),
        false => Err(format!("{} accounts could not be polled within {} s", accounts.count, limit.as_secs())),
    }
}

/// So many polls a second, whatever the server does, one account after the other; times count from when each was due.
pub fn steady(server: &Server, per_sec: f64, accounts: Accounts, time: Duration) -> Result<Polled, String> {
    let pace = Pace::Open { per_sec, most: UNDER_WAY, spacing: Spacing::Even };
    polled(server, pace, accounts, false, Duration::ZERO, time)
}

fn polled(
    server: &Server,
    pace: Pace,
    accounts: Accounts,
    once: bool,
    warm_up: Duration,
    time: Duration,
) -> Result<Polled, String> {
    let clients = match pace {
        Pace::Closed { clients } => clients.min(accounts.count),
        Pace::Open { .. } => 1,
    };
    let (pace, arrivals) = match pace {
        Pace::Closed { .. } => (Pace::Closed { clients }, false),
        open => (open, true),
    };
    let mut work = Polls { accounts, clients, turns: vec![0; clients], once, arrivals };
    let mut meter = Meter::default();
    let order = order(server, pace, warm_up, time);
    go(&order, &mut work, &mut meter)?;
    trouble(&meter)?;
    let Some(kind) = meter.kinds().get("poll").filter(|kind| kind.count > 0) else {
        return Err(format!("no poll came to its end within {} s", time.as_secs()));
    };
    let at = |quantile| kind.whole.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Polled { per_sec: kind.count as f64 / time.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) })
}

fn order(server: &Server, pace: Pace, warm_up: Duration, duration: Duration) -> Run {
    let site = &server.site;
    let target = Target {
        pop: Some(site.pop),
        pops: Some(site.pops),
        smtp: Some(site.smtp),
        submission: None,
        smtps: None,
        lmtp: None,
        name: "localhost".to_owned(),
    };
    Run {
        target,
        pace,
        ramp: Duration::ZERO,
        warm_up,
        duration,
        patience: PATIENCE,
        seed: 1,
        loose_sizes: true,
        only_ours: false,
        own_spools: false,
        sources: 1,
    }
}

/// The engine. SIGINT and SIGTERM, which it takes for the end of its run, are meant for all of it.
fn go(order: &Run, work: &mut dyn Work, meter: &mut Meter) -> Result<(), String> {
    match run(order, work, meter, &mut |_, _| {}) {
        Ok(Ended::Planned) => Ok(()),
        Ok(Ended::Stopped) => {
            STOPPED.store(true, Ordering::Relaxed);
            Err("stopped".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The first error, and how many there were.
fn trouble(meter: &Meter) -> Result<(), String> {
    let Some((what, errors)) = meter.kinds().values().flat_map(|kind| &kind.errors).next() else { return Ok(()) };
    let first = errors.first.first().map(String::as_str).unwrap_or_default();
    Err(format!("{what}: {} of {}: {first}", meter.errors(), meter.errors() + meter.count()))
}

/// Mail to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    pub connections: usize,
    /// Messages on each connection.
    pub each: usize,
    /// Messages go to so many accounts in turn.
    pub recipients: usize,
    /// Of this domain.
    pub domain: &'static str,
    pub bytes: u64,
    pub time: Duration,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Sent {
    pub acked: HashSet<Stamp>,
    /// From the first connect to the last acknowledgement.
    pub took: Duration,
}

struct Sends {
    sending: Sending,
    /// The id that all of this run have; each has its sequence.
    id: u64,
    next: u64,
    begun: Instant,
    sent: Sent,
}

impl Work for Sends {
    fn next(&mut self, _: usize, now: Instant) -> Option<Task> {
        if now.saturating_duration_since(self.begun) >= self.sending.time {
            return None;
        }
        let mut mail = || {
            self.next += 1;
            Mail {
                stamp: Stamp { id: self.id, seq: self.next },
                from: "ann@far.test".to_owned(),
                to: vec![format!("{}@{}", user(self.next as usize % self.sending.recipients), self.sending.domain)],
                bytes: self.sending.bytes,
                written_secs: WRITTEN_SECS,
            }
        };
        let mails = (0..self.sending.each).map(|_| mail()).collect();
        Some(Task::Smtp(SmtpTask { kind: "send", port: Port::Smtp, auth: None, mails, line: Line::default() }))
    }

    fn told(&mut self, event: &Event<'_>) {
        if let Event::Told { mail, verdict } = event
            && verdict.end == End::Acked
        {
            self.sent.acked.insert(mail.stamp);
            self.sent.took = self.begun.elapsed();
        }
    }
}

/// Sends for that long; what was begun by then is ended.
pub fn send(server: &Server, id: u64, sending: Sending) -> Result<Sent, String> {
    let mut work = Sends { sending, id, next: 0, begun: Instant::now(), sent: Sent::default() };
    let mut meter = Meter::default();
    let order = order(server, Pace::Closed { clients: sending.connections }, Duration::ZERO, sending.time + PATIENCE);
    go(&order, &mut work, &mut meter)?;
    trouble(&meter)?;
    match work.sent.acked.is_empty() {
        true => Err("nothing was acknowledged".to_owned()),
        false => Ok(work.sent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(count: usize, clients: usize, once: bool) -> Polls {
        let accounts = Accounts::first(count);
        Polls { accounts, clients, turns: vec![0; clients], once, arrivals: false }
    }

    fn asked(work: &mut Polls, client: usize) -> Option<u64> {
        match work.next(client, Instant::now()) {
            Some(Task::Pop(task)) => Some(task.account.number),
            _ => None,
        }
    }

    #[test]
    fn no_two_clients_ever_poll_the_same_account() {
        let mut polls = work(10, 3, false);
        let mut owners = [None; 10];
        for turn in 0..60 {
            let client = turn % 3;
            let number = asked(&mut polls, client).unwrap() as usize;
            assert_eq!(*owners[number].get_or_insert(client), client, "account {number}");
        }
        assert_eq!(owners.iter().flatten().count(), 9);
    }

    #[test]
    fn each_once_visits_every_account_and_ends() {
        let mut polls = work(10, 4, true);
        let mut seen: Vec<u64> =
            (0..4).flat_map(|client| std::iter::from_fn(|| asked(&mut polls, client)).collect::<Vec<_>>()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_stride_spreads_what_is_polled_over_all_accounts() {
        let mut polls = work(3, 1, true);
        polls.accounts = Accounts { first: 5, count: 3, stride: 100 };
        let seen: Vec<_> = std::iter::from_fn(|| asked(&mut polls, 0)).collect();
        assert_eq!(seen, [5, 105, 205]);
    }

    #[test]
    fn nothing_is_begun_after_its_time() {
        let sending = Sending {
            connections: 1,
            each: 3,
            recipients: 2,
            domain: "x.test",
            bytes: 2048,
            time: Duration::from_secs(1),
        };
        let begun = Instant::now();
        let mut sends = Sends { sending, id: 4, next: 0, begun, sent: Sent::default() };
        let Some(Task::Smtp(task)) = sends.next(0, begun) else { panic!("there is time") };
        let seqs: Vec<_> = task.mails.iter().map(|mail| (mail.stamp.id, mail.stamp.seq)).collect();
        assert_eq!(seqs, [(4, 1), (4, 2), (4, 3)]);
        assert!(sends.next(0, begun + sending.time).is_none());
    }
}
