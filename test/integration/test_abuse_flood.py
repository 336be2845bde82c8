# SPDX-License-Identifier: MIT
"""Many at once: connections, addresses, messages. Who is honest is served all the same, and nothing of it stays."""

import threading
import time

import pytest

import abuse
import harness
import smtpc
import tools
from abuse import Attacker, Watch

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


CROWDS = {
    "50 addresses": ["127.201.1.%d" % n for n in range(1, 51)],
    "1000 addresses": ["127.202.%d.%d" % (n // 250, n % 250 + 1) for n in range(1000)],
    "1000 networks": ["127.%d.%d.7" % (203 + n // 250, n % 250) for n in range(1000)],
}


@pytest.mark.parametrize("crowd", list(CROWDS))
def test_idle_crowd(besieged, crowd):
    """
    A thousand connections that say nothing, within a second or so. All places of guests were taken for five seconds, and as long as somebody
    made new connections, 77 in a second: no customer got in. Now a network that holds more places than others gives them to others.
    """
    ports = [besieged.port[p] for p in ("smtp", "submission", "submissions")]
    with Watch(besieged, cpu=3) as w:
        attacker = Attacker(mode="idle", sources=CROWDS[crowd], ports=ports, mute=[besieged.port["submissions"]], total=1000)
        seen = attacker.result()["seen"]
        served = len(w.seconds)
        tools.poll(lambda: len(w.seconds) >= served + 3, "customers beside the crowd")
        attacker.leave()
    print(seen, w.seconds)
    assert sum(seen.values()) == 1000 and set(seen) <= {"220", "421", "open"}, seen
    assert w.messages == []


@pytest.mark.root
@pytest.mark.parametrize("count,release", [(100, None), (2000, 0.3)])
def test_descriptors_on_their_way(work, count, release):
    """
    A message file goes from warden to smtp as a descriptor. The kernel limits how many of a user's are on their way, by RLIMIT_NOFILE of
    who sends: with 24, a busy machine made wardens fail, counted as crashes, and the server started over. When even the limit of all
    sessions is reached, the warden waits for a while.
    """
    house = abuse.OwnHouse("%s/in-flight-%d" % (work, count), 500)
    server = harness.Server(work, house, None, listen={"inside": harness.LISTEN["inside"]})
    held = abuse.InFlight(house.uid["qmailq"], count)
    try:
        with server.session("inside") as c:
            c.envelope()
            if release:
                threading.Timer(release, held.release).start()
            c.data(smtpc.MESSAGE)
            c.quit()
    finally:
        held.release()
        server.take()
        server.stop()
