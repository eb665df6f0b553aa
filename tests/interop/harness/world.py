"""Servers that send to each other: our own in a folder, a DNS of the test's own that says where domains are, and other servers that
take what comes, on addresses of 127.0.0.0/8.

Mail for other domains goes to the port of the sinks, and `route * mx inside` lets it go to addresses of the loopback. Times are
short: a second for what else takes minutes."""

import base64
import email
import email.policy
import json
import os
import re

from . import spool
from .dns import Dns
from .sink import Sink
from .site import Site
from .suite import DMAIL, check, run, same, wait_for
from .wire import Smtp

#: How long a peer may take for anything. Tests that stall wait so long.
PATIENCE_SECS = 2
IDENT = re.compile(r"[0-9A-Z]{12,16}(?:[a-z]\d+)?")
STEPS = ("greeting", "command", "mail", "rcpt", "data", "block", "dot", "quit")


def letter(name, size=0, sender="ann@example.test"):
    """A message, known again by its name."""
    filler = b"".join(b"%08d of the text of %s\r\n" % (at, name.encode()) for at in range(size // 32))
    return (f"From: {sender}\r\nTo: someone@there.example\r\nSubject: {name}\r\nMessage-ID: <{name}@example.test>\r\n"
            f"Date: Mon, 5 Jan 2026 10:00:00 +0000\r\nX-Name: {name}\r\n\r\n").encode() + filler + b"It is here.\r\n.\r\n..dotted\r\n"


def name_of(text):
    """Which letter that is."""
    found = re.search(rb"(?m)^X-Name: (\S+)\r?$", text)
    return found[1].decode() if found else None


class World:
    """`site` is our server; `sink` takes mail on `addresses`. `inside` False: no route, so that nothing may go to the loopback;
    `sink` False: there is none. Further words are settings; None takes one of those below out."""

    def __init__(self, bench, *addresses, inside=True, sink=None, dns=None, name="site", users=None, tls=False, start=True, **settings):
        self.bench = bench
        self.dns = dns or Dns()
        self.sink = sink or (Sink(*(addresses or ("127.0.0.2",))) if sink is None else None)
        wanted = {
            "dns_host": self.dns.host,
            "dns_timeout": 1,
            **({"smtp_out_port": self.sink.port} if self.sink else {}),
            "retry_schedule": 1,
            "possibly_secs": 1,
            "send_connect_secs": PATIENCE_SECS,
            **{f"send_{step}_secs": PATIENCE_SECS for step in STEPS},
            "sends_per_hour": 0,
            "sends_per_day": 0,
            **({"route": "* mx inside"} if inside else {}),
            **settings,
        }
        self.site = Site(bench, users=users, tls=tls, mail=True, name=name,
                         settings={setting: value for setting, value in wanted.items() if value is not None})
        bench.sites.append(self.site)
        if start:
            self.site.start()

    # ---- mail in ----------------------------------------------------------------------------------

    def send(self, name, *recipients, sender="ann@example.test", size=0, text=None, words="", rcpt_words=""):
        """Hands a letter in; its id."""
        wire = Smtp.tcp(self.site.smtp_port)
        wire.hello()
        wire.cmd(f"MAIL FROM:<{sender}>{words and ' ' + words}", b"250")
        for recipient in recipients or ("bob@there.example",):
            wire.cmd(f"RCPT TO:<{recipient}>{rcpt_words and ' ' + rcpt_words}", b"250")
        wire.cmd("DATA", b"354")
        wire.send(re.sub(rb"(?m)^\.", b"..", letter(name, size) if text is None else text) + b".\r\n")
        found = wire.expect(b"250 2.0.0 Accepted as ")[0].split()[4].decode()
        wire.cmd("QUIT", b"221")
        wire.close()
        return found

    # ---- what became of it ------------------------------------------------------------------------

    def tell(self, *words, code=0):
        """A report of tellsmtp, as JSON."""
        done = run([DMAIL, "tellsmtp", "-i", self.site.conf, *words, "--json"], seconds=30)
        same(done.returncode, code, f"exit code of {words}; {done.stdout!r} {done.stderr!r}")
        return json.loads(done.stdout)

    def rows(self, *filters):
        return self.tell("queue", *filters)["queue"]

    def who(self, ident):
        """The recipients of a message that waits; nothing if it does not."""
        done = run([DMAIL, "tellsmtp", "-i", self.site.conf, "queue", "show", ident, "--json"], seconds=30)
        return json.loads(done.stdout)["who"] if done.returncode == 0 else []

    def deferred(self, ident, *pieces):
        """Waits until a recipient is deferred and its reason has one of these in it; that recipient."""

        def probe():
            return next((row for row in self.who(ident) if row["state"] == "deferred"
                         and (not pieces or any(piece in row["why"] for piece in pieces))), None)

        try:
            return wait_for(f"deferred for {pieces}", probe)
        except Exception:
            print("it is so:", self.who(ident))
            raise

    def waiting(self):
        """The ids of what is in the queue, also of what is being tried just now, as its files say."""
        return [name for name in map(os.path.basename, self.site.queue_files()) if IDENT.fullmatch(name)]

    def gone(self, ident, seconds=20):
        """Waits until a message has left the queue."""
        wait_for(f"{ident} has left the queue", lambda: ident not in self.waiting(), seconds)

    def empty(self, seconds=30):
        """Waits until nothing is in the queue."""
        try:
            wait_for("the queue is empty", lambda: not self.waiting(), seconds)
        except Exception:
            print("it holds:", json.dumps(self.tell("queue"))[:2000])
            raise
        wait_for("the server knows that it is empty", lambda: self.tell("queue")["messages"] == 0)

    def delivered(self, name, recipient=None, count=1, sink=None, seconds=20):
        """Waits until a sink has taken that letter so often, and not oftener; the last message."""
        sink = sink or self.sink

        def probe():
            found = [one for one in sink.taken(recipient) if name_of(one.text) == name]
            return found if len(found) >= count else None

        found = wait_for(f"{name} is delivered", probe, seconds)
        same(len(found), count, f"copies of {name}")
        return found[-1]

    def copies(self, name, recipient=None):
        return sum(name_of(message.text) == name for message in self.sink.taken(recipient))

    def drop(self, user="ann"):
        path = self.site.drop(user)
        return spool.messages(path) if os.path.exists(path) else []

    def reports(self, user="ann"):
        """The reports in a drop, read by Python."""
        return reports_in(self.drop(user))

    def bounce(self, name, user="ann", seconds=20):
        """Waits for the report of that letter; what it says of its recipients."""

        def probe():
            return next((report for report in self.reports(user) if name.encode() in report.as_bytes()), None)

        return Report(wait_for(f"{name} is bounced", probe, seconds))

    def trace(self, word):
        """The whole log of a message, as text; nothing while nothing is in it."""
        done = run([DMAIL, "tellsmtp", "-i", self.site.conf, "trace", word, "--json"], seconds=30)
        return "\n".join(line["text"] for line in json.loads(done.stdout)["lines"]) if done.returncode == 0 else ""

    def submit(self, site=None):
        """An authenticated session on the submission port."""
        site = site or self.site
        wire = Smtp.tcp(site.submission_port)
        wire.hello()
        secret = base64.b64encode(f"\0ann\0{site.users['ann']}".encode()).decode()
        wire.cmd(f"AUTH PLAIN {secret}", b"235")
        return wire


class Report:
    """A delivery status notification (RFC 3464), taken apart strictly."""

    def __init__(self, message):
        self.message = message
        same(message["Content-Type"].params.get("report-type"), "delivery-status", "its kind")
        check(not message.defects, "what is wrong with it:", message.defects)
        parts = list(message.iter_parts())
        check(len(parts) in (2, 3), "parts:", [part.get_content_type() for part in parts])
        same(parts[0].get_content_type(), "text/plain", "what a person reads first")
        self.text = parts[0].get_content()
        check(parts[1].get_content_type() in ("message/delivery-status", "message/global-delivery-status"), parts[1].get_content_type())
        groups = parts[1].get_payload()
        if parts[1].get_content_type() == "message/global-delivery-status":
            # Python takes it for a message: the first group for its header, the rest for its text.
            text = groups[0].as_bytes(policy=email.policy.SMTPUTF8).replace(b"\r\n", b"\n")
            groups = [email.message_from_bytes(group, policy=email.policy.default) for group in text.strip().split(b"\n\n")]
        self.of_message, self.of_each = groups[0], groups[1:]
        check("Reporting-MTA" in self.of_message and self.of_each, groups)
        for group in self.of_each:
            for field in ("Final-Recipient", "Action", "Status"):
                check(group[field], field, "in", group.as_string())
            check(re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", group["Status"]), group["Status"])
        self.returned = parts[2] if len(parts) == 3 else None

    @property
    def status(self):
        return self.of_each[0]["Status"]

    @property
    def action(self):
        return self.of_each[0]["Action"]

    @property
    def whom(self):
        return [group["Final-Recipient"].partition(";")[2].strip() for group in self.of_each]


def reports_in(texts):
    """Those of these messages that are reports, read by Python."""
    found = (email.message_from_bytes(text, policy=email.policy.default) for text in texts)
    return [message for message in found if message.get_content_type() == "multipart/report"]


def resident_kb(pid):
    """What a process holds of memory, and the most that it ever held."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])
