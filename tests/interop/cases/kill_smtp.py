"""kill -9 while mail arrives, is fetched and is deleted. The senders keep a ledger of what they were answered, and after
each kill it is held against the drops: a 250 after DATA means that the message is there, once, byte for byte, for each
recipient that was taken; a 4xx or 5xx means that it never appears; no answer means once and whole, or not at all. What a client
deleted stays away, every drop is a whole mbox, and nothing is left over in work_path.

CRASH_ROUNDS is how many rounds (30 unless set), SEED repeats a run."""

import json
import os
import re
import signal
import socket
import threading
import time

from harness import spool
from harness.site import free_ports
from harness.suite import check, same, test, wait_for

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "30"))
USERS = {"ann": "secret", "bob": "geheim", "cyd": "segreto"}
MARK = re.compile(rb"^X-Serial: (\d+)\r\n", re.M)


class Ledger:
    """What became of each message, as its sender knows."""

    def __init__(self):
        self.lock = threading.Lock()
        self.serial = 0
        self.texts = {}     # serial: the text on the wire
        self.taken = {}     # serial: the recipients that were answered 250
        self.state = {}     # serial: "accepted", "refused", or "unanswered"
        self.gone = set()   # (serial, user): deleted, and the QUIT was answered
        self.unsure = set() # (serial, user): marked in a session whose QUIT was not

    def begin(self, text_of):
        with self.lock:
            self.serial += 1
            self.texts[self.serial] = text_of(self.serial)
            self.state[self.serial], self.taken[self.serial] = "unanswered", []
            return self.serial


