//! Virtual clocks and forged messages. [`reply`] writes answers octet by octet, so that what reads them is not what wrote them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;

/// The end of the question in a message that has one.
fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// A name in wire form.
pub(crate) fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// A record: its owner, type, time and data.
pub(crate) fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let head = [kind.to_be_bytes(), 1u16.to_be_bytes()].concat();
    [&wire_name(owner), &head, &ttl.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn mx(owner: &str, preference: u16, host: &str) -> Vec<u8> {
    record(owner, MX, 300, &[&preference.to_be_bytes()[..], &wire_name(host)].concat())
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
    record(owner, SOA, ttl, &[wire_name("ns.test"), wire_name("root.test"), numbers].concat())
}

/// What a server sends back: the question as it came, a response code, answers and authority.
pub(crate) fn reply(query: &[u8], code: u8, answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Vec<u8> {
    let mut message = query[..question_end(query)].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    message[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    message[8..10].copy_from_slice(&(authority.len() as u16).to_be_bytes());
    message[10..12].fill(0);
    message.extend(answers.iter().chain(authority).flatten());
    message
}

fn cut(query: &[u8]) -> Vec<u8> {
    let mut message = reply(query, 0, &[], &[]);
    message[2] |= 2;
    message
}

/// What a message asks about, in lower case.
fn asked(query: &[u8]) -> (String, u16) {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..end]).unwrap());
        name.push('.');
        at = end;
    }
    (name.trim_end_matches('.').to_lowercase(), u16::from_be_bytes([query[at + 1], query[at + 2]]))
}

fn server(number: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, number).into(), 53)
}

fn rules(servers: u8) -> Rules {
    Rules { servers: (1..=servers).map(server).collect(), timeout: Duration::from_secs(5) }
}

