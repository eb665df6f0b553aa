//! Conversation scripts (`scripts/*.chat`, read as `protocol/tests/script.rs` says), what they cannot say, and conversations
//! with our own server.
//!
//! A conversation begins with `= smtp` or `= lmtp`; further words: `tls` (it is on), `starttls` (where offered), `required`,
//! `clear` (passwords may be said in clear). Answers are `go`, `quit`, `failed`, `text`, `sent`, `login NAME PASSWORD`, and
//! `message`: the sender, its parameters, `to` and the recipients, each with its parameters, in words of our own command line.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::mail::address::{Address, Place};
use crate::mail::dots::DotEncoder;
use crate::protocol::laws::{Reply as Answered, SMTP_OPEN, smtp_host, smtp_rules};
use crate::protocol::smtp as server;
use crate::protocol::smtp::params;
use crate::protocol::tests::script::{Actor, play_all};
use crate::text::secret::Secret;

fn rules(face: Face, tls: Tls) -> Rules {
    Rules { name: "us.example".into(), face, tls, plain_ok: false, patience: Patience::default() }
}

fn client(face: Face) -> Client {
    Client::new(Instant::now(), Arc::new(rules(face, Tls::Never)), false)
}

/// `a@b SIZE=9 chunk=9 to c@d NOTIFY=NEVER, e@f`.
fn envelope(text: &str) -> Envelope {
    let (sender, recipients) = text.split_once(" to ").expect("recipients");
    let mut form = Form::Lines;
    let words = sender.split(' ').filter(|word| match word.strip_prefix("chunk=") {
        Some(octets) => {
            form = Form::Chunk(octets.parse().unwrap());
            false
        }
        None => true,
    });
    let sender = words.collect::<Vec<_>>().join(" ");
    let bracketed = |text: &str| match text.trim().split_once(' ') {
        Some((path, rest)) => format!("<{path}> {rest}"),
        None => format!("<{}>", text.trim()),
    };
    let sender = params::sender(format!("FROM:{}", bracketed(&sender)).as_bytes(), true).unwrap();
    let recipient = |text| params::recipient(format!("TO:{}", bracketed(text)).as_bytes(), true, true).unwrap();
    Envelope { sender, recipients: recipients.split(", ").map(recipient).collect(), form }
}

fn shown(told: &Told) -> String {
    match told {
        Told::Login(reply) => format!("login {reply}"),
        Told::Unfit(unfit) => format!("unfit {unfit:?}"),
        Told::Sender(reply) => format!("sender {reply}"),
        Told::Recipient(at, reply) => format!("recipient {at} {reply}"),
        Told::Refused(reply) => format!("refused {reply}"),
        Told::Message(reply) => format!("message {reply}"),
        Told::Delivered(at, reply) => format!("delivered {at} {reply}"),
        Told::Over(over) => shown_over(over),
    }
}

fn shown_over(over: &Over) -> String {
    let why = match &over.why {
        Why::Refused(reply) => format!("refused {reply}"),
        Why::Closing(reply) => format!("closing {reply}"),
        Why::Nonsense(nonsense) => format!("nonsense {nonsense:?}"),
        why => format!("{why:?}"),
    };
    let mut text = format!("over {why} in {:?}", over.state);
    if !over.unsettled.is_empty() {
        text += &format!(", unsettled {:?}", over.unsettled);
    }
    if over.possibly {
        text += ", possibly delivered";
    }
    text
}

impl Actor for Client {
    const IS_CLIENT: bool = true;

    fn begin(at: &str, words: &[&str]) -> Client {
        let (face, words) = words.split_first().unwrap_or_else(|| panic!("{at}: which face?"));
        let face = match *face {
            "smtp" => Face::Smtp,
            "lmtp" => Face::Lmtp,
            other => panic!("{at}: no face {other}"),
        };
        let (mut rules, mut tls) = (rules(face, Tls::Never), false);
        for word in words {
            match *word {
                "tls" => tls = true,
                "starttls" => rules.tls = Tls::Offered,
                "required" => rules.tls = Tls::Required,
                "clear" => rules.plain_ok = true,
                other => panic!("{at}: no rule {other}"),
            }
        }
        Client::new(Instant::now(), Arc::new(rules), tls)
    }

