#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
make bench: mailstile beside other servers and the floor. Every row is measured in turn, server after server, round after round, so
that what else the machine does falls on all alike; what is told is the median of the rounds, and ratios are made within a round.

BENCH_ROUNDS: rounds (5). BENCH_QUICK=1: only Postfix and the floor beside mailstile, fewer rows, 3 rounds. BENCH_SECONDS: of a load (1.0).
BENCH_SERVERS: names, with commas. BENCH_ROWS: only rows whose title contains one of these words, with commas. BENCH_CALLS=1: system
calls by name. BENCH_OUT: where the report goes, and the plot beside it; otherwise the report goes to standard output.
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

import measure
import onward
import peers
import report
import servers

QUICK = bool(os.environ.get("BENCH_QUICK"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3" if QUICK else "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.7" if QUICK else "1.0"))
MESSAGES = [(8, 1), (32, 1), (8, 50)] if QUICK else [(1, 1), (8, 1), (32, 1), (1, 50), (8, 50), (32, 50)]
IDLE = 64
TLS = ("-s",)
LOGIN = ("-s", "-r", "-a", "%s:%s" % servers.LOGIN)
MEBIBYTE = 1 << 20


class Table:
    """{row: {server: [value of each round]}}"""

    def __init__(self):
        self.rows = {}
        self.checked, self.lost = {}, {}
        self.begin = time.monotonic()

    def put(self, row, server, value):
        self.rows.setdefault(row, {}).setdefault(server.name, []).append(value)
        print(f"{time.monotonic() - self.begin:6.0f} {row:58} {server.name:10} {value:10.1f}", file=sys.stderr, flush=True)

    def note(self, what, server, value):
        """What is the same in every round."""
        self.rows.setdefault(what, {})[server.name] = [value]


def chosen(row):
    words = os.environ.get("BENCH_ROWS", "")
    return not words or any(w in row for w in words.split(","))


def message_rows(table, running):
    for sessions, per in MESSAGES:
        what = f"{sessions} session{'s' if sessions > 1 else ''}, {per} a connection"
        for s in running if chosen("messages/s, " + what) else ():
            done = measure.load(s, sessions, per, seconds=SECONDS)
            table.put("messages/s, " + what, s, done.rate)
            table.put("CPU us a message, " + what, s, done.cpu)
    for s in running if chosen("1 MiB messages/s, 8 sessions") else ():
        table.put("1 MiB messages/s, 8 sessions", s, measure.load(s, 8, 50, MEBIBYTE, seconds=SECONDS).rate)


def must_resume(server, done):
    if done.resumed < done.count - 8 * 3:
        raise SystemExit(f"bench: {server.name} resumed {done.resumed} of {done.count} sessions")


def connection_rows(table, running):
    rows = [("connections/s, plain, 8 sessions", ()), ("TLS handshakes/s, full, 8 sessions", TLS),
            ("TLS handshakes/s, resumed, 8 sessions", TLS + ("-r",))]
    for row, words in rows:
        for s in running if chosen(row) else ():
            if words and not s.tls:
                continue
            done = measure.load(s, 8, 0, seconds=SECONDS, port=s.smtps if words else s.smtp, words=words)
            if "-r" in words:
                must_resume(s, done)
            table.put(row, s, done.rate)
            table.put(row.replace("connections/s", "CPU us a connection").replace("handshakes/s", "CPU us a connection"), s, done.cpu)


def login_rows(table, running):
    row = "logins/s, 8 sessions"
    for s in running if chosen(row) else ():
        if s.login:
            done = measure.load(s, 8, 0, seconds=SECONDS, port=s.smtps, words=LOGIN)
            must_resume(s, done)
            table.put(row, s, done.rate)
            table.put("CPU us a login", s, done.cpu)
    row = "TLS + login + message/s, 8 sessions"
    for s in running if chosen(row) else ():
        if s.login:
            done = measure.load(s, 8, 1, seconds=SECONDS, port=s.smtps, words=LOGIN)
            table.put(row, s, done.rate)
            table.put("CPU us a TLS + login + message", s, done.cpu)


def call_rows(table, running):
    for per in (1, 50):
        row = f"system calls a message, {per} a connection"
        for s in running if chosen(row) else ():
            counted = measure.traced(s, 4, per, 200)
            table.put(row, s, sum(counted.values()))
            table.put(f"disk flushes a message, {per} a connection", s, measure.flushes(counted))
            if os.environ.get("BENCH_CALLS"):
                print(f"\n{s.name}, {per} a connection:", file=sys.stderr)
                for name, n in sorted(counted.items(), key=lambda kv: -kv[1]):
                    print(f"    {n:8.2f} {name}", file=sys.stderr)


def memory_rows(table, measured):
    """Of servers that have just been started and served nobody."""
    for _ in range(min(ROUNDS, 1 if QUICK else 3) if chosen("memory") else 0):
        for s in measured:
            s.start()
            table.put("memory, idle server, user KiB", s, measure.uss(s))
            for tls in (False, True) if s.tls else (False,):
                what = f"memory, idle {'TLS' if tls else 'plain'} session, "
                user, kernel = measure.idle(s, IDLE, tls)
                table.put(what + "user KiB", s, user)
                table.put(what + "kernel KiB", s, kernel)
            table.note("size of program and libraries, KiB", s, sum(measure.program_files(s).values()) / 1024)
            s.stop()


def check_load(table, running):
    """The load generator beside Postfix's own, on the same server: {server: ratio}."""
    for s in running if chosen("smtp-source") and not QUICK else ():
        if s.name in ("mailstile", "Postfix"):
            pairs = []
            for _ in range(ROUNDS):
                mine = measure.load(s, 8, 1, count=1000, words=("-p",)).rate
                theirs = measure.smtp_source(s, 8, 1000)
                pairs.append(mine / theirs)
                print(f"  {'load generator / smtp-source':58} {s.name:10} {mine:10.1f} {theirs:10.1f}", file=sys.stderr)
            table.checked[s.name] = report.median(pairs)


def measure_all(table, all_servers):
    chosen_servers = [s for s in all_servers if not s.only_logins]
    memory_rows(table, chosen_servers)
    for s in all_servers:
        s.start()
    # The first messages into a new queue read half the file system's bitmaps.
    for s in all_servers:
        measure.load(s, 8, 1, seconds=1.5 if QUICK else 3)
    for s in all_servers if chosen("logins/s, login") else ():
        if s.login and (code := measure.answer_to_wrong_password(s)) != 535:
            raise SystemExit(f"bench: {s.name} answers {code} to a wrong password")
    call_rows(table, chosen_servers)
    check_load(table, chosen_servers)
    for _ in range(ROUNDS):
        message_rows(table, chosen_servers)
        connection_rows(table, chosen_servers)
        login_rows(table, all_servers)


def main():
    # Ended in any way but by SIGKILL, it ends what it has started.
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, lambda *_: sys.exit(1))
    root = servers.Root(os.environ["BENCH_ROOT"])
    wanted = os.environ.get("BENCH_SERVERS") or ("mailstile,Postfix,floor" if QUICK else "")
    log = root.path / "dev/log"
    described, root.ordered = measure.file_system(root.path)
    machine, before = report.machine(described), measure.used_by_others()
    running, table = [], Table()
    with subprocess.Popen([os.environ["SINK"], log, root.path / "dev/log.txt"]) as sink:
        radius = servers.Radius(pathlib.Path(os.environ["SINK"]).parent / "raddb")
        try:
            servers.wait_for(log.is_socket, "dev/log")
            peers.pam(root, radius)
            running = [c(root, radius.port) for c in peers.SERVERS if not wanted or c.name in wanted.split(",")]
            measure_all(table, running)
            for s in running:
                s.stop()
            if chosen("through to the next hop, backlog, queue memory"):
                onward.rows(table, root, radius.port, wanted, min(ROUNDS, 3), SECONDS, QUICK)
            machine.append(report.busy(before, measure.used_by_others()))
        finally:
            for s in running:
                s.stop()
            radius.stop()
            sink.terminate()
    table.lost = {s.name: s.lost for s in running if s.lost}
    binary = pathlib.Path(os.environ["MAILSTILE"]).stat().st_size
    text = report.markdown(table, [s.name for s in running], machine, ROUNDS, SECONDS, binary)
    out = os.environ.get("BENCH_OUT")
    if out:
        pathlib.Path(out).write_text(text)
        pathlib.Path(out).with_name("benchmark.svg").write_text(report.svg(table, [s.name for s in running]))
    else:
        print(text)


main()
