"""A DNS server of the test's own, over UDP and TCP on one port of the loopback. It answers from a dictionary, as a resolver does
that has asked the whole world; `behave` makes it lie, keep silent or talk nonsense about a name.

    dns = Dns()
    dns.mx("there.example", (10, "mx1.there.example"), (20, "mx2.there.example"))
    dns.a("mx1.there.example", "127.0.0.2")
    dns.behave("slow.example", silence)
    dns.behave("odd.example", wrong_id, kind="MX")      # for questions of that kind only

A behaviour is a function of a `Question` that gives the packets to send, whole DNS messages; none is silence. A name that nobody
knows is NXDOMAIN, a known one without that kind NODATA, both with the zone's SOA. `asked` counts questions by (name, kind)."""

import collections
import os
import socket
import struct
import threading
import time

KINDS = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "OPT": 41, "TLSA": 52}
NAMES = {number: name for name, number in KINDS.items()}
#: Over UDP, unless the question's OPT record allows more.
UDP_LIMIT = 512
#: What fits into the length over TCP.
TCP_LIMIT = 0xFFFF
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 0, 1, 2, 3, 5
#: A chain is followed no further in one answer.
CHAIN = 64


def encoded(name):
    """A name as labels."""
    return b"".join(bytes([len(label)]) + label for label in (part.encode("latin-1") for part in name.split(".") if part)) + b"\0"


def pack(kind, data):
    """The data of a record, from what the zone has: an address, a name, (preference, host), text; or bytes, as they are."""
    if isinstance(data, bytes):
        return data
    if kind == "A":
        return socket.inet_aton(data)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, data)
    if kind == "MX":
        return struct.pack(">H", data[0]) + encoded(data[1])
    if kind == "TXT":
        text = data.encode()
        return b"".join(bytes([len(text[at:at + 255])]) + text[at:at + 255] for at in range(0, max(1, len(text)), 255))
    if kind == "SOA":
        primary, minimum = data
        return encoded(primary) + encoded(f"hostmaster.{primary}") + struct.pack(">5I", 1, 3600, 600, 86400, minimum)
    return encoded(data)


def record(name, kind, data, ttl=60):
    data = pack(kind, data)
    return (name if isinstance(name, bytes) else encoded(name)) + struct.pack(">HHIH", KINDS[kind], 1, ttl, len(data)) + data


class Question:
    """What was asked: `name` in lower case, `kind` as a word; and what the zone would answer."""

    def __init__(self, server, raw, tcp, source):
        self.server, self.raw, self.tcp, self.source = server, raw, tcp, source
        self.id, self.flags, count = struct.unpack(">HHH", raw[:6])
        assert count == 1 and not self.flags & 0x8000, raw
        labels, at = [], 12
        while raw[at]:
            labels.append(raw[at + 1:at + 1 + raw[at]])
            at += 1 + raw[at]
        self.as_asked = b".".join(labels).decode("latin-1")
        self.name = self.as_asked.lower()
        number, _ = struct.unpack(">HH", raw[at + 1:at + 5])
        self.kind = NAMES.get(number, str(number))
        self.section = raw[12:at + 5]
        # An OPT record: no name, its class is the size that the asker takes.
        rest = raw[at + 5:]
        self.limit = struct.unpack(">H", rest[3:5])[0] if rest[:3] == b"\0\0\x29" else UDP_LIMIT

    def message(self, code=NOERROR, answers=(), authority=(), more=(), identity=None, section=None, flags=0x8180, counts=None):
        """A whole message; `counts` may lie."""
        section = self.section if section is None else section
        counts = counts or (int(bool(section)), len(answers), len(authority), len(more))
        head = struct.pack(">HHHHHH", self.id if identity is None else identity, flags | code, *counts)
        return head + section + b"".join(answers) + b"".join(authority) + b"".join(more)

    def fitted(self, whole):
        """That message, cut as RFC 1035 has it where it does not fit."""
        if len(whole) <= (TCP_LIMIT if self.tcp else max(self.limit, UDP_LIMIT)):
            return whole
        return self.message(flags=0x8380)

    def answer(self):
        """What the zone says."""
        answers, name = [], self.name
        zone = self.server.zone
        for _ in range(CHAIN):
            kinds = zone.get(name)
            if kinds is None:
                return self.message(NXDOMAIN, answers, [self.server.soa()])
            if self.kind in kinds:
                answers += [record(name, self.kind, data, self.server.ttl) for data in kinds[self.kind]]
                return self.fitted(self.message(answers=answers))
            if "CNAME" not in kinds:
                return self.message(answers=answers, authority=[self.server.soa()])
            answers += [record(name, "CNAME", data, self.server.ttl) for data in kinds["CNAME"]]
            name = kinds["CNAME"][0].lower()
        return self.fitted(self.message(answers=answers))


