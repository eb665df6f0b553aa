"""Debian's Postfix as the other server, in both directions: what it says with EHLO is used, and each reads the other's reports."""

import os
import socket

from harness import spool
from harness.postfix import Peer
from harness.site import free_ports
from harness.sink import certificate
from harness.suite import ROOT, Skip, check, need, same, test, wait_for
from harness.world import Report, World, letter, name_of, reports_in

EIGHT_BIT = ("From: ann@example.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\nX-Name: eight\r\n"
             "Message-ID: <eight@example.test>\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\n"
             "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n.\r\n..\r\n").encode()


def both(bench, tls="may", **settings):
    """Ours, and a Postfix that is post.example for it; what is not its own Postfix sends to ours."""
    if not ROOT:
        raise Skip("Postfix runs as root only")
    need("postfix")
    port = free_ports(1)[0]
    world = World(bench, tls=True, smtp_out_port=port, send_connections=4, **settings)
    world.dns.domain("post.example", "127.0.0.8")
    peer = Peer(bench, "127.0.0.8", port, world.site.smtp_port, certificate(bench, "mx1.post.example"), tls=tls)

    def there():
        try:
            socket.create_connection(("127.0.0.8", port)).close()
            return True
        except OSError:
            return False

    wait_for("Postfix listens", there)
    return world, peer


def box(peer, user):
    return spool.messages(peer.box(user)) if os.path.exists(peer.box(user)) else []


def arrived(peer, name, user="pat"):
    """Waits until a user there has that letter."""
    return wait_for(f"{user} has {name}", lambda: next((text for text in box(peer, user) if name_of(text) == name), None))


@test("postfix: our mail reaches it byte for byte, under TLS, pipelined, on few connections, once each")
def to_postfix(bench):
    world, peer = both(bench)
    world.send("first", "pat@post.example", size=300_000)
    text = arrived(peer, "first")
    check(text.endswith(letter("first", 300_000)), "the text:", text[:600])
    check(b"ESMTPS id" in text, "how it came:", text[:900])
    world.send("eight", "pat@post.example", words="BODY=8BITMIME", text=EIGHT_BIT)
    text = arrived(peer, "eight")
    check(text.endswith(EIGHT_BIT), "eight bits:", text)
    for number in range(60):
        world.send(f"many{number}", "pat@post.example", "pia@post.example")
    world.empty()
    peer.drain()
    for user in ("pat", "pia"):
        names = sorted(name_of(text) for text in box(peer, user) if name_of(text).startswith("many"))
        same(names, sorted(f"many{number}" for number in range(60)), user)
    connections = peer.log().count(": connect from ")
    check(connections < 30, "connections for 62 messages:", connections)
    same(world.reports(), [], "reports")


@test("postfix: whom it refuses, we report; what we ask for with DSN, it reports, and Python reads both")
def reports(bench):
    world, peer = both(bench)
    world.send("unknown", "nobody@post.example", "pat@post.example")
    report = world.bounce("unknown")
    same((report.status, report.action, report.whom), ("5.1.1", "failed", ["nobody@post.example"]), "ours")
    check("550 5.1.1" in report.of_each[0]["Diagnostic-Code"] and "nobody@post.example" in report.text, report.of_each[0].as_string())
    same(report.of_each[0]["Remote-MTA"].replace(" ", ""), "dns;mx1.post.example", "who said it")
    arrived(peer, "unknown")
    world.send("told", "pat@post.example", words="RET=HDRS ENVID=env-1", rcpt_words="NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;pat+2Bx@post.example")
    report = world.bounce("told")
    same((report.action, report.status, report.of_message["Original-Envelope-Id"]), ("delivered", "2.0.0", "env-1"), "Postfix's")
    same(report.of_each[0]["Original-Recipient"].replace(" ", ""), "rfc822;pat+x@post.example", "whom it was for")
    same(report.returned.get_content_type(), "text/rfc822-headers", "what comes back")
    world.empty()


@test("postfix: its mail reaches our users; whom we refuse it reports, and what it asks for we report")
def from_postfix(bench):
    world, peer = both(bench)
    text = letter("inbound", 100_000, "pat@post.example").replace(b"\r\n", b"\n")
    peer.send(text, "pat", "ann@example.test", "bob@example.test")
    for user in ("ann", "bob"):
        came = wait_for(f"{user} has it", lambda user=user: world.drop(user))
        same(len(came), 1, "letters")
        check(b"with ESMTPS id" in came[0] and name_of(came[0]) == "inbound" and came[0].rstrip().endswith(b"..dotted"), came[0][:900])
    peer.send(letter("refused").replace(b"\r\n", b"\n"), "pat", "nobody@example.test")
    theirs = Report(wait_for("Postfix reports", lambda: reports_in(box(peer, "pat")))[0])
    same((theirs.status, theirs.action), ("5.1.1", "failed"), "Postfix's report of what we refused")
    peer.send(letter("wished").replace(b"\r\n", b"\n"), "pia", "ann@example.test", options=("-N", "success", "-R", "hdrs", "-V", "env-2"))
    ours = Report(wait_for("we report", lambda: reports_in(box(peer, "pia")))[0])
    same((ours.action, ours.status[0], ours.of_message["Original-Envelope-Id"]), ("delivered", "2", "env-2"), "our report")
    check(ours.returned is None or ours.returned.get_content_type() in ("text/rfc822-headers", "message/global-headers"), "what comes back")
    wait_for("Postfix has nothing left", lambda: not peer.queued())
    world.empty()


@test("postfix: TLS is required on both sides, and both keep to it")
def encrypted(bench):
    world, peer = both(bench, tls="encrypt", route="* mx inside tls=required")
    world.send("there", "pat@post.example")
    check(b"ESMTPS id" in arrived(peer, "there"), "ours went under TLS")
    peer.send(letter("here").replace(b"\r\n", b"\n"), "pat", "ann@example.test")
    came = wait_for("ann has it", world.drop)
    check(b"with ESMTPS id" in came[0], came[0][:600])
    world.empty()
