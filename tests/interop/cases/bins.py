"""Where deletions and indexes are kept: a changed layout, a full disk, and dmail repair."""

import os

from harness import spool
from harness.suite import DMAIL, check, run, same, test, wait_for


def repair(site, *words):
    done = run([DMAIL, "repair", "-i", site.conf, *words])
    return done.returncode, (done.stdout + done.stderr).decode()


def files(folder):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)


def reloaded(site, **settings):
    site.extra = dict(site.extra, **settings)
    site.write_conf()
    done = site.tell("reload")
    same(done.returncode, 0, f"exit code of the reload; {done.stdout!r}")


@test("bins: a changed hash_bindir takes the deletions along")
def hash_bindir(bench):
    bins = bench.path("bins")
    os.mkdir(bins, 0o700)
    site = bench.site(settings={"bin_path": bins})
    drop = site.fill(spool.spool(spool.plain(4)))
    before = spool.messages(drop)
    site.start()
    pop = site.login()
    pop.ok("DELE 2")
    # Another program has the drop when its user quits: the bytes stay, and only the ledger knows.
    lock = drop + ".lock"
    with open(lock, "x", encoding="ascii"):
        pass
    pop.quit()
    wait_for("the session's end", site.is_quiet)
    os.remove(lock)
    left = before[:1] + before[2:]
    flat = files(bins)
    for value in ("true", "false", "true"):
        reloaded(site, hash_bindir=value)
        same(len(spool.messages(drop)), 4, "messages in the drop")
        pop = site.retry_login()
        same(pop.everything(), left, f"messages with hash_bindir {value}")
        # Left without QUIT: nothing is compacted, the ledger goes on being all there is.
        pop.close()
        wait_for("the session's end", site.is_quiet)
        now = files(bins)
        same(now == flat, value == "false", f"bins at their first place, {now}")
        check(all(path.endswith(("/.ann.bin", "/.ann.idx")) for path in now) and len(now) == 2, now)


@test("bins: below min_space no index is written, reading and deleting go on, and the log says it once")
def min_space(bench):
    site = bench.site(settings={"min_space": 1_000_000_000})
    drop = site.fill(spool.spool(spool.plain(4)))
    before = spool.messages(drop)
    site.start()
    for _ in range(3):
        pop = site.retry_login()
        same(pop.everything(), before, "messages")
        pop.ok("DELE 1")
        pop.quit()
        del before[0]
    wait_for("the sessions' end", site.is_quiet)
    check(not os.path.exists(os.path.join(site.spool, ".ann.idx")), "an index was written")
    same(len(spool.messages(drop)), 4, "messages that still have their bytes")
    same(site.log().count("less than min_space is free"), 1, "lines when it began")
    reloaded(site, min_space=0)
    pop = site.retry_login()
    same(pop.everything(), before, "messages with space")
    pop.quit()
    wait_for("the drop holds what clients see", lambda: spool.messages(drop) == before)
    same(site.log().count("there is space again"), 1, "lines when it ended")


@test("bins: dmail repair looks, mends, and leaves alone what somebody has")
def repairs(bench):
    site = bench.site()
    drop = site.fill(spool.spool(spool.plain(4)))
    before = spool.messages(drop)
    site.start()
    pop = site.login()
    for words in ((), ("-n",), ("--compact",)):
        code, said = repair(site, *words, "ann")
        same(code, 1, "exit code while a session has it")
        check("a session has it" in said, said)
    same(pop.everything(), before, "messages of that session")
    uids = pop.uidl()
    pop.quit()
    wait_for("the session's end", site.is_quiet)

    index = os.path.join(site.spool, ".ann.idx")
    with open(index, "r+b") as file:
        file.seek(300)
        file.write(b"damage")
    for leftover in (".ann.copy.new", ".ann.lock.new"):
        with open(os.path.join(site.spool, leftover), "wb") as file:
            file.write(b"left behind")
    code, said = repair(site, "-n", "ann")
    same(code, 1, "exit code of a look at damage")
    check("the index is damaged" in said and "was left behind" in said, said)
    check(os.path.exists(os.path.join(site.spool, ".ann.copy.new")), "looking removed something")
    code, said = repair(site, drop)
    same(code, 0, f"exit code of the repair; {said}")
    check(all(line.startswith(drop + ": ") for line in said.splitlines()), said)
    check("messages: 4 live" in said and ", 0 dead" in said, said)
    same(sorted(os.listdir(site.spool)), [".ann.bin", ".ann.idx", "ann"], "files")
    code, said = repair(site, "-n", "ann")
    same(code, 0, f"exit code of a second look; {said}")
    pop = site.login()
    same(pop.uidl(), uids, "UIDs after the repair")
    same(pop.everything(), before, "messages after the repair")
    pop.quit()
    for words, code in (((), 2), (("-n", "--compact", "ann"), 2), (("/etc/passwd",), 1), (("../ann",), 1)):
        same(repair(site, *words)[0], code, f"exit code of repair {words}")
