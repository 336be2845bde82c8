# SPDX-License-Identifier: MIT
"""
Messages inside messages (CVE-2023-51764 and its kin): every way known to make two servers see the end of data in two places, on each kind
of listener, cut by the network at every octet. What is not an end is refused, or part of the one message; never is there a second one.
"""

import concurrent.futures
import itertools
import random
import ssl
import time

import pytest

import harness
import radius
import smtpc
import tools
from abuse import Watch

pytestmark = pytest.mark.release

# Built of what stands for a line end somewhere: a first one, a dot in some dress, a second one.
LINE_ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\r", b"\0\r\n", b"\r\0\n", b"\r\n\0"]
ENDS = [a + b"." + b for a in LINE_ENDS for b in LINE_ENDS] + [
    # Dots that are stuffed, or are not alone, and what else somebody might take for an end.
    b"\r\n..\r\n", b"\n..\n", b"\r\n..\n", b"\r\n.\r\n.\r", b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n .\r\n", b"\r\n.\x0b\r\n", b"\r\n.\x1a\r\n",
    b"\r\n.\xc2\x85", b"\r\n.\xe2\x80\xa8", b"\x85.\x85", b"\x0b.\x0b", b"\x0c.\x0c", b"\r\n\x1a\r\n", b"\x04", b"\r\n.\\r\\n", b"=0D=0A.=0D=0A",
    b"\r\n.\0\r\n", b"\0.\0", b"\n\n.\n\n", b"\n\r.\n\r", b"\r\n\x00.\r\n", b"\n.\r", b"\r.\n", b"\r\n\n.\r\n", b"\r\n.\n\r\n", b"\r\n.\r\r\r\n"]
ENDS = sorted(set(ENDS))
# Those that were used in the wild, and their nearest relations, are tried at each cut; the others only in the long form.
KNOWN = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n", b"\r\r\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
         b"\r\n..\r\n", b"\r\n.\r\n"]
SMUGGLED = b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<v%d@local.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\nQUIT\r\n"
CARRIER = b"Subject: carrier\r\nDate: x\r\nMessage-ID: x\r\n\r\nx"

number = itertools.count(1)


def judge(data, lenient, dots=True):
    """(refused, end): what must become of `data`, by RFC 5321 2.3.8 and 4.1.1.4; `end` is what the message is, None when it has no end."""
    end = data
    if dots:
        at = 0 if data.startswith(b".\r\n") else data.find(b"\r\n.\r\n") + 2
        end = data[:at] if at > 1 or data.startswith(b".\r\n") else None
    text = data if end is None else end
    left = text.replace(b"\r\n", b"")
    return b"\r" in left or b"\0" in left or (b"\n" in left and not lenient), end


class Case:
    """One try: `data` behind DATA, sent in the pieces that `cuts` makes; then SMUGGLED has been said, too."""

    def __init__(self, server, profile, end, cuts, chunked=False, starttls=False):
        self.server, self.profile, self.cuts, self.chunked, self.starttls = server, profile, cuts, chunked, starttls
        self.number = next(number)
        self.smuggled = SMUGGLED % self.number
        self.data = CARRIER + end + self.smuggled
        self.name = (profile, end, cuts, chunked, starttls)

    def session(self):
        c = self.server.session(self.profile, login=None, tls=self.starttls or None)
        if self.profile == "submissions":
            c.auth_plain("alice", radius.PASSWORD["alice"])
        return c

    def run(self):
        with self.session() as c:
            c.send(b"MAIL FROM:<me@client.example>\r\nRCPT TO:<c%d@local.example>\r\n" % self.number + b"DATA\r\n" * (not self.chunked))
            for code in (250, 250) if self.chunked else (250, 250, 354):
                c.reply(code)
            try:
                for piece in self.pieces():
                    c.send(piece)
                    time.sleep(0.001 if len(self.cuts) < 5 else 0.0002)
            except OSError:
                pass
            try:
                if not isinstance(c.sock, ssl.SSLSocket):
                    c.half_close()
            except OSError:
                pass
            self.codes = []
            try:
                while True:
                    self.codes.append(c.reply().code)
            except (smtpc.Closed, OSError):
                pass
        return self

    def pieces(self):
        cuts = [0, *[len(CARRIER) + n for n in self.cuts], len(self.data)]
        parts = [self.data[a:b] for a, b in zip(cuts, cuts[1:])]
        if self.chunked:
            # All of it is one message's text; SMUGGLED is octets of the last chunk, and comes once more behind it.
            parts = [b"BDAT %d%s\r\n" % (len(p), b" LAST" * (i == len(parts) - 1)) + p for i, p in enumerate(parts)] + [b"QUIT\r\n"]
        return parts

    def check(self, stored):
        """`stored`: {recipient: [messages]}"""
        refused, text = judge(self.data, self.profile == "inside", not self.chunked)
        carried, evil = ([m.body for m in stored.get(b"%s%d@local.example" % (w, self.number), [])] for w in (b"c", b"v"))
        # Where there is a true end, what is behind it is not smuggled; unless it begins with more of the sequence it is obeyed.
        real = not refused and text is not None and len(text) < len(self.data) - len(self.smuggled)
        certain = real and self.data[len(text):] == b".\r\n" + self.smuggled
        assert certain <= len(evil) <= real, self.name
        if refused:
            assert carried == [] and self.codes[-1:] == [550], (self.name, self.codes)
            return
        lines = text.replace(b"\r\n", b"\n").split(b"\n")[:-1]
        want = b"".join((x[1:] if x[:1] == b"." and not self.chunked else x) + b"\n" for x in lines)
        assert carried == [want], (self.name, carried, want)
        assert self.codes[self.chunked * (len(self.cuts))] == 250 and (real or self.codes[-1] == 221), (self.name, self.codes)