    fn question(ask: &Ask) -> String {
        match ask {
            Ask::StartTls => "tls".into(),
            Ask::Text => "text".into(),
            Ask::Told(told) => shown(told),
            Ask::Next(offers) => {
                let flags = [
                    ("pipelining", offers.pipelining),
                    ("8bit", offers.eight_bit),
                    ("utf8", offers.utf8),
                    ("dsn", offers.dsn),
                    ("chunking", offers.chunking),
                    ("starttls", offers.starttls),
                    ("enhanced", offers.enhanced),
                    ("auth", offers.auth),
                    ("plain", offers.plain),
                    ("login", offers.login),
                    ("size", offers.size),
                ];
                let mut text = String::from("next");
                for (name, _) in flags.into_iter().filter(|(_, offered)| *offered) {
                    text += &format!(" {name}");
                }
                let limits = [
                    ("size", offers.size_max),
                    ("rcpt", u64::from(offers.rcpt_max)),
                    ("mail", u64::from(offers.mail_max)),
                ];
                for (name, limit) in limits.into_iter().filter(|(_, limit)| *limit > 0) {
                    text += &format!(" {name}={limit}");
                }
                text
            }
        }
    }

    fn answer(text: &str) -> Answer {
        match text.split_once(' ') {
            Some(("login", login)) => {
                let (user, password) = login.split_once(' ').expect("a password");
                Answer::Login(Box::new(Login { user: user.into(), password: Secret::from(password.as_bytes()) }))
            }
            Some(("message", text)) => Answer::Envelope(Box::new(envelope(text))),
            _ => match text {
                "go" => Answer::Go,
                "quit" => Answer::Quit,
                "failed" => Answer::Failed,
                "text" => Answer::Text,
                "sent" => Answer::Sent,
                other => panic!("no answer {other}"),
            },
        }
    }
}

#[test]
fn every_script_goes_as_it_is_written() {
    assert!(play_all::<Client>("src/protocol/smtp/client/scripts") >= 7);
}

#[test]
fn an_idle_client_is_small() {
    // Ten thousand of them are 1.2 MB. Their rules are shared; a reply, a login and an envelope are there only while they last.
    assert!(size_of::<Client>() <= 120, "{} bytes", size_of::<Client>());
    assert!(size_of::<Running>() <= 184, "{} bytes", size_of::<Running>());
    let desk = said_to(HELLO.as_bytes(), Vec::new());
    assert!(desk.client.partly.is_none() && desk.client.running.is_none() && desk.client.login.is_none());
}

/// Lets a client go on until it wants input; what it says and is told is collected.
struct Desk {
    client: Client,
    input: Input,
    out: Output,
    envelopes: VecDeque<Envelope>,
    /// What each message is.
    text: Vec<u8>,
    heard: Vec<String>,
    /// Of each envelope: whether its recipients have got it, where that is known.
    outcomes: Vec<Vec<Option<bool>>>,
    /// Recipients of the last one whose RCPT was answered with yes.
    taken: Vec<u32>,
    closed: bool,
}

impl Desk {
    fn new(client: Client, envelopes: Vec<Envelope>) -> Desk {
        Desk {
            client,
            input: Input::default(),
            out: Output::default(),
            envelopes: envelopes.into(),
            text: b"Subject: x\n\n.dot\nend".to_vec(),
            heard: Vec::new(),
            outcomes: Vec::new(),
            taken: Vec::new(),
            closed: false,
        }
    }

    fn settle(&mut self, at: u32, good: bool) {
        let outcome = &mut self.outcomes.last_mut().expect("an envelope")[at as usize];
        assert_eq!(*outcome, None, "a second outcome for recipient {at}: {:?}", self.heard);
        *outcome = Some(good);
    }

    fn settle_taken(&mut self, good: bool) {
        for at in std::mem::take(&mut self.taken) {
            self.settle(at, good);
        }
    }

    fn told(&mut self, told: Told) {
        self.heard.push(shown(&told));
        match told {
            Told::Sender(reply) if !reply.is_good() => {
                for at in 0..self.outcomes.last().expect("an envelope").len() {
                    self.settle(at as u32, false);
                }
            }
            Told::Recipient(at, reply) if reply.is_good() => self.taken.push(at),
            Told::Recipient(at, _) => self.settle(at, false),
            Told::Refused(_) => self.settle_taken(false),
            Told::Message(reply) => self.settle_taken(reply.is_good()),
            Told::Delivered(at, reply) => {
                assert_eq!(self.taken.remove(0), at, "answers come in the order of the recipients");
                self.settle(at, reply.is_good());
            }
            Told::Unfit(_) => self.outcomes.last_mut().expect("an envelope").fill(Some(false)),
            Told::Sender(_) | Told::Login(_) | Told::Over(_) => {}
        }
    }

