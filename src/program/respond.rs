//! `dmail respond`, also `drespond`: the stock auto-responder, a program for a destination that begins with `|`.
//!
//! A message comes on standard input; its envelope is in the environment (SENDER, RECIPIENT, LOCAL, DOMAIN), as the server gives it to
//! every program, or else in its first Return-Path and Delivered-To fields. Whether it is answered, and how, is decided by
//! [`mail::respond`](crate::mail::respond); here is what that leaves out: the text, who was answered already, sending.
//!
//! | it ends with | when                                                                    | the server then                 |
//! |--------------|--------------------------------------------------------------------------|---------------------------------|
//! | 0            | it was answered, or there is nothing to answer, or nobody takes the answer | is done with it              |
//! | 2            | the options are wrong                                                   | bounces it                      |
//! | 75           | a file cannot be read or written, the answer cannot be sent             | tries again later               |
//!
//! **Who was answered** is in a file beside the text, locked while one answer is on its way: lines of [`RECORD_BYTES`] bytes, a hash of
//! the address and the time in seconds since 1970, appended when the answer was taken. At [`RECORDS`] of them those that are over
//! are taken out; if none is, the older half. So it never exceeds 280 KB, and a torn or foreign line costs one more answer
//! at most.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use getopts::Options;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::xxh3_64;

use super::options::{self, DONE, USAGE};
use crate::mail::address::{self, Address, Place};
use crate::mail::respond::{Answer, Header, answer_to, key};
use crate::net::child::OWN_EXECUTABLE;
use crate::store::disk::{Disk, RealDisk};
use crate::text::fault::Fault;
use crate::text::number::decimal;
use crate::text::printable::printable;
use crate::text::words::{Manner, words};

/// EX_TEMPFAIL of sysexits.h: whoever started it shall try again.
const TRY_AGAIN: u8 = 75;
/// Codes of sysexits.h with which an answer will never be taken: another try would only keep the message that is answered.
const REFUSED: &[i32] = &[64, 65, 67, 68, 69, 76, 77];
/// How much of a message is looked at; its header is in there, or is none that a person wrote.
const HEADER_BYTES: u64 = 256 * 1024;
/// The longest text.
const TEXT_BYTES: u64 = 64 * 1024;
/// Most records of who was answered.
const RECORDS: usize = 10_000;
/// One of them: 16 digits of the hash, a blank, 10 of the time, LF.
const RECORD_BYTES: usize = 28;
const SECS_A_DAY: u64 = 86_400;
/// Days for which somebody is not answered again, where nothing else is said; and the most that can be.
const DAYS: u64 = 7;
const DAYS_MOST: u64 = 3650;

const USAGE_TEXT: &str =
    "dmail respond -f FILE [-a ADDRESS ...] [-d DAYS] [-n NAME] [-b FILE] [-s COMMAND] [-t] [-i CONF]

Answers the message on standard input with a text, once in a while for each sender, and never a
machine, a list or a bounce (RFC 3834). Made to be the program behind a | in an alias file or in
dmail.conf. The text may begin with a line `Subject: ...` and a blank line; $SUBJECT in it is what
the message is about. Exit codes: 0 done, 2 wrong options, 75 try again later.";

fn own(options: &mut Options) {
    options.optopt("f", "", "the text of the answer", "FILE");
    options.optmulti("a", "", "a further address of the recipient; mail must name one of them in To or Cc", "ADDRESS");
    options.optopt("d", "", "for so many days nobody is answered twice (7; 0 answers always)", "DAYS");
    options.optopt("n", "", "the name that stands before the recipient's address", "NAME");
    options.optopt("b", "", "where it is noted who was answered (the text's name and .answered)", "FILE");
    options.optopt("s", "", "send with COMMAND -i -f <> -- ADDRESS instead of with dmail sendmail", "COMMAND");
    options.optflag("t", "", "print the answer, or why there is none, and send nothing");
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, own)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (common, matches) = match options::read(args, USAGE_TEXT, own) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let plan = match Plan::read(&matches, common.config_named.then_some(common.config)) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("dmail respond: {why}");
            return USAGE;
        }
    };
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let done = read_message(io::stdin().lock()).and_then(|message| plan.respond(&message, &variable, now_secs()));
    match done {
        Ok(Done::Answered) => DONE,
        Ok(Done::Printed(text)) => {
            options::print(&text);
            DONE
        }
        // Said only to who asked: a program that says something when all is well fills logs.
        Ok(Done::Silent(why)) => {
            if plan.only_print {
                options::print(&format!("no answer: {why}\n"));
            }
            DONE
        }
        Err(fault) => {
            eprintln!("dmail respond: {fault}");
            TRY_AGAIN
        }
    }
}

