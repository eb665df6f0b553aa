//! One object for machines: what was asked, and everything that was measured. Times are milliseconds.

use serde_json::{Map, Value, json};

use crate::meter::{Kind, Meter, Times};
use crate::run::{Ended, Pace, Run};

/// All of it.
pub fn report(command: &[&str], run: &Run, meter: &Meter, ended: Ended) -> Value {
    let seconds = meter.seconds();
    let kinds: Map<String, Value> =
        meter.kinds().iter().map(|(name, found)| ((*name).to_owned(), kind(found, seconds))).collect();
    let series: Vec<Value> = meter
        .series()
        .iter()
        .map(|row| {
            json!({
                "done": row.done, "errors": row.errors, "messages": row.messages, "octets_in": row.octets_in,
                "octets_out": row.octets_out, "open": row.in_flight, "p50": ms(row.p50_us), "p99": ms(row.p99_us),
                "max": ms(row.max_us),
            })
        })
        .collect();
    let pace = match run.pace {
        Pace::Closed { clients } => json!({ "clients": clients }),
        Pace::Open { per_sec, most, .. } => json!({ "per_sec": per_sec, "most": most }),
    };
    json!({
        "command": command, "seed": run.seed, "pace": pace, "seconds": seconds, "stopped": ended == Ended::Stopped,
        "count": meter.count(), "errors": meter.errors(), "warm": meter.warm(), "most_open": meter.most_in_flight,
        "kinds": kinds, "series": series,
    })
}

fn kind(kind: &Kind, seconds: f64) -> Value {
    let steps: Map<String, Value> = kind.steps.iter().map(|(name, found)| ((*name).to_owned(), times(found))).collect();
    let errors: Map<String, Value> = kind
        .errors
        .iter()
        .map(|(what, found)| ((*what).to_owned(), json!({ "count": found.count, "first": found.first })))
        .collect();
    let mut value = times(&kind.whole);
    value["rate"] = json!(kind.count as f64 / seconds.max(0.001));
    value["messages"] = json!(kind.messages);
    value["octets_in"] = json!(kind.octets_in);
    value["octets_out"] = json!(kind.octets_out);
    value["steps"] = steps.into();
    value["errors"] = errors.into();
    value["injected"] = json!(kind.injected);
    value
}

fn times(times: &Times) -> Value {
    let at = |quantile| ms(times.value_at_quantile(quantile));
    json!({
        "count": times.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": ms(times.max()),
    })
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
