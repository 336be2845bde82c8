# SPDX-License-Identifier: MIT
"""
What the processes are allowed, asked of the kernel: the smtp process, which alone reads what strangers send, has no name, no
files, no secret. Searches of memory are made over the warden, too, where they must find something: that proves the search.
"""

import base64
import os
import re
import stat

import pytest

import harness
import radius
import tools
from tools import poll, status_of

root = pytest.mark.root
release = pytest.mark.release

STATES = ["connected", "logged in", "in data"]


def session_in(server, state):
    profile = "submissions" if state != "connected" else "smtp"
    c = server.session(profile)
    if state == "in data":
        c.envelope()
        c.cmd("DATA", 354)
        c.send(b"Subject: x\r\n")
    return c


@pytest.fixture
def one(make_server, request):
    # Root comes with groups of its own, which must go.
    server = make_server(wrap=["setpriv", "--groups=64001,64002"] if tools.ROOT else [])
    c = session_in(server, request.param)
    warden, smtp = server.pair()
    yield server, c, warden, smtp
    c.close()
    poll(server.idle, "the end")


every_state = pytest.mark.parametrize("one", STATES, indirect=True)
logged_in = pytest.mark.parametrize("one", ["logged in"], indirect=True)


def ids(pid):
    s = status_of(pid)
    return s["Uid"].split(), s["Gid"].split(), s["Groups"].split()


def capabilities(pid):
    s = status_of(pid)
    return {k: int(s[k], 16) for k in ("CapInh", "CapPrm", "CapEff", "CapAmb")}


@root
@every_state
def test_users(one):
    """smtp is qmaild:nofiles, the warden qmailq:qmail, all four ids, no further group; main is root."""
    server, _, warden, smtp = one
    user, group = str(harness.USERS["qmaild"]), str(harness.GROUPS["nofiles"])
    assert ids(smtp) == ([user] * 4, [group] * 4, [])
    user, group = str(harness.USERS["qmailq"]), str(harness.GROUPS["qmail"])
    assert ids(warden) == ([user] * 4, [group] * 4, [])
    assert ids(server.pid)[0] == ["0"] * 4


@root
@every_state
def test_qmail_37_no_capabilities(one):
    """37: qmailq with no capabilities suffices to inject."""
    _, _, warden, smtp = one
    for pid in (warden, smtp):
        assert not any(capabilities(pid).values())


@every_state
def test_no_new_privileges(one):
    _, _, warden, smtp = one
    for pid in (warden, smtp):
        assert status_of(pid)["NoNewPrivs"] == "1"


@release
@every_state
def test_system_call_filter(one):
    _, _, warden, smtp = one
    for pid in (warden, smtp):
        assert status_of(pid)["Seccomp"] == "2"


@root
@every_state
def test_jails(one):
    """smtp sees an empty directory; the warden nothing but the spool."""
    server, _, warden, smtp = one
    assert os.listdir("/proc/%d/root/" % smtp) == []
    st = os.stat("/proc/%d/root/" % smtp)
    assert st.st_uid == 0 and not st.st_mode & 0o022
    assert os.path.samefile("/proc/%d/root" % smtp, os.path.join(server.home, "empty"))
    assert "todo" in os.listdir("/proc/%d/root/" % warden) and "etc" not in os.listdir("/proc/%d/root/" % warden)
    for pid in (warden, smtp):
        assert os.path.samefile("/proc/%d/root" % pid, "/proc/%d/cwd" % pid)


def descriptors(pid):
    out = {}
    for n in os.listdir("/proc/%d/fd" % pid):
        try:
            flags = int(re.search(r"flags:\s+(\d+)", tools.read("/proc/%d/fdinfo/%s" % (pid, n)).decode()).group(1), 8)
            out[int(n)] = (os.readlink("/proc/%d/fd/%s" % (pid, n)), flags)
        except FileNotFoundError:
            pass
    return out


@root
@release
@every_state
def test_descriptors_of_smtp(one):
    """The client twice, nothing on 2, the warden, and while there is one the message, which can only be appended to."""
    server, _, _, smtp = one
    fds = descriptors(smtp)
    in_data = len(fds) == 5
    assert sorted(fds) == ([0, 1, 2, 3, 4] if in_data else [0, 1, 2, 3]), fds
    assert in_data == bool(server.files())
    assert fds[0][0] == fds[1][0] and fds[0][0].startswith("socket:")
    assert os.stat("/proc/%d/fd/2" % smtp).st_rdev == os.stat("/dev/null").st_rdev
    assert fds[3][0].startswith("socket:") and fds[3][0] != fds[0][0]
    if in_data:
        # The kernel remembers the name that it was opened by.
        assert re.search(r"/queue/(mess/\d+/\d+|pid/[0-9.]+ \(deleted\))$", fds[4][0]) and fds[4][1] & os.O_APPEND


