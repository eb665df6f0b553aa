"""An ISP's spool at work: our own SMTP, procmail, Postfix, mutt, Python's mailbox and plain appenders at the same drops as POP3
clients, authenticators killed, settings reloaded, the server started anew. After each round all is quiet, and every promise is looked at:
what was delivered and not deleted is there once and whole, what was deleted is not, UIDs are what they were, so are owner and
mode, no lock and no copy is left.

SOAK_ROUNDS is how many rounds (3 unless set), SOAK_SECS a bound on their time, SEED repeats the orders (not who is quicker)."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter

from harness import actors, spool
from harness.postfix import Postfix
from harness.site import free_ports
from harness.suite import ROOT, Failure, Skip, check, descendants, same, test, wait_for

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "3"))
SECS = int(os.environ.get("SOAK_SECS", "0")) or 90 + 20 * ROUNDS
#: Users that every Debian has, for local(8) delivers to nobody else; by what happens to their drops. Each kind of drop has
#: those programs that do not harm each other: mutt locks with fcntl and then waits for the dotlock, procmail and Postfix the
#: other way round (they meet for 5 to 20 seconds, until mutt asks whether to take the lock away), and who makes dotlocks only is
#: kept out by no fcntl. Our own SMTP delivers everywhere.
#:
#: | kind      | deliver                                                       | rewrite                |
#: |-----------|---------------------------------------------------------------|------------------------|
#: | delivered | procmail, Postfix, Python, appenders with both locks          | nobody                 |
#: | dotlock   | Python, appenders with both locks or a dotlock                | mutt, Python's mailbox |
#: | fcntl     | procmail, Postfix, Python, appenders with both locks or fcntl | Python's mailbox       |
USERS = {"games": "delivered", "news": "delivered", "proxy": "dotlock", "irc": "fcntl"}
BOTH = ("dotlock fcntl", "fcntl dotlock", "dotlock flock fcntl")
LOCKS = ("dotlock,fcntl", "fcntl,dotlock", "flock,dotlock,fcntl", "dotlock,fcntl,flock")
#: More than these in a drop, and its clients delete more of them.
MOST = 20
MUTTRC = """set folder={folder}
set tmpdir={folder}/tmp
set delete=yes
set quit=yes
set move=no
set confirmappend=no
set wait_key=no
unset mark_old
unset mail_check_stats
"""


class Drop:
    """One user's mail, as the journals say it must be."""

    def __init__(self, soak, user, kind):
        self.user, self.kind = user, kind
        self.path = soak.site.fill(b"", user, 0o660)
        if ROOT:
            person = Postfix.knows(user)
            self.ids = (person.pw_uid, person.pw_gid) if person else (12345, 12345)
            os.chown(self.path, *self.ids)
        self.status = self.looks()
        self.live = {}  # what must be there: name -> its text, once it was seen
        self.dead = set()
        self.uids = {}  # uid -> name

    def looks(self):
        status = os.stat(self.path)
        return status.st_uid, status.st_gid, status.st_mode

    @property
    def rewritten(self):
        """By shell users: then it is compacted at every QUIT, and texts may get other Status lines."""
        return self.kind != "delivered"


