"""The load: the same closed loops for whatever is measured, so that only the thing itself differs.

`latency` has one call in flight; `throughput` keeps a number of callers busy for a time, each with one call at a time.
Each is bounded: whoever does not answer ends the run with an error, and not in silence.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, perf_counter_ns

import msgspec

__all__ = ["LARGE", "PAYLOAD", "STALL_SECONDS", "Call", "Outcome", "latency", "throughput", "warm_up"]

Call = Callable[[bytes], Awaitable[object]]
"""Send a payload, await what comes back."""

PAYLOAD = b"x" * 100
LARGE = {"64KiB": b"x" * 65536, "1MiB": b"x" * 1048576}
STALL_SECONDS = 10.0


class Outcome(msgspec.Struct, frozen=True):
    """Of one measuring."""

    count: int
    """Calls that were answered, or casts that arrived."""
    seconds: float
    p50_microseconds: float = 0.0
    """Of one call at a time; 0 where others were in flight."""
    p99_microseconds: float = 0.0


async def warm_up(call: Call) -> None:
    """Open the link, fill the caches, and see that the echo is one."""
    async with asyncio.timeout(STALL_SECONDS):
        for number in range(300):
            payload = PAYLOAD + number.to_bytes(2, "big")
            if await call(payload) != payload:
                raise RuntimeError("the echo answered something else")


async def latency(call: Call, seconds: float, payload: bytes = PAYLOAD) -> Outcome:
    """Round trips one after the other for `seconds`."""
    gc.collect()
    times: list[int] = []
    async with asyncio.timeout(seconds + STALL_SECONDS):
        started = before = perf_counter_ns()
        end = started + int(seconds * 1e9)
        while before < end:
            await call(payload)
            after = perf_counter_ns()
            times.append(after - before)
            before = after
    times.sort()
    p50, p99 = (times[len(times) * part // 100] / 1000 for part in (50, 99))
    return Outcome(len(times), (before - started) / 1e9, p50, p99)


async def throughput(calls: Sequence[Call], in_flight: int, seconds: float, payload: bytes = PAYLOAD) -> Outcome:
    """What `in_flight` callers finish, spread evenly over `calls`."""
    gc.collect()
    finished = 0

    async def caller(call: Call) -> None:
        nonlocal finished
        while perf_counter() < end:
            await call(payload)
            finished += 1

    started = perf_counter()
    end = started + seconds
    async with asyncio.timeout(seconds + STALL_SECONDS), asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(caller(calls[number % len(calls)]))
    return Outcome(finished, perf_counter() - started)
