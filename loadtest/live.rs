//! What is seen while a run goes on: a bar with the last second's figures on a terminal, a line every ten seconds elsewhere.
//! It goes to standard error, so that the table can be piped on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::meter::Meter;
use crate::watch::Watched;

/// Without a terminal, so many seconds between two lines.
const QUIET_SECS: u64 = 10;

/// The view of one run.
pub struct Live {
    bar: ProgressBar,
    planned: Duration,
    last_line: u64,
}

impl Live {
    /// A run that is planned to take so long, warm-up and all.
    pub fn new(title: &str, planned: Duration) -> Live {
        let bar = ProgressBar::new(planned.as_secs());
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} s  {msg}");
        bar.set_style(style.expect("the template is a constant that fits"));
        bar.set_prefix(title.to_owned());
        Live { bar, planned, last_line: 0 }
    }

    /// Once a second.
    pub fn show(&mut self, meter: &Meter, elapsed: Duration, server: Option<&Watched>) {
        let text = if elapsed > self.planned + Duration::from_secs(1) {
            format!("over; {} still under way, which have --patience", meter.in_flight)
        } else {
            line(meter, server)
        };
        if self.bar.is_hidden() {
            if elapsed.as_secs() >= self.last_line + QUIET_SECS {
                self.last_line = elapsed.as_secs();
                eprintln!("{:>5} of {} s  {text}", elapsed.as_secs(), self.planned.as_secs());
            }
            return;
        }
        self.bar.set_position(elapsed.min(self.planned).as_secs());
        self.bar.set_message(text);
    }

    /// The run is over.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The last whole second, in a line.
fn line(meter: &Meter, server: Option<&Watched>) -> String {
    let mut text = match meter.series() {
        // The last row still runs.
        [.., second, _] => format!(
            "{}/s, {} open, p50 {:.1} ms, p99 {:.1} ms, {} wrong",
            second.done,
            meter.in_flight,
            second.p50_us as f64 / 1000.0,
            second.p99_us as f64 / 1000.0,
            meter.errors()
        ),
        _ => format!("warming up, {} open, {} wrong", meter.in_flight, meter.errors()),
    };
    if let Some(last) = server.and_then(|server| server.uses.last()) {
        text += &format!("; server {:.2} cores, {:.2} MB", last.cpu, last.pss as f64 / 1e6);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::watch::Use;

    #[test]
    fn the_line_tells_of_the_last_whole_second() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!(line(&meter, None), "warming up, 0 open, 0 wrong");
        meter.start(start);
        meter.done("poll", start, Duration::from_millis(2), 0);
        meter.tick(start + Duration::from_millis(1100));
        meter.done("poll", start, Duration::from_millis(900), 0);
        meter.error("poll", "reset", "x");
        let server = Watched::made_up("x", vec![Use { cpu: 0.25, pss: 2_500_000, ..Use::default() }], None);
        assert_eq!(
            line(&meter, Some(&server)),
            "1/s, 0 open, p50 2.0 ms, p99 2.0 ms, 1 wrong; server 0.25 cores, 2.50 MB"
        );
    }
}
