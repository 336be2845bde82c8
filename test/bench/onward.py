# SPDX-License-Identifier: MIT
"""
The delivery rows of `make bench`: the same servers, told to carry on what they accept to a next hop, Postfix's smtp-sink. Rate and CPU from the
client's first message to the last one's arrival, of queues that a next hop kept waiting, and what a full queue costs in memory.
"""
import os
import re
import subprocess
import time

import measure
import peers
import servers
from servers import DOMAIN, wait_for

RELAY_MAIN_CF = peers.MAIN_CF.replace(f"mydestination = {DOMAIN}", "mydestination =").replace(
    "smtpd_client_restrictions = check_client_access static:HOLD", "smtpd_client_restrictions =")
MANY, MORE = 10000, 100000


class Hop:
    """smtp-sink: takes everything, keeps nothing, counts."""

    def __init__(self, root):
        self.root, self.port, self.process = root, servers.free_port(), None
        self.out = root.path / "tmp/sink"

    def start(self):
        with open(self.out, "wb") as out:
            self.process = self.root.popen(["/usr/sbin/smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{self.port}", "512"], stdout=out)
        wait_for(lambda: not measure.refused(self.port), "smtp-sink")

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def messages(self):
        """Arrived since start()."""
        with open(self.out, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 200))
            found = re.findall(rb"mesg=(\d+)", f.read())
        return int(found[-1]) if found else 0


class Mailstile(servers.Mailstile):
    def configure(self):
        super().configure()
        control = "var/qmail/control/"
        self.root.write(control + "relay", "on\n")
        self.root.write(control + "locals", "")
        self.root.write(control + "smtproutes", f":127.0.0.1:{self.hop.port}\n")
        self.root.write(control + "smtptls", ":none\n")

    spool = servers.Mailstile.spool + tuple("var/qmail/queue/" + d for d in ("info", "remote", "bounce"))

    def now(self):
        """Try everything now."""
        for pid in self.cgroup.pids():
            if servers.pathlib.Path(f"/proc/{pid}/comm").read_text() == "stile-relay\n":
                os.kill(pid, servers.signal.SIGALRM)


class Postfix(peers.Postfix):
    def configure(self):
        super().configure()
        self.root.write("etc/postfix/main.cf", RELAY_MAIN_CF + f"relayhost = [127.0.0.1]:{self.hop.port}\nminimal_backoff_time = 3600\n")

    def now(self):
        self.root.run(["/usr/sbin/postqueue", "-f"])


class Exim(peers.Exim):
    files_each = 2

    def configure(self):
        super().configure()
        conf = (self.root.path / "etc/exim4/exim4.conf").read_text().replace("queue_only\n", "")
        self.root.write("etc/exim4/exim4.conf", conf.replace("begin authenticators\n", f"""\
begin routers
out:
  driver = manualroute
  domains = *
  transport = out
  route_list = * 127.0.0.1
  self = send

begin transports
out:
  driver = smtp
  port = {self.hop.port}
  hosts_try_prdr =
  tls_tempfail_tryclear
  hosts_avoid_tls = *

begin retry
* * F,4d,1h

begin authenticators
"""))

    def now(self):
        self.root.popen(["/usr/sbin/exim4", "-qff"], self.cgroup)


class Opensmtpd(peers.Opensmtpd):
    # A connection of it takes 20 messages a second, whatever the machine; and with all delays at 0, as below, it still waits for seconds now and then.
    most = 100
    # A relay that was down it leaves alone for as long as it likes, also after "smtpctl schedule all".
    has_backlog = False

    def configure(self):
        super().configure()
        # Of its own accord it opens one connection to a relay in five seconds, for a hundred messages.
        delays = " ".join(f"{what} 0" for what in ("conn-delay-host", "conn-delay-route", "conn-delay-source", "conn-delay-connector",
                                                   "conn-delay-relay", "conn-delay-domain", "reconn-delay-route"))
        conf = peers.SMTPD_CONF.format(smtp=self.smtp, domain=DOMAIN).replace("127.0.0.1:9", f"127.0.0.1:{self.hop.port}")
        self.root.write("etc/smtpd.conf", f"mta limit {delays}\n{conf}")

    def started(self):
        pass


SERVERS = [Mailstile, Postfix, Exim, Opensmtpd]


