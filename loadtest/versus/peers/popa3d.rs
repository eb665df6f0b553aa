//! popa3d, built by `make peers` with virtual users below `/mnt/vhome`: a file an account, a process a session.

use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};

use super::super::process::{Apart, Launch};
use super::super::site::{self, OWNER, Passwords, Site};
use super::{LIBRARIES, Peer, Tools, needs_root, nothing_queued, write_etc};

pub const PEER: Peer = Peer {
    name: "popa3d",
    pop: true,
    tls: false,
    smtp: false,
    bound: false,
    missing: |tools| needs_root(&tools.peers.join("root/usr/sbin/popa3d")),
    refuses: |passwords| (passwords == Passwords::Anything).then_some("it computes a hash at every login"),
    configure,
    queued: nothing_queued,
};

/// `test`, by the oldest crypt(3), which costs next to nothing now.
const DES: &str = "xx1LtbDbOY4/E";

fn configure(tools: &Tools, site: &Site) -> io::Result<Launch> {
    site.give_spool_away()?;
    write_etc(site, &["popa3d"])?;
    let auth = site.folder("vhome/127.0.0.1/auth", 0o755)?;
    let hash = if site.order.passwords == Passwords::Hashed { super::dovecot::SHA512 } else { DES };
    let line = format!("versus:{hash}:\n");
    for user in 0..site.order.accounts {
        fs::write(auth.join(site::user(user)), &line)?;
    }
    symlink("/mnt/spool", site.path().join("vhome/127.0.0.1/mail"))?;
    chown(site.path().join("empty"), Some(OWNER), Some(OWNER))?;
    Ok(Launch {
        words: vec!["/mnt/root/usr/sbin/popa3d".into(), "-D".into()],
        environment: vec![("POPA3D_PORT", site.pop.port().to_string())],
        apart: Some(Apart { root: Some(tools.peers.join("root")), instead: vec!["etc"], before: LIBRARIES.to_owned() }),
    })
}
