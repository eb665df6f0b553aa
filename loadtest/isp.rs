//! `loadtest isp`: a provider's mixed day, over all accounts.
//!
//! [`DAY`] is the mix: each kind has a share, a number that counts against the sum of all. What a kind does is in
//! [`Day::task`]. A share of nothing leaves the kind out; so does a door that no address is given for.

use std::time::{Duration, Instant};

use getopts::{Matches, Options};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use rand_pcg::Pcg64;

use crate::args::{self, Load, USAGE};
use crate::load;
use crate::smtp::{Numbers, STRANGER};
use crate::who::{Order, Who};
use crate::work::{Account, Acts, Fate, Line, Outcome, PopTask, Port, SmtpTask, Task, Tls, Work};

const USAGE_TEXT: &str = "loadtest isp --spool DIR [OPTION ...]

A provider's mixed day over all accounts: sessions of the kinds below, each so often as its share says, in a closed loop
(--clients) or an open one (--rate, 100 a second if neither is said: users of a provider do not wait for each other, whereas a
few clients of a closed loop soon are all modems, idlers and dead peers). What goes wrong on purpose (dead peers, wrong passwords) is told apart from errors.";

/// Kinds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Poll,
    Fetch,
    Leave,
    Modem,
    Hold,
    Wrong,
    Dead,
    Submit,
    Attach,
    Inbound,
    DeadSender,
}

/// A row of the mix.
struct Row {
    kind: Kind,
    name: &'static str,
    /// Of a thousand, as it comes.
    share: f64,
    help: &'static str,
}

/// The day as it comes: of a thousand sessions, so many.
const DAY: &[Row] = &[
    Row { kind: Kind::Poll, name: "poll", share: 620.0, help: "log in, STAT, quit" },
    Row {
        kind: Kind::Fetch,
        name: "fetch",
        share: 120.0,
        help: "fetch and delete all; leave it, where it is an archive",
    },
    Row { kind: Kind::Leave, name: "leave", share: 80.0, help: "fetch what is new, and leave it on the server" },
    Row { kind: Kind::Modem, name: "modem", share: 5.0, help: "fetch up to three messages at 3 or 7 KB a second" },
    Row { kind: Kind::Hold, name: "hold", share: 5.0, help: "stay logged in and silent for --hold" },
    Row { kind: Kind::Wrong, name: "wrong", share: 10.0, help: "log in with a wrong password" },
    Row {
        kind: Kind::Dead,
        name: "dead",
        share: 5.0,
        help: "vanish, half close or reset amid a message being fetched",
    },
    Row { kind: Kind::Submit, name: "submit", share: 50.0, help: "log in at the submission port, bring a message" },
    Row { kind: Kind::Attach, name: "attach", share: 10.0, help: "the same, with a big attachment" },
    Row { kind: Kind::Inbound, name: "inbound", share: 90.0, help: "from outside: up to 10 messages to up to 5 each" },
    Row {
        kind: Kind::DeadSender,
        name: "dead-sender",
        share: 5.0,
        help: "vanish, half close or reset amid a message brought",
    },
];

/// Sessions that begin each second, where nobody says otherwise.
const USUAL_RATE: f64 = 100.0;
/// A box with more messages than that is an archive: nobody fetches and deletes it at once.
const ARCHIVE: u32 = 200;
/// Text that passes before a peer dies, at most.
const DEAD_AFTER: u32 = 6000;
/// A modem's speeds, octets a second.
const MODEMS: [u32; 2] = [3_000, 7_000];
/// Messages that a modem waits for.
const MODEM_MESSAGES: u32 = 3;
/// Bytes of messages as they come: the median, how far they spread, and the bounds.
const TEXT: Sizes = Sizes { median: 3_000.0, sigma: 1.2, least: 600.0, most: 500_000.0 };
/// The same for those with big attachments.
const ATTACHMENT: Sizes = Sizes { median: 1_500_000.0, sigma: 0.9, least: 200_000.0, most: 20_000_000.0 };
/// Messages of a connection from outside, at most; and recipients of one.
const BURST: u64 = 10;
const RCPTS: u64 = 5;

/// A log-normal law with bounds.
struct Sizes {
    median: f64,
    sigma: f64,
    least: f64,
    most: f64,
}

impl Sizes {
    fn draw(&self, random: &mut Pcg64) -> u64 {
        let law = LogNormal::new(self.median.ln(), self.sigma).expect("the laws are constants with a spread");
        law.sample(random).clamp(self.least, self.most) as u64
    }
}

