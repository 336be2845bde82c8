# SPDX-License-Identifier: MIT
"""RADIUS accounting: what real servers are told, and that nothing is lost when servers, the network or our own processes fail."""

import os
import re
import signal
import subprocess
import time

import pytest

import acct
import radius
import tools
from tools import poll

LISTEN = {"smtp": "smtp 127.0.0.1:{}", "submissions": "submissions 127.0.0.1:{}"}


@pytest.fixture(scope="module")
def server_of_record(work):
    r = acct.AcctRadius(work)
    yield r
    r.stop()


@pytest.fixture
def double():
    made = []

    def make(**kw):
        made.append(acct.AcctDouble(**kw))
        return made[-1]
    yield make
    for d in made:
        d.stop()


@pytest.fixture
def box(make_server):
    def make(conf, **kw):
        kw.setdefault("listen", LISTEN)
        return make_server(radius=conf, **kw)
    return make


def accountant(server):
    found = [p.pid for p in tools.children(server.pid) if p.name.startswith("stile-acct")]
    return found[0] if found else None


def sid(server, client):
    return server.wait_log("connect", client=client.source, port=client.port)["sid"]


def ended(r, session, timeout=None):
    return poll(lambda: r.records("Stop", Acct_Session_Id=session), "the Stop of %s" % session, timeout)[0]


def stopped(d, session, timeout=None):
    return poll(lambda: [r for r in d.of(acct.STOP) if r.get(acct.SESSION) == [session.encode()]], "the Stop of %s" % session, timeout)


# ---- What is told ----------------------------------------------------------------------------------------------------------------

def test_a_session(box, server_of_record):
    r = server_of_record
    server = box(r.conf)
    me = tools.read(os.path.join(server.control, "me")).decode().strip()
    poll(lambda: r.records("Accounting-On", NAS_Identifier=me), "Accounting-On")
    begin = time.monotonic()
    with server.session("submissions", login="grace") as c:
        session = sid(server, c)
        start = poll(lambda: r.records("Start", Acct_Session_Id=session), "the Start")[0]
        c.mail(rcpts=["a@far.example", "b@far.example"])
        message = b"Subject: x\r\n\r\n" + b"y" * 998 + b"\r\n"
        c.mail(message)
        time.sleep(1.1)
        c.quit()
    most = int(time.monotonic() - begin) + 1
    stop = ended(r, session)
    for record in (start, stop):
        assert record["User-Name"] == "grace" and record["NAS-Identifier"] == me and record["NAS-IP-Address"] == "127.0.0.1"
        assert record["Calling-Station-Id"] == c.source and record["Acct-Authentic"] == "RADIUS" and record["NAS-Port-Type"] == "Virtual"
        assert record["Class"] == "0x0102030405" and record["Acct-Delay-Time"] == "0"
        assert re.fullmatch("[0-9a-f]{16}", record["Acct-Session-Id"]) and "Event-Timestamp" in record
    assert not {"Acct-Session-Time", "Acct-Terminate-Cause", "Mailstile-Acct-Messages", "Acct-Input-Octets"} & set(start)
    assert stop["Mailstile-Acct-Messages"] == "2" == stop["Acct-Input-Packets"] and stop["Mailstile-Acct-Recipients"] == "3" == stop["Acct-Output-Packets"]
    assert stop["Mailstile-Acct-Rejected"] == "0" and stop["Acct-Terminate-Cause"] == "User-Request"
    assert 1 <= int(stop["Acct-Session-Time"]) <= most
    closed = server.gone(c)
    assert stop["Acct-Input-Octets"] == closed["bytes"] and closed["msgs"] == "2"
    assert len(r.records("Start", Acct_Session_Id=session)) == 1 == len(r.records("Stop", Acct_Session_Id=session))
    assert not r.records("Interim-Update", Acct_Session_Id=session)
    begun = len(r.records("Accounting-Off"))
    server.stop()
    poll(lambda: len(r.records("Accounting-Off", NAS_Identifier=me)) == begun + 1, "Accounting-Off")
    assert r.records()[-1]["Acct-Status-Type"] == "Accounting-Off"


