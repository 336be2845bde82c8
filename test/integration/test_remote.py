# SPDX-License-Identifier: MIT
"""
What becomes of a message, by what the next hop does: a table. Each row gives the peer's behaviour and, for each recipient, class and code,
the text, and what the peer has seen. Rows wait at the same time.
"""

import collections
import re

import pytest

import remote
import tools
from remote import CLOSE, RESET, STALL, Peer, Remote

pytestmark = pytest.mark.release

PIPELINING = ("PIPELINING", "8BITMIME", "SIZE 1000000", "SMTPUTF8")
PLAIN = ("8BITMIME", "SIZE 1000000", "SMTPUTF8")
CHUNKING, PLAIN_CHUNKING = PIPELINING + ("CHUNKING",), PLAIN + ("CHUNKING",)
Row = collections.namedtuple("Row", "peer job want timeout")
ROWS = {}


def row(name, answers=None, keywords=PIPELINING, job=None, timeout=30, peer=None, **want):
    """
    want: classes, code (of the first recipient), text (a regular expression), reuse, unreachable, messages (how many the peer got), verbs, wire
    (a regular expression for all commands, a blank between), talks.
    """
    assert name not in ROWS
    ROWS[name] = Row(dict(peer or {}, answers=answers, keywords=keywords), job or {}, want, timeout)


TWO = {"rcpts": ("bob@example.org", "carl@example.org")}
LATE = {"mail": {"rcpt": b"503 5.5.1 MAIL first\r\n", "data": b"503 5.5.1 no\r\n"}, "rcpt": {"data": b"554 5.5.1 no valid recipients\r\n"}}
STAGES = ("greet", "ehlo", "mail", "rcpt", "data", "dot")
TROUBLE = {
    "stalls": (STALL, "took too long"),
    "closes": (CLOSE, "connection was lost"),
    "resets": (RESET, "connection was lost"),
    "talks nonsense": (b"hello there\r\n", "no SMTP"),
    "says no number": (b"\r\n", "no SMTP"),
    "says a number too high": (b"650 what\r\n", "no SMTP"),
    "says a number too low": (b"150 wait\r\n", "no SMTP"),
    "changes its mind": (b"250-one\r\n450 two\r\n", "no SMTP"),
    "says too long a line": (b"250 " + b"x" * 5000 + b"\r\n", "no SMTP"),
    "says too many lines": (b"250-x\r\n" * 101 + b"250 x\r\n", "no SMTP"),
    "says NUL": (b"\0\0\0\0\r\n", "no SMTP"),
}
REFUSALS = {
    "450": (b"450 4.2.0 later\r\n", "Z", 450, "450 4.2.0 later"),
    "550": (b"550 5.7.1 never\r\n", "D", 550, "550 5.7.1 never"),
    "500 without text": (b"500\r\n", "D", 500, "500"),
    "lines": (b"551-5.1.1 one\r\n551-\r\n551 5.1.1 three\r\n", "D", 551, "551-5.1.1 one\n551-\n551 5.1.1 three\n"),
    "bare LF": (b"452-4.3.1 one\n452 4.3.1 two\n", "Z", 452, "452-4.3.1 one\n452 4.3.1 two\n"),
    "a long line": (b"550 " + b"y" * 3000 + b"\r\n", "D", 550, "550 yyyyyyyyyy"),
    "hundred lines": (b"450-x\r\n" * 99 + b"450 x\r\n", "Z", 450, "450-x\n450-x"),
    "odd octets": (b"550 \x1b[2J\xc3\xa9\x07\r\r\n", "D", 550, "550 ?[2J???"),
}


def rows_of_stages():
    for form, keywords in (("pipelined", PIPELINING), ("plain", PLAIN), ("chunked", CHUNKING), ("plain chunked", PLAIN_CHUNKING)):
        for stage in STAGES:
            if stage == "data" and "CHUNKING" in keywords:
                continue
            before = stage in ("greet", "ehlo")
            for what, (octets, words) in TROUBLE.items():
                if stage == "dot":
                    status, sure = "4.4.2", "more than once"
                elif before:
                    status, sure = "4.4.2", "Mail for example.org cannot be delivered now"
                else:
                    status, sure = "4.4.2", "did not stay to the end"
                row("%s, at %s it %s" % (form, stage, what), {stage: octets}, keywords, TWO, timeout=5 if octets is STALL else 30, classes="ZZ",
                    code=0, text=r"%s[^\n]*\(#%s\)\n.*%s" % (sure, status.replace(".", r"\."), words), reuse=0, unreachable=int(before),
                    messages=int(stage == "dot"))
            for what, (octets, klass, code, text) in REFUSALS.items():
                answers = dict(LATE.get(stage, {}), **{stage: octets})
                if stage == "ehlo":
                    answers["helo"] = octets
                row("%s, %s at %s" % (form, what, stage), answers, keywords, TWO, classes="ZZ" if before else klass * 2, code=code,
                    text=(r"cannot be delivered now\. \(#4\.3\.0\)\n127\.0\.0\.1: (?:EHLO|instead of a greeting): " if before else
                          r"^127\.0\.0\.1 does not take .*\nRemote host said: ") + re.escape(text), reuse=int(not before), unreachable=int(before),
                    messages=int(stage == "dot"))


