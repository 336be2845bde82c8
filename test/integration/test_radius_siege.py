# SPDX-License-Identifier: MIT
"""
An attacker on the way to the RADIUS servers, for as long as he likes: what he sends is thrown away until the true answer counts, or
the login ends with 454 in its time. It costs a bounded number of packets and log lines, and no good server its place.
"""

import hashlib
import hmac
import os
import socket
import struct
import threading
import time

import pytest

import harness
import radius
import tools
from radius import ACCEPT, CHALLENGE, REJECT, STATE, accept
from test_radius_attack import LISTEN, login, own_attributes, relength

pytestmark = pytest.mark.release
root = pytest.mark.root

DEADLINE = 15  # RADIUS_DEADLINE
TELL_LINES, TELL_SECONDS = 10, 10  # of radius.c


def name_of(request):
    return request.get(radius.USER_NAME)[0].decode()


class Siege:
    """A server and its doubles, told by the name of the user what to answer: answers[name](request, double)."""

    def __init__(self, work, house, words="1 0", hosts=("127.0.0.1",), **kw):
        self.answers = {}
        self.doubles = [radius.Double(self._answer, host=h) for h in hosts]
        self.server = harness.Server(work, house, "".join(d.line(words) for d in self.doubles), listen=LISTEN, **kw)

    def _answer(self, request, double):
        answer = self.answers.get(name_of(request), accept)
        return answer and answer(request, double)

    def case(self, answer, expect, at_most=4):
        """A login that is answered so: a function for a Crowd. Returns (reply, seconds)."""
        user = "case%d" % len(self.answers)
        self.answers[user] = answer

        def run():
            r, seconds = login(self.server, user, expect)
            assert seconds < at_most
            return r, seconds, self.sent(user)
        return run

    def sent(self, user):
        """How many packets each double has got for this user."""
        return [sum(name_of(r) == user for r in d.requests) for d in self.doubles]

    def stop(self):
        self.server.stop()
        for d in self.doubles:
            d.stop()


@pytest.fixture(scope="module")
def one(work, house):
    s = Siege(work, house)
    yield s
    s.stop()


@pytest.fixture
def siege(work, house):
    """A function that makes a Siege of the test's own."""
    made = []

    def make(*args, **kw):
        made.append(Siege(work, house, *args, **kw))
        return made[-1]
    yield make
    for s in made:
        s.stop()


def endless_rubbish(floods):
    """An answer that goes on for longer than a login may take."""
    def answer(request, double):
        end = time.monotonic() + DEADLINE + 1
        packets = [os.urandom(60), request.reply(ACCEPT, authenticator=os.urandom(16)), request.reply(ACCEPT, ident=request.id ^ 1),
                   request.reply(ACCEPT, signed=False), bytes([11, request.id]) + os.urandom(4000), b""]

        def flood():
            while time.monotonic() < end:
                double.sock.sendto(packets[0], request.address)
                packets.append(packets.pop(0))
                time.sleep(0.002)
        if len(double.requests) == 1:
            floods.append(threading.Thread(target=flood))
            floods[-1].start()
    return answer


@pytest.fixture(scope="module", autouse=True)
def long_sieges(work, house):
    """What takes a quarter of a minute, begun first. One server with default timers, one with repeats that the deadline cuts off."""
    floods = []
    doubles = [radius.Double(endless_rubbish(floods)) for _ in range(2)]
    servers = [harness.Server(work, house, d.line(words), listen=LISTEN) for d, words in zip(doubles, ("", "1 10"))]
    dark = Siege(work, house, hosts=("127.0.0.1", "127.0.0.1"))
    crowd = tools.Crowd({**{n: lambda s=s: login(s, "alice", 454) for n, s in enumerate(servers)}, "outage": lambda: outage(dark)})
    yield crowd, servers, doubles
    for t in floods:
        t.join()
    for s in [*servers, dark]:
        s.stop()
    for d in doubles:
        d.stop()


