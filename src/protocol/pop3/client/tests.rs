//! The client against scripted servers, against the server of this program, and against nonsense.

use proptest::prelude::*;

use super::*;
use crate::protocol::laws::{self, OPEN, STAMP, client_rules};

fn client() -> Client {
    Client::new(Instant::now(), Arc::new(client_rules()))
}

fn login() -> Box<Login> {
    Box::new(Login { user: b"ann".to_vec(), password: Secret::from(&b"secret"[..]) })
}

fn user() -> Command {
    Command::User(b"ann"[..].into())
}

fn pass() -> Command {
    Command::Pass(Secret::from(&b"secret"[..]))
}

/// A client with a host that gives these commands, one batch after the other, each when all before it are answered.
struct Player {
    client: Client,
    batches: VecDeque<Vec<Command>>,
    owed: usize,
    input: Input,
    out: Output,
    heard: Vec<String>,
    text: Vec<u8>,
    closed: bool,
}

impl Player {
    fn new(batches: Vec<Vec<Command>>) -> Player {
        let (input, out) = (Input::default(), Output::default());
        let (heard, text) = Default::default();
        Player { client: client(), batches: batches.into(), owed: 1, input, out, heard, text, closed: false }
    }

    /// Until it wants input, or is over; gives what it said.
    fn run(&mut self) -> Vec<u8> {
        let now = Instant::now();
        while !self.closed {
            match self.client.step(now, &mut self.input, &mut self.out) {
                Want::Input => break,
                Want::Again => {}
                Want::Data(text) => self.text.extend_from_slice(text),
                Want::Close => self.closed = true,
                Want::Ask(Ask::StartTls) => {
                    self.heard.push("TLS".into());
                    self.client.answer(now, Answer::TlsStarted, &mut self.out);
                }
                Want::Ask(Ask::Broken(trouble)) => {
                    self.heard.push(format!("{trouble:?}"));
                    self.client.answer(now, Answer::Leave, &mut self.out);
                }
                Want::Ask(Ask::Heard(command, reply)) => {
                    self.heard.push(format!("{command:?}: {reply:?}"));
                    self.owed -= 1;
                    let more = if self.owed == 0 { self.batches.pop_front() } else { Some(Vec::new()) };
                    self.owed += more.as_ref().map_or(0, Vec::len);
                    let answer = more.map_or(Answer::Leave, Answer::Say);
                    self.client.answer(now, answer, &mut self.out);
                }
            }
        }
        let said = self.out.bytes().to_vec();
        self.out.clear();
        said
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && !self.closed {
            rest = &rest[self.input.push(rest)..];
            said.extend(self.run());
        }
        said
    }

    fn last(&self) -> &str {
        self.heard.last().expect("something was heard")
    }
}

/// What a client says and hears that gives these commands and is replied this at once. The greeting has been.
fn after_greeting(commands: Vec<Command>, replies: &[u8]) -> (String, Player) {
    let mut player = Player::new(vec![commands]);
    let mut said = player.hear(b"+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n");
    said.extend(player.hear(replies));
    (String::from_utf8(said).unwrap(), player)
}

/// The server of this program, with the small world of the laws.
fn against_the_server(batches: Vec<Vec<Command>>, piece: usize) -> Player {
    let mut player = Player::new(batches);
    let mut server = laws::pop3(OPEN).with_stamp(STAMP.into());
    let (now, mut input, mut out) = (Instant::now(), Input::default(), Output::default());
    server.open(now, &mut out);
    let mut to_server: Vec<u8> = Vec::new();
    let mut idle = 0;
    while !player.closed && idle < 3 {
        idle += 1;
        for part in std::mem::take(&mut to_server).chunks(piece) {
            idle = 0;
            assert_eq!(input.push(part), part.len());
            loop {
                match server.step(now, &mut input, &mut out) {
                    Want::Input | Want::Close => break,
                    Want::Again | Want::Data(_) => {}
                    Want::Ask(ask) => match laws::pop3_host(ask) {
                        laws::Reply::Answer(answer) => server.answer(now, answer, &mut out),
                        laws::Reply::Body(begin, body, end) => {
                            server.answer(now, begin, &mut out);
                            out.push(body);
                            server.answer(now, end, &mut out);
                        }
                    },
                }
            }
        }
        for part in out.bytes().chunks(piece) {
            idle = 0;
            to_server.extend(player.hear(part));
        }
        out.clear();
    }
    player
}

