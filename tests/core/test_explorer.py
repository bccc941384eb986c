"""All orders of all events in small worlds; see `explorer.py`. The counts say that there was much to see.

Nobody is taken for down here who lives, so that at most one node may execute at any time, however late the views come:
whoever claims asks all that it does not know to be dead, the holder among them. (A holder that the claimer does not
know at all, since it has just joined, is waited for as long as `patience_seconds`; nobody joins here.)
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.explorer import Small, explore, met, small


def allowed(world: Small, **budget: int) -> Small:
    for name, count in budget.items():
        setattr(world, name, count)
    return world


BUDGETS: list[dict[str, int]] = [
    {"breaks": 1, "deaths": 1},
    {"repeats": 1, "writes": 1},
    {"deaths": 1, "writes": 1},
    {"ticks": 1},
]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_move_in_every_order(replicas: int, budget: dict[str, int]) -> None:
    world = small(2, replicas=replicas)
    world.turn((2, 1))
    assert explore(allowed(world, **budget), depth=12) > 50


@pytest.mark.parametrize("budget", BUDGETS[:3])
def test_a_move_to_a_newcomer_in_every_order(budget: dict[str, int]) -> None:
    world = small(3, replicas=2)
    world.turn((3, 1, 2))
    assert explore(allowed(world, **budget), depth=10) > 50


@pytest.mark.parametrize("budget", BUDGETS[:3])
def test_a_move_whose_ring_changes_back_in_the_middle_in_every_order(budget: dict[str, int]) -> None:
    world = small(2, replicas=2)
    world.turn((2, 1))
    world.turns = ((1, 2),)
    assert explore(allowed(world, **budget), depth=9) > 100


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("change", ["added", "replaced"])
def test_a_change_of_copies_in_every_order(change: str, budget: dict[str, int]) -> None:
    if change == "added":
        world = small(2, replicas=1)
        world.turn((1, 2), 2)
    else:
        world = small(3, replicas=2)
        world.turn((1, 3, 2))
    assert explore(allowed(world, **budget), depth=9) > 20


@pytest.mark.parametrize("write", ["majority", "all", "one"])
@pytest.mark.parametrize(("count", "replicas"), [(3, 2), (3, 3), (4, 3)])
def test_a_takeover_in_every_order(count: int, replicas: int, write: str) -> None:
    world = small(count, replicas=replicas, write=write)
    world.put(1)  # on its way to the copies
    world.crash(1)
    assert explore(allowed(world, deaths=1, breaks=1), depth=10 if count == 3 else 8) > 50


@pytest.mark.parametrize("budget", [{"breaks": 1}, {"writes": 1}, {"repeats": 1}])
@pytest.mark.parametrize("replicas", [1, 2])
def test_two_sides_that_each_wrote_meet_in_every_order(replicas: int, budget: dict[str, Any]) -> None:
    assert explore(allowed(met(replicas=replicas), **budget), depth=10) > 50
