//! The driver's laws, over a socket that is slow, cut and capricious on demand.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;

use super::*;
use crate::protocol::{Line, Lines};

/// The far end and the wire between: what it sends comes in pieces, what we send waits in a window.
#[derive(Default)]
struct Far {
    /// What has arrived and was not read: like a kernel's buffer, one read gets all that fits.
    sends: VecDeque<u8>,
    ended: bool,
    /// How much more we may write before it would block.
    window: usize,
    got: Vec<u8>,
    reads: usize,
    writes: usize,
    shut: bool,
    /// Not connected yet.
    far_away: bool,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Far>>);

impl Read for Fake {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut far = self.0.borrow_mut();
        far.reads += 1;
        if far.sends.is_empty() && !far.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = far.sends.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(far.sends.drain(..count)) {
            *slot = byte;
        }
        Ok(count)
    }
}

impl Write for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut far = self.0.borrow_mut();
        far.writes += 1;
        let count = bytes.len().min(far.window);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        far.window -= count;
        far.got.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Fake {
    fn shut_write(&self) -> io::Result<()> {
        self.0.borrow_mut().shut = true;
        Ok(())
    }

    fn is_connected(&self) -> io::Result<bool> {
        Ok(!self.0.borrow().far_away)
    }
}

/// A protocol made to try the driver: `echo X`, `ask`, `body N`, `tls`, `data N` (then N bytes), `quit`, `panic`.
struct Toy {
    lines: Lines,
    data: usize,
    closing: bool,
    deadline: Instant,
}

impl Toy {
    fn new(now: Instant) -> Toy {
        Toy { lines: Lines::default(), data: 0, closing: false, deadline: now + Duration::from_secs(600) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Ask,
    Body(usize),
    Tls,
}

impl Machine for Toy {
    type Ask = Wish;
    type Answer = &'static str;

    fn open(&mut self, _now: Instant, out: &mut Output) {
        out.push(b"hello\n");
    }

    fn step<'i>(&mut self, _now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, Wish> {
        if self.closing {
            return Want::Close;
        }
        if self.data > 0 {
            let count = self.data.min(input.len());
            if count == 0 {
                return Want::Input;
            }
            self.data -= count;
            return Want::Data(input.consume(count));
        }
        let Line::Whole(line) = self.lines.next(input, 200) else { return Want::Input };
        let text = std::str::from_utf8(line).unwrap();
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "echo" => {
                out.push(rest.as_bytes());
                out.push(b"\n");
                Want::Again
            }
            "ask" => Want::Ask(Wish::Ask),
            "body" => Want::Ask(Wish::Body(rest.parse().unwrap())),
            "tls" => {
                out.push(b"go\n");
                Want::Ask(Wish::Tls)
            }
            "data" => {
                self.data = rest.parse().unwrap();
                Want::Again
            }
            "quit" => {
                out.push(b"bye\n");
                Want::Close
            }
            _ => panic!("the toy was told to: {text}"),
        }
    }

    fn answer(&mut self, _now: Instant, answer: &'static str, out: &mut Output) {
        out.push(answer.as_bytes());
    }

    fn end(&mut self, _now: Instant, why: End, out: &mut Output) {
        out.push(format!("{why:?}\n").as_bytes());
        self.closing = true;
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

struct Filler {
    left: usize,
    broken_at: Option<usize>,
    cold: bool,
}

impl Body for Filler {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        if self.cold {
            return Pull::Cold;
        }
        if self.broken_at.is_some_and(|at| self.left <= at) {
            return Pull::Broken;
        }
        let count = self.left.min(scratch.len());
        out.push(&vec![b'b'; count]);
        self.left -= count;
        if self.left == 0 {
            out.push(b"\n");
            return Pull::Last;
        }
        Pull::More
    }
}

#[derive(Default)]
struct Toys {
    later: bool,
    cold: bool,
    broken_at: Option<usize>,
    hold_after: usize,
    stored: usize,
    fetches: usize,
    tls: Option<Arc<ServerConfig>>,
}

impl Host<Toy> for Toys {
    type Body = Filler;

