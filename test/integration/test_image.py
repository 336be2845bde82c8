# SPDX-License-Identifier: MIT
"""
The images of `make image', booted in QEMU, each at the smallest memory its kernel starts in: a new disk, set up over the serial line,
logins from FreeRADIUS on this machine, mail to a next hop on it, the plug pulled under load, and disks that are not as they should be.
"""

import os
import re
import ssl
import subprocess
import threading

import pytest

import image
import radius
import remote
import smtpc
import tools

pytestmark = pytest.mark.release  # of a cross compiler's making, so once is enough

BOARDS = ["malta", "aarch64"]
START = "/etc/init.d/S60mailstile"
IDLE = 40  # sessions of one address: SESSIONS_PER_ADDR of config.h


class Box:
    """A guest that is set up, its next hop and its FreeRADIUS. `kernel`: as for image.build(). `words`: for image.Guest()."""

    def __init__(self, board, work, raddb, kernel=None, **words):
        self.dir = os.path.join(work, "image-%s-%s" % (board, kernel))
        os.mkdir(self.dir)
        self.radius, self.peer = raddb, remote.Peer()
        self.guest = image.Guest(board, image.build(board, kernel), os.path.join(self.dir, "disk"), self.dir, **words)

    def session(self, login="alice", port=None):
        c = ssl.create_default_context()
        c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
        s = smtpc.Client(("127.0.0.1", port or self.guest.port[465]), None, "implicit", c, hello=False)
        s.sock.settimeout(image.PATIENCE)
        s.greeting = s.reply()
        s.ehlo()
        if login:
            s.auth_plain(login, radius.PASSWORD[login])
        return s

    def delivered(self):
        return [m for t in list(self.peer.talks) for m in list(t.messages)]

    def fingerprint(self):
        pem = self.guest.sh("cat /var/qmail/control/servercert.pem")
        assert "BEGIN CERTIFICATE" in pem
        return pem

    def set_up(self):
        g = self.guest
        g.write("/var/qmail/control/me", "mail.example.net\\n")
        g.write("/var/qmail/control/radius.conf", "%s:%d %s\\n" % (image.HOST, self.radius.port, radius.SECRET), 0o600)
        g.write("/var/qmail/control/smtproutes", ":%s:%d\\n" % (image.HOST, self.peer.port))
        g.sh("mailstile check")
        g.sh(START + " restart")

    def stop(self):
        self.guest.kill()
        self.peer.stop()


@pytest.fixture(scope="module", params=BOARDS)
def box(request, work, freeradius):
    b = Box(request.param, work, freeradius)
    b.guest.start()
    yield b
    b.stop()


def running(guest):
    tools.poll(lambda: "runs, pid" in guest.sh(START + " status", check=False), "the server in the guest", timeout=image.PATIENCE, every=0.5)


def memory(guest):
    """KiB that programs could still get."""
    return int(re.search(r"MemAvailable: *(\d+)", guest.sh("cat /proc/meminfo")).group(1))


def test_first_boot(box):
    """A new disk gets a home and a certificate, nothing is wrong, and the system itself is read-only."""
    g = box.guest
    running(g)
    assert g.sh("cat /run/trouble 2> /dev/null; true") == ""
    assert re.search(r"^/dev/vda /data ext4 rw,", g.sh("cat /proc/mounts"), re.M)
    assert "Read-only" in g.sh("touch /etc/x", check=False)
    box.fingerprint()
    ps = g.sh("ps")
    assert "watchdog -T 60" in ps and "syslogd" in ps and "klogd" in ps
    assert "ev=start" in g.sh("logread")
    # Nobody can log in yet: said, and no reason not to start.
    assert "radius.conf" in g.sh("mailstile check", check=False)
    with box.session(login=None) as s:
        assert s.cmd("MAIL FROM:<a@client.example>").code == 530


def test_first_questions(box):
    """The serial line of a new box asks, shows that its name is a placeholder, and makes a certificate for a better one. The plug is pulled behind that."""
    g = box.guest
    g.kill()
    question = rb"Return leaves it\)\r\n> $"
    shown = g.start("", question).decode("utf-8", "replace")
    for _ in range(3):  # the clock, the address
        if "Full name" not in shown:
            shown = g.type("\r", question)
    assert "Full name" in shown and "(now mailstile.localdomain, a placeholder; " in shown
    g.type("mail.box.example\r", r"Make one for this name.*> $")
    assert "mail.box.example" in g.type("\r", r"RADIUS servers")
    g.kill()
    g.start()
    assert g.sh("cat /var/qmail/control/me") == "mail.box.example\n"
    assert "DNS:mail.box.example" in tools.run("openssl", "x509", "-noout", "-ext", "subjectAltName", input=box.fingerprint().encode()).text


