# SPDX-License-Identifier: MIT
"""
A real server whose smtp process was taken over: it says whatever it likes to its warden, on a real connection. The warden ends the
pair, relays nothing and tells nothing; and other sessions of the same server do not notice.
"""

import errno
import hashlib
import os
import socket
import struct
import subprocess
import threading
import time

import pytest

import harness
import hostile
import radius
import smtpc
import tools
from hostile import Gone, Hostile
from tools import poll

pytestmark = pytest.mark.release
root = pytest.mark.root

STATES = ["open", "mail", "rcpt", "data"]
# What may be asked in which state, told here again; and what comes back.
GATE = {
    "MSG_SIGN": (["open"], "msg_sign_reply"), "MSG_TLSGET": (["open"], "msg_tlssession"), "MSG_TLSPUT": (["open"], None),
    "MSG_TLSUP": (["open"], None), "MSG_AUTH": (["open"], "msg_verdict"), "MSG_MAIL": (["open"], "msg_verdict"),
    "MSG_RCPT": (["mail", "rcpt"], "msg_verdict"), "MSG_DATA": (["rcpt"], "msg_verdict"), "MSG_COMMIT": (["data"], "msg_commit_reply"),
    "MSG_RESET": (STATES, None), "MSG_NOTE": (STATES, None)}
DATABYTES = 20000
BROKE = "smtp broke the rules of its conversation with the warden"


def answer(request, _):
    """RADIUS: names that begin with y are let in, those with s get no answer."""
    name = request.get(radius.USER_NAME)[0]
    return None if name[:1] == b"s" else request.reply(radius.ACCEPT if name[:1] == b"y" else radius.REJECT)


class Bystander:
    """A customer of the same server who sends mail all the time and hears of nothing."""

    def __init__(self, server):
        self.server, self.sent, self.slowest, self.fault, self.stopped = server, 0, 0, None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stopped:
                begin = time.monotonic()
                with self.server.session("smtp") as c:
                    c.mail(rcpts=["bystander@local.example"])
                    c.quit()
                self.sent += 1
                self.slowest = max(self.slowest, time.monotonic() - begin)
                time.sleep(0.05)
        except Exception as e:  # pylint: disable=broad-except
            self.fault = e

    def stop(self):
        self.stopped = True
        self.thread.join(60)
        if self.fault:
            raise self.fault


def make(work, house, binary, words="1 0", **control):
    """(server, double); the needles that no warden may tell are put in place."""
    double = radius.Double(answer)
    control = {"databytes": "%d\n" % DATABYTES, "badmailfrom": "@spam.example\n", **control}
    server = harness.Server(work, house, double.line(words), binary=binary, listen=hostile.LISTEN, control=control)
    server.crash_expected = True
    from test_privilege import key_numbers
    Hostile.needles = {"the stack or the heap": hostile.PAINT, "the RADIUS secret": radius.SECRET.encode(), "a password": PASSWORD.encode(),
                       **{"the key": number[:16] for number in key_numbers(server)}}
    return server, double


PASSWORD = "a-password-of-somebody-else"


@pytest.fixture(scope="module")
def world(work, house, hostile_binary):
    server, double = make(work, house, hostile_binary)
    bystander = Bystander(server)
    with server.session("submissions", login=None) as c:
        c.auth_plain("bystander", PASSWORD, 535)
    yield server, double, bystander
    bystander.stop()
    server.stop()
    double.stop()


@pytest.fixture
def server(world):
    """Nothing but the bystander's mail may be in its queue at the end of a test."""
    s, _, bystander = world
    before, was = bystander.sent, len(s.log("start"))
    yield s
    poll(lambda: bystander.fault or bystander.sent > before, "the bystander to send on")
    assert not bystander.fault and bystander.slowest < 15
    assert len(s.log("start")) - was < 20
    assert all(m.rcpts == [b"bystander@local.example"] for m in s.messages())


