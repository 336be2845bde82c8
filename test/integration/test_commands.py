# SPDX-License-Identifier: MIT
"""Commands, their order and their replies, octet by octet (RFC 5321, 6409, 1870, 2034, 2920, 6152, 6531)."""

import re

import pytest

import smtpc
import tools

PROFILES = ["submission", "submissions", "smtp", "inside", "printer"]
every_profile = pytest.mark.parametrize("profile", PROFILES)


@every_profile
def test_greeting(server, profile):
    with server.connect(profile) as c:
        assert re.fullmatch(rb"220 mail\.example\.net ESMTP[^\r\n]*\r\n", c.greeting.raw)


@every_profile
def test_keywords(server, profile):
    """The submission column of RFC 6409 section 7: no ETRN; and AUTH only where a password is safe."""
    with server.session(profile, login=None, tls=False) as c:
        before = c.keywords
        assert {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE", "SMTPUTF8", "CHUNKING"} <= set(before)
        assert before["SIZE"] == ["52428800"]
        assert not {"ETRN", "ATRN", "BINARYMIME", "VRFY", "EXPN"} & set(before)
        assert not any(k.startswith("AUTH=") for k in before)
        assert ("AUTH" in before) == (profile == "submissions")
        if profile in ("submission", "smtp"):
            assert "STARTTLS" in before
            c.starttls()
            c.keywords = c.ehlo()
        assert profile not in ("submission", "submissions", "smtp") or "STARTTLS" not in c.keywords
        if profile in ("submission", "submissions", "smtp"):
            assert sorted(c.keywords["AUTH"]) == ["LOGIN", "PLAIN"]


def test_ehlo_first_line_names_the_server(server):
    with server.connect("smtp") as c:
        assert c.cmd("EHLO x", 250).lines[0].split()[0] == "mail.example.net"


def test_helo(server):
    with server.connect("smtp") as c:
        r = c.cmd("HELO client.example", 250)
        assert len(r.lines) == 1 and r.lines[0].split()[0] == "mail.example.net"
        m = server.message(c.mail(rcpts=["you@local.example"]))
        assert " with SMTP id %d; " % m.id in m.received


@pytest.mark.parametrize("line", [
    "EHLO", "EHLO ", "HELO", "EHLO a b", "EHLO a\x01b", "EHLO " + "a" * 256, "HELO a\x7f", "NOOP\x00", "RSET x",
    "DATA x", "MAIL", "MAIL FROM", "MAIL FROM:", "MAIL <me@client.example>", "MAIL FROM <me@client.example>",
    "MAIL TO:<me@client.example>", "RCPT", "RCPT TO", "RCPT FROM:<you@local.example>", "VRFY", "BDAT", "BDAT x",
    "BDAT -1", "BDAT 1 FIRST", "BDAT 1 LAST LAST", "BDAT 99999999999999999999", "BDAT 0x10", "BDAT 1LAST",
])
def test_bad_arguments(server, line):
    """501 (or a near relation), and the session goes on."""
    with server.session("smtp") as c:
        if line.startswith(("RCPT", "BDAT", "DATA")):
            c.cmd("MAIL FROM:<me@client.example>", 250)
        if line.startswith(("BDAT", "DATA")):
            c.cmd("RCPT TO:<you@local.example>", 250)
        if "\0" in line:
            c.cmd(line, (500, 501, 550))
            return
        r = c.cmd(line, 501)
        assert r.enhanced and r.enhanced.startswith(("5.5.", "5.1."))
        if not line.startswith("BDAT"):  # how much data follows is unknown, so the server may close
            c.cmd("NOOP", 250)


@pytest.mark.parametrize("line", [
    "FOO", "EXPN all", "ETRN x", "TURN", "ATRN", "SEND FROM:<a@b.example>", "SOML", "SAML", "XCLIENT ADDR=1.2.3.4", "BURL x",
    "", " ", " NOOP", "MAILFROM:<me@client.example>", "RCPTTO:<x@local.example>", "\x80\x81", "HELLO x", "NOOPX", "GET / HTTP/1.0",
])
def test_unknown_commands(server, line):
    with server.session("smtp") as c:
        r = c.cmd(line.encode("latin-1"), (500, 502))
        assert r.enhanced in ("5.5.1", "5.5.2")
        c.cmd("NOOP", 250)


@pytest.mark.parametrize("line,code", [
    ("NOOP", 250), ("noop", 250), ("NoOp with an argument", 250), ("RSET", 250), ("VRFY someone", 252),
    ("HELP", (214, 502)), ("RSET ", 250), ("NOOP \t ", 250), ("ehlo client.example", 250),
])
def test_harmless_commands(server, line, code):
    with server.session("smtp") as c:
        c.cmd(line, code)
        c.cmd("NOOP", 250)


@every_profile
def test_quit(server, profile):
    with server.connect(profile) as c:
        c.quit()
        event = server.gone(c)
        assert event["why"] == "quit" and event["msgs"] == "0"


@pytest.mark.parametrize("lines", [
    ["MAIL FROM:<me@client.example>"],                                                    # before EHLO
    ["EHLO x", "RCPT TO:<you@local.example>"],
    ["EHLO x", "DATA"],
    ["EHLO x", "BDAT 0 LAST"],
    ["EHLO x", "MAIL FROM:<me@client.example>", "MAIL FROM:<me@client.example>"],
    ["EHLO x", "MAIL FROM:<me@client.example>", "DATA"],
    ["EHLO x", "MAIL FROM:<me@client.example>", "RCPT TO:<you@far.example>", "DATA"],       # the only one is refused
    ["EHLO x", "MAIL FROM:<me@client.example>", "RCPT TO:<you@local.example>", "EHLO x", "DATA"],
    ["EHLO x", "MAIL FROM:<me@client.example>", "RCPT TO:<you@local.example>", "RSET", "RCPT TO:<you@local.example>"],
    ["EHLO x", "MAIL FROM:<me@client.example>", "RCPT TO:<you@local.example>", "HELO x", "DATA"],
])
def test_wrong_order(server, lines):
    with server.connect("smtp") as c:
        for line in lines[:-1]:
            c.cmd(line)
        c.cmd(lines[-1], (503, 554) if lines[-1] == "DATA" else 503)
        c.cmd("NOOP", 250)
    server.assert_nothing()


@pytest.mark.parametrize("line,codes", [
    ("MAIL FROM:<me@client.example>", 530),
    # What makes no sense without MAIL may say so instead.
    ("RCPT TO:<you@local.example>", (503, 530)), ("DATA", (503, 530)), ("BDAT 0 LAST", (503, 530)),
    ("VRFY x", (252, 530)), ("EXPN x", (502, 530)),
])
@pytest.mark.parametrize("profile", ["submission", "submissions"])
def test_login_comes_first(server, profile, line, codes):
    """RFC 6409 section 4.3, RFC 4954 section 6."""
    with server.session(profile, login=None) as c:
        r = c.cmd(line, codes)
        assert r != 530 or r.enhanced == "5.7.0"
        for fine in ("NOOP", "RSET", "EHLO x", "HELO x"):
            c.cmd(fine, 250)
        c.quit()


def test_tls_comes_before_mail_on_587(server):
    with server.session("submission", login=None, tls=False) as c:
        assert c.cmd("MAIL FROM:<me@client.example>", 530).enhanced == "5.7.0"
        assert c.cmd("AUTH PLAIN " + smtpc.b64("\0alice\0wonder land"), (503, 504, 530, 538)).code != 235


# ---- MAIL and RCPT ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line,sender", [
    ("MAIL FROM:<me@client.example>", "me@client.example"),
    ("mail from:<me@client.example>", "me@client.example"),
    ("MAIL FROM: <me@client.example>", "me@client.example"),        # RFC 5321 forbids the space; many send it
    ("MAIL FROM:me@client.example", "me@client.example"),
    ("MAIL FROM:<>", ""),
    ("MAIL FROM:<Me.And-You+x@Client.Example>", "Me.And-You+x@Client.Example"),
    ("MAIL FROM:<!#$%&'*+-/=?^_`{|}~@client.example>", "!#$%&'*+-/=?^_`{|}~@client.example"),
    ('MAIL FROM:<"a b\\"c"@client.example>', 'a b"c@client.example'),
    ('MAIL FROM:<"a@b"@client.example>', "a@b@client.example"),
    ("MAIL FROM:<@a.example,@b.example:me@client.example>", "me@client.example"),
    ("MAIL FROM:<me@[127.0.0.1]>", "me@[127.0.0.1]"),
    ("MAIL FROM:<me@[IPv6:::1]>", "me@[IPv6:::1]"),
    ("MAIL FROM:<me@client.example> SIZE=100", "me@client.example"),
    ("MAIL FROM:<me@client.example> size=100 body=8bitmime", "me@client.example"),
    ("MAIL FROM:<me@client.example> BODY=7BIT", "me@client.example"),
    ("MAIL FROM:<me@client.example> SMTPUTF8", "me@client.example"),
    ("MAIL FROM:<me@client.example> AUTH=<>", "me@client.example"),
    ("MAIL FROM:<me@client.example> AUTH=me+2Bx@client.example", "me@client.example"),
    ("MAIL FROM:<me@client.example>  SIZE=5", "me@client.example"),
    ("MAIL FROM:<me@client.example> SIZE=0", "me@client.example"),
    ("MAIL FROM:<jürgen@client.example> SMTPUTF8", "jürgen@client.example"),
    ("MAIL FROM:<me@münchen.example> SMTPUTF8 BODY=8BITMIME", "me@münchen.example"),
    ("MAIL FROM:<%s@client.example>" % ("a" * 64), "a" * 64 + "@client.example"),
    ("MAIL FROM:<a@%s.example>" % ".".join(["b" * 60] * 4)[:240], "a@" + ".".join(["b" * 60] * 4)[:240] + ".example"),
])
def test_senders(server, line, sender):
    with server.session("inside") as c:
        c.cmd(line.encode(), 250)
        c.cmd("RCPT TO:<you@far.example>", 250)
        m = server.message(c.data(smtpc.MESSAGE))
        assert m.sender == sender.encode()