    fn perform(&mut self, _now: Instant, ask: Wish) -> Done<&'static str, Filler> {
        match ask {
            Wish::Ask if self.later => Done::Later,
            Wish::Ask => Done::Now("now\n"),
            Wish::Body(left) => {
                let body = Filler { left, broken_at: self.broken_at, cold: self.cold };
                Done::Send("begin\n", Box::new(body), "end\n")
            }
            Wish::Tls => Done::StartTls(self.tls.clone().unwrap().into(), "secure\n"),
        }
    }

    fn data(&mut self, _now: Instant, bytes: &[u8]) -> Flow {
        self.stored += bytes.len();
        if self.stored >= self.hold_after { Flow::Hold } else { Flow::More }
    }

    fn fetch(&mut self, _now: Instant, _body: &mut Filler) {
        self.fetches += 1;
    }
}

struct Bench {
    far: Fake,
    stream: Stream<Fake, Toy, Filler>,
    host: Toys,
    scratch: Scratch,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let (far, now) = (Fake::default(), Instant::now());
        far.0.borrow_mut().window = usize::MAX;
        let stream = Stream::open(now, far.clone(), Toy::new(now), None).unwrap();
        let host = Toys { hold_after: usize::MAX, ..Toys::default() };
        Bench { far, stream, host, scratch: Scratch::default(), now }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.far.0.borrow_mut().sends.extend(bytes);
        self.stream.mark(Readiness { read: true, ..Readiness::default() });
    }

    fn open_window(&mut self, size: usize) {
        self.far.0.borrow_mut().window = size;
        self.stream.mark(Readiness { write: true, ..Readiness::default() });
    }

    fn turn(&mut self) -> Turn {
        self.stream.turn(self.now, &mut self.scratch, &mut self.host)
    }

    /// Turns until nothing moves; gives what the far end got, and the last turn.
    fn settle(&mut self) -> (String, Turn) {
        for _ in 0..100_000 {
            match self.turn() {
                Turn::Again => {}
                turn => {
                    let got = std::mem::take(&mut self.far.0.borrow_mut().got);
                    return (String::from_utf8(got).unwrap(), turn);
                }
            }
        }
        panic!("the stream never comes to rest");
    }

    /// Bytes that this one connection holds between turns.
    fn held(&self) -> usize {
        self.stream.buffered()
    }
}

#[test]
fn pipelined_commands_are_answered_in_order_and_leave_together() {
    let mut bench = Bench::new();
    bench.send(b"echo a\necho b\nask\necho c\nbody 3\necho d\n");
    assert_eq!(bench.settle(), ("hello\na\nb\nnow\nc\nbegin\nbbb\nend\nd\n".into(), Turn::Idle));
}

#[test]
fn the_same_bytes_in_any_pieces_get_the_same_replies() {
    let talk = b"echo a\nbody 100000\nask\necho b\nquit\necho never\n";
    let mut whole = Bench::new();
    whole.send(talk);
    let expected = whole.settle().0;
    for cut in 0..talk.len() {
        for window in [1000, usize::MAX] {
            let mut bench = Bench::new();
            let mut got = String::new();
            for piece in [&talk[..cut], &talk[cut..]] {
                if !piece.is_empty() {
                    bench.send(piece);
                }
                for _ in 0..200 {
                    bench.open_window(window);
                    got += &bench.settle().0;
                }
            }
            assert_eq!(got, expected, "cut at {cut}, window {window}");
        }
    }
}

