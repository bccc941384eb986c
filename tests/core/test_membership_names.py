"""One name, one run: who may keep it, judged alike by all."""

from __future__ import annotations

import pytest

from roost.core.gossip import Ack, Ping, Sync
from roost.core.membership import GoUp, NameConflict, Received, SendGossip
from tests.core.swim_runner import Runner, entry
from tests.core.swim_world import World


def knows(runner: Runner, uid: int) -> bool:
    return runner.machine.get(uid) is not None


def in_state(runner: Runner, state: str) -> bool:
    return runner.machine.me.state == state


def test_a_newcomer_whose_name_is_taken_gives_up_and_nobody_else_notices() -> None:
    world = World(1)
    nodes = world.cluster(4)
    since = world.now
    newcomer = world.start("n2", "n0", address="elsewhere:1")
    took = world.until(lambda: newcomer.conflict is not None, 30.0)
    assert 20.0 <= took <= 20.5
    assert newcomer.conflict is not None
    assert newcomer.conflict.uid == nodes[2].uid
    assert newcomer.joined_at is None
    assert world.agree(nodes)
    assert not [change for node in nodes for at, change in node.changes if at >= since]


def test_the_holder_is_named_even_when_the_newcomer_asks_it_alone() -> None:
    world = World(2)
    holder = world.start("a")
    world.run(1.0)
    newcomer = world.start("a", "a:1", address="elsewhere:1")
    world.until(lambda: newcomer.conflict is not None, 30.0)
    assert not knows(holder, newcomer.uid)
    assert world.agree([holder])


def test_of_two_live_runs_the_older_stays_whichever_is_met_first() -> None:
    world = World(3)
    nodes = world.cluster(3)
    # It began before n1, by its clock, but comes to the cluster later.
    older = world.start("n1", "n0", address="elsewhere:1", started=1)
    assert older.machine.me.started < nodes[1].machine.me.started
    world.until(lambda: nodes[1].conflict is not None, 5.0)
    assert nodes[1].conflict is not None
    assert nodes[1].conflict.uid == older.uid
    world.until(lambda: world.agree([nodes[0], nodes[2], older]), 10.0)
    assert older.conflict is None


def test_a_newcomer_elsewhere_waits_until_the_dead_run_of_its_name_is_down() -> None:
    world = World(4)
    *rest, silent = world.cluster(4)
    world.freeze(silent)
    newcomer = world.start(silent.name, "n0", address="elsewhere:1")
    took = world.until(lambda: world.agree([*rest, newcomer]), 20.0)
    assert world.timings.suspicion_seconds < took < 2 * world.timings.suspicion_seconds
    assert newcomer.conflict is None


def test_a_newcomer_makes_whoever_refuses_it_probe_the_holder_at_once() -> None:
    world = World(5)
    asked, holder, *_ = world.cluster(3)
    world.run(0.3)
    newcomer = entry(holder.name, 99, address="elsewhere:1")
    effects = asked.machine.step(Received(99, Sync(True, [newcomer], [])), world.now)
    assert not knows(asked, 99)
    pinged = [one.uid for one in effects if isinstance(one, SendGossip) and isinstance(one.message, Ping)]
    assert pinged == [holder.uid]


def test_a_newcomer_elsewhere_takes_over_quickly_from_a_run_whose_host_refuses() -> None:
    world = World(5)
    *rest, victim = world.cluster(12)
    world.vanish(victim)
    newcomer = world.start(victim.name, "n0", address="elsewhere:1")
    assert world.until(lambda: world.agree([*rest, newcomer]), 20.0) < 4.0


def test_a_run_that_sleeps_through_its_replacement_finds_its_name_gone() -> None:
    world = World(6)
    *rest, sleeper = world.cluster(3)
    world.freeze(sleeper)
    world.until(lambda: world.agree(rest), 30.0)
    again = world.start(sleeper.name, "n0", address="elsewhere:1")
    world.until(lambda: world.agree([*rest, again]), 10.0)
    world.thaw(sleeper)
    # Older runs win: it is the replacement that stops.
    world.until(lambda: again.conflict is not None, 20.0)
    world.until(lambda: world.agree([*rest, sleeper]), 20.0)


