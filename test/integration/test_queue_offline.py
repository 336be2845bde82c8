# SPDX-License-Identifier: MIT
"""
Orders of `mailstile queue` while no scheduler runs: the tool takes its place (offline.c). And the same orders, killed at each step: the queue is
legal then, an order is done or not, and no message is lost by it.
"""

import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

import delivery
import faults
import harness
import remote
import stepper
import tools
from delivery import Nursery, Queue, Scheduler, parse_bounce
from test_delivery import empty, messages, send
from test_queue_orders import ASK, BOUNCE, DONE, HOLD, HOLD_TIME, RELEASE, REMOVE
from test_queue_tool import listed, queue as queue_raw
from tools import poll


def queue(server, *words, status=0):
    """Without a syslog, log lines go to stderr, too."""
    return "".join(line + "\n" for line in queue_raw(server, *words, status=status).splitlines() if not line.startswith("ev="))


def path_of(server, d, n):
    (path,) = [p for p in server.files() if re.fullmatch(r"%s/(\d+/)?%d" % (d, n), p)]
    return os.path.join(server.queue, path)


def test_orders(make_server):
    """A queue that nobody delivers from, new messages only: each order is carried out, by the right users, and the server that comes next goes on from there."""
    with remote.Peer() as peer:
        server = make_server(control={"relay": "off\n"}, listen={"inside": harness.LISTEN["inside"]})
        send(server, 5, rcpts=["bob@far.example", "carol@else.example"])
        send(server, rcpts=["dave@near.example"])
        server.stop()
        new = listed(server)
        assert {e["state"] for e in new.values()} == {"new"}
        (near,) = [n for n, e in new.items() if e["state"] == "new" and b"near.example" in tools.read(path_of(server, "todo", n))]
        held, kept, removed, returned, plain = sorted(set(new) - {near})
        assert queue(server, "hold", str(held), str(kept)) == "2 done, 0 not\n"
        assert not os.listdir(server.queue + "/todo")
        assert queue(server, "remove", str(removed)) == "1 done, 0 not\n"
        assert queue(server, "bounce", str(returned)) == "1 done, 0 not\n"
        assert queue(server, "hold", "NEAR.example") == "1 done, 0 not\n"
        assert "release it" in queue(server, "flush", str(held), status=1)
        assert "no such message" in queue(server, "hold", "1", status=1)
        e = listed(server)
        assert {n for n in e if e[n]["state"] == "held"} == {held, kept, near} and e[plain]["state"] == "queued"
        # The bounce may have the number of what is gone.
        assert {n for n in e if e[n]["sender"]} == {held, kept, near, plain} and len(e) == 5
        assert e[held]["to"] == ["bob@far.example", "carol@else.example"] and e[held]["sender"] == "alice@client.example"
        for n in (held, kept, near):
            assert os.stat(path_of(server, "remote", n)).st_mtime == HOLD_TIME
        if harness.ROOT:
            for d, who in (("info", "qmails"), ("remote", "qmails"), ("mess", "qmailq")):
                assert os.stat(path_of(server, d, plain)).st_uid == harness.USERS[who]
        # When somebody has put it off for long, too.
        os.utime(path_of(server, "remote", plain), (0, time.time() + 5000))
        assert queue(server, "flush", str(plain)) == "1 done, 0 not\n"
        assert os.stat(path_of(server, "remote", plain)).st_mtime <= time.time()
        assert queue(server, "release", str(held), "near.example") == "2 done, 0 not\n"
        assert not os.listdir(server.queue + "/pid")
        server.set(relay="on\n", smtproutes=remote.route(peer))
        server.start()
        poll(lambda: len(messages(peer)) == 4, "three messages and a bounce")
        assert [m for m in messages(peer) if b"has returned the message" in m]
        poll(lambda: {n: x["state"] for n, x in listed(server).items()} == {kept: "held"}, "the one that is held")
        assert queue(server, "remove", str(kept)) == "1 done, 0 not\n"
        poll(lambda: empty(server), "an empty queue")
        server.stop()


