"""A whole mail site in a folder: configuration, users, certificate, spool, and the server on ports of its own."""

import json
import os
import shlex
import signal
import socket
import subprocess
import time

from .suite import DMAIL, ROOT, Failure, check, run, wait_for
from .wire import Pop

#: Who owns the spool of the tests, where that can be chosen: not root, not a real user.
OWNER = 12345 if ROOT else os.getuid()

CERTIFICATE = """[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
"""


def free_ports(count):
    """Ports of the loopback that nobody listens on now. Somebody may be quicker: `Site.start` tries again then."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Site:
    """`users` are told to nwauth; `helper` is another authenticator's command line; `settings` are further lines of
    dmail.conf, a list standing for a setting that is repeated."""

    def __init__(self, bench, users=None, helper=None, tls=True, settings=None, name="site", mail=False):
        self.bench, self.tls, self.extra = bench, tls, dict(settings or {})
        self.folder = bench.path(name)
        self.spool = os.path.join(self.folder, "drop")
        self.work = os.path.join(self.folder, "work")
        self.conf = os.path.join(self.folder, "dmail.conf")
        self.cert, self.key = os.path.join(self.folder, "cert.pem"), os.path.join(self.folder, "key.pem")
        self.users = {"ann": "secret", "bob": "geheim"} if users is None else users
        self.helper = helper
        self.process = self.port = self.tls_port = None
        # With `mail` it serves SMTP and LMTP too.
        self.mail = mail
        self.smtp_port = self.submission_port = self.smtps_port = self.lmtp_port = None
        self.starts = 0
        for folder, mode in ((self.folder, 0o755), (self.spool, 0o755), (self.work, 0o700)):
            os.makedirs(folder)
            os.chmod(folder, mode)
        if tls:
            self.make_certificate()
        if helper is None:
            self.user_path = os.path.join(self.folder, "users")
            os.makedirs(self.user_path)
            for user, password in self.users.items():
                self.set_user(user, password)

    def make_certificate(self):
        plan = os.path.join(self.folder, "cert.conf")
        with open(plan, "w", encoding="ascii") as file:
            file.write(CERTIFICATE)
        done = run(["openssl", "req", "-x509", "-config", plan, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "30", "-keyout", self.key, "-out", self.cert])
        check(done.returncode == 0, "openssl req:", done.stderr)
        os.chmod(self.key, 0o600)

    def set_user(self, user, password):
        done = run([DMAIL, "nwauth", "-path", self.user_path, "set", user, password])
        check(done.returncode == 0 and done.stdout.startswith(b"+OK"), "nwauth set:", done.stdout, done.stderr)

    def drop(self, user="ann"):
        return os.path.join(self.spool, user)

    def fill(self, content, user="ann", mode=0o640):
        """Writes a drop file, with an owner and a mode that are not the server's own."""
        path = self.drop(user)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        if ROOT:
            os.chown(path, OWNER, OWNER)
        return path

    def lines(self):
        helper = self.helper or f"{shlex.quote(DMAIL)} nwauth -path {shlex.quote(self.user_path)}"
        settings = {
            "host_domain": "example.test",
            "work_path": self.work,
            "drop_path": self.spool,
            "authent_process": helper,
            "bind_address": "127.0.0.1",
            "pop_port": self.port or 0,
            "pops_port": self.tls_port if self.tls and self.tls_port else 0,
            "smtp_port": self.smtp_port or 0,
            "submission_port": self.submission_port or 0,
            "smtps_port": self.smtps_port if self.tls and self.smtps_port else 0,
            "lmtp_port": self.lmtp_port or 0,
            "log_level": "debug",
            # Nobody is there: mail for elsewhere waits, and no test asks the DNS of the machine.
            "dns_host": "127.0.0.1:9",
            "dns_timeout": 1,
        }
        if self.tls:
            settings.update(tls_cert=self.cert, tls_key=self.key)
        settings.update(self.extra)
        for name, value in settings.items():
            for one in value if isinstance(value, list) else [value]:
                yield f"{name} {one}"

    def write_conf(self):
        # As an editor does it: programs that read it meanwhile find the old one or the new one.
        with open(self.conf + ".new", "w", encoding="utf-8") as file:
            file.write("\n".join(self.lines()) + "\n")
        os.chmod(self.conf + ".new", 0o600)
        os.rename(self.conf + ".new", self.conf)

    def launch(self, wrap=()):
        """Starts the server on the ports it has, and waits for nothing."""
        self.write_conf()
        self.starts += 1
        self.stdout = os.path.join(self.folder, f"serve.{self.starts}.out")
        with open(self.stdout, "wb") as out:
            self.process = subprocess.Popen([*wrap, DMAIL, "serve", "-i", self.conf], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, cwd=self.folder)
        return self.process

    def start(self, wrap=(), seconds=20, patient=False):
        """Starts the server and waits until it answers. The ports stay the same for all starts of a site. `patient`: tries
        again, as supervision does, while something of the last server is still there."""
        for attempt in range(40 if patient else 5):
            if self.port is None or attempt and not patient:
                self.port, self.tls_port = free_ports(2)
                if self.mail:
                    self.smtp_port, self.submission_port, self.smtps_port, self.lmtp_port = free_ports(4)
            if attempt and patient:
                time.sleep(0.05)
            self.launch(wrap)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if self.process.poll() is not None:
                    break
                try:
                    with Pop(self.port, timeout=seconds) as pop:
                        pop.ok("QUIT")
                    return self
                except OSError:
                    time.sleep(0.01)
            else:
                raise Failure(f"no answer on port {self.port} after {seconds} s: {self.said()}")
            if "in use" not in self.said().lower() and not patient:
                break
        raise Failure(f"the server ended with {self.process.returncode}: {self.said()}")

    def said(self):
        """What the server wrote to its standard output and error."""
        try:
            with open(self.stdout, "rb") as file:
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def log(self):
        """What the server wrote everywhere: its output and its log files."""
        # It gathers lines for 4 ms before it writes them.
        time.sleep(0.1)
        text = self.said()
        for name in sorted(os.listdir(self.work)):
            if name.endswith(".log"):
                with open(os.path.join(self.work, name), "rb") as file:
                    text += file.read().decode("utf-8", "replace")
        return text

    def stop(self, how=signal.SIGTERM, seconds=20):
        """Ends the server; its exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"the server still runs {seconds} s after {signal.Signals(how).name}: {self.said()}") from late

    def alive(self):
        check(self.process.poll() is None, "the server ended with", self.process.returncode, self.said()[-2000:])

    def pop(self, tls=None, **options):
        return Pop(self.tls_port if tls == "tls" else self.port, tls=tls, cafile=self.cert, **options)

    def login(self, user="ann", tls=None, **options):
        pop = self.pop(tls, **options)
        pop.login(user, self.users[user])
        return pop

    def retry_login(self, user="ann", seconds=25, **options):
        """Logs in as soon as [IN-USE] is over: a session that just ended may still be writing its deletions."""

        def attempt():
            pop = self.pop(**options)
            try:
                pop.ok(f"USER {user}")
                reply = pop.cmd(f"PASS {self.users[user]}")
                if reply.startswith(b"+OK"):
                    return pop
                check(b"[IN-USE]" in reply, "login refused:", reply)
            except (ConnectionError, EOFError):
                pass
            pop.close()
            return None

        return wait_for(f"{user} can log in", attempt, seconds)

    def tell(self, *words, seconds=30, **options):
        return run([DMAIL, "tellpop", "-i", self.conf, *words], seconds=seconds, **options)

    def queue_files(self):
        """The paths of all files of the queue, wherever they lie in it."""
        return [os.path.join(path, name) for path, _, names in os.walk(os.path.join(self.work, "queue")) for name in names]

    def is_quiet(self):
        """No job runs or waits: a compaction that follows a QUIT has ended."""
        jobs = json.loads(self.tell("status", "--json").stdout)["jobs"]
        return jobs["running"] == 0 and jobs["waiting"] == 0