@pytest.mark.parametrize("started", [0, 1], ids=["clock right", "clock set back"])
def test_whoever_listens_at_an_address_is_the_proof_that_earlier_runs_there_are_gone(started: int) -> None:
    world = World(7)
    world.run(1.0)
    nodes = [world.start(f"n{index}", "n0", started=1000 + index) for index in range(4)]
    world.until(lambda: world.agree(nodes), 10.0)
    *rest, victim = nodes
    world.vanish(victim)
    again = world.start(victim.name, "n0", started=started or 5000)
    assert world.until(lambda: world.agree([*rest, again]), 20.0) < 6.0
    world.run(30.0)
    assert world.agree([*rest, again])
    assert again.conflict is None


def test_after_a_heal_the_newer_of_two_runs_that_were_both_up_stops_at_once() -> None:
    world = World(8)
    left = world.cluster(3)
    right = [world.start(name, "m0", "n0") for name in ("m0", "m1")]
    world.cut(left, right)
    twin = world.start("n1", "m0", address="elsewhere:1")
    world.cut(left, [twin])
    world.until(lambda: world.agree([*right, twin]), 20.0)
    world.heal()
    world.until(lambda: twin.conflict is not None, 15.0)
    assert twin.conflict is not None
    assert twin.conflict.uid == left[1].uid
    world.until(lambda: world.agree([*left, *right]), 20.0)
    assert all(not knows(node, twin.uid) for node in [*left, *right])


def test_a_node_that_was_about_to_go_up_waits_while_its_name_is_taken() -> None:
    world = World(9)
    holder = world.start("a")
    world.run(1.0)
    newcomer = world.start("a", "nowhere:1", address="elsewhere:1", ready_seconds=0.5)
    world.until(lambda: newcomer.joined_at is not None, 5.0)
    effects = newcomer.machine.step(Received(holder.uid, Sync(False, [holder.machine.me], [])), world.now)
    assert not any(isinstance(effect, NameConflict) for effect in effects)
    newcomer.machine.step(GoUp(), world.now)
    assert in_state(newcomer, "joining")
    gone = Received(holder.uid, Sync(False, [entry("a", holder.uid, state="left", incarnation=9)], []))
    newcomer.machine.step(gone, world.now)
    assert in_state(newcomer, "up")


@pytest.mark.parametrize("seed", range(5))
def test_two_nodes_of_one_name_that_start_together_leave_exactly_one(seed: int) -> None:
    world = World(seed)
    base = world.start("base")
    one = world.start("twin", "base", address="one:1")
    other = world.start("twin", "base", address="other:1")
    world.until(lambda: other.conflict is not None, 30.0)
    world.until(lambda: world.agree([base, one]), 10.0)


@pytest.mark.parametrize("how", ["crash", "freeze"])
def test_stale_news_of_an_older_run_stops_nobody_who_is_up(how: str) -> None:
    world = World(10)
    nodes = world.cluster(3)
    ghost = world.start("n1", address="elsewhere:1", started=1)
    world.run(0.1)
    getattr(world, how)(ghost)
    since = world.now
    world.give(nodes[1], Received(nodes[0].uid, Ack(0, [ghost.machine.me], [])))
    assert knows(nodes[1], ghost.uid)
    world.until(lambda: world.health(ghost, nodes[1]) == "down", 60.0)
    world.until(lambda: world.agree(nodes), 60.0)
    assert nodes[1].conflict is None
    assert not any(node.name in other.went_down(since) for node in nodes[:1] for other in nodes)


def test_an_older_run_that_only_others_can_reach_is_confirmed_by_them() -> None:
    world = World(11)
    nodes = world.cluster(3)
    older = world.start("n1", address="elsewhere:1", started=1)
    world.run(0.1)
    world.cut([nodes[1]], [older])
    world.give(nodes[1], Received(nodes[0].uid, Ack(0, [older.machine.me], [])))
    assert nodes[1].conflict is None
    world.until(lambda: nodes[1].conflict is not None, 5.0)
