# SPDX-License-Identifier: MIT
"""
What a qmail queue must look like when qmail-send comes to it. The numbers are those of the checklist for a foreign injector;
17-24 are also in test_data.py, 32 in test_commands.py and test_bdat.py, 2 and 3 in test_server.py, 25-28 in test_strace.py.
"""

import os
import re
import stat
import threading
import time

import pytest

import harness
import smtpc
import tools
from tools import ROOT, poll

SPLIT = 23

# path: owner, mode, split (queue format 1.2)
LAYOUT = {
    "": ("qmailq", 0o750, False), "pid": ("qmailq", 0o700, False), "mess": ("qmailq", 0o750, True),
    "intd": ("qmailq", 0o700, False), "todo": ("qmailq", 0o750, False), "info": ("qmails", 0o700, True),
    "local": ("qmails", 0o700, True), "remote": ("qmails", 0o700, True), "bounce": ("qmails", 0o700, False),
    "lock": ("qmailq", 0o750, False), "lock/sendmutex": ("qmails", 0o600, False), "lock/tcpto": ("qmailr", 0o644, False),
    "lock/trigger": ("qmails", 0o622, False),
}


def uid(name):
    return harness.USERS[name] if ROOT else os.getuid()


def gid():
    return harness.GROUPS["qmail"] if ROOT else os.getgid()


def snapshot(server):
    """Owner and mode of everything but messages."""
    out = {}
    for where, dirs, names in os.walk(server.queue):
        for name in [""] + dirs + [n for n in names if where.endswith("/lock")]:
            path = os.path.join(where, name)
            st = os.lstat(path)
            out[path] = (st.st_uid, st.st_gid, st.st_mode)
    return out


def send(server, profile="inside", n=1, **kw):
    with server.session(profile) as c:
        return [server.message(c.mail(**kw)) for _ in range(n)]


def test_qmail_01_layout(server):
    """1: every directory with its owner, group and mode; serving mail changes none of them."""
    before = snapshot(server)
    send(server, n=5)
    assert snapshot(server) == before
    for name, (owner, mode, split) in LAYOUT.items():
        path = os.path.join(server.queue, name)
        for p in [path] + [os.path.join(path, str(i)) for i in range(SPLIT) if split]:
            st = os.lstat(p)
            assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (uid(owner), gid(), mode), p
    assert stat.S_ISFIFO(os.lstat(os.path.join(server.queue, "lock/trigger")).st_mode)
    assert tools.read(os.path.join(server.queue, "lock/tcpto")) == bytes(1024)
    assert tools.read(os.path.join(server.queue, "lock/sendmutex")) == b""


@pytest.mark.parametrize("split", [1, 7, 23, 101])
def test_qmail_02_split(make_server, split):
    """2: whatever the split is, it is counted and used."""
    def prepare(s):
        tools.rmtree(s.queue)
        s.tool("mkqueue", "-n", str(split))
    server = make_server(prepare=prepare, listen={"inside": "inside 127.0.0.1:{}"})
    for d in ("mess", "info", "local", "remote"):
        assert sorted(os.listdir(os.path.join(server.queue, d)), key=int) == [str(i) for i in range(split)]
    for m in send(server, n=3):
        assert m.path.endswith("/mess/%d/%d" % (m.id % split, m.id))
    server.take()


def test_mkqueue_verifies(make_server):
    """It says what is wrong, and changes nothing that exists."""
    server = make_server(start=False)
    assert server.tool("mkqueue").returncode == 0
    os.chmod(os.path.join(server.queue, "todo"), 0o777)
    p = server.tool("mkqueue", check=False)
    assert p.returncode == 1 and "todo: error: expected owner" in p.text
    assert stat.S_IMODE(os.stat(os.path.join(server.queue, "todo")).st_mode) == 0o777
    assert server.tool("mkqueue", "-n", "5", check=False).returncode != 0


