//! Options that several commands have, and exit codes.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use getopts::{Matches, Options};

use crate::accounts::Accounts;
use crate::run::{Pace, Run, Spacing, Target};
use crate::work::{Task, Tls};

/// It did what it was asked, and nothing was wrong.
pub const DONE: u8 = 0;
/// It could not, or something was lost or wrong.
pub const FAILED: u8 = 1;
/// It was asked in a way it does not understand.
pub const USAGE: u8 = 2;

/// More clients than that have no descriptors on any machine this runs on.
const CLIENTS_MOST: u64 = 1_000_000;
/// Arrivals a second: one thread begins fewer.
const RATE_MOST: f64 = 1_000_000.0;

/// Writes to standard output; that nobody reads on (`loadtest -h | head`) is no failure.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Reads the options of a command whose usage text begins with how it is called; `add` adds them. `Err` is the exit code
/// when there is nothing left to do.
pub fn read(args: &[String], usage: &str, add: impl FnOnce(&mut Options)) -> Result<Matches, u8> {
    let options = all(add);
    match options.parse(args) {
        Ok(matches) if matches.opt_present("h") => {
            print(&help(&options, usage));
            Err(DONE)
        }
        Ok(matches) => Ok(matches),
        Err(error) => Err(refuse(&error.to_string(), usage)),
    }
}

/// What `-h` prints for the command that calls [`read`] with the same.
pub fn page(usage: &str, add: impl FnOnce(&mut Options)) -> String {
    help(&all(add), usage)
}

/// Says what is wrong with a command line; the exit code.
pub fn refuse(why: &str, usage: &str) -> u8 {
    eprintln!("{why}\nusage: {}", usage.lines().next().unwrap_or_default());
    USAGE
}

fn all(add: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::new();
    options.optflag("h", "help", "print this help");
    add(&mut options);
    options
}

fn help(options: &Options, usage: &str) -> String {
    options.usage(&format!("usage: {}", usage.trim_end()))
}

/// The options of whoever loads a server.
pub fn load(options: &mut Options) {
    options.optopt("", "spool", "accounts and ports of a folder that loadtest spool made", "DIR");
    options.optopt("", "pop", "POP3 server", "HOST:PORT");
    options.optopt("", "pops", "the same, TLS from the first octet", "HOST:PORT");
    options.optopt("", "smtp", "SMTP server for mail from outside", "HOST:PORT");
    options.optopt("", "submission", "SMTP server for mail of users", "HOST:PORT");
    options.optopt("", "smtps", "the same, TLS from the first octet", "HOST:PORT");
    options.optopt("", "lmtp", "where LMTP is served", "HOST:PORT");
    options.optopt("", "accounts", "how many accounts there are by --login and --password (1)", "N");
    options.optopt("", "first", "the number of the first one (0)", "N");
    options.optopt("", "login", "their names, with a place for the number (u%06d)", "RULE");
    options.optopt("", "password", "their passwords (secret)", "RULE");
    options.optopt("", "accounts-file", "accounts, a line LOGIN PASSWORD for each", "FILE");
    options.optopt("", "domain", "the domain of their addresses (example.test)", "DOMAIN");
    options.optopt("c", "clients", "closed loop: so many clients, each begins anew when it is done (10)", "N");
    options.optopt("r", "rate", "open loop: so many begin each second, whatever the server does", "N");
    options.optopt("", "most", "open loop: so many may be under way at a time (10000, or the accounts)", "N");
    options.optflag("", "even", "open loop: in even steps; without it at random (Poisson)");
    options.optopt("", "ramp", "let clients or rate grow from none for so long, uncounted (0)", "TIME");
    options.optopt("", "warm-up", "after that, do not count for so long (0)", "TIME");
    options.optopt("d", "duration", "count for so long: 30, 30s, 10m, 24h (30s)", "TIME");
    options.optopt("", "patience", "how long one reply may take, and the rest after the end (60s)", "TIME");
    options.optopt("", "sources", "come from so many addresses of 127/8 (as many as ports are needed)", "N");
    options.optopt("", "seed", "for what is drawn (1): the same seed draws the same", "N");
    options.optflag("", "loose-sizes", "do not hold announced sizes against the server");
    options.optflag("", "only-ours", "a message that loadtest did not make is an error");
    options.optopt("", "json", "write what was measured into this file", "FILE");
    options.optopt("", "html", "write a page with plots", "FILE");
    options.optopt("p", "pid", "look at this process and its children beside it: the server", "PID");
    options.optflag("q", "quiet", "no live view");
}

