//! A server's private folder: accounts, their drops, a certificate, ports; and what is put into them.
//!
//! | in the folder        | what it is                                                                            |
//! |----------------------|---------------------------------------------------------------------------------------|
//! | `spool/uNNNNNN`      | the drops, flat, one an account that has mail; the server's own, as some rewrite them  |
//! | `cert.pem`, `key.pem`| for `localhost`, made for this run                                                    |
//! | `said`               | what the server wrote to its standard output and error                                |
//! | the rest             | the peer's: its configuration, its work folders                                       |
//!
//! All of it is removed when the site is dropped.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::letter::{Heading, Letter, Stamp, State};
use crate::work::Account;

/// Where mail goes to.
pub const DOMAIN: &str = "versus.test";
/// Where mail to others goes to.
pub const BEYOND: &str = "beyond.test";
/// Everybody's.
pub const PASSWORD: &str = "test";
/// Who owns the drops of peers that take a user's rights: nobody on this machine, we hope.
pub const OWNER: u32 = 12345;
/// The date of everything: servers that judge dates judge all the same.
const WRITTEN_SECS: i64 = 1_767_607_200;

/// The account of that number, from 0.
pub fn user(number: usize) -> String {
    format!("u{number:06}")
}

/// Where mail to it is sent.
pub fn address(number: usize) -> String {
    format!("{}@{DOMAIN}", user(number))
}

/// The same, for the engine.
pub fn account(number: usize) -> Account {
    Account { number: number as u64, login: user(number), password: PASSWORD.to_owned() }
}

/// How passwords are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passwords {
    /// The cheapest that the server has, and what it remembers of answers: what is compared is the work on mail.
    Cheap,
    /// Whatever is said is right: a helper that knows everybody, asked each time.
    Anything,
    /// crypt(3) with SHA-512 and 5,000 rounds, computed at each login.
    Hashed,
}

/// What a server is to be made for.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub accounts: usize,
    pub passwords: Passwords,
    /// The port of the smart host on this machine that mail for other domains goes to.
    pub beyond: Option<u16>,
}

/// The folder.
pub struct Site {
    folder: Folder,
    pub order: Order,
    pub pop: SocketAddr,
    pub pops: SocketAddr,
    pub smtp: SocketAddr,
}

impl Site {
    /// Makes it below `dir`: no mail yet.
    pub fn new(dir: &Path, name: &str, order: Order) -> io::Result<Site> {
        let folder = Folder::new(dir, name)?;
        fs::create_dir(folder.0.join("spool"))?;
        let (cert, key) = certificate();
        fs::write(folder.0.join("cert.pem"), cert)?;
        fs::write(folder.0.join("key.pem"), key)?;
        fs::set_permissions(folder.0.join("key.pem"), fs::Permissions::from_mode(0o600))?;
        // Held together, so that they differ.
        let held = [door()?, door()?, door()?];
        let [pop, pops, smtp] = [held[0].local_addr()?, held[1].local_addr()?, held[2].local_addr()?];
        Ok(Site { folder, order, pop, pops, smtp })
    }

    pub fn path(&self) -> &Path {
        &self.folder.0
    }

    pub fn spool(&self) -> PathBuf {
        self.path().join("spool")
    }

    /// The drop of that account.
    pub fn drop_file(&self, number: usize) -> PathBuf {
        self.spool().join(user(number))
    }

    /// A file of the peer's configuration, with the folders above it.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A folder of the peer's, with these rights, owned by root.
    pub fn folder(&self, name: &str, mode: u32) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Gives the spool, and what is in it, to [`OWNER`].
    pub fn give_spool_away(&self) -> io::Result<()> {
        chown(self.spool(), Some(OWNER), Some(OWNER))?;
        for entry in fs::read_dir(self.spool())? {
            chown(entry?.path(), Some(OWNER), Some(OWNER))?;
        }
        Ok(())
    }

