# SPDX-License-Identifier: MIT
"""AUTH (RFC 4954, 4616), case by case. What RADIUS makes of a login is in test_radius.py."""

import time

import pytest

import radius
import smtpc
import tools
from smtpc import b64

GOOD = b64("\0alice\0wonder land")


def ready(server, profile="submissions", **kw):
    return server.session(profile, login=None, **kw)


def still_fine(c):
    """The session is usable and not logged in."""
    c.cmd("NOOP", 250)
    c.cmd("MAIL FROM:<me@client.example>", 530)


# ---- What works ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("profile,tls", [("submission", True), ("submissions", None), ("smtp", True)])
@pytest.mark.parametrize("how", ["plain", "plain-later", "login", "login-initial", "lower-case"])
def test_mechanisms(server, profile, tls, how):
    with ready(server, profile, tls=tls) as c:
        if how == "plain":
            r = c.cmd("AUTH PLAIN " + GOOD, 235)
        elif how == "plain-later":
            assert c.cmd("AUTH PLAIN", 334).raw == b"334 \r\n"
            r = c.cmd(GOOD, 235)
        elif how == "login":
            r = c.auth_login("alice", "wonder land")
        elif how == "login-initial":
            assert c.cmd("AUTH LOGIN " + b64("alice"), 334).raw == b"334 UGFzc3dvcmQ6\r\n"
            r = c.cmd(b64("wonder land"), 235)
        else:
            r = c.cmd("auth plain " + GOOD, 235)
        assert r.enhanced == "2.7.0"
        m = server.message(c.mail())
        assert "ESMTPSA" in m.received and "alice@" in m.received
    event = server.log("auth", client=c.source)[-1]
    assert event["result"] == "accept" and event["user"] == "alice" and event["mech"] in ("PLAIN", "LOGIN")
    assert int(event["ms"]) < 5000
    assert server.gone(c)["user"] == "alice"


def test_own_name_as_authorization_identity(server):
    """RFC 4616: an authzid that equals the authcid is fine."""
    with ready(server) as c:
        c.auth_plain("alice", "wonder land", authzid="alice")


def test_login_outlives_rset_and_mail(server):
    """RSET and a second EHLO leave the login alone (RFC 4954 section 4)."""
    with ready(server) as c:
        c.cmd("AUTH PLAIN " + GOOD, 235)
        c.cmd("RSET", 250)
        c.mail()
        c.mail()


def test_auth_may_end_a_pipelined_group(server):
    with ready(server) as c:
        c.send("RSET\r\nNOOP\r\nAUTH PLAIN %s\r\n" % GOOD)
        assert [c.reply().code for _ in range(3)] == [250, 250, 235]


def test_no_auth_keyword_is_needed_after_login(server):
    with server.session("submissions") as c:
        c.ehlo()
        c.mail()


# ---- What does not ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line,code,enhanced", [
    ("AUTH", 501, "5.5.4"), ("AUTH ", 501, "5.5.4"),
    ("AUTH CRAM-MD5", 504, "5.5.4"), ("AUTH FOO", 504, "5.5.4"), ("AUTH XOAUTH2 abcd", 504, "5.5.4"), ("AUTH EXTERNAL =", 504, "5.5.4"),
    ("AUTH SCRAM-SHA-256", 504, "5.5.4"), ("AUTH PLAI", 504, "5.5.4"), ("AUTH PLAINX", 504, "5.5.4"),
    ("AUTH PLAIN a b", 501, None), ("AUTH PLAIN " + GOOD + " x", 501, None), ("AUTH LOGIN x y", 501, None),
    # Not base64, or not all of it (RFC 4954 section 4: reject, do not repair).
    ("AUTH PLAIN ***", 501, "5.5.2"), ("AUTH PLAIN AGFsaWNl%", 501, "5.5.2"), ("AUTH PLAIN " + GOOD[:-1], 501, "5.5.2"),
    ("AUTH PLAIN AA=AAA==", 501, "5.5.2"), ("AUTH PLAIN A===", 501, "5.5.2"), ("AUTH PLAIN ====", 501, "5.5.2"),
    ("AUTH PLAIN \xc3\xa9\xc3\xa9", 501, "5.5.2"), ("AUTH PLAIN AGFsaWNlAHB=", 501, "5.5.2"), ("AUTH LOGIN !!!!", 501, "5.5.2"),
    ("AUTH PLAIN AGFs-WNl", 501, "5.5.2"), ("AUTH PLAIN AGFs_WNl", 501, "5.5.2"), ("AUTH PLAIN *", 501, None),
])
def test_refused_at_once(server, line, code, enhanced):
    with ready(server) as c:
        r = c.cmd(line, code)
        assert enhanced in (None, r.enhanced)
        still_fine(c)
        c.cmd("AUTH PLAIN " + GOOD, 235)


