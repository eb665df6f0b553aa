"""Virtual domains: the same names in several domains are different users, however they are spelled and wherever they connect."""

import contextlib
import os
import queue
import random
import socket
import threading

from harness.suite import DMAIL, Failure, check, run, same, test, wait_for
from harness.wire import Pop

#: Sessions of the long trace.
LOGINS = int(os.environ.get("DOMAINS_LOGINS", "10000"))
#: How many of them at a time.
CLIENTS = 16

#: Name: prefix, suffix in a login, address of ours. The prefix of `bee` begins with that of `ay`.
DOMAINS = {
    "ay.test": ("A", "/ay", "127.0.0.2"),
    "bee.test": ("a_b", None, "127.0.0.3"),
    "cee.test": ("Cee", "@cee.example", None),
    "dee.test": ("d", "%dee", "127.0.0.4"),
}
#: Users of each domain, and of the main one.
USERS = ["fred", "ann", "b_fred", "a_fred", "cee_ann", "freddy"]
MAIN = "example.test"


def asked(user, domain, whole=False):
    """What the authenticator is asked for."""
    if whole:
        return f"{user}@{domain}"
    return user if domain == MAIN else f"{DOMAINS[domain][0]}_{user}"


def shown(user, domain):
    return user if domain == MAIN else f"{user}@{domain}"


def marker(user, domain):
    return (f"From x@example.test Mon Jan  5 10:00:00 2026\nSubject: marker\n\n"
            f"this is the mail of <{shown(user, domain)}>\n\n").encode()


def site_of_domains(bench, whole=False, drop_prefix=True):
    """A site with DOMAINS; every user there is has a drop with a marker, and the password `same`. For some of them the
    authenticator names the drop, so that an answer for another user would open that one's."""
    folder = bench.path("site")
    lines = []
    for domain, (prefix, suffix, address) in DOMAINS.items():
        lines += [f"{prefix} {field} {domain} {folder}/{domain}" for field in (address, suffix) if field]
    settings = {"bind_address": "0.0.0.0", "vdomain": lines, "plain_auth": "always", "log_level": "info",
                "authent_domain": str(whole).lower(), "drop_prefix": str(drop_prefix).lower()}
    site = bench.site(users={}, tls=False, settings=settings)
    names = {}
    for domain in [MAIN, *DOMAINS]:
        base = site.spool if domain == MAIN else os.path.join(folder, domain)
        os.makedirs(base, exist_ok=True)
        os.chmod(base, 0o755)
        for user in USERS:
            name = asked(user, domain, whole)
            file = user if domain == MAIN or not drop_prefix else f"{DOMAINS[domain][0]}_{user}"
            with open(os.path.join(base, file), "wb") as drop:
                drop.write(marker(user, domain))
            names[name.lower()] = os.path.join(base, file) if user in ("ann", "freddy") else ""
    with open(os.path.join(site.user_path, "nwauth.txt"), "w", encoding="ascii") as file:
        # In clear: this test is not about hashes.
        file.writelines(sorted(f"{name}:{{PLAIN}}same::{path}\n" for name, path in names.items()))
    os.chmod(os.path.join(site.user_path, "nwauth.txt"), 0o600)
    return site


def means(login, address, whole):
    """Who that is, in the words of the manual's page; None for nobody."""
    login = login.lower()
    if " " in (login[:1], login[-1:]):
        return None
    here = [domain for domain, (_, _, ours) in DOMAINS.items() if ours == address]
    by_suffix = [(suffix, domain) for domain, (_, suffix, _) in DOMAINS.items() if suffix and login.endswith(suffix)]
    local, at, named = login.rpartition("@")
    if by_suffix:
        suffix, domain = by_suffix[0]
        user = login[: -len(suffix)]
    elif at and (named in DOMAINS or named == MAIN):
        user, domain = local, named
    elif at:
        return None
    else:
        user, domain = login, here[0] if here else MAIN
    if user != user.strip() or user not in USERS:
        return None
    name = asked(user, domain, whole)
    if not whole:
        # A name with a prefix is the longest prefix's and nobody else's.
        prefixes = [prefix for prefix, _, _ in DOMAINS.values() if name.lower().startswith(f"{prefix}_".lower())]
        own = "" if domain == MAIN else DOMAINS[domain][0]
        if prefixes and max(prefixes, key=len) != own:
            return None
    return shown(user, domain)


def session(site, address, login):
    """One pipelined session: the reply to PASS, and the text of message 1."""
    with socket.socket() as sock:
        sock.settimeout(30)
        sock.connect((address, site.port))
        sock.sendall(f"USER {login}\r\nPASS same\r\nRETR 1\r\nQUIT\r\n".encode())
        got = b""
        while data := sock.recv(65536):
            got += data
    lines = got.split(b"\r\n")
    check(len(lines) > 4 and lines[0].startswith(b"+OK") and lines[1].startswith(b"+OK"), login, "was answered", got)
    return lines[2], got