fn seeded(mut seed: u64) -> Box<dyn FnMut() -> u64 + Send> {
    Box::new(move || {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

fn question(name: &str, kind: Kind) -> Question {
    Question { name: name.into(), kind }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A socket, its server, and what was sent there.
type Sending = (Socket, SocketAddr, Vec<u8>);

/// A resolver, what it has sent, and what it has answered.
struct World {
    resolver: Resolver<u32>,
    now: Instant,
    /// Datagrams, in the order they were sent.
    sent: Vec<Sending>,
    streams: Vec<Sending>,
    closed: Vec<Socket>,
    done: Vec<(u32, Answer)>,
    /// Servers that fell silent, and those that came back.
    notes: Vec<(SocketAddr, bool)>,
    tickets: u32,
}

impl World {
    fn new(servers: u8) -> World {
        World {
            resolver: Resolver::new(&rules(servers), seeded(7)),
            now: Instant::now(),
            sent: Vec::new(),
            streams: Vec::new(),
            closed: Vec::new(),
            done: Vec::new(),
            notes: Vec::new(),
            tickets: 0,
        }
    }

    fn drain(&mut self) {
        self.resolver.expire(self.now);
        while let Some(act) = self.resolver.poll(self.now) {
            match act {
                Act::Ask(socket, server, bytes) => self.sent.push((socket, server, bytes.into())),
                Act::Connect(socket, server, bytes) => self.streams.push((socket, server, bytes.into())),
                Act::Close(socket) => self.closed.push(socket),
                Act::Done(ticket, answer) => self.done.push((ticket, answer)),
                Act::Silent(server) => self.notes.push((server, false)),
                Act::Back(server) => self.notes.push((server, true)),
            }
        }
    }

    fn ask(&mut self, name: &str, kind: Kind) -> u32 {
        self.tickets += 1;
        self.resolver.ask(self.now, self.tickets, question(name, kind));
        self.drain();
        self.tickets
    }

    /// The last datagram that was sent.
    fn last(&self) -> Sending {
        self.sent.last().expect("something was sent").clone()
    }

    fn receive(&mut self, socket: Socket, bytes: &[u8]) {
        self.resolver.received(self.now, socket, bytes);
        self.drain();
    }

    /// Answers what was sent last.
    fn answer(&mut self, code: u8, answers: &[Vec<u8>], authority: &[Vec<u8>]) {
        let (socket, _, query) = self.last();
        self.receive(socket, &reply(&query, code, answers, authority));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.drain();
    }

    /// Asks, answers so, and gives what the ticket gets.
    fn of(&mut self, name: &str, kind: Kind, answers: &[Vec<u8>]) -> Answer {
        let ticket = self.ask(name, kind);
        self.answer(0, answers, &[]);
        self.told(ticket)
    }

    /// What the ticket was told, once.
    fn told(&self, ticket: u32) -> Answer {
        let told: Vec<&Answer> = self.done.iter().filter(|(to, _)| *to == ticket).map(|(_, answer)| answer).collect();
        assert_eq!(told.len(), 1, "{ticket} was told {told:?}");
        told[0].clone()
    }
}

fn address(last: u8) -> Record {
    Record::Address(Ipv4Addr::new(198, 51, 100, last).into())
}

fn a(owner: &str, ttl: u32, last: u8) -> Vec<u8> {
    record(owner, A, ttl, &[198, 51, 100, last])
}

fn records(records: impl IntoIterator<Item = Record>) -> Answer {
    Answer::Records(records.into_iter().collect())
}

fn host(preference: u16, host: &str) -> Record {
    Record::Mx { preference, host: host.into() }
}

#[test]
fn a_question_goes_to_the_first_server_with_edns_and_is_answered() {
    let mut world = World::new(2);
    let ticket = world.ask("mx.example.org", Kind::A);
    let (socket, to, query) = world.last();
    assert_eq!((to, asked(&query)), (server(1), ("mx.example.org".into(), A)));
    assert_eq!(&query[2..12], [1, 0, 0, 1, 0, 0, 0, 0, 0, 1], "recursion desired, one question, one additional record");
    assert_eq!(
        &query[question_end(&query)..],
        [0, 0, 41, 1232u16.to_be_bytes()[0], 1232u16.to_be_bytes()[1], 0, 0, 0, 0, 0, 0]
    );
    world.answer(0, &[a("mx.example.org", 60, 1), a("MX.example.ORG", 30, 2)], &[]);
    assert_eq!(world.told(ticket), records([address(1), address(2)]));
    assert_eq!(world.closed, [socket]);
    assert_eq!(world.resolver.deadline(), None);
    assert_eq!(world.resolver.health().owed, 0);
}

#[test]
fn each_kind_of_record_is_read() {
    let mut world = World::new(1);
    let aaaa = record("six.test", 28, 60, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(world.of("six.test", Kind::Aaaa, &[aaaa]), records([Record::Address("2001:db8::1".parse().unwrap())]));
    let txt = record("t.test", TXT, 60, b"\x05v=spf\x041 \0\xff\x00");
    assert_eq!(world.of("t.test", Kind::Txt, &[txt]), records([Record::Text((*b"v=spf1 \0\xff").into())]));
    let ptr = record("1.2.0.192.in-addr.arpa", PTR, 60, &wire_name("PC.Test"));
    assert_eq!(world.of("1.2.0.192.in-addr.arpa", Kind::Ptr, &[ptr]), records([Record::Name("pc.test".into())]));
    let tlsa = record("_25._tcp.mx.test", 52, 60, &[3, 1, 1, 0xab]);
    assert_eq!(world.of("_25._tcp.mx.test", Kind::Tlsa, &[tlsa]), records([Record::Other([3, 1, 1, 0xab].into())]));
    let caa = record("c.test", 257, 60, b"\0\x05issue");
    assert_eq!(world.of("c.test", Kind::Other(257), &[caa]), records([Record::Other((*b"\0\x05issue").into())]));
    let mxs = [mx("m.test", 20, "B.m.test"), mx("m.test", 10, "a.m.test")];
    assert_eq!(world.of("m.test", Kind::Mx, &mxs), records([host(20, "b.m.test"), host(10, "a.m.test")]));
    assert_eq!(world.of("n.test", Kind::Mx, &[mx("n.test", 0, "")]), records([host(0, "")]), "a null MX");
}

#[test]
fn what_does_not_fit_is_passed_over_and_counted() {
    let mut world = World::new(1);
    let ticket = world.ask("mx.test", Kind::A);
    let (socket, _, query) = world.last();
    let good = reply(&query, 0, &[a("mx.test", 60, 1)], &[]);
    let change = |at: usize, with: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= with;
        bytes
    };
    let end = question_end(&query);
    let mut none = reply(&query, 0, &[], &[]);
    none[5] = 0;
    none.truncate(12);
    let forged = [
        change(0, 1),
        change(1, 0x80),
        change(2, 0x80),
        change(2, 0x08),
        change(5, 3),
        change(13, 1),
        change(end - 3, 1),
        change(end - 1, 2),
        none,
        good[..11].to_vec(),
        Vec::new(),
    ];
    for (number, bytes) in forged.iter().enumerate() {
        world.receive(socket, bytes);
        assert_eq!(world.resolver.health().foreign, number as u64 + 1, "{number}");
    }
    assert_eq!((world.done.len(), world.sent.len()), (0, 1));
    // The same bytes at another lookup's socket are not its answer either.
    let other = world.ask("other.test", Kind::A);
    let (elsewhere, ..) = world.last();
    world.receive(elsewhere, &good);
    assert!(world.done.is_empty());
    world.receive(socket, &good);
    assert_eq!(world.told(ticket), records([address(1)]));
    world.answer(0, &[a("other.test", 60, 2)], &[]);
    assert_eq!(world.told(other), records([address(2)]));
    // What comes late comes to nobody.
    world.receive(socket, &good);
    assert_eq!(world.done.len(), 2);
}

#[test]
fn ids_and_cases_differ_from_try_to_try() {
    let mut world = World::new(1);
    let names: Vec<String> = (0..64).map(|number| format!("abcdefghijklmnopqrstuvwxyz{number}.test")).collect();
    for name in &names {
        world.ask(name, Kind::A);
    }
    let ids: BTreeSet<[u8; 2]> = world.sent.iter().map(|(_, _, query)| [query[0], query[1]]).collect();
    let cases: BTreeSet<&[u8]> = world.sent.iter().map(|(_, _, query)| &query[13..39]).collect();
    assert!(ids.len() > 60 && cases.len() > 60, "{} {}", ids.len(), cases.len());
    let sockets: HashMap<Socket, ()> = world.sent.iter().map(|(socket, ..)| (*socket, ())).collect();
    assert_eq!(sockets.len(), 64);
}

#[test]
fn an_answer_in_other_case_is_asked_for_once_more_without_the_mixture() {
    let mut world = World::new(1);
    let ticket = world.ask("some-host.example.org", Kind::A);
    let (first, _, query) = world.last();
    let lower = query[..question_end(&query)].to_ascii_lowercase();
    let mut lower = [&query[..12], &lower[12..], &query[lower.len()..]].concat();
    assert_ne!(lower, query, "letters are mixed");
    world.receive(first, &reply(&lower, 0, &[a("some-host.example.org", 60, 9)], &[]));
    assert!(world.done.is_empty() && world.sent.len() == 2 && world.closed == [first]);
    let (second, _, query) = world.last();
    assert!(!query[12..question_end(&query)].iter().any(u8::is_ascii_uppercase));
    // Whatever case that comes back in.
    lower[..2].copy_from_slice(&query[..2]);
    lower[13] = b'S';
    world.receive(second, &reply(&lower, 0, &[a("some-host.example.org", 60, 1)], &[]));
    assert_eq!(world.told(ticket), records([address(1)]));
}

#[test]
fn identical_questions_are_asked_once_and_then_remembered() {
    let mut world = World::new(1);
    let tickets: Vec<u32> = (0..3).map(|_| world.ask("one.test", Kind::A)).collect();
    assert_eq!((world.sent.len(), world.resolver.health().owed), (1, 3));
    world.answer(0, &[a("one.test", 60, 1)], &[]);
    for ticket in tickets {
        assert_eq!(world.told(ticket), records([address(1)]));
    }
    world.pass(secs(59));
    let ticket = world.ask("one.test", Kind::A);
    assert_eq!((world.told(ticket), world.sent.len()), (records([address(1)]), 1));
    world.ask("one.test", Kind::Aaaa);
    assert_eq!(world.sent.len(), 2, "another kind is another question");
    world.pass(secs(1));
    world.ask("one.test", Kind::A);
    assert_eq!(world.sent.len(), 3, "its time is over");
    let health = world.resolver.health();
    assert_eq!((health.questions, health.remembered, health.known), (6, 1, 1));
}

#[test]
fn silence_makes_the_next_server_be_asked_and_ends_after_four_times_the_timeout() {
    let mut world = World::new(3);
    let begun = world.now;
    let ticket = world.ask("slow.test", Kind::A);
    let mut whom = vec![world.last().1];
    while world.done.is_empty() {
        let due = world.resolver.deadline().expect("it is owed an answer");
        assert!(due > world.now && due <= begun + secs(20));
        world.now = due - Duration::from_nanos(1);
        let before = world.sent.len();
        world.drain();
        assert_eq!((world.sent.len(), world.done.len()), (before, 0), "not before it is due");
        world.now = due;
        world.drain();
        whom.extend(world.sent[before..].iter().map(|sent| sent.1));
    }
    assert_eq!(whom, [1, 2, 3, 1].map(server));
    assert_eq!((world.told(ticket), world.now), (Answer::Failed(Failure::Silence), begun + secs(20)));
    assert_eq!((world.closed.len(), world.resolver.health().failed), (4, 1));
}

#[test]
fn who_refuses_or_talks_nonsense_is_asked_no_more_and_the_next_is_at_once() {
    let mut world = World::new(3);
    let ticket = world.ask("refused.test", Kind::A);
    world.answer(2, &[], &[]);
    assert_eq!(world.last().1, server(2));
    let (socket, _, query) = world.last();
    let torn = reply(&query, 0, &[a("refused.test", 60, 1), vec![5, b'x']], &[]);
    world.receive(socket, &torn);
    assert_eq!(world.last().1, server(3));
    // Who refuses need not repeat the question.
    let (socket, _, query) = world.last();
    world.receive(socket, &[query[0], query[1], 0x80, 0x85, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused));
    let ticket = world.ask("refused.test", Kind::A);
    world.pass(secs(5));
    assert_eq!(world.last().1, server(2));
    world.answer(0, &[a("refused.test", 60, 1)], &[]);
    assert_eq!(world.told(ticket), records([address(1)]));
    let mut world = World::new(1);
    let ticket = world.ask("nonsense.test", Kind::Mx);
    world.answer(0, &[record("nonsense.test", MX, 60, &[0, 10, 0xc0, 0xff])], &[]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Nonsense));
    let ticket = world.ask("referred.test", Kind::Mx);
    world.answer(0, &[], &[record("test", NS, 60, &wire_name("ns.test"))]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused), "a referral is no answer");
}

#[test]
fn a_server_that_cannot_be_reached_is_asked_again_after_a_rest() {
    let mut world = World::new(2);
    let ticket = world.ask("starting.test", Kind::A);
    for number in 1..=2 {
        let (socket, to, _) = world.last();
        assert_eq!(to, server(number));
        world.resolver.failed(world.now, socket);
        world.drain();
    }
    assert_eq!((world.sent.len(), world.resolver.deadline()), (2, Some(world.now + REST)), "nothing spins");
    world.pass(REST);
    assert_eq!(world.last().1, server(1));
    world.answer(0, &[a("starting.test", 60, 1)], &[]);
    assert_eq!(world.told(ticket), records([address(1)]));
    // Where another one refuses there is nothing to wait for.
    let ticket = world.ask("refused.test", Kind::A);
    world.resolver.failed(world.now, world.last().0);
    world.drain();
    world.answer(2, &[], &[]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused));
}

#[test]
fn a_server_that_knows_no_edns_is_asked_without() {
    for code in [1, 4] {
        let mut world = World::new(1);
        let ticket = world.ask("old.test", Kind::A);
        world.answer(code, &[], &[]);
        let (_, to, query) = world.last();
        assert_eq!((to, query.len(), query[11]), (server(1), question_end(&query), 0));
        world.answer(0, &[a("old.test", 60, 1)], &[]);
        assert_eq!(world.told(ticket), records([address(1)]));
        let ticket = world.ask("older.test", Kind::A);
        world.answer(code, &[], &[]);
        world.answer(code, &[], &[]);
        assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused));
    }
}

