# SPDX-License-Identifier: MIT
"""
What is left to one who has taken a process over, tried from inside of it: every system call there is, every descriptor, and
what stands behind the system call filter where a kernel has none.
"""

import errno
import os
import re
import socket
import stat
import struct
import subprocess
import time

import pytest

import harness
import hostile
import radius
import tools
from hostile import Gone, Hostile, calls
from tools import poll, status_of

pytestmark = pytest.mark.release
root = pytest.mark.root

# All that an smtp process may ask of the kernel: to read, write, close, send and receive on what is open, to wait, the time, random numbers, who
# its parent is, the end.
SMTP = {"read", "write", "close", "recvmsg", "sendmsg", "shutdown", "exit", "exit_group", "rt_sigreturn", "restart_syscall", "poll", "ppoll",
        "ppoll_time64", "clock_gettime", "clock_gettime64", "gettimeofday", "sigreturn", "getrandom", "getppid"}
# These too, but with few arguments only; see below.
SOME = {"clone", "prctl", "prlimit64"}
# A warden, more: files of the spool, UDP, memory, locks. Nothing that starts, signals or traces a process, and nothing about users.
WARDEN = SMTP | {
    "open", "openat", "link", "linkat", "unlink", "unlinkat", "fsync", "sync_file_range", "sync_file_range2", "lseek", "_llseek", "fchmod", "socket", "connect", "sendto", "send", "recvfrom",
    "getsockname", "getsockopt", "setsockopt", "bind", "fcntl", "fcntl64", "mmap", "mmap2", "munmap", "mprotect", "brk", "madvise", "mremap", "getpid",
    "gettid", "getrandom", "wait4", "eventfd2", "socketpair", "rt_sigaction", "rt_sigprocmask", "umask", "readv", "writev", "pread64", "pwrite64", "fdatasync", "nanosleep", "clock_nanosleep",
    "clock_nanosleep_time64", "fstat", "stat", "fstat64", "stat64", "newfstatat", "fstatat64", "statx", "statfs", "statfs64"}
# Some that somebody might miss in the sweep over all of them.
NOTED = {
    "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd",
    "chroot", "chdir", "fchdir", "pivot_root", "mount", "umount2", "unshare", "setns", "clone", "clone3", "execve", "execveat", "prctl", "seccomp",
    "setuid", "setgid", "setreuid", "setresuid", "setgroups", "setfsuid", "capset", "setrlimit", "prlimit64", "socketpair", "accept4", "listen", "dup",
    "dup3", "pipe2", "ftruncate", "truncate", "fallocate", "pwrite64", "pwritev", "copy_file_range", "splice", "sendfile", "tee", "vmsplice", "ioctl",
    "io_uring_setup", "io_uring_enter", "io_setup", "userfaultfd", "keyctl", "add_key", "shmget", "shmat", "semget", "msgget", "memfd_create",
    "memfd_secret", "perf_event_open", "bpf", "open_by_handle_at", "name_to_handle_at", "renameat2", "symlinkat", "mknodat", "mkdirat", "fchown",
    "fchownat", "fchmodat", "utimensat", "setxattr", "init_module", "finit_module", "kexec_load", "reboot", "sethostname", "settimeofday",
    "clock_settime", "adjtimex", "swapon", "quotactl", "fanotify_init", "inotify_init1", "personality", "pkey_mprotect", "remap_file_pages", "mlock",
    "process_madvise", "kcmp", "set_robust_list", "landlock_create_ruleset", "move_mount", "open_tree", "fsopen", "vhangup", "acct", "syslog"}


# The kernel's own trampolines, which no filter sees (Linux 6.14, 6.18); called by anybody else they do nothing.
TRAMPOLINES = {335, 336} if os.uname().machine == "x86_64" else set()


def numbers(allowed):
    """Every number the kernel may know, and some it may not, but for those that are allowed."""
    known = calls()
    out = set(range(max(known.values()) + 40)) - {n for name, n in known.items() if name in allowed | SOME}
    assert {known[name] for name in NOTED - allowed - SOME if name in known} <= out
    return sorted(out - TRAMPOLINES)


