"""Coming and going: seeds, splits and heals, restarts, leaving, forgetting."""

from __future__ import annotations

import itertools

import pytest

from roost.core.membership import Contact, Forget, LeaveAsked, LinkOpened, Tick
from tests.core.swim_runner import Runner
from tests.core.swim_world import World


def test_a_lone_node_joins_goes_up_and_is_settled_at_once() -> None:
    world = World(1)
    alone = world.start("a", "a")
    world.until(lambda: world.agree([alone]), 0.1)
    assert alone.joined_at == pytest.approx(100.0)


def test_a_lone_node_with_nothing_to_do_sleeps_long() -> None:
    world = World(1)
    alone = world.start("a")
    world.run(1.0)
    assert alone.machine.wake_at - world.now > 1000


def test_a_joiner_learns_of_all_from_one_seed_and_all_learn_of_it() -> None:
    world = World(2)
    nodes = world.cluster(5)
    joiner = world.start("late", "n3")
    assert world.until(lambda: world.agree([*nodes, joiner]), 5.0) < 2.0


def test_a_node_whose_seeds_do_not_answer_forms_a_cluster_alone_and_keeps_trying() -> None:
    world = World(3)
    early = world.start("a", "b")
    world.run(2.9)
    assert early.joined_at is None
    world.run(0.2)
    assert early.joined_at is not None
    world.run(10.0)
    late = world.start("b")
    assert world.until(lambda: world.agree([early, late]), 10.0) <= 5.5


def test_an_unreachable_seed_is_contacted_with_growing_pauses_for_ever() -> None:
    world = World(4)
    alone = world.start("a", "nowhere:9")
    contacts: list[float] = []
    now, end = world.now, world.now + 120.0
    while now < end:
        if any(isinstance(effect, Contact) for effect in alone.machine.step(Tick(), now)):
            contacts.append(now)
        alone.machine.check()
        now = alone.machine.wake_at
    pauses = [later - sooner for sooner, later in itertools.pairwise(contacts)]
    assert pauses[0] <= 0.1
    assert all(2.5 <= pause <= 5.0 for pause in pauses[8:])
    assert 24 <= len(contacts) <= 60


def test_clusters_that_formed_apart_at_start_merge() -> None:
    world = World(5)
    left = [world.start(name, "a", "c") for name in ("a", "b")]
    right = [world.start(name, "c", "a") for name in ("c", "d")]
    world.cut(left, right)
    world.run(20.0)
    assert world.agree(left)
    assert world.agree(right)
    world.heal()
    assert world.until(lambda: world.agree([*left, *right]), 15.0) < 10.0


@pytest.mark.parametrize("seed", range(4))
def test_nodes_that_start_all_at_once_with_seeds_in_a_circle_find_each_other(seed: int) -> None:
    world = World(seed)
    nodes = [world.start(f"n{index}", f"n{(index + 1) % 6}") for index in range(6)]
    world.until(lambda: world.agree(nodes), 15.0)


@pytest.mark.parametrize("seeds", [("n0",), ("n4",), ()], ids=str)
def test_a_split_heals_whoever_the_seed_was(seeds: tuple[str, ...]) -> None:
    world = World(6)
    nodes = [world.start("n0", *seeds)]
    nodes += [world.start(f"n{index}", *(seeds or ("n0",))) for index in range(1, 5)]
    world.until(lambda: world.agree(nodes), 15.0)
    left, right = nodes[:3], nodes[3:]
    world.cut(left, right)
    world.until(lambda: world.agree(left) and world.agree(right), 40.0)
    assert all(world.health(other, one) == "down" for one in left for other in right)
    assert all(world.health(other, one) == "down" for one in right for other in left)
    world.heal()
    assert world.until(lambda: world.agree(nodes), 20.0) < 10.0


@pytest.mark.parametrize("seed", range(12))
def test_a_heal_takes_no_member_of_the_own_side_out_of_the_ring(seed: int) -> None:
    world = World(seed)
    nodes = world.cluster(5 + seed % 2)
    left, right = (nodes[:3], nodes[3:]) if seed % 3 else (nodes[:1], nodes[1:])
    world.cut(left, right)
    world.until(lambda: world.agree(left) and world.agree(right), 60.0)
    world.run(0.001 if seed < 8 else 5.0)
    since = world.now
    world.heal()
    world.until(lambda: world.agree(nodes), 30.0)
    world.run(10.0)
    assert {node.name: node.went_down(since) for node in nodes} == {node.name: [] for node in nodes}


def test_a_split_of_two_nodes_heals() -> None:
    world = World(7)
    nodes = world.cluster(2)
    world.cut(nodes[:1], nodes[1:])
    world.until(lambda: world.agree(nodes[:1]) and world.agree(nodes[1:]), 40.0)
    world.heal()
    assert world.until(lambda: world.agree(nodes), 15.0) <= 6.0


