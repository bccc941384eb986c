"""What happens in the demo, in which order, and what must be true at its end.

Three nodes start. The library is stored through the first, two copies of everything. From then on the third reads and
verifies all of it again and again, while writers on the first two keep changing keys beside it; meanwhile a fourth node
joins, takes its share, and leaves again; then a fifth one joins, takes its share, and is killed. Calls that fail while
it is not yet missed are made again, and counted; before that none may fail. No partition may be said to have lost
anything, and there must be two copies of everything again. Then every changed key must have its last acknowledged
value, no key may be missing or too many, and a search that runs on all nodes must find what a search of the disk finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from roost.ops.demo.orders import (
    Check,
    Halt,
    Leave,
    Notice,
    Progress,
    Pulse,
    Read,
    Ready,
    Search,
    Status,
    Store,
    Write,
)
from roost.ops.demo.processes import DemoFailed, WorkerHandle, started
from roost.ops.demo.screen import Screen

__all__ = ["REPLICAS", "Outcome", "play"]

REPLICAS = 2
IN_FLIGHT = 64
COUNTERS = 48
"""Keys that change throughout; each writer's pause keeps them from being all that the machine does."""
WRITE_PAUSE_SECONDS = 0.005
POLL_SECONDS = 0.05
SEARCH_FOR = "async def "
SERVICE = "kv:library"
BUSY = ("moving", "awaiting", "copying", "short", "left_over")
"""What of a share is still to be moved or copied."""


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
    noticed_seconds: float = 0.0
    taken_over: int = 0
    gap_seconds: float = 0.0
    reads_repeated: int = 0
    writes_repeated: int = 0
    copied_seconds: float = 0.0
    possible_loss: int = 0
    found: int = 0
    search_milliseconds: float = 0.0
    seconds: float = 0.0
    wrong: int = 0
    faults: list[str] = []

    def fault(self, fault: str, count: int = 1) -> None:
        """Something is wrong."""
        self.wrong += count
        self.faults.append(fault)

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
            ("a fifth was killed, noticed after, seconds", f"{self.noticed_seconds:.2f}"),
            ("partitions taken over", f"{self.taken_over:,}"),
            ("longest gap between two answers then, seconds", f"{self.gap_seconds:.2f}"),
            ("reads and writes repeated then", f"{self.reads_repeated} and {self.writes_repeated}"),
            ("two copies of everything again after, seconds", f"{self.copied_seconds:.2f}"),
            ("partitions with possible_loss", f"{self.possible_loss or 'none'}"),
            (f"modules with {SEARCH_FOR!r}", f"{self.found:,}"),
            ("searched on all nodes in, ms", f"{self.search_milliseconds:.0f}"),
            ("wrong or missing", f"{self.wrong}"),
        ]


class _Cluster:
    """The workers, by name."""

    def __init__(self, folder: Path, screen: Screen, replicas: int) -> None:
        self.folder = folder
        self.replicas = replicas
        self.screen = screen
        self.workers: dict[str, WorkerHandle] = {}
        self.stack = contextlib.AsyncExitStack()

    async def start(self, name: str) -> WorkerHandle:
        seeds = [worker.address for worker in list(self.workers.values())[:1]]
        worker = await self.stack.enter_async_context(started(name, self.folder, self.replicas, *seeds))
        self.workers[name] = worker
        await worker.up()
        return worker

    async def settle(self, count: int) -> dict[str, dict[str, Any]]:
        """Wait until all agree on the members and all is where it should be; every node's share of the library."""
        workers = list(self.workers.values())
        await asyncio.gather(*(worker.tell(Ready(count=count)) for worker in workers))
        calm = False
        while True:
            shares = await self.shares()
            before, calm = (
                calm,
                all(share["held"] and not any(share[what] for what in BUSY) for share in shares.values()),
            )
            if before and calm:
                return shares  # the nodes do not answer at one moment: what the first look said may not fit together
            if not calm:
                await asyncio.sleep(POLL_SECONDS)

    async def shares(self) -> dict[str, dict[str, Any]]:
        answers = await asyncio.gather(*(worker.tell(Status()) for worker in self.workers.values()))
        return {name: answer["services"][SERVICE] for name, answer in zip(self.workers, answers, strict=True)}

    def watch(self, what: str) -> Callable[[Progress], None]:
        def on_progress(progress: Progress) -> None:
            note = f", pass {progress.passes + 1}" if progress.passes else ""
            self.screen.progress(what, progress.done, progress.total, note)

        return on_progress


