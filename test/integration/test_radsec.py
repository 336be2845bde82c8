# SPDX-License-Identifier: MIT
"""RADIUS over TLS (RFC 6614) with FreeRADIUS's own listener, and a double where that is too well behaved; and Status-Server (RFC 5997)."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
import radius
import radsec
import remote
import test_inetd
import test_rcp
import tools
from tools import poll

CRASH = signal.SIGSYS if tools.SANITIZE else signal.SIGSEGV
LISTEN = {"submission": "submission 127.0.0.1:{}", "submissions": "submissions 127.0.0.1:{}"}


@pytest.fixture(scope="module")
def ca(work):
    return remote.Authority(os.path.join(work, "radsec-ca"))


@pytest.fixture(scope="module")
def other_ca(work):
    return remote.Authority(os.path.join(work, "radsec-other-ca"))


@pytest.fixture(scope="module")
def daemon(work, ca):
    r = radsec.TlsRadius(work, ca)
    yield r
    r.stop()


@pytest.fixture
def double(ca):
    made = []

    def make(*a, **kw):
        made.append(radsec.TlsDouble(ca.issue("radius.example.net"), *a, **kw))
        return made[-1]
    yield make
    for d in made:
        if d.thread.is_alive():
            d.stop()


@pytest.fixture
def box(make_server):
    def make(conf, **kw):
        kw.setdefault("listen", LISTEN)
        return make_server(radius=conf, **kw)
    return make


def pinned(d, words=""):
    return d.line("tls,pin=%s%s" % (remote.pin(d.cert), words))


def double_line(d, ca, **kw):
    return d.line("tls,ca=%s,name=radius.example.net" % ca.cert, **kw)


def login(server, user="alice", password=None, expect=235):
    with server.session("submissions", login=None) as c:
        c.auth_plain(user, radius.PASSWORD[user] if password is None else password, expect)
        return server.wait_log("auth", client=c.source, user=user)


def keeper(server):
    found = [p.pid for p in tools.children(server.pid) if p.name.startswith("stile-radius")]
    return found[0] if found else None


# ---- who it is -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["ca", "pin", "next pin"])
def test_login(box, daemon, how):
    """By name and authority, or by key; the present one or the one to come."""
    conf = {"ca": daemon.verified(), "pin": pinned(daemon),
            "next pin": daemon.line("tls,pin=%s,pin=%s" % ("00" * 32, ":".join(re.findall("..", remote.pin(daemon.cert).upper()))))}[how]
    server = box(conf)
    for user in ("alice", "grace", "jürgen"):
        line = login(server, user)
        assert line["result"] == "accept" and line["server"] == "127.0.0.1:%d" % daemon.port
    assert login(server, "alice", "wrong", 535)["result"] == "reject"
    assert login(server, "dave", expect=535)["reason"] == "the account is for another Service-Type"
    assert not server.log("radius")
    server.stop()


def test_wrong_certificate(box, work, ca, other_ca, daemon):
    """454, and a line that says what is wrong, and no password has gone anywhere."""
    expired = radsec.TlsRadius(work, ca, "expired", chain=ca.issue("radius.example.net", kind="ec384", days=("20200101000000Z", "20210101000000Z")))
    for conf, what in ((daemon.line("tls,ca=%s,name=radius.example.net" % other_ca.cert), "no trusted authority has issued its certificate"),
                       (daemon.line("tls,ca=%s,name=other.example.net" % ca.cert), "its certificate is for another name"),
                       (daemon.line("tls,pin=" + "ab" * 32), "the key of its certificate has none of the pins"),
                       (expired.verified(), "its certificate is not valid at this date")):
        server = box(conf)
        line = login(server, expect=454)
        assert line["result"] == "later"
        told = server.wait_log("radius", sid=line["sid"])
        assert (told["trouble"], told["error"]) == ("tls", what)
        assert server.wait_log("radius", msg="no TLS connection to it")["error"] == what
        server.stop()
    expired.stop()


def test_client_certificate(box, work, ca, other_ca):
    """A server that wants to know who we are."""
    r = radsec.TlsRadius(work, ca, "mutual", require=True)
    server = box(r.verified())
    line = login(server, expect=454)
    assert server.wait_log("radius", sid=line["sid"])["error"] in ("it closed the connection", "it refused the handshake")
    server.stop()
    for kind in ("ec", "rsa"):
        cert, key = ca.issue("edge1.example.net", kind)
        server = box(r.verified(",cert=%s,key=%s" % (cert, key)))
        assert login(server)["result"] == "accept"
        server.stop()
    cert, key = other_ca.issue("edge1.example.net")
    server = box(r.verified(",cert=%s,key=%s" % (cert, key)))
    assert login(server, expect=454)["result"] == "later"
    server.stop()
    # One file with both, below control/.
    cert, key = ca.issue("edge2.example.net", "ec384")
    server = box(r.verified(",cert=edge.pem"), start=False)
    tools.write(os.path.join(server.control, "edge.pem"), tools.read(cert) + tools.read(key), 0o600)
    server.start()
    assert login(server)["result"] == "accept"
    server.stop()
    r.stop()


# ---- the connection ------------------------------------------------------------------------------------------------------------

def test_one_connection(box, ca, double):
    """Fifty logins at once, one connection, each with an id of its own, sealed for it; answers in any order."""
    waiting = []

    def answer(d, c, request):
        with d.lock:
            waiting.append((c, request))
            if len(waiting) == 50:
                for c, r in reversed(waiting):
                    c.sendall(r.reply(radius.ACCEPT if r.get(radius.USER_NAME) == [b"alice"] else radius.REJECT))

    d = double(answer)
    server = box(double_line(d, ca, before="10 0"))
    results, ready = [], threading.Barrier(50)

    def one(user, expect):
        with server.session("submissions", login=None) as c:
            ready.wait(120)  # sessions take longer than an answer may
            c.auth_plain(user, radius.PASSWORD[user], expect)
            results.append(server.wait_log("auth", client=c.source, user=user)["result"])

    threads = [threading.Thread(target=one, args=(("alice", 235) if i % 2 else ("carol", 535))) for i in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(180)
    assert sorted(results) == ["accept"] * 25 + ["reject"] * 25
    assert len(d.connections) == 1 and len({r.id for r in d.logins()}) == 50
    for r in d.logins():
        assert r.signature_fits() and r.password == radius.PASSWORD[r.get(radius.USER_NAME)[0].decode()].encode()
    server.stop()


def test_pieces(box, ca, double):
    """Answers that come octet by octet, and two in one piece; one to nobody's question; one too many."""
    def answer(d, c, request):
        reply = request.reply(radius.ACCEPT, [(radius.REPLY_MESSAGE, b"x" * 200)])
        for i in range(len(reply)):
            c.sendall(reply[i:i + 1])
        c.sendall(reply + request.reply(radius.ACCEPT, ident=(request.id + 7) % 256))

    d = double(answer)
    server = box(double_line(d, ca))
    for _ in range(3):
        assert login(server)["result"] == "accept"
    assert len(d.connections) == 1
    server.stop()


