"""What strangers send to the ports for mail: smuggled messages, nonsense, floods, drips, too much of everything, too many of them.
Each thing gets its one reply, the server lives on in flat memory, and nothing is lost."""

import base64
import json
import os
import select
import socket
import time

from harness import spool
from harness.site import Site
from harness.suite import check, same, test, wait_for
from harness.wire import Smtp

from .bad_input import resident_kb

STRANGER = "127.0.0.9"
#: How much the process may have grown, with allocator's crumbs.
FLAT_KB = 6_000


def served(bench, **settings):
    site = Site(bench, mail=True, tls=False, settings={"smtp_max_errors": 1000, **settings}).start()
    # What is made at the first use is not counted against what strangers do.
    canary(site)
    return site


def wired(site, port=None, **options):
    wire = Smtp.tcp(port or site.smtp_port, **options)
    wire.hello("LHLO" if port == site.lmtp_port else "EHLO")
    return wire


def letters(site, user="ann"):
    path = site.drop(user)
    return spool.messages(path) if os.path.exists(path) else []


def canary(site):
    """Mail goes on arriving."""
    before = len(letters(site, "bob"))
    wire = wired(site)
    wire.begin("a@b.example", "bob@example.test")
    wire.send(b"Subject: canary\r\n\r\nx\r\n.\r\n")
    wire.expect(b"250 2.0.0")
    wire.cmd("QUIT", b"221")
    same(len(letters(site, "bob")), before + 1, "the canary's letters")


def status(site):
    return json.loads(site.tell("status", "--json").stdout)


ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\n .\r\n",
        b"\n\r.\n\r", b"\r\n.\r\0\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n", b"\r\n.\n\r\n", b"\r\n..\r\n", b"\r\n. \r\n", b"\0\r\n.\0", b"\n.\r"]
