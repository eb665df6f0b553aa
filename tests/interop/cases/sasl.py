"""Passwords that are proved and not sent: APOP and SCRAM, by real clients and by one that cheats."""

import base64
import hashlib
import hmac
import json
import os
import poplib
import shlex
import time

from harness import spool
from harness.suite import DMAIL, Skip, check, need, run, same, test, wait_for

WRONG = b"-ERR [AUTH] Name or password is wrong"


def encoded(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class Scram:
    """A client of SCRAM-SHA-256, from the RFC."""

    def __init__(self, pop, user, password, header="n,,"):
        self.pop, self.user, self.password, self.header = pop, user, password, header
        self.nonce = encoded(os.urandom(18))
        self.bare = f"n={user},r={self.nonce}"

    def first(self, initial=True):
        message = encoded(self.header + self.bare)
        if initial:
            reply = self.pop.cmd(f"AUTH SCRAM-SHA-256 {message}")
        else:
            same(self.pop.cmd("AUTH SCRAM-SHA-256"), b"+ ", "the empty challenge")
            reply = self.pop.cmd(message)
        check(reply.startswith(b"+ "), "the challenge:", reply)
        self.challenge = base64.b64decode(reply[2:], validate=True).decode()
        fields = dict(part.split("=", 1) for part in self.challenge.split(","))
        check(fields["r"].startswith(self.nonce) and len(fields["r"]) > len(self.nonce) + 16, "a nonce of theirs:", fields)
        self.full, self.salt, self.rounds = fields["r"], base64.b64decode(fields["s"]), int(fields["i"])
        return self

    def final(self, nonce=None, header=None, password=None):
        """The client-final message, and the signature that the server has to answer with."""
        def sign(key, text):
            return hmac.digest(key, text, "sha256")

        salted = hashlib.pbkdf2_hmac("sha256", (password or self.password).encode(), self.salt, self.rounds)
        key = sign(salted, b"Client Key")
        without = f"c={encoded(header or self.header)},r={nonce or self.full}"
        signed = f"{self.bare},{self.challenge},{without}".encode()
        signature = sign(hashlib.sha256(key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        return f"{without},p={encoded(proof)}", f"v={encoded(sign(sign(salted, b'Server Key'), signed))}"

    def login(self, initial=True):
        message, expected = self.first(initial).final()
        reply = self.pop.cmd(encoded(message))
        same(base64.b64decode(reply[2:]).decode(), expected, "the server's own proof")
        return self.pop.cmd("")


def with_apop(bench):
    """A site whose stock authenticator keeps passwords for APOP."""
    site = bench.site(settings={"apop_enable": "true"})
    nwauth = f"{shlex.quote(DMAIL)} nwauth -path {shlex.quote(site.user_path)}"
    site.extra["authent_process"] = f"{nwauth} -apop"
    for user, password in site.users.items():
        done = run([*shlex.split(nwauth), "-apop", "set", user, password])
        check(done.returncode == 0, "nwauth set:", done.stdout)
    return site


def started(site, tls=None, apop=False):
    """Starts it, and waits until the authenticator has said what it can."""
    site.start()

    def known():
        with site.pop(tls) as pop:
            return "SASL" in capabilities(pop) and (b"<" in pop.greeting or not apop)

    wait_for("the authenticator has been asked for its version", known)
    return site


def capabilities(pop):
    pop.ok("CAPA")
    found = {}
    while (line := pop.line()) != b".":
        name, *rest = line.decode().split()
        found[name] = rest
    return found


def scram_site(bench, **options):
    site = started(bench.site(**options), "tls")

    def offered():
        with site.pop("tls") as pop:
            return "SCRAM-SHA-256" in capabilities(pop).get("SASL", [])

    wait_for("SCRAM is announced", offered)
    return site


@test("sasl: SCRAM from its first line to the mailbox, with and without an initial response, plain and under TLS")
def scram(bench):
    site = scram_site(bench)
    site.fill(spool.spool(spool.plain(3)))
    for tls in (None, "stls", "tls"):
        for initial in (True, False):
            with site.pop(tls) as pop:
                reply = Scram(pop, "ann", "secret").login(initial)
                check(reply.startswith(b"+OK 3 messages"), tls, initial, reply)
                same(pop.stat()[0], 3, "STAT")
                pop.quit()


@test("sasl: where passwords are refused SCRAM is not")
def refused_passwords(bench):
    site = scram_site(bench, settings={"plain_auth": "never"})
    with site.pop() as pop:
        same(capabilities(pop)["SASL"], ["SCRAM-SHA-256"], "SASL before TLS")
        pop.err("USER ann")
        pop.err(f"AUTH PLAIN {encoded(chr(0) + 'ann' + chr(0) + 'secret')}")
        check(Scram(pop, "ann", "secret").login().startswith(b"+OK"), "SCRAM")
        pop.quit()


@test("sasl: wrong passwords, strangers, nonces and headers that were changed all get the same words")
def wrong(bench):
    site = scram_site(bench)
    salts = {}
    for user in ("ann", "nobody", "ANN", "Nobody", "nobody@example.test"):
        with site.pop("tls") as pop:
            client = Scram(pop, user, "wrong").first()
            salts[user] = (client.salt, client.rounds)
            same(pop.cmd(encoded(client.final()[0])), WRONG, user)
    same(salts["ann"], salts["ANN"], "the salt of a user in capitals")
    same({salts["nobody"]}, {salts["Nobody"], salts["nobody@example.test"]}, "the salt of a stranger, each time")
    same(len(salts["ann"][0]), len(salts["nobody"][0]), "the length of a salt")
    same(salts["ann"][1], salts["nobody"][1], "the rounds")
    for change in ({"nonce": "elsewhere"}, {"header": "y,,"}, {"password": "secreT"}):
        with site.pop("tls") as pop:
            same(pop.cmd(encoded(Scram(pop, "ann", "secret").first().final(**change)[0])), WRONG, change)
            pop.ok("NOOP")
    # What was good on one connection is good on no other.
    with site.pop("tls") as one, site.pop("tls") as other:
        heard = Scram(one, "ann", "secret").first()
        replayed = Scram(other, "ann", "secret")
        replayed.bare, replayed.nonce = heard.bare, heard.nonce
        replayed.first()
        check(replayed.full != heard.full, "a nonce of the server's own")
        message, _ = heard.final()
        same(other.cmd(encoded(message)), WRONG, "a proof that was heard elsewhere")
    denied = json.loads(site.tell("status", "--json").stdout)["logins"]["denied"]
    same(denied, 9, "logins denied")
    wait_for("the log tells of each", lambda: site.log().count("login refused") == denied)
    check("secret" not in site.log(), "a password in the log")


@test("sasl: strangers keep their salt when the server is started again")
def lasting(bench):
    site = scram_site(bench)

    def salt():
        with site.pop("tls") as pop:
            client = Scram(pop, "nobody", "x").first()
            return client.salt, client.rounds

    before = salt()
    site.stop()
    site.start(patient=True)
    wait_for("SCRAM is announced", lambda: "SCRAM-SHA-256" in capabilities(site.pop("tls")).get("SASL", []))
    same(salt(), before, "the salt of a stranger")


@test("sasl: an exchange can be cancelled, and nonsense ends it")
def cancelled(bench):
    site = scram_site(bench)
    with site.pop("tls") as pop:
        Scram(pop, "ann", "secret").first()
        same(pop.cmd("*"), b"-ERR Cancelled", "after the challenge")
        client = Scram(pop, "ann", "secret").first()
        check(pop.cmd(encoded(client.final()[0])).startswith(b"+ "), "proved")
        same(pop.cmd("*"), b"-ERR Cancelled", "after the proof")
        pop.err("STAT")
        for first in ("", "n,,", "p=tls-exporter,,n=ann,r=x", "n,a=bob,n=ann,r=x", "n,,n=ann,r=x,m=1"):
            same(pop.cmd("AUTH SCRAM-SHA-256 " + (encoded(first) or "=")), b"-ERR Bad response", first)
        check(Scram(pop, "ann", "secret").login().startswith(b"+OK"), "and after all that")
        pop.quit()


@test("sasl: a good login gives a verifier to who came without one, and SCRAM is offered when all have one")
def made_up(bench):
    site = bench.site()
    plain = "$1$rasmusle$rISCgZzpwk3UhDidwXvin0"  # rasmuslerdorf
    bench.write("site/users/nwauth.txt", f"ann:{plain}\n")
    path = os.path.join(site.user_path, "nwauth.add")
    if os.path.exists(path):
        os.remove(path)
    started(site, "tls")
    with site.pop("tls") as pop:
        check("SCRAM-SHA-256" not in capabilities(pop)["SASL"], "offered, and ann would be kept out")
        status = json.loads(site.tell("status", "--json").stdout)
        same(status["authenticators"]["scram"], False, "what status says")
        pop.login("ann", "rasmuslerdorf")
        pop.quit()
    site.stop()
    site.start(patient=True)

    def proved():
        with site.pop("tls") as pop:
            if "SCRAM-SHA-256" not in capabilities(pop)["SASL"]:
                return False
            return Scram(pop, "ann", "rasmuslerdorf").login().startswith(b"+OK")

    wait_for("ann proves her password", proved)


@test("sasl: a wrong proof and a stranger's take equally long")
def timing(bench):
    site = scram_site(bench, settings={"auth_nocache": "true"})
    times = {"ann": [], "nobody": []}
    for _ in range(60):
        for user, found in times.items():
            with site.pop() as pop:
                client = Scram(pop, user, "wrong")
                message = encoded(client.header + client.bare)
                begun = time.perf_counter()
                reply = pop.cmd(f"AUTH SCRAM-SHA-256 {message}")
                middle = time.perf_counter()
                client.challenge = base64.b64decode(reply[2:]).decode()
                client.full = client.challenge.split(",")[0][2:]
                client.salt, client.rounds = b"x", 1
                last = encoded(client.final()[0])
                again = time.perf_counter()
                same(pop.cmd(last), WRONG, user)
                found.append(middle - begun + time.perf_counter() - again)
    medians = {user: sorted(found)[len(found) // 2] for user, found in times.items()}
    # The machine of the test is shared: this finds a hash or a disk too many, not a microsecond.
    check(abs(medians["ann"] - medians["nobody"]) < 0.002, "medians:", medians)


@test("sasl: APOP by poplib; a wrong digest, a stranger, a stamp of another connection")
def apop(bench):
    site = started(with_apop(bench), apop=True)
    site.fill(spool.spool(spool.plain(3)))

    def client():
        return poplib.POP3("127.0.0.1", site.port, timeout=30)

    one = client()
    check(one.apop("ann", "secret").startswith(b"+OK 3"), "APOP")
    same(one.stat()[0], 3, "STAT")
    one.quit()
    for user, password in (("ann", "Secret"), ("nobody", "secret")):
        other = client()
        try:
            other.apop(user, password)
            check(False, "let in:", user, password)
        except poplib.error_proto as error:
            same(error.args[0], WRONG, user)
        other.quit()
    stamps = set()
    with site.pop() as first, site.pop() as second:
        stamp = first.greeting[first.greeting.index(b"<"):]
        digest = hashlib.md5(stamp + b"secret").hexdigest()
        check(second.cmd(f"APOP ann {digest}") == WRONG, "a digest that was heard elsewhere")
        check(first.cmd(f"APOP ann {digest}").startswith(b"+OK"), "the same where it belongs")
    for _ in range(50):
        with site.pop() as pop:
            stamps.add(pop.greeting)
    same(len(stamps), 50, "different stamps")


@test("sasl: APOP is not there unless it is wanted, and not where passwords are refused")
def no_apop(bench):
    site = with_apop(bench)
    site.extra["apop_enable"] = "false"
    started(site)
    with site.pop() as pop:
        check(b"<" not in pop.greeting, "the greeting:", pop.greeting)
        same(pop.cmd("APOP ann " + "0" * 32), b"-ERR Unknown command", "APOP")
    site.stop()
    site.extra.update(apop_enable="true", plain_auth="never")
    site.start(patient=True)

    def offered():
        with site.pop("tls") as pop:
            return b"<" in pop.greeting

    wait_for("APOP is offered under TLS", offered)
    with site.pop() as pop:
        check(b"<" not in pop.greeting, "the greeting:", pop.greeting)


def mail_of(bench, site, how):
    """What mpop fetches, authenticating so."""
    need("mpop")
    box = bench.path("box")
    rc = bench.write("mpoprc", f"""account default
host localhost
port {site.tls_port}
user ann
password secret
auth {how}
tls on
tls_starttls off
tls_trust_file {site.cert}
keep on
received_header off
uidls_file {bench.path("uidls")}
delivery mbox {box}
""")
    os.chmod(rc, 0o600)
    done = run(["mpop", "-C", rc, "--debug"])
    same(done.returncode, 0, (how, done.stdout, done.stderr))
    return done.stdout, len(spool.raw_messages(box))


@test("sasl: mpop by SCRAM-SHA-256, and by what it likes best")
def mpop(bench):
    need("mpop")
    if b"scram-sha-256" not in run(["mpop", "--version"]).stdout:
        raise Skip("this mpop has no SCRAM")
    site = scram_site(bench)
    site.fill(spool.spool(spool.plain(3)))
    said, count = mail_of(bench, site, "scram-sha-256")
    check(b"AUTH SCRAM-SHA-256" in said, said)
    same(count, 3, "messages")
    said, _ = mail_of(bench, site, "on")
    check(b"+OK 3 messages" in said, said)


@test("sasl: mpop and fetchmail by APOP")
def apop_clients(bench):
    need("mpop")
    need("fetchmail")
    site = started(with_apop(bench), apop=True)
    site.fill(spool.spool(spool.plain(3)))
    said, count = mail_of(bench, site, "apop")
    check(b"APOP ann" in said, said)
    same(count, 3, "messages")
    rc = bench.write("fetchmailrc", f"""set invisible
set no bouncemail
set idfile "{bench.path("ids")}"
set pidfile "{bench.path("pid")}"
poll localhost service {site.port} protocol APOP uidl no dns
  user "ann" password "secret" sslproto '' keep no rewrite mda "cat >>{bench.path("fetched")}; echo >>{bench.path("fetched")}"
""", 0o700)
    done = run(["fetchmail", "-v", "-f", rc, "--nosyslog", "--nodetach"])
    same(done.returncode, 0, (done.stdout, done.stderr))
    check(b"POP3> APOP ann" in done.stdout, done.stdout)


@test("sasl: curl by SCRAM-SHA-256, where it was built with it")
def curl(bench):
    need("curl")
    if b"gsasl" not in run(["curl", "-V"]).stdout.lower():
        raise Skip("this curl has no SCRAM")
    site = scram_site(bench)
    site.fill(spool.spool(spool.plain(3)))
    done = run(["curl", "-sS", "--max-time", "60", "--cacert", site.cert, "-u", "ann:secret", "--login-options",
                "AUTH=SCRAM-SHA-256", f"pop3s://localhost:{site.tls_port}/"])
    same((done.returncode, len(done.stdout.split(b"\r\n"))), (0, 4), (done.stdout, done.stderr))
