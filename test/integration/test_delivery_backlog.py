# SPDX-License-Identifier: MIT
"""A next hop that is down while mail comes in, and then is not: all of it arrives, once, as fast as it takes it. make test-long: 10,000 messages."""

import collections
import re
import threading
import time

import pytest

import remote
import smtpc
import tools
from tools import poll

pytestmark = [pytest.mark.release, pytest.mark.root]

MANY = 10000 if tools.LONG else 1000
LIMIT = 10
DOWN = {"greet": b"421 4.3.2 not now\r\n"}


def memory(pid):
    """KiB of its own."""
    text = tools.read("/proc/%d/smaps_rollup" % pid).decode()
    return sum(int(x) for x in re.findall(r"^Private_\w+: +(\d+)", text, re.M))


def scheduler(server):
    (p,) = [p for p in tools.children(server.pid) if p.name == "stile-relay"]
    return p.pid


def submit(server, first, step, acknowledged):
    with server.session("inside") as c:
        for i in range(first, MANY, step):
            c.envelope("alice@client.example", ["r%d@far.example" % i])
            c.cmd("DATA", 354)
            c.send(smtpc.MESSAGE + b".\r\n")
            if c.reply() == 250:
                acknowledged.add("r%d@far.example" % i)
        c.quit()


def test_backlog(request):
    """
    While it is down it is asked by one connection at a time, after the first ones have learnt that. When it is up the first connection is
    that one, and once it has been heard there are as many as there may be, and never more.
    """
    server = request.getfixturevalue("make_server" if tools.LONG else "make_ram_server")(
        listen={"inside": "inside 127.0.0.1:{}"}, split=23,
        control={"relay": "on\n", "smtproutes": "", "concurrencyremote": "%d\n" % LIMIT}, start=False)
    with remote.Peer(answers=dict(DOWN), backlog=64) as peer:
        server.set(smtproutes=remote.route(peer))
        server.start()
        pid = poll(lambda: [p.pid for p in tools.children(server.pid) if p.name == "stile-relay"], "the scheduler")[0]
        acknowledged = set()
        begin = time.monotonic()
        threads = [threading.Thread(target=submit, args=(server, k, 4, acknowledged)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        accepted_in = time.monotonic() - begin
        assert len(acknowledged) == MANY
        poll(lambda: len(server.log("queued")) == MANY, "all in the scheduler's hands", 120)
        probes = len(server.log("backoff"))
        # Those that began before it was known, and one for each time it has been tried since.
        assert 1 <= len(peer.talks) <= LIMIT + probes and peer.most <= LIMIT, (len(peer.talks), probes, peer.most)
        full = memory(pid)
        with peer.lock:  # nobody connects meanwhile, to hear the old greeting
            before, peer.most, peer.busiest, peer.answers = len(peer.talks), 0, 0, {}
        up = time.monotonic()
        poll(lambda: len(peer.talks) > before, "the probe", 200)
        first = time.monotonic()
        done = lambda: sum(len(t.messages) for t in peer.talks) >= MANY  # noqa: E731
        poll(done, "all messages", 60 + MANY / 10, 0.05)
        drained = time.monotonic() - first
        poll(lambda: not [f for f in server.files() if not f.startswith("lock")], "an empty queue", 120, 0.1)
        got = collections.Counter(a for t in peer.talks for a in t.taken())
        assert set(got) == acknowledged and set(got.values()) == {1}
        # One that has had its last message may still be saying goodbye while the next one connects.
        assert peer.busiest <= LIMIT <= peer.most, (peer.busiest, peer.most)
        # The next one began when the probe had been told that the message is taken.
        probe = peer.talks[before]
        assert probe.messages and probe.end == "quit"
        assert scheduler(server) == pid and not server.log("deliver", result="fail")
        empty = memory(pid)
        # A queued message costs 64 octets; when all have gone nothing has grown but that.
        assert full < 400 + MANY * 64 // 1024 and empty <= full + 64, (full, empty)
        print("%d messages taken in %.1f s; first connection %.1f s after it was up; delivered in %.1f s: %.0f/s; scheduler %d KiB with all, %d KiB at the end"
              % (MANY, accepted_in, first - up, drained, MANY / drained, full, empty))
        server.stop()