#[test]
fn a_server_that_is_always_silent_comes_last_until_it_answers() {
    let mut world = World::new(2);
    for number in 0..SILENT {
        world.ask(&format!("{number}.test"), Kind::A);
    }
    world.pass(secs(5));
    assert_eq!(world.notes, [(server(1), false)]);
    world.ask("next.test", Kind::A);
    assert_eq!(world.last().1, server(2), "the second comes first now");
    world.pass(secs(5));
    assert_eq!(world.last().1, server(1), "it is asked after the others");
    world.answer(0, &[a("next.test", 60, 1)], &[]);
    assert_eq!(world.notes.len(), 3, "the second was silent as often: {:?}", world.notes);
    assert!(world.notes.contains(&(server(1), true)));
    world.ask("after.test", Kind::A);
    assert_eq!(world.last().1, server(1));
}

#[test]
fn a_truncated_answer_is_asked_for_over_a_stream() {
    for piece in [1, 2, 3, 7, 70_000] {
        let mut world = World::new(2);
        let ticket = world.ask("large.test", Kind::Txt);
        let (socket, _, query) = world.last();
        world.receive(socket, &cut(&query));
        assert_eq!((world.streams.len(), world.closed.as_slice()), (1, &[socket][..]));
        let (stream, to, bytes) = world.streams[0].clone();
        assert_eq!((to, usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))), (server(1), bytes.len() - 2));
        // 64,000 octets of text, as much as a record takes.
        let text = [&[255u8][..], &[b'x'; 255]].concat().repeat(250);
        let message = reply(&bytes[2..], 0, &[record("large.test", TXT, 60, &text)], &[]);
        let message = [&(message.len() as u16).to_be_bytes()[..], &message, b"and more"].concat();
        for part in message.chunks(piece) {
            world.receive(stream, part);
        }
        let Answer::Records(found) = world.told(ticket) else { panic!("{:?}", world.told(ticket)) };
        assert_eq!(found[..], [Record::Text([b'x'; 255 * 250].into())]);
        assert_eq!((world.resolver.cache.bytes(), world.resolver.health().known), (0, 0), "too large to be kept");
    }
}

