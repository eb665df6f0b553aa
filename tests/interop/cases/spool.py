"""loadtest spool: what it makes is read by Python's mailbox, and served by dmail as it stands."""

import json
import mailbox
import os
import poplib
import re
import signal
import subprocess

from harness.site import free_ports
from harness.suite import DMAIL, LOADTEST, ROOT, Failure, check, need, run, same, test, wait_for

#: Some large boxes, none that takes long.
LAWS = ["--law", "large_most=120", "--law", "attachment_share=0.004", "--law", "message_most=300000"]


def make(folder, *words):
    need(LOADTEST)
    done = run([LOADTEST, "spool", folder, "--dmail", DMAIL, *words], seconds=120)
    check(done.returncode == 0, "loadtest spool:", done.stdout, done.stderr)
    with open(os.path.join(folder, "loadtest.json"), encoding="utf-8") as file:
        return json.load(file), done.stdout.decode()


def listed(folder):
    """login: (messages, bytes, octets), as the list has them."""
    with open(os.path.join(folder, "drops"), encoding="ascii") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    return {row[0]: tuple(int(number) for number in row[1:]) for row in rows}


def drop_of(folder, method, login):
    done = run([DMAIL, "nwauth", "drop_path", str(method), os.path.join(folder, "spool"), login])
    return done.stdout.decode().strip()


def drops(folder):
    """login: path of every file below the spool."""
    return {name: os.path.join(where, name) for where, _, names in os.walk(os.path.join(folder, "spool")) for name in names
            if not name.startswith(".")}


class Served:
    """dmail on a made folder, by the dmail.conf that was made. Where somebody has taken its ports meanwhile, on others."""

    def __init__(self, folder):
        self.conf = os.path.join(folder, "dmail.conf")
        for attempt in range(4):
            text = open(self.conf, encoding="utf-8").read()
            if attempt:
                ports = iter(free_ports(6))
                text = re.sub(r"(?m)^(\w+_port) \d+$", lambda found: f"{found[1]} {next(ports)}", text)
                with open(self.conf, "w", encoding="utf-8") as file:
                    file.write(text)
            self.port = int(re.search(r"(?m)^pop_port (\d+)", text)[1])
            self.said = os.path.join(folder, f"serve.{attempt}.out")
            with open(self.said, "wb") as out:
                self.process = subprocess.Popen([DMAIL, "serve", "-i", self.conf], stdin=subprocess.DEVNULL, stdout=out,
                                                stderr=subprocess.STDOUT, cwd="/")
            if wait_for("it serves or ends", self.is_decided) == "serves":
                return
        raise Failure(f"dmail serve: {open(self.said, encoding='utf-8').read()}")

    def is_decided(self):
        if self.process.poll() is not None:
            return "ended"
        return "serves" if "dmail: serving " in open(self.said, encoding="utf-8").read() else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        same(self.process.wait(20), 0, "exit code of the server")

    def login(self, user, password):
        pop = poplib.POP3("127.0.0.1", self.port, timeout=20)
        pop.user(user)
        pop.pass_(password)
        return pop


def stamp(text, account, number):
    """Fails unless `text` says which letter it is, and is as long as it says. The lines' ends are LF."""
    head, _, body = text.partition(b"\n\n")
    found = re.search(rb"(?m)^X-Loadtest: ([0-9a-f]{16}) (\d+) (\d{10}) [0-9a-f]{16}$", head)
    check(found, "a stamp in", head)
    same((int(found[1], 16), int(found[2])), (1 << 63 | account, number), "account and number of the letter")
    same(len(re.sub(rb"(?m)^>+(?=From )", b"", body)), int(found[3]), f"bytes of letter {number} of account {account}")


