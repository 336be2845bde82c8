# SPDX-License-Identifier: MIT
"""
Deliveries to mail servers that others wrote: Postfix, its smtp-sink, OpenSMTPD. test/bench/peers.sh unpacks their packages, into build/peers;
they are not installed. MAILSTILE_PEERS: a directory where that has been done.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

import remote
import tools
from remote import Names, Remote

sys.path.append(os.path.join(tools.TREE, "test/bench"))
import peers  # noqa: E402  pylint: disable=wrong-import-position
import servers  # noqa: E402  pylint: disable=wrong-import-position

pytestmark = [pytest.mark.release, pytest.mark.root]

# Longest lines, dots, no end: what a server could trip over.
MESSAGE = b"Received: x\nFrom: a@example.net\nSubject: test\n\n.\n..\n.dot\nFrom here\n" + b"x" * 990 + b"\n\ngr\xc3\xbc\xc3\x9fe\nthe end"
DOTS = b"Subject: dots\n\n" + b".\n" * 20000
SEEN = re.sub(rb"\n?$", b"\n", MESSAGE)


@pytest.fixture(scope="module")
def place():
    path = os.environ.get("MAILSTILE_PEERS") or os.path.join(tools.TREE, "build/peers")
    os.makedirs(path, exist_ok=True)
    tools.run(os.path.join(tools.TREE, "test/bench/peers.sh"), path, "postfix", "opensmtpd", timeout=300)
    return path


@pytest.fixture(scope="module")
def root(place):
    return servers.Root(os.path.join(place, "root"))


def running(server):
    """A server of the benchmark without its cgroup; a context."""
    class Running:
        def __enter__(self):
            server.process = server.root.popen(server.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            servers.wait_for(lambda: server.listens(server.smtp), server.name, tools.PATIENCE)
            return server

        def __exit__(self, *_):
            # Those that it started are in its session.
            os.killpg(server.process.pid, signal.SIGTERM)
            try:
                server.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(server.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            server.process.wait()
    return Running()


# ---- smtp-sink ----

class Sink:
    def __init__(self, place, *words):
        top = os.path.join(place, "root")
        self.dump = tempfile.mkdtemp(prefix="sink-")
        os.chmod(self.dump, 0o777)
        self.port = tools.free_port()
        self.process = subprocess.Popen(
            [os.path.join(top, "usr/sbin/smtp-sink"), "-u", "nobody", "-d", os.path.join(self.dump, "%M."), *words, "127.0.0.1:%d" % self.port, "100"],
            env={"LD_LIBRARY_PATH": os.path.join(top, "usr/lib/postfix") + ":" + os.path.join(top, "usr/lib/x86_64-linux-gnu")},
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tools.poll(self.listens, "smtp-sink")

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        tools.rmtree(self.dump)

    def messages(self):
        out = []
        for name in sorted(os.listdir(self.dump)):
            data = tools.read(os.path.join(self.dump, name))
            if data:
                out.append(data)
        return out


SINKS = {
    "as it is": ((), "KK"), "without PIPELINING": (("-p",), "KK"), "without ESMTP": (("-e",), "KK"), "without 8BITMIME": (("-8",), "KK"),
    "MAIL refused": (("-f", "MAIL"), "DD"), "MAIL later": (("-r", "MAIL"), "ZZ"), "RCPT refused": (("-f", "RCPT"), "DD"),
    "RCPT later": (("-r", "RCPT"), "ZZ"), "DATA refused": (("-f", "DATA"), "DD"), "DATA later": (("-r", "DATA"), "ZZ"),
    "message refused": (("-f", "."), "DD"), "message later": (("-r", "."), "ZZ"), "EHLO refused": (("-f", "EHLO"), "KK"),
    "EHLO and HELO refused": (("-f", "EHLO,HELO"), "ZZ"), "EHLO later": (("-r", "EHLO"), "ZZ"), "closes at CONNECT": (("-q", "CONNECT"), "ZZ"),
    "closes at MAIL": (("-q", "MAIL"), "ZZ"), "closes at RCPT": (("-q", "RCPT"), "ZZ"), "closes at DATA": (("-q", "DATA"), "ZZ"),
    "closes at the dot": (("-q", "."), "ZZ"), "421 at MAIL": (("-Q", "MAIL"), "ZZ"), "421 at the dot": (("-Q", "."), "ZZ"),
}


@pytest.fixture(scope="module")
def sinks(remote_binary, place):
    def run(words):
        with Sink(place, *words) as sink, Remote(remote_binary, {"smtproutes": ":127.0.0.1:%d" % sink.port}) as r:
            got = [r.deliver(rcpts=("a@example.org", "b@example.org"), message=MESSAGE) for _ in range(2)]
            return got, sink.messages()
    return tools.Crowd({name: lambda w=words: run(w) for name, (words, _) in SINKS.items()})


@pytest.mark.parametrize("name", list(SINKS))
def test_sink(sinks, name):
    got, messages = sinks[name]
    for g in got:
        assert g.classes == SINKS[name][1], g
    if "K" in SINKS[name][1]:
        # It puts lines of its own before, and an empty one behind.
        assert len(messages) == 2 and all(re.sub(rb"\r?\n", b"\n", m).rstrip(b"\n").endswith(SEEN[:-1]) for m in messages), messages


# ---- Postfix ----

def in_hold(root):
    out = []
    for name in os.listdir(root.path / "var/spool/postfix/hold"):
        out.append(root.run(["/usr/sbin/postcat", "-bh", "/var/spool/postfix/hold/" + name]))
    return out


def test_postfix(remote_binary, root):
    """In the clear, by STARTTLS and by TLS at once, verified by name and by pin; a hundred recipients; several messages a connection."""
    server = peers.Postfix(root, 9)
    cert = root.path / "etc/ssl/bench/cert.pem"
    domain = servers.DOMAIN
    rcpts = ["user%d@%s" % (i, domain) for i in range(100)]
    with running(server), Names({domain: {"A": ["127.0.0.1"]}}) as dns:
        for policy, port, tls, verified in (("none", server.smtp, 0, 0), ("may", server.smtp, 1, 0), ("encrypt", server.smtp, 1, 0), ("verify", server.smtp, 1, 1),
                                            ("pin " + remote.pin(cert), server.smtp, 1, 1), ("verify implicit", server.smtps, 1, 1)):
            files = {"smtproutes": ":%s:%d" % (domain, port), "smtptls": "%s:%s" % (domain, policy), "cacerts.pem": tools.read(cert)}
            before = len(in_hold(root))
            with Remote(remote_binary, files, dns.port) as r:
                for sender in ("alice@example.net", "", "gr\u00fc\u00dfe@example.net"):
                    got = r.deliver(sender=sender, rcpts=rcpts, message=MESSAGE, domain=domain)
                    assert got.classes == "K" * 100 and got.done.reuse and (got.done.version != 0, got.done.verified) == (bool(tls), verified), got
                    assert re.search(r"Remote host said: 250 2\.0\.0 Ok: [0-9]+ bytes queued as \w+\n$", got.first.text)
            assert len(in_hold(root)) == before + 3
            # By BDAT, in several pieces: dots are not doubled.
            with Remote(remote_binary, files, dns.port) as r:
                got = r.deliver(rcpts=rcpts[:2], message=DOTS, domain=domain)
                assert got.classes == "KK" and 60000 < got.done.octets < 64000, got
            held = [t.splitlines() for t in in_hold(root) if "Subject: dots" in t]
            assert held and all((t.count("."), t.count("..")) == (20000, 0) for t in held), [t[-5:] for t in held]
        # Its own refusals.
        with Remote(remote_binary, {"smtproutes": ":127.0.0.1:%d" % server.smtp}, dns.port) as r:
            got = r.deliver(rcpts=["a@" + domain, "b@[300.1.2.3]", "c@" + domain], domain=domain)
            assert got.classes == "KDK" and got.reports[1].code == 501, got
    # Postfix takes 8 bits as they are, and its own lines come first.
    body = SEEN.decode().split("\n\n", 1)[1]
    assert len([t for t in in_hold(root) if body in t.replace("\r\n", "\n")]) == 18


def test_postfix_refuses_tls(remote_binary, root):
    """Another certificate than the one that is trusted, and the right one for another name."""
    server = peers.Postfix(root, 9)
    other = remote.Authority(os.path.join(str(root.path), "srv/other-ca"))
    with running(server), Names({servers.DOMAIN: {"A": ["127.0.0.1"]}, "elsewhere.example": {"A": ["127.0.0.1"]}}) as dns:
        for name, anchor, words in ((servers.DOMAIN, other.cert, "no trusted authority"),
                                    ("elsewhere.example", root.path / "etc/ssl/bench/cert.pem", "for another name")):
            files = {"smtproutes": ":%s:%d" % (name, server.smtp), "smtptls": name + ":verify", "cacerts.pem": tools.read(anchor)}
            with Remote(remote_binary, files, dns.port) as r:
                got = r.deliver(rcpts=["a@" + servers.DOMAIN])
                assert got.classes == "Z" and got.done.unreachable and words in got.first.text, got


# ---- OpenSMTPD ----

def test_opensmtpd(remote_binary, root):
    server = peers.Opensmtpd(root, 9)
    with running(server):
        with Remote(remote_binary, {"smtproutes": ":127.0.0.1:%d" % server.smtp}) as r:
            for _ in range(3):
                got = r.deliver(rcpts=["a@" + servers.DOMAIN, "b@elsewhere.example", "c@" + servers.DOMAIN], message=MESSAGE)
                assert got.classes == "KDK" and got.reports[1].code == 550 and got.done.reuse, got
            got = r.deliver(rcpts=["b@elsewhere.example"])
            assert got.classes == "D"
            assert r.deliver(rcpts=["a@" + servers.DOMAIN], message=MESSAGE).classes == "K"
        tools.poll(lambda: server.count() >= 4, "messages in the queue of OpenSMTPD, there are %r" % server.queued())
