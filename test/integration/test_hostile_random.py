# SPDX-License-Identifier: MIT
"""
An smtp process that was taken over says 100,000 messages at random to its wardens, a million in the long form: good ones, some of the wrong
size, wrong in themselves or at the wrong time, together or alone. A model of what a warden may answer, written from DESIGN.md and SECURITY.md,
says what must come back, octet by octet; the queue holds what the model has accepted, and not a message more.
"""

import collections
import os
import random
import struct
import time

import pytest

import hostile
import radius
import tools
from hostile import Gone, Hostile
from test_hostile import BROKE, Bystander, GATE, make

pytestmark = pytest.mark.release

MESSAGES = 1000000 if tools.LONG else 100000
WORKERS = 8
DEADLINE = 1200 if tools.LONG else 120

END = "the pair ends"
SENDERS = ["me@client.example", "", "x@spam.example", "root@localhost", "a b@client.example", "\xe9t\xe9@client.example", "x" * 200 + "@client.example"]
RCPTS = ["you@local.example", "You@LOCAL.example", "a@b.sub.example", "you@far.example", "you@local.example.far.example", "you@localhost", "joe", "postmaster",
         "@", "you@far.example@local.example"]
CONTROL = ["a\nb@local.example", "a\0b@local.example", "\x7f@local.example", "\x1f"]
USERS = [("yes", "x"), ("yves", "a-long-password" * 8), ("yo", "x")]
REFUSED = [("nobody", "x"), ("", "x"), ("yes", ""), ("y\0s", "x"), ("y" * 254, "x"), ("yes", "x" * 129)]


class Session:
    """The model of one session: what may be asked, and what the answer is."""

    def __init__(self, facts, profile, ident):
        self.f, self.profile, self.ident = facts, profile, ident
        self.state, self.counts, self.loggedin, self.refused = "open", collections.Counter(), False, 0
        self.sender, self.rcpts = None, []
        self.known = {}  # TLS sessions that this client has put
        self.accepted = []

    def verdict(self, name, word):
        return self.f.build("msg_verdict", type=self.f[name], verdict=self.f[word])

    def relay(self):
        return self.loggedin

    def gate(self, name):
        """None, or END: not now, or not again."""
        if self.spent(name):
            return END
        self.counts[name] += 1
        return None if self.state in GATE[name][0] else END

    def spent(self, name):
        most = {"MSG_SIGN": 1, "MSG_TLSGET": 1, "MSG_TLSPUT": 1, "MSG_TLSUP": 1, "MSG_AUTH": self.f["AUTH_REQUESTS_MAX"]}
        return self.counts[name] >= most.get(name, 1 << 60)

    def likely(self, name):
        """Whether it may be asked now, and would be answered."""
        if name == "MSG_AUTH" and (self.loggedin or self.refused or self.profile in ("inside", "printer")):
            return False
        return name != "MSG_COMMIT" and self.state in GATE[name][0] and not self.spent(name)

    # ---- each returns the answer, None for none, or END

    def mail(self, addr, size):
        if self.profile != "smtp" and not self.relay():
            return self.verdict("MSG_MAIL", "V_NEED_LOGIN")
        if addr.endswith("@spam.example"):
            return self.verdict("MSG_MAIL", "V_SENDER_REFUSED")
        sender = "printer@example.net" if self.profile == "printer" else addr
        if self.relay() and sender == "root@localhost":
            return self.verdict("MSG_MAIL", "V_UNQUALIFIED")
        if size > 20000:
            return self.verdict("MSG_MAIL", "V_TOO_BIG")
        self.state, self.sender = "mail", sender
        return self.verdict("MSG_MAIL", "V_OK")

    def rcpt(self, addr):
        domain = addr.rpartition("@")[2].lower() if "@" in addr else None
        if domain is None:
            if addr.lower() != "postmaster":
                return self.verdict("MSG_RCPT", "V_BAD_ADDRESS")
            addr += "@mail.example.net"
        elif self.relay():
            if "." not in domain:
                return self.verdict("MSG_RCPT", "V_UNQUALIFIED")
        elif domain != "local.example" and not domain.endswith(".sub.example"):
            return self.verdict("MSG_RCPT", "V_NO_RELAY")
        self.state = "rcpt"
        self.rcpts.append(addr)
        return self.verdict("MSG_RCPT", "V_OK")

    def data(self):
        self.state = "data"
        return self.verdict("MSG_DATA", "V_OK")

    def auth(self, user, password):
        if self.loggedin or self.refused >= self.f["AUTH_TRIES_MAX"] or self.profile in ("inside", "printer"):
            return END
        if (user, password) in USERS:
            self.loggedin = True
            return self.verdict("MSG_AUTH", "V_OK")
        self.refused += 1
        return self.verdict("MSG_AUTH", "V_AUTH_REFUSED")

    def forget(self):
        self.state, self.sender, self.rcpts = "open", None, []


