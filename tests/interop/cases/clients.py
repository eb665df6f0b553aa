"""Real clients: each fetches a drop on plain, STLS and TLS, keeping and not keeping, and every byte is compared with what
the independent reader says of the drop.

What a client itself changes, and so what is compared. Everything not named here must arrive byte for byte.

| client   | changes                                                                       | compared               |
|----------|-------------------------------------------------------------------------------|------------------------|
| curl     | nothing                                                                       | all bytes              |
| openssl  | nothing: we speak through it                                                  | all bytes              |
| poplib   | gives lines without their ends; refuses lines over 2,048 octets unless told    | all bytes              |
| mpop     | CRLF becomes LF for an mda; loses some CRs of a line of 70,000 of them        | all bytes, as LF       |
| fetchmail| CRLF becomes LF for an mda, lines over 8 KiB are broken; nothing else with `invisible` and `no rewrite` | all bytes, as LF |
| getmail  | CRLF becomes LF for an mda; a Return-Path line goes before                    | all bytes, as LF, without that line |
| s-nail   | writes an mbox: CRLF becomes LF, `From ` lines are quoted, Status, Content-Length and Lines are its own, one blank line at the end may go | as LF, without these, quoting and blank lines at the end |
"""

import os
import poplib
import re
import ssl
import sys

from harness import spool
from harness.suite import Failure, check, need, run, same, test, wait_for

MODES = ("plain", "stls", "tls")
LATE = spool.entry(spool.mail("late", b"I came while you were reading.\n.\n"), 59)


def as_lf(text):
    return text.replace(b"\r\n", b"\n")


class Client:
    """`fetch` gives the messages in the order of the drop, in the form that `expected` gives them."""

    program = None
    #: It remembers by UIDL what it has fetched.
    remembers = False
    modes = MODES

    def __init__(self, bench, site, mode):
        self.bench, self.site, self.mode = bench, site, mode
        self.port = site.tls_port if mode == "tls" else site.port
        self.home = bench.path("client")
        self.out = bench.path("client", "out")
        self.late = bench.path("client", "late")
        os.makedirs(self.out)
        if self.program:
            need(self.program)

    def expected(self, message):
        return as_lf(message)

    def environment(self):
        return dict(PATH=os.environ["PATH"], HOME=self.home, LC_ALL="C.UTF-8", TERM="dumb", MAILRC="/dev/null")

    def ran(self, arguments, codes=(0,), **options):
        done = run(arguments, env=self.environment(), cwd=self.home, **options)
        if done.returncode not in codes:
            raise Failure(f"{arguments[0]} ended with {done.returncode}: {done.stdout[-600:]!r} {done.stderr[-900:]!r}")
        return done

    def mda(self):
        """A program that stores what it is given, and appends LATE to the drop in the middle of the session if asked."""
        return self.bench.write("client/mda", f"""#!{sys.executable} -SE
import os, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))!r})
sys.dont_write_bytecode = True
text = sys.stdin.buffer.read()
number = len(os.listdir({self.out!r}))
with open(os.path.join({self.out!r}, "%05d" % number), "wb") as file:
    file.write(text)
if number == 3 and os.path.exists({self.late!r}):
    from harness import spool
    spool.append({self.site.drop()!r}, open({self.late!r}, "rb").read())
""", 0o755)

    def stored(self):
        found = []
        for name in sorted(os.listdir(self.out)):
            path = os.path.join(self.out, name)
            with open(path, "rb") as file:
                found.append(file.read())
            os.unlink(path)
        return found

    def during(self, content):
        """Asks for an append in the middle of the session; False when this client cannot be interrupted."""
        self.bench.write("client/late", content)
        return True


