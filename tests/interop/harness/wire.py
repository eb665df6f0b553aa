"""Clients of POP3 and of SMTP that look at every byte and forgive nothing."""

import re
import select
import socket
import ssl

from .suite import Failure, check, same

STUFFED = re.compile(rb"(?:\A|(?<=\r\n))\.(.?)", re.S)


def context(cafile):
    """Trusts that certificate and no other, and checks the name in it."""
    return ssl.create_default_context(cafile=cafile)


class Pop:
    """A connection. `tls` is None, "stls" or "tls". A reply that is no line, or a body that is not framed as RFC 1939 says,
    is a Failure."""

    def __init__(self, port, tls=None, cafile=None, timeout=30, greet=True, receive_buffer=None, source=None):
        self.socket = socket.socket()
        if source:
            # All of 127.0.0.0/8 is ours: another client.
            self.socket.bind((source, 0))
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.cafile = cafile
        if tls == "tls":
            self.wrap()
        if greet:
            self.greeting = self.line()
            check(self.greeting.startswith(b"+OK"), "greeting:", self.greeting)
        if tls == "stls":
            self.stls()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wrap(self):
        check(not self.buffer, "bytes in clear after the reply to STLS:", bytes(self.buffer))
        self.socket = context(self.cafile).wrap_socket(self.socket, server_hostname="localhost")

    def stls(self):
        self.ok("STLS")
        self.wrap()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, (bytes, bytearray)) else data.encode())

    def more(self):
        """Reads what comes next into the buffer; False at the end."""
        data = self.socket.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def line(self):
        """The next line, without its CRLF. EOFError when the connection ends first."""
        seen = 0
        while (end := self.buffer.find(b"\n", seen)) < 0:
            seen = len(self.buffer)
            check(seen < 1 << 20, "a reply line of over a megabyte")
            if not self.more():
                raise EOFError(f"the connection ended; left over: {bytes(self.buffer)!r}")
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        check(line.endswith(b"\r\n"), "a reply line without CRLF:", line)
        return line[:-2]

    def cmd(self, command):
        self.send((command if isinstance(command, bytes) else command.encode()) + b"\r\n")
        return self.line()

    def ok(self, command):
        reply = self.cmd(command)
        check(reply.startswith(b"+OK"), command, "was answered", reply)
        return reply

    def err(self, command, code=None):
        reply = self.cmd(command)
        check(reply.startswith(b"-ERR"), command, "was answered", reply)
        if code:
            check(reply.startswith(b"-ERR [" + code.encode() + b"] "), command, "should be", code, "but was", reply)
        return reply

    def body_lines(self):
        """The rest of a multi-line reply as it came, without the final dot; EOFError when it ends without one."""
        if self.buffer.startswith(b".\r\n"):
            del self.buffer[:3]
            return b""
        seen = 0
        while (end := self.buffer.find(b"\r\n.\r\n", max(0, seen - 5))) < 0:
            seen = len(self.buffer)
            if not self.more():
                raise EOFError(f"the connection ended in a body after {seen} bytes")
            if self.buffer.startswith(b".\r\n"):
                del self.buffer[:3]
                return b""
        raw = bytes(self.buffer[: end + 2])
        del self.buffer[: end + 5]
        return raw

    def body(self):
        """The rest of a multi-line reply, un-stuffed."""
        raw = self.body_lines()

        def undo(match):
            check(match[1] == b".", "a line that begins with a dot was not stuffed:", raw[match.start():match.start() + 40])
            return b"."

        return STUFFED.sub(undo, raw)

    def multi(self, command):
        """The rows of a multi-line reply."""
        self.ok(command)
        raw = self.body()
        return raw[:-2].split(b"\r\n") if raw else []

    def fetch(self, command):
        """The body of RETR or TOP, and the octets its first line claims."""
        reply = self.ok(command)
        claimed = re.match(rb"\+OK (\d+) octets", reply)
        return self.body(), int(claimed[1]) if claimed else None

    def retr(self, number):
        body, _ = self.fetch(f"RETR {number}")
        return body

    def login(self, user="ann", password="secret"):
        self.ok(f"USER {user}")
        return self.ok(f"PASS {password}")

    def stat(self):
        _, messages, octets = self.ok("STAT").split()[:3]
        return int(messages), int(octets)

    def list(self):
        return {int(number): int(octets) for number, octets in (row.split() for row in self.multi("LIST"))}

    def uidl(self):
        return {int(number): uid for number, uid in (row.split() for row in self.multi("UIDL"))}

    def everything(self):
        """All messages, in order."""
        return [self.retr(number) for number in sorted(self.list())]

    def quit(self):
        reply = self.ok("QUIT")
        self.eof()
        return reply

    def eof(self):
        """Nothing more comes and the connection ends; a reset is an end too."""
        try:
            while self.more():
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        rest = bytes(self.buffer)
        check(not rest, "bytes after the last reply:", rest)
        self.close()

    def rest(self):
        """All that comes until the connection ends."""
        try:
            while self.more():
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        rest = bytes(self.buffer)
        self.buffer.clear()
        return rest

    def quiet(self, seconds=0.2):
        """Nothing has come after that long. Only where a silence is what the test is about."""
        readable, _, _ = select.select([self.socket], [], [], seconds)
        if readable:
            self.more()
        if self.buffer:
            raise Failure(f"unexpected: {bytes(self.buffer)!r}")

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass

    def reset(self):
        """Ends the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


ENHANCED = re.compile(rb"([245])\.\d{1,3}\.\d{1,3} [!-~]")


class Smtp:
    """One conversation in SMTP or LMTP, line by line, over whatever socket. Of every reply it is checked that it is one, and that
    it has an enhanced code of its code's class (RFC 2034), where it is not the greeting, the answer to EHLO, or a "go on"."""

    def __init__(self, sock, greeting=b"220", timeout=20):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.file = sock.makefile("rb")
        self.host = None
        said = self.expect(greeting)[0]
        self.host = said.split()[1]

    @classmethod
    def tcp(cls, port, greeting=b"220", source=None, timeout=20):
        sock = socket.create_connection(("127.0.0.1", port), source_address=(source, 0) if source else None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock, greeting, timeout)

    def reply(self):
        """The lines of one reply without their ends; one that is empty when the connection has ended."""
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return [b""]
            check(re.match(rb"[2-5]\d\d[ -][ -~]*\r\n\Z", line) and len(line) <= 512, "a reply:", line)
            lines.append(line[:-2])
            check(line[:3] == lines[0][:3], "one code in all lines of a reply:", lines)
            self.judge(line)
            if line[3:4] == b" ":
                return lines

    def judge(self, line):
        text = line[4:]
        own = self.host is None and line.startswith(b"220") or line[:1] == b"3" or line.startswith(b"250") and self.introduces(text)
        found = ENHANCED.match(text)
        check(own or found and found[1] == line[:1], "the enhanced code of", line)

    def introduces(self, text):
        """Whether it is of the answer to EHLO."""
        return text.split()[0] in (self.host, b"PIPELINING", b"SIZE", b"STARTTLS", b"AUTH", b"8BITMIME", b"SMTPUTF8", b"DSN",
                                   b"ENHANCEDSTATUSCODES")

    def expect(self, begins):
        reply = self.reply()
        check(reply[-1].startswith(begins), "expected", begins, "and got", reply)
        return reply

    def send(self, raw):
        self.sock.sendall(raw)

    def cmd(self, line, begins):
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return self.expect(begins)

    def hello(self, verb="EHLO"):
        return self.cmd(f"{verb} client.example.org", b"250")

    def starttls(self, cafile):
        self.cmd("STARTTLS", b"220 2.0.0")
        self.sock = context(cafile).wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")

    def begin(self, sender="a@b.example", *recipients):
        """Up to where the text of a message is sent."""
        self.cmd(f"MAIL FROM:<{sender}>", b"250")
        for recipient in recipients or ("ann@example.test",):
            self.cmd(f"RCPT TO:<{recipient}>", b"250")
        self.cmd("DATA", b"354")

    def ended(self):
        """Nothing more comes; a reset is an end too."""
        try:
            rest = self.file.readline()
        except ConnectionError:
            rest = b""
        same(rest, b"", "the end of the connection")
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()
