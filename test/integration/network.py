# SPDX-License-Identifier: MIT
"""
A network that a test owns: two namespaces and a cable between them, which is a thread of ours and can be long, lossy, and cut. `near` is the
relay's, `far` is the world. Not every kernel has netem.
"""

import contextlib
import ctypes
import fcntl
import heapq
import ipaddress
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time

import tools

CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000
NEAR4, NEAR6 = "10.77.0.1", "fd77::1"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """`with` it, whatever the thread opens or starts is in there; sockets and processes stay there."""

    def __init__(self):
        with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as p:
            path, own = "/proc/%d/ns/net" % p.pid, os.readlink("/proc/self/ns/net")
            tools.poll(lambda: os.readlink(path) != own, "a namespace")
            self.fd = os.open(path, os.O_RDONLY)
        self.local = threading.local()
        with self:
            tools.run("ip", "link", "set", "lo", "up")

    def __enter__(self):
        self.local.stack = getattr(self.local, "stack", [])
        self.local.stack.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        assert _libc.setns(self.fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        return self

    def __exit__(self, *_):
        fd = self.local.stack.pop()
        assert _libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(fd)


class Network:
    """
    `hosts`: addresses of the world. Of what goes to or comes from one, `loss` ({address: probability}) is lost and the rest comes late by
    `delay` ({address: (seconds, jitter)}) in each direction; what is `dark` is lost without a word.
    """

    def __init__(self, hosts):
        self.loss, self.delay, self.dark = {}, {}, set()
        self.carried, self.dropped = 0, 0
        self.near, self.far = Namespace(), Namespace()
        self.ends = [self._tun(self.near), self._tun(self.far)]
        with self.far:
            for a in hosts:
                tools.run("ip", "address", "add", a, "dev", "lo", *(["nodad"] if ":" in a else []))
        for ns, add in ((self.near, [NEAR4, NEAR6]), (self.far, [])):
            with ns:
                for a in add:
                    tools.run("ip", "address", "add", a, "dev", "wire", *(["nodad"] if ":" in a else []))
                tools.run("ip", "link", "set", "wire", "up", "mtu", "1400")
                tools.run("ip", "route", "add", "default", "dev", "wire")
                tools.run("ip", "-6", "route", "add", "default", "dev", "wire")
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @staticmethod
    def _tun(ns):
        if not os.path.exists("/dev/net/tun"):
            os.makedirs("/dev/net", exist_ok=True)
            os.mknod("/dev/net/tun", 0o20600, os.makedev(10, 200))
        with ns:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        return fd

    def _fate(self, packet, way):
        """When it arrives, or None. `way` 0: from near to far."""
        if packet[0] >> 4 == 4:
            host = packet[16:20] if way == 0 else packet[12:16]
        else:
            host = packet[24:40] if way == 0 else packet[8:24]
        host = str(ipaddress.ip_address(host))
        if host in self.dark or random.random() < self.loss.get(host, 0):
            self.dropped += 1
            return None
        seconds, jitter = self.delay.get(host, (0, 0))
        return time.monotonic() + seconds + random.uniform(-jitter, jitter)

    def _run(self):
        under_way, order = [], itertools.count()
        while not self.stopping:
            left = under_way[0][0] - time.monotonic() if under_way else 0.2
            for fd in select.select(self.ends, [], [], max(0, min(left, 0.2)))[0]:
                way = self.ends.index(fd)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packet = os.read(fd, 65536)
                        at = self._fate(packet, way)
                        if at is not None:
                            heapq.heappush(under_way, (at, next(order), self.ends[1 - way], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, fd, packet = heapq.heappop(under_way)
                self.carried += 1
                with contextlib.suppress(OSError):  # full, which happens to real ones, too
                    os.write(fd, packet)

    def close(self):
        self.stopping = True
        self.thread.join(10)
        for fd in (*self.ends, self.near.fd, self.far.fd):
            os.close(fd)
