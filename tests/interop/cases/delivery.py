"""Mail that leaves: where it goes by DNS and by routes, how a message is brought, and what becomes of it. Every host that is sent to
is a sink of the test's own on an address of 127.0.0.0/8; `world` has the DNS."""

import glob
import os
import threading

from harness import dns, sink
from harness.site import free_ports
from harness.sink import Sink, answer, certificate, close, say, say_and_close
from harness.suite import check, need, same, test, wait_for
from harness.world import Report, World, letter, name_of

UTF8 = "From: ann@example.test\r\nSubject: Grüße\r\nX-Name: utf8\r\n\r\nhi\r\n".encode()
EIGHT_BIT = "From: ann@example.test\r\nSubject: x\r\nX-Name: eight\r\n\r\nGrüße\r\n".encode()


@test("delivery: a letter goes where MX says, byte for byte, and trace shows its whole way")
def by_mx(bench):
    world = World(bench)
    world.dns.domain("there.example", "127.0.0.2")
    for name, size in (("small", 0), ("large", 700_000)):
        ident = world.send(name, "bob@there.example", size=size)
        message = world.delivered(name, "bob@there.example")
        head, _, rest = message.text.partition(b"From: ann@example.test\r\n")
        same(b"From: ann@example.test\r\n" + rest, letter(name, size), "the text below what we wrote")
        check(head.startswith(b"Received: from ") and f" id {ident}".encode() in head and b"Return-Path" not in head, "above it:", head)
        same((message.sender, message.recipients[0][0]), ("ann@example.test", "bob@there.example"), "the envelope")
        same(message.talk.greeted_as, "example.test", "who we say we are")
        world.gone(ident)

        def told(ident=ident):
            log = world.trace(ident)
            return all(piece in log for piece in ("accepted from <ann@example.test>", "127.0.0.2", "mx1.there.example",
                                                  "250 2.0.0 Taken", "bob@there.example")) and log

        wait_for("its way is in the log", told)
    same(world.dns.count("there.example", "MX"), 1, "questions: the answer is kept")
    same(len(world.dns.asked_by_tcp), 0, "questions by TCP")


@test("delivery: of several hosts the preferred is asked first, and the next when it is not there, greets badly or says nothing")
def preference(bench):
    world = World(bench, "127.0.0.2", "127.0.0.3", "127.0.0.4", send_idle_secs=1, retry_schedule=8)
    world.dns.mx("there.example", (30, "mx3.there.example"), (10, "mx1.there.example"), (20, "mx2.there.example"))
    for number in (1, 2, 3):
        world.dns.a(f"mx{number}.there.example", f"127.0.0.{1 + number}")
    world.send("first", "bob@there.example")
    same(world.delivered("first").address, "127.0.0.2", "where it went")
    # Each trouble has a domain of its own: what is known of a host is not held against the next test.
    troubles = [("refused", None), ("busy", say_and_close("421 4.3.2 Too busy")), ("later", say("450 4.3.2 Later")),
                ("denied", say_and_close("554 5.7.1 No mail here")), ("ended", close()), ("silent", sink.stall()),
                ("nonsense", say(b"what?\r\n"))]
    for name, action in troubles:
        world.dns.domain(f"{name}.example", "127.0.0.2", "127.0.0.3")
        if action:
            world.sink.at("greeting", action, "127.0.0.2")
        else:
            world.sink.shut("127.0.0.2")
        world.send(name, f"bob@{name}.example")
        same(world.delivered(name).address, "127.0.0.3", f"where it went when the first host was {name}")
        world.sink.usual()
        if not action:
            world.sink.open("127.0.0.2")
    # Neither of them: it waits, then goes to whom comes back.
    world.dns.domain("both.example", "127.0.0.3", "127.0.0.4")
    world.sink.shut("127.0.0.3")
    world.sink.shut("127.0.0.4")
    ident = world.send("both", "bob@both.example")
    world.deferred(ident, "refused", "onnect")
    world.sink.open("127.0.0.4")
    same(world.delivered("both", seconds=30).address, "127.0.0.4", "who came back")
    world.empty()


