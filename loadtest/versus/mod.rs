//! `loadtest versus`: the same work, in turns, for our server and for others, each started here in a private folder.
//!
//! | file         | what it has                                                                  |
//! |--------------|------------------------------------------------------------------------------|
//! | `rows/`      | the work, one file a row                                                     |
//! | `peers/`     | the servers, one file each: configuration, and what it cannot do             |
//! | `site.rs`    | a private folder: accounts, drops, certificate, ports                        |
//! | `process.rs` | a server started in namespaces of its own, known by its pids, ended whole    |
//! | `load.rs`    | polls and mail by the engine                                                 |
//! | `client.rs`  | clients that wait for each answer, or only count octets                      |
//! | `table.rs`   | medians, spreads, ratios; as text, Markdown, JSON                            |
//!
//! Rounds take turns, so that a busy machine slows all of them; only ratios mean something elsewhere. A peer that is not
//! there is left out with one line, one that fails has its reason in its cell; the rest goes on. Nothing outside the private
//! folders is written, and nothing listens anywhere but on loopback.

mod client;
#[path = "../../benches/budgets/bounds.rs"]
#[expect(dead_code, reason = "one file for both: the budgets have a few bounds that are not used here")]
mod least;
mod load;
mod peers;
mod process;
mod rows;
mod site;
mod table;

use std::fs;
use std::path::PathBuf;

use getopts::Options;
use serde_json::json;

use dmail::sys::process::raise_descriptor_limit;

use crate::args::{DONE, FAILED, USAGE, print};
use peers::{PEERS, Peer, Tools, find};
use rows::{Ground, ROWS, stopped};
use table::{OURS, Table};

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;
/// More say nothing that these do not.
const ROUNDS_MOST: usize = 99;

/// What `-h` prints.
pub fn page() -> String {
    let rows: String = ROWS.iter().map(|row| format!("    {}   {}\n", row.letter, row.what)).collect();
    let peers = PEERS.iter().map(|peer| peer.name).collect::<Vec<_>>().join(", ");
    let about = format!(
        "usage: loadtest versus [OPTION ...]\n\nPuts servers side by side: the same work for each, in turns. `make peers` gets \
         the others. Most of them need root.\n\nRows:\n{rows}\nPeers: {peers} (the last three are bounds)."
    );
    options().usage(&about)
}

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("", "only", "these rows, all without it", "a,f");
    options.optopt("", "peers", "these peers, all without it", "dmail,null");
    options.optopt(
        "",
        "rounds",
        &format!("so many rounds ({ROUNDS}; {QUICK_ROUNDS} with --quick); (c), (d) and (h) have fewer"),
        "N",
    );
    options.optflag("", "quick", "a tenth of everything: whether it works, not how fast");
    options.optopt("", "json", "write all figures of all rounds there", "FILE");
    options.optflag("", "markdown", "print the table as Markdown");
    options.optopt("", "dir", "make folders there: that disk is measured", "DIR");
    options.optopt("", "program", "our server (the dmail beside this program)", "FILE");
    options.optopt(
        "",
        "unpacked",
        "where `make peers` put what it unpacked (peers/ beside this program's folder)",
        "DIR",
    );
    options.optflag("h", "help", "print this help");
    options
}

/// What is asked for.
#[derive(Debug)]
struct Asked {
    rows: Vec<char>,
    peers: Vec<&'static Peer>,
    rounds: usize,
    quick: bool,
    json: Option<PathBuf>,
    markdown: bool,
    dir: PathBuf,
    tools: Tools,
}

fn asked(words: &[String]) -> Result<Option<Asked>, String> {
    let matches = options().parse(words).map_err(|error| error.to_string())?;
    if matches.opt_present("h") {
        return Ok(None);
    }
    if let Some(word) = matches.free.first() {
        return Err(format!("`{word}` is no option of it"));
    }
    let listed =
        |name: &str| matches.opt_str(name).map(|list| list.split(',').map(|word| word.trim().to_owned()).collect());
    let rows = match listed("only") {
        None => ROWS.iter().map(|row| row.letter).collect(),
        Some::<Vec<String>>(names) => {
            let row = |name: &String| ROWS.iter().map(|row| row.letter).find(|letter| *name == letter.to_string());
            let found = names.iter().map(|name| row(name).ok_or_else(|| format!("--only: there is no row `{name}`")));
            found.collect::<Result<_, _>>()?
        }
    };
    let peers = match listed("peers") {
        None => PEERS.iter().collect(),
        Some::<Vec<String>>(names) => {
            let peer = |name: &String| find(name).ok_or_else(|| format!("--peers: there is no peer `{name}`"));
            let named: Vec<&Peer> = names.iter().map(peer).collect::<Result<_, String>>()?;
            // In the order of the table, each once.
            PEERS.iter().filter(|peer| named.iter().any(|named| named.name == peer.name)).collect()
        }
    };
    let quick = matches.opt_present("quick");
    let rounds = match matches.opt_str("rounds") {
        None if quick => QUICK_ROUNDS,
        None => ROUNDS,
        Some(text) => match text.parse() {
            Ok(rounds @ 1..=ROUNDS_MOST) => rounds,
            _ => return Err(format!("--rounds: `{text}` is no number from 1 to {ROUNDS_MOST}")),
        },
    };
    let own = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let beside = own.parent().unwrap_or(&own).to_owned();
    let unpacked = beside.parent().unwrap_or(&beside).join("peers");
    Ok(Some(Asked {
        rows,
        peers,
        rounds,
        quick,
        json: matches.opt_str("json").map(PathBuf::from),
        markdown: matches.opt_present("markdown"),
        dir: matches.opt_str("dir").map_or_else(std::env::temp_dir, PathBuf::from),
        tools: Tools {
            program: matches.opt_str("program").map_or_else(|| beside.join(OURS), PathBuf::from),
            peers: matches.opt_str("unpacked").map_or(unpacked, PathBuf::from),
        },
    }))
}

