# SPDX-License-Identifier: MIT
"""A FreeRADIUS that listens for TLS (RFC 6614), and on UDP for Status-Server; and a double that speaks TLS and lies."""

import os
import socket
import ssl
import struct
import threading

import radius
import tools

SECRET = "radsec"
STATUS_SERVER, ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE = 12, 4, 5

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
	status_server = yes
}
thread pool {
	start_servers = 2
	max_servers = 8
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
clients loop {
	client loop {
		ipaddr = 127.0.0.1
		proto = tls
		secret = radsec
	}
}
client udp {
	ipaddr = 127.0.0.1
	secret = %(secret)s
	require_message_authenticator = no
}
server both {
	listen {
		type = auth+acct
		ipaddr = 127.0.0.1
		port = %(port)d
		proto = tcp
		clients = loop
		limit {
			max_connections = 64
			lifetime = 0
			idle_timeout = %(idle)d
		}
		tls {
			private_key_file = %(key)s
			certificate_file = %(cert)s
			ca_file = %(ca)s
			tls_min_version = "1.2"
			tls_max_version = "1.3"
			ecdh_curve = "prime256v1:secp384r1"
			require_client_cert = %(require)s
		}
	}
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %(udp)d
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


class TlsRadius(radius.Daemon):
    """FreeRADIUS over TLS with `chain`, from authority `ca`, which also vouches for clients if `require` says so."""

    records = None

    def __init__(self, work, ca, name="radsec", chain=None, require=False, idle=30):
        self.dir = os.path.join(work, name)
        os.mkdir(self.dir, 0o700)
        self.ca = ca
        self.port = tools.free_port()
        self.udp = tools.free_port(socket.SOCK_DGRAM)
        self.cert, key = chain or ca.issue("radius.example.net")
        tools.write(os.path.join(self.dir, "radiusd.conf"), RADDB % {
            "dir": self.dir, "secret": radius.SECRET, "port": self.port, "udp": self.udp, "key": key, "cert": self.cert, "ca": ca.cert,
            "require": "yes" if require else "no", "idle": idle})
        tools.write(os.path.join(self.dir, "users"), radius.users_file(radius.USERS))
        tools.write(os.path.join(self.dir, "dictionary"), "$INCLUDE %s\n" % os.path.join(tools.TREE, "contrib/freeradius/dictionary.mailstile"))
        self.log = os.path.join(self.dir, "out")
        self.start()

    def line(self, words, before="2 0"):
        return "127.0.0.1:%d %s %s %s\n" % (self.port, SECRET, before, words)

    def verified(self, words="", **kw):
        return self.line("tls,ca=%s,name=radius.example.net%s" % (self.ca.cert, words), **kw)


class TlsDouble:
    """A TLS server that hands each packet to answer(self, connection, packet), in a thread for each connection."""

    def __init__(self, chain, answer=None, port=0):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*chain)
        self.answer = answer or TlsDouble.accept
        self.got = []
        self.connections = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(s,), daemon=True).start()

    def _one(self, s):
        try:
            with self.context.wrap_socket(s, server_side=True) as c:
                self.connections.append(c)
                data = b""
                while True:
                    more = c.recv(4096)
                    if not more:
                        return
                    data += more
                    while len(data) >= 4 and len(data) >= struct.unpack(">H", data[2:4])[0]:
                        n = struct.unpack(">H", data[2:4])[0]
                        packet, data = data[:n], data[n:]
                        request = radius.Request(packet, None, SECRET, None)
                        with self.lock:
                            self.got.append(request)
                        self.answer(self, c, request)
        except (OSError, ssl.SSLError):
            pass

    @staticmethod
    def accept(_, connection, request):
        connection.sendall(request.reply(radius.ACCEPT))

    def logins(self):
        return [r for r in self.got if r.raw[0] == radius.ACCESS_REQUEST]

    def probes(self):
        return [r for r in self.got if r.raw[0] == STATUS_SERVER]

    def line(self, words, before="1 0"):
        return "127.0.0.1:%d %s %s %s\n" % (self.port, SECRET, before, words)

    def cut(self):
        """End all connections; their threads close them."""
        for c in self.connections:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.listener.close()
        self.cut()