/// The beginning of a message. The rest is read too: who writes into a pipe that nobody reads takes that for a failure.
fn read_message(mut input: impl Read) -> Result<Vec<u8>, Fault> {
    let mut message = Vec::new();
    let read = (&mut input).take(HEADER_BYTES).read_to_end(&mut message);
    read.and_then(|_| io::copy(&mut input, &mut io::sink()))
        .map_err(Fault::at("reading", Path::new("standard input")))?;
    Ok(message)
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What the options say.
#[derive(Debug, PartialEq)]
struct Plan {
    text: PathBuf,
    answered: PathBuf,
    further: Vec<Address>,
    days: u64,
    name: Option<String>,
    /// What takes the answer: program and arguments.
    send: Vec<String>,
    only_print: bool,
}

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Done {
    Answered,
    Printed(String),
    Silent(String),
}

impl Plan {
    fn read(matches: &getopts::Matches, config: Option<PathBuf>) -> Result<Plan, String> {
        if let Some(word) = matches.free.first() {
            return Err(format!(
                "`{}` is one word too many: put what has blanks in quotes",
                printable(word.as_bytes())
            ));
        }
        let text = PathBuf::from(matches.opt_str("f").ok_or("-f FILE names the text of the answer")?);
        let answered = match matches.opt_str("b") {
            Some(file) => file.into(),
            None => {
                let mut name = text.clone().into_os_string();
                name.push(".answered");
                name.into()
            }
        };
        let further = matches.opt_strs("a");
        let further =
            further.iter().map(|text| address(text).ok_or(format!("-a {}: no address", printable(text.as_bytes()))));
        let days = match matches.opt_str("d") {
            None => DAYS,
            Some(days) => {
                let number = decimal(days.as_bytes()).filter(|days| *days <= DAYS_MOST);
                number.ok_or(format!("-d {}: not a number of days up to {DAYS_MOST}", printable(days.as_bytes())))?
            }
        };
        let send = match matches.opt_str("s") {
            Some(command) => {
                let words = words(&command, 1, Manner::Shell).map_err(|trouble| format!("-s: {}", trouble.text))?;
                words.into_iter().map(|word| word.text).collect()
            }
            None => {
                let config = config.map(|file| ["-C".to_owned(), file.to_string_lossy().into_owned()]);
                let own = [OWN_EXECUTABLE.to_owned(), "sendmail".to_owned()];
                own.into_iter().chain(config.into_iter().flatten()).collect::<Vec<_>>()
            }
        };
        if send.is_empty() {
            return Err("-s COMMAND names a program".to_owned());
        }
        Ok(Plan {
            text,
            answered,
            further: further.collect::<Result<_, _>>()?,
            days,
            name: matches.opt_str("n"),
            send,
            only_print: matches.opt_present("t"),
        })
    }

    fn respond(&self, message: &[u8], variable: &dyn Fn(&str) -> Option<String>, now_secs: u64) -> Result<Done, Fault> {
        let header = Header::read(message);
        let field = |name: &str| {
            let body = String::from_utf8_lossy(header.first(name)?).into_owned();
            Some(body.trim().trim_start_matches('<').trim_end_matches('>').to_owned())
        };
        let recipient = variable("RECIPIENT").or_else(|| field("delivered-to"));
        let whole = variable("LOCAL").zip(variable("DOMAIN")).map(|(local, domain)| format!("{local}@{domain}"));
        let mut own: Vec<Address> =
            [recipient, whole].into_iter().flatten().filter_map(|text| address(&text)).collect();
        own.extend_from_slice(&self.further);
        let Some(from) = own.first() else {
            return Ok(Done::Silent("it is not known for whom the message is: set RECIPIENT, or use -a".to_owned()));
        };
        let sender = variable("SENDER").or_else(|| field("return-path")).unwrap_or_default();
        let to = match answer_to(&header, &sender, &own) {
            Ok(to) => to,
            Err(why) => return Ok(Done::Silent(why.to_string())),
        };
        let text = read_text(&self.text)?;
        let date = Timestamp::from_second(now_secs.cast_signed()).unwrap_or_default().to_zoned(TimeZone::UTC);
        let domain = match &from.place {
            Place::Domain(domain) => domain.to_string(),
            _ => "localhost".to_owned(),
        };
        let answer = Answer {
            from,
            name: self.name.as_deref(),
            to: &to,
            text: &text,
            date: &date.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
            id: &format!("<respond.{now_secs}.{:016x}@{domain}>", RealDisk::default().random()),
        };
        let answer = answer.write(&header);
        if self.only_print {
            return Ok(Done::Printed(String::from_utf8_lossy(&answer).into_owned()));
        }
        let mut answered = Answered::open(&self.answered)?;
        let who = xxh3_64(key(&to).as_bytes());
        if answered.has(who, now_secs, self.days)? {
            return Ok(Done::Silent(format!(
                "{} was answered within {} days",
                printable(key(&to).as_bytes()),
                self.days
            )));
        }
        let taken = send(&self.send, &to, &answer).map_err(Fault::at("sending with", Path::new(&self.send[0])))?;
        answered.note(who, now_secs, self.days)?;
        Ok(if taken { Done::Answered } else { Done::Silent("the answer is not taken".to_owned()) })
    }
}

/// An address as people write it, also with angle brackets.
fn address(text: &str) -> Option<Address> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    let path = format!("<{text}>");
    let (found, behind) = address::path(path.as_bytes(), true).ok()?;
    found.filter(|address| behind.is_empty() && address.place != Place::Here)
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Fault::at("opening", path))?;
    file.take(TEXT_BYTES + 1).read_to_end(&mut text).map_err(Fault::at("reading", path))?;
    if text.len() as u64 > TEXT_BYTES {
        return Err(Fault::new("reading", path, io::Error::other("it is longer than 64 KB")));
    }
    Ok(String::from_utf8(text)
        .unwrap_or_else(|error| error.into_bytes().iter().map(|&byte| char::from(byte)).collect()))
}

