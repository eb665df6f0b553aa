//! The table at the end: a row for each kind of work, its steps below it, then what went wrong, then the server.

use std::fmt::Write;

use super::{QUANTILES, Report, milli, short};
use crate::meter::Times;

/// The whole run as text.
pub fn table(report: &Report<'_>) -> String {
    let (meter, seconds) = (report.meter, report.seconds());
    let mut text = format!(
        "\n{}, {seconds:.0} s counted, seed {}\n\n{:18} {:>9} {:>9} {:>8}",
        report.title, report.seed, "", "count", "per s", "MB/s"
    );
    for (name, _) in QUANTILES {
        let _ = write!(text, " {:>9}", format!("{name} ms"));
    }
    text += "    max ms   errors\n";
    for (name, kind) in meter.kinds() {
        let errors: u64 = kind.errors.values().map(|errors| errors.count).sum();
        let mega = (kind.octets_in + kind.octets_out) as f64 / 1e6 / seconds;
        let rate = kind.count as f64 / seconds;
        let _ =
            writeln!(text, "{name:18} {:>9} {rate:>9.1} {mega:>8.2}{} {errors:>8}", kind.count, quantiles(&kind.whole));
        for (step, times) in &kind.steps {
            let _ = writeln!(text, "  {step:16} {:>9} {:>9} {:>8}{}", times.len(), "", "", quantiles(times));
        }
    }
    let injected: Vec<_> =
        meter.kinds().iter().flat_map(|(name, kind)| kind.injected.iter().map(move |row| (name, row))).collect();
    if !injected.is_empty() {
        text += "\nmeant to be, and no errors:\n";
        for (name, (fault, count)) in injected {
            let _ = writeln!(text, "  {name}: {fault}: {count}");
        }
    }
    if meter.errors() > 0 {
        text += "\nwrong:\n";
    }
    for (name, kind) in meter.kinds() {
        for (what, errors) in &kind.errors {
            let _ = writeln!(text, "  {name}: {what}: {}", errors.count);
            for first in &errors.first {
                let _ = writeln!(text, "      {}", dmail::text::printable::visible(first));
            }
        }
    }
    if let Some(server) = report.server {
        let peak = server.peak();
        let _ = writeln!(
            text,
            "\nserver {} ({}): {:.2} cores on average; at most {:.2} MB Pss, {:.2} MB private, {} descriptors, {} processes",
            server.pid,
            server.command,
            server.cores(report.seconds()),
            peak.pss as f64 / 1e6,
            peak.private as f64 / 1e6,
            peak.files,
            peak.processes
        );
        if let Some((micros, of)) = &server.longest_turn {
            let _ = writeln!(text, "its longest turn since it started: {} ms, of {of}", short(*micros as f64 / 1000.0));
        }
    }
    text
}

fn quantiles(times: &Times) -> String {
    let mut text = String::new();
    for (_, quantile) in QUANTILES {
        let _ = write!(text, " {:>9.2}", milli(times, quantile));
    }
    let _ = write!(text, " {:>9.2}", times.max() as f64 / 1000.0);
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{meter, report, watched};
    use super::*;

    #[test]
    fn every_kind_has_its_row_with_rate_quantiles_and_errors() {
        let (meter, command, server) = (meter(), Vec::new(), watched());
        let text = table(&report(&meter, Some(&server), &command));
        let row = text.lines().find(|line| line.starts_with("poll ")).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["poll", "300", "85.7", "0.00", "10.01", "18.02", "19.81", "20.02", "20.02", "1"]);
        assert!(text.contains("  poll: reset: 1\n      the \"server\" <hung> up\n"), "{text}");
        assert!(text.contains("  fetch <all>: vanished: 1\n"), "{text}");
        assert!(text.contains("0.50 cores on average; at most 2.10 MB Pss"), "{text}");
        assert!(text.contains("its longest turn since it started: 1.2 ms, of pop3"), "{text}");
    }
}
