# SPDX-License-Identifier: MIT
"""Many at once: connections, addresses, messages. Who is honest is served all the same, and nothing of it stays."""

import threading

import pytest

import abuse
import harness
import smtpc

pytestmark = pytest.mark.release


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