/// Hands the answer over, and waits until it was taken; false: it never will be.
fn send(words: &[String], to: &Address, answer: &[u8]) -> io::Result<bool> {
    let mut command = Command::new(&words[0]);
    if words[0] == OWN_EXECUTABLE {
        command.arg0("dmail");
    }
    command.args(&words[1..]).args(["-i", "-f", "<>", "--"]).arg(to.to_string());
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().expect("it was made a pipe");
    // One that does not read on says with its end what that means.
    let written = stdin.write_all(answer);
    drop(stdin);
    let status = child.wait()?;
    match status.code() {
        Some(0) => written.map(|()| true),
        Some(code) if REFUSED.contains(&code) => Ok(false),
        _ => Err(io::Error::other(format!("it ended with {status}"))),
    }
}

/// The file of who was answered, locked.
struct Answered<'p> {
    file: File,
    path: &'p Path,
}

impl Answered<'_> {
    fn open(path: &Path) -> Result<Answered<'_>, Fault> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(Fault::at("opening", path))?;
        file.lock().map_err(Fault::at("locking", path))?;
        Ok(Answered { file, path })
    }

    fn records(&mut self) -> Result<Vec<(u64, u64)>, Fault> {
        let mut bytes = Vec::new();
        let most = (RECORDS * RECORD_BYTES) as u64;
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| (&self.file).take(most).read_to_end(&mut bytes));
        read.map_err(Fault::at("reading", self.path))?;
        Ok(bytes.split(|&byte| byte == b'\n').filter_map(record).collect())
    }

    /// Whether this one was answered in the last `days`. One of the future was too: the clock has been set back.
    fn has(&mut self, who: u64, now_secs: u64, days: u64) -> Result<bool, Fault> {
        Ok(self.records()?.iter().any(|&(other, at)| other == who && is_fresh(at, now_secs, days)))
    }

    fn note(&mut self, who: u64, now_secs: u64, days: u64) -> Result<(), Fault> {
        let size = self.file.seek(SeekFrom::End(0)).map_err(Fault::at("looking at", self.path))?;
        let mut bytes = written(who, now_secs);
        let write = if size as usize + RECORD_BYTES <= RECORDS * RECORD_BYTES {
            let mut last = [b'\n'];
            self.file.read_at(&mut last, size.saturating_sub(1)).map_err(Fault::at("reading", self.path))?;
            if last != [b'\n'] {
                // A torn line ends here.
                bytes.insert(0, '\n');
            }
            self.file.write_all(bytes.as_bytes())
        } else {
            let mut records = self.records()?;
            records.retain(|&(_, at)| is_fresh(at, now_secs, days));
            if records.len() >= RECORDS {
                records.sort_unstable_by_key(|&(_, at)| at);
                records.drain(..RECORDS / 2);
            }
            records.push((who, now_secs));
            let all: String = records.into_iter().map(|(who, at)| written(who, at)).collect();
            // In place: what is cut short by a crash is read as far as its lines are whole.
            let rewritten = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(all.as_bytes()));
            rewritten.and_then(|()| self.file.set_len(all.len() as u64))
        };
        write.map_err(Fault::at("writing", self.path))
    }
}

