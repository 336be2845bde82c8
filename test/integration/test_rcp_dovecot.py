# SPDX-License-Identifier: MIT
"""A real Dovecot that asks radcheckpassword: POP3 and IMAP, as root with mailboxes of one user, and all of it as one user without root."""

import imaplib
import os
import poplib
import subprocess

import pytest

import harness
import tools
from radius import PASSWORD, SECRET

pytestmark = [pytest.mark.release]

CONF = """
protocols = imap pop3
listen = 127.0.0.1
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
auth_verbose = yes
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {login}
default_vsz_limit = 0
first_valid_uid = 1
first_valid_gid = 1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_debug = yes
mail_location = maildir:~/Maildir
service imap-login {{
	chroot =
	inet_listener imap {{
		port = {imap}
	}}
	inet_listener imaps {{
		port = 0
	}}
}}
service pop3-login {{
	chroot =
	inet_listener pop3 {{
		port = {pop3}
	}}
	inet_listener pop3s {{
		port = 0
	}}
}}
service anvil {{
	chroot =
	unix_listener anvil-auth-penalty {{
		mode = 0
	}}
}}
service stats {{
	chroot =
}}
{auth}
passdb {{
	driver = checkpassword
	args = {env}{binary} radcheckpassword -e -H {home}
}}
userdb {{
	driver = prefetch
}}
"""
# Root is needed for the secret and for the mailboxes. Dovecot's helper then finds itself with another uid, and wants to hear that this is meant;
# whoever is that user could make it say another uid, so no other is allowed.
AS_ROOT = """
service auth {
	user = root
}
last_valid_uid = %d
"""


class Dovecot:
    """One with its files in a directory of its own; the mailboxes of alice and frank@isp.example hold a message each."""

    def __init__(self, work, house, radius_conf, root):
        self.server = harness.Server(work, house, radius_conf, start=False)
        self.dir = os.path.join(self.server.top, "dovecot")
        self.imap, self.pop3 = tools.free_port(), tools.free_port()
        self.ids = (harness.USERS["vmail"], harness.GROUPS["vmail"]) if root else (65534, 65534)
        os.mkdir(self.dir)
        users = {"user": "qmaill", "group": "nofiles", "login": "qmailp", "auth": AS_ROOT % harness.USERS["vmail"], "env": "/usr/bin/env INSECURE_SETUID=1 "}
        if not root:
            users = {"user": "nobody", "group": "nogroup", "login": "nobody", "auth": "", "env": ""}
        conf = tools.write(os.path.join(self.dir, "conf"), CONF.format(dir=self.dir, imap=self.imap, pop3=self.pop3, binary=self.server.binary,
                                                                       home=self.server.home, **users))
        for name in ("alice", "frank@isp.example"):
            box = os.path.join(self.server.home, "vmail", name)
            for sub in ("new", "cur", "tmp"):
                os.makedirs(os.path.join(box, "Maildir", sub))
            tools.write(os.path.join(box, "Maildir/new/1.x"), "From: a@far.example\nSubject: for %s\n\nhello\n" % name)
            for where, _, names in os.walk(box):
                for n in [".", *names]:
                    os.chown(os.path.join(where, n), *self.ids)
        argv = ["dovecot", "-F", "-c", conf]
        if root:
            argv = house.argv(argv)
        else:
            tools.run("chown", "-R", "65534:65534", self.dir, self.server.home)
            argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
        with open(os.path.join(self.dir, "out"), "wb") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=harness.environment(), start_new_session=True)
        tools.poll(self._up, "Dovecot")

    def _up(self):
        assert self.process.poll() is None, self.log()
        for port in (self.imap, self.pop3):
            try:
                (imaplib.IMAP4 if port == self.imap else poplib.POP3)("127.0.0.1", port, timeout=10)
            except OSError:
                return False
        return True

    def log(self):
        return "".join(tools.read(os.path.join(self.dir, f)).decode("utf-8", "replace")
                       for f in ("out", "log") if os.path.exists(os.path.join(self.dir, f)))

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module", params=[pytest.param(True, id="root", marks=pytest.mark.root), pytest.param(False, id="nobody", marks=pytest.mark.root)])
def dovecot(request, work, house, radius_conf):
    d = Dovecot(work, house, radius_conf, request.param)
    yield d
    d.stop()


