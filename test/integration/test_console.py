# SPDX-License-Identifier: MIT
"""console: set-up by questions on a terminal, and the menu behind it. A dumb one, with noise, ^C, ^D and a line that goes dead."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time

import pytest

import harness
import tools
from test_settings import picture

SECRET = "0123456789abcdef!secret"
QUESTIONS = ["Full name", "RADIUS servers", "Smarthost", "Login there", "Domains", "Limits", "Alert", "Try all of this"]
MENU = "0 end"
SET_UP = {"me": "mail.example.net\n", "radius.conf": "127.0.0.1 %s\n" % SECRET}


class Console:
    """`mailstile console` on a pty of its own, which is its controlling terminal."""

    def __init__(self, s, path=None):
        self.text, self.s = "", s
        env = harness.environment()
        if path:
            env["PATH"] = path + ":" + env["PATH"]
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(s.house.argv([harness.BINARY, "console", "-H", s.home, "-S", s.ctl]), stdin=slave, stdout=slave, stderr=slave,
                                        env=env, preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))

    def until(self, want, timeout=30):
        """What comes up to `want` and the prompt behind it; the text that was not asked for yet."""
        end = time.monotonic() + timeout
        while not re.search(want, self.text, re.S):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, "no %r in %r" % (want, self.text)
            self.text += os.read(self.master, 4096).decode("latin-1")
        m = re.search(want, self.text, re.S)
        out, self.text = self.text[:m.end()], self.text[m.end():]
        return out

    def send(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def answer(self, question, text):
        out = self.until(re.escape(question) + r".*?> ")
        self.send(text)
        return out

    def rest(self):
        """What comes until the process has ended."""
        self.process.wait(30)
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 4096).decode("latin-1")
        return self.text

    def end(self):
        assert self.process.wait(30) == 0
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        self.close()

    def close(self):
        for fd in (self.master, self.slave):
            if fd != -1:
                os.close(fd)
        self.master = self.slave = -1


def without_settings(make_server):
    s = make_server(start=False)
    for name in os.listdir(s.control):
        os.unlink(os.path.join(s.control, name))
    return s


@pytest.fixture
def empty(make_server):
    return without_settings(make_server)


def guided(c):
    """Answers to all questions, a wrong one before each; all that was shown."""
    out = c.answer("Full name", "bad name\r")
    out += c.answer("Full name", "mail.example.net\r")
    out += c.answer("RADIUS servers", "127.0.0.1:x\r")
    out += c.answer("RADIUS servers", "127.0.0.1:1812, [::1]:1812\r")
    out += c.until("once: +")
    c.send(SECRET + "\r")
    out += c.until("again: +")
    c.send("something else\r")
    out += c.until("not the same.*once: +")
    c.send(SECRET + "\r")
    out += c.until("again: +")
    c.send(SECRET + "\r")
    out += c.answer("Smarthost", ":x:y\r")
    out += c.answer("Smarthost", "smart.example:587\r")
    out += c.answer("Login there", "smart.example\r")  # refused before its password is typed
    out += c.answer("Login there", "smart.example:me\r")
    for prompt in ("once: +", "again: +"):
        out += c.until(prompt)
        c.send("pass:word\r")
    out += c.answer("Domains", "far.example *.x\r")
    out += c.answer("Domains", "far.example, .far.example\r")
    out += c.answer("Limits", "day=many\r")
    out += c.answer("Limits", "day=500,rate=20\r")
    out += c.answer("Alert", "noc\r")
    out += c.answer("Alert", "noc@far.example\r")
    out += c.answer("Try all of this", "n\r")
    return out


DOC = os.path.join(os.path.dirname(harness.__file__), "..", "..", "doc", "CONSOLE.md")
HEAD = """# Set-up on the console

What `mailstile console` shows on a box that has no settings yet, with some wrong answers; secrets are typed, and not shown.
`test_console.py` makes this text, and fails when it is no longer true (`CONSOLE_DOC=1` writes it anew).

