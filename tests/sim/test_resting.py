"""A member that flaps, among real nodes with data: it hands everything over while it rests, and nothing is lost."""

from __future__ import annotations

import asyncio

import msgspec

import roost
from roost.core.gossip import Ack, Health
from roost.core.membership import Received
from roost.testing import Cluster

WRITERS = 4


async def fall(cluster: Cluster, flapper: roost.Node, others: list[roost.Node]) -> None:
    """It is cut off until it is down for the others and they for it, and comes back."""
    cluster.partition([flapper], others)
    async with asyncio.timeout(60):
        while any(node.members[flapper.name].state != "down" for node in others) or any(
            flapper.members[node.name].state != "down" for node in others
        ):
            await cluster.sleep(0.1)
    cluster.heal()


def in_ring(store: roost.KV[str, int]) -> list[str]:
    return sorted(member.name for member in store.ring.members)


async def test_a_member_that_flaps_hands_over_all_that_it_holds_and_takes_part_again_after_its_rest(
    cluster: Cluster,
) -> None:
    nodes = await cluster.start(4, flap_seconds=20.0)
    *rest, flapper = nodes
    names = sorted(node.name for node in nodes)
    stores = [await node.kv("words", int) for node in nodes]
    await cluster.settle()
    for number in range(200):
        await stores[number % 4].put(f"k{number}", number)
    acked: dict[str, int] = {}
    stopped = False

    async def write(number: int) -> None:
        turn = 0
        while not stopped:
            turn += 1
            key = f"w{number}-{turn % 20}"
            try:
                await stores[number % 4].put(key, turn)
                acked[key] = turn
            except roost.RoostError:
                pass  # a call to the other side of a split; what was not acknowledged is not asked for
            await cluster.sleep(0.05)

    await fall(cluster, flapper, rest)
    await cluster.settle()
    assert not any(member.resting for node in nodes for member in node.members)
    assert in_ring(stores[0]) == names
    await fall(cluster, flapper, rest)
    writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    await cluster.settle()
    assert [[member.name for member in node.members if member.resting] for node in nodes] == [[flapper.name]] * 4
    assert all(node.members[flapper.name].state == "up" for node in nodes)
    assert [in_ring(store) for store in stores] == [sorted(node.name for node in rest)] * 4
    held = flapper.status()["services"]["kv:words"]["held"]
    assert held == 0
    assert await stores[3].get("k7") == 7, "who rests is still a member, and calls"
    await cluster.sleep(20.0)
    await cluster.settle()
    stopped = True
    await asyncio.gather(*writers)
    assert [in_ring(store) for store in stores] == [names] * 4
    assert flapper.status()["services"]["kv:words"]["held"] > 0
    for number in range(200):
        assert await stores[number % 3].get(f"k{number}") == number
    for key, value in acked.items():
        assert await stores[0].get(key) == value, key
    assert len(acked) == 20 * WRITERS


async def test_if_all_that_host_a_service_rest_they_all_serve_it(cluster: Cluster) -> None:
    nodes = await cluster.start(2)
    stores = [await node.kv("words", int) for node in nodes]
    await cluster.settle()
    await cluster.sleep(3.0)
    for node, other in (nodes, reversed(nodes)):
        members = node._running.members
        for _ in range(2):
            claim = msgspec.structs.replace(members.me, health=Health.DOWN)
            members.step(Received(other.uid, Ack(0, [claim], [])))
    await cluster.settle()
    assert [[member.resting for member in node.members] for node in nodes] == [[True, True]] * 2
    assert [in_ring(store) for store in stores] == [["n1", "n2"]] * 2
    await stores[0].put("a", 1)
    assert await stores[1].get("a") == 1
