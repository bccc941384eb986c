"""Clusters under loss and random faults, the cost of peace, and the same trace from the same seed."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
import xxhash

from roost.config import PROFILES
from tests.core.swim_runner import Runner
from tests.core.swim_world import World

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def chaos(seed: int, *, count: int = 5, faults: int = 12) -> World:
    """A cluster that is tormented for a while, then left in peace until it agrees."""
    chance = random.Random(seed)
    world = World(
        seed, timings=chance.choice([PROFILES["local"], PROFILES["lan"]]), loss=chance.choice([0.0, 0.02, 0.1])
    )
    nodes = [world.start(f"n{index}", "n0", "n1") for index in range(count)]
    world.run(chance.uniform(0.0, 5.0))
    for _ in range(faults):
        _one_fault(world, nodes, chance)
        world.run(chance.choice([0.01, 0.3, 2.0, 8.0]))
    world.heal()
    world.loss = 0.0
    for index, node in enumerate(nodes):
        if node.state == "frozen":
            world.thaw(node)
        elif node.state != "running":
            nodes[index] = world.start(node.name, "n0", "n1")
    live = [node for node in nodes if node.state == "running"]
    world.until(lambda: _ended_well(world, nodes, live), 90.0)
    world.run(20.0)
    live = [node for node in live if node.state == "running"]
    assert world.agree(live), world.describe(f"seed {seed}: no lasting agreement")
    return world


def _one_fault(world: World, nodes: list[Runner], chance: random.Random) -> None:
    index = chance.randrange(len(nodes))
    node = nodes[index]
    fault = chance.choice(["crash", "freeze", "thaw", "restart", "leave", "cut", "one-way", "heal", "blip"])
    if fault in ("crash", "freeze", "leave") and node.state == "running":
        getattr(world, fault)(node)
    elif fault == "thaw" and node.state == "frozen":
        world.thaw(node)
    elif fault == "restart" and node.state in ("dead", "stopped"):
        nodes[index] = world.start(node.name, "n0", "n1")
    elif fault in ("cut", "one-way"):
        some = chance.sample(nodes, chance.randint(1, len(nodes) // 2))
        world.cut(some, [one for one in nodes if one not in some], both=fault == "cut")
    elif fault == "heal":
        world.heal()
    elif fault == "blip":
        world.blip(node, nodes[(index + 1) % len(nodes)])


def _ended_well(world: World, nodes: list[Runner], live: list[Runner]) -> bool:
    live[:] = [node for node in live if node.state == "running"]
    return bool(live) and world.agree(live)


@pytest.mark.parametrize("batch", range(6))
def test_a_tormented_cluster_agrees_once_it_is_left_in_peace(batch: int) -> None:
    for seed in range(6 * batch, 6 * batch + 6):
        chaos(seed)


def test_twenty_nodes_that_lose_a_tenth_of_their_messages_converge_and_settle() -> None:
    world = World(1, timings=PROFILES["lan"], loss=0.1)
    nodes = world.cluster(20, settle=False)
    assert world.until(lambda: world.agree(nodes), 60.0) < 20.0
    *rest, victim = nodes
    world.crash(victim)
    world.until(lambda: all(world.health(victim, one) == "down" for one in rest), 30.0)
    world.until(lambda: world.agree(rest), 60.0)


def test_heavy_loss_takes_no_live_member_out_of_the_ring_for_good() -> None:
    world = World(2, timings=PROFILES["lan"], loss=0.3)
    nodes = world.cluster(6, settle=False)
    world.run(120.0)
    world.loss = 0.0
    world.until(lambda: world.agree(nodes), 30.0)


def cost_of_peace(count: int) -> tuple[float, float]:
    """Messages and bytes a node sends in a probe period when nothing happens."""
    world = World(count, timings=PROFILES["lan"], checks=False)
    nodes = world.cluster(count)
    world.run(15.0)
    for node in nodes:
        node.sent = node.sent_bytes = 0
    periods = 90
    world.run(periods * PROFILES["lan"].probe_seconds)
    return (
        sum(node.sent for node in nodes) / count / periods,
        sum(node.sent_bytes for node in nodes) / count / periods,
    )


def test_peace_costs_each_of_forty_nodes_what_it_costs_each_of_five() -> None:
    five, five_bytes = cost_of_peace(5)
    forty, forty_bytes = cost_of_peace(40)
    assert 2.0 <= five <= 2.15
    assert 2.0 <= forty <= 2.15
    assert forty_bytes < 1.5 * five_bytes


def test_a_change_costs_each_node_a_bounded_number_of_messages_a_period() -> None:
    world = World(3, timings=PROFILES["lan"])
    nodes = world.cluster(30)
    *rest, victim = nodes
    for node in nodes:
        node.sent = 0
    world.crash(victim)
    world.run(PROFILES["lan"].probe_seconds * 5)
    assert max(node.sent for node in rest) / 5 < 40


def fingerprint(seed: int) -> str:
    world = chaos(seed, count=4, faults=8)
    return f"{xxhash.xxh3_64_intdigest(repr(world.trace).encode()):016x} {len(world.trace)}"


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    code = "from tests.core.test_membership_chaos import fingerprint; print(fingerprint(11))"
    here = fingerprint(11)
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([*sys.path, ROOT])},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert there == here
    assert fingerprint(12) != here
