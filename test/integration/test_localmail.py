# SPDX-License-Identifier: MIT
"""
Mailboxes of this host (control/localmaildirs): what is written, when a recipient counts as done, what a loop, a missing directory or a full disk come
to, and that the queue can be handed to qmail-send at any moment.
"""

import contextlib
import os
import re
import shutil
import signal
import time

import pytest

import delivery
import faults
import harness
import remote
import smtpc
import stepper
import tools
from delivery import Clock, Job, Nursery, Queue, Rig, Scheduler, parse_bounce
from test_relay_kill import TELLING
from tools import poll

release = pytest.mark.release
LOCALS = {"locals": "home.example\n", "virtualdomains": "v.example:virt\nsue@w.example:box-sue\n"}


def make_maildir(path, owner=None):
    for d in ("", "tmp", "new", "cur"):
        os.mkdir(os.path.join(path, d), 0o700)
        if owner is not None:
            os.chown(os.path.join(path, d), owner, -1)
    return path


def mails(path):
    """What is in a Maildir; nothing is left in tmp/."""
    return [tools.read(os.path.join(path, "new", n)) for n in sorted(os.listdir(os.path.join(path, "new")))]


@pytest.fixture(scope="module")
def binary(work):
    return shutil.copy2(delivery.build(True), os.path.join(work, "scheduler-local"))


@pytest.fixture(scope="module")
def built(work):
    return shutil.copy2(delivery.build(False), os.path.join(work, "scheduler-local-kill")), stepper.build(work)


@pytest.fixture
def rig(binary, tmp_path):
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def make(boxes, act=Job.ok, **control):
            """`boxes`: {name: directory below tmp_path}"""
            lines = "".join("%s:%s\n" % (a, tmp_path / d) for a, d in boxes.items())
            r = Rig(binary, str(tmp_path / ("home%d" % next(count))), act, {**LOCALS, "localmaildirs": "# mailboxes\n\n" + lines, **control})
            stack.callback(r.close)
            return r
        yield make


@release
def test_delivery(rig, tmp_path):
    """
    Each where its line says, an address before its domain, whatever the case, and under the name that qmail-local would use; who has no line stays as
    it was, who is elsewhere gets it there.
    """
    bob, rest, virt, sue = (make_maildir(str(tmp_path / d)) for d in ("bob", "rest", "virt", "sue"))
    r = rig({"Bob@home.example": "bob", "@HOME.example": "rest/", "@v.example": "virt", "sue@w.example": "sue"}, locals="home.example\nother.example\n")
    body = b"Subject: words\n\nDelivered-To: bob@home.example\nwords, and no end"
    n = r.queue.todo(sender="an n@far.example", body=body, rcpts=[
        "BOB@Home.Example", "a@home.example", "joe@v.example", "sue@w.example", "x@other.example", "far@b.example"])
    s = r.start()
    poll(lambda: len(s.log("deliver")) == 5, "all")
    # The rest is qmail's, in its own format.
    poll(lambda: r.queue.parts(n) == {"mess", "info", "local"}, "the end of the rest, there is %r" % r.queue.parts(n))
    head = b'Return-Path: <"an n"@far.example>\nDelivered-To: %s\n' + delivery.RECEIVED + body
    assert [mails(d) for d in (bob, rest, virt, sue)] == [
        [head.replace(b"%s", a)] for a in (b"BOB@Home.Example", b"a@home.example", b"virt-joe@v.example", b"box-sue-sue@w.example")]
    assert not any(os.listdir(os.path.join(d, "tmp")) for d in (bob, rest, virt, sue))
    (name,) = os.listdir(os.path.join(bob, "new"))
    assert re.fullmatch(r"[0-9]+\.M[0-9]+P[0-9]+Q[0-9]+\.mail\.example\.net", name), name
    st = os.stat(os.path.join(bob, "new", name))
    assert st.st_mode & 0o7777 == 0o600 and st.st_nlink == 1
    assert r.queue.records("local", n) == [
        "DBOB@Home.Example", "Da@home.example", "Dvirt-joe@v.example", "Dbox-sue-sue@w.example", "Tx@other.example"]
    assert {e["to"]: e["result"] for e in s.log("deliver")}["virt-joe@v.example"] == "ok"
    s.stop()
    s = r.start_and_wait()
    s.signal(signal.SIGALRM)
    time.sleep(0.5)
    assert len(mails(bob)) == 1 and len(s.log("deliver")) == 5
    s.stop()


