# SPDX-License-Identifier: MIT
"""
From a client to the next hop: the whole server, with the scheduler, the cleaner and the remotes' nursery under main. What each of them does by
itself is in test_relay.py, test_relay_times.py and test_remote.py.
"""

import os
import re
import signal
import socket
import time

import pytest

import harness
import remote
import smtpc
import tools
from tools import poll

pytestmark = pytest.mark.release
INSIDE = {"inside": harness.LISTEN["inside"]}
NAMES = ("stile-relay", "stile-clean", "stile-remotes")


def delivering(make_server, peer, **kw):
    """A server whose mail goes to `peer`."""
    control = {"relay": "on\n", "smtproutes": remote.route(peer), **kw.pop("control", {})}
    return make_server(listen=kw.pop("listen", INSIDE), control=control, **kw)


def parts(server):
    """{name: process} of those that deliver."""
    return {p.name: p for p in tools.children(server.pid) if p.name in NAMES}


def send(server, n=1, rcpts=("bob@far.example",), sender="alice@client.example", text=smtpc.MESSAGE):
    with server.session("inside") as c:
        for _ in range(n):
            c.envelope(sender, list(rcpts))
            c.cmd("DATA", 354)
            c.send(text + b".\r\n")
            assert c.reply() == 250
        c.quit()


def empty(server):
    return not [f for f in server.files() if not f.startswith("lock")]


def only_debris(server):
    """No more than one mess/N."""
    left = tools.steady(lambda: [f for f in server.files() if not f.startswith("lock")])
    return len(left) == 1 and left[0].startswith("mess/")


def messages(peer):
    return [m for t in peer.talks for m in t.messages]


def test_to_next_hop(make_server):
    """It arrives, whole, with our Received line, for all recipients at once; the queue is empty again, and the log says where it went."""
    with remote.Peer() as peer:
        server = delivering(make_server, peer)
        send(server, rcpts=["bob@far.example", "carol@else.example"])
        poll(lambda: messages(peer), "the message")
        (got,) = messages(peer)
        assert got.endswith(smtpc.stored(smtpc.MESSAGE)) and got.count(b"Received: ") >= 2
        poll(lambda: empty(server), "an empty queue, there is %r" % server.files())
        assert b"MAIL FROM:<alice@client.example>" in b"\n".join(peer.talk.lines)
        done = server.log("deliver")
        assert {e["to"] for e in done} == {"<bob@far.example>", "<carol@else.example>"} or len(done) == 2, done
        server.stop()


@pytest.mark.root
def test_who_they_are(make_server):
    """Each under its own user and group, in its own root, with no new privileges, a filter, and nothing open that it does not need."""
    with remote.Peer(answers={"dot": remote.STALL}) as peer:
        server = delivering(make_server, peer)
        send(server)
        poll(lambda: messages(peer), "a delivery that has sent all")
        assert "stile-remote" in {p.name for p in tools.children(server.pid)}
        users = {"stile-relay": ("qmails", "qmail", server.queue), "stile-clean": ("qmailq", "qmail", server.queue),
                 "stile-remotes": ("qmailr", "nofiles", os.path.join(server.home, "empty")),
                 "stile-remote": ("qmailr", "nofiles", os.path.join(server.home, "empty"))}
        seen = set()
        for p in tools.children(server.pid):
            if p.name not in users:
                continue
            seen.add(p.name)
            user, group, root = users[p.name]
            status = tools.read("/proc/%d/status" % p.pid).decode()
            assert re.search(r"^Uid:(\t%d){4}$" % harness.USERS[user], status, re.M), (p.name, status)
            assert re.search(r"^Gid:(\t%d){4}$" % harness.GROUPS[group], status, re.M), (p.name, status)
            assert re.search(r"^Groups:\s*$", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M)
            assert re.search(r"^NoNewPrivs:\t1$", status, re.M) and re.search(r"^Seccomp:\t2$", status, re.M)
            assert os.stat("/proc/%d/root" % p.pid).st_ino == os.stat(root).st_ino, p.name
            fds = tools.descriptors(p.pid)
            assert not [f for f in fds.values() if "memfd" in f or "control" in f or "/dev/log" in f], (p.name, fds)
            assert len(fds) <= 12, (p.name, fds)
        assert seen == set(users)
        server.kill(signal.SIGKILL)
        server.wait_exit(-signal.SIGKILL)
        poll(lambda: not server.left(), "the end of all")


def limit_files(pid, octets):
    """By the scheduler's own user, which needs no privilege."""
    who = ["setpriv", "--reuid=%d" % harness.USERS["qmails"], "--regid=%d" % harness.GROUPS["qmail"], "--clear-groups"] if harness.ROOT else []
    tools.run(*who, "prlimit", "--pid", str(pid), "--fsize=%s:unlimited" % octets)


