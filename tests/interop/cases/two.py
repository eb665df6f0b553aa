"""Two of our servers that send to each other by MX: example.test and there.example. A message handed to one reaches a user of the
other, whatever of both is killed at whatever moment, exactly once.

TWO_KILLS is how many kills (16 unless set), TWO_MESSAGES how many messages at least (200); SEED repeats the orders (not who is
quicker), and is printed."""

import json
import os
import random
import re
import signal
import socket
import threading
import time

from harness import dns, spool
from harness.dns import Dns
from harness.site import free_ports
from harness.suite import DMAIL, check, run, same, test, wait_for
from harness.world import World, letter, name_of

KILLS = int(os.environ.get("TWO_KILLS", os.environ.get("CRASH_ROUNDS", "16")))
MESSAGES = int(os.environ.get("TWO_MESSAGES", "200"))
USERS = {"ann": "secret", "bob": "geheim", "cyd": "segreto"}
HOME, THERE = "127.0.0.11", "127.0.0.12"


class Pair:
    """`home` is example.test, `there` is there.example; a DNS that knows both."""

    def __init__(self, bench, **settings):
        self.dns = Dns()
        self.dns.domain("example.test", HOME)
        self.dns.domain("there.example", THERE)
        self.home = World(bench, dns=self.dns, sink=False, start=False, name="home", users=USERS, bind_address=f"127.0.0.1,{HOME}", **settings)
        self.there = World(bench, dns=self.dns, sink=False, start=False, name="there", users=USERS, host_domain="there.example",
                           bind_address=f"127.0.0.1,{THERE}", **settings)
        ports = free_ports(12)
        for world in (self.home, self.there):
            site = world.site
            site.port, site.tls_port, site.smtp_port, site.submission_port, site.smtps_port, site.lmtp_port = ports[:6]
            del ports[:6]
        self.home.site.extra["smtp_out_port"] = self.there.site.smtp_port
        self.there.site.extra["smtp_out_port"] = self.home.site.smtp_port

    def start(self):
        self.home.site.start(patient=True)
        self.there.site.start(patient=True)
        return self


