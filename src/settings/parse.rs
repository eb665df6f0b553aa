//! Files into [`Settings`], with a complaint for each thing that is wrong.
//!
//! Lines are taken as they come; what is not written gets its default at the end, then settings that must agree are compared.
//! A file never hangs or floods us: files, their size and depth, and complaints are bounded.

use std::collections::HashSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::complaint::{Complaint, Level, Place, worst};
use super::kind::{Value, short};
use super::rows::{self, ROWS, Row, Unused};
use super::sending::{self, Logins};
use super::{BareNewline, Command, HideAuth, LogLevel, Method, PlainAuth, QuotaReply, SendsOver, Settings, TlsFile};
use crate::rules::domains::{self, Cited, Domains, Naming, Objection, Plan, Reach};
use crate::rules::hops::Table as Hops;
use crate::rules::relay;
use crate::sys::access;
use crate::sys::files::{self, Opener};
use crate::text::nearest::nearest;
use crate::text::number::Fraction;
use crate::text::words::{Manner, Trouble, Word, is_blank, words};

/// A configuration is read into memory; a larger file is something else.
const FILE_BYTES: u64 = 1 << 20;
/// How deep `#include` may go: deep enough for any arrangement, shallow enough to be followed by a person.
const DEPTH: usize = 8;
/// How many files may be read in all: files that each include several could otherwise multiply at each level.
const FILES: usize = 256;
/// After that many complaints reading ends: this is no configuration.
const COMPLAINTS: usize = 100;

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The settings; `None` when there is an error among the complaints.
    pub settings: Option<Settings>,
    /// Everything there is to say, in the order of the file.
    pub complaints: Vec<Complaint>,
}

/// Reads the configuration `path` and what it includes. Reads nothing else: see [`judge`](super::judge()) for what it names.
pub fn load(path: &Path) -> Loaded {
    load_by(path, &files::open_to_read)
}

/// The same, each file being opened by `open`.
pub fn load_by(path: &Path, open: &Opener<'_>) -> Loaded {
    let mut reader = Reader::new(path, open);
    let whole = reader.settings.place("");
    let read = reader.file(path, &whole, 0);
    reader.settle(read)
}

/// The same for a text that would stand in the file `path`.
pub fn load_text(path: &Path, text: &[u8]) -> Loaded {
    let mut reader = Reader::new(path, &files::open_to_read);
    reader.text(&Arc::from(path), text, 0);
    reader.settle(true)
}

/// What somebody needs to know who only hands something to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Office {
    /// The main domain.
    pub domain: String,
    /// Where the server's work files are.
    pub work_path: PathBuf,
}

/// Reads as much of `path` as says that, whatever else is wrong with it: a server that runs goes on with the configuration that
/// it has, and mail shall come to it all the same. Refuses with the first complaint.
pub fn office(path: &Path) -> Result<Office, Complaint> {
    let mut reader = Reader::new(path, &files::open_to_read);
    let place = Place { file: path.into(), line: 0, column: 0 };
    reader.file(path, &place, 0);
    let Settings { host_domain, work_path, .. } = reader.settings;
    match host_domain.into_iter().next() {
        Some(domain) if !work_path.as_os_str().is_empty() => Ok(Office { domain, work_path }),
        _ => {
            let text = "it names no host_domain or no work_path".to_owned();
            let first = reader.complaints.into_iter().find(|complaint| complaint.level == Level::Error);
            Err(first.unwrap_or(Complaint { level: Level::Error, place, text }))
        }
    }
}

struct Reader<'o> {
    open: &'o Opener<'o>,
    settings: Settings,
    /// The directory that relative paths start from.
    base: PathBuf,
    complaints: Vec<Complaint>,
    /// Device and inode of the files we are inside of, the main file first.
    inside: Vec<(u64, u64)>,
    /// How many files were read.
    files: usize,
    /// Names of [`Unused`] that were spoken of.
    spoken: Vec<&'static str>,
}

