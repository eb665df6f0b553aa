//! `loadtest ledger`: the proof that no message is lost and none is there twice, whatever happens to the server.
//!
//! | file         | what it is                                                                        |
//! |--------------|-----------------------------------------------------------------------------------|
//! | `work.rs`    | what clients do, and what of it goes into the journal                              |
//! | `journal.rs` | the facts, on disk before the step that depends on them                            |
//! | `server.rs`  | the server under test: started, killed, waited for                                 |
//! | `faults.rs`  | what else is done to it from outside                                               |
//! | `helper.rs`  | an authenticator that is slow, dies or babbles                                     |
//! | `site.rs`    | a dmail site to be tested                                                          |
//! | `reading.rs` | drops, queue and sink, read by code that is not the server's                       |
//! | `verdict.rs` | the journal held against what was found                                            |
//! | `verify.rs`  | a run's folder judged, and the report                                              |
//!
//! A run's order: the server is started; clients work while it is killed and troubled; work ends, faults are undone; the
//! queue runs dry; every mailbox is looked at once more; the server is stopped; its files are read; the verdict.

mod faults;
mod helper;
mod journal;
pub mod reading;
mod server;
mod site;
#[cfg(test)]
mod tests;
mod verdict;
mod verify;
mod work;

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dmail::sys::access::is_root;
use getopts::{Matches, Options};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use serde_json::json;

use crate::args::{DONE, FAILED, USAGE, print};
use crate::meter::Meter;
use crate::run::{self, Ended, Pace, Run, Target};
use crate::sink;
use faults::{Fault, Killed, Scene};
use journal::{Fact, Journal};
use server::{Gate, Server};
use verify::Whereabouts;
use work::{Clerk, Crew, Manners};

const BRIEF: &str = "loadtest ledger DIR --dmail FILE [OPTION ...]
       loadtest ledger DIR --pop HOST:PORT --smtp HOST:PORT --accounts-file FILE --domain NAME [--serve COMMAND] [OPTION ...]
       loadtest ledger verify DIR
       loadtest ledger faults

Sends mail to a server, fetches and deletes it, kills the server meanwhile, and proves that each acknowledged
message is in exactly one place. What is known is in DIR/journal, on disk before anything depends on it; `verify`
judges a folder again. `faults` tells what each fault does and what must hold. DIR must not be there yet.
Exit codes: 0 clean, 1 a violation, or it is no proof and why, or the run failed, 2 wrong options, or a fault asked for by name cannot be made.";

/// Where what may be filled up lies, below the folder.
const DISK: &str = "disk";
/// Says to the process that it runs in a mount namespace of its own.
const MOUNTED: &str = "LOADTEST_LEDGER_MOUNTED";
/// Clients' patience with one reply: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(30);
/// A run with `--kills` and without `--duration` ends at the latest after so many times what is expected.
const MOST_TIMES: f64 = 10.0;
/// The last look's clients.
const LOOKERS: usize = 4;

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("", "dmail", "test this dmail: everything it needs is made in DIR", "FILE");
    options.optopt("", "serve", "start the server by this command, and kill what it starts", "COMMAND");
    options.optopt("", "pop", "its POP3 door", "HOST:PORT");
    options.optopt("", "smtp", "its SMTP door", "HOST:PORT");
    options.optopt("", "lmtp", "its LMTP door, where it has one", "HOST:PORT");
    options.optopt("", "accounts-file", "mailboxes: a line `LOGIN PASSWORD` each", "FILE");
    options.optopt("", "domain", "what their addresses end with", "NAME");
    options.optopt("", "spool", "where their mbox files are; else only POP3 says what is there", "DIR");
    options.optopt("", "hash-spool", "how files are spread below it: 0 to 3, as in dmail.conf (0)", "METHOD");
    options.optflag("", "keeps-dead", "what is deleted stays in those files for a while (dmail's do)");
    options.optopt("", "queue", "dmail's queue", "DIR");
    options.optopt("", "settled", "succeeds when the server has nothing more to deliver", "COMMAND");
    options.optopt("", "settle", "how long that may take (90)", "SECONDS");
    options.optopt("", "remote", "a domain of another host: some mail goes there too", "NAME");
    options.optopt("", "sink", "be that host, at this door", "HOST:PORT");
    options.optopt("", "sink-dir", "what was relayed lies here: a file a message", "DIR");
    options.optopt("", "accounts", "mailboxes made with --dmail (12)", "N");
    options.optopt("", "senders", "SMTP clients (8)", "N");
    options.optopt("", "lmtp-senders", "LMTP clients (3, where there is a door)", "N");
    options.optopt("", "readers", "POP3 clients (6)", "N");
    options.optopt("", "duration", "how long clients work (30, or until --kills)", "SECONDS");
    options.optopt("", "kill-every", "kill -9 at random moments, so far apart on average", "SECONDS");
    options.optopt("", "kills", "end after so many (with --kill-every, which is 2 then)", "N");
    for row in faults::ROWS {
        options.optflag("", row.name, row.does);
    }
    options.optopt("", "disk-size", "of --full-disk (64)", "MEGABYTES");
    options.optflag("", "all-faults", "all that this user can make");
    options.optopt("", "seed", "draw everything from this number", "N");
    options.optopt("", "json", "write counts and violations there too", "FILE");
    options.optflag("h", "help", "print this help");
    options
}

