#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
make bench: mailstile beside other servers and the floor. Every row is measured in turn, server after server, round after round, so
that what else the machine does falls on all alike; what is told is the median of the rounds, and ratios are made within a round.

BENCH_ROUNDS: rounds (5). BENCH_QUICK: only Postfix and the floor beside mailstile, few rows. BENCH_SECONDS: of a load (1.0).
BENCH_SERVERS: names, with commas. BENCH_ROWS: only rows whose title contains one of these words, with commas.
"""
import os
import signal
import subprocess
import sys

import measure
import peers
import servers

QUICK = bool(os.environ.get("BENCH_QUICK"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3" if QUICK else "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "1.0"))
MESSAGES = [(1, 1), (8, 1), (32, 1), (1, 50), (8, 50), (32, 50)]


def titled(sessions, per):
    return f"{sessions} session{'s' if sessions > 1 else ''}, {per} a connection"


class Table:
    """{row: {server: [value of each round]}}"""

    def __init__(self):
        self.rows = {}

    def put(self, row, server, value):
        self.rows.setdefault(row, {}).setdefault(server.name, []).append(value)
        print(f"  {row:55} {server.name:10} {value:10.1f}", file=sys.stderr, flush=True)


def chosen(row):
    words = os.environ.get("BENCH_ROWS", "")
    return not words or any(w in row for w in words.split(","))


def messages(table, running):
    for sessions, per in MESSAGES if not QUICK else MESSAGES[1:2] + MESSAGES[4:5]:
        row = "messages/s, " + titled(sessions, per)
        for s in running if chosen(row) else ():
            done = measure.load(s, sessions, per, seconds=SECONDS)
            table.put(row, s, done.rate)
            table.put("CPU us/message, " + titled(sessions, per), s, done.cpu)


def calls(table, running):
    for per in (1, 50):
        row = f"system calls/message, {per} a connection"
        for s in running if chosen(row) else ():
            counted = measure.traced(s, 4, per, 200)
            table.put(row, s, sum(counted.values()))
            table.put(f"disk flushes/message, {per} a connection", s, measure.flushes(counted))
            if os.environ.get("BENCH_CALLS"):
                print(f"\n{s.name}, {per} a connection:", file=sys.stderr)
                for name, n in sorted(counted.items(), key=lambda kv: -kv[1]):
                    print(f"    {n:8.2f} {name}", file=sys.stderr)


def show(table):
    names = [s.name for s in peers.SERVERS]
    print("| what | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for row, values in table.rows.items():
        cells = [f"{median(values[n]):.1f} ({min(values[n]):.1f}-{max(values[n]):.1f})" if n in values else "-" for n in names]
        print(f"| {row} | " + " | ".join(cells) + " |")


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def main():
    if os.geteuid() != 0:
        sys.exit("bench: must be root: it starts servers in a root directory of their own, under users of their own")
    # Ended in any way but by SIGKILL, it ends what it has started.
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, lambda *_: sys.exit(1))
    root = servers.Root(os.environ["BENCH_ROOT"])
    wanted = os.environ.get("BENCH_SERVERS", "").split(",")
    log = root.path / "dev/log"
    with subprocess.Popen([os.environ["SINK"], log, root.path / "dev/log.txt"]) as sink:
        running, table = [], Table()
        radius = servers.Radius(root.path.parent / "raddb")
        peers.pam(root, radius)
        try:
            servers.wait_for(log.is_socket, "dev/log")
            for c in peers.SERVERS:
                if c.name in wanted or wanted == [""]:
                    running.append(c(root, radius.port))
                    running[-1].start()
            calls(table, running)
            for s in running:
                measure.load(s, 8, 1, seconds=0.3)
            for _ in range(ROUNDS):
                messages(table, running)
        finally:
            for s in running:
                s.stop()
            radius.stop()
            sink.terminate()
    show(table)


main()