impl<'o> Reader<'o> {
    fn new(path: &Path, open: &'o Opener<'o>) -> Reader<'o> {
        // Only a missing current directory or an empty name make this fail; opening the file says so better than we can.
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = file.parent().unwrap_or(Path::new("/")).to_owned();
        let (complaints, inside, spoken) = (Vec::new(), Vec::new(), Vec::new());
        Reader { open, settings: blank(file, path.into()), base, complaints, inside, files: 0, spoken }
    }

    fn complain(&mut self, level: Level, place: &Place, text: impl Into<String>) {
        self.complaints.push(Complaint { level, place: place.clone(), text: text.into() });
    }

    fn is_full(&self) -> bool {
        self.complaints.len() >= COMPLAINTS
    }

    /// Reads one file, and says whether it could; `named` is where it was named.
    fn file(&mut self, path: &Path, named: &Place, depth: usize) -> bool {
        let refuse = |reader: &mut Reader, why: String| {
            reader.complain(Level::Error, named, why);
            false
        };
        let what = if depth == 0 { "this file".to_owned() } else { path.display().to_string() };
        self.files += 1;
        if self.files > FILES {
            return refuse(self, format!("this would be the {}th file: include fewer", self.files));
        }
        let opened = (self.open)(path).and_then(|file| Ok((file.metadata()?, file)));
        let (about, file) = match opened {
            Ok((about, file)) if about.is_file() => (about, file),
            Ok(_) => return refuse(self, format!("{what} is not a regular file: name a file")),
            Err(error) => {
                let remedy = if depth == 0 { "; `dmail settings --sample` prints one to begin with" } else { "" };
                return refuse(self, format!("{what} cannot be read: {error}{remedy}"));
            }
        };
        if about.len() > FILE_BYTES {
            return refuse(self, format!("{what} has more than {FILE_BYTES} bytes: is it a configuration?"));
        }
        let itself = (about.dev(), about.ino());
        if self.inside.contains(&itself) {
            return refuse(self, format!("{what} includes itself: take this line out"));
        }
        let mut bytes = Vec::new();
        if let Err(error) = file.take(FILE_BYTES).read_to_end(&mut bytes) {
            return refuse(self, format!("{what} cannot be read: {error}"));
        }
        self.settings.files.push(path.to_owned());
        let file: Arc<Path> = path.into();
        if about.permissions().mode() & 0o002 != 0 {
            // Who can write it chooses the programs we run.
            let level = if access::is_root() { Level::Error } else { Level::Warning };
            let whole = Place { file: file.clone(), line: 0, column: 0 };
            self.complain(level, &whole, format!("everybody may write to it: `chmod o-w {}`", path.display()));
        }
        self.inside.push(itself);
        self.text(&file, &bytes, depth);
        self.inside.pop();
        true
    }

    fn text(&mut self, file: &Arc<Path>, text: &[u8], depth: usize) {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if self.is_full() {
                let place = Place { file: file.clone(), line: index + 1, column: 0 };
                if self.complaints.len() == COMPLAINTS {
                    self.complain(Level::Error, &place, "that is enough: nothing was read from here on");
                }
                return;
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Err(Trouble { column, text }) = self.line(file, index + 1, line, depth) {
                let place = Place { file: file.clone(), line: index + 1, column };
                self.complain(Level::Error, &place, text);
            }
        }
    }

    fn line(&mut self, file: &Arc<Path>, number: usize, line: &[u8], depth: usize) -> Result<(), Trouble> {
        let line = match std::str::from_utf8(line) {
            Ok(line) => line,
            Err(error) => {
                let good = String::from_utf8_lossy(&line[..error.valid_up_to()]);
                return Err(Trouble::at(good.chars().count() + 1, "this is not UTF-8: save the file as UTF-8"));
            }
        };
        if let Some(at) = line.chars().position(|c| c.is_control() && c != '\t') {
            return Err(Trouble::at(at + 1, "a control character: take it out"));
        }
        let indent = line.chars().take_while(|&c| is_blank(c)).count();
        let bare = &line[indent..]; // blanks are one byte each
        let name = bare.split(is_blank).next().unwrap_or_default();
        let place = Place { file: file.clone(), line: number, column: indent + 1 };
        let behind = indent + name.chars().count() + 1;
        if name == "#include" {
            return self.include(&place, &words(line, behind, Manner::Plain)?, depth);
        }
        if name.is_empty() || name.starts_with('#') {
            return Ok(());
        }
        if let Some(row) = rows::find(name) {
            return self.setting(row, place, line, behind);
        }
        match rows::unused(name) {
            Some((name, unused)) => self.unused(name, unused, &place),
            None => self.unknown(name, &place),
        }
        Ok(())
    }

    fn setting(&mut self, row: &'static Row, place: Place, line: &str, behind: usize) -> Result<(), Trouble> {
        let places = self.settings.places.entry(row.name).or_default();
        if let Some(first) = places.first()
            && !row.repeatable
        {
            let first = first.seen_from(&place);
            return Err(Trouble::at(place.column, format!("{} is set already {first}: keep one of them", row.name)));
        }
        places.push(place);
        let words = words(line, behind, row.kind.manner())?;
        let value = Value { name: row.name, kind: &row.kind, column: behind, words: &words, base: &self.base };
        (row.set)(&mut self.settings, &value)
    }

    fn include(&mut self, place: &Place, words: &[Word], depth: usize) -> Result<(), Trouble> {
        let [word] = words else {
            let text = "#include takes one file, in quotes when blanks belong to its name; a comment would begin with `# include`";
            return Err(Trouble::at(place.column, text));
        };
        if depth == DEPTH {
            return Err(Trouble::at(
                place.column,
                format!("#include goes {DEPTH} deep and no deeper: name the file further up"),
            ));
        }
        let path = place.file.parent().unwrap_or(Path::new("")).join(&word.text);
        self.file(&path, &Place { column: word.column, ..place.clone() }, depth + 1);
        Ok(())
    }

    fn unused(&mut self, name: &'static str, unused: &'static Unused, place: &Place) {
        if self.spoken.contains(&name) {
            return;
        }
        self.spoken.push(name);
        let level = if unused.matters { Level::Warning } else { Level::Note };
        let stands = if unused.later { "is known but not used by this version" } else { "is needed no more" };
        self.complain(level, place, format!("{name} {stands}: {}", unused.why));
    }

    fn unknown(&mut self, name: &str, place: &Place) {
        let shown = short(name);
        let text = match name.split_once(['=', ':']) {
            Some((before, _)) if rows::find(before).is_some() => {
                format!("`{shown}` is not known and ignored: a blank parts name and value, write `{before} ...`")
            }
            _ => match nearest(name, rows::names()) {
                Some(meant) => format!("`{shown}` is not known and ignored: did you mean {meant}?"),
                None => format!("`{shown}` is not known and ignored: `dmail settings` lists what is"),
            },
        };
        self.complain(Level::Warning, place, text);
    }

    /// Gives what is not written its default, and compares what must agree. `read` tells whether there was a file at all.
    fn settle(mut self, read: bool) -> Loaded {
        let whole = self.settings.place("");
        for row in ROWS {
            if self.settings.places.contains_key(row.name) {
                continue;
            }
            // Our own authenticator is at hand.
            let waived = row.name == "authent_process" && self.settings.authent_method == Method::UnixUser;
            if row.required && read && !waived {
                let text = format!("{} is missing: add a line like `{0} {}`", row.name, row.example);
                self.complain(Level::Error, &whole, text);
            }
            let defaults = match row.follows {
                Some(other) => (rows::find(other).expect("a test looks for each").show)(&self.settings),
                None if row.default.is_empty() => continue,
                None => vec![row.default.to_owned()],
            };
            for default in defaults {
                let words =
                    words(&default, 1, row.kind.manner()).expect("a default is written well: a test reads each");
                let value = Value { name: row.name, kind: &row.kind, column: 1, words: &words, base: &self.base };
                // Only a path that is still blank, because its own setting was refused, is refused here.
                let _ = (row.set)(&mut self.settings, &value);
            }
        }
        if worst(&self.complaints) != Some(Level::Error) {
            draw_domains(&mut self.settings, &mut self.complaints);
            self.settings.hops = sending::hops(&self.settings);
        }
        if worst(&self.complaints) != Some(Level::Error) {
            agree(&self.settings, &mut self.complaints);
        }
        let settings = (worst(&self.complaints) != Some(Level::Error)).then_some(self.settings);
        Loaded { settings, complaints: self.complaints }
    }
}

