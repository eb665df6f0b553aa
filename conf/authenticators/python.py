#!/usr/bin/env python3
"""A model authenticator: users in a text file, `name:salt:hash[:path]` each, passwords hashed by scrypt.

In dmail.conf:

    authent_method external
    authent_process /etc/dmail/authenticators/python.py /etc/dmail/users

Add a user (the password is asked for, or read from standard input when that is no terminal):

    python.py --line fred >> /etc/dmail/users

Change `find` to ask a database instead: the rest stays. `-DEAD` says "not now": no password is wrong because of it.
"""

import base64
import getpass
import hashlib
import hmac
import os
import sys

NAMES = 128  # bytes; longer names are nobody's


def hashed(password, salt):
    """About 50 ms and 16 MB, on purpose."""
    return hashlib.scrypt(password, salt=salt, n=16384, r=8, p=1, dklen=32)


# Checked against when there is no such user, so that time does not tell.
NOBODY = ("", os.urandom(16), os.urandom(32), "")


def find(path, name):
    """(name, salt, hash, path) of a user, or None. The file is read each time: a change counts at once."""
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.strip().split(":", 3) + [""]
            if len(fields) > 3 and fields[0].lower() == name.lower() and not line.startswith("#"):
                return fields[0], base64.b64decode(fields[1]), base64.b64decode(fields[2]), fields[3]
    return None


def answer(path, words):
    """The reply to `check` or `lookup`."""
    if len(words) < 2 or len(words[1]) > NAMES:
        return "-ERR malformed"
    user = find(path, words[1])
    if words[0] == "check":
        if len(words) < 3:
            return "-ERR malformed"
        name, salt, expected, _ = user or NOBODY
        made = hashed(words[2].encode("utf-8", "surrogateescape"), salt)
        if not hmac.compare_digest(made, expected) or not name:
            return "-ERR password wrong or not a valid user"
    if not user:
        return "-ERR does not exist"
    return f"+OK {user[0]} {user[3] or 'config'} 0"


def serve(path):
    """One line in, one line out, until `exit` or the end."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    for line in sys.stdin:
        words = line.split()
        command = words[0] if words else ""
        if command in ("exit", "quit"):
            print("+OK goodbye", flush=True)
            return
        try:
            reply = answer(path, words) if command in ("check", "lookup") else "-ERR unknown command"
        except (OSError, ValueError) as trouble:
            reply = f"-DEAD {type(trouble).__name__}"
        print(reply, flush=True)


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--line":
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        salt = os.urandom(16)
        parts = (base64.b64encode(part).decode() for part in (salt, hashed(password.encode(), salt)))
        print(arguments[1], *parts, sep=":")
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        serve(arguments[0])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