def go_to(h, state):
    """Into a state of the transaction, by the straight way."""
    f = h.facts
    for name, message in (("mail", f.mail()), ("rcpt", f.rcpt()), ("data", f.data())):
        if STATES.index(name) <= STATES.index(state):
            assert h.verdict(message) == f["V_OK"]
    if state == "data":
        assert h.write(b"Subject: x\n") == 11 and h.call("close", 4) == 0


def broke_the_rules(server, h):
    """The warden ended the pair without a word, and said so in the log."""
    h.ended()
    poll(lambda: server.log("crash", client=h.source, msg=BROKE), "the end of the pair of " + h.source)
    assert len(server.log("crash", client=h.source)) == 1
    return True


# ---- The table -------------------------------------------------------------------------------------------------------

def test_the_table_is_whole(server):
    """A request that is new in msg.h belongs in here."""
    with Hostile(server) as h:
        assert set(h.facts.requests) == set(GATE) and h.facts["MSG_COUNT"] == len(GATE) + 1


def one_request(server, state, name):
    with Hostile(server) as h:
        f = h.facts
        go_to(h, state)
        h.say(f.good(name) if name in GATE else name(f))
        allowed, reply = GATE.get(name, ([], None))
        if state not in allowed:
            return broke_the_rules(server, h)
        if reply:
            data, fd = h.hear()
            fields = f.read(reply, data)
            assert fields["type"] == f[name] and (fd != -1) == (name == "MSG_DATA")
        if name == "MSG_COMMIT":
            server_forgets(server, fields["qid"])
        assert h.settle() == []
        assert not server.log("crash", client=h.source)
        return True


def server_forgets(server, qid):
    for where in ("todo", "intd"):
        os.unlink(os.path.join(server.queue, where, str(qid)))
    for n in os.listdir(os.path.join(server.queue, "mess")):
        path = os.path.join(server.queue, "mess", n, str(qid))
        if os.path.exists(path):
            os.unlink(path)


def test_every_request_in_every_state(server):
    """Each at its time, and at each wrong one; and numbers that are no request's."""
    odd = [lambda f, n=n: struct.pack("<II", n(f), 0) for n in (
        lambda f: 0, lambda f: f["MSG_COUNT"], lambda f: f["MSG_COUNT"] + 1, lambda f: 0x100 | f["MSG_RESET"], lambda f: 0x80000000 | f["MSG_RESET"],
        lambda f: 0xffffffff)]
    crowd = tools.Crowd({(s, n): lambda s=s, n=n: one_request(server, s, n) for s in STATES for n in [*GATE, *odd]})
    assert all(crowd[key] for key in crowd.futures)


def test_sizes(server):
    """Only the exact size will do."""
    def case(name, change):
        with Hostile(server) as h:
            go_to(h, GATE[name][0][0])
            message = change(h.facts, h.facts.good(name))
            h.say(message)
            if not message:
                # An empty message reads as the end: the pair goes, and nothing else happens.
                return h.ended()
            return broke_the_rules(server, h)
    changes = [lambda f, m: b"", lambda f, m: m[:1], lambda f, m: m[:3], lambda f, m: m[:4], lambda f, m: m[:-1], lambda f, m: m + b"\0", lambda f, m: m[:-4],
               lambda f, m: m + bytes(4), lambda f, m: (m * (f["BATCH_MAX"] + 1))[:f["BATCH_OCTETS"] + 1], lambda f, m: m + bytes(f["BATCH_OCTETS"] - len(m)),
               lambda f, m: m + bytes(65536), lambda f, m: m + bytes(100000)]
    crowd = tools.Crowd({(n, k): lambda n=n, c=c: case(n, c) for n in GATE for k, c in enumerate(changes)})
    assert all(crowd[key] for key in crowd.futures)