    /// Says `bytes` to it.
    fn hear(&mut self, mut bytes: &[u8]) {
        let now = Instant::now();
        for _ in 0..1_000_000 {
            if self.closed {
                return;
            }
            match self.client.step(now, &mut self.input, &mut self.out) {
                Want::Again => {}
                Want::Data(_) => unreachable!("nobody sends a client a message"),
                Want::Close => self.closed = true,
                Want::Input if bytes.is_empty() => return,
                Want::Input => {
                    let taken = self.input.push(bytes);
                    assert!(taken > 0, "it leaves no room and wants more");
                    bytes = &bytes[taken..];
                }
                Want::Ask(ask) => {
                    let answer = match ask {
                        Ask::StartTls => Answer::Go,
                        Ask::Told(told) => {
                            self.told(told);
                            Answer::Go
                        }
                        Ask::Next(_) => match self.envelopes.pop_front() {
                            Some(envelope) => {
                                let settled = self.outcomes.iter().flatten().all(Option::is_some);
                                assert!(settled, "an envelope without outcomes: {:?}", self.heard);
                                self.outcomes.push(vec![None; envelope.recipients.len()]);
                                self.taken.clear();
                                Answer::Envelope(Box::new(envelope))
                            }
                            None => Answer::Quit,
                        },
                        Ask::Text => {
                            self.client.answer(now, Answer::Text, &mut self.out);
                            let mut encoder = DotEncoder::whole(false);
                            encoder.push(&self.text, self.out.tail(0));
                            encoder.end_line(self.out.tail(0));
                            Answer::Sent
                        }
                    };
                    self.client.answer(now, answer, &mut self.out);
                }
            }
        }
        panic!("the client goes round in circles");
    }

    fn said(&mut self) -> Vec<u8> {
        let said = self.out.bytes().to_vec();
        self.out.clear();
        said
    }

    /// The connection is gone: what had no outcome has this one.
    fn gone(&mut self) -> Option<Over> {
        self.client.lost().inspect(|over| self.heard.push(shown_over(over)))
    }
}

/// A server of ours, and what it has taken.
struct Peer {
    server: server::Smtp,
    input: Input,
    out: Output,
    /// Of each message that was taken: who has it.
    took: Vec<Vec<String>>,
    envelope: Vec<String>,
    text: Vec<u8>,
    closed: bool,
    /// Its answer to EHLO lacks this.
    hides: &'static str,
}

impl Peer {
    fn new(face: server::Face, hides: &'static str) -> Peer {
        let rules = Arc::new(server::Rules { hide_version: true, max_errors: 1000, max_idle: 1000, ..smtp_rules() });
        let mut peer = Peer {
            server: server::Smtp::new(Instant::now(), rules, face, server::Link { known: true, ..SMTP_OPEN }),
            input: Input::default(),
            out: Output::default(),
            took: Vec::new(),
            envelope: Vec::new(),
            text: Vec::new(),
            closed: false,
            hides,
        };
        peer.server.open(Instant::now(), &mut peer.out);
        peer
    }

    fn perform(&mut self, ask: server::Ask) -> server::Answer {
        match &ask {
            server::Ask::Sender(_) | server::Ask::Reset | server::Ask::Hello(_) => {
                self.envelope.clear();
                self.text.clear();
            }
            server::Ask::Commit(_) => {
                let text = std::mem::take(&mut self.text);
                assert_eq!(text, b"Subject: x\n\n.dot\nend\n", "the text is the text that was sent");
                let envelope = std::mem::take(&mut self.envelope);
                if self.server.face() == server::Face::Lmtp {
                    // Every second one is full.
                    let each = envelope.iter().zip(0..).map(|(_, at)| match at % 2 {
                        0 => server::reply::Reply::new(250, 2, 0, "Delivered"),
                        _ => server::reply::Reply::new(452, 2, 2, "Full"),
                    });
                    let answer = server::Answer::Each(each.collect());
                    self.took.push(envelope.into_iter().step_by(2).collect());
                    return answer;
                }
                self.took.push(envelope);
            }
            _ => {}
        }
        let recipient = match &ask {
            server::Ask::Recipient(recipient) => Some(recipient.path.to_string()),
            _ => None,
        };
        let Answered::Answer(answer) = smtp_host(ask) else { unreachable!("a server sends no body") };
        if answer == server::Answer::Go {
            self.envelope.extend(recipient);
        }
        answer
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        let now = Instant::now();
        while !self.closed {
            match self.server.step(now, &mut self.input, &mut self.out) {
                Want::Again => {}
                Want::Data(text) => self.text.extend_from_slice(text),
                Want::Close => self.closed = true,
                Want::Input if bytes.is_empty() => return,
                Want::Input => {
                    let taken = self.input.push(bytes);
                    bytes = &bytes[taken..];
                }
                Want::Ask(ask) => {
                    let answer = self.perform(ask);
                    self.server.answer(now, answer, &mut self.out);
                }
            }
        }
    }

