# SPDX-License-Identifier: MIT
"""Real mail programs, over STARTTLS and implicit TLS, with both login mechanisms: what they send is what is stored."""

import os
import smtplib
import subprocess

import pytest

import radius
import smtpc
import tools

MESSAGE = ("From: Alice <alice@client.example>\n"
           "To: You <you@far.example>\n"
           "Date: Sun, 22 Nov 2026 10:00:00 +0000\n"
           "Message-ID: <clients@client.example>\n"
           "Subject: =?utf-8?q?J=C3=BCrgen?=\n"
           "MIME-Version: 1.0\n"
           "Content-Type: text/plain; charset=utf-8\n"
           "Content-Transfer-Encoding: 8bit\n"
           "\n"
           "Grüße.\n"
           ".\n"
           "..two dots, and a dot alone above\n"
           ".hidden\n"
           "\n"
           "trailing space \n"
           "\ttab\n"
           "From the start of a line\n"
           + "long " * 180 + "\n"
           "end\n").encode()
WIRE = MESSAGE.replace(b"\n", b"\r\n")
SENDER, RCPTS = "alice@client.example", ["you@far.example", "they@else.example"]
USER, PASSWORD = "alice", radius.PASSWORD["alice"]

both_ports = pytest.mark.parametrize("profile", ["submission", "submissions"])
both_mechanisms = pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])


def check(server, mechanism=None, data=MESSAGE, rcpts=None):
    (m,) = server.take()
    assert m.body == data
    assert m.sender == SENDER.encode()
    assert m.rcpts == [r.encode() for r in rcpts or RCPTS]
    assert "ESMTPSA" in m.received and "(alice@" in m.received
    if mechanism:
        event = server.log("auth", result="accept")[-1]
        assert event["user"] == USER and event["mech"].upper() == mechanism
    event = server.log("accept")[-1]
    assert (event["qid"], event["qp"], event["user"]) == (str(m.id), str(m.envelope.pid), USER)
    assert event["from"] == "<%s>" % SENDER and event["rcpts"] == str(len(m.rcpts)) and event["proto"] == "ESMTPSA"


def cafile(server):
    return os.path.join(server.control, "servercert.pem")


@both_ports
@both_mechanisms
def test_smtplib(server, profile, mechanism):
    port, context = server.port[profile], server.context()
    context.check_hostname = False
    source = (tools.fresh_address(), 0)
    if profile == "submissions":
        s = smtplib.SMTP_SSL("127.0.0.1", port, context=context, source_address=source)
    else:
        s = smtplib.SMTP("127.0.0.1", port, source_address=source)
        s.starttls(context=context)
    with s:
        s.ehlo()
        s.user, s.password = USER, PASSWORD
        code, _ = s.auth(mechanism, s.auth_plain if mechanism == "PLAIN" else s.auth_login)
        assert code == 235
        assert s.sendmail(SENDER, RCPTS, WIRE, mail_options=["BODY=8BITMIME"]) == {}
    check(server, mechanism)


@both_ports
@both_mechanisms
def test_swaks(server, scratch, profile, mechanism):
    path = tools.write(os.path.join(scratch, "m"), MESSAGE)
    tls = ["--tls-on-connect"] if profile == "submissions" else ["--tls"]
    p = tools.run("swaks", "--server", "127.0.0.1", "--port", str(server.port[profile]),
                  "--local-interface", tools.fresh_address(), *tls, "--tls-ca-path", cafile(server),
                  "--tls-sni", "mail.example.net", "--auth", mechanism, "--auth-user", USER,
                  "--auth-password", PASSWORD, "--from", SENDER, "--to", ",".join(RCPTS),
                  "--helo", "client.example", "--data", "@" + path, "--pipeline")
    assert "235 2.7.0" in p.text
    # swaks ends every message with an empty line more.
    (m,) = server.messages()
    assert m.body in (MESSAGE, MESSAGE + b"\n")
    check(server, mechanism, m.body)


