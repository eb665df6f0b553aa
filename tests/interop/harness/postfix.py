"""A Postfix of the test's own: pickup, cleanup, qmgr and local(8) below the test's folder, no file outside it; and no port but that
of a `Peer`, which takes and sends mail by SMTP."""

import os
import pwd
import shutil
import subprocess

from .suite import Failure, ROOT, Skip, need, run, wait_for

MAIN = """compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_spool_directory = {spool}
myhostname = {domain}
mydestination = {domain}
inet_interfaces = loopback-only
local_recipient_maps =
alias_maps =
alias_database =
mailbox_size_limit = 0
biff = no
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
"""
#: No service of type inet.
MASTER = """pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
local unix - n n - - local
postlog unix-dgram n - n - 1 postlogd
"""


#: What a peer has besides: users of its own domain, mail from and to the network.
PEER_MAIN = """mydestination =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/boxes
virtual_mailbox_maps = inline:{{ {users} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_minimum_uid = 1
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{relay}
smtp_host_lookup = native
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = {tls}
smtp_tls_security_level = {tls}
smtpd_discard_ehlo_keywords =
smtpd_client_connection_count_limit = 0
"""
PEER_MASTER = """{address}:{port} inet n - n - - smtpd
smtp unix - - n - - smtp
relay unix - - n - - smtp
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
"""


class Postfix:
    """Delivers into `spool`, to users of this machine; how it locks a drop is Postfix's own default."""

    def __init__(self, bench, spool, domain="soak.test", main="", master=""):
        if not ROOT:
            raise Skip("Postfix runs as root only")
        need("postfix")
        self.domain, self.folder = domain, bench.path("postfix")
        self.conf = os.path.join(self.folder, "conf")
        for name, mode in (("", 0o755), ("conf", 0o755), ("queue", 0o755), ("data", 0o700)):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
            os.chmod(os.path.join(self.folder, name), mode)
        shutil.chown(os.path.join(self.folder, "data"), "postfix")
        for name, text in (("main.cf", MAIN.format(folder=self.folder, spool=spool, domain=domain) + main), ("master.cf", MASTER + master)):
            with open(os.path.join(self.conf, name), "w", encoding="ascii") as file:
                file.write(text)
        done = run(["postfix", "-c", self.conf, "check"])
        if done.returncode:
            raise Failure(f"postfix check: {done.stderr!r}")
        with open(os.path.join(self.folder, "said"), "wb") as said:
            # Ended with the test by its pid, as all that a test starts.
            self.process = subprocess.Popen(["postfix", "-c", self.conf, "start-fg"], stdin=subprocess.DEVNULL, stdout=said,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        wait_for("Postfix takes mail", lambda: os.path.exists(os.path.join(self.folder, "queue", "public", "pickup")))

    def __getstate__(self):
        """To hand mail in, another process needs the folder only."""
        return {name: value for name, value in vars(self).items() if name != "process"}

    @staticmethod
    def knows(user):
        """local(8) delivers to the users of the machine only."""
        try:
            return pwd.getpwnam(user)
        except KeyError:
            return None

    def take(self, text, user):
        """Hands a message in; True when it is in the queue."""
        return run(["sendmail", "-C", self.conf, "-i", "-f", "sender@example.test", f"{user}@{self.domain}"],
                   input=text).returncode == 0

    def queued(self):
        """How many messages are not yet delivered."""
        return sum(len(files) for queue in ("maildrop", "incoming", "active", "deferred")
                   for _, _, files in os.walk(os.path.join(self.folder, "queue", queue)))

    def log(self):
        try:
            with open(os.path.join(self.folder, "mail.log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def drain(self, seconds=60):
        """Waits until all was delivered; fails when something was not."""
        wait_for("Postfix has delivered all", lambda: not self.queued(), seconds)
        odd = [line for line in self.log().splitlines() if "status=bounced" in line]
        if odd:
            raise Failure(f"Postfix bounced: {odd[-1]}")

    def deferrals(self):
        return self.log().count("status=deferred")


class Peer(Postfix):
    """Takes mail at `address` and `port`, under STARTTLS too, for `users` of `domain`; sends all other mail to our server's port
    `relay`. `pair`: its certificate and key."""

    def __init__(self, bench, address, port, relay, pair, domain="post.example", users=("pat", "pia"), tls="may"):
        folder, uid = bench.path("postfix"), pwd.getpwnam("nobody").pw_uid
        self.boxes = os.path.join(folder, "boxes")
        os.makedirs(self.boxes)
        shutil.chown(self.boxes, uid)
        known = ", ".join(f"{{ {user}@{domain} = {user} }}" for user in users)
        super().__init__(bench, self.boxes, domain,
                         PEER_MAIN.format(folder=folder, domain=domain, users=known, uid=uid, relay=relay, cert=pair[0], key=pair[1], tls=tls),
                         PEER_MASTER.format(address=address, port=port))

    def send(self, text, sender, *recipients, options=()):
        """Hands a message in, by its own sendmail."""
        done = run(["sendmail", "-C", self.conf, "-i", *options, "-f", f"{sender}@{self.domain}", *recipients], input=text)
        if done.returncode:
            raise Failure(f"Postfix's sendmail: {done.stderr!r}")

    def box(self, user):
        return os.path.join(self.boxes, user)
