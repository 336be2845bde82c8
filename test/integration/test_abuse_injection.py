# SPDX-License-Identifier: MIT
"""What is said before TLS must not be heard within (CVE-2011-0411), and what stands where a login is expected must not be a command, nor the
other way round: at every cut, pipelined, cancelled, interleaved."""

import itertools
import time

import pytest

import harness
import radius
import smtpc
import tools
from abuse import Attacker, Watch
from smtpc import b64

pytestmark = pytest.mark.release

GOOD = b64("\0alice\0" + radius.PASSWORD["alice"])
BAD = b64("\0alice\0wrong")
MAIL = "MAIL FROM:<evil@client.example>"


@pytest.fixture(scope="module")
def besieged(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf)
    yield s
    s.stop()


def plain(server, profile="smtp"):
    c = server.connect(profile)
    c.ehlo()
    return c


# ---- STARTTLS --------------------------------------------------------------------------------------------------------

EXTRA = [b"NOOP\r\n", b"EHLO evil.example\r\n" + MAIL.encode() + b"\r\nRCPT TO:<v@local.example>\r\nDATA\r\n\r\n.\r\n", b"\r\n", b"x", b"\0",
         b"AUTH PLAIN " + GOOD.encode() + b"\r\n", b"STARTTLS\r\n", b"QUIT\r\n", b"\x16", b"\x15\x03\x01\x00\x02\x01\x00"]


def injected(server, extra, cut):
    """STARTTLS and what somebody in the middle puts behind it, in two pieces."""
    raw = b"STARTTLS\r\n" + extra
    with plain(server) as c:
        c.send(raw[:cut])
        time.sleep(0.004)
        try:
            c.send(raw[cut:])
            c.half_close()
        except OSError:
            pass
        said = c.rest()
    return cut, said


def test_every_cut_of_an_injection(besieged):
    """
    With STARTTLS, or so soon after that the server finds it when it looks: one refusal and the end. Later it is what a handshake must
    begin with, which it does not: the end again. Nothing of it ever gets a reply.
    """
    cases = {(extra, cut): lambda extra=extra, cut=cut: injected(besieged, extra, cut)
             for extra in EXTRA for cut in range(1, 10 + len(extra) + 1) if cut <= 12 or len(extra) < 20 or cut % 9 == 0}
    with Watch(besieged) as w:
        crowd = tools.Crowd(cases)
        said = {case: crowd[case][1] for case in cases}
    for (extra, cut), raw in said.items():
        go, rest = raw[:4] == b"220 ", raw
        if go:
            rest = raw[raw.index(b"\r\n") + 2:]
            assert rest == b"" or rest[:1] == b"\x15", (extra, cut, raw)  # silence, or an alert
        else:
            assert rest.startswith(b"554 5.5.1 ") and rest.count(b"\r\n") == 1, (extra, cut, raw)
        assert not go or cut == len(b"STARTTLS\r\n"), (extra, cut, raw)  # what came with the line end is always seen
    assert w.messages == []
    assert {e["why"] for e in besieged.log("close") if e["client"].startswith("127.1.")} <= {"tls-injection", "tls-failed", "eof"}


@pytest.mark.parametrize("extra", [b"NOOP\r\n", b"EHLO evil.example\r\nMAIL FROM:<evil@client.example>\r\n"])
def test_before_the_client_hello(besieged, extra):
    """Somebody in the middle adds to the stream between 220 and the client's first record: the handshake fails, whatever is in it."""
    with plain(besieged) as c:
        c.cmd("STARTTLS", 220)
        c.send(extra)
        with pytest.raises(OSError):
            c.wrap()
    assert besieged.gone(c)["why"] == "tls-failed"
    besieged.assert_nothing()


def test_state_before_tls_is_gone(besieged):
    """HELO name, a transaction, a refused login, the phase: nothing said in the clear is left."""
    for before in (["MAIL FROM:<me@client.example>", "RSET"], ["MAIL FROM:<me@client.example>", "RCPT TO:<x@local.example>", "BDAT 3\r\na", "RSET"],
                   ["AUTH PLAIN"], ["AUTH LOGIN", b64("alice"), b64("x")], ["EHLO evil.example"], ["HELO evil.example"]):
        with plain(besieged) as c:
            for line in before:
                c.cmd(line)
            c.starttls()
            for line in ("MAIL FROM:<me@client.example>", "AUTH PLAIN " + GOOD, "RCPT TO:<x@local.example>", "DATA"):
                c.cmd(line, 503)
            c.cmd("BDAT 0 LAST", 503)
            c.ehlo("honest.example")
            m = besieged.message(c.mail(rcpts=["you@local.example"]))
            assert "(HELO honest.example)" in m.received
            c.quit()
    besieged.take()


