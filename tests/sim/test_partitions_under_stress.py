"""Partitions against hostile peers, items too large to move, and nodes that go all at once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import roost
from roost.core.tenure import Held, Right
from roost.net.peers import Peers
from roost.testing import Cluster
from roost.wire.frame import encode_batch
from roost.wire.protocol import Call, Identity, Stream


class Pile(roost.Partition[str, bytes]):
    async def grow(self, size: int) -> int:
        self.items[self.key] = self.items.get(self.key, b"") + b"x" * size
        return len(self.items[self.key])


class Tally(roost.Partition[str, int]):
    async def hit(self) -> int:
        self.items["n"] = self.items.get("n", 0) + 1
        return self.items["n"]

    async def hang(self) -> None:
        await asyncio.sleep(2)  # virtual

    async def count(self) -> int:
        return self.items.get("n", 0)


def peers_of(node: roost.Node) -> Peers:
    run = node._run
    assert run is not None
    return run.peers


async def test_a_client_is_not_heard_when_it_speaks_of_rights(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    numbers = await a.kv("numbers", int)
    await b.kv("numbers", int)
    await cluster.settle()
    for number in range(50):
        await numbers.put(f"key{number}", number)
    peers = peers_of(b)
    peers.me = Identity("visitor", 777, "", "client")
    session = await peers._open(a.address)
    lies = [Held(partition, Right(10**6, 777, (777,))) for partition in range(64)]
    body = msgspec.Raw(msgspec.msgpack.encode(lies))
    session.link.write(encode_batch([Stream(1), Call(1, "kv:numbers", "~", body, 5000)]))
    await cluster.sleep(0.2)
    assert a.status()["services"]["kv:numbers"]["held"] > 0
    assert [await numbers.get(f"key{number}") for number in range(50)] == list(range(50))


async def test_an_item_that_could_never_move_is_refused_and_the_rest_moves(cluster: Cluster) -> None:
    bounds = {"frame_bytes_max": 200_000, "message_bytes_max": 100_000}
    (a,) = await cluster.start(1, **bounds)
    piles = await a.partitions("piles", Pile)
    await cluster.settle()
    keys = [f"key{number}" for number in range(40)]
    for key in keys:
        assert await piles.at(key).grow(90_000) == 90_000
        with pytest.raises(roost.Overloaded) as refused:
            await piles.at(key).grow(20_000)
        assert refused.value.what == "message_bytes_max"
        assert refused.value.may_have_run
        assert await piles.at(key).grow(0) == 90_000
    (b,) = await cluster.start(1, **bounds)
    moved = await b.partitions("piles", Pile)
    await cluster.settle()
    await cluster.leave(a)
    await cluster.settle()
    assert [await moved.at(key).grow(0) for key in keys] == [90_000] * len(keys)
    assert b.status()["services"]["partitions:piles"]["items"] == len(keys)


async def test_a_key_and_value_that_are_too_large_together_are_refused(cluster: Cluster) -> None:
    (a,) = await cluster.start(1, frame_bytes_max=200_000, message_bytes_max=100_000)
    values = await a.kv("values", bytes)
    with pytest.raises(roost.Overloaded) as refused:
        await values.put("k" * 60_000, b"x" * 60_000)
    assert refused.value.what == "message_bytes_max"
    assert not refused.value.may_have_run
    assert await values.size() == 0
