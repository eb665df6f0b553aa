//! Places and conversations together, against hosts of the test's own over sockets that are none. Time is what the test says, and
//! what name servers say too.

mod hosts;
mod places;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conversation::Conversation;
use super::*;
use crate::mail::address;
use crate::net::stream::{Readiness, Scratch};
use crate::net::turn::{Entry, Loop};
use crate::net::{Registry, Token};
use crate::protocol::dns::{Answer, Kind, Record};
use crate::protocol::sasl::Login;
use crate::rules::hops::Way;
use crate::service::deliver::lanes::message_for_tests;
use crate::text::secret::Secret;
use hosts::{Does, Host, Pipe, When};

/// An entry that does nothing: a slot with an id.
struct Nobody;

impl Entry for Nobody {
    type Shared = ();

    fn register(&mut self, _: &Registry, _: &dyn Fn(usize) -> Token) -> std::io::Result<()> {
        Ok(())
    }
    fn deregister(&mut self, _: &Registry) {}
    fn mark(&mut self, _: usize, _: Readiness) {}
    fn turn(&mut self, _: Id, _: Instant, (): &mut (), _: &mut Scratch) -> Turn {
        Turn::Idle
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn expire(&mut self, _: Instant) {}
    fn kind(&self) -> &'static str {
        "nobody"
    }
}

/// A server that sends, and the hosts that it sends to.
struct World {
    lp: Loop<Nobody>,
    shared: Shared,
    office: Id,
    runner: Id,
    now: Instant,
    scratch: Scratch,
    lines: Vec<(Id, Conversation<Pipe>)>,
    hosts: HashMap<SocketAddr, Host>,
    names: HashMap<(String, Kind), Answer>,
    /// What became of whom: message and part.
    fates: BTreeMap<(u32, usize), Vec<Came>>,
    /// Lines whose outcomes are not on disk yet.
    owed: Vec<u32>,
    /// Outcomes are on disk at once.
    notes: bool,
    serial: u32,
    calls: Vec<SocketAddr>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut lp = Loop::new().unwrap();
        let mut shared = Shared::for_tests(dir.path(), &lp);
        change(Arc::make_mut(&mut shared.settings));
        let now = lp.now();
        let (office, runner) = (lp.insert(Nobody).unwrap(), lp.insert(Nobody).unwrap());
        World {
            lp,
            shared,
            office,
            runner,
            now,
            scratch: Scratch::default(),
            lines: Vec::new(),
            hosts: HashMap::new(),
            names: HashMap::new(),
            fates: BTreeMap::new(),
            owed: Vec::new(),
            notes: true,
            serial: 0,
            calls: Vec::new(),
            _dir: dir,
        }
    }

    fn host(&mut self, address: &str, host: Host) {
        self.hosts.insert(address.parse().unwrap(), host);
    }

    fn name(&mut self, name: &str, kind: Kind, records: &[Record]) {
        self.names.insert((name.to_owned(), kind), Answer::Records(records.into()));
    }

    /// A message by this way: its number.
    fn send(&mut self, way: &str, text: &str, recipients: &[&str]) -> u32 {
        self.serial += 1;
        let hop = match way {
            "" => self.shared.settings.hops.hop("ann@example.test", recipients[0]),
            way => self.shared.settings.hops.parse_via(way, recipients[0]).unwrap(),
        };
        let whom =
            |(part, address): (usize, &&str)| Whom { part, address: address_of(address), notify: None, orcpt: None };
        let received = "Received: from x by y; Mon, 5 Jan 2026 11:00:00 +0000\n";
        let message = message_for_tests(&self.shared.transit, &format!("M{}", self.serial), received, text);
        let consignment = Consignment {
            ticket: Ticket { id: self.runner, serial: self.serial },
            message: Arc::new(message),
            envelope: Arc::default(),
            sender: Some(address_of("ann@example.test")),
            recipients: recipients.iter().enumerate().map(whom).collect(),
            hop: Arc::new(hop),
            attempts: 0,
        };
        for part in 0..recipients.len() {
            self.fates.insert((self.serial, part), Vec::new());
        }
        self.shared.offer(self.now, consignment);
        self.serial
    }

    /// One turn. False: nothing moved.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for (ticket, outcome) in std::mem::take(&mut self.shared.post) {
            moved = true;
            match outcome {
                Outcome::Sent(sent) => {
                    assert_eq!(ticket.id, self.runner);
                    for (part, came) in sent.fates {
                        self.fates.get_mut(&(ticket.serial, part)).expect("a recipient there is").push(came);
                    }
                    self.owed.extend(sent.line);
                }
                outcome => {
                    self.shared.looked_up(self.now, ticket, outcome);
                }
            }
        }
        if self.notes {
            self.note();
        }
        self.shared.send_mail(self.now, self.office);
        for (ticket, question) in std::mem::take(&mut self.shared.outgoing.questions) {
            let answer = self.names.get(&(question.name.to_string(), question.kind)).cloned();
            self.shared.post.push_back((ticket, Outcome::Resolved(answer.unwrap_or(Answer::NoName))));
            moved = true;
        }
        for birth in self.shared.outgoing.born() {
            moved = true;
            let At::Tcp(address) = birth.target.at else { panic!("no sockets here") };
            self.calls.push(address);
            let line = birth.line();
            let pipe = match self.hosts.get(&address) {
                Some(host) => host.connected(),
                None => Pipe::refused(),
            };
            let made = Conversation::over(self.now, pipe, birth, &mut self.shared);
            let id = made.map(|mut conversation| {
                conversation.mark(Readiness { read: true, write: true, ..Readiness::default() });
                let id = self.lp.insert(Nobody).unwrap();
                self.lines.push((id, conversation));
                id
            });
            self.shared.outgoing.began(self.now, line, id);
        }
        // Woken or not, each has its turn.
        self.shared.outgoing.woken();
        let mut at = 0;
        while let Some((id, conversation)) = self.lines.get_mut(at) {
            conversation.mark(Readiness { read: true, write: true, ..Readiness::default() });
            let before = conversation.sock().moved();
            let turn = conversation.go(*id, self.now, &mut self.shared, &mut self.scratch);
            moved |= conversation.sock().moved() != before || turn != Turn::Idle;
            if turn == Turn::Closed {
                let (_, mut conversation) = self.lines.remove(at);
                conversation.farewell(self.now, &mut self.shared);
            } else {
                at += 1;
            }
        }
        moved || !self.shared.post.is_empty() || self.shared.outgoing.calls()
    }

    /// What is owed is on disk now.
    fn note(&mut self) {
        for line in std::mem::take(&mut self.owed) {
            self.shared.outgoing.noted(line);
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Until then.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        loop {
            let due = self.lines.iter().filter_map(|(_, conversation)| conversation.deadline());
            let timer = self.shared.outgoing.timers.peek().map(|Reverse((at, _))| *at);
            let next = due.chain(timer).min().filter(|at| *at <= until);
            self.now = next.unwrap_or(until).max(self.now);
            for (_, conversation) in &mut self.lines {
                if conversation.deadline().is_some_and(|at| at <= self.now) {
                    conversation.expire(self.now);
                }
            }
            self.settle();
            if next.is_none() {
                return;
            }
        }
    }

    /// What became of the recipients of a message, each of whom has one outcome.
    fn came(&self, message: u32) -> Vec<Came> {
        let fates = self.fates.range((message, 0)..(message + 1, 0));
        let one = |(whom, fates): (&(u32, usize), &Vec<Came>)| {
            assert_eq!(fates.len(), 1, "{whom:?}: {fates:?}");
            fates[0].clone()
        };
        fates.map(one).collect()
    }

    /// Lines that have a connection or an outcome that is not noted.
    fn line_count(&self) -> usize {
        self.shared.outgoing.lines.len()
    }
}

