//! (a) Polls flat out by the 86 clients of the original's claim. The answers of authenticators are the cheapest each server has
//! (ours and Dovecot's from memory, popa3d's a DES hash of a file); then asked each time and always right; then one
//! SHA-512 crypt(3) a login, which drowns everything else: there only what others have to wait counts.

use std::time::Duration;

use super::{Ground, Lanes};
use crate::versus::load::{Accounts, each_once, polls};
use crate::versus::site::{self, Order, Passwords};
use crate::versus::table::{Better, Figure};

const CLIENTS: usize = 86;

const FIGURES: &[Figure] = &[
    Figure { id: "polls", what: "sessions", unit: "a second", better: Better::More },
    Figure { id: "p50", what: "a session, p50", unit: "ms", better: Better::Less },
    Figure { id: "p99", what: "a session, p99", unit: "ms", better: Better::Less },
];

pub fn measure(ground: &mut Ground) {
    for (passwords, how) in [
        (Passwords::Cheap, "answers of the authenticator cached"),
        (Passwords::Anything, "nothing cached, an authenticator that knows everybody"),
        (Passwords::Hashed, "nothing cached, SHA-512 crypt at each login"),
    ] {
        let accounts = ground.either(500, 5000);
        let title = format!(
            "polls: connect, USER, PASS, STAT, QUIT; {CLIENTS} clients flat out over {accounts} accounts; {how}"
        );
        let mut lanes: Lanes = ground.lanes('a', title, FIGURES);
        let peers = ground.who("null", |peer| peer.pop);
        ground.start(&mut lanes, &peers, Order { accounts, passwords, beyond: None }, |site| {
            (0..accounts).try_for_each(|number| site.put_drop(number, &site::mail(number, 3, 1100)))
        });
        ground.each(&mut lanes, |server| {
            each_once(server, CLIENTS, Accounts::first(accounts), Duration::from_secs(120)).map(drop)
        });
        let time = ground.either(Duration::from_secs(1), Duration::from_secs(4));
        ground.rounds(&mut lanes, ground.rounds, |server, _| {
            let polled = polls(server, CLIENTS, Accounts::first(accounts), time)?;
            Ok(vec![Some(polled.per_sec), Some(polled.p50_ms), Some(polled.p99_ms)])
        });
        ground.end(lanes);
    }
}
