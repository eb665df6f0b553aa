//! Conversation scripts (`scripts/*.chat`, read as `protocol/tests/script.rs` says), and what they cannot say.
//!
//! A conversation begins with `= mx`, `= submission` or `= lmtp`; further words: `tls` (it is on), `plain` (AUTH in clear),
//! `closed` (no TLS to be had), `scram`, `known` (a program of this host), `etrn` (it may be said), `quiet` (AUTH is hidden), `hold`, `strict` (lone line ends are refused), `version`, `errors N`, `idle N`.

use proptest::prelude::*;

use super::*;
use crate::mail::address::Address;
use crate::protocol::laws::{Reply as Answered, SMTP_OPEN, converse, converse_and_keep, smtp, smtp_host, smtp_rules};
use crate::protocol::sasl::scram::tests::{NONCE, pencil};
use crate::protocol::tests::script::{Actor, play_all};

impl Actor for Smtp {
    fn begin(at: &str, words: &[&str]) -> Smtp {
        let (face, words) = words.split_first().unwrap_or_else(|| panic!("{at}: which face?"));
        let face = match *face {
            "mx" => Face::Mx,
            "submission" => Face::Submission,
            "lmtp" => Face::Lmtp,
            other => panic!("{at}: no face {other}"),
        };
        let mut link = Link { tls: false, can_tls: true, plain_ok: false, scram: false, known: false, etrn: false };
        let mut rules = smtp_rules();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number =
                || words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{at}: a number"));
            match *word {
                "tls" => link.tls = true,
                "plain" => link.plain_ok = true,
                "closed" => link.can_tls = false,
                "scram" => link.scram = true,
                "known" => link.known = true,
                "etrn" => link.etrn = true,
                "quiet" => rules.hide_auth = true,
                "hold" => rules.hold = Duration::from_secs(6),
                "strict" => rules.bare_newline = Bare::Reject,
                "version" => rules.hide_version = false,
                "errors" => rules.max_errors = number(),
                "idle" => rules.max_idle = number(),
                other => panic!("{at}: neither link nor rule {other}"),
            }
        }
        Smtp::new(Instant::now(), Arc::new(rules), face, link)
    }

    fn question(ask: &Ask) -> String {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match ask {
            Ask::Hold(time) => format!("hold {}", time.as_secs()),
            Ask::StartTls => "tls".into(),
            Ask::Login(login) => format!("login {} {}", show(&login.user), show(login.password.reveal())),
            Ask::Verifier(user) => format!("verifier {}", show(user)),
            Ask::Proof(good) => format!("proof {good}"),
            Ask::Hello(hello) => format!("hello {}{}", hello.name, if hello.extended { "" } else { " (plain)" }),
            Ask::Sender(sender) => {
                let path = sender.path.as_ref().map_or("nobody".into(), Address::to_string);
                let size = sender.size.map_or(String::new(), |size| format!(" size {size}"));
                let utf8 = if sender.utf8 { " utf8" } else { "" };
                format!("sender {path}{size}{utf8}")
            }
            Ask::Recipient(recipient) => format!("recipient {}", recipient.path),
            Ask::Etrn(node) => format!("etrn {}{}", if node.below { "@" } else { "" }, node.domain),
            Ask::Reset => "reset".into(),
            Ask::Begin => "begin".into(),
            Ask::Commit(tally) => format!("commit {} bytes, {} hops, {} bare", tally.bytes, tally.hops, tally.bare),
        }
    }

    /// `go`, `denied`, `spoke`, `failed`, `verifier`; `CODE SUBJECT DETAIL TEXT` is a reply; `each` and several of those with
    /// ` / ` between them.
    fn answer(text: &str) -> Answer {
        let reply = |text: &str| {
            let mut words = text.splitn(4, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("three numbers");
            let (code, subject, detail) = (number(), number(), number());
            Reply::new(code, subject, detail, words.next().expect("a text").to_owned())
        };
        match text {
            "go" => Answer::Go,
            "denied" => Answer::Denied,
            "spoke" => Answer::Spoke,
            "failed" => Answer::Failed,
            // RFC 7677's: of the password `pencil`.
            "verifier" => Answer::Verifier(Box::new((pencil(), NONCE.into()))),
            _ => match text.strip_prefix("each ") {
                Some(all) => Answer::Each(all.split(" / ").map(reply).collect()),
                None => Answer::Reply(Box::new(reply(text))),
            },
        }
    }
}

