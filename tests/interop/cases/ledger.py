"""`loadtest ledger`, the tool that proves of any mail server that it loses nothing: it finds dmail clean over kills and faults, and it
finds each server guilty that is (a naive one, in Python, with one sin at a time)."""

import json
import os
import re
import shlex
import signal
import socketserver
import threading

from harness import spool
from harness.site import free_ports
from harness.suite import DMAIL, LOADTEST, ROOT, check, descendants, need, run, same, test, wait_for

KILLS = int(os.environ.get("LEDGER_KILLS", "10"))


def ledger(bench, *words, seconds=120):
    """Runs it in a new folder; exit code, what it printed, its report, its folder."""
    need(LOADTEST)
    folder, report = bench.path(f"ledger.{bench.random.random()}"), bench.path(f"report.{bench.random.random()}")
    done = run([LOADTEST, "ledger", folder, "--seed", str(bench.random.randrange(1 << 40)), "--json", report, *words], seconds=seconds)
    found = {}
    if os.path.exists(report):
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"), found, folder


def again(folder):
    """The same folder judged once more."""
    done = run([LOADTEST, "ledger", "verify", folder])
    return done.returncode, done.stdout.decode("utf-8", "replace")


@test("ledger: dmail is clean over kills at random moments, and its folder can be judged again", 90 + 5 * KILLS)
def kills(bench):
    code, said, found, folder = ledger(bench, "--dmail", DMAIL, "--kills", str(KILLS), "--kill-every", "0.7", seconds=80 + 5 * KILLS)
    same(code, 0, f"exit code; {said}")
    same(int(found["run"]["kills"]), KILLS, "kills")
    counts = found["counts"]
    check(counts["copies acknowledged, of which"] > 100 and counts["fetched and deleted, QUIT answered"] > 50, "too little was done:", said)
    code, said = again(folder)
    same(code, 0, f"exit code of verify; {said}")
    # Another program finds in the drops what it counted there, and a message less is seen.
    drops = os.path.join(folder, "disk", "spool")
    drop = max((os.path.join(drops, name) for name in os.listdir(drops) if name.startswith("user")), key=os.path.getsize)
    stored = spool.messages(drop)
    check(stored, "no drop has a message")
    acked = open(os.path.join(folder, "journal"), encoding="utf-8", errors="replace").read()
    user = os.path.basename(drop)
    gone = {int(seq) for seq in re.findall(rf"marked \d+ {user} [0-9a-f]+ (\d+)", acked)}
    kept = {int(seq) for seq in re.findall(rf"acked (\d+) {user} ", acked)} - gone
    seqs = [int(re.search(rb"(?mi)^X-Loadtest: [0-9a-f]{16} (\d+) ", text)[1]) for text in stored]
    victim = next((at for at, seq in enumerate(seqs) if seq in kept), None)
    check(victim is not None, "no acknowledged message has stayed in", user)
    with open(drop, "rb") as file:
        raw = file.read()
    parts = re.split(rb"(?m)(?=^From \S+ \w{3} \w{3} [ \d]\d [\d:]{8} \d{4}$)", raw)[1:]
    same(len(parts), len(stored), "messages in the drop")
    with open(drop, "wb") as file:
        file.write(b"".join(part for at, part in enumerate(parts) if at != victim))
    code, said = again(folder)
    same(code, 1, "exit code with a message less")
    check(f"lost: message {seqs[victim]} for {user}" in said, "the message that was taken away is not named:", said)


@test("ledger: dmail is clean with every fault from outside at once", 240)
def faults(bench):
    code, said, found, _ = ledger(bench, "--dmail", DMAIL, "--kills", "4", "--kill-every", "2", "--all-faults", seconds=220)
    same(code, 0, f"exit code; {said}")
    check(found["counts"]["copies acknowledged, of which"] > 20, "too little was done:", said)
    if not ROOT:
        check("--full-disk needs root" in said, "what was left out is not told:", said)


