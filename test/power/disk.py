#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
A disk with a volatile write cache, and what is left of it after a power cut.

The guest's virtio disk is an NBD export of this program: `disk.py SOCKET IMAGE LOG FLUSH_MS` serves one connection and logs every
write and every completed flush with the time of CLOCK_MONOTONIC, which is one clock for all processes of the machine. A write is
answered at once and is volatile until a flush that began after its answer has been answered in turn; a flush takes a random time up to
twice FLUSH_MS, and writes go on meanwhile.

Log.cut() makes the disk as it may be found after a cut before the p-th event: all that was flushed, and of the rest what a cache happened
to have written: none, all, some, the first or the last ones, torn at sector boundaries. What a client had read by then is what it has
noted with an earlier time, so one run gives as many cuts as there are events.
"""

import heapq
import itertools
import os
import random
import select
import socket
import struct
import sys
import time

PAGE = 4096
ZERO = bytes(PAGE)
WRITE, FLUSHED = 1, 2
RECORD = struct.Struct("<QBQQ")  # time in ns, kind, offset or number of the first write that is not covered, length

MODES = ("lost", "kept", "some", "early", "late", "torn")


class Image:
    """The content of a disk, in memory: only pages that are not all zero."""

    def __init__(self, size, pages=None):
        self.size = size
        self.pages = {} if pages is None else pages

    @classmethod
    def load(cls, path):
        out = cls(os.path.getsize(path))
        with open(path, "rb") as f:
            pos = 0
            while pos < out.size:
                try:
                    pos = os.lseek(f.fileno(), pos, os.SEEK_DATA) & -PAGE
                except OSError:
                    break  # nothing but a hole follows
                end = os.lseek(f.fileno(), pos, os.SEEK_HOLE)
                f.seek(pos)
                while pos < end:
                    page = f.read(PAGE).ljust(PAGE, b"\0")
                    if page != ZERO:
                        out.pages[pos // PAGE] = page
                    pos += PAGE
        return out

    def save(self, path):
        """Into `path`, in place: a QEMU may have it open."""
        with open(path, "r+b" if os.path.exists(path) else "w+b", buffering=0) as f:
            f.truncate(0)
            f.truncate(self.size)
            numbers = sorted(self.pages)
            while numbers:
                run = list(itertools.takewhile(lambda x: x[0] == x[1] - numbers[0], enumerate(numbers)))
                data = b"".join(self.pages[n] for _, n in run)
                os.pwrite(f.fileno(), data, numbers[0] * PAGE)
                del numbers[:len(run)]

    def copy(self):
        return Image(self.size, dict(self.pages))

    def write(self, offset, data):
        first, skip = divmod(offset, PAGE)
        if skip or len(data) % PAGE:
            tail = -(skip + len(data)) % PAGE
            last = (offset + len(data)) // PAGE
            data = self.pages.get(first, ZERO)[:skip] + data + (self.pages.get(last, ZERO)[-tail:] if tail else b"")
        for i in range(0, len(data), PAGE):
            self.pages[first + i // PAGE] = data[i:i + PAGE]

    def read(self, offset, length):
        first, skip = divmod(offset, PAGE)
        pages = (self.pages.get(n, ZERO) for n in range(first, (offset + length + PAGE - 1) // PAGE))
        return b"".join(pages)[skip:skip + length]


class Log:
    """What happened to a disk that was `base` at first. `events`: (time, kind, a, b), WRITE: offset and octets; FLUSHED: writes before
    event number a are durable."""

    def __init__(self, base, path):
        self.base, self.events = base, []
        with open(path, "rb") as f:
            raw = memoryview(f.read())
        pos = 0
        while pos < len(raw):
            when, kind, a, length = RECORD.unpack_from(raw, pos)
            pos += RECORD.size
            self.events.append((when, kind, a, bytes(raw[pos:pos + length]) if kind == WRITE else None))
            pos += length if kind == WRITE else 0
        self._at, self._image = 0, base.copy()

    def time(self, p):
        """When event p began: whatever a client noted before came before a cut at p."""
        return self.events[p][0] if p < len(self.events) else time.monotonic_ns()

    def after(self, when):
        """The first event that began after `when`."""
        return next((i for i, e in enumerate(self.events) if e[0] > when), len(self.events))

    def count(self, kind, begin, end):
        return sum(1 for e in self.events if e[1] == kind and begin <= e[0] <= end)

    def covered(self, p):
        """Writes before this event are durable when the power goes at p."""
        return max([e[2] for e in self.events[:p] if e[1] == FLUSHED], default=0)

    def _durable(self, upto):
        if upto < self._at:
            self._at, self._image = 0, self.base.copy()
        for _, kind, a, data in self.events[self._at:upto]:
            if kind == WRITE:
                self._image.write(a, data)
        self._at = max(self._at, upto)
        return self._image.copy()

    def cut(self, p, mode, rng, unit):
        """The image after a cut before event p; `unit`: what the disk writes wholly or not at all, in octets."""
        covered = self.covered(p)
        image = self._durable(covered)
        rest = [(e[2], e[3]) for e in self.events[covered:p] if e[1] == WRITE]
        if mode == "lost":
            rest = []
        elif mode == "early":
            rest = rest[:rng.randint(0, len(rest))]
            if rest:
                rest[-1] = (rest[-1][0], rest[-1][1][:rng.randint(0, len(rest[-1][1]) // unit) * unit])
        elif mode == "late":
            rest = rest[rng.randint(0, len(rest)):]
        elif mode in ("some", "torn"):
            chance = rng.choice((0.1, 0.5, 0.9))
            rest = [w for w in rest if rng.random() < chance]
        if mode == "torn":
            rest = [(o + i, d[i:i + unit]) for o, d in rest for i in range(0, len(d), unit) if rng.random() < 0.7]
        for offset, data in rest:
            image.write(offset, data)
        return image


# ---- The server, of the NBD protocol what QEMU's client uses -------------------------------------------------------------------

OPTION_MAGIC, REPLY_MAGIC = 0x49484156454F5054, 0x3E889045565A9
OPT_ABORT, OPT_INFO, OPT_GO = 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 0x80000001
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_ZEROES = 0, 1, 2, 3, 6
EXPORT_FLAGS = 1 | 4 | 8 | 64  # these flags are valid; flush, FUA, write zeroes


def receive(sock, length):
    out = b""
    while len(out) < length:
        data = sock.recv(length - len(out))
        if not data:
            raise EOFError
        out += data
    return out


def handshake(sock, size):
    sock.sendall(b"NBDMAGIC" + struct.pack("!QH", OPTION_MAGIC, 3))
    receive(sock, 4)
    while True:
        _, option, length = struct.unpack("!QII", receive(sock, 16))
        receive(sock, length)

        def answer(kind, data=b""):
            sock.sendall(struct.pack("!QIII", REPLY_MAGIC, option, kind, len(data)) + data)
        if option in (OPT_INFO, OPT_GO):
            answer(REP_INFO, struct.pack("!HQH", 0, size, EXPORT_FLAGS))
            answer(REP_INFO, struct.pack("!HIII", 3, 512, 4096, 1 << 25))
            answer(REP_ACK)
            if option == OPT_GO:
                return
        elif option == OPT_ABORT:
            answer(REP_ACK)
            raise EOFError
        else:
            answer(REP_ERR_UNSUP)


class Export:
    def __init__(self, sock, image, log, flush_ms):
        self.sock, self.image, self.log, self.flush_ms = sock, image, log, flush_ms
        self.rng = random.Random()
        self.number = 0
        self.due = []  # (time, event number that is not covered, handle)

    def note(self, kind, a, data=b""):
        length = len(data) if kind == WRITE else 0
        self.log.write(RECORD.pack(time.monotonic_ns(), kind, a, length) + data)
        self.number += 1

    def reply(self, handle, data=b""):
        self.sock.sendall(struct.pack("!IIQ", 0x67446698, 0, handle) + data)

    def later(self, handle):
        """A flush, or a write with FUA: durable with all before it once the time has come."""
        delay = self.rng.uniform(0, 2 * self.flush_ms) / 1000
        heapq.heappush(self.due, (time.monotonic() + delay, self.number, handle))

    def complete(self):
        """Answer the flushes that are due; seconds until the next one."""
        while self.due:
            wait = self.due[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, covered, handle = heapq.heappop(self.due)
            self.note(FLUSHED, covered)
            self.reply(handle)
        return None

    def request(self):
        _, flags, kind, handle, offset, length = struct.unpack("!IHHQQI", receive(self.sock, 28))
        if kind == CMD_READ:
            self.reply(handle, self.image.read(offset, length))
        elif kind in (CMD_WRITE, CMD_ZEROES):
            data = receive(self.sock, length) if kind == CMD_WRITE else bytes(length)
            self.note(WRITE, offset, data)
            self.image.write(offset, data)
            if flags & 1:
                self.later(handle)
            else:
                self.reply(handle)
        elif kind == CMD_FLUSH:
            self.later(handle)
        else:
            raise EOFError

    def run(self):
        while True:
            wait = self.complete()
            if select.select([self.sock], [], [], wait)[0]:
                self.request()


def main(path, image_path, log_path, flush_ms):
    image = Image.load(image_path)
    with socket.socket(socket.AF_UNIX) as listener, open(log_path, "wb", buffering=1 << 20) as log:
        listener.bind(path)
        listener.listen(1)
        print("ready", flush=True)
        sock, _ = listener.accept()
        try:
            handshake(sock, image.size)
            Export(sock, image, log, float(flush_ms)).run()
        except (EOFError, ConnectionError):
            pass  # the guest is dead


if __name__ == "__main__":
    main(*sys.argv[1:])
