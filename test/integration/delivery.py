# SPDX-License-Identifier: MIT
"""
For tests of delivery from the queue: queues made by hand, test/relay/scheduler.c run on them, and the nursery with its remotes played here. A
test says what becomes of each job; the clock is its own.
"""

import array
import collections
import email.utils
import itertools
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import tools
from tools import TREE, poll

JOB = struct.Struct("=IIIIQQ256s1004s4x")
RCPT = struct.Struct("=II1004s")
REPORT = struct.Struct("=IIII1004s")
DONE = struct.Struct("=IIIIIHHI64s256s")
MX = 0xFFFFFFFF
RECEIVED = b"Received: (qmail 4711 invoked from network); 21 Nov 2026 23:23:39 -0000\n"
LIFETIME = 604800
DAY = 86400
# After a first attempt the next one is due at age 400; when that attempt lasted a second, or one began meanwhile, at 441, and so on up to 576 for sixteen.
RETRY = 600

_numbers = itertools.count(1)


def build(sanitize=tools.SANITIZE, what="scheduler", program="scheduler"):
    """The program's path, made in the tree."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
    words = ["SANITIZE=1"] if sanitize else []
    tools.run("make", "-s", *words, what, cwd=TREE, env=env, timeout=300)
    return os.path.join(TREE, "build", "host-san" if sanitize else "host", program)


def text(field):
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


# ---- The queue -------------------------------------------------------------------------------------------------------

class Queue:
    """A queue of one user, split 3 ways, and the control files beside it."""

    SPLIT = 3

    def __init__(self, home, **control):
        self.home, self.top = home, os.path.join(home, "queue")
        for d in ["pid", "intd", "todo", "bounce", "lock"] + [
                "%s/%d" % (d, k) for d in ("mess", "info", "local", "remote") for k in range(self.SPLIT)]:
            os.makedirs(os.path.join(self.top, d))
        os.mkfifo(self.path("lock/trigger"), 0o622)
        tools.write(self.path("lock/sendmutex"), b"", 0o600)
        tools.write(self.path("lock/tcpto"), bytes(1024))
        os.makedirs(os.path.join(home, "control"))
        files = {"me": "mail.example.net\n", "smtproutes": ":relay.example.net\n", "locals": ""}
        files.update(control)
        self.set(**{name: content for name, content in files.items() if content is not None})

    def set(self, **files):
        for name, content in files.items():
            path = os.path.join(self.home, "control", name)
            if content is None:
                os.unlink(path)
            else:
                tools.write(path, content)

    def path(self, name):
        return os.path.join(self.top, name)

    def name(self, d, n):
        return self.path("%s/%d/%d" % (d, n % self.SPLIT, n) if d in ("mess", "info", "local", "remote") else "%s/%d" % (d, n))

    def mess(self, body=None, received=RECEIVED):
        """State S2: a message without envelope. Its number."""
        body = b"Subject: number %d\n\nwords\n" % next(_numbers) if body is None else body
        path = tools.write(self.path("pid/%d" % next(_numbers)), received + body, 0o644)
        n = os.stat(path).st_ino
        os.rename(path, self.name("mess", n))
        return n

    def todo(self, sender="ann@far.example", rcpts=("bob@b.example",), body=None, intd=True, raw=None, trigger=True):
        """State S4: a new message. Its number."""
        n = self.mess(body)
        env = raw if raw is not None else b"u1000\0p4711\0F%s\0" % sender.encode() + b"".join(b"T%s\0" % r.encode() for r in rcpts)
        tools.write(self.name("intd", n), env, 0o644)
        os.link(self.name("intd", n), self.name("todo", n))
        if not intd:
            os.unlink(self.name("intd", n))
        if trigger:
            self.pull()
        return n

    def queued(self, sender="ann@far.example", remote=("Tbob@b.example",), local=(), bounce=b"", age=0, wait=0, now=None, body=None):
        """State S5: a message under way. Its number."""
        now = time.time() if now is None else now
        n = self.mess(body)
        tools.write(self.name("info", n), b"F%s\0" % sender.encode(), 0o600)
        os.utime(self.name("info", n), (now - age, now - age))
        for d, records in (("remote", remote), ("local", local)):
            if records:
                tools.write(self.name(d, n), b"".join(r.encode() + b"\0" for r in records), 0o600)
                os.utime(self.name(d, n), (now + wait, now + wait))
        if bounce:
            tools.write(self.name("bounce", n), bounce, 0o600)
        return n

    def pull(self):
        try:
            fd = os.open(self.path("lock/trigger"), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return
        os.write(fd, b"\0")
        os.close(fd)

    def parts(self, n):
        """The directories that have something of message n."""
        return {d for d in ("mess", "intd", "todo", "info", "local", "remote", "bounce") if os.path.exists(self.name(d, n))}

    def _listed(self):
        out = collections.defaultdict(set)
        for d in ("mess", "intd", "todo", "info", "local", "remote", "bounce"):
            for where, _, names in os.walk(self.path(d)):
                for n in names:
                    assert os.path.join(where, n) == self.name(d, int(n)), (where, n)
                    out[int(n)].add(d)
        return dict(out)

    def all(self):
        """
        {number: parts} of everything there is. Directories are read one after the other, and what moves meanwhile, as from bounce/ to todo/, may be in
        none of them.
        """
        return tools.steady(self._listed)

    def underway(self):
        """The same without debris: what a kill has left half made is no message, and lies there until it is swept."""
        return {n: parts for n, parts in self.all().items() if not parts <= {"mess", "intd"}}

    def empty(self):
        return not self.all() and not os.listdir(self.path("pid"))

    def records(self, d, n):
        written = not os.path.exists(self.name("todo", n))
        try:
            raw = tools.read(self.name(d, n))
        except FileNotFoundError:
            return []
        if not written and not raw.endswith(b"\0"):
            return []  # it is just being made
        assert raw.endswith(b"\0"), raw
        return [r.decode() for r in raw[:-1].split(b"\0")]

    def check(self):
        """Every message is in a state of the queue format's table."""
        for n, parts in self.all().items():
            if "todo" in parts:
                assert "mess" in parts, (n, parts)
            elif "info" in parts:
                assert "mess" in parts, (n, parts)
            else:
                assert parts in ({"mess"}, {"mess", "intd"}) or not self.alive(n), (n, parts)

    def alive(self, n):
        return os.path.exists(self.name("mess", n))


