"""The clients of a simulated life: what they do to its services, what they know of it, and what they may not see.

Every client has keys of its own, writes values that no other write has, and knows of each whether it was
acknowledged, refused, or neither. Keys that all share, and counters, are for the linearizability checker. A call that
has not ended a second after its deadline, a value that was refused and is read all the same, and a counter that is
greater than the calls that may have counted are defects in any weather.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import roost
from roost.testing import Cluster, History, RecordedKV

__all__ = ["CALL_SECONDS", "COUNTERS", "FORGIVEN", "SHARED", "Client", "Known", "Ledger", "Tally"]

R = TypeVar("R")

CALL_SECONDS = 1.5
LATE_SECONDS = 1.0
CALLS_A_SECOND = 16.0
KEYS = 4
SHARED = [f"shared-{number}" for number in range(3)]
COUNTERS = [f"count-{number}" for number in range(2)]
FORGIVEN = (roost.Overloaded, roost.DeadlineExceeded, roost.Unreachable, roost.Unavailable)


class Tally(roost.Partition[str, int]):
    async def hit(self) -> int:
        if self.key.endswith("1"):
            await asyncio.sleep(0.02)  # some commands take their time, and others wait for them
        self.items[self.key] = self.items.get(self.key, 0) + 1
        return self.items[self.key]

    async def total(self) -> int:
        return self.items.get(self.key, 0)

    def merge(self, key: str, a: int, b: int) -> int:
        return max(a, b)


@dataclass
class Known:
    """What a client knows of one key of its own."""

    acked: int = 0
    """The newest value that was acknowledged; 0: none, or that it was removed."""
    unknown: set[int] = field(default_factory=set)
    """Writes that failed without saying that they did not run: each may take effect at any time after."""
    hits_acked: int = 0
    hits_tried: int = 0

    def allows(self, found: int) -> bool:
        """May this be what is read, if nothing acknowledged was lost?"""
        return found == self.acked or found in self.unknown


@dataclass
class Count:
    """What is known of a counter."""

    acked: int = 0
    tried: int = 0


@dataclass
class Ledger:
    """What all clients know."""

    strict: bool
    """No cuts, no more crashes than the copies bear: what was acknowledged is what is read."""
    known: dict[str, Known] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=lambda: {key: Count() for key in COUNTERS})
    history: History = field(default_factory=History)
    values: int = 0
    """The last that was written."""
    refused: dict[int, str] = field(default_factory=dict)
    """Values that were not written, and what said so."""
    seen: set[int] = field(default_factory=set)
    acked: int = 0
    operations: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    witness: asyncio.Future[roost.Node] | None = None
    """Who waits for a node that has just acknowledged a write of its own to a client of its own."""

    def next_value(self) -> int:
        self.values += 1
        return self.values

    def refuse(self, value: int, reason: str) -> None:
        """A call said that it did not write this."""
        assert value not in self.seen, f"{value} has been read, and was refused: {reason}"
        self.refused[value] = reason

    def saw(self, key: str, found: int | None) -> None:
        if found is not None and key not in self.counts:
            assert 0 < found <= self.values, f"{key} reads {found}, which nobody wrote"
            assert found not in self.refused, f"{key} reads {found}, which was refused: {self.refused[found]}"
            self.seen.add(found)
        elif found is not None:
            assert found <= self.counts[key].tried, f"{key} counts {found} of {self.counts[key].tried}: one ran twice"


class Client:
    """One client. `lives` goes on until it is cancelled, or raises what a defect is."""

    def __init__(
        self,
        number: int,
        seed: int,
        cluster: Cluster,
        ledger: Ledger,
        stores: dict[str, roost.KV[str, int]],
        tallies: dict[str, roost.Partitions[Any, Tally]],
    ) -> None:
        self.name = f"client{number}"
        self.rng = random.Random(f"{seed}/{self.name}")
        self.cluster = cluster
        self.ledger = ledger
        self.stores = stores
        self.tallies = tallies
        self.keys = [f"c{number}-{i}" for i in range(KEYS)]
        ledger.known.update((key, Known()) for key in self.keys)
        self.acts: list[Callable[[roost.Node], Awaitable[None]]] = [
            *[self._write] * 4,
            *[self._read] * 4,
            *[self._hit] * 3,
            *[self._count] * 2,
            *[self._shared] * 4,
            self._write_many,
        ]

    async def lives(self) -> None:
        while True:
            await self.cluster.sleep(self.rng.expovariate(CALLS_A_SECOND))
            ready = [node for node in self.cluster.nodes if node.name in self.tallies]
            if not ready:
                continue
            node = self.rng.choice(ready)
            try:
                await self.rng.choice(self.acts)(node)
                self.ledger.operations += 1
            except FORGIVEN as error:
                name = type(error).__name__
                self.ledger.failures[name] = self.ledger.failures.get(name, 0) + 1

    def _store(self, node: roost.Node) -> RecordedKV[str, int]:
        return RecordedKV(self.stores[node.name], self.ledger.history, self.name)

    async def _ended(self, node: roost.Node, what: str, call: Awaitable[R]) -> R:
        """What the call returned. Calls end by their deadline, but for those of a process that is gone."""
        uid = node.uid
        try:
            async with asyncio.timeout(CALL_SECONDS + LATE_SECONDS):
                return await call
        except TimeoutError as error:
            if isinstance(error, roost.RoostError):
                raise
            if node in self.cluster.nodes and node.uid == uid:
                raise AssertionError(f"{self.name}: {what} on {node.name} did not end") from None
            raise roost.Unreachable(f"{node.name} is gone", may_have_run=True) from None

    async def _wrote(self, node: roost.Node, what: str, values: dict[str, int], call: Awaitable[R]) -> R:
        """Await a write of own keys, and note what became of it; 0 stands for a removal."""
        known = {key: self.ledger.known[key] for key in values}
        try:
            result = await self._ended(node, what, call)
        except asyncio.CancelledError:
            for key, value in values.items():
                known[key].unknown.add(value)
            raise
        except roost.RoostError as error:
            for key, value in values.items():
                if error.may_have_run:
                    known[key].unknown.add(value)
                elif value:
                    self.ledger.refuse(value, f"{what}: {error!r}")
            raise
        for key, value in values.items():
            if value or result:  # the removal of what is not there leaves no trace
                known[key].acked = value
                self.ledger.acked += 1
                self._tell_witness(node, key)
        return result

    def _tell_witness(self, node: roost.Node, key: str) -> None:
        witness, store = self.ledger.witness, self.stores.get(node.name)
        if witness is None or witness.done() or store is None:
            return
        service = store._service
        assert service.hosting is not None
        if service.hosting.rights.slots[service.partition_of(service.keys.encode(key))].executes:
            witness.set_result(node)

    async def _write(self, node: roost.Node) -> None:
        key, store = self.rng.choice(self.keys), self._store(node)
        act = self.rng.choice(["put", "put", "delete", "update"])
        if act == "delete":
            await self._wrote(node, "delete", {key: 0}, store.delete(key))
            return
        value = self.ledger.next_value()
        call: Awaitable[object] = store.put(key, value) if act == "put" else store.update(key, lambda before: value)
        await self._wrote(node, act, {key: value}, call)

    async def _write_many(self, node: roost.Node) -> None:
        values = {key: self.ledger.next_value() for key in self.keys}
        history = self.ledger.history
        calls = [history.begin(self.name, key, "put", value) for key, value in values.items()]
        try:
            await self._wrote(node, "put_many", values, self.stores[node.name].put_many(values))
        except BaseException as error:
            for call in calls:
                history.fail(call, may_have_run=getattr(error, "may_have_run", True))
            raise
        for call in calls:
            history.end(call)

    async def _read(self, node: roost.Node) -> None:
        key = self.rng.choice([*self.keys, *SHARED, *COUNTERS])
        found = await self._ended(node, "get", self._store(node).get(key))
        self.ledger.saw(key, found)
        if self.ledger.strict and key in self.ledger.known:
            known = self.ledger.known[key]
            assert known.allows(found or 0), f"{key} reads {found} on {node.name}, but {known.acked} was acknowledged"

    async def _shared(self, node: roost.Node) -> None:
        key, store, ledger = self.rng.choice(SHARED), self._store(node), self.ledger
        act = self.rng.choice(["put", "delete", "update", "put_if_absent"])
        if act == "delete":
            await self._ended(node, "delete", store.delete(key))
            return
        value = ledger.next_value()
        call: Awaitable[object]
        if act == "update":
            call = store.update(key, lambda before: value)
        else:
            call = store.put(key, value) if act == "put" else store.put_if_absent(key, value)
        try:
            if await self._ended(node, act, call) is False:
                ledger.refuse(value, f"{act} returned False")
        except roost.RoostError as error:
            if not error.may_have_run:
                ledger.refuse(value, f"{act}: {error!r}")
            raise

    async def _count(self, node: roost.Node) -> None:
        key, ledger = self.rng.choice(COUNTERS), self.ledger
        count = ledger.counts[key]
        count.tried += 1
        try:
            total = await self._ended(node, "update", self._store(node).update(key, lambda before: (before or 0) + 1))
        except roost.RoostError as error:
            count.tried -= not error.may_have_run
            raise
        count.acked += 1
        ledger.saw(key, total)

    async def _hit(self, node: roost.Node) -> None:
        key = self.rng.choice(self.keys)
        known = self.ledger.known[key]
        known.hits_tried += 1
        try:
            total = await self._ended(node, "hit", self.tallies[node.name].at(key).hit())
        except roost.RoostError as error:
            known.hits_tried -= not error.may_have_run
            raise
        known.hits_acked += 1
        assert total <= known.hits_tried, f"{key} counted {total} of {known.hits_tried}: something ran twice"
        if self.ledger.strict:
            assert total >= known.hits_acked, f"{key} counted {total}, {known.hits_acked} were acknowledged"
