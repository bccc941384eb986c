"""Four nodes that are written to and killed at random moments: `python -m tests.acceptance.kills --kills 100 --seed 1`.

Each node is a process with writers of its own (`kills_worker`), and all that they are told stands in one `Ledger`. A
fate made from a seed kills nodes (SIGKILL) and starts them again under their names, lets a fifth one join and leave
(SIGTERM), and breaks links; after each kill it waits until the nodes have repaired what is missing, since that is what
`acks - 1` crashes between repairs means: joins, leaves and broken links need no such patience, and are often under way
when the next one is killed. The writers never stop. In the end every node is asked for everything.

Prints figures and what is wrong, and ends with 1 if anything is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN, Found, Ledger
from tests.net.workers import Failed, Team, Worker

__all__ = ["Fate", "Figures", "play"]

NAMES = ("a", "b", "c", "d")
GUEST = "e"
REPAIR_SECONDS_MAX = 30.0
ORDER_SECONDS_MAX = 15.0
SILENCE_SECONDS = 10.0
"""A pause in what is acknowledged belongs to the last kill for so long."""
KEYS_A_QUESTION = {"put": 200, "hit": 100, "update": 200, "append": 20, "put_if_absent": 200}
FAULTS_SHOWN = 40


@dataclass(frozen=True)
class Fate:
    """What befalls the nodes."""

    kills: int
    seed: int
    replicas: int = 3
    write: str = "majority"
    pause_seconds: tuple[float, float] = (0.5, 2.5)
    """Between what befalls them, once all is repaired."""
    restart_seconds_max: float = 2.0
    kill_share: float = 0.75
    guest_share: float = 0.4
    cut_share: float = 0.3


@dataclass
class Figures:
    """What happened."""

    kills: int = 0
    restarts: int = 0
    joins: int = 0
    leaves: int = 0
    cuts: int = 0
    seconds: float = 0.0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    silences: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)
    repairs: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        names = ("kills", "restarts", "joins", "leaves", "cuts")
        yield ", ".join(f"{getattr(self, name)} {name}" for name in names) + f" in {self.seconds:.0f} s"
        for outcome, counts in self.outcomes.items():
            each = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            yield f"{outcome}: {sum(counts.values())}" + (f" ({each})" if each else "")
        yield "errors: " + (", ".join(f"{count} {kind}" for kind, count in self.errors.items()) or "none")
        for what, times in (
            ("no write acknowledged around a kill", self.silences),
            ("until the slowest write around a kill was acknowledged", self.slowest),
            ("until all was repaired after a kill and its restart", self.repairs),
        ):
            if times:
                yield f"{what}: at most {max(times):.2f} s, median {statistics.median(times):.2f} s"
        yield f"faults: {len(self.faults)}"
        yield from (f"  {fault}" for fault in self.faults[:FAULTS_SHOWN])


class Stuck(Exception):
    """The play cannot go on."""


class Writing(Worker):
    """A worker whose journal goes to the ledger."""

    def __init__(self, name: str, process: Process, log: Path, ledger: Ledger) -> None:
        super().__init__(name, process, log)
        self._ledger = ledger

    def _take(self, line: dict[str, Any]) -> None:
        if "journal" in line:
            self._ledger.take(self.log.stem, line["journal"])
        else:
            super()._take(line)


class Crowd(Team):
    """The processes of one play."""

    module = "tests.acceptance.kills_worker"

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        super().__init__(folder, "uvloop")
        self._ledger = ledger

    def stand_in(self, name: str, process: Process, log: Path) -> Worker:
        return Writing(name, process, log, self._ledger)


class Kills:
    """One play."""

    def __init__(self, crowd: Crowd, ledger: Ledger, fate: Fate) -> None:
        self.crowd = crowd
        self.ledger = ledger
        self.fate = fate
        self.figures = Figures()
        self.live: dict[str, Worker] = {}
        self.leaving: Worker | None = None
        self.rng = random.Random(fate.seed)
        self.killed_at: list[float] = []
        self.losses: dict[str, list[int]] = {}

    async def run(self) -> None:
        """From the first start to the last look."""
        for name in NAMES:
            await self.start(name)
        await self.repaired()
        await asyncio.gather(*(self.tell(worker, "begin") for worker in self.live.values()))
        while self.figures.kills < self.fate.kills:
            await self.befall()
        await self.repaired()
        await self.crowd.live(0.5)
        await asyncio.gather(*(self.tell(worker, "halt") for worker in self.live.values()))
        await self.repaired()
        await self.look()

    # what befalls them

    async def befall(self) -> None:
        """A while after a repair: a guest comes or goes, a link breaks, one is killed, or some of it; then a repair."""
        fate, chance = self.fate, self.rng.random
        await self.crowd.live(self.rng.uniform(*fate.pause_seconds))
        if chance() < fate.guest_share:
            await self.come_or_go()
        if chance() < fate.cut_share:
            one, other = self.rng.sample(sorted(self.live), 2)
            await self.tell(self.live[one], "cut", other)
            self.figures.cuts += 1
        kills = chance() < fate.kill_share
        if kills:
            await self.crowd.live(self.rng.uniform(0, 0.5))
            await self.kill()
        began = time.monotonic()
        await self.repaired()
        if kills:
            self.figures.repairs.append(time.monotonic() - began)

    async def start(self, name: str) -> None:
        seeds = [worker.address for worker in self.live.values()]
        generations = [int(key.split(":")[1]) for key in self.ledger.keys("append")]
        told = {
            "life": len(self.crowd.workers) + 1,
            "seed": self.fate.seed,
            "generation": max(generations, default=0),
            "replicas": self.fate.replicas,
            "write": self.fate.write,
        }
        try:
            self.live[name] = await self.crowd.start(name, *seeds, play=told)
        except AssertionError as error:
            raise Stuck(f"{self.crowd.workers[-1].log.stem}: {error}") from error

    async def come_or_go(self) -> None:
        """The guest joins, or is told to leave."""
        guest = self.live.pop(GUEST, None)
        if guest is not None:
            guest.process.terminate()
            self.leaving = guest
        else:
            await self.start(GUEST)
            await self.tell(self.live[GUEST], "begin")
            self.figures.joins += 1

    async def kill(self) -> None:
        """One of them, be it on its way out; it starts again a little later, unless it was leaving."""
        candidates = [*self.live.values(), *([self.leaving] if self.leaving is not None else [])]
        victim = self.rng.choice(sorted(candidates, key=lambda worker: worker.name))
        self.killed_at.append(time.monotonic())
        await victim.end()
        self.figures.kills += 1
        if victim is self.leaving:
            self.leaving = None
            return
        del self.live[victim.name]
        await self.crowd.live(self.rng.uniform(0, self.fate.restart_seconds_max))
        await self.start(victim.name)
        await self.tell(self.live[victim.name], "begin")
        self.figures.restarts += 1

    # what is to be seen

    async def tell(self, worker: Worker, command: str, *arguments: object) -> Any:
        """Raises Stuck if it does not do as it is told."""
        if worker.ended:
            raise Stuck(
                f"{worker.log.stem} has ended by itself, with {worker.process.returncode}: see {worker.log.name}"
            )
        try:
            async with asyncio.timeout(ORDER_SECONDS_MAX):
                return await worker.do(command, *arguments)
        except (TimeoutError, Failed) as error:
            raise Stuck(f"{worker.log.stem}, told to {command}: {error!r}") from error

    async def repaired(self) -> None:
        """Wait until all who live agree on who they are, and nothing is to be moved or copied any more."""
        if self.leaving is not None:
            await self.left(self.leaving)
        until = time.monotonic() + REPAIR_SECONDS_MAX
        while True:
            standings = await asyncio.gather(*(self.tell(worker, "standing") for worker in self.live.values()))
            for worker, standing in zip(self.live.values(), standings, strict=True):
                for service, partitions in standing["possible_loss"].items():
                    self.losses[f"{worker.log.stem} {service}"] = partitions
            if not (wanting := self.wanting(standings)):
                return
            if time.monotonic() > until:
                raise Stuck(f"not repaired within {REPAIR_SECONDS_MAX} s: {'; '.join(wanting)}")
            await self.crowd.live(0.1)

    def wanting(self, standings: Sequence[dict[str, Any]]) -> list[str]:
        """What is still to be done, by whom."""
        all_up = {standing["uid"]: name for name, standing in zip(self.live, standings, strict=True)}
        wanting = []
        for name, standing in zip(self.live, standings, strict=True):
            if standing["up"] != all_up:
                wanting.append(f"{name} takes {standing['up']} for up, up are {all_up}")
            elif not standing["settled"] or not standing["quiet"]:
                services = json.dumps(standing["services"])
                wanting.append(f"{name} is {'' if standing['settled'] else 'not '}settled and has {services}")
        return wanting

    async def left(self, guest: Worker) -> None:
        try:
            async with asyncio.timeout(REPAIR_SECONDS_MAX):
                await guest.process.wait()
        except TimeoutError:
            raise Stuck(f"{guest.log.stem} has not left within {REPAIR_SECONDS_MAX} s") from None
        await guest.end()
        self.leaving = None
        self.figures.leaves += 1
        if guest.process.returncode != -signal.SIGTERM:
            self.figures.faults.append(f"{guest.log.stem} left with {guest.process.returncode}")

    # the end

    async def look(self) -> None:
        """Ask every node for everything, and compare."""
        faults = self.figures.faults
        first: Found | None = None
        for name, worker in self.live.items():
            found = await self.read(worker)
            if first is None:
                first = found
                faults += self.ledger.faults(found)
            elif found != first:
                differing = [key for kind in found for key in found[kind] if found[kind][key] != first[kind].get(key)]
                faults.append(f"{name} reads otherwise than {next(iter(self.live))}: {differing}")
            sizes = await self.tell(worker, "sizes")
            kept = {"numbers": sum(len(found[kind]) for kind in ("put", "update", "put_if_absent"))}
            kept["tokens"] = len(found["append"])
            if sizes != kept:
                faults.append(f"{name} counts {sizes} keys, {kept} are found")
        faults += [f"possible_loss on {where}: {partitions}" for where, partitions in self.losses.items()]
        faults += await self.differing_copies()

    async def read(self, worker: Worker) -> Found:
        found: Found = {}
        for kind, count in KEYS_A_QUESTION.items():
            keys = self.ledger.keys(kind)
            found[kind] = {}
            for start in range(0, len(keys), count):
                found[kind] |= await self.tell(worker, "read", kind, keys[start : start + count])
        return found

    async def differing_copies(self) -> list[str]:
        """Each partition has one holder and as many copies as it should have, and they are equal."""
        standings = [await self.tell(worker, "standing") for worker in self.live.values()]
        here = [await self.tell(worker, "copies") for worker in self.live.values()]
        by_uid = {int(standing["uid"], 16): copies for standing, copies in zip(standings, here, strict=True)}
        faults = []
        for service in here[0]:
            for partition in range(len(here[0][service])):
                slots = {uid: copies[service][partition] for uid, copies in by_uid.items()}
                holders = [uid for uid, slot in slots.items() if slot[1] == "holding"]
                where = f"partition {partition} of {service}"
                if len(holders) != 1:
                    faults.append(f"{where} has {len(holders)} holders")
                    continue
                copies = slots[holders[0]][2]
                if len(copies) != min(self.fate.replicas, len(self.live)) or not set(copies) <= set(slots):
                    faults.append(f"{where} has the copies {copies}, live are {sorted(slots)}")
                digests = {slots[uid][3] for uid in copies if uid in slots}
                if len(digests) != 1:
                    faults.append(f"{where} has copies that differ: {[slots[uid] for uid in copies if uid in slots]}")
        return faults

    def sum_up(self, seconds: float) -> Figures:
        """Of a play that is over, however it ended."""
        figures, ledger = self.figures, self.ledger
        figures.seconds = seconds
        figures.outcomes = {outcome: ledger.count(outcome) for outcome in (ACKNOWLEDGED, UNKNOWN, REFUSED)}
        figures.errors = ledger.errors()
        ends = [min(at + SILENCE_SECONDS, after) for at, after in itertools.pairwise([*self.killed_at, float("inf")])]
        stretches = list(zip(self.killed_at, ends, strict=True))
        figures.silences = ledger.silences(stretches)
        figures.slowest = ledger.slowest(stretches)
        for worker in self.crowd.workers:
            log = worker.log.read_text()
            for word in ("possible_loss", "Traceback", "AssertionError"):
                if word in log:
                    figures.faults.append(f"{worker.log} says {word} {log.count(word)} times")
        return figures


async def play(folder: Path, fate: Fate) -> Figures:
    """Play it. The logs are in the folder; no process outlives it."""
    ledger = Ledger()
    crowd = Crowd(folder, ledger)
    kills = Kills(crowd, ledger, fate)
    began = time.monotonic()
    try:
        await kills.run()
    except Stuck as stuck:
        kills.figures.faults.append(str(stuck))
    finally:
        for worker in crowd.workers:
            await worker.end()
    return kills.sum_up(time.monotonic() - began)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.kills", description="Kill nodes under load.")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--write", default="majority")
    parser.add_argument("--folder", type=Path, help="for the logs; else one that is made")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    figures = asyncio.run(play(folder, Fate(given.kills, given.seed, given.replicas, given.write)))
    sys.stdout.write("\n".join((f"seed {given.seed}, logs in {folder}", *figures.lines())) + "\n")
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
