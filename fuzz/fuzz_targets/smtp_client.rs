//! Whatever a server says, to either face: no panic, no growth, one outcome for each recipient, and nothing said but commands and
//! the message. (Law: the unit tests of `protocol/laws.rs` and `protocol/smtp/client`.)
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use dmail::mail::address;
use dmail::protocol::sasl::Login;
use dmail::protocol::smtp::client::reply::{Reply, TEXT_LIMIT};
use dmail::protocol::smtp::client::{
    Answer, Ask, Client, Envelope, Extensions, Face, Form, Over, Patience, Recipient, Rules, Sender, Tls, Told,
};
use dmail::protocol::{Machine, Want};
use dmail::text::bytes::{HIGH, Input, Output};
use dmail::text::secret::Secret;
use libfuzzer_sys::fuzz_target;

const TEXT: &[u8] = b"..text\r\n";

/// What is known about the recipients of the envelope under way.
#[derive(Default)]
struct Desk {
    envelopes: u32,
    settled: [bool; 3],
    over: bool,
}

fn envelope(number: u32, offers: Extensions) -> Envelope {
    let to = |local: &str| {
        let (path, _) = address::path(format!("<{local}@y>").as_bytes(), false).expect("a path");
        Recipient { path: path.expect("an address"), notify: None, orcpt: Some("rfc822;x".into()) }
    };
    let form = if offers.chunking && number % 2 == 0 { Form::Chunk(TEXT.len() as u64) } else { Form::Lines };
    let sender = Sender { size: Some(99), eight_bit: number % 3 == 0, ..Sender::default() };
    Envelope { sender, recipients: vec![to("ann"), to("bob"), to("carl")], form }
}

impl Desk {
    fn reply(reply: &Reply) -> bool {
        assert!((200..600).contains(&reply.code()) && reply.text().len() <= TEXT_LIMIT);
        assert!(reply.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')));
        reply.is_good()
    }

    fn settle(&mut self, at: u32) {
        assert!(!std::mem::replace(&mut self.settled[at as usize], true), "a second outcome");
    }

    fn over(&mut self, over: &Over) {
        assert!(!std::mem::replace(&mut self.over, true), "two ends");
        for at in &over.unsettled {
            self.settle(*at);
        }
        assert!(self.envelopes == 0 || self.settled == [true; 3], "a recipient without an outcome");
    }

    fn told(&mut self, told: Told, taken: &mut Vec<u32>) {
        match told {
            Told::Login(reply) => drop(Desk::reply(&reply)),
            Told::Unfit(_) => self.settled = [true; 3],
            Told::Sender(reply) if Desk::reply(&reply) => {}
            Told::Sender(_) => (0..3).for_each(|at| self.settle(at)),
            Told::Recipient(at, reply) if Desk::reply(&reply) => taken.push(at),
            Told::Recipient(at, _) => self.settle(at),
            Told::Refused(reply) | Told::Message(reply) => {
                Desk::reply(&reply);
                assert!(!taken.is_empty());
                taken.drain(..).for_each(|at| self.settle(at));
            }
            Told::Delivered(at, reply) => {
                Desk::reply(&reply);
                assert_eq!(taken.remove(0), at);
                self.settle(at);
            }
            Told::Over(over) => self.over(&over),
        }
    }
}

fn talk(face: Face, tls: Tls, logs_in: bool, data: &[u8], cut: usize) {
    let now = Instant::now();
    let patience = Patience::default();
    let rules = Arc::new(Rules { name: "x.example".into(), face, tls, plain_ok: logs_in, patience });
    let mut machine = Client::new(now, rules, false);
    let (mut input, mut out) = (Input::default(), Output::default());
    let (mut desk, mut taken, mut logins) = (Desk { settled: [true; 3], ..Desk::default() }, Vec::new(), 0);
    for part in data.chunks(cut) {
        let mut part = part;
        loop {
            assert!(out.len() < HIGH);
            for line in out.bytes().split_inclusive(|&byte| byte == b'\n') {
                assert!(line.ends_with(b"\r\n") && line.is_ascii());
            }
            out.clear();
            match machine.step(now, &mut input, &mut out) {
                Want::Close => {
                    assert_eq!(machine.lost(), None);
                    return;
                }
                Want::Input if part.is_empty() => break,
                Want::Input => {
                    let took = input.push(part);
                    part = &part[took..];
                }
                Want::Again => {}
                Want::Data(_) => panic!("nobody sends a client a message"),
                Want::Ask(ask) => {
                    let answer = match ask {
                        Ask::StartTls => Answer::Go,
                        Ask::Told(told) => {
                            desk.told(told, &mut taken);
                            Answer::Go
                        }
                        Ask::Next(_) if logs_in && logins < 2 => {
                            logins += 1;
                            Answer::Login(Box::new(Login { user: b"ann".to_vec(), password: Secret::from(&b"pw"[..]) }))
                        }
                        Ask::Next(_) if desk.envelopes == 20 => Answer::Quit,
                        Ask::Next(offers) => {
                            assert_eq!(desk.settled, [true; 3], "an envelope without outcomes");
                            desk.envelopes += 1;
                            desk.settled = [false; 3];
                            taken.clear();
                            Answer::Envelope(Box::new(envelope(desk.envelopes, offers)))
                        }
                        Ask::Text => {
                            machine.answer(now, Answer::Text, &mut out);
                            out.push(TEXT);
                            Answer::Sent
                        }
                    };
                    machine.answer(now, answer, &mut out);
                }
            }
        }
    }
    if let Some(over) = machine.lost() {
        desk.over(&over);
    }
}

fuzz_target!(|data: &[u8]| {
    talk(Face::Smtp, Tls::Offered, false, data, 97);
    talk(Face::Lmtp, Tls::Never, false, data, 1);
    talk(Face::Smtp, Tls::Never, true, data, 13);
    talk(Face::Smtp, Tls::Required, false, data, 97);
    // Past the greeting, at once: line by line, as a server says it.
    let past: &[u8] = b"220 x\n250-x\n250-PIPELINING\n250-CHUNKING\n250 8BITMIME\n";
    talk(Face::Smtp, Tls::Never, false, &[past, data].concat(), 6);
    talk(Face::Lmtp, Tls::Never, false, &[past, data].concat(), 6);
});
