# SPDX-License-Identifier: MIT
"""Who may send what to whom. Every doubt is a no: a relay that fails open is found within hours."""

import os

import pytest

import harness
import smtpc
import tools
from tools import cdb_bytes


def recipient(c, rcpt, sender="me@client.example"):
    c.cmd("RSET", 250)
    c.cmd("MAIL FROM:<%s>" % sender, 250)
    return c.cmd("RCPT TO:<%s>" % rcpt)


def relays(c, rcpt="you@far.example"):
    r = recipient(c, rcpt)
    assert r.code in (250, 550)
    if r == 550:
        assert r.enhanced == "5.7.1"
    return r == 250


# ---- Strangers -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("profile", ["submission", "submissions"])
def test_no_mail_without_login(server, profile):
    with server.session(profile, login=None) as c:
        c.cmd("MAIL FROM:<me@client.example>", 530)
        c.cmd("RCPT TO:<you@local.example>", (503, 530))
        c.cmd("DATA", (503, 530))
    server.assert_nothing()


@pytest.mark.parametrize("tls", [False, True])
def test_no_relay_on_port_25(server, tls):
    with server.session("smtp", tls=tls) as c:
        assert not relays(c)
        assert relays(c, "you@local.example")
    (event,) = server.log("refuse", client=c.source)
    assert event["addr"] == "you@far.example" and event["at"] == "rcpt" and event["reason"] == "relay-denied"


def test_relay_on_port_25_after_login(server):
    with server.session("smtp", tls=True) as c:
        assert not relays(c)
        c.cmd("RSET", 250)
        c.auth_plain("alice", "wonder land")
        assert relays(c)


def test_refused_login_opens_nothing(server):
    with server.session("smtp", tls=True) as c:
        c.auth_plain("bob", "x", 535)
        assert not relays(c)


@pytest.mark.parametrize("profile", ["inside", "printer"])
def test_inside_is_for_listed_addresses(server, profile):
    with server.connect(profile, source=tools.fresh_address(1)) as c:
        assert c.greeting == 554 and c.greeting.enhanced == "5.7.1"
        c.send(b"EHLO x\r\nMAIL FROM:<me@client.example>\r\n")
        rest = c.rest()
        assert not rest or all(line[:3] in (b"503", b"221", b"421") for line in rest.split(b"\r\n")[:-1])
    server.assert_nothing()


def test_inside_refuses_strangers_recipients_too(server):
    with server.connect("inside", source=tools.fresh_address(1)) as c:
        assert c.greeting == 554


@pytest.mark.parametrize("rcpt,taken", [
    ("you@local.example", True), ("you@LOCAL.Example", True), ("you@x.local.example", False), ("you@notlocal.example", False),
    ("you@local.example.evil.example", False), ("you@sub.example", False), ("you@a.sub.example", True), ("you@a.b.SUB.example", True),
    ("you@notsub.example", False), ("you@example", False), ("postmaster", True),
    # The domain is what comes after the last @, whatever the rest looks like.
    ('"you@local.example"@far.example', False), ("you%far.example@local.example", True), ('"you@far.example"@local.example', True),
    ("@local.example:you@far.example", False), ("you@[127.0.0.1]", False), ("you@far.example@local.example", None),
])
def test_rcpthosts(server, rcpt, taken):
    with server.session("smtp") as c:
        code = recipient(c, rcpt).code
        if taken is None:
            assert code in (501, 553)
        elif taken:
            assert code == 250
        else:
            assert code in (550, 554, 501)


@pytest.mark.parametrize("state", ["missing", "unreadable", "empty", "comments", "nul"])
def test_rcpthosts_in_trouble(make_server, state):
    """Missing or unreadable: strangers reach nobody (qmail's open relay); login and listed addresses still work."""
    def prepare(s):
        path = os.path.join(s.control, "rcpthosts")
        os.unlink(path)
        if state == "unreadable":
            if tools.ROOT:
                os.mkdir(path)
            else:
                tools.write(path, "local.example\n", 0)
        elif state != "missing":
            tools.write(path, {"empty": "", "comments": "# local.example\n", "nul": "local.example\0\n"}[state])
    server = make_server(prepare=prepare)
    with server.session("smtp") as c:
        assert not relays(c) and not relays(c, "you@local.example")
    with server.session("submissions") as c:
        assert relays(c)
    with server.session("inside") as c:
        assert relays(c)
    if state in ("missing", "unreadable", "nul"):
        p = server.tool("check", check=False)
        assert p.returncode == 1 and "rcpthosts: error: " in p.text
    os.chmod(os.path.join(server.control, "rcpthosts"), 0o755) if state == "unreadable" else None


