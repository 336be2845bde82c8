# SPDX-License-Identifier: MIT
"""Two clients that take more than a minute to be found out; they run beside all other tests."""

import threading
import time


class Trickle:
    """A message that comes an octet at a time, for ever; and a session that says NOOP for ever."""

    def __init__(self, server):
        self.server, self.begin = server, time.monotonic()
        self.said, self.after, self.threads = {}, {}, []
        for name, act in (("data", self.data), ("noop", self.noop)):
            client = server.session("inside")
            if name == "data":
                client.envelope()
                client.cmd("DATA", 354)
                client.send(b"Subject: slow\r\n\r\n")
            t = threading.Thread(target=self.run, args=(name, act, client), daemon=True)
            self.threads.append(t)
            t.start()

    def run(self, name, act, client):
        client.sock.settimeout(0.5)
        buffer = b""
        while time.monotonic() < self.begin + 100:
            try:
                act(client)
                piece = client.sock.recv(4096)
                if not piece:
                    break
                buffer += piece
            except TimeoutError:
                continue
            except OSError:
                break
        self.said[name], self.after[name] = buffer, time.monotonic() - self.begin

    @staticmethod
    def data(client):
        client.send(b"x")

    @staticmethod
    def noop(client):
        client.send(b"NOOP\r\n")
        time.sleep(0.5)