class Curl(Client):
    program = "curl"

    def expected(self, message):
        return message

    def during(self, content):
        return False

    def base(self):
        scheme = "pop3s" if self.mode == "tls" else "pop3"
        return ["curl", "-sS", "--max-time", "60", "--cacert", self.site.cert, "-u", "ann:secret"] + (
            ["--ssl-reqd"] if self.mode == "stls" else []), f"{scheme}://localhost:{self.port}/"

    def fetch(self, keep):
        command, url = self.base()
        rows = self.ran(command + [url]).stdout.split(b"\r\n")
        numbers = [int(row.split()[0]) for row in rows if row]
        sizes = {int(row.split()[0]): int(row.split()[1]) for row in rows if row}
        uids = self.ran(command + ["-X", "UIDL", url]).stdout.split(b"\r\n")
        check([int(row.split()[0]) for row in uids if row] == numbers, "UIDL and LIST have the same numbers")
        plan = "".join(f'url = "{url}{n}"\noutput = "{self.out}/{n:05}"\n' for n in numbers)
        if numbers:
            self.ran(command + ["-K", self.bench.write("client/plan", plan)])
        found = self.stored()
        for number, text in zip(numbers, found):
            check(sizes[number] == len(text), "LIST says", sizes[number], "octets, RETR gave", len(text))
        if not keep and numbers:
            plan = "".join(f'url = "{url}{n}"\nrequest = "DELE"\nhead\n' for n in numbers)
            self.ran(command + ["-K", self.bench.write("client/plan", plan)])
        return found


class Fetchmail(Client):
    program = "fetchmail"
    remembers = True

    def fetch(self, keep):
        how = {"plain": "sslproto ''", "stls": f"sslproto 'TLS1.2+' sslcertck sslcertfile '{self.site.cert}'",
               "tls": f"ssl sslcertck sslcertfile '{self.site.cert}'"}[self.mode]
        rc = self.bench.write("client/fetchmailrc", f"""set invisible
set no bouncemail
set no spambounce
set idfile "{self.home}/ids"
set pidfile "{self.home}/pid"
poll localhost service {self.port} protocol POP3 uidl no dns
  user "ann" password "secret" {how} {"keep" if keep else "no keep"} {"" if keep else "fetchall"} no rewrite mda "{self.mda()}"
""")
        # 1: there was no mail.
        self.ran(["fetchmail", "-f", rc, "--nosyslog", "--nodetach"], codes=(0, 1))
        return self.stored()


class Mpop(Client):
    program = "mpop"
    remembers = True
    delivery = "mda"

    def stored(self):
        box = os.path.join(self.home, "box")
        if self.delivery == "mda":
            return super().stored()
        return [text for _, text in spool.raw_messages(box)] if os.path.exists(box) else []

    def fetch(self, keep):
        rc = self.bench.write("client/mpoprc", f"""account default
host localhost
port {self.port}
user ann
password secret
auth user
tls {"off" if self.mode == "plain" else "on"}
tls_starttls {"on" if self.mode == "stls" else "off"}
{"" if self.mode == "plain" else "tls_trust_file " + self.site.cert}
keep {"on" if keep else "off"}
received_header off
uidls_file {self.home}/uidls
delivery {"mda " + self.mda() if self.delivery == "mda" else "mbox " + self.home + "/box"}
""")
        self.ran(["mpop", "-C", rc, "--quiet"])
        return self.stored()


class MpopBox(Mpop):
    """For many messages: no program started for each."""

    delivery = "mbox"


class Getmail(Client):
    program = "getmail"
    remembers = True
    # getmail 6.18 has no STLS.
    modes = ("plain", "tls")

    def fetch(self, keep):
        kind = "SimplePOP3SSLRetriever" if self.mode == "tls" else "SimplePOP3Retriever"
        rc = self.bench.write("client/getmailrc", f"""[retriever]
type = {kind}
server = localhost
port = {self.port}
username = ann
password = secret
{"ca_certs = " + self.site.cert if self.mode == "tls" else ""}
[destination]
type = MDA_external
path = {self.mda()}
unixfrom = false
allow_root_commands = true
[options]
verbose = 0
delete = {"false" if keep else "true"}
read_all = {"false" if keep else "true"}
delivered_to = false
received = false
""")
        self.ran(["getmail", "--getmaildir", self.home, "--rcfile", rc])
        found = self.stored()
        check(all(text.startswith(b"Return-Path: <unknown>\n") for text in found), "getmail's own line")
        return [text.partition(b"\n")[2] for text in found]


