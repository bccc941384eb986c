"""What happens in the demo, in which order, and what must be true at its end.

Three nodes start. The library is stored through the first. From then on the third reads and verifies all of it again
and again, while writers on the first two keep changing keys beside it; meanwhile a fourth node joins, takes its share,
and leaves again. Then every changed key must have its last acknowledged value, no key may be missing or too many, and
a search that runs on all nodes must find what a search of the disk finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from roost.ops.demo.orders import Check, Halt, Leave, Progress, Read, Ready, Search, Status, Store, Write
from roost.ops.demo.processes import DemoFailed, WorkerHandle, started
from roost.ops.demo.screen import Screen

__all__ = ["Outcome", "play"]

IN_FLIGHT = 64
COUNTERS = 48
"""Keys that change throughout; each writer's pause keeps them from being all that the machine does."""
WRITE_PAUSE_SECONDS = 0.005
POLL_SECONDS = 0.05
SEARCH_FOR = "async def "
SERVICE = "kv:library"


class Outcome(msgspec.Struct, kw_only=True):
    """The figures, and everything that was not as it should be."""

    keys: int = 0
    bytes: int = 0
    skipped: int = 0
    puts_per_second: float = 0.0
    calls_per_second: float = 0.0
    passes: int = 0
    writes: int = 0
    joined_seconds: float = 0.0
    left_seconds: float = 0.0
    moved_by_join: int = 0
    moved_by_leave: int = 0
    found: int = 0
    search_milliseconds: float = 0.0
    seconds: float = 0.0
    wrong: int = 0
    faults: list[str] = []

    def note(self, result: dict[str, Any]) -> None:
        """Add what a worker found wrong."""
        self.wrong += result["wrong"]
        self.faults += result["faults"]

    def rows(self) -> list[tuple[str, str]]:
        """The closing table."""
        return [
            ("keys (module files)", f"{self.keys:,}"),
            ("bytes", f"{self.bytes:,}"),
            ("stored, keys/s", f"{self.puts_per_second:,.0f}"),
            ("read and verified, calls/s", f"{self.calls_per_second:,.0f}"),
            ("passes over all keys", f"{self.passes}"),
            ("writes meanwhile, all acknowledged", f"{self.writes:,}"),
            ("a fourth node joined, seconds", f"{self.joined_seconds:.2f}"),
            ("and left, seconds", f"{self.left_seconds:.2f}"),
            ("partitions moved", f"{self.moved_by_join + self.moved_by_leave:,}"),
            (f"modules with {SEARCH_FOR!r}", f"{self.found:,}"),
            ("searched on all nodes in, ms", f"{self.search_milliseconds:.0f}"),
            ("wrong or missing", f"{self.wrong}"),
        ]


class _Cluster:
    """The workers, by name."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder = folder
        self.screen = screen
        self.workers: dict[str, WorkerHandle] = {}
        self.stack = contextlib.AsyncExitStack()

    async def start(self, name: str) -> WorkerHandle:
        seeds = [worker.address for worker in list(self.workers.values())[:1]]
        worker = await self.stack.enter_async_context(started(name, self.folder, *seeds))
        self.workers[name] = worker
        await worker.up()
        return worker

    async def settle(self, count: int) -> dict[str, dict[str, Any]]:
        """Wait until all agree on the members and nothing moves; every node's share of the library."""
        workers = list(self.workers.values())
        await asyncio.gather(*(worker.tell(Ready(count=count)) for worker in workers))
        while True:
            shares = await self.shares()
            if all(share["held"] and not share["moving"] and not share["awaiting"] for share in shares.values()):
                return shares
            await asyncio.sleep(POLL_SECONDS)

    async def shares(self) -> dict[str, dict[str, Any]]:
        answers = await asyncio.gather(*(worker.tell(Status()) for worker in self.workers.values()))
        return {name: answer["services"][SERVICE] for name, answer in zip(self.workers, answers, strict=True)}

    def watch(self, what: str) -> Callable[[Progress], None]:
        def on_progress(progress: Progress) -> None:
            note = f", pass {progress.passes + 1}" if progress.passes else ""
            self.screen.progress(what, progress.done, progress.total, note)

        return on_progress


