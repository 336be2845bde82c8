# SPDX-License-Identifier: MIT
"""
The scheduler and its cleaner against what qmail's queue asks of an agent that delivers: states, orders, outcomes, bounces. When what is tried is in
test_relay_times.py. Remotes are played here; see delivery.py.
"""

import fcntl
import os
import signal
import stat
import time

import pytest

import delivery
import tools
from delivery import DAY, RETRY, Job, later, parse_bounce, refused
from tools import poll

pytestmark = pytest.mark.release


# ---- the mutex, the start ----

def test_mutex(rig):
    """Held: one line, status 100, nothing touched. Ours: held for life."""
    r = rig()
    n = r.queue.todo()
    before = r.queue.all()
    with open(r.queue.path("lock/sendmutex"), "wb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        s = r.start()
        s.wait_exit(100)
        assert len(s.log()) == 1 and "another program" in s.log()[0]["msg"]
        assert r.queue.all() == before == {n: {"mess", "intd", "todo"}}
    s = r.start()
    s.drained()
    with open(r.queue.path("lock/sendmutex"), "wb") as f, pytest.raises(BlockingIOError):
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    s.stop()


def test_takeover(rig):
    """What is due is tried, what is not waits; D records stay; a time that another clock has written counts as none."""
    r = rig()
    due = r.queue.queued(remote=("Dx@b.example", "Ta@b.example", "Dy@b.example", "Tb@c.example"), age=500)
    ahead = r.queue.queued(remote=("Tc@b.example",), age=500, wait=3600)
    absurd = r.queue.queued(remote=("Td@b.example",), age=500, wait=300 * DAY)
    s = r.start()
    poll(lambda: set(r.queue.all()) == {ahead}, "all but one")
    assert sorted(a for j in r.jobs_for(due) for a in j.rcpts) == ["a@b.example", "b@c.example"]
    assert [j.rcpts for j in r.jobs_for(absurd)] == [["d@b.example"]]
    s.pass_(3601)
    s.drained()


def test_states(rig):
    """
    Every combination of files that a crash can leave is brought to its end: envelopes with stale info, local and remote are taken in anew, what
    is over is removed, what was never completed stays until the sweep.
    """
    r = rig()
    q = r.queue
    expect, debris = {}, []
    for mask in range(16):
        n = q.todo(rcpts=["new@b.example"], intd=bool(mask & 8), trigger=False)
        for bit, d, content in ((1, "info", b"Fold@far.example\0"), (2, "local", b"Told@b.example\0"), (4, "remote", b"Told@b.example\0")):
            if mask & bit:
                tools.write(q.name(d, n), content, 0o600)
        expect[n] = ["new@b.example"]
    for remote in ((), ("Ta@b.example",), ("Da@b.example",), ("Da@b.example", "Tb@b.example")):
        for bounce in (b"", b"<z@b.example>:\nNo such user.\n\n"):
            expect[q.queued(remote=remote, bounce=bounce)] = [x[1:] for x in remote if x[0] == "T"]
    for with_intd in (0, 1):
        debris.append(q.mess())
        if with_intd:
            tools.write(q.name("intd", debris[-1]), b"u0\0")
    s = r.start()
    poll(lambda: set(q.all()) == set(debris), "only debris")
    # The number of a message that is done may come again, for a bounce.
    got = {n: [a for j in r.jobs_for(n) for a in j.rcpts if j.sender] for n in expect}
    assert got == expect
    bounces = [parse_bounce(j) for j in r.nursery.jobs if j.sender == ""]
    assert [b.failures for b in bounces] == [{"z@b.example": "No such user."}] * 4
    s.stop()


def test_clean_state_between(rig):
    """A message under way has mess, info and remote, of the right modes, and the time of info is that of its coming."""
    r = rig(act=None)
    n = r.queue.todo(sender="ann@far.example", rcpts=["a@b.example", "c@d.example"])
    s = r.start()
    job = r.nursery.wait()[0]
    assert r.queue.parts(n) == {"mess", "info", "remote"}
    assert tools.read(r.queue.name("info", n)) == b"Fann@far.example\0"
    assert r.queue.records("remote", n) == ["Ta@b.example", "Tc@d.example"]
    for d in ("info", "remote"):
        st = os.stat(r.queue.name(d, n))
        assert stat.S_IMODE(st.st_mode) == 0o600
        assert abs(st.st_mtime - time.time()) < 60
    assert (job.domain, job.sender, job.route, job.rcpts) == ("b.example", "ann@far.example", 0, ["a@b.example", "c@d.example"])
    job.ok()
    s.drained()
    s.wait_log("done", id=n)  # which comes behind the last file's end
    assert s.log("queued", id=n)[0]["qp"] == "4711" and s.log("queued")[0]["uid"] == "1000"
    assert [x["ev"] for x in s.log(id=n)] == ["queued", "deliver", "deliver", "done"]


def test_rewriting(rig):
    """envnoathost, percenthack, locals, virtualdomains in their order; case is kept; what is local is left for qmail, and not ours."""
    r = rig(locals="home.example\n", percenthack="hack.example\n", envnoathost="home.example\n",
            virtualdomains="v.example:virt\nbob@w.example:wbob\n.sub.example:s\nx.sub.example:\n")
    n = r.queue.todo(rcpts=["joe", "Ann@Home.Example", "a%b.example@HACK.example", "a%b.example%hack.example@hack.example", "U@V.example",
                            "bob@w.example", "ann@w.example", "q@y.sub.example", "q@x.sub.example", "far@b.example"])
    s = r.start()
    poll(lambda: r.queue.parts(n) == {"mess", "info", "local"}, "the local part being left")
    assert sorted(a for j in r.jobs_for(n) for a in j.rcpts) == [
        "a@b.example", "a@b.example", "ann@w.example", "far@b.example", "q@x.sub.example"]
    assert r.queue.records("local", n) == ["T" + x for x in (
        "joe@home.example", "Ann@Home.Example", "virt-U@V.example", "wbob-bob@w.example", "s-q@y.sub.example")]
    s.stop()
    # The next start leaves it alone, too.
    s = r.start_and_wait()
    s.stop()
    assert r.queue.parts(n) == {"mess", "info", "local"} and len(r.jobs_for(n)) == 1


def test_local_refused(rig):
    """With `localdelivery` bounce local recipients fail, under the address the sender knows; so do those of a queue that is taken over."""
    r = rig(localdelivery="bounce\n", locals="home.example\n", virtualdomains="v.example:virt\n")
    n = r.queue.todo(rcpts=["joe@home.example", "u@v.example", "far@b.example"], trigger=False)
    old = r.queue.queued(remote=(), local=("Tann@home.example", "Dbob@home.example"))
    s = r.start()
    s.drained()
    # Their numbers may be those of bounces by now.
    assert [j.rcpts for j in r.nursery.jobs if j.sender] == [["far@b.example"]] and n != old
    failed = sorted(sorted(parse_bounce(j).failures) for j in r.nursery.jobs if j.sender == "")
    assert failed == [["ann@home.example"], ["joe@home.example", "u@v.example"]]
    s.stop()


def test_local_unreadable(rig):
    """
    An error in the midst of local/N was taken for its end, and with the file went those that had not been read, without a word to anybody. It stays.
    """
    r = rig(localdelivery="bounce\n")
    n = r.queue.queued(remote=(), local=("T" + "x" * 5000 + "@home.example", "Tann@home.example"))
    s = r.start()
    s.wait_log("queue", id=n, msg="cannot be carried on for now")
    time.sleep(0.2)
    assert r.queue.parts(n) == {"mess", "info", "local"} and not r.nursery.jobs
    s.stop()


def test_malformed(rig):
    """
    An envelope with an unknown record, or without a sender, stays, and is complained of once, not at every scan. One without recipients ends. A
    last record that is not whole is left out, with a word.
    """
    r = rig()
    q = r.queue
    stuck = [q.todo(raw=raw, trigger=False) for raw in (b"u0\0Fa@b.example\0Xwhat\0Tx@b.example\0", b"u0\0p1\0Tx@b.example\0", b"",
                                                        b"Fa@b.example\0T" + b"x" * 5000 + b"@b.example\0", b"\0")]
    empty = q.todo(raw=b"u0\0p1\0Fa@b.example\0", trigger=False)
    cut = q.todo(raw=b"Fa@b.example\0Tone@b.example\0Ttwo@b.exam", trigger=False)
    no_mess = q.todo(trigger=False)
    os.unlink(q.name("mess", no_mess))
    s = r.start()
    poll(lambda: set(q.all()) == set(stuck) | {no_mess}, "the others")
    assert [a for j in r.nursery.jobs for a in j.rcpts] == ["one@b.example"]
    poll(lambda: {int(x["id"]) for x in s.log("queue") if "stays in todo" in x["msg"]} == set(stuck) | {no_mess}, "the complaints")
    for n in (empty, cut):
        assert s.log("queue", id=n)
        s.wait_log("done", id=n)  # it comes behind the last file's end
    before = len(s.log())
    q.todo()
    poll(lambda: len(s.log()) >= before + 3, "the good one")
    time.sleep(0.2)
    assert len(s.log()) == before + 3
    s.pass_(3601)
    q.todo()
    poll(lambda: len(s.log("queue", id=stuck[0])) == 2, "another complaint")
    assert all(q.parts(n) >= {"mess", "todo"} for n in stuck)
    s.stop()


# ---- outcomes ----

def outcomes(job):
    for i, a in enumerate(job.rcpts):
        klass = {"k": "K", "z": "Z", "d": "D"}[a[0]]
        job.report(i, klass, {"K": 250, "Z": 450, "D": 550}[klass], "Remote host said:\n\n%s\n\n" % a)
    job.done()


def test_marks(rig):
    """Each recipient by itself; the reason stands in bounce/N before the mark; nothing else changes; a deferral changes nothing."""
    r = rig(act=outcomes)
    rcpts = ["k1@b.example", "z1@b.example", "d1@b.example", "z2@b.example", "k2@b.example"]
    n = r.queue.todo(rcpts=rcpts)
    s = r.start()
    s.wait_log("deliver", 5)
    poll(lambda: r.queue.records("remote", n) == ["Dk1@b.example", "Tz1@b.example", "Dd1@b.example", "Tz2@b.example", "Dk2@b.example"], "marks")
    assert tools.read(r.queue.name("bounce", n)) == b"<d1@b.example>:\nRemote host said:\n/d1@b.example\n/\n\n"
    assert stat.S_IMODE(os.stat(r.queue.name("bounce", n)).st_mode) == 0o600
    assert {(x["to"], x["result"], x["code"]) for x in s.log("deliver")} == {
        ("k1@b.example", "ok", "250"), ("k2@b.example", "ok", "250"), ("z1@b.example", "defer", "450"), ("z2@b.example", "defer", "450"),
        ("d1@b.example", "fail", "550")}
    r.nursery.act = Job.ok
    s.pass_(RETRY)
    s.drained()
    assert [j.rcpts for j in r.jobs_for(n)] == [rcpts, ["z1@b.example", "z2@b.example"]]
    assert [parse_bounce(j).failures for j in r.nursery.jobs if j.sender == ""] == [{"d1@b.example": "Remote host said:\n/d1@b.example\n/"}]
    s.stop()


def test_kill_keeps_marks(rig):
    """What was reported before a crash is not tried again, and its reason is not lost."""
    r = rig(act=None)
    n = r.queue.todo(rcpts=["k@b.example", "d@b.example", "x@b.example"])
    s = r.start()
    job = r.nursery.wait()[0]
    job.report(0)
    poll(lambda: r.queue.records("remote", n)[0] == "Dk@b.example", "the mark")
    job.report(1, "D", 550, "no\n")
    poll(lambda: os.path.exists(r.queue.name("bounce", n)), "the reason")
    s.kill()
    r.nursery.act = Job.ok
    s = r.start()
    s.drained()
    # d is tried again: its reason was not flushed, so it was not marked.
    assert [j.rcpts for j in r.jobs_for(n)][1:] == [["d@b.example", "x@b.example"]]
    s.stop()


@pytest.mark.parametrize("how", ["eof", "garbage", "twice", "index", "class", "early"])
def test_remote_breaks(rig, how):
    """A remote that goes without a word, or breaks the rules, has said "later" of what it has not reported."""
    def act(job):
        job.report(0)
        if how == "garbage":
            job.remote.send(b"x" * 17)
        elif how == "twice":
            job.report(0, "D")
        elif how == "index":
            job.report(7)
        elif how == "class":
            job.report(1, "X")
        elif how == "early":
            job.done()
            return
        job.die()
    r = rig(act=act)
    n = r.queue.todo(rcpts=["a@b.example", "c@b.example"])
    s = r.start()
    s.wait_log("deliver", 2)
    poll(lambda: r.queue.records("remote", n) == ["Da@b.example", "Tc@b.example"], "the mark")
    assert [x["result"] for x in s.log("deliver")] == ["ok", "defer"]
    assert not s.log("backoff")
    r.nursery.act = Job.ok
    s.pass_(RETRY)
    s.drained()
    s.stop()


def test_groups(rig):
    """One job for each destination, up to 100 recipients; routes by name, suffix, and none; no more at once than concurrencyremote."""
    r = rig(act=None, smtproutes="a.example:one.example.net\n.b.example:two.example.net\nc.example:\n:three.example.net\n", concurrencyremote="7\n")
    rcpts = ["u%d@%s" % (i, d) for i in range(150) for d in ("a.example", "x.B.example", "C.example", "d.example", "e.example")]
    r.queue.todo(rcpts=rcpts)
    s = r.start()
    jobs = r.nursery.wait(7)
    time.sleep(0.3)
    assert len(jobs) == 7
    while len(jobs) < 9:
        for j in list(jobs):
            if j.remote.job is j:
                j.ok()
        time.sleep(0.01)
    for j in list(jobs):
        if j.remote.job is j:
            j.ok()
    s.drained()
    assert r.nursery.most <= 7 + 1  # one that has just been let go of
    count = {}
    for j in jobs:
        assert len({a.split("@")[1] for a in j.rcpts}) == (2 if j.route == 3 else 1)
        count.setdefault((j.route, j.domain if j.route == delivery.MX else None), []).append(len(j.rcpts))
    assert {k: sorted(v) for k, v in count.items()} == {
        (0, None): [50, 100], (1, None): [50, 100], (delivery.MX, "c.example"): [50, 100], (3, None): [100, 100, 100]}
    assert sorted(a for j in jobs for a in j.rcpts) == sorted(rcpts)
    s.stop()


def test_no_concurrency(rig):
    """concurrencyremote 0 holds everything; new messages are taken in all the same."""
    r = rig(concurrencyremote="0\n")
    n = r.queue.todo()
    s = r.start()
    poll(lambda: r.queue.parts(n) == {"mess", "info", "remote"}, "being taken in")
    time.sleep(0.2)
    assert not r.nursery.births
    s.stop()


def test_verp(rig):
    """A sender that ends in -@[] is expanded for each recipient; without that in the bounce."""
    r = rig(act=lambda j: j.ok() if not j.sender or "ok" in j.sender else refused(j))
    n = r.queue.todo(sender="list-return-@a.example-@[]", rcpts=["ok@b.example", "bad@c.example"])
    s = r.start()
    s.drained()
    assert sorted((j.sender, j.rcpts) for j in r.jobs_for(n)) == [
        ("list-return-bad=c.example@a.example", ["bad@c.example"]), ("list-return-ok=b.example@a.example", ["ok@b.example"])]
    bounce = parse_bounce(r.nursery.jobs[-1])
    assert bounce.rcpts == ["list-return-@a.example"] and bounce.copy.startswith(b"Return-Path: <list-return-@a.example>\n")
    s.stop()


def test_long_addresses(rig):
    """Addresses as long as qmail-queue takes them go out whole; one that grew beyond fails."""
    r = rig(envnoathost="h" * 60 + ".example\n")
    good = "x" * (1002 - 10) + "@b.example"
    n = r.queue.todo(rcpts=[good, "y" * 1000], sender="s" * 990 + "@b.example")
    s = r.start()
    s.drained()
    assert [j.rcpts for j in r.jobs_for(n)] == [[good]] and len(r.jobs_for(n)[0].sender) == 1000
    assert [[len(a) for a in parse_bounce(j).failures] for j in r.nursery.jobs if not j.sender] == [[1000 + 1 + 68]]
    s.stop()


def test_unreadable_message(rig):
    """A message that is gone is put off, and never given to a remote; so is what is not a file."""
    r = rig()
    n, m = r.queue.queued(), r.queue.queued()
    os.unlink(r.queue.name("mess", n))
    os.unlink(r.queue.name("mess", m))
    os.symlink("/etc/hostname", r.queue.name("mess", m))
    s = r.start()
    s.wait_log("deliver", id=n, result="defer")
    s.wait_log("deliver", id=m, result="defer")
    assert not r.nursery.jobs and r.queue.parts(n) == {"info", "remote"}
    s.stop()


@pytest.mark.root
def test_wrong_owner(rig):
    r = rig()
    n = r.queue.queued()
    os.chown(r.queue.name("mess", n), 4712, -1)
    s = r.start()
    assert "wrong owner" in s.wait_log("deliver", id=n)[0]["text"]
    assert not r.nursery.jobs
    os.chown(r.queue.name("mess", n), 0, -1)
    s.signal(signal.SIGALRM)
    s.drained()
    s.stop()


# ---- the trigger, debris ----

def test_trigger(rig):
    """Woken at once; no end for writing is kept; an octet in a pipe that is held open does not make it spin; a scan comes without it, too."""
    r = rig()
    s = r.start_and_wait()
    begin = time.monotonic()
    n = r.queue.todo()
    s.wait_log("done", id=n)
    assert time.monotonic() - begin < 5
    # A writer's open would find no reader if ours were not one; and reading is all that ours can.
    flags = [int(tools.read("/proc/%d/fdinfo/%s" % (s.pid, fd)).split(b"flags:")[1].split()[0], 8) & 3
             for fd in os.listdir("/proc/%d/fd" % s.pid) if os.readlink("/proc/%d/fd/%s" % (s.pid, fd)).endswith("lock/trigger")]
    assert flags == [os.O_RDONLY]
    held = os.open(r.queue.path("lock/trigger"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(held, b"x")
    poll(lambda: not r.queue.all(), "rest")
    before = tools.cpu_seconds(s.pid)
    time.sleep(2)
    assert tools.cpu_seconds(s.pid) - before < 0.5
    n = r.queue.todo()
    s.wait_log("done", id=n)
    os.close(held)
    time.sleep(1.5)  # the last look that the octet was good for
    n = r.queue.todo(trigger=False)
    time.sleep(0.6)
    assert r.queue.parts(n) == {"mess", "intd", "todo"}
    s.clock.pass_(1501)
    s.signal(signal.SIGALRM)
    s.wait_log("done", id=n)
    s.stop()


def test_sweep(rig):
    """S2 and S3 of more than 36 hours go, and files of pid/; never what has info or todo; the time that counts is the last read."""
    r = rig(act=later)
    q, now = r.queue, time.time()
    old, young, with_intd, live, unread = q.mess(), q.mess(), q.mess(), q.queued(), q.todo(raw=b"X\0", trigger=False)
    tools.write(q.name("intd", with_intd), b"u0\0")
    for n in (old, with_intd, live, unread):
        os.utime(q.name("mess", n), (now - 37 * 3600, now))
    os.utime(q.name("mess", young), (now, now - 400 * DAY))
    for name, age in (("new", 35 * 3600), ("old", 37 * 3600)):
        os.utime(tools.write(q.path("pid/" + name), b""), (now - age, now))
    s = r.start()
    poll(lambda: set(q.all()) == {young, live, unread}, "the sweep")
    assert os.listdir(q.path("pid")) == ["new"]
    s.pass_(76432)
    s.pass_(76432)
    s.signal(signal.SIGALRM)
    poll(lambda: set(q.all()) == {live, unread} and not os.listdir(q.path("pid")), "the next one")
    s.stop()


# ---- bounces ----

def test_bounces(rig):
    """Bounce, double bounce, none after that; headers, quoting, the copy."""
    r = rig(act=refused, bouncefrom="MAILER-DAEMON\n", doublebounceto="post master\n", doublebouncehost="home.example\n")
    body = b"Subject: x\n\n.\nwords without an end"
    r.queue.todo(sender='an"n b@far.example', rcpts=["bob@b.example"], body=body)
    s = r.start()
    s.drained()
    first, bounce, double = r.nursery.jobs
    assert first.sender == 'an"n b@far.example'
    b = parse_bounce(bounce)
    assert (b.sender, b.rcpts) == ("", ['an"n b@far.example'])
    assert b.headers["To"] == '"an\\"n b"@far.example' and b.headers["From"] == "MAILER-DAEMON@mail.example.net"
    assert b.headers["Subject"] == "failure notice"
    assert b.failures == {"bob@b.example": "Remote host said: 550 no"}
    assert b.break_.startswith("--- Below this line is a copy")
    assert b.copy == b'Return-Path: <"an\\"n b"@far.example>\n' + delivery.RECEIVED + body + b"\n"
    d = parse_bounce(double)
    assert (d.sender, d.rcpts, d.headers["To"]) == ("#@[]", ["post master@home.example"], '"post master"@home.example')
    assert d.failures == {'an"n b@far.example': "Remote host said: 550 no"}
    assert d.break_.startswith("--- Below this line is the original bounce")
    assert d.copy == b"Return-Path: <>\n" + bounce.body
    assert [x.get("double") for x in s.log("bounce") if "to" in x] == [None, "1"] and len(s.log("bounce")) == 3
    s.stop()


def test_double_bounce_unwanted(rig):
    r = rig(act=refused, doublebounceto="\n")
    r.queue.todo()
    s = r.start()
    s.drained()
    assert [j.sender for j in r.nursery.jobs] == ["ann@far.example", ""]
    s.stop()


def test_big_bounce(rig):
    """A big message is not quoted whole, and the bounce says so."""
    r = rig(act=lambda j: j.ok() if not j.sender else refused(j))
    body = b"Subject: big\n\n" + b"0123456789abcde\n" * 20000
    r.queue.todo(body=body)
    s = r.start()
    s.drained()
    job = r.nursery.jobs[1]
    assert 65536 < job.size < 65536 + 2000
    assert b"left out" not in job.body  # Job reads only the first 64 KiB
    s.stop()


def test_bounce_text_verbatim(rig):
    """bounce/N as qmail-send has left it, at worst with a paragraph that a crash has cut: it goes in as it is."""
    r = rig()
    r.queue.queued(remote=(), bounce=b"<x@b.example>:\nNo such user.\nNever was.\n\n<y@b.example>:\nHalf a rea")
    s = r.start()
    s.drained()
    b = parse_bounce(r.nursery.jobs[0])
    assert b.failures == {"x@b.example": "No such user.\nNever was.", "y@b.example": "Half a rea"}
    s.stop()


def test_bounce_with_local_left(rig):
    """Its local part is left for qmail, perhaps for ever: the sender hears of the failures now, once."""
    r = rig(act=lambda j: j.ok() if not j.sender else refused(j), locals="home.example\n")
    n = r.queue.todo(rcpts=["joe@home.example", "bob@b.example"])
    s = r.start()
    poll(lambda: r.queue.all() == {n: {"mess", "info", "local"}}, "the local part being left")
    assert [list(parse_bounce(j).failures) for j in r.nursery.jobs if not j.sender] == [["bob@b.example"]]
    s.stop()
