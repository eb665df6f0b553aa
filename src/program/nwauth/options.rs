//! The command line, in the manual's spelling.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::proofs::{ITERATIONS, ITERATIONS_MOST, Scram};
use super::{BAD_CHARACTERS, COMMANDS, SLEEP_MOST};
use crate::protocol::sasl::scram;
use crate::store::users::ADD_BYTES;
use crate::text::number::decimal;
use crate::text::secret::Secret;

/// What the command line says, before the command.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the files.
    pub path: PathBuf,
    /// Merge when `nwauth.add` is larger.
    pub size: u64,
    /// Refuse what changes the files.
    pub readonly: bool,
    /// Write nwauth.log.
    pub log: bool,
    /// Say on standard error what the log would be told.
    pub debug: bool,
    /// Wait this long before each reply, from and to.
    pub sleep_ms: Option<(u64, u64)>,
    /// Characters refused in names.
    pub bad: Vec<u8>,
    /// Characters refused before the `@`.
    pub bad_local: Vec<u8>,
    /// More than one `@` is fine.
    pub allow_ats: bool,
    /// Bytes above 0x7f are fine.
    pub allow_high: bool,
    /// Whether SCRAM is offered, and its verifiers made.
    pub scram: Scram,
    /// Rounds of a new verifier.
    pub iterations: u32,
    /// APOP is offered, and passwords are kept for it.
    pub apop: bool,
    pub(super) only: Option<Only>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    Help,
    Version,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            path: PathBuf::from("."),
            size: ADD_BYTES,
            readonly: false,
            log: false,
            debug: false,
            sleep_ms: None,
            bad: BAD_CHARACTERS.to_vec(),
            bad_local: Vec::new(),
            allow_ats: false,
            allow_high: false,
            scram: Scram::Auto,
            iterations: ITERATIONS,
            apop: false,
            only: None,
        }
    }
}

/// One option: how it is called, how many words it takes, what it does with them.
struct Row {
    name: &'static str,
    takes: &'static str,
    set: fn(&mut Options, &[String]) -> Result<(), &'static str>,
    why: &'static str,
}

/// The manual's spelling: one dash before a whole word, which is why the usual parser is of no use here.
#[rustfmt::skip]
const OPTIONS: &[Row] = &[
    Row { name: "-path", takes: "DIR", why: "where nwauth.txt, nwauth.add and nwauth.log are (.)",
          set: |o, v| { o.path = PathBuf::from(&v[0]); Ok(()) } },
    Row { name: "-i", takes: "CONF", why: "the same, by a configuration that lies in that directory",
          set: |o, v| { o.path = Path::new(&v[0]).parent().filter(|dir| dir.as_os_str() != "").unwrap_or(Path::new(".")).to_owned(); Ok(()) } },
    Row { name: "-size", takes: "BYTES", why: "merge nwauth.add into nwauth.txt when it is larger (102400)",
          set: |o, v| { o.size = decimal(v[0].as_bytes()).ok_or("takes a number of bytes")?; Ok(()) } },
    Row { name: "-readonly", takes: "", why: "refuse set and del, as on a machine that copies another one's files",
          set: |o, _| { o.readonly = true; Ok(()) } },
    Row { name: "-log", takes: "", why: "write nwauth.log: who asked what, never a password",
          set: |o, _| { o.log = true; Ok(()) } },
    Row { name: "-logpass", takes: "", why: "not offered",
          set: |_, _| Err("is not offered: it would write passwords into a log") },
    Row { name: "-debug", takes: "", why: "say the same on standard error",
          set: |o, _| { o.debug = true; Ok(()) } },
    Row { name: "-sleep", takes: "X Y", why: "wait X to Y milliseconds before each reply, to try a slow authenticator",
          set: |o, v| {
              let (least, most) = (decimal(v[0].as_bytes()), decimal(v[1].as_bytes()));
              let (Some(least), Some(most)) = (least, most) else { return Err("takes two numbers of milliseconds") };
              if least > most || most > SLEEP_MOST { return Err("goes from less to more, up to 60000") }
              o.sleep_ms = Some((least, most));
              Ok(())
          } },
    Row { name: "-badchar", takes: "CHARS", why: "refuse names with one of these, instead of \\\"'`|<>()[]{}*?,;&$!",
          set: |o, v| { o.bad = v[0].clone().into_bytes(); Ok(()) } },
    Row { name: "-badchar_localpart", takes: "CHARS", why: "refuse names with one of these before the @ (none)",
          set: |o, v| { o.bad_local = v[0].clone().into_bytes(); Ok(()) } },
    Row { name: "-allowats", takes: "", why: "let names have more than one @",
          set: |o, _| { o.allow_ats = true; Ok(()) } },
    Row { name: "-allowhighascii", takes: "", why: "let names have bytes above 127",
          set: |o, _| { o.allow_high = true; Ok(()) } },
    Row { name: "-scram", takes: "WHEN", why: "offer SCRAM: auto, when every user has a verifier (auto); on; off, and make none",
          set: |o, v| {
              let modes = [("auto", Scram::Auto), ("on", Scram::On), ("off", Scram::Off)];
              let found = modes.iter().find(|(name, _)| v[0].eq_ignore_ascii_case(name));
              o.scram = found.ok_or("takes auto, on or off")?.1;
              Ok(())
          } },
    Row { name: "-iterations", takes: "N", why: "work that a SCRAM client does at each login, and who guesses at each guess (15000)",
          set: |o, v| {
              let count = decimal(v[0].as_bytes()).and_then(|count| u32::try_from(count).ok());
              let bounds = *scram::ITERATIONS.start()..=ITERATIONS_MOST;
              o.iterations = count.filter(|count| bounds.contains(count)).ok_or("takes a number from 4096 to 1000000")?;
              Ok(())
          } },
    Row { name: "-apop", takes: "", why: "offer APOP, for which passwords must be kept as they are: who reads the file has them",
          set: |o, _| { o.apop = true; Ok(()) } },
    Row { name: "-h", takes: "", why: "this page",
          set: |o, _| { o.only = Some(Only::Help); Ok(()) } },
    Row { name: "-V", takes: "", why: "the version",
          set: |o, _| { o.only = Some(Only::Version); Ok(()) } },
];

