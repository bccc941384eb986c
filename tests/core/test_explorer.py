"""All orders of all events in small worlds; see `explorer.py`. The counts say that there was much to see."""

from __future__ import annotations

import pytest

from tests.core.explorer import explore, two_worlds_met, world_of


@pytest.mark.parametrize("chunk_bytes", [1 << 16, 60])
def test_a_move_survives_every_order_of_losses_writes_and_one_crash(chunk_bytes: int) -> None:
    world = world_of(2, holder=1, primary=2, chunk_bytes=chunk_bytes)
    world.ticks, world.breaks, world.crashes, world.writes = 2, 1, 1, 1
    assert explore(world, depth=12, rest_every=11) > 1000


def test_a_move_turns_to_the_newest_primary_whenever_the_ring_changes() -> None:
    world = world_of(3, holder=1, primary=2)
    world.turns = [3, 1]
    world.ticks = 1
    assert explore(world, depth=8, rest_every=11) > 1000


def test_a_crash_of_any_of_three_at_any_step_of_a_move_loses_nothing_silently() -> None:
    world = world_of(3, holder=1, primary=2)
    world.ticks, world.crashes, world.writes = 1, 1, 1
    assert explore(world, depth=9, rest_every=9) > 1000


def test_of_those_who_claim_one_becomes_the_holder_however_their_views_follow_each_other() -> None:
    world = world_of(3, holder=0, primary=2)
    world.turns = [1, 3]
    world.crashes, world.writes = 1, 1
    assert explore(world, depth=7, rest_every=11) > 1000


@pytest.mark.parametrize("primary", [1, 2])
def test_of_two_holders_that_meet_the_lower_gives_way_and_nothing_is_lost(primary: int) -> None:
    world = two_worlds_met(primary=primary)
    world.ticks, world.breaks, world.writes = 2, 1, 1
    assert explore(world, depth=7, rest_every=5) > 300
