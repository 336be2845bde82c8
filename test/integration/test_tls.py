# SPDX-License-Identifier: MIT
"""TLS: versions, suites, certificates, resumption, and what must not get through STARTTLS (RFC 3207, CVE-2011-0411)."""

import os
import re
import socket
import ssl
import subprocess
import time

import pytest

import smtpc
import tools


def s_client(server, profile, *words, send=b"QUIT\r\n", name="mail.example.net"):
    """openssl s_client; returns its output. Old versions and weak suites are let through on this side."""
    starttls = ["-starttls", "smtp"] if profile != "submissions" else []
    p = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port[profile], "-crlf", "-CAfile",
                        os.path.join(server.control, "servercert.pem"), "-servername", name, *starttls, *words],
                       input=send, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return p.stdout.decode("utf-8", "replace")


def suite(output):
    m = re.search(r"Cipher +: (\S+)", output)
    return m.group(1) if m and m.group(1) not in ("0000", "(NONE)") else None


KINDS = ["ec", "ec384", "rsa", "rsa3072"]


@pytest.fixture(scope="module")
def tls_servers(work, house, radius_conf):
    """A server for each kind of certificate, started when first asked for."""
    import harness
    made = {}

    def get(kind):
        if kind not in made:
            def prepare(s):
                tools.make_certificate(os.path.join(s.control, "servercert.pem"), os.path.join(s.control, "serverkey.pem"), kind)
            made[kind] = harness.Server(work, house, radius_conf, prepare=prepare)
        return made[kind]
    yield get
    for s in made.values():
        s.stop()


# ---- Certificates ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", ["submission", "submissions"])
def test_certificates(tls_servers, kind, profile):
    server = tls_servers(kind)
    with server.session(profile) as c:
        assert c.sock.version() == "TLSv1.2"
        server.message(c.mail())
    server.take()


def test_first_start_makes_a_certificate(server):
    """Made on the device, valid for this host by name, verified by a client that trusts it, key readable by its owner only."""
    cert, key = (os.path.join(server.control, n) for n in ("servercert.pem", "serverkey.pem"))
    assert os.stat(key).st_mode & 0o7777 == 0o600
    text = tools.run("openssl", "x509", "-in", cert, "-noout", "-text").text
    assert "CN = mail.example.net" in text and "DNS:mail.example.net" in text
    assert "Public-Key: (256 bit)" in text and "ecdsa-with-SHA256" in text
    with server.session("submissions", login=None) as c:
        der = c.sock.getpeercert(True)
    assert der == ssl.PEM_cert_to_DER_cert(tools.read(cert).decode())
    out = s_client(server, "submission", "-verify_return_error", "-verify_hostname", "mail.example.net")
    assert "Verify return code: 0 (ok)" in out