    /// Puts this mail there, with the owner that the spool has.
    pub fn put_drop(&self, number: usize, mail: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let path = self.drop_file(number);
        fs::write(&path, mail)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let spool = fs::metadata(self.spool())?;
        if spool.uid() != 0 {
            chown(&path, Some(spool.uid()), Some(spool.gid()))?;
        }
        Ok(())
    }
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    /// One that was not there, which servers that leave root behind can get into.
    fn new(dir: &Path, name: &str) -> io::Result<Folder> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("versus-{}-{next}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("versus: {}: {error}; remove it by hand", self.0.display());
        }
    }
}

/// Takes a file out of the page cache: written back, then let go of. What stays cold afterwards is its data, not its inode.
pub fn chill(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()?;
    let file = format!("if={}", path.display());
    let mut dd = Command::new("dd");
    dd.args([&file, "iflag=nocache", "count=0"]).stdout(Stdio::null()).stderr(Stdio::null());
    match dd.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("dd (coreutils) could not take it out of the page cache")),
    }
}

/// A door on loopback that stays ours until dropped.
fn door() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

/// A certificate for `localhost` and its key, PEM. RSA would be others' usual choice; this is the faster one for all.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("ring makes keys");
    let made = rcgen::CertificateParams::new(["localhost".to_owned()]).and_then(|params| params.self_signed(&key));
    (made.expect("a plain certificate can be made").pem(), key.serialize_pem())
}

/// A drop of that many letters of about so many bytes, no two alike, for that account.
pub fn mail(number: usize, letters: usize, bytes: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(letters * (bytes as usize + 64));
    let to = address(number);
    for letter in 1..=letters {
        let heading = Heading { from: "ann@far.test", to: &to, written_secs: WRITTEN_SECS, state: State::Stored };
        text.extend_from_slice(b"From ann@far.test Mon Jan  5 10:00:00 2026\n");
        Letter::new(Stamp::in_spool(number as u64, letter as u64), bytes, &heading).push_to(&mut text);
        text.push(b'\n');
    }
    text
}

/// A letter as it is sent, dots doubled and CRLF ends, up to and with the dot that ends it.
pub fn sent(stamp: Stamp, bytes: u64) -> Vec<u8> {
    let heading =
        Heading { from: "ann@far.test", to: "all@versus.test", written_secs: WRITTEN_SECS, state: State::Sent };
    let mut text = Vec::new();
    Letter::new(stamp, bytes, &heading).push_to(&mut text);
    let mut wire = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        let _ = wire.write_all(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letter::{Verdict, verify};

    #[test]
    fn a_site_is_removed_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let order = Order { accounts: 2, passwords: Passwords::Cheap, beyond: None };
        let site = Site::new(dir.path(), "x", order).unwrap();
        site.put_drop(1, b"From x\n").unwrap();
        site.write("a/b/c.conf", "x").unwrap();
        assert_eq!(site.drop_file(1), site.path().join("spool/u000001"));
        assert!(site.pop != site.pops && site.pops != site.smtp);
        drop(site);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_drop_holds_whole_letters_of_the_account() {
        let text = mail(7, 3, 1000);
        let parts: Vec<_> =
            text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"From ann@far.test ")).collect();
        assert_eq!(parts.len(), 3);
        let first = memchr::memchr(b'\n', &text).unwrap() + 1;
        let second = memchr::memmem::find(&text[first..], b"\nFrom ann@far.test ").unwrap() + first;
        assert_eq!(verify(&text[first..second]), Verdict::Whole(Stamp::in_spool(7, 1)));
    }

    #[test]
    fn what_is_sent_ends_with_its_dot_and_no_line_before_is_one() {
        let wire = sent(Stamp { id: 1, seq: 1 }, 3000);
        let end = memchr::memmem::find(&wire, b"\r\n.\r\n").unwrap();
        assert_eq!(end + 5, wire.len());
        assert!(wire.windows(2).all(|two| two[1] != b'\n' || two[0] == b'\r'));
    }
}
