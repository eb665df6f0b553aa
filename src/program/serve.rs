//! `dmail serve`, `dpop`, `dsmtp`: the server.
//!
//! Started by root with a `run_as`, it becomes that user before anything else is opened, and a launcher keeps root.
//!
//! What is wrong with the configuration, a port or a directory is said on standard error, a sentence each, and nothing is
//! touched (exit code 1). Once it serves, everything goes to the log. Stays in the foreground: supervision is the
//! system's business. Exit code 0 after SIGTERM or `tellpop shutdown`.

use std::path::Path;

use super::options::{self, DONE, FAILED, USAGE};
use crate::server::{self, Server};
use crate::service::Services;
use crate::settings::{Level, Rights};
use crate::sys::{access, process};

const USAGE_TEXT: &str = "dmail serve [-i FILE]

Serves what dmail.conf asks for, in the foreground, until SIGTERM or `tellpop shutdown`; SIGHUP or
`tellpop reload` reads dmail.conf again. Called as dpop it serves POP3 alone, as dsmtp SMTP and LMTP
alone. The ports 110 and 25 and 587, with a certificate also 995 and 465, are opened unless dmail.conf
names others, or 0.";

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, options::none)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    run_with(args, Services::All)
}

/// The same for `dpop`.
pub fn run_pop3(args: &[String]) -> u8 {
    run_with(args, Services::Pop3)
}

/// The same for `dsmtp`.
pub fn run_smtp(args: &[String]) -> u8 {
    run_with(args, Services::Smtp)
}

fn run_with(args: &[String], services: Services) -> u8 {
    let (common, matches) = match options::read(args, USAGE_TEXT, options::none) {
        Ok(read) => read,
        Err(code) => return code,
    };
    if let [word, ..] = &matches.free[..] {
        eprintln!("dmail serve takes no `{word}`: name a configuration with -i FILE");
        return USAGE;
    }
    serve(&common.config, services, |server| eprintln!("dmail: serving {}", server.serving()))
}

/// Serves with this configuration; `ready` is called when the ports are open.
pub fn serve(config: &Path, services: Services, ready: impl FnOnce(&Server)) -> u8 {
    if let Err(error) = process::keep_descriptors() {
        eprintln!("dmail: descriptors that we were started with may reach the authenticator: {error}");
    }
    let (settings, complaints) = server::judged(config, &Rights::OWN);
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
    if access::is_root() && settings.run_as.is_none() {
        eprintln!("dmail: warning: serving as root: set run_as to a user of its own");
    }
    let result =
        server::part(&settings).and_then(|launcher| Server::start(settings, services, launcher)).and_then(|server| {
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
