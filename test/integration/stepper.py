# SPDX-License-Identifier: MIT
"""
A process taken by the hand: what test/faults/stepper.c does, for tests. It counts system calls and kills, fails, cuts short or holds the
process at the one it is told to. Calls are found by looking at a run without faults, never by their number in the source.
"""

import collections
import errno
import os
import queue
import re
import signal
import subprocess
import threading

import tools
from tools import PATIENCE, TREE

ALWAYS = 1 << 60  # a call number that is never reached


def build(work):
    """Compile the tool; returns its path, with the numbers of system calls read on the way."""
    path = os.path.join(work, "stepper")
    if not os.path.exists(path):
        tools.run("cc", "-O2", "-Wall", "-Wextra", "-o", path, os.path.join(TREE, "test", "faults", "stepper.c"))
        text = tools.run("cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null").text
        NUMBERS.update((m.group(1), int(m.group(2))) for m in re.finditer(r"#define __NR_(\w+) (\d+)$", text, re.M))
        NAMES.update((n, name) for name, n in NUMBERS.items())
    return path


NUMBERS, NAMES = {}, {}


class Call(collections.namedtuple("Call", "word count nr result args fd strings")):
    """A system call: `fd` is the path behind its first argument if that is a descriptor, `strings` what its arguments point to."""

    @property
    def name(self):
        return NAMES.get(self.nr, str(self.nr))

    @property
    def failed(self):
        return -4096 < self.result < 0

    def about(self, *directories):
        """Whether a path of the call, by name or by descriptor, goes through one of these directories of a spool at its end."""
        pattern = r"(^|/)(%s)(/[^/]*){0,2}$" % "|".join(directories)
        return any(re.search(pattern, p) for p in [s for s in self.strings if s] + [self.fd])

    def __repr__(self):
        strings = " ".join(repr(s) for s in self.strings if s)
        return "%s %d: %s(%s) %s %s" % (self.word, self.count, self.name, self.fd, strings, self.result)


class Stepper:
    """`pid`, or with `child` the child-th process that `pid` forks from now on."""

    def __init__(self, binary, pid, child=0):
        self.process = subprocess.Popen([binary, str(pid), str(child)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.calls, self.hits, self.gone, self.child = [], [], None, None
        self.words = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.wait("ready")

    def _read(self):
        with os.fdopen(os.dup(self.process.stdout.fileno()), "r", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.rstrip("\n").split("\t")
                if fields[0] in ("call", "hit"):
                    call = Call(fields[0], *map(int, fields[1:4]), tuple(map(int, fields[4].split(","))), fields[5], fields[6:])
                    (self.calls if fields[0] == "call" else self.hits).append(call)
                    continue
                if fields[0] == "gone":
                    self.gone = int(fields[1])
                elif fields[0] == "child":
                    self.child = int(fields[1])
                    continue
                self.words.put(fields)
        self.words.put(["end"])

    def wait(self, word, timeout=None):
        """Wait for a line that begins with `word`; True. False when the process is gone before that."""
        while True:
            try:
                fields = self.words.get(timeout=timeout or PATIENCE)
            except queue.Empty:
                raise AssertionError("waited in vain for %r of the stepper; last call %r" % (word, self.calls[-1:])) from None
            if fields[0] == word:
                return True
            if fields[0] in ("gone", "end"):
                self.words.put(fields)
                return False
            assert fields[0] != "error", fields

    def say(self, *commands):
        try:
            self.process.stdin.write("".join(c + "\n" for c in commands).encode())
        except BrokenPipeError:
            pass

    def rule(self, at, action, value=0, to=None, name=None):
        """At call `at` (to `to`) since arm(), of `name` only if given: kill, signal, fail, short, hold or note."""
        if action == "fail" and isinstance(value, str):
            value = getattr(errno, value)
        self.say("rule %d %d %d %s %d" % (at, at if to is None else to, -1 if name is None else NUMBERS[name], action, value))

    def clear(self):
        self.say("clear")

    def arm(self):
        """Count from here; the calls seen so far are forgotten. False when the process is gone."""
        self.say("arm")
        alive = self.wait("armed")
        self.calls, self.hits = [], []
        return alive

    def release(self, pid):
        """Count from here on, and have a process go on that waits for SIGCONT; not before it is known that it is to be counted."""
        self.say("arm")
        assert self.sync()
        os.kill(pid, signal.SIGCONT)

    def sync(self):
        """Afterwards `calls` has all that had returned when this was called."""
        self.say("sync")
        return self.wait("synced")

    def go(self):
        self.say("go")

    def close(self):
        """Let the process go."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
