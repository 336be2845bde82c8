# SPDX-License-Identifier: MIT
"""
Delay notices (control/delaynotice): a sender hears once that a message is late, about whom, and what was in the way; in both forms; never
because of a clock; never twice, whatever is killed or fails.
"""

import contextlib
import email
import email.policy
import email.utils
import os
import re
import shutil
import signal
import stat
import time

import pytest

import delivery
import faults
import harness
import remote
import smtpc
import stepper
import tools
from delivery import LIFETIME, Clock, Nursery, Queue, Rig, Scheduler, parse_bounce
from test_bounce import Report
from test_relay_kill import FAILING, TELLING
from tools import poll

pytestmark = pytest.mark.release
HOUR = 3600


@pytest.fixture(scope="module")
def binary(work):
    return shutil.copy2(delivery.build(True), os.path.join(work, "scheduler-notice"))


@pytest.fixture
def rig(binary, tmp_path):
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def make(act=None, **control):
            r = Rig(binary, str(tmp_path / ("home%d" % next(count))), act or later, {"delaynotice": "3600\n", **control})
            stack.callback(r.close)
            return r
        yield make


def later(job):
    if job.sender in ("", "#@[]"):
        job.ok()
    else:
        job.all("Z", 451, "192.0.2.1 does not like recipient.\nRemote host said: 451-4.2.1 not\n451 4.2.1 now\nGiving up on 192.0.2.1.\n")


def notices(r):
    return [j for j in r.nursery.jobs if j.sender == "" and b"\nSubject: delay notice\n" in j.body]


def mode(r, n):
    return os.stat(r.queue.name("info", n)).st_mode & 0o7777


def settle(s):
    """Look at everything a minute later, and again: what is to happen by itself has begun."""
    for _ in range(2):
        s.pass_(61)
        time.sleep(0.3)