```
%s
```
"""


def transcript(out, home):
    out = out.replace(home, "/var/qmail").replace("\r", "")
    out = re.sub(r"^mailstile \S+$", "mailstile VERSION", out, flags=re.M)
    return HEAD % "\n".join(line.rstrip() for line in out.strip().split("\n"))


def test_guided_set_up(empty):
    c = Console(empty)
    out = guided(c)
    out += c.answer(MENU, "6\r")
    out += c.answer(MENU, "9\r")
    out += c.answer(MENU, "0\r")
    out += c.rest()
    c.end()
    text = transcript(out, empty.home)
    if os.environ.get("CONSOLE_DOC"):
        with open(DOC, "w", encoding="ascii") as f:
            f.write(text)
    assert tools.read(DOC).decode() == text
    read = lambda name: tools.read(os.path.join(empty.control, name)).decode()
    assert read("me") == "mail.example.net\n"
    assert read("radius.conf") == "127.0.0.1:1812 %s\n[::1]:1812 %s\n" % (SECRET, SECRET)
    assert read("smtproutes") == ":smart.example:587\n" and read("rcpthosts") == "far.example\n.far.example\n"
    assert read("localdelivery") == "bounce\n" and "goes back to its sender" in out
    assert out.count("Refused: nothing is changed.") == 7 and out.count("once:") == 3 and "until this is mended" not in out and "; nobody" not in out and read("userlimits") == ":day=500,rate=20\n" and read("alertto") == "noc@far.example\n" and "control/me:1: error: " in out and "control/rcpthosts:2: error: " in out
    assert "radius.conf: set" in out and "no server runs" in out
    assert read("smtpauth") == "smart.example:me:pass:word\n" and os.stat(os.path.join(empty.control, "smtpauth")).st_mode & 0o777 == 0o600
    assert "pass:word" not in out
    assert SECRET not in out and "something else" not in out
    assert "\x1b" not in out and all(len(line) < 80 + len(empty.home) for line in out.splitlines() if "error" not in line)


def test_line_noise(empty):
    """Octets that are no text, arrow keys, backspace and ^U; a line that is far too long."""
    c = Console(empty)
    c.answer("Full name", b"\x00\xff\xfe\x80rubbish\x15maik\x08l.exam\x1b[A\x1b[1;5Cp\x01le.ne\x7fet\x1bOPx\x7f\r\n")
    c.answer("RADIUS servers", "x" * 5000 + "\x15\r")
    c.answer("Smarthost", "\r")
    assert "Login there" not in c.answer("Domains", "\r")  # there is no smarthost to log in at
    c.answer("Limits", "\r")
    c.answer("Alert", "\r")
    c.answer("Try all of this", "n\r")
    assert "Not set up yet: 1 " in c.answer(MENU, "junk\r")
    c.until("one of these")
    c.answer(MENU, "  6 \r")
    c.until("me: mail.example.net")
    c.answer(MENU, "0\r")
    c.end()
    assert tools.read(os.path.join(empty.control, "me")) == b"mail.example.net\n"
    assert sorted(os.listdir(empty.control)) == ["localdelivery", "localdelivery.none", "me", "me.none"]


def at(c, question):
    """Leave all questions before this one; type half an answer to it."""
    for q in QUESTIONS:
        if q == question:
            break
        c.answer(q, "\x03")
    c.answer(question, "half")


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("how", ["^C", "^D", "hang-up", "kill"])
def test_left_in_the_middle(empty, question, how):
    if question != "Smarthost":
        empty.set(smtproutes=":smart.example\n")
    before = picture(empty.control)
    c = Console(empty)
    at(c, question)
    c.until("half")
    if how == "^C":
        c.send("\x03")
        c.until(r"\^C")
        c.send("\x03\x03\x03\x03\x04\x04")
        c.end()
    elif how == "^D":
        c.send("\x15\x04")
        c.answer(MENU, "\x04")
        c.end()
    elif how == "hang-up":
        os.close(c.slave)
        os.close(c.master)
        c.process.wait(30)
    else:
        c.process.send_signal(signal.SIGKILL)
        c.process.wait(30)
        c.close()
    assert picture(empty.control) == before


@pytest.mark.parametrize("how", ["\x03", "\x04"])
@pytest.mark.parametrize("times", [1, 2])
def test_left_at_the_secret(empty, how, times):
    before = picture(empty.control)
    c = Console(empty)
    at(c, "RADIUS servers")
    c.send("\x15" + "127.0.0.1\r")
    c.until("once: +")
    if times == 2:
        c.send(SECRET + "\r")
        c.until("again: +")
    c.send(how)
    if how == "\x03":
        c.until("Smarthost")
        c.send("\x04")
    c.answer("Not set up yet: 1 ", "\x04")
    c.end()
    assert picture(empty.control) == before


def test_server_is_told(make_server):
    s = make_server()
    c = Console(s)
    c.answer(MENU, "2\r")
    c.answer("Full name", "new.example.net\r")
    c.answer("Make one for this name", "\r")
    c.answer(MENU, "8\r")
    c.until("mail.example.net")
    c.answer(MENU, "9\r")
    c.until("uses this now")
    c.answer(MENU, "7\r")
    c.until(r"\d+ errors?, ")
    c.answer(MENU, "0\r")
    c.end()
    assert s.log("reload")


def test_not_a_terminal(empty):
    """A script may answer, too."""
    text = "mail.example.net\n127.0.0.1\n%s\n%s\n\n\n\n\nn\n0\n" % (SECRET, SECRET)
    p = empty.tool("console", check=False, input=text.encode())
    assert p.returncode == 0 and SECRET not in p.text
    assert tools.read(os.path.join(empty.control, "radius.conf")).decode() == "127.0.0.1 %s\n" % SECRET
    assert empty.tool("console", "x", check=False).returncode == 100


def named(s):
    """Who the certificate is for."""
    return re.search(r"DNS:(\S+)", tools.run("openssl", "x509", "-in", os.path.join(s.control, "servercert.pem"), "-noout", "-ext", "subjectAltName").text).group(1)


def test_certificate(empty):
    """One is made; a second one only after a whole yes, and with a key of its own."""
    empty.set(**SET_UP)
    c = Console(empty)
    c.answer(MENU, "c\r")
    c.until(MENU)
    made = picture(empty.control)
    assert {"serverkey.pem", "servercert.pem"} < set(made) and made["serverkey.pem"][0] == 0o600
    for answer in ("\r", "y\r", "\x03"):
        c.send("c\r")
        c.until("Replace it.*Type yes")
        c.send(answer)
        c.until(MENU)
        assert picture(empty.control) == made
    empty.set(me="other.example.net\n")
    c.send("c\r")
    c.until("Type yes")
    c.send("yes\r")
    c.until("SHA-256.*" + MENU)
    now = picture(empty.control)
    assert named(empty) == "other.example.net" and all(now[n][1] != made[n][1] for n in ("serverkey.pem", "servercert.pem"))
    c.send("0\r")
    c.end()


def test_new_image(empty):
    """As the first boot leaves it: with a placeholder for a name, and a certificate for that. The questions come, and it ends with one that fits."""
    empty.set(me="mailstile.localdomain\n", localdelivery="bounce\n")
    assert empty.tool("keygen").returncode == 0
    first = picture(empty.control)
    c = Console(empty)
    out = c.until("Full name")
    assert "Set-up." in out and MENU not in out
    assert "(now mailstile.localdomain, a placeholder; Return leaves it)" in c.until("> ")
    c.send("mail.box.example\r")
    out = c.until("Make one for this name.*> ")
    assert "me: warning: the certificate is for another name: make one (`mailstile keygen -f`" in out.replace("me:1:", "me:") and "localdelivery" not in out
    c.send("n\r")
    c.answer("RADIUS servers", "\x03")
    assert picture(empty.control)["servercert.pem"] == first["servercert.pem"]
    out = empty.tool("selftest", check=False).text
    assert "NO  certificate: it is for another name than control/me says: make one (`mailstile keygen -f`; console: c)" in out
    for q in ("Smarthost", "Domains", "Limits", "Alert", "Try"):
        c.answer(q, "\x03")
    assert "Not set up yet" in c.answer(MENU, "2\r")
    assert "(now mail.box.example; Return leaves it)" in c.answer("Full name", "mail2.box.example\r")
    c.until("Make one for this name.*> ")
    c.send("\r")
    c.until("SHA-256.*" + MENU)
    assert named(empty) == "mail2.box.example" and "ok  certificate" in empty.tool("selftest", check=False).text
    c.send("0\r")
    c.end()


def test_certificate_of_others_stays(empty, scratch):
    """What an authority, or somebody else's program, has made is not ours to replace: only told."""
    empty.set(**SET_UP)
    tools.make_certificate(os.path.join(empty.control, "servercert.pem"), os.path.join(empty.control, "serverkey.pem"))
    made = picture(empty.control)["servercert.pem"]
    c = Console(empty)
    c.answer(MENU, "2\r")
    c.answer("Full name", "other.example.net\r")
    out = c.answer(MENU, "0\r")
    assert "warning: the certificate is for another name" in out and "Make one" not in out and "Done." in out
    c.end()
    assert picture(empty.control)["servercert.pem"] == made


