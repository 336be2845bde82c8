# SPDX-License-Identifier: MIT
"""What reviews found, each with its mechanism, so that it does not come back."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import faults
import harness
import smtpc
import tools
from tools import poll

SMTP = {"smtp": "smtp 127.0.0.1:{}"}


def hears(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("name", ["tcp.smtp.cdb", "morercpthosts.cdb"])
@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_cdb_written_over(make_server, name, change):
    """A cdb that is rewritten in place, not renamed into place, was a live mapping: main or a warden died of SIGBUS or SIGSEGV."""
    server = make_server(listen=SMTP, start=False)
    path = os.path.join(server.control, name)
    with open(path, "wb") as f:
        f.write(tools.cdb_bytes([(b"%d.example" % n, b"") for n in range(200)]))
    server.start()
    with open(path, "r+b") as f:
        f.truncate(0)
        if change == "longer":
            f.write(b"\xff" * 100000)
    for _ in range(3):
        with server.connect("smtp") as c:
            c.ehlo()
            c.cmd("MAIL FROM:<a@b.example>", 250)
            c.cmd("RCPT TO:<c@7.example>", 250 if name == "morercpthosts.cdb" else 550)
            c.quit()
    assert not server.log("crash")


@pytest.mark.parametrize("old,new", [("127.0.0.1:{}", "{}"), ("{}", "127.0.0.1:{}")])
def test_reload_moves_a_listener(make_server, old, new):
    """The new socket was bound while the old one was still open, failed, and then the old one was closed, too."""
    server = make_server(listen={"smtp": "smtp " + old})
    port = server.port["smtp"]
    server.set(listen="smtp " + new.format(port) + "\n")
    server.reload()
    assert hears(port)
    assert server.log("reload")[-1]["unheard"] == "0"


@pytest.mark.release
def test_listener_is_tried_again(make_server, quick_binary):
    """An address that was taken at the start is listened on once it is free, without SIGHUP."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = make_server(listen=SMTP, start=False, binary=quick_binary)
        server.set(listen="smtp 127.0.0.1:%d\nsmtp 127.0.0.1:%d\n" % (server.port["smtp"], port))
        server.start()
        assert any("error" in e for e in server.log("listen"))
    poll(lambda: [e for e in server.log("listen") if e["addr"].endswith(":%d" % port) and "error" not in e], "the second listener")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&-"])
def test_started_with_closed_descriptors(make_server, closed):
    """What main opened first took the place of the closed descriptor, and was lost when that was pointed to /dev/null."""
    server = make_server(listen=SMTP, wrap=("sh", "-c", 'exec "$@" ' + closed, "sh"))
    with server.connect("smtp") as c:
        c.ehlo()
        c.mail(rcpts=["x@local.example"])


def test_refusals_are_limited(make_server):
    """One connection could fill the log with refused recipients for two hours."""
    server = make_server(listen=SMTP)
    with server.connect("smtp") as c:
        c.ehlo()
        c.cmd("MAIL FROM:<a@b.example>", 250)
        for _ in range(99):
            c.cmd("RCPT TO:<x@far.example>", 550)
        c.cmd("RCPT TO:<x@far.example>", 550)
        c.reply(421)
        c.closed()
    close = server.wait_log("close")
    assert close["refused"] == "100" and len(server.log("refuse")) == 64


def test_same_listener_twice(make_server):
    """The likeliest slip of a copied line passed `check`."""
    server = make_server(listen=SMTP, start=False)
    server.set(listen="smtp 2525\nsubmission 127.0.0.1:2525\n")
    p = server.tool("check", check=False)
    assert p.returncode == 1 and "/listen:2: error: " in p.text


def test_many_recipients_in_a_plain_maildir(make_server):
    """The Delivered-To lines exceeded the file size limit of the smtp process, which died of SIGXFSZ."""
    def prepare(s):
        tools.run(*s.house.argv(["sh", "-c", "mkdir -m 700 {0} {0}/tmp {0}/new {0}/cur && if test $(id -u) = 0; "
                                               "then chown -R qmailq {0}; fi".format(os.path.join(s.home, "out"))]))
    server = make_server(listen=SMTP, control={"spool": "maildir-plain out\n", "databytes": "20000\n"}, prepare=prepare)
    rcpts = ["%04d%s@%s.local.example" % (n, "x" * 56, ".".join(["y" * 60] * 2)) for n in range(1000)]
    server.set(rcpthosts="local.example\n.local.example\n")
    server.reload()
    with server.connect("smtp") as c:
        c.ehlo()
        c.mail(b"Subject: many\r\n\r\nhello\r\n", rcpts=rcpts)
    new = os.listdir(os.path.join(server.home, "out", "new"))
    assert len(new) == 1
    text = tools.read(os.path.join(server.home, "out", "new", new[0]))
    assert text.count(b"\nDelivered-To: ") == 1000
    os.unlink(os.path.join(server.home, "out", "new", new[0]))


def test_stop_beside_a_crash(make_server):
    """SIGTERM in the same wake-up as a crashed child was forgotten by the re-execution."""
    server = make_server(listen=SMTP)
    server.crash_expected = True
    c = server.connect("smtp")
    poll(server.pairs, "a session")
    _, smtp = server.pairs()[0]
    server.kill(signal.SIGSTOP)
    os.kill(smtp, signal.SIGSYS)
    poll(lambda: not faults.alive(smtp), "its end, of which main does not hear yet")
    server.kill(signal.SIGTERM)
    server.kill(signal.SIGCONT)
    server.wait_exit(0)
    c.close()


@pytest.mark.root
def test_descriptors_on_their_way(make_server):
    """
    The kernel counts descriptors that were sent and not yet received, for each user, against the sender's RLIMIT_NOFILE. That was 24: with
    25 sessions whose smtp processes had not looked yet, DATA failed for all others, and was taken for a crash.
    """
    many = ("import os, socket, sys\n"
            "os.setgroups([]); os.setgid(%d); os.setuid(%d)\n"
            "pairs = [socket.socketpair() for _ in range(10)]\n"
            "for a, _ in pairs:\n"
            "    for _ in range(40):\n"
            "        socket.send_fds(a, [b'x'], [0])\n"
            "print('sent', flush=True); sys.stdin.read()\n") % (harness.GROUPS["qmail"], harness.USERS["qmailq"])
    server = make_server(listen=SMTP)
    with subprocess.Popen([sys.executable, "-c", many], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"sent\n"
        with server.session("smtp") as c:
            server.message(c.mail(rcpts=["you@local.example"]))
        other.stdin.close()
    server.take()


@pytest.mark.release
def test_held_sessions_make_room(make_server, quick_binary):
    """Sessions between two BDAT chunks ignored being sent away, and were no longer counted: all places could be held."""
    server = make_server(listen={**SMTP, "submissions": "submissions 127.0.0.1:{}"}, binary=quick_binary)
    held = []
    for n in range(40):
        try:
            c = server.connect("smtp", source="127.55.%d.1" % (n % 20 + 1))
            c.ehlo()
            c.cmd("MAIL FROM:<a@b.example>", 250)
            c.cmd("RCPT TO:<x@local.example>", 250)
            c.send(b"BDAT 2\r\nab")
            c.reply(250)
            held.append(c)
        except (AssertionError, smtpc.Closed, OSError):
            time.sleep(0.1)
    begin = time.monotonic()

    def customer():
        try:
            with server.session("submissions") as c:
                return c.cmd("NOOP") == 250
        except (AssertionError, smtpc.Closed, OSError):
            return False

    poll(customer, "a customer to get in")
    assert time.monotonic() - begin < 5
    for c in held:
        c.close()
