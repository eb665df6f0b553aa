"""Every verb of POP3, in every state, byte by byte over a plain socket, and as poplib uses them."""

import base64
import os
import poplib
import re
import shutil
import ssl

from harness import spool
from harness.suite import check, same, test, wait_for

MODES = (None, "stls", "tls")


def filled(bench, texts=None, **options):
    site = bench.site(**options)
    drop = site.fill(spool.spool(spool.plain(5) if texts is None else texts))
    site.start()
    return site, drop, spool.messages(drop)


def b64(text):
    return base64.b64encode(text).decode()


def capabilities(pop):
    return {row.split()[0].decode(): row.decode() for row in pop.multi("CAPA")}


@test("verbs: STAT LIST UIDL RETR TOP agree about every message", twin=True)
def agree(bench):
    site, _, wanted = filled(bench, spool.nasty() + spool.dots(spread=1))
    for tls in MODES:
        pop = site.login(tls=tls)
        sizes = {n: len(text) for n, text in enumerate(wanted, 1)}
        same(pop.stat(), (len(wanted), sum(sizes.values())), "STAT")
        same(pop.list(), sizes, "LIST")
        uids = pop.uidl()
        check(len(set(uids.values())) == len(wanted) and sorted(uids) == sorted(sizes), "UIDs are all different")
        for uid in uids.values():
            check(re.fullmatch(rb"[!-~]{1,70}", uid), "RFC 1939 does not allow the UID", uid)
        for number, text in enumerate(wanted, 1):
            body, claimed = pop.fetch(f"RETR {number}")
            same(body, text, f"RETR {number}")
            check(claimed in (None, len(text)), "RETR says", claimed, "octets and sends", len(text))
            same(pop.cmd(f"LIST {number}").split()[1:3], [b"%d" % number, b"%d" % len(text)], "LIST n")
            same(pop.cmd(f"UIDL {number}").split()[1:3], [b"%d" % number, uids[number]], "UIDL n")
        pop.quit()


def topped(text, lines):
    head, blank, body = text.partition(b"\r\n\r\n")
    return head + blank + b"".join(line + b"\r\n" for line in body.split(b"\r\n")[:-1][:lines])


@test("verbs: TOP gives the header and so many lines")
def top(bench):
    site, _, wanted = filled(bench, spool.nasty())
    pop = site.login()
    for number, text in enumerate(wanted, 1):
        for lines in (0, 1, 2, 5, 1_000_000_000, 2**64 - 1):
            body, _ = pop.fetch(f"TOP {number} {lines}")
            same(body, topped(text, lines), f"TOP {number} {lines}")
    pop.quit()


@test("verbs: wild and big messages arrive whole on every kind of connection", 120)
def wild(bench):
    site, _, wanted = filled(bench, spool.wild() + spool.big() + spool.wild())
    for tls in MODES:
        pop = site.login(tls=tls)
        for number, (text, octets) in enumerate(zip(wanted, pop.list().values()), 1):
            same(pop.retr(number), text, f"RETR {number}")
            same(octets, len(text), f"LIST of {number}")
        pop.quit()


@test("verbs: spools that end in unusual places")
def ends(bench):
    spools = spool.bare_ends()
    users = {f"user{n}": "secret" for n in range(2 * len(spools))}
    site = bench.site(users=users)
    plans = [(name, content) for name, content in spools.items()]
    plans += [(f"{name}, CRLF", spool.crlf(content)) for name, content in spools.items()]
    for user, (_, content) in zip(users, plans):
        site.fill(content, user)
    site.start()
    for user, (name, content) in zip(users, plans):
        wanted = spool.messages(site.drop(user))
        pop = site.login(user)
        found = pop.everything()
        same(len(found), len(wanted), f"messages of a spool that ends in {name}")
        for one, other, octets in zip(found, wanted, pop.list().values()):
            same(one, other, f"a spool that ends in {name}")
            same(octets, len(other), f"LIST for a spool that ends in {name}")
        # The ends survive a deletion of all that is before them, too.
        pop.quit()
        same(open(site.drop(user), "rb").read(), content, f"{name}: the drop after reading")