class Dns:
    """Answers until the process ends. `zone` is name -> kind -> list of data."""

    def __init__(self, address="127.0.0.1", ttl=60, negative=60):
        self.zone, self.behaviours = {}, {}
        self.ttl, self.negative = ttl, negative
        self.asked = collections.Counter()
        self.asked_by_tcp = collections.Counter()
        #: (id, source port) of each question that came by UDP.
        self.idents = []
        self.lock = threading.Lock()
        for _ in range(50):
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind((address, 0))
            self.port = self.udp.getsockname()[1]
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.tcp.bind((address, self.port))
                break
            except OSError:
                self.udp.close()
                self.tcp.close()
        else:
            raise OSError("no port is free for both UDP and TCP")
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.tcp.listen(64)
        self.host = f"{address}:{self.port}"
        for body in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=body, daemon=True).start()

    # ---- the zone ---------------------------------------------------------------------------------

    def add(self, name, kind, *data):
        self.zone.setdefault(name.lower(), {}).setdefault(kind, []).extend(data)

    def put(self, name, kind, *data):
        """These instead of what was there."""
        self.zone.setdefault(name.lower(), {})[kind] = list(data)

    def mx(self, name, *hosts):
        self.put(name, "MX", *hosts)

    def a(self, name, *addresses):
        """Addresses of both kinds."""
        for kind, colon in (("A", False), ("AAAA", True)):
            some = [address for address in addresses if (":" in address) == colon]
            if some:
                self.put(name, kind, *some)

    def cname(self, name, target):
        self.put(name, "CNAME", target)

    def domain(self, name, *addresses):
        """A domain whose hosts have these addresses, preferred in this order."""
        self.mx(name, *((10 * at, f"mx{at}.{name}") for at in range(1, len(addresses) + 1)))
        for at, address in enumerate(addresses, 1):
            self.a(f"mx{at}.{name}", *([address] if isinstance(address, str) else address))

    def forget(self, name):
        self.zone.pop(name.lower(), None)
        self.behave(name, None)

    def behave(self, name, behaviour, kind=None):
        """`name` None: whatever is asked. `behaviour` None: as the zone says."""
        key = (name.lower() if name else None, kind)
        if behaviour is None:
            self.behaviours.pop(key, None)
        else:
            self.behaviours[key] = behaviour

    def soa(self):
        return record("", "SOA", ("ns.example", self.negative), self.negative)

    def count(self, name, kind=None):
        """How often it was asked for that."""
        with self.lock:
            return sum(count for (asked, what), count in self.asked.items() if asked == name and kind in (None, what))

    # ---- the sockets ------------------------------------------------------------------------------

    def packets(self, raw, tcp, source):
        try:
            question = Question(self, raw, tcp, source)
        except (AssertionError, IndexError, struct.error):
            return None, []
        with self.lock:
            self.asked[question.name, question.kind] += 1
            if tcp:
                self.asked_by_tcp[question.name, question.kind] += 1
            else:
                self.idents.append((question.id, source[1]))
        for key in ((question.name, question.kind), (question.name, None), (None, question.kind), (None, None)):
            if key in self.behaviours:
                return question, self.behaviours[key](question)
        return question, [question.answer()]

    def serve_udp(self):
        while True:
            try:
                raw, source = self.udp.recvfrom(4096)
            except OSError:
                return
            _, packets = self.packets(raw, False, source)
            if isinstance(packets, Later):
                timer = threading.Timer(packets.secs, self.send_all, (packets, source))
                timer.daemon = True
                timer.start()
            else:
                self.send_all(packets, source)

    def send_all(self, packets, source):
        for packet in packets:
            try:
                self.udp.sendto(packet, source)
            except OSError:
                pass  # It is gone, or the packet is more than UDP carries.

    def serve_tcp(self):
        while True:
            try:
                sock, source = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(sock, source), daemon=True).start()

    def talk(self, sock, source):
        with sock, sock.makefile("rb") as file:
            try:
                while len(head := file.read(2)) == 2:
                    _, packets = self.packets(file.read(struct.unpack(">H", head)[0]), True, source)
                    if isinstance(packets, Later):
                        time.sleep(packets.secs)
                    for packet in packets:
                        if isinstance(packet, Raw):
                            sock.sendall(packet)
                        else:
                            sock.sendall(struct.pack(">H", len(packet)) + packet)
                    if any(isinstance(packet, Raw) for packet in packets):
                        return
            except OSError:
                pass

    def close(self):
        self.udp.close()
        self.tcp.close()


class Later(list):
    """Packets that are sent after `secs`."""

    def __init__(self, secs, packets):
        super().__init__(packets)
        self.secs = secs


class Raw(bytes):
    """Over TCP: sent as it is, its length not before it; then the connection ends."""


# ---- behaviours ---------------------------------------------------------------------------------


def silence(_):
    return []


def servfail(question):
    return [question.message(SERVFAIL)]


def refused(question):
    return [question.message(REFUSED)]


def nxdomain(question):
    return [question.message(NXDOMAIN, authority=[question.server.soa()])]


def nodata(question):
    return [question.message(authority=[question.server.soa()])]