class Snail(Client):
    program = "s-nail"

    def expected(self, message):
        return self.unquoted(as_lf(message))

    @staticmethod
    def unquoted(text):
        head, blank, body = text.partition(b"\n\n")
        head = re.sub(rb"(?im)^(?:Status|X-Status|Content-Length|Lines):.*\n?", b"", head + b"\n").rstrip(b"\n")
        return head + (blank or b"\n\n") + re.sub(rb"(?m)^>+From ", b"From ", body).rstrip(b"\n")

    def during(self, content):
        return False

    def fetch(self, keep):
        box = os.path.join(self.home, "copy")
        if os.path.exists(box):
            os.unlink(box)
        url = f"{'pop3s' if self.mode == 'tls' else 'pop3'}://ann:secret@localhost:{self.port}"
        tls = [] if self.mode == "plain" else ["-S", f"tls-ca-file={self.site.cert}", "-S", "tls-ca-no-defaults",
                                               "-S", "tls-verify=strict"]
        stls = ["-S", "pop3-use-starttls"] if self.mode == "stls" else []
        commands = f"copy * {box}\n" + ("xit\n" if keep else "delete *\nquit\n")
        self.ran(["s-nail", "-#", "-n", "-S", "v15-compat", "-S", "mbox-rfc4155", "-S", "nopop3-keepalive", *tls, *stls,
                  "-S", "pop3-bulk-load", "-f", url],
                 codes=(0, 1), input=commands.encode())
        if not os.path.exists(box):
            return []
        return [self.unquoted(text) for _, text in spool.raw_messages(box)]


class Openssl(Client):
    program = "openssl"
    modes = ("stls", "tls")

    def expected(self, message):
        return message

    def during(self, content):
        return False

    def talk(self, commands):
        command = ["openssl", "s_client", "-quiet", "-crlf", "-connect", f"localhost:{self.port}", "-CAfile", self.site.cert,
                   "-verify_return_error", "-verify_hostname", "localhost"]
        if self.mode == "stls":
            command += ["-starttls", "pop3"]
        return self.ran(command, input="".join(f"{one}\n" for one in commands).encode()).stdout

    def fetch(self, keep):
        said = self.talk(["USER ann", "PASS secret", "STAT", "QUIT"])
        count = int(re.search(rb"\+OK (\d+) \d+\r\n\+OK", said)[1])
        # All at once: what is piped in does not wait for replies.
        numbers = range(1, count + 1)
        said = self.talk(["USER ann", "PASS secret", *(f"RETR {n}" for n in numbers),
                          *([] if keep else [f"DELE {n}" for n in numbers]), "QUIT"])
        # The greeting of a direct connection, USER, PASS; s_client shows no more of what came before STLS.
        lines = said.split(b"\r\n", 3 if self.mode == "tls" else 2)
        check(all(line.startswith(b"+OK") for line in lines[:-1]), "login:", lines[:-1])
        rest, found = lines[-1], []
        for _ in numbers:
            first, _, rest = rest.partition(b"\r\n")
            check(first.startswith(b"+OK"), "RETR:", first)
            if rest.startswith(b".\r\n"):
                text, rest = b"", rest[3:]
            else:
                text, _, rest = rest.partition(b"\r\n.\r\n")
                text += b"\r\n"
            found.append(re.sub(rb"(?:\A|(?<=\r\n))\.\.", b".", text))
        ends = rest.split(b"\r\n")
        check(len(ends) == 2 + (0 if keep else count) and all(end.startswith(b"+OK") for end in ends[:-1]), "the end:", ends)
        return found


class Poplib(Client):
    def expected(self, message):
        return message

    def connect(self):
        trust = ssl.create_default_context(cafile=self.site.cert)
        if self.mode == "tls":
            pop = poplib.POP3_SSL("localhost", self.port, timeout=60, context=trust)
        else:
            pop = poplib.POP3("localhost", self.port, timeout=60)
        if self.mode == "stls":
            pop.stls(trust)
        return pop

    def fetch(self, keep):
        pop = self.connect()
        pop.user("ann")
        pop.pass_("secret")
        count, octets = pop.stat()
        _, rows, _ = pop.list()
        check(len(rows) == count and sum(int(row.split()[1]) for row in rows) == octets, "STAT and LIST agree")
        _, uids, _ = pop.uidl()
        check(len({row.split()[1] for row in uids}) == count, "every message has a UID of its own")
        found = []
        for number in range(1, count + 1):
            _, lines, _ = pop.retr(number)
            found.append(b"".join(line + b"\r\n" for line in lines))
            if number == 3 and os.path.exists(self.late):
                with open(self.late, "rb") as file:
                    spool.append(self.site.drop(), file.read())
            if not keep:
                pop.dele(number)
        pop.quit()
        return found


