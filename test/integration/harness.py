# SPDX-License-Identifier: MIT
"""
A mailstile server in a home of its own, its log and its queue.

Started as root, the server gets all its users: it runs in a mount namespace whose /etc/passwd and /etc/group are ours.
"""

import contextlib
import glob
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time

import smtpc
import tools
from tools import BINARY, ROOT, poll

USERS = {"alias": 64010, "qmaild": 64011, "qmails": 64012, "qmailr": 64013, "qmailq": 64014, "qmaill": 64015,
         "qmailp": 64016, "vmail": 64017}
GROUPS = {"qmail": 64010, "nofiles": 64020, "vmail": 64021}
GROUP_OF = {"qmails": "qmail", "qmailr": "qmail", "qmailq": "qmail", "vmail": "vmail"}

LISTEN = {
    "submission": "submission 127.0.0.1:{}",
    "submissions": "submissions 127.0.0.1:{}",
    "smtp": "smtp 127.0.0.1:{}",
    "inside": "inside 127.0.0.1:{}",
    "printer": "inside 127.0.0.1:{} from=printer@example.net",
}
CONTROL = {
    "me": "mail.example.net\n",
    "rcpthosts": "local.example\n.sub.example\n",
    # Clients with an address of this net may relay: fresh_address(RELAY_NET).
    "relayclients": "127.77.0.0/16\n",
    # Messages stay where tests look for them. Those of delivery say otherwise.
    "relay": "off\n",
}
RELAY_NET = 77

live = []  # servers that run now; conftest shows their logs when a test fails


def environment():
    env = {k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "LSAN_"))}
    # Not UTC, to see that dates are.
    env.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", TZ="JST-9", LC_ALL="C")
    return env


class House:
    """Where qmail's users exist: a private /etc/passwd for root's servers, nothing at all for others."""

    def __init__(self, work):
        self.passwd, self.group = os.path.join(work, "passwd"), os.path.join(work, "group")
        tools.write(self.passwd, "root:x:0:0::/:/bin/sh\n" + "".join(
            "%s:x:%d:%d::/:/bin/false\n" % (name, uid, GROUPS[GROUP_OF.get(name, "nofiles")])
            for name, uid in USERS.items()))
        tools.write(self.group, "root:x:0:\n" + "".join("%s:x:%d:\n" % g for g in GROUPS.items()))

    def argv(self, command, mounts=()):
        """`command` as it is started here; `mounts` are shell commands run before it, in its namespace (root only)."""
        if not ROOT:
            assert not mounts
            return list(command)
        script = ["mount --bind %s /etc/passwd" % shlex.quote(self.passwd),
                  "mount --bind %s /etc/group" % shlex.quote(self.group), *mounts, 'exec "$@"']
        return ["unshare", "--mount", "sh", "-c", " && ".join(script), "sh", *command]


def unescape(value):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m.group(1), 16)]), value.encode()).decode("utf-8", "surrogateescape")


class Syslog:
    """A /dev/log of one's own: `mounts` put it where a server that is started with them (root only) finds it."""

    def __init__(self, scratch):
        path = os.path.join(scratch, "log")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        os.chmod(path, 0o666)
        self.sock.settimeout(tools.PATIENCE)
        self.mounts = ["mkdir %s/dev" % scratch, "for d in null zero random urandom; do touch %s/dev/$d; mount --bind /dev/$d %s/dev/$d; done"
                       % (scratch, scratch), "touch %s/dev/log" % scratch, "mount --bind %s %s/dev/log" % (path, scratch),
                       "mount --rbind %s/dev /dev" % scratch]
        self.process = None

    def serve(self, server):
        self.process = subprocess.Popen(server.argv("serve", "-s", "-H", server.home), env=environment(), start_new_session=True)

    def read_until(self, pattern):
        """Lines, up to one that matches."""
        lines = []
        while not lines or not re.search(pattern, lines[-1]):
            lines.append(self.sock.recv(4096).decode())
            assert re.match(r"<(1[6-9]|2[0-3])>mailstile\[\d+\]: ev=(?!crash)", lines[-1]), lines[-1]
        return lines

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0
        self.sock.close()