@test("two: a message submitted to one server reaches a user of the other by MX, and trace shows its whole way on both")
def done(bench):
    pair = Pair(bench).start()
    wire = pair.home.submit()
    wire.begin("ann@example.test", "bob@there.example", "cyd@there.example", "bob@example.test")
    text = letter("done", 50_000)
    wire.send(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
    ident = wire.expect(b"250 2.0.0 Accepted as ")[0].split()[4].decode()
    wire.cmd("QUIT", b"221")

    def fetched(world, user):
        pop = world.site.retry_login(user)
        found = pop.everything()
        pop.quit()
        return found

    for world, user in ((pair.there, "bob"), (pair.there, "cyd"), (pair.home, "bob")):
        wait_for(f"{user} has it", lambda world=world, user=user: world.drop(user))
        found = fetched(world, user)
        same(len(found), 1, f"letters of {user}")
        check(found[0].endswith(text), "the text:", found[0][:700])
    pair.home.gone(ident)
    received = re.findall(rb"\r\nReceived: .*?id ([0-9A-Z]{12})", fetched(pair.there, "bob")[0], re.S)
    same(len(received), 2, "Received lines")
    other = received[0].decode()
    same(received[1].decode(), ident, "the id it had here")

    def whole():
        here, over_there = pair.home.trace(ident), pair.there.trace(other)
        wanted = [(here, piece) for piece in ("accepted from <ann@example.test>", "bob@there.example", "cyd@there.example", THERE,
                                              "mx1.there.example", f"Accepted as {other}", "bob@example.test")]
        wanted += [(over_there, piece) for piece in ("accepted from <ann@example.test>", "bob@there.example", "cyd@there.example")]
        missing = [piece for log, piece in wanted if piece not in log]
        return not missing

    try:
        wait_for("trace shows the whole way", whole)
    except Exception:
        print(pair.home.trace(ident), "\n---\n", pair.there.trace(other))
        raise
    # Who does not exist there is reported to who sent it, and an answer comes back.
    pair.home.send("unknown", "nobody@there.example")
    same(pair.home.bounce("unknown").status, "5.1.1", "as the other said")
    pair.there.send("answer", "ann@example.test", sender="bob@there.example")
    wait_for("the answer is there", lambda: any(name_of(text) == "answer" for text in pair.home.drop()))
    for world in (pair.home, pair.there):
        world.empty()


@test("two: servers whose aliases forward to each other stop, and the sender hears of it once")
def loop(bench):
    pair = Pair(bench)
    for world, other in ((pair.home, "there.example"), (pair.there, "example.test")):
        world.site.extra["alias_file"] = bench.write(f"aliases.{other}", f"round: round@{other}\n", 0o644)
    pair.start()
    pair.home.send("round", "round@example.test")
    report = pair.home.bounce("round", seconds=60)
    same(report.status, "5.4.6", "why")
    for world in (pair.home, pair.there):
        world.empty(60)
    same(len(pair.home.reports()), 1, "reports")


@test("two: while DNS is silent or the other server is away, mail waits; it goes by itself when they are back")
def partition(bench):
    pair = Pair(bench, dns_timeout=1).start()
    pair.dns.behave(None, dns.silence)
    for number in range(20):
        pair.home.send(f"silent{number}", "bob@there.example")
    wait_for("they wait for DNS", lambda: len(pair.home.rows("state=deferred")) == 20)
    pair.dns.behave(None, None)
    wait_for("they are there", lambda: len(pair.there.drop("bob")) == 20, 30)
    same(pair.there.site.stop(), 0, "exit code")
    for number in range(20):
        pair.home.send(f"away{number}", "bob@there.example", "ann@example.test")
    wait_for("they wait for the other", lambda: len(pair.home.rows("state=deferred")) == 20)
    pair.home.site.stop()
    pair.there.site.start(patient=True)
    pair.home.site.start(patient=True)
    wait_for("they are there", lambda: len(pair.there.drop("bob")) == 40, 30)
    pair.home.empty()
    names = sorted(name_of(text) for text in pair.there.drop("bob"))
    same(names, sorted(f"{what}{number}" for what in ("silent", "away") for number in range(20)), "bob's letters")
    same(sorted(name_of(text) for text in pair.home.drop("ann")), sorted(f"away{number}" for number in range(20)), "ann's letters")


class Stream(threading.Thread):
    """Hands messages in, each once, whether its server lives or not; `told` is what was answered, by name: True, False (refused), or
    None (no answer)."""

    def __init__(self, pair, number, seed):
        super().__init__(daemon=True)
        self.pair, self.number, self.dice = pair, number, random.Random(f"{seed} stream {number}")
        self.told, self.whom, self.ended, self.trouble = {}, {}, threading.Event(), None

    def run(self):
        try:
            while not self.ended.wait(self.dice.random() * 0.04):
                try:
                    self.session()
                except (OSError, EOFError):
                    self.ended.wait(0.02)
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble

    def session(self):
        with socket.create_connection(("127.0.0.1", self.pair.home.site.smtp_port), timeout=20) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            replies = sock.makefile("rb")

            def said(text=None):
                if text is not None:
                    sock.sendall(text)
                while True:
                    line = replies.readline()
                    if not line.endswith(b"\r\n"):
                        raise EOFError
                    if line[3:4] != b"-":
                        return line

            said()
            said(b"EHLO client.test\r\n")
            for _ in range(self.dice.randrange(1, 5)):
                name = f"s{self.number}-{len(self.told)}"
                users = self.dice.sample(sorted(USERS), self.dice.choice((1, 1, 2, 3)))
                said(b"MAIL FROM:<ann@example.test>\r\n")
                good = [user for user in users if said(f"RCPT TO:<{user}@there.example>\r\n".encode()).startswith(b"250")]
                if not good or not said(b"DATA\r\n").startswith(b"354"):
                    return
                text = letter(name, self.dice.choice((100, 2_000, 60_000)))
                self.told[name], self.whom[name] = None, good
                answer = said(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
                self.told[name] = answer.startswith(b"250")
                if self.ended.is_set():
                    break
            said(b"QUIT\r\n")


@test("two: kill -9 of either server at any moment: each message reaches its users exactly once", 90 + 4 * KILLS)
def killed(bench):
    seed = os.environ.get("SEED") or str(random.randrange(1_000_000))
    print(f"counted: SEED={seed} repeats the orders")
    dice = random.Random(seed)
    pair = Pair(bench).start()
    streams = [Stream(pair, number, seed) for number in range(4)]
    for stream in streams:
        stream.start()

    def accepted():
        return sum(answer is True for stream in streams for answer in list(stream.told.values()))

    began, victims, kills = time.monotonic(), {"home": 0, "there": 0}, 0
    while kills < KILLS or accepted() < MESSAGES:
        check(time.monotonic() - began < 60 + 3 * KILLS, "so many were accepted in that time:", accepted())
        time.sleep(0.05 + dice.random() * 0.6)
        for name in dice.choice((["home"], ["there"], ["there"], ["home", "there"])):
            site = getattr(pair, name).site
            os.kill(site.process.pid, signal.SIGKILL)
            site.process.wait(20)
            check("panicked" not in site.said(), "a panic:", site.said()[-3000:])
            victims[name] += 1
            # The other sees what it is to be alone.
            time.sleep(dice.choice((0, 0, 0.1, 0.5)) * dice.random())
            site.start(patient=True)
        kills += 1
    for stream in streams:
        stream.ended.set()
        stream.join(30)
        check(stream.trouble is None, "a sender:", stream.trouble)
    for world in (pair.home, pair.there, pair.home):
        world.empty(60)
    found = {}
    for user in USERS:
        for text in spool.messages(pair.there.site.drop(user)):
            name = name_of(text)
            found[user, name] = found.get((user, name), 0) + 1
            check(text.endswith(b"\r\nIt is here.\r\n.\r\n..dotted\r\n"), f"{name} of {user} is not whole:", text[-200:])
    told = {name: answer for stream in streams for name, answer in stream.told.items()}
    whom = {name: users for stream in streams for name, users in stream.whom.items()}
    lost = [(name, user) for name, answer in told.items() if answer for user in whom[name] if (user, name) not in found]
    twice = {key: count for key, count in found.items() if count > 1}
    untrue = [(user, name) for user, name in found if told.get(name, False) is False or user not in whom[name]]
    halves = [name for name, answer in told.items() if answer is None and len({(user, name) in found for user in whom[name]}) > 1]
    print("counted:", json.dumps({"kills": kills, **victims, "accepted": accepted(), "unanswered": list(told.values()).count(None),
                                  "delivered": len(found), "lost": len(lost), "twice": len(twice), "more_copies": sum(twice.values()) - len(twice),
                                  "secs": round(time.monotonic() - began)}))
    reports = pair.home.reports()
    same([report.as_string()[:1500] for report in reports], [], "reports")
    same((lost, untrue, halves), ([], [], []), "lost, never accepted and there, for some of its users only")
    if twice:
        where(pair, twice)
    same(twice, {}, "there more than once")


def where(pair, twice):
    """What both logs say of the first that came twice."""
    user, name = sorted(twice)[0]
    texts = [text for text in spool.messages(pair.there.site.drop(user)) if name_of(text) == name]
    for text in texts:
        print(text[:900].decode("latin-1"))
    for ident in {ident.decode() for text in texts for ident in re.findall(rb"id ([0-9A-Z]{12})", text)}:
        for world in (pair.home, pair.there):
            said = run([DMAIL, "tellsmtp", "-i", world.site.conf, "trace", ident])
            print(said.stdout.decode("utf-8", "replace")[-2500:])