@pytest.mark.parametrize("form", ["qsbmf", "dsn"])
def test_notice(rig, form):
    """
    Those who wait are named, each with what was in its own way, those who do not are not; the header goes back, not the text. After that the
    message goes its way: a bounce when its time has come, and no other notice, after a restart and kill -9 neither.
    """
    def act(job):
        if not job.sender:
            job.ok()
        elif job.domain == "down.example":
            job.unreachable("Nobody at down.example. (#4.4.1)\n")
        else:
            for i, a in enumerate(job.rcpts):
                if a.startswith("ok"):
                    job.report(i)
                elif a.startswith("bad"):
                    job.report(i, "D", 550, "Remote host said: 550 no\n")
                else:
                    job.report(i, "Z", 451, "192.0.2.1 does not like recipient.\nRemote host said: 451-4.2.1 not\n451 4.2.1 %s\n" % a)
            job.done()
    r = rig(act, bounceformat=form + "\n", smtproutes=None)
    n = r.queue.todo(sender="ann@far.example", rcpts=["ok@b.example", "bob@b.example", "carl@b.example", "bad@b.example", "dora@down.example"],
                     body=b"Subject: words\n\nnot to be quoted\n")
    s = r.start()
    poll(lambda: len(r.queue.records("remote", n)) == 5 and r.queue.records("remote", n)[0][0] == "D", "the first attempt")
    s.pass_(HOUR - 300)
    settle(s)
    assert not notices(r) and mode(r, n) == 0o600
    s.pass_(240)
    (event,) = s.wait_log("late")
    assert event["id"] == str(n) and event["to"].strip("<>") == "ann@far.example"
    (job,) = poll(lambda: notices(r), "the notice")
    assert mode(r, n) == 0o700 and job.rcpts == ["ann@far.example"]
    born = r.clock.now() - HOUR
    copy = b"Return-Path: <ann@far.example>\n" + delivery.RECEIVED + b"Subject: words\n\n"
    waiting = ["bob@b.example", "carl@b.example", "dora@down.example"]
    if form == "dsn":
        b = Report(job)
        assert b.types == ["text/plain", "message/delivery-status", "text/rfc822-headers"] and b.copy == copy
        until = {f.pop("Will-Retry-Until") for f in b.of.values()}
        assert email.utils.parsedate_to_datetime(until.pop()).timestamp() == pytest.approx(born + LIFETIME, abs=300) and not until
        assert email.utils.parsedate_to_datetime(dict(b.groups[0])["Arrival-Date"]).timestamp() == pytest.approx(born, abs=300)
        assert b.of == {a: {"Final-Recipient": "rfc822; " + a, "Action": "delayed", **f} for a, f in [
            (a, {"Status": "4.2.1", "Remote-MTA": "dns; [192.0.2.1]", "Diagnostic-Code": "smtp; 451-4.2.1 not 451 4.2.1 " + a}) for a in waiting[:2]
        ] + [(waiting[2], {"Status": "4.4.1"})]}
        text = b.text.decode()
    else:
        m = email.message_from_bytes(job.body, policy=email.policy.default)
        assert not m.defects and m["Auto-Submitted"] == "auto-replied" and m["From"] == "MAILER-DAEMON@mail.example.net"
        text, _, rest = m.get_content().partition("--- Below this line is the header of the message.\n\n")
        assert rest == copy.decode()
    paragraphs = text.rstrip("\n").split("\n\n")
    assert paragraphs[0].startswith("This is the mailstile program at mail.example.net.\n") and "need not send it again" in paragraphs[0]
    assert sorted(paragraphs[1:]) == ["<%s>:\n192.0.2.1 does not like recipient.\nRemote host said: 451-4.2.1 not\n451 4.2.1 %s" % (a, a)
                                      for a in waiting[:2]] + ["<dora@down.example>:\nNobody at down.example. (#4.4.1)"]
    assert "not to be quoted" not in text and not os.path.exists(r.queue.name("bounce", 0))

    s.pass_(5 * HOUR)
    settle(s)
    s.stop()
    s = r.start_and_wait()
    settle(s)
    s.kill()
    s = r.start_and_wait()
    s.signal(signal.SIGALRM)
    settle(s)
    assert len(notices(r)) == 1 and mode(r, n) == 0o700
    s.pass_(LIFETIME)
    s.drained()
    assert len(notices(r)) == 1 and len([j for j in r.nursery.jobs if not j.sender]) == 2
    if form == "qsbmf":
        b = parse_bounce([j for j in r.nursery.jobs if not j.sender][1])
        assert set(b.failures) == {*waiting, "bad@b.example"}
    s.stop()


def test_never(rig):
    """Not for a null sender, nor for bounces of bounces, nor for one that an operator holds, nor for one that is over; nor without the file."""
    r = rig(act=lambda j: j.ok() if b"delay notice" in j.body else j.all("Z"))
    cases = {sender: r.queue.todo(sender=sender) for sender in ("", "#@[]", "-@[]", "list-@far.example-@[]")}
    held = r.queue.queued(age=2 * HOUR)
    os.utime(r.queue.name("remote", held), (2147400000, 2147400000))
    s = r.start()
    poll(lambda: len(r.nursery.jobs) >= 3, "the attempts")
    s.pass_(2 * HOUR)
    settle(s)
    s.pass_(HOUR)
    settle(s)
    # One by VERP goes to whoever a bounce would go to.
    poll(lambda: notices(r), "the notice")
    assert [j.rcpts for j in notices(r)] == [["list-@far.example"]]
    assert {k: mode(r, n) for k, n in cases.items()} == {"": 0o600, "#@[]": 0o600, "-@[]": 0o600, "list-@far.example-@[]": 0o700}
    assert mode(r, held) == 0o600
    s.stop()
    for n in cases.values():
        os.chmod(r.queue.name("info", n), 0o600)
    r.queue.set(delaynotice=None)
    s = r.start_and_wait()
    s.pass_(HOUR)
    s.signal(signal.SIGALRM)
    settle(s)
    assert len(notices(r)) == 1
    s.stop()