fn options(options: &mut Options) {
    options.optmulti("s", "share", "another share of a kind below; 0 leaves it out", "KIND=N");
    options.optopt("", "hold", "silence of a session of hold (60s)", "TIME");
    options.optopt("", "silence", "how long a dead peer keeps its socket (20s)", "TIME");
    options.optopt(
        "",
        "skewed",
        "visits that go to a few favourite accounts (Zipf), the rest to any, in percent (50)",
        "N",
    );
    options.optopt(
        "",
        "tls",
        "sessions within TLS, half of them by STLS or STARTTLS, in percent (20; 0 without --pops)",
        "N",
    );
    args::load(options);
}

/// What `-h` prints.
pub fn page() -> String {
    let mut text = args::page(USAGE_TEXT, options) + "\nKinds, and their shares:\n";
    for Row { name, share, help, .. } in DAY {
        text += &format!("    {name:12} {share:>5}  {help}\n");
    }
    text
}

/// Runs it.
pub fn run(words: &[String]) -> u8 {
    if words.iter().any(|word| word == "-h" || word == "--help") {
        args::print(&page());
        return args::DONE;
    }
    let matches = match args::read(words, USAGE_TEXT, options) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let made = Load::new(&matches, Some(USUAL_RATE)).and_then(|load| {
        let day = Day::new(&matches, &load)?;
        load.has_accounts_enough()?;
        Ok((load, day))
    });
    match made {
        Ok((load, mut day)) => load::perform("isp", words, &load, &mut day),
        Err(why) => {
            args::refuse(&why, USAGE_TEXT);
            USAGE
        }
    }
}

/// The day.
struct Day {
    who: Who,
    numbers: Numbers,
    random: Pcg64,
    /// Kinds, each with the sum of the shares up to it.
    kinds: Vec<(Kind, f64)>,
    hold: Duration,
    silence: Duration,
    /// Parts of sessions within TLS: by STLS and STARTTLS, and from the first octet.
    start_tls: f64,
    tls: f64,
    /// There is a port of submission with TLS from the first octet.
    smtps: bool,
}

impl Day {
    fn new(matches: &Matches, load: &Load) -> Result<Day, String> {
        let target = &load.run.target;
        let mut shares: Vec<f64> = DAY.iter().map(|row| row.share).collect();
        for (row, share) in DAY.iter().zip(&mut shares) {
            let door = match row.kind {
                Kind::Submit | Kind::Attach => target.submission,
                Kind::Inbound | Kind::DeadSender => target.smtp,
                _ => target.pop,
            };
            if door.is_none() {
                *share = 0.0;
            }
        }
        for text in matches.opt_strs("share") {
            let wrong = || format!("--share {text}: it is KIND=N, as in poll=500; loadtest isp -h lists the kinds");
            let (name, share) = text.split_once('=').ok_or_else(wrong)?;
            let at = DAY.iter().position(|row| row.name == name).ok_or_else(wrong)?;
            shares[at] = share.parse().ok().filter(|share| (0.0..=1e9).contains(share)).ok_or_else(wrong)?;
        }
        let mut sum = 0.0;
        let mut kinds = Vec::new();
        for (row, share) in DAY.iter().zip(shares).filter(|(_, share)| *share > 0.0) {
            sum += share;
            kinds.push((row.kind, sum));
        }
        if kinds.is_empty() {
            return Err("there is nothing to do: give --spool, or --pop, --smtp and --submission".to_owned());
        }
        let percent =
            |option, usual| args::number(matches, option, usual, 0, 100).map(|percent| percent as f64 / 100.0);
        let within = percent("tls", if target.pops.is_some() { 20 } else { 0 })?;
        let mut random = Pcg64::seed_from_u64(load.run.seed);
        let order = Order::Skewed(percent("skewed", 50)?);
        let whose = Pcg64::seed_from_u64(random.random());
        Ok(Day {
            who: Who::new(load.accounts.clone(), order, whose),
            numbers: Numbers::new(load.run.seed, Instant::now()),
            random,
            kinds,
            hold: args::time(matches, "hold", 60)?,
            silence: args::time(matches, "silence", 20)?,
            start_tls: within / 2.0,
            tls: if target.pops.is_some() { within / 2.0 } else { 0.0 },
            smtps: target.smtps.is_some(),
        })
    }