def outage(s):
    """32 sessions try two logins each. Returns the windows of time that this took."""
    s.answers["alice"] = None
    begin = time.monotonic()

    def many():
        with s.server.session("submissions", login=None) as c:
            for _ in range(2):
                c.auth_plain("alice", "wonder land", 454)
    crowd = tools.Crowd({n: many for n in range(32)})
    for n in range(32):
        crowd[n]
    windows = int((time.monotonic() - begin) // TELL_SECONDS) + 1
    auth, told = s.server.log("auth", result="later"), s.server.log("radius")
    assert len(auth) == 64
    assert 2 <= len(told) <= 2 * TELL_LINES * windows < 128
    # None is forgotten: what was left out is counted in the next line.
    time.sleep(TELL_SECONDS + 0.5)  # whenever the last window has begun
    login(s.server, "alice", 454)
    told = s.server.log("radius")
    assert len(told) + sum(int(e.get("untold", 0)) for e in told) == 2 * 65
    assert s.sent("alice") == [65, 65]
    return windows


# ---- One exchange ----------------------------------------------------------------------------------------------------

def filler(size):
    """Vendor attributes that make a sealed packet `size` octets long."""
    left = size - 38
    rest = left % 255 + 255
    sizes = [255] * (left // 255 - 1) + [rest // 2, rest - rest // 2]
    return b"".join(bytes([26, n]) + bytes(n - 2) for n in sizes)


def sealed(request, code, body):
    """A packet with right seals however long it is and whatever its attributes are: `body` goes behind the Message-Authenticator."""
    attributes = b"\x50\x12" + bytes(16) + body
    head = struct.pack("!BBH", code, request.id, 20 + len(attributes))
    mac = hmac.new(request.secret, head + request.authenticator + attributes, "md5").digest()
    attributes = attributes[:2] + mac + attributes[18:]
    return head + hashlib.md5(head + request.authenticator + attributes + request.secret).digest() + attributes


def elsewhere(request, double, packet, host="127.0.0.2"):
    """From another host, but the right port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((host, double.port))
        s.sendto(packet, request.address)


def twice_signed(request, _):
    """Two Message-Authenticators, each right by itself."""
    good = request.reply(ACCEPT)
    return own_attributes(request, good[20:38] * 2)


NOT_THE_ANSWER = {
    "another address": lambda r, d: elsewhere(r, d, r.reply(ACCEPT)),
    "two message authenticators, both right": twice_signed,
    "the right one, and a short one": lambda r, d: sealed(r, ACCEPT, b"\x50\x03x"),
    "sealed, but 4097 octets": lambda r, d: sealed(r, ACCEPT, filler(4097)),
    "sealed, but 9000 octets": lambda r, d: sealed(r, ACCEPT, filler(9000)),
    "sealed, but 60000 octets": lambda r, d: sealed(r, ACCEPT, filler(60000)),
    "jumbo rubbish": lambda r, d: os.urandom(65000),
    "jumbo with a wrong authenticator": lambda r, d: r.reply(ACCEPT, authenticator=os.urandom(16)) + bytes(60000),
    "length field over 4096": lambda r, d: relength(r.reply(ACCEPT), 5000) + bytes(5000),
    "length field 65535": lambda r, d: relength(r.reply(ACCEPT), 65535) + bytes(65000),
    "sealed, attribute over the end": lambda r, d: sealed(r, ACCEPT, b"\x1a\x08\0\0\0\x09\1"),
    "sealed, attribute of length 1": lambda r, d: sealed(r, ACCEPT, b"\xf1\x01"),
    "sealed, attribute of length 0": lambda r, d: sealed(r, ACCEPT, b"\xf5\x00"),
    "sealed, attribute 0": lambda r, d: sealed(r, ACCEPT, b"\x00\x03x"),
    "sealed, but an accounting response": lambda r, d: sealed(r, 5, b""),
    "sealed, but a request": lambda r, d: sealed(r, 1, b""),
    "sealed, but protocol error": lambda r, d: sealed(r, 52, b""),
    "without seal, then signed by another": lambda r, d: [r.reply(ACCEPT, signed=False), r.reply(ACCEPT, secret="guess")],
}
# Well-formed as RADIUS goes, whatever is inside: the answer counts.
ODD_BUT_TRUE = {
    "vendor attribute of 0 octets": b"\x1a\x02",
    "vendor attribute of 1 octet": b"\x1a\x03\1",
    "vendor attribute that lies about its length": b"\x1a\x0a\0\0\0\x09\1\xff\0\0",
    "vendor attribute of vendor 0": b"\x1a\x08\0\0\0\0\1\2",
    "extended, empty": b"".join(bytes([k, 2]) for k in range(241, 247)),
    "extended, one octet": b"".join(bytes([k, 3, 1]) for k in range(241, 247)),
    "long extended, more flag, nothing follows": b"\xf5\x05\x01\x80x" + b"\xf6\x05\x1a\x80x",
    "extended vendor that lies": b"\xf1\x08\x1a\0\0\0\x09\xff",
    "eap": b"\x4f\x02" + b"\x4f\x06\1\1\0\xff",
    "all types": b"".join(bytes([k, 3, 0]) for k in range(1, 256) if k not in (6, 27, 28, 62, 80)),
    "4096 octets": filler(4096),
}


def then(forged, truth):
    def answer(request, double):
        out = forged(request, double)
        return [x for x in (out if isinstance(out, list) else [out]) if x is not None] + [request.reply(truth)]
    return answer


@pytest.fixture(scope="module")
def outcomes(one):
    cases = {}
    for name, forged in NOT_THE_ANSWER.items():
        cases[name, REJECT] = one.case(then(forged, REJECT), 535)
        cases[name, ACCEPT] = one.case(then(forged, ACCEPT), 235)
        cases[name, None] = one.case(forged, 454)
    for name, body in ODD_BUT_TRUE.items():
        cases[name] = one.case(lambda r, d, b=body: sealed(r, ACCEPT, b), 235)
    # These would limit what the login may do, and cannot be read.
    for kind in (27, 28, 62):
        cases["policy", kind] = one.case(lambda r, d, k=kind: sealed(r, ACCEPT, bytes([k, 3, 0])), 454)
    return tools.Crowd(cases)


@pytest.mark.parametrize("truth", [REJECT, ACCEPT])
@pytest.mark.parametrize("name", list(NOT_THE_ANSWER))
def test_then_the_truth(outcomes, name, truth):
    _, _, sent = outcomes[name, truth]
    assert sent == [1]


@pytest.mark.parametrize("name", list(NOT_THE_ANSWER))
def test_and_nothing_else(outcomes, name):
    """454 when the wait is over, after the one packet that radius.conf allows."""
    r, seconds, sent = outcomes[name, None]
    assert r.enhanced == "4.7.0" and seconds > 0.8 and sent == [1]


def test_malformed_policy(outcomes):
    """What is sent to limit a login must be understood."""
    for kind in (27, 28, 62):
        _, _, sent = outcomes["policy", kind]
        assert sent == [1]


@pytest.mark.parametrize("name", list(ODD_BUT_TRUE))
def test_malformed_attributes_of_others(outcomes, name):
    """Attributes we do not know are not looked into (RFC 2865 5; 6929)."""
    _, _, sent = outcomes[name]
    assert sent == [1]


def test_a_second_answer_changes_nothing(one):
    """Of several true answers the first counts, and what comes after it meets no later login."""
    crowd = tools.Crowd({
        "accept first": one.case(lambda r, d: [r.reply(ACCEPT), r.reply(REJECT), r.reply(ACCEPT)], 235),
        "reject first": one.case(lambda r, d: [r.reply(REJECT), r.reply(ACCEPT), r.reply(ACCEPT)], 535),
        "challenge first": one.case(lambda r, d: [r.reply(CHALLENGE), r.reply(ACCEPT)], 535)})
    for name in crowd.futures:
        assert crowd[name][2] == [1]
    one.case(lambda r, d: r.reply(REJECT), 535)()


def test_replay_with_the_same_id(one):
    """Old accepts are kept until a login comes that has the id of one: none of them opens it, nor does one for the same user."""
    kept, met = {}, []

    def answer(request, _):
        if request.id in kept and not met:
            met.append(request.id)
            return [p for packets in kept.values() for p in packets] + [kept[request.id][0]] * 3
        kept.setdefault(request.id, []).append(request.reply(ACCEPT))
        return request.reply(ACCEPT)
    run = one.case(answer, (235, 454))
    for _ in range(200):
        r, _, _ = run()
        if met:
            break
    assert met and r == 454


def test_challenges_do_not_loop(one):
    """However often a challenge is given: each login is one packet, and has no State."""
    run = one.case(lambda r, d: [r.reply(CHALLENGE, [(STATE, b"again"), (18, b"token?")])] * 20, 535)
    crowd = tools.Crowd({n: run for n in range(3)})
    for n in range(3):
        crowd[n]
    assert run()[2] == [4]
    assert not any(r.get(STATE) for d in one.doubles for r in d.requests)


def test_between_signed_and_unsigned(siege):
    """A server that signs its answers now and then is believed when it does."""
    s = siege()
    for signed in (True, False, True, False, True):
        run = s.case(lambda r, d, signed=signed: r.reply(ACCEPT, signed=signed), 235 if signed else 454)
        assert run()[2] == [1]
        if not signed:
            assert s.server.log("radius")[-1]["trouble"] == "unsigned"
    # In one exchange: the signed one counts.
    s.case(lambda r, d: [r.reply(ACCEPT, signed=False), r.reply(REJECT)], 535)()
    s.case(lambda r, d: [r.reply(REJECT, signed=False), r.reply(ACCEPT)], 235)()
    # `unsigned` takes both, but not one whose signature is wrong.
    s.server.set(**{"radius.conf": s.doubles[0].line("1 0 unsigned")})
    s.server.reload()
    for signed in (False, True, False):
        s.case(lambda r, d, signed=signed: r.reply(ACCEPT, signed=signed), 235)()
    s.case(lambda r, d: [r.reply(ACCEPT, signature=os.urandom(16)), r.reply(REJECT, signed=False)], 535)()


def test_answers_to_a_repeat(siege):
    """A repeat has the id of the first packet; an answer with the next one is none, and an answer to either is one."""
    s = siege("1 2")
    crowd = {}
    for name, wrong in (("next id", lambda r: r.reply(ACCEPT, ident=r.id + 1 & 255)), ("no id", lambda r: r.reply(ACCEPT, ident=r.id ^ 128))):
        crowd[name] = s.case(lambda r, d, wrong=wrong: [wrong(r)] + ([r.reply(REJECT)] if s.sent(name_of(r)) == [2] else []), 535, 6)
    first = {}

    def late(request, _):
        """The answer to the first packet comes after the second was sent."""
        if name_of(request) in first:
            return first[name_of(request)].reply(ACCEPT)
        first[name_of(request)] = request
        return None
    crowd["late"] = s.case(late, 235)
    crowd = tools.Crowd(crowd)
    for name in crowd.futures:
        _, seconds, sent = crowd[name]
        assert sent == [2] and seconds > 0.8, name


def test_the_wrong_one_of_two(siege):
    """Both know the secret, but the answer must come from the one that was asked: neither address nor port may differ."""
    s = siege("1 0", hosts=("127.0.0.1", "127.0.0.2"))
    first, second = s.doubles
    first_only = s.case(lambda r, d: (second.sock, r.reply(ACCEPT)) if d is first else r.reply(REJECT), 535)
    _, seconds, sent = first_only()
    assert sent == [1, 1] and seconds > 0.8
    # The second one is asked first now. What comes from the first is not heard, and the second's own answer is.
    _, _, sent = s.case(lambda r, d: [(first.sock, r.reply(ACCEPT)), r.reply(REJECT)] if d is second else None, 535)()
    assert sent == [0, 1]


# ---- Errors from the network -----------------------------------------------------------------------------------------

def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def icmp(request, double, kind, code, rest=0):
    """An ICMP error about the request, as any host can make it up that knows or guesses the port."""
    to, (source, port) = double.sock.getsockname(), request.address
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 8 + len(request.raw), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(to[0]))
    quoted += struct.pack("!HHHH", port, to[1], 8 + len(request.raw), 0)
    packet = struct.pack("!BBHI", kind, code, 0, rest) + quoted
    packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.sendto(packet, (source, 0))


ERRORS = {"net unreachable": (3, 0), "host unreachable": (3, 1), "protocol unreachable": (3, 2), "port unreachable": (3, 3),
          "fragmentation needed": (3, 4, 68), "source route failed": (3, 5), "prohibited": (3, 13), "source quench": (4, 0),
          "time exceeded": (11, 0), "parameter problem": (12, 0)}


@root
def test_forged_icmp(siege):
    """One forged "port unreachable" ended the login, and the server was asked last by everybody for a minute."""
    # An address of its own, since the kernel remembers what it was told about path MTUs.
    s = siege("1 1", hosts=(tools.fresh_address(99), tools.fresh_address(99)))

    def then_truth(code, errors):
        def answer(request, double):
            if double is not s.doubles[0]:
                return request.reply(ACCEPT if code == REJECT else REJECT)
            for _ in range(5):
                for e in errors:
                    icmp(request, double, *e)
            time.sleep(0.05)
            return request.reply(code)
        return answer
    crowd = {}
    for name, error in ERRORS.items():
        crowd[name, ACCEPT] = s.case(then_truth(ACCEPT, [error]), 235)
        crowd[name, REJECT] = s.case(then_truth(REJECT, [error]), 535)
    crowd["all", ACCEPT] = s.case(then_truth(ACCEPT, ERRORS.values()), 235)
    crowd = tools.Crowd(crowd)
    for name in crowd.futures:
        assert crowd[name][2] == [1, 0], name
    assert not s.server.log("radius")


def icmp6(request, double, kind, code, rest=0):
    """The same on ::1; the kernel adds the checksum."""
    to, (source, port) = double.sock.getsockname(), request.address[:2]
    udp = struct.pack("!HHHH", port, to[1], 8 + len(request.raw), 0)
    quoted = struct.pack("!IHBB", 6 << 28, 8 + len(request.raw), 17, 64) + socket.inet_pton(socket.AF_INET6, source) + \
        socket.inet_pton(socket.AF_INET6, to[0]) + udp + request.raw
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        s.sendto(struct.pack("!BBHI", kind, code, 0, rest) + quoted, (source, 0))


@root
@pytest.mark.ipv6
def test_forged_icmp_on_ipv6(siege):
    """Unreachable in all its ways, time exceeded, parameter problem: a hint, whoever sends it."""
    s = siege("1 1", hosts=("::1", "::1"))
    errors = [(1, code) for code in range(7)] + [(3, 0), (4, 0), (4, 1)]

    def errors_first(request, double):
        for e in errors:
            icmp6(request, double, *e)
        time.sleep(0.05)
        return request.reply(ACCEPT)
    _, _, sent = s.case(errors_first, 235)()
    assert sent == [1, 0] and not s.server.log("radius")
    _, _, sent = s.case(lambda r, d: icmp6(r, d, 1, 4) if d is s.doubles[0] else r.reply(ACCEPT), 235)()
    assert sent == [1, 1] and s.server.log("radius")[-1]["trouble"] == "network"


@root
def test_icmp_and_nothing_else(siege):
    """Believed in the end: no further packet for that server, and the next one is asked when the wait is over."""
    s = siege("1 5", hosts=(tools.fresh_address(99), tools.fresh_address(99)))
    _, seconds, sent = s.case(lambda r, d: icmp(r, d, 3, 3) if d is s.doubles[0] else r.reply(ACCEPT), 235)()
    assert sent == [1, 1] and seconds > 0.8
    assert s.server.log("radius")[-1]["trouble"] == "network"


def test_server_restarts(siege):
    """Its port is closed when the repeat comes, and the answer comes all the same: the error of the kernel is not the last word."""
    s = siege()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as before, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as after:
        before.bind(("127.0.0.1", 0))
        before.settimeout(tools.PATIENCE)
        where = before.getsockname()
        s.server.set(**{"radius.conf": "127.0.0.1:%d %s 1 1\n" % (where[1], radius.SECRET)})
        s.server.reload()
        crowd = tools.Crowd({"login": lambda: login(s.server, "alice", 235)})
        raw, address = before.recvfrom(4096)
        request = radius.Request(raw, address, radius.SECRET, time.time())
        before.close()
        time.sleep(1.5)  # the repeat comes after 0.9 to 1.1 seconds, and the wait ends at least 1.8 later
        after.bind(where)
        after.sendto(request.reply(ACCEPT), address)
        assert crowd["login"][1] < 4


def test_nobody_listens(siege):
    """One packet, one wait."""
    s = siege()
    s.server.set(**{"radius.conf": "127.0.0.1:%d %s 1 9\n" % (tools.free_port(socket.SOCK_DGRAM), radius.SECRET)})
    s.server.reload()
    r, seconds = login(s.server, "alice", 454)
    line = s.server.log("radius")[-1]
    assert line["trouble"] == "network" and line["sent"] == "1" and 0.8 < seconds < 4 and r.enhanced == "4.7.0"


# ---- Sieges ----------------------------------------------------------------------------------------------------------

def test_flood_of_ten_thousand(siege):
    """They hide nothing, cost no repeat, no log line each, and not the server's place before another one."""
    s = siege("7 0", hosts=("127.0.0.1", "127.0.0.1"))
    first, second = s.doubles

    def flood(request, double):
        rubbish = [os.urandom(64), request.reply(ACCEPT, authenticator=os.urandom(16)), b"", request.reply(ACCEPT, signed=False),
                   bytes([2, request.id]) + os.urandom(4000)]
        for n in range(10000):
            double.sock.sendto(rubbish[n % 5], request.address)
            if n % 50 == 49:
                time.sleep(0.0005)
        time.sleep(0.2)
        return request.reply(ACCEPT)
    lines = len(s.server.log())
    _, _, sent = s.case(flood, 235, 10)()
    assert sent == [1, 0]
    # connect, tls, auth, close
    tools.poll(lambda: s.server.log("close"), "the end")
    assert len(s.server.log()) - lines <= 5 and not s.server.log("radius")
    s.case(accept, 235)()
    assert len(first.requests) == 2 and not second.requests


def test_what_a_server_is_silent_about(siege):
    """
    A name whose realm is served elsewhere, by a server that is down: the RADIUS server is silent, and a stranger could thereby have it
    asked last, as if it were down, by all customers.
    """
    s = siege("1 0", hosts=("127.0.0.1", "127.0.0.1"))
    first, second = s.doubles
    s.answers["x@far"] = None
    end = time.monotonic() + 4

    def attacker():
        n = 0
        while time.monotonic() < end:
            login(s.server, "x@far", 454)
            n += 1
        return n

    def customer():
        slowest = 0
        while time.monotonic() < end:
            slowest = max(slowest, login(s.server, "alice", 235)[1])
            time.sleep(0.05)
        return slowest
    crowd = tools.Crowd({"customer": customer, **{n: attacker for n in range(4)}})
    assert crowd["customer"] < 1.5  # at rest it is some milliseconds
    assert sum(crowd[n] for n in range(4)) >= 4
    assert s.sent("alice")[1] == 0 and s.sent("x@far")[1] > 0
    # With nobody else about he can have both of them asked last; but asked they are, and at once.
    login(s.server, "x@far", 454)
    assert login(s.server, "alice", 235)[1] < 1.5
    assert not any(r for r in second.requests if name_of(r) == "alice") and first.requests


def test_outage_in_many_sessions(long_sieges):
    """No server answers: each login ends in its time, and all of them together may write so many lines about the servers."""
    assert long_sieges[0]["outage"] > 0


def test_long_siege(long_sieges):
    """Rubbish for longer than a login may take: 454 at the deadline, after as many packets as silence would have brought."""
    crowd, servers, doubles = long_sieges
    for n, most in enumerate((3, 5)):
        r, seconds = crowd[n]
        assert r.enhanced == "4.7.0" and 10 < seconds < DEADLINE + 1
        assert 2 <= len(doubles[n].requests) <= most
        (line,) = servers[n].log("radius")
        assert line["trouble"] in ("wrong-secret", "unsigned") and int(line["dropped"]) > 100
        assert int(line["sent"]) == len(doubles[n].requests)
        assert len(servers[n].log()) < 12
