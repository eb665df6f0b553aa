"""A server that did not hear our answer sends its message again: its reader has one. Whoever dies, and whenever.

REPEAT_ROUNDS is how many kills there are (8 unless set), SEED repeats the orders (not who is quicker)."""

import json
import os
import re
import signal
import socket
import threading
import time

from cases.smtp import server, stored
from harness import spool
from harness.suite import DMAIL, Failure, check, run, same, test, wait_for
from harness.wire import Smtp

ROUNDS = int(os.environ.get("REPEAT_ROUNDS", "8"))
#: A dead server's successor answers so soon, on a machine with much else to do.
START_SECS = 15


def letter(serial=1, queue_id="4XyZ1", size=0):
    """As another server hands it on."""
    lines = b"".join(b"%06d all work and no play\r\n" % n for n in range(size // 26))
    return (b"Received: from client.test by mx.client.test with ESMTP id %s;\r\n\tMon, 5 Jan 2026 10:00:00 +0000\r\n"
            b"X-Serial: %d\r\nSubject: number %d\r\n\r\n%send.\r\n" % (queue_id.encode(), serial, serial, lines))


def hand(port, text, *recipients, hello="EHLO", sender="a@client.test"):
    """Up to its dot."""
    wire = Smtp.tcp(port)
    wire.hello(hello)
    wire.begin(sender, *recipients)
    wire.send(text + b".\r\n")
    return wire


def told(site):
    """What it has counted."""
    done = run([DMAIL, "tellsmtp", "-i", site.conf, "status", "--json"])
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)["delivery"]


def lose(site, port, text, *recipients, hello="EHLO"):
    """Hands it over and hears nothing of what becomes of it."""
    before = told(site)
    wire = hand(port, text, *recipients, hello=hello)
    wire.close()
    done = lambda: sum(told(site)[name] for name in ("kept", "repeated")) > before["kept"] + before["repeated"]
    wait_for("it is kept", done, 20)


def sent(port, text, *recipients, hello="EHLO", leave=True):
    """Hands it over; what is said after the dot."""
    wire = hand(port, text, *recipients, hello=hello)
    said = [wire.expect(b"250 2.0.0 Accepted as")[0] for _ in range(len(recipients or "1") if hello == "LHLO" else 1)]
    if leave:
        wire.cmd("QUIT", b"221")
    wire.close()
    return said[0].split()[-1].decode()


@test("repeats: a message whose sender heard no answer and sends it again comes once, and one that was heard of is a second one")
def once(bench):
    site = server(bench)
    lose(site, site.smtp_port, letter())
    first = stored(site)[0]["Received"].split(" id ")[1].split()[0].rstrip(";")
    for _ in range(2):
        same(sent(site.smtp_port, letter(), leave=False), first, "as what it is accepted")
    same(len(stored(site)), 1, "letters")
    status = told(site)
    same((status["repeated"], status["unheard"]), (2, 1), "in status")
    check(f": it came before, as {first}, whose sender did not hear that" in site.log(), site.log())
    # NOOP, QUIT and the next message say that the answer was heard.
    for last in ("NOOP", "RSET", "MAIL FROM:<b@client.test>", "EHLO again.test", "QUIT"):
        wire = hand(site.smtp_port, letter())
        wire.expect(b"250 2.0.0 Accepted as")
        wire.cmd(last, b"2")
        wait_for(f"it was heard, by {last}", lambda: told(site)["unheard"] == 0, 10)
        wire.close()
        before = len(stored(site))
        lose(site, site.smtp_port, letter())
        same(len(stored(site)), before + 1, "letters")


@test("repeats: QUIT together with the dot does not say that the answer was heard")
def together(bench):
    site = server(bench)
    for _ in range(3):
        wire = Smtp.tcp(site.smtp_port)
        wire.hello()
        wire.begin("a@client.test")
        wire.send(letter() + b".\r\nQUIT\r\n")
        wire.expect(b"250 2.0.0")
        wire.expect(b"221")
        wire.ended()
    same(len(stored(site)), 1, "letters")
    # Under TLS too.
    for _ in range(3):
        wire = Smtp.tcp(site.smtp_port)
        wire.hello()
        wire.starttls(site.cert)
        wire.hello()
        wire.begin("a@client.test", "bob@example.test")
        wire.send(letter(2) + b".\r\nQUIT\r\n")
        wire.expect(b"250 2.0.0")
        wire.close()
    same(len(stored(site, "bob")), 1, "letters")


@test("repeats: what differs in sender, recipients, text or way is another message; so is what has no way, or a user sends")
def others(bench):
    site = server(bench)
    lose(site, site.smtp_port, letter())
    for text, recipients in ((letter(queue_id="4XyZ2"), ()), (letter(2), ()), (letter(), ("ann@example.test", "bob@example.test"))):
        before = len(stored(site))
        lose(site, site.smtp_port, text, *recipients)
        same(len(stored(site)), before + 1, "letters")
    same(told(site)["repeated"], 0, "repeated")
    lose(site, site.smtp_port, letter(), "bob@example.test", "ann@example.test")
    same((told(site)["repeated"], len(stored(site, "bob"))), (1, 1), "the order of recipients is no difference")
    # Without a Received field nothing tells two sendings apart.
    for _ in range(2):
        lose(site, site.smtp_port, b"Subject: x\r\n\r\nReceived: by nobody\r\n", "bob@example.test")
    same(len(stored(site, "bob")), 3, "letters")
    for _ in range(2):
        before = told(site)["kept"]
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(site.work, "submit.sock"))
        wire = Smtp(sock)
        wire.hello()
        wire.begin("root@example.test", "bob@example.test")
        wire.send(letter() + b".\r\n")
        wire.close()
        wait_for("it is kept", lambda before=before: told(site)["kept"] > before, 10)
    same(len(stored(site, "bob")), 5, "letters")
    site.extra["merge_repeats"] = "false"
    site.write_conf()
    site.tell("reload")
    before = len(stored(site))
    lose(site, site.smtp_port, letter())
    same(len(stored(site)), before + 1, "letters")


