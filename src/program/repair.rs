//! `dmail repair`: puts maildrops in order without the server, or only looks. What it does: [`store::repair`](crate::store::repair).
//!
//! It writes files that the server must own, so it runs as the server's user, who owns work_path. Started by root with a
//! `run_as` it becomes that user, as the server does, and a launcher helps with drops of other users. Exit code: 0 when nothing
//! is left to do, 1 when something is or it could not, 2 for wrong options.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{self, DONE, FAILED, USAGE};
use crate::rules::domains::Home;
use crate::server;
use crate::service::account::{self, place_of};
use crate::settings::{self, Level, Settings};
use crate::store::disk::RealDisk;
use crate::store::maildrop::Refused;
use crate::store::path::{below_root, drop_path};
use crate::store::repair::{Wish, repair_on};
use crate::sys::process;

const USAGE_TEXT: &str = "dmail repair [-i FILE] [-n] [--compact] DROP ...

Looks at maildrops and puts them in order: completes a compaction that was interrupted, sets a ledger of another drop aside,
writes a damaged or absent index anew, removes what was left behind; and says what it found and did. DROP is the whole path
of a drop file, or the name of a user whose drop file lies where drop_path and hash_spool put it. A drop that a session or
another program has is left alone. Exit code 1: something is left to do.";

fn own(options: &mut getopts::Options) {
    options.optflag("n", "look", "only look, and say what would be done");
    options.optflag("", "compact", "take deleted mail out of the drop file");
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, own)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (common, matches) = match options::read(args, USAGE_TEXT, own) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let wish = Wish { look_only: matches.opt_present("n"), compact: matches.opt_present("compact") };
    if matches.free.is_empty() || wish.look_only && wish.compact {
        let why =
            if matches.free.is_empty() { "name a drop file or a user" } else { "-n writes nothing: leave --compact" };
        eprintln!("{why}\nusage: {}", USAGE_TEXT.lines().next().unwrap_or_default());
        return USAGE;
    }
    let (text, code) = report(&common.config, &matches.free, wish);
    options::print(&text);
    code
}

/// What is printed about these drops, and the exit code.
pub fn report(config: &Path, drops: &[String], wish: Wish) -> (String, u8) {
    let mut text = String::new();
    let settings::Loaded { settings, complaints } = settings::load(config);
    let Some(settings) = settings else {
        for complaint in complaints.iter().filter(|complaint| complaint.level == Level::Error) {
            let _ = writeln!(text, "{complaint}");
        }
        let _ = writeln!(
            text,
            "{}: without it there is no telling where bins lie: -i FILE names another",
            config.display()
        );
        return (text, FAILED);
    };
    let launcher = match server::part(&settings).and_then(|launcher| right_user(&settings).map(|()| launcher)) {
        Ok(launcher) => launcher,
        Err(why) => return (format!("{why}\n"), FAILED),
    };
    let disk = RealDisk { hand: launcher.map(|launcher| Arc::new(launcher) as _) };
    let mut code = DONE;
    for word in drops {
        let (shown, lines, in_order) = one(word, &settings, &disk, wish);
        for line in lines {
            let _ = writeln!(text, "{shown}: {line}");
        }
        if !in_order {
            code = FAILED;
        }
    }
    (text, code)
}

/// Files that we make must be the server's.
fn right_user(settings: &Settings) -> Result<(), String> {
    let work = &settings.work_path;
    let Ok(about) = std::fs::metadata(work) else { return Ok(()) };
    if about.uid() == process::own_uid() {
        return Ok(());
    }
    let uid = about.uid();
    Err(format!(
        "{} belongs to uid {uid}, so the server runs as that user: run this as the same, with `setpriv --reuid {uid} \
         --clear-groups` for one",
        work.display()
    ))
}

/// What is said of one drop, and whether it is in order.
fn one(word: &str, settings: &Settings, disk: &RealDisk, wish: Wish) -> (String, Vec<String>, bool) {
    let drop = match drop_of(word, settings) {
        Ok(drop) => drop,
        Err(why) => return (word.to_owned(), vec![why], false),
    };
    let shown = drop.display().to_string();
    let mut place = place_of(drop, settings);
    if disk.hand.is_some() {
        // Whose it is only an authenticator knows: then it is the file's own, which the launcher judges as it does all.
        place.owner = std::fs::symlink_metadata(&place.drop).ok().map(|about| about.uid());
    }
    match repair_on(disk, &place, wish) {
        Ok(report) => (shown, report.lines, report.in_order),
        Err(refused) => (shown, vec![refusal(&refused)], false),
    }
}

