//! Conversation scripts, and what they cannot say.
//!
//! A script (`scripts/*.chat`) is read line by line: `C:` the client says, `S:` the server must have said, `Q:` the machine
//! must have asked, `A:` it is answered, `=` begins a new conversation (`= tls`, `= plain`, `= closed`: no password in
//! clear, TLS to be had; further words: `scram`, `apop`, `delay SECS`, `expire DAYS`), `E:` it is ended for that reason, `X` it
//! must have closed. In `C:` and `S:` what stands between `{b64 ` and `}` is in base64 on the line. To add a case, add a file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::protocol::laws::{Reply, STAMP, converse, pop3, pop3_host, pop3_rules};
use crate::protocol::sasl::scram::tests::{NONCE, pencil};
use crate::text::bytes::{Input, Output};

fn refusal(name: &str) -> Refusal {
    use Refusal::*;
    let before = [Denied, TooSoon, TooManySessions, NoMailbox, Misconfigured, InUse, Unavailable, NoTls];
    let after = [NoSuchMessage, AlreadyDeleted, Changed, NotCommitted];
    before
        .into_iter()
        .chain(after)
        .find(|refusal| format!("{refusal:?}") == name)
        .unwrap_or_else(|| panic!("no refusal {name}"))
}

fn answer(text: &str) -> Answer {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let totals = || Totals {
        messages: number(1) as u32,
        octets: number(2),
        last_read: words.get(3).map_or(0, |w| w.parse().unwrap()),
    };
    let row = |word: &str| {
        let (number, octets) = word.split_once('/').unwrap();
        let (octets, deleted) = octets.strip_suffix('!').map_or((octets, false), |octets| (octets, true));
        let hash = number.parse().unwrap();
        let uid = Uid { hash, occurrence: 0 };
        Row { number: hash as u32, octets: octets.parse().unwrap(), uid, deleted }
    };
    match words[0] {
        "tls" => Answer::TlsStarted,
        "welcome" => Answer::Welcome,
        // RFC 7677's: of the password `pencil`.
        "verifier" => Answer::Verifier(Box::new((pencil(), NONCE.into()))),
        "opened" => Answer::Opened(totals()),
        "totals" => Answer::Totals(totals()),
        "rows" => Answer::Rows(words[1..].iter().map(|word| row(word)).collect()),
        "done" => Answer::Done,
        "sending" => Answer::Sending(number(1)),
        "sent" => Answer::Sent,
        "committed" => Answer::Committed { deleted: number(1) as u32 },
        "refused" => Answer::Refused(refusal(words[1])),
        other => panic!("no answer {other}"),
    }
}

fn question(ask: &Ask) -> String {
    match ask {
        Ask::StartTls => "tls".into(),
        Ask::Login(login) => {
            let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
            format!("login {} {}", show(&login.user), show(login.password.reveal()))
        }
        Ask::Apop(apop) => {
            let digest = String::from_utf8_lossy(apop.digest.reveal()).into_owned();
            format!("apop {} {} {digest}", apop.user.escape_ascii(), apop.stamp)
        }
        Ask::Verifier(user) => format!("verifier {}", user.escape_ascii()),
        Ask::Proof(good) => format!("proof {good}"),
        Ask::Open => "open".into(),
        Ask::Stat => "stat".into(),
        Ask::Rows(from) => format!("rows {from}"),
        Ask::Row(number) => format!("row {number}"),
        Ask::Delete(number) => format!("delete {number}"),
        Ask::Undelete => "undelete".into(),
        Ask::Retrieve(number, None) => format!("retrieve {number}"),
        Ask::Retrieve(number, Some(lines)) => format!("retrieve {number} {lines}"),
        Ask::Commit => "commit".into(),
    }
}

struct Player {
    machine: Pop3,
    input: Input,
    out: Output,
    said: VecDeque<String>,
    asked: Option<String>,
    closed: bool,
}

impl Player {
    fn new(link: Link, rules: Rules, stamp: Option<&str>) -> Player {
        let mut machine = Pop3::new(Instant::now(), Arc::new(rules), link);
        if let Some(stamp) = stamp {
            machine = machine.with_stamp(stamp.into());
        }
        let mut out = Output::default();
        machine.open(Instant::now(), &mut out);
        Player { machine, input: Input::default(), out, said: VecDeque::new(), asked: None, closed: false }
    }

