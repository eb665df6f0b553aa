//! (g) One message to 1,000 recipients here: until it is acknowledged, until it is in all drops, and how much more memory all
//! processes have meanwhile. A peak is looked for every 20 ms; what rises and falls in between is not seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::accept::Spool;
use super::{Ground, mega};
use crate::letter::Stamp;
use crate::sample;
use crate::versus::client::Client;
use crate::versus::peers::Server;
use crate::versus::site::{self, Order, Passwords};
use crate::versus::table::{Better, Figure};

const DELIVERED: Duration = Duration::from_secs(180);
const LOOKS: Duration = Duration::from_millis(20);

const FIGURES: &[Figure] = &[
    Figure { id: "acked", what: "acknowledged after", unit: "ms", better: Better::Less },
    Figure { id: "delivered", what: "in all drops after", unit: "ms", better: Better::Less },
    Figure { id: "peak", what: "memory at the peak, above that at rest, Pss", unit: "MB", better: Better::Less },
    Figure { id: "peak_all", what: "memory at the peak, Pss", unit: "MB", better: Better::Less },
];

pub fn measure(ground: &mut Ground) {
    let (count, bytes) = ground.either((100, 64 << 10), (1000, 256 << 10));
    let title = format!("one message of {} KB to {count} recipients", bytes >> 10);
    let mut lanes = ground.lanes('g', title, FIGURES);
    let peers = ground.who("", |peer| peer.smtp);
    ground.start(&mut lanes, &peers, Order { accounts: count, passwords: Passwords::Cheap, beyond: None }, |_| Ok(()));
    let mut id = 0;
    ground.rounds(&mut lanes, ground.rounds, |server, _| {
        id += 1;
        one(server, count, Stamp { id, seq: 1 }, bytes)
    });
    ground.end(lanes);
}

fn one(server: &mut Server, count: usize, stamp: Stamp, bytes: u64) -> Result<Vec<Option<f64>>, String> {
    let mut spool = Spool::new(server.site.spool());
    spool.look()?;
    let rest = sample::pss(&server.running.pids());
    let text = site::sent(stamp, bytes);
    let over = AtomicBool::new(false);
    let (done, peak) = std::thread::scope(|threads| {
        let running = &server.running;
        let peak = threads.spawn(|| {
            let mut peak = rest;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(sample::pss(&running.pids()));
                std::thread::sleep(LOOKS);
            }
            peak
        });
        let done = sent(server, count, &text, &mut spool, stamp);
        over.store(true, Ordering::Relaxed);
        (done, peak.join().expect("it does not panic"))
    });
    let (acked, delivered) = done?;
    let peak = peak as f64;
    Ok([acked * 1e3, delivered * 1e3, mega(peak - rest as f64), mega(peak)].map(Some).to_vec())
}

/// Seconds until it was acknowledged, and until it was everywhere.
fn sent(server: &Server, count: usize, text: &[u8], spool: &mut Spool, stamp: Stamp) -> Result<(f64, f64), String> {
    let mut client = Client::connect(server.site.smtp, false, 4096)?;
    let pipelined = client.ask("EHLO client.test")?.contains("PIPELINING");
    client.ask("MAIL FROM:<ann@far.test>")?;
    let recipients: Vec<String> = (0..count).map(|number| format!("RCPT TO:<{}>", site::address(number))).collect();
    client.all(&recipients, pipelined)?;
    client.ask("DATA")?;
    let begun = Instant::now();
    client.say(text)?;
    client.answer("the message")?;
    let acked = begun.elapsed();
    loop {
        spool.look()?;
        let seen = spool.seen.get(&stamp).copied().unwrap_or(0) as usize;
        if seen > count {
            return Err(format!("{seen} drops have it where there are {count} recipients"));
        }
        if seen == count {
            break;
        }
        if begun.elapsed() > DELIVERED {
            return Err(format!("{seen} of {count} drops have it after {} s", DELIVERED.as_secs()));
        }
        std::thread::sleep(LOOKS);
    }
    let delivered = begun.elapsed();
    // It has what it wants; a server that holds its last word back must not keep it.
    let _ = client.say(b"QUIT\r\n");
    Ok((acked.as_secs_f64(), delivered.as_secs_f64()))
}
