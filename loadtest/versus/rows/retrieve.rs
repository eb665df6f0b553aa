//! (b) RETR: many small messages, 50 asked for at a time, and one of 50 MB, in clear and under TLS. The bound reads the file, changes LF to CRLF,
//! doubles dots and writes the socket, with and without TLS; for small messages it sends a file of one. The client counts octets
//! and looks at nothing but the end.

use super::{Ground, mega, timed};
use crate::versus::client::Client;
use crate::versus::site::{self, Order, Passwords, Site};
use crate::versus::table::{Better, Figure};

/// Octets read at once.
const BUFFER: usize = 256 * 1024;
/// Bytes of a small message, and of the big one.
const SMALL: u64 = 1100;
const BIG: u64 = 50 << 20;

const SMALL_FIGURES: &[Figure] = &[
    Figure { id: "plain", what: "in clear", unit: "messages/s", better: Better::More },
    Figure { id: "tls", what: "under TLS", unit: "messages/s", better: Better::More },
];
const BIG_FIGURES: &[Figure] = &[
    Figure { id: "plain", what: "in clear", unit: "MB/s", better: Better::More },
    Figure { id: "tls", what: "under TLS", unit: "MB/s", better: Better::More },
];

pub fn measure(ground: &mut Ground) {
    let order = Order { accounts: 1, passwords: Passwords::Cheap, beyond: None };
    let count = ground.either(1000, 3000);
    let mut lanes = ground.lanes('b', format!("RETR of {count} messages of {SMALL} bytes, pipelined"), SMALL_FIGURES);
    let (bound, peers): (Vec<_>, Vec<_>) = ground.who("bare", |peer| peer.pop).into_iter().partition(|peer| peer.bound);
    let numbers: Vec<usize> = (1..=count).collect();
    ground.start(&mut lanes, &peers, order, |site| site.put_drop(0, &site::mail(0, count, SMALL)));
    ground.start(&mut lanes, &bound, order, |site| site.put_drop(0, &site::mail(0, 1, SMALL)));
    ground.each(&mut lanes, |server| rate(&server.site, false, &numbers).map(drop));
    ground.rounds(&mut lanes, ground.rounds, |server, _| {
        let one = |tls| rate(&server.site, tls, &numbers).map(|(_, secs)| count as f64 / secs);
        Ok(vec![Some(one(false)?), server.peer.tls.then(|| one(true)).transpose()?])
    });
    ground.end(lanes);

    let times = ground.either(2, 4);
    let mut lanes = ground.lanes('b', format!("RETR of one message of 50 MB, {times} times in turn"), BIG_FIGURES);
    let peers = ground.who("bare", |peer| peer.pop);
    ground.start(&mut lanes, &peers, order, |site| site.put_drop(0, &site::mail(0, 1, BIG)));
    ground.each(&mut lanes, |server| rate(&server.site, false, &[1]).map(drop));
    let numbers = vec![1; times];
    ground.rounds(&mut lanes, ground.rounds, |server, _| {
        let one = |tls| rate(&server.site, tls, &numbers).map(|(octets, secs)| mega(octets as f64 / secs));
        Ok(vec![Some(one(false)?), server.peer.tls.then(|| one(true)).transpose()?])
    });
    ground.end(lanes);
}

/// Octets of their texts, and seconds that retrieving them took; logging in does not count.
fn rate(site: &Site, tls: bool, numbers: &[usize]) -> Result<(u64, f64), String> {
    let mut client = Client::connect(if tls { site.pops } else { site.pop }, tls, BUFFER)?;
    client.login(0)?;
    client.stat()?;
    let (octets, secs) = timed(|| client.retrieve(numbers))?;
    let least = numbers.len() as u64 * SMALL;
    if octets < least {
        return Err(format!("RETR gave {octets} octets where {least} were to be expected"));
    }
    client.ask("QUIT")?;
    Ok((octets, secs))
}
