"""The answering ends, each in a process of its own: `python -m benchmarks.servers bare|roost [--tls] [--stdlib-loop]`.

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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

import uvloop

import roost
from benchmarks import bare_echo
from benchmarks.driver import lines_of_input
from roost.net.tls import make_contexts

__all__ = [
    "CLUSTER",
    "PROFILE_LINES",
    "Counted",
    "Echo",
    "Notice",
    "PlainEcho",
    "Server",
    "Size",
    "run",
    "server_name",
    "start",
    "start_all",
]

CLUSTER = "benchmarks"
PROFILE_LINES = 30


class Echo(roost.Request[bytes]):
    """Answered with its own payload, by an async handler."""

    payload: bytes


class PlainEcho(roost.Request[bytes]):
    """Answered with its own payload, by a plain function."""

    payload: bytes


class Size(roost.Request[int]):
    """Answered with its payload's size."""

    payload: bytes


class Notice(roost.Message):
    """Counted where it arrives."""

    payload: bytes


class Counted(roost.Request[int]):
    """Answered when `count` notices in all have been read."""

    count: int


class Server(NamedTuple):
    """A running one."""

    pid: int
    port: int


def server_name(number: int) -> str:
    """The node name of a roost server; the first is number 1."""
    return f"echo-{number}"


@contextlib.contextmanager
def start(
    kind: str, *, tls: bool = False, stdlib_loop: bool = False, profile: bool = False, number: int = 1, seed: int = 0
) -> Iterator[Callable[[], Server]]:
    """Run a server in a process of its own, which joins the one at the port `seed`; call for it once it is wanted."""
    command = [sys.executable, "-m", "benchmarks.servers", kind, f"--number={number}", f"--seed={seed}"]
    command += ["--tls"] * tls + ["--stdlib-loop"] * stdlib_loop + ["--profile"] * profile
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def ready() -> Server:
        line = stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError(f"the {kind} server did not start (exit code {process.wait(5)})")
        return Server(process.pid, int(line))

    try:
        yield ready
    finally:
        stdin.close()
        stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def start_all(kind: str, count: int, *, tls: bool = False, stdlib_loop: bool = False) -> Iterator[list[Server]]:
    """Run several, the first before the others; those of roost are one cluster."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(start(kind, tls=tls, stdlib_loop=stdlib_loop))()
        others = [
            stack.enter_context(start(kind, tls=tls, stdlib_loop=stdlib_loop, number=number, seed=first.port))
            for number in range(2, count + 1)
        ]
        yield [first, *(ready() for ready in others)]


def run(main: Coroutine[Any, Any, None], *, stdlib_loop: bool) -> None:
    """On uvloop, or on the loop that Python brings."""
    if stdlib_loop:
        asyncio.run(main)
    else:
        uvloop.run(main)


@contextlib.asynccontextmanager
async def _served(kind: str, tls: bool, number: int, seed: int) -> AsyncIterator[int]:
    """Serve on this loop."""
    if kind == "bare":
        server, port = await bare_echo.serve(make_contexts().server if tls else None)
        async with server:
            yield port
        return
    seeds = [f"127.0.0.1:{seed}"] if seed else []
    name = server_name(number)
    async with roost.Node(name, cluster=CLUSTER, bind="127.0.0.1:0", seeds=seeds, tls=tls) as node:
        _answer(node)
        counting = asyncio.create_task(_count(node))
        yield int(node.address.rpartition(":")[2])
    await counting


def _answer(node: roost.Node) -> None:
    @node.answer(Echo)
    async def echo(letter: roost.Envelope[Echo]) -> bytes:
        return letter.body.payload

    @node.answer(PlainEcho)
    def plain_echo(letter: roost.Envelope[PlainEcho]) -> bytes:
        return letter.body.payload

    @node.answer(Size)
    async def size(letter: roost.Envelope[Size]) -> int:
        return len(letter.body.payload)


async def _count(node: roost.Node) -> None:
    """Read the notices, until the node stops."""
    count = 0
    awaited: dict[int, asyncio.Future[int]] = {}

    @node.answer(Counted)
    async def counted(letter: roost.Envelope[Counted]) -> int:
        wanted = letter.body.count
        if count < wanted:
            awaited[wanted] = asyncio.get_running_loop().create_future()
            return await awaited[wanted]
        return count

    async for _ in node.inbox(Notice):
        count += 1
        if count in awaited:
            awaited.pop(count).set_result(count)


async def _main(kind: str, tls: bool, number: int, seed: int) -> None:
    async with _served(kind, tls, number, seed) as port:
        print(port, flush=True)
        async for _ in lines_of_input():
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__)
    parser.add_argument("kind", choices=["bare", "roost"])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--stdlib-loop", action="store_true")
    parser.add_argument("--number", type=int, default=1, help="of several servers")
    parser.add_argument("--seed", type=int, default=0, help="the port of a server to join")
    parser.add_argument("--profile", action="store_true", help="print, at the end, where the time went")
    options = parser.parse_args()
    main = _main(options.kind, options.tls, options.number, options.seed)
    if options.profile:
        with cProfile.Profile() as profiler:
            run(main, stdlib_loop=options.stdlib_loop)
        print(f"\n{options.kind}, the answering end", file=sys.stderr)
        pstats.Stats(profiler, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    else:
        run(main, stdlib_loop=options.stdlib_loop)
