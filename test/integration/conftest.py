# SPDX-License-Identifier: MIT
"""
Fixtures and the choice of tests: `root` tests need root; `release` tests need a build without sanitizers and run once; `long`
tests run when MAILSTILE_LONG is set (make test-long). A test with a short and a long form asks tools.LONG.
"""

import contextlib
import os
import shutil
import signal
import socket
import tempfile

import pytest

import delivery
import faults
import harness
import hostile
import radius
import remote
import stepper
import tools
import trickle as trickle_clients
import variant


def pytest_configure(config):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as ^C, which who runs in the background does not hear
    config.addinivalue_line("markers", "root: needs root: privilege separation, mounts, other users' memory")
    config.addinivalue_line("markers", "release: needs a build without sanitizers: seccomp, memory, system calls")
    config.addinivalue_line("markers", "ipv6: needs ::1")
    config.addinivalue_line("markers", "long: takes minutes; runs when MAILSTILE_LONG is set")


def pytest_collection_modifyitems(config, items):
    have = {"root": tools.ROOT, "release": not tools.SANITIZE, "ipv6": tools.have_ipv6(), "long": tools.LONG}
    drop = [name for name in have if not have[name]]
    out = [i for i in items if any(i.get_closest_marker(name) for name in drop)]
    config.hook.pytest_deselected(items=out)
    items[:] = [i for i in items if i not in out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for s in harness.live:
            report.sections.append(("log of %s" % s.home, s.tail()))


@pytest.fixture(scope="session")
def work():
    path = tempfile.mkdtemp(prefix="mailstile-")
    os.chmod(path, 0o755)
    yield path
    if os.environ.get("MAILSTILE_KEEP"):
        print("kept", path)
    else:
        tools.rmtree(path)


@pytest.fixture(scope="session")
def house(work):
    assert os.access(harness.BINARY, os.X_OK), "no binary; build it or set MAILSTILE"
    return harness.House(work)


@pytest.fixture(scope="session")
def freeradius(work):
    f = radius.FreeRadius(work)
    yield f
    f.stop()


@pytest.fixture(scope="session")
def radius_conf(freeradius):
    return "127.0.0.1:%d %s\n" % (freeradius.port, radius.SECRET)


@pytest.fixture(scope="session")
def shared_server(work, house, radius_conf):
    s = harness.Server(work, house, radius_conf, split=23)
    yield s
    s.stop()


@pytest.fixture
def server(shared_server):
    """The server that most tests share, with an empty queue."""
    shared_server.take()
    return shared_server


def factory(work, house, radius_conf):
    made = []

    def make(radius=radius_conf, **kw):
        made.append(harness.Server(work, house, radius, **kw))
        return made[-1]
    yield make
    errors = []
    for s in made:
        try:
            s.stop()
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)
            if s.process and s.process.poll() is None:
                s.process.kill()
    if errors:
        raise errors[0]


@pytest.fixture
def make_server(work, house, radius_conf):
    """A function that starts a server of the test's own; see harness.Server for its arguments."""
    yield from factory(work, house, radius_conf)


@pytest.fixture
def mute_name_server():
    """The address of a name server that never answers, and so keeps who asks it waiting; where nobody listens, that is told at once. Needs root."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.66.66.66", 53))
        yield "127.66.66.66"


@pytest.fixture
def make_ram_server(ram, house, radius_conf):
    """The same, with homes on an ext4 that need not wait for a disk."""
    yield from factory(ram, house, radius_conf)


@pytest.fixture
def serve_kind(make_ram_server, ram_tmpfs, house, radius_conf):
    """A function that starts a server for a kind of faults.KINDS; see faults.serve()."""
    without_journal = factory(ram_tmpfs, house, radius_conf)
    make = next(without_journal)

    def serve(kind, **kw):
        return faults.serve(make if kind.endswith("tmpfs") else make_ram_server, kind.split()[0], **kw)
    yield serve
    next(without_journal, None)


@pytest.fixture(scope="session")
def ram(work):
    """A directory on an ext4 with a journal, in memory. Needs root."""
    with faults.ext4(work, "ram", 384) as path:
        yield path


@pytest.fixture(scope="session")
def ram_tmpfs(work):
    """And one on a tmpfs, where the spool's writers flush more."""
    with faults.mounted(os.path.join(work, "ram.tmpfs"), "-t", "tmpfs", "-o", "mode=755", "none") as path:
        yield path


