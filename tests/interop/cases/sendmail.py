"""sendmail, mailq and newaliases: the programs of a machine that send mail do it as they always did, and what they send is
in the drop, once, with its text as it was."""

import email
import grp
import os
import pwd
import re
import signal
import subprocess
import time

from harness import spool
from harness.suite import DMAIL, ROOT, Failure, Skip, check, need, run, same, test, wait_for

#: The words of sysexits(3).
USAGE, DATA, NO_USER, UNAVAILABLE, LATER, NOT_ALLOWED, CONFIG = 64, 65, 67, 69, 75, 77, 78
#: A user who is neither root nor the server's, and in no group that matters.
STRANGER = 65_534


class Post:
    """A site that serves mail, and the program that others call sendmail."""

    def __init__(self, bench, start=True, **settings):
        self.bench = bench
        self.site = bench.site(mail=True, settings=settings)
        self.program = bench.write("bin/sendmail", f'#!/bin/sh\nexec {DMAIL} sendmail -C {self.site.conf} "$@"\n', 0o755)
        # The folder of a test is its own; what programs of other users need is open to them, as on a real machine.
        os.chmod(os.path.dirname(self.program), 0o755)
        os.chmod(self.site.work, 0o711)
        if start:
            self.start()
        else:
            self.site.write_conf()
            os.chmod(self.site.conf, 0o644)

    def start(self):
        self.site.start()
        os.chmod(self.site.conf, 0o644)
        return self

    def send(self, *words, text="Subject: hello\n\nhello\n", user=None):
        """sendmail with these words; its exit code and what it said."""
        become = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"] if user is not None else []
        done = run([*become, self.program, *words], input=text.encode() if isinstance(text, str) else text)
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    def sent(self, *words, **options):
        code, said = self.send(*words, **options)
        check(code == 0 and not said, "sendmail", words, "ended with", code, said)

    def mail(self, count=1, user="ann", seconds=20):
        """The messages in a drop, when there are so many."""

        def look():
            path = self.site.drop(user)
            found = spool.messages(path) if os.path.exists(path) else []
            if len(found) > count:
                raise Failure(f"{len(found)} messages, should be {count}: {found}")
            return found if len(found) == count else None

        found = wait_for(f"{count} messages for {user}", look, seconds)
        return [email.message_from_bytes(message) for message in found]

    def one(self, subject, text=None, user="ann"):
        """The only message, with this subject and, line ends aside, this text."""
        message = self.mail(1, user)[0]
        same(message["Subject"], subject, "Subject")
        for name in ("From", "Date", "Message-ID"):
            same(len(message.get_all(name, [])), 1, f"{name} fields in {message}")
        if text is not None:
            same(message.get_payload().replace("\r\n", "\n"), text, "text")
        return message


def machines_own(post, command, seconds=60, **options):
    """Runs a command for which /usr/sbin/sendmail is ours, in a mount namespace of its own."""
    if not ROOT:
        raise Skip("only root can put a program in the place of another")
    need("unshare")
    if not os.path.exists("/usr/sbin/sendmail"):
        raise Skip("there is no /usr/sbin/sendmail to stand in for")
    script = f'mount --bind {post.program} "$(readlink -f /usr/sbin/sendmail)" && exec "$@"'
    return run(["unshare", "-m", "sh", "-c", script, "sh", *command], seconds=seconds, **options)


@test("sendmail: -t takes its recipients from the message, and Bcc is seen by nobody")
def from_header(bench):
    post = Post(bench)
    text = "To: Ann <ann>,\n \"B, ob\" <bob@example.test> (him)\nBcc: ann@EXAMPLE.test\nSubject: s\n\nline\n.dot\n.\nlost\n"
    post.sent("-t", text=text)
    for user in ("ann", "bob"):
        message = post.one("s", "line\n.dot\n", user)
        same(message["Bcc"], None, "Bcc")
        same(re.sub(r"\s+", " ", message["To"]), 'Ann <ann@example.test>, "B, ob" <bob@example.test> (him)', "To")


