//! `loadtest versus`.

/// What `-h` prints.
pub fn page() -> String {
    String::from("usage: loadtest versus\n")
}

/// Runs it.
pub fn run(_args: &[String]) -> u8 {
    eprintln!("loadtest versus: not built into this executable");
    crate::args::FAILED
}
