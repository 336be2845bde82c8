# SPDX-License-Identifier: MIT
"""
The guests: a Debian kernel, BusyBox and mailstile in an initramfs, under QEMU with a virtio disk. `init` beside this file is their first
process. They are emulated unless MAILSTILE_ACCEL=kvm says that this machine can do better: a /dev/kvm that opens may still not boot a
guest, as in clouds that nest.
"""

import glob
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TREE, "test", "integration"))

import harness  # noqa: E402
import tools  # noqa: E402

ACCEL = os.environ.get("MAILSTILE_ACCEL", "tcg")
QEMU = "qemu-system-x86_64"
MODULES = ["virtio_pci", "virtio_blk", "virtio_net"]
# How long a guest may take for a step before it counts as hung. It is emulated, on a machine that has other things to do.
PATIENCE = 120


# ---- Kernel and initramfs ------------------------------------------------------------------------------------------------

class Kernel:
    """Debian's kernel `flavour`, fetched when it is not there."""

    def __init__(self, flavour):
        self.dir = os.path.join(TREE, "build", "src", "linux-" + flavour)
        tools.run(os.path.join(HERE, "kernel.sh"), flavour, self.dir, timeout=600)
        (self.image,) = glob.glob(os.path.join(self.dir, "boot", "vmlinuz-*"))
        self.files = {re.sub(r"\.ko.*", "", os.path.basename(f)).replace("-", "_"): f
                      for f in glob.glob(os.path.join(self.dir, "lib", "modules", "*", "kernel", "**", "*.ko*"), recursive=True)}

    def modules(self, names):
        """Files to load, in order. What is no module is built in; an algorithm's name may stand for its plain implementation."""
        out = []
        for name in names:
            name = name if name in self.files else name + "_generic"
            if name in self.files:
                data = tools.read(self.files[name])
                needs = re.findall(rb"\0depends=([^\0]*)", data) + re.findall(rb"\0softdep=pre: ([^\0]*)", data)
                needs = [n.decode().replace("-", "_") for field in needs for n in re.split(rb"[, ]", field) if n and n != b"pre:"]
                out += [f for f in self.modules([n for n in needs if n != name]) + [self.files[name]] if f not in out]
        return out


def cpio(entries):
    """An archive in cpio's newc form of {path: (mode, content)}; directories come as their paths demand."""
    out = bytearray()

    def add(name, mode, data=b"", device=(0, 0)):
        head = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(b"%08x" % x for x in head) + name.encode() + b"\0")
        out.extend(bytes(-len(out) % 4) + data)
        out.extend(bytes(-len(out) % 4))
    made = set()
    for path, (mode, data) in sorted(entries.items()):
        parts = path.split("/")
        for i in range(1, len(parts)):
            if "/".join(parts[:i]) not in made:
                made.add("/".join(parts[:i]))
                add("/".join(parts[:i]), stat.S_IFDIR | 0o755)
        add(path, stat.S_IFREG | mode, data)
    add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    add("TRAILER!!!", 0)
    return bytes(out)


CONTROL = {"me": "mail.example.net\n", "listen": "inside 0.0.0.0:25\n", "relayclients": "10.0.2.2\n", "rcpthosts": "local.example\n", "relay": "off\n"}


def initramfs(path, kernel, binary, filesystem, spool, hop=None):
    files = kernel.modules(MODULES + [filesystem])
    entries = {"lib/" + os.path.basename(f): (0o644, tools.read(f)) for f in files}
    entries["lib/modules.list"] = (0o644, "".join(os.path.basename(f) + "\n" for f in files).encode())
    entries["bin/busybox"] = (0o755, tools.read("/bin/busybox"))
    entries["bin/mailstile"] = (0o755, tools.read(binary))
    entries["init"] = (0o755, tools.read(os.path.join(HERE, "init")))
    passwd = "root:x:0:0::/root:/bin/sh\n" + "".join(
        "%s:x:%d:%d::/:/bin/false\n" % (n, uid, harness.GROUPS[harness.GROUP_OF.get(n, "nofiles")]) for n, uid in harness.USERS.items())
    group = "root:x:0:\n" + "".join("%s:x:%d:\n" % g for g in harness.GROUPS.items())
    entries["etc/passwd"], entries["etc/group"] = (0o644, passwd.encode()), (0o644, group.encode())
    control = dict(CONTROL, spool={"queue": "queue\n", "maildir": "maildir /mnt/home/out alias-isp-\n",
                                   "plain": "maildir /mnt/home/out\n"}[spool])
    if hop is not None:
        control.update(relay="on\n", smtproutes=":10.0.2.2:%d\n" % hop, locals="box.example\n", localmaildirs="@box.example:/mnt/home/box\n")
    for name, text in control.items():
        entries["etc/control/" + name] = (0o644, text.encode())
    tools.write(path, cpio(entries))


# ---- Running guests ----------------------------------------------------------------------------------------------------------