@pytest.fixture(scope="session")
def stepping(work):
    """The stepper's binary."""
    return stepper.build(work)


@pytest.fixture(scope="session")
def remote_binary():
    """A delivery process by itself; MAILSTILE_REMOTE: another build of it."""
    return os.environ.get("MAILSTILE_REMOTE") or remote.build()


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def scheduler_binary(work, request):
    """The scheduler and the cleaner by themselves, in two builds."""
    sanitize = request.param == "sanitized"
    name = "scheduler-%s%s" % (request.module.__name__, "-san" if sanitize else "")  # nobody may run it when it is written
    return shutil.copy2(delivery.build(sanitize), os.path.join(work, name))


@pytest.fixture
def rig(scheduler_binary, tmp_path):
    """A function that makes a delivery.Rig of a test's own."""
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def make(act=delivery.Job.ok, **control):
            r = delivery.Rig(scheduler_binary, str(tmp_path / ("home%d" % next(count))), act, control)
            stack.callback(r.close)
            return r
        yield make


@pytest.fixture
def make_double():
    """A function that starts a RADIUS double; see radius.Double."""
    made = []

    def make(*args, **kw):
        made.append(radius.Double(*args, **kw))
        return made[-1]
    yield make
    for d in made:
        d.stop()


@pytest.fixture
def down(make_server):
    """A server whose next hop refuses connections until it is started: (server, start)."""
    import remote
    import test_delivery
    peer = remote.Peer()
    peer.stop()
    return test_delivery.delivering(make_server, peer), lambda: remote.Peer(port=peer.port)


@pytest.fixture
def scratch(work):
    """An empty directory."""
    path = tempfile.mkdtemp(dir=work)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


# ---- Builds with other numbers, begun early because they take their time ----------------------------------------------

def pytest_collection_finish(session):
    names = {n for i in session.items for n in i.fixturenames}
    session.config.wanted_variants = {n for n in variant.BUILDS if n in names}
    if session.config.option.collectonly:
        session.config.wanted_variants = set()


@pytest.fixture(scope="session", autouse=True)
def variants(work, request):
    made = {}
    for name in variant.BUILDS:
        if name in request.config.wanted_variants:
            made[name] = variant.Variant(work, name, *variant.BUILDS[name])
    yield made
    for v in made.values():
        if v.process.poll() is None:
            v.process.terminate()
            v.process.wait(30)


@pytest.fixture(scope="session")
def hostile_binary(work):
    """A build whose smtp processes do what their client says, from where nobody may be kept out of."""
    return shutil.copy2(hostile.build(tools.TREE), os.path.join(work, "mailstile-hostile"))


@pytest.fixture(scope="session")
def quick_binary(variants):
    return variants["quick_binary"].path()


@pytest.fixture(scope="session")
def quick_hostile_binary(quick_binary):
    return os.path.join(os.path.dirname(quick_binary), "build/host/mailstile-hostile")


@pytest.fixture(scope="session")
def slow_binary(variants):
    return variants["slow_binary"].path()


@pytest.fixture(scope="session")
def future_binary(variants):
    return variants["future_binary"].path()


@pytest.fixture(scope="session")
def trickle(quick_binary, work, house, radius_conf):
    s = harness.Server(work, house, radius_conf, binary=quick_binary, listen={"inside": harness.LISTEN["inside"]})
    yield trickle_clients.Trickle(s)
    s.stop()


@pytest.fixture(autouse=True)
def early(request):
    """Starts the slow clients as soon as there is a binary for them."""
    items = request.session.items
    if any("trickle" in i.fixturenames for i in items) and not getattr(request.session, "trickling", False):
        v = request.getfixturevalue("variants")["quick_binary"]
        if v.process.poll() is not None:
            request.session.trickling = True
            request.getfixturevalue("trickle")
