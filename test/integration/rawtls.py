# SPDX-License-Identifier: MIT
"""A TLS 1.2 client that can say anything: the handshake is Python's, from then on records of any kind are sealed and opened here."""

import ctypes
import hmac
import os
import ssl
import struct
import tempfile

import smtpc

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA, HEARTBEAT = 20, 21, 22, 23, 24
NO_RENEGOTIATION, CLOSE_NOTIFY = 100, 0

crypto = ctypes.CDLL("libcrypto.so.3")
for _name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm"):
    getattr(crypto, _name).restype = ctypes.c_void_p


def record(kind, payload, version=0x0303, length=None):
    """As it goes over the wire, nothing sealed."""
    return struct.pack("!BHH", kind, version, len(payload) if length is None else length) + payload


def hello(context, name="mail.example.net"):
    """A ClientHello record, as OpenSSL makes it."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def prf(secret, label, seed, length):
    seed = label + seed
    out, a = b"", seed
    while len(out) < length:
        a = hmac.new(secret, a, "sha256").digest()
        out += hmac.new(secret, a + seed, "sha256").digest()
    return out[:length]


def gcm(encrypt, key, nonce, data, extra):
    """AES-128-GCM; None when the seal does not fit."""
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    out, tag, n = ctypes.create_string_buffer(len(data) + 16), ctypes.create_string_buffer(16), ctypes.c_int()
    if not encrypt:
        data, tag.raw = data[:-16], data[-16:]
    kind = "Encrypt" if encrypt else "Decrypt"
    init, update, final = (getattr(crypto, "EVP_%s%s" % (kind, f)) for f in ("Init_ex", "Update", "Final_ex"))
    init(context, ctypes.c_void_p(crypto.EVP_aes_128_gcm()), None, key, nonce)
    update(context, None, ctypes.byref(n), extra, len(extra))
    update(context, out, ctypes.byref(n), data, len(data))
    if not encrypt:
        crypto.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, tag)
    good = final(context, ctypes.create_string_buffer(16), ctypes.byref(n)) == 1
    if encrypt:
        crypto.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, tag)
    crypto.EVP_CIPHER_CTX_free(context)
    return (out.raw[:len(data)] + (tag.raw if encrypt else b"")) if good else None


class RawTls(smtpc.Client):
    """After the handshake: seal(kind, payload) is a record, send_records() sends, and reply() reads what comes as data."""

    def __init__(self, server, profile="submissions", source=None):
        super().__init__(("127.0.0.1", server.port[profile]), source, hello=False)
        if profile != "submissions":
            self.reply(220)
            self.ehlo()
            self.cmd("STARTTLS", 220)
        self.alerts, self.kinds, self.raw = [], [], b""
        context = ssl.create_default_context(cafile=os.path.join(server.control, "servercert.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with tempfile.NamedTemporaryFile() as log:
            context.keylog_filename = log.name
            tls = context.wrap_bio(incoming, outgoing, server_hostname="mail.example.net")
            said, heard = b"", b""
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    out = outgoing.read()
                    said += out
                    self.sock.sendall(out)
                    data = self.sock.recv(65536)
                    heard += data
                    incoming.write(data)
            self.sock.sendall(outgoing.read())
            self.raw = incoming.read()  # what came behind the handshake
            with open(log.name, "rb") as f:
                (line,) = [x for x in f.read().splitlines() if x.startswith(b"CLIENT_RANDOM ")]
        master = bytes.fromhex(line.split()[2].decode())
        keys = prf(master, b"key expansion", heard[11:43] + said[11:43], 40)
        self.write_key, self.read_key, self.write_iv, self.read_iv = keys[:16], keys[16:32], keys[32:36], keys[36:]
        self.write_seq = self.read_seq = 1  # the Finished messages were 0
        if profile == "submissions":
            self.reply(220)

    def seal(self, kind, payload, version=0x0303):
        seq = struct.pack("!Q", self.write_seq)
        self.write_seq += 1
        sealed = gcm(True, self.write_key, self.write_iv + seq, payload, seq + struct.pack("!BHH", kind, version, len(payload)))
        return record(kind, seq + sealed, version)

    def send(self, data):
        if hasattr(self, "write_seq"):
            data = self.seal(DATA, data.encode() if isinstance(data, str) else data)
        super().send(data)

    def send_raw(self, data):
        self.sock.sendall(data)

    def more(self):
        if not hasattr(self, "write_seq"):
            return super().more()
        while True:
            if len(self.raw) >= 5:
                kind, _, length = struct.unpack("!BHH", self.raw[:5])
                if len(self.raw) >= 5 + length:
                    body, self.raw = self.raw[5:5 + length], self.raw[5 + length:]
                    return self.take(kind, body)
            try:
                data = self.sock.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                return False
            self.raw += data

    def take(self, kind, body):
        seq = struct.pack("!Q", self.read_seq)
        self.read_seq += 1
        plain = gcm(False, self.read_key, self.read_iv + body[:8], body[8:], seq + struct.pack("!BHH", kind, 0x0303, len(body) - 24))
        assert plain is not None, "a record of the server does not open"
        self.kinds.append(kind)
        if kind == ALERT:
            self.alerts.append(plain[1])
        if kind == DATA:
            self.buffer += plain
        return True
