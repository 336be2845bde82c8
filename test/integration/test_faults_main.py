# SPDX-License-Identifier: MIT
"""
Faults of main and of the processes that sessions come from: killed at, or failing in, any call they make for a client, for a reload, for
their own start. Main never dies of it and never spins, sessions that run go on, the next client is served, and nobody is left behind.
"""

import os
import re
import resource
import signal
import socket
import time

import pytest

import faults
import smtpc
import stepper
import tools
from faults import RCPTS, message
from tools import poll

pytestmark = [pytest.mark.release, pytest.mark.root]

# Calls that cannot fail, or whose failure cannot be told from another cause.
CANNOT_FAIL = ("getpid", "gettid", "getppid", "geteuid", "getrandom", "rt_sigreturn", "rt_sigaction", "rt_sigprocmask", "exit_group", "umask",
               "brk", "munmap")


@pytest.fixture
def served(make_ram_server):
    """A server, and a session that is in the midst of a message."""
    server, spool = faults.serve(make_ram_server, "queue")
    server.crash_expected = True
    known = {}
    return server, spool, known, faults.Bystanders(server, known)


def end(served):
    server, spool, known, others = served
    acknowledged = others.end()
    seen = spool.visible(known)
    assert all(sorted(seen.get(tag, [])) == sorted(RCPTS) for tag in acknowledged)
    faults.quiet(server)
    assert server.process.poll() is None and not spool.debris()
    spool.clean()


def try_once(server, known):
    """A client that comes and sends a message. What it got: True, or a reply, or None for a connection that was closed."""
    try:
        with server.session("inside") as c:
            tag, text = message()
            known[tag] = text
            c.envelope(rcpts=RCPTS)
            r = faults.send(c, text)
            if r is not None and r == 250:
                c.quit()
                return True
            return r
    except (smtpc.Closed, ConnectionResetError, BrokenPipeError):
        return None
    except AssertionError as e:
        refused = re.search(r"got b'(421|451|452) 4", str(e))
        if refused:
            return int(refused.group(1))
        raise


def served_soon(server, known, what, seconds=None):
    """The next clients are served; a server that was out of something may have paused."""
    assert server.process.poll() is None, (server.process.poll(), what)
    poll(lambda: try_once(server, known) is True, "service again, " + what, seconds)


# ---- Crashes ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("victim", ["warden", "smtp"])
def test_crash_at_any_call(served, stepping, victim):
    """
    A signal that is a sign of an attack, at a few places of a message's way: main starts itself over, under its pid; the others' sessions, the
    one in the midst of a message too, come through.
    """
    server, spool, known, _ = served
    runs = 0
    for n in (1, 3, 7, 11, 20) if victim == "warden" else (1, 4, 8):
        c, *pids = faults.known_session(server)
        tag, text = message()
        known[tag] = text
        c.envelope(rcpts=RCPTS)
        with stepper.Stepper(stepping, pids[victim == "smtp"]) as s:
            s.rule(n, "signal", signal.SIGSEGV)
            assert s.arm()
            r = faults.send(c, text)
            assert not s.wait("never") and s.hits, (n, r)
            assert r is None or r in (421, 451)
            runs += 1
        c.close()
        poll(lambda: not any(map(faults.alive, pids)), "the pair to be gone")
        served_soon(server, known, "after a crash at %d" % n)

    def crashes():
        return len(server.log("crash", signal=11)) + len(server.log("crash", msg="warden died by signal 11"))
    poll(lambda: crashes() >= runs, "%d crashes to be logged" % runs)
    assert crashes() == runs, server.tail()
    assert server.log("reexec") and server.process.poll() is None
    served[3].sweep(spool)
    end(served)


# ---- A client comes --------------------------------------------------------------------------------------------------

