# SPDX-License-Identifier: MIT
"""CHUNKING (RFC 3030): messages in counted pieces, where no dot means anything."""

import time

import pytest

import smtpc

MESSAGE = smtpc.MESSAGE + b".\r\n..\r\n. dot\r\n"


def ready(server, profile="smtp"):
    c = server.session(profile)
    c.envelope(rcpts=["you@local.example"])
    return c


def chunk(data, last=False):
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


@pytest.mark.parametrize("profile", ["smtp", "submissions", "inside"])
@pytest.mark.parametrize("size", [1, 2, 7, 100, 100000])
def test_chunks(server, profile, size):
    with ready(server, profile) as c:
        pieces = [MESSAGE[i:i + size] for i in range(0, len(MESSAGE), size)]
        c.send(b"".join(chunk(p, i == len(pieces) - 1) for i, p in enumerate(pieces)))
        for _ in pieces[:-1]:
            c.reply(250)
        m = server.message(c.reply(250))
    assert m.body == MESSAGE.replace(b"\r\n", b"\n")


def test_empty_last_chunk(server):
    with ready(server) as c:
        c.send(chunk(MESSAGE))
        c.reply(250)
        c.cmd("BDAT 0", 250)
        m = server.message(c.cmd("BDAT 0 LAST", 250))
        assert m.body == MESSAGE.replace(b"\r\n", b"\n")


def test_an_empty_message(server):
    with ready(server) as c:
        assert server.message(c.cmd("BDAT 0 LAST", 250)).body == b""


def test_last_line_gets_its_end(server):
    """A queue message must end with LF; a chunk need not."""
    with ready(server) as c:
        c.send(chunk(b"Subject: x\r\n\r\nno end", True))
        assert server.message(c.reply(250)).body == b"Subject: x\n\nno end\n"


def test_slowly(server):
    with ready(server) as c:
        for byte in chunk(b"Subject: x\r\n\r\n\r\n.\r\n", True):
            c.send(bytes([byte]))
        assert server.message(c.reply(250)).body == b"Subject: x\n\n\n.\n"


def test_pipelined_transactions(server):
    with server.session("smtp") as c:
        one = b"MAIL FROM:<me@client.example>\r\nRCPT TO:<you@local.example>\r\n" + chunk(MESSAGE, True)
        c.send(one * 3 + b"QUIT\r\n")
        assert [c.reply().code for _ in range(10)] == [250, 250, 250] * 3 + [221]
        c.closed()
    assert len(server.take()) == 3


@pytest.mark.parametrize("before", [[], ["MAIL FROM:<me@client.example>"],
                                    ["MAIL FROM:<me@client.example>", "RCPT TO:<you@far.example>"]])
def test_chunk_out_of_order_is_read_and_refused(server, before):
    """The octets are consumed, so that none of them is taken for a command (RFC 3030 section 2)."""
    with server.session("smtp") as c:
        for line in before:
            c.cmd(line)
        c.send(chunk(b"NOOP\r\nNOOP\r\n", True) + b"RSET\r\n")
        c.reply((503, 554))
        c.reply(250)
        c.silent()
    server.assert_nothing()


@pytest.mark.parametrize("line,code", [
    ("DATA", 503), ("MAIL FROM:<me@client.example>", 503), ("RCPT TO:<you@local.example>", 503), ("NOOP", 250), ("RSET", 250),
    ("EHLO x", 250), ("BDAT x", 501), ("FOO", (500, 502)),
])
def test_other_commands_between_chunks(server, line, code):
    with ready(server) as c:
        c.send(chunk(b"Subject: x\r\n"))
        c.reply(250)
        c.cmd(line, code)
        if line in ("RSET", "EHLO x"):
            c.cmd("BDAT 0 LAST", 503)
            server.assert_nothing()
        elif line in ("NOOP", "FOO"):
            c.send(chunk(b"\r\nx\r\n", True))
            assert server.message(c.reply(250)).body == b"Subject: x\n\nx\n"
    server.gone(c)
    server.take()


def test_no_bdat_after_data(server):
    with ready(server) as c:
        c.data(smtpc.MESSAGE)
        c.cmd("BDAT 0 LAST", 503)


@pytest.mark.parametrize("bad", [b"x\ny\r\n", b"x\ry\r\n", b"x\0y\r\n", b"x\r\r\n", b"x\r"])
def test_bare_line_ends(server, bad):
    """BINARYMIME is not offered: chunks hold text with CRLF."""
    with ready(server) as c:
        c.send(chunk(b"Subject: x\r\n\r\n" + bad, True))
        r = c.reply()
        assert r == 550 and r.enhanced == "5.5.2"
        c.closed()
    server.assert_nothing()


def test_line_end_over_two_chunks(server):
    with ready(server) as c:
        c.send(chunk(b"Subject: x\r") + chunk(b"\n\r\nx\r") + chunk(b"\n", True))
        c.reply(250)
        c.reply(250)
        assert server.message(c.reply(250)).body == b"Subject: x\n\nx\n"


def test_too_big(make_server):
    """552 once, for the chunk that went over; later chunks are read and refused; the session goes on."""
    server = make_server(control={"databytes": "1000\n"})
    with ready(server) as c:
        c.send(chunk(b"x" * 900) + chunk(b"y" * 900) + chunk(b"z" * 10) + chunk(b"NOOP\r\n", True) + b"RSET\r\n")
        c.reply(250)
        codes = [c.reply().code for _ in range(3)]
        assert codes[0] == 552 and all(code in (552, 503) for code in codes[1:])
        c.reply(250)
        server.assert_nothing()
        c.mail(rcpts=["you@local.example"])


def test_huge_chunk_is_refused_before_it_is_stored(make_server):
    server = make_server(control={"databytes": "1000\n"})
    with ready(server) as c:
        c.send(b"BDAT 4000000 LAST\r\n")
        data = b"q" * 100000
        for _ in range(40):
            c.send(data)
        c.reply(552)
        server.assert_nothing()
        c.cmd("NOOP", 250)


def test_no_limit_on_chunk_number(server):
    with ready(server) as c:
        c.send(chunk(b"a\r\n") * 3000 + b"BDAT 0 LAST\r\n")
        for _ in range(3000):
            c.reply(250)
        assert server.message(c.reply(250)).body == b"a\n" * 3000


def test_qmail_32_abort_between_chunks(server):
    c = ready(server)
    c.send(chunk(smtpc.MESSAGE))
    c.reply(250)
    time.sleep(0.05)
    c.close()
    server.gone(c)
    server.assert_nothing()
