//! `loadtest isp`.

/// What `-h` prints.
pub fn page() -> String {
    String::from("usage: loadtest isp\n")
}

/// Runs it.
pub fn run(_args: &[String]) -> u8 {
    crate::args::FAILED
}
