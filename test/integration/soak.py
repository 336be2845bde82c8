# SPDX-License-Identifier: MIT
"""
The soak: many clients for minutes, while RADIUS comes and goes, certificates change and the configuration is read anew; and somebody in
qmail-send's place empties the queue. The clients are in soak_client.py; here is what happens to them, and what is judged at the end.
"""

import collections
import hashlib
import json
import os
import random
import re
import select
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time

import abuse
import harness
import radius
import smtpc
import soak_client
import tools

CLIENTS, PROCESSES = 24, 4
RADIUS_MARGIN = 0.2  # seconds around a change of RADIUS in which it may be either way


class Health:
    """When RADIUS could not be relied on."""

    def __init__(self):
        self.broken = []  # [from, to or None, why]

    def breaks(self, why):
        self.broken.append([time.monotonic(), None, why])

    def mended(self):
        self.broken[-1][1] = time.monotonic()

    def good(self, begin, end):
        """Whether nothing was amiss from begin to end."""
        return not any(a - RADIUS_MARGIN <= end and (b is None or begin <= b + RADIUS_MARGIN) for a, b, _ in self.broken)


class House:
    """
    A server with its RADIUS, and what is done to both. `trouble`: {name: function that breaks RADIUS and returns one that mends it}. `unnoticed`:
    the same of what no login may suffer from.
    """

    def __init__(self, name, make_server, conf):
        self.name, self.health, self.hups, self.certs, self.faults = name, Health(), 0, 0, []
        self.server = make_server(radius=conf)
        self.rng = random.Random(name)
        self.stop = threading.Event()
        self.lock = threading.Lock()  # HUPs, one after the other
        self.offset, self.reloads, self.crashes = 0, 0, 0
        self.trouble, self.unnoticed, self.lies = {}, {}, collections.Counter()
        top = self.server.top
        self.pairs = [(os.path.join(top, "cert%d" % n), os.path.join(top, "key%d" % n)) for n in range(4)]
        for n, (cert, key) in enumerate(self.pairs):
            tools.make_certificate(cert, key, ["ec", "rsa", "ec", "ec384"][n])

    def read_log(self):
        """Look at what is new in the log."""
        with open(self.server.logfile, "rb") as f:
            f.seek(self.offset)
            text = f.read()
        end = text.rfind(b"\n") + 1
        self.offset += end
        self.reloads += text[:end].count(b"ev=reload ")
        self.crashes += text[:end].count(b"ev=crash ") + text[:end].count(b"ev=reexec ")

    def hup(self, **control):
        with self.lock:
            self.server.set(**control)
            self.read_log()
            before = self.reloads
            self.server.kill(signal.SIGHUP)
            self.hups += 1

            def heard():
                self.read_log()
                return self.reloads > before
            tools.poll(heard, "ev=reload", 30, 0.05)

    def new_certificate(self):
        with self.lock:
            for source, name in zip(self.rng.choice(self.pairs), ("servercert.pem", "serverkey.pem")):
                path = os.path.join(self.server.control, name)
                tools.write(path + ".new", tools.read(source), 0o600 if "key" in name else 0o644)
                os.rename(path + ".new", path)
            self.certs += 1

    def probe(self):
        """A login that works: RADIUS is back."""
        def works():
            with smtpc.Client(("127.0.0.1", self.server.port["submissions"]), tools.fresh_address(29), "implicit", self.any_certificate) as c:
                c.ehlo()
                return c.auth_plain("alice", radius.PASSWORD["alice"], None) == 235
        tools.poll(works, "RADIUS to be back", 60, 0.2)

    @staticmethod
    def any_certificate():
        c = ssl.create_default_context()
        c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
        return c

    def guarded(self, act):
        """Run `act` in a thread's place; what it raises is kept."""
        try:
            act()
        except BaseException as e:  # pylint: disable=broad-except
            self.faults.append(e)
            self.stop.set()

    def unrest(self, until):
        """Certificates and HUPs, now and then."""
        while not self.stop.wait(self.rng.uniform(1, 4)) and time.monotonic() < until:
            if self.rng.random() < 0.5:
                self.new_certificate()
            self.hup()

    def troubles(self, until, good, bad):
        """RADIUS breaks and is mended, for about `good` and `bad` seconds each, with all kinds of trouble in turn; at the end it is well."""
        while True:
            for name, begin in {**self.trouble, **self.unnoticed}.items():
                if self.stop.wait(good * self.rng.uniform(0.7, 1.3)) or time.monotonic() + bad * 1.3 + 3 > until:
                    return
                if name in self.trouble:
                    self.health.breaks(name)
                self.lies[name] += 1
                mend = begin()
                self.stop.wait(bad * self.rng.uniform(0.7, 1.3))
                mend()
                self.probe()
                if name in self.trouble:
                    self.health.mended()


