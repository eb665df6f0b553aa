"""Authenticators: the stock one, models, and every kind of bad one. A bad one is trouble, never a wrong password."""

import json
import os
import shutil
import signal
import time

from harness import spool
from harness.suite import Failure, Skip, check, descendants, processes, same, test, wait_for

MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "conf", "authenticators")

SHELL = """#!/bin/sh
while read -r command user password rest; do
  case "$command $user $password" in
  "check ann secret" | "check bob geheim") echo "+OK $user config" ;;
  exit*) echo "+OK"; exit ;;
  *) echo "-ERR no" ;;
  esac
done
"""

#: What a bad authenticator does when it is asked about ann; it knows bob and is good about him.
BAD = {
    "hangs": "sleep 30",
    "dies": "exit 3",
    "dies by a signal": "kill -9 $$",
    "says nothing and closes its output": "exec >&-; sleep 30",
    "answers -DEAD": 'echo "-DEAD database down"',
    "babbles": 'echo "what? ann? \\001\\377"',
    "answers two lines": 'echo "+OK ann config"; echo "+OK ann config"',
    "answers for somebody else": 'echo "+OK bob config"',
    "answers without end": "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy | tr -d '\\n'; done",
    "answers a path outside": 'echo "+OK ann /etc/passwd"',
    "answers a path with dots": 'echo "+OK ann /tmp/../etc/passwd"',
    "answers a low uid": 'echo "+OK ann config 1"',
    "answers an unknown owner": 'echo "+OK ann config nobody-has-this-name"',
    "answers an empty line": 'echo ""',
    "answers +DATA": 'echo "+DATA x"',
}

#: After these the pool may answer "later" for a moment; after the others the administrator has to act.
PERMANENT = {"answers a path outside", "answers a path with dots", "answers a low uid", "answers an unknown owner"}
#: Not ann's trouble to tell, whether it is temporary or permanent.
SOFT = {"answers two lines", "answers for somebody else"}


def helper(bench, on_ann):
    return bench.write("helper", f"""#!/bin/sh
# Never outlives its test.
(sleep 60; kill -9 $$ 2>/dev/null) >/dev/null 2>&1 </dev/null &
while read -r command user password rest; do
  case "$command $user $password" in
  "check bob geheim") echo "+OK bob config" ;;
  "check ann secret") {on_ann} ;;
  version*) echo "-ERR unknown" ;;
  exit*) exit ;;
  *) echo "-ERR no" ;;
  esac
done
""", 0o755)


def fill(site):
    site.fill(spool.spool(spool.plain(3)))
    site.fill(spool.spool(spool.plain(2)), "bob")


def children(site):
    return descendants(site.process.pid)


def no_zombies(site):
    def none():
        return not [row for row in children(site) if row[2] == "Z"]

    wait_for("no zombies", none, 10)


@test("authenticator: nwauth: set, wrong password, changed password, deleted user")
def nwauth(bench):
    site = bench.site(settings={"auth_nocache": "true"})
    fill(site)
    site.start()
    with site.login() as pop:
        same(pop.stat()[0], 3, "STAT")
        pop.quit()
    site.set_user("ann", "better")
    with site.pop() as pop:
        pop.ok("USER ann")
        pop.err("PASS secret", "AUTH")
        pop.login("ann", "better")
        pop.quit()
    site.set_user("carl", "new")
    with site.pop() as pop:
        pop.login("carl", "new")
        same(pop.stat(), (0, 0), "STAT of a new user")
        pop.quit()
    no_zombies(site)


@test("authenticator: ten lines of shell")
def shell(bench):
    site = bench.site(helper=bench.write("auth.sh", SHELL, 0o755))
    fill(site)
    site.start()
    for user, count in (("ann", 3), ("bob", 2)):
        with site.login(user) as pop:
            same(pop.stat()[0], count, f"STAT of {user}")
            pop.quit()
    with site.pop() as pop:
        pop.ok("USER ann")
        pop.err("PASS geheim", "AUTH")
        pop.quit()


for _model in ("shell.sh", "python.py"):

    @test(f"authenticator: the model {_model}")
    def model(bench, name=_model):
        program = os.path.join(MODELS, name)
        if not os.path.exists(program):
            raise Skip("not there")
        program = shutil.copy(program, bench.folder)
        users = bench.write("passwords", "")
        if name.endswith(".py"):
            from harness.suite import run

            lines = [run([program, "--line", user], input=password + b"\n").stdout
                     for user, password in (("ann", b"secret"), ("bob", b"geheim"))]
            bench.write("passwords", b"".join(lines))
        else:
            bench.write("passwords", "ann:secret\nbob:geheim\n")
        site = bench.site(helper=f"{program} {users}")
        fill(site)
        site.start()
        with site.login() as pop:
            same(pop.stat()[0], 3, "STAT")
            pop.quit()
        with site.pop() as pop:
            pop.ok("USER bob")
            pop.err("PASS secret", "AUTH")
            pop.login("bob", "geheim")
            pop.quit()