@pytest.fixture(scope="module")
def jail(work, house, hostile_binary):
    s = harness.Server(work, house, None, binary=hostile_binary, listen=hostile.LISTEN)
    s.crash_expected = True
    yield s
    s.stop()


@pytest.fixture(scope="module")
def desk(work, house, hostile_binary):
    """The same, started by somebody who is not root."""
    s = nobodys_server(work, house, "127.0.0.1:%d %s 1 0\n" % (tools.free_port(socket.SOCK_DGRAM), radius.SECRET), hostile_binary)
    yield s
    s.stop()


def nobodys_server(work, house, radius_conf, binary):
    if not tools.ROOT:
        s = harness.Server(work, house, radius_conf, binary=binary, listen=hostile.LISTEN)
    else:
        def prepare(server):
            for where, dirs, names in os.walk(server.home):
                for n in [where] + [os.path.join(where, x) for x in dirs + names]:
                    os.chown(n, 65534, 65534, follow_symlinks=False)
        wrap = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        s = harness.Server(work, house, radius_conf, binary=binary, listen=hostile.LISTEN, wrap=wrap, prepare=prepare)
    s.crash_expected = True
    return s


@pytest.fixture(params=["jail", "desk"])
def any_server(request):
    if request.param == "jail" and not tools.ROOT:
        return request.getfixturevalue("desk")
    return request.getfixturevalue(request.param)


def deaths(server, source):
    """Signals that ended smtp processes of this client. (server.log() reads every line, which is too much work for so many of them.)"""
    return re.findall(r"^ev=crash sid=\S+ client=%s role=smtp signal=(\d+)$" % re.escape(source), tools.read(server.logfile).decode(), re.M)


# ---- The filter ------------------------------------------------------------------------------------------------------

def is_death(server, call, signals=("31",)):
    """`call(session)` ends the smtp process by SIGSYS before it comes back. Returns what went wrong, or None."""
    with Hostile(server) as h:
        try:
            return "came back with %d" % call(h)
        except Gone:
            pass
        poll(lambda: deaths(server, h.source), "the death of %s" % h.source)
        return None if deaths(server, h.source)[0] in signals else "died of signal %s" % deaths(server, h.source)[0]


def in_chunks(items, work):
    """Like Crowd, but with few threads' worth of cases."""
    crowd = tools.Crowd({n: lambda part=items[n::16]: {i: work(i) for i in part} for n in range(16)})
    out = {}
    for n in range(16):
        out.update(crowd[n])
    return {k: v for k, v in out.items() if v is not None}


def test_every_call_of_smtp(any_server):
    """There is no other system call that does not end it at once."""
    assert in_chunks(numbers(SMTP), lambda n: is_death(any_server, lambda h: h.call(n))) == {}


PR_SET_PDEATHSIG, PR_SET_NAME, CLONE_PARENT, SIGCHLD, SIGTERM, SIGKILL = 1, 15, 0x8000, 17, 15, 9


