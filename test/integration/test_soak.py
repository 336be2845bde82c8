# SPDX-License-Identifier: MIT
"""
Twenty-four clients at once for a minute, or for as many as MAILSTILE_SOAK says (`make soak MINUTES=10`), while RADIUS breaks in every way and
is mended, certificates change, and HUPs come: no wrong code, no message lost or doubled or changed, nothing left over, nothing that grows.
"""

import json
import os
import threading
import time

import pytest

import abuse
import soak
import tools

pytestmark = pytest.mark.release

MINUTES = float(os.environ.get("MAILSTILE_SOAK") or (10 if tools.LONG else 0.9))


def test_soak(make_server, work):
    house, stop_free = soak.free_house(make_server, work)
    other, stop_doubles = soak.double_house(make_server)
    houses = [house, other]
    try:
        run(houses, work)
    finally:
        for h in houses:
            h.stop.set()
        stop_free()
        stop_doubles()


def run(houses, work):
    begin = time.monotonic()
    until = begin + MINUTES * 60
    short = MINUTES < 3
    before = {h.name: abuse.descriptors(h.server.pid) for h in houses}
    readers = [soak.Reader(h.server) for h in houses]
    samplers = [soak.Sampler(h.server) for h in houses]
    clients = soak.start_clients(houses, work, until, int(os.environ.get("MAILSTILE_SEED", "1")))
    threads = [threading.Thread(target=h.guarded, args=(act,)) for h in houses
               for act in (lambda h=h: h.unrest(until), lambda h=h: h.troubles(until, 4 if short else 12, 4 if short else 8))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for process, _ in clients:
        assert process.wait(120) == 0
    faults = [f for h in houses for f in h.faults]
    assert not faults, faults
    for h in houses:
        tools.poll(h.server.idle, "the end of all sessions")
    for s in samplers:
        s.finish()
    for r in readers:
        r.finish()
    for h in houses:
        h.read_log()
        assert h.crashes == 0, h.server.tail()
        tools.poll(lambda h=h: abuse.descriptors(h.server.pid) == before[h.name], "as many descriptors as before")
        h.server.assert_nothing()
    records = []
    for _, path in clients:
        with open(path, encoding="utf-8") as f:
            records += [json.loads(line) for line in f]
    seen = {}
    for r in readers:
        seen.update(r.seen)
    count = soak.judge(records, houses, seen)
    report = ["soak: %.1f minutes, then %.0f s until all was done" % (MINUTES, time.monotonic() - until)]
    report += ["  %-70s %7d" % (name, count[name]) for name in sorted(count)]
    for h, s, r in zip(houses, samplers, readers):
        report.append("  %s: %d HUPs, %d certificates, RADIUS %r, at most %d processes, %d octets; memory %r" % (
            h.name, h.hups, h.certs, dict(h.lies), max(s.processes), r.octets, s.check()))
    print("\n".join(report))
    # All of it has happened, or the test has tested less than it says.
    for name in ("logins, password right, RADIUS well: 235", "logins, password wrong, RADIUS well: 535", "messages taken", "messages broken off",
                 "sessions, TLS resumed"):
        assert count[name] > 10, report
    assert sum(n for name, n in count.items() if name.startswith("messages unread")) > 5 and count["logins, password right, RADIUS in trouble: 454"] > 0, report
    for h in houses:
        assert len(h.health.broken) >= (3 if short else len(h.trouble)) and h.hups > MINUTES * 5 and h.certs > 1, report
