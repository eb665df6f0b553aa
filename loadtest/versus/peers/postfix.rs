//! Postfix, installed as a package: another instance of it, with a queue of its own, that delivers with virtual(8) to mbox.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::Command;

use super::super::process::{Apart, Launch};
use super::super::site::{self, DOMAIN, OWNER, Site};
use super::{Peer, Tools, any_file, anything, needs_root};

pub const PEER: Peer = Peer {
    name: "postfix",
    pop: false,
    tls: false,
    smtp: true,
    bound: false,
    missing: |_| needs_root(Path::new("/usr/sbin/postfix")),
    refuses: anything,
    configure,
    queued: |site| any_file(site, &["queue/maildrop", "queue/incoming", "queue/active", "queue/deferred"]),
};

fn configure(_: &Tools, site: &Site) -> io::Result<Launch> {
    site.give_spool_away()?;
    site.folder("queue", 0o755)?;
    let data = site.folder("data", 0o700)?;
    // By name: its number differs from machine to machine.
    Command::new("chown").arg("postfix").arg(data).status()?;
    let beyond = site.order.beyond.map(|port| {
        format!("relayhost = [127.0.0.1]:{port}\ndefault_destination_concurrency_limit = 50\ninitial_destination_concurrency = 50\n")
    });
    let beyond = beyond.unwrap_or_default();
    site.write(
        "conf/main.cf",
        &format!(
            "compatibility_level = 3.6\nqueue_directory = /mnt/queue\ndata_directory = /mnt/data\nmyhostname = mx.{DOMAIN}\n\
             mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = loopback-only\ninet_protocols = ipv4\n\
             smtpd_peername_lookup = no\nsmtpd_client_connection_count_limit = 0\ndefault_process_limit = 200\n\
             smtpd_recipient_limit = 5000\nin_flow_delay = 0\nmessage_size_limit = 0\nlocal_recipient_maps =\nalias_maps =\n\
             alias_database =\nvirtual_mailbox_domains = {DOMAIN}\nvirtual_mailbox_base = /mnt/spool\n\
             virtual_mailbox_maps = texthash:/mnt/conf/users\nvirtual_uid_maps = static:{OWNER}\n\
             virtual_gid_maps = static:{OWNER}\nvirtual_mailbox_limit = 0\nvirtual_mailbox_lock = dotlock, fcntl\n\
             maillog_file = /mnt/mail.log\nmaillog_file_prefixes = /mnt\n{beyond}"
        ),
    )?;
    site.write(
        "conf/master.cf",
        &format!(
            "127.0.0.1:{} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
             error unix - - n - - error\nretry unix - - n - - error\nflush unix n - n 1000? 0 flush\n\
             showq unix n - n - - showq\nproxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\n\
             virtual unix - n n - - virtual\nsmtp unix - - n - - smtp\nrelay unix - - n - - smtp\npostlog unix-dgram n - n - 1 postlogd\n",
            site.smtp.port()
        ),
    )?;
    let mut users = String::new();
    for user in 0..site.order.accounts {
        let _ = writeln!(users, "{} {}", site::address(user), site::user(user));
    }
    site.write("conf/users", &users)?;
    let words = ["/usr/sbin/postfix", "-c", "/mnt/conf", "start-fg"].map(str::to_owned).to_vec();
    Ok(Launch { words, apart: Some(Apart::default()), ..Launch::default() })
}