class Naive:
    """A mail server in memory, with a sin."""

    def __init__(self, sin, spool_path):
        self.sin, self.spool, self.lock, self.count = sin, spool_path, threading.Lock(), 0
        self.box, self.serial = {}, 0
        self.ports = free_ports(2)
        outer = self

        class Smtp(socketserver.StreamRequestHandler):
            def handle(self):
                outer.smtp(self.rfile, self.wfile)

        class Pop(socketserver.StreamRequestHandler):
            def handle(self):
                outer.pop(self.rfile, self.wfile)

        for port, handler in zip(self.ports, (Pop, Smtp)):
            server = socketserver.ThreadingTCPServer(("127.0.0.1", port), handler, bind_and_activate=False)
            server.allow_reuse_address = server.daemon_threads = True
            server.request_queue_size = 100
            server.server_bind()
            server.server_activate()
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def smtp(self, lines, out):
        users = []
        out.write(b"220 naive ESMTP\r\n")
        for line in lines:
            verb = line[:4].upper()
            if verb == b"RCPT":
                users.append(re.search(rb"<([^@>]+)", line)[1].decode())
                out.write(b"250 Ok\r\n")
            elif verb == b"DATA":
                out.write(b"354 Go on\r\n")
                text = []
                for part in lines:
                    if part == b".\r\n":
                        break
                    text.append(part[1:] if part.startswith(b".") else part)
                else:
                    return
                out.write(self.take(users, b"".join(text)))
                users = []
            elif verb == b"QUIT":
                out.write(b"221 Bye\r\n")
                return
            else:
                if verb in (b"MAIL", b"RSET"):
                    users = []
                out.write(b"250-naive\r\n250 8BITMIME\r\n" if verb == b"EHLO" else b"250 Ok\r\n")

    def take(self, users, text):
        """Stores a message; each twentieth as the sin says."""
        with self.lock:
            self.count += 1
            now = self.count % 20 == 0
            answer = b"250 Ok\r\n"
            if now and self.sin == "forgets":
                return answer
            if now and self.sin == "refuses and keeps":
                answer = b"451 4.3.0 Not now\r\n"
            if now and self.sin == "tears":
                text = text[:-20] + b"\r\n"
            for user in users:
                for _ in range(2 if now and self.sin == "doubles" else 1):
                    self.serial += 1
                    self.box.setdefault(user, {})[self.serial] = text
            return answer

    def pop(self, lines, out):
        user, marked = None, set()
        out.write(b"+OK naive\r\n")
        for line in lines:
            words = line.split()
            verb, there = words[0].upper() if words else b"", []
            if user:
                there = mine
            if verb == b"USER":
                name = words[1].decode()
            elif verb == b"PASS":
                user = name
                with self.lock:
                    mine = sorted(self.box.get(user, {}).items())
            if verb == b"STAT":
                out.write(b"+OK %d %d\r\n" % (len(there), sum(len(text) for _, text in there)))
            elif verb == b"LIST":
                out.write(b"+OK\r\n" + b"".join(b"%d %d\r\n" % (n, len(text)) for n, (_, text) in enumerate(there, 1)) + b".\r\n")
            elif verb == b"UIDL":
                out.write(b"+OK\r\n" + b"".join(b"%d %d\r\n" % (n, uid) for n, (uid, _) in enumerate(there, 1)) + b".\r\n")
            elif verb == b"RETR":
                out.write(b"+OK\r\n" + re.sub(rb"(?m)^\.", b"..", there[int(words[1]) - 1][1]) + b".\r\n")
            elif verb == b"DELE":
                marked.add(there[int(words[1]) - 1][0])
                out.write(b"+OK\r\n")
            elif verb == b"QUIT":
                with self.lock:
                    for uid in marked:
                        # One in ten comes back, where that is the sin.
                        if self.sin != "undead" or uid % 10:
                            self.box[user].pop(uid, None)
                out.write(b"+OK\r\n")
                return
            else:
                out.write(b"+OK\r\n")


