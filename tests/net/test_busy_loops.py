"""A handler that blocks its node's loop: not a dead node, and after the suspicion time not for good."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from roost.config import PROFILES
from tests.net.workers import Team, Worker, downs, run

BACK_SECONDS_MAX = 8.0
"""To be up again everywhere: a down member is contacted every `rejoin_seconds`, which are five."""


def blocks(worker: Worker) -> list[str]:
    """What its watchdog says, but for times in which the machine had none for the process."""
    lines = worker.log.read_text().splitlines()
    return [line for line in lines if " roost.watchdog " in line and "the event loop" in line]


@pytest.mark.parametrize("how", ["spin", "add", "sleep"])
def test_a_loop_blocked_for_less_than_the_suspicion_time_is_no_dead_node(tmp_path: Path, how: str) -> None:
    assert PROFILES["local"].suspicion_seconds >= 2.0

    async def test(team: Team) -> None:
        workers = a, b, c = await team.start_all("a", "b", "c")
        since = time.monotonic()
        for busy, other in ((a, c), (b, a)):
            for seconds in (0.1, 0.5, 1.0):
                work = asyncio.ensure_future(other.do("work", busy.name, how, seconds))
                meanwhile = asyncio.ensure_future(other.do("who", busy.name))
                assert await work == how
                assert await meanwhile == busy.name
                assert await busy.do("who", other.name) == other.name
        await team.ready(*workers)
        assert downs(workers, since) == []
        for busy in (a, b):
            assert all("Worker.serve.<locals>.work (" in line for line in blocks(busy)), blocks(busy)
            blocked = (await busy.do("status"))["blocked_loop"]
            assert "Worker.serve.<locals>.work (" in blocked["longest"]["what"]
            assert blocked["longest"]["seconds"] > 0.5
        assert blocks(c) == []

    run(tmp_path, test)


@pytest.mark.parametrize(("how", "seconds"), [("spin", 5.0), ("sleep", 8.0)])
def test_a_loop_blocked_for_longer_is_down_and_back_by_itself_with_all_that_it_holds(
    tmp_path: Path, how: str, seconds: float
) -> None:
    async def test(team: Team) -> None:
        workers = a, b, c = await team.start_all("a", "b", "c")
        words = {f"word {number}": f"from {number}" for number in range(64)}
        await asyncio.gather(*(c.do("put", key, value) for key, value in words.items()))
        since = time.monotonic()
        work = asyncio.ensure_future(c.do("work", "b", how, seconds))
        for other in (a, c):
            await other.sees("b", "down", since)
        named = blocks(b)
        assert len(named) == 1, named
        assert "b: the event loop has been blocked for" in named[0] and "Worker.serve.<locals>.work (" in named[0]
        assert await a.do("who", "c") == "c"
        await asyncio.wait([work])
        over = time.monotonic()
        for other in (a, c):
            await other.sees("b", "up", since, seconds=seconds + BACK_SECONDS_MAX)
        await team.ready(*workers)
        assert time.monotonic() - over < seconds + BACK_SECONDS_MAX
        assert "b: the event loop goes on after" in blocks(b)[1]
        while not all(await asyncio.gather(*(worker.do("quiet") for worker in workers))):
            await asyncio.sleep(0.1)
        for worker in workers:
            found = await asyncio.gather(*(worker.do("get", key) for key in words))
            assert dict(zip(words, found, strict=True)) == words

    run(tmp_path, test)
