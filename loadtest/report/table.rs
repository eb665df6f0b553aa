//! The table at the end.

use std::fmt::Write;

use crate::meter::{Meter, Times};

/// The whole meter as text.
pub fn table(meter: &Meter, seconds: f64) -> String {
    let mut text = format!(
        "{:14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  errors\n",
        "", "count", "per s", "p50 ms", "p90", "p99", "p99.9", "max"
    );
    for (name, kind) in meter.kinds() {
        let errors: u64 = kind.errors.values().map(|errors| errors.count).sum();
        let rate = kind.count as f64 / seconds.max(0.001);
        let _ = writeln!(text, "{name:14} {:>9} {rate:>9.1} {}  {errors}", kind.count, quantiles(&kind.whole));
        for (step, times) in &kind.steps {
            let _ = writeln!(text, "  {step:12} {:>9} {:>9} {}", times.len(), "", quantiles(times));
        }
    }
    for (name, kind) in meter.kinds() {
        for (what, errors) in &kind.errors {
            let _ = writeln!(text, "{name}: {what}: {}", errors.count);
            for first in &errors.first {
                let _ = writeln!(text, "    {first}");
            }
        }
    }
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
