# SPDX-License-Identifier: MIT
"""
RELAY_QMAIL_LOG: what the scheduler does, in qmail-send's words. Each line is read as programs read them that count in such a log; together they must
tell a story in which nothing begins twice, and all ends.
"""

import collections
import os
import re
import shutil
import signal

import pytest

import delivery
import tools
from delivery import LIFETIME, Clock, Nursery, Queue, Scheduler
from tools import poll

pytestmark = pytest.mark.release

WORD = r"[!-$&-~]*"  # printable, no space, no percent sign
LINES = {
    "new": r"new msg (\d+)",
    "info": r"info msg (\d+): bytes (\d+) from <(%s)> qp (\d+) uid (\d+)" % WORD,
    "start": r"starting delivery (\d+): msg (\d+) to (local|remote) (%s)" % WORD,
    "status": r"status: local (\d+)/(\d+) remote (\d+)/(\d+)( exitasap)?",
    "end_delivery": r"delivery (\d+): (success|failure|deferral): (%s)" % WORD,
    "bounce": r"bounce msg (\d+) qp (\d+)",
    "double": r"double bounce: discarding bounce/(\d+)",
    "triple": r"triple bounce: discarding bounce/(\d+)",
    "end": r"end msg (\d+)",
    "exiting": r"status: exiting",
}


class Story:
    """The lines of one life of the scheduler."""

    def __init__(self, text):
        self.alive, self.msgs, self.running = {}, [], {}
        self.outcomes = collections.defaultdict(list)  # address: [(where, verdict, words)]
        self.count = collections.Counter()
        self.last = 0
        for line in text.splitlines():
            if line.startswith("ev="):
                continue
            found = [(k, m.groups()) for k, m in ((k, re.fullmatch(r, line)) for k, r in LINES.items()) if m]
            assert len(found) == 1, (line, found)
            ((kind, f),) = found
            self.count[kind] += 1
            getattr(self, "on_" + kind, lambda *_: None)(*f)

    def on_new(self, n):
        assert n not in self.alive  # a number may come again, when the message is gone
        self.alive[n] = None

    def on_info(self, n, size, sender, qp, uid):
        assert self.alive[n] is None
        self.alive[n] = (sender, int(size), int(qp), int(uid))
        self.msgs.append(self.alive[n])

    def on_end(self, n):
        self.alive.pop(n, None)

    def on_start(self, d, n, where, addr):
        assert int(d) == self.last + 1 and d not in self.running
        self.last = int(d)
        self.running[d] = (n, where, addr)

    def on_end_delivery(self, d, verdict, words):
        _, where, addr = self.running.pop(d)
        self.outcomes[addr].append((where, verdict, words))

    def on_status(self, local, local_max, remote, remote_max, _):
        assert (local, local_max) == ("0", "0") and int(remote) <= int(remote_max)


def test_all_outcomes(work, tmp_path):
    """Success, failure, deferral, expiry, no attempt at all, local ones, bounces, double and triple ones, a cut at the end: every line is of the form."""
    binary = shutil.copy2(delivery.build(False, "scheduler-qlog", "qlog/scheduler"), os.path.join(work, "scheduler-qlog"))
    home = str(tmp_path / "home")
    q = Queue(home, localdelivery="bounce\n", virtualdomains="v.example:virt\n", smtproutes=":relay.example.net\n", queuelifetime="%d\n" % LIFETIME)
    stall = []

    def act(job):
        for i, a in enumerate(job.rcpts):
            if a.startswith("stall"):
                stall.append(job)
                return
            klass = "D" if a.startswith("bad") else "Z" if a.startswith("late") else "K"
            job.report(i, klass, {"K": 250, "Z": 451, "D": 550}[klass], "192.0.2.1 says:\n50% of it, \x7f and tabs\tmore\n")
        job.done()
    nursery = Nursery(act)
    clock = Clock(os.path.join(home, "clock"))
    names = {}
    body = b"Subject: a\n\nx\n"
    names["mixed"] = q.todo(sender='"a b%"@far.example', rcpts=["ok@b.example", "bad@b.example", "later@b.example", "u@v.example", "no-host@"], body=body, trigger=False)
    names["single"] = q.todo(rcpts=["bad1@b.example"], trigger=False)
    names["double"] = q.todo(sender="", rcpts=["bad2@b.example"], trigger=False)
    names["triple"] = q.todo(sender="#@[]", rcpts=["bad3@b.example"], trigger=False)
    names["nobody"] = q.todo(rcpts=[], trigger=False)
    names["old"] = q.queued(remote=("Tlate@old.example",), age=LIFETIME + 100)
    names["unreadable"] = q.queued(remote=("Ttom@b.example",))
    os.unlink(q.name("mess", names["unreadable"]))
    os.mkdir(q.name("mess", names["unreadable"]))
    Scheduler.other = r"(new|info|starting|delivery|status:|bounce|double|triple|end) "
    try:
        s = Scheduler(binary, q, nursery, clock)
        poll(lambda: set(q.all()) == {names["mixed"], names["unreadable"]}, "all but what waits")
        q.todo(rcpts=["stall@b.example"])
        poll(lambda: stall, "a delivery that hangs")
        s.signal(signal.SIGTERM)
        s.wait_log("queue", msg="ending, or starting over, when 1 deliveries are done: 20 seconds at most")
        s.pass_(21)
        s.wait_exit()
    finally:
        Scheduler.other = None
        nursery.close()
    story = Story(tools.read(os.path.join(home, "log")).decode())
    assert not story.running
    assert {addr: [(w, v) for w, v, _ in found] for addr, found in story.outcomes.items()} == {
        "ok@b.example": [("remote", "success")], "bad@b.example": [("remote", "failure")], "later@b.example": [("remote", "deferral")],
        "virt-u@v.example": [("local", "failure")], "no-host@": [("remote", "failure")], "bad1@b.example": [("remote", "failure")],
        "bad2@b.example": [("remote", "failure")], "bad3@b.example": [("remote", "failure")], "late@old.example": [("remote", "failure")],
        "tom@b.example": [("remote", "deferral")], "stall@b.example": [("remote", "deferral")], "ann@far.example": [("remote", "success")] * 2,
        "postmaster@mail.example.net": [("remote", "success")]}
    assert story.outcomes["ok@b.example"][0][2] == "192.0.2.1_says:/50__of_it,___and_tabs_more"
    assert ('"a_b_"@far.example', len(delivery.RECEIVED + body), 4711, 1000) in story.msgs
    assert {m[0] for m in story.msgs} == {'"a_b_"@far.example', "ann@far.example", "", "#@[]"}
    c = story.count
    # Bounces: of `mixed` none yet; of `single`, `double` and `old` one each.
    assert c["bounce"] == 3 and c["triple"] == 1 and c["double"] == 0 and c["exiting"] == 1
    # Ended: single, double, triple, nobody, old, and three bounces.
    assert c["end"] == 8 and c["new"] == c["info"] == 5 + 3 + 1


def test_absent():
    """By default nothing of it is there."""
    assert b"starting delivery" not in tools.read(tools.BINARY)
