# SPDX-License-Identifier: MIT
"""
The resolver of delivery (dns.c), from an empty directory: against unbound, and against name servers that lie. Whatever a server says,
the next one is asked, the time is kept, and only an answer to the question counts.
"""

import os
import time

import pytest

import dnspeer
import tools
from dnspeer import A, AAAA, CNAME, MX, address, mx, record, wire

pytestmark = pytest.mark.release

ZONE = """$ORIGIN dns.test.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 20 backup
@ MX 10 one
@ MX 10 Two
@ MX 10 three.elsewhere.test.
ns A 127.0.0.1
one A 192.0.2.1
one AAAA 2001:db8::1
Two A 192.0.2.2
two A 192.0.2.3
two AAAA 2001:db8::2
six AAAA 2001:db8::6
null MX 0 .
odd MX 5 .
odd MX 10 one
implicit A 192.0.2.9
text TXT "nothing else"
alias CNAME alias2
alias2 CNAME one
mxalias CNAME @
dangling CNAME nowhere
bad MX 10 two\\.dots
bad MX 20 sp\\032ace
half MX 10 two\\.dots
half MX 20 one
loop CNAME pool
pool CNAME loop
""" + "".join("c%d CNAME c%d\n" % (i, i + 1) for i in range(1, 20)) + "c20 A 192.0.2.20\n" + \
    "".join("many MX %d host%d.with.a.name.that.needs.room\n" % (1000 - i, i) for i in range(300)) + \
    "".join("crowd A 10.0.%d.%d\n" % (i // 250, i % 250 + 1) for i in range(100))


@pytest.fixture(scope="module")
def askers():
    return {"release": dnspeer.build(), "sanitized": dnspeer.build(True)}


@pytest.fixture(scope="module")
def real(work, askers):
    """unbound, and who asks it: {build: Asker}."""
    host, port = tools.fresh_address(99), tools.free_port()
    server = dnspeer.Unbound(work, host, port, {"dns.test": ZONE, "lame.test": None})
    yield {k: dnspeer.Asker(b, os.path.join(work, k), port, [host], "timeout:5 attempts:2") for k, b in askers.items()}
    server.stop()


def both(real, kind, *names, **kw):
    """What both builds say, which must be the same; the order of equal ones may not."""
    a, b = real["release"](kind, *names, **kw), real["sanitized"](kind, *names, **kw)
    pairs = zip(a, b) if len(names) > 1 else [(a, b)]
    assert all(x.status == y.status and sorted(x.values) == sorted(y.values) for x, y in pairs), (a, b)
    return a


def test_mx(real):
    a = both(real, "mx", "dns.test")
    assert a.status == "ok" and a.values[3] == "20 backup.dns.test"
    assert sorted(a.values[:3]) == ["10 one.dns.test", "10 three.elsewhere.test", "10 two.dns.test"]
    assert both(real, "mx", "DNS.Test.").values[3] == "20 backup.dns.test"
    # Equal ones come in any order.
    assert len({real["release"]("mx", "dns.test").values[0] for _ in range(40)}) > 1
    # The best ones, when there is no room for all.
    a = both(real, "mx", "dns.test", words=("-m", "3"))
    assert len(a.values) == 3 and all(v.startswith("10 ") for v in a.values)


def test_other_mx(real):
    names = ["null.dns.test", "odd.dns.test", "implicit.dns.test", "nowhere.dns.test", "mxalias.dns.test", "dangling.dns.test",
             "bad.dns.test", "half.dns.test", "x.lame.test"]
    got = dict(zip(names, both(real, "mx", *names)))
    assert got["null.dns.test"][::2] == ("ok", ["0 -"])  # RFC 7505: no mail, ever
    assert got["odd.dns.test"][::2] == ("ok", ["10 one.dns.test"])
    assert got["implicit.dns.test"][::2] == ("nodata", [])
    assert got["nowhere.dns.test"][::2] == ("noname", [])
    assert got["mxalias.dns.test"].status == "ok" and len(got["mxalias.dns.test"].values) == 4
    assert got["dangling.dns.test"].status == "noname"
    assert got["bad.dns.test"][::2] == ("trouble", [])  # no names of hosts: not the domain's own address either
    assert got["half.dns.test"][::2] == ("ok", ["20 one.dns.test"])
    assert got["x.lame.test"][::2] == ("trouble", [])  # SERVFAIL


def test_addresses(real):
    names = ["one.dns.test", "two.dns.test", "six.dns.test", "implicit.dns.test", "alias.dns.test", "text.dns.test", "nowhere.dns.test",
             "dangling.dns.test", "x.lame.test"]
    got = dict(zip(names, both(real, "both", *names)))
    assert got["one.dns.test"][::2] == ("ok", ["2001:db8::1", "192.0.2.1"])
    assert got["two.dns.test"].values[0] == "2001:db8::2" and sorted(got["two.dns.test"].values[1:]) == ["192.0.2.2", "192.0.2.3"]
    assert got["six.dns.test"][::2] == ("ok", ["2001:db8::6"])
    assert got["implicit.dns.test"][::2] == ("ok", ["192.0.2.9"])
    assert got["alias.dns.test"][::2] == ("ok", ["2001:db8::1", "192.0.2.1"])
    assert got["text.dns.test"].status == "nodata"
    assert got["nowhere.dns.test"].status == got["dangling.dns.test"].status == "noname"
    assert got["x.lame.test"].status == "trouble"
    four = both(real, "a", "one.dns.test", "six.dns.test")
    assert four[0][::2] == ("ok", ["192.0.2.1"]) and four[1].status == "nodata"


def test_aliases(real):
    """Up to eight, one after the other; a loop of them ends."""
    got = both(real, "a", "loop.dns.test", "c1.dns.test", "c12.dns.test")
    assert [g.status for g in got] == ["trouble", "trouble", "ok"] and got[2].values == ["192.0.2.20"], got


def test_truncated(real):
    """Answers that do not fit come over TCP: here 300 names, of which the best are kept, and 100 addresses."""
    a = both(real, "mx", "many.dns.test", words=("-m", "10"))
    assert a.values == ["%d host%d.with.a.name.that.needs.room.dns.test" % (701 + i, 299 - i) for i in range(10)]
    a = both(real, "mx", "many.dns.test", words=("-m", "100"))
    assert [v.split()[0] for v in a.values] == [str(701 + i) for i in range(100)]
    a = real["sanitized"]("a", "crowd.dns.test", words=("-m", "1"))
    assert a.status == "ok" and len(a.values) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", ".a", "a b", "a\\046b", "x" * 64 + ".test", ".".join(["x" * 63] * 4), "caf\u00e9.test", "a\tb",
                                  "a.."])
