"""What an operator meets: dmail check, a start that cannot be, tellpop, signals, reload."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from harness import spool
from harness.site import free_ports
from harness.suite import DMAIL, check, run, same, test, wait_for


def judged(site, *lines):
    """`dmail check` of the site's configuration with these lines added."""
    site.port, site.tls_port = site.port or 1, site.tls_port or 2
    site.write_conf()
    with open(site.conf, "a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    return run([DMAIL, "check", "-i", site.conf])


@test("operator: dmail check says what is wrong, where, and what to do")
def checks(bench):
    site = bench.site()
    done = judged(site)
    same(done.returncode, 0, f"exit code of a good configuration; {done.stdout!r}")
    lines = len(open(site.conf, encoding="utf-8").read().splitlines())
    for text, column, words in (("pop_port 70000", 10, "pop_port"), ("pop_port x", 10, "pop_port"),
                                ("plain_auth sometimes", 12, "plain_auth"), ("work_path /nowhere/at/all", None, "/nowhere/at/all"),
                                ("tls_cert /nowhere.pem", None, "/nowhere.pem"), ("authent_process /nowhere/auth", None, "/nowhere/auth"),
                                ("bind_address not-an-address", 14, "bind_address")):
        name = text.split()[0]
        kept = site.extra
        site.extra = dict(kept, **{name: text.split(" ", 1)[1]})
        done = judged(site)
        row = next(n for n, line in enumerate(open(site.conf, encoding="utf-8"), 1) if line.startswith(name + " "))
        place = f"{site.conf}:{row}:{column}: error: " if column else f"{site.conf}:{row}:"
        said = done.stdout.decode() + done.stderr.decode()
        same(done.returncode, 1, f"exit code for `{text}`; {said}")
        check(place in said and words in said, f"`{text}`: no `{place}` in", said)
        site.extra = kept
    done = judged(site, "pop_prot 110")
    said = done.stdout.decode()
    same(done.returncode, 0, "exit code for an unknown name")
    check(f"{site.conf}:{lines + 1}:1: warning:" in said and "pop_port" in said, said)
    done = run([DMAIL, "check", "-i", bench.path("none.conf")])
    same(done.returncode, 1, "exit code for no file")
    check(b"none.conf" in done.stdout + done.stderr, done.stdout, done.stderr)
    for words in (["check", "--frobnicate"], ["check", "extra"], ["serve", "extra"], ["frobnicate"]):
        done = run([DMAIL, *words])
        same(done.returncode, 2, f"exit code of dmail {' '.join(words)}")
        check(done.stderr.strip(), "nothing said by dmail", words)
    # Comments, quotes, includes.
    bench.write("site/more.conf", 'host_domain "other.test"   # trailing\n')
    done = judged(site, "#include more.conf", "# a comment", "", "hide_version true # yes")
    same(done.returncode, 0, f"exit code with an include; {done.stdout!r}")
    done = judged(site, "#include nothing.conf")
    same(done.returncode, 1, "exit code with a missing include")
    check(b"nothing.conf" in done.stdout, done.stdout)


def listing(folder):
    """Every file's name, size and time below a folder, but for the server's output."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            status = os.lstat(path)
            if not name.startswith("serve."):
                found[path] = (status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino)
    return found


def refused(site, *words):
    """The server ends with 1 and one clear sentence that holds these words, and has touched nothing."""
    site.port = site.port or free_ports(1)[0]
    site.write_conf()
    before = listing(site.folder)
    done = run([DMAIL, "serve", "-i", site.conf], seconds=20, cwd=site.folder)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    same(done.returncode, 1, f"exit code; {said}")
    lines = [line for line in said.splitlines() if "warning" not in line and "note:" not in line]
    check(len(lines) == 1, "not one sentence:", said)
    for word in words:
        check(word in lines[0], "no", word, "in", lines[0])
    check("panic" not in said and "RUST_BACKTRACE" not in said, said)
    changed = {path for path, state in listing(site.folder).items() if before.get(path) != state and path != site.conf}
    # The run lock's file is there to be locked, and says nothing.
    changed -= {os.path.join(site.work, "dmail.run")}
    check(not changed, "touched:", changed)


@test("operator: a port in use")
def port_in_use(bench):
    site = bench.site()
    site.port, site.tls_port = free_ports(2)
    with socket.create_server(("127.0.0.1", site.port)):
        refused(site, str(site.port), "in use")
    with socket.create_server(("127.0.0.1", site.tls_port)):
        refused(site, str(site.tls_port), "in use")
    site.start()


@test("operator: directories, certificates and authenticators that are missing or broken")
def broken(bench):
    def site(**settings):
        return bench.site(name=f"site{len(bench.sites)}", settings=settings)

    refused(site(work_path="/nowhere/work"), "/nowhere/work")
    refused(site(drop_path="/nowhere/drop"), "/nowhere/drop")
    refused(site(tls_cert="/nowhere/cert.pem"), "/nowhere/cert.pem")
    refused(site(authent_process="/nowhere/auth"), "/nowhere/auth")
    refused(site(pop_port="x"), "pop_port")
    one = site()
    with open(one.cert, "w", encoding="ascii") as file:
        file.write("-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")
    refused(one, one.cert)
    one = site()
    with open(one.cert, "w", encoding="ascii") as file:
        file.write("nothing\n")
    refused(one, one.cert)
    one, other = site(), site()
    shutil.copy(other.key, one.key)
    refused(one, "key")
    one = site()
    os.unlink(one.key)
    refused(one, one.key)
    one = site()
    os.rmdir(one.work)
    with open(one.work, "w", encoding="ascii"):
        pass
    refused(one, one.work)


@test("operator: a second server on the same work_path")
def second(bench):
    site = bench.site()
    drop = site.fill(spool.spool(spool.plain(2)))
    site.start()
    other = bench.site(name="other", settings={"work_path": site.work})
    other.port, other.tls_port = free_ports(2)
    refused(other, site.work)
    site.alive()
    check(site.tell("status").returncode == 0, "the first server's control socket")
    with site.login() as pop:
        same(pop.everything(), spool.messages(drop), "messages")
        pop.quit()
    # After a kill the next one starts at once.
    os.kill(site.process.pid, signal.SIGKILL)
    site.process.wait()
    check(other.tell("status").returncode == 1, "tellpop without a server")
    site.start()


@test("operator: tellpop's commands, for people and as JSON")
def tells(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(3)))
    done = (site.write_conf(), site.tell("status"))[1]
    same(done.returncode, 1, "exit code of tellpop without a server")
    check(len(done.stderr.splitlines()) == 1 and b"no server" in done.stderr, done.stderr)
    site.start()
    with site.login() as pop:
        pop.retr(1)
        for words in (["status"], ["version"], ["help"], ["log_level", "debug"], ["reload"]):
            done = site.tell(*words)
            check(done.returncode == 0 and done.stdout.strip() and not done.stderr, words, done.stdout, done.stderr)
            done = site.tell(*words, "--json")
            check(done.returncode == 0, words, done.stderr)
            check(isinstance(json.loads(done.stdout), dict), words, done.stdout)
        status = json.loads(site.tell("status", "--json").stdout)
        same(status["sessions"]["now"], 1, "sessions")
        check(status["logins"]["good"] == 1 and status["messages"]["retrieved"] == 1, status)
        same(status["pid"], site.process.pid, "pid")
        for words, code in ((["frobnicate"], 2), (["log_level", "loud"], 2), ([], 2), (["status", "now"], 2), (["s"], 2)):
            done = site.tell(*words)
            check(done.returncode == code and len(done.stderr.splitlines()) == 1, words, done.returncode, done.stdout, done.stderr)
        check(site.tell("ver").returncode == 0, "a command cut short")
        check(not os.stat(os.path.join(site.work, "dmail.sock")).st_mode & 0o077, "the control socket is open to others")
        pop.quit()
    done = site.tell("shutdown", "--json")
    check(done.returncode == 0, done.stderr)
    json.loads(done.stdout)
    same(site.process.wait(20), 0, "exit code after shutdown")
    check(not os.path.exists(os.path.join(site.work, "dmail.sock")), "the control socket is left")


@test("operator: log_level works at once, and reload brings the configuration's back")
def levels(bench):
    site = bench.site(settings={"log_level": "error"}).start()
    before = site.log()
    site.login().quit()
    site.tell("log_level", "info")
    site.login("bob").quit()

    def said():
        return site.log()[len(before):].replace(site.folder, "")

    # The log is in order: what was to be silent would stand before it.
    wait_for("a session is logged at info", lambda: "bob" in said(), 10)
    check("ann" not in said(), "something is logged at error:", said())


@test("operator: reload by SIGHUP and by tellpop; a bad configuration changes nothing")
def reloads(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(2)))
    site.start()

    def banner():
        with site.pop() as pop:
            return pop.greeting

    old = banner()
    check(re.search(rb"\d\.\d", old), "no version in", old)
    site.extra["hide_version"] = "true"
    site.write_conf()
    inside = site.login()
    os.kill(site.process.pid, signal.SIGHUP)
    wait_for("SIGHUP is obeyed", lambda: banner() != old, 10)
    check(not re.search(rb"\d\.\d", banner()), "a version in", banner())
    same(inside.stat()[0], 2, "a session over a reload")
    inside.quit()
    new = banner()
    site.extra["hide_version"] = "perhaps"
    site.write_conf()
    done = site.tell("reload")
    same(done.returncode, 1, "exit code of a bad reload")
    check(b"hide_version" in done.stderr + done.stdout and f"{site.conf}:".encode() in done.stderr + done.stdout, done.stdout, done.stderr)
    os.kill(site.process.pid, signal.SIGHUP)
    same(banner(), new, "the banner after a bad reload")
    os.rename(site.conf, site.conf + ".away")
    os.kill(site.process.pid, signal.SIGHUP)
    wait_for("a missing configuration is in the log", lambda: "dmail.conf" in site.log(), 10)
    site.login().quit()
    os.rename(site.conf + ".away", site.conf)
    site.extra["hide_version"] = "false"
    site.write_conf()
    done = site.tell("reload", "--json")
    same(done.returncode, 0, f"exit code of a good reload; {done.stderr!r}")
    check("hide_version" in done.stdout.decode(), "the report names what changed:", done.stdout)
    same(banner(), old, "the banner is back")


@test("operator: a renewed certificate is used, a broken one is not")
def certificates(bench):
    site = bench.site().start()
    old = open(site.cert, "rb").read()
    site.login(tls="tls").quit()
    site.make_certificate()
    check(open(site.cert, "rb").read() != old, "not a new certificate")
    check(site.tell("reload").returncode == 0, "reload")
    # The client trusts the new one only.
    site.login(tls="tls").quit()
    site.login(tls="stls").quit()
    good = open(site.cert, "rb").read()
    with open(site.cert, "wb") as file:
        file.write(good[: len(good) // 2])
    same(site.tell("reload").returncode, 1, "exit code of a reload with half a certificate")
    with open(site.cert, "wb") as file:
        file.write(good)
    site.login(tls="tls").quit()


@test("operator: SIGTERM tells the sessions and ends with 0")
def term(bench):
    for how in (signal.SIGTERM, signal.SIGINT):
        site = bench.site(name=f"site{how}")
        drop = site.fill(spool.spool(spool.plain(4)))
        before = open(drop, "rb").read()
        site.start()
        plain, tls, fresh = site.login(), site.login("bob", tls="tls"), site.pop()
        plain.ok("DELE 1")
        os.kill(site.process.pid, how)
        for pop in (plain, tls, fresh):
            line = pop.line()
            check(line.startswith(b"-ERR [SYS/TEMP]"), "at the stop a session was told", line)
            pop.eof()
        same(site.process.wait(15), 0, "exit code")
        same(open(drop, "rb").read(), before, "the drop: nothing is deleted without QUIT")
        check(sorted(os.listdir(site.spool))[:1] != ["ann.lock"] and not os.path.exists(drop + ".lock"), "a lock is left")
        # And it starts again.
        site.start()
        site.login().quit()


@test("operator: nothing that is made is open to others, but where programs bring mail")
def modes(bench):
    site = bench.site(settings={"bin_pfull": 1})
    site.fill(spool.spool(spool.plain(3)))
    old = os.umask(0)
    try:
        site.start()
    finally:
        os.umask(old)
    pop = site.login()
    pop.ok("DELE 1")
    pop.quit()
    wait_for("the drop is compacted", lambda: len(spool.messages(site.drop())) == 2)
    for folder in (site.work, site.spool):
        for where, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(where, name)
                mode = os.lstat(path).st_mode & 0o777
                if path == os.path.join(site.work, "submit.sock"):
                    same(mode, 0o666, "the mode of submit.sock, where the system says who is there")
                elif path != site.drop():
                    check(not mode & 0o077, path, "has the mode", oct(mode))


@test("operator: called by another name it is another program")
def names(bench):
    for name, words, code in (("tellpop", ["help"], 1), ("dpop", ["-h"], 0), ("nwauth", ["-path", bench.folder, "set", "x", "y"], 0),
                              ("dmail", ["-V"], 0), ("dmail", ["-h"], 0), ("dmail", [], 2)):
        link = bench.path(name)
        os.path.lexists(link) or os.symlink(DMAIL, link)
        done = run([link, *words], env={"PATH": "/nowhere", "HOME": bench.folder})
        same(done.returncode, code, f"exit code of {name} {' '.join(words)}: {done.stdout!r} {done.stderr!r}")
    done = run([DMAIL, "settings"])
    check(done.returncode == 0 and b"pop_port" in done.stdout, "dmail settings")
    with subprocess.Popen([DMAIL, "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.read(10)
        child.stdout.close()
        check(b"panic" not in child.stderr.read(), "dmail settings | head panics")
        child.wait(10)


@test("operator: an idle server uses no CPU")
def idle(bench):
    site = bench.site()
    site.fill(spool.spool(spool.plain(2)))
    site.start()
    sessions = [site.pop() for _ in range(20)] + [site.login()]

    def cpu():
        with open(f"/proc/{site.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    used = cpu()
    time.sleep(1.5)
    check(cpu() - used < 0.1, "an idle server used", cpu() - used, "s of CPU in 1.5 s")
    for pop in sessions:
        pop.quit()