@test("delivery: hosts of equal preference share the mail")
def shared(bench):
    world = World(bench, "127.0.0.2", "127.0.0.3")
    for number in range(24):
        # So many that all go to one in a run of two million.
        world.dns.mx(f"d{number}.example", (10, "a.there.example"), (10, "b.there.example"))
    world.dns.a("a.there.example", "127.0.0.2")
    world.dns.a("b.there.example", "127.0.0.3")
    for number in range(24):
        world.send(f"shared{number}", f"bob@d{number}.example")
    wait_for("all are delivered", lambda: len(world.sink.taken()) == 24)
    same({message.address for message in world.sink.taken()}, {"127.0.0.2", "127.0.0.3"}, "who had mail")


@test("delivery: a domain without MX is its own host; what has no host, takes no mail or does not exist is bounced")
def no_mx(bench):
    world = World(bench)
    world.dns.a("implicit.example", "127.0.0.2")
    world.send("implicit", "bob@implicit.example")
    same(world.delivered("implicit").recipients[0][0], "bob@implicit.example", "by the domain's own address")
    world.dns.cname("alias.example", "implicit.example")
    world.send("alias", "bob@alias.example")
    world.delivered("alias")
    world.dns.mx("null.example", (0, ""))
    world.dns.a("null.example", "127.0.0.2")
    world.dns.add("empty.example", "TXT", "no mail")
    for name, status in (("null", "5.1.10"), ("nothere", "5.1.2"), ("empty", "5.4.4")):
        ident = world.send(name, f"bob@{name}.example")
        report = world.bounce(name)
        same((report.status, report.action), (status, "failed"), name)
        check(f"bob@{name}.example" in report.text, "what a person reads:", report.text)
        world.gone(ident)
    # Null MX beside another is an error of that domain's; it has a host, and that is asked.
    world.dns.mx("odd.example", (0, ""), (10, "implicit.example"))
    world.send("odd", "bob@odd.example")
    world.delivered("odd")
    # A host without an address is passed over.
    world.dns.mx("half.example", (10, "gone.half.example"), (20, "implicit.example"))
    world.send("half", "bob@half.example")
    world.delivered("half")
    world.empty()


@test("delivery: where DNS is silent, fails or refuses, mail waits and goes when it answers")
def dns_trouble(bench):
    world = World(bench)
    for name, behaviour in (("silent", dns.silence), ("fails", dns.servfail), ("refuses", dns.refused)):
        domain = f"{name}.example"
        world.dns.domain(domain, "127.0.0.2")
        world.dns.behave(domain, behaviour)
        ident = world.send(name, f"bob@{domain}")
        row = world.deferred(ident, "DNS")
        check(row["why"].startswith("4.4.3 "), "its reason:", row)
        world.dns.behave(domain, None)
        world.delivered(name)
        world.gone(ident)
    # MX is known, the address of the host is not.
    world.dns.mx("host.example", (10, "mx.host.example"))
    world.dns.a("mx.host.example", "127.0.0.2")
    world.dns.behave("mx.host.example", dns.silence)
    ident = world.send("host", "bob@host.example")
    world.deferred(ident, "DNS")
    world.dns.behave("mx.host.example", None)
    world.delivered("host")
    same(world.reports(), [], "reports: nothing failed for good")


@test("delivery: what DNS says is asked again by TCP when it is cut off, and the same question is asked once")
def dns_asked(bench):
    world = World(bench)
    world.dns.domain("cut.example", "127.0.0.2")
    world.dns.behave("cut.example", dns.truncated)
    world.send("cut", "bob@cut.example")
    world.delivered("cut")
    same(world.dns.asked_by_tcp["cut.example", "MX"], 1, "questions by TCP")
    # Really too large: 80 hosts.
    world.dns.mx("large.example", *((10 + at, f"a-rather-long-name-{at}.large.example") for at in range(80)))
    world.dns.a("a-rather-long-name-0.large.example", "127.0.0.2")
    world.send("large", "bob@large.example")
    world.delivered("large")
    world.dns.domain("slow.example", "127.0.0.2")
    world.dns.behave("slow.example", dns.delayed(0.5))
    for number in range(20):
        world.send(f"slow{number}", f"bob{number}@slow.example")
    wait_for("all are delivered", lambda: sum(name_of(one.text).startswith("slow") for one in world.sink.taken()) == 20)
    same(world.dns.count("slow.example", "MX"), 1, "questions for 20 messages")
    # Ids and ports cannot be guessed.
    idents = world.dns.idents
    check(len({ident for ident, _ in idents}) > len(idents) / 2, "ids:", idents)
    check(len({port for _, port in idents}) > 1, "ports:", idents)


