# SPDX-License-Identifier: MIT
"""
Everything but the true answer of the true server is thrown away with the timer running (CVE-2024-3596, RFC 5080): a forged
accept never logs in, and no rubbish ends a login before its time.
"""

import os
import struct
import time

import pytest

import radius
import smtpc
import tools
from radius import ACCEPT, MESSAGE_AUTHENTICATOR, REJECT

LISTEN = {"submissions": "submissions 127.0.0.1:{}"}


def login(server, user, expect):
    """Returns (reply, seconds)."""
    with server.session("submissions", login=None) as c:
        begin = time.monotonic()
        r = c.cmd("AUTH PLAIN " + smtpc.b64("\0%s\0x" % user), expect)
        return r, time.monotonic() - begin


def flip(packet, offset):
    return packet[:offset] + bytes([packet[offset] ^ 1]) + packet[offset + 1:]


def relength(packet, length):
    return packet[:2] + struct.pack("!H", length) + packet[4:]


def own_attributes(request, body):
    """An accept with hand-made attribute octets and a right Response Authenticator."""
    import hashlib
    head = struct.pack("!BBH", ACCEPT, request.id, 20 + len(body))
    return head + hashlib.md5(head + request.authenticator + body + request.secret).digest() + body


FORGERIES = {
    "wrong response authenticator": lambda r, d: r.reply(ACCEPT, authenticator=os.urandom(16)),
    "zero response authenticator": lambda r, d: r.reply(ACCEPT, authenticator=bytes(16)),
    "request authenticator echoed": lambda r, d: r.reply(ACCEPT, authenticator=r.authenticator),
    "wrong secret": lambda r, d: r.reply(ACCEPT, secret="guess"),
    "empty secret": lambda r, d: r.reply(ACCEPT, secret=""),
    "placeholder secret": lambda r, d: r.reply(ACCEPT, secret="unset"),
    "another request's": lambda r, d: r.reply(ACCEPT, request_authenticator=os.urandom(16)),
    "no message authenticator": lambda r, d: r.reply(ACCEPT, signed=False),
    "zero message authenticator": lambda r, d: r.reply(ACCEPT, signature=bytes(16)),
    "random message authenticator": lambda r, d: r.reply(ACCEPT, signature=os.urandom(16)),
    "request's message authenticator": lambda r, d: r.reply(ACCEPT, signature=r.get(MESSAGE_AUTHENTICATOR)[0]),
    "short message authenticator": lambda r, d: own_attributes(r, b"\x50\x11" + bytes(15)),
    "two message authenticators": lambda r, d: r.reply(ACCEPT, [(MESSAGE_AUTHENTICATOR, os.urandom(16))]),
    "wrong id": lambda r, d: r.reply(ACCEPT, ident=(r.id + 1) & 255),
    "all other ids": lambda r, d: [r.reply(ACCEPT, ident=i) for i in range(256) if i != r.id],
    "another port": lambda r, d: (d.other, r.reply(ACCEPT)),
    "truncated": lambda r, d: [r.reply(ACCEPT)[:n] for n in range(1, 38)],
    "empty datagram": lambda r, d: b"",
    "length too big": lambda r, d: relength(r.reply(ACCEPT), 39),
    "length 4096": lambda r, d: relength(r.reply(ACCEPT), 4096),
    "length too small": lambda r, d: relength(r.reply(ACCEPT), 20),
    "length zero": lambda r, d: relength(r.reply(ACCEPT), 0),
    "attribute of length 0": lambda r, d: own_attributes(r, b"\x12\x00"),
    "attribute of length 1": lambda r, d: own_attributes(r, b"\x12\x01"),
    "attribute over the end": lambda r, d: own_attributes(r, b"\x12\x20abc"),
    "half an attribute": lambda r, d: own_attributes(r, b"\x12"),
    "request code": lambda r, d: r.reply(1),
    "accounting response": lambda r, d: r.reply(5),
    "code 0": lambda r, d: r.reply(0),
    "code 255": lambda r, d: r.reply(255),
    "our own request": lambda r, d: r.raw,
    "flipped bits": lambda r, d: [flip(r.reply(REJECT, [(18, b"no")]), n) for n in range(42)],
    "code flipped": lambda r, d: b"\x02" + r.reply(REJECT)[1:],
}


ALONE = ["wrong response authenticator", "no message authenticator", "random message authenticator", "another port", "wrong id", "truncated",
         "two message authenticators", "code flipped", "empty datagram"]
ATTRIBUTES = [
    ([(26, b"\0\0\0\1xx")] * 20, 235),                     # vendor's
    ([(200, b"x"), (255, b"y"), (79, b"\2\0\0\4")], 235),   # unknown to us
    ([(18, b"x" * 253)] * 14, 235),                        # nearly 4096 octets
    ([(18, b"\r\n250 ok\r\nev=auth\0\xff")], 235),
    ([(1, b"renamed")], 235), ([(25, os.urandom(253))], 235), ([(24, b"state")], 235),
    ([(6, b"\0\0\0\1"), (6, b"\0\0\0\1")], 235), ([(6, b"\0\0\0\1"), (6, b"\0\0\0\2")], 535),
    ([(6, b"\0\0\0\0")], 535), ([(6, b"\xff\xff\xff\xff")], 535), ([(6, b"\0\0\0\2")], 535), ([(6, b"\0\0\0\6")], 535),
    ([(6, b"\0\0\0\x12")], 535), ([(6, b"\0\0\1\1")], 535),
    # Of a wrong length: a reject; never "no Service-Type" (RFC 2865 5).
    ([(6, b"\1")], 535), ([(6, b"\0\0\0\1\0")], 535), ([(6, b"")], 535),
    # Behind more attributes than are kept it was not seen.
    ([(18, b"x")] * 64 + [(6, b"\0\0\0\2")], 535), ([(25, b"x")] * 255 + [(6, b"\0\0\0\6")], 535),
    ([(18, b"x")] * 64 + [(6, b"\0\0\0\1")], 235), ([(6, b"\0\0\0\1")] * 600, 235), ([(6, b"\0\0\0\1")] * 600 + [(6, b"\0\0\0\2")], 535),
]


