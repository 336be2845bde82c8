# SPDX-License-Identifier: MIT
"""get, set, unset, apply: control files by name, checked before anything changes."""

import hashlib
import os
import shutil
import socket
import stat
import subprocess

import pytest

import harness
import tools

SECRET = "0123456789abcdef!secret"


def home_of(make_server):
    s = make_server(start=False)
    tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"))
    s.set(relay="on\n")
    return s


@pytest.fixture
def home(make_server):
    return home_of(make_server)


def picture(control):
    """Every name below control/, with mode and content."""
    out = {}
    for top, dirs, files in os.walk(control):
        for name in dirs + files:
            path = os.path.join(top, name)
            st = os.lstat(path)
            data = b"" if stat.S_ISDIR(st.st_mode) else tools.read(path)
            out[os.path.relpath(path, control)] = (stat.S_IMODE(st.st_mode), hashlib.sha256(data).hexdigest())
    return out


def configure(home, applet, *words, **kw):
    if "input" in kw:
        kw["input"] = kw["input"].encode()
    return home.tool(applet, *words, check=False, **kw)


GOOD = {
    "me": ["relay.example.net"],
    "listen": ["submission 2587", "inside 127.0.0.1:2525 from=a@example.net"],
    "spool": ["queue"],
    "rcpthosts": ["far.example", ".far.example"],
    "relayclients": ["127.0.0.1", "10.0.0.0/8"],
    "databytes": ["1000000"],
    "badmailfrom": ["a@far.example", "@bad.example"],
    "smtpgreeting": ["relay.example.net here"],
    "userlimits": [":day=200,rate=10", "joe:from=@far.example"],
    "alertto": ["noc@far.example"],
    "timezone": ["+0200"],
    "relay": ["off"],
    "smtproutes": [":smart.example:587", "far.example:"],
    "smtptls": ["far.example:may"],
    "locals": ["far.example"],
    "virtualdomains": ["far.example:alice"],
    "percenthack": ["far.example"],
    "envnoathost": ["far.example"],
    "helohost": ["far.example"],
    "localdelivery": ["bounce"],
    "bounceformat": ["dsn"],
    "delaynotice": ["14400"],
    "queuelifetime": ["86400"],
    "concurrencyremote": ["5"],
    "timeoutconnect": ["30"],
    "timeoutremote": ["600"],
    "bouncefrom": ["MAILER-DAEMON"],
    "bouncehost": ["far.example"],
    "doublebounceto": ["postmaster"],
    "doublebouncehost": ["far.example"],
    "localmaildirs": ["a@far.example:/var/mail/a/"],
}
# Each value that is refused, with the line that is named.
BAD = [
    ("me", ["bad name"], 1), ("me", [""], None), ("listen", ["submission 2587", "smtps 26"], 2), ("listen", ["submission 99999"], 1),
    ("spool", ["heap"], 1), ("rcpthosts", ["far.example", "*.far.example"], 2), ("relayclients", ["127.0.0.1", "10.0.0.1/8"], 2),
    ("databytes", ["many"], 1), ("badmailfrom", ["far.example"], 1), ("smtpgreeting", ["x" * 300], 1), ("relay", ["maybe"], 1),
    ("smtproutes", [":smart.example", ":a:b:c:d"], 2), ("smtptls", ["far.example:perhaps"], 1), ("locals", [".far.example"], 1),
    ("virtualdomains", ["far.example"], 1), ("percenthack", ["a%b"], 1), ("envnoathost", ["a b"], 1), ("helohost", ["a b"], 1),
    ("localdelivery", ["x"], 1), ("bounceformat", ["html"], 1), ("delaynotice", ["soon"], 1), ("queuelifetime", ["-1"], 1),
    ("concurrencyremote", ["x"], 1), ("timeoutconnect", ["0"], 1), ("timeoutremote", ["9999"], 1), ("bouncefrom", ["a@b"], 1),
    ("bouncehost", ["a b"], 1), ("doublebounceto", ["a@b"], 1), ("doublebouncehost", ["a b"], 1), ("localmaildirs", ["a@far.example"], 1),
    ("userlimits", [":day=200", "joe:day=many"], 2), ("alertto", ["noc"], 1), ("timezone", ["CET"], 1),
    ("me", ["a.example", "b.example"], 2), ("databytes", ["1\n2"], 1), ("helohost", ["a\x1b[2J"], 1),
]
STDIN_BAD = [
    ("radius.conf", "127.0.0.1 %s\nradius.example\n" % SECRET, 2), ("radius.conf", "127.0.0.1 %s soon\n" % SECRET, 1), ("radius.conf", "", None),
    ("servercert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None),
    ("serverkey.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None),
    ("smtpauth", "smart.example:me\n", 1), ("rcpthosts", "a.example\nb\x07.example\n", 2), ("me", "a.example\nb.example\n", 2),
]


@pytest.mark.parametrize("key", sorted(GOOD))
def test_set_get_and_file_agree(home, key):
    p = configure(home, "set", key, *GOOD[key])
    assert p.returncode == 0, p.text
    want = "".join(x + "\n" for x in GOOD[key])
    assert tools.read(os.path.join(home.control, key)).decode() == want
    assert configure(home, "get", key).text == want
    assert "".join("%s: %s\n" % (key, x) for x in GOOD[key]) in configure(home, "get").text
    # By hand, as anybody edits it: what counts is what stands there.
    home.set(**{key: "by.hand.example\n"})
    assert configure(home, "get", key).text == "by.hand.example\n"


def refused_only(text):
    """It ends with that, and nothing in it says what would come of a change that was not made."""
    return text.endswith("Refused: nothing is changed.\n") and not any(w in text for w in ("until this is mended", "; using", "; nobody"))


@pytest.mark.parametrize("key,words,line", BAD)
def test_wrong_values_are_refused(home, key, words, line):
    before = picture(home.control)
    p = configure(home, "set", key, *words)
    assert p.returncode == 100, p.text
    assert "%s/%s:%s" % (home.control, key, "%d: error: " % line if line else " error: ") in p.text and ".try" not in p.text
    assert refused_only(p.text) and picture(home.control) == before


@pytest.mark.parametrize("key,text,line", STDIN_BAD)
def test_wrong_input_is_refused(home, key, text, line):
    before = picture(home.control)
    p = configure(home, "set", key, "-", input=text)
    assert p.returncode == 100, p.text
    assert "error: " in p.text and (line is None or "%s/%s:%d: error: " % (home.control, key, line) in p.text), p.text
    assert SECRET not in p.text and refused_only(p.text) and picture(home.control) == before


def test_every_key_is_tried(home):
    known = set(configure(home, "set", "nonsense", "x").text.split("known:")[1].split())
    assert known - set(GOOD) == {"radius.conf", "servercert.pem", "serverkey.pem", "smtpauth", "cacerts.pem"}
    assert known - {k for k, _, _ in BAD} - {k for k, _, _ in STDIN_BAD} == {"cacerts.pem"}


def test_secrets(home):
    p = configure(home, "set", "radius.conf", "127.0.0.1 " + SECRET)
    assert refused_only(p.text) and p.returncode == 100 and "standard input" in p.text and SECRET not in p.text
    assert configure(home, "set", "radius.conf", "-", input="127.0.0.1 %s\n" % SECRET).returncode == 0
    path = os.path.join(home.control, "radius.conf")
    assert tools.read(path).decode() == "127.0.0.1 %s\n" % SECRET and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert configure(home, "get", "radius.conf").text == "set\n"
    everything = configure(home, "get").text
    assert "radius.conf: set\n" in everything and "serverkey.pem: set\n" in everything and SECRET not in everything
    assert "PRIVATE KEY" not in everything + configure(home, "get", "serverkey.pem").text + configure(home, "get", "servercert.pem").text


def test_a_certificate_must_fit_its_key(home, scratch):
    cert, key = os.path.join(scratch, "c.pem"), os.path.join(scratch, "k.pem")
    tools.make_certificate(cert, key)
    before = picture(home.control)
    assert configure(home, "set", "servercert.pem", "-", input=tools.read(cert).decode()).returncode == 100
    assert picture(home.control) == before
    both = tools.read(cert).decode() + tools.read(key).decode()
    assert configure(home, "unset", "serverkey.pem").returncode == 100 and picture(home.control) == before
    home.set(**{"serverkey.pem": None, "servercert.pem": both})
    assert configure(home, "set", "servercert.pem", "-", input=both).returncode == 0


def test_files_that_lean_on_each_other(home):
    """A fault that a change brings about in another file is the change's."""
    assert configure(home, "set", "smtproutes", ":smart.example:587").returncode == 0
    assert configure(home, "set", "smtptls", "smart.example:encrypt").returncode == 0
    before = picture(home.control)
    p = configure(home, "set", "smtproutes", ":other.example:587")
    assert p.returncode == 100 and "%s/smtptls:1: error: " % home.control in p.text, p.text
    assert picture(home.control) == before


def test_routes_are_checked_while_relay_is_off(home):
    home.set(relay="off\n")
    before = picture(home.control)
    assert configure(home, "set", "smtproutes", ":a:b:c:d").returncode == 100 and picture(home.control) == before


def test_from_nothing(make_server):
    """An empty directory: one key after the other, in any order."""
    s = make_server(start=False)
    for name in os.listdir(s.control):
        os.unlink(os.path.join(s.control, name))
    for key in ("rcpthosts", "smtproutes", "me", "listen"):
        assert configure(s, "set", key, *GOOD[key]).returncode == 0
    p = configure(s, "unset", "me")
    assert p.returncode == 100 and refused_only(p.text)
    assert "Refused" not in configure(s, "set", "databytes", "5").text
    assert configure(s, "set", "rcpthosts", "").returncode == 0 and tools.read(os.path.join(s.control, "rcpthosts")) == b""


def test_what_is_no_plain_file(home, scratch):
    path, target = os.path.join(home.control, "locals"), os.path.join(scratch, "elsewhere")
    tools.write(target, "kept.example\n")
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)
    assert configure(home, "set", "locals", "far.example").returncode == 100
    assert os.readlink(path) == target and tools.read(target) == b"kept.example\n"


@pytest.mark.release
@pytest.mark.parametrize("call", ["mkdirat", "symlinkat", "openat,open", "write", "fsync", "linkat", "renameat,renameat2", "unlinkat", "fchmod"])
def test_killed_anywhere(home, call):
    """SIGKILL at each such call: the file is the old one or the new one, no secret lies about, and the next run cleans up."""
    path = os.path.join(home.control, "radius.conf")
    old, new = tools.read(path).decode(), "127.0.0.1:1899 %s\n" % SECRET
    keep = home.control + ".kept"
    shutil.copytree(home.control, keep, symlinks=True)
    for n in range(1, 400):
        shutil.rmtree(home.control)
        shutil.copytree(keep, home.control, symlinks=True)
        p = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "inject=%s:signal=KILL:when=%d" % (call, n), harness.BINARY, "set", "-H", home.home,
                            "radius.conf", "-"], input=new, text=True, capture_output=True, timeout=60)
        now = tools.read(path).decode()
        assert now in (old, new)
        if p.returncode == 0:
            break
        for top, _, files in os.walk(home.control):
            for name in files:
                f = os.path.join(top, name)
                if not os.path.islink(f) and SECRET in tools.read(f).decode("utf-8", "replace"):
                    assert stat.S_IMODE(os.stat(f).st_mode) == 0o600
        assert configure(home, "set", "databytes", "5").returncode == 0 and not os.path.exists(os.path.join(home.control, ".try"))
    assert p.returncode == 0 and n > 1 and tools.read(path).decode() == new
    shutil.rmtree(keep)


