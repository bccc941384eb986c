"""What is lost is told: to the log in one line, to the status, and to whoever watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

import roost
from roost.services import losses as losses_module
from roost.testing import Cluster


async def test_a_crash_with_one_copy_is_told_partition_by_partition(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await cluster.start(2)
    store = await a.kv("numbers", int)
    await b.kv("numbers", int)
    await cluster.settle()
    taken = store.ring.owned_by(b.name)
    seen: list[roost.PossibleLoss] = []

    async def watch() -> None:
        async for loss in store.losses():
            seen.append(loss)

    watching = asyncio.create_task(watch())
    with caplog.at_level(logging.WARNING, logger="roost.partitions"):
        await cluster.crash(b)
        await cluster.settle()
    assert sorted(loss.partition for loss in seen) == sorted(taken)
    assert {(loss.service, loss.copies) for loss in seen} == {("kv:numbers", (b.name,))}
    assert store.status()["possible_loss"] == sorted(taken)
    lines = [record.getMessage() for record in caplog.records if "possible_loss" in record.getMessage()]
    assert len(lines) == 1, "one line for all partitions"
    assert f"{len(taken)} partitions" in lines[0]
    late = [loss.partition async for loss in limited(store, len(taken))]
    assert sorted(late) == sorted(taken), "who watches later is told what was before"
    await a.stop()
    await watching


async def limited(store: roost.KV[str, int], count: int) -> AsyncIterator[roost.PossibleLoss]:
    async for loss in store.losses():
        yield loss
        count -= 1
        if not count:
            return


async def test_a_crash_with_a_second_copy_loses_nothing_and_says_nothing(cluster: Cluster) -> None:
    nodes = await cluster.start(3)
    stores = [await node.kv("numbers", int, replicas=2) for node in nodes]
    await cluster.settle()
    await stores[0].put_many({f"k{number}": number for number in range(100)})
    await cluster.crash(nodes[1])
    await cluster.settle()
    assert await stores[2].get_many([f"k{number}" for number in range(100)]) == {f"k{n}": n for n in range(100)}
    assert stores[0].status()["possible_loss"] == stores[2].status()["possible_loss"] == []


async def test_a_reader_that_is_too_slow_is_told_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses_module, "EVENTS_MAX", 5)
    a, b = await cluster.start(2)
    store = await a.kv("numbers", int)
    await b.kv("numbers", int)
    await cluster.settle()
    watch = store.losses()
    first = asyncio.ensure_future(anext(watch))
    await cluster.crash(b)
    await cluster.settle()
    await first
    with pytest.raises(roost.Overloaded, match="watch anew"):
        for _ in range(20):
            await anext(watch)
