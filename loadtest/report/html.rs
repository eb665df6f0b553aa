//! The run as a page: what was run, the figures that matter, and plots over time. One file without scripts; it fetches nothing.

use std::fmt::Write;

use super::chart::{Chart, Scale, Series, escape, thin};
use super::{Report, milli, short, table};
use crate::meter::Second;
use crate::watch::Use;

/// Light and dark, by what the reader prefers. The eight colours can be told apart on both, by most eyes.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #1d2226; --soft: #66707a; --grid: #e3e5e3; --card: #fff;
  --c0: #1f6feb; --c1: #d9480f; --c2: #2b8a3e; --c3: #9c36b5; --c4: #b08800; --c5: #0b7285; --c6: #c2255c; --c7: #5c677d; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --ink: #e8eaec; --soft: #98a2ab; --grid: #2b3238; --card: #1b2024;
  --c0: #6ea8fe; --c1: #ff922b; --c2: #69db7c; --c3: #da77f2; --c4: #ffd43b; --c5: #3bc9db; --c6: #f783ac; --c7: #adb5bd; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
p.command { color: var(--soft); font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; margin: 0 0 1.4rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; margin: 0 0 1.6rem; }
dl div { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .82rem; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
dd.bad { color: var(--c6); }
figure { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; margin: 0 0 1rem; padding: .8rem 1rem .4rem; }
figcaption { font-weight: 600; } figcaption small { color: var(--soft); font-weight: 400; }
svg { width: 100%; height: auto; } .grid { stroke: var(--grid); } .tick { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .name { font-size: 12px; font-weight: 600; }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto;
  font: 12.5px/1.45 ui-monospace, monospace; }
";

/// The page.
pub fn page(report: &Report<'_>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\n\
         <title>loadtest {title}</title>\n<style>{STYLE}</style>\n<h1>loadtest {title}</h1>\n<p class=command>{}</p>\n",
        escape(&report.command.join(" ")),
        title = escape(report.title),
    );
    page += &figures(report);
    for chart in charts(report) {
        page += &chart.figure();
    }
    let _ = write!(page, "<pre>{}</pre>\n</html>\n", escape(table::table(report).trim_start()));
    page
}

/// The few numbers to look at first.
fn figures(report: &Report<'_>) -> String {
    let meter = report.meter;
    let mut rows = vec![
        ("tasks a second", short(meter.count() as f64 / report.seconds()), false),
        ("tasks", short(meter.count() as f64), false),
        ("wrong", short(meter.errors() as f64), meter.errors() > 0),
        ("most open at once", short(meter.most_in_flight as f64), false),
    ];
    let mut all = meter.kinds().values().map(|kind| kind.whole.clone());
    if let Some(mut sum) = all.next() {
        for times in all {
            // The bounds of all are the same.
            let _ = sum.add(times);
        }
        rows.push(("p50, all kinds", format!("{} ms", short(milli(&sum, 0.5))), false));
        rows.push(("p99, all kinds", format!("{} ms", short(milli(&sum, 0.99))), false));
    }
    if let Some(server) = report.server {
        rows.push(("server, most Pss", format!("{:.2} MB", server.peak().pss as f64 / 1e6), false));
        rows.push(("server, cores", format!("{:.2}", server.cores(report.seconds())), false));
        if let Some((micros, of)) = &server.longest_turn {
            rows.push(("longest turn", format!("{} ms ({of})", short(*micros as f64 / 1000.0)), false));
        }
    }
    let mut text = String::from("<dl>\n");
    for (name, value, is_bad) in rows {
        let class = if is_bad { " class=bad" } else { "" };
        let _ = writeln!(text, "<div><dt>{name}</dt><dd{class}>{}</dd></div>", escape(&value));
    }
    text + "</dl>\n"
}

