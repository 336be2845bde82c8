# SPDX-License-Identifier: MIT
"""
TLS as no library speaks it: hellos that are cut off or bent, records of every wrong size and kind, before, in and after the handshake;
connections that end without a word in every phase. Never a reply in the clear, never an octet obeyed, never more than the session lost.
"""

import os
import random
import struct
import time

import pytest

import harness
import rawtls
import smtpc
import tools
from abuse import Watch
from rawtls import ALERT, CHANGE_CIPHER_SPEC, DATA, HANDSHAKE, HEARTBEAT, RawTls, record

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


def raw(server, profile, pieces, half=True, pause=0.0):
    """Send pieces where a handshake is due, and return all that comes back."""
    with smtpc.Client(("127.0.0.1", server.port[profile]), tools.fresh_address(), hello=profile != "submissions") as c:
        if profile != "submissions":
            c.ehlo()
            c.cmd("STARTTLS", 220)
        try:
            for piece in pieces:
                c.send(piece)
                time.sleep(pause)
            if half:
                c.half_close()
        except OSError:
            pass
        return c.rest()


def only_tls(said):
    """What came is nothing, or TLS records of handshake and alert."""
    while said:
        assert said[0] in (ALERT, HANDSHAKE) and said[1] == 3 and len(said) >= 5, said
        said = said[5 + struct.unpack("!H", said[3:5])[0]:]


def together(server, cases, **kw):
    """Run {name: function} under a Watch; returns {name: result}."""
    with Watch(server, **kw) as w:
        crowd = tools.Crowd(cases)
        out = {name: crowd[name] for name in cases}
    assert w.messages == []
    return out


# ---- Before and in the handshake ---------------------------------------------------------------------------------------

def test_every_truncated_hello(besieged):
    hello = rawtls.hello(besieged.context())
    cuts = [n for n in range(1, len(hello)) if tools.LONG or n <= 60 or n % 4 == 0]
    said = together(besieged, {(p, n): lambda p=p, n=n: raw(besieged, p, [hello[:n]])
                               for n in cuts for p in (("submissions", "smtp") if n % 10 == 0 or n < 12 else ("submissions",))})
    assert all(x == b"" or x[:1] == b"\x15" for x in said.values())
    assert {e["why"] for e in besieged.log("close") if "user" not in e} <= {"eof", "tls-failed"}


def test_every_bent_hello(besieged):
    hello, rng = rawtls.hello(besieged.context()), random.Random(4)
    cases = {}
    for n in range(len(hello)):
        for value in ([hello[n] ^ 0xff, 0, 0xff, hello[n] ^ 1] if tools.LONG else [rng.choice([hello[n] ^ 0xff, 0, 0xff, hello[n] ^ 1])]):
            bent = hello[:n] + bytes([value]) + hello[n + 1:]
            cases[n, value] = lambda bent=bent: raw(besieged, "submissions", [bent])
    for said in together(besieged, cases).values():
        only_tls(said)


WRONG = {
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\0\x80" * 7 + os.urandom(16),
    "record of 16385 octets": record(HANDSHAKE, b"\x01\0\xff\xfc" + bytes(16381)),
    "record of 65535 octets": record(HANDSHAKE, b"\x01\0\xff\xfc" + bytes(65531)),
    "records without octets": record(HANDSHAKE, b"") * 5000,
    "hello of 16 MB": record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(16000)) + record(HANDSHAKE, bytes(16000)) * 20,
    "data first": record(DATA, b"EHLO x\r\nMAIL FROM:<x@client.example>\r\n"),
    "heartbeat first": record(HEARTBEAT, b"\x01\x40\x00"),
    "heartbeat of 64 KB": record(HEARTBEAT, b"\x01\xff\xff\x00"),
    "cipher change first": record(CHANGE_CIPHER_SPEC, b"\x01") * 100,
    "warnings": record(ALERT, b"\x01\x5a") * 5000,
    "fatal alert": record(ALERT, b"\x02\x28"),
    "close_notify": record(ALERT, b"\x01\x00"),
    "half an alert": record(ALERT, b"\x01"),
    "unknown record": record(99, b"x" * 100),
    "finished first": record(HANDSHAKE, b"\x14\0\0\x0c" + bytes(12)),
    "hello request": record(HANDSHAKE, b"\0\0\0\0") * 1000,
    "client key exchange first": record(HANDSHAKE, b"\x10\0\0\x21\x20" + bytes(32)),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
    "smtp": b"EHLO x\r\nMAIL FROM:<x@client.example>\r\nQUIT\r\n",
    "zeroes": bytes(100000),
    "ones": b"\xff" * 100000,
    "random": os.urandom(100000),
}


