# SPDX-License-Identifier: MIT
"""
Each system call on a message's way fails once, with each error: the reply is the right one, nothing is left, and the session goes on. Which
calls there are is seen from a run without faults.
"""

import time

import pytest

import faults
import smtpc
import stepper
import tools
from faults import KINDS, RCPTS, SPOOL, message
from tools import poll

pytestmark = [pytest.mark.release, pytest.mark.root]

NO_SPACE = ("ENOSPC", "EDQUOT")
CANNOT_FAIL = ("getpid", "gettid", "getppid", "getrandom")
ERRORS = NO_SPACE + ("EIO", "EMFILE", "ENFILE", "ENOMEM", "EROFS", "EINTR")


@pytest.fixture(params=KINDS)
def spool(request, serve_kind):
    return serve_kind(request.param)[1]


def is_talk(call):
    """Between the two processes, or with the client: without it there is no session."""
    return "socket:" in call.fd or call.name in ("poll", "ppoll", "recvmsg", "sendmsg")


def is_promise(call):
    """Without it no 250 may be said: it makes, names, fills or flushes a file of the message."""
    if not call.about(SPOOL):
        return False
    if call.name.startswith("open"):
        return True
    return call.name.startswith(("link", "rename", "write", "pwrite", "fsync", "fdatasync", "sync_file_range"))


def is_removal(call):
    return call.name.startswith("unlink")


class Trial:
    """One session in which one process has its calls fail, message after message; a new one when it has ended."""

    def __init__(self, spool, stepping, victim, octets):
        self.spool, self.stepping, self.victim, self.octets = spool, stepping, victim, octets
        self.known, self.c, self.s = {}, None, None

    def open(self):
        self.c, *pids = faults.known_session(self.spool.server)
        self.s = stepper.Stepper(self.stepping, pids[self.victim == "smtp"])
        self.pids = pids

    def end(self):
        self.s.close()
        self.c.close()
        self.s = self.c = None

    def one(self, *rules):
        """A message under these rules (arguments of Stepper.rule). Returns (reply or None, calls, hits, whether the session goes on)."""
        if self.c is None:
            self.open()
        self.tag, text = message(self.octets)
        self.known[self.tag] = text
        self.c.envelope(rcpts=RCPTS)
        for rule in rules:
            self.s.rule(*rule)
        assert self.s.arm()
        reply = faults.send(self.c, text)
        goes_on = reply is not None and not reply == 421 and faults.said_to_rest(self.c)
        self.s.sync()
        self.s.clear()
        self.s.sync()
        calls, hits = self.s.calls, self.s.hits
        if not goes_on:
            self.c.rest()
            self.end()
            poll(lambda: not any(map(faults.alive, self.pids)), "both to be gone: %r" % hits)
        return reply, calls, hits, goes_on

    def plain(self):
        """A message without faults, in the session that is open: taken and whole. None when the session ended instead."""
        try:
            return faults.send(self.c, self._next())
        except (AssertionError, smtpc.Closed) as e:
            self.end()
            return e

    def _next(self):
        self.tag, text = message(self.octets)
        self.known[self.tag] = text
        self.c.envelope(rcpts=RCPTS)
        return text


def right_reply(reply, error, call):
    """The reply that this error at this call must have; None: the session may also end."""
    if reply is None or reply == 421:
        return is_talk(call)
    if reply == 250:
        return not is_promise(call) or error == "EINTR"
    if reply == 452:
        return reply.enhanced == "4.3.1" and error in NO_SPACE
    return reply == 451 and reply.enhanced == "4.3.0" and not (error in NO_SPACE and is_promise(call))


def settles(spool):
    """Nothing is left over, soon: the client may hear of its message before the warden has removed it."""
    end = time.monotonic() + tools.PATIENCE
    while spool.debris() and time.monotonic() < end:
        time.sleep(0.01)
    return not spool.debris()


def fail_each(spool, stepping, victim, octets, errors):
    t = Trial(spool, stepping, victim, octets)
    _, calls, _, _ = t.one((stepper.ALWAYS, "note"))
    spool_calls = [c for c in calls if is_promise(c)]
    assert len(spool_calls) >= (6 if victim == "warden" else 1), calls
    wrong = []
    for call in [c for c in calls if c.name not in CANNOT_FAIL]:
        for error in errors:
            reply, _, hits, goes_on = t.one((call.count, "fail", error))
            if not hits:
                wrong.append("%r with %s: not reached" % (call, error))
                continue
            what = "%s at %r: %r" % (error, hits[0], reply)
            if not right_reply(reply, error, hits[0]):
                wrong.append("wrong reply, " + what)
            untold = reply is None or reply == 421
            seen = spool.visible(t.known)
            if reply == 250 and t.tag not in seen or not reply == 250 and t.tag in seen and not untold:
                wrong.append("visible: %s, %s" % (t.tag in seen, what))
            if t.tag in seen and sorted(seen[t.tag]) != sorted(RCPTS):
                wrong.append("not for all recipients, or twice, " + what)
            if not is_removal(hits[0]) and not settles(spool):
                wrong.append("left over %r, %s" % (spool.debris(), what))
            spool.clean()
            if goes_on:
                reply = t.plain()
                if not reply == 250:
                    wrong.append("next message: %r after %s" % (reply, what))
                seen = spool.visible(t.known)
                if reply == 250 and sorted(seen.get(t.tag, [])) != sorted(RCPTS):
                    wrong.append("next message lost, " + what)
                spool.clean()
            crashes = [e.text for e in spool.server.log("crash")]
            if crashes and not getattr(spool, "told", 0) == len(crashes):
                spool.told = len(crashes)
                wrong.append("%s, %s" % (crashes[-1], what))
            assert spool.server.process.poll() is None
    if t.c:
        t.end()
    return wrong