class Soak:
    def __init__(self, bench, name, is_open, full):
        print("SEED", os.environ.get("SEED", "(none)"))
        self.bench, self.full, self.is_open = bench, full, is_open and ROOT
        self.counts = Counter()
        self.serial = 0
        settings = {"bin_pfull": full, "authent_cache": 0, "authent_number": 3, "authent_timeout": 5,
                    "smtp_port": free_ports(1)[0], "retry_schedule": 1, "sends_per_hour": 0, "sends_per_day": 0}
        if self.is_open:
            settings["bin_path"] = bench.path("bins")
            os.makedirs(settings["bin_path"])
        self.site = bench.site(tls=False, users={user: "secret" for user in USERS}, settings=settings, name=name)
        if self.is_open:
            os.chmod(self.site.spool, 0o1777)
        self.folder = self.site.folder
        os.makedirs(os.path.join(self.folder, "tmp"))
        os.chmod(os.path.join(self.folder, "tmp"), 0o1777)
        bench.write(os.path.join(name, "muttrc"), MUTTRC.format(folder=self.folder), 0o644)
        self.drops = {user: Drop(self, user, kind) for user, kind in USERS.items()}
        for drop in self.drops.values():
            bench.write(os.path.join(name, f"procmailrc.{drop.user}"), f"DEFAULT={drop.path}\nLOCKSLEEP=1\n", 0o644)
            if ROOT:
                shutil.chown(os.path.join(self.folder, f"procmailrc.{drop.user}"), *drop.ids)
        try:
            self.postfix = Postfix(bench, self.site.spool)
        except Skip as skip:
            print(skip)
            self.postfix = None
        dice = bench.random
        self.posts = {user: actors.Actor(dice.random()) for user in USERS}
        self.shells = {user: actors.Actor(dice.random(), *(drop.ids if self.is_open else ()))
                       for user, drop in self.drops.items() if drop.rewritten}
        self.clients = {user: actors.Actor(dice.random()) for user in USERS}
        self.rival = actors.Actor(dice.random())

    # ---- orders ---------------------------------------------------------------------------------

    def ways(self, drop):
        """How mail comes."""
        ways = [*BOTH, "mailbox", "smtp", "smtp", "smtp"]
        if drop.kind != "delivered":
            ways.append(drop.kind)
        if drop.kind != "dotlock" and shutil.which("procmail"):
            ways += ["procmail"] * 2
        if drop.kind != "dotlock" and self.postfix and self.postfix.knows(drop.user):
            ways += ["postfix"] * 2
        return ways

    def deliveries(self, drop):
        dice = self.bench.random
        for _ in range(dice.randint(1, 4)):
            self.serial += 1
            way = dice.choice(self.ways(drop))
            words = dict(drop=drop.user, path=drop.path, name=f"{drop.user}.{self.serial}", way=way, crlf=dice.random() < 0.3)
            if way == "procmail":
                words["folder"] = self.folder
                if self.is_open:
                    words["as_user"] = dict(user=drop.ids[0], group=drop.ids[1], extra_groups=[])
            elif way == "postfix":
                words["postfix"] = self.postfix
                words["crlf"] = False
            elif way == "smtp":
                words["port"] = self.site.extra["smtp_port"]
            yield actors.deliver, words

    def edits(self, drop):
        dice = self.bench.random
        for _ in range(dice.randint(0, 2)):
            if drop.kind == "dotlock" and dice.random() < 0.7 and shutil.which("mutt"):
                yield actors.mutt, dict(drop=drop.user, path=drop.path, part=0.1, folder=self.folder)
            else:
                owner = drop.ids if ROOT and not self.is_open else None
                yield actors.edit, dict(drop=drop.user, path=drop.path, part=0.15, owner=owner)

    def session(self, drop):
        return actors.session, dict(drop=drop.user, port=self.site.port, password="secret", most=MOST, known=drop.uids)

    # ---- a round --------------------------------------------------------------------------------

    def round(self, number):
        dice = self.bench.random
        busy = []
        for user, drop in self.drops.items():
            for actor, orders in ((self.posts[user], self.deliveries(drop)),
                                  (self.clients[user], (self.session(drop) for _ in range(dice.randint(1, 3))))):
                busy.append(actor)
                actor.order(list(orders))
            if drop.rewritten:
                busy.append(self.shells[user])
                self.shells[user].order(list(self.edits(drop)))
        busy.append(self.rival)
        self.rival.order([self.session(self.drops[dice.choice(list(USERS))]) for _ in range(3)])
        self.killed = 0
        for _ in range(dice.choice((0, 0, 1, 2))):
            wait_for("some of it was done", lambda: any(actor.pipe.poll() for actor in busy), 60)
            self.kill_helper()
        if dice.random() < 0.1:
            self.reload()
        journal, troubles = [], []
        for actor in busy:
            entries, trouble = actor.answer(240)
            journal += entries
            troubles += [trouble] if trouble else []
        check(not troubles, f"round {number}:", *troubles)
        if self.postfix:
            self.postfix.drain()
        self.site.alive()
        wait_for("our own queue is empty", lambda: not self.site.queue_files(), 60)
        now = time.monotonic()
        for entry in journal:
            if entry.get("way") in ("postfix", "smtp"):
                # In the queue when it was handed in; now in the drop.
                entry["ended"] = now
        for user, drop in self.drops.items():
            try:
                self.judge(drop, [entry for entry in journal if entry["drop"] == user])
            except (Failure, EOFError, OSError) as trouble:
                told = "\n".join(str({**entry, "uids": "", "names": len(entry.get("names", ()))}) for entry in journal
                                 if entry["drop"] == user)
                raise Failure(f"round {number}, {user} ({drop.kind}): {type(trouble).__name__} {trouble}\n{told}") from trouble
        self.leftovers()
        self.counts["rounds"] += 1
        if dice.random() < 0.1:
            same(self.site.stop(), 0, "exit code")
            self.settings()
            self.site.start(patient=True)
            self.counts["starts"] += 1

    def kill_helper(self):
        """kill -9 of a copy of the authenticator."""
        copies = [row[0] for row in descendants(self.site.process.pid) if row[2] != "Z" and is_helper(row[0])]
        if copies:
            try:
                os.kill(self.bench.random.choice(copies), signal.SIGKILL)
                self.killed += 1
                self.counts["helpers killed"] += 1
            except ProcessLookupError:
                pass

    def kill_launcher(self):
        """kill -9 of the process that keeps root for the server, if there is one; says whether. Only a new start makes it anew."""
        pid = (json.loads(self.site.tell("status", "--json").stdout).get("launcher") or {}).get("pid")
        if not pid or pid not in [row[0] for row in descendants(self.site.process.pid)]:
            return False
        os.kill(pid, signal.SIGKILL)
        self.counts["launchers killed"] += 1
        return True

    def settings(self):
        self.site.extra["lock_method"] = self.bench.random.choice(LOCKS)

    def reload(self):
        self.settings()
        self.site.write_conf()
        done = self.site.tell("reload")
        check(done.returncode == 0, "reload:", done.stdout, done.stderr)
        self.counts["reloads"] += 1

    # ---- what must hold -------------------------------------------------------------------------

    def judge(self, drop, journal):
        delivered = {entry["name"]: entry for entry in journal if entry["op"] == "deliver"}
        rewrites = [entry for entry in journal if entry["op"] in ("edit", "mutt")]
        sessions = sorted((entry for entry in journal if entry["op"] == "session"), key=lambda entry: entry["began"])
        # name -> (from then on it may be gone, from then on it is gone)
        gone = {}

        def goes(name, began, ended):
            old = gone.get(name, (began, ended))
            gone[name] = (min(old[0], began), min(old[1], ended))

        doubts = [set(entry["marked"]) for entry in sessions if entry["end"] == "doubt" and entry["marked"]]
        for entry in rewrites:
            for name in entry["names"]:
                goes(name, entry["began"], entry["ended"])
            self.counts[entry["op"]] += 1
            self.counts[f"deleted by {entry['op']}"] += len(entry["names"])
            self.counts["refused: mutt"] += bool(entry.get("refused"))
        for entry in sessions:
            for uid, name in entry["uids"].items():
                self.uid(drop, uid, name)
            self.counts[f"session: {entry['end']}"] += 1
            if entry["why"]:
                self.counts[f"refused: {entry['why']}"] += 1
            if entry["end"] == "quit":
                for name in entry["marked"]:
                    goes(name, entry["quitting"], entry["ended"])
                self.counts["deleted by QUIT"] += len(entry["marked"])
            self.allowed(entry, rewrites)
        for name, entry in delivered.items():
            self.counts[f"by {entry['way']}" if entry["good"] else f"refused: {entry['way']}"] += 1
        unsure = set().union(*doubts)
        for entry in sessions:
            if entry["end"] not in ("refused", "lost") and entry["uids"] is not None and entry["names"]:
                self.snapshot(drop, entry, delivered, gone, unsure)
        self.settle(drop, delivered, gone, doubts)

    def uid(self, drop, uid, name):
        same(drop.uids.setdefault(uid, name), name, f"the message of the UID {uid}")
        others = [other for other, its in drop.uids.items() if its == name and other != uid]
        check(not others, name, "has another UID now:", uid, "instead of", others)

    def allowed(self, entry, rewrites):
        """[SYS/TEMP] in a session is right only when the drop was rewritten meanwhile, at the login only when a helper died."""
        if entry["end"] == "refused":
            check("IN-USE" in entry["why"] or self.killed, "refused although nothing was killed:", entry["why"])
        elif entry["end"] in ("ended", "doubt") and entry["why"]:
            met = [other for other in rewrites if other["began"] < entry["ended"] and other["ended"] > entry["opening"]]
            check(met, "ended although nobody rewrote the drop:", entry["why"])
        else:
            check(entry["end"] != "lost", "the connection was lost:", entry["why"])

    def snapshot(self, drop, entry, delivered, gone, unsure):
        """What a session showed is what was there when it was opened."""
        shown = set(entry["names"])
        for name in {*drop.live, *delivered, *drop.dead}:
            came = delivered.get(name)
            may, must = gone.get(name, (float("inf"), float("inf")))
            if name in drop.dead or must < entry["opening"]:
                check(name not in shown, name, "was deleted, and a session shows it")
            elif (not came or came["good"] and came["ended"] < entry["opening"]) and may > entry["opened"] and name not in unsure:
                check(name in shown, name, "was there, and a session does not show it")
        check(shown <= {*drop.live, *delivered}, "a session shows what nobody delivered:", shown - {*drop.live, *delivered})

    def settle(self, drop, delivered, gone, doubts):
        """All is quiet: what POP3 and an independent reader find is exactly what must be there."""
        pop = self.site.retry_login(drop.user, 40, timeout=60)
        sizes, uids, texts = pop.list(), pop.uidl(), {}
        order = []
        for number, size in sizes.items():
            text = pop.retr(number)
            same(len(text), size, f"octets of message {number}")
            name = actors.identity(text)
            check(name not in texts, name, "is there twice")
            texts[name] = text
            order.append(name)
            self.uid(drop, uids[number].decode(), name)
            check(not actors.torn(name, text), "a torn message:", name, text)
        pop.quit()
        wait_for("the session is over", self.site.is_quiet)
        found = set(texts)
        sure = {name for name, entry in delivered.items() if entry["good"]}
        unsure = set().union(*doubts)
        missing = {*drop.live, *sure} - set(gone) - unsure - found
        check(not missing, "lost:", {name: delivered.get(name, "an old one") for name in missing})
        back = found & {*gone, *drop.dead}
        check(not back, "came back:", {name: gone.get(name, "dead in an earlier round") for name in back})
        alien = found - {*drop.live, *delivered}
        check(not alien, "nobody delivered", alien)
        refused = {name for name, entry in delivered.items() if entry["way"] == "smtp" and not entry["good"]}
        check(not refused & found, "its sender was told to try again, and it is there:", refused & found)
        for doubt in doubts:
            rest = doubt - set(gone) - set().union(*(other for other in doubts if other is not doubt))
            check(rest <= found or not rest & found, "a QUIT without an answer deleted", rest - found, "and not", rest & found)
            self.counts["doubts: none gone" if rest & found else "doubts: all gone"] += 1
        for name, text in texts.items():
            old = drop.live.get(name)
            if old is not None and (actors.unmarked(old) != actors.unmarked(text) if drop.rewritten else old != text):
                same(text, old, f"the text of {name} since it was first seen")
        drop.dead |= ({*drop.live, *delivered, *gone}) - found
        drop.live = texts
        self.stored(drop, order)
        same(drop.looks(), drop.status, "owner and mode of the drop")

    def stored(self, drop, order):
        """The drop file itself."""
        with open(drop.path, "rb") as file:
            check(file.read(5) in (b"", b"From "), "the drop does not begin with From")
        stored = {}
        for text in spool.messages(drop.path):
            name = actors.identity(text)
            check(name not in stored, name, "stands in the drop twice")
            check(name in drop.live or name in drop.dead, "the drop holds what nobody delivered:", name)
            stored[name] = text
        same([name for name in stored if name in drop.live], order, "messages in the drop, against those clients see,")
        for name in order:
            same(drop.live[name], stored[name], f"RETR of {name}, against the drop,")
        dead = len(stored) - len(order)
        if self.full == 1 or not order:
            check(not dead, "compacted at every QUIT, the drop holds", dead, "dead messages")
        self.counts["dead kept in a drop"] += dead > 0

    def leftovers(self):
        places = [self.site.spool, *([self.site.extra["bin_path"]] if self.is_open else [])]
        for place in places:
            odd = [name for _, _, names in os.walk(place) for name in names
                   if name not in USERS and not re.fullmatch(r"\.(?:%s)\.(?:bin|idx)" % "|".join(USERS), name)]
            check(not odd, "left over in", place, odd)


def is_helper(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"nwauth" in file.read()
    except OSError:
        return False


def soak(bench, is_open, full):
    work = Soak(bench, "site", is_open, full)
    work.site.start()
    end = time.monotonic() + SECS - 60
    for number in range(ROUNDS):
        if time.monotonic() > end:
            break
        work.round(number)
    if work.kill_launcher():
        work.site.stop()
        work.site.start(patient=True)
        work.round(ROUNDS)
    same(work.site.stop(), 0, "exit code")
    if work.postfix:
        work.counts["Postfix tried again"] = work.postfix.deferrals()
    print("counted:", json.dumps(dict(sorted(work.counts.items()))))


@test("soak: bins beside the drops, compacted when half is dead", SECS + 120)
def beside(bench):
    soak(bench, is_open=False, full=0.5)


@test("soak: a spool where everybody may write, bins elsewhere, compacted at every QUIT", SECS + 120)
def elsewhere(bench):
    soak(bench, is_open=True, full=1)
