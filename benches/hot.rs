//! The hot routines (`make hot`), each beside the least that the same bytes cost this machine: counting their line ends
//! (memchr) or copying them (memcpy). Throughput is over the same bytes in both, so the two lines of a group can be divided.
//!
//! ```text
//! cargo bench --bench hot -- [FILTER] [--save-baseline NAME] [--baseline NAME]
//! ```
//!
//! | group            | what is timed                                              | its bound                         |
//! |------------------|------------------------------------------------------------|-----------------------------------|
//! | `mbox scan`      | a drop of 3,000 messages: extents, hashes, From_ lines     | newlines counted, one XXH3-128    |
//! | `uid hash`       | the hash of one message's text                             | newlines counted                  |
//! | `dot encode`     | stored text to the wire                                    | the same, the plainest loop; memcpy |
//! | `dot decode`     | the wire to stored text                                    | memcpy                            |
//! | `pop3 commands`  | 2,000 pipelined commands through the machine, answered at once | newlines counted              |
//! | `smtp commands`  | 500 transactions of five commands, the same                | newlines counted                  |
//! | `index look-up`  | rows of an open maildrop: one, and a page of 64            | a read of those bytes from a file |
//! | `drop append`    | what stands above a message, quoting, hash: in memory, and appended to a file without sync | memcpy; write(2) of the same |
//!
//! What a whole program costs for what a user asks is another question: `benches/budgets`.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use memchr::memchr_iter;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use dmail::mail::dots::DotEncoder;
use dmail::mail::envelope::{Envelope, Text};
use dmail::mail::identity::{TextHash, Uid};
use dmail::mail::mbox::Scanner;
use dmail::mail::undots::{Bare, DotDecoder, Stop};
use dmail::protocol::pop3::{self, Pop3};
use dmail::protocol::smtp::{self, Face, Smtp};
use dmail::protocol::{Machine, Want};
use dmail::store::disk::Reach;
use dmail::store::maildrop::{Maildrop, Place};
use dmail::text::bytes::{Input, Output};

/// Messages of the drop.
const MANY: usize = 3_000;
/// Bytes of the message that is encoded, decoded and delivered.
const MESSAGE: usize = 4 << 20;
/// What is taken at a time, as the server does.
const PIECE: usize = 64 * 1024;
/// A usual message.
const LETTER: usize = 4_096;

criterion_group! {
    name = hot;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = scan, identity, encode, decode, pop3_commands, smtp_commands, look_up, append
}
criterion_main!(hot);

// ---- mail -----------------------------------------------------------------------------------------------------------------

fn scan(criterion: &mut Criterion) {
    let drop = drop_of(MANY);
    let mut group = criterion.benchmark_group("mbox scan");
    group.throughput(Throughput::Bytes(drop.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| {
            let (mut scanner, mut messages) = (Scanner::new(0), 0);
            drop.chunks(4 * PIECE).for_each(|piece| scanner.feed(piece, &mut |_| messages += 1));
            scanner.finish(&mut |_| messages += 1);
            assert_eq!(messages, MANY);
        });
    });
    group.bench_function("bound: newlines and one hash", |bench| {
        bench.iter(|| {
            let (mut lines, mut hash) = (0, Xxh3::new());
            for piece in drop.chunks(PIECE) {
                lines += newlines(piece);
                hash.update(piece);
            }
            (lines, hash.digest128())
        });
    });
    group.bench_function("bound: newlines", |bench| bench.iter(|| newlines(black_box(&drop))));
    group.finish();
}

