# SPDX-License-Identifier: MIT
"""Times and limits of config.h, in a build where they are short and small; see variant.py for the numbers."""

import os
import signal
import socket
import time

import pytest

import harness
import radius
import smtpc
import tools
from tools import poll
from variant import QUICK

pytestmark = pytest.mark.release

PLAIN = {"smtp": "smtp 127.0.0.1:{}"}
THREE = {k: harness.LISTEN[k] for k in ("smtp", "submissions", "inside")}


@pytest.fixture
def quick(make_server, quick_binary):
    def make(**kw):
        kw.setdefault("listen", THREE)
        return make_server(binary=quick_binary, **kw)
    return make


def test_timeouts(quick):
    """
    421 4.4.2: for the next command, for the octets of a message, for a login that does not come, for a TLS handshake. And a client that
    never takes its replies is not waited for longer than for a command.
    """
    server, other = quick(), quick(listen={"inside": harness.LISTEN["inside"]})
    begin = time.monotonic()
    idle = server.session("smtp")
    data = server.session("inside")
    data.envelope()
    data.cmd("DATA", 354)
    data.send(b"Subject: x\r\n")
    half = server.session("smtp")
    half.send(b"NOO")
    bdat = server.session("inside")
    bdat.envelope()
    bdat.send(b"BDAT 100 LAST\r\nabc")
    silent = smtpc.Client(("127.0.0.1", server.port["submissions"]), tools.fresh_address(), hello=False)
    busy = server.session("submissions", login=None)
    deaf = other.session("inside")
    deaf.sock.settimeout(1)
    try:
        while time.monotonic() < begin + 8:
            deaf.send(b"NOOP\r\n" * 5000)
    except OSError:
        pass
    deaf_since = time.monotonic()
    told = [idle, data, half, bdat, busy]
    end = begin + 9.5
    while time.monotonic() < end:
        busy.cmd("NOOP", 250)  # what it says does not matter: it does not log in
        time.sleep(0.2)
    for c in told:
        c.sock.settimeout(5)
        r = c.reply(421)
        assert r.enhanced == "4.4.2", r
        c.closed()
        assert 9.5 < time.monotonic() - begin < 14
    assert silent.rest()[:1] in (b"", b"\x15")
    for c in told + [silent]:
        assert server.gone(c)["why"] in ("timeout", "tls-failed"), server.gone(c)
    poll(other.idle, "the end of the session that does not read", deaf_since + QUICK["TIMEOUT_COMMAND"] + 10 - time.monotonic())
    deaf.close()
    server.assert_nothing()


def test_total_limit_and_eviction(quick):
    """
    When all places of strangers are taken, the oldest of them that has waited is told to go; places of customers who are logged in
    are never given away.
    """
    server = quick()
    customers = [server.session("submissions") for _ in range(4)]
    strangers = [server.session("smtp") for _ in range(QUICK["PRELOGIN_MAX"])]
    time.sleep(QUICK["PRELOGIN_EVICT_SECONDS"] + 0.2)
    newcomer = server.connect("smtp")
    if newcomer.greeting == 421:  # the place becomes free for the next
        newcomer = poll(lambda: (lambda c: c if c.greeting == 220 else None)(server.connect("smtp")), "a place", every=0.1)
    assert newcomer.greeting == 220
    assert strangers[0].reply(421)
    for c in strangers[2:]:
        c.cmd("NOOP", 250)
    for c in customers:
        c.mail()
    for c in customers + strangers + [newcomer]:
        c.close()
    poll(server.idle, "the end")
    assert server.gone(strangers[0])["why"] == "shutdown"
    server.take()


def test_total_limit(quick):
    server = quick()
    customers = [server.session("submissions") for _ in range(QUICK["SESSIONS_MAX"])]
    with smtpc.Client(("127.0.0.1", server.port["smtp"]), tools.fresh_address(), hello=False) as c:
        assert c.reply(421).enhanced in ("4.7.0", "4.3.2")
    customers[0].quit()
    # Both processes of a session must be gone, and main must have heard of it.
    poll(lambda: (lambda c: c if c.greeting == 220 else None)(server.connect("smtp")), "a free place", every=0.1).close()
    for c in customers:
        c.close()
    poll(server.idle, "the end")