@root
@every_state
def test_descriptors_of_warden(one):
    """The socket to smtp, the log, shared memory, the counts, the message: no listener, no control file, not the trigger."""
    server, _, warden, _ = one
    listeners = set(tools.descriptors(server.pid).values())
    for n, (target, _) in descriptors(warden).items():
        assert "trigger" not in target and "/control/" not in target, (n, target)
        if target.startswith("socket:"):
            shared = target in listeners
            assert not shared, (n, target)
        else:
            assert re.match(r".*/dev/null$|/memfd:|.*/log$|.*/queue(/|$)|anon_inode|/$|pipe:|.*/empty$|.*/mailstile/users$", target), (n, target)


@root
@every_state
def test_limits(one):
    _, _, warden, smtp = one
    limits = {}
    for pid in (warden, smtp):
        for line in tools.read("/proc/%d/limits" % pid).decode().splitlines()[1:]:
            words = re.split(r"  +", line)
            limits[pid, words[0]] = words[1]
    for pid in (warden, smtp):
        assert limits[pid, "Max processes"] == "0" and limits[pid, "Max core file size"] == "0"
    assert limits[smtp, "Max open files"] == "5" and int(limits[warden, "Max open files"]) <= 1024
    assert limits[smtp, "Max file size"] != "unlimited"


@root
@every_state
def test_not_dumpable(one):
    """No other process of the same user may look into it: its /proc files belong to root."""
    _, _, warden, smtp = one
    for pid in (warden, smtp):
        assert os.stat("/proc/%d/mem" % pid).st_uid == 0
        p = tools.run("setpriv", "--reuid=%d" % harness.USERS["qmaild"], "--regid=%d" % harness.GROUPS["nofiles"], "--clear-groups",
                      "cat", "/proc/%d/environ" % pid, check=False)
        assert p.returncode != 0


# ---- Secrets ---------------------------------------------------------------------------------------------------------

def memory(pid):
    """All that a process can read, region by region."""
    out = []
    for line in tools.read("/proc/%d/maps" % pid).decode().splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
        begin, end = int(m.group(1), 16), int(m.group(2), 16)
        if m.group(4).startswith(("[vvar", "[vsyscall")):
            continue
        with open("/proc/%d/mem" % pid, "rb", buffering=0) as f:
            f.seek(begin)
            data = b""
            try:
                while len(data) < end - begin:
                    piece = f.read(end - begin - len(data))
                    if not piece:
                        break
                    data += piece
            except OSError:
                pass
            out.append((line, data))
    return out


def holders(pid, needle):
    return [line for line, data in memory(pid) if needle in data]


def key_numbers(server):
    """The octets of the private key as a program would hold them: of an EC key its number, of an RSA key its two primes."""
    path = os.path.join(server.control, "serverkey.pem")
    text = tools.run("openssl", "pkey", "-in", path, "-noout", "-text").text
    names = ("priv:",) if "priv:" in text else ("prime1:", "prime2:")
    out = []
    for name in names:
        digits = re.search(name + r"\n((?: +[0-9a-f:]+\n)+)", text).group(1)
        raw = bytes.fromhex(re.sub(r"[^0-9a-f]", "", digits)).lstrip(b"\0")
        assert len(raw) >= 31
        out.append(raw)
    return out


@pytest.fixture(params=["ec", "rsa"])
def keyed(make_server, request):
    def prepare(s):
        tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"), request.param)
    return make_server(prepare=prepare)


@root
@release
@pytest.mark.parametrize("reloaded", [False, True])
def test_no_secret_in_smtp(keyed, reloaded):
    """Not the RADIUS secret, not the key, not the file it was read from; neither after a login and a message."""
    if reloaded:
        keyed.reload()
        keyed.session("submissions").close()
        poll(keyed.idle, "the end")
    pem = tools.read(os.path.join(keyed.control, "serverkey.pem"))
    needles = {"RADIUS secret": radius.SECRET.encode(), **{"key %d" % i: n for i, n in enumerate(key_numbers(keyed))},
               "PEM text": pem.splitlines()[1]}
    c = keyed.session("submissions")
    c.mail()
    warden, smtp = keyed.pair()
    for name, needle in needles.items():
        assert not holders(smtp, needle), (name, holders(smtp, needle))
    # The same search over the warden, which must have secret and key: in one mapping of their own, and nowhere else.
    assert len(holders(warden, radius.SECRET.encode())) == 1, holders(warden, radius.SECRET.encode())
    for number in key_numbers(keyed):
        assert len(holders(warden, number)) == 1, holders(warden, number)
    assert holders(warden, radius.SECRET.encode()) == holders(warden, key_numbers(keyed)[0])
    assert not holders(warden, needles["PEM text"])
    c.quit()