def test_a_split_heals_even_when_one_side_was_replaced_meanwhile() -> None:
    world = World(8)
    nodes = world.cluster(4)
    left, right = nodes[:2], nodes[2:]
    world.cut(left, right)
    world.until(lambda: world.agree(left) and world.agree(right), 40.0)
    for one in left:
        world.crash(one)
    again = [world.start(one.name, "n1", "n0") for one in left]
    world.until(lambda: world.agree(again), 20.0)
    world.heal()
    world.until(lambda: world.agree([*again, *right]), 20.0)


def test_a_restarted_node_takes_its_name_back_at_once_at_the_same_address() -> None:
    world = World(9)
    *rest, victim = world.cluster(4)
    world.crash(victim)
    again = world.start(victim.name, "n0")
    assert world.until(lambda: world.agree([*rest, again]), 5.0) < 2.0
    assert again.conflict is None
    assert all(world.health(victim, one) == "down" for one in rest)


def test_a_node_restarted_again_and_again_never_loses_its_name() -> None:
    world = World(10)
    *rest, current = world.cluster(3)
    for _ in range(10):
        world.crash(current)
        world.run(world.rng.uniform(0.0, 0.4))
        current = world.start(current.name, "n0", "n1")
        world.run(world.rng.uniform(0.0, 1.5))
        assert current.conflict is None
    world.until(lambda: world.agree([*rest, current]), 10.0)


def test_a_leaver_is_out_of_the_ring_while_it_hands_off_and_then_gone_everywhere() -> None:
    world = World(11)
    *rest, leaver = world.cluster(5)
    since = world.now
    world.leave(leaver, handoff_seconds=1.0)
    world.until(lambda: all(world.is_state(leaver, "leaving", one) for one in rest), 1.0)
    assert world.until(lambda: all(world.health(leaver, one) == "left" for one in rest), 2.0) <= 1.1
    assert world.until(lambda: world.agree(rest), 3.0) < 1.5
    world.run(30.0)
    assert not any(one.went_down(since) for one in rest)


def test_a_member_that_dies_while_leaving_is_taken_for_down() -> None:
    world = World(12)
    *rest, leaver = world.cluster(4)
    world.give(leaver, LeaveAsked())
    world.run(0.5)
    world.crash(leaver)
    world.until(lambda: all(world.health(leaver, one) == "down" for one in rest), 10.0)


def test_a_broken_link_of_a_leaver_starts_no_probe() -> None:
    world = World(13)
    a, leaver = world.cluster(2)
    world.give(leaver, LeaveAsked())
    world.run(1.0)
    sent = a.sent
    world.blip(a, leaver)
    assert a.sent == sent


def test_whoever_has_left_is_not_raised_by_a_contact() -> None:
    world = World(14)
    *rest, leaver = world.cluster(3)
    world.leave(leaver, handoff_seconds=0.2)
    world.run(2.0)
    sent = rest[0].sent
    world.give(rest[0], LinkOpened(leaver.uid, leaver.name, leaver.address))
    assert rest[0].sent == sent
    assert world.health(leaver, rest[0]) == "left"


def test_down_members_are_contacted_until_they_are_forgotten() -> None:
    world = World(15)
    *rest, victim = world.cluster(3, forget_seconds=30.0)
    world.crash(victim)
    world.run(20.0)
    assert all(world.health(victim, one) == "down" for one in rest)
    world.run(20.0)
    assert all(world.health(victim, one) == "unknown" for one in rest)
    assert all(one.changes[-1][1].forgotten for one in rest)


def test_a_forgotten_member_stays_forgotten_though_others_remember_it() -> None:
    world = World(16)
    *rest, victim = world.cluster(3)
    world.crash(victim)
    world.run(5.0)
    world.give(rest[0], Forget(victim.name))
    world.run(120.0)
    assert world.health(victim, rest[0]) == "unknown"
    assert world.health(victim, rest[1]) == "down"


def test_a_live_member_cannot_be_forgotten() -> None:
    world = World(17)
    nodes = world.cluster(3)
    world.give(nodes[0], Forget(nodes[1].name))
    world.give(nodes[0], Forget(nodes[0].name))
    assert world.agree(nodes)


def test_a_seed_known_under_another_address_is_not_contacted_for_ever() -> None:
    world = World(18)
    a = world.start("a", "alias:1")
    b = world.start("b")
    world.give(a, LinkOpened(b.uid, "b", b.address, "alias:1"))
    world.run(30.0)
    assert not contacts_in(a, world, 60.0)


def contacts_in(runner: Runner, world: World, seconds: float) -> list[str]:
    """The addresses that the machine contacts when time passes and its member stays alive."""
    found: list[str] = []
    end = world.now + seconds
    keep = runner.machine.step

    def spy(event: object, now: float) -> object:
        effects = keep(event, now)  # type: ignore[arg-type]  # passed on as it is
        found.extend(effect.address for effect in effects if isinstance(effect, Contact))
        return effects

    runner.machine.step = spy  # type: ignore[method-assign,assignment]  # looks on only
    world.run(end - world.now)
    return found