rows_of_stages()

# Recipients, each by itself.
THREE = {"rcpts": ("a@example.org", "b@example.org", "c@example.org", "d@example.org")}
for _form, _keywords in (("pipelined", PIPELINING), ("plain", PLAIN)):
    row(_form + ", recipients differ", {"rcpt": [b"250 ok\r\n", b"550 5.1.1 no b\r\n", b"450 4.2.1 later c\r\n", b"251 forwards\r\n"]}, _keywords, THREE,
        classes="KDZK", code=250, messages=1, reuse=1, text="has accepted the message",
        texts=["queued", "550 5.1.1 no b", "450 4.2.1 later c", "queued"])
    row(_form + ", recipients differ and DATA is refused", {"rcpt": [b"250 ok\r\n", b"550 no\r\n", b"450 c\r\n", b"250 ok\r\n"],
                                                          "data": b"451 4.3.0 disk\r\n"},
        _keywords, THREE, classes="ZDZZ", code=451, messages=0, reuse=1)
    row(_form + ", recipients differ and the message is refused", {"rcpt": [b"250 ok\r\n", b"550 no\r\n", b"450 c\r\n", b"250 ok\r\n"],
                                                                 "dot": b"554 5.7.1 spam\r\n"},
        _keywords, THREE, classes="DDZD", code=554, messages=1, reuse=1)
    row(_form + ", recipients differ and it closes after the dot", {"rcpt": [b"250 ok\r\n", b"550 no\r\n", b"450 c\r\n", b"250 ok\r\n"], "dot": CLOSE},
        _keywords, THREE, classes="ZDZZ", code=0, messages=1, reuse=0, text="more than once")
    row(_form + ", it closes at the second recipient", {"rcpt": [b"550 no\r\n", CLOSE]}, _keywords, THREE, classes="DZZZ", code=550, messages=0, reuse=0)
    row(_form + ", goes ahead for nobody", {"rcpt": b"550 5.1.1 no\r\n", "data": b"354 go ahead\r\n"} if _form == "pipelined" else
        {"rcpt": b"550 5.1.1 no\r\n"}, _keywords, TWO, classes="DD", code=550, messages=0, reuse=int(_form == "plain"))
    row(_form + ", 250 to DATA", {"data": b"250 what\r\n"}, _keywords, TWO, classes="ZZ", code=0, messages=0, reuse=0, text="does not fit")
    row(_form + ", 354 to the message", {"dot": b"354 more\r\n"}, _keywords, TWO, classes="ZZ", code=0, messages=1, reuse=0, text="more than once")
    row(_form + ", 354 to MAIL", {"mail": b"354 more\r\n"}, _keywords, TWO, classes="ZZ", code=0, messages=0, reuse=0, text="does not fit")
    row(_form + ", 421 at MAIL", {"mail": b"421 4.3.2 going\r\n", "rcpt": CLOSE}, _keywords, TWO, classes="ZZ", code=421, messages=0, reuse=0)
    row(_form + ", 421 to the message", {"dot": b"421 4.3.2 going\r\n"}, _keywords, TWO, classes="ZZ", code=421, messages=1, reuse=0)
    row(_form + ", an answer too many at the greeting", {"greet": b"220 one\r\n250 two\r\n"}, _keywords, TWO, classes="ZZ", messages=0, reuse=0)

row("EHLO is unknown", {"ehlo": b"502 5.5.2 what\r\n"}, classes="K", code=250, messages=1, verbs="EHLO HELO MAIL RCPT DATA", wire=r"HELO out\.example\.net ")
row("EHLO later", {"ehlo": b"421 4.3.2 busy\r\n"}, classes="Z", code=421, messages=0, unreachable=1, verbs="EHLO")
row("EHLO in one line", {"ehlo": b"250 peer.example\r\n"}, classes="K", messages=1, wire=r"MAIL FROM:<alice@example\.net> RCPT")
row("EHLO in small letters", {"ehlo": b"250-x\r\n250-pipelining\r\n250 size=99\r\n"}, classes="K", messages=1, pipelined=True)
row("EHLO with keywords in a line too long", {"ehlo": b"250-x\r\n250-SIZE 5" + b"5" * 600 + b"\r\n250 PIPELINING\r\n"}, classes="K", messages=1,
    pipelined=True)