/// Options, and the words of the command if there is one: everything from the first word that is no option. A command may
/// be written like an option (`-check fred secret`), as the manual has it.
pub(super) fn parse(args: &[String]) -> Result<(Options, Vec<Secret>), String> {
    let mut options = Options::default();
    let mut words = Vec::new();
    let mut rest = args;
    while let Some((word, after)) = rest.split_first() {
        let spelled = match word.as_str() {
            "--help" | "-help" | "-?" => "-h",
            "--version" => "-V",
            other => other,
        };
        let Some(row) = OPTIONS.iter().find(|row| row.name == spelled) else {
            let bare = word.trim_start_matches('-');
            let Some(command) = COMMANDS.iter().find(|command| command.name == bare) else {
                return Err(format!("{word}: no such option or command; nwauth -h lists them"));
            };
            // Options may follow a command that takes so many words and no other number.
            let count = if command.least == command.most { after.len().min(command.most) } else { after.len() };
            words.push(Secret::from(bare.as_bytes()));
            words.extend(after[..count].iter().map(|word| Secret::from(word.as_bytes())));
            rest = &after[count..];
            if words.len() > 1 + count {
                return Err(format!("{word}: one command at a time"));
            }
            continue;
        };
        let count = row.takes.split_whitespace().count();
        if after.len() < count {
            return Err(format!("{word} takes {}", row.takes));
        }
        (row.set)(&mut options, &after[..count]).map_err(|reason| format!("{word} {reason}"))?;
        rest = &after[count..];
    }
    Ok((options, words))
}

/// What `-h` prints.
pub fn usage() -> String {
    let mut text =
        "usage: nwauth [OPTIONS] [COMMAND]\n\nWithout a command, commands are read from standard input.\n\n".to_owned();
    for row in OPTIONS {
        let _ = writeln!(text, "  {:<28} {}", format!("{} {}", row.name, row.takes), row.why);
    }
    text.push_str("\ncommands:\n");
    for command in COMMANDS {
        let _ = writeln!(text, "  {} {}", command.name, command.takes);
    }
    text.push_str(
        "\nA password of - with set is read from standard input: the command line is there for all to see.\n",
    );
    text
}