fn address_of(text: &str) -> Address {
    address::path(format!("<{text}>").as_bytes(), true).unwrap().0.unwrap()
}

fn is_taken(came: &Came) -> bool {
    matches!(came, Came::Taken { .. })
}

const WAY: &str = "[192.0.2.1]:25";
const TEXT: &str = "Subject: tea\n\n.dot\nAt five.\n";
const FOUR: [&str; 4] = ["a@x.test", "b@x.test", "c@x.test", "d@x.test"];
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_message_goes_as_it_is_to_all_its_recipients_at_once_and_the_connection_is_kept_for_the_next() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[]);
    world.host("192.0.2.1:25", host.clone());
    let first = world.send(WAY, TEXT, &FOUR);
    world.settle();
    let second = world.send(WAY, "lone\rCR, CRLF\r\nnul\0\n", &FOUR[..1]);
    world.settle();
    assert!(world.came(first).iter().chain(&world.came(second)).all(is_taken));
    let mails = host.mails();
    assert_eq!((mails.len(), mails[0].to.len(), world.calls.len()), (2, 4, 1));
    let received = "Received: from x by y; Mon, 5 Jan 2026 11:00:00 +0000\r\n";
    assert_eq!(mails[0].text, format!("{received}Subject: tea\r\n\r\n..dot\r\nAt five.\r\n.\r\n"));
    assert_eq!(mails[1].text, format!("{received}lone\r\nCR, CRLF\r\nnul\r\n.\r\n"));
    assert_eq!(world.line_count(), 1);
    world.pass(Duration::from_secs(world.shared.settings.send_idle_secs));
    assert_eq!((world.line_count(), host.said("QUIT")), (0, 1), "it is not kept for ever");
}

