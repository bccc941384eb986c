"""The key/value store: typed keys and values, spread over the cluster.

A built-in handler of partitions whose commands (`kv_commands.py`) never wait, so that they run where they arrive. What
is done with one key happens one after another at its holder, and is answered when enough copies have it.

    sessions = await node.kv("sessions", Session)
    await sessions.put("s1", Session("ann"))
    await sessions.get("s1")
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

import msgspec

from roost.core.ring import Ring
from roost.errors import DeadlineExceeded, Overloaded, Unreachable
from roost.services.commands import Command
from roost.services.host import Host, NotHere
from roost.services.hosting import NOTHING, Quick, Whole
from roost.services.keys import type_arguments
from roost.services.kv_commands import (
    ABSENT,
    MISSING,
    READS,
    REQUEST_BYTES,
    TRUE,
    Many,
    ManyAnswer,
    Scan,
    Scanned,
    Swap,
    Swapped,
    commands,
    questions,
)
from roost.services.losses import PossibleLoss
from roost.services.partitions import Partition, Service
from roost.services.replication import Replication
from roost.services.routing import FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX

__all__ = ["KV", "KeyValuePartition", "Version", "Versioned", "open_kv"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R")
H = TypeVar("H", bound="KeyValuePartition[Any, Any]")
P = ParamSpec("P")

SCAN_PARTITIONS = 256
_encode = msgspec.msgpack.Encoder().encode


class KeyValuePartition(Partition[K, V]):
    """One partition of a key/value store; derive from it to add commands that read (or write) `self.items`."""


Version = tuple[int, int]
"""Of one write of one key: no other write has it. (0, 0): the key is not there."""


class Versioned(NamedTuple, Generic[V]):
    """A value as it was read, and what `replace` wants to know of it."""

    value: V | None
    version: Version


_decode_many_answer = msgspec.msgpack.Decoder(ManyAnswer).decode
_decode_scanned = msgspec.msgpack.Decoder(Scanned).decode
_decode_swapped = msgspec.msgpack.Decoder(Swapped).decode
_decode_counts = msgspec.msgpack.Decoder(tuple[list[tuple[int, int]], list[tuple[int, int, int]]]).decode


class KV(Generic[K, V]):
    """A key/value store, as this node sees it.

    Every call has the deadline `call_seconds`, and raises RoostError with `may_have_run`; `asyncio.timeout` works too.
    """

    def __init__(self, service: Service[K], name: str) -> None:
        self._service = service
        self._name = name
        self._router = service.router
        self._seconds = service.host.settings.call_seconds
        self._bytes_max = service.host.settings.message_bytes_max

    def __repr__(self) -> str:
        return f"<KV {self._name}: {self.ring!r}>"

    @property
    def ring(self) -> Ring:
        """Which member should have which partition."""
        return self._service.placement.ring

    def _command(self, key: K, value: msgspec.Raw) -> Command:
        data = self._service.keys.encode(key)
        size = len(data) + len(value)
        if size > self._bytes_max:
            text = (
                f"{key!r:.80} and its value have {size} bytes and message_bytes_max is {self._bytes_max}: store parts"
            )
            raise Overloaded(text, what="message_bytes_max", limit=self._bytes_max)
        return Command(self._service.partition_of(data), 0, data, value)

    def _value(self, value: V) -> msgspec.Raw:
        return msgspec.Raw(self._service.values.encode(value))

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """The value, or `default` if there is none. With `read="any"`, of any copy, which may be a little behind."""
        command = self._command(key, _NO_VALUE)
        if self._service.replication.read == "any":
            answer = await self._read_copy(command)
            if answer is not None:
                return self._found(answer, default)
        return self._found(await self._router.call(command, "kv.get", self._seconds, repeatable=True), default)

    async def _read_copy(self, command: Command) -> msgspec.Raw | None:
        """The answer of a copy, this node's if it has one; None where it has to be the holder's."""
        uid = self._service.a_copy_of(command.partition)
        return await self._ask(uid, "kv.copy", _encode(command)) if uid else None

    def _found(self, answer: msgspec.Raw, default: Any) -> Any:
        data = memoryview(answer)
        return default if data[0] == MISSING[0] else self._service.values.decode(data[1:])

    async def put(self, key: K, value: V) -> None:
        """Store a value. TypeError at once for one that is not of the declared type, Overloaded for one too large."""
        await self._router.call(self._command(key, self._value(value)), "kv.put", self._seconds)

    async def delete(self, key: K) -> bool:
        """Remove a key; was it there?"""
        answer = await self._router.call(self._command(key, _NO_VALUE), "kv.delete", self._seconds)
        return bytes(answer) == TRUE

    async def get_versioned(self, key: K) -> Versioned[V]:
        """The value with its version, for `replace`; the value None and the version (0, 0) if there is none."""
        answer = await self._router.call(self._command(key, _NO_VALUE), "kv.entry", self._seconds, repeatable=True)
        return self._versioned(_decode_swapped(answer))

    def _versioned(self, found: Swapped) -> Versioned[V]:
        return Versioned(self._service.values.decode(found.value) if found.value is not None else None, found.version)

    async def replace(self, key: K, value: V, version: Version) -> bool:
        """Store a value if the key still has that version; False, and nothing is changed, if it has another.

        The holder knows the request again for a minute: if a link breaks it is asked again, and runs only once.
        """
        if not (isinstance(version, tuple) and len(version) == 2 and all(type(part) is int for part in version)):
            raise TypeError(f"{version!r:.80} is no version: take it from get_versioned")
        return (await self._swap(key, value, version, self._seconds)).done

    async def put_if_absent(self, key: K, value: V) -> bool:
        """Store a value if there is none; was there none? Asked again if a link breaks, and runs only once."""
        return await self.replace(key, value, ABSENT)

    async def update(self, key: K, function: Callable[[V | None], V]) -> V:
        """Store what `function` makes of the value (None if there is none), atomically; returns what was stored.

        The function runs here, again for every write of somebody else's that comes in between, so it must have no
        effects of its own. What it raises ends the update, and nothing is changed. Asked again if a link breaks, and
        runs only once; after a DeadlineExceeded with `may_have_run` nobody knows.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r:.80} is async: `update` wants a plain function of the value")
        monotonic = self._service.host.runtime.monotonic
        until = monotonic() + self._seconds
        found = await self.get_versioned(key)
        while True:
            value = function(found.value)
            swapped = await self._swap(key, value, found.version, max(until - monotonic(), 0.001))
            if swapped.done:
                return value
            found = self._versioned(swapped)
            if monotonic() >= until:
                text = f"{key!r:.80} was changed by others again and again within {self._seconds} s; a retry is safe"
                raise DeadlineExceeded(text, elapsed=self._seconds, may_have_run=False)

    async def _swap(self, key: K, value: V, version: Version, seconds: float) -> Swapped:
        host = self._service.host
        request = Swap(host.runtime.token(REQUEST_BYTES), version, self._value(value))
        command = self._command(key, msgspec.Raw(_encode(request)))
        return _decode_swapped(await self._router.call(command, "kv.swap", seconds, repeatable=True))

    async def put_many(self, values: Mapping[K, V]) -> None:
        """Store many values, in as few messages as their bytes allow. Not atomic: if it raises, some may be stored."""
        commands = [self._command(key, self._value(value)) for key, value in values.items()]
        await self._call_many("kv.put", commands)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those keys that exist, asked for in as few messages as their bytes allow."""
        wanted = list(dict.fromkeys(keys))
        answers = await self._call_many("kv.get", [self._command(key, _NO_VALUE) for key in wanted])
        found: dict[K, V] = {}
        for key, answer in zip(wanted, answers, strict=True):
            value = self._found(answer, _NOT_THERE)
            if value is not _NOT_THERE:
                found[key] = value
        return found

    async def _call_many(self, method: str, commands: list[Command]) -> list[msgspec.Raw]:
        return await self._router.call_many(
            commands,
            method,
            "kv.many",
            lambda some: _encode(Many(method, some)),
            lambda body: _decode_many_answer(body).answers,
            self._seconds,
            repeatable=method in READS,
        )

    async def size(self) -> int:
        """How many keys there are; each partition is counted once, not all at one moment."""
        total = 0
        pending = dict.fromkeys(range(self._service.host.settings.partitions))
        async for uid, partitions in self._rounds(pending, len(pending)):
            body = await self._ask(uid, "kv.size", _encode(partitions))
            if body is None:
                continue
            counts, elsewhere = _decode_counts(body)
            for partition, count in counts:
                total += count
                del pending[partition]
            for partition, epoch, holder in elsewhere:
                self._router.learn(partition, epoch, holder)
        return total

    async def scan(self, prefix: Any = None) -> AsyncIterator[tuple[K, V]]:
        """All keys and values (those that begin with `prefix`), in no order, a bounded batch at a time.

        A key that exists throughout comes exactly once, whatever moves meanwhile.
        """
        service = self._service
        raw = msgspec.Raw(_encode(prefix))
        pending: dict[int, bytes] = dict.fromkeys(range(service.host.settings.partitions), b"")
        async for uid, partitions in self._rounds(pending, SCAN_PARTITIONS):
            positions = [(partition, pending[partition]) for partition in partitions]
            body = await self._ask(uid, "kv.scan", _encode(Scan(positions, raw)))
            if body is None:
                continue
            scanned = _decode_scanned(body)
            for partition in scanned.done:
                del pending[partition]
            for partition, after in scanned.positions:
                pending[partition] = after
            for partition, epoch, holder in scanned.elsewhere:
                self._router.learn(partition, epoch, holder)
            for key, value in scanned.items:
                yield service.keys.decode(key), service.values.decode(value)

    async def _ask(self, uid: int, method: str, body: bytes) -> msgspec.Raw | None:
        """Ask a node what harms nothing if asked twice; None if it cannot be reached."""
        try:
            return await self._service.host.call(uid, self._service.name, method, body, seconds=self._seconds)
        except (Unreachable, NotHere):
            return None

    async def _rounds(self, pending: Mapping[int, object], count_max: int) -> AsyncIterator[tuple[int, list[int]]]:
        """(node, its pending partitions) until none is pending. The caller takes out what is done."""
        monotonic = self._service.host.runtime.monotonic
        left, pause, until = len(pending), FIRST_PAUSE_SECONDS, monotonic() + self._seconds
        before: object = None
        while pending:
            for uid, partitions in self._router.by_target(dict.fromkeys(pending)).items():
                for start in range(0, len(partitions), count_max):
                    yield uid, partitions[start : start + count_max]
            now_pending = dict(pending)
            if len(pending) < left or now_pending != before:
                left, pause, until = len(pending), FIRST_PAUSE_SECONDS, monotonic() + self._seconds
            elif monotonic() + pause > until:
                text = f"{left} partitions of {self._name} have no holder that answers; a retry is safe"
                raise DeadlineExceeded(text, elapsed=self._seconds, may_have_run=False)
            else:
                await self._router.pause(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
            before = now_pending

    @overload
    async def gather(
        self, command: Callable[Concatenate[H, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> dict[int, R]: ...
    @overload
    async def gather(
        self, command: Callable[Concatenate[H, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> dict[int, R]: ...
    async def gather(self, command: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[int, Any]:
        """Run a command of the handler once in every partition, wherever it is just then; the results by partition."""
        found: dict[int, Any] = await self._service.gather(command, args, kwargs)
        return found

    def losses(self) -> AsyncIterator[PossibleLoss]:
        """The partitions that this node took over without enough of their copies: those there have been, and each as it
        comes, until the node stops. A node that only calls sees none.
        """
        return self._service.losses()

    def status(self) -> dict[str, Any]:
        """For `roost status`."""
        return self._service.status()


_NO_VALUE = msgspec.Raw(NOTHING)
_NOT_THERE = object()


async def open_kv(
    host: Host,
    name: str,
    value: type[V],
    *,
    key: Any = None,
    handler: type[Any] | None = None,
    host_here: bool = True,
    replication: Replication | None = None,
) -> KV[Any, V]:
    """Host the store on this node, or only call it. `key` is str unless the handler or the caller says otherwise.

    Raises ConfigError for types that cannot travel, or if another host has other options.
    """
    kind: type[Any] = KeyValuePartition if handler is None else handler
    kinds = type_arguments(kind, KeyValuePartition)
    key_kind = key if key is not None else (kinds[0] if kinds else str)
    library = cast(Any, (Partition, KeyValuePartition, Generic))
    quick: dict[str, Quick] = {}
    whole: dict[str, Whole] = {}
    service: Service[Any] = Service(
        host,
        f"kv:{name}",
        kind,
        library,
        key_kind,
        value,
        host_here=host_here,
        replication=replication if replication is not None else Replication(),
        quick=quick,
        reads=READS,
        whole=whole,
    )
    if service.hosting is not None:
        quick.update(commands(service.hosting))
        whole.update(questions(service.keys, quick))
    service.start()
    return KV(service, name)
