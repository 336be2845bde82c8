# SPDX-License-Identifier: MIT
"""
Clients that take their time, in every phase: silent, an octet now and then, not reading what they are told. Each has its end, and until then
costs nothing but its place. In a build where 10 seconds are long, and a session may last 60; the order of the real times is looked at below.
"""

import concurrent.futures
import re
import select
import socket
import time

import pytest

import harness
import rawtls
import smtpc
import tools
from abuse import Watch
from rawtls import DATA, RawTls
from variant import SLOW

pytestmark = pytest.mark.release

EACH = 3       # clients of each kind
LATE = 6.0     # seconds by which an end may come late on a busy machine
MAIL, RCPT = b"MAIL FROM:<me@client.example>\r\n", b"RCPT TO:<you@local.example>\r\n"


def hold(c, drip=b"", every=0.35):
    """Say the octets of `drip` one by one until the server ends it. Returns the seconds, and what came."""
    begin, came, at = time.monotonic(), c.buffer, 0
    c.sock.setblocking(False)
    while time.monotonic() < begin + 75:
        ready = select.select([c.sock], [], [], every)[0]
        try:
            if ready:
                data = socket.socket.recv(c.sock, 65536)
                came += data
                if not data:
                    break
            elif at < len(drip):
                socket.socket.send(c.sock, drip[at:at + 1])
                at += 1
        except BlockingIOError:
            pass
        except OSError:
            break
    return time.monotonic() - begin, came


def plain(server, *lines, profile="smtp", ready=True):
    """A connection in the clear on which these lines were said, and answered if they are whole."""
    c = server.connect(profile)
    if ready:
        c.ehlo()
    for line in lines:
        c.send(line)
        if line.endswith(b"\r\n"):
            c.reply()
    return c


def tls(server, *lines, login=False, profile="submissions"):
    c = RawTls(server, profile, tools.fresh_address())
    c.ehlo()
    if login:
        c.auth_plain("alice", "wonder land")
    for line in lines:
        c.send(line)
        if line.endswith(b"\r\n"):
            c.reply()
    return c


def hello_of(server):
    return rawtls.hello(server.context())


def handshake(server, *pieces, profile="submissions"):
    """As far as `pieces` go."""
    c = smtpc.Client(("127.0.0.1", server.port[profile]), tools.fresh_address(), hello=profile != "submissions")
    if profile != "submissions":
        c.ehlo()
        c.cmd("STARTTLS", 220)
    for piece in pieces:
        c.send(piece)
    return c


def unread(server):
    """Whole commands, the replies to which nobody takes, until no more fit into the pipe."""
    c = server.session("inside")
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    c.sock.settimeout(1)
    try:
        while True:
            c.send(b"HELP\r\n" * 2000)
    except OSError:
        pass
    return c


def no_window(server):
    """A client that says it can take nothing: a receive buffer of the least size, full."""
    c = smtpc.Client(("127.0.0.1", server.port["inside"]), tools.fresh_address(harness.RELAY_NET), hello=False)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    c.sock.settimeout(0.5)
    try:
        c.send(b"EHLO x\r\n" * 100000)
    except OSError:
        pass
    return c


def deaf(server):
    """Who has closed his ears, but not his mouth."""
    c = server.session("inside")
    c.sock.shutdown(socket.SHUT_RD)
    return c


READY = (MAIL, RCPT)
# name: (how it gets there, what it says an octet at a time, the last words, why). TIMEOUT: 421 4.4.2. TLS: the same, sealed. SILENT: nothing.
TIMEOUT, TLS, SILENT = "timeout", "tls", "silent"
TRICKLE = b"x" * 500
CLIENTS = {
    "says nothing, 25": (lambda s: plain(s, ready=False), b"", TIMEOUT),
    "says nothing, 587": (lambda s: plain(s, ready=False, profile="submission"), b"", TIMEOUT),
    "says nothing, 465": (handshake, b"", SILENT),
    "EHLO without end": (lambda s: plain(s, b"EHLO ", ready=False), TRICKLE, TIMEOUT),
    "EHLO without end, 587": (lambda s: plain(s, b"EHLO ", ready=False, profile="submission"), TRICKLE, TIMEOUT),
    "after EHLO": (plain, b"", TIMEOUT),
    "MAIL without end": (lambda s: plain(s, b"MAIL FROM:<"), TRICKLE, TIMEOUT),
    "RCPT without end": (lambda s: plain(s, MAIL, b"RCPT TO:<"), TRICKLE, TIMEOUT),
    "after RCPT": (lambda s: plain(s, *READY), b"", TIMEOUT),
    "after DATA": (lambda s: plain(s, *READY, b"DATA\r\n"), b"", TIMEOUT),
    "in a header": (lambda s: plain(s, *READY, b"DATA\r\n", b"Subject: x"), b"", TIMEOUT),
    "before the dot": (lambda s: plain(s, *READY, b"DATA\r\n", b"\r\nx\r\n."), b"", TIMEOUT),
    "in a chunk": (lambda s: plain(s, *READY, b"BDAT 1000\r\n"[:-2] + b"\r\nabc"), b"", TIMEOUT),
    "between chunks": (lambda s: plain(s, *READY, b"BDAT 2\r\n"[:-2] + b"\r\n\r\n"), b"", TIMEOUT),
    "BDAT without end": (lambda s: plain(s, *READY, b"BDAT 1"), b"0" * 300, TIMEOUT),
    "a chunk nobody wants": (lambda s: plain(s, b"BDAT 1000\r\n"[:-2] + b"\r\nabc"), b"", TIMEOUT),
    "after a message": (lambda s: plain(s, *READY, b"DATA\r\n", b"Subject: slow\r\n\r\nx\r\n.\r\n"), b"", TIMEOUT),
    "in QUIT": (lambda s: plain(s, b"QUIT"), TRICKLE, TIMEOUT),
    "replies unread": (unread, b"", None),
    "no window": (no_window, b"", None),
    "deaf": (deaf, b"", None),
    "hello, nothing": (lambda s: handshake(s, hello_of(s)[:5]), b"", SILENT),
    "hello by octets": (lambda s: handshake(s, hello_of(s)[:1]), b"\x03\x01\x02\x00" + bytes(300), SILENT),
    "after the hello": (lambda s: handshake(s, hello_of(s)), b"", SILENT),
    "key exchange by octets": (lambda s: handshake(s, hello_of(s), b"\x16\x03\x03\x00\x25\x10\0\0"), b"\x21\x20" + bytes(100), SILENT),
    "after STARTTLS": (lambda s: handshake(s, profile="smtp"), b"", SILENT),
    "STARTTLS, hello by octets": (lambda s: handshake(s, hello_of(s)[:1], profile="submission"), b"\x03\x01\x02\x00" + bytes(300), SILENT),
    "no login": (tls, b"", TLS),
    "in a login": (lambda s: tls(s, b"AUTH LOGIN\r\n"), b"", TLS),
    "in a name": (lambda s: tls(s, b"AUTH LOGIN\r\n", b"YWxpY2U"), b"", TLS),
    "before the password": (lambda s: tls(s, b"AUTH LOGIN\r\n", b"YWxpY2U=\r\n"), b"", TLS),
    "a record by octets": (lambda s: tls(s, b"NOOP", login=True), b"\x17\x03\x03\x20\x00" + bytes(300), TLS),
    "half a record": (lambda s: half_a_record(tls(s, login=True)), b"", TLS),
    "after a login": (lambda s: tls(s, login=True), b"", TLS),
    "DATA under TLS": (lambda s: tls(s, *READY, b"DATA\r\n", b"Subject: x", login=True), b"", TLS),
    "a message in half a record": (lambda s: half_a_record(tls(s, *READY, b"DATA\r\n", login=True)), b"", TLS),
    "empty records": (lambda s: tls(s, login=True), None, TLS),
}