class Player:
    """One session: says messages at random, and holds the answers against the model."""

    def __init__(self, server, rng, stats):
        self.rng, self.stats = rng, stats
        self.profile = rng.choice(["smtp", "smtp", "submission", "inside", "printer"])
        self.h = Hostile(server, self.profile)
        self.f = self.h.facts
        self.model = Session(self.f, self.profile, self.h.source)
        self.expected = []  # answers that are due: octets, or a function that checks them
        self.pending = []  # records not yet sent
        self.over = False

    # ---- messages

    def one(self, name):
        """(octets, what the model says) of a good request."""
        f, r, m = self.f, self.rng, self.model
        if name == "MSG_SIGN":
            hash_id, size = r.choice([(4, 32), (5, 48), (6, 64), (4, 31), (0, 0), (7, 32)])
            right = (hash_id, size) in ((4, 32), (5, 48), (6, 64))
            return f.sign(hash_id, r.randbytes(size)), lambda: self.signature(right)
        if name == "MSG_TLSGET":
            ident = r.choice([*m.known, bytes(32)])
            # Others may have put so many meanwhile that there is no room for it any more.
            either = [f.build("msg_tlssession", type=f[name], **m.known.get(ident, {})), f.build("msg_tlssession", type=f[name])]
            return f.request(name, id=ident), lambda: either.__contains__
        if name == "MSG_TLSPUT":
            ident, fields = r.randbytes(32), {"found": 1, "version": 0x303, "suite": r.randrange(65536), "master": r.randbytes(48)}
            return f.request(name, id=ident, **fields), lambda: m.known.update({ident: fields})
        if name == "MSG_TLSUP":
            return f.request(name, version=r.randrange(65536), suite=r.randrange(65536), resumed=r.randrange(3)), lambda: None
        if name == "MSG_AUTH":
            user, password = r.choice(REFUSED) if r.random() < 0.01 else r.choice(USERS)
            return f.auth(user, password, r.randrange(4)), lambda: m.auth(user, password)
        if name == "MSG_MAIL":
            addr, size = r.choice(SENDERS), r.choice([0, 0, 100, 20000, 20001, 1 << 63])
            raw = addr.encode("latin-1")
            return f.request(name, len=len(raw), size=size, utf8=r.randrange(2), addr=raw), lambda: m.mail(addr, size)
        if name == "MSG_RCPT":
            addr = r.choice(RCPTS)
            return f.rcpt(addr), lambda: m.rcpt(addr)
        if name == "MSG_DATA":
            return f.data(r.randbytes(r.randrange(60))), m.data
        if name == "MSG_COMMIT":
            return f.commit(r.randrange(1 << 64)), self.commit
        if name == "MSG_RESET":
            return f.reset(), self.reset
        return f.note(r.randrange(1, f["NOTE_COUNT"]), r.randrange(1 << 64)), lambda: None

    def bad(self, name):
        """Never right, whatever the state."""
        f, r = self.f, self.rng
        good, _ = self.one(name)
        kind = r.randrange(6)
        if kind == 0:
            return good[:r.randrange(1, len(good))]
        if kind == 1:
            return good + r.randbytes(r.choice([1, 2, 3, 4, 5, 100, 3000, 60000]))
        if kind == 2:
            return struct.pack("<I", r.choice([0, f["MSG_COUNT"], r.randrange(f["MSG_COUNT"], 1 << 32)])) + r.randbytes(r.choice([0, 4, 12, 264, 524]))
        if kind == 3:
            text = r.choice(CONTROL).encode()
            return f.request(r.choice(["MSG_MAIL", "MSG_RCPT"]), len=len(text), addr=text)
        field, size = {"MSG_SIGN": ("len", 64), "MSG_AUTH": (r.choice(["user_len", "pass_len"]), 255), "MSG_MAIL": ("len", 256), "MSG_RCPT": ("len", 256),
                       "MSG_DATA": ("helo_len", 255)}.get(name, (None, 0))
        if field:
            return f.request(name, **{field: r.choice([size + 1, size + 4, 1 << 16, (1 << 32) - 1, r.randrange(size + 1, 1 << 32)])})
        return f.note(r.choice([0, f["NOTE_COUNT"], 1 << 31, (1 << 32) - 1]))

    # ---- what depends on more than the model

    def signature(self, right):
        def check(data):
            reply = self.f.read("msg_sign_reply", data)
            size, sig = reply["len"], reply["sig"]
            return reply["type"] == self.f["MSG_SIGN"] and (60 < size <= 80 if right else size == 0) and not any(sig[size:])
        return check

    def commit(self):
        """Who said DATA in this burst and did not stop to write has not let go of the file."""
        if self.holding:
            return END
        ok, sender, rcpts = self.whole, self.model.sender, self.model.rcpts
        self.model.forget()

        def check(data):
            reply = self.f.read("msg_commit_reply", data)
            assert reply["type"] == self.f["MSG_COMMIT"] and abs(reply["time"] - time.time()) < 60
            if ok:
                self.model.accepted.append((reply["qid"], sender, rcpts))
            return reply["verdict"] == self.f["V_OK" if ok else "V_SPOOL_ERROR"]
        return check

    def reset(self):
        if self.model.state == "data" and self.holding:
            return END
        self.model.forget()
        return None

    # ---- saying

    def say(self, message):
        self.pending.append(self.h.record("m", message))
        self.stats["messages"] += 1

    def step(self):
        """One message. False: the pair must end by it."""
        r = self.rng
        if r.random() < 0.01:
            self.say(self.bad(r.choice(list(GATE))))
            return False
        name = r.choice(list(GATE) if r.random() < 0.01 else [n for n in GATE if self.model.likely(n)])
        if name in ("MSG_MAIL", "MSG_RCPT", "MSG_DATA") and r.random() < 0.4:
            return self.batch()
        message, act = self.one(name)
        self.say(message)
        answer = self.model.gate(name) or act()
        if answer is END:
            return False
        if answer is not None:
            self.expected.append(answer)
        if name == "MSG_DATA":
            self.write()
        return True

    def batch(self):
        """Several in one message; what depends on one that was refused is skipped."""
        r, f, m = self.rng, self.f, self.model
        names = [r.choice(["MSG_MAIL", "MSG_RCPT", "MSG_RCPT", "MSG_DATA"]) for _ in range(r.randrange(1, 4))] if r.random() < 0.1 else \
            (["MSG_MAIL"] if m.state == "open" else []) + ["MSG_RCPT"] * r.randrange(1, 4) + ["MSG_DATA"] * r.randrange(2)
        octets, answers, refused, asked = b"", b"", False, False
        parts = [(name, *self.one(name)) for name in names]
        for name, message, _ in parts:
            octets += message
        self.say(octets)
        for name, _, act in parts:
            if m.gate(name) is END:
                if not refused:
                    return False
                answer = m.verdict(name, "V_SKIPPED")
            else:
                answer = act()
                refused = refused or (name != "MSG_DATA" and answer != m.verdict(name, "V_OK"))
                asked = asked or name == "MSG_DATA"
            answers += answer
        assert f["BATCH_MAX"] >= len(names)
        self.expected.append(answers)
        if asked:
            self.write()
        return True

    def write(self):
        """The message file has come, or will. Now and then it is left where it is."""
        r = self.rng
        self.holding, self.whole = r.random() < 0.1, True
        self.flush()
        if self.holding:
            return
        body = r.choice([b"", b"Subject: x\n", b"x", b"\0\r", b"\r\n", b"\n.\n", r.randbytes(500) + b"\n", r.randbytes(500) + b"x"])
        if body:
            assert self.h.write(body) == len(body)
            self.whole = body.endswith(b"\n")
        assert self.h.call("close", 4) == 0
        if r.random() < 0.5:
            self.say(self.f.commit(r.randrange(1 << 64)))
            answer = self.model.gate("MSG_COMMIT") or self.commit()
            self.expected.append(answer)

    holding, whole = False, True

    def flush(self):
        """Send what waits, and hear all answers that are due."""
        try:
            self.h.sock.sendall(b"".join(self.pending))
        except OSError:
            pass
        self.pending.clear()
        for want in self.expected:
            self.hold(want, self.h.hear()[0])
        self.expected.clear()

    def hold(self, want, data):
        assert want(data) if callable(want) else want == data, "wanted %r, got %r" % (want, data)

    def play(self, most):
        broken = False
        try:
            for _ in range(most):
                if not self.step():
                    # With the warden gone main ends the process at once: what came before must be heard before.
                    broken, last = True, self.pending.pop()
                    self.flush()
                    self.pending.append(last)
                    break
                if len(self.pending) > 20:
                    self.flush()
            self.flush()
        except Gone as e:
            raise AssertionError("the pair ended, %d answers were due" % len(self.expected)) from e
        if broken:
            assert self.h.ended()
            self.stats["broken"] += 1
        else:
            assert self.h.settle() == []
        self.h.sock.close()
        self.stats["sessions"] += 1
        self.stats["accepted"] += len(self.model.accepted)
        return self.model.accepted