/// Settings in which nothing is set, not even by default.
pub(super) fn blank(file: PathBuf, named: Arc<Path>) -> Settings {
    Settings {
        file,
        named,
        places: Default::default(),
        files: Vec::new(),
        run_as: None,
        host_domain: Vec::new(),
        drop_path: PathBuf::new(),
        drop_root: Vec::new(),
        hash_spool: 0,
        bin_path: None,
        bin_pfull: Fraction::HALF,
        vdomain: Vec::new(),
        vdomain_separator: '_',
        drop_prefix: true,
        alt_drop_path: Vec::new(),
        domains: Domains::default(),
        add_status: false,
        bulletin_path: None,
        bulletin_from: String::new(),
        hide_old_bulls: false,
        lock_method: Vec::new(),
        hash_bindir: false,
        min_space: 0,
        min_uid: 0,
        gateway: None,
        route: Vec::new(),
        sender_route: Vec::new(),
        hops: Hops::default(),
        logins: Logins::default(),
        smtp_out_port: 0,
        send_name: None,
        send_address: Vec::new(),
        send_connections: 0,
        send_connections_max: 0,
        send_connect_secs: 0,
        send_greeting_secs: 0,
        send_command_secs: 0,
        send_mail_secs: 0,
        send_rcpt_secs: 0,
        send_data_secs: 0,
        send_block_secs: 0,
        send_dot_secs: 0,
        send_quit_secs: 0,
        send_idle_secs: 0,
        send_session_secs: 0,
        dns_host: Vec::new(),
        dns_timeout: 0,
        etrn_from_ip: Default::default(),
        body_memory: 0,
        delivery_min_space: 0,
        retry_schedule: Default::default(),
        queue_life: 0,
        bounce_life: 0,
        possibly_secs: 0,
        delay_warning: 0,
        success_reports: true,
        bounce_body: false,
        bounce_max_size: 0,
        merge_repeats: true,
        work_path: PathBuf::new(),
        work_path_once: OnceLock::new(),
        log_path: PathBuf::new(),
        log_level: LogLevel::Info,
        control_group: None,
        submit_group: None,
        pickup_secs: 0,
        log_max_size: 0,
        stats_path: None,
        oneline_stats: false,
        sysadmin: None,
        alias_file: None,
        alias_file_domain: Vec::new(),
        alias_fallthrough: true,
        forward: Vec::new(),
        forward_cc: Vec::new(),
        catch_all: Vec::new(),
        recipient_delimiter: None,
        no_dotforward: false,
        drop_max: 0,
        quota_reply: QuotaReply::Temporary,
        quota_warn: 0,
        authent_method: Method::External,
        authent_process: Command::default(),
        authent_number: 0,
        authent_timeout: 0,
        authent_domain: false,
        authent_cache: 0,
        authent_cache_hours: 0,
        auth_nocache: false,
        apop_enable: false,
        valid_users: Default::default(),
        drop_must_exist: false,
        user_ip_address: Default::default(),
        user_ip_name: Default::default(),
        lookup_names: false,
        max_per_user: 0,
        login_delay_secs: 0,
        expire_days: None,
        max_per_prefix: 0,
        prefix_bits_v4: 0,
        prefix_bits_v6: 0,
        trusted_networks: Default::default(),
        penalty_max_secs: 0,
        forward_from_ip: Default::default(),
        relay_to: Default::default(),
        forward_user: Default::default(),
        forward_user_minutes: 0,
        forward_from: Default::default(),
        sender_must_match: true,
        ban_ip: Default::default(),
        ban_ip_except: Default::default(),
        ban_mailfrom: Default::default(),
        ban_rcptto: Default::default(),
        sends_per_hour: 0,
        sends_per_day: 0,
        sends_over: SendsOver::Refuse,
        fromip_max: 0,
        fromip_nolimit: Default::default(),
        bind_address: Vec::new(),
        pop_port: 0,
        pops_port: 0,
        smtp_port: 0,
        submission_port: 0,
        smtps_port: 0,
        lmtp_port: 0,
        smtp_max_size: 0,
        max_rcpts: 0,
        smtp_max_hops: 0,
        smtp_header_lines: 0,
        smtp_header_kbytes: 0,
        smtp_line_bytes: 0,
        bare_newline: BareNewline::Normalize,
        hide_auth: HideAuth::Nobody,
        smtp_greeting_hold_secs: 0,
        smtp_greeting_secs: 0,
        smtp_command_secs: 0,
        smtp_data_secs: 0,
        smtp_max_errors: 0,
        tls_cert: Vec::new(),
        tls_key: Vec::new(),
        plain_auth: PlainAuth::Local,
        plain_networks: Default::default(),
        hide_version: false,
        pop3_idle_secs: 0,
        pop3_login_secs: 0,
        max_connections: 0,
        max_errors: 0,
        robot_path: None,
        robot_user: None,
        user_robots: false,
        robot_secs: 0,
        robot_number: 0,
        robot_output: 0,
    }
}

