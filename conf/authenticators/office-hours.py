#!/usr/bin/env python3
"""A rule in front of another authenticator: no mail from the laboratory in working hours.

In dmail.conf (one line):

    authent_method external
    authent_process /etc/dmail/authenticators/office-hours.py --from 10.4.0.0/16 --closed mon-fri 09:00-17:00 --
                    nwauth -path /etc/dmail

A `check` (or `scram`, or `apop`) that comes from one of the --from networks (repeat it for more) on one of the --closed days between those times is
refused before anybody looks at the password, so that the answer tells nothing about it. Everything else goes to the other
authenticator as it is, and its answer comes back as it is. When that one dies, whoever waits is told -DEAD ("not now") and
the next request starts it anew. `--clock "tue 14:00"` tries the rule as if it were then. Times may span midnight.

Mind authent_cache_hours: an answer kept by the server is not asked for again, so the rule needs it at 0.
"""

import argparse
import ipaddress
import subprocess
import sys
import time

#: Where a request that lets somebody in has the client's address. A rule must know them all, or it is walked around.
ADDRESS = {"check": 3, "scram": 2, "apop": 4}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def minutes(text):
    hour, minute = text.split(":")
    if not (0 <= int(hour) <= 24 and 0 <= int(minute) < 60):
        raise ValueError(text)
    return int(hour) * 60 + int(minute)


def days(text):
    first, _, last = text.lower().partition("-")
    first, last = DAYS.index(first), DAYS.index(last or first)
    return {day % 7 for day in range(first, last + 1 + (7 if last < first else 0))}


class Rule:
    """Which checks are refused. A function of address and time."""

    def __init__(self, networks, closed_days, hours):
        self.networks = networks
        self.days = closed_days
        self.begins, self.ends = (minutes(part) for part in hours.split("-"))

    def refuses(self, address, day, minute):
        try:
            address = ipaddress.ip_address(address)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if self.begins <= self.ends:
            closed = day in self.days and self.begins <= minute < self.ends
        else:  # the part after midnight belongs to the day before
            closed = (day in self.days and minute >= self.begins) or ((day - 1) % 7 in self.days and minute < self.ends)
        return closed and any(address in network for network in self.networks)


class Behind:
    """The other authenticator, started when it is needed."""

    def __init__(self, command):
        self.command = command
        self.child = None

    def ask(self, request):
        """Its reply lines; +DATA lines are followed by the one that ends them."""
        try:
            if self.child is None:
                self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.child.stdin.write(request)
            self.child.stdin.flush()
            while True:
                line = self.child.stdout.readline()
                if not line.endswith(b"\n"):
                    raise EOFError
                yield line
                if not line.startswith(b"+DATA"):
                    return
        except (OSError, EOFError):
            self.stop()
            yield b"-DEAD the authenticator behind this one ended\n"

    def stop(self):
        child, self.child = self.child, None
        if child is not None:
            child.kill()
            child.wait()
            child.stdout.close()
            try:
                child.stdin.close()
            except OSError:
                pass


def main():
    parser = argparse.ArgumentParser(description="An authenticator that refuses some addresses at some times.")
    parser.add_argument("--from", dest="networks", action="append", required=True, type=ipaddress.ip_network)
    parser.add_argument("--closed", nargs=2, required=True, metavar=("DAYS", "HOURS"))
    parser.add_argument("--clock", metavar='"DAY HH:MM"')
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    try:
        rule = Rule(options.networks, days(options.closed[0]), options.closed[1])
    except ValueError as trouble:
        parser.error(f"--closed: {trouble}")

    def now():
        if options.clock:
            day, clock = options.clock.split()
            return DAYS.index(day.lower()), minutes(clock)
        local = time.localtime()
        return local.tm_wday, local.tm_hour * 60 + local.tm_min

    behind = Behind(options.command)
    for request in sys.stdin.buffer:
        words = request.decode("ascii", "replace").split()
        at = ADDRESS.get(words[0].lower(), 0) if words else 0
        if 0 < at < len(words) and rule.refuses(words[at], *now()):
            replies = [b"-ERR no mail from here in working hours\n"]
        else:
            replies = behind.ask(request)
        for reply in replies:
            sys.stdout.buffer.write(reply)
        sys.stdout.buffer.flush()
        if words[:1] in (["exit"], ["quit"]):
            break
    if behind.child is not None:
        behind.child.stdin.close()
        try:
            behind.child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            behind.stop()


if __name__ == "__main__":
    main()