def test_mail(box):
    """Set up on the serial line; then a customer logs in, and the message reaches the next hop as it was."""
    running(box.guest)
    box.set_up()
    running(box.guest)
    with box.session() as s:
        s.mail(smtpc.MESSAGE)
        s.quit()
    tools.poll(lambda: len(box.delivered()) == 1, "the message at the next hop", timeout=image.PATIENCE)
    assert box.delivered()[0].endswith(smtpc.stored(smtpc.MESSAGE))
    assert b"mail.example.net" in box.delivered()[0]
    with box.session(login=None) as s:
        s.auth_plain("alice", "wrong", 535)


def test_idle_memory(box):
    """Idle sessions under TLS leave memory for others, and the box goes on."""
    before = memory(box.guest)
    sessions = [box.session() for _ in range(IDLE)]
    after = memory(box.guest)
    per = (before - after) / IDLE
    print("\n%s: %d KiB available, %d with %d idle sessions, %.0f KiB each; prompt after %.1f s" % (
        box.guest.board, before, after, IDLE, per, box.guest.boot_seconds))
    assert per < 400
    for s in sessions:
        s.cmd("NOOP", 250)
        s.close()


def test_reload_keeps_what_works(box):
    """A file with an error is not loaded, and what was there goes on to work."""
    g = box.guest
    g.write("/var/qmail/control/listen", "nonsense 465\\n")
    out = g.sh(START + " reload; echo status $?", check=False)
    assert "control/listen:1: error" in out and "status 1" in out
    with box.session() as s:
        s.quit()
    g.sh("rm /var/qmail/control/listen && %s reload" % START)


def test_power_cut(box):
    """The plug is pulled while four clients send and the next hop is away: what got its 250 is delivered after the next boot."""
    g = box.guest
    before = box.fingerprint()
    port, old = box.peer.port, len(box.delivered())
    assert old == 1
    box.peer.stop()
    taken, lock, enough, go = [], threading.Lock(), threading.Event(), threading.Event()

    def client(n):
        try:
            with box.session() as s:
                for i in range(1000):
                    name = b"Subject: %d-%d." % (n, i)
                    s.mail(smtpc.MESSAGE.replace(b"Subject: a test", name))
                    with lock:
                        taken.append(name)
                        if len(taken) >= 60:
                            enough.set()
        except (OSError, smtpc.Closed):
            pass
        assert go.is_set() or g.process is None, "a client gave up before the cut"

    clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for c in clients:
        c.start()
    assert enough.wait(image.PATIENCE)
    go.set()
    g.process.kill()
    for c in clients:
        c.join(image.PATIENCE)
    g.kill()
    box.peer = remote.Peer(port=port)
    g.start()
    running(g)
    assert g.sh("cat /run/trouble 2> /dev/null; true") == ""
    assert box.fingerprint() == before
    g.sh("mailstile check")
    # Status 1: the messages that were being written are nobody's.
    g.sh("mailstile queue flush all", check=False)

    def missing():
        have = b"".join(box.delivered())
        return [name for name in taken if name not in have]
    tools.poll(lambda: not missing(), "%d messages at the next hop" % len(taken), timeout=image.PATIENCE, every=0.5)
    tools.poll(lambda: g.sh("mailstile queue list").count("@") == 0, "an empty queue", timeout=image.PATIENCE, every=0.5)
    with box.session() as s:
        s.mail(smtpc.MESSAGE)


