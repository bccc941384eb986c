"""One node of the demo as a process: `python -m roost.ops.demo.worker NAME SETTINGS_FILE REPLICAS [SEED ...]`.

Takes orders on standard input and reports on standard output (`orders`); its log goes to standard error. When its
input ends, so does it: it cannot outlive the demo, however that ended.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from roost.node import Node
from roost.ops.demo.library import Input, Library, Module, faults, read_library
from roost.ops.demo.load import Counting, Reading, counter, store
from roost.ops.demo.orders import (
    Check,
    Done,
    Halt,
    Leave,
    Notice,
    Order,
    Progress,
    Pulse,
    Read,
    Ready,
    Report,
    Search,
    Status,
    Store,
    Up,
    Write,
)
from roost.ops.loop import run
from roost.services.kv import KV
from roost.services.watching import MemberDown

__all__ = ["Worker", "main"]

_decode = msgspec.json.Decoder(Order).decode
_encode = msgspec.json.Encoder().encode


def report(what: Report) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(_encode(what).decode() + "\n")
    sys.stdout.flush()


class Worker:
    """Carries out orders through one node."""

    def __init__(self, node: Node, library: KV[str, Module]) -> None:
        self._node = node
        self._library = library
        self._reading_input: asyncio.Task[Input] | None = None
        self._work: list[Reading | Counting] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.leaves = asyncio.Event()

    def take(self, order: Order) -> None:
        """Begin to carry out an order; several may be under way."""
        task = asyncio.get_running_loop().create_task(self._carry_out(order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, order: Order) -> None:
        try:
            result = await self._do(order)
        except Exception as error:
            logging.getLogger("roost.demo").exception("%s failed", type(order).__name__)
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            report(Done(order.number, error=f"{type(cause).__name__}: {cause}"))
        else:
            report(Done(order.number, result))

    async def _do(self, order: Order) -> dict[str, Any]:
        match order:
            case Ready():
                await self._node.ready(order.count)
                return {}
            case Store():
                return await self._store(order)
            case Read():
                return await self._read(order)
            case Write():
                return await self._write(order)
            case Halt():
                for work in self._work:
                    work.halt()
                return {}
            case Check():
                return await self._check(order)
            case Search():
                return await self._search(order)
            case Status():
                return self._node.status()
            case Pulse():
                pulses = [work.pulse.take() for work in self._work]
                return {
                    "gap_seconds": max(gap for gap, _, _ in pulses),
                    "repeated": sum(repeated for _, repeated, _ in pulses),
                    "why": "; ".join(why for _, _, why in pulses if why),
                }
            case Notice():
                return await self._notice(order)
            case Leave():
                self.leaves.set()
                return {}

    async def _input(self) -> Input:
        """What is on the disk, read once, beside the loop: the node answers meanwhile."""
        if self._reading_input is None:
            self._reading_input = asyncio.create_task(asyncio.to_thread(read_library))
        return await self._reading_input

    def _progress(self, order: Order) -> Callable[[int, int, int], None]:
        return lambda done, total, passes: report(Progress(order.number, done, total, passes))

    async def _store(self, order: Store) -> dict[str, Any]:
        modules, skipped = await self._input()
        started = time.perf_counter()
        await store(self._library, modules, order.in_flight, self._progress(order))
        return {
            "keys": len(modules),
            "bytes": sum(module.bytes for module in modules.values()),
            "skipped": skipped,
            "seconds": time.perf_counter() - started,
        }

    async def _read(self, order: Read) -> dict[str, Any]:
        reading = Reading(self._library, (await self._input()).modules, order.counters)
        self._work.append(reading)
        started = time.perf_counter()
        await reading.run(order.in_flight, self._progress(order))
        return {
            "calls": reading.calls,
            "passes": reading.passes,
            "seconds": time.perf_counter() - started,
            "wrong": reading.wrong,
            "faults": reading.faults,
        }

    async def _write(self, order: Write) -> dict[str, Any]:
        counting = Counting(self._library, order.first, order.end)
        self._work.append(counting)
        await counting.run(order.pause_seconds, self._progress(order))
        return {"values": list(counting.values.values())}

    async def _notice(self, order: Notice) -> dict[str, Any]:
        async for event in self._node.members.watch():
            if isinstance(event, MemberDown) and event.member.name == order.name:
                break
        return {"at": time.monotonic()}

    async def _check(self, order: Check) -> dict[str, Any]:
        found = [await self._library.get(f"counter:{number}") for number in range(len(order.counters))]
        wrong = [
            fault
            for number, value in enumerate(order.counters)
            if (fault := faults(found[number], counter(number, value)))
        ]
        keys = len((await self._input()).modules) + len(order.counters)
        if (size := await self._library.size()) != keys:
            wrong.append(f"the store counts {size} keys, {keys} were stored")
        return {"wrong": len(wrong), "faults": wrong}

    async def _search(self, order: Search) -> dict[str, Any]:
        modules = (await self._input()).modules
        started = time.perf_counter()
        by_partition = await self._library.gather(Library.search, order.text)
        seconds = time.perf_counter() - started
        found = sorted(path for paths in by_partition.values() for path in paths)
        expected = sorted(path for path, module in modules.items() if order.text in module.text)
        wrong = sorted(set(found) ^ set(expected)) + ["found twice"] * (len(found) - len(set(found)))
        return {
            "found": len(found),
            "expected": len(expected),
            "partitions": len(by_partition),
            "seconds": seconds,
            "wrong": len(wrong),
            "faults": [f"the search for {order.text!r} differs: {path}" for path in wrong[:20]],
        }


async def main(name: str, settings_file: str, replicas: str, *seeds: str) -> None:
    """Be a node until told to leave, or until the input ends."""
    lines = await _orders()
    node = Node(name, config=settings_file, seeds=seeds)
    await node.start()
    worker = Worker(node, await node.kv("library", Module, handler=Library, replicas=int(replicas)))
    report(Up(node.address))
    leaves = asyncio.create_task(worker.leaves.wait())
    try:
        while not worker.leaves.is_set():
            line = asyncio.create_task(lines.readline())
            await asyncio.wait([line, leaves], return_when=asyncio.FIRST_COMPLETED)
            if worker.leaves.is_set():
                line.cancel()
                break
            if not line.result():
                return
            worker.take(_decode(line.result()))
        await node.stop()
    finally:
        leaves.cancel()
        await node.abandon()  # nothing is left to do after `stop`; otherwise nobody is there who could want the data


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run(main(*sys.argv[1:]))