def test_sender_that_is_nobody(rig):
    """
    `-@[]` loses its end, as a list's does, and nothing is left. The cleaner took an order without a recipient for a scheduler gone mad and ended, and so
    did all delivery, each time it started.
    """
    r = rig()
    r.queue.queued(sender="-@[]", bounce=b"<a@b.example>:\nno\n\n", remote=())
    s = r.start()
    s.drained()
    assert not r.nursery.jobs and s.log("bounce")[0]["msg"].endswith("thrown away") and not s.log("crash")
    s.stop()


def test_tried_first(rig):
    """One that was not tried lately is tried before anybody is told, and when that does it nobody is; also when its next attempt is far away."""
    up = []

    def act(job):
        if job.sender and not up:
            job.all("Z")
        else:
            job.ok()
    r = rig(act)
    r.queue.queued(age=100 * HOUR, wait=8 * HOUR)
    up.append(1)
    s = r.start()
    s.drained()
    assert len(r.nursery.jobs) == 1
    up.clear()
    n = r.queue.queued(age=100 * HOUR, wait=8 * HOUR)
    s.stop()
    s = r.start()
    poll(lambda: notices(r), "the notice")
    assert [j.id for j in r.nursery.jobs if j.sender][1:] == [n]
    settle(s)
    assert len(notices(r)) == 1 and len(r.nursery.jobs) == 3
    s.stop()


def test_destination_down(rig):
    """Mail that waits for a destination is told of for its reason, and nobody there is bothered for it but by probes."""
    r = rig(act=lambda j: j.unreachable() if j.domain == "b.example" else j.ok(), smtproutes=None)
    numbers = [r.queue.todo(sender="s%d@far.example" % i) for i in range(30)]
    s = r.start()
    s.wait_log("backoff")
    s.pass_(HOUR + 1)
    poll(lambda: len(notices(r)) == 30, "30 notices, there are %d" % len(notices(r)))
    assert {j.rcpts[0] for j in notices(r)} == {"s%d@far.example" % i for i in range(30)}
    assert all(b"<bob@b.example>:\nNobody there answers. (#4.4.1)\n" in j.body for j in notices(r))
    assert {mode(r, n) for n in numbers} == {0o700}
    settle(s)
    assert len([j for j in r.nursery.jobs if j.sender]) < 30 and len(notices(r)) == 30
    s.stop()


def test_clock(rig):
    """Set forward or back, by an hour or by years, unset at the start and set later: nothing is late but what has waited."""
    r = rig()
    r.clock.set(100)
    n = r.queue.todo(sender="early@far.example")
    s = r.start()
    poll(lambda: len(r.nursery.jobs) == 1, "the attempt")
    settle(s)
    s.pass_(2 * HOUR)  # the clock is not set: nobody knows how long that was
    settle(s)
    assert not notices(r)
    s.stop()
    r.clock.set(50)  # as after another boot without a clock
    s = r.start_and_wait()
    settle(s)
    r.clock.set(time.time())
    settle(s)
    for step in (HOUR + 1, 30 * 86400, -86400, 6000 * 86400, -6000 * 86400, -1000 * 86400, 1000 * 86400):
        s.step(step)
        settle(s)
        assert not notices(r) and mode(r, n) == 0o600, step
    s.pass_(HOUR)
    poll(lambda: notices(r), "the notice")
    settle(s)
    assert len(notices(r)) == 1
    s.stop()


