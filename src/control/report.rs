//! What an order came to, and how it is shown: to a person as text, to a program as JSON.

use serde_json::{Map, Value};

/// What an order came to: named values and tables, in the order in which a person wants to read them.
///
/// A name that ends in `_secs` is a time: people are shown `2h05m`, programs the seconds.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    prose: Option<String>,
}

#[derive(Debug)]
enum Row {
    Value(String, Value),
    Table(Table),
}

#[derive(Debug)]
struct Table {
    name: String,
    columns: &'static [&'static str],
    lines: Vec<Vec<Value>>,
}

/// What an order came to, or why it was refused, a sentence each.
pub type Told = Result<Report, Vec<String>>;

impl Report {
    /// Adds a value. A dot in the name groups it with its neighbours.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.rows.push(Row::Value(name.to_owned(), value.into()));
    }

    /// The value that has this name.
    pub fn value(&self, wanted: &str) -> Option<&Value> {
        self.rows.iter().find_map(|row| match row {
            Row::Value(name, value) if name == wanted => Some(value),
            _ => None,
        })
    }

    /// Adds a table: each of `lines` has a value for each of `columns`.
    pub fn table(&mut self, name: &str, columns: &'static [&'static str], lines: Vec<Vec<Value>>) {
        debug_assert!(lines.iter().all(|line| line.len() == columns.len()), "{name}");
        self.rows.push(Row::Table(Table { name: name.to_owned(), columns, lines }));
    }

    /// What a person is shown instead of the values.
    pub fn in_prose(mut self, text: String) -> Report {
        self.prose = Some(text);
        self
    }

    /// For a person: `name: value`, a line each; lists a line an entry; then the tables, aligned.
    pub fn text(&self) -> String {
        if let Some(prose) = &self.prose {
            return prose.clone();
        }
        let values = || {
            self.rows.iter().filter_map(|row| match row {
                Row::Value(name, value) => Some((name, value)),
                Row::Table(_) => None,
            })
        };
        let width = values().map(|(name, _)| label(name).len()).max().unwrap_or(0) + 1;
        let mut text = String::new();
        for (name, value) in values() {
            let label = format!("{}:", label(name));
            match value {
                Value::Array(values) => {
                    text += &format!("{label:width$} {}\n", values.len());
                    text.extend(values.iter().map(|value| format!("  {}\n", shown("", value))));
                }
                value => {
                    text += &format!("{label:width$} {}", shown(name, value));
                    text.truncate(text.trim_end().len());
                    text.push('\n');
                }
            }
        }
        for row in &self.rows {
            if let Row::Table(table) = row {
                if !text.is_empty() {
                    text.push('\n');
                }
                table.write(&mut text);
            }
        }
        text
    }

    /// For a program: one object; dotted names are objects in it, tables lists of objects.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        for row in &self.rows {
            let (name, value) = match row {
                Row::Value(name, value) => (name, value.clone()),
                Row::Table(table) => (&table.name, table.json()),
            };
            match name.split_once('.') {
                None => {
                    object.insert(name.clone(), value);
                }
                Some((group, name)) => {
                    let inner = object.entry(group).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = inner {
                        inner.insert(name.to_owned(), value);
                    }
                }
            }
        }
        format!("{}\n", Value::Object(object))
    }
}

impl Table {
    /// A heading and the lines, columns two blanks apart; numbers and times to the right. No lines: no more than its name.
    fn write(&self, text: &mut String) {
        if self.lines.is_empty() {
            *text += &format!("{}: none\n", self.name);
            return;
        }
        let heads: Vec<String> = self.columns.iter().map(|name| label(name).to_uppercase()).collect();
        let cells: Vec<Vec<String>> = (self.lines.iter())
            .map(|line| line.iter().zip(self.columns).map(|(value, name)| shown(name, value)).collect())
            .collect();
        let lines = || std::iter::once(&heads).chain(&cells);
        let last = self.columns.len().saturating_sub(1);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let right: Vec<bool> =
            (0..self.columns.len()).map(|at| self.lines.iter().all(|line| line[at].is_number())).collect();
        for line in lines() {
            for (at, cell) in line.iter().enumerate() {
                let gap = " ".repeat(widths[at] - cell.chars().count());
                match (right[at], at == last) {
                    (true, _) => *text += &format!("{gap}{cell}"),
                    (false, true) => *text += cell,
                    (false, false) => *text += &format!("{cell}{gap}"),
                }
                if at != last {
                    *text += "  ";
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }

    fn json(&self) -> Value {
        let object = |line: &Vec<Value>| {
            let pairs = self.columns.iter().zip(line).map(|(name, value)| ((*name).to_owned(), value.clone()));
            Value::Object(pairs.collect())
        };
        Value::Array(self.lines.iter().map(object).collect())
    }
}

/// A name as people see it: what a time is measured in is seen from the time.
fn label(name: &str) -> &str {
    name.strip_suffix("_secs").unwrap_or(name)
}

fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) if name.ends_with("_secs") => time(number.as_u64().unwrap_or(0)),
        value => value.to_string(),
    }
}

/// `45s`, `12m30s`, `2h05m`, `3d04h`: two units at most.
pub fn time(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{minutes}m{:02}s", secs % 60),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// What was told, as it is sent: whether it was done, and the text or JSON.
pub fn render(told: &Told, json: bool) -> (bool, String) {
    match told {
        Ok(report) if json => (true, report.json()),
        Ok(report) => (true, report.text()),
        Err(whys) if json => {
            let mut report = Report::default();
            report.add("refused", whys.clone());
            (false, report.json())
        }
        Err(whys) => (false, whys.iter().map(|why| format!("{why}\n")).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well_and_parses() {
        let mut report = Report::default();
        report.add("version", "1");
        report.add("jobs.running", 3);
        report.add("up_secs", 3700);
        report.add("changes", vec!["a", "b"]);
        assert_eq!(report.text(), "version:      1\njobs.running: 3\nup:           1h01m\nchanges:      2\n  a\n  b\n");
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["jobs"]["running"], 3);
        assert_eq!(value["up_secs"], 3700);
    }

    #[test]
    fn tables_are_aligned_for_people_and_lists_of_objects_for_programs() {
        let mut report = Report::default();
        report.add("now", 2);
        let line = |user: &str, messages: u32, idle: u32, tls: bool| {
            vec![Value::from(user), messages.into(), idle.into(), tls.into()]
        };
        let lines = vec![line("ann", 3, 5, true), line("jörg", 1200, 86_400 * 3, false)];
        report.table("users", &["user", "messages", "idle_secs", "tls"], lines);
        report.add("more", "");
        let wanted = "now:  2\nmore:\n\n\
                      USER  MESSAGES   IDLE  TLS\n\
                      ann          3     5s  yes\n\
                      jörg      1200  3d00h  no\n";
        assert_eq!(report.text(), wanted);
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["users"][1]["idle_secs"], 86_400 * 3);
        assert_eq!(value["users"][0]["tls"], true);
        let mut none = Report::default();
        none.table("users", &["user"], Vec::new());
        assert_eq!(none.text(), "users: none\n");
        assert_eq!(none.json(), "{\"users\":[]}\n");
    }

    #[test]
    fn a_refusal_is_sentences_or_json() {
        let told = Err(vec!["no such user".to_owned()]);
        assert_eq!(render(&told, false), (false, "no such user\n".to_owned()));
        assert_eq!(render(&told, true), (false, "{\"refused\":[\"no such user\"]}\n".to_owned()));
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86_399, "23h59m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(time(secs), text);
        }
    }
}