    fn said(&mut self) -> Vec<u8> {
        let said = String::from_utf8(self.out.bytes().to_vec()).unwrap();
        self.out.clear();
        if self.hides.is_empty() { said.into_bytes() } else { said.replace(self.hides, "").into_bytes() }
    }
}

/// Client and server over two lines that carry `piece` octets at a time, and break after so many.
fn talk(desk: &mut Desk, peer: &mut Peer, piece: usize, mut up: usize, mut down: usize) -> (usize, usize) {
    let (mut to_server, mut to_client) = (VecDeque::new(), VecDeque::new());
    let (mut went_up, mut went_down) = (0, 0);
    desk.hear(b"");
    peer.hear(b"");
    loop {
        to_server.extend(desk.said());
        to_client.extend(peer.said());
        let some = to_server.len().min(piece).min(up);
        let bytes: Vec<u8> = to_server.drain(..some).collect();
        up -= some;
        went_up += some;
        peer.hear(&bytes);
        let back = to_client.len().min(piece).min(down);
        let bytes: Vec<u8> = to_client.drain(..back).collect();
        down -= back;
        went_down += back;
        desk.hear(&bytes);
        if some + back == 0 && desk.out.is_empty() && peer.out.is_empty() {
            return (went_up, went_down);
        }
    }
}

/// A good one; all of whom are refused; one with a refused sender; one in part; one that is too many; an empty sender.
fn mixed() -> Vec<Envelope> {
    [
        "a@b SIZE=20 BODY=8BITMIME RET=HDRS ENVID=x to ann@x NOTIFY=NEVER, bob@x ORCPT=rfc822;bob@x",
        "a@b to nobody@x, slow@x",
        "evil@b to ann@x, bob@x",
        "a@b to nobody@x, ann@x, slow@x, bob@x",
        "a@b to ann@x, bob@x, postmaster, ann@x",
        "evil@b to ann@x",
        "a@b to ann@x",
    ]
    .map(envelope)
    .into()
}

const PEERS: [(Face, server::Face); 2] = [(Face::Smtp, server::Face::Mx), (Face::Lmtp, server::Face::Lmtp)];
const NO_PIPELINING: &str = "250-PIPELINING\r\n";

#[test]
fn pipelined_or_not_and_at_every_cut_the_outcomes_are_the_same() {
    for (ours, theirs) in PEERS {
        let mut all = Vec::new();
        for hides in ["", NO_PIPELINING] {
            for piece in [usize::MAX, 1, 2, 3, 5, 7, 11, 64, 100] {
                let (mut desk, mut peer) = (Desk::new(client(ours), mixed()), Peer::new(theirs, hides));
                talk(&mut desk, &mut peer, piece, usize::MAX, usize::MAX);
                assert!(desk.closed && peer.closed, "{:?}", desk.heard);
                assert_eq!(desk.gone(), None);
                all.push((desk.heard, desk.outcomes, peer.took));
            }
        }
        let (heard, _, took) = &all[0];
        assert_eq!(took.len(), 4, "{heard:#?}");
        for other in &all[1..] {
            assert_eq!(other, &all[0]);
        }
    }
}

#[test]
fn a_pipelined_envelope_goes_in_two_turns_and_one_that_is_not_in_one_for_each_command() {
    // What is awaited: the greeting, EHLO, commands and text, QUIT.
    for (hides, turns) in [("", 1 + 1 + 2 + 1), (NO_PIPELINING, 1 + 1 + 5 + 1)] {
        let one = vec![envelope("a@b to ann@x, bob@x")];
        let (mut desk, mut peer) = (Desk::new(client(Face::Smtp), one), Peer::new(server::Face::Mx, hides));
        let mut count = 0;
        while !desk.closed {
            count += 1;
            desk.hear(&peer.said());
            peer.hear(&desk.said());
        }
        assert_eq!(count, turns, "{hides:?}");
    }
}

