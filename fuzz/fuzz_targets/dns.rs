//! Whatever name servers say: every question gets one answer, no panic. The id and the question that a message begins with are put
//! right, so that what follows is read.
#![no_main]

use std::time::{Duration, Instant};

use dmail::protocol::dns::{Act, Answer, Kind, Question, Record, Resolver, Rules, is_host};
use libfuzzer_sys::fuzz_target;

const KINDS: [Kind; 6] = [Kind::A, Kind::Aaaa, Kind::Mx, Kind::Txt, Kind::Ptr, Kind::Other(257)];

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let servers = vec!["192.0.2.1:53".parse().expect("an address"), "192.0.2.2:53".parse().expect("an address")];
    let rules = Rules { servers, timeout: Duration::from_secs(5) };
    let mut resolver: Resolver<u32> = Resolver::new(&rules, Box::new(|| 0x5555_5555_5555_5555));
    let (mut asked, mut answered, mut open) = (0, 0, Vec::new());
    for part in data.chunks(256) {
        now += Duration::from_millis(u64::from(part[0]) * 20);
        let kind = KINDS[usize::from(part[0]) % KINDS.len()];
        resolver.ask(now, asked, Question { name: "a.test".into(), kind });
        asked += 1;
        for round in 0..2 {
            resolver.expire(now);
            while let Some(act) = resolver.poll(now) {
                match act {
                    Act::Ask(socket, _, query) => open.push((socket, query, false)),
                    Act::Connect(socket, _, query) => open.push((socket, query, true)),
                    Act::Close(socket) => open.retain(|(other, ..)| *other != socket),
                    Act::Done(_, answer) => {
                        answered += 1;
                        check(&answer);
                    }
                    Act::Silent(_) | Act::Back(_) => {}
                }
            }
            let Some((socket, query, is_stream)) = open.last() else { break };
            let query = if *is_stream { &query[2..] } else { &query[..] };
            // Header and question are 12 + 8 + 4 octets; flags and counts are the peer's.
            let mut message = query[..24].to_vec();
            for (to, from) in message[2..12].iter_mut().zip(&part[1 + round..]) {
                *to = *from;
            }
            (message[2], message[4], message[5]) = (message[2] & 0x07 | 0x80, 0, 1);
            message.extend(part.get(12..).unwrap_or_default());
            let length = (message.len() as u16).to_be_bytes();
            let message = if *is_stream { [&length[..], &message].concat() } else { message };
            resolver.received(now, *socket, &message);
        }
    }
    while let Some(due) = resolver.deadline() {
        resolver.expire(due);
        while let Some(act) = resolver.poll(due) {
            answered += u32::from(matches!(act, Act::Done(..)));
        }
    }
    while let Some(act) = resolver.poll(now) {
        answered += u32::from(matches!(act, Act::Done(..)));
    }
    assert_eq!(answered, asked);
});

fn check(answer: &Answer) {
    let Answer::Records(records) = answer else { return };
    assert!((1..=100).contains(&records.len()));
    for record in records.iter() {
        if let Record::Mx { host: name, .. } | Record::Name(name) = record {
            assert!(name.is_empty() || is_host(name));
        }
    }
}
