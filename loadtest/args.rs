//! Options that several commands have, and exit codes.

use std::io::Write;

/// It did what it was asked, and nothing was wrong.
pub const DONE: u8 = 0;
/// It could not, or something was lost or wrong.
pub const FAILED: u8 = 1;
/// It was asked in a way it does not understand.
pub const USAGE: u8 = 2;

/// Writes to standard output; that nobody reads on (`loadtest -h | head`) is no failure.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