def half_a_record(c):
    c.send_raw(c.seal(DATA, b"\r\nx\r\n.\r\nNOOP\r\n")[:25])
    return c


def empty_records(c):
    """Not a single octet of SMTP, but something all the time."""
    begin, came = time.monotonic(), b""
    c.sock.settimeout(0.2)
    while time.monotonic() < begin + 75:
        try:
            c.send_raw(c.seal(DATA, b""))
            data = c.sock.recv(65536)
            came += data
            if not data:
                break
        except TimeoutError:
            pass
        except OSError:
            break
    return time.monotonic() - begin, came


def one(server, name):
    reach, drip, _ = CLIENTS[name]
    c = reach(server)
    if name in ("replies unread", "no window"):
        begin = time.monotonic()
        why = server.gone(c)["why"]
        c.close()
        return time.monotonic() - begin, b"", why
    seconds, came = empty_records(c) if drip is None else hold(c, drip)
    if isinstance(c, RawTls):
        c.raw += came
        c.sock.close()
        try:
            while len(c.raw) >= 5 and c.more():
                pass
        except OSError:
            pass
        came = c.buffer
    why = server.gone(c)["why"]
    c.close()
    return seconds, came, why


def test_slow_clients(make_server, slow_binary):
    server = make_server(binary=slow_binary)
    with concurrent.futures.ThreadPoolExecutor(EACH * len(CLIENTS)) as pool:
        with Watch(server, lines=12, cpu=3) as w:
            jobs = {(name, n): pool.submit(one, server, name) for n in range(EACH) for name in CLIENTS}
            results = {case: job.result() for case, job in jobs.items()}
    limit = max(SLOW["TIMEOUT_LOGIN"], SLOW["TIMEOUT_COMMAND"], SLOW["TIMEOUT_DATA"])
    for (name, _), (seconds, came, why) in results.items():
        assert seconds < limit + LATE, (name, seconds, came)
        words = CLIENTS[name][2]
        if words in (TIMEOUT, TLS):
            assert came.endswith(b"421 4.4.2 timeout\r\n") and why == "timeout", (name, came, why)
        elif words == SILENT:
            assert b"421" not in came and why in ("timeout", "tls-failed"), (name, came, why)
        assert name == "deaf" or seconds > limit - 3, (name, seconds)
    assert len(w.messages) == EACH and all(b"Subject: slow" in m.body for m in w.messages)


def test_times_are_in_order():
    """What is waited for within something else is shorter than that; and the RFCs' least times (5321 4.5.3.2, 6409 3.1) are kept."""
    text = tools.read(tools.TREE + "/config.h").decode()
    t = {name: int(value) for name, value in re.findall(r"^#define (\w+) (\d+)$", text, re.M)}
    assert t["RADIUS_TIMEOUT"] < t["RADIUS_DEADLINE"] < 120 <= t["TIMEOUT_LOGIN"] < t["TIMEOUT_COMMAND"] < t["TIMEOUT_SESSION"] < 86400
    assert t["PRELOGIN_EVICT_SECONDS"] < t["TIMEOUT_LOGIN"] and t["AUTH_FAIL_DELAY_MS"] * 8 < t["TIMEOUT_LOGIN"] * 1000
    assert 180 <= t["TIMEOUT_DATA"] < t["TIMEOUT_SESSION"] and 300 <= t["TIMEOUT_COMMAND"]
    assert t["DRAIN_SECONDS"] < t["TIMEOUT_COMMAND"]
