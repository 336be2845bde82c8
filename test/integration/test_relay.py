# SPDX-License-Identifier: MIT
"""
The scheduler and its cleaner against what qmail's queue asks of an agent that delivers: states, orders, times. Remotes are played here; see
delivery.py.
"""

import contextlib
import fcntl
import math
import os
import shutil
import signal
import stat
import tempfile
import time

import pytest

import delivery
import tools
from delivery import LIFETIME, RETRY, Clock, Job, Nursery, Queue, Scheduler, parse_bounce
from tools import poll

DAY = 86400


pytestmark = pytest.mark.release


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def scheduler_binary(work, request):
    sanitize = request.param == "sanitized"
    return shutil.copy2(delivery.build(sanitize), os.path.join(work, "scheduler" + ("-san" if sanitize else "")))


@pytest.fixture(scope="module")
def fast_scheduler(work):
    return shutil.copy2(delivery.build(False), os.path.join(work, "scheduler-fast"))


class Rig:
    """A queue, somebody to play remotes, a clock; start() runs the scheduler."""

    def __init__(self, binary, home, act, control):
        self.binary, self.queue, self.nursery = binary, Queue(home, **control), Nursery(act)
        self.clock = Clock(os.path.join(home, "clock"))
        self.runs = []

    def start(self, **kw):
        s = Scheduler(self.binary, self.queue, self.nursery, self.clock, **kw)
        self.runs.append(s)
        return s

    def start_and_wait(self):
        def begun():
            return len([x for x in self.runs[-1].log("queue") if "in place" in x["msg"]])
        before = begun() if self.runs else 0
        s = self.start()
        poll(lambda: begun() > before, "the start")
        return s

    def jobs_for(self, n):
        return [j for j in self.nursery.jobs if j.id == n]

    def close(self):
        for s in self.runs:
            s.kill()
        self.nursery.close()


@pytest.fixture
def rig(scheduler_binary, tmp_path):
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def make(act=Job.ok, **control):
            r = Rig(scheduler_binary, str(tmp_path / ("home%d" % next(count))), act, control)
            stack.callback(r.close)
            return r
        yield make


def later(job):
    job.all("Z")


def refused(job):
    job.all("D", 550, "Remote host said: 550 no\n")


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


# ---- times ----

def test_retry_times(rig):
    """Attempts at ages 0, 400, 1600, 3600; TERM writes the next one; stock's example: an early run at age 84 means 841."""
    r = rig(act=later)
    n = r.queue.todo()
    begin, s = r.clock.now(), r.start()
    for count, age in enumerate((0, 400, 1600, 3600), 1):
        r.nursery.wait(count)
        s.wait_log("deliver", count)
        end = r.clock.now()
        s.stop()
        birth = os.stat(r.queue.name("info", n)).st_mtime
        after = os.stat(r.queue.name("remote", n)).st_mtime
        # A second late at age 3600 is 80 seconds later.
        ages = range(max(int(begin - birth) - 1, age), int(end - birth) + 2)
        assert after - birth in {(math.isqrt(t) + 20) ** 2 for t in ages}, (age, ages)
        r.clock.set(max(birth + (400, 1600, 3600, 6400)[count - 1], after) + 2)
        if count < 4:
            begin, s = r.clock.now(), r.start()
    assert r.queue.records("remote", n) == ["Tbob@b.example"] and not os.path.exists(r.queue.name("bounce", n))
    r = rig(act=later)
    n = r.queue.todo()
    s = r.start()
    s.wait_log("deliver")
    s.clock.pass_(84)
    s.signal(signal.SIGALRM)
    s.wait_log("deliver", 2)
    s.stop()
    birth = os.stat(r.queue.name("info", n)).st_mtime
    assert os.stat(r.queue.name("remote", n)).st_mtime - birth in (841, 900)  # a second more or less of a busy machine


def test_lifetime(rig):
    """A deferral becomes a failure only in a pass that began after the lifetime."""
    r = rig(act=later)
    n = r.queue.queued(age=LIFETIME - 1000)
    s = r.start()
    s.wait_log("deliver", id=n, result="defer")
    r.nursery.act = None
    s.clock.pass_(900)
    s.signal(signal.SIGALRM)
    r.nursery.wait(2)
    s.clock.pass_(200)  # it is too old now, but the pass began before
    r.nursery.jobs[1].all("Z")
    s.wait_log("deliver", 2, id=n, result="defer")
    r.nursery.act = lambda j: later(j) if j.sender else j.ok()
    s.signal(signal.SIGALRM)
    s.wait_log("deliver", id=n, result="fail")
    s.drained()
    bounce = parse_bounce(r.nursery.jobs[-1])
    assert list(bounce.failures) == ["bob@b.example"]
    assert bounce.failures["bob@b.example"].startswith("later\nThis message has been in the queue for too long")
    s.stop()