def sees(site, address, login):
    """Whose marker that login sees; None when it is refused as any wrong name is."""

    def attempt():
        reply, got = session(site, address, login)
        return None if b"[IN-USE]" in reply else (reply, got)

    reply, got = wait_for(f"{login} is not in use", attempt)
    if reply.startswith(b"+OK"):
        found = got.split(b"mail of <")
        check(len(found) == 2, login, "saw", got)
        return found[1].partition(b">")[0].decode()
    check(reply.startswith(b"-ERR [AUTH]"), login, "at", address, "was answered", reply)
    return None


@test("domains: a login means one user, by address, suffix and domain, and the log names him so")
def naming(bench):
    for whole, drop_prefix in ((False, True), (True, False)):
        site = site_of_domains(bench, whole, drop_prefix)
        site.start()
        for address, login, who in [
            ("127.0.0.1", "fred", "fred"),
            ("127.0.0.9", "FRED", "fred"),
            ("127.0.0.2", "fred", "fred@ay.test"),
            ("127.0.0.3", "Fred", "fred@bee.test"),
            ("127.0.0.1", "fred/ay", "fred@ay.test"),
            ("127.0.0.3", "fred/AY", "fred@ay.test"),
            ("127.0.0.1", "fred@cee.example", "fred@cee.test"),
            ("127.0.0.1", "fred@Cee.Test", "fred@cee.test"),
            ("127.0.0.4", "fred@example.test", "fred"),
            ("127.0.0.1", "fred%dee", "fred@dee.test"),
            ("127.0.0.1", "fred%00/ay", None),
            ("127.0.0.2", "fred ", None),
            ("127.0.0.2", " fred", None),
            ("127.0.0.1", "fred /ay", None),
            ("127.0.0.1", "fred/jds", None),
            ("127.0.0.1", "../ay.test/fred", None),
            ("127.0.0.1", "freddy", "freddy"),
            # One account with fred of ay.test, and with b_fred of it, unless the authenticator is told domains.
            ("127.0.0.1", "a_fred", "a_fred" if whole else None),
            ("127.0.0.2", "b_fred", "b_fred@ay.test" if whole else None),
            ("127.0.0.2", "a_fred", "a_fred@ay.test"),
        ]:
            same(sees(site, address, login), who, f"{login} at {address}, authent_domain {whole}")
        log = wait_for("the log has the sessions", lambda: (text := site.log()).count("retrieved") >= 10 and text)
        for name in ("fred@ay.test", "fred@cee.test", "fred@dee.test", "fred"):
            check(f" {name} 127.0.0.1 plain: 1 messages" in log, name, "is not in the log:", log[-3000:])
        check("A_fred" not in log, "the log has a name that is not canonical:", log[-3000:])
        check(site.stop() == 0, "the server ended badly", site.said())
        run(["rm", "-r", site.folder])


@test("domains: an account may log in by its own name where that reaches the same drop file")
def system_accounts(bench):
    folder = bench.path("site")
    lines = [f"A 127.0.0.2 ay.test {folder}/drop", f"B 127.0.0.3 bee.test {folder}/bee"]
    site = bench.site(users={"A_fred": "same", "B_fred": "same", "fred": "same"}, tls=False,
                      settings={"bind_address": "0.0.0.0", "vdomain": lines})
    os.makedirs(f"{folder}/bee")
    site.fill(marker("fred", "ay.test"), "A_fred")
    site.start()
    for address, login, who in [
        ("127.0.0.2", "fred", "fred@ay.test"),
        ("127.0.0.1", "A_fred", "fred@ay.test"),
        ("127.0.0.1", "a_FRED", "fred@ay.test"),
        ("127.0.0.1", "B_fred", None),
    ]:
        same(sees(site, address, login), who, f"{login} at {address}")


@test("domains: lines that do not go together are told with both lines, and a reload keeps what was")
def conflicts(bench):
    site = site_of_domains(bench)
    site.start()
    good = site.extra["vdomain"]
    for more, says in [
        (f"A 127.0.0.9 ay.test {site.folder}/elsewhere", b"one prefix, one domain, one path"),
        (f"Z 127.0.0.2 zee.test {site.folder}/ay.test", b"clients that connect to 127.0.0.2 are another domain's already"),
        (f"Z %dee zee.test {site.folder}/ay.test", b"logins that end in %dee are another domain's already"),
        (f"a 127.0.0.9 zee.test {site.folder}/zee", b"the prefix a is ay.test's already"),
    ]:
        site.extra["vdomain"] = [*good, more]
        site.write_conf()
        done = run([DMAIL, "check", "-i", site.conf])
        check(done.returncode == 1 and says in done.stdout, more, "was not refused:", done.stdout)
        numbers = [number for number, line in enumerate(site.lines(), 1) if line.startswith("vdomain ")]
        check(f":{numbers[-1]}:1: error: ".encode() in done.stdout, "the line at fault:", done.stdout)
        check(any(f"(in line {number})".encode() in done.stdout for number in numbers[:-1]), "the other:", done.stdout)
        check(site.tell("reload").returncode != 0, "a reload took it")
        same(sees(site, "127.0.0.2", "fred"), "fred@ay.test", "after a refused reload")
    site.extra["vdomain"] = good[:1]
    site.write_conf()
    check(site.tell("reload").returncode == 0, "the reload of fewer lines")
    same(sees(site, "127.0.0.2", "fred"), "fred@ay.test", "after a reload")
    same(sees(site, "127.0.0.3", "fred"), "fred", "no domain any more")
    same(sees(site, "127.0.0.1", "b_fred"), "b_fred", "nobody's prefix any more")


