# SPDX-License-Identifier: MIT
"""What a login may do, said by a real FreeRADIUS and by control/userlimits; counts that hold whatever happens to the server."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import faults
import harness
import radius
import smtpc
import tools
from tools import poll

SUBMISSION = {"submission": harness.LISTEN["submission"]}
LIMIT = 1000


def filter_id(text):
    return ['Filter-Id := "mail:%s"' % text]


USERS = {
    "day3": filter_id("day=3"), "rcpt3": filter_id("rcpt=3"), "rate2": filter_id("rate=2"), "size": filter_id("size=1K"),
    "from": filter_id("from=@example.net,from=joe@example.org"), "norelay": filter_id("relay=no"), "many": filter_id("day=%d" % LIMIT),
    "bad": filter_id("day=3,colour=red"), "badnum": filter_id("day=three"), "other": ['Filter-Id := "std.ppp"'], "plain": [], "joe": [],
    "vsa": ["Mailstile-Day-Messages := 2", 'Mailstile-From := "@example.net"', "Mailstile-Size := 1024"],
    "vrcpt": ["Mailstile-Day-Recipients := 2"], "vnone": ["Mailstile-Day-Messages := 0"], "vno": ["Mailstile-Relay := no"],
    "vbad": ["Attr-26.65530.99 := 0x00000001"], "two": ["Port-Limit := 2"], "short": ["Session-Timeout := 2"],
    "both": ["Mailstile-Rate := 1", 'Filter-Id := "std.ppp"', 'Filter-Id += "mail:rate=5,day=9"'],
}


@pytest.fixture(scope="module")
def customers(work):
    f = radius.FreeRadius(work, "accounts", {name: ("pw", replies) for name, replies in USERS.items()})
    yield "127.0.0.1:%d %s\n" % (f.port, radius.SECRET)
    f.stop()


@pytest.fixture(scope="module")
def box(work, house, customers):
    s = harness.Server(work, house, customers, listen={**SUBMISSION, "smtp": harness.LISTEN["smtp"]})
    yield s
    s.take()
    s.stop()


def login(server, user, expect=235, source=None):
    c = server.session("submission", login=None, source=source)
    c.auth_plain(user, "pw", expect)
    return c


def sent(server, user):
    """What `mailstile users` knows of him."""
    (found,) = json.loads(server.tool("users", "-j", user).text)["users"]
    return found


def refused(c, code, enhanced, sender="me@client.example", rcpts=("you@far.example",)):
    """A message is refused somewhere on its way, like this."""
    for line in ["MAIL FROM:<%s>" % sender] + ["RCPT TO:<%s>" % r for r in rcpts]:
        r = c.cmd(line)
        if r.code != 250:
            break
    assert (r.code, r.text.split()[0]) == (code, enhanced), r.raw
    c.cmd("RSET", 250)
    return r


# ---- What RADIUS says ---------------------------------------------------------------------------------------------------

def test_day(box):
    """The count is the login's, whichever session sends."""
    for _ in range(3):
        c = login(box, "day3")
        c.mail()
        c.quit()
    with login(box, "day3") as c:
        assert "midnight" in refused(c, 450, "4.7.1").text
    box.tool("users", "reset", "day3")
    with login(box, "day3") as c:
        for _ in range(3):
            c.mail()
        refused(c, 450, "4.7.1")
    user = sent(box, "day3")
    assert (user["messages"], user["messages_limit"], user["total"], user["recipients_limit"]) == (3, 3, 6, None)


def test_recipients(box):
    with login(box, "rcpt3") as c:
        c.mail(rcpts=["a@far.example", "b@far.example"])
        refused(c, 450, "4.7.1", rcpts=["c@far.example", "d@far.example"])
        c.envelope(rcpts=["c@far.example"])
        c.cmd("RCPT TO:<d@far.example>", 450)
        c.data(smtpc.MESSAGE)  # to those who were taken
        refused(c, 450, "4.7.1")
    assert sent(box, "rcpt3")["recipients"] == 3


