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
            concat!("+OK version 2 scram nwauth ", env!("CARGO_PKG_VERSION")),
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
        check fr\x1b[1med hunter2 ::1\nscram fred 10.0.0.2\nset ann hunter2 hunter2\nhunter2 hunter2\ncheck fred hunter2 a hunter2\n",
    );
    let path = desk.dir.path().join("nwauth.log");
    let log = fs::read_to_string(&path).unwrap();
    assert!(!log.contains("hunter"), "{log}");
    assert!(log.contains("Z check fred from 10.0.0.1: +OK\n"), "{log}");
    assert!(log.contains("Z scram fred from 10.0.0.2: +OK\n"), "{log}");
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

/// What `scram` says about a user: its verifier, and the reply without it.
fn verifier(desk: &mut Desk, user: &str) -> (Verifier, String) {
    let reply = desk.say(format!("scram {user}\n").as_bytes());
    let word =
        reply.split_whitespace().find_map(|word| word.strip_prefix("scram=")).unwrap_or_else(|| panic!("{reply}"));
    (Verifier::parse(word.as_bytes()).unwrap(), reply.replacen(&format!(" scram={word}"), "", 1))
}

/// The verifier that this password would have.
fn verifier_of(desk: &mut Desk, user: &str, password: &str) -> Verifier {
    let salt = verifier(desk, user).0.salt().to_vec();
    Verifier::of(&Secret::from(password.as_bytes()), &salt, desk.nwauth.options.iterations)
}

fn quick(options: &mut Options) {
    options.iterations = 4096;
}

#[test]
fn who_is_set_can_prove_it_and_with_a_new_password_only_that() {
    let mut desk = Desk::with(quick);
    desk.say(b"set Fred one fwd=\"ann@x\" path=\"/m/fred\"\n");
    let (found, reply) = verifier(&mut desk, "FRED");
    assert_eq!(reply, "+OK Fred /m/fred 0 fwd=\"ann@x\"\n");
    assert_eq!(found, verifier_of(&mut desk, "fred", "one"));
    desk.say(b"set fred NULL fullname=\"F\"\n");
    assert_eq!(verifier(&mut desk, "fred").0, found, "what is not the password changes no verifier");
    desk.say(b"set fred two\n");
    assert_eq!(verifier(&mut desk, "fred").0, verifier_of(&mut desk, "fred", "two"));
    assert_ne!(verifier(&mut desk, "fred").0, found);
    desk.once(&["merge"], "");
    assert_eq!(verifier(&mut desk, "fred").0, verifier_of(&mut desk, "fred", "two"));
    let listed = desk.say(b"search fred\nlookup fred\ncheck fred two\n");
    assert!(!listed.contains("scram"), "{listed}");
    desk.say(b"del fred\n");
    assert_ne!(verifier(&mut desk, "fred").0, verifier_of(&mut desk, "fred", "two"));
}

#[test]
fn scram_tells_nobody_who_is_there() {
    let mut desk = Desk::with(quick);
    desk.say(b"set ann secret\nset locked secret\n");
    let before = verifier(&mut desk, "ann").0;
    let lock = fs::read_to_string(desk.dir.path().join("nwauth.add")).unwrap().replace("locked:", "locked:!");
    desk.holds("nwauth.add", &format!("{lock}old:{HASH}\nplain:{{PLAIN}}secret:7:/m/plain\n"));
    let mut salts = std::collections::BTreeSet::new();
    for user in ["nobody", "locked", "old", "plain", "zo@x"] {
        let (one, reply) = verifier(&mut desk, user);
        let (again, _) = verifier(&mut desk, &user.to_ascii_uppercase());
        assert_eq!(one, again, "{user}: the same each time, in any case of letters");
        assert_eq!(reply, format!("+OK {user} config 0\n"), "{user}: nothing of an entry is told");
        assert_eq!((one.iterations(), one.salt().len()), (before.iterations(), before.salt().len()));
        assert_ne!(one, verifier_of(&mut desk, user, "secret"), "{user}: no password fits");
        assert!(salts.insert(one.salt().to_vec()), "{user}: a salt of its own");
    }
    // A new process, and an entry that comes to be: still the same salt.
    let salt = verifier(&mut desk, "nobody").0.salt().to_vec();
    desk.nwauth = Nwauth::new(desk.nwauth.options.clone());
    assert_eq!(verifier(&mut desk, "nobody").0.salt(), salt);
    desk.say(b"set nobody x\n");
    assert_eq!(verifier(&mut desk, "nobody").0.salt(), salt);
    assert_eq!(
        desk.say(b"scram a/b\nscram -x\nscram\n"),
        format!("{WRONG}\n{WRONG}\n-ERR usage: scram USER [ADDRESS]\n")
    );
}

