//! The servers: how each is configured, where it keeps its mail, what it cannot do.
//!
//! | peer           | is                                                                  | POP3 | TLS | SMTP |
//! |----------------|---------------------------------------------------------------------|------|-----|------|
//! | `dmail`        | the build beside this program, or `--program`                       | yes  | yes | yes  |
//! | `dovecot`      | as it comes: a process for each login, another for each session     | yes  | yes |      |
//! | `dovecot-tuned`| its "high-performance" login: two login processes, sessions' reused | yes  | yes |      |
//! | `popa3d`       | virtual users, its limits of sessions lifted                        | yes  |     |      |
//! | `postfix`      | virtual(8) into mbox                                                |      |     | yes  |
//! | `exim`         | appendfile into mbox                                                |      |     | yes  |
//! | `opensmtpd`    | mail.mboxfile                                                       |      |     | yes  |
//! | `null`         | the least a program could do: a bound, no server (`benches/budgets/bounds.rs`) | yes | | |
//! | `bare`         | the same for RETR, `keeping` for mail that comes in                 | yes  | yes | yes  |
//!
//! All are told to do no more than ours: no greylist, no checks of names, no content filter, limits of sessions, recipients
//! and rates high enough never to be met. Nobody's promise is weakened: syncs and locks are as each comes.

mod bounds;
mod dmail;
mod dovecot;
mod exim;
mod opensmtpd;
mod popa3d;
mod postfix;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::{Launch, Running};
use super::site::{Order, Passwords, Site};

pub use bounds::serve as serve_bound;

/// How long a server may take until it answers.
const STARTS: Duration = Duration::from_secs(20);

/// One of the table above.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    pub pop: bool,
    pub tls: bool,
    pub smtp: bool,
    /// Others are measured against it.
    pub bound: bool,
    /// Why it cannot be had here.
    missing: fn(&Tools) -> Option<String>,
    /// Whether it can do this with passwords; None is yes.
    refuses: fn(Passwords) -> Option<&'static str>,
    /// Writes its configuration.
    configure: fn(&Tools, &Site) -> io::Result<Launch>,
    /// Files outside the spool in which accepted mail may still be.
    queued: fn(&Site) -> bool,
}

/// What is used of the machine.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Our server.
    pub program: PathBuf,
    /// What `make peers` unpacked.
    pub peers: PathBuf,
}

/// All peers, in the order in which they are shown.
pub static PEERS: &[Peer] = &[
    dmail::PEER,
    dovecot::AS_IT_COMES,
    dovecot::TUNED,
    popa3d::PEER,
    postfix::PEER,
    exim::PEER,
    opensmtpd::PEER,
    bounds::NULL,
    bounds::BARE,
    bounds::KEEPING,
];

/// The peer of that name.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

impl Peer {
    /// Why it is left out.
    pub fn missing(&self, tools: &Tools) -> Option<String> {
        (self.missing)(tools)
    }

    /// Starts it in a folder of its own below `dir`, over mail that `fill` puts there.
    pub fn start(
        &'static self,
        tools: &Tools,
        dir: &Path,
        order: Order,
        fill: impl FnOnce(&Site) -> io::Result<()>,
    ) -> Result<Server, String> {
        if let Some(why) = (self.refuses)(order.passwords) {
            return Err(why.to_owned());
        }
        let told = |error: io::Error| format!("its folder below {}: {error}", dir.display());
        let site = Site::new(dir, self.name, order).map_err(told)?;
        fill(&site).map_err(told)?;
        let launch = (self.configure)(tools, &site).map_err(told)?;
        let running = Running::start(site.path(), &launch)?;
        let mut server = Server { peer: self, running, site };
        server.wait_until_it_answers()?;
        Ok(server)
    }
}

/// A peer that runs, with its folder.
pub struct Server {
    pub peer: &'static Peer,
    // Ended before its folder is removed.
    pub running: Running,
    pub site: Site,
}

