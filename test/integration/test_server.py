# SPDX-License-Identifier: MIT
"""The server as a whole: start, reload, drain, crashes of its children, limits, and leaving the terminal."""

import os
import re
import signal
import socket
import threading
import time

import pytest

import faults
import harness
import smtpc
import tools
from tools import poll

PLAIN = {"smtp": "smtp 127.0.0.1:{}"}
BOTH = {"smtp": "smtp 127.0.0.1:{}", "inside": "inside 127.0.0.1:{}"}


# What the kernel sends for a bad access or a forbidden call; sanitizers catch the first.
CRASH = signal.SIGSYS if tools.SANITIZE else signal.SIGSEGV


# ---- Start -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name,content", [
    ("me", None), ("me", ""), ("me", "not a host name\n"), ("listen", "submission\n"), ("listen", "nonsense 25\n"), ("listen", "smtp 99999\n"),
    ("listen", ""), ("spool", "heap\n"), ("spool", "maildir\n"), ("listen", "smtp 127.0.0.1:1 x\n"),
])
def test_bad_configuration_stops_the_start(make_server, name, content):
    """100: do not restart me; and the reason is in the log and in `check`."""
    server = make_server(start=False, control={name: content})
    server.start(wait=False)
    server.wait_exit(100)
    assert any(e["level"] == "error" and e["file"].endswith("/control/" + name) for e in server.log("config")), server.tail()
    p = server.tool("check", check=False)
    assert p.returncode == 1 and re.search(r"control/%s(:\d+)?: error: " % name, p.text)


@pytest.mark.parametrize("damage", ["no queue", "big todo", "uneven split", "hole in mess"])
def test_qmail_02_03_bad_queue(make_server, damage):
    """2: one split everywhere, 0..S-1. 3: a queue with the big-todo patch is refused."""
    def prepare(s):
        if damage == "no queue":
            tools.rmtree(s.queue)
        elif damage == "big todo":
            for n in range(3):
                os.mkdir(os.path.join(s.queue, "todo", str(n)), 0o750)
        elif damage == "uneven split":
            os.rmdir(os.path.join(s.queue, "remote", "2"))
        else:
            os.rmdir(os.path.join(s.queue, "mess", "1"))
    server = make_server(start=False, prepare=prepare, listen=PLAIN)
    server.start(wait=False)
    code = server.process.wait(30)
    harness.live.remove(server)
    assert code in (100, 111), server.tail()
    assert any(e["level"] == "error" for e in server.log("config")), server.tail()
    assert server.tool("check", check=False).returncode == 1


def test_port_in_use(make_server):
    """111: try again later."""
    first = make_server(listen=PLAIN)
    second = make_server(start=False, listen={"smtp": "smtp 127.0.0.1:%d" % first.port["smtp"]})
    second.start(wait=False)
    second.wait_exit(111)
    assert str(first.port["smtp"]) in second.tail()


def test_port_is_free_again_at_once(make_server):
    """A restart does not wait for old connections' TIME_WAIT."""
    server = make_server(listen=PLAIN)
    with server.session("smtp") as c:
        c.quit()
    server.stop()
    server.start(wait=False)
    poll(lambda: len(server.log("start")) == 2 and server.accepts(), "the second start")


@pytest.mark.parametrize("line,ok", [("smtp {}", True), ("smtp *:{}", True), ("  smtp   127.0.0.1:{}  ", True), ("# x\n\nsmtp 127.0.0.1:{}", True)])
def test_listen_lines(make_server, line, ok):
    server = make_server(listen={"smtp": line})
    assert server.accepts() == ok
    assert server.log("listen")[0]["profile"] == "smtp"


def test_every_listener_is_logged(server):
    lines = server.log("listen")[:len(server.port)]
    assert sorted(e["profile"] for e in lines) == ["inside", "inside", "smtp", "submission", "submissions"]
    assert all(e["addr"].startswith("127.0.0.1:") for e in lines)


def test_version(server):
    p = tools.run(harness.BINARY, "version")
    assert re.search(r"mailstile \d+\.\d+", p.text)


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["serve", "-x"], ["serve", "extra"], ["check", "-Q"], ["inetd", "-P", "nonsense"]])
def test_usage(words):
    p = tools.run(harness.BINARY, *words, check=False)
    assert p.returncode == 100 and "usage" in p.text.lower() or "nonsense" in p.text


