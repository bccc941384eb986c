"""The calling end of a contender: a process that is given a job a line, and answers with its outcome as one of JSON.

    calls-64 0.5
    {"count":61234,"seconds":0.501,"p50_microseconds":0.0,"p99_microseconds":0.0}

Before the first it says which processes take part (`Ends`), so that whoever measures can ask the kernel for their
processor time. Its end of input is the end of everything it has started. A contender in another language speaks the
same lines.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import msgspec

from benchmarks.load import LARGE, Call, Outcome, latency, throughput, warm_up

__all__ = [
    "LARGE_IN_FLIGHT",
    "Ends",
    "Job",
    "calls_of",
    "drive",
    "fan_out_of",
    "free_port",
    "large_of",
    "lines_of_input",
]

Job = Callable[[float], Awaitable[Outcome]]
"""Does it for so many seconds."""

LARGE_IN_FLIGHT = 8


class Ends(msgspec.Struct, frozen=True):
    """The processes of a contender."""

    calling: list[int]
    answering: list[int]
    between: list[int] = []
    """A server that both talk to."""


def calls_of(echo: Call) -> dict[str, Job]:
    """The jobs of small calls."""
    return {
        "one": functools.partial(latency, echo),
        "calls-64": functools.partial(throughput, [echo], 64),
        "calls-1024": functools.partial(throughput, [echo], 1024),
    }


def large_of(size: Call) -> dict[str, Job]:
    """The jobs of large payloads: they go one way, their size comes back."""
    return {
        name: functools.partial(throughput, [size], LARGE_IN_FLIGHT, payload=payload) for name, payload in LARGE.items()
    }


def fan_out_of(echoes: Sequence[Call]) -> dict[str, Job]:
    """64 calls in flight to all, and as many to the first alone."""
    return {
        "calls-64": functools.partial(throughput, echoes[:1], 64),
        "fan-out": functools.partial(throughput, echoes, 64),
    }


async def drive(jobs: Mapping[str, Job], *, echoes: Sequence[Call], answering: list[int], between: list[int]) -> None:
    """Warm up, then do what the lines of standard input say."""
    for echo in echoes:
        await warm_up(echo)
    _say(Ends([os.getpid()], answering, between))
    async for line in lines_of_input():
        name, _, seconds = line.partition(" ")
        _say(await jobs[name](float(seconds)))


async def lines_of_input() -> AsyncIterator[str]:
    """Standard input, until it ends."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        while line := await reader.readline():
            yield line.decode().strip()
    finally:
        pipe.close()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _say(what: msgspec.Struct) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)
