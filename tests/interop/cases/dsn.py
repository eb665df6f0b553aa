"""Reports to senders, as Python's email reads them: that a message was delivered, passed on, is late, or is lost."""

import contextlib
import email
import email.policy
import email.utils
import os
import smtplib

from harness.site import free_ports
from harness.suite import check, same, test, wait_for

from .robots import mail_of, queue_is_empty

TEXT = (b"From: bob@example.test\r\nTo: %s\r\nSubject: tea\r\nMessage-ID: <1@x.test>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nFive, caf\xc3\xa9.\r\n")


def reporting(bench, aliases="", **settings):
    extra = {"smtp_port": free_ports(1)[0], "retry_schedule": "1", "sends_per_hour": 0, "sends_per_day": 0, **settings}
    users = {"ann": "secret", "bob": "geheim", "kim": "arcanum"}
    site = bench.site(tls=False, users=users, settings=extra)
    if aliases:
        site.extra["alias_file"] = bench.write("aliases", aliases, 0o644)
    return site.start()


def send(site, *to, notify=None, envelope="", text=TEXT):
    """RCPT for each, in one message of bob's."""
    with smtplib.SMTP("127.0.0.1", site.extra["smtp_port"], timeout=30) as client:
        client.ehlo("client.test")
        options = ["BODY=8BITMIME", *envelope.split()]
        same(client.mail("bob@example.test", options)[0], 250, "MAIL")
        for address in to:
            orcpt = f"ORCPT=rfc822;{address.replace('+', '+2B')}"
            same(client.rcpt(address, [orcpt] + ([f"NOTIFY={notify}"] if notify else []))[0], 250, f"RCPT {address}")
        same(client.data(text.replace(b"%s", ", ".join(to).encode()))[0], 250, "DATA")


def reports(site, user="bob"):
    read = (email.message_from_bytes(text.replace(b"\r\n", b"\n"), policy=email.policy.default) for text in mail_of(site, user))
    return [message for message in read if message.get_content_type() == "multipart/report"]


def one(site, what, count=1):
    wait_for(what, lambda: len(reports(site)) >= count, 60)
    found = reports(site)
    same(len(found), count, what)
    return found[-1]


def judged(report):
    """The three parts of a report that is well-formed: text for people, fields of the message, fields of recipients, what came back."""
    def defects(part):
        return [*part.defects, *(defect for child in part.walk() if child is not part for defect in child.defects)]
    check(not defects(report), "what Python finds wrong:", defects(report), report.as_bytes())
    same(report.get_param("report-type"), "delivery-status", "report-type")
    same((report["Return-Path"], report["Auto-Submitted"]), ("<>", "auto-replied"), "nobody's, and no answer wanted")
    same((report["In-Reply-To"], report["References"]), ("<1@x.test>", "<1@x.test>"), "what it is about")
    check("MAILER-DAEMON@" in report["From"] and report["To"] == "bob@example.test", report["From"], report["To"])
    people, machines, original = report.iter_parts()
    same((people.get_content_type(), machines.get_content_type()), ("text/plain", "message/delivery-status"), "parts")
    blocks = list(machines.iter_parts())
    fields = blocks[0]
    same(fields["Reporting-MTA"], "dns; example.test", "who reports")
    check(email.utils.parsedate_to_datetime(fields["Arrival-Date"]).tzinfo, fields.items())
    return people.get_content(), fields, blocks[1:], original


def field(block, name):
    value = block[name]
    return str(value).split(";", 1)[-1].strip() if value is not None else None


@test("dsn: who asks for it hears that a message was delivered; others do not")
def success(bench):
    site = reporting(bench)
    send(site, "ann@example.test", "kim@example.test", notify="SUCCESS,FAILURE", envelope="RET=FULL ENVID=QQ+2B314159")
    people, fields, recipients, original = judged(one(site, "the receipt"))
    same(fields["Original-Envelope-Id"], "QQ+314159", "ENVID")
    same([field(row, "Final-Recipient") for row in recipients], ["ann@example.test", "kim@example.test"], "recipients")
    for row in recipients:
        same((row["Action"], row["Status"]), ("delivered", "2.0.0"), "what came of it")
        same(row["Original-Recipient"], f"rfc822;{field(row, 'Final-Recipient')}", "ORCPT")
    check("<ann@example.test>\n<kim@example.test>\n" in people and "delivered" in people, people)
    same(original.get_content_type(), "text/rfc822-headers", "what nobody misses does not come back")
    header = email.message_from_string(original.get_content(), policy=email.policy.default)
    same((header["Subject"], header["To"]), ("tea", "ann@example.test, kim@example.test"), "the header")
    for user in ("ann", "kim"):
        same(len(mail_of(site, user)), 1, f"{user} has it")
    for notify in (None, "FAILURE,DELAY", "NEVER"):
        send(site, "ann@example.test", notify=notify)
    send(site, "ann@example.test", notify="SUCCESS")
    one(site, "the second receipt, and no other", 2)
    wait_for("the queue is empty", lambda: queue_is_empty(site))
    same(len(reports(site)), 2, "receipts")
    same(site.stop(), 0, "exit code")