def test_calls_with_few_arguments(any_server):
    """What a session does for itself at its beginning: not one bit more, and afterwards to no effect."""
    right = CLONE_PARENT | SIGCHLD
    flags = [right ^ 1 << bit for bit in range(32)] + [0, SIGCHLD, CLONE_PARENT, 0xffffffff, 0x10000000 | right, 0x20000 | right, 0x50f00]
    options = [n for n in range(80) if n not in (PR_SET_PDEATHSIG, PR_SET_NAME)] + [0x59616d61, 1 << 31, 0xffffffff, 0x41555856, 0x53564d41]
    deaths_of = {**{("clone", f): lambda h, f=f: h.call("clone", f) for f in flags},
                 **{("prctl", o): lambda h, o=o: h.call("prctl", o, 1, 0, 0, 0) for o in options},
                 **{("death", n): lambda h, n=n: h.call("prctl", PR_SET_PDEATHSIG, n) for n in [0, 1, SIGTERM, 17, 64, SIGKILL | 1 << 31]},
                 **{("prlimit64", n): lambda h, n=n: h.call("prlimit64", n, 3, 0, 0) for n in (1, any_server.pid, -1, 1 << 31)}}
    assert in_chunks(list(deaths_of), lambda key: is_death(any_server, deaths_of[key])) == {}
    with Hostile(any_server) as h:
        for upper in (0, 1 << 32, 1 << 63):
            assert h.call("clone", right | upper) == -errno.EAGAIN
        assert h.call("prctl", PR_SET_PDEATHSIG, SIGKILL) == 0 and h.call("prctl", PR_SET_NAME, h.poke(b"stile-ward 511\0")) == 0
        for resource in range(16):
            at = h.poke(bytes(16))
            assert h.call("prlimit64", 0, resource, 0, at) == 0
            soft, hard = struct.unpack("<QQ", h.peek(16))
            if hard < (1 << 64) - 1:
                assert h.call("prlimit64", 0, resource, h.poke(struct.pack("<QQ", soft, hard + 1)), 0) == -errno.EPERM
            if resource in (4, 6):  # core files, processes
                assert hard == 0
            elif resource == 7:
                assert hard == 5
            elif resource == 0:
                assert hard == h.facts["TIMEOUT_SESSION"]
        assert h.verdict(h.facts.mail()) == h.facts["V_OK"]
        if any_server.pairs():
            assert status_of(h.pids()[1])["NoNewPrivs"] == "1"


def test_warden_cannot_fork(jail):
    """As above: in a warden the signal is another one."""
    for args in (("clone", SIGCHLD), ("clone", CLONE_PARENT | SIGCHLD | 0x100), ("prctl", PR_SET_PDEATHSIG, 0), ("prctl", PR_SET_PDEATHSIG, SIGKILL), ("prctl", 4, 1),
                 ("prctl", 38, 0), ("prlimit64", jail.pid, 3, 0, 0)):
        with Hostile(jail) as h:
            with pytest.raises(Gone):
                h.warden_call(*args)
    with Hostile(jail) as h:
        assert h.warden_call("clone", CLONE_PARENT | SIGCHLD) == -errno.EAGAIN
        assert h.warden_call("prlimit64", 0, 6, h.warden_poke(struct.pack("<QQ", 0, 1)), 0) == -errno.EPERM


def test_trampolines(jail):
    for n in TRAMPOLINES:
        assert is_death(jail, lambda h, n=n: h.call(n), ("31", "4")) in (None, "came back with %d" % -errno.ENXIO)


def test_every_call_of_warden(jail):
    """Nothing that starts, signals or traces a process, changes a user, makes a directory or mounts."""
    before = len(jail.log("crash", msg="warden died by signal 31"))
    poll(jail.idle, "others to end")

    def die(number):
        with Hostile(jail) as h:
            try:
                return "came back with %d" % h.warden_call(number)
            except Gone:
                return None
    wanted = numbers(WARDEN)
    assert in_chunks(wanted, die) == {}
    poll(lambda: len(jail.log("crash", msg="warden died by signal 31")) == before + len(wanted), "the deaths")
    poll(jail.idle, "the end of their smtp processes")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another CPU")
def test_other_ways_to_call(jail):
    """The 32-bit calls and the x32 ones, which have other numbers; and numbers with octets that are cut off."""
    x32 = [1 << 30 | n for n in (0, 1, 2, 39, 56, 57, 59, 62, 101, 102, 105, 514, 520, 521, 545)]
    odd = [-1, -39, 1 << 31, 1 << 31 | 39, 0xffffffff, 1 << 32 | 39, 0xdead << 32 | 57, 1 << 63 | 62]
    assert in_chunks(x32 + odd, lambda n: is_death(jail, lambda h: h.call(n))) == {}
    # 4 is write there, and stat here. A kernel without them ends it by SIGSEGV.
    for n in (1, 2, 4, 5, 11, 20, 37, 26, 120, 190):
        assert is_death(jail, lambda h, n=n: struct.unpack("<q", h.execute(b"J" + struct.pack("<Q", n)))[0], ("31", "11")) is None, n


# ---- What is open ----------------------------------------------------------------------------------------------------

SOL_SOCKET, SCM_RIGHTS, SCM_CREDENTIALS, MSG_DONTWAIT, POLLNVAL = 1, 1, 2, 0x40, 0x20


