#!/usr/bin/env python3
"""DMail beside Postfix: durable accepts, and the time until all is in the drops.

    benches/postfix.py [--program FILE] [--messages N] [--rounds N] [--dir DIR]

Both take mail on a port of the loopback for the same users and bring it into mbox files below one folder: Postfix by smtpd,
its queue and virtual(8), DMail by itself. smtp-source sends 2,048 bytes a message to one user after the other, over 1, 5
and 50 connections at a time, one message each or ten; the two servers take turns, and the median of the rounds counts. Only the ratio
means something elsewhere. Runs as root only, as Postfix does; needs postfix (and its smtp-source). Users of the drops:
uid 12345 for Postfix, who delivers with it; root for DMail, which needs none.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "interop"))

from harness.site import free_ports  # noqa: E402
from harness.suite import Bench, Failure, adopt, run, wait_for  # noqa: E402

DOMAIN = "bench.test"
#: Users whose mail is sent: as many drops share it.
USERS = 1000
OWNER = 12345
LENGTH = 2048

MAIN = """compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
default_process_limit = 200
in_flow_delay = 0
local_recipient_maps =
alias_maps =
alias_database =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {spool}
virtual_mailbox_maps = texthash:{folder}/conf/users
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
virtual_mailbox_limit = 0
virtual_mailbox_lock = dotlock, fcntl
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
"""
MASTER = """127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
error unix - - n - - error
retry unix - - n - - error
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""
CONF = """host_domain {domain}
drop_path {spool}
work_path {folder}/work
authent_process "{program}" nwauth -path {folder}/users
bind_address 127.0.0.1
pop_port 0
smtp_port {port}
submission_port 0
smtps_port 0
sysadmin root@{domain}
route * park
"""


def user(number):
    """As smtp-source -N names recipients."""
    return f"{number}user"


class Peer:
    """A server and the drops that it fills."""

    def __init__(self, bench, name):
        self.folder, self.spool = bench.path(name), bench.path(name, "spool")
        for folder in (self.folder, self.spool):
            os.makedirs(folder)
            os.chmod(folder, 0o755)
        (self.port,) = free_ports(1)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text.format(folder=self.folder, spool=self.spool, domain=DOMAIN, owner=OWNER, port=self.port,
                                   program=getattr(self, "program", "")))
        return path

    def start(self, command):
        with open(os.path.join(self.folder, "said"), "wb") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                                            start_new_session=True)
        wait_for(f"{command[0]} takes mail", self.answers)

    def answers(self):
        done = run(["smtp-source", "-m", "1", "-l", "1", "-f", f"a@{DOMAIN}", "-t", f"1user@{DOMAIN}",
                    f"inet:127.0.0.1:{self.port}"])
        return done.returncode == 0

    def bytes_in_drops(self):
        return sum(entry.stat().st_size for entry in os.scandir(self.spool) if entry.name.endswith("user"))

    def load(self, senders, messages, each):
        """Messages a second that were taken, and until all were in their drops."""
        before, expected = self.bytes_in_drops(), messages * LENGTH
        command = ["smtp-source", "-s", str(senders), "-m", str(messages), "-l", str(LENGTH), "-N", "-f", f"ann@{DOMAIN}",
                   "-t", f"user@{DOMAIN}"] + (["-d"] if each else []) + [f"inet:127.0.0.1:{self.port}"]
        begun = time.monotonic()
        done = run(command, 300)
        taken = time.monotonic() - begun
        if done.returncode or done.stderr:
            raise Failure(f"{command}: {done.stderr[-300:]!r}")
        wait_for("all is in the drops", lambda: self.bytes_in_drops() - before >= expected and not self.queued(), 300)
        return messages / taken, messages / (time.monotonic() - begun)


class Postfix(Peer):
    def __init__(self, bench):
        super().__init__(bench, "postfix")
        for name, mode in (("conf", 0o755), ("queue", 0o755), ("data", 0o700)):
            os.makedirs(os.path.join(self.folder, name))
            os.chmod(os.path.join(self.folder, name), mode)
        shutil.chown(os.path.join(self.folder, "data"), "postfix")
        shutil.chown(self.spool, OWNER, OWNER)
        conf = os.path.dirname(self.write("conf/main.cf", MAIN))
        self.write("conf/master.cf", MASTER)
        self.write("conf/users", "".join(f"{user(number)}@{{domain}} {user(number)}\n" for number in range(1, USERS + 1)))
        done = run(["postfix", "-c", conf, "check"])
        if done.returncode:
            raise Failure(f"postfix check: {done.stderr!r}")
        self.start(["postfix", "-c", conf, "start-fg"])

    def queued(self):
        return any(files for queue in ("maildrop", "incoming", "active", "deferred")
                   for _, _, files in os.walk(os.path.join(self.folder, "queue", queue)))


class DMail(Peer):
    def __init__(self, bench, program):
        super().__init__(bench, "dmail")
        self.program = program
        for folder in ("users", "work"):
            os.makedirs(os.path.join(self.folder, folder))
        done = run([program, "nwauth", "-path", os.path.join(self.folder, "users"), "-generate", str(USERS)])
        if done.returncode:
            raise Failure(f"nwauth: {done.stderr!r}")
        path = os.path.join(self.folder, "users", "nwauth.txt")
        with open(path, encoding="ascii") as file:
            rows = [line.split(":", 1)[1] for line in file.read().splitlines() if line.startswith("test")]
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"{user(number)}:{row}\n" for number, row in enumerate(rows, 1))
        run([program, "nwauth", "-path", os.path.join(self.folder, "users"), "merge"])
        self.start([program, "serve", "-i", self.write("dmail.conf", CONF)])

    def queued(self):
        return bool(os.listdir(os.path.join(self.folder, "work", "queue")))


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--program", default=os.path.join(HERE, "..", "target", "release", "dmail"))
    words.add_argument("--messages", type=int, default=USERS)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--dir", default=None)
    asked = words.parse_args()
    os.environ["TMPDIR"] = asked.dir or os.environ.get("TMPDIR", "/tmp")
    if os.geteuid():
        sys.exit("Postfix runs as root only")
    adopt()
    bench = Bench("postfix")
    try:
        peers = [Postfix(bench), DMail(bench, os.path.abspath(asked.program))]
        for peer in peers:
            # Every drop is there, every user is known.
            peer.load(5, USERS, True)
        print(f"{'senders':>7}  {'each':>4}  {'':9}{'Postfix':>9} {'DMail':>9} {'ratio':>6}")
        for senders in (1, 5, 50):
            for each in (False, True):
                found = [[], []]
                for _ in range(asked.rounds):
                    for rates, peer in zip(found, peers):
                        rates.append(peer.load(senders, asked.messages, each))
                for index, what in enumerate(("accepted", "in drops")):
                    theirs, ours = (statistics.median(rate[index] for rate in rates) for rates in found)
                    print(f"{senders:>7}  {'many' if each else 'one':>4}  {what:9}{theirs:>7.0f}/s {ours:>7.0f}/s {ours / theirs:>6.1f}",
                          flush=True)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