# ---- The nursery and its remotes --------------------------------------------------------------------------------------

class Job:
    """What a remote was given."""

    def __init__(self, remote, head, fd):
        kind, self.route, self.count, length, self.id, self.size, domain, sender = JOB.unpack(head)
        assert kind == 1 and fd is not None and 1 <= self.count <= 100, (kind, fd, self.count)
        self.remote, self.domain, self.sender = remote, text(domain), text(sender)
        assert len(self.sender.encode("utf-8", "surrogateescape")) == length
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        self.body = os.read(fd, 65536)
        assert self.size == os.fstat(fd).st_size
        os.close(fd)
        self.rcpts, self.at = [], time.monotonic()

    def report(self, i, klass="K", code=250, words="accepted\n"):
        self.remote.send(REPORT.pack(3, i, ord(klass), code, words.encode()))

    def done(self, reuse=0, unreachable=0, peer="192.0.2.1:25", name="relay.example.net", tls=0):
        self.remote.job = None
        self.remote.send(DONE.pack(4, reuse, unreachable, 0, self.size, tls, tls and 0xC02B, 0, peer.encode(), name.encode()))

    def ok(self, reuse=0):
        for i in range(len(self.rcpts)):
            self.report(i)
        self.done(reuse)

    def all(self, klass, code=451, words="later\n", reuse=0):
        for i in range(len(self.rcpts)):
            self.report(i, klass, code, words)
        self.done(reuse)

    def unreachable(self, words="Nobody there answers. (#4.4.1)\n"):
        for i in range(len(self.rcpts)):
            self.report(i, "Z", 0, words)
        self.done(unreachable=1, peer="", name="")

    def die(self):
        self.remote.close()


class Remote:
    def __init__(self, nursery, sock):
        self.nursery, self.sock, self.job, self.jobs, self.eof = nursery, sock, None, 0, False
        self.cut = False  # the scheduler has asked to end
        self.poll = select.poll()
        self.poll.register(sock, select.POLLRDHUP)

    def gone(self):
        """Not only told to end: nobody hears any more."""
        return any(events & select.POLLHUP for _, events in self.poll.poll(0))

    def send(self, data):
        try:
            self.sock.send(data)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass

    def close(self):
        self.eof = True
        self.nursery.drop(self)

    def hear(self):
        fds = array.array("i")
        try:
            data, anc, _, _ = self.sock.recvmsg(4096, socket.CMSG_LEN(fds.itemsize))
        except OSError:
            data, anc = b"", []
        for _, _, mem in anc:
            fds.frombytes(mem[:fds.itemsize])
        if not data and self.job and not self.gone():
            self.cut = True
            if self.nursery.obeys:
                self.close()
        elif not data:
            self.close()
        elif len(data) == JOB.size:
            assert self.job is None
            self.job = Job(self, data, fds[0] if fds else None)
            self.jobs += 1
        else:
            kind, length, addr = RCPT.unpack(data)
            addr = text(addr)
            assert kind == 2 and len(addr.encode("utf-8", "surrogateescape")) == length
            self.job.rcpts.append(addr)
        if data and self.job and len(self.job.rcpts) == self.job.count:
            self.nursery.got(self.job)


