"""A random life of a simulated cluster under load, from one seed, and what must be true of it.

Three climates. `calm`: nodes join and leave, links break, are slow and lossy. `split`: also cuts, one way and both,
healed later. `rough`: also crashes, restarts, and clocks that differ by up to two seconds.

Clients write to keys of their own, each key a rising sequence, and add to counters. What they know of each write
(acknowledged, refused, or unknown) is compared with what is read. Checked throughout: one holder for a partition and
epoch, and the machines' own invariants; strict reads in calm. Checked in the end, healed and settled: each partition
is held by its primary alone, all nodes read the same, nothing that never was written, nothing acknowledged lost unless
a holder crashed (and then `possible_loss` says so), and no counter counted twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import roost
from roost.core.tenure import EXECUTING
from roost.services.hosting import Hosting
from roost.testing import Cluster, SimulatedLoop

Climate = Literal["calm", "split", "rough"]

SECONDS = 12.0
NODES_MAX = 7
NODES_MIN = 3
CLIENTS = 5
KEYS = 12
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
    """What a client knows of one key."""

    acked: int = 0
    tried: int = 0
    unknown: set[int] = field(default_factory=set)
    """Writes that failed without saying that they did not run: each may take effect at any time after."""
    hits_acked: int = 0
    hits_tried: int = 0


@dataclass
class World:
    """One life. `run` raises AssertionError where a promise was broken."""

    seed: int
    climate: Climate
    cluster: Cluster = field(init=False)
    rng: random.Random = field(init=False)
    known: dict[str, Known] = field(default_factory=dict)
    stores: dict[str, roost.KV[str, int]] = field(default_factory=dict)
    tallies: dict[str, roost.Partitions[Any, Tally]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    crashes: int = 0
    skews: int = 0
    """In a split, whose clock is behind loses to older writes of the other side: last writer wins by hybrid clock."""
    forgetful: bool = False
    """A node that had reported a possible loss is gone itself."""
    operations: int = 0

    async def run(self, loop: SimulatedLoop) -> None:
        self.rng = random.Random(self.seed)
        partitions = self.rng.choice([8, 32, 64])
        chunk = self.rng.choice([100, 64 * 1024])  # small ones make moves of many messages
        self.cluster = cluster = Cluster(
            loop, self.seed, partitions=partitions, transfer_chunk_bytes=chunk, call_seconds=3.0
        )
        cluster.invariants.append(self._one_holder)
        for _ in range(self.rng.randint(NODES_MIN, 4)):
            await self._join()
        await cluster.settle()
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        fate = asyncio.create_task(self._fate())
        done, _ = await asyncio.wait({fate, *clients}, return_when=asyncio.FIRST_COMPLETED)
        for task in (fate, *clients):
            task.cancel()
        await asyncio.gather(fate, *clients, return_exceptions=True)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        cluster.heal()
        self._note("healed")
        await cluster.sleep(4.0)  # what clients had under way may still run until its deadline
        await cluster.settle()
        await self._verify()
        await cluster.close()

    def _note(self, text: str) -> None:
        self.log.append(f"{self.cluster.loop.time():9.3f} {text}")

    # fate

    async def _fate(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [self._join, self._leave, self._break_links, self._weather]
        if self.climate != "calm":
            acts += [self._split, self._cut_one_way, self._heal]
        if self.climate == "rough":
            acts += [self._crash, self._restart, self._skew]
        until = self.cluster.loop.time() + SECONDS
        while self.cluster.loop.time() < until:
            await self.cluster.sleep(self.rng.expovariate(1.0))
            await self.rng.choice(acts)()

    async def _open(self, node: roost.Node) -> None:
        self.stores[node.name] = await node.kv("store", int)
        self.tallies[node.name] = await node.partitions("tally", Tally)

    async def _join(self) -> None:
        if len(self.cluster.nodes) >= NODES_MAX:
            return
        name = f"n{len(self.cluster.hosts) + 1}"
        self._note(f"join {name}")
        seeds = [node.address for node in self.cluster.nodes]
        node = await self.cluster.launch(name, seeds=self.rng.sample(seeds, min(2, len(seeds))))
        await self._open(node)

    async def _leave(self) -> None:
        if len(self.cluster.nodes) > NODES_MIN:
            node = self.rng.choice(self.cluster.nodes)
            self._note(f"leave {node.name}")
            self.crashes += self.cluster.network.is_cut  # who leaves into a split may find nobody to take what it has
            self._forget(node)
            await self.cluster.leave(node)

    async def _break_links(self) -> None:
        node = self.rng.choice(self.cluster.nodes)
        self._note(f"reset {node.name}")
        self.cluster.reset_links(node)

    async def _weather(self) -> None:
        self._note("weather")
        self.cluster.lose(self.rng.choice([0.0, 0.01, 0.05]))
        self.cluster.duplicate(self.rng.choice([0.0, 0.05]))
        self.cluster.slow(self.rng.choice(self.cluster.nodes), self.rng.choice([0.0, 0.01, 0.05]))

    async def _split(self) -> None:
        nodes = self.cluster.nodes
        self.rng.shuffle(nodes)
        size = self.rng.randint(1, len(nodes) - 1)
        self._note(f"split {[node.name for node in nodes[:size]]} | {[node.name for node in nodes[size:]]}")
        self.cluster.partition(nodes[:size], nodes[size:])

    async def _cut_one_way(self) -> None:
        a, b = self.rng.sample(self.cluster.nodes, 2)
        self._note(f"cut {a.name} -> {b.name}")
        self.cluster.one_way_cut(a, b)

    async def _heal(self) -> None:
        self._note("heal")
        self.cluster.heal()

    async def _crash(self) -> None:
        if len(self.cluster.nodes) > NODES_MIN:
            node = self.rng.choice(self.cluster.nodes)
            self._note(f"crash {node.name}")
            self.crashes += 1
            self._forget(node)
            await self.cluster.crash(node)

    def _forget(self, node: roost.Node) -> None:
        self.forgetful = self.forgetful or any(hosting.lost for _, _, hosting in hostings([node]))

    async def _restart(self) -> None:
        stopped = self.cluster.stopped
        if stopped and len(self.cluster.nodes) < NODES_MAX:
            node = self.rng.choice(stopped)
            self._note(f"restart {node.settings.name}")
            await self.cluster.restart(node)
            await self._open(node)

    async def _skew(self) -> None:
        node = self.rng.choice(self.cluster.nodes)
        self._note(f"skew {node.name}")
        self.skews += 1
        self.cluster.skew(node, self.rng.uniform(-2, 2))

    # clients

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/client{number}")
        keys = [f"c{number}-{i}" for i in range(KEYS)]
        for key in keys:
            self.known[key] = Known()
        while True:
            await self.cluster.sleep(rng.expovariate(20.0))
            ready = [node for node in self.cluster.nodes if node.name in self.tallies]
            node = rng.choice(ready)
            key = rng.choice(keys)
            act = rng.choice([self._put, self._get, self._hit])
            try:
                await act(node, key, self.known[key])
                self.operations += 1
            except FORGIVEN as error:
                self._forgive(node, error)

    def _forgive(self, node: roost.Node, error: roost.RoostError) -> None:
        """In calm weather a call fails only by its deadline, or because a link broke under it."""
        if self.climate == "calm" and isinstance(error, roost.Unreachable) and not error.may_have_run:
            left = node not in self.cluster.nodes or "stop" in str(error) or "left" in str(error)
            assert left, f"{node.name}: {error!r}"

    async def _put(self, node: roost.Node, key: str, known: Known) -> None:
        known.tried += 1
        value = known.tried
        try:
            await self.stores[node.name].put(key, value)
        except roost.RoostError as error:
            if error.may_have_run:
                known.unknown.add(value)
            raise
        known.acked = value

    async def _get(self, node: roost.Node, key: str, known: Known) -> None:
        acked = known.acked
        found = await self.stores[node.name].get(key, default=0)
        assert found <= known.tried, f"{key} reads {found}, which was never written"
        if self.climate == "calm":
            fresh = found >= acked or found in known.unknown
            assert fresh, f"{key} reads {found} on {node.name}, but {acked} was acknowledged"

    async def _hit(self, node: roost.Node, key: str, known: Known) -> None:
        known.hits_tried += 1
        try:
            total = await self.tallies[node.name].at(key).hit()
        except roost.RoostError as error:
            if not error.may_have_run:
                known.hits_tried -= 1
            raise
        known.hits_acked += 1
        assert total <= known.hits_tried, f"{key} counted {total} of {known.hits_tried}: something ran twice"
        if self.climate == "calm":
            assert total >= known.hits_acked, f"{key} counted {total}, {known.hits_acked} were acknowledged"

    # what must be true

    def _one_holder(self, nodes: list[roost.Node]) -> None:
        """At any time at most one node executes a partition under one right."""
        holders: dict[tuple[str, int, int], str] = {}
        for node, service, hosting in hostings(nodes):
            for slot in hosting.rights.slots:
                if slot.role in EXECUTING and not slot.stopped:
                    assert slot.right.holder == node.uid, f"{node.name} executes under another's right"
                    key = (service, slot.partition, slot.right.epoch)
                    other = holders.setdefault(key, node.name)
                    uids = {each.name: each.uid for each in nodes}
                    if other != node.name and self.climate == "calm":
                        raise AssertionError(f"{other} {uids[other]} and {node.name} both execute {key}")

    async def _verify(self) -> None:
        nodes = self.cluster.nodes
        for service in ("kv:store", "partitions:tally"):
            held: dict[int, list[str]] = {}
            for node, name, hosting in hostings(nodes):
                if name == service:
                    for slot in hosting.rights.slots:
                        if slot.role in EXECUTING:
                            held.setdefault(slot.partition, []).append(node.name)
            ring = self.stores[nodes[0].name].ring if service == "kv:store" else self.tallies[nodes[0].name].ring
            assert held == {p: [ring.primary(p)] for p in range(ring.partitions)}, f"{service} is held by {held}"
        acked, hits = (sum(getattr(each, what) for each in self.known.values()) for what in ("acked", "hits_acked"))
        floor = 40 if self.climate == "calm" else 10
        assert min(acked, hits) > floor, f"{acked} writes and {hits} commands acknowledged: too few to tell"
        loss = any(hosting.lost for _, _, hosting in hostings(nodes))
        for key, known in self.known.items():
            values = {node.name: await self.stores[node.name].get(key, default=0) for node in nodes}
            assert len(set(values.values())) == 1, f"{key} differs: {values}"
            value = next(iter(values.values()))
            assert value <= known.tried, f"{key} reads {value}, which was never written"
            total = await self.tallies[nodes[0].name].at(key).total()
            assert total <= known.hits_tried, f"{key} counted {total} of {known.hits_tried}: something ran twice"
            if not self.crashes and not self.skews:
                fresh = value >= known.acked or value in known.unknown
                assert fresh, f"{key} reads {value}, but {known.acked} was acknowledged"
                if self.climate == "calm":
                    assert total >= known.hits_acked, f"{key} counted {total} of {known.hits_acked} acknowledged"
            elif not self.skews and value < known.acked and value not in known.unknown:
                assert loss or self.forgetful, f"{key}: {known.acked} was lost without a word"


def hostings(nodes: list[roost.Node]) -> list[tuple[roost.Node, str, Hosting]]:
    """Every service that a running node hosts."""
    found = []
    for node in nodes:
        for name, service in node._services.items():
            hosting = service._service.hosting
            if hosting is not None:
                found.append((node, name, hosting))
    return found


def live(seed: int, climate: Climate) -> World:
    """Live one life to its end; an AssertionError carries the log of what happened."""
    loop = SimulatedLoop()
    asyncio.set_event_loop(loop)
    world = World(seed, climate)
    try:
        loop.run_until_complete(world.run(loop))
    except BaseException as error:
        error.add_note(f"seed {seed} in {climate} weather:\n" + "\n".join(world.log[-60:]))
        error.add_note(world.cluster.describe())
        raise
    finally:
        asyncio.set_event_loop(None)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    return world
