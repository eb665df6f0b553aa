//! `loadtest`: makes spools, loads mail servers, counts messages one by one, and puts servers side by side.
//!
//! A client of the library: its protocol clients, its loop, its parsers. Nothing of the server's side is used, so that
//! any server can stand at the other end.
//!
//! | file         | what it is                                                              |
//! |--------------|-------------------------------------------------------------------------|
//! | `args.rs`    | options that several commands have                                      |
//! | `work.rs`    | what a client is asked to do, and what came of it                       |
//! | `run.rs`     | the engine: one thread, one loop, arrivals in a closed or an open loop  |
//! | `session/`   | one client: a protocol machine, its socket, and what it checks          |
//! | `letter.rs`  | messages that can be verified by themselves                             |
//! | `laws.rs`    | how much mail people have                                               |
//! | `manifest.rs`| what was made in a spool                                                |
//! | `accounts.rs`| whom to be: a rule, or a file                                           |
//! | `meter.rs`   | what was measured                                                       |
//! | `sink.rs`    | another host, that takes all mail                                       |
//! | `sample.rs`, `watch.rs` | what the server under test uses                              |
//! | `live.rs`    | what is seen while a run goes on                                        |
//! | `report/`    | how it is shown                                                         |
//! | `pop.rs`, `smtp.rs`, `isp.rs`, `spool/`, `ledger/`, `versus/` | the commands           |

mod accounts;
mod args;
mod isp;
mod laws;
mod ledger;
mod letter;
mod live;
mod load;
mod manifest;
mod meter;
mod pop;
mod report;
mod run;
mod sample;
mod session;
mod sink;
mod smtp;
mod spool;
mod versus;
mod watch;
mod who;
mod work;

use std::process::ExitCode;

/// One of the commands.
struct Command {
    name: &'static str,
    help: &'static str,
    /// What it prints with `-h`.
    page: fn() -> String,
    run: fn(&[String]) -> u8,
}

const COMMANDS: &[Command] = &[
    Command { name: "spool", help: "make accounts and their mail", page: spool::page, run: spool::run },
    Command { name: "pop", help: "load a POP3 server with one kind of work", page: pop::page, run: pop::run },
    Command { name: "smtp", help: "load an SMTP server with one kind of work", page: smtp::page, run: smtp::run },
    Command { name: "isp", help: "load both with a mixed day", page: isp::page, run: isp::run },
    Command { name: "ledger", help: "prove that nothing is lost or doubled", page: ledger::page, run: ledger::run },
    Command { name: "versus", help: "put servers side by side", page: versus::page, run: versus::run },
];

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    let Ok(words) = words else {
        eprintln!("loadtest: an argument is not UTF-8; write it in UTF-8");
        return ExitCode::from(args::USAGE);
    };
    ExitCode::from(command(&words))
}

fn command(words: &[String]) -> u8 {
    match words.first().map(String::as_str) {
        Some("-V" | "--version") => {
            args::print(concat!("loadtest ", env!("CARGO_PKG_VERSION"), "\n"));
            args::DONE
        }
        Some("-h" | "--help") => {
            args::print(&help());
            args::DONE
        }
        Some("help") => match words.get(1).and_then(|word| find(word)) {
            Some(command) => {
                args::print(&(command.page)());
                args::DONE
            }
            None => {
                args::print(&help());
                args::DONE
            }
        },
        Some(word) => match find(word) {
            Some(command) => (command.run)(&words[1..]),
            None => {
                eprintln!("loadtest: `{word}` is none of its commands\n\n{}", help());
                args::USAGE
            }
        },
        None => {
            eprint!("{}", help());
            args::USAGE
        }
    }
}

fn find(word: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == word)
}

fn help() -> String {
    let mut text = String::from("usage: loadtest COMMAND [OPTION ...]\n\n");
    for Command { name, help, .. } in COMMANDS {
        text += &format!("  {name:8} {help}\n");
    }
    text + "\n`loadtest COMMAND -h` says more. Exit codes: 0 done, 1 it failed or something was lost, 2 wrong options.\n"
}