def test_another_delivers(make_server):
    """Who has lock/sendmutex delivers: no order goes through beside it, nothing is touched, and the hint says what to do."""
    server = make_server(control={"relay": "off\n"})
    with server.session("inside") as c:
        c.mail(rcpts=("you@far.example",))
        c.quit()
    (n,) = listed(server)
    before = server.files()
    with open(server.queue + "/lock/sendmutex", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (("hold", str(n)), ("flush",), ("remove", "-y", "all")):
            assert "If it is qmail-send, stop it" in queue(server, *words, status=111)
        assert server.files() == before and list(listed(server)) == [n]
    assert queue(server, "remove", "-y", "all") == "1 done, 0 not\n"
    assert empty(server)
    server.stop()


def test_other_house(make_server):
    """A server that answers, of another queue: numbers are not taken for its messages. And without a name nothing is returned from nowhere."""
    server = make_server(control={"relay": "off\n"})
    other = make_server(start=False)
    with server.session("inside") as c:
        c.mail(rcpts=("you@far.example",))
        c.quit()
    (n,) = listed(server)
    other.ctl = server.ctl
    assert not listed(other) and "no such message" in queue(other, "remove", str(n), status=1)
    assert list(listed(server)) == [n]
    other.set(me=None)
    assert "control/me" in queue(other, "flush", status=100)
    assert queue(server, "remove", str(n)) == "1 done, 0 not\n"
    server.stop()


@pytest.mark.root
def test_stock_queue(make_server):
    """
    A queue as a qmail-send leaves it that was stopped: half done, a failure to be told, mail for mailboxes here. A message that is only for them stays;
    no secret is read, and all of it is done without privileges.
    """
    server = make_server(start=False, control={"relay": None, "locals": "here.example\n"})
    split = len(os.listdir(server.queue + "/mess"))
    send_uid, spool_uid, gid = harness.USERS["qmails"], harness.USERS["qmailq"], harness.GROUPS["qmail"]

    def put(d, n, text, uid, mode=0o600):
        path = "%s/%s/%s%d" % (server.queue, d, "" if d == "bounce" else "%d/" % (n % split), n)
        tools.write(path, text, mode)
        os.chown(path, uid, gid)

    numbers = []
    for records, local, bounce in ((b"Dx@far.example\0Ty@far.example\0", b"", b"<z@far.example>:\nno\n\n"), (b"", b"Tme@here.example\0", b""),
                                   (b"Ta@far.example\0", b"Tme@here.example\0", b"")):
        path = tools.write(server.queue + "/pid/1", b"Received: (qmail 1 invoked by uid 1); 1 Jan 2026 00:00:00 -0000\nSubject: x\n\nx\n", 0o644)
        n = os.stat(path).st_ino
        os.rename(path, "%s/mess/%d/%d" % (server.queue, n % split, n))
        os.chown("%s/mess/%d/%d" % (server.queue, n % split, n), spool_uid, gid)
        put("info", n, b"Fann@far.example\0", send_uid)
        for d, text in (("remote", records), ("local", local), ("bounce", bounce)):
            if text:
                put(d, n, text, send_uid)
        numbers.append(n)
    half, here, both = numbers
    trace = os.path.join(server.home, "trace")
    tools.run("strace", "-f", "-e", "trace=chroot,setresuid,openat,open,unlink", "-o", trace,
              *server.house.argv([server.binary, "queue", "-H", server.home, "-S", server.ctl, "bounce", str(half)]))
    text = tools.read(trace).decode()
    assert "serverkey" not in text and "radius.conf" not in text and "smtpauth" not in text
    for word in ('"info/', '"bounce/', '"mess/'):
        first = [line for line in text.splitlines() if word in line][0]
        before = text[:text.index(first)]
        assert "chroot(" in before and "setresuid(%d" % send_uid in before, first
    (new,) = os.listdir(server.queue + "/todo")
    body = tools.read(path_of(server, "mess", int(new)))
    assert b"<z@far.example>:\nno\n" in body and b"<y@far.example>:\nThe operator" in body and b"<x@" not in body
    assert "nothing of it is ours" in queue(server, "remove", str(here), status=1)
    assert queue(server, "bounce", str(both)) == "1 done, 0 not\n"
    left = {n: x["local"] for n, x in listed(server).items() if x["local"]}
    assert left == {here: ["me@here.example"]}
    (last,) = set(os.listdir(server.queue + "/todo")) - {new}
    body = tools.read(path_of(server, "mess", int(last)))
    assert b"<a@far.example>:\nThe operator" in body and b"<me@here.example>:\nThe operator" in body
    for f in server.files():
        if not f.startswith("lock"):
            os.unlink(os.path.join(server.queue, f))


# ---- kills ----

# What changes something, or makes it last, or tells the other process.
CHANGING = {"open", "openat", "creat", "write", "writev", "pwrite64", "unlink", "unlinkat", "link", "linkat", "rename", "utimensat", "ftruncate", "sendmsg",
            "recvmsg", "fsync", "fdatasync"}
TOP = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


@pytest.fixture(scope="module")
def kill_tools(work):
    place = os.path.join(work, "offline-kill")
    os.mkdir(place, 0o755)
    return shutil.copy2(delivery.build(), os.path.join(work, "scheduler-offline")), stepper.build(work), shutil.copy2(tools.BINARY, os.path.join(place, "mailstile"))


class Case:
    """A message half done, with a failure to be told; another one that no order is about. Both must come to an end that the order allows."""

    def __init__(self, built, home, order):
        self.scheduler, self.stepper, self.binary = built
        self.home, self.order, self.jobs = home, order, []
        self.queue = Queue(home)
        self.n = self.queue.queued(remote=("Ddone@b.example", "Tone@b.example", "Ttwo@b.example"), bounce=b"<early@b.example>:\nno\n\n",
                                   body=b"Subject: a\n\nx\n", wait=3000)
        if order == "release":
            os.utime(self.queue.name("remote", self.n), (HOLD_TIME, HOLD_TIME))
        self.other = self.queue.todo(sender="eve@far.example", rcpts=["three@b.example"], body=b"Subject: b\n\nx\n", trigger=False)

    def run(self, who, at=None):
        argv = [*TOP, self.binary, "queue", "-H", self.home, "-S", self.home + "/none", self.order, str(self.n)]
        if harness.ROOT:
            tools.run("chown", "-R", "65534:65534", self.home)
            argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
            tools.wait_stopped(p.pid)
            with stepper.Stepper(self.stepper, p.pid, 1 if who == "cleaner" else 0) as step:
                if at is not None:
                    step.rule(at, "kill")
                step.release(p.pid)
                out = p.stdout.read().decode()
                p.wait(tools.PATIENCE)
                poll(lambda: step.gone is not None, "the end")
            return list(step.calls), p.returncode, out

    def run_scheduler(self, who, at=None):
        """The order goes to a scheduler that has done all that is due; it, or its cleaner, is killed."""
        nursery = Nursery()
        self.jobs = nursery.jobs
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [nursery.theirs.fileno(), theirs.fileno()]
        with open(os.path.join(self.home, "log-order"), "wb") as log:
            p = subprocess.Popen([self.scheduler, self.home, str(fds[0])], pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 env=dict(os.environ, SCHEDULER_CTL=str(fds[1])))
        theirs.close()
        try:
            poll(lambda: self.other not in self.queue.all(), "the other message to go")
            cleaner = tools.children(p.pid)[0].pid
            subject = p.pid if who == "scheduler" else cleaner
            with stepper.Stepper(self.stepper, subject) as step:
                if at is not None:
                    step.rule(at, "kill")
                assert step.arm()
                kind = {"hold": HOLD, "release": RELEASE, "remove": REMOVE, "bounce": BOUNCE}[self.order]
                socket.send_fds(mine, [ASK.pack(0x6D737402, kind, self.n)], [there.fileno()])
                there.close()
                here.settimeout(tools.PATIENCE)
                answer = here.recv(64)

                def changes():
                    return len([x for x in step.calls if x.name in CHANGING])
                # What comes of it; when nobody is to be killed, all of it.
                end, seen = time.monotonic() + 0.5, changes()
                while time.monotonic() < end and step.gone is None:
                    time.sleep(0.02)
                    if at is None and changes() > seen:
                        end, seen = time.monotonic() + 0.5, changes()
                if step.gone is None:
                    step.sync()
                calls = list(step.calls)
        finally:
            p.kill()
            p.wait(tools.PATIENCE)
            poll(lambda: not faults.alive(cleaner), "the cleaner's end")
            for x in (mine, here):
                x.close()
            nursery.close()
        done = len(answer) == 8 and struct.unpack("=II", answer)[0] == DONE
        return calls, 0 if done else -signal.SIGKILL if who == "scheduler" else 111, "1 done, 0 not"

    def finish(self, status, out):
        """Let a scheduler carry on what is left, and look at what has become of all."""
        self.queue.check()
        remote_n = self.queue.name("remote", self.n)
        alive = self.n in self.queue.all() and os.path.exists(self.queue.name("info", self.n))
        held = alive and os.path.exists(remote_n) and os.stat(remote_n).st_mtime == HOLD_TIME
        tools.run("chown", "-R", "%d:%d" % (os.geteuid(), os.getegid()), self.home)
        nursery = Nursery()
        s = Scheduler(self.scheduler, self.queue, nursery)
        try:
            poll(s.begun, "the start")
            s.signal(signal.SIGALRM)
            poll(lambda: set(self.queue.underway()) in ([set(), {self.n}] if held else [set()]), "the end of all that is not held")
            s.stop()
        finally:
            s.kill()
            nursery.close()
        jobs = self.jobs + nursery.jobs
        to = [a for j in jobs if j.sender for a in j.rcpts]
        told = {a: text for j in jobs if not j.sender for a, text in parse_bounce(j).failures.items()}
        assert "three@b.example" in to and "done@b.example" not in to
        mine = {"one@b.example", "two@b.example"}
        if held:
            assert self.order in ("hold", "release") and not mine & set(to) and not told
            assert self.queue.records("remote", self.n) == ["Ddone@b.example", "Tone@b.example", "Ttwo@b.example"]
            assert self.queue.parts(self.n) >= {"mess", "info", "remote", "bounce"}
        elif self.order == "remove":
            # Not done: it goes on, though what was to be told may be gone already; done: nobody hears of it.
            assert mine <= set(to) or (not mine & set(to) and not told), (to, told)
        else:
            assert mine <= set(to) | set(told) and "early@b.example" in told, (to, told)
        if status == 0:
            assert "1 done, 0 not" in out
            assert {"hold": held, "release": not held and mine <= set(to), "remove": not alive and not told, "bounce": not alive and mine <= set(told)}[self.order]


def broken(built, home, order, run, who, at, name):
    c = Case(built, home, order)
    try:
        _, status, out = getattr(c, run)(who, at)
        if run == "run":
            assert status == -signal.SIGKILL if who == "tool" else status in (0, 1, 111), (status, out)
        c.finish(status, out)
    except BaseException as e:
        raise AssertionError("%s, %s killed at call %d, about %s" % (order, who, at, name)) from e
    finally:
        tools.rmtree(home)


def kill_at_each(built, top, order, run, whom, least):
    os.mkdir(top, 0o755)
    kills = []
    for who in whom:
        home = os.path.join(top, "all-" + who)
        os.mkdir(home, 0o755)
        c = Case(built, home, order)
        calls, status, out = getattr(c, run)(who)
        assert status == 0, out
        c.finish(status, out)
        kills += [(run, who, x.count, x.name) for x in calls if x.name in CHANGING and not x.failed]
    assert len(kills) > least, kills
    print("%s: %d kills" % (order, len(kills)))
    jobs = []
    for i, k in enumerate(kills):
        os.mkdir(os.path.join(top, str(i)), 0o755)
        jobs.append((built, os.path.join(top, str(i)), order, *k))
    faults.each(broken, jobs, 4)
    tools.rmtree(top)


@pytest.mark.release
@pytest.mark.parametrize("order,least", [("hold", 10), ("release", 10), ("remove", 20), ("bounce", 40)])
def test_killed_at_each_step(kill_tools, work, order, least):
    """
    kill -9 of the tool, from its first question to the cleaner on, which is about the message that is new, and of its cleaner, at each call that changes
    something; an answer that was given holds.
    """
    kill_at_each(kill_tools, os.path.join(work, "offline-%s" % order), order, "run", ("tool", "cleaner"), least)


@pytest.mark.release
@pytest.mark.parametrize("order,least", [("hold", 3), ("release", 10), ("remove", 8), ("bounce", 30)])
def test_scheduler_killed_at_each_step(kill_tools, work, order, least):
    """The same of a scheduler that runs, and of its cleaner, from the order until all that comes of it is done."""
    whom = ("scheduler",) if order == "hold" else ("scheduler", "cleaner")
    kill_at_each(kill_tools, os.path.join(work, "online-%s" % order), order, "run_scheduler", whom, least)
