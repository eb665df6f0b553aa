"""Programs that are given mail: what they find, what their ends do to a message, as whom they run; the auto-responder."""

import os
import re
import shlex
import signal
import smtplib
import time

from harness.site import free_ports
from harness.suite import DMAIL, ROOT, check, descendants, same, test, wait_for

from .root import Machine, is_gone, people

TEXT = b"From: bob@example.test\r\nTo: %s\r\nSubject: tea\r\nMessage-ID: <1@x.test>\r\n\r\n.dot\r\nFrom here on\r\nlast\r\n"


def script(site, name, text, folder="robots"):
    """A script that anybody may run, in a folder that is root's."""
    folder = os.path.join(site.folder, folder)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{text}\n")
    os.chmod(path, 0o755)
    return path


def place(site, name="out"):
    """A folder where every program may write."""
    path = os.path.join(site.folder, name)
    os.makedirs(path)
    os.chmod(path, 0o777)
    return path


def send(site, to, sender="bob@example.test", text=TEXT):
    with smtplib.SMTP("127.0.0.1", site.extra["smtp_port"], timeout=30) as client:
        client.sendmail(sender, [to], text.replace(b"%s", to.encode()) if b"%s" in text else text)


def robots(bench, aliases, **settings):
    """A site with these aliases; `OUT` in them is a folder to write to, `BIN` one of scripts."""
    extra = {"smtp_port": free_ports(1)[0], "retry_schedule": "1", "sends_per_hour": 0, "sends_per_day": 0, **settings}
    if ROOT:
        extra["robot_user"] = "nobody"
    site = bench.site(tls=False, settings=extra)
    out = place(site)
    replaced = aliases.replace("OUT", out).replace("BIN", os.path.join(site.folder, "robots"))
    site.extra["alias_file"] = bench.write("aliases", replaced, 0o644)
    return site, out


def read(path):
    with open(path, "rb") as file:
        return file.read()


def mail_of(site, user):
    pop = site.retry_login(user)
    texts = pop.everything()
    pop.ok("QUIT")
    pop.close()
    return texts


def queue_is_empty(site):
    return not site.queue_files()


@test("robots: an alias leads to a program, which finds the message, its words and its envelope")
def taken(bench):
    site, out = robots(bench, 'keep: "|BIN/keep OUT/kept \'a b\' \'$HOME\' *"\n', recipient_delimiter="+")
    script(site, "keep", 'cat > "$1.part"; { printf "%s|" "$@"; echo; tr "\\0" "\\n" < /proc/$$/environ; id -u; pwd; } > "$1.told"; '
                         'mv "$1.part" "$1"')
    site.start()
    send(site, "keep@example.test", sender="b$x`id`@example.test")
    wait_for("the program has it", lambda: os.path.exists(os.path.join(out, "kept")))
    kept = read(os.path.join(out, "kept"))
    head, _, body = kept.partition(b"\n\n")
    check(b"\r" not in kept, "a CR:", kept)
    check(re.match(rb"Return-Path: <b\$x`id`@example.test>\nDelivered-To: keep@example.test\nReceived: from ", head), head)
    same(body, b".dot\nFrom here on\nlast\n", "the body, unquoted")
    told = read(os.path.join(out, "kept.told")).decode().splitlines()
    same(told[0], f"{out}/kept|a b|$HOME|*|", "the words")
    for line in ("SENDER=b$x`id`@example.test", "RECIPIENT=keep@example.test", "LOCAL=keep", "DOMAIN=example.test",
                 "CLIENT_ADDRESS=127.0.0.1", "EXTENSION=", "PATH=/usr/local/bin:/usr/bin:/bin"):
        check(line in told, f"{line} in the environment:", told)
    same(told[-1], "/", "the working directory")
    check(told[-2] != "0", "root ran it")
    wait_for("the queue is empty", lambda: queue_is_empty(site))
    same(site.stop(), 0, "exit code")


@test("robots: one that fails bounces with its own words, one that asks for it is given the message again")
def ends(bench):
    site, out = robots(bench, 'fail: "|BIN/fail"\nmissing: "|BIN/missing"\ndie: "|BIN/die"\nlater: "|BIN/later OUT"\n')
    script(site, "fail", "echo; echo no room for tea; cat > /dev/null; exit 69")
    script(site, "die", "kill -9 $$")
    script(site, "later", 'echo x >> "$1/tries"; test $(wc -l < "$1/tries") -ge 3 || exit 75; cat > "$1/taken"')
    site.start()
    for name, words in (("fail", b"no room for tea"), ("missing", b"cannot be run"), ("die", b"signal 9")):
        send(site, f"{name}@example.test")
        wait_for(f"{name} has bounced", lambda: any(words in text for text in mail_of(site, "bob")))
        bounce = next(text for text in mail_of(site, "bob") if words in text)
        check(f"{name}@example.test".encode() in bounce and b"Return-Path: <>" in bounce, "the bounce:", bounce)
    send(site, "later@example.test")
    wait_for("the third try", lambda: os.path.exists(os.path.join(out, "taken")), 30)
    wait_for("the queue is empty", lambda: queue_is_empty(site))
    same(len(read(os.path.join(out, "tries")).splitlines()), 3, "tries")
    same(len(mail_of(site, "bob")), 3, "bounces, and none for who was taken in the end")
    same(site.stop(), 0, "exit code")


