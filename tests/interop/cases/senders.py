"""Programs that send, as their users set them up: TLS from the start and by STARTTLS, each way to log in, wrong passwords, LMTP."""

import base64
import email
import os
import smtplib
import ssl

from harness import spool
from harness.site import Site
from harness.suite import Skip, check, need, run, same, test, wait_for
from harness.wire import Smtp, context

from .sasl import Scram

LETTER = b"From: Ann <ann@example.test>\r\nTo: bob@example.test\r\nSubject: tea\r\n\r\nAt five.\r\n.dot\r\n..\r\nFrom here on\r\n"
BODY = b"At five.\n.dot\n..\n>From here on\n"


def served(bench, **settings):
    """A site whose authenticator has been asked what it can."""
    site = Site(bench, mail=True, settings=settings).start()

    def offered():
        wire = Smtp.tcp(site.submission_port)
        wire.hello()
        wire.starttls(site.cert)
        found = any(b"SCRAM-SHA-256" in line for line in wire.hello())
        wire.cmd("QUIT", b"221")
        return found

    wait_for("SCRAM is offered", offered)
    return site


def letters(site, user="bob"):
    path = site.drop(user)
    return spool.messages(path) if os.path.exists(path) else []


def came(site, how, user="bob"):
    """The newest letter has come that way, with that text."""
    text = letters(site, user)[-1].replace(b"\r\n", b"\n")
    check(f"with {how} id " in email.message_from_bytes(text)["Received"], how, "in", text)
    check(b"tea" in text, "the subject in", text)
    return text


def swaks(site, port, *words, user="bob"):
    return run([need("swaks"), "--server", "127.0.0.1", "--port", str(port), "--from", "ann@example.test", "--to", f"{user}@example.test",
                "--header", "Subject: tea", "--helo", "client.example.org", *words], cwd=site.folder)


