"""Load by others' programs: Postfix's smtp-source and Russell Coker's postal send at us while clients fetch and delete. What was
accepted is in the drops, once."""

import os
import re
import signal
import subprocess
import threading

from harness import spool
from harness.site import free_ports
from harness.suite import check, need, run, same, test, wait_for


def busy(bench, users, **settings):
    port = free_ports(1)[0]
    site = bench.site(users=users, tls=False, settings={"smtp_port": port, "sends_per_hour": 0, "sends_per_day": 0, **settings})
    site.start()
    return site, port


def source(port, *words, seconds=120):
    return run([need("smtp-source"), *words, f"inet:127.0.0.1:{port}"], seconds=seconds)


@test("load: smtp-source, 60 sessions at once, every message arrives once", 180)
def smtp_source(bench):
    users = {f"u{number}": "secret" for number in range(4)}
    site, port = busy(bench, users)
    count, each = 1000, 30

    def send(words):
        done = run([need("smtp-source"), *words, "-f", "from@client.test", f"inet:127.0.0.1:{port}"], seconds=120)
        check(done.returncode == 0, "smtp-source:", done.stderr[-300:])

    senders = [threading.Thread(target=send, args=(["-s", "15", "-l", "2048", "-m", str(count), "-t", f"{user}@example.test"],))
               for user in users]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(150)
    for user in users:
        same(len(spool.raw_messages(site.drop(user))), count, f"messages of {user}")
    # A new connection for each message, and one that is larger than what waits in memory.
    send(["-d", "-s", "5", "-l", "300000", "-m", str(each), "-t", "u0@example.test"])
    same(len(spool.raw_messages(site.drop("u0"))), count + each, "messages of u0")
    site.alive()


@test("load: postal sends, clients fetch and delete, nothing is lost and nothing comes twice", 180)
def postal(bench):
    users = {f"u{number}": "secret" for number in range(8)}
    site, port = busy(bench, users)
    listed = bench.path("recipients")
    with open(listed, "w", encoding="ascii") as file:
        file.write("".join(f"{user}@example.test\n" for user in users))
    fetched, over, trouble = [], threading.Event(), []

    def fetch(user):
        try:
            while True:
                last = over.is_set()
                pop = site.retry_login(user)
                for number, text in enumerate(pop.everything(), 1):
                    fetched.append(text)
                    pop.ok(f"DELE {number}")
                pop.quit()
                if last:
                    return
        except Exception as error:  # pylint: disable=broad-except
            trouble.append(error)

    readers = [threading.Thread(target=fetch, args=(user,)) for user in users]
    for reader in readers:
        reader.start()
    log = bench.path("postal.out")
    with open(log, "wb") as out:
        sender = subprocess.Popen([need("postal"), "-t", "4", "-c", "5", "-r", "6000", "-m", "40", "-p", str(port), "127.0.0.1", listed],
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=bench.folder)
    wait_for("postal has sent some hundred messages", lambda: len(fetched) > 300, 90)
    os.kill(sender.pid, signal.SIGINT)
    try:
        sender.wait(30)
    except subprocess.TimeoutExpired:
        sender.kill()
    over.set()
    for reader in readers:
        reader.join(60)
    check(not trouble, "a reader:", trouble)
    # An id of postal's is a second, a user and three random digits: of some thousand two are the same. With the text it is one message's.
    ids = [re.search(rb"(?mi)^Message-ID: *(\S+)", text) for text in fetched]
    check(all(ids), "postal's messages have an id")
    firsts = {}
    for found, text in zip(ids, fetched):
        before = firsts.setdefault((found[1], text.split(b"\r\n\r\n", 1)[1]), text)
        check(before is text, "this came twice:", before[:2000], "and again:", text[:2000])
    for user in users:
        same(spool.messages(site.drop(user)), [], f"{user}'s drop in the end")
    site.alive()