@test("robots: one that hangs is killed with all it started, and holds up neither mail nor the end of the server")
def hangs(bench):
    site, out = robots(bench, 'hang: "|BIN/hang OUT"\n', robot_secs=3, robot_number=1)
    script(site, "hang", 'sleep 600 & echo $! $$ >> "$1/pids"; wait')
    site.start()
    send(site, "hang@example.test")
    wait_for("it runs", lambda: os.path.exists(os.path.join(out, "pids")))
    began = time.monotonic()
    send(site, "ann@example.test")
    check(time.monotonic() - began < 2.5, "mail for a mailbox waited for a program")
    same(len(mail_of(site, "ann")), 1, "ann's mail")
    wait_for("it was killed", lambda: "was killed" in site.log(), 20)
    first = read(os.path.join(out, "pids")).split()[:2]
    wait_for("all of it is gone", lambda: all(is_gone(int(pid)) for pid in first))
    # The next try runs now, or soon.
    wait_for("it runs again", lambda: len(read(os.path.join(out, "pids")).splitlines()) > 1, 20)
    began = time.monotonic()
    same(site.stop(), 0, "exit code")
    check(time.monotonic() - began < 15, "the end of the server waited for a program")
    last = read(os.path.join(out, "pids")).split()[-1]
    wait_for("the program has ended with the server", lambda: is_gone(int(last)))
    check(not queue_is_empty(site), "the message was lost")


@test("robots: dmail respond answers a person once, and no list, machine or bounce")
def responds(bench):
    site, out = robots(bench, "")
    text = bench.write("away", "Subject: Away ($SUBJECT)\n\nI am away.\n", 0o644)
    # Answers are taken by a script: who sends them as which user is another test's.
    sender = script(site, "take", f'echo "$@" >> {out}/to; cat >> {out}/answers')
    command = f"|{DMAIL} respond -f {text} -b {out}/answered -s {shlex.quote(sender)}"
    site.extra["forward_cc"] = f'ann@example.test "{command}"'
    site.start()
    answers = os.path.join(out, "to")
    for head in (b"List-Id: <x.y>\r\n", b"Precedence: bulk\r\n", b"Auto-Submitted: auto-generated\r\n"):
        send(site, "ann@example.test", text=head + TEXT)
    send(site, "ann@example.test", sender="")
    send(site, "ann@example.test", sender="owner-list@example.test")
    for _ in range(3):
        send(site, "ann@example.test")
    wait_for("the queue is empty", lambda: queue_is_empty(site), 30)
    wait_for("an answer", lambda: os.path.exists(answers))
    same(read(answers), b"-i -f <> -- bob@example.test\n", "answers")
    answer = read(os.path.join(out, "answers"))
    for line in (b"From: ann@example.test", b"To: bob@example.test", b"Subject: Away (tea)", b"In-Reply-To: <1@x.test>",
                 b"Auto-Submitted: auto-replied", b"I am away."):
        check(line + b"\n" in answer, f"{line} in the answer:", answer)
    same(len(mail_of(site, "ann")), 8, "ann's own copies")
    same(site.stop(), 0, "exit code")


@test("robots: the launcher runs what robot_path has, as another user; when it is killed, so are they, and the mail waits")
def launched(bench):
    with people("srv", "ann", "bob") as names:
        site = Machine(bench, names, 0o1777, settings={
            "smtp_port": free_ports(1)[0], "retry_schedule": "1", "robot_user": "nobody", "sends_per_hour": 0, "sends_per_day": 0,
            "robot_path": os.path.join(bench.path("site"), "robots")})
        out = place(site)
        site.extra["alias_file"] = bench.write(
            "aliases", f'who: "|/elsewhere/who {out}"\nhang: "|hang {out}"\nshell: "|/bin/sh -c true"\n', 0o644)
        script(site, "who", 'id -un > "$1/part"; cat >> "$1/part"; mv "$1/part" "$1/who"')
        script(site, "hang", 'echo $$ >> "$1/pid"; exec sleep 600')
        os.chmod(os.path.join(site.folder, "robots"), 0o755)
        site.start()
        sender = f"{names['bob']}@example.test"
        send(site, "who@example.test", sender=sender)
        wait_for("it has run", lambda: os.path.exists(os.path.join(out, "who")))
        check(read(os.path.join(out, "who")).startswith(b"nobody\nReturn-Path: "), read(os.path.join(out, "who")))
        send(site, "shell@example.test", sender=sender)
        wait_for("what is not there bounces", lambda: os.path.exists(site.drop(names["bob"])))
        send(site, "hang@example.test", sender=sender)
        wait_for("it runs", lambda: os.path.exists(os.path.join(out, "pid")))
        pid = int(read(os.path.join(out, "pid")).split()[0])
        launcher = site.launcher()
        check(pid in {row[0] for row in descendants(launcher)}, "it is not the launcher's child:", pid)
        os.kill(launcher, signal.SIGKILL)
        wait_for("the program has ended", lambda: is_gone(pid))
        site.alive()
        check(not queue_is_empty(site), "the message was lost")
        same(site.stop(), 0, "exit code")
