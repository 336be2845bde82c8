# SPDX-License-Identifier: MIT
"""`mailstile status` against a running server, and the control socket against tools that do not behave."""

import os
import re
import signal
import socket
import stat
import struct
import time

import pytest

import harness
import tools
from tools import poll

ASK = struct.Struct("=IIQ")
MAGIC, STATUS = 0x6D737402, 1


def status(server, *words, check=True):
    return tools.run(*server.house.argv([server.binary, "status", "-S", server.ctl, *words]), check=check, env=harness.environment())


def screen(server):
    out = status(server).text
    lines = out.splitlines()
    assert len(lines) < 24 and all(len(n) < 80 for n in lines), out
    assert re.fullmatch(r"[ -~\n]*", out), "not plain: %r" % out
    return out


def metrics(server):
    out = status(server, "-p").text
    names, found = {}, {}
    for line in out.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in names and kind in ("gauge", "counter")
            names[name] = kind
        elif not line.startswith("# HELP "):
            m = re.fullmatch(r'(mailstile_[a-z_]+)(\{[a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*\})? (\d+)', line)
            assert m and m.group(1) in names, "not a metric: %r" % line
            found[m.group(1) + (m.group(2) or "")] = int(m.group(3))
    return found


def test_screen(make_server):
    """A customer who sends, one with a wrong password, one who is here: on the screen and for Prometheus."""
    server = make_server()
    start = metrics(server)
    c = server.session("submission")
    c.mail(rcpts=("b@example.org", "c@example.org"))
    d = server.session("submission", login=None)
    d.ehlo()
    d.auth_plain("alice", "wrong", 535)
    now = metrics(server)
    grown = {k: now[k] - start.get(k, 0) for k in now if now[k] != start.get(k, 0)}
    for name, n in {"mailstile_sessions_total": 2, "mailstile_sessions_tls_total": 2, "mailstile_logins_total": 1, "mailstile_login_failures_total": 1,
                    "mailstile_messages_accepted_total": 1, "mailstile_recipients_accepted_total": 2, "mailstile_message_kibibytes_total": 1,
                    "mailstile_sessions": 2, "mailstile_sessions_logged_in": 1}.items():
        assert grown.get(name) == n, (name, grown)
    out = screen(server)
    assert re.search(r"^sessions +2 of \d+ now, 1 logged in;", out, re.M), out
    assert re.search(r"^radius +127\.0\.0\.1:\d+ answered \d+ s ago$", out, re.M), out
    assert re.search(r"^listens .*submission 127\.0\.0\.1:%d" % server.port["submission"], out, re.M), out
    assert re.search(r"^logins +1 good, 1 wrong", out, re.M) and "not by this program" in out
    assert [k for k in now if k.startswith("mailstile_radius_up{")] and now["mailstile_clock_set"] == 1
    for client in (c, d):
        client.close()


def test_trouble(make_server):
    """What a warden logged is on the screen, cut and harmless; the dead server is shown."""
    server = make_server(radius="127.0.0.1:%d secret 1 1\n" % tools.free_port())
    c = server.session("submission", login=None)
    c.ehlo()
    c.auth_plain("alice", "x", 454)
    out = screen(server)
    assert re.search(r"^radius .*DOES NOT ANSWER, asked last for", out, re.M), out
    assert re.search(r"^  \d+ s ago: ev=radius ", out, re.M), out
    assert 0 in [v for k, v in metrics(server).items() if k.startswith("mailstile_radius_up{")]
    c.close()


def test_nobody_can_log_in(make_server):
    """What makes logins impossible is seen, from the start on, and goes when it is mended."""
    def certificate(s):
        s.set(**{"servercert.pem": "garbage\n"})

    def counts(s):
        os.makedirs(os.path.join(s.home, "mailstile"))
        tools.write(os.path.join(s.home, "mailstile/users"), "garbage\n")

    def limits(s):
        s.set(userlimits="joe;day=2\n")

    def radius(s):
        s.set(**{"radius.conf": "127.0.0.1\n"})

    for damage, want, line in ((certificate, r"^NO LOGINS   no certificate that can be used: see `mailstile check`$", "servercert.pem"),
                               (counts, r"^NO LOGINS   the file of what each login has sent: see `mailstile check`$", "mailstile/users"),
                               (limits, r"^NO LOGINS   userlimits or timezone has a fault: see `mailstile check`$", "userlimits"),
                               (radius, r"^radius      NO SERVER: nobody can log in$", "radius.conf")):
        server = make_server(prepare=damage)
        out = screen(server)
        assert re.search(want, out, re.M), out
        # Not only where the log is: this was before the start.
        assert re.search(r"^  \d+ s ago: error: %s: \w+" % os.path.basename(line), out, re.M), out
        assert server.log("config", level="error")[0]["file"].endswith(line)
        assert metrics(server)["mailstile_logins_possible"] == 0
        server.stop()
    server = make_server(prepare=limits)
    server.set(userlimits=None)
    server.reload()
    assert "NO LOGINS" not in screen(server) and metrics(server)["mailstile_logins_possible"] == 1
    server = make_server(prepare=limits, listen={"inside": harness.LISTEN["inside"]})  # where nobody does, anyway
    assert "NO LOGINS" not in screen(server)