def test_rejected_recipients(box, double):
    """Those that policy refuses; in the record that comes next."""
    d = double()
    server = box(d.conf())
    with server.session("submissions") as c:
        session = sid(server, c)
        c.cmd("MAIL FROM:<me@client.example>", 250)
        for rcpt in ("a@b", "you@far.example", "c@d"):
            c.cmd("RCPT TO:<%s>" % rcpt, 250 if rcpt.startswith("you") else 554)
        c.quit()
    stop = stopped(d, session)[0]
    assert acct.ours(stop, 18) == 2 and acct.ours(stop, 16) == 0 == acct.number(stop, acct.OCTETS)


def test_without_a_login_nothing(box, double):
    d = double()
    server = box(d.conf())
    with server.session("smtp") as c:
        c.cmd("NOOP", 250)
        c.quit()
    with server.session("submissions", login=None) as c:
        c.quit()
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    stopped(d, session)
    assert {tuple(r.get(acct.SESSION)) for r in d.told if acct.number(r, acct.STATUS) in (acct.START, acct.STOP)} == {(session.encode(),)}


def test_not_asked_for(box, server_of_record):
    """Without the word there is no process, no file, no packet."""
    server = box("127.0.0.1:%d %s\n" % (server_of_record.auth, radius.SECRET))
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    server.gone(c)
    assert accountant(server) is None and not os.path.exists(os.path.join(server.home, "mailstile/acct"))
    # The word comes with a reload.
    server.set(**{"radius.conf": server_of_record.conf})
    server.reload()
    with server.session("submissions") as c:
        other = sid(server, c)
        c.quit()
    ended(server_of_record, other)
    assert not server_of_record.records(Acct_Session_Id=session)
    # And goes with one.
    server.set(**{"radius.conf": "127.0.0.1:%d %s\n" % (server_of_record.auth, radius.SECRET)})
    server.reload()
    poll(lambda: accountant(server) is None, "the accountant's end")


@pytest.mark.parametrize("how,cause", [("quit", 1), ("close", 2), ("term", 6), ("kill warden", 9), ("kill smtp", None)])
def test_causes(box, double, how, cause):
    d = double()
    server = box(d.conf())
    c = server.session("submissions")
    session = sid(server, c)
    c.mail()
    poll(lambda: d.of(acct.START), "the Start")
    if how == "quit":
        c.quit()
    elif how == "term":
        server.kill(signal.SIGTERM)
        assert c.rest().startswith(b"421")
    elif how.startswith("kill"):
        server.crash_expected = True
        os.kill(server.pair()[how == "kill smtp"], signal.SIGKILL)
    c.close()
    stop = stopped(d, session)[0]
    assert cause is None or acct.number(stop, acct.CAUSE) == cause
    assert acct.ours(stop, 16) == 1


@pytest.mark.release
def test_interim(box, double, quick_binary):
    """As often as the Access-Accept says, with what has been sent so far."""
    d = double(accept=[(85, b"\0\0\0\1")])
    server = box(d.conf(), binary=quick_binary)
    with server.session("submissions") as c:
        c.mail(rcpts=["a@far.example", "b@far.example"])
        poll(lambda: len(d.of(acct.INTERIM)) >= 3, "three Interims")
    times = [r.time for r in d.of(acct.INTERIM)[:3]]
    assert all(0.9 < b - a < 1.9 for a, b in zip(times, times[1:]))
    for n, r in enumerate(d.of(acct.INTERIM)[:3]):
        assert acct.ours(r, 16) == 1 and acct.ours(r, 17) == 2 and acct.number(r, acct.TIME) in (n + 1, n + 2)
        assert not r.get(acct.CAUSE) and acct.number(r, acct.DELAY) == 0


# ---- Trouble ---------------------------------------------------------------------------------------------------------------------