def test_a_chain_is_sent_whole(make_server, scratch):
    """Leaf first, then what else servercert.pem holds."""
    def path(name):
        return os.path.join(scratch, name)

    def prepare(s):
        tools.make_certificate(path("ca.pem"), path("ca.key"), "ec", "Test CA")
        tools.run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=mail.example.net",
                  "-keyout", path("leaf.key"), "-out", path("leaf.csr"))
        tools.write(path("ext"), "subjectAltName=DNS:mail.example.net\n")
        tools.run("openssl", "x509", "-req", "-in", path("leaf.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
                  "-days", "5", "-extfile", path("ext"), "-out", path("leaf.pem"))
        s.set(**{"servercert.pem": tools.read(path("leaf.pem")) + tools.read(path("ca.pem")),
                 "serverkey.pem": tools.read(path("leaf.key"))})
    server = make_server(prepare=prepare)
    out = s_client(server, "submissions", "-showcerts", "-CAfile", path("ca.pem"), "-verify_return_error")
    assert out.count("BEGIN CERTIFICATE") >= 2 and "Verify return code: 0 (ok)" in out


def test_reload_changes_the_certificate(make_server):
    """HUP: new sessions get the new certificate; running ones go on."""
    server = make_server()
    cert, key = (os.path.join(server.control, n) for n in ("servercert.pem", "serverkey.pem"))
    old = server.session("submissions")
    with server.connect("submissions") as c:
        assert c.sock.getpeercert(True) == ssl.PEM_cert_to_DER_cert(tools.read(cert).decode())
    for kind in ("rsa", "ec"):
        tools.make_certificate(cert, key, kind)
        want = ssl.PEM_cert_to_DER_cert(tools.read(cert).decode())
        server.reload()
        with server.connect("submissions") as c:
            assert c.sock.getpeercert(True) == want
    old.mail()
    old.quit()
    server.take()


@pytest.mark.parametrize("fault", ["no key", "other key", "garbage", "empty"])
def test_bad_certificates_offer_no_tls(make_server, fault):
    """Without a good pair there is no TLS, no AUTH, and no mail on 587; port 25 works on; `check` says what is wrong."""
    def prepare(s):
        cert, key = (os.path.join(s.control, n) for n in ("servercert.pem", "serverkey.pem"))
        tools.make_certificate(cert, key)
        if fault == "no key":
            os.unlink(key)
        elif fault == "other key":
            tools.make_certificate(cert + ".other", key)
        else:
            tools.write(cert, "garbage\n" if fault == "garbage" else "")
    server = make_server(prepare=prepare)
    with server.session("submission", login=None, tls=False) as c:
        assert "STARTTLS" not in c.keywords and "AUTH" not in c.keywords
        c.cmd("STARTTLS", (454, 502))
        c.cmd("MAIL FROM:<me@client.example>", 530)
    with server.session("smtp") as c:
        c.mail(rcpts=["you@local.example"])
    server.take()
    p = server.tool("check", check=False)
    assert p.returncode == 1 and re.search(r"server(cert|key)\.pem(:\d+)?: error: ", p.text)


# ---- Versions and suites ---------------------------------------------------------------------------------------------

WEAK = ["-cipher", "ALL:@SECLEVEL=0"]


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_3"])
@pytest.mark.parametrize("profile", ["submission", "submissions"])
def test_other_versions_are_refused(server, profile, version):
    mark = len(server.log())
    words = [version] + (WEAK if version != "-tls1_3" else [])
    out = s_client(server, profile, *words)
    assert suite(out) is None and "no peer certificate available" in out, out
    # The record of the alert had version 0: "wrong version number".
    assert version == "-tls1_3" or "alert protocol version" in out, out
    # Told by an alert: protocol_version (70), or, to a client that only knows 1.3's suites, handshake_failure (40).
    (event,) = tools.poll(lambda: [e for e in server.log()[mark:] if e["ev"] == "note"], "ev=note")
    assert event["kind"] == "tls-failed" and int(event["number"]) - 512 in (70, 40)


def test_tls_1_2_is_spoken(server):
    out = s_client(server, "submissions", "-tls1_2")
    assert re.search(r"Protocol +: TLSv1\.2", out) and suite(out)
    out = s_client(server, "submissions")  # a client that would rather have 1.3
    assert re.search(r"Protocol +: TLSv1\.2", out) and suite(out)


GOOD = {"ec": ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        "rsa": ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]}
BAD = {"ec": ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384", "AES128-SHA", "ECDH-ECDSA-AES128-SHA"],
       "rsa": ["AES128-SHA", "AES256-SHA", "AES128-SHA256", "AES128-GCM-SHA256", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA",
               "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES128-GCM-SHA256", "AES128-CCM", "NULL-SHA", "AECDH-AES128-SHA"]}


@pytest.mark.parametrize("kind,name", [(k, n) for k in GOOD for n in GOOD[k]])
def test_good_suites(tls_servers, kind, name):
    server = tls_servers(kind)
    mark = len(server.log())
    out = s_client(server, "submissions", "-tls1_2", "-cipher", name)
    assert suite(out) == name
    (event,) = tools.poll(lambda: [e for e in server.log()[mark:] if e["ev"] == "tls"], "ev=tls")
    assert event["version"] == "TLSv1.2" and event["resumed"] == "0"
    assert all(word in event["cipher"] for word in name.replace("SHA384", "").replace("SHA256", "").split("-") if word.isalpha())


@pytest.mark.parametrize("kind,name", [(k, n) for k in BAD for n in BAD[k]])
def test_bad_suites(tls_servers, kind, name):
    known = tools.run("openssl", "ciphers", name + ":@SECLEVEL=0", check=False)
    out = s_client(tls_servers(kind), "submissions", "-tls1_2", "-cipher", name + ":@SECLEVEL=0")
    assert suite(out) is None, out
    assert known.returncode != 0 or "handshake failure" in out or "alert" in out, out


@pytest.mark.parametrize("groups,ok", [("P-256", True), ("X25519", True), ("P-384:X25519", True), ("P-521:P-256", True), ("P-384", False)])
def test_curves(tls_servers, groups, ok):
    assert bool(suite(s_client(tls_servers("rsa"), "submissions", "-tls1_2", "-curves", groups))) == ok