/// A load, as the command line has it.
pub struct Load {
    pub run: Run,
    pub accounts: Arc<Accounts>,
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
    /// The server to be looked at.
    pub pid: Option<u32>,
    pub quiet: bool,
}

impl Load {
    /// Reads it from options that [`load`] added. `usual_rate`: that of the open loop it is where neither --clients nor --rate
    /// is said; None: a closed one then. Refuses with one sentence.
    pub fn new(matches: &Matches, usual_rate: Option<f64>) -> Result<Load, String> {
        if let Some(word) = matches.free.first() {
            return Err(format!("{word}: nothing is expected beside options"));
        }
        let spool = matches.opt_str("spool").map(PathBuf::from);
        let conf = spool.as_deref().map(Conf::read).transpose()?.unwrap_or_default();
        let door = |option: &str, port: &str| match (matches.opt_str(option), conf.port(port)) {
            (Some(text), _) => address(option, &text).map(Some),
            (None, Some(text)) => address("spool", &text).map(Some),
            (None, None) => Ok(None),
        };
        let target = Target {
            pop: door("pop", "pop_port")?,
            pops: door("pops", "pops_port")?,
            smtp: door("smtp", "smtp_port")?,
            submission: door("submission", "submission_port")?,
            smtps: door("smtps", "smtps_port")?,
            lmtp: door("lmtp", "lmtp_port")?,
            name: String::new(),
        };
        let domain = matches.opt_str("domain").or_else(|| conf.value("host_domain"));
        let domain = domain.unwrap_or_else(|| "example.test".to_owned());
        let file = matches.opt_str("accounts-file").map(PathBuf::from);
        let made = spool.filter(|_| file.is_none() && !matches.opt_present("accounts"));
        let accounts = match (&file, &made) {
            (Some(file), _) => Accounts::load(file, &domain)?,
            (None, Some(dir)) => Accounts::load(&dir.join("accounts"), &domain)?,
            (None, None) => {
                let rule = |option: &str, usual: &str| matches.opt_str(option).unwrap_or_else(|| usual.to_owned());
                let (login, password) = (rule("login", "u%06d"), rule("password", "secret"));
                let count = number(matches, "accounts", 1, 1, u64::MAX)?;
                Accounts::rule(count, number(matches, "first", 0, 0, u64::MAX / 2)?, &login, &password, &domain)?
            }
        };
        let run = Run {
            target,
            pace: pace(matches, accounts.count(), usual_rate)?,
            ramp: time(matches, "ramp", 0)?,
            warm_up: time(matches, "warm-up", 0)?,
            duration: time(matches, "duration", 30)?,
            patience: time(matches, "patience", 60)?,
            loose_sizes: matches.opt_present("loose-sizes"),
            only_ours: matches.opt_present("only-ours"),
            own_spools: made.is_some(),
            sources: number(matches, "sources", 0, 1, 250)? as usize,
            seed: number(matches, "seed", 1, 0, u64::MAX)?,
        };
        let file = |option| matches.opt_str(option).map(PathBuf::from);
        let pid = number(matches, "pid", 0, 1, u64::from(u32::MAX))? as u32;
        Ok(Load {
            run,
            accounts: Arc::new(accounts),
            json: file("json"),
            html: file("html"),
            pid: (pid > 0).then_some(pid),
            quiet: matches.opt_present("quiet"),
        })
    }

    /// Refuses work that no door is given for.
    pub fn has_door(&self, task: &Task) -> Result<(), String> {
        let door = self.run.target.door(task);
        door.map(drop).map_err(|option| format!("no server is given: say {option} HOST:PORT, or --spool DIR"))
    }