@pytest.fixture(scope="module")
def setting(work, house):
    """One server and one double for all cases; what the double answers depends on the user's name."""
    import harness
    answers = {}
    double = radius.Double(lambda r, d: answers[r.get(radius.USER_NAME)[0].decode()](r, d))
    server = harness.Server(work, house, double.line("1 0"), listen=LISTEN)

    def case(answer, expect):
        user = "case%d" % len(answers)
        answers[user] = answer
        return lambda: login(server, user, expect)
    yield server, case
    server.stop()
    double.stop()


def then(forged, truth):
    def answer(request, double):
        out = forged(request, double)
        return (out if isinstance(out, list) else [out]) + [request.reply(truth)]
    return answer


def rejected_elsewhere(request, double):
    return (double.other, request.reply(REJECT))


@pytest.fixture(scope="module")
def outcomes(setting):
    _, case = setting
    cases = {}
    for name, forged in FORGERIES.items():
        cases[name, REJECT] = case(then(forged, REJECT), 535)
        cases[name, ACCEPT] = case(then(rejected_elsewhere if name == "another port" else forged, ACCEPT), 235)
        if name in ALONE:
            cases[name, None] = case(forged, 454)
    for n, (attributes, code) in enumerate(ATTRIBUTES):
        cases[n] = case(lambda r, d, a=attributes: r.reply(ACCEPT, a), code)
    return tools.Crowd(cases)


@pytest.mark.parametrize("truth", [REJECT, ACCEPT])
@pytest.mark.parametrize("name", list(FORGERIES))
def test_forgery_then_truth(outcomes, name, truth):
    """Before the true answer comes its forgery, or a hundred: only the truth counts, whichever it is."""
    _, seconds = outcomes[name, truth]
    assert seconds < 4


@pytest.mark.parametrize("name", ALONE)
def test_forgery_alone(outcomes, name):
    """No true answer: 454, not earlier and not later than silence would have been."""
    r, seconds = outcomes[name, None]
    assert r.enhanced == "4.7.0"
    assert 0.8 < seconds < 4


@pytest.mark.parametrize("n", range(len(ATTRIBUTES)))
def test_attributes_of_an_accept(outcomes, n):
    r, _ = outcomes[n]
    assert "\n" not in r.text


def test_message_authenticator_may_stand_anywhere(setting):
    """Its place does not matter in a reply (older FreeRADIUS puts it last)."""
    _, case = setting
    for where in (True, False):
        case(lambda r, d, first=where: r.reply(ACCEPT, [(18, b"hello"), (25, b"\1\2\3")], first=first), 235)()


def test_octets_after_the_packet_are_ignored(setting):
    """RFC 2865 3: octets outside the range of the length field are padding."""
    _, case = setting
    case(lambda r, d: r.reply(ACCEPT) + b"padding", 235)()


def test_challenges_are_rejects(setting):
    _, case = setting
    case(lambda r, d: r.reply(radius.CHALLENGE, [(24, b"s"), (18, b"token?")]), 535)()


def test_flood_of_garbage(setting):
    """Ten thousand bad packets do not hide the good one, and do not stretch the wait."""
    def answer(request, d):
        rubbish = [os.urandom(64), request.reply(ACCEPT, authenticator=os.urandom(16)), b"", bytes([2, request.id]) + os.urandom(4000)]
        for n in range(10000):
            d.sock.sendto(rubbish[n % 4], request.address)
            if n % 20 == 19:
                time.sleep(0.0005)
        return request.reply(ACCEPT)
    _, case = setting
    # The kernel may drop the good packet when its buffer is full: then it is "later", as with any lost packet.
    _, seconds = case(answer, (235, 454))()
    assert seconds < 15


def test_flood_without_an_answer(setting):
    """The deadline holds while packets keep coming."""
    def answer(request, d):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            d.sock.sendto(request.reply(ACCEPT, authenticator=os.urandom(16)), request.address)
            time.sleep(0.001)
    _, case = setting
    _, seconds = case(answer, 454)()
    assert seconds < 1.9
    time.sleep(max(0, 2.1 - seconds))


def test_late_answer_to_an_old_request(setting):
    """An accept for the login before this one means nothing."""
    _, case = setting
    kept = []
    case(lambda r, d: kept.append(r), 454)()
    case(lambda r, d: [kept[0].reply(ACCEPT), kept[0].reply(ACCEPT, ident=r.id), r.reply(REJECT)], 535)()


def test_collision_shaped_proxy_state(setting):
    """What BlastRADIUS needs: an accept with attributes the attacker chose, and no seal."""
    _, case = setting
    case(lambda r, d: r.reply(ACCEPT, [(33, os.urandom(240))], signed=False), 454)()
