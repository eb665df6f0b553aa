//! `loadtest smtp`: one kind of SMTP session, over and over; and how letters of a run are numbered.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use getopts::{Matches, Options};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use xxhash_rust::xxh3::xxh3_64;

use crate::args::{self, Load, USAGE};
use crate::letter::{LETTER_MOST, Stamp};
use crate::load;
use crate::pop::order;
use crate::who::{Order, Who};
use crate::work::{Line, Mail, Outcome, Port, SmtpTask, Task, Work};

const USAGE_TEXT: &str = "loadtest smtp --smtp HOST:PORT --accounts N [OPTION ...]

Connects, brings messages, and quits, over and over: with so many clients, or so many a second. Recipients are the accounts.
With --auth the sender is an account too, logs in, and comes to the submission port. Each message can be verified by itself,
wherever it is found later.";

/// Who writes from outside.
pub const STRANGER: &str = "friend@sender.example";

fn options(options: &mut Options) {
    options.optopt("m", "messages", "messages of a connection (1)", "N");
    options.optopt("", "rcpts", "recipients of a message (1)", "N");
    options.optopt("", "to", "bring all of it to this address instead", "ADDRESS");
    options.optopt("b", "bytes", "how long a message is (4000)", "N");
    options.optflag("", "auth", "log in, at the submission port");
    options.optopt("", "tls", "encryption: no, start (STARTTLS), yes (from the first octet; submission) (no)", "HOW");
    options.optopt("", "speed", "octets a second that a client can send: a modem", "N");
    options.optopt("", "order", "accounts come in turns, any (uniform), or some often (skewed) (uniform)", "HOW");
    args::load(options);
}

/// What `-h` prints.
pub fn page() -> String {
    args::page(USAGE_TEXT, options)
}

/// Runs it.
pub fn run(words: &[String]) -> u8 {
    let matches = match args::read(words, USAGE_TEXT, options) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let made = Load::new(&matches, None).and_then(|load| {
        let work = Sessions::new(&matches, &load)?;
        Ok((load, work))
    });
    match made {
        Ok((load, mut work)) => load::perform("smtp", words, &load, &mut work),
        Err(why) => {
            args::refuse(&why, USAGE_TEXT);
            USAGE
        }
    }
}

/// Numbers for the letters of one run: no two runs have the same.
pub struct Numbers {
    id: u64,
    seq: u64,
    began: (Instant, i64),
}

impl Numbers {
    pub fn new(seed: u64, now: Instant) -> Numbers {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let both = [seed.to_le_bytes(), (since.as_nanos() as u64).to_le_bytes()].concat();
        // The highest bit is for letters of made spools.
        Numbers { id: xxh3_64(&both) >> 1, seq: 0, began: (now, since.as_secs() as i64) }
    }

    /// The next letter.
    pub fn mail(&mut self, now: Instant, from: String, to: Vec<String>, bytes: u64) -> Mail {
        self.seq += 1;
        let (began, secs) = self.began;
        let written_secs = secs + now.saturating_duration_since(began).as_secs() as i64;
        Mail { stamp: Stamp { id: self.id, seq: self.seq }, from, to, bytes, written_secs }
    }
}

/// The same session over and over.
struct Sessions {
    who: Who,
    numbers: Numbers,
    messages: usize,
    rcpts: usize,
    to: Option<String>,
    bytes: u64,
    /// Whoever comes to the port of submission logs in.
    port: Port,
    kind: &'static str,
    line: Line,
}

impl Sessions {
    fn new(matches: &Matches, load: &Load) -> Result<Sessions, String> {
        let auth = matches.opt_present("auth");
        let speed = args::number(matches, "speed", 0, 1, u64::from(u32::MAX))? as u32;
        let order = order(matches, Order::Uniform)?;
        let line = Line { tls: args::tls(matches)?, speed: (speed > 0).then_some(speed), ..Line::default() };
        let (port, kind) = if auth { (Port::Submission, "submit") } else { (Port::Smtp, "inbound") };
        load.has_door(&Task::Smtp(SmtpTask { kind, port, auth: None, mails: Vec::new(), line }))?;
        if auth {
            load.has_accounts_enough()?;
        }
        Ok(Sessions {
            who: Who::new(load.accounts.clone(), order, Pcg64::seed_from_u64(load.run.seed)),
            numbers: Numbers::new(load.run.seed, Instant::now()),
            messages: args::number(matches, "messages", 1, 1, 10_000)? as usize,
            rcpts: args::number(matches, "rcpts", 1, 1, load.accounts.count().min(10_000))? as usize,
            to: matches.opt_str("to"),
            bytes: args::number(matches, "bytes", 4000, 1, LETTER_MOST)?,
            port,
            kind,
            line,
        })
    }
}

impl Work for Sessions {
    fn next(&mut self, _client: usize, now: Instant) -> Option<Task> {
        let auth = if self.port == Port::Submission { Some(self.who.take(now)?) } else { None };
        let from = auth.as_ref().map_or(STRANGER.to_owned(), |account| self.who.accounts().address(account.number));
        let mut mails = Vec::with_capacity(self.messages);
        for _ in 0..self.messages {
            let to = match &self.to {
                Some(to) => vec![to.clone()],
                None => self.who.several(self.rcpts),
            };
            mails.push(self.numbers.mail(now, from.clone(), to, self.bytes));
        }
        Some(Task::Smtp(SmtpTask { kind: self.kind, port: self.port, auth, mails, line: self.line }))
    }

    fn done(&mut self, task: &Task, outcome: &Outcome) {
        if let Task::Smtp(SmtpTask { auth: Some(account), .. }) = task {
            self.who.give_back(account.number, outcome.ended, true);
        }
    }
}