@test("domains: nwauth has the names of virtual users, with prefixes and with domains")
def nwauth(bench):
    for whole, name in ((False, "cc_sales"), (True, "sales@computers.com")):
        site = bench.site(users={name: "same", "sales": "other"}, tls=False, name=f"site-{whole}", settings={
            "authent_domain": str(whole).lower(), "vdomain": f"cc @computers.com computers.com {bench.path(f'site-{whole}')}/cc"})
        os.makedirs(os.path.join(site.folder, "cc"))
        if whole:
            site.set_user(f"sales@{MAIN}", "other")
        base = [DMAIL, "nwauth", "-path", site.user_path]
        same(run([*base, "lookup", name.upper()]).stdout, f"+OK {name} config 0\n".encode(), "lookup")
        same(run([*base, "check", name, "same"]).stdout, f"+OK {name} config 0\n".encode(), "check")
        found = run([*base, "drop_path", "2", os.path.join(site.folder, "cc"), "sales", "cc_"])
        drop = found.stdout.decode().strip()
        same(drop, os.path.join(site.folder, "cc", "s", "a", "cc_sales"), "drop_path")
        site.extra["hash_spool"] = 2
        os.makedirs(os.path.dirname(drop))
        with open(drop, "wb") as file:
            file.write(marker("sales", "computers.com"))
        site.start()
        same(sees(site, "127.0.0.1", "Sales@computers.com"), "sales@computers.com", "the virtual user")
        with Pop(site.port) as pop:
            pop.ok("USER sales")
            pop.err("PASS same", "AUTH")
            pop.login("sales", "other")
            same(pop.stat(), (0, 0), "the main domain's user of that name")


@test("domains: random interleaved logins each see only their own mail", seconds=600)
def interleaved(bench):
    for whole, count in ((False, LOGINS - LOGINS // 4), (True, LOGINS // 4)):
        site = site_of_domains(bench, whole, drop_prefix=not whole)
        site.start()
        trace(site, whole, count)
        check(site.stop() == 0, "the server ended badly", site.said())
        run(["rm", "-r", site.folder])


def trace(site, whole, count):
    dice = random.Random(f"domains {whole}")
    addresses = ["127.0.0.1", "127.0.0.5"] + [address for _, _, address in DOMAINS.values() if address]
    endings = [""] * 6 + [suffix for _, suffix, _ in DOMAINS.values() if suffix] + [f"@{name}" for name in (*DOMAINS, MAIN)]
    odd = [" ", "%00", "/nobody", "@other.test", "%", "\t"]

    def login():
        user = dice.choice(USERS) + dice.choice(endings) + (dice.choice(odd) if dice.random() < 0.04 else "")
        user = dice.choice([user, user, user.upper(), user.capitalize(), user.swapcase()])
        return f" {user}" if dice.random() < 0.01 else user

    work = queue.SimpleQueue()
    for _ in range(count):
        work.put((dice.choice(addresses), login()))
    # Two sessions of one user would meet in [IN-USE]; which user it is, the model says.
    locks = {}
    for user in USERS:
        for domain in [MAIN, *DOMAINS]:
            locks[shown(user, domain)] = threading.Lock()
    counts = {"in": 0, "refused": 0}
    failures = []

    def client():
        while not failures:
            try:
                address, name = work.get_nowait()
            except queue.Empty:
                return
            who = means(name, address, whole)
            try:
                with locks[who] if who else contextlib.nullcontext():
                    for _ in range(200):
                        reply, got = session(site, address, name)
                        # The one before may still be giving its lock back.
                        if b"[IN-USE]" not in reply:
                            break
                found = got.split(b"mail of <")[1:]
                if who:
                    check(reply.startswith(b"+OK"), repr(name), "at", address, "should be", who, "and was answered", reply)
                    same([one.partition(b">")[0].decode() for one in found], [who], f"{name!r} at {address}")
                    counts["in"] += 1
                else:
                    check(reply.startswith(b"-ERR [AUTH]") and not found, repr(name), "at", address, "saw", got)
                    counts["refused"] += 1
            except (Failure, OSError) as failure:
                failures.append(f"{name!r} at {address}: {failure}")

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    if failures:
        raise Failure(f"{len(failures)} of {count}: {failures[0]}")
    check(counts["in"] > count // 2 and counts["refused"] > count // 50, "what the trace met:", counts)
    site.alive()