#[test]
fn while_an_answer_is_owed_nothing_is_read_and_nothing_is_due() {
    let mut bench = Bench::new();
    bench.host.later = true;
    bench.send(b"ask\necho after\n");
    assert_eq!(bench.settle(), ("hello\n".into(), Turn::Idle));
    let reads = bench.far.0.borrow().reads;
    bench.send(b"echo more\n");
    assert_eq!(bench.settle(), ("".into(), Turn::Idle));
    assert_eq!(bench.far.0.borrow().reads, reads, "input waits in the kernel");
    assert_eq!(bench.stream.deadline(), None);
    bench.stream.answer(Done::Now("late\n"));
    assert_eq!(bench.settle(), ("late\nafter\nmore\n".into(), Turn::Idle));
    bench.stream.answer(Done::Now("twice\n"));
    assert_eq!(bench.settle().0, "", "an answer that is not owed is no answer");
}

#[test]
fn a_half_close_still_gets_its_replies_and_a_dead_peer_gets_none() {
    let mut bench = Bench::new();
    bench.host.later = true;
    bench.send(b"ask\necho after\n");
    bench.far.0.borrow_mut().ended = true;
    bench.stream.mark(Readiness { ends: true, ..Readiness::default() });
    assert_eq!(bench.settle(), ("hello\n".into(), Turn::Idle));
    bench.stream.answer(Done::Now("late\n"));
    assert_eq!(bench.settle(), ("late\nafter\n".into(), Turn::Closed));

    let mut bench = Bench::new();
    bench.host.later = true;
    bench.send(b"ask\n");
    bench.settle();
    bench.stream.mark(Readiness { dead: true, ..Readiness::default() });
    assert_eq!(bench.settle(), ("".into(), Turn::Closed));
}

#[test]
fn memory_depends_neither_on_the_body_nor_on_the_reader() {
    let mut bench = Bench::new();
    bench.send(b"body 50000000\necho done\n");
    let (mut most, mut total) = (0, 0);
    for _ in 0..100_000 {
        bench.open_window(4096);
        let (got, _) = bench.settle();
        total += got.len();
        most = most.max(bench.held());
        assert!(bench.scratch.capacity() <= 4 * crate::text::bytes::HIGH, "{}", bench.scratch.capacity());
        if got.ends_with("done\n") {
            break;
        }
    }
    assert!(total > 50_000_000, "only {total} came through");
    assert!(most <= 3 * SLICE, "a slow reader pins {most} bytes");
    assert_eq!(bench.held(), 0, "an idle connection owns no buffer");
}

#[test]
fn a_long_reply_stops_for_others_after_its_budget() {
    let mut bench = Bench::new();
    bench.send(b"body 10000000\n");
    let mut turns = 0;
    while bench.turn() == Turn::Again {
        let got = std::mem::take(&mut bench.far.0.borrow_mut().got);
        assert!(got.len() <= 2 * BUDGET + SLICE, "{} bytes in one turn", got.len());
        turns += 1;
    }
    assert!(turns >= 10_000_000 / (2 * BUDGET), "only {turns} turns");
}

#[test]
fn a_client_that_sends_and_never_reads_is_not_read_for_ever() {
    let mut bench = Bench::new();
    bench.open_window(0);
    for _ in 0..1000 {
        bench.send(&b"body 1000\necho x\n".repeat(100));
    }
    assert_eq!(bench.settle().1, Turn::Idle);
    let unread = bench.far.0.borrow().sends.len();
    assert!(unread > 1_000_000, "only {unread} bytes were left in the kernel");
    assert!(bench.held() < 3 * 64 * 1024, "{} bytes are held", bench.held());
}

#[test]
fn a_hold_really_holds() {
    let mut bench = Bench::new();
    bench.host.hold_after = 10_000;
    bench.send(b"data 1000000\n");
    for _ in 0..100 {
        bench.send(&[b'd'; 10_000]);
    }
    bench.settle();
    let stored = bench.host.stored;
    assert!((10_000..10_000 + 32 * 1024).contains(&stored), "{stored}");
    bench.send(&[b'd'; 10_000]);
    bench.settle();
    assert_eq!(bench.host.stored, stored, "held");
    assert_eq!(bench.stream.deadline(), None, "the peer is not to blame");
    bench.host.hold_after = usize::MAX;
    bench.stream.release();
    bench.settle();
    assert_eq!(bench.host.stored, 1_000_000);
}

