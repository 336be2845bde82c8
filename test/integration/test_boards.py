# SPDX-License-Identifier: MIT
"""
Programs of other boards under QEMU's user mode: they make a certificate, and a customer logs in over TLS, by FreeRADIUS, and sends. QEMU's user mode
knows no clone() as sessions of `serve` need it, so they run as under inetd.
"""

import os
import re
import socket
import subprocess

import pytest

import smtpc
import tools
from test_inetd import SocketClient, inetd
from tools import poll

pytestmark = pytest.mark.release
BOARDS = os.environ.get("BOARDS", "malta aarch64").split()


def fact(board, name):
    text = tools.read(os.path.join(tools.TREE, "board", board, "board.mk")).decode()
    return re.search(r"^%s := *(.*)$" % name, text, re.M).group(1)


@pytest.fixture(scope="module", params=BOARDS)
def program(request, work):
    """The board's program as one that runs here."""
    board = request.param
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
    subprocess.run(["nice", "make", "-s", "-j2", "BOARD=" + board], cwd=tools.TREE, env=env, check=True, stdout=subprocess.DEVNULL)
    path = os.path.join(work, "mailstile-" + board)
    tools.write(path, '#!/bin/sh\nexec %s %s "$@"\n' % (fact(board, "QEMU_USER"), os.path.join(tools.TREE, "build", board, "mailstile")), 0o755)
    return board, path


def test_budget(program):
    board, _ = program
    assert os.path.getsize(os.path.join(tools.TREE, "build", board, "mailstile")) <= int(fact(board, "SIZE_BUDGET_TOOLS"))


def test_floating_point(program):
    """None for a CPU that has no unit for it."""
    board, _ = program
    if "soft" not in fact(board, "ARCHFLAGS"):
        return
    text = tools.run(fact(board, "CROSS") + "readelf", "-A", os.path.join(tools.TREE, "build", board, "mailstile")).text
    assert "hard" not in text.lower() and "vfp" not in text.lower(), text


@pytest.mark.parametrize("profile,login", [("submission", "alice"), ("submissions", "alice"), ("submission", "wrong"), ("smtp", None)])
def test_session(program, make_server, profile, login):
    board, path = program
    server = make_server(binary=path, start=False)
    tools.make_certificate(os.path.join(server.control, "servercert.pem"), os.path.join(server.control, "serverkey.pem"))
    assert "mailstile" in tools.run(path, "version").text
    ours, theirs = socket.socketpair()
    process = inetd(server, theirs, profile, TCPREMOTEIP="192.0.2.7")
    theirs.close()
    c = SocketClient(server.context().wrap_socket(ours, server_hostname="mail.example.net") if profile == "submissions" else ours, server.context)
    c.ehlo()
    if profile == "submission":
        c.starttls()
        c.ehlo()
    if login == "wrong":
        c.auth_plain("alice", "wrong", 535)
        c.cmd("MAIL FROM:<me@client.example>", 530)
    else:
        if login:
            c.auth_plain(login, "wonder land")
        m = server.message(c.mail(rcpts=["you@far.example" if login else "you@local.example"]))
        assert m.body.endswith(smtpc.MESSAGE.replace(b"\r\n", b"\n"))
    c.quit()
    assert process.wait(30) == 0
    assert poll(lambda: server.log("close"), "the end")[0]["why"] == "quit"
    assert not server.log("crash"), board
    server.take()


def test_first_certificate(program, make_server):
    """Key arithmetic of the board: openssl takes what it has made."""
    _, path = program
    server = make_server(binary=path, start=False)
    p = server.tool("keygen", check=False)
    assert p.returncode == 0, p.text
    cert, key = (os.path.join(server.control, "server%s.pem" % x) for x in ("cert", "key"))
    assert tools.run("openssl", "x509", "-in", cert, "-noout", "-pubkey").text == tools.run("openssl", "pkey", "-in", key, "-pubout").text
    assert "OK" in tools.run("openssl", "verify", "-CAfile", cert, cert).text