def test_penalties_are_forgotten(quick):
    server = quick()
    source = tools.fresh_address()

    def wrong():
        with server.session("submissions", login=None, source=source) as c:
            begin = time.monotonic()
            c.auth_plain("alice", "wrong", 535)
            return time.monotonic() - begin
    assert wrong() < 1.8 < wrong()
    time.sleep(QUICK["PENALTY_SECONDS"] + 0.2)
    assert wrong() < 1.8


def guess(server, times, source, user="alice"):
    """So many wrong passwords at once, whose answers nobody waits for; returns when all have been counted."""
    clients = [server.session("submissions", login=None, source=source) for _ in range(times)]
    for c in clients:
        c.send("AUTH PLAIN " + smtpc.b64("\0" + user + "\0guess") + "\r\n")
    poll(lambda: len(server.log("auth", client=source, result="reject")) >= times, "%d refusals" % times)
    return clients


def test_ban(quick):
    """
    BAN_FAILS failures of one address in a row: it gets 421, on every port, until PENALTY_SECONDS have passed; nobody else does, and who may relay
    without a login goes on doing so. A good login in between begins the count anew.
    """
    source, other = tools.fresh_address(), tools.fresh_address()
    server = quick()
    for c in guess(server, 3, source):
        c.close()
    assert [(e["client"], e["fails"], e["seconds"]) for e in server.log("ban")] == [(source, "3", "2")]
    for profile, said in (("smtp", b"421 4.7.0 too many failed logins from your address, try again later\r\n"), ("submissions", b"")):
        with socket.create_connection(("127.0.0.1", server.port[profile]), 5, (source, 0)) as c:
            assert c.recv(1000) == said
    server.session("submissions", source=other).close()
    assert [e["reason"] for e in server.log("limit", client=source)] == ["banned"] * 2
    time.sleep(2.2)
    server.session("submissions", source=source).close()

    server = quick()
    for c in guess(server, 2, source):
        c.close()
    server.session("submissions", source=source).close()
    for c in guess(server, 1, source):
        c.close()
    assert not server.log("ban")

    server = quick(prepare=lambda s: tools.tcprules(os.path.join(s.control, "tcp.smtp.cdb"), source + ':allow,RELAYCLIENT=""\n'))
    for c in guess(server, 3, source):
        c.close()
    assert len(server.log("ban")) == 1
    with server.session("smtp", source=source) as c:
        c.mail(rcpts=["v@far.example"])


def test_strangers_take_turns(quick):
    """
    An account that is guessed at from elsewhere: its owner logs in at once where she has been before; strangers, and she where she is new, wait
    for their turn, one a second, and when too many do, hear 454. Other accounts notice nothing.
    """
    server = quick()
    home, other_home, hotel = "127.67.1.1", "127.67.1.2", "127.67.2.1"
    server.session("submissions", source=home).close()
    for n in range(3):
        guess(server, 1, "127.68.%d.1" % n)[0].close()

    def seconds(source, user="alice", password="wonder land"):
        with server.session("submissions", login=None, source=source) as c:
            begin = time.monotonic()
            code = c.auth_plain(user, password, None).code
            return code, time.monotonic() - begin

    # Three at once: turns after 0, 1 and 2 seconds. Then the owner's, where she is new: too long. All sessions are there before, since
    # that takes its time.
    poll(server.idle, "the end of all sessions")
    strangers = [server.session("submissions", login=None, source="127.69.%d.1" % n) for n in range(3)]
    owner = server.session("submissions", login=None, source=hotel)
    for c in strangers:
        c.send("AUTH PLAIN " + smtpc.b64("\0alice\0guess") + "\r\n")
        time.sleep(0.1)
    begin = time.monotonic()
    owner.auth_plain("alice", "wonder land", 454)
    assert time.monotonic() - begin < 0.9
    owner.close()
    for source in (home, other_home):
        code, took = seconds(source)
        assert code == 235 and took < 0.9
    code, took = seconds(hotel, "carol", "carol-pw")
    assert code == 235 and took < 0.9
    for c in strangers:
        c.reply(535)
        c.close()
    event = server.log("auth", client=hotel, user="alice")[0]
    assert event["result"] == "later" and "strangers guess at this account" in event["reason"]
    # When there are fewer, she waits for her turn, and then is at home there, too.
    code, took = seconds("127.69.77.1", "alice", "guess")
    code, took = seconds("127.67.3.1")
    assert code == 235
    code, took = seconds("127.67.3.2")
    assert code == 235 and took < 0.9


