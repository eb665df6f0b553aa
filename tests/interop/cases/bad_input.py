"""What strangers send: nonsense, too much, too slowly, too many of them. A canary is served all the while."""

import json
import os
import signal
import socket
import ssl
import struct
import time

from harness import spool
from harness.suite import check, need, same, test, wait_for
from harness.wire import context


def filled(bench, texts=None, **options):
    site = bench.site(**options)
    drop = site.fill(spool.spool(spool.plain(3) if texts is None else texts))
    site.fill(spool.spool(spool.plain(2)), "bob")
    site.start()
    return site, drop, spool.messages(drop)


def canary(site):
    with site.login("bob", timeout=20) as pop:
        same(pop.stat()[0], 2, "the canary's STAT")
        pop.quit()


def resident_kb(site):
    with open(f"/proc/{site.process.pid}/status", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmRSS:")).split()[1])


def cpu(site):
    with open(f"/proc/{site.process.pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sessions(site):
    return json.loads(site.tell("status", "--json").stdout)["sessions"]["now"]


NONSENSE = [b"", b":", b" ", b"\t", b"\r", b"\0", b"XYZZY", b"STAT\0", b" STAT", b"STAT x", b"\xc3\xbc", b"\xff\xfe\xfd", b"RETR",
            b"RETR ", b"RETR x", b"RETR 1 2", b"RETR -1", b"RETR +1", b"RETR 0x1", b"RETR 1.0", b"RETR 4294967297",
            b"RETR 18446744073709551617", b"RETR 0", b"RETR 99", b"TOP 1", b"TOP 1 -1", b"TOP 1 99999999999999999999999", b"TOP", b"TOP 1 x",
            b"LIST 0", b"LIST -1", b"LIST x", b"LIST 4294967297", b"UIDL 0", b"UIDL x", b"DELE", b"DELE 0", b"DELE 4294967297", b"DELE -1",
            b"MDEF a(b)", b"XTND XMIT", b"%n%n%s", b"CAPA x", b"QUIT now", b"NOOP x", b"RSET x"]


@test("bad input: one -ERR for each bad line, and the session lives")
def nonsense(bench):
    site, drop, wanted = filled(bench)
    for logged_in in (False, True):
        for tls in (None, "tls"):
            pop = site.login(tls=tls) if logged_in else site.pop(tls)
            for line in NONSENSE:
                reply = pop.cmd(line)
                check(reply.startswith(b"-ERR"), line, "was answered", reply)
                check(len(reply) < 120, "a long answer to", line, reply)
                pop.ok("NOOP")
            if logged_in:
                same(pop.everything(), wanted, "messages after nonsense")
            pop.quit()
    # 2**32 + 1 is not 1: nothing was deleted, nothing sent.
    same(spool.messages(drop), wanted, "the drop")
    site.alive()


@test("bad input: nonsense without end is closed")
def closed(bench):
    site, _, _ = filled(bench)
    for logged_in in (False, True):
        pop = site.login() if logged_in else site.pop()
        pop.send(b"XYZZY\r\n" * 1000)
        said = pop.rest()
        errors = said.count(b"\r\n")
        check(3 <= errors <= 50, "lines of nonsense answered before the end:", errors)
        check(all(line.startswith(b"-ERR") for line in said.split(b"\r\n")[:-1]), said[:300])
        pop.close()
    canary(site)


@test("bad input: lines that are too long are one -ERR each, in flat memory")
def long_lines(bench):
    site, _, wanted = filled(bench)
    canary(site)
    before = resident_kb(site)
    for logged_in in (False, True):
        for word in (b"", b"USER ", b"PASS ", b"STAT ", b"RETR ", b"AUTH PLAIN ", b"TOP 1 "):
            pop = site.login() if logged_in else site.pop()
            for size in (256, 512, 1024, 4096, 65_536, 1_000_000):
                line = word + b"A" * (size - len(word) - 2)
                reply = pop.cmd(line)
                check(reply.startswith(b"-ERR") or (word == b"USER " and size <= 256 and reply.startswith(b"+OK")), word, size, reply)
                pop.ok("NOOP")
            pop.quit()
    # The longest line there may be.
    pop = site.pop()
    check(pop.cmd(b"USER " + b"u" * 248).startswith(b"+OK"), "a line of 255 octets")
    pop.err(b"USER " + b"u" * 249)
    pop.login()
    same(pop.everything(), wanted, "messages")
    pop.quit()
    after = resident_kb(site)
    check(after < before + 6_000, "memory grew from", before, "to", after, "kB")


@test("bad input: a line without end costs neither memory nor CPU for ever")
def endless(bench):
    site, _, _ = filled(bench)
    canary(site)
    before = resident_kb(site)
    pop = site.pop(timeout=5)
    sent = 0
    try:
        for _ in range(600):
            pop.send(b"A" * 100_000)
            sent += 100_000
    except (OSError, ConnectionError):
        pass
    after = resident_kb(site)
    check(after < before + 6_000, "memory grew from", before, "to", after, "kB after", sent, "bytes")
    canary(site)
    pop.close()


@test("bad input: what was sent in clear behind STLS is not obeyed")
def injected(bench):
    site, _, wanted = filled(bench)
    for tail in (b"USER ann\r\nPASS secret\r\n", b"NOOP\r\n", b"CAPA\r\nQUIT\r\n", b"STLS\r\n", b"x"):
        pop = site.pop()
        pop.send(b"STLS\r\n" + tail)
        check(pop.line().startswith(b"+OK"), "STLS")
        # Either the tail is forgotten or the handshake fails; never is it obeyed.
        wrap = pop.socket
        try:
            pop.socket = context(site.cert).wrap_socket(wrap, server_hostname="localhost")
        except (ssl.SSLError, OSError):
            pop.close()
            continue
        pop.send(b"STAT\r\n")
        reply = pop.line()
        check(reply.startswith(b"-ERR"), "STAT after injected", tail, "was answered", reply)
        pop.login()
        same(pop.stat()[0], len(wanted), "STAT")
        pop.quit()
    # USER said before is forgotten, too.
    pop = site.pop()
    pop.ok("USER ann")
    pop.stls()
    pop.err("PASS secret")
    pop.quit()
    canary(site)


@test("bad input: other protocols on our ports are turned away")
def foreign_protocols(bench):
    site, _, _ = filled(bench)
    for port in (site.port, site.tls_port):
        for hello in (b"GET / HTTP/1.1\r\nHost: x\r\nUSER ann\r\nPASS secret\r\n\r\n", b"POST / HTTP/1.0\r\n\r\nUSER ann\r\n", b"EHLO x\r\n",
                      b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", b"\x16\x03\x00\x00\x02xx", b"SSH-2.0-x\r\n" * 20, b"\0" * 500):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
                one.sendall(hello)
                one.shutdown(socket.SHUT_WR)
                said = b""
                try:
                    while data := one.recv(65536):
                        said += data
                except ConnectionError:
                    pass
                except TimeoutError:
                    check(False, f"{hello!r} and the end on port {'tls' if port == site.tls_port else 'plain'}: still open after 10 s")
                check(b"+OK Password" not in said and said.count(b"+OK") <= 1, hello, "was answered", said)
    canary(site)
    # Old TLS is refused.
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        try:
            old.minimum_version, old.maximum_version = version, version
        except ValueError:
            continue
        with socket.create_connection(("127.0.0.1", site.tls_port), timeout=20) as one:
            try:
                old.wrap_socket(one)
            except (ssl.SSLError, OSError):
                continue
            check(False, "the server speaks", version)


@test("bad input: bytes that drip are no command and do not stop anybody")
def drip(bench):
    site, _, _ = filled(bench)
    slow = [site.pop() for _ in range(20)]
    for byte in b"USER ann":
        for pop in slow:
            pop.send(bytes([byte]))
        canary(site)
    used = cpu(site)
    for pop in slow:
        pop.send(b"\r\n")
        check(pop.line().startswith(b"+OK"), "USER")
        pop.close()
    check(cpu(site) - used < 2, "CPU")
    canary(site)


@test("bad input: the time to log in is not lengthened by bytes, nor by not reading any", 60)
def login_time(bench):
    site, _, _ = filled(bench, settings={"pop3_login_secs": 30})
    pop = site.pop(timeout=50)
    silent = site.pop(timeout=50)
    handshake = socket.create_connection(("127.0.0.1", site.tls_port), timeout=50)
    handshake.sendall(b"\x16\x03\x01\x02\x00\x01")
    unread = site.pop(receive_buffer=4096)
    unread.send(b"CAPA\r\n" * 4000)
    began = time.monotonic()
    ended = None
    while time.monotonic() - began < 45:
        try:
            pop.send(b"NOOP\r\n")
            pop.line()
        except (EOFError, OSError):
            ended = time.monotonic() - began
            break
        time.sleep(0.5)
    check(ended and 25 < ended < 42, "a client that only says NOOP was closed after", ended)
    silent.rest()
    handshake.settimeout(10)
    try:
        while handshake.recv(1000):
            pass
    except ConnectionError:
        pass
    # Also who is owed more than he takes, which has a longer patience of its own for those who are logged in.
    wait_for("the client that reads nothing is gone", lambda: sessions(site) == 0, 10)
    check(time.monotonic() - began < 45, "silent clients were closed after", time.monotonic() - began)
    canary(site)


@test("bad input: a slow reader of ten megabytes beside a quick client")
def slow_reader(bench):
    site, _, wanted = filled(bench, spool.big())
    for tls in (None, "tls"):
        canary(site)
        before = resident_kb(site)
        slow = site.login(tls=tls, receive_buffer=4096)
        slow.send("RETR 2\r\n")
        check(slow.line().startswith(b"+OK"), "RETR")
        for _ in range(50):
            canary(site)
            if len(slow.buffer) < 1000:
                slow.more()
        after = resident_kb(site)
        check(after < before + 4_000, "memory grew from", before, "to", after, "kB")
        used = cpu(site)
        time.sleep(0.3)
        check(cpu(site) - used < 0.15, "the server spins while a client does not read")
        same(slow.body(), wanted[1], "the slow reader's message")
        slow.quit()


@test("bad input: pipelining without reading stops at a bound and goes on", 120)
def never_reading(bench):
    site, _, wanted = filled(bench, spool.big())
    canary(site)
    before = resident_kb(site)
    pop = site.login(receive_buffer=4096, timeout=60)
    commands = b"NOOP\r\n" * 20_000 + b"RETR 1\r\n" * 3 + b"NOOP\r\n" * 10 + b"QUIT\r\n"
    pop.socket.setblocking(False)
    sent = 0
    quiet = time.monotonic()
    while sent < len(commands) and time.monotonic() - quiet < 1:
        try:
            sent += pop.socket.send(commands[sent : sent + 65536])
            quiet = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    canary(site)
    after = resident_kb(site)
    check(after < before + 4_000, "memory grew from", before, "to", after, "kB")
    import threading

    pop.socket.settimeout(60)
    rest = threading.Thread(target=lambda: pop.socket.sendall(commands[sent:]), daemon=True)
    rest.start()
    for _ in range(20_000):
        check(pop.line().startswith(b"+OK"), "NOOP")
    for _ in range(3):
        check(pop.line().startswith(b"+OK"), "RETR")
        same(pop.body(), wanted[0], "RETR 1")
    for _ in range(11):
        check(pop.line().startswith(b"+OK"), "NOOP or QUIT")
    pop.eof()


@test("bad input: connections that go away without a word leave nothing behind")
def gone(bench):
    site, _, _ = filled(bench)
    canary(site)

    def tcp(port, text=b"", reset=False):
        one = socket.create_connection(("127.0.0.1", port), timeout=20)
        one.sendall(text)
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()

    for name, go in {
        "closed before the greeting was read": lambda: tcp(site.port),
        "reset": lambda: tcp(site.port, b"USER ann\r\n", True),
        "closed in a command": lambda: tcp(site.port, b"USE"),
        "closed after a password": lambda: tcp(site.port, b"USER ann\r\nPASS secret\r\n"),
        "reset after a password": lambda: tcp(site.port, b"USER ann\r\nPASS secret\r\n", True),
        "closed after STLS": lambda: tcp(site.port, b"STLS\r\n"),
        "closed on the TLS port before a word": lambda: tcp(site.tls_port),
        "reset on the TLS port before a word": lambda: tcp(site.tls_port, b"", True),
        "closed in the handshake": lambda: tcp(site.tls_port, b"\x16\x03\x01\x02\x00\x01\x00"),
    }.items():
        for _ in range(5):
            go()
        wait_for(f"connections {name} are gone", lambda: sessions(site) == 0, 5)
    # A close_notify is missing: still an end.
    site.login(tls="tls").close()
    site.retry_login().quit()
    wait_for("all are gone", lambda: sessions(site) == 0, 5)
    began = time.monotonic()
    same(site.stop(), 0, "exit code")
    check(time.monotonic() - began < 5, "the stop of an idle server took", time.monotonic() - began, "s")


@test("bad input: half-closed connections are answered to the end")
def half_closed(bench):
    site, _, wanted = filled(bench)
    pop = site.pop()
    pop.send(b"USER ann\r\nPASS secret\r\nRETR 2\r\nQUIT\r\n")
    pop.socket.shutdown(socket.SHUT_WR)
    for _ in range(3):
        check(pop.line().startswith(b"+OK"), "replies after a half-close")
    same(pop.body(), wanted[1], "RETR 2 after a half-close")
    check(pop.line().startswith(b"+OK"), "QUIT after a half-close")
    pop.eof()


@test("bad input: out of descriptors it does not spin, and recovers", 120)
def descriptors(bench):
    need("prlimit")
    site = bench.site()
    site.fill(spool.spool(spool.plain(2)), "bob")
    limit = 160
    site.start(wrap=("prlimit", f"--nofile={limit}:{limit}"))
    canary(site)
    crowd = []
    for _ in range(limit + 100):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", site.port))
        crowd.append(one)
    time.sleep(0.5)
    used = cpu(site)
    time.sleep(2)
    used = cpu(site) - used
    check(used < 0.4, "while it is full the server used", used, "s of CPU in two seconds")
    site.alive()
    # Status goes on: its descriptor is in the reserve.
    check(site.tell("status", "--json").returncode == 0, "tellpop status while the server is full")
    for one in crowd:
        one.close()

    def works():
        try:
            canary(site)
            return True
        except (OSError, EOFError):
            return False

    wait_for("it serves again", works, 20)
    wait_for("the crowd is gone", lambda: sessions(site) == 0, 20)
    open_now = len(os.listdir(f"/proc/{site.process.pid}/fd"))
    check(open_now < 40, "descriptors are left:", open_now)


@test("bad input: strangers who ask and do not read cost little memory each")
def unread(bench):
    site, _, _ = filled(bench)
    site.login().quit()
    before = resident_kb(site)
    strangers = [site.pop(receive_buffer=4096) for _ in range(200)]
    for pop in strangers:
        pop.send(b"CAPA\r\n" * 2000)
    canary(site)
    # Each has its slot, what it is owed, and what of its commands has been read: not 64 KB.
    wait_for("they are all stuck", site.is_quiet)
    grown = (resident_kb(site) - before) / len(strangers)
    check(grown < 40, "kilobytes a stranger:", grown)
    for pop in strangers:
        pop.close()


@test("bad input: a crowd that asks for passwords does not hold up who is logged in")
def crowd(bench):
    site, _, wanted = filled(bench)
    inside = site.login()
    crowd = [site.pop() for _ in range(60)]
    for pop in crowd:
        pop.send(b"USER ann\r\nPASS wrong\r\n")
    for _ in range(5):
        same(inside.everything(), wanted, "messages beside the crowd")
    for pop in crowd:
        check(pop.line().startswith(b"+OK"), "USER")
        reply = pop.line()
        check(reply.startswith((b"-ERR [AUTH]", b"-ERR [SYS/TEMP]")), "PASS wrong was answered", reply)
        pop.close()
    inside.quit()


@test("bad input: SIGSTOP and SIGCONT, and nothing happened")
def stopped(bench):
    site, _, wanted = filled(bench)
    pop = site.login()
    os.kill(site.process.pid, signal.SIGSTOP)
    pop.send(b"STAT\r\n")
    late = socket.create_connection(("127.0.0.1", site.port), timeout=20)
    time.sleep(0.3)
    os.kill(site.process.pid, signal.SIGCONT)
    check(pop.line().startswith(b"+OK 3 "), "STAT")
    same(pop.everything(), wanted, "messages")
    pop.quit()
    check(late.recv(100).startswith(b"+OK"), "a greeting for who came meanwhile")
    late.close()


@test("bad input: no password is in the log, and nothing in it is a second line")
def log(bench):
    site, _, _ = filled(bench)
    import base64

    for user, password in (("ann", "hunter2-wrong"), ("a\x1b[31mb", "hunter2-esc"), ("x%n%s", "hunter2-fmt")):
        with site.pop() as pop:
            pop.cmd(f"USER {user}")
            pop.cmd(f"PASS {password}")
            pop.cmd(f"hunter2-verb {password}")
            pop.cmd("AUTH PLAIN " + base64.b64encode(b"\0" + user.encode() + b"\0" + password.encode()).decode())
    site.login().quit()
    text = wait_for("the last session is in the log", lambda: " ann 127.0.0.1 plain: 0 messages" in site.log() and site.log())
    for secret in ("hunter2", "secret", base64.b64encode(b"\0ann\0hunter2-wrong").decode()):
        check(secret not in text.replace(site.folder, ""), "the log holds", secret)
    check("\x1b" not in text, "an escape in the log")