#[test]
fn conversations_go_as_their_scripts_say() {
    assert!(play_all::<Smtp>("src/protocol/smtp/scripts") >= 10);
}

fn said(face: Face, talk: &str) -> Vec<String> {
    let (said, _) = converse(&mut smtp(face), &[talk.as_bytes()], smtp_host);
    String::from_utf8(said).unwrap().split_terminator("\r\n").map(str::to_owned).collect()
}

const HELLO: &str = "EHLO x\r\n";
const MAIL: &str = "EHLO x\r\nMAIL FROM:<a@b>\r\n";
const RCPT: &str = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ann@x>\r\n";

/// The table of the module's page, as data: what may be said in which stage.
#[test]
fn every_verb_works_in_its_stages_and_nowhere_else() {
    let always =
        ["EHLO x", "HELO x", "RSET", "NOOP", "NOOP x", "VRFY ann", "HELP", "HELP x", "STARTTLS", "QUIT", "QUIT \t"];
    /// What was said before, what may be said then, what may not and its code.
    type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);
    let stages: [Row; 4] = [
        ("", &[], &[("MAIL FROM:<a@b>", "503"), ("RCPT TO:<ann@x>", "503"), ("DATA", "503"), ("AUTH PLAIN", "503")]),
        (HELLO, &["MAIL FROM:<a@b>"], &[("RCPT TO:<ann@x>", "503"), ("DATA", "503")]),
        (MAIL, &["RCPT TO:<ann@x>"], &[("MAIL FROM:<a@b>", "503"), ("DATA", "554"), ("AUTH PLAIN", "503")]),
        (RCPT, &["RCPT TO:<ann@x>", "DATA"], &[("MAIL FROM:<a@b>", "503"), ("AUTH PLAIN", "503")]),
    ];
    for (before, there, not) in stages {
        let lines = said(Face::Mx, before).len();
        let begins = |verb: &str| said(Face::Mx, &format!("{before}{verb}\r\n"))[lines][..3].to_owned();
        for verb in always.iter().chain(there) {
            assert!(matches!(&begins(verb)[..1], "2" | "3"), "{verb} after {before:?}: {}", begins(verb));
        }
        for (verb, code) in not {
            assert_eq!(begins(verb), *code, "{verb} after {before:?}");
        }
        for (verb, code) in [("EXPN x", "502"), ("LHLO x", "500"), ("FROB", "500"), ("BDAT 3 LAST", "502")] {
            assert_eq!(begins(verb), code, "{verb} after {before:?}");
        }
    }
    assert_eq!(said(Face::Lmtp, "EHLO x\r\nHELO x\r\nLHLO x\r\n")[1..3], ["500 5.5.1 Unknown command"; 2]);
}

#[test]
fn one_bad_line_gets_one_reply_with_an_enhanced_code_and_the_session_lives() {
    let long = "MAIL FROM:<".to_owned() + &"a".repeat(5000);
    for bad in [
        "",
        " ",
        "\t",
        ":",
        " NOOP",
        "NOOP\r",
        "MAIL",
        "MAIL FROM",
        "MAIL FROM:",
        "MAIL FROM:a@b",
        "MAIL FROM:<a@b",
        "MAIL FROM:<a@b>>",
        "MAIL FROM:<a@b> FROB=1",
        "MAIL FROM:<a@b> SIZE=5001",
        "MAIL TO:<a@b>",
        "MAIL\tFROM:<a@b>",
        "MAIL FROM:<a\0@b>",
        "MAIL FROM:<a@b>\rRCPT TO:<ann@x>",
        "MAIL FROM:<;id>x@b>",
        "MAIL FROM:<\u{e9}@b>",
        "EHLO",
        "EHLO a b",
        "EHLO \u{e9}",
        "EHLO a;b",
        "HELO ${run{x}}",
        "RSET x",
        "QUIT now",
        "VRFY",
        "AUTH",
        "DATA x",
        "ETRN x",
        "TURN",
        "\u{16}\u{3}\u{1}",
        "%n%n%s",
        &long,
    ] {
        let replies = said(Face::Submission, &format!("EHLO x\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n{bad}\r\nNOOP\r\n"));
        let replies = &replies[replies.iter().position(|line| line.starts_with("235")).unwrap() + 1..];
        assert_eq!(replies.len(), 2, "{bad:?}: {replies:?}");
        assert!(replies[0].starts_with('5') && replies[0][4..].starts_with("5."), "{bad:?}: {replies:?}");
        assert_eq!(replies[1], "250 2.0.0 Ok", "{bad:?}");
    }
}

