"""What stands in a drop of a message that came by SMTP: every line, every byte, and what a sender cannot make of it."""

import re

from harness import spool
from harness.site import Site
from harness.suite import check, same, test, wait_for
from harness.wire import Smtp

#: The day as From_ lines have it, and as RFC 5322 has it.
ASCTIME = rb"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d \d{4}"
DATE = rb"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000"


def served(bench, **settings):
    return Site(bench, mail=True, settings=settings).start()


def raw(site, user="ann"):
    with open(site.drop(user), "rb") as file:
        return file.read()


def head(sender, user, how, only=True):
    """Everything above the text of a message, as a regular expression."""
    # One word, whatever the sender is called.
    word = re.escape(sender.replace(b" ", b"-") or b"MAILER-DAEMON")
    named = rb"\n\tfor <" + user + rb"@example\.test>; " if only else rb"; "
    return (rb"From " + word + rb" " + ASCTIME + rb"\nReturn-Path: <" + re.escape(sender) + rb">\nDelivered-To: " + user +
            rb"@example\.test\nReceived: from client\.example\.org \(\[127\.0\.0\.1\]\)\n\tby example\.test with " + how +
            rb" id [0-9A-Z]{12}" + named + DATE + rb"\n")


def shaped(found, *parts):
    """The bytes are those: regular expressions in turn."""
    check(re.fullmatch(b"".join(parts), found), found, "is not", b"".join(parts))


def send(wire, text, sender="a@b.example", *recipients):
    wire.begin(sender, *recipients)
    wire.send(text + b".\r\n")
    return wire.expect(b"250 2.0.0 Accepted")


@test("stored: From_ line, Return-Path, Delivered-To, Received, the text, a blank line, and then the next")
def shape(bench):
    site = served(bench)
    wire = Smtp.tcp(site.smtp_port)
    wire.hello()
    said = send(wire, b"Subject: one\r\n\r\nbody\r\n")[-1]
    one = head(b"a@b.example", b"ann", b"ESMTP") + rb"Subject: one\n\nbody\n\n"
    shaped(raw(site), one)
    same(re.search(rb" id ([0-9A-Z]{12})", raw(site))[1], said.split()[-1], "the id that the client was told")
    # Without a line end at its end, without a body, without anything; and from nobody.
    send(wire, b"Subject: two\r\n\r\n", "")
    two = head(b"", b"ann", b"ESMTP") + rb"Subject: two\n\n\n"
    shaped(raw(site), one, two)
    send(wire, b"Subject: three\r\n", '"odd name"@b.example', "ann@example.test", "bob@example.test")
    three = head(b'"odd name"@b.example', b"ann", b"ESMTP", only=False) + rb"Subject: three\n\n\n"
    shaped(raw(site), one, two, three)
    send(wire, b"")
    shaped(raw(site), one, two, three, head(b"a@b.example", b"ann", b"ESMTP"), rb"\n\n")
    wire.cmd("QUIT", b"221")
    same(len(spool.messages(site.drop())), 4, "letters")
    same(len(spool.messages(site.drop("bob"))), 1, "letters of bob")


@test("stored: Received says by which protocol it came")
def protocols(bench):
    site = served(bench)
    seen = []

    def came(port, how, hello="EHLO", tls=False, login=False, params=""):
        wire = Smtp.tcp(port, cafile=site.cert if port == site.smtps_port else None)
        wire.hello(hello)
        if tls:
            wire.starttls(site.cert)
            wire.hello(hello)
        if login:
            wire.cmd("AUTH PLAIN AGFubgBzZWNyZXQ=", b"235")
        sender = "ann@example.test" if login else "a@b.example"
        wire.cmd(f"MAIL FROM:<{sender}>{params}", b"250")
        wire.cmd("RCPT TO:<bob@example.test>", b"250")
        wire.cmd("DATA", b"354")
        wire.send(b"Date: x\r\nMessage-ID: <y>\r\nSubject: x\r\n\r\n.\r\n")
        wire.expect(b"250")
        wire.cmd("QUIT", b"221")
        seen.append(head(sender.encode(), b"bob", how.encode()) + rb"Date: x\nMessage-ID: <y>\nSubject: x\n\n\n")
        shaped(raw(site, "bob"), *seen)

    came(site.smtp_port, "SMTP", "HELO")
    came(site.smtp_port, "ESMTP")
    came(site.smtp_port, "ESMTPS", tls=True)
    came(site.smtp_port, "UTF8SMTP", params=" SMTPUTF8")
    came(site.smtp_port, "UTF8SMTPS", tls=True, params=" SMTPUTF8")
    came(site.submission_port, "ESMTPA", login=True)
    came(site.submission_port, "ESMTPSA", tls=True, login=True)
    came(site.submission_port, "UTF8SMTPSA", tls=True, login=True, params=" SMTPUTF8 BODY=8BITMIME")
    came(site.smtps_port, "ESMTPSA", login=True)
    came(site.lmtp_port, "LMTP", "LHLO")
    came(site.lmtp_port, "LMTPS", "LHLO", tls=True)
    came(site.lmtp_port, "UTF8LMTP", "LHLO", params=" SMTPUTF8")