@test("delivery: mail for ourselves by MX is no loop: it is bounced with 5.4.6, and hosts behind us in the list are not asked")
def ourselves(bench):
    world = World(bench, "127.0.0.2", "127.0.0.3", start=False, route="second.example mx inside")
    site = world.site
    site.port, site.tls_port, site.submission_port, site.smtps_port, site.lmtp_port = free_ports(5)
    # Another address than the sinks have: the same port is ours.
    site.smtp_port = world.sink.port
    site.start()
    world.dns.domain("loop.example", "127.0.0.1")
    world.dns.mx("name.example", (10, "example.test"))
    world.dns.a("example.test", "127.0.0.3")
    world.dns.a("zero.example", "0.0.0.0")
    for name in ("loop", "name", "zero"):
        ident = world.send(name, f"bob@{name}.example")
        same(world.bounce(name).status, "5.4.6", name)
        world.gone(ident)
    # We are the second of three: only the first is tried, and it waits for that one.
    world.dns.mx("second.example", (10, "mx.second.example"), (20, "example.test"), (30, "after.second.example"))
    world.dns.a("mx.second.example", "127.0.0.2")
    world.dns.a("after.second.example", "127.0.0.3")
    world.sink.shut("127.0.0.2")
    ident = world.send("second", "bob@second.example")
    world.deferred(ident)
    world.sink.open("127.0.0.2")
    same(world.delivered("second").address, "127.0.0.2", "where it went")
    same([talk.address for talk in world.sink.talks if talk.address == "127.0.0.3"], [], "conversations with who is behind us")


@test("delivery: nothing connects to the loopback, to 0.0.0.0 or to private addresses unless a route says inside")
def inside(bench):
    world = World(bench, "127.0.0.2", "::1", inside=False)
    for at, address in enumerate(("127.0.0.2", "::1", "::ffff:127.0.0.2", "0.0.0.0", "10.0.0.1", "169.254.1.1", "fe80::1", "224.0.0.1")):
        domain = f"d{at}.example"
        world.dns.domain(domain, address)
        ident = world.send(f"inside{at}", f"bob@{domain}")
        wait_for(f"{address} is refused", lambda at=at, ident=ident: any(
            f"inside{at}".encode() in report.as_bytes() for report in world.reports()) or any(
                row["state"] == "deferred" for row in world.who(ident)))
    ident = world.send("literal", "bob@[127.0.0.2]")
    wait_for("the literal is refused", lambda: world.reports() and not world.who(ident) or world.who(ident))
    same(world.sink.talks, [], "conversations")


@test("delivery: IPv6 and IPv4, each where the other does not answer; an address in brackets")
def families(bench):
    world = World(bench, "127.0.0.2", "::1")
    world.dns.domain("four.example", "127.0.0.2")
    world.dns.domain("six.example", "::1")
    for name, where in (("four", "127.0.0.2"), ("six", "::1")):
        world.send(name, f"bob@{name}.example")
        same(world.delivered(name).address, where, name)
    for name, lost, where in (("dead6", "::1", "127.0.0.2"), ("dead4", "127.0.0.2", "::1")):
        world.dns.domain(f"{name}.example", ["127.0.0.2", "::1"])
        world.sink.shut(lost)
        world.send(name, f"bob@{name}.example")
        same(world.delivered(name).address, where, name)
        world.sink.open(lost)
    for name, literal, where in (("lit4", "[127.0.0.2]", "127.0.0.2"), ("lit6", "[IPv6:::1]", "::1")):
        world.send(name, f"bob@{literal}")
        same(world.delivered(name).address, where, name)
    same(world.dns.count("[127.0.0.2]"), 0, "an address is not looked up")