def test_each_call_fails(spool, stepping):
    spool.server.crash_expected = True
    # In the short form, of the spools that differ in how they flush, one gets all errors.
    errors = ERRORS if tools.LONG or "/ram/" in spool.top else ("ENOSPC", "EIO")
    wrong = fail_each(spool, stepping, "warden", 0, errors) + fail_each(spool, stepping, "smtp", 40000, errors)
    assert not wrong, "\n".join(wrong)


def test_disk_dies(spool, stepping):
    """
    From one call on, everything about files fails, the tidying up as well. What is left is legal; nothing is acknowledged but what was
    complete before; and once the disk is back, so is the session.
    """
    t = Trial(spool, stepping, "warden", 0)
    _, calls, _, _ = t.one((stepper.ALWAYS, "note"))
    names = sorted({c.name for c in calls if c.about(SPOOL)} | {"unlink", "link", "fsync", "write"})
    spool.clean()
    wrong = []
    for call in calls:
        for error in ("EIO", "EROFS"):
            reply, calls, hits, goes_on = t.one(*[(call.count, "fail", error, stepper.ALWAYS, name) for name in names])
            what = "%s from call %d on: %r, %r" % (error, call.count, reply, hits)
            refused = reply == 451 and reply.enhanced == "4.3.0" and any(h.about(SPOOL) or h.name == "statfs" for h in hits)
            if not refused and not (reply == 250 and not any(is_promise(h) for h in hits)):
                wrong.append("wrong reply, " + what)
            seen = spool.visible(t.known)
            if reply == 250 and sorted(seen.get(t.tag, [])) != sorted(RCPTS):
                wrong.append("lost, " + what)
            spool.clean()
            if not goes_on or not t.plain() == 250 or t.tag not in spool.visible(t.known):
                wrong.append("no next message, " + what)
            spool.clean()
    t.end()
    assert not wrong, "\n".join(wrong)


def test_tidying_up_fails(spool, stepping):
    """
    A call fails, and then one of those that remove what had been made. An entry in todo/ whose message was removed all the same was the
    worst that could be left: qmail-send comes back to such a one for ever.
    """
    t = Trial(spool, stepping, "warden", 0)
    _, calls, _, _ = t.one((stepper.ALWAYS, "note"))
    spool.clean()
    wrong, pairs = [], 0
    for first in [c for c in calls if c.about(SPOOL)]:
        for error in ("EIO", "ENOSPC"):
            _, then, hits, goes_on = t.one((first.count, "fail", error))
            spool.clean()
            if not hits or not goes_on:
                continue
            for second in [c for c in then if is_removal(c) and c.count > first.count]:
                reply, _, hits, goes_on = t.one((first.count, "fail", error), (second.count, "fail", "EIO"))
                pairs += 1
                try:
                    seen = spool.visible(t.known)
                    if reply == 250 and sorted(seen.get(t.tag, [])) != sorted(RCPTS):
                        wrong.append("acknowledged, but lost: %r" % hits)
                except AssertionError as e:
                    wrong.append("%r: %s" % (hits, e))
                spool.clean()
                if not goes_on or not t.plain() == 250:
                    wrong.append("no next message after %r" % hits)
                spool.clean()
    t.end()
    assert pairs > 10 and not wrong, "\n".join(wrong)


@pytest.mark.parametrize("victim,octets", [("warden", 0), ("smtp", 40000)])
def test_short_writes_and_reads(spool, stepping, victim, octets):
    """Each read and write brings less than it was asked for, once; and then all of them do: the message is whole."""
    t = Trial(spool, stepping, victim, octets)
    _, calls, _, _ = t.one((stepper.ALWAYS, "note"))
    some = [c for c in calls if c.name in ("read", "write", "pread64") and not c.fd.endswith("/log") and c.result > 1]
    assert len(some) >= (3 if victim == "warden" else 6), calls
    cases = [[(c.count, "short", n)] for c in some for n in (1, c.result - 1)]
    # A short line of the log would be no line.
    log = [c.count for c in calls if c.fd.endswith("/log")]
    everything = min(log + [len(calls)]) - 1
    longest = max(c.result for c in some)
    cases += [[(1, "short", n, everything, name) for name in ("read", "write", "pread64")] for n in (longest // 2, longest - 1)]
    for rules in cases:
        reply, _, hits, goes_on = t.one(*rules)
        assert hits and reply == 250 and goes_on, (rules, hits, reply)
        assert sorted(spool.visible(t.known)[t.tag]) == sorted(RCPTS), (rules, hits)
        spool.clean()
    t.end()
