"""Who may come in, from where, how often and how many at a time: each rule with clients of several addresses.

Addresses of 127.0.0.0/8 are different clients. 127.0.0.1 is trusted by default, so that a webmail server there works; the
others are what strangers are."""

import json
import os
import select
import socket
import time

from harness import spool
from harness.suite import Skip, check, run, same, test, wait_for
from harness.wire import Pop

DENIED = b"-ERR [AUTH] Name or password is wrong"
CROWDED = b"-ERR [SYS/TEMP] All connections are taken; come back and log in sooner"

#: Knows ann and bob, and keeps what it was asked.
ASKED = """#!/bin/sh
while read -r command user password rest; do
  echo "$command $user $password" >>"%s"
  case "$command $user $password" in
  "check ann secret" | "check bob geheim") echo "+OK $user config" ;;
  check*) echo "-ERR no" ;;
  exit*) exit ;;
  *) echo "-ERR unknown" ;;
  esac
done
"""


def filled(bench, **settings):
    options = {key: settings.pop(key) for key in ("helper", "users") if key in settings}
    site = bench.site(tls=options.pop("tls", False), settings=settings, **options)
    site.fill(spool.spool(spool.plain(2)))
    site.fill(spool.spool(spool.plain(1)), "bob")
    return site.start()


def answer(site, user="ann", password="secret", source=None):
    """What PASS is answered, on a connection of its own; and how long it took."""
    with site.pop(source=source) as pop:
        pop.ok(f"USER {user}")
        begun = time.monotonic()
        reply = pop.cmd(f"PASS {password}")
        took = time.monotonic() - begun
        if reply.startswith(b"+OK"):
            pop.quit()
        return reply, took


def reply(*args, **options):
    return answer(*args, **options)[0]


def is_in(text):
    return text.startswith(b"+OK ")


def statistics(bench):
    text = b""
    for name in os.listdir(bench.path("stats")):
        with open(bench.path("stats", name), "rb") as file:
            text += file.read()
    return text


def guess(site, source, password):
    pop = site.pop(source=source)
    pop.ok("USER ann")
    pop.send(f"PASS {password}\r\n")
    return pop


def access(site):
    return json.loads(site.tell("status", "--json").stdout)["access"]


def logged(site, text):
    return wait_for(f"the log says {text}", lambda: text in site.log())


def rewrite(site, **settings):
    site.extra.update(settings)
    site.write_conf()
    done = site.tell("reload")
    check(done.returncode == 0, "reload:", done.stdout, done.stderr)


@test("access: a name that valid_users has not hears what a wrong password hears, and the authenticator is asked all the same")
def names(bench):
    asked = bench.path("asked")
    site = filled(bench, helper=bench.write("auth.sh", ASKED % asked, 0o755), valid_users="*,!bob")
    check(is_in(reply(site)), "ann")
    for user, password in (("ann", "wrong"), ("bob", "geheim"), ("bob", "wrong"), ("nobody", "x"), ("../etc", "x"), ("BOB", "geheim")):
        same(reply(site, user, password), DENIED, f"{user} {password}")
    with open(asked, encoding="ascii") as file:
        questions = [line for line in file.read().splitlines() if line.startswith("check")]
    # Ann's second login would be answered by the cache; each refusal is one question, also the name that cannot be.
    same(questions, ["check ann secret", "check ann wrong", "check bob geheim", "check bob wrong", "check nobody x",
                     "check no.such.user x", "check bob geheim"], "questions")
    check(is_in(reply(site)), "ann again")
    logged(site, "bob 127.0.0.1: login refused: valid_users has no such name")
    logged(site, "../etc 127.0.0.1: login refused: no user can be called so")
    logged(site, "ann 127.0.0.1: login refused: wrong name or password")
    same(access(site)["refused_by_name"], 4, "refused by name")


