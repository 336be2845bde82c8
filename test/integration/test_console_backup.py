# SPDX-License-Identifier: MIT
"""console: backup and restore. What is in a block, by code that is not ours; what is refused; what a kill leaves."""

import base64
import hashlib
import os
import shutil
import signal
import socket
import struct

import pytest

import tools
from test_console import MENU, Console
from test_settings import configure, picture
from test_settings_kill import killed_everywhere

SECRET = "0123456789abcdef!secret"
WORD = "correct horse battery staple".replace(" ", "-")
BEGIN, END = "-----BEGIN MAILSTILE BACKUP-----", "-----END MAILSTILE BACKUP-----"
SETTINGS = {"me": "mail.example.net\n", "rcpthosts": "far.example\n", "locals": "", "radius.conf": "127.0.0.1 %s\n" % SECRET,
            "smtproutes": ":smart.example:587\n", "smtpauth": "smart.example:me:pass:word\n"}
SECRETS = ("radius.conf", "serverkey.pem", "servercert.pem", "smtpauth")


@pytest.fixture
def box(make_server):
    """A box with SETTINGS, its menu, and what else the test wants."""
    s = make_server(start=False)
    for name in os.listdir(s.control):
        os.unlink(os.path.join(s.control, name))
    s.set(**SETTINGS)
    for name in ("radius.conf", "smtpauth"):
        os.chmod(os.path.join(s.control, name), 0o600)
    tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"))
    return s


def run(s, typed):
    """A console that reads `typed`; what it says."""
    p = s.tool("console", "-S", s.ctl, check=False, input=(typed + "0\n").encode())
    assert p.returncode == 0, p.text
    return p.text


def backup(s, word=None):
    out = run(s, "k\n" + ("yes\n%s\n%s\n" % (word, word) if word else "\n"))
    return out[out.index(BEGIN):out.index(END) + len(END)] + "\n"


def restore(s, text, word=None):
    return run(s, "v\n%s.\n%s" % (text, word + "\n" if word else ""))


def files(s):
    """What counts: control files without what `apply` has kept."""
    return {k: v for k, v in picture(s.control).items() if not k.endswith((".old", ".last", ".none"))}


# ---- the format once more: RFC 8018, RFC 8439

def rotate(x, n):
    return (x << n | x >> 32 - n) & 0xFFFFFFFF


def chacha_block(key, counter):
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8L", key), counter, 0, 0, 0]
    w = list(state)
    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                w[x] = (w[x] + w[y]) & 0xFFFFFFFF
                w[z] = rotate(w[z] ^ w[x], n)
    return struct.pack("<16L", *((x + y) & 0xFFFFFFFF for x, y in zip(w, state)))