def test_silence(box, double):
    """Sessions do not notice. What is not acknowledged is sent again, each time as a new packet that says how late it is."""
    d = double(well=False)
    server = box(d.conf("1 2"))
    begin = time.monotonic()
    with server.session("submissions") as c:
        session = sid(server, c)
        c.mail()
        c.quit()
    assert time.monotonic() - begin < 3
    poll(lambda: len(d.told) >= 4, "repeats", 20)
    d.well = True
    stop = stopped(d, session, 30)[0]
    assert acct.number(stop, acct.DELAY) >= 2
    ons = d.of(acct.ON)
    assert [acct.number(r, acct.DELAY) for r in ons] == sorted(acct.number(r, acct.DELAY) for r in ons)
    assert len({r.id for r in ons}) == len(ons) == len({r.authenticator for r in ons})
    waits = [b.time - a.time for a, b in zip(ons, ons[1:])]
    assert 0.85 < waits[0] < 1.4 and 1.7 < waits[1] < 2.6
    assert server.log("acct", trouble="no-answer")
    # Acknowledged is acknowledged.
    n = len(d.told)
    time.sleep(1.5)
    assert len(d.told) == n


def test_forged_answers(box, double):
    """Another authenticator, another id, another code, cut short: no answer. Then the true one."""
    d = double(well=False)
    server = box(d.conf("1 5"))
    first = poll(lambda: d.of(acct.ON), "Accounting-On")[0]
    for packet in (d.acknowledge(first, secret="other"), d.acknowledge(first, ident=(first.id + 1) % 256), d.acknowledge(first)[:19],
                   b"\2" + d.acknowledge(first)[1:], d.acknowledge(first, authenticator=bytes(16)), b"", b"\5"):
        d.sock.sendto(packet, first.address)
    poll(lambda: len(d.of(acct.ON)) >= 2, "a repeat")
    assert accountant(server) and not d.of(acct.START)
    d.well = True
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    stopped(d, session)


def test_wrong_secret(box, double):
    """It is said, nothing is lost, and comes when the file has been mended."""
    d = double()
    server = box(d.conf("1 0"))
    poll(lambda: d.of(acct.ON), "Accounting-On")
    d.extra = None
    d.acknowledge = lambda request: request.reply(5, [], signed=False, secret="other than that")
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    server.wait_log("acct", 20, trouble="wrong-secret")
    del d.acknowledge
    d.extra = []
    server.reload()
    assert len(stopped(d, session, 30)) >= 1


def test_fail_over(box, double, server_of_record):
    """The next server with the word, when the first is silent; one without it never."""
    silent, other = double(well=False), double()
    server = box(silent.conf("1 0") + other.line("1 0") + server_of_record.conf)
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    ended(server_of_record, session, 20)
    assert silent.told and not other.told


def test_servers_comes_back(box, work):
    """A FreeRADIUS that is stopped and started again gets everything."""
    r = acct.AcctRadius(work, "acctrestart")
    server = box("127.0.0.1:%d %s 1 0 acct=%d\n" % (r.auth, radius.SECRET, r.acct))
    c = server.session("submissions")
    session = sid(server, c)
    poll(lambda: r.records("Start"), "the Start")
    r.stop()
    c.mail()
    c.quit()
    server.wait_log("acct", 20, trouble="no-answer")
    r.start()
    stop = ended(r, session, 40)
    assert stop["Mailstile-Acct-Messages"] == "1" and int(stop["Acct-Delay-Time"]) >= 1
    server.stop()
    r.stop()


def test_kill_the_accountant(box, double):
    d = double(well=False)
    server = box(d.conf())
    server.crash_expected = True
    with server.session("submissions") as c:
        session = sid(server, c)
        c.mail()
        c.quit()
    os.kill(poll(lambda: accountant(server), "the accountant"), signal.SIGKILL)
    d.well = True
    assert acct.ours(stopped(d, session)[0], 16) == 1
    assert not d.of(acct.OFF)