#[test]
fn a_stream_that_fails_leads_to_the_next_server() {
    let mut world = World::new(2);
    let ticket = world.ask("large.test", Kind::A);
    let (socket, _, query) = world.last();
    world.receive(socket, &cut(&query));
    let (stream, ..) = world.streams[0];
    world.receive(stream, &[0]);
    world.resolver.failed(world.now, stream);
    world.drain();
    assert_eq!((world.last().1, world.resolver.streams), (server(2), 0));
    // Nonsense there: its id, or a truncated answer where nothing need be truncated.
    let (socket, _, query) = world.last();
    world.receive(socket, &cut(&query));
    let (stream, _, bytes) = world.streams[1].clone();
    let message = cut(&bytes[2..]);
    world.receive(stream, &[&(message.len() as u16).to_be_bytes()[..], &message].concat());
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Nonsense));
}

#[test]
fn streams_are_bounded_and_the_others_wait_for_one() {
    let mut world = World::new(1);
    for number in 0..=STREAMS {
        world.ask(&format!("{number}.test"), Kind::A);
        let (socket, _, query) = world.last();
        world.receive(socket, &cut(&query));
    }
    assert_eq!((world.streams.len(), world.resolver.streams), (STREAMS, STREAMS));
    world.resolver.failed(world.now, world.streams[3].0);
    world.drain();
    assert_eq!((world.streams.len(), world.resolver.streams), (STREAMS + 1, STREAMS));
    world.pass(secs(20));
    assert_eq!((world.done.len(), world.resolver.streams), (STREAMS + 1, 0));
}

#[test]
fn aliases_are_followed_within_an_answer_and_from_one_to_the_next() {
    let mut world = World::new(1);
    let cname = |from: &str, to: &str| record(from, CNAME, 20, &wire_name(to));
    // In any order.
    let chain = [a("c.test", 60, 1), cname("b.test", "C.test"), cname("a.test", "b.test")];
    assert_eq!(world.of("a.test", Kind::A, &chain), records([address(1)]));
    world.pass(secs(20));
    let ticket = world.ask("a.test", Kind::A);
    assert_eq!(world.sent.len(), 2, "it is good for as long as its shortest part");
    world.answer(0, &[cname("a.test", "b.test")], &[]);
    assert_eq!(asked(&world.last().2), ("b.test".into(), A));
    world.answer(0, &[a("a.test", 60, 66), a("b.test", 60, 2)], &[]);
    assert_eq!(world.told(ticket), records([address(2)]));
    // The alias has no such record, and somebody says so.
    let ticket = world.ask("n.test", Kind::Mx);
    world.answer(0, &[cname("n.test", "b.test")], &[soa("test", 60, 60)]);
    assert_eq!(world.told(ticket), Answer::NoData);
    let ticket = world.ask("d.test", Kind::Mx);
    world.answer(3, &[cname("d.test", "gone.test")], &[soa("test", 60, 60)]);
    assert_eq!(world.told(ticket), Answer::NoName);
    // Who asks for the alias itself gets it as it is.
    let ticket = world.ask("a.test", Kind::Other(CNAME));
    world.answer(0, &[cname("a.test", "b.test")], &[]);
    assert_eq!(world.told(ticket), records([Record::Other(wire_name("b.test").into())]));
}