# ---- cdb files -------------------------------------------------------------------------------------------------------

MORE = [(b"more.example", b""), (b".moresub.example", b""), (b"upper.example", b"")]


@pytest.fixture(scope="module")
def cdb_server(work, house, radius_conf):
    """Rules by tcprules itself, morercpthosts.cdb by our own writer."""
    def prepare(s):
        many = [(b"d%d.bulk.example" % n, b"") for n in range(5000)]
        tools.write(os.path.join(s.control, "morercpthosts.cdb"), cdb_bytes(MORE + many))
        tools.tcprules(os.path.join(s.control, "tcp.smtp.cdb"), "".join(line + "\n" for line in [
            "127.20.0.1:allow,RELAYCLIENT=\"\"",
            "127.20.0.2:allow,RELAYCLIENT=\"@appended.example\"",
            "127.20.0.3:deny",
            "127.20.0.4:allow",
            "127.20.0.5:allow,FOO=\"x\",RELAYCLIENT=\"\",DATABYTES=\"500\"",
            "127.20.0.6:allow,NOTRELAYCLIENT=\"\"",
            "127.20.0.7:deny,RELAYCLIENT=\"\"",
            "127.20.0.30-39:allow,RELAYCLIENT=\"\"",
            "127.21.:allow,RELAYCLIENT=\"\"",
            "127.21.5.:allow",
            "127.21.5.9:allow,RELAYCLIENT=\"\"",
            "127.22.:deny",
            ":allow",
        ]))
    s = harness.Server(work, house, radius_conf, prepare=prepare)
    yield s
    s.stop()


@pytest.mark.parametrize("rcpt,taken", [
    ("you@local.example", True), ("you@more.example", True), ("you@MORE.example", True), ("you@x.more.example", False),
    ("you@x.moresub.example", True), ("you@x.y.moresub.example", True), ("you@moresub.example", False), ("you@d4321.bulk.example", True),
    ("you@d5000.bulk.example", False), ("you@bulk.example", False),
])
def test_morercpthosts(cdb_server, rcpt, taken):
    with cdb_server.session("smtp") as c:
        assert relays(c, rcpt) == taken


@pytest.mark.parametrize("source,relay", [
    ("127.20.0.1", True), ("127.20.0.4", False), ("127.20.0.6", False), ("127.20.0.30", True), ("127.20.0.39", True),
    ("127.20.0.40", False), ("127.20.0.8", False), ("127.21.1.1", True), ("127.21.5.1", False), ("127.21.5.9", True),
    ("127.2.1.1", False), ("127.77.1.1", True),
])
def test_rules(cdb_server, source, relay):
    """tcprules' order: full address, then shrinking prefixes, then the empty key; the first hit is the only one."""
    with cdb_server.session("smtp", source=source) as c:
        assert relays(c) == relay
        assert relays(c, "you@local.example")


@pytest.mark.parametrize("source", ["127.20.0.3", "127.20.0.7", "127.22.9.9"])
@pytest.mark.parametrize("profile", ["smtp", "submissions", "inside"])
def test_deny(cdb_server, source, profile):
    """The connection is dropped without a session."""
    try:
        c = cdb_server.connect(profile, source=source)
    except (smtpc.Closed, OSError):
        return
    with c:
        assert c.greeting.code in (421, 550, 554)
        assert b"250" not in c.rest()


def test_relayclient_value_is_appended(cdb_server):
    """As qmail-smtpd does: the value goes to the end of every recipient."""
    cdb_server.take()
    with cdb_server.session("smtp", source="127.20.0.2") as c:
        m = cdb_server.message(c.mail(rcpts=["you@far.example", "they@local.example"]))
    assert m.rcpts == [b"you@far.example@appended.example", b"they@local.example@appended.example"]
    cdb_server.take()


def test_databytes_of_a_rule(cdb_server):
    with cdb_server.session("smtp", source="127.20.0.5") as c:
        assert c.keywords["SIZE"] == ["500"]
        c.mail(smtpc.MESSAGE + b"x" * 600 + b"\r\n", expect=552)
    with cdb_server.session("smtp", source="127.20.0.1") as c:
        assert c.keywords["SIZE"] == ["52428800"]
        c.mail(smtpc.MESSAGE + b"x" * 600 + b"\r\n")
    cdb_server.take()


