//! The rows: what is done, by whom, how often.
//!
//! | row | file         | work                                                                      |
//! |-----|--------------|---------------------------------------------------------------------------|
//! | a   | `polls.rs`   | connect, USER, PASS, STAT, QUIT by 86 clients                             |
//! | b   | `retrieve.rs`| RETR of small messages and of 50 MB                                       |
//! | c   | `open.rs`    | opening drops of 3,000 and 300,000 messages, DELE of half of them, QUIT   |
//! | d   | `memory.rs`  | 86, 1,000, 10,000 idle sessions                                           |
//! | e   | `beside.rs`  | p99 of polls while one client reads 50 MB                                 |
//! | f   | `accept.rs`  | mail taken, and delivered                                                 |
//! | g   | `many.rs`    | one message to 1,000 recipients                                           |
//! | h   | `accounts.rs`| 5,000, 200,000 and 500,000 accounts                                       |
//! | i   | `relay.rs`   | mail taken, and brought to another host                                   |
//!
//! In each, the peers of a work are started together, over folders of their own with the same bytes; then rounds go over
//! them in turn, one measuring at a time. One that fails is out of this work and stopped; the others go on.

mod accept;
mod accounts;
mod beside;
mod many;
mod memory;
mod open;
mod polls;
mod relay;
mod retrieve;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::load::STOPPED;
use super::peers::{Peer, Server, Tools};
use super::site::{Order, Site};
use super::table::{Figure, Table, Work};

/// What is to be measured, with what.
pub struct Ground {
    pub tools: Tools,
    /// Who takes part, in the order of the table.
    pub peers: Vec<&'static Peer>,
    pub rounds: usize,
    pub quick: bool,
    /// Where folders are made: its disk is measured too.
    pub dir: PathBuf,
    pub table: Table,
}

/// One row.
pub struct Row {
    pub letter: char,
    pub what: &'static str,
    pub measure: fn(&mut Ground),
}

/// All of them.
pub const ROWS: &[Row] = &[
    Row { letter: 'a', what: "polls at 86 clients", measure: polls::measure },
    Row { letter: 'b', what: "RETR of small messages and of 50 MB", measure: retrieve::measure },
    Row { letter: 'c', what: "opening 3,000 and 300,000 messages, deleting half", measure: open::measure },
    Row { letter: 'd', what: "memory at 86, 1,000, 10,000 idle sessions", measure: memory::measure },
    Row { letter: 'e', what: "p99 of polls beside a 50 MB RETR", measure: beside::measure },
    Row { letter: 'f', what: "mail accepted durably, and delivered", measure: accept::measure },
    Row { letter: 'g', what: "one message to 1,000 recipients", measure: many::measure },
    Row { letter: 'h', what: "5,000, 200,000, 500,000 accounts", measure: accounts::measure },
    Row { letter: 'i', what: "mail relayed to another host", measure: relay::measure },
];

/// Peers that take part in one work, and are still in it.
struct Lanes {
    work: Work,
    servers: Vec<Server>,
}

impl Ground {
    /// This many of a small thing, or that many.
    fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A line to the person who waits.
    fn say(&self, text: &str) {
        eprintln!("versus: {text}");
    }

    /// A work with nobody in it yet.
    fn lanes(&self, row: char, title: String, figures: &'static [Figure]) -> Lanes {
        self.say(&format!("({row}) {title}"));
        Lanes { work: Work::new(row, title, figures), servers: Vec::new() }
    }

    /// The peers, and the bound of that name, that `suits` lets in.
    fn who(&self, bound: &str, suits: impl Fn(&Peer) -> bool) -> Vec<&'static Peer> {
        self.peers.iter().copied().filter(|peer| if peer.bound { peer.name == bound } else { suits(peer) }).collect()
    }

    /// Starts them over mail that `fill` makes; who does not start has failed.
    fn start(&self, lanes: &mut Lanes, peers: &[&'static Peer], order: Order, fill: impl Fn(&Site) -> io::Result<()>) {
        for peer in peers {
            lanes.work.column(peer.name, peer.bound);
            if stopped() {
                continue;
            }
            match peer.start(&self.tools, &self.dir, order, &fill) {
                Ok(server) => lanes.servers.push(server),
                Err(why) => self.failed(&mut lanes.work, peer.name, why),
            }
        }
    }

    fn failed(&self, work: &mut Work, peer: &str, why: String) {
        self.say(&format!("    {peer} failed: {why}"));
        work.fail(peer, why);
    }

    /// Has each of them do something that is not measured.
    fn each(&self, lanes: &mut Lanes, mut act: impl FnMut(&mut Server) -> Result<(), String>) {
        let servers = std::mem::take(&mut lanes.servers);
        for mut server in servers {
            if stopped() {
                return;
            }
            match act(&mut server) {
                Ok(()) => lanes.servers.push(server),
                Err(why) => self.failed(&mut lanes.work, server.peer.name, why),
            }
        }
    }

    /// Rounds over all of them in turn; `measure` gives a value for each figure.
    fn rounds(
        &self,
        lanes: &mut Lanes,
        rounds: usize,
        mut measure: impl FnMut(&mut Server, usize) -> Result<Vec<Option<f64>>, String>,
    ) {
        for round in 0..rounds {
            let servers = std::mem::take(&mut lanes.servers);
            for mut server in servers {
                if stopped() {
                    return;
                }
                match measure(&mut server, round) {
                    Ok(values) => {
                        lanes.work.put(server.peer.name, values);
                        lanes.servers.push(server);
                    }
                    Err(why) => {
                        let why = server.running.ended().unwrap_or(why);
                        self.failed(&mut lanes.work, server.peer.name, why);
                    }
                }
            }
        }
    }

    /// Ends it: servers are stopped, their folders go, the person sees what came out.
    fn end(&mut self, lanes: Lanes) {
        let Lanes { work, servers } = lanes;
        drop(servers);
        eprint!("{}", work.text());
        self.table.add(work);
    }
}

/// Whether somebody wants it to end: nothing new is begun then.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Bytes as megabytes.
fn mega(bytes: f64) -> f64 {
    bytes / 1e6
}

/// What `work` gives, and how many seconds it took.
fn timed<T>(work: impl FnOnce() -> Result<T, String>) -> Result<(T, f64), String> {
    let begun = std::time::Instant::now();
    let done = work()?;
    Ok((done, begun.elapsed().as_secs_f64()))
}
