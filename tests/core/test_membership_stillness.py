"""A node that stands still, for a moment or for long, while the clocks of the others go on."""

from __future__ import annotations

import random

import pytest

from roost.config import PROFILES
from roost.core.gossip import Ack, Health
from roost.core.membership import Received, Tick
from roost.core.stillness import LATE_SHARE, Stillness
from tests.core.swim_bench import FRIEND, SUBJECT, Bench
from tests.core.swim_world import World

LAN = PROFILES["lan"]
TIMEOUT = LAN.probe_timeout_seconds
ORDERS = pytest.mark.parametrize("timers_first", [False, True], ids=["messages first", "timers first"])


@ORDERS
@pytest.mark.parametrize("count", [2, 3])
def test_whoever_stands_still_for_less_than_the_suspicion_time_is_never_down_and_takes_nobody_for_it(
    count: int, timers_first: bool
) -> None:
    for phase in (0.0, 0.3, 0.7):
        for share in (0.02, 0.25, 0.75, 0.99):
            world = World(count, timings=LAN)
            nodes = world.cluster(count)
            world.run(3.0 + phase * LAN.probe_seconds)
            since = world.now
            world.block(nodes[-1], share * LAN.suspicion_seconds, timers_first=timers_first)
            world.run(20.0)
            assert not any(node.went_down(since) for node in nodes), world.describe(f"{phase} {share}")
            assert world.agree(nodes), world.describe(f"{phase} {share}")


@ORDERS
@pytest.mark.parametrize("seed", range(6))
def test_several_that_stand_still_now_and_then_cost_nobody_its_place(seed: int, timers_first: bool) -> None:
    chance = random.Random(seed)
    world = World(seed, timings=chance.choice([LAN, PROFILES["local"]]))
    nodes = world.cluster(6)
    since = world.now
    for _ in range(15):
        some = [node for node in chance.sample(nodes, chance.randint(1, 5)) if node.state == "running"]
        for node in some:
            world.block(node, chance.uniform(0.0, 0.99) * world.timings.suspicion_seconds, timers_first=timers_first)
        world.run(chance.uniform(0.1, 3.0) * world.timings.suspicion_seconds)
    world.run(2 * world.timings.suspicion_seconds)
    assert not any(node.went_down(since) for node in nodes), world.describe(f"seed {seed}")
    world.until(lambda: world.agree(nodes), 30.0)


@ORDERS
@pytest.mark.parametrize("seconds", [20.0, 300.0])
def test_whoever_stood_still_for_longer_comes_back_by_itself_without_any_seed(
    seconds: float, timers_first: bool
) -> None:
    world = World(3, timings=LAN)
    *rest, sleeper = nodes = world.cluster(4)
    sleeper.machine._contacts._due.clear()  # as if it had been started without seeds
    since = world.now
    world.block(sleeper, seconds, timers_first=timers_first)
    world.until(lambda: all(world.health(sleeper, one) == "down" for one in rest), 19.0)
    world.until(lambda: sleeper.state == "running", 301.0)
    assert world.until(lambda: world.agree(nodes), 20.0) < 8.0
    assert not sleeper.went_down(since), "the sleeper took others for down, who had gone on"
    last, longest = sleeper.machine.loop_lag_seconds
    assert seconds - 2.0 < last <= longest <= seconds


@ORDERS
def test_all_but_one_stand_still_and_none_is_lost(timers_first: bool) -> None:
    world = World(4, timings=LAN)
    awake, *sleepers = nodes = world.cluster(4)
    since = world.now
    for sleeper in sleepers:
        world.block(sleeper, 0.9 * LAN.suspicion_seconds, timers_first=timers_first)
    world.run(20.0)
    assert not awake.went_down(since)
    assert world.agree(nodes)


def test_a_refutation_that_came_meanwhile_is_read_before_its_suspicion_ends() -> None:
    bench = about_to_conclude()
    bench.now += 60.0
    bench.give(Tick())
    assert bench.stands("suspect")
    bench.give(Received(SUBJECT, Ack(0, [bench.subject(state="up", incarnation=2)], [])))
    bench.pass_time(TIMEOUT, alive=(FRIEND, SUBJECT))
    assert bench.stands("alive")


def test_a_suspect_of_whom_nothing_has_come_meanwhile_is_down_soon_after() -> None:
    bench = about_to_conclude()
    bench.now += 60.0
    bench.give(Tick())
    bench.pass_time(TIMEOUT)
    assert bench.stands("down")


def about_to_conclude() -> Bench:
    """The next thing that is due is the end of the subject's suspicion."""
    bench = Bench("suspect")
    bench.machine._suspicions.shorten(SUBJECT, bench.now + 0.01)
    bench.give(Tick())
    assert bench.machine.wake_at == bench.now + 0.01
    return bench


def test_suspicions_of_others_end_later_by_what_this_node_stood_still() -> None:
    bench = Bench("suspect")
    bench.pass_time(2.0)
    began = bench.now
    (ends,) = bench.machine._suspicion_ends().values()
    late = 7.0
    bench.now = bench.machine.wake_at + late
    bench.give(Tick())
    assert bench.machine._suspicion_ends()[SUBJECT] == pytest.approx(ends + late)
    assert bench.now > began


def test_standing_still_worsens_the_local_health_and_successful_probes_mend_it() -> None:
    bench = Bench("alive")
    assert bench.machine.local_health == 0
    bench.now = bench.machine.wake_at + TIMEOUT
    bench.give(Tick())
    assert bench.machine.local_health == 2
    bench.now = bench.machine.wake_at + 60.0
    bench.give(Tick())
    assert bench.machine.local_health == 8
    bench.pass_time(120.0, alive=(FRIEND, SUBJECT))
    assert bench.machine.local_health == 0


def test_a_timer_that_is_late_as_timers_are_is_no_standing_still() -> None:
    still = Stillness(TIMEOUT)
    assert still.note(10.0 + 0.99 * LATE_SHARE * TIMEOUT, 10.0) == 0.0
    assert still.note(10.0, 11.0) == 0.0
    assert (still.last_seconds, still.longest_seconds) == (0.0, 0.0)
    assert not still.holds(10.0)


def test_a_node_that_is_always_late_still_finds_out_who_is_dead() -> None:
    bench = Bench("alive")
    for _ in range(400):
        bench.now = bench.machine.wake_at + 2 * LATE_SHARE * TIMEOUT
        bench.give(Tick())
        bench.give(Received(FRIEND, Ack(0, [], [])))
        if bench.stands("down"):
            break
    known = bench.machine.get(SUBJECT)
    assert known is not None
    assert known.health == Health.DOWN
