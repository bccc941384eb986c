"""`Node`: what users hold. Wiring and lifetime, nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from roost.config import Options, Settings
from roost.errors import ConfigError, RoostError
from roost.messages import Message, Request, pid_of
from roost.net.blocklist import Blocklist
from roost.net.certificates import tls_of
from roost.net.keyring import Keyring
from roost.net.tcp import TcpTransport
from roost.net.transport import Transport
from roost.peerfile import read_peers
from roost.run import Run
from roost.runtime import Runtime
from roost.services.inbox import Inbox
from roost.services.kv import KV, KeyValuePartition, open_kv
from roost.services.members import Members
from roost.services.messaging import Answering, Delivery
from roost.services.outbox import Outbox
from roost.services.partitions import Partition, Partitions, open_partitions
from roost.services.replication import Replication, ReplicationOptions, StoreOptions
from roost.settings import load
from roost.version import VERSION

__all__ = ["Node"]

log = logging.getLogger("roost.node")

BUSY = ("moving", "awaiting", "copying", "left_over")
"""What a service's status counts as long as something moves."""

H = TypeVar("H", bound=Partition[Any, Any])
K = TypeVar("K")
M = TypeVar("M")
Q = TypeVar("Q", bound=Request[Any])
R = TypeVar("R")
V = TypeVar("V")


