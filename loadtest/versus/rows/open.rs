//! (c) Opening a large drop, and deleting half of it.
//!
//! | figure          | the drop's data      | the server has seen this drop | bound                                          |
//! |-----------------|----------------------|-------------------------------|------------------------------------------------|
//! | from disk       | not in the page cache| never                         | read from disk, newlines counted, one XXH3     |
//! | first sight     | in the page cache    | never                         | the same from the page cache                   |
//! | again           | in the page cache    | just before                   | none: nothing of it need be read               |
//! | QUIT            |                      | half of it marked             | 4 KB appended to a file and synced             |
//!
//! Opening is from PASS to the answer to STAT. A drop serves one round, its half goes. Drops are three seconds old at
//! least: servers that trust a file's times cannot when they are newer.

use std::time::Duration;

use super::{Ground, mega, timed};
use crate::versus::client::Client;
use crate::versus::least;
use crate::versus::peers::Server;
use crate::versus::site::{self, Order, PASSWORD, Passwords, chill};
use crate::versus::table::{Better, Figure};

const BUFFER: usize = 64 * 1024;
/// See above.
const AGE: Duration = Duration::from_secs(3);
const BYTES: u64 = 1100;

const FIGURES: &[Figure] = &[
    Figure { id: "disk", what: "PASS and STAT, from disk", unit: "ms", better: Better::Less },
    Figure { id: "first", what: "PASS and STAT, first sight", unit: "ms", better: Better::Less },
    Figure { id: "again", what: "PASS and STAT, again", unit: "ms", better: Better::Less },
    Figure { id: "dele", what: "DELE of half, pipelined", unit: "ms", better: Better::Less },
    Figure { id: "quit", what: "QUIT", unit: "ms", better: Better::Less },
];

pub fn measure(ground: &mut Ground) {
    for (count, rounds) in
        [(3000, ground.rounds), (ground.either(30_000, 300_000), ground.rounds.min(ground.either(1, 3)))]
    {
        let accounts = 2 * rounds;
        let text = site::mail(0, count, BYTES);
        let title =
            format!("a drop of {count} messages, {} MB: opened, half of it deleted", mega(text.len() as f64).round());
        let mut lanes = ground.lanes('c', title, FIGURES);
        let peers = ground.who("", |peer| peer.pop);
        ground.start(&mut lanes, &peers, Order { accounts, passwords: Passwords::Cheap, beyond: None }, |site| {
            (0..accounts).try_for_each(|number| site.put_drop(number, &text))
        });
        lanes.work.column("scan", true);
        if lanes.servers.is_empty() {
            ground.end(lanes);
            continue;
        }
        std::thread::sleep(AGE);
        let first = lanes.servers[0].peer.name;
        let mut bounds = Vec::new();
        ground.rounds(&mut lanes, rounds, |server, round| {
            let (cold, seen) = (server.site.drop_file(round), rounds + round);
            if server.peer.name == first {
                let chilled = || chill(&cold).map_err(|error| error.to_string());
                chilled()?;
                let (_, disk) = timed(|| Ok(least::read_count_and_hash(&cold)))?;
                let (_, cached) = timed(|| Ok(least::read_count_and_hash(&cold)))?;
                let sync = least::append_and_sync(server.site.path(), false).as_secs_f64();
                bounds.push([disk, cached, sync]);
            }
            chill(&cold).map_err(|error| error.to_string())?;
            let from_disk = opened(server, round, count)?;
            let first_sight = opened(server, seen, count)?;
            let again = opened(server, seen, count)?;
            let (dele, quit) = deleted(server, seen, count)?;
            Ok([from_disk, first_sight, again, dele, quit].map(|secs| Some(secs * 1e3)).to_vec())
        });
        for [disk, cached, sync] in bounds {
            lanes.work.put("scan", vec![Some(disk * 1e3), Some(cached * 1e3), None, None, Some(sync * 1e3)]);
        }
        ground.end(lanes);
    }
}

/// Seconds from PASS to what STAT says.
fn opened(server: &Server, number: usize, count: usize) -> Result<f64, String> {
    let (mut client, secs) = open(server, number, count)?;
    client.ask("QUIT")?;
    Ok(secs)
}

fn open(server: &Server, number: usize, count: usize) -> Result<(Client, f64), String> {
    let mut client = Client::connect(server.site.pop, false, BUFFER)?;
    client.ask(&format!("USER {}", site::user(number)))?;
    let (found, secs) = timed(|| {
        client.ask(&format!("PASS {PASSWORD}"))?;
        client.stat()
    })?;
    match found == count {
        true => Ok((client, secs)),
        false => Err(format!("STAT says {found} messages where there are {count}")),
    }
}

/// Seconds that deleting every second message takes, and the QUIT after it; then half must be left.
fn deleted(server: &Server, number: usize, count: usize) -> Result<(f64, f64), String> {
    let (mut client, _) = open(server, number, count)?;
    let lines: Vec<String> = (1..=count).step_by(2).map(|number| format!("DELE {number}")).collect();
    let ((), dele) = timed(|| client.all(&lines, true))?;
    let (_, quit) = timed(|| client.ask("QUIT"))?;
    opened(server, number, count - lines.len())?;
    Ok((dele, quit))
}
