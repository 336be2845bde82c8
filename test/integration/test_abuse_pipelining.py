# SPDX-License-Identifier: MIT
"""
What a client says all at once must mean what it means line by line. The smtp process puts requests that come together to the warden in
one message, before it knows what becomes of the first of them; nobody may notice, and no stranger may make the two disagree.
"""

import random
import re
import time

import pytest

import smtpc
import tools

pytestmark = pytest.mark.release

MESSAGE = b"Subject: one of many\r\n\r\n..\r\ntext\r\n"
# Words that are drawn more often than others stand more than once. @ becomes the number of the run.
WORDS = [
    b"MAIL FROM:<me@@.example>", b"MAIL FROM:<me@@.example>", b"MAIL FROM:<me@@.example>", b"MAIL FROM:<>",
    b"MAIL FROM:<me@@.example> SIZE=99999999999", b"MAIL FROM:<bad", b"MAIL FROM:<j\xc3\xbcrgen@@.example> SMTPUTF8",
    b"MAIL FROM:<refused@bad.example>",
    *[b"RCPT TO:<you@local.example>"] * 6, *[b"RCPT TO:<you@far.example>"] * 2, b"RCPT TO:<bad", b"RCPT TO:<you>",
    b"RCPT TO:<j\xc3\xbcrgen@local.example>",
    b"DATA", b"DATA", b"DATA", b"DATA x", b"BDAT 5\r\nab\r\n\r", b"BDAT 3 LAST\r\n\nz\n"[:-1] + b"\n", b"BDAT 0 LAST", b"RSET", b"RSET", b"NOOP",
    b"EHLO other.example", b"HELO third.example", b"VRFY x", b"FOO", b"", b"NOOP " + b"x" * 3000, b"HELP",
]


def normal(reply):
    """A reply without what differs from run to run."""
    return re.sub(rb"ok \d+ qp \d+ id \d+", b"ok N", reply.raw)


def draw(rng):
    """A session's lines. A refused sender or recipient early, then many recipients: the batch is 8 requests long."""
    words = [rng.choice(WORDS) for _ in range(rng.randrange(3, 25))]
    if rng.random() < 0.5:
        at = rng.randrange(len(words))
        words[at:at] = [rng.choice(WORDS[:8])] + [rng.choice(WORDS[8:20]) for _ in range(rng.randrange(5, 20))] + [b"DATA"]
    return words + [b"QUIT"]


def begin(server, profile, number):
    c = server.session(profile, tls=False if profile == "smtp" else None)
    c.number = str(number).encode()
    return c


def one_by_one(c, words):
    """Say a line, hear the reply; returns the replies and, for each word, all that was sent for it."""
    replies, sent = [], []
    try:
        for word in words:
            raw = word.replace(b"@@", b"@" + c.number) + b"\r\n" * (not word.startswith(b"BDAT") or word.endswith(b"LAST"))
            c.send(raw)
            replies.append(c.reply())
            if replies[-1] == 354:
                raw += MESSAGE + b".\r\n"
                c.send(MESSAGE + b".\r\n")
                replies.append(c.reply())
            sent.append(raw)
            if replies[-1].code in (221, 421):
                break
        c.closed()
    except (smtpc.Closed, OSError):
        pass
    c.close()
    return [normal(r) for r in replies], sent


def together(c, raw, cuts):
    """The same octets in as many pieces as `cuts` says."""
    replies = []
    try:
        for piece, cut in zip([0] + cuts, cuts + [len(raw)]):
            c.send(raw[piece:cut])
            if cuts:
                time.sleep(0.001)
    except OSError:
        pass
    try:
        while True:
            replies.append(normal(c.reply()))
    except (smtpc.Closed, OSError):
        pass
    c.close()
    return replies


def unfinished(server):
    files = server.files()
    return {f.split("/")[-1] for f in files} - {f[5:] for f in files if f.startswith("todo/")}


def taken(server):
    """Envelope and body of what is in the queue, without the number of the run in it, once unfinished messages are gone."""
    tools.poll(lambda: not unfinished(server), "unfinished messages to go")
    return sorted((re.sub(rb"\d+\.example", b"N.example", m.sender), m.rcpts, re.sub(rb"(Date|Message-ID): .*\n", b"", m.body))
                  for m in server.take())


@pytest.fixture(scope="module")
def plain_server(work, house):
    import harness
    s = harness.Server(work, house, None, control={"badmailfrom": "@bad.example\n"})
    yield s
    s.stop()


@pytest.mark.parametrize("seed", range(8))
def test_together_as_one_by_one(plain_server, seed):
    """
    More than seven recipients behind a refused sender, in one breath, were put to the warden as a transaction of their own: it took that
    for a breach of their rules, ended the pair as crashed, and main started over.
    """
    server, rng = plain_server, random.Random(seed)
    for n in range(400 if tools.LONG else 12):
        profile, words = rng.choice(["smtp", "smtp", "inside"]), draw(rng)
        want, sent = one_by_one(begin(server, profile, 1), words)
        want_queue = taken(server)
        raw = b"".join(sent).replace(b"@1.example", b"@2.example")
        for cuts in ([], sorted(rng.sample(range(1, len(raw)), min(len(raw) - 1, 5)))):
            got = together(begin(server, profile, 2), raw, cuts)
            assert got == want, "%s %d %s\n%r\n%r" % (profile, n, cuts, got, want)
            assert taken(server) == want_queue, (n, cuts)
    assert not server.log("crash")


@pytest.mark.parametrize("profile,first", [
    ("smtp", b"MAIL FROM:<me@client.example> SIZE=99999999999"), ("smtp", b"MAIL FROM:<refused@bad.example>"),
    ("submissions", b"MAIL FROM:<me@client.example>"), ("submission", b"MAIL FROM:<me@client.example>")])
def test_recipients_behind_a_refused_sender(plain_server, profile, first):
    """See above; each number of recipients around the length of a batch, and with DATA behind them."""
    for count in (1, 6, 7, 8, 14, 15, 16):
        with plain_server.session(profile, login=None) as c:
            c.send(first + b"\r\n" + b"RCPT TO:<you@local.example>\r\n" * count + b"DATA\r\nNOOP\r\n")
            assert 500 <= c.reply().code < 560
            assert [c.reply().code for _ in range(count + 2)] == [503] * (count + 1) + [250]
            c.quit()
    assert not plain_server.log("crash")