def test_no_names(askers, work, name):
    """Nobody is asked about what is no name: there is not even a server."""
    ask = dnspeer.Asker(askers["sanitized"], work, 1, ["127.0.0.1"])
    for kind in ("mx", "both"):
        a = ask(kind, name)
        assert a.status == "noname" and a.ms < 1000


def test_hosts(askers, work):
    """/etc/hosts comes first, whatever the servers say."""
    hosts = ("# 10.9.9.9 commented\n192.0.2.50\tone.dns.test  alias.one # two.dns.test\n2001:db8::50 ONE.dns.test\n0.0.0.0 blocked.test\n"
             "nonsense one.dns.test\n" + "192.0.2.51 " + "x" * 2000 + " long.test\n" + "192.0.2.52 last.test")
    port = tools.free_port()
    server = dnspeer.Double(tools.fresh_address(99), port, lambda r: r.reply(rcode=3))
    try:
        ask = dnspeer.Asker(askers["sanitized"], work, port, [server.host], hosts=hosts)
        got = ask("both", "one.dns.test", "Alias.One", "two.dns.test", "blocked.test", "long.test", "last.test")
        assert got[0].values == ["2001:db8::50", "192.0.2.50"] and got[1].values == ["192.0.2.50"]
        assert [g.status for g in got[2:5]] == ["noname"] * 3 and got[5].values == ["192.0.2.52"]
        assert ask("a", "one.dns.test").values == ["192.0.2.50"]
    finally:
        server.stop()


# ---- Servers that lie ------------------------------------------------------------------------------------------------

GOOD = [mx(10, "good.test")]
BAD = mx(1, "evil.test")


def good(r):
    return r.reply(record(r.name, MX, GOOD[0]))


def forged(change=lambda r, p: p, **kw):
    """A script: a wrong answer, and nothing more."""
    return lambda r: change(r, r.reply(record(r.name, MX, BAD), **kw))