#[test]
fn a_place_counts_those_for_whom_it_took_a_message_and_those_who_wait() {
    let mut world = World::new(|_| {});
    world.host("192.0.2.1:25", Host::new(&[(When::Rcpt(1), Does::Says("451 4.7.1 later\r\n"))]));
    world.send(WAY, TEXT, &FOUR);
    world.settle();
    let counts = |world: &World| world.shared.outgoing.places(world.now).map(|place| place.counts).collect::<Vec<_>>();
    assert_eq!(counts(&world), [(3, 1)]);
    // Nobody answers there: all wait, as do those who come while the place is left alone.
    world.send("[192.0.2.2]:25", TEXT, &FOUR);
    world.settle();
    world.send("[192.0.2.2]:25", TEXT, &FOUR[..2]);
    world.settle();
    let mut counted = counts(&world);
    counted.sort_unstable();
    assert_eq!(counted, [(0, 6), (3, 1)]);
}

#[test]
fn whatever_a_host_does_at_whatever_step_each_recipient_has_one_outcome_and_it_is_true() {
    let steps =
        [When::Greeting, When::Ehlo, When::Mail, When::Rcpt(0), When::Rcpt(1), When::Rcpt(3), When::Data, When::Dot];
    let deeds = [
        Does::Stalls,
        Does::Closes,
        Does::Resets,
        Does::Says("421 4.3.2 closing\r\n"),
        Does::Says("451 4.7.1 later\r\n"),
        Does::Says("452 4.5.3 too many\r\n"),
        Does::Says("552 5.2.2 full\r\n"),
        Does::Says("554 5.7.1 no\r\n"),
        Does::Says("hello\r\n"),
        Does::Says("354 what\r\n"),
        Does::Says("250-never\r\n251 ending\r\n"),
        Does::SaysAndCloses("250 2.0.0 ok\r\n"),
        Does::SaysAndCloses("45"),
    ];
    for step in steps {
        for does in deeds {
            for pipelining in [true, false] {
                let case = format!("{step:?} {does:?} pipelining: {pipelining}");
                let mut world = World::new(|_| {});
                let mut host = Host::new(&[(step, does)]);
                host.pipelining = pipelining;
                world.host("192.0.2.1:25", host.clone());
                let message = world.send(WAY, TEXT, &FOUR);
                world.pass(3 * HOUR);
                let mails = host.mails();
                for (came, address) in world.came(message).iter().zip(FOUR) {
                    let has = mails.iter().filter(|mail| mail.to.iter().any(|to| *to == address)).count();
                    match came {
                        Came::Taken { .. } => assert_eq!(has, 1, "{case}: {address} {came:?}"),
                        Came::Possibly(_) => assert!(has <= 1, "{case}: {address} {came:?}"),
                        Came::Later(_) | Came::Never(_) => assert_eq!(has, 0, "{case}: {address} {came:?}"),
                        came => panic!("{case}: {came:?}"),
                    }
                    let is_silent = matches!(does, Does::Stalls | Does::Closes | Does::Resets);
                    let doubt = is_silent && step == When::Dot;
                    assert_eq!(matches!(came, Came::Possibly(_)) && is_silent, doubt, "{case}: {came:?}");
                }
                assert_eq!(world.line_count(), 0, "{case}: nothing is left open");
                assert_eq!((world.shared.outgoing.open(), world.shared.outgoing.waiting()), (0, 0), "{case}");
            }
        }
    }
}

#[test]
fn what_a_host_said_is_the_reason_with_a_code_of_its_own_class() {
    for (does, reason) in [
        ("550 5.1.1 no such user\r\n", "5.1.1 [192.0.2.1]:25 said: 550 5.1.1 no such user"),
        ("550 no\x1b[2J\r\n", "5.0.0 [192.0.2.1]:25 said: 550 no?[2J"),
        ("450 5.1.1 odd\r\n", "4.0.0 [192.0.2.1]:25 said: 450 5.1.1 odd"),
        ("550-a\r\n550 b\r\n", "5.0.0 [192.0.2.1]:25 said: 550 a b"),
    ] {
        let mut world = World::new(|_| {});
        let host = Host::new(&[(When::Rcpt(1), Does::Says(does))]);
        world.host("192.0.2.1:25", host.clone());
        let message = world.send(WAY, TEXT, &FOUR[..2]);
        world.settle();
        let came = world.came(message);
        assert!(is_taken(&came[0]));
        match &came[1] {
            Came::Never(why) => assert_eq!((why.as_str(), &reason[..1]), (reason, "5")),
            Came::Later(why) => assert_eq!((why.as_str(), &reason[..1]), (reason, "4")),
            came => panic!("{came:?}"),
        }
    }
}

