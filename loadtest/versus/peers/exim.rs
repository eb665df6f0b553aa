//! Exim, unpacked: one daemon that forks for each connection and each delivery, appendfile into mbox. Its configuration must be
//! where it was told when it was built, or it gives up root's rights; so `/etc` and `/var` are private.

use std::io;
use std::os::unix::fs::chown;

use super::super::process::{Apart, Launch};
use super::super::site::{self, DOMAIN, OWNER, Site};
use super::{LIBRARIES, Peer, Tools, any_file, anything, needs_root, write_etc};

pub const PEER: Peer = Peer {
    name: "exim",
    pop: false,
    tls: false,
    smtp: true,
    bound: false,
    missing: |tools| needs_root(&tools.peers.join("root/usr/sbin/exim4")),
    refuses: anything,
    configure,
    queued: |site| any_file(site, &["var/spool/exim4/input"]),
};

/// The user that Debian's build names.
const USER: &str = "Debian-exim";

fn configure(tools: &Tools, site: &Site) -> io::Result<Launch> {
    site.give_spool_away()?;
    write_etc(site, &[USER])?;
    for name in ["var/spool/exim4", "var/log/exim4", "run/exim4"] {
        chown(site.folder(name, 0o750)?, Some(OWNER + 1), Some(OWNER + 1))?;
    }
    site.folder("var/tmp", 0o777)?;
    std::os::unix::fs::symlink("/run", site.path().join("var/run"))?;
    // What a client said is not trusted to name a file: what a list of users says is.
    let users: String = (0..site.order.accounts).map(|user| format!("{0}:{0}\n", site::user(user))).collect();
    site.write("etc/users", &users)?;
    let (relaying, router, transport) = match site.order.beyond {
        Some(port) => (
            "accept",
            "out:\n  driver = manualroute\n  route_list = * 127.0.0.1 byname\n  self = send\n  transport = out\n",
            format!("out:\n  driver = smtp\n  port = {port}\n  allow_localhost\n  hosts_avoid_tls = *\n"),
        ),
        None => ("deny", "", String::new()),
    };
    site.write(
        "etc/exim4/exim4.conf",
        &format!(
            "primary_hostname = mx.{DOMAIN}\nexim_path = /mnt/root/usr/sbin/exim4\ndomainlist local = {DOMAIN}\n\
             local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {}\nacl_smtp_rcpt = rcpt\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\nsmtp_accept_max = 500\nsmtp_accept_max_per_connection = 0\nsmtp_connect_backlog = 511\n\
             smtp_accept_queue_per_connection = 0\nsmtp_enforce_sync = false\nrecipients_max = 0\nmessage_size_limit = 0\n\
             helo_allow_chars = _\ntls_advertise_hosts =\ndisable_ipv6\nkeep_environment =\n\
             queue_run_max = 50\nremote_max_parallel = 50\nbegin acl\nrcpt:\n  accept domains = +local\n  {relaying}\n\
             begin routers\nlocal:\n  driver = accept\n  domains = +local\n  local_parts = lsearch;/etc/users\n  transport = drop\n\
             {router}begin transports\n{transport}drop:\n  driver = appendfile\n  file = /mnt/spool/$local_part_data\n  user = {OWNER}\n  group = {OWNER}\n  \
             mode = 0600\n  delivery_date_add\n  envelope_to_add\n  return_path_add\n\
             begin retry\n* * F,1h,1m\n",
            site.smtp.port()
        ),
    )?;
    Ok(Launch {
        // In the foreground, taking mail, looking for what waits once a minute.
        words: ["/mnt/root/usr/sbin/exim4", "-bdf", "-q1m"].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        apart: Some(Apart {
            root: Some(tools.peers.join("root")),
            instead: vec!["etc", "var", "run"],
            before: LIBRARIES.to_owned(),
        }),
    })
}
