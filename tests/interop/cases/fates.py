"""A world with trouble: domains whose hosts stall, end, refuse and vanish, a resolver that fails, a server of ours that is killed;
and each recipient of each accepted message has exactly one outcome: he is given it, or its sender is told that he is not.

| the host said, last                       | copies there                | the sender is told |
|-------------------------------------------|-----------------------------|--------------------|
| yes, and its answer arrived               | 1                           | no                 |
| no, for good                              | 0                           | once               |
| it has it all, and its answer was lost, or we were killed before it was noted | more than 1 are no surprise | as the last says |

FATES_SECS is how long the trouble lasts (10 unless set); SEED, which is printed, repeats its orders (not who is quicker)."""

import json
import os
import random
import re
import signal
import threading
import time

from harness import dns
from harness.sink import close, close_in_text, drip, say, say_and_close, stall
from harness.suite import Failure, check, same, test, wait_for
from harness.wire import Smtp
from harness.world import Report, World, letter, name_of

SECS = float(os.environ.get("FATES_SECS", "10"))
DOMAINS = 8
#: What was answered so shortly before a kill may not have been noted; or it came before it.
NOTED_SECS = 2
WAIT = ("421 4.3.2 Busy", "450 4.2.0 Later", "451 4.3.0 Trouble", "452 4.3.1 Full")
NEVER = "554 5.7.1 Not that"


def trouble(dice):
    """A step, and what a host does there, once or for a while."""
    step = dice.choice(("greeting", "ehlo", "mail", "rcpt", "data", "text", "dot", "dot", "quit"))
    if step == "text":
        return step, dice.choice((close_in_text(50), close_in_text(1, reset=True), stall(taken=False)))
    actions = [close(dice.randrange(0, 12)), close(dice.randrange(0, 12), taken=False, reset=True), stall(), say(b"what?\r\n"), drip(0.01)]
    if step != "quit":
        # Who says no has not taken it.
        actions += [say(dice.choice(WAIT)), say_and_close(dice.choice(WAIT)), say("\x1b[1mnot a reply")]
    if step == "dot":
        actions += [say(NEVER), say(NEVER)]
    return step, dice.choice(actions)