def poll_call(h, fd):
    """revents of one descriptor."""
    h.call("poll", h.poke(struct.pack("<ihh", fd, 1, 0), 1000), 1, 0)
    return struct.unpack("<ihh", h.peek(8, 1000))[2]


def message_header(h, data, control=b"", name=b""):
    """A struct msghdr in the process; its address."""
    at = h.poke(data, 4096)
    vector = h.poke(struct.pack("<QQ", at, len(data)), 2048)
    control_at, name_at = h.poke(control, 1024), h.poke(name, 512)
    return h.poke(struct.pack("<QIIQQQQII", name_at if name else 0, len(name), 0, vector, 1, control_at if control else 0, len(control), 0, 0), 0)


def control_message(kind, data):
    return struct.pack("<QII", 16 + len(data), SOL_SOCKET, kind) + data + bytes(-len(data) % 8)


def begin_message(h, sender="me@client.example", rcpt="you@local.example"):
    f = h.facts
    for m in (f.mail(sender), f.rcpt(rcpt), f.data()):
        assert h.verdict(m) == f["V_OK"]


def test_descriptors_from_inside(any_server):
    """The client twice, nothing, the warden, and for a time the message: each tried with every call that is allowed."""
    with Hostile(any_server) as h:
        assert [n for n in range(64) if not poll_call(h, n) & POLLNVAL] == [0, 1, 2, 3]
        begin_message(h)
        assert [n for n in range(64) if not poll_call(h, n) & POLLNVAL] == [0, 1, 2, 3, 4]
        room = h.poke(bytes(64), 8192)
        # The message: what is in it cannot be read, its end is where one is.
        assert h.call("read", 4, room, 64) == 0
        assert h.write(b"Subject: x\n") == 11
        assert h.call("read", 4, room, 64) == 0
        for fd in (2, 4):
            header = message_header(h, b"x")
            assert h.call("sendmsg", fd, header, 0) == -errno.ENOTSOCK and h.call("recvmsg", fd, header, 0) == -errno.ENOTSOCK
            assert h.call("shutdown", fd, 2) == -errno.ENOTSOCK
        # Nothing, which takes everything.
        assert h.call("read", 2, room, 64) == 0 and h.call("write", 2, room, 64) == 64
        # The warden, without a word from it.
        assert h.call("recvmsg", 3, message_header(h, bytes(64)), MSG_DONTWAIT) == -errno.EAGAIN
        for fd in (5, 6, 7, 23, 24, 64, 1023, -1, 1 << 31):
            for name in ("read", "write"):
                assert h.call(name, fd, room, 1) == -errno.EBADF
            assert h.call("sendmsg", fd, message_header(h, b"x"), 0) == -errno.EBADF
        assert h.call("close", 4) == 0
        data, _ = h.ask(h.facts.commit())
        assert h.facts.read("msg_commit_reply", data)["verdict"] == h.facts["V_OK"]
    m = any_server.take()
    assert [x.body for x in m] == [b"Subject: x\n"]


def test_nobody_else_can_be_reached(jail):
    """A destination in sendmsg() is not where it goes, from neither socket; and nobody else's credentials are believed by the kernel."""
    with socket.socket() as other, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as local, Hostile(jail) as h:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(0.3)
        local.bind("\0mailstile-test-%d" % os.getpid())
        local.listen()
        local.settimeout(0.3)
        inet = struct.pack("<H", socket.AF_INET) + struct.pack("!H", other.getsockname()[1]) + socket.inet_aton("127.0.0.1") + bytes(8)
        unix = struct.pack("<H", socket.AF_UNIX) + local.getsockname()
        h.call("sendmsg", 0, message_header(h, bytes(8), name=inet), MSG_DONTWAIT | 0x20000000)  # MSG_FASTOPEN
        for sock in (other, local):
            with pytest.raises(socket.timeout):
                sock.accept()
        warden, _ = h.pids()
        for pid, uid, gid in ((jail.pid, 0, 0), (warden, harness.USERS["qmailq"], harness.GROUPS["qmail"]), (1, 0, 0)):
            control = control_message(SCM_CREDENTIALS, struct.pack("<iII", pid, uid, gid))
            if tools.ROOT:
                assert h.call("sendmsg", 3, message_header(h, h.facts.reset(), control), 0) == -errno.EPERM
        assert h.verdict(h.facts.mail()) == h.facts["V_OK"]
        # The warden's socket has one other end, whatever is named: this octet breaks the rules there.
        h.call("sendmsg", 3, message_header(h, b"x", name=unix), 0)
        with pytest.raises(socket.timeout):
            local.accept()
        assert h.ended()


