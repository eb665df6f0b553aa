"""Where mail goes: aliases, forward lines and files, catch-alls, details, postmaster, and mailboxes that are full."""

import os
import smtplib

from harness import spool
from harness.suite import DMAIL, check, run, same, test, wait_for

GOOD = (250, "2.1.5")
NOBODY = (550, "5.1.1")


def served(bench, files=None, **settings):
    for name, text in (files or {}).items():
        bench.write(name, text)
    site = bench.site(tls=False, mail=True, settings=settings)
    return site.start()


def client(site):
    smtp = smtplib.SMTP(timeout=20, local_hostname="client.test")
    code, text = smtp.connect("127.0.0.1", site.smtp_port)
    check(code == 220, "greeting:", code, text)
    smtp.ehlo()
    return smtp


def told(reply):
    code, text = reply
    return code, text.split()[0].decode()


def rcpt(smtp, recipient, size=None):
    """What RCPT is answered, in a transaction of its own."""
    smtp.docmd("RSET")
    smtp.docmd("MAIL", "FROM:<bob@elsewhere.example>" + (f" SIZE={size}" if size else ""))
    return told(smtp.docmd("RCPT", f"TO:<{recipient}>"))


def send(site, recipient, text):
    with client(site) as smtp:
        smtp.sendmail("bob@elsewhere.example", [recipient], f"Subject: {text}\r\n\r\n{text}\r\n")


def subjects(site, user):
    drop = site.drop(user)
    if not os.path.exists(drop):
        return []
    lines = (line for text in spool.messages(drop) for line in text.split(b"\r\n"))
    return [line[9:].decode() for line in lines if line.startswith(b"Subject: ")]


@test("addresses: one recipient is followed to the one mailbox that he leads to")
def one(bench):
    aliases = bench.write("aliases", "info: help\nhelp:\n  # nobody yet\n  ann\nowner-info: bob\nself: self\n")
    site = served(bench, alias_file=aliases, catch_all="example.test bob@example.test", sysadmin="ann@example.test",
                  forward="old@gone.example ann@example.test")
    for number, (recipient, user) in enumerate([
        ("ann@example.test", "ann"), ("INFO@Example.TEST", "ann"), ("ann+lists@example.test", "ann"), ("info+x@example.test", "ann"),
        ("postmaster", "ann"), ("abuse@example.test", "ann"), ("whoever@example.test", "bob"), ("self@example.test", "bob"),
    ]):
        send(site, recipient, f"message {number}")
        wait_for(recipient, lambda: f"message {number}" in subjects(site, user))


@test("addresses: a line that cannot be read keeps a server from starting, and a running one keeps what it had")
def wrong(bench):
    aliases = bench.write("aliases", "info: ann\n")
    site = served(bench, alias_file=aliases)
    with client(site) as smtp:
        same(rcpt(smtp, "info@example.test"), GOOD, "an alias")
        same(rcpt(smtp, "help@example.test"), NOBODY, "none")
        bench.write("aliases", "info: help\nhelp: info\n")
        done = site.tell("reload")
        check(done.returncode != 0 and b"goes round in circles: help -> info -> help" in done.stdout + done.stderr, done)
        same(rcpt(smtp, "info@example.test"), GOOD, "what was")
        done = run([DMAIL, "check", "-i", site.conf])
        check(done.returncode == 1 and b"aliases:2: error: this goes round" in done.stdout, done)
        bench.write("aliases", "help: ann\n")
        check(site.tell("reload").returncode == 0, "a reload")
        same(rcpt(smtp, "help@example.test"), GOOD, "what is new")
        same(rcpt(smtp, "info@example.test"), NOBODY, "what is gone")
        os.chmod(aliases, 0o666)
        done = site.tell("reload")
        check(b"everybody may write to it" in done.stdout + done.stderr, "a file of everybody's:", done)