def judged(bench, sin):
    """What the ledger says of such a server."""
    naive = Naive(sin, bench.path("none"))
    users = bench.path(f"users.{sin}")
    with open(users, "w", encoding="ascii") as file:
        # A mailbox for one client: the naive server locks nothing, and is to have one sin.
        file.write("".join(f"u{number} secret\n" for number in range(3)))
    pop, smtp = (f"127.0.0.1:{port}" for port in naive.ports)
    return ledger(bench, "--pop", pop, "--smtp", smtp, "--accounts-file", users, "--domain", "example.test", "--duration", "4",
                  "--readers", "1", "--senders", "4")


@test("ledger: a naive server without a sin is clean", 60)
def innocent(bench):
    code, said, found, _ = judged(bench, "none")
    same(code, 0, f"exit code; {said}")
    check(found["counts"]["copies acknowledged, of which"] > 40, "too little was done:", said)


@test("ledger: a server that acknowledges and forgets is found guilty, and the message is named", 60)
def forgets(bench):
    code, said, found, folder = judged(bench, "forgets")
    same(code, 1, f"exit code; {said}")
    same({kind for kind, count in found["violations"].items() if count}, {"lost"}, f"kinds of violation; {said}")
    seq = re.search(r"lost: message (\d+) for (\w+): acknowledged, and it is nowhere", said)
    check(seq and f"acked {seq[1]} {seq[2]} Ok" in said.replace("250 Ok", "Ok"), "the journal's lines are not shown:", said)
    same(again(folder)[0], 1, "exit code of verify")


@test("ledger: a server that doubles, tears, keeps what it refused or brings back the dead is found guilty of that", 150)
def sins(bench):
    for sin, kind in (("doubles", "double"), ("tears", "torn"), ("refuses and keeps", "refused"), ("undead", "undead")):
        code, said, found, _ = judged(bench, sin)
        same(code, 1, f"exit code of one that {sin}; {said}")
        kinds = {kind for kind, count in found["violations"].items() if count}
        check(kind in kinds and "lost" not in kinds, f"kinds of violation of one that {sin}:", kinds, said)


@test("ledger: the harness itself killed leaves a journal that can be judged", 90)
def harness_killed(bench):
    need(LOADTEST)
    folder = bench.path("cut")
    script = f"{shlex.quote(LOADTEST)} ledger {shlex.quote(folder)} --dmail {shlex.quote(DMAIL)} --duration 60 & sleep 5; kill -9 $!; wait $!"
    run(["/bin/sh", "-c", script], seconds=60)
    # Its server lives on, and is ended as a supervisor would.
    servers = [row[0] for row in descendants(os.getpid()) if row[3] == "dmail" and row[2] != "Z"]
    check(servers, "the server of a killed harness was not found")
    for pid in servers:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # It was an authenticator of another one.
    wait_for("its server has ended", lambda: not [row for row in descendants(os.getpid()) if row[3] == "dmail" and row[2] != "Z"])
    code, said = again(folder)
    # It is no proof, for nobody waited for the queue and looked last; and what can be looked at is right.
    same(code, 1, f"exit code of verify; {said}")
    check("facts in the journal" in said and "no proof: it was cut short" in said, said)
    check("NOT PROVEN: nothing was found wrong" in said, said)


@test("ledger: what cannot be is refused with exit code 2 and one line", 30)
def usage(bench):
    for words in (["--pop", "127.0.0.1:1"], ["--dmail", DMAIL, "--serve", "x"], ["--dmail", DMAIL, "--kills", "many"],
                  ["--pop", "127.0.0.1:1", "--smtp", "127.0.0.1:1", "--domain", "x", "--accounts-file", "/dev/null"]):
        code, said, _, _ = ledger(bench, *words)
        same(code, 2, f"exit code of {words}; {said}")
    done = run([LOADTEST, "ledger", "verify", bench.path("nowhere")])
    same(done.returncode, 1, "exit code of verify without a run")
    check(b"name the folder of a run" in done.stderr, done.stderr)
