# SPDX-License-Identifier: MIT
"""Messages: their line ends, dots, sizes, hops and fields; how none can hide inside another (CVE-2023-51764 and its kin)."""

import re
import time

import pytest

import smtpc
import tools

HEAD = smtpc.MESSAGE[:smtpc.MESSAGE.index(b"\r\n\r\n") + 2]


def ready(server, profile="smtp", **kw):
    """A session in which DATA has been answered 354."""
    c = server.session(profile, **kw)
    c.envelope(rcpts=["you@local.example"])
    c.cmd("DATA", 354)
    return c


# ---- Octets ----------------------------------------------------------------------------------------------------------

BODIES = {
    "plain": b"Hello.\r\n",
    "empty body": b"",
    "dot lines": b".\r\n..\r\n.x\r\n...\r\n. \r\n",
    "dot last": b"x\r\n.\r\n",
    "blank lines": b"\r\n\r\n\r\n",
    "8-bit": bytes(range(128, 256)) + b"\r\n",
    "controls": bytes(c for c in range(1, 128) if c not in (10, 13)) + b"\r\n",
    "1000 octets": b"y" * 998 + b"\r\n",
    "long line": b"z" * 70000 + b"\r\n",
    "many lines": b"".join(b"line %d\r\n" % n for n in range(20000)),
    "buffer edge": b"e" * (32768 - 3) + b"\r\n" + b"f\r\n",
    "From line": b"From here\r\n>From there\r\n",
    "looks like SMTP": b"\r\nQUIT\r\nMAIL FROM:<a@b.example>\r\n",
    "spaces": b" \r\n\t\r\n  x  \r\n",
}


@pytest.mark.parametrize("name", list(BODIES))
@pytest.mark.parametrize("profile", ["smtp", "submissions", "inside"])
def test_qmail_22_23_24_octets(server, profile, name):
    """22: LF line ends, no CR. 23: dots unstuffed once, LF at the end. 24: all else as it was sent."""
    message = HEAD + b"\r\n" + BODIES[name]
    with server.session(profile) as c:
        m = server.message(c.mail(smtpc.stuff(message), rcpts=["you@local.example"]))
    assert m.body == message.replace(b"\r\n", b"\n")
    assert b"\r" not in m.data and m.data.endswith(b"\n")
    event = server.log("accept", qid=str(m.id))[-1]
    assert event["bytes"] == str(len(m.body)) or int(event["bytes"]) >= len(m.body)


@pytest.mark.parametrize("message", [b"", b"\r\n", b"no header\r\n", b"\r\nbody only\r\n", b"Subject: header only\r\n",
                                     b"..\r\n", b": odd\r\n\r\nx\r\n"])
def test_odd_messages_on_port_25(server, message):
    """Relayed mail gets no fields but Received."""
    with server.session("smtp") as c:
        m = server.message(c.mail(message, rcpts=["you@local.example"]))
    assert m.body == smtpc.stored(message)
    assert m.data.endswith(b"\n")


@pytest.mark.parametrize("first", [b" (HELO mail.bank.example)", b"\tby mail.bank.example", b" ", b"\t", b". folded", b"  Subject: x", b" " * 100])
@pytest.mark.parametrize("how", ["data", "bdat"])
@pytest.mark.parametrize("profile", ["smtp", "submissions"])
def test_nobody_goes_on_with_our_received(server, profile, how, first):
    """
    A first line that begins with white space became part of the trace line that the server had just written: a stranger could add words to
    what it says about him. It is text, and stands behind an empty line.
    """
    message = first + b"\r\nSubject: hidden\r\n\r\ntext\r\n"
    text = message.replace(b"\r\n", b"\n")
    with server.session(profile) as c:
        if how == "data":
            m = server.message(c.mail(message, rcpts=["you@local.example"]))
            text = text[1:] if first[:1] == b"." else text
        else:
            c.envelope(rcpts=["you@local.example"])
            c.send(b"BDAT %d LAST\r\n" % len(message) + message)
            m = server.message(c.reply(250))
    header, body = m.data.split(b"\n\n", 1)
    if how == "bdat" and first[:1] == b".":
        return  # a dot is no white space
    assert body == text
    assert b"bank" not in header and b"hidden" not in header and not header.endswith((b" ", b"\t"))
    assert header.count(b"Received: ") == 2


