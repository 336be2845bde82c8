# SPDX-License-Identifier: MIT
"""
Deliveries to the next hop: the scheduler's side of a delivery process (test/remote/remote.c), next hops that do what a table says, and a
name server that does, too.
"""

import os
import re
import select
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

import tools
from tools import PATIENCE

JOB, RCPT, REPORT, DONE = 1, 2, 3, 4
MX = 0xFFFFFFFF
JOB_FORM, RCPT_FORM, REPORT_FORM, DONE_FORM = "=IIIIQQ256s1004s4x", "=II1004s", "=IIII1004s", "=IIIIIHHI64s256s"
MESSAGE = b"Received: x\nSubject: test\n\nhello\n.dot\n"


def text_of(field):
    return field.split(b"\0", 1)[0].decode("ascii")


class Report:
    """What became of a recipient."""

    def __init__(self, data):
        _, self.rcpt, klass, self.code, text = struct.unpack(REPORT_FORM, data)
        self.klass = chr(klass)
        end = text.index(b"\0")
        assert not text[end:].strip(b"\0"), "octets behind the text"
        assert re.fullmatch(rb"(?:[ -~]*\n)+", text[:end]) and end <= 1001, text
        self.text = text[:end].decode("ascii")
        self.time = time.monotonic()

    def __repr__(self):
        return "%s %d %r" % (self.klass, self.code, self.text)


class Done:
    def __init__(self, data):
        (_, self.reuse, self.unreachable, hi, lo, self.version, self.suite, self.verified, peer, name) = struct.unpack(DONE_FORM, data)
        self.octets = hi << 32 | lo
        self.peer, self.name = text_of(peer), text_of(name)

    def __repr__(self):
        return repr(vars(self))


class Result:
    def __init__(self, reports, done):
        self.reports = [reports[i] for i in sorted(reports)]
        self.done = done

    @property
    def classes(self):
        return "".join(r.klass for r in self.reports)

    @property
    def first(self):
        return self.reports[0]

    def __repr__(self):
        return "%r %r" % (self.reports, self.done)


