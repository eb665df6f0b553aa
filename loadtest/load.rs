//! What `pop`, `smtp` and `isp` have in common: a run, a line each second, the table, the file, the exit code.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::args::{DONE, FAILED, Load, print};
use crate::meter::Meter;
use crate::report::{json, table};
use crate::run::{Ended, Pace, run};
use crate::work::Work;

/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Does it all. `command` and `args` are for the file.
pub fn perform(command: &str, args: &[String], load: &Load, work: &mut dyn Work) -> u8 {
    let failed = |why: String| {
        eprintln!("loadtest {command}: {why}");
        FAILED
    };
    let most = load.run.pace.most() as u64;
    match dmail::sys::process::raise_descriptor_limit() {
        Ok(limit) if limit >= most + OTHER_DESCRIPTORS => {}
        Ok(limit) => {
            return failed(format!(
                "{most} connections and a limit of {limit} descriptors: raise it (ulimit -n), or give fewer clients"
            ));
        }
        Err(error) => return failed(format!("the limit of descriptors cannot be raised: {error}")),
    }
    let mut meter = Meter::default();
    let mut shown = Shown::new(load.quiet);
    let ended = run(&load.run, work, &mut meter, &mut |meter, since| shown.tick(meter, since));
    shown.clear();
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return failed(format!("the loop cannot go on: {error}")),
    };
    if ended == Ended::Stopped {
        print("Stopped before its time.\n");
    }
    print(&table::table(&meter));
    if let Some(path) = &load.json {
        let words: Vec<&str> = [command].into_iter().chain(args.iter().map(String::as_str)).collect();
        let report = json::report(&words, &load.run, &meter, ended);
        if let Err(error) = std::fs::write(path, format!("{report:#}\n")) {
            return failed(format!("{}: {error}; name a file that can be written", path.display()));
        }
    }
    if meter.count() == 0 && meter.errors() == 0 {
        return failed("nothing was done in that time; give it longer (--duration), or fewer at a time".to_owned());
    }
    if meter.errors() > 0 { FAILED } else { DONE }
}

/// What is begun each second, in words.
pub fn pace(pace: &Pace) -> String {
    match pace {
        Pace::Closed { clients } => format!("{clients} clients"),
        Pace::Open { per_sec, most, .. } => format!("{per_sec} a second, at most {most} at a time"),
    }
}

/// A line that says how it goes, over and over in a terminal.
struct Shown {
    on: bool,
    last: usize,
}

impl Shown {
    fn new(quiet: bool) -> Shown {
        Shown { on: !quiet && std::io::stderr().is_terminal(), last: 0 }
    }

    fn tick(&mut self, meter: &Meter, since: Duration) {
        if !self.on {
            return;
        }
        let rows = meter.series();
        let row = rows.len().checked_sub(2).map(|at| rows[at]).unwrap_or_default();
        let line = format!(
            "{:4} s  {} open  {} done/s  {} messages/s  p99 {:.1} ms  {} errors",
            since.as_secs(),
            meter.in_flight,
            row.done,
            row.messages,
            row.p99_us as f64 / 1000.0,
            meter.errors()
        );
        let _ = write!(std::io::stderr(), "\r{line:0$}", self.last);
        self.last = line.len();
    }

    fn clear(&self) {
        if self.on {
            let _ = write!(std::io::stderr(), "\r{:1$}\r", "", self.last);
        }
    }
}