def test_every_split_of_the_end(server):
    """The end of data is found wherever the network cuts it, and nowhere else."""
    tail = b"a\r\n.\r\n"
    for cut in range(1, len(tail)):
        for second in range(cut, len(tail)):
            with ready(server) as c:
                c.send(b"Subject: x\r\n\r\n" + tail[:cut])
                time.sleep(0.002)
                if second > cut:
                    c.send(tail[cut:second])
                    time.sleep(0.002)
                c.send(tail[second:])
                assert server.message(c.reply(250)).body == b"Subject: x\n\na\n"
                c.quit()
    server.take()


def test_octet_by_octet(server):
    message = b"Subject: x\r\n\r\n..a\r\n.\r\n"
    with ready(server) as c:
        for byte in message:
            c.send(bytes([byte]))
        assert server.message(c.reply(250)).body == b"Subject: x\n\n.a\n"


# ---- Smuggling -------------------------------------------------------------------------------------------------------

SMUGGLED = b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<victim@local.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n", b"\r\r\n.\r\n", b"\r\r\n.\r\r\n",
        b"\n.\r", b"\r.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\r\n"[:3] + b".\n", b"\n\n.\n", b"\r\n\r.\r\n", b"\n\r.\r\n",
        b"x\n", b"x\r", b"\r\0\n.\r\0\n", b"\x00", b"\n"]
ends = pytest.mark.parametrize("end", ENDS, ids=[repr(e)[2:-1] for e in ENDS])


@ends
@pytest.mark.parametrize("profile", ["smtp", "submissions"])
def test_smuggling(server, profile, end):
    """A bare CR, a bare LF or a NUL: refused at the end of data, and the connection closed; nothing stored, nothing obeyed."""
    with ready(server, profile) as c:
        c.send(b"Subject: carrier\r\n\r\nx" + end + SMUGGLED)
        r = c.reply()
        assert r == 550 and r.enhanced == "5.5.2"
        assert c.rest() == b""
    event = server.gone(c)
    assert event["msgs"] == "0"
    server.assert_nothing()


