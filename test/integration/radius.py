# SPDX-License-Identifier: MIT
"""The other side of the login: a private FreeRADIUS, and a double that can lie in every way a real server does not."""

import hashlib
import hmac
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import threading

import tools

SO_TIMESTAMPNS = 35  # not in the socket module

SECRET = "tWo-pEnny-stile-0123456789"

ACCESS_REQUEST, ACCEPT, REJECT, CHALLENGE = 1, 2, 3, 11
USER_NAME, USER_PASSWORD, NAS_IP, NAS_PORT, SERVICE_TYPE = 1, 2, 4, 5, 6
REPLY_MESSAGE, STATE, CLASS, CALLED, CALLING, NAS_ID = 18, 24, 25, 30, 31, 32
SESSION_ID, NAS_PORT_TYPE, MESSAGE_AUTHENTICATOR = 44, 61, 80

# name: (password, reply attributes in the syntax of FreeRADIUS's users file)
USERS = {
    "alice": ("wonder land", []),
    "carol": ("carol-pw", ["Service-Type := Login-User"]),
    "dave": ("dave-pw", ["Service-Type := Framed-User"]),
    "adam": ("adam-pw", ["Service-Type := Administrative-User"]),
    "eve": ("eve-pw", ["Service-Type := 200"]),
    "grace": ("grace-pw", ['Reply-Message := "hello"', 'Reply-Message += "ev=auth result=accept"',
                           "Class := 0x0102030405", "Session-Timeout := 600", 'Filter-Id := "mail"',
                           "Service-Type := Login-User"]),
    "jürgen": ("pässwörd€", []),
    "frank@isp.example": ("frank-pw", []),
}
for _n in (1, 16, 17, 112, 113, 128):
    USERS["len%d" % _n] = ("x" * (_n - 1) + "y", [])
PASSWORD = {name: password for name, (password, _) in USERS.items()}
# "bob" is always refused; "chloe" is asked for a token.


def users_file(users):
    out = ["bob\tAuth-Type := Reject\n\tReply-Message := \"account closed\"\n"]
    for name, (password, replies) in users.items():
        out.append('"%s"\tCleartext-Password := "%s"\n%s\n' % (name, password, ",\n".join("\t" + r for r in replies)))
    return "".join(out)


class Daemon:
    """A FreeRADIUS in self.dir, with its output in self.log."""

    new_session = False
    process = None

    def start(self):
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(["freeradius", "-f", "-l", "stdout", "-d", self.dir],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=self.new_session)
        tools.poll(self._ready, "FreeRADIUS")

    def _ready(self):
        text = tools.read(self.log)
        assert self.process.poll() is None, text.decode("utf-8", "replace")
        return b"Ready to process requests" in text

    def stop(self):
        self.process.kill()  # asked to end, it takes some seconds
        self.process.wait(20)


def detail(path):
    """The records of FreeRADIUS's file of that kind, each a list of (attribute, value), oldest first."""
    try:
        text = tools.read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    records = text.split("\n\n")[:-1]  # behind the last empty line is one that is being written
    pairs = [[line.strip().split(" = ", 1) for line in r.splitlines()[1:]] for r in records]
    return [[(k, re.sub(r"\\(.)", r"\1", v[1:-1]) if v[:1] == '"' else v) for k, v in r] for r in pairs]


class FreeRadius(Daemon):
    """FreeRADIUS in a directory of its own: `port` signs its replies, `unsigned` is a server older than 2024."""

    def __init__(self, work, name="raddb", users=None):
        self.dir = os.path.join(work, name)
        os.mkdir(self.dir, 0o700)
        self.port = tools.free_port(socket.SOCK_DGRAM)
        self.unsigned = tools.free_port(socket.SOCK_DGRAM)
        text = tools.read(os.path.join(tools.FIXTURES, "raddb", "radiusd.conf")).decode()
        for word, value in (("DIR", self.dir), ("SECRET", SECRET), ("PORT", self.port), ("UNSIGNED", self.unsigned)):
            text = text.replace("@%s@" % word, str(value))
        tools.write(os.path.join(self.dir, "radiusd.conf"), text)
        tools.write(os.path.join(self.dir, "users"), users_file(users or USERS))
        shutil.copy(os.path.join(tools.TREE, "contrib/freeradius/dictionary.mailstile"), os.path.join(self.dir, "dictionary"))
        self.log = os.path.join(self.dir, "out")
        self.start()

    def requests(self, calling=None):
        """What arrived, as a list of {attribute: value}; only from one Calling-Station-Id if given."""
        out = []
        for pairs in map(dict, detail(os.path.join(self.dir, "seen"))):
            if pairs and calling in (None, pairs.get("Calling-Station-Id")):
                out.append(pairs)
        return out


