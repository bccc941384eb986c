"""Random histories of machines that keep copies, and whether the table of roles says all that happens and no more."""

from __future__ import annotations

import pytest

from tests.core.chaos import Chaos


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_crashes_one_after_the_other_lose_nothing(first: int) -> None:
    acknowledged = 0
    for seed in range(first, first + 15):
        chaos = Chaos(seed)
        chaos.run()
        acknowledged += len(chaos.world.acknowledged)
    assert acknowledged > 200


@pytest.mark.parametrize("first", range(500, 560, 15))
def test_crashes_at_any_time_lose_nothing_without_a_word(first: int) -> None:
    losses = 0
    for seed in range(first, first + 15):
        chaos = Chaos(seed, rough=True)
        chaos.run()
        losses += chaos.world.losses_ever
    assert losses, "nothing was rough"