class Node:
    """One node of a cluster, used with `async with`.

    Settings come from `roost.toml`, `ROOST_...` variables and these arguments, later ones over earlier ones; see
    `roost.config.Settings` for all of them with units and defaults. Starting raises, at once and with what to do:
    ConfigError (settings, address, port), AuthError (wrong secret), NameTaken, VersionSkew. A seed that does not
    answer is no error: the node goes on trying, and starts alone after `form_alone_seconds`.

    `services` are opened at each start, before the node joins, so that it hosts them from its first moment on:
    `services=[lambda node: node.kv("sessions", Session)]`.

    A node may start and stop any number of times; each start is a new member with a new uid.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        config: str | None = None,
        services: Sequence[Callable[[Node], Awaitable[object]]] = (),
        runtime: Callable[[], Runtime] | None = None,
        transport: Callable[[Runtime, Settings], Transport] | None = None,
        handle_signals: bool = True,
        _listed: Iterable[tuple[str, object, str]] = (),
        **settings: Unpack[Options],
    ) -> None:
        given: dict[str, object] = {"name": name, **settings}
        self.settings, self.settings_from = load(config, None, given, listed=_listed, check_exposure=transport is None)
        self._blocklist = Blocklist()
        self._openers = tuple(services)
        self._make_runtime = runtime or Runtime
        self._make_transport = transport
        self._handle_signals = handle_signals
        self._run: Run | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._failure: RoostError | None = None
        self._services: dict[str, KV[Any, Any] | Partitions[Any, Any]] = {}

    @classmethod
    def from_config(cls, path: str | None = None) -> Self:
        """A node whose settings all come from `roost.toml` (or `path`) and the environment."""
        return cls(config=path)

    @classmethod
    def from_peer_file(
        cls,
        path: str,
        *,
        pid: int,
        services: Sequence[Callable[[Node], Awaitable[object]]] = (),
        handle_signals: bool = True,
        **settings: Unpack[Options],
    ) -> Self:
        """The node `pid` of a file that lists the nodes of a cluster, each `{"Pid": 1729, "Addr": "10.0.0.4:7400"}`.

        The objects may stand one after the other, as one a line, or in a JSON array. A pid is the node's name; its
        address is what it binds to and what others connect to, and the others of the file are its seeds. `settings`
        may say otherwise. Raises ConfigError with file and line where the file is wrong, and with the pids that there
        are if `pid` is none of them; addresses beyond loopback need a secret, as always.
        """
        own, others = read_peers(path, pid)
        listed = [
            ("name", str(pid), own.where),
            ("bind", own.address, own.where),
            ("advertise", own.address, own.where),
            ("seeds", [other.address for other in others], path),
        ]
        return cls(services=services, handle_signals=handle_signals, _listed=listed, **settings)

    def __repr__(self) -> str:
        run = self._run
        if run is None:
            return f"<Node {self.settings.name or '(unnamed)'}: stopped>"
        return f"<Node {run.name} at {self.address}: {len(self.members)} members{', settled' if self.settled else ''}>"

    # life

    async def start(self) -> None:
        """Join the cluster; returns once this node is up."""
        if self._run is not None and self._run.runtime.loop.is_closed():
            self._run = self._leaving = None
        if self._run is not None:
            raise ConfigError(f"{self.name} runs already", todo="stop it first")
        settings = self.settings
        keyring = Keyring.from_settings(settings)
        runtime = self._make_runtime()
        if self._make_transport is not None:
            transport = self._make_transport(runtime, settings)
        else:
            transport = TcpTransport(runtime, settings, tls_of(settings, secured=keyring is not None))
        run = Run(
            settings,
            runtime,
            transport,
            keyring,
            blocklist=self._blocklist,
            library=VERSION,
            ended=self._ended,
        )
        self._failure = None
        self._services = {}
        self._run = run
        try:
            run.serve_admin(self.status)
            for opener in self._openers:
                await opener(self)
            await run.start()
        except BaseException:
            self._run = None
            await run.close()
            raise
        self._catch_sigterm()

    async def stop(self) -> None:
        """Leave gracefully: hand everything off within `leave_seconds`, say good-bye, close. Twice does nothing."""
        run = self._run
        if run is None:
            return
        if run.runtime.loop.is_closed():  # its loop ended without it: nothing of it runs, and nobody can be told
            self._run = self._leaving = None
            return
        if self._leaving is None:
            self._leaving = run.runtime.loop.create_task(self._leave(run), name="leave")
        await asyncio.shield(self._leaving)

    leave = stop

    async def _leave(self, run: Run) -> None:
        try:
            await run.leave()
        finally:
            if not _ending:  # else the handler stays until all have left
                self._release_sigterm()
            self._leaving = None
            if self._run is run:
                self._run = None

    async def abandon(self) -> None:
        """End without a word, as a crash would: nothing is handed off, the others find out by themselves."""
        run, self._run = self._run, None
        if run is not None:
            self._release_sigterm()
            await run.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.stop()
        if self._failure is not None and error is None:
            raise self._failure

    def _ended(self, error: RoostError) -> None:
        """The cluster has no place for this node any more (its name is another's)."""
        log.error("%s stops: %s", self.name, error)
        self._failure = error
        run = self._run
        if run is not None:
            run.runtime.loop.create_task(self.stop(), name="stop")

    def _catch_sigterm(self) -> None:
        """SIGTERM means leave, for every node of this loop, unless the application handles it itself."""
        if not self._handle_signals or threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        nodes = _leaving_on_sigterm.setdefault(loop, [])
        if not nodes and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGTERM, _on_sigterm, loop)
        elif not nodes:
            return
        nodes.append(self)

    def _release_sigterm(self) -> None:
        loop = asyncio.get_running_loop()
        nodes = _leaving_on_sigterm.get(loop, [])
        if self in nodes:
            nodes.remove(self)
            if not nodes:
                loop.remove_signal_handler(signal.SIGTERM)

    @property
    def _running(self) -> Run:
        if self._run is None:
            raise ConfigError(f"{self.settings.name or 'the node'} is not running", todo="use `async with` or start()")
        return self._run

    # who is there

    @property
    def name(self) -> str:
        return self._run.name if self._run is not None else self.settings.name

    @property
    def pid(self) -> int | None:
        """The number that is this node's name, as with all nodes of a peer file; None if its name is no number."""
        return pid_of(self.name)

    @property
    def uid(self) -> int:
        """Of this run."""
        return self._running.uid

    @property
    def address(self) -> str:
        """host:port that others connect to."""
        return self._running.members.me.address

    @property
    def members(self) -> Members:
        """The cluster, live: iterable, `watch()`, `[name]`."""
        return self._running.members

    @property
    def peers(self) -> list[str]:
        """The names of all other known members, up or not."""
        return sorted({member.name for member in self.members} - {self.name})

    @property
    def blocklist(self) -> MutableSet[str]:
        """The names of nodes that this one is cut off from, as by a broken network, until they are taken out again.

        For tests and drills. Nothing is sent to such a node or accepted from it, links with it are cut and not opened,
        and what is addressed to it raises Unreachable at once. Others may still reach it, and tell that it is alive.
        It may be changed at any time, and is kept when the node stops.
        """
        return self._blocklist

    @blocklist.setter
    def blocklist(self, names: AbstractSet[str]) -> None:
        wanted = sorted(str(name) for name in names)
        for name in list(self._blocklist):
            if name not in wanted:
                self._blocklist.discard(name)
        for name in wanted:
            self._blocklist.add(name)

    @property
    def settled(self) -> bool:
        return self._running.members.settled

    @property
    def quiet(self) -> bool:
        """Settled, and nothing moves."""
        if self._run is None or not self._run.members.settled:
            return False
        status = [service.status() for service in self._services.values()]
        return not any(each.get(what) for each in status if each.get("acts", True) for what in BUSY)

    async def ready(self, count: int) -> None:
        """Wait until `count` members are up and settled, this one among them."""
        await self._running.members.ready(count)

    # messages

    def send(self, to: str, message: Message) -> Coroutine[Any, Any, None]:
        """Send a message into the inbox of its kind on the node `to`: at most once, in order per receiver.

        Returns when it is on its way; waits while that receiver has too much unread. Raises Unreachable, Overloaded:
        nothing was sent then, a retry is safe.
        """
        return self._running.messaging.send(to, message)

    def ask(self, to: str, request: Request[R], *, timeout: float | None = None) -> Coroutine[Any, Any, R]:
        """Ask the node `to` and await its answer, at most `timeout` seconds (`call_seconds`).

        Raises Unreachable, DeadlineExceeded, Overloaded, NotFound (nobody answers this there), RemoteError (the
        handler raised); `.may_have_run` says whether a retry is safe. Cancelling cancels the handler.
        """
        return self._running.messaging.ask(to, request, timeout)

    async def broadcast(self, message: Message, *, timeout: float | None = None) -> Delivery:
        """Put a message into the inbox of every other member; says who has it and, with reasons, who has not."""
        return await self._running.messaging.broadcast(message, timeout)

    @property
    def outbox(self) -> Outbox:
        """Where envelopes are put: `await node.outbox.put(roost.Envelope(to="chat-2", id=1729, body="Hi There!"))`."""
        return self._running.messaging.outbox

    @overload
    def inbox(self) -> Inbox[Any]: ...
    @overload
    def inbox(self, body: type[M]) -> Inbox[M]: ...
    def inbox(self, body: Any = Any) -> Inbox[Any]:
        """What others send here, as an async iterator of envelopes: the messages of one class.

        With the type of another body, such as `str` or `list[int]`: what came by envelope (`outbox`) with such a body.
        Without a type: all that came by envelope and has no inbox of its own type; classes come as plain data there.

        From the first call on, until the node stops, an inbox keeps what arrives, `inbox_messages_max` from each
        sender; what nobody reads is dropped and counted. Open it in `services` to miss nothing from the start on.
        """
        return self._running.messaging.inbox(body)

    def answer(self, request: type[Q]) -> Answering[Q]:
        """Decorator: the function answers `ask` of this class here. One a class; plain or async."""
        return self._running.messaging.answer(request)

    # keys

    @overload
    async def kv(
        self,
        name: str,
        value: type[V],
        *,
        handler: type[KeyValuePartition[Any, V]] | None = None,
        host: bool = True,
        **options: Unpack[StoreOptions],
    ) -> KV[str, V]: ...
    @overload
    async def kv(
        self,
        name: str,
        value: type[V],
        *,
        key: type[K],
        handler: type[KeyValuePartition[Any, V]] | None = None,
        host: bool = True,
        **options: Unpack[StoreOptions],
    ) -> KV[K, V]: ...
    async def kv(
        self,
        name: str,
        value: type[V],
        *,
        key: type[Any] = str,
        handler: type[KeyValuePartition[Any, V]] | None = None,
        host: bool = True,
        **options: Unpack[StoreOptions],
    ) -> KV[Any, V]:
        """The key/value store `name`: values of one class, spread over the nodes that host it, used from any node.

        `key` is the keys' type (str): any hashable type that msgspec knows. A `handler`, a `KeyValuePartition` of the
        user's, adds commands for `gather`. With `host=False` this node only calls. Open it once on every node that
        shall host it, with the same options: others are a ConfigError. Returns when the live members know that this
        node hosts it.

        `replicas` (1) copies are kept of everything, the holder's among them, in different zones first. A write is
        answered when "one" of them has it, the "majority" of them (the default), or "all": what was answered survives
        that many crashes less one, between repairs. If too few copies are there, calls wait, and then raise
        Unavailable. With one copy, a node that crashes takes its part with it. `read="any"` reads any copy, this
        node's first, which may be a little behind. `split` says who goes on in a split ("keep-both"): see
        docs/splits.md; "static-quorum" needs a `quorum`.
        """
        run = self._running
        replication = Replication.of(options)
        store = await open_kv(run, name, value, key=key, handler=handler, host_here=host, replication=replication)
        self._services[f"kv:{name}"] = store
        await run.members.agree()
        return store

    async def partitions(
        self,
        name: str,
        handler: type[H],
        *,
        host: bool = True,
        **options: Unpack[ReplicationOptions],
    ) -> Partitions[Any, H]:
        """The partitioned service `name`, whose commands are the async methods of `handler` (a `Partition[K, V]`).

        Open it once on every node that shall host it; `host=False` only calls. See `roost.Partition`; the options are
        those of `kv`.
        """
        run = self._running
        service = await open_partitions(run, name, handler, host_here=host, replication=Replication.of(options))
        self._services[f"partitions:{name}"] = service
        await run.members.agree()
        return service

    # what operators see

    def status(self) -> dict[str, Any]:
        """What `roost status` prints: JSON types only."""
        run = self._running
        return {
            "node": run.name,
            "uid": f"{run.uid:016x}",
            "address": self.address,
            "cluster": self.settings.cluster,
            "version": VERSION,
            "settled": run.members.settled,
            "local_health": run.members.local_health,
            "loop_lag_seconds": run.members.loop_lag_seconds,
            "members": [
                {
                    "name": member.name,
                    "uid": f"{member.uid:016x}",
                    "state": member.state,
                    "resting": member.resting,
                    "address": member.address,
                    "zone": member.zone,
                    "roles": list(member.roles),
                    "services": sorted(member.services),
                }
                for member in run.members
            ],
            "messages_dropped": run.messaging.dropped,
            "blocked_loop": run.watch.status() if run.watch is not None else None,
            "services": {name: service.status() for name, service in self._services.items()},
        }


_leaving_on_sigterm: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Node]] = WeakKeyDictionary()
_ending: set[asyncio.Task[None]] = set()


def _on_sigterm(loop: asyncio.AbstractEventLoop) -> None:
    """Let every node of the loop leave, then end the process as the signal would have."""

    async def leave_and_end() -> None:
        nodes = list(_leaving_on_sigterm.get(loop, []))
        log.info("SIGTERM: %s leave", ", ".join(node.name for node in nodes))
        await asyncio.gather(*(node.stop() for node in nodes), return_exceptions=True)
        loop.remove_signal_handler(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    if not _ending:
        _ending.add(loop.create_task(leave_and_end(), name="leave"))
