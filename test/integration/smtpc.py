# SPDX-License-Identifier: MIT
"""An SMTP client without manners: sends exactly the octets it is told to, and reads replies strictly."""

import base64
import re
import socket
import ssl
import struct

from tools import PATIENCE


class Reply:
    def __init__(self, raw):
        self.raw = raw
        self.lines = [line[4:].decode("utf-8", "surrogateescape") for line in raw.split(b"\r\n")[:-1]]
        self.code = int(raw[:3])
        self.text = "\n".join(self.lines)
        m = re.match(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)", self.lines[0])
        self.enhanced = m.group(1) if m else None

    def __eq__(self, code):
        return self.code == code

    def __repr__(self):
        return repr(self.raw)


class Closed(Exception):
    """The server closed the connection where a reply was due."""


class Client:
    """
    A connection to `address`, from `source` if given. `tls` "implicit": TLS first. `hello`: the greeting is read at once.
    """

    def __init__(self, address, source=None, tls=None, context=None, hello=True, name="mail.example.net"):
        self.context, self.name = context, name  # an SSLContext, or a function that makes one
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(address)
        self.source, self.port = self.sock.getsockname()[:2]
        self.buffer = b""
        self.greeting = None
        if tls == "implicit":
            self.wrap()
        if hello:
            self.greeting = self.reply()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- octets

    def wrap(self, context=None, session=None):
        context = context or self.context
        context = context() if callable(context) else context
        self.sock = context.wrap_socket(self.sock, server_hostname=self.name, session=session, suppress_ragged_eofs=True)

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def more(self):
        """Read something; False at the end of the connection."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            data = b""
        self.buffer += data
        return bool(data)

    def line(self):
        while b"\n" not in self.buffer:
            if not self.more():
                raise Closed(self.buffer)
        line, self.buffer = self.buffer.split(b"\n", 1)
        line += b"\n"
        assert line.endswith(b"\r\n") and b"\r" not in line[:-2], "reply line end: %r" % line
        assert len(line) <= 512, "reply line of %d octets" % len(line)
        return line

    def reply(self, expect=None):
        raw = b""
        while True:
            line = self.line()
            assert re.match(rb"[2-5][0-9][0-9][ -]", line), "not a reply line: %r" % line
            assert not raw or raw[:3] == line[:3], "reply code changes within a reply: %r %r" % (raw, line)
            assert re.fullmatch(rb"[\t\x20-\x7e]*\r\n", line), "reply text: %r" % line
            raw += line
            if line[3:4] == b" ":
                break
        r = Reply(raw)
        assert r.code != 521, "RFC 6409 forbids 521"
        check(r, expect)
        return r

    def rest(self):
        """Everything that still comes until the server closes."""
        while self.more():
            pass
        out, self.buffer = self.buffer, b""
        return out

    def closed(self):
        """The server closes without a further octet."""
        rest = self.rest()
        assert rest == b"", "came after the last reply: %r" % rest

    def silent(self, seconds=0.15):
        """Nothing comes for a while."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(4096)
        except (socket.timeout, ssl.SSLWantReadError):
            return
        finally:
            self.sock.settimeout(PATIENCE)
        raise AssertionError("unexpected: %r" % data)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def reset(self):
        """Close with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # ---- commands

    def cmd(self, line, expect=None):
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply(expect)

    def ehlo(self, name="client.example"):
        """EHLO; returns {keyword: parameters}."""
        r = self.cmd("EHLO " + name, 250)
        return {words[0]: words[1:] for words in (line.split(" ") for line in r.lines[1:])}

    def starttls(self, context=None, session=None):
        self.cmd("STARTTLS", 220)
        assert self.buffer == b""
        self.wrap(context, session)

    def auth_plain(self, user, password, expect=235, authzid=""):
        return self.cmd("AUTH PLAIN " + b64("%s\0%s\0%s" % (authzid, user, password)), expect)

    def auth_login(self, user, password, expect=235):
        assert self.cmd("AUTH LOGIN", 334).raw == b"334 VXNlcm5hbWU6\r\n"
        assert self.cmd(b64(user), 334).raw == b"334 UGFzc3dvcmQ6\r\n"
        return self.cmd(b64(password), expect)

    def envelope(self, sender="me@client.example", rcpts=("you@far.example",), params=""):
        self.cmd("MAIL FROM:<%s>%s" % (sender, params), 250)
        for rcpt in rcpts:
            self.cmd("RCPT TO:<%s>" % rcpt, 250)

    def data(self, message, expect=250):
        """DATA with a message in wire form, without the final dot."""
        self.cmd("DATA", 354)
        self.send(message + b".\r\n")
        return self.reply(expect)

    def mail(self, message=None, sender="me@client.example", rcpts=("you@far.example",), expect=250, params=""):
        self.envelope(sender, rcpts, params)
        return self.data(MESSAGE if message is None else message, expect)

    def quit(self):
        self.cmd("QUIT", 221)
        self.closed()
        self.close()


def check(reply, expect):
    if expect is not None:
        allowed = (expect,) if isinstance(expect, int) else tuple(expect)
        assert reply.code in allowed, "wanted %s, got %r" % (allowed, reply.raw)


def b64(text):
    return base64.b64encode(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text).decode()


def queue_id(reply):
    """qid, qp and time from the reply to a message."""
    m = re.fullmatch(r"2\.0\.0 ok (\d+) qp (\d+) id (\d+)", reply.text)
    assert m, "reply to a message: %r" % reply.text
    return int(m.group(3)), int(m.group(2)), int(m.group(1))


# A message that lacks nothing, in wire form and as it is stored.
MESSAGE = (b"From: Me <me@client.example>\r\nTo: you@far.example\r\nSubject: a test\r\n"
           b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.example>\r\n\r\nHello.\r\n")


def stored(message):
    """A message in wire form (dots stuffed, without the final dot) as it must come out of the queue."""
    assert message.endswith(b"\r\n") or not message
    lines = message.split(b"\r\n")[:-1]
    return b"".join((x[1:] if x[:1] == b"." else x) + b"\n" for x in lines)


def stuff(message):
    """Dot-stuff a message in CRLF form."""
    return b"".join((b"." + x if x[:1] == b"." else x) for x in message.splitlines(keepends=True))
