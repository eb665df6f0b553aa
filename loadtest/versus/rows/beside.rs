//! (e) What others wait while one client retrieves 50 MB over and over: alone, beside one that reads 5 MB a second, and beside one that
//! reads as fast as it can. Polls come at a pace, whatever the server does, and count from when they were due. The bound is a loop that says
//! +OK, beside a bare sender: two processes, between which the kernel shares the processors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Ground, mega};
use crate::versus::client::Client;
use crate::versus::load::{Accounts, each_once, steady};
use crate::versus::peers::{Server, find};
use crate::versus::site::{self, Order, Passwords, Site};
use crate::versus::table::{Better, Figure};

/// Polls a second: what the slowest peer can do besides.
const PACE: f64 = 100.0;
/// What a slow reader takes, in octets a second.
const SLOW: u64 = 5_000_000;
const BIG: u64 = 50 << 20;
const BUFFER: usize = 256 * 1024;

const FIGURES: &[Figure] = &[
    Figure { id: "alone", what: "p99 of a poll, alone", unit: "ms", better: Better::Less },
    Figure { id: "slow", what: "p99 of a poll, beside a RETR at 5 MB/s", unit: "ms", better: Better::Less },
    Figure { id: "full", what: "p99 of a poll, beside a RETR at full speed", unit: "ms", better: Better::Less },
    Figure { id: "slow_alone", what: "times of alone, at 5 MB/s", unit: "x", better: Better::Less },
    Figure { id: "full_alone", what: "times of alone, at full speed", unit: "x", better: Better::Less },
    Figure { id: "speed", what: "that RETR at full speed", unit: "MB/s", better: Better::More },
];

pub fn measure(ground: &mut Ground) {
    let accounts = ground.either(100, 1000);
    let (last, polled) = (accounts, Accounts::first(accounts));
    let order = Order { accounts: accounts + 1, passwords: Passwords::Cheap, beyond: None };
    let mut lanes = ground.lanes('e', format!("{PACE} polls a second, and one client that retrieves 50 MB"), FIGURES);
    let fill = |site: &Site| {
        (0..accounts).try_for_each(|number| site.put_drop(number, &site::mail(number, 3, 1100)))?;
        site.put_drop(last, &site::mail(last, 1, BIG))
    };
    let peers = ground.who("null", |peer| peer.pop);
    ground.start(&mut lanes, &peers, order, fill);
    let bare = find("bare").expect("a peer of that name");
    let sender = bare.start(&ground.tools, &ground.dir, order, |site| site.put_drop(0, &site::mail(0, 1, BIG)));
    ground.each(&mut lanes, |server| each_once(server, 10, polled, Duration::from_secs(60)).map(drop));
    let time = ground.either(Duration::from_secs(2), Duration::from_secs(6));
    ground.rounds(&mut lanes, ground.rounds, |server, _| {
        let from = match (server.peer.bound, &sender) {
            (false, _) => &*server,
            (true, Ok(sender)) => sender,
            (true, Err(why)) => return Err(why.clone()),
        };
        let alone = steady(server, PACE, polled, time)?.p99_ms;
        let (slow, _) = beside(from, last, Some(SLOW), || steady(server, PACE, polled, time))?;
        let (full, speed) = beside(from, last, None, || steady(server, PACE, polled, time))?;
        let (slow, full) = (slow.p99_ms, full.p99_ms);
        Ok([alone, slow, full, slow / alone, full / alone, mega(speed)].map(Some).to_vec())
    });
    ground.end(lanes);
}

/// Does `work` while another client retrieves; gives what came of it, and the octets a second of that.
fn beside<T>(
    server: &Server,
    number: usize,
    speed: Option<u64>,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, f64), String> {
    let mut client = Client::connect(server.site.pop, false, BUFFER)?;
    client.login(number)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let reading = threads.spawn(|| client.keep_retrieving(speed, &mut || over.load(Ordering::Relaxed)));
        let done = work();
        over.store(true, Ordering::Relaxed);
        let speed = reading.join().expect("it does not panic")?;
        Ok((done?, speed))
    })
}