def test_drain_ends(quick):
    """TERM waits for a sender, but not for ever."""
    server = quick(listen=PLAIN)
    c = server.session("smtp")
    c.envelope(rcpts=["you@local.example"])
    c.cmd("DATA", 354)
    c.send(b"Subject: x\r\n")
    begin = time.monotonic()
    server.kill(signal.SIGTERM)
    server.wait_exit(0)
    assert QUICK["DRAIN_SECONDS"] - 0.5 < time.monotonic() - begin < QUICK["DRAIN_SECONDS"] + 4
    poll(lambda: not server.left(), "all processes to be gone")
    assert b"250" not in c.rest()
    assert os.listdir(os.path.join(server.queue, "todo")) == []
    server.check_queue()


def test_radius_deadline(quick, make_double):
    """All servers together have RADIUS_DEADLINE seconds; the rest is not asked any more."""
    doubles = [make_double() for _ in range(4)]
    server = quick(radius="".join(d.line("1 3") for d in doubles))
    with server.session("submissions", login=None) as c:
        begin = time.monotonic()
        c.auth_plain("alice", "x", 454)
        assert 1 < time.monotonic() - begin < QUICK["RADIUS_DEADLINE"] + 1.5


def test_dead_time_ends(quick, make_double):
    first, second = make_double(), make_double(radius.accept)
    server = quick(radius=first.line("1 0") + second.line("1 0"))

    def login():
        with server.session("submissions", login=None) as c:
            c.auth_plain("alice", "x")
    login()
    login()
    assert len(first.requests) == 1
    first.answer = radius.accept
    second.answer = None
    time.sleep(QUICK["RADIUS_DEAD_SECONDS"] + 0.2)
    login()
    assert len(first.requests) == 2


def test_tls_sessions_are_forgotten(quick):
    """By age, and by newer ones."""
    server = quick()
    context = server.context()
    source = tools.fresh_address()

    def connect(session=None):
        c = smtpc.Client(("127.0.0.1", server.port["submissions"]), source, None, context, hello=False)
        c.wrap(session=session)
        c.reply(220)
        c.cmd("QUIT", 221)
        out = c.sock.session, c.sock.session_reused
        c.close()
        return out
    first, reused = connect()
    assert not reused and connect(first)[1]
    time.sleep(QUICK["TLS_CACHE_SECONDS"] + 0.2)
    assert not connect(first)[1]
    first, _ = connect()
    others = [connect()[0] for _ in range(QUICK["TLS_CACHE_MAX"])]
    assert not connect(first)[1]
    assert connect(others[-1])[1]


def test_compiled_limits(quick):
    """SMTP_RCPT_MAX 100, HOPS_MAX 10, BAD_COMMANDS_MAX 3."""
    server = quick(listen={"inside": harness.LISTEN["inside"]})
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        for n in range(100):
            c.cmd("RCPT TO:<u%d@far.example>" % n, 250)
        assert c.cmd("RCPT TO:<u100@far.example>", 452).enhanced == "4.5.3"
        assert len(server.message(c.data(smtpc.MESSAGE)).rcpts) == 100
        c.mail(b"Received: x\r\n" * 9 + smtpc.MESSAGE)
        c.mail(b"Received: x\r\n" * 10 + smtpc.MESSAGE, expect=554)
        c.cmd("FOO", 500)
        c.cmd("FOO", 500)
        c.send(b"FOO\r\n")
        if c.reply() == 500:
            c.reply(421)
        c.closed()
    poll(server.idle, "the end of the session, which removes the message that loops")
    server.take()


def test_qmail_42_clock_not_set(make_server, future_binary):
    """42: before its build date a clock is not set: 451, and no login is refused for it."""
    server = make_server(binary=future_binary, listen=THREE)
    with server.session("inside") as c:
        r = c.cmd("MAIL FROM:<me@client.example>")
        if r == 250:
            c.cmd("RCPT TO:<you@far.example>")
            r = c.cmd("DATA", 451)
        assert r == 451 and r.enhanced.startswith("4.3.")
    server.assert_nothing()
    with server.session("submissions", login=None) as c:
        c.auth_plain("alice", "wonder land")
    assert server.tool("check", check=False).text
