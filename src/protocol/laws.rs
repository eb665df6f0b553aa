//! What holds for every machine. A new machine adds one line to [`every_machine`].

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::control::{self, Control};
use super::pop3::client::{self, Client, Command};
use super::pop3::reply::Refusal;
use super::pop3::{Answer, Apop, Ask, Link, Login, Pop3, Row, Rules, Totals};
use super::sasl::scram::tests::{NONCE, pencil};
use super::smtp::client as sending;
use super::smtp::{self, Face, Smtp};
use super::{End, Machine, Want};
use crate::mail::identity::Uid;
use crate::mail::undots::Bare;
use crate::text::bytes::{HIGH, Input, Output};

/// What a host does for a machine under test.
pub(crate) enum Reply<A> {
    Answer(A),
    Body(A, &'static [u8], A),
}

/// Does what a driver does, with input in these parts. Gives what was said, and whether the machine closed.
pub(crate) fn converse<M: Machine>(
    machine: &mut M,
    parts: &[&[u8]],
    host: impl FnMut(M::Ask) -> Reply<M::Answer>,
) -> (Vec<u8>, bool) {
    converse_and_keep(machine, parts, host, &mut Vec::new())
}

/// The same, with what was handed on as text of messages.
pub(crate) fn converse_and_keep<M: Machine>(
    machine: &mut M,
    parts: &[&[u8]],
    mut host: impl FnMut(M::Ask) -> Reply<M::Answer>,
    kept: &mut Vec<u8>,
) -> (Vec<u8>, bool) {
    let (now, mut out, mut input) = (Instant::now(), Output::default(), Input::default());
    let mut said = Vec::new();
    machine.open(now, &mut out);
    let mut parts = parts.iter().copied();
    let mut part: &[u8] = &[];
    let mut steps = 0u32;
    loop {
        steps += 1;
        assert!(steps < 4_000_000, "the machine goes round in circles");
        // No machine is called while the output is high; no single step may write without bound.
        assert!(out.len() < HIGH, "one step wrote {} bytes", out.len());
        said.extend_from_slice(out.bytes());
        out.clear();
        match machine.step(now, &mut input, &mut out) {
            Want::Again => {}
            Want::Data(text) => kept.extend_from_slice(text),
            Want::Close => {
                said.extend_from_slice(out.bytes());
                return (said, true);
            }
            Want::Ask(ask) => match host(ask) {
                Reply::Answer(answer) => machine.answer(now, answer, &mut out),
                Reply::Body(begin, body, end) => {
                    machine.answer(now, begin, &mut out);
                    out.push(body);
                    machine.answer(now, end, &mut out);
                }
            },
            Want::Input => {
                if part.is_empty() {
                    match parts.next() {
                        Some(next) => part = next,
                        None => {
                            said.extend_from_slice(out.bytes());
                            return (said, false);
                        }
                    }
                }
                let taken = input.push(part);
                assert!(taken > 0 || part.is_empty(), "the machine leaves no room and wants more");
                part = &part[taken..];
            }
        }
    }
}

/// A small POP3 world: ann with `secret`, five messages, the third marked deleted by another's hand.
pub(crate) fn pop3_host(ask: Ask) -> Reply<Answer> {
    let totals = Totals { messages: 5, octets: 500, last_read: 1 };
    let row = |number| Row {
        number,
        octets: 100,
        uid: Uid { hash: u128::from(number), occurrence: 0 },
        deleted: number == 3,
    };
    Reply::Answer(match ask {
        Ask::StartTls => Answer::TlsStarted,
        Ask::Login(login) => {
            let Login { user, password } = *login;
            match (&user[..], password.reveal()) {
                (b"ann", b"secret") => Answer::Welcome,
                (b"busy", _) => Answer::Refused(Refusal::Unavailable),
                (b"odd", _) => Answer::Refused(Refusal::Misconfigured),
                _ => Answer::Refused(Refusal::Denied),
            }
        }
        Ask::Apop(apop) => {
            let Apop { user, stamp, digest } = *apop;
            assert_eq!(&*stamp, STAMP);
            let good = user == b"ann" && digest.reveal() == b"0123456789abcdef0123456789abcdef";
            if good { Answer::Welcome } else { Answer::Refused(Refusal::Denied) }
        }
        Ask::Verifier(user) if *user == *b"busy" => Answer::Refused(Refusal::Unavailable),
        Ask::Verifier(_) => Answer::Verifier(Box::new((pencil(), NONCE.into()))),
        Ask::Proof(true) => Answer::Welcome,
        Ask::Proof(false) => Answer::Refused(Refusal::Denied),
        Ask::Open => Answer::Opened(totals),
        Ask::Stat | Ask::Undelete => Answer::Totals(totals),
        Ask::Rows(from) => Answer::Rows((from..=5).take(2).map(row).collect()),
        Ask::Row(number @ (1 | 2 | 4 | 5)) => Answer::Rows(vec![row(number)]),
        Ask::Row(_) => Answer::Refused(Refusal::NoSuchMessage),
        Ask::Delete(number @ (1 | 2 | 4 | 5)) => {
            assert_ne!(number, 3);
            Answer::Done
        }
        Ask::Delete(3) => Answer::Refused(Refusal::AlreadyDeleted),
        Ask::Delete(_) => Answer::Refused(Refusal::NoSuchMessage),
        Ask::Retrieve(1 | 2 | 4, lines) => {
            let text: &[u8] = if lines.is_some() { b"h: 1\r\n\r\n.\r\n" } else { b"h: 1\r\n\r\n..\r\n.\r\n" };
            return Reply::Body(Answer::Sending(100), text, Answer::Sent);
        }
        Ask::Retrieve(5, _) => Answer::Refused(Refusal::Changed),
        Ask::Retrieve(..) => Answer::Refused(Refusal::NoSuchMessage),
        Ask::Commit => Answer::Committed { deleted: 1 },
    })
}

pub(crate) fn pop3_rules() -> Rules {
    Rules {
        idle: Duration::from_secs(600),
        login: Duration::from_secs(180),
        max_errors: 10,
        hide_version: true,
        login_delay_secs: 0,
        expire_days: None,
    }
}

pub(crate) fn pop3(link: Link) -> Pop3 {
    Pop3::new(Instant::now(), std::sync::Arc::new(pop3_rules()), link)
}

pub(crate) const OPEN: Link = Link { tls: false, can_tls: true, plain_ok: true, scram: true };
pub(crate) const STAMP: &str = "<1896.697170952@dbc.mtview.ca.us>";

fn pop3_with_apop() -> Pop3 {
    pop3(OPEN).with_stamp(STAMP.into())
}

pub(crate) fn client_rules() -> client::Rules {
    client::Rules {
        greeting: Duration::from_secs(30),
        reply: Duration::from_secs(40),
        login: Duration::from_secs(50),
        text: Duration::from_secs(60),
        quit: Duration::from_secs(70),
        most: 10_000,
    }
}

/// A host that wants to know much of a server, and always the same.
fn client_host(ask: client::Ask) -> Reply<client::Answer> {
    use client::{Answer, Ask};
    Reply::Answer(match ask {
        Ask::StartTls => Answer::TlsStarted,
        Ask::Broken(_) => Answer::Leave,
        Ask::Heard(None, _) => Answer::Say(vec![Command::Capa, Command::Stls]),
        Ask::Heard(Some(Command::Stls), _) => {
            let login = || Box::new(Login { user: b"ann".to_vec(), password: b"secret"[..].into() });
            Answer::Say(vec![
                Command::Plain(login()),
                Command::User(b"ann"[..].into()),
                Command::Pass(b"secret"[..].into()),
            ])
        }
        Ask::Heard(Some(Command::Pass(_)), _) => {
            use Command::{Dele, List, Retr, Stat, Top, Uidl};
            Answer::Say(vec![Stat, List(None), List(Some(2)), Uidl(None), Uidl(Some(2)), Retr(1), Top(2, 0), Dele(1)])
        }
        Ask::Heard(Some(Command::Dele(_)), _) => Answer::Say(vec![Command::Quit]),
        Ask::Heard(..) => Answer::Say(Vec::new()),
    })
}

fn control_host(ask: control::Ask) -> Reply<control::Answer> {
    Reply::Answer(control::Answer { done: true, text: format!("{:?}\n", ask.0) })
}

/// A small SMTP world: ann with `secret`; ann, bob and the postmaster have mail; `slow` nobody knows about just now.
pub(crate) fn smtp_host(ask: smtp::Ask) -> Reply<smtp::Answer> {
    use smtp::Answer::{Denied, Failed, Go};
    let no = |code, detail, text: &'static str| {
        smtp::Answer::Reply(Box::new(smtp::reply::Reply::new(code, 1, detail, text)))
    };
    Reply::Answer(match ask {
        smtp::Ask::Login(login) if login.user == b"slow" => Failed,
        smtp::Ask::Login(login) if (&login.user[..], login.password.reveal()) == (b"ann", b"secret") => Go,
        smtp::Ask::Login(_) | smtp::Ask::Proof(false) => Denied,
        smtp::Ask::Verifier(_) => smtp::Answer::Verifier(Box::new((pencil(), NONCE.into()))),
        smtp::Ask::Sender(sender) if sender.path.as_ref().is_some_and(|path| &*path.local == "evil") => {
            no(550, 8, "No mail from there")
        }
        smtp::Ask::Recipient(recipient) => match &*recipient.path.local.to_ascii_lowercase() {
            "ann" | "bob" | "postmaster" => Go,
            "slow" => Failed,
            _ => no(550, 1, "No such user here"),
        },
        _ => Go,
    })
}