class Nursery:
    """
    Calls act(job), in a thread of its own, for each job; that may finish it, or leave it to the test (`jobs`, `wait()`). `most` is how many
    there have been at once.
    """

    obeys = False  # remotes end when they are asked to, as one does that has not sent all yet

    def __init__(self, act=Job.ok):
        self.act, self.jobs, self.fault, self.births, self.most = act, [], None, 0, 0
        self.mine, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.remotes, self.stop = {}, False
        self.lock = threading.RLock()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop:
                with self.lock:
                    for r in [r for r in self.remotes.values() if r.cut and (not r.job or r.gone())]:
                        r.close()
                    # Births last: who has gone before one does not count beside it.
                    socks = [r.sock for r in self.remotes.values() if not r.cut] + [self.mine]
                try:
                    ready, _, _ = select.select([s for s in socks if s.fileno() >= 0], [], [], 0.05)
                except (ValueError, OSError):
                    continue  # a test has just closed one
                for s in ready:
                    if s is self.mine:
                        if not self._birth():
                            return
                    elif s.fileno() in self.remotes:
                        self.remotes[s.fileno()].hear()
        except BaseException as e:  # pylint: disable=broad-except
            self.fault = e

    def _birth(self):
        data, fds, _, _ = socket.recv_fds(self.mine, 64, 1)
        if not data:
            return False
        assert data == struct.pack("=II", 1, 0) and len(fds) == 1
        self.births += 1
        sock = socket.socket(fileno=fds[0])
        with self.lock:
            self.remotes[sock.fileno()] = Remote(self, sock)
            self.most = max(self.most, len(self.remotes))
        return True

    def drop(self, remote):
        with self.lock:
            self.remotes.pop(remote.sock.fileno(), None)
            remote.sock.close()

    def got(self, job):
        self.jobs.append(job)
        if self.act:
            self.act(job)

    def wait(self, count=1, timeout=None):
        """The jobs there have been, once there are as many."""
        poll(lambda: len(self.jobs) >= count or self.fault, "%d jobs, there are %d" % (count, len(self.jobs)), timeout)
        assert not self.fault, self.fault
        return self.jobs

    def rest(self):
        """Wait until no remote is left, where none may stay: whatever was begun is in `jobs`."""
        poll(lambda: not self.remotes or self.fault, "the end of %r" % self.remotes)
        assert not self.fault, self.fault

    def close(self):
        self.stop = True
        self.thread.join(tools.PATIENCE)
        for r in list(self.remotes.values()):
            self.drop(r)
        self.mine.close()
        assert not self.fault, self.fault


def later(job):
    job.all("Z")


def refused(job):
    job.all("D", 550, "Remote host said: 550 no\n")


# ---- The scheduler ----------------------------------------------------------------------------------------------------

class Clock:
    """What the scheduler takes for the time of day, and for the time since boot."""

    def __init__(self, path):
        self.path, self.real, self.boot = tools.write(path, bytes(16)), 0, 0

    def _write(self):
        with open(self.path, "r+b") as f:
            f.write(struct.pack("=qq", self.real, self.boot))

    def now(self):
        return time.time() + self.real

    def step(self, seconds):
        """Somebody sets the clock."""
        self.real += seconds
        self._write()

    def set(self, now):
        self.step(int(now - self.now()))

    def pass_(self, seconds):
        """Time goes by."""
        self.boot += seconds
        self.step(seconds)


