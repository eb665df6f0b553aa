//! Does what the settings name exist, and can we use it? For `dmail check` and for the start of a server.
//!
//! Looks only: no directory is made, no file is touched, no program is run. Whether a certificate is a good one is judged by
//! whoever speaks TLS.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::complaint::{Complaint, Level, Place};
use super::{Group, LockMethod, Method, PlainAuth, Settings};
use crate::sys::access::{self, Right};
use crate::sys::files::{self, Opener};
use crate::sys::user::{self, User};
use crate::sys::{group, process};

/// A chain of certificates is a few thousand bytes; this is no PEM file any more.
const PEM_BYTES: u64 = 1 << 20;

/// With whose rights things are looked at.
#[derive(Clone, Copy)]
pub struct Rights<'a> {
    /// How files are opened that the launcher would open.
    pub open: &'a Opener<'a>,
    /// There is a launcher, which has more rights than we have.
    pub launched: bool,
}

impl Rights<'_> {
    /// Our own, whatever they are.
    pub const OWN: Rights<'static> = Rights { open: &files::open_to_read, launched: false };
}

/// Everything about the world around these settings that the operator should know, errors for what no server could work
/// with. As root with a `run_as`, directories are judged as that user would find them.
pub fn judge(settings: &Settings, rights: &Rights<'_>) -> Vec<Complaint> {
    let mut judge = Judge { settings, rights, user: None, complaints: Vec::new() };
    judge.run_as();
    judge.folder("work_path", &settings.work_path, Use::Write);
    if settings.places.contains_key("log_path") {
        judge.folder("log_path", &settings.log_path, Use::Write);
    }
    if let Some(stats) = &settings.stats_path {
        judge.folder("stats_path", stats, Use::Write);
    }
    judge.folder("drop_path", &settings.drop_path, Use::Read);
    judge.domains();
    if settings.places.contains_key("drop_root") {
        for root in &settings.drop_root {
            judge.folder("drop_root", root, Use::Read);
        }
    }
    if let Some(board) = &settings.bulletin_path {
        judge.folder("bulletin_path", board, Use::Read);
    }
    if let Some(bins) = &settings.bin_path {
        judge.folder("bin_path", bins, Use::Write);
    }
    judge.locks();
    judge.authenticator();
    for cert in &settings.tls_cert {
        judge.pem("tls_cert", &cert.path, "CERTIFICATE-----");
    }
    for key in &settings.tls_key {
        judge.pem("tls_key", &key.path, "PRIVATE KEY-----");
        judge.secret(&key.path);
    }
    judge.groups();
    judge.logins();
    judge.robots();
    judge.complaints
}

/// What a directory is for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Read,
    Write,
}

struct Judge<'a> {
    settings: &'a Settings,
    rights: &'a Rights<'a>,
    /// Whom the server will be, when that is not who looks.
    user: Option<User>,
    complaints: Vec<Complaint>,
}

