//! Everything beside the drops: folders, users, lists, certificate, dmail.conf.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use dmail::sys::crypt::Crypt;
use dmail::sys::user::User;
use dmail::text::fault::Fault;

use super::order::{Hash, Order};
use super::plan::Plan;
use crate::laws::Mailbox;
use crate::manifest::{FROM_LINE_BYTES, SPOOL};

/// What serves the folder.
pub const CONF: &str = "dmail.conf";
/// Tried first: no root needed, and not those of `dmail demo`.
const PORTS: [(&str, u16); 6] = [
    ("pop_port", 12_110),
    ("pops_port", 12_995),
    ("smtp_port", 12_025),
    ("submission_port", 12_587),
    ("smtps_port", 12_465),
    ("lmtp_port", 12_024),
];

/// The folder and all folders in it.
pub fn folders(order: &Order, plan: &Plan) -> Result<(), String> {
    make(&order.dir, None)?;
    let owner = order.run_as.as_ref();
    for dir in ["users", "work", SPOOL] {
        make(&order.dir.join(dir), owner)?;
    }
    for dir in &plan.dirs {
        let within: PathBuf = order.dir.join(dir);
        let above: Vec<&Path> = within.ancestors().take_while(|path| *path != order.dir.join(SPOOL)).collect();
        for path in above.into_iter().rev().filter(|path| !path.exists()) {
            make(path, owner)?;
        }
    }
    Ok(())
}

fn make(path: &Path, owner: Option<&User>) -> Result<(), String> {
    let made = match owner {
        None => fs::create_dir_all(path),
        Some(user) => fs::create_dir_all(path).and_then(|()| chown(path, Some(user.uid), Some(user.gid))),
    };
    made.map_err(|error| Fault::new("making", path, error).to_string())
}

/// Writes a file that is not there yet.
pub fn write(path: &Path, bytes: &[u8], mode: u32, owner: Option<&User>) -> Result<(), String> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        if let Some(user) = owner {
            fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        file.write_all(bytes)
    });
    written.map_err(|error| Fault::new("writing", path, error).to_string())
}

/// The user file, as nwauth reads it: sorted by name, so that it is searched and not scanned.
pub fn users(order: &Order) -> Result<(), String> {
    let manifest = &order.manifest;
    let stored = match order.hash {
        Hash::Plain => format!("{{PLAIN}}{}", manifest.password),
        Hash::Crypt(setting) => hashed(&manifest.password, setting)?,
    };
    let mut logins: Vec<String> = (0..manifest.count()).map(|index| manifest.login(index)).collect();
    logins.sort_unstable();
    let mut text = String::from("# user:password:uid:path:scram:apop:info -- made by loadtest spool\n");
    for login in &logins {
        text.push_str(login);
        text.push(':');
        text.push_str(&stored);
        text.push('\n');
    }
    write(&order.dir.join("users/nwauth.txt"), text.as_bytes(), 0o600, order.run_as.as_ref())
}

fn hashed(password: &str, setting: &str) -> Result<String, String> {
    let mut crypt = Crypt::load().map_err(|error| format!("{error}; --hash plain needs none"))?;
    let made = crypt.hash(password.as_bytes(), setting.as_bytes());
    let made = made.ok_or_else(|| "the hash library here does not know that kind; say another --hash".to_owned())?;
    String::from_utf8(made).map_err(|_| "the hash library made no text".to_owned())
}

/// `accounts` and `drops`, in the order of the accounts' numbers. `octets` are those of each one's mail.
pub fn lists(order: &Order, octets: &[u64]) -> Result<(), String> {
    let manifest = &order.manifest;
    let mut accounts = String::from("# made by loadtest spool: LOGIN PASSWORD\n");
    let mut drops = String::from("# made by loadtest spool: LOGIN MESSAGES BYTES OCTETS\n");
    for (index, octets) in (0..manifest.count()).zip(octets) {
        let login = manifest.login(index);
        let Mailbox { messages, .. } = manifest.mailbox(index);
        let bytes: u64 = messages.iter().map(|message| FROM_LINE_BYTES + message.bytes + 1).sum();
        accounts += &format!("{login} {}\n", manifest.password);
        drops += &format!("{login} {} {bytes} {octets}\n", messages.len());
    }
    write(&order.dir.join("accounts"), accounts.as_bytes(), 0o600, None)?;
    write(&order.dir.join("drops"), drops.as_bytes(), 0o644, None)
}

/// The certificate and dmail.conf. nwauth writes nothing there: it would make a proof of a password for each user who logs in
/// for the first time, which no load test is about.
pub fn server(order: &Order, dmail: &Path) -> Result<(), String> {
    let trouble = |error: rcgen::Error| format!("a certificate cannot be made: {error}");
    let key = rcgen::KeyPair::generate().map_err(trouble)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let cert = rcgen::CertificateParams::new(names).and_then(|params| params.self_signed(&key)).map_err(trouble)?;
    write(&order.dir.join("cert.pem"), cert.pem().as_bytes(), 0o644, None)?;
    write(&order.dir.join("key.pem"), key.serialize_pem().as_bytes(), 0o600, None)?;
    let manifest = &order.manifest;
    let run_as = order.run_as.as_ref().map_or(String::new(), |user| format!("run_as {}\n", user.name));
    let ports: String = PORTS.iter().map(|(name, port)| format!("{name} {}\n", free(*port))).collect();
    let conf = format!(
        "# Made by `loadtest spool`. `dmail settings` explains every line that can stand here.\n\
         host_domain {}\n\
         sysadmin {}@{}\n\
         {run_as}\
         drop_path {SPOOL}\n\
         hash_spool {}\n\
         work_path work\n\
         authent_method external\n\
         authent_process \"{}\" nwauth -readonly -path users\n\
         bind_address 127.0.0.1\n\
         {ports}\
         tls_cert cert.pem\n\
         tls_key key.pem\n\
         # Nothing of a load leaves this machine: mail for other domains waits in the queue. Without this line it is sent.\n\
         route * park\n\
         # A load is no abuse.\n\
         sends_per_hour 0\n\
         sends_per_day 0\n",
        manifest.domain,
        manifest.login(0),
        manifest.domain,
        manifest.hash_spool,
        dmail.display()
    );
    write(&order.dir.join(CONF), conf.as_bytes(), 0o644, None)
}

/// The port that is asked for, or any other one if somebody has it.
fn free(port: u16) -> u16 {
    let bound = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let found = bound(port).or_else(|_| bound(0)).and_then(|socket| socket.local_addr());
    found.map_or(port, |address| address.port())
}
