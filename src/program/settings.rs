//! `dmail settings`: the manual of all settings, or of those named; as JSON; as a sample dmail.conf.

use super::options::{self, DONE, FAILED, USAGE};
use crate::settings::{reference, rows};
use crate::text::nearest::nearest;

const USAGE_TEXT: &str = "dmail settings [--json | --sample | NAME ...]

Prints what can be set in dmail.conf: form, bounds, default, when a change takes effect, and why.";

fn own(options: &mut getopts::Options) {
    options.optflag("", "json", "print it as JSON, all settings");
    options.optflag("", "sample", "print a dmail.conf to begin with");
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, own)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let matches = match options::read(args, USAGE_TEXT, own) {
        Ok((_, matches)) => matches,
        Err(code) => return code,
    };
    let names = &matches.free;
    let text = match (matches.opt_present("json"), matches.opt_present("sample")) {
        (false, false) if names.is_empty() => Ok(reference::reference()),
        (false, false) => entries(names),
        (true, false) if names.is_empty() => Ok(reference::reference_json()),
        (false, true) if names.is_empty() => Ok(reference::sample()),
        _ => {
            eprintln!("--json, --sample and names do not go together: give one of them");
            return USAGE;
        }
    };
    match text {
        Ok(text) => {
            options::print(&text);
            DONE
        }
        Err(why) => {
            eprintln!("{why}");
            FAILED
        }
    }
}

/// The manual of the settings `names`, or what is wrong with the first that is none.
fn entries(names: &[String]) -> Result<String, String> {
    let mut text = String::new();
    for name in names {
        match (rows::find(name), rows::unused(name)) {
            (Some(row), _) => text += &reference::entry(row),
            (None, Some((name, unused))) => {
                text += &format!("{name}\n    Not used by this version: {}.\n", unused.why);
            }
            (None, None) => {
                let hint = nearest(name, rows::names()).map(|meant| format!(": did you mean {meant}?"));
                return Err(format!("there is no setting `{name}`{}", hint.unwrap_or_default()));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| arg.to_string()).collect()
    }

    #[test]
    fn a_name_has_its_entry_and_a_wrong_one_its_nearest() {
        let text = entries(&owned(&["POP_port", "key", "vdomain"])).unwrap();
        assert!(text.starts_with("pop_port PORT\n    0 to 65535, default 110, "), "{text}");
        assert!(text.contains("\nkey\n    Not used by this version: no licence key is needed.\n"), "{text}");
        assert_eq!(
            entries(&owned(&["pop_prot"])).unwrap_err(),
            "there is no setting `pop_prot`: did you mean pop_port?"
        );
    }

    #[test]
    fn what_does_not_go_together_is_a_usage_error() {
        assert_eq!(run(&owned(&["--json", "--sample"])), USAGE);
        assert_eq!(run(&owned(&["--json", "pop_port"])), USAGE);
        assert_eq!(run(&owned(&["--unheard-of"])), USAGE);
        assert_eq!(run(&owned(&["pop_prot"])), FAILED);
    }
}