def test_kill_everything(box, double):
    """kill -9 of all processes with sessions open and ended: after the next start the server hears how they stood."""
    d = double(well=False)
    server = box(d.conf())
    with server.session("submissions") as c:
        over = sid(server, c)
        c.mail()
        c.quit()
    server.gone(c)
    c = server.session("submissions")
    cut = sid(server, c)
    c.mail(rcpts=["a@far.example", "b@far.example"])
    c.mail()
    server.crash_expected = True
    for p in sorted(server.left(), key=lambda p: not p.name.startswith("stile-ward ")):  # those that could still write first
        os.kill(p.pid, signal.SIGKILL)
    server.wait_exit(-signal.SIGKILL)
    poll(lambda: not server.left(), "the end")
    c.close()
    mark = len(d.told)
    d.well = True
    server.start()
    stop = stopped(d, over)[-1]
    assert acct.ours(stop, 16) == 1 and acct.number(stop, acct.CAUSE) == 1
    stop = stopped(d, cut)[-1]
    assert (acct.ours(stop, 16), acct.ours(stop, 17)) == (2, 3) and acct.number(stop, acct.CAUSE) == 11
    after = d.told[mark:]
    assert acct.number(after[0], acct.STATUS) == acct.ON
    for session in (over, cut):  # their Starts come before their Stops
        mine = [acct.number(r, acct.STATUS) for r in after if r.get(acct.SESSION) == [session.encode()]]
        assert mine == [acct.START, acct.STOP]


def test_stop_and_start(box, double):
    """What the server does not acknowledge while we stop is kept; and stopping does not take long."""
    d = double(well=False)
    server = box(d.conf())
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    begin = time.monotonic()
    server.kill(signal.SIGTERM)
    server.wait_exit(0)
    assert time.monotonic() - begin < 6
    assert not d.of(acct.OFF)
    d.well = True
    server.start()
    stopped(d, session)


def test_reexec(box, double):
    """The server that starts itself over after a crash has not been away."""
    d = double()
    server = box(d.conf())
    poll(lambda: d.of(acct.ON), "Accounting-On")
    c = server.session("submissions")
    session = sid(server, c)
    server.crash_expected = True
    with server.session("submissions", login=None):
        os.kill(poll(lambda: len(server.pairs()) == 2 and server.pairs(), "two sessions")[1][1], signal.SIGTRAP)
        server.wait_log("reexec")
    poll(lambda: accountant(server), "an accountant")
    c.mail()
    c.quit()
    stop = stopped(d, session)[0]
    assert acct.ours(stop, 16) == 1 and acct.number(stop, acct.CAUSE) == 1
    assert len(d.of(acct.ON)) == 1 and not d.of(acct.OFF)


@pytest.mark.parametrize("damage", ["short", "long", "link", "directory"])
def test_damaged_file(box, double, damage):
    """It is told, and mail goes on: no accounting is no reason to keep customers waiting."""
    d = double()

    def spoil(server):
        path = os.path.join(server.home, "mailstile/acct")
        os.mkdir(os.path.dirname(path))
        if damage == "link":
            os.symlink("/etc/passwd", path)
        elif damage == "directory":
            os.mkdir(path)
        else:
            tools.write(path, b"\0" * (1000 if damage == "short" else 1024 * 100000))
    server = box(d.conf(), prepare=spoil)
    assert [e for e in server.log("config") if "accounting" in str(e)]
    with server.session("submissions") as c:
        c.mail()
        c.quit()
    assert not d.told


