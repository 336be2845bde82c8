# SPDX-License-Identifier: MIT
"""
The whole server in a network that is real enough to go wrong: unbound has MX records, hosts are down, silent, far away, only IPv6, and the
cable between loses a packet in fourteen. Mail comes in by SMTP, and what becomes of it is seen at the mail hosts of the world.
"""

import contextlib
import itertools
import os
import time

import pytest

import dnspeer
import harness
import network
import remote
import smtpc
import tools
from tools import poll

pytestmark = [pytest.mark.release, pytest.mark.root]

GOOD, SECOND, CLOSED, DARK, CUT, LATE = ("10.77.1.%d" % n for n in (1, 2, 3, 4, 5, 6))
DNS, DNS2, LOSSY = "10.77.1.53", "10.77.1.54", ("10.77.2.1", "10.77.2.2")
SIX = "fd77:1::1"
ZONE = """$ORIGIN test.
$TTL 60
@ SOA ns hostmaster 1 60 60 60 60
refused MX 10 closed
 MX 20 good
dark MX 10 silent
 MX 20 good
null MX 0 .
bare A %(GOOD)s
baresix AAAA %(SIX)s
six MX 10 onlysix
onlysix AAAA %(SIX)s
both MX 10 both-host
both-host A %(DARK)s
 AAAA %(SIX)s
named MX 10 mail.example.net.
loop MX 10 near
backup MX 10 silent
 MX 20 near
backupnamed MX 10 silent
 MX 20 mail.example.net.
 MX 30 good
cut MX 10 cut-host
cut-host A %(CUT)s
late MX 10 late-host
late-host A %(LATE)s
lossy MX 10 lossy-host
lossy-host A %(LOSSY1)s
 A %(LOSSY2)s
sender MX 10 second
second A %(SECOND)s
good A %(GOOD)s
closed A %(CLOSED)s
silent A %(DARK)s
near A %(NEAR4)s
 AAAA %(NEAR6)s
""" % dict(globals(), LOSSY1=LOSSY[0], LOSSY2=LOSSY[1], NEAR4=network.NEAR4, NEAR6=network.NEAR6)


class World:
    def __init__(self, work, house):
        self.work, self.house = work, house
        self.net = network.Network([GOOD, SECOND, CLOSED, CUT, LATE, DNS, DNS2, *LOSSY, SIX])
        self.net.dark.add(DARK)
        self.peers, self.servers, self.words = {}, [], itertools.count()
        with self.net.far:
            self.dns = [dnspeer.Unbound(work, a, 53, {"test": ZONE}, "10.77.0.0/16") for a in (DNS, DNS2)]
            for a in (GOOD, SECOND, CUT, LATE, SIX, *LOSSY):
                self.peers[a] = remote.Peer(address=a, port=25, backlog=128)

    def server(self, name, resolv, **control):
        """A server in `near`, which has a resolv.conf of its own."""
        path = tools.write(os.path.join(self.work, "resolv-" + name), resolv)
        with self.net.near:
            s = harness.Server(self.work, self.house, None, listen={"inside": "inside 127.0.0.1:{}"}, control={"relay": "on\n", **control},
                               mounts=["mount --bind %s /etc/resolv.conf" % path])
        self.servers.append(s)
        s.resolv = path
        return s

    def send(self, server, domain, n=1, text=smtpc.MESSAGE):
        """A word that is in the recipients' addresses; hundred messages share a session."""
        word = "w%d-%s" % (next(self.words), domain.split(".")[0])
        with self.net.near:
            c = server.connect("inside")
        with c:
            c.ehlo()
            for i in range(n):
                c.envelope("alice@sender.test", ["%s-%d@%s" % (word, i, domain)])
                c.cmd("DATA", 354)
                c.send(text + b".\r\n")
                assert c.reply() == 250
            c.quit()
        return word

    def arrived(self, word, address):
        """[recipient] of what a host has taken whole."""
        return [a for t in list(self.peers[address].talks) for a in t.taken() if a.startswith(word)]

    def bounced(self, word):
        return [m for t in list(self.peers[SECOND].talks) for m in t.messages if ("<%s-0@" % word).encode() in m]

    def close(self):
        for s in self.servers:
            with contextlib.suppress(ProcessLookupError):
                s.stop()
        for p in self.peers.values():
            p.stop()
        for d in self.dns:
            d.stop()
        self.net.close()


@pytest.fixture(scope="module")
def world(work, house):
    w = World(work, house)
    yield w
    w.close()


@pytest.fixture(scope="module")
def crowd(world):
    """Cases wait at the same time; the servers are made before, one after the other."""
    usual = world.server("usual", "nameserver %s\noptions timeout:2 attempts:2\n" % DNS, timeoutconnect="3\n")
    cases = {name: lambda n=name: CASES[n](world, usual) for name in CASES}
    for f in OWN:
        s = OWN[f][0](world)
        cases[f] = lambda f=f, s=s: OWN[f][1](world, s)
    return tools.Crowd(cases)


CASES, OWN = {}, {}


def case(f):
    CASES[f.__name__] = f
    return f


def own(start):
    """A case with a server of its own, made by start(world)."""
    def keep(f):
        OWN[f.__name__] = (start, f)
        return f
    return keep


def goes_to(address):
    def run(world, server, domain):
        word = world.send(server, domain)
        poll(lambda: world.arrived(word, address), "a message at %s" % address, 40)
        assert not world.bounced(word)
    return run


