//! The run as one JSON object. Times are in milliseconds, sizes in bytes, shares of the processor in cores.
//!
//! | member    | what                                                                                             |
//! |-----------|--------------------------------------------------------------------------------------------------|
//! | `command`, `title`, `seed`, `seconds`, `version` | what was run, and for how long it was counted             |
//! | `kinds`   | by name: `count`, `per_sec`, `messages`, `octets_in`, `octets_out`, `ms` (p50 ... max), `steps`, `errors`, `injected` |
//! | `series`  | a row a second: `done`, `errors`, `messages`, `octets_in`, `octets_out`, `in_flight`, `p50_ms`, `p99_ms`, `max_ms` |
//! | `server`  | null, or `pid`, `command`, `cores`, `peak`, `longest_turn_us`, `longest_turn_of`, and `uses`, a row a look |

use serde_json::{Map, Value, json};

use super::{QUANTILES, Report, milli};
use crate::meter::{Kind, Times};
use crate::watch::{Use, Watched};

/// Everything that is known.
pub fn json(report: &Report<'_>) -> Value {
    let meter = report.meter;
    let kinds: Map<_, _> =
        meter.kinds().iter().map(|(name, row)| ((*name).to_owned(), kind(row, report.seconds()))).collect();
    let series = meter.series().iter().map(|second| {
        json!({
            "done": second.done, "errors": second.errors, "messages": second.messages, "octets_in": second.octets_in,
            "octets_out": second.octets_out, "in_flight": second.in_flight, "p50_ms": second.p50_us as f64 / 1000.0,
            "p99_ms": second.p99_us as f64 / 1000.0, "max_ms": second.max_us as f64 / 1000.0,
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "title": report.title,
        "command": report.command,
        "seed": report.seed,
        "seconds": report.seconds(),
        "count": meter.count(),
        "errors": meter.errors(),
        "warm": meter.warm(),
        "most_in_flight": meter.most_in_flight,
        "kinds": kinds,
        "series": series.collect::<Vec<_>>(),
        "server": report.server.map(|watched| server(watched, report.seconds())),
    })
}

fn kind(kind: &Kind, seconds: f64) -> Value {
    let steps: Map<_, _> = kind.steps.iter().map(|(name, step)| ((*name).to_owned(), times(step))).collect();
    let errors: Map<_, _> = kind
        .errors
        .iter()
        .map(|(what, errors)| ((*what).to_owned(), json!({ "count": errors.count, "first": errors.first })))
        .collect();
    json!({
        "count": kind.count, "per_sec": kind.count as f64 / seconds, "messages": kind.messages,
        "octets_in": kind.octets_in, "octets_out": kind.octets_out, "ms": times(&kind.whole), "steps": steps,
        "errors": errors, "injected": kind.injected,
    })
}

fn times(times: &Times) -> Value {
    let mut all: Map<_, _> =
        QUANTILES.iter().map(|(name, quantile)| ((*name).to_owned(), json!(milli(times, *quantile)))).collect();
    all.insert("max".to_owned(), json!(times.max() as f64 / 1000.0));
    all.insert("mean".to_owned(), json!(times.mean() / 1000.0));
    all.insert("count".to_owned(), json!(times.len()));
    Value::Object(all)
}

fn server(server: &Watched, seconds: f64) -> Value {
    let (micros, of) = server.longest_turn.clone().unzip();
    json!({
        "pid": server.pid, "command": server.command, "cores": server.cores(seconds), "peak": one(&server.peak()),
        "longest_turn_us": micros, "longest_turn_of": of, "uses": server.uses.iter().map(one).collect::<Vec<_>>(),
    })
}

fn one(row: &Use) -> Value {
    json!({
        "at": row.at, "cores": row.cpu, "pss": row.pss, "private": row.private, "files": row.files,
        "processes": row.processes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{meter, report, watched};
    use super::*;

    #[test]
    fn it_has_every_kind_error_second_and_look_at_the_server() {
        let (meter, command, server) = (meter(), vec!["isp".to_owned(), "-x".to_owned()], watched());
        let value = json(&report(&meter, Some(&server), &command));
        assert_eq!(value["command"], json!(["isp", "-x"]));
        assert_eq!(value["kinds"]["poll"]["count"], 300);
        let p50 = value["kinds"]["poll"]["ms"]["p50"].as_f64().unwrap();
        assert!((p50 - 10.0).abs() < 0.02, "{p50}: three digits are kept");
        assert_eq!(value["kinds"]["poll"]["steps"]["login"]["count"], 300);
        assert_eq!(
            value["kinds"]["poll"]["errors"]["reset"],
            json!({ "count": 1, "first": ["the \"server\" <hung> up"] })
        );
        assert_eq!(value["kinds"]["fetch <all>"]["injected"]["vanished"], 1);
        assert_eq!(value["series"].as_array().unwrap().len(), 4);
        assert_eq!(value["server"]["peak"]["pss"], 2 << 20);
        assert_eq!(value["server"]["longest_turn_of"], "pop3");
        assert_eq!(json(&report(&meter, None, &command))["server"], Value::Null);
    }
}
