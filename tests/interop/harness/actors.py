"""Programs at work on the same drops at a time: deliverers, shell users, POP3 clients. Each actor is a process, for locks of
fcntl are a process's, and keeps a journal: what it did, from when to when, and what it was told.

An order is a pair, a function below and its words; the answer is the list of the journal's entries, dictionaries with `op`,
`drop` (the user), `began` and `ended` (of the clock all processes share)."""

import errno
import fcntl
import mailbox
import multiprocessing
import os
import pty
import random
import re
import select
import smtplib
import subprocess
import time
import traceback

from .suite import Failure, check, run
from .wire import Pop

#: F-10 of what must be survived: nobody waits longer for a lock.
LOCK_SECS = 30
#: A program that wants something draws nothing for so long.
IDLE_SECS = 2
SIZES = (0, 80, 600, 3_000, 20_000, 200_000)
OFTEN = (4, 20, 30, 20, 6, 1)
QUOTED = re.compile(rb"(?m)^>*From ")
IDENTITY = re.compile(rb"(?mi)^X-Soak: (\S+)\r?$")
#: What mutt and others write into messages that stay what they are.
MARKS = re.compile(rb"(?mi)^(?:Status|X-Status|Content-Length|Lines):[^\n]*\n")


# ---- messages -----------------------------------------------------------------------------------


def message(name, raw_from, crlf):
    """The message of that name, always the same. `raw_from`: its lines may begin a message, so its deliverer must quote."""
    dice = random.Random(name)
    size = dice.choices(SIZES, OFTEN)[0]
    lines = [b"From the middle of a paragraph", b">From x@y Mon Jan  5 10:00:00 2026", b".", b"..", b".dotted", b"", b"",
             b"x" * 990, b"\xe4\xf6\xfc 8 bit"] + [b"line %d of %s" % (n, name.encode()) for n in range(5)]
    if raw_from:
        lines += [b"", b"From sender@example.test Mon Jan  5 10:00:00 2026", b""]
    else:
        lines.remove(b"From the middle of a paragraph")
    body = bytearray()
    while len(body) < size:
        body += dice.choice(lines) + b"\n"
    text = (b"From: ann@example.test\nSubject: " + name.encode() + b"\nMessage-ID: <" + name.encode() +
            b"@example.test>\nX-Soak: " + name.encode() + b"\n\n" + bytes(body) + b"end of %s\n" % name.encode())
    return text.replace(b"\n", b"\r\n") if crlf else text


def identity(text):
    """Which message that is."""
    found = IDENTITY.search(text.replace(b"\r\n", b"\n").partition(b"\n\n")[0])
    check(found, "a message that nobody wrote:", text[:300])
    return found[1].decode()


def body(text):
    """What must arrive whoever delivers it: without header, quoting of From and blank lines at its end."""
    return QUOTED.sub(b"From ", text.replace(b"\r\n", b"\n").partition(b"\n\n")[2]).rstrip(b"\n")


def unmarked(text):
    """A stored text without what mutt writes into it."""
    head, blank, rest = text.replace(b"\r\n", b"\n").partition(b"\n\n")
    return MARKS.sub(b"", head + b"\n").rstrip(b"\n") + blank + rest.rstrip(b"\n")


def torn(name, text):
    """What is wrong with a text that was delivered as `name`, or nothing."""
    wanted = body(message(name, True, False))
    found = body(text)
    # Whether its lines could begin a message was the deliverer's choice: it is one of two.
    return found != wanted and found != body(message(name, False, False))


# ---- locks --------------------------------------------------------------------------------------


class Lock:
    """A drop, open and locked by `kinds` in that order; all are given up before another try."""

    def __init__(self, path, kinds):
        self.path, self.held = path, []
        end = time.monotonic() + LOCK_SECS
        while not self.attempt(kinds):
            self.free()
            if time.monotonic() > end:
                raise Failure(f"{path} stays locked for {LOCK_SECS} s against {' '.join(kinds)}")
            time.sleep(0.001 + random.random() * 0.02)

    def attempt(self, kinds):
        try:
            self.file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        self.held = [("file", self.file)]
        try:
            for kind in kinds:
                if kind == "dotlock":
                    made = os.open(self.path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
                    os.write(made, b"%d\n" % os.getpid())
                    os.close(made)
                elif kind == "fcntl":
                    fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                else:
                    fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.held.append((kind, None))
            return os.fstat(self.file).st_ino == os.stat(self.path).st_ino
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.EAGAIN, errno.EACCES, errno.ENOENT):
                return False
            raise

    def free(self):
        while self.held:
            kind, file = self.held.pop()
            if kind == "dotlock":
                os.unlink(self.path + ".lock")
            elif kind == "fcntl":
                fcntl.lockf(self.file, fcntl.LOCK_UN)
            elif kind == "flock":
                fcntl.flock(self.file, fcntl.LOCK_UN)
            else:
                os.close(file)