#[test]
fn circles_and_long_chains_of_aliases_end() {
    let cname = |from: &str, to: &str| record(from, CNAME, 20, &wire_name(to));
    let mut world = World::new(1);
    let circle = [cname("a.test", "b.test"), cname("b.test", "a.test")];
    assert_eq!(world.of("a.test", Kind::A, &circle), Answer::Failed(Failure::Nonsense));
    assert_eq!(world.of("s.test", Kind::A, &[cname("s.test", "s.test")]), Answer::Failed(Failure::Nonsense));
    // One hop an answer: as many as may be, and one more.
    for (hops, wanted) in [(HOPS, records([address(1)])), (HOPS + 1, Answer::Failed(Failure::Nonsense))] {
        let mut world = World::new(1);
        let ticket = world.ask("h0.test", Kind::A);
        for hop in 0..hops {
            world.answer(0, &[cname(&format!("h{hop}.test"), &format!("h{}.test", hop + 1))], &[]);
        }
        if world.done.is_empty() {
            world.answer(0, &[a(&format!("h{hops}.test"), 60, 1)], &[]);
        }
        assert_eq!((world.told(ticket), world.sent.len()), (wanted, HOPS + 1));
        // The same in one answer.
        let mut chain: Vec<Vec<u8>> =
            (0..hops).map(|hop| cname(&format!("h{hop}.test"), &format!("h{}.test", hop + 1))).collect();
        chain.push(a(&format!("h{hops}.test"), 60, 1));
        let mut world = World::new(1);
        assert_eq!(matches!(world.of("h0.test", Kind::A, &chain), Answer::Records(_)), hops == HOPS);
    }
}

#[test]
fn five_thousand_records_are_a_hundred() {
    let mut world = World::new(1);
    let mut many: Vec<Vec<u8>> = Vec::new();
    for number in 0u16..5000 {
        // The owner as a pointer to the question, the host a single letter: 16 octets each.
        let host = [1, b'a' + (number % 26) as u8, 0];
        let data = [&number.to_be_bytes()[..], &host].concat();
        many.push([&[0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 0, 0, data.len() as u8][..], &data].concat());
    }
    let ticket = world.ask("many.test", Kind::Mx);
    let (socket, _, query) = world.last();
    world.receive(socket, &cut(&query));
    let (stream, _, bytes) = world.streams[0].clone();
    many.truncate(3800);
    let message = reply(&bytes[2..], 0, &many, &[]);
    world.receive(stream, &[&(message.len() as u16).to_be_bytes()[..], &message].concat());
    let Answer::Records(found) = world.told(ticket) else { panic!("{:?}", world.told(ticket)) };
    assert_eq!((found.len(), &found[99]), (KEPT, &host(99, "v")));
    // As a datagram that lies about how many there are.
    let ticket = world.ask("liar.test", Kind::Mx);
    let (socket, _, query) = world.last();
    let mut message = reply(&query, 0, &many[..50], &[]);
    message[6..8].copy_from_slice(&5000u16.to_be_bytes());
    world.receive(socket, &message);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Nonsense));
}

#[test]
fn names_that_are_no_hosts_make_their_record_be_left_out() {
    let mut world = World::new(1);
    let evil = [
        "a b.test",
        "x\r\nRCPT.test",
        "\u{1b}[0m.test",
        "<a>.test",
        "a;b.test",
        "b\\.test",
        "\u{fc}.test",
        "a/b.test",
        "@.test",
    ];
    let mut answers: Vec<Vec<u8>> = evil.iter().map(|name| mx("m.test", 1, name)).collect();
    let dotted = [&0u16.to_be_bytes()[..], b"\x03a.b\x04test\0"].concat();
    answers.push(record("m.test", MX, 60, &dotted));
    answers.push(mx("m.test", 10, "good_1-x.test"));
    assert_eq!(world.of("m.test", Kind::Mx, &answers), records([host(10, "good_1-x.test")]));
    answers.pop();
    assert_eq!(world.of("e.test", Kind::Mx, &[mx("e.test", 1, "a b.test")]), Answer::Failed(Failure::Nonsense));
    let ptr = record("p.test", PTR, 60, &wire_name("a\nb.test"));
    assert_eq!(world.of("p.test", Kind::Ptr, &[ptr]), Answer::Failed(Failure::Nonsense));
    let alias = record("c.test", CNAME, 60, &wire_name("a\nb.test"));
    assert_eq!(world.of("c.test", Kind::A, &[alias]), Answer::Failed(Failure::Nonsense));
    // Delegated addresses (RFC 2317) have aliases with slashes.
    let arpa = "5.2.0.192.in-addr.arpa";
    let alias = [
        record(arpa, CNAME, 60, &wire_name("5.0/25.2.0.192.in-addr.arpa")),
        record("5.0/25.2.0.192.in-addr.arpa", PTR, 60, &wire_name("pc.test")),
    ];
    assert_eq!(world.of(arpa, Kind::Ptr, &alias), records([Record::Name("pc.test".into())]));
    // And no such name is asked about.
    let before = world.sent.len();
    let long = format!("{}.test", "x".repeat(64));
    let longer = vec!["x".repeat(63); 4].join(".");
    for name in ["", ".", "a..b", "a.", "a b", "ü.test", "a\0b", &long, &longer] {
        let ticket = world.ask(name, Kind::A);
        assert_eq!(world.told(ticket), Answer::NoName, "{name}");
    }
    assert_eq!(world.sent.len(), before);
    world.ask(&longer[..253], Kind::A);
    assert_eq!(asked(&world.last().2).0, longer[..253]);
}

