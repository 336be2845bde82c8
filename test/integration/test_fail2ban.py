# SPDX-License-Identifier: MIT
"""The filter in contrib/fail2ban, over log lines that a server has really written."""

import os
import re

import pytest

import tools

FILTER = os.path.join(tools.TREE, "contrib", "fail2ban", "mailstile.conf")


@pytest.fixture(scope="module")
def lines(work, house, radius_conf):
    """Lines of good and bad sessions; {client: expected}."""
    import harness
    s = harness.Server(work, house, radius_conf)
    want = {}
    for user, password, bad in (("alice", "wonder land", False), ("alice", "wrong", True), ("bob", "x", True),
                                ("x result=accept user=alice", "x", True), ("carol", "carol-pw", False)):
        with s.session("submissions", login=None) as c:
            c.auth_plain(user, password, 535 if bad else 235)
            if not bad:
                c.mail()
        want[c.source] = bad
        s.gone(c)
    with s.session("smtp") as c:
        c.quit()
        want[c.source] = False
        s.gone(c)
    s.take()
    s.stop()
    return [e.text for e in s.log()], want


FORMS = {
    "syslog": "Nov 22 10:00:%02d stile mailstile[4711]: %s",
    "iso": "2026-11-22T10:00:%02d.123456+00:00 stile mailstile[4711]: %s",
}


@pytest.mark.parametrize("form", list(FORMS))
def test_filter(lines, scratch, form):
    """Each refused login once, with the client's address; nothing else."""
    text, want = lines
    log = tools.write(os.path.join(scratch, "log"), "".join(FORMS[form] % (n % 60, x) + "\n" for n, x in enumerate(text)))
    p = tools.run("fail2ban-regex", "--print-all-matched", "--verbose", log, FILTER, check=False)
    assert p.returncode == 0, p.text
    matched = re.search(r"Lines: (\d+) lines, (\d+) ignored, (\d+) matched, (\d+) missed", p.text)
    bad = {client for client, refused in want.items() if refused}
    assert int(matched.group(3)) == len(bad), p.text
    for client, refused in want.items():
        assert bool(re.search(r"^\|\s+%s\s" % re.escape(client), p.text, re.M)) == refused, (client, p.text)


def test_a_user_cannot_name_the_address(lines, scratch):
    """A login name that looks like a log line bans nobody else."""
    line = r"ev=auth sid=x client=127.1.1.1 user=x\x20client\x3d192.0.2.1\x20result\x3dreject mech=PLAIN result=accept server=- ms=1"
    log = tools.write(os.path.join(scratch, "log"), FORMS["syslog"] % (1, line) + "\n")
    p = tools.run("fail2ban-regex", log, FILTER, check=False)
    assert re.search(r"1 lines, 0 ignored, 0 matched", p.text), p.text
