# SPDX-License-Identifier: MIT
"""Small things that need no server: ports, polling, certificates, cdb files, envelopes, the process table."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import time

FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures")
TREE = os.path.dirname(os.path.dirname(FIXTURES))
ROOT = os.geteuid() == 0
LONG = bool(os.environ.get("MAILSTILE_LONG"))
BINARY = os.path.abspath(os.environ.get("MAILSTILE") or "mailstile")


VALGRIND = os.environ.get("MAILSTILE_VALGRIND", "") not in ("", "0")


def _sanitized():
    if VALGRIND:
        return True  # without what the release build has to make life hard for an attacker, and slow
    if os.environ.get("MAILSTILE_SANITIZE", "") not in ("", "0"):
        return True
    try:
        with open(BINARY, "rb") as f:
            return b"__asan_init" in f.read()
    except OSError:
        return False


SANITIZE = _sanitized()
# Sanitizers and loaded machines are slow; how long anything may take before a test calls it hung.
PATIENCE = 180.0 if VALGRIND else 60.0 if SANITIZE else 20.0

_used_ports = set()
_addresses = itertools.count(1)


def free_port(kind=socket.SOCK_STREAM):
    """A port nobody uses, never the same one twice; below those that the kernel gives to clients."""
    while True:
        port = random.randrange(12000, 32000)
        if port in _used_ports:
            continue
        _used_ports.add(port)
        try:
            with socket.socket(socket.AF_INET, kind) as s:
                s.bind(("0.0.0.0", port))
            return port
        except OSError:
            continue


def fresh_address(net=1):
    """A client address that no test has used: penalties, limits and log lines of tests stay apart."""
    n = next(_addresses)
    return "127.%d.%d.%d" % (net, n // 250 + 1, n % 250 + 1)


def have_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


def poll(condition, what, timeout=None, every=0.01):
    """Call `condition` until it returns something true, and return that."""
    end = time.monotonic() + (timeout or PATIENCE)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(every)


def steady(look):
    """What look() gives once it gives the same twice: of what moves while it is read, a look may see nothing."""
    before = look()
    for _ in range(100):
        now = look()
        if now == before:
            break
        before = now
    return before


def run(*argv, check=True, timeout=60, **kw):
    """A command with its output as text."""
    kw.setdefault("stdin", subprocess.DEVNULL)
    if "input" in kw:
        del kw["stdin"]
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False, **kw)
    p.text = p.stdout.decode("utf-8", "replace")
    if check and p.returncode != 0:
        raise AssertionError("%s: status %d\n%s" % (" ".join(map(str, argv)), p.returncode, p.text))
    return p


def write(path, content, mode=None):
    data = content.encode() if isinstance(content, str) else content
    with open(path, "wb") as f:
        f.write(data)
    if mode is not None:
        os.chmod(path, mode)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


class Crowd:
    """
    Cases that each mostly wait, such as for the delay of a refused login, run at the same time: {name: function without
    arguments}. crowd[name] is what it returned; what it raised is raised there.
    """

    def __init__(self, cases):
        self.pool = concurrent.futures.ThreadPoolExecutor(16)
        self.futures = {name: self.pool.submit(case) for name, case in cases.items()}

    def __getitem__(self, name):
        return self.futures[name].result(120)


# ---- Certificates ----------------------------------------------------------------------------------------------------

def make_certificate(cert, key, kind="ec", name="mail.example.net"):
    """A self-signed certificate by openssl: kind is ec, ec384, rsa or rsa3072."""
    algorithm = {
        "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "ec384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        "rsa": ["-newkey", "rsa:2048"],
        "rsa3072": ["-newkey", "rsa:3072"],
    }[kind]
    run("openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=" + name,
        "-addext", "subjectAltName=DNS:" + name, *algorithm, "-keyout", key, "-out", cert)
    os.chmod(key, 0o600)


def fingerprint(cert):
    text = run("openssl", "x509", "-in", cert, "-noout", "-fingerprint", "-sha256").text
    return text.strip().split("=", 1)[1].replace(":", "").lower()


# ---- cdb -------------------------------------------------------------------------------------------------------------

def cdb_hash(key):
    h = 5381
    for byte in key:
        h = ((h * 33) & 0xFFFFFFFF) ^ byte
    return h


def cdb_bytes(pairs):
    """A cdb file with these (key, data) pairs, written from the format's description."""
    body, buckets = bytearray(), [[] for _ in range(256)]
    for key, data in pairs:
        h = cdb_hash(key)
        buckets[h & 255].append((h, 2048 + len(body)))
        body += struct.pack("<II", len(key), len(data)) + key + data
    head = bytearray()
    for entries in buckets:
        n = 2 * len(entries)
        slots = [(0, 0)] * n
        for h, pos in entries:
            i = (h >> 8) % n
            while slots[i][1]:
                i = (i + 1) % n
            slots[i] = (h, pos)
        head += struct.pack("<II", 2048 + len(body), n)
        for h, pos in slots:
            body += struct.pack("<II", h, pos)
    return bytes(head + body)


