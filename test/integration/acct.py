# SPDX-License-Identifier: MIT
"""Accounting servers: a FreeRADIUS that writes down what it is told, and a double that does what a test wants. Both answer logins, too."""

import hashlib
import os
import socket
import struct

import radius
import tools

SECRET = radius.SECRET
STATUS, DELAY, OCTETS, SESSION, TIME, CAUSE, TIMESTAMP = 40, 41, 42, 44, 46, 49, 55
START, STOP, INTERIM, ON, OFF = 1, 2, 3, 7, 8
VENDOR = 65530

RADDB = """
raddbdir = %(dir)s
logdir = ${raddbdir}
radacctdir = ${raddbdir}
libdir = /usr/lib/freeradius
pidfile = ${raddbdir}/pid
log {
	destination = stdout
}
security {
	reject_delay = 0
}
modules {
	pap {
	}
	files {
		usersfile = ${raddbdir}/users
	}
	detail seen {
		filename = ${raddbdir}/seen
		header = "%%t"
	}
}
client loop {
	ipaddr = 127.0.0.1
	secret = %(secret)s
	require_message_authenticator = no
}
server both {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %(auth)d
	}
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = %(acct)d
	}
	authorize {
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
	}
	post-auth {
		update reply {
			Message-Authenticator := 0x00
		}
		Post-Auth-Type REJECT {
			update reply {
				Message-Authenticator := 0x00
			}
		}
	}
	accounting {
		seen
	}
}
"""


class AcctRadius(radius.Daemon):
    def __init__(self, work, name="acctraddb"):
        self.dir = os.path.join(work, name)
        os.mkdir(self.dir, 0o700)
        self.auth, self.acct = (tools.free_port(socket.SOCK_DGRAM) for _ in range(2))
        self.conf = "127.0.0.1:%d %s acct=%d\n" % (self.auth, SECRET, self.acct)
        tools.write(os.path.join(self.dir, "radiusd.conf"), RADDB % {"dir": self.dir, "secret": SECRET, "auth": self.auth, "acct": self.acct})
        tools.write(os.path.join(self.dir, "users"), radius.users_file(radius.USERS))
        tools.write(os.path.join(self.dir, "dictionary"), "$INCLUDE %s\n" % os.path.join(tools.TREE, "contrib/freeradius/dictionary.mailstile"))
        self.log = os.path.join(self.dir, "out")
        self.start()

    def records(self, status=None, **want):
        """What it was told, oldest first, as {attribute: value}."""
        out = []
        for record in radius.detail(os.path.join(self.dir, "seen")):
            pairs = {}
            for k, v in record:
                pairs[k] = pairs[k] + "|" + v if k in pairs else v
            if pairs and status in (None, pairs["Acct-Status-Type"]) and all(pairs.get(k.replace("_", "-")) == v for k, v in want.items()):
                out.append(pairs)
        return out


class AcctDouble(radius.Double):
    """Accepts every login with `accept` attributes; accounting is `told`, and acknowledged when `well` is set, with `extra` attributes."""

    def __init__(self, accept=(), well=True):
        self.accept, self.well, self.extra = list(accept), well, []
        self.allowance = None  # messages that sessions may send, of which each answer says what is left
        super().__init__(self._answer)

    def _answer(self, request, _):
        if request.code == 1:
            return request.reply(radius.ACCEPT, self.accept)
        assert request.code == 4
        blank = request.raw[:4] + bytes(16) + request.raw[20:]
        assert hashlib.md5(blank + self.secret.encode()).digest() == request.authenticator, "RFC 2866 3"
        if self.allowance is not None and number(request, STATUS) in (INTERIM, STOP):
            self.extra = [vendor(1, max(self.allowance - ours(request, 16), 0))]
        return self.acknowledge(request) if self.well else None

    def acknowledge(self, request, **kw):
        return request.reply(5, self.extra, signed=False, **kw)

    @property
    def told(self):
        return [r for r in self.requests if r.code == 4]

    def of(self, kind):
        return [r for r in self.told if number(r, STATUS) == kind]

    def conf(self, words="1 1"):
        return self.line("%s acct=%d" % (words, self.port))


def number(request, kind):
    (value,) = request.get(kind)
    return struct.unpack("!L", value)[0]


def ours(request, kind):
    """The number in a vendor's attribute of ours."""
    (value,) = [v[6:] for v in request.get(26) if v[:5] == struct.pack("!LB", VENDOR, kind)]
    return struct.unpack("!L", value)[0]


def vendor(kind, value):
    return (26, struct.pack("!LBBL", VENDOR, kind, 6, value))