def apply(s, *words):
    return s.tool("apply", "-S", s.ctl, *words, check=False)


def test_apply(make_server):
    s = make_server()
    assert configure(s, "set", "me", "other.example.net").returncode == 0
    p = apply(s)
    assert p.returncode == 0 and "uses this now" in p.text, p.text
    assert s.log("reload") and b"other.example.net" in greeting(s)
    assert tools.read(os.path.join(s.control, "me.last")) == b"mail.example.net\n"
    assert not os.path.exists(os.path.join(s.control, "me.old"))


def greeting(s):
    with socket.create_connection(("127.0.0.1", s.port["submission"]), 10) as c:
        return c.recv(512)


def test_apply_puts_the_kept_set_back(make_server):
    """A port that somebody else has passes every check, and is found out by the server only."""
    s = make_server()
    before = picture(s.control)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = "submission 127.0.0.1:%d" % taken.getsockname()[1]
        assert configure(s, "set", "listen", line).returncode == 0
        assert configure(s, "set", "helohost", "new.example.net").returncode == 0
        p = apply(s)
    assert p.returncode == 1 and "put back" in p.text, p.text
    assert picture(s.control) == before
    harness.poll(lambda: s.accepts("submission"), "the server to listen as before")
    assert b"mail.example.net" in greeting(s)