# ---- AUTH ------------------------------------------------------------------------------------------------------------

def dialog(server, lines, cut=None, profile="submissions"):
    """Lines sent in one breath, or in two; all replies' codes until the end."""
    raw = b"".join(line.encode() + b"\r\n" for line in lines)
    with server.session(profile, login=None) as c:
        for piece in ([raw] if cut is None else [raw[:cut], raw[cut:]]):
            c.send(piece)
            time.sleep(0.002)
        codes, text = [], b""
        try:
            while True:
                r = c.reply()
                codes.append(r.code)
                text += r.raw
                if r.code in (221, 421):
                    break
        except (smtpc.Closed, OSError):
            pass
    return codes, text


# lines: the codes. What a line is depends on what came before it, never on when it came.
DIALOGS = {
    ("AUTH PLAIN", GOOD, MAIL, "QUIT"): [334, 235, 250, 221],
    ("AUTH PLAIN " + GOOD, MAIL, "RCPT TO:<c@far.example>", "RSET", "QUIT"): [235, 250, 250, 250, 221],
    ("AUTH LOGIN", b64("alice"), b64("wonder land"), MAIL, "QUIT"): [334, 334, 235, 250, 221],
    ("AUTH LOGIN", MAIL, "RCPT TO:<v@far.example>", "DATA", "QUIT"): [334, 501, 503, 503, 221],
    ("AUTH LOGIN", b64("alice"), MAIL, "DATA", "QUIT"): [334, 334, 501, 503, 221],
    ("AUTH PLAIN", "QUIT", "NOOP", "QUIT"): [334, 501, 250, 221],                       # QUIT is base64, but not of a login
    ("AUTH PLAIN", "NOOP", MAIL, "QUIT"): [334, 501, 530, 221],
    ("AUTH PLAIN", "*", MAIL, "AUTH PLAIN " + GOOD, MAIL, "QUIT"): [334, 501, 530, 235, 250, 221],
    ("AUTH LOGIN", "*", b64("alice"), b64("wonder land"), MAIL, "QUIT"): [334, 501, 500, 500, 530, 221],
    ("AUTH LOGIN", b64("alice"), "*", b64("wonder land"), MAIL, "QUIT"): [334, 334, 501, 500, 530, 221],
    ("AUTH PLAIN", "AUTH PLAIN", GOOD, MAIL, "QUIT"): [334, 501, 500, 530, 221],
    ("AUTH PLAIN", "STARTTLS", "NOOP", "QUIT"): [334, 501, 250, 221],
    ("AUTH LOGIN", "STARTTLS", b64("alice"), MAIL, "QUIT"): [334, 334, 535, 530, 221],  # it is base64 of something, as a name
    ("AUTH PLAIN", "EHLO x", MAIL, "QUIT"): [334, 501, 530, 221],
    ("AUTH PLAIN", "", MAIL, "QUIT"): [334, 501, 530, 221],
    ("AUTH PLAIN " + GOOD, "AUTH PLAIN " + GOOD, "STARTTLS", "QUIT"): [235, 503, 503, 221],
    (MAIL, "AUTH PLAIN " + GOOD, MAIL, "QUIT"): [530, 235, 250, 221],
    (MAIL, "RCPT TO:<v@far.example>", "DATA", "AUTH PLAIN " + GOOD, "RCPT TO:<v@far.example>", "DATA", "QUIT"): [530, 503, 503, 235, 503, 503, 221],
    ("AUTH PLAIN " + BAD, MAIL, "RCPT TO:<v@far.example>", "DATA", "QUIT"): [535, 530, 503, 503, 221],
    ("AUTH PLAIN " + BAD, "AUTH PLAIN " + GOOD, MAIL, "QUIT"): [535, 235, 250, 221],
    ("AUTH PLAIN", "A" * 12286, MAIL, "QUIT"): [334, 501, 530, 221],
    ("AUTH PLAIN", "A" * 13000, GOOD, MAIL, "QUIT"): [334, 500, 500, 530, 221],
    ("AUTH PLAIN =", MAIL, "QUIT"): [501, 530, 221],
    ("AUTH LOGIN =", "=", MAIL, "QUIT"): [334, 535, 530, 221],
    ("AUTH PLAIN " + GOOD + " " + GOOD, MAIL, "QUIT"): [501, 530, 221],
    ("BDAT 3", "AUTH PLAIN " + GOOD, "QUIT"): [503, 500, 221],
}
# After the third refusal nobody is asked any more, however many right ones are pipelined behind it.
GUESSES = (["AUTH PLAIN " + BAD] * 3 + ["AUTH PLAIN " + GOOD] * 5 + [MAIL], [535, 535, 535, 421])


