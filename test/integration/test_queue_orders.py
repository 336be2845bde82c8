# SPDX-License-Identifier: MIT
"""What tools may ask the scheduler of a running server, over the control socket: ctl.h, relayctl.c."""

import os
import signal
import socket
import struct
import time

import pytest

import harness
import remote
import tools
from test_delivery import delivering, empty, messages, send
from tools import poll

pytestmark = pytest.mark.release
ASK = struct.Struct("=IIQ")
ENTRY = struct.Struct("=QqqIHBB")
LIST, FLUSH, HOLD, RELEASE, REMOVE, BOUNCE = 17, 20, 21, 22, 23, 24
DONE, NOBODY, NONE, BUSY, FAILED, IS_HELD = range(6)
TIMED, DUE, WAITING, RUNNING, HELD = range(5)
HOLD_TIME = 2147400000


class Tool:
    """A conversation with the scheduler."""

    def __init__(self, server):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(server.ctl)
        self.sock.settimeout(tools.PATIENCE)

    def ask(self, kind, arg=0):
        self.sock.send(ASK.pack(0x6D737402, kind, arg))
        return self.sock.recv(8192)

    def order(self, kind, n):
        return struct.unpack("=II", self.ask(kind, n))[0]

    def list(self):
        """{id: state}"""
        found, at = {}, 0
        while True:
            answer = self.ask(LIST, at)
            rc, n, at = struct.unpack_from("=IIQ", answer)
            assert rc == DONE
            for i in range(n):
                e = ENTRY.unpack_from(answer, 16 + i * ENTRY.size)
                assert e[0] not in found
                found[e[0]] = e[5]
            if at == 0:
                return found

    def close(self):
        self.sock.close()


def queued(server, tool, n):
    send(server, n)
    return poll(lambda: (lambda found: len(found) == n and set(found.values()) <= {WAITING, TIMED} and found)(tool.list()), "%d messages that wait" % n)


def ready(server):
    def try_it():
        t = Tool(server)
        try:
            return t if len(t.ask(LIST)) > 8 else t.close()
        except OSError:
            return t.close()
    return poll(try_it, "the scheduler")


def test_orders(down):
    """Hold, release, remove, return, flush: each message goes where it was told, over a restart, ALRM and HUP."""
    server, start = down
    t = ready(server)
    held, removed, returned, plain = sorted(queued(server, t, 4))
    assert t.order(FLUSH, 1) == NONE and t.order(REMOVE, 2 ** 63) == NONE
    assert t.order(HOLD, held) == DONE and t.order(HOLD, held) == DONE
    assert t.order(FLUSH, held) == IS_HELD
    (path,) = [p for p in server.files() if p.startswith("remote/") and p.endswith("/%d" % held)]
    assert os.stat(os.path.join(server.queue, path)).st_mtime == HOLD_TIME
    assert t.order(REMOVE, removed) == DONE and t.order(REMOVE, removed) == NONE
    assert not [p for p in server.files() if p.endswith("/%d" % removed)]
    assert server.wait_log("remove", id=removed)
    assert t.order(BOUNCE, returned) == DONE
    assert server.wait_log("bounce", id=returned, to="alice@client.example")
    assert t.list()[held] == HELD and plain in t.list()
    t.close()
    server.reload()
    poll(lambda: [e for e in server.log("queue") if e["msg"].startswith("the scheduler ends")], "the old scheduler to end", 40)
    t = ready(server)
    assert poll(lambda: len(t.list()) == 3 and t.list(), "all three")[held] == HELD
    (scheduler,) = [p.pid for p in tools.children(server.pid) if p.name == "stile-relay"]
    os.kill(scheduler, signal.SIGALRM)
    server.wait_log("queue", msg="everything is due now")
    with start() as peer:
        for n in t.list():
            t.order(FLUSH, n)
        poll(lambda: set(t.list()) == {held}, "the others to arrive", 40)
        arrived = messages(peer)
        assert len(arrived) == 2 and [m for m in arrived if b"has returned the message" in m]
        assert t.list() == {held: HELD}
        assert t.order(RELEASE, held) == DONE
        poll(lambda: empty(server), "an empty queue, there is %r" % server.files())
        assert len(messages(peer)) == 3 and t.list() == {}
        t.close()
        server.stop()