impl Server {
    /// Where the door is that it answers at.
    fn door(&self) -> SocketAddr {
        if self.peer.pop { self.site.pop } else { self.site.smtp }
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            if let Some(why) = self.running.ended() {
                return Err(why);
            }
            let error = match TcpStream::connect(self.door()) {
                Ok(socket) => match super::client::greeting(&socket) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > STARTS {
                return Err(format!(
                    "no answer within {} s ({error}): {}",
                    STARTS.as_secs(),
                    self.running.last_words()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether mail that it has accepted may still be outside the spool.
    pub fn queued(&self) -> bool {
        (self.peer.queued)(&self.site)
    }
}

// ---- What several of them need ---------------------------------------------------------------------

fn anything(_: Passwords) -> Option<&'static str> {
    None
}

fn nothing_queued(_: &Site) -> bool {
    false
}

/// Whether there is a file anywhere below one of these folders of the site's.
fn any_file(site: &Site, folders: &[&str]) -> bool {
    fn within(folder: &Path) -> bool {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => within(&entry.path()),
            Ok(kind) => kind.is_file(),
            Err(_) => false,
        })
    }
    folders.iter().any(|name| within(&site.path().join(name)))
}

/// Why a peer that takes other users' rights, and needs a mount namespace, cannot run.
fn needs_root(file: &Path) -> Option<String> {
    if !file.exists() {
        return Some(format!("{} is not there: `make peers` gets it", file.display()));
    }
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = own.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|line| line.split_whitespace().nth(1));
    (uid != Some("0")).then(|| "root is needed to start it".to_owned())
}

/// The machine's /etc in a private folder, as far as a peer from an unpacked package looks at it: users of its own that nobody has to
/// add to the machine, a resolver that refuses at once, and the libraries that were unpacked with it.
fn write_etc(site: &Site, users: &[&str]) -> io::Result<()> {
    let mut passwd =
        String::from("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n");
    let mut group = String::from("root:x:0:\nmail:x:8:\nnogroup:x:65534:\n");
    let owner = super::site::OWNER;
    for (name, id) in std::iter::once(("versus", owner)).chain(users.iter().copied().zip(owner + 1..)) {
        passwd += &format!("{name}:x:{id}:{id}:{name}:/mnt/empty:/bin/sh\n");
        group += &format!("{name}:x:{id}:\n");
    }
    site.write("etc/passwd", &passwd)?;
    site.write("etc/group", &group)?;
    site.write("etc/hosts", "127.0.0.1 localhost mx.versus.test\n")?;
    site.write("etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    site.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n")?;
    site.write("etc/services", "smtp 25/tcp\npop3 110/tcp\n")?;
    site.write("etc/mailname", "versus.test\n")?;
    let lines: String = ["/mnt/root/usr/lib/x86_64-linux-gnu", "/mnt/root/usr/lib/aarch64-linux-gnu"]
        .map(|folder| format!("{folder}\n"))
        .concat();
    site.write("etc/ld.so.conf", &lines)?;
    site.folder("empty", 0o755)?;
    Ok(())
}

/// What finds unpacked libraries, also for programs that are set-uid: before the program starts.
const LIBRARIES: &str = "ldconfig 2>/dev/null || true\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for peer in PEERS {
            assert!(std::ptr::eq(find(peer.name).unwrap(), peer));
        }
        assert!(find("qpopper").is_none());
    }

    #[test]
    fn every_configuration_can_be_written_and_names_its_ports_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        let tools = Tools { program: "/opt/dmail".into(), peers: "/opt/peers".into() };
        for peer in PEERS.iter().filter(|peer| !peer.bound) {
            for passwords in [Passwords::Cheap, Passwords::Anything, Passwords::Hashed] {
                if (peer.refuses)(passwords).is_some() {
                    continue;
                }
                let site = Site::new(dir.path(), peer.name, Order { accounts: 3, passwords, beyond: None }).unwrap();
                site.put_drop(2, b"From x\n\n").unwrap();
                let launch = match (peer.configure)(&tools, &site) {
                    // Only root gives folders away.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                    launch => launch.unwrap_or_else(|error| panic!("{}: {error}", peer.name)),
                };
                let mut all = format!("{launch:?}");
                gather(site.path(), &mut all);
                let port = if peer.pop { site.pop.port() } else { site.smtp.port() };
                assert!(all.contains(&port.to_string()), "{}: no port in {all}", peer.name);
                assert!(all.contains("spool"), "{}: no spool in {all}", peer.name);
            }
        }
    }

    fn gather(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            // A link may be how a drop is found.
            *all += &std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            match entry.file_type().unwrap().is_dir() {
                true => gather(&entry.path(), all),
                false => *all += &String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()),
            }
        }
    }

    #[test]
    fn mail_is_queued_while_a_file_is_anywhere_below() {
        let dir = tempfile::tempdir().unwrap();
        let site =
            Site::new(dir.path(), "x", Order { accounts: 1, passwords: Passwords::Cheap, beyond: None }).unwrap();
        assert!(!any_file(&site, &["queue"]));
        site.folder("queue/active", 0o755).unwrap();
        assert!(!any_file(&site, &["queue"]));
        site.write("queue/active/A/B", "x").unwrap();
        assert!(any_file(&site, &["other", "queue"]));
    }
}
