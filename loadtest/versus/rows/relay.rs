//! (i) Mail of 2 KB for another domain: taken and acknowledged on one side, brought to a sink on the other, in and out at the same time.
//! Each server has the sink as its smart host and may have as many connections to it as there are clients. Every acknowledged letter
//! must come to the sink within a minute, once.
//!
//! The sink is a thread a connection in this process and keeps nothing: what is measured is the server between.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Ground;
use crate::ledger::reading::Mark;
use crate::letter::Stamp;
use crate::sink;
use crate::versus::load::{Sending, send};
use crate::versus::peers::Server;
use crate::versus::site::{BEYOND, Order, Passwords};
use crate::versus::table::{Better, Figure};

/// How long acknowledged mail may be on its way.
const RELAYED: Duration = Duration::from_secs(60);
/// Between looks for it.
const LOOKS: Duration = Duration::from_millis(5);
const BYTES: u64 = 2048;
/// Messages on a connection.
const EACH: usize = 10;
/// Recipients, all of one domain.
const RECIPIENTS: usize = 1000;

const FIGURES: &[Figure] = &[
    Figure { id: "acked", what: "acknowledged", unit: "messages/s", better: Better::More },
    Figure { id: "relayed", what: "until all was in the sink", unit: "messages/s", better: Better::More },
];

/// How often each letter came.
type Came = Arc<Mutex<HashMap<Stamp, u32>>>;

pub fn measure(ground: &mut Ground) {
    let time = ground.either(Duration::from_secs(1), Duration::from_secs(5));
    for connections in [1, 50] {
        let title =
            format!("mail of 2 KB to another host; connections: {connections} at a time, messages on each: {EACH}");
        let mut lanes = ground.lanes('i', title, FIGURES);
        let peers = ground.who("", |peer| peer.smtp);
        let (came, door) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                ground.say(&format!("    no sink: {error}"));
                continue;
            }
        };
        let order = Order { accounts: 1, passwords: Passwords::Cheap, beyond: Some(door) };
        ground.start(&mut lanes, &peers, order, |_| Ok(()));
        let mut id = 0;
        let mut go = |server: &mut Server, time: Duration| {
            id += 1;
            let sending =
                Sending { connections, each: EACH, recipients: RECIPIENTS, domain: BEYOND, bytes: BYTES, time };
            let begun = Instant::now();
            let sent = send(server, id, sending)?;
            let acked = sent.acked.len() as f64 / sent.took.as_secs_f64();
            wait_for(&came, &sent.acked)?;
            Ok(vec![Some(acked), Some(sent.acked.len() as f64 / begun.elapsed().as_secs_f64())])
        };
        // Processes and connections are there.
        ground.each(&mut lanes, |server| go(server, time / 2).map(drop));
        ground.rounds(&mut lanes, ground.rounds, |server, _| go(server, time));
        ground.end(lanes);
    }
}

/// A sink for all of them: letters tell themselves apart.
fn open() -> std::io::Result<(Came, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let door = listener.local_addr()?.port();
    let came = Came::default();
    let notes = came.clone();
    let take = move |mark: Mark, _: &[String]| {
        let stamp = Stamp { id: mark.run, seq: mark.seq };
        *notes.lock().unwrap_or_else(PoisonError::into_inner).entry(stamp).or_default() += 1;
    };
    sink::listen(listener, Arc::new(take));
    Ok((came, door))
}

/// Until every acknowledged letter is there. Fails when one never comes, or came twice.
fn wait_for(came: &Came, acked: &HashSet<Stamp>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let (mut missing, mut twice) = (0, 0);
        {
            let came = came.lock().unwrap_or_else(PoisonError::into_inner);
            for stamp in acked {
                match came.get(stamp) {
                    None => missing += 1,
                    Some(1) => {}
                    Some(_) => twice += 1,
                }
            }
        }
        if twice > 0 {
            return Err(format!("{twice} of {} acknowledged messages came twice", acked.len()));
        }
        if missing == 0 {
            return Ok(());
        }
        if begun.elapsed() > RELAYED {
            let after = RELAYED.as_secs();
            return Err(format!("{missing} of {} acknowledged messages did not come in {after} s", acked.len()));
        }
        std::thread::sleep(LOOKS);
    }
}
