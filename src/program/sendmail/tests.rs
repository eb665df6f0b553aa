//! sendmail against a server that says what a script says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;

struct Site {
    folder: tempfile::TempDir,
    office: Office,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("work")).unwrap();
        let office = Office { domain: "example.test".to_owned(), work_path: folder.path().join("work") };
        Site { folder, office }
    }

    /// With a drop directory.
    fn with_incoming() -> Site {
        let site = Site::new();
        fs::create_dir(site.incoming()).unwrap();
        site
    }

    fn incoming(&self) -> std::path::PathBuf {
        self.folder.path().join("work").join(pickup::FOLDER)
    }

    /// What lies in the drop directory.
    fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.incoming()) else { return Vec::new() };
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// A server for one conversation: it greets, then expects a line that begins like the first of each pair and says the
    /// second; `.` expects a text and its dot. It gives all it heard.
    fn serve(&self, script: &[(&'static str, &'static str)]) -> JoinHandle<String> {
        let listener = UnixListener::bind(self.office.work_path.join(SUBMIT)).unwrap();
        let script = [&[("", "220 here ESMTP")], script].concat();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut lines = BufReader::new(stream);
            let mut heard = String::new();
            for (wanted, said) in script {
                let mut line = String::new();
                while wanted == "." && line != ".\r\n" {
                    line.clear();
                    assert!(lines.read_line(&mut line).unwrap() > 0, "the text ends with a dot");
                    heard += &line;
                }
                if !matches!(wanted, "" | ".") {
                    lines.read_line(&mut line).unwrap();
                    assert!(line.starts_with(wanted), "{wanted}: {line}");
                    heard += &line;
                }
                if said.is_empty() {
                    return heard;
                }
                lines.get_mut().write_all(format!("{said}\r\n").as_bytes()).unwrap();
            }
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            assert!(line.is_empty() || line.starts_with("QUIT"), "nothing more was expected: {line}");
            heard
        })
    }

    fn send(&self, args: &[&str], message: &str) -> Result<(), Trouble> {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let options = options::parse(Mode::Send, &args).unwrap();
        send(&options, &self.office, &mut message.as_bytes())
    }
}

const EHLO: (&str, &str) = ("EHLO ", "250-here\r\n250-SIZE 1000\r\n250 DSN");
const WHOLE: &str = "From: a@b\nDate: d\nMessage-ID: <1@x>\n";

#[test]
fn a_message_goes_to_those_it_names_without_its_secrets() {
    let site = Site::new();
    let server = site.serve(&[
        EHLO,
        ("MAIL FROM:<ann@x.org> BODY=8BITMIME RET=HDRS SIZE=", "250 ok"),
        ("RCPT TO:<carl@z> NOTIFY=NEVER", "250 ok"),
        ("RCPT TO:<bob@example.test> NOTIFY=NEVER", "250 ok"),
        ("RCPT TO:<dora@y> NOTIFY=NEVER", "250 ok"),
        ("DATA", "354 go"),
        (".", "250 2.0.0 Accepted"),
    ]);
    let message = format!("{WHOLE}To: Bob <bob>, carl@z\nBcc: dora@y,\n bob\n\nh\u{fc}\n.dot\n.\nnot this\n");
    site.send(&["-t", "-fann@x.org", "-Nnever", "-Rhdrs", "carl@z"], &message).unwrap();
    let heard = server.join().unwrap();
    let (_, text) = heard.split_once("DATA\r\n").unwrap();
    let sent = "From: a@b\r\nDate: d\r\nMessage-ID: <1@x>\r\nTo: Bob <bob@example.test>, carl@z\r\n\r\nh\u{fc}\r\n..dot\r\n.\r\n";
    assert_eq!(text, sent);
    let size = sent.len() - 3 - 1;
    assert!(heard.contains(&format!(" SIZE={size}\r\n")), "{size}: {heard}");
}

