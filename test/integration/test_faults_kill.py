# SPDX-License-Identifier: MIT
"""
kill -9 between every two system calls of a message's way, from DATA to behind the 250: of the warden, of smtp, of main, of all of them; for
the queue and for both kinds of Maildir. The calls are those of a run without faults, whatever they are.
"""

import os
import signal

import pytest

import faults
import stepper
import tools
from faults import KINDS, RCPTS, message
from tools import poll

pytestmark = [pytest.mark.release, pytest.mark.root]


@pytest.fixture(params=KINDS)
def spool(request, serve_kind):
    return serve_kind(request.param)[1]


def count_calls(spool, stepping, text):
    """How many calls warden and smtp make for this message, the last one being that in which they wait for the next command."""
    c, warden, smtp = faults.known_session(spool.server)
    c.envelope(rcpts=RCPTS)
    with stepper.Stepper(stepping, warden) as w, stepper.Stepper(stepping, smtp) as s:
        w.rule(stepper.ALWAYS, "note")
        assert w.arm() and s.arm()
        assert faults.send(c, text) == 250 and faults.said_to_rest(c)
        assert w.sync() and s.sync()
        counts = len(w.calls) + 1, len(s.calls) + 1
    c.quit()
    spool.clean()
    assert counts[0] > 15 and counts[1] > 8
    return counts


def made_visible(calls):
    """A name in todo/ or new/ was made."""
    return any(c.name.startswith(("link", "rename")) and c.result == 0 and c.about("todo", "new") for c in calls)


def commit_asked(calls):
    """smtp has sent its request behind the last octet of the message."""
    written = [i for i, c in enumerate(calls) if c.name.startswith("write") and c.about(faults.SPOOL)]
    return bool(written) and any(c.name == "sendmsg" and not c.failed for c in calls[written[-1]:])


class Outcome:
    def __init__(self, tag, victim, n, reply, calls, hits):
        self.tag, self.victim, self.n, self.calls, self.hit = tag, victim, n, calls, bool(hits)
        self.acknowledged = reply is not None and reply == 250
        self.name = "%s killed at call %d, %r" % (victim, n, hits)
        assert reply is None or reply in (250, 421, 451, 452), (self.name, reply)
        # Enough happened for the message to be visible; so much that it must be.
        self.may_be_visible = made_visible(calls) if victim == "warden" else commit_asked(calls)
        self.must_be_visible = self.acknowledged or (victim == "warden" and self.may_be_visible)


def kill_one(spool, stepping, known, victim, n, octets, signal_number=None):
    c, warden, smtp = faults.known_session(spool.server)
    tag, text = message(octets)
    known[tag] = text
    c.envelope(rcpts=RCPTS)
    with stepper.Stepper(stepping, warden if victim == "warden" else smtp) as s:
        s.rule(n, "signal" if signal_number else "kill", signal_number or 0)
        assert s.arm()
        reply = faults.send(c, text)
        if reply is not None and faults.said_to_rest(c):
            # It waits in the call it is to die in, or n is behind all of them.
            c.send(b"QUIT\r\n")
            c.rest()
        assert not s.wait("never")
        out = Outcome(tag, victim, n, reply, s.calls, s.hits)
    c.close()
    # The other one of the pair ends by itself.
    poll(lambda: not faults.alive(warden) and not faults.alive(smtp), "both processes to be gone, " + out.name)
    return out


def check(spool, known, outcomes, acknowledged):
    """What was promised is there, what was not begun is not."""
    seen = spool.visible(known)
    for tag in acknowledged + [o.tag for o in outcomes if o.acknowledged]:
        assert sorted(seen.get(tag, [])) == sorted(RCPTS), "acknowledged, but lost or twice: %s" % tag
    for o in outcomes:
        if not o.may_be_visible:
            assert o.tag not in seen, "visible too early: " + o.name
        elif o.must_be_visible:
            assert o.tag in seen, "no longer visible: " + o.name
        rcpts = seen.get(o.tag, [])
        assert len(rcpts) == len(set(rcpts)) and set(rcpts) <= set(RCPTS)
    return seen