CLIENTS = {"curl": Curl, "fetchmail": Fetchmail, "mpop": Mpop, "getmail": Getmail, "s-nail": Snail, "openssl": Openssl,
           "poplib": Poplib}


def compare(client, found, wanted):
    for index, (one, other) in enumerate(zip(found, wanted)):
        same(one, client.expected(other), f"message {index + 1}")
    check(len(found) == len(wanted), "fetched", len(found), "messages of", len(wanted))


def identity(path):
    status = os.stat(path)
    return status.st_ino, status.st_uid, status.st_gid, status.st_mode


def keeping(bench, client, mode):
    site = bench.site()
    drop = site.fill(spool.spool(spool.nasty()))
    before, who = open(drop, "rb").read(), identity(drop)
    wanted = spool.messages(drop)
    site.start()
    client = client(bench, site, mode)
    compare(client, client.fetch(keep=True), wanted)
    again = client.fetch(keep=True)
    if client.remembers:
        check(not again, "fetched again:", len(again), "messages it had already")
    else:
        compare(client, again, wanted)
    site.alive()
    same(open(drop, "rb").read(), before, "the drop file after reading")
    same(identity(drop), who, "inode, owner and mode of the drop file")


def emptying(bench, client, mode):
    site = bench.site()
    drop = site.fill(spool.spool(spool.nasty()))
    who = identity(drop)
    wanted = spool.messages(drop)
    site.start()
    client = client(bench, site, mode)
    during = client.during(LATE)
    compare(client, client.fetch(keep=False), wanted)
    if not during:
        wait_for("the drop can be locked and appended to", lambda: spool.append(drop, LATE) or True)
    wait_for("the drop holds what came late and nothing else", lambda: open(drop, "rb").read() == LATE, 15)
    same(identity(drop), who, "inode, owner and mode of the drop file")
    found = client.fetch(keep=True)
    compare(client, found, spool.messages(drop))
    site.alive()


CLIENTS_OF_SPOOLS = dict(CLIENTS, mpopbox=MpopBox)


def register(name, client):
    for mode in client.modes:
        test(f"client {name} {mode} keep", twin=True)(lambda bench, c=client, m=mode: keeping(bench, c, m))
        test(f"client {name} {mode} empty", twin=True)(lambda bench, c=client, m=mode: emptying(bench, c, m))


for _name, _client in CLIENTS.items():
    register(_name, _client)


def spools(name, content, clients, seconds=120):
    """The same content for several clients, over TLS and in clear."""
    for which in clients:

        @test(f"spool {name} with {which}", seconds, twin=True)
        def fetched(bench, which=which):
            site = bench.site()
            drop = site.fill(content())
            before, wanted = open(drop, "rb").read(), spool.messages(drop)
            site.start()
            for mode in ("tls", "plain"):
                if mode not in CLIENTS_OF_SPOOLS[which].modes:
                    continue
                os.path.isdir(bench.path("client")) and os.rename(bench.path("client"), bench.path("client." + mode))
                client = CLIENTS_OF_SPOOLS[which](bench, site, mode)
                compare(client, client.fetch(keep=True), wanted)
            same(open(drop, "rb").read(), before, "the drop file after reading")
            site.alive()


# poplib's limit of 2,048 octets a line is its own, not the protocol's.
poplib._MAXLINE = 1 << 27

spools("of CRLF lines", lambda: spool.crlf(spool.spool(spool.nasty())), ["curl", "fetchmail", "mpop", "openssl"])
spools("without a final newline", lambda: spool.no_final_newline(spool.spool(spool.nasty())), ["curl", "mpop", "poplib"])
spools("of dots at every edge", lambda: spool.spool(spool.dots()), ["curl", "mpop", "openssl"])
spools("of wild messages", lambda: spool.spool(spool.wild()), ["curl", "openssl", "poplib"])
spools("of big messages", lambda: spool.spool(spool.big()), ["curl", "openssl", "mpop", "poplib"])
spools("of 3,000 tiny messages", lambda: spool.spool(spool.tiny()), ["mpopbox", "openssl", "poplib"], 180)
