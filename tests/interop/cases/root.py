"""Started by root: the server gives root up, a launcher keeps it; the users of this machine, with drop files of their own.

Needs root, `useradd` and `chpasswd`. The users made here have names that nobody else has, and are removed with their test."""

import contextlib
import grp
import itertools
import json
import os
import poplib
import pwd
import shutil
import signal
import socket
import stat
import time

from harness import spool
from harness.site import Site
from harness.suite import DMAIL, ROOT, Skip, check, descendants, run, same, test, wait_for

PASSWORDS = {"ann": "Geheim-1", "bob": "Geheim-2"}

LISTER = """#!/bin/sh
# Says what it was started with, then answers as any authenticator.
{ id -u; ls /proc/$$/fd; tr '\\0' '\\n' < /proc/$$/environ; ps -o sid= -p $$; echo $$; ulimit -c; } > "$1"
while read -r command user password rest; do
  case "$command $user" in
  "check "*) echo "+OK $user config $2" ;;
  version*) echo "-ERR unknown" ;;
  exit*) exit ;;
  *) echo "-ERR no" ;;
  esac
done
"""


def change(*command, **options):
    """Changes a user. Another test may be at it: there is one lock for all of them."""

    def done():
        result = run(list(command), **options)
        check(result.returncode == 0 or b"lock" in result.stderr, *command, result.stderr)
        return result.returncode == 0

    wait_for(" ".join(command), done)


@contextlib.contextmanager
def people(*names, groups=()):
    """Users of this machine for a while: their names here, and as the machine has them."""
    if not ROOT:
        raise Skip("only root can make users")
    for program in ("useradd", "userdel", "chpasswd"):
        if not shutil.which(program):
            raise Skip(f"no {program}")
    made = {}
    try:
        for name in names:
            system = f"dmt{os.getpid()}{name}"
            more = ["-G", ",".join(groups)] if groups and name == "srv" else []
            made[name] = system
            change("useradd", "-M", "-N", "-g", "nogroup", "-s", "/bin/false", *more, system)
            if name in PASSWORDS:
                change("chpasswd", input=f"{system}:{PASSWORDS[name]}\n".encode())
        yield made
    finally:
        for system in made.values():
            # The server still runs as one of them.
            change("userdel", "-f", system)


class Machine(Site):
    """A site whose users are the machine's, whose server is `srv`, and whose spool is as /var/mail is."""

    def __init__(self, bench, names, mode, settings=None, helper=None, name="site"):
        self.names = names
        extra = {"run_as": names["srv"], "bin_pfull": 1, **(settings or {})}
        if helper is None:
            extra["authent_method"] = "Unix_User"
        super().__init__(bench, users={}, settings=extra, helper=helper or "/nothing", name=name)
        # Who made it a folder of work files, made it the server's.
        shutil.chown(self.work, names["srv"], "nogroup")
        shutil.chown(self.spool, "root", "mail")
        os.chmod(self.spool, mode)
        bench.sites.append(self)

    def fill(self, content, user="ann", mode=0o660):
        path = super().fill(content, self.names[user], mode)
        shutil.chown(path, self.names[user], "mail")
        return path

    def client(self, user="ann", password=None):
        pop = poplib.POP3("127.0.0.1", self.port, timeout=30)
        pop.user(self.names[user])
        pop.pass_(password or PASSWORDS[user])
        return pop

    def status(self):
        return json.loads(self.tell("status", "--json").stdout)

    def launcher(self):
        return self.status()["launcher"]["pid"]


