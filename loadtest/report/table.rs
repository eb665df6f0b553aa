//! The table at the end.

use std::fmt::Write;

use crate::meter::{Meter, Times};

/// The whole meter as text.
pub fn table(meter: &Meter) -> String {
    let seconds = meter.seconds();
    let mut text = format!(
        "{:14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
        "ms", "count", "per s", "messages", "MB", "p50", "p90", "p99", "p99.9", "max", "errors"
    );
    for (name, kind) in meter.kinds() {
        let errors: u64 = kind.errors.values().map(|errors| errors.count).sum();
        let rate = kind.count as f64 / seconds.max(0.001);
        let megabytes = (kind.octets_in + kind.octets_out) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name:14} {:>9} {rate:>9.1} {:>9} {megabytes:>9.1} {} {errors:>7}",
            kind.count,
            kind.messages,
            quantiles(&kind.whole)
        );
        for (step, times) in &kind.steps {
            let _ = writeln!(text, "  {step:12} {:>9} {:>29} {}", times.len(), "", quantiles(times));
        }
        for (fault, count) in &kind.injected {
            let _ = writeln!(text, "  {fault:12} {count:>9} on purpose");
        }
    }
    for (name, kind) in meter.kinds() {
        for (what, errors) in &kind.errors {
            let _ = writeln!(text, "error: {name}: {what}: {}", errors.count);
            for first in &errors.first {
                let _ = writeln!(text, "    {first}");
            }
        }
    }
    let _ = writeln!(
        text,
        "{} done in {seconds:.1} s, {} errors; {} before counting began; at most {} connections at a time",
        meter.count(),
        meter.errors(),
        meter.warm(),
        meter.most_in_flight
    );
    text
}

fn quantiles(times: &Times) -> String {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    format!(
        "{:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        times.max() as f64 / 1000.0
    )
}
