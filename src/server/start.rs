//! What a start and a reload need of the world: settings judged, ports bound, the work_path taken. Each refusal is one
//! sentence that names the file or port and the remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LOCK_PATIENCE, PER_CONVERSATION, PER_SENDER, RESERVE, RUN_LOCK};
use crate::net::{TcpListener, UnixListener, listen, tls};
use crate::protocol::smtp::Face;
use crate::rules::places;
use crate::rules::route::Table;
use crate::service::dns;
use crate::service::launcher::Launcher;
use crate::service::route;
use crate::service::send;
use crate::service::{Port, Services, Speaks, Stamp};
use crate::settings::{self, Complaint, Level, Method, Rights, Settings};
use crate::sys::access::{self, Right};
use crate::sys::files::Opener;
use crate::sys::{group, process, user};

/// A configuration that a server can run with, or what is wrong with it, a sentence each.
pub fn usable(path: &Path, rights: &Rights<'_>) -> Result<Settings, Vec<String>> {
    let (settings, complaints) = judged(path, rights);
    let errors: Vec<String> =
        complaints.iter().filter(|complaint| complaint.level == Level::Error).map(ToString::to_string).collect();
    match settings {
        Some(settings) if errors.is_empty() => Ok(settings),
        _ => Err(errors),
    }
}

/// A configuration, and all there is to say about it and about what it names.
pub fn judged(path: &Path, rights: &Rights<'_>) -> (Option<Settings>, Vec<Complaint>) {
    let settings::Loaded { mut settings, mut complaints } = settings::load_by(path, rights.open);
    if let Some(settings) = &mut settings {
        complaints.extend(settings::judge(settings, rights));
        complaints.extend(settings.read_logins(rights.open));
        let readable = complaints.iter().all(|complaint| complaint.level != Level::Error);
        if readable && let Err(why) = tls::load(&tls_files(settings), rights.open) {
            complaints.push(Complaint { level: Level::Error, place: settings.place("tls_cert"), text: why });
        }
        complaints.extend(route::draw(settings, rights.open).1);
    }
    (settings, complaints)
}

/// Who will run as what when whoever asks starts a server, in one line.
pub fn roles(settings: &Settings) -> String {
    let system = settings.authent_method == Method::UnixUser;
    let named = settings.run_as.as_ref().map(|name| user::find(name).ok().flatten());
    match named {
        _ if !access::is_root() => {
            format!(
                "started by uid {}, server and authenticator run as that user, without a launcher",
                process::own_uid()
            )
        }
        Some(Some(user)) => {
            let low = |port: &Port| port.address.port() < 1024;
            let pem = settings.tls_cert.iter().chain(&settings.tls_key).map(|file| &file.path);
            let unread = |path: &Path| access::granted(&user, path, Right::Read).is_err();
            let needs = [
                (ports(settings, Services::All, !settings.tls_cert.is_empty()).iter().any(low), "low ports"),
                (settings.files.iter().any(|path| unread(path)), "this file"),
                (pem.into_iter().any(|path| unread(path)), "certificates and keys"),
                (settings.login_files().any(unread), "logins at other hosts"),
                (true, "the drop files of other users"),
            ];
            let needs: Vec<&str> = needs.into_iter().filter_map(|(needed, what)| needed.then_some(what)).collect();
            format!(
                "started by root, the server runs as {} (uid {}), the authenticator as {}; a launcher keeps root for {}",
                user.name,
                user.uid,
                if system { "root" } else { &user.name },
                needs.join(", ")
            )
        }
        _ => "started by root, server and authenticator run as root: set run_as to a user of its own".to_owned(),
    }
}

pub(super) fn tls_files(settings: &Settings) -> Vec<tls::Files> {
    let files = settings.tls_pairs().into_iter().map(|pair| tls::Files {
        cert: pair.cert.to_owned(),
        key: pair.key.to_owned(),
        domain: pair.domain.map(str::to_owned),
    });
    files.collect()
}

pub(super) fn stamps(files: &[tls::Files], open: &Opener<'_>) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let meta = open(path).and_then(|file| file.metadata()).ok()?;
        Some((meta.ino(), meta.size(), meta.modified().ok()?))
    };
    files.iter().flat_map(|files| [stamp(&files.cert), stamp(&files.key)]).collect()
}

/// Where mail for which address goes, or what is wrong with it.
pub(super) fn routes(settings: &Settings, read: &Opener<'_>) -> Result<Arc<Table>, Vec<String>> {
    let (table, complaints) = route::draw(settings, read);
    let wrong = complaints.iter().filter(|complaint| complaint.level == Level::Error);
    let wrong: Vec<String> = wrong.map(ToString::to_string).collect();
    if wrong.is_empty() { Ok(Arc::new(table)) } else { Err(wrong) }
}

pub(super) fn no_port(settings: &Settings, services: Services) -> String {
    let remedy = match services {
        Services::All | Services::Pop3 => "set pop_port, or pops_port with tls_cert and tls_key",
        Services::Smtp => "set smtp_port or submission_port",
    };
    format!("{}: no port to serve: {remedy}", settings.file.display())
}