def uid_of(pid):
    """All four uids of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return fields["Uid"].split(), fields


def same_file(path, before):
    now = os.stat(path)
    same((now.st_uid, now.st_gid, oct(now.st_mode), now.st_ino), (before.st_uid, before.st_gid, oct(before.st_mode), before.st_ino),
         f"owner, group, mode and inode of {path}")


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def in_spool(bench, mode, groups=()):
    with people("srv", "ann", "bob", groups=groups) as names:
        site = Machine(bench, names, mode)
        drop = site.fill(spool.spool(spool.plain(4)))
        texts = spool.messages(drop)
        before = os.stat(drop)
        site.start()
        uids, fields = uid_of(site.process.pid)
        same(set(uids), {str(pwd.getpwnam(names["srv"]).pw_uid)}, "uids of the server")
        same(fields["NoNewPrivs"].strip(), "1", "no new privileges")
        same(set(uid_of(site.launcher())[0]), {"0"}, "uids of the launcher")
        pop = site.client()
        same(pop.stat()[0], 4, "STAT")
        same([b"\r\n".join(pop.retr(n + 1)[1]) + b"\r\n" for n in range(4)], texts, "messages")
        pop.dele(2)
        pop.quit()
        wait_for("compaction", site.is_quiet)
        same_file(drop, before)
        same(spool.messages(drop), [texts[0], texts[2], texts[3]], "messages in the drop file")
        # Other programs go on; then everything goes, and the file stays.
        spool.append(drop, spool.entry(spool.mail("late")))
        pop = site.client()
        same(pop.stat()[0], 4, "STAT after another program's append")
        for n in range(4):
            pop.dele(n + 1)
        pop.quit()
        wait_for("compaction", site.is_quiet)
        same_file(drop, before)
        same(os.path.getsize(drop), 0, "bytes in the drop file")
        # Who has no drop file has no mail, and gets none made.
        pop = site.client("bob")
        same(pop.stat(), (0, 0), "STAT of a user without a drop file")
        pop.quit()
        same(sorted(os.listdir(site.spool)), [names["ann"]], "names in the spool")
        check("no dotlock" not in site.log(), "a dotlock could not be made:", site.log())
        same(site.stop(), 0, "exit code")


@test("root: system users in a spool with mode 1777")
def sticky(bench):
    in_spool(bench, 0o1777)


@test("root: system users in a spool with mode 2775, the server not in its group")
def group(bench):
    in_spool(bench, 0o2775)


@test("root: system users in a spool with mode 2775, the server in its group")
def member(bench):
    in_spool(bench, 0o2775, groups=["mail"])


@test("root: system users in a spool that root alone may write to")
def shut(bench):
    in_spool(bench, 0o755)


@test("root: a dotlock that a dead program of another user left is taken away, whose lock it is or not")
def stale(bench):
    for mode in (0o1777, 0o2775):
        with people("srv", "ann", "bob") as names:
            site = Machine(bench, names, mode, name=f"site{mode:o}")
            drop = site.fill(spool.spool(spool.plain(3)))
            lock = drop + ".lock"
            for owner, text, age in (("bob", "", 1100), ("bob", "4711", 1100), ("srv", "dead", 0)):
                if text == "dead":
                    text = dead_line(site)
                elif site.process is None:
                    site.start()
                with open(lock, "w", encoding="ascii") as file:
                    file.write(text)
                os.chmod(lock, 0o600)
                shutil.chown(lock, names[owner])
                then = time.time() - age
                os.utime(lock, (then, then))
                pop = site.client()
                pop.dele(1)
                pop.quit()
                wait_for("compaction", site.is_quiet)
                check(not os.path.exists(lock), "still locked by", owner, text)
            same(os.path.getsize(drop), 0, "bytes in the drop file")
            same(os.listdir(site.spool), [names["ann"]], "names in the spool")
            same(site.stop(), 0, "exit code")


def dead_line(site):
    """What a server of this machine writes into a lock that died since."""
    host = open("/proc/sys/kernel/hostname", encoding="ascii").read().strip()
    boot = open("/proc/sys/kernel/random/boot_id", encoding="ascii").read().strip()
    return f"dmail {site.process.pid} 1 {host} {boot} {os.readlink('/proc/self/ns/pid')}\n"


@test("root: passwords of the machine: wrong, locked, expired, root's, unknown")
def passwords(bench):
    with people("srv", "ann", "bob") as names:
        site = Machine(bench, names, 0o1777, settings={"auth_nocache": "true"})
        site.fill(spool.spool(spool.plain(2)))
        site.start()
        site.client().quit()

        def refused(user, password, code):
            pop = poplib.POP3("127.0.0.1", site.port, timeout=30)
            pop.user(user)
            try:
                pop.pass_(password)
            except poplib.error_proto as error:
                check(code in error.args[0], "refused otherwise:", error.args)
            else:
                check(False, user, "came in with", password)
            pop.close()

        refused(names["ann"], "falsch", b"[AUTH]")
        refused("root", "x", b"[AUTH]")
        refused("daemon", "x", b"[AUTH]")
        refused("nobody-is-called-so", "x", b"[AUTH]")
        for spoil, back in ((["usermod", "-L"], ["usermod", "-U"]), (["chage", "-E", "1"], ["chage", "-E", "-1"]),
                            (["chage", "-d", "0"], ["chage", "-d", "2026-01-01"])):
            change(*spoil, names["ann"])
            refused(names["ann"], PASSWORDS["ann"], b"[AUTH]")
            change(*back, names["ann"])
            site.client().quit()


@test("root: a stranger's drop file, a link, a second name: not opened")
def strangers(bench):
    with people("srv", "ann", "bob") as names:
        site = Machine(bench, names, 0o1777)
        bob = site.fill(spool.spool(spool.plain(3)), "bob", 0o600)
        ann = os.path.join(site.spool, names["ann"])
        before, content = os.stat(bob), open(bob, "rb").read()
        site.start()

        def refused(what):
            try:
                site.client()
            except poplib.error_proto as error:
                check(b"[SYS/" in error.args[0], what, "was refused otherwise:", error.args)
            else:
                check(False, "ann came in to", what)

        os.symlink(bob, ann)
        refused("a link to bob's drop")
        os.unlink(ann)
        os.symlink("/etc/shadow", ann)
        refused("a link to shadow")
        os.unlink(ann)
        os.link(bob, ann)
        refused("a second name of bob's drop")
        os.unlink(ann)
        shutil.copy(bob, ann)
        shutil.chown(ann, names["bob"])
        refused("a file that is bob's")
        os.unlink(ann)
        os.mkfifo(ann)
        shutil.chown(ann, names["ann"])
        refused("a pipe")
        os.unlink(ann)
        same(site.client().stat(), (0, 0), "STAT without any of these")
        same(open(bob, "rb").read(), content, "bob's drop")
        same_file(bob, before)
        pop = site.client("bob")
        same(pop.stat()[0], 3, "STAT of bob")
        pop.quit()


@test("root: low ports, a key that is root's, a configuration that is root's, and a reload of them")
def handed(bench):
    with people("srv", "ann") as names:
        site = Machine(bench, names, 0o1777)
        site.fill(spool.spool(spool.plain(2)))
        low = next(port for port in range(700, 1000) if not taken(port))
        site.extra["pops_port"] = low
        site.start()
        same(stat.S_IMODE(os.stat(site.key).st_mode) | os.stat(site.key).st_uid, 0o600, "mode and owner of the key")
        pop = poplib.POP3_SSL("127.0.0.1", low, timeout=30)
        pop.user(names["ann"])
        pop.pass_(PASSWORDS["ann"])
        pop.quit()
        other = next(port for port in range(low + 1, 1020) if not taken(port))
        site.extra["pops_port"] = other
        site.write_conf()
        done = site.tell("reload")
        check(done.returncode == 0, "reload:", done.stdout, done.stderr)
        poplib.POP3_SSL("127.0.0.1", other, timeout=30).quit()
        # What is not root's alone is not believed, and nothing changes.
        for mode, owner in ((0o620, "root"), (0o600, names["srv"])):
            site.extra["pops_port"] = low
            site.write_conf()
            os.chmod(site.conf, mode)
            shutil.chown(site.conf, owner)
            done = site.tell("reload")
            check(done.returncode == 1 and b"root does what this file says" in done.stdout + done.stderr, "reload:", done.stdout,
                  done.stderr)
        shutil.chown(site.conf, "root")
        poplib.POP3_SSL("127.0.0.1", other, timeout=30).quit()


def taken(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@test("root: the launcher killed: sessions go on, the log says so, what needs it is refused for now")
def launcher_killed(bench):
    with people("srv", "ann", "bob") as names:
        site = Machine(bench, names, 0o1777)
        drop = site.fill(spool.spool(spool.plain(3)))
        texts = spool.messages(drop)
        site.fill(spool.spool(spool.plain(1)), "bob")
        site.start()
        pop = site.client()
        launcher = site.launcher()
        os.kill(launcher, signal.SIGKILL)
        wait_for("it was noticed", lambda: site.status()["launcher"]["alive"] is False)
        wait_for("the log says so", lambda: "the launcher (pid" in site.log())
        same(b"\r\n".join(pop.retr(2)[1]) + b"\r\n", texts[1], "a message after the launcher's end")
        pop.dele(1)
        pop.quit()
        try:
            site.client("bob")
        except poplib.error_proto as error:
            check(b"[SYS/TEMP]" in error.args[0], "refused otherwise:", error.args)
        else:
            check(False, "bob's drop was opened by nobody")
        site.alive()
        same(site.stop(), 0, "exit code")


@test("root: authenticators killed are started again; the server killed takes launcher and authenticators along")
def ends(bench):
    with people("srv", "ann") as names:
        site = Machine(bench, names, 0o1777, settings={"auth_nocache": "true"})
        site.fill(spool.spool(spool.plain(1)))
        site.start()
        site.client().quit()
        launcher = site.launcher()
        first = [row[0] for row in descendants(launcher)]
        check(len(first) == 2, "authenticators:", first)
        for pid in first:
            same(set(uid_of(pid)[0]), {"0"}, "uids of an authenticator")
            os.kill(pid, signal.SIGKILL)
        wait_for("new ones", lambda: len([row for row in descendants(launcher) if row[0] not in first and row[2] != "Z"]) == 2)
        site.client().quit()
        check(not [row for row in descendants(launcher) if row[2] == "Z"], "zombies:", descendants(launcher))
        everybody = [launcher, *(row[0] for row in descendants(launcher))]
        # To be told to end is the server's business: the launcher stays.
        os.kill(launcher, signal.SIGTERM)
        site.client().quit()
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(20)
        wait_for("all are gone", lambda: all(is_gone(pid) for pid in everybody))


@test("root: an authenticator of the site has the server's rights, three descriptors, a clean environment, its own session")
def clean(bench):
    with people("srv", "ann") as names:
        told = os.path.join(bench.folder, "told")
        os.mkdir(told)
        shutil.chown(told, names["srv"])
        uid = pwd.getpwnam(names["ann"]).pw_uid
        program = bench.write("lister", LISTER, 0o755)
        site = Machine(bench, names, 0o1777, settings={"authent_number": 1}, helper=f"{program} {told}/it {uid}")
        site.fill(spool.spool(spool.plain(1)))
        os.environ["DMAIL_SECRET"] = "leak"
        try:
            # Popen would close a descriptor; a shell does not.
            site.start(wrap=["/bin/sh", "-c", 'exec 7</etc/passwd; exec "$@"', "sh"])
        finally:
            del os.environ["DMAIL_SECRET"]
        same(site.client().stat()[0], 1, "STAT")
        with open(os.path.join(told, "it"), encoding="ascii") as file:
            words = file.read().split()
        same(words[0], str(pwd.getpwnam(names["srv"]).pw_uid), "uid of the authenticator")
        # 10 and above are the shell's own, which reads its script.
        descriptors = itertools.takewhile(str.isdigit, words[1:])
        same(sorted(fd for fd in descriptors if int(fd) < 10), ["0", "1", "2"], "descriptors")
        check(not [word for word in words if "SECRET" in word or word.startswith(("HOME=", "USER="))], "environment:", words)
        session, pid, core = words[-3:]
        same(session, pid, "session")
        same(core, "0", "bytes of core")


@test("root: a user of two virtual domains is two users of the machine, each with a drop of his own")
def domains(bench):
    with people("srv", "A_fred", "B_fred") as names:
        made = {}
        for letter, address in (("A", "127.0.0.2"), ("B", "127.0.0.3")):
            change("chpasswd", input=f"{names[letter + '_fred']}:Geheim-{letter}\n".encode())
            folder = bench.path(letter)
            os.mkdir(folder)
            shutil.chown(folder, "root", "mail")
            os.chmod(folder, 0o755)
            prefix = names[letter + "_fred"].removesuffix("_fred")
            made[letter] = (address, folder, f"{prefix} {address} {letter.lower()}.test {folder}")
        settings = {"vdomain": [line for _, _, line in made.values()], "bind_address": "0.0.0.0", "plain_auth": "always"}
        site = Machine(bench, names, 0o755, settings=settings)
        for letter, count in (("A", 2), ("B", 3)):
            path = os.path.join(made[letter][1], names[letter + "_fred"])
            with open(path, "wb") as file:
                file.write(spool.spool(spool.plain(count)))
            shutil.chown(path, names[letter + "_fred"], "mail")
            os.chmod(path, 0o600)
        site.start()
        for letter, count in (("A", 2), ("B", 3)):
            address, folder, _ = made[letter]
            path = os.path.join(folder, names[letter + "_fred"])
            before = os.stat(path)
            pop = poplib.POP3(address, site.port, timeout=30)
            pop.user("fred")
            pop.pass_(f"Geheim-{letter}")
            same(pop.stat()[0], count, f"STAT of domain {letter}")
            pop.dele(1)
            pop.quit()
            wait_for("compaction", site.is_quiet)
            same_file(path, before)
            same(len(spool.messages(path)), count - 1, "messages left")
            same(os.listdir(folder), [names[letter + "_fred"]], "names in the folder")
        pop = poplib.POP3("127.0.0.2", site.port, timeout=30)
        pop.user("fred")
        try:
            pop.pass_("Geheim-B")
        except poplib.error_proto as error:
            check(b"[AUTH]" in error.args[0], error.args)
        else:
            check(False, "the other domain's password was taken")


@test("root: operators: members of control_group and root; undelete, erase, rename, repair of other users' drops")
def operated(bench):
    for mode in (0o2775, 0o755):
        with people("srv", "ann", "bob", "cara", groups=["games"]) as names:
            site = Machine(bench, names, mode, settings={"control_group": "games", "bin_pfull": 0}, name=f"site{mode:o}")
            for folder in (bench.folder, site.folder):
                os.chmod(folder, 0o755)
            shutil.chown(site.work, names["srv"], "games")
            os.chmod(site.work, 0o710)
            drop = site.fill(spool.spool(spool.plain(4)))
            before = os.stat(drop)
            site.start()
            os.chmod(site.conf, 0o644)
            socket_file = os.stat(os.path.join(site.work, "dmail.sock"))
            same((socket_file.st_uid, socket_file.st_gid, stat.S_IMODE(socket_file.st_mode)),
                 (pwd.getpwnam(names["srv"]).pw_uid, grp.getgrnam("games").gr_gid, 0o660), "the socket")
            pop = site.client()
            pop.dele(1)
            pop.dele(3)
            pop.quit()
            pop = site.client()

            def member(*words):
                def become():
                    os.setgroups([])
                    os.setgid(grp.getgrnam("games").gr_gid)
                    os.setuid(54321)
                return run([DMAIL, "tellpop", "-i", site.conf, *words], preexec_fn=become)

            done = member("users")
            check(done.returncode == 0 and names["ann"].encode() in done.stdout, "users:", done.stdout, done.stderr)
            done = member("kick", names["ann"])
            same(done.returncode, 0, f"kick: {done.stderr!r}")
            done = member("undelete", names["ann"])
            check(done.returncode == 0 and b"2" in done.stdout, "undelete:", done.stdout, done.stderr)
            same_file(drop, before)
            same(member("erase", names["ann"]).returncode, 1, "erase by a member")
            pop = site.client()
            same(pop.stat()[0], 4, "STAT after undelete")
            pop.dele(2)
            pop.quit()
            status = site.status()
            same(status["uid"], pwd.getpwnam(names["srv"]).pw_uid, "uid in status")
            check(status["launcher"]["alive"] is True, status)
            done = site.tell("rename", names["ann"], names["bob"])
            check(done.returncode == 1 and b"must be uid" in done.stderr, "rename:", done.stdout, done.stderr)
            # An old user's mail goes to whom nobody knows yet; moving it needs rights that the launcher does not lend.
            done = site.tell("rename", names["ann"], names["ann"] + "new")
            check(done.returncode == 1 and b"let it write to the directory" in done.stderr, "rename:", done.stdout, done.stderr)
            same_file(drop, before)
            done = run([DMAIL, "repair", "-i", site.conf, "--compact", names["ann"]])
            check(done.returncode == 0 and b"messages: 3 live" in done.stdout, "repair:", done.stdout, done.stderr)
            same(len(spool.messages(drop)), 3, "messages in the drop")
            pop = site.client()
            same(pop.stat()[0], 3, "STAT after repair")
            pop.quit()
            done = site.tell("erase", names["ann"])
            check(done.returncode == 0, "erase:", done.stdout, done.stderr)
            same(os.path.getsize(drop), 0, "bytes of the drop")
            same(site.client().stat(), (0, 0), "STAT after erase")
            # Of somebody the machine knows no more: whose it is the file says.
            gone = os.path.join(site.spool, names["cara"] + "old")
            shutil.copy(drop, gone)
            spool.append(gone, spool.entry(spool.mail("late")))
            shutil.chown(gone, names["cara"])
            os.chmod(gone, 0o600)
            done = site.tell("erase", names["cara"] + "old")
            check(done.returncode == 0, "erase:", done.stdout, done.stderr)
            same(os.path.getsize(gone), 0, "bytes of the old user's drop")
            os.unlink(gone)
            mem = json.loads(site.tell("mem", "--json").stdout)
            check(mem["process"]["pss_kb"] and mem["process"]["resident_kb"], "mem:", mem)
            same(os.listdir(site.spool), [names["ann"]], "names in the spool")
            same(site.stop(), 0, "exit code")


@test("root: statistics, bulletins, bins and a log of the server's user's own")
def kept(bench):
    with people("srv", "ann") as names:
        paths = {name: bench.path(name) for name in ("stats_path", "bulletin_path", "bin_path", "log_path")}
        site = Machine(bench, names, 0o755, settings={**paths, "drop_must_exist": "true"})
        for path in paths.values():
            os.mkdir(path)
        drop = site.fill(spool.spool(spool.plain(2)))
        with contextlib.suppress(Exception):
            os.chmod(bench.folder, 0o755)
        site.port, site.tls_port = 1, 2
        site.write_conf()
        for path in paths.values():
            os.chmod(path, 0o700)
        done = run([DMAIL, "check", "-i", site.conf])
        for name in paths:
            check(f"{name}: {paths[name]} cannot be".encode() in done.stdout, name, "is not judged:", done.stdout)
        for path in paths.values():
            shutil.chown(path, names["srv"], "nogroup")
        done = run([DMAIL, "check", "-i", site.conf])
        check(done.returncode == 0, done.stdout)
        done = site.tell("bulletin", input=b"Subject: news\n\nAll is well.\n")
        check(done.returncode == 0, "bulletin:", done.stdout, done.stderr)
        site.port = site.tls_port = None
        site.start()
        pop = site.client()
        same(pop.stat()[0], 3, "STAT with a bulletin")
        check(b"All is well." in b"".join(pop.retr(3)[1]) + b"".join(pop.retr(1)[1]), "the bulletin is not there")
        pop.quit()
        site.stop()
        for name in ("stats_path", "log_path", "bin_path"):
            found = [os.path.join(root, file) for root, _, files in os.walk(paths[name]) for file in files]
            check(found, name, "is empty")
            for file in found:
                same(os.stat(file).st_uid, pwd.getpwnam(names["srv"]).pw_uid, f"owner of {file}")
        os.unlink(drop)
        site.start()
        try:
            site.client()
        except poplib.error_proto as error:
            check(b"[AUTH]" in error.args[0] or b"[SYS/" in error.args[0], error.args)
        else:
            check(False, "who has no drop came in")


@test("root: check says who runs as what, and what would not be believed")
def judged(bench):
    with people("srv") as names:
        site = Machine(bench, names, 0o1777)
        site.port, site.tls_port = 110, 995
        site.write_conf()
        done = run([DMAIL, "check", "-i", site.conf])
        check(done.returncode == 0, done.stdout, done.stderr)
        for words in (f"the server runs as {names['srv']}", "the authenticator as root", "low ports", "certificates and keys"):
            check(words.encode() in done.stdout, words, "is missing:", done.stdout)
        shutil.chown(site.work, "root")
        os.chmod(site.conf, 0o660)
        site.extra["run_as"] = names["srv"]
        done = run([DMAIL, "check", "-i", site.conf])
        check(done.returncode == 1, done.stdout)
        check(b"cannot be written by" in done.stdout and b"`chmod go-w" in done.stdout, done.stdout)
        for name, words in (("root", b"root is what the server shall not be"), ("nobody-is-called-so", b"there is no user")):
            site.extra["run_as"] = name
            site.write_conf()
            done = run([DMAIL, "check", "-i", site.conf])
            check(done.returncode == 1 and words in done.stdout, words, "is missing:", done.stdout)
