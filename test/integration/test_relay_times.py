# SPDX-License-Identifier: MIT
"""
The scheduler's times: when a message is tried again and for how long, and what TERM leaves; destinations that are down; connections that are used
again; steps of the clock; and what many messages cost. What becomes of a message is in test_relay.py. Remotes are played here; see delivery.py.
"""

import contextlib
import math
import os
import shutil
import signal
import tempfile
import time

import pytest

import delivery
import tools
from delivery import DAY, LIFETIME, RETRY, Job, Rig, later, parse_bounce
from tools import poll

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def fast_scheduler(work):
    return shutil.copy2(delivery.build(False), os.path.join(work, "scheduler-fast"))


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


def test_term_half_said(rig):
    """Time is up in the middle of a delivery: whose fate was known is marked and has his line in the log, as the one who is cut off."""
    r = rig(act=None)
    n = r.queue.todo(rcpts=["%s@b.example" % x for x in ("k", "d", "cut")])
    s = r.start()
    job = r.nursery.wait()[0]
    job.report(0)
    job.report(1, "D", 550, "Nobody here by this name.\n")
    poll(lambda: r.queue.records("remote", n)[0] == "Dk@b.example", "the mark")
    s.signal(signal.SIGTERM)
    poll(lambda: [x for x in s.log("queue") if "ending, or starting over" in x["msg"]], "being told")
    s.clock.pass_(21)
    s.signal(signal.SIGALRM)
    s.wait_exit()
    assert [(x["to"], x["result"]) for x in s.log("deliver")] == [("k@b.example", "ok"), ("d@b.example", "fail"), ("cut@b.example", "defer")]
    assert r.queue.records("remote", n) == ["Dk@b.example", "Dd@b.example", "Tcut@b.example"]
    assert b"<d@b.example>" in tools.read(r.queue.name("bounce", n))
    r.nursery.act = Job.ok
    s = r.start()
    s.drained()
    assert [j.rcpts for j in r.jobs_for(n)][1:] == [["cut@b.example"]]
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
    before = tools.cpu_seconds(pid)
    time.sleep(0.5)
    return tools.cpu_seconds(pid) - before <= 0.02
