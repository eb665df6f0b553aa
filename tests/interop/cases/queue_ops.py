"""What administrators do with mail that waits: filters, hold and release, another way, pause over a restart, ETRN; and what each entry
says of itself."""

import contextlib
import os
import smtplib

from harness import spool
from harness.suite import check, same, test, wait_for

from .tellsmtp import client, refused, tell, told


def parked(bench, **settings):
    """A server that keeps what is for other hosts: three messages wait."""
    settings = {"route": "there.example,*.there.example park", **settings}
    site = bench.site(tls=False, mail=True, settings=settings)
    site.fill(spool.spool(spool.plain(1)))
    site.start()
    with client(site) as smtp:
        for number in range(3):
            smtp.sendmail(f"ann{number}@a.test", ["bob@there.example", f"eve@sub{number}.there.example"],
                          b"Subject: x\r\n\r\n" + b"x" * 100 * number + b"\r\n")
    wait_for("all wait", lambda: len(ids(site, "state=deferred")) == 3)
    return site


def ids(site, *filters):
    return [row["id"] for row in told(site, "queue", *filters)["queue"]]


def who(site, ident):
    return told(site, "queue", "show", ident)["who"]


@test("queue: each entry says where it goes, why it waits, and what would let it go on")
def entries(bench):
    site = parked(bench)
    for row in told(site, "queue")["queue"]:
        check(row["place"] == "park" or "park" in row["place"], row)
        check(row["unblock"].startswith("parked: ") and row["id"] in row["unblock"] and not row["possibly"], row)
        check(row["next"].endswith("Z") and row["next_secs"] > 0 and row["tries"] == 1, row)
    text = tell(site, "queue").stdout.decode()
    check("what helps: parked: its host fetches it with ETRN" in text and "next try: 20" in text, text)


@test("queue: filters choose by domain, reason and size, and a change is of the recipients that they name")
def filters(bench):
    site = parked(bench)
    one = ids(site, "domain=sub1.there.example")
    same(len(one), 1, "one domain")
    same((len(ids(site, "domain=*.there.example")), len(ids(site, "reason=*park*")), ids(site, "reason=*refused*")),
         (3, 3, []), "domain and reason")
    same((len(ids(site, "larger=150")), len(ids(site, "size=0-150")), len(ids(site, "place=*park*"))), (1, 2, 3), "size, place")
    same(told(site, "queue", "hold", "domain=sub1.there.example", "1")["recipients"], 1, "one recipient is held")
    same([row["state"] for row in who(site, one[0])], ["deferred", "held"], "and the other is not")
    check(who(site, one[0])[1]["unblock"].startswith("held: `tellsmtp queue release"), "what helps")
    same(told(site, "queue", "release", "domain=sub1.there.example", "--yes")["changed"], 1, "release")
    wait_for("it is parked again", lambda: [row["state"] for row in who(site, one[0])] == ["deferred", "deferred"])
    refused(site, "queue", "hold", "weight=1", saying="is no filter", code=2)
    refused(site, "queue", "hold", "domain=there.example", "17", saying="none was changed")


@test("queue: who is sent another way goes that way, and it is taken back; a restart forgets neither")
def route(bench):
    site = parked(bench)
    first = ids(site)[0]
    refused(site, "queue", "route", first, saying="via=TARGET", code=2)
    refused(site, "queue", "route", first, "via=lmtp:", saying="via=lmtp:")
    # Nobody listens there.
    same(told(site, "queue", "route", first, "via=[127.0.0.1]:1 inside")["recipients"], 2, "routed")
    wait_for("it was tried there", lambda: all(row["why"].startswith("4.4.1") for row in who(site, first)))
    check(all(row["via"] and "127.0.0.1" in row["place"] for row in who(site, first)), who(site, first))
    site.stop()
    site.start()
    wait_for("the queue is there", lambda: len(ids(site)) == 3)
    check(all("127.0.0.1" in row["place"] for row in who(site, first)), who(site, first))
    same(told(site, "queue", "route", "place=*127.0.0.1*", "via=normal", "--yes")["changed"], 1, "taken back")
    wait_for("it is parked again", lambda: all(row["unblock"].startswith("parked") for row in who(site, first)))
    check(all(row["via"] is None for row in who(site, first)), who(site, first))


@test("pause: it holds at once and over a restart, everything says so, and resume takes it back")
def pause(bench):
    site = parked(bench, route="there.example,*.there.example [127.0.0.1]:1 inside")
    place = told(site, "queue")["queue"][0]["place"]
    same(told(site, "pause", place)["places_paused"], [place.lower()], "one place")
    check(all("is paused: `tellsmtp resume" in row["unblock"] for row in told(site, "queue")["queue"]), "the queue says so")
    same([row["state"] for row in told(site, "showsend")["sending"] if row["place"] == place], ["paused"], "showsend")
    same(told(site, "resume", place)["changed"], True, "resume")
    same(told(site, "pause")["all_paused"], True, "everything")
    refused(site, "resume", place, saying="all sending is paused")
    check(os.path.exists(os.path.join(site.work, "paused")), "it is written down")
    site.stop()
    site.start()
    wait_for("the queue is there", lambda: len(ids(site)) == 3)
    status = told(site, "status")["sending"]
    same((status["all_paused"], told(site, "showsend")["all_paused"]), (True, True), "after a restart")
    same({row["unblock"] for row in told(site, "queue")["queue"]}, {"sending is paused: `tellsmtp resume`"}, "what helps")
    same(told(site, "resume")["all_paused"], False, "resume")
    check(not os.path.exists(os.path.join(site.work, "paused")), "nothing is written down")


@test("ETRN: who may say it has what is parked sent by MX, and to everybody else there is no such command")
def etrn(bench):
    site = parked(bench, etrn_from_ip="127.0.0.9")
    with client(site) as smtp:
        check(not smtp.ehlo()[1].decode().count("ETRN"), "nobody else is offered it")
        same(smtp.docmd("ETRN", "there.example")[0], 500, "nor has it")
    with contextlib.closing(smtplib.SMTP("127.0.0.1", site.smtp_port, timeout=20, source_address=("127.0.0.9", 0))) as smtp:
        check("ETRN" in smtp.ehlo()[1].decode().split("\n"), "it is offered")
        for argument, code in (("nobody.example", 251), ("example.test", 459), ("#x", 458), ("", 501), ("a b", 501)):
            same(smtp.docmd("ETRN", argument)[0], code, f"ETRN {argument}")
        told(site, "pause")
        code, text = smtp.docmd("ETRN", "sub1.there.example")
        same((code, text.decode().split()[1]), (253, "1"), "one message")
        same(smtp.docmd("ETRN", "@sub2.there.example")[0], 253, "and below")
    one = ids(site, "domain=sub1.there.example")[0]
    same([row["via"] for row in who(site, one)], [None, "mx"], "only that domain's recipient goes by MX")