fn identity(criterion: &mut Criterion) {
    let message = message_of(LETTER);
    let mut group = criterion.benchmark_group("uid hash");
    group.throughput(Throughput::Bytes(message.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| {
            let mut hash = TextHash::default();
            hash.feed(black_box(&message));
            Uid { hash: hash.finish(), occurrence: 0 }
        });
    });
    group.bench_function("bound: one hash", |bench| bench.iter(|| xxh3_128(black_box(&message))));
    group.bench_function("bound: newlines", |bench| bench.iter(|| newlines(black_box(&message))));
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let message = message_of(MESSAGE);
    let mut out = Vec::with_capacity(2 * PIECE);
    let mut group = criterion.benchmark_group("dot encode");
    group.throughput(Throughput::Bytes(message.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| {
            let mut encoder = DotEncoder::whole(false);
            for piece in message.chunks(PIECE) {
                out.clear();
                encoder.push(piece, &mut out);
                black_box(&out);
            }
        });
    });
    group.bench_function("bound: the plainest loop", |bench| {
        bench.iter(|| {
            for piece in message.chunks(PIECE) {
                out.clear();
                convert(piece, &mut out);
                black_box(&out);
            }
        });
    });
    group.bench_function("bound: memcpy", |bench| bench.iter(|| copied(&message, &mut out)));
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut wire = Vec::new();
    let mut encoder = DotEncoder::whole(false);
    encoder.push(&message_of(MESSAGE), &mut wire);
    encoder.finish(&mut wire);
    let mut buffer = Vec::with_capacity(2 * PIECE);
    let mut group = criterion.benchmark_group("dot decode");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter(|| {
            let mut decoder = DotDecoder::new(Bare::Normalize);
            let (mut at, mut stop) = (0, None);
            while stop.is_none() {
                // It works in place, on a copy as a socket would give it.
                buffer.clear();
                buffer.extend_from_slice(&wire[at..wire.len().min(at + PIECE)]);
                let decoded = decoder.decode(&mut buffer);
                (at, stop) = (at + decoded.taken, decoded.stop);
            }
            assert_eq!((at, stop), (wire.len(), Some(Stop::End)));
        });
    });
    group.bench_function("bound: memcpy", |bench| bench.iter(|| copied(&wire, &mut buffer)));
    group.finish();
}

// ---- protocols ------------------------------------------------------------------------------------------------------------

