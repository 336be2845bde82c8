# SPDX-License-Identifier: MIT
"""
The images with a kernel and a BusyBox of our own, in 32 MB, little-endian and big-endian: mail with a login, 64 idle sessions, and the services
around: the log, the clock, the watchdog. Compiling a kernel takes minutes: only where that has been done, or by `make test-boards'.
"""

import re
import socket
import struct
import subprocess
import threading
import time

import pytest

import image
import smtpc
import tools
from test_image import START, Box, memory, running

pytestmark = pytest.mark.release
BOARDS = [b for b in ("malta", "malta-be") if image.made(b)]
MEMORY = 32
SESSIONS = 64


@pytest.fixture(scope="module", params=BOARDS)
def box(request, work, freeradius):
    """
    Two networks, since one address may have 40 sessions: QEMU's clients come from 10.0.2.2 and 10.0.3.2. The clock on the board has
    lost its battery.
    """
    second = tools.free_port()
    b = Box(request.param, work, freeradius, "own", memory=MEMORY, extra=[
        "-netdev", "user,id=n1,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:%d-:465" % second, "-device", "pcnet,netdev=n1", "-rtc", "base=2001-01-01"])
    b.second = second
    b.guest.start()
    yield b
    b.stop()


def test_board(box):
    """What boots is ours, on a CPU without floating point, in the byte order that it should have."""
    g = box.guest
    running(g)
    assert g.sh("cat /run/trouble 2> /dev/null; true") == ""
    assert "-mailstile" in g.sh("uname -r")
    assert g.sh("printf AB | od -x").split()[1] == {"malta": "4241", "malta-be": "4142"}[g.board]
    assert "FPU" not in g.sh("cat /proc/cpuinfo") and "1.5" in g.sh("awk 'BEGIN { print 3 / 2 }'")
    # What jails and filters need of a kernel.
    assert int(g.sh("grep -l '^Seccomp:.2' /proc/[0-9]*/status | wc -l")) >= 5
    assert g.sh("cat /proc/sys/kernel/randomize_va_space") == "2\n"
    assert int(re.search(r"MemTotal: *(\d+)", g.sh("cat /proc/meminfo")).group(1)) < MEMORY * 1024


class Clock(threading.Thread):
    """An NTP server (RFC 5905) on 127.0.0.1, which the guest sees as 10.0.2.2."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 123))
        self.sock.settimeout(0.2)
        self.asked, self.ends = 0, False

    def run(self):
        while not self.ends:
            try:
                data, peer = self.sock.recvfrom(512)
            except TimeoutError:
                continue
            self.asked += 1
            now = int((time.time() + 2208988800) * 2 ** 32)
            self.sock.sendto(struct.pack("!BBbbII4sQ8sQQ", 0x24, 1, 4, -20, 0, 0, b"GPS\0", now, data[40:48], now, now), peer)

    def stop(self):
        self.ends = True
        self.join()
        self.sock.close()


def test_clock(box):
    """A board that does not know the time takes no mail; when ntpd has asked, it does, without a restart."""
    g = box.guest
    box.set_up()
    running(g)
    assert g.sh("date +%Y") == "2001\n"
    with box.session() as s:
        assert s.cmd("MAIL FROM:<a@client.example>").code == 451
    try:
        clock = Clock()
    except OSError as e:
        g.sh("date -s @%d" % time.time())
        pytest.skip("no NTP server can be here: %s" % e)
    clock.start()
    assert "ntpd -p pool.ntp.org" in g.sh("ps")
    g.write("/data/etc/ntp", image.HOST + "\\n")
    g.sh("/etc/init.d/S55ntp stop; /etc/init.d/S55ntp start")
    tools.poll(lambda: g.sh("date +%Y") != "2001\n", "the clock to be set", timeout=image.PATIENCE, every=0.5)
    clock.stop()
    assert clock.asked and abs(int(g.sh("date +%s")) - time.time()) < 30


def test_mail(box):
    running(box.guest)
    with box.session() as s:
        s.mail(smtpc.MESSAGE)
    tools.poll(lambda: len(box.delivered()) == 1, "the message at the next hop", timeout=image.PATIENCE)
    assert box.delivered()[0].endswith(smtpc.stored(smtpc.MESSAGE))
    with box.session(login=None) as s:
        s.auth_plain("alice", "wrong", 535)


def test_log(box):
    """syslogd keeps the last lines, and sends all of them on."""
    g = box.guest
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(image.PATIENCE)
        g.write("/data/etc/syslog", "%s:%d\\n" % (image.HOST, there.getsockname()[1]))
        g.sh("/etc/init.d/S50syslog stop; /etc/init.d/S50syslog start")
        with box.session(login=None) as s:
            s.auth_plain("alice", "wrong", 535)
        line = b""
        while b"ev=auth" not in line:
            line = there.recv(4096)
    assert b"mailstile" in line
    assert "ev=auth" in g.sh("logread")
    g.sh("rm /data/etc/syslog; /etc/init.d/S50syslog stop; /etc/init.d/S50syslog start")


def test_idle_sessions(box):
    """64 sessions under TLS, all logged in, and still memory for others: a message goes through. One more is told to come later."""
    g = box.guest
    g.sh("ip link set eth1 up && ip addr add 10.0.3.15/24 dev eth1")
    before, old = memory(g), len(box.delivered())
    sessions = [box.session(port=[None, box.second][n % 2]) for n in range(SESSIONS)]
    after = memory(g)
    print("\n%s: %d KiB available, %d with %d idle sessions, %.0f KiB each; prompt after %.1f s" % (
        g.board, before, after, SESSIONS, (before - after) / SESSIONS, g.boot_seconds))
    assert len(re.findall(r"^ *\d+ .*stile-smtp\b", g.sh("ps w"), re.M)) == SESSIONS
    sessions[0].mail(smtpc.MESSAGE)
    tools.poll(lambda: len(box.delivered()) == old + 1, "the message at the next hop", timeout=image.PATIENCE)
    for s in sessions:
        s.cmd("NOOP", 250)
    assert not re.search("out of memory|oom", g.sh("dmesg"), re.I)
    assert not re.search("ev=(limit|crash)", g.sh("logread"))
    with socket.create_connection(("127.0.0.1", g.port[587]), image.PATIENCE) as s:
        assert s.recv(100).startswith(b"421")
    assert 'reason="sessions-total"' in g.sh("logread | grep ev=limit")
    for s in sessions:
        s.close()


def test_restart_of_services(box):
    """Services end and begin again, and the server after them."""
    g = box.guest
    for s in "S50syslog S55ntp".split():
        g.sh("/etc/init.d/%s stop; /etc/init.d/%s start" % (s, s))
    g.sh(START + " restart")
    running(g)
    ps = g.sh("ps")
    for name in ("syslogd", "klogd", "ntpd", "watchdog -T 60"):
        assert ps.count(" %s" % name) == 1, ps


def test_watchdog(box):
    """A box on which nothing runs any more starts again: here after two seconds instead of sixty."""
    g = box.guest
    g.sh("sync; killall -9 watchdog; watchdog -T 2 -t 1000 /dev/watchdog")
    try:
        g.process.wait(image.PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError("the watchdog does not bite") from None
    g.kill()
    g.start()
    running(g)
    assert "watchdog -T 60" in g.sh("ps")