pub(crate) fn smtp_rules() -> smtp::Rules {
    smtp::Rules {
        host: "mx.example".into(),
        hide_version: true,
        hide_auth: false,
        hold: Duration::ZERO,
        greeting: Duration::from_secs(300),
        command: Duration::from_secs(300),
        data: Duration::from_secs(180),
        after_dot: Duration::from_secs(600),
        size: Some(5_000),
        swallow: 2_000,
        recipients: 3,
        header_lines: 20,
        header_bytes: 1_000,
        hops: 4,
        text_line: 998,
        bare_newline: Bare::Normalize,
        max_errors: 10,
        max_unknown: 5,
        max_idle: 20,
    }
}

pub(crate) fn smtp(face: Face) -> Smtp {
    Smtp::new(Instant::now(), std::sync::Arc::new(smtp_rules()), face, SMTP_OPEN)
}

pub(crate) const SMTP_OPEN: smtp::Link =
    smtp::Link { tls: false, can_tls: true, plain_ok: true, scram: true, known: false, etrn: true };

const MX_SAMPLE: &[u8] = b"HELO a\r\nMAIL FROM:<a@b>\r\nRSET\r\nEHLO [1.2.3.4]\r\nAUTH PLAIN\r\nMAIL FROM:<a@b> SIZE=99 RET=HDRS\r\n\
    RCPT TO:<nobody@x>\r\nDATA\r\nRCPT TO:<ann@x> NOTIFY=DELAY\r\nRCPT TO:<slow@x>\r\nRCPT TO:<bob@x>\r\nDATA\r\nReceived: a\r\n\r\n\
    ..a\n.\r\nb\r.\r\n\0.\r\n.\r\nMAIL FROM:<evil@b>\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n\
    Received:\r\nReceived:\r\nReceived:\r\nReceived:\r\nReceived:\r\n.\r\nVRFY x\r\nHELP\r\nETRN a.test\r\nETRN @b\r\nETRN #q\r\nFROB\r\nQUIT\r\nNOOP\r\n";
