# SPDX-License-Identifier: MIT
"""
What `make bench` measures with, in small: the load generator counts right against a real server, the floor keeps what it acknowledges,
and the report says "met" where it should.
"""

import os
import subprocess
import sys

import pytest

import harness
import tools
from tools import poll

pytestmark = pytest.mark.release

BENCH = os.path.join(tools.TREE, "test", "bench")
sys.path.insert(0, BENCH)
import report  # noqa: E402  pylint: disable=wrong-import-position,import-error


@pytest.fixture(scope="module")
def programs(work):
    """Paths of load and floor, compiled as bench.sh does."""
    out = {}
    for name, libraries in (("load", ["-lssl", "-lcrypto"]), ("floor", ["-static"])):
        out[name] = os.path.join(work, name)
        tools.run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", out[name], os.path.join(BENCH, name + ".c"), *libraries)
    return out


@pytest.fixture(scope="module")
def loaded(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf, split=3)
    yield s
    s.stop()


def load(programs, port, *words):
    """messages, connections, resumed"""
    *options, sessions, count, per, octets = [str(w) for w in words]
    p = tools.run(programs["load"], *options, str(port), sessions, count, per, octets, "b@local.example")
    fields = p.text.split()
    assert len(fields) == 5 and fields[3] == "0" and float(fields[4]) > 0
    return [int(x) for x in fields[:3]]


@pytest.mark.parametrize("profile,words,connections", [
    ("smtp", (4, 30, 1, 4096), 30),
    ("smtp", (2, 30, 10, 4096), 4),
    ("smtp", ("-p", 3, 10, 5, 300000), 3),
    ("smtp", ("-q", 2, 6, 1, 100), 6),
    ("submissions", ("-s", "-a", "alice:wonder land", 3, 6, 1, 4096), 6),
    ("submission", ("-S", "-r", "-a", "alice:wonder land", 2, 8, 1, 4096), 8),
])
def test_counts(programs, loaded, profile, words, connections):
    loaded.take()
    messages, made, _ = load(programs, loaded.port[profile], *words)
    assert (messages, made) == (words[-3], connections)
    queue = loaded.take()
    assert len(queue) == messages
    for m in queue:
        assert m.sender == b"a@bench.example" and m.rcpts == [b"b@local.example"]
        # What is sent has CRLF.
        assert words[-1] * 0.95 < len(m.body) < words[-1] + 100 and m.body.startswith(b"From: bench ")


def test_connections_alone(programs, loaded):
    assert load(programs, loaded.port["smtp"], 3, 20, 0, 1) == [0, 20, 0]
    assert load(programs, loaded.port["submissions"], "-s", 2, 8, 0, 1) == [0, 8, 0]
    # Three addresses a session in turn, and TLS sessions are for the address that made them.
    assert load(programs, loaded.port["submissions"], "-s", "-r", 2, 20, 0, 1) == [0, 20, 20 - 2 * 3]
    assert loaded.take() == []


def test_bounded_by_time(programs, loaded):
    messages, _, _ = load(programs, loaded.port["smtp"], "-d", "0.3", 2, 1000000, 10, 1000)
    assert 0 < messages < 1000000
    assert len(loaded.take()) == messages


def test_refusal_is_an_error(programs, loaded):
    p = tools.run(programs["load"], str(loaded.port["smtp"]), "1", "1", "1", "100", "x@elsewhere.example", check=False)
    assert p.returncode == 1 and "expected 250, got 550" in p.text, p.text


@pytest.mark.parametrize("options", [[], ["-1"]])
def test_floor(programs, scratch, options):
    for d in ("mess", "intd", "todo"):
        os.mkdir(os.path.join(scratch, d))
    port = tools.free_port()
    with subprocess.Popen([programs["floor"], *options, str(port), scratch]) as floor:
        try:
            poll(lambda: subprocess.run([programs["load"], str(port), "1", "1", "0", "1", "x"], check=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0, "the floor")
            assert load(programs, port, 3, 24, 4, 100000)[0] == 24
        finally:
            floor.kill()
    for d in ("mess", "intd", "todo"):
        assert len(os.listdir(os.path.join(scratch, d))) == 24
    for n in os.listdir(os.path.join(scratch, "todo")):
        assert tools.read(os.path.join(scratch, "todo", n)) == b"Fa@bench.example\0Tb@local.example\0"
        text = tools.read(os.path.join(scratch, "mess", n))
        assert text.startswith(b"From: bench ") and text.endswith(b"x\n") and b"\r" not in text and len(text) > 95000


def test_verdicts():
    """Ratios are made within a round, against the best of the others, in the direction that the budget means."""
    rates = {"mailstile": [100, 300, 200], "Postfix": [50, 100, 100], "Exim": [10, 10, 10], "OpenSMTPD": [80, 150, 160], "floor": [999] * 3}
    assert report.Budget(2, "postfix").verdict(rates) == ("2.00 ×", True)
    assert report.Budget(2.1, "postfix").verdict(rates) == ("2.00 ×", False)
    assert report.Budget(1.5, "best").verdict(rates) == ("1.25 × (2.00 × without OpenSMTPD)", False)
    cost = {"mailstile": [4, 5, 6], "Postfix": [10, 10, 10], "Exim": [8, 20, 20]}
    assert report.Budget(0.5, "best", True).verdict(cost) == ("0.50 ×", True)
    assert report.Budget(0.4, "best", True).verdict(cost) == ("0.50 ×", False)
    assert report.Budget(5, "", True).verdict(cost) == ("5.0", True)
    assert report.Budget(1, "best").verdict({"mailstile": [1]}) is None and report.Budget(1, "best").verdict({}) is None