fn a_session() -> Vec<Command> {
    use Command::*;
    vec![
        user(),
        pass(),
        Capa,
        Stat,
        List(None),
        List(Some(2)),
        List(Some(3)),
        Uidl(None),
        Uidl(Some(4)),
        Retr(1),
        Top(2, 1),
        Retr(9),
        Dele(1),
        Dele(3),
        Rset,
        Noop,
        Quit,
    ]
}

#[test]
fn our_client_and_our_server_understand_each_other_in_any_pieces_pipelined_or_not() {
    let whole = against_the_server(vec![a_session()], 10_000);
    assert!(whole.closed);
    let heard = whole.heard.join("\n");
    for part in [
        "None: Ready { apop: true }",
        "Some(Pass(Secret(..))): Done",
        "Some(Stat): Totals { messages: 5, octets: 500 }",
        "Some(List(None)): Text(Text { announced: None, octets: 28, wire: 31 })",
        "Some(List(Some(2))): Octets(100)",
        "Some(List(Some(3))): Refused(",
        "Some(Uidl(Some(4))): Unique(",
        // The world of the laws announces more than it sends: this is how a host sees it.
        "Some(Retr(1)): Text(Text { announced: Some(100), octets: 11, wire: 15 })",
        "Some(Retr(9)): Refused(",
        "Some(Quit): Done",
    ] {
        assert!(heard.contains(part), "{part} is missing in:\n{heard}");
    }
    let text = String::from_utf8(whole.text.clone()).unwrap();
    assert!(text.contains("UIDL\n") && text.contains("\n1 100\n2 100\n4 100\n5 100\n"), "{text}");
    assert!(text.ends_with("h: 1\n\n.\nh: 1\n\n"), "{text}");
    for piece in (1..80).chain([10_000]) {
        for batches in [vec![a_session()], Vec::from_iter(a_session().into_iter().map(|command| vec![command]))] {
            let player = against_the_server(batches, piece);
            assert_eq!(player.heard, whole.heard, "pieces of {piece}");
            assert_eq!(player.text, whole.text, "pieces of {piece}");
        }
    }
}

#[test]
fn every_way_to_log_in_is_the_servers_too() {
    let apop = against_the_server(vec![vec![Command::Apop(login()), Command::Stat]], 7);
    // The laws' world knows one digest, and it is not this one: what counts is that the server took it for one.
    assert!(apop.heard[1].contains("Refused(\"[AUTH]"), "{:?}", apop.heard);
    let plain = against_the_server(vec![vec![Command::Plain(login()), Command::Stat]], 7);
    assert_eq!(plain.heard[1], "Some(Plain(Login { user: [97, 110, 110], password: Secret(..) })): Done");
    assert_eq!(plain.last(), "Some(Stat): Totals { messages: 5, octets: 500 }");
    let tls = against_the_server(vec![vec![Command::Stls, user(), pass(), Command::Quit]], 7);
    assert_eq!(tls.heard[1..3], ["TLS", "Some(Stls): Done"]);
    assert_eq!(tls.last(), "Some(Quit): Done");
}

#[test]
fn an_apop_digest_is_that_of_the_rfc() {
    let login = Login { user: b"mrose".to_vec(), password: Secret::from(&b"tanstaaf"[..]) };
    let (said, _) = after_greeting(vec![Command::Apop(Box::new(login))], b"");
    assert_eq!(said, "APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n");
}

#[test]
fn nothing_is_said_behind_what_has_to_be_answered_first() {
    use Command::*;
    let (said, mut player) = after_greeting(vec![Noop, Stls, Capa, Quit, Noop], b"");
    assert_eq!(said, "NOOP\r\nSTLS\r\n");
    assert_eq!(player.hear(b"+OK\r\n"), b"");
    assert_eq!(player.hear(b"+OK begin\r\n"), b"CAPA\r\nQUIT\r\n");
    player.hear(b"+OK\r\nUSER\r\n.\r\n+OK\r\n");
    assert_eq!(player.last(), "Some(Quit): Done");
    assert!(player.closed);

    let (said, mut player) = after_greeting(vec![Plain(login()), Stat], b"+ \r\n");
    assert_eq!(said, "AUTH PLAIN AGFubgBzZWNyZXQ=\r\nAGFubgBzZWNyZXQ=\r\n");
    assert_eq!(player.hear(b"-ERR [AUTH] no\r\n"), b"STAT\r\n");
    let long = Login { user: vec![b'u'; 200], password: Secret::from(&b"p"[..]) };
    let message = long.message();
    let (said, _) = after_greeting(vec![Plain(Box::new(long))], b"+ \r\n");
    assert_eq!(said, format!("AUTH PLAIN\r\n{message}\r\n"));
}