class Request:
    """An Access-Request as it came."""

    def __init__(self, raw, address, secret, when):
        self.raw, self.address, self.secret = raw, address, secret.encode()
        self.time = when
        self.code, self.id, length = struct.unpack("!BBH", raw[:4])
        assert length == len(raw) <= 4096, "length field"
        self.authenticator = raw[4:20]
        self.attributes = split_attributes(raw[20:])

    def get(self, kind):
        return [value for k, value in self.attributes if k == kind]

    @property
    def password(self):
        """RFC 2865 5.2, undone."""
        (hidden,) = self.get(USER_PASSWORD)
        assert 16 <= len(hidden) <= 128 and len(hidden) % 16 == 0
        out, last = b"", self.authenticator
        for i in range(0, len(hidden), 16):
            pad = hashlib.md5(self.secret + last).digest()
            last = hidden[i:i + 16]
            out += bytes(a ^ b for a, b in zip(last, pad))
        return out.rstrip(b"\0")

    def signature_fits(self):
        (value,) = self.get(MESSAGE_AUTHENTICATOR)
        zeroed = self.raw.replace(b"\x50\x12" + value, b"\x50\x12" + bytes(16))
        return hmac.compare_digest(hmac.new(self.secret, zeroed, "md5").digest(), value)

    def reply(self, code, attributes=(), signed=True, secret=None, ident=None, authenticator=None, signature=None,
              first=True, request_authenticator=None):
        """
        A reply to this request, right unless told otherwise: `signed` False leaves Message-Authenticator out, `first` False
        puts it last, `signature` and `authenticator` replace the computed values.
        """
        secret = self.secret if secret is None else secret.encode()
        salt = self.authenticator if request_authenticator is None else request_authenticator
        blank = [(MESSAGE_AUTHENTICATOR, bytes(16))] if signed else []
        items = blank + list(attributes) if first else list(attributes) + blank
        body = b"".join(bytes([k, len(v) + 2]) + v for k, v in items)
        head = struct.pack("!BBH", code, self.id if ident is None else ident, 20 + len(body))
        if signed:
            right = hmac.new(secret, head + salt + body, "md5").digest()
            body = body.replace(b"\x50\x12" + bytes(16), b"\x50\x12" + (right if signature is None else signature))
        right = hashlib.md5(head + salt + body + secret).digest()
        return head + (right if authenticator is None else authenticator) + body


def split_attributes(data):
    out = []
    while data:
        kind, length = data[0], data[1]
        assert 2 < length <= len(data), "attribute length"
        out.append((kind, data[2:length]))
        data = data[length:]
    return out


class Double:
    """
    A RADIUS server on a port of its own. `answer(request, double)` returns None, a packet or a list of packets. A packet may
    be a pair (socket, octets), to be sent from elsewhere. Requests are kept in `requests`.
    """

    def __init__(self, answer=None, secret=SECRET, host="127.0.0.1"):
        self.secret, self.answer = secret, answer
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        # The kernel notes when a packet came; a busy machine may run this thread much later.
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.bind((host, 0))
        self.port = self.sock.getsockname()[1]
        self.address = "[%s]:%d" % (host, self.port) if ":" in host else "%s:%d" % (host, self.port)
        self.other = socket.socket(self.sock.family, socket.SOCK_DGRAM)
        self.other.bind((host, 0))
        self.requests, self.faults = [], []
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            ready = select.select([self.sock, self._stop_r], [], [])[0]
            if self._stop_r in ready:
                return
            raw, notes, _, address = self.sock.recvmsg(8192, 256)
            (when,) = [struct.unpack("@ll", d) for level, kind, d in notes if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)]
            try:
                self._one(Request(raw, address, self.secret, when[0] + when[1] / 1e9))
            except Exception as e:  # pylint: disable=broad-except
                self.faults.append(e)

    def _one(self, request):
        self.requests.append(request)
        out = self.answer(request, self) if self.answer else None
        for item in out if isinstance(out, list) else [out]:
            if isinstance(item, tuple):
                item[0].sendto(item[1], request.address)
            elif item is not None:
                self.sock.sendto(item, request.address)

    def line(self, words="1 0", secret=None):
        """This server's line for radius.conf."""
        return "%s %s %s\n" % (self.address, secret or self.secret, words)

    def stop(self):
        os.write(self._stop_w, b"x")
        self._thread.join(10)
        for f in (self.sock, self.other):
            f.close()
        os.close(self._stop_r)
        os.close(self._stop_w)
        assert not self.faults, self.faults


def accept(request, _=None):
    return request.reply(ACCEPT)


def reject(request, _=None):
    return request.reply(REJECT)
