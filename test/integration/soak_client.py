#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Some of the clients of the soak (test_soak.py), in a process of its own. Its argument is JSON; for each session it writes a line of JSON to the
file it is told: what the client knew, what it did, what it was told, and when.
"""

import hashlib
import itertools
import json
import random
import ssl
import sys
import threading
import time
import traceback

import smtpc

RIGHT = {"alice": "wonder land", "carol": "carol-pw", "frank@isp.example": "frank-pw", "jürgen": "pässwörd€"}


def text_of(rng, size):
    """Text of about so many octets, in wire form but not dot-stuffed, with lines of all lengths, dots among them."""
    lines, left = [], size
    while left > 0:
        n = rng.choice([0, 1, 20, 70, 70, 70, 76, 200, 900])
        line = rng.choice([b"", b"", b"", b".", b"..", b" "]) + b"%x" % rng.getrandbits(4 * n + 1)
        lines.append(line)
        left -= len(line) + 2
    return b"".join(line + b"\r\n" for line in lines)


class Client:
    def __init__(self, job, number, out):
        self.job, self.number, self.out = job, number, out
        self.rng = random.Random("%s/%d" % (job["seed"], number))
        self.server = job["servers"][number % len(job["servers"])]
        self.serial, self.addresses = itertools.count(), itertools.count()
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE  # certificates change all the time here
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.source, self.sessions, self.tls = None, 0, {}

    def run(self):
        while time.monotonic() < self.job["until"]:
            self.record = {"server": self.server["name"], "began": time.monotonic(), "auth": [], "messages": []}
            try:
                self.session()
            except Exception:  # pylint: disable=broad-except
                self.record["fault"] = traceback.format_exc()
                time.sleep(0.2)
            self.out(self.record)

    # ---- a session

    def connect(self, profile):
        if self.sessions % 6 == 0:  # the TLS sessions of an address are good at that address only
            net = 77 if profile == "inside" else 30 + self.job["number"]
            n = next(self.addresses)
            self.source, self.tls = "127.%d.%d.%d" % (net, self.number % 250, n % 250 + 1), {}
        if (profile == "inside") != self.source.startswith("127.77."):
            self.source, self.tls = ("127.77.%d.%d" if profile == "inside" else "127.30.%d.%d") % (self.number % 250, next(self.addresses) % 250 + 1), {}
        self.sessions += 1
        c = smtpc.Client(("127.0.0.1", self.server["port"][profile]), self.source, None, self.context, hello=False)
        if profile == "submissions":
            self.wrap(c, profile)
        c.reply(220)
        c.ehlo()
        if profile == "submission" or (profile == "smtp" and self.rng.random() < 0.3):
            c.cmd("STARTTLS", 220)
            self.wrap(c, profile)
            c.ehlo()
        return c

    def wrap(self, c, profile):
        old = self.tls.get(profile) if self.rng.random() < 0.7 else None
        c.wrap(session=old)
        self.record["tls"] = "resumed" if c.sock.session_reused else "full"
        self.tls[profile] = c.sock.session

    def session(self):
        rng = self.rng
        profile = rng.choice(["submission", "submission", "submissions", "submissions", "submissions", "inside", "inside", "smtp"])
        self.record["profile"] = profile
        c = self.connect(profile)
        with c:
            if profile.startswith("submission") and not self.log_in(c):
                self.leave(c)
                return
            rcpt = "you@local.example" if profile == "smtp" else "you@far.example"
            for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
                if not self.message(c, rcpt):
                    return
            self.leave(c)

    def leave(self, c):
        if self.rng.random() < 0.8:
            c.quit()

    def log_in(self, c):
        """With the right password, a wrong one, or a wrong one first."""
        plan = self.rng.choice([[True]] * 6 + [[False], [False, True]])
        for right in plan:
            user = self.rng.choice(list(RIGHT))
            password = RIGHT[user] if right else self.rng.choice(["wrong", RIGHT[user] + "x", RIGHT[user][:-1], "x" * 120])
            begin = time.monotonic()
            r = (c.auth_plain if self.rng.random() < 0.7 else c.auth_login)(user, password, expect=None)
            self.record["auth"].append({"right": right, "code": r.code, "from": begin, "to": time.monotonic()})
            if r == 235:
                return True
        return False

    # ---- a message

    def message(self, c, rcpt):
        """One message, by one way, perhaps not to its end. False when the connection is gone."""
        rng = self.rng
        token = "t%d-%d-%d" % (self.job["number"], self.number, next(self.serial))
        size = rng.choice([50, 300, 300, 2000, 2000, 2000, 8000, 60000, 300000]) if rng.random() < 0.995 else 3000000
        text = text_of(rng, size)
        sum_ = hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()
        body = (b"From: <me@client.example>\r\nDate: x\r\nMessage-ID: <%s@client.example>\r\nX-Sum: %s\r\nSubject: soak\r\n\r\n"
                % (token.encode(), sum_.encode()) + text)
        note = {"token": token, "state": "begun"}
        self.record["messages"].append(note)
        fate = rng.choice(["whole"] * 16 + ["broken off", "broken off", "unread"])
        envelope = "MAIL FROM:<%s@client.example>\r\nRCPT TO:<%s>\r\n" % (token, rcpt)
        together = rng.random() < 0.5
        if rng.random() < 0.35:
            chunks = self.chunks(body)
            wire, replies = b"".join(chunks), len(chunks) - 1
        else:
            envelope, wire, replies = envelope + "DATA\r\n", smtpc.stuff(body) + b".\r\n", 0
        lines = envelope.splitlines(keepends=True)
        if together:
            c.send(envelope)
        for line in lines:
            if not together:
                c.send(line)
            c.reply(354 if line == "DATA\r\n" else 250)
        if fate == "broken off":
            note["state"] = "broken off"
            c.send(wire[:rng.randrange(0, len(wire) - 4)])
            return self.drop(c)
        if fate == "unread":
            note["state"] = "unread"
            c.send(wire)
            return self.drop(c)
        note["state"] = "unknown"  # until it is answered
        c.send(wire)
        for _ in range(replies):
            c.reply(250)
        r = c.reply(250)
        note["id"] = smtpc.queue_id(r)[0]
        note["state"] = "taken"
        return True

    def chunks(self, body):
        out, at = [], 0
        while at < len(body):
            n = self.rng.choice([1, 100, 5000, 70000])
            piece = body[at:at + n]
            at += n
            if n == 1 and len(out) > 20:
                continue_with = body[at:at + 70000]
                piece, at = piece + continue_with, at + len(continue_with)
            out.append(b"BDAT %d%s\r\n" % (len(piece), b" LAST" if at >= len(body) else b"") + piece)
        return out

    def drop(self, c):
        (c.reset if self.rng.random() < 0.5 else c.close)()
        return False


def main():
    job = json.loads(sys.argv[1])
    smtpc.PATIENCE = 60  # a login that RADIUS is slow about, and the wait before it is refused
    lock = threading.Lock()
    with open(job["out"], "w", encoding="utf-8") as f:
        def out(record):
            with lock:
                f.write(json.dumps(record) + "\n")
        threads = [threading.Thread(target=Client(job, job["first"] + n, out).run) for n in range(job["clients"])]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


if __name__ == "__main__":
    main()