@test("access: a right password from an address that may not is refused as a wrong one is, remembered or not")
def addresses(bench):
    asked = bench.path("asked")
    site = filled(bench, helper=bench.write("auth.sh", ASKED % asked, 0o755), user_ip_address="127.0.0.0/24,!127.0.0.66",
                  penalty_max_secs=0)
    for source, good in ((None, True), ("127.0.0.2", True), ("127.0.0.66", False), ("127.1.0.1", False)):
        text = reply(site, source=source)
        check(is_in(text) if good else text == DENIED, source, "was answered", text)
        same(reply(site, password="wrong", source=source), DENIED, f"wrong from {source}")
    with open(asked, encoding="ascii") as file:
        # One for the two who were let in (the second was remembered), one for each that was not.
        same(file.read().splitlines().count("check ann secret"), 3, "questions about the right password")
    logged(site, "ann 127.0.0.66: login refused: user_ip_address has no such address")
    same(access(site)["refused_by_address"], 2, "refused by address")


@test("access: drop_must_exist keeps out who has no drop file, after the password")
def drops(bench):
    site = bench.site(users={"ann": "secret", "new": "neu"}, tls=False)
    site.fill(spool.spool(spool.plain(1)))
    site.start()
    check(is_in(reply(site, "new", "neu")), "without it an absent drop is an empty mailbox")
    rewrite(site, drop_must_exist="true")
    same(reply(site, "new", "neu"), b"-ERR [SYS/PERM] There is no mailbox for this user", "new")
    same(reply(site, "new", "wrong"), DENIED, "new with a wrong password")
    check(is_in(reply(site)), "ann")
    check(not os.path.exists(site.drop("new")), "a drop file was made")
    same(access(site)["without_drop"], 1, "without a drop")


@test("access: names of hosts count when they lead back, and a login waits for no other's")
def hosts(bench):
    table = bench.write("hosts", "127.0.0.1 localhost\n127.0.0.7 pc.friends.example\n127.0.0.8 pc.strangers.example\n", 0o644)
    wrap = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', table]
    if run([*wrap, "true"]).returncode:
        raise Skip("no mount namespace of our own can be made here")
    os.mkdir(bench.path("stats"))
    settings = {"lookup_names": "true", "user_ip_name": "localhost,*.friends.example", "stats_path": bench.path("stats")}
    site = bench.site(tls=False, settings=settings)
    site.fill(spool.spool(spool.plain(1)))
    site.start(wrap=wrap)
    check(is_in(reply(site)), "localhost")
    check(is_in(reply(site, source="127.0.0.7")), "a friend")
    same(reply(site, source="127.0.0.8"), DENIED, "a stranger")
    logged(site, "ann 127.0.0.7 (pc.friends.example) plain")
    wait_for("the statistics have the name", lambda: b" ann pc.friends.example " in statistics(bench))
    logged(site, "ann 127.0.0.8: login refused: user_ip_name has no such host")
    same(access(site)["refused_by_host"], 1, "refused by host")
    same(access(site)["names_known"], 3, "names")


@test("access: name servers that hang hold a login up for its patience and nobody else, and a shutdown not at all")
def hanging_names(bench):
    resolver = bench.write("resolv.conf", "nameserver 127.0.0.53\noptions timeout:20 attempts:3\n", 0o644)
    order = bench.write("nsswitch.conf", "hosts: dns\n", 0o644)
    wrap = ["unshare", "--mount", "sh", "-c",
            'mount --bind "$0" /etc/resolv.conf && mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"', resolver, order]
    if run([*wrap, "true"]).returncode:
        raise Skip("no mount namespace of our own can be made here")
    # It takes every query and never answers.
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        deaf.bind(("127.0.0.53", 53))
    except OSError as why:
        raise Skip(f"port 53 of 127.0.0.53 is not to be had: {why}") from why
    site = bench.site(tls=False, settings={"lookup_names": "true", "user_ip_name": "*,!*.bad.example"})
    site.fill(spool.spool(spool.plain(1)))
    site.fill(spool.spool(spool.plain(1)), "bob")
    site.start(wrap=wrap)
    rewrite(site, user_ip_name="*")
    # The name is being looked up and nothing needs it.
    text, took = answer(site, source="127.0.0.9")
    check(is_in(text) and took < 3, text, took)
    rewrite(site, user_ip_name="*,!*.bad.example")
    text, took = answer(site, source="127.0.0.10")
    check(is_in(text) and 3 < took < 15, "a host whose name does not come has none:", text, took)
    # Who needs a name and has none yet is told to come again: that is no wrong password, right or wrong as it may be.
    rewrite(site, user_ip_name="*.friends.example")
    for user, password in (("ann", "secret"), ("ann", "wrong"), ("nobody", "x")):
        text = reply(site, user, password, source="127.0.0.10")
        check(text.startswith(b"-ERR [SYS/TEMP] "), user, password, text)
    site.stop(seconds=8)
    check("stopping with" not in site.log(), site.log()[-500:])
    deaf.close()


