# SPDX-License-Identifier: MIT
"""
What `make bench` starts: servers with a configuration, a spool and ports each, all in one private root directory, and a FreeRADIUS. Here
are mailstile and the floor; peers.py has the others. All accept mail for bench.example, log to /dev/log, and deliver nothing.
"""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

DOMAIN = "bench.example"
LOGIN = ("alice", "wonder-land")
SECRET = "bench-tWo-pEnny"
USERS = ["qmaild", "qmailq", "qmails", "qmailr", "postfix", "opensmtpd", "opensmtpq", "Debian-exim", "sasl", "dovecot", "dovenull", LOGIN[0]]
GROUPS = ["qmail", "nofiles", "postfix", "postdrop", "opensmtpd", "opensmtpq", "Debian-exim", "sasl", "dovecot", "dovenull", "mail", "shadow"]
SHELL = "/usr/sbin:/usr/bin:/sbin:/bin"


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("bench: waited in vain for " + what)
        time.sleep(0.02)


class Root:
    """The directory that servers see as `/`."""

    def __init__(self, path):
        self.path = pathlib.Path(path).absolute()
        for d in ("etc/ssl/bench", "dev", "proc", "tmp", "run", "var/run", "var/empty", "srv", "bin"):
            (self.path / d).mkdir(parents=True, exist_ok=True)
        os.chmod(self.path, 0o755)
        os.chmod(self.path / "tmp", 0o1777)
        self.ordered = False  # one flush is enough
        # Where emptied queues go.
        self.moved = 0
        self.old = self.path / f"old/{time.time():.0f}"
        self.old.mkdir(parents=True)
        self.write("etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n" + "".join(
            f"{u}:x:{64100 + i}:{self.gid(u)}::/var/empty:/bin/false\n" for i, u in enumerate(USERS)))
        self.write("etc/group", "root:x:0:\nnogroup:x:65534:\n" + "".join(
            f"{g}:x:{64200 + i}:\n" for i, g in enumerate(GROUPS)))
        self.write("etc/hosts", "127.0.0.1 localhost bench.example\n")
        self.write("etc/services", "smtp 25/tcp\nradius 1812/udp\nradacct 1813/udp\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\n")
        self.write("etc/host.conf", "order hosts\n")
        self.write("etc/aliases", "")
        for name, minor in (("null", 3), ("zero", 5), ("urandom", 9), ("random", 8)):
            node = self.path / "dev" / name
            if not node.exists():
                os.mknod(node, 0o020666, os.makedev(1, minor))
                os.chmod(node, 0o666)
        self.certificate()

    def gid(self, user):
        group = {"qmaild": "nofiles", "qmailq": "qmail", "qmails": "qmail", "qmailr": "qmail", LOGIN[0]: "mail"}.get(user, user)
        return 64200 + GROUPS.index(group)

    def ids(self, user):
        return 64100 + USERS.index(user), self.gid(user)

    def write(self, name, text, mode=0o644):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.chmod(path, mode)
        return path

    def directory(self, name, user="root", mode=0o755, group=None):
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        uid, gid = (0, 0) if user == "root" else self.ids(user)
        os.chown(path, uid, 64200 + GROUPS.index(group) if group else gid)
        os.chmod(path, mode)
        return path

    def certificate(self):
        """ECDSA on P-256, as mailstile makes for itself."""
        cert, key = self.path / "etc/ssl/bench/cert.pem", self.path / "etc/ssl/bench/key.pem"
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=" + DOMAIN, "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-keyout", key, "-out", cert], check=True, stderr=subprocess.DEVNULL)
        os.chmod(key, 0o600)

    def put_away(self, path):
        """Out of sight, but not deleted: see Server.drain."""
        path = self.path / path
        if path.exists():
            os.rename(path, self.old / str(self.moved))
            self.moved += 1

    def flush(self):
        """What emptying queues costs the file system must not be charged to who comes next: end the journal's transaction."""
        fd = os.open(self.old, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def popen(self, argv, cgroup=None, **kw):
        """Start argv in here; `cgroup` is a Cgroup."""
        def enter():
            if cgroup:
                cgroup.enter()
            os.chroot(self.path)
            os.chdir("/")
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(argv, preexec_fn=enter, start_new_session=True, env={"PATH": SHELL}, **kw)

    def run(self, argv, **kw):
        p = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
        out = p.communicate(timeout=60)[0].decode("utf-8", "replace")
        if p.returncode != 0:
            raise SystemExit(f"bench: {' '.join(map(str, argv))}: status {p.returncode}\n{out}")
        return out


class Cgroup:
    """
    Counts the CPU time of all processes ever in it. Version 2 if there is one: each of its directories has cpu.stat, whatever
    controllers are on.
    """

    def __init__(self, name):
        self.path = None
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            before, after = line.split(" - ", 1)
            if after.startswith("cgroup2 "):
                self.path = pathlib.Path(before.split()[4]) / f"mailstile-bench.{os.getpid()}.{name}"
        if self.path is None:
            raise SystemExit("bench: no cgroup (version 2) is mounted; CPU time could not be counted")
        self.path.mkdir()

    def enter(self):
        with open(self.path / "cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(os.getpid()))

    def pids(self):
        return [int(x) for x in (self.path / "cgroup.procs").read_text().split()]

    def cpu(self):
        """Seconds so far."""
        stat = dict(line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def remove(self):
        for _ in range(200):
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.02)


class Server:
    """One of those measured. Subclasses say how it is configured, started and emptied."""

    name = "?"
    tls = True        # has a port with TLS from the first octet
    login = True      # asks RADIUS
    only_logins = False  # otherwise another one of those measured
    spool = ()        # directories under which every file is a message in the queue, or a part of one
    files_each = 1    # files of a message there
    load_words = ()   # for the load generator

    def __init__(self, root, radius):
        self.root, self.radius = root, radius
        self.smtp, self.smtps = free_port(), free_port()
        self.process = self.cgroup = None
        self.lost = 0  # connections that it never greeted
        self.configure()

    def configure(self):
        """Write configuration and directories."""

    def argv(self):
        raise NotImplementedError

    def start(self):
        self.cgroup = Cgroup(type(self).__name__)
        self.process = self.root.popen(self.argv(), self.cgroup, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in (self.smtp, self.smtps) if self.tls else (self.smtp,):
            wait_for(lambda p=port: self.listens(p), f"{self.name} to listen")
        self.started()
        self.settle()

    def started(self):
        """What is to be done once it listens."""

    def listens(self, port):
        if self.process.poll() is not None:
            raise SystemExit(f"bench: {self.name} ended with status {self.process.returncode}; see dev/log.txt")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.cgroup:
            self.cgroup.remove()
            self.cgroup = None

    def settle(self):
        """Wait until the server has nothing more to do; its CPU time then."""
        quiet, last = 0, self.cgroup.cpu()
        for _ in range(150):
            time.sleep(0.02)
            now = self.cgroup.cpu()
            quiet = quiet + 1 if now - last < 0.0002 else 0
            last = now
            if quiet >= 5:
                break
        return last

    def queued(self):
        """Files in the queue."""
        return [os.path.join(where, n) for d in self.spool
                for where, _, names in os.walk(self.root.path / d) for n in names]

    def count(self):
        return len(self.queued()) / self.files_each

    def drain(self):
        """
        Take the messages away. They are emptied and moved, not deleted: ext4 does not use a deleted inode again for minutes, and looking
        past thousands of them would cost whoever makes the next files more than all the rest.
        """
        for f in self.queued():
            os.truncate(f, 0)
            self.root.put_away(f)


RADIUSD_CONF = """\
raddbdir = {dir}
logdir = {dir}
radacctdir = {dir}
libdir = /usr/lib/freeradius
max_requests = 65536
cleanup_delay = 1
pidfile = {dir}/pid
security {{
	reject_delay = 0
}}
modules {{
	pap {{
	}}
	files {{
		usersfile = {dir}/users
	}}
}}
client loop {{
	ipaddr = 127.0.0.1
	secret = {secret}
	require_message_authenticator = no
}}
server default {{
	listen {{
		type = auth
		ipaddr = 127.0.0.1
		port = {port}
	}}
	authorize {{
		files
		pap
	}}
	authenticate {{
		Auth-Type PAP {{
			pap
		}}
	}}
	post-auth {{
		update reply {{
			Message-Authenticator := 0x00
		}}
		Post-Auth-Type REJECT {{
			update reply {{
				Message-Authenticator := 0x00
			}}
		}}
	}}
}}
"""


class Radius:
    """FreeRADIUS for all of them. It takes requests without Message-Authenticator, since PAM's module sends none."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.port = free_port(socket.SOCK_DGRAM)
        self.dir.mkdir(mode=0o700, exist_ok=True)
        (self.dir / "radiusd.conf").write_text(RADIUSD_CONF.format(dir=self.dir, secret=SECRET, port=self.port))
        (self.dir / "users").write_text('%s\tCleartext-Password := "%s"\n' % LOGIN)
        self.log = self.dir / "out"
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(["freeradius", "-f", "-l", "stdout", "-d", self.dir], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out)
        wait_for(lambda: b"Ready to process requests" in self.log.read_bytes(), "FreeRADIUS; see " + str(self.log))

    def stop(self):
        self.process.kill()
        self.process.wait()


class Mailstile(Server):
    name = "mailstile"
    spool = ("var/qmail/queue/mess", "var/qmail/queue/intd", "var/qmail/queue/todo")
    files_each = 3

    def configure(self):
        shutil.copy(os.environ["MAILSTILE"], self.root.path / "bin/mailstile")
        self.root.put_away("var/qmail")
        control = "var/qmail/control/"
        self.root.write(control + "me", DOMAIN + "\n")
        self.root.write(control + "rcpthosts", DOMAIN + "\n")
        self.root.write(control + "relay", "off\n")
        self.root.write(control + "listen", f"smtp 127.0.0.1:{self.smtp}\nsubmissions 127.0.0.1:{self.smtps}\n")
        self.root.write(control + "radius.conf", f"127.0.0.1:{self.radius} {SECRET}\n", 0o600)
        pair = [(self.root.path / "etc/ssl/bench" / f).read_text() for f in ("cert.pem", "key.pem")]
        self.root.write(control + "servercert.pem", pair[0])
        self.root.write(control + "serverkey.pem", pair[1], 0o600)
        self.root.run(["/bin/mailstile", "mkqueue"])

    def argv(self):
        return ["/bin/mailstile", "serve", "-s"]


class Floor(Server):
    name = "floor"
    tls = login = False
    spool = ("srv/floor/mess", "srv/floor/intd", "srv/floor/todo")
    files_each = 3

    def configure(self):
        shutil.copy(os.environ["FLOOR"], self.root.path / "bin/floor")
        for d in self.spool:
            self.root.put_away(d)
            self.root.directory(d)

    def argv(self):
        return ["/bin/floor", *(["-1"] if self.root.ordered else []), str(self.smtp), "/srv/floor"]
