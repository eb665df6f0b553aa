//! A server of its own for a row: a folder with users, mail and dmail.conf, the executable serving it, and what that uses.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::sender::Sender;

/// What is measured, unless `--program` names another build of it.
pub static PROGRAM: OnceLock<String> = OnceLock::new();
/// How long a server may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clock ticks a second in /proc: fixed in the kernel's interface.
const TICKS: f64 = 100.0;

/// How many domains the users are in: the main one and virtual ones, by suffix.
const DOMAINS: usize = 4;

/// What a user logs in as.
pub fn login(user: usize) -> String {
    match user % DOMAINS {
        0 => format!("test{user}"),
        domain => format!("test{user}/v{domain}"),
    }
}

/// What the authenticator and the spool call him.
fn account(user: usize) -> String {
    match user % DOMAINS {
        0 => format!("test{user}"),
        domain => format!("v{domain}_test{user}"),
    }
}

/// Where mail to him is sent.
pub fn address(user: usize) -> String {
    match user % DOMAINS {
        0 => format!("test{user}@bench.test"),
        domain => format!("test{user}@v{domain}.test"),
    }
}

/// A server, its folder, its users in four domains with a small drop each.
pub struct Bed {
    folder: TempDir,
    server: Child,
    /// Where it speaks POP3.
    pub plain: SocketAddr,
    /// Where it speaks POP3 within TLS.
    pub sealed: SocketAddr,
    /// Where it takes mail.
    pub smtp: SocketAddr,
}

/// What a process uses, in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Its proportional share: pages that others map too count by their part.
    pub pss: u64,
    /// What is no file's.
    pub anonymous: u64,
    /// `pss`, with the pages of its own executable counted in full: the authenticators run the same file.
    pub alone: u64,
}

/// What a server uses, with how many clients.
pub struct Uses {
    /// Logged in.
    pub sessions: usize,
    /// See there.
    pub memory: Memory,
}

impl std::ops::Deref for Uses {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Bed {
    /// Makes everything below `dir` and starts the server; returns when it answers.
    pub fn new(dir: &Path, users: usize) -> Bed {
        Bed::with(dir, users, |_| {})
    }