#[test]
fn a_host_that_has_enough_recipients_gets_the_rest_in_another_transaction() {
    let mut world = World::new(|_| {});
    let mut host = Host::new(&[]);
    host.most = 2;
    world.host("192.0.2.1:25", host.clone());
    let many: Vec<String> = (0..5).map(|number| format!("u{number}@x.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let message = world.send(WAY, TEXT, &many);
    world.settle();
    assert!(world.came(message).iter().all(is_taken));
    assert_eq!(host.mails().iter().map(|mail| mail.to.len()).collect::<Vec<_>>(), [2, 2, 1]);
    let mut limited = Host::new(&[]);
    limited.offers = "250-LIMITS RCPTMAX=3 MAILMAX=1\r\n";
    world.host("192.0.2.2:25", limited.clone());
    let message = world.send("[192.0.2.2]:25", TEXT, &many);
    world.settle();
    assert!(world.came(message).iter().all(is_taken));
    assert_eq!(limited.mails().iter().map(|mail| mail.to.len()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(limited.greeted(), 2, "one message a connection");
}

#[test]
fn a_connection_takes_no_other_message_before_it_is_on_disk_what_became_of_the_last() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[]);
    world.host("192.0.2.1:25", host.clone());
    world.notes = false;
    let way = format!("{WAY} connections=3");
    let messages: Vec<u32> = (0..5).map(|_| world.send(&way, TEXT, &FOUR[..1])).collect();
    world.settle();
    assert_eq!(host.mails().len(), 3, "each brought one");
    // However long that takes.
    world.pass(Duration::from_secs(60));
    assert_eq!((host.mails().len(), world.line_count(), world.shared.outgoing.open()), (3, 3, 3));
    world.notes = true;
    world.settle();
    assert_eq!(host.mails().len(), 5);
    assert!(messages.iter().all(|message| is_taken(&world.came(*message)[0])));
}

#[test]
fn mail_hosts_are_tried_in_their_order_and_the_next_address_when_one_is_not_there() {
    let mut world = World::new(|_| {});
    let ip = |text: &str| Record::Address(text.parse().unwrap());
    let mx = |preference, host: &str| Record::Mx { preference, host: host.into() };
    world.name("x.test", Kind::Mx, &[mx(20, "b.test"), mx(10, "a.test")]);
    world.name("a.test", Kind::A, &[ip("192.0.2.1")]);
    world.name("a.test", Kind::Aaaa, &[ip("2001:db8::1")]);
    world.name("b.test", Kind::A, &[ip("192.0.2.2")]);
    let host = Host::new(&[]);
    world.host("192.0.2.2:25", host.clone());
    let message = world.send("", TEXT, &FOUR);
    world.settle();
    assert!(world.came(message).iter().all(is_taken));
    let calls: Vec<String> = world.calls.iter().map(ToString::to_string).collect();
    assert_eq!(calls, ["[2001:db8::1]:25", "192.0.2.1:25", "192.0.2.2:25"]);
    let again = world.send("", TEXT, &FOUR);
    world.settle();
    assert!(world.came(again).iter().all(is_taken));
    assert_eq!(world.calls.len(), 3, "the connection was kept, and those that failed rest");
}

#[test]
fn nothing_is_sent_to_this_machine_unless_a_route_says_so() {
    let own: [&[&str]; 4] = [&["127.0.0.1"], &["::1"], &["0.0.0.0"], &["::ffff:127.0.0.1", "127.0.0.9"]];
    for addresses in own {
        let mut world = World::new(|_| {});
        let records: Vec<Record> =
            addresses.iter().map(|text| Record::Address(text.parse::<IpAddr>().unwrap())).collect();
        world.name("x.test", Kind::A, &records);
        world.names.insert(("x.test".to_owned(), Kind::Mx), Answer::NoData);
        let message = world.send("", TEXT, &FOUR[..1]);
        world.settle();
        assert!(matches!(&world.came(message)[0], Came::Never(why) if why.starts_with("5.4.6 ")), "{addresses:?}");
        assert!(world.calls.is_empty(), "{addresses:?}");
    }
    let mut world = World::new(|_| {});
    world.host("127.0.0.1:25", Host::new(&[]));
    let message = world.send("[127.0.0.1]:25 inside", TEXT, &FOUR[..1]);
    world.settle();
    assert!(is_taken(&world.came(message)[0]));
}

/// Who listens at `*` has not written down his addresses: the machine knows them.
#[test]
fn hosts_at_and_behind_an_address_of_this_machine_are_no_hosts_for_mail() {
    let own: IpAddr = "198.51.100.5".parse().unwrap();
    for (bound, is_own) in [("0.0.0.0", true), ("::", false), ("198.51.100.6", false), ("198.51.100.5", true)] {
        let mut world = World::new(|settings| {
            settings.bind_address = vec![bound.parse().unwrap()];
            settings.smtp_port = 25;
        });
        world.shared.outgoing.lives_at(vec![own, "2001:db8::5".parse().unwrap()]);
        world.host("198.51.100.5:25", Host::new(&[]));
        world.host("192.0.2.9:25", Host::new(&[]));
        let mx = |preference, host: &str| Record::Mx { preference, host: host.into() };
        world.name("x.test", Kind::Mx, &[mx(10, "other-name.test"), mx(20, "behind.test")]);
        world.name("other-name.test", Kind::A, &[Record::Address(own)]);
        world.name("behind.test", Kind::A, &[Record::Address("192.0.2.9".parse().unwrap())]);
        let message = world.send("", TEXT, &FOUR[..1]);
        world.settle();
        let came = &world.came(message)[0];
        match is_own {
            true => assert!(matches!(came, Came::Never(why) if why.starts_with("5.4.6 ")), "{bound}: {came:?}"),
            false => assert!(is_taken(came), "{bound}: {came:?}"),
        }
        assert_eq!(world.calls.is_empty(), is_own, "{bound}: {:?}", world.calls);
    }
}

#[test]
fn a_password_is_said_in_clear_within_this_machine_alone() {
    for (address, is_said) in [("192.0.2.1", false), ("127.0.0.1", true)] {
        let mut world = World::new(|settings| {
            let words = [&*format!("[{address}]"), "login=/login", "inside"];
            let way = Way::parse(&words, std::path::Path::new("/")).unwrap();
            settings.hops = crate::rules::hops::Table::new(&[], &[], Some(&way), 25, 10, std::path::Path::new("/"));
            let login = crate::protocol::sasl::Login { user: b"ann".to_vec(), password: b"secret"[..].into() };
            settings.logins.insert("/login".into(), login);
        });
        let mut host = Host::new(&[]);
        host.offers = "250-AUTH PLAIN\r\n";
        world.host(&format!("{address}:25"), host.clone());
        let message = world.send("", TEXT, &FOUR[..1]);
        world.settle();
        assert_eq!(host.heard("AUTH PLAIN AGFubgBzZWNyZXQ="), is_said, "{address}");
        // The host does not know that command, and says so: nobody reads the password there.
        let came = &world.came(message)[0];
        assert!(matches!(came, Came::Later(why) if !why.contains("AGFubg")), "{came:?}");
        assert!(!is_said || matches!(came, Came::Later(why) if why.contains("our login: 500 (and repeats it)")));
    }
}

#[test]
fn what_name_servers_say_of_a_domain_is_told_in_words() {
    let mx = |preference, host: &str| Record::Mx { preference, host: host.into() };
    let null: Answer = Answer::Records([mx(0, "")].as_slice().into());
    let ours: Answer = Answer::Records([mx(0, "example.test")].as_slice().into());
    let silent = Answer::Failed(crate::protocol::dns::Failure::Silence);
    for (answer, never, code) in
        [(null, true, "5.1.10 "), (ours, true, "5.4.6 "), (Answer::NoName, true, "5.1.2 "), (silent, false, "4.4.3 ")]
    {
        let mut world = World::new(|_| {});
        world.names.insert(("x.test".to_owned(), Kind::Mx), answer);
        let message = world.send("", TEXT, &FOUR[..1]);
        world.settle();
        match &world.came(message)[0] {
            Came::Never(why) => assert!(never && why.starts_with(code), "{why}"),
            Came::Later(why) => assert!(!never && why.starts_with(code), "{why}"),
            came => panic!("{came:?}"),
        }
    }
}

#[test]
fn a_place_that_cannot_be_reached_is_closed_for_a_while_and_says_why() {
    let mut world = World::new(|_| {});
    let first = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    let Came::Later(why) = &world.came(first)[0] else { panic!("it is not there") };
    assert!(why.starts_with("4.4.1 [192.0.2.1]:25"), "{why}");
    let host = Host::new(&[]);
    world.host("192.0.2.1:25", host.clone());
    let second = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    assert_eq!((world.came(second), world.calls.len()), (world.came(first), 1), "nobody is called");
    let shown: Vec<bool> = world.shared.outgoing.places(world.now).map(|place| place.closed.is_some()).collect();
    assert_eq!(shown, [true]);
    world.pass(place::CLOSED);
    let third = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    assert!(is_taken(&world.came(third)[0]));
}

#[test]
fn a_host_that_takes_a_text_by_drops_has_its_connection_for_hours_and_not_for_days() {
    let mut world = World::new(|_| ());
    let host = Host::new(&[]);
    host.room.set(0);
    world.host("192.0.2.1:25", host.clone());
    let text = format!("Subject: large\n\n{}", "0123456789abcdef\n".repeat(60_000));
    let message = world.send(WAY, &text, &FOUR[..1]);
    world.settle();
    // Always a little more than the driver wants to see in a minute.
    let hour = |world: &mut World| {
        for _ in 0..60 {
            host.room.set(6_000);
            world.pass(Duration::from_secs(60));
        }
    };
    hour(&mut world);
    assert_eq!((world.shared.outgoing.open(), host.greeted()), (1, 1), "it is as slow as it may be");
    hour(&mut world);
    assert!(host.greeted() > 1, "its connection was ended");
    host.room.set(usize::MAX);
    world.pass(Duration::from_secs(3600));
    assert!(is_taken(&world.came(message)[0]), "and what was not sent whole is in no doubt");
    assert_eq!(host.mails().len(), 1);
}

#[test]
fn a_slow_host_holds_up_nobody_who_goes_elsewhere() {
    let mut world = World::new(|settings| settings.send_connections_max = 8);
    for address in ["192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"] {
        world.host(address, Host::new(&[(When::Dot, Does::Stalls)]));
        for _ in 0..40 {
            world.send(&format!("[{}]:25", address.split(':').next().unwrap()), TEXT, &FOUR[..1]);
        }
    }
    world.settle();
    world.host("192.0.2.9:25", Host::new(&[]));
    let message = world.send("[192.0.2.9]:25", TEXT, &FOUR[..1]);
    world.settle();
    assert!(is_taken(&world.came(message)[0]));
    assert!(world.shared.outgoing.open() <= 8);
    // Who waits longer than a place is worth waiting for comes again later.
    world.pass(place::WAIT);
    let untried = world.fates.values().filter(|fates| matches!(fates[..], [Came::NotTried(_)])).count();
    assert!(untried > 100, "{untried}");
}

/// A stranger makes domains as he likes, and has them all lead to hosts of his that stall.
#[test]
fn many_domains_of_one_network_leave_connections_to_the_others() {
    let mut world = World::new(|settings| {
        settings.send_connections_max = 40;
        settings.hops = crate::rules::hops::Table::new(&[], &[], None, 25, 4, std::path::Path::new("/"));
    });
    let mx = |host: &str| Record::Mx { preference: 1, host: host.into() };
    for number in 1..=60 {
        let (domain, host) = (format!("d{number}.test"), format!("h{number}.test"));
        world.name(&domain, Kind::Mx, &[mx(&host)]);
        world.name(&host, Kind::A, &[Record::Address(IpAddr::from([198, 51, 100, number]))]);
        world.host(&format!("198.51.100.{number}:25"), Host::new(&[(When::Greeting, Does::Stalls)]));
        world.send("", TEXT, &[&format!("a@{domain}")]);
    }
    world.settle();
    assert_eq!(world.shared.outgoing.open(), 10, "a quarter of all");
    world.host("192.0.2.9:25", Host::new(&[]));
    world.name("x.test", Kind::Mx, &[mx("mx.x.test")]);
    world.name("mx.x.test", Kind::A, &[Record::Address("192.0.2.9".parse().unwrap())]);
    let message = world.send("", TEXT, &FOUR[..1]);
    world.settle();
    assert!(is_taken(&world.came(message)[0]));
    // The others come again later, and have their turn when those have ended.
    world.pass(HOUR);
    assert_eq!((world.shared.outgoing.waiting(), world.shared.outgoing.open(), world.calls.len()), (0, 0, 11));
    let was_called = |number: &u8| world.calls.iter().any(|to| to.ip() == IpAddr::from([198, 51, 100, *number]));
    let left = (1..=60).find(|number| !was_called(number)).unwrap();
    world.send("", TEXT, &[&format!("a@d{left}.test")]);
    world.settle();
    assert_eq!(world.calls.len(), 12);
}

#[test]
fn while_sending_is_paused_nothing_is_tried_and_what_waits_comes_back() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[(When::Greeting, Does::Stalls)]);
    world.host("192.0.2.1:25", host.clone());
    let first = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    world.shared.outgoing.pause(true);
    world.settle();
    let second = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    for message in [first, second] {
        assert_eq!(world.came(message), [Came::NotTried(PAUSED_SECS)]);
    }
    world.shared.outgoing.pause(false);
    let third = world.send("[192.0.2.2]:25", TEXT, &FOUR[..1]);
    world.host("192.0.2.2:25", Host::new(&[]));
    world.settle();
    assert!(is_taken(&world.came(third)[0]));
}