def test_lengths_inside(server):
    """Lengths of the texts in a message, up to those that lie outside of it."""
    cases = {}
    for name, field, most, least in (("MSG_SIGN", "len", 64, 0), ("MSG_AUTH", "user_len", 255, 0), ("MSG_AUTH", "pass_len", 255, 0),
                                     ("MSG_MAIL", "len", 256, 0), ("MSG_RCPT", "len", 256, 1), ("MSG_DATA", "helo_len", 255, 0)):
        for n in (most + 1, least - 1, most + 2, 1 << 8, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 4):
            if not least <= n & 0xffffffff <= most:
                cases[name, field, n] = lambda name=name, field=field, n=n: bad_length(server, name, field, n)
    crowd = tools.Crowd(cases)
    assert all(crowd[key] for key in crowd.futures)


def bad_length(server, name, field, n):
    with Hostile(server) as h:
        go_to(h, GATE[name][0][0])
        h.say(h.facts.request(name, **{field: n}))
        return broke_the_rules(server, h)


def test_descriptors_in_messages(server):
    """One of each kind that it has, or as many as go into a message: none is taken, and the pair ends."""
    def case(name, fd, count):
        with Hostile(server) as h:
            go_to(h, "rcpt" if fd == 4 else GATE[name][0][0])
            if fd == 4:
                assert h.verdict(h.facts.data()) == h.facts["V_OK"]
            h.hand_over(h.facts.good(name), count, fd)
            return broke_the_rules(server, h)
    cases = {(name, fd, 1): lambda name=name, fd=fd: case(name, fd, 1) for name in GATE for fd in (0, 2, 3)}
    for count in (2, 4, 5):
        cases["MSG_RESET", 3, count] = lambda count=count: case("MSG_RESET", 3, count)
    cases["MSG_COMMIT", 4, 1] = lambda: case("MSG_COMMIT", 4, 1)
    cases["MSG_COMMIT", 4, 3] = lambda: case("MSG_COMMIT", 4, 3)
    crowd = tools.Crowd(cases)
    assert all(crowd[key] for key in crowd.futures)
    # More of them than it may have open, in one message, in many, and in an empty one.
    for count in (6, 100, 253):
        with Hostile(server) as h:
            h.hand_over(h.facts.reset(), count, 2)
            assert broke_the_rules(server, h)
    with Hostile(server) as h:
        h.sock.sendall(h.record("m", h.facts.reset(), 5, 2) * 20)
        assert broke_the_rules(server, h)
    with Hostile(server) as h:
        h.say(b"", 3, 2)
        h.ended()


# ---- Lies ------------------------------------------------------------------------------------------------------------

def test_nothing_is_relayed_without_a_login(server):
    """A login that was refused, that nobody could answer for, or that never was; with TLS or with the word of it."""
    def lies(f):
        yield "nothing", []
        yield "the word of TLS", [f.request("MSG_TLSUP", version=0x303, suite=0xc02b), f.sign()]
        yield "a refused login", [f.auth("nobody", "x")]
        yield "no answer", [f.auth("silent", "x")]
        yield "no text", [f.auth("", "x"), f.request("MSG_AUTH", user_len=3, pass_len=1, user=b"y\0x", **{"pass": b"x"})]

    def case(profile, number):
        with Hostile(server, profile) as h:
            f = h.facts
            for message in list(lies(f))[number][1]:
                if profile in ("inside", "printer") and message[:4] == f.auth("x", "x")[:4]:
                    h.say(message)  # not there, and smtp knows
                    return broke_the_rules(server, h)
                if message[:4] == f.request("MSG_TLSUP")[:4]:
                    h.say(message)
                else:
                    data, _ = h.ask(message)
                    assert len(data) != f.size("msg_verdict") or f.read("msg_verdict", data)["verdict"] in (f["V_AUTH_REFUSED"], f["V_AUTH_LATER"], f["V_AUTH_TURN"])
            if profile != "smtp":
                for sender in ("me@client.example", "", "x@spam.example"):
                    assert h.verdict(f.mail(sender)) == f["V_NEED_LOGIN"]
                h.say(f.rcpt("you@far.example"))
                return broke_the_rules(server, h)
            assert h.verdict(f.mail("")) == f["V_OK"]
            for rcpt in ("you@far.example", "you@local.example.far.example", "you@far.example@local.example.net", "@local.example:you@far.example",
                         "you%far.example", "you!far@far.example", "\"x@local.example\"@far.example", "you@[127.0.0.1]", "you@"):
                assert h.verdict(f.rcpt(rcpt)) in (f["V_NO_RELAY"], f["V_BAD_ADDRESS"]), rcpt
            h.say(f.data())
            return broke_the_rules(server, h)
    crowd = tools.Crowd({(p, n): lambda p=p, n=n: case(p, n) for p in hostile.LISTEN for n in range(5)})
    assert all(crowd[key] for key in crowd.futures)


