"""A node as a process: `python -m tests.net.worker SETTINGS LOOP`, where SETTINGS are a JSON object.

It writes JSON lines: its address once it is up, what `members.watch()` yields, and the answers to commands, which it
reads as JSON lines from its standard input. Times are CLOCK_MONOTONIC, which all processes of a host share. The log
goes to standard error. `tests.net.workers` has the other end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvloop

import roost


class WhoAreYou(roost.Request[str]):
    pass


class Work(roost.Request[str]):
    """Block the loop of the node that is asked: `spin`, `add` or `sleep`."""

    how: str
    seconds: float


class Mark(roost.Request[int]):
    """Have a number remembered; the answer is how many are."""

    number: int


def spin(seconds: float) -> None:
    """Compute, in Python."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def add(seconds: float) -> None:
    """Compute, in C, with the interpreter held all the while."""
    begin = time.perf_counter()
    sum(range(2_000_000))
    sum(range(int(2_000_000 * seconds / (time.perf_counter() - begin))))


BLOCKERS: dict[str, Callable[[float], object]] = {"spin": spin, "add": add, "sleep": time.sleep}


class Worker:
    """The node, and what can be asked of it."""

    def __init__(self, node: roost.Node, words: roost.KV[str, str]) -> None:
        self.node = node
        self.words = words
        self.marks: list[int] = []

    def serve(self) -> None:
        node = self.node

        @node.answer(WhoAreYou)
        def who(letter: roost.Envelope[WhoAreYou]) -> str:
            return node.name

        @node.answer(Work)
        async def work(letter: roost.Envelope[Work]) -> str:
            BLOCKERS[letter.body.how](letter.body.seconds)
            return letter.body.how

        @node.answer(Mark)
        def mark(letter: roost.Envelope[Mark]) -> int:
            self.marks.append(letter.body.number)
            return len(self.marks)

    async def who(self, to: str) -> str:
        return await self.node.ask(to, WhoAreYou())

    async def work(self, to: str, how: str, seconds: float) -> str:
        return await self.node.ask(to, Work(how, seconds), timeout=seconds + 10)

    async def mark(self, to: str, number: int, timeout: float) -> int:
        return await self.node.ask(to, Mark(number), timeout=timeout)

    async def marked(self) -> list[int]:
        return self.marks

    async def put(self, key: str, value: str) -> None:
        await self.words.put(key, value)

    async def get(self, key: str) -> str | None:
        return await self.words.get(key)

    async def ready(self, count: int) -> None:
        await self.node.ready(count)

    async def quiet(self) -> bool:
        return self.node.quiet

    async def status(self) -> dict[str, Any]:
        return self.node.status()


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def tell_events(node: roost.Node) -> None:
    async for event in node.members.watch():
        kind = type(event).__name__.removeprefix("Member").lower()
        say(event=kind, name=event.member.name, uid=event.member.uid, at=time.monotonic())


async def obey(number: int, command: Callable[..., Awaitable[object]], arguments: list[Any]) -> None:
    try:
        say(id=number, result=await command(*arguments), at=time.monotonic())
    except roost.RoostError as error:
        kind, ran = type(error).__name__, getattr(error, "may_have_run", None)
        say(id=number, error=kind, text=str(error), may_have_run=ran, at=time.monotonic())


async def main(settings: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with roost.Node(**msgspec.json.decode(settings)) as node:
        worker = Worker(node, await node.kv("words", str))
        worker.serve()
        say(up=node.address)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell_events(node))
            while line := await lines.readline():
                number, name, arguments = json.loads(line)
                tasks.create_task(obey(number, getattr(worker, name), arguments))
            telling.cancel()  # nobody is left to tell


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%H:%M:%S")
    (uvloop if sys.argv[2:] == ["uvloop"] else asyncio).run(main(sys.argv[1]))
