"""Orders to the running server: each verb, who may give which, and what an operator reads when it goes wrong."""

import base64
import contextlib
import grp
import json
import os
import pty
import re
import select
import socket
import subprocess
import threading
import time

from harness import spool
from harness.site import OWNER
from harness.suite import DMAIL, ROOT, Skip, check, run, same, test, wait_for


def told(site, *words, code=0):
    """The report, as JSON."""
    done = site.tell(*words, "--json")
    same(done.returncode, code, f"exit code of {words}; {done.stdout!r} {done.stderr!r}")
    return json.loads(done.stdout)


def refused(site, *words, saying, code=1):
    """The order is refused with one sentence that holds these words; it is returned."""
    done = site.tell(*words)
    said = done.stderr.decode()
    check(done.returncode == code and not done.stdout and len(said.splitlines()) == 1 and saying in said,
          words, done.returncode, done.stdout, said)
    return said


def raw(site, line, seconds=20):
    """What the control socket answers to these bytes, until it is closed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds)
        sock.connect(os.path.join(site.work, "dmail.sock"))
        sock.sendall(line)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


@test("tellpop: users shows who is logged in, and a pattern narrows it")
def users(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(3)))
    site.start()
    same(told(site, "users"), {"logged_in": 0, "users": []}, "nobody is there")
    check(b"none" in site.tell("users").stdout, "nobody, for people")
    plain, tls, fresh = site.login(), site.login("bob", tls="tls"), site.pop()
    plain.ok("DELE 1")
    found = told(site, "users")
    same(found["logged_in"], 2, "logged in")
    by_name = {line["user"]: line for line in found["users"]}
    same(sorted(by_name), ["ann", "bob"], "users; who is not logged in is not among them")
    same(sorted(by_name["ann"]), ["address", "id", "idle_secs", "messages", "since", "tls", "user"], "what is known of each")
    ann, bob = by_name["ann"], by_name["bob"]
    check((ann["messages"], ann["tls"], ann["address"]) == (2, False, "127.0.0.1"), ann)
    check((bob["messages"], bob["tls"]) == (0, True), bob)
    check(ann["idle_secs"] <= 30 and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ann["since"]), ann)
    same([line["user"] for line in told(site, "users", "b*")["users"]], ["bob"], "those of a pattern")
    same(told(site, "user", "z*")["logged_in"], 0, "those of a pattern that nobody has")
    lines = site.tell("users").stdout.decode().splitlines()
    check(any(line.split() == ["ID", "USER", "ADDRESS", "SINCE", "TLS", "MESSAGES", "IDLE"] for line in lines), lines)
    check(len(site.tell("users", "a", "b").stderr.splitlines()) == 1, "two patterns")
    # While somebody's deletions become durable he is still there, and then he is not.
    for pop in (plain, tls):
        pop.quit()
    wait_for("nobody is logged in", lambda: told(site, "users")["logged_in"] == 0)
    fresh.close()


@test("tellpop: kick ends a user's sessions, or one by its id, and deletes nothing")
def kick(bench):
    site = bench.site()
    drop = site.fill(spool.spool(spool.plain(3)))
    before = open(drop, "rb").read()
    site.start()
    ann, bob = site.login(), site.login("bob", tls="tls")
    ann.ok("DELE 1")
    done = told(site, "kick", "ANN@example.test")
    same(len(done["kicked"]), 1, "sessions that were kicked")
    check(ann.line().startswith(b"-ERR"), "a kicked session is told")
    ann.eof()
    same(bob.stat()[0], 0, "another one goes on")
    refused(site, "kick", "ann", saying="nobody of this name")
    again = site.retry_login()
    same(again.everything(), spool.messages(drop), "messages after the kick: what was marked is there")
    ids = {line["user"]: line["id"] for line in told(site, "users")["users"]}
    same(told(site, "kick", ids["bob"])["kicked"], [ids["bob"]], "a session by its id")
    bob.line()
    bob.eof()
    refused(site, "kick", ids["bob"], saying="no session has this id")
    refused(site, "kick", "../x", saying="nobody of this name")
    again.quit()
    same(open(drop, "rb").read(), before, "the drop")
    wait_for("who kicked is in the log", lambda: "uid 0: kick" in site.log() or not ROOT)


@test("tellpop: forget makes the authenticator be asked anew")
def forget(bench):
    calls = bench.path("calls")
    helper = bench.write("helper", f"""#!/bin/sh