def test_torn_places(box, double):
    """Rubbish in the file, as a power cut may leave it, is nobody's session; the others are found."""
    d = double(well=False)
    server = box(d.conf())
    with server.session("submissions") as c:
        session = sid(server, c)
        c.quit()
    server.kill(signal.SIGTERM)
    server.wait_exit(0)
    path = os.path.join(server.home, "mailstile/acct")
    data = bytearray(tools.read(path))
    used = [i for i in range(len(data) // 1024) if session.encode() in data[i * 1024:(i + 1) * 1024]]
    assert len(used) == 1
    for i in range(len(data) // 1024):
        if i != used[0]:
            data[i * 1024:(i + 1) * 1024] = os.urandom(1024)
    with open(path, "r+b") as f:
        f.write(data)
    mark = len(d.told)
    d.well = True
    server.start()
    stopped(d, session)
    with server.session("submissions") as c:
        other = sid(server, c)
        c.quit()
    stopped(d, other)
    known = {session.encode(), other.encode()}
    assert {r.get(acct.SESSION)[0] for r in d.told[mark:] if acct.number(r, acct.STATUS) in (acct.START, acct.STOP)} == known


# ---- An allowance that several boxes share ------------------------------------------------------------------------------------------

def test_left(box, double):
    """The server says in its answers what is left; the session's next message is judged by that."""
    d = double(accept=[acct.vendor(1, 50)])
    server = box(d.conf())
    with server.session("submissions") as c:
        c.mail()
        poll(lambda: [r for r in d.of(acct.INTERIM) if acct.ours(r, 16) == 1], "an Interim for the message")
        d.allowance = 3  # others have used the rest
        c.mail()
        poll(lambda: [r for r in d.of(acct.INTERIM) if acct.ours(r, 16) == 2], "the next")
        time.sleep(1)  # for the answer to come to the session
        c.mail()
        assert c.cmd("MAIL FROM:<me@client.example>", None).raw[:9] == b"450 4.7.1"
        d.allowance = 7
        poll(lambda: c.cmd("MAIL FROM:<me@client.example>", None).code == 250, "more to be left", 8, every=0.5)


# ---- From outside ------------------------------------------------------------------------------------------------------------------

@pytest.mark.release
@pytest.mark.root
def test_place_of_the_accountant(box, double):
    d = double()
    server = box(d.conf())
    pid = poll(lambda: accountant(server), "the accountant")
    poll(lambda: d.of(acct.ON), "Accounting-On")
    status = dict(line.split(":\t", 1) for line in tools.read("/proc/%d/status" % pid).decode().splitlines() if ":\t" in line)
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and status["CapEff"] == "0" * 16
    assert set(status["Uid"].split()) != {"0"} and len(set(status["Uid"].split())) == 1
    root = os.readlink("/proc/%d/root" % pid)
    assert os.listdir("/proc/%d/root/" % pid) == [] and root != "/"
    kinds = sorted(what.split("/")[-1].split(":")[0] for fd, what in tools.descriptors(pid).items() if fd > 2)
    assert kinds == ["acct", "anon_inode", "memfd", "socket"], kinds


@pytest.mark.release
@pytest.mark.root
def test_tshark(box, server_of_record, work):
    """Another program's eye on all kinds of packets: authenticators right, nothing malformed or unknown."""
    r = server_of_record
    capture = os.path.join(work, "acct.pcap")
    ports = "udp port %d or udp port %d" % (r.auth, r.acct)
    out = os.path.join(work, "tshark")
    with open(out, "wb") as f:
        dump = subprocess.Popen(["tshark", "-i", "lo", "-f", ports, "-w", capture], stdin=subprocess.DEVNULL, stdout=f, stderr=f)
    try:
        poll(lambda: b"Capturing on" in tools.read(out), "tshark", 20)
        time.sleep(0.5)
        server = box(r.conf)
        with server.session("submissions", login="grace") as c:
            session = sid(server, c)
            c.mail()
            c.quit()
        ended(r, session)
        server.stop()
        time.sleep(1)
    finally:
        dump.send_signal(signal.SIGINT)
        dump.wait(20)
    text = tools.run("tshark", "-r", capture, "-V", "-o", "radius.shared_secret:" + radius.SECRET, "-o", "radius.validate_authenticator:TRUE",
                     "-o", "radius.ports:%d,%d" % (r.auth, r.acct), "-d", "udp.port==%d,radius" % r.auth, "-d", "udp.port==%d,radius" % r.acct).text
    for code in ("Access-Request (1)", "Access-Accept (2)", "Accounting-Request (4)", "Accounting-Response (5)"):
        assert "Code: " + code in text, code
    for kind in ("Start(1)", "Stop(2)", "Accounting-On(7)", "Accounting-Off(8)"):
        assert kind in text, kind
    # It does not have our vendor's dictionary.
    text = re.sub(r"VSA: t=Unknown-Attribute\((16|17|18)\) l=6 .*\n +Type: .*\n +Length: 6\n +Unknown-Attribute: [0-9a-f]{8}\n", "", text)
    for bad in ("Malformed", "[Expert Info", "[Invalid Authenticator: True", "Unknown-Attribute"):
        assert bad not in text, "\n".join(line for line in text.splitlines() if bad in line)
    # It checks those of answers; those of requests are what the double checks.
    answers = text.count("Code: Accounting-Response")
    assert answers >= 4 and text.count("[Invalid Authenticator: False") == answers + text.count("Code: Access-Accept")