def test_rate(box):
    with login(box, "rate2") as c:
        for _ in range(6):  # a minute may begin in between, once, and let two more through
            if c.cmd("MAIL FROM:<me@client.example>", (250, 450)).code == 250:
                c.cmd("RCPT TO:<you@far.example>", 250)
                c.data(smtpc.MESSAGE, (250, 450))
        refusals = [e for e in box.log("refuse", user="rate2") if e["reason"] == "limit-rate"]
    assert refusals and sent(box, "rate2")["messages"] in (2, 3, 4)
    assert sent(box, "rate2")["messages"] + len(refusals) == 6


def test_size(box):
    with login(box, "size") as c:
        c.cmd("MAIL FROM:<me@client.example> SIZE=1025", 552)
        c.mail(message=b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n", params=" SIZE=1024")
        c.mail(message=b"Subject: x\r\n\r\n" + (b"x" * 500 + b"\r\n") * 3, expect=552)
        c.mail()


def test_senders(box):
    with login(box, "from") as c:
        c.mail(sender="anybody@Example.NET")
        c.mail(sender="joe@example.org")
        for sender in ("ann@example.org", "x@sub.example.net", "", "joe@example.org@evil.example"):
            r = c.cmd("MAIL FROM:<%s>" % sender)
            assert r.code in (550, 501), r.raw
        refused(c, 550, "5.7.1", "ann@example.org")


@pytest.mark.release
def test_author(make_server, customers, slow_binary):
    """FROM_HEADER_CHECK: who may use certain senders only may not say in the message that he is another one."""
    server = make_server(radius=customers, listen=SUBMISSION, binary=slow_binary)
    with login(server, "from") as c:
        for field, code in (("From: joe@example.org", 250), ("From: J <x@EXAMPLE.net>", 250), ("fRoM :\r\n J\r\n <x@example.net>", 250), ("To: x@b.example", 250),
                            ("From: eve@b.example", 550), ("From:", 550), ("From: joe@example.org,\r\n eve@b.example", 550),
                            ("From: joe@example.org\r\nFrom: eve@b.example", 550), ("From:\r\n \"joe@example.org\"\r\n <eve@b.example>", 550),
                            ("From: joe@example.org\r\nTo: x@example.org\r\nfrom: joe@example.org", 550), ("From: %s <joe@example.org>" % ("x " * 600), 550),
                            ("Resent-From: eve@b.example\r\nX-From: eve@b.example\r\nFrom: joe@example.org", 250)):
            c.mail(("%s\r\nSubject: x\r\n\r\nFrom: eve@b.example\r\n" % field).encode(), sender="joe@example.org", expect=code)
    refusals = [e for e in server.log("refuse", user="from") if e["at"] == "commit"]
    assert len(refusals) == 7 and {e["reason"] for e in refusals} == {"sender-not-allowed"}
    assert len(server.take()) == sent(server, "from")["messages"] == 5
    with login(server, "plain") as c:  # nobody said who he is to be
        c.mail(b"From: eve@b.example\r\n\r\nx\r\n")
    server.take()


def test_may_not_relay(box):
    for user in ("norelay", "vno"):
        with login(box, user) as c:
            refused(c, 550, "5.7.1")
        c = box.session("smtp", tls=True)
        with c:
            c.auth_plain(user, "pw")
            c.mail(rcpts=["you@local.example"])
            refused(c, 550, "5.7.1")


@pytest.mark.parametrize("user", ["bad", "badnum", "vbad"])
def test_policy_that_is_not_understood(box, user):
    """Never 535: the password is right. And never a login: what it may do is not known."""
    with login(box, user, 454) as c:
        refused(c, 530, "5.7.0")
    e = box.wait_log("auth", user=user)
    assert e["result"] == "later" and e["reason"].startswith("a" if user != "badnum" else "a value")


def test_filters_of_others(box):
    with login(box, "other") as c:
        c.mail()


def test_vendor_attributes(box):
    with login(box, "vsa") as c:
        refused(c, 550, "5.7.1")
        c.cmd("MAIL FROM:<a@example.net> SIZE=1025", 552)
        c.mail(sender="a@example.net")
        c.mail(sender="a@example.net")
        refused(c, 450, "4.7.1", "a@example.net")
    assert any("is told nothing" in e["msg"] for e in box.log("quota", user="vsa")), box.log("quota")
    with login(box, "vsa") as c:  # two more are left, says the server, who counts
        c.mail(sender="a@example.net")
        with login(box, "vsa") as other:  # what this one says is from now on, and there is one already
            other.mail(sender="a@example.net")
            other.mail(sender="a@example.net")
        refused(c, 450, "4.7.1", "a@example.net")
    with login(box, "vnone") as c:
        refused(c, 450, "4.7.1")
    with login(box, "vrcpt") as c:
        c.mail(rcpts=["a@far.example", "b@far.example"])
        refused(c, 450, "4.7.1")


def test_both(box):
    """Of two Filter-Ids ours counts, and of the same limit what comes last."""
    with login(box, "both") as c:
        c.mail()
    user = sent(box, "both")
    assert user["messages_limit"] == 9


def test_sessions(box):
    with login(box, "two"), login(box, "two"):
        with login(box, "two", 454) as c:
            c.cmd("NOOP", 250)
        with login(box, "plain"):
            pass
    poll(box.idle, "the sessions to end")
    with login(box, "two"):
        pass


def test_session_timeout(box):
    begin = time.monotonic()
    with login(box, "short") as c:
        c.mail()
        assert c.reply().code == 421
        assert 1.5 < time.monotonic() - begin < 15
        c.closed()
    assert box.wait_log("close", user="short")["why"] == "timeout"


# ---- The owner is told -----------------------------------------------------------------------------------------------------

def test_alert(make_server, customers):
    """One line and one mail for the first limit of a login in a day."""
    server = make_server(radius=customers, listen=SUBMISSION, control={"alertto": "noc@isp.example\n"})
    for _ in range(2):
        with login(server, "rcpt3") as c:
            refused(c, 450, "4.7.1", rcpts=["%d@far.example" % i for i in range(4)])
            c.quit()
    with login(server, "day3") as c:
        for _ in range(3):
            c.mail()
        refused(c, 450, "4.7.1")
        refused(c, 450, "4.7.1")
        c.quit()
    poll(server.idle, "the sessions to end")
    assert [(e["user"], e["limit"], e["is"]) for e in server.log("quota")] == [("rcpt3", "rcpt", "3"), ("day3", "day", "3")]
    texts = []
    for n in os.listdir(os.path.join(server.queue, "todo")):
        if tools.read(os.path.join(server.queue, "todo", n)).endswith(b"\0F\0Tnoc@isp.example\0"):
            texts.append(tools.read(os.path.join(server.queue, "mess", str(int(n) % 3), n)))
            for d in ("todo/", "intd/", "mess/%d/" % (int(n) % 3)):
                os.unlink(os.path.join(server.queue, d + n))
    assert sorted(re.findall(rb"^Subject: (.*)$", b"".join(texts), re.M)) == [b"limit of day3", b"limit of rcpt3"]
    assert sorted(re.findall(rb"3 [a-z]+ today", b"".join(texts))) == [b"3 messages today", b"3 recipients today"]
    assert len(server.take()) == 3


@pytest.mark.parametrize("kind", ["maildir", "maildir-plain"])
def test_alert_in_a_maildir(make_server, customers, kind):
    server = make_server(radius=customers, listen=SUBMISSION, control={"alertto": "noc@isp.example\n"}, prepare=lambda s: faults.maildir(s, kind))
    with login(server, "vnone") as c:
        refused(c, 450, "4.7.1")
        c.quit()
    (name,) = poll(lambda: os.listdir(os.path.join(server.top, "Maildir/new")), "the mail")
    text = tools.read(os.path.join(server.top, "Maildir/new", name))
    assert text.startswith(b"Return-Path: <>\n") and b"\nDelivered-To: noc@isp.example\n" in text and b"\n\nhas met a limit on mail.example.net: 0 messages today" in text
    poll(lambda: os.listdir(os.path.join(server.top, "Maildir/tmp")) == [], "its name in tmp/ to go")


# ---- Orders --------------------------------------------------------------------------------------------------------------

def test_block(box):
    """It works in open sessions, at their next command, and in those to come."""
    with login(box, "plain") as c:
        c.mail()
        c.cmd("MAIL FROM:<me@client.example>", 250)
        box.tool("users", "block", "plain")
        c.cmd("RCPT TO:<you@far.example>", 550)
        c.cmd("RSET", 250)
        r = refused(c, 550, "5.7.1")
        assert "blocked" in r.text
        with login(box, "plain") as other:
            refused(other, 550, "5.7.1")
        assert sent(box, "plain")["blocked"]
        assert "BLOCKED" in box.tool("users", "plain").text
        box.tool("users", "unblock", "plain")
        c.mail()
    # Who has never sent can be blocked, too; but not be unblocked.
    assert box.tool("users", "unblock", "nobody", check=False).returncode == 1
    box.tool("users", "block", "joe", "ann")
    with login(box, "joe") as c:
        refused(c, 550, "5.7.1")
    box.tool("users", "unblock", "joe", "ann")


def test_tool(box):
    for words in (["-x"], ["frob", "joe"], ["block"], ["reset"], ["unblock"], ["-j", "block", "joe"], ["-j", "block"]):
        p = box.tool("users", *words, check=False)
        assert p.returncode == 100 and "usage: mailstile users" in p.text, p.text
    p = box.tool("users", "block", "x\x1b[31m\"\\ü")
    assert p.text == 'x\\x1b[31m\\x22\\x5c\\xc3\\xbc: blocked; it has never sent anything from here: is that its name?\n'
    text = box.tool("users").text
    assert "\x1b" not in text and "x\\x1b[31m\\x22\\x5c\\xc3\\xbc: 0 messages" in text
    names = [u["user"] for u in json.loads(box.tool("users", "-j").text)["users"]]
    assert 'x\x1b[31m"\\' + "\u00c3\u00bc" in names and len(names) == len(set(names))
    assert [u["user"] for u in json.loads(box.tool("users", "plain", "-j").text)["users"]] == ["plain"]
    for words in (["no-such"], ["-j", "no-such"], ["reset", "no-such"], ["unblock", "no-such"]):
        p = box.tool("users", *words, check=False)
        assert p.returncode == 1 and "mailstile: no-such: no" in p.text, p.text
    assert "no longer blocked" in box.tool("users", "unblock", "x\x1b[31m\"\\ü").text


def test_blocked_by_name(box):
    """Of one that is known nothing is asked."""
    with login(box, "plain") as c:
        c.mail()
    assert box.tool("users", "block", "plain").text == "plain: blocked\n"
    assert box.tool("users", "reset", "plain").text == "plain: its day begins anew\n"
    assert box.tool("users", "block", "plain").text == "plain: blocked\n"
    box.tool("users", "unblock", "plain")


def test_left_by_radius(box):
    """Where RADIUS counts there is no limit here that could be shown: what it has left is."""
    box.tool("users", "reset", "vsa", "vrcpt", check=False)
    for _ in range(2):
        with login(box, "vsa") as c:
            c.mail(sender="a@example.net")
            user = sent(box, "vsa")
            assert (user["messages_limit"], user["messages_left"]) == (None, 1)
            c.mail(sender="a@example.net")
            refused(c, 450, "4.7.1", "a@example.net")
    assert "vsa: 4 messages (0 left by RADIUS) and 4 recipients today" in box.tool("users", "vsa").text
    box.tool("users", "reset", "vsa")
    user = sent(box, "vsa")
    assert (user["messages"], user["messages_limit"], user["messages_left"]) == (0, None, None)
    assert "vsa: 0 messages and 0 recipients today" in box.tool("users", "vsa").text
    with login(box, "vrcpt") as c:
        c.mail()
    assert "1 messages and 1 recipients (1 left by RADIUS) today" in box.tool("users", "vrcpt").text
    with login(box, "rcpt3") as c:  # a limit of ours
        box.tool("users", "reset", "rcpt3", check=False)
        c.mail()
    user = sent(box, "rcpt3")
    assert (user["recipients_limit"], user["recipients_left"]) == (3, None) and "1 of 3 recipients today" in box.tool("users", "rcpt3").text


# ---- control files -----------------------------------------------------------------------------------------------------------

def test_userlimits(make_server, customers):
    server = make_server(radius=customers, listen=SUBMISSION, control={
        "userlimits": "# all of them\n:day=1\njoe:day=2,from=joe@a.example\n", "timezone": "+0900\n"})
    assert "\n0 errors, 0 warnings\n" in server.tool("check").text
    with login(server, "plain") as c:
        c.mail()
        refused(c, 450, "4.7.1")
    with login(server, "joe") as c:
        refused(c, 550, "5.7.1")
        c.mail(sender="joe@a.example")
        c.mail(sender="joe@a.example")
        refused(c, 450, "4.7.1", "joe@a.example")
    with login(server, "day3") as c:  # RADIUS has the last word
        for _ in range(3):
            c.mail()
    for files, at in (({"userlimits": ":day=1\njoe;day=2\n"}, "userlimits:2:"), ({"timezone": "CET\n", "userlimits": ""}, "timezone:1:"),
                      ({"timezone": "+0060\n"}, "timezone:1:")):
        server.set(**files)
        p = server.tool("check", check=False)
        assert p.returncode == 1 and at in p.text, p.text
        server.reload()
        with login(server, "plain", 454):
            pass
    server.set(timezone=None, userlimits=":day=5\n", alertto="nowhere\n")
    assert "alertto:1:" in server.tool("check", check=False).text
    server.set(alertto=None)
    server.reload()
    with login(server, "plain") as c:
        c.mail()


@pytest.mark.parametrize("user,status,lines", [
    ("plain", 0, ["limits:"]), ("vsa", 0, ["limits:", "  left today 2", "  size 1024", "  from: @example.net"]), ("norelay", 0, ["limits: relay no"]),
    ("rcpt3", 0, ["limits:", "  rcpt 3"]), ("bad", 1, ["but its limits are not understood, and it is put off: an unknown word; expected day, rcpt, rate, "
                                                       "sessions, size, time, idle, from, relay, each with = and a value"])])
def test_check_radius(box, user, status, lines):
    """What a server says of a login can be seen beforehand."""
    p = box.tool("check", "radius", user, input=b"pw\n", check=False)
    assert p.returncode == status, p.text
    assert p.text.splitlines()[-len(lines):] == lines


def test_damaged_counts(make_server, customers):
    """A file that is no good refuses logins, and says why; away with it, and all begins anew."""
    server = make_server(radius=customers, listen=SUBMISSION)
    with login(server, "day3") as c:
        c.mail()
    path = os.path.join(server.home, "mailstile/users")
    assert os.stat(path).st_mode & 0o777 == 0o600
    if tools.ROOT:
        assert os.stat(path).st_uid == harness.USERS["qmailq"]
    with open(path, "r+b") as f:
        f.write(b"none")
    server.reload()
    assert server.log("config")[-1]["file"].endswith("mailstile/users") if "file" in server.log("config")[-1] else True
    with login(server, "day3", 454) as c:
        refused(c, 530, "5.7.0")
    assert server.tool("users", check=False).returncode == 111
    assert "mailstile/users: error: damaged" in server.tool("check", check=False).text
    os.rename(path, path + ".bad")
    server.reload()
    with login(server, "day3") as c:
        c.mail()
    assert sent(server, "day3")["total"] == 1


# ---- Many at once --------------------------------------------------------------------------------------------------------------

class Senders:
    """`n` sessions of one login, each from an address of its own, which send until they hear no. `accepted` counts their 250s."""

    def __init__(self, server, n, user="many"):
        self.server, self.user = server, user
        self.accepted, self.limited, self.faults, self.lock = 0, 0, [], threading.Lock()
        self.stopped = False
        self.threads = [threading.Thread(target=self._one, args=("127.66.%d.%d" % (i // 200, i % 200 + 1),), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def _one(self, source):
        try:
            with login(self.server, self.user, source=source) as c:
                while self._message(c):
                    pass
        except (OSError, smtpc.Closed, AssertionError) as e:
            if not self.stopped:
                self.faults.append(e)

    def _message(self, c):
        # In one breath, as real programs do: then the last word is often said at COMMIT.
        c.send("MAIL FROM:<me@client.example>\r\nRCPT TO:<you@far.example>\r\nDATA\r\n")
        codes = [c.reply().code for _ in range(3)]
        if codes[2] == 354:
            c.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            codes.append(c.reply().code)
        with self.lock:
            self.accepted += codes[-1] == 250
            self.limited += 450 in codes
        return codes[-1] == 250

    def join(self):
        for t in self.threads:
            t.join(120)
            assert not t.is_alive()
        assert not self.faults, self.faults[:3]


@pytest.mark.release
def test_two_hundred_sessions(make_server, customers):
    """Exactly as many as are allowed."""
    server = make_server(radius=customers, listen=SUBMISSION)
    many = Senders(server, 200)
    many.join()
    assert many.accepted == LIMIT and many.limited == 200
    assert len(server.messages()) == LIMIT
    user = sent(server, "many")
    assert user["messages"] == user["recipients"] == user["total"] == LIMIT and user["met_limit"]
    assert len(server.log("quota", user="many")) == 1
    server.take()


@pytest.mark.release
def test_killed(make_server, customers):
    """All processes are killed while 100 sessions send: no message that was acknowledged is forgotten, nor many counted that were not."""
    server = make_server(radius=customers, listen=SUBMISSION)
    server.crash_expected = True
    many = Senders(server, 100)
    poll(lambda: many.accepted >= 300, "300 messages", 60)
    many.stopped = True
    for p in server.left():
        try:
            os.kill(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    server.process.wait(30)
    harness.live.remove(server)
    poll(lambda: not server.left(), "all to be gone")
    many.join()
    counted = sent(server, "many")["messages"]
    assert many.accepted <= counted <= many.accepted + 100, (many.accepted, counted)
    for f in server.files():  # what lies in todo/ was stored, acknowledged or not
        os.unlink(os.path.join(server.queue, f))
    server.start()
    poll(lambda: server.accepts("submission"), "the server to listen")
    rest = Senders(server, 100)
    rest.join()
    assert rest.accepted == LIMIT - counted
    assert sent(server, "many")["messages"] == LIMIT
    server.take()


def inetd_home(make_server, customers):
    server = make_server(radius=customers, start=False)
    tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
    shutil.rmtree(os.path.join(server.home, "mailstile"), ignore_errors=True)
    return server


def inetd(server):
    """Start a session; (our end of the connection, process)."""
    ours, theirs = socket.socketpair()
    with open(server.logfile, "ab") as log, theirs:
        return ours, subprocess.Popen(server.argv("inetd", "-e", "-H", server.home, "-P", "submission"), stdin=theirs, stdout=theirs, stderr=log,
                                      env=harness.environment(), start_new_session=True)


def inetd_login(server, ours, user, expect=235):
    c = smtpc.Client.__new__(smtpc.Client)
    c.sock, c.context, c.name, c.buffer = ours, server.context, "mail.example.net", b""
    ours.settimeout(tools.PATIENCE)
    c.greeting = c.reply()
    c.ehlo()
    c.starttls()
    c.ehlo()
    c.auth_plain(user, "pw", expect)
    return c


def test_inetd(make_server, customers):
    """The first sessions of a box, at the same moment: one file, and all are in it."""
    server = inetd_home(make_server, customers)
    codes = []
    for ours, process in [inetd(server) for _ in range(6)]:
        c = inetd_login(server, ours, "day3")
        c.cmd("MAIL FROM:<me@client.example>", (250, 450))
        c.cmd("RCPT TO:<you@far.example>", (250, 503))
        if c.cmd("DATA", (354, 503)).code == 354:
            c.send(smtpc.MESSAGE + b".\r\n")
            codes.append(c.reply().code)
        c.quit()
        assert process.wait(30) == 0
    assert codes == [250] * 3
    assert sent(server, "day3")["messages"] == 3
    assert os.listdir(os.path.join(server.home, "mailstile")) == ["users"]
    assert not re.search("ev=crash", tools.read(server.logfile).decode())
    server.take()


def test_inetd_sessions(make_server, customers):
    """How many sessions a login has at once is known there, too; one that is killed has ended."""
    server = inetd_home(make_server, customers)
    started = [inetd(server) for _ in range(4)]
    clients = [inetd_login(server, ours, "two", expect) for (ours, _), expect in zip(started, (235, 235, 454))]
    started[0][1].kill()
    started[0][1].wait(30)
    clients.append(inetd_login(server, started[3][0], "two"))
    clients[1].mail()
    for c, (_, process) in zip(clients, started):
        c.close()
        process.wait(30)
    server.take()