def calls_for_client(server, known, pid, stepping, child=0):
    """What `pid` (or its next child) does for one client. Asked again when the child was gone before it could be watched."""
    for _ in range(10):
        with stepper.Stepper(stepping, pid, child) as s:
            s.rule(stepper.ALWAYS, "note")
            s.arm()
            assert try_once(server, known) is True
            faults.quiet_but(server, 2)
            s.sync()
            calls = s.calls
        if calls:
            break
    return calls


def who(server, role):
    """(pid, which child) for the stepper; main's own when 0."""
    wardens, smtps = server.nurseries()
    return {"main": (server.pid, 0), "wardens": (wardens, 0), "smtps": (smtps, 0), "warden": (wardens, 1), "smtp": (smtps, 1)}[role]


@pytest.mark.parametrize("role", ["main", "wardens", "smtps", "warden", "smtp"])
def test_calls_for_a_client_fail(served, stepping, role):
    """
    Each call fails once that main, a nursery, or a session's process before the greeting makes. The client is served or told 421 or just let
    go; the next one is served.
    """
    server, _, known, _ = served
    calls = calls_for_client(server, known, *who(server, role)[:1], stepping, who(server, role)[1])
    before = [c for c in calls if c.name not in CANNOT_FAIL][:40]
    assert before
    for call in before:
        for error in ("ENOMEM", "EMFILE", "EINTR", "EIO"):
            pid, child = who(server, role)
            with stepper.Stepper(stepping, pid, child) as s:
                faults.quiet_but(server, 2)
                s.rule(call.count, "fail", error, call.count, call.name)
                s.arm()
                got = try_once(server, known)
                s.clear()
                what = "%s: %s at %r: %r" % (role, error, call, got)
                assert got is None or got is True or got in (421, 451), what
            served_soon(server, known, what)
            assert server.process.poll() is None, (server.process.poll(), what)
    served[3].sweep(served[1])  # where a removal failed
    end(served)


@pytest.mark.parametrize("role", ["wardens", "smtps", "warden", "smtp"])
def test_killed_while_a_client_comes(served, stepping, role):
    """
    kill -9 of a nursery, or of a new session's process, at any call it makes for a client: the next one is served. The client at hand hears one
    voice, not main's 421 and then a greeting of the process that had been born for it all the same.
    """
    server, _, known, _ = served
    pid, child = who(server, role)
    calls = calls_for_client(server, known, pid, stepping, child)
    for n in range(1, min(len(calls), 24) + 2):
        pid, child = who(server, role)
        with stepper.Stepper(stepping, pid, child) as s:
            s.rule(n, "kill")
            s.arm()
            got = try_once(server, known)
            assert got is None or got is True or got in (421, 451), (role, n, got)
        served_soon(server, known, "%s killed at %d" % (role, n))
    faults.quiet_but(server, 2)
    assert server.process.poll() is None
    served[3].sweep(served[1])
    end(served)


def test_dead_nursery_costs_no_client(served):
    """
    kill -9 of a nursery between two clients. Main does not hear of the end of one of them until it wants something from it: the client that it
    wants it for is served all the same.
    """
    server, _, known, _ = served
    for which in ([0], [1], [0], [1], [0, 1]):
        faults.quiet_but(server, 2)
        both = poll(lambda: nurseries(server), "both nurseries")
        for n in which:
            kill(both[n])  # main ends the other one, too
        poll(lambda: not any(faults.alive(both[n]) for n in which), "their end")
        assert try_once(server, known) is True, which
        assert not {both[n] for n in which} & set(server.nurseries())
    end(served)


def nurseries(server):
    found = {name: pid for pid, name in faults.children(server.pid).items() if faults.alive(pid)}
    return "stile-wardens" in found and "stile-smtps" in found and (found["stile-wardens"], found["stile-smtps"])


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# ---- Faults that last ------------------------------------------------------------------------------------------------

def knock(server, seconds):
    """Clients come and go, whatever becomes of them."""
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        with socket.socket() as s:
            s.settimeout(0.1)
            s.bind((tools.fresh_address(faults.harness.RELAY_NET), 0))
            try:
                s.connect(("127.0.0.1", server.port["inside"]))
                s.recv(100)
            except OSError:
                pass
        time.sleep(0.01)


