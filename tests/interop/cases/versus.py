"""loadtest versus: two rows by our own server and a bound, and what its JSON says of them. Other servers are not needed here."""

import json
import os

from harness.suite import DMAIL, LOADTEST, check, need, run, same, test


def versus(bench, *words, code=0, seconds=150, program=DMAIL):
    need(LOADTEST)
    done = run([LOADTEST, "versus", "--program", program, "--dir", bench.folder, *words], seconds=seconds)
    same(done.returncode, code, f"exit code of {words}; {done.stdout[-1500:]!r} {done.stderr[-1500:]!r}")
    return done


@test("versus: polls and mail of dmail beside the bounds, with medians, shares and nothing left behind", 400)
def rows(bench):
    out = bench.path("out.json")
    done = versus(bench, "--quick", "--only", "a,f", "--peers", "dmail,null", "--json", out, seconds=380)
    with open(out, encoding="utf-8") as file:
        found = json.load(file)
    check(found["quick"] is True and found["rounds"] == 2, "what was asked for in", found["command"])
    same([work["row"] for work in found["works"]], ["a"] * 3 + ["f"] * 6, "rows")
    for work in found["works"]:
        title, polls = work["title"], work["row"] == "a"
        check(title.encode() in done.stdout, title, "in the table")
        for figure in work["figures"]:
            peers = {peer["peer"]: peer for peer in figure["peers"]}
            same(sorted(peers), ["dmail", "null"] if polls else ["dmail"], f"peers of {title}")
            for peer in peers.values():
                check(peer["failed"] is None, peer["peer"], "failed:", peer["failed"])
                value, rounds = peer["value"], peer["rounds"]
                same(len(rounds), 2, "rounds")
                check(0 < value["min"] <= value["median"] <= value["max"], title, figure["id"], value)
                same([value["min"], value["max"]], [min(rounds), max(rounds)], "the spread")
            if polls:
                check(peers["dmail"]["of_bound"] > 0, "a share of the bound in", peers["dmail"])
            same(peers["dmail"]["ours_better_times"], None, "ours beside ours")
    left = [name for name in os.listdir(bench.folder) if name.startswith("versus-")]
    same(left, [], "folders left behind")


@test("versus: a server that cannot be started is a reason in the table, and the exit code is 1")
def failed(bench):
    program = bench.path("broken")
    with open(program, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\necho the port is taken >&2\nexit 3\n")
    os.chmod(program, 0o755)
    done = versus(bench, "--quick", "--only", "g", "--peers", "dmail", "--markdown", code=1, program=program)
    check(b"failed" in done.stdout and b"the port is taken" in done.stdout, "the reason in", done.stdout)
    done = versus(bench, "--only", "q", code=2)
    check(b"there is no row `q`" in done.stderr, "what is wrong in", done.stderr)