@test("verbs: every edge of the buffers, in octets and in bytes", 120)
def edges(bench):
    texts = spool.dots(edges=(1024, 4096, 8192, 16384, 32768, 65536, 131072), spread=3)
    texts += spool.dots(edges=(16384, 32768, 65536), spread=3, width=100_000)
    for content in (spool.spool(texts), spool.crlf(spool.spool(texts))):
        site = bench.site(name=f"site{len(bench.sites)}")
        drop = site.fill(content)
        site.start()
        wanted = spool.messages(drop)
        pop = site.login()
        # All in one write: the replies cross every buffer at ever new places.
        pop.send("".join(f"RETR {n}\r\n" for n in range(1, len(wanted) + 1)))
        for number, text in enumerate(wanted, 1):
            check(pop.line().startswith(b"+OK"), "RETR", number)
            same(pop.body(), text, f"RETR {number}")
        pop.quit()


@test("verbs: CAPA says what holds in each state")
def capa(bench):
    site, _, _ = filled(bench)
    pop = site.pop()
    before = capabilities(pop)
    for name in ("TOP", "UIDL", "USER", "SASL", "STLS", "PIPELINING", "RESP-CODES"):
        check(name in before, "before login, in clear, CAPA lacks", name, before)
    check({"PLAIN", "LOGIN"} <= set(before["SASL"].split()[1:]), before["SASL"])
    pop.stls()
    under = capabilities(pop)
    check("STLS" not in under and "USER" in under, "under TLS:", under)
    pop.login()
    after = capabilities(pop)
    check("STLS" not in after and "TOP" in after and "UIDL" in after, "after login:", after)
    pop.quit()
    pop = site.pop("tls")
    check("STLS" not in capabilities(pop), "STLS offered on the TLS port")
    pop.err("STLS")
    pop.quit()
    bare = bench.site(tls=False, name="bare").start()
    with bare.pop() as pop:
        check("STLS" not in capabilities(pop), "STLS offered without a certificate")
        pop.err("STLS")
        pop.login()
        pop.quit()


@test("verbs: without TLS no password is taken where plain_auth is never")
def never(bench):
    site, _, wanted = filled(bench, settings={"plain_auth": "never"})
    pop = site.pop()
    said = capabilities(pop)
    # SCRAM sends no password.
    check("USER" not in said and "STLS" in said and said.get("SASL", "SASL SCRAM-SHA-256") == "SASL SCRAM-SHA-256",
          "offered:", said)
    for command in ("USER ann", "PASS secret", "AUTH PLAIN " + b64(b"\0ann\0secret"), "AUTH PLAIN", "AUTH LOGIN"):
        pop.err(command)
    pop.stls()
    pop.login()
    same(pop.stat()[0], len(wanted), "STAT")
    pop.quit()


@test("verbs: a verb of another state does nothing")
def states(bench):
    site, drop, wanted = filled(bench)
    before = open(drop, "rb").read()
    pop = site.pop()
    for command in ("STAT", "LIST", "UIDL", "RETR 1", "TOP 1 1", "DELE 1", "RSET", "LAST"):
        pop.err(command)
    pop.quit()
    pop = site.pop()
    pop.err("PASS secret")
    pop.ok("USER bob")
    pop.ok("USER ann")
    pop.ok("PASS secret")
    for command in ("USER bob", "PASS geheim", "AUTH PLAIN " + b64(b"\0bob\0geheim"), "STLS", "AUTH"):
        pop.err(command)
    same(pop.stat()[0], len(wanted), "still ann's mailbox")
    pop.quit()
    # AUTH forgets USER.
    pop = site.pop()
    pop.ok("USER ann")
    check(pop.cmd("AUTH PLAIN").startswith(b"+"), "no continuation")
    pop.err("*")
    pop.err("PASS secret")
    # QUIT in an exchange is no QUIT but a response, and a wrong one.
    check(pop.cmd("AUTH PLAIN").startswith(b"+ "), "no continuation")
    pop.err("QUIT")
    pop.ok("NOOP")
    pop.quit()
    same(open(drop, "rb").read(), before, "the drop file")