fn is_fresh(at: u64, now_secs: u64, days: u64) -> bool {
    now_secs.saturating_sub(at) < days * SECS_A_DAY
}

fn record(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.len() == RECORD_BYTES - 1)?;
    let (who, at) = text.split_once(' ')?;
    Some((u64::from_str_radix(who, 16).ok()?, decimal(at.as_bytes())?))
}

fn written(who: u64, at: u64) -> String {
    format!("{who:016x} {:010}\n", at.min(9_999_999_999))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: u64 = 1_767_610_800;
    const MESSAGE: &[u8] =
        b"Return-Path: <bob@x.org>\nDelivered-To: ann@example.com\nTo: ann@example.com\nSubject: tea\n\nhello\n";

    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let world = World { folder: tempfile::tempdir().unwrap() };
            fs::write(world.path("text"), "I am away.\n").unwrap();
            world
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Appends what it is given to the file `sent`.
        fn plan(&self, more: &[&str]) -> Result<Plan, String> {
            let sent = self.path("sent");
            let script = self.path("send");
            fs::write(
                &script,
                format!(
                    "echo \"$@\" >> {0}; cat >> {0}; test ! -e {1} || exit $(cat {1})\n",
                    sent.display(),
                    self.path("fail").display()
                ),
            )
            .unwrap();
            let (text, send) = (self.path("text"), format!("/bin/sh {}", script.display()));
            let mut args = vec!["-f", text.to_str().unwrap(), "-s", &send];
            args.extend_from_slice(more);
            let mut options = Options::new();
            own(&mut options);
            Plan::read(&options.parse(args).map_err(|error| error.to_string())?, None)
        }

        fn sent(&self) -> String {
            fs::read_to_string(self.path("sent")).unwrap_or_default()
        }
    }

    /// A fault as its sentence.
    fn respond(
        plan: &Plan,
        message: &[u8],
        variable: &dyn Fn(&str) -> Option<String>,
        now_secs: u64,
    ) -> Result<Done, String> {
        plan.respond(message, variable, now_secs).map_err(|fault| fault.to_string())
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_sender_is_answered_once_in_so_many_days() {
        let world = World::new();
        let plan = world.plan(&[]).unwrap();
        assert_eq!(respond(&plan, MESSAGE, &nothing, NOW), Ok(Done::Answered));
        let sent = world.sent();
        assert!(
            sent.starts_with("-i -f <> -- bob@x.org\nDate: Mon, 05 Jan 2026 11:00:00 +0000\nFrom: ann@example.com\n"),
            "{sent}"
        );
        assert!(sent.contains("Subject: Auto: tea\n") && sent.ends_with("\n\nI am away.\n"), "{sent}");
        let again = respond(&plan, MESSAGE, &nothing, NOW + DAYS * SECS_A_DAY - 1);
        assert!(matches!(again, Ok(Done::Silent(why)) if why.contains("bob@x.org was answered within 7 days")));
        // Whatever its case; but another one is answered, and the first again when the days are over.
        let upper = |name: &str| (name == "SENDER").then(|| "BOB@X.ORG".to_owned());
        assert!(matches!(respond(&plan, MESSAGE, &upper, NOW + 5), Ok(Done::Silent(_))));
        let other = |name: &str| (name == "SENDER").then(|| "eve@x.org".to_owned());
        assert_eq!(respond(&plan, MESSAGE, &other, NOW + 6), Ok(Done::Answered));
        assert_eq!(respond(&plan, MESSAGE, &nothing, NOW + DAYS * SECS_A_DAY), Ok(Done::Answered));
        let always = world.plan(&["-d", "0"]).unwrap();
        assert_eq!(respond(&always, MESSAGE, &nothing, NOW), Ok(Done::Answered));
        assert_eq!(world.sent().matches("-i -f").count(), 4);
    }

    #[test]
    fn the_envelope_is_the_environments_word_first() {
        let world = World::new();
        let plan = world.plan(&["-t", "-a", "<sales@example.com>", "-n", "Ann Bell"]).unwrap();
        let message = b"To: sales@example.com\n\nx\n";
        let told = |name: &str| match name {
            "SENDER" => Some("bob@x.org".to_owned()),
            "RECIPIENT" => Some("ann+x@example.com".to_owned()),
            "LOCAL" => Some("ann".to_owned()),
            "DOMAIN" => Some("example.com".to_owned()),
            _ => None,
        };
        let Ok(Done::Printed(answer)) = respond(&plan, message, &told, NOW) else { panic!() };
        assert!(answer.contains("From: \"Ann Bell\" <ann+x@example.com>\nTo: bob@x.org\n"), "{answer}");
        let plain = b"To: ann@example.com\n\nx\n";
        assert!(
            matches!(respond(&plan, plain, &told, NOW), Ok(Done::Printed(_))),
            "the address without its detail counts"
        );
        let null = |name: &str| told(name).map(|value| if name == "SENDER" { String::new() } else { value });
        let silent = respond(&plan, MESSAGE, &null, NOW);
        assert_eq!(silent, Ok(Done::Silent("the sender is nobody".to_owned())), "whatever Return-Path says");
        let unknown = respond(&world.plan(&[]).unwrap(), b"To: ann@example.com\n\n", &nothing, NOW);
        assert!(matches!(unknown, Ok(Done::Silent(why)) if why.contains("not known for whom")));
        assert_eq!(world.sent(), "", "-t sends nothing");
        assert!(!world.path("text.answered").exists());
    }

    #[test]
    fn what_cannot_be_sent_or_read_is_tried_again_and_nobody_counts_as_answered() {
        let world = World::new();
        let plan = world.plan(&[]).unwrap();
        fs::write(world.path("fail"), "75").unwrap();
        assert!(respond(&plan, MESSAGE, &nothing, NOW).unwrap_err().contains("sending with"));
        fs::remove_file(world.path("fail")).unwrap();
        assert_eq!(respond(&plan, MESSAGE, &nothing, NOW), Ok(Done::Answered));
        // What is refused for good is not tried for days.
        fs::write(world.path("fail"), "67").unwrap();
        let later = NOW + 100 * SECS_A_DAY;
        assert!(matches!(respond(&plan, MESSAGE, &nothing, later), Ok(Done::Silent(why)) if why.contains("not taken")));
        assert_eq!(world.sent().matches("-i -f").count(), 3);
        assert!(
            matches!(respond(&plan, MESSAGE, &nothing, later), Ok(Done::Silent(why)) if why.contains("was answered"))
        );
        fs::write(world.path("text"), "x".repeat(TEXT_BYTES as usize + 1)).unwrap();
        assert!(respond(&plan, MESSAGE, &nothing, NOW).is_err());
        fs::remove_file(world.path("text")).unwrap();
        assert!(respond(&plan, MESSAGE, &nothing, NOW).is_err());
        assert!(world.plan(&["-s", "/nowhere"]).is_err(), "named twice");
    }

    #[test]
    fn wrong_options_are_refused() {
        let world = World::new();
        for wrong in [&["-d", "x"][..], &["-d", "9999"], &["-a", "ann"], &["-a", "a b@x"], &["word"], &["-q"]] {
            assert!(world.plan(wrong).is_err(), "{wrong:?}");
        }
        let mut options = Options::new();
        own(&mut options);
        let read = |args: &[&str]| Plan::read(&options.parse(args).unwrap(), Some("/etc/x.conf".into()));
        assert!(read(&[]).unwrap_err().contains("-f FILE"));
        assert!(read(&["-f", "x", "-s", "a | b"]).is_err() && read(&["-f", "x", "-s", ""]).is_err());
        let plan = read(&["-f", "x"]).unwrap();
        assert_eq!(plan.send, [OWN_EXECUTABLE, "sendmail", "-C", "/etc/x.conf"]);
        assert_eq!((plan.answered, plan.days), ("x.answered".into(), DAYS));
    }

    #[test]
    fn the_file_of_who_was_answered_is_bounded_and_survives_what_it_finds() {
        let world = World::new();
        let path = world.path("answered");
        fs::write(&path, format!("{}garbage\n{}", written(1, NOW), &written(2, NOW)[..20])).unwrap();
        let mut answered = Answered::open(&path).unwrap();
        assert!(answered.has(1, NOW, 7).unwrap() && !answered.has(2, NOW, 7).unwrap());
        answered.note(3, NOW, 7).unwrap();
        assert!(answered.has(1, NOW, 7).unwrap() && answered.has(3, NOW, 7).unwrap());
        // Full of what is over: all of that goes.
        let old: String = (0..RECORDS as u64).map(|who| written(who, NOW - 8 * SECS_A_DAY)).collect();
        fs::write(&path, &old).unwrap();
        answered.note(RECORDS as u64, NOW, 7).unwrap();
        assert_eq!(answered.records().unwrap(), [(RECORDS as u64, NOW)]);
        assert_eq!(fs::metadata(&path).unwrap().len(), RECORD_BYTES as u64);
        // Full of what is not: the older half goes.
        let fresh: String = (0..RECORDS as u64).map(|who| written(who, NOW + who)).collect();
        fs::write(&path, &fresh).unwrap();
        answered.note(u64::MAX, NOW, 7).unwrap();
        let records = answered.records().unwrap();
        assert_eq!(
            (records.len(), records[0], records[RECORDS / 2]),
            (RECORDS / 2 + 1, (5000, NOW + 5000), (u64::MAX, NOW))
        );
    }

    #[test]
    fn a_whole_message_is_read_and_little_of_it_kept() {
        let mut input = io::repeat(b'x').take(HEADER_BYTES * 4);
        assert_eq!(read_message(&mut input).unwrap().len() as u64, HEADER_BYTES);
        assert_eq!(input.limit(), 0);
    }
}
