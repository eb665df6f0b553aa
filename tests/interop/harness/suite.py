"""The list of tests, and one test's life: a folder, what it started, and nothing of either left afterwards."""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

TESTS = {}
ROOT = os.geteuid() == 0
DMAIL = os.path.abspath(os.environ.get("DMAIL", "target/debug/dmail"))
LOADTEST = os.path.abspath(os.environ.get("LOADTEST", os.path.join(os.path.dirname(DMAIL), "loadtest")))
#: The suite's own naive server stands in for dmail (see README.md): tests that ask for more are skipped.
TWIN = os.path.basename(DMAIL) == "twin"


class Failure(Exception):
    """The server did something else than it should."""


class Skip(Exception):
    """The test cannot run here; the text says why."""


def test(name, seconds=90, twin=False):
    """Marks a function `f(bench)` as the test `name`, which may take that long. `twin`: the naive server passes it too."""

    def mark(function):
        assert name not in TESTS, name
        TESTS[name] = (function, seconds, twin)
        return function

    return mark


def check(truth, *what):
    """Fails with `what` unless `truth`; long bytes are cut."""
    if not truth:
        raise Failure(" ".join(shown(part) for part in what))


def same(found, wanted, what):
    """Fails, naming the first difference, unless both are equal."""
    if found == wanted:
        return
    if isinstance(found, (bytes, bytearray)) and isinstance(wanted, (bytes, bytearray)):
        at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
        raise Failure(
            f"{what}: {len(found)} bytes, should be {len(wanted)}; first difference at {at}: "
            f"{bytes(found[max(0, at - 30):at + 30])!r}, should be {bytes(wanted[max(0, at - 30):at + 30])!r}"
        )
    raise Failure(f"{what}: {shown(found)}, should be {shown(wanted)}")


def shown(part):
    text = part if isinstance(part, str) else repr(part)
    return text if len(text) <= 600 else f"{text[:400]} ... {text[-150:]}"


def wait_for(what, probe, seconds=20):
    """What `probe` gives as soon as it is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    pause = 0.002
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Failure(f"after {seconds} s still not: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def run(arguments, seconds=60, **options):
    """Runs a program to its end; its output as bytes."""
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    try:
        return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds, **options)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{arguments} still runs after {seconds} s; {shown(late.stdout)} {shown(late.stderr)}") from late


def need(program):
    """Skips the test when a program, or a file by its whole path, is missing; gives its path."""
    path = shutil.which(program) or (program if os.path.exists(program) else None)
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def processes():
    """(pid, parent, state, command) of all processes, from /proc."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        head, _, rest = text.rpartition(")")
        fields = rest.split()
        yield int(name), int(fields[1]), fields[0], head.partition("(")[2]


def descendants(of):
    """The processes below `of`: pid, parent, state, command."""
    known, found, everything = {of}, [], list(processes())
    grown = True
    while grown:
        grown = False
        for row in everything:
            if row[1] in known and row[0] not in known:
                known.add(row[0])
                found.append(row)
                grown = True
    return found


def adopt():
    """Makes this process the parent of whatever its children leave behind, so that it can be ended by pid."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants():
    """Ends every process this one started, directly or not, by its pid."""
    for _ in range(50):
        left = [row for row in descendants(os.getpid()) if row[2] != "Z"]
        for pid, *_ in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        if not left:
            return
        time.sleep(0.02)


class Bench:
    """One test's folder and sites."""

    def __init__(self, name):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="dmail-interop-")
        # Mail programs that give up root still have to get to the spool below.
        os.chmod(self.folder, 0o755)
        self.random = random.Random(os.environ.get("SEED", name))
        self.sites = []

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text, mode=0o600):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(path, mode)
        return path

    def site(self, **options):
        from .site import Site

        site = Site(self, **options)
        self.sites.append(site)
        return site

    def close(self, keep=False):
        end_descendants()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
