"""A member that comes and goes keeps out of the rings for a while, and longer each time."""

from __future__ import annotations

import msgspec
import pytest

from roost.config import PROFILES
from roost.core.flapping import REST_FACTOR, Flapping
from roost.core.gossip import Health
from tests.core.swim_bench import Bench
from tests.core.swim_runner import Runner
from tests.core.swim_world import World

LAN = PROFILES["lan"]
FLAP = 30.0


def fall(bench: Bench) -> float:
    """A long-live friend says that this node is down; for how long it rests then."""
    bench.hear(msgspec.structs.replace(bench.machine.me, health=Health.DOWN))
    return bench.machine._flapping.rests_until - bench.now if bench.machine.me.resting else 0.0


def test_the_first_fall_is_free_and_each_further_one_costs_twice_the_rest_up_to_a_bound() -> None:
    bench = Bench()
    assert [fall(bench) for _ in range(8)] == [0.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]


def test_a_rest_ends_by_itself_and_all_are_told() -> None:
    bench = Bench()
    fall(bench)
    incarnation = bench.machine.me.incarnation
    assert fall(bench) == FLAP
    bench.pass_time(FLAP - 1.0)
    assert bench.machine.me.resting
    bench.pass_time(1.5)
    assert not bench.machine.me.resting
    assert bench.machine.me.incarnation == incarnation + 2


def test_windows_in_peace_are_forgiven_one_by_one() -> None:
    flapping = Flapping(FLAP)
    window = REST_FACTOR * FLAP
    assert [flapping.came_back(now) for now in (0.0, 1.0, 2.0)] == [False, True, True]
    assert flapping.rested(window)
    assert not flapping.came_back(2.0 + 3 * window)
    assert flapping.came_back(2.0 + 3 * window + 1.0)
    assert flapping.rests_until == 2.0 + 3 * window + 1.0 + FLAP


def test_a_fall_that_several_tell_of_is_one_fall() -> None:
    bench = Bench()
    claim = msgspec.structs.replace(bench.machine.me, health=Health.DOWN)
    for _ in range(5):
        bench.hear(claim)
    assert not bench.machine.me.resting


def test_a_fall_of_an_incarnation_that_is_over_counts_when_it_is_heard_of() -> None:
    bench = Bench()
    fall(bench)
    fallen = msgspec.structs.replace(bench.machine.me, health=Health.DOWN)
    bench.hear(msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT))
    assert bench.machine.me.incarnation == fallen.incarnation + 1
    bench.hear(fallen)
    assert bench.machine.me.resting


def test_being_suspected_is_no_fall() -> None:
    bench = Bench()
    for _ in range(5):
        bench.hear(msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT))
    assert not bench.machine.me.resting


def test_what_a_member_says_that_was_down_here_is_a_split_and_no_fall_of_the_greater_side() -> None:
    bench = Bench()
    bench.hear(bench.subject(state="up"))
    for incarnation in range(1, 9, 2):
        bench.hear(bench.subject(state="up", health=Health.DOWN, incarnation=incarnation))
        claim = msgspec.structs.replace(bench.machine.me, health=Health.DOWN)
        bench.hear(bench.subject(state="up", incarnation=incarnation + 1), claim, whole=True, source=3)
    assert not bench.machine.me.resting


def test_a_rest_is_part_of_the_digest() -> None:
    bench = Bench()
    fall(bench)
    before = bench.machine.digest()
    fall(bench)
    assert bench.machine.digest() != before


@pytest.mark.parametrize("how", ["silent", "cut off"])
def test_a_member_that_flaps_rests_the_longer_and_everybody_sees_it(how: str) -> None:
    world = World(1, timings=LAN)
    *rest, flapper = nodes = world.cluster(4)
    rests: list[float] = []
    for _ in range(4):
        if how == "silent":
            world.freeze(flapper)
        else:
            world.cut(rest, [flapper])
        world.until(lambda: all(world.health(flapper, one) == "down" for one in rest), 30.0)
        if how == "cut off":
            world.until(lambda: world.agree([flapper]), 60.0)
        world.heal()
        if how == "silent":
            world.thaw(flapper)
        world.until(lambda: world.agree(nodes), 30.0)
        assert all(resting(one, flapper) == flapper.machine.me.resting for one in rest)
        rests.append(flapper.machine._flapping.rests_until - world.now if flapper.machine.me.resting else 0.0)
    assert rests[0] == 0.0
    assert rests[1] == pytest.approx(FLAP, abs=3.0)
    assert rests[2] == pytest.approx(2 * FLAP, abs=3.0)
    assert rests[3] == pytest.approx(4 * FLAP, abs=3.0)
    assert not any(one.machine.me.resting for one in rest), "those that stayed together must not rest"
    world.run(5 * FLAP)
    assert world.agree(nodes)
    assert not any(resting(one, flapper) for one in nodes)


def resting(at: Runner, of: Runner) -> bool:
    known = at.machine.get(of.uid)
    return known is not None and known.resting


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 2), (3, 3)], ids=str)
def test_a_split_that_heals_again_and_again_makes_at_most_the_smaller_side_rest(sizes: tuple[int, int]) -> None:
    world = World(2, timings=LAN)
    nodes = world.cluster(sum(sizes))
    left, right = nodes[: sizes[0]], nodes[sizes[0] :]
    for _ in range(4):
        world.cut(left, right)
        world.until(lambda: world.agree(left) and world.agree(right), 60.0)
        world.heal()
        world.until(lambda: world.agree(nodes), 30.0)
    assert not any(node.machine.me.resting for node in left)
    assert any(node.machine.me.resting for node in right) == (len(right) < len(left))


def test_a_node_that_leaves_or_joins_does_not_rest() -> None:
    for own in ("joining", "leaving"):
        bench = Bench(own=own)
        assert [fall(bench) for _ in range(3)] == [0.0, 0.0, 0.0]