@pytest.mark.parametrize("lines", [["AUTH PLAIN"], ["AUTH LOGIN"], ["AUTH LOGIN", b64("alice")], ["AUTH LOGIN " + b64("alice")]])
@pytest.mark.parametrize("answer,code", [("*", 501), ("!!!!", 501), ("abc", 501), ("a=bc", 501), ("AAA", 501), ("QUI", 501),
                                         (" ", 501), ("YWxpY2U= ", 501), (" YWxpY2U=", 501), ("A" * 12289, 500)], ids=lambda x: str(x)[:9])
def test_refused_in_the_exchange(server, lines, answer, code):
    """A client may cancel with `*`; what is not base64 ends the exchange; neither ends the session."""
    with ready(server) as c:
        for line in lines:
            c.cmd(line, 334)
        r = c.cmd(answer, code)
        if code == 500:
            assert r.enhanced == "5.5.6"
        elif answer != "*":
            assert r.enhanced == "5.5.2"
        still_fine(c)
        c.cmd("AUTH PLAIN " + GOOD, 235)


def test_empty_initial_response(server):
    """`=` is an empty initial response: nothing PLAIN could use, and for LOGIN an empty name."""
    with ready(server) as c:
        c.cmd("AUTH PLAIN =", (501, 535))
        still_fine(c)
        r = c.cmd("AUTH LOGIN =")
        if r == 334:
            r = c.cmd(b64("x"))
        assert r.code in (501, 535)
        still_fine(c)


NO_LOGIN = [b"", b"alice", b"alice\0wonder land", b"\0alice", b"\0alice\0", b"\0\0wonder land", b"\0\0", b"\0alice\0wonder land\0",
            b"\0alice\0wonder\0land", b"alice\0\0wonder land", b"bob\0alice\0wonder land", b"\0al\x01ice\0x", b"\0alice\n\0x",
            b"\0" + b"u" * 254 + b"\0x", b"\0alice\x7f\0x", b"\0alice\0" + b"p" * 129, b"\0alice\0" + b"p" * 2000, b"\0" + b"u" * 9000 + b"\0x",
            # Names are UTF-8.
            b"\0al\xffice\0x", b"\0\xc3\0x", b"\0\xed\xa0\x80\0x", b"\0\xc0\xaf\0x"]
NO_LOGIN_EITHER = [("", "x"), ("alice", ""), ("al\0ice", "x"), ("alice", "wonder\0land"), ("u" * 254, "x"), ("alice", "p" * 129)]


@pytest.fixture(scope="module")
def refusals(shared_server):
    def plain(message):
        with ready(shared_server) as c:
            c.cmd("AUTH PLAIN", 334)
            r = c.cmd(b64(message), (501, 535))
            still_fine(c)
            return r, c.source

    def login(user, password):
        with ready(shared_server) as c:
            c.cmd("AUTH LOGIN", 334)
            r = c.cmd(b64(user))
            if r == 334:
                r = c.cmd(b64(password))
            still_fine(c)
            return r, c.source
    return tools.Crowd({**{m: lambda m=m: plain(m) for m in NO_LOGIN}, **{p: lambda p=p: login(*p) for p in NO_LOGIN_EITHER}})


