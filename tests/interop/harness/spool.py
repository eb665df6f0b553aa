"""Spools to be read, and a reader of spools that shares nothing with the server.

The reader begins with Python's `mailbox.mbox`: its table of offsets says where lines begin with `From `. Where Python is
looser than mail programs are, the raw bytes between those offsets decide:

* Python begins a message at every line that starts with `From `. Here a From_ line follows a blank line (or begins the
  file), has a date and at most 1,024 bytes; any other such line belongs to the message before it.
* Python takes off one LF before the next message, but not a CRLF, and also takes off the blank line that ends a header.
  Here one blank line, LF or CRLF, is taken off the end of a body, and never the one that ends the header.

What a POP3 client must get is then that text with every line end (LF or CRLF) as CRLF and, should the last one be
missing, with it.
"""

import mailbox
import os
import re
import time

from .suite import Failure, check

FROM_LINE = re.compile(
    rb"From (?:.*[ \t])?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?[ \t]+(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ \t]+"
    rb"\d{1,2},?[ \t]+\d{1,2}:\d\d(?::\d\d)?(?:[ \t]+\S+){0,2}?[ \t]+\d{4}\b"
)
BLANK = re.compile(rb"(?:\A|(?<=\n))\r?\n")


def raw_messages(path):
    """Each message as it stands in the file: (its From_ line, its text)."""
    box = mailbox.mbox(path, create=False)
    try:
        starts = [box._lookup(key)[0] for key in box.iterkeys()]
    finally:
        box.close()
    with open(path, "rb") as file:
        raw = file.read()
    real = []
    for start in starts:
        line = raw[start : raw.find(b"\n", start) + 1 or len(raw)]
        after_blank = start == 0 or raw[:start].endswith((b"\n\n", b"\n\r\n")) if start < 3 else (
            raw[start - 2 : start] == b"\n\n" or raw[start - 3 : start] == b"\n\r\n")
        if after_blank and len(line) <= 1024 and FROM_LINE.match(line):
            real.append((start, start + len(line)))
    found = []
    for index, (start, text) in enumerate(real):
        end = real[index + 1][0] if index + 1 < len(real) else len(raw)
        body = raw[text:end]
        header_end = BLANK.search(body)
        if header_end:
            for blank in (b"\r\n", b"\n"):
                if body.endswith(b"\n" + blank) and len(body) - len(blank) >= header_end.end():
                    body = body[: -len(blank)]
                    break
        found.append((raw[start:text], body))
    return found


def on_the_wire(text):
    """What RETR gives for a stored text."""
    wire = re.sub(rb"\r?\n", b"\r\n", text)
    return wire if not text or text.endswith(b"\n") else wire + b"\r\n"


def messages(path):
    """What a POP3 client must get for each message of a drop file; none when there is no file."""
    if not os.path.exists(path):
        return []
    return [on_the_wire(text) for _, text in raw_messages(path)]


# ---- making spools ------------------------------------------------------------------------------


def mail(name, body=b"A line.\n", headers=b""):
    """A message as it is stored."""
    return b"From: ann@example.test\nSubject: " + name.encode() + b"\nMessage-ID: <" + name.replace(" ", ".").encode() + (
        b"@example.test>\n") + headers + b"\n" + body