while read verb user rest; do
  case $verb in
    version) echo "-ERR" ;;
    check) echo "$user" >> {calls}; echo "+OK $user config" ;;
    *) echo "+OK $user config" ;;
  esac
done
""")
    os.chmod(helper, 0o755)
    site = bench.site(helper=helper)
    site.start()

    def checks():
        return open(calls, encoding="ascii").read().split().count("ann") if os.path.exists(calls) else 0

    for _ in range(3):
        site.login().quit()
    same(checks(), 1, "checks of three logins")
    same(told(site, "forget", "Ann@example.TEST")["forgotten"], 1, "answers forgotten")
    same(told(site, "forget", "ann")["forgotten"], 0, "answers forgotten the second time")
    site.login().quit()
    same(checks(), 2, "checks after forget")
    # Whose mailbox is erased or renamed may have another account now.
    for words in (["erase", "ann"], ["rename", "bob", "ann"]):
        before = checks()
        site.login().quit()
        same(checks(), before, f"checks before {words[0]}")
        told(site, *words)
        site.login().quit()
        same(checks(), before + 1, f"checks after {words[0]}")
    refused(site, "forget", "../ann", saying="no user can have this name")


@test("tellpop: lookup says where a user's mail is")
def lookup(bench):
    site = bench.site()
    drop = site.fill(spool.spool(spool.plain(3)))
    site.start()
    found = told(site, "lookup", "ANN")
    check(found["drop"] == drop and found["found"] == "file" and found["bytes"] == os.path.getsize(drop), found)
    check(found["drop_from"] == "settings" and found["file_owner"] == OWNER, found)
    check("nothing" in told(site, "lookup", "bob")["found"], "a user without mail")
    refused(site, "lookup", "carol", saying="carol: the authenticator knows no such user")
    refused(site, "lookup", "a/b", saying="no user can have this name")
    same(list(told(site, "lookup", "carol", code=1)), ["refused"], "a refusal as JSON")


@test("tellpop: erase, undelete and rename wait for nobody who is logged in, and say so")
def mailboxes(bench):
    site = bench.site(settings={"bin_pfull": 0})
    drop = site.fill(spool.spool(spool.plain(4)))
    site.start()
    pop = site.login()
    wanted, uids = pop.everything(), pop.uidl()
    pop.ok("DELE 1")
    pop.ok("DELE 3")
    for words in (["undelete", "ann"], ["erase", "ann"], ["rename", "ann", "bob"], ["rename", "bob", "ann"]):
        refused(site, *words, saying="ann is logged in")
    pop.quit()
    wait_for("nothing is deleted twice", site.is_quiet)
    with site.login() as again:
        same(again.stat()[0], 2, "messages after two deletions")
        again.quit()
    same(told(site, "undelete", "ann")["messages"], 2, "messages called back")
    same(told(site, "undelete", "ann")["messages"], 0, "messages called back the second time")
    with site.login() as again:
        same(again.everything(), wanted, "messages after undelete")
        same(again.uidl(), uids, "UIDs after undelete")
        again.quit()
    refused(site, "undelete", "carol", saying="carol: the authenticator knows no such user")
    refused(site, "rename", "carol", "dora", saying="carol: the authenticator knows no such user, nor dora")
    refused(site, "rename", "ann", "ANN@example.test", saying="the same user")
    refused(site, "rename", "ann", "../x", saying="no user can have this name")
    # Whoever is kicked need not be waited for: the client may take its time to go.
    pop = site.login()
    told(site, "kick", "ann")
    report = told(site, "rename", "ann", "bob")
    check(report["bytes"] == os.path.getsize(site.drop("bob")) and not os.path.exists(drop), report)
    pop.close()
    with site.login("bob") as other:
        same(other.everything(), wanted, "messages under the other name")
        same(other.uidl(), uids, "UIDs under the other name")
        other.quit()
    with site.login() as empty:
        same(empty.stat()[0], 0, "messages under the old name")
        empty.quit()
    site.fill(spool.spool(spool.plain(1)))
    refused(site, "rename", "bob", "ann", saying="ann")
    # The stranger is one whose account is gone already: his mail lies where the settings say.
    path = site.fill(spool.spool(spool.plain(2)), user="carol")
    report = told(site, "erase", "carol")
    check(report["drop"] == path and report["bytes"] > 0 and not report["known_to_authenticator"], report)
    check(not os.path.exists(path), "the drop is there after erase")
    told(site, "erase", "bob")
    check(not any(name.startswith((".bob", "bob")) for name in os.listdir(site.spool)), os.listdir(site.spool))
    same(told(site, "erase", "bob")["bytes"], 0, "bytes of what is gone")
    # What another program has locked is waited for, and then said.
    with open(site.drop() + ".lock", "w", encoding="ascii"):
        pass
    refused(site, "erase", "ann", saying="another program has")
    os.unlink(site.drop() + ".lock")
    same(told(site, "lookup", "ann")["found"], "file", "the drop after an erase that was refused")
    check("uid 0: erase bob" in site.log() or not ROOT, "who erased is not in the log")


@test("tellpop: who only says that he is a user keeps no operator from that user's mailbox")
def pretender(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(2)))
    site.start()
    # Whoever comes after this is offered what the authenticator can do.
    site.login().quit()
    stranger = site.pop(source="127.0.0.66")
    challenge = stranger.cmd("AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=ann,r=abc").decode())
    check(challenge.startswith(b"+ "), "the challenge:", challenge)
    same(told(site, "undelete", "ann")["messages"], 0, "messages called back")
    told(site, "rename", "ann", "bob")
    told(site, "erase", "bob")
    # He can be made to go all the same.
    told(site, "kick", "ann")
    check(stranger.rest().startswith(b"-ERR [SYS/TEMP] "), "kicked")


@test("tellpop: an order that waits for an authenticator keeps no other waiting")
def patient(bench):
    go = bench.path("go")
    os.mkfifo(go)
    helper = bench.write("helper", f"""#!/bin/sh
