# SPDX-License-Identifier: MIT
"""The release binary: one static, position-independent, hardened, stripped file within its size budget.

Each of these was once lost silently by some toolchain (the musl-gcc wrapper makes -static-pie dynamic), so the file
itself is asked, not the command line that made it.
"""
import os
import pathlib
import re
import subprocess

import pytest

pytestmark = pytest.mark.release

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("MAILSTILE", str(ROOT / "mailstile"))


def readelf(*options):
    run = subprocess.run(["readelf", "-W", *options, BINARY], env={**os.environ, "LC_ALL": "C"},
                         capture_output=True, text=True, check=True)
    return run.stdout


def segments():
    """[(type, flags)] of the program headers, such as ("LOAD", "RE")."""
    found = re.findall(r"^  ([A-Z_]+) +(?:0x[0-9a-f]+ +){5}([RWE ]{3}) +0x", readelf("-l"), re.M)
    assert found, "no program headers"
    return [(kind, flags.replace(" ", "")) for kind, flags in found]


def test_position_independent():
    assert re.search(r"Type:\s+DYN ", readelf("-h"))
    assert re.search(r"\(FLAGS_1\).*\bPIE\b", readelf("-d")), "a shared object, not a PIE"


def test_static():
    assert "INTERP" not in [kind for kind, _ in segments()]
    assert "(NEEDED)" not in readelf("-d")


def test_stack_not_executable():
    assert [flags for kind, flags in segments() if kind == "GNU_STACK"] == ["RW"]


def test_no_segment_writable_and_executable():
    assert [s for s in segments() if "W" in s[1] and "E" in s[1]] == []


def test_full_relro():
    assert "GNU_RELRO" in [kind for kind, _ in segments()]
    assert re.search(r"\(BIND_NOW\)|\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*\bNOW\b", readelf("-d"))


def test_no_text_relocations():
    assert "TEXTREL" not in readelf("-d")


def test_stripped():
    sections = readelf("-S")
    assert ".symtab" not in sections
    assert ".debug_" not in sections
    assert ".comment" not in sections


def test_musl_only():
    data = pathlib.Path(BINARY).read_bytes()
    assert b"GLIBC_" not in data and b"libasan" not in data


def test_size_within_budget():
    """With everything in; `make size`, a step of `make test`, also measures what has no tools and delivery reports in it, and that is held to 320 KiB."""
    text = (ROOT / "board/host/board.mk").read_text()
    bare, full = (int(re.search(r"^%s\s*:?=\s*(\d+)" % name, text, re.M).group(1)) for name in ("SIZE_BUDGET", "SIZE_BUDGET_TOOLS"))
    assert bare <= 327680 and full <= 458752
    assert os.path.getsize(BINARY) <= full