#[test]
fn nobody_is_asked_where_this_host_is() {
    let mut world = World::new(1);
    for name in ["localhost", "a.localhost"] {
        let ticket = world.ask(name, Kind::A);
        assert_eq!(world.told(ticket), records([Record::Address(Ipv4Addr::LOCALHOST.into())]));
        let ticket = world.ask(name, Kind::Aaaa);
        assert_eq!(world.told(ticket), records([Record::Address(Ipv6Addr::LOCALHOST.into())]));
        let ticket = world.ask(name, Kind::Mx);
        assert_eq!(world.told(ticket), Answer::NoData);
    }
    assert!(world.sent.is_empty());
    world.ask("notlocalhost", Kind::A);
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn compression_that_runs_in_circles_does_no_harm() {
    let mut world = World::new(1);
    for pointers in [
        vec![0xc0, 12],
        vec![0xc0, 30],
        vec![0xc0, 31, 0xc0, 29],
        vec![1, b'a', 0xc0, 29],
        vec![0xff, 0xff],
        vec![0x80, 1],
    ] {
        let ticket = world.ask("loop.test", Kind::A);
        let (socket, _, query) = world.last();
        let mut message = reply(&query, 0, &[], &[]);
        assert_eq!(message.len(), 27);
        message[7] = 1;
        message.extend([0, 0]);
        message.extend(&pointers);
        message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
        world.receive(socket, &message);
        assert!(matches!(world.told(ticket), Answer::Failed(_) | Answer::NoData), "{pointers:?}");
    }
    // Thousands of records, each a name of pointers that hop through those before it.
    let ticket = world.ask("hops.test", Kind::A);
    let (socket, _, query) = world.last();
    world.receive(socket, &cut(&query));
    let (stream, _, bytes) = world.streams[0].clone();
    let mut message = reply(&bytes[2..], 0, &[], &[]);
    let mut last = 12u16;
    let mut count = 0u16;
    while message.len() < 0x3fff - 20 {
        let here = message.len() as u16;
        message.extend([1, b'a']);
        message.extend((0xc000 | last).to_be_bytes());
        message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
        last = here;
        count += 1;
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    world.receive(stream, &[&(message.len() as u16).to_be_bytes()[..], &message].concat());
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Nonsense), "a name longer than names are");
}

#[test]
fn absences_are_told_apart_and_remembered_as_long_as_the_zone_says() {
    let mut world = World::new(1);
    for (code, wanted, name) in [(0, Answer::NoData, "d.test"), (3, Answer::NoName, "n.test")] {
        let ticket = world.ask(name, Kind::Mx);
        world.answer(code, &[], &[soa("test", 600, 30)]);
        assert_eq!(world.told(ticket), wanted);
        let before = world.sent.len();
        world.pass(secs(29));
        let ticket = world.ask(name, Kind::Mx);
        assert_eq!((world.told(ticket), world.sent.len()), (wanted, before));
        world.pass(secs(1));
        world.ask(name, Kind::Mx);
        assert_eq!(world.sent.len(), before + 1);
        world.answer(code, &[], &[]);
        world.ask(name, Kind::Mx);
        assert_eq!(world.sent.len(), before + 2, "nobody said for how long");
        world.answer(code, &[], &[soa("test", 1_000_000, 1_000_000)]);
        world.pass(secs(3599));
        world.ask(name, Kind::Mx);
        assert_eq!(world.sent.len(), before + 2);
        world.pass(secs(1));
        world.ask(name, Kind::Mx);
        assert_eq!(world.sent.len(), before + 3, "an hour at most");
        world.answer(code, &[], &[]);
    }
}

#[test]
fn records_serve_a_day_longer_while_nobody_can_tell() {
    let mut world = World::new(1);
    let wanted = records([address(1)]);
    assert_eq!(
        world.of("mx.test", Kind::A, &[a("mx.test", u32::MAX, 7)]),
        records([address(7)]),
        "good for no time at all"
    );
    assert_eq!(world.of("mx.test", Kind::A, &[a("mx.test", i32::MAX as u32, 1)]), wanted);
    world.pass(secs(24 * 3600 - 1));
    let before = world.sent.len();
    world.ask("mx.test", Kind::A);
    assert_eq!(world.sent.len(), before, "a day at most");
    world.pass(secs(1));
    let ticket = world.ask("mx.test", Kind::A);
    world.answer(2, &[], &[]);
    assert_eq!(world.told(ticket), wanted);
    world.pass(secs(24 * 3600 - 21));
    let ticket = world.ask("mx.test", Kind::A);
    (0..4).for_each(|_| world.pass(secs(5)));
    assert_eq!(world.told(ticket), wanted);
    world.pass(secs(1));
    let ticket = world.ask("mx.test", Kind::A);
    world.answer(5, &[], &[]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused));
    let health = world.resolver.health();
    assert_eq!((health.stale, health.failed), (2, 1));
    // A server that says that it is gone is believed.
    assert_eq!(world.of("gone.test", Kind::A, &[a("gone.test", 0, 1)]), wanted);
    let ticket = world.ask("gone.test", Kind::A);
    world.answer(3, &[], &[]);
    assert_eq!(world.told(ticket), Answer::NoName);
    let ticket = world.ask("gone.test", Kind::A);
    world.answer(2, &[], &[]);
    assert_eq!(world.told(ticket), Answer::Failed(Failure::Refused));
}