def xor(key, data):
    stream = b"".join(chacha_block(key, 1 + i) for i in range((len(data) + 63) // 64))
    return bytes(x ^ y for x, y in zip(data, stream))


def tag_of(key, head, data):
    first = chacha_block(key, 0)
    r = int.from_bytes(first[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    pad = lambda b: b + bytes(-len(b) % 16)
    n = 0
    text = pad(head) + pad(data) + struct.pack("<QQ", len(head), len(data))
    for i in range(0, len(text), 16):
        n = (n + int.from_bytes(text[i:i + 16] + b"\1", "little")) * r % (2 ** 130 - 5)
    return ((n + int.from_bytes(first[16:32], "little")) % 2 ** 128).to_bytes(16, "little")


def unpack(text, word=""):
    """(rounds, {name: content or None})"""
    raw = base64.b64decode("".join(text.splitlines()[1:-1]), validate=True)
    head, data, tag = raw[:21], raw[21:-16], raw[-16:]
    assert head[0] == 1
    (rounds,) = struct.unpack("!L", head[1:5])
    key = hashlib.pbkdf2_hmac("sha256", word.encode(), head[5:], rounds)
    assert tag_of(key, head, data) == tag
    plain, out = xor(key, data), {}
    while plain:
        name, plain = plain.split(b"\0", 1)
        if plain[:1] == b"+":
            n = struct.unpack("!L", plain[1:5])[0]
            out[name.decode()], plain = plain[5:5 + n].decode(), plain[5 + n:]
        else:
            out[name.decode()], plain = None, plain[1:]
    return rounds, out


def pack(entries, word="", rounds=1, version=1, salt=bytes(16)):
    head = struct.pack("!BL", version, rounds) + salt
    plain = b"".join(e if isinstance(e, bytes) else e[0].encode() + b"\0" + (b"-" if e[1] is None else b"+" + struct.pack("!L", len(e[1])) + e[1].encode())
                     for e in entries)
    key = hashlib.pbkdf2_hmac("sha256", word.encode(), salt, max(rounds, 1))
    data = xor(key, plain)
    return "%s\n%s%s\n" % (BEGIN, base64.encodebytes(head + data + tag_of(key, head, data)).decode(), END)


# ----

def test_without_secrets(box):
    """No secret is in it, and none is touched when it comes back."""
    text = backup(box)
    assert text.startswith(BEGIN) and all(len(line) <= 64 for line in text.splitlines())
    rounds, have = unpack(text)
    assert rounds == 1 and not set(have) & set(SECRETS) and SECRET not in str(have)
    assert {k: v for k, v in have.items() if v is not None} == {k: v for k, v in SETTINGS.items() if k not in SECRETS}
    before = files(box)
    for words in (["set", "me", "other.example.net"], ["set", "bounceformat", "dsn"], ["unset", "locals"]):
        assert configure(box, *words).returncode == 0
    out = restore(box, text)
    assert "Done." in out and "no server runs" in out and files(box) == before, out
    assert unpack(backup(box))[1] == have and backup(box) != text  # another salt


def test_with_secrets(box, make_server):
    """All of it, onto another box that has nothing; the passphrase is not shown."""
    text = backup(box, WORD)
    rounds, have = unpack(text, WORD)
    assert rounds == 100000 and have["radius.conf"] == SETTINGS["radius.conf"] and "PRIVATE KEY" in have["serverkey.pem"]
    other = make_server(start=False)
    for name in os.listdir(other.control):
        os.unlink(os.path.join(other.control, name))
    other.set(me="empty.example.net\n", databytes="5\n")
    out = run(other, "\x04v\n%s.\n%s\n" % (text, WORD))  # ^D: no questions
    assert "Done." in out and WORD not in out and SECRET not in out
    assert {k: v[1] for k, v in files(other).items()} == {k: v[1] for k, v in files(box).items()}
    assert all(files(other)[k][0] == 0o600 for k in SECRETS)


def test_wrong_passphrase(box):
    text = backup(box, WORD)
    before = picture(box.control)
    for word in ("wrong", WORD + "x", WORD[:-1]):
        out = restore(box, text, word)
        assert "not its passphrase" in out and "Refused" in out and picture(box.control) == before


def test_passphrase_twice(box):
    """One that was not typed the same twice is asked for again; ^C leaves."""
    c = Console(box)
    c.answer(MENU, "k\r")
    c.until("Type yes")
    c.send("yes\r")
    for once, again in ((WORD, "x"), (WORD, WORD)):
        c.until("once: +")
        c.send(once + "\r")
        c.until("again: +")
        c.send(again + "\r")
    out = c.until(END)
    assert WORD not in out
    c.answer(MENU, "k\r")
    c.until("Type yes")
    c.send("yes\r")
    c.until("once: +")
    c.send("\x03")
    assert BEGIN not in c.until(MENU)
    c.send("0\r")
    c.end()


@pytest.mark.parametrize("word", ["", WORD])
def test_damaged(box, word):
    """One octet that is another one, anywhere; lines lost, doubled, in another order; half of it."""
    text = backup(box, word)
    lines = text.splitlines()
    body = "".join(lines[1:-1])
    before = picture(box.control)
    damaged = []
    for at in (0, 4, 9, 30, len(body) // 2, len(body) - 12):
        wrong = "B" if body[at] != "B" else "C"
        damaged.append("%s\n%s\n%s\n" % (BEGIN, "\n".join((body[:at] + wrong + body[at + 1:])[i:i + 64] for i in range(0, len(body), 64)), END))
    damaged += ["\n".join(lines[:2] + lines[3:]) + "\n", "\n".join(lines[:3] + lines[2:]) + "\n", "\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n",
                "\n".join(lines[:4]) + "\n", text.replace("MAILSTILE BACKUP", "CERTIFICATE"), "%s\n%s\n" % (BEGIN, END), "rubbish\n", ""]
    for d in damaged:
        out = restore(box, d, word)
        assert picture(box.control) == before and "Done." not in out, d
    assert "Done." in restore(box, text, word)


def test_forged(box):
    """Without a passphrase anybody can make one. It cannot do more than `set`."""
    before = picture(box.control)
    for block in (pack([("me", "bad name\n")]), pack([("me", "a.example.net\n"), ("rcpthosts", "*.x\n")]), pack([("me", None)]),
                  pack([("../me", "a.example.net\n")]), pack([("nonsense", "x\n")]), pack([("rcpthosts", "a.example\n"), ("me", "a.example.net\n")]),
                  pack([("me", "a.example.net\n"), ("me", "b.example.net\n")]), pack([b"me\0+\xff\xff\xff\xffa.example.net\n"]), pack([b"me\0+\0\0"]),
                  pack([b"me\0+\0\0\0\x20a.example.net\n"]), pack([b"me"]), pack([]), pack([("me", "a.example.net\n")], version=2),
                  pack([("me", "a.example.net\n")], rounds=0), pack([("me", "a\0b.example.net\n")])):
        out = restore(box, block)
        assert "Refused" in out and picture(box.control) == before, out
    slow = pack([("me", "a.example.net\n")])  # with more rounds than there is time for
    raw = bytearray(base64.b64decode("".join(slow.splitlines()[1:-1])))
    raw[1:5] = b"\xff\xff\xff\xff"
    assert "no backup" in restore(box, "%s\n%s%s\n" % (BEGIN, base64.encodebytes(bytes(raw)).decode(), END))
    out = restore(box, pack([("me", "a.example.net\n"), ("databytes", None)]))
    assert "Done." in out and tools.read(os.path.join(box.control, "me")) == b"a.example.net\n"


def test_what_is_too_large(box):
    """A file that does not fit is left out, by name, and stays as it is in the end."""
    big = "".join("d%d.example\n" % i for i in range(20000))
    box.set(rcpthosts=big)
    out = run(box, "k\n\n")
    assert "left out: rcpthosts" in out and "left out: radius.conf" in out
    text = out[out.index(BEGIN):out.index(END) + len(END)] + "\n"
    assert "rcpthosts" not in unpack(text)[1]
    assert "Done." in restore(box, text) and tools.read(os.path.join(box.control, "rcpthosts")).decode() == big
    middle = "".join("d%d.example\n" % i for i in range(5000))
    box.set(rcpthosts=middle)
    text = backup(box)
    assert unpack(text)[1]["rcpthosts"] == middle and "Done." in restore(box, text)


def test_applied_and_back(make_server):
    """A restored set is applied; when the server does not come up with it, the one before is there again."""
    s = make_server()
    before = files(s)
    text = backup(s)
    c = Console(s)
    c.until(MENU)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for entries, want in (([("me", "new.example.net\n"), ("listen", "submission 127.0.0.1:%d\n" % taken.getsockname()[1])], "put back as before"),
                              ([("me", "new.example.net\n")], "uses this now")):
            c.send("v\r")
            c.until("just a dot")
            c.send(pack(entries).replace("\n", "\r") + ".\r")
            c.until(want + ".*" + MENU)
            if want != "uses this now":
                assert files(s) == before
    c.send("v\r")
    c.until("just a dot")
    c.send(text.replace("\n", "\r") + ".\r")
    c.until("uses this now.*" + MENU)
    assert files(s) == before
    c.send("0\r")
    c.end()


@pytest.mark.parametrize("how", ["^C", "hang-up", "kill"])
def test_left_in_the_middle(box, how):
    before = picture(box.control)
    c = Console(box)
    c.answer(MENU, "v\r")
    c.until("just a dot")
    c.send(pack([("me", "a.example.net\n")]).replace("\n", "\r"))
    if how == "^C":
        c.send("\x03")
        c.answer(MENU, "0\r")
        c.end()
    elif how == "hang-up":
        os.close(c.slave)
        os.close(c.master)
        c.process.wait(30)
    else:
        c.process.send_signal(signal.SIGKILL)
        c.process.wait(30)
        c.close()
    assert picture(box.control) == before


@pytest.mark.release
@pytest.mark.parametrize("call", ["openat,open", "fsync", "linkat", "renameat,renameat2", "unlinkat", "mkdirat", "fchmod", "write"])
def test_killed_anywhere(box, call):
    """The files that were, or those of the backup; never some of each."""
    shutil.rmtree(os.path.join(box.home, "queue"))
    box.set(spool="maildir %s/box/\n" % box.home)
    typed = "v\n%s.\n0\n" % pack([("me", "a.example.net\n"), ("rcpthosts", None), ("databytes", "7\n")])
    whole = lambda p: {k: v for k, v in p.items() if not k.endswith((".old", ".none", ".last"))}
    keep = box.control + ".keep"
    shutil.copytree(box.control, keep)
    box.tool("console", "-S", box.ctl, check=False, input=typed.encode())
    new = picture(box.control)
    shutil.rmtree(box.control)
    os.rename(keep, box.control)
    old = picture(box.control)
    assert "rcpthosts" not in new and new["me"] != old["me"]
    n = killed_everywhere(box, ["console", "-H", box.home, "-S", box.ctl], call, [whole(old), whole(new)], view=whole, input=typed.encode(), follow=False)
    assert n > 0
