"""Copies of whole nodes, by subject: crashes under load, zones, restarts, reads of copies, transfers that take time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import roost
from roost.core.clock import milliseconds_of
from roost.services.hosting import Hosting
from roost.testing import Cluster
from tests.sim.verdict import rested

KEYS = [f"key{number}" for number in range(60)]
SMALL: dict[str, Any] = {"partitions": 16}


def hosting_of(store: roost.KV[Any, Any]) -> Hosting:
    hosting = store._service.hosting
    assert hosting is not None
    return hosting


def partition_of(store: roost.KV[Any, Any], key: object) -> int:
    return store._service.partition_of(store._service.keys.encode(key))


def holder_of(store: roost.KV[Any, Any], key: object) -> str | None:
    """At rest."""
    return store.ring.primary(partition_of(store, key))


async def open_all(nodes: list[roost.Node], **options: Any) -> dict[str, roost.KV[str, int]]:
    return {node.name: await node.kv("words", int, **options) for node in nodes}


async def test_reads_and_writes_go_on_soon_after_the_holder_has_crashed_under_load(cluster: Cluster) -> None:
    nodes = await cluster.start(4, **SMALL)
    stores = await open_all(nodes, replicas=3)
    await cluster.settle()
    last: dict[str, float] = {}
    silence = 0.0
    acked: dict[str, int] = {}

    async def load(name: str, keys: list[str]) -> None:
        nonlocal silence
        for number in range(10**6):
            for key in keys:
                await cluster.sleep(0.01)
                try:
                    await stores[name].put(key, number)
                    acked[key] = number
                except roost.Unreachable as error:
                    assert error.may_have_run
                    continue
                assert await stores[name].get(key) == number
                now = cluster.loop.time()
                silence = max(silence, now - last.get(key, now))
                last[key] = now

    names = [node.name for node in nodes[1:]]
    tasks = [asyncio.create_task(load(name, KEYS[place::3][:6])) for place, name in enumerate(names)]
    await cluster.sleep(2.0)
    before, silence = silence, 0.0
    await cluster.crash(nodes[0])
    await cluster.sleep(5.0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    timings = nodes[1].settings.timings
    # Links that break are a hint: a probe, the time for which refusing hosts are suspected, one round of questions.
    assert silence <= before + 2 * timings.probe_seconds + 6 * timings.refused_seconds
    assert all(stores[name].status()["possible_loss"] == [] for name in names)
    for key, number in acked.items():
        assert (await stores[names[0]].get(key) or 0) >= number


async def test_copies_are_kept_in_different_zones_and_survive_the_loss_of_one(cluster: Cluster) -> None:
    nodes = [await cluster.launch(f"{zone}{number}", zone=zone, **SMALL) for zone in "ab" for number in (1, 2)]
    stores = await open_all(nodes, replicas=2)
    await cluster.settle()
    for number, key in enumerate(KEYS):
        await stores["a1"].put(key, number)
    names = {node.uid: node.name for node in nodes}
    held = [slot.right for store in stores.values() for slot in hosting_of(store).rights.slots if slot.executes]
    assert len(held) == 16
    assert all({names[uid][0] for uid in right.copies} == {"a", "b"} for right in held)
    for node in nodes[:2]:  # all of zone a, at once
        await cluster.crash(node)
    await cluster.settle()
    assert await stores["b1"].get_many(KEYS) == {key: number for number, key in enumerate(KEYS)}
    assert [stores[name].status()["possible_loss"] for name in ("b1", "b2")] == [[], []]


async def test_a_restarted_node_gets_its_copies_back_without_a_key_being_touched(cluster: Cluster) -> None:
    nodes = await cluster.start(3, **SMALL)
    stores = await open_all(nodes, replicas=3)
    await cluster.settle()
    await stores["n1"].put_many(dict.fromkeys(KEYS, 1))
    await cluster.settle()
    await cluster.crash(nodes[1])
    await cluster.settle()
    await cluster.restart(nodes[1])
    stores["n2"] = await nodes[1].kv("words", int, replicas=3)
    await cluster.settle()
    await cluster.sleep(2.5)
    rested(cluster.nodes)
    assert sum(slot.items.live for slot in hosting_of(stores["n2"]).rights.slots) == len(KEYS)


async def test_any_copy_is_read_while_the_holder_is_cut_off_and_not_yet_taken_for_down(cluster: Cluster) -> None:
    nodes = await cluster.start(3, **SMALL)
    stores = await open_all(nodes, replicas=3, read="any")
    await cluster.settle()
    await stores["n1"].put_many(dict.fromkeys(KEYS, 1))
    await cluster.settle()
    cluster.partition(nodes[:1], nodes[1:])
    for key in KEYS:
        async with asyncio.timeout(0.1):
            assert await stores["n2"].get(key) == 1
            assert await stores["n1"].get(key) == 1
    assert nodes[1].members["n1"].state == "up"


async def test_where_copies_are_lacking_the_error_says_how_many_and_that_nothing_ran(cluster: Cluster) -> None:
    """a and b cannot reach each other, but c reaches both, so that nobody is down. b starts anew: it has no copy."""
    a, c, b = await cluster.start(["a", "c", "b"], call_seconds=2.0, **SMALL)
    options: dict[str, Any] = {"replicas": 2, "write": "all"}
    store = await a.kv("words", int, **options)
    await b.kv("words", int, **options)
    caller = await c.kv("words", int, host=False)
    await cluster.settle()
    mine = [key for key in KEYS if holder_of(store, key) == "a"]
    await store.put(mine[0], 1)
    cluster.partition([a], [b])
    await cluster.crash(b)
    again = await cluster.launch("b2", seeds=[c.address], call_seconds=2.0, **SMALL)
    cluster.partition([a], [again])
    await again.kv("words", int, **options)
    async with asyncio.timeout(60):
        while "b2" not in a.members or "kv:words" not in a.members["b2"].services or "b2" not in store.ring.owners(0):
            await cluster.sleep(0.1)
    await cluster.sleep(3.0)
    held = next(key for key in KEYS if hosting_of(store).rights.slots[partition_of(store, key)].executes)
    with pytest.raises(roost.Unavailable) as lacking:
        await store.put(held, 2)
    assert (lacking.value.needed, lacking.value.have, lacking.value.may_have_run) == (2, 1, False)
    cluster.heal()
    await cluster.settle()
    await caller.put(held, 3)
    assert await caller.get(held) == 3
    assert await caller.get(mine[0]) == (3 if held == mine[0] else 1)


async def test_another_number_of_copies_on_another_host_is_refused(cluster: Cluster) -> None:
    a, b = await cluster.start(2, **SMALL)
    await a.kv("words", int, replicas=2)
    await cluster.settle()
    with pytest.raises(roost.ConfigError, match="other options on n1"):
        await b.kv("words", int, replicas=3)
    await b.kv("words", int, replicas=2)


async def test_a_transfer_says_how_much_is_left_and_how_fast_it_goes_and_holds_up_nobody(cluster: Cluster) -> None:
    settings = {"transfer_bytes_per_second": 10_000.0, "transfer_chunk_bytes": 2000, **SMALL}
    (a,) = await cluster.start(1, **settings)
    texts = await a.kv("texts", str, replicas=2)
    for key in KEYS:
        await texts.put(key, "x" * 2000)  # 120 kB: twelve seconds
    b = await cluster.launch("b", **settings)
    await b.kv("texts", str, replicas=2)
    await cluster.sleep(3.0)
    status = a.status()["services"]["kv:texts"]
    assert 30_000 < status["copy_bytes_left"] < 110_000
    assert 5_000 < status["copy_bytes_per_second"] < 15_000
    assert status["copy_seconds_left"] == pytest.approx(status["copy_bytes_left"] / 10_000, rel=0.5)
    began = cluster.loop.time()
    for key in KEYS:
        await texts.put(key, "y")
    assert cluster.loop.time() - began < 1.0
    await cluster.settle()
    status = a.status()["services"]["kv:texts"]
    assert (status["copy_bytes_left"], status["copy_seconds_left"]) == (0, 0.0)
    assert await texts.get_many(KEYS) == dict.fromkeys(KEYS, "y")


async def test_who_leaves_and_cannot_hand_everything_over_in_time_says_what_was_left(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"transfer_bytes_per_second": 5_000.0, "transfer_chunk_bytes": 1000, "leave_seconds": 2.0, **SMALL}
    (a,) = await cluster.start(1, **settings)
    texts = await a.kv("texts", str)
    for key in KEYS:
        await texts.put(key, "x" * 2000)
    b = await cluster.launch("b", **settings)
    await b.kv("texts", str)
    with caplog.at_level(logging.WARNING, "roost.partitions"):
        await cluster.leave(a)
    (said,) = [record.getMessage() for record in caplog.records if "leaves before all of" in record.getMessage()]
    assert "kv:texts" in said
    left = b.status()["services"]["kv:texts"]
    assert left["items"] < len(KEYS)


@pytest.mark.parametrize("moment_seconds", [0.05, 0.2, 0.5, 1.0, 2.0])
async def test_a_crash_during_the_rebalance_after_a_join_loses_nothing(cluster: Cluster, moment_seconds: float) -> None:
    settings = {"transfer_chunk_bytes": 500, "transfer_bytes_per_second": 2_000.0, **SMALL}
    nodes = await cluster.start(3, **settings)
    stores = await open_all(nodes, replicas=2)
    await cluster.settle()
    many = {f"key{number}": number for number in range(1000)}
    await stores["n1"].put_many(many)
    await cluster.settle()
    newcomer = await cluster.launch("n4", **settings)
    opening = asyncio.ensure_future(newcomer.kv("words", int, replicas=2))
    await cluster.sleep(moment_seconds)
    assert not all(node.quiet for node in cluster.nodes)
    await cluster.crash(nodes[1])
    stores["n4"] = await opening
    await cluster.settle()
    assert await stores["n4"].get_many(many) == many
    assert await stores["n1"].size() == len(many)
    assert [stores[name].status()["possible_loss"] for name in ("n1", "n3", "n4")] == [[]] * 3


async def test_a_node_whose_clock_runs_ahead_drags_nobody_with_it(cluster: Cluster) -> None:
    nodes = await cluster.start(3, **SMALL)
    stores = await open_all(nodes, replicas=3)
    await cluster.settle()
    cluster.skew(nodes[1], 3600.0)
    for key in KEYS:
        await stores["n1"].put(key, 1)  # those of n2 get stamps of an hour from now
    await cluster.settle()
    ahead = [key for key in KEYS if holder_of(stores["n1"], key) == "n2"]
    await cluster.leave(nodes[1])
    await cluster.settle()
    for key in ahead:
        await stores["n1"].put(key, 2)
        assert await stores["n3"].get(key) == 2  # a write is greater than what it replaces, whatever its stamp
    for name in ("n1", "n3"):
        hosting = hosting_of(stores[name])
        limit_ms = (hosting.host.runtime.wall() + hosting.host.settings.clock_ahead_max_seconds) * 1000
        assert milliseconds_of(hosting.clock.last) <= limit_ms


async def test_updates_whose_links_break_are_applied_once_each(cluster: Cluster) -> None:
    nodes = await cluster.start(4, **SMALL)
    stores = await open_all(nodes, replicas=3)
    await cluster.settle()
    winners: list[str] = []
    sums = dict.fromkeys(KEYS[:3], 0)

    async def count(name: str) -> None:
        for number in range(40):
            await cluster.sleep(0.02)
            key = KEYS[number % 3]
            await stores[name].update(key, lambda before: (before or 0) + 1)
            sums[key] += 1
            if await stores[name].put_if_absent(f"prize{number}", 1):
                winners.append(f"prize{number}")

    async def trouble() -> None:
        while True:
            await cluster.sleep(0.03)
            cluster.reset_links(cluster.rng.choice(cluster.nodes))

    breaking = asyncio.create_task(trouble())
    await asyncio.gather(*(count(node.name) for node in nodes))
    breaking.cancel()
    assert await stores["n1"].get_many(sums) == sums
    assert sorted(winners) == sorted(f"prize{number}" for number in range(40))