# ---- What stands behind the filter -----------------------------------------------------------------------------------

PTRACE_ATTACH, PTRACE_SEIZE, AT_FDCWD, CLONE_NEWUSER, O_CREAT = 16, 0x4206, -100, 0x10000000, 0o100


@pytest.fixture(scope="module")
def bare_server(work, house, hostile_binary):
    s = harness.Server(work, house, None, binary=hostile_binary, listen=hostile.LISTEN, wrap=["env", "HOSTILE_BARE=1"])
    s.crash_expected = True
    yield s
    s.stop()


@pytest.fixture
def bare(bare_server):
    """A session on a server without filters, as on a kernel that knows none; and another session."""
    with bare_server.connect("smtp") as c:
        with Hostile(bare_server) as h:
            yield h, c
            assert h.verdict(h.facts.mail()) == h.facts["V_OK"]


@root
def test_no_filter_other_processes(bare, bare_server):
    """Users stand between smtp and all others, and not being traceable between one smtp process and another; only signals reach those."""
    h, c = bare
    warden, smtp = h.pids()
    assert status_of(smtp)["Seccomp"] == status_of(warden)["Seccomp"] == "0"
    their_warden, their_smtp = [(w, s) for w, s in bare_server.pairs() if w != warden][0]
    wardens, smtps = bare_server.nurseries()
    for pid in (bare_server.pid, warden, their_warden, wardens, 1, os.getpid()):
        for args in (("ptrace", PTRACE_ATTACH, pid), ("ptrace", PTRACE_SEIZE, pid), ("kill", pid, 0), ("kill", pid, 9), ("tkill", pid, 9),
                     ("tgkill", pid, pid, 9)):
            assert h.call(*args) == -errno.EPERM, args
    vector = h.poke(struct.pack("<QQ", h.scratch + 4096, 16), 64)
    for pid in (bare_server.pid, warden, wardens, their_smtp, smtps):
        for name in ("process_vm_readv", "process_vm_writev"):
            assert h.call(name, pid, vector, 1, vector, 1, 0) == -errno.EPERM
        assert h.call("ptrace", PTRACE_ATTACH, pid) == -errno.EPERM
    # Theirs is the same user, and so is their nursery.
    assert h.call("kill", their_smtp, 0) == 0 and h.call("kill", smtps, 0) == 0
    assert c.cmd("NOOP") == 250


@root
def test_no_filter_files(bare):
    """An empty directory, which it may not write to, is all the file system it has; nor does it get out of there."""
    h, _ = bare
    for path in ("/etc/passwd", "/proc/self/maps", "/proc/1/root", "/dev/null", "/tmp", "../../../../etc/passwd", "/../etc/passwd", "mess", "control"):
        assert h.call("open", h.poke(path.encode() + b"\0"), 0) == -errno.ENOENT, path
    assert h.call("mkdir", h.poke(b"x\0"), 0o755) == -errno.EACCES
    assert h.call("open", h.poke(b"x\0"), O_CREAT | 1, 0o644) == -errno.EACCES
    assert h.call("symlink", h.poke(b"/\0"), h.poke(b"x\0", 64)) == -errno.EACCES
    assert h.call("mknod", h.poke(b"x\0"), 0o20666, 0x103) in (-errno.EPERM, -errno.EACCES)
    for args in (("chroot",), ("pivot_root", h.poke(b"/\0", 64)), ("umount2", 0)):
        assert h.call(args[0], h.poke(b"/\0"), *args[1:]) == -errno.EPERM
    assert h.call("mount", h.poke(b"none\0"), h.poke(b"/\0", 64), h.poke(b"proc\0", 128), 0, 0) == -errno.EPERM
    # The root directory, however it is named, is the jail.
    for path in (b"/\0", b"..\0", b"../../..\0"):
        fd = h.call("open", h.poke(path), 0o200000)
        size = h.call("getdents64", fd, h.poke(bytes(4096), 4096), 4096)
        text = h.peek(size, 4096)
        names = re.findall(rb"[^\0]{0,2}\x04(\.{1,2})\0", text) or [b"."]
        assert size > 0 and text.count(b"\x04.") == 2 and set(names) <= {b".", b".."}, text
        assert h.call("close", fd) == 0


