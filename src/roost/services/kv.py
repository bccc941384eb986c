"""The key/value store: typed keys and values, spread over the cluster.

A built-in handler of partitions whose commands never wait, so that they run where they arrive. `put`, `get` and
`delete` of one key happen one after another at its holder. Values travel as bytes that the holder does not look into.

    sessions = await node.kv("sessions", Session)
    await sessions.put("s1", Session("ann"))
    await sessions.get("s1")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

import msgspec

from roost.core.ring import Ring
from roost.errors import DeadlineExceeded, Overloaded, Unreachable
from roost.services.commands import Command
from roost.services.host import Host, NotHere
from roost.services.hosting import Hosting, Quick, Whole
from roost.services.keys import KeyCodec, type_arguments
from roost.services.lanes import Lane
from roost.services.partitions import Partition, Service
from roost.services.routing import FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX

__all__ = ["KV", "KeyValuePartition", "open_kv"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
R = TypeVar("R")
H = TypeVar("H", bound="KeyValuePartition[Any, Any]")
P = ParamSpec("P")

MISSING = b"\x90"
FOUND = b"\x91"
"""An answer is an empty array, or an array of one value: so a stored None is not a missing one."""
TRUE, FALSE, NOTHING = b"\xc3", b"\xc2", b"\xc0"
ANSWER_BYTES_SPARE = 16
"""What an answer among many takes besides the value, at most."""
SCAN_BYTES = 256 * 1024
SCAN_PARTITIONS = 256
_encode = msgspec.msgpack.Encoder().encode


class KeyValuePartition(Partition[K, V]):
    """One partition of a key/value store; derive from it to add commands that read (or write) `self.items`."""


class _Many(msgspec.Struct, array_like=True, gc=False):
    """Commands for many keys of one node."""

    method: str
    commands: list[Command]


class _ManyAnswer(msgspec.Struct, array_like=True, gc=False):
    """(position in the question, answer) of those that ran."""

    answers: list[tuple[int, msgspec.Raw]]


class _Scan(msgspec.Struct, array_like=True, gc=False):
    """Live items of these partitions, each after a key (empty: from its start)."""

    positions: list[tuple[int, bytes]]
    prefix: msgspec.Raw


class _Scanned(msgspec.Struct, array_like=True, gc=False):
    """Items, and how far each partition is; those that are done, and (partition, epoch, holder) of those elsewhere."""

    items: list[tuple[bytes, msgspec.Raw]]
    positions: list[tuple[int, bytes]]
    done: list[int]
    elsewhere: list[tuple[int, int, int]]


_decode_many = msgspec.msgpack.Decoder(_Many).decode
_decode_many_answer = msgspec.msgpack.Decoder(_ManyAnswer).decode
_decode_scan = msgspec.msgpack.Decoder(_Scan).decode
_decode_scanned = msgspec.msgpack.Decoder(_Scanned).decode
_decode_counts = msgspec.msgpack.Decoder(tuple[list[tuple[int, int]], list[tuple[int, int, int]]]).decode


def _commands(commit: Callable[[Lane, list[tuple[bytes, bytes | None]]], None]) -> dict[str, Quick]:
    def get(lane: Lane, command: Command) -> bytes:
        item = lane.slot.items.items.get(command.key)
        return MISSING if item is None or item.value is None else FOUND + item.value

    def put(lane: Lane, command: Command) -> bytes:
        commit(lane, [(command.key, bytes(command.argument))])
        return NOTHING

    def delete(lane: Lane, command: Command) -> bytes:
        existed = lane.slot.items.get(command.key) is not None
        if existed:
            commit(lane, [(command.key, None)])
        return TRUE if existed else FALSE

    return {"kv.get": get, "kv.put": put, "kv.delete": delete}


def _many(quick: dict[str, Quick], hosting: Hosting, body: msgspec.Raw) -> bytes:
    many = _decode_many(body)
    command_of = quick[many.method]
    answers: list[tuple[int, msgspec.Raw]] = []
    size, limit = 0, hosting.host.settings.message_bytes_max
    for position, command in enumerate(many.commands):
        lane = hosting.lane_of(command.partition)
        if lane.free and hosting.rights.elsewhere(command.partition, command.epoch) is None:
            answer = command_of(lane, command)
            size += len(answer) + ANSWER_BYTES_SPARE
            if size > limit and many.method == "kv.get":
                break  # a read may be asked for again
            answers.append((position, msgspec.Raw(answer)))
    return _encode(_ManyAnswer(answers))


def _size(hosting: Hosting, body: msgspec.Raw) -> bytes:
    counts: list[tuple[int, int]] = []
    elsewhere: list[tuple[int, int, int]] = []
    for partition in msgspec.msgpack.decode(body, type=list[int]):
        lane = hosting.lane_of(partition)
        if lane.slot.executes:
            counts.append((partition, lane.slot.items.live))
        else:
            elsewhere.append(_where(hosting, partition))
    return _encode((counts, elsewhere))


def _where(hosting: Hosting, partition: int) -> tuple[int, int, int]:
    right = hosting.rights.elsewhere(partition, 0) or hosting.rights.slots[partition].right
    return (partition, right.epoch, right.holder)


def _scan(keys: KeyCodec[Any], hosting: Hosting, body: msgspec.Raw) -> bytes:
    scan = _decode_scan(body)
    prefix = msgspec.msgpack.decode(scan.prefix)
    answer = _Scanned([], [], [], [])
    size = 0
    for partition, start in scan.positions:
        slot = hosting.lane_of(partition).slot
        if not slot.executes:
            answer.elsewhere.append(_where(hosting, partition))
            continue
        items, after = slot.items.items, start
        for key in sorted(key for key in items if key > start):
            value = items[key].value
            if value is None or (prefix is not None and not _begins(keys.decode(key), prefix)):
                continue
            if size >= SCAN_BYTES:
                answer.positions.append((partition, after))
                break
            answer.items.append((key, msgspec.Raw(value)))
            size += len(key) + len(value)
            after = key
        else:
            answer.done.append(partition)
        if size >= SCAN_BYTES:
            break
    return _encode(answer)


def _begins(key: Any, prefix: Any) -> bool:
    if isinstance(key, str | bytes):
        return key.startswith(prefix)
    return list(key[: len(prefix)]) == list(prefix)


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
        """The value, or `default` if there is none."""
        return self._found(await self._router.call(self._command(key, _NO_VALUE), "kv.get", self._seconds), default)

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
            value = self._found(answer, _ABSENT)
            if value is not _ABSENT:
                found[key] = value
        return found

    async def _call_many(self, method: str, commands: list[Command]) -> list[msgspec.Raw]:
        return await self._router.call_many(
            commands,
            method,
            "kv.many",
            lambda some: _encode(_Many(method, some)),
            lambda body: _decode_many_answer(body).answers,
            self._seconds,
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
            body = await self._ask(uid, "kv.scan", _encode(_Scan(positions, raw)))
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

    def status(self) -> dict[str, Any]:
        """For `roost status`."""
        return self._service.status()


_NO_VALUE = msgspec.Raw(NOTHING)
_ABSENT = object()


async def open_kv(
    host: Host,
    name: str,
    value: type[V],
    *,
    key: Any = None,
    handler: type[Any] | None = None,
    host_here: bool = True,
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
        host, f"kv:{name}", kind, library, key_kind, value, host_here=host_here, quick=quick, whole=whole
    )
    if service.hosting is not None:
        quick.update(_commands(service.hosting.commit))
        keys = service.keys
        whole["kv.many"] = lambda hosting, body: _many(quick, hosting, body)
        whole["kv.size"] = _size
        whole["kv.scan"] = lambda hosting, body: _scan(keys, hosting, body)
    service.start()
    return KV(service, name)
