//! F4: the verbs of operation. One row each gives parsing, help and, later, rights and a web form; what an order does is
//! `server`'s business, how it is printed is [`Report`]'s.

use log::LevelFilter;
use serde_json::{Map, Value};

/// Where a server listens for orders, below its work_path.
pub const SOCKET: &str = "dmail.sock";

/// Something a running server is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Say how it is.
    Status,
    /// Read the configuration again.
    Reload,
    /// Log more or less, until the next reload or start.
    LogLevel(LevelFilter),
    /// Stop in an orderly way.
    Shutdown,
    /// Say what it is.
    Version,
    /// List the verbs.
    Help,
    /// For tellpop itself: it needs no server, and judges the rest of its words.
    ByTool(Tool),
}

/// What tellpop does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Sum up statistics files.
    Stats,
    /// Put a message to all users on the board.
    Bulletin,
}

/// One verb.
pub struct Verb {
    /// Its name; a prefix that no other verb has will do, and case and `_` do not matter.
    pub name: &'static str,
    /// What it takes, for the help.
    pub arguments: &'static str,
    /// What it does, for the help.
    pub help: &'static str,
    parse: fn(&[String]) -> Result<Order, String>,
}

/// All verbs.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "bulletin",
        arguments: "",
        help: "post a message to all users: its text from standard input, up to a line with a single dot",
        parse: |args| none(args, Order::ByTool(Tool::Bulletin)),
    },
    Verb { name: "help", arguments: "", help: "list the commands", parse: |args| none(args, Order::Help) },
    Verb {
        name: "log_level",
        arguments: "error|warn|info|debug",
        help: "log this much, until the next reload or start",
        parse: log_level,
    },
    Verb {
        name: "reload",
        arguments: "",
        help: "read the configuration again: all of it or, when something is wrong with it, none",
        parse: |args| none(args, Order::Reload),
    },
    Verb {
        name: "shutdown",
        arguments: "",
        help: "stop: clients are told, what was begun is finished",
        parse: |args| none(args, Order::Shutdown),
    },
    Verb {
        name: "stats",
        arguments: "[-h] [FILE ...]",
        help: "sum up the statistics files, a line a user; needs no server",
        parse: |_| Ok(Order::ByTool(Tool::Stats)),
    },
    Verb {
        name: "status",
        arguments: "",
        help: "how the server is: sessions, logins, authenticators, memory, longest turn",
        parse: |args| none(args, Order::Status),
    },
    Verb { name: "version", arguments: "", help: "what runs there", parse: |args| none(args, Order::Version) },
];

fn none(arguments: &[String], order: Order) -> Result<Order, String> {
    match arguments.first() {
        None => Ok(order),
        Some(extra) => Err(format!("`{extra}`: this command takes no arguments")),
    }
}

fn log_level(arguments: &[String]) -> Result<Order, String> {
    let [word] = arguments else { return Err("log_level takes one of error, warn, info, debug".into()) };
    let level = match word.parse() {
        Ok(level @ (LevelFilter::Error | LevelFilter::Warn | LevelFilter::Info | LevelFilter::Debug)) => level,
        _ => return Err(format!("`{word}` is no level: log_level takes one of error, warn, info, debug")),
    };
    Ok(Order::LogLevel(level))
}

/// The order that these words give, and whether the report is wanted as JSON. Refuses with a sentence.
pub fn parse(words: &[String]) -> Result<(Order, bool), String> {
    let json = words.iter().any(|word| word == "--json");
    let words: Vec<String> = words.iter().filter(|word| *word != "--json").cloned().collect();
    let Some((name, arguments)) = words.split_first() else { return Err("no command: try `help`".into()) };
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "");
    let wanted = plain(name);
    let begun: Vec<&Verb> = VERBS.iter().filter(|verb| plain(verb.name).starts_with(&wanted)).collect();
    let verb = match begun[..] {
        _ if wanted.is_empty() => return Err("no command: try `help`".into()),
        [] => return Err(format!("`{name}` is no command: try `help`")),
        [verb] => verb,
        _ => match begun.iter().find(|verb| plain(verb.name) == wanted) {
            Some(verb) => verb,
            None => {
                let names: Vec<&str> = begun.iter().map(|verb| verb.name).collect();
                return Err(format!("`{name}` may be {}: say more of it", names.join(" or ")));
            }
        },
    };
    Ok(((verb.parse)(arguments)?, json))
}

/// The commands, a line each.
pub fn help() -> String {
    let calls: Vec<String> = VERBS.iter().map(|verb| format!("{} {}", verb.name, verb.arguments)).collect();
    let width = calls.iter().map(String::len).max().unwrap_or(0);
    let lines = calls.iter().zip(VERBS).map(|(call, verb)| format!("  {call:width$}  {}\n", verb.help));
    lines.collect::<String>()
        + "\n--json with any of them gives JSON. A command may be cut short while it stays clear.\n"
}

/// What an order came to: named values, in the order in which a person wants to read them.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(String, Value)>,
}

impl Report {
    /// Adds a value. A dot in the name groups it with its neighbours.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.rows.push((name.to_owned(), value.into()));
    }

    /// For a person: `name: value`, a line each; lists a line an entry.
    pub fn text(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        let mut text = String::new();
        for (name, value) in &self.rows {
            let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let label = format!("{name}:");
            match value {
                Value::Array(values) => {
                    text += &format!("{label:width$} {}\n", values.len());
                    text.extend(values.iter().map(|value| format!("  {}\n", show(value))));
                }
                value => text += &format!("{label:width$} {}\n", show(value)),
            }
        }
        text
    }

    /// For a program: one object; dotted names are objects in it.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        for (name, value) in &self.rows {
            match name.split_once('.') {
                None => {
                    object.insert(name.clone(), value.clone());
                }
                Some((group, name)) => {
                    let inner = object.entry(group).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = inner {
                        inner.insert(name.to_owned(), value.clone());
                    }
                }
            }
        }
        format!("{}\n", Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Order, bool), String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn verbs_may_be_cut_short_while_they_stay_clear() {
        assert_eq!(parsed("status"), Ok((Order::Status, false)));
        assert_eq!(parsed("STATU --json"), Ok((Order::Status, true)));
        assert!(parsed("stat").unwrap_err().contains("stats or status"));
        assert_eq!(parsed("stats --sort bytes file"), Ok((Order::ByTool(Tool::Stats), false)));
        assert_eq!(parsed("loglevel warn"), Ok((Order::LogLevel(LevelFilter::Warn), false)));
        assert_eq!(parsed("log Debug"), Ok((Order::LogLevel(LevelFilter::Debug), false)));
        assert!(parsed("s").unwrap_err().contains("shutdown or stats or status"));
        for wrong in ["", "frobnicate", "status now", "log_level", "log_level loud", "--json"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_report_reads_well_and_parses() {
        let mut report = Report::default();
        report.add("version", "1");
        report.add("jobs.running", 3);
        report.add("changes", vec!["a", "b"]);
        assert_eq!(report.text(), "version:      1\njobs.running: 3\nchanges:      2\n  a\n  b\n");
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(value["jobs"]["running"], 3);
    }

    #[test]
    fn every_verb_is_in_the_help() {
        let help = help();
        assert!(VERBS.iter().all(|verb| help.contains(verb.name) && help.contains(verb.help)));
    }
}
