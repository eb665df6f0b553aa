//! (h) What accounts cost: a server's memory at rest and after polls, and the time of polls, by how many accounts there are, each
//! with one small message. Polls go once over some accounts that are spread over all, which neither server nor kernel have looked at; then
//! over the same ones again. The second needs nothing that depends on the number; what the first takes
//! more is the kernel's, which reads directories and inodes.

use std::process::Command;
use std::time::Duration;

use super::{Ground, mega};
use crate::sample::sample;
use crate::versus::load::{Accounts, each_once, polls};
use crate::versus::peers::Server;
use crate::versus::site::{self, Order, Passwords};
use crate::versus::table::{Better, Figure};

const CLIENTS: usize = 86;
/// Accounts that are polled, of all.
const POLLED: usize = 860;
/// What an account takes on disk, with its inode; popa3d has another file for each.
const BYTES_EACH: u64 = 10_000;
/// How much of the disk stays free.
const SPARE: u64 = 5 << 30;

const FIGURES: &[Figure] = &[
    Figure { id: "rest", what: "memory at rest, Pss", unit: "MB", better: Better::Less },
    Figure { id: "after", what: "memory after polls, Pss", unit: "MB", better: Better::Less },
    Figure { id: "first", what: "polls of accounts not seen before", unit: "a second", better: Better::More },
    Figure { id: "polls", what: "polls of these again, flat out", unit: "a second", better: Better::More },
    Figure { id: "p50", what: "of those, p50", unit: "ms", better: Better::Less },
    Figure { id: "p99", what: "of those, p99", unit: "ms", better: Better::Less },
];

pub fn measure(ground: &mut Ground) {
    for &accounts in ground.either(&[5000, 20_000][..], &[5000, 200_000, 500_000]) {
        let peers = ground.who("null", |peer| peer.pop && peer.name != "dovecot");
        let mut lanes = ground.lanes('h', format!("{accounts} accounts"), FIGURES);
        let needed = accounts as u64 * BYTES_EACH * peers.iter().filter(|peer| !peer.bound).count() as u64 + SPARE;
        match free(ground) {
            Some(bytes) if bytes < needed => {
                let why = format!("{} GB of disk are needed and {} free", needed >> 30, bytes >> 30);
                for peer in peers {
                    lanes.work.column(peer.name, peer.bound);
                    ground.failed(&mut lanes.work, peer.name, why.clone());
                }
                ground.end(lanes);
                continue;
            }
            _ => {}
        }
        ground.start(&mut lanes, &peers, Order { accounts, passwords: Passwords::Cheap, beyond: None }, |site| {
            (0..accounts).try_for_each(|number| site.put_drop(number, &site::mail(number, 1, 1100)))
        });
        let rounds = ground.rounds.min(accounts / POLLED);
        let time = ground.either(Duration::from_secs(1), Duration::from_secs(3));
        ground.rounds(&mut lanes, rounds, |server, round| {
            // What the bound uses bounds nothing.
            let bound = server.peer.bound;
            let used = |server: &Server| (!bound).then(|| mega(sample(&server.running.pids()).pss as f64));
            let rest = if round == 0 { used(server) } else { None };
            // Others in each round: every so many-th of all.
            let stride = accounts / POLLED;
            let some = Accounts { first: round * stride / rounds, count: POLLED, stride };
            let first = each_once(server, CLIENTS, some, Duration::from_secs(120))?;
            let again = polls(server, CLIENTS, some, time)?;
            let after = mega(sample(&server.running.pids()).pss as f64);
            Ok(vec![
                rest,
                Some(after),
                Some(first.per_sec),
                Some(again.per_sec),
                Some(again.p50_ms),
                Some(again.p99_ms),
            ])
        });
        ground.end(lanes);
    }
}

/// Bytes free where folders are made, as df (coreutils) says; None when it cannot.
fn free(ground: &Ground) -> Option<u64> {
    let said = Command::new("df").args(["--output=avail", "-B1"]).arg(&ground.dir).output().ok()?;
    String::from_utf8_lossy(&said.stdout).lines().nth(1)?.trim().parse().ok()
}
