//! `dmail demo`: the embedded default. Makes a folder that holds everything a server needs, and serves it on loopback.
//!
//! ```text
//! DIR/dmail.conf            the configuration, as short as one can be
//! DIR/users/nwauth.txt      ann and bob, both with the password `secret`
//! DIR/cert.pem, key.pem     a certificate for localhost that nobody else has signed
//! DIR/spool/ann, bob        mail: in plain mbox files, as any mail program writes them
//! DIR/work                  the logs, the queue, the sockets
//! ```
//!
//! A folder made by an earlier run is served as it stands, mail and all; anything else that is there is not touched.
//!
//! Nothing leaves the machine: mail for other domains is parked, so that a letter that somebody tries it with asks no name
//! server and reaches nobody.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::options::{self, DONE, FAILED, USAGE};
use super::{nwauth, serve};
use crate::service::Services;
use crate::settings;
use crate::text::fault::Fault;

const USAGE_TEXT: &str = "dmail demo [DIR]

Makes DIR (./demo) with a configuration, two users, a certificate and mail, serves it on loopback,
and prints lines to paste. Once made, the folder is served as it stands. -m makes it and stops.";

/// Ports tried first: easy to remember, no root needed.
const PORTS: [(&str, u16); 5] = [
    ("pop_port", 11110),
    ("pops_port", 11995),
    ("smtp_port", 11025),
    ("submission_port", 11587),
    ("smtps_port", 11465),
];
/// The password of both users.
const PASSWORD: &str = "secret";

fn own(options: &mut getopts::Options) {
    options.optflag("m", "", "make the folder, and stop");
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, own)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (_, matches) = match options::read(args, USAGE_TEXT, own) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let dir = match &matches.free[..] {
        [] => PathBuf::from("demo"),
        [dir] => PathBuf::from(dir),
        _ => {
            eprintln!("dmail demo takes one folder");
            return USAGE;
        }
    };
    let config = dir.join("dmail.conf");
    if !config.exists()
        && let Err(why) = furnish(&dir)
    {
        eprintln!("dmail: {why}");
        return FAILED;
    }
    if matches.opt_present("m") {
        options::print(&format!("{} is made; `dmail serve -i {}` serves it\n", dir.display(), config.display()));
        return DONE;
    }
    // Whole paths, so that the lines can be pasted anywhere.
    let dir = dir.canonicalize().unwrap_or(dir);
    let config = dir.join("dmail.conf");
    serve::serve(&config, Services::All, |server| {
        options::print(&format!("dmail: serving {}\n{}", server.serving(), lines(&dir, &config)));
    })
}

/// Makes everything; the configuration last, so that a folder half made is made anew.
fn furnish(dir: &Path) -> Result<(), String> {
    let make = |path: &Path| fs::create_dir_all(path).map_err(|e| Fault::new("making", path, e).to_string());
    for sub in ["spool", "work", "users"] {
        make(&dir.join(sub))?;
    }
    certificate(dir)?;
    let users = dir.join("users").display().to_string();
    for user in ["ann", "bob"] {
        let words = ["-path", &users, "set", user, PASSWORD].map(str::to_owned);
        let made = nwauth::quietly(&words);
        made.map_err(|why| format!("{users}: {why}"))?;
        write(&dir.join("spool").join(user), spool(user).as_bytes())?;
    }
    let ports: String = PORTS.iter().map(|(name, port)| format!("{name} {}\n", free(*port))).collect();
    let dmail = std::env::current_exe().map_err(|error| format!("our own executable: {error}"))?;
    let config = format!(
        "# Made by `dmail demo`. `dmail settings` explains every line that can stand here.\n\
         host_domain localhost\n\
         sysadmin ann@localhost\n\
         drop_path spool\n\
         work_path work\n\
         authent_method external\n\
         authent_process \"{}\" nwauth -path users\n\
         bind_address 127.0.0.1\n\
         {ports}\
         tls_cert cert.pem\n\
         tls_key key.pem\n\
         # Nothing leaves this machine: mail for other domains waits in the queue. Without this line it is sent.\n\
         route * park\n",
        dmail.display()
    );
    write(&dir.join("dmail.conf"), config.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|e| Fault::new("writing", path, e).to_string())
}

fn certificate(dir: &Path) -> Result<(), String> {
    let trouble = |error: rcgen::Error| format!("a certificate cannot be made: {error}");
    let key = rcgen::KeyPair::generate().map_err(trouble)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let certificate =
        rcgen::CertificateParams::new(names).and_then(|params| params.self_signed(&key)).map_err(trouble)?;
    write(&dir.join("cert.pem"), certificate.pem().as_bytes())?;
    write(&dir.join("key.pem"), key.serialize_pem().as_bytes())
}