    /// Refuses more clients than there are accounts: a maildrop opens for one at a time.
    pub fn has_accounts_enough(&self) -> Result<(), String> {
        let (most, count) = (self.run.pace.most() as u64, self.accounts.count());
        if most > count {
            return Err(format!(
                "{most} clients at a time and {count} accounts: a maildrop opens for one at a time; give fewer clients \
                 (--clients, --most) or more accounts"
            ));
        }
        Ok(())
    }
}

/// `usual_rate`: an open loop where neither loop is asked for.
fn pace(matches: &Matches, accounts: u64, usual_rate: Option<f64>) -> Result<Pace, String> {
    let is_closed = matches.opt_present("clients");
    let per_sec = match (matches.opt_str("rate"), usual_rate) {
        (Some(_), _) if is_closed => {
            return Err("--clients is for a closed loop and --rate for an open one: say one of them".to_owned());
        }
        (Some(rate), _) => {
            let per_sec = rate.parse().ok().filter(|rate| (0.001..=RATE_MOST).contains(rate));
            per_sec.ok_or_else(|| format!("--rate {rate}: it is a number of arrivals a second, up to {RATE_MOST}"))?
        }
        (None, Some(per_sec)) if !is_closed => per_sec,
        (None, _) => {
            if let Some(option) = ["most", "even"].into_iter().find(|option| matches.opt_present(option)) {
                return Err(format!("--{option} belongs to an open loop: say --rate, and not --clients"));
            }
            return Ok(Pace::Closed { clients: number(matches, "clients", 10, 1, CLIENTS_MOST)? as usize });
        }
    };
    let spacing = if matches.opt_present("even") { Spacing::Even } else { Spacing::Poisson };
    Ok(Pace::Open { per_sec, most: number(matches, "most", accounts.min(10_000), 1, CLIENTS_MOST)? as usize, spacing })
}

/// How lines are encrypted, of an option `tls`.
pub fn tls(matches: &Matches) -> Result<Tls, String> {
    match matches.opt_str("tls").as_deref() {
        None | Some("no") => Ok(Tls::Plain),
        Some("start") => Ok(Tls::StartTls),
        Some("yes") => Ok(Tls::Tls),
        Some(word) => Err(format!("--tls {word}: it is no, start (STLS, STARTTLS) or yes (from the first octet)")),
    }
}

/// An option that is a number.
pub fn number(matches: &Matches, option: &str, usual: u64, least: u64, most: u64) -> Result<u64, String> {
    let Some(text) = matches.opt_str(option) else { return Ok(usual) };
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("--{option} {text}: it is a number from {least} to {most}"))
}

/// An option that is a time, in seconds unless it says otherwise.
pub fn time(matches: &Matches, option: &str, usual_secs: u64) -> Result<Duration, String> {
    let Some(text) = matches.opt_str(option) else { return Ok(Duration::from_secs(usual_secs)) };
    duration(&text)
        .ok_or_else(|| format!("--{option} {text}: it is a time up to a month, as in 30, 500ms, 30s, 10m, 24h"))
}

fn duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let found = units.into_iter().find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, millis)));
    let (digits, millis) = found.unwrap_or((text, 1000));
    let count: u64 = digits.parse().ok()?;
    let millis = count.checked_mul(millis).filter(|&millis| millis <= 31 * 24 * 3_600_000)?;
    Some(Duration::from_millis(millis))
}

fn address(option: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("--{option} {text}: {why}; give a host and a port, as in 127.0.0.1:110");
    let mut found = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no address is known for it".to_owned()))
}

/// What the dmail.conf of a made spool says of its ports.
#[derive(Default)]
struct Conf(String);

impl Conf {
    fn read(dir: &Path) -> Result<Conf, String> {
        let path = dir.join("dmail.conf");
        let text = std::fs::read_to_string(&path);
        text.map(Conf).map_err(|error| format!("{}: {error}; name a folder that loadtest spool made", path.display()))
    }

    fn value(&self, name: &str) -> Option<String> {
        let values = self.0.lines().filter_map(|line| line.trim().split_once(' '));
        values.filter(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned()).next()
    }

