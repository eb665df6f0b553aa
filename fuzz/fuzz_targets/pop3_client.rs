//! Whatever a server sends: no panic, no growth, and no line of ours that is not one command. (Law: the unit tests of
//! `protocol/laws.rs`.)
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dmail::protocol::pop3::Login;
use dmail::protocol::pop3::client::{Answer, Ask, Client, Command, Rules, scan, unique};
use dmail::protocol::{Machine, Want};
use dmail::text::bytes::{Input, Output};
use libfuzzer_sys::fuzz_target;

const MOST: u64 = 4096;

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let secs = Duration::from_secs(60);
    let rules = Rules { greeting: secs, reply: secs, login: secs, text: secs, quit: secs, most: MOST };
    let mut machine = Client::new(now, Arc::new(rules));
    let (mut input, mut out) = (Input::default(), Output::default());
    machine.open(now, &mut out);
    let login = || Box::new(Login { user: b"ann".to_vec(), password: b"secret"[..].into() });
    // Commands enough for any input: each reply has its own.
    let mut given = 0u32;
    let mut text = 0u64;
    for part in data.chunks(97) {
        let mut part = part;
        loop {
            assert!(out.len() < 8192 && out.bytes().iter().all(|byte| byte.is_ascii()));
            out.clear();
            match machine.step(now, &mut input, &mut out) {
                Want::Close => return,
                Want::Input if part.is_empty() => break,
                Want::Input => {
                    let taken = input.push(part);
                    assert!(taken > 0, "the machine leaves no room and wants more");
                    part = &part[taken..];
                }
                Want::Again => {}
                Want::Data(bytes) => {
                    text += bytes.len() as u64;
                    assert!(text <= MOST);
                    for line in bytes.split(|&byte| byte == b'\n') {
                        let _ = (scan(line), unique(line));
                    }
                }
                Want::Ask(ask) => {
                    let answer = match ask {
                        Ask::StartTls => Answer::TlsStarted,
                        Ask::Broken(_) => Answer::Leave,
                        Ask::Heard(..) => {
                            text = 0;
                            given += 1;
                            Answer::Say(match given % 6 {
                                0 => vec![Command::Capa, Command::Stls, Command::Stat],
                                1 => vec![Command::Plain(login()), Command::User(b"ann"[..].into())],
                                2 => vec![Command::List(None), Command::List(Some(1)), Command::Retr(1)],
                                3 => vec![Command::Uidl(Some(2)), Command::Uidl(None), Command::Top(1, 2)],
                                4 => vec![Command::Dele(1), Command::Rset, Command::Noop],
                                _ => vec![Command::Pass(b"secret"[..].into())],
                            })
                        }
                    };
                    machine.answer(now, answer, &mut out);
                }
            }
        }
    }
});