def test_term(rig):
    """TERM starts nothing more, waits for what runs and marks it, at most 20 seconds; the next run has the rest."""
    r = rig(act=None, concurrencyremote="2\n")
    for i in range(4):
        r.queue.todo(rcpts=["u%d@b.example" % i], trigger=False)
    s = r.start()
    r.nursery.wait(2)
    s.signal(signal.SIGTERM)
    poll(lambda: [x for x in s.log("queue") if "ending, or starting over" in x["msg"]], "being told")
    r.nursery.jobs[0].ok(reuse=1)
    s.wait_log("done")
    time.sleep(0.2)
    assert s.process.poll() is None and len(r.nursery.jobs) == 2
    s.clock.pass_(21)
    s.signal(signal.SIGALRM)
    s.wait_exit()
    assert len(r.queue.all()) == 3
    r.nursery.act = Job.ok
    s = r.start()
    s.drained()
    s.stop()


def test_helpers_lost(rig):
    """
    Without nursery or cleaner it ends as after TERM, with 111; nothing is lost. As long as the cleaner is there, a message that ends meanwhile leaves
    nothing; otherwise it is finished by the next start, and not left to a sweep in 36 hours.
    """
    r = rig(act=None)
    n = r.queue.todo()
    s = r.start()
    job = r.nursery.wait()[0]
    r.nursery.mine.shutdown(2)
    job.report(0)
    job.done()
    s.wait_exit(111)
    assert r.queue.parts(n) == set()
    r = rig(act=None)
    n = r.queue.todo()
    s = r.start()
    job = r.nursery.wait()[0]
    child = int(tools.read("/proc/%d/task/%d/children" % (s.pid, s.pid)).split()[0])
    os.kill(child, signal.SIGKILL)
    poll(lambda: not os.listdir("/proc/%d/fd" % child), "the cleaner's end")
    job.ok()
    s.wait_exit(111)
    assert r.queue.parts(n) == {"mess", "info"}
    r.nursery.act = Job.ok
    s = r.start_and_wait()
    poll(lambda: r.queue.parts(n) == set(), "the end")
    assert not r.jobs_for(n)[1:]
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
    before = cpu(s.pid)
    time.sleep(2)
    assert cpu(s.pid) - before < 0.5
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