def pointers(n):
    """A name of `n` pointers, each to the one before it; the first to the name in the question."""
    out = b""
    for i in range(n):
        out += (0xc000 | (12 if i == 0 else 29 + 2 * (i - 1))).to_bytes(2, "big")
    return out


# What must count for nothing, though the wait goes on; the server says nothing else.
IGNORED = {
    "wrong id": forged(lambda r, p: [bytes([p[0] ^ 1]) + p[1:], p[:1] + bytes([p[1] ^ 1]) + p[2:]]),
    "a question": forged(flags=0x0100),
    "another opcode": forged(flags=0x8980),
    "another name": forged(lambda r, p: p.replace(wire("victim.test"), wire("Victin.test"), 1)),
    "another type": forged(lambda r, p: p[:25] + b"\0\1" + p[27:]),
    "another class": forged(lambda r, p: p[:27] + b"\0\3" + p[29:]),
    "no question": forged(question=b"", questions=0),
    "two questions": forged(questions=2),
    "the question loops": forged(question=b"\xc0\x0c\0\x0f\0\1"),
    "the question points ahead": forged(question=b"\xc0\x20\0\x0f\0\1"),
    "an empty packet": lambda r: b"",
    "eleven octets": forged(lambda r, p: p[:11]),
    "cut in the question": forged(lambda r, p: [p[:n] for n in range(12, 29)]),
    "from another port": lambda r: (r.double.other, forged()(r)),
    "rubbish": lambda r: [os.urandom(n) for n in range(1, 600, 7)],
}

# What is an answer, but no good one: the next server is asked at once.
REFUSED = {
    "SERVFAIL": forged(rcode=2),
    "REFUSED": forged(rcode=5),
    "FORMERR": lambda r: r.reply(rcode=1),
    "NOTIMP": lambda r: r.reply(rcode=4),
    "a referral": lambda r: r.reply(flags=0x8100),
    "fewer records than said": forged(count=2),
    "cut in a record": forged(lambda r, p: p[:-1]),
    "cut behind the question": forged(lambda r, p: p[:29]),
    "data beyond the end": lambda r: r.reply(wire(r.name) + b"\0\x0f\0\1\0\0\0\0\xff\xff" + BAD),
    "its own name loops": lambda r: r.reply(record(b"\xc0\x1d", MX, BAD)),
    "its name points ahead": lambda r: r.reply(record(b"\xc0\x30", MX, BAD)),
    "its name has a wrong kind of label": lambda r: r.reply(record(b"\x40a\0", MX, BAD)),
    "its name is too long": lambda r: r.reply(record(b"\x3f" + b"x" * 63 + (b"\x3f" + b"y" * 63) * 3 + b"\0", MX, BAD)),
    "an endless row of pointers": lambda r: r.reply(record(pointers(200), MX, BAD)),
    "aliases in a circle": lambda r: r.reply(record(r.name, CNAME, wire("b.test")), record("b.test", CNAME, wire(r.name))),
    "nine aliases": lambda r: r.reply(*[record(n, CNAME, wire(t)) for n, t in zip([r.name] + ["%d.test" % i for i in range(9)],
                                                                                  ["%d.test" % i for i in range(9)])],
                                      record("8.test", MX, BAD)),
    "an alias that loops": lambda r: r.reply(record(r.name, CNAME, b"\xc0\x35")),
    "an alias with more behind it": lambda r: r.reply(record(r.name, CNAME, wire("b.test") + b"x"), record("b.test", MX, BAD)),
    "truncated, and nobody on TCP": lambda r: r.reply(flags=0x8380) if r.over == "udp" else [],
    "truncated over TCP, too": lambda r: r.reply(flags=0x8380),
    "TCP ends early": lambda r: r.reply(flags=0x8380) if r.over == "udp" else (5000, good(r)),
    "TCP frame of nothing": lambda r: r.reply(flags=0x8380) if r.over == "udp" else (0, b""),
    "TCP with another id": lambda r: r.reply(flags=0x8380) if r.over == "udp" else r.reply(record(r.name, MX, BAD), ident=r.id ^ 1),
    "TCP with another question": lambda r: r.reply(flags=0x8380) if r.over == "udp" else r.reply(question=wire("x") + b"\0\x0f\0\1"),
}