@release
def test_verp_null_and_odd(rig, tmp_path):
    """The sender as qmail-send would expand it; none; and octets that have no place in a header."""
    box = make_maildir(str(tmp_path / "box"))
    r = rig({"@home.example": "box"})
    for i, sender in enumerate(("list-@far.example-@[]", "", "a\nX: b@far.example")):
        r.queue.todo(sender=sender, rcpts=["u%d\nX: y@home.example" % i if i == 2 else "u%d@home.example" % i], body=b"Subject: x\n\nx\n")
    s = r.start()
    s.drained()
    heads = sorted(m.split(b"Received:")[0] for m in mails(box))
    assert heads == [b'Return-Path: <"a_X: b"@far.example>\nDelivered-To: u2_X: y@home.example\n', b"Return-Path: <>\nDelivered-To: u1@home.example\n",
                     b"Return-Path: <list-u0=home.example@far.example>\nDelivered-To: u0@home.example\n"]
    s.stop()


@release
@pytest.mark.parametrize("pad", [0, 2040, 2048, 4000])
def test_loop(rig, tmp_path, pad):
    """A message that has been there goes back, by its header only, wherever in it the line is; others are none of that."""
    box = make_maildir(str(tmp_path / "box"))
    r = rig({"@home.example": "box"})
    start = b"X-Pad: " + b"p" * pad + b"\n"
    r.queue.todo(rcpts=["bob@home.example"], body=start + b"delivered-to: BOB@home.example\nSubject: x\n\nx\n")
    r.queue.todo(rcpts=["bob@home.example"], body=start + b"Delivered-To: bobby@home.example\nX-Delivered-To: bob@home.example\n\nx\n")
    s = r.start()
    s.drained()
    assert len(mails(box)) == 1 and b"bobby" in mails(box)[0]
    (b,) = [parse_bounce(j) for j in r.nursery.jobs]
    assert b.rcpts == ["ann@far.example"] and "#5.4.6" in b.failures["bob@home.example"]
    s.stop()


@release
def test_missing(rig, tmp_path):
    """
    No directory, half of one, somebody else's: it waits, says why, is told of when it is late, and comes when the server is started over. When its time is
    up it goes back.
    """
    make_maildir(str(tmp_path / "good"))
    os.mkdir(tmp_path / "half")
    boxes = {"a@home.example": "none", "b@home.example": "half", "@home.example": "good"}
    if tools.ROOT:
        make_maildir(str(tmp_path / "others"), 12345)
        boxes["c@home.example"] = "others"
    r = rig(boxes, delaynotice="3600\n")
    bad = sorted(a for a in boxes if a[0] != "@")
    n = r.queue.todo(rcpts=[*bad, "d@home.example"])
    s = r.start()
    poll(lambda: len(s.log("deliver")) == len(boxes), "the attempts")
    poll(lambda: r.queue.records("local", n) == ["T" + a for a in bad] + ["Dd@home.example"], "the mark")  # it comes behind the log's line
    assert len(mails(str(tmp_path / "good"))) == 1 and len([e for e in s.log("queue") if "no Maildir of ours" in e["msg"]]) == len(bad)
    assert all("#4.3.0" in e["text"] for e in s.log("deliver", result="defer"))
    s.pass_(3700)
    s.wait_log("late")
    poll(lambda: r.nursery.jobs, "the notice")
    assert all(b"<%s>:\nThe mailbox cannot be written to" % a.encode() in r.nursery.jobs[0].body for a in bad)
    assert b"d@home.example" not in r.nursery.jobs[0].body
    s.stop()
    make_maildir(str(tmp_path / "none"))
    s = r.start()
    poll(lambda: r.queue.records("local", n)[0] == "Da@home.example", "the delivery")
    assert len(mails(str(tmp_path / "none"))) == 1 and len(mails(str(tmp_path / "good"))) == 1
    s.pass_(700000)
    s.drained()
    assert set(parse_bounce(r.nursery.jobs[-1]).failures) == set(bad[1:])
    s.stop()


@release
@pytest.mark.root
def test_full_disk(rig, tmp_path, work):
    """What does not fit leaves nothing, and waits, with the word; what is elsewhere does not wait for it."""
    with faults.mounted(os.path.join(work, "full"), "-t", "tmpfs", "-o", "size=64k,mode=700", "none") as top:
        box = make_maildir(os.path.join(top, "box"))
        os.symlink(box, tmp_path / "box")
        r = rig({"@home.example": "box"})
        n = r.queue.todo(rcpts=["bob@home.example", "far@b.example"], body=b"Subject: x\n\n" + b"0123456789abcde\n" * 8000)
        s = r.start()
        (e,) = s.wait_log("deliver", to="bob@home.example")
        assert e["result"] == "defer" and "no room" in e["text"]
        s.wait_log("deliver", to="far@b.example", result="ok")
        assert r.queue.records("local", n) == ["Tbob@home.example"] and mails(box) == [] and not os.listdir(os.path.join(box, "tmp"))
        tools.run("mount", "-o", "remount,size=1m", top)
        s.pass_(delivery.RETRY)
        s.drained()
        assert len(mails(box)) == 1 and len(r.nursery.jobs) == 1
        s.stop()


