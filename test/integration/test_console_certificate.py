# SPDX-License-Identifier: MIT
"""console: a request for an authority, and certificates that are pasted: what fits is taken whole, all else leaves everything as it was."""

import os
import signal
import time

import pytest

import remote
import tools
from test_console import MENU, SET_UP, Console, without_settings
from test_settings import picture


@pytest.fixture
def box(make_server):
    s = without_settings(make_server)
    s.set(**SET_UP)
    c = Console(s)
    c.answer(MENU, "c\r")
    c.until(MENU + r".*?> ")
    c.box = s
    yield c
    if c.master != -1:
        c.send("\x03\x030\r")
        c.end()


def read(c, name):
    return tools.read(os.path.join(c.box.control, name)).decode()


def paste(c, text, end=".\r"):
    """What is said behind it, up to the menu."""
    c.send("p\r")
    c.until("just a dot ends it")
    for line in text.splitlines():
        c.send(line + "\r")
    c.send(end)
    return c.until(MENU + r".*?> ")


def signed(c, ca, name, scratch):
    """The certificate that an authority makes of the box's request, which openssl finds good."""
    c.send("r\r")
    out = c.until("-----END CERTIFICATE REQUEST-----").replace("\r", "")
    c.until(MENU + r".*?> ")
    pem = out[out.index("-----BEGIN CERTIFICATE REQUEST-----"):] + "\n"
    csr = tools.write(os.path.join(scratch, "csr"), pem)
    said = tools.run("openssl", "req", "-in", csr, "-noout", "-verify", "-text").text
    assert "CN = mail.example.net" in said and "DNS:mail.example.net" in said
    ext = tools.write(os.path.join(scratch, "ext"), "subjectAltName=DNS:%s\n" % name)
    cert = os.path.join(scratch, "cert")
    tools.run("openssl", "x509", "-req", "-in", csr, "-CA", ca.cert, "-CAkey", ca.key, "-CAcreateserial", "-days", "30", "-extfile", ext, "-out", cert)
    return tools.read(cert).decode()


def test_request_and_answer(box, scratch):
    """The key is made here and stays; the answer and the authority's own certificate are taken together."""
    ca = remote.Authority(os.path.join(scratch, "ca"))
    key = read(box, "serverkey.pem")
    assert "BEGIN" not in paste(box, "") and read(box, "serverkey.pem") == key
    cert = signed(box, ca, "mail.example.net", scratch) + tools.read(ca.cert).decode()
    assert "Done." in paste(box, cert)
    assert read(box, "servercert.pem") == cert and read(box, "serverkey.pem") == key
    # Again: a second request is for the same key.
    again = signed(box, ca, "mail.example.net", scratch)
    assert "Done." in paste(box, again) and read(box, "servercert.pem") == again


def test_with_its_key(box, scratch):
    """Both come together, and the old key goes in the same step. It is not shown."""
    chain, key = remote.Authority(os.path.join(scratch, "ca")).issue("mail.example.net")
    text = tools.read(chain).decode() + tools.read(key).decode()
    out = paste(box, text)
    assert "Done." in out and "PRIVATE" not in out and tools.read(key).decode().splitlines()[1] not in out
    assert read(box, "servercert.pem") == text and not os.path.exists(os.path.join(box.box.control, "serverkey.pem"))
    assert os.stat(os.path.join(box.box.control, "servercert.pem")).st_mode & 0o777 in (0o600, 0o644)


def test_what_is_refused(box, scratch):
    ca = remote.Authority(os.path.join(scratch, "ca"))
    good = signed(box, ca, "mail.example.net", scratch)
    other = signed(box, ca, "other.example.net", scratch)
    foreign, foreign_key = ca.issue("mail.example.net")
    stranger, _ = remote.Authority(os.path.join(scratch, "cb"), "Another CA").issue("mail.example.net", kind="ec384")
    day = lambda n: time.strftime("%Y%m%d000000Z", time.gmtime(time.time() + n * 86400))
    old, old_key = ca.issue("mail.example.net", days=(day(-9), day(-2)))
    text = lambda *names: "".join(tools.read(n).decode() for n in names)
    before = picture(box.box.control)
    for pasted, why in ((other, "another name"), (text(foreign), "error: "), (text(old, old_key), "not valid at this date"), ("garbage\n" * 50, "error: "),
                        (good[:len(good) // 2], "error: "), (good.replace("M", "N", 20), "error: "), (good + text(stranger), "that of who issued it"),
                        (text(stranger, foreign_key), "error: "), ("y" * 3000 + "\n" + good, "too long"), (good + ("z" * 70 + "\n") * 2000, "too long"),
                        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "error: ")):
        out = paste(box, pasted)
        assert why in out and "Refused" in out and "Done." not in out, (why, out)
        assert ".try" not in out and picture(box.box.control) == before, why
    assert "Done." in paste(box, good)


@pytest.mark.parametrize("how", ["^C", "^D", "hang-up", "kill"])
def test_left_in_the_middle(box, scratch, how):
    chain, key = remote.Authority(os.path.join(scratch, "ca")).issue("mail.example.net")
    before = picture(box.box.control)
    box.send("p\r")
    box.until("just a dot ends it")
    for line in (tools.read(chain) + tools.read(key)).decode().splitlines():
        box.send(line + "\r")
    if how == "^C":
        box.send("\x03")
        box.until(MENU)
    elif how == "^D":
        box.send("\x04")
        box.until(MENU)
    elif how == "hang-up":
        os.close(box.slave)
        os.close(box.master)
        box.process.wait(30)
        box.master = box.slave = -1
    else:
        box.process.send_signal(signal.SIGKILL)
        box.process.wait(30)
        box.close()
    assert picture(box.box.control) == before


def test_set_takes_another_name(box, scratch):
    """Clients may know the box by another name than its own: `set` only warns."""
    chain, key = remote.Authority(os.path.join(scratch, "ca")).issue("smtp.example.net")
    box.box.set(**{"serverkey.pem": None})
    p = box.box.tool("set", "servercert.pem", "-", check=False, input=tools.read(chain) + tools.read(key))
    assert p.returncode == 0 and "warning: is for another name: expected one for mail.example.net" in p.text, p.text
