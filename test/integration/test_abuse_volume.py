# SPDX-License-Identifier: MIT
"""
Too much of everything on one connection: commands, recipients, chunks, lines without an end. Each gets the answer it should, session after
session stays as small as it began, and customers do not notice.
"""

import pytest

import harness
import tools
from abuse import Attacker, Watch

pytestmark = pytest.mark.release

MANY = 1000000 if tools.LONG else 100000
SOME = MANY // 10
EHLO, MAIL, RCPT = "EHLO x\r\n", "MAIL FROM:<me@client.example>\r\n", "RCPT TO:<you@local.example>\r\n"
READY = [EHLO, MAIL, RCPT]
QUIT = "QUIT\r\n"

# name: (profile, what is said first, what again and again, how often, what last, the replies)
VOLUME = {
    # What may be said without end: as many replies as commands.
    "NOOP": ("smtp", [EHLO], "NOOP\r\n", MANY, QUIT, {"250": MANY + 1, "221": 1}),
    "RSET": ("smtp", [EHLO], "RSET\r\n", MANY, QUIT, {"250": MANY + 1, "221": 1}),
    "EHLO": ("smtp", [], EHLO, SOME, QUIT, {"250": SOME, "221": 1}),
    "VRFY": ("smtp", [EHLO], "VRFY x\r\n", SOME, QUIT, {"250": 1, "252": SOME, "221": 1}),
    "MAIL, RSET": ("smtp", [EHLO], MAIL + "RSET\r\n", SOME, QUIT, {"250": 2 * SOME + 1, "221": 1}),
    "MAIL, RCPT, EHLO": ("smtp", [EHLO], MAIL + RCPT + EHLO, SOME, QUIT, {"250": 3 * SOME + 1, "221": 1}),
    "NOOP under TLS": ("submissions", [EHLO], "NOOP\r\n", MANY, QUIT, {"250": MANY + 1, "221": 1}),
    "MAIL without login": ("submissions", [EHLO], MAIL, 400, QUIT, {"250": 1, "530": 100, "421": 1}),
    # What is wrong is cut off, whatever is on its way behind it.
    "unknown": ("smtp", [EHLO], "FOO\r\n", MANY, QUIT, {"250": 1, "500": 20, "421": 1}),
    "empty lines": ("smtp", [EHLO], "\r\n", MANY, QUIT, {"250": 1, "500": 20, "421": 1}),
    "malformed": ("smtp", [EHLO], "MAIL FROM:<x\r\n", MANY, QUIT, {"250": 1, "501": 20, "421": 1}),
    "out of order": ("smtp", [EHLO], RCPT, MANY, QUIT, {"250": 1, "503": 20, "421": 1}),
    "long lines": ("smtp", [EHLO], "NOOP " + "x" * 3000 + "\r\n", SOME, QUIT, {"250": 1, "500": 20, "421": 1}),
    "relaying": ("smtp", [EHLO, MAIL], "RCPT TO:<you@far.example>\r\n", MANY, QUIT, {"250": 2, "550": 100, "421": 1}),
    "bare LF": ("smtp", [EHLO], "NOOP\n", MANY, QUIT, {"250": 1, "550": 1}),
    "STARTTLS": ("smtp", [EHLO], "STARTTLS\r\n", MANY, QUIT, {"250": 1, "554": 1}),
    "QUIT": ("smtp", [EHLO], QUIT, MANY, "", {"250": 1, "221": 1}),
    "AUTH cancelled": ("submissions", [EHLO], "AUTH PLAIN\r\n*\r\n", 400, QUIT, {"250": 1, "334": 20, "501": 20, "421": 1}),
    "AUTH malformed": ("submissions", [EHLO], "AUTH PLAIN !\r\n", 400, QUIT, {"250": 1, "501": 20, "421": 1}),
    "AUTH mechanism": ("submissions", [EHLO], "AUTH FOO\r\n", 400, QUIT, {"250": 1, "504": 20, "421": 1}),
    # Recipients and chunks.
    "recipients": ("inside", [EHLO, MAIL], "RCPT TO:<u@far.example>\r\n", 10000, QUIT, {"250": 1002, "452": 9000, "221": 1}),
    "too big": ("inside", [EHLO], "MAIL FROM:<me@client.example> SIZE=99999999\r\n", SOME, QUIT, {"250": 1, "552": SOME, "221": 1}),
    "no domain": ("inside", [EHLO, MAIL], "RCPT TO:<you>\r\n", SOME, QUIT, {"250": 2, "553": SOME, "221": 1}),
    "BDAT 0": ("inside", READY, "BDAT 0\r\n", MANY, "RSET\r\n" + QUIT, {"250": MANY + 4, "221": 1}),
    "BDAT, RSET": ("inside", [EHLO], MAIL + RCPT + "BDAT 2\r\nabRSET\r\n", SOME // 10, QUIT, {"250": 4 * SOME // 10 + 1, "221": 1}),
    "BDAT 1": ("inside", READY, "BDAT 1\r\nx", SOME, "BDAT 2 LAST\r\n\r\n" + QUIT, {"250": SOME + 4, "221": 1}),
    "BDAT behind a refusal": ("inside", [EHLO], "BDAT 3\r\nabc", SOME, QUIT, {"250": 1, "503": 20, "421": 1}),
    "empty messages": ("inside", [EHLO], MAIL + RCPT + "BDAT 0 LAST\r\n", 100, QUIT, {"250": 301, "221": 1}),
    # Lines that do not end.
    "endless command": ("smtp", [EHLO], "x" * 1024, 20 * 1024, "\r\nNOOP\r\n" + QUIT, {"250": 2, "500": 1, "221": 1}),
    "endless HELO": ("smtp", ["HELO "], "x" * 1024, 5 * 1024, "\r\nNOOP\r\n" + QUIT, {"250": 1, "500": 1, "221": 1}),
    "endless parameter": ("smtp", [EHLO, "MAIL FROM:<me@client.example> SIZE="], "1" * 1024, 5 * 1024, "\r\n" + QUIT, {"250": 1, "500": 1, "221": 1}),
    "endless parameters": ("smtp", [EHLO, "MAIL FROM:<me@client.example>"], " SIZE=1", 100000, "\r\n" + QUIT, {"250": 1, "500": 1, "221": 1}),
    "endless path": ("smtp", [EHLO, "MAIL FROM:<"], "x" * 1024, 5 * 1024, "@client.example>\r\n" + QUIT, {"250": 1, "500": 1, "221": 1}),
    "endless AUTH": ("submissions", [EHLO, "AUTH PLAIN\r\n"], "A" * 1024, 20 * 1024, "\r\n" + QUIT, {"250": 1, "334": 1, "500": 1, "221": 1}),
    "endless header line": ("inside", [*READY, "DATA\r\n"], "x" * 1024, 20 * 1024, "\r\n.\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "endless field": ("inside", [*READY, "DATA\r\nSubject:"], "x" * 1024, 20 * 1024, "\r\n.\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "endless body line": ("inside", [*READY, "DATA\r\n\r\n"], "x" * 1024, 20 * 1024, "\r\n.\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "folded without end": ("inside", [*READY, "DATA\r\nSubject: x\r\n"], " y\r\n", MANY, ".\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "fields without end": ("inside", [*READY, "DATA\r\n"], "A: b\r\n", MANY, ".\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "dots": ("inside", [*READY, "DATA\r\n"], "..\r\n", MANY, ".\r\n" + QUIT, {"250": 4, "354": 1, "221": 1}),
    "hops": ("inside", [*READY, "DATA\r\n"], "Received: x\r\n", MANY, ".\r\n" + QUIT, {"250": 3, "354": 1, "554": 1, "221": 1}),
    "too long by far": ("inside", [*READY, "DATA\r\n"], "x" * 1022 + "\r\n", 70 * 1024, ".\r\nNOOP\r\n" + QUIT,
                        {"250": 4, "354": 1, "552": 1, "221": 1}),
}


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


def test_volume(besieged):
    jobs = {}
    for name, (profile, first, again, times, last, _) in VOLUME.items():
        jobs[name] = {"port": besieged.port[profile], "tls": profile == "submissions", "first": first, "again": again, "times": times, "last": last,
                      "source": tools.fresh_address(harness.RELAY_NET if profile == "inside" else 1)}
    with Watch(besieged, lines=105) as w:
        results = Attacker(mode="streams", jobs=jobs).leave()["results"]
    for name, job in VOLUME.items():
        codes = results[name]["codes"]
        # Who still speaks when the server has closed may get a reset.
        ends = [codes.pop(word) for word in ("end", "ConnectionResetError", "BrokenPipeError") if word in codes]
        assert ends == [1] and codes == {"220": 1, **job[5]}, (name, results[name])
    accepted = [m for m in w.messages if m.rcpts == [b"you@local.example"]]
    assert len(accepted) == len(w.messages) == 107


SIZES = ["18446744073709551616", "18446744073709551617", "36893488147419103232", "9223372036854775808", "-1", "-0", "+1", "0x2", "1e1", "1.0", "",
         " ", "2  LAST", "2\tLAST", "2 LAST LAST", "2 LAS", "2LAST", "LAST", "2 2", "4294967296LAST", "\xb2", "2,0"]


@pytest.mark.parametrize("phase", ["start", "mail", "rcpt", "between"])
def test_sizes_nobody_can_read(besieged, phase):
    """How much follows is anybody's guess, so the session ends: nothing behind it is taken for a command."""
    for size in SIZES:
        with besieged.session("smtp") as c:
            if phase != "start":
                c.cmd("MAIL FROM:<me@client.example>", 250)
            if phase in ("rcpt", "between"):
                c.cmd("RCPT TO:<you@local.example>", 250)
            if phase == "between":
                c.cmd("BDAT 0", 250)
            c.send(b"BDAT " + size.encode("latin-1") + b"\r\nNOOP\r\nNOOP\r\nBDAT 0 LAST\r\n")
            c.reply(501)
            c.closed()
    besieged.assert_nothing()


@pytest.mark.parametrize("size", [1 << 31, (1 << 31) - 1, 1 << 32, (1 << 32) + 5, (1 << 63) - 1])
@pytest.mark.parametrize("phase", ["start", "rcpt"])
def test_huge_chunks(besieged, size, phase):
    """A size that would wrap somewhere is believed: what follows is part of the chunk, and not a message until it is all there."""
    with besieged.session("smtp") as c:
        if phase == "rcpt":
            c.envelope(rcpts=["you@local.example"])
        c.send(b"BDAT %d LAST\r\n" % size + b"NOOP\r\n" * 1000 + b".\r\nMAIL FROM:<evil@client.example>\r\nQUIT\r\n")
        c.silent()
        c.half_close()
        assert c.rest() == b""
    assert besieged.gone(c)["why"] == "eof"
    besieged.assert_nothing()