class Event(dict):
    """A line of the log: `ev=NAME key=value ...`; a value stands in quotes when it is a sentence."""

    PLAIN, QUOTED = r'(?:[!#-<>-\[\]-~]|\\x[0-9a-f]{2})+', r'"(?:[ !#-<>-\[\]-~]|\\x[0-9a-f]{2})*"'
    PAIR = re.compile(r"([a-z]+)=(%s|%s)" % (PLAIN, QUOTED))

    def __init__(self, line):
        assert re.fullmatch(r"%s(?: %s)*" % (self.PAIR.pattern, self.PAIR.pattern), line), "not a log line: %r" % line
        super().__init__((m.group(1), unescape(m.group(2).strip('"'))) for m in self.PAIR.finditer(line))
        self.text = line


class Server:
    """
    `listen`: {name: line with {} for the port}. `control`: {file: content or None}, added to CONTROL. `radius`: text of
    radius.conf. `wrap`: words put before the command (strace). `binary`: another build. `prepare(server)` runs before the
    server starts. `split`: of the queue; few directories are made and removed faster.
    """

    count = 0

    def __init__(self, work, house, radius=None, listen=None, control=None, wrap=(), binary=None, mounts=(), prepare=None,
                 start=True, split=3):
        Server.count += 1
        self.house, self.wrap, self.mounts = house, list(wrap), list(mounts)
        self.binary = binary or BINARY
        self.top = os.path.join(work, "s%d" % Server.count)
        self.home = os.path.join(self.top, "home")
        self.control = os.path.join(self.home, "control")
        self.queue = os.path.join(self.home, "queue")
        self.logfile = os.path.join(self.top, "log")
        self.ctl = os.path.join(self.top, "ctl")
        self.events, self.read_to, self.reading = [], 0, threading.Lock()  # of the log
        self.process, self.pid = None, None
        self.crash_expected = False
        self.words = None  # behind `serve -H home`, in place of the usual ones
        os.makedirs(self.control, 0o755)
        self.port, lines = {}, []
        for name, line in (LISTEN if listen is None else listen).items():
            self.port[name] = tools.free_port()
            lines.append(line.format(self.port[name]) + "\n")
        self.set(**{"listen": "".join(lines), "radius.conf": radius, **CONTROL, **(control or {})})
        self.tool("mkqueue", "-n", str(split))
        if prepare:
            prepare(self)
        if start:
            self.start()

    # ---- configuration

    def set(self, **files):
        """Write control files; None removes one."""
        for name, content in files.items():
            path = os.path.join(self.control, name)
            if content is None:
                if os.path.lexists(path):
                    os.unlink(path)
            else:
                tools.write(path, content, 0o600 if name in ("radius.conf", "serverkey.pem") else 0o644)

    def argv(self, *words):
        return self.house.argv(self.wrap + self.memcheck() + [self.binary, *words], self.mounts)

    def memcheck(self):
        """Words that run the server under valgrind (make test-valgrind); it follows forks by itself, into one log."""
        if not tools.VALGRIND or self.binary != BINARY:  # other builds have system call filters
            return []
        # No %p in the name: for that it would open a new file after each fork, where there are no files.
        Server.count += 1
        return ["valgrind", "-q", "--vgdb=no", "--log-file=%s/valgrind.%d" % (self.top, Server.count), "--num-callers=25", "--leak-check=full",
                "--show-leak-kinds=definite"]

    def check_memory(self):
        """With -q, valgrind writes only what it has found."""
        found = [tools.read(f).decode("utf-8", "replace") for f in glob.glob(self.top + "/valgrind.*")]
        assert not any(found), "valgrind:\n" + "\n".join(found)

    def tool(self, applet, *words, check=True, **kw):
        """Run another applet of the same binary on this home."""
        # What ends at once may leave its memory to the kernel.
        env = environment()
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        return tools.run(*self.house.argv([self.binary, applet, "-H", self.home, *words]), check=check, env=env, **kw)

    # ---- life

    def start(self, wait=True):
        # Who counts or ends system calls means those of sessions.
        words = ["-S", "" if self.wrap else self.ctl] if self.words is None else self.words
        with open(self.logfile, "ab") as log:
            self.process = subprocess.Popen(self.argv("serve", "-H", self.home, *words), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment(), cwd="/", start_new_session=True)
        self.pid = self.process.pid
        live.append(self)
        if wait:
            poll(self._listening, "the server to listen")
        return self

    def _listening(self):
        if self.process.poll() is not None:
            live.remove(self)
            raise AssertionError("server ended with status %d\n%s" % (self.process.returncode, self.tail()))
        return self.log("start")

    def accepts(self, profile="smtp"):
        """Does somebody listen there?"""
        try:
            with socket.create_connection(("127.0.0.1", self.port[profile]), 1):
                return True
        except OSError:
            return False

    def left(self):
        """Processes of this server; all of its family share its session."""
        return [p for p in tools.processes() if p.session == self.pid and p.state != "Z"]

    def kill(self, sig):
        os.kill(self.pid, sig)

    def reload(self):
        """SIGHUP, and wait until it has been heard."""
        before = len(self.log("reload"))
        self.kill(signal.SIGHUP)
        poll(lambda: len(self.log("reload")) > before, "ev=reload")

    def wait_exit(self, expect=0, timeout=60):
        code = self.process.wait(timeout)
        if self in live:
            live.remove(self)
        assert code == expect, "exit status %d, wanted %d\n%s" % (code, expect, self.tail())
        return code

    def stop(self):
        """SIGTERM, and everything that must hold at the end of any server's life."""
        if self.process is None or self not in live:
            self.check_memory()
            return
        self.kill(signal.SIGTERM)
        self.wait_exit()
        poll(lambda: not self.left(), "all processes to be gone: %r" % (self.left(),))
        assert self.log("stop"), "no ev=stop"
        if not self.crash_expected:
            assert not self.log("crash"), self.tail()
        self.check_memory()
        self.check_queue()

    def check_queue(self):
        """Nothing half-made is in the queue."""
        if not os.path.isdir(self.queue):
            return
        assert os.listdir(os.path.join(self.queue, "pid")) == []
        for n in os.listdir(os.path.join(self.queue, "intd")):
            pair = [os.stat(os.path.join(self.queue, d, n)).st_ino for d in ("intd", "todo")]
            assert pair[0] == pair[1], "intd/%s without its todo" % n
        taken_in = [f.split("/")[-1] for f in self.files() if f.startswith("info/")]
        todo = set(os.listdir(os.path.join(self.queue, "todo"))) | set(taken_in)
        mess = [f.split("/")[-1] for f in self.files() if f.startswith("mess/")]
        assert sorted(todo) == sorted(mess)

    # ---- log

    def log(self, ev=None, **want):
        """Events so far. Every line must be one; sanitizers' reports are not."""
        with self.reading:
            if os.path.exists(self.logfile):
                with open(self.logfile, "rb") as f:
                    f.seek(self.read_to)
                    new = f.read().rpartition(b"\n")[0]
                # Each line is looked at once, since many tests look often.
                for line in new.decode("utf-8", "surrogateescape").split("\n") if new else []:
                    assert line.startswith("ev="), "not a log line: %r\n%s" % (line, self.tail())
                    self.events.append(Event(line))
                self.read_to += len(new) + 1 if new else 0
            events = list(self.events)
        return [e for e in events if ev in (None, e["ev"]) and all(e.get(k) == str(v) for k, v in want.items())]

    def wait_log(self, ev, timeout=None, **want):
        """The last such event, once there is one."""
        return poll(lambda: self.log(ev, **want), "ev=%s %r" % (ev, want), timeout)[-1]

    def tail(self, n=40):
        text = tools.read(self.logfile).decode("utf-8", "replace") if os.path.exists(self.logfile) else ""
        return "\n".join(text.splitlines()[-n:])

    def gone(self, client):
        """Wait for the end of the session of `client` (a smtpc.Client); returns its ev=close."""
        connect = self.wait_log("connect", client=client.source, port=client.port)
        return self.wait_log("close", sid=connect["sid"])

    # ---- processes

    def pairs(self):
        """[(warden, smtp)] of the sessions: by their names, which carry the session's number."""
        found = {p.name: p.pid for p in tools.children(self.pid)}
        return [(pid, found["stile-smtp " + name.split()[1]]) for name, pid in sorted(found.items())
                if name.startswith("stile-ward ") and "stile-smtp " + name.split()[1] in found]

    def idle(self):
        """No process of a session is left, not even one of a pair: a warden has work to do after its smtp process has ended."""
        return not [p for p in tools.children(self.pid) if p.name.startswith(("stile-ward ", "stile-smtp "))]

    def nurseries(self):
        """(wardens', smtps') nursery."""
        found = {p.name: p.pid for p in tools.children(self.pid)}
        return found["stile-wardens"], found["stile-smtps"]

    def pair(self):
        """The pair of the only session."""
        return poll(lambda: len(self.pairs()) == 1 and self.pairs(), "one session")[0]

    # ---- queue

    def files(self):
        out = []
        for where, _, names in os.walk(self.queue):
            out += [os.path.relpath(os.path.join(where, n), self.queue) for n in names]
        return sorted(f for f in out if not f.startswith("lock/"))

    def assert_nothing(self):
        """No trace of a message."""
        poll(lambda: self.files() == [], "an empty queue, there is %r" % self.files())

    def messages(self):
        split = len(os.listdir(os.path.join(self.queue, "mess")))
        todo = os.path.join(self.queue, "todo")
        return [tools_message(self.queue, int(n), split) for n in sorted(os.listdir(todo), key=int)]

    def message(self, reply):
        """The message that `reply` (the 250 after data) is about."""
        qid, qp, _ = smtpc.queue_id(reply)
        (m,) = [m for m in self.messages() if m.id == qid]
        assert m.envelope.pid == qp
        return m

    def take(self):
        """Empty the queue; returns what was in it."""
        out = self.messages() if os.path.isdir(os.path.join(self.queue, "todo")) else []
        for f in self.files():
            with contextlib.suppress(FileNotFoundError):  # of a message that was broken off, which its warden is removing
                os.unlink(os.path.join(self.queue, f))
        return out

    # ---- clients

    def context(self):
        """Verifies the server's own certificate, as a customer with a good client would."""
        c = ssl.create_default_context(cafile=os.path.join(self.control, "servercert.pem"))
        c.minimum_version = ssl.TLSVersion.TLSv1_2
        return c

    def connect(self, profile, source=None, hello=True):
        if source is None:
            source = tools.fresh_address(RELAY_NET if profile in ("inside", "printer") else 1)
        tls = profile == "submissions"
        return smtpc.Client(("127.0.0.1", self.port[profile]), source, "implicit" if tls else None, self.context, hello)

    def session(self, profile, login="alice", source=None, tls=None):
        """A client that has said EHLO, has TLS where the profile wants it (or `tls` says so), and is logged in."""
        import radius
        c = self.connect(profile, source)
        c.keywords = c.ehlo()
        if tls if tls is not None else profile == "submission":
            c.starttls()
            c.keywords = c.ehlo()
        if login and profile in ("submission", "submissions"):
            c.auth_plain(login, radius.PASSWORD[login])
        return c


def tools_message(queue, n, split):
    return tools.Message(n, os.path.join(queue, "mess", str(n % split), str(n)), os.path.join(queue, "todo", str(n)))


def wait_seconds(begin):
    return time.monotonic() - begin