for _name, _what in BAD.items():

    @test(f"authenticator: one that {_name} harms nobody else", 100)
    def bad(bench, name=_name, what=_what):
        site = bench.site(helper=helper(bench, what), settings={"authent_timeout": 2, "authent_number": 2})
        fill(site)
        site.start()
        with site.login("bob") as pop:
            pop.quit()
        for _ in range(2):
            pop = site.pop()
            pop.ok("USER ann")
            pop.send("PASS secret\r\n")
            # bob beside: from the cache, and a wrong password that has to be asked.
            with site.login("bob") as other:
                same(other.stat()[0], 2, "STAT of bob beside")
                other.quit()
            reply = pop.line()
            if name in SOFT:
                check(reply.startswith((b"-ERR [SYS/", b"+OK")), "ann was answered", reply)
            elif name in PERMANENT:
                check(reply.startswith(b"-ERR [SYS/"), "ann was answered", reply)
            else:
                check(reply.startswith(b"-ERR [SYS/TEMP]"), "ann was answered", reply)
            pop.close()
        # Copies that were ended come back: bob is found by asking, not only in the cache.

        def asked():
            with site.pop() as other:
                other.ok("USER bob")
                return b"[AUTH]" in other.cmd("PASS wrong")

        wait_for("a copy answers again", asked, 30)
        site.alive()
        no_zombies(site)
        check(len([row for row in children(site) if row[3].startswith("helper")]) <= 8, "too many copies:", children(site))


@test("authenticator: one that never starts is trouble, not a wrong password")
def never_starts(bench):
    site = bench.site(helper=bench.write("helper", "#!/bin/sh\nexit 1\n", 0o755), settings={"authent_timeout": 2})
    fill(site)
    site.start()
    for _ in range(3):
        with site.pop() as pop:
            pop.ok("USER ann")
            pop.err("PASS secret", "SYS/TEMP")
    # It is started again and again, but not in a hurry.
    before = spent(site)
    time.sleep(1.0)
    check(spent(site) - before < 0.5, "the server spins:", spent(site) - before, "s of CPU in one second")
    no_zombies(site)
    # The administrator repairs it: no restart is needed.
    bench.write("helper", SHELL, 0o755)

    def works():
        with site.pop() as pop:
            pop.ok("USER ann")
            return pop.cmd("PASS secret").startswith(b"+OK")

    wait_for("the repaired authenticator is used", works, 40)


