# SPDX-License-Identifier: MIT
"""What the attacks in test_abuse_*.py share: a server that is watched while it is attacked, and an honest customer who is served meanwhile."""

import array
import os
import resource
import socket

import harness
import tools


class OwnHouse(harness.House):
    """A house whose users no other server on this machine has, for what the kernel counts by user."""

    def __init__(self, work, shift):
        os.makedirs(work)
        super().__init__(work)
        self.uid = {name: uid + shift for name, uid in harness.USERS.items()}
        text = tools.read(self.passwd).decode()
        for name, uid in harness.USERS.items():
            text = text.replace("%s:x:%d:" % (name, uid), "%s:x:%d:" % (name, self.uid[name]))
        tools.write(self.passwd, text)


class InFlight:
    """`count` descriptors that a process of user `uid` has sent and nobody has received."""

    def __init__(self, uid, count):
        ready, tell = os.pipe()
        keep, self.end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                pair = socket.socketpair()
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                for _ in range(count // 50):
                    pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [keep] * 50))])
                os.close(self.end)
                os.write(tell, b"x")
                os.read(keep, 1)  # until self.end is closed
            finally:
                os._exit(0)
        os.close(tell)
        os.close(keep)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def release(self):
        if self.pid:
            os.close(self.end)
            os.waitpid(self.pid, 0)
            self.pid = 0
