# SPDX-License-Identifier: MIT
"""What is measured of a server: rate and CPU under load, system calls and disk flushes, memory, handshakes, size."""
import base64
import collections
import os
import pathlib
import signal
import smtplib
import socket
import ssl
import subprocess
import time

from servers import DOMAIN, LOGIN, wait_for

LOAD = os.environ.get("LOAD", "")
FLUSHES = {"fsync", "fdatasync", "sync", "syncfs", "msync"}
RCPT = "b@" + DOMAIN
Loaded = collections.namedtuple("Loaded", "rate cpu count resumed lost")


def load(server, sessions, per, octets=4096, count=100000, seconds=0.0, port=None, words=()):
    """
    Run the load generator; messages (with `per` 0: connections) a second, and the server's CPU microseconds for each. All of them must
    be in the queue afterwards, which is then emptied.
    """
    argv = [LOAD, *server.load_words, *words, "-d", str(seconds), str(port or server.smtp), str(sessions), str(count), str(per), str(octets), RCPT]
    before = server.settle()
    p = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    cpu = server.settle() - before
    if p.returncode != 0:
        raise SystemExit(f"bench: {server.name}: {' '.join(argv)}:\n{p.stderr[-2000:]}")
    messages, connections, resumed, lost, took = p.stdout.split()
    n = int(messages if per else connections)
    if per and server.count() != n:
        raise SystemExit(f"bench: {server.name} said 250 to {n} messages, {server.count():g} are in its queue")
    server.drain()
    server.root.flush()
    server.lost += int(lost)
    return Loaded(n / float(took), cpu / n * 1e6, n, int(resumed), int(lost))


def answer_to_wrong_password(server):
    """The reply's code."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP_SSL("127.0.0.1", server.smtps, context=context, timeout=30) as c:
        c.ehlo("bench.example")
        return c.docmd("AUTH PLAIN " + base64.b64encode(("\0%s\0%ser" % LOGIN).encode()).decode())[0]


def smtp_source(server, sessions, count):
    """Messages a second by Postfix's load generator, of the same kind and size."""
    begin = time.monotonic()
    server.root.run(["/usr/sbin/smtp-source", "-s", str(sessions), "-m", str(count), "-l", "4096", "-f", "a@" + DOMAIN, "-t", RCPT,
                     f"127.0.0.1:{server.smtp}"])
    took = time.monotonic() - begin
    server.settle()
    if server.count() != count:
        raise SystemExit(f"bench: smtp-source sent {count} messages, {server.name} has {server.count():g}")
    server.drain()
    server.root.flush()
    return count / took


def traced(server, sessions, per, count):
    """System calls and flushes for a message, by strace: {name: calls for a message}."""
    out = server.root.path / "tmp/strace"
    out.unlink(missing_ok=True)
    pids = [word for pid in server.cgroup.pids() for word in ("-p", str(pid))]
    with subprocess.Popen(["strace", "-f", "-q", "-c", "-U", "name,calls", "-o", out, *pids], stderr=subprocess.PIPE) as p:
        try:
            wait_for(lambda: all(is_traced(pid) for pid in server.cgroup.pids()), "strace")
            done = load(server, sessions, per, count=count)
        finally:
            p.send_signal(signal.SIGINT)
            p.communicate(timeout=60)
    calls = {}
    for line in out.read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit() and words[0] != "total":
            calls[words[0]] = int(words[1]) / done.count
    return calls


def is_traced(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    return "\nTracerPid:\t0\n" not in status


def flushes(calls):
    return sum(n for name, n in calls.items() if name in FLUSHES)


# ---- The file system ---------------------------------------------------------------------------------------------------

def file_system(directory):
    """What to say about it, and whether one flush makes everything durable that came before (see the head of queue.c)."""
    kind, options, device = (subprocess.run(["findmnt", "-n", "-o", what, "-T", str(directory)], capture_output=True, text=True,
                                            check=False).stdout.strip() for what in ("FSTYPE", "OPTIONS", "SOURCE"))
    ordered = kind == "xfs"
    if kind == "ext4":
        ordered = pathlib.Path(f"/proc/fs/jbd2/{os.path.basename(device)}-8").exists()
        kind += " with a journal" if ordered else " **without** a journal"
    return f"{kind} ({options})" + (", in a file of its own (`BENCH_IMAGE`)" if "/loop" in device else ""), ordered


def refused(port):
    """Nobody listens there."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def used_by_others(seconds=2.0):
    """Percent of all CPUs, while nothing of ours has work."""
    def times():
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    before = times()
    time.sleep(seconds)
    after = times()
    return 100 * (1 - (after[1] - before[1]) / (after[0] - before[0]))


# ---- Memory ------------------------------------------------------------------------------------------------------------

def uss(server):
    """KiB that would be free if the server were not there."""
    total = 0
    for pid in server.cgroup.pids():
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1])
    return total


def kernel_memory():
    """KiB of the kernel for processes, their tables and sockets, of the whole machine."""
    wanted = ("Slab", "KernelStack", "PageTables", "Percpu")
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    total = sum(int(line.split()[1]) for line in lines if line.split(":")[0] in wanted)
    for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines():
        words = line.split()
        if "mem" in words:
            total += int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGESIZE") // 1024
    return total


def idle(server, count, tls):
    """KiB for each of `count` idle sessions: user, kernel. They come from 16 addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    user, kernel = uss(server), kernel_memory()
    clients = []
    for i in range(count):
        c = socket.create_connection(("127.0.0.1", server.smtps if tls else server.smtp), 20, (f"127.0.2.{i % 16 + 1}", 0))
        clients.append(context.wrap_socket(c) if tls else c)
        if not clients[-1].recv(512).startswith(b"220"):
            raise SystemExit(f"bench: {server.name} does not greet session {i}")
    server.settle()
    # First the kernel's: a look at many processes makes it keep things about them.
    kernel = (kernel_memory() - kernel) / count
    out = (uss(server) - user) / count, kernel
    for c in clients:
        c.close()
    server.settle()
    return out


# ---- Size --------------------------------------------------------------------------------------------------------------

def program_files(server):
    """{path in the root: octets} of executables and libraries that the server's processes have mapped."""
    found = {}
    for pid in server.cgroup.pids():
        try:
            maps = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        mapped = {}
        for line in maps:
            words = line.split(None, 5)
            if len(words) == 6 and words[5].startswith("/"):
                mapped[words[5]] = mapped.get(words[5], False) or "x" in words[1]
        for path, executable in mapped.items():
            real = pathlib.Path(path)
            if executable and real.is_relative_to(server.root.path) and real.exists():
                found[str(real)] = real.stat().st_size
    return found