def build():
    """The binary of a delivery process, made in the tree."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "BOARD", "SANITIZE")}
    tools.run("make", "-s", "-j2", "remote", cwd=tools.TREE, env=env, timeout=600)
    return os.path.join(tools.TREE, "build/host/mailstile-remote")


class Remote:
    """A delivery process; `files`: control files. `env`: for the process."""

    def __init__(self, binary, files=None, dns=9, mx_port=0, env=None, timeout=60, connect=10):
        self.home = tempfile.mkdtemp(prefix="remote-")
        os.mkdir(os.path.join(self.home, "control"))
        files = dict({"relay": "on\n", "helohost": "out.example.net\n", "timeoutremote": "%d\n" % timeout, "timeoutconnect": "%d\n" % connect,
                      "smtptls": ":none\n"}, **(files or {}))
        for name, content in files.items():
            if content is not None:
                tools.write(os.path.join(self.home, "control", name), content, 0o600 if name == "smtpauth" else 0o644)
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE + 20)
        self.errors = open(os.path.join(self.home, "errors"), "w+b")
        self.process = subprocess.Popen([binary, self.home, str(theirs.fileno()), str(dns), str(mx_port)], pass_fds=[theirs.fileno()],
                                        stdin=subprocess.DEVNULL, stderr=self.errors, env=dict(os.environ, **(env or {})))
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop(check=kind is None)

    def stop(self, check=True):
        """The scheduler lets go of it. Returns the exit status."""
        self.sock.close()
        try:
            status = self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().decode("utf-8", "replace")
            self.errors.close()
            tools.rmtree(self.home)
        assert not check or status == 0, "status %d\n%s" % (status, said)
        return status

    def job(self, rcpts=("bob@example.org",), sender="alice@example.net", route=0, domain="example.org", message=MESSAGE, size=None):
        """Hand a job over."""
        f = tempfile.TemporaryFile()
        f.write(message)
        f.flush()
        octets = [a if isinstance(a, bytes) else a.encode() for a in (sender, *rcpts)]
        size = len(message) if size is None else size
        data = struct.pack(JOB_FORM, JOB, route, len(rcpts), len(octets[0]), 1234, size, domain.encode(), octets[0])
        with f:
            socket.send_fds(self.sock, [data], [f.fileno()])
        for a in octets[1:]:
            self.sock.send(struct.pack(RCPT_FORM, RCPT, len(a), a))
        return len(rcpts)

    def reply(self):
        data = self.sock.recv(4096)
        if not data:
            self.errors.seek(0)
            raise AssertionError("the process has ended: " + self.errors.read().decode("utf-8", "replace"))
        (kind,) = struct.unpack("=I", data[:4])
        return Report(data) if kind == REPORT else Done(data)

    def result(self, count):
        reports = {}
        while True:
            r = self.reply()
            if isinstance(r, Done):
                assert sorted(reports) == list(range(count)), "reports for %r of %d" % (sorted(reports), count)
                return Result(reports, r)
            assert r.rcpt not in reports, "reported twice"
            reports[r.rcpt] = r

    def deliver(self, *args, **kw):
        return self.result(self.job(*args, **kw))


def route(*peers, domain=""):
    """smtproutes with these peers in order."""
    return domain + ":" + " ".join("%s:%d" % (p.address, p.port) for p in peers) + "\n"


# ---- a next hop ------------------------------------------------------------------------------------------------------

STALL, CLOSE, RESET, TLS = object(), object(), object(), object()
DEFAULT = {"greet": b"220 peer.example ESMTP\r\n", "mail": b"250 2.1.0 ok\r\n", "rcpt": b"250 2.1.5 ok\r\n", "data": b"354 go\r\n",
           "bdat": b"250 2.0.0 so far\r\n", "dot": b"250 2.0.0 queued\r\n", "quit": b"221 2.0.0 bye\r\n", "rset": b"250 2.0.0 ok\r\n", "helo": b"250 peer.example\r\n",
           "starttls": b"220 2.0.0 go\r\n", "auth": b"235 2.7.0 welcome\r\n", "login": b"235 2.7.0 welcome\r\n"}
VERBS = {b"EHLO": "ehlo", b"HELO": "helo", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"QUIT": "quit", b"RSET": "rset",
         b"BDAT": "bdat", b"STARTTLS": "starttls", b"AUTH": "auth"}


class Talk:
    """One connection, as the peer saw it."""

    def __init__(self):
        self.lines = []      # commands
        self.chunks = []     # what each read brought, before TLS
        self.messages = []   # with dots removed and LF line ends
        self.raw = b""       # all data octets of messages, as they came
        self.sizes = []      # of the chunks of BDAT
        self.tls = None
        self.end = None      # "quit", "eof", "reset"
        self.name = None     # server name indication
        self.bad = None      # a line that is no command

    def taken(self):
        """Recipients, in order, of the messages that have come whole."""
        out, rcpts, whole = [], [], len(self.messages)
        for line in list(self.lines):
            if line.startswith(b"MAIL "):
                rcpts = []
            elif line.startswith(b"RCPT TO:<"):
                rcpts.append(line[9:].split(b">")[0].decode())
            elif (line == b"DATA" or line.endswith(b" LAST")) and whole > 0:
                out, whole = out + rcpts, whole - 1
        return out

    @property
    def verbs(self):
        return [line.split(b" ")[0].decode("latin-1") for line in self.lines]


class Peer:
    """
    A next hop. `answers`: stage -> octets, or STALL, CLOSE, RESET, or a list of those, one for each time (the last one stays). `after`:
    stage -> what is sent behind the answer in the same write. `keywords` of EHLO; `tls_keywords`: under TLS, if others. `context`: an
    SSLContext, for STARTTLS or, with `implicit`, at once. `slow`: stage -> seconds before the answer.
    """

    def __init__(self, answers=None, keywords=("PIPELINING", "8BITMIME", "SIZE 1000000", "SMTPUTF8"), tls_keywords=None, context=None,
                 implicit=False, address="127.0.0.1", after=None, slow=None, backlog=16, port=None, read_at_most=None):
        self.answers, self.after, self.slow = answers or {}, after or {}, slow or {}
        self.keywords, self.tls_keywords = list(keywords), tls_keywords
        self.context, self.implicit, self.address = context, implicit, address
        self.read_at_most = read_at_most
        self.talks, self.counts = [], {}
        self.open = self.most = 0  # connections at once
        self.busy = self.busiest = 0  # of them, those in the midst of a message
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port or tools.free_port()))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        self.listener.close()
        for t in list(self.threads):
            t.join(PATIENCE)

    @property
    def talk(self):
        (one,) = self.talks
        return one

    def _accept(self):
        while not self.stopping.is_set():
            try:
                r, _, _ = select.select([self.listener], [], [], 0.1)
                if not r:
                    continue
                sock, _ = self.listener.accept()
            except (OSError, ValueError):
                return
            talk = Talk()
            with self.lock:
                self.talks.append(talk)
            t = threading.Thread(target=self._serve, args=(sock, talk), daemon=True)
            self.threads.append(t)
            t.start()

    def _serve(self, sock, talk):
        sock.settimeout(PATIENCE + 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self, sock, talk)
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            session.run()
        except (ConnectionResetError, BrokenPipeError):
            talk.end = talk.end or "reset"
        except ssl.SSLError as e:
            talk.end = talk.end or "tls: %s" % e.reason
        except (OSError, EOFError) as e:
            talk.end = talk.end or "eof"
            talk.error = e
        finally:
            with self.lock:  # before the other side can know
                self.open -= 1
                self.busy -= session.busy
            session.sock.close()

    def answer(self, stage):
        """What to say now."""
        with self.lock:
            n = self.counts[stage] = self.counts.get(stage, 0) + 1
        a = self.answers.get(stage, DEFAULT.get(stage))
        if isinstance(a, list):
            a = a[min(n, len(a)) - 1]
        return a


class Session:
    """A connection's server side."""

    def __init__(self, peer, sock, talk):
        self.peer, self.sock, self.talk = peer, sock, talk
        self.buffer = self.body = b""
        self.busy = 0
        self.fresh = True  # no chunk of a message has come yet

    def more(self):
        data = self.sock.recv(self.peer.read_at_most or 65536)
        if not data:
            raise EOFError()
        if not self.talk.tls:
            self.talk.chunks.append(data)
        self.buffer += data

    def line(self):
        while b"\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        if not line.endswith(b"\r") or len(line) > 2500:
            self.talk.bad = line
            raise EOFError()
        return line[:-1]

    def wait_until_gone(self):
        """Say nothing until the client goes, or the test ends."""
        while not self.peer.stopping.is_set():
            r, _, _ = select.select([self.sock], [], [], 0.1)
            if r and not self.sock.recv(65536):
                raise EOFError()

    def say(self, stage):
        a = self.peer.answer(stage)
        if stage == "ehlo" and a is None:
            words = self.peer.tls_keywords if self.talk.tls and self.peer.tls_keywords is not None else self.peer.keywords
            words = [w for w in words if not (self.talk.tls and w == "STARTTLS")]
            lines = ["peer.example greets you"] + list(words)
            a = "".join("250%s%s\r\n" % (" " if i == len(lines) - 1 else "-", w) for i, w in enumerate(lines)).encode()
        if stage in self.peer.slow:
            self.peer.stopping.wait(self.peer.slow[stage])
        if a is STALL:
            self.wait_until_gone()
            raise EOFError()
        if a is CLOSE:
            self.talk.end = "closed"
            raise EOFError()
        if a is RESET:
            if stage == "greet":
                self.peer.stopping.wait(0.1)  # or the connection may seem never to have been there
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.talk.end = "reset by us"
            raise EOFError()
        if stage in ("mail", "dot"):
            with self.peer.lock:
                self.peer.busy -= self.busy
                self.busy = int(stage == "mail")
                self.peer.busy += self.busy
                self.peer.busiest = max(self.peer.busiest, self.peer.busy)
        self.sock.sendall(a + self.peer.after.get(stage, b""))
        return a

    def wrap(self):
        def names(_, name, __):
            self.talk.name = name
        self.peer.context.sni_callback = names
        self.sock = self.peer.context.wrap_socket(self.sock, server_side=True)
        self.talk.tls = self.sock.version(), self.sock.cipher()[0]
        self.buffer = b""

    def message(self):
        data = b""
        while not (data.endswith(b"\r\n.\r\n") or data == b".\r\n"):
            if not self.buffer:
                if "body" in self.peer.answers:
                    self.say("body")
                self.more()
            cut = self.buffer.find(b"\r\n.\r\n") if not data else -1
            if data or (cut == -1 and self.buffer[:3] != b".\r\n"):
                end = (data + self.buffer).find(b"\r\n.\r\n")
                n = len(self.buffer) if end == -1 else end + 5 - len(data)
            else:
                n = 3 if self.buffer[:3] == b".\r\n" else cut + 5
            data, self.buffer = data + self.buffer[:n], self.buffer[n:]
        self.talk.raw += data
        body = data[:-3]
        assert b"\r" not in body.replace(b"\r\n", b"") and b"\n" not in body.replace(b"\r\n", b""), "bare CR or LF went out"
        self.talk.messages.append(re.sub(rb"(?m)^\.", b"", body.replace(b"\r\n", b"\n")))

    def chunk(self, line):
        """Exactly as many octets as BDAT says, and then the reply: stage `bdat`, or `dot` for the last one. No answer comes before the octets."""
        words = line.split(b" ")
        assert len(words) == 2 or (len(words) == 3 and words[2] == b"LAST"), line
        size = int(words[1])
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        if self.fresh:
            self.body = b""
        self.fresh = len(words) == 3
        self.talk.raw += data
        self.talk.sizes.append(size)
        self.body += data
        if self.fresh:
            assert self.body.count(b"\r\n") == self.body.count(b"\r") == self.body.count(b"\n"), "bare CR or LF went out"
            self.talk.messages.append(self.body.replace(b"\r\n", b"\n"))
        self.say("dot" if self.fresh else "bdat")

    def run(self):
        if self.peer.implicit:
            self.wrap()
        self.say("greet")
        while True:
            line = self.line()
            self.talk.lines.append(line)
            stage = VERBS.get(line.split(b" ")[0].upper(), "unknown")
            if stage == "bdat":
                self.chunk(line)
                continue
            self.fresh = True
            a = self.say(stage)
            if stage == "data" and a[:1] == b"3":
                self.message()
                self.say("dot")
            elif stage == "starttls" and a[:3] == b"220":
                if self.peer.context is None:
                    self.sock.sendall(b"this is no TLS at all, but text that goes on for a while\r\n")
                    raise EOFError()
                self.wrap()
            elif stage == "auth":
                while a[:3] == b"334":
                    self.talk.lines.append(self.line())
                    a = self.say("login")
            elif stage == "quit":
                self.talk.end = "quit"
                if self.talk.tls:
                    self.sock.unwrap().close()
                raise EOFError()