@test("access: one connection more than max_per_prefix is told so, and all ways of leaving give the place back")
def prefixes(bench):
    site = bench.site(settings={"max_per_prefix": 2})
    site.fill(spool.spool(spool.plain(1)))
    site.start()
    full = b"-ERR [SYS/TEMP] Too many connections from your network\r\n"

    def turned_away():
        pop = site.pop(source="127.0.0.3", greet=False)
        said = pop.rest()
        pop.close()
        return said

    def fill():
        return [wait_for("a place", place) for _ in range(2)]

    def place():
        pop = site.pop(source="127.0.0.3", greet=False)
        try:
            if pop.line().startswith(b"+OK"):
                return pop
        except (EOFError, ConnectionError):
            pass
        pop.close()
        return None

    for leave in ("quit", "close", "reset", "nonsense", "tls nonsense"):
        inside = fill()
        same(turned_away(), full, f"the third, before {leave}")
        with site.pop(source="127.0.0.4") as other:
            other.ok("NOOP")
        with site.pop() as trusted, site.pop() as more, site.pop() as many:
            for pop in (trusted, more, many):
                pop.ok("NOOP")
        for pop in inside:
            if leave == "nonsense":
                pop.send(b"XYZZY\r\n" * 50)
                pop.rest()
            if leave == "tls nonsense":
                pop.ok("STLS")
                pop.send(b"no handshake\r\n\r\n")
                pop.rest()
            getattr(pop, leave, pop.close)()
        for pop in fill():
            pop.close()
    # Within TLS nothing can be said: the connection ends.
    held = fill()
    with Pop(site.tls_port, greet=False, source="127.0.0.3") as pop:
        same(pop.rest(), b"", "on the TLS port")
    for pop in held:
        pop.close()
    wait_for("all places are given back", lambda: access(site)["prefixes_counted"] == 0)
    check(access(site)["over_prefix"] >= 6, access(site))


@test("access: max_per_user counts right passwords only")
def users(bench):
    site = filled(bench, max_per_user=1)
    pop = site.login()
    same(reply(site), b"-ERR [IN-USE] Too many sessions of this user", "a second session")
    same(reply(site, password="wrong"), DENIED, "a wrong password")
    check(is_in(reply(site, "bob", "geheim")), "bob")
    pop.quit()
    wait_for("ann can log in again", lambda: is_in(reply(site)))
    same(access(site)["users_counted"], 0, "users counted")
    # A client that is gone in the midst of it takes nothing along.
    for _ in range(5):
        pop = wait_for("ann is in", lambda: in_or_none(site))
        pop.reset()
    wait_for("ann can log in again", lambda: is_in(reply(site)))
    same(access(site)["over_user"] >= 1, True, "over")


def in_or_none(site):
    pop = site.pop()
    pop.ok("USER ann")
    if is_in(pop.cmd("PASS secret")):
        return pop
    pop.close()
    return None


