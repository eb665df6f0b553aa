//! `sendmail`, `mailq`, `newaliases`: the names by which programs of this machine send mail and ask about it.
//!
//! A message has two ways to the server, and no right that whoever runs this has not (never make it setuid):
//!
//! | way                                   | taken when                                       | who it is the server knows by        |
//! |---------------------------------------|--------------------------------------------------|--------------------------------------|
//! | the socket, `work_path/submit.sock`   | always first: what is refused is said at once    | the system: the socket's other end   |
//! | the drop directory, `work_path/incoming` | nobody is at the socket, or it says "later"   | the system: the file's owner         |
//!
//! With neither the message is not taken, which is said in a line and by the exit code 75. There is no `dead.letter`: who
//! called still has the message, and is told.
//!
//! Exit codes are those of sysexits(3), by which programs decide whether to try again:
//!
//! | code | when                                                                                   |
//! |------|----------------------------------------------------------------------------------------|
//! | 0    | the server has it, or will                                                             |
//! | 64   | wrong options, a recipient that is no address, nobody to send it to                    |
//! | 65   | a header that is too big or names what is no address                                   |
//! | 67   | there is no such recipient                                                             |
//! | 69   | the server does not take it                                                            |
//! | 70   | the server did not understand us                                                       |
//! | 71   | the system does not tell who we are                                                    |
//! | 73   | no file could be made for a large message                                              |
//! | 74   | the message could not be read                                                          |
//! | 75   | not now: try again later                                                               |
//! | 77   | that is not allowed                                                                    |
//! | 78   | the configuration cannot be read; for newaliases, or something in it or its alias files is wrong |
//!
//! With several recipients those who can be reached are, and the code is that of the first who cannot.

mod client;
mod options;
mod queue;
mod spool;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::thread;
use std::time::Duration;

use jiff::Zoned;
use ring::rand::{SecureRandom, SystemRandom};

use super::check;
use super::options::print;
use super::tell::{self, Silence};
use crate::mail::address::{self, Address, Place};
use crate::mail::encoded::phrase;
use crate::mail::mailboxes::{Mailbox, mailboxes};
use crate::mail::outgoing::{Handed, Intake, Lacking, TooBig};
use crate::server::SUBMIT;
use crate::settings::{self, Office};
use crate::store::pickup;
use crate::sys::{process, user};
use crate::text::printable::{printable, visible};
use client::{Letter, Recipient, Said};
use options::{Mode, Options};
use spool::Spool;

/// How the program is called.
pub const NAME: &str = "sendmail";
/// How long the server may take to carry out an order.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are read from standard input at a time.
const PIECE: usize = 16 * 1024;

const OK: u8 = 0;
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_USER: u8 = 67;
const UNAVAILABLE: u8 = 69;
const SOFTWARE: u8 = 70;
const OS: u8 = 71;
const CANNOT_CREATE: u8 = 73;
const IO: u8 = 74;
const LATER: u8 = 75;
const NOT_ALLOWED: u8 = 77;
const CONFIG: u8 = 78;

/// Why something was not done: the exit code, and a line for standard error.
type Trouble = (u8, String);

/// What `sendmail -h` would print, did that not mean something else: for the manual.
pub fn page() -> String {
    let usage = "usage: sendmail [OPTION ...] ADDRESS ...

Takes a message from standard input and hands it to the server of this machine, for each ADDRESS.
From, Date and Message-ID are added where they are missing; names without a domain are of the main
domain. While the server is down the message waits in work_path/incoming, for callers in
submit_group. Options may stand together or apart: -oi -t, -it, -fann@example.com. Exit codes are
those of sysexits(3): 75 means try again later.

Options:
";
    let rest =
        "\nOptions that other programs of this name have, and that mean nothing here, are taken and forgotten.\n";
    format!("{usage}{}{rest}", options::help())
}

/// What is printed about `mailq`.
pub fn mailq_page() -> String {
    "usage: mailq [-C FILE]\n\nLists what waits in the queue of the running server, for those who may give it orders: id, size,\n\
     time and sender; below, why it waits; the recipients who have not had it.\n"
        .to_owned()
}

/// What is printed about `newaliases`.
pub fn newaliases_page() -> String {
    "usage: newaliases [-C FILE]\n\nJudges the configuration with its alias files, and has the running server read them again.\n"
        .to_owned()
}

