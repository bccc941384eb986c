"""What copies promise to callers: when an answer comes, what survives, and what is said where it could not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from roost.core.gossip import Health
from roost.errors import Unavailable
from roost.services.kv import KV, open_kv
from roost.services.partitions import open_partitions
from roost.services.replication import Replication
from roost.testing import Cluster
from roost.wire.protocol import Call
from tests.services.fake_host import FakeHost, Network, run
from tests.services.test_partitions import Tally, settled

KEYS = [f"k{number}" for number in range(60)]


class Quiet(Network):
    """Hosts can fall silent: nothing comes from them or reaches them, and nobody is told."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(seed, **settings)
        self.silent: list[int] = []

    def deliver(self, source: int, uid: int, call: Call, done: asyncio.Future[msgspec.Raw]) -> None:
        if source == uid or not {source, uid} & set(self.silent):
            super().deliver(source, uid, call, done)


class Trio:
    """Three hosts of a store."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.network = Quiet(seed)
        self.replication = Replication(**{"replicas": 3, **options})
        self.hosts: list[FakeHost] = []
        self.stores: list[KV[Any, int]] = []

    async def add(self, name: str) -> KV[Any, int]:
        host = self.network.host(name)
        store = await open_kv(host, "numbers", int, replication=self.replication)
        self.hosts.append(host)
        self.stores.append(store)
        return store

    @classmethod
    async def opened(cls, seed: int, **options: Any) -> Trio:
        trio = cls(seed, **options)
        for name in "abc":
            await trio.add(name)
        await trio.rest()
        return trio

    async def rest(self) -> None:
        await settled(self.network, *self.stores)

    def key_of(self, host: FakeHost) -> str:
        """One that this host holds."""
        store = self.stores[0]
        service = store._service
        partitions = {key: service.partition_of(service.keys.encode(key)) for key in KEYS}
        return next(key for key in KEYS if store.ring.primary(partitions[key]) == host.name)

    def lost(self) -> set[int]:
        """The partitions of which a living host says that writes may be lost."""
        living = [store for store, host in zip(self.stores, self.hosts, strict=True) if host.alive]
        return {partition for store in living for partition in store.status()["possible_loss"]}


async def unanswered(task: asyncio.Task[Any]) -> bool:
    """In half a second, which is much longer than all round trips."""
    await asyncio.wait([task], timeout=0.5)  # virtual
    return not task.done()


@pytest.mark.parametrize(
    ("write", "silent", "answered"),
    [
        ("one", 2, True),
        ("majority", 1, True),
        ("majority", 2, False),
        ("all", 0, True),
        ("all", 1, False),
    ],
)
def test_a_write_is_answered_once_as_many_copies_have_it_as_were_asked_for(
    write: str, silent: int, answered: bool
) -> None:
    async def main() -> None:
        trio = await Trio.opened(1, write=write)
        key = trio.key_of(trio.hosts[0])
        trio.network.silent = [host.uid for host in trio.hosts[1:][:silent]]
        put = asyncio.create_task(trio.stores[0].put(key, 1))
        assert await unanswered(put) is not answered
        trio.network.silent = []
        await put
        assert await trio.stores[1].get(key) == 1

    run(main())


def test_a_read_is_not_answered_before_what_it_has_seen_is_acknowledged() -> None:
    async def main() -> None:
        trio = await Trio.opened(2)
        key = trio.key_of(trio.hosts[0])
        trio.network.silent = [host.uid for host in trio.hosts[1:]]
        put = asyncio.create_task(trio.stores[0].put(key, 1))
        await asyncio.sleep(0)
        read = asyncio.create_task(trio.stores[0].get(key))
        assert await unanswered(read)
        trio.network.silent = []
        assert await read == 1
        await put

    run(main())


def test_a_write_that_too_few_copies_confirm_says_that_it_may_have_run() -> None:
    async def main() -> None:
        trio = await Trio.opened(3)
        trio.network.silent = [host.uid for host in trio.hosts[1:]]
        with pytest.raises(Unavailable) as failed:
            await trio.stores[0].put(trio.key_of(trio.hosts[0]), 1)
        assert failed.value.may_have_run

    run(main())


def test_a_side_of_a_split_that_may_not_act_says_so_at_once_and_nothing_has_run() -> None:
    async def main() -> None:
        trio = await Trio.opened(4, split="static-quorum", quorum=2)
        tallies = await open_partitions(trio.hosts[0], "tally", Tally, replication=trio.replication)
        await trio.stores[0].put_many(dict.fromkeys(KEYS, 1))
        for host in trio.hosts[1:]:
            host.crash()
        await trio.network.sleep(1)
        began = asyncio.get_running_loop().time()
        asked: list[Callable[[], Any]] = [
            lambda: trio.stores[0].put("k1", 2),
            lambda: trio.stores[0].get("k1"),
            lambda: trio.stores[0].size(),
            lambda: tallies.at("k1").hit(),
        ]
        for ask in asked:
            with pytest.raises(Unavailable) as refused:
                await ask()
            assert (refused.value.needed, refused.value.may_have_run) == (0, False)
        assert asyncio.get_running_loop().time() - began < 1
        assert not trio.stores[0].status()["acts"]

    run(main())


def test_crashes_one_after_the_other_lose_nothing_and_copies_are_made_anew_without_a_call() -> None:
    async def main(seed: int) -> None:
        trio = await Trio.opened(seed)
        await trio.stores[0].put_many({key: number for number, key in enumerate(KEYS)})
        for newcomer in "def":
            victim = next(host for host in trio.hosts if host.alive)
            victim.crash()
            await trio.network.sleep(0.2)  # until all know
            await trio.add(newcomer)
            await trio.rest()
            status = [store.status() for store, host in zip(trio.stores, trio.hosts, strict=True) if host.alive]
            assert sum(one["items"] for one in status) == len(KEYS)
            assert sum(one["copies"] for one in status) == 2 * 32, "every partition has its two copies again"
        assert await trio.stores[-1].get_many(KEYS) == {key: number for number, key in enumerate(KEYS)}
        assert trio.lost() == set()

    for seed in range(3):
        run(main(seed))


def test_two_crashes_at_once_of_three_copies_lose_nothing_that_all_had_and_are_reported() -> None:
    async def main(write: str) -> None:
        trio = await Trio.opened(5, write=write)
        await trio.stores[0].put_many(dict.fromkeys(KEYS, 7))
        held = [trio.stores[0].ring.owned_by(host.name) for host in trio.hosts]
        for host in trio.hosts[:2]:
            host.crash()
        await trio.rest()
        assert await trio.stores[2].get_many(KEYS) == dict.fromkeys(KEYS, 7)
        assert trio.lost() >= {*held[0], *held[1]} - {*held[2]}

    run(main("majority"))
    run(main("all"))  # nothing can be lost then; that it is reported is the price of records that change by majority


def test_where_not_every_side_may_go_on_a_partition_waits_for_its_copies_until_they_cannot_come_back() -> None:
    async def main() -> None:
        trio = await Trio.opened(6, replicas=1, split="keep-majority")
        await trio.stores[0].put_many(dict.fromkeys(KEYS, 7))
        victim = trio.hosts[1]
        key = trio.key_of(victim)
        victim.crash()
        await trio.network.sleep(3)
        with pytest.raises(Unavailable) as waiting:
            await trio.stores[0].get(key)
        assert (waiting.value.needed, waiting.value.have, waiting.value.may_have_run) == (1, 0, False)
        assert trio.lost() == set()
        await trio.add(victim.name)
        await trio.rest()
        assert await trio.stores[0].get(key) is None
        assert trio.lost() == set(trio.stores[0].ring.owned_by(victim.name))

    run(main())


def test_of_fewer_hosts_than_replicas_fewer_acknowledge() -> None:
    async def main() -> None:
        trio = await Trio.opened(7)
        await trio.stores[0].put_many(dict.fromkeys(KEYS, 7))
        for host in trio.hosts[:2]:
            host.crash()
            await trio.rest()
        await trio.stores[2].put("k1", 8)
        assert await trio.stores[2].get("k1") == 8
        assert trio.lost() == set()

    run(main())


def test_what_was_written_to_a_holder_that_others_took_for_dead_merges_when_it_is_back() -> None:
    async def main() -> None:
        trio = await Trio.opened(8)
        await trio.stores[0].put_many(dict.fromkeys(KEYS, 1))
        outcast, *others = trio.hosts
        key = trio.key_of(outcast)
        trio.network.silent = [outcast.uid]
        entry = others[0].known[outcast.uid]
        for host in others:
            host.see(msgspec.structs.replace(entry, incarnation=entry.incarnation + 1, health=Health.DOWN))
        await trio.network.sleep(2)
        await trio.stores[1].put(key, 2)
        assert await trio.stores[0].get(key) == 1, "it does not know better yet"
        with pytest.raises(Unavailable):
            await trio.stores[0].put(key, 3)
        trio.network.silent = []
        trio.network.publish(msgspec.structs.replace(entry, incarnation=entry.incarnation + 5))
        await trio.rest()
        assert len({await store.get(key) for store in trio.stores}) == 1
        assert await trio.stores[0].get(key) in (2, 3)

    run(main())


async def test_what_the_other_side_of_a_split_wrote_outlives_a_collection_of_tombstones_right_after_the_heal(
    cluster: Cluster,
) -> None:
    nodes = await cluster.start(2)
    stores = [await node.kv("words", int) for node in nodes]
    await cluster.settle()
    cluster.partition(nodes[:1], nodes[1:])
    await cluster.settle()
    for number in range(40):
        for store, side in zip(stores, "ab", strict=True):
            await store.put(f"{side}{number}", number)
            await store.put(f"{side}{number} deleted later", number)
    for number in range(40):
        for store, side in zip(stores, "ab", strict=True):
            await store.delete(f"{side}{number} deleted later")
    await cluster.sleep(120)
    cluster.heal()
    hostings = [store._service.hosting for store in stores]
    for hosting in hostings:
        assert hosting is not None
        async with asyncio.timeout(60):
            while hosting.placement.view.missed:
                await cluster.sleep(0.001)
        hosting._collecting._due_at = 0.0  # once a minute it is due: of all moments in this one
        await cluster.sleep(0.1)
    await cluster.settle()
    expected = {f"{side}{number}": number for side in "ab" for number in range(40)}
    assert {key: value async for key, value in stores[0].scan()} == expected