const SUBMISSION_SAMPLE: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN AGFubgB4\r\nAUTH LOGIN\r\n*\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n\
    Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAscD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0YWc5empmTUhnc3FtbWl6N0FuZFZRPQ==\r\n\
    \r\nMAIL FROM:<ann@x>\r\nAUTH PLAIN\r\nRCPT TO:<bob@x>\r\nDATA\r\n.\r\nQUIT\r\n";
const LMTP_SAMPLE: &[u8] =
    b"EHLO x\r\nLHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@x>\r\nRCPT TO:<no@x>\r\nRCPT TO:<bob@x>\r\nDATA\r\n\
    hello\r\n.\r\nSTARTTLS\r\nLHLO y\r\nQUIT\r\n";
const POP3_SAMPLE: &[u8] =
    b"USER ann\r\nAUTH PLAIN\r\nAGFubgBzZWNyZXQ=\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\n\r\nTOP 2 1\r\nDELE 1\nLAST\r\n\
    UIDL 4\r\nLIST 3\r\nNOOP x\r\nRSET\r\nRETR 9\r\nRETR 18446744073709551617\r\nXYZZY\r\nQUIT\r\nSTAT\r\n";
/// RFC 7677's exchange, once with a response missing; a wrong digest.
const PROOFS_SAMPLE: &[u8] =
    b"CAPA\r\nAPOP ann 00000000000000000000000000000000\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n*\r\n\
    AUTH SCRAM-SHA-256\r\nbiwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n\
    Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAscD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0YWc5empmTUhnc3FtbWl6N0FuZFZRPQ==\r\n\
    \r\nSTAT\r\nAUTH\r\nQUIT\r\n";