/// Wherever a connection breaks, each recipient has one outcome, and nobody who has the message is said not to.
fn broken(ours: Face, theirs: server::Face, hides: &'static str) {
    let fresh = || (Desk::new(client(ours), mixed()), Peer::new(theirs, hides));
    let (mut desk, mut peer) = fresh();
    let (up, down) = talk(&mut desk, &mut peer, usize::MAX, usize::MAX, usize::MAX);
    let ups = (0..=up).map(|at| (at, usize::MAX));
    let downs = (0..=down).map(|at| (usize::MAX, at));
    let (mut possibly, mut surely_not) = (0, 0);
    for (up, down) in ups.chain(downs) {
        let (mut desk, mut peer) = fresh();
        talk(&mut desk, &mut peer, usize::MAX, up, down);
        let over = desk.gone();
        let whole = desk.outcomes.iter().filter(|outcomes| outcomes.contains(&Some(true))).count();
        assert!(whole <= peer.took.len(), "a message is said to be taken that is not: {:#?}", desk.heard);
        let mut unsettled = Vec::new();
        if let Some(last) = desk.outcomes.last() {
            unsettled.extend((0..).zip(last).filter(|(_, outcome)| outcome.is_none()).map(|(at, _)| at));
        }
        let (why, said, maybe) = match over {
            Some(over) => (Some(over.why), over.unsettled, over.possibly),
            None => (None, Vec::new(), false),
        };
        assert_eq!(said, unsettled, "{why:?} {:#?}", desk.heard);
        let known = peer.took.len() - whole;
        assert!(known <= 1 && (known == 0 || maybe), "it was taken, and we say no: {up} {down} {:#?}", desk.heard);
        possibly += usize::from(maybe);
        surely_not += usize::from(!maybe && !unsettled.is_empty());
    }
    assert!(possibly > 100 && surely_not > 100, "both were seen: {possibly} {surely_not}");
}

#[test]
fn wherever_the_connection_breaks_each_recipient_has_one_outcome_and_no_taken_message_is_said_to_be_lost() {
    for (ours, theirs) in PEERS {
        for hides in ["", NO_PIPELINING] {
            broken(ours, theirs, hides);
        }
    }
}

const HELLO: &str = "220 x\r\n|250-x\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1000\r\n|";

/// What is said to it, a `|` between what it waits for.
fn said_to(text: &[u8], envelopes: Vec<Envelope>) -> Desk {
    let mut desk = Desk::new(client(Face::Smtp), envelopes);
    desk.hear(b"");
    for part in text.split(|&byte| byte == b'|') {
        desk.hear(part);
        desk.said();
    }
    desk
}

#[test]
fn what_a_hostile_server_says_ends_the_conversation_and_is_told_what_it_is() {
    let long = format!("250 {}\r\n", "x".repeat(reply::LINE_LIMIT));
    let endless = "250-x\r\n".repeat(usize::from(reply::LINES_LIMIT));
    for (said, end) in [
        ("hello\r\n", "nonsense NoCode in Greeting"),
        ("\r\n", "nonsense NoCode in Greeting"),
        ("25\r\n", "nonsense NoCode in Greeting"),
        ("2500 x\r\n", "nonsense NoCode in Greeting"),
        ("250x\r\n", "nonsense NoCode in Greeting"),
        ("150 x\r\n", "nonsense NoCode in Greeting"),
        ("650 x\r\n", "nonsense NoCode in Greeting"),
        ("2\u{663}0 x\r\n", "nonsense NoCode in Greeting"),
        ("22\x000 x\r\n", "nonsense NoCode in Greeting"),
        (" 220 x\r\n", "nonsense NoCode in Greeting"),
        ("220-x\r\n550 x\r\n", "nonsense MixedCodes in Greeting"),
        ("220-x\r\nx\r\n", "nonsense NoCode in Greeting"),
        ("354 x\r\n", "nonsense OutOfPlace in Greeting"),
        (&long, "nonsense LongLine in Greeting"),
        ("220 x\r\n220 y\r\n", "nonsense Unasked in Hello"),
        ("220 x\r\n421 y\r\n", "closing 421 y in Hello"),
        ("421 4.3.2 busy\r\n", "closing 421 4.3.2 busy in Greeting"),
        ("554 5.7.1 no\x1b[2J\0\r\n", "refused 554 5.7.1 no?[2J? in Greeting"),
        ("521-a\r\n521-b\n521 c\r\n", "refused 521 a b c in Greeting"),
        ("220 x\r\n|354 y\r\n", "nonsense OutOfPlace in Hello"),
        ("220 x\r\n|450 later\r\n", "refused 450 later in Hello"),
        ("220 x\r\n|500 what?\r\n|500 what?\r\n", "refused 500 what? in Hello"),
    ] {
        let desk = said_to(said.as_bytes(), mixed());
        assert_eq!(desk.heard, [format!("over {end}")], "{said:?}");
        assert!(desk.closed);
    }
    let desk = said_to(&[b"220-x\r\n", endless.replace("250", "220").as_bytes()].concat(), mixed());
    assert_eq!(desk.heard, ["over nonsense ManyLines in Greeting"]);
    for (said, end) in [
        ("354 x\r\n", "nonsense OutOfPlace in Envelope, unsettled [0, 1]"),
        ("250 x\r\n334 x\r\n", "nonsense OutOfPlace in Envelope, unsettled [0, 1]"),
        ("250 x\r\n250 x\r\n550 x\r\n250 x\r\n", "nonsense OutOfPlace in Envelope, unsettled [0]"),
        ("250 x\r\n250 x\r\n550 x\r\n354 x\r\n250 x\r\n", "nonsense Unasked in Text, unsettled [0]"),
        ("250 x\r\n250 x\r\n421 bye\r\n", "closing 421 bye in Envelope, unsettled [0, 1]"),
        ("250 x\r\n550 x\r\n421-bye\r\n421 you\r\n", "closing 421 bye you in Envelope, unsettled [1]"),
        ("250 x\r\n250 x\r\n550 x\r\n421 bye\r\n", "closing 421 bye in Envelope, unsettled [0]"),
        ("550 x\r\n503 x\r\n503 x\r\n421 bye\r\n", "closing 421 bye in Envelope"),
        (
            "250 x\r\n250 x\r\n250 x\r\n354 x\r\n|354 x\r\n",
            "nonsense OutOfPlace in Dotted, unsettled [0, 1], possibly delivered",
        ),
        (
            "250 x\r\n250 x\r\n250 x\r\n354 x\r\n|garbage\r\n",
            "nonsense NoCode in Dotted, unsettled [0, 1], possibly delivered",
        ),
        ("250 x\r\n250 x\r\n250 x\r\n354 x\r\n|421 no\r\n", "closing 421 no in Dotted"),
        ("250 x\r\n250 x\r\n250 x\r\n354 x\r\n|250 x\r\n250 x\r\n", "nonsense Unasked in Ready"),
        ("250 x\r\n250 x\r\n250 x\r\n354 x\r\n|250 x\r\n421 x\r\n", "closing 421 x in Ready"),
    ] {
        let desk = said_to(format!("{HELLO}{said}").as_bytes(), vec![envelope("a@b to ann@x, bob@x"); 2]);
        assert_eq!(*desk.heard.last().unwrap(), format!("over {end}"), "{said:?}");
        assert!(desk.closed);
    }
}

