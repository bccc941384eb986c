"""What goes wrong in the field's best systems, and must not here: each test names one such trouble."""

from __future__ import annotations

import pytest

from roost.config import PROFILES
from tests.core.swim_runner import Runner
from tests.core.swim_world import World

LAN = PROFILES["lan"]


@pytest.mark.parametrize("seeded", [True, False], ids=["with seeds", "without seeds"])
def test_a_node_that_was_isolated_for_long_rejoins_by_itself(seeded: bool) -> None:
    world = World(1)
    *rest, isolated = nodes = world.cluster(4, forget_seconds=86_400.0)
    if not seeded:
        for node in nodes:
            node.machine._contacts._due.clear()  # nobody remembers a seed
    world.cut(rest, [isolated])
    world.until(lambda: world.agree(rest) and world.agree([isolated]), 60.0)
    world.run(600.0)
    world.heal()
    assert world.until(lambda: world.agree(nodes), 20.0) < 10.0


@pytest.mark.parametrize("direction", ["hears nobody", "is heard by nobody", "is heard by one alone"])
def test_one_half_reachable_node_costs_no_other_member_its_place_and_makes_no_storm(direction: str) -> None:
    world = World(2, timings=LAN)
    half, *rest = nodes = world.cluster(8)
    if direction == "hears nobody":
        world.cut(rest, [half], both=False)
    elif direction == "is heard by nobody":
        world.cut([half], rest, both=False)
    else:
        world.cut([half], rest[1:])
    since = world.now
    for node in nodes:
        node.sent = 0
    seconds = 120.0
    world.run(seconds)
    fallen = {name for node in rest for name in node.went_down(since)}
    assert fallen <= {half.name}, "members that reach each other were taken for dead"
    periods = seconds / LAN.probe_seconds
    assert max(node.sent for node in rest) / periods < 12
    if direction == "is heard by one alone":
        assert not fallen
    world.heal()
    world.until(lambda: world.agree(nodes), 30.0)


@pytest.mark.parametrize("slow", [1, 3])
def test_nodes_that_are_always_busy_cost_nobody_its_place(slow: int) -> None:
    world = World(3, timings=LAN)
    nodes = world.cluster(8)
    since = world.now
    for _ in range(60):
        for node in nodes[:slow]:
            if node.state == "running":
                world.block(node, world.rng.uniform(0.2, 1.5), timers_first=True)
        world.run(world.rng.uniform(0.3, 1.6))
    assert not any(node.went_down(since) for node in nodes)
    world.until(lambda: all(node.state == "running" for node in nodes), 5.0)
    world.until(lambda: world.agree(nodes), 30.0)


def agree_apart(world: World, *sides: list[Runner]) -> bool:
    return all(world.agree(side) for side in sides)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_that_formed_apart_at_start_up_always_merge(seed: int) -> None:
    world = World(seed)
    names = [f"n{index}" for index in range(6)]
    nodes = [world.start(name, *names) for name in names]
    sides = [nodes[:2], nodes[2:4], nodes[4:]]
    for side in sides:
        world.cut(side, [node for node in nodes if node not in side])
    world.until(lambda: agree_apart(world, *sides), 20.0)
    world.run(600.0)
    world.heal()
    assert world.until(lambda: world.agree(nodes), 20.0) < 10.0
