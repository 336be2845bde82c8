# SPDX-License-Identifier: MIT
"""Logins through a real FreeRADIUS: what it is asked, what its answers mean, and what happens when it does not answer."""

import os
import re
import socket
import time

import pytest

import radius
import smtpc
import tools
from radius import PASSWORD, SECRET

RADIUS_ONLY = {"submissions": "submissions 127.0.0.1:{}"}


def login(server, user, password=None, expect=235, source=None):
    """Returns (reply, seconds, log event)."""
    with server.session("submissions", login=None, source=source) as c:
        begin = time.monotonic()
        r = c.auth_plain(user, PASSWORD[user] if password is None else password, expect)
        seconds = time.monotonic() - begin
    events = server.log("auth", client=c.source)
    return r, seconds, events[-1] if events else None


# ---- What the server sees --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("profile", ["submission", "submissions", "smtp"])
def test_attributes(server, freeradius, profile):
    with server.session(profile, login=None, tls=profile != "submissions") as c:
        c.auth_plain("alice", "wonder land")
        sid = c.source
    (seen,) = freeradius.requests(calling=sid)
    assert seen["User-Name"] == "alice" and seen["User-Password"] == "wonder land"
    assert seen["NAS-Identifier"] == "mail.example.net"
    assert seen["NAS-IP-Address"] == "127.0.0.1"
    assert seen["NAS-Port-Type"] == "Virtual" and seen["Service-Type"] == "Login-User"
    assert seen["Calling-Station-Id"] == c.source
    assert str(server.port[profile]) in seen["Called-Station-Id"] and "127.0.0.1" in seen["Called-Station-Id"]
    assert seen["Acct-Session-Id"] and re.fullmatch(r"0x[0-9a-f]{32}", seen["Message-Authenticator"])
    assert server.gone(c)["sid"] in seen["Acct-Session-Id"]


def test_session_ids_differ(server, freeradius):
    sources = [login(server, "alice")[2]["client"] for _ in range(3)]
    ids = [freeradius.requests(calling=s)[0]["Acct-Session-Id"] for s in sources]
    assert len(set(ids)) == 3


def test_utf8(server, freeradius):
    _, _, event = login(server, "jürgen")
    assert event["user"] == "jürgen"
    (seen,) = freeradius.requests(calling=event["client"])
    assert seen["User-Name"] == "jürgen" and seen["User-Password"] == PASSWORD["jürgen"]


NAMES = ["Alice", "ALICE", "alice ", " alice"]
SERVICES = {
    "alice": 235,   # no Service-Type
    "carol": 235,   # Login-User, as asked
    "grace": 235,   # other attributes, too
    "dave": 535,    # Framed-User: an account for something else
    "adam": 535,    # Administrative-User
    "eve": 535,     # a Service-Type that RFC 2865 does not know: a reject (5.6)
}
REJECTS = [("bob", "x"), ("nobody", "x"), ("alice", "Wonder land"), ("alice", "wonder land "), ("chloe", "x")]


@pytest.fixture(scope="module")
def logins(shared_server):
    return tools.Crowd({**{n: lambda n=n: login(shared_server, n, "wonder land", (235, 535)) for n in NAMES},
                        **{u: lambda u=u: login(shared_server, u, expect=SERVICES[u]) for u in SERVICES},
                        **{p: lambda p=p: login(shared_server, *p, expect=535) for p in REJECTS}})


@pytest.mark.parametrize("user", NAMES)
def test_names_are_sent_as_they_are(logins, freeradius, user):
    """No folding, no trimming: that is the RADIUS server's business."""
    _, _, event = logins[user]
    assert freeradius.requests(calling=event["client"])[0]["User-Name"].rstrip() == user.rstrip()


def test_realm(server):
    login(server, "frank@isp.example")


# ---- What its answers mean -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user", list(SERVICES))
def test_service_type(logins, user):
    r, _, event = logins[user]
    assert event["result"] == ("accept" if SERVICES[user] == 235 else "reject")
    assert r.enhanced == ("2.7.0" if SERVICES[user] == 235 else "5.7.8")


