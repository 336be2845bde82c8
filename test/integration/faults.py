# SPDX-License-Identifier: MIT
"""What tests of faults share: servers with each kind of spool, what a spool may look like afterwards, sessions whose processes are known."""

import concurrent.futures
import contextlib
import ctypes
import itertools
import os
import re
import stat
import threading
import time

import harness
import smtpc
import tools
from tools import ROOT, poll

# Kinds of spool, and where they lie; serve_kind() of conftest.py makes a server for one. Without a word on a journaling ext4.
KINDS = ("queue", "maildir", "maildir-plain", "queue on tmpfs", "maildir on tmpfs")
INSIDE = {"inside": harness.LISTEN["inside"]}
RCPTS = ("ann@far.example", "bob@far.example")
CLONE_NEWNS = 0x20000
SPOOL = r"pid|mess|intd|todo|tmp|new"  # directories in which a warden writes

_tags = itertools.count(1)


def private_mounts():
    """Mounts of this process end with it at the latest. Only for what is started from now on, and in this thread, which is the main one."""
    if not getattr(private_mounts, "done", False):
        private_mounts.done = True
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        tools.run("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def mounted(path, *words):
    """Make a directory and mount something there."""
    private_mounts()
    os.mkdir(path, 0o755)
    tools.run("mount", *words, path)
    try:
        yield path
    finally:
        tools.run("umount", "-l", path)
        os.rmdir(path)


@contextlib.contextmanager
def ext4(work, name, mib, *words):
    """Make and mount a file system, `words` for mkfs, whose disk is a file in memory. Its directory."""
    with mounted(os.path.join(work, name + ".disk"), "-t", "tmpfs", "-o", "size=%dm" % (mib + 8), "none") as top:
        image = os.path.join(top, "image")
        with open(image, "wb") as f:
            f.truncate(mib << 20)
        tools.run("mkfs.ext4", "-q", "-F", "-m", "0", *words, image)
        with mounted(os.path.join(work, name), "-o", "loop,errors=remount-ro", image) as path:
            yield path


def message(octets=0):
    """(tag, wire form) of a message like no other."""
    tag = "case-%d" % next(_tags)
    text = smtpc.MESSAGE.replace(b"a test", tag.encode())
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return tag, text + line * (octets // len(line))


def maildir(server, kind, path=None):
    path = path or os.path.join(server.top, "Maildir")
    for d in ("", "tmp", "new", "cur"):
        os.makedirs(os.path.join(path, d), 0o700, exist_ok=True)
        if ROOT:
            os.chown(os.path.join(path, d), harness.USERS["qmailq"], harness.GROUPS["qmail"])
    server.set(spool="%s %s\n" % (kind, path))


def serve(make_server, kind, **kw):
    """A server with this kind of spool, and the spool."""
    also = kw.pop("prepare", None)

    def prepare(server):
        # Made beforehand, for the time it takes.
        tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
        if kind != "queue":
            maildir(server, kind)
        if also:
            also(server)
    server = make_server(prepare=prepare, listen=kw.pop("listen", INSIDE), **kw)
    return server, Spool(server, kind)


class Spool:
    """
    What is in a spool. Every look at it asserts that its state is one that its readers know: for the queue, those of its format's table;
    in a Maildir, nothing in new/ that is not whole.
    """

    def __init__(self, server, kind):
        self.server, self.kind = server, kind

    @property
    def top(self):
        return self.server.queue if self.kind == "queue" else os.path.join(self.server.top, "Maildir")

    def _names(self, directory):
        return os.listdir(os.path.join(self.top, directory))

    def visible(self, known):
        """{tag: [recipients]} of what a reader would deliver; `known`: {tag: wire form} of all that was ever sent."""
        out = {}
        for tag, rcpts, body in self._queued() if self.kind == "queue" else self._delivered():
            assert tag in known, "a message nobody sent: %r" % tag
            assert body == smtpc.stored(known[tag]), "a message that is not whole: %s" % tag
            out.setdefault(tag, []).extend(rcpts)
        return out

    def _queued(self):
        self.check_queue()
        for m in self.server.messages():
            yield tag_of(m.body), [r.decode() for r in m.rcpts], m.body

    def _delivered(self):
        for name in self._names("new"):
            path = os.path.join(self.top, "new", name)
            head, _, rest = tools.read(path).partition(b"Received: ")
            assert re.match(rb"Return-Path: <[^\n]*>\n(Delivered-To: [^\n]+\n)+$", head), (name, head)
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            # Two lines of trace, the second indented.
            body = rest.split(b"\n", 2)[2]
            yield tag_of(body), [x.split(b" ", 1)[1].decode() for x in head.split(b"\n")[1:-1]], body

    def _look(self):
        """The names in todo, intd, and (directory, name) in mess."""
        return self._names("todo"), self._names("intd"), [(k, n) for k in self._names("mess") for n in self._names("mess/" + k)]

    def check_queue(self):
        """The states of the queue's table, in the directories we write."""
        todo, intd, placed = tools.steady(self._look)  # a warden may be tidying up
        split, mess = len(self._names("mess")), set()
        for k, n in placed:
            assert str(int(n) % split) == k, "mess/%s/%s" % (k, n)
            with contextlib.suppress(FileNotFoundError):  # removed in this moment
                assert os.lstat(os.path.join(self.top, "mess", k, n)).st_ino == int(n)
            mess.add(n)
        for n in self._names("pid"):
            assert re.fullmatch(r"\d+\.(\d+\.\d+|lease)", n), n
        assert set(intd) <= mess, "an envelope without a message: %r" % (set(intd) - mess)
        assert set(todo) <= mess, "todo without a message: %r" % (set(todo) - mess)
        for n in todo:
            tools.parse_envelope(tools.read(os.path.join(self.top, "todo", n)))
            if n in intd:
                assert os.path.samefile(os.path.join(self.top, "todo", n), os.path.join(self.top, "intd", n))

    def debris(self):
        """Files that belong to no message that is visible."""
        if self.kind != "queue":
            return ["tmp/" + n for n in self._names("tmp")]
        todo = set(self._names("todo"))
        return [f for f in self.server.files() if f.startswith("pid/") or f.split("/")[-1] not in todo]

    def clean(self):
        for d in ("pid", "intd", "todo") if self.kind == "queue" else ("tmp", "new"):
            for n in self._names(d):
                self._unlink(d, n)
        for k in self._names("mess") if self.kind == "queue" else []:
            for n in self._names("mess/" + k):
                self._unlink("mess", k, n)

    def _unlink(self, *words):
        with contextlib.suppress(FileNotFoundError):  # its warden was faster
            os.unlink(os.path.join(self.top, *words))


def tag_of(body):
    return re.search(rb"^Subject: (\S+)", body, re.M).group(1).decode()


# ---- Sessions --------------------------------------------------------------------------------------------------------

_connecting = threading.Lock()


def children(pid):
    """{pid: name}, without a walk through all of /proc."""
    out = {}
    for word in tools.read("/proc/%d/task/%d/children" % (pid, pid)).split():
        try:
            out[int(word)] = tools.read("/proc/%d/comm" % int(word)).decode().strip()
        except OSError:
            pass
    return out


def known_session(server, profile="inside"):
    """(client, warden's pid, smtp's pid)."""
    def new():
        found = {name.split()[0]: pid for pid, name in children(server.pid).items() if pid not in before and " " in name}
        return len(found) == 2 and found
    with _connecting:
        before = children(server.pid)
        c = server.session(profile)
        # They are named when they have begun, and the greeting may come before the warden has.
        found = poll(new, "the session's processes")
    return c, found["stile-ward"], found["stile-smtp"]


def alive(pid):
    try:
        return tools.read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def send(c, text):
    """
    DATA with `text` (wire form), and RSET. The reply to the message, or to DATA when that is refused, or None when the session ends
    before. `c` is left as it is.
    """
    try:
        c.send(b"DATA\r\n")
        r = c.reply()
        if r == 354:
            c.send(text + b".\r\n")
            r = c.reply()
        return r
    except (smtpc.Closed, BrokenPipeError, ConnectionResetError):
        return None


def said_to_rest(c):
    """RSET after a message, and whether it was answered."""
    try:
        return c.cmd("RSET") == 250
    except (smtpc.Closed, BrokenPipeError, ConnectionResetError):
        return False


def send_and_reset(c, text):
    reply = send(c, text)
    if reply is not None:
        said_to_rest(c)
    return reply


class Bystanders:
    """
    Other sessions of a server: one in the midst of a message from beginning to end, one that sends a message now and then. `known`
    gets what they send; after end() all of it must be in the spool.
    """

    def __init__(self, server, known):
        self.server, self.known, self.sent, self.fault, self.slowest = server, known, [], None, 0
        self.patient, self.warden, _ = known_session(server)
        self.patient.envelope(rcpts=RCPTS)
        self.patient.cmd("DATA", 354)
        self.tag, text = message()
        self.known[self.tag] = text
        self.head, self.rest = text[:50], text[50:]
        self.patient.send(self.head)
        self.stop, self.sending = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        # Its session has begun before anything is made to fail.
        poll(lambda: self.sent or self.fault, "a message of a bystander")

    def _run(self):
        try:
            with known_session(self.server)[0] as c:
                while not self.stop.wait(0.05):
                    tag, text = message()
                    self.known[tag] = text
                    with self.sending:
                        begin = time.monotonic()
                        c.mail(text, rcpts=RCPTS)
                        self.slowest = max(self.slowest, time.monotonic() - begin)
                    self.sent.append(tag)
                c.quit()
        except BaseException as e:  # pylint: disable=broad-except
            self.fault = e

    def pause(self):
        """A context in which only the patient one's file is being written."""
        return self.sending

    def sweep(self, spool):
        """Remove debris, but for the file of the patient one's message."""
        with self.pause():
            for f in spool.debris():
                path = os.path.join(spool.top, f)
                with contextlib.suppress(FileNotFoundError):  # its warden was faster
                    if not tools.read(path).startswith(b"Received: (qmail %d " % self.warden):
                        os.unlink(path)

    def end(self):
        """Their sessions ended as they should; returns the tags of what was acknowledged."""
        self.stop.set()
        self.thread.join(tools.PATIENCE)
        assert self.fault is None and not self.thread.is_alive(), self.fault
        self.patient.send(self.rest + b".\r\n")
        self.patient.reply(250)
        self.patient.quit()
        return self.sent + [self.tag]


def each(function, cases, workers=6):
    """function(*case) for all cases, some at a time; results in their order."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [f.result() for f in [pool.submit(function, *case) for case in cases]]


@contextlib.contextmanager
def in_background(function, *args):
    """A future for function(*args), which runs meanwhile."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield pool.submit(function, *args)
    finally:
        pool.shutdown()


def quiet(server):
    """No session is left, and no process of one."""
    poll(lambda: sorted(children(server.pid).values()) == ["stile-smtps", "stile-wardens"],
         "the end of all sessions, there are %r" % (children(server.pid),))


def quiet_but(server, sessions):
    """As many sessions are left."""
    poll(lambda: len([n for n in children(server.pid).values() if " " in n]) == 2 * sessions,
         "%d sessions to be left, there are %r" % (sessions, children(server.pid)))