/// What a server says to [`client_host`].
const CLIENT_SAMPLE: &[u8] = b"+OK ready <1@x>\r\n+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n+OK begin\r\n+ \r\n-ERR [AUTH] no\r\n\
    +OK\r\n+OK 2 messages\r\n+OK 2 320\r\n+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n+OK 2 200\r\n+OK\r\n1 whqt\r\n\
    2 QhdP\r\n.\r\n+OK 2 QhdP\r\n+OK 13 octets\r\nh: 1\r\n\r\n..\r\n.b\rc\nd\r\n.\r\n-ERR no such message\r\n+OK\r\n+OK bye\r\n";
const CONTROL_SAMPLE: &[u8] = b"status \"a b\" --json\nstatus\n";

/// A client, whose server says no line before it is wanted: one that comes sooner is an answer to nothing.
struct Turns<M> {
    client: M,
    input: Input,
}

impl<M: Machine> Machine for Turns<M> {
    type Ask = M::Ask;
    type Answer = M::Answer;

    fn open(&mut self, now: Instant, out: &mut Output) {
        self.client.open(now, out);
    }

    fn step<'i>(&mut self, now: Instant, input: &'i mut Input, out: &mut Output) -> Want<'i, M::Ask> {
        match self.client.step(now, &mut self.input, out) {
            Want::Again => Want::Again,
            Want::Close => Want::Close,
            Want::Ask(ask) => Want::Ask(ask),
            Want::Data(_) => unreachable!("nobody sends a client of SMTP a message"),
            Want::Input if input.is_empty() => Want::Input,
            Want::Input => {
                let line = memchr::memchr(b'\n', input.bytes()).map_or(input.len(), |at| at + 1);
                let taken = self.input.push(&input.bytes()[..line]);
                input.consume(taken);
                Want::Again
            }
        }
    }

    fn answer(&mut self, now: Instant, answer: M::Answer, out: &mut Output) {
        self.client.answer(now, answer, out);
    }

    fn end(&mut self, now: Instant, why: End, out: &mut Output) {
        self.client.end(now, why, out);
    }

    fn deadline(&self) -> Instant {
        self.client.deadline()
    }
}

fn smtp_client(face: sending::Face) -> Turns<sending::Client> {
    let rules = sending::Rules {
        name: "x.example".into(),
        face,
        tls: sending::Tls::Offered,
        plain_ok: true,
        patience: sending::Patience::default(),
    };
    Turns { client: sending::Client::new(Instant::now(), std::sync::Arc::new(rules), false), input: Input::default() }
}

/// A host with one message for three, again and again.
fn smtp_client_host(ask: sending::Ask) -> Reply<sending::Answer> {
    Reply::Answer(match ask {
        sending::Ask::Next(_) => {
            let to = |local: &str| {
                let (path, _) = crate::mail::address::path(format!("<{local}@y>").as_bytes(), false).unwrap();
                sending::Recipient { path: path.unwrap(), notify: None, orcpt: None }
            };
            sending::Answer::Envelope(Box::new(sending::Envelope {
                sender: sending::Sender::default(),
                recipients: ["ann", "bob", "carl"].map(to).into(),
                form: sending::Form::Lines,
            }))
        }
        sending::Ask::Text => return Reply::Body(sending::Answer::Text, b"..a\r\n", sending::Answer::Sent),
        sending::Ask::StartTls | sending::Ask::Told(_) => sending::Answer::Go,
    })
}

const SMTP_SERVER_SAMPLE: &[u8] = b"220-a\r\n220 b\r\n502 5.5.1 no\n250 c\r\n250 ok\r\n250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n250 ok\r\n\
    354 go\r\n250 2.0.0 done\r\n250 ok\r\n452 full\r\n452 full\r\n452 full\r\n250 reset\r\n550 no\r\n250 ok\r\n421 bye\r\n";
