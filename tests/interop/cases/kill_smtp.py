"""kill -9 while mail arrives, is fetched and is deleted. Senders keep a ledger of what they were answered; after each kill it is
held against the drops, the queue and what robots were given:

| the sender was answered | then the message is                                                                         |
|-------------------------|---------------------------------------------------------------------------------------------|
| 250                     | in each recipient's drop once, byte for byte; for remote ones in the queue, once; with a robot at least once |
| 4xx, 5xx                | nowhere, now and later                                                                      |
| nothing                 | with all its recipients, once and whole, or with none                                       |

What a client deleted stays away; a QUIT without an answer deleted all or none; UIDs stay. Every drop is a whole mbox, also its
dead, and nothing is left over in work_path when all is quiet. The ledger lives through all rounds, so what comes late is seen.

CRASH_ROUNDS is how many rounds (8 unless set), SEED repeats the orders (not who is quicker)."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time

from harness import spool
from harness.site import free_ports
from harness.suite import DMAIL, ROOT, check, run, same, test, wait_for

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "8"))
USERS = {"ann": "secret", "bob": "geheim", "cyd": "segreto"}
MARK = re.compile(rb"^X-Serial: (\d+) (\d+)\r$", re.M)
QUOTED = re.compile(rb"(?m)^(>*From )")
#: A dead server's successor answers so soon, on a machine with much else to do.
START_SECS = 8
#: More in a drop, and everything in it is deleted.
MOST = 60
#: dmail tidies its intents so long after the last delivery, and a little more.
TIDY_SECS = 25


def letter(serial, size):
    """The text of a message, as RETR gives it."""
    lines = b"".join(b"%06d From here on it is line %d of %d\r\n" % (n, n, serial) for n in range(size // 42 + 1))
    return (b"X-Serial: %d %d\r\nFrom: a@client.test\r\nTo: many@example.test\r\nSubject: number %d\r\nMessage-ID: <%d@client.test>\r\n"
            b"Date: Mon, 5 Jan 2026 10:00:00 +0000\r\n\r\n%s.\r\n.dotted\r\n\r\nFrom the last line\r\n" % (
                serial, size, serial, serial, lines))


class Sent:
    """A message, as its sender knows it."""

    def __init__(self, serial, size, users):
        self.serial, self.size, self.users = serial, size, users
        self.taken = []  # the recipients that were answered 250
        self.state = "unanswered"  # or "accepted", "refused", "absent": unanswered, and nobody had it when all was quiet
        self.began = self.ended = time.monotonic()
        self.copies = 1  # more than one only where that is allowed


class Ledger:
    """What became of each message, and what clients did to it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = {}
        self.present = {user: set() for user in USERS}  # serials that were seen when all was quiet
        self.gone = {user: set() for user in USERS}  # deleted, and the QUIT was answered
        self.unsure = []  # (user, serials): marked in a session whose QUIT was not
        self.uids = {}  # (user, serial, what was written above it): UID

    def begin(self, size, users):
        with self.lock:
            serial = len(self.sent) + 1
            self.sent[serial] = Sent(serial, size, users)
            return self.sent[serial]

    def in_doubt(self, user):
        return set().union(*(serials for name, serials in self.unsure if name == user))


class Actor(threading.Thread):
    """Works until the server is gone; `trouble` is what it found wrong."""

    def __init__(self, site, ledger, random):
        super().__init__(daemon=True)
        self.site, self.ledger, self.random = site, ledger, random
        self.process, self.trouble = site.process, None

    def run(self):
        try:
            while True:
                self.work()
        except (OSError, EOFError):
            # The kill; anything else is seen when the round ends.
            if self.process.poll() is None:
                try:
                    self.process.wait(2)
                except subprocess.TimeoutExpired:
                    self.trouble = "the server ended a conversation and lives"
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble


class Sender(Actor):
    def __init__(self, site, ledger, random, sizes, recipients):
        super().__init__(site, ledger, random)
        self.sizes, self.recipients = sizes, recipients

    def work(self):
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

            same(reply(), 220, "the greeting")
            command("EHLO client.test")
            for _ in range(self.random.randrange(1, 6)):
                self.message(sock, reply, command)
            command("QUIT")

    def message(self, sock, reply, command):
        message = self.ledger.begin(self.random.choice(self.sizes), self.recipients(self.random))
        if command(f"MAIL FROM:<s{message.serial}@client.test>") != 250:
            command("RSET")
            message.state = "refused"
            return
        for user in message.users:
            address = user if "@" in user else f"{user}@example.test"
            if command(f"RCPT TO:<{address}>") == 250:
                message.taken.append(user)
        if not message.taken or command("DATA") != 354:
            command("RSET")
            message.state = "refused"
            return
        sock.sendall(re.sub(rb"(?m)^\.", b"..", letter(message.serial, message.size)) + b".\r\n")
        code = reply()
        message.ended = time.monotonic()
        check(code // 100 in (2, 4, 5), "an answer after the dot:", code)
        message.state = "accepted" if code == 250 else "refused"


class Reader(Actor):
    """Fetches and deletes."""

    def __init__(self, site, ledger, random, user):
        super().__init__(site, ledger, random)
        self.user = user

    def work(self):
        time.sleep(self.random.random() * 0.05)
        marked = set()
        pop = self.site.pop(timeout=20)
        try:
            pop.ok(f"USER {self.user}")
            if not pop.cmd(f"PASS {USERS[self.user]}").startswith(b"+OK"):
                return
            serials = shown(self.ledger, self.user, pop)
            check(len(set(serials)) == len(serials), f"{self.user} has a message twice:", sorted(serials))
            for number, serial in enumerate(serials, 1):
                if self.random.random() < 0.6:
                    pop.ok(f"DELE {number}")
                    marked.add(serial)
            doubt = (self.user, marked)
            self.ledger.unsure.append(doubt)
            pop.ok("QUIT")
            self.ledger.gone[self.user] |= marked
            self.ledger.unsure.remove(doubt)
        finally:
            pop.close()


class Locker(threading.Thread):
    """Another program: has drops locked for a while, longer than a server waits with a letter in its hand."""

    def __init__(self, site, random):
        super().__init__(daemon=True)
        self.site, self.random, self.stop, self.held = site, random, threading.Event(), 0

    def run(self):
        while not self.stop.is_set():
            path = self.site.drop(self.random.choice(sorted(USERS))) + ".lock"
            try:
                made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
            except FileExistsError:
                time.sleep(0.01)
                continue
            os.write(made, b"%d\n" % os.getpid())
            os.close(made)
            self.held += 1
            self.stop.wait(self.random.random() * 3)
            os.unlink(path)
            time.sleep(0.02)


class Program(threading.Thread):
    """A program of this machine that sends by `sendmail`, whether a server is there or not; now and then it is killed itself."""

    def __init__(self, site, ledger, random):
        super().__init__(daemon=True)
        self.site, self.ledger, self.random = site, ledger, random
        self.stop, self.trouble, self.killed = threading.Event(), None, 0

    def run(self):
        try:
            while not self.stop.is_set():
                self.send()
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble

    def send(self):
        user = self.random.choice(sorted(USERS))
        message = self.ledger.begin(self.random.choice((200, 2_000, 150_000)), [user])
        message.taken.append(user)
        words = [DMAIL, "sendmail", "-C", self.site.conf, "-i", "-f", f"s{message.serial}@client.test", user]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            if self.random.random() < 0.1:
                self.killed += 1
                threading.Timer(self.random.random() * 0.05, child.kill).start()
            try:
                said, _ = child.communicate(letter(message.serial, message.size).replace(b"\r\n", b"\n"), timeout=30)
            except BrokenPipeError:
                said = b""
        message.ended = time.monotonic()
        if child.returncode == 0:
            message.state = "accepted"
        elif child.returncode != -signal.SIGKILL:
            check(child.returncode == 75, "sendmail ended with", child.returncode, said)


# ---- what must hold -----------------------------------------------------------------------------


def judged(ledger, user, text, copies):
    """The serial of a message that somebody has: it is one that may be there, and whole."""
    mark = MARK.search(text)
    check(mark, f"{user} holds what nobody sent:", text[:300])
    serial = int(mark[1])
    message = ledger.sent.get(serial)
    check(message and user in message.users, f"{user} holds a message that was never sent to him:", serial)
    same(text[mark.start():], QUOTED.sub(rb">\1", letter(serial, message.size)), f"message {serial} of {user}")
    check(re.fullmatch(rb"Return-Path: <s%d@client\.test>\r\nDelivered-To: %s@example\.test\r\nReceived: (?:[^\r]|\r\n[ \t])+\r\n" %
                       (serial, user.encode()), text[:mark.start()]), "what was written above it:", text[:mark.start()])
    check(message.state not in ("refused", "absent"), f"message {serial} was {message.state}, and {user} has it")
    check(copies <= message.copies, f"{user} has message {serial} {copies} times")
    return serial


def shown(ledger, user, pop):
    """The serials of what a session shows, in order; UIDs are what they were."""
    serials = []
    for number, uid in sorted(pop.uidl().items()):
        text = pop.retr(number)
        mark = MARK.search(text)
        copies = serials.count(int(mark[1])) + 1 if mark else 1
        serial = judged(ledger, user, text, copies)
        check(serial not in ledger.gone[user], f"{user} deleted message {serial}, and has it again")
        # Two copies of a message differ in how they came.
        which = (user, serial, text[:mark.start()])
        same(ledger.uids.setdefault(which, uid), uid, f"the UID of message {serial} of {user}")
        serials.append(serial)
    return serials


def whole(site, ledger, user):
    """The drop file itself, read by another program: nothing but messages that were sent, each once, also the dead."""
    path = site.drop(user)
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        check(file.read(5) in (b"", b"From "), f"the drop of {user} does not begin with From")
    seen = {}
    for text in spool.messages(path):
        mark = MARK.search(text)
        serial = int(mark[1]) if mark else 0
        seen[serial] = seen.get(serial, 0) + 1
        judged(ledger, user, text, seen[serial])


class Waiting:
    """A queue file, read by another program: its sender's serial and who is not done with."""

    def __init__(self, path):
        with open(path, "rb") as file:
            raw = file.read()
        head, _, rest = raw.partition(b"\n\n")
        name = os.path.basename(path).encode()
        check(re.search(rb"(?m)^Id: %s$" % re.escape(name), head), "a queue file that does not have its own id:", path, head)
        self.serial = int(MARK.search(rest.replace(b"\n", b"\r\n"))[1])
        self.left = {int(number): address.decode() for number, address in re.findall(rb"(?m)^To: (\d+) \S+ (\S+)", head)}
        self.all = sorted(self.left.values())
        for line in raw[raw.rindex(b"\nStates of %s:\n" % name):].split(b"\n"):
            if found := re.match(rb"State: (\S+) (delivered|bounced|dropped|deleted) .*sum=[0-9a-f]{16}$", line):
                for part in found[1].decode().split(","):
                    first, _, last = part.partition("-")
                    for number in range(int(first), int(last or first) + 1):
                        self.left.pop(number, None)


def queued(site):
    """The messages that wait, as their files say."""
    found = []
    for path in site.queue_files():
        try:
            found.append(Waiting(path))
        except FileNotFoundError:
            pass  # Done with just now.
    return found


def is_settled(site):
    """Nothing is under way but what waits for another server, or for an operator."""
    jobs = json.loads(site.tell("status", "--json").stdout)["jobs"]
    if jobs["running"] or jobs["waiting"]:
        return False
    incoming = os.path.join(site.work, "incoming")
    if any("." not in name for name in os.listdir(incoming)):
        return False
    # Who is done with leaves the queue.
    return all(waiting.left and all(address.endswith("@far.test") for address in waiting.left.values()) for waiting in queued(site))


def ordered(site, *words):
    done = run([DMAIL, "tellsmtp", "-i", site.conf, *words, "--json"], seconds=30)
    check(done.returncode == 0, "tellsmtp", words, done.stdout, done.stderr)
    return json.loads(done.stdout)


def audit(site, ledger, number, robot):
    """Everything against the ledger, when nothing moves. How many messages the drops held."""
    count = 0
    where = {}
    for user in USERS:
        whole(site, ledger, user)
        pop = site.retry_login(user, timeout=20)
        found = set(shown(ledger, user, pop))
        for one, serials in [doubt for doubt in ledger.unsure if doubt[0] == user]:
            rest = serials - ledger.gone[user]
            check(rest <= found or not rest & found, f"round {number}: a QUIT without an answer deleted", rest - found, "and not", rest & found)
            if not rest & found:
                ledger.gone[user] |= rest
            ledger.unsure.remove((one, serials))
        missing = ledger.present[user] - ledger.gone[user] - found
        check(not missing, f"round {number}: {user} had {sorted(missing)}, and has not now")
        where[user] = found
        count += len(found - ledger.present[user])
        ledger.present[user] |= found
        # Everything now and then, else some.
        share = 1 if len(found) > MOST or number % 3 == 2 else 0.3
        uids = pop.uidl()
        victims = {index for index in uids if site.bench.random.random() < share}
        for index in victims:
            pop.ok(f"DELE {index}")
        pop.quit()
        of_uid = {uid: serial for (name, serial, _), uid in ledger.uids.items() if name == user}
        deleted = {of_uid[uids[index]] for index in victims}
        kept = {of_uid[uid] for index, uid in uids.items() if index not in victims}
        ledger.gone[user] |= deleted - kept
    rows = {}
    for waiting in queued(site):
        check(waiting.serial not in rows, f"round {number}: message {waiting.serial} is in the queue twice")
        rows[waiting.serial] = waiting
    listed = ordered(site, "queue")
    same(listed["messages"], len(rows), f"round {number}: messages in the queue")
    if "not_shown" not in listed:
        same(sorted(row["from"] for row in listed["queue"]), sorted(f"s{serial}@client.test" for serial in rows), "the queue's list")
    for message in ledger.sent.values():
        if message.state in ("deleted", "absent"):
            check(message.serial not in rows, f"round {number}: message {message.serial} was {message.state}, and is in the queue")
            continue
        has = {user: message.serial in where[user] | ledger.gone[user] for user in message.taken if user in USERS}
        for user in message.taken:
            if user.endswith("@far.test"):
                has[user] = message.serial in rows and user in rows[message.serial].left.values()
            elif user == "bot":
                has[user] = message.serial in robot
        if message.state == "accepted":
            lacking = [user for user, it in has.items() if not it]
            check(not lacking, f"round {number}: message {message.serial} was accepted, and {lacking} do not have it")
        elif message.state == "refused":
            check(not any(has.values()), f"round {number}: message {message.serial} was refused, and is there:", has)
        elif any(has.values()):
            check(all(has.values()), f"round {number}: message {message.serial} was not answered, and some have it:", has)
            message.state = "accepted"
        else:
            message.state = "absent"
    return count


def leftovers(site, number, killed=0):
    """What lies in the spool and in work_path belongs there."""
    odd = [name for name in os.listdir(site.spool) if not re.fullmatch(r"\.?(ann|bob|cyd)(\.bin|\.idx)?", name)]
    check(not odd, f"round {number}: left over in the spool:", odd)
    odd = [path for path in site.queue_files() if not re.fullmatch(r"[0-9A-Z]{12,16}", os.path.basename(path))]
    check(not odd, f"round {number}: left over in the queue:", odd)
    for folder, most in (("bodies", 0), ("incoming", killed), ("incoming.bad", 0)):
        path = os.path.join(site.work, folder)
        odd = os.listdir(path) if os.path.isdir(path) else []
        check(len(odd) <= most, f"round {number}: left over in {folder}:", odd)


def tidy(site):
    """Quiet for a while, nothing of all that is left."""
    def names_no_drop():
        with open(os.path.join(site.work, "intents"), "rb") as file:
            return site.spool.encode() not in file.read()

    wait_for("the intents are tidied", names_no_drop, TIDY_SECS)
    known = {"bodies", "dmail.run", "dmail.sock", "incoming", "incoming.bad", "intents", "queue", "repeats", "submit.sock"}
    known_forms = re.compile(r".*\.log|lock\.[0-9]+")
    odd = [name for name in os.listdir(site.work) if name not in known and not known_forms.fullmatch(name)]
    check(not odd, "left over in work_path:", odd)


def start_all(threads):
    for thread in threads:
        thread.start()


def rounds(bench, sizes=(200, 2_000), readers=(), recipients=None, locked=False, robots=False, programs=0, lives=(0.05, 0.65)):
    """Kills, each audited; `recipients` draws whom a message is for."""
    settings = {"smtp_port": free_ports(1)[0], "retry_schedule": "1", "pickup_secs": 1, "sends_per_hour": 0, "sends_per_day": 0}
    if ROOT:
        settings["robot_user"] = "nobody"
    site = bench.site(users=USERS, tls=False, settings=settings)
    out = os.path.join(site.folder, "out")
    if robots:
        os.makedirs(out)
        os.chmod(out, 0o777)
        script = bench.write("keep", '#!/bin/sh\npart=$(mktemp "$1/part.XXXXXXXX") && cat > "$part" && '
                                     'mv "$part" "$1/whole.${part##*.}"\n', 0o755)
        site.extra["alias_file"] = bench.write("aliases", f'bot: "|{shlex.quote(script)} {out}"\n', 0o644)
    robot = set()
    recipients = recipients or (lambda dice: dice.sample(sorted(USERS), dice.choice((1, 1, 1, 2, 3))))
    ledger = Ledger()
    total = dict(rounds=ROUNDS, accepted=0, refused=0, unanswered=0, found=0, twice=0, held=0, waited=0, senders_killed=0)
    slowest = killed = 0
    for number in range(ROUNDS):
        site.extra["bin_pfull"] = (0.5, 1)[number % 2]
        others = [Program(site, ledger, bench.random) for _ in range(programs)]
        if programs and number:
            # What they leave while nobody is there is taken over under the next kill.
            start_all(others)
            time.sleep(bench.random.random() * 0.3)
        site.start(patient=True)
        actors = [Sender(site, ledger, bench.random, sizes, recipients) for _ in range(0 if programs else 6)]
        actors += [Reader(site, ledger, bench.random, user) for user in readers]
        locker = Locker(site, bench.random) if locked else None
        start_all([*actors, *([locker] if locker else []), *([] if number else others)])
        low, high = lives
        time.sleep(low + bench.random.random() * (high - low))
        killed_at = time.monotonic()
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(20)
        for actor in actors:
            actor.join(30)
            check(not actor.is_alive(), f"round {number}: an actor does not end")
            check(actor.trouble is None, f"round {number}:", actor.trouble)
        check("panicked" not in site.said(), f"round {number}: a panic:", site.said())
        total["waited"] += len(site.queue_files()) > 0
        if programs:
            # Down for a while: they go on.
            time.sleep(bench.random.random() * 0.3)
        began = time.monotonic()
        site.start(patient=True)
        slowest = max(slowest, time.monotonic() - began)
        if programs:
            time.sleep(bench.random.random() * 0.3)
        for other in [*others, *([locker] if locker else [])]:
            other.stop.set()
            other.join(60)
            check(not other.is_alive(), f"round {number}: a program does not end")
        for other in others:
            check(other.trouble is None, f"round {number}:", other.trouble)
            killed += other.killed
        total["held"] += locker.held if locker else 0
        if programs:
            for message in ledger.sent.values():
                # Who was cut off between text and answer leaves it in the drop directory too, as sendmail's manual says.
                if message.state != "absent" and message.began <= killed_at <= message.ended:
                    message.copies = 2
        total["unanswered"] += sum(message.state == "unanswered" for message in ledger.sent.values())
        wait_for("nothing waits any more", lambda: is_settled(site), 60)
        for name in os.listdir(out) if robots else ():
            if name.startswith("whole."):
                with open(os.path.join(out, name), "rb") as file:
                    text = file.read().replace(b"\n", b"\r\n")
                mark = MARK.search(text)
                # The pipe of a killed server ends in the middle: that copy is no whole one, and another follows.
                if mark and text[mark.start():] == letter(int(mark[1]), int(mark[2])):
                    robot.add(int(mark[1]))
                    check(ledger.sent[int(mark[1])].state not in ("refused", "absent"), "a robot has message", int(mark[1]),
                          "which was", ledger.sent[int(mark[1])].state)
            os.unlink(os.path.join(out, name))
        total["found"] += audit(site, ledger, number, robot)
        wait_for("the sessions are over", lambda: site.is_quiet())
        for user in USERS:
            whole(site, ledger, user)
            if number % 3 == 2:
                same(spool.messages(site.drop(user)), [], f"round {number}: {user} deleted everything; the drop")
        leftovers(site, number, killed)
        if number % 4 == 3:
            ordered(site, "queue", "delete", "from=s*@client.test", "--yes")
            for message in ledger.sent.values():
                if message.state == "accepted":
                    message.state = "deleted"
            same(queued(site), [], "the queue, emptied")
        same(site.stop(), 0, "exit code")
        check("panicked" not in site.said(), f"round {number}: a panic:", site.said())
    site.start(patient=True)
    ordered(site, "queue", "delete", "from=*", "--yes")
    run([DMAIL, "sendmail", "-C", site.conf, "-f", "x@client.test", "ann"], input=b"Subject: the last one\n\nx\n")
    wait_for("the last one is there", lambda: any(b"the last one" in text for text in spool.messages(site.drop())))
    tidy(site)
    site.stop()
    for message in ledger.sent.values():
        total["accepted"] += message.state in ("accepted", "deleted")
        total["refused"] += message.state == "refused"
    total["twice"] = len(ledger.uids) - len({which[:2] for which in ledger.uids})
    total["senders_killed"] = killed
    total["slowest_start"] = round(slowest, 2)
    print("counted:", json.dumps(total))
    check(total["accepted"], "nothing was accepted")
    check(slowest < START_SECS, "a start took", slowest, "s")
    if ROUNDS >= 20:
        check(total["unanswered"], "no kill met a message")
        if locked or recipients is REMOTE:
            check(total["waited"], "no kill met a message in the queue")


def several(dice):
    return dice.sample(sorted(USERS), dice.choice((2, 3)))


def REMOTE(dice):
    far = [f"x{number}@far.test" for number in range(dice.choice((1, 1, 2, 3)))]
    return far + dice.sample(sorted(USERS), dice.choice((0, 0, 1, 2)))


@test("kill -9 while small mail arrives", 60 + 8 * ROUNDS)
def small(bench):
    rounds(bench)


@test("kill -9 while mail of all sizes arrives, is fetched and deleted", 60 + 10 * ROUNDS)
def mixed(bench):
    rounds(bench, sizes=(200, 2_000, 2_000, 60_000, 700_000), readers=USERS)


@test("kill -9 while mail for several recipients arrives: all have it, or none", 60 + 8 * ROUNDS)
def many(bench):
    rounds(bench, sizes=(200, 2_000, 2_000, 60_000), recipients=several)


@test("kill -9 while drops are locked by others, and mail goes by the queue", 60 + 12 * ROUNDS)
def behind_locks(bench):
    rounds(bench, locked=True, lives=(0.3, 3.6))


@test("kill -9 while mail for other servers waits: it stays in the queue, once", 60 + 8 * ROUNDS)
def far_away(bench):
    rounds(bench, sizes=(200, 2_000, 2_000, 60_000), recipients=REMOTE)


@test("kill -9 while programs are given mail: each message at least once", 60 + 10 * ROUNDS)
def to_programs(bench):
    rounds(bench, recipients=lambda dice: ["bot", *dice.sample(sorted(USERS), dice.choice((0, 1, 2)))], robots=True)


@test("kill -9 while sendmail is called, with a server and without one", 60 + 10 * ROUNDS)
def by_sendmail(bench):
    rounds(bench, programs=4)