class Pair:
    """A liar, and behind it a server that is good. `ask()` asks them for the MX of victim.test."""

    def __init__(self, binary, work, script, **kw):
        self.port = tools.free_port()
        self.liar = dnspeer.Double(tools.fresh_address(99), self.port, lambda r: script(self._with(r)))
        self.good = dnspeer.Double(tools.fresh_address(99), self.port, good)
        self.asker = dnspeer.Asker(binary, work, self.port, [self.liar.host, self.good.host], **kw)

    def _with(self, r):
        r.double = self.liar
        return r

    def ask(self, **kw):
        try:
            return self.asker("mx", "victim.test", **kw)
        finally:
            self.liar.stop()
            self.good.stop()


@pytest.fixture(scope="module")
def lies(askers, work):
    return tools.Crowd({(kind, name): (lambda p=Pair(askers["sanitized"], work, script): (p.ask(), p))
                        for kind, scripts in (("ignored", IGNORED), ("refused", REFUSED)) for name, script in scripts.items()})


@pytest.mark.parametrize("name", IGNORED)
def test_ignored(lies, name):
    """The timer runs on, to its end; then the other server is asked."""
    a, pair = lies["ignored", name]
    assert a[::2] == ("ok", ["10 good.test"]) and a.ms >= 1000, a
    assert len(pair.liar.requests) == 1 and len(pair.good.requests) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_refused(lies, name):
    a, pair = lies["refused", name]
    assert a[::2] == ("ok", ["10 good.test"]), a
    assert len(pair.liar.requests) == (2 if name.startswith(("truncated", "TCP")) else 1)


def test_right_among_wrong(askers, work):
    """A good answer behind a thousand bad ones is taken; none of the others, which lack only the id or the question."""
    def script(r):
        bad = [r.reply(record(r.name, MX, BAD), ident=i) for i in range(r.id + 1, r.id + 200)] if r.id < 65000 else []
        return bad + [f(r) for f in IGNORED.values() if f is not IGNORED["from another port"] and not isinstance(f(r), list)] + [good(r)]
    a = Pair(askers["sanitized"], work, script).ask()
    assert a[::2] == ("ok", ["10 good.test"]) and a.ms < 1000


def test_flood(askers, work):
    """A server that never ends to send rubbish gets its time, and no more; the deadline holds."""
    port = tools.free_port()
    stop = []

    def script(r):
        end = time.monotonic() + 8
        while not stop and time.monotonic() < end:
            for i in range(50):
                server.udp.sendto(r.reply(record(r.name, MX, BAD), ident=r.id ^ (i + 1)), r.peer)
            time.sleep(0.001)
    server = dnspeer.Double(tools.fresh_address(99), port, script)
    try:
        ask = dnspeer.Asker(askers["sanitized"], work, port, [server.host], "timeout:30 attempts:5")
        a = ask("mx", "victim.test", words=("-s", "2"))
        assert a.status == "trouble" and 2000 <= a.ms < 8000
    finally:
        stop.append(1)
        server.stop()


def test_questions(askers, work):
    """Ids and ports cannot be guessed: of many, nearly all are different; the port is never the one before plus a little."""
    port = tools.free_port()
    server = dnspeer.Double(tools.fresh_address(99), port, good)
    try:
        ask = dnspeer.Asker(askers["release"], work, port, [server.host])
        assert {a.status for a in ask("mx", *["n%d.test" % i for i in range(200)])} == {"ok"}
        ids, ports = [r.id for r in server.requests], [r.peer[1] for r in server.requests]
        assert len(set(ids)) > 190 and len(set(ports)) > 150
        assert sum(0 < b - a < 10 for a, b in zip(ids, ids[1:])) < 20 and sum(0 < b - a < 10 for a, b in zip(ports, ports[1:])) < 20
        assert all(r.flags == 0x0100 and r.kind == MX and r.cls == 1 for r in server.requests)
    finally:
        server.stop()