@test("verbs: AUTH PLAIN and LOGIN, with and without an initial response, cancelled, and wrong")
def auth(bench):
    site, _, wanted = filled(bench)
    good = b64(b"\0ann\0secret")

    def logged_in(pop):
        same(pop.stat()[0], len(wanted), "STAT")
        pop.quit()

    for tls in MODES:
        pop = site.pop(tls)
        pop.ok(f"AUTH PLAIN {good}")
        logged_in(pop)
        pop = site.pop(tls)
        same(pop.cmd("auth plain"), b"+ ", "the continuation is empty")
        pop.ok(good)
        logged_in(pop)
        pop = site.pop(tls)
        same(base64.b64decode(pop.cmd("AUTH LOGIN")[2:]), b"Username:", "AUTH LOGIN")
        same(base64.b64decode(pop.cmd(b64(b"ann"))[2:]), b"Password:", "AUTH LOGIN")
        pop.ok(b64(b"secret"))
        logged_in(pop)
        pop = site.pop(tls)
        same(base64.b64decode(pop.cmd("AUTH LOGIN " + b64(b"ann"))[2:]), b"Password:", "AUTH LOGIN with a name")
        pop.ok(b64(b"secret"))
        logged_in(pop)
    pop = site.pop()
    pop.ok("AUTH PLAIN " + b64(b"ann\0ann\0secret"))
    logged_in(pop)
    # Each of these leaves the client free to try again.
    for exchange in (["AUTH PLAIN", "*"], ["AUTH LOGIN", "*"], ["AUTH LOGIN", b64(b"ann"), "*"], ["AUTH PLAIN", "!!!"],
                     ["AUTH PLAIN", ""], ["AUTH PLAIN ="], ["AUTH PLAIN " + b64(b"ann")], ["AUTH NONSENSE"],
                     ["AUTH PLAIN " + b64(b"bob\0ann\0secret")], ["AUTH PLAIN " + b64(b"\0\0secret")],
                     ["AUTH PLAIN " + b64(b"\0ann\0secret\0x")], ["AUTH PLAIN " + good[:-1]], ["AUTH PLAIN", "=" * 12000],
                     ["AUTH PLAIN", "A" * 12287]):
        pop = site.pop()
        for step in exchange[:-1]:
            check(pop.cmd(step).startswith(b"+ "), step)
        reply = pop.cmd(exchange[-1])
        check(reply.startswith(b"-ERR"), exchange[-1][:60], "was answered", reply)
        pop.login()
        logged_in(pop)
    # A response that is too long is one bad line.
    pop = site.pop()
    check(pop.cmd("AUTH PLAIN").startswith(b"+ "), "continuation")
    pop.err("A" * 20000)
    pop.login()
    logged_in(pop)


@test("verbs: a wrong password is told as one, and the third ends the connection")
def denied(bench):
    site, _, wanted = filled(bench)
    pop = site.pop()
    pop.ok("USER ann")
    wrong = pop.err("PASS Secret", "AUTH")
    pop.ok("USER nobody")
    same(pop.err("PASS secret", "AUTH"), wrong, "an unknown user is told the same as a wrong password")
    pop.login()
    same(pop.stat()[0], len(wanted), "STAT")
    pop.quit()
    pop = site.pop()
    for _ in range(3):
        pop.ok("USER ann")
        pop.err("PASS wrong", "AUTH")
    pop.eof()
    for name, password in (("ann", "secret "), ("ann", " secret"), ("ann", ""), ("ann\tx", "secret"), ("../ann", "secret"),
                           ("drop/ann", "secret"), (".ann", "secret"), ("ann.lock", "secret"), ("a" * 200, "secret")):
        with site.pop() as pop:
            if pop.cmd(f"USER {name}").startswith(b"+OK"):
                check(pop.cmd(f"PASS {password}").startswith(b"-ERR"), "logged in:", name, password)
    for name in ("ANN", "Ann", "ann@example.test", "ANN@EXAMPLE.TEST"):
        with site.pop() as pop:
            pop.login(name)
            same(pop.stat()[0], len(wanted), f"the mailbox of {name}")
            pop.quit()