LASTING = {"accept4": "EMFILE ENFILE ENOMEM ENOBUFS EPERM EIO", "ppoll": "ENOMEM EINVAL", "socketpair": "EMFILE ENOMEM", "fork": "EAGAIN",
           "clone": "ENOMEM", "sendmsg": "ENOBUFS", "recvmsg": "ENOMEM", "setsockopt": "ENOMEM", "wait4": "EINVAL", "getsockname": "ENOBUFS",
           "open": "EMFILE", "write": "EIO", "kill": "EPERM", "close": "EIO", "fcntl": "EMFILE", "madvise": "ENOMEM"}


def fail_for_a_while(make_ram_server, stepping, name, error):
    server, spool = faults.serve(make_ram_server, "queue")
    server.crash_expected = True
    known = {}
    others = faults.Bystanders(server, known)
    with stepper.Stepper(stepping, server.pid) as s:
        s.rule(1, "fail", error, stepper.ALWAYS, name)
        s.arm()
        # New ones of what is started for the configuration; and one is killed.
        server.kill(signal.SIGHUP)
        knock(server, 0.6)
        kill((nurseries(server) or [0])[0] or 1 << 30)
        knock(server, 0.6)
        s.sync()
        calls, hits = len(s.calls), len(s.hits)
        s.clear()
        s.sync()
        assert server.process.poll() is None, (name, error, server.process.poll())
        # Every call, those without faults too. A loop that does not wait makes tens of thousands a second, even when it is watched.
        assert calls < 4000, "%s %s: %d calls, %d of them failed" % (name, error, calls, hits)
    server.reload()
    served_soon(server, known, "%s %s" % (name, error))
    end((server, spool, known, others))
    server.stop()
    return hits


def test_calls_fail_for_a_while(make_ram_server, stepping):
    """
    All calls of a name fail in main, for more than a second, while clients knock, the configuration is reloaded and a nursery dies. Main lives,
    makes no more calls than it must, lets no running session notice, and serves again when it can.
    """
    cases = [(make_ram_server, stepping, name, error) for name, errors in LASTING.items() for error in errors.split()]
    hits = faults.each(fail_for_a_while, cases, 8)
    assert sum(h > 0 for h in hits) >= len(cases) - 2, list(zip(cases, hits))


def test_nurseries_cannot_start(make_ram_server):
    """
    What a nursery needs to come up is taken away from a running server; one then dies, and so do all that come after it. They were once started
    over and over as fast as the machine could, with thousands of log lines in a second.
    """
    server = make_ram_server(listen=faults.INSIDE)
    server.crash_expected = True
    old = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, old[1]))
    kill(server.nurseries()[0])
    before, begin = tools.cpu_seconds(server.pid, buried=True), time.monotonic()
    knock(server, 3)
    seconds = time.monotonic() - begin
    assert server.process.poll() is None and not server.pairs()
    server.wait_log("crash", msg="a process that sessions come from did not come up")
    assert len(server.log()) / seconds < 60 and (tools.cpu_seconds(server.pid, buried=True) - before) / seconds < 0.3
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, old)
    served_soon(server, {}, "with descriptors again")
    for m in server.take():
        assert m.rcpts == [r.encode() for r in RCPTS]


@pytest.mark.parametrize("lacking", ["sys_chroot", "setgid", "setuid"])
def test_privileges_cannot_be_given_up(make_ram_server, lacking):
    """
    In a container, or a service, without the capability that it takes to give up the others: nothing may run with privileges that it should not
    have, so nothing does, and the server says why.
    """
    server = make_ram_server(wrap=["setpriv", "--bounding-set", "-" + lacking], listen=faults.INSIDE, start=False)
    server.crash_expected = True
    server.start(wait=False)
    server.wait_exit(111)
    assert server.log("crash", msg="cannot give up root: Operation not permitted") and not server.log("start")
    poll(lambda: not server.left(), "all processes to be gone")