@pytest.mark.parametrize("pieces", [2, 3])
def test_smuggling_in_pieces(server, pieces):
    for end in (b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r\r\n"):
        data = b"Subject: carrier\r\n\r\nx" + end
        with ready(server) as c:
            for i in range(0, len(data), pieces):
                c.send(data[i:i + pieces])
                time.sleep(0.001)
            c.send(SMUGGLED)
            c.reply(550)
            c.closed()
    server.assert_nothing()


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n\n.\n"], ids=repr)
def test_inside_takes_lf_but_never_as_the_end(server, end):
    """Old printers send bare LF; it ends a line there, but only CRLF.CRLF ends the message."""
    with ready(server, "inside") as c:
        c.send(b"Subject: printer\n\nx" + end + SMUGGLED)
        r = c.reply(250)
        c.cmd("NOOP", 250)
    m = server.message(r)
    assert len(server.take()) == 1
    assert m.body.startswith(b"Subject: printer\n") and b"Subject: smuggled\n" in m.body and b"\r" not in m.body


@pytest.mark.parametrize("bad", [b"x\ry\r\n", b"x\r\r\n", b"x\0y\r\n", b"\r\n.\r\r\n"])
def test_inside_refuses_bare_cr_and_nul(server, bad):
    with ready(server, "inside") as c:
        c.send(b"Subject: printer\r\n\r\n" + bad + b".\r\n")
        c.reply(550)
        c.closed()
    server.assert_nothing()


# ---- Size ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def small_server(work, house, radius_conf):
    import harness
    s = harness.Server(work, house, radius_conf, control={"databytes": "1000\n"})
    yield s
    s.stop()


def sized(n):
    """A message of n octets as databytes counts them: after CRLF to LF, without our own lines."""
    head = HEAD.replace(b"\r\n", b"\n") + b"\n"
    text = b"s" * (n - len(head) - 1) + b"\n"
    return (head + text).replace(b"\n", b"\r\n")


@pytest.mark.parametrize("size,code", [(999, 250), (1000, 250), (1001, 552), (200000, 552)])
@pytest.mark.parametrize("profile", ["smtp", "submissions", "inside"])
def test_databytes(small_server, profile, size, code):
    with small_server.session(profile) as c:
        assert c.keywords["SIZE"] == ["1000"]
        r = c.mail(sized(size), rcpts=["you@local.example"], expect=code)
        if code == 552:
            assert r.enhanced == "5.3.4"
            small_server.assert_nothing()
        c.mail(rcpts=["you@local.example"])  # the session goes on
    small_server.take()


def test_qmail_32_declared_too_big(small_server):
    with small_server.session("smtp") as c:
        assert c.cmd("MAIL FROM:<me@client.example> SIZE=1001", 552).enhanced == "5.3.4"
        c.cmd("MAIL FROM:<me@client.example> SIZE=1000", 250)
    small_server.assert_nothing()


def test_dots_are_not_counted(small_server):
    """Stuffed dots are not part of the message."""
    body = b".\r\n" * 300
    with small_server.session("smtp") as c:
        c.mail(smtpc.stuff(HEAD + b"\r\n" + body), rcpts=["you@local.example"])
    (m,) = small_server.take()
    assert m.body.count(b"\n.") == 300


# ---- Hops ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("hops,code", [(99, 250), (100, 554), (101, 554)])
@pytest.mark.parametrize("field", ["Received: x", "received : x", "Delivered-To: y", "RECEIVED:\r\n\tx"])
def test_qmail_32_hops(server, field, hops, code):
    message = (field + "\r\n").encode() * hops + HEAD + b"\r\nReceived: in the body\r\n"
    with server.session("smtp") as c:
        r = c.mail(message, rcpts=["you@local.example"], expect=code)
        if code == 554:
            assert r.enhanced == "5.4.6"
            server.assert_nothing()
        c.cmd("NOOP", 250)
    if code == 554:
        sid = server.gone(c)["sid"]
        assert server.log("note", sid=sid)[-1]["kind"] == "loop"


def test_hops_in_the_body_do_not_count(server):
    with server.session("smtp") as c:
        c.mail(HEAD + b"\r\n" + b"Received: x\r\n" * 200, rcpts=["you@local.example"])


# ---- Fields ----------------------------------------------------------------------------------------------------------

DATE = r"[1-9][0-9]? (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} -0000"


@pytest.mark.parametrize("profile,tls,esmtp,protocol,user", [
    ("smtp", False, False, "SMTP", ""), ("smtp", False, True, "ESMTP", ""), ("smtp", True, True, "ESMTPS", ""),
    ("submission", True, True, "ESMTPSA", "alice@"), ("submissions", None, True, "ESMTPSA", "alice@"),
    ("inside", False, True, "ESMTP", ""), ("inside", False, False, "SMTP", ""),
])
def test_qmail_18_19_20_received(server, profile, tls, esmtp, protocol, user):
    """18: qmail's own line. 19: its date is UTC, in its form. 20: the network's pair of lines, with the right protocol."""
    with server.session(profile, tls=tls) as c:
        if not esmtp:
            c.cmd("HELO client.example", 250)
        r = c.mail(rcpts=["you@local.example"])
        m = server.message(r)
    qid, qp, when = smtpc.queue_id(r)
    assert qid == m.id and abs(when - time.time()) < 10
    assert re.fullmatch(r"Received: \(qmail %d invoked (from network|by uid \d+)\); %s" % (qp, DATE), m.head[0].decode())
    assert m.head[1].decode() == "Received: from unknown (HELO client.example) (%s%s)" % (user, c.source)
    # RFC 8314 section 4.3: the cipher, in a clause of its own.
    clauses = (r" \(TLSv1\.2\) id %d tls TLS_ECDHE_[A-Z0-9_]+" if "S" in protocol[5:] else " id %d") % qid
    assert re.fullmatch(r"  by mail\.example\.net with %s%s; %s" % (protocol, clauses, DATE), m.head[2].decode())
    text = re.search(DATE, m.head[0].decode()).group(0)
    stamp = time.mktime(time.strptime(text[:-6], "%d %b %Y %H:%M:%S")) - time.timezone
    assert abs(stamp - time.time()) < 3700 * (time.localtime().tm_isdst > 0) + 60


@pytest.mark.parametrize("profile,protocol", [("submissions", "SMTPSA"), ("smtp", "SMTP")])
def test_received_of_international_mail(server, profile, protocol):
    """RFC 6531 section 3.7.3; and only of the message that said so."""
    with server.session(profile) as c:
        for params, name in ((" SMTPUTF8 BODY=8BITMIME", "UTF8" + protocol), ("", "E" + protocol)):
            m = server.message(c.mail(rcpts=["you@local.example"], params=params))
            assert " with %s " % name in m.received
            assert server.log("accept", qid=str(m.id))[-1]["proto"] == name


def test_received_names_the_cipher(server):
    """RFC 8314 section 4.3; the same one as in the log."""
    with server.session("submissions") as c:
        cipher = c.sock.cipher()[0]
        m = server.message(c.mail())
    event = server.log("tls", sid=server.gone(c)["sid"])[-1]
    assert event["version"] == "TLSv1.2" and " tls %s; " % event["cipher"] in m.received
    iana = event["cipher"].replace("TLS_", "").replace("_WITH", "").replace("AES_", "AES").replace("_", "-")
    assert iana.startswith(cipher), (iana, cipher)


@pytest.mark.parametrize("helo,shown", [
    ("client.example", "client.example"), ("[192.0.2.1]", "[192.0.2.1]"), ("a_b", "a?b"), ("x(y)z", "x?y?z"),
    ("<b>;\"q\"\\", "?b???q??"), ("münchen.example", "m??nchen.example"), ("a'b`c|d", "a?b?c?d"),
])
def test_qmail_21_values_are_safe(server, helo, shown):
    """21: nothing a client says can break out of its place in Received."""
    with server.connect("smtp") as c:
        c.cmd(("EHLO " + helo).encode(), 250)
        m = server.message(c.mail(rcpts=["you@local.example"]))
    assert m.head[1].decode() == "Received: from unknown (HELO %s) (%s)" % (shown, c.source)


def test_qmail_21_user_name_is_safe(server):
    with server.session("submissions", login="jürgen") as c:
        m = server.message(c.mail())
    assert m.head[1].decode() == "Received: from unknown (HELO client.example) (j??rgen@%s)" % c.source


def field_lines(m, name):
    header = m.body.split(b"\n\n", 1)[0].split(b"\n")
    return [x for x in header if x.lower().startswith(name.lower() + b":")]


@pytest.mark.parametrize("missing", [(), (b"Date",), (b"Message-ID",), (b"Date", b"Message-ID")], ids=repr)
@pytest.mark.parametrize("profile,adds", [("submission", True), ("submissions", True), ("smtp", False)])
def test_missing_fields(server, profile, adds, missing):
    """RFC 6409 section 8: submission adds Date and Message-ID where they are missing, and touches nothing else."""
    lines = [x for x in smtpc.MESSAGE.split(b"\r\n") if not x.startswith(tuple(missing) or (b"\xff",))]
    message = b"\r\n".join(lines)
    with server.session(profile) as c:
        m = server.message(c.mail(message, rcpts=["you@local.example"]))
    body = m.body
    for name in missing:
        found = field_lines(m, name)
        assert len(found) == (1 if adds else 0)
        for line in found:
            body = body.replace(line + b"\n", b"", 1)
            if name == b"Date":
                assert re.fullmatch(rb"Date: ((Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?" + DATE.replace("-0000", r"[+-]0000").encode(), line)
            else:
                assert re.fullmatch(rb"Message-ID: <[!-;=?-~]+@mail\.example\.net>", line)
    assert body == smtpc.stored(message)


@pytest.mark.parametrize("message", [
    b"Subject: no end\r\n", b"\r\nbody\r\n", b"", b"not a header line\r\nbody\r\n", b"Subject: folded\r\n Date: not a field\r\n\r\nx\r\n",
    b"X-Date: x\r\nNot-Message-ID: y\r\n\r\nDate: body\r\n",
])
def test_fields_are_added_to_odd_messages(server, message):
    with server.session("submissions") as c:
        m = server.message(c.mail(message))
    assert len(field_lines(m, b"Date")) == 1 and len(field_lines(m, b"Message-ID")) == 1
    rest = m.body
    for line in field_lines(m, b"Date") + field_lines(m, b"Message-ID"):
        rest = rest.replace(line + b"\n", b"", 1)
    assert rest in (smtpc.stored(message), b"\n" + smtpc.stored(message))


@pytest.mark.parametrize("spelling", [b"date: x\r\nmessage-id: y\r\n", b"DATE : x\r\nMESSAGE-ID\t: y\r\n",
                                      b"Date:\r\n x\r\nMessage-Id:\r\n\ty\r\n"])
def test_present_fields_are_recognised(server, spelling):
    message = b"Subject: s\r\n" + spelling + b"\r\nx\r\n"
    with server.session("submissions") as c:
        assert server.message(c.mail(message)).body == smtpc.stored(message)


def test_message_ids_differ(server):
    with server.session("submissions") as c:
        ids = [field_lines(server.message(c.mail(b"Subject: s\r\n\r\n")), b"Message-ID")[0] for _ in range(5)]
    assert len(set(ids)) == 5


# ---- Recipients ------------------------------------------------------------------------------------------------------

def test_qmail_17_recipients(server):
    """17: order and multiplicity are the client's; nothing is dropped or merged. 100 fit (RFC 5321 4.5.3.1.8)."""
    rcpts = ["u%d@far.example" % (n * 7 % 100) for n in range(100)] + ["u0@far.example", "U0@FAR.example", "u0@far.example"]
    with server.session("submissions") as c:
        c.send("MAIL FROM:<me@client.example>\r\n" + "".join("RCPT TO:<%s>\r\n" % r for r in rcpts))
        for _ in range(len(rcpts) + 1):
            c.reply(250)
        m = server.message(c.data(smtpc.MESSAGE))
    assert m.rcpts == [r.encode() for r in rcpts]


def test_too_many_recipients(server):
    """452 4.5.3 from the 1001st on, and the message still goes to the first thousand."""
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        long = "@" + ".".join(["d" * 60] * 3) + ".example"
        c.send("".join("RCPT TO:<u%d%s>\r\n" % (n, long) for n in range(1000)))
        for _ in range(1000):
            c.reply(250)
        for n in range(3):
            assert c.cmd("RCPT TO:<more%d@far.example>" % n, 452).enhanced == "4.5.3"
        m = server.message(c.data(smtpc.MESSAGE))
    assert m.rcpts == [("u%d%s" % (n, long)).encode() for n in range(1000)]


def test_many_messages_in_a_session(server):
    with server.session("submissions") as c:
        for n in range(30):
            m = server.message(c.mail(smtpc.MESSAGE, sender="me%d@client.example" % n))
            assert m.sender == b"me%d@client.example" % n
        c.quit()
    event = server.gone(c)
    assert event["msgs"] == "30" and event["rcpts"] == "30" and event["user"] == "alice"
    assert len(tools.poll(lambda: server.log("accept", sid=event["sid"]), "accepts")) == 30