@pytest.mark.parametrize("files", [{"me": "a.example\n"}, {"radius.conf": "127.0.0.1 %s\n" % SECRET}, {"radius.conf": "x\n", "listen": "submission 587\n"}])
def test_questions_until_it_is_set_up(empty, files):
    empty.set(**files)
    text = empty.tool("console", check=False, input=b"").text
    assert text.index("Set-up.") < text.index("Not set up yet: 1 ") < text.index(MENU)
    empty.set(**SET_UP)
    text = empty.tool("console", check=False, input=b"").text
    assert "Set-up." not in text and "Not set up" not in text and MENU in text


def test_no_login_is_set_up_too(empty):
    """Whoever says where to listen may want nobody to log in: no RADIUS server is missing then."""
    empty.set(me="a.example\n", listen="inside 127.0.0.1:2525\n")
    assert "Set-up." not in empty.tool("console", check=False, input=b"").text


def test_what_this_box_has_not(empty, scratch):
    empty.set(**SET_UP)
    c = Console(empty)
    c.answer(MENU, "n\r")
    c.until("not on this box")
    c.answer(MENU, "0\r")
    c.end()
    p = tools.run(*empty.house.argv(["/usr/bin/env", "PATH=" + scratch, harness.BINARY, "console", "-H", empty.home]), check=False, env=harness.environment(),
                  input=b"g\n0\n")
    assert "logread: not on this box" in p.text