@test("access: LOGIN-DELAY is announced and kept, after the password, and over a reload")
def login_delay(bench):
    site = filled(bench, login_delay_secs=3)
    too_soon = b"-ERR [LOGIN-DELAY] Too soon after your last login; wait and try again"
    with site.pop() as pop:
        check(b"LOGIN-DELAY 3" in pop.multi("CAPA"), "CAPA")
    begun = time.monotonic()
    check(is_in(reply(site)), "the first")
    same(reply(site), too_soon, "the second")
    same(reply(site, password="wrong"), DENIED, "a wrong password hears nothing of it")
    check(is_in(reply(site, "bob", "geheim")), "another user")
    rewrite(site, authent_cache=10)
    same(reply(site), too_soon, "after a reload")
    wait_for("the delay is over", lambda: is_in(reply(site)))
    took = time.monotonic() - begun
    check(2 < took < 20, "it was over after", took)
    check(access(site)["too_soon"] >= 2, access(site))
    rewrite(site, login_delay_secs=0)
    with site.pop() as pop:
        check(not [row for row in pop.multi("CAPA") if row.startswith(b"LOGIN-DELAY")], "CAPA without it")
    check(is_in(reply(site)) and is_in(reply(site)), "without it")


@test("access: EXPIRE is announced as it is set, before and after the login")
def expire(bench):
    site = filled(bench)
    for value, said in (("never", b"EXPIRE NEVER"), ("30", b"EXPIRE 30"), ("0", b"EXPIRE 0")):
        rewrite(site, expire_days=value)
        with site.pop() as pop:
            check(said in pop.multi("CAPA"), value, "before")
            pop.login()
            check(said in pop.multi("CAPA"), value, "after")
            pop.ok("RSET")


def dated(name, days):
    moment = time.gmtime(time.time() - days * 86_400)
    line = time.strftime("From sender@example.test %a %b %d %H:%M:%S %Y\n", moment).encode()
    return line + spool.mail(name) + b"\n"


@test("access: what EXPIRE announces goes at QUIT, and nothing else does")
def expired(bench):
    # Names of days and months are the C locale's here.
    site = filled(bench, expire_days=30)
    ages = [400, 31, 29, 1, 40]

    def left(user="ann"):
        return [text.split(b"Subject: ")[1].split(b"\r\n")[0] for text in spool.messages(site.drop(user))]

    def fill():
        wait_for("no job runs", site.is_quiet)
        site.fill(b"".join(dated(f"age {days}", days) for days in ages))

    fill()
    pop = site.login()
    pop.ok("DELE 4")
    check(pop.cmd("QUIT").endswith(b"4 deleted"), "QUIT")
    wait_for("the old ones are gone", lambda: left() == [b"age 29"])
    # Nothing goes without QUIT.
    fill()
    site.retry_login().reset()
    pop = site.retry_login()
    same(pop.stat()[0], 5, "after a lost connection")
    pop.close()
    # Nothing is announced, nothing goes.
    rewrite(site, expire_days="never")
    pop = site.retry_login()
    pop.retr(1)
    pop.quit()
    same(len(left()), 5, "messages with never")
    # Zero: what was sent whole.
    rewrite(site, expire_days=0)
    pop = site.retry_login()
    pop.retr(2)
    pop.fetch("TOP 3 10")
    pop.retr(5)
    pop.ok("RSET")
    check(pop.cmd("QUIT").endswith(b"2 deleted"), "QUIT")
    wait_for("the fetched ones are gone", lambda: left() == [b"age 400", b"age 29", b"age 1"])