#[test]
fn replies_of_one_line_are_held_to_the_grammar() {
    use Command::*;
    let id70 = "u".repeat(70);
    for (command, reply, expected) in [
        (Stat, "+OK 2 320", "Some(Stat): Totals { messages: 2, octets: 320 }"),
        (Stat, "+OK 2 320 and more", "Some(Stat): Totals { messages: 2, octets: 320 }"),
        (
            Stat,
            "+OK 4294967295 18446744073709551615",
            "Some(Stat): Totals { messages: 4294967295, octets: 18446744073709551615 }",
        ),
        (Stat, "+OK 4294967296 1", "Malformed"),
        (Stat, "+OK 2", "Malformed"),
        (Stat, "+OK", "Malformed"),
        (Stat, "+OK -1 2", "Malformed"),
        (Stat, "+OK 1  2", "Malformed"),
        (List(Some(2)), "+OK 2 200", "Some(List(Some(2))): Octets(200)"),
        (List(Some(2)), "+OK 3 200", "Malformed"),
        (List(Some(2)), "+OK 2", "Malformed"),
        (Uidl(Some(2)), "+OK 2 whqtswO00WBw418f9t5JxYwZ", "Some(Uidl(Some(2))): Unique(\"whqtswO00WBw418f9t5JxYwZ\")"),
        (Uidl(Some(2)), "+OK 1 whqtswO00WBw418f9t5JxYwZ", "Malformed"),
        (Uidl(Some(2)), "+OK 2 ", "Malformed"),
        (Uidl(Some(2)), "+OK 2 a b", "Malformed"),
        (Uidl(Some(2)), "+OK 2 \u{e4}", "Malformed"),
        (Uidl(Some(2)), &format!("+OK 2 {id70}"), &format!("Some(Uidl(Some(2))): Unique({id70:?})")),
        (Uidl(Some(2)), &format!("+OK 2 {id70}u"), "Malformed"),
        (Dele(1), "+OK", "Some(Dele(1)): Done"),
        (Dele(1), "+OKAY", "Strange"),
        (Dele(1), "+ok", "Strange"),
        (Dele(1), "", "Strange"),
        (Dele(1), "+ ", "Strange"),
        (Dele(1), "* OK IMAP4rev1", "Strange"),
        (Dele(1), "-ERR", "Some(Dele(1)): Refused(\"\")"),
        (Retr(1), "-ERR [SYS/TEMP] later", "Some(Retr(1)): Refused(\"[SYS/TEMP] later\")"),
    ] {
        let (_, player) = after_greeting(vec![command], format!("{reply}\r\n").as_bytes());
        assert_eq!(player.last(), expected, "{reply}");
        assert_eq!(player.closed, !expected.starts_with("Some") || player.owed == 0);
    }
    assert_eq!(Reply::Refused("[IN-USE] locked".into()).code(), Some("IN-USE"));
    assert_eq!(Reply::Refused("locked [IN-USE]".into()).code(), None);
}

#[test]
fn lines_of_listings_and_capabilities_are_read() {
    assert_eq!(scan(b"1 120"), Some((1, 120)));
    assert_eq!(scan(b"1 120 x"), Some((1, 120)));
    assert_eq!([scan(b"0 120"), scan(b"1"), scan(b"a 1"), scan(b"1 "), scan(b"")], [None; 5]);
    assert_eq!(unique(b"7 abc"), Some((7, "abc")));
    assert_eq!([unique(b"0 abc"), unique(b"7"), unique(b"7  abc"), unique(b"7 a\xffb"), unique(b"")], [None; 5]);
    let mut capabilities = Capabilities::default();
    capabilities.note(b"TOP\nstls\nUIDL\n");
    capabilities.note(b"SASL PLAIN LOGIN SCRAM-SHA-256\nX-OTHER\n\nPIPELINING\n");
    let expected =
        Capabilities { stls: true, user: false, plain: true, scram: true, top: true, uidl: true, pipelining: true };
    assert_eq!(capabilities, expected);
}

