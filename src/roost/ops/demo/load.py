"""The work that the demo does through a node: storing, reading and verifying, counting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from roost.errors import RoostError
from roost.ops.demo.library import Module, faults, make_module
from roost.services.kv import KV

__all__ = ["Counting", "Pulse", "Reading", "counter", "store"]

T = TypeVar("T")
Progress = Callable[[int, int, int], None]
"""(done, total, passes)"""

FAULTS_SHOWN = 20
PROGRESS_SECONDS = 0.1
REPEAT_SECONDS_MAX = 15.0
"""A call that fails is made again for so long: several times the deadline of one call."""
REPEAT_PAUSE_SECONDS = 0.02


def counter(number: int, value: int) -> Module:
    """A counter as the library keeps it: a small module whose text is its value."""
    return make_module(f"counter:{number}", str(value))


async def spread(work: Callable[[T], Awaitable[None]], of: Iterable[T], in_flight: int) -> None:
    """Do `work` with each, `in_flight` at a time. The first failure ends it."""
    left = iter(of)

    async def one_after_the_other() -> None:
        for each in left:
            await work(each)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(one_after_the_other())


class Ticker:
    """Passes progress on, but not more often than anybody could see."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._next = 0.0

    def __call__(self, done: int, total: int, passes: int = 0) -> None:
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + PROGRESS_SECONDS
            self._progress(done, total, passes)


class Pulse:
    """How evenly calls are answered, and how many had to be repeated."""

    def __init__(self) -> None:
        self._answered_at = time.monotonic()
        self._gap = 0.0
        self._repeated = 0
        self._why = ""

    def answered(self) -> None:
        """A call has been answered."""
        now = time.monotonic()
        self._gap, self._answered_at = max(self._gap, now - self._answered_at), now

    def take(self) -> tuple[float, int, str]:
        """Since the last look: the longest time between two answers, the repeated calls, and why the last one was."""
        self.answered()
        taken = (self._gap, self._repeated, self._why)
        self._gap, self._repeated, self._why = 0.0, 0, ""
        return taken

    async def until_answered(self, call: Callable[[], Awaitable[T]], seconds_max: float) -> T:
        """Make a call that harms nothing if it is made twice, again until it succeeds. Raises its last error."""
        until = time.monotonic() + seconds_max
        while True:
            try:
                answer = await call()
            except RoostError as error:
                if time.monotonic() >= until:
                    raise
                self._repeated += 1
                self._why = f"{type(error).__name__}: {error}"
                await asyncio.sleep(REPEAT_PAUSE_SECONDS)
            else:
                self.answered()
                return answer


async def store(library: KV[str, Module], modules: dict[str, Module], in_flight: int, progress: Progress) -> None:
    """Store them all."""
    ticker = Ticker(progress)
    done = 0

    async def put(module: Module) -> None:
        nonlocal done
        await library.put(module.path, module)
        done += 1
        ticker(done, len(modules))

    await spread(put, modules.values(), in_flight)


class Reading:
    """Reads all keys in passes and verifies each, until halted; then one last pass."""

    def __init__(
        self,
        library: KV[str, Module],
        modules: dict[str, Module],
        counters: int,
        repeat_seconds_max: float = REPEAT_SECONDS_MAX,
    ) -> None:
        self._library = library
        self._repeat_seconds_max = repeat_seconds_max
        self._modules = modules
        self._seen = dict.fromkeys(range(counters), -1)
        self._halted = False
        self.pulse = Pulse()
        self.calls = 0
        self.passes = 0
        self.faults: list[str] = []
        self.wrong = 0

    def halt(self) -> None:
        self._halted = True

    async def run(self, in_flight: int, progress: Progress) -> None:
        ticker = Ticker(progress)
        last = False
        while not last:
            last = self._halted
            async for done in self._pass(in_flight):
                ticker(done, len(self._modules), self.passes)
            self.passes += 1

    async def _pass(self, in_flight: int) -> AsyncIterator[int]:
        done = 0
        paths = list(self._modules)
        for start in range(0, len(paths), 4 * in_flight):
            some = paths[start : start + 4 * in_flight]
            await spread(self._read, some, in_flight)
            await spread(self._look_at, self._seen, in_flight)
            done += len(some)
            yield done

    async def _read(self, path: str) -> None:
        found = await self._get(path)
        if found is not _FAILED:
            self._note(faults(found, self._modules[path]))

    async def _look_at(self, number: int) -> None:
        """A counter never goes back, and once it has been seen it never vanishes."""
        before = self._seen[number]
        found = await self._get(f"counter:{number}")
        if found is _FAILED or (found is None and before < 0):
            return
        value = int(found.text) if found is not None else -1
        if value < before:
            self._note(f"counter:{number} went back from {before} to {value}")
        else:
            self._note(faults(found, counter(number, value)))
        self._seen[number] = max(value, before)

    async def _get(self, key: str) -> Module | None:
        self.calls += 1
        try:
            return await self.pulse.until_answered(lambda: self._library.get(key), self._repeat_seconds_max)
        except RoostError as error:
            self._note(f"{key} could not be read: {type(error).__name__}: {error}")
            return _FAILED

    def _note(self, fault: str) -> None:
        if fault:
            self.wrong += 1
            if len(self.faults) < FAULTS_SHOWN:
                self.faults.append(fault)


_FAILED = Module("", 0, 0, "", "")


class Counting:
    """One writer a counter: each puts the next value once the last one is acknowledged.

    A put that failed is made again, with the same value, whether or not it may have run: nobody else writes there, so
    that what must be found is the last acknowledged value in any case.
    """

    def __init__(self, library: KV[str, Module], first: int, end: int) -> None:
        self._library = library
        self.values = dict.fromkeys(range(first, end), 0)
        """The last acknowledged value of each counter."""
        self.pulse = Pulse()
        self._halted = asyncio.Event()

    def halt(self) -> None:
        self._halted.set()

    async def run(self, pause_seconds: float, progress: Progress) -> None:
        ticker = Ticker(progress)
        async with asyncio.TaskGroup() as group:
            for number in self.values:
                group.create_task(self._count(number, pause_seconds, ticker))

    async def _count(self, number: int, pause_seconds: float, ticker: Ticker) -> None:
        while not self._halted.is_set():
            await self.pulse.until_answered(lambda: self._put_next(number), REPEAT_SECONDS_MAX)
            self.values[number] += 1
            ticker(sum(self.values.values()), 0)
            await asyncio.sleep(pause_seconds)

    async def _put_next(self, number: int) -> None:
        await self._library.put(f"counter:{number}", counter(number, self.values[number] + 1))