class Sender(threading.Thread):
    """Sends until the server is gone."""

    def __init__(self, site, ledger, random, sizes):
        super().__init__(daemon=True)
        self.site, self.ledger, self.random, self.sizes = site, ledger, random, sizes
        self.trouble = None

    def run(self):
        try:
            while True:
                self.connection()
        except OSError:
            pass  # The kill.
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble

    def connection(self):
        with socket.create_connection(("127.0.0.1", self.site.extra["smtp_port"]), timeout=20) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = sock.makefile("rb")

            def reply():
                while True:
                    line = lines.readline()
                    if not line.endswith(b"\r\n"):
                        raise ConnectionError("the server is gone")
                    if line[3:4] != b"-":
                        return int(line[:3])

            def command(text):
                sock.sendall(text.encode() + b"\r\n")
                return reply()

            reply()
            command("EHLO client.test")
            for _ in range(self.random.randrange(1, 6)):
                self.message(sock, reply, command)
            command("QUIT")

    def message(self, sock, reply, command):
        size = self.random.choice(self.sizes)
        body = b"".join(b"%06d From here on it is line %d\r\n" % (n, n) for n in range(size // 36 + 1))
        serial = self.ledger.begin(
            lambda serial: b"X-Serial: %d\r\nFrom: a@client.test\r\nSubject: number %d\r\n\r\n%sFrom the last line\r\n" %
            (serial, serial, body))
        users = self.random.sample(sorted(USERS), self.random.choice((1, 1, 1, 2, 3)))
        if command("MAIL FROM:<a@client.test>") != 250:
            command("RSET")
            self.ledger.state[serial] = "refused"
            return
        # Said before the answer: a kill may come in between.
        taken = [user for user in users if command(f"RCPT TO:<{user}@example.test>") == 250]
        self.ledger.taken[serial] = taken
        if not taken or command("DATA") != 354:
            command("RSET")
            self.ledger.state[serial] = "refused"
            return
        sock.sendall(self.ledger.texts[serial] + b".\r\n")
        code = reply()
        check(code // 100 in (2, 4, 5), "an answer after the dot:", code)
        self.ledger.state[serial] = "accepted" if code == 250 else "refused"


class Reader(threading.Thread):
    """Fetches and deletes until the server is gone."""

    def __init__(self, site, ledger, random, user):
        super().__init__(daemon=True)
        self.site, self.ledger, self.random, self.user = site, ledger, random, user
        self.trouble = None

    def run(self):
        try:
            while True:
                self.session()
                time.sleep(self.random.random() * 0.02)
        except (OSError, EOFError):
            pass  # The kill.
        except Exception as trouble:  # pylint: disable=broad-except
            if self.site.process.poll() is None:
                self.trouble = trouble

    def session(self):
        pop = self.site.pop(timeout=20)
        marked = set()
        try:
            pop.ok(f"USER {self.user}")
            if not pop.cmd(f"PASS {USERS[self.user]}").startswith(b"+OK"):
                return
            for number, text in enumerate(pop.everything(), 1):
                serial = judged(self.ledger, self.user, text)
                if self.random.random() < 0.6:
                    marked.add((serial, self.user))
                    pop.ok(f"DELE {number}")
            self.ledger.unsure |= marked
            pop.ok("QUIT")
            self.ledger.gone |= marked
            self.ledger.unsure -= marked
        finally:
            pop.close()


def judged(ledger, user, text):
    """The serial of a message that a drop holds: it is one that may be there, and whole."""
    mark = MARK.search(text)
    check(mark, f"{user} holds what nobody sent:", text[:300])
    serial = int(mark[1])
    check(serial in ledger.texts, f"{user} holds a message that was never begun:", serial)
    quoted = re.sub(rb"(?m)^(>*From )", rb">\1", ledger.texts[serial])
    same(text[mark.start():], quoted, f"message {serial} of {user}")
    head = text[:mark.start()]
    check(head.startswith(b"Return-Path: <a@client.test>\r\nDelivered-To: %s@example.test\r\nReceived: " % user.encode()),
          "what was written above it:", head)
    check(ledger.state[serial] != "refused", f"message {serial} was refused, and {user} has it")
    check((serial, user) not in ledger.gone, f"{user} deleted message {serial}, and has it again")
    return serial


def audit(site, ledger, number):
    """After a start: the drops against the ledger. Empties them, and says how many messages they held."""
    count = 0
    for user in USERS:
        pop = site.retry_login(user, timeout=20)
        found = [judged(ledger, user, text) for text in pop.everything()]
        check(len(found) == len(set(found)), f"round {number}: {user} has a message twice:",
              sorted(serial for serial in set(found) if found.count(serial) > 1))
        for serial, state in ledger.state.items():
            if state == "accepted" and user in ledger.taken[serial] and (serial, user) not in ledger.gone | ledger.unsure:
                check(serial in found, f"round {number}: message {serial} was accepted for {user}, who does not have it")
        count += len(found)
        for index in range(1, len(found) + 1):
            pop.ok(f"DELE {index}")
        pop.ok("QUIT")
        pop.close()
    return count


def is_empty(site):
    """Nothing waits for another try."""
    found = site.tell("status", "--json")
    status = json.loads(found.stdout)
    return status["jobs"]["running"] == 0 and status["jobs"]["waiting"] == 0 and not queued(site)


def queued(site):
    """The files of messages that wait."""
    return [os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(site.work, "queue")) for name in names]


def rounds(bench, sizes, readers):
    site = bench.site(users=USERS, tls=False, settings={"smtp_port": free_ports(1)[0], "retry_schedule": "1"})
    total = dict(rounds=ROUNDS, accepted=0, refused=0, unanswered=0, found=0)
    for number in range(ROUNDS):
        ledger = Ledger()
        site.extra["bin_pfull"] = (0.5, 1)[number % 2]
        site.start(patient=True)
        actors = [Sender(site, ledger, bench.random, sizes) for _ in range(6)]
        if readers:
            actors += [Reader(site, ledger, bench.random, user) for user in USERS]
        for actor in actors:
            actor.start()
        time.sleep(0.05 + bench.random.random() * 0.6)
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(20)
        for actor in actors:
            actor.join(30)
            check(not actor.is_alive(), f"round {number}: an actor does not end")
            check(actor.trouble is None, f"round {number}:", actor.trouble)
        for state in ledger.state.values():
            total[state] += 1
        site.start(patient=True)
        wait_for("what waits in the queue has been delivered", lambda: is_empty(site), 40)
        total["found"] += audit(site, ledger, number)
        wait_for("the sessions are over", lambda: site.is_quiet())
        for user in USERS:
            same(spool.messages(site.drop(user)), [], f"round {number}: {user} deleted everything; the drop")
        odd = [name for name in os.listdir(site.spool) if not re.fullmatch(r"\.?(ann|bob|cyd)(\.bin|\.idx)?", name)]
        check(not odd, f"round {number}: left over:", odd)
        same(site.stop(), 0, "exit code")
    print("counted:", json.dumps(total))
    check(total["accepted"], "nothing was accepted")
    if ROUNDS >= 20:
        check(total["unanswered"], "no kill met a message")


@test("kill -9 while small mail arrives", 60 + 6 * ROUNDS)
def small(bench):
    rounds(bench, (200, 2_000), readers=False)


@test("kill -9 while mail of all sizes arrives, is fetched and deleted", 60 + 8 * ROUNDS)
def mixed(bench):
    rounds(bench, (200, 2_000, 2_000, 60_000, 700_000), readers=True)
