# SPDX-License-Identifier: MIT
"""TLS to the next hop under each policy of control/smtptls, and passwords: what a peer may have, and what it never gets."""

import base64
import collections
import os
import re
import socket
import ssl
import time

import pytest

import remote
import tools
from remote import MX, Names, Peer, Remote, context, pin

pytestmark = pytest.mark.release

HOST = "relay.example.org"
TLS13 = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
TLS12 = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
TLS11 = (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1)
PASSWORD = "x7:Geheim wort"
WITH_TLS = ("PIPELINING", "STARTTLS", "SIZE")


class World:
    """Certificates of all kinds."""

    def __init__(self, path):
        self.path = path
        self.ca = remote.Authority(os.path.join(path, "ca"))
        self.other = remote.Authority(os.path.join(path, "other"), "Other CA")
        self.cert = {
            "good": self.ca.issue(HOST), "rsa": self.ca.issue(HOST, "rsa"), "ec384": self.ca.issue(HOST, "ec384"),
            "wrong name": self.ca.issue("elsewhere.example.org"), "wildcard": self.ca.issue("wild", san="DNS:*.example.org"),
            "name only in CN": self.ca.issue("cn", san="DNS:elsewhere.example.org"),
            "expired": self.ca.issue("old", san="DNS:" + HOST, days=("20200101000000Z", "20210101000000Z")),
            "not yet": self.ca.issue("new", san="DNS:" + HOST, days=("20900101000000Z", "20910101000000Z")),
            "other CA": self.other.issue(HOST), "self-signed": (os.path.join(path, "self.pem"), os.path.join(path, "self.key")),
        }
        tools.make_certificate(*self.cert["self-signed"], name=HOST)
        # An intermediate that is no CA: a customer's certificate must not make others.
        self.leaf_signs = self._signed_by_leaf()
        self.cert["issued by a leaf"] = self.leaf_signs

    def _signed_by_leaf(self):
        cert, key = self.cert["wrong name"]
        stem = os.path.join(self.path, "bad")
        tools.run("openssl", "req", "-nodes", "-subj", "/CN=" + HOST, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", stem + ".key",
                  "-out", stem + ".csr")
        ext = tools.write(stem + ".ext", "subjectAltName=DNS:%s\n" % HOST)
        tools.run("openssl", "x509", "-req", "-in", stem + ".csr", "-CA", cert, "-CAkey", key, "-CAserial", stem + ".srl", "-CAcreateserial", "-days", "30",
                  "-extfile", ext, "-out", stem + ".pem")
        with open(stem + ".pem", "a", encoding="ascii") as f, open(cert, encoding="ascii") as above:
            f.write(above.read())
        return stem + ".pem", stem + ".key"


@pytest.fixture(scope="module")
def world(work):
    path = os.path.join(work, "remote-tls")
    os.makedirs(path)
    return World(path)


def deliver(binary, world, peer, policy, files=None, jobs=1, env=None, name=HOST, **kw):
    """The last result, through a route by name."""
    files = dict({"smtproutes": ":%s:%d\n" % (name, peer.port), "smtptls": "%s:%s\n" % (name, policy), "cacerts.pem": tools.read(world.ca.cert)}, **(files or {}))
    with Names({HOST: {"A": ["127.0.0.1"]}}) as dns, Remote(binary, files, dns.port, env=env, **kw) as r:
        for _ in range(jobs):
            got = r.deliver()
    return got


Row = collections.namedtuple("Row", "policy cert peer want")
ROWS = {}


def row(name, policy, cert="good", files=None, env=None, keywords=WITH_TLS, versions=TLS12, ciphers=None, no_context=False, answers=None, after=None, implicit=False,
        **want):
    ROWS["%s: %s" % (policy.split()[0], name)] = Row(policy, cert, dict(keywords=keywords, versions=versions, ciphers=ciphers, no_context=no_context,
                                                                       answers=answers, after=after, implicit=implicit, files=files, env=env), want)


