//! Whatever a client sends: no panic, no growth. (Law: the unit tests of `protocol/laws.rs`.)
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dmail::protocol::pop3::reply::Refusal;
use dmail::protocol::pop3::{Answer, Ask, Link, Pop3, Rules, Totals};
use dmail::protocol::sasl::scram::Verifier;
use dmail::protocol::{Machine, Want};
use dmail::text::bytes::{HIGH, Input, Output};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let rules = Rules {
        idle: Duration::from_secs(600),
        login: Duration::from_secs(60),
        max_errors: 10,
        hide_version: false,
        login_delay_secs: 60,
        expire_days: Some(30),
    };
    let link = Link { tls: false, can_tls: true, plain_ok: true, scram: true };
    let mut machine = Pop3::new(now, Arc::new(rules), link).with_stamp("<1@x>".into());
    let (mut input, mut out) = (Input::default(), Output::default());
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
                Want::Again | Want::Data(_) => {}
                Want::Ask(ask) => {
                    let totals = Totals { messages: 3, octets: 30, last_read: 0 };
                    let answer = match ask {
                        Ask::StartTls => Answer::TlsStarted,
                        Ask::Login(login) if login.user.len() % 2 == 0 => Answer::Refused(Refusal::Denied),
                        Ask::Login(_) => Answer::Welcome,
                        Ask::Apop(_) | Ask::Proof(false) => Answer::Refused(Refusal::Denied),
                        Ask::Verifier(user) if user.len() % 2 == 0 => Answer::Refused(Refusal::Unavailable),
                        Ask::Verifier(_) => {
                            let nobody = Verifier::of_nobody(b"salt", 4096, &[0; 32], &[0; 32]);
                            Answer::Verifier(Box::new((nobody, b"ours".to_vec())))
                        }
                        Ask::Proof(true) => panic!("nobody's password was proved"),
                        Ask::Open => Answer::Opened(totals),
                        Ask::Stat | Ask::Undelete => Answer::Totals(totals),
                        Ask::Rows(_) => Answer::Rows(Vec::new()),
                        Ask::Delete(_) => Answer::Done,
                        Ask::Commit => Answer::Committed { deleted: 0 },
                        Ask::Row(_) | Ask::Retrieve(..) => Answer::Refused(Refusal::NoSuchMessage),
                    };
                    machine.answer(now, answer, &mut out);
                }
            }
        }
    }
});
