# SPDX-License-Identifier: MIT
"""The order of system calls on a message's way to disk, and what is left when the injector dies between any two of them."""

import os
import re
import tempfile

import pytest

import smtpc
import tools
from tools import poll

LISTEN = {"inside": "inside 127.0.0.1:{}"}
JOURNAL = tools.has_journal(tempfile.gettempdir())  # where the homes of servers are
CALLS = ("sync_file_range,open,openat,link,linkat,unlink,unlinkat,rename,renameat,renameat2,fsync,fdatasync,write,writev,close,"
         "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,sendmsg,ftruncate,truncate,mkdir,mkdirat,fork,vfork,clone")

pytestmark = pytest.mark.release


def strace(scratch, *words):
    """For Server: run under strace. -D: the server is our child, not strace's, so that its pid and exit status are what they are."""
    def prepare(server):
        # Made beforehand, since main would make them with the very calls that are counted.
        tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
        server.tool("users")
    return {"wrap": ["strace", "-D", "-f", "-q", "-y", "-s", "200", "-o", os.path.join(scratch, "trace"), *words],
            "prepare": prepare, "listen": LISTEN}


def failing(scratch, calls, error, when):
    """
    The calls fail. strace then makes the kernel run another call in their place; the usual one, number -1, would be stopped by the
    system call filter, so it is getpid.
    """
    return strace(scratch, "-e", "trace=" + calls, "-e", "inject=%s:error=%s:syscall=getpid%s" % (calls, error, when and ":when=" + when))


def clean(server):
    for d in ("pid", "intd", "todo"):
        for n in os.listdir(os.path.join(server.queue, d)):
            os.unlink(os.path.join(server.queue, d, n))
    for f in server.files():
        os.unlink(os.path.join(server.queue, f))


class Line:
    def __init__(self, text):
        m = re.match(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)", text)
        self.text = text
        self.pid, self.call, self.args, self.result = m.groups() if m else (None, None, "", None)
        self.path = "".join(re.findall(r'"([^"]*)"', self.args)[:1])
        self.fd = "".join(re.findall(r"^\d+<([^>]*)>", self.args)[:1])


def whole(server, scratch):
    """The trace of a server that has ended: strace, which nobody waits for, writes main's end last."""
    path = os.path.join(scratch, "trace")
    poll(lambda: re.search(rb"^%d +\+\+\+ exited" % server.pid, tools.read(path), re.M), "the end of the trace")
    return tools.read(path).decode("utf-8", "replace")


@pytest.fixture
def traced(make_server, scratch):
    server = make_server(**strace(scratch, "-e", "trace=" + CALLS))
    with server.session("inside") as c:
        r = c.mail()
        c.quit()
    m = server.message(r)
    server.take()
    server.stop()
    text = whole(server, scratch)
    lines = [Line(x) for x in text.splitlines()]
    warden = str(m.envelope.pid)
    out = [x for x in lines if x.pid == warden and x.call]
    assert out, text[:3000]
    return server, m, out


def index(lines, what, want, which=0):
    found = [i for i, x in enumerate(lines) if want(x)]
    assert found, "no %s in\n%s" % (what, "\n".join(x.text for x in lines[-60:]))
    return found[which]


def last(lines, what, want):
    return index(lines, what, want, -1)


