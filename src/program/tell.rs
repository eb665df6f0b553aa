//! `tellpop` and `tellsmtp`: give orders to a running server, over the socket in its work_path. Some they carry out
//! themselves: what needs files and no server.
//!
//! Exit code 0: done; 1: refused, or no server there; 2: wrong options.

mod logs;
mod password;
mod sendlog;
mod trace;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::options::{self, DONE, FAILED, USAGE};
use super::{bulletin, statistics, stats};
use crate::control::{self, Order, Parsed, Teller, Tool};
use crate::protocol::control::{heading, line};
use crate::settings::Settings;

/// A report longer than this is not from our server.
const LONGEST: usize = 64 * 1024 * 1024;
/// How long a server may take for what it knows.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take where an authenticator is asked or files are worked on.
const SLOW_PATIENCE: Duration = Duration::from_secs(15 * 60);

fn usage(teller: Teller) -> String {
    let about = match teller {
        Teller::Pop => "`tellpop stats` and `tellpop statistics` need no server.",
        Teller::Smtp => "`tellsmtp sendlog` needs no server.",
    };
    format!(
        "{} [-i FILE] COMMAND [ARGUMENT ...] [--json]\n\nGives an order to the running server that FILE configures. \
         {about}\n\nCommands:\n{}",
        teller.name(),
        control::help(teller)
    )
}

/// What `tellpop -h` prints.
pub fn pop_page() -> String {
    options::page(&usage(Teller::Pop), options::stop_at_first_word)
}

/// What `tellsmtp -h` prints.
pub fn smtp_page() -> String {
    options::page(&usage(Teller::Smtp), options::stop_at_first_word)
}

/// Runs tellpop; gives its exit code.
pub fn run_pop(args: &[String]) -> u8 {
    run(Teller::Pop, args)
}

/// Runs tellsmtp; gives its exit code.
pub fn run_smtp(args: &[String]) -> u8 {
    run(Teller::Smtp, args)
}

fn run(teller: Teller, args: &[String]) -> u8 {
    let name = teller.name();
    let (common, matches) = match options::read(args, &usage(teller), options::stop_at_first_word) {
        Ok(read) => read,
        Err(code) => return code,
    };
    // The server judges the words; what it would not understand need not be sent.
    let parsed = match control::parse(teller, &matches.free) {
        Ok(parsed) => parsed,
        Err(why) => {
            eprintln!("{name}: {why}");
            return USAGE;
        }
    };
    let json = parsed.json;
    let given = match parsed.order {
        Order::ByTool(Tool::Bulletin) => return bulletin::run(&common.config, json),
        Order::ByTool(Tool::Statistics) => return statistics::run(&common.config, &after_verb(&matches.free)),
        Order::ByTool(Tool::Stats) => return stats::run(&common.config, &after_verb(&matches.free)),
        Order::ByTool(Tool::SendLog) => return sendlog::run(&common.config, json),
        Order::ByTool(Tool::Trace(ref what)) => return trace::run(&common.config, what, json),
        Order::ByTool(Tool::Password(ref given)) => Some(given.clone()),
        _ => None,
    };
    let told = stats::configured(&common.config).and_then(|settings| match given {
        Some(given) => Ok(control::render(&password::set(&settings.work_path, given), json)),
        None => tell(&settings, teller, &parsed, &matches.free),
    });
    match told {
        Ok((true, text)) => {
            options::print(&text);
            DONE
        }
        // Who wants JSON has it from standard output, whatever it says.
        Ok((false, text)) if json => {
            options::print(&text);
            FAILED
        }
        Ok((false, text)) => {
            eprint!("{}", text.lines().map(|line| format!("{name}: {line}\n")).collect::<String>());
            FAILED
        }
        Err(why) => {
            eprintln!("{name}: {why}");
            FAILED
        }
    }
}

/// What is behind the verb, for the tool that does it; `--json` may stand before it.
fn after_verb(words: &[String]) -> Vec<String> {
    let mut rest = words.to_vec();
    if let Some(verb) = rest.iter().position(|word| word != "--json") {
        rest.remove(verb);
    }
    rest
}

fn tell(settings: &Settings, teller: Teller, parsed: &Parsed, words: &[String]) -> Result<(bool, String), String> {
    let patience = if parsed.verb.slow { SLOW_PATIENCE } else { PATIENCE };
    // The server knows tellpop by its silence about itself.
    let name = Some(teller.name()).filter(|_| teller != Teller::Pop);
    let words = name.into_iter().chain(words.iter().map(String::as_str));
    ask(&settings.work_path, patience, words).map_err(|silence| silence.to_string())
}

/// Why there is no report.
pub(super) enum Silence {
    /// Nobody is at the socket.
    Nobody(String),
    /// We may not go there.
    Forbidden(String),
    /// Whatever else.
    Other(String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Silence::Nobody(why) | Silence::Forbidden(why) | Silence::Other(why)) = self;
        f.write_str(why)
    }
}

/// Gives the server of this work_path an order: whether it was carried out, and the report.
pub(super) fn ask<'w>(
    work_path: &Path,
    patience: Duration,
    words: impl Iterator<Item = &'w str>,
) -> Result<(bool, String), Silence> {
    let path = work_path.join(control::SOCKET);
    let trouble = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Silence::Nobody(format!("{}: no server is running with this configuration", path.display()))
        }
        io::ErrorKind::PermissionDenied => Silence::Forbidden(format!("{}: {}", path.display(), control::STRANGER)),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let (path, secs) = (path.display(), patience.as_secs());
            Silence::Other(format!(
                "{path}: the server has not answered for {secs} s; its log may say what it is doing"
            ))
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Silence::Other(format!("{}: the server ended before it had answered", path.display()))
        }
        _ => Silence::Other(format!("{}: {error}", path.display())),
    };
    let socket = UnixStream::connect(&path).map_err(trouble)?;
    socket.set_read_timeout(Some(patience)).map_err(trouble)?;
    (&socket).write_all(format!("{}\n", line(words)).as_bytes()).map_err(trouble)?;
    let mut reply = BufReader::new(&socket);
    let mut first = Vec::new();
    if reply.by_ref().take(64).read_until(b'\n', &mut first).map_err(trouble)? == 0 {
        return Err(trouble(io::ErrorKind::UnexpectedEof.into()));
    }
    let strange = || Silence::Other(format!("{}: whoever answers there is not our server", path.display()));
    let (done, octets) = heading(&first).filter(|(_, octets)| *octets <= LONGEST).ok_or_else(strange)?;
    let mut text = vec![0; octets];
    reply.read_exact(&mut text).map_err(trouble)?;
    Ok((done, String::from_utf8_lossy(&text).into_owned()))
}
