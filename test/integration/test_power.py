# SPDX-License-Identifier: MIT
"""
The power goes: mailstile in a guest under load, its disk cut at many moments with what the cache had lost, kept or torn, and the guest
killed in earnest. Every message acknowledged by then is whole, with its envelope. See test/power/machine.py; `make power` is the long form.
"""

import concurrent.futures
import os
import sys

import pytest

import tools

sys.path.insert(0, os.path.join(tools.TREE, "test", "power"))

import machine  # noqa: E402

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def kernel():
    """Fetched once, before the machines run beside each other."""
    return machine.guest.Kernel("cloud-amd64")


def cut(work, kind, cuts, kills):
    os.mkdir(work)
    m = machine.Machine(work, "ext4", kind)
    try:
        log, clients = m.life(m.blank(), 3, 0.02, True, 60, limit=80)
        m.log_cuts(log, clients, cuts)
        image = log.cut(len(log.events), "some", m.rng, m.fs.unit)
        for _ in range(kills):
            image = m.kill(image, 3, 0, True, 2)
    finally:
        m.end()
    return m


def deliver(work, kills):
    """A queue that is carried on, to a next hop outside."""
    os.mkdir(work)
    m = machine.Machine(work, "ext4", "deliver")
    try:
        image = m.blank()
        for _ in range(kills):
            image = m.kill(image, 3, 0.01, True, 3, 15)
        m.drain(image)
    finally:
        m.end()
    return m


def lose(work):
    """A build that flushes nothing."""
    os.mkdir(work)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
    tools.run("make", "-s", "power-control", cwd=tools.TREE, env=env, timeout=300)
    return machine.control(work, os.path.join(tools.TREE, "build", "host", "power", "mailstile"))


@pytest.fixture(scope="module")
def machines(work, kernel):
    """Three beside each other; together they take somewhat over a minute of two processors."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield {"queue": pool.submit(cut, os.path.join(work, "power-queue"), "queue", 30, 2),
               "maildir": pool.submit(cut, os.path.join(work, "power-maildir"), "maildir", 12, 0),
               "deliver": pool.submit(deliver, os.path.join(work, "power-deliver"), 4),
               "control": pool.submit(lose, os.path.join(work, "power-control"))}


def judge(m, cuts):
    assert not m.tally.bad(), "\n".join(m.tally.bad()[:10])
    assert m.tally.cuts == cuts
    # Not by looking at empty disks: on average a cut found half of the load.
    assert m.tally.acked > 20 * cuts, machine.summary("", m, 0)


def test_queue(machines):
    judge(machines["queue"].result(600), 32)


def test_maildir(machines):
    judge(machines["maildir"].result(600), 12)


def test_delivery(machines):
    """Each recipient of an acknowledged message has it, or is still to get it; in the end all have it, and the queue is empty."""
    m = machines["deliver"].result(600)
    assert not m.tally.bad(), "\n".join(m.tally.bad()[:10])
    assert m.tally.cuts == 5 and m.tally.acked > 100, machine.summary("", m, 0)
    assert m.hop.boxed > 20, "hardly anybody with a Maildir"


def test_the_machine_sees_losses(machines):
    """Without a flush what was linked last is lost when the power goes before the file system commits by itself."""
    m = machines["control"].result(600)
    assert len(m.tally.lost) >= 3, machine.summary("", m, 0)
    assert not m.tally.broken and not m.tally.illegal, m.tally.bad()
