use std::fs;

use super::*;

/// An authenticator over a folder of its own.
struct Desk {
    dir: tempfile::TempDir,
    nwauth: Nwauth,
}

impl Desk {
    fn new() -> Desk {
        Desk::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options { path: dir.path().to_owned(), ..Options::default() };
        change(&mut options);
        Desk { dir, nwauth: Nwauth::new(options) }
    }

    fn holds(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// The replies to these requests.
    fn say(&mut self, requests: &[u8]) -> String {
        let mut output = Vec::new();
        self.nwauth.serve(requests, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn once(&mut self, words: &[&str], input: &str) -> (bool, String) {
        let words = words.iter().map(|word| Secret::from(word.as_bytes())).collect();
        let mut output = Vec::new();
        let good = self.nwauth.once(words, input.as_bytes(), &mut output).unwrap();
        (good, String::from_utf8(output).unwrap())
    }

    /// How many hashes these requests cost, and the replies.
    fn cost(&mut self, requests: &str) -> (u64, String) {
        self.nwauth.crypt().unwrap();
        let before = self.nwauth.crypt.as_ref().unwrap().calls();
        let replies = self.say(requests.as_bytes());
        (self.nwauth.crypt.as_ref().unwrap().calls() - before, replies)
    }
}

/// `rasmuslerdorf`, cheaply.
const HASH: &str = "$1$rasmusle$rISCgZzpwk3UhDidwXvin0";

#[test]
fn the_sample_session_of_the_manual_comes_out() {
    let mut desk = Desk::new();
    let replies = desk.say(
        b"set bob@test.com bob\nlookup bob@test.com\ncheck bob@test.com bob 10.0.0.1\ncheck BOB@test.com bob\n\
          check bob@test.com wrong\nlookup ann@test.com\ncheck ann@test.com bob\nexit\nlookup bob@test.com\n",
    );
    assert_eq!(
        replies.lines().collect::<Vec<_>>(),
        [
            "+OK bob@test.com added",
            "+OK bob@test.com config 0",
            "+OK bob@test.com config 0",
            "+OK bob@test.com config 0",
            WRONG,
            NO_SUCH_USER,
            WRONG,
            "+OK goodbye",
        ]
    );
    let text = fs::read_to_string(desk.dir.path().join("nwauth.add")).unwrap();
    assert!(text.starts_with("bob@test.com:$y$") || text.starts_with("bob@test.com:$6$"), "{text}");
}

#[test]
fn set_keeps_what_it_is_not_told_to_change() {
    let mut desk = Desk::new();
    for (request, reply) in [
        ("set fred (NULL)", NO_SUCH_USER),
        ("set fred pw fullname=\"Fred B. Loggs\" fwd=\"|prog:x\" path=\"/m/fred\" uid=\"8\"", "+OK fred added"),
        ("lookup fred", "+OK fred /m/fred 8 fullname=\"Fred B. Loggs\" fwd=\"|prog:x\""),
        ("set FRED (NULL) Fwd=\"ann@x\" quota=\"1m\"", "+OK fred changed"),
        ("lookup fred", "+OK fred /m/fred 8 fullname=\"Fred B. Loggs\" fwd=\"ann@x\" quota=\"1m\""),
        ("check fred pw", "+OK fred /m/fred 8 fullname=\"Fred B. Loggs\" fwd=\"ann@x\" quota=\"1m\""),
        ("set fred new", "+OK fred changed"),
        ("check fred pw", WRONG),
        ("set fred NULL path=\"config\" uid=\"\" fullname=\"\" quota=\"\"", "+OK fred changed"),
        ("check fred new", "+OK fred config 0 fwd=\"ann@x\""),
        ("set fred NULL fwd", "-ERR a pair is LABEL=\"VALUE\", without quotes inside"),
        ("set fred NULL a b=\"", "-ERR a pair is LABEL=\"VALUE\", without quotes inside"),
        ("set fred NULL =\"x\"", "-ERR a pair is LABEL=\"VALUE\", without quotes inside"),
        ("set fred NULL path=\"m/fred\"", "-ERR path is config, or begins with / and has no blanks"),
        ("set fred NULL uid=\"a b\"", "-ERR uid is a number or a user name"),
        ("del Fred", "+OK Fred deleted"),
        ("del fred", NO_SUCH_USER),
        ("check fred new", WRONG),
    ] {
        assert_eq!(desk.say(format!("{request}\n").as_bytes()), format!("{reply}\n"), "{request}");
    }
}

#[test]
fn a_failed_check_costs_and_says_the_same_for_whatever_was_wrong() {
    let mut desk = Desk::new();
    let bcrypt = "$2b$04$usesomesillystringfore2uDLvp1Ii2e./U9C8sBjqp8I90dH6hi";
    desk.holds("nwauth.txt", &format!("ann:{HASH}\nbad:$99$x\nbob:{HASH}\nlocked:!{bcrypt}\nno:\nzoe:{bcrypt}\n"));
    for user in ["ann", "aaa", "ann@x", "bad", "bob", "locked", "no", "x", "zoe", "zzz", "a/b", "..", "-ann", "a:b"] {
        let (cost, reply) = desk.cost(&format!("check {user} wrong 10.0.0.1\n"));
        assert_eq!((cost, reply), (1, format!("{WRONG}\n")), "{user}");
    }
    assert_eq!(desk.cost("check ann rasmuslerdorf\n"), (1, "+OK ann config 0\n".to_owned()));
    // An unknown name beside users of one kind costs that kind.
    let setting = |desk: &mut Desk, name: &str| desk.nwauth.users.find(name.as_bytes()).unwrap().neighbour.unwrap();
    assert!(setting(&mut desk, "boc").reveal().starts_with(b"!$2b$"));
    assert!(setting(&mut desk, "an").matches(HASH.as_bytes()));
    let bare = desk.nwauth.stand_in(format!("!{bcrypt}").as_bytes()).unwrap();
    assert_eq!(bare, bcrypt.as_bytes());
}

#[test]
fn an_empty_user_file_costs_a_hash_too() {
    let mut desk = Desk::new();
    desk.holds("nwauth.txt", "# nobody yet\n");
    assert_eq!(desk.cost("check ann x\n"), (1, format!("{WRONG}\n")));
}

#[test]
fn clear_text_entries_are_taken_and_can_be_hashed() {
    let mut desk = Desk::new();
    desk.holds("nwauth.txt", &format!("ann:{{PLAIN}}se%3Acret\nbob:{HASH}\ncid:{{plain}}x:7\n"));
    assert_eq!(desk.say(b"check ann se:cret\ncheck cid y\n"), format!("+OK ann config 0\n{WRONG}\n"));
    assert_eq!(desk.once(&["encrypt", "bob"], ""), (false, "-ERR no clear-text entry of that name\n".to_owned()));
    assert_eq!(desk.once(&["encrypt", "ann"], ""), (true, "+OK encrypted\n".to_owned()));
    assert_eq!(desk.once(&["encrypt", "all"], ""), (true, "+OK 1 encrypted\n".to_owned()));
    assert_eq!(desk.once(&["encrypt", "all"], ""), (true, "+OK 0 encrypted\n".to_owned()));
    assert_eq!(desk.say(b"check ann se:cret\ncheck cid x\n"), "+OK ann config 0\n+OK cid config 7\n");
    assert_eq!(desk.once(&["merge"], ""), (true, "+OK merged\n".to_owned()));
    assert!(!fs::read_to_string(desk.dir.path().join("nwauth.txt")).unwrap().to_lowercase().contains("{plain}"));
}

#[test]
fn names_that_would_be_something_else_are_refused() {
    let mut desk = Desk::new();
    for name in [
        "a@b@c",
        "a/b",
        "a:b",
        "a*b",
        "a?b",
        "a\"b",
        "a'b",
        "a;b",
        "a|b",
        "a\x01b",
        "a\x7fb",
        "fr\u{e9}d",
        ".fred",
        "-fred",
        "#fred",
        "@x",
        "fred.lock",
        "fred.FWD",
        "fred.lock@x",
        "a\\b",
        "$x",
    ] {
        let reply = desk.say(format!("set {name} pw\n").as_bytes());
        assert!(reply.starts_with("-ERR the name "), "{name:?}: {reply}");
        assert!(reply.len() < 100);
    }
    assert!(desk.say(format!("set {} pw\n", "x".repeat(129)).as_bytes()).starts_with("-ERR the name"));
    let mut lax = Desk::with(|options| {
        options.allow_ats = true;
        options.allow_high = true;
        options.bad = b"x".to_vec();
        options.bad_local = b"y".to_vec();
    });
    lax.holds("nwauth.txt", &format!("a@b@c:{HASH}\nfr\u{e9}d:{HASH}\na*b:{HASH}\n"));
    assert_eq!(
        lax.say("lookup a@b@c\nlookup fr\u{e9}d\nlookup a*b\nset x 1\nset y@a 1\nset a@y NULL\n".as_bytes()),
        "+OK a@b@c config 0\n+OK fr\u{e9}d config 0\n+OK a*b config 0\n\
         -ERR the name has a character that is refused here\n-ERR the name has a character that is refused here\n\
         -ERR does not exist\n"
    );
}

#[test]
fn search_is_by_substring_or_by_pattern_in_pages() {
    let mut desk = Desk::new();
    desk.holds("nwauth.txt", "ann:*:::::a=\"1 2\"\nanne:*\nbob:*\njoanna:*\n50%25:*\n");
    for (request, reply) in [
        ("search ann", "+DATA ann a=\"1 2\"\n+DATA anne\n+DATA joanna\n+OK\n"),
        ("search ANN?", "+DATA anne\n+OK\n"),
        ("search ann*", "+DATA ann a=\"1 2\"\n+DATA anne\n+OK\n"),
        ("search *n*n*a", "+DATA joanna\n+OK\n"),
        ("search 0%", "+DATA 50%\n+OK\n"),
        ("search * -from 1 -max 2", "+DATA anne\n+DATA bob\n+OK\n"),
        ("search * -max 0", "+OK\n"),
        ("search * -max", "-ERR usage: search TEXT [-from N] [-max M]\n"),
        ("search * -max x", "-ERR usage: search TEXT [-from N] [-max M]\n"),
        ("search", "-ERR usage: search TEXT [-from N] [-max M]\n"),
        ("search zzz", "+OK\n"),
    ] {
        assert_eq!(desk.say(format!("{request}\n").as_bytes()), reply, "{request}");
    }
}

#[test]
fn version_2_escapes_words_both_ways() {
    let mut desk = Desk::new();
    let replies = desk.say(
        b"set a%20b p\nversion\nset fred p%20a%25s%0As note=\"Fred%20%22\" path=\"/m/fred\"\nset fred p%20a%25s%0As \
          note=\"a%20b\"\nlookup fred\ncheck fred p%20a%25s%0As\ncheck fred p%20\nlookup fr%zzed\nlookup fr%00ed\n",
    );
    assert_eq!(
        replies.lines().collect::<Vec<_>>(),
        [
            "+OK a%20b added",
            concat!("+OK version 2 nwauth ", env!("CARGO_PKG_VERSION")),
            "-ERR a pair is LABEL=\"VALUE\", without quotes inside",
            "+OK fred added",
            "+OK fred config 0 note=\"a%20b\"",
            "+OK fred config 0 note=\"a%20b\"",
            WRONG,
            "-ERR a % begins no escape",
            NO_SUCH_USER,
        ]
    );
    assert_eq!(desk.say(b"lookup a%2520b\n"), "+OK a%2520b config 0\n");
}

#[test]
fn nothing_that_comes_in_ends_it_and_every_line_has_its_reply() {
    let mut desk = Desk::new();
    desk.holds("nwauth.txt", &format!("ann:{HASH}\n"));
    let mut requests =
        b"\n  \t \r\nfrobnicate\ngenerate 5\nencrypt all\ndrop_path 1 / x\ncheck\ncheck a\ncheck a b c d\n\
        lookup a\0nn\nlookup \xff\xfe\nset ann\nLOOKUP ann\r\n"
            .to_vec();
    for length in [REQUEST_MOST - 1, REQUEST_MOST, 3 * REQUEST_MOST, 1 << 20] {
        requests.extend(vec![b'x'; length]);
        requests.extend(b"\n");
    }
    requests.extend(b"lookup ann\ndel ann");
    let replies = desk.say(&requests);
    assert_eq!(
        replies.lines().collect::<Vec<_>>(),
        [
            "-ERR unknown command",
            "-ERR unknown command",
            "-ERR unknown command",
            "-ERR unknown command",
            "-ERR usage: check USER PASSWORD [ADDRESS]",
            "-ERR usage: check USER PASSWORD [ADDRESS]",
            "-ERR usage: check USER PASSWORD [ADDRESS]",
            "-ERR a NUL is in the line",
            "-ERR does not exist",
            "-ERR usage: set USER PASSWORD [LABEL=\"VALUE\"]...",
            "+OK ann config 0",
            "-ERR unknown command",
            "-ERR the line is too long",
            "-ERR the line is too long",
            "-ERR the line is too long",
            "+OK ann config 0",
        ]
    );
}

#[test]
fn any_cut_of_the_input_gives_the_same_replies() {
    struct Dripping<'a>(&'a [u8], usize);
    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
    let mut desk = Desk::new();
    desk.holds("nwauth.txt", "ann:*\nbob:*\n");
    let requests = [b"lookup ann\r\nsearch *\n", &vec![b'x'; 5000][..], b"\nlookup bob\nquit\n"].concat();
    let whole = desk.say(&requests);
    for size in [1, 2, 3, 7, 100, 4095, 4096] {
        let mut output = Vec::new();
        desk.nwauth.serve(Dripping(&requests, size), &mut output).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), whole, "{size} bytes at a time");
    }
}

