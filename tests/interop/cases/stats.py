"""Statistics of sessions, tellpop stats, and the log: its size, its old files, floods and full disks."""

import glob
import json
import os
import poplib
import random
import re
import threading
import time

from harness import spool
from harness.suite import DMAIL, check, need, run, same, test, wait_for

LINE = re.compile(rb"(\d+) (\d+) (\S+) (\S+) (\d+) (\d+)\n")


def rows(folder):
    """The lines of all statistics files below a folder: (file, start, end, user, host, bytes, messages). Every byte of a file
    belongs to a line of exactly six fields."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "*"))):
        with open(path, "rb") as file:
            data = file.read()
        for line in data.splitlines(keepends=True):
            match = LINE.fullmatch(line)
            check(match, path, "has the line", line)
            start, end, user, host, octets, messages = match.groups()
            found.append((os.path.basename(path), int(start), int(end), user.decode(), host.decode(), int(octets), int(messages)))
    return found


def with_stats(bench, **settings):
    folder = bench.path("stats")
    os.makedirs(folder, exist_ok=True)
    return bench.site(settings={"stats_path": folder, **settings}), folder


@test("stats: each session that logged in has its line of six fields, in the file of its local day")
def lines(bench):
    # Fourteen hours east of Greenwich: mostly another day than there.
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()
    site, folder = with_stats(bench)
    site.set_user("carl@other.test", "secret")
    drop = site.fill(spool.spool(spool.nasty()))
    texts = spool.messages(drop)
    begun = int(time.time())
    site.start()
    expected = []

    def ends(user, octets, messages):
        expected.append((user, octets, messages))
        wait_for(f"{len(expected)} lines", lambda: len(rows(folder)) == len(expected))

    pop = site.login()
    sizes = pop.list()
    same(sum(sizes.values()), sum(map(len, texts)), "octets of LIST and of the reader")
    pop.retr(1), pop.retr(2), pop.retr(1)
    pop.quit()
    ends("ann", 2 * sizes[1] + sizes[2], 3)
    # A top is sent, though not a whole message.
    pop = site.login(tls="tls")
    body, _ = pop.fetch("TOP 1 0")
    pop.quit()
    wait_for("its line", lambda: len(rows(folder)) == 2)
    user, octets, messages = rows(folder)[-1][3], rows(folder)[-1][5], rows(folder)[-1][6]
    check(user == "ann" and messages == 0 and len(body) <= octets <= len(body) + 64, "TOP:", octets, len(body))
    ends("ann", octets, 0)
    # A connection that ends without QUIT counts too; who does not log in does not.
    pop = site.login("bob")
    pop.close()
    ends("bob", 0, 0)
    stranger = site.pop()
    stranger.quit()
    wrong = site.pop()
    wrong.ok("USER ann")
    wrong.err("PASS wrong")
    wrong.quit()
    pop = site.pop()
    pop.login("carl@other.test", "secret")
    pop.quit()
    ends("carl@other.test", 0, 0)
    client = poplib.POP3("127.0.0.1", site.port, timeout=20)
    client.user("ann"), client.pass_("secret")
    for number in range(1, len(sizes) + 1):
        client.retr(number)
    client.quit()
    ends("ann", sum(sizes.values()), len(sizes))
    curl = need("curl")
    done = run([curl, "-sS", "--user", "ann:secret", f"pop3://127.0.0.1:{site.port}/3"])
    same(done.returncode, 0, f"curl: {done.stderr!r}")
    ends("ann", sizes[3], 1)
    found = rows(folder)
    same([(user, octets, messages) for _, _, _, user, _, octets, messages in found], expected, "users and counts")
    for name, start, end, _, host, _, _ in found:
        check(begun <= start <= end <= time.time() + 1, "from", start, "to", end, "but it is", time.time())
        same(host, "127.0.0.1", "host")
        same(name, time.strftime("dpop%b%d.stats", time.localtime(end)).lower(), "the file's name")
    # The tool finds the files by itself.
    sums = json.loads(site.tell("stats", "--json").stdout)
    same([(user["user"], user["connections"]) for user in sums["users"]], [("ann", 4), ("bob", 1), ("carl@other.test", 1)], "tellpop stats")
    same(sums["total"]["bytes"], sum(row[5] for row in found), "bytes of tellpop stats")


@test("stats: a reload begins, moves and ends them, and moves the log; a blank path means none")
def reloads(bench):
    site = bench.site(settings={"stats_path": "# To disable logging of connection statistics for charging"})
    site.start()
    site.login().quit()
    done = site.tell("stats")
    check(done.returncode == 1 and b"stats_path is not set" in done.stderr, done.stdout, done.stderr)
    one, two, logs = (bench.path(name) for name in ("one", "two", "logs"))
    for folder in (one, two, logs):
        os.makedirs(folder)
    for folder in (one, two):
        site.extra["stats_path"] = folder
        site.write_conf()
        same(site.tell("reload").returncode, 0, "reload")
        site.login("bob").quit()
        wait_for(f"a line in {folder}", lambda place=folder: len(rows(place)) == 1)
    same(len(rows(one)), 1, "lines in the old place")
    # A place that cannot be used changes nothing.
    site.extra.update(stats_path="/nowhere/stats", log_path=logs)
    site.write_conf()
    done = site.tell("reload")
    check(done.returncode == 1 and b"/nowhere/stats" in done.stdout + done.stderr, done.stdout, done.stderr)
    del site.extra["stats_path"]
    site.write_conf()
    same(site.tell("reload").returncode, 0, "reload")
    site.login().quit()
    path = os.path.join(logs, "dpop.log")
    wait_for("the log is in its new place", lambda: os.path.exists(path) and " ann 127.0.0.1 " in open(path, encoding="utf-8").read())
    same((len(rows(one)), len(rows(two))), (1, 1), "lines after they were switched off")


def logged(site, *names):
    """What is in these logs, or in all."""
    # Lines are gathered for 4 ms before they are written.
    time.sleep(0.1)
    text = b""
    for name in names or sorted(name for name in os.listdir(site.work) if name.endswith(".log")):
        try:
            with open(os.path.join(site.work, name), "rb") as file:
                text += file.read()
        except FileNotFoundError:
            # It is being renamed: whoever waits for something looks again.
            pass
    return text


@test("stats: the log is renamed at its size under load, no line is lost, four old ones stay")
def rotation(bench):
    limit = 16
    site = bench.site(users={f"user{n}": "secret" for n in range(4)}, settings={"log_max_size": limit, "log_level": "info"})
    victim = bench.write("victim", "not yours\n")
    for number in (1, 2, 3, 4):
        os.symlink(victim, os.path.join(site.work, f"dpop{number}.log"))
    site.start()

    def sessions(user, count):
        for _ in range(count):
            site.login(user).quit()

    def load(count):
        threads = [threading.Thread(target=sessions, args=(user, count)) for user in site.users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def count():
        return len(re.findall(rb"^\S+ INFO  pop3 \S+ user\d 127\.0\.0\.1 plain: 0 messages .*, \d+ s$", logged(site), re.M))

    load(100)
    wait_for("400 lines", lambda: count() == 400)
    check(os.path.exists(os.path.join(site.work, "dpop2.log")), "nothing was renamed:", os.listdir(site.work))
    load(150)
    site.login("user0").quit()
    wait_for("the oldest lines are gone", lambda: 0 < count() < 1001)
    names = sorted(name for name in os.listdir(site.work) if name.endswith(".log"))
    same(names, ["dpop.log", "dpop1.log", "dpop2.log", "dpop3.log", "dpop4.log"], "logs")
    for name in names:
        path = os.path.join(site.work, name)
        check(not os.path.islink(path) and 0 < os.path.getsize(path) <= limit * 1024, name, os.path.getsize(path))
        check(all(line.endswith(b" s") for line in logged(site, name).splitlines() if b" user" in line), "a torn line in", name)
    # Oldest first.
    stamps = [logged(site, name)[:24] for name in ("dpop4.log", "dpop3.log", "dpop2.log", "dpop1.log", "dpop.log")]
    same(stamps, sorted(stamps), "the times at which the logs begin")
    same(open(victim, encoding="ascii").read(), "not yours\n", "the file behind the links")
    # Somebody else moves it away.
    os.rename(os.path.join(site.work, "dpop.log"), os.path.join(site.work, "moved"))
    site.login("user3").quit()
    wait_for("a new log", lambda: os.path.exists(os.path.join(site.work, "dpop.log")) and b" user3 " in logged(site, "dpop.log"))


@test("stats: a log that cannot be written loses whole lines, and says how many when it can be again")
def full(bench):
    site = bench.site(settings={"log_level": "info"})
    # As on a full disk: a write is cut short, then fails.
    site.start(wrap=["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
    path = os.path.join(site.work, "dpop.log")
    number = 200
    for _ in range(number):
        site.login().quit()

    def is_full():
        # Lines are gathered before they are written: what has not grown for a while has no more to come.
        before = os.path.getsize(path)
        time.sleep(0.1)
        return before > 3000 and os.path.getsize(path) == before

    wait_for("the log is full", is_full)
    size = os.path.getsize(path)
    check(size <= 8192, "the limit has no effect:", size)
    os.rename(path, path + ".old")
    site.login().quit()
    said = wait_for("what is missing is told", lambda: os.path.exists(path) and
                    re.search(rb" ERROR lines missing here, for the log could not be written: (\d+)\n", logged(site)))
    with open(path + ".old", "rb") as file:
        old = file.read()
    check(old.endswith(b" s\n"), "a torn line:", old[-100:])

    def known():
        return old.count(b" ann ") + int(said[1]) + logged(site).count(b" ann ")

    wait_for("each line is written or missing", lambda: known() >= number + 1)
    # It stays said once.
    site.login().quit()
    wait_for("another line", lambda: known() >= number + 2)
    same(known(), number + 2, "lines written and missing")
    same(logged(site).count(b"lines missing"), 1, "times it was said")


@test("stats: a flood of refused logins is thirty lines and a number")
def flood(bench):
    site = bench.site(settings={"log_level": "info", "max_errors": 1000}).start()
    number = 90
    for _ in range(number):
        with site.pop() as pop:
            pop.ok("USER ann\x1b[31m")
            pop.err("PASS wrong")
    for _ in range(3):
        site.login().quit()
    site.stop()
    text = logged(site).decode()
    same(len(re.findall(r"INFO  pop3 \S+ ann\?\[31m 127\.0\.0\.1: login refused: [^\n]+\n", text)), 30, "lines of refused logins")
    more = re.search(r"WARN  clients: \.\.\. and (\d+) more logins refused from 127\.0\.0\.0/24\n", text)
    check(more and int(more[1]) == number - 30, text[-600:])
    ends = len(re.findall(r" - 127\.0\.0\.1 plain: ", text))
    more = re.search(r"WARN  pop3: \.\.\. and (\d+) more sessions without a login from 127\.0\.0\.0/24\n", text)
    check(more and ends == 30 and ends + int(more[1]) >= number, text[-600:])
    same(text.count(" ann 127.0.0.1 plain: "), 3, "lines of those who logged in")
    check("\x1b" not in text, "an escape is in the log")


@test("stats: whatever an authenticator says, a line of the log is one line of plain characters")
def escapes(bench):
    program = bench.write("helper", """#!/bin/sh
