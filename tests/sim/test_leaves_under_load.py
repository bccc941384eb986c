"""Graceful leaves while others call all the time: not a single call fails."""

from __future__ import annotations

import asyncio
import random

from roost.testing import Cluster

LEAVES = 3
SLOW_SECONDS = 0.02
WRITERS = 4


async def test_no_call_fails_because_a_node_leaves(cluster: Cluster) -> None:
    nodes = await cluster.start(3)
    stores = [await node.kv("words", int, replicas=2) for node in nodes]
    await cluster.settle()
    over = False

    async def write(number: int) -> int:
        rng = random.Random(number)
        count = 0
        while not over:
            await stores[number % 3].put(f"{number}-{rng.randrange(30)}", count)
            count += 1
            await cluster.sleep(rng.uniform(0, 0.004))
        return count

    writers = [asyncio.ensure_future(write(number)) for number in range(3 * WRITERS)]
    for number in range(LEAVES):
        guest = await cluster.launch(f"guest{number}")
        cluster.slow(guest, SLOW_SECONDS)  # what is said to it is long on its way
        await guest.kv("words", int, replicas=2)
        await cluster.settle()
        await cluster.leave(guest)
    over = True
    assert min(await asyncio.gather(*writers)) > 0