/// Each directory of drop files once, the main domain's first.
fn spools(settings: &Settings) -> Vec<&Path> {
    let mut seen = HashSet::new();
    let all = [&*settings.drop_path].into_iter().chain(settings.domains.all_drops());
    all.filter(|drops| seen.insert(*drops)).collect()
}

/// The table of domains, and their directories as roots unless others are named.
fn draw_domains(settings: &mut Settings, complaints: &mut Vec<Complaint>) {
    let naming = Naming {
        separator: settings.vdomain_separator,
        drop_prefix: settings.drop_prefix,
        authent_domain: settings.authent_domain,
        hash_spool: settings.hash_spool,
    };
    let (drawn, objections) = domains::draw(Plan {
        main: &settings.host_domain,
        drops: &settings.drop_path,
        lines: &settings.vdomain,
        elsewhere: &settings.alt_drop_path,
        naming,
    });
    settings.domains = drawn;
    if !settings.places.contains_key("drop_root") {
        settings.drop_root = spools(settings).into_iter().map(Path::to_owned).collect();
    }
    for Objection { fatal, at, other, what, remedy } in objections {
        let place = |cited: Cited| match cited {
            Cited::Line(index) => settings.place_of("vdomain", index),
            Cited::Elsewhere(index) => settings.place_of("alt_drop_path", index),
            Cited::Main => settings.place_of("host_domain", 0),
            Cited::Drops => settings.place("drop_path"),
        };
        let (at, other) = (place(at), other.map(place));
        let other = other.map_or(String::new(), |other| format!(" ({})", other.seen_from(&at)));
        let level = if fatal { Level::Error } else { Level::Warning };
        complaints.push(Complaint { level, place: at, text: format!("{what}{other}: {remedy}") });
    }
}