def test_no_room(rig):
    """While the notice cannot be written nobody counts as told; the message is not tried more often for that; later its sender is told, once."""
    r = rig()
    n = r.queue.todo()
    s = r.start()
    poll(lambda: len(r.nursery.jobs) == 1, "the attempt")
    os.rename(r.queue.path("pid"), r.queue.path("away"))
    s.pass_(HOUR + 1)
    poll(lambda: [x for x in s.log("queue") if "cannot be told" in x["msg"]], "the complaint")
    for _ in range(5):
        settle(s)
    assert mode(r, n) == 0o600 and len(r.nursery.jobs) == 2
    os.rename(r.queue.path("away"), r.queue.path("pid"))
    settle(s)
    s.pass_(2 * HOUR)
    poll(lambda: notices(r), "the notice")
    settle(s)
    assert len(notices(r)) == 1 and mode(r, n) == 0o700
    s.stop()


# ---- kill -9, and errors ----

class Case:
    """A message that is late, and one that is not; what must have become of them in the end."""

    def __init__(self, built, home):
        self.scheduler, self.stepper = built
        self.queue = Queue(home, delaynotice="3600\n")
        self.nursery = Nursery(later)
        self.clock = Clock(os.path.join(home, "clock"))
        self.late = self.queue.queued(sender="ann@far.example", remote=("Dold@b.example", "Tone@b.example", "Ttwo@b.example"), age=2 * HOUR)
        self.early = self.queue.queued(sender="joe@far.example", age=60)
        self.runs = []

    def others(self):
        return set(self.queue.all()) - {self.late, self.early, 0}

    def is_told(self):
        return bool(os.stat(self.queue.name("info", self.late)).st_mode & 0o100)

    def quiet(self):
        """All that was to happen has: each was tried, and nothing is on its way."""
        tried = {j.id for j in self.nursery.jobs}
        return {self.late, self.early} <= tried and not self.others() and not os.listdir(self.queue.path("pid"))

    def run(self, who, at=None, error=None, name=None):
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock, wait=True)
        self.runs.append(s)
        with stepper.Stepper(self.stepper, s.pid, 1 if who == "cleaner" else 0) as step:
            if at is not None:
                step.rule(at, "fail" if error else "kill", *([error] if error else []), **({"to": at + 2, "name": name} if error else {}))
            step.release(s.pid)
            end = time.monotonic() + (tools.PATIENCE if at is None else 1.5)
            while step.gone is None and time.monotonic() < end and not (at is None and notices(self) and self.quiet()):
                time.sleep(0.02)
            if at is None:
                time.sleep(0.2)
                step.sync()
            calls = list(step.calls)
        s.kill()
        return calls

    def finish(self):
        """Without faults, at once and after another hour."""
        before = self.runs[-1].begun()
        tried = len(self.nursery.jobs)
        s = Scheduler(self.scheduler, self.queue, self.nursery, self.clock)
        self.runs.append(s)
        poll(lambda: s.begun() > before, "the second start")
        s.signal(signal.SIGALRM)
        poll(lambda: {self.late, self.early} <= {j.id for j in self.nursery.jobs[tried:]}, "the attempts")
        settle(s)
        s.pass_(600)
        s.signal(signal.SIGALRM)
        poll(lambda: len([j for j in self.nursery.jobs if j.id == self.late]) >= 2, "another attempt")
        settle(s)
        poll(lambda: set(self.queue.underway()) <= {self.late, self.early}, "the end of all notices, there is %r" % self.queue.all())
        s.stop()

    def verdict(self):
        # The same one may come twice, if the kill was between its delivery and its mark, as any message.
        told = {(re.search(rb"\nMessage-ID: (\S+)", j.body).group(1), *j.rcpts) for j in notices(self)}
        assert [x[1:] for x in told] == [("ann@far.example",)] and stat.S_IMODE(os.stat(self.queue.name("info", self.late)).st_mode) == 0o700, told
        for j in notices(self):
            assert b"<one@b.example>:" in j.body and b"<two@b.example>:" in j.body and b"old@b.example" not in j.body
        assert self.queue.records("remote", self.late) == ["Dold@b.example", "Tone@b.example", "Ttwo@b.example"]
        assert self.queue.records("remote", self.early) == ["Tbob@b.example"]

    def close(self):
        for s in self.runs:
            s.kill()
        self.nursery.close()