def free_house(make_server, work):
    """A server that asks a real FreeRADIUS."""
    free = radius.FreeRadius(work, "raddb-soak")
    house = House("free", make_server, "127.0.0.1:%d %s\n" % (free.port, radius.SECRET))
    path = os.path.join(free.dir, "radiusd.conf")
    secret = [radius.SECRET]

    def killed():
        free.stop()
        return free.start

    def restarted():
        free.stop()
        free.start()
        return lambda: None

    def asleep():
        """It hears, but answers late."""
        os.kill(free.process.pid, signal.SIGSTOP)
        return lambda: os.kill(free.process.pid, signal.SIGCONT)

    def other_secret():
        """First there, and some time later here."""
        new = "soak-%032x" % house.rng.getrandbits(128)
        free.stop()
        tools.write(path, tools.read(path).replace(secret[0].encode(), new.encode()))
        secret[0] = new
        free.start()
        return lambda: house.hup(**{"radius.conf": "127.0.0.1:%d %s\n" % (free.port, new)})
    house.trouble = {"killed": killed, "asleep": asleep, "another secret": other_secret, "restarted": restarted}
    return house, free.stop


def double_house(make_server):
    """A server that asks two doubles, of which the first one lies, sleeps and forgets."""
    def judge(request, _=None):
        (user,) = request.get(radius.USER_NAME)
        right = soak_client.RIGHT.get(user.decode("utf-8", "replace"))
        return request.reply(radius.ACCEPT if right is not None and request.password == right.encode() else radius.REJECT)

    doubles = [radius.Double(judge), radius.Double(judge)]
    for d in doubles:
        d.requests = collections.deque(maxlen=100)
    rng = random.Random(2)

    def late(request, double):
        threading.Timer(rng.uniform(0.5, 4), lambda: double.sock.sendto(judge(request), request.address)).start()

    def lossy(request, _):
        return judge(request) if rng.random() < 0.3 else None

    def twice(request, double):
        return [judge(request), judge(request), request.reply(radius.REJECT, secret="some other secret"), judge(request)]

    def forged(request, _):
        return [request.reply(radius.REJECT, secret="wrong"), request.reply(radius.ACCEPT, signed=False), request.reply(radius.ACCEPT, secret="wrong"),
                request.reply(radius.ACCEPT, signature=bytes(16))]

    def forged_and_true(request, _):
        return forged(request, _) + [judge(request)]

    def silent(_request, _double):
        return None

    def lie(answer, which):
        def begin():
            for d in doubles[:which]:
                d.answer = answer

            def end():
                for d in doubles:
                    d.answer = judge
            return end
        return begin
    house = House("double", make_server, "".join(d.line("1 1") for d in doubles))
    house.trouble = {"late": lie(late, 2), "silent": lie(silent, 2), "forged": lie(forged, 2), "lossy": lie(lossy, 2)}
    house.unnoticed = {"first one silent": lie(silent, 1), "twice": lie(twice, 2), "forged, then true": lie(forged_and_true, 2)}

    def stop():
        for d in doubles:
            d.stop()
    return house, stop