def entry(text, second=0):
    """A message as it stands in a spool: From_ line, text, blank line."""
    line = b"From sender@example.test Mon Jan  5 10:%02d:%02d 2026\n" % (second // 60 % 60, second % 60)
    return line + text + (b"" if text.endswith(b"\n") else b"\n") + b"\n"


def spool(texts):
    return b"".join(entry(text, index) for index, text in enumerate(texts))


def plain(count=5, size=300):
    """Ordinary messages, all different."""
    return [mail(f"plain {n}", b"".join(b"line %d of message %d\n" % (i, n) for i in range(max(1, size // 24))))
            for n in range(count)]


def filler(octets, width=70):
    """Lines of exactly that many octets on the wire, the last line's end included."""
    out = bytearray()
    while octets > 0:
        take = octets if octets < 2 * width else width
        out += b"x" * (take - 2) + b"\n"
        octets -= take
    return bytes(out)


def dots(edges=(16384, 32768, 65536), spread=2, width=70, long_lines=True):
    """Messages with a line that begins with a dot at and around each edge, counted in octets on the wire and, with
    `long_lines`, in bytes of the file."""
    texts = []
    for edge in edges:
        for shift in range(-spread, spread + 1):
            for dot in (b".\n", b"..\n", b".x\n"):
                head = mail(f"dot {edge} {shift} {dot.decode().strip()}", b"")
                room = edge + shift - len(head.replace(b"\n", b"\r\n"))
                texts.append(head + filler(room, width) + dot + b"after\n")
        if not long_lines:
            continue
        # The same edge in the file's own bytes: one line without end, then a dot.
        head = mail(f"dot in the file {edge}", b"")
        texts.append(head + b"y" * (edge - len(head) - 1) + b"\n.\n..\n")
    return texts


def nasty():
    """Small messages of every legitimate kind that has broken some mail program, with lines of at most 1,000 octets, no
    NUL and no bare CR: what every client can carry."""
    eight = bytes(range(128, 256))
    return [
        mail("ordinary"),
        mail("only a dot", b".\n"),
        mail("two dots", b"..\n"),
        mail("dots everywhere", b".\n..\n...\n.a\n..b\n. \n.\n\n.\n"),
        mail("ends in a dot line", b"text\n.\n"),
        mail("ends in blank lines", b"text\n\n\n\n"),
        mail("begins with blank lines", b"\n\n\ntext\n"),
        mail("looks like the end", b"a\r\n.\r\nb\n".replace(b"\r", b"")),
        mail("quoted From", b">From me\n>>From you\nFrom the middle of a paragraph\n\n>From x@y Mon Jan  5 10:00:00 2026\n"),
        mail("From without a date", b"text\n\nFrom now on nothing is a separator\n"),
        mail("empty body", b""),
        mail("8 bit", eight + b"\n" + eight[::-1] + b"\nGr\xc3\xbc\xc3\x9fe\n"),
        mail("status", b"x\n", b"Status: RO\nX-Status: A\nX-UIDL: abc123\nX-UID: 7\nContent-Length: 2\nLines: 1\n"),
        mail("a lie about its length", b"x\n\nThe length was a lie.\n", b"Content-Length: 2\n"),
        mail("folded", b"x\n", b"References: <a@b>\n <c@d>\n\t<e@f>\n"),
        mail("twins", b"We are alike.\n"),
        mail("twins", b"We are alike.\n"),
        mail("twins", b"We are alike.\n"),
        mail("998 octets", b"z" * 998 + b"\n" + b"." * 998 + b"\n"),
        mail("formats", b"%n%n%s%p $(id) `id` ${x}\n", b"X-Format: %n%n%s\n"),
        mail("trailing blanks", b"one \ntwo\t\n   \n"),
        mail("100 kB", b"".join(b"%06d .....................................................\n" % n for n in range(1700))),
    ] + dots(edges=(16384, 32768), spread=1, long_lines=False)


def wild():
    """What is legitimate in a file and more than most clients can carry: NULs, bare CRs, long lines, headers only."""
    return [
        mail("NUL", b"a\0b\n\0\n.\0\n"),
        mail("bare CR", b"a\rb\n\r\r\n.\rx\n\r.\rx\nend\r\n"),
        mail("a line of CRs", b"\r" * 70000 + b"\n"),
        b"Subject: header only\n\n",
        b"\nno header at all\n",
        b".first byte is a dot: yes\n\n.\n",
        b"..: two dots\n\n..\n",
        mail("long", b"L" * 70000 + b"\n." + b"M" * 70000 + b"\n"),
        mail("escapes", b"x\n", b"X-Escape: \x1b[31m \xe2\x80\xae %n%s \x07\n"),
        mail("long header", b"x\n", b"X-Long: " + b"h" * 66000 + b"\n"),
        mail("a thousand headers", b"x\n", b"".join(b"X-H%d: %d\n" % (n, n) for n in range(1000))),
        mail("long From", b"text\n\nFrom " + b"a" * 1100 + b" Mon Jan  5 10:00:00 2026\nno separator: too long\n"),
    ]


def big():
    """A line of 5 MB, and a message of 10 MB whose lines begin with dots."""
    return [
        mail("one line", b"W" * 5_000_000 + b"\nend\n"),
        mail("ten megabytes", b"".join(b".%07d %s\n" % (n, b"v" * 50) for n in range(170_000))),
    ]


def tiny(count=3000):
    return [b"Subject: %d\n\n%d\n" % (n, n) for n in range(count)]


def bare_ends():
    """Spools that end in unusual places, by name: in a From_ line, in a header, in a body."""
    some, line = spool(plain(2)), b"From x@y Mon Jan  5 10:00:00 2026\n"
    return {
        "a header": some + line + b"Subject: no blank line",
        "a header line's end": some + line + b"Subject: no blank line\n",
        "a header's blank line": some + line + b"Subject: header only\n\n",
        "a From line": some + line,
        "a From line without its end": some + line[:-1],
        "a body": some + line + b"Subject: x\n\nno line end",
        "a dot": some + line + b"Subject: x\n\n.",
        "a CR": some + line + b"Subject: x\n\nCR at the end\r",
        "one blank line": some + line + b"Subject: x\n\nbody\n\n",
        "many blank lines": some + line + b"Subject: x\n\nbody\n\n\n\n\n",
        "a preamble before": b"Not a message.\n\n" + some,
        "only a preamble": b"Not a message.\n",
        "nothing": b"",
    }


def crlf(content):
    """A spool with CRLF line ends."""
    return re.sub(rb"\r?\n", b"\r\n", content)


def no_final_newline(content):
    return content.rstrip(b"\n")


# ---- being another mail program -----------------------------------------------------------------


def locked(path, seconds=20):
    """The file as `mailbox.mbox`, locked by fcntl and dotlock as Python does; waits while somebody else has it."""
    end = time.monotonic() + seconds
    while True:
        box = mailbox.mbox(path)
        try:
            box.lock()
            return box
        except mailbox.ExternalClashError:
            box.close()
            if time.monotonic() > end:
                raise Failure(f"{path} stays locked for {seconds} s") from None
            time.sleep(0.01)


def append(path, content):
    """Appends bytes to a drop file under its locks, as a delivering program does."""
    box = locked(path)
    try:
        with open(path, "ab") as file:
            file.write(content)
    finally:
        box.unlock()
        box.close()


def prove_reader(folder):
    """The reader finds exactly what the makers of spools wrote."""
    path = os.path.join(folder, "proof")
    for texts in (nasty(), wild(), dots(), plain(), tiny(50)):
        for content in (spool(texts), crlf(spool(texts)), no_final_newline(spool(texts))):
            with open(path, "wb") as file:
                file.write(content)
            wanted = [on_the_wire(text) for text in texts]
            if content == no_final_newline(spool(texts)):
                wanted[-1] = on_the_wire(texts[-1].rstrip(b"\n"))
            found = messages(path)
            check(len(found) == len(wanted), "the reader finds", len(found), "messages of", len(wanted))
            for index, (one, other) in enumerate(zip(found, wanted)):
                if content.endswith(b"\r\n"):
                    other = re.sub(rb"(?<!\r)\n", b"\r\n", other)
                check(one == other, "the reader errs in message", index + 1, one[:200], other[:200])