#[test]
fn the_cache_is_bounded_and_what_was_asked_for_last_stays() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let name = |number: usize| question(&format!("{number}.test"), Kind::A);
    for number in 0..3000 {
        cache.put(now, &name(number), &Answer::NoData, 60);
        cache.put(now, &name(number), &Answer::NoData, 60);
        assert!(cache.find(now, &name(0)).is_some(), "who is asked for stays");
        assert!(cache.len() <= cache::ENTRIES && cache.bytes() <= cache::BYTES);
    }
    assert!(cache.len() > 1000, "{}", cache.len());
    assert_eq!((cache.find(now, &name(1)), cache.find(now, &name(2999))), (None, Some(Answer::NoData)));
    let large = records([Record::Text(vec![0; 30_000].into())]);
    for number in 0..100 {
        cache.put(now, &name(number), &large, 60);
        assert!(cache.bytes() <= cache::BYTES, "{}", cache.bytes());
    }
    assert!(cache.find(now, &name(99)).is_some() && cache.len() < 10);
    let larger = records([Record::Text(vec![0; 40_000].into())]);
    cache.put(now, &name(99), &larger, 60);
    assert!(cache.find(now, &name(99)).is_none(), "too large, and what it takes the place of is gone");
    assert!(cache.clear() > 0 && cache.bytes() == 0 && cache.len() == 0);
}

#[test]
fn what_is_owed_is_bounded_and_lookups_wait_for_their_place() {
    let mut world = World::new(1);
    let tickets: Vec<u32> = (0..OWED).map(|number| world.ask(&format!("{number}.test"), Kind::A)).collect();
    assert_eq!((world.sent.len(), world.resolver.health().asking), (IN_FLIGHT, IN_FLIGHT));
    let busy = world.ask("one-more.test", Kind::A);
    assert_eq!(world.told(busy), Answer::Failed(Failure::Busy));
    world.answer(0, &[a(&format!("{}.test", IN_FLIGHT - 1), 60, 1)], &[]);
    assert_eq!((world.sent.len(), world.done.len()), (IN_FLIGHT + 1, 2), "the next has the place");
    world.pass(secs(20));
    for ticket in tickets {
        world.told(ticket);
    }
    assert_eq!(world.told(OWED as u32), Answer::Failed(Failure::Busy), "it never had a place");
    let health = world.resolver.health();
    assert_eq!((health.owed, health.asking, world.resolver.deadline()), (0, 0, None));
    assert!(health.bytes < 1000, "a burst leaves {} bytes behind", health.bytes);
    assert_eq!(world.sent.len(), world.closed.len());
    world.ask("after.test", Kind::A);
    assert_eq!(world.sent.len(), world.closed.len() + 1);
}

/// A stranger whose name servers take their time has us ask for as many names as he likes.
#[test]
fn slow_names_keep_no_others_from_their_answer() {
    let mut world = World::new(1);
    let slow: Vec<u32> = (0..OWED - 1).map(|number| world.ask(&format!("{number}.slow.test"), Kind::A)).collect();
    world.pass(Duration::from_millis(10));
    // All places are taken, and whoever comes waits behind all the others.
    let first = world.ask("first.test", Kind::A);
    assert_eq!((world.sent.len(), world.resolver.health().asking), (IN_FLIGHT, IN_FLIGHT));
    world.answer(0, &[a(&format!("{}.slow.test", IN_FLIGHT - 1), 60, 1)], &[]);
    for _ in 0..19 {
        if world.done.iter().any(|(ticket, _)| *ticket == first) {
            break;
        }
        world.pass(secs(1));
        // The server answers others meanwhile: those are what is slow, not that.
        for (socket, _, query) in world.sent.clone() {
            let (name, _) = asked(&query);
            if !name.ends_with(".slow.test") && !world.closed.contains(&socket) {
                world.receive(socket, &reply(&query, 0, &[a(&name, 60, 2)], &[]));
            }
        }
        world.ask("others.test", Kind::A);
    }
    assert_eq!(world.told(first), records([address(2)]), "it had its turn");
    // As many as may wait do, and one more has the place of one of those that were put off.
    world.pass(Duration::from_millis(1));
    while world.resolver.health().owed < OWED {
        world.ask("again.test", Kind::A);
    }
    let known = world.done.len();
    let late = world.ask("late.test", Kind::A);
    assert!(world.done.len() > known && !world.done.iter().any(|(ticket, _)| *ticket == late));
    world.pass(secs(20));
    slow.into_iter().chain([late]).for_each(|ticket| drop(world.told(ticket)));
    let health = world.resolver.health();
    assert_eq!((health.owed, health.asking, world.resolver.deadline()), (0, 0, None));
    assert_eq!(world.sent.len(), world.closed.len());
}

#[test]
fn names_are_not_put_off_for_a_server_that_answers_nobody() {
    let mut world = World::new(2);
    for number in 0..2 * IN_FLIGHT {
        world.ask(&format!("{number}.test"), Kind::A);
    }
    world.pass(secs(4));
    assert_eq!(world.sent.len(), IN_FLIGHT);
    world.pass(secs(1));
    assert_eq!((world.sent.len(), world.last().1), (2 * IN_FLIGHT, server(2)), "the other has its turn");
}

#[test]
fn other_servers_are_asked_anew_and_what_the_old_ones_said_is_forgotten() {
    let mut world = World::new(1);
    world.of("known.test", Kind::A, &[a("known.test", 60, 1)]);
    let ticket = world.ask("open.test", Kind::A);
    world.resolver.set(world.now, &rules(1));
    world.drain();
    assert_eq!((world.sent.len(), world.resolver.health().known), (2, 1), "nothing has changed");
    let other = Rules { servers: vec![server(9)], timeout: secs(2) };
    world.resolver.set(world.now, &other);
    world.drain();
    assert_eq!((world.sent.len(), world.last().1, world.resolver.health().known), (3, server(9), 0));
    assert_eq!(world.resolver.deadline(), Some(world.now + secs(2)));
    world.answer(0, &[a("open.test", 60, 2)], &[]);
    assert_eq!(world.told(ticket), records([address(2)]));
    world.resolver.set(world.now, &Rules { servers: Vec::new(), timeout: secs(2) });
    let ticket = world.ask("nobody.test", Kind::A);
    assert!(matches!(world.told(ticket), Answer::Failed(_)), "without a server nobody can tell");
}

