"""A server for mail of the test's own, in SMTP or LMTP, which takes all and keeps it byte for byte; `at` makes it misbehave.

    sink = Sink("127.0.0.2", "127.0.0.3")                   # one port on both addresses
    sink.at("greeting", say("421 4.3.2 Not now"), "127.0.0.2")
    sink.at("rcpt", say("550 5.1.1 Nobody"), argument="eve@there.example")
    sink.at("rcpt", say("452 4.5.3 Enough"), argument=3)    # the third of a message
    sink.at("dot", [close(0), close(2)])                    # twice, then as usual

Steps: connect, greeting, ehlo, helo, lhlo, starttls, handshake, auth, mail, rcpt, data, text, dot, rset, noop, quit. An action is a function of the conversation and of the reply that would be said; it gives whether the conversation goes
on. At `connect`, `text` and `handshake` there is no reply: it is empty."""

import base64
import os
import re
import select
import socket
import ssl
import threading
import time

from .suite import check, run

#: What it offers unless told otherwise. A pair of file names (certificate and key) adds STARTTLS.
OFFERS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")
PATH = re.compile(r"(?i)(?:FROM|TO):\s*<([^>]*)>\s*(.*)")
#: Longer commands are nonsense.
COMMAND_LIMIT = 1 << 16

CERTIFICATE = """[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = {first}
[extensions]
basicConstraints = critical,CA:FALSE
subjectAltName = {names}
"""


def certificate(bench, *names):
    """A self-signed one for these names: its file, and its key's."""
    folder = bench.path(f"certificate-{names[0]}")
    os.makedirs(folder, exist_ok=True)
    cert, key, plan = (os.path.join(folder, name) for name in ("cert.pem", "key.pem", "plan"))
    with open(plan, "w", encoding="ascii") as file:
        file.write(CERTIFICATE.format(first=names[0], names=",".join(f"DNS:{name}" for name in names)))
    done = run(["openssl", "req", "-x509", "-config", plan, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "30", "-keyout", key, "-out", cert])
    check(done.returncode == 0, "openssl req:", done.stderr)
    return cert, key


class Message:
    """What came: `sender` and `recipients` as they were said, with their parameters; `text` without its stuffing, lines ended by
    CRLF. `taken`: the sink said yes, or would have; `answered`: all of its answer was sent."""

    def __init__(self, talk):
        self.sender, self.sender_words = None, []
        self.recipients, self.words = [], {}
        self.text, self.raw = b"", b""
        self.address, self.talk, self.number = talk.address, talk, talk.number
        self.tls, self.login = talk.tls, talk.login
        self.taken = self.answered = False
        self.chunked = False
        self.refused = {}
        self.at = None