/// Runs `sendmail`; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    program(Mode::Send, args, page)
}

/// Runs `mailq`.
pub fn mailq(args: &[String]) -> u8 {
    program(Mode::List, args, mailq_page)
}

/// Runs `newaliases`.
pub fn newaliases(args: &[String]) -> u8 {
    program(Mode::Aliases, args, newaliases_page)
}

fn program(mode: Mode, args: &[String], page: fn() -> String) -> u8 {
    match args {
        [only] if only == "--help" => {
            print(&page());
            return OK;
        }
        [only] if only == "--version" => {
            print(concat!("dmail ", env!("CARGO_PKG_VERSION"), "\n"));
            return OK;
        }
        _ => {}
    }
    let options = match options::parse(mode, args) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("sendmail: {why}\n{}", page().lines().next().unwrap_or_default());
            return USAGE;
        }
    };
    let done = office(&options.config).and_then(|office| match options.mode {
        Mode::Send => send(&options, &office, &mut io::stdin().lock()),
        Mode::Smtp => speak(&office.work_path.join(SUBMIT)),
        Mode::List => queue::listed(&office).map(|text| print(&text)),
        Mode::Retry => order(&office, &["tellsmtp", "queue", "retry", "--yes"]),
        Mode::Aliases => aliases(&options.config, &office),
    });
    match done {
        Ok(()) => OK,
        Err((code, why)) => {
            for line in why.lines() {
                eprintln!("sendmail: {line}");
            }
            code
        }
    }
}

fn office(config: &Path) -> Result<Office, Trouble> {
    settings::office(config)
        .map_err(|complaint| (CONFIG, format!("{complaint}\nevery user who sends mail must be able to read this file")))
}

fn send(options: &Options, office: &Office, input: &mut dyn Read) -> Result<(), Trouble> {
    let domain = office.domain.as_str();
    let mut recipients = Vec::new();
    // Before the message is read: who calls with nonsense is told at once.
    for named in &options.recipients {
        let none = || (USAGE, format!("`{}` is no address", visible(named)));
        // A list may be folded in a header; in an argument a line end is somebody's try to say more than he may.
        let list = if named.contains(char::is_control) { None } else { mailboxes(named.as_bytes()).ok() };
        for mailbox in list.ok_or_else(none)? {
            recipients.push(path_of(&mailbox, domain).ok_or_else(none)?);
        }
    }
    if recipients.is_empty() && !options.from_header {
        return Err((USAGE, "whom is it for? name an address, or give -t when the message names them".to_owned()));
    }
    let me = me(options, domain)?;
    let (mut handed, text) = taken(options.dots, input)?;
    if options.from_header {
        let list = handed.header.recipients();
        let list = list.map_err(|name| (DATA, format!("the field {name} is no list of addresses")))?;
        for mailbox in list.iter().filter(|mailbox| !mailbox.local.is_empty()) {
            recipients.push(
                path_of(mailbox, domain)
                    .ok_or_else(|| (DATA, format!("`{}` in the header is no address", printable(&mailbox.local))))?,
            );
        }
        if recipients.is_empty() {
            return Err((USAGE, "the message names nobody in To, Cc or Bcc".to_owned()));
        }
    }
    let now = Zoned::now();
    let id = format!("<{}.{}@{domain}>", now.strftime("%Y%m%d%H%M%S"), random()?);
    let date = now.strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
    handed.header.complete(&Lacking { from: &me.from, date: &date, id: &id, domain });
    let mut letter = letter(options, &me.sender, recipients, handed, text);
    let outcome = client::submit(&office.work_path.join(SUBMIT), &mut letter, &mut |who, line| {
        if options.verbose {
            print(&format!("{who} {line}\n"));
        }
    });
    conclude(office, &mut letter, outcome)
}

/// Who calls.
struct Me {
    /// Where bounces go, without angle brackets; empty: nowhere.
    sender: String,
    /// As a From field has it.
    from: String,
}