def tcprules(path, rules):
    """Compile tcprules source into `path` with the real tool."""
    run("tcprules", path, path + ".tmp", input=rules.encode())
    os.chmod(path, 0o644)


# ---- The queue -------------------------------------------------------------------------------------------------------

Envelope = collections.namedtuple("Envelope", "uid pid sender rcpts raw")


def parse_envelope(raw):
    """An envelope as qmail-send reads it, but without its leniency (queue format 2.3)."""
    assert raw.endswith(b"\0"), "envelope's last record is not ended: %r" % raw
    records = raw[:-1].split(b"\0")
    letters = b"".join(r[:1] for r in records)
    assert re.fullmatch(rb"upFT+", letters), "records %r" % letters
    assert records[0][1:].isdigit() and records[1][1:].isdigit(), raw
    return Envelope(int(records[0][1:]), int(records[1][1:]), records[2][1:], [r[1:] for r in records[3:]], raw)


class Message:
    """A message in the queue: `head` is the lines that the server put before what the client sent."""

    def __init__(self, qid, path, todo):
        self.id = qid
        self.path, self.todo = path, todo
        self.data = read(path)
        self.envelope = parse_envelope(read(todo))
        self.sender = self.envelope.sender
        self.rcpts = self.envelope.rcpts
        lines = self.data.split(b"\n")
        assert lines[0].startswith(b"Received: (qmail "), lines[0]
        assert lines[1].startswith(b"Received: from "), lines[1]
        assert lines[2].startswith(b"  by "), lines[2]
        self.head = lines[:3]
        self.body = b"\n".join(lines[3:])

    @property
    def received(self):
        """The network Received field on one line."""
        return b" ".join(x.strip() for x in self.head[1:]).decode()


def has_journal(path):
    """As queue.c sees it: whether the file system keeps names and blocks in order, so that one flush is enough."""
    kind = run("stat", "-f", "-c", "%t", path).text.strip()
    dev = os.stat(path).st_dev
    link = "/sys/dev/block/%d:%d" % (os.major(dev), os.minor(dev))
    name = os.path.basename(os.readlink(link)) if os.path.islink(link) else "?"
    options = "/proc/fs/ext4/%s/options" % name
    return kind == "58465342" or (kind == "ef53" and os.path.exists("/proc/fs/jbd2/%s-8" % name) and b"journal_async_commit" not in read(options))


# ---- Processes -------------------------------------------------------------------------------------------------------

Process = collections.namedtuple("Process", "pid ppid session state name")


def processes():
    out = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = read("/proc/%s/stat" % entry).decode("utf-8", "replace")
            except OSError:
                continue
            name = stat[stat.index("(") + 1:stat.rindex(")")]
            field = stat[stat.rindex(")") + 2:].split()
            out.append(Process(int(entry), int(field[1]), int(field[3]), field[0], name))
    return out


def children(pid):
    return [p for p in processes() if p.ppid == pid and p.state != "Z"]


def descriptors(pid):
    """{number: what it is}; without what it closes meanwhile."""
    out = {}
    for n in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            out[int(n)] = os.readlink("/proc/%d/fd/%s" % (pid, n))
    return out


def _stat(pid):
    """The fields of /proc/PID/stat behind the name."""
    return read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()


def wait_stopped(pid):
    poll(lambda: _stat(pid)[0] == b"T", "the stop")


def cpu_seconds(pid, buried=False):
    """What a process has used of the processor; with that of the children that it has buried, if wanted."""
    return sum(map(int, _stat(pid)[11:15 if buried else 13])) / os.sysconf("SC_CLK_TCK")


def status_of(pid):
    """/proc/PID/status as a dict."""
    lines = read("/proc/%d/status" % pid).decode().splitlines()
    return {k: v.strip() for k, v in (line.split(":", 1) for line in lines)}


def rmtree(path):
    def again(function, name, _):
        os.chmod(os.path.dirname(name), 0o700)
        os.chmod(name, 0o700)
        function(name)
    shutil.rmtree(path, onerror=again)
