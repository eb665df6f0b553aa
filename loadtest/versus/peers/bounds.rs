//! No servers, but the least a program could do for the same, in processes of their own: `benches/budgets/bounds.rs` has them,
//! and budgets and these rows have the same ones. Also the helper that knows everybody.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;

use dmail::net::tls;

use super::super::least;
use super::super::process::Launch;
use super::{Peer, Tools, anything, nothing_queued};

/// The word that makes this program a helper which says yes to all.
pub const HELPER: &str = "--null-helper";
/// The words that make it a bound.
const NULL_SERVER: &str = "--null-server";
const BARE_SERVER: &str = "--bare-server";
const KEEPING_SERVER: &str = "--keeping-server";

/// One loop that says `+OK` to every line.
pub const NULL: Peer = Peer {
    name: "null",
    pop: true,
    tls: false,
    smtp: false,
    bound: true,
    missing: |_| None,
    refuses: anything,
    configure: |_: &Tools, site| launch(&[NULL_SERVER.into(), site.pop.to_string()]),
    queued: nothing_queued,
};

/// Reads the first account's drop, changes LF to CRLF, doubles dots, writes the socket: for every RETR.
pub const BARE: Peer = Peer {
    name: "bare",
    tls: true,
    configure: |_: &Tools, site| {
        let file = site.drop_file(0).display().to_string();
        launch(&[BARE_SERVER.into(), site.pop.to_string(), site.pops.to_string(), file])
    },
    ..NULL
};

/// Reads a message, appends it to its recipient's file, syncs that: a thread a client.
pub const KEEPING: Peer = Peer {
    name: "keeping",
    pop: false,
    smtp: true,
    configure: |_: &Tools, site| {
        launch(&[KEEPING_SERVER.into(), site.smtp.to_string(), site.spool().display().to_string()])
    },
    ..NULL
};

fn launch(words: &[String]) -> io::Result<Launch> {
    let own = std::env::current_exe()?.display().to_string();
    let words = [own, "versus".to_owned()].into_iter().chain(words.iter().cloned()).collect();
    Ok(Launch { words, ..Launch::default() })
}

/// Becomes what these words say, until it is ended; false: they say nothing of the kind.
pub fn serve(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let door = |word: &str| word.parse::<SocketAddr>().ok().map(least::listen_at);
    match *words {
        [HELPER] => say_yes(io::stdin().lock(), io::stdout().lock()),
        [NULL_SERVER, at] => door(at).map(least::null_server).unwrap_or_default(),
        [KEEPING_SERVER, at, dir] => door(at).map(|door| least::keeping_server(door, dir.as_ref())).unwrap_or_default(),
        [BARE_SERVER, plain, sealed, file] => {
            let (Some(plain), Some(sealed)) = (door(plain), door(sealed)) else { return false };
            let file: &Path = file.as_ref();
            let configuration = file.ancestors().nth(2).and_then(certificate);
            std::thread::scope(|threads| {
                threads.spawn(|| least::bare_server(plain, file, None));
                // Without a certificate there is no second door, and clients at it are refused.
                if let Some(configuration) = &configuration {
                    threads.spawn(|| least::bare_server(sealed, file, Some(configuration)));
                }
            });
        }
        _ => return false,
    }
    true
}

/// The site's.
fn certificate(folder: &Path) -> Option<tls::Tls> {
    let files = tls::Files { cert: folder.join("cert.pem"), key: folder.join("key.pem"), domain: None };
    tls::load(&[files], &|path: &Path| File::open(path)).ok().flatten()
}

/// `check USER ...` is answered with that user, whose mail is where dmail.conf says; anything else is not known.
fn say_yes(questions: impl BufRead, mut answers: impl Write) {
    for line in questions.lines() {
        let Ok(line) = line else { return };
        let mut words = line.split(' ');
        let told = match (words.next(), words.next()) {
            (Some("check" | "lookup"), Some(user)) => writeln!(answers, "+OK {user} config 0"),
            (Some("exit"), _) => return,
            _ => writeln!(answers, "-ERR not known"),
        };
        if told.and_then(|()| answers.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_knows_everybody_until_it_is_told_to_exit() {
        let mut answers = Vec::new();
        say_yes(&b"version\ncheck ann x 127.0.0.1\nlookup bob\nexit\ncheck late x\n"[..], &mut answers);
        assert_eq!(String::from_utf8(answers).unwrap(), "-ERR not known\n+OK ann config 0\n+OK bob config 0\n");
    }

    #[test]
    fn other_words_make_no_bound() {
        for words in [&["--quick"][..], &[], &["--null-server"], &["--null-server", "here"]] {
            assert!(!serve(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()) || words.len() == 2);
        }
    }
}