@test("sendmail: a lone dot is text with -i and -oi")
def dots(bench):
    post = Post(bench)
    post.sent("-i", "ann", text="Subject: one\n\na\n.\nb\n")
    post.sent("-oi", "--", "ann", text="Subject: one\r\n\r\na\r\n.\r\nb\r\n")
    for message in post.mail(2):
        same(message.get_payload().replace("\r\n", "\n"), "a\n.\nb\n", "text")


@test("sendmail: sender and name are what -f and -F say, else who calls")
def sender(bench):
    post = Post(bench)
    post.sent("-fboss@example.org", "-F", "J\u00fcrgen B\u00f6ss", "ann")
    message = post.one("hello")
    same(str(email.header.make_header(email.header.decode_header(message["From"]))), "J\u00fcrgen B\u00f6ss <boss@example.org>", "From")
    same(message["Return-Path"], "<boss@example.org>", "Return-Path")
    post.sent("bob")
    message = post.one("hello", user="bob")
    me = pwd.getpwuid(os.getuid()).pw_name
    same(message["Return-Path"], f"<{me}@example.test>", "Return-Path")
    check(f"<{me}@example.test>" in message["From"] or message["From"] == f"{me}@example.test", "From:", message["From"])


@test("sendmail: exit codes are those of sysexits(3)")
def codes(bench):
    post = Post(bench, submit_group=grp.getgrgid(os.getgid()).gr_name)
    for words, text, wanted in (
        (("nobody-here",), None, NO_USER),
        (("ann", "nobody-here"), None, NO_USER),
        (("a b",), None, USAGE),
        (("-k", "ann"), None, USAGE),
        (("-bd",), None, USAGE),
        ((), None, USAGE),
        (("-t",), "Subject: x\n\nx\n", USAGE),
        (("-t",), "To: a b c\n\nx\n", DATA),
        (("ann\nRCPT TO:<bob>",), None, USAGE),
        (("-fa\r\nDATA", "ann"), None, USAGE),
        (("-C", "/nowhere/dmail.conf", "ann"), None, CONFIG),
    ):
        code, said = post.send(*words, **({"text": text} if text else {}))
        same(code, wanted, f"exit code of {words} ({said})")
        check(said.startswith("sendmail: "), "it said", said)
    # The one who is there has his mail, also when another is not.
    post.one("hello")
    big = "x" * 76 + "\n"
    post.site.stop()
    post = Post(bench_again(bench), smtp_max_size=64)
    code, said = post.send("ann", text="Subject: big\n\n" + big * 2000)
    same((code, "5.3.4" in said), (UNAVAILABLE, True), f"a message that is too big ({said})")


def bench_again(bench):
    """The same test, in a folder below."""
    bench.folder = bench.path("second")
    os.makedirs(bench.folder)
    os.chmod(bench.folder, 0o755)
    return bench


@test("sendmail: another user's message comes, and says whose it is")
def stranger(bench):
    if not ROOT:
        raise Skip("only root can become another user")
    need("setpriv")
    post = Post(bench)
    post.sent("ann", user=STRANGER)
    message = post.one("hello")
    name = pwd.getpwuid(STRANGER).pw_name
    same(message["Return-Path"], f"<{name}@example.test>", "Return-Path")
    check(f"uid {STRANGER}" in message["Received"], "Received:", message["Received"])


@test("sendmail: -bs speaks SMTP")
def smtp(bench):
    post = Post(bench)
    talk = "EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: by hand\r\n\r\nhi\r\n.\r\nQUIT\r\n"
    code, said = post.send("-bs", text=talk)
    same(code, 0, said)
    codes = [line[:3] for line in said.splitlines() if line[3:4] == " "]
    same(codes, ["220", "250", "250", "250", "354", "250", "221"], said)
    same(post.mail()[0]["Subject"], "by hand", "Subject")
    post.site.stop()
    code, said = post.send("-bs", text=talk)
    same((code, said[:4]), (LATER, "421 "), said)


@test("sendmail: what cannot be handed over is given back to who calls, and named")
def nowhere(bench):
    if not ROOT:
        raise Skip("only root can become another user")
    need("setpriv")
    post = Post(bench, start=False)
    code, said = post.send("ann", user=STRANGER)
    same((code, len(said.splitlines())), (LATER, 1), said)
    check("no server is running" in said and "incoming" in said, "it said", said)


