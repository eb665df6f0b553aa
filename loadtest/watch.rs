//! The server under test, looked at once a second while a run goes on: what it uses, and at the end its longest turn.
//!
//! It is named by one pid; whatever descends from it counts with it. A DMail tells its longest turn itself, by the `tellpop
//! status` of the executable that runs; of other servers there is none.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sample::{self, Sample};

/// What it used at one look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Use {
    /// Seconds since counting began; less than zero in the warm-up.
    pub at: f64,
    /// Cores that were busy for it since the look before.
    pub cpu: f64,
    pub pss: u64,
    pub private: u64,
    pub files: u64,
    pub processes: u64,
}

/// A server and what it used.
pub struct Watched {
    pub pid: u32,
    /// How it was started.
    pub command: String,
    pub uses: Vec<Use>,
    /// In microseconds, and whose turn it was.
    pub longest_turn: Option<(u64, String)>,
    last: Option<(Instant, Duration)>,
}

impl Watched {
    /// A server that runs. Refuses a pid that no process has.
    pub fn new(pid: u32) -> Result<Watched, String> {
        let words = words(pid);
        if words.is_empty() {
            return Err(format!("there is no process {pid}; give the pid of the server, `pidof dmail` for one"));
        }
        // Figures of nothing would look like figures of a server that uses nothing.
        if let Err(error) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            return Err(format!(
                "the memory of process {pid} cannot be read: {error}; be root or the server's own user, or leave --pid out"
            ));
        }
        Ok(Watched { pid, command: words.join(" "), uses: Vec::new(), longest_turn: None, last: None })
    }

    /// Looks at it; `at` as in [`Use`].
    pub fn look(&mut self, now: Instant, at: f64) {
        let sample = sample::sample(&sample::descendants(self.pid, 0));
        self.note(now, at, sample);
    }

    fn note(&mut self, now: Instant, at: f64, sample: Sample) {
        let Sample { processes, pss, private, cpu: total, files } = sample;
        let cpu = self.last.map_or(0.0, |(then, before)| {
            total.saturating_sub(before).as_secs_f64() / now.saturating_duration_since(then).as_secs_f64().max(0.001)
        });
        self.last = Some((now, total));
        self.uses.push(Use { at, cpu, pss, private, files, processes });
    }

    /// The run is over: asks a DMail for its longest turn.
    pub fn finish(&mut self) {
        let words = words(self.pid);
        let conf = words.iter().position(|word| word == "-i" || word == "-c").and_then(|at| words.get(at + 1));
        let Some(conf) = conf else { return };
        let folder = format!("/proc/{}", self.pid);
        let is_ours = fs::read_link(format!("{folder}/exe")).is_ok_and(|exe| exe.ends_with("dmail"));
        if !is_ours {
            return;
        }
        let mut ask = Command::new(format!("{folder}/exe"));
        ask.args(["tellpop", "-i", conf, "status", "--json"]).current_dir(format!("{folder}/cwd")).stdin(Stdio::null());
        self.longest_turn = ask.output().ok().and_then(|said| longest_turn(&said.stdout));
    }

    /// The most of each that was seen, not all at once.
    pub fn peak(&self) -> Use {
        self.uses.iter().fold(Use::default(), |peak, row| Use {
            at: row.at,
            cpu: peak.cpu.max(row.cpu),
            pss: peak.pss.max(row.pss),
            private: peak.private.max(row.private),
            files: peak.files.max(row.files),
            processes: peak.processes.max(row.processes),
        })
    }

    /// Cores that were busy for it on average in the seconds that were counted: neither in the warm-up nor while the last
    /// clients were waited for.
    pub fn cores(&self, seconds: f64) -> f64 {
        // A look is up to half a second late.
        let is_counted = |row: &&Use| row.at > 0.0 && row.at <= seconds + 0.5;
        let counted: Vec<_> = self.uses.iter().filter(is_counted).map(|row| row.cpu).collect();
        counted.iter().sum::<f64>() / counted.len().max(1) as f64
    }

    #[cfg(test)]
    pub fn made_up(command: &str, uses: Vec<Use>, longest_turn: Option<(u64, String)>) -> Watched {
        Watched { pid: 42, command: command.to_owned(), uses, longest_turn, last: None }
    }
}

/// A process's command line; empty when there is none.
fn words(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn longest_turn(status: &[u8]) -> Option<(u64, String)> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    let turns = status.get("loop")?;
    Some((turns.get("longest_turn_us")?.as_u64()?, turns.get("longest_turn_of")?.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_counted_between_looks_and_peaks_are_each_things_own() {
        let mut watched = Watched::made_up("x", Vec::new(), None);
        let now = Instant::now();
        let sample = |cpu: u64, pss: u64, files: u64| Sample {
            processes: 1,
            pss,
            private: 1,
            cpu: Duration::from_millis(cpu),
            files,
        };
        watched.note(now, -1.0, sample(5000, 10, 90));
        watched.note(now + Duration::from_secs(1), 0.5, sample(5500, 30, 80));
        watched.note(now + Duration::from_secs(3), 2.5, sample(9500, 20, 70));
        assert_eq!(watched.uses.iter().map(|row| row.cpu).collect::<Vec<_>>(), [0.0, 0.5, 2.0]);
        let peak = watched.peak();
        assert_eq!((peak.pss, peak.files, peak.cpu), (30, 90, 2.0));
        assert_eq!(watched.cores(2.1), 1.25);
        assert_eq!(watched.cores(1.0), 0.5, "what came after the end does not count");
    }

    #[test]
    fn a_longest_turn_is_read_from_status_and_from_nothing_else() {
        let status = br#"{"loop": {"faults": 0, "longest_turn_us": 77, "longest_turn_of": "smtp"}, "x": 1}"#;
        assert_eq!(longest_turn(status), Some((77, "smtp".to_owned())));
        assert_eq!(longest_turn(b"dmail: not running"), None);
        assert_eq!(longest_turn(b"{}"), None);
    }

    #[test]
    fn this_process_can_be_watched_and_one_that_is_not_there_cannot() {
        let mut own = Watched::new(std::process::id()).unwrap();
        own.look(Instant::now(), 0.0);
        assert!(own.uses[0].pss > 0 && own.uses[0].files > 2);
        assert!(Watched::new(u32::MAX).is_err());
    }
}