fn pop3_commands(criterion: &mut Criterion) {
    let rules = Arc::new(pop3::Rules {
        idle: Duration::from_secs(600),
        login: Duration::from_secs(180),
        max_errors: 10,
        hide_version: false,
        login_delay_secs: 0,
        expire_days: None,
    });
    let link = pop3::Link { tls: false, can_tls: false, plain_ok: true, scram: false };
    let now = Instant::now();
    let host = |ask| match ask {
        pop3::Ask::Login(_) => pop3::Answer::Welcome,
        pop3::Ask::Open => pop3::Answer::Opened(pop3::Totals { messages: 40, octets: 123_456, last_read: 0 }),
        pop3::Ask::Row(number) => {
            let uid = Uid { hash: u128::from(number), occurrence: 0 };
            pop3::Answer::Rows(vec![pop3::Row { number, octets: 4_096, uid, deleted: false }])
        }
        pop3::Ask::Delete(_) => pop3::Answer::Done,
        _ => pop3::Answer::Totals(pop3::Totals { messages: 40, octets: 123_456, last_read: 0 }),
    };
    let logged_in = || {
        let mut machine = Pop3::new(now, rules.clone(), link);
        drive(&mut machine, now, b"USER ann\r\nPASS secret\r\n", &host);
        machine
    };
    let commands = b"STAT\r\nLIST 17\r\nUIDL 17\r\nDELE 17\r\nNOOP\r\n".repeat(400);
    let mut group = criterion.benchmark_group("pop3 commands");
    group.throughput(Throughput::Bytes(commands.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter_batched(
            logged_in,
            |mut machine| {
                drive(&mut machine, now, &commands, &host);
                machine
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("bound: newlines", |bench| bench.iter(|| newlines(black_box(&commands))));
    group.finish();
}

fn smtp_commands(criterion: &mut Criterion) {
    let rules = Arc::new(smtp::Rules {
        host: "bench.test".into(),
        hide_version: false,
        hide_auth: false,
        hold: Duration::ZERO,
        greeting: Duration::from_secs(300),
        command: Duration::from_secs(300),
        data: Duration::from_secs(180),
        after_dot: Duration::from_secs(600),
        size: Some(50 << 20),
        swallow: 1 << 20,
        recipients: 1_000,
        header_lines: 10_000,
        header_bytes: 1 << 20,
        hops: 100,
        text_line: 65_536,
        bare_newline: Bare::Normalize,
        max_errors: u16::MAX,
        max_unknown: u16::MAX,
        max_idle: u16::MAX,
    });
    let link = smtp::Link { tls: false, can_tls: false, plain_ok: true, scram: false, known: false, etrn: false };
    let now = Instant::now();
    let host = |_| smtp::Answer::Go;
    let greeted = || {
        let mut machine = Smtp::new(now, rules.clone(), Face::Mx, link);
        drive(&mut machine, now, b"EHLO client.bench.test\r\n", &host);
        machine
    };
    let commands = b"MAIL FROM:<ann.example@bench.test> SIZE=2048 BODY=8BITMIME\r\nRCPT TO:<bob@bench.test>\r\n\
        RCPT TO:<carl+lists@bench.test> NOTIFY=FAILURE\r\nNOOP\r\nRSET\r\n"
        .repeat(500);
    let mut group = criterion.benchmark_group("smtp commands");
    group.throughput(Throughput::Bytes(commands.len() as u64));
    group.bench_function("ours", |bench| {
        bench.iter_batched(
            greeted,
            |mut machine| {
                drive(&mut machine, now, &commands, &host);
                machine
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("bound: newlines", |bench| bench.iter(|| newlines(black_box(&commands))));
    group.finish();
}

/// Gives a machine these bytes and answers at once whatever it asks; what it says is thrown away.
fn drive<M: Machine>(machine: &mut M, now: Instant, mut bytes: &[u8], host: impl Fn(M::Ask) -> M::Answer) {
    let (mut input, mut out) = (Input::default(), Output::default());
    loop {
        if out.is_high() {
            black_box(out.bytes());
            out.clear();
        }
        match machine.step(now, &mut input, &mut out) {
            Want::Again => {}
            Want::Ask(ask) => machine.answer(now, host(ask), &mut out),
            Want::Input if bytes.is_empty() => return,
            Want::Input => {
                let taken = input.push(bytes);
                bytes = &bytes[taken..];
            }
            Want::Data(_) | Want::Close => panic!("no command here brings text or ends it: {:?}", out.bytes()),
        }
    }
}

// ---- files ----------------------------------------------------------------------------------------------------------------

fn look_up(criterion: &mut Criterion) {
    const ROW: u64 = 64;
    let folder = tempfile::tempdir().expect("a folder");
    let [drop, work] = ["drop", "work"].map(|name| folder.path().join(name));
    std::fs::create_dir(&work).expect("a folder");
    std::fs::write(&drop, drop_of(MANY)).expect("a drop");
    let maildrop = Maildrop::open(&Place::new(&drop, &work)).expect("the drop is ours alone");
    let bytes = folder.path().join("bytes");
    std::fs::write(&bytes, vec![7; MANY * ROW as usize]).expect("a file");
    let bytes = File::open(bytes).expect("it was just written");
    for (name, rows) in [("index look-up, one", 1), ("index look-up, a page", 64)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(ROW * rows));
        let mut number = 0;
        let mut next = move || {
            number = (number + 977) % (MANY as u32 - 64);
            number + 1
        };
        group.bench_function("ours", |bench| {
            bench.iter(|| match rows {
                1 => drop_count(maildrop.row(next(), Reach::Wait).expect("it is there").as_slice().len()),
                _ => drop_count(maildrop.page(next(), Reach::Wait).expect("they are there").len()),
            });
        });
        let mut buffer = vec![0; (ROW * rows) as usize];
        group.bench_function("bound: a read", |bench| {
            bench.iter(|| bytes.read_exact_at(&mut buffer, u64::from(next()) * ROW).expect("it is that long"));
        });
        group.finish();
    }
}

fn drop_count(rows: usize) -> usize {
    assert!(rows > 0);
    rows
}

fn append(criterion: &mut Criterion) {
    let message = message_of(LETTER);
    let received =
        b"Received: from client.bench.test (client.bench.test [192.0.2.7])\n\tby bench.test with ESMTPS id 7K2F9Q\n\
        \tfor <bob@bench.test>; Mon, 05 Jan 2026 10:00:00 +0000\n";
    let envelope =
        Envelope { sender: b"ann@bench.test", recipient: b"bob@bench.test", received, posted_secs: 1_767_610_800 };
    let written = |out: &mut Vec<u8>| {
        out.clear();
        out.extend_from_slice(&envelope.head());
        let mut text = Text::default();
        text.feed(&message, &mut |piece| out.extend_from_slice(piece));
        text.finish(&mut |piece| out.extend_from_slice(piece));
    };
    let (mut out, mut other) = (Vec::new(), Vec::new());
    written(&mut out);
    let whole = out.clone();
    let folder = tempfile::tempdir().expect("a folder");
    let open = || {
        let options = OpenOptions::new().append(true).create(true).open(folder.path().join("drop"));
        options.and_then(|file| file.set_len(0).map(|()| file)).expect("a file")
    };
    let mut group = criterion.benchmark_group("drop append");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function("in memory, hashed", |bench| {
        bench.iter(|| {
            written(&mut out);
            xxh3_128(&out)
        });
    });
    group.bench_function("bound: memcpy", |bench| bench.iter(|| copied(black_box(&whole), &mut other)));
    // The file is cut now and then: what an append costs does not depend on what stands before it.
    group.bench_function("to a file", |bench| {
        let (mut file, mut bytes) = (open(), 0);
        bench.iter(|| {
            written(&mut out);
            let hash = xxh3_128(&out);
            dmail::sys::files::append(&file, &out).expect("room");
            bytes += out.len();
            if bytes > 64 << 20 {
                (file, bytes) = (open(), 0);
            }
            hash
        });
    });
    group.bench_function("bound: write(2)", |bench| {
        let (mut file, mut bytes) = (open(), 0);
        bench.iter(|| {
            file.write_all(&whole).expect("room");
            bytes += whole.len();
            if bytes > 64 << 20 {
                (file, bytes) = (open(), 0);
            }
        });
    });
    group.finish();
}

// ---- bounds, and what is measured -----------------------------------------------------------------------------------------

fn newlines(bytes: &[u8]) -> usize {
    memchr_iter(b'\n', bytes).count()
}

/// A copy, in the pieces that the server works in.
fn copied(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(PIECE) {
        out.clear();
        out.extend_from_slice(piece);
        black_box(&out);
    }
}

/// LF to CRLF and dots doubled, as anybody would write it first.
fn convert(piece: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for end in memchr_iter(b'\n', piece) {
        if piece[from] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(&piece[from..end]);
        out.extend_from_slice(b"\r\n");
        from = end + 1;
    }
    out.extend_from_slice(&piece[from..]);
}

/// A drop of so many messages of ten lines.
fn drop_of(messages: usize) -> Vec<u8> {
    let mut text = String::with_capacity(messages * 1_100);
    for number in 0..messages {
        text += &format!(
            "From ann@bench.test Mon Jan  5 10:00:00 2026\nReturn-Path: <ann@bench.test>\n\
             From: Ann Example <ann@bench.test>\nTo: Bob Example <bob@bench.test>\nSubject: message {number}\n\
             Date: Mon, 05 Jan 2026 10:00:00 +0000\nMessage-ID: <{number}.bench@bench.test>\n\n"
        );
        for line in 0..10 {
            text += &format!("{number:5} {line:2} the quick brown fox jumps over the lazy dog, and again it jumps.\n");
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// The text of one message of about that size; some lines begin with a dot, some with From.
fn message_of(bytes: usize) -> Vec<u8> {
    let mut text = b"From: ann@bench.test\nSubject: all of it\n\n".to_vec();
    let mut line = 0_u32;
    while text.len() < bytes {
        let begins = match line % 50 {
            7 => ".",
            23 => "From here ",
            _ => "",
        };
        text.extend_from_slice(
            format!("{begins}{line:8} and so it goes on and on, as long as such letters sometimes do.\n").as_bytes(),
        );
        line += 1;
    }
    text
}