while read verb user rest; do
  case $verb in
    version) echo "-ERR" ;;
    *) test "$user" = slow && cat {go} > /dev/null; test "$user" = dead && exit 1; echo "+OK $user config" ;;
  esac
done
""")
    os.chmod(helper, 0o755)
    site = bench.site(helper=helper, settings={"authent_timeout": 60, "authent_number": 2})
    site.start()
    slow = subprocess.Popen([DMAIL, "tellpop", "-i", site.conf, "lookup", "slow", "--json"], stdout=subprocess.PIPE)
    gone = subprocess.Popen([DMAIL, "tellpop", "-i", site.conf, "lookup", "ann"], stdout=subprocess.DEVNULL)
    gone.wait(30)
    wait_for("the order waits", lambda: told(site, "status")["authenticators"]["busy"] == 1)
    for words in (["status"], ["users"], ["lookup", "bob"], ["mem"]):
        told(site, *words)
    check(slow.poll() is None, "the slow order ended before its time")
    # Somebody who does not wait any more is not missed.
    early = socket.socket(socket.AF_UNIX)
    early.connect(os.path.join(site.work, "dmail.sock"))
    early.sendall(b"lookup slow\n")
    wait_for("both orders wait", lambda: told(site, "status")["authenticators"]["busy"] == 2)
    early.close()
    with open(go, "w", encoding="ascii"):
        pass
    same(json.loads(slow.communicate(timeout=30)[0])["user"], "slow", "the slow order's report")
    refused(site, "lookup", "dead", saying="no authenticator could tell")
    # Whoever is only being let in can be kicked as well.
    def released():
        # The second may have begun to wait at the pipe when it was shut again.
        with contextlib.suppress(OSError):
            os.close(os.open(go, os.O_WRONLY | os.O_NONBLOCK))
        return told(site, "status")["authenticators"]["busy"] == 0

    wait_for("the authenticators are there again", released)
    pop = site.pop()
    pop.send(b"USER slow\r\nPASS x\r\n")
    pop.line()
    wait_for("the login waits", lambda: told(site, "status")["authenticators"]["busy"] == 1)
    same(told(site, "users")["logged_in"], 0, "logged in, while the password is being checked")
    same(len(told(site, "kick", "slow")["kicked"]), 1, "sessions that were kicked")
    check(pop.line().startswith(b"-ERR"), "a kicked session is told")
    pop.eof()
    with open(go, "w", encoding="ascii"):
        pass


def member(site, gid, *words, uid=54321):
    """`tellpop` as somebody who is in this group and in no other."""
    def become():
        os.setgroups([gid])
        os.setgid(54321)
        os.setuid(uid)

    return run([DMAIL, "tellpop", "-i", site.conf, *words], preexec_fn=become)


#: What a member of control_group may not do.
ALL = (["erase", "ann"], ["rename", "ann", "carol"], ["forget", "ann"], ["log_level", "debug"], ["reload"], ["shutdown"])
#: What he may.
GROUP = (["undelete", "ann"], ["help"], ["key"], ["lookup", "ann"], ["mem"], ["register"], ["status"], ["users"], ["version"])


@test("tellpop: members of control_group may watch and kick, others nothing, root all")
def rights(bench):
    if not ROOT:
        raise Skip("only root can be somebody else")
    group = next((entry for entry in grp.getgrall() if entry.gr_gid > 0), None)
    site = bench.site(settings={"control_group": group.gr_name})
    os.chmod(bench.folder, 0o755)
    os.chown(site.work, -1, group.gr_gid)
    os.chmod(site.work, 0o710)
    site.start()
    os.chmod(site.conf, 0o644)
    status = os.stat(os.path.join(site.work, "dmail.sock"))
    same((status.st_gid, status.st_mode & 0o777), (group.gr_gid, 0o660), "group and mode of the socket")
    for words in GROUP:
        done = member(site, group.gr_gid, *words)
        check(done.returncode == 0 and done.stdout, words, done.stdout, done.stderr)
    for words in ALL:
        done = member(site, group.gr_gid, *words)
        check(done.returncode == 1 and b"control_group may not" in done.stderr, words, done.stdout, done.stderr)
    site.alive()
    pop = site.login()
    done = member(site, group.gr_gid, "kick", "ann")
    same(done.returncode, 0, f"kick by a member; {done.stderr!r}")
    pop.line()
    pop.eof()
    done = member(site, 54320, "status")
    check(done.returncode == 1 and b"only root" in done.stderr, "a stranger:", done.stdout, done.stderr)
    # Even a door that somebody opened lets no stranger give orders.
    os.chmod(site.work, 0o711)
    os.chmod(os.path.join(site.work, "dmail.sock"), 0o666)
    for words in (*GROUP, *ALL, ["kick", "ann"]):
        done = member(site, 54320, *words)
        check(done.returncode == 1 and b"only root" in done.stderr, "a stranger:", words, done.stdout, done.stderr)
    check("uid 54321 may not" in site.log(), "the attempts are not in the log")
    for words in (*GROUP, *ALL[2:5]):
        same(site.tell(*words).returncode, 0, f"root: {words}")
    # A reload that takes the group away shuts the door at once.
    del site.extra["control_group"]
    site.write_conf()
    same(site.tell("reload").returncode, 0, "reload")
    os.chmod(site.conf, 0o644)
    check(member(site, group.gr_gid, "status").returncode == 1, "a member of what was control_group")
    wait_for("the socket is ours alone", lambda: os.stat(os.path.join(site.work, "dmail.sock")).st_mode & 0o777 == 0o600)


@test("tellpop: a control_group that does not exist is refused, one that cannot reach the socket is warned of")
def no_group(bench):
    site = bench.site(settings={"control_group": "no-such-group"})
    site.port, site.tls_port = 1, 2
    site.write_conf()
    done = run([DMAIL, "check", "-i", site.conf])
    check(done.returncode == 1 and b"no group no-such-group" in done.stdout, done.stdout)
    site.extra["control_group"] = grp.getgrall()[-1].gr_name
    site.write_conf()
    done = run([DMAIL, "check", "-i", site.conf])
    check(done.returncode == 0 and b"cannot reach the socket" in done.stdout and b"chmod g+x" in done.stdout, done.stdout)


#: What programs rely on: names may come, none may go.
STATUS = {
    "version": (), "pid": (), "configuration": (), "serving": (), "up_secs": (),
    "sessions": ("now", "tls", "most", "accepted", "short_of_descriptors"), "logins": ("good", "denied", "unavailable"),
    "messages": ("retrieved", "octets", "deleted", "changed_under_us"),
    "authenticators": ("alive", "busy", "waiting", "most_waiting", "answered", "unavailable", "ended"),
    "cache": ("entries", "most", "hits", "misses"), "jobs": ("threads", "running", "waiting", "stuck"),
    "loop": ("longest_turn_us", "longest_turn_of", "faults", "late_answers"),
    "memory": ("resident_kb", "sessions_kb", "cache_kb", "loop_kb"),
    "rates": ("what", "last_minute", "last_5_minutes", "since_start"), "volumes": ("root", "running", "waiting", "stuck"),
}
MEM = {
    "parts_bytes": (), "plain_session": ("budget_bytes", "held_bytes", "within_budget"),
    "tls_session": ("budget_bytes", "held_bytes", "within_budget"), "heap": ("used_bytes", "free_bytes"),
    "process": ("resident_kb", "pss_kb", "anonymous_kb"), "parts": ("part", "count", "bytes", "each"),
}


def shape(report, wanted):
    """Every name that programs rely on is there, in groups and in each line of a table."""
    for name, names in wanted.items():
        check(name in report, "no", name, "in", sorted(report))
        for group in report[name] if isinstance(report[name], list) else [report[name]] if names else []:
            missing = set(names) - set(group)
            check(not missing, name, "has no", missing)


@test("tellpop: status and mem add up")
def figures(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(3)))
    site.start()
    sessions = [site.login(), site.login("bob", tls="tls"), site.pop()]
    sessions[0].retr(1)
    status = told(site, "status")
    same((status["sessions"]["now"], status["sessions"]["tls"]), (3, 1), "sessions")
    shape(status, STATUS)
    rates = {line["what"]: line for line in status["rates"]}
    check(rates["logins"]["last_minute"] == rates["logins"]["since_start"] == 2, rates)
    check(rates["messages"]["last_5_minutes"] == 1, rates)
    same([(line["root"], line["stuck"]) for line in status["volumes"]], [(site.spool, False)], "volumes")
    check(0 < status["memory"]["sessions_kb"] < 100 and status["memory"]["resident_kb"] > 500, status["memory"])
    mem = told(site, "mem")
    shape(mem, MEM)
    parts = {line["part"]: line for line in mem["parts"]}
    same(mem["parts_bytes"], sum(line["bytes"] for line in mem["parts"]), "the sum of the parts")
    check(parts["sessions, plain"]["count"] == 2 and parts["sessions, TLS"]["count"] == 1, parts)
    check(mem["parts_bytes"] < mem["process"]["resident_kb"] * 1024, mem)
    check(mem["process"]["pss_kb"] <= mem["process"]["resident_kb"], mem)
    check(0 < mem["plain_session"]["held_bytes"] < 2000 and mem["tls_session"]["held_bytes"] > 3000, mem)
    for pop in sessions:
        pop.quit()


@test("tellpop: key and register say that nothing is needed")
def licence(bench):
    site = bench.site().start()
    for words in (["key"], ["key", "ABC-123"], ["register"]):
        check("no licence key" in told(site, *words)["licence"], words)


@test("tellpop: password is asked for on a terminal, read from a pipe, taken from the line with a warning")
def passwords(bench):
    site = bench.site()
    site.port, site.tls_port = 1, 2
    site.write_conf()
    path = os.path.join(site.work, "tellpass.dat")

    def piped(text, *words):
        return run([DMAIL, "tellpop", "-i", site.conf, "password", *words], stdin=None, input=text)

    # No server is needed for it.
    done = piped(b"correct horse\n")
    check(done.returncode == 0 and not done.stderr and path.encode() in done.stdout, done.stdout, done.stderr)
    first = open(path, "rb").read()
    check(first.startswith(b"pbkdf2-sha256 ") and b"horse" not in first, first)
    same(os.stat(path).st_mode & 0o777, 0o600, "the mode of the file")
    for text in (b"", b"\n", b"short\n", b"two\nlines here\n", b"x" * 5000):
        done = piped(text)
        check(done.returncode == 1 and len(done.stderr.splitlines()) == 1, text, done.stdout, done.stderr)
    same(open(path, "rb").read(), first, "the file after refusals")
    done = piped(b"", "--json", "battery staple")
    check(done.returncode == 0 and b"warning" in done.stderr and json.loads(done.stdout)["password"] == "set", done.stdout, done.stderr)
    check(open(path, "rb").read() != first, "the file is not a new one")

    def typed(*lines):
        """What the terminal shows, and the exit code, when these lines are typed, each at a prompt."""
        child, fd = pty.fork()
        if child == 0:
            os.execv(DMAIL, [DMAIL, "tellpop", "-i", site.conf, "password"])
        shown = b""
        lines = list(lines)
        while True:
            ready, _, _ = select.select([fd], [], [], 20)
            check(ready, "the terminal is silent:", shown)
            try:
                more = os.read(fd, 4096)
            except OSError:
                break
            if not more:
                break
            shown += more
            if shown.endswith(b": ") and lines:
                os.write(fd, lines.pop(0))
        os.close(fd)
        return shown, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    before = open(path, "rb").read()
    shown, code = typed(b"swordfish\n", b"swordfish\n")
    check(code == 0 and b"swordfish" not in shown and b"New password: " in shown and b"Once more: " in shown, code, shown)
    after = open(path, "rb").read()
    check(after != before, "the file is not a new one")
    shown, code = typed(b"swordfish\nswordfish\n")
    check(code == 0 and b"swordfish" not in shown, "typed ahead:", code, shown)
    after = open(path, "rb").read()
    for lines, words in (((b"swordfish\n", b"swordfisj\n"), b"differ"), ((b"\x03",), b"nothing is changed"), ((b"abc\n",), b"too short")):
        shown, code = typed(*lines)
        check(code == 1 and words in shown, code, shown)
    same(open(path, "rb").read(), after, "the file after refusals")
    if ROOT:
        os.chown(site.work, OWNER, OWNER)
        same(piped(b"correct horse\n").returncode, 0, "root for a server that is not root")
        same(os.stat(path).st_uid, OWNER, "the file's owner is the work_path's")
    # The server takes none over the socket, and logs none.
    site = bench.site(name="running").start()
    check(raw(site, b"password opensesame\n").startswith(b"-ERR"), "a password over the socket")
    check("opensesame" not in site.log(), "a password in the log")


@test("tellpop: garbage, floods and silence on the socket harm nobody")
def garbage(bench):
    site = bench.site().start()
    for line in (b"\n", b"\0\0\0\n", b"\xff\xfe\n", b'"open\n', b"x" * 4000 + b"\n", b"y" * 10000 + b"\n", b"GET / HTTP/1.0\r\n\r\n",
                 b"kick " + b"a" * 3000 + b"\n", b"users [\n", b"status\x1b[31m\n"):
        answer = raw(site, line)
        head, _, text = answer.partition(b"\n")
        check(head.split()[0] in (b"-ERR", b"+OK") and int(head.split()[1]) == len(text), line[:50], answer)
        check(b"\x1b" not in text and b"\0" not in text, "unprintable:", answer)
    # Half a command and then nothing; and one who asks and does not read.
    half = socket.socket(socket.AF_UNIX)
    half.connect(os.path.join(site.work, "dmail.sock"))
    half.sendall(b"stat")
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(os.path.join(site.work, "dmail.sock"))
    deaf.sendall(b"help\n")
    same(site.tell("status").returncode, 0, "status beside them")
    half.sendall(b"us --json\n")
    half.shutdown(socket.SHUT_WR)
    check(half.recv(65536).startswith(b"+OK "), "a command in two pieces")
    half.close()
    deaf.close()
    site.login().quit()


@test("tellpop: sixteen connections at a time; the next one waits for its turn")
def sixteen(bench):
    site = bench.site().start()
    held = []
    for _ in range(16):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(site.work, "dmail.sock"))
        held.append(sock)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(raw(site, b"version\n", 60)))
    # Only when all sixteen are taken is there something to wait for: each has to be accepted first.
    wait_for("sixteen are taken", lambda: open_sockets(site) >= 16)
    thread.start()
    # A silence is what this is about.
    time.sleep(0.5)
    check(not answers, "a seventeenth was answered")
    site.login().quit()
    held.pop().close()
    thread.join(30)
    check(answers and answers[0].startswith(b"+OK"), "the seventeenth:", answers)
    for sock in held:
        sock.close()
    same(site.tell("status").returncode, 0, "status afterwards")


def open_sockets(site):
    """Connections that the server has accepted on its control socket."""
    name = os.path.join(site.work, "dmail.sock")
    inodes = set()
    with open("/proc/net/unix", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if len(fields) == 8 and fields[7] == name:
                inodes.add(f"socket:[{fields[6]}]")
    folder = f"/proc/{site.process.pid}/fd"
    found = 0
    for fd in os.listdir(folder):
        try:
            found += os.readlink(os.path.join(folder, fd)) in inodes
        except OSError:
            pass
    return found - 1


@test("tellpop: what a person reads when it goes wrong")
def trouble(bench):
    site = bench.site()
    site.port, site.tls_port = 1, 2
    site.write_conf()
    refused(site, "status", saying="no server is running")
    refused(site, "frobnicate", saying="is no command", code=2)
    refused(site, "kick", saying="takes a user's name", code=2)
    done = run([DMAIL, "tellpop", "-i", bench.path("none.conf"), "status"])
    check(done.returncode == 1 and b"none.conf" in done.stderr, done.stderr)
    # Whoever listens there is not our server, or ends in the midst of an answer.
    for answer, saying in ((b"hello\r\n", "not our server"), (b"", "ended before"), (b"+OK 100\nhalf", "ended before"), (b"+OK 99999999999\n", "not our server")):
        path = os.path.join(site.work, "dmail.sock")
        with socket.socket(socket.AF_UNIX) as fake:
            fake.bind(path)
            fake.listen(1)

            def serve():
                sock, _ = fake.accept()
                with sock:
                    sock.recv(1000)
                    sock.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            refused(site, "status", saying=saying)
            thread.join()
        os.unlink(path)
