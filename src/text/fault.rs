//! The world's trouble: what we were doing, to which file, and what the system said.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Something outside us failed. To the peer it is a temporary failure, to the operator one log line that names the file:
/// `locking /var/spool/drop/ann: Permission denied (os error 13)`.
#[derive(Debug)]
pub struct Fault {
    /// What we were doing, as a participle: "opening", "locking", "syncing".
    pub doing: &'static str,
    /// To which file or socket; empty when there was none.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Fault {
    /// A fault of `doing` something to `path`.
    pub fn new(doing: &'static str, path: &Path, source: io::Error) -> Fault {
        Fault { doing, path: path.to_owned(), source }
    }

    /// For `map_err`: the same, with the system's error last.
    pub fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
        move |source| Fault::new(doing, path, source)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return write!(f, "{}: {}", self.doing, self.source);
        }
        write!(f, "{} {}: {}", self.doing, self.path.display(), self.source)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
