//! A wrapper round an authenticator that makes it slow, or lets it die or babble: `loadtest ledger helper`.
//!
//! It hands lines through in both directions. The authenticator's greeting is left alone; each later answer meets one of
//! these, at random, from a seed that is the process's number:
//!
//! | with      | the answer                                     |
//! |-----------|------------------------------------------------|
//! | --slow    | comes up to 3 seconds late, one in twenty      |
//! | --dying   | never comes, and the process ends, one in 200  |
//! | --dying   | is garbage, one in 200                         |

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::args::{DONE, FAILED, USAGE};

/// What `-h` says of it.
pub const PAGE: &str = "loadtest ledger helper [--slow] [--dying] -- COMMAND [WORD ...]";

/// What becomes of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Waits(Duration),
    Dies,
    Babbles,
}

fn fate(dice: &mut Pcg64, slow: bool, dying: bool) -> Fate {
    match dice.random_range(0..200) {
        0 if dying => Fate::Dies,
        1 if dying => Fate::Babbles,
        2..=11 if slow => Fate::Waits(Duration::from_millis(dice.random_range(50..3_000))),
        _ => Fate::Passes,
    }
}

/// Runs it.
pub fn run(words: &[String]) -> u8 {
    let Some(split) = words.iter().position(|word| word == "--") else {
        eprintln!("loadtest ledger helper: the authenticator's command follows `--`\nusage: {PAGE}");
        return USAGE;
    };
    let (options, command) = (&words[..split], &words[split + 1..]);
    if let Some(word) = options.iter().find(|word| !["--slow", "--dying"].contains(&word.as_str())) {
        eprintln!("loadtest ledger helper: `{word}` is none of its options\nusage: {PAGE}");
        return USAGE;
    }
    let has = |name: &str| options.iter().any(|word| word == name);
    let Some((program, rest)) = command.split_first() else {
        eprintln!("loadtest ledger helper: there is no command behind `--`\nusage: {PAGE}");
        return USAGE;
    };
    // Its questions come to it directly.
    let started = Command::new(program).args(rest).stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("loadtest ledger helper: {program}: {error}; name a program that can be run");
            return FAILED;
        }
    };
    let mut dice = Pcg64::seed_from_u64(u64::from(std::process::id()));
    let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).split(b'\n');
    let mut first = true;
    let mut out = std::io::stdout().lock();
    while let Some(Ok(line)) = lines.next() {
        let fate =
            if std::mem::take(&mut first) { Fate::Passes } else { fate(&mut dice, has("--slow"), has("--dying")) };
        let said = match fate {
            Fate::Passes => line,
            Fate::Waits(long) => {
                std::thread::sleep(long);
                line
            }
            Fate::Babbles => b"\x07 what was the question?".to_vec(),
            Fate::Dies => {
                let _ = child.kill();
                let _ = child.wait();
                return FAILED;
            }
        };
        if out.write_all(&[&said[..], b"\n"].concat()).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    // Whoever asked is gone, or it has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_comes_with_its_option_and_only_then() {
        let count = |slow, dying| {
            let mut dice = Pcg64::seed_from_u64(1);
            let drawn: Vec<Fate> = (0..2_000).map(|_| fate(&mut dice, slow, dying)).collect();
            let of = |wanted: fn(&Fate) -> bool| drawn.iter().filter(|fate| wanted(fate)).count();
            (of(|f| matches!(f, Fate::Waits(_))), of(|f| matches!(f, Fate::Dies)), of(|f| matches!(f, Fate::Babbles)))
        };
        assert_eq!(count(false, false), (0, 0, 0));
        let (waits, dies, babbles) = count(true, true);
        assert!((50..200).contains(&waits) && (1..40).contains(&dies) && (1..40).contains(&babbles));
        assert_eq!((count(true, false).1, count(false, true).0), (0, 0));
    }
}