#[test]
fn listings_come_in_whole_lines_and_messages_as_they_arrive() {
    for (command, parts) in
        [(Command::List(None), ["", "1 120\n", "2 200\n"]), (Command::Retr(1), ["1 1", "20\n2 ", "200\n"])]
    {
        let (_, mut player) = after_greeting(vec![command], b"+OK\r\n");
        for (piece, expected) in [&b"1 1"[..], b"20\r\n2 ", b"200\r\n"].into_iter().zip(parts) {
            player.hear(piece);
            assert_eq!(std::mem::take(&mut player.text), expected.as_bytes());
        }
        player.hear(b".\r\n");
        assert_eq!(player.owed, 0);
    }
}

#[test]
fn what_is_announced_is_told_beside_what_came() {
    for (first, announced) in [("+OK 7 octets", Some(7)), ("+OK 7", None), ("+OK", None), ("+OK octets 7", None)] {
        let (_, player) = after_greeting(vec![Command::Retr(1)], format!("{first}\r\n..\r\nab\r\n.\r\n").as_bytes());
        let text = Text { announced, octets: 7, wire: 11 };
        assert_eq!(player.last(), format!("Some(Retr(1)): Text({text:?})"));
        assert_eq!(player.text, b".\nab\n");
    }
}

#[test]
fn no_text_ends_a_message_before_its_time() {
    let message = b"a\n.\nb\r.\rc\n.\r\nd\r\r\n";
    let replies = [b"+OK\r\n", &message[..], b".\r\n+OK\r\n"].concat();
    let (_, player) = after_greeting(vec![Command::Retr(1), Command::Quit], &replies);
    assert_eq!(player.text, b"a\n.\nb\r.\rc\n.\nd\r\n");
    assert_eq!(player.last(), "Some(Quit): Done");
}

#[test]
fn lines_and_replies_have_bounds() {
    let line = "x".repeat(REPLY_LIMIT - 6);
    let (_, player) = after_greeting(vec![Command::Noop], format!("+OK {line}\r\n").as_bytes());
    assert_eq!(player.last(), "Some(Noop): Done");
    let (_, player) = after_greeting(vec![Command::Noop], format!("+OK {line}x\r\n").as_bytes());
    assert_eq!(player.last(), "LongLine");
    let line = "x".repeat(REPLY_LIMIT - 2);
    let (_, player) = after_greeting(vec![Command::Capa], format!("+OK\r\n{line}\r\n.\r\n").as_bytes());
    assert!(player.last().starts_with("Some(Capa): Text("));
    for unended in ["x", "\r\n.\r\n"] {
        let (_, player) = after_greeting(vec![Command::Capa], format!("+OK\r\n{line}x{unended}").as_bytes());
        assert_eq!(player.last(), "LongLine");
    }
    for command in [Command::Retr(1), Command::Uidl(None)] {
        let (_, mut player) = after_greeting(vec![command], b"+OK\r\n");
        for _ in 0..client_rules().most {
            player.hear(b"1 abcdef\r\n");
        }
        assert_eq!(player.last(), "LongReply");
        assert!(player.closed);
    }
}

#[test]
fn what_no_line_can_hold_is_not_said() {
    let name = |text: &[u8]| Command::User(text.into());
    let long = vec![b'u'; LINE_LIMIT];
    for command in [name(b"ann\r\nDELE 1"), name(b""), name(&long), Command::Pass(Secret::from(&b"a\nb"[..]))] {
        let (said, player) = after_greeting(vec![command, Command::Quit], b"");
        assert_eq!((&said[..], player.last()), ("", "Unsayable"));
        assert!(player.closed);
    }
    let two_words = Login { user: b"ann b".to_vec(), password: Secret::default() };
    assert_eq!(after_greeting(vec![Command::Apop(Box::new(two_words))], b"").1.last(), "Unsayable");
    let mut player = Player::new(vec![vec![Command::Apop(login())]]);
    assert_eq!(player.hear(b"+OK no stamp here\r\n"), b"");
    assert_eq!(player.heard, ["None: Ready { apop: false }", "NoStamp"]);
}

#[test]
fn a_refused_greeting_is_the_end_and_what_was_not_asked_for_is_strange() {
    let mut player = Player::new(vec![vec![Command::Stat]]);
    assert_eq!(player.hear(b"-ERR [SYS/TEMP] go away\r\n"), b"");
    assert_eq!(player.heard, ["None: Refused(\"[SYS/TEMP] go away\")"]);
    assert!(player.closed);

    // Replies that are there before the command could be said.
    let (mut client, now) = (client(), Instant::now());
    let (mut input, mut out) = (Input::default(), Output::default());
    input.push(b"+OK\r\n+OK\r\n");
    out.push(&[b'x'; SAID_MOST]);
    while !matches!(client.step(now, &mut input, &mut out), Want::Ask(Ask::Heard(..))) {}
    client.answer(now, Answer::Say(vec![Command::Noop]), &mut out);
    while match client.step(now, &mut input, &mut out) {
        Want::Ask(ask) => {
            assert_eq!(ask, Ask::Broken(Trouble::Strange));
            false
        }
        _ => true,
    } {}
}