/// Everything in any order: each ticket is answered exactly once and in time, each socket closed once, and nothing is left.
#[test]
fn every_ticket_is_answered_once_and_in_time_whatever_happens() {
    for seed in 0..300 {
        let mut random = seeded(seed);
        let mut draw = |most: u64| random() % most;
        let mut world = World::new(1 + draw(3) as u8);
        let mut due: BTreeMap<u32, Instant> = BTreeMap::new();
        for _ in 0..200 {
            let open: Vec<Sending> = (world.sent.iter().chain(&world.streams))
                .filter(|(socket, ..)| !world.closed.contains(socket))
                .cloned()
                .collect();
            match draw(8) {
                0 | 1 => {
                    let ticket = world.ask(&format!("{}.test", draw(12)), Kind::A);
                    due.insert(ticket, world.now + secs(20));
                }
                2 => world.pass(Duration::from_millis(draw(6000))),
                3 => {
                    let servers = 1 + draw(3) as u8;
                    if draw(10) == 0 {
                        world.resolver.set(world.now, &rules(servers));
                    }
                    world.drain();
                }
                _ if open.is_empty() => {}
                4 => {
                    let (socket, ..) = open[draw(open.len() as u64) as usize];
                    world.resolver.failed(world.now, socket);
                    world.drain();
                }
                _ => {
                    let (socket, _, sent) = open[draw(open.len() as u64) as usize].clone();
                    let is_stream = world.streams.iter().any(|(other, ..)| *other == socket);
                    let query = if is_stream { &sent[2..] } else { &sent[..] };
                    let (name, _) = asked(query);
                    let mut said = match draw(8) {
                        0 => reply(query, 2, &[], &[]),
                        1 => reply(query, 3, &[], &[soa("test", 5, 5)]),
                        2 => cut(query),
                        3 => {
                            reply(query, 0, &[record(&name, CNAME, 5, &wire_name(&format!("{}.test", draw(12))))], &[])
                        }
                        4 => reply(query, 1, &[], &[]),
                        5 => reply(query, 0, &[], &[]),
                        _ => reply(query, 0, &[a(&name, draw(10) as u32, 1)], &[]),
                    };
                    if draw(5) == 0 {
                        let at = draw(said.len() as u64) as usize;
                        said[at] ^= draw(256) as u8;
                    }
                    let length = (said.len() as u16).to_be_bytes();
                    let message = if is_stream { [&length[..], &said].concat() } else { said };
                    world.receive(socket, &message[..message.len() - draw(2) as usize]);
                }
            }
            // Nobody waits past his time: whoever runs the loop wakes when it is due.
            assert!(world.resolver.deadline().is_none_or(|next| next > world.now), "seed {seed}: what was due is done");
            for (ticket, until) in &due {
                let answered = world.done.iter().any(|(to, _)| to == ticket);
                assert!(answered || world.now < *until, "seed {seed}: ticket {ticket} is late");
            }
        }
        for _ in 0..100 {
            world.pass(secs(1));
        }
        let mut told: Vec<u32> = world.done.iter().map(|(ticket, _)| *ticket).collect();
        told.sort_unstable();
        assert_eq!(told, (1..=world.tickets).collect::<Vec<u32>>(), "seed {seed}");
        assert_eq!(world.closed.len(), world.sent.len() + world.streams.len(), "seed {seed}");
        let health = world.resolver.health();
        assert_eq!((health.owed, health.asking, world.resolver.streams), (0, 0, 0), "seed {seed}");
        assert!(
            world.resolver.sockets.is_empty() && world.resolver.timers.is_empty() && world.resolver.asking.is_empty()
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_none_but_an_answer_is_believed(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let sent = Sent { id: 0x1234, name: "a.test".into(), kind: Kind::Mx, plain: false };
        prop_assert!(matches!(wire::read(&bytes, &sent), Said::Foreign) || bytes.starts_with(&[0x12, 0x34]));
    }

    /// A good answer, changed in some places and cut.
    #[test]
    fn no_change_of_an_answer_makes_it_panic(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 0..6), end in 0usize..400, kind in 0usize..5,
    ) {
        let kind = [Kind::A, Kind::Mx, Kind::Txt, Kind::Ptr, Kind::Other(6)][kind];
        let sent = Sent { id: 7, name: "a.test".into(), kind, plain: true };
        let query = wire::query(&sent, true).expect("it is a name");
        let answers = [
            record("a.test", CNAME, 9, &wire_name("b.test")),
            mx("b.test", 3, "mx.b.test"),
            a("b.test", 9, 1),
            record("b.test", TXT, 9, b"\x03abc\0"),
            record("b.test", PTR, 9, &wire_name("c.test")),
        ];
        let mut message = reply(query.as_ref(), 0, &answers, &[soa("test", 9, 9)]);
        for (at, with) in changes {
            if let Some(byte) = message.get_mut(at) {
                *byte = with;
            }
        }
        let said = wire::read(&message[..end.min(message.len())], &sent);
        if let Said::Records { records, .. } = said {
            for record in records {
                if let Record::Mx { host: name, .. } | Record::Name(name) = record {
                    prop_assert!(name.is_empty() || is_host(&name), "{name:?}");
                }
            }
        }
    }
}