@test("verbs: DELE marks, RSET unmarks, QUIT deletes, anything else does not")
def dele(bench):
    site, drop, wanted = filled(bench, settings={"bin_pfull": 1})
    before, status = open(drop, "rb").read(), os.stat(drop)
    pop = site.login()
    uids = pop.uidl()
    pop.ok("DELE 2")
    pop.err("DELE 2")
    for command in ("RETR 2", "TOP 2 0", "LIST 2", "UIDL 2"):
        pop.err(command)
    same(sorted(pop.list()), [1, 3, 4, 5], "LIST without 2")
    same(pop.uidl(), {n: uid for n, uid in uids.items() if n != 2}, "UIDL without 2")
    same(pop.stat(), (4, sum(len(text) for n, text in enumerate(wanted, 1) if n != 2)), "STAT without 2")
    pop.ok("RSET")
    same(pop.uidl(), uids, "UIDL after RSET")
    pop.ok("DELE 1")
    pop.reset()
    pop = site.retry_login()
    same(pop.uidl(), uids, "after a reset connection")
    pop.ok("DELE 1")
    pop.close()
    pop = site.retry_login()
    same(pop.uidl(), uids, "after a connection closed without QUIT")
    pop.ok("DELE 2")
    pop.ok("DELE 5")
    pop.quit()
    left = [wanted[0], wanted[2], wanted[3]]
    wait_for("the drop is compacted", lambda: spool.messages(drop) == left)
    check(all(text in before for _, text in spool.raw_messages(drop)), "stored bytes are as they were")
    now = os.stat(drop)
    same((now.st_ino, now.st_uid, now.st_gid, now.st_mode), (status.st_ino, status.st_uid, status.st_gid, status.st_mode),
         "inode, owner and mode")
    pop = site.retry_login()
    same(list(pop.uidl().values()), [uids[1], uids[3], uids[4]], "UIDs of survivors")
    same(pop.everything(), left, "survivors")
    for number in pop.list():
        pop.ok(f"DELE {number}")
    pop.quit()
    wait_for("the drop is empty", lambda: os.path.getsize(drop) == 0)
    same(os.stat(drop).st_ino, status.st_ino, "inode of an emptied drop")
    pop = site.retry_login()
    same(pop.stat(), (0, 0), "STAT of an emptied drop")
    same(pop.list(), {}, "LIST of an emptied drop")
    same(pop.uidl(), {}, "UIDL of an emptied drop")
    pop.quit()


@test("verbs: identical messages have UIDs of their own, that stay when one of them goes")
def twins(bench):
    texts = [spool.mail("same", b"alike\n")] * 5 + [spool.mail("other")]
    site, drop, _ = filled(bench, texts, settings={"bin_pfull": 1})
    pop = site.login()
    uids = pop.uidl()
    check(len(set(uids.values())) == 6, "UIDs:", uids)
    pop.ok("DELE 2")
    pop.ok("DELE 4")
    pop.quit()
    wait_for("the drop is compacted", lambda: len(spool.messages(drop)) == 4)
    pop = site.retry_login()
    same(list(pop.uidl().values()), [uids[1], uids[3], uids[5], uids[6]], "UIDs of the survivors")
    pop.quit()
    # A new twin must not be given the UID of a dead one: the client would take it for read.
    spool.append(drop, spool.entry(texts[0], 30))
    pop = site.retry_login()
    now = list(pop.uidl().values())
    same(now[:4], [uids[1], uids[3], uids[5], uids[6]], "UIDs of the survivors after a new twin")
    check(now[4] not in uids.values(), "the new twin has the UID of a dead one:", now[4])
    pop.quit()
    site.stop()
    site.start()
    pop = site.login()
    same(list(pop.uidl().values()), now, "UIDs after a restart")
    pop.quit()


@test("verbs: an absent drop is an empty mailbox, and stays absent")
def absent(bench):
    site = bench.site().start()
    pop = site.login("bob")
    same(pop.stat(), (0, 0), "STAT")
    same(pop.list(), {}, "LIST")
    pop.err("RETR 1")
    pop.quit()
    spool.append(site.drop("bob"), spool.spool(spool.plain(2)))
    pop = site.retry_login("bob")
    same(pop.everything(), spool.messages(site.drop("bob")), "mail that came later")
    pop.quit()


@test("verbs: a second session waits its turn")
def in_use(bench):
    site, _, wanted = filled(bench)
    first = site.login()
    first.ok("DELE 1")
    with site.pop() as second:
        second.ok("USER ann")
        second.err("PASS secret", "IN-USE")
        with site.login("bob") as other:
            other.quit()
        first.quit()
    pop = site.retry_login()
    same(pop.stat()[0], len(wanted) - 1, "STAT after the first session's QUIT")
    pop.quit()


@test("verbs: UIDs stay the same over restarts, notes of other programs and a lost index")
def stable(bench):
    site, drop, wanted = filled(bench, spool.nasty())
    pop = site.login()
    uids = pop.uidl()
    pop.quit()
    site.stop()
    content = open(drop, "rb").read()
    noted = re.sub(rb"(?m)^Message-ID:", b"Status: RO\nX-Status: F\nX-Keywords: todo\nMessage-ID:", content)
    with open(drop, "r+b") as file:
        file.write(noted)
        file.truncate()
    site.start()
    pop = site.login()
    same(pop.uidl(), uids, "UIDs after another program noted what was read")
    same(pop.everything(), spool.messages(drop), "messages after that")
    pop.quit()
    site.stop()
    # The whole bin away: nothing was deleted, so nothing but occurrences could be lost, and those follow the order.
    for name in os.listdir(site.spool):
        path = os.path.join(site.spool, name)
        if name != "ann":
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    site.start()
    pop = site.login()
    same(pop.uidl(), uids, "UIDs after the bin was lost")
    pop.quit()