def test_apply_to_as_many_other_ports(make_server):
    """The number of listeners alone says nothing: the new port must be open when apply returns."""
    s = make_server(listen={"submission": "submission 127.0.0.1:{}"})
    port = tools.free_port()
    assert configure(s, "set", "listen", "submission 127.0.0.1:%d" % port).returncode == 0
    assert apply(s).returncode == 0 and not s.accepts("submission")
    s.port["submission"] = port
    assert s.accepts("submission")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert configure(s, "set", "listen", "submission 127.0.0.1:%d" % taken.getsockname()[1]).returncode == 0
        assert apply(s).returncode == 1
    harness.poll(lambda: s.accepts("submission"), "the server to listen as before")


def test_apply_refuses_what_check_refuses(make_server):
    s = make_server()
    s.set(databytes="many\n")
    p = apply(s)
    assert p.returncode == 1 and "databytes:1: error" in p.text and not s.log("reload")
    s.set(databytes=None)


def test_apply_without_a_server(home):
    assert configure(home, "set", "databytes", "7").returncode == 0
    p = apply(home)
    assert p.returncode == 0 and "no server runs" in p.text, p.text


def test_apply_to_the_server_of_another_home(make_server, scratch):
    """It is left alone, and so are the files; by another name the home is the same."""
    s, other = make_server(), make_server(start=False)
    assert configure(other, "set", "me", "other.example.net").returncode == 0
    before = picture(other.control)
    p = other.tool("apply", "-S", s.ctl, check=False)
    assert p.returncode == 111 and "is that of %s, and nothing is applied: -S names" % s.home in p.text, p.text
    assert picture(other.control) == before and not s.log("reload")
    link = os.path.join(scratch, "home")
    os.symlink(s.home, link)
    p = tools.run(*s.house.argv([harness.BINARY, "apply", "-H", link, "-S", s.ctl]), check=False, env=harness.environment())
    assert p.returncode == 0 and "uses this now" in p.text, p.text
    assert s.log("reload")


def test_name_of_the_certificate(home):
    """A new name is taken, and it is said that the certificate does not go with it."""
    p = configure(home, "set", "me", "other.example.net")
    assert p.returncode == 0 and "control/me: warning: the certificate is for another name: make one (`mailstile keygen -f`" in p.text, p.text
    assert configure(home, "set", "me", "mail.example.net").text == ""


def test_two_at_once(home):
    """One waits for the other; both are done."""
    argv = home.house.argv([harness.BINARY, "set", "-H", home.home])
    run = [subprocess.Popen(argv + ["databytes", str(1000 + i)], env=harness.environment()) for i in range(6)]
    assert [p.wait(60) for p in run] == [0] * 6
    assert 1000 <= int(tools.read(os.path.join(home.control, "databytes"))) < 1006


@pytest.mark.parametrize("words", [["set"], ["set", "me"], ["set", "nope", "x"], ["set", "-Z"], ["get", "me", "x"], ["get", "nope"], ["unset"],
                                   ["unset", "me", "x"], ["apply", "x"], ["set", "../me", "x"]])
def test_usage(home, words):
    before = picture(home.control)
    p = home.tool(words[0], *words[1:], check=False)
    assert p.returncode == 100 and picture(home.control) == before
