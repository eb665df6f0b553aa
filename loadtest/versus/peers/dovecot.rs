//! Dovecot, installed as a package, in two configurations that differ in how its processes are used.
//!
//! As it comes, each login has a process of its own, and each session another. Tuned is what its manual calls high-performance
//! mode: two login processes for all, session processes used 256 times. One session process for many sessions would be the
//! next step, but it refuses that for mbox ("requires client_limit=1"). Limits of processes are lifted in both, or 1,000
//! sessions could not be had.

use std::io;
use std::path::Path;

use super::super::process::{Apart, Launch};
use super::super::site::{self, OWNER, Passwords, Site};
use super::{Peer, Tools, anything, needs_root, nothing_queued};

pub const AS_IT_COMES: Peer = Peer {
    name: "dovecot",
    pop: true,
    tls: true,
    smtp: false,
    bound: false,
    missing: |_| needs_root(Path::new("/usr/lib/dovecot/pop3-login")),
    refuses: anything,
    configure: |_: &Tools, site| configure(site, ""),
    queued: nothing_queued,
};

pub const TUNED: Peer =
    Peer { name: "dovecot-tuned", configure: |_: &Tools, site| configure(site, LOGIN), ..AS_IT_COMES };

/// `test`, by SHA-512 with the usual 5,000 rounds.
pub const SHA512: &str =
    "$6$versusversus$fyGydn2HDamAOjVYpVMIsVzEy2KwRt1CvTlH/vhURDEs.jTs4Bdw3NyWXEaNN6KIjJQvbEda3pDP3Zme6KoWb0";

const LOGIN: &str = "  service_count = 0\n  process_min_avail = 2\n  process_limit = 2\n  client_limit = 15000\n";

fn configure(site: &Site, login: &str) -> io::Result<Launch> {
    site.give_spool_away()?;
    for name in ["index", "home"] {
        std::os::unix::fs::chown(site.folder(name, 0o700)?, Some(OWNER), Some(OWNER))?;
    }
    site.folder("run", 0o755)?;
    let passwords = match site.order.passwords {
        Passwords::Anything => "passdb {\n  driver = static\n  args = nopassword=y\n}\n".to_owned(),
        Passwords::Cheap => file(site, &format!("{{PLAIN}}{}", site::PASSWORD))?,
        Passwords::Hashed => file(site, &format!("{{SHA512-CRYPT}}{SHA512}"))?,
    };
    let session = if login.is_empty() { "" } else { "  service_count = 256\n" };
    let config = format!(
        "protocols = pop3\nbase_dir = /mnt/run\nstate_dir = /mnt/run\nlog_path = /mnt/log\nlisten = 127.0.0.1\n\
         ssl = yes\nssl_cert = </mnt/cert.pem\nssl_key = </mnt/key.pem\ndisable_plaintext_auth = no\n\
         auth_mechanisms = plain login\n{passwords}\
         userdb {{\n  driver = static\n  args = uid={OWNER} gid={OWNER} home=/mnt/home/%u allow_all_users=yes\n}}\n\
         mail_location = mbox:/mnt/home/%u:INBOX=/mnt/spool/%u:INDEX=/mnt/index/%u\nfirst_valid_uid = 100\n\
         default_process_limit = 12000\ndefault_client_limit = 15000\nmail_max_userip_connections = 0\n\
         default_vsz_limit = 0\n\
         service anvil {{\n  client_limit = 15000\n}}\n\
         service auth {{\n  client_limit = 15000\n}}\n\
         service pop3-login {{\n{login}  inet_listener pop3 {{\n    port = {}\n  }}\n  inet_listener pop3s {{\n    port = {}\n    \
         ssl = yes\n  }}\n}}\nservice pop3 {{\n  process_limit = 12000\n{session}}}\n",
        site.pop.port(),
        site.pops.port(),
    );
    site.write("dovecot.conf", &config)?;
    let words = ["/usr/sbin/dovecot", "-F", "-c", "/mnt/dovecot.conf"].map(str::to_owned).to_vec();
    Ok(Launch { words, apart: Some(Apart::default()), ..Launch::default() })
}

fn file(site: &Site, password: &str) -> io::Result<String> {
    let users: String = (0..site.order.accounts).map(|user| format!("{}:{password}\n", site::user(user))).collect();
    site.write("users", &users)?;
    Ok("passdb {\n  driver = passwd-file\n  args = /mnt/users\n}\n".to_owned())
}