#[test]
fn files_that_cannot_be_used_are_a_temporary_failure() {
    let mut desk = Desk::new();
    let replies = desk.say(b"check ann x\nlookup ann\ndel ann\nsearch x\n");
    assert_eq!(replies.lines().filter(|reply| reply.starts_with("-DEAD opening nwauth.txt")).count(), 4, "{replies}");
    assert!(replies.lines().all(|reply| reply.len() < 100));
    desk.holds("nwauth.txt", &format!("ann:{HASH}::/m/a b\nbob:*\n"));
    let replies = desk.say(b"lookup ann\nlookup bob\nversion\nlookup ann\n");
    assert!(replies.starts_with("-DEAD reading nwauth.txt"), "{replies}");
    assert!(replies.ends_with("+OK ann /m/a%20b 0\n"), "{replies}");
}

#[test]
fn a_read_only_one_changes_nothing() {
    let mut desk = Desk::with(|options| options.readonly = true);
    desk.holds("nwauth.txt", &format!("ann:{HASH}\n"));
    let refused = "-ERR this nwauth is read only\n";
    assert_eq!(desk.say(b"set ann x\ndel ann\n"), refused.repeat(2));
    for command in [&["generate", "3"][..], &["encrypt", "all"], &["merge"]] {
        assert_eq!(desk.once(command, ""), (false, refused.to_owned()));
    }
    assert_eq!(fs::read_dir(desk.dir.path()).unwrap().count(), 1);
}

