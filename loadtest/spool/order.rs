//! The command line of `loadtest spool`.

use std::path::{Path, PathBuf};

use dmail::sys::user::{self, User};

use crate::laws::Laws;
use crate::manifest::{ACCOUNTS_MOST, Manifest, Shape, Totals, is_drawn_login};

/// 2026-11-01 00:00 UTC. Fixed, so that the same order makes the same mail tomorrow.
const NOW_SECS: i64 = 1_793_491_200;
const SEED: u64 = 1;
const PASSWORD: &str = "secret";
const DOMAIN: &str = "example.test";
const DOMAIN_MOST: usize = 60;
const LOGIN_MOST: usize = 32;
/// More shapes than that fill any disk.
const SHAPES_MOST: usize = 100;
const THREADS_MOST: u64 = 64;

/// How the users' passwords are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// As they are: a check costs nothing.
    Plain,
    /// By crypt(3) with this setting, the same hash for all.
    Crypt(&'static str),
}

/// The kinds there are. One salt for all: a hash each would take hours for half a million users.
pub const HASHES: [(&str, Hash); 4] = [
    ("plain", Hash::Plain),
    ("md5", Hash::Crypt("$1$loadtest")),
    ("sha512", Hash::Crypt("$6$loadtest")),
    ("yescrypt", Hash::Crypt("$y$j9T$LoadtestLoadtest/....1")),
];

/// What is to be made.
#[derive(Debug)]
pub struct Order {
    pub dir: PathBuf,
    /// Without the totals.
    pub manifest: Manifest,
    pub hash: Hash,
    /// Whose the files are to be, and as whom the server is to run.
    pub run_as: Option<User>,
    dmail: Option<PathBuf>,
    pub threads: usize,
    pub dry_run: bool,
    pub check: bool,
}

/// What the command line asks for.
pub enum Asked {
    Help,
    Order(Box<Order>),
}

const USAGE_TEXT: &str = "loadtest spool DIR [--accounts N] [OPTION ...]

Makes DIR: N accounts with mail, users for nwauth, and a dmail.conf that serves them on ports of
loopback. Says first how much disk it takes; makes nothing where there is less. By the laws as they are,
500,000 accounts are 2.4 million messages, 11 GB and 502,000 inodes, and take a minute or two.";

fn options() -> getopts::Options {
    let mut options = getopts::Options::new();
    options.optopt("a", "accounts", "so many accounts, their mail drawn by the laws below", "N");
    options.optmulti(
        "",
        "shape",
        "one account more, called LOGIN (or as the shape), with the mail below",
        "SHAPE[:LOGIN]",
    );
    options.optmulti("", "law", "changes one of the laws below", "NAME=VALUE");
    options.optopt("s", "seed", "draws other mail; the same seed, the same mail (1)", "N");
    options.optopt("", "hash-spool", "how drops are spread over directories, as in dmail.conf: 0 to 3 (3)", "METHOD");
    options.optopt("", "date", "ages count back from this day (2026-11-01)", "YYYY-MM-DD");
    options.optopt("", "domain", "the accounts' domain (example.test)", "DOMAIN");
    options.optopt("", "password", "everybody's password (secret)", "WORD");
    options.optopt("", "hash", "how passwords are kept: plain, md5, sha512, yescrypt (plain)", "KIND");
    options.optopt("", "run-as", "as root: whose the mail is, and as whom the server runs", "USER");
    options.optopt("", "dmail", "the dmail that dmail.conf names (beside this program, or in PATH)", "FILE");
    options.optopt("", "threads", "so many threads write (one for each processor)", "N");
    options.optflag("n", "dry-run", "say what would be made, and how much disk it takes, and stop");
    options.optflag("", "check", "compare the drops of a made DIR with what was made, and make nothing");
    options.optflag("h", "help", "print this help");
    options
}

/// What `-h` prints.
pub fn page() -> String {
    let mut text = options().usage(&format!("usage: {USAGE_TEXT}"));
    text += "\nLaws (docs in loadtest/README.md):\n";
    for row in Laws::rows() {
        text += &format!("    {:18} {} ({})\n", row.name, row.help, row.default);
    }
    text += "\nShapes:\n";
    for (_, name, what) in Shape::ALL {
        text += &format!("    {name:18} {what}\n");
    }
    text
}