row("keywords after the greeting line only", {"ehlo": b"250-PIPELINING\r\n250 ok\r\n"}, classes="K", messages=1, pipelined=False)
row("a word is not a keyword", {"ehlo": b"250-x\r\n250-PIPELININGS\r\n250 SIZES 3\r\n"}, classes="K", messages=1, pipelined=False)
row("octet by octet", peer={"read_at_most": 1}, classes="K", messages=1)

# SIZE
row("size fits", keywords=("SIZE 43",), classes="K", messages=1, wire="SIZE=43 ")
row("too big", keywords=("SIZE 42",), job=TWO, classes="DD", code=0, messages=0, reuse=1, text=r"no message of this size\. \(#5\.3\.4\)", verbs="EHLO")
row("size 0 is no limit", keywords=("SIZE 0",), classes="K", messages=1, wire="SIZE=43 ")
row("size without a number", keywords=("SIZE",), classes="K", messages=1, wire="SIZE=43 ")
row("size no number", keywords=("SIZE many",), classes="K", messages=1, wire="SIZE=43 ")
row("size beyond all", keywords=("SIZE 99999999999999999999999",), classes="K", messages=1)
row("no size", keywords=(), classes="K", messages=1, wire=r"alice@example\.net> RCPT")

# 8BITMIME, SMTPUTF8
EIGHT = {"message": "Subject: x\n\ngrüße\n".encode()}
row("8 bits", job=EIGHT, classes="K", messages=1, wire="BODY=8BITMIME", raw="grüße".encode())
row("8 bits without the keyword", keywords=("SIZE",), job=EIGHT, classes="K", messages=1, wire="SIZE=23 RCPT", raw="grüße".encode())
row("7 bits", classes="K", messages=1, wire="SIZE=43 RCPT")
row("address with 8 bits", job={"rcpts": ("grüße@example.org",)}, classes="K", messages=1, wire="SMTPUTF8 RCPT TO:<gr\xc3\xbc\xc3\x9fe@example.org>")
row("sender with 8 bits", job={"sender": "grüße@bücher.example"}, classes="K", messages=1, wire="MAIL FROM:<gr\xc3\xbc\xc3\x9fe@b\xc3\xbccher.example> SIZE=43 SMTPUTF8 ")
row("address with 8 bits without the keyword", keywords=("PIPELINING",), job={"rcpts": ("grüße@example.org", "bob@example.org")}, classes="DK", code=0,
    messages=1, text=r"no SMTPUTF8.*\(#5\.6\.7\)", verbs="EHLO MAIL RCPT DATA")
row("sender with 8 bits without the keyword", keywords=("PIPELINING",), job=dict(TWO, sender="grüße@example.net"), classes="DD", code=0, messages=0,
    text=r"\(#5\.6\.7\)", verbs="EHLO")
row("address that is not UTF-8", job={"rcpts": (b"gr\xfc@example.org", "bob@example.org")}, classes="DK", code=0, messages=1, text=r"\(#5\.1\.3\)")

# Addresses
row("null sender", job={"sender": ""}, classes="K", messages=1, wire="MAIL FROM:<> ")
row("double bounce", job={"sender": "#@[]"}, classes="K", messages=1, wire=r"MAIL FROM:<#@\[\]> ")
row("quoting", job={"sender": "a b@example.net", "rcpts": ('"q\\@x@example.org', ".a@example.org", "a..b@example.org", "a.@example.org", "@example.org",
                                                           "a@b@example.org", "tom&jerry+x=y@example.org", "plain")},
    classes="KKKKKKKK", messages=1,
    wire=r'MAIL FROM:<"a b"@example\.net> SIZE=43 RCPT TO:<"\\"q\\\\@x"@example\.org> RCPT TO:<"\.a"@example\.org> RCPT TO:<"a\.\.b"@example\.org> '
    r'RCPT TO:<"a\."@example\.org> RCPT TO:<""@example\.org> RCPT TO:<"a@b"@example\.org> RCPT TO:<tom&jerry\+x=y@example\.org> RCPT TO:<plain> DATA')
