"""Nodes as processes of their own, seen from the test: started, asked, stopped, killed, and their logs on failure."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Failed", "Seen", "Team", "Worker", "downs", "run", "team"]

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 20.0


class Seen(NamedTuple):
    """An event of a worker's `members.watch()`, and when it came (CLOCK_MONOTONIC)."""

    kind: str
    name: str
    uid: int
    at: float


class Failed(Exception):
    """A command raised one of the library's errors, of that kind."""

    def __init__(self, kind: str, text: str, may_have_run: bool | None) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.may_have_run = may_have_run


class Worker:
    """One process with a node in it."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.address = ""
        self.ended = False
        self.events: list[Seen] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"read {name}")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self._take(json.loads(line))
            self._changed.set()
        self.ended = True
        self._changed.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Failed("Gone", f"{self.name} has ended", None))

    def _take(self, line: dict[str, Any]) -> None:
        if "up" in line:
            self.address = line["up"]
        elif "event" in line:
            self.events.append(Seen(line["event"], line["name"], line["uid"], line["at"]))
        else:
            answer = self._answers.pop(line["id"])
            if answer.done():
                return
            if "error" in line:
                answer.set_exception(Failed(line["error"], line["text"], line["may_have_run"]))
            else:
                answer.set_result(line["result"])

    async def do(self, command: str, *arguments: object) -> Any:
        """Have the worker do something; its result. Raises Failed."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([number, command, arguments]).encode() + b"\n")
        return await answer

    def state(self, name: str) -> str:
        """What this one last saw happen to that member; "" if nothing."""
        return next((seen.kind for seen in reversed(self.events) if seen.name == name), "")

    def kinds(self, name: str, since: float = 0.0) -> list[str]:
        """What it saw happen to that member, in order, but for the ways in and out: they may be over when it hears."""
        passing = ("joining", "leaving")
        seen = [each for each in self.events if each.name == name and each.at >= since]
        return [each.kind for each in seen if each.kind not in passing]

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for something that comes with an event."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def sees(self, name: str, kind: str, since: float = 0.0, seconds: float = 20.0) -> float:
        """Wait until it has seen that happen to the member; when it saw it first."""

        def found() -> list[float]:
            return [seen.at for seen in self.events if (seen.kind, seen.name) == (kind, name) and seen.at >= since]

        try:
            await self.until(lambda: bool(found()), seconds)
        except TimeoutError:
            text = f"{self.name} did not see {name} {kind} within {seconds} s, but {self.events}"
            raise AssertionError(text) from None
        return found()[0]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stand_still(self, seconds: float) -> None:
        """Be stopped for so long."""
        self.stop()
        await asyncio.sleep(seconds)
        self.go_on()

    async def until_quiet(self) -> None:
        """Wait until it is settled and nothing moves."""
        async with asyncio.timeout(20):
            while not await self.do("quiet"):
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """Kill it, if it lives, and leave nothing of it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reader
        self.process._transport.close()  # type: ignore[attr-defined]  # else its pipes outlive the loop


class Team:
    """The workers of one test. Their processes end with it."""

    module = "tests.net.worker"
    """What a process runs."""

    def __init__(self, folder: Path, loop_name: str) -> None:
        self.folder = folder
        self.loop_name = loop_name
        self.secret = folder / "secret"
        self.secret.touch(mode=0o600)
        self.secret.write_text(secrets.token_urlsafe(32))
        self.workers: list[Worker] = []

    def stand_in(self, name: str, process: Process, log: Path) -> Worker:
        """What stands for the process here."""
        return Worker(name, process, log)

    async def start(
        self, name: str, *seeds: str, bind: str = "127.0.0.1:0", within: Sequence[str] = (), **settings: object
    ) -> Worker:
        """A node in a process of its own, once it is up. `within` stands before its command."""
        given = {"name": name, "bind": bind, "seeds": seeds, "secret_file": str(self.secret), **settings}
        given = {"profile": "local", "partitions": 64, **given}
        log = self.folder / f"{name}-{len(self.workers)}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *within,
                *(sys.executable, "-m", self.module, json.dumps(given), self.loop_name),
                stdin=PIPE,
                stdout=PIPE,
                stderr=file,
                cwd=ROOT,
            )
        worker = self.stand_in(name, process, log)
        self.workers.append(worker)
        try:
            await worker.until(lambda: bool(worker.address) or worker.ended, START_SECONDS_MAX)
        except TimeoutError:
            raise AssertionError(f"{name} was not up within {START_SECONDS_MAX} s") from None
        assert worker.address, f"{name} ended"
        return worker

    async def start_all(self, *names: str, **settings: object) -> list[Worker]:
        """One after another, each joining through the first; ready when all agree."""
        workers: list[Worker] = []
        for name in names:
            workers.append(await self.start(name, *(worker.address for worker in workers[:1]), **settings))  # type: ignore[arg-type]  # settings are settings
        await self.ready(*workers)
        return workers

    async def ready(self, *workers: Worker) -> None:
        """All of these are up and agree."""
        async with asyncio.timeout(20):
            await asyncio.gather(*(worker.do("ready", len(workers)) for worker in workers))

    async def live(self, seconds: float) -> None:
        """Let them live for so long."""
        await asyncio.sleep(seconds)

    def logs(self) -> str:
        now = time.strftime("%H:%M:%S")
        texts = [f"--- {worker.name}, until {now}\n{worker.log.read_text()}{worker.events}" for worker in self.workers]
        return "\n".join(texts) + "\n"


@contextlib.asynccontextmanager
async def team(folder: Path, loop_name: str = "uvloop") -> AsyncIterator[Team]:
    """A team that is gone in the end; its logs are shown if the test fails."""
    workers = Team(folder, loop_name)
    try:
        yield workers
    except BaseException:
        sys.stdout.write(workers.logs())
        raise
    finally:
        for worker in workers.workers:
            await worker.end()


def run(
    folder: Path, test: Callable[[Team], Coroutine[Any, Any, None]], *, loop_name: str = "uvloop", seconds: float = 60.0
) -> None:
    """Run an async test with a team; the workers are on that loop."""

    async def body() -> None:
        async with asyncio.timeout(seconds), team(folder, loop_name) as workers:
            await test(workers)

    asyncio.run(body())


def downs(workers: Sequence[Worker], since: float) -> list[str]:
    """Who has taken whom for down."""
    return [
        f"{worker.name}: {seen.name}"
        for worker in workers
        for seen in worker.events
        if seen.kind == "down" and seen.at >= since
    ]