impl Judge<'_> {
    fn complain(&mut self, level: Level, name: &str, text: String) {
        let place = self.settings.place(name);
        self.complaints.push(Complaint { level, place, text });
    }

    /// Who will serve, and whether root can trust what it is told to help with.
    fn run_as(&mut self) {
        let Some(name) = &self.settings.run_as else { return };
        let root = access::is_root();
        let text = match user::find(name) {
            Err(error) => format!("run_as: {name} cannot be looked up: {error}"),
            Ok(None) => {
                format!("run_as: there is no user {name}: `useradd -r -M -s /usr/sbin/nologin {name}` makes one")
            }
            Ok(Some(user)) if user.uid == 0 => "run_as: root is what the server shall not be: take this line out, or \
                                                name a user of its own"
                .to_owned(),
            Ok(Some(user)) if !root => {
                if user.uid != process::own_uid() {
                    let text =
                        format!("run_as means nothing when {name} or another user starts the server, only for root");
                    self.complain(Level::Note, "run_as", text);
                }
                return;
            }
            Ok(Some(user)) => {
                self.user = Some(user);
                for path in &self.settings.files {
                    if let Err(why) =
                        files::open_to_read(path).map_err(|error| error.to_string()).and_then(|file| trust(path, &file))
                    {
                        let place = Place { file: path.as_path().into(), line: 0, column: 0 };
                        self.complaints.push(Complaint { level: Level::Error, place, text: why });
                    }
                }
                return;
            }
        };
        self.complain(Level::Error, "run_as", text);
    }

    /// Programs that are given mail.
    fn robots(&mut self) {
        if let Some(approved) = &self.settings.robot_path {
            self.folder("robot_path", approved, Use::Read);
            if self.user.is_some()
                && let Err(why) = trust_folder(approved)
            {
                self.complain(Level::Error, "robot_path", why);
            }
        }
        let Some(name) = &self.settings.robot_user else { return };
        let text = match user::find(name) {
            Ok(Some(user)) if user.uid != 0 => return,
            Ok(Some(_)) => "robot_user: root runs no programs that are given mail: name another user".to_owned(),
            Ok(None) => format!("robot_user: there is no user {name}"),
            Err(error) => format!("robot_user: {name} cannot be looked up: {error}"),
        };
        self.complain(Level::Error, "robot_user", text);
    }

    fn may(&self, path: &Path, right: Right) -> io::Result<()> {
        match &self.user {
            Some(user) => access::granted(user, path, right),
            None => access::may(path, right),
        }
    }

    fn folder(&mut self, name: &str, path: &Path, purpose: Use) {
        if let Some(text) = self.unusable(name, path, purpose) {
            self.complain(Level::Error, name, text);
        }
    }

    /// Why the directory that the setting `name` names cannot be used, if so.
    fn unusable(&self, name: &str, path: &Path, purpose: Use) -> Option<String> {
        let shown = path.display();
        Some(match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{name}: there is no directory {shown}: make it (`mkdir -p {shown}`) or name another")
            }
            Err(error) => format!("{name}: {shown} cannot be used: {error}"),
            Ok(about) if !about.is_dir() => format!("{name}: {shown} is not a directory: name one"),
            Ok(_) => {
                let more = if purpose == Use::Read { Right::Read } else { Right::Write };
                let error = self.may(path, Right::Execute).and_then(|()| self.may(path, more)).err()?;
                let verb = if purpose == Use::Read { "read" } else { "written" };
                let who = self.user.as_ref().map_or("the user this runs as", |user| &user.name);
                format!("{name}: {shown} cannot be {verb} by {who}: {error}; give it to that user")
            }
        })
    }

    /// Directories of virtual domains. One that is missing is one domain's trouble: all others can be served. Two names of one
    /// directory are everybody's: its users cannot be told apart by their paths.
    fn domains(&mut self) {
        let settings = self.settings;
        let lines = settings.vdomain.iter().enumerate().map(|(at, line)| ("vdomain", at, &line.drops));
        let moved = settings.alt_drop_path.iter().enumerate().map(|(at, line)| ("alt_drop_path", at, &line.drops));
        let mut looked_at = HashSet::from([&settings.drop_path]);
        let mut seen = HashMap::new();
        seen.extend(identity(&settings.drop_path).map(|itself| (itself, &settings.drop_path)));
        for (name, at, path) in lines.chain(moved) {
            if !looked_at.insert(path) {
                continue;
            }
            let place = settings.place_of(name, at);
            if let Some(other) = identity(path).and_then(|itself| seen.insert(itself, path)) {
                let text = format!(
                    "{name}: {} is the same directory as {}: write it by one path only",
                    path.display(),
                    other.display()
                );
                self.complaints.push(Complaint { level: Level::Error, place, text });
            } else if let Some(text) = self.unusable(name, path, Use::Read) {
                self.complaints.push(Complaint { level: Level::Warning, place, text });
            }
        }
    }

    /// Dotlocks, and bins that lie beside the drops, need a directory that can be written.
    fn locks(&mut self) {
        let settings = self.settings;
        let needed = settings.lock_method.contains(&LockMethod::Dotlock) || settings.bin_path.is_none();
        // The launcher makes both where the server may not.
        let launched = self.rights.launched || self.user.is_some();
        if settings.hash_spool != 0 || !needed || launched {
            return;
        }
        let mut looked_at = HashSet::new();
        let virtually = settings.vdomain.iter().enumerate().map(|(at, line)| ("vdomain", at, &line.drops));
        let all = [("drop_path", 0, &settings.drop_path)].into_iter().chain(virtually);
        for (name, at, drops) in all.filter(|(.., drops)| looked_at.insert(*drops)) {
            if self.may(drops, Right::Read).is_ok()
                && let Err(error) = self.may(drops, Right::Write)
            {
                let text = format!(
                    "{name}: nothing can be made in {}, neither dotlocks nor bins: {error}; run as a user who may, or set \
                     bin_path and lock_method",
                    drops.display()
                );
                let place = settings.place_of(name, at);
                self.complaints.push(Complaint { level: Level::Warning, place, text });
            }
        }
    }

    fn authenticator(&mut self) {
        if self.settings.authent_method == Method::UnixUser {
            if !access::is_root() && !self.rights.launched {
                let text =
                    "authent_method: only root may read the passwords of this machine's users: start the server as \
                            root, with a run_as"
                        .to_owned();
                self.complain(Level::Warning, "authent_method", text);
            }
            return;
        }
        let name = "authent_process";
        let command = &self.settings.authent_process;
        let shown = command.program.display();
        let text = match fs::metadata(&command.program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{name}: there is no program {shown}: write its whole path, no other directory is searched")
            }
            Err(error) => format!("{name}: {shown} cannot be used: {error}"),
            Ok(about) if !about.is_file() => format!("{name}: {shown} is not a program: name the program's file"),
            Ok(_) => match self.may(&command.program, Right::Execute) {
                Ok(()) => return,
                Err(error) => {
                    let whom = self.user.as_ref().map(|user| format!(" by {}", user.name)).unwrap_or_default();
                    format!("{name}: {shown} cannot be run{whom}: {error}; `chmod +x` it or name another")
                }
            },
        };
        self.complain(Level::Error, name, text);
    }

    fn pem(&mut self, name: &str, path: &Path, marker: &str) {
        let shown = path.display();
        let text = match read_some(path, self.rights.open) {
            Err(error) => format!("{name}: {shown} cannot be read: {error}; name a PEM file this user can read"),
            Ok(text) if !text.contains(marker) => {
                format!(
                    "{name}: {shown} holds no `{marker}`: it takes PEM, and the certificate goes to tls_cert, its key to tls_key"
                )
            }
            Ok(_) => return,
        };
        self.complain(Level::Error, name, text);
    }

    fn secret(&mut self, path: &Path) {
        let Ok(about) = fs::metadata(path) else { return };
        if about.permissions().mode() & 0o007 != 0 {
            let text = format!("tls_key: everybody can get at {0}: `chmod o= {0}`", path.display());
            self.complain(Level::Warning, "tls_key", text);
        }
    }

    /// Groups that are given something in work_path exist, and their members reach it.
    fn groups(&mut self) {
        let settings = self.settings;
        let given = [
            ("control_group", &settings.control_group, "the socket"),
            ("submit_group", &settings.submit_group, "the directory for messages"),
        ];
        for (row, group, what) in given {
            if let Some(Group(name)) = group {
                self.group(row, name, what);
            }
        }
        let work = &settings.work_path;
        if fs::metadata(work).is_ok_and(|about| about.mode() & 0o001 == 0) {
            let text = format!(
                "programs of other users cannot send with sendmail: they do not reach its socket in {0}: `chmod o+x {0}`",
                work.display()
            );
            self.complain(Level::Note, "work_path", text);
        }
    }

    fn group(&mut self, row: &'static str, name: &str, what: &str) {
        let gid = match group::gid_of(name) {
            Ok(Some(gid)) => gid,
            Ok(None) => {
                let text = format!("{row}: there is no group {name}: make it (`groupadd {name}`) or name another");
                return self.complain(Level::Error, row, text);
            }
            Err(error) => {
                let text = format!("{row}: the group {name} cannot be looked up: {error}");
                return self.complain(Level::Error, row, text);
            }
        };
        if let Some(user) = self.user.as_ref().filter(|user| !user.groups.contains(&gid)) {
            let text = format!(
                "{row}: {0} cannot give {what} to {name}: make it a member (`usermod -aG {name} {0}`)",
                user.name
            );
            return self.complain(Level::Error, row, text);
        }
        let work = &self.settings.work_path;
        let Ok(about) = fs::metadata(work) else { return };
        let needed = if about.gid() == gid { 0o010 } else { 0o001 };
        if about.mode() & needed == 0 {
            let text = format!(
                "{row}: members of {name} cannot reach {what} in {0}: `chgrp {name} {0}; chmod g+x {0}`",
                work.display()
            );
            self.complain(Level::Warning, row, text);
        }
    }

    /// Who can log in, when there is no certificate.
    fn logins(&mut self) {
        let settings = self.settings;
        let has_tls = !settings.tls_cert.is_empty();
        let users = [settings.pop_port, settings.submission_port];
        let users_in_tls = [settings.pops_port, settings.smtps_port];
        let open = |ports: &[u16]| ports.iter().any(|port| *port != 0);
        if settings.pop_port == 0 && (settings.pops_port == 0 || !has_tls) {
            let text = "no port is open for POP3: set pop_port, or pops_port and a tls_cert".to_owned();
            let level = if open(&[settings.smtp_port, settings.submission_port, settings.lmtp_port]) {
                Level::Note
            } else {
                Level::Warning
            };
            self.complain(level, "pop_port", text);
        }
        let takes = [settings.smtp_port, settings.submission_port, settings.lmtp_port];
        if settings.sysadmin.is_none() && open(&takes) {
            let text = format!(
                "nobody is postmaster, which everybody who takes mail must have: add a line like `sysadmin ann@{}`",
                settings.main_domain()
            );
            self.complain(Level::Note, "sysadmin", text);
        }
        if settings.lmtp_port != 0 && settings.bind_address.iter().any(|address| !address.is_loopback()) {
            let text =
                "lmtp_port is open to other machines: let a firewall see to it that only the server in front of this \
                        one reaches it"
                    .to_owned();
            self.complain(Level::Note, "lmtp_port", text);
        }
        if !(open(&users) || has_tls && open(&users_in_tls)) {
            return;
        }
        if has_tls {
            return;
        }
        let remedy = "set tls_cert and tls_key";
        let (level, text) = match settings.plain_auth {
            PlainAuth::Never => {
                (Level::Warning, format!("without a certificate nobody can log in: {remedy}, or plain_auth local"))
            }
            PlainAuth::Local if settings.plain_networks.is_empty() => (
                Level::Note,
                format!("without a certificate only clients on this machine can log in: {remedy} for all others"),
            ),
            PlainAuth::Local => {
                let networks = settings.plain_networks.to_string();
                (
                    Level::Note,
                    format!(
                        "without a certificate only clients on this machine and in {networks} can log in: {remedy} for all others"
                    ),
                )
            }
            PlainAuth::Always => (
                Level::Warning,
                format!("without a certificate everybody's password crosses the network in clear: {remedy}"),
            ),
        };
        self.complain(level, "plain_auth", text);
    }
}