@test("delivery: recipients of a domain share a transaction, messages a connection; each recipient has its own outcome")
def together(bench):
    world = World(bench, send_idle_secs=5)
    world.dns.domain("there.example", "127.0.0.2")
    world.dns.domain("other.example", "127.0.0.2")
    five = [f"u{number}@there.example" for number in range(5)]
    ident = world.send("five", *five, "x@other.example", "ann@example.test")
    message = world.delivered("five", five[0])
    same([address for address, _ in message.recipients], five, "recipients of one transaction")
    world.delivered("five", "x@other.example")
    wait_for("ann has hers", lambda: len(world.drop()) == 1)
    world.gone(ident)
    for number in range(5):
        world.send(f"kept{number}", "u1@there.example")
        world.delivered(f"kept{number}")
    talks = [talk for talk in world.sink.talks if any("there.example" in command for command in talk.commands)]
    check(len(talks) <= 2, "connections for six messages:", len(talks))
    wait_for("what is idle is closed politely", lambda: not world.sink.open_talks(), 15)
    same([talk.commands[-1] for talk in world.sink.talks], ["QUIT"] * len(world.sink.talks), "the last words")
    # One is refused for good, one for now, one is taken.
    world.sink.at("rcpt", say("550 5.1.1 Nobody \x07of that name"), argument="no@there.example")
    world.sink.at("rcpt", say("450 4.2.0 Greylisted"), argument="wait@there.example")
    ident = world.send("mixed", "yes@there.example", "no@there.example", "wait@there.example")
    world.delivered("mixed", "yes@there.example")
    report = world.bounce("mixed")
    same(report.whom, ["no@there.example"], "who failed")
    same(report.status, "5.1.1", "as the other said")
    diagnostic = report.of_each[0]["Diagnostic-Code"]
    check(diagnostic.startswith("smtp; 550 5.1.1 Nobody") and "\x07" not in diagnostic, diagnostic)
    row = world.deferred(ident, "Greylisted")
    same(row["address"], "wait@there.example", "who waits")
    world.sink.usual()
    world.delivered("mixed", "wait@there.example")
    world.gone(ident)
    same(world.copies("mixed", "yes@there.example"), 1, "copies of who had it at once")


@test("delivery: too many recipients for a server: the rest follow at once; LIMITS says it before")
def too_many(bench):
    world = World(bench, sink=Sink("127.0.0.2", rcpt_max=3), retry_schedule=3600)
    world.dns.domain("there.example", "127.0.0.2")
    eight = [f"u{number}@there.example" for number in range(8)]
    for name, offer in (("full", None), ("limits", "LIMITS RCPTMAX=3")):
        if offer:
            world.sink.offers.append(offer)
            # A new connection: what the last one heard is what it was offered.
            wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
        before = len(world.sink.messages)
        ident = world.send(name, *eight)
        # Nothing is tried again for an hour, so what is there was brought at once.
        world.gone(ident)
        came = [address for message in world.sink.messages[before:] for address, _ in message.recipients]
        same(sorted(came), eight, f"recipients, {name}")
        same(max(len(message.recipients) for message in world.sink.messages[before:]), 3, "in a transaction")
        if offer:
            same([message.refused for message in world.sink.messages[before:]], [{}] * 3, "said in vain")


@test("delivery: what a server cannot take is not brought: SIZE, 8BITMIME, SMTPUTF8")
def unfit(bench):
    world = World(bench, sink=Sink("127.0.0.2", offers=["PIPELINING", "SIZE 2000"]))
    world.dns.domain("there.example", "127.0.0.2")
    world.send("toobig", size=9_000)
    check(world.bounce("toobig").status in ("5.3.4", "5.2.3"), "too large")
    world.send("utf8", sender="ann@example.test", words="SMTPUTF8 BODY=8BITMIME", text=UTF8)
    same(world.bounce("utf8").status, "5.6.7", "a header beyond ASCII")
    world.send("eight", words="BODY=8BITMIME", text=EIGHT_BIT)
    came = wait_for("it is converted or bounced", lambda: world.sink.taken() or [
        report for report in world.reports() if b"X-Name: eight" in report.as_bytes()])
    check(all(isinstance(one, sink.Message) is False or max(one.text) < 128 for one in came), "octets above 127 were brought")
    world.send("plain")
    world.delivered("plain")
    world.sink.offers[:] = sink.OFFERS
    wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
    world.send("utf8", words="SMTPUTF8 BODY=8BITMIME", text=UTF8)
    message = world.delivered("utf8")
    check(message.text.endswith(UTF8), message.text)
    check("SMTPUTF8" in message.sender_words and "BODY=8BITMIME" in message.sender_words, message.sender_words)
    check(any(word.startswith("SIZE=") for word in message.sender_words), message.sender_words)


