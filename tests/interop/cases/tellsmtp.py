"""Orders about mail on its way: each verb of tellsmtp, what the logs and the statistics of messages have, and that only the
tool's own verbs are its."""

import contextlib
import json
import os
import re
import smtplib
import subprocess
import time

from harness import spool
from harness.suite import DMAIL, check, run, same, test, wait_for


def tell(site, *words, **options):
    return run([DMAIL, "tellsmtp", "-i", site.conf, *words], seconds=30, **options)


def told(site, *words, code=0):
    """The report, as JSON."""
    done = tell(site, *words, "--json")
    same(done.returncode, code, f"exit code of {words}; {done.stdout!r} {done.stderr!r}")
    return json.loads(done.stdout)


def refused(site, *words, saying, code=1):
    done = tell(site, *words)
    said = done.stderr.decode()
    check(done.returncode == code and not done.stdout and len(said.splitlines()) == 1 and saying in said
          and said.startswith("tellsmtp: "), words, done.returncode, done.stdout, said)


def served(bench, **settings):
    site = bench.site(tls=False, mail=True, settings=settings)
    site.fill(spool.spool(spool.plain(1)))
    return site.start()


@contextlib.contextmanager
def client(site):
    with smtplib.SMTP("127.0.0.1", site.smtp_port, timeout=20, local_hostname="client.test") as smtp:
        yield smtp