@pytest.mark.parametrize("message", NO_LOGIN + NO_LOGIN_EITHER, ids=lambda m: repr(m)[:40])
def test_no_login(refusals, freeradius, message):
    """Malformed, empty, over-long, with NUL, or on behalf of somebody else: 501 or 535, and RADIUS is never asked."""
    r, source = refusals[message]
    assert (r.code, r.enhanced) in ((501, "5.5.2"), (535, "5.7.8"))
    assert freeradius.requests(calling=source) == []


@pytest.mark.parametrize("length,code", [(12288, (501, 535)), (12289, 500), (12292, 500), (100000, 500)])
def test_exchange_lines(server, length, code):
    """12288 octets must be taken (RFC 4954 section 4); more get 500 5.5.6 and are skipped as a whole."""
    with ready(server) as c:
        c.cmd("AUTH PLAIN", 334)
        c.send(b"A" * length + b"\r\n")
        r = c.reply(code)
        if code == 500:
            assert r.enhanced == "5.5.6"
        still_fine(c)


def test_twice(server):
    with ready(server) as c:
        c.cmd("AUTH PLAIN " + GOOD, 235)
        assert c.cmd("AUTH PLAIN " + GOOD, 503).enhanced == "5.5.1"
        assert c.cmd("AUTH LOGIN", 503).enhanced == "5.5.1"
        c.mail()


def test_in_a_transaction(server):
    with ready(server, "smtp", tls=True) as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        c.cmd("AUTH PLAIN " + GOOD, 503)
        c.cmd("RCPT TO:<you@local.example>", 250)
        c.cmd("AUTH PLAIN " + GOOD, 503)
        c.cmd("RSET", 250)
        c.cmd("AUTH PLAIN " + GOOD, 235)


@pytest.mark.parametrize("profile", ["submission", "smtp"])
@pytest.mark.parametrize("line", ["AUTH PLAIN " + GOOD, "AUTH PLAIN", "AUTH LOGIN", "AUTH FOO", "AUTH"])
def test_before_tls(server, freeradius, profile, line):
    """No password may cross in the clear: refused before it is even read, and never 334."""
    with ready(server, profile, tls=False) as c:
        r = c.cmd(line, (501, 502, 503, 504, 530, 538) if line == "AUTH" else (502, 503, 504, 530, 538))
        assert r.enhanced and r.enhanced[0] == "5"
        c.cmd("NOOP", 250)
    assert not freeradius.requests(c.source)


def test_before_ehlo(server):
    with server.connect("submissions") as c:
        c.cmd("AUTH PLAIN " + GOOD, (503, 502))


@pytest.mark.parametrize("profile", ["inside", "printer"])
def test_not_inside(server, profile):
    with ready(server, profile) as c:
        assert "AUTH" not in c.keywords
        c.cmd("AUTH PLAIN " + GOOD, (502, 503, 504))


def test_bare_line_end_in_the_exchange(server, freeradius):
    with ready(server) as c:
        c.cmd("AUTH PLAIN", 334)
        c.send(GOOD + "\nNOOP\r\n")
        c.reply((500, 501, 550))
        assert b"235" not in c.rest() if c.sock.fileno() != -1 else True
    assert not freeradius.requests(c.source)


# ---- Refusals, and what guessing costs -------------------------------------------------------------------------------

def test_wrong_password(server):
    """535 5.7.8, after about a second; and in the log, with all that fail2ban needs."""
    with ready(server) as c:
        begin = time.monotonic()
        assert c.auth_plain("alice", "wrong", 535).enhanced == "5.7.8"
        assert 0.9 < time.monotonic() - begin < 5
        still_fine(c)
        c.auth_login("alice", "wonder land")
    event = server.log("auth", client=c.source)[0]
    assert event["result"] == "reject" and event["user"] == "alice" and event["mech"] == "PLAIN"
    assert "wrong" not in server.tail(100000)