@pytest.mark.parametrize("line,code", [
    ("MAIL FROM:<me@client.example", (501, 553)),
    ("MAIL FROM:me@client.example>", (501, 553)),
    ("MAIL FROM:<me@@client.example>", (501, 553)),
    ("MAIL FROM:<@client.example>", (501, 553)),
    ("MAIL FROM:<me@>", (501, 553)),
    ("MAIL FROM:<me@-client.example>", (501, 553)),
    ("MAIL FROM:<me@client..example>", (501, 553)),
    ("MAIL FROM:<me@client.example.>", (501, 553)),
    ("MAIL FROM:<me you@client.example>", (501, 553)),
    ("MAIL FROM:<me(comment)@client.example>", (501, 553)),
    ('MAIL FROM:<"me@client.example>', (501, 553)),
    ('MAIL FROM:<"me\\"@client.example>', (501, 553)),
    ("MAIL FROM:<me\x01@client.example>", (501, 553)),
    ("MAIL FROM:<me\x7f@client.example>", (501, 553)),
    ('MAIL FROM:<"me\x09"@client.example>', (501, 553)),
    ("MAIL FROM:<%s@client.example>" % ("a" * 65), (501, 553)),
    ("MAIL FROM:<a@%s.example>" % ".".join(["b" * 60] * 5), (501, 553)),
    ("MAIL FROM:<me@client.example>SIZE=5", (501, 555)),
    ("MAIL FROM:<me@client.example> SIZE=", (501, 555)),
    ("MAIL FROM:<me@client.example> SIZE=x", (501, 555)),
    ("MAIL FROM:<me@client.example> SIZE=-1", (501, 555)),
    ("MAIL FROM:<me@client.example> SIZE=123456789012345678901", (501, 552)),
    ("MAIL FROM:<me@client.example> BODY=BINARYMIME", (501, 555)),
    ("MAIL FROM:<me@client.example> BODY=", (501, 555)),
    ("MAIL FROM:<me@client.example> BODY", (501, 555)),
    ("MAIL FROM:<me@client.example> AUTH=", (501, 555)),
    ("MAIL FROM:<me@client.example> AUTH=a+g0", (501, 555)),
    ("MAIL FROM:<me@client.example> SMTPUTF8=1", (501, 555)),
    ("MAIL FROM:<me@client.example> FOO=bar", 555),
    ("MAIL FROM:<me@client.example> RET=HDRS", 555),                  # DSN is not offered
    ("MAIL FROM:<me@client.example> SIZE=52428801", 552),
    ("MAIL FROM:<jürgen@client.example>", (501, 550, 553)),
])
def test_bad_senders(server, line, code):
    with server.session("inside") as c:
        r = c.cmd(line.encode(), code)
        assert r.enhanced and r.enhanced[0] == "5"
        c.cmd("RCPT TO:<you@far.example>", 503)
    server.assert_nothing()