def test_swaks_is_told_of_a_wrong_password(server):
    p = tools.run("swaks", "--server", "127.0.0.1", "--port", str(server.port["submissions"]), "--tls-on-connect",
                  "--local-interface", tools.fresh_address(), "--auth", "PLAIN", "--auth-user", USER,
                  "--auth-password", "wrong", "--from", SENDER, "--to", RCPTS[0], check=False)
    assert "535 5.7.8" in p.text and p.returncode == 28  # 28: authentication failed
    server.assert_nothing()


@both_ports
@both_mechanisms
def test_curl(server, scratch, profile, mechanism):
    path = tools.write(os.path.join(scratch, "m"), WIRE)
    scheme = "smtps" if profile == "submissions" else "smtp"
    tools.run("curl", "--silent", "--show-error", "--url", "%s://mail.example.net:%d/client.example"
              % (scheme, server.port[profile]), "--resolve", "mail.example.net:%d:127.0.0.1" % server.port[profile],
              "--interface", tools.fresh_address(), "--ssl-reqd", "--cacert", cafile(server), "--user", "%s:%s" % (USER, PASSWORD),
              "--login-options", "AUTH=" + mechanism, "--mail-from", SENDER, "--mail-rcpt", RCPTS[0],
              "--mail-rcpt", RCPTS[1], "--upload-file", path)
    check(server, mechanism)


@both_ports
@both_mechanisms
def test_msmtp(server, scratch, profile, mechanism):
    conf = tools.write(os.path.join(scratch, "rc"), "", 0o600)
    tools.run("msmtp", "--file=" + conf, "--host=127.0.0.1", "--port=%d" % server.port[profile],
              "--source-ip=" + tools.fresh_address(), "--tls=on", "--domain=client.example",
              "--tls-starttls=%s" % ("off" if profile == "submissions" else "on"), "--tls-trust-file=" + cafile(server),
              "--tls-host-override=mail.example.net", "--auth=" + mechanism.lower(), "--user=" + USER,
              "--passwordeval=echo '%s'" % PASSWORD, "--from=" + SENDER, *RCPTS, input=MESSAGE)
    check(server, mechanism)


class SClient:
    """openssl s_client as a line-by-line client."""

    def __init__(self, server, profile, *words):
        starttls = ["-starttls", "smtp"] if profile != "submissions" else []
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port[profile], "-CAfile", cafile(server),
             "-verify_return_error", "-verify_hostname", "mail.example.net", "-quiet", "-crlf", *starttls, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def reply(self):
        out = b""
        while True:
            line = self.process.stdout.readline()
            assert line, "closed after %r: %r" % (out, self.process.stderr.read())
            out += line
            if line[3:4] == b" ":
                return out

    def cmd(self, line, code):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        out = self.reply()
        assert out.startswith(code.encode()), out
        return out

    def finish(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.wait(20)


@both_ports
@both_mechanisms
def test_s_client(server, profile, mechanism):
    s = SClient(server, profile)
    if profile == "submissions":
        assert s.reply().startswith(b"220 ")
    s.cmd("EHLO client.example", "250")
    if mechanism == "PLAIN":
        s.cmd("AUTH PLAIN " + smtpc.b64("\0%s\0%s" % (USER, PASSWORD)), "235")
    else:
        s.cmd("AUTH LOGIN", "334 VXNlcm5hbWU6")
        s.cmd(smtpc.b64(USER), "334 UGFzc3dvcmQ6")
        s.cmd(smtpc.b64(PASSWORD), "235")
    s.cmd("MAIL FROM:<%s> BODY=8BITMIME" % SENDER, "250")
    for rcpt in RCPTS:
        s.cmd("rcpt to:<%s>" % rcpt, "250")
    s.cmd("DATA", "354")
    stuffed = smtpc.stuff(WIRE).replace(b"\r\n", b"\n")
    s.process.stdin.write(stuffed)
    s.cmd(".", "250")
    s.cmd("QUIT", "221")
    s.finish()
    check(server, mechanism)