def cases(server):
    rng = random.Random(1)
    for end in ENDS:
        octets = list(range(len(end) + 2))
        cuts = list(range(1, len(end) + 1)) if tools.LONG or end in KNOWN else [rng.randrange(1, len(end) + 1)]
        for profile in ("smtp", "inside"):
            for cut in [[], octets] + [[n] for n in cuts]:
                yield Case(server, profile, end, cut)
            for cut in [[]] + [[n] for n in cuts]:
                yield Case(server, profile, end, cut, chunked=True)
        # Pieces are TLS records here.
        for cut in [octets] + [[n] for n in cuts if end in KNOWN]:
            yield Case(server, "submissions", end, cut)
        if tools.LONG or end in KNOWN:
            yield Case(server, "smtp", end, octets, starttls=True)


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


def test_records_in_pieces(besieged):
    """The attack under TLS, with its records themselves cut at each octet by the network."""
    case = Case(besieged, "submissions", b"\r\n.\n", [])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with smtpc.Client(("127.0.0.1", besieged.port["submissions"]), tools.fresh_address(), hello=False) as c:
        tls = besieged.context().wrap_bio(incoming, outgoing, server_hostname="mail.example.net")

        def push():
            for byte in outgoing.read():
                c.send(bytes([byte]))

        def pull(act, *args):
            while True:
                try:
                    return act(*args)
                except ssl.SSLWantReadError:
                    push()
                    data = c.sock.recv(4096)
                    if not data:
                        return b""
                    incoming.write(data)
        pull(tls.do_handshake)
        push()
        for line, code in ((None, b"220"), (b"EHLO x", b"250"), (b"AUTH PLAIN " + smtpc.b64("\0alice\0wonder land").encode(), b"235"),
                           (b"MAIL FROM:<me@client.example>", b"250"), (b"RCPT TO:<c%d@local.example>" % case.number, b"250"), (b"DATA", b"354")):
            if line:
                tls.write(line + b"\r\n")
                push()
            assert pull(tls.read, 4096).startswith(code)
        tls.write(case.data)
        try:
            push()
        except OSError:
            pass
        assert pull(tls.read, 4096).startswith(b"550 5.5.2")
    assert besieged.gone(c)["why"] == "bare-line-end"
    besieged.assert_nothing()


def test_smuggling_campaign(besieged):
    done = []
    with Watch(besieged, lines=12) as w:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            done = list(pool.map(Case.run, cases(besieged)))
    stored = {}
    for m in w.messages:
        assert len(m.rcpts) == 1
        stored.setdefault(m.rcpts[0], []).append(m)
    for case in done:
        case.check(stored)
    evil = [c for c in done if b"v%d@local.example" % c.number in stored]
    # The sequence that is an end of data is among them, to see that the others would have been noticed.
    assert evil and all(b"\r\n.\r\n" in c.data[:-len(c.smuggled)] for c in evil)