@root
def test_no_filter_powers(bare):
    """No process can be started, no user become, no limit raised, nothing of the system changed."""
    h, _ = bare
    for name in ("fork", "vfork"):
        assert h.call(name) == -errno.EAGAIN
    for flags in (17, 0x100 | 17, 0x20000 | 17):
        assert h.call("clone", flags, 0, 0, 0, 0) == -errno.EAGAIN
    assert h.call("clone", CLONE_NEWUSER | 17, 0, 0, 0, 0) in (-errno.EAGAIN, -errno.EPERM)
    assert h.call("unshare", CLONE_NEWUSER) == -errno.EPERM
    assert h.call("execve", h.poke(b"/bin/sh\0"), 0, 0) == -errno.ENOENT
    for args in (("setuid", 0), ("setgid", 0), ("setreuid", 0, 0), ("setresuid", 0, 0, 0), ("setresgid", 0, 0, 0), ("setgroups", 0, 0),
                 ("setuid", harness.USERS["qmailq"]), ("setgid", harness.GROUPS["qmail"])):
        assert h.call(*args) == -errno.EPERM, args
    header, everything = h.poke(struct.pack("<Ii", 0x20080522, 0)), h.poke(b"\xff" * 24, 64)
    assert h.call("capset", header, everything) == -errno.EPERM
    more = h.poke(struct.pack("<QQ", 1 << 20, 1 << 20))
    for resource in (4, 6, 7):  # core, processes, descriptors
        assert h.call("setrlimit", resource, more) == -errno.EPERM
    for args in (("reboot", 0xfee1dead, 672274793, 0x1234567, 0), ("sethostname", h.poke(b"x\0"), 1), ("settimeofday", h.poke(bytes(16)), 0),
                 ("init_module", h.poke(bytes(16)), 16, h.poke(b"\0", 64)), ("swapon", h.poke(b"/\0"), 0), ("iopl", 3), ("acct", 0), ("vhangup",),
                 ("socket", socket.AF_PACKET, socket.SOCK_RAW, 0), ("socket", socket.AF_INET, socket.SOCK_RAW, 1)):
        assert h.call(*args) in (-errno.EPERM, -errno.EAFNOSUPPORT, -errno.ENOSYS), args
    # This is what SECURITY.md says about such kernels: it can speak to others.
    fd = h.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    assert fd == 4 and h.call("close", fd) == 0


# ---- A warden that was taken over ------------------------------------------------------------------------------------

@root
def test_warden_files(jail):
    """The spool, which it is for; no other file, and no descriptor of a directory to start from."""
    with Hostile(jail) as h:
        for path in ("/etc/passwd", "/etc/radius.conf", "/proc/self/maps", "/dev/log", "../control/radius.conf", "/../control/serverkey.pem", "control",
                     "../../../../../../../../etc/shadow"):
            assert h.warden_call("open", h.warden_poke(path.encode() + b"\0"), 0) == -errno.ENOENT, path
        fd = h.warden_call("open", h.warden_poke(b"/\0"), 0o200000)
        assert fd > 0 and h.warden_call("openat", fd, h.warden_poke(b"../etc\0"), 0) == -errno.ENOENT
        assert h.warden_call("close", fd) == 0
        for n in range(64):
            room = h.warden_poke(bytes(256), 4096)
            if h.warden_call("fstat", n, room) == 0:
                mode = struct.unpack_from("<I", h.warden_execute(b"r" + struct.pack("<QQ", 4096, 256)), 24)[0]
                assert not stat.S_ISDIR(mode) and not stat.S_ISBLK(mode), n
        # What SECURITY.md says it gives: the queue, and connections.
        assert h.warden_call("open", h.warden_poke(b"todo\0"), 0o200000) > 0
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            to = struct.pack("<H", socket.AF_INET) + struct.pack("!H", other.getsockname()[1]) + socket.inet_aton("127.0.0.1") + bytes(8)
            sock = h.warden_call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
            assert h.warden_call("connect", sock, h.warden_poke(to), 16) == 0