for _name, _domain, _address in (
        ("the better one refuses connections", "refused.test", GOOD), ("the better one is silent", "dark.test", GOOD),
        ("no MX, an address", "bare.test", GOOD), ("no MX, an address of IPv6", "baresix.test", SIX), ("only IPv6", "six.test", SIX),
        ("two addresses, one of them silent", "both.test", SIX)):
    CASES[_name] = lambda w, s, d=_domain, a=_address: goes_to(a)(w, s, d)


def comes_back(words):
    def run(world, server, domain):
        word = world.send(server, domain)
        (report,) = poll(lambda: world.bounced(word), "a report", 40)
        assert words in report, report
    return run


for _name, _domain, _words in (
        ("null MX", "null.test", b"it takes no mail, say its MX records"), ("no such domain", "nowhere.test", b"there is no such host"),
        ("a loop by name", "named.test", b"its mail is to be delivered here"), ("a loop by address", "loop.test", b"its mail is to be delivered here")):
    CASES[_name] = lambda w, s, d=_domain, t=_words: comes_back(t)(w, s, d)


@case
def waits_as_backup(world, server):
    """The best host is down and we are the next: it waits here, and goes neither to ourselves nor to those behind us."""
    for domain in ("backup.test", "backupnamed.test"):
        word = world.send(server, domain)
        event = poll(lambda: server.log("deliver", domain=domain, result="defer"), "a deferral", 40)[0]
        assert DARK in event["text"] and network.NEAR4 not in event["text"] and GOOD not in event["text"], event
        assert not world.bounced(word) and not world.arrived(word, GOOD)


@case
def cut_in_the_middle(world, server):
    """The line is dead for four seconds while the message is under way, which TCP survives: no second copy."""
    peer = world.peers[CUT]
    text = smtpc.MESSAGE + b"0123456789abcdef\r\n" * 40000
    world.net.delay[CUT] = (0.05, 0)
    word = world.send(server, "cut.test", text=text)
    poll(lambda: any(b"DATA" in t.lines for t in peer.talks), "DATA", 40)
    world.net.dark.add(CUT)
    time.sleep(4)
    assert not world.arrived(word, CUT)
    world.net.dark.discard(CUT)
    poll(lambda: world.arrived(word, CUT), "the message", 60)
    poll(lambda: [e for e in server.log("deliver") if word in e.text], "that it is known", 40)
    assert len(world.arrived(word, CUT)) == 1
    (got,) = [m for t in peer.talks for m in t.messages]
    assert got.endswith(smtpc.stored(text))


@own(lambda w: w.server("late", "nameserver %s\noptions timeout:1 attempts:1\n" % DARK))
def name_servers_come_late(world, server):
    """A router that boots: mail comes before there is a name server. It waits, and goes out when there is another resolv.conf."""
    word = world.send(server, "late.test", 3)
    poll(lambda: [e for e in server.log("deliver", result="defer") if "no answer from the name servers" in e["text"]], "a deferral", 40)
    assert not world.arrived(word, LATE)
    tools.write(server.resolv, "nameserver %s\n" % DNS)
    poll(lambda: len(world.arrived(word, LATE)) == 3, "all of them", 60)
    assert not world.bounced(word)


@own(lambda w: w.server("dns-down", "nameserver %s\noptions timeout:1 attempts:1\n" % DNS2))
def name_server_down(world, server):
    """It is down and comes back: nothing is returned, everything arrives."""
    world.net.dark.add(DNS2)
    word = world.send(server, "bare.test", 3)
    poll(lambda: [e for e in server.log("deliver", result="defer") if "no answer from the name servers" in e["text"]], "a deferral", 40)
    assert not world.arrived(word, GOOD)
    world.net.dark.discard(DNS2)
    begin = time.monotonic()
    # By itself: the first pause of a destination that is down.
    poll(lambda: len(world.arrived(word, GOOD)) == 3, "all of them", 60)
    print("first delivery %.1f s after the name server was back" % (time.monotonic() - begin))
    assert not world.bounced(word)


@own(lambda w: w.server("lossy", "nameserver %s\nnameserver %s\noptions timeout:2 attempts:5\n" % (DNS, DNS)))
def far_away(world, server):
    """A hundred messages over 200 ms of round trip, with jitter, and one packet in fourteen lost: each arrives once, at the first attempt."""
    for a in LOSSY:
        world.net.loss[a], world.net.delay[a] = 0.07, (0.1, 0.03)
    begin = time.monotonic()
    word = world.send(server, "lossy.test", 100)
    poll(lambda: len([e for e in server.log("deliver") if word in e.text]) >= 100, "the reports of all", 110)
    got = sorted(r for a in LOSSY for r in world.arrived(word, a))
    assert got == sorted("%s-%d@lossy.test" % (word, i) for i in range(100))
    assert not server.log("deliver", result="defer") and not server.log("backoff")
    talks = sum(len(world.peers[a].talks) for a in LOSSY)
    print("100 messages in %.1f s over %d connections, %d packets of %d lost" % (time.monotonic() - begin, talks, world.net.dropped,
                                                                                world.net.carried))
    assert world.net.dropped > 20


@pytest.mark.parametrize("name", [*CASES, *OWN])
def test_case(crowd, name):
    crowd[name]