#[test]
fn foreign_verbs_and_pieces_of_messages_are_not_run_as_commands() {
    for verb in ["GET / HTTP/1.1", "POST / HTTP/1.1", "PRI * HTTP/2.0", "BDAT 20 LAST"] {
        let talk = format!("EHLO x\r\n{verb}\r\nNOOP\r\nNOOP\r\n");
        let (said, closed) = converse(&mut smtp(Face::Mx), &[talk.as_bytes()], smtp_host);
        assert!(closed && said.ends_with(b"closing\r\n"), "{verb}: {}", String::from_utf8_lossy(&said));
    }
}

/// security.md M-01 and M-02: whatever other servers take for the end of a message, at every cut: one message, and the
/// envelope within it never exists.
#[test]
fn nothing_but_crlf_dot_crlf_ends_a_message() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\r\n.\r\r\n",
        "\r\n .\r\n",
        "\n\r.\n\r",
        "\r\n.\n\r\n",
        "\r\n..\r\n",
        "\r.\n",
        "\n.\r",
    ] {
        let talk = format!(
            "{RCPT}DATA\r\ntext{end}MAIL FROM:<smuggled@b>\r\nRCPT TO:<bob@x>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n"
        );
        for (bare, strict) in [(Bare::Normalize, false), (Bare::Reject, true)] {
            let rules = Arc::new(Rules { bare_newline: bare, ..smtp_rules() });
            let play = |parts: &[&[u8]]| {
                let (mut senders, mut commits, mut text) = (0, 0, Vec::new());
                let mut machine = Smtp::new(Instant::now(), Arc::clone(&rules), Face::Mx, SMTP_OPEN);
                let (said, closed) = converse_and_keep(
                    &mut machine,
                    parts,
                    |ask| {
                        senders += u32::from(matches!(ask, Ask::Sender(_)));
                        commits += u32::from(matches!(ask, Ask::Commit(_)));
                        Answered::Answer(Answer::Go)
                    },
                    &mut text,
                );
                // How much of a refused message was handed on before depends on the cuts, and matters to nobody.
                text.truncate(if commits == 0 { 0 } else { text.len() });
                (senders, commits, String::from_utf8(text).unwrap(), String::from_utf8(said).unwrap(), closed)
            };
            let whole = play(&[talk.as_bytes()]);
            let (senders, commits, text, said, closed) = &whole;
            assert_eq!(*senders, 1, "{end:?}: {said}");
            assert!(!text.contains(['\r', '\0']), "{end:?}");
            let mends = !matches!(end, "\r\n .\r\n" | "\r\n..\r\n");
            if strict && mends {
                assert_eq!(*commits, 0, "{end:?}: {said}");
                let fault = if end.contains('\0') { "550 5.6.0" } else { "550 5.5.2" };
                assert!(said.lines().last().unwrap().starts_with(fault) && *closed, "{end:?}: {said}");
            } else {
                assert_eq!(*commits, 1, "{end:?}: {said}");
                assert!(text.contains("MAIL FROM:<smuggled@b>\n") && text.ends_with("evil\n"), "{end:?}: {text:?}");
                assert!(said.ends_with("250 2.0.0 Accepted\r\n221 2.0.0 Bye\r\n"), "{end:?}: {said}");
            }
            for cut in 0..=talk.len() {
                let (first, second) = talk.as_bytes().split_at(cut);
                assert_eq!(play(&[first, second]), whole, "{end:?} cut at {cut}");
            }
            assert_eq!(play(&talk.as_bytes().chunks(1).collect::<Vec<_>>()), whole, "{end:?} byte by byte");
        }
    }
}

