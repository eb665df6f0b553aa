//! `loadtest pop`: one kind of POP3 session, over and over.

use std::time::Instant;

use getopts::{Matches, Options};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::args::{self, Load, USAGE};
use crate::load;
use crate::who::{Order, Who};
use crate::work::{Account, Acts, Line, Outcome, PopTask, Task, Work};

const USAGE_TEXT: &str = "loadtest pop --pop HOST:PORT --accounts N [OPTION ...]

Logs in, does one thing, and quits, over and over: with so many clients, or so many a second. Checks sums, sizes, unique-ids
and the bytes of each message that loadtest made.
    poll     STAT
    fetch    STAT, LIST, RETR and DELE of everything
    leave    STAT, LIST, UIDL, RETR of what is new since the last visit
    retr     STAT, LIST, --times RETRs, from the first message on and round again
    half     STAT, LIST, DELE of every second message
    hold     STAT, then silence for --hold";

/// RETRs of one session: they are planned before the first of them.
const TIMES_MOST: u64 = 1_000_000;

fn options(options: &mut Options) {
    options.optopt("", "act", "what to do: poll, fetch, leave, retr, half or hold (poll)", "ACT");
    options.optopt("", "times", "RETRs of a session of retr (1)", "N");
    options.optopt("", "hold", "silence of a session of hold (60s)", "TIME");
    options.optopt("", "tls", "encryption: no, start (STLS), yes (from the first octet) (no)", "HOW");
    options.optopt("", "speed", "octets a second that a client can take: a modem", "N");
    options.optopt("", "pipeline", "RETRs and DELEs under way at a time (1)", "N");
    options.optopt("", "order", "accounts come in turns, any (uniform), or some often (skewed) (turns)", "HOW");
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
        load.has_door(&work.task(load.accounts.account(0)))?;
        load.has_accounts_enough()?;
        Ok((load, work))
    });
    match made {
        Ok((load, mut work)) => load::perform("pop", words, &load, &mut work),
        Err(why) => {
            args::refuse(&why, USAGE_TEXT);
            USAGE
        }
    }
}

/// The same session with one account after the other.
struct Sessions {
    who: Who,
    kind: &'static str,
    acts: Acts,
    line: Line,
    pipeline: u32,
}

impl Sessions {
    fn new(matches: &Matches, load: &Load) -> Result<Sessions, String> {
        let times = args::number(matches, "times", 1, 1, TIMES_MOST)? as u32;
        let hold = args::time(matches, "hold", 60)?;
        let (kind, acts) = match matches.opt_str("act").as_deref() {
            None | Some("poll") => ("poll", Acts::Poll),
            Some("fetch") => ("fetch", Acts::FetchDelete),
            Some("leave") => ("leave", Acts::Leave),
            Some("retr") => ("retr", Acts::Retrieve(times)),
            Some("half") => ("half", Acts::DeleteHalf),
            Some("hold") => ("hold", Acts::Hold(hold)),
            Some(word) => return Err(format!("--act {word}: it is poll, fetch, leave, retr, half or hold")),
        };
        let speed = args::number(matches, "speed", 0, 1, u64::from(u32::MAX))? as u32;
        let order = order(matches, Order::Turns)?;
        Ok(Sessions {
            who: Who::new(load.accounts.clone(), order, Pcg64::seed_from_u64(load.run.seed)),
            kind,
            acts,
            line: Line { tls: args::tls(matches)?, speed: (speed > 0).then_some(speed), ..Line::default() },
            pipeline: args::number(matches, "pipeline", 1, 1, 1000)? as u32,
        })
    }
}

impl Sessions {
    fn task(&self, account: Account) -> Task {
        let task = PopTask::new(self.kind, account, self.acts);
        Task::Pop(PopTask { pipeline: self.pipeline, line: self.line, ..task })
    }
}

/// In which order accounts come, of an option `order`.
pub fn order(matches: &Matches, usual: Order) -> Result<Order, String> {
    match matches.opt_str("order").as_deref() {
        None => Ok(usual),
        Some("turns") => Ok(Order::Turns),
        Some("uniform") => Ok(Order::Uniform),
        Some("skewed") => Ok(Order::Skewed(0.5)),
        Some(word) => Err(format!("--order {word}: it is turns, uniform or skewed")),
    }
}

impl Work for Sessions {
    fn next(&mut self, _client: usize, now: Instant) -> Option<Task> {
        let account = self.who.take(now)?;
        Some(self.task(account))
    }

    fn done(&mut self, task: &Task, outcome: &Outcome) {
        if let Task::Pop(task) = task {
            self.who.give_back(task.account.number, outcome.ended, outcome.is_clean());
        }
    }
}