def test_server_chooses_forward_secrecy_with_anything(server):
    out = s_client(server, "submissions", "-tls1_2", *WEAK)
    assert suite(out).startswith("ECDHE-") and suite(out).endswith(("GCM-SHA256", "GCM-SHA384", "POLY1305"))


def test_no_renegotiation(server, scratch):
    """A client that asks for a new handshake does not get one."""
    mark = len(server.log())
    path = os.path.join(scratch, "out")
    with open(path, "wb") as f:
        p = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % server.port["submissions"], "-tls1_2"],
                             stdin=subprocess.PIPE, stdout=f, stderr=f)
    try:
        tools.poll(lambda: b"\n220 " in tools.read(path), "the greeting")
        p.stdin.write(b"R\n")
        p.stdin.flush()
        tools.poll(lambda: b"RENEGOTIATING" in tools.read(path), "it to try")
        p.stdin.write(b"EHLO client.example\r\n")
        p.stdin.flush()
    except BrokenPipeError:
        pass
    tools.poll(lambda: p.poll() is not None or re.search(rb"no renegotiation|\n250|handshake failure", tools.read(path), re.I), "what becomes of it")
    p.terminate()
    p.communicate(timeout=20)
    out = tools.read(path).decode("utf-8", "replace")
    assert len([e for e in server.log()[mark:] if e["ev"] == "tls"]) == 1
    assert "no renegotiation" in out.lower() or "250" in out or "handshake failure" in out, out


# ---- Resumption ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("profile", ["submission", "submissions"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_resumption(tls_servers, scratch, profile, kind):
    """Every connection is a new pair of processes; the session is found again through the shared cache."""
    server = tls_servers(kind)
    saved = os.path.join(scratch, "session")
    mark = len(server.log())
    out = s_client(server, profile, "-tls1_2", "-sess_out", saved)
    assert "New, TLSv1.2" in out
    for _ in range(3):
        out = s_client(server, profile, "-tls1_2", "-sess_in", saved)
        assert "Reused, TLSv1.2" in out, out
    events = tools.poll(lambda: [e for e in server.log()[mark:] if e["ev"] == "tls"][3:], "four handshakes")
    assert events
    assert [e["resumed"] for e in server.log()[mark:] if e["ev"] == "tls"] == ["0", "1", "1", "1"]


def test_resumption_needs_the_same_address(server):
    """A stolen session is of no use elsewhere: another client address gets a full handshake."""
    context = server.context()
    first = smtpc.Client(("127.0.0.1", server.port["submissions"]), tools.fresh_address(), "implicit", context)
    session, source = first.sock.session, first.source
    assert not first.sock.session_reused
    first.quit()
    for address, reused in ((source, True), (tools.fresh_address(), False), (source, True)):
        c = smtpc.Client(("127.0.0.1", server.port["submissions"]), address, None, context, hello=False)
        c.wrap(session=session)
        c.reply(220)
        assert c.sock.session_reused == reused
        c.quit()
        assert server.log("tls", sid=server.gone(c)["sid"])[-1]["resumed"] == str(int(reused))


def test_reconnect(server):
    out = s_client(server, "submissions", "-tls1_2", "-reconnect")
    assert out.count("Reused, TLSv1.2") == 5, out