class Sink:
    """Listens until the process ends, or as long as `shut` does not close an address. `path`: a socket in the file system instead.
    `login`: the user and password that AUTH wants; `wrapped`: TLS from the first octet; `rcpt_max`: more are answered 452."""

    def __init__(self, *addresses, port=0, path=None, offers=OFFERS, tls=None, wrapped=False, lmtp=False, login=None, rcpt_max=None,
                 name="sink.example"):
        self.offers, self.wrapped, self.lmtp = list(offers), wrapped, lmtp
        self.login, self.rcpt_max, self.name = login, rcpt_max, name
        self.plan, self.lock = {}, threading.Lock()
        self.messages, self.talks, self.listeners = [], [], {}
        self.ended = threading.Event()
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        self.port, self.path = port, path
        if path:
            self.open(path)
            return
        for _ in range(50):
            try:
                for address in addresses or ("127.0.0.2",):
                    self.open(address)
                break
            except OSError:
                # Another's port on one of them: all anew.
                for address in list(self.listeners):
                    self.shut(address)
                if port:
                    raise
                self.port = 0
        check(self.listeners, "no port is free on", addresses)

    def open(self, address):
        """Listens there, on the port that all have."""
        if self.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(address)
            os.chmod(address, 0o666)
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, self.port))
            except OSError:
                sock.close()
                raise
            self.port = sock.getsockname()[1]
        sock.listen(256)
        self.listeners[address] = sock
        threading.Thread(target=self.listen, args=(sock, address), daemon=True).start()

    def shut(self, address):
        """Connections to it are refused from now on."""
        sock = self.listeners.pop(address)
        # Closing alone does not wake who waits in accept.
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def listen(self, listener, address):
        while True:
            try:
                sock, source = listener.accept()
            except OSError:
                return
            with self.lock:
                talk = Talk(self, sock, address, source, len(self.talks))
                self.talks.append(talk)
            threading.Thread(target=talk.run, daemon=True).start()

    def at(self, step, action, address=None, argument=None):
        """`action` None: as usual again; a list: one each time, then as usual. `argument`: for this recipient, or the recipient
        of this number."""
        key = (address, step, argument)
        with self.lock:
            if action is None:
                self.plan.pop(key, None)
            else:
                self.plan[key] = list(action) if isinstance(action, (list, tuple)) else action

    def usual(self):
        """No misbehaviour from now on."""
        with self.lock:
            self.plan.clear()

    def action(self, address, step, arguments):
        with self.lock:
            for key in [(where, step, argument) for argument in (*arguments, None) for where in (address, None)]:
                found = self.plan.get(key)
                if isinstance(found, list):
                    if not found:
                        del self.plan[key]
                        continue
                    return found.pop(0)
                if found:
                    return found
        return None

    def taken(self, recipient=None):
        """The messages that it took, for that recipient."""
        return [message for message in list(self.messages) if message.taken and (
            recipient is None or recipient in [address for address, _ in message.recipients])]

    def said(self):
        """All commands of all conversations, in each in its order."""
        return [command for talk in list(self.talks) for command in talk.commands]

    def open_talks(self):
        return [talk for talk in list(self.talks) if not talk.over]

    def most_at_once(self, address=None):
        """How many conversations there were at a time, at most."""
        marks = []
        for talk in list(self.talks):
            if address in (None, talk.address):
                marks += [(talk.began, 1), (talk.ended or time.monotonic(), -1)]
        count = most = 0
        for _, change in sorted(marks):
            count += change
            most = max(most, count)
        return most

    def close(self):
        self.ended.set()
        for address in list(self.listeners):
            self.shut(address)


class Ended(Exception):
    """The conversation is over."""