@test("stored: no line of a text is a separator, and the mailbox's own fields are renamed")
def quoted(bench):
    site = served(bench)
    wire = Smtp.tcp(site.smtp_port)
    wire.hello()
    text = (b"From a@b.example Mon Jan  5 11:00:00 2026\r\nX-UIDL: 1\r\nStatus: RO\r\nX-Status: A\r\nX-IMAP: 1 2\r\nX-IMAPbase: 1 2\r\n"
            b"x-keywords: a\r\nContent-Length: 3\r\nReturn-Path: <evil@b.example>\r\nSTATUS : O\r\nSubject: x\r\n Status: folded\r\n\r\n"
            b"From the start\r\n>From one\r\n>>From two\r\n From blank\r\nFrom\r\nFromage\r\nStatus: RO\r\n\r\nFrom a@b.example "
            b"Mon Jan  5 11:00:00 2026\r\n..\r\n...x\r\nTo the end\r\n\r\n\r\n")
    send(wire, text)
    wanted = (b">From a@b.example Mon Jan  5 11:00:00 2026\nX-Original-X-UIDL: 1\nX-Original-Status: RO\nX-Original-X-Status: A\n"
              b"X-Original-X-IMAP: 1 2\nX-Original-X-IMAPbase: 1 2\nX-Original-x-keywords: a\nX-Original-Content-Length: 3\n"
              b"X-Original-Return-Path: <evil@b.example>\nX-Original-STATUS : O\nSubject: x\n Status: folded\n\n"
              b">From the start\n>>From one\n>>>From two\n From blank\nFrom\nFromage\nStatus: RO\n\n>From a@b.example "
              b"Mon Jan  5 11:00:00 2026\n.\n..x\nTo the end\n\n\n\n")
    shaped(raw(site), head(b"a@b.example", b"ann", b"ESMTP"), re.escape(wanted))
    same(len(spool.messages(site.drop())), 1, "letters")
    with site.login() as pop:
        same(pop.stat()[0], 1, "letters, as POP3 has them")
        check(pop.retr(1).replace(b"\r\n", b"\n").endswith(wanted[:-1]), "the letter, as POP3 has it")
        pop.quit()


@test("stored: who is named twice, in whatever way, has one copy")
def once(bench):
    site = served(bench, alias_file=bench.write("aliases", "team: ann, bob\ninfo: ann\n"))
    wire = Smtp.tcp(site.smtp_port)
    wire.hello()
    send(wire, b"Subject: x\r\n\r\nx\r\n", "a@b.example", "ann@example.test", "ann@example.test", "ANN@Example.Test", "ann+x@example.test",
         "team@example.test", "info@example.test")
    wait_for("bob has his", lambda: len(spool.messages(site.drop("bob"))) == 1)
    wait_for("ann has hers", lambda: len(spool.messages(site.drop())) == 1)
    # Over LMTP each has an answer, and one copy.
    wire = Smtp.tcp(site.lmtp_port)
    wire.hello("LHLO")
    wire.begin("a@b.example", "ann@example.test", "ann@example.test", "bob@example.test")
    wire.send(b"Subject: y\r\n\r\ny\r\n.\r\n")
    for _ in range(3):
        wire.expect(b"250 2.0.0")
    wire.cmd("QUIT", b"221")
    for user in ("ann", "bob"):
        wait_for(user, lambda user=user: len(spool.messages(site.drop(user))) == 2)
    same([raw(site, user).count(b"Subject: x") for user in ("ann", "bob")], [1, 1], "copies")


@test("stored: a message that was here already is going round, by its hops or by Delivered-To")
def loops(bench):
    site = served(bench, smtp_max_hops=10, alias_file=bench.write("aliases", "team: ann, bob\n"))
    wire = Smtp.tcp(site.smtp_port)
    wire.hello()
    text = b"Received: from a by b; today\r\n" * 10 + b"Subject: nearly\r\n\r\nReceived: in body\r\n"
    send(wire, text)
    wire.begin()
    wire.send(b"Received: again\r\n" + text + b".\r\n")
    wire.expect(b"554 5.4.6")
    for field in (b"Delivered-To: ann@example.test", b"delivered-to:ANN@Example.Test ", b"Delivered-To: bob@x\r\nDelivered-To : ann@example.test"):
        wire.begin()
        wire.send(field + b"\r\nSubject: round\r\n\r\nx\r\n.\r\n")
        wire.expect(b"554 5.4.6")
    # Another's, or below the header, says nothing.
    send(wire, b"Delivered-To: ann@other.example\r\nX-Delivered-To: ann@example.test\r\nSubject: other\r\n\r\n"
         b"Delivered-To: ann@example.test\r\n")
    same(len(spool.messages(site.drop())), 2, "letters")
    # Of several, who had it already does not keep it from the others.
    send(wire, b"Delivered-To: ann@example.test\r\nSubject: some\r\n\r\nx\r\n", "bob@example.test", "ann@example.test", "bob@example.test")
    wait_for("bob has it", lambda: b"Subject: some" in raw(site, "bob"))
    # The sender, who is bob, is told of her.
    wait_for("the bounce", lambda: b"5.4.6" in raw(site, "bob"))
    check(b"Subject: some" not in raw(site), "ann has it again")