def test_bad_utf8_sender(server):
    with server.session("inside") as c:
        c.cmd(b"MAIL FROM:<j\xfcrgen@client.example> SMTPUTF8", (501, 550, 553))


@pytest.mark.parametrize("text,stored", [
    ("<You@Far.Example>", "You@Far.Example"),
    (" <you@far.example>", "you@far.example"),
    ("<@relay.example:you@far.example>", "you@far.example"),
    ('<"you there"@far.example>', "you there@far.example"),
    ("<you%far.example@else.example>", "you%far.example@else.example"),
    ("<you@[192.0.2.1]>", "you@[192.0.2.1]"),
    ("<Postmaster>", "Postmaster@mail.example.net"),
    ("<postmaster>", "postmaster@mail.example.net"),
    ("<%s@far.example>" % ("u" * 64), "u" * 64 + "@far.example"),
])
def test_recipients(server, text, stored):
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        c.cmd("RCPT TO:" + text, 250)
        assert server.message(c.data(smtpc.MESSAGE)).rcpts == [stored.encode()]


@pytest.mark.parametrize("text,code", [
    ("<>", (501, 550, 553)), ("<you>", (501, 550, 553, 554)), ("<you@>", (501, 553)), ("you far", (501, 553, 555)),
    ("<you@far.example> NOTIFY=NEVER", 555), ("<you@far.example> FOO", 555), ("<you@far.example>x", (501, 555)),
    ("<%s@far.example>" % ("u" * 65), (501, 553)), ("<jürgen@far.example>", (501, 550, 553)), ("<\"\"@far.example\">", (501, 553)),
])
def test_bad_recipients(server, text, code):
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        r = c.cmd(("RCPT TO:" + text).encode(), code)
        assert r.enhanced and r.enhanced[0] == "5"
        c.cmd("RCPT TO:<good@far.example>", 250)
        assert server.message(c.data(smtpc.MESSAGE)).rcpts == [b"good@far.example"]