ALL = ("may", "encrypt", "verify", "pin @good")
ANY = ("may", "encrypt")
for _p in ALL:
    _sure = int(_p.split()[0] in ("verify", "pin"))
    row("good", _p, classes="K", tls=1, verified=_sure)
    row("implicit", _p + " implicit", implicit=True, classes="K", tls=1, verified=_sure)
    row("two messages", _p, classes="K", tls=1, verified=_sure, jobs=2, talks=1)
    # What is not there, or goes wrong: only `may` goes on without.
    _plain = dict(classes="K", tls=0, verified=0) if _p == "may" else dict(classes="Z", text=r"\(#4\.7\.5\)", messages=0, unreachable=1)
    row("not offered", _p, keywords=("PIPELINING",), talks=1, **dict(_plain, text="" if _p == "may" else "offers no TLS"))
    row("not offered to HELO", _p, answers={"ehlo": b"502 what\r\n"}, talks=1, **dict(_plain, text="" if _p == "may" else "offers no TLS"))
    row("454 to STARTTLS", _p, answers={"starttls": b"454 4.7.0 not now\r\n"}, talks=1, **_plain)
    row("501 to STARTTLS", _p, answers={"starttls": b"501 5.5.4 what\r\n"}, talks=1, **_plain)
    row("garbage for a handshake", _p, no_context=True, talks=2 if _p == "may" else 1, **_plain)
    row("closes at STARTTLS", _p, answers={"starttls": remote.CLOSE}, talks=2 if _p == "may" else 1, **_plain)
    row("a command slipped in behind 220", _p, after={"starttls": b"250 2.0.0 injected\r\n"}, talks=2 if _p == "may" else 1,
        **dict(_plain, text="" if _p == "may" else "says more before TLS"))
    row("only TLS 1.3", _p, versions=TLS13, talks=2 if _p == "may" else 1, **_plain)
    row("only CBC", _p, ciphers="ECDHE-ECDSA-AES128-SHA256", talks=2 if _p == "may" else 1, **_plain)
    row("only key exchange without forward secrecy", _p, cert="rsa", ciphers="AES128-GCM-SHA256", talks=2 if _p == "may" else 1, **_plain)
    row("TLS that ends after the handshake", _p, answers={"ehlo": [None, remote.CLOSE]}, classes="Z", messages=0, unreachable=1)
    row("implicit and plain", _p + " implicit", keywords=("PIPELINING",), classes="Z", messages=0, unreachable=1, text=r"\(#4\.7\.5\)", talks=1, timeout=3)
row("implicit, only TLS 1.3", "may implicit", versions=TLS13, implicit=True, classes="Z", messages=0, talks=1)
row("never", "none", classes="K", tls=0, talks=1)
for _cert in ("rsa", "ec384", "wildcard"):
    row(_cert, "verify", _cert, classes="K", tls=1, verified=1)
for _suite in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"):
    row(_suite, "verify", ciphers=_suite, classes="K", tls=1, verified=1)
for _suite in ("ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"):
    row(_suite, "verify", "rsa", ciphers=_suite, classes="K", tls=1, verified=1)
for _cert, _words in {"wrong name": "for another name", "name only in CN": "for another name", "expired": "not valid at this date", "not yet": "not valid at this date",
                      "other CA": "no trusted authority", "self-signed": "no trusted authority", "issued by a leaf": "cannot be used"}.items():
    row(_cert, "verify", _cert, classes="Z", messages=0, text=_words + r"|no trusted authority", unreachable=1, talks=1)
    row(_cert, "may", _cert, classes="K", tls=1, verified=0)
    row(_cert, "encrypt", _cert, classes="K", tls=1, verified=0)
    row(_cert, "pin @" + _cert, _cert, classes="K", tls=1, verified=1)
    row(_cert + " pinned as good", "pin @good", _cert, classes="Z", messages=0, text="none of the pins", unreachable=1, talks=1)
row("the second pin", "pin @rsa @good", classes="K", tls=1, verified=1)
row("rsa", "pin @rsa", "rsa", classes="K", tls=1, verified=1)
row("the CA's key is not the leaf's", "pin @ca", classes="Z", text="none of the pins", messages=0)
row("the clock is not set", "verify", env={"REMOTE_TIME": "86400"}, classes="Z", text="clock is not set", messages=0)
row("with a clock that is not set", "pin @good", env={"REMOTE_TIME": "86400"}, classes="K", tls=1, verified=1)
row("with a clock far ahead", "verify", env={"REMOTE_TIME": "3500000000"}, classes="Z", text="not valid at this date", messages=0)


def run(binary, world, r):
    o = r.peer
    cert = world.cert[r.cert]
    peer = Peer(o["answers"], o["keywords"], context=None if o["no_context"] else context(cert, o["versions"], o["ciphers"]), after=o["after"],
                implicit=o["implicit"])
    policy = re.sub("@ca", pin(world.ca.cert), r.policy)
    policy = re.sub("@([a-zA-Z -]+?)(?= @|$| implicit)", lambda m: pin(world.cert[m.group(1)][0]), policy)
    with peer:
        return peer, deliver(binary, world, peer, policy, o["files"], r.want.get("jobs", 1), o["env"], timeout=r.want.get("timeout", 30))