/// Runs it.
pub fn run(words: &[String]) -> u8 {
    if peers::serve_bound(words) {
        return DONE;
    }
    match asked(words) {
        Ok(Some(asked)) => measure(asked, words),
        Ok(None) => {
            print(&page());
            DONE
        }
        Err(why) => {
            eprintln!("loadtest versus: {why}\n`loadtest versus -h` says what it takes");
            USAGE
        }
    }
}

fn measure(asked: Asked, words: &[String]) -> u8 {
    let dir = match asked.dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) => {
            eprintln!("loadtest versus: {}: {error}; name a folder with --dir", asked.dir.display());
            return FAILED;
        }
    };
    // Servers inherit it: thousands of sessions need thousands.
    if let Err(error) = raise_descriptor_limit() {
        eprintln!("versus: the limit of descriptors cannot be raised: {error}");
    }
    let absolute = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let tools = Tools { program: absolute(asked.tools.program), peers: absolute(asked.tools.peers) };
    let (here, missing): (Vec<&Peer>, Vec<&Peer>) = asked.peers.iter().partition(|peer| peer.missing(&tools).is_none());
    for peer in missing {
        eprintln!("versus: {} is left out: {}", peer.name, peer.missing(&tools).unwrap_or_default());
    }
    if here.is_empty() {
        eprintln!("loadtest versus: none of the peers is there; `make peers` gets them");
        return FAILED;
    }
    let table = Table::default();
    let mut ground = Ground { tools, peers: here, rounds: asked.rounds, quick: asked.quick, dir, table };
    for row in ROWS.iter().filter(|row| asked.rows.contains(&row.letter)) {
        (row.measure)(&mut ground);
        if stopped() {
            eprintln!("loadtest versus: stopped; this is what was measured");
            break;
        }
    }
    let table = ground.table;
    print(&if asked.markdown { table.markdown() } else { table.text() });
    if let Some(path) = asked.json {
        let all = json!({
            "command": std::iter::once("loadtest versus").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join(" "),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "rounds": asked.rounds,
            "quick": asked.quick,
            "works": table.json(),
        });
        if let Err(error) = fs::write(&path, format!("{all:#}\n")) {
            eprintln!("loadtest versus: {}: {error}", path.display());
            return FAILED;
        }
    }
    if table.ours_failed() || stopped() { FAILED } else { DONE }
}

/// What figures depend on.
fn machine() -> serde_json::Value {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches([':', ' ', '\t']).trim().to_owned()
    };
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "model": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
        "kernel": line("/proc/sys/kernel/osrelease", ""),
        "load": line("/proc/loadavg", ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn without_options_everything_is_measured_five_times() {
        let asked = asked(&[]).unwrap().unwrap();
        assert_eq!(
            (asked.rows.iter().collect::<String>(), asked.rounds, asked.quick),
            ("abcdefghi".to_owned(), 5, false)
        );
        assert_eq!(asked.peers.len(), PEERS.len());
    }

    #[test]
    fn rows_and_peers_are_chosen_by_name() {
        let asked = asked(&words("--quick --only f,a --peers null,dmail,null")).unwrap().unwrap();
        assert_eq!((asked.rows, asked.rounds), (vec!['f', 'a'], 2));
        assert_eq!(asked.peers.iter().map(|peer| peer.name).collect::<Vec<_>>(), ["dmail", "null"]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, why) in [
            ("--only x", "there is no row `x`"),
            ("--only ab", "there is no row `ab`"),
            ("--peers qpopper", "there is no peer `qpopper`"),
            ("--rounds 0", "`0` is no number from 1"),
            ("--rounds many", "`many`"),
            ("--loud", "loud"),
            ("a", "`a` is no option"),
        ] {
            let said = asked(&words(text)).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert_eq!(run(&words("--only x")), USAGE);
    }

    #[test]
    fn help_names_every_row_and_peer() {
        let page = page();
        assert!(ROWS.iter().all(|row| page.contains(row.what)) && PEERS.iter().all(|peer| page.contains(peer.name)));
        assert!(asked(&words("-h")).unwrap().is_none());
    }
}
