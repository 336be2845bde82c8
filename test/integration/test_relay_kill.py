# SPDX-License-Identifier: MIT
"""
The scheduler and the cleaner, killed at each of their system calls that changes something or tells somebody. Whatever a crash leaves, the next run
finishes: every recipient gets the message at least once, every failure is told, and at the end the queue is empty.
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
import stepper
import tools
from delivery import Clock, Nursery, Queue, Scheduler, parse_bounce
from tools import poll

pytestmark = pytest.mark.release

# What leaves a trace, in files or in others' minds. A kill before any other call leaves what the next of these would find.
TELLING = {"open", "openat", "creat", "write", "writev", "pwrite64", "unlink", "unlinkat", "link", "linkat", "rename", "utimensat", "ftruncate", "sendmsg",
           "recvmsg", "fsync", "fdatasync", "sync_file_range", "close"}
# What a bad disk, a full one, or a lack of memory can make fail.
FAILING = (TELLING - {"recvmsg", "sendmsg"}) | {"read", "pread64", "stat", "lstat", "newfstatat", "access", "faccessat", "faccessat2", "fstat", "statfs", "getdents64"}


@pytest.fixture(scope="module")
def tools_built(work):
    return shutil.copy2(delivery.build(), os.path.join(work, "scheduler-kill")), stepper.build(work)


def act(job):
    for i, a in enumerate(job.rcpts):
        bad = a.startswith("bad") and job.sender
        job.report(i, "D" if bad else "K", 550 if bad else 250, "no\n" if bad else "yes\n")
    job.done()


class Case:
    """A queue with messages in several states, and what must have become of them in the end."""

    def __init__(self, built, home):
        self.scheduler, self.stepper = built
        self.queue = Queue(home, localdelivery="bounce\n", virtualdomains="v.example:virt\n")
        self.nursery = Nursery(act)
        self.clock = Clock(os.path.join(home, "clock"))
        q = self.queue
        q.todo(rcpts=["one@b.example", "bad1@b.example", "u@v.example"], body=b"Subject: a\n\nx\n", trigger=False)
        stale = q.todo(rcpts=["two@b.example"], body=b"Subject: b\n\nx\n", trigger=False, intd=False)
        tools.write(q.name("info", stale), b"Fold@far.example\0")
        tools.write(q.name("remote", stale), b"Told@b.example\0")
        q.queued(remote=("Dthree@b.example", "Tfour@b.example", "Tbad2@b.example"), bounce=b"<early@b.example>:\nno\n\n", body=b"Subject: c\n\nx\n")
        q.queued(sender="", remote=("Dfive@b.example",), bounce=b"<late@b.example>:\nno\n\n", body=b"Subject: d\n\nx\n")
        self.runs = []

    def run(self, who, at=None):
        """Run until all is done, or, with `at`, until it is killed at that call. The calls."""
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock, wait=True)
        self.runs.append(s)
        with stepper.Stepper(self.stepper, s.pid, 1 if who == "cleaner" else 0) as step:
            if at is not None:
                step.rule(at, "kill")
            step.release(s.pid)
            if at is not None:
                poll(lambda: step.gone is not None or self.queue.empty(), "the kill")
            else:
                s.drained()
                time.sleep(0.2)
                step.sync()
            calls = list(step.calls)
        if at is None or self.queue.empty():
            s.kill()
        elif who == "cleaner":
            s.wait_exit(111)
        else:
            s.process.wait(tools.PATIENCE)
            s.kill()  # the cleaner ends by itself
        return calls

    def run_failing(self, who, at, error, name):
        """Run with an error at that call until nothing more happens, and end it as one ends it."""
        before = self.runs[-1].begun() if self.runs else 0
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock, wait=True)
        self.runs.append(s)
        with stepper.Stepper(self.stepper, s.pid, 1 if who == "cleaner" else 0) as step:
            # By name: the count differs a little from run to run, and not every call can fail.
            step.rule(at, "fail", error, to=at + 2, name=name)
            step.release(s.pid)
            # TERM is for one that has begun; the error may have kept it from that.
            poll(lambda: s.process.poll() is not None or s.begun() > before, "the start")
            size = -1
            while not self.queue.empty() and size != os.stat(s.log_path).st_size:
                size = os.stat(s.log_path).st_size
                time.sleep(0.3)
        s.signal(signal.SIGTERM)
        assert s.process.wait(tools.PATIENCE) in (0, 111)
        s.kill()

    def finish(self):
        """A second run, without faults; debris is as old as if a day and a half had gone by."""
        before = self.runs[-1].begun()
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock)
        self.runs.append(s)
        poll(lambda: s.begun() > before, "the second start")

        # What was put off by an error is due later.
        s.signal(signal.SIGALRM)

        poll(lambda: not self.queue.underway(), "nothing but debris in %r\n%s" % (self.queue.all(), tools.read(s.log_path).decode()[-3000:]))
        self.queue.check()
        old = time.time() - 40 * 3600
        for n, parts in self.queue.all().items():
            if "mess" in parts:
                with contextlib.suppress(FileNotFoundError):  # what is removed in this moment is no debris
                    os.utime(self.queue.name("mess", n), (old, old))
        for name in os.listdir(self.queue.path("pid")):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.queue.path("pid/" + name), (old, old))
        s.pass_(76500)
        # An envelope without its message is what only a crash of a stock injector leaves; ours removes it first.
        s.drained()
        s.stop()

    def verdict(self):
        seen = {(re.search(rb"^Subject: (\S+)", j.body, re.M).group(1).decode(), a) for j in self.nursery.jobs for a in j.rcpts}
        wanted = {("a", "one@b.example"), ("a", "bad1@b.example"), ("b", "two@b.example"), ("c", "four@b.example"), ("c", "bad2@b.example")}
        assert wanted <= seen, wanted - seen
        assert not {a for _, a in seen} & {"old@b.example", "three@b.example", "five@b.example"}
        told = set()
        for j in self.nursery.jobs:
            if j.sender in ("", "#@[]"):
                b = parse_bounce(j)
                told |= {(b.rcpts[0], a) for a in b.failures}
        assert told >= {("ann@far.example", a) for a in ("bad1@b.example", "u@v.example", "early@b.example", "bad2@b.example")} | {
            ("postmaster@mail.example.net", "late@b.example")}, told

    def close(self):
        for s in self.runs:
            s.kill()
        self.nursery.close()


def broken(built, home, who, at, error=None, name=None):
    c = Case(built, home)
    try:
        if error:
            c.run_failing(who, at, error, name)
        else:
            c.run(who, at)
        c.finish()
        c.verdict()
    except BaseException as e:
        raise AssertionError("%s, %s at call %d:\n%s" % (who, error or "killed", at, tools.read(c.runs[-1].log_path).decode()[-3000:])) from e
    finally:
        c.close()
        tools.rmtree(home)


@pytest.mark.parametrize("who", ["scheduler", "cleaner"])
def test_killed_at_each_call(tools_built, tmp_path, who):
    c = Case(tools_built, str(tmp_path / "all"))
    calls = c.run(who)
    c.close()
    c.verdict()
    at = [x.count for x in calls if x.name in TELLING and not x.failed]
    assert len(at) > (60 if who == "scheduler" else 40), len(at)
    step = 1 if tools.LONG else 2
    # Every other one, another half each day: between two of them there is at most one change.
    at = at[time.localtime().tm_yday % step::step]
    print("%d calls, %d kills" % (len(calls), len(at)))
    faults.each(broken, [(tools_built, str(tmp_path / str(i)), who, i) for i in at], 4)


@pytest.mark.parametrize("who", ["scheduler", "cleaner"])
def test_error_at_each_call(tools_built, tmp_path, who):
    """The same when one of them fails: what is not known to have been done is done again, and what cannot be read is not taken for what is not there."""
    c = Case(tools_built, str(tmp_path / "all"))
    calls = c.run(who)
    c.close()
    at = [(x.count, x.name) for x in calls if x.name in FAILING]
    step = 1 if tools.LONG else 4
    at = at[time.localtime().tm_yday % step::step]
    print("%d calls, %d errors" % (len(calls), len(at)))
    faults.each(broken, [(tools_built, str(tmp_path / str(i)), who, i, "EIO", name) for i, name in at], 6)
