//! OpenSMTPD, unpacked: seven processes, and for each delivery a shell and mail.mboxfile. It listens with a backlog of 5. Its 250 comes
//! before any sync of its queue: its figures are not for the same promise.

use std::io;

use super::super::process::{Apart, Launch};
use super::super::site::{DOMAIN, Site};
use super::{LIBRARIES, Peer, Tools, any_file, anything, needs_root, write_etc};

pub const PEER: Peer = Peer {
    name: "opensmtpd",
    pop: false,
    tls: false,
    smtp: true,
    bound: false,
    missing: |tools| needs_root(&tools.peers.join("root/usr/sbin/smtpd")),
    refuses: anything,
    configure,
    queued: |site| any_file(site, &["var/spool/smtpd/queue", "var/spool/smtpd/incoming"]),
};

fn configure(tools: &Tools, site: &Site) -> io::Result<Launch> {
    site.give_spool_away()?;
    write_etc(site, &["opensmtpd", "opensmtpq"])?;
    site.folder("var/lib/opensmtpd/empty", 0o755)?;
    site.folder("var/empty", 0o755)?;
    site.folder("var/tmp", 0o777)?;
    site.folder("run", 0o755)?;
    site.folder("var/spool/smtpd", 0o711)?;
    std::os::unix::fs::symlink("/run", site.path().join("var/run"))?;
    // Every address of the domain is the one system user, whose rights deliveries have; the drop is called like the address.
    site.write("etc/everybody", "@ versus\n")?;
    let beyond = site.order.beyond.map(|port| {
        format!("action \"out\" relay host \"smtp://127.0.0.1:{port}\"\nmatch from any for any action \"out\"\n")
    });
    let beyond = beyond.unwrap_or_default();
    site.write(
        "etc/smtpd.conf",
        &format!(
            "smtp max-message-size \"1G\"\ntable everybody file:/etc/everybody\n\
             listen on 127.0.0.1 port {} hostname mx.{DOMAIN}\n\
             action \"drop\" mda \"/mnt/root/usr/libexec/opensmtpd/mail.mboxfile -f %{{mbox.from}} /mnt/spool/%{{dest.user}}\" \
             virtual <everybody>\nmatch from any for domain \"{DOMAIN}\" action \"drop\"\n{beyond}",
            site.smtp.port()
        ),
    )?;
    Ok(Launch {
        words: ["/mnt/root/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        apart: Some(Apart {
            root: Some(tools.peers.join("root")),
            instead: vec!["etc", "var", "run"],
            // Its deliveries begin with a program at a path that is compiled in.
            before: format!("{LIBRARIES}mount --bind /mnt/root/usr/libexec /usr/libexec\n"),
        }),
    })
}