@pytest.mark.parametrize("line", ["MAIL FROM:<me@host>", "RCPT TO:<you@localhost>"])
def test_domains_must_be_whole(server, line):
    """RFC 6409 section 6.2 asks for 554 on a domain that is not fully qualified."""
    with server.session("submissions") as c:
        if line.startswith("RCPT"):
            c.cmd("MAIL FROM:<me@client.example>", 250)
        c.cmd(line, 554)


def test_path_limits(server):
    """A path is at most 256 octets with its brackets (RFC 5321 4.5.3.1.3)."""
    fits = "a" * 30 + "@" + ".".join(["b" * 54] * 4) + ".cd"
    fits += "e" * (254 - len(fits))
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<%s>" % fits, 250)
        c.cmd("RCPT TO:<%s>" % fits, 250)
        assert c.cmd("RCPT TO:<x%s>" % fits).code in (501, 553)
        m = server.message(c.data(smtpc.MESSAGE))
        assert m.sender == fits.encode() and m.rcpts == [fits.encode()]


# ---- Lines -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("length", [512, 1000])
def test_long_command_lines(server, length):
    with server.session("smtp") as c:
        c.cmd("NOOP " + "x" * (length - 7), 250)


@pytest.mark.parametrize("length", [2100, 5000, 100000])
def test_over_long_command_lines(server, length):
    """500, and the whole line is skipped: none of it is taken for a command."""
    with server.session("smtp") as c:
        c.send("NOOP " + "x" * length + "\r\n")
        c.reply(500)
        c.cmd("NOOP", 250)
        c.send("NOOP " + "NOOP\r\n" * 0 + "RSET " * length + "\r\nNOOP\r\n")
        c.reply(500)
        c.reply(250)
        c.silent()


@pytest.mark.parametrize("raw", [b"NOOP\nNOOP\r\n", b"NOOP\rNOOP\r\n", b"NOOP\r\r\n", b"NO\0OP\r\n", b"\0\r\n", b"\n", b"NOOP\n"])
def test_bare_line_ends_in_commands(server, raw):
    """One reply, an error, and the end: a bare CR or LF is never a line end (RFC 5321 2.3.8)."""
    with server.session("smtp") as c:
        c.send(raw)
        r = c.reply((500, 501, 550))
        if r.code != 501:
            assert r.enhanced in ("5.5.2", "5.5.1")
        rest = c.rest() if r.code == 550 else b""
        assert rest == b""
    event = server.gone(c)
    assert event["msgs"] == "0"


