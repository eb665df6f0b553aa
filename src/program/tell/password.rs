//! `tellpop password`: sets the password of remote administration. Done here and not by the server, so that it never
//! travels, and can be set before the first start.
//!
//! It is asked for twice on a terminal, without being shown, or read from a standard input that is none. As an argument it
//! works too, because the manual has it so and scripts rely on it, with a warning: other users can see it while we run.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use crate::control::{Report, Told};
use crate::store::tellpass;
use crate::sys::terminal;
use crate::text::secret::Secret;

/// Longest password.
const LONGEST: usize = 512;
/// Shortest.
const SHORTEST: usize = 8;

/// Sets what was given, or asks for it.
pub fn set(work_path: &Path, given: Option<Secret>) -> Told {
    let done = chosen(given).and_then(|password| {
        judge(&password)?;
        tellpass::set(work_path, &password).map_err(|fault| fault.to_string())?;
        // The proof that the right one is there, and whole.
        match tellpass::check(work_path, &password) {
            Ok(true) => Ok(()),
            Ok(false) => Err("the password was written and is not what it should be: try again".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    });
    done.map_err(|why| vec![why])?;
    let mut report = Report::default();
    report.add("password", "set");
    report.add("file", work_path.join(tellpass::NAME).display().to_string());
    Ok(report)
}

fn chosen(given: Option<Secret>) -> Result<Secret, String> {
    if let Some(password) = given {
        eprintln!(
            "tellpop: warning: whoever lists processes can see a password on the command line; give none and be asked"
        );
        return Ok(password);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut bytes = Vec::with_capacity(LONGEST + 2);
        let limit = LONGEST as u64 + 2;
        stdin.lock().take(limit).read_to_end(&mut bytes).map_err(|error| format!("standard input: {error}"))?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        return Ok(Secret::new(text.to_vec()));
    }
    // For both questions: what is typed ahead is hidden too.
    let _hidden = terminal::hide(&stdin).map_err(|error| format!("the terminal: {error}"))?;
    let first = typed("New password: ")?;
    judge(&first)?;
    let again = typed("Once more: ")?;
    if again.matches(first.reveal()) { Ok(first) } else { Err("they differ: nothing is changed".to_owned()) }
}

fn judge(password: &Secret) -> Result<(), String> {
    let bytes = password.reveal();
    if bytes.iter().any(u8::is_ascii_control) {
        return Err("a password is one line of text".to_owned());
    }
    match bytes.len() {
        0 => Err("no password was given: nothing is changed".to_owned()),
        1..SHORTEST => Err(format!("that is too short: a password has at least {SHORTEST} characters")),
        SHORTEST..=LONGEST => Ok(()),
        _ => Err(format!("that is too long: a password has at most {LONGEST} characters")),
    }
}

/// Asks on a terminal that is hidden.
fn typed(prompt: &str) -> Result<Secret, String> {
    eprint!("{prompt}");
    let line = edited(io::stdin().lock().bytes());
    let _ = writeln!(io::stderr());
    line.map_err(|error| format!("the terminal: {error}"))?.ok_or_else(|| "nothing is changed".to_owned())
}

/// A line from a keyboard that gives each key at once; `None` when it was broken off.
fn edited(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<Secret>> {
    let mut line = Vec::with_capacity(LONGEST + 1);
    for key in keys {
        match key? {
            b'\n' | b'\r' => return Ok(Some(Secret::new(line))),
            // Control-C, -D and -\.
            3 | 4 | 28 => return Ok(None),
            // Backspace takes a whole character.
            8 | 127 => while line.pop().is_some_and(|byte: u8| byte & 0xC0 == 0x80) {},
            // Control-U.
            21 => line.clear(),
            byte if line.len() <= LONGEST => line.push(byte),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        let line = edited(keys.bytes().map(Ok)).unwrap();
        line.map(|line| String::from_utf8(line.reveal().to_vec()).unwrap())
    }

    #[test]
    fn a_line_is_typed_with_its_corrections() {
        assert_eq!(typed("secret\n").as_deref(), Some("secret"));
        assert_eq!(typed("wrong\x15sexx\x7f\x7fcret\r").as_deref(), Some("secret"));
        assert_eq!(typed("grü\x08\x08\x08\x08x\n").as_deref(), Some("x"));
        assert_eq!(typed("sec\x03"), None);
        assert_eq!(typed("sec"), None);
        assert_eq!(typed(&format!("{}\n", "a".repeat(5000))).unwrap().len(), LONGEST + 1);
    }

    #[test]
    fn what_is_no_password_is_refused() {
        let judge = |text: &str| judge(&Secret::new(text.into()));
        assert!(judge("opensesame").is_ok());
        for wrong in ["", "short", "two\nlines", &"a".repeat(LONGEST + 1)] {
            assert!(judge(wrong).is_err(), "{wrong:?}");
        }
    }
}