#: Those that only hold CRLFs: even where lone line ends and NULs are refused they are text.
PLAIN = {b"\r\n .\r\n", b"\r\n..\r\n", b"\r\n. \r\n"}
SMUGGLED = (b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\nQUIT\r\n")


def smuggle(site, end, strict, pieces):
    """One message with that in it; how it ends for who sends it so cut."""
    wire = wired(site)
    wire.begin()
    for piece in pieces(b"Subject: x\r\n\r\nhi" + end + SMUGGLED):
        try:
            wire.send(piece)
        except OSError:
            check(strict, end, "the connection ended")
            break
    said = wire.reply()[-1]
    if strict and end not in PLAIN:
        check(said.startswith((b"550 5.5.2 ", b"550 5.6.0 NUL")), end, said)
    else:
        # The message ends where the smuggled one does; QUIT behind it is a command.
        check(said.startswith(b"250 2.0.0 Accepted"), end, said)
        wire.expect(b"221")
    wire.ended()


def never_smuggled(bench, **settings):
    strict = bool(settings)
    site = served(bench, **settings)
    begun = len(letters(site, "bob"))
    for end in ENDS:
        smuggle(site, end, strict, lambda text: [text])
    taken = len(PLAIN) if strict else len(ENDS)
    same(len(letters(site)), taken, "letters")
    # Split at every byte around the end.
    for end in ENDS[:6] + ENDS[8:9]:
        at = len(b"Subject: x\r\n\r\nhi")
        for cut in range(at - 1, at + len(end) + 2):
            smuggle(site, end, strict, lambda text, cut=cut: [text[:cut], text[cut:]])
            taken += not strict
        smuggle(site, end, strict, lambda text: [text[at:at + 1] for at in range(len(text))])
        taken += not strict
    same((len(letters(site)), len(letters(site, "bob"))), (taken, begun), "letters of ann and bob")
    check(all(b"\0" not in text and b"\r" not in text.replace(b"\r\n", b"") for text in letters(site)), "lone CRs and NULs")
    canary(site)
    return site


@test("bad smtp: whatever looks like the end of a message and is none is text; lone line ends are mended and counted")
def smuggling(bench):
    site = never_smuggled(bench)
    with open(site.drop(), "rb") as file:
        check(b"\nMAIL FROM:<evil@b.example>\n" in file.read(), "the smuggled commands are text")
    counts = status(site)["smtp"]
    check(counts["lone_line_ends"] > 60 and counts["nuls"] > 3, counts)


@test("bad smtp: with bare_newline reject who sends a lone CR, LF or NUL hears so and is closed")
def smuggling_refused(bench):
    never_smuggled(bench, bare_newline="reject")


@test("bad smtp: headers without end and lines without end are refused, at their bounds, in flat memory", 120)
def headers(bench):
    site = served(bench)
    before = resident_kb(site)
    many = b"<" * 1000 + b"a@b" + b">" * 1000
    nested = b"(" * 10_000 + b")" * 10_000
    for text, answer in [
        (b"From: " + (b"a" * 70 + b",\r\n ") * 140_000 + b"\r\n", b"552 5.6.0"),
        (b"X: y\r\n" * 100_000, b"552 5.6.0"),
        (b"X" * 64_000 + b": y\r\n", b"250 2.0.0"),
        (b"X" * 70_000 + b": y\r\n", b"550 5.6.0"),
        (b"From: " + many + b"\r\nTo: " + nested + b"\r\nSender: <<<>>>\r\nCc: a:b,c;, \"\\\"\r\n", b"250 2.0.0"),
        (b"z" * 10_000_000 + b"\r\n", b"552 5.6.0"),
        (b"\r\n" + b"z" * 10_000_000 + b"\r\n", b"550 5.6.0"),
        (b"\r\n" * 100_000, b"250 2.0.0"),
    ]:
        wire = wired(site)
        wire.begin()
        wire.send(text + b"\r\nx\r\n.\r\n")
        wire.expect(answer)
        wire.cmd("NOOP", b"250")
        wire.cmd("QUIT", b"221")
    same(len(letters(site)), 3, "letters")
    for path in (many, nested, b"<<<>>>", b"a@" + b"b." * 1000 + b"example", b'"' + b"\\\"" * 200 + b'"@b.example', b"a" * 2000 + b"@b.example"):
        wire = wired(site)
        wire.send(b"MAIL FROM:" + (path if path[:1] == b"<" else b"<" + path + b">") + b"\r\n")
        check(wire.reply()[-1][:1] == b"5", path)
        wire.cmd("QUIT", b"221")
    canary(site)
    after = resident_kb(site)
    check(after < before + FLAT_KB, "memory grew from", before, "to", after, "kB")


@test("bad smtp: smtp_header_kbytes and smtp_max_size hold for what was announced and for what comes; what is beyond is not stored")
def sizes(bench):
    site = served(bench, smtp_header_kbytes=16, smtp_max_size=100)
    line = b"X-Filler: " + b"y" * 52 + b"\r\n"
    for lines, answer in ((255, b"250"), (270, b"552 5.6.0")):
        wire = wired(site)
        wire.begin()
        wire.send(b"".join(line for _ in range(lines)) + b"\r\nx\r\n.\r\n")
        wire.expect(answer)
    before = resident_kb(site)
    wire = wired(site)
    wire.cmd(f"MAIL FROM:<a@b.example> SIZE={100 * 1024 + 1}", b"552 5.3.4")
    wire.cmd("MAIL FROM:<a@b.example> SIZE=18446744073709551616", b"501 5.5.4")
    wire.cmd("MAIL FROM:<a@b.example> SIZE=10", b"250")
    wire.cmd("RCPT TO:<ann@example.test>", b"250")
    wire.cmd("DATA", b"354")
    wire.send(b"\r\n" + b"z" * 998 + b"\r\n" * 150)
    wire.send(b"".join(b"z" * 998 + b"\r\n" for _ in range(150)) + b".\r\n")
    wire.expect(b"552 5.3.4")
    # Past twice the bound and a little it is not read any more.
    wire.begin()
    try:
        for _ in range(60):
            wire.send(b"".join(b"z" * 998 + b"\r\n" for _ in range(100)))
    except OSError:
        pass
    else:
        wire.expect(b"552 5.3.4")
    wire.close()
    canary(site)
    same(len(letters(site)), 1, "letters")
    after = resident_kb(site)
    check(after < before + FLAT_KB, "memory grew from", before, "to", after, "kB")


@test("bad smtp: five thousand commands in one packet are answered in turn, and those that lead nowhere come to an end")
def packet(bench):
    site = served(bench, max_rcpts=50_000)
    before = resident_kb(site)
    wire = wired(site)
    wire.send(b"MAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<ann@example.test>\r\n" * 5_000 + b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
    wire.expect(b"250 2.1.0")
    for _ in range(5_000):
        wire.expect(b"250 2.1.5")
    wire.expect(b"354")
    wire.expect(b"250 2.0.0")
    wire.expect(b"221")
    same(len(letters(site)), 1, "letters")
    for verb, most in ((b"NOOP", 100), (b"RSET", 100), (b"EHLO x.example.org", 100), (b"HELP", 100), (b"VRFY ann", 100), (b"XYZZY", 10)):
        wire = Smtp.tcp(site.smtp_port)
        wire.send((verb + b"\r\n") * 5_000)
        said = 0
        try:
            while (line := wire.reply()[-1]) and not line.startswith(b"421 4.7.0 Too many errors"):
                said += 1
        except ConnectionError:
            pass
        check(0 < said <= most, verb, "was answered", said, "times")
        wire.close()
    canary(site)
    after = resident_kb(site)
    check(after < before + FLAT_KB, "memory grew from", before, "to", after, "kB")


@test("bad smtp: base64 of every length in AUTH is answered once, and lets nobody in")
def sasl(bench):
    site = served(bench, penalty_max_secs=0, plain_auth="always")

    def refused(wire, line):
        wire.send(line + b"\r\n")
        said = wire.reply()[-1]
        check(said[:3] in (b"501", b"500", b"535", b"334"), line[:60], said)
        if said[:3] == b"334":
            wire.cmd("*", b"501 5.7.0")
        return said

    tried = 0
    wire = wired(site, site.submission_port)
    lines = [b"A" * length for length in range(1, 402, 3)] + [b"A" * length for length in range(2, 402, 5)]
    lines += [b"A=", b"A===", b"====", b"AGFu bgBzZWNyZXQ=", b"AGFubgBzZWNyZXQ", b"AGFubgBzZWNyZXQ==", b"AG\xc3\xbc=", b"-_-_", b"="]
    lines += [base64.b64encode(text) for text in (b"", b"ann", b"\0ann", b"\0ann\0", b"\0\0secret", b"\0ann\0sec\0ret", b"\0ann\0secret\0",
                                                  b"ann\0ann\0\0secret", b"NTLMSSP\0\1\0\0\0\7\2\0\0", b"\0ann\r\n\0secret", b"\0" * 300)]
    for mechanism in (b"PLAIN", b"LOGIN"):
        for line in lines:
            # Three that are well made and wrong end a conversation.
            said = refused(wire, b"AUTH " + mechanism + b" " + line)
            tried += 1
            if said.startswith(b"535"):
                wire.close()
                wire = wired(site, site.submission_port)
    for mechanism in (b"", b"X", b"CRAM-MD5", b"NTLM TlRMTVNTUAABAAAA", b"GSSAPI", b"EXTERNAL =", b"PLAINX AGFubgBzZWNyZXQ="):
        wire.send(b"AUTH " + mechanism + b"\r\n")
        check(wire.reply()[-1][:3] in (b"501", b"504"), mechanism)
    # A response of its own: around its bound, and far beyond.
    for length in (0, 1, 400, 12_284, 12_287, 12_288, 12_289, 12_300, 100_000):
        wire.cmd("AUTH PLAIN", b"334")
        wire.send(b"A" * length + b"\r\n")
        said = wire.reply()[-1]
        check(said[:3] in (b"500", b"501", b"535"), length, said)
        check(length <= 12_286 or said.startswith(b"500 5.5.6"), length, said)
        if said.startswith(b"535"):
            wire.close()
            wire = wired(site, site.submission_port)
    wire.cmd("MAIL FROM:<ann@example.test>", b"530 5.7.0")
    wire.cmd("QUIT", b"221")
    canary(site)
    check(tried > 400, "tried")


@test("bad smtp: what would be another line, field or parameter in a file of ours is refused, and nothing of it is stored")
def injected(bench):
    site = served(bench)
    wire = Smtp.tcp(site.smtp_port)
    for name in (b"", b"a b", b"a\x01b", b"a\rb", b"a\0b", b"a\tb", b"x" * 256, b"\xff\xfe", b"<x>", b"a;b", b"(x)", b"a\x7fb", b"a,b", b'"a"'):
        wire.send(b"EHLO " + name + b"\r\n")
        check(wire.reply()[-1][:3] in (b"500", b"501"), name)
    wire.hello()
    for line in (b"MAIL FROM:<a@b.example> AUTH=x+0Ay", b"MAIL FROM:<a@b.example> AUTH=a@b+0Ac", b"MAIL FROM:<a@b.example> ENVID=x+0D+0A250",
                 b"MAIL FROM:<a@b.example> ENVID=a\xe2\x80\xa8b SMTPUTF8", b"MAIL FROM:<a\x01@b.example>", b"MAIL FROM:<a@b.example> RET=ALL",
                 b"MAIL FROM:<a@b.example> SIZE=1 SIZE=2", b"MAIL FROM:<a@b.example> BODY=9BIT", b"MAIL FROM:<a@b.example> X=y",
                 b"MAIL FROM:<\xe2\x80\xa8@b.example> SMTPUTF8", b"MAIL FROM:<a@b.example>\0", b"MAIL FROM:<a\r@b.example>",
                 b"MAIL FROM:<a@b.example> BODY=BINARYMIME", b"MAIL FROM:a@b.example junk>"):
        wire.send(line + b"\r\n")
        check(wire.reply()[-1][:3] in (b"500", b"501", b"553", b"555"), line)
    wire.cmd("MAIL FROM:<a@b.example> ENVID=fine+20one", b"250")
    for line in (b"RCPT TO:<ann@example.test> ORCPT=rfc822;a+0AX", b"RCPT TO:<ann@example.test> ORCPT=rfc822;a+00", b"RCPT TO:<ann@example.test> ORCPT=x",
                 b"RCPT TO:<ann@example.test> NOTIFY=NEVER,SUCCESS", b"RCPT TO:<ann@example.test> NOTIFY=junk",
                 b"RCPT TO:<ann@example.test> ORCPT=utf-8;a\\x{2028}b+0A", b"RCPT TO:<ann@example.test>\x0bX", b"RCPT TO:<>"):
        wire.send(line + b"\r\n")
        check(wire.reply()[-1][:3] in (b"500", b"501", b"553", b"555"), line)
    # Names that a shell, a path or an expansion would make something of are names of nobody.
    for name in (b";id>/tmp/x", b"`id`", b"$(id)", b"${run{id}}", b"|id", b"-oQ/tmp", b"../bob", b"/etc/passwd", b"ann/../bob", b"*", b"ann%00"):
        for path in (b'<"' + name + b'"@example.test>', b"<" + name + b"@example.test>"):
            wire.send(b"RCPT TO:" + path + b"\r\n")
            said = wire.reply()[-1]
            check(said[:3] in (b"550", b"501", b"553"), path, said)
    wire.cmd("QUIT", b"221")
    site.stop()
    same(letters(site), [], "letters")
    same(site.queue_files(), [], "the queue")
    site.start()
    canary(site)


@test("bad smtp: BDAT, ETRN, EXPN, XCLIENT and a proxy's first line are refused, and what follows a BDAT is never a command")
def foreign(bench):
    site = served(bench)
    for arguments in (b"", b" 0", b" 0 LAST", b" 18446744073709551615", b" -1", b" 10 LAST"):
        for begun in (False, True):
            wire = wired(site)
            if begun:
                wire.cmd("MAIL FROM:<a@b.example>", b"250")
                wire.cmd("RCPT TO:<ann@example.test>", b"250")
            wire.send(b"BDAT" + arguments + b"\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
            wire.expect(b"502 5.5.1")
            wire.ended()
    wire = wired(site)
    for line in (b"ETRN example.test", b"ETRN #" + b"x" * 2000, b'ETRN @"x', b"XCLIENT ADDR=127.0.0.1", b"XFORWARD NAME=x", b"SEND FROM:<a@b.example>",
                 b"TURN", b"EXPN staff"):
        wire.send(line + b"\r\n")
        check(wire.reply()[-1][:3] in (b"500", b"502"), line)
    wire.cmd("VRFY ann", b"252")
    wire.cmd("QUIT", b"221")
    for line in (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + b"x" * 3000, b"PROXY " + b"x" * 200):
        wire = Smtp.tcp(site.smtp_port)
        wire.send(line + b"\r\n")
        check(wire.reply()[-1][:3] in (b"500", b"501", b"502"), line)
        wire.close()
    for line in (b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"CONNECT a:25 HTTP/1.0"):
        wire = Smtp.tcp(site.smtp_port)
        wire.send(line + b"\r\nHost: x\r\nEHLO x.example.org\r\nMAIL FROM:<a@b.example>\r\n")
        wire.expect(b"554 5.5.0")
        wire.ended()
    same(len(letters(site)), 0, "letters")
    canary(site)


@test("bad smtp: who harvests names is closed, and who is asked about is not told apart by VRFY")
def harvest(bench):
    site = Site(bench, mail=True, tls=False, settings={"smtp_max_errors": 20}).start()
    found, connections = set(), 0
    names = [f"user{number}" for number in range(1000)]
    names[500] = "ann"
    while names and connections < 60:
        connections += 1
        wire = wired(site)
        wire.cmd("MAIL FROM:<a@b.example>", b"250")
        wire.send(b"".join(b"RCPT TO:<%s@example.test>\r\n" % name.encode() for name in names))
        answered = 0
        while answered < len(names) and (said := wire.reply()[-1]) and not said.startswith(b"421"):
            if said.startswith(b"250"):
                found.add(names[answered])
            else:
                check(said.startswith(b"550 5.1.1"), said)
            answered += 1
        check(answered <= 21, "names a connection:", answered)
        names = names[answered:]
        wire.close()
    check(connections >= 49, "connections that a thousand names need:", connections)
    same(found, {"ann"}, "found")
    wire = wired(site)
    same({wire.cmd(f"VRFY {name}", b"252")[-1] for name in ("ann", "bob", "nobody", "x@elsewhere.example")},
         {b"252 2.0.0 Send some mail, and see"}, "VRFY")
    canary(site)


@test("bad smtp: who goes in mid-message has sent nothing, who goes after the dot has sent it all")
def gone(bench):
    site = served(bench)
    large = b"".join(b"%07d line\r\n" % number for number in range(40_000))
    for text in (b"Subject: half\r\n\r\nx\r\n", b"Subject: half\r\n\r\n" + large, b"Subject: half\r\n\r\nx\r\n.", b"Subject: half\r\n\r\nx\r\n.\r", b""):
        for how in ("close", "reset"):
            wire = wired(site)
            wire.begin()
            wire.send(text)
            if how == "reset":
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.close()
    # The end of a connection may be seen much later than that of another.
    wait_for("all have gone", lambda: status(site)["smtp"]["servers_now"] == 0)
    same(letters(site), [], "letters of who went before the dot")
    for number, text in enumerate((b"Subject: whole\r\n\r\nx\r\n", b"Subject: whole\r\n\r\n" + large), 1):
        wire = wired(site)
        wire.begin()
        wire.send(text + b".\r\n")
        wire.close()
        wait_for("the letter", lambda number=number: len(letters(site)) == number)
    check(letters(site)[1].endswith(large), "the large one is whole")
    same(os.listdir(os.path.join(site.work, "bodies")), [], "bodies left over")
    canary(site)


@test("bad smtp: who drips a message is closed although it is never silent, and nobody waits for it; the times are settings", 120)
def slow(bench):
    site = served(bench, smtp_data_secs=10, smtp_command_secs=11, smtp_greeting_secs=10)
    begun = time.monotonic()
    fresh = Smtp.tcp(site.smtp_port)
    idle = wired(site)
    silent = wired(site)
    silent.begin()
    steady = wired(site)
    steady.begin()
    drip = wired(site)
    drip.begin()
    halted = wired(site)
    halted.send(b"MAIL FR")
    # The drip never is silent for longer than a second; the steady one sends what is asked for.
    ended = {}
    waiting = {"fresh": fresh, "idle": idle, "silent": silent, "drip": drip, "halted": halted}
    while waiting and time.monotonic() < begun + 30:
        try:
            drip.send(b"d")
        except OSError:
            pass
        steady.send(b"s" * 598 + b"\r\n")
        readable, _, _ = select.select([one.sock for one in waiting.values()], [], [], 0.5)
        for name in [name for name, one in waiting.items() if one.sock in readable]:
            one = waiting.pop(name)
            one.expect(b"421 4.4.2 Silent for too long")
            one.ended()
            ended[name] = time.monotonic() - begun
    check(not waiting, "still there:", list(waiting))
    for name, least, most in (("fresh", 10, 13), ("silent", 10, 13), ("drip", 10, 13), ("idle", 11, 14), ("halted", 11, 14)):
        check(least - 0.5 <= ended[name] <= most, name, "ended after", ended[name])
    steady.send(b".\r\n")
    steady.expect(b"250 2.0.0")
    check(b"s" * 598 in letters(site)[0], "the steady one's letter")
    same(len(letters(site)), 1, "letters")
    canary(site)


@test("bad smtp: who talks before the greeting is closed, a bit of TLS or of a command; who waits is greeted")
def early(bench):
    site = served(bench, smtp_greeting_hold_secs=1, trusted_networks="192.0.2.1")
    for talk in (b"EHLO x.example.org\r\n", b"Q", b"\r\n", b"\x16\x03\x01\x02\0\1\0"):
        sock = socket.create_connection(("127.0.0.1", site.smtp_port))
        sock.sendall(talk)
        Smtp(sock, b"554 5.5.0 You spoke before the greeting").ended()
    begun = time.monotonic()
    wire = Smtp.tcp(site.smtp_port)
    took = time.monotonic() - begun
    check(0.9 <= took < 4, "greeted after", took)
    wire.cmd("QUIT", b"221")
    begun = time.monotonic()
    for port in (site.submission_port, site.lmtp_port):
        Smtp.tcp(port).cmd("QUIT", b"221")
    check(time.monotonic() - begun < 0.9, "other ports hold nobody")
    wait_for("they are gone", lambda: status(site)["smtp"]["servers_now"] == 0)


@test("bad smtp: max_per_prefix holds on the ports for mail, and every way to leave gives the place back")
def prefix(bench):
    site = served(bench, max_per_prefix=3, trusted_networks="127.0.0.1")
    for port in (site.smtp_port, site.submission_port, site.lmtp_port):
        inside = [Smtp.tcp(port, source=STRANGER) for _ in range(3)]
        Smtp.tcp(port, greeting=b"421 4.7.0 Too many connections from your network", source=STRANGER).ended()
        # Another, and one who is trusted, come in.
        Smtp.tcp(port, source="127.0.0.10").cmd("QUIT", b"221")
        Smtp.tcp(port).cmd("QUIT", b"221")
        inside[0].cmd("QUIT", b"221")
        inside[0].ended()
        inside[1].close()
        inside[2].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        inside[2].close()

        def back(port=port):
            sock = socket.create_connection(("127.0.0.1", port), source_address=(STRANGER, 0), timeout=20)
            with sock:
                return sock.recv(100).startswith(b"220")

        for _ in range(3):
            wait_for("a place is free", back)


@test("bad smtp: while mail takes all the places it may have, readers are let in, and mail again when others leave")
def places(bench):
    site = Site(bench, mail=True, tls=False, settings={"max_connections": 24, "trusted_networks": "192.0.2.1"})
    site.fill(spool.spool(spool.plain(3)))
    site.start()
    senders = []
    # In a transaction: they are not to be replaced by whoever comes.
    for number in range(24):
        try:
            wire = Smtp.tcp(site.smtp_port, source=f"127.0.1.{number + 1}", timeout=2)
        except TimeoutError:
            break
        wire.hello()
        wire.cmd("MAIL FROM:<a@b.example>", b"250")
        senders.append(wire)
    check(12 <= len(senders) < 24, "senders that came in:", len(senders))
    readers = [site.login(timeout=10)]
    readers += [site.pop(timeout=10)]
    same(readers[0].stat()[0], 3, "letters that a reader sees")
    for pop in readers:
        pop.quit()
    # A place of theirs is another's when one leaves, and they have lost nothing.
    senders[0].cmd("QUIT", b"221")
    late = Smtp.tcp(site.smtp_port, source="127.0.2.1")
    late.hello()
    for wire in senders[1:] + [late]:
        if wire is late:
            wire.cmd("MAIL FROM:<a@b.example>", b"250")
        wire.cmd("RCPT TO:<ann@example.test>", b"250")
        wire.cmd("DATA", b"354")
        wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        wire.expect(b"250 2.0.0")
    same(len(letters(site)), 3 + len(senders), "letters")


@test("bad smtp: with all places taken, who does nothing makes room")
def crowded(bench):
    site = served(bench, max_connections=4)
    busy = wired(site, source="127.0.0.40")
    busy.cmd("MAIL FROM:<a@b.example>", b"250")
    idle = [wired(site, source=f"127.0.0.{host}") for host in (50, 51, 52)]
    newcomer = Smtp.tcp(site.smtp_port, source="127.0.0.60")
    idle[0].expect(b"421 4.3.2 All connections are taken")
    idle[0].ended()
    newcomer.hello()
    for wire in (*idle[1:], newcomer):
        wire.cmd("NOOP", b"250")
    busy.cmd("RCPT TO:<ann@example.test>", b"250")
    busy.cmd("DATA", b"354")
    busy.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
    busy.expect(b"250 2.0.0")


@test("bad smtp: commands out of order are refused one by one, and lose nothing that was begun")
def disorder(bench):
    site = served(bench)
    wire = Smtp.tcp(site.smtp_port)
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<ann@example.test>", "DATA"):
        wire.cmd(line, b"503 5.5.1")
    wire.hello()
    for line, answer in (("RCPT TO:<ann@example.test>", b"503 5.5.1"), ("DATA", b"503 5.5.1"), ("MAIL FROM:<a@b.example>", b"250"),
                         ("MAIL FROM:<c@b.example>", b"503 5.5.1"), ("DATA", b"554 5.5.1"), ("RCPT TO:<nobody@example.test>", b"550 5.1.1"),
                         ("DATA", b"554 5.5.1"), ("RCPT TO:<ann@example.test>", b"250"), ("DATA now", b"501 5.5.4"), ("QUIT now", b"501 5.5.4"),
                         ("STARTTLS", b"502 5.5.1"), ("AUTH PLAIN", b"503 5.5.1"), ("LHLO x", b"500 5.5.1"), ("data", b"354")):
        wire.cmd(line, answer)
    wire.send(b"Subject: x\r\n\r\nx\r\n.\r\nDATA\r\n")
    wire.expect(b"250 2.0.0")
    wire.expect(b"503 5.5.1")
    # EHLO and RSET forget what was begun.
    for line in ("EHLO x.example.org", "RSET"):
        wire.cmd("MAIL FROM:<a@b.example>", b"250")
        wire.cmd("RCPT TO:<ann@example.test>", b"250")
        wire.cmd(line, b"250")
        wire.cmd("DATA", b"503 5.5.1")
    # A client that does not wait for 354 is read all the same, where it has a recipient.
    wire.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: y\r\n\r\nQUIT\r\n.\r\n")
    for answer in (b"250", b"250", b"354", b"250 2.0.0"):
        wire.expect(answer)
    wire.cmd("QUIT", b"221")
    same(len(letters(site)), 2, "letters")
    same(letters(site)[0].count(b"Return-Path: <a@b.example>"), 1, "the first sender")
