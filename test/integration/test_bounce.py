# SPDX-License-Identifier: MIT
"""What senders get to read: bounces in both forms, for programs and for people, whatever addresses and remotes put into them."""

import email
import email.policy
import os
import re
import shutil

import pytest

import delivery
import tools
from delivery import Job, Rig, refused

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def binary(work):
    return shutil.copy2(delivery.build(True), os.path.join(work, "scheduler-bounce"))


@pytest.fixture
def rig(binary, tmp_path):
    made = []

    def make(act=Job.ok, **control):
        made.append(Rig(binary, str(tmp_path / ("home%d" % len(made))), act, {"bounceformat": "dsn\n", **control}))
        return made[-1]
    yield make
    for r in made:
        r.close()


class Report:
    """A delivery report as Python's parser reads it; global ones, whose parts it does not know, by their lines."""

    def __init__(self, job):
        self.job = job
        self.msg = m = email.message_from_bytes(job.body, policy=email.policy.default)
        assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status"
        assert m["MIME-Version"] == "1.0" and m["Auto-Submitted"] == "auto-replied"
        assert re.fullmatch(r"<[0-9]+\.[0-9a-f]{16}@mail\.example\.net>", m["Message-ID"]), m["Message-ID"]
        head, _, body = job.body.partition(b"\n\n")
        assert all(re.match(rb"([A-Za-z-]+: |[ \t]+\S)", line) for line in head.split(b"\n")), head
        assert len(head.split(b"\n")) == (11 if b"\nContent-Transfer-Encoding: 8bit" in head else 10), head
        boundary = b"--" + m.get_boundary().encode()
        parts = re.split(re.escape(b"\n" + boundary) + b"(?:--)?\n", b"\n" + body)
        assert len(parts) == 5 and parts[0] == b"" and parts[4] == b"", len(parts)
        split = [p.partition(b"\n\n") for p in parts[1:4]]
        self.types = [re.search(rb"^Content-Type: ([^;\n]+)", h, re.M).group(1).decode() for h, _, _ in split]
        (self.text, self.status, self.copy) = [b for _, _, b in split]
        for h, _, b in split:
            assert bool(re.search(rb"[\x80-\xff]", b)) <= (b"\nContent-Transfer-Encoding: 8bit" in h), (h, b[:200])
        assert bool(re.search(rb"[\x80-\xff]", body)) <= (m["Content-Transfer-Encoding"] == "8bit")
        self.groups = [[line.split(": ", 1) for line in re.sub(r"\n[ \t]+", " ", g.strip("\n")).split("\n")]
                       for g in self.status.decode("utf-8").split("\n\n")]
        assert self.status.endswith(b"\n") and not self.status.endswith(b"\n\n")
        assert all(len(f) == 2 for g in self.groups for f in g), self.groups
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", self.status)
        if self.types[1] == "message/delivery-status":
            python = [p for p in m.iter_parts()][1].get_payload()
            assert [[list(x) for x in p.items()] for p in python] == [[[k, v] for k, v in g] for g in self.groups]
            assert not m.defects and not any(p.defects for p in m.walk() if p.get_content_type().startswith("multipart/report"))
        self.of = {dict(g)["Final-Recipient"].split("; ", 1)[1]: dict(g) for g in self.groups[1:]}


def reports(r):
    return [Report(j) for j in r.nursery.jobs if j.sender == ""]


