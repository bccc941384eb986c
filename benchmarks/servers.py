"""The answering ends, each in a process of its own: `python -m benchmarks.servers bare|roost [--tls]`.

A server prints its port, serves until its standard input ends, and so never outlives the run that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import pstats
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import uvloop

import roost
from benchmarks import bare_echo
from roost.net.tls import make_contexts

__all__ = ["CLUSTER", "SERVER_NAME", "Echo", "Server", "served", "start"]

CLUSTER = "benchmarks"
SERVER_NAME = "echo"
PROFILE_LINES = 30


class Echo(roost.Request[bytes]):
    """Answered with its own payload."""

    payload: bytes


class Server(NamedTuple):
    """A running one."""

    pid: int
    port: int


@contextlib.contextmanager
def start(kind: str, *, tls: bool, profile: bool = False) -> Iterator[Server]:
    """Run a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.servers", kind]
    command += ["--tls"] * tls + ["--profile"] * profile
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError(f"the {kind} server did not start (exit code {process.wait(5)})")
        yield Server(process.pid, int(line))
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def served(kind: str, tls: bool) -> AsyncIterator[int]:
    """Serve on this loop."""
    if kind == "bare":
        server, port = await bare_echo.serve(make_contexts().server if tls else None)
        async with server:
            yield port
        return
    async with roost.Node(SERVER_NAME, cluster=CLUSTER, bind="127.0.0.1:0", tls=tls) as node:

        @node.answer(Echo)
        async def echo(letter: roost.Envelope[Echo]) -> bytes:
            return letter.body.payload

        yield int(node.address.rpartition(":")[2])


async def _main(kind: str, tls: bool) -> None:
    async with served(kind, tls) as port:
        print(port, flush=True)
        await _input_ended()


async def _input_ended() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    pipe.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["bare", "roost"])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print, at the end, where the time went")
    options = parser.parse_args()
    if options.profile:
        with cProfile.Profile() as profiler:
            uvloop.run(_main(options.kind, options.tls))
        print(f"\n{options.kind}, the answering end", file=sys.stderr)
        pstats.Stats(profiler, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    else:
        uvloop.run(_main(options.kind, options.tls))
