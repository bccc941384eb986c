"""A worker as its parent sees it: started, given orders, and ended in every case.

Only processes that were started here are ever ended here, each through its own handle. A worker has a session of its
own, so that a Ctrl-C at the terminal reaches the parent alone, which then ends its workers in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from roost.errors import RoostError
from roost.ops.demo.orders import Done, Order, Progress, Report, Up
from roost.settings import FILE, PREFIX

__all__ = ["DemoFailed", "WorkerHandle", "started"]

OnProgress = Callable[[Progress], None]

END_SECONDS = 3.0
"""After its input has ended a worker gets so long before it is killed."""
LINE_BYTES_MAX = 16 * 1024 * 1024
LOG_LINES_SHOWN = 15

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Report).decode


class DemoFailed(RoostError):
    """The demo could not be carried to its end."""


class WorkerHandle:
    """One running worker."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.address = ""
        self._process = process
        self._last_number = 0
        self._waiting: dict[int, tuple[asyncio.Future[dict[str, Any]], OnProgress | None]] = {}
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reports = asyncio.create_task(self._listen(), name=f"reports of {name}")

    async def up(self) -> None:
        """Wait until the node is up."""
        await self._up

    async def tell(self, order: Order, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """Give an order and await its result. Raises DemoFailed, also if the worker ends meanwhile."""
        stdin = self._process.stdin
        assert stdin is not None
        if self._reports.done():
            raise self._ended()
        self._last_number = number = self._last_number + 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, on_progress)
        stdin.write(_encode(msgspec.structs.replace(order, number=number)) + b"\n")
        return await future

    async def exit_code(self) -> int:
        """Wait until the process has ended by itself."""
        return await self._process.wait()

    async def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while line := await stdout.readline():
            report = _decode(line)
            if isinstance(report, Up):
                self.address = report.address
                if not self._up.done():
                    self._up.set_result(None)
            elif isinstance(report, Progress):
                found = self._waiting.get(report.number)
                if found is not None and found[1] is not None:
                    found[1](report)
            else:
                self._done(report)
        await self._process.wait()
        self._fail(self._up)
        for future, _ in self._waiting.values():
            self._fail(future)
        self._waiting.clear()

    def _fail(self, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_exception(self._ended())
            future.exception()  # nobody may be waiting any more

    def _done(self, report: Done) -> None:
        future, _ = self._waiting.pop(report.number)
        if future.done():
            return
        if report.error:
            future.set_exception(DemoFailed(f"node {self.name}: {report.error}"))
        else:
            future.set_result(report.result)

    def _ended(self) -> DemoFailed:
        return DemoFailed(f"node {self.name} ended in the middle of the work, with {self._process.returncode}")

    async def end(self) -> None:
        """End it: by the end of its input, else by force."""
        process = self._process
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except TimeoutError:
                self.kill()
                await process.wait()
        self._reports.cancel()
        await asyncio.gather(self._reports, return_exceptions=True)

    def kill(self) -> None:
        """At once, as `kill -9` does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


@contextlib.asynccontextmanager
async def started(name: str, folder: Path, replicas: int, *seeds: str) -> AsyncIterator[WorkerHandle]:
    """A worker, ended at the end of the block. It is not yet `up`.

    Its settings are those of the file in `folder`, and nothing of what this process was started with.
    """
    command = (sys.executable, "-m", "roost.ops.demo.worker", name, str(folder / FILE), str(replicas), *seeds)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    with (folder / f"{name}.log").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            env=environment,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
    worker = WorkerHandle(name, process)
    try:
        yield worker
    finally:
        try:
            await worker.end()
        except BaseException:
            worker.kill()
            raise
