"""Mail that comes in: SMTP, submission, LMTP, programs on this machine; what is refused, and what must not work."""

import email
import json
import os
import poplib
import smtplib
import socket
import ssl
import subprocess

from harness import spool
from harness.site import Site
from harness.suite import DMAIL, check, need, run, same, test, wait_for
from harness.wire import Smtp as Wire

LETTER = b"From: you@example.org\r\nTo: ann@example.test\r\nSubject: Hello\r\n\r\nIt works.\r\n.\r\n.dot\r\nFrom here\r\n"
BODY = b"It works.\n.\n.dot\n>From here\n"


def server(bench, **settings):
    return Site(bench, mail=True, settings=settings).start()


def told(site):
    done = run([DMAIL, "tellpop", "-i", site.conf, "status", "--json"])
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)


def stored(site, user="ann"):
    path = site.drop(user)
    return [email.message_from_bytes(text) for text in spool.messages(path)] if os.path.exists(path) else []


def fetched(site, user="ann", password="secret"):
    pop = poplib.POP3("127.0.0.1", site.port, timeout=20)
    pop.user(user)
    pop.pass_(password)
    count, _ = pop.stat()
    letters = [b"\n".join(pop.retr(number + 1)[1]) for number in range(count)]
    pop.quit()
    return letters


@test("smtp: a letter comes in and is fetched at once, by smtplib and by curl")
def circle(bench):
    need("curl")
    site = server(bench)
    with smtplib.SMTP("127.0.0.1", site.smtp_port, timeout=20) as client:
        same(client.sendmail("you@example.org", ["ann@example.test"], LETTER), {}, "refused")
    letter = fetched(site)[0]
    check(letter.endswith(BODY.rstrip(b"\n")), "the body:", letter)
    lines = letter.split(b"\n")
    same(lines[0], b"Return-Path: <you@example.org>", "the return path")
    same(lines[1], b"Delivered-To: ann@example.test", "whose it is")
    received = email.message_from_bytes(letter)["Received"]
    for piece in ("([127.0.0.1])", "by example.test with ESMTP id ", "for <ann@example.test>; ", " +0000"):
        check(piece in received, piece, "in", received)
    path = bench.path("letter")
    with open(path, "wb") as file:
        file.write(LETTER)
    done = run(["curl", "-sS", f"smtp://127.0.0.1:{site.smtp_port}", "--mail-from", "", "--mail-rcpt", "ann@example.test",
                "--upload-file", path])
    check(done.returncode == 0, done.stderr)
    letters = fetched(site)
    same(len(letters), 2, "letters")
    check(letters[1].startswith(b"Return-Path: <>\n"), letters[1])
    with open(site.drop(), "rb") as file:
        check(b"\nFrom MAILER-DAEMON " in file.read(), "the null sender's separator")
    counts = told(site)["smtp"]
    same((counts["accepted"], counts["recipients"], counts["servers_now"]), (2, 2, 0), "counts")
    log = site.log()
    check("accepted from <you@example.org> for 1 recipients" in log and "accepted from <> for 1" in log, "the log:", log)