const LMTP_SERVER_SAMPLE: &[u8] = b"220 a LMTP\r\n250-b\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 SIZE\r\n220 begin\r\n250-b\r\n250-DSN\r\n\
    250 PIPELINING\r\n250 ok\r\n250 ok\r\n550 no\r\n251 ok\r\n354 go\r\n250 done\r\n452 4.2.2 full\r\n250 ok\r\n450 no\r\n451 no\r\n\
    450 no\r\n354 go\r\n554 nobody\r\n250 reset\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354\r\n250 1\r\n2x0\r\n";

/// A machine, how to make it, what to say to it, and who answers it.
macro_rules! every_machine {
    ($law:ident) => {
        $law("pop3", || pop3(OPEN), POP3_SAMPLE, pop3_host);
        $law("pop3 without passwords", pop3_with_apop, PROOFS_SAMPLE, pop3_host);
        $law("smtp, as MX", || smtp(Face::Mx), MX_SAMPLE, smtp_host);
        $law("smtp, submission", || smtp(Face::Submission), SUBMISSION_SAMPLE, smtp_host);
        $law("lmtp", || smtp(Face::Lmtp), LMTP_SAMPLE, smtp_host);
        $law("pop3, as client", || Client::new(Instant::now(), client_rules().into()), CLIENT_SAMPLE, client_host);
        $law("smtp, client", || smtp_client(sending::Face::Smtp), SMTP_SERVER_SAMPLE, smtp_client_host);
        $law("lmtp, client", || smtp_client(sending::Face::Lmtp), LMTP_SERVER_SAMPLE, smtp_client_host);
        $law("control", || Control::new(Instant::now()), CONTROL_SAMPLE, control_host);
    };
}

fn cuts<M: Machine>(name: &str, make: impl Fn() -> M, sample: &[u8], host: impl Fn(M::Ask) -> Reply<M::Answer> + Copy) {
    let whole = converse(&mut make(), &[sample], host);
    assert!(whole.0.len() > 20, "{name} says something");
    for at in 0..=sample.len() {
        let (front, back) = sample.split_at(at);
        assert_eq!(converse(&mut make(), &[front, back], host), whole, "{name}, cut at {at}");
    }
    let bytes: Vec<&[u8]> = sample.chunks(1).collect();
    assert_eq!(converse(&mut make(), &bytes, host), whole, "{name}, byte by byte");
}

#[test]
fn any_cut_gives_the_same_replies() {
    every_machine!(cuts);
}

fn survives<M: Machine>(
    name: &str,
    make: impl Fn() -> M,
    sample: &[u8],
    host: impl Fn(M::Ask) -> Reply<M::Answer> + Copy,
) {
    let word = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\r\n".to_vec()),
        Just(vec![b'a'; 300]),
        Just(vec![b'\0', b'\n']),
        (0..sample.len(), 0..sample.len()).prop_map(|(a, b)| sample[a.min(b)..a.max(b)].to_vec()),
    ];
    let talk = proptest::collection::vec(word, 0..60);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&talk, |words| {
        let bytes = words.concat();
        let (whole, _) = converse(&mut make(), &[&bytes], host);
        // A line in is at most a line out, or one of the few long replies.
        prop_assert!(whole.len() < 500 + bytes.len() * 64, "{} bytes for {}", whole.len(), bytes.len());
        let (cut, _) = converse(&mut make(), &bytes.chunks(7).collect::<Vec<_>>(), host);
        prop_assert_eq!(whole, cut);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn garbage_never_panics_and_never_makes_much_of_itself() {
    every_machine!(survives);
}

fn ends<M: Machine>(name: &str, make: impl Fn() -> M, sample: &[u8], host: impl Fn(M::Ask) -> Reply<M::Answer> + Copy) {
    for at in 0..=sample.len() {
        for why in [End::Silence, End::Replaced, End::Kicked, End::Shutdown, End::Overload] {
            let mut machine = make();
            let (_, closed) = converse(&mut machine, &[&sample[..at]], host);
            let (mut out, mut input) = (Output::default(), Input::default());
            if !closed {
                machine.end(Instant::now(), why, &mut out);
            }
            assert!(
                out.len() < 200 && out.bytes().iter().filter(|&&byte| byte == b'\n').count() <= 2,
                "{name} at {at}"
            );
            let want = machine.step(Instant::now(), &mut input, &mut out);
            assert!(matches!(want, Want::Close), "{name} at {at} goes on after {why:?}");
        }
    }
}

#[test]
fn an_end_is_an_end_in_every_state() {
    every_machine!(ends);
}
