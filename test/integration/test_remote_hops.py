# SPDX-License-Identifier: MIT
"""
Which hosts are tried, in what order, and when no further one is; connections that carry several messages; and what a delivery process does
when the scheduler lets go of it.
"""

import socket
import time

import pytest

import remote
import tools
from remote import CLOSE, MX, STALL, Names, Peer, Remote

pytestmark = pytest.mark.release

CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


@pytest.fixture(scope="module")
def crowd(remote_binary):
    return tools.Crowd({name: lambda f=f: f(remote_binary) for name, f in CASES.items()})


def unused():
    """An address and port where nobody listens."""
    return "127.0.0.1:%d" % tools.free_port()


# ---- routes ----

@case
def relays_in_order(binary):
    with Peer({"greet": b"554 no\r\n"}) as first, Peer({"ehlo": b"421 busy\r\n"}) as second, Peer({"greet": CLOSE}) as third, Peer() as fourth:
        line = remote.route(first, second, third, fourth)
        with Remote(binary, {"smtproutes": line}) as r:
            got = r.deliver()
    assert got.classes == "K" and got.done.peer == "127.0.0.1:%d" % fourth.port and not got.done.unreachable
    assert [len(p.talks) for p in (first, second, third, fourth)] == [1, 1, 1, 1]


@case
def relay_names(binary):
    with Peer() as p, Names({"relay.example": {"A": ["127.0.0.1"]}}) as dns, Remote(binary, {"smtproutes": ":relay.example:%d" % p.port}, dns.port) as r:
        got = r.deliver()
        assert got.classes == "K" and got.done.name == "relay.example" and got.done.peer == "127.0.0.1:%d" % p.port


@case
def relay_unknown(binary):
    """That a relay's name does not exist is a fault of the route: mail waits."""
    with Names({"other.example": {"fail": True}}) as dns:
        for name, words in (("relay.example", "no such host"), ("other.example", "no answer from the name servers")):
            with Remote(binary, {"smtproutes": ":%s" % name}, dns.port) as r:
                got = r.deliver()
            assert got.classes == "Z" and got.done.unreachable and words in got.first.text and "(#4.1.2)" in got.first.text, got


@case
def relay_busy(binary):
    """421 to the greeting, and EHLO refused in both forms: the next one; the text names all."""
    with Peer({"greet": b"421 4.3.2 too busy\r\n"}) as a, Peer({"ehlo": b"550 no\r\n", "helo": b"550 5.7.1 not you\r\n"}) as b:
        with Remote(binary, {"smtproutes": remote.route(a, b)}) as r:
            got = r.deliver()
    assert got.classes == "Z" and got.first.code == 550 and got.done.unreachable
    assert "421 4.3.2 too busy" in got.first.text and "550 5.7.1 not you" in got.first.text


@case
def answers_are_final(binary):
    """What is said to MAIL or later is an answer; no other host is asked."""
    for stage in ("mail", "rcpt", "data", "dot"):
        for octets, klass in ((b"451 4.0.0 x\r\n", "Z"), (b"551 5.0.0 x\r\n", "D"), (CLOSE, "Z")):
            with Peer({stage: octets, "data": octets if stage == "data" else b"354 go\r\n"}) as a, Peer() as b:
                with Remote(binary, {"smtproutes": remote.route(a, b)}) as r:
                    assert r.deliver().classes == klass
            assert len(a.talks) == 1 and not b.talks


@case
def no_relay_reached(binary):
    a, b = unused(), unused()
    with Remote(binary, {"smtproutes": ":%s %s" % (a, b)}) as r:
        got = r.deliver()
    assert got.classes == "Z" and got.done.unreachable and got.done.peer == "" and got.done.reuse == 0 and got.first.code == 0
    assert got.first.text.startswith("Mail for example.org cannot be delivered now. (#4.4.1)\n") and got.first.text.count("onnection refused") == 2


