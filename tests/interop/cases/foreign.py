"""Other programs at the same drop: while a session is open, and between sessions."""

import glob
import mailbox
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

from harness import spool
from harness.suite import Failure, check, need, run, same, test, wait_for


#: A drop compacted at every QUIT.
COMPACTED = {"bin_pfull": 1}


def filled(bench, texts=None, **options):
    site = bench.site(**options)
    drop = site.fill(spool.spool(spool.plain(6) if texts is None else texts), mode=0o660)
    site.start()
    return site, drop, spool.messages(drop)


def procmail(site, drop, text):
    rc = site.bench.write("procmailrc", f"LOGFILE={site.folder}/procmail.log\nVERBOSE=off\nDEFAULT={drop}\nLOCKSLEEP=1\n")
    done = run(["procmail", "-f", "sender@example.test", f"DEFAULT={drop}", rc], input=text, env={"PATH": os.environ["PATH"], "HOME": site.folder})
    check(done.returncode == 0, "procmail:", done.stdout, done.stderr)


@test("foreign: procmail delivers while a session is open")
def delivered(bench):
    need("procmail")
    site, drop, wanted = filled(bench, settings=COMPACTED)
    pop = site.login()
    before = (pop.stat(), pop.list(), pop.uidl())
    for n in range(3):
        procmail(site, drop, spool.mail(f"by procmail {n}", b".\nnew\n>From x\n"))
        same((pop.stat(), pop.list(), pop.uidl()), before, "the numbers of an open session")
        same(pop.everything(), wanted, "the messages of an open session")
    pop.ok("DELE 1")
    pop.ok("DELE 4")
    pop.quit()
    new = spool.messages(drop)[-3:]
    check(all(b"by procmail" in text for text in new), "procmail's mail")
    left = [text for n, text in enumerate(wanted, 1) if n not in (1, 4)] + new
    wait_for("the drop is compacted", lambda: spool.messages(drop) == left)
    pop = site.retry_login()
    same(pop.everything(), left, "messages of the next session")
    same(list(pop.uidl().values())[:4], [before[2][n] for n in (2, 3, 5, 6)], "UIDs of the survivors")
    pop.quit()
    check(not os.path.exists(drop + ".lock"), "a dotlock was left behind")


@test("foreign: twenty appends during sessions that delete: nothing is lost", 120)
def busy(bench):
    site, drop, wanted = filled(bench, spool.plain(10))
    expected = list(wanted)
    for n in range(20):
        pop = site.retry_login()
        found = pop.everything()
        same(found, expected[: len(found)], f"session {n}")
        text = spool.mail(f"append {n}", b"x\n" * n)
        spool.append(drop, spool.entry(text, n))
        expected.append(spool.on_the_wire(text))
        victim = bench.random.randrange(len(found)) + 1
        pop.ok(f"DELE {victim}")
        pop.send("QUIT\r\n")
        del expected[victim - 1]
        # Beside the compaction that begins now.
        text = spool.mail(f"append {n} beside", b"y\n")
        spool.append(drop, spool.entry(text, n))
        expected.append(spool.on_the_wire(text))
        check(pop.line().startswith(b"+OK"), "QUIT")
        pop.eof()
    pop = site.retry_login()
    same(pop.everything(), expected, "messages in the end")
    # Whether the dead are still in the file is another question: somebody had the drop locked much of the time.
    left = iter(spool.messages(drop))
    check(all(text in left for text in expected), "the drop lacks messages, or has them in another order")
    pop.quit()


@test("foreign: an append while the session is open is there in the next one, however it ends")
def torn(bench):
    site, drop, wanted = filled(bench)
    pop = site.login()
    # Another program's torn tail: no final newline, no blank line.
    late = spool.entry(spool.mail("torn"))[:-3]
    spool.append(drop, late)
    same(pop.everything(), wanted, "the messages of an open session")
    for number in range(1, 7):
        pop.ok(f"DELE {number}")
    pop.quit()
    wait_for("only the late one is there", lambda: open(drop, "rb").read() == late)
    pop = site.retry_login()
    same(pop.everything(), spool.messages(drop), "the torn message")
    pop.quit()


@test("foreign: Python's mailbox adds and removes between sessions")
def edited(bench):
    site, drop, _ = filled(bench, spool.plain(8) + [spool.mail("status", b"x\n", b"Status: RO\n")], settings=COMPACTED)
    pop = site.login()
    uids = pop.uidl()
    pop.ok("DELE 2")
    pop.quit()
    wait_for("the drop is compacted", lambda: len(spool.messages(drop)) == 8)
    box = spool.locked(drop)
    keys = list(box.iterkeys())
    box.remove(keys[0])
    box.remove(keys[3])
    box.add(mailbox.mboxMessage(b"Subject: added by Python\n\n.\nFrom here on\n"))
    box.flush()
    box.unlock()
    box.close()
    wanted = spool.messages(drop)
    pop = site.retry_login()
    same(pop.everything(), wanted, "messages after Python's mailbox")
    now = list(pop.uidl().values())
    same(now[:-1], [uids[n] for n in (3, 4, 6, 7, 8, 9)], "UIDs of what Python left")
    check(now[-1] not in uids.values(), "a new message has an old UID")
    pop.quit()


