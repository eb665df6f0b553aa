"""dmail demo: what it prints can be pasted."""

import os
import re
import shlex
import subprocess

from harness import spool
from harness.suite import DMAIL, Failure, check, need, same, test, wait_for


@test("demo: the lines it prints work exactly as printed", 90)
def pasted(bench):
    need("curl")
    folder = bench.path("demo")
    out = bench.path("printed")
    for again in (False, True):
        with open(out, "wb") as file:
            server = subprocess.Popen([DMAIL, "demo", folder], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=bench.folder)

        def printed():
            if server.poll() is not None:
                raise Failure(f"dmail demo ended with {server.returncode}: {open(out, encoding='utf-8').read()}")
            text = open(out, encoding="utf-8").read()
            return text if "Ctrl-C" in text else None

        text = wait_for("the demo's lines", printed, 30)
        lines = [line.strip() for line in text.splitlines()]
        curls = [line for line in lines if line.startswith(("curl ", "printf "))]
        talks = [line for line in lines if line.startswith("openssl ")]
        tells = [line for line in lines if " tellpop " in line]
        check(len(curls) >= 7 and len(talks) >= 2 and tells, "printed:", text)
        wanted = spool.messages(os.path.join(folder, "spool", "ann"))
        environment = dict(os.environ, HOME=bench.folder)
        for line in curls:
            done = subprocess.run(["sh", "-c", line], cwd=bench.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=30, check=False)
            check(done.returncode == 0, line, done.stderr)
            found = re.search(r" -u (\w+):.* pop3s?://[^ ]*/(\d*)$", line)
            if not found:
                continue
            user, number = found.groups()
            if number:
                same(done.stdout, spool.messages(os.path.join(folder, "spool", user))[int(number) - 1], line)
            else:
                same(done.stdout.count(b"\n"), len(wanted), line)
        typed = b"USER ann\nPASS secret\nLIST\nQUIT\n"
        for line in talks:
            done = subprocess.run(["sh", "-c", line], cwd=bench.folder, env=environment, input=typed, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=30, check=False)
            check(done.returncode == 0 and b"verify error" not in done.stderr, line, done.stderr)
            check(done.stdout.count(b"+OK") >= 4 and b"\r\n.\r\n" in done.stdout, line, done.stdout)
        for line in tells:
            done = subprocess.run(shlex.split(line), cwd=bench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
            check(done.returncode == 0 and b"sessions" in done.stdout, line, done.stderr)
        for line in [line for line in lines if " tellsmtp " in line]:
            done = subprocess.run(shlex.split(line), cwd=bench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
            check(done.returncode == 0, line, done.stderr)
            check(b"delivered" in done.stdout or b"kim@example.net" in done.stdout and b"park" in done.stdout, line, done.stdout)
        for name in ("key.pem", "dmail.conf", "spool/ann"):
            check(not os.stat(os.path.join(folder, name)).st_mode & 0o077, name, "is open to others")
        server.terminate()
        same(server.wait(15), 0, "exit code of the demo")
    # Deleted mail stays deleted: the folder is served as it stands.
    check(len(wanted) >= 2, "there is mail in the demo")
