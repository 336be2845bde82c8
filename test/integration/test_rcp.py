# SPDX-License-Identifier: MIT
"""radcheckpassword: checkpassword's interface, raw: descriptor 3, exit statuses, what the program gets, and who asks RADIUS."""

import os
import socket
import stat
import subprocess
import time

import pytest

import harness
import radius
import tools
from radius import PASSWORD, SECRET

REFUSED, MISUSED, LATER = 1, 2, 111
SHOW = 'echo "$USER|$HOME|$SHELL|$PWD|$(id -u)|$(id -g)|$(id -G)"; exit 7'
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture(scope="module")
def box(work, house, radius_conf):
    return Box(work, house, radius_conf)


@pytest.fixture
def make_box(work, house):
    return lambda text: Box(work, house, text)


class Box:
    """A home with some mailboxes, and no server."""

    def __init__(self, work, house, text):
        self.server = harness.Server(work, house, text, start=False)
        self.home = self.server.home
        self.boxes = os.path.join(self.home, "vmail")
        for name in ("alice", "frank@isp.example", "jürgen", "carol"):
            os.makedirs(os.path.join(self.boxes, name))
            if tools.ROOT:
                os.chown(os.path.join(self.boxes, name), harness.USERS["vmail"], harness.GROUPS["vmail"])

    def call(self, data, *program, words=(), env=None, wrap=(), descriptor="3<&0 0</dev/null"):
        """`data` on descriptor 3; returns a finished process with `out`, `log` (events) and `seconds`."""
        program = program or ("sh", "-c", SHOW)
        argv = self.server.house.argv([*wrap, *self.server.memcheck(), self.server.binary, "radcheckpassword", *(words or ("-e", "-H", self.home)), *program])
        begin = time.monotonic()
        p = subprocess.run(["sh", "-c", 'exec %s; exec "$@"' % descriptor, "sh", *argv], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           timeout=tools.PATIENCE, env={**harness.environment(), **(env or {})}, check=False)
        p.seconds = time.monotonic() - begin
        p.out, p.errors = p.stdout.decode(), p.stderr.decode("utf-8", "surrogateescape")
        p.log = [harness.Event(line) for line in p.errors.splitlines() if line.startswith("ev=")]
        assert SECRET not in p.errors
        self.server.check_memory()
        return p

    def ask(self, user, password=None, *program, **kw):
        password = PASSWORD[user] if password is None else password
        p = self.call(b"%s\0%s\0%s\0" % (user.encode(), password.encode(), b"<1.2@mail.example.net>"), *program, **kw)
        assert not password or password not in p.errors
        return p


# ---- The program -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user", ["alice", "frank@isp.example", "jürgen"])
def test_program(box, user):
    """Its status is ours; it has the mailbox's user, home and shell, and no other group."""
    p = box.ask(user)
    ids = (harness.USERS["vmail"], harness.GROUPS["vmail"], harness.GROUPS["vmail"]) if tools.ROOT else (os.geteuid(), os.getegid(), None)
    uid, gid, groups = ids
    home = os.path.join(box.boxes, user)
    assert p.returncode == 7, p.errors
    assert p.out.startswith("%s|%s|/bin/false|%s|%d|%d|" % (user, home, home, uid, gid))
    assert groups is None or p.out.rstrip().endswith("|%d" % groups)
    (event,) = p.log
    assert event["ev"] == "auth" and event["result"] == "accept" and event["user"] == user


