# SPDX-License-Identifier: MIT
"""What the attacks in test_abuse_*.py share: a server that is watched while it is attacked, and an honest customer who is served meanwhile."""

import array
import collections
import itertools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time

import harness
import tools
from tools import poll

SERVED = 2.0       # seconds in which a customer is served while others attack
SESSION = 256      # KiB that a process of a session may have for itself alone
FLAT = 32          # KiB by which it may grow in the second half of its life
GROWTH = 128       # KiB by which main and its nurseries may grow in a campaign
CUSTOMERS_NET = 9  # customers come from 127.9.x.y
networks = itertools.count()


class Attacker:
    """flood.py with a job, in the background and with less right to the processor than the server has."""

    def __init__(self, wrap=(), **job):
        self.process = subprocess.Popen([*wrap, "nice", "-n", "10", sys.executable, os.path.join(os.path.dirname(__file__), "flood.py"),
                                         json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def result(self):
        """The next thing it has to say."""
        line = self.process.stdout.readline()
        assert line, "an attacker died, status %s" % self.process.wait()
        return json.loads(line)

    def leave(self):
        """It closes what it holds, and ends; returns the rest of what it said, as one dictionary."""
        self.process.stdin.close()
        out = {}
        for line in self.process.stdout:
            out.update(json.loads(line))
        assert self.process.wait(60) == 0
        self.process.stdout.close()
        return out


def own_memory(pid):
    """
    KiB of memory that is no file's; None when the process is gone or may not be looked at. Not "Private": what a process shares becomes its own
    when the others end, and that is no growth.
    """
    try:
        text = tools.read("/proc/%d/smaps_rollup" % pid).decode()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:")) or None


def descriptors(pid):
    try:
        return len(os.listdir("/proc/%d/fd" % pid))
    except PermissionError:
        return None


class Watch:
    """
    With this around it, an attack is a campaign: customers log in and send meanwhile, and at the end, when the attackers are gone, everything
    must have been as SERVED, FLAT and GROWTH say, nothing is left, and nobody has filled the log. `lines`: that a session may cause.
    `cpu`: seconds main may have used. What others than the customers have put into the queue is then in `messages`.
    """

    def __init__(self, server, lines=12, cpu=1.0, customer="submissions", flat=None):
        self.server, self.lines, self.cpu, self.profile = server, lines, cpu, customer
        self.seconds, self.faults, self.sent = [], [], []
        self.memory = collections.defaultdict(list)  # (pid, name): KiB, from time to time
        network = next(networks) % 250 + 1
        # All of one network, where their account is at home: strangers may have to wait when it is guessed at.
        self.sources = itertools.cycle(["127.%d.%d.%d" % (CUSTOMERS_NET, network, n) for n in range(1, 251)])
        self.flat = FLAT if flat is None else flat
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._customers, self._samples)]

    def __enter__(self):
        s = self.server
        poll(self._buried, "the end of what was before")
        self.house = {pid: own_memory(pid) for pid in (s.pid, *s.nurseries())}
        self.fds = descriptors(s.pid)
        self.mark, self.began = len(s.log()), time.monotonic()
        self.used = tools.cpu_seconds(s.pid)
        for t in self.threads:
            t.start()
        return self

    def _buried(self):
        """Main has heard of the end of all sessions."""
        return not [p for p in tools.processes() if p.ppid == self.server.pid and (p.state == "Z" or p.name.startswith(("stile-ward ", "stile-smtp ")))]

    def _customers(self):
        while not self.stop.is_set():
            begin = time.monotonic()
            sender = "customer%d@client.example" % len(self.seconds)
            try:
                with self.server.session(self.profile, source=next(self.sources)) as c:
                    c.mail(sender=sender)
                    self.sent.append(sender)
                    c.quit()
                self.seconds.append(time.monotonic() - begin)
            except BaseException as e:  # pylint: disable=broad-except
                self.faults.append((time.monotonic() - begin, repr(e)))
            self.stop.wait(0.15)

    def _samples(self):
        names = ("stile-ward ", "stile-smtp ")
        while not self.stop.wait(0.25):
            for p in [p for p in tools.children(self.server.pid) if p.name.startswith(names)][:40]:
                kib = own_memory(p.pid)
                if kib:
                    self.memory[p.pid, p.name.split()[0]].append(kib)

    def __exit__(self, kind, value, traceback):
        if kind is None:
            poll(lambda: len(self.seconds) >= 3 or self.faults, "three customers")
        self.stop.set()
        for t in self.threads:
            t.join()
        if kind is None:
            self.check()

    def check(self):
        s = self.server
        poll(s.idle, "the end of all sessions: %r" % (s.left(),))
        assert not self.faults, "customers were turned away: %d of %d, %r" % (
            len(self.faults), len(self.faults) + len(self.seconds), self.faults[:3])
        median = statistics.median(self.seconds)
        assert median < SERVED, "customers waited %.1f s, up to %.1f s" % (median, max(self.seconds))
        used = tools.cpu_seconds(s.pid) - self.used
        assert used < self.cpu, "main used %.2f s" % used
        for pid, before in self.house.items():
            after = own_memory(pid)
            assert before is None or after - before <= GROWTH, "process %d grew from %d to %d KiB" % (pid, before, after)
        for (pid, name), kib in self.memory.items():
            half = len(kib) // 2
            assert max(kib) <= SESSION and (half < 4 or max(kib[half:]) - max(kib[:half]) <= self.flat), "%s %d: %r KiB" % (name, pid, kib)
        poll(self._buried, "main to hear of the end of all sessions")
        poll(lambda: descriptors(s.pid) == self.fds, "as many descriptors as before, %r" % self.fds)
        self.check_log()
        found = s.take()
        ours = [m.sender.decode() for m in found if m.sender.startswith(b"customer")]
        assert sorted(ours) == sorted(self.sent), "customers' messages"
        self.messages = [m for m in found if not m.sender.startswith(b"customer")]
        s.assert_nothing()

    def check_log(self):
        events = self.server.log()[self.mark:]
        assert not [e for e in events if e["ev"] in ("crash", "reexec")], self.server.tail()
        per = collections.Counter(e["sid"] for e in events if "sid" in e)
        worst = per.most_common(1)[0]
        assert worst[1] <= self.lines, "session %s caused %d lines" % worst
        # About refused connections: a few lines a second, whatever comes.
        assert len([e for e in events if "sid" not in e]) < 8 * (time.monotonic() - self.began + 2)



class OwnHouse(harness.House):
    """A house whose users no other server on this machine has, for what the kernel counts by user."""

    def __init__(self, work, shift):
        os.makedirs(work)
        super().__init__(work)
        self.uid = {name: uid + shift for name, uid in harness.USERS.items()}
        text = tools.read(self.passwd).decode()
        for name, uid in harness.USERS.items():
            text = text.replace("%s:x:%d:" % (name, uid), "%s:x:%d:" % (name, self.uid[name]))
        tools.write(self.passwd, text)


class InFlight:
    """`count` descriptors that a process of user `uid` has sent and nobody has received."""

    def __init__(self, uid, count):
        ready, tell = os.pipe()
        keep, self.end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                pair = socket.socketpair()
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                for _ in range(count // 50):
                    pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [keep] * 50))])
                os.close(self.end)
                os.write(tell, b"x")
                os.read(keep, 1)  # until self.end is closed
            finally:
                os._exit(0)
        os.close(tell)
        os.close(keep)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def release(self):
        if self.pid:
            os.close(self.end)
            os.waitpid(self.pid, 0)
            self.pid = 0
