//! What was measured, and how it is shown: as text, as Markdown, as JSON.
//!
//! | word    | is                                                                                                        |
//! |---------|-----------------------------------------------------------------------------------------------------------|
//! | work    | what was done, under the letter of its row: several figures of the same rounds                            |
//! | figure  | one number of it, with its unit and which way is better                                                   |
//! | median  | of the rounds, with the smallest and the largest beside it                                                |
//! | ratio   | how many times ours is better than a peer: the median of each round's own ratio, so that what slows a whole round down does not count |
//! | share   | of the bound, by the medians: 1 is all that the machine allows; of a time, how many times the bound's        |
//!
//! A peer that failed has a sentence instead of figures; it had them in the rounds before, which do not count then.

use std::fmt::Write;

use serde_json::{Value, json};

/// Ours.
pub const OURS: &str = "dmail";

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
    /// Neither: it explains another one.
    Neither,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// For programs that read the JSON.
    pub id: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

/// What of one peer.
#[derive(Debug)]
struct Column {
    peer: &'static str,
    is_bound: bool,
    /// For each round, for each figure.
    rounds: Vec<Vec<Option<f64>>>,
    failed: Option<String>,
}

/// One thing done by all.
#[derive(Debug)]
pub struct Work {
    row: char,
    title: String,
    figures: &'static [Figure],
    columns: Vec<Column>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Table(Vec<Work>);

/// Median, smallest, largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of these; None of none. Of an even number the median is the mean of the two in the middle.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Spread { median, least, most })
    }
}

impl Work {
    /// Nothing measured yet.
    pub fn new(row: char, title: String, figures: &'static [Figure]) -> Work {
        Work { row, title, figures, columns: Vec::new() }
    }

    /// A peer takes part.
    pub fn column(&mut self, peer: &'static str, is_bound: bool) {
        self.columns.push(Column { peer, is_bound, rounds: Vec::new(), failed: None });
    }

    /// A round of it: a value for each figure.
    pub fn put(&mut self, peer: &str, values: Vec<Option<f64>>) {
        assert_eq!(values.len(), self.figures.len(), "a value for each figure of {}", self.title);
        if let Some(column) = self.columns.iter_mut().find(|column| column.peer == peer) {
            column.rounds.push(values);
        }
    }

    /// It could not go on.
    pub fn fail(&mut self, peer: &str, why: String) {
        if let Some(column) = self.columns.iter_mut().find(|column| column.peer == peer) {
            column.failed.get_or_insert(why);
        }
    }

    fn find(&self, peer: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.peer == peer)
    }

    /// How many times ours is better than this peer, round by round.
    fn ratio(&self, figure: usize, column: &Column) -> Option<Spread> {
        let ours = self.find(OURS)?;
        if column.peer == OURS || column.is_bound || ours.failed.is_some() || column.failed.is_some() {
            return None;
        }
        let pairs = ours.rounds.iter().zip(&column.rounds).filter_map(|(ours, theirs)| {
            let (ours, theirs) = (ours[figure]?, theirs[figure]?);
            let (above, below) = match self.figures[figure].better {
                Better::More => (ours, theirs),
                Better::Less => (theirs, ours),
                Better::Neither => return None,
            };
            (below > 0.0).then(|| above / below)
        });
        Spread::of(&pairs.collect::<Vec<_>>())
    }

    /// What this column has of the bound.
    fn share(&self, figure: usize, column: &Column) -> Option<f64> {
        if column.is_bound || self.figures[figure].better == Better::Neither {
            return None;
        }
        let bound = self.columns.iter().filter(|column| column.is_bound).find_map(|column| column.spread(figure))?;
        let own = column.spread(figure)?;
        (bound.median > 0.0).then(|| own.median / bound.median)
    }
}

impl Column {
    fn spread(&self, figure: usize) -> Option<Spread> {
        if self.failed.is_some() {
            return None;
        }
        Spread::of(&self.rounds.iter().filter_map(|round| round[figure]).collect::<Vec<_>>())
    }
}

impl Table {
    /// Adds what is complete.
    pub fn add(&mut self, work: Work) {
        self.0.push(work);
    }

    /// Whether ours failed anywhere.
    pub fn ours_failed(&self) -> bool {
        self.0.iter().filter_map(|work| work.find(OURS)).any(|column| column.failed.is_some())
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        self.0.iter().map(Work::text).collect::<Vec<_>>().join("\n")
    }

