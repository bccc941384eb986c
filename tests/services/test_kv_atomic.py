"""Compare-and-set in the key/value store: versions, `update`, `put_if_absent`, and requests that are made twice."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from roost.core.items import OUTCOME
from roost.errors import ConfigError, RemoteError, Unreachable
from roost.services.commands import Command
from roost.services.kv import KV, open_kv
from roost.services.kv_commands import Swap, Swapped
from roost.services.replication import Replication
from roost.testing import Cluster
from tests.services.fake_host import FakeHost, Network, run
from tests.services.test_partitions import settled


async def opened(seed: int, **options: Any) -> tuple[Network, list[FakeHost], list[KV[Any, int]]]:
    network = Network(seed)
    hosts = [network.host(name) for name in ("a", "b", "c")]
    stores = [await open_kv(host, "numbers", int, replication=Replication(**options)) for host in hosts]
    await settled(network, *stores)
    return network, hosts, stores


def test_an_update_sees_the_value_and_stores_what_it_makes_of_it() -> None:
    async def main() -> None:
        _, _, (a, b, c) = await opened(1, replicas=2)
        assert await a.update("k", lambda old: (old or 0) + 5) == 5
        assert await b.update("k", lambda old: (old or 0) + 5) == 10
        assert await c.get("k") == 10

    run(main())


@pytest.mark.parametrize("replicas", [1, 3])
def test_updates_from_many_nodes_at_once_are_all_counted(replicas: int) -> None:
    async def main(seed: int) -> None:
        _, _, stores = await opened(seed, replicas=replicas)
        calls = 0

        def one_more(old: int | None) -> int:
            nonlocal calls
            calls += 1
            return (old or 0) + 1

        await asyncio.gather(*(stores[number % 3].update("k", one_more) for number in range(60)))
        assert await stores[0].get("k") == 60
        assert calls > 60, "nobody has met a write of somebody else's: this proves nothing"

    for seed in range(3):
        run(main(seed))


def test_what_the_function_of_an_update_raises_changes_nothing() -> None:
    async def main() -> None:
        _, _, (a, b, _) = await opened(2)
        await a.put("k", 1)

        def fails(old: int | None) -> int:
            raise LookupError("no")

        with pytest.raises(LookupError):
            await b.update("k", fails)
        assert await a.get("k") == 1

    run(main())


def test_put_if_absent_has_one_winner() -> None:
    async def main() -> None:
        _, _, stores = await opened(3, replicas=2)
        won = await asyncio.gather(*(stores[number % 3].put_if_absent("k", number) for number in range(9)))
        assert sum(won) == 1
        assert await stores[0].get("k") == won.index(True)
        assert await stores[1].delete("k")
        assert await stores[2].put_if_absent("k", 77), "a deleted key is absent"

    run(main())


def test_replace_stores_only_over_the_version_that_it_was_given() -> None:
    async def main() -> None:
        _, _, (a, b, c) = await opened(4, replicas=3)
        missing = await a.get_versioned("k")
        assert (missing.value, missing.version) == (None, (0, 0))
        assert await a.replace("k", 1, missing.version)
        first = await b.get_versioned("k")
        assert first.value == 1
        await c.put("k", 1)
        assert not await b.replace("k", 2, first.version), "the same value again is another version"
        assert await a.get("k") == 1
        assert await b.replace("k", 2, (await b.get_versioned("k")).version)
        assert await a.get("k") == 2

    run(main())


def test_a_request_that_is_made_twice_has_one_effect_wherever_the_partition_has_gone() -> None:
    async def main() -> None:
        network, hosts, stores = await opened(5, replicas=2)
        service = stores[0]._service
        key = service.keys.encode("k")
        swap = Swap(b"r" * 16, (0, 0), msgspec.Raw(msgspec.msgpack.encode(1)))
        argument = msgspec.Raw(msgspec.msgpack.encode(swap))

        async def ask(store: KV[Any, int]) -> Swapped:
            command = Command(service.partition_of(key), 0, key, argument)
            body = await store._service.router.call(command, "kv.swap", 5.0, repeatable=True)
            return msgspec.msgpack.decode(body, type=Swapped)

        first = await ask(stores[0])
        assert first.done
        assert await stores[1].delete("k")
        again = await ask(stores[1])
        assert again == first, "it was done before, and is not done again"
        holder = next(host for host in hosts if holds(stores[hosts.index(host)], service.partition_of(key)))
        holder.crash()
        left = [store for store, host in zip(stores, hosts, strict=True) if host.alive]
        await settled(network, *left)
        assert await ask(left[0]) == first
        assert await left[1].get("k") is None

    run(main())


def holds(store: KV[Any, int], partition: int) -> bool:
    hosting = store._service.hosting
    return hosting is not None and hosting.rights.slots[partition].executes


def test_outcomes_of_requests_are_seen_by_nobody_and_forgotten_on_all_copies() -> None:
    async def main() -> None:
        network, _, stores = await opened(6, replicas=2)
        for number in range(20):
            assert await stores[number % 3].put_if_absent(f"k{number}", number)
        hostings = [store._service.hosting for store in stores]

        def outcomes() -> int:
            slots = [slot for hosting in hostings if hosting is not None for slot in hosting.rights.slots]
            return sum(key[0] == OUTCOME for slot in slots for key in slot.items.items)

        assert await stores[0].size() == 20
        assert sorted([key async for key, _ in stores[1].scan()]) == sorted(f"k{number}" for number in range(20))
        assert outcomes() == 40
        await network.sleep(150)
        assert outcomes() == 0
        assert await stores[2].size() == 20

    run(main())


def test_a_request_without_a_proper_id_is_refused() -> None:
    async def main() -> None:
        _, _, (a, *_) = await opened(7)
        service = a._service
        key = service.keys.encode("k")
        swap = Swap(b"short", (0, 0), msgspec.Raw(b"\x01"))
        command = Command(service.partition_of(key), 0, key, msgspec.Raw(msgspec.msgpack.encode(swap)))
        with pytest.raises(RemoteError, match=r"ProtocolError.*16 bytes"):
            await service.router.call(command, "kv.swap", 5.0)

    run(main())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"replicas": 17}, "up to 16"),
        ({"replicas": "3"}, "whole number"),
        ({"replicas": True}, "whole number"),
        ({"write": "most"}, "'one', 'majority', 'all'"),
        ({"read": "near"}, "'holder', 'any'"),
        ({"split": "keep-majorty"}, "keep-majority"),
        ({"split": "static-quorum"}, "quorum"),
        ({"quorum": 3}, "static-quorum"),
        ({"split": "static-quorum", "quorum": "2"}, "whole number"),
        ({"split": None}, "keep-both"),
        ({"replica": 3}, "did you mean replicas"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once_with_what_to_do(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Replication.of(options)


def test_what_is_no_version_and_what_is_no_plain_function_is_refused_where_it_is_given() -> None:
    async def later(old: int | None) -> int:
        return 1

    async def main() -> None:
        _, _, (a, *_) = await opened(10)
        with pytest.raises(TypeError, match="get_versioned"):
            await a.replace("k", 1, "version")  # type: ignore[arg-type]  # that is what is tested
        with pytest.raises(TypeError, match="plain function"):
            await a.update("k", later)  # type: ignore[arg-type]  # that is what is tested

    run(main())


async def test_a_handle_of_a_stopped_node_says_so_at_once(cluster: Cluster) -> None:
    a, _ = await cluster.start(2)
    store = await a.kv("numbers", int)
    await cluster.settle()
    await a.stop()
    with pytest.raises(Unreachable, match="has stopped") as refused:
        await store.put("k", 1)
    assert not refused.value.may_have_run


async def test_who_may_not_act_settles_too(cluster: Cluster) -> None:
    nodes = await cluster.start(5)
    for node in nodes:
        await node.kv("numbers", int, replicas=3, split="keep-majority")
    await cluster.settle()
    cluster.partition(nodes[:2], nodes[2:])
    await cluster.settle()
    assert [node.status()["services"]["kv:numbers"]["acts"] for node in nodes] == [False] * 2 + [True] * 3
    cluster.heal()
    await cluster.settle()
    services = [node.status()["services"]["kv:numbers"] for node in nodes]
    assert all(service["acts"] and service["possible_loss"] == [] for service in services)


def test_other_options_elsewhere_are_refused() -> None:
    async def main() -> None:
        network, _, _ = await opened(8, replicas=2)
        for others in ({"replicas": 3}, {"replicas": 2, "write": "all"}, {"replicas": 2, "split": "down-all"}):
            with pytest.raises(ConfigError, match="options"):
                await open_kv(network.host("d"), "numbers", int, replication=Replication.of(others))
        host = network.host("e")
        await open_kv(host, "numbers", int, replication=Replication(replicas=2, read="any"))

    run(main())


def test_any_copy_answers_reads_where_that_was_asked_for() -> None:
    async def main() -> None:
        network, hosts, stores = await opened(9, replicas=3, read="any")
        for number in range(30):
            await stores[0].put(f"k{number}", number)
        await network.sleep(1)
        hosts[1].crash()
        assert [await stores[0].get(f"k{number}") for number in range(30)] == list(range(30)), "without a holder, too"

    run(main())