/// What must agree between settings that are right each for itself.
fn agree(settings: &Settings, complaints: &mut Vec<Complaint>) {
    let mut complain = |level, name: &str, text: String| {
        complaints.push(Complaint { level, place: settings.place(name), text });
    };
    let ports = [
        ("pop_port", settings.pop_port),
        ("pops_port", settings.pops_port),
        ("smtp_port", settings.smtp_port),
        ("submission_port", settings.submission_port),
        ("smtps_port", settings.smtps_port),
        ("lmtp_port", settings.lmtp_port),
    ];
    for (index, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..index].iter().find(|(_, other)| other == port && *port != 0) {
            complain(Level::Error, name, format!("{name} and {other} are both {port}: change one, or set one to 0"));
        }
    }
    for address in &settings.bind_address {
        let all = settings.bind_address.iter().find(|all| all.is_unspecified() && all.is_ipv4() == address.is_ipv4());
        if let Some(all) = all.filter(|all| *all != address) {
            let text = format!("bind_address {all} covers {address}: take one of them out");
            complain(Level::Error, "bind_address", text);
        }
    }
    for (index, line) in settings.vdomain.iter().enumerate() {
        let Reach::Addresses(addresses) = &line.reach else { continue };
        let bound = |address: &IpAddr| address.is_unspecified() || addresses.contains(*address);
        if !settings.bind_address.iter().any(bound) {
            let text = format!("nobody can connect to {addresses}: bind_address has none of them, add it there");
            complaints.push(Complaint { level: Level::Warning, place: settings.place_of("vdomain", index), text });
        }
    }
    let domains = settings.catch_all.iter().map(|line| ("catch_all", &line.domain));
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let files = settings.alias_file_domain.iter().map(|line| ("alias_file_domain", &line.domain));
    for (index, (name, domain)) in domains.enumerate().chain(files.enumerate()) {
        let text = match settings.domains.canonical(domain) {
            None => format!("{domain} is no domain of ours: name a host_domain, or a domain that has a vdomain line"),
            Some((first, _)) if seen.contains(&(name, first)) => {
                format!("{domain} is another name of {first}, which has a {name} already: keep one of them")
            }
            Some((first, _)) => {
                seen.push((name, first));
                continue;
            }
        };
        complaints.push(Complaint { level: Level::Error, place: settings.place_of(name, index), text });
    }
    let mut complain = |level, name: &str, text: String| {
        complaints.push(Complaint { level, place: settings.place(name), text });
    };
    let alone = |of: &[TlsFile], partners: &[TlsFile]| {
        let same = |file: &TlsFile, other: &&TlsFile| file.domain == other.domain;
        let count = |files: &[TlsFile], file: &TlsFile| files.iter().filter(|other| same(file, other)).count();
        of.iter().find(|file| count(of, file) > count(partners, file)).cloned()
    };
    for (name, of, partner, partners) in [
        ("tls_cert", &settings.tls_cert, "tls_key", &settings.tls_key),
        ("tls_key", &settings.tls_key, "tls_cert", &settings.tls_cert),
    ] {
        if let Some(file) = alone(of, partners) {
            let domain = file.domain.map(|domain| format!(" {domain}")).unwrap_or_default();
            let text = format!(
                "{name} {}{domain} has no {partner}: add `{partner} FILE{domain}`, the same file when it holds both",
                file.path.display()
            );
            complain(Level::Error, name, text);
        }
    }
    let written = settings.places.contains_key("drop_root");
    for drops in spools(settings).into_iter().filter(|_| written) {
        if !settings.drop_root.iter().any(|root| drops.starts_with(root)) {
            let text = format!("no drop_root covers {}: add `drop_root` lines for all spools in use", drops.display());
            complain(Level::Warning, "drop_root", text);
        }
    }
    if !settings.plain_networks.is_empty() && settings.plain_auth != PlainAuth::Local {
        let text = format!("plain_networks means nothing while plain_auth is {}", settings.plain_auth.name());
        complain(Level::Warning, "plain_networks", text);
    }
    if settings.robot_path.is_none() {
        let needs = |name: &str| format!("{name} needs a robot_path: the directory of the programs that may be run so");
        if settings.user_robots {
            complain(Level::Error, "user_robots", needs("user_robots"));
        }
        if settings.robot_user.is_some() && settings.run_as.is_some() && settings.robot_user != settings.run_as {
            complain(Level::Error, "robot_user", needs("robot_user"));
        }
    }
    if !settings.user_ip_name.is_everything() && !settings.lookup_names {
        let text = "user_ip_name needs the names of hosts: add `lookup_names true`, or use user_ip_address".to_owned();
        complain(Level::Error, "user_ip_name", text);
    }
    relaying(settings, complaints);
    sending::agree(settings, complaints);
}

