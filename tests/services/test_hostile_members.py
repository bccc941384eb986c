"""A member that says what cannot be, and a merge of the user's that raises: nobody else is held up by it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

import roost
from roost.core.items import Item
from roost.core.tenure import Held, Right
from roost.core.transfer import Chunk
from roost.services.dispatch import PEER_METHOD
from roost.testing import Cluster

LAST = (1 << 64) - 1
BAD: dict[str, list[Any]] = {
    "a negative holder": [6, 0, [5, -1, [], 0]],
    "an epoch without a next one": [6, 0, [LAST, 7, [7], 0]],
    "an item without a key": [12, 0, 1, 0, [[b"", 5, 5, b"v"]]],
    "a stamp beyond all stamps": [12, 0, 1, 0, [[b"k", LAST, 5, b"v"]]],
    "no such message": [99, 0],
    "far too many copies": [6, 0, [5, 7, list(range(1000)), 0]],
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD.keys())
async def test_what_cannot_be_is_refused_and_the_service_goes_on(cluster: Cluster, said: list[Any]) -> None:
    a, b = await cluster.start(2)
    store = await a.kv("numbers", int, replicas=2)
    await b.kv("numbers", int, replicas=2)
    await cluster.settle()
    run = b._running
    with pytest.raises(roost.RoostError):
        await run.call(a.uid, "kv:numbers", PEER_METHOD, msgspec.msgpack.encode([said]), seconds=1.0)
    for number in range(50):
        await store.put(f"k{number}", number)
    await cluster.settle()
    assert await store.get("k49") == 49


async def test_what_makes_no_sense_but_could_be_does_no_harm(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    store = await a.kv("numbers", int, replicas=2)
    await b.kv("numbers", int, replicas=2)
    await cluster.settle()
    messages = [
        Held(70_000, Right(5, 7, (7,))),
        Held(-1, Right(5, 7, (7,))),
        Chunk(3, 999, 7, [Item(b"\xa1k", 5, 5, b"\x05")]),
    ]
    await b._running.call(a.uid, "kv:numbers", PEER_METHOD, msgspec.msgpack.encode(messages), seconds=1.0)
    for number in range(50):
        await store.put(f"k{number}", number)
    assert await store.get("k49") == 49


class Fragile(roost.KeyValuePartition[str, int]):
    def merge(self, key: str, a: int, b: int) -> int:
        if key == "fragile":
            raise RuntimeError("no idea")
        return a + b


async def test_a_merge_that_raises_leaves_the_newer_value_and_stops_nothing(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = await cluster.start(2)
    stores = [await node.kv("numbers", int, handler=Fragile) for node in nodes]
    await cluster.settle()
    cluster.partition(nodes[:1], nodes[1:])
    await cluster.settle()
    for number, store in enumerate(stores):
        await store.put("fragile", number)
        await store.put("sturdy", 1)
        await cluster.sleep(0.1)
    with caplog.at_level(logging.ERROR, logger="roost.partitions"):
        cluster.heal()
        await cluster.settle()
    assert any("Fragile.merge failed for 'fragile'" in record.getMessage() for record in caplog.records)
    assert await stores[0].get("fragile") == await stores[1].get("fragile") == 1
    assert await stores[0].get("sturdy") == 2