#[test]
fn many_commands_leave_in_parts_and_none_is_lost() {
    let (said, mut player) = after_greeting((1..=3000).map(Command::Dele).collect(), b"");
    let mut said = said.into_bytes();
    while player.owed > 0 {
        said.extend(player.hear(b"+OK\r\n"));
    }
    let expected: String = (1..=3000).map(|number| format!("DELE {number}\r\n")).collect();
    assert_eq!(String::from_utf8(said).unwrap(), expected);
}

#[test]
fn each_step_has_its_patience() {
    let rules = client_rules();
    let (now, mut input, mut out) = (Instant::now(), Input::default(), Output::default());
    let mut client = Client::new(now, Arc::new(rules.clone()));
    assert_eq!(client.deadline(), now + rules.greeting);
    let mut later = now;
    for (commands, reply, patience) in [
        (vec![user()], &b"+OK\r\n"[..], rules.reply),
        (vec![pass()], b"+OK\r\n", rules.login),
        (vec![Command::Retr(1)], b"+OK\r\n\r\n.\r\n", rules.reply),
        (vec![Command::Quit], b"+OK\r\n", rules.quit),
    ] {
        if client.owed() == 1 && client.next().is_none() {
            input.push(b"+OK\r\n");
        }
        while !matches!(client.step(later, &mut input, &mut out), Want::Ask(Ask::Heard(..))) {}
        later += Duration::from_secs(1);
        client.answer(later, Answer::Say(commands), &mut out);
        assert_eq!(client.deadline(), later + patience);
        // A byte is no unit: it buys no time.
        input.push(&reply[..1]);
        let before = client.deadline();
        assert!(matches!(client.step(later + Duration::from_secs(1), &mut input, &mut out), Want::Input));
        assert_eq!(client.deadline(), before);
        input.push(&reply[1..]);
        if reply.len() > 5 {
            assert!(matches!(client.step(later, &mut input, &mut out), Want::Again));
            assert_eq!(client.deadline(), later + rules.text);
        }
    }
}

#[test]
fn an_idle_client_is_small() {
    let (client, command) = (size_of::<Client>(), size_of::<Command>());
    let (ask, answer) = (size_of::<Ask>(), size_of::<Answer>());
    println!("an idle POP3 client: {client} bytes; a command {command}, an ask {ask}, an answer {answer}");
    assert!(client <= 128, "{client} bytes");
    assert!(command <= 24 && ask <= 64 && answer <= 24, "{command} {ask} {answer}");
    // And nothing on the heap but who it is for: no queue, no stamp.
    let (_, mut player) = after_greeting(vec![user(), pass()], b"+OK\r\n+OK\r\n");
    assert_eq!(player.client.queue.capacity(), 0);
    assert_eq!(player.client.stamp, None);
    player.batches.clear();
}

/// Dots undone as a reader of RFC 1939 would do it, line by line.
fn naive(wire: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(wire.to_vec()).unwrap();
    let mut found = String::new();
    for line in text.split("\r\n") {
        if line == "." {
            return found.into_bytes();
        }
        found += line.strip_prefix('.').unwrap_or(line);
        found += "\n";
    }
    panic!("there was no end");
}

proptest! {
    #[test]
    fn long_replies_are_undotted_as_line_by_line_whatever_the_pieces(
        lines in proptest::collection::vec("[.]{0,2}[a-z.\r\n]{0,9}", 0..30), size in 1usize..50
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let stuffed: String = text.split_inclusive("\r\n")
            .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() }).collect();
        let wire = format!("{stuffed}.\r\n");
        for command in [Command::Retr(1), Command::List(None)] {
            let mut player = Player::new(vec![vec![command]]);
            player.hear(b"+OK\r\n+OK\r\n");
            for part in wire.as_bytes().chunks(size) {
                player.hear(part);
            }
            prop_assert_eq!(&player.text, &naive(wire.as_bytes()));
            let counted = format!("octets: {}, wire: {} }})", text.len(), wire.len());
            prop_assert!(player.last().ends_with(&counted), "{} is not {counted}", player.last());
        }
    }
}