/// The ports that these settings ask for.
pub(super) fn ports(settings: &Settings, services: Services, tls: bool) -> Vec<Port> {
    let all = [
        (settings.pop_port, false, Speaks::Pop3),
        (settings.pops_port, true, Speaks::Pop3),
        (settings.smtp_port, false, Speaks::Smtp(Face::Mx)),
        (settings.submission_port, false, Speaks::Smtp(Face::Submission)),
        (settings.smtps_port, true, Speaks::Smtp(Face::Submission)),
        (settings.lmtp_port, false, Speaks::Smtp(Face::Lmtp)),
    ];
    let mut ports = Vec::new();
    for &ip in &settings.bind_address {
        for (number, implicit, speaks) in all {
            let served = match speaks {
                Speaks::Pop3 => services != Services::Smtp,
                Speaks::Smtp(_) => services != Services::Pop3,
            };
            if served && number != 0 && (tls || !implicit) {
                ports.push(Port { address: SocketAddr::new(ip, number), tls: implicit, speaks });
            }
        }
    }
    ports
}

/// Which they would be, in one line.
pub fn opens(settings: &Settings) -> String {
    let ports = ports(settings, Services::All, !settings.tls_cert.is_empty());
    if ports.is_empty() {
        return "no port".to_owned();
    }
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The kinds of connections that come to them.
pub(super) fn kinds(settings: &Settings, services: Services, tls: bool) -> Vec<places::Kind> {
    let ports = ports(settings, services, tls);
    places::KINDS.into_iter().filter(|kind| ports.iter().any(|port| port.kind() == *kind)).collect()
}

pub(super) fn bind(port: Port, launcher: Option<&Launcher>) -> Result<TcpListener, String> {
    let bound = match (listen::tcp(port.address), launcher) {
        (Err(error), Some(launcher)) if error.kind() == io::ErrorKind::PermissionDenied => {
            launcher.bind(port.address).map(listen::adopt)
        }
        (bound, _) => bound,
    };
    bound.map_err(|error| {
        let row = port.setting();
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => format!("another program has it: stop that, or set {row}"),
            io::ErrorKind::PermissionDenied => format!("ports below 1024 need root: start as root, or set {row}"),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: set bind_address".to_owned(),
            _ => format!("set bind_address or {row}"),
        };
        format!("port {}: {error}; {remedy}", port.address)
    })
}

pub(super) fn run_lock(settings: &Settings) -> Result<File, String> {
    let path = settings.work_path.join(RUN_LOCK);
    let trouble =
        |error: io::Error| format!("{}: {error}; work_path must be a directory that we can write to", path.display());
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(trouble)?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(trouble(error)),
        }
        io::Seek::rewind(&mut lock).map_err(trouble)?;
        let pid = io::read_to_string(&lock).unwrap_or_default();
        let pid = pid.trim();
        // A server that was killed while it started an authenticator has left the lock to that one, until its exec.
        let dead = !pid.is_empty() && !Path::new("/proc").join(pid).exists();
        if !dead || begun.elapsed() > LOCK_PATIENCE {
            return Err(format!(
                "{}: a server (pid {pid}) has this work_path already; `dmail serve` runs all services in one process, so \
                 stop that one first or give this one a work_path of its own",
                path.display(),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    lock.set_len(0).and_then(|()| io::Seek::rewind(&mut lock)).map_err(trouble)?;
    io::Write::write_all(&mut lock, format!("{}\n", std::process::id()).as_bytes()).map_err(trouble)?;
    Ok(lock)
}

/// A socket that a server left behind; we have the run lock, so nobody listens there.
pub(super) fn remove_stale(socket: &Path) -> Result<(), String> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", socket.display())),
        _ => Ok(()),
    }
}

/// The number of control_group, where it is set.
pub(super) fn control_gid(settings: &Settings) -> Result<Option<u32>, String> {
    gid("control_group", settings.control_group.as_ref())
}

/// The number of submit_group, where it is set.
pub(super) fn submit_gid(settings: &Settings) -> Result<Option<u32>, String> {
    gid("submit_group", settings.submit_group.as_ref())
}

fn gid(row: &str, group: Option<&settings::Group>) -> Result<Option<u32>, String> {
    let Some(settings::Group(name)) = group else { return Ok(None) };
    match group::gid_of(name) {
        Ok(Some(gid)) => Ok(Some(gid)),
        Ok(None) => Err(format!("{row}: there is no group {name}")),
        Err(error) => Err(format!("{row}: the group {name} cannot be looked up: {error}")),
    }
}

/// Lets this group, besides us, connect to the control socket; or us alone.
pub(super) fn open_to(socket: &Path, control_gid: Option<u32>) -> Result<(), String> {
    let (gid, mode) = control_gid.map_or((None, 0o600), |gid| (Some(gid), 0o660));
    // The group first: a socket that is open to the wrong group is open to strangers.
    let shared = std::os::unix::fs::chown(socket, None, gid)
        .and_then(|()| fs::set_permissions(socket, fs::Permissions::from_mode(mode)));
    shared.map_err(|error| {
        let remedy = "the user that the server runs as must be a member of it, since it started, or root: or take control_group out";
        format!("{}: cannot be given to control_group: {error}; {remedy}", socket.display())
    })
}