@pytest.mark.root
def test_qmail_25_26_27_28_order(traced):
    """
    25: no owner or mode changes after the todo link. 26: mess and intd are on disk before todo is linked (that mess is so before intd is
    made, as with qmail-queue, nobody can see); or, where the file system keeps things in order, pushed out. 27: so are the directory entries, before the reply. 28: the trigger comes last, one octet,
    closed before anything blocks.
    """
    _, m, lines = traced
    n, k = str(m.id), str(m.id % 3)
    made = index(lines, "file in pid", lambda x: x.call.startswith("open") and x.path.startswith("pid/") and "O_EXCL" in x.args)
    linked = index(lines, "link into mess", lambda x: x.call.startswith("link") and x.path.startswith("pid/") and "mess/%s/%s" % (k, n) in x.args)
    unlinked = index(lines, "unlink in pid", lambda x: x.call.startswith("unlink") and x.path.startswith("pid/"))
    before = "sync_file_range" if JOURNAL else "fsync"
    synced = last(lines, "mess put on disk", lambda x: x.call == before and re.search(r"/(mess/%s/%s|pid/[^>]*)( \(deleted\))?$" % (k, n), x.fd))
    intd = index(lines, "open of intd", lambda x: x.call.startswith("open") and x.path == "intd/" + n and "O_EXCL" in x.args)
    intd_synced = index(lines, "intd put on disk", lambda x: x.call == before and x.fd.endswith("/intd/" + n))
    todo = index(lines, "link to todo", lambda x: x.call.startswith("link") and x.path == "intd/" + n and '"todo/%s"' % n in x.args)
    if JOURNAL:
        mess_dir = synced
        todo_dir = index(lines, "fsync of the envelope", lambda x: x.call == "fsync" and x.fd.endswith("/intd/" + n))
    else:
        mess_dir = index(lines, "fsync of mess' directory", lambda x: x.call == "fsync" and x.fd.endswith("/mess/" + k))
        todo_dir = index(lines, "fsync of todo", lambda x: x.call == "fsync" and x.fd.endswith("/todo"))
    trigger = index(lines, "trigger", lambda x: x.call.startswith("open") and x.path == "lock/trigger")
    reply = max(i for i, x in enumerate(lines) if x.call in ("sendmsg", "write") and i > todo)
    assert made < linked < unlinked < intd < min(synced, intd_synced)
    assert max(synced, intd_synced) < todo < todo_dir
    assert mess_dir < todo
    assert todo < trigger
    assert "O_WRONLY" in lines[trigger].args and "O_NONBLOCK" in lines[trigger].args
    assert max(todo_dir, trigger) < reply
    changes = [x for x in lines if re.match(r"f?l?ch(mod|own)", x.call)]
    assert not [x for x in changes if lines.index(x) > todo], [x.text for x in changes]
    # Never renamed, never written in place once it is linked.
    assert not [x for x in lines if x.call.startswith("rename") or x.call.endswith("truncate")]
    assert not [x for x in lines[todo:] if x.call in ("write", "writev") and "/intd/" in x.fd + x.path]


@pytest.mark.root
def test_qmail_28_trigger_octet(make_server, scratch):
    """With a reader: open, one octet, close, with nothing between."""
    server = make_server(**strace(scratch, "-e", "trace=all"))
    reader = os.open(os.path.join(server.queue, "lock", "trigger"), os.O_RDONLY | os.O_NONBLOCK)
    with server.session("inside") as c:
        m = server.message(c.mail())
    server.take()
    server.stop()
    os.close(reader)
    text = whole(server, scratch)
    lines = [x for x in map(Line, text.splitlines()) if x.pid == str(m.envelope.pid) and x.call]
    at = index(lines, "trigger", lambda x: x.call.startswith("open") and x.path == "lock/trigger")
    after = [x for x in lines[at + 1:] if x.call != "fcntl"]  # fcntl: close-on-exec, set by libc
    assert [x.call for x in after[:2]] == ["write", "close"]
    assert after[0].result == "1" and all(x.fd.endswith("/trigger") for x in after[:2])


@pytest.mark.root
@pytest.mark.parametrize("apart", [None, "info", "todo"])
def test_flushes_by_file_system(make_ram_server, scratch, apart):
    """One flush a message where a journal keeps all in order; four where a part of the queue is on another file system."""
    server = make_ram_server(start=False, **strace(scratch, "-e", "trace=fsync,fdatasync"))
    if apart:
        place = os.path.join(server.queue, apart)
        st = os.stat(place)
        tools.run("mount", "-t", "tmpfs", "-o", "mode=%o,uid=%d,gid=%d" % (st.st_mode & 0o777, st.st_uid, st.st_gid), "none", place)
        if apart == "info":
            for i in os.listdir(os.path.join(server.queue, "mess")):
                os.mkdir(os.path.join(place, i), 0o700)
                os.chown(os.path.join(place, i), st.st_uid, st.st_gid)
    try:
        server.start()
        with server.session("inside") as c:
            if apart == "todo":
                c.mail(expect=451)  # no link leads there
            else:
                c.mail()
        server.take()
        server.stop()
        lines = [x for x in map(Line, whole(server, scratch).splitlines()) if x.call]
        flushes = [x for x in lines if "/mess/" in x.fd + x.path or "/intd/" in x.fd + x.path or "/todo" in x.fd + x.path]
        assert len(flushes) == {None: 1, "info": 4, "todo": 3}[apart], flushes
    finally:
        if apart:
            tools.run("umount", place)