def test_commands_octet_by_octet(server):
    with server.connect("smtp") as c:
        for byte in b"EHLO client.example\r\n":
            c.send(bytes([byte]))
        c.reply(250)
        for byte in b"NOOP\r\n":
            c.send(bytes([byte]))
        c.reply(250)


def test_bad_commands_are_counted(server):
    """The 20th refused command ends the session."""
    with server.session("smtp") as c:
        for _ in range(19):
            c.cmd("FOO", (500, 502))
        c.send("FOO\r\n")
        r = c.reply()
        if r.code != 421:
            c.send("FOO\r\n")
            r = c.reply()
        assert r == 421 and r.enhanced and r.enhanced[0] == "4"
        c.closed()
    assert "bad" in server.gone(c)["why"]


# ---- Pipelining and the ends of connections ----------------------------------------------------------------------------

@pytest.mark.parametrize("profile", ["smtp", "inside"])
def test_pipelining(server, profile):
    with server.connect(profile) as c:
        c.send(b"EHLO client.example\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\n"
               b"RCPT TO:<bad\r\nRCPT TO:<they@sub.sub.example>\r\nDATA\r\n")
        for code in (250, 250, 250, 501, 250, 354):
            c.reply((501, 553) if code == 501 else code)
        c.send(smtpc.MESSAGE + b".\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n")
        for code in (250, 250, 250, 250, 354):
            c.reply(code)
        c.send(smtpc.MESSAGE + b".\r\nQUIT\r\n")
        c.reply(250)
        c.reply(221)
        c.closed()
    first, second = sorted(server.take(), key=lambda m: len(m.sender), reverse=True)
    assert first.rcpts == [b"you@local.example", b"they@sub.sub.example"]
    assert second.sender == b"" and second.rcpts == [b"you@local.example"]


@pytest.mark.parametrize("profile", ["smtp", "submissions"])
def test_data_may_follow_pipelined(server, profile):
    """A client that does not wait for 354 breaks the rules, but nothing is lost or invented."""
    with server.session(profile) as c:
        c.send(b"MAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n" + smtpc.MESSAGE + b".\r\nNOOP\r\n")
        assert [c.reply().code for _ in range(5)] == [250, 250, 354, 250, 250]
    assert server.gone(c)["msgs"] == "1"


@pytest.mark.parametrize("profile", ["smtp", "inside"])
def test_half_closed(server, profile):
    """A client may shut its side down after its last octet and still read all replies."""
    with server.connect(profile) as c:
        c.send(b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n")
        for code in (250, 250, 250, 354):
            c.reply(code)
        c.send(smtpc.MESSAGE + b".\r\nNOOP\r\n")
        c.half_close()
        c.reply(250)
        c.reply(250)
        rest = c.rest()
        assert rest == b"" or rest.startswith(b"421 ")
    assert server.gone(c)["why"] == "eof"
    assert len(server.take()) == 1


ABORTS = {
    "before-ehlo": b"",
    "in-command": b"EHLO x\r\nMAIL FR",
    "after-rcpt": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\n",
    "at-354": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n",
    "in-header": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\nSubject: x",
    "in-body": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n" + smtpc.MESSAGE * 2000,
    "before-dot": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n" + smtpc.MESSAGE + b".",
    "in-end": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nDATA\r\n" + smtpc.MESSAGE + b".\r",
    "in-bdat": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nBDAT 1000\r\nSubject: x\r\n",
    "after-bdat": b"EHLO x\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\nBDAT 5\r\nabc\r\n",
}


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("when", list(ABORTS))
def test_qmail_32_client_abort(server, when, how):
    """Whatever the client had begun, nothing of it stays."""
    c = server.connect("smtp")
    c.send(ABORTS[when])
    if when.startswith(("in-b", "at", "in-h", "before-dot", "in-end", "after-bdat")):
        tools.poll(lambda: any(f.startswith("mess/") for f in server.files()), "the message to be begun")
    getattr(c, how)()
    if how == "half_close":
        c.rest()
        c.close()
    server.gone(c)
    server.assert_nothing()
