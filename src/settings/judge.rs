//! Does what the settings name exist, and can we use it? For `dmail check` and for the start of a server.
//!
//! Looks only: no directory is made, no file is touched, no program is run. Whether a certificate is a good one is judged by
//! whoever speaks TLS.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::complaint::{Complaint, Level};
use super::{Group, LockMethod, PlainAuth, Settings};
use crate::sys::{access, group};

/// A chain of certificates is a few thousand bytes; this is no PEM file any more.
const PEM_BYTES: u64 = 1 << 20;

/// Everything about the world around these settings that the operator should know, errors for what no server could work with.
pub fn judge(settings: &Settings) -> Vec<Complaint> {
    let mut judge = Judge { settings, complaints: Vec::new() };
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
    judge.operators();
    judge.logins();
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
    complaints: Vec<Complaint>,
}

impl Judge<'_> {
    fn complain(&mut self, level: Level, name: &str, text: String) {
        let place = self.settings.place(name);
        self.complaints.push(Complaint { level, place, text });
    }

    fn folder(&mut self, name: &str, path: &Path, purpose: Use) {
        if let Some(text) = unusable(name, path, purpose) {
            self.complain(Level::Error, name, text);
        }
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
            } else if let Some(text) = unusable(name, path, Use::Read) {
                self.complaints.push(Complaint { level: Level::Warning, place, text });
            }
        }
    }

    /// Dotlocks, and bins that lie beside the drops, need a directory that can be written.
    fn locks(&mut self) {
        let settings = self.settings;
        let needed = settings.lock_method.contains(&LockMethod::Dotlock) || settings.bin_path.is_none();
        if settings.hash_spool != 0 || !needed {
            return;
        }
        let mut looked_at = HashSet::new();
        let virtually = settings.vdomain.iter().enumerate().map(|(at, line)| ("vdomain", at, &line.drops));
        let all = [("drop_path", 0, &settings.drop_path)].into_iter().chain(virtually);
        for (name, at, drops) in all.filter(|(.., drops)| looked_at.insert(*drops)) {
            if access::read(drops).is_ok()
                && let Err(error) = access::write(drops)
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
        let name = "authent_process";
        let command = &self.settings.authent_process;
        let shown = command.program.display();
        let text = match fs::metadata(&command.program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{name}: there is no program {shown}: write its whole path, no other directory is searched")
            }
            Err(error) => format!("{name}: {shown} cannot be used: {error}"),
            Ok(about) if !about.is_file() => format!("{name}: {shown} is not a program: name the program's file"),
            Ok(_) => match access::execute(&command.program) {
                Ok(()) => return,
                Err(error) => format!("{name}: {shown} cannot be run: {error}; `chmod +x` it or name another"),
            },
        };
        self.complain(Level::Error, name, text);
    }

    fn pem(&mut self, name: &str, path: &Path, marker: &str) {
        let shown = path.display();
        let text = match read_some(path) {
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

    /// Members of control_group exist, and reach the socket.
    fn operators(&mut self) {
        let Some(Group(name)) = &self.settings.control_group else { return };
        let gid = match group::gid_of(name) {
            Ok(Some(gid)) => gid,
            Ok(None) => {
                let text =
                    format!("control_group: there is no group {name}: make it (`groupadd {name}`) or name another");
                return self.complain(Level::Error, "control_group", text);
            }
            Err(error) => {
                let text = format!("control_group: the group {name} cannot be looked up: {error}");
                return self.complain(Level::Error, "control_group", text);
            }
        };
        let work = &self.settings.work_path;
        let Ok(about) = fs::metadata(work) else { return };
        let needed = if about.gid() == gid { 0o010 } else { 0o001 };
        if about.mode() & needed == 0 {
            let text = format!(
                "control_group: members of {name} cannot reach the socket in {0}: `chgrp {name} {0}; chmod g+x {0}`",
                work.display()
            );
            self.complain(Level::Warning, "control_group", text);
        }
    }

    /// Who can log in, when there is no certificate.
    fn logins(&mut self) {
        let settings = self.settings;
        let has_tls = !settings.tls_cert.is_empty();
        if settings.pop_port == 0 && (settings.pops_port == 0 || !has_tls) {
            let text = "no port is open for POP3: set pop_port, or pops_port and a tls_cert".to_owned();
            self.complain(Level::Warning, "pop_port", text);
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

/// Why the directory that the setting `name` names cannot be used, if so.
fn unusable(name: &str, path: &Path, purpose: Use) -> Option<String> {
    let shown = path.display();
    Some(match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("{name}: there is no directory {shown}: make it (`mkdir -p {shown}`) or name another")
        }
        Err(error) => format!("{name}: {shown} cannot be used: {error}"),
        Ok(about) if !about.is_dir() => format!("{name}: {shown} is not a directory: name one"),
        Ok(_) => {
            let may = access::execute(path).and_then(|()| match purpose {
                Use::Read => access::read(path),
                Use::Write => access::write(path),
            });
            let error = may.err()?;
            let verb = if purpose == Use::Read { "read" } else { "written" };
            format!("{name}: {shown} cannot be {verb} by the user this runs as: {error}; give it to that user")
        }
    })
}

/// Which directory it is, whatever it is called.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// The beginning of a regular file; a pipe or a device would keep us waiting.
fn read_some(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(PEM_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
