# SPDX-License-Identifier: MIT
"""The client of test/hostile/hostile.c: an smtp process, or a warden, that was taken over by who writes the tests."""

import errno
import functools
import os
import re
import select
import socket
import struct
import subprocess
import time

import tools

NET = 66
LISTEN = {"smtp": "smtp 127.0.0.1:{}", "submission": "submission 127.0.0.1:{}", "submissions": "submissions 127.0.0.1:{}",
          "inside": "inside 127.0.0.1:{}", "printer": "inside 127.0.0.1:{} from=printer@example.net"}
PAINT = b"\xa5" * 4


def build(tree):
    """Its path, made in the tree."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
    tools.run("make", "-s", "hostile", cwd=tree, env=env, timeout=300)
    return os.path.join(tree, "build/host/mailstile-hostile")


@functools.lru_cache(None)
def calls():
    """{name: number} of this machine's system calls."""
    text = subprocess.run(["gcc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"], check=True, stdout=subprocess.PIPE).stdout
    out = {m.group(1): int(m.group(2)) for m in re.finditer(r"#define __NR_(\w+) (\d+)", text.decode())}
    assert out["read"] >= 0 and len(out) > 200
    return out


class Facts:
    """Numbers and layouts of msg.h, as the program knows them: facts["MSG_AUTH"], facts.size("msg_auth")."""

    def __init__(self, text):
        self.value, self.extent = {}, {}
        for line in text.decode().splitlines():
            name, value, size = line.rsplit(" ", 2)
            self.value[name], self.extent[name] = int(value), int(size)
        self.requests = {n: "msg_" + n[4:].lower() for n in self.value if n.startswith("MSG_") and n != "MSG_COUNT"}
        self.requests.update(MSG_TLSPUT="msg_tlssession", MSG_RESET="msg_simple")

    def __getitem__(self, name):
        return self.value[name]

    def size(self, struct_name):
        return self.value["sizeof " + struct_name]

    def build(self, struct_name, **fields):
        """A message; what is not named is zero. A text's `len` is its own unless it is given."""
        out = bytearray(self.size(struct_name))
        for field, value in fields.items():
            at, size = self.value[struct_name + "." + field], self.extent[struct_name + "." + field]
            data = value if isinstance(value, bytes) else (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            assert len(data) <= size
            out[at:at + len(data)] = data
        return bytes(out)

    def request(self, name, **fields):
        return self.build(self.requests[name], type=self.value[name], **fields)

    def read(self, struct_name, data):
        """Its fields. It must be of the right length, and what is in no field must be zero."""
        assert len(data) == self.size(struct_name), "%s: %r" % (struct_name, data)
        out = {}
        for name, at in self.value.items():
            if name.startswith(struct_name + "."):
                size = self.extent[name]
                raw = data[at:at + size]
                out[name.split(".")[1]] = int.from_bytes(raw, "little") if size <= 8 else raw
        assert self.build(struct_name, **out) == data, "octets that nobody set: %r" % data
        return out

    # ---- requests, good in themselves

    def sign(self, hash_id=4, digest=bytes(32)):
        return self.request("MSG_SIGN", hash_id=hash_id, len=len(digest), hash=digest)

    def auth(self, user, password, mechanism=1):
        user, password = user.encode(), password.encode()
        return self.request("MSG_AUTH", user_len=len(user), pass_len=len(password), mechanism=mechanism, user=user, **{"pass": password})

    def mail(self, addr="me@client.example", size=0):
        return self.request("MSG_MAIL", len=len(addr), size=size, addr=addr.encode())

    def rcpt(self, addr="you@local.example"):
        return self.request("MSG_RCPT", len=len(addr), addr=addr.encode())

    def data(self, helo=b"client.example"):
        return self.request("MSG_DATA", helo_len=len(helo), esmtp=1, helo=helo)

    def commit(self, octets=0):
        return self.request("MSG_COMMIT", octets=octets)

    def reset(self):
        return self.request("MSG_RESET")

    def note(self, kind, number=0):
        return self.request("MSG_NOTE", kind=kind, number=number)

    def good(self, name):
        """One of each, by the name of its type."""
        return {"MSG_SIGN": self.sign, "MSG_MAIL": self.mail, "MSG_RCPT": self.rcpt, "MSG_DATA": self.data,
                "MSG_AUTH": lambda: self.auth("alice", "wonder land"), "MSG_NOTE": lambda: self.note(self["NOTE_LOOP"])}.get(
                    name, lambda: self.request(name))()


class Gone(Exception):
    """The process has ended, or the warden has."""


class Hostile:
    """
    A session whose smtp process obeys. Every octet that comes from a warden is searched for `needles`, which nobody may tell.
    """

    needles = {"the stack or the heap": PAINT}
    facts = None

    def __init__(self, server, profile="smtp", source=None):
        self.server = server
        self.sock = socket.socket()
        self.sock.settimeout(tools.PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((source or tools.fresh_address(NET), 0))
        self.sock.connect(("127.0.0.1", server.port[profile]))
        self.source, self.port = self.sock.getsockname()
        self.buffer = b""
        self.heard = []  # what came from the warden: (octets, descriptor)
        self.over = False  # the warden is gone
        self.where = None
        if Hostile.facts is None:
            self.put("x", b"H")
            Hostile.facts = Facts(self.take("x")[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    # ---- records

    def record(self, kind, payload=b"", descriptors=0, fd=0):
        return struct.pack("<IBBBB", len(payload), ord(kind), descriptors, fd, 0) + payload

    def put(self, kind, payload=b"", descriptors=0, fd=0):
        try:
            self.sock.sendall(self.record(kind, payload, descriptors, fd))
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Gone from e

    def more(self):
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Gone
        self.buffer += data

    def parse(self):
        """The next record, or None: (kind, octets, descriptor)."""
        if len(self.buffer) < 8:
            return None
        size, kind, fd = struct.unpack_from("<IBB", self.buffer)
        if len(self.buffer) < 8 + size:
            return None
        payload, self.buffer = self.buffer[8:8 + size], self.buffer[8 + size:]
        if chr(kind) == "m":
            for name, needle in self.needles.items():
                assert needle not in payload, "%s in %r" % (name, payload)
        return chr(kind), payload, fd - 1

    def take(self, kind):
        """The next record of this kind; messages are kept meanwhile. Gone if the warden is, or the process."""
        while True:
            record = self.parse()
            if record is None:
                self.more()
            elif record[0] == kind:
                return record[1:]
            elif record[0] == "m":
                self.heard.append(record[1:])
            elif record[0] == "E":
                self.over = True
                if kind == "m":
                    raise Gone
            else:
                raise AssertionError("unexpected: %r" % (record,))

    # ---- the conversation with the warden

    def say(self, message, descriptors=0, fd=0):
        self.put("m", message, descriptors, fd)

    def hand_over(self, message, count, fd):
        """A message with descriptors. All smtp processes together may have so many on their way; then it is tried again."""
        end = time.monotonic() + tools.PATIENCE
        try:
            while time.monotonic() < end:
                self.say(message, count, fd)
                self.put("x", system_call("gettimeofday", 0, 0))
                result = struct.unpack("<q", self.take("x")[0])[0]
                if result != -errno.ETOOMANYREFS:
                    return
                self.take("x")
                time.sleep(0.01)
        except Gone:
            return
        raise AssertionError("too many descriptors on their way, for ever")

    def hear(self):
        """The next message from the warden; Gone if there is none to come."""
        return self.heard.pop(0) if self.heard else self.take("m")

    def ask(self, message):
        """One question, one answer: (octets, descriptor)."""
        self.say(message)
        return self.hear()

    def verdict(self, message):
        """The verdict on one request."""
        data, fd = self.ask(message)
        answer = self.facts.read("msg_verdict", data)
        assert answer["type"] == struct.unpack_from("<I", message)[0]
        assert (fd != -1) == (answer["type"] == self.facts["MSG_DATA"] and answer["verdict"] == self.facts["V_OK"])
        return answer["verdict"]

    def settle(self):
        """Say that there is no more, and hear the rest. The warden then goes; returns its messages."""
        self.put("e")
        out, self.heard = self.heard, []
        try:
            while True:
                out.append(self.take("m"))
        except Gone:
            self.over = True
            return out

    def ended(self):
        """The warden is gone, without another word. What became of calls and of messages that came too late does not matter."""
        assert not self.heard, self.heard
        try:
            while not self.over:
                record = self.parse()
                if record is None:
                    self.more()
                elif record[0] == "E":
                    self.over = True
                else:
                    assert record[0] == "x", "an answer, not the end: %r" % (record,)
        except Gone:
            pass
        return True

    def write(self, data, fd=4):
        """Into the message file. What write() says of it."""
        self.execute(b"w" + struct.pack("<Q", 0) + data)
        return self.call("write", fd, self.scratch, len(data))

    # ---- taking the process, or its warden, over

    @property
    def scratch(self):
        """Where in the memory of this process, and of its warden; elsewhere after the server has started over."""
        if self.where is None:
            self.where = Facts(self.execute(b"H"))["scratch"]
        return self.where

    def execute(self, command):
        self.put("x", command)
        data, _ = self.take("x")
        return data

    def call(self, name, *args):
        """A system call of the smtp process: its result, negative for an error. Gone if that was its end."""
        return struct.unpack("<q", self.execute(system_call(name, *args)))[0]

    def poke(self, data, at=0):
        """Put octets into the memory of the smtp process that pointers in calls point to; returns their address."""
        self.execute(b"w" + struct.pack("<Q", at) + data)
        return self.scratch + at

    def peek(self, size, at=0):
        return self.execute(b"r" + struct.pack("<QQ", at, size))

    def warden_execute(self, command):
        data, _ = self.ask(struct.pack("<I", self.facts["HOSTILE_WARDEN"]) + command)
        return data

    def warden_call(self, name, *args):
        return struct.unpack("<q", self.warden_execute(system_call(name, *args)))[0]

    def warden_poke(self, data, at=0):
        self.warden_execute(b"w" + struct.pack("<Q", at) + data)
        return self.scratch + at

    # ---- both

    def pids(self):
        """(warden, smtp)"""
        warden = self.warden_call("getpid")
        return [p for p in self.server.pairs() if p[0] == warden][0]

    def wait_gone(self, timeout=None):
        """Until the process has ended."""
        end = time.monotonic() + (timeout or tools.PATIENCE)
        try:
            while time.monotonic() < end:
                if select.select([self.sock], [], [], 0.2)[0]:
                    self.more()
        except Gone:
            return
        raise AssertionError("it is still there")


def system_call(name, *args):
    number = calls()[name] if isinstance(name, str) else name
    values = [a & (1 << 64) - 1 for a in (number, *args)] + [0] * (6 - len(args))
    return b"S" + struct.pack("<7Q", *values)
