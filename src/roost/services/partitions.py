"""Partitions with a handler of the user's own: the base class, the handle, and how a service is opened.

    class Tally(roost.Partition[str, int]):
        async def hit(self, by: int = 1) -> int:
            self.items[self.key] = self.items.get(self.key, 0) + by
            return self.items[self.key]

    tallies = await node.partitions("tally", Tally)
    await tallies.at("page:/home").hit(by=2)

Commands of one partition run one at a time, on its holder; what they write to `self.items` is committed when they
return, all at once, and not at all if they raise.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.hashing import hash_key, partition_of
from roost.core.items import Merge
from roost.core.ring import Ring
from roost.errors import ConfigError
from roost.services.commands import Command, Method, methods_of
from roost.services.host import Host
from roost.services.hosting import Hosting, Quick, Whole
from roost.services.keys import KeyCodec, ValueCodec, type_arguments, type_name
from roost.services.lanes import Lane
from roost.services.losses import PossibleLoss
from roost.services.placement import Placement
from roost.services.replication import Replication
from roost.services.routing import Router
from roost.services.views import PartitionItems
from roost.wire.values import encode

__all__ = ["Partition", "Partitions", "Service", "open_partitions"]

log = logging.getLogger("roost.partitions")

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
H = TypeVar("H", bound="Partition[Any, Any]")
P = ParamSpec("P")

HOOKS = frozenset({"merge", "dump", "load", "is_empty"})


class Partition(Generic[K, V]):
    """One slice of the key space. Public methods are commands; give it no other state than `items`, for that moves.

    A command must not call a key of its own partition through the handle: it would wait for itself.
    """

    items: MutableMapping[K, V]
    """The keys that live in this partition: what is written here is versioned, moves and merges."""

    _key: bytes | None = None
    _keys: KeyCodec[K]

    @property
    def key(self) -> K:
        """The key that `at` was called with. A gathered command has none."""
        if self._key is None:
            raise AttributeError(f"a gathered command of {type(self).__name__} has no key: it runs once a partition")
        return self._keys.decode(self._key)

    def _begin(self, key: bytes | None) -> None:
        self._key = key
        cast(PartitionItems[K, V], self.items).take_written()

    def _written(self) -> list[tuple[bytes, bytes | None]]:
        return cast(PartitionItems[K, V], self.items).take_written()

    def _end(self) -> None:
        self._key = None
        cast(PartitionItems[K, V], self.items).take_written()


class Service(Generic[K]):
    """What `Partitions` and `KV` share: a service on this node, hosted or called only."""

    def __init__(
        self,
        host: Host,
        service: str,
        handler: type[Any],
        library: tuple[type[Any], ...],
        key: Any,
        value: Any,
        *,
        host_here: bool,
        replication: Replication,
        quick: dict[str, Quick] | None = None,
        reads: frozenset[str] = frozenset(),
        whole: dict[str, Whole] | None = None,
    ) -> None:
        self.host = host
        self.name = service
        self.handler = handler
        self.keys: KeyCodec[K] = KeyCodec(key)
        self.values: ValueCodec[Any] = ValueCodec(value)
        self.methods: dict[str, Method] = methods_of(handler, (*library, object), HOOKS)
        for hook in sorted(HOOKS - {"merge"}):
            if hasattr(handler, hook):
                raise ConfigError(f"{hook} is not served yet", where=handler.__qualname__, todo="keep state in items")
        self.replication = replication
        self.placement = Placement(host, service, replication)
        self.hosting: Hosting | None = None
        if host_here:
            self.hosting = Hosting(
                host,
                service,
                self.placement,
                replication,
                merge=self._merge(),
                prepare=self._prepare,
                methods=self.methods,
                quick=quick if quick is not None else {},
                reads=reads,
                whole=whole if whole is not None else {},
            )
        self.router = Router(host, service, self.placement, self.hosting)

    def start(self) -> None:
        """Announce, serve, then look at the view: whoever claims asks everyone, and is asked by them.

        In one turn of the loop, so that nobody asks in between; what is refused first leaves nothing behind.
        """
        hosting = self.hosting
        if hosting is not None:
            self.host.announce(self.name, self.digest)
            self.host.serve(self.name, hosting.handle)
            self.host.on_leave(hosting.drain)
            hosting.start()
        self.host.on_view(self._view_changed)
        self._view_changed()

    @property
    def digest(self) -> int:
        """Of the options that all hosts must share."""
        merges = hasattr(self.handler, "merge")
        options = [self.handler.__qualname__, type_name(self.keys.kind), type_name(self.values.kind), str(merges)]
        options.append(self.replication.shared)
        return xxh3_64_intdigest("\0".join(options).encode())

    def _view_changed(self) -> None:
        self.placement.refresh()
        if self.hosting is not None:
            self.hosting.view_changed()

    def _prepare(self, lane: Lane) -> None:
        handler = self.handler()
        handler.items = PartitionItems(lane.slot, self.keys, self.values)
        handler._keys = self.keys
        lane.handler = handler

    def _merge(self) -> Merge | None:
        hook: Callable[[Any, Any, Any, Any], Any] | None = getattr(self.handler, "merge", None)
        if hook is None:
            return None
        handler = self.handler()
        keys, values = self.keys, self.values

        def merge(key: bytes, a: bytes, b: bytes) -> bytes:
            try:
                return values.encode(hook(handler, keys.decode(key), values.decode(a), values.decode(b)))
            except Exception:
                what = f"{self.handler.__qualname__}.merge failed for {keys.decode(key)!r:.80}"
                log.exception("%s of %s: the newer value stays", what, self.name)
                return b

        return merge

    def partition_of(self, key: bytes) -> int:
        """The partition of an encoded key."""
        return partition_of(hash_key(key, self.host.placement_seed), self.host.settings.partitions)

    def a_copy_of(self, partition: int) -> int:
        """A node that should have a copy of it: this one, else any; 0 where there is none."""
        owners = self.placement.view.owners[partition]
        if self.host.uid in owners:
            return self.host.uid
        return self.host.runtime.rng.choice(owners) if owners else 0

    async def command(self, key: bytes, method: Method, arguments: dict[str, Any]) -> Any:
        """Call a command of the user's, at a key."""
        argument = msgspec.Raw(encode(arguments))
        command = Command(self.partition_of(key), 0, key, argument)
        body = await self.router.call(command, method.name, self.host.settings.call_seconds)
        return method.decode_result(body)

    async def gather(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a command of the user's in every partition."""
        name = getattr(function, "__name__", "")
        method = self.methods.get(name)
        if method is None:
            raise TypeError(f"{function!r} is no command of {self.handler.__name__}: gather({self.handler.__name__}.x)")
        argument = encode(method.arguments(args, kwargs))
        found = await self.router.gather(name, argument, self.host.settings.call_seconds)
        return {partition: method.decode_result(found[partition]) for partition in sorted(found)}

    async def losses(self) -> AsyncIterator[PossibleLoss]:
        """See `Losses.watch`; of a mere caller none."""
        if self.hosting is not None:
            async for loss in self.hosting.losses.watch():
                yield loss

    def status(self) -> dict[str, Any]:
        """See `Hosting.status`; of a mere caller only the name."""
        return {"service": self.name, **(self.hosting.status() if self.hosting is not None else {})}


class _Stub:
    """Stands for the handler at one key. Typed as the handler's class; only its async methods can be reached."""

    __slots__ = ("_key", "_service")

    def __init__(self, service: Service[Any], key: bytes) -> None:
        self._service = service
        self._key = key

    def __repr__(self) -> str:
        kind = self._service.handler.__name__
        return f"<{kind} at {self._service.keys.decode(self._key)!r} of {self._service.name}>"

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        service = self._service
        method = service.methods.get(name)
        if method is None or not method.is_async:
            kind = service.handler
            what = f"{kind.__name__}.{name}"
            if not hasattr(kind, name) and not any(
                name in vars(one).get("__annotations__", ()) for one in kind.__mro__
            ):
                raise AttributeError(f"{kind.__name__} has no method {name!r}")
            raise AttributeError(f"{what} is state, not a call; only async methods cross nodes")

        def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return service.command(self._key, method, method.arguments(args, kwargs))

        call.__name__ = name
        return call


class Partitions(Generic[K, H]):
    """A service of partitions with a handler of the user's own, as this node sees it."""

    def __init__(self, service: Service[K]) -> None:
        self._service = service

    def __repr__(self) -> str:
        return f"<Partitions {self._service.name}: {self.ring!r}>"

    @property
    def ring(self) -> Ring:
        """Which member should have which partition."""
        return self._service.placement.ring

    def at(self, key: K) -> H:
        """The handler at a key. Commands through it raise RoostError with `may_have_run`; those of one caller to one
        partition run in the order in which they were first awaited.
        """
        return cast(H, _Stub(self._service, self._service.keys.encode(key)))

    @overload
    async def gather(
        self, command: Callable[Concatenate[H, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> dict[int, R]: ...
    @overload
    async def gather(
        self, command: Callable[Concatenate[H, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> dict[int, R]: ...
    async def gather(self, command: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[int, Any]:
        """Run a command once in every partition, wherever it is just then; the results by partition."""
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


async def open_partitions(
    host: Host,
    name: str,
    handler: type[H],
    *,
    key: Any = None,
    value: Any = None,
    host_here: bool = True,
    replication: Replication | None = None,
) -> Partitions[Any, H]:
    """Host the service on this node, or only call it. Types not given are those of `Partition[K, V]`.

    Raises ConfigError for a handler whose types cannot travel, or if another host has other options.
    """
    kinds = type_arguments(handler, Partition) or (str, Any)
    key_kind, value_kind = (given if given is not None else own for given, own in zip((key, value), kinds, strict=True))
    library = (Partition, Generic)
    service: Service[Any] = Service(
        host,
        f"partitions:{name}",
        handler,
        cast(Any, library),
        key_kind,
        value_kind,
        host_here=host_here,
        replication=replication if replication is not None else Replication(),
    )
    service.start()
    return Partitions(service)