def test_environment(box):
    """All but USER, HOME and SHELL goes through; nothing is added, and no descriptor but the standard ones is left open."""
    env = {"USER": "root", "HOME": "/", "SHELL": "/bin/zsh", "USERS": "x", "AUTHORIZED": "1"}
    p = box.ask("alice", None, "python3", "-c", "import os; print(os.environ, sorted(int(x) for x in os.listdir('/proc/self/fd'))[:-1])", env=env)
    words, fds = p.out.rsplit(" [", 1)
    got = eval(words[len("environ("):-1], {})  # pylint: disable=eval-used
    want = {**harness.environment(), **env, "USER": "alice", "HOME": os.path.join(box.boxes, "alice"), "SHELL": "/bin/false"}
    # The shell's that starts it, and valgrind's.
    for name in ("PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "GLIBCPP_FORCE_NEW", "GLIBCXX_FORCE_NEW", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        got.pop(name, None)
        want.pop(name, None)
    assert got == want and (fds == "0, 1, 2]\n" or tools.VALGRIND)  # which leaves its log open


def test_path(box):
    """A program without a slash is looked for in PATH, as with the original."""
    assert box.ask("alice", None, "true").returncode == 0
    assert box.ask("alice", None, "false").returncode == 1


def test_link(box, scratch):
    link = os.path.join(scratch, "radcheckpassword")
    os.symlink(tools.BINARY, link)
    argv = box.server.house.argv([link, "-e", "-H", box.home, "sh", "-c", SHOW])
    p = tools.run("sh", "-c", 'exec 3<&0 0</dev/null; exec "$@"', "sh", *argv, input=b"alice\0wonder land\0\0", check=False, env=harness.environment())
    assert p.returncode == 7, p.text


# ---- Input ------------------------------------------------------------------------------------------------------------

LONG = b"alice\0wonder land\0"
INPUTS = {
    "no timestamp": (b"alice\0wonder land\0", 7),
    "timestamp without its end": (b"alice\0wonder land\0<1@x>", 7),
    "512 octets": (LONG + b"t" * (512 - len(LONG)), 7),
    "513 octets": (LONG + b"t" * (513 - len(LONG)), REFUSED),
    "much": (LONG + b"t" * 70000, REFUSED),
    "nothing": (b"", MISUSED),
    "a name only": (b"alice\0", MISUSED),
    "no end of name": (b"alice", MISUSED),
    "no end of password": (b"alice\0wonder land", MISUSED),
    "512 octets, no NUL": (b"a" * 512, MISUSED),
    "empty name": (b"\0wonder land\0\0", REFUSED),
    "empty password": (b"alice\0\0\0", REFUSED),
    "password of 129": (b"alice\0" + b"x" * 129 + b"\0\0", REFUSED),
    "name of 254": (b"a" * 254 + b"\0x\0\0", REFUSED),
    "not UTF-8": (b"alic\xe9\0x\0\0", REFUSED),
    "control character": (b"alice\n\0wonder land\0\0", REFUSED),
    "up": (b"..\0x\0\0", REFUSED),
    "elsewhere": (b"../../etc\0x\0\0", REFUSED),
    "slash": (b"alice/x\0x\0\0", REFUSED),
    "hidden": (b".alice\0x\0\0", REFUSED),
    "challenge for CRAM-MD5": (b"alice\0<1.2@mail.example.net>\0b913a602c7eda7a495b4e6e7334d3890\0", REFUSED),
}


def client_of(name):
    """Nobody else's address: the server's list of requests is of all tests."""
    return "198.51.100.%d" % list(INPUTS).index(name)


@pytest.fixture(scope="module")
def inputs(box):
    return tools.Crowd({n: lambda n=n: box.call(INPUTS[n][0], env={"TCPREMOTEIP": client_of(n)}) for n in INPUTS})


@pytest.mark.parametrize("name", list(INPUTS))
def test_input(inputs, freeradius, name):
    """The server is asked only what it can answer; a refusal takes its time, guessing would be fast otherwise."""
    p, status = inputs[name], INPUTS[name][1]
    assert p.returncode == status, p.errors
    asked = len(freeradius.requests(calling=client_of(name)))
    assert asked == (1 if status == 7 or name == "challenge for CRAM-MD5" else 0)
    if status == REFUSED and "octets" not in name and name != "much":
        assert p.seconds >= 1 and p.log[-1]["result"] == "reject"


def test_misuse(box):
    assert box.call(b"", words=["-e"], descriptor="3<&-").returncode == MISUSED
    assert box.call(b"a\0b\0\0", descriptor="3<&-").returncode == MISUSED
    assert box.call(b"a\0b\0\0", words=["-x", "-e"]).returncode == MISUSED
    assert box.call(b"a\0b\0\0", "-e").returncode in (MISUSED, LATER)
    p = tools.run(box.server.binary, "radcheckpassword", check=False)
    assert p.returncode == MISUSED and "usage:" in p.text


@pytest.mark.root
@pytest.mark.release
def test_set_user_id(box, scratch):
    """With a bit that lends rights to whoever calls, anybody could guess passwords with our secret: it does nothing."""
    copy = os.path.join(scratch, "radcheckpassword")
    tools.write(copy, tools.read(box.server.binary), 0o755)
    assert not os.statvfs(copy).f_flag & os.ST_NOSUID
    argv = ["sh", "-c", 'exec 3<&0 0</dev/null; exec "$@"', "sh", *AS_NOBODY, copy, "-e", "-H", box.home, "true"]
    for mode in (0o4755, 0o2755):
        os.chmod(copy, stat.S_IFREG | mode)
        assert tools.run(*argv, input=b"alice\0wonder land\0\0", check=False, env=harness.environment()).returncode == MISUSED
    os.chmod(copy, 0o755)
    assert tools.run(*argv, input=b"alice\0wonder land\0\0", check=False, env=harness.environment()).returncode == LATER  # may not read the secret


# ---- RADIUS -----------------------------------------------------------------------------------------------------------

def test_attributes(box, freeradius):
    client = tools.fresh_address()
    p = box.ask("carol", env={"TCPREMOTEIP": client, "TCPLOCALIP": "192.0.2.1", "TCPLOCALPORT": "110"})
    assert p.returncode == 7
    (seen,) = freeradius.requests(calling=client)
    assert seen["User-Name"] == "carol" and seen["User-Password"] == PASSWORD["carol"]
    assert seen["NAS-Identifier"] == "mail.example.net" and seen["NAS-IP-Address"] == "127.0.0.1"
    assert seen["NAS-Port-Type"] == "Virtual" and seen["Service-Type"] == "Login-User"
    assert seen["Called-Station-Id"] == "checkpassword 192.0.2.1:110"
    assert seen["Acct-Session-Id"] == p.log[0]["sid"] and p.log[0]["client"] == client


@pytest.mark.parametrize("value", ["", "not an address", "192.0.2.7 ev=auth", "192.0.2.999", "x" * 5000])
def test_foreign_environment(box, value):
    p = box.ask("alice", env={"TCPREMOTEIP": value, "TCPLOCALIP": value, "TCPLOCALPORT": value})
    assert p.returncode == 7 and p.log[0]["client"] == "-"


REFUSALS = [("alice", "wonder lan"), ("alice", "wonder land "), ("bob", "not his"), ("nobody", "no one"), ("chloe", "a token?"), ("dave", None), ("eve", None)]


def test_refused(box):
    """Wrong, closed, unknown, a challenge, another service: 1, after a second."""
    crowd = tools.Crowd({r: lambda r=r: box.ask(*r) for r in REFUSALS})
    for r in REFUSALS:
        p = crowd[r]
        assert p.returncode == REFUSED and p.out == "" and p.seconds >= 1, (r, p.errors)
        assert p.log[-1]["result"] == "reject"


def test_nobody_answers(make_box, make_double, freeradius):
    """Whatever keeps an answer that can be trusted from coming: 111, nothing is run, and the log says what is wrong."""
    def false_accept(request, _):
        return request.reply(radius.ACCEPT, authenticator=bytes(16))

    def false_signature(request, _):
        return request.reply(radius.ACCEPT, signature=bytes(16))
    cases = {
        "silent": (make_double().line(), "no-answer"),
        "closed": ("127.0.0.1:%d %s 1 0\n" % (tools.free_port(socket.SOCK_DGRAM), SECRET), "network"),
        "secret": ("127.0.0.1:%d some-other-secret-0 1 0\n" % freeradius.port, "no-answer"),
        "seal": (make_double(false_accept).line(), "wrong-secret"),
        "signature": (make_double(false_signature).line(), "wrong-secret"),
        "other secret": (make_double(lambda r, d: r.reply(radius.ACCEPT, secret="another")).line(), "wrong-secret"),
        "unsigned": ("127.0.0.1:%d %s 1 0\n" % (freeradius.unsigned, SECRET), "unsigned"),
        "none": (None, None),
        "bad file": ("127.0.0.1\n", None),
    }
    boxes = {name: make_box(text) for name, (text, _) in cases.items()}
    crowd = tools.Crowd({name: lambda name=name: boxes[name].ask("alice") for name in cases})
    for name, (_, trouble) in cases.items():
        p = crowd[name]
        assert p.returncode == LATER and p.out == "", (name, p.returncode, p.errors)
        (event,) = [e for e in p.log if e["ev"] == "auth"]
        assert event["result"] == "later" and len(event["reason"]) > 10
        assert trouble is None or [e["trouble"] for e in p.log if e["ev"] == "radius"] == [trouble], (name, p.errors)


def test_name_of_a_server(make_box, freeradius):
    assert make_box("localhost:%d %s\n" % (freeradius.port, SECRET)).ask("alice").returncode == 7


@pytest.mark.release
def test_forged_accept_before_the_truth(make_box, make_double):
    box = make_box(make_double(lambda r, d: [(d.other, r.reply(radius.ACCEPT)), r.reply(radius.ACCEPT, secret="another"), r.reply(radius.REJECT)]).line())
    assert box.ask("alice").returncode == REFUSED


@pytest.mark.release
def test_second_server(make_box, make_double, freeradius):
    double = make_double()
    box = make_box(double.line() + "127.0.0.1:%d %s 1 0\n" % (freeradius.port, SECRET))
    assert box.ask("alice").returncode == 7 and len(double.requests) == 1


@pytest.mark.root
def test_root_is_gone_before_the_network_is_heard(make_box, make_double):
    """What parses a reply is neither root nor open to others of its user."""
    seen = []

    def answer(request, _):
        for p in tools.processes():
            try:
                if p.name != "unshare" and box.home.encode() in tools.read("/proc/%d/cmdline" % p.pid) and b"radcheckpassword" in tools.read("/proc/%d/cmdline" % p.pid):
                    status = tools.status_of(p.pid)
                    seen.append((status["Uid"].split(), status["Gid"].split(), status["Groups"], os.stat("/proc/%d/mem" % p.pid).st_uid))
            except OSError:
                continue
        return request.reply(radius.ACCEPT)
    box = make_box(make_double(answer).line("10 0"))
    assert box.ask("alice").returncode == 7
    assert seen[-1] == (["%d" % harness.USERS["vmail"]] * 4, ["%d" % harness.GROUPS["vmail"]] * 4, "", 0)


@pytest.mark.root
def test_no_user_for_mailboxes(box):
    """Started as root, without the user: every login is put off, nothing is run as root."""
    argv = ["sh", "-c", 'exec 3<&0 0</dev/null; exec "$@"', "sh", box.server.binary, "radcheckpassword", "-e", "-H", box.home, "id"]
    assert "vmail:" not in tools.read("/etc/passwd").decode()
    p = tools.run(*argv, input=b"alice\0wonder land\0\0", check=False, env=harness.environment())
    assert p.returncode == LATER and "uid=" not in p.text and "RCP_USER" in p.text


@pytest.mark.release
def test_fail2ban(box, scratch):
    """Who guesses mailboxes' passwords is one address more for the filter."""
    p = box.ask("alice", "not hers", env={"TCPREMOTEIP": "192.0.2.77"})
    (line,) = p.errors.splitlines()
    log = tools.write(os.path.join(scratch, "log"), "Nov 26 12:00:00 box mailstile[123]: %s\n" % line)
    text = tools.run("fail2ban-regex", log, os.path.join(tools.TREE, "contrib/fail2ban/mailstile.conf"), check=False).text
    assert "1 lines, 0 ignored, 1 matched" in text, text


# ---- What is missing here ---------------------------------------------------------------------------------------------

def test_no_mailbox(box):
    os.rename(os.path.join(box.boxes, "carol"), os.path.join(box.boxes, "gone"))
    try:
        p = box.ask("carol")
    finally:
        os.rename(os.path.join(box.boxes, "gone"), os.path.join(box.boxes, "carol"))
    assert p.returncode == LATER and p.out == "" and "vmail/carol" in p.log[-1]["msg"]


def test_no_program(box):
    p = box.ask("alice", None, "/nonexistent/pop3d")
    assert p.returncode == LATER and "/nonexistent/pop3d" in p.log[-1]["msg"]


def test_only_radius_conf_is_read(make_box, radius_conf):
    """Neither the key nor the other files matter, nor is a key made."""
    box = make_box(radius_conf)
    box.server.set(me=None, listen="nonsense\n", spool="nonsense\n")
    assert box.ask("alice").returncode == 7
    assert sorted(os.listdir(box.server.control)) == ["listen", "radius.conf", "rcpthosts", "relay", "relayclients", "spool"]
