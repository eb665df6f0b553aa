//! `dmail settings`: the manual of all settings, or of those named; as JSON; as a sample dmail.conf.

use super::options::{self, DONE, FAILED, USAGE};
use crate::settings::{reference, rows};
use crate::text::nearest::nearest;

const USAGE_TEXT: &str = "dmail settings [--json | --sample | NAME ...]

Prints what can be set in dmail.conf: form, bounds, default, when a change takes effect, and why.";

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let own = |options: &mut getopts::Options| {
        options.optflag("", "json", "print it as JSON, all settings");
        options.optflag("", "sample", "print a dmail.conf to begin with");
    };
    let (_, matches) = match options::read(args, USAGE_TEXT, own) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let names = &matches.free;
    match (matches.opt_present("json"), matches.opt_present("sample")) {
        (false, false) if names.is_empty() => options::print(&reference::reference()),
        (false, false) => return some(names),
        (true, false) if names.is_empty() => options::print(&reference::reference_json()),
        (false, true) if names.is_empty() => options::print(&reference::sample()),
        _ => {
            eprintln!("--json, --sample and names do not go together: give one of them");
            return USAGE;
        }
    }
    DONE
}

fn some(names: &[String]) -> u8 {
    let mut code = DONE;
    for name in names {
        let unused = rows::LATER.iter().chain(rows::GONE).find(|unused| unused.name.eq_ignore_ascii_case(name));
        match (rows::find(name), unused) {
            (Some(row), _) => options::print(&reference::entry(row)),
            (None, Some(unused)) => {
                options::print(&format!("{}: not used by this version: {}\n", unused.name, unused.why))
            }
            (None, None) => {
                let hint = nearest(name, rows::names()).map(|meant| format!(": did you mean {meant}?"));
                eprintln!("there is no setting `{name}`{}", hint.unwrap_or_default());
                code = FAILED;
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(args: &[&str]) -> u8 {
        run(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn each_form_ends_as_it_should() {
        for args in [&[][..], &["--json"], &["--sample"], &["pop_port"], &["POP_PORT", "key", "vdomain"]] {
            assert_eq!(code(args), DONE, "{args:?}");
        }
        assert_eq!(code(&["pop_prot"]), FAILED);
        assert_eq!(code(&["--json", "--sample"]), USAGE);
        assert_eq!(code(&["--json", "pop_port"]), USAGE);
    }
}