@pytest.fixture(scope="module")
def built(work):
    return shutil.copy2(delivery.build(False), os.path.join(work, "scheduler-notice-kill")), stepper.build(work)


def broken(built, home, who, at, error=None, name=None):
    c = Case(built, home)
    try:
        c.run(who, at, error, name)
        c.finish()
        c.verdict()
    except BaseException as e:
        raise AssertionError("%s, %s at call %d:\n%s" % (who, error or "killed", at, tools.read(c.runs[-1].log_path).decode()[-3000:])) from e
    finally:
        c.close()
        tools.rmtree(home)


@pytest.mark.parametrize("who", ["scheduler", "cleaner"])
@pytest.mark.parametrize("fault", ["kill", "error"])
def test_at_each_call(built, tmp_path, who, fault):
    """
    Killed, or failing, at each call from the first: one notice in the end, never two. (That one may be delivered twice, as any message.)
    """
    c = Case(built, str(tmp_path / "all"))
    calls = c.run(who)
    c.close()
    assert len(notices(c)) == 1 and c.is_told()
    names = TELLING | {"fchmod"} if fault == "kill" else FAILING | {"fchmod"}
    at = [(x.count, x.name) for x in calls if x.name in names and not (fault == "kill" and x.failed)]
    if fault == "error":
        # Where a mode can be set once, it can be set twice.
        at = [x for x in at if x[1] != "fchmod" or x[0] == min(y[0] for y in at if y[1] == "fchmod")]
    assert len(at) > (100 if who == "scheduler" else 30), len(at)
    step = 1 if tools.LONG else 6
    at = at[time.localtime().tm_yday % step::step]
    args = [(built, str(tmp_path / str(i)), who, i) + (("EIO", name) if fault == "error" else ()) for i, name in at]
    faults.each(broken, args, 6)
    print("%d calls, %d faults" % (len(calls), len(at)))


def test_order(built, tmp_path):
    """A power cut neither costs the notice nor doubles it: both marks are flushed before what follows, and that the next start has to look at todo/."""
    c = Case(built, str(tmp_path / "home"))
    calls = [x for x in c.run("scheduler") if not x.failed]
    c.close()
    mark = next(i for i, x in enumerate(calls) if x.name == "fchmod" and x.about("info"))
    after = [x.name for x in calls[mark + 1:]]
    assert after[:5] == ["fsync", "sendmsg", "recvmsg", "fchmod", "fsync"], calls[mark:mark + 8]
    assert len({calls[mark + i].fd for i in (0, 1, 4, 5)}) == 1


def test_whole(make_server):
    """Under main, in its jail, behind its filter, as whoever it runs as."""
    with remote.Peer(answers={"rcpt": [b"451 4.2.1 not now\r\n"] * 2 + [b"250 ok\r\n"]}) as peer:
        server = make_server(listen={"inside": harness.LISTEN["inside"]}, control={
            "relay": "on\n", "smtproutes": remote.route(peer), "delaynotice": "1\n", "bounceformat": "dsn\n"})
        with server.session("inside") as client:
            client.envelope("alice@client.example", ["bob@far.example"])
            client.cmd("DATA", 354)
            client.send(smtpc.MESSAGE + b".\r\n")
            assert client.reply() == 250
        server.wait_log("deliver", result="defer")
        time.sleep(2.1)
        server.reload()  # it looks once a minute, and when it starts
        poll(lambda: [m for t in peer.talks for m in t.messages], "the notice", 40)
        (got,) = [m for t in peer.talks for m in t.messages]
        m = email.message_from_bytes(got, policy=email.policy.default)
        assert m["To"] == "alice@client.example" and m.get_content_type() == "multipart/report"
        assert re.search(rb"Final-Recipient: rfc822; bob@far.example\r?\nAction: delayed\r?\nStatus: 4.2.1\r?\n", got)
        assert len(server.log("late")) == 1
        server.stop()