def delay_doubles(server):
    source = tools.fresh_address()
    waits = []
    for _ in range(2):
        with ready(server, source=source) as c:
            begin = time.monotonic()
            c.auth_plain("alice", "wrong", 535)
            waits.append(time.monotonic() - begin)
    assert 0.9 < waits[0] < 1.8 < waits[1] < 6
    with ready(server) as c:
        begin = time.monotonic()
        c.auth_plain("alice", "wrong", 535)
        assert time.monotonic() - begin < 1.9
    # A good login is never slowed, and forgives.
    with ready(server, source=source) as c:
        begin = time.monotonic()
        c.auth_plain("alice", "wonder land")
        assert time.monotonic() - begin < 0.9
    with ready(server, source=source) as c:
        begin = time.monotonic()
        c.auth_plain("alice", "wrong", 535)
        assert time.monotonic() - begin < 1.9


def three_tries(server):
    with ready(server) as c:
        for _ in range(3):
            c.auth_plain("alice", "wrong", 535)
        assert c.auth_plain("alice", "wonder land", 421).enhanced == "4.7.0"
        c.closed()
    assert "user" not in server.gone(c)
    assert len(server.log("auth", client=c.source)) == 3


def quiet_log(server):
    secrets = ["pass-in-plain-7", "pass-in-login-7"]
    with ready(server) as c:
        c.auth_plain("alice", secrets[0], 535)
        c.auth_login("alice", secrets[1], 535)
    server.gone(c)
    log = tools.read(server.logfile).decode()
    for secret in secrets:
        for form in (secret, b64(secret), b64("\0alice\0" + secret)):
            assert form not in log


@pytest.fixture(scope="module", autouse=True)
def guesses(shared_server):
    """These wait for seconds; begun first, they do it beside the other tests."""
    return tools.Crowd({f: lambda f=f: f(shared_server) for f in (delay_doubles, three_tries, quiet_log)})


def test_delay_doubles_for_an_address(guesses):
    """Also over sessions; another address is not slowed."""
    assert guesses[delay_doubles] is None


def test_three_tries(guesses):
    """RFC 4954: not fewer than three; then the end."""
    assert guesses[three_tries] is None


def test_passwords_stay_out_of_the_log(guesses):
    assert guesses[quiet_log] is None


def test_name_cannot_forge_a_log_line(server):
    name = 'x result=accept user=alice"\\'
    with ready(server) as c:
        c.auth_plain(name, "wrong", 535)
    (event,) = server.log("auth", client=c.source)
    assert event["result"] == "reject" and event["user"] == name


@pytest.mark.parametrize("value", ["<>", "someone@client.example", "e+3Dmc2@client.example"])
def test_auth_parameter_of_mail(server, value):
    """Offering AUTH obliges to read MAIL's AUTH=, also of those who are not logged in (RFC 4954 section 5)."""
    with server.session("smtp", tls=True) as c:
        c.envelope(rcpts=["you@local.example"], params=" AUTH=" + value)
        m = server.message(c.data(smtpc.MESSAGE))
        assert m.sender == b"me@client.example" and "alice" not in m.received
    with server.session("submissions") as c:
        c.mail(params=" AUTH=" + value + " SIZE=1000")


def test_long_auth_parameter(server):
    """It adds 500 octets to MAIL's limit."""
    with server.session("submissions") as c:
        c.mail(params=" AUTH=" + "a" * 490)


def test_password_lengths(server):
    """1 to 128 octets, at the edges of RADIUS's blocks (RFC 2865 5.2) and of radcli's own buffer."""
    for n in (1, 16, 17, 112, 113, 128):
        with ready(server) as c:
            c.auth_plain("len%d" % n, radius.PASSWORD["len%d" % n])
    with ready(server) as c:
        # The right 112 octets with something after them are not the password.
        c.auth_plain("len112", radius.PASSWORD["len112"] + "z", 535)
