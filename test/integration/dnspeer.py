# SPDX-License-Identifier: MIT
"""Name servers for tests: a real one, unbound, and doubles that say what a test wants; and test/dns/ask.c, which asks them."""

import collections
import contextlib
import os
import select
import socket
import struct
import subprocess
import threading

import tools
from tools import TREE

A, NS, CNAME, SOA, MX, TXT, AAAA = 1, 2, 5, 6, 15, 16, 28

Answer = collections.namedtuple("Answer", "status ms values")


def build(sanitize=False):
    """The path of dns-ask, made in the tree."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
    tools.run("make", "-s", "dns-ask", *(["SANITIZE=1"] if sanitize else []), cwd=TREE, env=env, timeout=300)
    return os.path.join(TREE, "build/host-san/dns-ask" if sanitize else "build/host/dns-ask")


class Asker:
    """The program with its files. `servers` are addresses."""

    def __init__(self, binary, work, port, servers, options="timeout:1 attempts:1", hosts="", extra=""):
        self.dir = os.path.join(work, "dns-%d-%s" % (port, "-".join(servers).replace(":", "_")))
        os.makedirs(os.path.join(self.dir, "empty"), exist_ok=True)
        resolv = "".join("nameserver %s\n" % s for s in servers) + "options %s\n%s" % (options, extra)
        self.words = [binary, "-r", tools.write(os.path.join(self.dir, "resolv.conf"), resolv),
                      "-h", tools.write(os.path.join(self.dir, "hosts"), hosts), "-p", str(port)]
        if os.getuid() == 0:
            self.words += ["-c", os.path.join(self.dir, "empty")]

    def __call__(self, kind, *names, words=()):
        """An Answer, or a list of them when there are several names."""
        # Leaks are looked for through /proc, which is not where it goes.
        p = tools.run(*self.words, *words, kind, *names, env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
        out = []
        for line in p.text.splitlines():
            status, ms, values = line.split(" ", 2)
            out.append(Answer(status, int(ms), values.split(",") if values else []))
        assert len(out) == len(names), p.text
        return out if len(names) > 1 else out[0]


class Unbound:
    """A real resolver for the zones in `zones` ({name: text}); one whose text is None it knows nothing of. `allow`: who else may ask."""

    def __init__(self, work, address, port, zones, allow="127.0.0.0/8"):
        self.dir = os.path.join(work, "unbound-%s-%d" % (address, port))
        os.makedirs(self.dir)
        conf = """server:
 interface: %s
 port: %d
 username: ""
 chroot: ""
 directory: "%s"
 pidfile: ""
 use-syslog: no
 logfile: ""
 do-daemonize: no
 module-config: "iterator"
 access-control: %s allow
 do-not-query-localhost: no
 num-threads: 1
 local-zone: "test." nodefault
remote-control:
 control-enable: no
""" % (address, port, self.dir, allow)
        for name, text in zones.items():
            source = "master: 127.0.0.1@1" if text is None else 'zonefile: "%s"' % tools.write(os.path.join(self.dir, name), text)
            conf += 'auth-zone:\n name: "%s"\n %s\n for-upstream: yes\n for-downstream: no\n fallback-enabled: no\n' % (name, source)
        self.log = os.path.join(self.dir, "log")
        path = tools.write(os.path.join(self.dir, "conf"), conf)
        binary = next(p for p in ("/usr/sbin/unbound", "/usr/local/sbin/unbound") if os.path.exists(p))
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([binary, "-d", "-c", path], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        tools.poll(lambda: self._answers(address, port), "unbound")

    def _answers(self, address, port):
        assert self.process.poll() is None, tools.read(self.log).decode("utf-8", "replace")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(1)
            s.connect((address, port))
            with contextlib.suppress(OSError):
                s.send(query("localhost", A))
                return len(s.recv(512)) >= 12
        return False

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


# ---- Packets ---------------------------------------------------------------------------------------------------------

def wire(name):
    return b"".join(bytes([len(p)]) + p.encode("latin-1") for p in name.split(".") if p) + b"\0"


def query(name, kind, ident=0x1234):
    return struct.pack("!6H", ident, 0x100, 1, 0, 0, 0) + wire(name) + struct.pack("!2H", kind, 1)


def record(name, kind, data, cls=1):
    """`name` as text, or as octets."""
    name = name if isinstance(name, bytes) else wire(name)
    return name + struct.pack("!2HIH", kind, cls, 60, len(data)) + data


def mx(preference, host):
    return struct.pack("!H", preference) + (host if isinstance(host, bytes) else wire(host))


def address(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class Request:
    """A question, taken apart, and answers to it."""

    def __init__(self, raw, over):
        self.raw, self.over = raw, over
        self.id, self.flags = struct.unpack("!2H", raw[:4])
        self.question = raw[12:]
        labels, at = [], 12
        while raw[at]:
            labels.append(raw[at + 1:at + 1 + raw[at]].decode("latin-1"))
            at += 1 + raw[at]
        self.name = ".".join(labels)
        self.kind, self.cls = struct.unpack("!2H", raw[at + 1:at + 5])
        assert len(raw) == at + 5

    def reply(self, *records, flags=0x8180, rcode=0, ident=None, question=None, questions=1, count=None):
        head = struct.pack("!6H", self.id if ident is None else ident, flags | rcode, questions, len(records) if count is None else count, 0, 0)
        return head + (self.question if question is None else question) + b"".join(records)


class Double:
    """
    A name server on an address and port: `script(request)` returns what to send, a packet, a list of them, or None. An entry may be
    (socket, packet) to send it from elsewhere; over TCP a packet may be (length, octets), for a wrong frame.
    """

    def __init__(self, host, port, script):
        self.host, self.port, self.script = host, port, script
        self.requests = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((host, port))
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((host, port))
        self.tcp.listen(5)
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # the right address, another port
        self.other.bind((host, 0))
        self.alive = True
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while self.alive:
            ready = select.select([self.udp, self.tcp], [], [], 0.2)[0]
            if self.udp in ready:
                raw, peer = self.udp.recvfrom(4096)
                self._answer_udp(self._script(raw, "udp", peer), peer)
            if self.tcp in ready:
                c, peer = self.tcp.accept()
                with c, contextlib.suppress(OSError):
                    c.settimeout(5)
                    self._serve_tcp(c, peer)

    def _script(self, raw, over, peer):
        r = Request(raw, over)
        r.peer = peer
        self.requests.append(r)
        out = self.script(r)
        return out if isinstance(out, list) else [] if out is None else [out]

    def _answer_udp(self, packets, peer):
        for p in packets:
            sock, p = p if isinstance(p, tuple) else (self.udp, p)
            with contextlib.suppress(OSError):
                sock.sendto(p, peer)

    def _serve_tcp(self, c, peer):
        head = c.recv(2, socket.MSG_WAITALL)
        raw = c.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
        for p in self._script(raw, "tcp", peer):
            length, p = p if isinstance(p, tuple) else (len(p), p)
            c.sendall(struct.pack("!H", length))
            for i in range(0, len(p), 1000):
                c.sendall(p[i:i + 1000])
        if self.script is silent:
            select.select([], [], [], 3)

    def stop(self):
        self.alive = False
        self.thread.join(10)
        for s in (self.udp, self.tcp, self.other):
            s.close()


def silent(_request):
    return None
