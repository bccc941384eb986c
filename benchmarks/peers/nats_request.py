"""nats-py: requests through nats-server to a subscriber in another process, and replies; casts are publishes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib
import subprocess
import sys
from time import perf_counter
from typing import Any

import uvloop

from benchmarks.driver import calls_of, drive, free_port, large_of, lines_of_input
from benchmarks.load import PAYLOAD, STALL_SECONDS, Outcome

__all__: list[str] = []

SUBJECTS = ("echo", "size", "casts")
UNREAD_MAX = 10**9

nats: Any = importlib.import_module("nats")


async def _connected(port: int) -> Any:
    return await nats.connect(
        f"nats://127.0.0.1:{port}", connect_timeout=1, max_reconnect_attempts=100, reconnect_time_wait=0.05
    )


async def _answer(port: int) -> None:
    """The subscriber, until its standard input ends."""
    client = await _connected(port)
    count = 0

    async def echo(letter: Any) -> None:
        await letter.respond(letter.data)

    async def size(letter: Any) -> None:
        await letter.respond(str(len(letter.data)).encode())

    async def casts(letter: Any) -> None:
        nonlocal count
        if letter.reply:
            await letter.respond(str(count).encode())
            count = 0
        else:
            count += 1

    for subject, callback in zip(SUBJECTS, (echo, size, casts), strict=True):
        await client.subscribe(subject, cb=callback, pending_msgs_limit=UNREAD_MAX, pending_bytes_limit=UNREAD_MAX)
    await client.flush()
    print("ready", flush=True)
    async for _ in lines_of_input():
        pass
    await client.close()


async def _casts(client: Any, seconds: float) -> Outcome:
    """Publishes for `seconds`; the last of 1024 is waited for, since a slow subscriber would be cut off."""
    started = perf_counter()
    arrived = 0
    async with asyncio.timeout(seconds + STALL_SECONDS):
        while perf_counter() < started + seconds:
            for _ in range(1024):
                await client.publish("casts", PAYLOAD)
            arrived += int((await client.request("casts", b"", timeout=STALL_SECONDS)).data)
    return Outcome(arrived, perf_counter() - started)


async def _call(port: int, answering: int, between: int) -> None:
    client = await _connected(port)

    async def request(subject: str, payload: bytes) -> bytes:
        answer: bytes = (await client.request(subject, payload, timeout=STALL_SECONDS)).data
        return answer

    echo, size = (functools.partial(request, subject) for subject in SUBJECTS[:2])
    jobs = calls_of(echo) | large_of(size) | {"casts": functools.partial(_casts, client)}
    await drive(jobs, echoes=[echo], answering=[answering], between=[between])
    await client.close()


def _main() -> None:
    port = free_port()
    broker = subprocess.Popen(["nats-server", "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "benchmarks.peers.nats_request", f"--answer={port}"]
    with contextlib.ExitStack() as stack:
        stack.callback(broker.wait, 5)
        stack.callback(broker.terminate)
        subscriber = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert subscriber.stdin is not None
        assert subscriber.stdout is not None
        stack.callback(subscriber.stdin.close)
        if subscriber.stdout.readline().strip() != b"ready":
            raise RuntimeError("the subscriber did not start")
        uvloop.run(_call(port, subscriber.pid, broker.pid))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.nats_request", description=__doc__)
    parser.add_argument("--answer", type=int, default=0, metavar="PORT", help="be the answering end")
    options = parser.parse_args()
    if options.answer:
        uvloop.run(_answer(options.answer))
    else:
        _main()