class Reader:
    """
    In qmail-send's place: waits for the trigger, reads envelope and message, and removes them in its order: intd, todo, then the message.
    `seen`: {token: [queue ids]}.
    """

    def __init__(self, server):
        self.server, self.seen, self.faults, self.octets = server, collections.defaultdict(list), [], 0
        self.split = len(os.listdir(os.path.join(server.queue, "mess")))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        trigger = os.open(os.path.join(self.server.queue, "lock", "trigger"), os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                last = self.stop.is_set()
                select.select([trigger], [], [], 0.3)
                time.sleep(0.03)  # as qmail-send, which does other things, too
                os.close(trigger)
                trigger = os.open(os.path.join(self.server.queue, "lock", "trigger"), os.O_RDONLY | os.O_NONBLOCK)
                names = os.listdir(os.path.join(self.server.queue, "todo"))
                for n in names:
                    self.one(int(n))
                if last and not names:
                    return
        except BaseException as e:  # pylint: disable=broad-except
            self.faults.append(e)
        finally:
            os.close(trigger)

    def one(self, n):
        m = harness.tools_message(self.server.queue, n, self.split)
        token = m.sender.decode().split("@")[0]
        self.seen[token].append(n)
        self.octets += len(m.data)
        for kind in ("intd", "todo"):
            os.unlink(os.path.join(self.server.queue, kind, str(n)))
        os.unlink(m.path)
        header, text = m.body.split(b"\n\n", 1)
        sum_ = re.search(rb"^X-Sum: ([0-9a-f]{64})$", header, re.M).group(1).decode()
        if hashlib.sha256(text).hexdigest() != sum_:
            raise AssertionError("message %s is not what was sent: %r" % (token, text[:200]))

    def finish(self):
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive() and not self.faults, self.faults


class Sampler:
    """Memory of main and its nurseries, and how many processes and descriptors there are."""

    def __init__(self, server):
        self.server, self.kib, self.processes, self.descriptors = server, collections.defaultdict(list), [], []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.5):
            family = [p for p in tools.processes() if p.ppid == self.server.pid]
            self.processes.append(len(family))
            self.descriptors.append(abuse.descriptors(self.server.pid) or 0)
            self.kib["main"].append(abuse.own_memory(self.server.pid))
            for p in family:
                if p.name in ("stile-wardens", "stile-smtps"):
                    self.kib[p.name].append(abuse.own_memory(p.pid))
                elif p.name.startswith("stile-") and self.server.pid % 3 == p.pid % 3:
                    self.kib[p.name.split()[0]].append(abuse.own_memory(p.pid))

    def finish(self):
        self.stop.set()
        self.thread.join(60)

    def check(self):
        """
        In the last third nothing is bigger than in the one before, but for a little: what is shared is touched for the first time for a while.
        The median, since main is seen while it reads keys now and then, for which it has 64 KiB that it gives back.
        """
        out = {}
        for name, values in self.kib.items():
            values = [v for v in values if v]
            if len(values) < 9:
                continue
            third = len(values) // 3
            before, last = statistics.median(values[-2 * third:-third]), statistics.median(values[-third:])
            assert last <= before + 48, "%s grew from %d to %d KiB" % (name, before, last)
            out[name] = "%d..%d KiB" % (min(values), max(values))
        return out


def start_clients(houses, work, until, seed):
    """Returns [(process, its file)]."""
    servers = [{"name": h.name, "port": h.server.port} for h in houses]
    out = []
    for n in range(PROCESSES):
        path = os.path.join(work, "soak-clients-%d" % n)
        job = {"number": n, "first": n * (CLIENTS // PROCESSES), "clients": CLIENTS // PROCESSES, "seed": seed, "until": until, "out": path, "servers": servers}
        out.append((subprocess.Popen(["nice", sys.executable, os.path.join(os.path.dirname(__file__), "soak_client.py"), json.dumps(job)]), path))
    return out


def judge(records, houses, seen):
    """Every reply code, every message. Returns what there was, counted; raises AssertionError."""
    count = collections.Counter()
    by_name = {h.name: h for h in houses}
    for r in records:
        assert "fault" not in r, r
        count["sessions"] += 1
        count["sessions, TLS " + r.get("tls", "none")] += 1
        for a in r["auth"]:
            good = by_name[r["server"]].health.good(r["began"], a["to"])
            count["logins, password %s, RADIUS %s: %d" % ("right" if a["right"] else "wrong", "well" if good else "in trouble", a["code"])] += 1
            allowed = {(True, True): (235,), (True, False): (235, 454), (False, True): (535,), (False, False): (535, 454)}[a["right"], good]
            assert a["code"] in allowed, (r, by_name[r["server"]].health.broken)
        for m in r["messages"]:
            times = seen.pop(m["token"], [])
            count["messages " + m["state"] + (", in the queue" if m["state"] == "unread" and times else "")] += 1
            if m["state"] == "taken":
                assert times == [m["id"]], (m, times)
            elif m["state"] == "unread":
                assert len(times) <= 1, (m, times)
            else:
                assert m["state"] == "broken off" and times == [], (m, times)
    assert not seen, "messages nobody sent: %r" % seen
    return count
