//! How a run is shown when it is over: as a table, as JSON, as a page with plots.
//!
//! | file       | for                                                                                  |
//! |------------|--------------------------------------------------------------------------------------|
//! | `table.rs` | a person at the terminal                                                             |
//! | `json.rs`  | a program; everything that is known                                                  |
//! | `html.rs`  | a person with a browser: one file, no script, nothing fetched from anywhere          |
//! | `chart.rs` | one plot as SVG                                                                      |

mod chart;
mod html;
mod json;
mod table;

use std::path::Path;

use crate::meter::{Meter, Times};
use crate::watch::Watched;

/// A run that is over.
pub struct Report<'a> {
    /// What was run: `isp`, `pop` ...
    pub title: &'a str,
    /// The words of the command line, to run it again.
    pub command: &'a [String],
    pub seed: u64,
    pub meter: &'a Meter,
    /// The server under test, if its pid was told.
    pub server: Option<&'a Watched>,
}

impl Report<'_> {
    /// Prints the table, and writes the files that were asked for. Refuses with one sentence that names the file.
    pub fn show(&self, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
        crate::args::print(&table::table(self));
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&json::json(self)).expect("a tree of values can be written");
            write(path, &(text + "\n"))?;
        }
        match html {
            Some(path) => write(path, &html::page(self)),
            None => Ok(()),
        }
    }

    /// Refuses, in one sentence, a file that [`show`](Report::show) could not write: better before the run than after it.
    pub fn can_be_written(files: &[Option<&Path>]) -> Result<(), String> {
        files.iter().flatten().try_for_each(|path| {
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
            opened.map(drop).map_err(|error| unwritable(path, &error))
        })
    }

    /// How long was counted. Never zero.
    fn seconds(&self) -> f64 {
        self.meter.seconds().max(0.001)
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot be written: {error}; name a file in a folder you may write to", path.display())
}

/// The quantiles that are told of every kind, by name.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// A quantile in milliseconds.
fn milli(times: &Times, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

/// What stands behind a dash in a table of numbers: a number as short as its size allows.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e10 => format!("{:.0}G", value / 1e9),
        size if size >= 1e7 => format!("{:.0}M", value / 1e6),
        size if size >= 1e6 => format!("{:.1}M", value / 1e6),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        size if size >= 100.0 || value == value.round() => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::watch::Use;

    /// Three seconds with two kinds of work, one of which went wrong once.
    pub(super) fn meter() -> Meter {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.start(start);
        for second in 0..3u32 {
            for n in 1..=100u64 {
                meter.done("poll", start, Duration::from_micros(200 * n), 0);
                meter.step("poll", start, "login", Duration::from_micros(100));
            }
            meter.done("fetch <all>", start, Duration::from_millis(40), 3);
            meter.octets("fetch <all>", start, 1 << 20, 100);
            meter.tick(start + Duration::from_secs(u64::from(second) + 1));
        }
        meter.error("poll", "reset", "the \"server\" <hung> up");
        meter.injected("fetch <all>", start, "vanished");
        meter.finish(start + Duration::from_millis(3500));
        meter
    }

    pub(super) fn watched() -> Watched {
        let uses =
            (0..4).map(|n| Use { at: f64::from(n), cpu: 0.5, pss: 2 << 20, private: 1 << 20, files: 90, processes: 1 });
        Watched::made_up("dmail serve -i dmail.conf", uses.collect(), Some((1234, "pop3".into())))
    }

    pub(super) fn report<'a>(meter: &'a Meter, server: Option<&'a Watched>, command: &'a [String]) -> Report<'a> {
        Report { title: "isp", command, seed: 7, meter, server }
    }

    #[test]
    fn numbers_are_as_short_as_their_size_allows() {
        let all = [0.0, 0.05, 1.25, 20.0, 123.4, 12_345.0, 1_234_567.0, 12_345_678.0, 12e9];
        assert_eq!(all.map(short), ["0", "0.05", "1.2", "20", "123", "12k", "1.2M", "12M", "12G"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let (meter, command) = (meter(), Vec::new());
        let error = report(&meter, None, &command).show(Some(Path::new("/no/such/folder/x.json")), None).unwrap_err();
        assert!(error.starts_with("/no/such/folder/x.json: cannot be written"), "{error}");
        assert_eq!(Report::can_be_written(&[None, Some(Path::new("/no/such/folder/x.json"))]), Err(error));
        let there = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(there.path(), "kept").unwrap();
        assert_eq!(Report::can_be_written(&[Some(there.path())]), Ok(()));
        assert_eq!(std::fs::read(there.path()).unwrap(), b"kept", "nothing is lost before there is something new");
    }
}