@test("dsn: success_reports false keeps receipts back, and a failure is told all the same")
def silent(bench):
    site = reporting(bench, aliases="lost: ann, nobody-of-that-name\n", success_reports="false")
    send(site, "kim@example.test", "lost@example.test", notify="SUCCESS,FAILURE")
    _, _, recipients, _ = judged(one(site, "the bounce"))
    same([row["Action"] for row in recipients], ["failed"], "actions")
    wait_for("the queue is empty", lambda: queue_is_empty(site))
    same(len(reports(site)), 1, "reports")
    same(site.stop(), 0, "exit code")


@test("dsn: an alias for several is expanded, and who of them is unknown is told of by the name that the sender wrote")
def expanded(bench):
    site = reporting(bench, aliases="team: ann, kim, nobody-of-that-name\n")
    send(site, "team@example.test", notify="SUCCESS,FAILURE")
    one(site, "both reports", 2)
    by_action = {}
    for report in reports(site):
        people, _, recipients, _ = judged(report)
        by_action[recipients[0]["Action"]] = (people, recipients)
    people, (row,) = by_action["expanded"]
    same((field(row, "Final-Recipient"), row["Status"]), ("team@example.test", "2.0.0"), "who was expanded")
    check("stands for several" in people, people)
    people, (row,) = by_action["failed"]
    same((row["Original-Recipient"], row["Status"]), ("rfc822;team@example.test", "5.1.1"), "who is lost")
    check("<team@example.test>" in people and "There is no mailbox of that name." in people, people)
    wait_for("the queue is empty", lambda: queue_is_empty(site))
    for user in ("ann", "kim"):
        same(len(mail_of(site, user)), 1, f"{user} has it")
    same(site.stop(), 0, "exit code")


@test("dsn: with bounce_body the message comes back as it was, unless its sender wants its header alone")
def whole(bench):
    site = reporting(bench, aliases="lost: ann, nobody-of-that-name\n", bounce_body="true")
    send(site, "lost@example.test", envelope="RET=FULL")
    report = one(site, "the bounce")
    _, _, recipients, original = judged(report)
    same((recipients[0]["Action"], recipients[0]["Status"]), ("failed", "5.1.1"), "what came of it")
    same((original.get_content_type(), original["Content-Transfer-Encoding"]), ("message/rfc822", "8bit"), "what comes back")
    inner = original.get_content()
    same((inner["Subject"], inner.get_content()), ("tea", "Five, caf\u00e9.\n"), "the message")
    send(site, "lost@example.test", envelope="RET=HDRS")
    _, _, _, original = judged(one(site, "the second bounce", 2))
    same(original.get_content_type(), "text/rfc822-headers", "what comes back")
    same(site.stop(), 0, "exit code")


@test("dsn: who waits for a locked mailbox is told of once as late, then as lost, and with NOTIFY=NEVER not at all")
def late(bench):
    site = reporting(bench, delay_warning="2", queue_life="60")
    with held(site, "ann"):
        send(site, "ann@example.test", notify="NEVER")
        send(site, "ann@example.test")
        people, _, (row,), _ = judged(one(site, "the warning"))
        same((row["Action"], field(row, "Final-Recipient")), ("delayed", "ann@example.test"), "what came of it")
        check(row["Status"].startswith("4.2.") and row["Will-Retry-Until"], row.items())
        check("You need\nnot send it again" in people or "You need not send it again" in people, people)
        people, _, (row,), _ = judged(one(site, "the bounce", 2))
        same((row["Action"], row["Status"]), ("failed", "4.4.7"), "what came of it")
        check("It waited too long." in people, people)
        wait_for("the queue is empty", lambda: queue_is_empty(site), 30)
    same((len(reports(site)), len(mail_of(site, "ann"))), (2, 0), "reports, and what she has")
    same(site.stop(), 0, "exit code")


@contextlib.contextmanager
def held(site, user):
    """Another program has the lock of a drop."""
    path = site.drop(user) + ".lock"
    with open(path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    try:
        yield
    finally:
        os.unlink(path)
