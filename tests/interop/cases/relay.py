"""Who may send what through us: nothing relays without a right, each right lets pass whom it names, bans hold, senders are who
they say, and nobody sends more than he may.

Addresses of 127.0.0.0/8 are different clients; `forward_from_ip 127.0.0.1` makes strangers of all the others."""

import base64
import json
import os
import smtplib

from harness import spool
from harness.suite import DMAIL, check, run, same, test, wait_for

STRANGER = "127.0.0.9"
FAR = "bob@there.example"


def served(bench, name="site", users=None, **settings):
    site = bench.site(tls=False, mail=True, name=name, users=users, settings={"forward_from_ip": "127.0.0.1", **settings})
    site.fill(spool.spool(spool.plain(1)))
    return site.start()


def client(site, source="127.0.0.1", port="smtp_port", hello=True):
    """A connection of smtplib; `docmd` sends a line and gives code and text."""
    smtp = smtplib.SMTP(timeout=20, source_address=(source, 0), local_hostname="client.test")
    code, text = smtp.connect("127.0.0.1", getattr(site, port))
    check(code == 220, "greeting:", code, text)
    if hello:
        smtp.ehlo()
    return smtp


def user(site, name="ann", source=STRANGER):
    smtp = client(site, source, "submission_port")
    secret = base64.b64encode(f"\0{name}\0{site.users[name]}".encode()).decode()
    code, text = smtp.docmd("AUTH", f"PLAIN {secret}")
    check(code == 235, "AUTH:", code, text)
    return smtp


def mail(smtp, sender="bob@elsewhere.example"):
    smtp.docmd("RSET")
    return told(smtp.docmd("MAIL", f"FROM:<{sender}>"))


def rcpt(smtp, recipient=FAR, sender="bob@elsewhere.example"):
    """What RCPT is answered, in a transaction of its own: code and enhanced code."""
    reply = mail(smtp, sender)
    if reply[0] != 250:
        return reply
    return told(smtp.docmd("RCPT", f"TO:<{recipient}>"))


def told(reply):
    code, text = reply
    return code, text.split()[0].decode()


GOOD = (250, "2.1.5")
DENIED = (550, "5.7.1")


@test("relay: nothing passes for a stranger however the address is written")
def closed(bench):
    site = served(bench, smtp_max_errors=1000)
    with client(site, STRANGER) as smtp:
        for recipient in (
            FAR, "bob@THERE.EXAMPLE", "bob@example.test.there.example", "bob@there.example.test", "bob@[192.0.2.1]", "bob@[127.0.0.1]",
            "bob@[IPv6:::1]", "bob%example.test@there.example", "example.test!bob@there.example", '"bob@example.test"@there.example',
            "@example.test:bob@there.example", "@example.test,@there.example:bob@far.example", "postmaster@there.example",
        ):
            for sender in ("", "ann@example.test", "bob@there.example"):
                reply = rcpt(smtp, recipient, sender)
                same(reply, DENIED, f"{recipient} from <{sender}>")
        # Not relayed: users of ours who do not exist.
        for recipient in ("bob%there.example@example.test", "there.example!bob@example.test", '"bob@there.example"@example.test',
                          "@there.example:nobody@example.test"):
            same(rcpt(smtp, recipient), (550, "5.1.1"), recipient)
        for recipient in ("ann@example.test", "Ann@EXAMPLE.test", "@there.example:ann@example.test"):
            same(rcpt(smtp, recipient), GOOD, recipient)
    with client(site, STRANGER, "submission_port") as smtp:
        same(mail(smtp), (530, "5.7.0"), "submission without a login")
    log = site.log()
    check("550 5.7.1 Relaying denied" in log, "the log has the refusal:", log[-2000:])
    check("nothing else allows it" in log, "and, at debug, the trail:", log[-2000:])