def locked_mailbox(path):
    """The drop as Python's mailbox, locked, and really the file of that name."""
    end = time.monotonic() + LOCK_SECS
    while True:
        box = mailbox.mbox(path, create=False)
        try:
            box.lock()
            if os.fstat(box._file.fileno()).st_ino == os.stat(path).st_ino:
                return box
            box.unlock()
        except (mailbox.ExternalClashError, FileNotFoundError):
            pass
        box.close()
        if time.monotonic() > end:
            raise Failure(f"{path} stays locked for {LOCK_SECS} s against Python's mailbox")
        time.sleep(0.001 + random.random() * 0.02)


# ---- deliverers ---------------------------------------------------------------------------------


def deliver(drop, path, name, way, crlf=False, as_user=None, folder=None, postfix=None, port=None):
    """One message, by procmail, Postfix, Python's mailbox, our own server, or appended under the locks that `way` lists."""
    began, good = time.monotonic(), True
    quotes = way in ("procmail", "postfix", "mailbox", "smtp")
    text = message(name, raw_from=quotes, crlf=crlf)
    if way == "procmail":
        rc = os.path.join(folder, f"procmailrc.{drop}")
        good = run(["procmail", "-f", "sender@example.test", f"DEFAULT={path}", rc], input=text, seconds=LOCK_SECS,
                   env={"PATH": os.environ["PATH"], "HOME": folder}, **(as_user or {})).returncode == 0
    elif way == "postfix":
        good = postfix.take(text, drop)
    elif way == "smtp":
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=60, local_hostname="soak.test") as client:
                wire = re.sub(rb"\r?\n", b"\r\n", text)
                client.sendmail("sender@example.test", [f"{drop}@example.test"], wire, ["BODY=8BITMIME"])
        except smtplib.SMTPRecipientsRefused as refused:
            good, (code, said) = False, *refused.recipients.values()
            check(400 <= code < 500, "RCPT was answered", code, said)
        except smtplib.SMTPResponseException as refused:
            good = False
            check(400 <= refused.smtp_code < 500, "answered", refused.smtp_code, refused.smtp_error)
    elif way == "mailbox":
        box = locked_mailbox(path)
        box.add(text)
        box.flush()
        box.unlock()
        box.close()
    else:
        lock = Lock(path, way.split())
        line = b"From sender@example.test %s\n" % time.asctime(time.gmtime()).encode()
        content, at = line + text + b"\n", os.lseek(lock.file, 0, os.SEEK_END)
        half = random.randrange(len(content))
        # In two writes, so that whoever does not respect the lock sees half a message.
        os.pwrite(lock.file, content[:half], at)
        os.pwrite(lock.file, content[half:], at + half)
        lock.free()
    return [dict(op="deliver", drop=drop, name=name, way=way, good=good, began=began, ended=time.monotonic())]


# ---- shell users --------------------------------------------------------------------------------


def edit(drop, path, part, owner=None):
    """Python's mailbox takes some messages out, marks another as read, and writes the file anew under the same name."""
    began = time.monotonic()
    box = locked_mailbox(path)
    names = {key: identity(box.get_bytes(key)) for key in box.iterkeys()}
    gone = [key for key in names if random.random() < part]
    for key in gone:
        box.remove(key)
    try:
        box.flush()
    except mailbox.ExternalClashError:
        # It gave the new file its name, and before it had locked that too, somebody who takes fcntl first was there: its job is
        # done. Anything else is somebody who wrote under its locks.
        if box._pending:
            raise
    if owner and gone:
        # Python's mailbox keeps the mode only.
        os.chown(path, *owner)
    box.unlock()
    box.close()
    return [dict(op="edit", drop=drop, names=[names[key] for key in gone], began=began, ended=time.monotonic())]