/// Reads the command line. Refuses with one sentence.
pub fn read(args: &[String]) -> Result<Asked, String> {
    let matches = options().parse(args).map_err(|why| why.to_string())?;
    if matches.opt_present("help") {
        return Ok(Asked::Help);
    }
    let number = |name: &str, default: u64, least: u64, most: u64| match matches.opt_str(name) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("--{name} {text}: it is a number from {least} to {most}")),
        },
    };
    let dir = match &matches.free[..] {
        [dir] => PathBuf::from(dir),
        [] => return Err("name the folder to make: loadtest spool DIR --accounts N".to_owned()),
        _ => return Err("name one folder: loadtest spool DIR --accounts N".to_owned()),
    };
    let check = matches.opt_present("check");
    let accounts = number("accounts", 0, 1, ACCOUNTS_MOST)?;
    let shapes = shapes(&matches.opt_strs("shape"))?;
    if accounts == 0 && shapes.is_empty() && !check {
        return Err("say how many accounts: --accounts N, or one by --shape".to_owned());
    }
    let mut laws = Laws::default();
    for law in matches.opt_strs("law") {
        laws.set(&law)?;
    }
    laws.agree()?;
    let password = matches.opt_str("password").unwrap_or_else(|| PASSWORD.to_owned());
    if password.is_empty() || password.len() > 128 || !password.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("--password: it is made of letters and digits, up to 128".to_owned());
    }
    let domain = matches.opt_str("domain").unwrap_or_else(|| DOMAIN.to_owned());
    let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if domain.is_empty() || domain.len() > DOMAIN_MOST || !domain.bytes().all(is_domain) {
        return Err(format!("--domain {domain}: it is a domain's name of up to {DOMAIN_MOST} letters"));
    }
    let hash = match matches.opt_str("hash") {
        None => Hash::Plain,
        Some(kind) => HASHES
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, hash)| *hash)
            .ok_or_else(|| format!("--hash {kind}: it is {}", HASHES.map(|(name, _)| name).join(", ")))?,
    };
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let manifest = Manifest {
        seed: number("seed", SEED, 0, u64::MAX)?,
        accounts,
        shapes,
        hash_spool: number("hash-spool", 3, 0, 3)? as u8,
        domain,
        password,
        now_secs: matches.opt_str("date").map_or(Ok(NOW_SECS), |text| date(&text))?,
        laws,
        totals: Totals::default(),
    };
    Ok(Asked::Order(Box::new(Order {
        dir,
        manifest,
        hash,
        run_as: matches.opt_str("run-as").map(|name| run_as(&name)).transpose()?,
        dmail: matches.opt_str("dmail").map(PathBuf::from),
        threads: number("threads", processors.min(THREADS_MOST), 1, THREADS_MOST)? as usize,
        dry_run: matches.opt_present("dry-run"),
        check,
    })))
}

fn shapes(asked: &[String]) -> Result<Vec<(Shape, String)>, String> {
    let mut shapes: Vec<(Shape, String)> = Vec::new();
    for text in asked {
        let (name, login) = text.split_once(':').unwrap_or((text, text));
        let shape = Shape::named(name)
            .ok_or_else(|| format!("--shape {name}: it is {}", Shape::ALL.map(|(_, name, _)| name).join(", ")))?;
        let is_login = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if login.is_empty() || login.len() > LOGIN_MOST || !login.bytes().all(is_login) {
            return Err(format!("--shape {text}: a login is made of small letters and digits, up to {LOGIN_MOST}"));
        }
        if is_drawn_login(login) || shapes.iter().any(|(_, other)| other == login) {
            return Err(format!("--shape {text}: another account is called {login}: say --shape {name}:LOGIN"));
        }
        shapes.push((shape, login.to_owned()));
    }
    match shapes.len() > SHAPES_MOST {
        true => Err(format!("--shape: {SHAPES_MOST} at the most")),
        false => Ok(shapes),
    }
}