/// What `-h` prints.
pub fn page() -> String {
    options().usage(&format!("usage: {BRIEF}"))
}

fn refuse(why: &str) -> u8 {
    eprintln!("loadtest ledger: {why}\nusage: {}", BRIEF.lines().next().unwrap_or_default());
    USAGE
}

/// Runs it.
pub fn run(args: &[String]) -> u8 {
    if args.first().is_some_and(|word| word == "helper") {
        return helper::run(&args[1..]);
    }
    let matches = match options().parse(args) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error.to_string()),
    };
    if matches.opt_present("h") {
        print(&page());
        return DONE;
    }
    match &matches.free.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["faults"] => {
            print(&faults::table());
            DONE
        }
        ["verify", dir] => report(Path::new(dir), matches.opt_str("json"), &[]),
        [dir] => match Plan::read(dir, &matches) {
            Ok(plan) => plan.carry_out(args),
            Err(why) => refuse(&why),
        },
        _ => refuse("it takes one folder"),
    }
}

/// Judges a folder and says so.
fn report(dir: &Path, json: Option<String>, also: &[(&str, String)]) -> u8 {
    let judged = match verify::judge(dir) {
        Ok(judged) => judged,
        Err(why) => {
            eprintln!("loadtest ledger: {why}");
            return FAILED;
        }
    };
    let mut text = String::new();
    for (what, said) in also {
        text += &format!("  {said:>12}  {what}\n");
    }
    print(&(text + &judged.table()));
    if let Some(file) = json {
        let mut value = judged.json();
        value["run"] =
            also.iter().map(|(what, said)| ((*what).to_owned(), json!(said))).collect::<serde_json::Map<_, _>>().into();
        if let Err(error) = fs::write(&file, format!("{value:#}\n")) {
            eprintln!("loadtest ledger: {file}: {error}; name a file that can be written");
            return FAILED;
        }
    }
    if judged.verdict.is_clean() { DONE } else { FAILED }
}

/// What was asked for.
struct Plan {
    dir: PathBuf,
    dmail: Option<PathBuf>,
    serve: Option<String>,
    pop: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
    lmtp: Option<SocketAddr>,
    accounts: Vec<(String, String)>,
    domain: String,
    spool: Option<PathBuf>,
    hash_spool: u8,
    keeps_dead: bool,
    queue: Option<PathBuf>,
    settled: Option<String>,
    settle: Duration,
    remote: Option<String>,
    sink: Option<SocketAddr>,
    sink_dir: Option<PathBuf>,
    mailboxes: usize,
    senders: usize,
    lmtp_senders: usize,
    readers: usize,
    duration: Option<f64>,
    kill_every: Option<f64>,
    kills: Option<u64>,
    faults: Vec<Fault>,
    /// Not asked for one by one: those that cannot be made are left out.
    all_faults: bool,
    disk_megabytes: u64,
    seed: u64,
    json: Option<String>,
}

/// The number an option gives.
fn number<T: std::str::FromStr>(matches: &Matches, name: &str) -> Result<Option<T>, String> {
    let read = |word: String| word.parse().map_err(|_| format!("--{name} {word}: it takes a number"));
    matches.opt_str(name).map(read).transpose()
}