def test_a_long_value(empty):
    """What is there is shown in one short line, without what a terminal would obey, and no secret of it."""
    empty.set(**dict(SET_UP, rcpthosts="".join("domain-%d.example\n" % n for n in range(9)), userlimits=":day=5\n", alertto="\x1b[2J@x\n"))
    text = empty.tool("console", check=False, input=b"1\n" + b"\n" * 6 + b"n\n0\n").text
    assert "(now domain-0.example domain-1.example domain-2.exam...; Return leaves it)" in text
    assert "(now day=5; Return leaves it)" in text and "(now ?[2J@x; Return leaves it)" in text and "\x1b" not in text
    empty.set(rcpthosts="")
    assert "(now empty; Return leaves it)" in empty.tool("console", check=False, input=b"5\n\n0\n").text
    assert "RADIUS servers, as in 192.0.2.1:1812 192.0.2.2\n(there is one; Return leaves it)" in text and SECRET not in text


def test_login(make_server):
    """What RADIUS says of a login: yes, no; the password is not shown."""
    s = make_server()
    c = Console(s)
    out = ""
    for password, want in (("wonder land", "accept: "), ("wrong-password", "reject: ")):
        out += c.answer(MENU, "t\r")
        out += c.until("Login name: ")
        c.send("alice\r")
        out += c.until("Password: ")
        c.send(password + "\r")
        out += c.until(want)
    for key, shown in (("q", "message|empty|nothing"), ("u", "alice|no |user|login|nobody")):
        out += c.answer(MENU, key + "\r")
        out += c.until(shown)
    out += c.answer(MENU, "0\r")
    c.end()
    assert "wonder land" not in out and "wrong-password" not in out


