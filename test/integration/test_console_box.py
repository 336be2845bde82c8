# SPDX-License-Identifier: MIT
"""console: its password, the box's address and clock, a new beginning."""

import calendar
import hashlib
import os
import re
import struct
import subprocess
import time

import pytest

import harness
import tools
from test_console import MENU, Console
from test_settings import configure, picture
from test_settings_kill import killed_everywhere

WORD = "open-sesame-7"


@pytest.fixture
def box(make_server):
    s = make_server(start=False)
    for name in os.listdir(s.control):
        if name != "radius.conf":
            os.unlink(os.path.join(s.control, name))
    s.set(me="mail.example.net\n", rcpthosts="far.example\n")
    return s


def run(s, typed, binary=None):
    """A console that reads `typed` and ends; what it says."""
    argv = s.house.argv([binary or harness.BINARY, "console", "-H", s.home, "-S", s.ctl])
    p = tools.run(*argv, check=False, env=harness.environment(), input=(typed + "0\n").encode())
    assert p.returncode == 0, p.text
    return p.text


# ---- password

def set_password(s, word):
    return run(s, "w\n%s\n%s\n" % (word, word))


def test_password(box):
    """It is asked for once it is set, not shown, and kept as PBKDF2; it can be changed and taken away."""
    path = os.path.join(box.control, "consolepass")
    assert "Done." in set_password(box, WORD)
    raw = tools.read(path)
    assert len(raw) == 52 and os.stat(path).st_mode & 0o777 == 0o600
    (rounds,) = struct.unpack("!L", raw[:4])
    assert rounds == 100000 and raw[20:] == hashlib.pbkdf2_hmac("sha256", WORD.encode(), raw[4:20], rounds)
    c = Console(box)
    out = c.until("Password: ")
    assert MENU not in out
    c.send("wrong\r")
    c.until("No.*Password: ")
    c.send(WORD + "\r")
    out = c.until(MENU)
    assert WORD not in out and "wrong" not in out
    for word in ("another-word", "none"):
        c.send("w\r")
        for prompt in ("once: +", "again: +"):
            c.until(prompt)
            c.send(word + "\r")
        c.until("Done.*" + MENU)
    assert not os.path.exists(path)
    c.send("0\r")
    c.end()
    assert raw[4:20] not in tools.read(os.path.join(box.control, "me"))
    assert set_password(box, WORD) and tools.read(path)[4:20] != raw[4:20]


def test_password_that_is_short(box):
    """Below 8 characters it is taken only after a whole yes."""
    path = os.path.join(box.control, "consolepass")
    for answer in ("\n", "no\n"):
        out = run(box, "w\na\na\n" + answer)
        assert "Fewer than 8 characters" in out and "Refused" in out and not os.path.exists(path)
    run(box, "w\n1234567\n1234567\nyes\n")
    assert os.path.exists(path)
    os.unlink(path)
    assert "Fewer" not in run(box, "w\n12345678\n12345678\n") and os.path.exists(path)


@pytest.mark.parametrize("typed", ["wrong\r" * 3, "\x04", "\x03", WORD + "x\r\x04", WORD[:-1] + "\r\x04", "\r\r\r"])
def test_password_is_wrong(box, typed):
    """Three tries, slower each time; nobody comes past it by ^C or ^D."""
    set_password(box, WORD)
    before = picture(box.control)
    c = Console(box)
    began = time.monotonic()
    for line in re.findall("[^\r]*\r|.$", typed):
        c.until("Password: ")
        c.send(line)
    assert c.process.wait(30) == 1
    assert MENU not in c.rest() and (typed.count("\r") < 3 or time.monotonic() - began >= 7)
    c.close()
    assert picture(box.control) == before


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b + b"\n", lambda b: bytes(4) + b[4:], lambda b: b"\xff" * 4 + b[4:]])
def test_password_file_is_damaged(box, damage):
    """Then nobody comes in."""
    set_password(box, WORD)
    path = os.path.join(box.control, "consolepass")
    tools.write(path, damage(tools.read(path)))
    p = tools.run(*box.house.argv([harness.BINARY, "console", "-H", box.home]), check=False, env=harness.environment(), input=(WORD + "\n6\n0\n").encode())
    assert p.returncode == 1 and "damaged" in p.text and MENU not in p.text


