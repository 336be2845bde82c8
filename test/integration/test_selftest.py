# SPDX-License-Identifier: MIT
"""selftest: each of its lines, with what it is about in order and out of order."""

import contextlib
import os
import re
import socket
import subprocess
import time

import pytest

import harness
import radius
import remote
import tools
from remote import Peer

DOMAIN = "gmail.com"  # SELFTEST_DOMAIN
RESERVED = "192.0.2.77"


def selftest(s, mounts=(), check=None):
    """{what: (well, text)}; each line is one or the other, or was not tried (None), and the last one counts."""
    began = time.monotonic()
    if tools.ROOT and not mounts:
        mounts = s.usual
    p = subprocess.run(s.house.argv([harness.BINARY, "selftest", "-H", s.home], mounts), env=harness.environment(), stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    text = p.stdout.decode("ascii")
    *lines, last = [line for line in text.splitlines() if not re.match(r"(/.*: )?error: ", line)]
    found = [re.fullmatch(r"(ok|NO|--)  ([^:]+(?: [0-9.\[\]:a-f]+)?): (.+)", line) for line in lines]
    assert all(found), text
    bad = sum(m.group(1) == "NO" for m in found)
    assert last == ("%d of these are not well" % bad if bad else "all is well") and p.returncode == (1 if bad else 0), text
    assert check is None or time.monotonic() - began < check
    return {m.group(2): ({"ok": True, "NO": False, "--": None}[m.group(1)], m.group(3)) for m in found}


@pytest.fixture
def served(make_server, scratch):
    """A function: a running server with these control files. As root with a name server, so that no test depends on the machine's."""
    with contextlib.ExitStack() as stack:
        resolv = tools.write(os.path.join(scratch, "usual"), "nameserver 127.66.66.53\n")
        if tools.ROOT:
            stack.enter_context(remote.Names({}, ("127.66.66.53", 53)))

        def make(listen=None, **control):
            s = make_server(listen=listen, control=control)
            s.usual = ["mount --bind %s /etc/resolv.conf" % resolv]
            return s
        yield make


def test_radius(served, freeradius):
    """The right secret, a wrong one, a server that does not sign, nobody."""
    s = served()
    dead = tools.free_port(socket.SOCK_DGRAM)
    s.set(**{"radius.conf": "127.0.0.1:%d %s\nlocalhost:%d not-the-secret-at-all\n127.0.0.1:%d %s 1 0 unsigned\n" % (
        freeradius.port, radius.SECRET, freeradius.port, freeradius.unsigned, radius.SECRET)})
    p = s.tool("selftest", check=False).text
    lines = [line for line in p.splitlines() if "RADIUS" in line]
    assert lines[0] == "ok  RADIUS server 127.0.0.1: answers, signs, and knows the secret"
    assert lines[1].startswith("NO  RADIUS server localhost: ") and "secret" in lines[1]  # FreeRADIUS is silent then
    assert lines[2].startswith("NO  RADIUS server 127.0.0.1: ") and "Message-Authenticator" in lines[2]
    assert len(lines) == 3 and radius.SECRET not in p and "not-the-secret" not in p
    s.set(**{"radius.conf": "127.0.0.1:%d %s\n" % (dead, radius.SECRET)})
    assert selftest(s)["RADIUS server 127.0.0.1"][0] is False
    s.set(**{"radius.conf": None})


def test_radius_lets_anybody_in(served):
    s = served()
    d = radius.Double(radius.accept)
    s.set(**{"radius.conf": d.line("1 0")})
    ok, text = selftest(s)["RADIUS server 127.0.0.1"]
    assert not ok and "anybody" in text
    d.stop()


def test_certificate(served, scratch):
    s = served()
    cert, key = os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem")
    ok, text = selftest(s)["certificate"]
    assert ok and "self-signed" in text and "9999-12-31" in text  # the server's own
    for name in ("other.example.net", "mail.example.net"):
        tools.make_certificate(cert, key, name=name)
        ok, text = selftest(s)["certificate"]
        assert ok == (name == "mail.example.net") and ("another name" in text) != ok, text
    ca = remote.Authority(os.path.join(scratch, "ca"))
    day = lambda n: time.strftime("%Y%m%d000000Z", time.gmtime(time.time() + n * 86400))
    for days, want, ok in (((day(-9), day(-2)), "not valid", False), ((day(-9), day(5)), "ends soon", False), ((day(2), day(90)), "not valid", False)):
        chain, its = ca.issue("mail.example.net", days=days)
        tools.write(cert, tools.read(chain))
        tools.write(key, tools.read(its), 0o600)
        have = selftest(s)["certificate"]
        assert have[0] is ok and want in have[1], have
        assert time.strftime("%Y-%m-%d", time.strptime(days[1], "%Y%m%d%H%M%SZ")) in have[1]
    chain, its = ca.issue("mail.example.net")
    tools.write(cert, tools.read(chain))
    tools.write(key, tools.read(its), 0o600)
    have = selftest(s)["certificate"]
    assert "of no authority" in have[1] or "no authorities here" in have[1], have
    tools.write(key, "nothing\n")
    assert selftest(s)["certificate"][0] is False
    s.stop()
    os.unlink(cert)
    assert selftest(s)["certificate"] == (None, "none yet; the server makes one at its first start")


@pytest.mark.root
def test_certificate_of_an_authority(served, scratch):
    """A bundle that has our authority says so; a chain without its intermediate is found out."""
    s = served()
    ca = remote.Authority(os.path.join(scratch, "ca"))
    chain, key = ca.issue("mail.example.net")
    bundle = tools.write(os.path.join(scratch, "bundle"), tools.read(ca.cert))
    place = "/etc/ssl/certs/ca-certificates.crt"
    if not os.path.exists(place):
        pytest.fail("no " + place)
    tools.write(os.path.join(s.control, "servercert.pem"), tools.read(chain))
    tools.write(os.path.join(s.control, "serverkey.pem"), tools.read(key), 0o600)
    ok, text = selftest(s, ["mount --bind %s %s" % (bundle, place)])["certificate"]
    assert ok and text.startswith("valid until 20") and len(text) == len("valid until 2026-11-27"), text
    other = remote.Authority(os.path.join(scratch, "cb"), "Another CA")
    ok, text = selftest(s, ["mount --bind %s %s" % (other.cert, place)])["certificate"]
    assert not ok and "of no authority" in text


def test_relay(served):
    """One that takes mail; one that greets with an evil word; one that stalls; one that is not there. Each within its time."""
    with Peer() as good, Peer({"greet": b"554 go\x1b[2J away\r\n"}) as bad, Peer({"greet": remote.STALL}) as slow:
        s = served(relay="on\n")
        s.set(smtproutes=remote.route(good))
        assert selftest(s)["relay 127.0.0.1"] == (True, "takes mail")
        assert good.talk.verbs[0] == "EHLO" and "MAIL" not in good.talk.verbs
        s.set(smtproutes=remote.route(bad) + remote.route(slow, domain="slow.example") + "free.example:127.0.0.1:%d\n" % tools.free_port())
        found = selftest(s, check=30)
        assert found["relay for all mail"][0] is False and "554 go" in found["relay for all mail"][1] and "\x1b" not in found["relay for all mail"][1]
        assert found["relay for slow.example"] == (False, "127.0.0.1: instead of a greeting: it took too long")
        assert found["relay for free.example"] == (False, "127.0.0.1: no connection: Connection refused")
        assert "port 25 outwards" not in found


def test_relay_with_login(served, scratch):
    """The login is tried; the password is not shown."""
    ca = remote.Authority(os.path.join(scratch, "ca"))
    pair = ca.issue("relay.example")
    keys = ("PIPELINING", "AUTH PLAIN")
    for answer, want in ((b"235 yes\r\n", True), (b"535 no\r\n", False)):
        with Peer({"auth": answer}, keywords=("STARTTLS",), tls_keywords=keys, context=remote.context(pair)) as peer:
            s = served(relay="on\n", smtproutes=":127.0.0.1:%d\n" % peer.port, smtptls="127.0.0.1:pin %s\n" % remote.pin(pair[0]))
            s.set(smtpauth="127.0.0.1:me:its secret\n")
            os.chmod(os.path.join(s.control, "smtpauth"), 0o600)
            found = selftest(s)
            (name,) = [k for k in found if k.startswith("relay ")]
            assert found[name][0] is want and ("and the login" in found[name][1] or "refuses the login: 535" in found[name][1]), found
            assert "its secret" not in str(found)


def test_door(served):
    """Shut for strangers; open; not tried from where everybody may; nobody listens."""
    s = served()
    found = selftest(s)
    for profile in ("submission", "submissions", "smtp"):
        assert found["door at port %d" % s.port[profile]] == (True, "strangers may not send to anybody")
    assert "door at port %d" % s.port["inside"] not in found
    assert not s.files() or not [f for f in s.files() if "todo" in f]
    s.set(rcpthosts="local.example\nopen-relay.invalid\n")
    s.reload()
    found = selftest(s)
    assert found["door at port %d" % s.port["smtp"]][0] is False and "OPEN RELAY" in found["door at port %d" % s.port["smtp"]][1]
    assert found["door at port %d" % s.port["submission"]][0] is True
    s.set(rcpthosts="local.example\n", relayclients="127.0.0.1\n")
    s.reload()
    found = selftest(s)
    ok, text = found["door at port %d" % s.port["smtp"]]
    assert ok is None and "not tried" in text
    for profile in ("submission", "submissions"):  # there it does not count
        assert found["door at port %d" % s.port[profile]] == (True, "strangers may not send to anybody")
    rules = os.path.join(s.control, "tcp.smtp.cdb")
    for wide in ("0.0.0.0/0\n", "::/0\n", None):
        s.set(relayclients=wide)
        if wide is None:
            tools.tcprules(rules, ':allow,RELAYCLIENT=""\n')
        s.reload()
        found = selftest(s)
        ok, text = found["door at port %d" % s.port["smtp"]]
        assert ok is False and "OPEN RELAY" in text, wide
        assert found["door at port %d" % s.port["submission"]] == (True, "strangers may not send to anybody")
    os.unlink(rules)
    s.stop()
    ok, text = selftest(s)["door at port %d" % s.port["smtp"]]
    assert ok is False and "refused; no server runs at this port" in text


@pytest.mark.root
def test_names_and_port_25(served, scratch):
    s = served(relay="on\n", smtproutes="")
    there, silent = tools.fresh_address(), tools.fresh_address()
    resolv = tools.write(os.path.join(scratch, "resolv.conf"), "nameserver %s\noptions timeout:1 attempts:2\n" % there)
    mounts = ["mount --bind %s /etc/resolv.conf" % resolv]
    zone = {DOMAIN: {"MX": [(10, "mx.example")]}, "mx.example": {"A": [there]}}
    with remote.Names(zone, (there, 53)):
        with Peer(address=there, port=25) as peer:
            found = selftest(s, mounts)
            assert found["name servers"] == (True, "answer") and found["port 25 outwards"] == (True, "open")
            assert not [t.lines for t in peer.talks if t.lines]
        found = selftest(s, mounts)
        assert found["port 25 outwards"][0] is False and "smarthost" in found["port 25 outwards"][1]
    tools.write(resolv, "nameserver %s\noptions timeout:1 attempts:2\n" % silent)
    found = selftest(s, mounts, check=60)
    assert found["name servers"][0] is False and silent in found["name servers"][1]
    assert found["port 25 outwards"][0] is False


@pytest.mark.root
def test_no_way_out(served):
    """In a network of its own, where nothing is."""
    s = served()
    argv = ["unshare", "--net", *s.house.argv([harness.BINARY, "selftest", "-H", s.home])]
    text = tools.run(*argv, check=False, env=harness.environment()).text
    assert "NO  network: no way out" in text and "ok  clock: set" in text


@pytest.mark.root
@pytest.mark.release
def test_who_they_are(served, freeradius, scratch):
    """Each test has given up root before it meets anybody; none of them has a key."""
    with Peer({"greet": remote.STALL}) as slow:
        s = served(relay="on\n", smtproutes=remote.route(slow))
        p = subprocess.Popen(s.house.argv([harness.BINARY, "selftest", "-H", s.home]), env=harness.environment(), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        tools.poll(lambda: slow.talks, "the connection")
        (child,) = tools.children(p.pid)
        status = tools.read("/proc/%d/status" % child.pid).decode()
        assert re.search(r"^Uid:\s+%d\s+%d\s+%d\s+%d$" % ((harness.USERS["qmailr"],) * 4), status, re.M)
        assert re.search(r"^Groups:\s*$", status, re.M)
        p.wait(60)


def test_usage(served):
    s = served()
    for words in (["x"], ["-Z"], ["-H"]):
        assert tools.run(*s.house.argv([harness.BINARY, "selftest", *words]), check=False, env=harness.environment()).returncode == 100
    s.set(me="bad name\n")
    p = s.tool("selftest", check=False)
    assert p.returncode == 1 and "control/me:1: error" in p.text
    s.set(me="mail.example.net\n")