def test_reboot_is_clean(box):
    """On the way down the server ends and the disk is unmounted: nothing is left to mend."""
    box.guest.serial.sendall(b"reboot\n")
    try:
        box.guest.process.wait(image.PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError("the guest does not come down: %r" % box.guest.serial.recv(65536)) from None
    box.guest.kill()
    state = tools.run("/usr/sbin/dumpe2fs", "-h", box.guest.disk).text
    assert "needs_recovery" not in state and re.search(r"Filesystem state: *clean", state)
    tools.run("/usr/sbin/e2fsck", "-f", "-n", box.guest.disk)


def test_static_network(box):
    """An address from a file on /data instead of DHCP's."""
    g = box.guest
    g.kill()
    g.start()
    g.write("/data/etc/network", "MODE=static\\nADDRESS=10.0.2.15/24\\nGATEWAY=10.0.2.2\\nDNS=\"10.0.2.3 10.0.2.4\"\\nHOSTNAME=box.example.net\\n")
    g.sh("sync")
    g.kill()
    g.start()
    assert "udhcpc" not in g.sh("ps")
    assert g.sh("hostname") == "box.example.net\n"
    assert "inet 10.0.2.15/24" in g.sh("ip addr show dev eth0")
    assert g.sh("cat /etc/resolv.conf") == "nameserver 10.0.2.3\nnameserver 10.0.2.4\n"
    running(g)
    with box.session() as s:
        s.quit()


def test_serial_line(box):
    """Without a word for a shell, the set-up by questions if the program has it. What is wrong is said first."""
    g = box.guest
    g.sh("echo nonsense= > /data/etc/network; echo MODE=else >> /data/etc/network; sync")
    g.kill()
    console = "console" in tools.run(tools.BINARY, "help", check=False).text
    shown = g.start("", rb"0 end\r\n> $" if console else rb"# $").decode("utf-8", "replace")
    assert "!! network: MODE in /data/etc/network is neither dhcp nor static" in shown
    assert shown.index("!! network") > shown.index("mailstile 0.")
    g.kill()
    g.start()
    g.sh("rm /data/etc/network; sync")


def test_damaged_disk(box):
    """A disk that cannot be written safely can still be read: its files are there to copy, and nothing is added."""
    g = box.guest
    g.kill()
    block = re.search(r"\(0(?:-\d+)?\):(\d+)", tools.run("/usr/sbin/debugfs", "-R", "stat <8>", g.disk).text).group(1)
    size = re.search(r"Block size: *(\d+)", tools.run("/usr/sbin/dumpe2fs", "-h", g.disk).text).group(1)
    with open(g.disk, "r+b") as f:
        f.seek(int(block) * int(size))
        f.write(bytes(4096))
    g.start()
    assert "damaged and mounted read-only" in g.sh("cat /run/trouble")
    assert "mail.example.net" in g.sh("cat /var/qmail/control/me")
    assert "Read-only" in g.sh("touch /data/x", check=False)
    assert "not started" in g.sh(START + " start", check=False)


def test_no_disk(box):
    """A disk that is none does not keep the box from booting: it says so, and takes no mail that it would lose."""
    g = box.guest
    g.kill()
    with open(g.disk, "r+b") as f:
        f.write(bytes(1 << 20))
    g.start()
    assert "no ext4 on /dev/vda" in g.sh("cat /run/trouble")
    assert re.search(r"^data /data tmpfs", g.sh("cat /proc/mounts"), re.M)
    out = g.sh(START + " start", check=False)
    assert "not started" in out
    assert "does not run" in g.sh(START + " status", check=False)


def test_same_octets(scratch):
    """The same input makes the same initramfs, so that others can check what they were given."""
    made = image.build("malta")
    binary = os.path.join(tools.TREE, "build/malta/mailstile")
    out = []
    for name in "ab":
        directory = os.path.join(scratch, name)
        os.mkdir(directory)
        for k in os.listdir(made):
            if k.startswith("linux-image-"):  # unpacked already
                os.symlink(os.path.join(made, k), os.path.join(directory, k))
        tools.run(os.path.join(tools.TREE, "board/image.sh"), "malta", binary, directory, env=dict(os.environ, SOURCE_DATE_EPOCH="1700000000"))
        out.append(tools.read(os.path.join(directory, "initrd.gz")))
    assert out[0] == out[1]


def test_package_of_somebody_else(scratch):
    """A package in the cache that has another SHA-256 is not used."""
    name = "busybox-static_1.35.0-4+deb12u1+b1_mipsel.deb"
    tools.write(os.path.join(scratch, name), b"!<arch>\n")
    fetch = os.path.join(tools.TREE, "board/fetch-deb.sh")
    programs = os.path.join(scratch, "bin")
    os.mkdir(programs)
    for p in "sh dirname awk sha256sum cut mkdir mktemp rm test".split():  # neither apt nor curl
        os.symlink(tools.run("sh", "-c", "command -v " + p).text.strip() if p != "test" else "/usr/bin/test", os.path.join(programs, p))
    p = tools.run("/bin/sh", fetch, name, check=False, env={"PATH": programs, "DEPS_CACHE": scratch})
    assert p.returncode == 1 and "differs from board/SHA256SUMS; not used" in p.text, p.text
    assert "cannot get" in p.text
