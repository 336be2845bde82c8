# SPDX-License-Identifier: MIT
"""
board/host/mailstile.init under BusyBox, with nothing else in its PATH. The script is the shipped one but for paths.
"""

import os
import re
import signal
import subprocess

import pytest

import faults
import harness
import tools

SCRIPT = os.path.join(tools.TREE, "board/host/mailstile.init")
PROGRAMS = "sh test cat tr kill sleep rm grep sync start-stop-daemon printf echo ip touch"
BUSYBOX = "/bin/busybox"


class Init:
    def __init__(self, server, scratch):
        self.server, self.dir = server, scratch
        self.pidfile = os.path.join(scratch, "mailstile.pid")
        bin_ = os.path.join(scratch, "bin")
        os.mkdir(bin_)
        for p in PROGRAMS.split():
            os.symlink(BUSYBOX, os.path.join(bin_, p))
        self.defaults = os.path.join(scratch, "default")
        text = tools.read(SCRIPT).decode()
        assert text.count("/etc/default/mailstile") == 3
        text = text.replace("/etc/default/mailstile", self.defaults)
        text = re.sub(r"^PATH=.*$", "PATH=" + bin_, text, flags=re.M)
        self.script = os.path.join(scratch, "S60mailstile")
        tools.write(self.script, text, 0o755)
        self.set()

    def set(self, **words):
        words = {"DAEMON": self.server.binary, "HOME_DIR": self.server.home, "PIDFILE": self.pidfile, "PATIENCE": 30, **words}
        tools.write(self.defaults, "".join('%s="%s"\n' % w for w in words.items()))

    def __call__(self, *words, status=0):
        argv = self.server.house.argv([BUSYBOX, "sh", self.script, *words], self.server.mounts)
        # What a daemon writes must not keep us waiting for its end.
        with open(os.path.join(self.dir, "out"), "w+b") as out:
            p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=False, cwd="/", env=harness.environment())
            out.seek(0)
            text = out.read().decode("utf-8", "replace")
        assert p.returncode == status, "%s: status %d, %s" % (words, p.returncode, text)
        return text

    def pid(self):
        return int(tools.read(self.pidfile))

    def alive(self):
        return self.server.accepts("submissions")

    def started(self):
        """By somebody who is not waited for: the number may be written behind the first word to a client."""
        return self.alive() and os.path.exists(self.pidfile) and tools.read(self.pidfile).endswith(b"\n")


@pytest.fixture
def init(make_server, scratch):
    i = Init(make_server(listen={"submissions": harness.LISTEN["submissions"]}, start=False), scratch)
    yield i
    i.set()
    i("stop")
    assert not i.alive()


def test_start_and_stop(init):
    assert "does not run" in init("status", status=3)
    assert "started" in init("start")
    assert init.alive()
    pid = init.pid()
    assert "pid %d" % pid in init("status")
    assert "runs already, pid %d" % pid in init("start")
    assert init.pid() == pid
    assert "stopped" in init("stop")
    assert not init.alive() and not os.path.exists(init.pidfile)
    assert "does not run" in init("stop")
    assert "does not run" in init("reload", status=7)
    assert "usage" in init("else", status=2)


def test_restart(init):
    init("start")
    pid = init.pid()
    init("restart")
    assert init.alive() and init.pid() != pid


def test_reload_with_an_error(init):
    """What runs goes on with what it has; the finding names file and line."""
    init("start")
    pid = init.pid()
    init.server.set(listen="nonsense 25\n")
    assert "control/listen:1: error" in init("reload", status=1)
    assert "control/listen:1: error" in init("restart", status=1)
    assert init.alive() and init.pid() == pid
    init.server.set(listen="submissions 127.0.0.1:%d\n" % init.server.port["submissions"])
    assert "again" in init("reload")
    assert init.alive() and init.pid() == pid


@pytest.mark.parametrize("what", ["nobody", "another", "empty", "text"])
def test_stale_pid_file(init, what):
    """Left by a power cut: nobody has the number, or somebody else who must not be ended; or it was never written."""
    other = subprocess.Popen([BUSYBOX, "sleep", "60"])
    try:
        if what == "nobody":
            gone = subprocess.Popen(["true"])
            gone.wait()
        number = {"another": other.pid, "nobody": gone.pid if what == "nobody" else 0}.get(what)
        tools.write(init.pidfile, "%d\n" % number if number else {"empty": "", "text": "-1\n"}[what])
        assert "is dead" in init("status", status=1)
        assert "does not run" in init("stop")
        assert not os.path.exists(init.pidfile)
        tools.write(init.pidfile, "%d\n" % other.pid)
        assert "started" in init("start")
        assert init.alive() and init.pid() != other.pid
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


def test_needs(init):
    """Without its disk, nothing is started."""
    disk = os.path.join(init.dir, "disk")
    init.set(NEEDS="test -e " + disk)
    assert "not started" in init("start", status=1)
    assert not init.alive()
    tools.write(disk, "")
    init("start")
    assert init.alive()


def test_waits_for_the_network(init):
    """The boot goes on, and the server starts when the network is there."""
    network = os.path.join(init.dir, "network")
    init.set(READY="test -e " + network)
    assert "waits" in init("start")
    assert "waits" in init("start")
    assert "waits" in init("status", status=3)
    assert not init.alive()
    tools.write(network, "")
    tools.poll(init.started, "the server to start")
    assert "runs" in init("status")
    assert not os.path.exists(init.pidfile + ".wait")


def test_waits_no_longer_than_it_should(init):
    init.set(READY="false", READY_SECONDS=1)
    init("start")
    tools.poll(init.started, "the server to start")


def test_stop_while_it_waits(init):
    network = os.path.join(init.dir, "network")
    init.set(READY="test -e " + network)
    init("start")
    waiter = int(tools.read(init.pidfile + ".wait"))
    assert "not wait any more" in init("stop")
    tools.poll(lambda: not faults.alive(waiter), "the waiting to end")
    assert not os.path.exists(init.pidfile + ".wait")


def test_stop_ends_nobody_else(init):
    """A note of who waits, left by a power cut: the number is another's by now."""
    other = subprocess.Popen([BUSYBOX, "sleep", "60"])
    try:
        tools.write(init.pidfile + ".wait", "%d\n" % other.pid)
        init("stop")
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