/// Whether root may do what this file says: it and the directory it lies in are root's, and nobody else may write there.
/// Refuses with a sentence that says what to do.
pub fn trust(path: &Path, file: &File) -> Result<(), String> {
    let about = file.metadata().map_err(|error| format!("cannot be looked at: {error}"))?;
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let around = fs::metadata(folder).map_err(|error| format!("cannot be looked at: {error}"))?;
    for (about, shown, sticky) in [(about, path, 0), (around, folder, 0o1000)] {
        if about.uid() != 0 {
            let whose = if about.is_dir() { "the directory must be root's" } else { "it must be root's" };
            return Err(format!(
                "with run_as root does what this file says, so {whose}: `chown root {}`",
                shown.display()
            ));
        }
        // What is sticky lets others make files, not replace root's.
        if about.mode() & 0o022 != 0 && about.mode() & sticky == 0 {
            return Err(format!(
                "with run_as root does what this file says, so nobody else may write there: `chmod go-w {}`",
                shown.display()
            ));
        }
    }
    Ok(())
}

/// Whether nobody but root can put a program into this directory, or another directory in its place. Refuses with a sentence.
pub fn trust_folder(path: &Path) -> Result<(), String> {
    for folder in path.ancestors() {
        let shown = folder.display();
        let about = fs::symlink_metadata(folder).map_err(|error| format!("robot_path: {shown}: {error}"))?;
        // What is sticky lets others make directories, not replace root's.
        let is_open = about.mode() & 0o022 != 0 && (folder == path || about.mode() & 0o1000 == 0);
        if !about.is_dir() || about.uid() != 0 || is_open {
            return Err(format!(
                "robot_path: {shown} must be a directory of root's, no link, where nobody else may write: root runs as other \
                 users what lies there"
            ));
        }
    }
    Ok(())
}

/// Which directory it is, whatever it is called.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// The beginning of a regular file; a pipe or a device would keep us waiting.
fn read_some(path: &Path, open: &Opener<'_>) -> io::Result<String> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(PEM_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