/// What would make an open relay of this server, and what means nothing.
fn relaying(settings: &Settings, complaints: &mut Vec<Complaint>) {
    let mut say = |level, name: &str, text: &str| {
        complaints.push(Complaint { level, place: settings.place(name), text: text.to_owned() });
    };
    let addresses = &settings.forward_from_ip;
    if relay::is_for_strangers(addresses) {
        let text = "forward_from_ip lets half the world send to anywhere: an open relay is found within a day; name your own \
                    networks";
        say(Level::Warning, "forward_from_ip", text);
    } else if ![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].iter().any(|home| addresses.contains(*home)) {
        let text =
            "forward_from_ip has no 127.0.0.1: programs of this machine that send by smtp_port reach users here alone";
        say(Level::Note, "forward_from_ip", text);
    }
    if relay::is_anywhere(&settings.relay_to) {
        let text =
            "relay_to lets everybody send to everywhere: an open relay is found within a day; name whole domains";
        say(Level::Warning, "relay_to", text);
    }
    if !settings.forward_from.is_empty() {
        let list = &settings.forward_from;
        let text = format!(
            "forward_from: whoever says that he is {list} may send to anywhere, and anybody can say so: use \
             forward_from_ip or a login"
        );
        say(Level::Warning, "forward_from", &text);
    }
    let is_written = |name| settings.places.contains_key(name);
    let unbound = settings.sends_per_hour == 0 && settings.sends_per_day == 0;
    for (means_nothing, name, why) in [
        (settings.forward_user.is_empty(), "forward_user_minutes", "without a forward_user"),
        (settings.ban_ip.is_empty(), "ban_ip_except", "without a ban_ip"),
        (unbound, "sends_over", "while sends_per_hour and sends_per_day are 0"),
        (
            settings.hide_auth == HideAuth::RecentPop && settings.forward_user.is_empty(),
            "hide_auth",
            "as recentpop without a forward_user",
        ),
    ] {
        if means_nothing && is_written(name) {
            say(Level::Warning, name, &format!("{name} means nothing {why}"));
        }
    }
}