def test_no_room_for_a_reason(make_server):
    """Why a recipient failed cannot be written down as a whole: none of it stays, the scheduler lives on, and with room the bounce is right."""
    refusal = b"550 5.1.1 " + b"nobody of that name, " * 8 + b"sorry\r\n"
    with remote.Peer(answers={"rcpt": [refusal, refusal, b"250 ok\r\n"]}) as peer:
        server = delivering(make_server, peer)
        scheduler = parts(server)["stile-relay"]
        limit_files(scheduler.pid, "64")
        send(server)
        # Its log is a file like others here: it can only be asked.
        poll(lambda: ", 1 later," in server.tool("status", "-S", server.ctl).text, "another try to be set")
        (n,) = [int(f.split("/")[-1]) for f in server.files() if f.startswith("remote/")]
        assert parts(server)["stile-relay"].pid == scheduler.pid and not server.log("crash")
        assert all(os.path.getsize(os.path.join(server.queue, f)) == 0 for f in server.files() if f.startswith("bounce/")), server.files()
        limit_files(scheduler.pid, "unlimited")
        server.tool("queue", "-S", server.ctl, "flush", str(n))
        poll(lambda: messages(peer), "the bounce")
        assert messages(peer)[0].count(b"<bob@far.example>:") == 1 and refusal[10:].split(b",")[0] in messages(peer)[0]
        poll(lambda: empty(server), "an empty queue")
        server.stop()


@pytest.mark.parametrize("name", NAMES)
def test_killed(make_server, name):
    """
    kill -9 of any of them: all three start anew, and what had been accepted is delivered. A cleaner may die between info/N and mess/N of one message: a
    file then waits for the sweep.
    """
    with remote.Peer(slow={"dot": 0.02}) as peer:
        server = delivering(make_server, peer)
        server.crash_expected = True
        before = poll(lambda: len(parts(server)) == 3 and parts(server), "all three")
        send(server, 20)
        os.kill(before[name].pid, signal.SIGKILL)
        poll(lambda: len(parts(server)) == 3 and not {p.pid for p in parts(server).values()} & {p.pid for p in before.values()}, "new ones", 40)
        send(server, 3)
        poll(lambda: empty(server) or name == "stile-clean" and only_debris(server), "an empty queue", 40)
        assert len(messages(peer)) >= 23
        for f in server.files():
            if f.startswith("mess/"):
                os.unlink(os.path.join(server.queue, f))
        server.stop()


def test_down_and_up(make_server):
    """A next hop that is down costs nothing but a probe now and then; when it is up again, all goes to it."""
    with remote.Peer() as peer:
        port = peer.port
    server = make_server(listen=INSIDE, control={"relay": "on\n", "smtproutes": ":127.0.0.1:%d\n" % port})
    send(server, 30)
    server.wait_log("backoff")
    time.sleep(1)
    assert not empty(server) and len(server.log("backoff")) < 5
    with remote.Peer(port=port) as peer:
        os.kill(parts(server)["stile-relay"].pid, signal.SIGALRM)
        poll(lambda: len(messages(peer)) == 30 and empty(server), "all of them", 40)
        server.stop()


def test_reload(make_server):
    """A HUP changes the next hop for what waits, too, and doubles nothing."""
    with remote.Peer() as peer:
        server = make_server(listen=INSIDE, control={"relay": "on\n", "smtproutes": ":127.0.0.1:%d\n" % tools.free_port()})
        send(server, 5)
        server.wait_log("backoff")
        old = parts(server)["stile-relay"].pid
        server.set(smtproutes=remote.route(peer))
        server.reload()
        poll(lambda: "stile-relay" in parts(server) and parts(server)["stile-relay"].pid != old, "a new scheduler", 40)
        poll(lambda: empty(server), "an empty queue", 60)
        assert len(messages(peer)) == 5
        # And off, and on again.
        server.set(relay="off\n")
        server.reload()
        poll(lambda: not parts(server), "their end", 40)
        send(server)
        server.set(relay="on\n")
        server.reload()
        poll(lambda: empty(server), "an empty queue", 60)
        assert len(messages(peer)) == 6
        server.stop()


