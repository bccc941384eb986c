"""Partitions against hostile peers, items too large to move, and nodes that go all at once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import roost
from roost.core.tenure import Held, Right
from roost.net.peers import Peers
from roost.services.host import Body
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
    (a,) = await cluster.start(1, frame_bytes_max=200_000, message_bytes_max=100_000)
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
    (b,) = await cluster.start(1, frame_bytes_max=200_000, message_bytes_max=100_000)
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


async def test_a_gather_that_fails_says_that_it_has_run_where_it_has(cluster: Cluster) -> None:
    a, b = await cluster.start(2, call_seconds=1.0, queued_commands_max=1)
    tallies = await a.partitions("tallies", Tally)
    await b.partitions("tallies", Tally)
    await cluster.settle()
    hanging = [asyncio.create_task(tallies.at("x").hang()) for _ in range(2)]
    await cluster.sleep(0.05)
    with pytest.raises(roost.Overloaded) as failed:
        await tallies.gather(Tally.hit)
    assert failed.value.may_have_run
    await asyncio.gather(*hanging, return_exceptions=True)
    assert any((await tallies.gather(Tally.count)).values())


async def test_when_all_hosts_crash_at_once_a_new_one_says_that_writes_may_be_lost(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    for node in (a, b):
        await node.kv("numbers", int)
    await cluster.settle()
    for node in (a, b):
        await cluster.crash(node)
    numbers = await c.kv("numbers", int)
    await cluster.settle()
    lost = c.status()["services"]["kv:numbers"]["possible_loss"]
    assert lost == list(range(len(numbers.ring.primaries)))


async def test_no_loss_is_reported_when_all_hosts_have_left_in_peace(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    for node in (a, b):
        await node.kv("numbers", int)
    await cluster.settle()
    for node in (a, b):
        await cluster.leave(node)
    await c.kv("numbers", int)
    await cluster.settle()
    assert c.status()["services"]["kv:numbers"]["possible_loss"] == []


@pytest.mark.parametrize("count", [2, 3])
async def test_nodes_that_all_leave_at_once_do_not_wait_for_each_other(cluster: Cluster, count: int) -> None:
    nodes = await cluster.start(count)
    numbers = [await node.kv("numbers", int) for node in nodes]
    await cluster.settle()
    for number in range(50):
        await numbers[0].put(f"key{number}", number)
    began = cluster.loop.time()
    await asyncio.gather(*(cluster.leave(node) for node in nodes))
    assert cluster.loop.time() - began < 2


async def test_a_service_refused_for_its_options_can_be_opened_again_with_the_right_ones(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    numbers = await a.kv("numbers", int)
    await cluster.settle()
    with pytest.raises(roost.ConfigError, match="other options"):
        await b.kv("numbers", str)
    await b.kv("numbers", int)
    await cluster.settle()
    await numbers.put("one", 1)
    assert set(numbers.ring.primaries) == {a.name, b.name}


async def test_many_values_travel_in_messages_of_bounded_size(cluster: Cluster) -> None:
    a, b = await cluster.start(2, frame_bytes_max=200_000, message_bytes_max=100_000)
    values = await a.kv("values", bytes)
    await b.kv("values", bytes)
    await cluster.settle()
    run = a._run
    assert run is not None
    sizes: list[int] = []
    call = run.call

    def measured(uid: int, service: str, method: str, body: Body, *, seconds: float) -> asyncio.Future[msgspec.Raw]:
        if method == "kv.many":
            sizes.append(len(body))
        return call(uid, service, method, body, seconds=seconds)

    run.call = measured  # type: ignore[method-assign]  # to see what travels
    many = {f"key{number}": bytes([number]) * 5000 for number in range(200)}
    await values.put_many(many)
    assert await values.size() == 200
    assert await values.get_many(many) == many
    assert max(sizes) <= 100_000
    assert 10 <= len(sizes) < 40
    assert {member.name for member in a.members} == {a.name, b.name}


async def test_a_value_too_large_among_many_is_refused_before_any_is_stored(cluster: Cluster) -> None:
    (a,) = await cluster.start(1, frame_bytes_max=200_000, message_bytes_max=100_000)
    values = await a.kv("values", bytes)
    with pytest.raises(roost.Overloaded) as refused:
        await values.put_many({"small": b"x", "large": b"x" * 100_001})
    assert refused.value.what == "message_bytes_max"
    assert await values.size() == 0