/// Listens where programs on this host bring mail. Everybody may: the system tells who it is.
pub(super) fn open_to_programs(socket: &Path) -> Result<UnixListener, String> {
    remove_stale(socket)?;
    let listener = listen::unix(socket).map_err(|error| {
        format!("{}: cannot listen here: {error}; work_path must be writable and short", socket.display())
    })?;
    let open = fs::set_permissions(socket, fs::Permissions::from_mode(0o666));
    open.map_err(|error| format!("{}: cannot be opened to everybody: {error}", socket.display()))?;
    Ok(listener)
}

/// Where drops lie, and the volume of each such place; the longest path first. A place within another one of the same volume
/// goes without saying: thousands of virtual domains below one directory are one place.
pub(super) fn volumes(settings: &Settings) -> Vec<(PathBuf, u64)> {
    // In this order a directory comes before what lies in it.
    let roots: BTreeSet<&Path> =
        settings.drop_root.iter().map(PathBuf::as_path).chain(settings.domains.all_drops()).collect();
    let mut volumes: BTreeMap<&Path, u64> = BTreeMap::new();
    for root in roots {
        let volume = fs::metadata(root).map_or(0, |meta| meta.dev());
        let around = root.ancestors().skip(1).find_map(|outer| volumes.get(outer));
        if around != Some(&volume) {
            volumes.insert(root, volume);
        }
    }
    let mut volumes: Vec<(PathBuf, u64)> =
        volumes.into_iter().map(|(root, volume)| (root.to_owned(), volume)).collect();
    volumes.sort_by_key(|(root, _)| std::cmp::Reverse(root.as_os_str().len()));
    volumes
}

pub(super) fn cap(settings: &Settings, limit: u64) -> usize {
    let helpers = 2 * 3 * settings.authent_number;
    let senders = PER_SENDER * senders(settings, limit);
    // Questions that find no descriptor are asked a second later: they take a share, and not the last one.
    let questions = dns::DESCRIPTORS.min(limit as usize / 8);
    let kept = RESERVE + helpers + senders + waiting(limit) + questions;
    let room = (limit as usize).saturating_sub(kept) / PER_CONVERSATION;
    let asked = if settings.max_connections == 0 { usize::MAX } else { settings.max_connections };
    asked.min(room).max(1)
}

/// How many connections to other hosts there may be: as send_connections_max says, but no more than a quarter of the descriptors
/// suffices for.
pub(super) fn senders(settings: &Settings, limit: u64) -> usize {
    settings.send_connections_max.min(limit as usize / 4 / PER_SENDER).max(1)
}

/// How many messages may wait in memory for a connection to another host, each with a file.
pub(super) fn waiting(limit: u64) -> usize {
    send::WAITING.min(limit as usize / 8)
}

pub(super) fn cache_limit(settings: &Settings) -> usize {
    if settings.auth_nocache { 0 } else { settings.authent_cache }
}

pub(super) fn cache_life(settings: &Settings) -> Duration {
    Duration::from_secs(settings.authent_cache_hours * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_to_other_hosts_leave_room_for_those_that_come_in() {
        let settings = |most: usize| {
            let text = format!(
                "host_domain a.test\ndrop_path drop\nwork_path work\nauthent_process x\nsend_connections_max {most}\n"
            );
            settings::parse::load_text(Path::new("/t/dmail.conf"), text.as_bytes()).settings.unwrap()
        };
        for (most, limit, out, come_in) in [
            (10, 1024, 10, (1024 - 64 - 12 - 20 - 128 - 128) / 4),
            (10_000, 1024, 128, (1024 - 64 - 12 - 256 - 128 - 128) / 4),
            (10, 100_000, 10, (100_000 - 64 - 12 - 20 - 400 - 288) / 4),
            (100, 8, 1, 1),
        ] {
            let settings = settings(most);
            assert_eq!((senders(&settings, limit), cap(&settings, limit)), (out, come_in), "{most} of {limit}");
        }
    }

    #[test]
    fn each_directory_of_drop_files_knows_its_volume_and_the_longest_path_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let text = "host_domain a.test\ndrop_path drop\nwork_path work\nauthent_process x\n\
                    vdomain B /b b.test drop/b\nvdomain C /c c.test /proc\nvdomain D /d d.test d\ndrop_root /\n\
                    drop_root /proc/self\n";
        fs::create_dir_all(dir.path().join("drop/b")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let settings = settings::parse::load_text(&dir.path().join("dmail.conf"), text.as_bytes()).settings.unwrap();
        let here = fs::metadata(dir.path()).unwrap().dev();
        let there = fs::metadata("/proc").unwrap().dev();
        assert_ne!(here, there);
        // The root may be another volume than the one that temporary directories are in.
        let root = fs::metadata("/").unwrap().dev();
        let mut wanted = vec![("/proc".into(), there), ("/".into(), root)];
        if root != here {
            wanted.splice(0..0, [(dir.path().join("drop"), here), (dir.path().join("d"), here)]);
        }
        assert_eq!(volumes(&settings), wanted);
    }
}
