"""The key/value store on several hosts in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import msgspec
import pytest

from roost.core.tenure import Slot
from roost.errors import Overloaded, RemoteError, RoostError, Unreachable
from roost.services.collecting import CALM_SECONDS, COLLECT_SECONDS
from roost.services.keys import KeyCodec
from roost.services.kv import KV, KeyValuePartition, open_kv
from tests.services.fake_host import FakeHost, Network, run
from tests.services.test_partitions import settled


class Module(msgspec.Struct):
    """A value."""

    path: str
    lines: int = 0
    text: str = ""


class Library(KeyValuePartition[str, Module]):
    """Queries over modules."""

    async def containing(self, word: str) -> list[str]:
        return [name for name, module in self.items.items() if word in module.text]

    def lines(self) -> int:
        return sum(module.lines for module in self.items.values())


async def three(seed: int, value: Any = Module, **settings: Any) -> tuple[Network, list[FakeHost], list[KV[Any, Any]]]:
    network = Network(seed, **settings)
    hosts = [network.host(name) for name in ("a", "b", "c")]
    handler = Library if value is Module else None
    stores = [await open_kv(host, "library", value, handler=handler) for host in hosts]
    await settled(network, *stores)
    return network, hosts, stores


def test_what_one_node_puts_another_gets_and_deletes() -> None:
    async def main() -> None:
        _, _, stores = await three(1)
        a, b, c = stores
        await a.put("os", Module("os.py", 10))
        assert await b.get("os") == Module("os.py", 10)
        assert await b.get("sys") is None
        assert await c.delete("os") is True
        assert await a.delete("os") is False
        assert await b.get("os", default="gone") == "gone"
        await a.put("os", Module("again"))
        assert await c.get("os") == Module("again")
        assert await c.size() == 1

    run(main())


def test_keys_of_different_types_are_different_keys() -> None:
    async def main() -> None:
        network = Network(1)
        store: KV[Any, str] = await open_kv(network.host("a"), "any", str, key=Any)
        keys: list[Any] = [("a", "b"), "a.b", 1, "1", True, b"1", ("a.b",), ("a", "b", ""), ""]
        for key in keys:
            await store.put(key, repr(key))
        assert await store.size() == len(keys)
        for key in keys:
            assert await store.get(key) == repr(key)
        assert sorted([value async for _, value in store.scan()]) == sorted(repr(key) for key in keys)

    run(main())


def test_a_key_is_encoded_alike_however_it_is_written() -> None:
    floats: KeyCodec[float] = KeyCodec(float)
    assert floats.encode(1) == floats.encode(1.0)
    sets: KeyCodec[frozenset[str]] = KeyCodec(frozenset[str])
    assert sets.encode(frozenset("abcdef")) == sets.encode(frozenset("fedcba"))
    uid = UUID("12345678123456781234567812345678")
    uuids: KeyCodec[UUID] = KeyCodec(UUID)
    assert uuids.decode(uuids.encode(uid)) == uid
    strings: KeyCodec[Any] = KeyCodec(str)
    integers: KeyCodec[Any] = KeyCodec(int)
    with pytest.raises(TypeError, match="keys are of type str"):
        strings.encode(5)
    with pytest.raises(TypeError, match="keys are of type int"):
        integers.encode(True)


def test_none_is_a_value_like_any_other() -> None:
    async def main() -> None:
        anything: Any = Any
        store: KV[str, Any] = await open_kv(Network(1).host("a"), "any", anything)
        missing = object()
        assert await store.get("k", default=missing) is missing
        await store.put("k", None)
        assert await store.get("k", default=missing) is None
        assert await store.delete("k")
        assert await store.get("k", default=missing) is missing

    run(main())


def test_a_value_of_a_wrong_type_or_too_large_is_refused_at_the_caller() -> None:
    async def main() -> None:
        network, _, stores = await three(1, message_bytes_max=10_000)
        sent = network.sent
        wrong: list[Any] = [5, {"path": "x"}, Module(path=5)]  # type: ignore[arg-type]  # on purpose
        for value in wrong:
            with pytest.raises(TypeError, match="values are of type Module"):
                await stores[0].put("k", value)
        with pytest.raises(Overloaded, match="message_bytes_max is 10000") as large:
            await stores[0].put("k", Module("k", text="x" * 10_000))
        assert (large.value.limit, large.value.may_have_run, network.sent) == (10_000, False, sent)

    run(main())


def test_own_queries_see_every_partition_once() -> None:
    async def main() -> None:
        _, _, stores = await three(1)
        for number in range(50):
            await stores[0].put(f"m{number}", Module("m", 2, "even" if number % 2 == 0 else "odd"))
        found = await stores[1].gather(Library.containing, "even")
        assert sorted(name for names in found.values() for name in names) == sorted(f"m{n}" for n in range(0, 50, 2))
        assert sum((await stores[2].gather(Library.lines)).values()) == 100

    run(main())


def test_many_keys_travel_in_one_message_a_node() -> None:
    async def main() -> None:
        network, _, stores = await three(1)
        values = {f"m{number}": Module("m", number) for number in range(200)}
        before = network.sent
        await stores[0].put_many(values)
        assert await stores[0].get_many([*values, "none"]) == values
        assert network.sent - before == 6

    run(main())


def test_a_scan_is_bounded_and_complete_while_partitions_move() -> None:
    async def main(seed: int) -> None:
        network, hosts, stores = await three(seed, str)
        steady = {f"s{number}": "x" * 5000 for number in range(300)}
        await stores[0].put_many(steady)
        extra = await open_kv(network.host("d"), "library", str)
        seen: list[str] = []
        leaving: asyncio.Future[None] | None = None
        async for key, value in stores[0].scan(prefix="s"):
            seen.append(key)
            assert value == steady[key]
            if len(seen) == 100:
                leaving = asyncio.ensure_future(hosts[1].leave())
            if len(seen) % 10 == 0:
                await stores[2].put(f"t{len(seen)}", "other")
        assert leaving is not None
        await leaving
        assert sorted(seen) == sorted(steady)
        assert await extra.size() == 330

    for seed in range(4):
        run(main(seed))


def test_every_acknowledged_write_is_there_after_joins_and_leaves() -> None:
    async def main(seed: int) -> None:
        network, hosts, stores = await three(seed, int, transfer_chunk_bytes=200, transfers_max=3)
        running = True
        written: dict[str, int | None] = {}

        async def write(name: str, host: FakeHost, store: KV[str, int]) -> None:
            number = 0
            while running and host.alive:
                number += 1
                key = f"{name}{number % 70}"
                if number % 5:
                    await store.put(key, number)
                    written[key] = number
                else:
                    assert await store.delete(key) == (written.get(key) is not None)
                    written[key] = None

        writers = [asyncio.ensure_future(write(*each)) for each in zip("ab", hosts, stores, strict=False)]
        for joiner in "de":
            host = network.host(joiner)
            hosts.append(host)
            stores.append(await open_kv(host, "library", int))
            await network.sleep(0.3)
        await hosts[2].leave()
        await hosts[3].leave()
        running = False
        await asyncio.gather(*writers)
        del stores[2:4]
        await settled(network, *stores)
        for key, expected in written.items():
            assert await stores[2].get(key) == expected
        assert {key: value async for key, value in stores[0].scan()} == {
            key: value for key, value in written.items() if value is not None
        }
        assert await stores[1].size() == sum(value is not None for value in written.values())

    for seed in range(6):
        run(main(seed))


def test_a_thousand_empty_partitions_move_in_a_fraction_of_a_second() -> None:
    async def main() -> None:
        network = Network(3, partitions=1024)
        stores = [await open_kv(network.host("a"), "library", str)]
        loop = asyncio.get_running_loop()
        started = loop.time()
        stores.append(await open_kv(network.host("b"), "library", str))
        await settled(network, *stores)
        assert loop.time() - started < 0.7
        status = stores[1].status()
        assert 480 <= status["held"] <= 564
        assert status["moved_in"] == status["held"]

    run(main())


def test_a_crashed_holder_costs_what_it_held_and_nothing_else() -> None:
    async def main(seed: int) -> None:
        network, hosts, stores = await three(seed, int)
        for number in range(100):
            await stores[0].put(f"k{number}", number)
        lost = set(stores[0].ring.owned_by("b"))
        calls = [asyncio.ensure_future(stores[0].put(f"n{number}", number)) for number in range(100)]
        await network.sleep(0.001)
        hosts[1].crash()
        for number, outcome in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            partition = stores[0]._service.partition_of(msgspec.msgpack.encode(f"n{number}"))
            assert outcome is None or (isinstance(outcome, Unreachable) and partition in lost)
        await settled(network, *stores)
        for number in range(100):
            partition = stores[0]._service.partition_of(msgspec.msgpack.encode(f"k{number}"))
            assert await stores[2].get(f"k{number}") == (None if partition in lost else number)
        assert set(stores[0].status()["possible_loss"] + stores[2].status()["possible_loss"]) == lost

    for seed in range(4):
        run(main(seed))


def test_a_hostile_body_harms_nothing() -> None:
    async def main() -> None:
        _, hosts, stores = await three(1, str)
        await stores[0].put("k", "v")
        for method in ("kv.get", "kv.put", "kv.many", "kv.scan", "kv.size", "~", "*x", ""):
            for body in (b"\xc0", b"\x90", b"\x94\xce\xff\xff\xff\xff\x00\xc4\x00\xc0", b"\x91\xcd\xff\xff"):
                with contextlib.suppress(RoostError):
                    await hosts[0].call(hosts[0].uid, "kv:library", method, body, seconds=1)
        assert await stores[1].get("k") == "v"

    run(main())


def test_a_query_that_fails_is_an_error_of_the_handler() -> None:
    async def main() -> None:
        _, _, stores = await three(1)
        with pytest.raises(TypeError, match="is no command"):
            await stores[0].gather(KeyValuePartition._begin)  # type: ignore[call-overload]  # on purpose
        with pytest.raises(RemoteError, match="Expected `str`"):
            await stores[0].gather(Library.containing, 5)  # type: ignore[call-overload]  # on purpose

    run(main())


def test_tombstones_are_forgotten_in_time() -> None:
    async def main() -> None:
        network = Network(1)
        store: KV[str, int] = await open_kv(network.host("a"), "any", int)
        for number in range(20):
            await store.put(f"k{number}", number)
            await store.delete(f"k{number}")
        assert sum(len(slot.items) for slot in hosted(store)) == 20
        await network.sleep(50)
        assert sum(len(slot.items) for slot in hosted(store)) == 20
        await network.sleep(COLLECT_SECONDS + CALM_SECONDS + 60)
        assert sum(len(slot.items) for slot in hosted(store)) == 0

    run(main())


def hosted(store: KV[Any, Any]) -> list[Slot]:
    hosting = store._service.hosting
    assert hosting is not None
    return hosting.rights.slots
