# SPDX-License-Identifier: MIT
"""Many at once: connections, addresses, messages. Who is honest is served all the same, and nothing of it stays."""

import threading
import time

import pytest

import abuse
import harness
import radius
import smtpc
import tools
from abuse import Attacker, Watch

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


CROWDS = {
    "50 addresses": ["127.201.1.%d" % n for n in range(1, 51)],
    "1000 addresses": ["127.202.%d.%d" % (n // 250, n % 250 + 1) for n in range(1000)],
    "1000 networks": ["127.%d.%d.7" % (203 + n // 250, n % 250) for n in range(1000)],
}


@pytest.mark.parametrize("crowd", list(CROWDS))
def test_idle_crowd(besieged, crowd):
    """
    A thousand connections that say nothing, within a second or so. All places of guests were taken for five seconds, and as long as somebody
    made new connections, 77 in a second: no customer got in. Now a network that holds more places than others gives them to others.
    """
    ports = [besieged.port[p] for p in ("smtp", "submission", "submissions")]
    with Watch(besieged, cpu=3) as w:
        attacker = Attacker(mode="idle", sources=CROWDS[crowd], ports=ports, mute=[besieged.port["submissions"]], total=1000)
        seen = attacker.result()["seen"]
        served = len(w.seconds)
        tools.poll(lambda: len(w.seconds) >= served + 3, "customers beside the crowd")
        attacker.leave()
    assert sum(seen.values()) == 1000 and set(seen) <= {"220", "421", "open"}, seen
    assert w.messages == []


@pytest.mark.root
@pytest.mark.parametrize("count,release", [(100, None), (2000, 0.3)])
def test_descriptors_on_their_way(work, count, release):
    """
    A message file goes from warden to smtp as a descriptor. The kernel limits how many of a user's are on their way, by RLIMIT_NOFILE of
    who sends: with 24, a busy machine made wardens fail, counted as crashes, and the server started over. When even the limit of all
    sessions is reached, the warden waits for a while.
    """
    house = abuse.OwnHouse("%s/in-flight-%d" % (work, count), 500)
    server = harness.Server(work, house, None, listen={"inside": harness.LISTEN["inside"]})
    held = abuse.InFlight(house.uid["qmailq"], count)
    try:
        with server.session("inside") as c:
            c.envelope()
            if release:
                threading.Timer(release, held.release).start()
            c.data(smtpc.MESSAGE)
            c.quit()
    finally:
        held.release()
        server.take()
        server.stop()


def test_churn(besieged):
    """Thousands of connections that come and go in every way there is: main's work for each stays small, and two log lines are all it leaves."""
    total = 20000 if tools.LONG else 2500
    ports = [besieged.port[p] for p in ("smtp", "submission", "submissions")]
    sources = ["127.210.%d.%d" % (n // 200, n % 200 + 1) for n in range(400)]
    with Watch(besieged, cpu=total * 0.0005, lines=12) as w:
        attacker = Attacker(mode="churn", sources=sources, ports=ports, how=["close", "reset", "speak", "half"], total=total, seconds=300, at_once=40)
        seen = attacker.result()["seen"]
        attacker.leave()
    assert seen["done"] == total and w.messages == []


def test_one_address_opens_all_it_may(besieged):
    """20 sessions without a login, on whatever ports; all others are told so, or on the TLS port closed without an octet in the clear."""
    ports = [besieged.port[p] for p in ("smtp", "submission", "submissions", "inside")]
    source = tools.fresh_address()
    with Watch(besieged) as w:
        attacker = Attacker(mode="idle", sources=[source], ports=ports, mute=[besieged.port["submissions"]], total=20, at_once=1)
        assert sum(attacker.result()["seen"].values()) == 20
        for profile in ("smtp", "submission", "submissions", "inside"):
            for _ in range(5):
                with smtpc.Client(("127.0.0.1", besieged.port[profile]), source, hello=False) as c:
                    if profile == "submissions":
                        assert c.rest() == b""
                    else:
                        assert c.reply(421).raw == b"421 4.7.0 too many connections, try again later\r\n"
                        c.closed()
        attacker.leave()
    assert w.messages == []


def logged_in_sessions(server, source, count):
    """As many as there may be; and what the next one hears."""
    clients = [server.session("submissions", source=source) for _ in range(count)]
    with smtpc.Client(("127.0.0.1", server.port["smtp"]), source, hello=False) as c:
        c.reply(421)
    return clients


def test_a_customer_opens_all_it_may(besieged):
    """A login makes room for more, but for no more than 40; who holds them all holds up nobody else."""
    with Watch(besieged) as w:
        clients = logged_in_sessions(besieged, tools.fresh_address(), 40)
        served = len(w.seconds)
        tools.poll(lambda: len(w.seconds) >= served + 2, "other customers")
        for c in clients:
            c.close()


def test_login_and_go(make_server, make_double):
    """
    A warden waits for RADIUS, and before it says no, and its client need not wait with it. Such wardens kept their places for up to 15 seconds
    and could not be sent away: with 512 of them nobody else got in.
    """
    waiting = []

    def answer(request, _):
        if request.get(radius.USER_NAME) != [b"guess"]:
            return radius.accept(request)
        return waiting.append(request)
    double = make_double(answer)
    server = make_server(radius=double.line("15 3"))
    with Watch(server, cpu=3, lines=14) as w:
        attackers = [Attacker(mode="go", tls=True, sources=["127.%d.1.%d" % (212 + k, n + 1) for n in range(20)], port=server.port["submissions"],
                              total=190, last="AUTH PLAIN " + smtpc.b64("\0guess\0x") + "\r\n") for k in range(2)]
        assert sum(a.result()["ready"] for a in attackers) > 330
        for a in attackers:
            a.process.stdin.write(b"go\n")
            a.process.stdin.flush()
        for a in attackers:
            assert a.result()["gone"]
        served = len(w.seconds)
        more = Attacker(mode="idle", sources=CROWDS["1000 networks"], ports=[server.port["smtp"]], total=200)
        assert sum(more.result()["seen"].values()) == 200
        tools.poll(lambda: len(w.seconds) >= served + 5, "customers")
        for a in attackers + [more]:
            a.leave()
        for request in waiting:  # what is left need not wait to its end
            double.sock.sendto(radius.accept(request), request.address)
    assert w.messages == []


IPV6 = {"smtp": "smtp [2001:db8:0:1::25]:{}", "submissions": "submissions 127.0.0.1:{}", "submission": "submission 127.0.0.1:{}"}


@pytest.mark.root
def test_ipv6_networks(make_server):
    """
    An IPv6 client is its /64: all addresses of one share one allowance. And a /48 full of them, as one customer of a provider gets, does not
    keep others out. In a network of its own, where any address of the prefix can be used.
    """
    network = ["echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind", "ip link set lo up", "ip -6 route add local 2001:db8::/32 dev lo",
               "ip -6 addr add 2001:db8:0:1::25/128 dev lo nodad", 'exec "$@"']
    server = make_server(listen=IPV6, wrap=["unshare", "--net", "sh", "-c", " && ".join(network), "sh"])
    inside = ["nsenter", "--net=/proc/%d/ns/net" % server.pid]

    def attack(sources, total):
        a = Attacker(wrap=inside, mode="idle", host="2001:db8:0:1::25", sources=sources, ports=[server.port["smtp"]], total=total)
        return a, a.result()["seen"]
    one, seen = attack(["2001:db8:77:1:%x::%x" % (n * 257, n + 1) for n in range(40)], 40)
    assert seen == {"220": 20, "421": 20}
    other, seen = attack(["2001:db8:77:2::1"], 1)
    assert seen == {"220": 1}
    one.leave()
    other.leave()
    tools.poll(server.idle, "the end of all sessions")
    many, seen = attack(["2001:db8:66:%x::1" % n for n in range(60)], 600)
    assert seen["220"] == 384, seen
    begin = time.monotonic()
    other, seen = attack(["2001:db8:55:%x::1" % n for n in range(3)], 3)
    assert seen == {"220": 3}
    assert time.monotonic() - begin < 5
    many.leave()
    other.leave()
    tools.poll(server.idle, "the end of all sessions")


@pytest.mark.root
def test_without_root(make_server):
    """All processes of one user, as on somebody's desk: the same limits hold, and main can still end whom it must."""
    def prepare(s):
        tools.rmtree(s.queue)
        tools.run("chown", "-R", "65534:65534", s.home)
        tools.run(*s.argv("mkqueue", "-H", s.home, "-n", "3"))
    server = make_server(wrap=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"], prepare=prepare)
    assert tools.status_of(server.pid)["Uid"].split() == ["65534"] * 4
    ports = [server.port[p] for p in ("smtp", "submission")]
    with Watch(server, cpu=3) as w:
        crowd = Attacker(mode="idle", sources=CROWDS["50 addresses"], ports=ports, total=700)
        seen = crowd.result()["seen"]
        churn = Attacker(mode="churn", sources=CROWDS["1000 networks"], ports=ports, how=["close", "reset", "speak"], total=800, seconds=60)
        assert churn.result()["seen"]["done"] == 800
        churn.leave()
        crowd.leave()
    assert seen["220"] >= 384 and sum(seen.values()) == 700 and w.messages == []
