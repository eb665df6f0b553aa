//! `loadtest ledger`.

/// What `-h` prints.
pub fn page() -> String {
    String::from("usage: loadtest ledger\n")
}

/// Runs it.
pub fn run(_args: &[String]) -> u8 {
    eprintln!("loadtest ledger: not built into this executable");
    crate::args::FAILED
}
