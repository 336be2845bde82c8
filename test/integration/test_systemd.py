# SPDX-License-Identifier: MIT
"""
board/host/mailstile.service without systemd: its capabilities, no new privileges, and a file system of which only its ReadWritePaths may be written.
The home is a test's, where the unit's server looks for it.
"""

import os
import re
import shlex
import signal
import subprocess

import pytest

import acct
import harness
import radius
import tools
from tools import poll

UNIT = os.path.join(tools.TREE, "board/host/mailstile.service")
HOME = "/var/qmail"

pytestmark = pytest.mark.root


def unit(key):
    """The words of a setting, which must stand there once."""
    (value,) = re.findall(r"^%s=(.*)$" % key, tools.read(UNIT).decode(), re.M)
    return value.split()


def mounts(home):
    """A root where all is read-only but what the unit says; /run and /var are the test's own."""
    paths = " ".join(shlex.quote(p) for p in unit("ReadWritePaths"))
    return ["mount -t tmpfs tmpfs /run", "mkdir /run/home", "mount --bind %s /run/home" % shlex.quote(home), "mount -t tmpfs tmpfs /var",
            "mkdir %s" % HOME, "mount --bind /run/home %s" % HOME, "umount /run/home", "rmdir /run/home", "ln -s /run /var/run",
            "cut -d ' ' -f 5 /proc/self/mountinfo | grep -Ev '^/(dev|proc|sys)(/|$)' | while read m; do mount -o remount,bind,ro $m 2> /dev/null || true; done",
            "for p in %s; do mount -o remount,bind,rw $p; done" % paths]


@pytest.fixture(scope="module")
def record(work):
    r = acct.AcctRadius(work, "systemdraddb")
    yield r
    r.stop()


@pytest.fixture
def started(make_server, record):
    """A function: the server as the unit starts it; `before` is called with the home as it will be."""
    def make(before=lambda server: None):
        server = make_server(radius=record.conf, listen={"submissions": harness.LISTEN["submissions"]}, start=False,
                             control={"userlimits": ":day=2\n", "relay": "on\n", "locals": "", "smtproutes": ":127.0.0.1:%d\n" % tools.free_port()})
        before(server)
        assert unit("NoNewPrivileges") == ["yes"] and unit("ProtectSystem") == ["strict"] and unit("ExecStart")[1:] == ["serve", "-s"]
        caps = [c.replace("CAP_", "+", 1).lower() for c in unit("CapabilityBoundingSet")]
        server.wrap = ["setpriv", "--bounding-set=-all," + ",".join(caps), "--no-new-privs"]
        server.mounts = mounts(server.home)
        server.home, server.words = HOME, []  # as it sees it; so the socket is where it always is
        server.logfile, server.events, server.read_to = server.logfile + ".unit", [], 0
        server.start()
        return server
    return make


def inside(server, *words, **kw):
    return tools.run("nsenter", "--mount", "--target", str(server.pid), *words, env=harness.environment(), **kw)


def use(server):
    """What a server is there for; and nothing it has to complain about."""
    assert inside(server, "touch", server.top + "/x", check=False).returncode != 0, "the test itself: the root can be written"
    with server.session("submissions") as c:
        c.mail()
    assert "1 good" in inside(server, server.binary, "status").text
    server.reload()
    with server.session("submissions") as c:
        c.mail()
        c.cmd("MAIL FROM:<alice@example.net>", 450)
        c.quit()
    assert re.search(r"^alice: 2 of 2 ", inside(server, server.binary, "users").text, re.M)
    assert "uses this now" in inside(server, server.binary, "apply").text
    inside(server, server.binary, "queue", "hold", "all")
    assert not [e.text for e in server.log() if e["ev"] in ("crash", "limit") or (e["ev"] == "config" and e["level"] == "error")], server.tail()
    assert not [e.text for e in server.log("config", level="warning") if "secret" not in e["msg"]], server.tail()


def test_fresh_home(started, record):
    server = started()
    use(server)
    poll(lambda: record.records("Stop", NAS_Identifier="mail.example.net"), "accounting")
    # Started over after a crash it opens the same files, and the socket is there.
    server.crash_expected = True
    with server.session("submissions", login=None):
        os.kill(server.pair()[1], signal.SIGSYS if tools.SANITIZE else signal.SIGSEGV)
        poll(lambda: server.log("reexec"), "the re-execution")
    poll(lambda: inside(server, server.binary, "status", check=False).returncode == 0, "the socket")
    server.reload()
    assert not server.log("config", level="error"), server.tail()


def test_apply_to_another_home(started, make_server):
    """The server at the usual place is not told to reload for a home that is not its own."""
    server, other = started(), make_server(start=False)
    assert inside(server, server.binary, "apply", "-H", other.home, check=False).text.startswith("no server runs")  # which is read-only here
    p = inside(server, server.binary, "status", "-H", other.home, check=False)
    assert p.returncode == 3 and "no server of %s runs" % other.home in p.text, p
    assert inside(server, server.binary, "status", "-H", HOME + "/").text.startswith("mailstile ")
    assert not server.log("reload")


def test_home_of_a_server_with_all_powers(started):
    """Counts and accounting belong to qmailq there, and to nobody else."""
    def before(server):
        server.start()
        server.stop()
        for name in ("users", "acct"):
            st = os.stat(os.path.join(server.home, "mailstile", name))
            assert st.st_uid == harness.USERS["qmailq"] and st.st_mode & 0o777 == 0o600
    use(started(before))


def test_owner_without_rights(started):
    """Of somebody else they are no good, whatever root could do."""
    def before(server):
        server.start()
        server.stop()
        os.chown(os.path.join(server.home, "mailstile/users"), harness.USERS["qmails"], 0)
    server = started(before)
    assert [e for e in server.log("config", level="error") if "nobody can log in" in e["msg"]], server.tail()
    with server.session("submissions", login=None) as c:
        c.ehlo()
        c.auth_plain("alice", radius.PASSWORD["alice"], 454)


def test_unit_itself():
    """As systemd reads it, but for where the program and its manual pages will be."""
    p = subprocess.run(["systemd-analyze", "verify", UNIT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    lines = [x for x in p.stdout.decode().splitlines() if "mailstile" in x and "is not executable" not in x and "Command 'man " not in x]
    assert not lines, lines
