//! Ours: started as it is, with the folder as its working directory.

use std::io;

use super::super::process::Launch;
use super::super::site::{self, DOMAIN, Passwords, Site};
use super::{Peer, Tools, any_file, anything};

pub const PEER: Peer = Peer {
    name: "dmail",
    pop: true,
    tls: true,
    smtp: true,
    bound: false,
    missing: |tools| {
        let there = tools.program.is_file();
        (!there).then(|| format!("{} is not there: build it, or name it with --program", tools.program.display()))
    },
    refuses: anything,
    configure,
    queued: |site| any_file(site, &["work/queue"]),
};

fn configure(tools: &Tools, site: &Site) -> io::Result<Launch> {
    let program = tools.program.display();
    site.folder("work", 0o700)?;
    let password = match site.order.passwords {
        Passwords::Cheap | Passwords::Anything => format!("{{PLAIN}}{}", site::PASSWORD),
        Passwords::Hashed => super::dovecot::SHA512.to_owned(),
    };
    let users: String = (0..site.order.accounts).map(|user| format!("{}:{password}\n", site::user(user))).collect();
    site.write("users/nwauth.txt", &users)?;
    let (helper, hours) = match site.order.passwords {
        Passwords::Cheap => (format!("\"{program}\" nwauth -path users -readonly"), 12),
        Passwords::Hashed => (format!("\"{program}\" nwauth -path users -readonly"), 0),
        Passwords::Anything => {
            (format!("\"{}\" versus {}", std::env::current_exe()?.display(), super::bounds::HELPER), 0)
        }
    };
    let beyond = site.order.beyond.map(|port| format!("gateway 127.0.0.1:{port} inside connections=50\n"));
    // Nothing of a measurement leaves this machine.
    let beyond = beyond.unwrap_or_else(|| "route * park\n".to_owned());
    let config = format!(
        "host_domain {DOMAIN}\ndrop_path spool\nwork_path work\nauthent_process {helper}\nauthent_cache_hours {hours}\n\
         bind_address 127.0.0.1\npop_port {}\npops_port {}\nsmtp_port {}\nsubmission_port 0\nsmtps_port 0\n\
         sysadmin {}\nmax_rcpts 5000\nsends_per_hour 0\nsends_per_day 0\ntls_cert cert.pem\ntls_key key.pem\n{beyond}",
        site.pop.port(),
        site.pops.port(),
        site.smtp.port(),
        site::address(0),
    );
    let config = site.write("dmail.conf", &config)?;
    let words = [tools.program.display().to_string(), "serve".into(), "-i".into(), config.display().to_string()];
    Ok(Launch { words: words.into(), ..Launch::default() })
}
