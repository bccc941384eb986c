"""Some random lives of each climate; `make soak SEEDS=n` lives more."""

from __future__ import annotations

import pytest

from tests.sim.world import CLIMATES, Climate, live

LIVES = 7


@pytest.mark.parametrize("seed", range(LIVES))
@pytest.mark.parametrize("climate", CLIMATES)
def test_a_random_life_keeps_every_promise(climate: Climate, seed: int) -> None:
    world = live(seed, climate)
    assert world.operations > 50