def terminal(arguments, environment, answers, idle_keys):
    """Runs a program on a terminal of its own; what it drew in all. It is given `answers` (what it drew: keys), each once, and
    `idle_keys` when it has drawn nothing for a while: then it wants something of whoever sits there."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True,
                             start_new_session=True)
    os.close(follower)
    drawn, end, idle = b"", time.monotonic() + LOCK_SECS, time.monotonic() + IDLE_SECS
    try:
        while time.monotonic() < end:
            if time.monotonic() > idle:
                os.write(leader, idle_keys)
                idle = time.monotonic() + IDLE_SECS
            if select.select([leader], [], [], 0.05)[0]:
                try:
                    drawn += os.read(leader, 65536)
                    idle = time.monotonic() + IDLE_SECS
                except OSError:
                    break
            elif child.poll() is not None:
                break
            for question in [question for question in answers if question in drawn]:
                os.write(leader, answers.pop(question))
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise Failure(f"{arguments[0]} still runs after {LOCK_SECS} s: {drawn[-800:]!r}") from None
    finally:
        os.close(leader)
    return drawn


def mutt(drop, path, part, folder):
    """mutt deletes some messages and flags one, by keys on a terminal. What it took out is what is not there any more."""
    began = time.monotonic()
    before = stored_names(path)
    gone = [name for name in before if random.random() < part]
    keys = "".join(f"<delete-pattern>~s {name}$<enter>" for name in gone)
    if before:
        keys += "<last-entry><flag-message>"
    # When somebody else has the drop for over five seconds it asks whether to take his lock away: no, and exit. When the drop was
    # changed while it had it open, it stays for us to look, and forgets the keys: exit too, nothing is written.
    drawn = terminal(["mutt", "-n", "-F", os.path.join(folder, "muttrc"), "-f", path, "-e", f"push '{keys}<quit>'"],
                     {"PATH": os.environ["PATH"], "HOME": folder, "TERM": "vt100", "LC_ALL": "C.UTF-8"},
                     {b"remove lock for": b"nx"}, b"x")
    after = set(stored_names(path))
    taken = [name for name in gone if name not in after]
    return [dict(op="mutt", drop=drop, names=taken, refused=len(gone) - len(taken), began=began, ended=time.monotonic(),
                 drawn=drawn[-300:] if len(taken) < len(gone) else b"")]


def stored_names(path):
    lock = Lock(path, ("dotlock", "fcntl"))
    try:
        with open(path, "rb") as file:
            return [found[1].decode() for found in IDENTITY.finditer(file.read())]
    finally:
        lock.free()


# ---- POP3 clients -------------------------------------------------------------------------------


class Ended(Exception):
    """The server ended the session with [SYS/TEMP], or without a word."""


class Client(Pop):
    """Tells what the peer must expect from what it must not."""

    #: How long it thinks at most before a command: some are slow, so that others change the drop in the middle of a session.
    thinks = 0

    def say(self, command):
        time.sleep(random.random() * self.thinks)
        try:
            reply = self.cmd(command)
        except (EOFError, ConnectionError) as error:
            raise Ended(f"{command.split()[0]}: closed") from error
        if reply.startswith(b"-ERR [SYS/TEMP]"):
            raise Ended(f"{command.split()[0]}: {reply[6:].decode()}")
        check(reply.startswith(b"+OK"), command, "was answered", reply)
        return reply

    def rows(self, command):
        self.say(command)
        return self.whole(command).split(b"\r\n")[:-1]

    def whole(self, command):
        try:
            return self.body()
        except (EOFError, ConnectionError) as error:
            raise Ended(f"{command.split()[0]}: closed in the body") from error


def session(drop, port, password, most, known):
    """A session of a random client. `known` tells the message of a UID; what is new is asked for by TOP."""
    entry = dict(op="session", drop=drop, began=time.monotonic(), names=[], uids={}, marked=[], end="refused", why="",
                 opening=None, opened=None, quitting=None)
    pop = None
    try:
        pop = Client(port, timeout=90)
        pop.thinks = random.choice((0, 0, 0.05))
        pop.say(f"USER {drop}")
        entry["opening"] = time.monotonic()
        reply = pop.cmd(f"PASS {password}")
        entry["opened"] = time.monotonic()
        if not reply.startswith(b"+OK"):
            entry["why"] = "PASS: " + reply[5:].decode()
            check(reply.startswith((b"-ERR [IN-USE]", b"-ERR [SYS/TEMP]")), "PASS was answered", reply)
        else:
            converse(pop, entry, most, known)
    except Ended as ended:
        # Not in QUIT: then it is not known what became of the marks.
        entry.update(end="doubt" if entry["quitting"] else "ended", why=str(ended))
    except (EOFError, ConnectionError, TimeoutError) as error:
        entry.update(end="lost", why=f"{type(error).__name__}")
    finally:
        if pop:
            pop.close()
    entry["ended"] = time.monotonic()
    return [entry]


def converse(pop, entry, most, known):
    entry["end"] = "dropped"
    count, octets = (int(word) for word in pop.say("STAT").split()[1:3])
    sizes = {int(number): int(size) for number, size in (row.split() for row in pop.rows("LIST"))}
    uids = {int(number): uid.decode() for number, uid in (row.split() for row in pop.rows("UIDL"))}
    check(len(sizes) == len(uids) == count and sum(sizes.values()) == octets, "STAT, LIST and UIDL do not agree:", count, octets,
          sizes, uids)
    check(len(set(uids.values())) == count, "a UID stands for two messages:", uids)
    names = {}
    for number, uid in uids.items():
        if uid not in known:
            pop.say(f"TOP {number} 0")
            known[uid] = identity(pop.whole("TOP"))
            entry["uids"][uid] = known[uid]
        names[number] = known[uid]
    check(len(set(names.values())) == count, "a message is there twice:", sorted(names.values()))
    entry["names"] = list(names.values())
    for number in random.sample(sorted(uids), min(count, random.choice((0, 1, 2, 5)))):
        pop.say(f"RETR {number}")
        text = pop.whole("RETR")
        check(len(text) == sizes[number], "RETR", number, "has", len(text), "octets, LIST said", sizes[number])
        check(identity(text) == names[number], "RETR", number, "gives", identity(text), "but its UID is of", names[number])
        check(not torn(names[number], text), "a torn message:", names[number], text)
    marked = random.sample(sorted(uids), random.randint(0, count if count > most else max(1, count // 4)) if count else 0)
    for number in marked:
        pop.say(f"DELE {number}")
    # The snapshot still stands.
    left = {number: size for number, size in sizes.items() if number not in marked}
    again = {int(number): int(size) for number, size in (row.split() for row in pop.rows("LIST"))}
    check(again == left, "LIST in the same session:", again, "should be", left)
    entry["marked"] = [names[number] for number in marked]
    way = random.choices(("quit", "reset", "close", "flee"), (75, 8, 12, 5))[0]
    if way == "close":
        return
    if way == "reset":
        pop.say("RSET")
        entry["marked"] = []
    entry["quitting"] = time.monotonic()
    if way == "flee":
        pop.send("QUIT\r\n")
        entry["end"] = "doubt"
        return
    pop.say("QUIT")
    entry["end"] = "quit"


# ---- actors -------------------------------------------------------------------------------------


class Actor:
    """A process that follows orders, one list of them at a time."""

    def __init__(self, seed, uid=None, gid=None):
        self.pipe, its = multiprocessing.Pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                self.pipe.close()
                if uid is not None:
                    os.setgroups([])
                    os.setgid(gid)
                    os.setuid(uid)
                random.seed(seed)
                self.live(its)
                code = 0
            except (EOFError, KeyboardInterrupt):
                pass
            finally:
                os._exit(code)
        its.close()

    @staticmethod
    def live(pipe):
        while True:
            orders, journal, trouble = pipe.recv(), [], None
            for function, words in orders:
                try:
                    journal += function(**words)
                except Failure as failure:
                    trouble = f"{function.__name__} {words.get('drop')}: {failure}"
                except (Exception, subprocess.SubprocessError):  # whatever it is, the test must hear of it
                    trouble = traceback.format_exc()
            pipe.send((journal, trouble))

    def order(self, orders):
        self.pipe.send(orders)

    def answer(self, seconds):
        check(self.pipe.poll(seconds), "an actor is not done after", seconds, "s")
        return self.pipe.recv()
