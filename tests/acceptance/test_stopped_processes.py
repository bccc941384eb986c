"""Processes that stand still (SIGSTOP) and go on: for less than the suspicion time and for more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from roost.config import PROFILES
from tests.net.workers import Team, Worker, downs, run

SUSPICION = PROFILES["local"].suspicion_seconds
BACK_SECONDS_MAX = 8.0
"""To be up again everywhere: a down member is contacted every `rejoin_seconds`, which are five."""

with_each_as_victim = pytest.mark.parametrize("number", [0, 2], ids=["dialled-by-all", "dials-all"])


async def asked_by(workers: list[Worker]) -> None:
    """Everybody reaches everybody."""
    for one in workers:
        for other in workers:
            assert await one.do("who", other.name) == other.name


@with_each_as_victim
def test_who_stood_still_for_less_than_the_suspicion_time_is_down_for_nobody_and_nobody_for_it(
    tmp_path: Path, number: int
) -> None:
    async def test(team: Team) -> None:
        workers = await team.start_all("a", "b", "c")
        await asked_by(workers)
        stopped = time.monotonic()
        for _ in range(2):
            await workers[number].stand_still(SUSPICION / 2)
            await asked_by(workers)
        await team.ready(*workers)
        assert downs(workers, stopped) == []
        log = workers[number].log.read_text()
        assert "the process stood still" in log
        assert "the event loop has been blocked" not in log

    run(tmp_path, test)


@with_each_as_victim
def test_who_stood_still_for_longer_is_down_and_comes_back_as_itself(tmp_path: Path, number: int) -> None:
    async def test(team: Team) -> None:
        workers = await team.start_all("a", "b", "c")
        await asked_by(workers)
        victim = workers[number]
        others = [worker for worker in workers if worker is not victim]
        (uid,) = {seen.uid for seen in others[0].events if seen.name == victim.name}
        stopped = time.monotonic()
        victim.stop()
        for other in others:
            assert await other.sees(victim.name, "down", stopped) - stopped > SUSPICION / 2
        assert await others[0].do("who", others[1].name) == others[1].name
        went_on = time.monotonic()
        victim.go_on()
        for other in others:
            await other.sees(victim.name, "up", went_on, seconds=BACK_SECONDS_MAX)
        await team.ready(*workers)
        await asked_by(workers)
        assert {seen.uid for seen in others[0].events if seen.name == victim.name} == {uid}
        assert downs(others, stopped) == [f"{other.name}: {victim.name}" for other in others]
        assert "the process stood still" in victim.log.read_text()

    run(tmp_path, test)