# ---- STARTTLS --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("profile", ["submission", "smtp"])
@pytest.mark.parametrize("extra", [b"NOOP\r\n", b"\r\n", b"x", b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n", b"RSET\r\n" * 500])
def test_injection(server, profile, extra):
    """Octets that came before TLS are never obeyed within: one reply, an error, and the end."""
    with server.session(profile, login=None, tls=False) as c:
        c.send(b"STARTTLS\r\n" + extra)
        r = c.reply()
        assert 500 <= r.code < 600
        c.closed()
    assert "inject" in server.gone(c)["why"] or server.log("note", sid=server.gone(c)["sid"])


def test_early_client_hello_is_no_excuse(server):
    """A ClientHello sent without waiting for 220 is pipelined input like any other: nothing of it is taken for SMTP."""
    with server.session("submission", login=None, tls=False) as c:
        c.send(b"STARTTLS\r\n\x16\x03\x01\x00\x05NOOP\r\n")
        assert c.reply().code >= 500
        c.closed()


@pytest.mark.parametrize("profile", ["submission", "smtp"])
def test_everything_is_forgotten(server, profile):
    """After the handshake the client begins anew (RFC 3207 section 4.2)."""
    with server.connect(profile) as c:
        c.ehlo("liar.example")
        c.starttls()
        c.cmd("MAIL FROM:<me@client.example>", (503, 530))
        c.ehlo("honest.example")
        if profile == "smtp":
            m = server.message(c.mail(rcpts=["you@local.example"]))
            assert m.rcpts == [b"you@local.example"] and "HELO honest.example" in m.received


@pytest.mark.parametrize("line,code", [("STARTTLS now", 501), ("STARTTLS  x", 501)])
def test_no_parameters(server, line, code):
    with server.session("submission", login=None, tls=False) as c:
        c.cmd(line, code)
        c.starttls()


@pytest.mark.parametrize("profile", ["submission", "submissions", "smtp"])
def test_no_tls_in_tls(server, profile):
    with server.session(profile, login=None, tls=profile != "submissions") as c:
        c.cmd("STARTTLS", 503)
        c.ehlo()


def test_starttls_in_a_transaction(server):
    """Refused, or the transaction is forgotten; never carried over."""
    with server.session("smtp") as c:
        c.cmd("MAIL FROM:<me@client.example>", 250)
        if c.cmd("STARTTLS", (220, 503)) == 220:
            c.wrap()
            c.ehlo()
            c.cmd("RCPT TO:<you@local.example>", 503)
        else:
            c.cmd("RCPT TO:<you@local.example>", 250)


@pytest.mark.parametrize("profile", ["inside", "printer"])
def test_inside_without_tls_works(server, profile):
    with server.session(profile) as c:
        c.mail()


@pytest.mark.parametrize("garbage", [b"EHLO client.example\r\n", b"\x00" * 600, b"\x16\x03\x01\xff\xff" + b"A" * 600, b"GET / HTTP/1.0\r\n\r\n",
                                     b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", b"\x80\x2e\x01\x03\x01", os.urandom(300)])
@pytest.mark.parametrize("profile", ["submission", "submissions"])
def test_garbage_for_a_handshake(server, profile, garbage):
    """No plaintext reply, no hang, no crash."""
    source = tools.fresh_address()
    c = smtpc.Client(("127.0.0.1", server.port[profile]), source, hello=profile == "submission")
    with c:
        if profile == "submission":
            c.ehlo()
            c.cmd("STARTTLS", 220)
        c.send(garbage)
        time.sleep(0.05)
        c.half_close()
        rest = c.rest()
        assert rest == b"" or rest[:1] == b"\x15", rest  # nothing but a TLS alert
    event = server.gone(c)
    assert event["why"] not in ("quit", "timeout")


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_broken_off_handshakes(server, cut):
    """A client that goes away in the middle."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.context().wrap_bio(incoming, outgoing, server_hostname="mail.example.net")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    source = tools.fresh_address()
    c = smtpc.Client(("127.0.0.1", server.port["submissions"]), source, hello=False)
    c.send(outgoing.read()[:cut])
    time.sleep(0.02)
    c.close()
    server.gone(c)


def test_corrupted_record(server):
    """A record whose seal is broken ends the session; nothing in it is obeyed."""
    with server.session("submissions") as c:
        c.envelope()
        raw = socket.socket(fileno=os.dup(c.sock.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x28" + os.urandom(40))
        raw.settimeout(tools.PATIENCE)
        got = b""
        try:
            while True:
                piece = raw.recv(4096)
                if not piece:
                    break
                got += piece
        except ConnectionResetError:
            pass
        raw.close()
        assert got == b"" or got[:1] in (b"\x15", b"\x17")
    assert server.gone(c)["msgs"] == "0"
    server.assert_nothing()


def test_one_octet_records(server):
    with server.session("submissions") as c:
        for byte in b"MAIL FROM:<me@client.example>\r\nRCPT TO:<you@far.example>\r\nDATA\r\n":
            c.send(bytes([byte]))
        assert [c.reply().code for _ in range(3)] == [250, 250, 354]
        for byte in smtpc.MESSAGE + b".\r\n":
            c.send(bytes([byte]))
        assert server.message(c.reply(250)).body == smtpc.stored(smtpc.MESSAGE)


def test_big_message_through_tls(server):
    message = smtpc.MESSAGE + b"0123456789abcdef" * 60 + b"\r\n"
    message += (b"0123456789abcdef" * 60 + b"\r\n") * 5000
    with server.session("submissions") as c:
        assert server.message(c.mail(message)).body == smtpc.stored(message)


def test_close_notify(server):
    """The server says goodbye, so that a truncation can be told from an end."""
    with server.session("submissions") as c:
        c.sock.suppress_ragged_eofs = False
        c.cmd("QUIT", 221)
        assert c.sock.recv(100) == b""
