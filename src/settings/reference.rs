//! What the rows say, for people and programs: `dmail settings`, its JSON, and the sample conf/dmail.conf.

use std::fmt::Write;

use serde_json::{Value, json};

use super::rows::{GONE, LATER, ROWS, Row};

/// How a dmail.conf is written.
pub const MANNER: &str = "One `name value` a line; lines that start with # are comments, and a blank and # end a value. Put a \
                          value in double quotes when blanks or # belong to it. `#include FILE`, without a blank behind \
                          the #, reads another file here.";
/// Where lines of text end.
const WIDTH: usize = 100;

/// The manual of all settings.
pub fn reference() -> String {
    let mut text = String::new();
    for row in ROWS {
        if !row.part.is_empty() {
            let _ = writeln!(text, "{}\n{}\n", row.part, "=".repeat(row.part.len()));
        }
        text.push_str(&entry(row));
        text.push('\n');
    }
    for (title, all) in [("Known, not used by this version", LATER), ("Known, needed no more", GONE)] {
        let _ = writeln!(text, "{title}\n{}\n", "=".repeat(title.len()));
        for unused in all {
            fill(&mut text, "", &unused.names.join(", "));
            fill(&mut text, "    ", &format!("{}.", unused.why));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The manual of one setting.
pub fn entry(row: &Row) -> String {
    let mut text = format!("{} {}\n", row.name, row.kind.form());
    fill(&mut text, "    ", &facts(row));
    fill(&mut text, "    ", row.why);
    text
}

/// The same for programs: a list of objects.
pub fn reference_json() -> String {
    let rows = ROWS.iter().map(|row| {
        json!({
            "name": row.name,
            "form": row.kind.form(),
            "bounds": row.kind.bounds(),
            "default": if row.default.is_empty() { Value::Null } else { row.default.into() },
            "follows": row.follows,
            "required": row.required,
            "repeatable": row.repeatable,
            "takes_effect": row.takes_effect.to_string(),
            "example": example(row),
            "why": row.why,
        })
    });
    let list = Value::Array(rows.collect());
    format!("{list:#}\n")
}

/// conf/dmail.conf: every setting with its manual; what must be set is set, all else shows its default or an example.
pub fn sample() -> String {
    let mut text = String::new();
    fill(&mut text, "# ", &format!("dmail.conf: the settings of DMail. {MANNER}"));
    text.push_str("#\n");
    fill(
        &mut text,
        "# ",
        "After a change: `dmail check` says whether it is right, `tellpop reload` makes the server read it. Lines such as \
         `#pop_port 110` show a default, or an example where there is none: take the # away to set one.",
    );
    for row in ROWS {
        if !row.part.is_empty() {
            let _ = write!(text, "\n\n# ---- {} {}\n", row.part, "-".repeat(WIDTH - 8 - row.part.len()));
        }
        text.push('\n');
        fill(&mut text, "# ", row.why);
        fill(&mut text, "# ", &format!("{}: {}", row.kind.form(), facts(row)));
        let off = if row.required { "" } else { "#" };
        let _ = writeln!(text, "{off}{} {}", row.name, example(row));
    }
    text
}

fn example(row: &Row) -> &'static str {
    if row.example.is_empty() { row.default } else { row.example }
}

/// `600 to 86400, default 600, changes take effect for new connections`.
pub fn facts(row: &Row) -> String {
    let mut facts = Vec::new();
    facts.extend(row.kind.bounds());
    if row.required {
        facts.push("must be set".to_owned());
    } else if let Some(other) = row.follows {
        facts.push(format!("default: as {other}"));
    } else if row.default.is_empty() {
        facts.push("default: unset".to_owned());
    } else {
        facts.push(format!("default {}", row.default));
    }
    if row.repeatable {
        facts.push("may be repeated".to_owned());
    }
    facts.push(format!("changes take effect {}", row.takes_effect));
    facts.join(", ") + "."
}

/// Writes `words` in lines that begin with `indent` and end before [`WIDTH`].
fn fill(text: &mut String, indent: &str, words: &str) {
    let mut used = WIDTH;
    for (index, word) in words.split_whitespace().enumerate() {
        let len = word.chars().count();
        if used + 1 + len > WIDTH {
            if index > 0 {
                text.push('\n');
            }
            text.push_str(indent);
            used = indent.len();
        } else {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += len;
    }
    text.push('\n');
}