def test_report(rig):
    """Each part in its place, each fact from where it stands; the words are those of the other form."""
    def act(job):
        if job.sender:
            job.report(0, "D", 550, "192.0.2.1 does not like recipient.\nRemote host said: 550-5.1.1 no such user\n550 5.1.1 never was: (#5.7.1)\n")
            job.report(1, "D", 0, "2001:db8::1 says that it takes no message of this size. (#5.3.4)\n")
            job.report(2, "D", 554, "192.0.2.2 refuses.\nRemote host said: 554 away\nGiving up on 192.0.2.2.\n")
            job.report(3, "D", 0, "for reasons of its own\n")
            job.done()
        else:
            job.ok()
    r = rig(act=act)
    body = b"Subject: words\n\n--=_\nwords without an end"
    n = r.queue.todo(sender="ann+x@far.example", rcpts=["a@b.example", "b@b.example", "c@b.example", "d@b.example"], body=body)
    s = r.start()
    s.drained()
    b = reports(r)[0]
    assert b.job.rcpts == ["ann+x@far.example"] and b.msg["To"] == "ann+x@far.example" and b.msg["Subject"] == "failure notice"
    assert b.types == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert b.text.startswith(b"Hi. This is the mailstile program at mail.example.net.\n")
    assert b"\n\n<d@b.example>:\nfor reasons of its own\n" in b.text and b"\n<a@b.example>:\n192.0.2.1 does not" in b.text
    about = dict(b.groups[0])
    assert about["Reporting-MTA"] == "dns; mail.example.net"
    assert email.utils.parsedate_to_datetime(about["Arrival-Date"]).timestamp() == pytest.approx(r.clock.now(), abs=120)
    assert b.of == {
        "a@b.example": {"Final-Recipient": "rfc822; a@b.example", "Action": "failed", "Status": "5.1.1", "Remote-MTA": "dns; [192.0.2.1]",
                        "Diagnostic-Code": "smtp; 550-5.1.1 no such user 550 5.1.1 never was: (#5.7.1)"},
        "b@b.example": {"Final-Recipient": "rfc822; b@b.example", "Action": "failed", "Status": "5.3.4", "Remote-MTA": "dns; [IPv6:2001:db8::1]"},
        "c@b.example": {"Final-Recipient": "rfc822; c@b.example", "Action": "failed", "Status": "5.0.0", "Remote-MTA": "dns; [192.0.2.2]",
                        "Diagnostic-Code": "smtp; 554 away"},
        "d@b.example": {"Final-Recipient": "rfc822; d@b.example", "Action": "failed", "Status": "5.0.0"}}
    assert b.copy == b"Return-Path: <ann+x@far.example>\n" + delivery.RECEIVED + body
    assert s.log("bounce")[0]["id"] == str(n)
    s.stop()


def test_double(rig):
    """Of a bounce that fails, too: to whom, from whom, and what is quoted, as in the other form; a third one is not made."""
    r = rig(act=refused)
    r.queue.todo()
    s = r.start()
    s.drained()
    assert [(j.sender, j.rcpts) for j in r.nursery.jobs] == [
        ("ann@far.example", ["bob@b.example"]), ("", ["ann@far.example"]), ("#@[]", ["postmaster@mail.example.net"])]
    d = Report(r.nursery.jobs[2])
    assert list(d.of) == ["ann@far.example"] and d.copy == b"Return-Path: <>\n" + r.nursery.jobs[1].body
    assert b"itself come to nothing" in d.text
    s.stop()


def test_long_message(rig):
    """Over BOUNCE_COPY_MAX only the header goes back."""
    r = rig(act=lambda j: j.ok() if not j.sender else refused(j))
    r.queue.todo(body=b"Subject: big\n\n" + b"0123456789abcde\n" * 5000)
    s = r.start()
    s.drained()
    b = reports(r)[0]
    assert b.types[2] == "text/rfc822-headers" and b.copy == b"Return-Path: <ann@far.example>\n" + delivery.RECEIVED + b"Subject: big\n\n"
    s.stop()


def test_8bit(rig):
    """Octets that are not ASCII: declared in the parts that have them, and in the whole; never where they must not be."""
    r = rig(act=lambda j: j.ok() if not j.sender else refused(j))
    r.queue.todo(body=b"Subject: x\n\ngr\xfc\xdfe\n")
    r.queue.todo(body="Subject: gr\u00fc\u00dfe\n\nx\n".encode(), sender="j\u00fcrg@far.example", rcpts=["\u00e4+nn=a@b.example", "plain@b.example"])
    s = r.start()
    s.drained()
    plain, world = sorted(reports(r), key=lambda b: len(b.of))
    assert plain.types == ["text/plain", "message/delivery-status", "message/rfc822"] and plain.copy.endswith(b"gr\xfc\xdfe\n")
    assert world.types == ["text/plain", "message/global-delivery-status", "message/global"]
    assert world.groups[1][0] == ["Final-Recipient", "utf-8; \u00e4\\x{2B}nn\\x{3D}a@b.example"]
    assert world.groups[2][0] == ["Final-Recipient", "rfc822; plain@b.example"]
    assert world.job.rcpts == ["j\u00fcrg@far.example"] and '"j\u00fcrg"@far.example'.encode() in world.job.body.split(b"\n\n")[0]
    s.stop()