def terminal(arguments, environment, seconds=30):
    """Runs a program that wants a terminal; what it drew."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True,
                             start_new_session=True)
    os.close(follower)
    drawn, end = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            readable, _, _ = select.select([leader], [], [], 0.1)
            if readable:
                try:
                    drawn += os.read(leader, 65536)
                except OSError:
                    break
            elif child.poll() is not None:
                break
        check(child.poll() is not None or child.wait(5) is not None, "still running")
    except subprocess.TimeoutExpired:
        child.kill()
        raise Failure(f"{arguments[0]} still runs after {seconds} s: {drawn[-800:]!r}") from None
    finally:
        os.close(leader)
    return drawn


def mutt(site, drop, keys):
    rc = site.bench.write("muttrc", f"""set folder={site.folder}
set spoolfile={drop}
set tmpdir={site.folder}
set delete=yes
set quit=yes
set move=no
set confirmappend=no
set wait_key=no
unset mark_old
unset mail_check_stats
""")
    return terminal(["mutt", "-n", "-F", rc, "-f", drop, "-e", f"push '{keys}'"],
                    {"PATH": os.environ["PATH"], "HOME": site.folder, "TERM": "vt100", "LC_ALL": "C.UTF-8"})


@test("foreign: mutt deletes and marks between sessions")
def with_mutt(bench):
    need("mutt")
    site, drop, wanted = filled(bench)
    pop = site.login()
    uids = pop.uidl()
    pop.quit()
    drawn = mutt(site, drop, "<first-entry><delete-message><jump>4<enter><delete-message><quit>")
    found = spool.messages(drop)
    check(len(found) == 4, "mutt left", len(found), "messages:", drawn[-300:])
    pop = site.retry_login()
    same(pop.everything(), found, "messages after mutt")
    same(list(pop.uidl().values()), [uids[n] for n in (2, 3, 5, 6)], "UIDs after mutt")
    pop.quit()


@test("foreign: mutt deletes while a session is open")
def with_mutt_open(bench):
    need("mutt")
    site, drop, wanted = filled(bench)
    pop = site.login()
    uids = pop.uidl()
    mutt(site, drop, "<first-entry><delete-message><quit>")
    check(len(spool.messages(drop)) == 5, "mutt did not delete")
    never_wrong(pop, wanted)
    pop = site.retry_login()
    same(pop.everything(), spool.messages(drop), "messages after mutt")
    same(list(pop.uidl().values()), [uids[n] for n in range(2, 7)], "UIDs after mutt")
    pop.quit()


def never_wrong(pop, wanted):
    """Every RETR of an open session gives that message, or -ERR, or the connection ends without a final dot."""
    for number, text in enumerate(wanted, 1):
        try:
            reply = pop.cmd(f"RETR {number}")
            if reply.startswith(b"-ERR"):
                continue
            same(pop.body(), text, f"RETR {number} after the change")
        except (EOFError, ConnectionError):
            break
    pop.close()


CHANGES = {}


def change(name):
    def mark(function):
        CHANGES[name] = function
        return function

    return mark


@change("replaced by rename")
def replace(drop):
    other = drop + ".new"
    with open(other, "wb") as file:
        file.write(spool.spool([spool.mail(f"replaced {n}", b"r" * 200 + b"\n") for n in range(9)]))
    shutil.copystat(drop, other)
    os.chown(other, os.stat(drop).st_uid, os.stat(drop).st_gid)
    os.rename(other, drop)


@change("truncated to nothing")
def empty(drop):
    os.truncate(drop, 0)


@change("truncated in the middle of a message")
def halve(drop):
    os.truncate(drop, os.path.getsize(drop) // 2 + 17)


@change("removed")
def remove(drop):
    os.unlink(drop)


@change("overwritten in place, same size")
def overwrite(drop):
    with open(drop, "r+b") as file:
        text = file.read()
        file.seek(0)
        file.write(re.sub(rb"message (\d)", lambda m: b"massage " + m[1], text))


@change("rewritten in another order")
def shuffle(drop):
    with open(drop, "r+b") as file:
        parts = [part for part in re.split(rb"(?m)^(?=From sender@)", file.read()) if part]
        file.seek(0)
        file.write(b"".join(reversed(parts)))


for _name, _function in CHANGES.items():

    @test(f"foreign: a drop {_name} while a session is open")
    def changed(bench, function=_function):
        # Long messages too, so that a change can meet one that is being sent.
        texts = spool.plain(3) + [spool.mail("long", b"a long line of message 7\n" * 400_000)] + spool.plain(6)[3:]
        for begun in (False, True):
            site = bench.site(name=f"site{len(bench.sites)}")
            drop = site.fill(spool.spool(texts))
            site.start()
            wanted = spool.messages(drop)
            pop = site.login(receive_buffer=8192)
            if begun:
                pop.send("RETR 4\r\n")
                check(pop.line().startswith(b"+OK"), "RETR 4")
                while len(pop.buffer) < 20_000:
                    pop.more()
            function(drop)
            if begun:
                try:
                    same(pop.body(), wanted[3], "a message that was being sent")
                except (EOFError, ConnectionError):
                    pop.close()
                    pop = None
            if pop:
                never_wrong(pop, wanted)
            pop = site.retry_login()
            same(pop.everything(), spool.messages(drop), "messages of the next session")
            pop.quit()
            site.alive()


for _name, _function in CHANGES.items():

    @test(f"foreign: QUIT after DELE does not touch a drop {_name}")
    def doomed(bench, function=_function):
        site, drop, wanted = filled(bench, spool.plain(7))
        pop = site.login()
        for number in (1, 3, 7):
            pop.ok(f"DELE {number}")
        function(drop)
        try:
            pop.cmd("QUIT")
        except (EOFError, ConnectionError):
            pass
        pop.close()
        # Whatever was not there when the session marked is still there; what it marked may be gone.
        after = spool.messages(drop)
        pop = site.retry_login()
        found = pop.everything()
        pop.quit()
        marked = {wanted[n - 1] for n in (1, 3, 7)}
        kept = [text for text in after if text not in marked]
        same([text for text in found if text not in marked], kept, "messages nobody marked")
        wait_for("the drop holds them", lambda: [text for text in spool.messages(drop) if text not in marked] == kept)


@test("foreign: yesterday's backup of a drop brings no new UIDs")
def restored(bench):
    site, drop, _ = filled(bench, settings=COMPACTED)
    backup = open(drop, "rb").read()
    pop = site.login()
    uids = pop.uidl()
    pop.ok("DELE 2")
    pop.ok("DELE 5")
    pop.quit()
    wait_for("the drop is compacted", lambda: len(spool.messages(drop)) == 4)
    with open(drop, "r+b") as file:
        file.write(backup)
    pop = site.retry_login()
    now = pop.uidl()
    known = {uid: number for number, uid in uids.items()}
    check(set(now.values()) <= set(known), "new UIDs:", set(now.values()) - set(known))
    check({uids[n] for n in (1, 3, 4, 6)} <= set(now.values()), "survivors are missing")
    # What was deleted and compacted is back with the backup, under its old UIDs: clients that fetched it know it.
    pop.quit()


@test("foreign: a drop that is locked is not waited for for ever, and others are served")
def locked(bench):
    site, drop, wanted = filled(bench)
    site.fill(spool.spool(spool.plain(2)), "bob")
    box = spool.locked(drop)
    pop = site.pop(timeout=40)
    pop.ok("USER ann")
    pop.send("PASS secret\r\n")
    # Meanwhile bob is served.
    with site.login("bob") as other:
        same(other.stat()[0], 2, "STAT of bob")
        other.quit()
    pop.quiet(0.3) if not pop.buffer else None
    box.unlock()
    box.close()
    reply = pop.line()
    check(reply.startswith(b"+OK"), "after the lock went:", reply)
    same(pop.everything(), wanted, "messages")
    pop.quit()


@test("foreign: what could not be compacted is compacted by the next session")
def put_off(bench):
    site, drop, wanted = filled(bench, settings=COMPACTED)
    pop = site.login()
    pop.ok("DELE 1")
    pop.ok("DELE 2")
    # Another program has the drop all the while, and then the server dies.
    box = spool.locked(drop)
    pop.quit()
    same(spool.messages(drop), wanted, "the drop while another program has it")
    site.stop(signal.SIGKILL)
    box.unlock()
    box.close()
    site.start()
    pop = site.retry_login()
    same(pop.everything(), wanted[2:], "messages of the next session")
    pop.quit()
    wait_for("the drop holds what clients see", lambda: spool.messages(drop) == wanted[2:], 5)


@test("foreign: a stale dotlock of a dead process does not stop anybody for ever", 60)
def stale(bench):
    site, drop, wanted = filled(bench)
    dead = subprocess.Popen(["true"])
    dead.wait()
    with open(drop + ".lock", "w", encoding="ascii") as file:
        file.write(f"{dead.pid}\n")
    old = time.time() - 7200
    os.utime(drop + ".lock", (old, old))
    pop = site.retry_login(seconds=30)
    same(pop.everything(), wanted, "messages")
    pop.quit()


@test("foreign: links, devices and directories are not taken for drops")
def not_drops(bench):
    users = {f"user{n}": "secret" for n in range(6)}
    site = bench.site(users=users)
    secret = bench.write("secret", spool.spool([spool.mail("not for you")]))
    before = open(secret, "rb").read()
    os.symlink(secret, site.drop("user0"))
    os.link(secret, site.drop("user1"))
    os.mkfifo(site.drop("user2"))
    os.mkdir(site.drop("user3"))
    os.symlink("/dev/zero", site.drop("user4"))
    site.start()
    for user in list(users)[:5]:
        with site.pop() as pop:
            pop.ok(f"USER {user}")
            reply = pop.cmd("PASS secret")
            check(reply.startswith(b"-ERR [SYS/"), user, "was answered", reply)
    with site.login("user5") as pop:
        pop.quit()
    same(open(secret, "rb").read(), before, "the file behind the links")
    check(not glob.glob(secret + ".*"), "files beside the target of a link")