fn charts(report: &Report<'_>) -> Vec<Chart> {
    // The last row is a second that was not whole.
    let series = report.meter.series();
    let series = &series[..series.len().saturating_sub(1)];
    let over = |value: fn(&Second) -> f64| {
        series.iter().enumerate().map(|(at, second)| (at as f64, value(second))).collect::<Vec<_>>()
    };
    let line =
        |name: &str, points: Vec<(f64, f64)>| Series { name: name.to_owned(), points: thin(points, |a, b| a > b) };
    let ticks = seconds(series.len() as f64);
    let chart = |title, unit, scale, series| Chart { title, unit, scale, ticks: ticks.clone(), series };
    let mut charts = vec![
        chart(
            "Work done",
            "tasks and messages a second",
            Scale::Linear,
            vec![
                line("tasks", over(|second| second.done as f64)),
                line("messages", over(|second| second.messages as f64)),
            ],
        ),
        chart(
            "How long it took",
            "ms, all kinds, of each second",
            Scale::Log,
            vec![
                line("longest", over(|second| second.max_us as f64 / 1000.0)),
                line("p99", over(|second| second.p99_us as f64 / 1000.0)),
                line("p50", over(|second| second.p50_us as f64 / 1000.0)),
            ],
        ),
        by_quantile(report),
        chart(
            "Moved",
            "MB a second",
            Scale::Linear,
            vec![
                line("to clients", over(|second| second.octets_in as f64 / 1e6)),
                line("to the server", over(|second| second.octets_out as f64 / 1e6)),
            ],
        ),
        chart("Open connections", "", Scale::Linear, vec![line("open", over(|second| second.in_flight as f64))]),
    ];
    if report.meter.errors() > 0 {
        charts.push(chart(
            "Wrong",
            "a second",
            Scale::Linear,
            vec![line("wrong", over(|second| second.errors as f64))],
        ));
    }
    if let Some(server) = report.server {
        let over = |value: fn(&Use) -> f64| server.uses.iter().map(|row| (row.at, value(row))).collect::<Vec<_>>();
        charts.push(chart(
            "The server's memory",
            "MB",
            Scale::Linear,
            vec![line("Pss", over(|row| row.pss as f64 / 1e6)), line("private", over(|row| row.private as f64 / 1e6))],
        ));
        charts.push(chart("The server's processor", "cores", Scale::Linear, vec![line("busy", over(|row| row.cpu))]));
        charts.push(chart(
            "The server's descriptors",
            "",
            Scale::Linear,
            vec![line("open", over(|row| row.files as f64))],
        ));
    }
    charts
}

/// Each kind over its quantiles; each nine more is as far as the one before.
fn by_quantile(report: &Report<'_>) -> Chart {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let places: Vec<f64> = (0..=80).map(|n| 1.0 - 10f64.powf(-f64::from(n) / 20.0)).collect();
    let kinds = report.meter.kinds().iter().map(|(name, kind)| {
        // A quantile that fewer than two tasks lie beyond is only the longest of them again.
        let known = places.iter().filter(|place| (1.0 - **place) * kind.whole.len() as f64 >= 1.0);
        Series {
            name: (*name).to_owned(),
            points: known.map(|place| (nines(*place), milli(&kind.whole, *place))).collect(),
        }
    });
    let ticks = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    Chart {
        title: "How long it took, by share of tasks",
        unit: "ms, each kind",
        scale: Scale::Log,
        ticks: ticks.into_iter().map(|(place, name)| (nines(place), name.to_owned())).collect(),
        series: kinds.collect(),
    }
}

/// Names for about ten places of a time axis that is so many seconds long.
fn seconds(length: f64) -> Vec<(f64, String)> {
    let steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400];
    let step = steps.into_iter().find(|step| length / f64::from(*step) <= 12.0).unwrap_or(14_400);
    let name = |at: u32| match at {
        at if step >= 3600 => format!("{} h", at / 3600),
        at if step >= 60 => format!("{} min", at / 60),
        at => format!("{at} s"),
    };
    (0..).map(|n| n * step).take_while(|at| f64::from(*at) <= length).map(|at| (f64::from(at), name(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{meter, report, watched};
    use super::*;

    #[test]
    fn the_page_has_a_plot_of_each_thing_and_lets_no_name_through_unescaped() {
        let (meter, command, server) = (meter(), vec!["<script>".to_owned()], watched());
        let page = page(&report(&meter, Some(&server), &command));
        assert_eq!(page.matches("<svg").count(), 9);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.contains("fetch &lt;all&gt;") && !page.contains("fetch <all>"));
        assert!(!page.contains("http"), "nothing is fetched");
        assert_eq!(page.matches("<figure").count(), page.matches("</figure>").count());
    }

    #[test]
    fn a_time_axis_has_about_ten_names_whatever_its_length() {
        assert_eq!(seconds(10.0).len(), 11);
        assert_eq!(seconds(600.0).last().unwrap().1, "10 min");
        assert!(seconds(86_400.0).len() <= 13);
    }
}