    fn run(&mut self) {
        while self.asked.is_none() && !self.closed {
            match self.machine.step(Instant::now(), &mut self.input, &mut self.out) {
                Want::Input => break,
                Want::Again => {}
                Want::Ask(ask) => self.asked = Some(question(&ask)),
                Want::Data(_) => panic!("POP3 stores nothing"),
                Want::Close => self.closed = true,
            }
        }
        let text = String::from_utf8(self.out.bytes().to_vec()).unwrap();
        self.said.extend(text.split_terminator("\r\n").map(str::to_owned));
        self.out.clear();
    }
}

/// With what stands between `{b64 ` and `}` in base64.
fn encoded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{b64 ") else { return text.to_owned() };
    let (clear, after) = rest.split_once('}').expect("a brace that closes");
    format!("{before}{}{after}", BASE64.encode(clear))
}

fn play(name: &str, script: &str) {
    let mut player: Option<Player> = None;
    for (number, line) in script.lines().enumerate() {
        let at = format!("{name}:{}: {line}", number + 1);
        let (kind, rest) = line.split_at(line.len().min(2));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if kind.starts_with('=') {
            let mut words = line.trim_start_matches('=').split_whitespace();
            let mut link = match words.next().unwrap_or_default() {
                "tls" => Link { tls: true, can_tls: true, plain_ok: false, scram: false },
                "plain" => Link { tls: false, can_tls: false, plain_ok: true, scram: false },
                "closed" => Link { tls: false, can_tls: true, plain_ok: false, scram: false },
                other => panic!("{at}: no link {other}"),
            };
            let (mut rules, mut stamp) = (pop3_rules(), None);
            while let Some(word) = words.next() {
                let mut number =
                    || words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{at}: a number"));
                match word {
                    "scram" => link.scram = true,
                    "apop" => stamp = Some(STAMP),
                    "delay" => rules.login_delay_secs = number(),
                    "expire" => rules.expire_days = Some(number() as u32),
                    other => panic!("{at}: neither offer nor rule {other}"),
                }
            }
            if let Some(old) = player.replace(Player::new(link, rules, stamp)) {
                assert!(old.said.is_empty(), "{at}: before that, not expected: {:?}", old.said);
            }
            continue;
        }
        if kind.starts_with('#') || line.is_empty() {
            continue;
        }
        let player = player.as_mut().unwrap_or_else(|| panic!("{at}: begin with a line `= plain`"));
        let rest = &*encoded(rest);
        match kind {
            "C:" => {
                let bytes = rest.replace("\\0", "\0").replace("\\t", "\t");
                let bytes = bytes.replace("{300}", &"x".repeat(300)).replace("{13000}", &"x".repeat(13_000));
                player.input.push(bytes.as_bytes());
                player.input.push(b"\r\n");
            }
            "S:" => {
                player.run();
                let said = player.said.pop_front();
                assert_eq!(said.as_deref(), Some(rest), "{at}");
            }
            "Q:" => {
                player.run();
                assert!(player.said.is_empty(), "{at}: not expected: {:?}", player.said);
                assert_eq!(player.asked.as_deref(), Some(rest), "{at}");
            }
            "A:" => {
                player.run();
                assert!(player.asked.is_some() || rest == "sent", "{at}: nothing was asked");
                player.machine.answer(Instant::now(), answer(rest), &mut player.out);
                player.asked = None;
            }
            "E:" => {
                player.run();
                let why = match rest {
                    "overload" => End::Overload,
                    "kicked" => End::Kicked,
                    "shutdown" => End::Shutdown,
                    "silence" => End::Silence,
                    other => panic!("{at}: no end {other}"),
                };
                player.machine.end(Instant::now(), why, &mut player.out);
                player.asked = None;
            }
            "X" => {
                player.run();
                assert!(player.said.is_empty(), "{at}: not expected: {:?}", player.said);
                assert!(player.closed, "{at}: still open");
            }
            _ => panic!("{at}: what is this?"),
        }
    }
    let mut player = player.expect("a script has a conversation");
    player.run();
    assert!(player.said.is_empty(), "{name}: at the end, not expected: {:?}", player.said);
}

