//! `loadtest spool`.

/// What `-h` prints.
pub fn page() -> String {
    String::from("usage: loadtest spool\n")
}

/// Runs it.
pub fn run(_args: &[String]) -> u8 {
    eprintln!("loadtest spool: not built into this executable");
    crate::args::FAILED
}