@pytest.mark.parametrize("pair", REJECTS)
def test_reject(logins, freeradius, pair):
    """535 after a while; and no second try after a reject (RFC 5080 2.6.1). A challenge is a reject (RFC 2865 4.4)."""
    r, seconds, event = logins[pair]
    assert r.enhanced == "5.7.8" and 0.9 < seconds < 5
    assert event["result"] == "reject" and event["user"] == pair[0]
    assert len(freeradius.requests(calling=event["client"])) == 1


def test_reply_message_changes_nothing(server):
    """Display text (RFC 2865 5.18): never a reply line or a log line of its own."""
    r, _, event = login(server, "grace")
    assert "\n" not in r.text and event["result"] == "accept"


# ---- Servers in trouble ----------------------------------------------------------------------------------------------

def small(make_server, text, **kw):
    return make_server(radius=text, listen=RADIUS_ONLY, **kw)


def no_login(server, trouble=None, at_most=15.5):
    """454 4.7.0, in time, and the log says what is wrong."""
    r, seconds, event = login(server, "alice", expect=454)
    assert r.enhanced == "4.7.0" and seconds < at_most
    assert event["result"] == "later"
    if trouble:
        line = server.log("radius")[-1]
        assert line["trouble"] == trouble and len(line["msg"]) > 10
        assert SECRET not in server.tail(100000)
    return seconds


def test_wrong_secret(make_server, freeradius):
    """FreeRADIUS drops a request whose seal does not fit, so all we see is silence."""
    server = small(make_server, "127.0.0.1:%d not-the-secret-at-all 1 0\n" % freeradius.port)
    no_login(server, "no-answer", 5)


def test_wrong_secret_with_an_answer(make_server, make_double):
    """A server that answers with another secret: said plainly."""
    double = make_double(lambda r, d: r.reply(radius.REJECT, secret="another"))
    server = small(make_server, double.line())
    no_login(server, "wrong-secret", 5)


def test_unsigned_server(make_server, freeradius):
    """A server without Message-Authenticator (before 2024) is not believed (CVE-2024-3596), and the log names the remedy."""
    server = small(make_server, "127.0.0.1:%d %s 1 0\n" % (freeradius.unsigned, SECRET))
    no_login(server, "unsigned", 5)
    assert server.tool("check").returncode == 0


def test_unsigned_server_allowed(make_server, freeradius):
    server = small(make_server, "127.0.0.1:%d %s 1 0 unsigned\n" % (freeradius.unsigned, SECRET))
    login(server, "alice")
    login(server, "bob", "x", 535)
    assert not server.log("radius")
    assert server.log("config", level="warning") or "CVE-2024-3596" in server.tail(1000)


@pytest.fixture(scope="module", autouse=True)
def silence(work, house):
    """A login with default timers and a server that says nothing; begun first, since it takes a quarter of a minute."""
    import harness
    double = radius.Double()
    server = harness.Server(work, house, "%s %s\n" % (double.address, SECRET), listen=RADIUS_ONLY)
    crowd = tools.Crowd({"login": lambda: no_login(server, "no-answer")})
    yield crowd, double
    server.stop()
    double.stop()


def test_silent_server(silence):
    """With default timers the client waits at most 15 seconds (RADIUS_DEADLINE); retransmissions are exact (RFC 5080 2.2.1)."""
    crowd, double = silence
    seconds = crowd["login"]
    assert seconds > 5
    assert 2 <= len(double.requests) <= 6
    assert len({r.raw for r in double.requests}) == 1
    waits = [b.time - a.time for a, b in zip(double.requests, double.requests[1:])]
    # Two seconds, then four, each a tenth more or less, and later when the machine is busy.
    assert 1.7 < waits[0] < 3 and (len(waits) < 2 or 3.2 < waits[1] < 6)


def test_closed_port(make_server):
    port = tools.free_port(socket.SOCK_DGRAM)
    server = small(make_server, "127.0.0.1:%d %s\n" % (port, SECRET))
    assert no_login(server, "network", 5) < 5