@release
def test_elsewhere_is_down(rig, tmp_path):
    """A mailbox here does not wait for a destination that is down, nor is that one asked more often for it."""
    box = make_maildir(str(tmp_path / "box"))
    r = rig({"@home.example": "box"}, act=Job.unreachable)
    r.queue.todo(rcpts=["far@b.example"])
    s = r.start()
    s.wait_log("backoff")
    n = r.queue.todo(rcpts=["far@b.example", "bob@home.example"])
    poll(lambda: mails(box), "the mail")
    poll(lambda: "local" not in r.queue.parts(n), "the end of local/N")
    assert len(r.nursery.jobs) <= 2 and r.queue.records("remote", n) == ["Tfar@b.example"]
    s.stop()


@release
def test_many(rig, tmp_path):
    """A hundred mailboxes, and a queue that has lain there for qmail: all of it, once."""
    box = make_maildir(str(tmp_path / "box"))
    r = rig({"@home.example": "box"})
    r.queue.queued(remote=(), local=["Told@home.example", "Dolder@home.example"], age=4000)
    r.queue.todo(rcpts=["u%d@home.example" % i for i in range(100)])
    s = r.start()
    s.drained()
    assert sorted(re.search(rb"^Delivered-To: (\S+)@", m, re.M).group(1).decode() for m in mails(box)) == sorted(["u%d" % i for i in range(100)] + ["old"])
    s.stop()


@release
@pytest.mark.parametrize("text,word", [
    ("bob@home.example\n", "expected USER@DOMAIN:/PATH"), ("home.example:/x\n", "expected USER"), ("bob@home.example:x\n", "expected USER"),
    ("bob@:/x\n", "expected USER"), ("a@b.c:/x\nA@b.C:/y\n", "two lines for `a@b.c`"), ("\n" + "".join("u%d@b.c:/x\n" % i for i in range(65)), "LOCAL_MAILDIRS_MAX")])
def test_bad_lines(binary, tmp_path, text, word):
    q = Queue(str(tmp_path / "home"), localmaildirs=text)
    p = tools.run(binary, q.home, "0", check=False)
    assert p.returncode == 100 and "control/localmaildirs" in p.text and word in p.text, p.text


# ---- kill -9, and the order of calls ----

class Case:
    def __init__(self, built, home):
        self.scheduler, self.stepper = built
        self.box = make_maildir(home + "-box")
        self.queue = Queue(home, localmaildirs="@home.example:%s\n" % self.box, **{**LOCALS, "locals": "home.example\nother.example\n"})
        self.nursery = Nursery()
        self.clock = Clock(os.path.join(home, "clock"))
        self.n = self.queue.todo(rcpts=["a@home.example", "b@home.example", "far@b.example", "q@other.example"], body=b"Subject: x\n\nx\n", trigger=False)
        self.loop = self.queue.todo(rcpts=["c@home.example"], body=b"Delivered-To: c@home.example\n\nx\n", trigger=False)
        self.runs = []

    def done(self):
        return (self.queue.all() == {self.n: {"mess", "info", "local"}} and not os.listdir(self.queue.path("pid"))
                and self.queue.records("local", self.n) == ["Da@home.example", "Db@home.example", "Tq@other.example"])

    def run(self, who, at=None):
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock, wait=True)
        self.runs.append(s)
        with stepper.Stepper(self.stepper, s.pid, 1 if who == "cleaner" else 0) as step:
            if at is not None:
                step.rule(at, "kill")
            step.release(s.pid)
            poll(lambda: step.gone is not None or self.done(), "the end")
            time.sleep(0.2)
            if at is None:
                step.sync()
            calls = list(step.calls)
        s.kill()
        return calls

    def finish(self):
        # At any moment what there is is qmail's format.
        for n in self.queue.all():
            assert "todo" in self.queue.parts(n) or all(x[0] in "TD" for d in ("local", "remote") for x in self.queue.records(d, n))
        # Whoever is marked has his mail, durably in its place.
        for x in [] if "todo" in self.queue.parts(self.n) else self.queue.records("local", self.n):
            if x[0] == "D":
                assert [m for m in mails(self.box) if b"\nDelivered-To: %s\n" % x[1:].encode() in m], x
        before = self.runs[-1].begun()
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock)
        self.runs.append(s)
        poll(lambda: s.begun() > before, "the start")
        s.signal(signal.SIGALRM)
        poll(lambda: self.queue.underway() == {self.n: {"mess", "info", "local"}}, "the end, there is %r" % self.queue.all())
        s.stop()
        assert self.queue.records("local", self.n) == ["Da@home.example", "Db@home.example", "Tq@other.example"]
        whose = [re.search(rb"^Delivered-To: (\S+)", m, re.M).group(1) for m in mails(self.box)]
        assert set(whose) == {b"a@home.example", b"b@home.example"} and len(whose) <= 3, whose
        whole = delivery.RECEIVED + b"Subject: x\n\nx\n"
        assert all(m.endswith(whole) for m in mails(self.box))
        assert {a for j in self.nursery.jobs for a in j.rcpts} == {"far@b.example", "ann@far.example"}

    def close(self):
        for s in self.runs:
            s.kill()
        self.nursery.close()