#[test]
fn more_than_there_is_room_for_is_not_tried_and_nothing_of_it_is_kept() {
    let mut world = World::new(|_| {});
    world.host("192.0.2.1:25", Host::new(&[(When::Greeting, Does::Stalls)]));
    let messages: Vec<u32> = (0..place::WAITING + 10).map(|_| world.send(WAY, TEXT, &FOUR[..1])).collect();
    world.settle();
    let untried = messages.iter().filter(|message| !world.fates[&(**message, 0)].is_empty()).count();
    assert_eq!((untried, world.shared.outgoing.waiting()), (10, place::WAITING));
    for number in 0..10 {
        for _ in 0..place::WAITING {
            world.send(&format!("[192.0.2.{}]:25", 10 + number), TEXT, &FOUR[..1]);
        }
    }
    assert!(world.shared.outgoing.waiting() <= WAITING);
}

#[test]
fn routes_that_say_never_or_not_yet_need_no_connection() {
    let mut world = World::new(|settings| {
        let way = Way::parse(&["park"], std::path::Path::new("/")).unwrap();
        settings.hops = crate::rules::hops::Table::new(&[], &[], Some(&way), 25, 10, std::path::Path::new("/"));
    });
    let message = world.send("", TEXT, &FOUR[..2]);
    world.settle();
    assert_eq!(world.came(message), [Came::Parked, Came::Parked]);
    let mut world = World::new(|_| {});
    let message = world.send("", TEXT, &["ann@[10.0.0.1]"]);
    world.settle();
    assert!(matches!(&world.came(message)[0], Came::Never(why) if why.starts_with("5.7.1 ")));
}

