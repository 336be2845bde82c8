# SPDX-License-Identifier: MIT
"""
The clients, and what they are witness to: which message was acknowledged when. They run outside of the guest. A message is made from
its number alone, so that it can be made again to compare.
"""

import random
import re
import threading
import time

import smtpc

LINE = 72
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.0123456789"


class Sent:
    """
    A message: `begin` before the client offers it, `ack` after it has read the 250 (ns of CLOCK_MONOTONIC); 0 when it has not. `boxes`: some of
    the recipients have a Maildir where it is sent to.
    """

    def __init__(self, seed, number, small, boxes=False):
        rng = random.Random("%d:%d" % (seed, number))
        self.seed, self.number, self.small = seed, number, small
        self.begin = self.ack = self.dropped = 0
        self.qid = None
        self.sender = "s%d@client.example" % number if rng.random() < 0.95 else ""
        self.rcpts = ["r%d.%d@far.example" % (number, i) for i in range(rng.choice((1, 1, 1, 2, 3, 30)))]
        if boxes:
            choice = random.Random("%d:%d:boxes" % (seed, number))
            self.rcpts = [r.replace("far", "box") if choice.random() < 0.4 else r for r in self.rcpts]
        self.size = rng.choice((0, 100, 1000, 3000) if small else (0, 100, 1000, 3000, 4096, 10000, 60000, 300000))
        self.rng_state = rng.getstate()

    def wire(self):
        rng = random.Random()
        rng.setstate(self.rng_state)
        head = ("X-Power: %d.%d\r\nFrom: <%s>\r\nTo: undisclosed-recipients:;\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
                "Message-ID: <%d.%d@client.example>\r\n\r\n" % (self.seed, self.number, self.sender, self.seed, self.number))
        text = "".join(rng.choices(LETTERS, k=self.size))
        lines = [text[i:i + LINE] for i in range(0, len(text), LINE)]
        return head.encode() + smtpc.stuff("".join(x + "\r\n" for x in lines).encode())

    def stored(self):
        return smtpc.stored(self.wire())


def number_of(data):
    """(seed, number) of the message in `data`, or None."""
    m = re.search(rb"^X-Power: (\d+)\.(\d+)$", data[:4096], re.MULTILINE)
    return (int(m.group(1)), int(m.group(2))) if m else None


class Load:
    """
    `sessions` clients that send until stop(), some messages to a connection, with pauses of up to 2 * `pause` seconds between them; `limit`
    messages in all. `sent`: {(seed, number): Sent}; `also`: the same of all lives, for a queue that is delivered.
    """

    def __init__(self, port, seed, sessions, pause=0.0, small=False, limit=1 << 30, also=None):
        self.port, self.seed, self.pause, self.small, self.limit = port, seed, pause, small, limit
        self.sent, self.refused, self.count, self.also = {}, [], 0, also
        self.lock, self.over = threading.Lock(), False
        self.full = False  # there is no room on the disk, which is said and is no fault; then all is over
        self.threads = [threading.Thread(target=self._client, args=(random.Random("%d/%d" % (seed, n)),), daemon=True) for n in range(sessions)]
        for t in self.threads:
            t.start()

    def _next(self):
        with self.lock:
            if self.over or self.count >= self.limit:
                self.over = True
                return None
            self.count += 1
            number = self.count
        return Sent(self.seed, number, self.small, self.also is not None)

    def _client(self, rng):
        while not self.over:
            try:
                with smtpc.Client(("127.0.0.1", self.port)) as c:
                    c.ehlo()
                    for _ in range(rng.choice((1, 1, 2, 5))):
                        m = self._next()
                        if m is None:
                            return
                        self._send(c, m)
                        time.sleep(rng.uniform(0, 2 * self.pause))
            except (OSError, smtpc.Closed):
                time.sleep(0.05)  # the guest is gone, or not there yet

    def _send(self, c, m):
        wire = m.wire()
        m.begin = time.monotonic_ns()
        self.sent[(m.seed, m.number)] = m
        if self.also is not None:
            self.also[(m.seed, m.number)] = m  # before anybody can have it
        c.send("MAIL FROM:<%s>\r\n" % m.sender + "".join("RCPT TO:<%s>\r\n" % r for r in m.rcpts) + "DATA\r\n")
        replies = [c.reply() for _ in range(len(m.rcpts) + 2)]
        if [r.code for r in replies] != [250] * (len(m.rcpts) + 1) + [354]:
            if not any(map(self._no_room, replies)):
                self.refused.append(replies)
            raise smtpc.Closed
        c.send(wire + b".\r\n")
        r = c.reply()
        now = time.monotonic_ns()
        if r == 250:
            m.qid = smtpc.queue_id(r)[0]
            m.ack = now
        elif not self._no_room(r):
            self.refused.append(r)

    def _no_room(self, reply):
        if reply.code != 452 or reply.enhanced != "4.3.1":
            return False
        self.full = self.over = True
        return True

    def acked(self):
        return [m for m in list(self.sent.values()) if m.ack]

    def stop(self):
        self.over = True
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "a client hangs"