def test_return_local(make_server, scratch):
    """What stays for programs of this host is returned with what waits for another one."""
    box = os.path.join(scratch, "box")
    for d in ("", "/tmp", "/new", "/cur"):
        os.mkdir(box + d, 0o700)
        if tools.ROOT:
            os.chown(box + d, harness.USERS["qmailq"], -1)
    peer = remote.Peer()
    peer.stop()
    server = delivering(make_server, peer, control={"locals": "home.example\n", "localmaildirs": "other@home.example:%s\n" % box})
    t = ready(server)
    send(server, rcpts=["joe@home.example", "bob@far.example"])
    (n,) = poll(t.list, "the message")
    poll(lambda: [f for f in server.files() if f.startswith("local/")] and t.list()[n] in (TIMED, WAITING), "it to wait")
    assert t.order(BOUNCE, n) == DONE
    assert server.wait_log("bounce", id=n, to="alice@client.example")
    (bounce,) = poll(t.list, "only the bounce")
    assert bounce != n
    with remote.Peer(port=peer.port) as peer:
        t.order(FLUSH, bounce)
        poll(lambda: empty(server), "an empty queue")
        (text,) = messages(peer)
        for rcpt in ("joe@home.example", "bob@far.example"):
            assert b"<%s>:" % rcpt.encode() in text
        t.close()
        server.stop()


def test_busy(make_server):
    """What is on its way is not taken from it; a hold comes into force when the attempt has failed."""
    with remote.Peer(answers={"dot": remote.STALL}) as peer:
        server = delivering(make_server, peer, control={"timeoutremote": "4\n"})
        send(server)
        poll(lambda: any(b"DATA" in x.lines for x in peer.talks), "a delivery")
        t = ready(server)
        ((n, state),) = t.list().items()
        assert state == RUNNING
        assert t.order(REMOVE, n) == BUSY and t.order(BOUNCE, n) == BUSY
        assert t.order(HOLD, n) == DONE
        poll(lambda: t.list() == {n: HELD}, "the attempt to end", 20)
        assert t.order(REMOVE, n) == DONE
        poll(lambda: empty(server), "an empty queue")
        t.close()
        server.stop()


def test_killed(down):
    """kill -9 of the scheduler right after an order: what was answered holds."""
    server, _ = down
    server.crash_expected = True
    t = ready(server)
    a, b, c, d = sorted(queued(server, t, 4))
    for kind, n in ((HOLD, a), (REMOVE, b), (BOUNCE, c)):
        assert t.order(kind, n) == DONE
    (scheduler,) = [p.pid for p in tools.children(server.pid) if p.name == "stile-relay"]
    os.kill(scheduler, signal.SIGKILL)
    t.close()
    poll(lambda: [p for p in tools.children(server.pid) if p.name == "stile-relay" and p.pid != scheduler], "another scheduler", 40)
    t = ready(server)

    def settled():
        found = t.list()
        return len(found) == 3 and c not in found and found
    found = poll(settled, "held, plain and the bounce")
    assert found[a] == HELD and d in found
    # The third one is the bounce, from nobody, though it may have the number of the one that was removed before it.
    (bounce,) = set(found) - {a, d}
    (path,) = [p for p in server.files() if p.startswith("info/") and p.endswith("/%d" % bounce)]
    assert tools.read(os.path.join(server.queue, path)) == b"F\0"
    t.close()


def test_malformed(down):
    """Nonsense ends that conversation and no other one; only so many at a time."""
    server, _ = down
    t = ready(server)
    queued(server, t, 1)
    for what in (b"x", ASK.pack(0, LIST, 0), ASK.pack(0x6D737402, 99, 0), ASK.pack(0x6D737402, LIST, 0) * 2):
        bad = ready(server)
        bad.sock.send(what)
        assert bad.sock.recv(10) == b""
        bad.close()
    assert t.ask(LIST, 2 ** 64 - 1)[:8] == struct.pack("=II", DONE, 0)
    more = []
    for _ in range(6):
        more.append(ready(server))
        time.sleep(0.01)
    assert more[-1].list()
    alive = 0
    for x in (t, *more):
        try:
            alive += len(x.ask(LIST)) > 8
        except OSError:
            pass
    assert alive == 4
    for x in more:
        x.close()
    t.close()