@test("repeats: LMTP; the queue; a restart, an orderly one and a kill -9")
def restarts(bench):
    site = server(bench)
    both = ("ann@example.test", "bob@example.test")
    for how, serial in ((signal.SIGTERM, 1), (signal.SIGKILL, 2)):
        lose(site, site.lmtp_port, letter(serial), hello="LHLO")
        lose(site, site.lmtp_port, letter(serial + 10), *both, hello="LHLO")
        site.stop(how)
        site.start(seconds=START_SECS, patient=True)
        sent(site.lmtp_port, letter(serial), hello="LHLO", leave=False)
        # By another way: the mark is the message's.
        sent(site.smtp_port, letter(serial + 10), *both, leave=False)
        same((len(stored(site)), len(stored(site, "bob"))), (2 * serial, serial), "letters")
        same(told(site)["repeated"], 2, "repeated")


@test("repeats: what comes again while the first is on its way to the disk is told to come later")
def beside(bench):
    site = server(bench)
    lock = site.drop() + ".lock"
    with open(lock, "wb") as file:
        file.write(b"%d\n" % os.getpid())
    wire = hand(site.smtp_port, letter())
    for port, hello in ((site.smtp_port, "EHLO"), (site.lmtp_port, "LHLO")):
        again = hand(port, letter(), hello=hello)
        again.expect(b"451 4.3.0 The same message is just being taken; try again later")
        again.close()
    os.unlink(lock)
    wire.expect(b"250 2.0.0")
    wire.close()
    same(sent(site.smtp_port, letter()), stored(site)[0]["Received"].split(" id ")[1].split()[0].rstrip(";"), "as what")
    same(len(stored(site)), 1, "letters")


class Peer(threading.Thread):
    """A server that sends each of its messages until it has heard that it was taken. Some answers it loses."""

    def __init__(self, site, random, serials, recipients, port):
        super().__init__(daemon=True)
        self.site, self.random, self.port = site, random, port
        self.serials, self.recipients = serials, recipients
        self.trouble, self.tries = None, 0

    def run(self):
        try:
            for serial in self.serials:
                while not self.is_taken(serial):
                    time.sleep(0.01)
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble

    def is_taken(self, serial):
        self.tries += 1
        is_lost = self.random.random() < 0.3
        text = letter(serial, size=(0, 3_000, 200_000)[serial % 3])
        try:
            hello = "LHLO" if self.port == "lmtp" else "EHLO"
            wire = hand(getattr(self.site, f"{self.port}_port"), text, *self.recipients(serial), hello=hello)
            if is_lost:
                time.sleep(self.random.random() * 0.03)
                wire.close()
                return False
            code = wire.reply()[0][:3]
            if code == b"250":
                wire.close()
                return True
            check(code in (b"451", b"452", b""), "after the dot:", code)
            wire.close()
            return False
        except (OSError, EOFError):
            return False
        except Failure as trouble:
            # Killed in the midst of it, or not wholly there yet: no authenticator could say who that is.
            if re.search(r"got \[b'(4|'\])", str(trouble)):
                return False
            raise


@test("repeats: kill -9 of the server at any moment: what is sent until it is heard comes exactly once", seconds=600)
def killed(bench):
    site = server(bench)
    both = ("ann@example.test", "bob@example.test")
    choices = ((both[:1], "smtp"), (both, "smtp"), (both[1:], "lmtp"), (both, "lmtp"))
    serial, wanted = 0, {"ann": 0, "bob": 0}
    for _ in range(ROUNDS):
        peers = []
        for recipients, port in choices:
            serials = range(serial + 1, serial + 9)
            serial += 8
            for address in recipients:
                wanted[address.split("@")[0]] += 8
            peers.append(Peer(site, bench.random, serials, lambda _, recipients=recipients: recipients, port))
        for peer in peers:
            peer.start()
        time.sleep(bench.random.random() * 0.4)
        site.stop(signal.SIGKILL)
        site.start(seconds=START_SECS, patient=True)
        for peer in peers:
            peer.join(120)
            check(not peer.is_alive() and peer.trouble is None, "a peer:", peer.trouble)
        wait_for("the queue is empty", lambda: not site.queue_files(), 90)
        for user, count in wanted.items():
            seen = [int(re.search(rb"(?m)^X-Serial: (\d+)\r?$", text)[1]) for text in spool.messages(site.drop(user))]
            twice = sorted({number for number in seen if seen.count(number) > 1})
            check(not twice, f"{user} has twice:", twice)
            same(len(seen), count, f"messages of {user}")
