# SPDX-License-Identifier: MIT
"""
The next hop of a guest that delivers, outside of it: witness to what has arrived. And what a queue in delivery and a Maildir may look like after a
cut: each recipient of an acknowledged message has it, or is still to get it.
"""

import re
import select
import socket
import threading

import load
import spool
import tools


class Hop:
    """
    Takes all mail. `arrived`: {(seed, number): {recipient: how often}}, noted before the 250 is said; `wrong`: messages that are not whole;
    `pending`: messages still to be sent, at the last look; `boxed`, `boxed_twice`: recipients who had theirs in the guest's Maildir, and once more.
    """

    def __init__(self):
        self.arrived, self.wrong, self.sent, self.pending, self.boxed, self.boxed_twice = {}, [], {}, 0, 0, 0
        self.lock, self.over = threading.Lock(), False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while not self.over:
            if select.select([self.listener], [], [], 0.1)[0]:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, sock):
        sock.settimeout(120)
        try:
            with sock, sock.makefile("rwb") as f:
                self._talk(f)
        except OSError:
            pass  # the guest is gone

    def _talk(self, f):
        def say(text):
            f.write(text + b"\r\n")
            f.flush()
        rcpts = []
        say(b"220 hop.example ESMTP")
        while True:
            line = f.readline()
            verb = line[:4].upper()
            if verb == b"EHLO":
                say(b"250-hop.example\r\n250-PIPELINING\r\n250 8BITMIME")
            elif verb == b"MAIL":
                rcpts = []
                say(b"250 2.1.0 ok")
            elif verb == b"RCPT":
                rcpts.append(re.match(rb"RCPT TO:<([^>]*)>", line, re.I).group(1).decode())
                say(b"250 2.1.5 ok")
            elif verb == b"DATA":
                say(b"354 go")
                self._take(f, rcpts)
                say(b"250 2.0.0 ok")
            elif verb == b"QUIT" or not line:
                return
            else:
                say(b"250 2.0.0 ok")

    def _take(self, f, rcpts):
        data = b""
        while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
            line = f.readline()
            if not line:
                raise OSError("cut off")
            data += line
        body = re.sub(rb"(?m)^\.", b"", data[:-3].replace(b"\r\n", b"\n"))
        key = load.number_of(body)
        with self.lock:
            m = self.sent.get(key)
            if m is None or not body.endswith(m.stored()) or not set(rcpts) <= {r for r in m.rcpts if not boxed(r)}:
                self.wrong.append("message %r for %r is not what was sent: %r" % (key, rcpts[:3], body[:200]))
                return
            for r in rcpts:
                there = self.arrived.setdefault(key, {})
                there[r] = there.get(r, 0) + 1

    def has(self, m):
        with self.lock:
            return set(self.arrived.get((m.seed, m.number), ())) == {r for r in m.rcpts if not boxed(r)}

    def doubled(self):
        """How many recipients have a message twice."""
        with self.lock:
            return sum(n - 1 for there in self.arrived.values() for n in there.values())

    def end(self):
        self.over = True
        self.thread.join(5)
        self.listener.close()


def boxed(rcpt):
    return rcpt.endswith("@box.example")


def look_into_box(v, files, sent, when):
    """{message: {recipient: how often}} of a Maildir. A file in new/ is a whole message, after the two lines that qmail-local puts before it."""
    found = {}
    for path in files.below("new"):
        data = files.data[path]
        head = re.match(rb"Return-Path: <([^>\n]*)>\nDelivered-To: ([^\n]*)\n", data)
        m = head and spool.message_in(v, "box/" + path, data[head.end():], spool.QUEUE_HEAD, sent, when)
        if not head:
            v.bad("box/%s: no head: %d octets, %r", path, len(data), data[:60])
        elif m:
            rcpt = head.group(2).decode()
            if head.group(1).decode() != m.sender or rcpt not in m.rcpts or not boxed(rcpt) or files.info[path].uid != spool.OWNER:
                v.bad("box/%s: message %d, owner %d: %r", path, m.number, files.info[path].uid, head.group(0))
            there = found.setdefault(m, {})
            there[rcpt] = there.get(rcpt, 0) + 1
    for _ in files.below("tmp"):
        v.count("tmp")
    for path in files.below("cur"):
        v.bad("box/%s: nobody reads here", path)
    return found


def records(v, path, data, letters):
    """The NUL-ended records of a file of ours, as text, if that is what it is."""
    parts = data.split(b"\0")
    if parts.pop() != b"" or any(p[:1] not in letters for p in parts):
        v.bad("%s: %r", path, data[:100])
        return []
    return [p.decode() for p in parts]


def check(listing, archive, sent, when, hop):
    """As spool.check(), for a home with a queue that is being delivered, and a Maildir."""
    v = spool.Verdict()
    home = spool.Files(listing, archive)
    files = home.part("queue")
    box = look_into_box(v, home.part("box"), sent, when)
    names = {kind: {p.split("/")[-1]: p for p in files.below(kind)} for kind in ("mess", "intd", "todo", "info", "local", "remote", "bounce", "pid")}
    pending = {}
    for n, path in names["mess"].items():
        if files.inode[path] != int(n):
            v.bad("%s: is inode %d", path, files.inode[path])
        if n not in names["todo"] and n not in names["info"]:
            v.count("mess")
            continue
        m = spool.message_in(v, path, files.data[path], spool.QUEUE_HEAD, sent, when)
        if m is None:
            continue
        if n in names["todo"]:
            # What else there is of it will be made anew.
            try:
                left = [r.decode() for r in tools.parse_envelope(files.data[names["todo"][n]]).rcpts]
            except AssertionError as e:
                v.bad("todo/%s: %s", n, str(e)[:100])
                continue
        else:
            info = records(v, names["info"][n], files.data[names["info"][n]], (b"F",))
            if info != ["F" + m.sender]:
                v.bad("info/%s: %r", n, info)
            left = []
            for kind in ("remote", "local"):
                path = names[kind].get(n)
                rcpts = records(v, path, files.data[path], (b"T", b"D")) if path else []
                if not {r[1:] for r in rcpts} <= {r for r in m.rcpts if boxed(r) == (kind == "local")}:
                    v.bad("%s/%s: %r", kind, n, rcpts)
                left += [r[1:] for r in rcpts if r[0] == "T"]
        pending.setdefault(m, set()).update(left)
    for kind in ("todo", "intd", "info"):
        for n in names[kind]:
            if n not in names["mess"] and kind != "info":
                v.bad("%s/%s: no message of that number", kind, n)
            elif kind == "info" and n not in names["mess"]:
                v.bad("info/%s: no message of that number, while it is queued", n)
            elif kind == "intd" and n not in names["todo"]:
                v.count("intd")
    for n in names["bounce"]:
        v.bad("bounce/%s: nobody asked for it", n)
    for _ in names["pid"]:
        v.count("pid")
    hop.pending = sum(1 for left in pending.values() if left)
    acked = [m for m in sent.values() if m.ack and m.ack < when]
    v.acked = len(acked)
    for m in acked:
        with hop.lock:
            there = set(hop.arrived.get((m.seed, m.number), ())) | set(box.get(m, ()))
        if not set(m.rcpts) <= there | pending.get(m, set()):
            v.lost.append(m)
    v.illegal += hop.wrong
    hop.boxed = sum(len(there) for there in box.values())
    hop.boxed_twice = sum(n - 1 for there in box.values() for n in there.values())
    return v