fn drop_of(word: &str, settings: &Settings) -> Result<PathBuf, String> {
    if !word.contains('/') {
        let Some(name) = account::name(word.as_bytes(), Home::default(), settings) else {
            return Err("no user can have that name: give the whole path of a drop file".to_owned());
        };
        return Ok(drop_path(settings.domains.drops_of(&name), settings.hash_spool, &name.local, &name.file));
    }
    let path = PathBuf::from(word);
    let roots: Vec<PathBuf> = settings
        .drop_root
        .iter()
        .map(PathBuf::as_path)
        .chain(settings.domains.all_drops())
        .map(Path::to_owned)
        .collect();
    match below_root(&path, &roots) {
        true => Ok(path),
        false => {
            Err("not the whole path of a file below drop_path or a drop_root: the server would not serve it".to_owned())
        }
    }
}

fn refusal(refused: &Refused) -> String {
    match refused {
        Refused::InUse => "a session has it: nothing was done; try again when its user has logged out".to_owned(),
        Refused::Locked => {
            "another program holds the lock on it: nothing more was done; try again a little later".to_owned()
        }
        Refused::Unsafe(fault) => format!("left alone: {fault}"),
        Refused::Fault(fault) => format!("failed: {fault}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LOOK: Wish = Wish { look_only: true, compact: false };
    const MEND: Wish = Wish { look_only: false, compact: false };

    fn site(lines: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["work", "drop", "other"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for drop in ["drop/ann", "other/ann"] {
            fs::write(dir.path().join(drop), "From bob Mon Jan  5 10:00:00 2026\nSubject: tea\n\nAt five?\n\n")
                .unwrap();
        }
        let path = dir.path().join("dmail.conf");
        let text = format!("host_domain example.com\nwork_path work\ndrop_path drop\nauthent_process auth\n{lines}");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn drops_are_named_by_path_or_by_user_and_each_line_says_which() {
        let (dir, config) = site("bin_path bins\nhash_bindir true\n");
        let drop = dir.path().join("drop/ann").display().to_string();
        let (text, code) = report(&config, &words(&["Ann"]), LOOK);
        assert_eq!(code, DONE, "{text}");
        assert!(text.contains(&format!("{drop}: there is mail, and no bin yet")), "{text}");
        let (text, code) = report(&config, &words(&["ann"]), MEND);
        assert_eq!(code, DONE, "{text}");
        assert!(text.lines().all(|line| line.starts_with(&format!("{drop}: "))), "{text}");
        assert!(text.contains(": messages: 1 live (58 bytes), 0 dead"), "{text}");
        assert!(dir.path().join("bins").exists() && !dir.path().join("drop/.ann.bin").exists());
        let (again, code) = report(&config, &words(&[&drop, "ann"]), LOOK);
        assert_eq!((again.lines().count(), code), (6, DONE), "{again}");
    }

    #[test]
    fn what_the_server_would_not_serve_is_left_alone() {
        let (dir, config) = site("");
        let other = dir.path().join("other/ann").display().to_string();
        let climbing = dir.path().join("drop/../other/ann").display().to_string();
        for word in [&other, &climbing, "./drop/ann", ".ann", "ann.lock"] {
            let (text, code) = report(&config, &words(&[word]), MEND);
            assert_eq!(code, FAILED, "{text}");
            assert!(text.starts_with(&format!("{word}: ")), "{text}");
        }
        assert_eq!(fs::read_dir(dir.path().join("other")).unwrap().count(), 1);
        let (text, code) = report(Path::new("/nowhere/dmail.conf"), &words(&["ann"]), MEND);
        assert_eq!(code, FAILED);
        assert!(text.contains("-i FILE names another"), "{text}");
    }

    #[test]
    fn one_that_could_not_be_mended_is_told_by_the_exit_code() {
        let (dir, config) = site("");
        fs::write(dir.path().join("drop/bob"), "no mbox\n").unwrap();
        fs::write(dir.path().join("drop/eve"), "From x Mon Jan  5 10:00:00 2026\n\n").unwrap();
        fs::write(dir.path().join("drop/eve.lock"), "4711\n").unwrap();
        let (text, code) = report(&config, &words(&["bob", "ann", "eve"]), MEND);
        assert_eq!(code, FAILED);
        assert!(text.contains("bob: the drop has bytes and no From_ line"), "{text}");
        assert!(text.contains("eve: another program holds the lock on it"), "{text}");
        assert!(text.contains("ann: messages: 1 live"), "{text}");
    }

    #[test]
    fn wrong_options_are_a_usage_error() {
        assert_eq!(run(&[]), USAGE);
        assert_eq!(run(&words(&["-n", "--compact", "ann"])), USAGE);
        assert_eq!(run(&words(&["--unheard-of", "ann"])), USAGE);
    }
}