#[test]
fn a_hash_that_somebody_put_there_ends_the_verifier_of_the_old_password() {
    let mut desk = Desk::with(quick);
    desk.say(b"set ann old\n");
    assert_eq!(verifier(&mut desk, "ann").0, verifier_of(&mut desk, "ann", "old"));
    let path = desk.dir.path().join("nwauth.add");
    let text = fs::read_to_string(path).unwrap();
    let fields: Vec<&str> = text.splitn(3, ':').collect();
    desk.holds("nwauth.add", &format!("ann:{HASH}:{}", fields[2]));
    assert_ne!(verifier(&mut desk, "ann").0, verifier_of(&mut desk, "ann", "old"));
}

#[test]
fn a_good_check_makes_what_is_missing_and_a_bad_one_does_not() {
    let mut desk = Desk::with(|options| {
        quick(options);
        options.apop = true;
    });
    desk.holds("nwauth.txt", &format!("ann:{HASH}:7:/m/ann:::fwd=\"x\"\nbob:{HASH}:::theirs:theirs:\n"));
    assert_eq!(desk.say(b"version\n"), concat!("+OK version 2 apop nwauth ", env!("CARGO_PKG_VERSION"), "\n"));
    desk.say(b"check ann wrong\n");
    assert_ne!(verifier(&mut desk, "ann").0, verifier_of(&mut desk, "ann", "rasmuslerdorf"));
    let reply = "+OK ann /m/ann 7 fwd=\"x\"\n";
    assert_eq!(desk.say(b"check ann rasmuslerdorf\n"), reply);
    let made = verifier_of(&mut desk, "ann", "rasmuslerdorf");
    assert_eq!(verifier(&mut desk, "ann"), (made, reply.to_owned()));
    let size = |desk: &Desk| fs::metadata(desk.dir.path().join("nwauth.add")).map_or(0, |metadata| metadata.len());
    let before = size(&desk);
    assert!(before > 0);
    desk.say(b"check ann rasmuslerdorf\ncheck bob rasmuslerdorf\n");
    assert_eq!(size(&desk), before, "once, and not where there is no room");
    // Another number of rounds is another verifier.
    desk.nwauth.options.iterations = 5000;
    desk.say(b"check ann rasmuslerdorf\n");
    assert_eq!(verifier(&mut desk, "ann").0, verifier_of(&mut desk, "ann", "rasmuslerdorf"));
    // The password was kept too.
    assert_eq!(desk.say(format!("apop ann <1@x> {}\n", digest("<1@x>", "rasmuslerdorf")).as_bytes()), reply);
}