@test("verbs: pipelining: everything in one write, before and after login")
def pipelining(bench):
    site, drop, wanted = filled(bench, spool.plain(40), settings={"bin_pfull": 1})
    pop = site.pop()
    count = len(wanted)
    batch = ["CAPA", "USER ann", "PASS secret", "STAT", "UIDL", "LIST"] + [f"RETR {n}" for n in range(1, count + 1)]
    batch += [f"DELE {n}" for n in range(1, 11)] + ["RETR 1", "NOOP", "QUIT"]
    pop.send("".join(one + "\r\n" for one in batch))
    marked = False
    for command in batch:
        reply = pop.line()
        marked |= command == "DELE 1"
        wrong = command == "RETR 1" and marked
        check(reply.startswith(b"-ERR" if wrong else b"+OK"), command, reply)
        if command in ("CAPA", "UIDL", "LIST"):
            pop.body()
        elif command.startswith("RETR") and not wrong:
            same(pop.body(), wanted[int(command[5:]) - 1], command)
    pop.eof()
    wait_for("ten are gone", lambda: spool.messages(drop) == wanted[10:])
    # One byte at a time is the same conversation.
    pop = site.retry_login()
    for byte in b"NOOP\r\nSTAT\r\n":
        pop.send(bytes([byte]))
    pop.line()
    check(pop.line().startswith(b"+OK 30 "), "STAT byte by byte")
    # LF alone ends a line too, and verbs may be in any case.
    pop.send(b"noop\nStAt\n")
    pop.line()
    check(pop.line().startswith(b"+OK 30 "), "STAT with LF")
    pop.quit()


@test("verbs: poplib's every method", twin=True)
def with_poplib(bench):
    site, drop, wanted = filled(bench)
    for tls in MODES:
        trust = ssl.create_default_context(cafile=site.cert)
        pop = (poplib.POP3_SSL("localhost", site.tls_port, context=trust, timeout=30) if tls == "tls"
               else poplib.POP3("localhost", site.port, timeout=30))
        pop.capa()
        if tls == "stls":
            check(pop.stls(trust).startswith(b"+OK"), "stls")
        check("UIDL" in pop.capa() and "STLS" not in (pop.capa() if tls else {}), pop.capa())
        pop.user("ann")
        pop.pass_("secret")
        same(pop.stat(), (5, sum(map(len, wanted))), "stat")
        same([row.split()[1] for row in pop.list()[1]], [b"%d" % len(text) for text in wanted], "list")
        check(pop.list(2).endswith(b"2 %d" % len(wanted[1])), "list 2")
        ids = [row.split()[1] for row in pop.uidl()[1]]
        check(pop.uidl(3).split()[-1] == ids[2], "uidl 3")
        _, lines, _ = pop.retr(1)
        same(b"".join(line + b"\r\n" for line in lines), wanted[0], "retr 1")
        _, lines, _ = pop.top(2, 1)
        same(b"".join(line + b"\r\n" for line in lines), topped(wanted[1], 1), "top 2 1")
        pop.dele(1)
        pop.noop()
        pop.rset()
        same(pop.stat()[0], 5, "stat after rset")
        pop.quit()
    same(spool.messages(drop), wanted, "nothing was deleted")


@test("verbs: twenty sessions at once each see their own mail")
def many(bench):
    users = {f"user{n:02}": f"pw{n}" for n in range(20)}
    site = bench.site(users=users)
    for user in users:
        site.fill(spool.spool([spool.mail(f"for {user} {n}") for n in range(10)]), user)
    site.start()
    for _ in range(2):
        order = list(users)
        bench.random.shuffle(order)
        sessions = [(user, site.login(user, MODES[index % 3])) for index, user in enumerate(order)]
        for number in range(1, 11):
            for user, pop in sessions:
                pop.send(f"RETR {number}\r\n")
            for user, pop in sessions:
                check(pop.line().startswith(b"+OK"), user)
                check(b"Subject: for " + user.encode() in pop.body(), "somebody else's mail for", user)
        for _, pop in sessions:
            pop.quit()