def test_batches_of_lies(server):
    """Several requests in one message: what depends on a refusal is not done, and what is not a request of that kind ends the pair."""
    with Hostile(server) as h:
        f = h.facts
        verdicts = lambda data: [v for _, v in struct.iter_unpack("<II", data)]
        data, fd = h.ask(f.mail() + f.rcpt("you@far.example") + f.data())
        assert verdicts(data) == [f["V_OK"], f["V_NO_RELAY"], f["V_SKIPPED"]] and fd == -1
        h.say(f.reset())
        data, fd = h.ask(f.mail("x@spam.example") + f.rcpt() + f.data() + f.rcpt())
        assert verdicts(data) == [f["V_SENDER_REFUSED"]] + [f["V_SKIPPED"]] * 3 and fd == -1
        data, fd = h.ask(f.mail() + f.rcpt("you@far.example") + f.mail() + f.rcpt() + f.data())
        assert verdicts(data) == [f["V_OK"], f["V_NO_RELAY"], f["V_SKIPPED"], f["V_OK"], f["V_OK"]] and fd == 4
        assert h.settle() == []
    for make_batch in (lambda f: f.mail() + f.rcpt() + f.data() + f.rcpt(), lambda f: f.mail() + f.mail(), lambda f: f.mail() + f.reset(),
                       lambda f: f.mail() + f.rcpt() + f.commit(), lambda f: f.reset() + f.mail(), lambda f: f.data() + f.mail() + f.rcpt(),
                       lambda f: f.rcpt() + f.mail(), lambda f: f.auth("yes", "x") + f.mail(), lambda f: f.mail() + f.rcpt() * f["BATCH_MAX"],
                       lambda f: f.mail() + f.rcpt()[:-1], lambda f: f.mail() + f.rcpt() + b"\x08"):
        with Hostile(server) as h:
            h.say(make_batch(h.facts))
            assert broke_the_rules(server, h)


def test_a_login_once(server, slow):
    """Not a second time, not more often than a session may, and not in a transaction."""
    with Hostile(server, "submission") as h:
        f = h.facts
        assert h.verdict(f.auth("yes", "x")) == f["V_OK"]
        assert h.verdict(f.mail()) == f["V_OK"] and h.verdict(f.rcpt("you@far.example")) == f["V_OK"]
        h.say(f.reset())
        h.say(f.auth("yes", "x"))
        assert broke_the_rules(server, h)
    assert slow["login nobody"] and slow["login "]


def test_once_only(server):
    """One signature, one TLS session, of each connection."""
    for name in ("MSG_SIGN", "MSG_TLSGET", "MSG_TLSPUT", "MSG_TLSUP"):
        with Hostile(server) as h:
            h.say(h.facts.good(name))
            if GATE[name][1]:
                h.hear()
            h.say(h.facts.good(name))
            assert broke_the_rules(server, h)