#[test]
fn after_an_answer_nothing_is_said_before_it_is_on_disk_what_it_was() {
    type Ends = fn(&mut World);
    let ends: [(&str, Ends); 4] = [
        ("nobody comes", |world| world.pass(Duration::from_secs(60))),
        ("it is paused", |world| world.shared.outgoing.pause(true)),
        ("the connection is old", |world| world.pass(2 * HOUR)),
        ("the server stops", |world| {
            world.shared.stopping = true;
            let now = world.now;
            world.lines.iter_mut().for_each(|(_, conversation)| conversation.end(now));
        }),
    ];
    for (case, end) in ends {
        let mut world = World::new(|_| {});
        let host = Host::new(&[]);
        world.host("192.0.2.1:25", host.clone());
        world.notes = false;
        world.send(WAY, TEXT, &FOUR[..1]);
        world.settle();
        end(&mut world);
        world.settle();
        assert_eq!((host.said("QUIT"), world.shared.outgoing.open(), host.mails().len()), (0, 1, 1), "{case}");
        world.notes = true;
        world.pass(Duration::from_secs(60));
        assert_eq!((host.said("QUIT"), world.line_count()), (1, 0), "{case}");
    }
}

#[test]
fn a_host_that_has_enough_recipients_and_breaks_off_is_not_called_for_ever() {
    let mut world = World::new(|_| {});
    let mut host = Host::new(&[(When::Data, Does::Closes)]);
    host.most = 2;
    world.host("192.0.2.1:25", host.clone());
    let message = world.send(WAY, TEXT, &FOUR);
    world.settle();
    assert!(world.came(message).iter().all(|came| matches!(came, Came::Later(_))));
    assert_eq!(host.greeted(), 3);
}

