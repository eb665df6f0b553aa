//! Which program is meant, by the name we were called with or by the first word; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(dmail::program::run(std::env::args_os()))
}