@test("addresses: a forward file that others could have written is ignored, one of the user's own is followed")
def forward(bench):
    site = served(bench)
    site.fill(spool.spool(spool.plain(1)))
    fwd = site.drop("ann") + ".fwd"
    with open(fwd, "w", encoding="ascii") as file:
        file.write("bob\n")
    os.chmod(fwd, 0o600)
    send(site, "ann@example.test", "followed")
    wait_for("bob has it", lambda: "followed" in subjects(site, "bob"))
    os.chmod(fwd, 0o666)
    send(site, "ann@example.test", "ignored")
    wait_for("ann has it", lambda: "ignored" in subjects(site, "ann"))
    check("his forward file is ignored: others may write to it" in site.log(), site.log())
    os.chmod(fwd, 0o600)
    with open(fwd, "w", encoding="ascii") as file:
        file.write("|/bin/sh -c false\n/etc/passwd\n")
    send(site, "ann@example.test", "kept")
    wait_for("ann has it", lambda: "kept" in subjects(site, "ann"))
    with open(fwd, "w", encoding="ascii") as file:
        file.write("bob\n")
    with open(site.drop("bob") + ".fwd", "w", encoding="ascii") as file:
        file.write("ann\n")
    os.chmod(site.drop("bob") + ".fwd", 0o600)
    with client(site) as smtp:
        same(rcpt(smtp, "ann@example.test"), (554, "5.4.6"), "round and round")


@test("addresses: a full mailbox takes nothing more, until its user deletes")
def full(bench):
    site = served(bench, drop_max=20)
    site.fill(spool.spool(spool.plain(10, size=1900)))
    with client(site) as smtp:
        same(rcpt(smtp, "ann@example.test"), GOOD, "not full yet")
        same(rcpt(smtp, "ann@example.test", size=5000), (452, "4.2.2"), "a message that does not fit")
        same(rcpt(smtp, "bob@example.test", size=20_000), GOOD, "an empty mailbox")
        same(rcpt(smtp, "bob@example.test", size=21_000), (452, "4.2.2"), "a message larger than any mailbox")
        pop = site.login()
        for number in range(1, 5):
            pop.ok(f"DELE {number}")
        pop.quit()
        check(os.path.getsize(site.drop()) > 15_000, "the bytes of what was deleted are there still")
        same(rcpt(smtp, "ann@example.test", size=5000), GOOD, "what was deleted does not count")


@test("addresses: a list gives each of its members one copy, and one who is nobody keeps it from no other")
def several(bench):
    aliases = bench.write("aliases", "all: ann, bob, team, ghost\nteam: bob, ann@example.test\nvoid: /dev/null\n")
    site = served(bench, alias_file=aliases, forward_cc="cc@example.test ann@example.test")
    send(site, "all@example.test", "to all")
    for user in ("ann", "bob"):
        wait_for(user, lambda: subjects(site, user) == ["to all"])
    send(site, "void@example.test", "to nobody")
    with client(site) as smtp:
        same(rcpt(smtp, "ghost@example.test"), NOBODY, "nobody alone")
    send(site, "ann@example.test", "the last")
    wait_for("ann", lambda: subjects(site, "ann") == ["to all", "the last"])
    same(subjects(site, "bob"), ["to all"], "bob's mail")


@test("addresses: a message names a large list once, and a domain that a reload has taken away is nobody's to relay to")
def large(bench):
    members = ", ".join(f"m{number}@there.example" for number in range(6_000))
    aliases = bench.write("aliases", f"all: {members}\n")
    site = served(bench, alias_file=aliases, recipient_delimiter="+", host_domain=["example.test", "old.test"],
                  forward_from_ip="127.9.9.9")
    with client(site) as smtp:
        smtp.docmd("MAIL", "FROM:<bob@elsewhere.example>")
        same(told(smtp.docmd("RCPT", "TO:<all@example.test>")), GOOD, "the list")
        for name in ("all@example.test", "all+x@example.test", "ann@example.test"):
            same(told(smtp.docmd("RCPT", f"TO:<{name}>")), (452, "4.5.3"), name)
        smtp.docmd("RSET")
        smtp.docmd("MAIL", "FROM:<bob@elsewhere.example>")
        same(told(smtp.docmd("RCPT", "TO:<ann@old.test>")), GOOD, "one of ours")
        site.extra["host_domain"] = "example.test"
        site.write_conf()
        check(site.tell("reload").returncode == 0, "reload")
        same(told(smtp.docmd("RCPT", "TO:<bob@old.test>")), (451, "4.3.0"), "one of ours no more")
    same(rcpt(client(site), "bob@old.test"), (550, "5.7.1"), "a client that came later")