@pytest.mark.parametrize("lie", ["nonsense", "length", "secret", "code"])
def test_lies(box, ca, double, lie):
    """Nobody gets in by them, and they cost one login, not the next."""
    lies = [1]

    def answer(d, c, request):
        if not lies:
            c.sendall(request.reply(radius.ACCEPT))
            return
        lies.pop()
        c.sendall({"nonsense": b"HTTP/1.1 400 Bad Request\r\n\r\n", "length": b"\2%c\0\3" % request.id, "secret": request.reply(radius.ACCEPT, secret="other"),
                   "code": request.reply(radsec.ACCOUNTING_RESPONSE)}[lie])

    d = double(answer)
    server = box(double_line(d, ca))
    line = login(server, expect=454)
    trouble = server.wait_log("radius", sid=line["sid"])["trouble"]
    assert trouble == {"nonsense": "network", "length": "network", "secret": "wrong-secret", "code": "no-answer"}[lie]
    poll(lambda: server.session("submissions", login=None).cmd("AUTH PLAIN " + "AGFsaWNlAHdvbmRlciBsYW5k").code == 235, "a login")
    server.stop()


def test_server_restart(box, work, ca):
    """The server goes and comes back: logins meanwhile are put off, soon, and then go through again, without a restart of ours."""
    r = radsec.TlsRadius(work, ca, "restarted")
    server = box(r.verified())
    assert login(server)["result"] == "accept"
    r.stop()
    began = time.monotonic()
    assert login(server, expect=454)["result"] == "later"
    assert time.monotonic() - began < 5
    r.start()
    poll(lambda: server.log("radius", msg="the TLS connection is up"), "the connection")
    assert login(server)["result"] == "accept"
    server.stop()
    r.stop()