@test("sendmail: what is sent while the server is down is delivered once when it runs again", 120)
def down(bench):
    post = Post(bench, submit_group=grp.getgrgid(os.getgid()).gr_name, pickup_secs=3600)
    incoming = os.path.join(post.site.work, "incoming")
    post.sent("bob")
    post.mail(1, "bob")
    post.site.stop()
    about = os.stat(incoming)
    same((about.st_mode & 0o7777, about.st_gid), (0o1730, os.getgid()), "mode and group of incoming")
    big = "Subject: big\n\n" + "a line of a letter\n" * 20_000
    post.sent("-fboss@example.org", "ann", text="Subject: one\n\n.\n")
    post.sent("-i", "ann", "bob", text=big)
    post.sent("-t", text="To: nobody-here@example.test, ann\nSubject: three\n\nx\n")
    names = os.listdir(incoming)
    check(len(names) == 3 and all(re.fullmatch("[2-9A-Z]{16}", name) for name in names), "left:", names)
    post.start()
    found = post.mail(3, seconds=30)
    same(sorted(message["Subject"] for message in found), ["big", "one", "three"], "subjects")
    one = [message for message in found if message["Subject"] == "one"][0]
    same(one["Return-Path"], "<boss@example.org>", "Return-Path")
    check(f"uid {os.getuid()}" in one["Received"] and any(name in one["Received"] for name in names), "Received:", one["Received"])
    post.mail(2, "bob")
    wait_for("an empty directory", lambda: not os.listdir(incoming))
    post.site.stop()
    post.start()
    time.sleep(1)
    post.mail(3)


@test("sendmail: what strangers put into the drop directory is set aside, and the mail beside it comes")
def hostile(bench):
    post = Post(bench, submit_group=grp.getgrgid(os.getgid()).gr_name, pickup_secs=1)
    incoming = os.path.join(post.site.work, "incoming")
    post.site.stop()
    post.sent("ann")
    secret = bench.write("secret", "DMAIL 1\nMAIL FROM:<a@b>\nRCPT TO:<ann@example.test>\nDATA\nSubject: secret\n\n")
    os.symlink(secret, os.path.join(incoming, "2" * 16))
    os.link(secret, os.path.join(incoming, "3" * 16))
    os.mkfifo(os.path.join(incoming, "4" * 16))
    os.mkdir(os.path.join(incoming, "5" * 16))
    with open(os.path.join(incoming, "6" * 16), "w", encoding="ascii") as file:
        file.write("From: me\n\nthis is no message\n")
    post.start()
    same(post.one("hello")["Subject"], "hello", "Subject")
    bad = os.path.join(post.site.work, "incoming.bad")
    wait_for("all set aside", lambda: os.path.isdir(bad) and len(os.listdir(bad)) == 5)
    same(os.listdir(incoming), [], "the directory")
    time.sleep(1.5)
    post.mail(1)
    for why in ("it is no regular file", "it has another name besides", "it does not begin as a message does"):
        check(why in post.site.log(), why, "is not in the log")


@test("sendmail: kill -9 while messages are taken over: each comes, and comes once", 180)
def killed(bench):
    post = Post(bench, submit_group=grp.getgrgid(os.getgid()).gr_name, pickup_secs=1)
    incoming = os.path.join(post.site.work, "incoming")
    sent = 0
    for _ in range(6):
        post.site.stop(signal.SIGKILL)
        for _ in range(8):
            post.sent("ann", text=f"Subject: number {sent}\n\n{sent}\n")
            sent += 1
        post.site.start(patient=True)
        os.chmod(post.site.conf, 0o644)
        time.sleep(bench.random.uniform(0, 0.25))
    wait_for("an empty directory", lambda: not os.listdir(incoming))
    subjects = sorted(int(message["Subject"].split()[1]) for message in post.mail(sent, seconds=60))
    same(subjects, list(range(sent)), "numbers")


