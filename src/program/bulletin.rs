//! `tellpop bulletin`: puts a message to all users on the board.
//!
//! The text comes from standard input, up to a line with a single dot or the end; the file is written by this program, so it
//! needs the rights to bulletin_path and to the server's work_path, and no server. Exit code 0: it is there.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use super::options::{self, DONE, FAILED};
use crate::settings;
use crate::store::bulletins;

/// Runs it; gives the exit code.
pub fn run(config: &Path, json: bool) -> u8 {
    match post(config, json) {
        Ok(text) => {
            options::print(&text);
            DONE
        }
        Err(why) => {
            eprintln!("tellpop: {why}");
            FAILED
        }
    }
}

fn post(config: &Path, json: bool) -> Result<String, String> {
    let loaded = settings::load(config);
    let Some(settings) = loaded.settings else {
        let first = loaded.complaints.first().map(ToString::to_string).unwrap_or_default();
        return Err(format!("{first}\n`dmail check -i {}` says more", config.display()));
    };
    let Some(path) = &settings.bulletin_path else {
        return Err(format!("{}: bulletin_path is not set: name a directory for bulletins there", config.display()));
    };
    let next = bulletins::next(path, &settings.work_path).map_err(|fault| fault.to_string())?;
    if io::stdin().is_terminal() {
        eprintln!("This will be bulletin {next}. A first line `Subject: ...` and a blank line give it a subject.");
        eprintln!("Type its text; a line with a single dot ends it.");
    }
    let text = read(io::stdin().lock()).map_err(|error| format!("reading the text: {error}"))?;
    if text.trim_ascii().is_empty() {
        return Err("there is no text: nothing was posted".to_owned());
    }
    let number = bulletins::post(path, &settings.work_path, &text).map_err(|fault| fault.to_string())?;
    Ok(if json {
        format!("{}\n", serde_json::json!({ "bulletin": number }))
    } else {
        format!("bulletin {number} is posted; a running server shows it within ten seconds\n")
    })
}

/// Up to a line with a single dot, or all there is.
fn read(input: impl BufRead) -> io::Result<Vec<u8>> {
    let (mut text, mut line) = (Vec::new(), Vec::new());
    let mut input = input.take(bulletins::TEXT_BYTES + 1);
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.trim_ascii_end() == b"." {
            break;
        }
        text.append(&mut line);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_dot_ends_the_text_as_does_its_end() {
        for (typed, text) in
            [("a\nb\n.\nc\n", "a\nb\n"), ("a\n..\n.\r\n", "a\n..\n"), ("a", "a"), (".\n", ""), ("", "")]
        {
            assert_eq!(read(typed.as_bytes()).unwrap(), text.as_bytes(), "{typed:?}");
        }
    }
}
