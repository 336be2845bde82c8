# SPDX-License-Identifier: MIT
"""One session on descriptors 0 and 1, under tcpserver, tcpsvd, or anything else that hands over a connection."""

import os
import socket
import subprocess

import pytest

import harness
import smtpc
import tools
from tools import poll


@pytest.fixture
def home(make_server):
    """A home without a server; a first start has made its certificate."""
    s = make_server(start=False)
    tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"))
    return s


class SocketClient(smtpc.Client):
    """The raw client on a socket that is already connected."""

    def __init__(self, sock, context=None):  # pylint: disable=super-init-not-called
        self.sock, self.context, self.name, self.buffer = sock, context, "mail.example.net", b""
        self.sock.settimeout(tools.PATIENCE)
        self.greeting = self.reply()


def inetd(server, sock, profile="smtp", **env):
    with open(server.logfile, "ab") as log:
        return subprocess.Popen(server.argv("inetd", "-e", "-H", server.home, "-P", profile), stdin=sock, stdout=sock, stderr=log,
                                env={**harness.environment(), **env}, start_new_session=True)


def pair_session(server, profile="smtp", **env):
    ours, theirs = socket.socketpair()
    process = inetd(server, theirs, profile, **env)
    theirs.close()
    return SocketClient(ours, server.context), process


def test_socketpair(home):
    c, process = pair_session(home)
    c.ehlo()
    m = home.message(c.mail(rcpts=["you@local.example"]))
    assert "(unknown)" in m.received or "unknown" in m.received
    c.quit()
    assert process.wait(20) == 0
    home.take()


def test_environment_of_tcpserver(home):
    """Who the client is comes from the environment, as with qmail-smtpd."""
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", TCPREMOTEPORT="4567", TCPREMOTEHOST="client.example", TCPREMOTEINFO="joe",
                              TCPLOCALIP="192.0.2.1", TCPLOCALPORT="25", TCPLOCALHOST="mail.example.net")
    c.ehlo("other.example")
    m = home.message(c.mail(rcpts=["you@local.example"]))
    assert m.head[1] == b"Received: from client.example (HELO other.example) (joe@192.0.2.7)"
    c.cmd("RSET", 250)
    c.cmd("MAIL FROM:<me@client.example>", 250)
    c.cmd("RCPT TO:<you@far.example>", 550)
    c.quit()
    assert process.wait(20) == 0
    assert home.log("connect")[-1]["client"] == "192.0.2.7"
    home.take()


def test_helo_equal_to_the_host_name(home):
    """(HELO x) only where it differs, without regard to case (queue format 2.4)."""
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", TCPREMOTEHOST="client.example")
    c.ehlo("CLIENT.example")
    m = home.message(c.mail(rcpts=["you@local.example"]))
    assert m.head[1] == b"Received: from client.example (192.0.2.7)"
    c.quit()
    process.wait(20)
    home.take()


@pytest.mark.parametrize("value,stored", [("", "you@far.example"), ("@relay.example", "you@far.example@relay.example")])
def test_relayclient(home, value, stored):
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", RELAYCLIENT=value)
    c.ehlo()
    m = home.message(c.mail())
    assert m.rcpts == [stored.encode()]
    c.quit()
    process.wait(20)
    home.take()


def test_databytes(home):
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", DATABYTES="500")
    assert c.ehlo()["SIZE"] == ["500"]
    c.mail(smtpc.MESSAGE + b"x" * 500 + b"\r\n", rcpts=["you@local.example"], expect=552)
    c.quit()
    process.wait(20)


@pytest.mark.parametrize("value", ["x", "-1", "99999999999999999999", " 5"])
def test_bad_databytes(home, value):
    """Not a number: never "no limit"."""
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", DATABYTES=value)
    assert c.greeting.code in (220, 421)
    if c.greeting == 220:
        assert int(c.ehlo()["SIZE"][0]) <= 52428800 and c.ehlo()["SIZE"] != ["0"]
    c.close()
    process.wait(20)


@pytest.mark.parametrize("ip", ["", "unknown", "192.0.2", "::ffff:192.0.2.7", "2001:db8::7", "0"])
def test_odd_client_addresses(home, ip):
    c, process = pair_session(home, TCPREMOTEIP=ip)
    if c.greeting == 220:
        c.ehlo()
        c.cmd("MAIL FROM:<me@client.example>", 250)
        c.cmd("RCPT TO:<you@far.example>", 550)
        c.quit()
    process.wait(20)