class Talk:
    """One conversation."""

    def __init__(self, sink, sock, address, source, number):
        self.sink, self.sock, self.address, self.source, self.number = sink, sock, address, source, number
        self.buffer, self.commands = bytearray(), []
        self.tls = sink.wrapped
        self.login = None
        self.greeted_as = None
        self.over, self.ended, self.began = False, None, time.monotonic()
        self.sent = 0  # octets
        self.mail = None
        self.trouble = None
        self.stalled = threading.Event()

    def run(self):
        try:
            if self.sock.family != socket.AF_UNIX:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.sink.wrapped:
                self.wrap()
            self.step("connect", b"")
            self.step("greeting", f"220 {self.sink.name} ESMTP sink".encode() + b"\r\n")
            while True:
                self.command(self.line())
        except (Ended, OSError, ValueError):
            pass
        except Exception as trouble:  # pylint: disable=broad-except
            self.trouble = trouble
        finally:
            self.over, self.ended = True, time.monotonic()
            try:
                self.sock.close()
            except OSError:
                pass

    # ---- octets -----------------------------------------------------------------------------------

    def more(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise Ended
        self.buffer += data

    def line(self):
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > COMMAND_LIMIT:
                raise Ended
            self.more()
        line = bytes(self.buffer[:end + 1])
        del self.buffer[:end + 1]
        return line

    def send(self, data):
        self.sock.sendall(data)
        self.sent += len(data)

    def gone(self, secs):
        """Whether the other side ends the connection within `secs`; what it sends is not read."""
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        end = time.monotonic() + secs
        while not self.sink.ended.is_set():
            left = end - time.monotonic()
            if poll.poll(max(0, min(left, 0.2)) * 1000):
                return True
            if left <= 0:
                return False
        return True

    def wrap(self):
        self.sock = self.sink.tls.wrap_socket(self.sock, server_side=True)
        self.tls = True

    # ---- steps ------------------------------------------------------------------------------------

    def step(self, name, reply, *arguments):
        action = self.sink.action(self.address, name, arguments)
        if action is None:
            if reply:
                self.send(reply)
            return reply
        if not action(self, reply):
            raise Ended
        return getattr(action, "said", reply)

    def say(self, name, text, *arguments):
        """A step whose reply is one line; whether it was a yes."""
        return self.step(name, text.encode() + b"\r\n", *arguments)[:1] in (b"2", b"3")

    def command(self, raw):
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        self.commands.append(line)
        verb, _, rest = line.partition(" ")
        verb = verb.upper()
        if verb in ("EHLO", "LHLO", "HELO"):
            self.hello(verb, rest)
        elif verb == "STARTTLS":
            self.starttls()
        elif verb == "AUTH":
            self.auth(rest)
        elif verb == "MAIL":
            self.sender(rest)
        elif verb == "RCPT":
            self.recipient(rest)
        elif verb == "DATA":
            self.data()
        elif verb == "BDAT" and self.offered("CHUNKING"):
            self.chunk(rest)
        elif verb == "RSET":
            self.mail = None
            self.say("rset", "250 2.0.0 Reset")
        elif verb == "NOOP":
            self.say("noop", "250 2.0.0 Yes")
        elif verb == "QUIT":
            self.say("quit", "221 2.0.0 Bye")
            raise Ended
        else:
            self.send(b"500 5.5.1 What?\r\n")

    def offered(self, name):
        return any(offer.split()[0].upper() == name for offer in self.sink.offers)

    def hello(self, verb, name):
        self.greeted_as, self.mail = name, None
        if verb == "HELO":
            self.say("helo", f"250 {self.sink.name}")
            return
        if (verb == "LHLO") != self.sink.lmtp:
            self.send(b"500 5.5.1 Another protocol is spoken here\r\n")
            return
        lines = [self.sink.name, *self.sink.offers]
        if self.sink.tls and not self.tls:
            lines.append("STARTTLS")
        if self.sink.login:
            lines.append("AUTH PLAIN LOGIN")
        reply = b"".join(f"250{'-' if at < len(lines) else ' '}{line}\r\n".encode() for at, line in enumerate(lines, 1))
        self.step(verb.lower(), reply)

    def starttls(self):
        if not self.sink.tls or self.tls:
            self.send(b"503 5.5.1 Not here\r\n")
        elif self.say("starttls", "220 2.0.0 Go on"):
            self.buffer.clear()
            self.step("handshake", b"")
            self.wrap()
            self.mail = None

    def auth(self, rest):
        if not self.sink.login or self.login:
            self.send(b"503 5.5.1 Not here\r\n")
            return
        mechanism, _, first = rest.partition(" ")

        def more(question):
            self.send(b"334 " + base64.b64encode(question) + b"\r\n")
            return base64.b64decode(self.line())

        if mechanism.upper() == "PLAIN":
            words = (base64.b64decode(first) if first else more(b"")).split(b"\0")[1:]
        else:
            words = [base64.b64decode(first) if first else more(b"Username:"), more(b"Password:")]
        user, password = (word.decode() for word in words)
        good = (user, password) == self.sink.login
        if self.say("auth", "235 2.7.0 Welcome" if good else "535 5.7.8 No") and good:
            self.login = user

    def sender(self, rest):
        path = PATH.fullmatch(rest)
        if not path or self.mail:
            self.send(b"503 5.5.1 Not now\r\n")
        elif self.sink.login and not self.login:
            self.send(b"530 5.7.0 Log in first\r\n")
        elif self.say("mail", "250 2.1.0 Sender", path[1]):
            self.mail = Message(self)
            self.mail.sender, self.mail.sender_words = path[1], path[2].split()

    def recipient(self, rest):
        path = PATH.fullmatch(rest)
        if not path or not self.mail:
            self.send(b"503 5.5.1 No sender\r\n")
            return
        mail = self.mail
        number = len(mail.recipients) + len(mail.refused) + 1
        full = self.sink.rcpt_max is not None and len(mail.recipients) >= self.sink.rcpt_max
        text = "452 4.5.3 Too many recipients" if full else "250 2.1.5 Recipient"
        reply = self.step("rcpt", text.encode() + b"\r\n", path[1], number)
        if reply.startswith(b"2"):
            mail.recipients.append((path[1], path[2].split()))
        else:
            mail.refused[path[1]] = reply

    def data(self):
        if not self.mail or not self.mail.recipients:
            self.send(b"554 5.5.1 Nobody to send it to\r\n")
            self.mail = None
            return
        if not self.say("data", "354 Go on"):
            self.mail = None
            return
        action = self.sink.action(self.address, "text", ())
        if action:
            while len(self.buffer) < getattr(action, "after", 1):
                self.more()
            self.mail.raw = bytes(self.buffer)
            if not action(self, b""):
                raise Ended
        seen = 0
        while not self.buffer.startswith(b".\r\n") and (seen := self.buffer.find(b"\r\n.\r\n", max(0, seen))) < 0:
            seen = len(self.buffer) - 4
            self.more()
        end = 3 if self.buffer.startswith(b".\r\n") else seen + 5
        self.mail.raw = bytes(self.buffer[:end])
        del self.buffer[:end]
        body = self.mail.raw[:-3]
        self.mail.text = re.sub(rb"(?:\A|(?<=\r\n))\.", b"", body)
        self.settle()

    def chunk(self, rest):
        size, _, last = rest.partition(" ")
        while len(self.buffer) < int(size):
            self.more()
        piece = bytes(self.buffer[:int(size)])
        del self.buffer[:int(size)]
        if not self.mail or not self.mail.recipients:
            self.send(b"554 5.5.1 Nobody to send it to\r\n")
            return
        self.mail.chunked = True
        self.mail.text += piece
        if last.upper() == "LAST":
            self.settle()
        else:
            self.send(b"250 2.0.0 More\r\n")

    def settle(self):
        """The message is whole: it is kept before anybody hears of it."""
        mail, self.mail = self.mail, None
        mail.at = time.monotonic()
        answers = mail.recipients if self.sink.lmtp else mail.recipients[:1]
        reply = b"".join(b"250 2.0.0 Taken\r\n" for _ in answers)
        action = self.sink.action(self.address, "dot", [address for address, _ in mail.recipients])
        said = getattr(action, "said", reply)
        mail.taken = getattr(action, "taken", True) and said[:1] == b"2"
        self.sink.messages.append(mail)
        if action is None:
            self.send(reply)
        elif not action(self, reply):
            raise Ended
        mail.answered = True


# ---- actions ------------------------------------------------------------------------------------


def say(text):
    """That instead; a line, or whole lines as bytes."""
    said = text if isinstance(text, bytes) else text.encode() + b"\r\n"

    def action(talk, _):
        talk.send(said)
        return True

    action.said = said
    return action


def say_and_close(text):
    inner = say(text)

    def action(talk, reply):
        inner(talk, reply)
        return False

    action.said = inner.said
    return action


def close(after=0, taken=True, reset=False):
    """The connection ends after so many octets of the usual reply. `taken`: a message was taken all the same."""

    def action(talk, reply):
        talk.send(reply[:after])
        if reset:
            talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False

    action.taken = taken
    return action


def close_in_text(after=1, reset=False):
    """It ends when so many octets of the text are there."""
    action = close(0, False, reset)
    action.after = after
    return action


def stall(after=0, taken=True):
    """So many octets of the usual reply, then nothing, and nothing is read, until the other side goes."""

    def action(talk, reply):
        talk.send(reply[:after])
        talk.stalled.set()
        talk.gone(3600)
        return False

    action.taken = taken
    return action


def answer(text):
    """That to whatever comes first: at `handshake`, to the client's part of it."""

    def action(talk, _):
        talk.more()
        talk.buffer.clear()
        talk.send(text)
        return True

    return action


def hold(event, secs=60):
    """The usual reply as soon as `event` is set."""

    def action(talk, reply):
        talk.stalled.set()
        event.wait(secs)
        talk.send(reply)
        return True

    return action


def drip(secs, octets=1):
    """The usual reply in pieces."""

    def action(talk, reply):
        for at in range(0, len(reply), octets):
            if talk.gone(secs):
                return False
            talk.send(reply[at:at + octets])
        return True

    return action


def flood(head=b"250 ", piece=b"x" * 65_536, tail=b"\r\n", total=1 << 30):
    """A line without an end, or lines, `total` octets of it; the connection stays as long as it is read."""

    def action(talk, _):
        talk.send(head)
        while talk.sent < total:
            talk.send(piece)
        talk.send(tail)
        return True

    action.taken = False
    return action


def lines(count, text=b"250-and another line\r\n", last=b"250 the last\r\n"):
    """A reply of so many lines."""
    return flood(b"", text * min(count, 3000), last, count * len(text))