def cpu(pid):
    return sum(map(int, tools.read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


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


# ---- destinations that are down ----

class Peer:
    """Remotes that find a destination up or down."""

    def __init__(self):
        self.down, self.held = True, None

    def __call__(self, job):
        if self.down:
            job.unreachable()
        elif self.held is not None:
            self.held.append(job)
        else:
            job.ok()


def test_backoff(rig):
    """
    One message finds the destination down: the others are not tried. One probe at a time, after 15, 30, 60 seconds and so on up to 600. When
    it is back, the oldest goes first, one, then two, then four at a time.
    """
    peer = Peer()
    r = rig(act=peer, concurrencyremote="20\n")
    first = r.queue.todo()
    s = r.start()
    s.wait_log("backoff")
    s.pass_(3)
    ages = [5000, 9000, 7000, 3000, 8000]
    s.stop()
    births = {r.queue.queued(age=age, now=r.clock.now()): age for age in ages}
    s = r.start_and_wait()
    # Not known any more: each is tried, since all start at once. From then on it is.
    s.wait_log("deliver", 1 + 6)
    poll(lambda: len(s.log("backoff")) >= 2, "being down")
    count = len(r.nursery.jobs)
    fresh = r.queue.todo()
    s.wait_log("queued", id=fresh)
    time.sleep(0.3)
    assert len(r.nursery.jobs) == count and not r.jobs_for(fresh)
    waits = [int(x["secs"]) for x in s.log("backoff")[1:]]
    for expect in (30, 60, 100, 100):
        s.pass_(waits[-1] * 3 // 4)
        time.sleep(0.1)
        assert len(r.nursery.jobs) == count
        s.pass_(waits[-1] // 4 + 2)
        count += 1
        r.nursery.wait(count)
        waits.append(int(s.wait_log("backoff", len(waits) + 2)[-1]["secs"]))
        assert expect * 7 / 8 - 1 <= waits[-1] <= expect * 9 / 8 + 1, waits
    time.sleep(0.2)
    assert len(r.nursery.jobs) == count and r.queue.records("remote", first) == ["Tbob@b.example"]
    peer.down, peer.held = False, []
    s.pass_(waits[-1] + 3)
    probe = poll(lambda: peer.held, "the probe")[0]
    time.sleep(0.2)
    assert len(peer.held) == 1
    probe.ok()
    # Limit 1; then 2, then 4.
    order = []
    for many in (1, 2, 3):
        poll(lambda m=many: len(peer.held) - 1 - len(order) == m, "%d at once" % many)
        time.sleep(0.1)
        batch = peer.held[1 + len(order):]
        assert len(batch) == many
        order += [j.id for j in batch]
        batch[0].ok()
        for j in batch[1:]:
            j.ok()
    s.drained()
    expect = sorted(births, key=lambda n: -births[n]) + [first, fresh]
    expect.remove(probe.id)
    assert order == expect
    assert s.log("backoff", state="up")
    s.stop()


def test_down_is_no_attempt(rig):
    """
    Other destinations are served meanwhile; a message for both keeps its own times; ALRM forgets; a message that expires while its destination is
    down fails with that destination's reason, without another try.
    """
    up = {"up.example"}

    def act(job):
        if job.domain in up:
            job.ok()
        else:
            job.unreachable("Nobody at %s. (#4.4.1)\n" % job.domain)
    r = rig(act=act, smtproutes=None, queuelifetime="5000\n")
    both = r.queue.todo(rcpts=["a@up.example", "a@down.example"], trigger=False)
    down = r.queue.todo(rcpts=["b@down.example"], trigger=False)
    s = r.start()
    poll(lambda: r.queue.records("remote", both) == ["Da@up.example", "Ta@down.example"], "the mark")
    poll(lambda: s.log("backoff"), "being down")
    r.nursery.rest()
    tried = len(r.nursery.jobs)
    r.queue.todo(rcpts=["c@up.example"])
    poll(lambda: len(r.queue.all()) == 2, "the other one")
    assert len(r.nursery.jobs) == tried + 1
    s.signal(signal.SIGALRM)
    poll(lambda: len(r.nursery.jobs) >= tried + 2, "another try")
    up.add("far.example")
    s.pass_(5001)
    # At most a probe, then both fail for the reason.
    s.drained()
    bounces = [parse_bounce(j) for j in r.nursery.jobs if not j.sender]
    assert sorted(list(b.failures) for b in bounces) == [["a@down.example"], ["b@down.example"]]
    assert all("Nobody at down.example" in t and "too long" in t for b in bounces for t in b.failures.values())
    assert down not in r.queue.all()
    s.stop()


def test_term_while_down(rig):
    """A message that only waits for a destination is due for who comes next: its route may have been changed, which is why we start over."""
    r = rig(act=lambda j: j.unreachable())
    n = r.queue.todo()
    s = r.start()
    for i in range(4):
        s.wait_log("backoff", i + 1)
        s.pass_(0 if i == 3 else 130)
    assert int(s.log("backoff")[3]["secs"]) in range(87, 114)
    s.stop()
    assert -20 <= os.stat(r.queue.name("remote", n)).st_mtime - r.clock.now() <= 2
    r.nursery.act = Job.ok
    s = r.start()
    s.drained(30)
    s.stop()


def test_back_in_time(rig):
    """An hour without the next hop: one probe at a time, and 120 seconds after it is back, at the latest, all mail goes."""
    r = rig(act=lambda j: j.unreachable(), concurrencyremote="1\n")
    for i in range(5):
        r.queue.todo(rcpts=["u%d@b.example" % i], trigger=False)
    s = r.start()
    s.wait_log("backoff")
    for i in range(8):
        s.pass_(113)
        s.wait_log("backoff", i + 2)
    assert r.nursery.most == 1
    r.nursery.act = Job.ok
    s.pass_(113)
    s.drained()
    s.stop()


def test_cut(rig):
    """TERM: deliveries that have not sent all end at once, and the next run has their messages at once; no time is lost, nor anything counted as a try."""
    r = rig(act=None, concurrencyremote="2\n")
    r.nursery.obeys = True
    for i in range(2):
        r.queue.todo(rcpts=["u%d@b.example" % i, "v%d@b.example" % i], trigger=False)
    s = r.start()
    r.nursery.wait(2)
    r.nursery.jobs[0].report(0)
    s.wait_log("queued", 2)
    poll(lambda: any("D" in x[:1] for n in r.queue.all() for x in r.queue.records("remote", n)), "the mark")
    s.signal(signal.SIGTERM)
    s.wait_exit()
    assert len([e for e in s.log("deliver", result="defer") if "Cut off" in e["text"]]) == 3
    r.nursery.act = Job.ok
    s = r.start()
    s.drained()
    assert sorted(a for j in r.nursery.jobs[2:] for a in j.rcpts) == sorted({"u0@b.example", "v0@b.example", "u1@b.example", "v1@b.example"} - {
        r.nursery.jobs[0].rcpts[0]})
    s.stop()


def test_probe_dies(rig):
    """A probe whose process dies does not leave the destination unprobed for ever."""
    r = rig(act=lambda j: j.unreachable())
    r.queue.todo()
    s = r.start()
    s.wait_log("backoff")
    r.nursery.act = Job.die
    s.pass_(20)
    s.wait_log("deliver", 2)
    r.nursery.act = Job.ok
    s.pass_(600)
    s.drained()
    s.stop()


# ---- connections used again ----

def test_reuse(rig):
    """A connection takes the next message of the same destination, up to 50; one that has gone meanwhile is no deferral."""
    r = rig(act=lambda j: j.ok(reuse=1), concurrencyremote="1\n")
    for i in range(60):
        r.queue.todo(rcpts=["u%d@b.example" % i], trigger=False)
    s = r.start()
    s.drained()
    assert r.nursery.births == 2 and len(r.nursery.jobs) == 60
    s.stop()

    def act(job):
        if job.remote.jobs > 1:
            job.die()
        else:
            job.ok(reuse=1)
    r = rig(act=act, concurrencyremote="1\n")
    for i in range(5):
        r.queue.todo(rcpts=["u%d@b.example" % i], trigger=False)
    s = r.start()
    s.drained()
    assert not s.log("deliver", result="defer") and len(s.log("deliver")) == 5
    s.stop()


def test_fair(rig):
    """While one destination's backlog takes all places, a message for another one gets the next that is free."""
    r = rig(act=None, smtproutes=None, concurrencyremote="2\n")
    for i in range(20):
        r.queue.todo(rcpts=["u%d@a.example" % i], trigger=False)
    s = r.start()
    r.nursery.wait(2)
    n = r.queue.todo(rcpts=["x@b.example"])
    s.wait_log("queued", 21)
    r.nursery.jobs[0].ok(reuse=1)
    r.nursery.wait(3)
    assert r.nursery.jobs[2].id == n
    r.nursery.act = Job.ok
    for j in list(r.nursery.jobs):
        if j.remote.job is j:
            j.ok()
    s.drained()
    s.stop()


# ---- the clock ----

def test_clock_forward(rig):
    """The clock is set ten years ahead: nothing expires, nothing is bounced, the next attempt comes when it would have."""
    r = rig(act=later)
    n = r.queue.todo()
    s = r.start()
    s.wait_log("deliver")
    s.step(3650 * DAY)
    s.wait_log("clock")
    poll(lambda: abs(os.stat(r.queue.name("info", n)).st_mtime - r.clock.now()) < 60, "the time of birth")
    time.sleep(0.2)
    assert len(r.nursery.jobs) == 1
    s.pass_(RETRY)
    s.wait_log("deliver", 2, result="defer")
    assert not s.log("deliver", result="fail")
    r.nursery.act = Job.ok
    s.signal(signal.SIGALRM)
    s.drained()
    s.stop()


def test_clock_back(rig):
    """Set back by a month: the next attempt comes when it would have, not a month later."""
    r = rig(act=later)
    n = r.queue.todo()
    s = r.start()
    s.wait_log("deliver")
    s.step(-30 * DAY)
    s.wait_log("clock")
    poll(lambda: os.stat(r.queue.name("info", n)).st_mtime <= r.clock.now() + 1, "the time of birth")
    time.sleep(0.2)
    assert len(r.nursery.jobs) == 1
    r.nursery.act = Job.ok
    s.pass_(RETRY)
    s.drained()
    s.stop()


def test_clock_unset(rig):
    """
    A router boots in 1970 with a queue from before, takes a message, and then is told the time: neither those from before nor that one are
    returned, and what was due stays due. Those whose time of birth makes no sense start anew.
    """
    r = rig(act=later)
    now = time.time()
    real = r.queue.queued(age=DAY, wait=10)
    unset = r.queue.queued(age=now - 3 * 3600, now=now)  # born at three in the morning of the first of January 1970, in an earlier boot
    os.utime(r.queue.name("remote", unset), (0, 0))
    r.clock.set(600)
    s = r.start()
    s.wait_log("deliver", 2)
    born = r.queue.todo()
    s.wait_log("deliver", id=born)
    assert os.stat(r.queue.name("info", born)).st_mtime < 10000
    s.step(int(now) - 600)
    s.wait_log("clock")
    for n in (born, unset):
        poll(lambda n=n: os.stat(r.queue.name("info", n)).st_mtime > now - 1000, "the time of birth")
    poll(lambda: abs(os.stat(r.queue.name("info", real)).st_mtime - (now - DAY)) < 10, "the one that stays what it was")
    for _ in range(2):
        s.signal(signal.SIGALRM)
        time.sleep(0.3)
    assert not s.log("deliver", result="fail")
    s.stop()
    # And the same after a restart, instead of while it runs.
    r = rig(act=later)
    unset = r.queue.queued(age=now - 3 * 3600, now=now)
    future = r.queue.queued(age=-400 * DAY, now=now)
    s = r.start()
    s.wait_log("deliver", 2, result="defer")
    for n in (unset, future):
        assert abs(os.stat(r.queue.name("info", n)).st_mtime - now) < 60
    s.stop()


# ---- many ----

@contextlib.contextmanager
def in_memory():
    """A directory whose files cost no disk, where there is one."""
    top = tempfile.mkdtemp(prefix="mailstile-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        yield top
    finally:
        tools.rmtree(top)


def resident(pid):
    return int(tools.status_of(pid)["VmHWM"].split()[0]) * 1024


def test_backlog(fast_scheduler):
    """10,000 new messages, of them a tenth with failures: all is delivered, all bounces are, and nothing is left."""
    many = 10000

    def act(job):
        for i, a in enumerate(job.rcpts):
            job.report(i, "D" if a.startswith("bad") else "K")
        job.done(reuse=1)
    with in_memory() as top:
        r = Rig(fast_scheduler, os.path.join(top, "home"), act, {})
        try:
            for i in range(many):
                r.queue.todo(rcpts=["%s%d@b.example" % ("bad" if i % 10 == 0 else "u", i)], trigger=False)
            s = r.start()
            poll(lambda: len(r.nursery.jobs) >= many + many // 10 or r.nursery.fault, "all jobs", 300, 0.05)
            s.drained(300)
            got = sorted(a for j in r.nursery.jobs if j.sender for a in j.rcpts)
            assert len(got) == len(set(got)) == many
            assert sum(1 for j in r.nursery.jobs if not j.sender) == many // 10
            assert r.nursery.births < many / 10
            s.stop()
        finally:
            r.close()


def test_memory(fast_scheduler):
    """100,000 queued messages whose destination is down cost at most 64 octets each; and the machine has 64 MB, which it does not notice."""
    many = 100000
    with in_memory() as top:
        peer = Peer()
        r = Rig(fast_scheduler, os.path.join(top, "home"), peer, {"concurrencyremote": "1\n"})
        try:
            s = r.start_and_wait()
            r.queue.todo()
            s.wait_log("backoff")
            base = resident(s.pid)
            s.stop()
            # Only what a start looks at: numbers, info, remote. Links, since that many inodes would be too many for some.
            q, now = r.queue, time.time()
            n = q.queued()
            for i in range(1 << 40, (1 << 40) + many):
                for d in ("info", "remote"):
                    try:
                        os.link(q.name(d, n), q.name(d, i))
                    except OSError:
                        tools.write(q.name(d, i), tools.read(q.name(d, n)), 0o600)
            begin = time.monotonic()
            s = r.start()
            poll(lambda: any("%d messages" % (many + 2) in x["msg"] for x in s.log("queue")), "the start", 120)
            poll(lambda: s.log("backoff", waiting=0) or s.log("backoff"), "being down", 120)
            # All of them are in the list of the destination: it is idle.
            poll(lambda: idle(s.pid), "rest", 120)
            print("start: %.1f s" % (time.monotonic() - begin))
            cost = (resident(s.pid) - base) / many
            print("memory: %d octets at rest, %.1f more for each message" % (base, cost))
            assert cost <= 64 and resident(s.pid) < 12 << 20
            assert time.time() - now < 300
            s.kill()
        finally:
            r.close()


def idle(pid):
    before = cpu(pid)
    time.sleep(0.5)
    return cpu(pid) - before <= 0.02
