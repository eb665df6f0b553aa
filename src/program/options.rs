//! Options that every program has: `-i FILE` (or `-c FILE`), `-h`, `-V`.

use std::path::PathBuf;

use getopts::{Matches, Options, ParsingStyle};

/// The configuration, when none is named.
pub const CONFIG: &str = "/etc/dmail.conf";

/// The program did what it was asked.
pub const DONE: u8 = 0;
/// It could not.
pub const FAILED: u8 = 1;
/// It was asked in a way it does not understand.
pub const USAGE: u8 = 2;

/// What all programs are told in the same way.
#[derive(Clone, Debug)]
pub struct Common {
    /// The configuration to use.
    pub config: PathBuf,
    /// Whether it was named, rather than the usual one.
    pub config_named: bool,
}

/// Reads the options of the program `usage` begins with, as in `dmail check [-i FILE]\n\nJudges ...`; `add` adds its own.
///
/// `Err` is the exit code when there is nothing left to do: help or version were asked for and printed, or the options were
/// wrong and that was said.
pub fn read(args: &[String], usage: &str, add: impl FnOnce(&mut Options)) -> Result<(Common, Matches), u8> {
    let options = all(add);
    let refuse = |why: String| {
        eprintln!("{why}\nusage: {}", usage.lines().next().unwrap_or_default());
        Err(USAGE)
    };
    let matches = match options.parse(args) {
        Ok(matches) => matches,
        Err(error) => return refuse(error.to_string()),
    };
    if matches.opt_present("h") {
        print(&help(&options, usage));
        return Err(DONE);
    }
    if matches.opt_present("V") {
        print(concat!("dmail ", env!("CARGO_PKG_VERSION"), "\n"));
        return Err(DONE);
    }
    let named = match (matches.opt_str("i"), matches.opt_str("c")) {
        (Some(_), Some(_)) => return refuse("-i and -c name the same thing: give one of them".to_owned()),
        (named, None) | (None, named) => named,
    };
    let common = Common { config_named: named.is_some(), config: named.as_deref().unwrap_or(CONFIG).into() };
    Ok((common, matches))
}

/// What `-h` prints for the program that calls [`read`] with the same.
pub fn page(usage: &str, add: impl FnOnce(&mut Options)) -> String {
    help(&all(add), usage)
}

fn all(add: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::new();
    options.optopt("i", "", "use this configuration instead of /etc/dmail.conf", "FILE");
    options.optopt("c", "", "the same", "FILE");
    options.optflag("h", "help", "print this help");
    options.optflag("V", "version", "print the version");
    add(&mut options);
    options
}

fn help(options: &Options, usage: &str) -> String {
    options.usage(&format!("usage: {}", usage.trim_end()))
}

/// For programs without options of their own.
pub fn none(_: &mut Options) {}

/// For [`read`]: options end at the first word that is none, so that commands can have their own.
pub fn stop_at_first_word(options: &mut Options) {
    options.parsing_style(ParsingStyle::StopAtFirstFree);
}

/// Writes to standard output; that nobody reads on (`dmail settings | head`) is no failure.
pub fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<String, u8> {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        read(&args, "dmail test", |_| {}).map(|(common, _)| common.config.display().to_string())
    }

    #[test]
    fn the_configuration_is_named_by_either_letter_or_is_the_usual_one() {
        assert_eq!(config(&[]).unwrap(), CONFIG);
        assert_eq!(config(&["-i", "a"]).unwrap(), "a");
        assert_eq!(config(&["-c", "a"]).unwrap(), "a");
        assert_eq!(config(&["-ia"]).unwrap(), "a");
        assert_eq!(config(&["-i", "a", "-c", "b"]), Err(USAGE));
        assert_eq!(config(&["-i"]), Err(USAGE));
        assert_eq!(config(&["--unheard-of"]), Err(USAGE));
        assert_eq!(config(&["-h"]), Err(DONE));
        assert_eq!(config(&["-V"]), Err(DONE));
    }
}
