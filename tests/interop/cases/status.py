"""add_status: a Status line for messages that have none, and what becomes of it in the drop."""

import os
import shutil

from harness import spool
from harness.suite import check, need, same, test, wait_for

from .clients import Curl, MpopBox
from .foreign import mutt

NEW, READ = b"Status: UN\r\n", b"Status: RO\r\n"


def filled(bench, texts=None, **settings):
    site = bench.site(tls=False, settings={"add_status": "true", **settings})
    drop = site.fill(spool.spool(spool.plain(6) if texts is None else texts), mode=0o660)
    site.start()
    return site, drop, spool.messages(drop)


def session(site, retrieve=(), delete=()):
    """Retrieves these, deletes those."""
    pop = site.retry_login()
    for number in retrieve:
        pop.retr(number)
    for number in delete:
        pop.ok(f"DELE {number}")
    pop.quit()
    wait_for("the session is over", site.is_quiet)


def seen(site):
    """Sizes, UIDs and texts of a session that is not committed: nobody has read anything in it."""
    pop = site.retry_login()
    texts, sizes, uids = pop.everything(), pop.list(), list(pop.uidl().values())
    same(sizes, {number: len(text) for number, text in enumerate(texts, 1)}, "LIST is what RETR sends")
    same(pop.stat(), (len(texts), sum(sizes.values())), "STAT is the sum of it")
    for number, text in enumerate(texts, 1):
        head = text.partition(b"\r\n\r\n")[0]
        check(pop.fetch(f"TOP {number} 0")[0].startswith(head), "TOP begins as RETR does")
    pop.close()
    wait_for("the session is over", site.is_quiet)
    return texts, list(sizes.values()), uids


def lines(flags, texts):
    return [{"N": NEW, "R": READ, "-": b""}[flag] + text for flag, text in zip(flags, texts)]


@test("status: a message is UN until a session that retrieved it has ended well, RO from then on, and as long as ever")
def flags(bench):
    site, drop, wanted = filled(bench, [*spool.plain(4), b"Status: O\n" + spool.mail("own")])
    texts, sizes, uids = seen(site)
    same(texts, lines("NNNN-", wanted), "messages")
    same(seen(site)[0], texts, "messages after a session that broke off")
    session(site)
    same(seen(site)[0], texts, "messages after a session that retrieved nothing")
    session(site, retrieve=(2, 4, 5))
    again = seen(site)
    same(again[0], lines("NRNR-", wanted), "messages after 2, 4 and 5 were retrieved")
    same(again[1:], (sizes, uids), "sizes and UIDs")
    pop = site.retry_login()
    same(pop.ok("LAST").split()[1], b"5", "LAST")
    pop.close()
    # A new server, and more mail.
    site.stop()
    site.start()
    late = spool.mail("late")
    spool.append(drop, spool.entry(late, 11))
    texts, after, _ = seen(site)
    same(texts, lines("NRNR-N", [*wanted, spool.on_the_wire(late)]), "messages after a new start and a delivery")
    same(after[:5], sizes, "sizes")
    same(spool.messages(drop)[:5], wanted, "the drop")


@test("status: mutt sees as read what was retrieved and has moved, and clients see no difference")
def moved(bench):
    need("mutt")
    site, drop, wanted = filled(bench, bin_pfull=1)
    session(site, retrieve=(1, 3, 5))
    before = open(drop, "rb").read()
    texts, sizes, uids = seen(site)
    same(open(drop, "rb").read(), before, "the drop of which nothing was deleted")
    session(site, delete=(2,))
    stored = lines("-R-R-", [wanted[n] for n in (0, 2, 3, 4, 5)])
    same(spool.messages(drop), stored, "the drop when 2 was taken out")
    left = [0, 2, 3, 4, 5]
    after = seen(site)
    same(after, ([texts[n] for n in left], [sizes[n] for n in left], [uids[n] for n in left]), "what a client sees")
    os.unlink(os.path.join(os.path.dirname(drop), ".ann.idx"))
    same(seen(site)[1:], after[1:], "sizes and UIDs with a new index")
    # mutt takes away what it thinks is read.
    mutt(site, drop, "<delete-pattern>~R<enter><quit>")
    same(list(seen(site)[2]), [uids[n] for n in (0, 3, 5)], "what mutt left")


@test("status: what a shell user reads in mutt is read to a client, under the same UIDs")
def by_mutt(bench):
    need("mutt")
    site, drop, wanted = filled(bench)
    session(site, retrieve=(6,))
    uids = seen(site)[2]
    mutt(site, drop, "<jump>2<enter><display-message><exit><quit>")
    texts, _, after = seen(site)
    same(after, uids, "UIDs after mutt")
    stored = spool.messages(drop)
    check(b"\r\nStatus: RO\r\n" in stored[1].partition(b"\r\n\r\n")[0], "mutt says that it showed the second:", stored[1])
    same(texts, lines("N-NNNR", stored), "messages: mutt's line as it is stored, ours where there is none")


@test("status: clients that fetch twice get the flag, and mutt understands it in what they fetched")
def twice(bench):
    need("mutt")
    need("curl")
    need("mpop")
    site, drop, wanted = filled(bench)
    curl = Curl(bench, site, "plain")
    same(curl.fetch(True), lines("NNNNNN", wanted), "fetched first")
    wait_for("the session is over", site.is_quiet)
    same(curl.fetch(True), lines("RRRRRR", wanted), "fetched again")
    wait_for("the session is over", site.is_quiet)
    late = spool.mail("late")
    spool.append(drop, spool.entry(late, 11))
    shutil.rmtree(curl.home)
    mpop = MpopBox(bench, site, "plain")
    same(len(mpop.fetch(True)), 7, "messages fetched into a mailbox")
    box = os.path.join(mpop.home, "box")
    mutt(site, box, "<delete-pattern>~R<enter><quit>")
    left = spool.messages(box)
    check(len(left) == 1 and b"late" in left[0], "mutt takes the others for read:", len(left))


@test("status: without add_status a client gets what is stored, and nobody is known to have read it")
def off(bench):
    site, drop, wanted = filled(bench, add_status="false")
    session(site, retrieve=(1, 2, 3))
    same(seen(site)[0], wanted, "messages")
    session(site, delete=(1,))
    # And a reload turns it on for who comes then.
    site.extra["add_status"] = "true"
    site.write_conf()
    done = site.tell("reload")
    check(done.returncode == 0 and b"add_status: false -> true" in done.stdout, "reload:", done.stdout, done.stderr)
    same(seen(site)[0], lines("NNNNN", wanted[1:]), "messages after the reload")