@test("delivery: DSN parameters are carried where they are known, HELO where EHLO is not, RSET where nobody was taken")
def said(bench):
    world = World(bench)
    world.dns.domain("there.example", "127.0.0.2")
    world.send("dsn", words="RET=HDRS ENVID=QQ314159", rcpt_words="NOTIFY=FAILURE,DELAY ORCPT=rfc822;bob@there.example")
    message = world.delivered("dsn")
    check({"RET=HDRS", "ENVID=QQ314159"} <= set(message.sender_words), message.sender_words)
    same(sorted(word.upper() for word in message.recipients[0][1]),
         sorted(["NOTIFY=FAILURE,DELAY", "ORCPT=RFC822;BOB@THERE.EXAMPLE"]), "what was said with RCPT")
    wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
    world.sink.at("ehlo", say("502 5.5.1 What is EHLO?"))
    world.send("helo", words="RET=HDRS ENVID=QQ314160")
    message = world.delivered("helo")
    check(any(command.startswith("HELO ") for command in message.talk.commands), message.talk.commands)
    same(message.sender_words, [], "parameters after HELO")
    world.sink.usual()
    # Nobody is taken: the text is not sent to nobody, and the next message goes on the same connection or a new one.
    world.sink.at("rcpt", say("550 5.1.1 No"), argument="eve@there.example")
    world.send("nobody", "eve@there.example")
    world.bounce("nobody")
    world.send("after")
    world.delivered("after")
    same(world.copies("nobody"), 0, "copies for nobody")


@test("delivery: TLS where it is offered, in clear where its handshake fails; required and verified mean it")
def tls(bench):
    pair = certificate(bench, "mx1.there.example")
    world = World(bench, sink=Sink("127.0.0.2", tls=pair), retry_schedule=1, route=[
        "required.example mx inside tls=required", "verified.example mx inside tls=verified", "never.example mx inside tls=never",
        "* mx inside"])
    for name in ("offered", "required", "verified", "never", "broken", "plain", "strict"):
        world.dns.domain(f"{name}.example", "127.0.0.2")
    for name, under in (("offered", True), ("required", True), ("never", False)):
        world.send(name, f"bob@{name}.example")
        message = world.delivered(name)
        same(message.tls, under, f"TLS, {name}")
        check("STARTTLS" not in message.talk.commands or under, message.talk.commands)
    ident = world.send("logged", "bob@offered.example")
    world.delivered("logged")
    wait_for("the log says TLS", lambda: "TLS" in world.trace(ident))
    # A self-signed certificate proves nothing.
    ident = world.send("verified", "bob@verified.example")
    world.deferred(ident, "TLS", "ertificate")
    same(world.copies("verified"), 0, "copies")
    world.tell("queue", "delete", ident)
    for step, action in (("handshake", answer(b"garbage instead of a handshake\r\n" * 20)), ("handshake", close()),
                         ("starttls", say("454 4.7.0 No TLS today"))):
        wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
        world.sink.at(step, action)
        ident = world.send("broken", "bob@broken.example")
        same(world.delivered("broken").tls, False, "TLS that broke")
        world.gone(ident)
        world.sink.messages.clear()
        strict = world.send("strict", "bob@required.example")
        world.deferred(strict, "TLS", "STARTTLS")
        same(world.copies("strict"), 0, "copies where TLS is required and broken")
        world.sink.usual()
        same(world.delivered("strict").tls, True, "TLS when it works again")
        world.sink.messages.clear()
    # None is offered at all.
    world.sink.tls = None
    wait_for("no connection is kept", lambda: not world.sink.open_talks(), 15)
    world.send("plain", "bob@plain.example")
    same(world.delivered("plain").tls, False, "TLS")
    ident = world.send("required", "bob@required.example")
    world.deferred(ident, "TLS")


