//! `tellpop`: gives orders to a running server, over the socket in its work_path.
//!
//! Exit code 0: done; 1: refused, or no server there; 2: wrong options.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::options::{self, DONE, FAILED, USAGE};
use super::{bulletin, stats};
use crate::control::{self, Order, Tool};
use crate::protocol::control::{heading, line};
use crate::settings;

const USAGE_TEXT: &str = "tellpop [-i FILE] COMMAND [ARGUMENT ...] [--json]

Gives an order to the running server that FILE configures. `tellpop stats` needs no server.";

/// A report longer than this is not from our server.
const LONGEST: usize = 64 * 1024 * 1024;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn usage() -> String {
    format!("{USAGE_TEXT}\n\nCommands:\n{}", control::help())
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(&usage(), options::stop_at_first_word)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (common, matches) = match options::read(args, &usage(), options::stop_at_first_word) {
        Ok(read) => read,
        Err(code) => return code,
    };
    // The server judges the words; what it would not understand need not be sent.
    match control::parse(&matches.free) {
        Err(why) => {
            eprintln!("tellpop: {why}");
            return USAGE;
        }
        Ok((Order::ByTool(Tool::Bulletin), json)) => return bulletin::run(&common.config, json),
        Ok((Order::ByTool(Tool::Stats), _)) => return stats::run(&common.config, &after_verb(&matches.free)),
        Ok(_) => {}
    }
    match tell(&common.config, &matches.free) {
        Ok((true, text)) => {
            options::print(&text);
            DONE
        }
        Ok((false, text)) => {
            eprint!("{text}");
            FAILED
        }
        Err(why) => {
            eprintln!("tellpop: {why}");
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

fn tell(config: &Path, words: &[String]) -> Result<(bool, String), String> {
    let loaded = settings::load(config);
    let Some(settings) = loaded.settings else {
        let first = loaded.complaints.first().map(ToString::to_string).unwrap_or_default();
        return Err(format!("{first}\n`dmail check -i {}` says more", config.display()));
    };
    let path = settings.work_path.join(control::SOCKET);
    let trouble = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("{}: no server is running with this configuration", path.display())
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{}: only root and the user that the server runs as may give orders", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    let socket = UnixStream::connect(&path).map_err(trouble)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(trouble)?;
    (&socket).write_all(format!("{}\n", line(words.iter().map(String::as_str))).as_bytes()).map_err(trouble)?;
    let mut reply = BufReader::new(&socket);
    let mut first = Vec::new();
    reply.by_ref().take(64).read_until(b'\n', &mut first).map_err(trouble)?;
    let strange = || format!("{}: whoever answers there is not our server", path.display());
    let (done, octets) = heading(&first).filter(|(_, octets)| *octets <= LONGEST).ok_or_else(strange)?;
    let mut text = vec![0; octets];
    reply.read_exact(&mut text).map_err(trouble)?;
    Ok((done, String::from_utf8_lossy(&text).into_owned()))
}
