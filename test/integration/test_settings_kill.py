# SPDX-License-Identifier: MIT
"""SIGKILL at each step of unset and apply: the old set of files or the new one, never some of each. That of set: test_settings.py."""

import os
import shutil
import subprocess

import pytest

import harness
from test_settings import configure, home_of, picture

pytestmark = pytest.mark.release


@pytest.fixture
def home(make_server):
    return home_of(make_server)


CALLS = ["openat,open", "fsync", "linkat", "renameat,renameat2", "unlinkat"]


def killed_everywhere(home, argv, call, sets, more=(), view=lambda p: p, follow=True, **kw):
    """
    `argv` with SIGKILL at each such call, from the same beginning. What `get` finds afterwards, and every run of ours before it reads, is one of
    `sets` of files, seen through `view`; what stays is the last of them. The number of kills. `follow`: those of children count, too.
    """
    keep = home.control + ".kept"
    shutil.copytree(home.control, keep, symlinks=True)
    for n in range(1, 400):
        shutil.rmtree(home.control)
        shutil.copytree(keep, home.control, symlinks=True)
        p = subprocess.run(["strace", *["-f"] * follow, "-qq", "-o", "/dev/null", *more, "-e", "inject=%s:signal=KILL:when=%d" % (call, n), harness.BINARY, *argv],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False, **kw)
        assert configure(home, "get").returncode == 0
        shutil.rmtree(os.path.join(home.control, ".try"), ignore_errors=True)  # nobody looks into that one
        now = view(picture(home.control))
        assert now in sets, (n, sorted(now))
        if p.returncode >= 0 and p.returncode != 137:
            break
    assert now == sets[-1], p.stdout
    shutil.rmtree(keep)
    return n - 1


def after(home, *steps):
    """The pictures before and behind each of these applets."""
    pictures = [picture(home.control)]
    keep = home.control + ".before"
    shutil.copytree(home.control, keep, symlinks=True)
    for words in steps:
        assert configure(home, *words).returncode == 0
        pictures.append(picture(home.control))
    shutil.rmtree(home.control)
    os.rename(keep, home.control)
    return pictures


@pytest.mark.parametrize("call", CALLS)
def test_unset_killed_anywhere(home, call):
    home.set(locals="far.example\n")
    whole = lambda p: {k: v for k, v in p.items() if k != "locals.old"}
    old, new = after(home, ["unset", "locals"])
    half = dict(old, **{"locals.old": new["locals.old"]})  # kept, and not yet gone: no difference to anybody
    assert whole(new) == {k: v for k, v in old.items() if k != "locals"}
    killed_everywhere(home, ["unset", "-H", home.home, "locals"], call, [old, half, new])


def changed(home):
    """Three changes that are not applied yet: of a file, of a new one, of one that goes."""
    home.set(locals="far.example\n", bounceformat=None)
    for words in (["set", "me", "other.example.net"], ["set", "bounceformat", "dsn"], ["unset", "locals"]):
        assert configure(home, *words).returncode == 0


@pytest.mark.parametrize("call", [c for c in CALLS if c != "linkat"])
def test_apply_killed_anywhere(home, call):
    """What is kept for a way back is all there or all gone."""
    changed(home)
    old, new = after(home, ["apply", "-S", home.ctl])
    assert {"me.old", "bounceformat.none", "locals.old"} < set(old) and {"me.last", "locals.last"} < set(new)
    assert killed_everywhere(home, ["apply", "-H", home.home, "-S", home.ctl], call, [old, new]) > 1


@pytest.mark.parametrize("call", [c for c in CALLS if c != "linkat"])
def test_way_back_killed_anywhere(home, call):
    """The server cannot be told, so the kept set comes back: all of it or nothing."""
    home.set(locals="far.example\n", bounceformat=None)
    home.start()
    new = picture(home.control)
    changed(home)
    old = picture(home.control)
    assert killed_everywhere(home, ["apply", "-H", home.home, "-S", home.ctl], call, [old, new], ["-e", "inject=kill:error=EPERM"]) > 1
    assert not home.log("reload")