def test_servers_in_turn(askers, work):
    """One is down, one is silent, one answers; the one that did is asked first from then on. All silent: trouble, by the deadline."""
    port = tools.free_port()
    down = tools.fresh_address(99)
    mute = dnspeer.Double(tools.fresh_address(99), port, dnspeer.silent)
    last = dnspeer.Double(tools.fresh_address(99), port, good)
    try:
        ask = dnspeer.Asker(askers["sanitized"], work, port, [down, mute.host, last.host])
        first, second = ask("mx", "a.test", "b.test")
        assert first.status == second.status == "ok" and first.ms >= 1000 > second.ms
        assert len(mute.requests) == 1 and len(last.requests) == 2
        ask = dnspeer.Asker(askers["sanitized"], work, port, [mute.host], "timeout:1 attempts:3")
        a = ask("mx", "a.test")
        assert a.status == "trouble" and 3000 <= a.ms < 10000 and len(mute.requests) == 4
        assert len({r.id for r in mute.requests} | {0}) >= 4
        a = ask("both", "a.test", words=("-s", "2"))
        assert a.status == "trouble" and 2000 <= a.ms < 10000
        ask = dnspeer.Asker(askers["sanitized"], work, port, [down], "timeout:30 attempts:5")
        a = ask("both", "a.test")
        assert a.status == "trouble" and a.ms < 5000
    finally:
        mute.stop()
        last.stop()


def test_slow_tcp(askers, work):
    """Truncated, and then somebody who takes the connection and says nothing, or one octet a second: the time is kept."""
    def script(r):
        return r.reply(flags=0x8380) if r.over == "udp" else None
    p = Pair(askers["sanitized"], work, script)
    p.liar._serve_tcp = lambda c, peer: time.sleep(3)
    a = p.ask()
    assert a[::2] == ("ok", ["10 good.test"]) and 1000 <= a.ms < 10000


def test_largest(askers, work):
    """64 KiB over TCP, to the last octet: 5,000 records, all but one about other names."""
    def script(r):
        if r.over == "udp":
            return r.reply(flags=0x8380)
        records = [record(b"\xc0\x0c", MX, BAD, cls=3)] + [record("other.test", A, address("192.0.2.1"))] * 2400
        last = record(b"\xc0\x0c", MX, mx(7, "last.test"))
        pad = 65535 - 12 - len(r.question) - sum(map(len, records)) - len(last) - 11
        return r.reply(*records, record(b"\0", 16, b"x" * pad), last)
    a = Pair(askers["sanitized"], work, script).ask()
    assert a[::2] == ("ok", ["7 last.test"]) and a.ms < 10000


def test_what_counts_in_an_answer(askers, work):
    """Records of other names, classes, types and sections say nothing; the order of aliases does not matter; odd data is left out."""
    port = tools.free_port()

    def script(r):
        extra = [record("evil.test", MX, BAD), record(r.name, MX, BAD, cls=3), record(r.name, A, address("192.0.2.66"))]
        if r.name == "order.test":
            return r.reply(record("c.test", MX, GOOD[0]), record("b.test", CNAME, wire("c.test")), record("ORDER.test", CNAME, wire("B.test")))
        if r.name == "eight.test":
            chain = [r.name] + ["%d.test" % i for i in range(8)]
            return r.reply(*[record(a, CNAME, wire(b)) for a, b in zip(chain, chain[1:])], record("7.test", MX, GOOD[0]))
        if r.name == "additional.test":
            p = r.reply(record(r.name, MX, BAD))
            return p[:6] + b"\0\0\0\0\0\1" + p[12:]
        if r.kind in (A, AAAA):
            good_one = address("192.0.2.1" if r.kind == A else "2001:db8::1")
            return r.reply(record(r.name, r.kind, b"\1\2\3"), record(r.name, r.kind, good_one + b"x"), record(r.name, r.kind, b""),
                           record(r.name, AAAA if r.kind == A else A, bytes(16 if r.kind == A else 4)), record(r.name, r.kind, good_one))
        return r.reply(*extra, record(r.name, MX, b"\0"), record(r.name, MX, mx(1, b"\x05evil")), record(r.name, MX, mx(1, wire("evil.test") + b"x")),
                       record(r.name, MX, mx(2, b"\x04e\0il\0")), record(b"\xc0\x0c", MX, mx(10, b"\x04GOOD\xc0\x12")))
    server = dnspeer.Double(tools.fresh_address(99), port, script)
    try:
        ask = dnspeer.Asker(askers["sanitized"], work, port, [server.host])
        got = ask("mx", "order.test", "eight.test", "additional.test", "mixed.test")
        assert [g.status for g in got] == ["ok", "ok", "nodata", "ok"]
        assert got[0].values == got[1].values == ["10 good.test"] and got[3].values == ["10 good.test"]
        assert ask("both", "mixed.test").values == ["2001:db8::1", "192.0.2.1"]
    finally:
        server.stop()