@test("access: each new guess waits longer, one stale password does not, and nobody else waits")
def guesses(bench):
    site = filled(bench, penalty_max_secs=4)
    check(is_in(reply(site, source="127.0.0.5")), "ann is known at 127.0.0.5")
    took = []
    for number in range(3):
        text, secs = answer(site, "bob", f"guess {number}", source="127.0.0.6")
        same(text, DENIED, f"guess {number}")
        took.append(secs)
    # What waits, waits 1 and 2 seconds, and 4 from here on. How slow this machine is besides matters little.
    check(took[1] >= 0.9 and took[2] >= 1.8 and took[0] < took[2], "each should take longer:", took)
    for _ in range(5):
        text, secs = answer(site, "bob", "guess 2", source="127.0.0.6")
        check(text == DENIED and secs < 3, "the same again is not slowed:", secs)
    # A right password waits too: how long it takes tells nothing. Then bob is known there and does not wait any more.
    text, secs = answer(site, "bob", "geheim", source="127.0.0.6")
    check(is_in(text) and secs >= 3.5, text, secs)
    guess(site, "127.0.0.6", "carl's").close()
    check(answer(site, "bob", "geheim", source="127.0.0.6")[1] < 1.5, "bob is known there")
    # Guesses side by side raise the level too. While they are parked, others are not, and neither is the owner at home.
    for pop in [guess(site, "127.0.0.20", f"side by side {number}") for number in range(8)]:
        same(pop.line(), DENIED, "side by side")
        pop.close()
    parked = [guess(site, "127.0.0.20", f"parked {number}") for number in range(10)]
    check(is_in(reply(site, source="127.0.0.5")), "ann at home")
    check(is_in(reply(site, "bob", "geheim", source="127.1.0.1")), "somebody elsewhere")
    check(not select.select([pop.socket for pop in parked], [], [], 0)[0], "a guess was answered before them")
    for pop in parked:
        same(pop.line(), DENIED, "parked")
        pop.close()
    before = access(site)
    check(before["delayed"] >= 13 and before["prefixes_remembered"] >= 3, before)
    # It outlives a reload, and a server that stops waits for nobody.
    rewrite(site, penalty_max_secs=60)
    check(access(site)["prefixes_remembered"] >= before["prefixes_remembered"], "prefixes after a reload")
    pop = guess(site, "127.0.0.20", "the last")
    wait_for("it is parked", lambda: access(site)["delayed"] > before["delayed"])
    site.stop(seconds=5)
    check(pop.rest().startswith(b"-ERR [SYS/TEMP] "), "parked when the server stopped")


@test("access: with all connections taken, who had time to log in and did not makes room")
def crowded(bench):
    site = filled(bench, max_connections=4)
    inside = site.login()
    idle = [site.pop(source=f"127.0.0.{host}") for host in (50, 51, 52)]
    newcomer = site.pop("tls" if site.tls else None, greet=False)
    # The oldest of those who are not logged in goes, and only one: one place is needed.
    same(idle[0].rest(), CROWDED + b"\r\n", "the oldest")
    newcomer.line()
    newcomer.login("bob", "geheim")
    for pop in idle[1:]:
        pop.ok("NOOP")
    inside.ok("NOOP")
    same(access(site)["crowded_out"], 1, "crowded out")
    # When all are logged in, a newcomer waits.
    for pop in idle[1:]:
        pop.close()
    newcomer.quit()
    inside.quit()


@test("access: who says goodbye and does not read the answer makes room as any other does")
def goodbye(bench):
    # What the sockets between us hold is the kernel's affair. Some of these have said goodbye where a little more is owed
    # than they hold, and are not waited for although they take nothing.
    asked = range(700, 1000, 15)
    site = filled(bench, max_connections=len(asked), max_errors=10)
    silent = []
    for times in asked:
        pop = site.pop(source="127.0.0.50", receive_buffer=4096)
        pop.send(b"CAPA\r\n" * times + b"QUIT\r\n")
        silent.append(pop)
    begun = time.monotonic()
    newcomers = [site.pop() for _ in asked]
    took = time.monotonic() - begun
    # The first five seconds are everybody's; the newcomers have theirs still.
    check(took < 9, "newcomers were greeted after", took, "seconds")
    for pop in newcomers:
        pop.ok("NOOP")
    for pop in silent + newcomers:
        pop.close()
