//! Whatever a client sends as SASL responses, in base64 or not: no panic, and nothing is proved that cannot be.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dmail::protocol::sasl::scram::{First, Verifier};
use dmail::protocol::sasl::{Exchange, Mechanism, Step};
use libfuzzer_sys::fuzz_target;

fn nobody() -> Verifier {
    Verifier::of_nobody(b"salt", 4096, &[0; 32], &[0; 32])
}

fuzz_target!(|data: &[u8]| {
    let _ = Verifier::parse(data);
    for mechanism in Mechanism::ALL {
        let (mut exchange, mut step) = Exchange::begin(mechanism, None);
        for line in data.split(|&byte| byte == b'\n') {
            step = match step {
                Step::Verifier(_) => Step::Challenge(exchange.challenge(nobody(), b"ours")),
                // As it came, and as a client that has something to say would send it.
                Step::Challenge(_) if line.starts_with(b"=") => exchange.take(line),
                Step::Challenge(_) => exchange.take(BASE64.encode(line).as_bytes()),
                Step::Proof(good) => return assert!(!good),
                Step::Login(..) | Step::Cancelled | Step::Malformed => break,
            };
        }
    }
    // Past a good beginning.
    let Ok(first) = First::parse(b"n,,n=ann,r=theirs") else { unreachable!() };
    assert!(!matches!(first.challenge(nobody(), b"ours").1.judge(data), Ok(Some(_))));
});