#[test]
fn what_is_cold_is_fetched_and_waits_for_the_disk_not_for_the_peer() {
    let mut bench = Bench::new();
    bench.host.cold = true;
    bench.send(b"body 10\necho after\n");
    assert_eq!(bench.settle(), ("hello\nbegin\n".into(), Turn::Idle));
    assert_eq!(bench.host.fetches, 1);
    assert_eq!(bench.stream.deadline(), None);
    bench.stream.body().unwrap().cold = false;
    bench.stream.release();
    assert_eq!(bench.settle(), ("bbbbbbbbbb\nend\nafter\n".into(), Turn::Idle));
}

#[test]
fn a_body_that_breaks_ends_the_conversation_without_a_good_ending() {
    let mut bench = Bench::new();
    bench.host.broken_at = Some(100_000);
    bench.send(b"body 200000\necho after\n");
    bench.far.0.borrow_mut().ended = true;
    bench.stream.mark(Readiness { ends: true, ..Readiness::default() });
    let (got, turn) = bench.settle();
    assert_eq!(turn, Turn::Closed);
    assert!(!got.contains("end") && !got.contains("after"));
    assert!(bench.far.0.borrow().shut);
}

#[test]
fn last_words_are_flushed_and_our_half_is_shut_before_the_end() {
    let mut bench = Bench::new();
    bench.open_window(3);
    bench.send(b"quit\necho never\n");
    assert_eq!(bench.settle(), ("hel".into(), Turn::Idle));
    assert!(!bench.far.0.borrow().shut);
    bench.open_window(100);
    assert_eq!(bench.settle(), ("lo\nbye\n".into(), Turn::Idle));
    assert!(bench.far.0.borrow().shut, "but we read on, so that no reset overtakes our last words");
    assert_eq!(bench.stream.deadline(), Some(bench.now + DRAIN.0));
    bench.send(&[0; 10_000]);
    assert_eq!(bench.settle().1, Turn::Idle);
    for _ in 0..100 {
        bench.send(&[0; 10_000]);
    }
    assert_eq!(bench.settle().1, Turn::Closed, "not for ever");
}

#[test]
fn who_makes_room_is_told_if_that_is_possible_and_gone_at_once() {
    for (window, got) in [(100, "hello\nOverload\n"), (3, "hel"), (0, "")] {
        for line in ["", "ask\n"] {
            let mut bench = Bench::new();
            bench.host.later = true;
            bench.open_window(window);
            bench.send(line.as_bytes());
            bench.turn();
            bench.stream.end(End::Overload);
            let (said, turn) = bench.settle();
            assert_eq!(
                (said.as_str(), turn),
                (got, Turn::Closed),
                "window {window}, {line:?}: no draining, no waiting"
            );
        }
    }
}

#[test]
fn who_said_goodbye_and_does_not_take_the_answer_makes_room_too() {
    for window in [3, 100] {
        let mut bench = Bench::new();
        bench.open_window(window);
        bench.send(b"quit\n");
        assert_eq!(bench.settle().1, Turn::Idle, "closing, or draining");
        bench.stream.end(End::Overload);
        assert_eq!(bench.settle().1, Turn::Closed, "window {window}");
    }
}

#[test]
fn silence_is_told_and_ended_and_a_peer_below_the_floor_is_dropped() {
    let mut bench = Bench::new();
    bench.settle();
    assert_eq!(bench.stream.deadline(), Some(bench.now + Duration::from_secs(600)));
    bench.stream.expire(bench.now);
    assert_eq!(bench.settle().0, "Silence\n");

    let mut bench = Bench::new();
    bench.open_window(0);
    bench.send(b"body 1000000\n");
    bench.settle();
    for _ in 0..5 {
        bench.open_window(FLOOR_OCTETS as usize);
        bench.settle();
        assert_eq!(bench.stream.deadline(), Some(bench.now + FLOOR_TIME));
        bench.now += FLOOR_TIME;
        bench.stream.expire(bench.now);
        assert_eq!(bench.settle().1, Turn::Idle, "slow, but above the floor");
    }
    bench.open_window(FLOOR_OCTETS as usize - 1);
    bench.settle();
    bench.now += FLOOR_TIME;
    bench.stream.expire(bench.now);
    assert_eq!(bench.turn(), Turn::Closed);
}