fn date(text: &str) -> Result<i64, String> {
    let day: jiff::civil::Date = text.parse().map_err(|_| format!("--date {text}: it is a day, as in 2026-11-01"))?;
    let secs = day.to_zoned(jiff::tz::TimeZone::UTC).map_or(-1, |day| day.timestamp().as_second());
    match (0..=253_370_764_800).contains(&secs) {
        true => Ok(secs),
        false => Err(format!("--date {text}: it is a day from 1970 on")),
    }
}

fn run_as(name: &str) -> Result<User, String> {
    if !dmail::sys::access::is_root() {
        return Err("--run-as: only root can make files for somebody else; leave it out".to_owned());
    }
    let found = user::find(name).map_err(|error| format!("--run-as {name}: {error}"))?;
    found.ok_or_else(|| format!("--run-as {name}: there is no such user here"))
}

impl Order {
    /// The executable that dmail.conf is to name.
    pub fn dmail(&self) -> Result<PathBuf, String> {
        let advice = "say where it is: --dmail FILE";
        if let Some(named) = &self.dmail {
            let found = named.canonicalize().map_err(|error| format!("{}: {error}; {advice}", named.display()))?;
            return Ok(found);
        }
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|dir| dir.join("dmail")));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("dmail"));
        let found = beside.into_iter().chain(in_path).find(|file| file.is_file());
        found.ok_or_else(|| format!("there is no dmail beside this program, nor in PATH; {advice}"))
    }

    /// What `dir` is called where it does not matter from where one looks.
    pub fn whole(path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Order, String> {
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match read(&args)? {
            Asked::Order(order) => Ok(*order),
            Asked::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn options_are_understood() {
        let order =
            asked("d -a 10 -s 7 --hash-spool 1 --date 2027-01-02 --law small_mean=2 --shape deep --shape big:b7 -n");
        let order = order.unwrap();
        let manifest = &order.manifest;
        assert_eq!((manifest.accounts, manifest.seed, manifest.hash_spool, order.dry_run), (10, 7, 1, true));
        assert_eq!(manifest.now_secs, 1_798_848_000);
        assert_eq!(manifest.shapes, [(Shape::Deep, "deep".to_owned()), (Shape::Big, "b7".to_owned())]);
        assert_eq!(asked("d -a 1").unwrap().manifest.now_secs, date("2026-11-01").unwrap());
        assert_eq!(asked("d -h").unwrap_err(), "help");
        for row in Laws::rows() {
            assert!(page().contains(row.name));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        for (text, why) in [
            ("", "name the folder to make: loadtest spool DIR --accounts N"),
            ("a b -a 1", "name one folder: loadtest spool DIR --accounts N"),
            ("d", "say how many accounts: --accounts N, or one by --shape"),
            ("d -a 0", "--accounts 0: it is a number from 1 to 10000000"),
            ("d -a x", "--accounts x: it is a number from 1 to 10000000"),
            ("d -a 1 --hash-spool 4", "--hash-spool 4: it is a number from 0 to 3"),
            ("d -a 1 --hash slow", "--hash slow: it is plain, md5, sha512, yescrypt"),
            ("d -a 1 --date tomorrow", "--date tomorrow: it is a day, as in 2026-11-01"),
            ("d -a 1 --date 1969-12-31", "--date 1969-12-31: it is a day from 1970 on"),
            ("d -a 1 --password a:b", "--password: it is made of letters and digits, up to 128"),
            ("d -a 1 --domain a/b", "--domain a/b: it is a domain's name of up to 60 letters"),
            ("d --shape tall", "--shape tall: it is drop3000, gigabyte, big, deep"),
            ("d --shape big:a/b", "--shape big:a/b: a login is made of small letters and digits, up to 32"),
            ("d --shape big:ann0", "--shape big:ann0: another account is called ann0: say --shape big:LOGIN"),
            ("d --shape big --shape big", "--shape big: another account is called big: say --shape big:LOGIN"),
            (
                "d -a 1 --run-as no-such-user",
                match dmail::sys::access::is_root() {
                    true => "--run-as no-such-user: there is no such user here",
                    false => "--run-as: only root can make files for somebody else; leave it out",
                },
            ),
        ] {
            assert_eq!(asked(text).unwrap_err(), why);
        }
    }
}
