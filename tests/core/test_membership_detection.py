"""Who is taken for dead, and how fast; and who is not."""

from __future__ import annotations

import pytest

from roost.config import PROFILES
from roost.core.gossip import Health
from roost.core.membership import SelfChanged
from tests.core.swim_runner import Runner
from tests.core.swim_world import World

LOCAL = PROFILES["local"]
LAN = PROFILES["lan"]


def all_hold(world: World, subject: Runner, health: str, at: list[Runner]) -> bool:
    return all(world.health(subject, one) == health for one in at)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_killed_process_is_down_everywhere_well_within_a_second(count: int) -> None:
    world = World(count, timings=LOCAL)
    *rest, victim = world.cluster(count)
    world.crash(victim)
    took = world.until(lambda: all_hold(world, victim, "down", rest), 1.0)
    assert LOCAL.refused_seconds <= took <= LOCAL.refused_seconds + 0.3
    assert world.until(lambda: world.agree(rest), 2.0) <= 1.0


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_silent_host_is_down_everywhere_after_the_suspicion_time(count: int) -> None:
    world = World(count, timings=LAN)
    *rest, victim = world.cluster(count)
    world.freeze(victim)
    took = world.until(lambda: all_hold(world, victim, "down", rest), 60.0)
    # In the worst case it has just been probed by everybody: a round of probes, a failed one, the suspicion.
    assert LAN.suspicion_seconds <= took <= LAN.suspicion_seconds + LAN.probe_seconds * (count + 2)


def test_a_silent_host_whose_links_break_is_no_quicker_down_than_the_suspicion_time() -> None:
    world = World(5, timings=LAN)
    *rest, victim = world.cluster(3)
    world.freeze(victim)
    for one in rest:
        world.blip(one, victim)
    took = world.until(lambda: all_hold(world, victim, "down", rest), 60.0)
    assert took >= LAN.suspicion_seconds


def test_two_killed_at_once_are_both_down_quickly() -> None:
    world = World(3, timings=LOCAL)
    *rest, one, other = world.cluster(5)
    world.crash(one)
    world.crash(other)
    assert world.until(lambda: all_hold(world, one, "down", rest) and all_hold(world, other, "down", rest), 5.0) < 1.0
    world.until(lambda: world.agree(rest), 2.0)


def test_a_link_that_breaks_for_a_moment_moves_nothing() -> None:
    world = World(1)
    nodes = world.cluster(4)
    since = world.now
    for _ in range(20):
        for other in nodes[1:]:
            world.blip(nodes[0], other)
        world.run(0.3)
    assert world.agree(nodes)
    assert not [change for node in nodes for at, change in node.changes if at >= since]


def test_one_cut_link_is_refuted_through_the_others() -> None:
    world = World(2)
    nodes = world.cluster(5)
    since = world.now
    world.cut(nodes[:1], nodes[1:2], both=False)
    world.run(60.0)
    assert world.agree(nodes)
    assert not any(node.went_down(since) for node in nodes)


def test_a_firewall_that_refuses_one_node_kills_nobody() -> None:
    world = World(8)
    nodes = world.cluster(4)
    since = world.now
    a, b = nodes[:2]
    world.deaf[a.address, b.address] = None
    for _ in range(20):
        world.blip(a, b)
        world.run(1.0)
    assert not any(node.went_down(since) for node in nodes)


def test_a_pause_shorter_than_the_suspicion_time_is_refuted() -> None:
    world = World(4)
    *rest, sleeper = world.cluster(4)
    since = world.now
    before = sleeper.machine.me.incarnation
    world.freeze(sleeper)
    world.until(lambda: any(world.health(sleeper, one) == "suspect" for one in rest), 20.0)
    world.thaw(sleeper)
    world.until(lambda: world.agree([*rest, sleeper]), 5.0)
    assert sleeper.machine.me.incarnation > before
    assert not any(one.went_down(since) for one in rest)


def test_a_suspect_counts_as_up_for_the_others_agreement() -> None:
    world = World(6)
    *rest, sleeper = world.cluster(4)
    digest = rest[0].machine.digest()
    world.freeze(sleeper)
    world.until(lambda: all_hold(world, sleeper, "suspect", rest), 20.0)
    world.run(1.0)
    assert all(one.machine.settled for one in rest)
    assert rest[0].machine.digest() == digest


def test_a_member_taken_for_down_refutes_it_and_all_settle_again() -> None:
    world = World(7)
    *rest, sleeper = nodes = world.cluster(4)
    world.freeze(sleeper)
    world.until(lambda: all_hold(world, sleeper, "down", rest), 30.0)
    world.thaw(sleeper)
    assert world.until(lambda: world.agree(nodes), 15.0) < 8.0


def test_the_news_of_a_change_reaches_all_within_a_few_quick_rounds() -> None:
    world = World(9, timings=LAN)
    nodes = world.cluster(20)
    world.give(nodes[4], SelfChanged({"services": {"kv": 1}}))
    uid = nodes[4].uid

    def known() -> bool:
        return all((one := node.machine.get(uid)) is not None and one.services == {"kv": 1} for node in nodes)

    assert world.until(known, 5.0) < LAN.probe_seconds
    assert world.until(lambda: world.agree(nodes), 10.0) < 5 * LAN.probe_seconds


def test_suspicion_is_told_before_anybody_is_taken_for_down() -> None:
    world = World(10)
    *rest, victim = world.cluster(5)
    world.crash(victim)
    world.until(lambda: all_hold(world, victim, "down", rest), 5.0)
    for one in rest:
        healths = [change.after.health for _, change in one.changes if change.after.uid == victim.uid]
        assert healths[-1] == Health.DOWN
    assert any(
        change.after.health == Health.SUSPECT
        for one in rest
        for _, change in one.changes
        if change.after.uid == victim.uid
    )
