"""A member dies in the middle of a move, among real nodes: what others have copies of is not lost, nor said to be."""

from __future__ import annotations

import asyncio

import pytest

import roost
from roost.core.tenure import Role
from roost.testing import Cluster

KEYS = 300


async def until_ceding(cluster: Cluster, stores: list[roost.KV[str, int]], target: int) -> None:
    """Wait until somebody has sent its right to that node, and has no answer yet."""
    hostings = [store._service.hosting for store in stores]
    slots = [slot for hosting in hostings if hosting is not None for slot in hosting.rights.slots]
    async with asyncio.timeout(20):
        while not any(
            slot.role is Role.CEDING and slot.cut is not None and slot.cut.target == target for slot in slots
        ):
            await cluster.sleep(0.0002)


@pytest.mark.parametrize("delay_seconds", [0.0, 0.0004, 0.001, 0.002])
async def test_who_dies_with_rights_that_are_on_their_way_to_it_loses_nothing(
    cluster: Cluster, delay_seconds: float
) -> None:
    stores = [await node.kv("words", int, replicas=3) for node in await cluster.start(4)]
    await cluster.settle()
    for number in range(KEYS):
        await stores[number % 4].put(f"k{number}", number)
    newcomer = await cluster.launch("newcomer")
    opening = asyncio.ensure_future(newcomer.kv("words", int, replicas=3))
    await until_ceding(cluster, stores, newcomer.uid)
    await cluster.sleep(delay_seconds)
    await cluster.crash(newcomer)
    opening.cancel()
    await cluster.settle()
    assert [store.status()["possible_loss"] for store in stores] == [[]] * 4
    assert await stores[0].get_many([f"k{number}" for number in range(KEYS)]) == {f"k{n}": n for n in range(KEYS)}
    assert await stores[3].size() == KEYS