def test_closed_while_idle(box, ca, double):
    """A server that closes an idle connection: nobody notices, not even who asks at that moment."""
    once = [1]

    def answer(d, c, request):
        if len(d.logins()) == 2 and once:
            once.pop()
            c.shutdown(socket.SHUT_RDWR)
            return
        c.sendall(request.reply(radius.ACCEPT))

    d = double(answer)
    server = box(double_line(d, ca))
    assert login(server)["result"] == "accept"
    assert login(server)["result"] == "accept"
    assert len(d.logins()) == 3 and len(d.connections) == 2
    d.cut()
    assert login(server)["result"] == "accept"
    server.stop()


def test_silent_server(box, ca, double):
    """A connection that has died without a word is found out by a Status-Server packet, and made anew; who waited hears of it."""
    silent = [True]

    def answer(d, c, request):
        if not silent or c is not d.connections[0]:
            c.sendall(request.reply(radius.ACCEPT))

    d = double(answer)
    server = box(double_line(d, ca, before="1 0"))
    line = login(server, expect=454)
    assert server.wait_log("radius", sid=line["sid"])["trouble"] == "no-answer"
    assert len(d.probes()) == 1 and d.probes()[0].signature_fits()
    poll(lambda: len(d.connections) > 1, "another connection")
    assert login(server)["result"] == "accept"
    server.stop()


def test_silent_about_one(box, ca, double):
    """A server that will not say anything about one name is well all the same."""
    def answer(d, c, request):
        if request.get(radius.USER_NAME) != [b"carol"]:
            c.sendall(request.reply(radius.ACCEPT))

    d = double(answer)
    server = box(double_line(d, ca, before="1 0"))
    with server.session("submissions", login=None) as slow:
        slow.send(b"AUTH PLAIN AGNhcm9sAGNhcm9sLXB3\r\n")
        poll(d.probes, "a probe")
        for _ in range(3):
            assert login(server)["result"] == "accept"
        slow.reply(454)
    assert len(d.connections) == 1
    server.stop()


def test_fail_over(box, daemon, double, ca, radius_conf):
    """From TLS to UDP and back: the order of radius.conf is all that counts."""
    d = double()
    d.stop()
    server = box(double_line(d, ca) + daemon.verified())
    assert login(server)["server"] == "127.0.0.1:%d" % daemon.port
    server.stop()
    server = box(double_line(d, ca) + radius_conf)
    assert login(server)["result"] == "accept"
    server.stop()


def test_reload_and_kill(box, daemon, ca, double):
    """The keeper is killed, the configuration read anew: sessions that run log in all the same, old ones to servers that are still there."""
    server = box(daemon.verified())
    with server.session("submissions", login=None) as old:
        first = poll(lambda: keeper(server), "the keeper")
        os.kill(first, signal.SIGKILL)
        poll(lambda: keeper(server) not in (None, first), "another one")
        assert login(server)["result"] == "accept"
        server.reload()
        old.auth_plain("alice", radius.PASSWORD["alice"])
    with server.session("submissions", login=None) as old:
        tools.write(os.path.join(server.control, "radius.conf"), double_line(double(), ca), 0o600)
        server.reload()
        old.auth_plain("alice", radius.PASSWORD["alice"], 454)
    assert server.wait_log("radius", trouble="no-keeper")
    assert login(server)["result"] == "accept"
    server.stop()


def test_killed_while_asked(box, ca, double):
    """Who waits for an answer when the keeper dies asks the next one."""
    stuck = [True]

    def answer(d, c, request):
        if request.raw[0] == radsec.STATUS_SERVER or not stuck:
            c.sendall(request.reply(radius.ACCEPT))

    d = double(answer)
    server = box(double_line(d, ca, before="5 0"))
    with server.session("submissions", login=None) as c:
        c.send(b"AUTH PLAIN AGFsaWNlAHdvbmRlciBsYW5k\r\n")
        poll(d.logins, "the question")
        stuck.clear()
        os.kill(keeper(server), signal.SIGKILL)
        c.reply(235)
    assert len(d.logins()) == 2
    server.stop()


def test_reexec(box, daemon):
    """Main starts itself over after a crash: sessions that were there before reach the new keeper."""
    server = box(daemon.verified())
    with server.session("submissions", login=None) as old:
        mine = {server.pair()}
        with server.session("submissions", login=None):
            server.crash_expected = True
            (other,) = poll(lambda: set(server.pairs()) - mine, "the other session")
            os.kill(other[1], CRASH)
            server.wait_log("reexec")
        old.auth_plain("alice", radius.PASSWORD["alice"])
    assert login(server)["result"] == "accept"
    server.stop()


