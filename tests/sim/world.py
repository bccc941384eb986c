"""A random life of a simulated cluster under load, from one seed, and what must be true of it.

Four climates. `calm`: nodes join and leave, links break, are slow and lossy. `sturdy`: also crashes, of fewer nodes at
once than copies acknowledge a write, and only after the cluster has settled. `split`: as calm, with cuts, one way and
both, healed later, and any strategy. `rough`: cuts, crashes at any moment, restarts, and in half of the lives clocks
that differ by up to two seconds. How many copies are kept, and how many acknowledge a write, is the seed's to say.

Checked throughout: the machines' own invariants, nobody executes under another's right, and what `clients.py` says. In
calm and sturdy lives also: never two who execute one partition, nothing acknowledged is lost, no loss is reported, and
the histories of all keys are linearizable. In the end, healed, settled and quiet: what `verdict.py` says, all nodes
read the same, and what was acknowledged is lost only where `possible_loss` names the partition. One life in ten goes on
until tombstones and outcomes of requests are collected.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest.mock import patch

import roost
from roost.core.split import STRATEGIES
from roost.core.tenure import ACKS, Write, majority
from roost.services import collecting
from roost.services.collecting import COLLECT_SECONDS
from roost.testing import Cluster, SimulatedLoop, check_linearizable
from tests.sim.clients import CALL_SECONDS, COUNTERS, SHARED, Client, Ledger, Tally
from tests.sim.verdict import losses, nothing_to_collect, one_executes, only_under_own_right, rested, uncollected

__all__ = ["CLIMATES", "Climate", "World", "live"]

Climate = Literal["calm", "sturdy", "split", "rough"]
CLIMATES: tuple[Climate, ...] = ("calm", "sturdy", "split", "rough")

SECONDS = 5.0
ACTS_A_SECOND = 2.2
NODES_MAX = 6
NODES_MIN = 3
CLIENTS = 4
TAIL_EVERY = 10
WITNESS_SECONDS = 0.5
REST_SECONDS = 2.5
"""What was sent in vain is sent again by then, and who follows says how far it has come."""
CALM_SECONDS = 10.0
"""Here nothing is collected until so long after the last missing host has come back, instead of minutes."""
MEMBERSHIP_SECONDS = {"probe_seconds": 0.4, "probe_timeout_seconds": 0.2, "suspicion_seconds": 1.0}
"""Where nodes are cut off, they are found to be down sooner than `local` says, so that more can happen in a life."""

Copies = tuple[int, Write]
STURDY: list[Copies] = [(3, "majority"), (3, "majority"), (3, "all"), (2, "majority"), (2, "all"), (3, "one")]
COPIES: list[Copies] = [(1, "majority"), (2, "one"), (2, "majority"), (3, "one"), (3, "majority"), (3, "all")]


@dataclass
class World:
    """One life. `run` raises AssertionError where a promise was broken."""

    seed: int
    climate: Climate
    rng: random.Random = field(init=False)
    cluster: Cluster = field(init=False)
    ledger: Ledger = field(init=False)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    stores: dict[str, roost.KV[str, int]] = field(default_factory=dict)
    tallies: dict[str, roost.Partitions[Any, Tally]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    lost: set[tuple[str, int]] = field(default_factory=set)
    bearable: int = 0
    """So many nodes may crash at once."""
    unsure: bool = False
    """So many did that who was left could not know whether the others had dropped it from the record."""
    skewed: bool = False
    cuts: int = 0
    lonely_leaves: int = 0
    """Who leaves into a split may find nobody to take what it has."""

    @property
    def operations(self) -> int:
        return self.ledger.operations

    async def run(self, loop: SimulatedLoop) -> None:
        rng = self.rng = random.Random(self.seed)
        self.ledger = Ledger(strict=self.climate in ("calm", "sturdy"))
        settings: dict[str, Any] = {
            "partitions": rng.choice([4, 8, 16]),
            "transfer_chunk_bytes": rng.choice([100, 64 * 1024]),  # small ones make moves of many messages
            "transfer_bytes_per_second": rng.choice([0.0, 0.0, 3000.0]),
            "call_seconds": CALL_SECONDS,
        }
        if not self.ledger.strict:
            settings |= MEMBERSHIP_SECONDS
        cluster = self.cluster = Cluster(loop, self.seed, **settings)
        cluster.invariants.append(one_executes if self.ledger.strict else only_under_own_right)
        self._choose_options()
        self.skewed = self.climate == "rough" and rng.random() < 0.5
        for _ in range(rng.randint(NODES_MIN, NODES_MIN + 1)):
            await self._join()
        await cluster.settle()
        await self._live()
        cluster.heal()
        self._note("healed")
        await cluster.sleep(CALL_SECONDS + 0.5)  # what clients had under way may still run until its deadline
        await cluster.settle()
        await self._judge()
        if self.seed % TAIL_EVERY == 0:
            await self._grow_old()
        await cluster.close()

    def _choose_options(self) -> None:
        copies = STURDY if self.climate == "sturdy" else COPIES
        replicas, write = self.rng.choice(copies)
        tally_replicas, tally_write = (replicas, write) if self.rng.random() < 0.5 else self.rng.choice(copies)
        split = self.rng.choice(STRATEGIES) if self.climate == "split" else "keep-both"
        chosen = {"split": split, "quorum": 2 if split == "static-quorum" else None}
        self.options["kv:store"] = {"replicas": replicas, "write": write, **chosen}
        self.options["partitions:tally"] = {"replicas": tally_replicas, "write": tally_write, **chosen}
        self.bearable = min(ACKS[write](replicas), ACKS[tally_write](tally_replicas)) - 1

    async def _live(self) -> None:
        """Until fate has had its time, or something is wrong."""
        clients = [
            Client(number, self.seed, self.cluster, self.ledger, self.stores, self.tallies) for number in range(CLIENTS)
        ]
        tasks = [asyncio.create_task(client.lives()) for client in clients]
        tasks.append(asyncio.create_task(self._fate()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _note(self, text: str) -> None:
        self.log.append(f"{self.cluster.loop.time():9.3f} {text}")

    # fate

    async def _fate(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [self._join, self._leave, self._break_links, self._weather]
        if self.climate == "sturdy":
            acts += [self._crash_some] * 2
        if self.climate in ("split", "rough"):
            acts += [self._split, self._cut_one_way, self._heal]
        if self.climate == "rough":
            acts += [self._crash, self._restart] + [self._skew] * self.skewed
        until = self.cluster.loop.time() + SECONDS
        while self.cluster.loop.time() < until:
            await self.cluster.sleep(self.rng.expovariate(ACTS_A_SECOND))
            await self.rng.choice(acts)()

    async def _open(self, node: roost.Node) -> None:
        self.stores[node.name] = await node.kv("store", int, **self.options["kv:store"])
        self.tallies[node.name] = await node.partitions("tally", Tally, **self.options["partitions:tally"])

    def _close(self, node: roost.Node) -> None:
        self.lost |= losses([node])
        self.stores.pop(node.name, None)
        self.tallies.pop(node.name, None)

    async def _join(self) -> None:
        if len(self.cluster.nodes) >= NODES_MAX:
            return
        name = f"n{len(self.cluster.hosts) + 1}"
        self._note(f"join {name}")
        seeds = [node.address for node in self.cluster.nodes]
        node = await self.cluster.launch(name, seeds=self.rng.sample(seeds, min(2, len(seeds))))
        await self._open(node)

    async def _leave(self) -> None:
        strict = self.options["kv:store"]["split"] != "keep-both"
        if strict and self.cluster.network.is_cut:
            return  # those who do not hear of it would wait for the leaver, as for any who may come back
        if len(self.cluster.nodes) > NODES_MIN:
            node = self.rng.choice(self.cluster.nodes)
            self._note(f"leave {node.name}")
            self.lonely_leaves += self.cluster.network.is_cut
            self._close(node)
            await self.cluster.leave(node)

    async def _break_links(self) -> None:
        node = self.rng.choice(self.cluster.nodes)
        self._note(f"reset {node.name}")
        self.cluster.reset_links(node)

    async def _weather(self) -> None:
        loss, twice, slow = (self.rng.choice(some) for some in ([0, 0.01, 0.05], [0, 0.05], [0, 0.01, 0.05]))
        node = self.rng.choice(self.cluster.nodes)
        self._note(f"weather: {loss} lost, {twice} twice, {node.name} slow by {slow}")
        self.cluster.lose(loss)
        self.cluster.duplicate(twice)
        self.cluster.slow(node, slow)

    async def _split(self) -> None:
        nodes = self.cluster.nodes
        self.rng.shuffle(nodes)
        size = self.rng.randint(1, len(nodes) - 1)
        self._note(f"split {[node.name for node in nodes[:size]]} | {[node.name for node in nodes[size:]]}")
        self.cuts += 1
        self.cluster.partition(nodes[:size], nodes[size:])

    async def _cut_one_way(self) -> None:
        a, b = self.rng.sample(self.cluster.nodes, 2)
        self._note(f"cut {a.name} -> {b.name}")
        self.cuts += 1
        self.cluster.one_way_cut(a, b)

    async def _heal(self) -> None:
        self._note("heal")
        self.cluster.heal()

    async def _crash(self) -> None:
        if len(self.cluster.nodes) > NODES_MIN:
            node = await self._witness()
            if len(self.cluster.nodes) > NODES_MIN:
                await self._kill(node)

    async def _witness(self) -> roost.Node:
        """A node that has acknowledged a write in this very moment: what it has yet to send is not sent any more."""
        self.ledger.witness = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WITNESS_SECONDS):
                return await self.ledger.witness
        except TimeoutError:
            return self.rng.choice(self.cluster.nodes)
        finally:
            self.ledger.witness = None

    async def _crash_some(self) -> None:
        """As many at once as the copies bear, once all is settled."""
        await self.cluster.settle()
        count = min(self.rng.randint(1, self.bearable), len(self.cluster.nodes) - 2) if self.bearable else 0
        self.unsure = self.unsure or any(count >= majority(each["replicas"]) for each in self.options.values())
        if count > 0:
            first = await self._witness()
            others = [node for node in self.cluster.nodes if node is not first]
            for node in [first, *self.rng.sample(others, count - 1)]:
                await self._kill(node)

    async def _kill(self, node: roost.Node) -> None:
        self._note(f"crash {node.name}")
        self._close(node)
        await self.cluster.crash(node)

    async def _restart(self) -> None:
        stopped = self.cluster.stopped
        if stopped and len(self.cluster.nodes) < NODES_MAX:
            await self._start_again(self.rng.choice(stopped))

    async def _start_again(self, node: roost.Node) -> None:
        self._note(f"restart {node.settings.name}")
        await self.cluster.restart(node)
        await self._open(node)

    async def _skew(self) -> None:
        node = self.rng.choice(self.cluster.nodes)
        self._note(f"skew {node.name}")
        self.cluster.skew(node, self.rng.uniform(-2, 2))

    # the end

    async def _judge(self) -> None:
        nodes, ledger = self.cluster.nodes, self.ledger
        keys = [*ledger.known, *SHARED, *COUNTERS]
        found: dict[str, dict[str, int]] = {}
        for node in nodes:
            calls = [ledger.history.begin("judge", key, "get") for key in keys]
            values = found[node.name] = await self.stores[node.name].get_many(keys)
            for call, key in zip(calls, keys, strict=True):
                ledger.history.end(call, values.get(key))
                ledger.saw(key, values.get(key))
        await self.cluster.sleep(REST_SECONDS)
        rested(nodes)
        first = found[nodes[0].name]
        assert all(values == first for values in found.values()), f"nodes read different values: {found}"
        self.lost |= losses(nodes)
        if ledger.strict:
            assert ledger.acked > 15, f"{ledger.acked} writes acknowledged: too few to tell"
            assert self.unsure or not self.lost, f"possible_loss was reported without need: {sorted(self.lost)}"
            check_linearizable(ledger.history)
        await self._judge_own_keys(first)

    async def _judge_own_keys(self, values: dict[str, int]) -> None:
        node, ledger = self.cluster.nodes[0], self.ledger
        store, tallies = self.stores[node.name], self.tallies[node.name]
        blurred = self.skewed and self.cuts  # who is behind loses to older writes of the other side
        for key, known in ledger.known.items():
            partition = store._service.partition_of(store._service.keys.encode(key))
            value = values.get(key, 0)
            if not known.allows(value) and not blurred and not self.lonely_leaves:
                told = ("kv:store", partition) in self.lost
                assert told, f"{key} in {partition} reads {value}, but {known.acked} was acknowledged"
            total = await tallies.at(key).total()
            assert total <= known.hits_tried, f"{key} counted {total} of {known.hits_tried}: something ran twice"
            if total < known.hits_acked and not self.cuts and not self.lonely_leaves:
                told = ("partitions:tally", partition) in self.lost
                assert told, f"{key} in {partition} counted {total} of {known.hits_acked} that were acknowledged"
        if ledger.strict:
            for key, count in ledger.counts.items():
                assert values.get(key, 0) >= count.acked, f"{key} lost some of {count.acked}"

    async def _grow_old(self) -> None:
        """Everybody is back, and minutes pass."""
        self.cluster.invariants[:] = [only_under_own_right]  # who is restarted without seeds begins alone
        down = {member.name for node in self.cluster.nodes for member in node.members if member.state == "down"}
        for node in [node for node in self.cluster.stopped if node.settings.name in down]:
            await self._start_again(node)
        await self.cluster.settle()
        self._note(f"{uncollected(self.cluster.nodes)} tombstones and outcomes are to be collected")
        await self.cluster.sleep(2 * COLLECT_SECONDS + CALM_SECONDS + REST_SECONDS)
        nothing_to_collect(self.cluster.nodes)
        rested(self.cluster.nodes)


def live(seed: int, climate: Climate) -> World:
    """Live one life to its end; an AssertionError carries the log of what happened."""
    loop = SimulatedLoop()
    asyncio.set_event_loop(loop)
    world = World(seed, climate)
    try:
        with patch.object(collecting, "CALM_SECONDS", CALM_SECONDS):
            loop.run_until_complete(world.run(loop))
    except BaseException as error:
        error.add_note(f"seed {seed} in {climate} weather, {world.options}:\n" + "\n".join(world.log[-60:]))
        error.add_note(world.cluster.describe())
        raise
    finally:
        asyncio.set_event_loop(None)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    return world