#[test]
fn a_host_that_breaks_off_whatever_it_is_brought_is_left_alone_for_a_while() {
    for does in [Does::Closes, Does::Stalls, Does::Says("421 4.3.2 closing\r\n")] {
        let mut world = World::new(|_| {});
        let host = Host::new(&[(When::Mail, does)]);
        world.host("192.0.2.1:25", host.clone());
        let messages: Vec<u32> = (0..100).map(|_| world.send(WAY, TEXT, &FOUR[..1])).collect();
        world.pass(HOUR);
        assert!(host.greeted() < 12, "{does:?}: {}", host.greeted());
        let later = messages.iter().filter(|message| matches!(world.came(**message)[..], [Came::Later(_)])).count();
        assert!(later > 0, "{does:?}");
        let closed = world.shared.outgoing.places(world.now).map(|place| place.closed.is_some()).collect::<Vec<_>>();
        assert_eq!(closed, [false], "{does:?}: its time is over, and it is tried again");
        world.host("192.0.2.1:25", Host::new(&[]));
        let message = world.send(WAY, TEXT, &FOUR[..1]);
        world.settle();
        assert!(is_taken(&world.came(message)[0]), "{does:?}");
    }
}

#[test]
fn a_connection_that_takes_its_leave_is_nobodys_hope() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[(When::Quit, Does::Stalls)]);
    world.host("192.0.2.1:25", host.clone());
    world.send(WAY, TEXT, &FOUR[..1]);
    world.pass(Duration::from_secs(world.shared.settings.send_idle_secs));
    assert_eq!((host.said("QUIT"), world.line_count()), (1, 1));
    let message = world.send(WAY, TEXT, &FOUR[..1]);
    world.settle();
    assert_eq!(world.fates[&(message, 0)].len(), 1, "another connection is made for it, at once");
}

#[test]
fn when_whoever_was_told_of_outcomes_is_gone_connections_and_their_room_are_given_back() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[]);
    world.host("192.0.2.1:25", host.clone());
    world.host("192.0.2.2:25", Host::new(&[(When::Dot, Does::Stalls)]));
    world.notes = false;
    world.send(WAY, TEXT, &FOUR[..1]);
    world.send("[192.0.2.2]:25", TEXT, &FOUR[..1]);
    world.settle();
    assert_eq!(world.line_count(), 2);
    world.shared.outgoing.forget();
    world.owed.clear();
    world.fates.clear();
    let now = world.now;
    world.lines.iter_mut().for_each(|(_, conversation)| conversation.end(now));
    world.pass(HOUR);
    assert_eq!((world.line_count(), world.shared.outgoing.open(), world.shared.outgoing.waiting()), (0, 0, 0));
    assert_eq!(host.said("QUIT"), 0, "what it took comes again, and it is to know that");
}

