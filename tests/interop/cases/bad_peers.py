"""What other servers and resolvers may do to who sends: silence, ends, and nonsense at every step, and never more than it costs them.
A canary reads mail all the while."""

import json
import os
import threading
import time

from harness import dns
from harness.sink import OFFERS, Sink, answer, certificate, close, close_in_text, drip, flood, lines, say, stall
from harness.suite import check, same, test, wait_for
from harness.world import PATIENCE_SECS, World, letter, name_of, resident_kb

#: Where a server may fall silent, and what of it the reason names, if that is one word only.
STALLS = {"greeting": "greeting", "ehlo": "EHLO", "mail": "envelope", "rcpt": "envelope", "data": "envelope", "text": "", "dot": "message"}
#: What memory may grow by while strangers do their worst, in kB.
GROWTH_KB = 12_000


class Canary(threading.Thread):
    """Logs in again and again; `slowest` is how long that took at most."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.ended, self.slowest, self.trouble, self.times = world, threading.Event(), 0, None, 0
        self.start()

    def run(self):
        while not self.ended.wait(0.1):
            began = time.monotonic()
            try:
                with self.world.site.login("bob", timeout=20) as pop:
                    pop.stat()
                    pop.quit()
            except Exception as trouble:  # pylint: disable=broad-except
                self.trouble = trouble
                return
            self.times += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def well(self):
        self.ended.set()
        self.join(30)
        check(self.trouble is None, "the canary:", self.trouble)
        check(self.times and self.slowest < 5, "the canary waited", self.slowest)


def around(world, count):
    """So many domains, each with a host and an address of its own, that the sinks listen on; each in a network of its own, of
    which none may have more than a quarter of the connections."""
    addresses = [f"127.{1 + at // 200}.{1 + at % 200}.1" for at in range(1, count + 1)]
    for at, address in enumerate(addresses, 1):
        world.sink.open(address)
        world.dns.domain(f"d{at}.example", address)
    return addresses


@test("bad peers: who falls silent at any step is left after a while, mail for others goes on, and all of it goes out later")
def silent(bench):
    world = World(bench)
    world.dns.domain("there.example", "127.0.0.2")
    steps = list(STALLS)
    addresses = around(world, len(steps))
    canary = Canary(world)
    idents = {}
    for at, (step, address) in enumerate(zip(steps, addresses), 1):
        world.sink.at(step, stall(taken=False), address)
        # A text that fits into no socket's buffers.
        idents[step] = world.send(step, f"bob@d{at}.example", size=12_000_000 if step == "text" else 1_000)
    wait_for("all have stalled", lambda: len({talk.address for talk in world.sink.talks if talk.stalled.is_set()}) == len(steps))
    began = time.monotonic()
    world.send("meanwhile")
    world.delivered("meanwhile")
    check(time.monotonic() - began < PATIENCE_SECS, "others waited", time.monotonic() - began)
    for step, ident in idents.items():
        row = world.deferred(ident)
        check(row["why"].startswith("4.4.") and STALLS[step].lower() in row["why"].lower(), step, row)
        same(row["possibly"], step == "dot", f"possibly delivered, silent at {step}")
    check(world.tell("status")["sending"]["possibly"], "it is counted")
    world.sink.usual()
    for step in steps:
        world.delivered(step, seconds=40)
    world.empty()
    canary.well()


@test("bad peers: who ends the connection within a reply, at any step and octet, gets the message once in the end")
def ended(bench):
    world = World(bench, tls=False)
    wanted, sizes = [], {}
    for step, reply in (("greeting", 29), ("ehlo", 110), ("mail", 18), ("rcpt", 21), ("data", 11), ("dot", 17), ("quit", 15)):
        wanted += [(step, close(at, taken=False)) for at in sorted({0, 1, 3, 4, reply - 2, reply - 1})]
    wanted += [("connect", close()), ("connect", close(reset=True)), ("dot", close(0, taken=False, reset=True)), ("quit", close(reset=True))]
    wanted += [("text", close_in_text(after, reset)) for after in (1, 500, 200_000) for reset in (False, True)]
    canary = Canary(world)
    for at, ((step, action), address) in enumerate(zip(wanted, around(world, len(wanted))), 1):
        world.sink.at(step, [action], address)
        sizes[f"end{at}"] = 400_000 if step == "text" else 100
        world.send(f"end{at}", f"bob@d{at}.example", size=sizes[f"end{at}"])
    world.empty(60)
    same(sorted(name_of(message.text) for message in world.sink.taken()), sorted(f"end{at}" for at in range(1, len(wanted) + 1)), "copies")
    for message in world.sink.taken():
        name = name_of(message.text)
        check(message.text.endswith(letter(name, sizes[name])), "the text of", name, message.text[-200:])
    same(world.reports(), [], "reports")
    canary.well()


@test("bad peers: a message without an answer is possibly delivered: apart, later, counted; then it may be there twice and not oftener")
def possibly(bench):
    world = World(bench, possibly_secs=4)
    cases = [("silent", stall()), ("ended", close()), ("half", close(9)), ("reset", close(reset=True)), ("nonsense", say(b"\x1b[2J\r\n"))]
    for at, ((name, action), address) in enumerate(zip(cases, around(world, len(cases))), 1):
        world.sink.at("dot", [action], address)
        ident = world.send(name, f"bob@d{at}.example", f"eve@d{at}.example")
        row = world.deferred(ident)
        check(row["possibly"] and "may have the message" in row["why"] and "may have arrived" in row["unblock"], name, row)
        same({one["address"] for one in world.who(ident)}, {f"bob@d{at}.example", f"eve@d{at}.example"}, "who waits")
    same(world.tell("status")["sending"]["possibly"], 2 * len(cases), "recipients in doubt, counted")
    for name, action in cases:
        first = min(message.at for message in world.sink.messages if name_of(message.text) == name)
        # What said nonsense said no yes: it has not taken it.
        message = world.delivered(name, count=1 if name == "nonsense" else 2, seconds=30)
        check(message.at - first > 3, name, "was tried again after", message.at - first)
    world.empty()
    same(world.reports(), [], "reports")


NASTY = {
    "line": flood(b"250 "), "greeting line": flood(b"220-", total=1 << 28), "lines": lines(100_000), "mixed": say(b"250-yes\r\n550 no\r\n"),
    "four digits": say(b"2500 yes\r\n"), "no digits": say(b"yes\r\n"), "low": say(b"150 wait\r\n"), "high": say(b"999 what\r\n"),
    "nul": say(b"25\x000 yes\r\n"), "empty": say(b"\r\n"), "smuggled": say(b"2x0 \n.\nMAIL FROM:<evil@example>\r\n"), "spaces": say(b"  250 yes\r\n"),
    "binary": say(bytes(range(128, 256)) * 4 + b"\r\n"), "drip": drip(0.5), "go on": say("354 Go on, when nobody asked"),
}


@test("bad peers: replies that are none, too long, too many or drop by drop cost no memory, and the mail is kept")
def nonsense(bench):
    world = World(bench)
    steps = ("greeting", "ehlo", "mail", "rcpt", "data", "dot")
    cases = [(step, name) for step in steps for name in NASTY if not (step == "data" and name == "go on")]
    addresses = around(world, len(cases))
    canary = Canary(world)
    world.dns.domain("there.example", "127.0.0.2")
    world.send("warm")
    world.delivered("warm")
    before, _ = resident_kb(world.site.process.pid)
    idents = {}
    for at, ((step, name), address) in enumerate(zip(cases, addresses), 1):
        action = NASTY[name]
        action.taken = False
        world.sink.at(step, [action], address)
        idents[at] = world.send(f"bad{at}", f"bob@d{at}.example")
    for at, (step, name) in enumerate(cases, 1):
        wait_for(f"{name} at {step} was met", lambda at=at: any(talk.address == addresses[at - 1] for talk in world.sink.talks))
    world.send("meanwhile")
    world.delivered("meanwhile")
    for at, (step, name) in enumerate(cases, 1):
        try:
            world.delivered(f"bad{at}", seconds=60)
        except Exception:
            print(f"{name} at {step}:", world.who(idents[at]), len(world.reports()))
            raise
    world.empty()
    _, most = resident_kb(world.site.process.pid)
    check(most < before + GROWTH_KB, "memory grew from", before, "to", most, "kB")
    eaten = max(talk.sent for talk in world.sink.talks)
    check(eaten < 64 << 20, "so many octets of a reply went into sockets:", eaten)
    same(world.reports(), [], "reports")
    canary.well()


@test("bad peers: what a reply says is in reports and logs without a control character, cut, and never a header of its own")
def escaped(bench):
    world = World(bench)
    evil = (b"550 5.7.1 \x1b[2J\x1b]0;owned\x07 no\x00 \x08\x7f \xff\xfe \xc2\x9b31m \r.\r X-Evil: yes <script> =?utf-8?q?=0aX-Evil:?=\r\n")
    long = b"".join(b"550-5.7.1 line %d %s\r\n" % (at, b"y" * 500) for at in range(100)) + b"550 5.7.1 X-Evil: the last\r\n"
    dots = b"550-5.7.1 one\n.\nX-Evil: yes\n\r\n550 5.7.1 two\r\n"
    cases = [(step, name, text) for step in ("mail", "rcpt", "dot") for name, text in (("evil", evil), ("long", long), ("dots", dots))]
    addresses = around(world, len(cases))
    names = []
    for at, ((step, name, text), address) in enumerate(zip(cases, addresses), 1):
        world.sink.at(step, say(text), address)
        names.append(f"{name}-{step}")
        world.send(names[-1], f"bob@d{at}.example")
    # "dots" is nonsense, not a refusal, to who takes a lone line end for one: then it stays in the queue.
    wait_for("all have been told", lambda: len(world.reports()) + len(world.rows("state=deferred")) >= len(cases), 30)
    check(len(world.reports()) >= 6, "reports:", len(world.reports()))
    for report in world.reports():
        raw = report.as_bytes()
        for line in raw.split(b"\n"):
            check(not line.startswith(b"X-Evil"), "a header of the other's:", raw)
            check(all(byte >= 32 or byte in b"\t\r" for byte in line) and b"\x7f" not in line, "a control character:", line)
        check(len(raw) < 60_000, "a report of", len(raw))
    log = world.site.log()
    check("5.7.1" in log, "the log has the reply")
    for line in log.splitlines():
        check(line.isprintable() or all(letter.isprintable() or letter == "\t" for letter in line), "a control character in the log:", line)
        check(len(line) < 3_000, "a line of", len(line))
    shown = world.site.bench.name and json.dumps(world.tell("queue"))
    check("\\u001b" not in shown and "\\u0000" not in shown, "in the queue's list:", shown)


@test("bad peers: a connection that is kept may be gone when the next message comes, which then takes a new one")
def kept(bench):
    world = World(bench, send_idle_secs=10, retry_schedule=60)
    for at, (name, step, action) in enumerate((("gone", None, None), ("mail", "mail", close()), ("busy", "mail", say("421 4.4.2 Timed out")),
                                               ("reset", "mail", close(reset=True))), 1):
        world.sink.open(f"127.0.1.{at}")
        world.dns.domain(f"{name}.example", f"127.0.1.{at}")
        world.send(f"{name}1", f"bob@{name}.example")
        talk = world.delivered(f"{name}1").talk
        if step:
            world.sink.at(step, [action], f"127.0.1.{at}")
        else:
            talk.sock.shutdown(2)
            wait_for("it is over", lambda talk=talk: talk.over)
        world.send(f"{name}2", f"bob@{name}.example")
        # Not a minute later.
        world.delivered(f"{name}2")
    world.empty()


@test("bad peers: TLS that stalls, breaks or is injected into")
def tls(bench):
    pair = certificate(bench, "mx.example")
    world = World(bench, sink=Sink("127.0.0.2", tls=pair))
    actions = [stall(), close(), answer(b"\x16\x03\x01\xff\xff" + b"\0" * 70_000), answer(b"220 2.0.0 More\r\n"), answer(b"\x15\x03\x03\0\2\2\x28")]
    addresses = around(world, len(actions) + 1)
    canary = Canary(world)
    for at, (action, address) in enumerate(zip(actions, addresses), 1):
        world.sink.at("handshake", [action], address)
        world.send(f"tls{at}", f"bob@d{at}.example")
    # What is said in clear behind the answer to STARTTLS is not said by who holds the certificate.
    world.sink.at("starttls", [say(b"220 2.0.0 Go on\r\n250 injected\r\n250 injected\r\n")], addresses[-1])
    world.send(f"tls{len(addresses)}", f"bob@d{len(addresses)}.example")
    for at in range(1, len(addresses) + 1):
        world.delivered(f"tls{at}", seconds=30)
    world.empty()
    canary.well()


LIES = {
    "silence": dns.silence, "servfail": dns.servfail, "refused": dns.refused, "wrong id": dns.wrong_id, "wrong question": dns.wrong_question,
    "no question": dns.no_question, "echo": dns.not_an_answer, "cut off": dns.truncated_always, "garbage": dns.garbage,
    "right head": dns.right_head, "pointer loop": dns.pointer_loop, "cut short": dns.cut_short, "cut stream": dns.cut_stream,
    "no stream": dns.no_stream, "cname loop": dns.chain(6, loop=True), "cname to itself": dns.chain(1, loop=True),
    "long chain": dns.chain(60), "huge text": dns.huge_text, "5,000 that are not there": dns.many(dns.many_mx, 5_000),
}


@test("bad peers: resolvers that lie, cut off, repeat or flood lead no mail astray, cost no memory, and the mail is kept")
def resolvers(bench):
    world = World(bench, "127.0.0.2", "127.0.0.66")
    world.dns.a("evil.example", "127.0.0.66")
    canary = Canary(world)
    world.dns.domain("there.example", "127.0.0.2")
    world.send("warm")
    world.delivered("warm")
    before, _ = resident_kb(world.site.process.pid)
    idents = {}
    for at, (name, lie) in enumerate(LIES.items(), 1):
        for kind, domain in (("MX", f"m{at}.example"), ("A", f"a{at}.example")):
            world.dns.domain(domain, "127.0.0.2")
            world.dns.behave(domain if kind == "MX" else f"mx1.{domain}", lie, kind)
            idents[name, kind] = world.send(domain, f"bob@{domain}")
    world.send("meanwhile")
    world.delivered("meanwhile")
    for (name, kind), ident in idents.items():
        # Some lies are harmless: an answer that can be read is believed.
        wait_for(f"{name} for {kind} has come to something", lambda ident=ident: not world.who(ident) or any(
            row["state"] == "deferred" for row in world.who(ident)), 30)
    _, most = resident_kb(world.site.process.pid)
    check(most < before + GROWTH_KB, "memory grew from", before, "to", most, "kB")
    world.dns.behaviours.clear()
    failed = {name_of(report.as_bytes()) for report in world.reports()}
    for at, name in enumerate(LIES, 1):
        for domain in (f"m{at}.example", f"a{at}.example"):
            if domain in failed:
                check("loop" in name or "chain" in name or name in ("echo", "huge text", "no question"), name, "was bounced")
            else:
                world.delivered(domain, seconds=40)
    same([talk for talk in world.sink.talks if talk.address == "127.0.0.66"], [], "conversations with the evil host")
    canary.well()


@test("bad peers: forged answers and what stands beside a true one are not believed; thousands of hosts are tried within bounds")
def poisoned(bench):
    world = World(bench, "127.0.0.2", "127.0.0.66")
    world.dns.a("evil.example", "127.0.0.66")
    for name in ("forged.example", "beside.example", "victim.example"):
        world.dns.domain(name, "127.0.0.2")
    world.dns.behave("forged.example", dns.guessed(500))
    world.dns.behave("beside.example", dns.poisoned("victim.example", "127.0.0.66"))
    world.dns.behave("mx1.beside.example", dns.poisoned("mx1.victim.example", "127.0.0.66"))
    for name in ("forged", "beside", "victim"):
        world.send(name, f"bob@{name}.example")
        same(world.delivered(name).address, "127.0.0.2", name)
    # 3,000 hosts, and none has an address: asked for within bounds.
    world.dns.behave("many.example", dns.many(dns.many_mx))
    ident = world.send("many", "bob@many.example")
    wait_for("it is deferred or bounced", lambda: not world.who(ident) or any(row["state"] == "deferred" for row in world.who(ident)), 30)
    asked = {name for name, _ in world.dns.asked if name.endswith(".many.example")}
    check(len(asked) <= 200, "hosts of one domain that were looked up:", len(asked))
    # A host with 2,000 addresses, none of which listens but the last.
    world.dns.mx("wide.example", (10, "mx.wide.example"))
    world.dns.behave("mx.wide.example", dns.many(lambda number: bytes([127, 1, number >> 8, number & 255])), "A")
    ident = world.send("wide", "bob@wide.example")
    world.deferred(ident)
    world.site.alive()
    same([talk for talk in world.sink.talks if talk.address == "127.0.0.66"], [], "conversations with the evil host")


@test("bad peers: hundreds of peers that stall hold bounded memory and descriptors, and other mail still goes", 120)
def crowd(bench):
    count = int(os.environ.get("STALLED_PEERS", "60"))
    world = World(bench, send_connections_max=100, **{f"send_{step}_secs": 6 for step in ("greeting", "command", "dot", "mail", "rcpt")})
    world.dns.domain("there.example", "127.0.0.2")
    world.send("warm")
    world.delivered("warm")
    before, _ = resident_kb(world.site.process.pid)
    canary = Canary(world)
    addresses = around(world, count)
    for at, address in enumerate(addresses, 1):
        world.sink.at(("greeting", "mail", "dot")[at % 3], stall(taken=False), address)
        for number in range(3):
            world.send(f"s{at}-{number}", f"bob@d{at}.example")
    wait_for("all stall", lambda: len({talk.address for talk in world.sink.talks if talk.stalled.is_set()}) == count, 30)
    began = time.monotonic()
    world.send("meanwhile")
    world.delivered("meanwhile")
    check(time.monotonic() - began < 5, "others waited", time.monotonic() - began)
    check(len(world.sink.open_talks()) <= 102, "connections at a time:", len(world.sink.open_talks()))
    _, most = resident_kb(world.site.process.pid)
    check(most < before + GROWTH_KB + 100 * count, "memory grew from", before, "to", most, "kB")
    world.sink.usual()
    wait_for("all is delivered", lambda: len({name_of(message.text) for message in world.sink.taken()}) == 3 * count + 2, 60)
    same(len(world.sink.taken()), 3 * count + 2, "copies")
    world.empty()
    canary.well()


@test("bad peers: offers that are odd are not obeyed beyond reason")
def offers(bench):
    world = World(bench)
    odd = {"size 0": ["SIZE 0"], "no number": ["SIZE ten"], "huge": ["SIZE 99999999999999999999999999"], "limits": ["LIMITS RCPTMAX=0 MAILMAX=1"],
           "twice": ["SIZE 1000000", "SIZE 2000000", "PIPELINING", "PIPELINING"], "lower": ["pipelining", "8bitmime", "smtputf8"],
           "binary": ["X\x01", "\x7f", "AUTH=PLAIN"], "hundred": [f"X-{number}" for number in range(100)]}
    for name, offered in odd.items():
        wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
        world.sink.offers[:] = offered
        world.dns.domain("odd.example", "127.0.0.2")
        for number in range(2):
            world.send(f"{name.replace(' ', '-')}{number}", "a@odd.example", "b@odd.example")
        for number in range(2):
            wait_for(name, lambda name=name, number=number: sum(
                len(message.recipients) for message in world.sink.taken()
                if name_of(message.text) == f"{name.replace(' ', '-')}{number}") == 2)
    world.sink.offers[:] = OFFERS
    world.empty()