def test_timeouts_of_radius_conf(make_server, make_double):
    double = make_double()
    server = small(make_server, double.line("1 1"))
    seconds = no_login(server, "no-answer", 5)
    assert 2.5 < seconds < 4 and len(double.requests) == 2


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "127.0.0.1\n", "127.0.0.1:x secret\n", "127.0.0.1 secret one two\n",
                                  "127.0.0.1 se\0cret\n", "127.0.0.1 %s\n" % ("s" * 129), "127.0.0.1 secret 0\n", "127.0.0.1 s 1 1 x\n"])
def test_bad_radius_conf(make_server, text):
    """Nobody can log in, and `check` and the log say why; the secret is never shown."""
    server = small(make_server, text)
    no_login(server, at_most=2)
    p = server.tool("check", check=False)
    if not (text is None and os.path.exists("/etc/radius.conf")):
        assert p.returncode == 1 and "control/radius.conf: error: " in re.sub(r":\d+:", ":", p.text)
        assert text is not None or "radius.conf: error: not there, and /etc/radius.conf cannot be read: No such file" in p.text
    assert "secret one" not in p.text and "sss" not in p.text


def test_many_servers(make_server, freeradius):
    lines = "".join("127.0.0.1:%d %s 1 0\n" % (tools.free_port(socket.SOCK_DGRAM), SECRET) for _ in range(7))
    server = small(make_server, lines + "127.0.0.1:%d %s 1 0\n" % (freeradius.port, SECRET))
    login(server, "alice")
    assert len({e["server"] for e in server.log("radius")}) == 7


def test_fail_over_and_dead_time(make_server, make_double, freeradius):
    """The first server is silent: the second answers. Other sessions then do not wait for the first again."""
    double = make_double()
    server = small(make_server, double.line("1 0") + "127.0.0.1:%d %s 1 0\n" % (freeradius.port, SECRET))
    _, seconds, event = login(server, "alice")
    assert 0.8 < seconds < 3 and str(freeradius.port) in event["server"]
    assert server.log("radius")[-1]["trouble"] == "no-answer"
    for _ in range(3):
        _, seconds, _ = login(server, "alice")
        assert seconds < 0.8
    _, seconds, _ = login(server, "bob", "x", 535)
    assert len(double.requests) == 1


def test_dead_servers_are_asked_last(make_server, make_double):
    """The good server falls silent, too: one that was never in trouble is asked before one that was."""
    dead, fading, fresh = make_double(), make_double(radius.accept), make_double(radius.accept)
    server = small(make_server, dead.line() + fading.line() + fresh.line())
    login(server, "alice")
    assert [len(d.requests) for d in (dead, fading, fresh)] == [1, 1, 0]
    fading.answer = None
    login(server, "alice")
    assert [len(d.requests) for d in (dead, fading, fresh)] == [1, 2, 1]


def test_fail_back(make_server, make_double):
    """The good server goes away, the dead one comes back: it is asked last, but it is asked."""
    state = {"first": None, "second": radius.accept}
    first = make_double(lambda r, d: state["first"] and state["first"](r))
    second = make_double(lambda r, d: state["second"] and state["second"](r))
    server = small(make_server, first.line() + second.line())
    login(server, "alice")
    assert len(first.requests) == 1 and len(second.requests) == 1
    state.update(first=radius.accept, second=None)
    login(server, "alice")
    login(server, "alice")
    assert len(second.requests) == 2 and len(first.requests) == 3


def test_reject_is_final(make_server, make_double):
    """A reject of the first server is not taken to the second."""
    first, second = make_double(radius.reject), make_double(radius.accept)
    server = small(make_server, first.line() + second.line())
    login(server, "alice", expect=535)
    assert not second.requests


def test_server_by_name(make_server, freeradius):
    server = small(make_server, "localhost:%d %s 1 0\n" % (freeradius.port, SECRET))

    def works():
        return login(server, "alice", expect=(235, 454))[0] == 235
    tools.poll(works, "the name to be resolved", 10, every=0.3)


def test_unknown_name(make_server):
    server = small(make_server, "no-such-host.invalid %s 1 0\n" % SECRET)
    no_login(server, "no-address", 15)


