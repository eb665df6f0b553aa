"""kill -9, between sessions, in the middle of QUIT and of the compaction behind it, with and without another program that
appends at that moment. What is promised holds: what the other program delivered is there; QUIT answered +OK means gone for
good; not answered means all or none of that session's deletions; never an unmarked message; whole drops, with their owner and
mode; the same UIDs; nothing left over. Rounds take turns: a drop compacted at every QUIT, and one that keeps its dead until they
are the half of it.

CRASH_ROUNDS is how many rounds (30 unless set), SEED repeats a run."""

import json
import os
import signal
import subprocess
import time

from harness import actors, spool
from harness.suite import check, same, test, wait_for

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "30"))


def whole(drop, known):
    """The drop is a well-formed mbox of messages we know."""
    with open(drop, "rb") as file:
        check(not file.read(1) or file.seek(0) == 0 and file.read(5) == b"From ", "the drop does not begin with From")
    for text in spool.messages(drop):
        check(text in known, "the drop holds what nobody wrote:", text[:200])


def identity(drop):
    status = os.stat(drop)
    return status.st_ino, status.st_mode, status.st_uid, status.st_gid


def copies(site):
    return [name for name in os.listdir(site.spool) if name.startswith(".ann.copy")]


def rounds(bench, when, appends):
    site = bench.site(tls=False)
    count, serial = 30, 0
    sizes = (50, 300, 3_000, 40_000)

    def fresh(number):
        nonlocal serial
        texts = []
        for _ in range(number):
            serial += 1
            texts.append(spool.mail(f"number {serial}", b"".join(b".%d of %d\n" % (n, serial) for n in range(bench.random.choice(sizes) // 12))))
        return texts

    drop = site.fill(spool.spool(fresh(count)))
    known = set(spool.messages(drop))
    looks = identity(drop)
    other = actors.Actor(bench.random.random()) if appends else None
    alive = spool.messages(drop)  # what our clients may see, in order
    uids = {}
    takes = 0.004
    answered = cut = undone = nameless = left = deferred = compacting = 0
    lock = drop + ".lock"
    for n in range(ROUNDS):
        site.extra["bin_pfull"] = full = (0.5, 1)[n // 2 % 2]
        site.start(patient=True)
        pop = site.retry_login(timeout=20)
        same(pop.everything(), alive, f"round {n}: messages")
        now = list(pop.uidl().values())
        for text, uid in zip(alive, now):
            same(uids.setdefault(text, uid), uid, f"round {n}: a survivor's UID")
        whole(drop, known)
        same(identity(drop), looks, f"round {n}: inode, mode and owner of the drop")
        marked = sorted(bench.random.sample(range(len(alive)), bench.random.randrange(0, len(alive) // 2 + 1)))
        for index in marked:
            pop.ok(f"DELE {index + 1}")
        new = []
        if appends and len(alive) < 60:
            texts = fresh(2)
            new = [spool.on_the_wire(text) for text in texts]
            known.update(new)
            spool.append(drop, b"".join(spool.entry(text, 1) for text in texts))
            # More at the moment of the kill. With the kernel's lock only: the dotlock of a dead server goes with the next login.
            orders = []
            for _ in range(3):
                serial += 1
                words = dict(drop="ann", path=drop, name=f"beside.{serial}", way="fcntl", crlf=bench.random.random() < 0.3)
                orders.append((actors.deliver, words))
                new.append(spool.on_the_wire(actors.message(words["name"], False, words["crlf"])))
            known.update(new)
            other.order(orders)
        began = time.perf_counter()
        said = False
        if when == "in":
            pop.send(b"QUIT\r\n")
            wait = bench.random.random() * takes * 2.5
            while time.perf_counter() - began < wait:
                pass
        elif when == "after":
            pop.ok("QUIT")
            said = True
            takes = max(0.0005, 0.8 * takes + 0.2 * (time.perf_counter() - began))
            wait = bench.random.random() * bench.random.choice((0.002, 0.01, 0.03))
            while time.perf_counter() - began < wait:
                pass
        elif when == "compacting":
            pop.ok("QUIT")
            said = True
            # As soon as its copy is seen, if there is a compaction at all, and then anywhere in it.
            while time.perf_counter() - began < 0.05 and not copies(site):
                pass
            began, wait = time.perf_counter(), bench.random.random() * 0.006
            while time.perf_counter() - began < wait:
                pass
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(20)
        if when == "in":
            said = b"+OK" in pop.rest()
            # About half of the kills before the answer, on any machine.
            takes *= 0.9 if said else 1.1
        pop.close()
        compacting += bool(copies(site))
        if new:
            done, trouble = other.answer(60)
            check(not trouble and len(done) == 3, f"round {n}: the other program:", trouble)
        if os.path.exists(lock) and os.path.getsize(lock) == 0:
            # Nobody can tell whose it was, so the mailbox would stay closed until it is five minutes old.
            nameless += 1
            os.unlink(lock)
        # Now the next server judges.
        site.start(patient=True)
        pop = site.retry_login(timeout=20)
        found = pop.everything()
        all_gone = [text for index, text in enumerate(alive) if index not in marked] + new
        none_gone = alive + new
        if said:
            same(found, all_gone, f"round {n}: QUIT was answered, {len(marked)} marked; messages")
            answered += 1
        elif marked:
            check(found in (all_gone, none_gone), f"round {n}: not all or none of the deletions:", len(none_gone), "messages, marked",
                  len(marked), "found", len(found))
            cut += 1
            undone += found == none_gone
        else:
            same(found, none_gone, f"round {n}: nothing was marked; messages")
        pop.quit()
        wait_for("the session is over", lambda: site.is_quiet())
        if os.path.exists(lock):
            # Procmail and the others wait for a process that is dead.
            left += 1
            os.unlink(lock)
        whole(drop, known)
        stored = spool.messages(drop)
        odd = set(os.listdir(site.spool)) - {"ann", ".ann.bin", ".ann.idx"}
        check(not odd, f"round {n}: left over:", odd)
        kept = iter(stored)
        check(all(text in kept for text in found), f"round {n}: the drop lacks messages, or has them in another order")
        same(identity(drop), looks, f"round {n}: inode, mode and owner of the drop")
        if full == 1:
            same(stored, found, f"round {n}: compacted at every QUIT, the drop")
        deferred += len(stored) > len(found)
        same(site.stop(), 0, "exit code")
        alive = found
        if len(alive) < 12:
            texts = fresh(count)
            spool.append(drop, b"".join(spool.entry(text, 2) for text in texts))
            alive += [spool.on_the_wire(text) for text in texts]
            known.update(alive)
    print("counted:", json.dumps(dict(rounds=ROUNDS, answered=answered, cut=cut, undone=undone, deferred=deferred,
                                      compacting=compacting)))
    check(not nameless, nameless, "of", ROUNDS, "kills left a dotlock that does not say whose it is")
    check(not left, "after", left, "of", ROUNDS, "kills the dead server's dotlock outlived the next session")
    if when == "compacting":
        check(compacting, "no kill met a compaction")
    if when == "in" and ROUNDS >= 30:
        check(deferred, "no drop ever kept its dead")
        check(answered and cut, "the kills all fell on one side of the answer:", answered, "answered,", cut, "not")


@test("kill -9 in QUIT", 60 + 3 * ROUNDS)
def in_quit(bench):
    rounds(bench, "in", appends=False)


@test("kill -9 in QUIT, with other mail arriving", 60 + 3 * ROUNDS)
def in_quit_appends(bench):
    rounds(bench, "in", appends=True)


@test("kill -9 right after QUIT was answered", 60 + 3 * ROUNDS)
def after_quit(bench):
    rounds(bench, "after", appends=True)


@test("kill -9 while a drop is compacted, with other mail arriving", 60 + 3 * ROUNDS)
def in_compaction(bench):
    rounds(bench, "compacting", appends=True)


@test("kill -9 in a session: nothing is deleted", 60 + 3 * ROUNDS)
def in_session(bench):
    rounds(bench, "before", appends=True)


@test("kill -9 while authenticators are being started: the next server starts at once", 120)
def at_start(bench):
    site = bench.site(tls=False, settings={"authent_number": 16})
    site.fill(spool.spool(spool.plain(2)))
    refused = 0
    for n in range(ROUNDS * 2):
        site.start(patient=True)
        with site.pop() as pop:
            pop.send(b"USER ann\r\nPASS secret\r\n")
            began, wait = time.perf_counter(), bench.random.random() * 0.01
            while time.perf_counter() - began < wait:
                pass
            os.kill(site.process.pid, signal.SIGKILL)
            site.process.wait(20)
        # At once: what a supervisor without a pause does.
        site.launch()
        try:
            refused += site.process.wait(0.1) == 1
            said = site.said()
        except subprocess.TimeoutExpired:
            site.stop(signal.SIGKILL)
    check(not refused, refused, "of", ROUNDS * 2, "starts right after a kill were refused, at last with", said if refused else "")
