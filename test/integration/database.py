# SPDX-License-Identifier: MIT
"""
The set-up of contrib/freeradius, private: PostgreSQL on a Unix socket, FreeRADIUS with the files as they are shipped, and radclient. Real
mailstiles can be pointed at it: `conf` is their radius.conf.
"""

import glob
import os
import re
import signal
import socket
import subprocess

import radius
import tools

SECRET = "sQl-pEnny-stile-0123456789"
CONTRIB = os.path.join(tools.TREE, "contrib/freeradius")
PASSWORDS = {"alice": "wonder land", "bob": "bob-pw", "carol": "carol-pw", "dave": "dave-pw", "jürgen": "pässwörd€", "frank@isp.example": "frank-pw",
             "o'neil": "x'); drop table poppass; --"}

RADDB = """
raddbdir = %(dir)s
logdir = ${raddbdir}
radacctdir = ${raddbdir}
libdir = /usr/lib/freeradius
pidfile = ${raddbdir}/pid
log {
	destination = stdout
	auth = yes
}
security {
	reject_delay = 0
}
thread pool {
	start_servers = 4
	max_servers = 8
	min_spare_servers = 1
	max_spare_servers = 8
	max_requests_per_server = 0
}
modules {
	pap {
	}
	expr {
	}
	always handled {
		rcode = handled
	}
	always ok {
		rcode = ok
	}
	$INCLUDE ${raddbdir}/sql-mailstile
}
client loop {
	ipaddr = 127.0.0.1
	secret = %(secret)s
	require_message_authenticator = no
}
$INCLUDE ${raddbdir}/site-mailstile
"""