@test("spool: 2,000 accounts by each hash_spool, read by Python and fetched from dmail", 300)
def by_each_method(bench):
    for method in range(4):
        folder = bench.path(f"spool{method}")
        manifest, _ = make(folder, "--accounts", "2000", "--hash-spool", str(method), "--seed", str(method + 10), *LAWS)
        expected, found = listed(folder), drops(folder)
        same(len(expected), 2000, "accounts listed")
        same(sorted(found), sorted(expected), "drop files")
        totals = [sum(column) for column in zip(*expected.values())]
        same(totals, [manifest["totals"][name] for name in ("messages", "bytes", "octets")], "totals")
        for login in list(expected)[:20]:
            same(found[login], drop_of(folder, method, login), "where nwauth says that the drop lies")
        texts = {}
        for account, (login, (messages, size, _)) in enumerate(expected.items()):
            same(os.path.getsize(found[login]), size, f"bytes of {login}")
            same(os.stat(found[login]).st_mode & 0o777, 0o600, "mode")
            box = mailbox.mbox(found[login], create=False)
            texts[login] = [box.get_bytes(key) for key in box.keys()]
            box.close()
            same(len(texts[login]), messages, f"messages of {login}")
            for number, text in enumerate(texts[login], 1):
                stamp(text, account, number)
        with Served(folder) as served:
            for login, (messages, _, octets) in expected.items():
                pop = served.login(login, manifest["password"])
                same(pop.stat(), (messages, octets), f"STAT of {login}")
                for number in sorted({1, messages // 2, messages} - {0}) if messages else []:
                    lines = pop.retr(number)[1]
                    same(b"\n".join(lines) + b"\n", texts[login][number - 1], f"message {number} of {login}")
                pop.quit()


@test("spool: hashed passwords, another owner, and the shapes are served", 120)
def furnished(bench):
    folder = bench.path("shaped")
    os.chmod(bench.folder, 0o755)
    owner = ["--run-as", "nobody"] if ROOT else []
    manifest, _ = make(folder, "--shape", "drop3000", "--shape", "big:huge", "--hash", "sha512", "--password", "s3same", *owner)
    expected = listed(folder)
    same([row[0] for row in expected.values()], [3000, 1], "messages")
    if ROOT:
        uid = os.stat(os.path.join(folder, "spool")).st_uid
        for path in [*drops(folder).values(), os.path.join(folder, "users", "nwauth.txt"), os.path.join(folder, "work")]:
            same((os.stat(path).st_uid, uid != 0), (uid, True), f"owner of {path}")
    with Served(folder) as served:
        pop = served.login("drop3000", "s3same")
        same(pop.stat(), (3000, expected["drop3000"][2]), "STAT")
        for number in (1, 1500, 3000):
            stamp(b"\n".join(pop.retr(number)[1]) + b"\n", 0, number)
        pop.quit()
        pop = served.login("huge", "s3same")
        same(pop.stat(), (1, expected["huge"][2]), "STAT")
        pop.dele(1)
        pop.quit()
        try:
            served.login("huge", "secret")
            raise Failure("a wrong password was taken")
        except poplib.error_proto:
            pass
    same(manifest["shapes"], [{"shape": "drop3000", "login": "drop3000"}, {"shape": "big", "login": "huge"}], "shapes")


@test("spool: what was made is found as it was, and changed, and is never made over", 60)
def checked(bench):
    folder = bench.path("made")
    _, said = make(folder, "--accounts", "50")
    check(f"serve -i {folder}" in said, "how to serve it:", said)

    def check_it():
        return run([LOADTEST, "spool", folder, "--check"])

    done = check_it()
    same((done.returncode, b"50 drops are as they were made" in done.stdout), (0, True), "--check")
    path = next(path for path in drops(folder).values() if os.path.getsize(path))
    with open(path, "r+b") as file:
        file.seek(1)
        file.write(b"R")
    done = check_it()
    same((done.returncode, path.encode() in done.stderr), (1, True), "--check of a changed drop")
    done = run([LOADTEST, "spool", folder, "--accounts", "5"])
    same((done.returncode, b"has a made spool in it already" in done.stderr), (1, True), "a second spool")
    dry = bench.path("dry")
    done = run([LOADTEST, "spool", dry, "--accounts", "1000", "--dry-run"])
    check(done.returncode == 0 and b"1000 accounts" in done.stdout and b"inodes" in done.stdout, "--dry-run:", done.stdout, done.stderr)
    check(not os.path.exists(dry), "a dry run makes nothing")
    about = os.statvfs(bench.folder)
    if about.f_bavail * about.f_frsize < 100e9:
        # A hundred of them are more than there is.
        shapes = [word for number in range(100) for word in ("--shape", f"gigabyte:g{number}x")]
        done = run([LOADTEST, "spool", dry, "--dry-run", *shapes])
        same((done.returncode, b"free; make fewer accounts" in done.stderr), (1, True), "a disk that has less")