# ---- a name server ---------------------------------------------------------------------------------------------------

TYPES = {"A": 1, "MX": 15, "AAAA": 28, "CNAME": 5}


def wire_name(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"


class Names:
    """A name server: {name: {"MX": [(10, host)], "A": [address], "fail": True}}; names it does not have do not exist."""

    def __init__(self, zone, address=("127.0.0.1", 0)):
        self.zone = zone
        self.asked = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.port = self.sock.getsockname()[1]
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(PATIENCE)
        self.sock.close()

    def _run(self):
        while not self.stopping.is_set():
            r, _, _ = select.select([self.sock], [], [], 0.1)
            if r:
                data, whence = self.sock.recvfrom(4096)
                self.sock.sendto(self.reply(data), whence)

    def reply(self, q):
        labels, at = [], 12
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode("latin-1"))
            at += 1 + q[at]
        name, (kind,) = ".".join(labels).lower(), struct.unpack("!H", q[at + 1:at + 3])
        self.asked.append((name, kind))
        question = q[12:at + 5]
        have = self.zone.get(name)
        code, answers = (3, []) if have is None else (2, []) if have.get("fail") else (0, [])
        for word, values in (have or {}).items():
            if TYPES.get(word) == kind and code == 0:
                for v in values:
                    if word == "MX":
                        data = struct.pack("!H", v[0]) + wire_name(v[1])
                    else:
                        data = socket.inet_pton(socket.AF_INET6 if word == "AAAA" else socket.AF_INET, v)
                    answers.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data)
        return q[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(answers), 0, 0) + question + b"".join(answers)