def test_a_signature_and_nothing_else(server, scratch):
    """Of a hash, with the key of the certificate; for anything else there is none, and the rest of the answer is empty."""
    cert = os.path.join(server.control, "servercert.pem")
    public = tools.write(os.path.join(scratch, "key"), tools.run("openssl", "x509", "-in", cert, "-noout", "-pubkey").stdout)
    text = tools.write(os.path.join(scratch, "text"), b"a text of the attacker's choice")
    for hash_id, name in ((4, "sha256"), (5, "sha384"), (6, "sha512")):
        with Hostile(server) as h:
            data, _ = h.ask(h.facts.sign(hash_id, hashlib.new(name, tools.read(text)).digest()))
            reply = h.facts.read("msg_sign_reply", data)
            size, sig = reply["len"], reply["sig"]
            assert 64 < size <= 80 and sig[size:] == bytes(len(sig) - size) and len(sig) == 512
            tools.write(os.path.join(scratch, "sig"), sig[:size])
            tools.run("openssl", "dgst", "-" + name, "-verify", public, "-signature", os.path.join(scratch, "sig"), text)
    for hash_id, size in ((4, 0), (4, 31), (4, 33), (4, 48), (5, 32), (6, 48), (0, 32), (1, 36), (2, 20), (3, 28), (7, 32), (0xffffffff, 32), (0x104, 32)):
        with Hostile(server) as h:
            data, _ = h.ask(h.facts.sign(hash_id, bytes(size)))
            assert data == h.facts.build("msg_sign_reply", type=h.facts["MSG_SIGN"])


def test_tls_sessions_of_others(server):
    """Given to the address that made them, whole; to another not one octet."""
    mine, theirs = tools.fresh_address(hostile.NET), tools.fresh_address(hostile.NET)
    ident, master = os.urandom(32), os.urandom(48)
    with Hostile(server, source=mine) as h:
        f = h.facts
        h.say(f.request("MSG_TLSPUT", found=1, version=0x303, suite=0xc02b, id=ident, master=master))
        assert h.settle() == []
    for source, asked in ((theirs, ident), (mine, os.urandom(32)), (mine, bytes(32)), (mine, ident)):
        with Hostile(server, source=source) as h:
            data, _ = h.ask(f.request("MSG_TLSGET", id=asked))
            if (source, asked) == (mine, ident):
                assert data == f.build("msg_tlssession", type=f["MSG_TLSGET"], found=1, version=0x303, suite=0xc02b, master=master)
            else:
                assert data == f.build("msg_tlssession", type=f["MSG_TLSGET"])


def test_lies_in_the_log(server):
    """Wrong facts, but no line of its own, no end of lines, and a bounded number."""
    with Hostile(server) as h:
        f = h.facts
        before = len(server.log(client=h.source))
        h.say(f.request("MSG_TLSUP", version=0xffff, suite=0xffff, resumed=0xffffffff))
        for n in range(3000):
            h.say(f.note(1 + n % (f["NOTE_COUNT"] - 1), (-1) ** n << 62))
        assert h.verdict(f.mail()) == f["V_OK"]
        for n in range(1000):
            assert h.verdict(f.rcpt("ev=accept\xa0from=<%d>@far.example" % n)) == f["V_NO_RELAY"]
        assert h.settle() == []
    close = server.wait_log("close", client=h.source)
    assert close["refused"] == "1000" and close["msgs"] == "0"
    assert len(server.log(client=h.source)) - before <= 64 + 64 + 4
    for text in ("a\nev=auth@far.example", "a\0b@far.example", "a\x7f@far.example", "\x1b[2J@far.example"):
        with Hostile(server) as h:
            h.say(h.facts.mail(text))
            assert broke_the_rules(server, h)


# ---- The message -----------------------------------------------------------------------------------------------------

def commit(h, octets=0):
    data, _ = h.ask(h.facts.commit(octets))
    out = h.facts.read("msg_commit_reply", data)
    assert out["type"] == h.facts["MSG_COMMIT"] and abs(out["time"] - time.time()) < 60
    return out


def received(server, reply):
    """The message in the queue, taken out of it."""
    (m,) = [m for m in server.messages() if m.id == reply["qid"]]
    server_forgets(server, reply["qid"])
    return m


def test_commit_without_data(server):
    """The file is as the warden made it: a message without a line, as a client may send one. And once only."""
    with Hostile(server) as h:
        go_to(h, "rcpt")
        assert h.verdict(h.facts.data()) == h.facts["V_OK"] and h.call("close", 4) == 0
        m = received(server, commit(h))
        assert m.body == b"" and len(m.head) == 3
        h.say(h.facts.commit())
        assert broke_the_rules(server, h)