#[test]
fn a_reply_is_kept_short_and_printable_whatever_it_was() {
    let reply = |said: &str| {
        let mut partly = None;
        let mut lines = said.split_terminator('\n').map(|line| Partly::line(&mut partly, line.as_bytes()).unwrap().1);
        while !lines.next().unwrap() {}
        assert_eq!(lines.next(), None);
        partly.unwrap().finish()
    };
    for (said, kept) in [
        ("250\n", "250"),
        ("250 \n", "250"),
        ("250-\n250 x\n", "250 x"),
        ("250 2.0.0\n", "250 2.0.0"),
        ("250 2.0.0 Ok: queued as \u{e9}\x07\n", "250 2.0.0 Ok: queued as ???"),
        ("550-5.1.1 no such\n550-5.1.1 user\n550 5.7.1 here\n", "550 5.1.1 no such user 5.7.1 here"),
        ("550 4.1.1 wrong class\n", "550 4.1.1 wrong class"),
        ("550 5.1 x\n", "550 5.1 x"),
        ("550 5.1.1.1 x\n", "550 5.1.1.1 x"),
        ("550 5.1111.1 x\n", "550 5.1111.1 x"),
    ] {
        assert_eq!(reply(said).to_string(), kept);
    }
    assert_eq!(reply("550 4.1.1 x\n").enhanced(), None);
    assert_eq!(reply("550 5.01.999 x\n").enhanced(), Some(reply::Enhanced { subject: 1, detail: 999 }));
    assert_eq!(reply(&format!("550-5.1.1 {0}\n550 5.1.1 {0}\n", "x".repeat(400))).text().len(), reply::TEXT_LIMIT);
}