#[test]
fn an_end_of_ours_says_a_last_line_but_never_inside_a_message() {
    let mut bench = Bench::new();
    bench.settle();
    bench.stream.end(End::Shutdown);
    assert_eq!(bench.settle().0, "Shutdown\n");

    let mut bench = Bench::new();
    bench.open_window(100);
    bench.send(b"body 1000000\n");
    bench.settle();
    bench.stream.end(End::Shutdown);
    bench.open_window(usize::MAX);
    let (got, _) = bench.settle();
    assert!(!got.contains("Shutdown") && !got.contains("end"));
}

#[test]
fn who_sends_data_has_the_time_that_his_machine_gives_him() {
    let mut bench = Bench::new();
    bench.send(b"data 1000000\n");
    bench.settle();
    let due = bench.stream.deadline();
    for _ in 0..3 {
        bench.send(&[b'd'; 100]);
        bench.settle();
        bench.now += FLOOR_TIME;
        assert_eq!(bench.stream.deadline(), due, "the driver asks for nothing besides");
    }
    assert_eq!(bench.stream.activity(), "receiving");
    bench.stream.expire(bench.now);
    assert!(bench.settle().0.ends_with("Silence\n"));
}

#[test]
fn what_was_begun_is_finished_before_the_server_stops() {
    let mut bench = Bench::new();
    bench.host.later = true;
    bench.send(b"ask\n");
    bench.settle();
    bench.stream.end(End::Shutdown);
    assert_eq!(bench.settle(), ("".into(), Turn::Idle), "the answer is on its way");
    bench.stream.answer(Done::Now("late\n"));
    assert_eq!(bench.settle().0, "late\nShutdown\n");
    assert!(bench.far.0.borrow().shut);
}

/// TLS over the same capricious wire, with rustls's own client at the far end.
mod tls {
    use rustls::ClientConnection;

    use super::*;
    use crate::net::tls::{Files, Trust, client_of, load};

    pub(super) fn server() -> Arc<ServerConfig> {
        server_in(tempfile::tempdir().unwrap().path())
    }