#[test]
fn conversations_go_as_their_scripts_say() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/pop3/scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        play(&path.file_name().unwrap().to_string_lossy(), &std::fs::read_to_string(&path).unwrap());
        count += 1;
    }
    assert!(count >= 5, "only {count} scripts were found");
}

const TLS: Link = Link { tls: true, can_tls: true, plain_ok: false, scram: true };
const IN: &str = "USER ann\r\nPASS secret\r\n";

/// The table of the module's page, as data: what may be said where.
#[test]
fn every_verb_works_in_its_states_and_nowhere_else() {
    let before = ["USER x", "AUTH", "AUTH PLAIN", "AUTH SCRAM-SHA-256", "CAPA", "NOOP", "QUIT"];
    let after = [
        "STAT", "LIST", "LIST 1", "UIDL", "UIDL 1", "RETR 1", "TOP 1 0", "DELE 1", "RSET", "NOOP", "LAST", "CAPA",
        "QUIT",
    ];
    let last_line = |text: &str| {
        let (said, _) = converse(&mut pop3(TLS), &[text.as_bytes()], pop3_host);
        String::from_utf8(said).unwrap()
    };
    let begins = |greeting: &str, verb: &str| {
        let with = last_line(&format!("{greeting}{verb}\r\n"));
        let without = last_line(greeting);
        with[without.len()..].to_owned()
    };
    for verb in before {
        assert!(!begins("", verb).starts_with("-ERR"), "{verb} before login");
    }
    for verb in after {
        assert!(!begins(IN, verb).starts_with("-ERR"), "{verb} after login");
        if !before.contains(&verb) {
            assert_eq!(begins("", verb), "-ERR Not now\r\n", "{verb} before login");
        }
    }
    for verb in ["USER x", "PASS x", "APOP x y", "AUTH PLAIN", "STLS"] {
        assert_eq!(begins(IN, verb), "-ERR Not now\r\n", "{verb} after login");
    }
}