#[test]
fn a_password_is_not_said_in_clear_wherever_a_route_leads() {
    for inside in ["", " inside"] {
        let mut world = World::new(|settings| {
            let file = std::path::Path::new("/login");
            let words = format!("[192.0.2.1]:25 login=/login{inside}");
            let way = Way::parse(&words.split(' ').collect::<Vec<_>>(), std::path::Path::new("/")).unwrap();
            settings.hops = crate::rules::hops::Table::new(&[], &[], Some(&way), 25, 10, std::path::Path::new("/"));
            let login = Login { user: b"us".to_vec(), password: Secret::new(b"of course".to_vec()) };
            settings.logins.insert(file.to_owned(), login);
        });
        let mut host = Host::new(&[]);
        host.offers = "250-AUTH PLAIN LOGIN\r\n";
        world.host("192.0.2.1:25", host.clone());
        let message = world.send("", TEXT, &FOUR[..1]);
        world.settle();
        assert!(matches!(&world.came(message)[0], Came::Later(why) if why.starts_with("4.7.11 ")), "{inside}");
        assert!(!host.heard("AUTH"), "{inside}");
    }
}

#[test]
fn a_question_that_is_lost_is_not_waited_for() {
    let mut world = World::new(|_| {});
    let message = world.send("", TEXT, &FOUR[..1]);
    world.shared.send_mail(world.now, world.office);
    let asked = std::mem::take(&mut world.shared.outgoing.questions);
    assert_eq!(asked.len(), 1);
    world.shared.post.push_back((asked[0].0, Outcome::Lost));
    world.settle();
    assert!(matches!(&world.came(message)[0], Came::Later(why) if why.starts_with("4.4.3 ")));
}

#[test]
fn a_crowd_comes_again_one_after_the_other_as_fast_as_the_place_can_take_it() {
    let mut world = World::new(|_| {});
    world.host("192.0.2.1:25", Host::new(&[(When::Greeting, Does::Stalls)]));
    let again = |world: &mut World, count: usize| -> Vec<u64> {
        let messages: Vec<u32> = (0..count).map(|_| world.send(WAY, TEXT, &FOUR[..1])).collect();
        world.settle();
        let fates = messages.iter().filter_map(|message| world.fates[&(*message, 0)].first());
        fates.map(|came| if let Came::NotTried(secs) = came { *secs } else { panic!("{came:?}") }).collect()
    };
    let secs = again(&mut world, place::WAITING + 1000);
    assert_eq!((secs.len(), secs[0], secs[999]), (1000, AGAIN_SECS.0, AGAIN_SECS.0 + 9));
    // It takes as many as ever come: so many may.
    let key: Arc<str> = WAY.into();
    world.shared.outgoing.places.get_mut(&key).unwrap().crowd.ended = 50_000;
    world.now += PACE_WINDOW;
    let secs = again(&mut world, 1000);
    assert_eq!(secs[999] - secs[0], 0);
}

#[test]
fn what_a_place_took_and_put_off_is_counted_there() {
    let mut world = World::new(|_| {});
    world.host("192.0.2.1:25", Host::new(&[(When::Rcpt(1), Does::Says("450 4.2.1 later\r\n"))]));
    world.send(WAY, TEXT, &FOUR[..3]);
    world.settle();
    let counts: Vec<(u64, u64)> = world.shared.outgoing.places(world.now).map(|place| place.counts).collect();
    assert_eq!(counts, [(2, 1)]);
}

#[test]
fn a_host_that_hangs_up_behind_each_message_is_brought_all_of_them() {
    let mut world = World::new(|_| {});
    let host = Host::new(&[(When::Dot, Does::SaysAndCloses("250 2.0.0 taken, and good bye\r\n"))]);
    world.host("192.0.2.1:25", host.clone());
    let messages: Vec<u32> = (0..40).map(|_| world.send(WAY, TEXT, &FOUR[..1])).collect();
    world.settle();
    assert!(messages.iter().all(|message| is_taken(&world.came(*message)[0])));
    assert_eq!(host.mails().len(), 40);
    // One that answers every message, and breaks off behind that, does what it should too.
    let mut world = World::new(|_| {});
    world.host("192.0.2.1:25", Host::new(&[(When::Dot, Does::SaysAndCloses("550 5.7.1 not this\r\n"))]));
    let messages: Vec<u32> = (0..40).map(|_| world.send(WAY, TEXT, &FOUR[..1])).collect();
    world.settle();
    assert!(messages.iter().all(|message| matches!(world.came(*message)[0], Came::Never(_))));
}
