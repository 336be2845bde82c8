# SPDX-License-Identifier: MIT
"""A board's image in QEMU: a serial line, a disk that stays, and ports of 127.0.0.1 that lead into it. The guest sees us at 10.0.2.2."""

import os
import re
import select
import socket
import subprocess
import time

import tools

HOST = "10.0.2.2"
PATIENCE = 90  # seconds for a step of an emulated machine on a busy one


def build(board, kernel=None):
    """The image's directory: `make image' makes it, of what is there already if nothing has changed. `kernel': "own" or Debian's."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CPPFLAGS")}
    tools.run("make", "-s", "-C", tools.TREE, "BOARD=" + board, "image", *(["KERNEL=" + kernel] if kernel else []), timeout=3600, env=env)
    return os.path.join(tools.TREE, "build", board, "image-own" if kernel == "own" else "image")


def made(board):
    """Whether the board's own kernel has been compiled, which takes minutes; `make test-boards' does it in any case."""
    cross = re.search(r"^CROSS := (.*)$", tools.read(os.path.join(tools.TREE, "board", board, "board.mk")).decode(), re.M).group(1)
    return bool(os.environ.get("MAILSTILE_KERNELS")) or tools.run(os.path.join(tools.TREE, "board/kernel.sh"), board, check=False,
                                                                  env=dict(os.environ, CROSS=cross)).returncode == 0


class Guest:
    """`memory`: MiB, if not the board's own. `forward`: ports of the guest, led to from self.port[]. `extra`: words for QEMU."""

    def __init__(self, board, directory, disk, work, memory=None, forward=(587, 465), extra=()):
        self.board, self.directory, self.disk, self.memory, self.extra = board, directory, disk, memory, list(extra)
        self.path = os.path.join(work, "serial")
        self.port = {p: tools.free_port() for p in forward}
        self.process = self.serial = None
        self.said = b""
        self.boot_seconds = None

    def start(self, words="shell", prompt=rb"[#$] $"):
        """Boot; `words` for the kernel's command line. Returns what the serial line showed before the prompt; sh() needs "shell"."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        extra = self.extra + (["-m", str(self.memory)] if self.memory else [])
        env = dict(os.environ, SERIAL="unix:%s,server=on,wait=on" % self.path, WORDS=words,
                   FORWARD=",".join("hostfwd=tcp:127.0.0.1:%d-:%d" % (ours, theirs) for theirs, ours in self.port.items()))
        begin = time.monotonic()
        self.errors = open(self.path + ".errors", "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen([os.path.join(tools.TREE, "board/boot.sh"), self.directory, self.disk, *extra], env=env,
                                        stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors)
        self.serial = socket.socket(socket.AF_UNIX)
        self.said = b""
        tools.poll(self._connect, "QEMU's serial line", timeout=PATIENCE)
        shown = self._until(prompt)
        self.boot_seconds = time.monotonic() - begin
        if words != "shell":
            return shown
        # The echo of these lines must not look like the prompt.
        self.serial.sendall(b"stty -echo cols 200; PS1='R''DY> '\n")
        self._until(rb"RDY> $")
        return shown

    def _connect(self):
        assert self.process.poll() is None, tools.read(self.path + ".errors")
        try:
            self.serial.connect(self.path)
        except OSError:
            return False
        return True

    def _until(self, pattern, timeout=PATIENCE):
        """What was said up to the pattern."""
        end = time.monotonic() + timeout
        while True:
            # BusyBox's shell asks where the cursor is.
            text = self.said.replace(b"\x1b[6n", b"")
            m = re.search(pattern, text, re.S)
            if m:
                self.said = text[m.end():]
                return text[:m.start()]
            ready = select.select([self.serial], [], [], max(0.0, end - time.monotonic()))[0]
            data = self.serial.recv(65536) if ready else b""
            assert data, "the guest did not say %r, but %s" % (pattern, text[-4000:].decode("utf-8", "replace"))
            self.said += data

    def type(self, text, pattern):
        """Send this as it is; what the guest says up to the pattern."""
        self.serial.sendall(text.encode())
        return self._until(pattern if isinstance(pattern, bytes) else pattern.encode()).decode("utf-8", "replace")

    def sh(self, command, check=True, timeout=PATIENCE):
        """Run a command in the guest's shell; returns what it prints. `check`: its status has to be 0."""
        self.serial.sendall(command.encode() + b'; echo "<$?>"\n')
        out = self._until(rb"RDY> $", timeout).replace(b"\r", b"").decode("utf-8", "replace")
        text, status = re.fullmatch(r"(.*)<(\d+)>\n", out, re.S).groups()
        assert not check or status == "0", "%s: status %s: %s" % (command, status, text)
        return text

    def write(self, path, text, mode=0o644):
        """Write a file."""
        assert "'" not in text
        self.sh("umask 077; printf '%s' > %s && chmod %o %s" % (text, path, mode, path))

    def kill(self):
        """As when the plug is pulled."""
        if self.process:
            self.process.kill()
            self.process.wait(30)
            self.serial.close()
            self.errors.close()
            self.process = None