def test_everything_but_a_hello(besieged):
    said = together(besieged, {(p, name): lambda p=p, w=w: raw(besieged, p, [w]) for name, w in WRONG.items() for p in ("submissions", "submission")})
    for name, answer in said.items():
        assert answer == b"" or answer[:1] == b"\x15", (name, answer)


@pytest.mark.parametrize("version", [0x0000, 0x0002, 0x0200, 0x0300, 0x0301, 0x0302, 0x0304, 0x0305, 0x0400, 0x7f1c, 0xfeff, 0xffff])
def test_versions(besieged, version):
    """Of the hello: what is below 1.2 is refused by an alert, what is above is answered with 1.2."""
    hello = rawtls.hello(besieged.context())
    cut = hello.index(b"\x00\x2b\x00") if b"\x00\x2b\x00" in hello else len(hello)  # supported_versions says 1.2 by itself
    bent = hello[:9] + struct.pack("!H", version) + hello[11:cut] + hello[cut:].replace(b"\x00\x2b\x00", b"\x7f\x2b\x00", 1)
    said = raw(besieged, "submissions", [bent], half=version >= 0x0303)
    only_tls(said)
    if version >= 0x0303:
        assert said[:1] == b"\x16" and said[9:11] == b"\x03\x03", said[:20]  # ServerHello
    elif version >= 0x0300:
        assert said == b"\x15\x03\x01\x00\x02\x02\x46"  # fatal, protocol_version, in a record that clients of those days can read
    else:
        assert said == b""  # no TLS


def test_behind_the_hello(besieged):
    """A good hello, and then what no client says: no second octet of SMTP, no hang."""
    hello = rawtls.hello(besieged.context())
    behind = {**WRONG, "the hello again": hello, "a hundred hellos": hello * 100,
              "empty key exchange": record(HANDSHAKE, b"\x10\0\0\0"), "key exchange of zeroes": record(HANDSHAKE, b"\x10\0\0\x21\x20" + bytes(32)),
              "key exchange not on the curve": record(HANDSHAKE, b"\x10\0\0\x42\x41\x04" + bytes(64)),
              "key exchange, bad finish": record(HANDSHAKE, b"\x10\0\0\x21\x20\x09" + bytes(31)) + record(CHANGE_CIPHER_SPEC, b"\x01") +
              record(HANDSHAKE, bytes(40)),
              "key exchange, data": record(HANDSHAKE, b"\x10\0\0\x21\x20\x09" + bytes(31)) + record(DATA, b"EHLO x\r\n")}
    for name, said in together(besieged, {name: lambda w=w: raw(besieged, "submissions", [hello, w], pause=0.02) for name, w in behind.items()}).items():
        only_tls(said)
        assert b"ESMTP" not in said, name


def test_hello_in_records_of_one_octet(besieged):
    """Which is allowed: as far as the ServerHello."""
    hello = rawtls.hello(besieged.context())[5:]
    said = raw(besieged, "submissions", [b"".join(record(HANDSHAKE, bytes([x])) for x in hello)])
    assert said[:1] == b"\x16"
    only_tls(said)


# ---- After it -----------------------------------------------------------------------------------------------------------

def still_served(c):
    """The session goes on."""
    c.cmd("NOOP", 250)
    c.quit()


def ended(c):
    """The session is over, without a word of SMTP."""
    assert c.rest() == b""


def test_renegotiation(besieged):
    """Every attempt is turned down by a warning, and costs nothing; the session goes on."""
    hello = rawtls.hello(besieged.context())[5:]
    c = RawTls(besieged)
    c.ehlo()
    for _ in range(300):
        c.send_raw(c.seal(HANDSHAKE, hello))
        c.cmd("NOOP", 250)
    assert c.alerts == [rawtls.NO_RENEGOTIATION] * 300
    still_served(c)
    assert len(besieged.log("tls", sid=besieged.gone(c)["sid"])) == 1


def flood(server, kind, payload, count, then):
    c = RawTls(server)
    c.ehlo()
    try:
        for _ in range(count):
            c.send_raw(c.seal(kind, payload))
        if then is still_served:
            c.send("NOOP\r\n")
            c.reply(250)
    except OSError:
        assert then is ended
    then(c)
    return server.gone(c)["why"]


def test_record_floods(besieged):
    """Warnings and empty records may be many; whatever else is no data ends the session."""
    cases = {
        "warnings": (ALERT, b"\x01\x5a", 3000, still_served, "quit"), "empty data": (DATA, b"", 3000, still_served, "quit"),
        "heartbeat": (HEARTBEAT, b"\x01\x00\x10" + bytes(32), 1, ended, "tls-failed"),
        "cipher change": (CHANGE_CIPHER_SPEC, b"\x01", 1, ended, "tls-failed"),
        "key exchange": (HANDSHAKE, b"\x10\0\0\x21\x20" + bytes(32), 1, ended, "tls-failed"),
        "fatal alert": (ALERT, b"\x02\x28", 1, ended, "tls-failed"), "close_notify": (ALERT, b"\x01\x00", 1, ended, "eof"),
        "unknown kind": (99, b"x", 1, ended, "tls-failed"), "too long": (DATA, b"x" * 16385, 1, ended, "tls-failed"),
        "finished again": (HANDSHAKE, b"\x14\0\0\x0c" + bytes(12), 1, ended, "tls-failed"),
    }
    for name, why in together(besieged, {name: lambda c=c: flood(besieged, *c[:4]) for name, c in cases.items()}).items():
        assert why == cases[name][4], (name, why)


