"""Histories of clients that share a few keys while nodes join, leave and crash: some order always explains them.

`read="any"` promises less, and is found out.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

import roost
from roost.testing import Cluster, History, NotLinearizable, RecordedKV, check_linearizable

KEYS = [f"key{number}" for number in range(3)]
FAILURES = (roost.Unreachable, roost.Unavailable, roost.DeadlineExceeded, roost.Overloaded)
SETTINGS: dict[str, Any] = {"partitions": 8, "call_seconds": 2.0}


class Clients:
    """So many of them on every node that hosts the store."""

    def __init__(self, cluster: Cluster, history: History, **options: Any) -> None:
        self.cluster = cluster
        self.history = history
        self.options = options
        self.values = 0
        self.stores: dict[roost.Node, roost.KV[str, int]] = {}
        self.tasks: dict[roost.Node, list[asyncio.Task[None]]] = {}

    async def join(self, name: str) -> roost.Node:
        seeds = [node.address for node in self.cluster.nodes]
        node = await self.cluster.launch(name, seeds=seeds, **SETTINGS)
        store = self.stores[node] = await node.kv("words", int, **self.options)
        self.tasks[node] = [
            asyncio.create_task(self._act(RecordedKV(store, self.history, f"{name}/{number}"), f"{name}/{number}"))
            for number in range(2)
        ]
        return node

    async def _act(self, store: RecordedKV[str, int], name: str) -> None:
        rng = random.Random(f"{self.cluster.seed}/{name}")
        while True:
            await self.cluster.sleep(rng.expovariate(40.0))
            with suppress(*FAILURES):
                await self._call(store, rng)

    async def _call(self, store: RecordedKV[str, int], rng: random.Random) -> None:
        key = rng.choice(KEYS)
        value = self.values = self.values + 1
        match rng.choice(["get", "get", "get", "put", "put", "update", "delete", "put_if_absent"]):
            case "get":
                await store.get(key)
            case "put":
                await store.put(key, value)
            case "update":
                await store.update(key, lambda before: value)
            case "delete":
                await store.delete(key)
            case _:
                await store.put_if_absent(key, value)

    def stop(self, *nodes: roost.Node) -> None:
        for node in nodes or list(self.tasks):
            for task in self.tasks.pop(node):
                task.cancel()


@pytest.mark.parametrize(("replicas", "write"), [(3, "majority"), (3, "all"), (2, "all")])
async def test_joins_leaves_and_crashes_between_repairs_leave_every_key_linearizable(
    cluster: Cluster, replicas: int, write: Any
) -> None:
    history = History()
    clients = Clients(cluster, history, replicas=replicas, write=write)
    nodes = [await clients.join(f"n{number}") for number in range(4)]
    await cluster.settle()
    for number in range(4, 7):
        await cluster.sleep(0.3)
        cluster.slow(nodes[0], 0.02)
        await cluster.crash(nodes[1])
        clients.stop(nodes.pop(1))
        await cluster.sleep(1.0)
        nodes.append(await clients.join(f"n{number}"))
        cluster.reset_links(nodes[0])
        leaver = nodes.pop(0)
        clients.stop(leaver)
        await cluster.leave(leaver)
        nodes.append(await clients.join(f"late{number}"))
        cluster.heal()
        await cluster.settle()
    clients.stop()
    await cluster.settle()
    last = RecordedKV(clients.stores[nodes[0]], history, "judge")
    for key in KEYS:
        await last.get(key)
    assert len(history) > 500
    check_linearizable(history)


async def test_copies_that_are_read_while_they_lag_are_not_linearizable_and_that_is_found(cluster: Cluster) -> None:
    history = History()
    clients = Clients(cluster, history, replicas=3, write="one", read="any")
    nodes = [await clients.join(f"n{number}") for number in range(3)]
    await cluster.settle()
    cluster.slow(nodes[1], 0.05)
    await cluster.sleep(3.0)
    clients.stop()
    with pytest.raises(NotLinearizable):
        check_linearizable(history)