for _name, _address in {"LF": "x\nDATA@example.org", "CR": "x\rDATA@example.org", "CRLF in the domain": "x@example.org>\r\nDATA\r\n", "a parameter": "x@y> SIZE=1",
                        "a bracket": "x@y>", "DEL": "x\x7f@y", "nothing": "", "a backslash in the domain": "x@y\\"}.items():
    row("address with " + _name, job={"rcpts": (_address, "bob@example.org")}, classes="DK", code=0, messages=1, text=r"^The recipient's address .*\(#5\.1\.3\)",
        verbs="EHLO MAIL RCPT DATA")
row("sender with a line feed", job=dict(TWO, sender="x\r\nRCPT TO:<y@z>\r\n"), classes="DD", code=0, messages=0, talks=0, text=r"^The sender's address .*\(#5\.1\.7\)")

# The message
for _name, _message, _raw in (
        ("no LF at the end", b"a: b\n\nx", b"a: b\r\n\r\nx\r\n.\r\n"), ("empty", b"", b".\r\n"), ("only a dot", b".", b"..\r\n.\r\n"),
        ("dots", b".\n..\n.x\nx.\n.", b"..\r\n...\r\n..x\r\nx.\r\n..\r\n.\r\n"), ("CRLF", b"a\r\nb\r\n", b"a\r\nb\r\n.\r\n"), ("CR", b"a\rb\r", b"a\r\nb\r\n.\r\n"),
        ("CR CR LF", b"a\r\r\nb\n", b"a\r\n\r\nb\r\n.\r\n"), ("dot between CRs", b"a\r.\rb\n", b"a\r\n..\r\nb\r\n.\r\n"),
        ("LF dot LF", b"a\n.\nMAIL FROM:<x@y>\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"), ("NUL", b"a\0b\n", b"a\0b\r\n.\r\n")):
    row("message: " + _name, keywords=(), job={"message": _message}, classes="K", messages=1, exactly=_raw)
row("message: CR at the end of a block", keywords=(), job={"message": b"x" * 8191 + b"\r\n.y\n"}, classes="K", messages=1, exactly=b"x" * 8191 + b"\r\n..y\r\n.\r\n")
row("message: LF at the end of a block", keywords=(), job={"message": b"x" * 8191 + b"\n.\n"}, classes="K", messages=1, exactly=b"x" * 8191 + b"\r\n..\r\n.\r\n")
row("message: shorter than it was", job={"size": 100}, classes="Z", code=0, messages=0, text=r"cannot be read here\. \(#4\.3\.0\)")
row("message: big", job={"message": (b"z" * 76 + b"\n") * 9000}, classes="K", messages=1)