    /// With `cert.pem` and `key.pem` for localhost, made there.
    pub(super) fn server_in(dir: &std::path::Path) -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        load(&[Files { cert, key, domain: None }], &crate::sys::files::open_to_read).unwrap().unwrap()
    }

    fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConnection {
        let config = client_of(versions, Trust::Anybody).unwrap();
        ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap()
    }

    /// Carries bytes both ways, in pieces of this size, until nothing moves; gives the plaintext that came.
    fn carry(bench: &mut Bench, client: &mut ClientConnection, piece: usize) -> String {
        let mut plain = Vec::new();
        for _ in 0..200_000 {
            let mut sealed = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sealed).unwrap();
            }
            let sent = !sealed.is_empty();
            let mut turn = Turn::Idle;
            for part in sealed.chunks(piece) {
                bench.send(part);
                turn = bench.turn();
            }
            bench.open_window(piece.max(50));
            if !sent {
                turn = bench.turn();
            }
            let got = std::mem::take(&mut bench.far.0.borrow_mut().got);
            let mut rest = &got[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
                // WouldBlock: no plaintext in it. An end: the server said goodbye.
                let _ = client.reader().read_to_end(&mut plain);
            }
            if !sent && got.is_empty() && turn != Turn::Again {
                break;
            }
        }
        String::from_utf8(plain).unwrap()
    }

    fn secure(bench: &mut Bench) {
        bench.stream = Stream::open(bench.now, bench.far.clone(), Toy::new(bench.now), Some(server().into())).unwrap();
    }

    #[test]
    fn a_machine_cannot_tell_tls_from_plain_whatever_the_pieces() {
        for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
            for piece in [1, 7, 1000, 100_000] {
                let mut bench = Bench::new();
                secure(&mut bench);
                let mut client = client(&versions);
                client.writer().write_all(b"echo a\nbody 50000\nask\nec").unwrap();
                let mut got = carry(&mut bench, &mut client, piece);
                client.writer().write_all(b"ho b\nquit\n").unwrap();
                got += &carry(&mut bench, &mut client, piece);
                let body = "b".repeat(50_000);
                let expected = format!("hello\na\nbegin\n{body}\nend\nnow\nb\nbye\n");
                assert!(got == expected, "pieces of {piece}: {} instead of {} octets", got.len(), expected.len());
                assert!(bench.far.0.borrow().shut);
            }
        }
    }

    #[test]
    fn an_idle_tls_connection_owns_no_buffer() {
        let mut bench = Bench::new();
        secure(&mut bench);
        let mut client = client(&[&rustls::version::TLS13]);
        assert_eq!(carry(&mut bench, &mut client, 100_000), "hello\n");
        assert_eq!(bench.held(), 0);
        assert_eq!(bench.scratch.partial_bytes(), 0);
        // Half a record is held, counted, and no longer when it is whole.
        client.writer().write_all(b"echo half\n").unwrap();
        let mut sealed = Vec::new();
        client.write_tls(&mut sealed).unwrap();
        bench.send(&sealed[..10]);
        bench.settle_bytes();
        assert_eq!(bench.scratch.partial_bytes(), 10);
        bench.send(&sealed[10..]);
        assert_eq!(carry(&mut bench, &mut client, 100_000), "half\n");
        assert_eq!(bench.scratch.partial_bytes(), 0);
    }

    #[test]
    fn plaintext_pipelined_before_tls_is_forgotten() {
        let config = server();
        for late in [false, true] {
            let mut bench = Bench::new();
            bench.host.tls = Some(config.clone());
            bench.send(b"echo a\n");
            assert_eq!(bench.settle().0, "hello\na\n");
            if late {
                // What comes after the go-ahead is the handshake's, and plaintext there breaks it.
                bench.send(b"tls\n");
                assert_eq!(bench.settle().0, "go\n");
                bench.send(b"echo injected\necho again\n");
                assert_eq!(bench.settle_bytes(), Turn::Closed);
                assert!(!bench.far.0.borrow().got.windows(8).any(|part| part == b"injected"));
                continue;
            }
            bench.send(b"tls\necho injected\n");
            assert_eq!(bench.settle().0, "go\n");
            let mut client = client(&[&rustls::version::TLS13]);
            client.writer().write_all(b"echo b\n").unwrap();
            assert_eq!(carry(&mut bench, &mut client, 100_000), "secure\nb\n");
        }
    }

    #[test]
    fn a_handshake_has_its_time_and_garbage_gets_an_alert() {
        let mut bench = Bench::new();
        secure(&mut bench);
        bench.settle_bytes();
        assert_eq!(bench.stream.deadline(), Some(bench.now + HANDSHAKE));
        bench.send(b"\x16\x03\x01\x02\x00\x01");
        bench.settle_bytes();
        assert_eq!(bench.stream.deadline(), Some(bench.now + HANDSHAKE), "bytes do not buy time");
        bench.now += HANDSHAKE;
        bench.stream.expire(bench.now);
        assert_eq!(bench.turn(), Turn::Closed);

        let mut bench = Bench::new();
        secure(&mut bench);
        bench.send(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(bench.settle_bytes(), Turn::Closed);
        assert_eq!(bench.far.0.borrow().got.first(), Some(&21), "an alert record");
    }

    #[test]
    fn a_client_hello_of_many_records_is_an_error_of_the_peers_and_not_ours() {
        let mut bench = Bench::new();
        secure(&mut bench);
        let mut hello = vec![1, 0, 0xea, 0x60];
        hello.resize(60_000, 0);
        let mut last = Turn::Idle;
        for fragment in hello.chunks(16_000) {
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            bench.send(&[&[0x16, 3, 1][..], &length, fragment].concat());
            last = bench.settle_bytes();
            if last == Turn::Closed {
                break;
            }
        }
        assert_eq!(last, Turn::Closed);
        assert_eq!(bench.scratch.partial_bytes(), 0);
    }

    #[test]
    fn a_handshake_that_fails_with_more_of_it_in_the_same_record_is_an_error_of_the_peers_too() {
        let mut bench = Bench::new();
        secure(&mut bench);
        let message = [1, 0, 0, 4, 9, 9, 9, 9];
        bench.send(&[&[0x16, 3, 1, 0, 16][..], &message, &message].concat());
        assert_eq!(bench.settle_bytes(), Turn::Closed);
        assert_eq!(bench.stream.fault().unwrap().kind(), io::ErrorKind::InvalidData);
        assert_eq!(bench.far.0.borrow().got.first(), Some(&21), "an alert record");
    }

    #[test]
    fn a_panic_leaves_nothing_in_the_sum_of_partial_records() {
        let mut bench = Bench::new();
        secure(&mut bench);
        let mut client = client(&[&rustls::version::TLS13]);
        carry(&mut bench, &mut client, 100_000);
        client.writer().write_all(b"panic\n").unwrap();
        let mut sealed = Vec::new();
        client.write_tls(&mut sealed).unwrap();
        bench.send(&sealed[..10]);
        bench.settle_bytes();
        assert_eq!(bench.scratch.partial_bytes(), 10);
        bench.send(&sealed[10..]);
        let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.turn()));
        assert!(turn.is_err(), "this panic is meant");
        assert_eq!(bench.scratch.partial_bytes(), 0);
    }

    #[test]
    fn a_goodbye_below_is_answered_though_the_socket_stays_open() {
        for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
            let mut bench = Bench::new();
            secure(&mut bench);
            let mut client = client(&versions);
            assert_eq!(carry(&mut bench, &mut client, 100_000), "hello\n");
            client.writer().write_all(b"echo a\n").unwrap();
            client.send_close_notify();
            assert_eq!(carry(&mut bench, &mut client, 100_000), "a\n");
            assert!(bench.far.0.borrow().shut);
        }
    }

    #[test]
    fn who_leaves_in_the_handshake_is_gone_at_once_and_so_is_who_is_told_to_leave() {
        let mut bench = Bench::new();
        secure(&mut bench);
        bench.settle_bytes();
        bench.far.0.borrow_mut().ended = true;
        bench.stream.mark(Readiness { ends: true, ..Readiness::default() });
        assert_eq!(bench.settle_bytes(), Turn::Closed);

        let mut bench = Bench::new();
        secure(&mut bench);
        bench.settle_bytes();
        bench.stream.end(End::Shutdown);
        assert_eq!(bench.settle_bytes(), Turn::Closed, "there is nothing that could be said");
    }

    #[test]
    fn the_floor_counts_what_waits_sealed() {
        let mut bench = Bench::new();
        secure(&mut bench);
        let mut client = client(&[&rustls::version::TLS13]);
        assert_eq!(carry(&mut bench, &mut client, 100_000), "hello\n");
        bench.far.0.borrow_mut().window = 0;
        client.writer().write_all(b"body 20000\n").unwrap();
        let mut sealed = Vec::new();
        client.write_tls(&mut sealed).unwrap();
        bench.send(&sealed);
        assert_eq!(bench.settle_bytes(), Turn::Idle);
        assert_eq!(bench.stream.deadline(), Some(bench.now + FLOOR_TIME));
    }

    impl Bench {
        fn settle_bytes(&mut self) -> Turn {
            loop {
                match self.turn() {
                    Turn::Again => {}
                    turn => return turn,
                }
            }
        }
    }
}

mod client;