/// The port that is asked for, or any other one if somebody has it.
fn free(port: u16) -> u16 {
    let bound = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let found = bound(port).or_else(|_| bound(0)).and_then(|socket| socket.local_addr());
    found.map_or(port, |address| address.port())
}

fn spool(user: &str) -> String {
    let other = if user == "ann" { "bob" } else { "ann" };
    let letters = [
        (
            "Welcome to DMail",
            "This mail lies in an ordinary mbox file; every program that reads those can read it.\n\n\
             .A line that begins with a dot arrives as it was sent,\n>From here on too.\n"
                .to_owned(),
        ),
        ("Lunch?", format!("Hello {user},\n\nnoon, at the usual place?\n\n{other}\n")),
        ("A longer one", (1..=400).map(|line| format!("Line {line:3} of a letter that takes its time.\n")).collect()),
    ];
    let mut text = String::new();
    for (index, (subject, body)) in letters.into_iter().enumerate() {
        let day = index + 5;
        let weekday = ["Mon", "Tue", "Wed"][index];
        text += &format!(
            "From {other}@localhost {weekday} Jan  {day} 10:00:00 2026\n\
             Return-Path: <{other}@localhost>\n\
             From: {other} <{other}@localhost>\n\
             To: {user} <{user}@localhost>\n\
             Subject: {subject}\n\
             Date: {weekday}, {day:02} Jan 2026 10:00:00 +0000\n\
             Message-ID: <{index}.{user}@localhost>\n\n{body}\n"
        );
    }
    text
}

/// What to paste into another terminal.
fn lines(dir: &Path, config: &Path) -> String {
    let Some(settings) = settings::load(config).settings else { return String::new() };
    let (pop, pops, smtp) = (settings.pop_port, settings.pops_port, settings.smtp_port);
    let (submission, smtps) = (settings.submission_port, settings.smtps_port);
    let (cert, config) = (dir.join("cert.pem"), config.display());
    let (cert, drop) = (cert.display(), settings.drop_path.display());
    let dmail = std::env::current_exe().unwrap_or_else(|_| "dmail".into());
    let dmail = dmail.display();
    format!(
        "
Users: ann and bob, password {PASSWORD}. Their mail: {drop}

Try, in another terminal:

  curl -u ann:{PASSWORD} pop3://localhost:{pop}/
  curl -u ann:{PASSWORD} pop3://localhost:{pop}/1
  curl -u ann:{PASSWORD} --cacert {cert} --ssl-reqd pop3://localhost:{pop}/2
  curl -u ann:{PASSWORD} --cacert {cert} pop3s://localhost:{pops}/3
  openssl s_client -quiet -crlf -CAfile {cert} -connect localhost:{pops}
  openssl s_client -quiet -crlf -CAfile {cert} -starttls pop3 -connect localhost:{pop}
      (then: USER ann, PASS {PASSWORD}, LIST, QUIT)
  {dmail} tellpop -i {config} status

Send a letter, and fetch it:

  printf 'From: you@example.org\\nTo: bob@localhost\\nSubject: Hello\\n\\nIt works.\\n' > letter
  curl smtp://localhost:{smtp} --mail-from you@example.org --mail-rcpt bob@localhost --upload-file letter --crlf
  curl -u bob:{PASSWORD} pop3://localhost:{pop}/4
  curl -u ann:{PASSWORD} --cacert {cert} --ssl-reqd smtp://localhost:{submission} \
      --mail-from ann@localhost --mail-rcpt bob@localhost --upload-file letter --crlf
  printf 'Subject: Done\\n\\nAs a program sends it.\\n' | {dmail} sendmail -C {config} bob
  {dmail} tellsmtp -i {config} trace bob@localhost

Nothing leaves this machine: `route * park` in {config} keeps mail for other domains in the queue.
Without that line it is sent.

  printf 'Subject: Far\\n\\nThis stays here.\\n' | {dmail} sendmail -C {config} kim@example.net
  {dmail} tellsmtp -i {config} queue

Thunderbird: account ann@localhost. Incoming server POP3, name localhost, port {pops}, connection security SSL/TLS,
normal password, user name ann. Outgoing server localhost, port {smtps}, SSL/TLS, normal password, user name ann. Accept
the certificate once for each.

Ctrl-C ends it.
"
    )
}