def relayed(sender, rcpts):
    return any(not (r.lower().endswith(("@local.example", ".sub.example", "@mail.example.net"))) for r in rcpts)


@pytest.fixture
def world(work, house, hostile_binary):
    server, double = make(work, house, hostile_binary)
    bystander = Bystander(server)
    yield server, bystander
    bystander.stop()
    server.stop()
    double.stop()


def test_at_random(world):
    server, bystander = world
    seed = int(os.environ.get("MAILSTILE_SEED", random.randrange(1 << 32)))
    print("MAILSTILE_SEED=%d" % seed)
    stats = [collections.Counter() for _ in range(WORKERS)]
    begin = time.monotonic()

    def work_on(n):
        accepted, rng = [], random.Random(seed + n)
        while stats[n]["messages"] < MESSAGES // WORKERS:
            assert time.monotonic() - begin < DEADLINE, stats
            accepted += Player(server, rng, stats[n]).play(400)
            if len(accepted) > 200:
                take(server, accepted)
        take(server, accepted)
    crowd = tools.Crowd({n: lambda n=n: work_on(n) for n in range(WORKERS)})
    for n in range(WORKERS):
        crowd.futures[n].result(DEADLINE + 120)
    total = sum(stats, collections.Counter())
    print(total, "in %d s" % (time.monotonic() - begin))
    assert total["messages"] >= MESSAGES and total["broken"] > MESSAGES // 200 and total["accepted"] > MESSAGES // 1000
    # Each pair that broke the rules did so by its own doing, and nothing died.
    tools.poll(server.idle, "all sessions to end", 30)
    crashes = server.log("crash")
    assert all(e.get("msg") == BROKE for e in crashes) and len(crashes) == total["broken"]
    bystander.stop()
    assert bystander.sent > 10 and bystander.slowest < 20
    assert all(m.rcpts == [b"bystander@local.example"] for m in server.messages())
    assert hostile.PAINT and radius.SECRET


def take(server, accepted):
    """What was accepted is there with exactly its envelope; it is taken out."""
    for qid, sender, rcpts in accepted:
        raw = tools.read(os.path.join(server.queue, "todo", str(qid)))
        envelope = tools.parse_envelope(raw)
        assert envelope.sender == sender.encode("latin-1") and envelope.rcpts == [r.encode() for r in rcpts]
        split = len(os.listdir(os.path.join(server.queue, "mess")))
        for name in ("todo/%d" % qid, "intd/%d" % qid, "mess/%d/%d" % (qid % split, qid)):
            os.unlink(os.path.join(server.queue, name))
    accepted.clear()