def through(server, sessions, seconds):
    """Messages a second, and CPU microseconds for each, from the client through to the next hop."""
    before, arrived = server.settle(), server.hop.messages()
    argv = [measure.LOAD, *server.load_words, "-d", str(seconds), str(server.smtp), str(sessions), str(getattr(server, "most", 100000)), "1", "4096", measure.RCPT]
    begin = time.monotonic()
    p = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if p.returncode != 0:
        raise SystemExit(f"bench: {server.name}: {' '.join(argv)}:\n{p.stderr[-2000:]}")
    n = int(p.stdout.split()[0])
    wait_for(lambda: server.hop.messages() - arrived >= n, f"{server.name} to deliver {n} messages", 60)
    took = time.monotonic() - begin
    cpu = server.settle() - before
    if server.hop.messages() - arrived != n:
        raise SystemExit(f"bench: {server.name} took {n} messages, {server.hop.messages() - arrived} arrived")
    server.root.flush()
    return n / took, cpu / n * 1e6


def backlog(server, count):
    """Messages a second of a queue that waits for a next hop which is there again."""
    server.hop.stop()
    argv = [measure.LOAD, *server.load_words, str(server.smtp), "8", str(count), "50", "1024", measure.RCPT]
    p = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if p.returncode != 0 or int(p.stdout.split()[0]) != count:
        raise SystemExit(f"bench: {server.name}: {' '.join(argv)}:\n{p.stdout}{p.stderr[-2000:]}")
    server.settle()
    server.hop.start()
    begin = time.monotonic()
    server.now()
    wait_for(lambda: server.hop.messages() >= count, f"{server.name}: {count} messages; {server.hop.messages()} arrived", 300)
    took = time.monotonic() - begin
    server.settle()
    if server.hop.messages() != count:
        raise SystemExit(f"bench: {server.name} took {count} messages, {server.hop.messages()} arrived")
    return count / took


def fill(root, count):
    """`count` messages that have waited for an hour, made by hand."""
    queue = root.path / "var/qmail/queue"
    uid, gid = root.ids("qmailq")
    suid, sgid = root.ids("qmails")
    split = len(os.listdir(queue / "mess"))
    then = time.time() - 3600
    for i in range(count):
        first = queue / "pid" / str(i)
        first.write_text("Subject: x\n\nx\n")
        n = os.stat(first).st_ino
        os.chown(first, uid, gid)
        os.rename(first, queue / f"mess/{n % split}/{n}")
        for where, what in (("info", b"Fa@bench.example\0"), ("remote", b"Tb@bench.example\0")):
            path = queue / f"{where}/{n % split}/{n}"
            path.write_bytes(what)
            os.chmod(path, 0o600)
            os.chown(path, suid, sgid)
            os.utime(path, (then, then if where == "info" else then + 7200))


def memory(table, server):
    """KiB of a server with nothing, and with much, in its queue. Files of one run stay for the next."""
    for count, more in ((0, 0), (MANY, MANY), (MORE, MORE - MANY)):
        fill(server.root, more)
        server.start()
        wait_for(lambda: server.settle() is not None and "messages queued" in (server.root.path / "dev/log.txt").read_text()[-2000:], "the scheduler")
        table.put(f"queue memory, {count} messages, user KiB", server, measure.uss(server))
        server.stop()


def rows(table, root, radius, wanted, rounds, seconds, quick):
    hop = Hop(root)
    running = []
    for c in SERVERS:
        if not wanted or c.name in wanted.split(","):
            c.hop = hop
            running.append(c(root, radius))
    try:
        for s in running:
            s.start()
        hop.start()
        for s in running:
            through(s, 8, 1)
        for _ in range(rounds):
            for sessions in (1, 8):
                for s in running:
                    rate, cpu = through(s, sessions, seconds)
                    table.put(f"through to the next hop, messages/s, {sessions} session{'s' if sessions > 1 else ''}", s, rate)
                    table.put(f"through to the next hop, CPU us a message, {sessions} session{'s' if sessions > 1 else ''}", s, cpu)
        for s in running:
            if not getattr(s, "has_backlog", True):
                continue
            table.put("backlog, messages/s", s, backlog(s, MANY // 10 if quick else MANY))
        for s in running:
            s.stop()
        if not quick:
            memory(table, running[0])
    finally:
        hop.stop()
        for s in running:
            s.stop()