@test("sendmail: a user outside of submit_group is told to try again while the server is down")
def outsider(bench):
    if not ROOT:
        raise Skip("only root can become another user")
    need("setpriv")
    post = Post(bench, submit_group="games")
    post.site.stop()
    code, said = post.send("ann", user=STRANGER)
    same(code, LATER, said)
    games = grp.getgrnam("games").gr_gid
    done = run(["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--groups", str(games), post.program, "ann"],
               input=b"Subject: member\n\nx\n")
    same(done.returncode, 0, done.stdout + done.stderr)
    done = run(["setpriv", "--reuid", str(STRANGER), "--regid", str(games), "--clear-groups", "ls", os.path.join(post.site.work, "incoming")])
    check(done.returncode != 0, "members can list the directory:", done.stdout)
    post.start()
    message = post.one("member")
    check(f"uid {STRANGER}" in message["Received"], "Received:", message["Received"])


@test("sendmail: mail of php's mail() arrives")
def php(bench):
    need("php")
    post = Post(bench)
    code = r'exit(mail("ann@example.test", "Gr\u{fc}\u{df}e", "one\n.\nthree\n", "From: shop@example.org\r\nX-Shop: 1", "-fbounces@example.org") ? 0 : 1);'
    done = run(["php", "-d", f"sendmail_path={post.program} -t -i", "-r", code])
    same(done.returncode, 0, done.stdout + done.stderr)
    message = post.mail()[0]
    same(message.get_payload().replace("\r\n", "\n").rstrip(), "one\n.\nthree", "text")
    same((message["Return-Path"], message["X-Shop"], message["To"]), ("<bounces@example.org>", "1", "ann@example.test"), "header")


@test("sendmail: mail of mutt arrives")
def mutt(bench):
    need("mutt")
    post = Post(bench)
    rc = bench.write("muttrc", f'set sendmail="{post.program} -oem -oi"\nset use_from=yes\nset use_envelope_from=yes\nset from="Ann <ann@example.test>"\nset record=""\nset copy=no\n')
    body = "first\n.\nFrom here on\n"
    done = run(["mutt", "-n", "-F", rc, "-s", "from mutt", "-b", "bob@example.test", "--", "ann@example.test"], input=body.encode(),
               env=dict(os.environ, HOME=bench.folder, TERM="dumb"))
    same(done.returncode, 0, done.stdout + done.stderr)
    for user in ("ann", "bob"):
        message = post.one("from mutt", None, user)
        same((message["Bcc"], message["Return-Path"]), (None, "<ann@example.test>"), "header")
    check(b"first\n.\n" in spool.messages(post.site.drop())[0].replace(b"\r\n", b"\n"), "text of", post.mail())


@test("sendmail: mail of s-nail arrives")
def snail(bench):
    need("s-nail")
    post = Post(bench)
    done = run(["s-nail", "-n", "-S", f"mta={post.program}", "-S", "v15-compat", "-s", "from s-nail", "-r", "ann@example.test",
                "ann@example.test"], input=b"text\n.\nmore\n", env=dict(os.environ, HOME=bench.folder, MAILRC="/dev/null"))
    same(done.returncode, 0, done.stdout + done.stderr)
    post.one("from s-nail", "text\n.\nmore\n")


@test("sendmail: mail of mailutils' mail arrives")
def mailutils(bench):
    need("mail.mailutils")
    post = Post(bench)
    done = machines_own(post, ["mail.mailutils", "-s", "from mailutils", "ann@example.test"], input=b"text\n",
                        env=dict(os.environ, HOME=bench.folder))
    same(done.returncode, 0, done.stdout + done.stderr)
    post.one("from mailutils", "text\n")


@test("sendmail: mail of git send-email arrives")
def git(bench):
    need("/usr/lib/git-core/git-send-email")
    need("/usr/share/perl5/Mail/Address.pm")
    post = Post(bench)
    patch = bench.write("0001-a.patch", "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001\nFrom: Ann <ann@example.test>\n"
                        "Date: Mon, 5 Jan 2026 10:00:00 +0000\nSubject: [PATCH] a\n\nWhy.\n---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n"
                        "@@ -0,0 +1 @@\n+a\n-- \n2.39\n")
    done = run(["/usr/bin/git", "send-email", f"--sendmail-cmd={post.program}", "--confirm=never", "--suppress-cc=all",
                "--from=Ann <ann@example.test>", "--to=bob@example.test", "--cc=ann@example.test", patch], cwd=bench.folder,
               env=dict(os.environ, HOME=bench.folder, GIT_CONFIG_GLOBAL="/dev/null", EMAIL="ann@example.test"))
    same(done.returncode, 0, done.stdout + done.stderr)
    for user in ("ann", "bob"):
        message = post.one("[PATCH] a", None, user)
        check("diff --git a/a b/a" in message.get_payload(), "text", message.get_payload())