@test("relay: each right lets pass whom it names and nobody else")
def rights(bench):
    site = served(bench, relay_to=["branch.example", "*.branch.example"], forward_from="partner.example")
    with client(site) as smtp:
        same(rcpt(smtp), GOOD, "forward_from_ip")
        same(rcpt(smtp, "bob%far.example@branch.example"), GOOD, "who may relay anywhere may write what he likes")
    with client(site, STRANGER) as smtp:
        for recipient, reply in (("a@branch.example", GOOD), ("a@MX.Branch.Example", GOOD), ("a@otherbranch.example", DENIED),
                                 ("bob%far.example@branch.example", DENIED), ("far.example!bob@branch.example", DENIED),
                                 ('"bob@far.example"@branch.example', DENIED)):
            same(rcpt(smtp, recipient), reply, recipient)
        same(rcpt(smtp, FAR, "x@partner.example"), GOOD, "forward_from")
        same(rcpt(smtp, FAR, "x@sub.partner.example"), DENIED, "another sender")
        same(rcpt(smtp, "bob@[192.0.2.1]", "x@partner.example"), DENIED, "an address in brackets")
    with user(site) as smtp:
        same(rcpt(smtp, FAR, "ann@example.test"), GOOD, "a login")
    done = run([DMAIL, "check", "-i", site.conf])
    check(b"warning: forward_from: whoever says that he is partner.example" in done.stdout, done.stdout)


@test("relay: POP before SMTP opens the address of those it names")
def popped(bench):
    site = served(bench, forward_user="ann", forward_user_minutes=5)
    reader, other = "127.0.0.7", "127.0.0.8"
    for source in (reader, other):
        with client(site, source) as smtp:
            same(rcpt(smtp), DENIED, "before")
    for source, name in ((reader, "ann"), (other, "bob")):
        pop = site.pop(source=source)
        pop.login(name, site.users[name])
        pop.quit()
    with client(site, reader) as smtp:
        same(rcpt(smtp), GOOD, "ann has read her mail there")
    for source in (other, STRANGER):
        with client(site, source) as smtp:
            same(rcpt(smtp), DENIED, f"{source}: no user that forward_user names was there")


@test("relay: bans hold at the greeting, for senders and for recipients, and never for a postmaster of ours")
def bans(bench):
    site = served(bench, ban_ip="127.0.0.64/26", ban_ip_except="127.0.0.70", ban_mailfrom=["*@spam.example", "bulk.example"],
                  ban_rcptto="ann@*,post*")
    for source in ("127.0.0.66", "127.0.0.70"):
        smtp = smtplib.SMTP(timeout=20, source_address=(source, 0))
        code, text = smtp.connect("127.0.0.1", site.smtp_port)
        same(code, 220 if source == "127.0.0.70" else 554, text)
        smtp.close()
    with client(site, STRANGER) as smtp:
        for sender, reply in (("x@spam.example", DENIED), ("X@BULK.example", DENIED), ("x@mx.spam.example", (250, "2.1.0")),
                              ("", (250, "2.1.0"))):
            same(mail(smtp, sender), reply, sender)
        same(rcpt(smtp, "ann@example.test"), DENIED, "ban_rcptto")
        same(rcpt(smtp, "bob@example.test"), GOOD, "bob")
        same(rcpt(smtp, "postmaster@there.example"), DENIED, "another's postmaster")
        check(rcpt(smtp, "postmaster@example.test") != DENIED, "a postmaster of ours is not banned")


@test("relay: a user sends as himself, unless sender_must_match is false")
def senders(bench):
    site = served(bench)
    own, other = (250, "2.1.0"), DENIED
    with user(site) as smtp:
        for sender, reply in (("ann@example.test", own), ("ANN@Example.TEST", own), ("ann+lists@example.test", own), ("", own),
                              ("bob@example.test", other), ("ann@there.example", other), ("ann@[127.0.0.1]", other),
                              ('"ann@example.test"@there.example', other), ("ann%there.example@example.test", other)):
            same(mail(smtp, sender), reply, sender)
    with client(site, STRANGER) as smtp:
        same(mail(smtp, "ann@example.test"), own, "on port 25 nobody has a name to match")
    site.stop()
    lax = served(bench, name="lax", sender_must_match="false")
    with user(lax) as smtp:
        same(mail(smtp, "bob@example.test"), own, "sender_must_match false")