def truncated(question):
    """Over UDP nothing but the hint to ask by TCP, which answers."""
    return [question.answer() if question.tcp else question.message(flags=0x8380)]


def truncated_always(question):
    return [question.message(flags=0x8380)]


def wrong_id(question):
    return [question.message(answers=forged(question), identity=question.id ^ 0x5555)]


def wrong_question(question):
    """The right id, an answer to something that nobody asked."""
    section = encoded(f"not-{question.name}") + question.section[-4:]
    return [question.message(answers=forged(question), section=section)]


def no_question(question):
    return [question.message(answers=forged(question), section=b"")]


def not_an_answer(question):
    """The question itself, sent back."""
    return [question.raw]


def guessed(count=200):
    """Forged answers with guessed ids before the true one, as who cannot see the question sends them."""

    def behaviour(question):
        others = [identity for identity in range(count) if identity != question.id]
        forgeries = [question.message(answers=forged(question), identity=identity) for identity in others]
        return [*forgeries, question.answer()]

    return behaviour


def poisoned(name, address):
    """The true answer, and behind it an address of a name that nobody asked for, in each section."""

    def behaviour(question):
        extra = [record(name, "A", address, 86_400), record(name, "MX", (1, f"evil.{name}"), 86_400)]
        kinds = question.server.zone.get(question.name, {})
        answers = [record(question.name, question.kind, data) for data in kinds.get(question.kind, ())]
        return [question.message(answers=answers + extra, authority=extra, more=extra)]

    return behaviour


def forged(question):
    """Records that would lead mail to the evil host's address."""
    if question.kind == "MX":
        return [record(question.name, "MX", (1, "evil.example"))]
    return [record(question.name, "A", "127.0.0.66")] if question.kind == "A" else []


def many(make, claimed=None):
    """As many records as a message holds, made by `make(number)` as data of the kind that was asked for; `claimed`: as many as the
    header says there are."""

    def behaviour(question):
        answers, size = [], 12 + len(question.section)
        for number in range(claimed or TCP_LIMIT):
            one = record(b"\xc0\x0c", question.kind, make(number))
            size += len(one)
            if size > TCP_LIMIT:
                break
            answers.append(one)
        counts = (1, claimed, 0, 0) if claimed else None
        whole = question.message(answers=answers, counts=counts)
        return [whole if question.tcp else question.message(flags=0x8380)]

    return behaviour


def many_mx(number):
    """5,000 of these do not fit into a message; about 3,200 do."""
    return struct.pack(">H", number % 100) + bytes([4]) + b"%04x" % number + b"\xc0\x0c"


def chain(length, loop=False):
    """CNAME upon CNAME from the name that was asked, in one answer."""

    def behaviour(question):
        names = [question.name, *(f"c{number}.{question.name}" for number in range(1, length))]
        targets = names[1:] + [question.name if loop else f"end.{question.name}"]
        answers = [record(name, "CNAME", target) for name, target in zip(names, targets)]
        if not loop:
            kinds = question.server.zone.get(question.name, {})
            answers += [record(f"end.{question.name}", question.kind, data) for data in kinds.get(question.kind, ())]
        return [question.fitted(question.message(answers=answers))]

    return behaviour


def garbage(_):
    return [b"", b"\0", os.urandom(11), os.urandom(12), os.urandom(400)]


def right_head(question):
    """The true head and question, then bytes that are no records."""
    return [question.message(answers=[os.urandom(300)], counts=(1, 7, 3, 2))]


def pointer_loop(question):
    """A compressed name that points at itself."""
    at = 12 + len(question.section)
    own = struct.pack(">H", 0xC000 | at)
    return [question.message(answers=[own + struct.pack(">HHIH", KINDS[question.kind], 1, 60, 2) + own])]


def cut_short(question):
    """Half of the true answer."""
    whole = question.answer()
    return [whole[:len(whole) // 2 + 7]]


def cut_stream(question):
    """By TCP: a length, and half of what it promises."""
    if not question.tcp:
        return [question.message(flags=0x8380)]
    whole = question.answer()
    return [Raw(struct.pack(">H", len(whole)) + whole[:len(whole) // 2])]


def no_stream(question):
    """By TCP: nothing; the connection ends."""
    return [Raw(b"") if question.tcp else question.message(flags=0x8380)]


def delayed(secs, then=None):
    def behaviour(question):
        return Later(secs, then(question) if then else [question.answer()])

    return behaviour


def flaky(*behaviours):
    """One after the other, a question each; then as the zone says."""
    left = list(behaviours)

    def behaviour(question):
        return left.pop(0)(question) if left else [question.answer()]

    return behaviour


def huge_text(question):
    """A TXT record as large as a message carries, whatever was asked for."""
    text = b"".join(b"\xff" + b"x" * 255 for _ in range(254))
    whole = question.message(answers=[record(b"\xc0\x0c", "TXT", text)])
    return [whole if question.tcp else question.message(flags=0x8380)]