def log(site, name):
    # Lines are gathered for 4 ms before they are written.
    time.sleep(0.1)
    try:
        with open(os.path.join(site.work, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


@test("tellsmtp: it has its own verbs, whole or cut short, and reaches the same server")
def verbs(bench):
    site = served(bench)
    own = told(site, "help")["commands"]
    check("queue" in own and "kick" not in own and own == sorted(own), own)
    check("kick" in json.loads(site.tell("help", "--json").stdout)["commands"])
    same(told(site, "version"), json.loads(site.tell("version", "--json").stdout), "one server")
    same(told(site, "loglevel", "warn"), {"log_level": "warn"}, "log_level")
    same(told(site, "relo"), {"changed": []}, "reload, cut short")
    for words, saying in ((("kick", "ann"), "is no command"), (("s",), "may be"), (("all.msc",), "a shell script does it"),
                          (("queue", "drop", "x"), "queue takes"), (("queue", "delete", "weight=1"), "is no filter"),
                          (("why", "a@b"), "why takes")):
        refused(site, *words, saying=saying, code=2)
    for verb in ("filters", "monitors", "quiet", "register"):
        done = tell(site, verb)
        check(done.returncode == 0 and len(done.stdout.splitlines()) == 1, verb, done.stdout)
    page = run([DMAIL, "man", "tellsmtp"], seconds=30).stdout.decode()
    check(".B queue" in page and ".TH TELLSMTP 8" in page, page[:300])
    told(site, "shutdown")
    wait_for("the server ends", lambda: site.process.poll() is not None)
    refused(site, "status", saying="no server is running")


@test("tellsmtp: status, showchans and profile show what is there")
def watching(bench):
    site = served(bench)
    with client(site) as smtp, contextlib.closing(site.login()) as pop:
        smtp.ehlo()
        pop.ok("NOOP")
        status = told(site, "status")
        same((status["smtp"]["connections"], status["smtp"]["servers_now"]), (1, 1), "connections")
        same([row["what"] for row in status["rates"]][:2], ["connections", "accepted"], "rates")
        channels = told(site, "showchans")
        same((channels["connections"], channels["of"]), (2, {"pop3": 1, "smtp": 1}), "connections by service")
        by_service = {row["service"]: row for row in channels["channels"]}
        same((by_service["pop3"]["user"], by_service["smtp"]["user"]), ("ann", None), "users")
        check(all(row["state"] == "waiting" and not row["tls"] for row in by_service.values()), by_service)
        smtp.docmd("MAIL", "FROM:<a@b.test>")
        smtp.docmd("RCPT", "TO:<ann@example.test>")
        same(smtp.docmd("DATA")[0], 354, "DATA")
        smtp.send(b"Subject: x\r\n\r\n" + b"text\r\n" * 100)
        wait_for("the message is coming", lambda: any(
            row["service"] == "smtp" and row["state"] == "receiving" for row in told(site, "showchans")["channels"]))
        smtp.send(b".\r\n")
        same(smtp.getreply()[0], 250, "after the dot")
    wait_for("nobody is there", lambda: told(site, "showchans")["connections"] == 0)
    same(told(site, "status")["smtp"]["accepted"], 1, "accepted")
    rows = {row["kind"]: row for row in told(site, "profile")["profile"]}
    check({"smtp", "pop3", "control"} <= set(rows), rows)
    for row in rows.values():
        check(row["p50_us"] <= row["p99_us"] <= row["longest_us"] and row["turns"] > 0, row)


@test("tellsmtp: config says what holds, where it is written, and when a change takes effect")
def config(bench):
    site = served(bench, relay_to="*.friends.example")
    with open(site.conf, encoding="utf-8") as file:
        line = [line.split()[0] for line in file].index("relay_to") + 1
    found = told(site, "config", "RELAY_TO")
    same((found["setting"], found["value"], found["from"]), ("relay_to", ["*.friends.example"], [f"{site.conf}:{line}"]),
         "a setting that is written")
    check("connections" in found["takes_effect"], found)
    same(told(site, "config", "max_errors")["from"], ["the default"], "a default")
    check("work_path" in told(site, "config", "log_path")["from"][0])
    refused(site, "config", "admin_port", saying="there is no web administration yet")
    refused(site, "config", "nonsense", saying="no setting has this name")


@test("tellsmtp: why names each rule, its line, and the reply that the client then gets")
def why(bench):
    site = served(bench, relay_to="*.friends.example")
    for sender, recipient in (("a@b.test", "ann@example.test"), ("a@b.test", "x@other.test"), ("a@b.test", "x@it.friends.example"),
                              ("", "ann@example.test")):
        # Who is on this machine may relay: the client is another.
        found = told(site, "why", f"<{sender}>", recipient, "127.0.0.9")
        with smtplib.SMTP("127.0.0.1", site.smtp_port, timeout=20, source_address=("127.0.0.9", 0)) as smtp:
            smtp.ehlo()
            smtp.docmd("MAIL", f"FROM:<{sender}>")
            code, text = smtp.docmd("RCPT", f"TO:<{recipient}>")
        same(found["taken"], code == 250, f"{sender} {recipient}: {found['reply']}, the client heard {code}")
        if code != 250:
            same(found["reply"], f"{code} {text.decode()}", "the reply")
    rules = told(site, "why", "a@b.test", "x@it.friends.example", "192.0.2.1")["rules"]
    rule = next(rule for rule in rules if rule["setting"] == "relay_to")
    check(rule["where"].startswith(f"{site.conf}:") and rule["outcome"] == "allowed", rule)
    same(told(site, "why", "a@b.test", "x@other.test", "192.0.2.1")["rules"][0]["at"], "connection", "where it begins")
    refused(site, "why", "a b", "c@d.test", saying="this is no address")
    before = told(site, "status")["relaying"]
    told(site, "why", "a@b.test", "x@other.test", "192.0.2.1")
    same(told(site, "status")["relaying"], before, "asking why counts nothing")


@test("tellsmtp: lines about mail are in dsmtp.log, the others in dpop.log, and trace finds a message by id and by address")
def logs(bench):
    site = served(bench)
    with client(site) as smtp:
        smtp.sendmail("ann@a.test", ["ann@example.test"], b"Subject: one\r\n\r\none\r\n")
        smtp.sendmail("eve@a.test", ["bob@example.test"], b"Subject: two\r\n\r\ntwo\r\n")
    site.login().quit()
    wait_for("the lines of both services", lambda: log(site, "dsmtp.log").count("accepted from") == 2
             and " pop3 " in log(site, "dpop.log"))
    check(" smtp " not in log(site, "dpop.log") and " pop3 " not in log(site, "dsmtp.log"), "each line is in its log")
    check("started" in log(site, "dpop.log"), "what is common is in dpop.log")
    found = told(site, "trace", "ann@a.test")
    same(len(found["ids"]), 1, f"one message: {found}")
    ident = found["ids"][0]
    check(found["lines"] and all("eve@a.test" not in line["text"] for line in found["lines"]), found)
    same(told(site, "trace", ident.lower())["ids"], [ident], "by its id, in any case")
    with open(site.drop(), encoding="latin-1") as file:
        check(ident in file.read(), "the id is in the message's Received line")
    refused(site, "trace", "nobody@a.test", saying="nothing in the logs")


@test("tellsmtp: sendlog shows what is logged from now on, through a renaming, until nobody reads")
def sendlog(bench):
    site = served(bench)
    with client(site) as smtp:
        smtp.sendmail("before@a.test", ["ann@example.test"], b"Subject: x\r\n\r\nx\r\n")
    wait_for("a log", lambda: "before@a.test" in log(site, "dsmtp.log"))
    path = os.path.join(site.work, "dsmtp.log")
    with subprocess.Popen([DMAIL, "tellsmtp", "-i", site.conf, "sendlog", "--json"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        try:
            # It has begun when it has the log open.
            wait_for("it reads", lambda: any(
                os.path.realpath(f"/proc/{process.pid}/fd/{fd}") == path for fd in os.listdir(f"/proc/{process.pid}/fd")))
            seen = ""
            for name in ("one", "two"):
                with client(site) as smtp:
                    smtp.sendmail(f"{name}@a.test", ["ann@example.test"], b"Subject: x\r\n\r\nx\r\n")
                if name == "one":
                    wait_for("its line", lambda: "one@a.test" in log(site, "dsmtp.log"))
                    os.rename(path, os.path.join(site.work, "dsmtp1.log"))
                while f"{name}@a.test" not in seen:
                    line = process.stdout.readline()
                    check(line, "it ended")
                    seen += json.loads(line)["text"] + "\n"
            check("one@a.test" in seen and "before@a.test" not in seen, seen)
        finally:
            process.kill()


LINE = re.compile(r"\d+ (sent\+?|recv|delv|fail) [0-9A-Z]{12}\S* \d+ \S+ \S+")


@test("tellpop statistics: what became of messages, out of files of any program, by domain or user")
def statistics(bench):
    site = bench.site(tls=False)
    site.write_conf()
    now = int(time.time())
    day = time.strftime("dm%d%m.log", time.localtime(now))
    with open(os.path.join(site.work, day), "w", encoding="ascii") as file:
        for number in range(50):
            file.write(f"{now - 60} sent A{number} 100 ann@example.test bob@example.test,eve@there.example\n")
        file.write(f"{now - 60} recv A1 100 ann@example.test bob@example.test\nno line\n")
    def stats(*words):
        done = site.tell("statistics", *words)
        same(done.returncode, 0, f"{words}: {done.stderr}")
        check(b"not counted: 1 " in done.stderr, done.stderr)
        return done.stdout
    found = json.loads(stats("-U", "--json", "hour"))
    same([name["name"] for name in found["names"]], ["ann@example.test"], "senders")
    same(found["total"]["sent"]["messages"]["total"], 50, "messages sent")
    found = json.loads(stats("-d", "-r", "-brecv", "--json", "hour"))
    same([(name["name"], name["sent"]["bytes"]["total"]) for name in found["names"]],
         [("example.test", 5000), ("there.example", 5000)], "domains of receivers")
    check(b"total" in stats("-d0", "hour") and b"ann" not in stats("-d0", "hour"))
    same(site.tell("statistics", "-x").returncode, 2, "a wrong option")
    done = site.tell("statistics", "--folder", "/nowhere", "hour")
    check(done.returncode == 1 and b"/nowhere" in done.stderr, done.stderr)


@test("tellsmtp: the queue is listed and shown; a change by filter counts first and needs the count, or --yes")
def queue(bench):
    site = served(bench, oneline_stats="true", route="there.example park")
    same(told(site, "queue"), {"messages": 0, "queue": []}, "an empty queue")
    with client(site) as smtp:
        for number in range(3):
            smtp.sendmail(f"ann{number}@a.test", ["bob@there.example", "eve@there.example"], b"Subject: x\r\n\r\nx\r\n")
        smtp.sendmail("one@a.test", ["ann@example.test"], b"Subject: x\r\n\r\nx\r\n")

    def ids(*filters):
        return [row["id"] for row in told(site, "queue", *filters)["queue"]]

    # What is being tried is in no list until its try has ended.
    wait_for("all wait", lambda: len(ids()) == 3)
    first = ids("from=ann0@*")[0]
    shown = told(site, "queue", "show", first.lower())
    same((shown["id"], shown["from"], [row["address"] for row in shown["who"]]),
         (first, "ann0@a.test", ["bob@there.example", "eve@there.example"]), "one message")
    check(all(row["state"] == "deferred" and row["why"].startswith("4.4.0 ") for row in shown["who"]), shown)
    same((ids("older=1d"), ids("to=x*"), len(ids("to=EVE@*", "state=deferred"))), ([], [], 3), "filters")
    same(told(site, "queue", "hold", first)["recipients"], 2, "hold")
    same(ids("state=held"), [first], "held")
    same(told(site, "queue", "release", "state=held")["would_change"], 1, "release, counted")
    same(ids("state=held"), [first], "and not done")
    refused(site, "queue", "release", "state=held", "5", saying="none was changed")
    same(told(site, "queue", "release", "state=held", "1")["changed"], 1, "release")
    wait_for("all wait again", lambda: len(ids("state=deferred")) == 3)
    same(told(site, "queue", "delete", "from=ann1@*,ann2@*", "--yes")["left_queue"], 2, "delete")
    same(ids(), [first], "what is left")
    refused(site, "queue", "show", "ABC", saying="no such message")
    check(first in tell(site, "trace", "ann0@a.test").stdout.decode().split("in the queue:")[1], "trace asks the queue")
    # Each message that was accepted, and each recipient's end, has its line.
    day = next(name for name in os.listdir(site.work) if name.startswith("dm") and name.endswith(".log"))
    wait_for("the lines", lambda: log(site, day).count("\n") == 5)
    lines = log(site, day).splitlines()
    check(all(LINE.fullmatch(line) for line in lines), lines)
    same(sorted(line.split()[1] for line in lines), ["recv", "sent", "sent", "sent", "sent"], "classes")
    # The last hour ends before this second.
    def names():
        done = site.tell("statistics", "-u", "-dall", "--json", "hour")
        found = {name["name"]: name for name in json.loads(done.stdout)["names"]}
        return found if "one@a.test" in found else None

    same(wait_for("a second later", names)["one@a.test"]["recv"]["messages"]["total"], 1, "what reached its drop")
