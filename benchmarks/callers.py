"""The calling ends of roost and of the bare echo: `python -m benchmarks.callers bare|roost` and see `driver.py`.

Each starts its servers itself, in processes of their own: one, or for the fan-out several, which are one cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import functools
import pstats
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import NamedTuple

import roost
from benchmarks import bare_echo
from benchmarks.driver import Job, calls_of, drive, fan_out_of, large_of
from benchmarks.load import PAYLOAD, STALL_SECONDS, Call, Outcome, throughput, warm_up
from benchmarks.servers import (
    CLUSTER,
    PROFILE_LINES,
    Counted,
    Echo,
    Notice,
    PlainEcho,
    Server,
    Size,
    run,
    server_name,
    start,
    start_all,
)
from roost.net.tls import make_contexts

__all__ = ["Caller", "bare_caller", "profile", "roost_caller"]


class Caller(NamedTuple):
    """A calling end that is connected."""

    echoes: list[Call]
    """One a server."""
    size: Call
    casts: Job


@contextlib.asynccontextmanager
async def bare_caller(servers: Sequence[Server], *, tls: bool) -> AsyncIterator[Caller]:
    """The bare echo's."""
    context = make_contexts().client if tls else None
    clients = [await bare_echo.connect(server.port, context) for server in servers]
    try:
        first = clients[0]
        yield Caller([client.call for client in clients], first.size, functools.partial(_bare_casts, first))
    finally:
        for client in clients:
            client.close()


async def _bare_casts(echo: bare_echo.BareEcho, seconds: float) -> Outcome:
    """Casts for `seconds`; every 2048th is waited for, since nothing else holds a sender back."""
    started = perf_counter()
    arrived = 0
    async with asyncio.timeout(seconds + STALL_SECONDS):
        while perf_counter() < started + seconds:
            for _ in range(32):
                for _ in range(64):
                    echo.cast(PAYLOAD)
                await asyncio.sleep(0)
            arrived += int.from_bytes(await echo.call(b"", "casts"), "big")
    return Outcome(arrived, perf_counter() - started)


@contextlib.asynccontextmanager
async def roost_caller(servers: Sequence[Server], *, tls: bool, plain: bool = False) -> AsyncIterator[Caller]:
    """A node's. `plain`: the handler that answers is a plain function."""
    seeds = [f"127.0.0.1:{servers[0].port}"]
    async with roost.Node("caller", cluster=CLUSTER, bind="127.0.0.1:0", seeds=seeds, tls=tls) as node:
        async with asyncio.timeout(STALL_SECONDS):
            await node.ready(len(servers) + 1)
        request = PlainEcho if plain else Echo
        names = [server_name(number) for number in range(1, len(servers) + 1)]
        sent = 0

        def echo_of(name: str) -> Call:
            return lambda payload: node.ask(name, request(payload))

        async def casts(seconds: float) -> Outcome:
            nonlocal sent
            before = sent
            started = perf_counter()
            async with asyncio.timeout(seconds + STALL_SECONDS):
                while perf_counter() < started + seconds:
                    for _ in range(64):
                        await node.send(names[0], Notice(PAYLOAD))
                    sent += 64
                await node.ask(names[0], Counted(sent), timeout=STALL_SECONDS)
            return Outcome(sent - before, perf_counter() - started)

        yield Caller([echo_of(name) for name in names], lambda payload: node.ask(names[0], Size(payload)), casts)


async def profile(what: str, *, tls: bool, in_flight: int, seconds: float) -> None:
    """Print where both ends spend their time, function by function; the profiler itself slows both down."""
    with start(what, tls=tls, profile=True) as ready:
        server = ready()
        connected = bare_caller([server], tls=tls) if what == "bare" else roost_caller([server], tls=tls)
        async with connected as caller:
            await warm_up(caller.echoes[0])
            with cProfile.Profile() as profiler:
                outcome = await throughput(caller.echoes, in_flight, seconds)
    rate = outcome.count / outcome.seconds
    print(f"\n{what}, the calling end, {in_flight} in flight, {rate:,.0f} calls/s under the profiler")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)


async def _main(what: str, servers: Sequence[Server], *, tls: bool, plain: bool) -> None:
    connected = bare_caller(servers, tls=tls) if what == "bare" else roost_caller(servers, tls=tls, plain=plain)
    async with connected as caller:
        jobs = calls_of(caller.echoes[0]) | large_of(caller.size) | fan_out_of(caller.echoes)
        jobs["casts"] = caller.casts
        await drive(jobs, echoes=caller.echoes, answering=[server.pid for server in servers], between=[])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.callers", description=__doc__)
    parser.add_argument("what", choices=["bare", "roost"])
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--stdlib-loop", action="store_true")
    parser.add_argument("--plain", action="store_true", help="answered by a plain function")
    options = parser.parse_args()
    with start_all(options.what, options.servers, tls=options.tls, stdlib_loop=options.stdlib_loop) as started:
        main = _main(options.what, started, tls=options.tls, plain=options.plain)
        run(main, stdlib_loop=options.stdlib_loop)