def test_main_signals_only_its_own(jail):
    """A warden can write into the shared slots which process is whose: main killed any child of any process that it was told so."""
    victim = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    child = int(victim.stdout.readline())
    try:
        for parent, pid in ((victim.pid, child), (child, victim.pid), (child, child), (0, child)):
            with Hostile(jail) as h:
                assert struct.unpack("<q", h.warden_execute(b"K" + struct.pack("<QQ", parent, pid)))[0] == 0
                with jail.connect("smtp") as c:  # main wakes up, and looks at the slots
                    c.quit()
                h.warden_execute(b"K" + struct.pack("<QQ", 0, 0))
        time.sleep(0.2)
        assert victim.poll() is None and tools.status_of(child)["State"][0] in "SR"
    finally:
        os.kill(child, 9)
        victim.wait(20)
        victim.stdout.close()


# ---- The others ------------------------------------------------------------------------------------------------------

def test_the_desk_has_its_walls(desk):
    """Without root: filters, no new privileges, not traceable, and the secrets are in no smtp process."""
    with Hostile(desk) as h, desk.connect("smtp"):
        warden, smtp = h.pids()
        for pid in (warden, smtp):
            s = status_of(pid)
            assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1"
            if tools.ROOT:
                assert os.stat("/proc/%d/mem" % pid).st_uid == 0 and s["Uid"].split() == ["65534"] * 4
        if tools.ROOT:
            from test_privilege import holders, key_numbers
            needles = [radius.SECRET.encode(), *key_numbers(desk)]
            for needle in needles:
                assert not holders(smtp, needle) and len(holders(warden, needle)) == 1


@root
def test_nurseries(jail):
    """In the place of a warden and of an smtp process, before any client comes: the same users, jails, limits, filters, and no client."""
    from test_privilege import capabilities, descriptors, holders, ids, key_numbers, shared_mappings
    poll(jail.idle, "others to end")
    wardens, smtps = jail.nurseries()
    assert ids(wardens) == ([str(harness.USERS["qmailq"])] * 4, [str(harness.GROUPS["qmail"])] * 4, [])
    assert ids(smtps) == ([str(harness.USERS["qmaild"])] * 4, [str(harness.GROUPS["nofiles"])] * 4, [])
    for pid in (wardens, smtps):
        s = status_of(pid)
        assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1" and not any(capabilities(pid).values())
        assert os.stat("/proc/%d/mem" % pid).st_uid == 0
    assert os.listdir("/proc/%d/root/" % smtps) == [] and "todo" in os.listdir("/proc/%d/root/" % wardens)
    assert sorted(descriptors(smtps)) == [2, 4] and not shared_mappings(smtps)
    assert descriptors(smtps)[2][0] == "/dev/null" or os.stat("/proc/%d/fd/2" % smtps).st_rdev == os.stat("/dev/null").st_rdev
    listeners = set(tools.descriptors(jail.pid).values())
    for pid in (wardens, smtps):
        for n, (target, _) in descriptors(pid).items():
            assert target not in listeners or not target.startswith("socket:"), (n, target)
    for number in key_numbers(jail):
        assert not holders(smtps, number) and len(holders(wardens, number)) == 1