    fn task(&mut self, kind: Kind, now: Instant) -> Option<Task> {
        let line = self.line();
        let pop = |name, account, acts| PopTask { line, ..PopTask::new(name, account, acts) };
        Some(Task::Pop(match kind {
            Kind::Poll => pop("poll", self.who.take(now)?, Acts::Poll),
            Kind::Fetch => PopTask { leave_above: ARCHIVE, ..pop("fetch", self.who.take(now)?, Acts::FetchDelete) },
            Kind::Leave => pop("leave", self.who.take(now)?, Acts::Leave),
            Kind::Modem => {
                let speed = Some(MODEMS[self.random.random_range(0..MODEMS.len())]);
                let task = pop("modem", self.who.take(now)?, Acts::Retrieve(MODEM_MESSAGES));
                PopTask { line: Line { speed, ..line }, ..task }
            }
            Kind::Hold => pop("hold", self.who.take(now)?, Acts::Hold(self.hold)),
            Kind::Wrong => {
                let account = self.who.take(now)?;
                let password = format!("not-{}", account.password);
                PopTask { wrong_password: true, ..pop("wrong", Account { password, ..account }, Acts::Poll) }
            }
            Kind::Dead => {
                let fate = self.fate();
                let task = pop("dead", self.who.take(now)?, Acts::Retrieve(MODEM_MESSAGES));
                PopTask { line: Line { fate, ..line }, ..task }
            }
            Kind::Submit => return self.submission("submit", &TEXT, now),
            Kind::Attach => return self.submission("attach", &ATTACHMENT, now),
            Kind::Inbound => return Some(self.inbound(now)),
            Kind::DeadSender => {
                let fate = self.fate();
                let Task::Smtp(task) = self.inbound(now) else { unreachable!("mail comes by SMTP") };
                return Some(Task::Smtp(SmtpTask { kind: "dead-sender", line: Line { fate, ..task.line }, ..task }));
            }
        }))
    }

    fn submission(&mut self, kind: &'static str, sizes: &Sizes, now: Instant) -> Option<Task> {
        let account = self.who.take(now)?;
        let from = self.who.accounts().address(account.number);
        let count = 1 + self.random.random_range(0..2);
        let (to, bytes) = (self.who.several(count), sizes.draw(&mut self.random));
        let mails = vec![self.numbers.mail(now, from, to, bytes)];
        let mut line = self.line();
        if line.tls == Tls::Tls && !self.smtps {
            line.tls = Tls::StartTls;
        }
        Some(Task::Smtp(SmtpTask { kind, port: Port::Submission, auth: Some(account), mails, line }))
    }

    /// From another server, which has several messages or one; most have one recipient.
    fn inbound(&mut self, now: Instant) -> Task {
        let few =
            |random: &mut Pcg64, most: u64| if random.random_bool(0.7) { 1 } else { random.random_range(1..=most) };
        let messages = few(&mut self.random, BURST);
        let mut mails = Vec::with_capacity(messages as usize);
        for _ in 0..messages {
            let rcpts = few(&mut self.random, RCPTS);
            let (to, bytes) = (self.who.several(rcpts as usize), TEXT.draw(&mut self.random));
            mails.push(self.numbers.mail(now, STRANGER.to_owned(), to, bytes));
        }
        // Port 25 has no TLS from the first octet.
        let tls = if self.random.random_bool(self.start_tls) { Tls::StartTls } else { Tls::Plain };
        Task::Smtp(SmtpTask {
            kind: "inbound",
            port: Port::Smtp,
            auth: None,
            mails,
            line: Line { tls, ..Line::default() },
        })
    }

    fn line(&mut self) -> Line {
        let drawn: f64 = self.random.random();
        let tls = match drawn {
            drawn if drawn < self.start_tls => Tls::StartTls,
            drawn if drawn < self.start_tls + self.tls => Tls::Tls,
            _ => Tls::Plain,
        };
        Line { tls, ..Line::default() }
    }

    fn fate(&mut self) -> Fate {
        let after = self.random.random_range(0..DEAD_AFTER);
        match self.random.random_range(0..3) {
            0 => Fate::Vanishes { after, silent: self.silence },
            1 => Fate::HalfOpen { after },
            _ => Fate::Resets { after },
        }
    }
}

impl Work for Day {
    fn next(&mut self, _client: usize, now: Instant) -> Option<Task> {
        let sum = self.kinds.last().map(|(_, sum)| *sum)?;
        let drawn = self.random.random_range(0.0..sum);
        let (kind, _) = *self.kinds.iter().find(|(_, upto)| drawn < *upto)?;
        self.task(kind, now)
    }

    fn done(&mut self, task: &Task, outcome: &Outcome) {
        match task {
            Task::Pop(task) => self.who.give_back(task.account.number, outcome.ended, outcome.is_clean()),
            Task::Smtp(SmtpTask { auth: Some(account), .. }) => {
                self.who.give_back(account.number, outcome.ended, true);
            }
            Task::Smtp(_) => {}
        }
    }
}