#[test]
fn the_log_has_who_and_what_and_no_password() {
    let mut desk = Desk::with(|options| options.log = true);
    desk.say(
        b"set fred hunter2 note=\"pass hunter2\"\ncheck fred hunter2 10.0.0.1\ncheck fred hunter3 hunter2\n\
        check fr\x1b[1med hunter2 ::1\nset ann hunter2 hunter2\nhunter2 hunter2\ncheck fred hunter2 a hunter2\n",
    );
    let path = desk.dir.path().join("nwauth.log");
    let log = fs::read_to_string(&path).unwrap();
    assert!(!log.contains("hunter"), "{log}");
    assert!(log.contains("Z check fred from 10.0.0.1: +OK\n"), "{log}");
    assert!(log.contains("check fr\\x1b[1med from ::1: -ERR\n"), "{log}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn one_command_of_a_command_line_is_answered_and_judged() {
    let mut desk = Desk::new();
    assert_eq!(desk.once(&["generate", "30"], ""), (true, "+OK 30 users made\n".to_owned()));
    assert_eq!(desk.once(&["check", "test29", "test"], ""), (true, "+OK test29 config 0\n".to_owned()));
    assert_eq!(desk.once(&["check", "test30", "test"], ""), (false, format!("{WRONG}\n")));
    assert_eq!(desk.once(&["set", "fred", "-", "name=Fred B"], "from a pipe\n").1, "+OK fred added\n");
    assert_eq!(desk.once(&["check", "fred", "from a pipe"], "").1, "+OK fred config 0 name=\"Fred B\"\n");
    assert!(!desk.once(&["set", "fred", "-"], "cut off").0);
    assert!(!desk.once(&["set", "fred", ""], "").0);
    assert_eq!(
        desk.once(&["drop_path", "2", "/var/spool/mail", "fred"], ""),
        (true, "/var/spool/mail/f/r/fred\n".into())
    );
    assert_eq!(
        desk.once(&["drop_path", "2", "/mail/abc_com", "fred", "abc_"], ""),
        (true, "/mail/abc_com/f/r/abc_fred\n".into())
    );
    assert!(!desk.once(&["drop_path", "2", "/var", "fred", "../"], "").0);
    assert!(!desk.once(&["drop_path", "4", "/var", "fred"], "").0);
    assert!(!desk.once(&["drop_path", "1", "/var", "../x"], "").0);
    assert!(desk.once(&["help"], "").0);
}

#[test]
fn options_are_spelled_as_the_manual_spells_them() {
    let line = |text: &str| {
        let args: Vec<String> = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        parse(&args).map(|(options, words)| {
            let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.reveal()).into_owned()).collect();
            (options, words.join(" "))
        })
    };
    let (options, words) = line("-path /x -size 5 -readonly -log -sleep 1 9 -badchar % -allowats -debug").unwrap();
    assert_eq!((options.path.to_str(), options.size, options.sleep_ms), (Some("/x"), 5, Some((1, 9))));
    assert!(options.readonly && options.log && options.allow_ats && options.debug && !options.allow_high);
    assert_eq!((options.bad, words), (b"%".to_vec(), String::new()));
    assert_eq!(line("-i /etc/dmail/dmail.conf").unwrap().0.path, Path::new("/etc/dmail"));
    assert_eq!(line("-i dmail.conf").unwrap().0.path, Path::new("."));
    assert_eq!(line("-path /x set fred -log").unwrap().1, "set fred -log");
    assert_eq!(line("-check fred secret").unwrap().1, "check fred secret");
    assert_eq!(line("-search x -from 2").unwrap().1, "search x -from 2");
    let (options, words) = line("-generate 500 -path /x").unwrap();
    assert_eq!((options.path.to_str(), words.as_str()), (Some("/x"), "generate 500"));
    assert!(line("-logpass").unwrap_err().contains("passwords into a log"));
    for wrong in ["-frob", "frob", "-path", "-size x", "-sleep 9 1", "-sleep 1", "merge merge", "-generate 5 del x"] {
        assert!(line(wrong).is_err(), "{wrong}");
    }
    assert!(usage().contains("-badchar_localpart CHARS"));
}
