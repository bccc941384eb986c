"""How fast partitions move to a node that joins, and how long a writer waits: `python -m benchmarks.moves`.

One process hosts a store with so many items of 100 bytes; a second one joins, and half of it moves there while a writer
in the first one goes on. With `--replicas 2` all of it is copied to the second. Then the second is killed, and the time
until the writer goes on is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from typing import Any

import roost
from roost.ops.loop import run

__all__ = ["main"]

VALUE = b"x" * 100
BATCH = 2000


async def _open(node: roost.Node, replicas: int) -> roost.KV[int, bytes]:
    return await node.kv("moved", bytes, key=int, replicas=replicas)


async def _join(address: str, replicas: int) -> None:
    """The second process: joins, and says once all is still."""
    async with roost.Node("second", bind="127.0.0.1:0", seeds=[address], profile="local") as node:
        await _open(node, replicas)
        await asyncio.Event().wait()


class _Writer:
    """Puts one value after the other; remembers the longest wait."""

    def __init__(self, store: roost.KV[int, bytes]) -> None:
        self._store = store
        self.count = 0
        self.longest = 0.0
        self.errors = 0

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                await self._store.put(-1 - self.count % 512, VALUE)
            except roost.RoostError:
                self.errors += 1
            self.longest = max(self.longest, time.perf_counter() - began)
            self.count += 1
            await asyncio.sleep(0.0005)

    def reset(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # a benchmark looks from outside
        await asyncio.sleep(0.002)


async def _measure(items: int, replicas: int) -> dict[str, Any]:
    async with roost.Node("first", bind="127.0.0.1:0", profile="local") as node:
        store = await _open(node, replicas)
        for start in range(0, items, BATCH):
            await store.put_many(dict.fromkeys(range(start, min(start + BATCH, items)), VALUE))
        writer = _Writer(store)
        writing = asyncio.create_task(writer.run())
        await asyncio.sleep(0.5)
        result: dict[str, Any] = {"items": items, "replicas": replicas, "calm_pause_ms": writer.reset() * 1000}
        command = (sys.executable, "-m", "benchmarks.moves", "--join", node.address, "--replicas", str(replicas))
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        try:
            await _until(lambda: sum("kv:moved" in member.services for member in node.members) == 2)
            began = time.perf_counter()
            await _until(lambda: node.quiet)
            result["seconds"] = time.perf_counter() - began
            status = store.status()
            result["moved_items"] = status["moved_items"]
            result["sent_items"] = round(status["copied_bytes"] / (len(VALUE) + 33))
            result["items_per_second"] = result["sent_items"] / result["seconds"]
            result["writer_pause_ms"] = writer.reset() * 1000
            result["holder_pause_ms"] = status["longest_pause_seconds"] * 1000
            result["errors"] = writer.errors
            began = time.perf_counter()
            process.send_signal(signal.SIGKILL)
            await _until(lambda: sum(member.state == "up" for member in node.members) == 1)
            result["noticed_ms"] = (time.perf_counter() - began) * 1000
            await _until(lambda: node.quiet)
            await asyncio.sleep(0.1)
            result["killed_pause_ms"] = writer.reset() * 1000
            result["killed_errors"] = writer.errors - result["errors"]
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            writing.cancel()
        return {**result, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--join", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.join:
        run(_join(options.join, options.replicas))
        return
    print(json.dumps(run(_measure(options.items, options.replicas)), indent=2))


if __name__ == "__main__":
    main()
