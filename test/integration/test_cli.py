# SPDX-License-Identifier: MIT
"""The applets beside the server: check, keygen, mkqueue."""

import os
import re
import stat
import time

import pytest

import harness
import remote
import tools


@pytest.fixture
def home(make_server):
    s = make_server(start=False)
    tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"))
    return s


FINDING = r"(\S+(:\d+)?: )?(error|warning|note): \S.*"


def test_check_of_a_good_home(home):
    p = home.tool("check")
    assert not re.search(r": (error|warning): ", p.text), p.text


@pytest.mark.parametrize("name,content,line,level", [
    ("listen", "smtp 25\nsubmission x\n", 2, "error"),
    ("listen", "smtp 25\nsmtps 26\n", 2, "error"),
    ("listen", "inside 26 from=nobody\n", 1, "error"),
    ("databytes", "many\n", 1, "error"),
    ("relayclients", "127.0.0.1\n10.0.0.300\n", 2, "error"),
    ("radius.conf", "127.0.0.1 0123456789abcdef\nradius.example\n", 2, "error"),
    ("radius.conf", "# x\n127.0.0.1 short\n", 2, "warning"),
    ("radius.conf", "127.0.0.1 0123456789abcdef unsigned\n", 1, "warning"),
    ("me", "nodots\n", 1, "warning"),
    ("morercpthosts.cdb", "not a cdb\n", None, "error"),
    ("servercert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "error"),
    ("serverkey.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None, "error"),
])
def test_check_names_file_and_line(home, name, content, line, level):
    home.set(**{name: content})
    p = home.tool("check", check=False)
    where = re.escape(os.path.join(home.control, name)) + (":%d" % line if line else r"(:\d+)?")
    assert re.search("^%s: %s: " % (where, level), p.text, re.M), p.text
    assert p.returncode == (1 if level == "error" else 0)
    assert all(re.fullmatch(FINDING, x) for x in p.text.splitlines() if ": error" in x or ": warning" in x)
    assert "0123456789abcdef" not in p.text


@pytest.mark.parametrize("name,good,bad", [
    ("rcpthosts", ["far.example", ".far.example", "localhost", "[192.0.2.1]", "b\u00fccher.example"],
     ["*.far.example", "a@far.example", "far.example.", "two words", "http://far.example", "..far.example", ".", "[192.0.2.1"]),
    ("badmailfrom", ["a@far.example", "@far.example", '"a b"@far.example', "a@[192.0.2.1]"],
     ["far.example", "*@*.example", "<a@far.example>", "a@", "a b@far.example"]),
    ("locals", ["far.example", "[127.0.0.1]"], [".far.example", "a@far.example", "far.example:25"]),
    ("percenthack", ["far.example"], [".far.example", "a%b"]),
    ("bouncefrom", ["MAILER-DAEMON", "mail daemon"], ["daemon@far.example", "<daemon>"]),
    ("doublebounceto", ["postmaster", "a+b"], ["postmaster@far.example"]),
])
def test_check_of_lines_that_mean_nothing(home, name, good, bad):
    """They are no error, since qmail takes them, and so does the server; but nothing ever fits them, and no one would notice."""
    where = re.escape(os.path.join(home.control, name))
    for line in bad:
        home.set(relay="on\n", **{name: "# words @ *\n\n%s\n" % line})
        p = home.tool("check")
        assert re.search("^%s:3: warning: expected " % where, p.text, re.M), (line, p.text)
        assert all(re.fullmatch(FINDING, x) for x in p.text.splitlines() if ": warning" in x)
    home.set(**{name: "".join(x + "\n" for x in good)})
    p = home.tool("check")
    assert not re.search("^%s:\\d+: warning" % where, p.text, re.M), p.text


@pytest.mark.parametrize("blocks,wide", [
    ("0.0.0.0/0\n", "0.0.0.0/0"), ("10.0.0.0/8\n128.0.0.0/7\n", "128.0.0.0/7"), ("::/0\n", "::/0"), ("2000::/15\n", "2000::/15"),
    ("10.0.0.0/8\n2001::/16\n192.0.2.0/24\n", None),
])
def test_check_of_an_open_relay(home, blocks, wide):
    home.set(relayclients=blocks)
    p = home.tool("check")
    found = re.findall(r"relayclients: warning: (\S+): so much of the Internet", p.text)
    assert found == ([wide] if wide else []), p.text
    assert "%d warning" % len(found) in p.text


def test_check_of_rules_for_everybody(home):
    rules = os.path.join(home.control, "tcp.smtp.cdb")
    for text, wide in ((':allow,RELAYCLIENT=""\n', True), ('127.:allow,RELAYCLIENT=""\n:allow\n', False), (':deny\n', False)):
        tools.tcprules(rules, text)
        assert ("tcp.smtp.cdb: warning: everybody may send" in home.tool("check").text) == wide


def test_check_of_the_certificate(home, scratch):
    """Expired, not valid yet, of another name: nothing the server would not use, but customers' programs will complain."""
    cert, key = os.path.join(home.control, "servercert.pem"), os.path.join(home.control, "serverkey.pem")
    ca = remote.Authority(os.path.join(scratch, "ca"))
    day = lambda n: time.strftime("%Y%m%d000000Z", time.gmtime(time.time() + n * 86400))
    for name, days, want in (("mail.example.net", (day(-9), day(-2)), "is not valid at this date; its end is "), ("mail.example.net", (day(-9), day(9)), None),
                             ("mail.example.net", (day(2), day(9)), "is not valid at this date; its end is "),
                             ("other.example.net", (day(-9), day(9)), "is for another name than control/me says, which is mail.example.net")):
        chain, its = ca.issue(name, days=days)
        tools.write(cert, tools.read(chain))
        tools.write(key, tools.read(its), 0o600)
        p = home.tool("check")
        found = re.findall(r"servercert\.pem: warning: (.*)", p.text)
        assert len(found) == (want is not None) and all(f.startswith(want) for f in found), p.text
        assert "%d warning" % len(found) in p.text


def test_check_of_names(home):
    """A file with a mistyped name is read by nobody; what nobody can mean is only noted. Kept files, and those that radius.conf names, are known."""
    names = {"userlimit": "userlimits", "recpthosts": "rcpthosts", "radius.cnf": "radius.conf", "smtprotes": "smtproutes", "m": "me"}
    for name, meant in names.items():
        home.set(**{name: "x\n"})
        p = home.tool("check")
        assert re.search(r"^%s: warning: is not read: .*; is it %s\?$" % (re.escape(os.path.join(home.control, name)), re.escape(meant)), p.text, re.M), p.text
        assert "0 errors, 1 warning\n" in p.text
        home.set(**{name: None})
    home.set(**{"some-notes.txt": "x\n"})
    p = home.tool("check")
    assert "some-notes.txt: note: is not read" in p.text and "0 errors, 0 warnings\n" in p.text
    home.set(**{"some-notes.txt": None, "concurrencylocal": "1\n", "timeoutsmtpd": "1\n", "databytes.old": "1\n", "badmailfrom.none": "", "me.last": "x\n",
                ".hidden": "x\n", "tcp.smtp": "\n", "badmailfrom": "\n"})
    assert "is not read" not in home.tool("check").text


def test_check_of_what_set_keeps(home):
    for value in ("1", "2"):
        home.tool("set", "databytes", value)
    home.tool("unset", "databytes")
    assert "is not read" not in home.tool("check").text


@pytest.mark.parametrize("name", ["rcpthosts", "userlimits", "databytes"])
def test_check_of_a_byte_order_mark(home, name):
    home.set(**{name: b"\xef\xbb\xbf# words\n"})
    p = home.tool("check", check=False)
    assert p.returncode == 1 and "%s:1: error: begins with a byte order mark" % os.path.join(home.control, name) in p.text


@pytest.mark.parametrize("line", ["authserver 127.0.0.1:1812", "acctserver 127.0.0.1:1813", "auth_order radius,local", "dictionary /etc/dictionary",
                                  "nologin /etc/nologin", "servers /etc/radiusclient/servers"])
def test_check_of_another_radius_conf(home, line):
    """radiusclient's own file has lines of two words, too, and no server is called so."""
    home.set(**{"radius.conf": "# mine\n%s\n" % line})
    p = home.tool("check", check=False)
    assert p.returncode == 1 and "radius.conf:2: error: this is a line of another program's file; expected only servers, " in p.text
    assert "1 error, 0 warnings" in p.text and not re.search(re.escape(line.split()[1]) + r"(?!\d)", p.text)  # a port of ours may begin like it


def test_check_shows_what_there_is(home):
    home.set(listen="submission 587\nsubmissions [::1]:465\nsmtp 127.0.0.1:25\n",
             **{"radius.conf": "127.0.0.1:1812 0123456789abcdef acct\nradius.example 0123456789abcdef\n"})
    p = home.tool("check")
    assert "\nlistens: submission *:587, submissions [::1]:465, smtp 127.0.0.1:25\n" in "\n" + p.text
    assert "\nRADIUS: 127.0.0.1 port 1812 (accounting 1813), radius.example port 1812\n" in p.text
    assert "0123456789abcdef" not in p.text


@pytest.mark.parametrize("name,content,told", [
    ("radius.conf", "127.0.0.1\n", "radius.conf: note: nobody can log in until this is mended"),
    ("userlimits", "joe;day=2\n", "userlimits: note: nobody can log in until this is mended"),
    ("smtproutes", "a:b:c:d\n", "note: nothing is delivered until this is mended"),
])
def test_check_counts_each_fault_once(home, name, content, told):
    home.set(relay="on\n", locals="", **{name: content})
    p = home.tool("check", check=False)
    assert p.returncode == 1 and told in p.text and "\n1 error, 0 warnings\n" in p.text, p.text


@pytest.mark.root
def test_check_by_somebody_else(home):
    """Who may not look into the queue is not told to make one."""
    tools.run("sh", "-c", 'd=$1; while [ "$d" != / ]; do chmod o+x "$d"; d=${d%/*}; d=${d:-/}; done', "sh", home.home)
    p = tools.run("setpriv", "--reuid=65534", "--clear-groups", harness.BINARY, "check", "-H", home.home, check=False)
    assert p.returncode == 1 and "%s: error: only root may look into it: run this as root" % home.queue in p.text and "mkqueue" not in p.text, p.text
    assert "note: only root may read all of this: run check as root" in p.text
    assert "only root" not in home.tool("check").text


def test_check_of_no_deliveries(home):
    home.set(relay="on\n", concurrencyremote="0\n")
    assert "concurrencyremote:1: warning: is 0: nothing is delivered" in home.tool("check").text


@pytest.mark.parametrize("what,damage", [
    ("queue/lock/sendmutex", "rm"), ("queue/lock/trigger", "rm"), ("queue/bounce", "rmdir"), ("queue/pid", "rmdir"),
    pytest.param("queue/info", "chown root", marks=pytest.mark.root), pytest.param("queue/todo", "chown root", marks=pytest.mark.root),
    pytest.param("empty", "mkdir -m 777", marks=pytest.mark.root),
])
def test_check_sees_what_stops_delivery(home, what, damage):
    path = os.path.join(home.home, what)
    tools.run(*damage.split(), path)
    p = home.tool("check", check=False)
    assert p.returncode == 1 and re.search(r"^%s(/\d+)?: error: " % re.escape(path), p.text, re.M), p.text


def test_check_of_mail_that_nobody_delivers(home):
    """The name of this host is local unless there is a file that says otherwise, and without qmail nobody takes local mail."""
    home.set(relay="on\n")
    assert "mail for mail.example.net stays in the queue" in home.tool("check").text
    home.set(locals="")
    p = home.tool("check")
    assert "stays in the queue" not in p.text and "(all others): MX" in p.text


def test_check_shows_all_faults_at_once(home):
    home.set(me="", listen="x\n", spool="y\n", databytes="z\n")
    p = home.tool("check", check=False)
    assert len(re.findall(r": error: ", p.text)) >= 4


def test_check_of_nothing(scratch):
    p = tools.run(harness.BINARY, "check", "-H", os.path.join(scratch, "none"), check=False)
    assert p.returncode == 1 and "error" in p.text


def test_keygen(home):
    cert, key = (os.path.join(home.control, n) for n in ("servercert.pem", "serverkey.pem"))
    before = tools.read(key)
    assert home.tool("keygen", check=False).returncode == 100 and tools.read(key) == before
    p = home.tool("keygen", "-f")
    assert tools.read(key) != before and stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert tools.fingerprint(cert) in p.text.replace(":", "").lower()
    text = tools.run("openssl", "x509", "-in", cert, "-noout", "-text").text
    assert "DNS:mail.example.net" in text
    tools.run("openssl", "verify", "-CAfile", cert, "-verify_hostname", "mail.example.net", cert)
    assert tools.run("openssl", "x509", "-in", cert, "-noout", "-pubkey").text == tools.run("openssl", "pkey", "-in", key, "-pubout").text


@pytest.mark.parametrize("kind", ["ec", "ec384", "rsa"])
def test_request(home, kind):
    cert, key = (os.path.join(home.control, n) for n in ("servercert.pem", "serverkey.pem"))
    tools.make_certificate(cert, key, kind)
    before = tools.read(cert), tools.read(key)
    request = os.path.join(home.top, "request.pem")
    home.tool("keygen", "-r", request)
    assert (tools.read(cert), tools.read(key)) == before
    text = tools.run("openssl", "req", "-in", request, "-noout", "-verify", "-text").text
    assert "DNS:mail.example.net" in text and "verify OK" in text
    assert tools.run("openssl", "req", "-in", request, "-noout", "-pubkey").text == tools.run("openssl", "pkey", "-in", key, "-pubout").text


@pytest.mark.parametrize("name,ok", [("other.example.org", True), ("192.0.2.1", True), ("[IPv6:2001:db8::1]", True), ("two words", False),
                                     ("-", True), ("a" * 300, False), ("münchen.example", False)])
def test_names_of_certificates(home, name, ok):
    p = home.tool("keygen", "-f", "--", name, check=False)
    assert (p.returncode == 0) == ok, p.text
    tools.run("openssl", "x509", "-in", os.path.join(home.control, "servercert.pem"), "-noout", "-text")


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "x"], ["-n", "1001"], ["extra"], ["-Z"]])
def test_mkqueue_usage(home, words):
    assert home.tool("mkqueue", *words, check=False).returncode == 100


def test_mkqueue_makes_what_is_missing(home):
    os.rmdir(os.path.join(home.queue, "bounce"))
    os.unlink(os.path.join(home.queue, "lock", "trigger"))
    assert home.tool("mkqueue").returncode == 0
    assert stat.S_ISFIFO(os.stat(os.path.join(home.queue, "lock", "trigger")).st_mode)