@test("delivery: all by one smart host, that of a route, that of a sender, each with its own port, login and TLS")
def smart_hosts(bench):
    pair = certificate(bench, "relay.example")
    others = {"gateway": Sink("127.0.0.2"), "login": Sink("127.0.0.3", tls=pair, login=("us", "of=course")),
              "wrapped": Sink("127.0.0.4", tls=pair, wrapped=True), "sender": Sink("127.0.0.5")}
    secret = bench.write("relay.secret", "us of=course\n")
    world = World(bench, route=[
        f"login.example 127.0.0.3:{others['login'].port} inside tls=required login={secret}",
        f"*.wrapped.example [127.0.0.4]:{others['wrapped'].port} inside wrapped",
        "mx.example mx inside"], sender_route=f"bob@example.test 127.0.0.5:{others['sender'].port} inside",
        gateway=f"127.0.0.2:{others['gateway'].port} inside")
    world.dns.domain("mx.example", "127.0.0.2")
    for name, sender, recipient in (("gateway", "ann", "x@any.example"), ("login", "ann", "x@login.example"),
                                    ("wrapped", "ann", "x@sub.wrapped.example"), ("sender", "bob", "x@any.example"),
                                    ("sender", "bob", "x@login.example")):
        world.send(f"{name}.{recipient}", recipient, sender=f"{sender}@example.test")
        message = world.delivered(f"{name}.{recipient}", sink=others[name])
        same((message.tls, message.login), (name in ("login", "wrapped"), "us" if name == "login" else None), name)
    world.send("direct", "x@mx.example")
    world.delivered("direct")
    same([key for key in world.dns.asked if key[0] in ("any.example", "login.example", "sub.wrapped.example")], [], "looked up")
    # A wrong password holds mail back and says so; the password is in no log.
    others["login"].login = ("us", "another")
    wait_for("no connection is kept", lambda: not others["login"].open_talks(), 15)
    ident = world.send("wrong", "x@login.example")
    row = world.deferred(ident, "535", "ogin")
    check("of=course" not in row["why"] and "of=course" not in world.site.log(), "the password is told")
    # It is not said in clear.
    others["login"].tls = None
    row = world.deferred(ident, "TLS")
    check(not any(command.startswith("AUTH") for command in others["login"].talks[-1].commands), "AUTH in clear")


@test("delivery: our own submission port as the smart host, under STARTTLS with a login")
def own_submission(bench):
    relay = World(bench, name="relay", tls=True)
    relay.dns.domain("there.example", "127.0.0.2")
    secret = bench.write("relay.secret", "ann@example.test secret\n")
    world = World(bench, dns=relay.dns, sink=relay.sink, name="home", users={"ann": "other"}, route=None,
                  host_domain="home.example", gateway=f"127.0.0.1:{relay.site.submission_port} inside tls=required login={secret}")
    world.send("through", "bob@there.example", sender="ann@example.test")
    message = world.delivered("through")
    check(message.text.count(b"Received: from ") == 2 and b"with ESMTPSA id" in message.text, message.text[:900])
    same(message.talk.source[0][:4], "127.", "who brought it")
    wait_for("the relay's log knows who it was", lambda: "sent (" in relay.trace("bob@there.example") and " ann " in relay.trace("ann@example.test"))


@test("delivery: LMTP to a port and to a socket in the file system, an outcome for each recipient")
def lmtp(bench):
    path = bench.path("lmtp")
    by_port, by_path = Sink("127.0.0.3", lmtp=True), Sink(path=path, lmtp=True)
    world = World(bench, route=[f"lists.example lmtp:127.0.0.3:{by_port.port} inside", f"local.example lmtp:{path}", "* mx inside"])
    for name, server in (("lists", by_port), ("local", by_path)):
        answers = b"250 2.1.5 Yes\r\n550 5.2.1 Closed\r\n450 4.2.2 Full\r\n"
        server.at("dot", [say(answers)])
        who = [f"{user}@{name}.example" for user in ("yes", "no", "wait")]
        ident = world.send(name, *who)
        report = world.bounce(name)
        same((report.whom, report.status), ([f"no@{name}.example"], "5.2.1"), name)
        same(world.deferred(ident, "Full")["address"] if world.who(ident) else f"wait@{name}.example", f"wait@{name}.example", "who waits")
        world.delivered(name, f"wait@{name}.example", 2, sink=server)
        world.gone(ident)
        same([message.talk.commands[0] for message in server.messages][0], "LHLO example.test", "the first word")
    same(world.dns.asked, {}, "nothing is looked up")


