"""Disks that are full: mail is told to come later, reading and deleting go on, what was answered 250 stays, what was not never
comes, and mail flows again when there is space; also through kill -9 while nothing can be written. Small file systems in memory,
mounted where only this test sees them, so only root runs it."""

import ctypes
import errno
import json
import os
import signal
import smtplib
import time

from harness import spool
from harness.site import free_ports
from harness.suite import ROOT, Skip, check, run, same, test, wait_for

from .kill_smtp import USERS, Ledger, Sender, audit, is_settled, leftovers, ordered, whole

CYCLES = int(os.environ.get("CRASH_ROUNDS", "8"))
NEWNS = 0x00020000


def alone():
    """This process gets a list of mounts of its own."""
    if not ROOT or ctypes.CDLL(None).unshare(NEWNS) or run(["mount", "--make-rprivate", "/"]).returncode:
        raise Skip("no mount namespace of our own can be made here")


class Small:
    """A file system of so many megabytes at a folder."""

    def __init__(self, path, megabytes, mode):
        self.path, self.filler = path, os.path.join(path, ".filler")
        done = run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode={mode}", "tmpfs", path])
        if done.returncode:
            raise Skip(f"no small file system can be mounted here: {done.stderr}")

    def fill(self, leave=0):
        """Until there is no byte more than `leave`, rounded down to a page."""
        with open(self.filler, "ab", buffering=0) as file:
            piece = b"x" * 65_536
            while piece:
                status = os.statvfs(self.path)
                room = status.f_bavail * status.f_frsize - leave
                if room <= 0 and leave:
                    return
                try:
                    file.write(piece[:room] if leave else piece)
                except OSError as error:
                    check(error.errno == errno.ENOSPC, error)
                    piece = piece[: len(piece) // 2]

    def free(self):
        os.unlink(self.filler)

    def gone(self):
        run(["umount", "-l", self.path])


def post(site, text, user="ann"):
    """What a sender is told at last: code and enhanced code."""
    with smtplib.SMTP("127.0.0.1", site.extra["smtp_port"], timeout=30, local_hostname="client.test") as smtp:
        smtp.ehlo()
        for words in (("MAIL", "FROM:<x@client.test>"), ("RCPT", f"TO:<{user}@example.test>"), ("DATA", "")):
            code, said = smtp.docmd(*words)
            if code >= 400:
                return code, said.split()[0].decode()
        smtp.send(text + b"\r\n.\r\n")
        code, said = smtp.getreply()
        return code, said.split()[0].decode()


def served(bench, **settings):
    extra = {"smtp_port": free_ports(1)[0], "retry_schedule": "1", "sends_per_hour": 0, "sends_per_day": 0, "log_path": bench.path("log")}
    os.makedirs(extra["log_path"])
    return bench.site(users=USERS, tls=False, settings={**extra, **settings})


@test("full disk: with too little space no mail begins, reading and deleting go on, and mail comes again when there is space", 120)
def watched(bench):
    alone()
    site = served(bench, delivery_min_space=4)
    small = Small(site.work, 16, "0700")
    try:
        drop = site.fill(spool.spool(spool.plain(4)))
        before = spool.messages(drop)
        site.start()
        same(post(site, b"Subject: one\r\n\r\n1"), (250, "2.0.0"), "with space")
        small.fill(leave=2_000_000)
        taken = []

        def refused():
            # What was learned of free space is believed for some seconds.
            taken.append(post(site, b"Subject: two\r\n\r\n2"))
            return taken[-1] == (452, "4.3.1")

        wait_for("nothing is taken", refused, 15)
        pop = site.login()
        same(pop.everything()[:4], before, "messages")
        pop.ok("DELE 1")
        pop.quit()
        pop = site.retry_login()
        same(pop.everything()[:3], before[1:], "messages without the first")
        pop.quit()
        small.free()
        wait_for("mail is taken again", lambda: post(site, b"Subject: three\r\n\r\n3")[0] == 250, 15)
        found = [text for text in spool.messages(drop) if b"Subject: two\r\n" in text]
        same(len(found), taken.count((250, "2.0.0")), "messages, without what was refused,")
    finally:
        site.stop()
        small.gone()


@test("full disk: a full spool sends mail by the queue, and hurts no drop", 120)
def full_spool(bench):
    alone()
    site = served(bench, delivery_min_space=0, min_space=0)
    small = Small(site.spool, 4, "0755")
    try:
        drop = site.fill(spool.spool(spool.plain(6)))
        before = spool.messages(drop)
        site.start()
        site.login().quit()
        small.fill()
        same(post(site, b"Subject: one\r\n\r\n" + b"1" * 900 + (b"\r\n" + b"1" * 900) * 20), (250, "2.0.0"), "with a full spool")
        same(ordered(site, "queue")["messages"], 1, "messages in the queue")
        same(spool.messages(drop), before, "the drop")
        pop = site.retry_login()
        same(pop.everything(), before, "messages")
        pop.quit()
        small.free()
        wait_for("the message is there", lambda: len(spool.messages(drop)) == 7, 20)
        same(spool.messages(drop)[:6], before, "the others")
        wait_for("the queue is empty", lambda: ordered(site, "queue")["messages"] == 0)
        # Not a byte is left, so a deletion may be impossible to write down. Then that is said, and nothing is deleted.
        before = spool.messages(drop)
        small.fill()
        pop = site.retry_login()
        for number in range(1, 8):
            pop.ok(f"DELE {number}")
        reply = pop.cmd("QUIT")
        pop.close()
        wait_for("the session is over", site.is_quiet)
        pop = site.retry_login()
        same(pop.everything(), [] if reply.startswith(b"+OK") else before, f"messages after {reply}")
        pop.quit()
        small.free()
        pop = site.retry_login()
        for number in pop.list():
            pop.ok(f"DELE {number}")
        pop.quit()
        wait_for("the drop is empty", lambda: spool.messages(drop) == [])
    finally:
        site.stop()
        small.gone()


def cycles(bench, both, kills):
    """Senders at work while the disk fills up and empties; with `both` spool and work_path are one file system."""
    alone()
    ledger = Ledger()
    site = served(bench, delivery_min_space=0, min_space=0, pickup_secs=1)
    os.makedirs(bench.path("small"))
    # Room for all that comes before it is filled up: what stands between the senders and their 250 is to be the filler, not mail.
    small = Small(bench.path("small"), 128, "0755")
    names = {"work": 0o700, **({"drop": 0o755} if both else {})}
    for name, mode in names.items():
        os.makedirs(os.path.join(small.path, name))
        os.chmod(os.path.join(small.path, name), mode)
        run(["mount", "--bind", os.path.join(small.path, name), os.path.join(site.folder, name)])
    total = {"cycles": 0, "accepted": 0, "refused": 0, "cut": 0, "nameless locks": 0}
    try:
        for number in range(CYCLES):
            site.start(patient=True)
            actors = [Sender(site, ledger, bench.random, (200, 2_000, 20_000, 300_000), lambda dice: dice.sample(sorted(USERS), dice.choice((1, 1, 2, 3))))
                      for _ in range(4)]
            for actor in actors:
                actor.start()
            time.sleep(0.1)
            small.fill()
            time.sleep(0.3 + bench.random.random() * 0.3)
            if not kills:
                site.alive()
                # Users read what is there. Deleting needs a few bytes in the ledger.
                pop = site.retry_login(timeout=20)
                pop.stat()
                pop.everything()
                pop.quit()
                small.free()
                time.sleep(0.2)
            os.kill(site.process.pid, signal.SIGKILL)
            site.process.wait(20)
            for actor in actors:
                actor.join(30)
                check(actor.trouble is None, f"cycle {number}:", actor.trouble)
            check("panicked" not in site.said(), site.said())
            total["cut"] += sum(message.state == "unanswered" for message in ledger.sent.values())
            for user in USERS:
                lock = site.drop(user) + ".lock"
                if both and os.path.exists(lock) and os.path.getsize(lock) == 0:
                    # There was no room to write down whose it is: the next server would wait until it is old enough, 17 minutes.
                    total["nameless locks"] += 1
                    os.unlink(lock)
            if kills:
                # The next one starts while there is no room.
                site.start(patient=True)
                pop = site.retry_login(timeout=20)
                pop.everything()
                pop.quit()
                small.free()
            else:
                site.start(patient=True)
            wait_for("nothing waits any more", lambda: is_settled(site), 60)
            audit(site, ledger, number, set())
            wait_for("the sessions are over", site.is_quiet)
            for user in USERS:
                whole(site, ledger, user)
            leftovers(site, number)
            same(site.stop(), 0, "exit code")
            check("panicked" not in site.said(), site.said())
            total["cycles"] += 1
        for message in ledger.sent.values():
            total["accepted"] += message.state == "accepted"
            total["refused"] += message.state == "refused"
        print("counted:", json.dumps(total))
        check(total["accepted"] and total["refused"], "the disk was never full, or always")
    finally:
        if site.process and site.process.poll() is None:
            site.stop(signal.SIGKILL)
        for name in names:
            run(["umount", "-l", os.path.join(site.folder, name)])
        small.gone()


@test("full disk: work_path fills up and empties while mail comes, killed after each", 60 + 12 * CYCLES)
def work_full(bench):
    cycles(bench, both=False, kills=False)


@test("full disk: kill -9 with everything full, and a start before there is room", 60 + 12 * CYCLES)
def all_full(bench):
    cycles(bench, both=True, kills=True)