#[test]
fn no_address_and_no_parameter_becomes_a_command() {
    let place = || Place::Domain("x".into());
    let evil = |local: &str| Address { local: local.into(), place: place() };
    let good = envelope("a@b SMTPUTF8 to ann@x");
    let to = |path| Recipient { path, notify: None, orcpt: None };
    let offers = Extensions { utf8: true, dsn: true, auth: true, ..Extensions::default() };
    let refused = |envelope: &Envelope| commands::check(envelope, &offers, 0).err();
    assert_eq!(refused(&good), None);
    for bad in ["a\r\nQUIT", "a\nQUIT", "a\rQUIT", "a\0", "", "a\u{85}b", "a\u{202e}b"] {
        let envelope = Envelope { recipients: vec![to(evil("ann")), to(evil(bad))], ..good.clone() };
        assert_eq!(refused(&envelope), Some(Unfit::BadRecipient(1)), "{bad:?}");
        let sender = Sender { path: Some(evil(bad)), ..good.sender.clone() };
        assert_eq!(refused(&Envelope { sender, ..good.clone() }), Some(Unfit::BadSender), "{bad:?}");
    }
    for bad in ["x\r\nQUIT", "x y", "x>", ""] {
        let path = Address { local: "a".into(), place: Place::Domain(bad.into()) };
        assert_eq!(refused(&Envelope { recipients: vec![to(path)], ..good.clone() }), Some(Unfit::BadRecipient(0)));
    }
    for bad in ["rfc822;a\r\nQUIT", "rfc822;a b", "a", "utf-8;\u{85}"] {
        let recipient = Recipient { orcpt: Some(bad.into()), ..to(evil("ann")) };
        let envelope = Envelope { recipients: vec![recipient], ..good.clone() };
        assert_eq!(refused(&envelope), Some(Unfit::BadRecipient(0)), "{bad:?}");
    }
    for bad in ["a\r\nQUIT", "a b", ""] {
        let sender = Sender { envid: Some(bad.into()), ..good.sender.clone() };
        assert_eq!(refused(&Envelope { sender, ..good.clone() }), Some(Unfit::BadSender), "{bad:?}");
        let sender = Sender { auth: Some(bad.into()), ..good.sender.clone() };
        assert_eq!(refused(&Envelope { sender, ..good.clone() }), Some(Unfit::BadSender), "{bad:?}");
    }
    // Quoted, a blank and a bracket are part of an address and stay in it.
    let mut out = Output::default();
    commands::rcpt(&to(evil("a> NOTIFY=NEVER b")), &offers, &mut out);
    assert_eq!(out.bytes(), b"RCPT TO:<\"a> NOTIFY=NEVER b\"@x>\r\n");
}

#[test]
fn a_long_login_follows_on_a_line_of_its_own_and_one_that_cannot_be_said_is_not() {
    let offers = Extensions { plain: true, ..Extensions::default() };
    let login = |user: &str, password: &str| {
        let login = Login { user: user.into(), password: Secret::from(password.as_bytes()) };
        Saying::new(&login, &offers)
    };
    let said = |saying: &Saying| {
        let mut out = Output::default();
        saying.say(&mut out);
        out.len()
    };
    // 373 octets are 500 in base64: with the command that is 513.
    let mut long_one = login(&"x".repeat(300), &"x".repeat(71)).unwrap();
    assert_eq!(said(&long_one), "AUTH PLAIN\r\n".len());
    assert!(!long_one.goes_on(true), "nothing was said");
    assert!(long_one.goes_on(false));
    assert_eq!(said(&long_one), 500 + 2);
    assert!(long_one.goes_on(true));
    assert_eq!(said(&login(&"x".repeat(300), &"x".repeat(70)).unwrap()), 509);
    assert_eq!(login("a", &"x".repeat(13_000)).err(), Some(Unfit::BadLogin));
    assert_eq!(login("a", "b\0c").err(), Some(Unfit::BadLogin));
    assert_eq!(login("a\0", "b").err(), Some(Unfit::BadLogin));
}

#[test]
fn each_step_has_its_time_and_slow_lines_do_not_prolong_it() {
    let start = Instant::now();
    let mut desk = Desk::new(client(Face::Smtp), vec![envelope("a@b to ann@x, bob@x")]);
    let patience = Patience::default();
    let waits = |desk: &Desk, time: Duration| {
        let left = desk.client.deadline().saturating_duration_since(start);
        assert!(left >= time && left < time + Duration::from_secs(30), "{left:?} in {:?}", desk.client.state());
    };
    waits(&desk, patience.greeting);
    for (said, time) in [
        ("220 x\r\n", patience.command),
        ("250 x\r\n", patience.mail),
        ("250 x\r\n", patience.rcpt),
        ("250 x\r\n", patience.rcpt),
        ("250 x\r\n", patience.data),
        ("354 x\r\n", patience.dot),
        ("250 x\r\n", patience.quit),
    ] {
        desk.hear(said.as_bytes());
        waits(&desk, time);
    }
    // Driven with times of our own: no line but a reply's last moves the deadline; and an envelope has one for all of it.
    let (mut input, mut out) = (Input::default(), Output::default());
    let mut client = client(Face::Smtp);
    let before = client.deadline();
    for minute in 1..5 {
        input.push(b"220-x\r\n");
        assert!(matches!(client.step(start + Duration::from_secs(60 * minute), &mut input, &mut out), Want::Again));
        assert_eq!(client.deadline(), before);
    }
    let mut now = start;
    let many = (0..60).map(|at| format!("u{at}@x")).collect::<Vec<_>>().join(", ");
    let mut envelopes = vec![envelope(&format!("a@b to {many}"))];
    input.push(b"220 x\r\n");
    let last = loop {
        match client.step(now, &mut input, &mut out) {
            Want::Again => {}
            Want::Input if client.state() == State::Envelope && client.deadline() <= now => break now,
            Want::Input => {
                now += Duration::from_secs(240);
                input.push(b"250 x\r\n");
            }
            Want::Ask(Ask::Next(_)) => {
                let envelope = Answer::Envelope(Box::new(envelopes.pop().expect("it is asked for one")));
                client.answer(now, envelope, &mut out);
            }
            Want::Ask(_) => client.answer(now, Answer::Go, &mut out),
            want => panic!("{want:?}"),
        }
    };
    assert!(last - start <= patience.envelope + Duration::from_secs(600), "{:?}", last - start);
}