@pytest.mark.parametrize("name", ["morercpthosts.cdb", "tcp.smtp.cdb"])
@pytest.mark.parametrize("damage", ["empty", "short", "text", "cut", "offsets", "slots"])
def test_damaged_cdb(make_server, name, damage):
    """A damaged file gives nobody anything, and does not stop the server."""
    good = cdb_bytes([(b"more.example", b""), (b"127.23.0.1", b"+RELAYCLIENT=\0"), (b"127.", b"+RELAYCLIENT=\0"),
                      (b"", b"+RELAYCLIENT=\0")])
    bad = {"empty": b"", "short": good[:1000], "text": b"more.example\n" * 300, "cut": good[:2060],
           "offsets": b"\xff\xff\xff\x7f\x02\x00\x00\x00" * 256 + good[2048:], "slots": b"\x00\x08\x00\x00\xff\xff\xff\xff" * 256 + good[2048:]}

    def prepare(s):
        tools.write(os.path.join(s.control, name), bad[damage])
    server = make_server(prepare=prepare)
    with server.connect("smtp", source="127.23.0.1") as c:
        c.ehlo()
        assert not relays(c) and not relays(c, "you@more.example") and relays(c, "you@local.example")
    p = server.tool("check", check=False)
    assert damage in ("offsets", "slots", "cut") or (p.returncode == 1 and name + ": error: " in p.text)


# ---- relayclients ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def cidr_server(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf, control={
        "relayclients": "# office\n127.30.0.0/16\n\n127.31.0.7  \n127.32.0.128/25\n::1\n"},
        listen={"smtp": "smtp 127.0.0.1:{}", "inside": "inside 127.0.0.1:{}", **({
            "inside6": "inside [::1]:{}", "submission6": "submissions [::1]:{}"} if tools.have_ipv6() else {})})
    yield s
    s.stop()


@pytest.mark.parametrize("source,relay", [
    ("127.30.0.1", True), ("127.30.255.254", True), ("127.31.0.7", True), ("127.31.0.8", False), ("127.32.0.128", True),
    ("127.32.0.255", True), ("127.32.0.127", False), ("127.29.255.255", False), ("127.0.0.1", False),
])
def test_relayclients(cidr_server, source, relay):
    with cidr_server.session("smtp", source=source) as c:
        assert relays(c) == relay
    with cidr_server.connect("inside", source=source) as c:
        assert c.greeting == (220 if relay else 554)


@pytest.mark.ipv6
def test_relayclients_ipv6(cidr_server):
    with smtpc.Client(("::1", cidr_server.port["inside6"])) as c:
        c.ehlo()
        m = cidr_server.message(c.mail())
        assert m.head[1].endswith((b" (::1)", b"@::1)"))
    assert cidr_server.wait_log("accept")["client"] == "::1"
    cidr_server.take()


@pytest.mark.parametrize("content", ["127.40.0.0/16\nnonsense\n", "127.40.0.0/33\n", "127.40.0.1/16\n", "127.40.0.0/16 x\n", "127.40.\n"])
def test_bad_relayclients_list_nobody(make_server, content):
    server = make_server(control={"relayclients": content})
    with server.session("smtp", source="127.40.0.1") as c:
        assert not relays(c)
    p = server.tool("check", check=False)
    assert p.returncode == 1 and "relayclients:" in p.text


# ---- Senders ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sender,refused", [
    ("bad@spam.example", True), ("BAD@Spam.Example", True), ("good@spam.example", False), ("any@evil.example", True),
    ("x@sub.evil.example", False), ("", False), ("bad@spam.example.ok.example", False),
])
@pytest.mark.parametrize("profile", ["smtp", "inside", "submissions"])
def test_badmailfrom(bad_sender_server, profile, sender, refused):
    with bad_sender_server.session(profile) as c:
        r = c.cmd("MAIL FROM:<%s>" % sender)
        if r == 250:
            r = c.cmd("RCPT TO:<you@local.example>")
        assert r.code in ((550, 553) if refused else (250,))
        if refused:
            assert r.enhanced in ("5.7.1", "5.1.8", "5.1.0")


@pytest.fixture(scope="module")
def bad_sender_server(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf, control={"badmailfrom": "# spam\nBad@spam.example\n@evil.example\n"})
    yield s
    s.stop()


@pytest.mark.parametrize("claimed", ["scanner@localhost", "", "me@client.example", "root@printer"])
def test_forced_sender(server, claimed):
    """`from=`: whatever an old printer says, the envelope sender is the listed one."""
    with server.session("printer") as c:
        m = server.message(c.mail(sender=claimed))
    assert m.sender == b"printer@example.net"


def test_greeting_text(make_server):
    server = make_server(control={"smtpgreeting": "stile.example.org hello\n"}, listen={"smtp": "smtp 127.0.0.1:{}"})
    with server.connect("smtp") as c:
        assert c.greeting.raw.startswith(b"220 stile.example.org hello")
        assert c.greeting.raw.endswith(b"ESMTP\r\n")