@pytest.mark.release
@pytest.mark.root
def test_who_it_is(box, daemon):
    """qmailq in an empty root, behind a filter; what it has open is its end of the way, the shared map and the connection."""
    server = box(daemon.verified())
    pid = poll(lambda: keeper(server), "the keeper")
    assert login(server)["result"] == "accept"
    status = tools.status_of(pid)
    assert status["Uid"].split() == [str(harness.USERS["qmailq"])] * 4 and status["Gid"].split() == [str(harness.GROUPS["qmail"])] * 4
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and status["CapEff"] == "0" * 16 and not status.get("Groups", "").split()
    assert not os.listdir("/proc/%d/root" % pid)
    kinds = sorted(what.split(":")[0] for fd, what in tools.descriptors(pid).items() if fd > 2)
    assert kinds == ["/memfd", "socket", "socket"]
    # Nobody else has the key, or the keeper's end of the way.
    ends = set(tools.descriptors(pid).values())
    with server.session("submissions", login=None) as c:
        c.cmd("NOOP", 250)
        for p in tools.children(server.pid):
            if p.pid != pid:
                theirs = set(tools.descriptors(p.pid).values())
                assert not {e for e in ends & theirs if e.startswith("socket")}, p
    server.stop()


@pytest.mark.release
@pytest.mark.root
def test_secrets(box, work, ca):
    """Our key as a client is in main, which hands it on, and in the keeper; not in a warden, an smtp process or the accountant."""
    r = radsec.TlsRadius(work, ca, "secrets", require=True)
    cert, key = ca.issue("edge3.example.net")
    server = box(r.verified(",cert=%s,key=%s" % (cert, key)))
    der = subprocess.run(["openssl", "ec", "-in", key, "-outform", "DER"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    secret = der[7:39]
    assert secret in subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", key, "-outform", "DER"], stdout=subprocess.PIPE, check=True).stdout
    with server.session("submissions", login=None) as c:
        c.auth_plain("alice", radius.PASSWORD["alice"])
        pid = keeper(server)
        for p in tools.children(server.pid):
            assert (secret in memory(p.pid)) == (p.pid == pid), p
    server.stop()
    r.stop()


def memory(pid):
    """All that it can read."""
    out = []
    with open("/proc/%d/maps" % pid, encoding="ascii") as maps, open("/proc/%d/mem" % pid, "rb") as mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if m and "[v" not in line:
                begin, end = (int(x, 16) for x in m.groups())
                mem.seek(begin)
                try:
                    out.append(mem.read(end - begin))
                except OSError:
                    pass
    return b"".join(out)


# ---- without a server of ours --------------------------------------------------------------------------------------------------

def test_check(box, daemon, other_ca):
    server = box(daemon.verified(), start=False)
    argv = server.house.argv([server.binary, "check", "-H", server.home, "radius", "alice"])
    out = tools.run(*argv, input=radius.PASSWORD["alice"].encode() + b"\n").text
    assert "accept: this login may send mail" in out and "127.0.0.1:%d" % daemon.port in out
    assert "reject" in tools.run(*argv, input=b"wrong\n", check=False).text
    tools.write(os.path.join(server.control, "radius.conf"), daemon.line("tls,ca=%s,name=radius.example.net" % other_ca.cert), 0o600)
    assert "TLS failed" in tools.run(*argv, input=radius.PASSWORD["alice"].encode() + b"\n", check=False).text


def test_under_inetd(box, daemon):
    """There each session has a keeper of its own, which ends with it, has not got the client, and nothing of the house open."""
    server = box(daemon.verified(), start=False)
    tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
    c, process = test_inetd.pair_session(server, "submission")
    c.ehlo()
    c.starttls()
    c.ehlo()
    c.auth_plain("alice", radius.PASSWORD["alice"])
    warden = [p.pid for p in tools.processes() if p.session == process.pid and p.name.startswith("stile-ward")][0]
    (pid,) = [p.pid for p in tools.processes() if p.ppid == warden and p.name == "stile-radius"]
    if tools.ROOT:
        kinds = sorted(os.readlink("/proc/%d/fd/%s" % (pid, fd)).split(":")[0] for fd in os.listdir("/proc/%d/fd" % pid) if int(fd) > 2)
        assert kinds == ["/memfd", "socket", "socket"], kinds
        assert not os.listdir("/proc/%d/root" % pid) and tools.status_of(pid)["Uid"].split()[0] == str(harness.USERS["qmailq"])
        assert {os.readlink("/proc/%d/fd/%d" % (pid, fd)) for fd in (0, 1)} == {"/dev/null"}
    c.mail()
    c.quit()
    assert process.wait(20) == 0
    poll(lambda: not os.path.exists("/proc/%d" % pid), "the end of its keeper")


def test_radcheckpassword(work, house, daemon):
    """The program that is run has no keeper left as a child."""
    box = test_rcp.Box(work, house, daemon.verified())
    p = box.ask("alice", None, "sh", "-c", "cat /proc/$$/task/$$/children; exit 7")
    assert p.returncode == 7 and p.log[0]["result"] == "accept", p.errors
    assert len(p.out.split()) <= 1  # cat itself
    p = box.ask("alice", "wrong")
    assert p.returncode == test_rcp.REFUSED


@pytest.mark.parametrize("words,told", [
    ("tls", "tls,ca=FILE"),
    ("tls,pin=abc", "64 digits"),
    ("tls,pin=%s,pin=%s,pin=%s" % (("ab" * 32,) * 3), "at most 2"),
    ("tls,pin=%s,ca=x" % ("ab" * 32), "tls,ca=FILE"),
    ("tls,ca=@CA@", "add name="),
    ("tls,ca=/nowhere,name=radius.example.net", "missing: certificates"),
    ("tls,ca=@KEY@,name=radius.example.net", "expected a certificate"),
    ("tls,ca=rcpthosts,name=radius.example.net", "holds no certificate"),
    ("tls,ca=@CA@,name=radius.example.net,cert=/nowhere", "/nowhere"),
    ("tls,ca=@CA@,name=radius.example.net,key=/nowhere", "without its certificate"),
    ("tls,ca=@CA@,name=a/b", "tls,ca=FILE"),
    ("tls,what=x", "tls,ca=FILE"),
])
def test_faults(make_server, ca, words, told):
    """A fault in it leaves no server, and the line is named; nothing of it is repeated."""
    server = make_server(start=False, radius="127.0.0.1:2083 radsec " + words.replace("@CA@", ca.cert).replace("@KEY@", ca.key) + "\n")
    r = tools.run(*server.house.argv([server.binary, "check", "-H", server.home]), check=False)
    assert r.returncode == 1 and told in r.text and "nobody can log in until this is mended" in r.text


# ---- Status-Server ---------------------------------------------------------------------------------------------------------------

def test_dead_server_is_probed(box, double, daemon, ca):
    """A silent UDP server stays out of the way until it answers a probe, and then comes back without a customer having tried it."""
    silent = [True]

    def answer(request, _=None):
        if request.code == radsec.STATUS_SERVER or silent:
            return None if silent else request.reply(radius.ACCEPT)
        return request.reply(radius.ACCEPT)

    first = radius.Double(answer)
    server = box(first.line("1 0 status") + daemon.verified())
    assert login(server)["server"] == "127.0.0.1:%d" % daemon.port
    probes = poll(lambda: [r for r in first.requests if r.code == radsec.STATUS_SERVER], "a probe")
    assert probes[0].signature_fits()
    asked = len([r for r in first.requests if r.code == radius.ACCESS_REQUEST])
    assert login(server)["result"] == "accept"
    assert len([r for r in first.requests if r.code == radius.ACCESS_REQUEST]) == asked
    silent.clear()
    assert server.wait_log("radius", msg="answers again")["server"] == "127.0.0.1:%d" % first.port
    first.stop()
    server.stop()


def test_freeradius_answers_probes(box, daemon):
    """FreeRADIUS's own Status-Server brings it back, while it is still marked as dead."""
    daemon.stop()
    server = box("127.0.0.1:%d %s 1 0 status\n" % (daemon.udp, radius.SECRET))
    assert login(server, expect=454)["result"] == "later"
    daemon.start()
    assert server.wait_log("radius", msg="answers again")
    assert login(server)["result"] == "accept"
    server.stop()


# ---- accounting ------------------------------------------------------------------------------------------------------------------

def test_accounting(box, work, ca):
    """Over the same connection."""
    r = radsec.TlsRadius(work, ca, "acct-over-tls")
    server = box(r.verified("  acct"))

    def records(kind):
        path = os.path.join(r.dir, "seen")
        return tools.read(path).decode().count("Acct-Status-Type = %s" % kind) if os.path.exists(path) else 0

    poll(lambda: records("Accounting-On") == 1, "Accounting-On")
    with server.session("submissions") as c:
        poll(lambda: records("Start") == 1, "the Start")
        c.mail()
        c.quit()
    poll(lambda: records("Stop") == 1, "the Stop")
    server.stop()
    assert records("Accounting-Off") == 1 and records("Stop") == 1
    r.stop()