def test_qmail_04_to_11_files(server):
    """
    4: one mess, one intd, one todo file, none in pid. 5: mess/(N mod S)/N. 6: N is the inode. 7: intd and todo are one file, two links.
    8: mess has one link. 9: qmailq owns both. 10: mode 0644. 11: regular files.
    """
    for profile in ("inside", "smtp", "submissions"):
        server.take()
        with server.session(profile) as c:
            m = server.message(c.mail(rcpts=["you@local.example"]))
            files = server.files()
        n = str(m.id)
        assert files in (sorted(["intd/" + n, "mess/%d/%s" % (m.id % SPLIT, n), "todo/" + n]),
                         sorted(["mess/%d/%s" % (m.id % SPLIT, n), "todo/" + n]))
        assert re.fullmatch(r"[1-9][0-9]*", n)
        mess, todo = os.lstat(m.path), os.lstat(m.todo)
        assert mess.st_ino == m.id
        if "intd/" + n in files:
            assert os.lstat(os.path.join(server.queue, "intd", n)).st_ino == todo.st_ino and todo.st_nlink == 2
        else:
            assert todo.st_nlink == 1
        assert mess.st_nlink == 1
        assert mess.st_uid == todo.st_uid == uid("qmailq")
        for st in (mess, todo):
            assert stat.S_ISREG(st.st_mode)
            mode = stat.S_IMODE(st.st_mode)
            assert mode == 0o644 or (mode == 0o640 and st.st_gid == gid())


def test_modes_do_not_depend_on_umask(make_server):
    """Started with umask 077 or 000, files are 0644 all the same."""
    for mask in (0o077, 0o000):
        server = make_server(wrap=["sh", "-c", 'umask %03o; exec "$@"' % mask, "sh"], listen={"inside": "inside 127.0.0.1:{}"})
        (m,) = send(server)
        assert stat.S_IMODE(os.stat(m.path).st_mode) == stat.S_IMODE(os.stat(m.todo).st_mode) == 0o644
        server.take()


def test_qmail_12_13_envelope(server):
    """12: u, p, F, then T's, each ended by NUL, nothing after. 13: p is the pid of the reply and of the first Received line."""
    with server.session("submissions") as c:
        r = c.mail(rcpts=["a@far.example", "b@far.example"])
        m = server.message(r)
    qid, qp, _ = smtpc.queue_id(r)
    u = m.envelope.uid
    assert m.envelope.raw == b"u%d\0p%d\0Fme@client.example\0Ta@far.example\0Tb@far.example\0" % (u, qp)
    assert m.head[0].startswith(b"Received: (qmail %d invoked " % qp) and qid == m.id
    assert u == uid("qmaild") or u == uid("qmailq")


def test_qmail_14_15_16_addresses(server):
    """14: no empty recipient, no NUL, at most 1002 octets. 15: the null sender is `F` alone. 16: recipients have an @."""
    long = "r" * 64 + "@" + ".".join(["d" * 60] * 2) + ".example"
    with server.session("inside") as c:
        c.cmd("MAIL FROM:<>", 250)
        for rcpt in ("you@far.example", "Postmaster", long):
            c.cmd("RCPT TO:<%s>" % rcpt, 250)
        m = server.message(c.data(smtpc.MESSAGE))
    assert b"\0F\0T" in m.envelope.raw
    assert m.rcpts == [b"you@far.example", b"Postmaster@mail.example.net", long.encode()]
    assert all(b"@" in r and 0 < len(r) <= 1002 for r in m.rcpts)


@pytest.mark.parametrize("state", ["a reader", "no reader", "no trigger", "a file", "full"])
def test_qmail_28_29_30_trigger(make_server, state):
    """28: one octet, and closed. 29: a trigger nobody reads, or none, fails no message. 30: nothing keeps it open."""
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    path = os.path.join(server.queue, "lock", "trigger")
    reader = None
    if state in ("a reader", "full"):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if state == "full":
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            while os.write(writer, b"x" * 4096):
                pass
        except BlockingIOError:
            pass
        os.close(writer)
    if state in ("no trigger", "a file"):
        os.unlink(path)
    if state == "a file":
        tools.write(path, "", 0o622)
    with server.session("inside") as c:
        server.message(c.mail())
        if state == "a reader":
            assert len(os.read(reader, 10)) == 1
            # End of file, not "try again": while the session is still open, nobody holds the other end.
            assert os.read(reader, 10) == b""
        c.mail()
    if reader is not None:
        os.close(reader)
    assert len(server.take()) == 2


