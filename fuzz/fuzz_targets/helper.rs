//! Whatever an authenticator says: every question gets one verdict, no panic.
#![no_main]

use std::time::{Duration, Instant};

use dmail::protocol::helper::{Act, Pool, Question, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut pool: Pool<u32> = Pool::new(Rules { copies: 2, timeout: Duration::from_secs(10) });
    let mut answered = 0;
    let mut asked = 0;
    for part in data.chunks(32) {
        now += Duration::from_millis(u64::from(part[0]) * 20);
        pool.submit(now, asked, Question::Lookup { user: b"fred".to_vec() });
        asked += 1;
        pool.output(now, usize::from(part[0] & 1), &part[1..]);
        pool.expire(now);
        while let Some(act) = pool.poll(now) {
            match act {
                Act::Spawn(copy) => pool.spawned(now, copy),
                Act::Kill(copy) => pool.ended(now, copy),
                Act::Done(..) => answered += 1,
                Act::Write(..) | Act::Note(_) => {}
            }
        }
    }
    pool.stop(now);
    while let Some(act) = pool.poll(now) {
        answered += u32::from(matches!(act, Act::Done(..)));
    }
    assert_eq!(answered, asked);
});
