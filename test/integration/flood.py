#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
A client who means no good, in a process of its own, so that it takes no time from the honest ones in the tests. Its job is JSON in its
argument; results are lines of JSON. See abuse.Attacker.
"""

import asyncio
import collections
import itertools
import json
import resource
import socket
import ssl
import struct
import sys
import time


def say(**result):
    print(json.dumps(result), flush=True)


def tls_context():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def connect(job, source=None, port=None):
    tls = {"ssl": tls_context()} if job.get("tls") else {}
    return await asyncio.open_connection(job.get("host", "127.0.0.1"), port or job["port"], limit=1 << 20,
                                         local_addr=(source, 0) if source else None, **tls)


async def idle(job):
    """Open connections to ports in turn, say nothing, and hold them until we are told to go. Says how they were received."""
    seen, open_, gate = collections.Counter(), [], asyncio.Semaphore(job.get("at_once", 100))

    async def one(source, port):
        async with gate:
            try:
                reader, writer = await connect(job, source, port)
            except OSError as e:
                seen[type(e).__name__] += 1
                return
            open_.append(writer)
            if port in job.get("mute", []):  # who waits for us to begin
                seen["open"] += 1
                return
            try:
                data = await asyncio.wait_for(reader.read(100), 60)
                seen[data[:3].decode() or "closed"] += 1
            except (OSError, asyncio.TimeoutError) as e:
                seen[type(e).__name__] += 1
    await asyncio.gather(*[one(s, p) for s, p in zip(itertools.islice(itertools.cycle(job["sources"]), job["total"]),
                                                     itertools.cycle(job["ports"]))])
    say(seen=seen)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for writer in open_:
        writer.transport.abort()
    await asyncio.sleep(0)


async def churn(job):
    """Connect, do a little or nothing, and go, over and over."""
    seen, sources, hows, ports = collections.Counter(), itertools.cycle(job["sources"]), itertools.cycle(job["how"]), itertools.cycle(job["ports"])
    left = itertools.count(job["total"], -1)
    end = time.monotonic() + job["seconds"]

    async def worker():
        while next(left) > 0 and time.monotonic() < end:
            how = next(hows)
            try:
                reader, writer = await connect(job, next(sources), next(ports))
            except OSError as e:
                seen[type(e).__name__] += 1
                continue
            try:
                if how == "listen":
                    seen[(await reader.readline())[:3].decode() or "closed"] += 1
                if how == "speak":
                    writer.write(b"EHLO x\r\nMAIL FROM:<x@client.example>\r\nRCPT TO:<x@local.example>\r\nDATA\r\nSubject: x\r\n")
                    await reader.readline()
                if how == "half":
                    writer.write_eof()
                    await reader.read(1000)
            except OSError as e:
                seen[type(e).__name__] += 1
            if how == "reset":
                reset(writer)
            else:
                writer.close()
            seen["done"] += 1
    await asyncio.gather(*[worker() for _ in range(job.get("at_once", 20))])
    say(seen=seen)


async def go(job):
    """Get ready on many TLS connections; when told to, say `last` on all of them, and leave without an answer."""
    ready, gate = [], asyncio.Semaphore(20)

    async def one(source):
        async with gate:
            try:
                reader, writer = await connect(job, source)
                await reader.readline()
                writer.write(b"EHLO x\r\n")
                await reader.readuntil(b"CHUNKING\r\n")
                ready.append(writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
    await asyncio.gather(*[one(s) for s in itertools.islice(itertools.cycle(job["sources"]), job["total"])])
    say(ready=len(ready))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for writer in ready:
        writer.write(job["last"].encode())
    await asyncio.sleep(0.5)
    for writer in ready:
        reset(writer)
    say(gone=True)


class Plain:
    """A connection on which reading goes on when writing has failed, which asyncio's streams do not offer."""

    def __init__(self, sock):
        self.sock, self.loop = sock, asyncio.get_running_loop()

    @classmethod
    async def open(cls, job):
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((job["source"], 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", job["port"]))
        return cls(sock)

    async def read(self):
        return await self.loop.sock_recv(self.sock, 1 << 16)

    async def write(self, data):
        await self.loop.sock_sendall(self.sock, data)

    def close(self):
        self.sock.close()


class Tls:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, job):
        return cls(*await connect(job, job["source"]))

    async def read(self):
        return await self.reader.read(1 << 16)

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    def close(self):
        self.writer.transport.abort()


class Replies:
    """Counts the replies on a connection, by code, as they come."""

    def __init__(self, conn):
        self.conn, self.codes, self.tail = conn, collections.Counter(), b""
        self.task = asyncio.create_task(self.listen())

    async def listen(self):
        rest = b""
        try:
            while True:
                data = await self.conn.read()
                if not data:
                    self.codes["end"] += 1
                    return
                *lines, rest = (rest + data).split(b"\r\n")
                self.codes.update(line[:3].decode("latin-1") for line in lines if line[3:4] == b" ")
                self.tail = lines[-1] if lines else self.tail
        except OSError as e:
            self.codes[type(e).__name__] += 1


async def stream(job):
    """Say `first`, a line at a time; then `again` as often as `times` says, in big writes; then `last`. Returns what came back, by code."""
    begin, sent = time.monotonic(), 0
    conn = await (Tls if job.get("tls") else Plain).open(job)
    replies = Replies(conn)
    try:
        for line in job.get("first", []):
            await conn.write(line.encode("latin-1"))
            await asyncio.sleep(0.02)
        again = job.get("again", "").encode("latin-1")
        times = job.get("times", 0)
        per = max(1, 60000 // max(1, len(again)))
        while times > 0 and not replies.task.done():
            n = min(per, times)
            await conn.write(again * n)
            sent += n
            times -= n
        await conn.write(job.get("last", "").encode("latin-1"))
    except OSError:
        pass
    try:
        await asyncio.wait_for(replies.task, job.get("patience", 60))
    except asyncio.TimeoutError:
        replies.codes["hung"] += 1
    conn.close()
    return {"sent": sent, "codes": replies.codes, "tail": replies.tail.decode("latin-1"), "seconds": time.monotonic() - begin}


async def streams(job):
    """Several of these, some at a time."""
    gate = asyncio.Semaphore(job.get("at_once", 6))

    async def one(name):
        async with gate:
            return name, await stream(job["jobs"][name])
    say(results=dict(await asyncio.gather(*[one(name) for name in job["jobs"]])))


def main():
    job = json.loads(sys.argv[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    asyncio.run({"idle": idle, "churn": churn, "go": go, "streams": streams}[job["mode"]](job))


main()