#[test]
fn a_check_makes_nothing_where_nothing_is_to_be_made() {
    let readonly = |options: &mut Options| options.readonly = true;
    let off = |options: &mut Options| options.scram = Scram::Off;
    for mut desk in [Desk::with(readonly), Desk::with(off)] {
        desk.holds("nwauth.txt", &format!("ann:{HASH}\n"));
        assert_eq!(desk.say(b"check ann rasmuslerdorf\n"), "+OK ann config 0\n");
        assert_eq!(desk.say(b"scram ann\napop ann <1@x> 0\n"), "-ERR unknown command\n".repeat(2));
        assert!(!desk.say(b"version\n").contains("scram"));
        assert_eq!(fs::read_dir(desk.dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn scram_is_offered_when_nobody_would_be_kept_out_by_it() {
    let offered = |desk: &mut Desk| desk.say(b"version\n").contains(" scram ");
    let mut desk = Desk::with(quick);
    desk.holds("nwauth.txt", &format!("ann:{HASH}\nlocked:!{HASH}\n"));
    assert!(!offered(&mut desk));
    desk.nwauth.options.scram = Scram::On;
    assert!(offered(&mut desk));
    desk.nwauth.options.scram = Scram::Auto;
    desk.say(b"check ann rasmuslerdorf\nset bob x\n");
    assert!(offered(&mut desk), "all who can log in have a verifier");
    desk.once(&["generate", "50"], "");
    assert!(offered(&mut desk));
    desk.holds("nwauth.key", "nonsense");
    desk.nwauth = Nwauth::new(desk.nwauth.options.clone());
    assert!(!offered(&mut desk), "without a key there is nothing to say about strangers");
    assert!(desk.say(b"scram ann\n").starts_with("-DEAD reading nwauth.key"));
}

#[test]
fn clear_text_entries_get_their_proofs_with_their_hash() {
    let mut desk = Desk::with(quick);
    desk.holds("nwauth.txt", "ann:{PLAIN}secret\n");
    assert!(desk.once(&["encrypt", "all"], "").0);
    assert_eq!(verifier(&mut desk, "ann").0, verifier_of(&mut desk, "ann", "secret"));
}

fn digest(stamp: &str, password: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(format!("{stamp}{password}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_digest_is_judged_as_a_password_is() {
    // RFC 1939 section 7.
    let stamp = "<1896.697170952@dbc.mtview.ca.us>";
    let good = "c4c9334bac560ecc979e58001b3e22fb";
    assert_eq!(digest(stamp, "tanstaaf"), good);
    let mut desk = Desk::with(|options| options.apop = true);
    desk.say(b"set mrose tanstaaf uid=\"7\"\n");
    let added = fs::read_to_string(desk.dir.path().join("nwauth.add")).unwrap();
    let kept: Vec<&str> = added.trim_end().split(':').collect();
    let more = format!("locked:!{}::::{}:\nold:{HASH}\nplain:{{PLAIN}}tanstaaf\n", kept[1], kept[5]);
    desk.holds("nwauth.txt", &more);
    for (request, reply) in [
        (format!("apop mrose {stamp} {good}"), "+OK mrose config 7"),
        (format!("apop MROSE {stamp} {good} 10.0.0.1"), "+OK mrose config 7"),
        (format!("apop plain {stamp} {good}"), "+OK plain config 0"),
        (format!("apop mrose {stamp} {}", good.replace('c', "d")), WRONG),
        (format!("apop mrose {stamp} {}", &good[..31]), WRONG),
        (format!("apop mrose {stamp}x {good}"), WRONG),
        (format!("apop nobody {stamp} {good}"), WRONG),
        (format!("apop nobody {stamp} {}", digest(stamp, "")), WRONG),
        (format!("apop locked {stamp} {good}"), WRONG),
        (format!("apop old {stamp} {}", digest(stamp, "")), WRONG),
        (format!("apop old {stamp} {}", digest(stamp, "rasmuslerdorf")), WRONG),
        (format!("apop a/b {stamp} {good}"), WRONG),
        (format!("apop mrose {stamp}"), "-ERR usage: apop USER STAMP DIGEST [ADDRESS]"),
    ] {
        assert_eq!(desk.say(format!("{request}\n").as_bytes()), format!("{reply}\n"), "{request}");
    }
    // Who sets a password without -apop has it forgotten.
    desk.nwauth.options.apop = false;
    desk.say(b"set mrose tanstaaf\n");
    assert_eq!(desk.say(format!("apop mrose {stamp} {good}\n").as_bytes()), "-ERR unknown command\n");
    desk.nwauth.options.apop = true;
    assert_eq!(desk.say(format!("apop mrose {stamp} {good}\n").as_bytes()), format!("{WRONG}\n"));
    let added = fs::read_to_string(desk.dir.path().join("nwauth.add")).unwrap();
    assert!(added.contains("apop=") && !added.lines().last().unwrap().contains("apop="));
}

#[test]
fn the_options_of_proofs_have_bounds() {
    let line = |text: &str| parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(|(options, _)| options);
    let options = line("-scram ON -iterations 4096 -apop").unwrap();
    assert_eq!((options.scram, options.iterations, options.apop), (Scram::On, 4096, true));
    assert_eq!(line("-scram off").unwrap().scram, Scram::Off);
    for wrong in ["-scram", "-scram maybe", "-iterations 4095", "-iterations 1000001", "-iterations x", "-iterations"] {
        assert!(line(wrong).is_err(), "{wrong}");
    }
}
