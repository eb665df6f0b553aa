//! What is wrong with a configuration, where, and what to do.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// How much a complaint matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Good to know.
    Note,
    /// Someone should look; the configuration can be used.
    Warning,
    /// The configuration cannot be used.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// Where in which file something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named to us or in an `#include`.
    pub file: Arc<Path>,
    /// From 1; 0 = the file as a whole.
    pub line: usize,
    /// From 1; 0 = the line as a whole.
    pub column: usize,
}

impl Place {
    /// How a sentence about `here` names this one: `in line 5`, `at more.conf:5`.
    pub fn seen_from(&self, here: &Place) -> String {
        if self.file == here.file {
            format!("in line {}", self.line)
        } else {
            format!("at {}:{}", self.file.display(), self.line)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        Ok(())
    }
}

/// One sentence about a configuration: `/etc/dmail.conf:12:10: error: 70000 is more than 65535 ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// How much it matters.
    pub level: Level,
    /// Where.
    pub place: Place,
    /// What is wrong, and what to do about it.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.level, self.text)
    }
}

/// The worst level among them, `None` when there are none.
pub fn worst(complaints: &[Complaint]) -> Option<Level> {
    complaints.iter().map(|complaint| complaint.level).max()
}

/// `ok`, or how many errors, warnings and notes there are: `2 errors, 1 warning`.
pub fn summary(complaints: &[Complaint]) -> String {
    let mut parts = Vec::new();
    for level in [Level::Error, Level::Warning, Level::Note] {
        let count = complaints.iter().filter(|complaint| complaint.level == level).count();
        if count > 0 {
            parts.push(format!("{count} {level}{}", if count == 1 { "" } else { "s" }));
        }
    }
    match worst(complaints) {
        None => "ok".to_owned(),
        Some(Level::Note) => format!("ok, {}", parts.join(", ")),
        _ => parts.join(", "),
    }
}
