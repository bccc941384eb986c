"""Thirty random lives of a cluster; `make soak SEEDS=n` lives more."""

from __future__ import annotations

import pytest

from tests.sim.world import Climate, live


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("climate", ["calm", "split", "rough"])
def test_a_random_life_keeps_every_promise(climate: Climate, seed: int) -> None:
    world = live(seed, climate)
    assert world.operations > 100