@test("delivery: what is parked waits for an order; held, deleted and retried mail does as told")
def parked(bench):
    world = World(bench, route=["parked.example park", "* mx inside"], retry_schedule=3600)
    world.dns.domain("parked.example", "127.0.0.2")
    world.dns.domain("there.example", "127.0.0.2")
    ident = world.send("parked", "bob@parked.example")
    row = wait_for("it is parked", lambda: next((row for row in world.who(ident) if row["state"] != "now"), None))
    check("parked" in row["why"] and "ETRN" in row["unblock"], row)
    same(world.sink.talks, [], "conversations")
    world.tell("queue", "route", ident, "via=mx inside")
    world.delivered("parked")
    world.gone(ident)
    # By the schedule an hour would pass.
    world.sink.shut("127.0.0.2")
    ident = world.send("retried", "bob@there.example")
    world.deferred(ident)
    world.sink.open("127.0.0.2")
    world.tell("queue", "retry", ident)
    world.delivered("retried")
    world.tell("pause")
    ident = world.send("paused", "bob@there.example")
    wait_for("it is shown", lambda: any("tellsmtp resume" in row["unblock"] for row in world.who(ident)))
    same(world.copies("paused"), 0, "copies while sending is paused")
    world.tell("resume")
    # By itself within a minute or two.
    world.tell("queue", "retry", ident)
    world.delivered("paused")
    world.empty()


@test("delivery: after hours its sender is warned once, after days it is bounced; a report that cannot be brought is not")
def expired(bench):
    need("faketime")
    library = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")[0]
    world = World(bench)
    world.dns.domain("there.example", "127.0.0.2")
    world.sink.shut("127.0.0.2")
    idents = [world.send("old"), world.send("null", sender=""), world.send("stranger", sender="eve@there.example")]
    for ident in idents:
        world.deferred(ident)

    def later(time):
        """The same server, so much later."""
        same(world.site.stop(), 0, "exit code")
        # Not by its program: that is a parent of the server, and takes the signals.
        world.site.start(wrap=("env", f"LD_PRELOAD={library}", f"FAKETIME={time}", "DONT_FAKE_MONOTONIC=1"))

    later("+5h")
    warning = world.bounce("old")
    same((warning.action, warning.status[:4]), ("delayed", "4.4."), "the warning")
    check("Will-Retry-Until" in warning.of_each[0], warning.of_each[0].as_string())
    later("+12h")
    for ident in idents[:1]:
        world.deferred(ident)
    same(len(world.reports()), 1, "warnings")
    later("+6d")
    wait_for("it is bounced", lambda: len(world.reports()) == 2)
    report = Report(world.reports()[1])
    same(report.action, "failed", "the report")
    check("refused" in report.of_each[0].as_string() + report.text, "why it was not brought:", report.text)
    # Eve's report waits a day of its own; a null sender has nobody to tell.
    wait_for("what nobody hears of is gone", lambda: not any(world.who(ident) for ident in idents))
    later("+9d")
    world.empty()
    same(len(world.reports()), 2, "reports")


@test("delivery: one slow domain holds up no other, and a domain with a thousand messages holds few connections")
def crowd(bench):
    world = World(bench, "127.0.0.2", "127.0.0.3", send_connections=4, **{f"send_{step}_secs": 30 for step in ("greeting", "dot")})
    world.dns.domain("slow.example", "127.0.0.2")
    world.dns.domain("quick.example", "127.0.0.3")
    let_go = threading.Event()
    world.sink.at("greeting", sink.hold(let_go, 60), "127.0.0.2")
    count = int(os.environ.get("CROWD", "200"))
    for number in range(count):
        world.send(f"slow{number}", "bob@slow.example")
    wait_for("somebody waits for it", lambda: any(talk.stalled.is_set() for talk in world.sink.talks))
    for number in range(5):
        world.send(f"quick{number}", "bob@quick.example")
        world.delivered(f"quick{number}")
    check(world.sink.most_at_once("127.0.0.2") <= 4, "connections at a time:", world.sink.most_at_once("127.0.0.2"))
    let_go.set()
    wait_for("all are delivered", lambda: len(world.sink.taken("bob@slow.example")) == count, 60)
    check(world.sink.most_at_once("127.0.0.2") <= 4, "connections at a time:", world.sink.most_at_once("127.0.0.2"))
    same(len({name_of(message.text) for message in world.sink.taken("bob@slow.example")}), count, "different letters")
    world.empty()