def pop3(dovecot, user, password):
    c = poplib.POP3("127.0.0.1", dovecot.pop3, timeout=60)
    try:
        c.user(user)
        c.pass_(password)
        number, _ = c.stat()
        text = b"\n".join(c.retr(1)[1])
        c.quit()
    finally:
        c.close()
    return number, text.decode()


def imap(dovecot, user, password):
    with imaplib.IMAP4("127.0.0.1", dovecot.imap, timeout=60) as c:
        c.login(user, password)
        number = int(c.select()[1][0])
        text = c.fetch("1", "(RFC822)")[1][0][1].decode()
        c.append("INBOX", None, None, b"Subject: kept\r\n\r\nx\r\n")
    return number, text


def fails(way, *login):
    """What the customer reads."""
    with pytest.raises((poplib.error_proto, imaplib.IMAP4.error)) as e:
        way(*login)
    return str(e.value)


@pytest.mark.parametrize("user", ["alice", "frank@isp.example"])
def test_right(dovecot, user):
    for way in (pop3, imap):
        number, text = way(dovecot, user, PASSWORD[user])
        assert number == 1 and "Subject: for " + user in text, dovecot.log()
    # What Dovecot has written belongs to the user of the mailboxes.
    box = os.path.join(dovecot.server.home, "vmail", user, "Maildir")
    written = [os.stat(os.path.join(box, d, f)) for d in ("new", "cur") for f in os.listdir(os.path.join(box, d))]
    assert len(written) == 2 and {(s.st_uid, s.st_gid) for s in written} == {dovecot.ids}


def test_wrong(dovecot):
    """A wrong password is said to be one, and Dovecot's log has no trouble to tell of."""
    cases = [(way, *login) for way in (pop3, imap) for login in
             (("alice", "wonder lan"), ("bob", "not his"), ("nobody", "no one"), ("../alice", "wonder land"), ("alice", "x" * 129))]
    crowd = tools.Crowd({c: lambda c=c: fails(c[0], dovecot, *c[1:]) for c in cases})
    for c in cases:
        assert "AUTHENTICATIONFAILED" in crowd[c] or "[AUTH] Authentication failed" in crowd[c], (c, crowd[c])


def test_nobody_answers(dovecot, radius_conf):
    """A temporary failure, not a wrong password."""
    dovecot.server.set(**{"radius.conf": "127.0.0.1:%d %s 1 0\n" % (tools.free_port(), SECRET)})
    if dovecot.ids[0] == 65534:
        os.chown(os.path.join(dovecot.server.control, "radius.conf"), *dovecot.ids)
    try:
        crowd = tools.Crowd({way: lambda way=way: fails(way, dovecot, "alice", PASSWORD["alice"]) for way in (pop3, imap)})
        assert "[SYS/TEMP]" in crowd[pop3] and "[UNAVAILABLE]" in crowd[imap]
    finally:
        dovecot.server.set(**{"radius.conf": radius_conf})
        if dovecot.ids[0] == 65534:
            os.chown(os.path.join(dovecot.server.control, "radius.conf"), *dovecot.ids)


def test_attributes(dovecot, freeradius):
    """Dovecot tells where the client is."""
    before = len(freeradius.requests(calling="127.0.0.1"))
    pop3(dovecot, "alice", PASSWORD["alice"])
    seen = freeradius.requests(calling="127.0.0.1")[before:]
    assert seen and seen[-1]["Called-Station-Id"].startswith("checkpassword 127.0.0.1")


def test_log(dovecot):
    """What it writes to standard error is in Dovecot's log, and no password or secret anywhere near."""
    text = dovecot.log()
    assert "ev=auth " in text and "mech=checkpassword result=accept" in text and "result=reject" in text
    assert SECRET not in text and PASSWORD["alice"] not in text