def killed(built, home, who, at):
    c = Case(built, home)
    try:
        c.run(who, at)
        c.finish()
    except BaseException as e:
        raise AssertionError("%s killed at call %d:\n%s" % (who, at, tools.read(c.runs[-1].log_path).decode()[-3000:])) from e
    finally:
        c.close()
        tools.rmtree(home)
        tools.rmtree(home + "-box")


@release
@pytest.mark.parametrize("who", ["scheduler", "cleaner"])
def test_killed_at_each_call(built, tmp_path, who):
    """Each has his mail at the end, one of them perhaps twice; nobody is marked who has not; the sender of the other one is told."""
    c = Case(built, str(tmp_path / "all"))
    calls = c.run(who)
    c.finish()
    c.close()
    at = [x.count for x in calls if x.name in TELLING and not x.failed]
    assert len(at) > 60, len(at)
    step = 1 if tools.LONG else 4
    at = at[time.localtime().tm_yday % step::step]
    print("%d calls, %d kills" % (len(calls), len(at)))
    faults.each(killed, [(built, str(tmp_path / str(i)), who, i) for i in at], 6)


@release
def test_order(built, tmp_path):
    """What a power cut must not break: the file is flushed before its name is given, the name before the answer, and the answer comes before the mark."""
    c = Case(built, str(tmp_path / "cleaner"))
    calls = [x for x in c.run("cleaner") if not x.failed]
    c.close()
    ours = [(i, x) for i, x in enumerate(calls) if any("tmp/" in s and "home" not in s for s in x.strings if s) and x.name in ("link", "linkat")]
    assert len(ours) == 2, ours
    for i, x in ours:
        name = [s for s in x.strings if s][0]
        made = max(k for k in range(i) if calls[k].name in ("open", "openat") and name in calls[k].strings)
        between = calls[made + 1:i]
        wrote = max(k for k, y in enumerate(between) if y.name in ("write", "writev"))
        assert "fsync" in [y.name for y in between[wrote:]] and between[-1].name == "close", between
        after = [y.name for y in calls[i + 1:]]
        assert after.index("fsync") < after.index("sendmsg") and calls[i + 1 + after.index("fsync")].fd.endswith("/new"), calls[i:i + 8]
    c = Case(built, str(tmp_path / "scheduler"))
    calls = [x for x in c.run("scheduler") if not x.failed]
    c.close()
    marks = [i for i, x in enumerate(calls) if x.name == "pwrite64" and x.about("local")]
    assert len(marks) == 3
    for i in marks[:2]:
        before = [y.name for y in calls[:i]]
        assert before[-2:] != ["sendmsg", "sendmsg"] and before.count("recvmsg") >= before.count("sendmsg"), calls[i - 6:i + 1]
    assert any(x.name == "fdatasync" and x.about("local") for x in calls[marks[1]:])


# ---- under main ----

def test_whole(make_server, scratch):
    """In its jail, behind its filter, as whoever it runs as; `check` looks at the directories."""
    uid = harness.USERS["qmailq"] if tools.ROOT else os.getuid()
    box = make_maildir(os.path.join(scratch, "box"), uid)
    with remote.Peer() as peer:
        server = make_server(listen={"inside": harness.LISTEN["inside"]}, control={
            "relay": "on\n", "smtproutes": remote.route(peer), "locals": "home.example\n", "localmaildirs": "@home.example:%s/\n" % box})
        text = server.tool("check").text
        assert "@home.example: %s/" % box in text and "local addresses without a line stays in the queue" in text
        for i in range(3):
            with server.session("inside") as client:
                client.envelope("alice@client.example", ["bob@home.example", "far@far.example"])
                client.cmd("DATA", 354)
                client.send(smtpc.MESSAGE + b".\r\n")
                assert client.reply() == 250
            poll(lambda i=i: len(mails(box)) == i + 1, "the mail")
        assert all(m.startswith(b"Return-Path: <alice@client.example>\nDelivered-To: bob@home.example\nReceived: ") for m in mails(box))
        poll(lambda: not [f for f in server.files() if not f.startswith("lock")], "an empty queue")
        server.set(localmaildirs="@home.example:%s/\n" % os.path.join(scratch, "none"))
        p = server.tool("check", check=False)
        assert p.returncode != 0 and "no Maildir" in p.text, p.text
        server.stop()