@test("smtp: users log in under TLS and send, by port 587 and 465")
def submission(bench):
    site = server(bench)
    context = ssl.create_default_context(cafile=site.cert)
    context.check_hostname = False
    with smtplib.SMTP("127.0.0.1", site.submission_port, timeout=20) as client:
        client.ehlo("laptop")
        check(client.has_extn("starttls"), "STARTTLS is offered")
        try:
            client.sendmail("ann@example.test", ["bob@example.test"], LETTER)
            check(False, "mail without a login was taken")
        except smtplib.SMTPSenderRefused as refused:
            same(refused.smtp_code, 530, "without a login")
        client.rset()
        client.starttls(context=context)
        try:
            client.login("ann", "wrong")
            check(False, "a wrong password was good")
        except smtplib.SMTPAuthenticationError as refused:
            same(refused.smtp_code, 535, "a wrong password")
        client.login("ann", "secret")
        client.sendmail("ann@example.test", ["bob@example.test"], b"Subject: x\r\nBcc: eve@example.test\r\n\r\nhi\r\n")
    with smtplib.SMTP_SSL("127.0.0.1", site.smtps_port, context=context, timeout=20) as client:
        client.login("ann@example.test", "secret")
        client.sendmail("ann@example.test", ["bob@example.test"], b"Date: today\r\nMessage-ID: <mine@x>\r\n\r\nhi\r\n")
    first, second = stored(site, "bob")
    check("with ESMTPSA id " in first["Received"] and "with ESMTPSA id " in second["Received"], "how it came")
    check(first["Date"] and first["Message-ID"].endswith("@example.test>") and first["Bcc"] is None, "what a letter needs:", first)
    same((second["Date"], second["Message-ID"]), ("today", "<mine@x>"), "what was there")
    with smtplib.SMTP("127.0.0.1", site.smtp_port, timeout=20) as client:
        client.ehlo("laptop")
        client.starttls(context=context)
        client.ehlo("laptop")
        check(not client.has_extn("auth"), "no AUTH on port 25")
        same(client.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")[0], 503, "AUTH on port 25")
    check("secret" not in site.log(), "no password in the log")


@test("smtp: no AUTH in clear where plain_auth is never, and hide_auth keeps quiet about it")
def clear(bench):
    site = server(bench, plain_auth="never", hide_auth="true")
    with smtplib.SMTP("127.0.0.1", site.submission_port, timeout=20) as client:
        client.ehlo("laptop")
        check(not client.has_extn("auth"), "AUTH is not offered")
        same(client.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")[0], 538, "AUTH in clear")
        context = ssl.create_default_context(cafile=site.cert)
        context.check_hostname = False
        client.starttls(context=context)
        client.ehlo("laptop")
        check(not client.has_extn("auth"), "AUTH is not offered")
        same(client.docmd("AUTH", "PLAIN AGFubgBzZWNyZXQ=")[0], 235, "AUTH all the same")


@test("smtp: what is sent in one piece is answered in order")
def pipelined(bench):
    site = server(bench)
    wire = Wire.tcp(site.smtp_port)
    wire.send(b"EHLO x.example.org\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<nobody@example.test>\r\nRCPT TO:<ann@example.test>\r\n"
              b"DATA\r\nSubject: one\r\n\r\nhi\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: two\r\n\r\n.\r\n"
              b"QUIT\r\n")
    for begins in (b"250 ENH", b"250 2.1.0", b"550 5.1.1", b"250 2.1.5", b"354", b"250 2.0.0 Accepted as ", b"250 2.1.0", b"250 2.1.5",
                   b"354", b"250 2.0.0 Accepted as ", b"221"):
        wire.expect(begins)
    wire.ended()
    same([len(stored(site, user)) for user in ("ann", "bob")], [1, 1], "letters")


@test("smtp: strangers send to nobody but users, and a recipient of another domain is refused to them")
def relaying(bench):
    site = server(bench, forward_from_ip="192.0.2.1")
    wire = Wire.tcp(site.smtp_port)
    wire.hello()
    wire.cmd("MAIL FROM:<a@b.example>", b"250")
    for whom in ("ann@elsewhere.example", "ann%elsewhere.example@example.test", '"ann@elsewhere.example"@example.test', "ann@[127.0.0.1]",
                 "@example.test:ann@elsewhere.example"):
        wire.cmd(f"RCPT TO:<{whom}>", b"55")
    wire.cmd("DATA", b"554 5.5.1")
    wire.cmd("VRFY ann", b"252")
    wire.cmd("HELP", b"214")
    wire.cmd("RCPT TO:<Ann@Example.TEST>", b"250")
    wire.cmd("RSET", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"503")
    wire.cmd("QUIT", b"221")


@test("smtp: every limit is a setting and has its answer")
def limits(bench):
    site = server(bench, smtp_max_size="16", max_rcpts="1", smtp_max_hops="10", smtp_header_lines="100", smtp_header_kbytes="16",
                  smtp_line_bytes="998", smtp_max_errors="8")

    def begun():
        wire = Wire.tcp(site.smtp_port)
        check(b"250-SIZE 16384" in wire.hello(), "the size that is offered")
        wire.cmd("MAIL FROM:<a@b.example>", b"250")
        wire.cmd("RCPT TO:<ann@example.test>", b"250")
        return wire

    wire = begun()
    wire.cmd("RCPT TO:<bob@example.test>", b"452 4.5.3")
    for text, answer in ((b"x" * 70 + b"\r\n", b"552 5.3.4"), (b"", b"250")):
        wire.cmd("DATA", b"354")
        wire.send(b"Subject: x\r\n\r\n" + text * 300 + b".\r\n")
        wire.expect(answer)
        wire.cmd("MAIL FROM:<a@b.example>", b"250")
        wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("RSET", b"250")
    wire.cmd("MAIL FROM:<a@b.example> SIZE=16385", b"552 5.3.4")
    for header, answer in ((b"Received: x\r\n" * 11, b"554 5.4.6"), (b"X: y\r\n" * 101, b"552 5.6.0"),
                           (b"X: y\r\n\r\n" + b"z" * 999 + b"\r\n", b"550 5.6.0"), (b"Received: x\r\n" * 10, b"250")):
        wire = begun()
        wire.cmd("DATA", b"354")
        wire.send(header + b"\r\n.\r\n")
        wire.expect(answer)
    wire = Wire.tcp(site.smtp_port)
    for _ in range(7):
        wire.cmd("RCPT TO:<ann@example.test>", b"503")
    wire.send(b"RCPT TO:<ann@example.test>\r\n")
    wire.expect(b"503")
    wire.expect(b"421 4.7.0 Too many errors")
    wire.ended()
    same(len(stored(site)), 2, "letters")


@test("smtp: only CRLF.CRLF ends a message, and a lone line end is mended or refused")
def smuggling(bench):
    for ways, site in ((False, server(bench)), (True, Site(bench, mail=True, name="strict", settings={"bare_newline": "reject"}).start())):
        for end in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n"):
            wire = Wire.tcp(site.smtp_port)
            wire.hello()
            wire.cmd("MAIL FROM:<a@b.example>", b"250")
            wire.cmd("RCPT TO:<ann@example.test>", b"250")
            wire.cmd("DATA", b"354")
            wire.send(b"Subject: x\r\n\r\nhi" + end + b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n\r\n.\r\n")
            if ways:
                wire.expect(b"550 5.")
                wire.ended()
            else:
                wire.expect(b"250 2.0.0 Accepted")
                wire.cmd("NOOP", b"250")
                wire.cmd("QUIT", b"221")
        same(len(stored(site, "bob")), 0, "letters that were smuggled in")
        same(len(stored(site)), 0 if ways else 7, "letters")
        if ways:
            # Counted when a conversation is over, which is a little later than its last word.
            del wire
            wait_for("seven refusals", lambda: told(site)["smtp"]["rejected"] == 7)
        else:
            counts = told(site)["smtp"]
            check(counts["lone_line_ends"] >= 7 and counts["nuls"] == 1, counts)


@test("smtp: LMTP answers for each recipient")
def lmtp(bench):
    site = server(bench)
    wire = Wire.tcp(site.lmtp_port)
    wire.cmd("EHLO x.example.org", b"500")
    wire.hello("LHLO")
    wire.cmd("MAIL FROM:<a@b.example>", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("RCPT TO:<nobody@example.test>", b"550")
    wire.cmd("RCPT TO:<bob@example.test>", b"250")
    wire.cmd("DATA", b"354")
    wire.send(b"Subject: x\r\n\r\nhi\r\n.\r\n")
    wire.expect(b"250 2.0.0")
    wire.expect(b"250 2.0.0")
    wire.cmd("NOOP", b"250")
    wire.cmd("QUIT", b"221")
    check("with LMTP id" in stored(site)[0]["Received"], stored(site)[0])
    same(len(stored(site, "bob")), 1, "letters")


@test("smtp: a program on this machine sends as its user")
def program(bench):
    site = server(bench)
    path = os.path.join(site.work, "submit.sock")
    same(os.stat(path).st_mode & 0o777, 0o666, "who may")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    wire = Wire(sock)
    offered = wire.hello()
    check(not any(b"AUTH" in line or b"STARTTLS" in line for line in offered), offered)
    wire.cmd("MAIL FROM:<root@example.test>", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("DATA", b"354")
    wire.send(b"Subject: cron\r\n\r\nhi\r\n.\r\n")
    wire.expect(b"250 2.0.0")
    wire.cmd("QUIT", b"221")
    check(f"uid {os.geteuid()})" in stored(site)[0]["Received"], stored(site)[0])
    same(site.stop(), 0, "exit code")
    check(not os.path.exists(path), "the socket goes with the server")


@test("smtp: who speaks before the greeting is closed, where it is held back")
def held(bench):
    site = server(bench, smtp_greeting_hold_secs="1", trusted_networks="192.0.2.1")
    sock = socket.create_connection(("127.0.0.1", site.smtp_port))
    sock.sendall(b"EHLO x.example.org\r\n")
    Wire(sock, b"554 5.5.0 You spoke before the greeting").ended()
    Wire.tcp(site.smtp_port).cmd("QUIT", b"221")
    # Within TLS, and where users log in, nobody waits.
    Wire.tcp(site.submission_port).cmd("QUIT", b"221")


@test("smtp: a killed server has delivered nothing that it had not all of, and a stopped one says so")
def cut(bench):
    site = server(bench)
    wire = Wire.tcp(site.smtp_port)
    wire.hello()
    wire.cmd("MAIL FROM:<a@b.example>", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("DATA", b"354")
    wire.send(b"Subject: x\r\n\r\nhalf of it\r\n")
    idle = Wire.tcp(site.smtp_port)
    idle.hello()
    same(site.stop(), 0, "exit code")
    idle.expect(b"421 4.3.2 The server is stopping")
    same(len(stored(site)), 0, "letters")
    site.start()
    wire = Wire.tcp(site.smtp_port)
    wire.hello()
    wire.cmd("MAIL FROM:<a@b.example>", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("DATA", b"354")
    wire.send(b"Subject: x\r\n\r\nhi\r\n.\r\n")
    wire.expect(b"250 2.0.0")
    same(len(fetched(site)), 1, "letters")


@test("smtp: a reload's rules are for new connections, and dsmtp serves no POP3")
def reloaded(bench):
    site = server(bench)
    wire = Wire.tcp(site.smtp_port)
    wire.hello()
    site.extra["smtp_max_size"] = 1
    site.write_conf()
    done = run([DMAIL, "tellpop", "-i", site.conf, "reload"])
    check(done.returncode == 0, done.stderr)
    wire.cmd("MAIL FROM:<a@b.example> SIZE=2000", b"250")
    late = Wire.tcp(site.smtp_port)
    late.hello()
    late.cmd("MAIL FROM:<a@b.example> SIZE=2000", b"552")
    site.stop()
    # Tells which programs it is by its name.
    name = os.path.join(bench.folder, "dsmtp")
    os.symlink(os.path.abspath(DMAIL), name)
    with open(bench.path("dsmtp.out"), "wb") as out:
        alone = subprocess.Popen([name, "-i", site.conf], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        def there():
            try:
                return Wire.tcp(site.smtp_port)
            except OSError:
                return None

        wait_for("dsmtp", there).cmd("QUIT", b"221")
        try:
            socket.create_connection(("127.0.0.1", site.port)).close()
            check(False, "dsmtp serves POP3")
        except ConnectionRefusedError:
            pass
    finally:
        alone.terminate()
        same(alone.wait(20), 0, "exit code of dsmtp")
