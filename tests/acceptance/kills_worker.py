"""A node that is written to, as a process: `python -m tests.acceptance.kills_worker SETTINGS LOOP`.

SETTINGS are a JSON object: those of the node, and under `play` those of its writers (`Play`). Besides the lines of
`tests.net.worker` it writes journal entries (`ledger.Entry`): that an attempt begins before anything of it is sent, and
its end afterwards, with the next line. It ends at once when its parent does, even with its loop blocked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import select
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop

import roost
from roost.core.tenure import Write
from tests.acceptance.ledger import ACKNOWLEDGED, FULL, REFUSED, TOKENS_MAX, UNKNOWN, Entry
from tests.net.worker import obey, say

FLUSH_SECONDS = 0.05
OWN_KEYS = 12
SHARED_KEYS = 16
LISTS = 3
RACES_A_SECOND = 4
TASKS = 2
"""Writers of each kind in a process."""

T = TypeVar("T")


class Play(msgspec.Struct, forbid_unknown_fields=True):
    """What the writers of one life are told."""

    life: int
    """Of all lives of all processes, so that what one writes is unlike all that others write."""
    seed: int
    generation: int = 0
    """The newest list of tokens."""
    pause_seconds: float = 0.02
    replicas: int = 3
    write: Write = "majority"


class Tally(roost.Partition[str, int]):
    """Counters: an own handler."""

    async def hit(self) -> int:
        self.items[self.key] = self.items.get(self.key, 0) + 1
        return self.items[self.key]

    async def total(self) -> int:
        return self.items.get(self.key, 0)


class Journal:
    """Tells the parent what is tried, and what came of it."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._ended: list[Entry] = []

    def begin(self, kind: str, key: str, value: object) -> int:
        """Returns when it is told."""
        number = next(self._numbers)
        self._ended.append(["begun", number, kind, key, value, time.monotonic()])
        self.flush()
        return number

    def end(self, number: int, outcome: str, result: object) -> None:
        if not self._ended:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._ended.append([outcome, number, result, time.monotonic()])

    def flush(self) -> None:
        ended, self._ended = self._ended, []
        if ended:
            say(journal=ended)


class Writers:
    """The load of one process: several tasks, each with one attempt at a time."""

    def __init__(self, name: str, play: Play) -> None:
        self.name = name
        self.play = play
        self.halted = asyncio.Event()
        self.numbers: roost.KV[str, int]
        self.tokens: roost.KV[str, list[str]]
        self.tally: roost.Partitions[str, Tally]
        self._journal = Journal()
        self._rng = random.Random(f"{play.seed}:{play.life}")
        self._values = itertools.count(play.life * 1_000_000 + 1)
        self._generations = [play.generation] * LISTS
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, node: roost.Node) -> None:
        """Before the node joins, so that its coming is one change."""
        replicas, write = self.play.replicas, self.play.write
        self.numbers = await node.kv("numbers", int, replicas=replicas, write=write)
        self.tokens = await node.kv("tokens", list[str], replicas=replicas, write=write)
        self.tally = await node.partitions("tally", Tally, replicas=replicas, write=write)

    def begin(self) -> None:
        """Start all writers."""
        tasks: list[Coroutine[Any, Any, None]] = []
        for number in range(TASKS):
            tasks += [self._put(number), self._again(self._hit), self._again(self._update), self._again(self._append)]
        tasks.append(self._race())
        self._tasks = [asyncio.create_task(self._or_end(each)) for each in tasks]

    async def halt(self) -> None:
        """Returns when every attempt has ended, and is told."""
        self.halted.set()
        await asyncio.gather(*self._tasks)
        self._journal.flush()

    async def _or_end(self, writing: Coroutine[Any, Any, None]) -> None:
        """No writer ends by an error unnoticed."""
        try:
            await writing
        except Exception:
            logging.exception("a writer failed")
            os._exit(1)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.halted.wait()

    async def _again(self, attempt: Callable[[], Awaitable[None]]) -> None:
        while not self.halted.is_set():
            await attempt()
            await self._pause(self._rng.uniform(0, 2 * self.play.pause_seconds))

    async def _try(self, kind: str, key: str, value: object, call: Callable[[], Awaitable[T]]) -> T | None:
        number = self._journal.begin(kind, key, value)
        try:
            result = await call()
        except roost.RoostError as error:
            self._journal.end(number, UNKNOWN if error.may_have_run else REFUSED, type(error).__name__)
            logging.info("%s %s: %r, may have run: %s", kind, key, error, error.may_have_run)
            return None
        self._journal.end(number, ACKNOWLEDGED, result)
        return result

    async def _put(self, number: int) -> None:
        keys = [f"put:{self.name}:{number}:{each}" for each in range(OWN_KEYS)]

        async def put() -> None:
            key, value = self._rng.choice(keys), next(self._values)
            await self._try("put", key, value, lambda: self.numbers.put(key, value))
            if self._rng.random() < 0.5:
                await self._try("get", key, None, lambda: self.numbers.get(key))

        await self._again(put)

    async def _hit(self) -> None:
        key = f"hit:{self._rng.randrange(SHARED_KEYS)}"
        await self._try("hit", key, None, self.tally.at(key).hit)

    async def _update(self) -> None:
        key = f"count:{self._rng.randrange(SHARED_KEYS)}"
        await self._try("update", key, None, lambda: self.numbers.update(key, lambda old: (old or 0) + 1))

    async def _append(self) -> None:
        number = self._rng.randrange(LISTS)
        generation = self._generations[number]
        key, token = f"tokens:{generation}:{number}", f"{self.play.life}.{next(self._values)}"

        def append(old: list[str] | None) -> list[str]:
            tokens = old or []
            return [*tokens, token] if len(tokens) < TOKENS_MAX else tokens

        async def place() -> int:
            tokens = await self.tokens.update(key, append)
            return tokens.index(token) + 1 if token in tokens else FULL

        if await self._try("append", key, token, place) in (FULL, TOKENS_MAX):
            self._generations[number] = max(generation + 1, self._generations[number])

    async def _race(self) -> None:
        """All processes try the same key at the same moment."""
        while not self.halted.is_set():
            now = time.monotonic() * RACES_A_SECOND
            await self._pause((int(now) + 1 - now) / RACES_A_SECOND)
            key, value = f"race:{int(now) + 1}", next(self._values)
            await self._try("put_if_absent", key, value, lambda: self.numbers.put_if_absent(key, value))  # noqa: B023