@root
@release
def test_no_password_is_kept(make_server):
    """After a login the password is in neither process; what the search can find is the user's name."""
    server = make_server()
    c = server.session("submissions", login=None)
    password = "len113-is-long-enough-to-be-found"
    c.auth_plain("bob", password, 535)
    c.auth_login("bob", password, 535)
    c.cmd("NOOP", 250)
    warden, smtp = server.pair()
    for pid in (warden, smtp):
        assert not holders(pid, password.encode()), (pid == smtp, holders(pid, password.encode()))
        assert not holders(pid, base64.b64encode(password.encode())[:40])
    c.close()


@root
@release
def test_secrets_are_not_for_helpers(make_server, mute_name_server):
    """The process that looks up names, and so hears from strangers, knows no secret and is nobody either."""
    def prepare(s):
        resolv = tools.write(os.path.join(s.top, "resolv.conf"), "nameserver %s\n" % mute_name_server)
        s.mounts = ["mount --bind %s /etc/resolv.conf" % resolv]
    server = make_server(radius="no-such-host.invalid %s\n" % radius.SECRET, prepare=prepare)
    (helper,) = poll(lambda: [p for p in tools.children(server.pid) if p.pid not in server.nurseries()], "the helper")
    poll(lambda: status_of(helper.pid)["NoNewPrivs"] == "1", "its fall")
    assert not holders(helper.pid, radius.SECRET.encode())
    assert ids(helper.pid) == ([str(harness.USERS["qmaild"])] * 4, [str(harness.GROUPS["nofiles"])] * 4, [])


def shared_mappings(pid):
    return [x for x in tools.read("/proc/%d/maps" % pid).decode().splitlines() if x.split()[1].endswith("s")]


@root
@every_state
def test_shared_memory_is_not_for_smtp(one):
    """What sessions share, such as the keys of other clients' TLS sessions, only wardens can see."""
    _, _, warden, smtp = one
    assert shared_mappings(warden) and not shared_mappings(smtp)


# ---- Files -----------------------------------------------------------------------------------------------------------

@root
def test_the_jail_is_made(make_server):
    """home/empty: root's, empty, and nobody else may write there."""
    server = make_server(listen={"smtp": "smtp 127.0.0.1:{}"})
    st = os.stat(os.path.join(server.home, "empty"))
    assert st.st_uid == 0 and stat.S_ISDIR(st.st_mode) and not st.st_mode & 0o022
    assert os.listdir(os.path.join(server.home, "empty")) == []


@root
@pytest.mark.parametrize("user", ["qmaild", "qmailq", "qmails", "qmailr"])
def test_a_missing_user_stops_the_start(make_server, user):
    server = make_server(start=False, listen={"smtp": "smtp 127.0.0.1:{}"})
    passwd = os.path.join(server.top, "passwd")
    text = tools.read(server.house.passwd).decode()
    tools.write(passwd, "".join(x + "\n" for x in text.splitlines() if not x.startswith(user + ":")))
    server.mounts = ["mount --bind %s /etc/passwd" % passwd]
    server.start(wait=False)
    server.wait_exit(100)
    assert user in server.tail()


@root
def test_control_files_need_not_be_readable_by_others(make_server):
    """main reads them as root; 0600 everywhere does."""
    def prepare(s):
        tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"))
        for name in os.listdir(s.control):
            os.chmod(os.path.join(s.control, name), 0o600)
        os.chmod(s.control, 0o700)
    server = make_server(prepare=prepare)
    with server.session("submissions") as c:
        c.mail()
    server.take()


def test_permissions_are_watched(make_server):
    """A secret that others can read is warned about."""
    server = make_server(start=False)
    tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
    assert server.tool("check").returncode == 0
    for name in ("radius.conf", "serverkey.pem"):
        os.chmod(os.path.join(server.control, name), 0o644)
        p = server.tool("check")
        assert re.search(name + r"(:\d+)?: warning: ", p.text), p.text
        os.chmod(os.path.join(server.control, name), 0o600)


@root
def test_qmail_37_without_root_at_all(make_server):
    """37: the whole server as qmailq:nofiles, on a queue of qmail's several users."""
    def prepare(s):
        for name in os.listdir(s.control):
            os.chown(os.path.join(s.control, name), harness.USERS["qmailq"], 0)
        os.chown(s.control, harness.USERS["qmailq"], 0)
    wrap = ["setpriv", "--reuid=%d" % harness.USERS["qmailq"], "--regid=%d" % harness.GROUPS["nofiles"], "--clear-groups",
            "--inh-caps=-all", "--bounding-set=-all"]
    server = make_server(prepare=prepare, wrap=wrap, listen={"inside": "inside 127.0.0.1:{}"})
    with server.session("inside") as c:
        m = server.message(c.mail())
        assert os.stat(m.path).st_uid == os.stat(m.todo).st_uid == harness.USERS["qmailq"]
        warden, _ = server.pair()
        assert not any(capabilities(warden).values())
        c.quit()
    server.take()