@pytest.fixture(scope="module")
def crowd(remote_binary, world):
    return tools.Crowd({name: lambda r=r: run(remote_binary, world, r) for name, r in ROWS.items()})


@pytest.mark.parametrize("name", list(ROWS))
def test_policy(crowd, name):
    peer, got = crowd[name]
    want = ROWS[name].want
    assert got.classes == want["classes"], got
    assert re.search(want.get("text", ""), got.first.text, re.S), got
    assert got.done.verified == want.get("verified", 0)
    assert (got.done.version == 0x0303) == want.get("tls", 0) and (got.done.suite != 0) == want.get("tls", 0), got
    assert got.done.unreachable == want.get("unreachable", got.done.unreachable)
    assert len(peer.talks) == want.get("talks", len(peer.talks)), [vars(t) for t in peer.talks]
    assert sum(len(t.messages) for t in peer.talks) == want.get("messages", want.get("jobs", 1)), [vars(t) for t in peer.talks]
    for talk in peer.talks:
        if talk.messages:
            assert bool(talk.tls) == bool(want.get("tls"))
        if talk.tls:
            assert talk.tls[0] == "TLSv1.2" and re.search("CHACHA20|GCM", talk.tls[1]) and talk.name == HOST
    if want.get("tls") and not ROWS[name].peer["implicit"]:
        # Under TLS everything begins anew.
        assert peer.talks[-1].verbs[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"] and peer.talks[-1].end == "quit"


def test_mx(remote_binary, world):
    """By MX, verify holds only for hosts within the domain: who can forge the answer can name another one, with a good certificate."""
    port = tools.free_port()
    for domain, policy, classes in (("example.org", "verify", "K"), ("example.com", "verify", "Z"), ("example.com", "encrypt", "K"), ("ample.org", "verify", "Z")):
        zone = {domain: {"MX": [(10, HOST)]}, HOST: {"A": ["127.0.0.2"]}}
        files = {"smtptls": "%s:%s\n" % (domain, policy), "cacerts.pem": tools.read(world.ca.cert)}
        with Peer(context=context(world.cert["good"]), keywords=WITH_TLS, address="127.0.0.2", port=port) as p, Names(zone) as dns:
            with Remote(remote_binary, files, dns.port, port) as r:
                got = r.deliver(route=MX, domain=domain)
        assert got.classes == classes and len(p.talk.messages) == (classes == "K"), got
        assert (classes == "K") or "name it in control/smtproutes" in got.first.text
        assert got.done.verified == (policy == "verify" and classes == "K")


def test_big_message(remote_binary, world):
    """Through TLS records of our size, octet for octet."""
    message = b"".join(b"%d %s\n" % (i, b"." * (i % 70)) for i in range(60000))
    with Peer(context=context(world.cert["good"]), keywords=WITH_TLS) as p, Names({HOST: {"A": ["127.0.0.1"]}}) as dns:
        files = {"smtproutes": ":%s:%d\n" % (HOST, p.port), "smtptls": HOST + ":verify\n", "cacerts.pem": tools.read(world.ca.cert)}
        with Remote(remote_binary, files, dns.port) as r:
            assert r.deliver(message=message).classes == "K"
    assert p.talk.messages == [message]


# ---- passwords ----

AUTH = ("PIPELINING", "STARTTLS")


def login(binary, world, policy="verify", cert="good", password=PASSWORD, user="us er", tls_keywords=("PIPELINING", "AUTH LOGIN PLAIN"), answers=None,
          keywords=AUTH, implicit=False, look=None):
    peer = Peer(answers, keywords, tls_keywords, context(world.cert[cert]), implicit=implicit)
    files = {"smtproutes": ":%s:%d\n" % (HOST, peer.port), "smtptls": "%s:%s%s\n" % (HOST, policy, " implicit" if implicit else ""),
             "cacerts.pem": tools.read(world.ca.cert), "smtpauth": "%s:%s:%s\n" % (HOST, user, password)}
    with peer, Names({HOST: {"A": ["127.0.0.1"]}}) as dns, Remote(binary, files, dns.port) as r:
        got = r.deliver()
        if look:
            look(r.process.pid)
        everything = b"".join(b"".join(t.chunks) + b"\n".join(t.lines) for t in peer.talks)
    return got, peer, everything


def plain(user="us er", password=PASSWORD):
    return base64.b64encode(b"\0" + user.encode() + b"\0" + password.encode())


def forms(user, password):
    """What must not be seen."""
    return [password.encode(), base64.b64encode(password.encode()).rstrip(b"="), plain(user, password).rstrip(b"=")]


@pytest.mark.parametrize("policy", ["verify", "pin", "verify implicit"])
def test_plain(remote_binary, world, policy):
    if policy == "pin":
        policy = "pin " + pin(world.cert["good"][0])
    got, peer, _ = login(remote_binary, world, policy.replace(" implicit", ""), implicit=policy.endswith("implicit"))
    assert got.classes == "K" and peer.talk.lines[-5:-3] == [b"AUTH PLAIN " + plain(), b"MAIL FROM:<alice@example.net>"]


def test_login(remote_binary, world):
    got, peer, _ = login(remote_binary, world, tls_keywords=["AUTH=LOGIN"],
                         answers={"auth": b"334 VXNlcm5hbWU6\r\n", "login": [b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"]})
    assert got.classes == "K" and b"\n".join(peer.talk.lines).count(
        b"AUTH LOGIN\n" + base64.b64encode(b"us er") + b"\n" + base64.b64encode(PASSWORD.encode()) + b"\nMAIL") == 1


def test_long_password(remote_binary, world):
    """An AUTH command has 512 octets at most; what does not fit comes in the next line."""
    for user in ("u" * 242, "u" * 243, "u" * 253):
        password = "p" * 128
        got, peer, _ = login(remote_binary, world, user=user, password=password, answers={"auth": b"334 \r\n"} if len(user) > 242 else None)
        assert got.classes == "K"
        two = len(user) > 242
        assert (b"AUTH PLAIN" in peer.talk.lines) == two and (b"" if two else b"AUTH PLAIN ") + plain(user, password) in peer.talk.lines
        assert all(len(line) <= 510 for line in peer.talk.lines if line.startswith(b"AUTH"))


@pytest.mark.parametrize("answer", [b"535 5.7.8 no\r\n", b"454 4.7.0 later\r\n", b"334 go on\r\n", b"530 what\r\n"])
def test_refused(remote_binary, world, answer):
    """A login that is refused is our trouble: mail waits. Servers may repeat what they were told; nobody gets to read that."""
    got, peer, _ = login(remote_binary, world, answers={"auth": answer[:-2] + b" " + plain() + b"\r\n", "login": b"535 5.7.8 no\r\n"}, tls_keywords=["AUTH PLAIN"])
    assert got.classes == "Z" and got.done.unreachable and not peer.talk.messages and "refuses the login: " + answer[:3].decode() in got.first.text
    assert not any(f in got.first.text.encode() for f in forms("us er", PASSWORD))


@pytest.mark.parametrize("what", ["wrong name", "other CA", "expired", "self-signed", "no AUTH", "AUTH only before TLS", "no TLS", "CRAM-MD5", "pin"])
def test_password_stays(remote_binary, world, what):
    """No password without a relay that is verified, and none in the clear."""
    kw = {"no AUTH": {"tls_keywords": ["PIPELINING"]}, "AUTH only before TLS": {"keywords": AUTH + ("AUTH PLAIN LOGIN",), "tls_keywords": ["PIPELINING"]},
          "no TLS": {"keywords": ("PIPELINING", "AUTH PLAIN LOGIN")}, "CRAM-MD5": {"tls_keywords": ["AUTH CRAM-MD5 XPLAIN PLAINLY"]},
          "pin": {"policy": "pin " + pin(world.cert["good"][0]), "cert": "rsa"}}.get(what, {"cert": what})
    got, peer, everything = login(remote_binary, world, **kw)
    assert got.classes == "Z" and got.done.unreachable and not any(t.messages for t in peer.talks)
    assert b"AUTH" not in everything and not any(f in everything for f in forms("us er", PASSWORD))


def test_memory(remote_binary, world):
    """After a login the password is where it was, and nowhere else."""
    found = {}

    def look(pid):
        with open("/proc/%d/maps" % pid, encoding="ascii") as maps, open("/proc/%d/mem" % pid, "rb", 0) as mem:
            for line in maps:
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                if line.split()[1].startswith("r") and "[v" not in line:
                    mem.seek(start)
                    data = mem.read(end - start)
                    for f in forms("us er", PASSWORD):
                        found[f] = found.get(f, 0) + data.count(f)
    got, _, _ = login(remote_binary, world, look=look)
    assert got.classes == "K" and list(found.values()) == [1, 0, 0], found


def test_stall(remote_binary, world):
    """A handshake that never ends."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(5)
        files = {"smtproutes": ":127.0.0.1:%d\n" % s.getsockname()[1], "smtptls": "127.0.0.1:encrypt implicit\n"}
        with Remote(remote_binary, files, timeout=2) as r:
            began = time.monotonic()
            got = r.deliver()
            assert got.classes == "Z" and "took too long" in got.first.text and 1.9 < time.monotonic() - began < 20
