"""What the conformance suite needs of a transport: to make one, to disturb its network, and a loop to run on.

An adapter joins the suite with a subclass of `Harness` and a line in `HARNESSES`. A harness is made anew for each test,
outside of any loop; `run` starts the loop, and everything else is called while it runs.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import roost
from roost.config import Settings
from roost.net.memory import MemoryNetwork, MemoryTransport
from roost.net.tcp import TcpTransport
from roost.net.transport import Transport
from roost.runtime import Runtime
from roost.testing import SimulatedLoop
from roost.testing.cluster import SimulatedRuntime
from tests.net.conformance.relay import Relay, RelayedTransport
from tests.net.ends import CONTEXTS, LOOPS, SECONDS_MAX, descriptors, eventually

__all__ = ["HARNESSES", "Harness", "on_every_transport"]


class Harness(ABC):
    """One adapter under test. Hosts are named by the tests; each has at most one transport at a time."""

    secret = ""
    """Of its nodes; a transport that encrypts needs one."""

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a test to its end on the adapter's loop."""

    @abstractmethod
    def transport(self, host: str, runtime: Runtime, settings: Settings) -> Transport:
        """A new transport on that host."""

    @abstractmethod
    def nowhere(self) -> str:
        """An address of a host that lives, where nothing listens."""

    @abstractmethod
    def cut(self) -> None:
        """From now on nothing gets from any host to another, in either direction, and nobody is told."""

    @abstractmethod
    def heal(self) -> None:
        """Undo `cut`; what was on its way goes on."""

    @abstractmethod
    def break_links(self) -> None:
        """Break every link as a router does that forgot it: what was on its way is lost, both ends are told."""

    def runtime(self, host: str) -> Runtime:
        """Time and chance of that host."""
        return Runtime()

    def bind(self, host: str) -> str:
        """What the host's transport listens on, by a port of its own choice."""
        return "127.0.0.1:0"

    def leftovers(self) -> int:
        """How much there is of what must not become more by a test: descriptors, links, addresses."""
        return 0

    def settings(self, host: str, **changes: Any) -> Settings:
        return Settings(name=host, bind=self.bind(host), **changes)

    def node(self, name: str, *seeds: roost.Node, **settings: Any) -> roost.Node:
        """A node on this transport, not yet started, with a host of its own."""
        given: dict[str, Any] = {
            "bind": self.bind(name),
            "seeds": [seed.address for seed in seeds],
            "profile": "local",
            "partitions": 64,
            **settings,
        }
        if self.secret:
            given["secret"] = self.secret
        return roost.Node(
            name,
            runtime=lambda: self.runtime(name),
            transport=lambda runtime, options: self.transport(name, runtime, options),
            handle_signals=False,
            **given,
        )


class TcpHarness(Harness):
    """TCP on the loopback, through a relay that can stand still, or hang up."""

    def __init__(self, loop_name: str, *, tls: bool) -> None:
        self._loop_factory = LOOPS[loop_name]
        self._tls = CONTEXTS if tls else None
        self._relay = Relay()
        self.secret = secrets.token_urlsafe(32) if tls else ""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(work)

    def transport(self, host: str, runtime: Runtime, settings: Settings) -> Transport:
        return RelayedTransport(TcpTransport(runtime, settings, self._tls), self._relay)

    def nowhere(self) -> str:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{unused.getsockname()[1]}"

    def cut(self) -> None:
        self._relay.stand_still()

    def heal(self) -> None:
        self._relay.go_on()

    def break_links(self) -> None:
        self._relay.hang_up()

    def leftovers(self) -> int:
        return descriptors()


class MemoryHarness(Harness):
    """The simulated network, in virtual time; `loss` of all frames are lost, doubled and overtaken besides."""

    def __init__(self, loss: float = 0.0) -> None:
        self._loss = loss
        self._loop = SimulatedLoop()
        self._network = MemoryNetwork(self._loop, random.Random(1))
        self._network.loss = self._network.duplication = loss
        self._network.jitter_seconds += loss
        self._hosts: dict[str, int] = {}

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(work)

    def transport(self, host: str, runtime: Runtime, settings: Settings) -> Transport:
        return MemoryTransport(self._network, host, settings)

    def runtime(self, host: str) -> Runtime:
        self._hosts[host] = self._hosts.get(host, 0) + 1
        return SimulatedRuntime(host, f"{host}/{self._hosts[host]}")

    def bind(self, host: str) -> str:
        return f"{host}:0"

    def nowhere(self) -> str:
        return "nowhere:1"

    def cut(self) -> None:
        for source in self._hosts:
            for target in self._hosts:
                if source != target:
                    self._network.cut(source, target)

    def heal(self) -> None:
        self._network.mend()

    def break_links(self) -> None:
        for host in self._hosts:
            self._network.reset_links(host)

    def leftovers(self) -> int:
        return len(self._network._links) + len(self._network._hosts)


HARNESSES: dict[str, Callable[[], Harness]] = {
    "tcp-uvloop": lambda: TcpHarness("uvloop", tls=False),
    "tcp-asyncio": lambda: TcpHarness("asyncio", tls=False),
    "tls-uvloop": lambda: TcpHarness("uvloop", tls=True),
    "tls-asyncio": lambda: TcpHarness("asyncio", tls=True),
    "memory": MemoryHarness,
    "memory-stormy": lambda: MemoryHarness(loss=0.02),
}
"""Every adapter that must pass, each in every form that it has."""


def on_every_transport(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test of a `harness` on each of `HARNESSES`; it must leave no task and nothing else behind."""

    async def body(*args: object, harness: Harness, **kwargs: object) -> None:
        before = harness.leftovers()
        try:
            await asyncio.wait_for(test(*args, harness=harness, **kwargs), SECONDS_MAX)
        finally:
            harness.heal()
        await eventually(lambda: harness.leftovers() <= before)
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    @functools.wraps(test)
    def run(*args: object, harness_name: str, **kwargs: object) -> None:
        harness = HARNESSES[harness_name]()
        harness.run(body(*args, harness=harness, **kwargs))

    signature = inspect.signature(test)
    parameters = [each for each in signature.parameters.values() if each.name != "harness"]
    parameters.append(inspect.Parameter("harness_name", inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what pytest reads
    marked: Callable[..., None] = pytest.mark.parametrize("harness_name", list(HARNESSES))(run)
    return marked