# By BDAT. Chunks are 8192 octets and their line ends.
LINES = b"".join(b"%07d\n" % i for i in range(5000))
for _form, _keywords in (("chunked", CHUNKING), ("plain chunked", PLAIN_CHUNKING)):
    row(_form + ", short", None, _keywords, TWO, classes="KK", code=250, messages=1, reuse=1, verbs="EHLO MAIL RCPT RCPT BDAT", wire="BDAT 43 LAST ",
        exactly=remote.MESSAGE.replace(b"\n", b"\r\n"), text="has accepted the message")
    row(_form + ", dots", None, _keywords, {"message": b".\n..\n.\r\n.x\n."}, classes="K", messages=1, exactly=b".\r\n..\r\n.\r\n.x\r\n.\r\n", wire="BDAT 17 LAST ")
    row(_form + ", empty", None, _keywords, {"message": b""}, classes="K", messages=1, exactly=b"", wire="BDAT 0 LAST ")
    row(_form + ", long", None, _keywords, {"message": LINES}, classes="K", messages=1, reuse=1, verbs="EHLO MAIL RCPT BDAT BDAT BDAT BDAT BDAT",
        wire="BDAT 9216 BDAT 9216 BDAT 9216 BDAT 9216 BDAT 8136 LAST ", exactly=LINES.replace(b"\n", b"\r\n"))
    row(_form + ", CR at the end of a chunk", None, _keywords, {"message": b"x" * 8191 + b"\r\n.y\n"}, classes="K", messages=1, wire="BDAT 8193 BDAT 4 LAST ",
        exactly=b"x" * 8191 + b"\r\n.y\r\n")
    row(_form + ", CR and LF in two chunks, and nothing more", None, _keywords, {"message": b"x" * 8191 + b"\r\n"}, classes="K", messages=1,
        wire="BDAT 8193 BDAT 0 LAST ", exactly=b"x" * 8191 + b"\r\n")
    row(_form + ", line ends only", None, _keywords, {"message": b"\n" * 8192 + b"\r" * 100}, classes="K", messages=1, wire="BDAT 16384 BDAT 200 LAST ")
    row(_form + ", nobody is to have it", {"rcpt": [b"550 5.1.1 no\r\n", b"450 later\r\n"]}, _keywords, TWO, classes="DZ", code=550, messages=0, reuse=1,
        verbs="EHLO MAIL RCPT RCPT")
    row(_form + ", recipients differ", {"rcpt": [b"250 ok\r\n", b"550 5.1.1 no b\r\n", b"450 4.2.1 later c\r\n", b"251 forwards\r\n"]}, _keywords, THREE,
        classes="KDZK", code=250, messages=1, reuse=1, texts=["queued", "550 5.1.1 no b", "450 4.2.1 later c", "queued"])
    row(_form + ", 421 to the last chunk", {"dot": b"421 4.3.2 going\r\n"}, _keywords, TWO, classes="ZZ", code=421, messages=1, reuse=0)
    row(_form + ", 354 to the last chunk", {"dot": b"354 more\r\n"}, _keywords, TWO, classes="ZZ", code=0, messages=1, reuse=0, text="more than once")
    for _stage, _n in (("first", 0), ("second", 1), ("last but one", 3)):
        _name = "%s, at the %s chunk it " % (_form, _stage)
        _at = [b"250 ok\r\n"] * _n
        _said = "chunked" == _form  # all chunks are on the way when it says no
        for _what, _octets in (("stalls", STALL), ("closes", CLOSE), ("resets", RESET), ("talks nonsense", b"what\r\n"), ("says 354", b"354 x\r\n")):
            # Where not all had gone out, there is no doubt that it has not arrived. What closes may do so before or after that.
            row(_name + _what, {"bdat": _at + [_octets], "dot": _octets}, _keywords, {"message": LINES}, timeout=5 if _octets is STALL else 30, classes="Z", code=0,
                reuse=0, text="did not stay to the end" if not _said else "more than once|did not stay" if _octets in (CLOSE, RESET) else "more than once")
        for _code, _klass in ((b"452", "Z"), (b"552", "D")):
            row(_name + "says " + _code.decode(), {"bdat": _at + [_code + b" no room\r\n", b"503 5.5.1 no more\r\n"], "dot": b"503 5.5.1 no more\r\n"}, _keywords,
                {"message": LINES}, classes=_klass, code=int(_code), reuse=1, text="does not take the message.*no room")
        row(_name + "says 421", {"bdat": _at + [b"421 4.3.2 bye\r\n", CLOSE], "dot": CLOSE}, _keywords, {"message": LINES}, classes="Z", code=421, reuse=0,
            text="421 4.3.2 bye")


def run(binary, r):
    with Peer(**r.peer) as p:
        with Remote(binary, {"smtproutes": remote.route(p)}, timeout=r.timeout) as process:
            job = dict(r.job)
            result = process.deliver(**job)
        return p, result


@pytest.fixture(scope="module")
def crowd(remote_binary):
    return tools.Crowd({name: lambda r=r: run(remote_binary, r) for name, r in ROWS.items()})


@pytest.mark.parametrize("name", list(ROWS))
def test_row(crowd, name):
    peer, result = crowd[name]
    want = ROWS[name].want
    talks = [t for t in peer.talks if t.lines or t.end]
    assert len(talks) == want.get("talks", 1), talks
    talk = talks[0] if talks else remote.Talk()
    assert result.classes == want["classes"] and talk.bad is None, result
    assert result.first.code == want.get("code", result.first.code), result
    assert re.search(want.get("text", ""), result.first.text, re.S), result.first.text
    for report, text in zip(result.reports, want.get("texts", [])):
        assert text in report.text
    assert result.done.reuse == want.get("reuse", result.done.reuse), result
    assert result.done.unreachable == want.get("unreachable", 0)
    if "messages" in want:
        assert len(talk.messages) == want["messages"], talk.messages
    verbs = [v for v in talk.verbs if v != "QUIT"]
    assert verbs == want.get("verbs", " ".join(verbs)).split(), verbs
    wire = b" ".join(talk.lines).decode("latin-1") + " "
    assert re.search(want.get("wire", ""), wire), wire
    assert want.get("raw", b"") in talk.raw
    assert talk.raw == want.get("exactly", talk.raw)
    if "pipelined" in want:
        assert any(c.startswith(b"MAIL") and c.endswith(b"DATA\r\n") for c in talk.chunks) == want["pipelined"], talk.chunks
    # Who is left in order is told so, and after a stall it is not.
    if result.done.reuse:
        assert talk.end == "quit", talk.end
