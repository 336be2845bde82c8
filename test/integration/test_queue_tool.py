# SPDX-License-Identifier: MIT
"""`mailstile queue`, as an operator uses it: lists, counts, orders, on a running server and on files alone."""

import json
import os
import re

import pytest

import harness
import tools
from test_delivery import empty, messages, send
from test_queue_orders import ready
from tools import poll

pytestmark = pytest.mark.release


def queue(server, *words, status=0):
    p = tools.run(*server.house.argv([server.binary, "queue", "-H", server.home, "-S", server.ctl, *words]), check=False, env=harness.environment())
    assert p.returncode == status, p.text
    assert re.fullmatch(r"[ -~\n]*", p.text), "not plain: %r" % p.text
    return p.text


def listed(server):
    return {e["id"]: e for e in (json.loads(line) for line in queue(server, "-j").splitlines())}


def test_operator(down):
    """From a look at mail that waits to an empty queue."""
    server, start = down
    ready(server).close()
    assert queue(server) == "0 messages\n" and queue(server, "stat").startswith("0 messages\n")
    send(server, rcpts=["bob@far.example", "carol@Near.example"])
    send(server, rcpts=["dave@near.example"], sender="")
    send(server, rcpts=["eve@far.example"])
    mine = poll(lambda: len(listed(server)) == 3 and {e["state"] for e in listed(server).values()} <= {"waiting", "timed"} and listed(server), "three that wait")
    by_rcpt = {e["to"][0]: n for n, e in mine.items()}
    assert set(by_rcpt) == {"bob@far.example", "dave@near.example", "eve@far.example"}
    e = mine[by_rcpt["bob@far.example"]]
    assert e["to"] == ["bob@far.example", "carol@Near.example"] and e["sender"] == "alice@client.example" and e["size"] > 100 and e["done"] == 0
    assert mine[by_rcpt["dave@near.example"]]["sender"] == ""
    assert "Connection refused" in [e for e in mine.values() if e["state"] == "waiting"][0]["error"]
    # Each of them was tried by itself, and knows what came of it.
    assert all("Connection refused" in e["error"] for e in mine.values() if e["state"] == "timed")
    text = queue(server, "list")
    for n, e in listed(server).items():
        assert re.search(r"^%d  \d+ s old, %d octets, from <%s>$" % (n, e["size"], e["sender"]), text, re.M), text
    assert text.endswith("3 messages\n") and "        carol@Near.example\n" in text and "is down, tried in" in text
    assert re.match(r"3 messages, .*; the oldest is \d+ s old\n    127\.0\.0\.1: \d+ wait, 0 deliveries run; down, tried in", queue(server, "stat"))
    # Orders: by domain, by number, by all.
    assert queue(server, "hold", "NEAR.example") == "2 done, 0 not\n"
    assert {n for n, e in listed(server).items() if e["state"] == "held"} == {by_rcpt["bob@far.example"], by_rcpt["dave@near.example"]}
    assert queue(server, "remove", "all", status=100).startswith("mailstile: with `all` say -y")
    assert "no such message" in queue(server, "remove", "1", status=1)
    assert queue(server, "remove", str(by_rcpt["dave@near.example"])) == "1 done, 0 not\n"
    assert "release it" in queue(server, "flush", str(by_rcpt["bob@far.example"]), status=1)
    assert queue(server, "hold", status=100).startswith("usage: mailstile queue")
    with start() as peer:
        queue(server, "flush")
        poll(lambda: len(messages(peer)) == 1, "the one that is not held")
        assert queue(server, "release", "-y", "all") == "1 done, 0 not\n"
        poll(lambda: empty(server), "an empty queue")
        assert len(messages(peer)) == 2 and queue(server) == "0 messages\n"
        server.stop()


def test_files_alone(make_server):
    """Without a server there are the files: what is new, what is held, strange octets."""
    server = make_server(start=False, control={"relay": "off\n"})
    server.start()
    send_plain = server.session("inside")
    send_plain.mail(sender='"a\\"b\\\\c"@x.example', rcpts=("you@far.example",))
    send_plain.quit()
    server.stop()
    assert [e["state"] for e in listed(server).values()] == ["new"]
    (n,) = listed(server)
    split = len(os.listdir(server.queue + "/mess"))
    ids = (harness.USERS["qmails"], harness.GROUPS["qmail"]) if harness.ROOT else (-1, -1)
    for d, text in (("info", b"Fa\x1b[31m\xff\"\\@x.example\0"), ("remote", b"Tb\x1b]0;x\x07@y.example\0Dc@y.example\0Tcut")):
        path = "%s/%s/%d/%d" % (server.queue, d, n % split, n)
        tools.write(path, text, 0o600)
        os.chown(path, *ids)
    os.utime(path, (0, 2147400000))
    (e,) = listed(server).values()
    assert e["sender"] == "a\x1b[31m\xff\"\\@x.example" and e["to"] == ["b\x1b]0;x\x07@y.example"] and e["done"] == 1 and e["state"] == "held"
    assert "\\x1b[31m\\xff" in queue(server) and "(1 done)" in queue(server)
    for f in server.files():
        os.unlink(os.path.join(server.queue, f))


def test_nobody_delivers(make_server):
    """The server runs, and leaves delivery to others."""
    server = make_server()
    assert queue(server) == "0 messages\n"
    assert queue(server, "flush") == "0 done, 0 not\n"


@pytest.mark.root
def test_who_reads(make_server, scratch):
    """What others can write is read as the scheduler, in the queue's directory, without privileges."""
    server = make_server()
    trace = os.path.join(scratch, "trace")
    tools.run("strace", "-f", "-o", trace, *server.house.argv([server.binary, "queue", "-H", server.home, "-S", server.ctl]))
    text = tools.read(trace).decode()
    assert "chroot(" in text and text.index("chroot(") < text.index('"mess/0"') and re.search(r"setresuid\(%d" % harness.USERS["qmails"], text)