def test_records_that_do_not_fit(besieged):
    """A record again, two in the wrong order, one that is bent, one of another version, one under a wrong number: nothing in it is obeyed."""
    def bad(make):
        c = RawTls(besieged)
        c.ehlo()
        c.send("MAIL FROM:<me@client.example>\r\n")
        c.reply(530)
        first, second = c.seal(DATA, b"NOOP\r\n"), c.seal(DATA, b"RSET\r\n")
        c.send_raw(make(first, second))
        said = c.rest()
        return said.count(b"\r\n"), besieged.gone(c)["why"]

    def bend(data, n):
        return data[:n] + bytes([data[n] ^ 1]) + data[n + 1:]
    cases = {"again": (lambda a, b: a + a, 1), "order": (lambda a, b: b + a, 0), "left out": (lambda a, b: b, 0),
             "version": (lambda a, b: a[:1] + b"\x03\x01" + a[3:], 0), "kind": (lambda a, b: bytes([HANDSHAKE]) + a[1:], 0),
             "short": (lambda a, b: record(DATA, a[5:20]), 0), "no seal": (lambda a, b: record(DATA, b"NOOP\r\n"), 0),
             **{"bit of %d" % n: (lambda a, b, n=n: bend(a, n), 0) for n in range(5, 35, 3)}}
    for name, (replies, why) in together(besieged, {k: lambda v=v: bad(v[0]) for k, v in cases.items()}).items():
        assert (replies, why) == (cases[name][1], "tls-failed"), name


# ---- The end of the connection, in every phase ----------------------------------------------------------------------------

PHASES = {
    "greeting": [], "command": ["EHLO x\r\n", "NOO"], "login": ["EHLO x\r\n", "AUTH PLAIN\r\n"], "in the login": ["EHLO x\r\n", "AUTH LOGIN\r\n", "YWxp"],
    "mail": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n"],
    "rcpt": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n"],
    "data": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n", "DATA\r\n"],
    "header": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n", "DATA\r\n", "!Subject: x\r\n"],
    "end": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n", "DATA\r\n", "!Subject: x\r\n\r\nx\r\n.\r"],
    "chunk": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n", "!BDAT 10 LAST\r\nSubject:"],
    "chunks": ["EHLO x\r\n", "L", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@far.example>\r\n", "BDAT 4\r\nA: b"],
}
ENDINGS = ["close", "reset", "half_close", "close_notify", "half a record", "half a record, reset"]


def end_in(server, phase, how):
    c = RawTls(server)
    for line in PHASES[phase]:
        if line == "L":
            c.auth_plain("alice", "wonder land")
        else:
            c.send(line.lstrip("!"))
            if line.endswith("\r\n") and line[0] != "!" or line.startswith("BDAT"):
                c.reply()
    if how == "close_notify":
        c.send_raw(c.seal(ALERT, b"\x01\x00"))
    if how.startswith("half a record"):
        c.send_raw(c.seal(DATA, b"\r\n.\r\nNOOP\r\n")[:20])
    if how == "half_close":
        c.half_close()
        c.rest()
    (c.reset if "reset" in how else c.close)()
    return server.gone(c)["why"]


def test_every_end_in_every_phase(besieged):
    """Closed, reset, shut down, with and without close_notify, in the middle of a record: no message, nothing left, and one line why."""
    cases = {(p, h): lambda p=p, h=h: end_in(besieged, p, h) for p in PHASES for h in ENDINGS}
    for case, why in together(besieged, cases).items():
        assert why in ("eof", "tls-failed"), (case, why)


def test_close_notify_behind_a_message(besieged):
    """A client that has said all may say goodbye at once: its message counts; one that is cut off before the end does not."""
    for behind, count in ((b".\r\n", 1), (b"", 0)):
        c = RawTls(besieged)
        c.ehlo()
        c.auth_plain("alice", "wonder land")
        c.envelope()
        c.cmd("DATA", 354)
        c.send_raw(c.seal(DATA, smtpc.MESSAGE + behind) + c.seal(ALERT, b"\x01\x00"))
        c.half_close()
        c.rest()
        c.close()
        assert besieged.gone(c)["msgs"] == str(count)
        assert len(besieged.take()) == count