# Where the injector may die: the n-th call of this name in the process that stores the message. "committed": the todo link is made.
# Calls of a warden for one message: open pid, link mess, unlink pid, open intd, fsync mess, (open,fsync) mess/k, fsync intd, link todo,
# (open,fsync) todo, open trigger; before the flushes three sync_file_range, which where there is a journal replace all but one of them.
FLUSHES = 1 if JOURNAL else 4
STEPS = [("link,linkat", 1, False), ("unlink,unlinkat", 1, False), ("link,linkat", 2, False)] + \
    [("sync_file_range", n, False) for n in (1, 2, 3)] + \
    [("fsync,fdatasync", n, n == FLUSHES) for n in range(1, FLUSHES + 1)]


@pytest.mark.parametrize("calls,when,committed", STEPS, ids=["%s-%d" % (c.split(",")[0], n) for c, n, _ in STEPS])
def test_qmail_31_killed_at(make_server, scratch, calls, when, committed):
    """
    31: SIGKILL on entry to the call. Before the todo link there is no todo entry and the client saw no 250; after it the message is
    whole, and what the client saw was no refusal.
    """
    server = make_server(**strace(scratch, "-e", "trace=" + calls, "-e", "inject=%s:signal=KILL:when=%d" % (calls, when)))
    server.crash_expected = True
    c = server.session("inside")
    c.envelope()
    c.send(b"DATA\r\n")
    c.send(smtpc.MESSAGE + b".\r\n")
    said = c.rest()
    assert b"\r\n250 2.0.0 ok " not in b"\r\n" + said
    todo = os.listdir(os.path.join(server.queue, "todo"))
    assert len(todo) == int(committed), server.files()
    for n in todo:
        (m,) = server.messages()
        assert m.body == smtpc.stored(smtpc.MESSAGE) and m.rcpts == [b"you@far.example"]
    # States that the 36 h sweeps know: pid files, mess with or without intd; never an envelope without a message.
    mess = {f.split("/")[-1] for f in server.files() if f.startswith("mess/")}
    assert set(os.listdir(os.path.join(server.queue, "intd"))) <= mess and set(todo) <= mess
    poll(server.idle, "the end of the session")
    clean(server)
    # Service goes on (the injection counts in every new process, so a plain command must do).
    with server.connect("inside") as again:
        again.ehlo()


FAULTS = [("fsync,fdatasync", n, error) for n in range(1, FLUSHES + 1) for error in ("EIO", "ENOSPC")] + \
    [("sync_file_range", n, error) for n in (1, 2, 3) for error in ("EIO", "ENOSPC")] + \
    [("link,linkat", n, error) for n in (1, 2) for error in ("EIO", "ENOSPC", "EDQUOT")]


@pytest.mark.parametrize("calls,when,error", FAULTS, ids=["%s-%d-%s" % (c.split(",")[0], n, e) for c, n, e in FAULTS])
def test_qmail_32_failed_calls(make_server, scratch, calls, when, error):
    """A call that fails is a 4xx and leaves nothing; the same session can then send."""
    server = make_server(**failing(scratch, calls, error, str(when)))
    with server.session("inside") as c:
        c.envelope()
        r = c.cmd("DATA", (354, 451, 452))
        if r == 354:
            c.send(smtpc.MESSAGE + b".\r\n")
            r = c.reply((451, 452))
        server.assert_nothing()
        c.cmd("RSET", 250)
        server.message(c.mail())
    server.take()


@pytest.mark.parametrize("times", ["1", "1..3"])
def test_qmail_34_number_taken(make_server, scratch, times):
    """34: EEXIST on the link into mess is retried with a new pid file."""
    server = make_server(**failing(scratch, "link,linkat", "EEXIST", times))
    with server.session("inside") as c:
        server.message(c.mail())
    assert len(server.take()) == 1
    assert os.listdir(os.path.join(server.queue, "pid")) == []


def test_qmail_34_all_numbers_taken(make_server, scratch):
    """And given up with a temporary failure when that does not end."""
    server = make_server(**failing(scratch, "link,linkat", "EEXIST", ""))
    with server.session("inside") as c:
        c.envelope()
        c.cmd("DATA", (451, 452))
        server.assert_nothing()
        c.cmd("NOOP", 250)