fn me(options: &Options, domain: &str) -> Result<Me, Trouble> {
    let uid = process::own_uid();
    let person = user::person(uid);
    let own = person.as_ref().ok().and_then(Option::as_ref).map(|person| {
        let local = String::from_utf8_lossy(&person.name).into_owned().into_boxed_str();
        Address { local, place: Place::Domain(domain.into()) }.to_string()
    });
    let sender = match &options.sender {
        None => own.clone().ok_or_else(|| match &person {
            Err(error) => (OS, format!("who uid {uid} is cannot be found out: {error}; name the sender with -f")),
            Ok(_) => (OS, format!("uid {uid} is nobody the system knows: name the sender with -f")),
        })?,
        Some(named) => {
            let list = mailboxes(named.as_bytes()).unwrap_or_default();
            match list.first().filter(|mailbox| !mailbox.local.is_empty()) {
                None => String::new(),
                Some(mailbox) => {
                    path_of(mailbox, domain).ok_or_else(|| (USAGE, format!("the sender `{named}` is no address")))?
                }
            }
        }
    };
    let called = person.ok().flatten().map(|person| {
        let (login, about) = (String::from_utf8_lossy(&person.name), String::from_utf8_lossy(&person.about));
        // The way of passwd(5): up to the first comma, and & is the login's name.
        let mut capital = login.chars();
        let capital: String = capital.next().into_iter().flat_map(char::to_uppercase).chain(capital).collect();
        about.split(',').next().unwrap_or_default().replace('&', &capital)
    });
    let name = options.name.clone().or(called).unwrap_or_default();
    let address =
        if sender.is_empty() { own.unwrap_or_else(|| format!("MAILER-DAEMON@{domain}")) } else { sender.clone() };
    let from = if name.trim().is_empty() { address } else { format!("{} <{address}>", phrase(name.trim())) };
    Ok(Me { sender, from })
}

/// The message: header and counts, and its text.
fn taken(dots: bool, input: &mut dyn Read) -> Result<(Handed, Spool), Trouble> {
    let mut intake = Intake::new(dots);
    let mut spool = Spool::new(&std::env::temp_dir());
    let (mut piece, mut text) = (vec![0; PIECE], Vec::new());
    let store =
        |spool: &mut Spool, text: &mut Vec<u8>| spool.take(text).map_err(|fault| (CANNOT_CREATE, fault.to_string()));
    loop {
        let read = match input.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err((IO, format!("reading the message: {error}"))),
        };
        let more = read > 0 && intake.feed(&piece[..read], &mut text);
        store(&mut spool, &mut text)?;
        if !more {
            break;
        }
    }
    let handed = intake.finish(&mut text).map_err(|TooBig| (DATA, "the header is too big".to_owned()))?;
    store(&mut spool, &mut text)?;
    Ok((handed, spool))
}

fn letter(options: &Options, sender: &str, mut paths: Vec<String>, handed: Handed, text: Spool) -> Letter {
    // Named twice, in the arguments and in the header perhaps, is named once.
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let mut mail = format!("FROM:<{sender}>");
    if handed.eight_bit {
        mail += " BODY=8BITMIME";
    }
    if !sender.is_ascii() || paths.iter().any(|path| !path.is_ascii()) {
        mail += " SMTPUTF8";
    }
    if let Some(ret) = options.ret {
        mail += &format!(" RET={ret}");
    }
    if let Some(envid) = &options.envid {
        mail += &format!(" ENVID={envid}");
    }
    let notify = options.notify.as_ref().map(|notify| format!(" NOTIFY={notify}")).unwrap_or_default();
    let recipients = paths
        .into_iter()
        .map(|path| Recipient { rcpt: format!("TO:<{path}>{notify}"), path: format!("<{path}>") })
        .collect();
    Letter { mail, recipients, handed, text }
}

/// What the server did not do is done in the other way, or told.
fn conclude(office: &Office, letter: &mut Letter, outcome: client::Outcome) -> Result<(), Trouble> {
    let mut lines = Vec::new();
    let mut code = OK;
    for (recipient, said) in &outcome.refused {
        lines.push(format!("{}: {}", recipient.path, visible(&said.line)));
        code = if code == OK { code_of(said) } else { code };
    }
    for some in outcome.left.chunks(pickup::RECIPIENTS) {
        let rcpts: Vec<&str> = some.iter().map(|recipient| recipient.rcpt.as_str()).collect();
        let head = letter.handed.header.bytes();
        let text = &mut letter.text;
        let left = pickup::leave(&office.work_path, &letter.mail, &rcpts, &mut |out| {
            out(&head)?;
            text.each(out)
        });
        if let Err(fault) = left {
            let whom = match some {
                [only] => only.path.clone(),
                [first, ..] => format!("{} and {} more", first.path, some.len() - 1),
                [] => String::new(),
            };
            lines.push(format!("{whom}: not sent, try again later: {}; and {fault}", outcome.why));
            code = LATER;
        }
    }
    if outcome.heard && !outcome.left.is_empty() {
        // Somebody who comes and says nothing: the server looks what lies there.
        let _ = client::connect(&office.work_path.join(SUBMIT));
    }
    if code == OK { Ok(()) } else { Err((code, lines.join("\n"))) }
}