def test_one_octet_for_each_message(make_server):
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    reader = os.open(os.path.join(server.queue, "lock", "trigger"), os.O_RDONLY | os.O_NONBLOCK)
    for n in range(1, 4):
        send(server)
        assert len(os.read(reader, 100)) == 1
    os.close(reader)
    server.take()


@pytest.mark.release
def test_qmail_34_36_parallel(make_server):
    """36: a thousand messages at once get a thousand numbers; no name in pid/ is used twice. 34: nothing is overwritten."""
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    sessions, each, replies, faults = 50, 20, [], []

    def one(k):
        try:
            with server.session("inside") as c:
                message = b"Date: d\r\nMessage-ID: m\r\nSubject: %d\r\n\r\n" % k
                for n in range(each):
                    c.send(b"MAIL FROM:<s%d@client.example>\r\nRCPT TO:<r%d@far.example>\r\nBDAT %d LAST\r\n" % (k, n, len(message)) + message)
                for n in range(each):
                    c.reply(250)
                    c.reply(250)
                    replies.append((k, n, smtpc.queue_id(c.reply(250))))
        except BaseException as e:  # pylint: disable=broad-except
            faults.append(e)
    threads = [threading.Thread(target=one, args=(k,)) for k in range(sessions)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults[0]
    assert len(replies) == sessions * each == len({q[0] for _, _, q in replies})
    found = {m.id: m for m in server.take()}
    assert len(found) == sessions * each
    for k, n, (qid, qp, _) in replies:
        m = found[qid]
        assert m.sender == b"s%d@client.example" % k and m.rcpts == [b"r%d@far.example" % n] and m.envelope.pid == qp
        assert m.body == b"Date: d\nMessage-ID: m\nSubject: %d\n\n" % k


@pytest.mark.parametrize("foreign", [["intd"], ["todo"], ["intd", "todo"]], ids=" ".join)
def test_qmail_34_foreign_envelope(make_server, foreign):
    """34: in a damaged queue the number may have an envelope already: it is neither used nor removed, and the message refused for now."""
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    with server.session("inside") as c:
        c.envelope()
        c.cmd("DATA", 354)
        (mess,) = poll(server.files, "the message to be begun")
        kept = [os.path.join(server.queue, d, os.path.basename(mess)) for d in foreign]
        for path in kept:
            tools.write(path, "u1\0p1\0Fsomebody@else.example\0Tsomebody@far.example\0")
        c.send(smtpc.MESSAGE + b".\r\n")
        c.reply(451)
        poll(lambda: server.files() == sorted(os.path.relpath(p, server.queue) for p in kept), "the message to go, which may be behind the reply")
        assert all(b"somebody" in tools.read(p) for p in kept)
        for path in kept:
            os.unlink(path)
        server.message(c.mail())
    server.take()


@pytest.mark.release
@pytest.mark.parametrize("directory", ["intd", "todo", "mess"])
def test_numbers_that_stay_taken(make_server, directory):
    """
    ext4 hands out the number of a removed file at once. So one stale name stood in the way of every message: refused at commit, and for
    mess/ at DATA after tries that all got the same number. And a message that got its name in mess/ beside somebody's old entry in todo/ was,
    for a reader of the queue, that entry's.
    """
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    stale = tools.write(os.path.join(server.top, "stale"), "u1\0p1\0Fsomebody@else.example\0Tsomebody@far.example\0")
    with server.session("inside") as c:
        qid = smtpc.queue_id(c.mail())[0]
        server.take()
        names = []
        for n in range(qid - 3, qid + 4):
            names.append("%s/%d" % (os.path.join("mess", str(n % 3)) if directory == "mess" else directory, n))
            os.link(stale, os.path.join(server.queue, names[-1]))
        m = smtpc.queue_id(c.mail())[0]
        assert abs(m - qid) > 3
        assert os.listdir(os.path.join(server.queue, "pid")) == []
        for name in names:
            assert b"somebody" in tools.read(os.path.join(server.queue, name))
            os.unlink(os.path.join(server.queue, name))
    assert [x.id for x in server.take()] == [m]


# ---- Other kinds of spool --------------------------------------------------------------------------------------------

def maildir(server, kind, *words):
    path = os.path.join(server.top, "Maildir")
    for d in ("", "tmp", "new", "cur"):
        os.makedirs(os.path.join(path, d), 0o700, exist_ok=True)
        if ROOT:
            os.chown(os.path.join(path, d), harness.USERS["qmailq"], harness.GROUPS["qmail"])
    server.set(spool=" ".join([kind, path, *words]) + "\n")


@pytest.mark.parametrize("prefix", ["", "alias-ppp-"])
def test_maildir(make_server, prefix):
    """One file for each recipient, with the two lines that maildirsmtp wants first, and nothing left in tmp."""
    server = make_server(prepare=lambda s: maildir(s, "maildir", *([prefix] if prefix else [])), listen={"inside": "inside 127.0.0.1:{}"})
    rcpts = ["joe@far.example", "Ann@else.example", "joe@far.example"]
    with server.session("inside") as c:
        c.mail(rcpts=rcpts)
        c.envelope("", ["last@far.example"])
        c.cmd("DATA", 354)
        c.send(b"Subject: aborted\r\n")
    poll(server.idle, "the end")
    top = os.path.join(server.top, "Maildir")
    assert os.listdir(os.path.join(top, "tmp")) == [] and os.listdir(os.path.join(top, "cur")) == []
    names = os.listdir(os.path.join(top, "new"))
    assert len(names) == 3
    to = []
    for name in names:
        assert re.fullmatch(r"[0-9]+\.[A-Za-z0-9#]+\.[^/:]+", name), name
        path = os.path.join(top, "new", name)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and os.stat(path).st_uid == uid("qmailq") and os.stat(path).st_nlink == 1
        lines = tools.read(path).split(b"\n")
        assert lines[0] == b"Return-Path: <me@client.example>"
        assert lines[1].startswith(b"Delivered-To: " + prefix.encode())
        to.append(lines[1][len(b"Delivered-To: " + prefix.encode()):].decode())
        assert lines[2].startswith(b"Received: from ") and tools.read(path).endswith(smtpc.stored(smtpc.MESSAGE))
    assert sorted(to) == sorted(rcpts)


def test_maildir_plain(make_server):
    """One file for each message."""
    server = make_server(prepare=lambda s: maildir(s, "maildir-plain"), listen={"inside": "inside 127.0.0.1:{}"})
    with server.session("inside") as c:
        c.mail(sender="", rcpts=["a@far.example", "b@far.example"])
        c.mail(smtpc.MESSAGE * 3000)
    new = os.path.join(server.top, "Maildir", "new")
    small, big = sorted((os.path.join(new, n) for n in os.listdir(new)), key=os.path.getsize)
    assert tools.read(small).startswith(b"Return-Path: <>\nDelivered-To: a@far.example\nDelivered-To: b@far.example\nReceived: from ")
    assert tools.read(big).endswith(smtpc.stored(smtpc.MESSAGE * 3000))


@pytest.mark.parametrize("sender,written", [("a b@client.example", '"a b"@client.example'), ('x"y@client.example', '"x\\"y"@client.example'),
                                            ("plain@client.example", "plain@client.example")])
def test_maildir_return_path(make_server, sender, written):
    server = make_server(prepare=lambda s: maildir(s, "maildir-plain"), listen={"inside": "inside 127.0.0.1:{}"})
    local, domain = sender.rsplit("@", 1)
    with server.session("inside") as c:
        c.cmd('MAIL FROM:<"%s"@%s>' % (local.replace('"', '\\"'), domain), 250)
        c.cmd("RCPT TO:<you@far.example>", 250)
        c.data(smtpc.MESSAGE)
    new = os.path.join(server.top, "Maildir", "new")
    (name,) = os.listdir(new)
    assert tools.read(os.path.join(new, name)).startswith(b"Return-Path: <%s>\n" % written.encode())


# ---- Faults ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("directory", ["pid", "mess", "intd", "todo"])
def test_qmail_32_spool_in_trouble(make_server, directory):
    """A part of the queue that cannot be written: 451, nothing left behind, and the session goes on."""
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    path = os.path.join(server.queue, directory)
    parts = [os.path.join(path, d) for d in os.listdir(path)] if directory == "mess" else [path]
    modes = [stat.S_IMODE(os.stat(p).st_mode) for p in parts]
    for p in parts:
        os.chmod(p, 0)
    with server.session("inside") as c:
        c.envelope()
        r = c.cmd("DATA", (354, 451))
        if r == 354:
            c.send(smtpc.MESSAGE + b".\r\n")
            r = c.reply(451)
        assert r.enhanced and r.enhanced.startswith("4.3.")
        for p, mode in zip(parts, modes):
            os.chmod(p, mode)
        server.assert_nothing()
        server.message(c.mail())
    server.take()
    assert server.log("refuse")[-1]["reason"] == "spool-error" and server.log("spool")[-1]["error"] == "Permission denied"


def test_declared_size_without_room(make_server):
    """Without a limit of our own, the disk is one: 452 at MAIL, before anything is sent."""
    server = make_server(control={"databytes": "0\n"}, listen={"inside": "inside 127.0.0.1:{}"})
    with server.session("inside") as c:
        assert c.keywords["SIZE"] in ([], ["0"])
        assert c.cmd("MAIL FROM:<me@client.example> SIZE=9000000000000000", 452).enhanced == "4.3.1"
        c.mail(params=" SIZE=1000")
    server.take()


@pytest.mark.root
@pytest.mark.parametrize("what", ["octets", "inodes"])
def test_qmail_33_full_disk(make_server, what):
    """33: a small file system fills up: 452, nothing left behind; then there is room again and mail goes on."""
    size = "size=6m,nr_inodes=2000" if what == "octets" else "size=60m,nr_inodes=200"

    def prepare(s):
        tools.rmtree(s.queue)
        os.mkdir(s.queue)
        s.mounts = ["mount -t tmpfs -o %s,mode=755 none '%s'" % (size, s.home + "/queue.fs"),
                    "'%s' mkqueue -H '%s/queue.fs' > /dev/null" % (s.binary, s.home)]
        os.mkdir(s.home + "/queue.fs")
        s.set(spool="queue queue.fs/queue\n")
    server = make_server(prepare=prepare, listen={"inside": "inside 127.0.0.1:{}"}, control={"databytes": "0\n"})
    server.queue = "/proc/%d/root%s/queue.fs/queue" % (server.pid, server.home)
    assert os.path.isdir(server.queue + "/todo")
    with server.session("inside") as c:
        c.mail()
        server.take()
        if what == "octets":
            c.envelope()
            c.cmd("DATA", 354)
            for _ in range(100):
                c.send(b"x" * 99998 + b"\r\n")
            c.send(b".\r\n")
            r = c.reply((452, 451))
        else:
            hog = 0
            try:
                while hog < 1000:
                    os.mkdir("/proc/%d/root%s/queue.fs/hog%d" % (server.pid, server.home, hog))
                    hog += 1
            except OSError:
                pass
            c.cmd("RSET", 250)
            r = c.cmd("MAIL FROM:<me@client.example>", (250, 452))
            if r == 250:
                c.cmd("RCPT TO:<you@far.example>", 250)
                r = c.cmd("DATA", (452, 451))
            for n in range(hog):
                os.rmdir("/proc/%d/root%s/queue.fs/hog%d" % (server.pid, server.home, n))
        assert r.enhanced == "4.3.1"
        server.assert_nothing()
        c.cmd("RSET", 250)
        server.message(c.mail())
    server.take()


def test_read_only_spool_is_told(make_server):
    """A spool that went away is a 451, not a crash."""
    server = make_server(listen={"inside": "inside 127.0.0.1:{}"})
    os.rename(server.queue, server.queue + ".away")
    os.mkdir(server.queue)
    with server.session("inside") as c:
        r = c.cmd("MAIL FROM:<me@client.example>")
        if r == 250:
            c.cmd("RCPT TO:<you@far.example>")
            r = c.cmd("DATA")
            if r == 354:
                c.send(smtpc.MESSAGE + b".\r\n")
                r = c.reply()
        assert r.code in (250, 451)  # main may hold the directory it opened
    os.rmdir(server.queue)
    os.rename(server.queue + ".away", server.queue)
    server.take()
    time.sleep(0.01)