#[test]
fn one_bad_line_gets_one_refusal_and_the_session_lives() {
    let long = "RETR ".to_owned() + &"9".repeat(5000);
    for bad in [
        "",
        ":",
        " ",
        "\t",
        "RETR",
        "RETR x",
        "RETR -1",
        "RETR +1",
        "RETR  1",
        "RETR 1 2",
        "RETR 0x1",
        "TOP 1",
        "TOP 1 -1",
        "TOP 1 2 3",
        "TOP 1 99999999999999999999",
        "DELE",
        "DELE 1 ",
        "LIST x",
        "UIDL \0",
        "STAT 1",
        "NOOP 1",
        "QUIT now",
        "CAPA x",
        "RSET 0",
        "LAST 1",
        "MDEF x",
        "XTND XMIT",
        "\u{e9}",
        "%n%n%s",
        &long,
        "RETR 1\rDELE 1",
    ] {
        let talk = format!("{IN}{bad}\r\nNOOP\r\n");
        let (said, closed) = converse(&mut pop3(TLS), &[talk.as_bytes()], pop3_host);
        let said = String::from_utf8(said).unwrap();
        let replies: Vec<&str> = said.split_terminator("\r\n").skip(3).collect();
        assert_eq!(replies.len(), 2, "{bad:?}: {replies:?}");
        assert!(replies[0].starts_with("-ERR"), "{bad:?}: {replies:?}");
        assert_eq!(replies[1], "+OK", "{bad:?}");
        assert!(!closed);
    }
    for none in
        ["RETR 0", "RETR 4294967295", "RETR 4294967297", "RETR 18446744073709551615", "DELE 0", "LIST 4294967297"]
    {
        let (said, _) = converse(&mut pop3(TLS), &[format!("{IN}{none}\r\n").as_bytes()], pop3_host);
        assert!(said.ends_with(b"-ERR No such message\r\n"), "{none}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn who_only_talks_nonsense_is_closed_and_who_errs_now_and_then_is_not() {
    let (said, closed) = converse(&mut pop3(TLS), &["FROB\r\n".repeat(50).as_bytes()], pop3_host);
    assert!(closed);
    assert_eq!(said.iter().filter(|&&byte| byte == b'\n').count(), 1 + 10);
    let (_, closed) = converse(&mut pop3(TLS), &["FROB\r\nNOOP\r\n".repeat(50).as_bytes()], pop3_host);
    assert!(!closed);
}

#[test]
fn an_end_of_ours_is_told_but_not_among_the_rows_of_a_list_and_not_after_the_last_word() {
    let login = b"USER ann\r\nPASS secret\r\n".as_slice();
    for (commands, told) in [(&b"NOOP\r\n"[..], true), (b"UIDL\r\n", false), (b"QUIT\r\n", false)] {
        let mut player = Player::new(crate::protocol::laws::OPEN, pop3_rules(), None);
        player.input.push(&[login, commands].concat());
        loop {
            player.run();
            match player.asked.take().as_deref() {
                Some("login ann secret") => player.machine.answer(Instant::now(), Answer::Welcome, &mut player.out),
                Some("open") => {
                    player.machine.answer(Instant::now(), Answer::Opened(Totals::default()), &mut player.out);
                }
                Some("commit") => {
                    let answer = Answer::Committed { deleted: 0 };
                    player.machine.answer(Instant::now(), answer, &mut player.out);
                    break;
                }
                _ => break,
            }
        }
        player.out.clear();
        player.machine.end(Instant::now(), End::Shutdown, &mut player.out);
        assert_eq!(!player.out.is_empty(), told, "{}", commands.escape_ascii());
    }
}

#[test]
fn a_browser_is_closed_at_once() {
    for verb in ["GET / HTTP/1.1", "POST / HTTP/1.1", "EHLO x"] {
        let talk = format!("{verb}\r\nUSER ann\r\nPASS secret\r\n");
        let (said, closed) = converse(&mut pop3(TLS), &[talk.as_bytes()], pop3_host);
        assert!(closed && said.ends_with(b"-ERR Unknown command\r\n"), "{verb}");
    }
}

#[test]
fn a_third_wrong_password_closes() {
    let (said, closed) = converse(&mut pop3(TLS), &["USER ann\r\nPASS no\r\n".repeat(5).as_bytes()], pop3_host);
    assert!(closed);
    assert_eq!(String::from_utf8(said).unwrap().matches("[AUTH]").count(), 3);
}

#[test]
fn sasl_responses_may_be_long_but_not_endless() {
    let password = "p".repeat(6000);
    let message = BASE64.encode(format!("\0ann\0{password}"));
    let mut seen = None;
    converse(&mut pop3(TLS), &[format!("AUTH PLAIN\r\n{message}\r\n").as_bytes()], |ask| {
        if let Ask::Login(login) = ask {
            seen = Some(login.password.reveal().len());
        }
        Reply::Answer(Answer::Refused(Refusal::Denied))
    });
    assert_eq!(seen, Some(6000));
    let endless = format!("AUTH PLAIN\r\n{}\r\nNOOP\r\n", "A".repeat(100_000));
    let (said, _) = converse(&mut pop3(TLS), &[endless.as_bytes()], pop3_host);
    assert!(said.ends_with(b"-ERR Line too long\r\n+OK\r\n"), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_time_to_log_in_is_not_moved_by_talking_and_the_idle_time_is() {
    let start = Instant::now();
    let rules = Rules { hide_version: false, ..pop3_rules() };
    let mut machine = Pop3::new(start, rules.into(), TLS);
    let (mut input, mut out) = (Input::default(), Output::default());
    let mut now = start;
    let mut say = |machine: &mut Pop3, now: Instant, text: &[u8]| {
        input.push(text);
        loop {
            match machine.step(now, &mut input, &mut out) {
                Want::Input => return,
                Want::Ask(ask) => match pop3_host(ask) {
                    Reply::Answer(answer) => machine.answer(now, answer, &mut out),
                    Reply::Body(..) => panic!("no message is asked for"),
                },
                _ => {}
            }
        }
    };
    for _ in 0..10 {
        now += Duration::from_secs(15);
        say(&mut machine, now, b"NOOP\r\n");
        assert_eq!(machine.deadline(), start + Duration::from_secs(180));
    }
    say(&mut machine, now, IN.as_bytes());
    assert_eq!(machine.deadline(), now + Duration::from_secs(600));
    let before = machine.deadline();
    now += Duration::from_secs(300);
    say(&mut machine, now, b"NOO");
    assert_eq!(machine.deadline(), before, "half a line is not a sign of life");
    say(&mut machine, now, b"P\r\n");
    assert_eq!(machine.deadline(), now + Duration::from_secs(600));
}
