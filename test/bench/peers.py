# SPDX-License-Identifier: MIT
"""
The other servers of `make bench`, as Debian packages them, told to keep what they accept. Where a choice of configuration costs time, the
cheaper one is taken. Logins go to the same RADIUS server as mailstile's, through PAM.
"""
import os
import shutil

from servers import DOMAIN, SECRET, Floor, Mailstile, Server, wait_for

MASTER_CF = """\
127.0.0.1:{smtp} inet n - n - - smtpd
127.0.0.1:{smtps} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""

# HOLD keeps the message from the queue manager, which would try to deliver it.
MAIN_CF = f"""\
compatibility_level = 3.6
myhostname = {DOMAIN}
mydestination = {DOMAIN}
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_client_restrictions = check_client_access static:HOLD
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
message_size_limit = 52428800
smtpd_tls_security_level = may
smtpd_tls_chain_files = /etc/ssl/bench/key.pem, /etc/ssl/bench/cert.pem
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = /etc/postfix/sasl
smtpd_sasl_security_options = noanonymous
"""


class Postfix(Server):
    name = "Postfix"
    instance = "postfix"  # of configuration and spool

    def __init__(self, root, radius):
        self.spool = tuple(f"var/spool/{self.instance}/{d}" for d in ("hold", "incoming", "active", "deferred", "defer"))
        super().__init__(root, radius)

    def configure(self):
        r, spool = self.root, "var/spool/" + self.instance
        where = "".join(f"{word}_directory = /{d}/{self.instance}\n" for word, d in (("queue", "var/spool"), ("data", "var/lib")))
        r.write(f"etc/{self.instance}/main.cf", MAIN_CF + where)
        r.write(f"etc/{self.instance}/master.cf", MASTER_CF.format(smtp=self.smtp, smtps=self.smtps))
        r.write("etc/postfix/sasl/smtpd.conf", "pwcheck_method: saslauthd\nsaslauthd_path: /run/saslauthd/mux\nmech_list: PLAIN\n")
        r.put_away(spool)
        r.directory(spool)
        for d in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"):
            r.directory(f"{spool}/{d}", "postfix", 0o700)
        r.directory(spool + "/pid", mode=0o755)
        r.directory(spool + "/maildrop", "postfix", 0o1730, "postdrop")
        r.directory(spool + "/public", "postfix", 0o2710, "postdrop")
        r.directory("var/lib/" + self.instance, "postfix")

    def argv(self):
        return ["/usr/lib/postfix/sbin/master", "-d", "-c", "/etc/" + self.instance]

    def started(self):
        # Postfix leaves passwords to this one.
        self.root.directory("run/saslauthd")
        self.root.popen(["/usr/sbin/saslauthd", "-a", "pam", "-n", "5", "-m", "/run/saslauthd"], self.cgroup)


DOVECOT_CONF = """\
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
passdb {
  driver = pam
  args = max_requests=1000000 smtp
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/
}
service auth {
  unix_listener auth-client {
    mode = 0666
  }
}
service auth-worker {
  user = root
}
"""


class PostfixDovecot(Postfix):
    """Postfix again, which leaves passwords to Dovecot."""

    name = "Postfix+Dovecot"
    only_logins = True
    instance = "postfix-dovecot"

    def configure(self):
        super().configure()
        r = self.root
        with open(r.path / "etc/postfix-dovecot/main.cf", "a") as f:
            f.write("smtpd_sasl_type = dovecot\nsmtpd_sasl_path = /run/dovecot/auth-client\n")
        r.write("etc/dovecot/dovecot.conf", DOVECOT_CONF)
        r.directory("run/dovecot")
        r.directory("var/lib/dovecot")

    def started(self):
        self.root.popen(["/usr/sbin/dovecot", "-F"], self.cgroup)
        wait_for((self.root.path / "run/dovecot/auth-client").is_socket, "Dovecot")


EXIM_CONF = """\
primary_hostname = {domain}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {smtp} : {smtps}
tls_on_connect_ports = {smtps}
tls_advertise_hosts = *
tls_certificate = /etc/ssl/bench/cert.pem
tls_privatekey = /etc/exim4/key.pem
tls_resumption_hosts = *
acl_smtp_rcpt = accept
acl_smtp_data = accept
acl_smtp_dkim = accept
dkim_verify_signers =
queue_only
no_message_logs
smtp_accept_max = 200
smtp_connect_backlog = 128
smtp_accept_max_per_connection = 0
message_size_limit = 52428800
log_file_path = syslog
no_syslog_duplication
no_syslog_timestamp
keep_environment =
exim_user = Debian-exim
exim_group = Debian-exim

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if pam{{$auth2:${{sg{{$auth3}}{{:}}{{::}}}}}}}}
  server_set_id = $auth2