/// Every bound of a message: at it, all is well; one past it, the message is read to its end, handed on no further,
/// refused there, and the client is still in step.
#[test]
fn every_bound_of_a_message_has_its_answer_at_every_cut() {
    let hops = |count: usize| "Received: x\r\n".repeat(count);
    let lines = |count: usize| "A: b\r\n".repeat(count);
    let line = |length: usize| format!("\r\n{}\r\n", "x".repeat(length));
    let header = |bytes: usize| format!("A:{}\r\n{}\r\n", "x".repeat(500), "x".repeat(bytes - 504));
    let size = |octets: usize| format!("\r\n{}{}\r\n", "12345678\r\n".repeat(490), "x".repeat(octets - 4904));
    for (good, bad, refusal) in [
        (hops(4), hops(5), "554 5.4.6"),
        (lines(20), lines(21), "552 5.6.0"),
        (header(1000), header(1001), "552 5.6.0"),
        (line(998), line(999), "550 5.6.0"),
        (size(5000), size(5001), "552 5.3.4"),
        (size(5000), size(5001) + &"x\r\n".repeat(2000), "552 5.3.4"),
    ] {
        for (text, refusal) in [(&good, None), (&bad, Some(refusal))] {
            let talk = format!("{RCPT}DATA\r\n{text}.\r\nNOOP\r\n");
            let play = |size: usize| {
                let (mut asks, mut kept) = (Vec::new(), Vec::new());
                let parts: Vec<&[u8]> = talk.as_bytes().chunks(size).collect();
                let host = |ask| {
                    asks.push(Smtp::question(&ask));
                    smtp_host(ask)
                };
                let (said, closed) = converse_and_keep(&mut smtp(Face::Mx), &parts, host, &mut kept);
                assert!(!closed && kept.len() <= 5000);
                let said = String::from_utf8(said).unwrap();
                let last: Vec<String> = said.lines().rev().take(2).map(str::to_owned).collect();
                let [noop, reply] = &last[..] else { panic!("{said}") };
                assert_eq!(noop, "250 2.0.0 Ok");
                match refusal {
                    None => {
                        assert_eq!(reply, "250 2.0.0 Accepted");
                        assert_eq!(kept, text.replace("\r\n", "\n").as_bytes());
                    }
                    Some(refusal) => {
                        assert!(reply.starts_with(refusal), "{reply}, not {refusal}");
                        assert_eq!(asks.last().unwrap(), "reset");
                        assert_eq!(asks.iter().filter(|ask| *ask == "reset").count(), 1, "told once");
                    }
                }
                said
            };
            let whole = play(usize::MAX);
            for size in [1, 2, 3, 7, 100, 1001] {
                assert_eq!(play(size), whole, "in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_message_that_does_not_end_is_answered_at_its_bound_and_closed_there() {
    let bound = 2 * 5_000 + 2_000;
    for flood in ["x\r\n".repeat(20_000), "\0".repeat(50_000), "x".repeat(50_000), ".".repeat(50_000)] {
        let talk = format!("{RCPT}DATA\r\n{flood}");
        let before = talk.len() - flood.len();
        let mut refused_at = Vec::new();
        for size in [1, 13, 4096, usize::MAX] {
            let mut fed = 0;
            let mut machine = smtp(Face::Mx);
            let parts: Vec<&[u8]> = talk.as_bytes().chunks(size).collect();
            let (said, closed) = converse(&mut machine, &parts, smtp_host);
            assert!(closed && said.ends_with(b"552 5.3.4 The message is too big\r\n"));
            // Fed byte by byte, it is closed where the bound is, give or take what cannot be judged yet.
            let (mut machine, mut input, mut out) = (smtp(Face::Mx), Input::default(), Output::default());
            loop {
                match machine.step(Instant::now(), &mut input, &mut out) {
                    Want::Close => break,
                    Want::Input => {
                        input.push(&talk.as_bytes()[fed..fed + 1]);
                        fed += 1;
                    }
                    Want::Ask(ask) => match smtp_host(ask) {
                        Answered::Answer(answer) => machine.answer(Instant::now(), answer, &mut out),
                        Answered::Body(..) => unreachable!(),
                    },
                    Want::Again | Want::Data(_) => {}
                }
                out.clear();
            }
            refused_at.push(said.len());
            assert!(fed - before <= bound + 4, "{} of {bound}", fed - before);
        }
        assert!(refused_at.iter().all(|length| *length == refused_at[0]));
    }
}

#[test]
fn recipients_have_a_bound_and_lmtp_answers_for_each() {
    let talk = format!("{RCPT}{}DATA\r\n.\r\n", "RCPT TO:<bob@x>\r\n".repeat(4));
    let lines = said(Face::Mx, &talk);
    let codes: Vec<&str> = lines.iter().rev().take(7).rev().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "452", "452", "354", "250"]);
    // More replies than one step writes.
    let rules = Rules { recipients: 1000, ..smtp_rules() };
    let mut machine = Smtp::new(Instant::now(), Arc::new(rules), Face::Lmtp, SMTP_OPEN);
    let talk = format!("LHLO x\r\nMAIL FROM:<>\r\n{}DATA\r\n.\r\nNOOP\r\n", "RCPT TO:<bob@x>\r\n".repeat(1000));
    let (said, _) = converse(&mut machine, &[talk.as_bytes()], |ask| match ask {
        Ask::Commit(_) => {
            let reply = |number| Reply::new(250, 0, 0, format!("number {number} {}", "x".repeat(TEXT)));
            Answered::Answer(Answer::Each((0..999).map(reply).collect()))
        }
        _ => Answered::Answer(Answer::Go),
    });
    const TEXT: usize = 300;
    let said = String::from_utf8(said).unwrap();
    let after: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("354")).skip(1).collect();
    assert_eq!(after.len(), 1001);
    assert!((0..999).all(|number| after[number].starts_with(&format!("250 2.0.0 number {number} "))));
    assert_eq!(after[999..], ["451 4.3.0 Not possible just now; try again later", "250 2.0.0 Ok"]);
}

#[test]
fn who_only_errs_or_idles_is_closed_and_who_sends_mail_in_between_is_not() {
    let message = "MAIL FROM:<>\r\nRCPT TO:<ann@x>\r\nDATA\r\n.\r\n";
    for (line, bound) in [("FROB\r\n", 5), ("RCPT TO:<no@x>\r\n", 10), ("NOOP\r\n", 19), ("DATA\r\n", 10)] {
        let (said, closed) =
            converse(&mut smtp(Face::Mx), &[format!("{HELLO}{}", line.repeat(50)).as_bytes()], smtp_host);
        let said = String::from_utf8(said).unwrap();
        assert!(closed && said.ends_with("421 4.7.0 Too many errors; closing\r\n"), "{line:?}");
        let replies = said.lines().filter(|line| !line.starts_with("250-")).count();
        assert_eq!(replies, 1 + 1 + bound + 1, "{line:?}");
        let now_and_then = format!("{HELLO}{}", format!("{line}{message}").repeat(30));
        let (_, closed) = converse(&mut smtp(Face::Mx), &[now_and_then.as_bytes()], smtp_host);
        assert_eq!(closed, line == "FROB\r\n", "{line:?}");
    }
}

#[test]
fn a_third_wrong_password_closes_and_all_refusals_say_the_same() {
    let talk = format!("{HELLO}{}", "AUTH PLAIN AGFubgB4\r\n".repeat(5));
    let lines = said(Face::Submission, &talk);
    let last: Vec<&str> = lines.iter().rev().take(4).map(String::as_str).collect();
    let denied = "535 5.7.8 Name or password is wrong";
    assert_eq!(last, ["421 4.7.0 Too many wrong passwords; closing", denied, denied, denied]);
}

#[test]
fn responses_may_be_long_but_not_endless() {
    let mut seen = None;
    let message = base64_of(&format!("\0ann\0{}", "p".repeat(6000)));
    let talk = format!("{HELLO}AUTH PLAIN\r\n{message}\r\n");
    converse(&mut smtp(Face::Submission), &[talk.as_bytes()], |ask| {
        if let Ask::Login(login) = &ask {
            seen = Some(login.password.reveal().len());
        }
        smtp_host(ask)
    });
    assert_eq!(seen, Some(6000));
    let lines = said(Face::Submission, &format!("{HELLO}AUTH PLAIN\r\n{}\r\nNOOP\r\n", "A".repeat(100_000)));
    assert_eq!(lines[lines.len() - 2..], ["500 5.5.6 Response too long", "250 2.0.0 Ok"]);
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What a driver does with input until more is wanted.
fn feed(machine: &mut Smtp, now: Instant, text: &[u8]) {
    let (mut input, mut out) = (Input::default(), Output::default());
    input.push(text);
    loop {
        match machine.step(now, &mut input, &mut out) {
            Want::Input => return,
            Want::Ask(ask) => match smtp_host(ask) {
                Answered::Answer(answer) => machine.answer(now, answer, &mut out),
                Answered::Body(..) => unreachable!("SMTP sends no bodies"),
            },
            _ => {}
        }
    }
}

#[test]
fn whole_commands_and_blocks_of_text_move_the_deadline_and_pieces_of_them_do_not() {
    let start = Instant::now();
    let rules = Rules { greeting: Duration::from_secs(10), size: None, ..smtp_rules() };
    let (command, data) = (rules.command, rules.data);
    let mut machine = Smtp::new(start, Arc::new(rules), Face::Mx, SMTP_OPEN);
    assert_eq!(machine.deadline(), start + Duration::from_secs(10));
    assert!(!machine.is_engaged());
    let later = |secs| start + Duration::from_secs(secs);
    feed(&mut machine, later(1), RCPT.as_bytes());
    assert_eq!(machine.deadline(), later(1) + command);
    assert!(machine.is_engaged());
    feed(&mut machine, later(2), b"DATA\r\n\r\n");
    assert_eq!(machine.deadline(), later(2) + data);
    for _ in 0..BLOCK / 16 - 1 {
        feed(&mut machine, later(3), b"fourteen chars\r\n");
    }
    assert_eq!(machine.deadline(), later(2) + data, "less than a block is no sign of life");
    feed(&mut machine, later(4), b"fourteen chars\r\n");
    assert_eq!(machine.deadline(), later(4) + data);
    let (mut input, mut out) = (Input::default(), Output::default());
    input.push(b".\r\n");
    assert!(matches!(machine.step(later(5), &mut input, &mut out), Want::Again));
    assert!(matches!(machine.step(later(5), &mut input, &mut out), Want::Ask(Ask::Commit(_))));
    assert_eq!(machine.deadline(), later(5) + Duration::from_secs(600));
    machine.answer(later(6), Answer::Go, &mut out);
    assert_eq!(machine.deadline(), later(6) + command);
}

#[test]
fn an_end_of_ours_is_not_told_where_the_message_may_yet_be_kept() {
    for (talk, told) in [("", true), (RCPT, true), ("DATA\r\nx", true), ("DATA\r\n.\r\n", false), ("QUIT\r\n", false)] {
        let talk = if talk.starts_with("DATA") { format!("{RCPT}{talk}") } else { talk.to_owned() };
        let (mut machine, mut input, mut out) = (smtp(Face::Mx), Input::default(), Output::default());
        input.push(talk.as_bytes());
        loop {
            match machine.step(Instant::now(), &mut input, &mut out) {
                Want::Ask(Ask::Commit(_)) | Want::Input | Want::Close => break,
                Want::Ask(_) => machine.answer(Instant::now(), Answer::Go, &mut out),
                Want::Again | Want::Data(_) => {}
            }
        }
        out.clear();
        machine.end(Instant::now(), End::Shutdown, &mut out);
        assert_eq!(out.bytes().starts_with(b"421 4.3.2 "), told, "{talk:?}");
    }
}

#[test]
fn an_idle_machine_is_small_and_one_that_takes_a_message_not_much_bigger() {
    let (machine, taking) = (size_of::<Smtp>(), size_of::<Taking>());
    println!("an idle SMTP machine: {machine} bytes; while a message is taken {taking} more");
    assert!(machine <= 128, "{machine} bytes");
    assert!(taking <= 160, "{taking} bytes");
    assert!(size_of::<Ask>() <= 80 && size_of::<Answer>() <= 32, "{} {}", size_of::<Ask>(), size_of::<Answer>());
}

proptest! {
    /// Whatever stands in a message: it arrives as the decoder alone would have it, and nothing of it is run.
    #[test]
    fn a_message_is_handed_on_whole_whatever_stands_in_it(
        lines in proptest::collection::vec("[.]{0,3}[a-z .\r\n\0]{0,12}", 0..20), size in 1usize..40
    ) {
        let body: String = lines.iter().map(|line| format!(".{line}\r\n")).collect();
        // A dot that stands before every line is no text, and no line is the end.
        let body = body.replace("\r\n.\r\n", "\r\n..\r\n");
        let body = body.strip_prefix(".\r\n").map_or(body.clone(), |rest| format!("..\r\n{rest}"));
        let talk = format!("{RCPT}DATA\r\n{body}.\r\nNOOP\r\n");
        let mut kept = Vec::new();
        let parts: Vec<&[u8]> = talk.as_bytes().chunks(size).collect();
        let (said, _) = converse_and_keep(&mut smtp(Face::Mx), &parts, smtp_host, &mut kept);
        let said = String::from_utf8(said).unwrap();
        let mut wire = format!("{body}.\r\n").into_bytes();
        let decoded = DotDecoder::new(Bare::Normalize).decode(&mut wire);
        prop_assert_eq!(decoded.stop, Some(Stop::End));
        prop_assume!(decoded.taken == wire.len());
        if said.contains("250 2.0.0 Accepted") {
            prop_assert_eq!(&kept, &wire[..decoded.kept]);
        }
        prop_assert!(said.ends_with("\r\n250 2.0.0 Ok\r\n"), "{}", said);
    }
}
