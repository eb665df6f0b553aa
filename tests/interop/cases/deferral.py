"""What QUIT deleted stays in the drop file until it is half of it, and no client sees anything of that."""

import os

from harness import spool
from harness.suite import check, same, test, wait_for


def filled(bench, count, **settings):
    site = bench.site(tls=False, settings=settings)
    drop = site.fill(spool.spool(spool.plain(count)))
    site.start()
    return site, drop, spool.messages(drop)


def delete(site, *numbers):
    """A session that deletes these. When it is over, so is what follows from it."""
    pop = site.retry_login()
    for number in numbers:
        pop.ok(f"DELE {number}")
    pop.quit()
    wait_for("the session is over", site.is_quiet)


def seen(site):
    pop = site.retry_login()
    texts, uids = pop.everything(), list(pop.uidl().values())
    same(pop.stat(), (len(texts), sum(len(text) for text in texts)), "STAT is exact")
    same(pop.list(), {number: len(text) for number, text in enumerate(texts, 1)}, "LIST is exact")
    pop.quit()
    wait_for("the session is over", site.is_quiet)
    return texts, uids


@test("deferral: a drop keeps its dead until they are the half of it, and clients see none of them")
def half(bench):
    site, drop, wanted = filled(bench, 10)
    texts, uids = seen(site)
    same(texts, wanted, "messages")
    before = open(drop, "rb").read()
    for gone in range(1, 6):
        delete(site, 1)
        same(open(drop, "rb").read(), before, f"the drop with {gone} of 10 dead")
        same(seen(site), (wanted[gone:], uids[gone:]), f"messages with {gone} of 10 dead")
    # Also what arrives is seen right behind the dead, and a new server knows them.
    late = spool.mail("late")
    spool.append(drop, spool.entry(late, 11))
    same(seen(site)[0], [*wanted[5:], spool.on_the_wire(late)], "messages after a delivery")
    site.stop()
    site.start()
    same(seen(site)[1][:5], uids[5:], "UIDs after a new start")
    delete(site, 1, 2)
    same(spool.messages(drop), [*wanted[7:], spool.on_the_wire(late)], "the drop when more than half is dead")
    same(seen(site)[1][:3], uids[7:], "UIDs after the compaction")
    delete(site, 1, 2, 3, 4)
    same(os.path.getsize(drop), 0, "the drop when all is dead")


@test("deferral: who rewrites the drop has it compacted at every QUIT from then on")
def shared(bench):
    site, drop, wanted = filled(bench, 10)
    delete(site, 1)
    same(len(spool.messages(drop)), 10, "messages in the drop")
    # A delivery alone changes nothing.
    late = spool.mail("late")
    spool.append(drop, spool.entry(late, 11))
    delete(site, 1)
    same(len(spool.messages(drop)), 11, "messages in the drop after a delivery")
    # A shell user's mailer marks a message as read.
    box = spool.locked(drop)
    message = box[9]
    message.set_flags("RO")
    box[9] = message
    box.flush()
    box.unlock()
    box.close()
    delete(site)
    texts = spool.messages(drop)
    same((len(texts), texts[:7]), (9, wanted[2:9]), "the drop after a rewriting and a QUIT that deleted nothing")
    delete(site, 1)
    same(spool.messages(drop), texts[1:], "the drop after one more QUIT")


@test("deferral: bin_pfull 1 and 0, and a reload between them")
def settings(bench):
    site, drop, wanted = filled(bench, 10, bin_pfull=1)
    delete(site, 3)
    same(len(spool.messages(drop)), 9, "messages in the drop with bin_pfull 1")
    site.extra["bin_pfull"] = 0
    site.write_conf()
    done = site.tell("reload")
    check(done.returncode == 0 and b"bin_pfull: 1 -> 0" in done.stdout, "reload:", done.stdout, done.stderr)
    delete(site, *range(1, 9))
    same(len(spool.messages(drop)), 9, "messages in the drop with bin_pfull 0")
    same(seen(site)[0], wanted[9:], "messages")
    delete(site, 1)
    same(os.path.getsize(drop), 0, "the drop when all is dead")


@test("deferral: who comes back right after a QUIT that deleted is let in, while the drop is compacted or just was")
def back_at_once(bench):
    site = bench.site(settings={"bin_pfull": 1})
    site.fill(spool.spool(spool.plain(36)))
    site.start()
    left = 36
    while left > 0:
        # `login` takes no [IN-USE] for an answer.
        pop = site.login()
        same(pop.stat()[0], left, "messages that are left")
        for number in range(1, min(left, 3) + 1):
            pop.ok(f"DELE {number}")
        pop.send(b"QUIT\r\n")
        check(pop.line().startswith(b"+OK"), "QUIT")
        left -= min(left, 3)
    site.alive()