@test("sendmail: logwatch's report arrives")
def logwatch(bench):
    need("logwatch")
    post = Post(bench)
    today = time.strftime("%Y-%m-%d")
    log = bench.write("dpkg.log", f"{today} 00:00:01 install sesame:amd64 <none> 1.2\n{today} 00:00:02 status installed sesame:amd64 1.2\n", 0o644)
    open("/var/log/dpkg.log", "a", encoding="ascii").close()
    command = f"mount --bind {log} /var/log/dpkg.log && exec logwatch --output mail --mailto ann@example.test --service dpkg --range today"
    done = machines_own(post, ["sh", "-c", command])
    same(done.returncode, 0, done.stdout + done.stderr)
    message = post.mail()[0]
    check("Logwatch for" in message["Subject"], "Subject:", message["Subject"])
    check("sesame" in message.get_payload(), "text:", message.get_payload())


@test("sendmail: cron's mail about its jobs arrives", 180)
def cron(bench):
    need("cron")
    post = Post(bench)
    tabs = bench.path("crontabs")
    os.makedirs(tabs)
    os.chmod(tabs, 0o1730)
    bench.write("crontabs/root", "MAILTO=ann@example.test\n* * * * * echo from a job; echo .; echo more\n")
    empty = bench.path("empty")
    os.makedirs(empty)
    # A cron of our own: its tables, and none of the machine's.
    script = (f'mount --bind {tabs} /var/spool/cron/crontabs && mount --bind {empty} /etc/cron.d && mount --bind /dev/null /etc/crontab && '
              f'mount -t tmpfs none /run && exec timeout 130 cron -f')
    if not ROOT:
        raise Skip("only root can run a cron of its own")
    inner = f'mount --bind {post.program} "$(readlink -f /usr/sbin/sendmail)" && {script}'
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", inner], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        message = wait_for("cron's mail", lambda: child.poll() is None and os.path.exists(post.site.drop()) and post.mail(1), 100)[0]
    finally:
        child.terminate()
        child.wait(10)
    check("Cron <root@" in message["Subject"], "Subject:", message["Subject"])
    same(message.get_payload().replace("\r\n", "\n"), "from a job\n.\nmore\n", "text")
    check("(Cron Daemon)" in message["From"] and "@example.test" in message["From"], "From:", message["From"])


@test("sendmail: newaliases judges the configuration and has the server read it again")
def aliases(bench):
    post = Post(bench)
    link = bench.path("bin", "newaliases")
    os.symlink(DMAIL, link)
    done = run([link, "-C", post.site.conf])
    same(done.returncode, 0, done.stdout + done.stderr)
    wait_for("the reload", lambda: "reload" in post.site.log())
    with open(post.site.conf, "a", encoding="utf-8") as file:
        file.write(f"alias_file {bench.write('aliases', 'info: ann' + chr(10) + 'x /y' + chr(10))}\n")
    done = run([link, "-C", post.site.conf])
    same(done.returncode, CONFIG, done.stdout + done.stderr)
    check(b"aliases:2: error:" in done.stderr, "file and line:", done.stderr)
    # Whoever only sends does not mind that.
    post.sent("ann")
    post.one("hello")


@test("sendmail: a message in Latin-1, a name that is no UTF-8, a header without end")
def odd(bench):
    post = Post(bench)
    post.sent(b"-FJ\xfcrgen", "ann", text=b"Subject: odd\n\n\xfc\xff\x00\r\rx")
    text = spool.messages(post.site.drop())[0].replace(b"\r\n", b"\n")
    check(text.endswith(b"\n\n\xfc\xff\n\nx\n"), "text:", text)
    code, said = post.send("ann", text="Subject: " + "x" * 1_100_000 + "\n\n")
    same(code, DATA, said)
    code, said = post.send(b"J\xfcrgen@example.test")
    same(code, USAGE, said)