class Worker:
    """What the parent can ask for."""

    def __init__(self, node: roost.Node, writers: Writers) -> None:
        self.node = node
        self.writers = writers

    async def begin(self) -> None:
        self.writers.begin()

    async def halt(self) -> None:
        await self.writers.halt()

    async def cut(self, name: str) -> None:
        """Break the link with that node; both may open another at once."""
        self.node.blocklist.add(name)
        self.node.blocklist.discard(name)

    async def read(self, kind: str, keys: list[str]) -> dict[str, Any]:
        """What stands at these keys now; those that are missing are missing."""
        if kind == "hit":
            return {key: await self.writers.tally.at(key).total() for key in keys}
        found: dict[str, Any] = await (self.writers.tokens if kind == "append" else self.writers.numbers).get_many(keys)
        return found

    async def sizes(self) -> dict[str, int]:
        return {"numbers": await self.writers.numbers.size(), "tokens": await self.writers.tokens.size()}

    async def standing(self) -> dict[str, Any]:
        """Whom it takes for up, and whether anything is still to be done."""
        status = self.node.status()
        services = status["services"]
        return {
            "uid": status["uid"],
            "up": {each["uid"]: each["name"] for each in status["members"] if each["state"] == "up"},
            "settled": status["settled"],
            "quiet": self.node.quiet,
            "services": services,
            "possible_loss": {name: each["possible_loss"] for name, each in services.items() if each["possible_loss"]},
        }

    async def copies(self) -> dict[str, list[list[Any]]]:
        """By service: (partition, role, uids of the copies, digest, live items) of all that is here."""
        found: dict[str, list[list[Any]]] = {}
        services: list[Any] = [self.writers.numbers, self.writers.tokens, self.writers.tally]
        for service in services:
            hosting = service._service.hosting
            found[hosting.service] = [
                [
                    slot.partition,
                    slot.role.value,
                    sorted(slot.right.copies),
                    f"{slot.items.digest:016x}",
                    slot.items.live,
                ]
                for slot in hosting.rights.slots
            ]
        return found


def end_with_the_parent() -> None:
    """Returns never: ends the process when the other end of its input is closed."""
    poll = select.poll()
    poll.register(0, 0)  # a hang-up is always told
    poll.poll()
    os._exit(1)


async def main(text: str) -> None:
    settings = msgspec.json.decode(text)
    play = msgspec.convert(settings.pop("play"), Play)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    writers = Writers(settings["name"], play)
    async with roost.Node(**settings, services=[writers.open]) as node:
        worker = Worker(node, writers)
        say(up=node.address)
        async with asyncio.TaskGroup() as tasks:
            while line := await lines.readline():
                number, name, arguments = json.loads(line)
                tasks.create_task(obey(number, getattr(worker, name), arguments))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%H:%M:%S")
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    (uvloop if sys.argv[2:] == ["uvloop"] else asyncio).run(main(sys.argv[1]))
