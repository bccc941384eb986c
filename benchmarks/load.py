"""The load: the same closed loops for whatever is measured, so that only the thing itself differs.

`latency` has one call in flight and gives every round trip; `calls_per_second` keeps a number of callers busy for a
time. Each is bounded: whoever does not answer ends the run with an error, and not in silence.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from time import perf_counter, perf_counter_ns

__all__ = ["PAYLOAD", "Call", "calls_per_second", "latency", "warm_up"]

Call = Callable[[bytes], Awaitable[bytes]]
"""Send a payload, await the same one back."""

PAYLOAD = b"x" * 100
STALL_SECONDS = 10.0


async def warm_up(call: Call) -> None:
    """Open the link, fill the caches, and see that the echo is one."""
    async with asyncio.timeout(STALL_SECONDS):
        for number in range(300):
            payload = PAYLOAD + number.to_bytes(2, "big")
            if await call(payload) != payload:
                raise RuntimeError("the echo answered something else")


async def latency(call: Call, seconds: float) -> list[int]:
    """Round trips one after the other for `seconds`; nanoseconds, sorted."""
    gc.collect()
    times: list[int] = []
    async with asyncio.timeout(seconds + STALL_SECONDS):
        end = perf_counter() + seconds
        while perf_counter() < end:
            started = perf_counter_ns()
            await call(PAYLOAD)
            times.append(perf_counter_ns() - started)
    times.sort()
    return times


async def calls_per_second(call: Call, in_flight: int, seconds: float) -> float:
    """How many calls a second `in_flight` callers finish, each with one call at a time."""
    gc.collect()
    finished = 0

    async def caller() -> None:
        nonlocal finished
        while perf_counter() < end:
            await call(PAYLOAD)
            finished += 1

    started = perf_counter()
    end = started + seconds
    async with asyncio.timeout(seconds + STALL_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return finished / (perf_counter() - started)
