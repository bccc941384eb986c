"""Whether unix sockets would pay between nodes of one host: `python -m benchmarks.unix_sockets`.

The bare echo over TCP on loopback and over a unix socket with an abstract name, in plain text, in turns. Both ends of
both are one pair of processes, so that nothing differs but the socket.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from statistics import median

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import bare_echo
from benchmarks.driver import LARGE_IN_FLIGHT, lines_of_input
from benchmarks.load import LARGE, Outcome, latency, throughput, warm_up

__all__ = ["JOBS", "KINDS", "compare"]

SMALL = b"x" * 150
KINDS = ("tcp", "unix")

Job = Callable[[bare_echo.BareEcho, float], Awaitable[Outcome]]


def _one(payload: bytes) -> Job:
    return lambda echo, seconds: latency(echo.size, seconds, payload)


def _many(in_flight: int, payload: bytes) -> Job:
    return lambda echo, seconds: throughput([echo.size], in_flight, seconds, payload)


JOBS: dict[str, Job] = {
    "150 B, one at a time": _one(SMALL),
    "150 B, 64 in flight": _many(64, SMALL),
    "64 KiB, one at a time": _one(LARGE["64KiB"]),
    "64 KiB, 8 in flight": _many(LARGE_IN_FLIGHT, LARGE["64KiB"]),
    "1 MiB, one at a time": _one(LARGE["1MiB"]),
    "1 MiB, 8 in flight": _many(LARGE_IN_FLIGHT, LARGE["1MiB"]),
}
"""The payload goes one way, its size comes back."""


def _abstract(name: str) -> socket.socket:
    """A listening socket with a name in no file system. uvloop takes such a one only ready made."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{name}")
    listening.listen()
    listening.setblocking(False)
    return listening


async def _serve(name: str) -> None:
    tcp, port = await bare_echo.serve(None)
    unix, _ = await bare_echo.serve(None, _abstract(name))
    async with tcp, unix:
        print(port, flush=True)
        async for _ in lines_of_input():
            pass


@contextlib.asynccontextmanager
async def _connected(name: str, port: int) -> AsyncIterator[dict[str, bare_echo.BareEcho]]:
    near = socket.socket(socket.AF_UNIX)
    near.setblocking(False)
    near.connect(f"\0{name}")
    echoes = {"tcp": await bare_echo.connect(port, None), "unix": await bare_echo.connect(0, None, near)}
    try:
        for echo in echoes.values():
            await warm_up(echo.call)
        yield echoes
    finally:
        for echo in echoes.values():
            echo.close()


@contextlib.contextmanager
def _server(name: str) -> Iterator[int]:
    """The answering end in a process of its own, and its port."""
    command = [sys.executable, "-m", "benchmarks.unix_sockets", f"--serve={name}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


async def compare(rounds: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    """Microseconds of a call by job and kind, one a round: its p50, or with many in flight its share of the time."""
    name = f"roost-bench-{os.getpid()}-{secrets.token_hex(4)}"
    found: dict[tuple[str, str], list[float]] = {(job, kind): [] for job in JOBS for kind in KINDS}
    with _server(name) as port:
        async with _connected(name, port) as echoes:
            for number in range(rounds):
                for job, measure in JOBS.items():
                    for kind in KINDS if number % 2 else KINDS[::-1]:
                        outcome = await measure(echoes[kind], seconds)
                        found[job, kind].append(outcome.p50_microseconds or outcome.seconds / outcome.count * 1e6)
    return found


def main() -> None:
    """Compare, and show."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unix_sockets", description=__doc__)
    parser.add_argument("--serve", default="", metavar="NAME", help="be the answering end")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measuring")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(options.serve))
        return
    load = os.getloadavg()[0]
    found = uvloop.run(compare(options.rounds, options.seconds))
    table = Table("microseconds a call", "tcp", "unix", "unix : tcp", "rounds", show_edge=False)
    for job in JOBS:
        tcp, unix = (found[job, kind] for kind in KINDS)
        ratios = [mine / other for mine, other in zip(unix, tcp, strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        table.add_row(job, f"{median(tcp):.1f}", f"{median(unix):.1f}", f"{median(ratios):.2f}", spread)
    console = Console()
    console.print(table)
    console.print(f"medians of {options.rounds} rounds of {options.seconds:g} s; load before: {load:.1f}")


if __name__ == "__main__":
    main()
