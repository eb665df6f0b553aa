"""The manual, followed line by line by a machine.

In docs/*.md a fenced block whose info string has the word `try` is run, in the order of the page:

```sh try              a transcript: what follows `$ ` is run, the lines below it are what it must print
```sh try wait         the same, but a command is given again until it prints that, for 20 seconds at most
```conf try=FILE       is written to FILE; `try+=FILE` is appended to it

In what must be printed `...` stands for any text, and on a line of its own for any lines. `first` behind `try` makes a block
part of the first server, with which the other pages go on. Nothing is changed but the places (PLACES, below the test's folder),
the ports, and the user `dmail`: root stands in for root, and for dmail a user that nobody is; who is not root is both.
"""

import os
import re
import shutil
import subprocess
import time

from harness.site import OWNER, free_ports
from harness.suite import DMAIL, ROOT, Failure, check, need, run, test, wait_for
from harness.wire import Pop

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
#: Where the manual puts things.
PLACES = ("/usr/local", "/etc/dmail", "/var/lib/dmail", "/srv/mail", "/var/backups")
#: The ports of the manual's first server.
PORTS = ("1110", "1995", "1025", "1587", "1465")
#: How the page gives things and work to dmail, and how it is done here: by root, and by anybody else.
RIGHTS = {
    " -o dmail -g dmail": (f" -o {OWNER} -g {OWNER}", ""),
    " -o root -g dmail": (f" -o root -g {OWNER}", ""),
    "chown dmail:dmail ": (f"chown {OWNER}:{OWNER} ", "true "),
    "runuser -u dmail -- ": (f"setpriv --reuid={OWNER} --regid={OWNER} --clear-groups ", ""),
}

FENCE = re.compile(r"^```(\w+) try(\+?=\S+)?((?: \w+)*)\n(.*?)^```$", re.S | re.M)


def blocks(page):
    """(language, file or None, words, text) of each block that is to be tried."""
    with open(os.path.join(REPOSITORY, "docs", page), encoding="utf-8") as file:
        found = [(kind, name, words.split(), text) for kind, name, words, text in FENCE.findall(file.read())]
    check(found, "nothing to try in", page)
    return found


def steps(text):
    """(command, lines that it must print) of a transcript."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            check(found, "a transcript begins with a command:", text)
            if found[-1][1] == [] and found[-1][0].endswith("\\"):
                found[-1] = (found[-1][0] + "\n" + line, [])
            else:
                found[-1][1].append(line)
    return found


def pattern(lines):
    """What the output must be, as a regular expression."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r"[^\n]*".join(re.escape(part) for part in re.split(r"\.\.\.", line)) + r"\n")
    return re.compile("".join(parts))