/// What a refusal is to programs.
fn code_of(said: &Said) -> u8 {
    let mut enhanced = said.line.get(4..).unwrap_or_default().split(['.', ' ']);
    let (_, subject, detail) = (enhanced.next(), enhanced.next(), enhanced.next());
    match (subject, detail) {
        (Some("1"), Some("7" | "8")) => DATA,
        (Some("1"), _) => NO_USER,
        (Some("5"), _) => SOFTWARE,
        (Some("6"), _) => DATA,
        (Some("7"), _) => NOT_ALLOWED,
        _ => UNAVAILABLE,
    }
}

/// An address as SMTP carries it, if it is one; `domain` where it has none.
fn path_of(mailbox: &Mailbox, domain: &str) -> Option<String> {
    let local = std::str::from_utf8(&mailbox.local).ok()?;
    let domain = mailbox.domain.as_ref().map_or(Ok(domain), |domain| std::str::from_utf8(domain)).ok()?;
    let path = format!("<{local}@{domain}>");
    match address::path(path.as_bytes(), true) {
        Ok((Some(address), b"")) => Some(address.to_string()),
        _ => None,
    }
}

fn random() -> Result<String, Trouble> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| (OS, "the system gives no random numbers".to_owned()))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Gives the running server an order, and prints what it says.
fn order(office: &Office, words: &[&str]) -> Result<(), Trouble> {
    asked(office, words).map(|text| print(&text))
}

/// What the server says to an order.
fn asked(office: &Office, words: &[&str]) -> Result<String, Trouble> {
    match tell::ask(&office.work_path, ORDER_PATIENCE, words.iter().copied()) {
        Ok((true, text)) => Ok(text),
        Ok((false, text)) => Err((UNAVAILABLE, text)),
        Err(Silence::Nobody(why) | Silence::Other(why)) => Err((LATER, why)),
        Err(Silence::Forbidden(why)) => Err((NOT_ALLOWED, why)),
    }
}

/// Alias files are judged with all the rest of the configuration; a server that runs reads them again.
fn aliases(config: &Path, office: &Office) -> Result<(), Trouble> {
    let (text, failed) = check::report(config);
    if failed != OK {
        return Err((CONFIG, text));
    }
    match tell::ask(&office.work_path, ORDER_PATIENCE, ["reload"].into_iter()) {
        Ok((true, text)) => {
            print(&text);
            Ok(())
        }
        Ok((false, text)) => Err((UNAVAILABLE, text)),
        Err(Silence::Nobody(_)) => {
            print("no server is running: it reads them when it starts\n");
            Ok(())
        }
        Err(Silence::Forbidden(why)) => Err((NOT_ALLOWED, why)),
        Err(Silence::Other(why)) => Err((LATER, why)),
    }
}

/// Standard input and output speak to the server.
fn speak(socket: &Path) -> Result<(), Trouble> {
    let connected = client::connect(socket).and_then(|server| {
        server.set_read_timeout(None)?;
        server.set_write_timeout(None)?;
        let upward = server.try_clone()?;
        Ok((server, upward))
    });
    let (mut server, mut upward) = connected.map_err(|error| {
        // Whoever speaks SMTP understands this; the exit code is for everybody else.
        print("421 4.3.2 No server is running; try again later\r\n");
        (LATER, format!("{}: {error}", socket.display()))
    })?;
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut upward);
        // The server hears that no more comes, and answers what it has heard.
        let _ = upward.shutdown(Shutdown::Write);
    });
    let mut out = io::stdout().lock();
    let mut piece = vec![0; PIECE];
    loop {
        match server.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                out.write_all(&piece[..read]).and_then(|()| out.flush()).map_err(|error| (IO, error.to_string()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((LATER, format!("{}: {error}", socket.display()))),
        }
    }
}

#[cfg(test)]
mod tests;