class Database:
    """A PostgreSQL of one's own, with the schema and some customers."""

    def __init__(self, work):
        self.dir = os.path.join(work, "pg")
        os.mkdir(self.dir, 0o700)
        self.bin = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
        self.process = None
        self.as_user = []
        if tools.ROOT:
            os.chown(self.dir, 65534, 65534)
            self.as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        tools.run(*self.as_user, self.bin + "/initdb", "-D", self.dir + "/data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
                  "--no-instructions", cwd="/")
        self.start()
        self.sql("create role freerad login", db="postgres")
        self.sql("create database qmail", db="postgres")
        self.schema()

    def start(self):
        with open(os.path.join(self.dir, "log"), "ab") as out:
            self.process = subprocess.Popen([*self.as_user, self.bin + "/postgres", "-D", self.dir + "/data", "-k", self.dir, "-c", "listen_addresses=",
                                             "-c", "fsync=off"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True)
        tools.poll(lambda: tools.run(*self.psql("postgres"), "-c", "select 1", check=False, cwd="/").returncode == 0, "PostgreSQL", every=0.1)

    def stop(self):
        """At once, as in a crash."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def psql(self, db, user="postgres"):
        return [*self.as_user, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", user, "-d", db]

    def sql(self, text, db="qmail", user="postgres", check=True):
        """Rows of the last statement, as lists of texts."""
        p = tools.run(*self.psql(db, user), "-c", text, check=check, cwd="/")
        return [line.split("|") for line in p.text.splitlines()] if check else p

    def schema(self):
        return tools.run(*self.psql("qmail"), "-f", "-", input=tools.read(os.path.join(CONTRIB, "schema.sql")), cwd="/")

    def reset(self, **limits):
        """Customers as at first, and nothing sent. `limits`: messages a day; others have 50."""
        text = "truncate poppass, sendcounts, mailstile_sessions, mailstile_recipients, mailstile_senders; delete from mailstile_limits where id > 0;"
        for n, (name, password) in enumerate(sorted(PASSWORDS.items()), 1):
            text += "insert into poppass values (%d, %s, %s, 'vmail', 'mail', '127.0.0.1', '/');" % (n, quote(name), quote(crypted(password)))
            if name in limits:
                text += "insert into mailstile_limits values (%d, %s);" % (n, limits[name])
        self.sql(text)

    def count(self, name):
        """(last_send, count, total_count) of a customer, or None; last_send as days before today."""
        rows = self.sql("select current_date - last_send, count, total_count from sendcounts join poppass using (id) where name = " + quote(name))
        return tuple(int(x) for x in rows[0]) if rows else None


def quote(text):
    return "'%s'" % text.replace("'", "''")


_crypted = {}


def crypted(password):
    """As the article's programs store them."""
    if password not in _crypted:
        _crypted[password] = tools.run("openssl", "passwd", "-6", "-salt", "saltsalt", "-stdin", input=password.encode() + b"\n").text.strip()
    return _crypted[password]


def free_pair():
    """A port for logins, with the next one for accounting, as 1812 and 1813."""
    while True:
        port = tools.free_port(socket.SOCK_DGRAM)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind(("127.0.0.1", port + 1))
            return port
        except OSError:
            continue


class SqlRadius(radius.Daemon):
    """FreeRADIUS with the shipped files; only where it listens and where the database is are our own."""

    new_session = True

    def __init__(self, work, database, name="sqlraddb"):
        self.dir = os.path.join(work, name)
        os.mkdir(self.dir, 0o755)
        self.auth = free_pair()
        self.acct = self.auth + 1
        self.conf = "127.0.0.1:%d %s\n" % (self.auth, SECRET)
        self.box = "127.0.0.1:%d %s acct=%d\n" % (self.auth, SECRET, self.acct)  # of a box that accounts
        self._copy("sql-mailstile", ("dbname=qmail", "host=%s dbname=qmail" % database.dir))
        self._copy("site-mailstile", ("ipaddr = *", "ipaddr = 127.0.0.1"), ("port = 1812\n", "port = %d\n" % self.auth),
                   ("port = 1813\n", "port = %d\n" % self.acct))  # a port of ours may begin like these
        tools.write(os.path.join(self.dir, "dictionary"), "$INCLUDE %s/dictionary.mailstile\n" % CONTRIB)
        # radclient wants the whole of it in one place.
        os.mkdir(os.path.join(self.dir, "client"))
        tools.write(os.path.join(self.dir, "client/dictionary"), "$INCLUDE /usr/share/freeradius/dictionary\n$INCLUDE %s/dictionary.mailstile\n" % CONTRIB)
        tools.write(os.path.join(self.dir, "radiusd.conf"), RADDB % {"dir": self.dir, "secret": SECRET})
        self.log = os.path.join(self.dir, "out")
        self.start()

    def _copy(self, name, *words):
        text = tools.read(os.path.join(CONTRIB, name)).decode()
        for old, new in words:
            assert old in text
            text = text.replace(old, new)
        tools.write(os.path.join(self.dir, name), text)

    def radclient(self, kind, attributes, tries=1, timeout=3):
        """{name: value} of the reply, with its code under "code"; None when there was none."""
        text = ",".join('%s="%s"' % (k, str(v).replace("\\", "\\\\").replace('"', '\\"')) for k, v in attributes.items())
        p = tools.run("radclient", "-x", "-r", str(tries), "-t", str(timeout), "-D", os.path.join(self.dir, "client"),
                      "127.0.0.1:%d" % (self.auth if kind == "auth" else self.acct), kind, SECRET, input=text.encode() + b"\n", check=False)
        m = re.search(r"^Received (\S+) Id .*\n((?:\t.*\n)*)", p.text, re.M)
        if m is None:
            assert "No reply" in p.text, p.text
            return None
        pairs = [line.strip().split(" = ", 1) for line in m.group(2).splitlines()]
        out = {k: v for k, v in pairs if k != "Mailstile-From"}
        senders = [v.strip('"') for k, v in pairs if k == "Mailstile-From"]
        if senders:
            out["Mailstile-From"] = sorted(senders)
        out["code"] = m.group(1)
        return out

    def login(self, user, password=None, nas="box1", **kw):
        password = PASSWORDS.get(user) if password is None else password
        return self.radclient("auth", {"User-Name": user, "User-Password": password, "NAS-Identifier": nas, "Service-Type": "Login-User",
                                       "Message-Authenticator": "0x00"}, **kw)

    def account(self, user, status, session, messages=None, nas="box1", delay=None, recipients=None, rejected=None, **kw):
        a = {"User-Name": user, "Acct-Status-Type": status, "Acct-Session-Id": session, "NAS-Identifier": nas, "Mailstile-Acct-Messages": messages,
             "Mailstile-Acct-Recipients": recipients, "Mailstile-Acct-Rejected": rejected, "Acct-Delay-Time": delay}
        return self.radclient("acct", {k: v for k, v in a.items() if v is not None}, **kw)