    /// The same, when something was put into its work_path.
    pub fn with(dir: &Path, users: usize, put: impl FnOnce(&Path)) -> Bed {
        let folder = tempfile::Builder::new().prefix("dmail-bench-").tempdir_in(dir).expect("a folder");
        for sub in ["spool", "users", "work"] {
            fs::create_dir(folder.path().join(sub)).expect("a folder in it");
        }
        let made = dmail(&["nwauth", "-path"])
            .arg(folder.path().join("users"))
            .args(["-generate", &users.to_string()])
            .status();
        let made = made.expect("nwauth can be started");
        assert!(made.success(), "users can be made");
        let file = folder.path().join("users/nwauth.txt");
        let text = fs::read_to_string(&file).expect("the file of users");
        // The lines of `-generate`, in their order, under the names of the domains.
        let mut renamed = String::new();
        for line in text.lines() {
            let user = line.strip_prefix("test").and_then(|rest| rest.split_once(':'));
            match user.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
                Some((number, rest)) => renamed += &format!("{}:{rest}\n", account(number)),
                None => renamed += &format!("{line}\n"),
            }
        }
        fs::write(&file, renamed).expect("the file of users");
        let sorted = dmail(&["nwauth", "-path"]).arg(folder.path().join("users")).arg("merge").status();
        assert!(sorted.expect("nwauth can be started").success(), "users can be sorted");
        let small = drop_of(3);
        (0..users).for_each(|user| {
            fs::write(folder.path().join("spool").join(account(user)), &small).expect("a drop");
        });
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = rcgen::CertificateParams::new(["localhost".to_owned()]).and_then(|params| params.self_signed(&key));
        fs::write(folder.path().join("cert.pem"), cert.expect("a certificate").pem()).expect("its file");
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).expect("its file");
        let (plain, sealed, smtp) = (free(), free(), free());
        let config = folder.path().join("dmail.conf");
        let text = format!(
            "host_domain bench.test\ndrop_path spool\nwork_path work\nauthent_process \"{}\" nwauth -path users\n\
             bind_address 127.0.0.1\npop_port {}\npops_port {}\nsmtp_port {}\nsubmission_port 0\nsmtps_port 0\n\
             sysadmin test0@bench.test\nmax_rcpts 1000\nroute * park\ntls_cert cert.pem\ntls_key key.pem\n{}",
            program(),
            plain.port(),
            sealed.port(),
            smtp.port(),
            (1..DOMAINS)
                .map(|domain| format!("vdomain v{domain} /v{domain} v{domain}.test spool\n"))
                .collect::<String>()
        );
        fs::write(&config, text).expect("its file");
        put(&folder.path().join("work"));
        let server = dmail(&["serve", "-i"]).arg(&config).spawn();
        let bed = Bed { folder, server: server.expect("the server can be started"), plain, sealed, smtp };
        bed.await_answer();
        bed
    }

    fn await_answer(&self) {
        let begun = Instant::now();
        while let Err(error) = TcpStream::connect(self.plain) {
            assert!(begun.elapsed() < PATIENCE, "the server does not answer: {error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the server and starts another; says how long that took until it greeted, in POP3 and in SMTP.
    pub fn restart(&mut self) -> Duration {
        self.server.kill().and_then(|()| self.server.wait()).expect("a server that can be killed");
        let begun = Instant::now();
        let server = dmail(&["serve", "-i"]).arg(self.folder.path().join("dmail.conf")).spawn();
        self.server = server.expect("the server can be started");
        self.await_answer();
        drop((self.connect(false), Sender::connect(self.smtp)));
        begun.elapsed()
    }

    /// What `tellsmtp status` says of that name.
    pub fn status(&self, name: &str) -> String {
        let config = self.folder.path().join("dmail.conf");
        let told = dmail(&["tellsmtp", "-i"]).arg(config).arg("status").stdout(Stdio::piped()).output();
        let told = String::from_utf8(told.expect("tellsmtp can be started").stdout).expect("text");
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// A client that has heard the greeting.
    pub fn connect(&self, tls: bool) -> Client {
        if tls { Client::connect_tls(self.sealed) } else { Client::connect(self.plain) }
    }

    /// A plain client that has logged in.
    pub fn logged_in(&self, user: usize) -> Client {
        let mut client = self.connect(false);
        client.login(user);
        client
    }

    /// Waits, then looks what the server uses.
    pub fn settle(&self, time: Duration) -> Uses {
        std::thread::sleep(time);
        // Of the authenticators only the server is the parent, and each session holds its index open.
        let files = fs::read_dir(self.proc("fd")).expect("the server runs").flatten();
        let sessions = files
            .filter(|file| {
                fs::read_link(file.path()).is_ok_and(|file| file.as_os_str().as_encoded_bytes().ends_with(b".idx"))
            })
            .count();
        Uses { sessions, memory: self.memory() }
    }

    fn memory(&self) -> Memory {
        let rollup = fs::read_to_string(self.proc("smaps_rollup")).expect("the server runs");
        let (pss, anonymous) = (field(&rollup, "Pss:"), field(&rollup, "Anonymous:"));
        let maps = fs::read_to_string(self.proc("smaps")).expect("the server runs");
        let program = fs::metadata(program()).expect("the executable").ino().to_string();
        let (mut ours, mut others) = (false, 0);
        for line in maps.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            match first.strip_suffix(':') {
                // The head of a mapping: range, rights, offset, device, inode, path.
                None => ours = line.split_whitespace().nth(4) == Some(&program),
                Some("Rss") if ours => others += field(line, "Rss:"),
                Some("Pss") if ours => others -= field(line, "Pss:"),
                Some(_) => {}
            }
        }
        Memory { pss, anonymous, alone: pss + others }
    }

    /// CPU the server has used so far, all threads.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).expect("the server runs");
        let after = stat.rsplit_once(')').expect("a name in brackets").1;
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).map(|word| word.parse::<f64>().expect("ticks")).sum();
        Duration::from_secs_f64(ticks / TICKS)
    }

    /// Bytes that the server has read so far, by calls of read(2) and its kin.
    pub fn bytes_read(&self) -> u64 {
        self.io("rchar: ")
    }

    /// Bytes that the server has given to write(2) and its kin, sockets' too.
    pub fn bytes_written(&self) -> u64 {
        self.io("wchar: ")
    }

    /// Bytes that it has made the kernel write to a disk.
    pub fn bytes_to_disk(&self) -> u64 {
        self.io("write_bytes: ")
    }

    fn io(&self, name: &str) -> u64 {
        let io = fs::read_to_string(self.proc("io")).expect("the server runs");
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.parse().ok()).expect("a count")
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.server.id().to_string()).join(file)
    }

    /// Where the drops are.
    pub fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// One of them.
    pub fn drop_file(&self, user: usize) -> PathBuf {
        self.spool().join(account(user))
    }

    /// Puts other mail there.
    pub fn write_drop(&self, user: usize, mail: &[u8]) {
        fs::write(self.drop_file(user), mail).expect("a drop");
    }

    /// Takes it away.
    pub fn remove_drop(&self, user: usize) {
        fs::remove_file(self.drop_file(user)).expect("a drop");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let told = dmail(&["tellpop", "-i"]).arg(self.folder.path().join("dmail.conf")).arg("shutdown").status();
        let told = told.is_ok_and(|status| status.success());
        let begun = Instant::now();
        while told && begun.elapsed() < PATIENCE {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn program() -> &'static str {
    PROGRAM.get_or_init(|| env!("CARGO_BIN_EXE_dmail").to_owned())
}

/// The executable, called with these words, to be heard by nobody.
fn dmail(words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    socket.expect("a free port")
}

/// A field of /proc/PID/smaps, in bytes.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of smaps");
    line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).expect("kilobytes") * 1024
}

/// A drop of ten-line messages, about 1.1 KB each, no two alike.
pub fn drop_of(messages: usize) -> Vec<u8> {
    let mut text = String::with_capacity(messages * 1100);
    for number in 0..messages {
        text += &format!(
            "From ann@bench.test Mon Jan  5 10:00:00 2026\nReturn-Path: <ann@bench.test>\n\
             From: Ann Example <ann@bench.test>\nTo: Bob Example <bob@bench.test>\nSubject: message {number}\n\
             Date: Mon, 05 Jan 2026 10:00:00 +0000\nMessage-ID: <{number}.bench@bench.test>\n\n"
        );
        for line in 0..10 {
            text += &format!("{number:5} {line:2} the quick brown fox jumps over the lazy dog, and again it jumps.\n");
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// The text of one message of about that size, lines of 72 bytes.
pub fn big_message(bytes: usize) -> Vec<u8> {
    let mut text = b"From: ann@bench.test\nSubject: all of it\n\n".to_vec();
    let mut line = 0_u32;
    while text.len() < bytes {
        text.extend_from_slice(
            format!("{line:8} and so it goes on and on, as long as such letters sometimes do.\n").as_bytes(),
        );
        line += 1;
    }
    text
}

/// A drop that holds it.
pub fn big_drop(bytes: usize) -> Vec<u8> {
    let mut drop = b"From ann@bench.test Mon Jan  5 10:00:00 2026\n".to_vec();
    drop.extend_from_slice(&big_message(bytes));
    drop.push(b'\n');
    drop
}
