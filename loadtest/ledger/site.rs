//! A whole dmail site in the folder of a run: what `--dmail` tests. A dozen mailboxes, doors on free ports of the loopback,
//! spool and work_path on the disk that may be filled up.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What every address ends with.
pub const DOMAIN: &str = "example.test";
/// The password of all.
const PASSWORD: &str = "secret";

/// A site that was made.
pub struct Site {
    pub command: String,
    pub pop: SocketAddr,
    pub smtp: SocketAddr,
    pub lmtp: SocketAddr,
    pub accounts: Vec<(String, String)>,
    /// Below the run's folder.
    pub spool: PathBuf,
    pub queue: PathBuf,
}

/// A word as a shell or dmail.conf reads it.
fn quoted(word: &str) -> String {
    if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+=".contains(&byte)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Ports nobody listens on now.
fn free_ports<const N: usize>() -> std::io::Result<[SocketAddr; N]> {
    let listeners = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<Vec<_>>>()?;
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?;
    }
    Ok(ports)
}

/// Makes one for the executable `dmail` with so many mailboxes. `disk`: the folder below `dir` for what may be filled up;
/// `helper`: words of a wrapper round the authenticator.
pub fn make(dir: &Path, disk: &str, dmail: &Path, accounts: usize, helper: &[String]) -> Result<Site, String> {
    let dmail =
        dmail.canonicalize().map_err(|error| format!("{}: {error}; name the executable to test", dmail.display()))?;
    let dmail = dmail.to_str().ok_or("the executable's path is not UTF-8; move it")?.to_owned();
    let trouble =
        |path: &Path, error: std::io::Error| format!("{}: {error}; name a folder that can be written", path.display());
    let (spool, work, users) = (Path::new(disk).join("spool"), Path::new(disk).join("work"), PathBuf::from("users"));
    for (name, mode) in [(&spool, 0o755), (&work, 0o700), (&users, 0o700)] {
        let path = dir.join(name);
        fs::create_dir_all(&path).map_err(|error| trouble(&path, error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|error| trouble(&path, error))?;
    }
    let whole = |name: &Path| dir.join(name).to_string_lossy().into_owned();
    let mut made = Vec::new();
    for number in 0..accounts {
        let login = format!("user{number}");
        let told = Command::new(&dmail).args(["nwauth", "-path", &whole(&users), "set", &login, PASSWORD]).output();
        match told {
            Ok(told) if told.status.success() => {}
            Ok(told) => return Err(format!("{dmail} nwauth: {}", String::from_utf8_lossy(&told.stdout).trim_end())),
            Err(error) => return Err(format!("{dmail}: {error}; name the executable to test")),
        }
        made.push((login, PASSWORD.to_owned()));
    }
    let [pop, smtp, lmtp] = free_ports().map_err(|error| format!("no free ports: {error}"))?;
    let helper: String = helper.iter().map(|word| quoted(word) + " ").collect();
    let conf = format!(
        "host_domain {DOMAIN}\nwork_path {}\ndrop_path {}\nauthent_process {helper}{} nwauth -path {}\nbind_address 127.0.0.1\n\
         pop_port {}\npops_port 0\nsmtp_port {}\nsubmission_port 0\nsmtps_port 0\nlmtp_port {}\nretry_schedule 1\n\
         sends_per_hour 0\nsends_per_day 0\ndelivery_min_space 0\nroute * park\n",
        whole(&work),
        whole(&spool),
        quoted(&dmail),
        quoted(&whole(&users)),
        pop.port(),
        smtp.port(),
        lmtp.port()
    );
    let path = dir.join("dmail.conf");
    fs::write(&path, conf).map_err(|error| trouble(&path, error))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| trouble(&path, error))?;
    let command = format!("{} serve -i {}", quoted(&dmail), quoted(&path.to_string_lossy()));
    Ok(Site { command, pop, smtp, lmtp, accounts: made, queue: work.join("queue"), spool })
}
