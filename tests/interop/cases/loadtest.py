"""loadtest pop, smtp and isp: nothing is wrong with a server that does right, and a server that does wrong is found out."""

import json
import os
import signal
import socket
import subprocess
import threading

from harness import spool
from harness.suite import DMAIL, LOADTEST, Failure, check, need, run, same, test, wait_for
from harness.wire import Pop


def load(bench, *words, code=0, seconds=60):
    """Runs it; what it measured."""
    out = bench.path("measured.json")
    done = run([LOADTEST, *words, "--quiet", "--json", out], seconds=seconds)
    check(done.returncode == code, f"loadtest {' '.join(words)} ended with {done.returncode}:", done.stdout[-2500:], done.stderr)
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def made(bench, accounts):
    """A made spool, and a server for it; its folder and its ports."""
    need(LOADTEST)
    folder = bench.path("made")
    done = run([LOADTEST, "spool", folder, "--accounts", str(accounts), "--hash-spool", "0", "--dmail", DMAIL])
    check(done.returncode == 0, "loadtest spool:", done.stdout, done.stderr)
    conf = os.path.join(folder, "dmail.conf")
    with open(conf, encoding="utf-8") as file:
        ports = {words[0]: int(words[1]) for words in map(str.split, file) if words and words[0].endswith("_port")}
    out = bench.path("serve.out")
    with open(out, "wb") as file:
        server = subprocess.Popen([DMAIL, "serve", "-i", conf], stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def answers():
        if server.poll() is not None:
            raise Failure(f"dmail ended with {server.returncode}: {open(out, encoding='utf-8').read()}")
        try:
            with Pop(ports["pop_port"]) as pop:
                return pop.ok("QUIT")
        except OSError:
            return None

    wait_for("the server of a made spool", answers)
    return folder, ports


@test("loadtest: pop and smtp, closed and open loops, plain and TLS, find nothing wrong", 150)
def sessions(bench):
    folder, _ = made(bench, 150)
    spooled = ["--spool", folder]
    with open(os.path.join(folder, "drops"), encoding="utf-8") as file:
        messages = sum(int(line.split()[1]) for line in file if not line.startswith("#"))
    found = load(bench, "pop", *spooled, "--act", "leave", "--clients", "20", "--duration", "2", "--tls", "start")
    kind = found["kinds"]["leave"]
    check(kind["count"] > 0 and not kind["errors"] and kind["steps"]["stls"]["count"] == kind["steps"]["login"]["count"], kind)
    found = load(bench, "pop", *spooled, "--rate", "50", "--duration", "2", "--ramp", "500ms", "--warm-up", "500ms")
    kind = found["kinds"]["poll"]
    check(kind["count"] > 20 and found["warm"] > 5 and kind["ms"]["p50"] <= kind["ms"]["p99"] <= kind["ms"]["max"], found)
    check(sum(row["done"] for row in found["series"]) == kind["count"], "the series and the sum differ:", found)
    # What was acknowledged is in the drop, and nothing else is: by the independent reader.
    login = "ann0"
    before = len(spool.raw_messages(os.path.join(folder, "spool", login))) if os.path.exists(os.path.join(folder, "spool", login)) else 0
    found = load(bench, "smtp", *spooled, "--to", f"{login}@example.test", "--clients", "5", "--messages", "3", "--duration", "2")
    sent = found["kinds"]["inbound"]["messages"]
    check(sent > 0 and sent % 3 == 0, found)

    def arrived():
        path = os.path.join(folder, "spool", login)
        return os.path.exists(path) and len(spool.raw_messages(path)) == before + sent

    wait_for(f"{sent} messages in the drop", arrived)
    found = load(bench, "smtp", *spooled, "--auth", "--tls", "yes", "--rcpts", "3", "--duration", "1")
    check(found["kinds"]["submit"]["steps"]["login"]["count"] > 0, found)
    sent += 3 * found["kinds"]["submit"]["messages"]
    # Everything that was made or sent is fetched: each account once, and each letter proves itself.
    found = load(bench, "pop", *spooled, "--act", "fetch", "--clients", "10", "--duration", "20s", "--only-ours")
    wanted = messages + sent
    same(found["kinds"]["fetch"]["messages"], wanted, "messages fetched")


@test("loadtest: isp, a mixed day with faults on purpose, finds nothing wrong", 120)
def mixed(bench):
    folder, _ = made(bench, 300)
    shares = ["--share", "dead=60", "--share", "dead-sender=60", "--share", "wrong=60", "--share", "modem=30"]
    found = load(bench, "isp", "--spool", folder, "--rate", "60", "--duration", "6", "--hold", "1", "--silence", "1", "--tls", "30",
                 "--patience", "20", *shares)
    kinds = found["kinds"]
    same(found["errors"], 0, "errors")
    for name in ("poll", "fetch", "leave", "wrong", "submit", "inbound"):
        check(kinds[name]["count"] > 0, name, "was not done:", kinds.keys())
    on_purpose = {fault for kind in kinds.values() for fault in kind["injected"]}
    check({"vanished", "half open", "reset"} <= on_purpose, "on purpose:", on_purpose)
    # The same order again, and it is stopped: what was measured so far is shown.
    out = bench.path("stopped.json")
    running = subprocess.Popen([LOADTEST, "isp", "--spool", folder, "--duration", "1h", "--clients", "5", "--quiet", "--json", out],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with open(f"/proc/{running.pid}/status", encoding="ascii") as file:
        check("Name:" in file.read(), "it does not run")
    wait_for("it to work", lambda: len(os.listdir(f"/proc/{running.pid}/fd")) > 8)
    running.send_signal(signal.SIGINT)
    text, _ = running.communicate(timeout=20)
    check(running.returncode in (0, 1) and b"Stopped" in text, running.returncode, text)
    check(os.path.exists(out), "no file was written:", text)


class Wrong:
    """A POP3 server with two letters in a drop, and a fault."""

    def __init__(self, letters, fault):
        self.letters, self.fault = letters, fault
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            threading.Thread(target=self.talk, args=(self.socket.accept()[0],), daemon=True).start()

    def talk(self, peer):
        letters = list(self.letters)
        if self.fault == "doubles":
            letters.append(letters[0])
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"+OK\r\n")
            for line in lines:
                words = line.decode().split()
                said = "+OK\r\n".encode()
                if words[0] == "STAT":
                    said = f"+OK {len(letters)} {sum(map(len, letters))}\r\n".encode()
                elif words[0] == "LIST":
                    said += b"".join(f"{at} {len(text)}\r\n".encode() for at, text in enumerate(letters, 1)) + b".\r\n"
                elif words[0] == "UIDL":
                    said += b"".join(f"{at} id{at}\r\n".encode() for at in range(1, len(letters) + 1)) + b".\r\n"
                elif words[0] == "RETR":
                    text = letters[int(words[1]) - 1]
                    if self.fault == "loses" and words[1] == "2":
                        text = text[:-20] + text[-19:]
                    if self.fault == "bends" and words[1] == "2":
                        text = text[:-20] + b"#" + text[-19:]
                    said += text.replace(b"\r\n.", b"\r\n..") + b".\r\n"
                peer.sendall(said)
                if words[0] == "QUIT":
                    return


@test("loadtest: a server that loses, bends or doubles is found out", 60)
def wrong(bench):
    folder, ports = made(bench, 30)
    load(bench, "smtp", "--spool", folder, "--to", "ann0@example.test", "--clients", "1", "--messages", "2", "--duration", "1")
    with Pop(ports["pop_port"]) as pop:
        pop.login("ann0", "secret")
        letters = [pop.retr(number) for number in (1, 2)]
    for fault, error in (("none", None), ("loses", "wrong size"), ("bends", "wrong bytes"), ("doubles", "doubled")):
        server = Wrong(letters, fault)
        for act in ("fetch", "leave"):
            found = load(bench, "pop", "--pop", f"127.0.0.1:{server.port}", "--act", act, "--clients", "1", "--duration", "500ms",
                         code=0 if error is None else 1)
            errors = found["kinds"][act]["errors"]
            check((error is None and not errors) or error in errors, fault, "with", act, "gave", errors)