def test_what_is_in_a_message_is_its_own(server):
    """The warden does not read messages: whatever octets it likes, but under trace lines that are not its own, with whole lines only."""
    helo = b"x)\nX-Forged: 1\r\n (127.0.0.1)\0"
    for body, ok in ((b"\0\r\rbare\x80\xff\n", 1), (b"Received: from nowhere\n\n.\n..\n", 1), (b"no end", 0), (b"cr\r", 0), (b"\0", 0), (b"\n", 1)):
        with Hostile(server) as h:
            f = h.facts
            assert h.verdict(f.mail("me@client.example")) == f["V_OK"] and h.verdict(f.rcpt()) == f["V_OK"]
            assert h.verdict(f.data(helo)) == f["V_OK"]
            assert h.write(body) == len(body) and h.call("close", 4) == 0
            reply = commit(h, 1 << 63)
            assert reply["verdict"] == (f["V_OK"] if ok else f["V_SPOOL_ERROR"])
            if ok:
                m = received(server, reply)
                assert m.body == body and len(m.head) == 3
                assert "(%s)" % h.source in m.received and "X-Forged" not in "".join(x.decode() for x in m.head if not b"HELO" in x)
                assert m.received.count(" by mail.example.net with ") == 1


def test_oversize(server):
    """It can write until the limit, and a head's length beyond it, and not an octet more."""
    with Hostile(server) as h:
        f = h.facts
        go_to(h, "rcpt")
        assert h.verdict(f.data()) == f["V_OK"]
        total, block = 0, b"x" * 65535 + b"\n"
        while True:
            n = h.write(block)
            if n <= 0:
                break
            total += n
        assert n == -errno.EFBIG and DATABYTES < total <= DATABYTES + f["SPOOL_HEAD_MAX"]
        assert h.call("close", 4) == 0
        assert commit(h)["verdict"] == f["V_SPOOL_ERROR"]  # its last line has no end
    poll(lambda: server.log("close", client=h.source), "its end")


def test_a_kept_descriptor(server):
    """Who can still write to the message is not told that it is safe; and cannot, once it was told."""
    def write_on(h):
        assert h.write(b"kept\n") == 5

    for keep in (write_on, lambda h: None):
        with Hostile(server) as h:
            go_to(h, "rcpt")
            assert h.verdict(h.facts.data()) == h.facts["V_OK"]
            keep(h)
            h.say(h.facts.commit())
            assert broke_the_rules(server, h)
    with Hostile(server) as h:
        go_to(h, "rcpt")
        h.say(h.facts.data())
        h.say(h.facts.commit())
        try:
            assert h.hear()[1] != -1
        except Gone:
            pass  # ended before it could tell us
        assert broke_the_rules(server, h)
    # In a message to the warden that it has not read yet.
    with Hostile(server) as h:
        go_to(h, "rcpt")
        assert h.verdict(h.facts.data()) == h.facts["V_OK"]
        batch = h.record("m", h.facts.commit()) + h.record("m", h.facts.reset(), 1, 4) + h.record("x", hostile.system_call("close", 4))
        h.sock.sendall(batch)
        assert broke_the_rules(server, h)
    # And who forgets a message lets go of its file before.
    with Hostile(server) as h:
        go_to(h, "rcpt")
        assert h.verdict(h.facts.data()) == h.facts["V_OK"]
        h.say(h.facts.reset())
        assert broke_the_rules(server, h)