fn door(matches: &Matches, name: &str) -> Result<Option<SocketAddr>, String> {
    let read = |word: String| {
        let found = word.to_socket_addrs().ok().and_then(|mut all| all.next());
        found.ok_or_else(|| format!("--{name} {word}: it takes HOST:PORT"))
    };
    matches.opt_str(name).map(read).transpose()
}

/// The whole path an option gives, so that a run's folder can be judged from anywhere.
fn whole(matches: &Matches, name: &str) -> Result<Option<PathBuf>, String> {
    let read = |word: String| std::path::absolute(&word).map_err(|error| format!("--{name} {word}: {error}"));
    matches.opt_str(name).map(read).transpose()
}

fn read_accounts(path: &str) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}; name a file that can be read"))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let accounts: Option<Vec<_>> =
        lines.map(|line| line.split_once(' ').map(|(l, p)| (l.to_owned(), p.to_owned()))).collect();
    let accounts = accounts.ok_or_else(|| format!("{path}: each line has to say LOGIN PASSWORD"))?;
    let is_good =
        |login: &str| !login.is_empty() && !login.contains([',', ' ']) && !login.chars().any(char::is_control);
    match accounts.iter().find(|(login, _)| !is_good(login)) {
        Some((login, _)) => Err(format!("{path}: {login:?} is no login that an address can begin with")),
        None if accounts.is_empty() => Err(format!("{path}: it names no mailbox")),
        None => Ok(accounts),
    }
}