@test("relay: recipients of an account and messages of an address are bounded, over all their connections")
def bounds(bench):
    site = served(bench, sends_per_hour=3, fromip_max=2, fromip_nolimit="127.0.0.1", max_rcpts=2)
    used_up = (452, "4.7.1")
    with user(site) as one, user(site, source="127.0.0.10") as two:
        same([rcpt(one, FAR, "ann@example.test") for _ in range(2)], [GOOD, GOOD], "two of three")
        same(rcpt(two, FAR, "ann@example.test"), GOOD, "the third")
        same(rcpt(two, FAR, "ann@example.test"), used_up, "the fourth")
        same(rcpt(one, "ann@example.test", "ann@example.test"), used_up, "users here count too")
    with user(site, "bob") as smtp:
        same(rcpt(smtp, FAR, "bob@example.test"), GOOD, "bob has his own")
    with client(site, STRANGER) as one, client(site, STRANGER) as two:
        same([mail(one), mail(two), mail(one), mail(two)], [(250, "2.1.0")] * 2 + [(450, "4.7.1")] * 2, "fromip_max")
    with client(site) as smtp:
        same([mail(smtp) for _ in range(5)], [(250, "2.1.0")] * 5, "fromip_nolimit")
        mail(smtp)
        replies = [told(smtp.docmd("RCPT", f"TO:<{name}@there.example>")) for name in "abc"]
        same(replies, [GOOD, GOOD, (452, "4.5.3")], "max_rcpts")
    relaying = json.loads(site.tell("status", "--json").stdout)["relaying"]
    same((relaying["over_messages"], relaying["over_recipients"]), (2, 2), "the status counts them")


@test("relay: hide_auth recentpop lets those send without AUTH whose address a login for reading has opened")
def hidden(bench):
    site = served(bench, forward_user="ann", hide_auth="recentpop")

    def offers(source):
        with client(site, source, "submission_port") as smtp:
            return smtp.has_extn("auth"), mail(smtp)

    same(offers(STRANGER), (True, (530, "5.7.0")), "before")
    pop = site.pop(source=STRANGER)
    pop.login("ann", site.users["ann"])
    pop.quit()
    same(offers(STRANGER), (False, (250, "2.1.0")), "after")
    same(offers("127.0.0.8"), (True, (530, "5.7.0")), "another")
    with client(site, STRANGER, "submission_port") as smtp:
        same(rcpt(smtp), GOOD, "and may relay")


@test("relay: sends_over hold keeps what is beyond the bound in the queue, and a postmaster hears of it once")
def held(bench):
    users = {"ann": "secret", "bob": "geheim", "postmaster": "segreto"}
    site = served(bench, users=users, sends_per_hour=1, sends_over="hold")

    def send(text):
        with user(site) as smtp:
            same(rcpt(smtp, "bob@example.test", "ann@example.test"), GOOD, text)
            code, said = smtp.data(f"Subject: {text}\r\n\r\n{text}\r\n".encode())
            same(code, 250, said)

    def drop(name):
        try:
            with open(site.drop(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    send("within")
    wait_for("the first is delivered", lambda: b"Subject: within" in drop("bob"), 20)
    send("beyond")
    send("further beyond")
    wait_for("a postmaster hears of it", lambda: b"Subject: mail of ann is held" in drop("postmaster"), 20)
    waiting = b""
    for path in site.queue_files():
        with open(path, "rb") as file:
            waiting += file.read()
    for text in (b"Subject: beyond", b"Subject: further beyond"):
        check(text in waiting and text not in drop("bob"), text, "waits in the queue:", waiting)
    same(drop("postmaster").count(b"Subject: mail of ann is held"), 1, "once a day")
    wait_for("the log says so", lambda: "sends_per_hour is used up" in site.log(), 20)
    check(b"From: Mail Delivery System <MAILER-DAEMON@" in drop("postmaster"), "whom it is from:", drop("postmaster"))

    def tell(*words):
        done = run([DMAIL, "tellsmtp", "-i", site.conf, *words, "--json"])
        same(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    ids = [row["id"] for row in tell("queue")["queue"] if row["state"] == "1 held"]
    same(len(ids), 2, "held messages")
    tell("queue", "release", ids[0])
    wait_for("what is released is delivered", lambda: b"beyond" in drop("bob"), 20)
    tell("queue", "delete", ids[1])
    same(tell("queue")["messages"], 0, "messages in the queue")
    same(drop("bob").count(b"\nSubject: "), 2, "letters")
    same(tell("status")["loop"]["late_answers"], 0, "answers that nobody waited for")
