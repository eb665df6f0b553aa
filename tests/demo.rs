//! The executable as a stranger meets it: `dmail demo`, a client, an operator, a second server, a stop.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DMAIL: &str = env!("CARGO_BIN_EXE_dmail");

fn dmail(args: &[&str]) -> Output {
    Command::new(DMAIL).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that is ended with the test, whatever becomes of it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a demo folder and serves it; gives the port of POP3.
fn serve(dir: &Path) -> (Server, u16) {
    let made = dmail(&["demo", "-m", dir.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let config = dir.join("dmail.conf");
    let settings = std::fs::read_to_string(&config).unwrap();
    let port = settings.lines().find_map(|line| line.strip_prefix("pop_port ")).unwrap().parse().unwrap();
    let mut child =
        Command::new(DMAIL).args(["serve", "-i", config.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    // The line that says it serves; what stands before it are warnings.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let server = Server(child);
    let serving = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("dmail: serving"));
    assert!(serving.is_some(), "it ended without serving");
    // Kept open, so that it can go on writing.
    std::mem::forget(lines);
    (server, port)
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Client { stream: BufReader::new(stream) };
        assert!(client.line().starts_with("+OK DPOP"));
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, text: &str) -> String {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
        self.line()
    }

    fn log_in(port: u16, user: &str, password: &str) -> (Client, String) {
        let mut client = Client::connect(port);
        client.say(&format!("USER {user}"));
        let reply = client.say(&format!("PASS {password}"));
        (client, reply)
    }

    fn body(&mut self) -> Vec<String> {
        std::iter::repeat_with(|| self.line()).take_while(|line| line != ".\r\n").collect()
    }
}

#[test]
fn a_stranger_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, port) = serve(dir.path());
    let config = dir.path().join("dmail.conf");
    let config = config.to_str().unwrap();

    let (_, reply) = Client::log_in(port, "ann", "wrong");
    assert!(reply.starts_with("-ERR [AUTH]"), "{reply}");
    let (_, reply) = Client::log_in(port, "nobody", "secret");
    assert!(reply.starts_with("-ERR [AUTH]"), "{reply}");

    let (mut client, reply) = Client::log_in(port, "ann", "secret");
    assert!(reply.starts_with("+OK 3 messages"), "{reply}");
    let (_, reply) = Client::log_in(port, "ANN@localhost", "secret");
    assert!(reply.starts_with("-ERR [IN-USE]"), "{reply}");
    let (_, reply) = Client::log_in(port, "bob", "secret");
    assert!(reply.starts_with("+OK 3 messages"), "bob is somebody else: {reply}");

    assert!(client.say("UIDL").starts_with("+OK"));
    let ids = client.body();
    let octets: usize = client.say("LIST 1").split(' ').nth(2).unwrap().trim().parse().unwrap();
    assert!(client.say("RETR 1").starts_with("+OK"));
    let lines = client.body();
    assert!(lines.contains(&"..A line that begins with a dot arrives as it was sent,\r\n".to_owned()));
    let stuffed = lines.iter().filter(|line| line.starts_with('.')).count();
    assert_eq!(lines.iter().map(String::len).sum::<usize>() - stuffed, octets, "LIST told the octets");
    assert!(client.say("DELE 1").starts_with("+OK"));
    assert!(client.say("QUIT").starts_with("+OK"));

    let (mut client, reply) = Client::log_in(port, "ann", "secret");
    assert!(reply.starts_with("+OK 2 messages"), "{reply}");
    client.say("UIDL");
    let left: Vec<String> = client.body().iter().map(|line| line[2..].to_owned()).collect();
    assert_eq!(left, ids[1..].iter().map(|line| line[2..].to_owned()).collect::<Vec<_>>(), "ids stay");
    // Gone without QUIT: nothing is deleted, and the lock is given back.
    assert!(client.say("DELE 1").starts_with("+OK"));
    drop(client);
    let begun = Instant::now();
    let reply = loop {
        let (_, reply) = Client::log_in(port, "ann", "secret");
        if !reply.starts_with("-ERR [IN-USE]") || begun.elapsed() > Duration::from_secs(30) {
            break reply;
        }
    };
    assert!(reply.starts_with("+OK 2 messages"), "{reply}");

    let status = dmail(&["tellpop", "-i", config, "status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["logins"]["good"].as_u64().unwrap() >= 3, "{status}");
    assert_eq!(status["messages"]["deleted"], 1);
    assert_eq!(status["loop"]["faults"], 0);

    let second = dmail(&["serve", "-i", config]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("has this work_path already"), "{}", text(&second.stderr));

    // A reload takes all of a configuration or none of it.
    let settings = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, format!("{settings}pop3_idle_secs 5\n")).unwrap();
    let refused = dmail(&["tellpop", "-i", config, "reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    std::fs::write(config, format!("{settings}hide_version true\n")).unwrap();
    let taken = dmail(&["tellpop", "-i", config, "reload"]);
    assert!(text(&taken.stdout).contains("hide_version"), "{}{}", text(&taken.stdout), text(&taken.stderr));
    let mut client = Client::connect(port);
    client.say("CAPA");
    assert!(!client.body().iter().any(|line| line.contains("IMPLEMENTATION")));

    let stopped = dmail(&["tellpop", "-i", config, "shutdown"]);
    assert!(stopped.status.success());
    assert_eq!(client.line(), "-ERR [SYS/TEMP] The server is stopping\r\n");
    drop(client);
    assert!(server.0.wait().unwrap().success());
    assert_eq!(dmail(&["tellpop", "-i", config, "status"]).status.code(), Some(1));
    let log = std::fs::read_to_string(dir.path().join("work/dpop.log")).unwrap();
    assert!(log.contains("1 messages (") && log.contains("1 deleted") && log.contains("dmail stopped"), "{log}");
    assert!(!log.contains("secret"), "no password in the log");
}

#[test]
fn mail_for_others_stays_in_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _) = serve(dir.path());
    let config = dir.path().join("dmail.conf");
    let config = config.to_str().unwrap();
    let settings = std::fs::read_to_string(config).unwrap();
    let port = settings.lines().find_map(|line| line.strip_prefix("smtp_port ")).unwrap().parse::<u16>().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut client = Client { stream: BufReader::new(stream) };
    assert!(client.line().starts_with("220 "));
    assert!(client.say("HELO there").starts_with("250 "));
    assert!(client.say("MAIL FROM:<ann@localhost>").starts_with("250 "));
    for whom in ["kim@example.net", "lee@sub.example.org", "joe@[192.0.2.1]"] {
        assert!(client.say(&format!("RCPT TO:<{whom}>")).starts_with("250 "), "{whom}");
    }
    assert!(client.say("DATA").starts_with("354 "));
    assert!(client.say("Subject: Far\r\n\r\nThis stays here.\r\n.").starts_with("250 "));

    let told = |words: &[&str]| -> serde_json::Value {
        let told = dmail(&[&["tellsmtp", "-i", config], words, &["--json"]].concat());
        serde_json::from_slice(&told.stdout).unwrap_or_else(|why| panic!("{why}: {}", text(&told.stderr)))
    };
    let queue = told(&["queue"]);
    assert_eq!(queue["messages"], 1, "{queue}");
    let shown = told(&["queue", "show", queue["queue"][0]["id"].as_str().unwrap_or_default()]);
    let parked = shown.to_string().matches("\"why\":\"4.4.0 it is parked").count();
    assert_eq!(parked, 3, "each of them waits until it is asked for: {shown}");
    let status = told(&["status"]);
    assert_eq!(
        (&status["dns"]["questions"], &status["dns"]["sent"]),
        (&0.into(), &0.into()),
        "no name server is asked"
    );
    assert_eq!(status["sending"]["connections"], 0, "and nobody is connected to: {status}");
}

#[test]
fn each_program_has_help_and_refuses_what_it_does_not_know() {
    for program in ["serve", "dpop", "demo", "check", "settings", "tellpop", "nwauth"] {
        let help = dmail(&[program, "-h"]);
        assert!(help.status.success() && help.stdout.len() > 60, "{program} -h");
        let wrong = dmail(&[program, "--frobnicate"]);
        assert_eq!(wrong.status.code(), Some(2), "{program}: {}", text(&wrong.stderr));
    }
    assert_eq!(dmail(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(dmail(&[]).status.code(), Some(2));
    assert!(text(&dmail(&["-h"]).stdout).contains("tellpop"));
}