class Letters(threading.Thread):
    """Hands messages in; `accepted` is whom each was accepted for."""

    def __init__(self, world, number, seed):
        super().__init__(daemon=True)
        self.world, self.number, self.dice = world, number, random.Random(f"{seed} letters {number}")
        self.accepted, self.unanswered, self.ended, self.trouble, self.count = {}, {}, threading.Event(), None, 0

    def run(self):
        while not self.ended.wait(self.dice.random() * 0.1):
            name = f"f{self.number}-{self.count}"
            self.count += 1
            whom = [f"{self.dice.choice(('yes', 'yes', 'yes', 'no'))}{at}@d{self.dice.randrange(1, DOMAINS + 1)}.example"
                    for at in range(self.dice.choice((1, 1, 2, 5)))]
            wire = None
            try:
                wire = Smtp.tcp(self.world.site.smtp_port)
                wire.hello()
                wire.cmd("MAIL FROM:<ann@example.test>", b"250")
                for recipient in whom:
                    wire.cmd(f"RCPT TO:<{recipient}>", b"250")
                wire.cmd("DATA", b"354")
                self.unanswered[name] = whom
                text = letter(name, self.dice.choice((0, 2_000, 300_000)))
                wire.send(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
                wire.expect(b"250 2.0.0 Accepted")
                self.accepted[name] = self.unanswered.pop(name)
            except (OSError, Failure) as trouble_:
                # Killed. An answer that is none is empty; any other that was not expected is a fault.
                if isinstance(trouble_, Failure) and "[b'']" not in str(trouble_):
                    self.trouble = trouble_
                    return
            finally:
                if wire:
                    wire.close()


@test("fates: whatever hosts, resolver and kills do, each recipient has exactly one outcome", int(110 + 3 * SECS))
def fates(bench):
    seed = os.environ.get("SEED") or str(random.randrange(1_000_000))
    print(f"counted: SEED={seed} repeats the orders")
    dice = random.Random(seed)
    world = World(bench, *(f"127.0.2.{number}" for number in range(1, DOMAINS + 1)))
    domains = {f"d{number}.example": f"127.0.2.{number}" for number in range(1, DOMAINS + 1)}
    for name, address in domains.items():
        world.dns.domain(name, address)
    for at in range(5):
        for name in domains:
            world.sink.at("rcpt", say("550 5.1.1 Nobody"), argument=f"no{at}@{name}")
    streams = [Letters(world, number, seed) for number in range(3)]
    for stream in streams:
        stream.start()
    kills, end = [], time.monotonic() + SECS
    shut, lying, wrongs = set(), set(), 0
    while time.monotonic() < end:
        time.sleep(0.02 + dice.random() * 0.15)
        name, what = dice.choice(sorted(domains)), dice.random()
        wrongs += 1
        if what < 0.5:
            step, action = trouble(dice)
            world.sink.at(step, [action] * dice.choice((1, 1, 2, 5)), domains[name])
        elif what < 0.65:
            (world.sink.open if name in shut else world.sink.shut)(domains[name])
            shut ^= {name}
        elif what < 0.8:
            lie = None if name in lying else dice.choice((dns.silence, dns.servfail, dns.refused, dns.garbage, dns.wrong_id, dns.truncated))
            world.dns.behave(dice.choice((name, f"mx1.{name}")) if lie else name, lie)
            if not lie:
                world.dns.behave(f"mx1.{name}", None)
            lying ^= {name}
        elif what > 0.93:
            os.kill(world.site.process.pid, signal.SIGKILL)
            world.site.process.wait(20)
            kills.append(time.monotonic())
            check("panicked" not in world.site.said(), "a panic:", world.site.said()[-3000:])
            world.site.start(patient=True)
    for stream in streams:
        stream.ended.set()
        stream.join(30)
        check(stream.trouble is None, "a sender:", stream.trouble)
    # All is well again, but for whom there is nobody.
    for name in shut:
        world.sink.open(domains[name])
    world.dns.behaviours.clear()
    with world.sink.lock:
        world.sink.plan = {key: action for key, action in world.sink.plan.items() if key[1] == "rcpt" and isinstance(key[2], str)}
    world.empty(90)
    accepted = {name: whom for stream in streams for name, whom in stream.accepted.items()}
    unanswered = {name: whom for stream in streams for name, whom in stream.unanswered.items()}
    told = {}
    for report in map(Report, world.reports()):
        name = name_of(report.message.as_bytes())
        for group in report.of_each:
            who = (name, group["Final-Recipient"].partition(";")[2].strip())
            same(group["Action"], "failed", f"the report of {who}")
            told[who] = told.get(who, 0) + 1
    copies = {}
    for message in world.sink.taken():
        for recipient, _ in message.recipients:
            copies.setdefault((name_of(message.text), recipient), []).append(message)
    # It says itself when it cannot know: the message went, the answer did not come.
    log = world.site.log()
    admitted = set(re.findall(r"delivery (\S+): (\S+): deferred: .*it may have the message all the same", log))
    doubtful = 0
    for who, messages in copies.items():
        name, recipient = who
        check(recipient in accepted.get(name, ()) or recipient in unanswered.get(name, ()), who, "has what nobody sent him")
        messages.sort(key=lambda message: message.at)
        # More than one, or a report beside it, only where it cannot be known.
        for message in messages[:len(messages) - (who not in told)]:
            ident = re.search(rb"\A.*?\bid ([0-9A-Z]{12})", message.text, re.S)[1].decode()
            unsure = not message.answered or (ident, recipient) in admitted
            # What came before a kill may be read, and answered, after it.
            unsure = unsure or any(abs(kill - message.at) <= NOTED_SECS for kill in kills)
            doubtful += 1
            check(unsure, who, "has", len(messages), "copies and", told.get(who, 0), "reports, and none of it was in doubt")
    for name, whom in accepted.items():
        for recipient in set(whom):
            who = (name, recipient)
            check(who in copies or who in told, who, "has no outcome")
            check(told.get(who, 0) <= 1, who, "is reported", told.get(who), "times")
            check(recipient.startswith("yes") or who not in copies, who, "was refused, and has it")
    for who in told:
        check(who[1] in accepted.get(who[0], ()) or who[1] in unanswered.get(who[0], ()), "a report of what nobody sent:", who)
    print("counted:", json.dumps({"accepted": len(accepted), "unanswered": len(unanswered), "delivered": len(copies), "reported": len(told),
                                  "in_doubt": doubtful, "kills": len(kills), "wrongs": wrongs, "conversations": len(world.sink.talks)}))
    check(len(accepted) > 10 and copies and told, "it went on")
    wait_for("nothing is left over", lambda: not os.listdir(world.site.folder + "/work/incoming")
             if os.path.isdir(world.site.folder + "/work/incoming") else True)
