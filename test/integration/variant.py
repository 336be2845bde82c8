# SPDX-License-Identifier: MIT
"""
The same program with short times and small limits, to see that they hold: built in the background from a copy of the tree, from
which only our own objects are compiled anew.
"""

import glob
import os
import shutil
import subprocess

import tools
from tools import TREE

QUICK = {"TIMEOUT_LOGIN": 10, "TIMEOUT_COMMAND": 10, "TIMEOUT_DATA": 10, "TIMEOUT_SESSION": 60, "DRAIN_SECONDS": 2, "SESSIONS_MAX": 12,
         "SESSIONS_PER_ADDR": 8, "PRELOGIN_MAX": 6, "PRELOGIN_PER_ADDR": 4, "PRELOGIN_EVICT_SECONDS": 1, "PENALTY_SECONDS": 2,
         "REEXEC_SECONDS": 1, "LISTEN_RETRY_SECONDS": 1, "RADIUS_DEADLINE": 2, "RADIUS_DEAD_SECONDS": 2, "TLS_CACHE_MAX": 3, "TLS_CACHE_SECONDS": 2,
         "SMTP_RCPT_MAX": 100, "HOPS_MAX": 10, "BAD_COMMANDS_MAX": 3,
         "BAN_FAILS": 3, "ACCT_INTERIM_MIN": 1, "GUESS_FAILS": 3, "GUESS_WAIT_SECONDS": 2}
SLOW = {"TIMEOUT_LOGIN": 10, "TIMEOUT_COMMAND": 10, "TIMEOUT_DATA": 10, "TIMEOUT_SESSION": 60, "RADIUS_DEADLINE": 5,
        "FROM_HEADER_CHECK": 1}  # for slow clients, as many as there may be; and a check that is off by default
FUTURE = 4102444800  # 2100: any clock of today is before this build


# In the order in which they are begun: (numbers, build date, targets besides the program).
BUILDS = {"quick_binary": (QUICK, 1, ["hostile"]), "slow_binary": (SLOW, 1, []), "future_binary": ({}, FUTURE, [])}


class Variant:
    """`defines` go into the board's config.h; `epoch` is the build date; `extra`: more targets."""

    def __init__(self, work, name, defines, epoch, extra=()):
        self.dir = os.path.join(work, name)
        self.binary = os.path.join(self.dir, "mailstile")
        self.log = os.path.join(self.dir, "log")
        self._copy()
        self.network = os.path.join(self.dir, "network")  # where its console writes the address
        if defines:
            defines = {**defines, "NETWORK_FILE": '"%s"' % self.network}
            with open(os.path.join(self.dir, "board/host/config.h"), "a", encoding="ascii") as f:
                f.write("\n" + "".join("#define %s %s\n" % d for d in defines.items()))
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SANITIZE", "BOARD")}
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(["nice", "make", "-s", "-j2", "SOURCE_DATE_EPOCH=%d" % epoch, "all", *extra], cwd=self.dir, env=env,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _copy(self):
        os.makedirs(os.path.join(self.dir, "test"))
        os.makedirs(os.path.join(self.dir, "build"))
        for pattern in ("*.c", "*.h", "Makefile", "LICENSE*"):
            for f in glob.glob(os.path.join(TREE, pattern)):
                shutil.copy2(f, self.dir)
        os.makedirs(os.path.join(self.dir, "test/hostile"))
        for f in ("test/test.mk", "test/install-deps.sh", "test/hostile/hostile.c"):
            shutil.copy2(os.path.join(TREE, f), os.path.join(self.dir, f))
        for d in ("board", "deps", "build/host"):
            shutil.copytree(os.path.join(TREE, d), os.path.join(self.dir, d), symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("unit", "*.elf"))
        os.symlink(os.path.join(TREE, "build/src"), os.path.join(self.dir, "build/src"))
        for where, dirs, names in os.walk(self.dir):
            for n in dirs + names:
                path = os.path.join(where, n)
                if not os.path.islink(path):
                    os.chmod(path, os.stat(path).st_mode | 0o600)

    def path(self):
        """The binary, once it is there."""
        assert self.process.wait(900) == 0, tools.read(self.log).decode("utf-8", "replace")
        return self.binary