def test_socket_below_a_home(make_server):
    """A server of a home of its own, by hand: no -S is needed, and servers are not mistaken for one another."""
    server, other = make_server(start=False), make_server()
    server.ctl = os.path.join(server.home, "mailstile.sock")
    server.words = []
    assert server.tool("apply").text.startswith("no server runs")
    p = server.tool("status", check=False)
    assert p.returncode == 3, p
    server.start()
    assert stat.S_IMODE(os.stat(server.ctl).st_mode) == 0o600
    assert server.tool("status").text.startswith("mailstile ")
    assert "the server uses this now" in server.tool("apply").text
    assert server.log("reload") and not other.log("reload")
    assert "0 done" in server.tool("queue", "flush").text
    # One that is another's is not shown for this one.
    p = server.tool("status", "-S", other.ctl, check=False)
    assert p.returncode == 3 and "no server of %s runs; the one at %s is of %s" % (server.home, other.ctl, other.home) in p.text, p
    server.stop()
    assert not os.path.exists(server.ctl)


def test_home_with_a_long_name(make_server, scratch):
    """The name of a socket has 107 octets at most: the server serves, and says what to do."""
    server = make_server(start=False)
    home = os.path.join(scratch, "x" * 100)
    os.rename(server.home, home)
    server.home, server.control, server.queue = home, os.path.join(home, "control"), os.path.join(home, "queue")
    server.words = []
    server.start()
    assert [e for e in server.log("config") if "name another place with -S" in e["msg"]], server.tail()


def test_no_server(server, tmp_path):
    """Exit status 3, as init scripts want it; a socket that is only left behind is the same."""
    left = str(tmp_path / "left")
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(left)
    s.close()
    for path in (str(tmp_path / "none"), left):
        p = tools.run(server.binary, "status", "-S", path, check=False)
        assert p.returncode == 3 and path in p.text, p
    p = tools.run(server.binary, "status", "-x", check=False)
    assert p.returncode == 100 and p.text.startswith("usage: mailstile status"), p


def test_socket_itself(make_server):
    """Nobody else may connect; it goes with the server; one that is left over is replaced, a living one is not."""
    server = make_server()
    assert stat.S_IMODE(os.stat(server.ctl).st_mode) == 0o600
    other = make_server(start=False)
    other.ctl = server.ctl
    other.start()
    assert "Address in use" in poll(lambda: other.log("config"), "a warning")[-1]["msg"].replace("already ", "")
    screen(server)
    other.stop()
    screen(server)
    server.kill(signal.SIGKILL)
    server.wait_exit(-signal.SIGKILL)
    poll(lambda: not server.left(), "the end of its children")
    assert os.path.exists(server.ctl)
    server.start()
    poll(lambda: status(server, check=False).returncode == 0, "the new server")
    server.stop()
    assert not os.path.exists(server.ctl)


def test_bad_tools(server):
    """Tools that say nothing, too much, or nonsense, or ask for what is not there: dropped, and mail is not delayed by it."""
    def tool():
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(server.ctl)  # waits when the server's queue is full
        s.settimeout(10)
        return s

    mute = [tool() for _ in range(5)]
    began = time.monotonic()
    c = server.session("submission")
    c.mail()
    assert time.monotonic() - began < 2
    for s in mute:
        assert s.recv(10) == b""  # each has two seconds
        s.close()
    for what in (b"x", ASK.pack(MAGIC + 1, STATUS, 0), ASK.pack(MAGIC, STATUS, 0) + b"x", bytes(5000)):
        s = tool()
        s.send(what)
        assert s.recv(10) == b"", what
        s.close()
    s = tool()
    s.send(ASK.pack(MAGIC, 17, 0))  # of the scheduler, which does not run here
    assert struct.unpack("=II", s.recv(100)) == (1, 0)
    s.close()
    s = tool()
    socket.send_fds(s, [ASK.pack(MAGIC, STATUS, 0)], [0, 1])
    assert s.recv(10) == b""
    s.close()
    for _ in range(50):  # one that does not wait for the answer
        s = tool()
        s.send(ASK.pack(MAGIC, STATUS, 0))
        s.close()
    screen(server)
    c.close()


def test_reexecution(make_server):
    """After a crash main starts over; counts and socket stay."""
    server = make_server()
    server.crash_expected = True
    c = server.session("submission")
    c.mail()
    os.kill(server.pair()[1], signal.SIGSYS if tools.SANITIZE else signal.SIGSEGV)
    poll(lambda: server.log("reexec"), "the re-execution")
    poll(lambda: status(server, check=False).returncode == 0, "the socket")
    now = metrics(server)
    assert now["mailstile_messages_accepted_total"] == 1 and now["mailstile_crashes_total"] == 1
    assert re.search(r"^CRASHES +1", screen(server), re.M)


@pytest.mark.root
def test_other_users(make_server):
    """Not for nobody, even where the file's mode lets them: the kernel says who connects."""
    server = make_server()
    os.chmod(server.ctl, 0o666)
    tools.run("sh", "-c", 'd=$1; while [ "$d" != / ]; do chmod o+x "$d"; d=${d%/*}; d=${d:-/}; done', "sh", os.path.dirname(server.ctl))
    p = tools.run("setpriv", "--reuid=65534", "--clear-groups", server.binary, "status", "-S", server.ctl, check=False)
    assert p.returncode == 111 and "does not answer" in p.text, p
    screen(server)