@pytest.mark.ipv6
def test_server_on_ipv6(make_server, make_double):
    double = make_double(radius.accept, host="::1")
    server = small(make_server, double.line())
    login(server, "alice")
    (request,) = double.requests
    assert request.get(95) == [b"\0" * 15 + b"\1"]


def test_reload_changes_servers(make_server, make_double):
    old, new = make_double(), make_double(radius.accept)
    server = small(make_server, old.line("1 0"))
    no_login(server, "no-answer", 5)
    server.set(**{"radius.conf": new.line("1 0")})
    server.reload()
    login(server, "alice")
    assert len(new.requests) == 1


# ---- check radius ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user,password,status", [("alice", "wonder land", 0), ("alice", "wrong", 1), ("bob", "x", 1), ("dave", "dave-pw", 1)])
def test_check_radius(server, user, password, status):
    p = server.tool("check", "radius", user, input=(password + "\n").encode(), check=False)
    assert p.returncode == status, p.text
    assert password not in p.text and SECRET not in p.text


def test_check_radius_without_an_answer(make_server, make_double):
    double = make_double()
    server = small(make_server, double.line("1 0"))
    p = server.tool("check", "radius", "alice", input=b"x\n", check=False)
    assert p.returncode == 111, p.text


# ---- Details on the wire ---------------------------------------------------------------------------------------------

def test_request_on_the_wire(make_server, make_double):
    """Octet by octet: RFC 2865, 2869 5.14; CVE-2024-3596: Message-Authenticator in every request, and first."""
    double = make_double(radius.accept)
    server = small(make_server, double.line())
    for user in ("alice", "len1", "len16", "len17", "len112", "len113", "len128"):
        login(server, user)
        r = double.requests[-1]
        assert r.code == radius.ACCESS_REQUEST and r.signature_fits()
        assert r.attributes[0][0] == radius.MESSAGE_AUTHENTICATOR
        assert r.get(radius.USER_NAME) == [user.encode()]
        assert r.password == PASSWORD[user].encode()
        assert len(r.get(radius.USER_PASSWORD)[0]) == max(16, (len(PASSWORD[user]) + 15) // 16 * 16)
        assert r.get(radius.SERVICE_TYPE) == [b"\0\0\0\1"] and r.get(radius.NAS_PORT_TYPE) == [b"\0\0\0\5"]
        assert r.get(radius.NAS_ID) == [b"mail.example.net"] and r.get(radius.NAS_IP) == [b"\x7f\0\0\1"]
        assert all(len(value) > 0 for _, value in r.attributes)
    assert len({r.authenticator for r in double.requests}) == len(double.requests)
    assert len({r.address for r in double.requests}) > 1  # a socket of its own for each


def test_ids_and_authenticators_are_random(make_server, make_double):
    double = make_double(radius.accept)
    server = small(make_server, double.line())
    for _ in range(12):
        login(server, "alice")
    ids = [r.id for r in double.requests]
    assert len(set(ids)) > 6, ids
    assert [b - a for a, b in zip(ids, ids[1:])].count(1) < 6, "ids count up"


def test_no_password_in_the_clear(make_server, make_double):
    double = make_double(radius.accept)
    server = small(make_server, double.line())
    login(server, "alice", "sesame-sesame-sesame")
    assert b"sesame" not in double.requests[0].raw


def test_parallel_logins(make_server, make_double):
    """Many sessions at once, replies out of order: each gets its own answer."""
    waiting = []

    def answer(request, double):
        waiting.append(request)
        if len(waiting) < 10:
            return None
        out = [(double.sock, r.reply(radius.ACCEPT if r.get(1)[0].endswith(b"good") else radius.REJECT)) for r in reversed(waiting)]
        for (sock, packet), r in zip(out, reversed(waiting)):
            sock.sendto(packet, r.address)
        waiting.clear()
        return None
    double = make_double(answer)
    server = small(make_server, double.line("5 0"))
    clients = [server.session("submissions", login=None) for _ in range(10)]
    for n, c in enumerate(clients):
        c.send("AUTH PLAIN %s\r\n" % smtpc.b64("\0u%d%s\0x" % (n, "good" if n % 3 else "bad")))
    for n, c in enumerate(clients):
        c.reply(235 if n % 3 else 535)
        c.close()