# ---- Reload ----------------------------------------------------------------------------------------------------------

def test_reload(make_server):
    """HUP: new sessions live by the new files, old sessions by the old ones."""
    server = make_server(listen=BOTH)
    old = server.session("smtp")
    server.set(rcpthosts="new.example\n", databytes="5000\n", me="new.example.net\n")
    server.reload()
    with server.session("smtp") as c:
        assert b"new.example.net" in c.greeting.raw
        assert c.keywords["SIZE"] == ["5000"]
        c.mail(rcpts=["you@new.example"])
        c.envelope(rcpts=[])
        c.cmd("RCPT TO:<you@local.example>", 550)
    old.mail(rcpts=["you@local.example"])
    old.cmd("QUIT", 221)
    server.take()


def test_reload_with_faults_keeps_serving(make_server):
    """A fault that would stop a start does not stop a running server: it goes on with what it had."""
    server = make_server(listen=BOTH)
    server.set(me="not a host name\n", listen="rubbish\n")
    server.reload()
    assert [e for e in server.log("config") if e["level"] == "error"]
    with server.connect("smtp") as c:
        assert b"mail.example.net" in c.greeting.raw
        c.ehlo()
        c.mail(rcpts=["you@local.example"])
    server.take()


def test_reload_changes_listeners(make_server):
    """New ones open, old ones close, those that stay are not interrupted."""
    server = make_server(listen=BOTH)
    old = server.session("inside")
    port = tools.free_port()
    server.set(listen="smtp 127.0.0.1:%d\nsmtp 127.0.0.1:%d\n" % (port, server.port["smtp"]))
    server.reload()
    server.port["new"] = port
    assert server.accepts("new") and not server.accepts("inside")
    with server.session("smtp") as c:
        c.mail(rcpts=["you@local.example"])
    with server.connect("new") as c:
        c.ehlo()
        c.mail(rcpts=["you@local.example"])
    old.mail()
    old.quit()
    assert len(server.take()) == 3


