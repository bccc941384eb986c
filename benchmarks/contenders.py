"""Who is measured, by which jobs, and what must be installed for it.

A contender is a calling end in a process of its own (`driver.py`), which starts its answering ends itself. The same
thing measured in two ways is two contenders, so that all of them can stand ready at once and take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import NamedTuple

import msgspec

from benchmarks.driver import Ends
from benchmarks.load import STALL_SECONDS, Outcome
from benchmarks.processor import processor_seconds

__all__ = ["FAN_OUT", "FAN_OUT_SERVERS", "JOBS", "MAIN", "PEERS", "Contender", "Entry", "Failure", "Sample", "started"]

CALLS = ("one", "calls-64", "calls-1024")
LARGE = ("64KiB", "1MiB")
EVERYTHING = (*CALLS, "casts", *LARGE)
JOBS = (*EVERYTHING, "pipeline-64", "fan-out", "idle-links")
FAN_OUT_SERVERS = 8
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0


class Entry(NamedTuple):
    """A contender, not yet started."""

    name: str
    command: tuple[str, ...]
    """Of Python: a module, and its arguments."""
    jobs: tuple[str, ...]
    programs: tuple[str, ...] = ()
    """That must be on the PATH."""
    modules: tuple[str, ...] = ()
    """That must be importable."""
    install: str = ""

    def missing(self) -> str:
        """What it lacks, and how to install that; empty if it can run."""
        lacks = [program for program in self.programs if shutil.which(program) is None]
        lacks += [module for module in self.modules if find_spec(module) is None]
        return f"no {', '.join(lacks)}; `{self.install}`" if lacks else ""


ROOST = ("benchmarks.callers", "roost")
BARE = ("benchmarks.callers", "bare")
ERLANG = ("benchmarks.peers.erlang",)
BY_MAKE = "make bench-peers"
FAN_OUT_FLAG = f"--servers={FAN_OUT_SERVERS}"

MAIN = (
    Entry("roost", ROOST, EVERYTHING),
    Entry("erlang", ERLANG, EVERYTHING, programs=("erl", "erlc", "epmd"), install=BY_MAKE),
    Entry("bare", BARE, (*CALLS, "casts")),
    Entry("roost-plain-handler", (*ROOST, "--plain"), CALLS),
    Entry("roost-stdlib-loop", (*ROOST, "--stdlib-loop"), CALLS),
    Entry("roost-tls", (*ROOST, "--tls"), EVERYTHING),
    Entry("bare-tls", (*BARE, "--tls"), CALLS),
    Entry(
        "redis",
        ("benchmarks.peers.redis_get",),
        ("one", "calls-64", "pipeline-64"),
        programs=("redis-server",),
        modules=("redis",),
        install=BY_MAKE,
    ),
    Entry("xoscar", ("benchmarks.peers.xoscar_actor",), (*CALLS, *LARGE), modules=("xoscar",), install=BY_MAKE),
    Entry(
        "nats",
        ("benchmarks.peers.nats_request",),
        (*CALLS, "casts", "64KiB"),
        programs=("nats-server",),
        modules=("nats",),
        install=BY_MAKE,
    ),
    Entry("ray", ("benchmarks.peers.ray_actor",), CALLS, modules=("ray",), install=f"{BY_MAKE} RAY=1"),
)
FAN_OUT = (
    Entry("roost-fan-out", (*ROOST, FAN_OUT_FLAG), ("calls-64", "fan-out")),
    Entry("erlang-fan-out", (*ERLANG, FAN_OUT_FLAG), ("calls-64", "fan-out"), MAIN[1].programs, install=BY_MAKE),
    Entry("bare-fan-out", (*BARE, FAN_OUT_FLAG), ("calls-64", "fan-out")),
)
PEERS = ("erlang", "redis", "xoscar", "nats", "ray")


class Sample(msgspec.Struct, frozen=True):
    """One measuring of one job."""

    rate: float
    """Calls, casts or keys a second."""
    p50_microseconds: float
    p99_microseconds: float
    calling_microseconds: float
    """Of processor time, for each call."""
    answering_microseconds: float
    between_microseconds: float

    @property
    def processor_microseconds(self) -> float:
        """Of all who take part."""
        return self.calling_microseconds + self.answering_microseconds + self.between_microseconds


class Failure(Exception):
    """A contender did not start, or did not finish a job."""


class Contender:
    """A running one."""

    def __init__(self, entry: Entry, process: asyncio.subprocess.Process) -> None:
        self.entry = entry
        self._process = process
        self._ends = Ends([], [])

    async def until_ready(self) -> None:
        """It has started what it needs, and is warm."""
        self._ends = msgspec.json.decode(await self._line("start", START_SECONDS), type=Ends)

    async def measure(self, job: str, seconds: float) -> Sample:
        """Have it do a job."""
        assert self._process.stdin is not None
        ends = (self._ends.calling, self._ends.answering, self._ends.between)
        before = [processor_seconds(pids) for pids in ends]
        self._process.stdin.write(f"{job} {seconds:.3f}\n".encode())
        outcome = msgspec.json.decode(await self._line(job, seconds + ANSWER_SECONDS), type=Outcome)
        if not outcome.count:
            raise Failure(f"{self.entry.name} finished nothing in {job}")
        used = [processor_seconds(pids) - was for pids, was in zip(ends, before, strict=True)]
        calling, answering, between = (1e6 * each / outcome.count for each in used)
        return Sample(
            rate=outcome.count / outcome.seconds,
            p50_microseconds=outcome.p50_microseconds,
            p99_microseconds=outcome.p99_microseconds,
            calling_microseconds=calling,
            answering_microseconds=answering,
            between_microseconds=between,
        )

    def processor_seconds(self) -> float:
        """All that its processes have used so far."""
        return processor_seconds([*self._ends.calling, *self._ends.answering, *self._ends.between])

    async def _line(self, what: str, seconds: float) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise Failure(f"{self.entry.name} took more than {seconds:.0f} s for {what}") from error
        if not line.strip():
            raise Failure(f"{self.entry.name} ended during {what}")
        return line

    async def stop(self) -> None:
        """The end of its input ends it; if not, its whole process group is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._process.wait()
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


@contextlib.asynccontextmanager
async def started(entries: list[Entry], failures: dict[str, str]) -> AsyncIterator[list[Contender]]:
    """Start them side by side; who does not get ready is named in `failures` and left out."""
    contenders: list[Contender] = []
    try:
        for entry in entries:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *entry.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            contenders.append(Contender(entry, process))
        ready = []
        for contender in contenders:
            try:
                await contender.until_ready()
            except Failure as failure:
                failures[contender.entry.name] = str(failure)
            else:
                ready.append(contender)
        yield ready
    finally:
        await asyncio.gather(*(contender.stop() for contender in contenders))
