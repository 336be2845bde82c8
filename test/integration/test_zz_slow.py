# SPDX-License-Identifier: MIT
"""The end of the clients in trickle.py. They begin when the suite begins; this file comes last to see them off."""

import pytest

import tools

pytestmark = pytest.mark.release


@pytest.mark.parametrize("name", ["data", "noop"])
def test_qmail_35_trickling_client(trickle, name):
    """35: an injection ends within 24 hours whatever the client does: too slow a message, and any session, has its end."""
    for t in trickle.threads:
        t.join(110)
    assert 55 < trickle.after[name] < 80, trickle.after
    last = trickle.said[name].split(b"\r\n")[-2]
    assert last.startswith(b"421 4.4.2"), last
    if name == "data":
        trickle.server.assert_nothing()


def test_the_limits_are_below_a_day():
    """In any configuration that compiles."""
    text = tools.read(tools.TREE + "/config.h").decode()
    assert "TIMEOUT_SESSION <= 43200" in text