"""


class Exim(Server):
    name = "Exim"
    spool = ("var/spool/exim4/input", "var/spool/exim4/msglog")
    # Exim keeps its 221 back for 200 ms from a client that does not close at once: it would look slow for being polite.
    load_words = ("-q",)
    files_each = 2

    def configure(self):
        r = self.root
        r.write("etc/exim4/exim4.conf", EXIM_CONF.format(domain=DOMAIN, smtp=self.smtp, smtps=self.smtps))
        shutil.copy(r.path / "etc/ssl/bench/key.pem", r.path / "etc/exim4/key.pem")
        os.chown(r.path / "etc/exim4/key.pem", 0, r.gid("Debian-exim"))
        os.chmod(r.path / "etc/exim4/key.pem", 0o640)
        r.put_away("var/spool/exim4")
        for d in ("", "/input", "/msglog", "/db"):
            r.directory("var/spool/exim4" + d, "Debian-exim", 0o750)
        r.directory("run/exim4", "Debian-exim")

    def argv(self):
        return ["/usr/sbin/exim4", "-bdf", "-oP", "/run/exim4/exim.pid"]


SMTPD_CONF = """\
listen on 127.0.0.1 port {smtp} hostname {domain}
action "out" relay host smtp://127.0.0.1:9
match from any for domain "{domain}" action "out"
"""


class Opensmtpd(Server):
    name = "OpenSMTPD"
    # Debian 12's 6.8.0 was written for OpenSSL 1.1 and finishes no handshake with OpenSSL 3, whatever the key.
    tls = login = False
    spool = ("var/spool/smtpd/queue",)
    files_each = 2

    def configure(self):
        r = self.root
        r.write("etc/smtpd.conf", SMTPD_CONF.format(domain=DOMAIN, smtp=self.smtp))
        r.write("etc/mailname", DOMAIN + "\n")
        r.put_away("var/spool/smtpd")
        r.directory("var/spool/smtpd", mode=0o711)
        r.directory("var/lib/opensmtpd/empty", mode=0o711)
        os.chown(r.path / "usr/sbin/smtpctl", 0, r.gid("opensmtpq"))
        os.chmod(r.path / "usr/sbin/smtpctl", 0o2755)

    def argv(self):
        return ["/usr/sbin/smtpd", "-F"]

    def started(self):
        self.root.run(["/usr/sbin/smtpctl", "pause", "mta"])

    def drain(self):
        # A directory for each message, in 256 that stay.
        for f in self.queued():
            os.truncate(f, 0)
        queue = self.root.path / self.spool[0]
        for d in os.listdir(queue):
            for message in os.listdir(queue / d):
                self.root.put_away(queue / d / message)


def pam(root, radius):
    """Who logs in to the peers is looked up in RADIUS."""
    root.write("etc/pam_radius_auth.conf", f"127.0.0.1:{radius.port} {SECRET} 5\n")
    for service in ("smtp", "exim", "other"):
        root.write("etc/pam.d/" + service, "auth required pam_radius_auth.so\naccount required pam_permit.so\n")


SERVERS = [Mailstile, Postfix, PostfixDovecot, Exim, Opensmtpd, Floor]