# ---- authorities -----------------------------------------------------------------------------------------------------

class Authority:
    """A CA made by openssl in a directory, and what it issues."""

    def __init__(self, path, name="Test CA"):
        self.dir = path
        os.makedirs(path, exist_ok=True)
        self.cert, self.key = os.path.join(path, "ca.pem"), os.path.join(path, "ca.key")
        tools.run("openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=" + name, "-newkey", "ec", "-pkeyopt",
                  "ec_paramgen_curve:P-384", "-addext", "keyUsage=critical,keyCertSign", "-keyout", self.key, "-out", self.cert)

    def issue(self, name, kind="ec", days=None, san=None):
        """(chain, key) for a host. `days`: (from, to) as openssl dates, else 30 days."""
        stem = os.path.join(self.dir, "%s-%s%s" % (name, kind, "-dated" if days else ""))
        cert, key, request = stem + ".pem", stem + ".key", stem + ".csr"
        algorithm = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "ec384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
                     "rsa": ["-newkey", "rsa:2048"]}[kind]
        tools.run("openssl", "req", "-nodes", "-subj", "/CN=" + name, *algorithm, "-keyout", key, "-out", request)
        extensions = tools.write(stem + ".ext", "subjectAltName=%s\n" % (san or "DNS:" + name))
        if days is None:
            tools.run("openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "30",
                      "-extfile", extensions, "-out", cert)
        else:
            self._dated(request, cert, extensions, days)
        with open(cert, "a", encoding="ascii") as f, open(self.cert, encoding="ascii") as ca:
            f.write(ca.read())
        return cert, key

    def _dated(self, request, cert, extensions, days):
        place = tempfile.mkdtemp(dir=self.dir)
        conf = tools.write(os.path.join(place, "conf"), "[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\n"
                           "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n" % (place, place, place))
        tools.write(os.path.join(place, "index"), "")
        tools.write(os.path.join(place, "serial"), "01\n")
        tools.run("openssl", "ca", "-batch", "-notext", "-config", conf, "-cert", self.cert, "-keyfile", self.key, "-in", request, "-out", cert,
                  "-startdate", days[0], "-enddate", days[1], "-extfile", extensions)


def context(pair, versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), ciphers=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*pair)
    c.minimum_version, c.maximum_version = versions
    if ciphers:
        c.set_ciphers(ciphers)
    return c


def pin(cert):
    """SHA-256 of the SubjectPublicKeyInfo, by openssl."""
    key = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-pubkey"], stdout=subprocess.PIPE, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key, stdout=subprocess.PIPE, check=True).stdout
    return subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, stdout=subprocess.PIPE, check=True).stdout[:64].decode()
