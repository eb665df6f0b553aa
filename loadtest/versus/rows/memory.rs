//! (d) What idle sessions cost that have logged in and opened their drops: 86, 1,000 and 10,000 of them, in clear and under TLS.
//! A server is started for each round and gets more and more sessions. Memory is that of all its processes, two seconds after
//! the last login; a session's is the difference to the server at rest.
//!
//! The kernel's share stands beside it: what slab, page tables, kernel stacks and socket buffers of the whole machine grew by,
//! for both ends of the connection (ours is one socket, for every peer alike). On a machine that does other things it says nothing.

use std::time::{Duration, Instant};

use super::{Ground, stopped};
use crate::sample::{Kernel, Sample, pss, sample};
use crate::versus::client::{Client, hold};
use crate::versus::peers::{Peer, Server};
use crate::versus::site::{self, Order, Passwords};
use crate::versus::table::{Better, Figure, Work};

/// Between the last login and the look.
const SETTLES: Duration = Duration::from_secs(2);
/// Until that many more sessions must be there.
const LIMIT: Duration = Duration::from_secs(240);

/// A server of so few processes is one that has a main one.
const FEW: usize = 16;

const FIGURES: &[Figure] = &[
    Figure { id: "pss", what: "memory in all, Pss", unit: "MB", better: Better::Less },
    Figure { id: "private", what: "memory in all, private", unit: "MB", better: Better::Less },
    Figure { id: "largest", what: "its largest process, Pss", unit: "MB", better: Better::Neither },
    Figure { id: "session", what: "a session, Pss", unit: "KB", better: Better::Less },
    Figure { id: "kernel", what: "a session, the kernel's share", unit: "KB", better: Better::Less },
    Figure { id: "processes", what: "processes", unit: "of them", better: Better::Neither },
    Figure { id: "files", what: "descriptors", unit: "of them", better: Better::Neither },
];

pub fn measure(ground: &mut Ground) {
    let sizes: &[usize] = ground.either(&[86, 500], &[86, 1000, 10_000]);
    for tls in [false, true] {
        let peers = ground.who("", |peer| peer.pop && (!tls || peer.tls));
        let how = if tls { "under TLS" } else { "in clear" };
        let mut works: Vec<Work> = sizes
            .iter()
            .map(|size| {
                let mut work = Work::new('d', format!("{size} idle sessions with their drops open, {how}"), FIGURES);
                peers.iter().for_each(|peer| work.column(peer.name, false));
                work
            })
            .collect();
        ground.say(&format!("(d) idle sessions, {how}"));
        for _ in 0..ground.rounds.min(ground.either(1, 3)) {
            for peer in peers.iter().filter(|_| !stopped()) {
                fill(ground, peer, tls, sizes, &mut works);
            }
        }
        for work in works {
            eprint!("{}", work.text());
            ground.table.add(work);
        }
    }
}

/// One server, one round.
fn fill(ground: &Ground, peer: &'static Peer, tls: bool, sizes: &[usize], works: &mut [Work]) {
    let accounts = sizes.last().copied().unwrap_or_default();
    let order = Order { accounts, passwords: Passwords::Cheap, beyond: None };
    let server = peer.start(&ground.tools, &ground.dir, order, |site| {
        (0..accounts).try_for_each(|number| site.put_drop(number, &site::mail(number, 3, 1100)))
    });
    let server = match server {
        Ok(server) => server,
        Err(why) => return works.iter_mut().for_each(|work| ground.failed(work, peer.name, why.clone())),
    };
    std::thread::sleep(SETTLES);
    let (rest, kernel) = (sample(&server.running.pids()), Kernel::now().total());
    let mut held: Vec<Client> = Vec::new();
    for (index, &size) in sizes.iter().enumerate() {
        let address = if tls { server.site.pops } else { server.site.pop };
        match hold(address, tls, held.len()..size, Instant::now() + LIMIT) {
            Ok(more) => held.extend(more),
            Err((reached, why)) => {
                let why = format!("at {} sessions: {why}", held.len() + reached);
                return works[index..].iter_mut().for_each(|work| ground.failed(work, peer.name, why.clone()));
            }
        }
        std::thread::sleep(SETTLES);
        works[index].put(peer.name, looked_at(&server, size, rest, kernel));
    }
}

fn looked_at(server: &Server, sessions: usize, rest: Sample, kernel_before: u64) -> Vec<Option<f64>> {
    let kernel = Kernel::now().total() as f64 - kernel_before as f64;
    let pids = server.running.pids();
    let now = sample(&pids);
    // Where each session is a process, the largest one says nothing.
    let largest = pids.iter().take(FEW + 1).map(|&pid| pss(&[pid])).max().filter(|_| pids.len() <= FEW);
    let sessions = sessions as f64;
    vec![
        Some(now.pss as f64 / 1e6),
        Some(now.private as f64 / 1e6),
        largest.map(|bytes| bytes as f64 / 1e6),
        Some((now.pss as f64 - rest.pss as f64) / sessions / 1e3),
        Some(kernel / sessions / 1e3),
        Some(now.processes as f64),
        Some(now.files as f64),
    ]
}