def test_session_killed_between_any_two_calls(spool, stepping):
    """
    One of a session's two processes dies. Its client reads no 250 that is not true; the other process goes; the other sessions, main and
    the next client notice nothing. A warden leaves what a qmail-clean or a Maildir's reader sweeps, for a dead smtp its warden
    leaves nothing at all.
    """
    server, known = spool.server, {}
    calls = count_calls(spool, stepping, message()[1]), count_calls(spool, stepping, message(40000)[1])
    others = faults.Bystanders(server, known)
    outcomes = faults.each(kill_one, [(spool, stepping, known, "smtp", n, 40000) for n in range(1, calls[1][1] + 2)])
    assert sum(o.hit for o in outcomes) >= calls[1][1], [o.name for o in outcomes]
    with others.pause():
        poll(lambda: len(spool.debris()) == 1, "nothing left but of the one that goes on: %r" % spool.debris())
    outcomes += faults.each(kill_one, [(spool, stepping, known, "warden", n, 0) for n in range(1, calls[0][0] + 2)])
    assert sum(o.hit for o in outcomes if o.victim == "warden") >= calls[0][0], [o.name for o in outcomes]
    acknowledged = others.end()
    assert others.slowest < 10
    check(spool, known, outcomes, acknowledged)
    # Both kinds of fate came up, or the cases are not what they should be.
    assert {o.acknowledged for o in outcomes} == {o.may_be_visible for o in outcomes} == {True, False}
    assert spool.debris()
    faults.quiet(server)
    # SIGKILL is no sign of an attack.
    assert not server.log("crash") and not server.log("reexec") and server.process.poll() is None
    with server.session("inside") as c:
        c.mail()
        c.quit()
    spool.clean()


# ---- main ------------------------------------------------------------------------------------------------------------

def kill_all(server):
    for p in server.left():
        try:
            os.kill(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def kill_main(serve_kind, stepping, kind, victim, n, everybody):
    """
    While `victim` stands before its call n: kill -9 of main, or of `everybody`. Then the same server again, and a message. Returns
    (whether there was such a call, whether the message was acknowledged, whether it is visible).
    """
    server, spool = serve_kind(kind)
    name = "%s: killed while %s was at call %d" % (server.home, victim, n)
    c, warden, smtp = faults.known_session(server)
    tag, text = message()
    known = {tag: text}
    c.envelope(rcpts=RCPTS)
    with stepper.Stepper(stepping, warden if victim == "warden" else smtp) as s:
        s.rule(n, "hold")
        assert s.arm()
        with faults.in_background(faults.send_and_reset, c, text) as reply:
            # A case behind the last call is held by nothing.
            poll(lambda: s.hits or reply.done(), name)
            s.sync()
            visible = made_visible(s.calls) if victim == "warden" else None
            kill_all(server) if everybody else server.kill(signal.SIGKILL)
            server.wait_exit(-9)
            s.clear()
            s.go()
        reply = reply.result()
        poll(lambda: not server.left(), "%s: they to be gone: %r" % (name, server.left()))
        hit = bool(s.hits)
    c.close()
    acknowledged = reply is not None and reply == 250
    seen = spool.visible(known)
    assert seen in ({}, {tag: list(RCPTS)}, {tag: list(RCPTS[::-1])}) or (everybody and spool.kind == "maildir"), (name, seen)
    assert tag in seen or not acknowledged, name
    if visible is not None and everybody:
        assert visible == (tag in seen), name
    # A warden that is only asked to go tidies up.
    assert everybody or not spool.debris(), (name, spool.debris())
    server.start(wait=False)
    poll(lambda: len(server.log("start")) == 2, "%s: the second start" % name)
    again, text = message()
    known[again] = text
    with server.session("inside") as c:
        c.mail(text, rcpts=RCPTS)
        c.quit()
    assert sorted(spool.visible(known)[again]) == sorted(RCPTS)
    spool.clean()
    server.stop()
    return hit, acknowledged, tag in seen


@pytest.mark.parametrize("kind", KINDS if tools.LONG else KINDS[:3])
def test_main_killed_between_any_two_calls(serve_kind, stepping, kind):
    """
    Main dies while the warden or smtp stands between two calls. Both end with it, at once; a message is then whole and visible, or gone
    without a trace. When all die together, what is left is legal. The server starts on what is there, and works.
    """
    server, spool = serve_kind(kind)
    calls = count_calls(spool, stepping, message()[1])
    server.stop()
    cases = [(victim, n) for victim, most in zip(("warden", "smtp"), calls) for n in range(1, most + 2)]
    # In the long form each case in both ways.
    ways = [0, 1] if tools.LONG else [KINDS.index(kind)]
    out = faults.each(kill_main, [(serve_kind, stepping, kind, victim, n, (n + way) % 2 == 1) for victim, n in cases for way in ways])
    # Whether the last wait of all is reached before the reply is read, is chance.
    assert sum(hit for hit, _, _ in out) >= (sum(calls) - 2) * len(ways)
    assert {acknowledged for _, acknowledged, _ in out} == {visible for _, _, visible in out} == {True, False}