#[test]
fn who_is_not_there_is_told_of_and_the_others_have_their_mail() {
    let site = Site::new();
    let server = site.serve(&[
        EHLO,
        ("MAIL ", "250 ok"),
        ("RCPT TO:<nobody@example.test>", "550 5.1.1 No such user"),
        ("RCPT TO:<bob@example.test>", "250 ok"),
        ("DATA", "354 go"),
        (".", "250 2.0.0 Accepted"),
    ]);
    let (code, why) = site.send(&["nobody", "bob"], WHOLE).unwrap_err();
    assert_eq!((code, why.as_str()), (NO_USER, "<nobody@example.test>: 550 5.1.1 No such user"));
    assert!(server.join().unwrap().contains("\r\n.\r\n"));
    assert!(site.left().is_empty());
}

#[test]
fn more_recipients_than_the_server_takes_at_once_are_several_messages() {
    let site = Site::new();
    let server = site.serve(&[
        EHLO,
        ("MAIL ", "250 ok"),
        ("RCPT TO:<a@x>", "250 ok"),
        ("RCPT TO:<b@x>", "452 4.5.3 Too many recipients"),
        ("DATA", "354 go"),
        (".", "250 ok"),
        ("MAIL ", "250 ok"),
        ("RCPT TO:<b@x>", "250 ok"),
        ("DATA", "354 go"),
        (".", "250 ok"),
    ]);
    site.send(&["a@x", "b@x"], WHOLE).unwrap();
    assert_eq!(server.join().unwrap().matches("\r\n.\r\n").count(), 2);
}

