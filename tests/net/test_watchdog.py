"""The watchdog beside real loops: who it names, and when it keeps quiet."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import roost
import roost.testing
from roost import watchdog
from tests.net.ends import eventually, on_both_loops

SECONDS = 0.1
TRIES_MAX = 6


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[roost.Node]:
    async with roost.Node("a", bind="127.0.0.1:0", profile="local", blocked_loop_seconds=SECONDS) as node:
        await eventually(lambda: len(threads()) == 1)
        yield node


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "roost watchdog"]


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def count_up(seconds: float) -> None:
    """Hold the interpreter for about so long: `sum` over a range never lets go of it."""
    begin = time.perf_counter()
    sum(range(1_000_000))
    a_million_seconds = time.perf_counter() - begin
    sum(range(int(1_000_000 * seconds / a_million_seconds)))


async def blocked(node: roost.Node, by: Callable[[], object]) -> dict[str, Any]:
    """Let the loop be blocked, and return what the status then says of the last block."""
    before = node.status()["blocked_loop"]["count"]
    by()
    await eventually(lambda: node.status()["blocked_loop"]["count"] > before)
    last: dict[str, Any] = node.status()["blocked_loop"]["last"]
    return last


@on_both_loops
async def test_who_blocks_is_named_while_it_does_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    async with watched() as node:
        last = await blocked(node, lambda: spin(8 * SECONDS))
        assert "test_watchdog.py" in last["what"]
        assert last["seconds"] > 7 * SECONDS
        during, after = (record.getMessage() for record in caplog.records if record.name == "roost.watchdog")
        assert during.startswith("a: the event loop has been blocked for") and "blocked.<locals>" not in during
        assert f"{spin.__code__.co_filename}:" in during.partition("it is at ")[2]
        assert after.startswith("a: the event loop goes on after") and last["what"] in after
        json.dumps(node.status())


@on_both_loops
async def test_the_outermost_function_of_the_user_is_named_and_the_line_it_is_at(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rooms:
        async def tally(self) -> None:
            await self._add()

        async def _add(self) -> None:
            functools.reduce(lambda _, number: spin(number * SECONDS), range(4), None)

    async with watched() as node:
        await asyncio.sleep(0)
        await asyncio.create_task(Rooms().tally())
        await eventually(lambda: node.status()["blocked_loop"]["count"] == 1)
        what = node.status()["blocked_loop"]["last"]["what"]
        assert what.startswith("test_the_outermost_function_of_the_user_is_named")
        assert ".Rooms.tally (" in what
        assert f":{Rooms.tally.__code__.co_firstlineno})" in what
        assert f":{spin.__code__.co_firstlineno + 2}" in caplog.text  # the loop in `spin`, or the line after


@on_both_loops
async def test_who_holds_the_interpreter_is_named_when_it_lets_go() -> None:
    async with watched() as node:

        def adds() -> None:
            count_up(0.5)

        loop = asyncio.get_running_loop()
        assert await blamed(node, lambda: loop.call_soon(adds), "adds")


@on_both_loops
async def test_another_thread_that_holds_the_interpreter_is_not_taken_for_a_handler() -> None:
    async with watched() as node:
        assert await blamed(node, lambda: threading.Thread(target=count_up, args=(0.5,)).start(), watchdog.OTHER_THREAD)


async def blamed(node: roost.Node, by: Callable[[], object], whom: str) -> bool:
    """Try some times: on a crowded machine the truth may be that it had no time for the process."""
    for _ in range(TRIES_MAX):
        if whom in (await blocked(node, by))["what"]:
            return True
    return False


@on_both_loops
async def test_an_idle_loop_and_short_work_are_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    async with roost.Node("a", bind="127.0.0.1:0", profile="local", blocked_loop_seconds=0.5):
        for _ in range(5):
            spin(0.1)
            await asyncio.sleep(0.1)
        assert not any("test_watchdog.py" in record.getMessage() for record in caplog.records)


@on_both_loops
async def test_one_thread_watches_a_loop_until_its_last_node_stops() -> None:
    async with watched() as a:
        async with roost.Node("b", bind="127.0.0.1:0", profile="local", seeds=[a.address]) as b:
            await b.ready(2)
            assert len(threads()) == 1
        assert len(threads()) == 1
        last = await blocked(a, lambda: spin(3 * SECONDS))
        assert a.status()["blocked_loop"]["longest"] == last
    await eventually(lambda: not threads())


@on_both_loops
async def test_zero_switches_it_off() -> None:
    async with roost.Node("a", bind="127.0.0.1:0", profile="local", blocked_loop_seconds=0) as node:
        assert node.status()["blocked_loop"] is None
        await eventually(lambda: not threads())


def test_a_loop_that_nobody_runs_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner() as runner:
        node = roost.Node("a", bind="127.0.0.1:0", profile="local", blocked_loop_seconds=SECONDS)
        runner.run(node.start())
        runner.run(asyncio.sleep(2 * SECONDS))
        time.sleep(5 * SECONDS)
        runner.run(asyncio.sleep(2 * SECONDS))
        assert node.status()["blocked_loop"]["count"] == 0
        runner.run(node.stop())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_simulator_is_not_watched(cluster: roost.testing.Cluster) -> None:
    before = threads()  # those of other tests may still be ending
    (node,) = await cluster.start(1)
    assert node.status()["blocked_loop"] is None
    assert set(threads()) <= set(before)
