//! Whatever a client sends, on each face: no panic, no growth, nothing that is not text of a message handed on, and what is
//! handed on goes out again as one message. (Law: the unit tests of `protocol/laws.rs` and `mail/undots.rs`.)
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dmail::mail::dots::DotEncoder;
use dmail::mail::undots::{Bare, DotDecoder, Stop};
use dmail::protocol::sasl::scram::Verifier;
use dmail::protocol::smtp::{Answer, Ask, Face, Link, Rules, Smtp};
use dmail::protocol::{Machine, Want};
use dmail::text::bytes::{HIGH, Input, Output};
use libfuzzer_sys::fuzz_target;

fn rules(bare_newline: Bare) -> Rules {
    Rules {
        host: "mx.example".into(),
        hide_version: false,
        hide_auth: false,
        hold: Duration::ZERO,
        greeting: Duration::from_secs(300),
        command: Duration::from_secs(300),
        data: Duration::from_secs(180),
        after_dot: Duration::from_secs(600),
        size: Some(2_000),
        swallow: 500,
        recipients: 3,
        header_lines: 20,
        header_bytes: 1_000,
        hops: 4,
        text_line: 998,
        bare_newline,
        max_errors: 200,
        max_unknown: 100,
        max_idle: 100,
    }
}

fn answer(ask: Ask, envelope: &mut (bool, u32)) -> Answer {
    match ask {
        Ask::Login(login) if login.user.len() % 2 == 0 => Answer::Denied,
        Ask::Verifier(user) if user.len() % 2 == 0 => Answer::Failed,
        Ask::Verifier(_) => {
            let nobody = Verifier::of_nobody(b"salt", 4096, &[0; 32], &[0; 32]);
            Answer::Verifier(Box::new((nobody, b"ours".to_vec())))
        }
        Ask::Proof(true) => panic!("nobody's password was proved"),
        Ask::Proof(false) => Answer::Denied,
        Ask::Sender(sender) => {
            assert!(!envelope.0, "a second sender");
            envelope.0 = true;
            sender.path.map_or(Answer::Go, |path| {
                assert!(!path.to_string().contains(|c: char| c.is_control()));
                Answer::Go
            })
        }
        Ask::Recipient(recipient) => {
            assert!(envelope.0, "a recipient without a sender");
            assert!(!recipient.path.to_string().contains(|c: char| c.is_control()));
            envelope.1 += 1;
            assert!(envelope.1 <= 3);
            Answer::Go
        }
        Ask::Begin => {
            assert!(envelope.1 > 0, "text for nobody");
            Answer::Go
        }
        Ask::Commit(tally) => {
            assert!(tally.octets() <= 2_000 && tally.hops <= 4);
            *envelope = (false, 0);
            Answer::Go
        }
        Ask::Reset | Ask::Hello(_) | Ask::StartTls => {
            *envelope = (false, 0);
            Answer::Go
        }
        Ask::Etrn(node) => {
            assert!(node.domain.len() <= 253);
            Answer::Go
        }
        Ask::Hold(_) | Ask::Login(_) => Answer::Go,
    }
}

fn talk(face: Face, bare: Bare, data: &[u8]) {
    let now = Instant::now();
    let link = Link { tls: false, can_tls: true, plain_ok: true, scram: true, known: false, etrn: true };
    let mut machine = Smtp::new(now, Arc::new(rules(bare)), face, link);
    let (mut input, mut out) = (Input::default(), Output::default());
    let mut envelope = (false, 0);
    machine.open(now, &mut out);
    for part in data.chunks(97) {
        let mut part = part;
        loop {
            assert!(out.len() < HIGH);
            out.clear();
            match machine.step(now, &mut input, &mut out) {
                Want::Close => return,
                Want::Input if part.is_empty() => break,
                Want::Input => {
                    let taken = input.push(part);
                    part = &part[taken..];
                }
                Want::Again => {}
                Want::Data(text) => assert!(!text.is_empty() && !text.contains(&b'\r') && !text.contains(&0)),
                Want::Ask(ask) => machine.answer(now, answer(ask, &mut envelope), &mut out),
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    talk(Face::Mx, Bare::Normalize, data);
    talk(Face::Submission, Bare::Normalize, data);
    talk(Face::Lmtp, Bare::Reject, data);
    // Past the envelope, at once.
    talk(Face::Mx, Bare::Normalize, &[b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n", data].concat());
    let mut wire = data.to_vec();
    let decoded = DotDecoder::new(Bare::Normalize).decode(&mut wire);
    let stored = wire[..decoded.kept].to_vec();
    let (mut encoder, mut again) = (DotEncoder::whole(false), Vec::new());
    encoder.push(&stored, &mut again);
    encoder.finish(&mut again);
    let length = again.len();
    let decoded = DotDecoder::new(Bare::Reject).decode(&mut again);
    assert_eq!((decoded.taken, decoded.stop), (length, Some(Stop::End)));
    assert!(again[..decoded.kept].starts_with(&stored));
});
