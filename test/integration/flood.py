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


async def stream(job):
    """
    One connection: say `first`, then `again` as often as `times` says, in big writes, then `last`; count the replies. Without "read" they are
    not read while we speak.
    """
    codes, tail, begin = collections.Counter(), [b""], time.monotonic()
    reader, writer = await connect(job, job.get("source"))

    async def listen():
        try:
            while True:
                line = await reader.readline()
                if not line:
                    codes["end"] += 1
                    return
                if line[3:4] == b" ":
                    codes[line[:3].decode("latin-1")] += 1
                tail[0] = line
        except (OSError, ValueError) as e:
            codes[type(e).__name__] += 1
    listener = asyncio.create_task(listen()) if job.get("read", True) else None
    sent = 0
    try:
        for line in job.get("first", []):
            writer.write(line.encode("latin-1"))
            await writer.drain()
            await asyncio.sleep(job.get("pause", 0.02))
        again = job.get("again", "").encode("latin-1")
        times = job.get("times", 0)
        per = max(1, 60000 // max(1, len(again)))
        while times > 0 and not (listener and listener.done()):
            n = min(per, times)
            writer.write(again * n)
            await writer.drain()
            sent += n
            times -= n
        writer.write(job.get("last", "").encode("latin-1"))
        await writer.drain()
    except OSError:
        pass
    say(sent=sent, seconds=time.monotonic() - begin)
    if job.get("hold"):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    if listener:
        try:
            await asyncio.wait_for(listener, 60)
        except asyncio.TimeoutError:
            codes["hung"] += 1
    say(codes=codes, tail=tail[0].decode("latin-1"), seconds=time.monotonic() - begin)
    writer.transport.abort()


def main():
    job = json.loads(sys.argv[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    asyncio.run({"idle": idle, "churn": churn, "stream": stream}[job["mode"]](job))


main()