    /// Port 0 is none.
    fn port(&self, name: &str) -> Option<String> {
        let port = self.value(name).filter(|port| port != "0")?;
        Some(format!("{}:{port}", self.value("bind_address").unwrap_or_else(|| "127.0.0.1".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Line, Port, SmtpTask};

    fn loaded(line: &str) -> Result<Load, String> {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Load::new(&read(&words, "loadtest test", load).map_err(|code| code.to_string())?, None)
    }

    #[test]
    fn a_day_is_an_open_loop_unless_a_closed_one_is_asked_for() {
        let pace = |line: &[&str]| {
            let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            let matches = read(&words, "loadtest test", load).unwrap();
            Load::new(&matches, Some(50.0)).map(|load| load.run.pace)
        };
        let open = |per_sec| Ok(Pace::Open { per_sec, most: 1, spacing: Spacing::Poisson });
        assert_eq!((pace(&[]), pace(&["-r", "3"])), (open(50.0), open(3.0)));
        assert_eq!(pace(&["-c", "3"]), Ok(Pace::Closed { clients: 3 }));
        assert!(pace(&["-c", "3", "--even"]).is_err() && pace(&["--even"]).is_ok());
    }

    #[test]
    fn work_without_a_server_is_refused_before_it_begins() {
        let task = |tls| {
            Task::Smtp(SmtpTask {
                kind: "x",
                port: Port::Submission,
                auth: None,
                mails: Vec::new(),
                line: Line { tls, ..Line::default() },
            })
        };
        let load = loaded("--submission 127.0.0.1:587").unwrap();
        assert_eq!(load.has_door(&task(Tls::StartTls)), Ok(()));
        let why = load.has_door(&task(Tls::Tls)).unwrap_err();
        assert_eq!(why, "no server is given: say --smtps HOST:PORT, or --spool DIR");
    }

    #[test]
    fn a_pace_is_closed_or_open() {
        assert_eq!(loaded("").unwrap().run.pace, Pace::Closed { clients: 10 });
        assert_eq!(loaded("-c 3").unwrap().run.pace, Pace::Closed { clients: 3 });
        let open = Pace::Open { per_sec: 2.5, most: 7, spacing: Spacing::Even };
        assert_eq!(loaded("-r 2.5 --most 7 --even").unwrap().run.pace, open);
        for wrong in ["-c 0", "-r 0", "-r x", "-r 1 -c 1", "--even", "--most 1"] {
            assert!(loaded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, secs) in [("90", 90.0), ("1500ms", 1.5), ("2s", 2.0), ("10m", 600.0), ("24h", 86_400.0)] {
            assert_eq!(duration(text).map(|time| time.as_secs_f64()), Some(secs));
        }
        for wrong in ["", "s", "-1", "1d", "99999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_made_spool_says_where_its_server_is_and_who_its_accounts_are() {
        let dir = tempfile::tempdir().unwrap();
        let conf = "# ours\nhost_domain a.test\nbind_address 127.0.0.1\npop_port 12110\npops_port 0\n";
        std::fs::write(dir.path().join("dmail.conf"), conf).unwrap();
        std::fs::write(dir.path().join("accounts"), "u1 x\nu2 y\n").unwrap();
        let found = loaded(&format!("--spool {}", dir.path().display())).unwrap();
        assert_eq!(found.run.target.pop, Some("127.0.0.1:12110".parse().unwrap()));
        assert_eq!((found.run.target.pops, found.accounts.address(1)), (None, "u2@a.test".to_owned()));
        assert!(found.run.own_spools && loaded("--spool /nowhere/at/all").is_err());
    }

    #[test]
    fn more_clients_than_accounts_are_refused() {
        assert!(loaded("--accounts 5 -c 6").unwrap().has_accounts_enough().is_err());
        assert!(loaded("--accounts 6 -c 6").unwrap().has_accounts_enough().is_ok());
        assert_eq!(loaded("--accounts 6 -r 1").unwrap().run.pace.most(), 6);
    }
}