class Follower:
    """Somebody who has a machine of his own and does what the page says."""

    def __init__(self, bench):
        self.bench = bench
        self.ports = [str(port) for port in free_ports(len(PORTS))]
        self.home = bench.path("source")
        self.count = 0
        # What `make install` copies: this executable, as if it had just been built.
        built = os.path.join(self.home, "built", "release")
        os.makedirs(built)
        shutil.copy(DMAIL, os.path.join(built, "dmail"))
        shutil.copy(os.path.join(REPOSITORY, "Makefile"), self.home)
        shutil.copytree(os.path.join(REPOSITORY, "conf"), os.path.join(self.home, "conf"))
        for place in PLACES:
            os.makedirs(os.path.dirname(bench.path(place.lstrip("/"))), exist_ok=True)
        os.makedirs(bench.path("var/backups"))
        self.environment = dict(
            os.environ, HOME=self.home, LC_ALL="C.UTF-8", TZ="UTC", CARGO="true", CARGO_TARGET_DIR="built",
            PREFIX=bench.path("usr/local"), PATH=f"{bench.path('usr/local/bin')}:{os.environ['PATH']}",
        )

    def here(self, text):
        """The manual's places, ports and users, as they are on this machine."""
        for right, (as_root, alone) in RIGHTS.items():
            text = text.replace(right, as_root if ROOT else alone)
        for place in PLACES:
            text = re.sub(rf"(?<![\w/.]){place}(?![\w-])", lambda _, place=place: self.bench.path(place[1:]), text)
        for port, mine in zip(PORTS, self.ports):
            text = re.sub(rf"(?<!\d){port}(?!\d)", mine, text)
        return text

    def run(self, command):
        """Its output, with what it says of what went wrong. What it leaves in the background goes on."""
        self.count += 1
        path = self.bench.path(f"output.{self.count}")
        with open(path, "wb") as out:
            try:
                done = subprocess.run(["sh", "-c", command], cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL,
                                      stdout=out, stderr=subprocess.STDOUT, timeout=60, check=False)
            except subprocess.TimeoutExpired as late:
                raise Failure(f"{command} still runs after 60 s") from late
        if command.endswith("&"):
            wait_for("the server of " + command, self.answers)
        with open(path, encoding="utf-8", errors="replace") as file:
            return done.returncode, file.read()

    def answers(self):
        try:
            with Pop(int(self.ports[0])) as pop:
                pop.ok("QUIT")
            return True
        except OSError:
            return False

    def follow(self, page, only=None):
        for kind, name, words, text in blocks(page):
            if only and only not in words:
                continue
            if name:
                check(kind == "conf", "a file is a block of conf:", text)
                with open(self.here(name.lstrip("+=")), "a" if name.startswith("+") else "w", encoding="utf-8") as file:
                    file.write(self.here(text))
                continue
            for command, lines in steps(text):
                self.step(page, self.here(command), pattern([self.here(line) for line in lines]), lines, "wait" in words)

    def step(self, page, command, wanted, lines, patient):
        end = time.monotonic() + 20
        while True:
            code, said = self.run(command)
            if wanted.fullmatch(said):
                return
            if not patient or time.monotonic() > end:
                raise Failure(f"{page}: {command}\nended with {code} and printed:\n{said}\nThe page says:\n" + "\n".join(lines))
            time.sleep(0.2)


def followed(bench, page):
    for program in ("make", "openssl", "curl"):
        need(program)
    if ROOT:
        need("setpriv")
    someone = Follower(bench)
    if page != "dpop-installation.md":
        someone.follow("dpop-installation.md", only="first")
    if page == "dsmtp-delivery.md":
        someone.follow("dsmtp-installation.md", only="first")
    someone.follow(page)


@test("manual: docs/dpop-installation.md, line by line")
def installation(bench):
    followed(bench, "dpop-installation.md")


@test("manual: docs/dpop-spool.md, line by line")
def the_spool(bench):
    followed(bench, "dpop-spool.md")


@test("manual: docs/dpop-bulletins.md, line by line")
def the_bulletins(bench):
    followed(bench, "dpop-bulletins.md")


@test("manual: docs/dsmtp-installation.md, line by line")
def installation_of_dsmtp(bench):
    followed(bench, "dsmtp-installation.md")


@test("manual: docs/dsmtp-delivery.md, line by line")
def delivery(bench):
    followed(bench, "dsmtp-delivery.md")


@test("manual: the unit for systemd is one that systemd takes")
def unit(bench):
    need("systemd-analyze")
    # The program that it names must be there; nothing else of it is of this machine.
    with open(os.path.join(REPOSITORY, "conf", "dmail.service"), encoding="utf-8") as file:
        text = file.read()
    check("/usr/local/bin/dmail" in text, "the unit starts what make install installs")
    path = bench.write("dmail.service", text.replace("/usr/local/bin/dmail", DMAIL), 0o644)
    done = run(["systemd-analyze", "verify", "--man=no", path])
    ours = [line for line in done.stderr.decode().splitlines() if "dmail" in line]
    check(done.returncode == 0 and not ours, "systemd-analyze verify:", done.stderr)
