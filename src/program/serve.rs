//! `dmail serve`, `dpop`: the server.
//!
//! What is wrong with the configuration, a port or a directory is said on standard error, a sentence each, and nothing is
//! touched (exit code 1). Once it serves, everything goes to the log. Stays in the foreground: supervision is the
//! system's business. Exit code 0 after SIGTERM or `tellpop shutdown`.

use std::path::Path;

use super::options::{self, DONE, FAILED, USAGE};
use crate::server::{self, Server};
use crate::settings::Level;
use crate::sys::access;

const USAGE_TEXT: &str = "dmail serve [-i FILE]

Serves what dmail.conf asks for, in the foreground, until SIGTERM or `tellpop shutdown`; SIGHUP or
`tellpop reload` reads dmail.conf again. Called as dpop it serves POP3 alone.";

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, options::none)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (common, matches) = match options::read(args, USAGE_TEXT, options::none) {
        Ok(read) => read,
        Err(code) => return code,
    };
    if let [word, ..] = &matches.free[..] {
        eprintln!("dmail serve takes no `{word}`: name a configuration with -i FILE");
        return USAGE;
    }
    serve(&common.config, |server| eprintln!("dmail: serving {}", server.serving()))
}

/// Serves with this configuration; `ready` is called when the ports are open.
pub fn serve(config: &Path, ready: impl FnOnce(&Server)) -> u8 {
    let (settings, complaints) = server::judged(config);
    for complaint in complaints.iter().filter(|complaint| complaint.level >= Level::Warning) {
        eprintln!("{complaint}");
    }
    let failed = complaints.iter().any(|complaint| complaint.level == Level::Error);
    let Some(settings) = settings.filter(|_| !failed) else { return FAILED };
    if settings.tls_cert.is_empty() {
        for note in complaints.iter().filter(|complaint| complaint.level == Level::Note) {
            eprintln!("{note}");
        }
    }
    if access::is_root() {
        eprintln!("dmail: warning: serving as root; a spool that one user owns can be served by that user");
    }
    let result = Server::start(settings).and_then(|server| {
        ready(&server);
        server.run()
    });
    match result {
        Ok(()) => DONE,
        Err(why) => {
            eprintln!("dmail: {why}");
            FAILED
        }
    }
}