# ---- clock

def set_time(s, text, scratch):
    """What the console says, and what it would have set the clock to."""
    log = os.path.join(scratch, "log")
    argv = ["strace", "-qq", "-o", log, "-e", "trace=clock_settime,settimeofday", "-e", "inject=clock_settime,settimeofday:retval=0", harness.BINARY,
            "console", "-H", s.home]
    p = subprocess.run(argv, env=harness.environment(), input=("d\n%s\n0\n" % text).encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    found = re.findall(r"clock_settime\(CLOCK_REALTIME, \{tv_sec=(\d+), tv_nsec=0\}", tools.read(log).decode())
    return p.stdout.decode(), int(found[0]) if found else None


@pytest.mark.release
def test_time(box, scratch):
    for text in ("2027-02-28 23:59", "2028-02-29 00:00", "2028-03-01 00:00", "2099-12-31 12:30", "2100-03-01 04:05", "2400-02-29 01:02", "2027-01-01 00:00"):
        out, seconds = set_time(box, text, scratch)
        assert "Done." in out and seconds == calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M")), text
    for text in ("2027-02-29 00:00", "2100-02-29 00:00", "2027-04-31 00:00", "2027-13-01 00:00", "2027-00-10 00:00", "2027-01-00 00:00", "2027-01-32 00:00",
                 "2027-01-01 24:00", "2027-01-01 00:60", "2027-01-01", "2027-1-01 00:00", "2027/01/01 00:00", "2027-01-01T00:00", "1970-01-01 00:00",
                 "2020-01-01 00:00", "0000-01-01 00:00", "-027-01-01 00:00", "soon", "9999-99-99 99:99"):
        out, seconds = set_time(box, text, scratch)
        assert "Refused" in out and seconds is None, text


@pytest.mark.release
def test_first_question_without_a_clock(box, future_binary):
    """It is asked for before all else; Return and ^C leave it, ^D ends."""
    box.set(me=None)
    for typed, more in ((b"\n\x04", True), (b"\x03\x04", True), (b"\x04", False)):
        text = tools.run(*box.house.argv([future_binary, "console", "-H", box.home]), check=False, env=harness.environment(), input=typed).text
        assert "Time in UTC" in text and ("Address of this box" in text or "Full name" in text) == more, text
    assert "Time in UTC" not in run(box, "\x03" * 9)


# ---- address

@pytest.fixture
def network(quick_binary):
    """The file that a build with NETWORK_FILE writes; there is none yet."""
    path = os.path.join(os.path.dirname(quick_binary), "network")
    if os.path.exists(path):
        os.unlink(path)
    return path


@pytest.mark.release
def test_address(box, quick_binary, network):
    def ask(text, ok="Done."):
        out = run(box, "n\n" + text, quick_binary)
        assert ok in out, out
        return tools.read(network).decode() if os.path.exists(network) else None
    assert ask("\n", MENU) is None
    assert ask("dhcp\n") == "MODE=dhcp\n"
    assert ask("192.0.2.7/24\n192.0.2.1\n192.0.2.1 192.0.2.2\n") == 'MODE=static\nADDRESS=192.0.2.7/24\nGATEWAY=192.0.2.1\nDNS="192.0.2.1 192.0.2.2"\n'
    tools.write(network, "INTERFACE=eth7\nMODE=dhcp\nHOSTNAME=mail.example.net\nGATEWAY=10.0.0.1\n")
    assert ask("2001:db8::7/64\n\n\n") == 'INTERFACE=eth7\nHOSTNAME=mail.example.net\nMODE=static\nADDRESS=2001:db8::7/64\nGATEWAY=\nDNS=""\n'
    assert os.stat(network).st_mode & 0o777 == 0o644 and not os.path.exists(network + ".new")
    before = tools.read(network)
    for wrong in ("192.0.2.7", "192.0.2.7/33", "192.0.2.7/0", "192.0.2.300/24", "192.0.2.7/24 x", "; reboot", "x/24", "2001:db8::7/129"):
        out = run(box, "n\n%s\n\n" % wrong, quick_binary)
        assert "Refused: expected ADDRESS/BITS" in out and tools.read(network) == before, wrong
    for gateway in ("192.0.3.1", "192.0.2.7", "2001:db8::1", "gw", "192.0.2.1 x", "$(reboot)"):
        out = run(box, "n\n192.0.2.7/24\n%s\n\x04" % gateway, quick_binary)
        assert "not in this network" in out and tools.read(network) == before, gateway
    for dns in ("ns.example.net", "192.0.2.1 $(reboot)", "192.0.2.1,192.0.2.2", "192.0.2.1\"", "192.0.2"):
        out = run(box, "n\n192.0.2.7/24\n\n%s\n\x04" % dns, quick_binary)
        assert "no such address" in out and tools.read(network) == before, dns


@pytest.mark.release
@pytest.mark.parametrize("call", ["open,openat", "write", "fsync", "rename,renameat"])
def test_address_killed_anywhere(box, quick_binary, network, call):
    typed = b"n\n192.0.2.7/24\n192.0.2.1\n\n0\n"
    new = b'MODE=static\nADDRESS=192.0.2.7/24\nGATEWAY=192.0.2.1\nDNS=""\n'
    for n in range(1, 100):
        tools.write(network, "MODE=dhcp\n")
        p = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "inject=%s:signal=KILL:when=%d" % (call, n), quick_binary, "console", "-H", box.home],
                           env=harness.environment(), input=typed, stdout=subprocess.DEVNULL, check=False)
        assert tools.read(network) in (b"MODE=dhcp\n", new)
        if p.returncode >= 0:
            break
    assert tools.read(network) == new and n > 1