def commands(scratch, **scripts):
    """A directory with shell scripts of these names."""
    path = os.path.join(scratch, "bin")
    os.mkdir(path)
    for name, text in scripts.items():
        tools.write(os.path.join(path, name), "#!/bin/sh\n" + text, 0o755)
    return path


def test_live_status(make_server):
    """It comes again by itself, and a key ends it."""
    s = make_server()
    c = Console(s)
    c.answer(MENU, "l\r")
    for _ in range(3):
        c.until("mail.example.net.*any key stops")
    c.send("x")
    c.answer(MENU, "0\r")
    c.end()


def test_live_status_on_a_dead_line(make_server):
    s = make_server(start=False)
    c = Console(s)
    c.answer(MENU, "l\r")
    c.until("any key stops")
    os.close(c.slave)
    os.close(c.master)
    assert c.process.wait(10) in (0, -signal.SIGHUP)


def test_log(empty, scratch):
    """The last lines, and nothing that a terminal would obey; a command that floods, hangs or is not there."""
    path = commands(scratch, logread="""case $(cat %s/how) in
flood) i=0; while test $i -lt 3000; do i=$((i + 1)); echo "line number $i"; done; printf 'e\\033[2Jvil\\377\\n' ;;
hang) echo before; exec sleep 600 ;;
esac""" % scratch)
    empty.set(**SET_UP)
    c = Console(empty, path)
    tools.write(os.path.join(scratch, "how"), "flood\n")
    c.answer(MENU, "g\r")
    out = c.until(MENU)
    assert re.findall(r"line number (\d+)\r", out) == [str(n) for n in range(2984, 3001)] and "e?[2Jvil?\r" in out and "\x1b" not in out
    tools.write(os.path.join(scratch, "how"), "hang\n")
    c.answer("", "g\r")
    assert "before" in c.until(MENU)
    os.unlink(os.path.join(path, "logread"))
    os.mkdir(os.path.join(path, "logread"))
    c.send("g\r")
    c.until("logread: [A-Z]")
    c.answer(MENU, "0\r")
    c.end()


def test_reboot(empty, scratch):
    """Only after a whole yes."""
    path = commands(scratch, reboot="echo going down; touch %s/down" % scratch)
    os.chmod(scratch, 0o777)
    empty.set(**SET_UP)
    c = Console(empty, path)
    for answer in ("\r", "y\r", "no\r", "yes please\r", "\x03"):
        c.answer(MENU, "b\r")
        c.until("Type yes")
        c.send(answer)
    c.answer(MENU, "b\r")
    assert not os.path.exists(os.path.join(scratch, "down"))
    c.until("Type yes")
    c.send("yes\r")
    c.until("going down")
    c.answer(MENU, "0\r")
    c.end()
    assert os.path.exists(os.path.join(scratch, "down"))


def test_self_test(make_server):
    """From the menu, and at the end of the questions; ^C ends it, and not the menu."""
    s = make_server()
    c = Console(s)
    c.answer(MENU, "s\r")
    out = c.until(r"not well|all is well")
    assert "door at port %d: strangers may not" % s.port["smtp"] in out and "signs, and knows the secret" in out
    c.answer(MENU, "1\r")
    for q in QUESTIONS:
        if q != "Login there":
            c.answer(q, "\r")
    c.until("door at port")
    c.until(r"not well|all is well")
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        s.set(relay="on\n", smtproutes=":127.0.0.1:%d\n" % hole.getsockname()[1])
        c.answer(MENU, "s\r")
        c.until("ok  certificate")
        c.send("\x03")
        c.answer(MENU, "0\r")
        assert "door" not in c.text
    c.end()