#[test]
fn what_the_server_does_not_take_now_waits_in_the_drop_directory() {
    type Script = &'static [(&'static str, &'static str)];
    let scripts: [Script; 6] = [
        &[("EHLO", "421 4.3.2 stopping")],
        &[EHLO, ("MAIL", "452 4.3.1 no space")],
        &[EHLO, ("MAIL", "250 ok"), ("RCPT", "451 4.3.0 later"), ("RSET", "250 ok"), ("MAIL", "")],
        &[EHLO, ("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "451 4.3.0 later")],
        &[EHLO, ("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go"), (".", "451 4.3.0 later")],
        // It ends before it says whether it has the message: rather twice than never.
        &[EHLO, ("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go"), (".", "")],
    ];
    for (index, script) in scripts.into_iter().enumerate() {
        let site = Site::with_incoming();
        let server = site.serve(script);
        site.send(&["-fann@x.org", "-Vid 1", "bob"], &format!("{WHOLE}\nhello\n")).unwrap();
        drop(server);
        let wanted =
            format!("DMAIL 1\nMAIL FROM:<ann@x.org> ENVID=id+201\nRCPT TO:<bob@example.test>\nDATA\n{WHOLE}\nhello\n");
        assert_eq!(site.left(), [wanted], "{index}");
    }
}

#[test]
fn without_server_and_drop_directory_the_caller_is_told_to_try_again() {
    let site = Site::new();
    let (code, why) = site.send(&["bob", "carl"], WHOLE).unwrap_err();
    assert_eq!(code, LATER);
    let begins =
        "<bob@example.test> and 1 more: not sent, try again later: no server is running; and making a file in ";
    assert!(why.starts_with(begins) && why.lines().count() == 1, "{why}");
    let site = Site::with_incoming();
    site.send(&["bob"], WHOLE).unwrap();
    assert_eq!(site.left().len(), 1);
}

#[test]
fn a_large_message_passes_through_a_file_both_ways() {
    let line = "a line of a letter that is long\n";
    let message = format!("{WHOLE}\n{}", line.repeat(20_000));
    let site = Site::with_incoming();
    site.send(&["bob"], &message).unwrap();
    assert!(site.left()[0].ends_with(&message));
    let server = site.serve(&[EHLO, ("MAIL", "250 ok"), ("RCPT", "250 ok"), ("DATA", "354 go"), (".", "250 ok")]);
    site.send(&["bob"], &message).unwrap();
    assert!(server.join().unwrap().ends_with(&format!("{}.\r\n", message.replace('\n', "\r\n"))));
}

#[test]
fn hundreds_of_recipients_are_left_as_several_files_when_they_are_too_many_for_one() {
    let site = Site::with_incoming();
    let names: Vec<String> = (0..pickup::RECIPIENTS + 1).map(|n| format!("u{n}@x")).collect();
    site.send(&["-t"], &format!("{WHOLE}To: {}\n", names.join(",\n "))).unwrap();
    let mut counts: Vec<usize> = site.left().iter().map(|text| text.matches("RCPT TO:").count()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, pickup::RECIPIENTS]);
}

#[test]
fn nonsense_is_refused_before_anybody_hears_of_it() {
    let site = Site::with_incoming();
    for (args, message, code) in [
        (&["a b@x"][..], WHOLE, USAGE),
        (&[], WHOLE, USAGE),
        (&["-t"], WHOLE, USAGE),
        (&["-t"], "To: undisclosed-recipients:;\n\n", USAGE),
        (&["-t"], "To: a b@x\n", DATA),
        (&["-t"], "To: a@-x-\n", DATA),
        (&["bob\r\nDATA"], WHOLE, USAGE),
        (&["bob@x\n.y"], WHOLE, USAGE),
        (&["<bob@x"], WHOLE, USAGE),
        (&["-fann@-", "bob"], WHOLE, USAGE),
    ] {
        assert_eq!(site.send(args, message).unwrap_err().0, code, "{args:?}");
    }
    assert!(site.left().is_empty());
}

#[test]
fn who_sends_it_is_what_was_said_or_what_the_system_knows() {
    let of = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let me = me(&options::parse(Mode::Send, &args).unwrap(), "h").unwrap();
        (me.sender, me.from)
    };
    let both = |sender: &str, from: &str| (sender.to_owned(), from.to_owned());
    assert_eq!(of(&["-fann@x", "-F", "Ann \"A\" Lee"]), both("ann@x", "\"Ann \\\"A\\\" Lee\" <ann@x>"));
    assert_eq!(of(&["-f<ann>", "-FJ\u{fc}rgen"]), both("ann@h", "=?utf-8?B?SsO8cmdlbg==?= <ann@h>"));
    assert_eq!(of(&["-fann@x", "-F", ""]), both("ann@x", "ann@x"));
    let own = user::person(process::own_uid()).unwrap().unwrap();
    let own = format!("{}@h", String::from_utf8(own.name).unwrap());
    assert_eq!(of(&["-F", ""]), (own.clone(), own.clone()));
    for nobody in ["-f<>", "-f "] {
        assert_eq!(of(&[nobody, "-F", ""]), (String::new(), own.clone()), "{nobody}");
    }
}

#[test]
fn refusals_are_told_apart_by_their_codes() {
    for (line, code) in [
        ("550 5.1.1 No such user", NO_USER),
        ("553 5.1.3 Bad address", NO_USER),
        ("501 5.1.7 Bad sender", DATA),
        ("552 5.2.2 Mailbox full", UNAVAILABLE),
        ("552 5.3.4 Too big", UNAVAILABLE),
        ("554 5.4.6 Looping", UNAVAILABLE),
        ("500 5.5.2 What?", SOFTWARE),
        ("552 5.6.0 Header", DATA),
        ("550 5.7.1 No relaying", NOT_ALLOWED),
        ("550", UNAVAILABLE),
    ] {
        assert_eq!(code_of(&Said { code: 550, line: line.to_owned() }), code, "{line}");
    }
}

#[test]
fn whoever_answers_strangely_is_not_believed() {
    for said in ["hello", "999 x", "22", "2200 x", "220_x", "\u{0}"] {
        let site = Site::with_incoming();
        let listener = UnixListener::bind(site.office.work_path.join(SUBMIT)).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
            stream.write_all(format!("{said}\r\n").as_bytes()).unwrap();
            // What comes is not of interest; the other side ends it.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        site.send(&["bob"], WHOLE).unwrap();
        server.join().unwrap();
        assert_eq!(site.left().len(), 1, "{said}");
    }
}