def test_descriptors_on_their_way(server):
    """
    The kernel counts descriptors that were sent and not yet taken, over all processes of a user, against a limit of each process. Two dozen
    that did not take theirs, or one that let answers lie, kept everybody from DATA; a busy machine might have done it, too.
    """
    sleep = hostile.system_call("poll", 0, 0, 4000)
    held = []
    for _ in range(60):
        h = Hostile(server)
        f = h.facts
        h.sock.sendall(h.record("m", f.mail() + f.rcpt() + f.data()) + h.record("x", sleep))
        held.append(h)
    deaf = Hostile(server)
    deaf.sock.sendall((deaf.record("m", f.mail() + f.rcpt() + f.data()) + deaf.record("m", f.reset())) * 200 + deaf.record("x", sleep))
    poll(lambda: server.log("crash", client=deaf.source, msg=BROKE), "the end of one that does not take what it asked for")
    poll(lambda: sum(x.startswith("mess/") for x in server.files()) >= 60, "all of them to have a file")
    for _ in range(3):
        with server.session("smtp") as c:
            c.mail(rcpts=["bystander@local.example"])
            c.quit()
    for h in [*held, deaf]:
        h.sock.close()
    assert not [e for e in server.log("crash") if e["client"] in [h.source for h in held]]


def test_written_while_it_is_committed(server):
    """It appends all the time while it says that it is done: either it is caught, or what is stored is what it was."""
    caught = 0
    for n in range(20):
        with Hostile(server) as h:
            go_to(h, "rcpt")
            assert h.verdict(h.facts.data()) == h.facts["V_OK"]
            h.poke(b"racing\n")
            where = h.scratch
            write, wait = (h.record("x", hostile.system_call(*c)) for c in (("write", 4, where, 7), ("poll", 0, 0, 40)))
            records = [write] * 30 + [h.record("x", hostile.system_call("close", 4))]
            records.insert(n * 31 // 19, h.record("m", h.facts.commit()))
            if n % 4 == 0:
                records.insert(-1, wait)  # the file stays open for a while
            h.sock.sendall(b"".join(records))
            for _ in range(len(records) - 1):
                try:
                    h.take("x")
                except Gone:
                    break
            try:
                reply = h.facts.read("msg_commit_reply", h.hear()[0])
            except Gone:
                caught += 1
                continue
            assert reply["verdict"] == h.facts["V_OK"]
            m = received(server, reply)
            assert set(m.body.splitlines()) <= {b"racing"} and m.body.endswith(b"\n")
    assert caught > 0


# ---- Staying ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module", autouse=True)
def slow(world):
    """What takes some seconds, begun first: smtp processes that live on when their warden is gone, and logins that are refused."""
    s = world[0]

    def too_many(wrong):
        with Hostile(s, "submission") as h:
            for _ in range(h.facts["AUTH_TRIES_MAX"]):
                assert h.verdict(h.facts.auth(wrong, "x")) == h.facts["V_AUTH_REFUSED"]
            h.say(h.facts.auth("yes", "x"))
            return broke_the_rules(s, h)

    def stay(how):
        with Hostile(s) as h:
            pid = h.pids()[1]
            if how == "quiet":
                h.put("e")
            else:
                h.say(b"rubbish")
            begin = time.monotonic()
            if how == "busy":
                h.put("x", b"L")
            h.wait_gone(40)
            poll(lambda: not any(p.pid == pid and p.state != "Z" for p in tools.processes()), "the end of %d" % pid)
            return time.monotonic() - begin
    return tools.Crowd({**{how: lambda how=how: stay(how) for how in STAYERS}, **{"login " + w: lambda w=w: too_many(w) for w in ("nobody", "")}})


STAYERS = ["quiet", "ended", "busy"]


@pytest.mark.parametrize("how", STAYERS)
def test_it_does_not_stay(slow, how):
    """With its warden gone it is ended by main."""
    assert slow[how] < 15


def test_it_makes_room(make_server, quick_binary, quick_hostile_binary):
    """All places are held: by one that computes, one whose warden waits for it to read, and some that heed no signal. A customer gets in."""
    assert quick_binary
    server = make_server(radius=None, binary=quick_hostile_binary, listen=hostile.LISTEN)
    server.crash_expected = True
    held = []
    for n in range(6):
        h = Hostile(server)
        if n % 3 == 0:
            h.put("x", b"L")
        elif n % 3 == 1:
            h.sock.settimeout(1)
            try:
                for _ in range(20000):
                    h.say(h.facts.mail("x@client.example") + h.facts.rcpt())
                    h.say(h.facts.reset())
            except (OSError, Gone):
                pass
        held.append(h)
    begin = time.monotonic()

    def customer():
        try:
            with server.session("submissions", login=None) as c:
                return c.cmd("NOOP") == 250
        except (AssertionError, smtpc.Closed, OSError):
            return False
    poll(customer, "a customer to get in")
    assert time.monotonic() - begin < 8
    for h in held:
        h.sock.close()


@pytest.mark.parametrize("victims", ["main", "main and warden"])
def test_it_ends_with_main(make_server, hostile_binary, victims):
    """Nobody is left who might end it: the kernel does."""
    server = make_server(radius=None, binary=hostile_binary, listen=hostile.LISTEN)
    with Hostile(server) as h:
        warden, smtp = h.pids()
        h.put("x", b"L")
        for pid in (server.pid, warden)[:2 if "warden" in victims else 1]:
            os.kill(pid, 9)
        server.wait_exit(-9)
        poll(lambda: not any(p.pid in (smtp, warden) and p.state != "Z" for p in tools.processes()), "its end")
    poll(lambda: not server.left(), "the end of all")


def under_inetd(server, profile="smtp"):
    """(process, session): a hostile smtp process whose warden is the process that inetd started."""
    source = tools.fresh_address(hostile.NET)
    here, there = socket.socketpair()
    with open(server.logfile, "ab") as log:
        process = subprocess.Popen(server.argv("inetd", "-e", "-H", server.home, "-P", profile), stdin=there, stdout=there, stderr=log,
                                   env={**harness.environment(), "TCPREMOTEIP": source}, start_new_session=True)
    there.close()
    return process, Hostile(server, source=source, sock=here)


def test_the_same_under_inetd(make_server, hostile_binary):
    """No main, no nurseries; the same table, the same filters."""
    server = make_server(radius=None, binary=hostile_binary, listen=hostile.LISTEN, start=False)
    process, h = under_inetd(server, "submission")
    with h:
        assert h.verdict(h.facts.mail()) == h.facts["V_NEED_LOGIN"]
        h.say(h.facts.rcpt())
        assert h.ended()
    assert process.wait(30) == 99 and server.log("crash", client=h.source, msg=BROKE)
    process, h = under_inetd(server)
    with h:
        go_to(h, "rcpt")
        assert h.verdict(h.facts.rcpt("you@far.example")) == h.facts["V_NO_RELAY"]
        with pytest.raises(Gone):
            h.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    assert process.wait(30) == 99 and server.log("crash", client=h.source, signal=31)
    assert server.files() == []


@pytest.mark.long
@root
def test_the_alarm(make_server, quick_hostile_binary):
    """Under inetd its parent is another user, and nobody but an alarm ends one that computes, or sleeps, when its warden is gone."""
    server = make_server(radius=None, binary=quick_hostile_binary, listen=hostile.LISTEN, start=False)
    process, h = under_inetd(server)
    with h:
        assert h.scratch  # it is there
        (smtp,) = tools.children(process.pid)
        h.put("x", b"L")
        process.kill()
        process.wait(20)
        begin = time.monotonic()
        poll(lambda: not any(p.pid == smtp.pid and p.state != "Z" for p in tools.processes()), "its end", 150, 0.5)
        assert 30 < time.monotonic() - begin < 140


@root
def test_spool_errors_in_the_log(make_server, hostile_binary):
    """A spool that cannot be written to cost a log line for each DATA, without end."""
    server = make_server(radius=None, binary=hostile_binary, listen=hostile.LISTEN)
    os.chmod(os.path.join(server.queue, "pid"), 0o500)
    with Hostile(server) as h:
        go_to(h, "rcpt")
        for _ in range(500):
            assert h.verdict(h.facts.data()) == h.facts["V_SPOOL_ERROR"]
        assert h.settle() == []
    poll(lambda: server.log("close"), "the end")
    assert len(server.log("spool")) == 64 and len(server.log("refuse")) == 64
    os.chmod(os.path.join(server.queue, "pid"), 0o700)
