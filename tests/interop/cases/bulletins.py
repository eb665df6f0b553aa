"""Bulletins: one file for everybody, a message of his own for each."""

import json
import os
import re

from harness import spool
from harness.suite import check, same, test, wait_for


def board(bench, **more):
    """A site with a directory of bulletins, and how one is put there."""
    folder = bench.path("board")
    os.makedirs(folder)
    site = bench.site(settings={"bulletin_path": folder, **more})

    def put(number, text):
        with open(os.path.join(folder, f"{number}.txt"), "w", encoding="utf-8") as file:
            file.write(text)

    return site, put, folder


def shown(site, user="ann"):
    """How many messages a user has now, as STAT says."""
    pop = site.login(user)
    count = pop.stat()[0]
    pop.quit()
    return count


@test("bulletins: everybody has them behind his mail, and who deletes one has it no more")
def everybody(bench):
    site, put, _ = board(bench)
    drop = site.fill(spool.spool(spool.plain(2)))
    before = open(drop, "rb").read()
    put(3, "Subject: Sunday\n\nThe machine rests.\nFrom noon on.\n.\n")
    put(20, "Second\n")
    site.start()
    pop = site.login()
    same(pop.stat()[0], 4, "two messages and two bulletins")
    sizes = pop.list()
    ids = pop.uidl()
    check(len(set(ids.values())) == 4, "four ids:", ids)
    text = pop.retr(3)
    same(sizes[3], len(text), "octets of a bulletin")
    for part in (b"Subject: Sunday\r\n", b'From: "Email System Administrator" <postmaster@example.test>\r\n',
                 b"\r\n\r\nThe machine rests.\r\n>From noon on.\r\n.\r\n"):
        check(part in text, "not in the bulletin:", part, text)
    top, _ = pop.fetch("TOP 4 0")
    check(b"Subject: Bulletin 20\r\n" in top, "the subject it was given")
    pop.ok("DELE 3")
    pop.err("DELE 3")
    pop.err("RETR 3")
    pop.ok("RSET")
    pop.ok("DELE 4")
    pop.ok("DELE 1")
    pop.quit()
    # The first message is gone, and the second bulletin; the other keeps its id, also across a restart.
    for _ in range(2):
        pop = site.login()
        left = pop.uidl()
        same(list(left.values()), [ids[2], ids[3]], "ids that are left")
        pop.quit()
        site.stop()
        site.start()
    check(len(open(drop, "rb").read()) <= len(before), "bulletins are not in the drop")
    check(b"machine rests" not in open(drop, "rb").read(), "bulletins are not in the drop")
    # Bob, who has no mail at all, has both; what he deletes stays deleted.
    pop = site.login("bob", "geheim")
    same(pop.stat()[0], 2, "two bulletins for bob")
    pop.ok("DELE 1")
    pop.ok("DELE 2")
    pop.quit()
    same(shown(site, "bob"), 0, "bulletins left for bob")
    check(not os.path.exists(site.drop("bob")), "no drop was made for bob")


@test("bulletins: who did not QUIT deleted none; a new one is there at the next login, one taken away is gone")
def changes(bench):
    site, put, folder = board(bench)
    put(1, "one\n")
    site.start()
    pop = site.login()
    pop.ok("DELE 1")
    pop.close()
    pop = site.retry_login()
    same(pop.stat()[0], 1, "bulletins after an end without QUIT")
    pop.quit()
    reading = site.login("bob", "geheim")
    put(2, "two\n")
    site.tell("reload")
    wait_for("the new bulletin", lambda: shown(site) == 2)
    os.unlink(os.path.join(folder, "1.txt"))
    site.tell("reload")
    wait_for("the old bulletin is gone", lambda: shown(site) == 1)
    # Who has the old board open reads on.
    check(reading.retr(1).endswith(b"\r\none\r\n"), "the bulletin that was taken away")
    reading.quit()


@test("bulletins: hide_old_bulls spares newcomers what is there, not what comes")
def newcomers(bench):
    site, put, _ = board(bench, hide_old_bulls="true")
    put(1, "one\n")
    site.start()
    same(shown(site), 0, "bulletins for a newcomer")
    put(2, "two\n")
    site.tell("reload")
    wait_for("the new bulletin", lambda: shown(site) == 1)
    same(shown(site, "bob"), 0, "bulletins for another newcomer")


@test("bulletins: numbers begin again when the server starts with none")
def epochs(bench):
    site, put, folder = board(bench)
    put(5, "five\n")
    site.start()
    pop = site.login()
    pop.ok("DELE 1")
    pop.quit()
    os.unlink(os.path.join(folder, "5.txt"))
    site.stop()
    site.start()
    put(1, "one again\n")
    site.tell("reload")
    wait_for("number 1", lambda: shown(site) == 1)


@test("bulletins: links, giants and trash on the board are said and not shown")
def trash(bench):
    site, put, folder = board(bench)
    put(1, "one\n")
    put(2, "x" * (1 << 20) + "y")
    os.symlink("/etc/passwd", os.path.join(folder, "3.txt"))
    os.mkfifo(os.path.join(folder, "4.txt"))
    put("readme", "no bulletin\n")
    site.start()
    same(shown(site), 1, "bulletins shown")
    for number in (2, 3, 4):
        said = rf"{number}\.txt: this bulletin is not shown"
        wait_for(f"{number}.txt in the log", lambda said=said: re.search(said, site.log()))


@test("bulletins: tellpop bulletin posts one under the next number, and a running server shows it")
def posted(bench):
    site, put, folder = board(bench)
    put(7, "seven\n")
    site.start()
    done = site.tell("bull", "--json", input=b"Subject: Tea\n\nAt five.\n.\nnot this\n")
    same((done.returncode, json.loads(done.stdout)), (0, {"bulletin": 8}), "tellpop bulletin")
    site.tell("reload")
    wait_for("the bulletin", lambda: shown(site) == 2)
    pop = site.login()
    text = pop.retr(2)
    check(b"Subject: Tea\r\n" in text and text.endswith(b"\r\n\r\nAt five.\r\n"), "the text:", text)
    pop.quit()
    check(site.tell("bulletin", input=b".\n").returncode == 1, "an empty bulletin is none")
    same(sorted(os.listdir(folder)), ["7.txt", "8.txt"], "files on the board")