@pytest.mark.release
def test_first_questions_with_an_address(box, quick_binary, network):
    """With NETWORK_FILE it is the first question, and ^C leaves it like any other."""
    box.set(me=None)
    p = tools.run(*box.house.argv([quick_binary, "console", "-H", box.home]), check=False, env=harness.environment(), input=b"dhcp\n\x03\x04")
    assert p.text.index("Address of this box") < p.text.index("Full name") and tools.read(network) == b"MODE=dhcp\n"


# ---- a new beginning

@pytest.mark.release
def test_reset(box, quick_binary, network):
    """Two times yes; then nothing is left that could tell who this was, and the questions come at the next start."""
    box.set(unknown="stays\n", **{"request.pem": "x"})
    tools.write(network, "MODE=dhcp\n")
    set_password(box, WORD)
    for words in (["set", "me", "other.example.net"], ["set", "databytes", "7"], ["unset", "databytes"]):
        assert configure(box, *words).returncode == 0
    before = picture(box.control)
    assert {"me.old", "radius.conf", "consolepass"} < set(before)
    for answers in ("\n", "no\n", "yes\n\n", "yes\nno\n", "yes\ny\n"):
        assert "no way back" in run(box, WORD + "\nz\n" + answers, quick_binary) or not answers.startswith("yes")
        assert picture(box.control) == before and os.path.exists(network)
    out = run(box, WORD + "\nz\nyes\nyes\n", quick_binary)
    assert "Done." in out and set(os.listdir(box.control)) == {"unknown"} and not os.path.exists(network), os.listdir(box.control)
    assert "Full name" in tools.run(*box.house.argv([harness.BINARY, "console", "-H", box.home]), check=False, env=harness.environment(), input=b"").text


@pytest.mark.release
@pytest.mark.parametrize("call", ["openat,open", "fsync", "renameat,renameat2", "unlinkat"])
def test_reset_killed_anywhere(box, call):
    """All settings or none; and no way back to some of them."""
    names = ("me", "rcpthosts", "radius.conf", "databytes", "locals")
    box.set(databytes="5\n", locals="far.example\n")
    seen = lambda p: {k: v for k, v in p.items() if k in names}
    old = seen(picture(box.control))
    assert set(old) == set(names)
    killed_everywhere(box, ["console", "-H", box.home], call, [old, {}], view=seen, input=b"z\nyes\nyes\n0\n", follow=False)