@test("senders: swaks, in clear, by STARTTLS, under TLS, with each way to log in, pipelining, and over LMTP")
def with_swaks(bench):
    need("swaks")
    if run(["perl", "-MNet::SSLeay", "-e", "1"]).returncode:
        raise Skip("swaks cannot speak TLS here: libnet-ssleay-perl")
    site = served(bench)
    login = ("--auth-user", "ann", "--auth-password", "secret")
    for port, how, words in [
        (site.smtp_port, "ESMTP", ()),
        (site.smtp_port, "SMTP", ("--protocol", "SMTP")),
        (site.smtp_port, "ESMTPS", ("--tls",)),
        (site.smtp_port, "ESMTP", ("--pipeline",)),
        (site.submission_port, "ESMTPA", ("--auth", "PLAIN", *login)),
        (site.submission_port, "ESMTPSA", ("--tls", "--auth", "PLAIN", *login)),
        (site.submission_port, "ESMTPSA", ("--tls", "--auth", "LOGIN", *login)),
        (site.submission_port, "ESMTPSA", ("--tls", "--auth", "PLAIN", "--pipeline", *login)),
        (site.smtps_port, "ESMTPSA", ("--tls-on-connect", "--auth", "LOGIN", *login)),
        (site.lmtp_port, "LMTP", ("--protocol", "LMTP")),
    ]:
        before = len(letters(site))
        done = swaks(site, port, *words)
        check(done.returncode == 0, words, done.stdout[-1500:], done.stderr)
        same(len(letters(site)), before + 1, f"letters after {words}")
        came(site, how)
    # 28: AUTH was refused; 24: the recipients were; 23: the sender was.
    for port, code, words in [
        (site.submission_port, 28, ("--tls", "--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "wrong")),
        (site.submission_port, 28, ("--auth", "CRAM-MD5", *login)),
        (site.smtp_port, 28, ("--tls", "--auth", "PLAIN", *login)),
        (site.submission_port, 23, ("--tls",)),
        (site.smtp_port, 24, ("--to", "nobody@example.test")),
        (site.lmtp_port, 24, ("--protocol", "LMTP", "--to", "nobody@elsewhere.example")),
    ]:
        done = swaks(site, port, *words)
        same(done.returncode, code, f"{words} {done.stdout[-600:]}")
    same(len(letters(site)), 10, "letters")


@test("senders: msmtp, TLS on 465, STARTTLS on 587, each way to log in, and a wrong password")
def with_msmtp(bench):
    need("msmtp")
    site = served(bench)
    number = 0
    for port, start, auth, password in [
        (site.smtps_port, "off", "plain", "secret"), (site.smtps_port, "off", "login", "secret"),
        (site.submission_port, "on", "plain", "secret"), (site.submission_port, "on", "scram-sha-256", "secret"),
        (site.submission_port, "on", "on", "secret"), (site.submission_port, "on", "plain", "falsch"),
        (site.smtps_port, "off", "scram-sha-256", "falsch"),
    ]:
        conf = bench.write("msmtprc", f"account default\nhost localhost\nport {port}\nfrom ann@example.test\ndomain laptop.example\n"
                           f"tls on\ntls_starttls {start}\ntls_trust_file {site.cert}\nauth {auth}\nuser ann\npassword {password}\n")
        done = run(["msmtp", "-C", conf, "bob@example.test"], input=LETTER.replace(b"\r\n", b"\n"))
        if password == "secret":
            check(done.returncode == 0, port, start, auth, done.stderr)
            number += 1
            check(came(site, "ESMTPSA").endswith(BODY), letters(site)[-1])
        else:
            # EX_NOPERM
            same(done.returncode, 77, f"{auth} {done.stderr}")
            check(b"535" in done.stderr and "falsch" not in site.log(), done.stderr)
        same(len(letters(site)), number, "letters")


@test("senders: curl sends to 587 and 465, under TLS alone, and is told what is wrong")
def with_curl(bench):
    need("curl")
    site = served(bench)
    path = bench.path("letter")
    with open(path, "wb") as file:
        file.write(LETTER)

    def curl(url, *words, to="bob@example.test"):
        return run(["curl", "-sS", url, "--cacert", site.cert, "--mail-from", "ann@example.test", "--mail-rcpt", to,
                    "--upload-file", path, *words])

    for number, (url, words) in enumerate([
        (f"smtp://localhost:{site.submission_port}/laptop", ("--ssl-reqd", "-u", "ann:secret")),
        (f"smtp://localhost:{site.submission_port}/laptop", ("--ssl-reqd", "-u", "ann:secret", "--login-options", "AUTH=LOGIN")),
        (f"smtps://localhost:{site.smtps_port}/laptop", ("-u", "ann@example.test:secret", "--sasl-ir")),
    ], 1):
        done = curl(url, *words)
        check(done.returncode == 0, url, words, done.stderr)
        check(came(site, "ESMTPSA").endswith(BODY), letters(site)[-1])
        same(len(letters(site)), number, "letters")
    url = f"smtps://localhost:{site.smtps_port}"
    # 67: the login was refused; 55: a recipient was.
    same(curl(url, "-u", "ann:wrong").returncode, 67, "a wrong password")
    same(curl(url, "-u", "ann:secret", to="nobody@example.test").returncode, 55, "nobody")
    same(len(letters(site)), 3, "letters")


@test("senders: s-nail sends through its own SMTP, by STARTTLS and under TLS")
def with_s_nail(bench):
    need("s-nail")
    site = served(bench)
    for number, (mta, words) in enumerate([
        (f"smtps://ann:secret@localhost:{site.smtps_port}", ()),
        (f"submission://ann:secret@localhost:{site.submission_port}", ("-Ssmtp-use-starttls",)),
        (f"smtp://ann:secret@localhost:{site.submission_port}", ("-Ssmtp-use-starttls", "-Ssmtp-auth=login")),
    ], 1):
        done = run(["s-nail", "-n", "-Sv15-compat", f"-Smta={mta}", f"-Stls-ca-file={site.cert}", "-Stls-ca-no-defaults",
                    "-r", "ann@example.test", "-Shostname=laptop.example", *words, "-s", "tea",
                    "bob@example.test"], input=b"At five.\n.dot\n", env=dict(os.environ, HOME=bench.folder, LC_ALL="C.UTF-8"))
        check(done.returncode == 0, mta, done.stderr)
        wait_for("the letter", lambda: len(letters(site)) == number)
        check(b"\nAt five.\n.dot\n" in came(site, "ESMTPSA"), letters(site)[-1])
    done = run(["s-nail", "-n", "-Sv15-compat", f"-Smta=smtps://ann:wrong@localhost:{site.smtps_port}", f"-Stls-ca-file={site.cert}",
                "-r", "ann@example.test", "-s", "tea", "bob@example.test"], input=b"At five.\n",
               env=dict(os.environ, HOME=bench.folder, LC_ALL="C.UTF-8"))
    check(done.returncode != 0, "a wrong password:", done)
    same(len(letters(site)), 3, "letters")


class Saslike:
    """An SMTP connection to which the client of SCRAM speaks as to one of POP3."""

    def __init__(self, wire):
        self.wire = wire

    def cmd(self, line):
        self.wire.send(line.encode() + b"\r\n")
        said = self.wire.reply()[-1]
        return b"+ " + said[4:] if said.startswith(b"334") else said


@test("senders: SCRAM-SHA-256 over SMTP, with and without an initial response; who cheats is not let in")
def with_scram(bench):
    site = served(bench)

    def wire(tls=True):
        one = Smtp.tcp(site.submission_port)
        one.hello()
        if tls:
            one.starttls(site.cert)
            one.hello()
        return one

    for tls in (True, False):
        for initial in (True, False):
            one = wire(tls)
            same(Scram(Saslike(one), "ann", "secret").login(initial)[:9], b"235 2.7.0", "SCRAM")
            one.cmd("AUTH PLAIN AGFubgBzZWNyZXQ=", b"503 5.5.1")
            one.begin("ann@example.test", "bob@example.test")
            one.send(LETTER + b".\r\n")
            one.expect(b"250 2.0.0")
            came(site, "ESMTPSA" if tls else "ESMTPA")
            one.cmd("QUIT", b"221")

    def refused(exchange, message, begins=b"535 5.7.8"):
        said = exchange.pop.cmd(base64.b64encode(message.encode()).decode())
        check(said.startswith(begins), said)
        exchange.pop.wire.cmd("MAIL FROM:<ann@example.test>", b"530 5.7.0")

    one = wire()
    exchange = Scram(Saslike(one), "ann", "wrong").first()
    refused(exchange, exchange.final()[0])
    # Who there is is not told: nobody gets a salt too, the same each time, and hears the same.
    salts = set()
    for _ in range(2):
        exchange = Scram(Saslike(wire()), "nobody", "secret").first()
        salts.add(exchange.salt)
        refused(exchange, exchange.final()[0])
    same(len(salts), 1, "salts of nobody")
    # Another's nonce, and a header that says another thing than the first message.
    for changed in ({"nonce": "x" * 40}, {"header": "y,,"}):
        exchange = Scram(Saslike(wire()), "ann", "secret").first()
        said = exchange.pop.cmd(base64.b64encode(exchange.final(**changed)[0].encode()).decode())
        check(said[:3] in (b"501", b"535"), changed, said)
        exchange.pop.wire.cmd("MAIL FROM:<ann@example.test>", b"530 5.7.0")


@test("senders: what Thunderbird says when it sends and then looks for mail")
def thunderbird(bench):
    site = served(bench)
    size = len(LETTER)
    for secret in (b"\0ann\0secret", b"\0ann@example.test\0secret"):
        wire = Smtp.tcp(site.submission_port)
        check(b"250-STARTTLS" in wire.cmd("EHLO [127.0.0.1]", b"250"), "STARTTLS is offered")
        wire.starttls(site.cert)
        offered = b"\n".join(wire.cmd("EHLO [127.0.0.1]", b"250"))
        for word in (b"AUTH SCRAM-SHA-256 PLAIN LOGIN", b"SIZE", b"8BITMIME", b"PIPELINING", b"DSN"):
            check(word in offered, word, "in", offered)
        check(b"STARTTLS" not in offered, "STARTTLS under TLS:", offered)
        wire.cmd(b"AUTH PLAIN " + base64.b64encode(secret), b"235 2.7.0")
        wire.cmd(f"MAIL FROM:<ann@example.test> BODY=8BITMIME SIZE={size}", b"250 2.1.0")
        wire.cmd("RCPT TO:<bob@example.test>", b"250 2.1.5")
        wire.cmd("DATA", b"354")
        # As it stuffs dots.
        wire.send(LETTER.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        wire.expect(b"250 2.0.0")
        wire.cmd("QUIT", b"221 2.0.0")
        wire.ended()
    with site.login("bob", tls="stls") as pop:
        pop.multi("CAPA")
        same(pop.stat()[0], 2, "letters")
        check(len(pop.uidl()) == 2 and len(pop.list()) == 2, "UIDL and LIST")
        for number in (1, 2):
            text = pop.retr(number).replace(b"\r\n", b"\n")
            check(text.endswith(BODY), text)
            pop.ok(f"DELE {number}")
        pop.quit()
    wait_for("what was deleted leaves the drop", lambda: letters(site) == [])


@test("senders: smtplib, with a password for each of its ways, and 8-bit text and addresses beyond ASCII")
def with_smtplib(bench):
    site = served(bench)
    tls = context(site.cert)
    for way in ("auth_plain", "auth_login"):
        with smtplib.SMTP("localhost", site.submission_port, timeout=20) as client:
            client.starttls(context=tls)
            client.ehlo("laptop")
            client.user, client.password = "ann", "secret"
            code, said = client.auth(way[5:].upper(), getattr(client, way))
            same(code, 235, f"{way} {said}")
            client.sendmail("ann@example.test", ["bob@example.test"], LETTER.decode().replace("five", "fünf").encode(),
                            mail_options=["BODY=8BITMIME"])
            check("fünf".encode() in came(site, "ESMTPSA"), letters(site)[-1])
    with smtplib.SMTP_SSL("localhost", site.smtps_port, context=tls, timeout=20) as client:
        client.login("ann", "secret")
        client.sendmail("ann@example.test", ["bob@example.test"], LETTER, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
        came(site, "UTF8SMTPSA")
        try:
            client.sendmail("ann@example.test", ["grün@example.test"], LETTER, mail_options=["SMTPUTF8"])
            check(False, "nobody was taken")
        except smtplib.SMTPRecipientsRefused as refused:
            same(next(iter(refused.recipients.values()))[0], 550, "nobody beyond ASCII")
    try:
        smtplib.SMTP_SSL("localhost", site.smtps_port, context=ssl.create_default_context(), timeout=20)
        check(False, "a certificate of nobody's was believed")
    except ssl.SSLCertVerificationError:
        pass