class Guest:
    """A QEMU whose console is a socket of ours. `words`: appended to the kernel's command line; `disk`, `extra`: QEMU's arguments."""

    def __init__(self, kernel, initrd, words, disk, extra=(), cpus=1):
        ours, theirs = socket.socketpair()
        self.console, self.said, self.seen = ours, b"", 0
        argv = [QEMU, "-M", "pc", "-accel", ACCEL, "-cpu", "host" if ACCEL == "kvm" else "max", "-smp", str(cpus), "-m", "192",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-chardev", "socket,id=tty,fd=%d" % theirs.fileno(), "-serial", "chardev:tty",
                "-kernel", kernel.image, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet no_timer_check " + words,
                *disk, "-device", "virtio-blk-pci,drive=disk", *extra]
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors, pass_fds=[theirs.fileno()])
        theirs.close()

    def _more(self, end):
        ready = select.select([self.console], [], [], max(0.0, end - time.monotonic()))[0]
        try:
            data = self.console.recv(65536) if ready else b""
        except ConnectionError:
            data = b""
        self.said += data
        return bool(data)

    def wait(self, pattern, timeout=PATIENCE):
        """Wait until the console says it, after what it was waited for before; returns the match."""
        end = time.monotonic() + timeout
        while True:
            m = re.compile(pattern.encode()).search(self.said, self.seen)
            if m:
                self.seen = m.end()
                return m
            if not self._more(end):
                raise AssertionError("the guest did not say %r but\n%s" % (pattern, self.tail()))

    def up(self):
        """Has the kernel come to our init? On a busy machine an emulated one now and then does not find its clock, and panics or hangs."""
        try:
            return bool(self.wait("power: up", 60))
        except AssertionError:
            print("a guest did not come up:\n" + self.tail()[-1000:], file=sys.stderr)
            self.cut()
            return False

    def listen(self):
        """Read what there is to read, so that the guest does not wait for us."""
        while select.select([self.console], [], [], 0)[0] and self._more(time.monotonic()):
            pass

    def tail(self):
        self.errors.seek(0)
        return (self.said[-6000:] + self.errors.read()).decode("utf-8", "replace")

    def type(self, line):
        self.console.sendall(line.encode() + b"\n")

    def cut(self):
        """SIGKILL: as far as the guest knows, the power is gone."""
        self.listen()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.console.close()


class Disk:
    """The process that is the guest's disk; see disk.py."""

    def __init__(self, work, image, flush_ms):
        self.base = image
        self.socket, self.file, self.logfile = (os.path.join(work, n) for n in ("disk.sock", "disk.img", "disk.log"))
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        image.save(self.file)
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "disk.py"), self.socket, self.file, self.logfile, str(flush_ms)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def argv(self):
        return ["-blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path=" + self.socket]

    def end(self):
        """The guest is gone."""
        assert self.process.wait(60) == 0, "the disk's process failed"
        self.process.stdout.close()
        os.unlink(self.file)


class Server(Guest):
    """A guest that serves mail at ("127.0.0.1", self.port)."""

    def __init__(self, kernel, initrd, disk, filesystem, options, spool, cpus=1):
        self.port = tools.free_port()
        super().__init__(kernel, initrd, "power=serve fs=%s options=%s spool=%s" % (filesystem, options, spool), disk.argv(),
                         ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:%d-:25" % self.port, "-device", "virtio-net-pci,netdev=net,romfile="], cpus)

    def flushes(self):
        """How often this guest has flushed its disk's cache so far."""
        self.type("stat")
        return int(self.wait(r"power: flushes (\d+)\.").group(1))

    def left(self):
        """How many messages are in the queue."""
        self.type("left")
        return int(self.wait(r"power: left (\d+)\.").group(1))

    def shut_down(self):
        self.type("off")
        self.wait("power: unmounted 0")
        self.process.wait(PATIENCE)
        self.console.close()


class Judge(Guest):
    """A guest that shows what is on a disk: the file `image`, which may change between two looks."""

    def __init__(self, kernel, initrd, image):
        self.image = image
        disk = ["-blockdev", "driver=file,node-name=file,filename=%s,cache.direct=off,cache.no-flush=on" % image,
                "-blockdev", "driver=raw,node-name=disk,file=file"]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.ready = False
        super().__init__(kernel, initrd, "power=judge", disk, ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="])

    def _take(self):
        out = b""
        with self.listener.accept()[0] as sock:
            sock.settimeout(PATIENCE)
            while True:
                data = sock.recv(1 << 20)
                if not data:
                    return out
                out += data

    def look(self, filesystem, options, directory):
        """Mount, report, unmount. Returns (listing, archive) or None when it cannot be mounted, and what the kernel said."""
        if not self.ready:
            self.wait("power: ready")
            self.ready = True
        self.type("%d %s %s %s" % (self.listener.getsockname()[1], filesystem, options, directory))
        report = self._take()
        said = self._take().decode("utf-8", "replace")
        self.listen()
        state, _, rest = report.partition(b"\n")
        listing, _, archive = rest.partition(b"TAR\n")
        return ((listing.decode(), archive) if state == b"mounted" else None), said

    def end(self):
        self.listener.close()
        if self.process.poll() is None:
            self.cut()