while read -r command user rest; do
  case "$command" in
  check) printf '+OK %s %s/\\302\\233m\\342\\200\\256x/%s\\n' "$user" "$FOLDER" "$user" ;;
  exit*) exit ;;
  *) echo '-ERR no' ;;
  esac
done
""")
    os.chmod(program, 0o755)
    site = bench.site(helper=program)
    with open(program, encoding="utf-8") as file:
        text = file.read().replace("$FOLDER", site.spool)
    with open(program, "w", encoding="utf-8") as file:
        file.write(text)
    # Not a directory, but a file: it cannot be opened.
    with open(site.spool.encode() + b"/\xc2\x9bm\xe2\x80\xaex", "wb"):
        pass
    site.start()
    with site.pop() as pop:
        pop.ok("USER ann")
        pop.err("PASS secret")
    wait_for("the trouble is in the log", lambda: b" ERROR pop3 " in logged(site) and b"/?m?x: " in logged(site))
    text = logged(site).decode()
    check(all(char.isprintable() or char == "\n" for char in text), text)
    check(all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (ERROR|WARN |INFO |DEBUG) ", line) for line in text.splitlines()), text)


def made(folder, count=60_000):
    """Statistics files with a year in them, of ours and of others; what a naive reader makes of them."""
    chance, sums, bad, total = random.Random("stats"), {}, 0, [0, 0, 0, 0]
    users = [f"user{n}" for n in range(700)] + ["ann%20b", "zo\xeb".encode().decode("latin-1"), "carl@other.test", "x" * 240]
    files = {}
    for _ in range(count):
        day = chance.randrange(365)
        start = 1_767_225_600 + day * 86_400 + chance.randrange(86_400)
        end, user = start + chance.randrange(600), chance.choice(users)
        octets, messages = chance.choice([0, chance.randrange(10**9)]), chance.randrange(50)
        host = chance.choice(["192.0.2.7", "2001:db8::1", "host.example", "", "two words"])
        name = time.strftime("dpop%b%d.stats", time.gmtime(start)).lower()
        line = f"{start} {end} {user} {host} {octets} {messages}\n"
        if chance.random() < 0.01:
            line, bad = chance.choice(["nonsense\n", "\n", f"{start} {end} {user}\n", line.replace(" ", "\t"), "\x1b[2J\n"]), bad + 1
        else:
            connections = sums.setdefault(user, [0, 0, 0, 0, []])
            for at, value in enumerate((1, messages, octets, end - start)):
                connections[at] += value
                total[at] += value
            connections[4].append(start)
        files.setdefault(name, []).append(line)
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.writelines(text)
    return sums, bad, total


@test("stats: tellpop stats gives what another reader of the same files gives, without a server")
def summary(bench):
    site, folder = with_stats(bench)
    site.port, site.tls_port = 1, 2
    site.write_conf()
    sums, bad, total = made(folder)
    done = site.tell("stats", "--json")
    same(done.returncode, 0, f"exit code; {done.stderr!r}")
    check(f"not counted: {bad} ".encode() in done.stderr, bad, "bad lines, but it said", done.stderr)
    found = json.loads(done.stdout)

    def word(user):
        return "".join(chr(byte) if 33 <= byte <= 126 else f"%{byte:02X}" for byte in user.encode())

    def between(starts):
        return (max(starts) - min(starts)) // (len(starts) - 1) if len(starts) > 1 else None

    wanted = {word(user): (*values[:4], between(values[4])) for user, values in sums.items()}
    fields = ("connections", "messages", "bytes", "secs", "between_secs")
    same({user["user"]: tuple(user[field] for field in fields) for user in found["users"]}, wanted, "sums by user")
    same([found["total"][field] for field in fields[:4]], total, "totals")
    same(found["bad_lines"], bad, "bad lines")
    same([user["user"] for user in found["users"]], [word(user) for user in sorted(sums, key=str.encode)], "order by name")
    # As text, and in other orders.
    for key, at in (("connections", 0), ("messages", 1), ("bytes", 2), ("secs", 3)):
        done = site.tell("stats", "--sort", key, "--top", "10")
        text = [line.split() for line in done.stdout.decode("ascii").splitlines()]
        best = sorted(wanted.items(), key=lambda item: (-item[1][at], item[0]))[:10]
        same([(line[0], int(line[at + 1])) for line in text[1:11]], [(user, values[at]) for user, values in best], f"--sort {key}")
        same(text[11][0], "total", "the last line")
        check(b"\x1b" not in done.stdout + done.stderr, "an escape is printed")
    # Some of the files; one from standard input.
    names = sorted(glob.glob(os.path.join(folder, "*")))
    halves = [json.loads(run([DMAIL, "tellpop", "stats", "--json", *part]).stdout)["total"] for part in (names[:100], names[100:])]
    same(sum(half["bytes"] for half in halves), total[2], "bytes of the parts")
    with open(names[0], "rb") as file:
        piped = run([DMAIL, "tellpop", "stats", "--json", "-"], stdin=file)
    same(json.loads(piped.stdout)["users"], json.loads(run([DMAIL, "tellpop", "stats", "--json", names[0]]).stdout)["users"], "a pipe")
    for words, code in ((["--sort", "size"], 2), (["--top", "many"], 2), (["/nowhere/dpopjan01.stats"], 1), (["-h"], 0)):
        done = run([DMAIL, "tellpop", "stats", *words])
        same(done.returncode, code, f"exit code of tellpop stats {words}; {done.stderr!r}")
    check(b"stats" in run([DMAIL, "tellpop", "-h"]).stdout, "tellpop -h does not know it")