    /// For a page: one table a work, figures down, peers across.
    pub fn markdown(&self) -> String {
        self.0.iter().map(Work::markdown).collect::<Vec<_>>().join("\n")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        self.0.iter().map(Work::json).collect()
    }
}

impl Work {
    /// For a terminal: figures down, under each its peers.
    pub fn text(&self) -> String {
        let mut text = format!("({}) {}\n", self.row, self.title);
        for (index, figure) in self.figures.iter().enumerate() {
            let way = match figure.better {
                Better::More => "; more is better",
                Better::Less => "; less is better",
                Better::Neither => "",
            };
            let lines: String = self.columns.iter().filter_map(|column| self.line(index, column)).collect();
            if !lines.is_empty() {
                let _ = write!(text, "  {}, {}{way}\n{lines}", figure.what, figure.unit);
            }
        }
        for column in &self.columns {
            if let Some(why) = &column.failed {
                let _ = writeln!(text, "  {}: failed: {why}", column.peer);
            }
        }
        text
    }

    fn line(&self, figure: usize, column: &Column) -> Option<String> {
        let spread = column.spread(figure)?;
        let name = if column.is_bound { format!("{} (bound)", column.peer) } else { column.peer.to_owned() };
        let range = format!("{} .. {}", number(spread.least), number(spread.most));
        let mut line = format!("    {name:16} {:>10}  {range:24}", number(spread.median));
        if let Some(share) = self.share(figure, column) {
            let _ = write!(line, "  {} of the bound", number(share));
        }
        if let Some(ratio) = self.ratio(figure, column) {
            let _ = write!(line, "  ours {} ({} .. {})", times(ratio.median), number(ratio.least), number(ratio.most));
        }
        Some(line.trim_end().to_owned() + "\n")
    }

    fn markdown(&self) -> String {
        let mut text = format!("### ({}) {}\n\n|  |", self.row, self.title);
        for column in &self.columns {
            let _ = write!(text, " {}{} |", column.peer, if column.is_bound { " (bound)" } else { "" });
        }
        text += "\n|---|";
        text += &"---|".repeat(self.columns.len());
        text += "\n";
        for (index, figure) in self.figures.iter().enumerate() {
            let cells: Vec<_> = self.columns.iter().map(|column| self.cell(index, column)).collect();
            if cells.iter().any(|cell| cell != "-") {
                let _ = writeln!(text, "| {}, {} | {} |", figure.what, figure.unit, cells.join(" | "));
            }
        }
        for column in &self.columns {
            if let Some(why) = &column.failed {
                let _ = write!(text, "\n{}: failed: {}\n", column.peer, why.replace('|', "/"));
            }
        }
        text
    }

    fn cell(&self, figure: usize, column: &Column) -> String {
        if column.failed.is_some() {
            return "failed".to_owned();
        }
        let Some(spread) = column.spread(figure) else { return "-".to_owned() };
        let mut cell = number(spread.median);
        if spread.least < spread.most {
            let _ = write!(cell, " ({} .. {})", number(spread.least), number(spread.most));
        }
        if let Some(share) = self.share(figure, column) {
            let _ = write!(cell, "; {} of the bound", number(share));
        }
        if let Some(ratio) = self.ratio(figure, column) {
            let _ = write!(cell, "; **{}**", times(ratio.median));
            if ratio.least < ratio.most {
                let _ = write!(cell, " ({} .. {})", number(ratio.least), number(ratio.most));
            }
        }
        cell
    }

    fn json(&self) -> Value {
        let spread = |spread: Option<Spread>| {
            spread.map(|Spread { median, least, most }| json!({"median": median, "min": least, "max": most}))
        };
        let figure = |index: usize, figure: &Figure| {
            let peers = self.columns.iter().map(|column| {
                let rounds: Vec<_> = column.rounds.iter().map(|round| round[index]).collect();
                json!({
                    "peer": column.peer,
                    "bound": column.is_bound,
                    "failed": column.failed,
                    "rounds": rounds,
                    "value": spread(column.spread(index)),
                    "ours_better_times": spread(self.ratio(index, column)),
                    "of_bound": self.share(index, column),
                })
            });
            json!({
                "id": figure.id,
                "what": figure.what,
                "unit": figure.unit,
                "better": match figure.better {
                    Better::More => Some("more"),
                    Better::Less => Some("less"),
                    Better::Neither => None,
                },
                "peers": peers.collect::<Value>(),
            })
        };
        json!({
            "row": self.row.to_string(),
            "title": self.title,
            "figures": self.figures.iter().enumerate().map(|(index, one)| figure(index, one)).collect::<Value>(),
        })
    }
}