@case
def connect_timeout(binary):
    """A host that does not even refuse: a listener whose queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        clients = []
        for _ in range(3):
            c = socket.socket()
            c.setblocking(False)
            c.connect_ex(("127.0.0.1", port))
            clients.append(c)
        time.sleep(0.2)
        with Peer() as p, Remote(binary, {"smtproutes": ":127.0.0.1:%d 127.0.0.1:%d" % (port, p.port)}, connect=2) as r:
            began = time.monotonic()
            got = r.deliver()
            assert got.classes == "K" and got.done.peer.endswith(str(p.port)) and 1.9 < time.monotonic() - began
        for c in clients:
            c.close()


# ---- MX ----

def hosts(**addresses):
    return {name.replace("_", "."): {"A": a if isinstance(a, list) else [a]} for name, a in addresses.items()}


def deliver_mx(binary, zone, port=0, domain="example.org", **kw):
    with Names(zone) as dns, Remote(binary, kw.pop("files", None), dns.port, port, **kw) as r:
        return r.deliver(route=MX, domain=domain, rcpts=("bob@" + domain,))


@case
def mx_order(binary):
    port = tools.free_port()
    zone = dict(hosts(mx1_example="127.0.0.2", mx2_example="127.0.0.3", mx3_example="127.0.0.4"),
                **{"example.org": {"MX": [(30, "mx3.example"), (10, "mx1.example"), (20, "mx2.example")], "A": ["127.0.0.5"]}})
    with Peer({"greet": CLOSE}, address="127.0.0.3", port=port) as second, Peer(address="127.0.0.4", port=port) as third:
        got = deliver_mx(binary, zone, port)
    assert got.classes == "K" and got.done.peer == "127.0.0.4:25" and got.done.name == "mx3.example" and len(second.talks) == 1 and third.talk.messages


@case
def mx_equal(binary):
    """Hosts of one preference share the load."""
    port = tools.free_port()
    zone = dict(hosts(mx1_example="127.0.0.2", mx2_example="127.0.0.3"), **{"example.org": {"MX": [(10, "mx1.example"), (10, "mx2.example")]}})
    with Peer(address="127.0.0.2", port=port) as a, Peer(address="127.0.0.3", port=port) as b:
        for _ in range(16):
            assert deliver_mx(binary, zone, port).classes == "K"
        assert len(a.talks) + len(b.talks) == 16 and a.talks and b.talks


@case
def mx_null(binary):
    got = deliver_mx(binary, {"example.org": {"MX": [(0, ".")], "A": ["127.0.0.2"]}})
    assert got.classes == "D" and "(#5.1.10)" in got.first.text and not got.done.unreachable


@case
def mx_none(binary):
    got = deliver_mx(binary, {})
    assert got.classes == "D" and "there is no such host" in got.first.text and "(#5.1.2)" in got.first.text and not got.done.unreachable


@case
def mx_implicit(binary):
    port = tools.free_port()
    with Peer(address="127.0.0.2", port=port):
        got = deliver_mx(binary, {"example.org": {"A": ["127.0.0.2"]}}, port)
    assert got.classes == "K" and got.done.name == "example.org"


@case
def mx_trouble(binary):
    got = deliver_mx(binary, {"example.org": {"fail": True}})
    assert got.classes == "Z" and "(#4.1.2)" in got.first.text and got.done.unreachable


@case
def mx_without_address(binary):
    for zone in ({"example.org": {"MX": [(10, "gone.example"), (20, "mx.example")]}, "mx.example": {}}, {"example.org": {}}):
        got = deliver_mx(binary, zone)
        assert got.classes == "D" and "(#5.4.4)" in got.first.text and not got.done.unreachable, got


@case
def mx_host_trouble(binary):
    """One of them cannot be looked up: another day, perhaps."""
    got = deliver_mx(binary, {"example.org": {"MX": [(10, "gone.example"), (20, "mx.example")]}, "mx.example": {"fail": True}})
    assert got.classes == "Z" and "(#4.1.2)" in got.first.text and got.done.unreachable


@case
def mx_is_us(binary):
    by_name = {"example.org": {"MX": [(10, "OUT.example.net"), (20, "mx.example")]}, "mx.example": {"A": ["127.0.0.2"]}}
    by_address = {"example.org": {"MX": [(10, "this.example")]}, "this.example": {"A": ["127.0.0.2", "127.0.0.9"]}}
    for zone in (by_name, by_address, {"example.org": {"A": ["127.0.0.9"]}}):
        got = deliver_mx(binary, zone)
        assert got.classes == "D" and "(#5.4.6)" in got.first.text, got


@case
def mx_worse_than_us(binary):
    """The hosts before us are tried, those behind us never: that would be a loop."""
    port = tools.free_port()
    zone = dict(hosts(mx1_example="127.0.0.2", us_example="127.0.0.9", mx3_example="127.0.0.4"),
                **{"example.org": {"MX": [(10, "mx1.example"), (20, "us.example"), (30, "mx3.example")]}})
    with Peer(address="127.0.0.4", port=port) as third:
        got = deliver_mx(binary, zone, port)
    assert got.classes == "Z" and not third.talks and "mx1.example [127.0.0.2]" in got.first.text


@case
def mx_as_good_as_us(binary):
    port = tools.free_port()
    zone = dict(hosts(mx1_example="127.0.0.2", us_example="127.0.0.9"), **{"example.org": {"MX": [(10, "mx1.example"), (10, "us.example")]}})
    with Peer(address="127.0.0.2", port=port) as p:
        for _ in range(4):
            got = deliver_mx(binary, zone, port)
            assert got.classes == "D" and "(#5.4.6)" in got.first.text and not p.talks


@case
def literal(binary):
    port = tools.free_port()
    with Peer(address="127.0.0.2", port=port) as p:
        assert deliver_mx(binary, {}, port, domain="[127.0.0.2]").classes == "K" and p.talk.messages
        for bad in ("[127.0.0.9]", "[127.0.0.2", "[]", "[IPv6:127.0.0.2]", "[x]"):
            assert deliver_mx(binary, {}, port, domain=bad).classes == "D", bad
        assert len(p.talks) == 1


@case
def ten_addresses(binary):
    port = tools.free_port()
    peers = [Peer({"greet": b"554 no\r\n"}, address="127.0.7.%d" % i, port=port) for i in range(1, 13)]
    zone = {"example.org": {"MX": [(10, "a.example"), (20, "b.example")]}, "a.example": {"A": [p.address for p in peers[:7]]},
            "b.example": {"A": [p.address for p in peers[7:]]}}
    got = deliver_mx(binary, zone, port)
    assert got.classes == "Z" and sum(len(p.talks) for p in peers) == 10
    for p in peers:
        p.stop()


@case
def mx_route(binary):
    """A route without relays is MX, in spite of a wider route."""
    port = tools.free_port()
    with Peer() as smarthost, Peer(address="127.0.0.2", port=port) as p, Names({"example.org": {"A": ["127.0.0.2"]}}) as dns:
        with Remote(binary, {"smtproutes": "example.org:\n" + remote.route(smarthost)}, dns.port, port) as r:
            assert r.deliver(route=0).classes == "K" and p.talk.messages and not smarthost.talks


@case
def ipv6(binary):
    if not tools.have_ipv6():
        return
    with Peer(address="::1") as p, Remote(binary, {"smtproutes": ":[::1]:%d" % p.port}) as r:
        got = r.deliver()
        assert got.classes == "K" and got.done.peer == "[::1]:%d" % p.port and got.first.text.startswith("::1 has")


# ---- several messages ----

@case
def reuse(binary):
    with Peer() as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        for n in range(3):
            got = r.deliver(message=b"n: %d\n\n" % n, sender="s%d@example.net" % n)
            assert got.classes == "K" and got.done.reuse and got.done.octets > 0
    assert p.talk.verbs == ["EHLO"] + 3 * ["MAIL", "RCPT", "DATA"] + ["QUIT"] and p.talk.messages == [b"n: %d\n\n" % n for n in range(3)]


@case
def rset(binary):
    """A transaction that did not end with 250 is ended by RSET, with the next envelope, in one write."""
    for keywords in (["PIPELINING"], []):
        with Peer({"rcpt": [b"550 no\r\n", b"250 ok\r\n"], "data": [b"554 none\r\n", b"354 go\r\n"] if keywords else b"354 go\r\n"}, keywords) as p:
            with Remote(binary, {"smtproutes": remote.route(p)}) as r:
                assert r.deliver().classes == "D" and r.deliver().classes == "K" and r.deliver().classes == "K"
        assert p.talk.verbs.count("RSET") == 1 and len(p.talk.messages) == 2
        assert not keywords or any(c.startswith(b"RSET\r\nMAIL") and c.endswith(b"DATA\r\n") for c in p.talk.chunks)


@case
def closed_while_idle(binary):
    """The peer has gone when the next message comes: another connection, and nobody notices."""
    with Peer({"mail": [b"250 ok\r\n", CLOSE, b"250 ok\r\n"]}) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        assert r.deliver().classes == "K"
        got = r.deliver()
        assert got.classes == "K" and len(p.talks) == 2 and [len(t.messages) for t in p.talks] == [1, 1]


@case
def closed_while_idle_and_refused(binary):
    """
    An address that cannot be said is reported before the old connection turns out dead; on the new one it was taken up again, and reported
    twice.
    """
    with Peer({"rcpt": [b"250 ok\r\n", b"250 ok\r\n", CLOSE, b"250 ok\r\n"]}) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        assert r.deliver().classes == "K"
        got = r.deliver(rcpts=["a@example.org", "x\ny@example.org", "b@example.org"])
        assert got.classes == "KDK" and len(p.talks) == 2 and p.talks[1].verbs.count("RCPT") == 2


@case
def idle_421(binary):
    with Peer({"dot": b"250 ok\r\n"}, after={"dot": b"421 4.4.2 idle too long\r\n"}) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        assert r.deliver().classes == "K" and r.deliver().classes == "K" and len(p.talks) == 2


@case
def mail_421(binary):
    """421 to the first command on an old connection is about the connection; on a new one it is an answer."""
    with Peer({"mail": [b"250 ok\r\n", b"421 4.3.2 enough\r\n", b"421 4.3.2 enough\r\n"], "rcpt": b"250 ok\r\n"}) as p:
        with Remote(binary, {"smtproutes": remote.route(p)}) as r:
            assert r.deliver().classes == "K"
            got = r.deliver()
            assert got.classes == "Z" and got.first.code == 421 and len(p.talks) == 2


@case
def reused_then_stalls(binary):
    """An old connection that has died without a word is given up after the time for a reply, and a new one made."""
    with Peer({"mail": [b"250 ok\r\n", STALL, b"250 ok\r\n"]}) as p, Remote(binary, {"smtproutes": remote.route(p)}, timeout=3) as r:
        assert r.deliver().classes == "K" and r.deliver().classes == "K" and len(p.talks) == 2


@case
def fifty(binary):
    with Peer() as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        flags = [r.deliver().done.reuse for _ in range(51)]
        assert flags == [1] * 49 + [0, 1]
        tools.poll(lambda: p.talks[0].end, "the goodbye of the first one")
        assert len(p.talks) == 2 and p.talks[0].end == "quit" and len(p.talks[0].messages) == 50


@case
def idle_quit(binary):
    """Nothing comes for five seconds: QUIT. The process stays, for a job that comes all the same."""
    with Peer() as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        assert r.deliver().done.reuse
        began = time.monotonic()
        tools.poll(lambda: p.talks[0].end == "quit", "QUIT")
        assert time.monotonic() - began > 4.5 and r.process.poll() is None
        assert r.deliver().classes == "K" and len(p.talks) == 2


@case
def other_destination(binary):
    """The scheduler would not do that; but a message must not go where the connection happens to lead."""
    with Peer() as a, Peer() as b, Remote(binary, {"smtproutes": remote.route(a, domain="a.example") + remote.route(b, domain="b.example")}) as r:
        assert r.deliver(route=0, domain="a.example").classes == "K" and r.deliver(route=1, domain="b.example").classes == "K"
        tools.poll(lambda: a.talk.end, "the goodbye of the first one")
        assert a.talk.end == "quit" and len(b.talk.messages) == 1


# ---- time ----

@case
def scheduler_leaves(binary):
    """Nobody is there to be told any more: the delivery is given up, without an end to the message."""
    for stage in ("greet", "mail", "data", "dot"):
        with Peer({stage: STALL}) as p:
            r = Remote(binary, {"smtproutes": remote.route(p)})
            r.job()
            tools.poll(lambda: p.talks and p.counts.get(stage), "stage " + stage)
            began = time.monotonic()
            assert r.stop() == 0 and time.monotonic() - began < 5
            assert len(p.talk.messages) == (stage == "dot")


@case
def scheduler_leaves_connecting(binary):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        clients = [socket.socket() for _ in range(3)]
        for c in clients:
            c.setblocking(False)
            c.connect_ex(full.getsockname())
        r = Remote(binary, {"smtproutes": ":127.0.0.1:%d" % full.getsockname()[1]}, connect=60)
        r.job()
        time.sleep(1)
        began = time.monotonic()
        assert r.stop() == 0 and time.monotonic() - began < 5
        for c in clients:
            c.close()


@case
def reports_at_once(binary):
    """A refused recipient is known to be so while others still wait."""
    with Peer({"rcpt": [b"550 no\r\n", b"250 ok\r\n"], "dot": STALL}) as p, Remote(binary, {"smtproutes": remote.route(p)}, timeout=4) as r:
        r.job(rcpts=("a@example.org", "b@example.org"))
        first, second = r.reply(), r.reply()
        assert (first.rcpt, first.klass, second.rcpt, second.klass) == (0, "D", 1, "Z") and second.time - first.time > 3
        r.reply()


@case
def refused_in_the_middle(binary):
    """The peer has had enough, says so and closes."""
    message = (b"x" * 76 + b"\n") * 400000
    with Peer({"body": [b"552 5.3.4 that is too much\r\n", CLOSE]}, []) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        got = r.deliver(message=message)
        assert got.classes == "D" and got.first.code == 552 and "552 5.3.4 that is too much" in got.first.text, got
    with Peer({"body": [b"", CLOSE]}, []) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
        got = r.deliver(message=message)
        assert got.classes == "Z" and got.first.code == 0 and "(#4.4.2)" in got.first.text and "more than once" not in got.first.text


@case
def slow_reader(binary):
    """A peer that stops reading the message: given up when a block is not taken in time."""
    with Peer({"body": b""}, [], slow={"body": 30}) as p, Remote(binary, {"smtproutes": remote.route(p)}, timeout=3) as r:
        began = time.monotonic()
        got = r.deliver(message=(b"x" * 76 + b"\n") * 400000)
        assert got.classes == "Z" and "took too long" in got.first.text and 2.9 < time.monotonic() - began < 25, got


@case
def hundred_recipients(binary):
    """As many as there may be, in one write as far as it goes, and with long addresses."""
    rcpts = ["%s%d@example.org" % ("u" * 900, i) for i in range(100)]
    answers = [b"250-2.1.5 " + b"x" * 400 + b"\r\n250 2.1.5 ok\r\n" if i % 3 else b"550 5.1.1 number %d\r\n" % i for i in range(100)]
    for keywords in (["PIPELINING"], []):
        with Peer({"rcpt": answers}, keywords) as p, Remote(binary, {"smtproutes": remote.route(p)}) as r:
            got = r.deliver(rcpts=rcpts)
            assert got.classes == "".join("K" if i % 3 else "D" for i in range(100)) and "number 99" in got.reports[99].text
        assert [line.decode() for line in p.talk.lines if line.startswith(b"RCPT")] == ["RCPT TO:<%s>" % a for a in rcpts]


@case
def trickled_reply(binary):
    """The time is for the whole reply: a line now and then does not make it longer."""
    with Peer() as p:
        def trickle(sock, talk):
            talk.end = "trickled"
            try:
                while not p.stopping.is_set():
                    sock.sendall(b"220-still there\r\n")
                    p.stopping.wait(0.5)
            except OSError:
                pass
            sock.close()
        p._serve = trickle
        with Remote(binary, {"smtproutes": remote.route(p)}, timeout=3) as r:
            began = time.monotonic()
            got = r.deliver()
            assert got.classes == "Z" and "took too long" in got.first.text and 2.9 < time.monotonic() - began < 20


@case
def silent_quit(binary):
    """Reports are out before QUIT, and who does not answer it is left after a second."""
    with Peer({"quit": STALL}) as p:
        r = Remote(binary, {"smtproutes": remote.route(p)})
        assert r.deliver().classes == "K"
        began = time.monotonic()
        assert r.stop() == 0 and time.monotonic() - began < 6
        assert p.talk.verbs[-1] == "QUIT"


@pytest.mark.parametrize("name", list(CASES))
def test_hops(crowd, name):
    crowd[name]
