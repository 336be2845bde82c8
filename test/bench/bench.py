#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""make bench: speed, memory, size and CPU per message of one mailstile on loopback, as a Markdown table.

Every figure is the median of interleaved rounds; loads are bounded by a count. MAILSTILE names the binary, LOAD the load
generator, BENCH_ROUNDS the rounds (default 5). An ordinary user gets no memory rows: mailstile does not let its own user
look into it.
"""
import os
import pathlib
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MAILSTILE = os.path.abspath(os.environ.get("MAILSTILE", "./mailstile"))
LOAD = os.path.abspath(os.environ["LOAD"])
# As root, mailstile alone runs as nobody: this machine need not have qmail's users, and only root may look into its memory.
ROOT = os.geteuid() == 0
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if ROOT else []
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, directory):
        self.home = pathlib.Path(directory) / "home"
        (self.home / "control").mkdir(parents=True)
        self.smtp, self.tls = free_port(), free_port()
        self.put("me", "bench.example")
        self.put("rcpthosts", "bench.example")
        self.put("listen", f"smtp 127.0.0.1:{self.smtp}\nsubmissions 127.0.0.1:{self.tls}")
        self.put("radius.conf", "127.0.0.1:9 no-logins-in-this-bench").chmod(0o600)
        if ROOT:
            os.chmod(directory, 0o755)
            subprocess.run(["chown", "-R", "65534:65534", self.home], check=True)
        subprocess.run(AS_NOBODY + [MAILSTILE, "mkqueue", "-H", self.home], check=True, stdout=subprocess.DEVNULL)
        self.log = open(pathlib.Path(directory) / "log", "wb")
        self.process = subprocess.Popen(AS_NOBODY + [MAILSTILE, "serve", "-H", self.home], stderr=self.log)
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.smtp)) == 0:
                    return
            time.sleep(0.05)
        sys.exit("bench: mailstile does not listen")

    def put(self, name, text):
        path = self.home / "control" / name
        path.write_text(text + "\n")
        return path

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def cpu(self):
        """Seconds of CPU of the server and all its ended sessions."""
        deadline = time.time() + 10
        while self.sessions() and time.time() < deadline:
            time.sleep(0.02)
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(x) for x in fields[11:15]) / TICK

    def sessions(self):
        """pids of the processes below main."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            try:
                children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                children = []
            found += children
            queue += children
        return found

    def empty(self):
        for part in ("mess", "intd", "todo"):
            for f in (self.home / "queue" / part).rglob("*"):
                if f.is_file():
                    f.unlink()


def load(server, sessions, messages, per, octets):
    before = server.cpu()
    out = subprocess.run(
        [LOAD, str(server.smtp), str(sessions), str(messages), str(per), str(octets), "b@bench.example"],
        check=True, capture_output=True, text=True).stdout.split()
    cpu = server.cpu() - before
    server.empty()
    return int(out[0]) / float(out[1]), cpu / int(out[0]) * 1e6


def memory(pids):
    """USS and PSS of processes, KiB each."""
    uss = pss = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, value = line.split(":", 1) if ":" in line else ("", "")
            if key in ("Private_Clean", "Private_Dirty"):
                uss += int(value.split()[0])
            elif key == "Pss":
                pss += int(value.split()[0])
    return uss, pss


def kernel_memory():
    wanted = ("Slab", "KernelStack", "PageTables", "Percpu")
    text = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) for line in text if line.split(":")[0] in wanted)


def idle(server, count):
    """KiB a session that is idle under TLS: user (USS), user (PSS), kernel."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    base_user, base_kernel = memory([server.process.pid]), kernel_memory()
    clients = []
    for i in range(count):
        raw = socket.create_connection(("127.0.0.1", server.tls), source_address=(f"127.0.1.{i % 16 + 1}", 0))
        clients.append(context.wrap_socket(raw))
        clients[-1].recv(512)
    time.sleep(0.5)
    user = memory([server.process.pid] + server.sessions())
    kernel = kernel_memory() - base_kernel
    sessions = [(user[k] - base_user[k]) / count for k in (0, 1)]
    for c in clients:
        c.close()
    return sessions[0], sessions[1], kernel / count


def handshakes(server, resumed, seconds=3):
    """TLS connections a second, one client after the other."""
    out = subprocess.run(
        ["openssl", "s_time", "-connect", f"127.0.0.1:{server.tls}", "-time", str(seconds), "-tls1_2",
         "-reuse" if resumed else "-new"], capture_output=True, text=True).stdout
    for line in out.splitlines():
        if "real seconds" in line:
            words = line.split()
            return int(words[0]) / int(words[3])
    sys.exit("bench: openssl s_time said nothing useful:\n" + out)


def main():
    if not shutil.which("openssl"):
        sys.exit("bench: needs openssl")
    rows = {}

    def note(name, value):
        rows.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory(prefix="mailstile-bench.") as directory:
        server = Server(directory)
        try:
            if ROOT:
                note("base memory, USS, KiB", memory([server.process.pid])[0])
            load(server, 8, 200, 1, 4096)
            for _ in range(ROUNDS):
                for sessions, messages, per, octets in (
                        (1, 300, 1, 4096), (8, 1500, 1, 4096), (32, 3000, 1, 4096), (8, 3000, 50, 4096),
                        (8, 200, 10, 1048576)):
                    rate, cpu = load(server, sessions, messages, per, octets)
                    what = f"{octets // 1024} KiB, {sessions} sessions, {per} a connection"
                    note(f"accepted/s, {what}", rate)
                    note(f"CPU us a message, {what}", cpu)
                if ROOT:
                    uss, pss, kernel = idle(server, 64)
                    note("idle TLS session, user USS, KiB", uss)
                    note("idle TLS session, user PSS, KiB", pss)
                    note("idle TLS session, kernel, KiB", kernel)
                note("TLS connections/s, full handshake", handshakes(server, False))
                note("TLS connections/s, resumed", handshakes(server, True))
        finally:
            server.stop()
    print(f"| what | median of {ROUNDS} | range |\n|---|---:|---|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f}-{max(values):.0f} |")
    print(f"| stripped binary, octets | {os.path.getsize(MAILSTILE)} | |")


main()