ODD = [
    b"", b"\n\n\n", b"<>:\n\n", b"<", b"<a", b"<a@b>", b"<a@b>:", b"a\n\n<b@c>:\n", b"<a@b>:\n" + b"x" * 5000, b"<" + b"y" * 5000 + b">:\nno\n\n",
    b"<a@b>:\nRemote host said: ", b"<a@b>:\nRemote host said: 55", b"<a@b>:\nRemote host said: 550", b"<a@b>:\nRemote host said: 550 5.1",
    b"<a@b>:\nRemote host said: 550 5.1.1234 x (#5.1.) (#9.1.1) (#4.2.2)", b"<a@b>:\n(#5.7.1", b"<a@b>:\n(#", b"<a@b>:\n\x00\x01\r\xff(#5.7.0)\n\n",
    b"<a\rX-Evil: 1@b>:\nRemote host said: 550 x\r\nX-Evil: 1\n550 y\n\n", b"<a@b>:\r\nRemote host said: 550 \x00\x7f\x80\n\n",
    b"<\xff\xfe@b>:\nno\n\n", b"<x>:\n" * 3, b"<a@b>:\nConnected to \nRemote host said: 550-5.1.1 a\n551 b\n\n", b"<a@b>:\n--=_0\n--\n\n--x--\n\n",
    b"<a@b>:\nno\n\n" * 400,
]


@pytest.mark.parametrize("form", ["dsn", "qsbmf"])
def test_odd_reasons(rig, form):
    """
    bounce/N with anything in it, as a crash, another program or a bad disk leave it: one report each, that parses, with nothing in its header or its
    fields but what is ours.
    """
    r = rig(bounceformat=form + "\n", bouncefrom="MAILER DAEMON\n")
    random = [bytes(os.urandom(200).replace(b"\x01", b"\n").replace(b"\x02", b"(#5.").replace(b"\x03", b"<a>:\n")) for _ in range(20)]
    for i, odd in enumerate(ODD + random):
        r.queue.queued(sender="s%d@far.example" % i, remote=(), bounce=odd or b"x", body=b"Subject: x\n\n")
    r.queue.queued(sender="new\nX-Evil: 1@far.example", remote=(), bounce=b"<a\nX-Evil: 1@b>:\nno\n\n")
    tools.write(r.queue.name("info", r.queue.queued(remote=(), bounce=b"<a@b>:\nno\n\n")), b"F\xff\xfe@far.example\0")
    s = r.start()
    s.drained()
    jobs = [j for j in r.nursery.jobs if j.sender == ""]
    assert len(jobs) == len(ODD) + len(random) + 2
    for j in jobs:
        head = j.body.partition(b"\n\n")[0]
        assert not re.search(rb"^X-Evil|[\x00-\x09\x0b-\x1f\x7f]", head, re.M), head
        head.decode("utf-8")
        assert re.search(rb'^From: "MAILER DAEMON"@mail.example.net$', head, re.M), head
        if form == "dsn":
            b = Report(j)
            assert len(b.groups) >= 2 and all(set(dict(g)) <= {
                "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"} for g in b.groups[1:])
            assert all(re.fullmatch(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", dict(g)["Status"]) for g in b.groups[1:])
        else:
            assert b"\n\nHi. This is the mailstile program" in j.body and b"\n--- Below this line is a copy" in j.body
    by = {j.rcpts[0]: Report(j) for j in jobs} if form == "dsn" else {}
    if by:
        assert by["s14@far.example"].groups[1][2] == ["Status", "4.2.2"] and by["s17@far.example"].groups[1][2] == ["Status", "5.7.0"]
        assert len(by["s24@far.example"].groups) == 401 and by["s0@far.example"].groups[1][0][1] == "rfc822; unknown"
    s.stop()


def test_qsbmf_is_mime_too(rig):
    """The usual form says what it is, and what it has of octets that are not ASCII."""
    r = rig(act=lambda j: j.ok() if not j.sender else refused(j), bounceformat=None)
    r.queue.todo(body=b"Subject: x\n\nplain\n", sender="p@far.example")
    r.queue.todo(body="Subject: x\n\n\u00fc\n".encode(), sender="u@far.example")
    s = r.start()
    s.drained()
    for j in r.nursery.jobs:
        if j.sender == "":
            m = email.message_from_bytes(j.body, policy=email.policy.default)
            assert m["MIME-Version"] == "1.0" and m["Auto-Submitted"] == "auto-replied" and m["Message-ID"]
            assert m["Content-Transfer-Encoding"] == ("8bit" if j.rcpts == ["u@far.example"] else None)
            assert ("\u00fc" if j.rcpts == ["u@far.example"] else "plain") in m.get_content()
    s.stop()


def test_bad_format(binary, tmp_path):
    """Anything but the two words is told by file and line, and nothing is delivered."""
    q = delivery.Queue(str(tmp_path / "home"), bounceformat="rfc3464\n")
    p = tools.run(binary, q.home, "0", check=False)
    assert p.returncode == 100 and re.search("control/bounceformat line=1 msg=\"expected `qsbmf` or `dsn`", p.text), p.text