#[test]
fn a_thousand_recipients_go_in_bursts_with_few_replies_owed_and_each_is_told() {
    let many = (0..1000).map(|at| format!("u{at}@x")).collect::<Vec<_>>().join(", ");
    let mut desk = said_to(HELLO.as_bytes(), Vec::new());
    assert!(desk.closed || desk.client.state() == State::Quitting, "nothing to bring");
    desk = Desk::new(client(Face::Smtp), vec![envelope(&format!("a@b to {many}"))]);
    desk.hear(b"220 x\r\n");
    desk.said();
    desk.hear(b"250-x\r\n250 PIPELINING\r\n");
    let (mut commands, mut replies) = (0, 0);
    loop {
        let said = desk.said();
        assert!(said.len() <= BURST + 1024, "{} octets at once", said.len());
        commands += said.iter().filter(|&&byte| byte == b'\n').count();
        assert!(commands - replies <= WINDOW as usize, "{commands} {replies}");
        if commands == 1002 {
            break;
        }
        assert!(commands > replies, "nothing is said any more");
        desk.hear(b"250 x\r\n");
        replies += 1;
    }
    while replies < 1001 {
        desk.hear(if replies % 2 == 0 { b"250 x\r\n" } else { b"550 x\r\n" });
        replies += 1;
    }
    desk.hear(b"354 x\r\n");
    assert_eq!(desk.said(), b"Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
    desk.hear(b"250 x\r\n");
    assert!(desk.outcomes[0].iter().all(Option::is_some));
    assert_eq!(desk.heard.len(), 1 + 1000 + 1);
}

proptest! {
    #[test]
    fn whatever_a_server_says_each_recipient_has_one_outcome_and_only_commands_are_said(
        words in proptest::collection::vec(prop_oneof![
            4 => (2u8..6, 0u8..6, 0u8..10).prop_map(|(a, b, c)| format!("{a}{b}{c} x\r\n")),
            8 => prop::sample::select(vec!["250 ok\r\n", "354 go\r\n", "550 no\r\n", "452 full\r\n", "250-more\r\n"]).prop_map(str::to_owned),
            1 => "[ -~\r\n]{0,20}",
        ], 0..40),
        lmtp: bool,
        pipelining: bool,
    ) {
        let face = if lmtp { Face::Lmtp } else { Face::Smtp };
        let mut desk = Desk::new(client(face), mixed());
        desk.hear(b"220 x\r\n");
        desk.said();
        desk.hear(if pipelining { b"250-x\r\n250-8BITMIME\r\n250 PIPELINING\r\n" } else { b"250-x\r\n250 8BITMIME\r\n" });
        let mut said = desk.said();
        for word in &words {
            desk.hear(word.as_bytes());
            prop_assert!(desk.out.len() < BURST);
            said.extend(desk.said());
        }
        let over = desk.gone();
        let told = desk.heard.iter().filter(|line| line.starts_with("over ")).count();
        prop_assert!(told <= 1, "{:?}", desk.heard);
        let open = desk.outcomes.last().map_or(0, |last| last.iter().filter(|outcome| outcome.is_none()).count());
        // Told while it lasted, or asked for afterwards.
        let unsettled = over.map_or(0, |over| over.unsettled.len());
        let words = desk.heard.last().filter(|line| line.starts_with("over ") && line.contains("unsettled ["));
        let listed = words.map_or(0, |line| line.split('[').nth(1).unwrap().split(']').next().unwrap().split(',').count());
        prop_assert_eq!(open, listed, "{:?}", desk.heard);
        prop_assert!(unsettled == 0 || unsettled == open);
        for line in String::from_utf8(said).unwrap().split_terminator("\r\n") {
            let verb = ["MAIL FROM:<", "RCPT TO:<", "DATA", "RSET", "QUIT", ".", "Subject: x", "", "end"];
            prop_assert!(verb.iter().any(|verb| line.starts_with(verb)), "{line:?}");
        }
    }
}
