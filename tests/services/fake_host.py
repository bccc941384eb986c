"""Several hosts in one process: virtual time, a network with delays from a seed, in order for each pair of nodes.

Views spread with delays of their own, so that nodes disagree for a while, as they do in a cluster.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from roost.config import Settings
from roost.core.gossip import Entry, Health, State
from roost.eager import SUSPENDED, Eager
from roost.errors import ConfigError, DeadlineExceeded, NotFound, Unreachable
from roost.net.failures import from_failure, to_failure
from roost.runtime import Runtime
from roost.services.host import Body, Handler
from roost.testing.loop import SimulatedLoop
from roost.wire.protocol import Call

__all__ = ["FakeHost", "Network", "run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()


class FakeHost:
    """One node's port, as `services/host.py` wants it."""

    def __init__(self, network: Network, name: str, uid: int, **settings: Any) -> None:
        self.network = network
        self.name = name
        self.uid = uid
        self.settings = Settings(name=name, **settings)
        self.runtime = Runtime()
        self.runtime.rng = random.Random(uid)
        self.runtime.wall = lambda: 1.7e9 + self.runtime.monotonic()  # type: ignore[method-assign]  # virtual time
        self.placement_seed = 4711
        self.eager = Eager(self.runtime)
        self.alive = True
        self.settled = True
        self.closed = False
        self.handlers: dict[str, Handler] = {}
        self.known: dict[int, Entry] = {}
        self.watchers: list[Callable[[], None]] = []
        self.drains: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def entries(self) -> Sequence[Entry]:
        return sorted(self.known.values(), key=lambda entry: (entry.name, entry.uid))

    def call(self, uid: int, service: str, method: str, body: Body, *, seconds: float) -> asyncio.Future[msgspec.Raw]:
        done: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        entry = self.known.get(uid)
        if entry is None or entry.health is Health.DOWN or entry.state == "left":
            done.set_exception(Unreachable(f"{uid} is not there"))
            return done
        call = Call(1, service, method, msgspec.Raw(bytes(body)), int(seconds * 1000))
        late = DeadlineExceeded(f"no answer of {entry.name} to {method}", elapsed=seconds)
        timer = self.runtime.call_later(seconds, fail, done, late)
        done.add_done_callback(lambda _: timer.cancel())
        self.network.send(self, uid, call, done)
        return done

    def cast(self, uid: int, service: str, method: str, body: Body) -> None:
        self.call(uid, service, method, body, seconds=10).add_done_callback(lambda done: done.exception())

    def serve(self, service: str, handler: Handler) -> None:
        if service in self.handlers:
            raise ConfigError(f"{service} is served already")
        self.handlers[service] = handler

    def announce(self, service: str, digest: int) -> None:
        for entry in self.entries():
            if entry.services.get(service, digest) != digest:
                raise ConfigError(f"{service} has other options on {entry.name}")
        mine = self.known[self.uid]
        self.network.publish(msgspec.structs.replace(mine, services={**mine.services, service: digest}))

    def on_view(self, callback: Callable[[], None]) -> None:
        self.watchers.append(callback)

    def on_leave(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.drains.append(drain)

    def see(self, entry: Entry) -> None:
        known = self.known.get(entry.uid)
        if self.alive and (known is None or known.order < entry.order):
            self.known[entry.uid] = entry
            for watcher in self.watchers:
                watcher()

    async def leave(self) -> None:
        self.network.publish(self.known[self.uid], state="leaving")
        for drain in self.drains:
            await drain()
        await self.network.sleep(0.02)
        self.network.publish(self.known[self.uid], state="left")
        self.network.stop(self)

    def crash(self) -> None:
        entry = self.known[self.uid]
        self.network.stop(self)
        self.network.publish(entry, health=Health.DOWN)


def fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


class Network:
    """All hosts, and the wires between them."""

    def __init__(self, seed: int, **settings: Any) -> None:
        self.rng = random.Random(seed)
        self.settings: dict[str, Any] = {"partitions": 32, **settings}
        self.hosts: dict[int, FakeHost] = {}
        self.last: dict[tuple[int, int], float] = {}
        self.under_way: dict[int, dict[asyncio.Future[msgspec.Raw], None]] = {}
        self.numbers = itertools.count(1)
        self.apart = False
        """Nobody sees anybody, until they `meet`."""
        self.sent = 0
        """Commands; what the machines say to each other is not counted."""

    def host(self, name: str) -> FakeHost:
        """A node that is up and knows the others (unless all are `apart`)."""
        number = next(self.numbers)
        host = FakeHost(self, name, number * 1000 + self.rng.randrange(1000), **self.settings)
        entry = Entry(name, host.uid, number, 1, "up", Health.ALIVE, name)
        known = {} if self.apart else {uid: one for other in self.living() for uid, one in other.known.items()}
        host.known = {**known, host.uid: entry}
        self.hosts[host.uid] = host
        self.publish(entry)
        return host

    def living(self) -> list[FakeHost]:
        return [host for host in self.hosts.values() if host.alive]

    def publish(self, entry: Entry, *, state: State | None = None, health: Health | None = None) -> None:
        entry = msgspec.structs.replace(
            entry,
            incarnation=entry.incarnation + 1,
            state=state or entry.state,
            health=health if health is not None else entry.health,
        )
        for host in self.living():
            if host.uid == entry.uid:
                host.see(entry)
            elif not self.apart:
                asyncio.get_running_loop().call_later(self.rng.uniform(0.001, 0.1), host.see, entry)

    def meet(self) -> None:
        """All see all."""
        self.apart = False
        for one, other in itertools.permutations(self.living(), 2):
            for entry in list(one.known.values()):
                asyncio.get_running_loop().call_later(self.rng.uniform(0.001, 0.1), other.see, entry)

    def send(self, source: FakeHost, uid: int, call: Call, done: asyncio.Future[msgspec.Raw]) -> None:
        self.sent += call.method != "~"
        self.under_way.setdefault(uid, {})[done] = None
        done.add_done_callback(lambda ended: self.under_way[uid].pop(ended, None))
        self.after_delay(source.uid, uid, self.deliver, source.uid, uid, call, done)

    def after_delay(self, source: int, target: int, callback: Callable[..., None], *args: Any) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + (1e-6 if source == target else self.rng.uniform(0.0001, 0.003))
        at = max(at, self.last.get((source, target), 0.0) + 1e-9)
        self.last[source, target] = at
        loop.call_at(at, callback, *args)

    def deliver(self, source: int, uid: int, call: Call, done: asyncio.Future[msgspec.Raw]) -> None:
        target = self.hosts[uid]
        if not target.alive:
            fail(done, Unreachable(f"{target.name} is gone", node=target.name, may_have_run=True))
            return
        if done.cancelled():
            return

        def finish(_: Any, result: Any, error: BaseException | None) -> None:
            if target.alive:
                self.after_delay(uid, source, self.answer, done, result, error, target.name)

        try:
            handler = target.handlers.get(call.service)
            if handler is None:
                raise NotFound(f"{target.name} does not serve {call.service}", name=call.service)
            answer: Any = handler(source, call)
            if not isinstance(answer, bytes | msgspec.Raw):
                answer = target.eager.step(answer, finish, None)
        except Exception as error:
            finish(None, None, error)
            return
        if answer is not SUSPENDED:
            finish(None, answer, None)
            return
        running = target.eager.task
        assert running is not None
        done.add_done_callback(lambda ended: running.cancel() if ended.cancelled() else None)

    def answer(self, done: asyncio.Future[msgspec.Raw], result: Any, error: BaseException | None, name: str) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(from_failure(to_failure(1, error), name))
        else:
            done.set_result(msgspec.Raw(bytes(result)))

    def stop(self, host: FakeHost) -> None:
        host.alive = False
        for done in list(self.under_way.get(host.uid, ())):
            fail(done, Unreachable(f"{host.name} is gone", node=host.name, may_have_run=True))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # virtual