async def play(folder: Path, screen: Screen) -> Outcome:
    """Play it, with the files and logs of the nodes in `folder`. Raises DemoFailed."""
    cluster = _Cluster(folder, screen)
    outcome = Outcome()
    began = time.monotonic()
    async with cluster.stack:
        await _play(cluster, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


async def _play(cluster: _Cluster, outcome: Outcome) -> None:
    say = cluster.screen.say
    one = await cluster.start("one")
    two, three = await asyncio.gather(cluster.start("two"), cluster.start("three"))
    await cluster.settle(3)
    say(f"three nodes are up, with TLS: {', '.join(w.address for w in cluster.workers.values())}")

    stored = await one.tell(Store(in_flight=IN_FLIGHT), cluster.watch("storing through node one"))
    outcome.keys, outcome.bytes, outcome.skipped = stored["keys"], stored["bytes"], stored["skipped"]
    outcome.puts_per_second = stored["keys"] / stored["seconds"]
    say(
        f"stored {outcome.keys:,} modules of {outcome.bytes:,} bytes through node one"
        + (f"; {outcome.skipped} files that are no UTF-8 were left out" if outcome.skipped else "")
    )

    read, values = await _read_and_write(cluster, outcome)
    outcome.calls_per_second = read["calls"] / read["seconds"]
    outcome.passes = read["passes"]
    outcome.writes = sum(values)
    outcome.note(read)
    say(f"read and verified every key {read['passes']} times meanwhile, with {outcome.writes:,} writes beside it")

    outcome.note(await three.tell(Check(counters=values)))
    found = await two.tell(Search(text=SEARCH_FOR))
    outcome.found, outcome.search_milliseconds = found["found"], found["seconds"] * 1000
    outcome.note(found)
    say(f"found {SEARCH_FOR!r} in {found['found']:,} modules on all nodes, and in {found['expected']:,} on disk")


async def _read_and_write(cluster: _Cluster, outcome: Outcome) -> tuple[dict[str, Any], list[int]]:
    """While a node joins and leaves: what the reader says, and the last acknowledged value of each counter."""
    one, two, three = cluster.workers.values()
    half = COUNTERS // 2
    write = {one: Write(first=0, end=half, pause_seconds=WRITE_PAUSE_SECONDS)}
    write[two] = Write(first=half, end=COUNTERS, pause_seconds=WRITE_PAUSE_SECONDS)
    read = Read(in_flight=IN_FLIGHT, counters=COUNTERS)

    async def join_leave_and_halt() -> dict[str, Any]:
        await _join_and_leave(cluster, outcome)
        await asyncio.gather(*(worker.tell(Halt()) for worker in (one, two, three)))
        return {}

    work = [
        asyncio.create_task(three.tell(read, cluster.watch("verifying through node three"))),
        *(asyncio.create_task(worker.tell(order)) for worker, order in write.items()),
        asyncio.create_task(join_leave_and_halt()),
    ]
    try:
        result, *written, _ = await asyncio.gather(*work)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    return result, [value for each in written for value in each["values"]]


async def _join_and_leave(cluster: _Cluster, outcome: Outcome) -> None:
    say = cluster.screen.say
    before = await cluster.shares()
    began = time.monotonic()
    four = await cluster.start("four")
    joined = await cluster.settle(4)
    outcome.joined_seconds = time.monotonic() - began
    outcome.moved_by_join = _moved(joined) - _moved(before)
    say(f"node four joined in {outcome.joined_seconds:.2f} s and holds {joined['four']['held']} partitions")

    began = time.monotonic()
    await four.tell(Leave())
    code = await four.exit_code()
    outcome.left_seconds = time.monotonic() - began
    if code:
        raise DemoFailed(f"node four left with exit code {code} instead of 0")
    del cluster.workers["four"]
    left = await cluster.settle(3)
    del joined["four"]
    outcome.moved_by_leave = _moved(left) - _moved(joined)
    say(f"node four left in {outcome.left_seconds:.2f} s, and gave {outcome.moved_by_leave} partitions back")


def _moved(shares: dict[str, dict[str, Any]]) -> int:
    return sum(share["moved_in"] for share in shares.values())