def test_dialogs_in_one_breath_and_in_two(besieged, freeradius):
    rng = tools.random.Random(3)
    cases = {}
    for lines in DIALOGS:
        size = sum(len(line) + 2 for line in lines)
        # With many wrong passwords her account is one that is guessed at, and strangers take turns.
        every = tools.LONG and not any(BAD in line for line in lines)
        cuts = range(1, size) if every else sorted(rng.sample(range(1, size), 3))
        for cut in itertools.chain([None], cuts):
            cases[lines, cut] = lambda lines=lines, cut=cut: dialog(besieged, lines, cut)
    cases["guesses"] = lambda: dialog(besieged, GUESSES[0])
    for profile in ("submission", "smtp"):  # in the clear
        cases[profile] = lambda profile=profile: dialog_in_the_clear(besieged, profile)
    before = {r["Acct-Session-Id"] for r in freeradius.requests()}
    # In its long form it has tens of thousands of connections.
    with Watch(besieged, lines=14, cpu=1 + len(cases) * 0.0002) as w:
        crowd = tools.Crowd(cases)
        said = {case: crowd[case] for case in cases}
    for case, (codes, text) in said.items():
        if isinstance(case, tuple):
            assert codes == DIALOGS[case[0]], (case, codes, text)
    assert said["guesses"][0] == GUESSES[1]
    assert w.messages == []
    # RADIUS heard of nothing but whole logins.
    users = {(r["User-Name"], r["User-Password"]) for r in freeradius.requests()
             if r["Acct-Session-Id"] not in before and besieged.log("connect", sid=r["Acct-Session-Id"])}
    assert users <= {("alice", "wonder land"), ("alice", "wrong")}


def dialog_in_the_clear(server, profile):
    """No exchange begins before TLS, so none goes on within: the lines are commands nobody knows."""
    with plain(server, profile) as c:
        for line, code in (("AUTH LOGIN", 530), (b64("alice"), 500), (b64("wonder land"), 500), ("AUTH PLAIN " + GOOD, 530)):
            c.cmd(line, code)
        c.starttls()
        for line, code in ((b64("alice"), 500), (b64("wonder land"), 500), (MAIL, 503)):
            c.cmd(line, code)
        c.ehlo()
        for line, code in ((b64("wonder land"), 500), ("RCPT TO:<v@far.example>", 503)):
            c.cmd(line, code)
        if profile == "submission":
            c.cmd(MAIL, 530)
        c.quit()
    return [], b""


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("said", [["AUTH PLAIN"], ["AUTH LOGIN"], ["AUTH LOGIN", b64("alice")], ["AUTH LOGIN", b64("alice"), GOOD[:10]]])
def test_broken_off(besieged, freeradius, said, how):
    """An exchange that ends in the middle asks nobody."""
    with besieged.session("submissions", login=None) as c:
        c.send("\r\n".join(said))
        if how == "reset":
            c.reset()
    assert besieged.gone(c)["why"] in ("eof", "tls-failed")
    assert not freeradius.requests(c.source)


def test_guessing(besieged):
    """Wrong passwords from sixty addresses, pipelined: three are tried for each session, with longer and longer waits; customers log in meanwhile."""
    line = "AUTH PLAIN " + b64("\0alice\0guess") + "\r\n"
    jobs = {n: {"port": besieged.port["submissions"], "tls": True, "source": "127.220.1.%d" % (n + 1), "first": ["EHLO x\r\n"], "again": line, "times": 10}
            for n in range(60)}
    # A warden that has waited for its turn asks its first question, and needs the memory for that, late.
    with Watch(besieged, flat=64) as w:
        results = Attacker(mode="streams", jobs=jobs, at_once=60).leave()["results"]
    guesses = []
    for n, r in results.items():
        ends = [r["codes"].pop(word, 0) for word in ("end", "ConnectionResetError")]
        # From the tenth on, strangers take turns at her account, and most find that too many wait.
        asked, refused = r["codes"].pop("535", 0), r["codes"].pop("454", 0)
        assert sum(ends) == 1 and asked + refused == 3 and r["codes"] == {"220": 1, "250": 1, "421": 1}, (n, r)
        guesses.append((asked, r["seconds"]))
    # ten, and then one a second
    assert 10 <= sum(asked for asked, _ in guesses) <= 10 + 60 + max(seconds for _, seconds in guesses)
    assert w.messages == []
