"""Calls between two processes: roost, with an async handler, beside the bare echo, in turns.

All four servers (bare and roost, plain and TLS) run for the whole time, and every round measures each of them, so that
whatever else the machine does hits all alike. The figures are the medians of the rounds.
"""

from __future__ import annotations

import contextlib
import cProfile
import os
import pstats
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

import msgspec

import roost
from benchmarks import bare_echo
from benchmarks.load import Call, calls_per_second, latency, warm_up
from benchmarks.processor import processor_seconds
from benchmarks.servers import CLUSTER, PROFILE_LINES, SERVER_NAME, Echo, Server, start
from roost.net.tls import make_contexts

__all__ = ["IN_FLIGHT", "KINDS", "Figures", "Plan", "measure", "profile"]

IN_FLIGHT = (64, 1024)
KINDS = (("bare", False), ("roost", False), ("bare", True), ("roost", True))
"""(what, with TLS), in the order of a round."""


class Plan(NamedTuple):
    """How long it takes: rounds x 4 kinds x 3 measurings."""

    rounds: int
    seconds: float


class Figures(msgspec.Struct, frozen=True):
    """One kind of call."""

    what: str
    tls: bool
    p50_microseconds: float
    p99_microseconds: float
    calls_per_second: dict[int, float]
    """By the number of calls in flight."""
    processor_microseconds: dict[int, tuple[float, float]]
    """Of a call at the calling and at the answering end. Other work on the machine hardly changes it."""


class Round(NamedTuple):
    """Calls a second, and processor seconds of a call at both ends."""

    rate: float
    calling: float
    answering: float


async def _round(call: Call, server: Server, in_flight: int, seconds: float) -> Round:
    before = processor_seconds(os.getpid()), processor_seconds(server.pid)
    began = perf_counter()
    rate = await calls_per_second(call, in_flight, seconds)
    calls = rate * (perf_counter() - began)
    calling, answering = processor_seconds(os.getpid()) - before[0], processor_seconds(server.pid) - before[1]
    return Round(rate, calling / calls, answering / calls)


@contextlib.asynccontextmanager
async def _caller(what: str, tls: bool, port: int) -> AsyncIterator[Call]:
    """The calling end, connected and warm."""
    if what == "bare":
        client = await bare_echo.connect(port, make_contexts().client if tls else None)
        await warm_up(client.call)
        try:
            yield client.call
        finally:
            client.close()
        return
    address = f"127.0.0.1:{port}"
    async with roost.Node("caller", cluster=CLUSTER, bind="127.0.0.1:0", seeds=[address], tls=tls) as node:
        await node.ready(2)

        def call(payload: bytes) -> Awaitable[bytes]:
            return node.ask(SERVER_NAME, Echo(payload))

        await warm_up(call)
        yield call


async def measure(plan: Plan, progress: Callable[[str], None]) -> list[Figures]:
    """Run the rounds; medians."""
    times: dict[tuple[str, bool], list[list[int]]] = {kind: [] for kind in KINDS}
    rounds: dict[tuple[str, bool], dict[int, list[Round]]] = {kind: {n: [] for n in IN_FLIGHT} for kind in KINDS}
    async with contextlib.AsyncExitStack() as stack:
        callers = {}
        for what, tls in KINDS:
            server = stack.enter_context(start(what, tls=tls))
            callers[what, tls] = server, await stack.enter_async_context(_caller(what, tls, server.port))
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for kind, (server, call) in callers.items():
                times[kind].append(await latency(call, plan.seconds))
                for in_flight in IN_FLIGHT:
                    rounds[kind][in_flight].append(await _round(call, server, in_flight, plan.seconds))
    return [
        Figures(
            what=kind[0],
            tls=kind[1],
            p50_microseconds=round(median(trips[len(trips) // 2] for trips in times[kind]) / 1000, 1),
            p99_microseconds=round(median(trips[len(trips) * 99 // 100] for trips in times[kind]) / 1000, 1),
            calls_per_second={n: round(median(each.rate for each in found)) for n, found in rounds[kind].items()},
            processor_microseconds={
                n: (
                    round(median(each.calling for each in found) * 1e6, 2),
                    round(median(each.answering for each in found) * 1e6, 2),
                )
                for n, found in rounds[kind].items()
            },
        )
        for kind in KINDS
    ]


async def profile(what: str, *, tls: bool, in_flight: int, seconds: float) -> None:
    """Print where both ends spend their time, function by function; the profiler itself slows both down."""
    with start(what, tls=tls, profile=True) as server:
        async with _caller(what, tls, server.port) as call:
            with cProfile.Profile() as profiler:
                rate = await calls_per_second(call, in_flight, seconds)
    print(f"\n{what}, the calling end, {in_flight} in flight, {rate:,.0f} calls/s under the profiler")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