def test_reload_under_load(make_server):
    """Nobody is refused or interrupted by a HUP."""
    server = make_server(listen=BOTH)
    faults = []

    def one():
        try:
            for _ in range(20):
                with server.session("inside") as c:
                    c.mail()
                    c.quit()
        except BaseException as e:  # pylint: disable=broad-except
            faults.append(e)
    threads = [threading.Thread(target=one) for _ in range(4)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        server.kill(signal.SIGHUP)
        time.sleep(0.02)
    assert not faults, faults[0]
    assert len(server.take()) == 80


def test_many_reloads(make_server):
    server = make_server(listen=BOTH)
    fds = len(os.listdir("/proc/%d/fd" % server.pid)) if tools.ROOT or os.access("/proc/%d/fd" % server.pid, os.R_OK) else None
    for _ in range(20):
        server.kill(signal.SIGHUP)
        with server.session("smtp") as c:
            c.mail(rcpts=["you@local.example"])
    if fds is not None:
        poll(lambda: len(os.listdir("/proc/%d/fd" % server.pid)) <= fds + 1, "no more descriptors than before")
    server.take()


# ---- The end ---------------------------------------------------------------------------------------------------------

def test_drain(make_server):
    """TERM: no new sessions; a message that is on its way is taken; then 421 and exit 0."""
    server = make_server(listen=PLAIN)
    c = server.session("smtp")
    c.envelope(rcpts=["you@local.example"])
    c.cmd("DATA", 354)
    c.send(smtpc.MESSAGE)
    server.kill(signal.SIGTERM)
    poll(lambda: not server.accepts(), "the port to close")
    c.send(b".\r\n")
    server.message(c.reply(250))
    rest = c.rest()
    assert rest == b"" or rest.startswith(b"421 4.3.2")
    server.wait_exit(0)
    poll(lambda: not server.left(), "all processes to be gone")
    assert server.log("stop")
    assert len(server.take()) == 1


def test_idle_sessions_are_told(make_server):
    server = make_server(listen=PLAIN)
    c = server.session("smtp")
    begin = time.monotonic()
    server.kill(signal.SIGTERM)
    assert c.reply(421).enhanced == "4.3.2"
    c.closed()
    server.wait_exit(0)
    assert time.monotonic() - begin < 10
    assert server.log("close")[-1]["why"] == "shutdown"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_end(make_server, sig):
    server = make_server(listen=PLAIN)
    server.kill(sig)
    server.wait_exit(0)
    poll(lambda: not server.left(), "all processes to be gone")


def test_children_die_with_main(make_server):
    """kill -9 of main leaves no process behind, and nothing half-made but what the sweep knows."""
    server = make_server(listen=BOTH)
    clients = [server.session("smtp") for _ in range(3)]
    clients[0].envelope(rcpts=["you@local.example"])
    clients[0].cmd("DATA", 354)
    server.kill(signal.SIGKILL)
    server.wait_exit(-9)
    poll(lambda: not server.left(), "the children to follow")
    for c in clients:
        rest = c.rest()
        assert rest == b"" or rest.startswith(b"421 ")
    assert not os.listdir(os.path.join(server.queue, "todo"))


# ---- Crashes ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("victim", ["warden", "smtp"])
@pytest.mark.parametrize("sig", [CRASH, signal.SIGKILL])
def test_crash_of_a_child(make_server, victim, sig):
    """One session ends; the others and the service go on; main gets a new memory layout under the same pid."""
    server = make_server(listen=BOTH)
    server.crash_expected = True
    other = None
    c = server.session("smtp")
    c.envelope(rcpts=["you@local.example"])
    c.cmd("DATA", 354)
    c.send(smtpc.MESSAGE)
    warden, smtp = server.pair()
    other = server.session("smtp")
    os.kill(warden if victim == "warden" else smtp, sig)
    assert b"250" not in c.rest()
    # SIGKILL is what the kernel does when memory runs out: no sign of an attack.
    if sig == CRASH:
        server.wait_log("crash")
        server.wait_log("reexec")
    server.assert_nothing() if victim == "smtp" else None
    assert server.process.poll() is None
    with server.session("smtp") as new:
        server.message(new.mail(rcpts=["you@local.example"]))
    server.message(other.mail(rcpts=["you@local.example"]))
    other.quit()
    poll(server.idle, "the end of all sessions")
    server.take()
    for n in os.listdir(os.path.join(server.queue, "pid")):
        os.unlink(os.path.join(server.queue, "pid", n))


def test_crashes_do_not_pile_up(make_server):
    """Twenty crashes: re-execution is limited in rate, service is not."""
    server = make_server(listen=PLAIN)
    server.crash_expected = True
    begin = time.monotonic()
    for _ in range(20):
        c = server.session("smtp")
        os.kill(server.pair()[1], CRASH)
        c.rest()
    # One in ten seconds, and one more for where they begin.
    assert 1 <= len(server.log("reexec")) <= 2 + (time.monotonic() - begin) / 10
    with server.session("smtp") as c:
        c.mail(rcpts=["you@local.example"])
    server.take()


def test_signals_come_through_a_crowd(make_server):
    """
    ppoll() returns at once when a client waits, and then delivers no signal. With always another client waiting, ended sessions were not
    reaped, until all slots seemed taken and everybody read 421; SIGHUP and SIGTERM had to wait, too.
    """
    server = make_server(listen=PLAIN)
    server.kill(signal.SIGSTOP)
    crowd = []
    for _ in range(60):
        crowd.append(socket.socket())
        crowd[-1].bind((tools.fresh_address(), 0))
        crowd[-1].connect(("127.0.0.1", server.port["smtp"]))
    server.kill(signal.SIGHUP)
    server.kill(signal.SIGCONT)
    server.wait_log("connect")
    poll(lambda: server.log("reload"), "ev=reload")
    events = [e["ev"] for e in server.log() if e["ev"] in ("connect", "reload")]
    assert events.index("reload") < 20, events
    for c in crowd:
        c.close()


def test_limits_survive_reexecution(make_server):
    """What is shared outlives the new main: penalties of an address, for one."""
    server = make_server()
    server.crash_expected = True
    source = tools.fresh_address()
    with server.session("submissions", login=None, source=source) as c:
        c.auth_plain("alice", "wrong", 535)
    c = server.session("submissions", login=None)
    os.kill(server.pair()[1], CRASH)
    c.rest()
    server.wait_log("reexec")
    with server.session("submissions", login=None, source=source) as c:
        begin = time.monotonic()
        c.auth_plain("alice", "wrong", 535)
        assert time.monotonic() - begin > 1.8


# ---- Limits ----------------------------------------------------------------------------------------------------------

def test_sessions_without_login_per_address(make_server):
    """The 21st session of an address that nobody has logged in on: 421 4.7.0; other addresses are served."""
    server = make_server(listen=PLAIN)
    source = tools.fresh_address()
    clients = [server.connect("smtp", source) for _ in range(20)]
    with server.connect("smtp", source) as c:
        assert c.greeting == 421 and c.greeting.enhanced == "4.7.0"
        c.closed()
    assert server.wait_log("limit")["client"] == source
    with server.connect("smtp") as c:
        c.quit()
    clients.pop().quit()

    def again():
        with server.connect("smtp", source) as c:
            return c.greeting == 220
    poll(again, "a free place")
    for c in clients:
        c.close()


def test_sessions_per_address(make_server):
    """40 in all from one address, logged in or not."""
    server = make_server()
    source = tools.fresh_address()
    clients = [server.session("submissions", source=source) for _ in range(40)]
    c = smtpc.Client(("127.0.0.1", server.port["smtp"]), source, hello=False)
    assert c.reply(421).enhanced == "4.7.0"
    c.close()
    clients[0].mail()
    for c in clients:
        c.close()
    poll(server.idle, "the end of all sessions")
    server.take()


def test_many_connections_at_once(make_server):
    """A burst from many addresses: each gets an answer of some kind, and the server stays."""
    server = make_server(listen=PLAIN)
    codes = []

    def one():
        try:
            with server.connect("smtp") as c:
                codes.append(c.greeting.code)
                c.cmd("QUIT", 221)
        except (OSError, smtpc.Closed, AssertionError):
            codes.append(0)
    threads = [threading.Thread(target=one) for _ in range(200)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert codes.count(220) == 200, {k: codes.count(k) for k in set(codes)}
    poll(server.idle, "the end of all sessions")


def test_no_zombies(make_server):
    server = make_server(listen=PLAIN)
    for _ in range(10):
        with server.session("smtp") as c:
            c.quit()
    poll(lambda: not [p for p in tools.processes() if p.ppid == server.pid and p.state == "Z"], "no zombies")


def test_ports_scanned(make_server):
    """Connections that say nothing and go."""
    server = make_server()
    for profile in ("smtp", "submission", "submissions"):
        for _ in range(10):
            c = smtpc.Client(("127.0.0.1", server.port[profile]), tools.fresh_address(), hello=False)
            c.reset()
    with server.session("submissions") as c:
        c.mail()
    server.take()
    poll(server.idle, "the end of all sessions")


# ---- Detached --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["fresh", "stale pid file"])
def test_detached(make_server, how):
    """-d: the caller gets its prompt back, -p holds the pid, TERM ends it and removes the file."""
    server = make_server(start=False, listen=PLAIN)
    pidfile = os.path.join(server.top, "pid")
    if how != "fresh":
        tools.write(pidfile, "999999999\n")
    p = tools.run(*server.argv("serve", "-d", "-H", server.home, "-p", pidfile), env=harness.environment(), check=False)
    assert p.returncode == 0, p.text
    pid = int(poll(lambda: os.path.exists(pidfile) and tools.read(pidfile).strip(), "the pid file"))
    try:
        poll(lambda: server.accepts(), "the server")
        (process,) = [x for x in tools.processes() if x.pid == pid]
        assert process.ppid != os.getpid() and process.session in (pid, process.session) and process.session != os.getsid(0)
        with server.session("smtp") as c:
            server.message(c.mail(rcpts=["you@local.example"]))
            c.quit()
    finally:
        os.kill(pid, signal.SIGTERM)
        poll(lambda: not faults.alive(pid), "its end")
    poll(lambda: not os.path.exists(pidfile), "the pid file to go", 5)
    server.take()


@pytest.mark.root
def test_syslog(make_server, scratch):
    """-s: lines go to /dev/log, also those of the chrooted wardens."""
    log = harness.Syslog(scratch)
    server = make_server(start=False, listen=PLAIN, mounts=log.mounts)
    log.serve(server)
    try:
        poll(lambda: server.accepts(), "the server")
        with server.session("smtp") as c:
            c.mail(rcpts=["you@local.example"])
            c.quit()
        seen = log.read_until(r"ev=close .* msgs=1 ")
    finally:
        log.stop()
    assert [line for line in seen if "ev=accept" in line]
    server.take()