def test_info_cannot_forge(home):
    c, process = pair_session(home, TCPREMOTEIP="192.0.2.7", TCPREMOTEHOST="a b\nReceived: x", TCPREMOTEINFO="x\n)(")
    c.ehlo()
    m = home.message(c.mail(rcpts=["you@local.example"]))
    assert m.head[1] == b"Received: from a?b?Received:?x (HELO client.example) (x???@192.0.2.7)"
    c.quit()
    process.wait(20)
    home.take()


@pytest.mark.parametrize("profile", ["submission", "submissions", "smtp"])
def test_login(home, profile):
    ours, theirs = socket.socketpair()
    process = inetd(home, theirs, profile, TCPREMOTEIP="192.0.2.8", TCPLOCALIP="192.0.2.1", TCPLOCALPORT="587")
    theirs.close()
    if profile == "submissions":
        ours.settimeout(tools.PATIENCE)
        ours = home.context().wrap_socket(ours, server_hostname="mail.example.net")
    c = SocketClient(ours, home.context)
    c.ehlo()
    if profile != "submissions":
        c.starttls()
        c.ehlo()
    c.auth_plain("alice", "wonder land")
    m = home.message(c.mail())
    assert "alice@192.0.2.8" in m.received and "ESMTPSA" in m.received
    c.quit()
    assert process.wait(20) == 0
    home.take()


def test_pipes(home):
    """Two pipes do as well as a socket (inetd-like tools, qmail's own tests)."""
    with open(home.logfile, "ab") as log:
        p = subprocess.Popen(home.argv("inetd", "-e", "-H", home.home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                             env={**harness.environment(), "TCPREMOTEIP": "192.0.2.9"})
    out, _ = p.communicate(b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n" + smtpc.MESSAGE +
                           b".\r\nQUIT\r\n", timeout=30)
    codes = [line[:3] for line in out.split(b"\r\n")[:-1] if line[3:4] == b" "]
    assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"] and p.returncode == 0
    assert len(home.take()) == 1


def test_end_of_input(home):
    c, process = pair_session(home)
    c.envelope_begun = c.ehlo()
    c.envelope(rcpts=["you@local.example"])
    c.cmd("DATA", 354)
    c.send(smtpc.MESSAGE)
    c.close()
    process.wait(20)
    home.assert_nothing()


@pytest.mark.parametrize("tool", ["tcpserver", "tcpsvd"])
def test_under(home, tool):
    """The classic supervisors; with tcpserver also its rules, compiled by tcprules."""
    port = tools.free_port()
    program = [home.binary, "inetd", "-e", "-H", home.home, "-P", "smtp"]
    if tool == "tcpserver":
        rules = os.path.join(home.top, "rules.cdb")
        tools.tcprules(rules, "127.50.:allow,RELAYCLIENT=\"\"\n127.51.:deny\n")
        argv = ["tcpserver", "-v", "-R", "-H", "-l", "0", "-c", "20", "-x", rules, "127.0.0.1", str(port), *program]
    else:
        argv = ["tcpsvd", "-v", "-l", "0", "-c", "20", "127.0.0.1", str(port), *program]
    with open(home.logfile + ".sup", "wb") as log:
        process = subprocess.Popen(home.house.argv(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=harness.environment(), start_new_session=True)
    try:
        def up():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False
        poll(up, tool)
        with smtpc.Client(("127.0.0.1", port), "127.50.0.1", context=home.context) as c:
            c.ehlo()
            c.starttls()
            c.ehlo()
            if tool == "tcpserver":
                m = home.message(c.mail())
            else:
                c.auth_plain("alice", "wonder land")
                m = home.message(c.mail())
            assert "127.50.0.1" in m.received and "ESMTPS" in m.received
            c.quit()
        with smtpc.Client(("127.0.0.1", port), "127.52.0.1") as c:
            c.ehlo()
            c.cmd("MAIL FROM:<me@client.example>", 250)
            c.cmd("RCPT TO:<you@far.example>", 550)
            c.quit()
        if tool == "tcpserver":
            with pytest.raises((smtpc.Closed, OSError)):
                smtpc.Client(("127.0.0.1", port), "127.51.0.1")
    finally:
        process.terminate()
        process.wait(20)
    home.take()
