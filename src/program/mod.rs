//! F7: one file a program: options in, exit code out. All of them are one executable.

pub mod bulletin;
pub mod check;
pub mod demo;
pub mod man;
pub mod nwauth;
pub mod options;
pub mod repair;
pub mod respond;
pub mod sendmail;
pub mod serve;
pub mod settings;
pub mod statistics;
pub mod stats;
pub mod tell;
pub mod unixauth;

use std::ffi::OsString;
use std::path::Path;

/// One of our programs.
struct Program {
    /// The name it is called by: `dmail NAME`, and for those with a link also NAME itself.
    name: &'static str,
    /// Whether it may be called by that name alone. `make install` makes a link of it, unless another mail server may have it.
    link: bool,
    help: &'static str,
    /// What it prints with `-h`.
    page: fn() -> String,
    run: fn(&[String]) -> u8,
}

const PROGRAMS: &[Program] = &[
    Program { name: "serve", link: false, help: "serve what dmail.conf asks for", page: serve::page, run: serve::run },
    Program { name: "dpop", link: true, help: "serve POP3 alone", page: serve::page, run: serve::run_pop3 },
    Program { name: "dsmtp", link: true, help: "serve SMTP and LMTP alone", page: serve::page, run: serve::run_smtp },
    Program {
        name: "demo",
        link: false,
        help: "make a folder with users and mail, and serve it",
        page: demo::page,
        run: demo::run,
    },
    Program { name: "check", link: false, help: "judge a dmail.conf", page: check::page, run: check::run },
    Program {
        name: "settings",
        link: false,
        help: "the reference of all settings",
        page: settings::page,
        run: settings::run,
    },
    Program { name: "man", link: false, help: "the manual pages", page: man::page, run: man::run },
    Program {
        name: "repair",
        link: false,
        help: "look at a maildrop and put it in order",
        page: repair::page,
        run: repair::run,
    },
    Program {
        name: "tellpop",
        link: true,
        help: "give orders to a running server",
        page: tell::pop_page,
        run: tell::run_pop,
    },
    Program {
        name: "tellsmtp",
        link: true,
        help: "give orders about mail on its way",
        page: tell::smtp_page,
        run: tell::run_smtp,
    },
    Program {
        name: sendmail::NAME,
        link: true,
        help: "send a message of a program of this machine",
        page: sendmail::page,
        run: sendmail::run,
    },
    Program {
        name: "mailq",
        link: true,
        help: "list what waits in the queue",
        page: sendmail::mailq_page,
        run: sendmail::mailq,
    },
    Program {
        name: "newaliases",
        link: true,
        help: "have alias files read again",
        page: sendmail::newaliases_page,
        run: sendmail::newaliases,
    },
    Program {
        name: "nwauth",
        link: true,
        help: "the stock authenticator: a file of users",
        page: nwauth::page,
        run: nwauth::run,
    },
    Program {
        name: "unixauth",
        link: false,
        help: "the authenticator for the users of this machine",
        page: unixauth::page,
        run: unixauth::run,
    },
    Program {
        name: "respond",
        link: false,
        help: "the stock auto-responder: a program that is given mail",
        page: respond::page,
        run: respond::run,
    },
    Program {
        name: "drespond",
        link: true,
        help: "the same, by the name of the original",
        page: respond::page,
        run: respond::run,
    },
];

/// Runs the program that these arguments mean; gives its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let mut foreign = None;
    let words: Vec<String> = args
        .into_iter()
        .map(|word| {
            word.into_string().unwrap_or_else(|word| {
                let shown = word.to_string_lossy().into_owned();
                foreign = Some(shown.clone());
                shown
            })
        })
        .collect();
    let called =
        words.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("dmail");
    let program = PROGRAMS.iter().find(|program| program.link && program.name == called);
    // Mail shall come through, though somebody's name in Latin-1 shows question marks; in an address they are refused.
    let is_sendmail = |name: &str| name == sendmail::NAME;
    if let Some(word) = &foreign
        && !is_sendmail(called)
        && !words.get(1).is_some_and(|word| is_sendmail(word))
    {
        eprintln!("dmail: {word}: not UTF-8");
        return options::USAGE;
    }
    if let Some(program) = program {
        return (program.run)(&words[1..]);
    }
    match words.get(1).map(String::as_str) {
        Some("-V" | "--version") => {
            options::print(&format!("dmail {}\n", env!("CARGO_PKG_VERSION")));
            options::DONE
        }
        Some("-h" | "--help" | "help") => {
            options::print(&help());
            options::DONE
        }
        Some(word) => match PROGRAMS.iter().find(|program| program.name == word) {
            Some(program) => (program.run)(&words[2..]),
            None => {
                eprintln!("dmail: `{word}` is none of its programs\n\n{}", help());
                options::USAGE
            }
        },
        None => {
            eprint!("{}", help());
            options::USAGE
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: dmail PROGRAM [OPTION ...]\n\n");
    for Program { name, link, help, .. } in PROGRAMS {
        let mark = if *link { '+' } else { ' ' };
        text += &format!("  {name:10} {mark} {help}\n");
    }
    text + "\nThose with a + are also called by that name alone. `dmail PROGRAM -h` says more. Exit codes: 0 done, 1 it failed, 2 wrong options.\n"
}
