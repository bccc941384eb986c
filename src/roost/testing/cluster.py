"""A simulated cluster: whole real nodes in one process, virtual time, one seed, and a hand on every cable.

    async def test_room_survives_split(cluster: roost.testing.Cluster) -> None:
        a, b, c = await cluster.start(3)
        ...
        cluster.partition([a], [b, c]); await cluster.settle()
        cluster.heal(); await cluster.settle()

The nodes are the real ones down to their frames; only the clock, the random numbers and the network underneath are
the simulator's. The same seed gives the same run to the last frame (`trace`), in any process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import xxhash

from roost.config import Settings
from roost.net.memory import MemoryNetwork, MemoryTransport
from roost.net.transport import Transport
from roost.node import Node
from roost.runtime import Runtime
from roost.testing.loop import SimulatedLoop

__all__ = ["Cluster", "SimulatedRuntime"]

EPOCH_SECONDS = 1_700_000_000.0
CHECK_SECONDS = 0.05


class SimulatedRuntime(Runtime):
    """Virtual time, seeded chance, and a clock that can be skewed."""

    def __init__(self, name: str, seed: str) -> None:
        super().__init__()
        self.name = name
        self.rng = random.Random(seed)
        self.checks = True
        self.virtual = True
        self.skew_seconds = 0.0
        self.dead = False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        super()._ended(task)
        if not task.cancelled() and isinstance(error := task.exception(), AssertionError):
            self.loop.call_exception_handler({"message": f"{task.get_name()} failed", "exception": error})

    def wall(self) -> float:
        return EPOCH_SECONDS + self.loop.time() + self.skew_seconds

    def token(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        def unless_dead() -> None:
            if not self.dead:
                callback(*args)

        return self.loop.call_later(seconds, unless_dead)


class _Host:
    """What the cluster knows of one node."""

    def __init__(self, node: Node, skew_seconds: float) -> None:
        self.node = node
        self.runtime: SimulatedRuntime | None = None
        self.transport: MemoryTransport | None = None
        self.starts = 0
        self.skew_seconds = skew_seconds
        self.running = False


class Cluster:
    """Nodes, their network, and what may go wrong with both. All durations are in virtual seconds."""

    def __init__(self, loop: SimulatedLoop, seed: int | str = 0, **settings: Any) -> None:
        self.loop = loop
        self.seed = seed
        self.rng = random.Random(f"{seed}/cluster")
        self.network = MemoryNetwork(loop, random.Random(f"{seed}/network"), give_up_seconds=10.0)
        self.trace = xxhash.xxh3_64()
        self.network.observe = self._observe
        self.invariants: list[Callable[[list[Node]], None]] = []
        """Called every 50 ms with the running nodes; they raise AssertionError."""
        self._settings: dict[str, Any] = {"profile": "local", "partitions": 64, **settings}
        self._hosts: dict[str, _Host] = {}
        self._checker: asyncio.TimerHandle | None = None
        self._broken: Exception | None = None
        loop.set_exception_handler(self._failed)

    def __repr__(self) -> str:
        return f"<Cluster seed {self.seed!r}: {', '.join(repr(host.node) for host in self._hosts.values())}>"

    @property
    def nodes(self) -> list[Node]:
        """The running nodes."""
        return [host.node for host in self._hosts.values() if host.running]

    @property
    def stopped(self) -> list[Node]:
        """Those that crashed or left."""
        return [host.node for host in self._hosts.values() if not host.running]

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts there ever were."""
        return list(self._hosts)

    # life

    async def start(
        self, nodes: int | Iterable[str] = 1, *, seeds: Iterable[str] | None = None, **settings: Any
    ) -> list[Node]:
        """Start nodes and wait until they have settled. Without `seeds` each joins through the first running node."""
        names = [f"n{len(self._hosts) + i + 1}" for i in range(nodes)] if isinstance(nodes, int) else list(nodes)
        started = []
        for name in names:
            started.append(await self.launch(name, seeds=seeds, **settings))
        await self.settle()
        return started

    async def launch(
        self, name: str, *, seeds: Iterable[str] | None = None, skew_seconds: float = 0.0, **settings: Any
    ) -> Node:
        """Start one node without waiting for the others to agree. It has a host of its own, called as the node is."""
        return await self._launch(name, name, seeds, skew_seconds, settings)

    async def launch_twin(self, name: str, *, host: str, seeds: Iterable[str] | None = None, **settings: Any) -> Node:
        """Start a node whose name another one may have, on a host called `host`."""
        return await self._launch(host, name, seeds, 0.0, settings)

    async def _launch(
        self, host: str, name: str, seeds: Iterable[str] | None, skew_seconds: float, settings: dict[str, Any]
    ) -> Node:
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                "this test runs on another event loop than its cluster: take the marks and the automatic mode of "
                "other asyncio plugins off it; the roost plugin runs async tests that use `cluster` by itself"
            )
        if seeds is None:
            seeds = [node.address for node in self.nodes[:1]]
        given: dict[str, Any] = {**self._settings, "bind": f"{host}:7400", "seeds": list(seeds), **settings}
        node = Node(
            name,
            runtime=lambda: self._runtime(host),
            transport=lambda runtime, options: self._transport(host, runtime, options),
            handle_signals=False,
            **given,
        )
        self._hosts[host] = _Host(node, skew_seconds)
        try:
            await self._boot(host)
        except BaseException:
            del self._hosts[host]
            raise
        return node

    async def _boot(self, name: str) -> None:
        host = self._hosts[name]
        if self._checker is None:
            self._check()
        await host.node.start()
        host.running = True

    def _runtime(self, name: str) -> Runtime:
        host = self._hosts[name]
        host.starts += 1
        host.runtime = SimulatedRuntime(name, f"{self.seed}/{name}/{host.starts}")
        host.runtime.skew_seconds = host.skew_seconds
        return host.runtime

    def _transport(self, name: str, runtime: Runtime, settings: Settings) -> Transport:
        transport = self._hosts[name].transport = MemoryTransport(self.network, name, settings)
        return transport

    async def crash(self, node: Node) -> None:
        """End a node as `kill -9` does: nothing more leaves it, its links are reset by its host."""
        host = self._hosts[node.name]
        assert host.transport is not None and host.runtime is not None
        host.running = False
        host.transport.crash()
        host.runtime.dead = True
        await node.abandon()

    async def restart(self, node: Node) -> Node:
        """Start a crashed or stopped node again, under its name and with a new uid."""
        await self._boot(node.settings.name)
        return node

    async def leave(self, node: Node) -> None:
        """A graceful leave."""
        host = self._hosts[node.name]
        await node.stop()
        host.running = False

    async def close(self) -> None:
        """Stop everything. Raises what an invariant found, if nobody has been told yet."""
        if self._checker is not None:
            self._checker.cancel()
        self.heal()
        for host in self._hosts.values():
            if host.running:
                await self.crash(host.node)
        self._raise_broken()

    # faults

    def partition(self, *sides: Iterable[Node]) -> None:
        """Cut the network between these groups of nodes. Nodes in no group are cut from nobody."""
        groups = [[node.name for node in side] for side in sides]
        for i, group in enumerate(groups):
            for other in groups[i + 1 :]:
                for a in group:
                    for b in other:
                        self.network.cut(a, b)
                        self.network.cut(b, a)

    def one_way_cut(self, source: Node, target: Node) -> None:
        """Nothing of `source` reaches `target`; the other way works."""
        self.network.cut(source.name, target.name)

    def slow(self, node: Node, seconds: float) -> None:
        """Delay everything to and from a node."""
        self.network.slow[node.name] = seconds

    def lose(self, share: float) -> None:
        """Lose this share of all frames; links retransmit them, later."""
        self.network.loss = share

    def duplicate(self, share: float) -> None:
        """Deliver this share of all frames twice."""
        self.network.duplication = share

    def reset_links(self, node: Node, other: Node | None = None) -> None:
        """Break a node's open links (those to `other`), as a router does that forgot them."""
        self.network.reset_links(node.name, other.name if other is not None else None)

    def skew(self, node: Node, seconds: float) -> None:
        """Set a node's wall clock ahead (or behind, below zero)."""
        host = self._hosts[node.name]
        host.skew_seconds = seconds
        if host.runtime is not None:
            host.runtime.skew_seconds = seconds

    def skew_of(self, node: Node) -> float:
        """How far a node's wall clock is ahead."""
        return self._hosts[node.name].skew_seconds

    def heal(self) -> None:
        """Undo every cut, delay, loss and duplication. Clocks stay as they are."""
        self.network.mend()
        self.network.slow.clear()
        self.network.loss = 0.0
        self.network.duplication = 0.0

    # waiting

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)
        self._raise_broken()

    async def settle(self, seconds: float = 120.0) -> None:
        """Wait until every running node, with all that it can reach, has settled and moves nothing any more.

        Raises TimeoutError with the state of all nodes after `seconds`.
        """
        until = self.loop.time() + seconds
        while True:
            await self.sleep(CHECK_SECONDS)
            if self._quiet():
                return
            if self.loop.time() > until:
                raise TimeoutError(f"not settled after {seconds} s (seed {self.seed!r}):\n{self.describe()}")

    def _quiet(self) -> bool:
        nodes = self.nodes
        for node in nodes:
            if not node.quiet:
                return False
            expected = {
                other.name
                for other in nodes
                if self.network.reaches(node.name, other.name) and self.network.reaches(other.name, node.name)
            }
            live = {member.name: member.state for member in node.members if member.state not in ("down", "left")}
            blocked = any(other.blocklist for other in nodes) or any(
                self.network.reaches(a, b) != self.network.reaches(b, a) for a in self._hosts for b in self._hosts
            )
            if not blocked and (set(live) != expected or set(live.values()) != {"up"}):
                return False
        return True

    def describe(self) -> str:
        """One paragraph a node: what it sees."""
        lines = []
        for node in self.nodes:
            lines.append(f"{node!r} quiet={node.quiet} {node.members!r}")
            lines.extend(f"    {name}: {service}" for name, service in node.status().get("services", {}).items())
        return "\n".join(lines)

    # checking

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback of the loop, which asyncio would only log: an invariant's is everybody's."""
        error = context.get("exception")
        grave = isinstance(error, AssertionError) or (isinstance(error, Exception) and "defect" in context)
        if grave and self._broken is None:
            self._broken = error
        loop.default_exception_handler(context)

    def _observe(self, source: str, target: str, frame: bytes) -> None:
        self.trace.update(f"{self.loop.time():.9f} {source} {target} ".encode())
        self.trace.update(frame)

    def _check(self) -> None:
        self._checker = self.loop.call_later(CHECK_SECONDS, self._check)
        try:
            for invariant in self.invariants:
                invariant(self.nodes)
        except AssertionError as error:
            if self._broken is None:
                self._broken = error

    def _raise_broken(self) -> None:
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