/// A ratio as one says it.
fn times(ratio: f64) -> String {
    format!("{}x", number(ratio))
}

/// Three digits that count, thousands apart.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let digits = format!("{size:.0}");
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if value < 0.0 { format!("-{grouped}") } else { grouped };
    }
    match size {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: &[Figure] = &[
        Figure { id: "rate", what: "sessions", unit: "a second", better: Better::More },
        Figure { id: "p99", what: "p99", unit: "ms", better: Better::Less },
        Figure { id: "why", what: "processes", unit: "of them", better: Better::Neither },
    ];

    fn work() -> Work {
        let mut work = Work::new('a', "polls".to_owned(), FIGURES);
        work.column("dmail", false);
        work.column("dovecot", false);
        work.column("null", true);
        for (ours, theirs, bound) in [(100.0, 10.0, 200.0), (50.0, 10.0, 100.0), (90.0, 9.0, 200.0)] {
            work.put("dmail", vec![Some(ours), Some(2.0), Some(1.0)]);
            work.put("dovecot", vec![Some(theirs), Some(5.0), Some(9.0)]);
            work.put("null", vec![Some(bound), None, None]);
        }
        work
    }

    #[test]
    fn the_median_is_the_one_in_the_middle_or_the_mean_of_two() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, least: 7.0, most: 7.0 }));
    }

    #[test]
    fn a_ratio_is_of_figures_of_the_same_round_and_says_how_much_better_ours_is() {
        let work = work();
        let dovecot = work.find("dovecot").unwrap();
        // 10, 5, 10: of the medians it would be 9.
        assert_eq!(work.ratio(0, dovecot), Some(Spread { median: 10.0, least: 5.0, most: 10.0 }));
        assert_eq!(work.ratio(1, dovecot).unwrap().median, 2.5);
        assert_eq!(work.ratio(2, dovecot), None);
        assert_eq!(work.ratio(0, work.find("dmail").unwrap()), None);
        assert_eq!(work.ratio(0, work.find("null").unwrap()), None);
    }

    #[test]
    fn a_share_is_of_the_bound_that_has_the_figure() {
        let work = work();
        let ours = work.find("dmail").unwrap();
        assert_eq!(work.share(0, ours), Some(0.45));
        assert_eq!(work.share(1, ours), None);
        assert_eq!(work.share(0, work.find("null").unwrap()), None);
    }

    #[test]
    fn a_peer_that_failed_has_its_reason_and_no_figure() {
        let mut work = work();
        work.fail("dovecot", "it ended: no | port".to_owned());
        work.fail("dovecot", "later".to_owned());
        let (text, page, json) = (work.text(), work.markdown(), work.json());
        assert!(text.contains("dovecot: failed: it ended: no | port\n") && !text.contains("ours"), "{text}");
        assert!(page.contains("| failed |") && page.contains("no / port"), "{page}");
        assert_eq!(json["figures"][0]["peers"][1]["failed"], "it ended: no | port");
        assert_eq!(json["figures"][0]["peers"][1]["value"], Value::Null);
        let mut table = Table::default();
        table.add(work);
        assert!(!table.ours_failed());
        table.0[0].fail("dmail", "x".to_owned());
        assert!(table.ours_failed());
    }

    #[test]
    fn text_has_medians_spreads_shares_and_ratios() {
        let text = work().text();
        let line = text.lines().find(|line| line.trim_start().starts_with("dmail")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "dmail 90.0 50.0 .. 100 0.450 of the bound");
        assert!(text.contains("ours 10.0x (5.00 .. 10.0)"), "{text}");
        assert!(text.contains("p99, ms; less is better"), "{text}");
    }

    #[test]
    fn every_line_of_the_page_has_as_many_cells_as_its_head() {
        let page = work().markdown();
        let bars: Vec<_> =
            page.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(bars, [5, 5, 5, 5, 5], "{page}");
        assert!(page.contains("**10.0x** (5.00 .. 10.0)"), "{page}");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.1234, 1.5, 12.34, 123.4, 1234.5, 1_234_567.0, -4321.0].map(number);
        assert_eq!(shown, ["0", "0.123", "1.50", "12.3", "123", "1,234", "1,234,567", "-4,321"]);
    }
}