impl Plan {
    fn read(dir: &str, matches: &Matches) -> Result<Plan, String> {
        let all_faults = matches.opt_present("all-faults");
        let asked = faults::ROWS.iter().filter(|row| all_faults || matches.opt_present(row.name)).map(|row| row.fault);
        let kills = number(matches, "kills")?;
        let positive = |name: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value < 1e9) => Err(format!("--{name}: it takes seconds, more than none")),
            value => Ok(value),
        };
        let plan = Plan {
            dir: PathBuf::from(dir),
            dmail: matches.opt_str("dmail").map(PathBuf::from),
            serve: matches.opt_str("serve"),
            pop: door(matches, "pop")?,
            smtp: door(matches, "smtp")?,
            lmtp: door(matches, "lmtp")?,
            accounts: matches.opt_str("accounts-file").map_or(Ok(Vec::new()), |path| read_accounts(&path))?,
            domain: matches.opt_str("domain").unwrap_or_default(),
            spool: whole(matches, "spool")?,
            hash_spool: number(matches, "hash-spool")?.unwrap_or_default(),
            keeps_dead: matches.opt_present("keeps-dead") || matches.opt_present("dmail"),
            queue: whole(matches, "queue")?,
            settled: matches.opt_str("settled"),
            settle: Duration::from_secs(number(matches, "settle")?.unwrap_or(90)),
            remote: matches.opt_str("remote"),
            sink: door(matches, "sink")?,
            sink_dir: whole(matches, "sink-dir")?,
            mailboxes: number(matches, "accounts")?.unwrap_or(12),
            senders: number(matches, "senders")?.unwrap_or(8),
            lmtp_senders: number(matches, "lmtp-senders")?.unwrap_or(3),
            readers: number(matches, "readers")?.unwrap_or(6),
            duration: positive("duration", number(matches, "duration")?)?,
            kill_every: positive("kill-every", number(matches, "kill-every")?)?.or(kills.map(|_| 2.0)),
            kills,
            faults: asked.collect(),
            all_faults,
            disk_megabytes: number(matches, "disk-size")?.unwrap_or(64),
            seed: number(matches, "seed")?.unwrap_or_else(|| since_1970().subsec_nanos().into()),
            json: matches.opt_str("json"),
        };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        if self.dmail.is_none() {
            if self.pop.is_none() || self.smtp.is_none() || self.accounts.is_empty() || self.domain.is_empty() {
                return Err("without --dmail it has to know --pop, --smtp, --accounts-file and --domain".to_owned());
            }
            if self.kill_every.is_some() && self.serve.is_none() {
                return Err("--kill-every kills only what was started: say by --serve how".to_owned());
            }
        } else if self.serve.is_some() || !self.accounts.is_empty() {
            return Err("--dmail makes a server and its mailboxes: leave --serve and --accounts-file out".to_owned());
        }
        for (named, needed, fault, name) in [
            (self.serve.is_some(), self.dmail.is_some(), Fault::StopCont, "--stop-cont needs --serve or --dmail"),
            (self.spool.is_some(), self.dmail.is_some(), Fault::HeldLocks, "--held-locks needs --spool or --dmail"),
            (self.spool.is_some(), self.dmail.is_some(), Fault::Foreign, "--foreign needs --spool or --dmail"),
        ] {
            if self.has(fault) && !self.all_faults && !named && !needed {
                return Err(name.to_owned());
            }
        }
        if self.hash_spool > 3 {
            return Err("--hash-spool is 0, 1, 2 or 3".to_owned());
        }
        if self.mailboxes == 0 || self.senders + self.lmtp_senders + self.readers == 0 {
            return Err("there must be a mailbox and a client".to_owned());
        }
        if self.sink.is_some() && self.remote.is_none() {
            return Err("--sink takes mail for another domain: name it by --remote".to_owned());
        }
        Ok(())
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn carry_out(mut self, args: &[String]) -> u8 {
        if self.has(Fault::FullDisk) && std::env::var_os(MOUNTED).is_none() {
            if is_root() {
                // The small file system is seen by nobody else, and is gone with the last of us.
                let error = Command::new("unshare")
                    .args(["--mount", "--propagation", "private", "--"])
                    .arg(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("loadtest")))
                    .arg("ledger")
                    .args(args)
                    .env(MOUNTED, "1")
                    .exec();
                eprintln!("loadtest ledger: unshare: {error}; install util-linux, or leave --full-disk out");
                return FAILED;
            }
            eprintln!("loadtest ledger: --full-disk needs root, to mount a small file system: it is left out");
            if !self.all_faults {
                return USAGE;
            }
            self.faults.retain(|&fault| fault != Fault::FullDisk);
        }
        match self.go() {
            Ok(code) => code,
            Err(why) => {
                eprintln!("loadtest ledger: {why}");
                FAILED
            }
        }
    }

    fn go(mut self) -> Result<u8, String> {
        let named = |path: &Path, error: std::io::Error| format!("{}: {error}; name a new folder", path.display());
        fs::create_dir(&self.dir).map_err(|error| named(&self.dir, error))?;
        self.dir = self.dir.canonicalize().map_err(|error| named(&self.dir, error))?;
        let disk = self.dir.join(DISK);
        fs::create_dir(&disk).map_err(|error| named(&disk, error))?;
        if self.has(Fault::FullDisk) {
            let size = format!("size={}m,mode=0755", self.disk_megabytes);
            succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk))?;
        }
        self.make_site()?;
        let (run, written_secs) = (self.seed ^ since_1970().as_nanos() as u64, since_1970().as_secs() as i64);
        let at = Whereabouts {
            run: run & !(1 << 63),
            seed: self.seed,
            domain: self.domain.clone(),
            spool: self.spool.clone(),
            hash_spool: self.hash_spool,
            keeps_dead: self.keeps_dead,
            queue: self.queue.clone(),
            sink: self.sink_dir.clone(),
        };
        at.write(&self.dir).map_err(|error| named(&self.dir, error))?;
        let journal = Arc::new(Journal::create(&self.dir).map_err(|error| named(&self.dir, error))?);
        let at = Arc::new(Whereabouts::read(&self.dir)?);
        let gate = Arc::new(Gate::default());
        let numbers = Arc::new(AtomicU64::new(1));
        let doors: Vec<SocketAddr> = [self.pop, self.smtp].into_iter().flatten().collect();
        let server = self.serve.as_ref().map(|command| Server::new(command, &self.dir, doors, gate.clone()));
        let scene = Scene {
            journal: journal.clone(),
            gate: gate.clone(),
            at: at.clone(),
            logins: Arc::new(self.accounts.iter().map(|(login, _)| login.clone()).collect()),
            numbers: numbers.clone(),
            seed: self.seed,
            written_secs,
        };
        if let Some(door) = self.sink {
            let listener = TcpListener::bind(door).map_err(|error| format!("--sink {door}: {error}"))?;
            let (notes, run) = (journal.clone(), at.run);
            let take = move |mark: reading::Mark, recipients: &[String]| {
                if mark.run == run {
                    recipients.iter().for_each(|to| notes.note(&Fact::Sunk { seq: mark.seq, to }));
                    notes.sync();
                }
            };
            sink::listen(listener, Arc::new(take));
        }
        match &server {
            Some(server) => drop(server.start()?),
            None => {
                if let Some(door) = [self.pop, self.smtp].into_iter().flatten().find(|&door| !server::greets(door)) {
                    return Err(format!("nobody greets at {door}; start the server, or say by --serve how"));
                }
                gate.set(true);
            }
        }
        print(&format!("seed {}, journal {}\n", self.seed, self.dir.join(journal::NAME).display()));
        let crew = Crew {
            accounts: self.accounts.clone(),
            domain: self.domain.clone(),
            remote: self.remote.clone(),
            smtp: self.senders,
            lmtp: if self.lmtp.is_some() { self.lmtp_senders } else { 0 },
            pop: self.readers,
            manners: Manners { resets: self.has(Fault::Resets), half_open: self.has(Fault::HalfOpen) },
            run: at.run,
            written_secs,
        };
        let clerk = Clerk::new(crew, journal.clone(), gate.clone(), Pcg64::seed_from_u64(self.seed), numbers);
        let (clerk, killed, stopped) = self.work(clerk, &scene, server.as_ref())?;
        // From here on nothing is done to it any more.
        gate.set(true);
        if let Some(words) = server.as_ref().and_then(Server::ended) {
            return Err(words);
        }
        self.await_quiet(&journal);
        let mut look = clerk.last_look();
        let looking = Run { pace: Pace::Closed { clients: LOOKERS }, ..self.engine(Duration::from_secs(600)) };
        run::run(&looking, &mut look, &mut Meter::default(), &mut |_, _| {}).map_err(|error| error.to_string())?;
        journal.sync();
        for (login, why) in look.closed() {
            print(&format!("{login} could not be opened at the end: {why}\n"));
        }
        let stopping = server.as_ref().and_then(Server::stop);
        if self.has(Fault::FullDisk) {
            self.keep_disk(&disk)?;
        }
        if let Some(why) = journal.trouble() {
            return Err(why);
        }
        if stopped {
            print("stopped before its time\n");
        }
        if let Some(words) = &stopping {
            print(&format!("{words}\n"));
        }
        let (_, syncs) = journal.counts();
        let mut also = vec![("syncs of the journal", syncs.to_string())];
        if server.is_some() {
            let mut times = killed.times.clone();
            times.sort();
            let at = |part: f64| {
                let place = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
                times.get(place).map_or_else(|| "-".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1000.0))
            };
            also.extend([
                ("kills", times.len().to_string()),
                ("starts after a kill that failed, and were tried again", killed.failed_starts.to_string()),
                ("ms from a kill until it served again, median", at(0.5)),
                ("ms from a kill until it served again, longest", at(1.0)),
            ]);
        }
        let code = report(&self.dir, self.json, &also);
        Ok(if stopping.is_some() { FAILED } else { code })
    }

    fn make_site(&mut self) -> Result<(), String> {
        let Some(dmail) = &self.dmail else { return Ok(()) };
        let mut helper = Vec::new();
        if self.has(Fault::SlowHelper) || self.has(Fault::DyingHelper) {
            let own = std::env::current_exe().map_err(|error| format!("this executable: {error}"))?;
            helper.extend([own.to_string_lossy().into_owned(), "ledger".into(), "helper".into()]);
            helper.extend(self.has(Fault::SlowHelper).then(|| "--slow".to_owned()));
            helper.extend(self.has(Fault::DyingHelper).then(|| "--dying".to_owned()));
            helper.push("--".to_owned());
        }
        let site = site::make(&self.dir, DISK, dmail, self.mailboxes, &helper)?;
        self.serve = Some(site.command);
        (self.pop, self.smtp, self.lmtp) = (Some(site.pop), Some(site.smtp), Some(site.lmtp));
        self.accounts = site.accounts;
        self.domain = site::DOMAIN.to_owned();
        (self.spool, self.queue) = (Some(site.spool), Some(site.queue));
        Ok(())
    }

    fn engine(&self, duration: Duration) -> Run {
        Run {
            target: Target { pop: self.pop, smtp: self.smtp, lmtp: self.lmtp, ..Target::default() },
            duration,
            patience: PATIENCE,
            loose_sizes: true,
            seed: self.seed,
            ..Run::default()
        }
    }

    /// Clients work while the server is troubled.
    fn work(&self, mut clerk: Clerk, scene: &Scene, server: Option<&Server>) -> Result<(Clerk, Killed, bool), String> {
        let expected =
            self.kills.zip(self.kill_every).map(|(kills, every)| (kills as f64 + 1.0) * (every + 3.0) * MOST_TIMES);
        let duration = Duration::from_secs_f64(self.duration.or(expected).unwrap_or(30.0));
        let engine = Run { pace: Pace::Closed { clients: clerk.clients() }, ..self.engine(duration) };
        let gate = &scene.gate;
        thread::scope(|scope| {
            if self.has(Fault::HeldLocks) {
                scope.spawn(|| scene.hold_locks());
            }
            if self.has(Fault::Foreign) {
                scope.spawn(|| scene.append());
            }
            if let Some(server) = server.filter(|_| self.has(Fault::StopCont)) {
                scope.spawn(|| scene.freeze(server));
            }
            if self.has(Fault::FullDisk) {
                scope.spawn(|| scene.fill(&self.dir.join(DISK)));
            }
            let killer = server.zip(self.kill_every).map(|(server, every)| {
                scope.spawn(move || {
                    let killed = scene.kill(server, every, self.kills);
                    gate.close();
                    killed
                })
            });
            let mut meter = Meter::default();
            let mut said = Instant::now();
            let ended = run::run(&engine, &mut clerk, &mut meter, &mut |_, since| {
                // A line now and then, for who waits for hundreds of kills.
                if said.elapsed() > Duration::from_secs(30) {
                    said = Instant::now();
                    let (facts, _) = scene.journal.counts();
                    eprintln!("{:.0} s: {facts} facts", since.as_secs_f64());
                }
                if let Some(server) = server.filter(|_| self.kill_every.is_none())
                    && server.ended().is_some()
                {
                    gate.close();
                }
            });
            gate.close();
            let killed = match killer.map(thread::ScopedJoinHandle::join) {
                Some(Ok(killed)) => killed?,
                Some(Err(_)) => return Err("the killer panicked: what it said is above".to_owned()),
                None => Killed::default(),
            };
            let ended = ended.map_err(|error| format!("the engine: {error}"))?;
            Ok((clerk, killed, ended == Ended::Stopped))
        })
    }

    /// Waits until nothing is on its way any more, and notes it.
    fn await_quiet(&self, journal: &Journal) {
        let began = Instant::now();
        let is_quiet = || {
            let queue_is_dry = || {
                // Relayed mail may wait for long: only a queue without any is dry.
                let queue = self.queue.as_ref().map(|queue| self.dir.join(queue));
                let is_empty = |queue: &Path| {
                    let mut found = false;
                    let looked = reading::files(queue, &mut |_| {
                        found = true;
                        Ok(())
                    });
                    // A directory of it may go while we look.
                    looked.is_ok() && !found
                };
                queue.is_none_or(|queue| is_empty(&queue))
            };
            match &self.settled {
                Some(command) => {
                    Command::new("/bin/sh").args(["-c", command]).status().is_ok_and(|status| status.success())
                }
                None => queue_is_dry(),
            }
        };
        while began.elapsed() < self.settle {
            if is_quiet() {
                journal.note(&Fact::Settled { millis: began.elapsed().as_millis() as u64 });
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        journal.note(&Fact::Restless { millis: began.elapsed().as_millis() as u64 });
    }

    /// What is on the small file system outlives it.
    fn keep_disk(&self, disk: &Path) -> Result<(), String> {
        let kept = self.dir.join("kept");
        succeed(Command::new("cp").arg("-a").arg(disk).arg(&kept))?;
        succeed(Command::new("umount").arg(disk))?;
        fs::remove_dir(disk)
            .and_then(|()| fs::rename(&kept, disk))
            .map_err(|error| format!("{}: {error}", kept.display()))
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Runs a program that has to succeed.
fn succeed(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