class Scheduler:
    other = None  # lines that the log may have besides ours

    def __init__(self, binary, queue, nursery, clock=None, wait=False, wrap=()):
        self.queue, self.nursery, self.clock = queue, nursery, clock
        self.log_path = os.path.join(queue.home, "log")
        env = dict(os.environ, **({"SCHEDULER_WAIT": "1"} if wait else {}))
        if binary.endswith("-san"):  # as in test/run.sh
            env.update(ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:disable_coredump=1", UBSAN_OPTIONS="abort_on_error=1")
            wrap = [*wrap, "setarch", "-R"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*wrap, binary, queue.home, str(nursery.theirs.fileno())] + ([clock.path] if clock else []),
                pass_fds=[nursery.theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)
        self.pid, self.over = self.process.pid, False
        if wait:
            tools.wait_stopped(self.pid)

    def log(self, ev=None, **want):
        """[{key: value}] of the log's lines, those of event `ev` with these values."""
        out = []
        # What stands behind the last newline is being written.
        for line in tools.read(self.log_path).rpartition(b"\n")[0].decode("utf-8", "replace").splitlines():
            if self.other and re.match(self.other, line):
                continue
            assert re.match(r"ev=\w+( |$)", line), line
            pairs = {k: q if q else v for k, q, v in re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', line)}
            if (ev is None or pairs["ev"] == ev) and all(pairs.get(k) == str(v) for k, v in want.items()):
                out.append(pairs)
        return out

    def begun(self):
        """How often one has begun on this queue."""
        return len([x for x in self.log("queue") if "in place" in x["msg"]])

    def wait_log(self, ev, count=1, **want):
        return poll(lambda: len(self.log(ev, **want)) >= count and self.log(ev, **want),
                    "%d log lines %s %r in:\n%s" % (count, ev, want, tools.read(self.log_path).decode()[-2000:]))

    def pass_(self, seconds):
        self.clock.pass_(seconds)

    def step(self, seconds):
        self.clock.step(seconds)

    def signal(self, sig):
        os.kill(self.pid, sig)

    def wait_exit(self, expect=0):
        assert self.process.wait(tools.PATIENCE) == expect, tools.read(self.log_path).decode()[-2000:]

    def stop(self):
        self.signal(signal.SIGTERM)
        self.wait_exit()

    def kill(self):
        """And wait for its cleaner, too, which finishes what it was asked."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(tools.PATIENCE)
        if not self.over:
            poll(lambda: not [p for p in tools.processes() if p.session == self.pid and p.state != "Z"], "the cleaner's end")
            self.over = True

    def drained(self, timeout=None):
        """Wait until the queue is empty."""
        poll(lambda: self.queue.empty() or self.nursery.fault or self.process.poll() is not None,
             "an empty queue, there is %r in\n%s" % (self.queue.all(), tools.read(self.log_path).decode()[-3000:]), timeout)
        assert not self.nursery.fault, self.nursery.fault
        assert self.queue.empty(), tools.read(self.log_path).decode()[-3000:]


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
        before = self.runs[-1].begun() if self.runs else 0
        s = self.start()
        poll(lambda: s.begun() > before, "the start")
        return s

    def jobs_for(self, n):
        return [j for j in self.nursery.jobs if j.id == n]

    def close(self):
        for s in self.runs:
            s.kill()
        self.nursery.close()


# ---- Bounces ----------------------------------------------------------------------------------------------------------

Bounce = collections.namedtuple("Bounce", "sender rcpts headers intro failures break_ copy")


def parse_bounce(job):
    """A bounce as a program reads it: QSBMF, paragraphs by their first characters."""
    lines = job.body.split(b"\n", 1)
    assert re.fullmatch(rb"Received: \(qmail [1-9][0-9]* invoked for bounce\); [1-9][0-9]? [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} -0000", lines[0]), lines[0]
    head, _, body = lines[1].partition(b"\n\n")
    headers = [line.split(b": ", 1) for line in head.split(b"\n")]
    assert [h[0] for h in headers[:7]] == [b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted", b"MIME-Version"], headers
    assert [h[0] for h in headers[7:]] in ([], [b"Content-Type", b"Content-Transfer-Encoding"]), headers
    headers = {k.decode(): v.decode("utf-8", "replace") for k, v in headers}
    assert email.utils.parsedate_tz(headers["Date"]) is not None
    paragraphs, at = [], 0
    while not body[at:].startswith(b"-"):
        end = body.index(b"\n\n", at)
        paragraphs.append(body[at:end].decode("utf-8", "replace"))
        at = end + 2
    break_, _, copy = body[at:].partition(b"\n\n")
    assert paragraphs[0].startswith("Hi. This is the "), paragraphs[0]
    failures = {}
    for p in paragraphs[1:]:
        if p.startswith("<"):
            first, _, rest = p.partition("\n")
            assert first.endswith(">:"), first
            failures[first[1:-2]] = rest
    assert copy.startswith(b"Return-Path: <"), copy[:80]
    return Bounce(job.sender, job.rcpts, headers, paragraphs[0], failures, break_.decode(), copy)