def test_two_servers_one_queue(make_server):
    """Whoever has lock/sendmutex delivers; the other one waits for it, and says so in few words."""
    import fcntl  # pylint: disable=import-outside-toplevel
    with remote.Peer() as peer:
        held = []

        def hold(server):
            held.append(os.open(os.path.join(server.queue, "lock/sendmutex"), os.O_WRONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        server = delivering(make_server, peer, prepare=hold)
        send(server, 3)
        time.sleep(3)
        assert not messages(peer) and len(server.log()) < 30, server.tail()
        os.close(held[0])
        poll(lambda: empty(server), "an empty queue", 60)
        assert len(messages(peer)) == 3
        server.stop()


def test_bounce(make_server):
    """A recipient who is refused for good: a report goes to the sender, by the same way."""
    with remote.Peer(answers={"rcpt": [b"550 5.1.1 no such user here\r\n", b"250 2.1.5 ok\r\n"]}) as peer:
        server = delivering(make_server, peer)
        send(server)
        poll(lambda: messages(peer), "the report", 30)
        (report,) = messages(peer)
        assert b"\nTo: alice@client.example\n" in report and b"Hi. This is the " in report and b"550 5.1.1 no such user here" in report
        poll(lambda: empty(server), "an empty queue")
        lines = b"\n".join(line for t in peer.talks for line in t.lines)
        assert b"MAIL FROM:<>" in lines and b"RCPT TO:<alice@client.example>" in lines
        server.stop()


@pytest.mark.root
def test_syslog(make_server, scratch):
    """
    Under syslog the scheduler, the cleaner and the remotes can speak, too: a line of theirs once was a system call that their filters ended them for.
    A message to two recipients, of whom one is refused, then the report.
    """
    answers = {"rcpt": [b"550 5.1.1 no such user here\r\n", b"250 2.1.5 ok\r\n"]}
    log = harness.Syslog(scratch)
    with remote.Peer(answers=answers) as peer:
        server = delivering(make_server, peer, start=False, mounts=log.mounts)
        log.serve(server)
        try:
            poll(lambda: server.accepts("inside"), "the server")
            send(server, rcpts=["bob@far.example", "carol@far.example"])
            log.read_until(r"ev=deliver .*to=<?alice@client\.example.* result=ok")
            poll(lambda: empty(server), "an empty queue")
        finally:
            log.stop()
    assert len(messages(peer)) == 2


def test_stops_in_time(make_server):
    """SIGTERM while a next hop does not answer: it ends, and nothing is lost."""
    with remote.Peer(answers={"dot": remote.STALL}) as peer:
        server = delivering(make_server, peer)
        send(server, 2)
        poll(lambda: any(b"DATA" in t.lines for t in peer.talks), "a message on its way")
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 40
        assert len(server.messages()) + len(tools.run("find", os.path.join(server.queue, "remote"), "-type", "f").text.split()) >= 2


def test_memory(make_server):
    """What delivery costs when there is nothing to do."""
    with remote.Peer() as peer:
        server = delivering(make_server, peer)
        poll(lambda: len(parts(server)) == 3, "all three")
        kib = {}
        for name, p in parts(server).items():
            text = tools.read("/proc/%d/smaps_rollup" % p.pid).decode()
            kib[name] = sum(int(x) for x in re.findall(r"^Private_\w+: +(\d+)", text, re.M))
        assert sum(kib.values()) < 400, kib
        server.stop()


@pytest.mark.parametrize("at", ["greet", "rcpt", "data", "connect"])
def test_reload_cuts(make_server, at):
    """
    A route that hangs, mended and reloaded: deliveries that have not sent their message's end are cut off, what only waits is due, and all goes the new way
    at once. A delivery that was let run would hold all up for 20 seconds, and the old back-off for as long again.
    """
    with remote.Peer() as good, remote.Peer(answers={at: remote.STALL}) as bad:
        server = delivering(make_server, good if at == "connect" else bad)
        if at == "connect":
            # A full backlog: the kernel answers nobody.
            listener = socket.create_server(("127.0.0.1", 0), backlog=0)
            fill = [socket.socket() for _ in range(4)]
            for s in fill:
                s.setblocking(False)
                s.connect_ex(listener.getsockname())
            server.set(smtproutes=":127.0.0.1:%d\n" % listener.getsockname()[1])
            server.reload()
        send(server, 3)
        if at == "connect":
            time.sleep(1)
        else:
            poll(lambda: bad.talks, "a delivery")
        server.set(smtproutes=remote.route(good))
        begin = time.monotonic()
        server.reload()
        poll(lambda: len(messages(good)) == 3 and empty(server), "all three", 15)
        assert time.monotonic() - begin < 15
        assert not messages(bad)
        server.stop()
        if at == "connect":
            for s in [listener, *fill]:
                s.close()


def test_reload_hears_out(make_server):
    """A delivery that has sent the end of its message is heard out by a reload: the message arrives once, and that is known."""
    with remote.Peer(slow={"dot": 3}) as peer:
        server = delivering(make_server, peer)
        send(server)
        poll(lambda: messages(peer), "the data's end")
        server.reload()
        server.wait_log("deliver", result="ok")
        poll(lambda: empty(server), "an empty queue")
        poll(lambda: len([e for e in server.log("queue") if "in place" in e["msg"]]) == 2, "the next scheduler")
        assert len(messages(peer)) == 1
        server.stop()