def spent(site):
    """Seconds of CPU that the server has used."""
    with open(f"/proc/{site.process.pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@test("authenticator: slow answers go to those who asked")
def slow(bench):
    users = [f"user{n:02}" for n in range(24)]
    program = bench.write("helper", """#!/usr/bin/env python3
import random, sys, time
for line in sys.stdin:
    words = line.split()
    if words[0] == "check":
        time.sleep(random.random() / 10)
        good = words[2] == "pw" + words[1]
        print(f"+OK {words[1]} config" if good else "-ERR no", flush=True)
    else:
        print("-ERR no", flush=True)
""", 0o755)
    site = bench.site(helper=program, users={user: "pw" + user for user in users}, settings={"authent_number": 4})
    for user in users:
        site.fill(spool.spool([spool.mail(f"only for {user}")]), user)
    site.start()
    waiting = []
    for user in users:
        for password in ("pw" + user, "wrong"):
            pop = site.pop()
            pop.ok(f"USER {user}")
            pop.send(f"PASS {password}\r\n")
            waiting.append((user, password, pop))
    for user, password, pop in waiting:
        reply = pop.line()
        if password == "wrong":
            check(reply.startswith(b"-ERR [AUTH]"), user, reply)
        else:
            check(reply.startswith(b"+OK"), user, reply)
            check(f"only for {user}".encode() in pop.retr(1), "somebody else's mail for", user)
        pop.quit()


@test("authenticator: names and passwords that cannot be sent are refused before the pipe")
def injected(bench):
    log = bench.path("asked")
    program = bench.write("helper", f"""#!/bin/sh
while IFS= read -r line; do
  printf '%s\\n' "$line" >>{log}
  case "$line" in "check ann secret"*) echo "+OK ann config" ;; *) echo "-ERR no" ;; esac
done
""", 0o755)
    site = bench.site(helper=program, settings={"auth_nocache": "true"})
    fill(site)
    site.start()
    import base64

    def plain(user, password):
        return base64.b64encode(b"\0" + user + b"\0" + password)

    for user, password in ((b"ann\ncheck", b"secret"), (b"ann", b"x\ncheck ann secret"), (b"ann", b"x\r\ncheck ann secret"),
                           (b"ann secret", b"x"), (b"ann", b"secret x y"), (b"ann\t", b"secret"), (b"", b"secret"), (b"ann", b"")):
        with site.pop() as pop:
            reply = pop.cmd(b"AUTH PLAIN " + plain(user, password))
            check(reply.startswith(b"-ERR"), user, password, "was answered", reply)
            check(b"SYS/TEMP" not in reply, "an impossible name is no trouble of ours:", reply)
    with site.login() as pop:
        pop.quit()
    asked = [line for line in open(log, encoding="utf-8").read().splitlines() if line.startswith("check")]
    good = [line for line in asked if line.split()[:3] == ["check", "ann", "secret"]]
    check(len(good) == 1, "asked:", asked)
    check(all(len(line.split(" ")) == 4 for line in asked), "asked with a word too many or too few:", asked)


@test("authenticator: it has only descriptors 0, 1, 2, a clean environment, and a session of its own")
def clean(bench):
    out = bench.path("seen")
    program = bench.write("helper", f"""#!/usr/bin/env python3
import json, os, sys
seen = dict(fds=sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
            environment=dict(os.environ), session=os.getsid(0), pid=os.getpid(), cwd=os.getcwd(), umask=os.umask(0o77))
with open({out!r} + ".new", "w") as file:
    json.dump(seen, file)
os.rename({out!r} + ".new", {out!r})
for line in sys.stdin:
    print("+OK ann config" if line.startswith("check ann secret ") else "-ERR no", flush=True)
""", 0o755)
    site = bench.site(helper=program, settings={"authent_number": 1})
    fill(site)
    os.environ["SECRET_OF_THE_SERVER"] = "x"
    site.start()
    with site.login() as pop:
        pop.quit()
    seen = json.load(open(wait_for("the helper wrote", lambda: os.path.exists(out) and out), encoding="utf-8"))
    same(seen["fds"], [0, 1, 2], "open descriptors")
    same(seen["session"], seen["pid"], "session")
    # LC_CTYPE is Python's own.
    extra = set(seen["environment"]) - {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"}
    check(not extra, "in its environment:", {name: seen["environment"][name] for name in extra})


@test("authenticator: its words are those of the configuration, without a shell")
def words(bench):
    out = bench.path("arguments")
    program = bench.write("folder/my helper", f"""#!/bin/sh
printf '%s\\n' "$@" >{out}
while read -r command user password rest; do
  case "$command $user $password" in "check ann secret") echo "+OK ann config" ;; *) echo "-ERR no" ;; esac
done
""", 0o755)
    site = bench.site(helper=f"""'{program}' "two words" '$HOME' '`id`' a\\ b '*' ';' '>x'""", settings={"authent_number": 1})
    fill(site)
    site.start()
    with site.login() as pop:
        pop.quit()
    same(open(out, encoding="utf-8").read().splitlines(), ["two words", "$HOME", "`id`", "a b", "*", ";", ">x"], "arguments")


@test("authenticator: copies end with the server, however it ends")
def orphans(bench):
    site = bench.site()
    fill(site)
    for how in (signal.SIGTERM, signal.SIGKILL):
        site.start()
        with site.login() as pop:
            pop.quit()
        copies = [row[0] for row in children(site)]
        check(copies, "no copies were running")
        site.stop(how)
        wait_for("its authenticators have ended", lambda: not [row for row in processes() if row[0] in copies and row[2] != "Z"])


@test("authenticator: a cached answer is for that password and that user only")
def cache(bench):
    log = bench.path("asked")
    program = bench.write("helper", f"""#!/bin/sh
while read -r command user password rest; do
  echo "$command $user $password" >>{log}
  case "$command $password" in "check same") echo "+OK $user config" ;; *) echo "-ERR no" ;; esac
done
""", 0o755)
    site = bench.site(helper=program, users={"ann": "same", "bob": "same"})
    fill(site)
    site.start()

    def asked():
        return len([line for line in open(log, encoding="utf-8") if line.startswith("check")])

    for _ in range(3):
        for user, count in (("ann", 3), ("bob", 2)):
            with site.login(user) as pop:
                same(pop.stat()[0], count, f"STAT of {user}")
                pop.quit()
    same(asked(), 2, "questions for two users")
    for n in range(3):
        with site.pop() as pop:
            pop.ok("USER ann")
            pop.err("PASS other", "AUTH")
        same(asked(), 3 + n, "a wrong password is asked each time")
    with site.login() as pop:
        pop.quit()
    if asked() != 5:
        raise Failure("a wrong password threw a good answer away")