async def play(folder: Path, screen: Screen, replicas: int = REPLICAS) -> Outcome:
    """Play it, with the files and logs of the nodes in `folder`. Raises DemoFailed."""
    cluster = _Cluster(folder, screen, replicas)
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
    """While nodes come and go: what the reader says, and the last acknowledged value of each counter."""
    one, two, three = cluster.workers.values()
    half = COUNTERS // 2
    write = {one: Write(first=0, end=half, pause_seconds=WRITE_PAUSE_SECONDS)}
    write[two] = Write(first=half, end=COUNTERS, pause_seconds=WRITE_PAUSE_SECONDS)
    read = Read(in_flight=IN_FLIGHT, counters=COUNTERS)

    async def come_and_go_and_halt() -> dict[str, Any]:
        await _join_and_leave(cluster, outcome)
        await _join_and_be_killed(cluster, outcome)
        await asyncio.gather(*(worker.tell(Halt()) for worker in (one, two, three)))
        return {}

    work = [
        asyncio.create_task(three.tell(read, cluster.watch("verifying through node three"))),
        *(asyncio.create_task(worker.tell(order)) for worker, order in write.items()),
        asyncio.create_task(come_and_go_and_halt()),
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


async def _join_and_be_killed(cluster: _Cluster, outcome: Outcome) -> None:
    say = cluster.screen.say
    *writers, reader = others = list(cluster.workers.values())
    five = await cluster.start("five")
    joined = await cluster.settle(4)
    share = joined["five"]
    say(f"node five joined, holds {share['held']} partitions and has copies of {share['copies']} others; it is killed")
    for worker, pulse in zip(others, await _pulses(others), strict=True):
        if repeated := pulse["repeated"]:
            text = f"{repeated} calls of node {worker.name} failed before any node was killed ({pulse['why']})"
            outcome.fault(text, repeated)

    noticing = [asyncio.create_task(worker.tell(Notice(name="five"))) for worker in others]
    killed_at = time.monotonic()
    five.kill()
    await five.exit_code()
    del cluster.workers["five"]
    outcome.noticed_seconds = max(notice["at"] for notice in await asyncio.gather(*noticing)) - killed_at
    left = await cluster.settle(3)
    outcome.copied_seconds = time.monotonic() - killed_at
    outcome.taken_over = sum(share["held"] - joined[name]["held"] for name, share in left.items())
    read, *written = await _pulses([reader, *writers])
    outcome.gap_seconds, outcome.reads_repeated = read["gap_seconds"], read["repeated"]
    outcome.writes_repeated = sum(pulse["repeated"] for pulse in written)
    say(
        f"all noticed within {outcome.noticed_seconds:.2f} s, took over {outcome.taken_over} partitions, and had all "
        f"copies again after {outcome.copied_seconds:.2f} s"
    )
    say(
        f"the reader waited {outcome.gap_seconds:.2f} s for an answer at most; "
        f"{outcome.reads_repeated} reads and {outcome.writes_repeated} writes failed and were repeated"
    )
    _look_for_losses(cluster, outcome, joined, left)


async def _pulses(workers: list[WorkerHandle]) -> list[dict[str, Any]]:
    return await asyncio.gather(*(worker.tell(Pulse()) for worker in workers))


def _look_for_losses(
    cluster: _Cluster, outcome: Outcome, before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> None:
    """Nobody may say that something may be gone, and everything must be there as often as it was."""
    for name, share in after.items():
        if lost := share["possible_loss"]:
            outcome.possible_loss += len(lost)
            outcome.fault(f"node {name} says possible_loss of {len(lost)} partitions", len(lost))
    for what in ("held", "copies"):
        had, have = (sum(share[what] for share in shares.values()) for shares in (before, after))
        if had != have:
            outcome.fault(f"{have} partitions are {what} instead of {had}")
    cluster.screen.say(f"partitions that say possible_loss: {outcome.possible_loss or 'none'}")


def _moved(shares: dict[str, dict[str, Any]]) -> int:
    return sum(share["moved_in"] for share in shares.values())