@root
def test_secrets_are_kept_out_of_dumps(make_server):
    """The one mapping that has them: not in a core dump, not in swap, in main as in its wardens."""
    from test_privilege import holders, key_numbers
    server = make_server(radius="127.0.0.1:%d %s 1 0\n" % (tools.free_port(socket.SOCK_DGRAM), radius.SECRET), listen={"smtp": "smtp 127.0.0.1:{}"})
    for pid in (server.pid, server.nurseries()[0]):
        (line,) = holders(pid, key_numbers(server)[0])
        assert holders(pid, radius.SECRET.encode()) == [line]
        smaps = tools.read("/proc/%d/smaps" % pid).decode()
        flags = re.search("^%s.*?^VmFlags: (.*?)$" % re.escape(line.split()[0]), smaps, re.M | re.S).group(1).split()
        assert "dd" in flags
        if pid == server.pid:
            assert "lo" in flags


def test_security_names_tests():
    """Every name in brackets in SECURITY.md is a test of ours."""
    text = tools.read(os.path.join(tools.TREE, "SECURITY.md")).decode()
    names = {n for group in re.findall(r"\[([a-z0-9_,\s]+?)(?:,\s+and[^\]]*)?\]", text) for n in re.split(r",\s+", group)}
    where = os.path.join(tools.TREE, "test", "integration")
    tests = {n for f in os.listdir(where) if f.endswith(".py") for n in re.findall(r"^def test_(\w+)", tools.read(os.path.join(where, f)).decode(), re.M)}
    assert len(names) > 60 and names <= tests, names - tests


@root
def test_main_reads_nothing(make_server, scratch):
    """Main hears addresses and ports, and what its own processes say; of a session's octets it reads none."""
    trace = os.path.join(scratch, "trace")
    server = make_server(radius=None, listen={"smtp": "smtp 127.0.0.1:{}"}, wrap=["strace", "-D", "-q", "-y", "-o", trace, "-e",
                         "trace=read,readv,pread64,recvfrom,recvmsg,recvmmsg,accept,accept4"])
    for _ in range(3):
        with server.session("smtp") as c:
            c.mail(rcpts=["x@local.example"])
            c.quit()
    server.stop()
    poll(lambda: b"+++ exited" in tools.read(trace), "the end of the trace")  # nobody waits for strace
    text = tools.read(trace).decode("utf-8", "replace")
    accepted = set(re.findall(r"^accept4?\(.*\) = \d+<(\S+)>$", text, re.M))
    reads = re.findall(r"^(?:read|readv|pread64|recv\w+)\(\d+<([^>]*)>", text, re.M)
    assert len(accepted) >= 1 and len(re.findall(r"^accept4?\(.*\) = \d+<", text, re.M)) == 3
    assert reads and not set(reads) & accepted and not [r for r in reads if r.startswith("TCP:")]


@root
def test_resolver(make_server, mute_name_server):
    """It hears from strangers, so it has next to nothing: a pipe to main, the log, the jail and a directory that its user may not enter."""
    def prepare(s):
        resolv = tools.write(os.path.join(s.top, "resolv.conf"), "nameserver %s\n" % mute_name_server)
        s.mounts = ["mount --bind %s /etc/resolv.conf" % resolv]
    server = make_server(radius="no-such-host.invalid %s\n" % radius.SECRET, prepare=prepare)
    (resolver,) = poll(lambda: [p for p in tools.children(server.pid) if p.pid not in server.nurseries()], "the resolver")
    poll(lambda: status_of(resolver.pid)["NoNewPrivs"] == "1", "its fall")
    from test_privilege import descriptors, shared_mappings
    assert not shared_mappings(resolver.pid)
    limits = tools.read("/proc/%d/limits" % resolver.pid).decode()
    assert re.search(r"Max file size +0 +0 ", limits) and re.search(r"Max core file size +0 +0 ", limits)
    assert os.stat("/proc/%d/mem" % resolver.pid).st_uid == 0
    listeners = set(tools.descriptors(server.pid).values())
    for n, (target, _) in descriptors(resolver.pid).items():
        if target.startswith("socket:"):
            assert target not in listeners, target  # its own, to the name server
        else:
            assert re.match(r"/dev/null$|.*/log$|pipe:|.*/home/queue$|.*/home/empty$|/etc/", target), (n, target)
    assert os.stat(os.path.join(server.home, "queue")).st_mode & 0o007 == 0
